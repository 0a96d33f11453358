package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/session"
)

// modelfileFlag is for the forms that Ollama reads.
func (x *export) modelfileFlag() cli.Flag {
	return &cli.BoolFlag{Name: "modelfile", Usage: "lora and merged: also write a Modelfile for Ollama beside the " +
		"output, with the model, the adapter, the template and the ends of answers", Destination: &x.wantsModelfile}
}

// modelfileOutput is beside the output.
func (x *export) modelfileOutput() *output {
	return &output{strings.TrimSuffix(x.out.path, ".gguf") + ".Modelfile", x.out.overwrite}
}

func (x *export) checkModelfile() error {
	switch {
	case !x.wantsModelfile:
		return nil
	case x.to != "lora" && x.to != "merged":
		return fmt.Errorf("modelfile: is for --to lora and --to merged, which Ollama reads")
	}
	return nil
}

// tellTemplate has the files that other programs read say which template and pre-tokenizer the adapter was trained in,
// where they aren't the model's own.
func (x *export) tellTemplate(s *session.Session) {
	facts := s.Adapter.Facts
	if s.PreTokenizer != "" {
		facts[session.FactPreTokenizer] = s.PreTokenizer
	}
	if facts[session.FactTemplate] == alpaca.Alpaca && (x.to == "lora" || x.to == "merged") {
		facts[session.FactSource] = alpaca.AlpacaJinja
	}
}

// modelfile writes what `ollama create NAME -f FILE` takes.
func (x *export) modelfile(c *cli.Context, s *session.Session) error {
	e, err := s.Encoder(x.data.Form, reportTo(c.App.ErrWriter))
	if err != nil {
		return err
	}
	var b strings.Builder
	file := x.modelfileOutput()
	path, model, adapter := file.path, x.out.path, ""
	if x.to == "lora" {
		model, adapter = x.Model, x.out.path
		if n := len(s.File().Paths()); n > 1 {
			fmt.Fprintf(c.App.ErrWriter, "%s names a model in %d parts, and Ollama takes one in a single file: put "+
				"them together with `llama-gguf-split --merge %s OUT.gguf`, and name that behind FROM\n", path, n,
				s.File().Paths()[0])
		}
	}
	for _, line := range [][2]string{{"FROM", model}, {"ADAPTER", adapter}} {
		if line[1] == "" {
			continue
		}
		from, err := relative(filepath.Dir(path), line[1])
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s\n", line[0], from)
	}
	if source, err := e.Ollama(); err != nil {
		fmt.Fprintf(c.App.ErrWriter, "%s has no TEMPLATE, so that Ollama takes its own: %v\n", path, err)
	} else {
		fmt.Fprintf(&b, "TEMPLATE \"\"\"%s\"\"\"\n", source)
	}
	for _, end := range e.Ends() {
		fmt.Fprintf(&b, "PARAMETER stop %s\n", strconv.Quote(end))
	}
	if err := file.write([]byte(b.String())); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.ErrWriter, "for Ollama: ollama create NAME -f %s\n", path)
	return err
}

// relative is a path as a Modelfile in a folder names it.
func relative(folder, path string) (string, error) {
	whole, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	from, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	near, err := filepath.Rel(from, whole)
	switch {
	case err != nil || strings.HasPrefix(near, "../../"):
		return whole, nil
	case strings.HasPrefix(near, ".."):
		return near, nil
	}
	return "./" + near, nil
}
