package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"testing"

	system "github.com/shirou/gopsutil/v4/process"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// soakVariable says how many steps TestSoak trains; `make test-soak` takes 2,000.
const soakVariable = "VERATUNE_TEST_SOAK"

// holding is what the process holds after a step.
type holding struct {
	step, goroutines, files int
	// resident bytes that are in use: without those that Go keeps for what it will allocate next
	memory uint64
}

// observed is written the program's messages, and looks at the process whenever an evaluation is told.
type observed struct {
	seen []holding
	err  error
}

var evaluated = regexp.MustCompile(`step (\d+)/\d+  held-out loss`)

func (w *observed) Write(message []byte) (int, error) {
	for _, m := range evaluated.FindAllSubmatch(message, -1) {
		step, _ := strconv.Atoi(string(m[1]))
		debug.FreeOSMemory() // what nothing refers to may be given back at any time
		self, err := system.NewProcess(int32(os.Getpid()))
		if err != nil {
			w.err = err
			continue
		}
		info, err := self.MemoryInfo()
		if err != nil {
			w.err = err
			continue
		}
		free := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
		metrics.Read(free)
		files, _ := os.ReadDir("/proc/self/fd")
		w.seen = append(w.seen, holding{step, runtime.NumGoroutine(), len(files), info.RSS - free[0].Value.Uint64()})
	}
	return len(message), nil
}

// A long training with evaluations and checkpoints holds no more memory, goroutines or open files at its end than soon
// after its beginning.
func TestSoak(t *testing.T) {
	steps := 125
	if n, err := strconv.Atoi(os.Getenv(soakVariable)); err == nil {
		steps = n
	} else if testing.Short() {
		t.Skip("takes seconds")
	}
	runtime.MemProfileRate = 0 // the program has no memory profile; a test's grows
	model, data, out := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1}), rows(t, 60),
		filepath.Join(t.TempDir(), "run")
	var w observed
	var stdout bytes.Buffer
	args := alpacaArgs(model, data, out, "--steps", strconv.Itoa(steps), "--eval-every", "25", "--save-every", "10")
	if code := run(append([]string{"veratune"}, args...), &stdout, &w); code != 0 || w.err != nil {
		t.Fatalf("exit code %d, %v, %s", code, w.err, &stdout)
	}
	var early, last holding
	for _, h := range w.seen {
		if h.step >= 50 && early.step == 0 {
			early = h
		}
		last = h
	}
	t.Logf("after %d steps %+v, after %d %+v", early.step, early, last.step, last)
	if last.step != steps || early.step == 0 {
		t.Fatalf("seen: %+v", w.seen)
	}
	if last.memory > early.memory+early.memory/50 {
		t.Errorf("memory grew: %+v", w.seen)
	}
	if last.goroutines > early.goroutines || last.files > early.files {
		t.Errorf("goroutines or open files grew: %+v", w.seen)
	}
}
