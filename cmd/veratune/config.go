package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/veratune/veratune/internal/durable"
)

// configurable gives a command the flag --config, a file of options by the names of the command's flags. What is
// required may stand in either place, so the library, which looks at the command line alone, must not insist on it.
func configurable(c *cli.Command) {
	var required []string
	for _, f := range c.Flags {
		switch f := f.(type) {
		case *cli.StringFlag:
			if f.Required {
				required, f.Required = append(required, f.Name), false
			}
		case *cli.GenericFlag:
			if f.Required {
				required, f.Required = append(required, f.Name), false
			}
		}
	}
	path := ""
	c.Flags = append(c.Flags, &cli.StringFlag{Name: "config", Usage: "YAML `FILE` of these options by their names; " +
		"one that is given on the command line, too, is taken from there", Destination: &path})
	check := c.Before
	c.Before = func(ctx *cli.Context) error {
		for _, f := range c.Flags {
			// as of a variable that is not set
			if s, ok := f.(*cli.StringFlag); ok && takesPath(s) && ctx.IsSet(s.Name) && ctx.String(s.Name) == "" {
				return usageError{fmt.Errorf("%s: is given, and empty", s.Name)}
			}
		}
		if path != "" {
			if err := applyConfig(ctx, path); err != nil {
				return err
			}
		}
		for _, name := range required {
			if ctx.String(name) == "" {
				return usageError{fmt.Errorf("%s: is missing; give it here, or in a --config file", name)}
			}
		}
		if check == nil {
			return nil
		}
		return check(ctx)
	}
}

// takesPath tells whether an option's value is a file or a folder.
func takesPath(f *cli.StringFlag) bool {
	return strings.Contains(f.Usage, "`FILE`") || strings.Contains(f.Usage, "`FOLDER`")
}

// applyConfig sets the flags that a file names and the command line does not.
func applyConfig(c *cli.Context, path string) error {
	const most = 1 << 20
	data, err := durable.ReadFile(path, most)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	entries, err := parseConfig(data)
	if err != nil {
		return usageError{fmt.Errorf("config %s: %w", path, err)}
	}
	for _, e := range entries {
		if err := e.apply(c); err != nil {
			return usageError{fmt.Errorf("config %s, line %d: %s: %w", path, e.line, e.name, err)}
		}
	}
	return nil
}

// configEntry is an option of a file: a list where it was written as one.
type configEntry struct {
	name   string
	values []string
	list   bool
	line   int
}

// parseConfig reads a YAML mapping of names to scalars or lists of them. Values stay the words that stand in the file:
// flags have parsers of their own.
func parseConfig(data []byte) ([]configEntry, error) {
	var documents []yaml.Node
	if err := yaml.Load(data, &documents, yaml.WithAllDocuments()); err != nil {
		return nil, plainYAML(err)
	}
	if len(documents) == 0 {
		return nil, nil
	}
	if len(documents) > 1 {
		return nil, errors.New("want one document")
	}
	root := &documents[0]
	if root.Kind == yaml.DocumentNode {
		root = root.Content[0]
	}
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("want lines of the form `option: value`")
	}
	var entries []configEntry
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		e := configEntry{name: key.Value, line: key.Line, list: value.Kind == yaml.SequenceNode}
		items := []*yaml.Node{value}
		if e.list {
			items = value.Content
		}
		for _, item := range items {
			if item.Kind == yaml.AliasNode {
				item = item.Alias
			}
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return nil, fmt.Errorf("line %d: %s: want a value, or a list of values", key.Line, key.Value)
			}
			e.values = append(e.values, item.Value)
		}
		if slices.ContainsFunc(entries, func(other configEntry) bool { return other.name == e.name }) {
			return nil, fmt.Errorf("line %d: %s: is there twice", key.Line, key.Value)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (e configEntry) apply(c *cli.Context) error {
	i := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == e.name })
	if i < 0 || slices.Contains([]string{"help", "config", "print-config"}, e.name) {
		return fmt.Errorf("no such option of %s%s", c.Command.Name,
			isMeant(e.name, "", slices.DeleteFunc(optionNames(c.Command), func(name string) bool {
				return name == e.name
			})))
	}
	if c.IsSet(e.name) {
		return nil
	}
	flag := c.Command.Flags[i]
	if g, ok := flag.(*cli.GenericFlag); ok && e.list {
		if a, ok := g.Value.(*alternatives); ok && a.list {
			a.add(e.values...)
			return nil
		}
	}
	if e.list && !takesList(flag) {
		return errors.New("takes one value, not a list")
	}
	if _, ok := flag.(*cli.StringSliceFlag); ok && e.list {
		// Words of a list keep their commas.
		return c.Set(e.name, cli.NewStringSlice(e.values...).Serialize())
	}
	for _, v := range e.values {
		if err := c.Set(e.name, v); err != nil {
			return plainValue(flag, v, err)
		}
	}
	return nil
}

// takesList tells whether a flag may be given several times, for all values together.
func takesList(f cli.Flag) bool {
	if f, ok := f.(*cli.GenericFlag); ok {
		switch f.Value.(type) {
		case *alternatives, *variables:
			return true
		}
		return reflect.TypeOf(f.Value).Elem().Kind() == reflect.Slice
	}
	_, ok := f.(cli.DocGenerationSliceFlag)
	return ok
}

// configOf is a file for --config with the values that the command's options have, but for those named and those that
// are empty.
func configOf(c *cli.Context, but ...string) ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		value := flagValue(c, f)
		if v := reflect.ValueOf(value); !v.IsValid() || slices.Contains(but, name) ||
			(v.Kind() == reflect.String || v.Kind() == reflect.Slice) && v.Len() == 0 {
			continue
		}
		var key, node yaml.Node
		if err := errors.Join(key.Encode(name), node.Encode(value)); err != nil {
			return nil, fmt.Errorf("config: %s: %w", name, err)
		}
		if node.Kind == yaml.SequenceNode {
			node.Style = yaml.FlowStyle
		}
		root.Content = append(root.Content, &key, &node)
	}
	data, err := yaml.Dump(root, yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return data, nil
}

// plain is a word that YAML needs no quotes for where it is a whole number.
func plain(word string) any {
	if n, err := strconv.Atoi(word); err == nil && strconv.Itoa(n) == word {
		return n
	}
	return word
}

// flagValue is what a flag of the command line came to; nil for those that do not belong into a file.
func flagValue(c *cli.Context, f cli.Flag) any {
	name := f.Names()[0]
	if slices.Contains([]string{"help", "config", "print-config", "resume", "force"}, name) {
		return nil
	}
	switch f := f.(type) {
	case *cli.StringSliceFlag:
		return c.StringSlice(name)
	case *cli.DurationFlag:
		return c.Duration(name).String()
	case *cli.GenericFlag:
		if !takesList(f) {
			return plain(f.Value.String())
		}
		if v, ok := f.Value.(*variables); ok {
			return v.words
		}
		var words []any
		for _, v := range reflect.ValueOf(f.Value).Elem().Seq2() {
			words = append(words, plain(fmt.Sprint(v.Interface())))
		}
		return words
	}
	return c.Value(name)
}
