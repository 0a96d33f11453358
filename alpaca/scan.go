package alpaca

import (
	"bytes"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// rowsAtOnce is how many rows are worked on side by side.
const rowsAtOnce = 256

// eachRow goes through a file once: work is done for its rows on all processors, and take gets what comes of it in the
// order of the file, until it fails or o.Context ends.
func eachRow[T any](f rowFile, name string, o Options, work func(rawRow) T, take func(T) error) error {
	var rows []rawRow
	var done [rowsAtOnce]T
	finish := func() error {
		var g errgroup.Group
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i, raw := range rows {
			g.Go(func() error {
				done[i] = work(raw)
				return nil
			})
		}
		g.Wait()
		if err := o.context().Err(); err != nil {
			return err
		}
		for i := range rows {
			if err := take(done[i]); err != nil {
				return err
			}
		}
		if n := len(rows); n > 0 && o.Progress != nil {
			o.Progress(name, float64(rows[n-1].place.offset)/float64(f.length()))
		}
		rows = rows[:0]
		return nil
	}
	err := f.scan(func(raw rawRow) error {
		raw.json = bytes.Clone(raw.json)
		rows = append(rows, raw)
		if len(rows) < rowsAtOnce {
			return nil
		}
		return finish()
	})
	if err != nil {
		return err
	}
	return finish()
}
