package main

import (
	"cmp"
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

// merged writes the base model with W + ΔW in place of W.
func (x *export) merged(c *cli.Context, s *session) error {
	o, err := x.mergeOptions()
	if err != nil {
		return usageError{err}
	}
	var d *alpaca.Dataset
	if x.path != "" {
		if d, err = s.data(x.path, x.data, c.App.ErrWriter); err != nil {
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
	return x.compareMerged(c, s, d)
}

// printMerged lists the tensors that got another type, and sums up.
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
	_, err := fmt.Fprintf(w, "%s: %d adapted tensors in %.1f MB (%+.1f MB), %d in another type than before; rounding error %.2f of the update's size\n",
		path, len(merged.Tensors), float64(bytes)/1e6, float64(added)/1e6, changed, merged.RelativeError())
	return err
}

// compareMerged prints the losses of the base model, with the adapter, and of the merged file, which is opened as any program would.
func (x *export) compareMerged(c *cli.Context, s *session, d *alpaca.Dataset) error {
	m, err := model.Open(x.out, x.options)
	if err != nil {
		return err
	}
	written := &session{Model: m}
	defer written.Close()
	adapted, err := s.measure(c, d, x.data.Batch)
	if err != nil {
		return err
	}
	if err := s.Attach(nil); err != nil {
		return err
	}
	base, err := s.measure(c, d, x.data.Batch)
	if err != nil {
		return err
	}
	after, err := written.measure(c, d, x.data.Batch)
	if err != nil {
		return err
	}
	t := newTable(c.App.Writer)
	t.row("loss of the base model", "%.4f", base.Loss)
	t.row("with the adapter", "%.4f", adapted.Loss)
	t.row("of the merged file", "%.4f", after.Loss)
	return t.Flush()
}
