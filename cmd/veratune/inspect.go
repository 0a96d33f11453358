package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

func inspectCommand() *cli.Command {
	var asJSON bool
	return &cli.Command{
		Name:      "inspect",
		Usage:     "say what a model or an adapter is, or that of a run folder",
		ArgsUsage: "FILE",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print one JSON object", Destination: &asJSON}},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError{fmt.Errorf("inspect takes one file: a GGUF model, an adapter, a folder of PEFT " +
					"or of a run")}
			}
			path, err := found(c.Args().First(), c.App.ErrWriter)
			if err != nil {
				return err
			}
			return inspect(path, c.App.Writer, asJSON)
		},
	}
}

func inspect(path string, w io.Writer, asJSON bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	adapter := info.IsDir()
	if !adapter {
		if adapter, err = model.IsAdapter(path); err != nil {
			return err
		}
	}
	if adapter {
		s, err := vera.Summarize(path)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(w).Encode(s)
		}
		return printAdapter(w, s)
	}
	d, err := model.Describe(path)
	if err != nil {
		return err
	}
	m := modelSummary{Description: d}
	if m.Facts, err = vera.FileFacts(path); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(w).Encode(m)
	}
	return printModel(w, m)
}

// modelSummary is what is known of a model. A model that an adapter was merged into tells of both.
type modelSummary struct {
	model.Description
	Facts map[string]string `json:"facts,omitempty"`
}

// table writes lines of a name and a value in two columns.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) table { return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (t table) row(name, format string, args ...any) {
	fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
}

func (t table) facts(facts map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(facts)) {
		t.row(strings.ReplaceAll(key, "_", " "), "%s", oneLine(facts[key]))
	}
}

func printModel(w io.Writer, d modelSummary) error {
	t := newTable(w)
	t.row("model", "%s", d.Name)
	t.row("weights", "%d numbers in %.1f MB", d.Numbers, float64(d.Bytes)/1e6)
	for _, kind := range slices.Sorted(maps.Keys(d.Types)) {
		t.row("", "%s: %.1f MB", kind, float64(d.Types[kind])/1e6)
	}
	t.row("architecture", "%s", d.Architecture)
	for _, trait := range d.MadeOf {
		t.row("", "%s", trait)
	}
	t.row("adapted", "%s", adapted(d.Description))
	if len(d.Frozen) > 0 {
		t.row("frozen", "%s", strings.Join(d.Frozen, ", "))
	}
	t.row("blocks", "%d", d.Blocks)
	t.row("width", "%d, feed-forward %d", d.Width, d.Hidden)
	if d.Experts > 0 {
		t.row("experts", "%d frozen ones in each block, of which a token uses %d", d.Experts, d.ExpertsUsed)
	}
	t.row("heads", "%d of %d numbers, %d for keys and values", d.Heads, d.HeadDim, d.KVHeads)
	if d.Tokens < d.Vocab {
		t.row("vocabulary", "%d tokens, %d rows of the embedding", d.Tokens, d.Vocab)
	} else {
		t.row("vocabulary", "%d", d.Vocab)
	}
	t.row("tokenizer", "%s%s", d.Tokenizer, either(d.PreTokenizer != "", ", pre-tokenizer "+d.PreTokenizer, ""))
	t.row("context", "%d tokens", d.Context)
	t.row("fingerprint", "%s", d.Fingerprint)
	if len(d.Facts) > 0 {
		t.row("made by", "veratune, which merged an adapter into its base model:")
		t.facts(d.Facts)
	}
	return t.Flush()
}

// adapted says which linear layers of a model an adapter adapts where --targets and --layers say nothing else, and how
// much it trains.
func adapted(d model.Description) string {
	layers, out := 0, 0
	var names []string
	for _, t := range d.Targets {
		layers, out, names = layers+t.Layers, out+t.Layers*t.Out, append(names, t.Name)
	}
	return fmt.Sprintf("%d linear layers: %s; VeRA trains %d + %d·rank numbers", layers, strings.Join(names, ", "),
		out, layers)
}

// listed gives values with commas between them.
func listed[T any](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}

func printAdapter(w io.Writer, s vera.Summary) error {
	t := newTable(w)
	t.row("adapter", "%s, %s format", map[string]string{"vera": "VeRA", "lora": "LoRA"}[s.Method], s.Format)
	if s.Base != "" {
		t.row("base model", "%s", s.Base)
	}
	if len(s.Ranks) > 0 {
		t.row("ranks", "%s", listed(s.Ranks))
	} else {
		t.row("rank", "%d", s.Rank)
	}
	t.row("targets", "%s", strings.Join(s.Targets, " "))
	t.row("trained", "%d numbers on %d layers", s.Trained, len(s.Layers))
	t.row("file", "%.2f MB", float64(s.Bytes)/1e6)
	for _, kind := range slices.Sorted(maps.Keys(s.Types)) {
		t.row("", "%s: %.2f MB", kind, float64(s.Types[kind])/1e6)
	}
	if s.Method == "lora" {
		over := "rank"
		if s.RSLoRA {
			over = "√rank"
		}
		t.row("alpha", "%s; the change is alpha/%s · B A", listed(append([]float32{s.Alpha}, s.Alphas...)), over)
	} else {
		pair := "drawn from the seed"
		if s.Pair {
			pair = "in the file"
		}
		t.row("shared pair", "%s, seed %s, %s", s.Init, s.Seed, pair)
		t.row("d initial", "%g, dropout %g", s.DInitial, s.Dropout)
	}
	t.facts(s.Facts)
	if err := t.Flush(); err != nil {
		return err
	}
	return printNorms(w, s.Layers)
}
