package mtbench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Progress is how far the answering or judging has come.
type Progress struct {
	Done, Total int // Done includes what an earlier run has done
	Failed      int
	Err         error // the name of the item that has just ended, around the error that it failed with; or nil
}

// Failed is the error of work of which some items failed. What could be done is kept, and the same call does the rest.
type Failed struct {
	What  string  // what the items are, such as "answers of base"
	Total int     // items, those that an earlier call did included
	Items []error // of those that failed
	Left  int     // items that were not begun, since they would have failed alike
}

func (f *Failed) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d %s failed", len(f.Items), f.Total, f.What)
	if f.Left > 0 {
		fmt.Fprintf(&b, " and %d were not tried", f.Left)
	}
	b.WriteString("; the rest is kept, and the same command goes on from there")
	for _, err := range f.Items {
		fmt.Fprintf(&b, "\n  %v", err)
	}
	return b.String()
}

func (f *Failed) Unwrap() []error { return f.Items }

// hopeless is an error that all other items would end in, too.
type hopeless struct{ error }

func (h hopeless) Unwrap() error { return h.error }

// item is a piece of work that is done on its own.
type item struct {
	name string
	do   func(ctx context.Context) error
}

// work does items, some at a time.
type work struct {
	what     string
	parallel int
	items    []item
	before   int // items that an earlier run did
	progress func(Progress)

	mu     sync.Mutex
	done   int
	failed []error
	lost   bool // an item's error was hopeless
}

// run does every item in their order, whichever of them fail. When ctx is cancelled it begins no more, and waits for
// those that are under way.
func (w *work) run(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(w.parallel)
	for _, it := range w.items {
		g.Go(func() error {
			if !w.over(ctx) {
				w.end(ctx, it, it.do(ctx))
			}
			return nil
		})
	}
	g.Wait()
	left := len(w.items) - w.done - len(w.failed)
	switch {
	case ctx.Err() != nil && left > 0:
		return fmt.Errorf("interrupted: %d of %d %s are kept, and the same command goes on from there: %w",
			w.before+w.done, w.before+len(w.items), w.what, ctx.Err())
	case len(w.failed) > 0:
		return &Failed{What: w.what, Total: w.before + len(w.items), Items: w.failed, Left: left}
	}
	return nil
}

func (w *work) over(ctx context.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost || ctx.Err() != nil
}

func (w *work) end(ctx context.Context, it item, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return // not a failure of the item
		}
		w.lost = w.lost || errors.As(err, new(hopeless))
		err = fmt.Errorf("%s: %w", it.name, err)
		w.failed = append(w.failed, err)
	} else {
		w.done++
	}
	if w.progress != nil {
		w.progress(Progress{Done: w.before + w.done, Total: w.before + len(w.items), Failed: len(w.failed), Err: err})
	}
}

// digest is a hash of some values, for what must look random and be the same in every run.
func digest(values ...any) [sha256.Size]byte {
	text, _ := json.Marshal(values) // numbers and strings only
	return sha256.Sum256(text)
}

// seed draws a seed of 31 bits, which every server takes.
func seed(values ...any) uint64 {
	d := digest(values...)
	return uint64(binary.LittleEndian.Uint32(d[:]) >> 1)
}

// identifier has the length of those that FastChat gives.
func identifier(values ...any) string {
	d := digest(values...)
	return hex.EncodeToString(d[:11])
}

func now() float64 { return float64(time.Now().UnixMicro()) / 1e6 }
