package watch

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/train"
)

// served serves runs for as long as the test goes on, and gives the address.
func served(t *testing.T, folders ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, l, folders) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/"
}

func TestHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:8372": true, "127.0.0.1:8372": true, "[::1]:8372": true, "[::1]": true,
		"192.168.1.7:80": true,
		"":               false, "evil.example": false, "evil.example:8372": false, "127.0.0.1.evil.example": false,
		"localhost.evil.example:8372": false, "localhost.": false,
	} {
		if direct(host) != want {
			t.Errorf("host %q: answered %v, want %v", host, !want, want)
		}
	}
}

func TestServerRefuses(t *testing.T) {
	address := served(t, invent(t, "run", 3))
	for _, c := range []struct {
		method, path, host string
		want               int
	}{
		{"GET", "", "", http.StatusOK},
		{"GET", "", "evil.example", http.StatusMisdirectedRequest},
		{"GET", "events", "evil.example", http.StatusMisdirectedRequest},
		{"GET", "charts", "evil.example", http.StatusMisdirectedRequest},
		{"GET", "config.json", "", http.StatusNotFound},
		{"POST", "", "", http.StatusMethodNotAllowed},
		{"POST", "events", "", http.StatusMethodNotAllowed},
	} {
		request, err := http.NewRequest(c.method, address+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			request.Host = c.host
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.want || c.want != http.StatusOK && strings.Contains(string(body), "rank") {
			t.Errorf("%s /%s for host %q: %d, want %d", c.method, c.path, c.host, response.StatusCode, c.want)
		}
		if c.want == http.StatusOK && response.Header.Get("Access-Control-Allow-Origin")+response.Header.Get(
			"X-Content-Type-Options") != "nosniff" {
			t.Errorf("headers %v", response.Header)
		}
	}
}

func TestEvents(t *testing.T) {
	first, second := invent(t, "first", 3), invent(t, "second", 2)
	response, err := http.Get(served(t, first, second) + "events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("content type %q", kind)
	}
	stream := bufio.NewReader(response.Body)
	event := func() (n news) {
		t.Helper()
		line, err := stream.ReadString('\n')
		blank, _ := stream.ReadString('\n')
		text, found := strings.CutPrefix(line, "data: ")
		if err == nil && found && blank == "\n" {
			err = json.Unmarshal([]byte(text), &n)
		}
		if err != nil || !found {
			t.Fatalf("%q: %v", line, err)
		}
		return n
	}
	for i, folder := range []string{first, second} {
		if n := event(); n.Run != i || n.Begin == nil || n.Begin.Name != folder ||
			n.Begin.Settings["setup.vera.rank"] != "256" || len(n.Records) != 4-i {
			t.Errorf("at first: %+v", n)
		}
	}
	extend(t, second, lines(2, 3))
	if n := event(); n.Run != 1 || n.Begin != nil || len(n.Records) != 1 || n.Records[0].Step != 3 {
		t.Errorf("a line more: %+v", n)
	}
	// What can't be read is told once, and that it can be read again.
	adapter := filepath.Join(first, train.AdapterFile)
	write(t, adapter, "no adapter")
	if n := event(); n.Run != 0 || n.Trouble == "" {
		t.Errorf("a damaged adapter: %+v", n)
	}
	if err := os.Remove(adapter); err != nil {
		t.Fatal(err)
	}
	if n := event(); n.Run != 0 || n.Trouble != "" || n.Begin != nil {
		t.Errorf("the trouble is over: %+v", n)
	}
}

func TestChartsServed(t *testing.T) {
	first, second := invent(t, "first", 3), invent(t, "second", 2)
	address := served(t, first, second)
	count := func() (n []int) {
		t.Helper()
		response, err := http.Get(address + "charts")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var charts []chart
		if err := json.NewDecoder(response.Body).Decode(&charts); err != nil || len(charts) != 5 {
			t.Fatalf("%d charts, %v", len(charts), err)
		}
		for _, l := range charts[1].Lines {
			n = append(n, l.Shade, len(l.Steps))
		}
		return n
	}
	if n := count(); !slices.Equal(n, []int{0, 3, 1, 2}) {
		t.Errorf("at first %v", n)
	}
	extend(t, second, lines(2, 5))
	if err := os.RemoveAll(first); err != nil {
		t.Fatal(err)
	}
	if n := count(); !slices.Equal(n, []int{1, 5}) {
		t.Errorf("one is away, the other goes on: %v", n)
	}
}
