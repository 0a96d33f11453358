package alpaca

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// A packed file costs no more memory than a plain one, and gives the same rows.
func TestManyShareGPTRows(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads 200,000 rows")
	}
	const rows = 100_000
	plain, packed := filepath.Join(t.TempDir(), "a.jsonl"), filepath.Join(t.TempDir(), "a.jsonl.zst")
	writeShareGPT(t, rows, plain, packed)
	a, b := load(t, plain), load(t, packed)
	if a.rows != rows || b.rows != rows || a.fingerprint != b.fingerprint {
		t.Errorf("%d rows %s of the plain file, %d rows %s of the packed one", a.rows, a.fingerprint, b.rows,
			b.fingerprint)
	}
	const slack = 8 << 20 // the collector runs when it likes
	if b.peak > a.peak*11/10+slack || b.alive > a.alive*11/10+1<<20 {
		t.Errorf("the packed file took %d bytes and keeps %d, the plain one %d and %d", b.peak, b.alive,
			a.peak, a.alive)
	}
	t.Logf("peak %.1f and %.1f MiB, alive %.1f and %.1f MiB", mib(a.peak), mib(b.peak), mib(a.alive), mib(b.alive))
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

func writeShareGPT(t *testing.T, rows int, plain, packed string) {
	t.Helper()
	f, err := os.Create(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := os.Create(packed)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	z, err := zstd.NewWriter(g, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	w, v := bufio.NewWriter(f), bufio.NewWriter(z)
	for i := range rows {
		row := fmt.Sprintf(`{"id": %d, "conversations": [{"from": "human", "value": "Say %d."}, {"from": "gpt", `+
			`"value": "%d."}]}`+"\n", i, i, i)
		w.WriteString(row)
		v.WriteString(row)
	}
	for _, end := range []func() error{w.Flush, v.Flush, z.Close} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
}

// loaded is what came of a file, with the bytes of the heap while it was read, and after.
type loaded struct {
	rows        int
	fingerprint string
	peak, alive uint64
}

func load(t *testing.T, path string) (l loaded) {
	t.Helper()
	runtime.GC()
	stop, done := make(chan bool), make(chan bool)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				l.peak = max(l.peak, heap())
			}
		}
	}()
	o := Default()
	d, err := Load(whole(path), fakeTokenizer{chat: chatML}, o)
	close(stop)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	runtime.GC()
	l.rows, l.fingerprint = d.Len(), d.Source(o).Fingerprint()
	l.alive = heap() - min(before, heap())
	l.peak -= min(before, l.peak)
	runtime.KeepAlive(d)
	return l
}
