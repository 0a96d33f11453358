package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

func (x *export) mergedFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "budget", Usage: "merged: `SIZE` that --type auto may add to the file, such as 20MB", Destination: &x.budget},
	}
}

// mergeOptions reads the form's flags.
func (x *export) mergeOptions() (vera.MergeOptions, error) {
	o := vera.MergeOptions{Type: cmp.Or(x.kind, vera.TypeKeep), Threads: x.options.Threads}
	if x.budget != "" {
		n, err := humanize.ParseBytes(x.budget)
		if err != nil || n == 0 || n > math.MaxInt64 {
			return o, fmt.Errorf("budget %q: a size such as 20MB or 8MiB", x.budget)
		}
		o.Budget = int64(n)
	}
	return o, o.Validate()
}

// merged writes the base model with the adapter in its weights.
func (x *export) merged(c *cli.Context, s *session) error {
	o, err := x.mergeOptions()
	if err != nil {
		return usageError{err}
	}
	var losses []float64
	var d *alpaca.Dataset
	if x.path != "" {
		if d, err = s.data(x.path, x.data, c.App.ErrWriter); err != nil {
			return err
		}
		if losses, err = x.lossesBefore(c, s, d); err != nil {
			return err
		}
	}
	merged, err := s.adapter.SaveMerged(c.Context, x.out, s.File(), o)
	if err != nil {
		return err
	}
	if err := printMerged(c.App.Writer, x.out, merged); err != nil || d == nil {
		return err
	}
	after, err := x.lossMerged(c, d)
	if err != nil {
		return err
	}
	t := newTable(c.App.Writer)
	for i, what := range []string{"loss of the base model", "with the adapter", "of the merged file"} {
		t.row(what, "%.4f", append(losses, after)[i])
	}
	return t.Flush()
}

// lossesBefore measures the base model without and with the adapter, which stays attached.
func (x *export) lossesBefore(c *cli.Context, s *session, d *alpaca.Dataset) ([]float64, error) {
	var losses []float64
	for _, adapter := range []*vera.Adapter{nil, s.adapter} {
		if err := s.Attach(adapter); err != nil {
			return nil, err
		}
		r, err := s.measure(c, d, x.data.Batch)
		if err != nil {
			return nil, err
		}
		losses = append(losses, r.Loss)
	}
	return losses, nil
}

// lossMerged measures the file that was written, as any program would open it.
func (x *export) lossMerged(c *cli.Context, d *alpaca.Dataset) (float64, error) {
	m, err := model.Open(x.out, x.options)
	if err != nil {
		return 0, err
	}
	s := &session{Model: m}
	defer s.Close()
	r, err := s.measure(c, d, x.data.Batch)
	return r.Loss, err
}

// printMerged lists the tensors whose type changed, and sums up.
func printMerged(w io.Writer, path string, merged vera.Merged) error {
	t := newTable(w)
	bytes, added, changed := int64(0), int64(0), 0
	for _, x := range merged.Tensors {
		bytes, added = bytes+x.Bytes, added+x.Added
		if x.Type != x.Was {
			changed++
			t.row(strings.TrimSuffix(x.Name, ".weight"), "%v → %v\t%+.2f MB", x.Was, x.Type, float64(x.Added)/1e6)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s: %d adapted tensors in %.1f MB (%+.1f MB), %d of another type than before; rounding changes them by %.2f of what training did\n",
		path, len(merged.Tensors), float64(bytes)/1e6, float64(added)/1e6, changed, merged.RelativeError())
	return err
}

var _ = errors.New
