// Command randomgguf writes a model of a real model's shape with random weights as a GGUF file, to measure memory and
// speed at sizes whose real models one does not have. What such a model says is noise. It must not be needed by
// anything that veratune itself does.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/veratune/veratune/bindings"
)

const usage = `usage: randomgguf --shape 7b --type q4_0 --out llama2-7b-random.gguf

Writes a model with random weights. Equal options give equal files. Only the largest matrices are held in memory (in
q4_0, 0.3 GB for 7b, 1 GB for gemma3-12b).

`

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "randomgguf:", err)
		os.Exit(1)
	}
}

// run writes the file that the arguments ask for, and a line about it.
func run(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("randomgguf", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned, and printed once
	name := flags.String("shape", "7b", "`NAME` of the model whose shape it gets: "+strings.Join(shapeNames(), ", "))
	kind := flags.String("type", "q4_0",
		"ggml's name of the `TYPE` of all matrices; of quantised types but q8_0, the output head is q6_K")
	blocks := flags.Int("blocks", 0, "write `N` blocks in place of all (0: all)")
	seed := flags.Uint64("seed", 42, "`SEED` of the weights")
	out := flags.String("out", "", "`FILE` to write; required")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w; see --help", err)
	case flags.NArg() > 0:
		return fmt.Errorf("%q: options only, no arguments; see --help", flags.Arg(0))
	case *out == "":
		return errors.New("--out is missing: name the file to write")
	}
	s, ok := shapes[*name]
	switch {
	case !ok:
		return fmt.Errorf("--shape %s: one of %s is needed", *name, strings.Join(shapeNames(), ", "))
	case *blocks < 0 || *blocks > s.blocks:
		return fmt.Errorf("--blocks %d: a number from 1 to %d is needed, or 0 for all", *blocks, s.blocks)
	case *blocks > 0:
		s.blocks = *blocks
	}
	t, err := parseType(*kind)
	if err != nil {
		return fmt.Errorf("--type %w", err)
	}
	switch _, err := os.Lstat(*out); {
	case err == nil:
		return fmt.Errorf("%s: is there already; remove it, or choose another --out", *out)
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	start := time.Now()
	if err := s.write(*out, t, *seed); err != nil {
		return err
	}
	info, err := os.Stat(*out)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %d blocks of %s, %.2f GB in %.1f s\n", *out, s.blocks, t, float64(info.Size())/1e9,
		time.Since(start).Seconds())
	return nil
}

// parseType finds the type of that name, in capitals or not, and checks that Quantize can write it.
func parseType(name string) (bindings.Type, error) {
	t, ok := bindings.TypeNamed(name)
	if !ok {
		return 0, fmt.Errorf("%s: ggml has no such type; q4_0, q4_K, q6_K, q8_0, f16 and others can be written", name)
	}
	return t, t.CheckQuantize(chunk)
}
