package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/dustin/go-humanize"

	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// adapters holds the adapters that are read, as many as its limit of memory allows. An adapter is read when it is first
// asked for, and again when its file has changed; answers that are being made keep the one they began with.
type adapters struct {
	library library
	read    func(path string) (*vera.Adapter, error)
	engine  engine
	limit   int64 // bytes
	metrics *metrics
	loading chan struct{} // full while as many files are read as may be at a time
	working sync.WaitGroup

	mu    sync.Mutex
	held  map[string]*adapter
	bytes int64 // of all that are placed
	clock int64 // counts uses
}

// loadsAtATime bounds the memory of reading, in which vectors are 32 bits.
const loadsAtATime = 2

// adapter is what a name stands for, as its file was when it was looked at.
type adapter struct {
	name   string
	source source
	ready  chan struct{} // closed once what follows is there
	placed *model.Placed // nil where err isn't
	facts  map[string]string
	err    error

	// Guarded by adapters.mu.
	uses    int   // by requests
	used    int64 // when it last was, on the clock
	loaded  bool
	dropped bool // it is not held any more, and its memory is freed after the last use
}

func newAdapters(s *Server) (*adapters, error) {
	l, err := openLibrary(s.options.Folder, s.options.Adapters)
	if err != nil {
		return nil, err
	}
	return &adapters{library: l, read: s.base.Load, engine: s.engine, limit: s.options.AdapterMemory,
		metrics: s.metrics, loading: make(chan struct{}, loadsAtATime), held: map[string]*adapter{}}, nil
}

// close waits for what is being read or removed. There must be no request any more.
func (a *adapters) close() {
	a.working.Wait()
	a.library.close()
}

// use gives the adapter of a name, read and placed. It must be released after the last answer.
func (a *adapters) use(ctx context.Context, name string) (*adapter, error) {
	src, err := a.library.find(name)
	if err != nil {
		a.forget(name)
		return nil, lost(name, err)
	}
	x := a.take(name, src)
	select {
	case <-x.ready:
	case <-ctx.Done():
		a.release(x)
		return nil, context.Cause(ctx)
	}
	if x.err != nil {
		a.release(x)
		return nil, x.err
	}
	return x, nil
}

// lost is the error of a name without a source.
func lost(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("model", codeModel, "the model %q does not exist; /v1/models lists those that do",
			excerpt(name))
	}
	return unusable(name, errors.New("its file is not readable within the folder of adapters"))
}

// unusable is the error of an adapter whose file is broken, or no adapter of this model. An error that has its form
// already keeps it.
func unusable(name string, err error) error {
	if ours := (*failure)(nil); errors.As(err, &ours) {
		return err
	}
	f := newFailure(http.StatusInternalServerError, typeServer, "model", codeAdapter,
		"the adapter %q can't be used: %v",
		name, err)
	f.final = true
	return f
}

// excerpt is the beginning of a name that a client gave.
func excerpt(name string) string {
	const most = 100
	if len(name) > most {
		name = name[:most] + "…"
	}
	return strings.ToValidUTF8(name, "\uFFFD")
}

// take gives a name's adapter for a use, and begins to read it where it isn't held in the present state of its file.
func (a *adapters) take(name string, src source) *adapter {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.held[name]
	if x == nil || !x.source.same(src) {
		if x != nil {
			a.drop(x)
		}
		x = &adapter{name: name, source: src, ready: make(chan struct{})}
		a.held[name] = x
		a.working.Go(func() { a.load(x) })
	}
	a.clock++
	x.uses, x.used = x.uses+1, a.clock
	return x
}

// release ends a use.
func (a *adapters) release(x *adapter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x.uses--
	a.free(x)
}

// forget drops the adapter of a name whose file is gone.
func (a *adapters) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.held[name]; x != nil {
		a.drop(x)
	}
}

// keep drops the adapters of all other names.
func (a *adapters) keep(names map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, x := range a.held {
		if !names[name] {
			a.drop(x)
		}
	}
}

// drop takes an adapter out of those that are held.
func (a *adapters) drop(x *adapter) {
	if a.held[x.name] == x {
		delete(a.held, x.name)
	}
	x.dropped = true
	a.free(x)
}

// free gives back the memory of an adapter that was dropped and has no use any more.
func (a *adapters) free(x *adapter) {
	if x.dropped && x.uses == 0 && x.loaded && x.placed != nil {
		a.unplace(x)
	}
}

// unplace takes an adapter out of the engine, which may first end what it computes.
func (a *adapters) unplace(x *adapter) {
	p := x.placed
	a.bytes -= p.Bytes()
	x.placed = nil
	a.working.Go(func() { a.engine.Remove(p) })
	a.metrics.adapters(-1, a.bytes)
}

// load reads an adapter and places it beside the others. What is wrong with its file stays wrong until that changes;
// after another failure, the next request has it tried again.
func (a *adapters) load(x *adapter) {
	a.loading <- struct{}{}
	loaded, readErr := a.open(x)
	var placed *model.Placed
	err := readErr
	if err == nil {
		placed, err = a.engine.Place(loaded)
	}
	<-a.loading
	a.metrics.load(err)

	a.mu.Lock()
	defer a.mu.Unlock()
	defer close(x.ready)
	x.loaded = true
	if err == nil {
		x.placed, x.facts = placed, loaded.Facts
		a.bytes += placed.Bytes()
		a.metrics.adapters(1, a.bytes)
		err = a.makeRoom(x)
	}
	if err != nil {
		x.err = unusable(x.name, err)
		if x.placed != nil {
			a.unplace(x)
		}
		if readErr == nil {
			a.drop(x)
		}
	}
	a.free(x)
}

// open reads the file. One that is cut short while it is read ends the program, unless the fault is caught.
func (a *adapters) open(x *adapter) (loaded *vera.Adapter, err error) {
	debug.SetPanicOnFault(true) // of this goroutine, which ends after it
	defer func() {
		switch p := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			err = errors.New("its file was cut short while it was read")
		default:
			err = fmt.Errorf("reading it failed: %v", p)
		}
	}()
	path, err := a.library.adapter(x.source)
	if err != nil {
		return nil, err
	}
	loaded, err = a.read(path)
	if err != nil { // the client need not know where the file is
		err = errors.New(strings.ReplaceAll(err.Error(), path, x.name))
	}
	return loaded, err
}

// makeRoom drops adapters that nobody uses, those first that were not for the longest time, until the limit is kept. It
// fails where those in use, x among them, are too much.
func (a *adapters) makeRoom(x *adapter) error {
	for a.bytes > a.limit {
		var oldest *adapter
		for _, other := range a.held {
			if other != x && other.uses == 0 && other.placed != nil && (oldest == nil || other.used < oldest.used) {
				oldest = other
			}
		}
		if oldest == nil && x.placed.Bytes() > a.limit {
			return fmt.Errorf("it takes %s of memory, and --adapter-memory allows %s",
				humanize.IBytes(uint64(x.placed.Bytes())), humanize.IBytes(uint64(a.limit)))
		}
		if oldest == nil {
			return busy(http.StatusServiceUnavailable, codeMemory, 1,
				"all memory of adapters is in use; try again, or "+
					"raise --adapter-memory")
		}
		a.drop(oldest)
		a.metrics.evictions.Inc()
	}
	return nil
}
