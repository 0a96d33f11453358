package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// loraForm holds the flags of the LoRA form.
type loraForm struct {
	rank   int
	asJSON bool
}

// loraResult is what `veratune export --to lora --json` prints.
type loraResult struct {
	vera.LoRA
	Losses []exportLoss `json:"losses,omitempty"`
}

func (x *export) loraFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "rank", Usage: "lora: rank of the LoRA, less than the adapter's for a smaller file that " +
			"holds nearly the most of each layer's change; 0 is the adapter's own, exact",
			Destination: &x.loraForm.rank},
		&cli.BoolFlag{Name: "json", Usage: "lora and merged: print one JSON object, with every layer",
			Destination: &x.loraForm.asJSON},
	}
}

func (x *export) loraOptions() vera.LoRAOptions {
	return vera.LoRAOptions{Rank: x.loraForm.rank, Type: cmp.Or(x.kind, vera.DefaultLoRA().Type),
		Threads: x.Engine.Threads, Overwrite: x.out.overwrite}
}

func (x *export) checkLoRA() error { return x.loraOptions().Validate() }

// lora writes the file that llama.cpp loads beside the base model.
func (x *export) lora(c *cli.Context, s *session.Session) error {
	d, err := x.rows(c, s)
	if err != nil {
		return err
	}
	r := loraResult{}
	if r.LoRA, err = x.saveLoRA(c, s.Adapter); err != nil {
		return err
	}
	if r.Losses, err = x.losses(c, d, exportLoss{Of: "LoRA", model: x.Model, adapter: x.out.path}); err != nil {
		return err
	}
	if x.loraForm.asJSON {
		return json.NewEncoder(c.App.Writer).Encode(r)
	}
	return r.print(c.App.Writer, x.out.path)
}

// saveLoRA shows how a decomposition of the layers gets on; that they are copied takes a moment.
func (x *export) saveLoRA(c *cli.Context, a *vera.Adapter) (vera.LoRA, error) {
	o := x.loraOptions()
	if o.Rank > 0 {
		progress := newReporter(c.App.ErrWriter, "layers of the LoRA")
		defer progress.line.End()
		o.Progress = func(done, total int) { progress.step(1, done, 0, total) }
	}
	return a.SaveLoRA(c.Context, x.out.path, o)
}

// print sums up: of the layers only those that lost most are named.
func (r loraResult) print(w io.Writer, path string) error {
	t := newTable(w)
	t.row("LoRA", "%s, rank %d, %.1f MB, %d layers", path, r.Rank, float64(r.Bytes)/1e6, len(r.Layers))
	t.row("tensors", "%s", r.types())
	worst := slices.SortedFunc(slices.Values(r.Layers), func(a, b vera.LoRALayer) int {
		return cmp.Compare(a.Retained, b.Retained)
	})
	if worst[0].Retained < 1 {
		sum := 0.0
		for _, l := range worst {
			sum += l.Retained
		}
		t.row("retained energy", "%.4f on average, of the squared singular values of a layer's change; least:",
			sum/float64(len(worst)))
		for _, l := range worst[:min(5, len(worst))] {
			t.row("", "%.4f  %s", l.Retained, l.Name)
		}
	}
	for _, l := range r.Losses {
		t.row("loss, "+l.Of, "%.6f", l.Loss)
	}
	t.row("use it with", "llama-cli -m MODEL.gguf --lora %s", path)
	return t.Flush()
}

// types says how many tensors have which type; q8_0 leaves those in f16 whose rows are no whole blocks.
func (r loraResult) types() string {
	counts := map[string]int{}
	for _, l := range r.Layers {
		counts[l.TypeA]++
		counts[l.TypeB]++
	}
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%d in %s", counts[kind], kind))
	}
	return strings.Join(list, ", ")
}
