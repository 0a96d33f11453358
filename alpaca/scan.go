package alpaca

import (
	"bytes"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// rowsAtOnce is how many rows are worked on side by side.
const rowsAtOnce = 256

// eachRow goes through a file once: work is done for its rows on all processors, and take gets what comes of it in the order of the file, until it fails.
func eachRow[T any](f rowFile, name string, progress func(file string, part float64), work func(number int, at place, raw []byte) T, take func(T) error) error {
	type job struct {
		number int
		at     place
		raw    []byte
		done   T
	}
	var jobs []job
	finish := func() error {
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i := range jobs {
			g.Go(func() error {
				j := &jobs[i]
				j.done = work(j.number, j.at, j.raw)
				return nil
			})
		}
		g.Wait()
		for _, j := range jobs {
			if err := take(j.done); err != nil {
				return err
			}
		}
		if n := len(jobs); n > 0 && progress != nil {
			progress(name, float64(jobs[n-1].at.offset)/float64(f.length()))
		}
		jobs = jobs[:0]
		return nil
	}
	err := f.scan(func(number int, at place, raw []byte) error {
		jobs = append(jobs, job{number: number, at: at, raw: bytes.Clone(raw)})
		if len(jobs) < rowsAtOnce {
			return nil
		}
		return finish()
	})
	if err != nil {
		return err
	}
	return finish()
}
