package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/veratune/veratune/train"
)

// pause is how long the server waits before it looks at the runs again.
const pause = time.Second

// Serve shows the runs at the listener's address until ctx is cancelled.
func Serve(ctx context.Context, l net.Listener, folders []string) error {
	var live page
	live.Data.Live = true
	var html bytes.Buffer
	if err := live.write(&html); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(html.Bytes())
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		follow(r.Context(), w, followers(folders))
	})
	mux.HandleFunc("GET /charts", func(w http.ResponseWriter, _ *http.Request) { sendCharts(w, folders) })
	server := &http.Server{Handler: guard(mux), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

// guard answers only who asks for localhost or for an address in numbers. A page elsewhere whose name was made to point
// here (DNS rebinding) asks for that name.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !direct(r.Host) {
			http.Error(w, "veratune watch is at localhost, or at the number of its address",
				http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func direct(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}

// follow sends events about the runs until ctx is cancelled or the client is gone: first all of them, then what is new.
func follow(ctx context.Context, w http.ResponseWriter, runs []*follower) {
	for _, f := range runs {
		defer f.close()
	}
	out := http.NewResponseController(w)
	trouble := make([]string, len(runs))
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		for i, f := range runs {
			n, err := f.next()
			now := ""
			if err != nil {
				now = err.Error()
			}
			if n == nil && now == trouble[i] {
				continue
			}
			if n == nil {
				n = &news{Run: i, Records: []train.Record{}}
			}
			n.Trouble, trouble[i] = now, now
			data, err := json.Marshal(n)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
				return
			}
		}
		if out.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sendCharts sends the charts of runs.
func sendCharts(w http.ResponseWriter, folders []string) {
	charts, err := Charts(folders)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(charts)
}
