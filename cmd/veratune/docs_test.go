package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/urfave/cli/v2"
)

var writeDocs = flag.Bool("write-docs", false, "write docs/cli.md and docs/veratune.1 instead of comparing with them")

// pages are the documents that follow from the flags. The man page is made of Markdown, too, with lists in place of
// tables.
var pages = map[string]func(t *testing.T, app *cli.App) []byte{
	"cli.md": func(t *testing.T, app *cli.App) []byte { return page(t, markdownPage, app) },
	"veratune.1": func(t *testing.T, app *cli.App) []byte {
		return md2man.Render(page(t, manPage, app))
	},
}

const markdownPage = `# Commands and options

Written by ` + "`make docs`" + ` from the program's own help; ` + "`veratune COMMAND --help`" + ` shows the same.
{{range commands .Commands "veratune"}}
## {{.Path}}

{{.Usage}}

    {{.Synopsis}}
{{with .Description}}
{{paragraphs .}}
{{end}}{{with .Flags}}
| option | | default |
|---|---|---|
{{range .}}| {{range $i, $n := .Names}}{{if $i}}, {{end}}` + "`{{.}}`" + `{{end}} | {{.Usage}} | {{.Default}} |
{{end}}{{end}}{{end}}`

const manPage = `% veratune 1

# NAME

veratune - {{.Usage}}

# SYNOPSIS

**veratune** COMMAND [OPTIONS] [ARGUMENTS]

# COMMANDS
{{range commands .Commands "veratune"}}
## {{.Path}}

{{.Usage}}

    {{.Synopsis}}
{{with .Description}}
{{paragraphs .}}
{{end}}{{range .Flags}}
{{range $i, $n := .Names}}{{if $i}}, {{end}}**{{.}}**{{end}}
: {{.Usage}}{{with .Default}} (default: {{.}}){{end}}
{{end}}{{end}}
# EXIT STATUS

0: done. 1: failed. 2: wrong usage. 130: interrupted, with the state saved.
`

// documented is a command or an option in words.
type documented struct {
	Path, Usage, Synopsis, Description, Default string
	Names                                       []string
	Flags                                       []documented
}

func page(t *testing.T, text string, app *cli.App) []byte {
	var out strings.Builder
	functions := template.FuncMap{"commands": documentedCommands, "paragraphs": paragraphs}
	if err := template.Must(template.New("page").Funcs(functions).Parse(text)).Execute(&out, app); err != nil {
		t.Fatal(err)
	}
	return []byte(out.String())
}

func documentedCommands(commands []*cli.Command, path string) (list []documented) {
	for _, c := range commands {
		d := documented{Path: path + " " + c.Name, Usage: c.Usage, Description: c.Description}
		if len(c.Subcommands) > 0 {
			list = append(list, documentedCommands(c.Subcommands, d.Path)...)
			continue
		}
		for _, f := range c.Flags {
			d.Flags = append(d.Flags, documentedFlag(f.(cli.DocGenerationFlag)))
		}
		var ways []string
		for _, name := range c.Names() {
			way := path + " " + name
			if len(d.Flags) > 0 {
				way += " [OPTIONS]"
			}
			if c.ArgsUsage != "" {
				way += " " + c.ArgsUsage
			}
			ways = append(ways, way)
		}
		d.Synopsis = strings.Join(ways, "\n    ")
		list = append(list, d)
	}
	return list
}

func documentedFlag(f cli.DocGenerationFlag) documented {
	d := documented{Usage: strings.ReplaceAll(f.GetUsage(), "`", "")}
	value := ""
	if f.TakesValue() {
		value = " VALUE"
		if _, rest, quoted := strings.Cut(f.GetUsage(), "`"); quoted {
			value = " " + rest[:strings.Index(rest, "`")]
		}
		d.Default = strings.ReplaceAll(f.GetDefaultText(), `"`, "")
	}
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		d.Names = append(d.Names, dashes+name+value)
	}
	return d
}

// paragraphs makes what a description indents a block of code.
func paragraphs(description string) string {
	lines := strings.Split(strings.TrimSpace(description), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "  " + line
		}
	}
	return strings.Join(lines, "\n")
}

func TestDocs(t *testing.T) {
	for name, render := range pages {
		path := filepath.Join("..", "..", "docs", name)
		got := render(t, newApp(io.Discard, io.Discard))
		if *writeDocs {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if want, err := os.ReadFile(path); err != nil || string(want) != string(got) {
			t.Errorf("docs/%s does not say what the program's help says (%v); run make docs", name, err)
		}
	}
}
