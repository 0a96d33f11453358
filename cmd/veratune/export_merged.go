package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// mergedForm holds the options of the merged form alone.
type mergedForm struct {
	budget string // that --type auto may add
	merge  vera.MergeOptions
}

func (x *export) mergedFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "budget", Usage: "merged: `SIZE` that --type auto may add to the file, such as 20MB",
			Destination: &x.budget},
	}
}

// checkMerged reads the form's flags.
func (x *export) checkMerged() error {
	x.merge = vera.MergeOptions{Type: cmp.Or(x.kind, vera.TypeKeep), Threads: x.Engine.Threads,
		Overwrite: x.out.overwrite}
	if x.budget != "" {
		n, err := humanize.ParseBytes(x.budget)
		if err != nil || n == 0 || n > math.MaxInt64 {
			return fmt.Errorf("budget %q: a size such as 20MB or 8MiB", x.budget)
		}
		x.merge.Budget = int64(n)
	}
	return x.merge.Validate()
}

// mergedResult is what `veratune export --to merged --json` prints.
type mergedResult struct {
	vera.Merged
	Losses []exportLoss `json:"losses,omitempty"`
}

// merged writes the base model with W + ΔW in place of W.
func (x *export) merged(c *cli.Context, s *session.Session) error {
	d, err := x.rows(c, s)
	if err != nil {
		return err
	}
	r := mergedResult{}
	if r.Merged, err = s.Adapter.SaveMerged(c.Context, x.out.path, s.File(), x.merge); err != nil {
		return err
	}
	if r.Losses, err = x.losses(c, d, exportLoss{Of: "merged", model: x.out.path}); err != nil {
		return err
	}
	if x.asJSON {
		return json.NewEncoder(c.App.Writer).Encode(r)
	}
	return r.print(c.App.Writer, x.out.path)
}

// finer says how to keep more of an update of which rounding takes the most.
func (r mergedResult) finer() string {
	if r.Kept() >= 0.5 {
		return ""
	}
	return "; a finer type keeps more: --type q8_0 for all adapted tensors, or --type auto --budget 20MB for those " +
		"that gain most"
}

// print sums up, and lists the tensors that got another type.
func (r mergedResult) print(w io.Writer, path string) error {
	t := newTable(w)
	t.row("merged", "%s, %.1f MB", path, float64(r.Bytes)/1e6)
	bytes, added, changed := int64(0), int64(0), 0
	for _, x := range r.Tensors {
		bytes, added = bytes+x.Bytes, added+x.Added
		if x.Type != x.Was {
			changed++
		}
	}
	t.row("adapted tensors", "%d in %.1f MB", len(r.Tensors), float64(bytes)/1e6)
	t.row("update kept", "%.1f%%, the rest is lost in rounding%s", 100*r.Kept(), r.finer())
	t.row("in another type", "%d tensors, %+.1f MB", changed, float64(added)/1e6)
	for _, x := range r.Tensors {
		if x.Type != x.Was {
			t.row("", "%s  %s → %s  %+.2f MB", strings.TrimSuffix(x.Name, ".weight"), x.Was, x.Type,
				float64(x.Added)/1e6)
		}
	}
	for _, l := range r.Losses {
		t.row("loss, "+l.Of, "%.6f", l.Loss)
	}
	return t.Flush()
}
