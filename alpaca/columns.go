package alpaca

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// columnNames are the names that Options.Columns can map. Those of turns are role and content; the others are of rows.
var columnNames = []string{
	"messages", "role", "content", "system", "tools", "documents", "history", "instruction", "input", "output",
	"prompt", "completion", "text",
	"question", "choices", "answer", "chosen", "rejected",
}

// turnNames are those of columnNames that are not a row's.
var turnNames = []string{"role", "content"}

// rowColumnNames are the rest.
var rowColumnNames = slices.DeleteFunc(slices.Clone(columnNames), func(name string) bool {
	return slices.Contains(turnNames, name)
})

// Names that data gives to the same thing. The first is the one that Options.Columns maps.
var (
	listNames    = []string{"messages", "conversations", "conversation", "turns"}
	askNames     = []string{"instruction", "question", "query"}
	inputNames   = []string{"input", "context"}
	outputNames  = []string{"output", "response", "answer", "completion"}
	replyNames   = []string{"answer", "response", "output", "completion"} // to a question
	answerNames  = []string{"completion", "response", "output", "answer"} // to a prompt
	systemNames  = []string{"system", "system_prompt"}
	roleNames    = []string{"role", "from"}
	contentNames = []string{"content", "value"}
)

// rowNames are all keys of a row that are looked at.
var rowNames = slices.Concat(listNames, askNames, inputNames, outputNames, systemNames,
	[]string{"prompt", "text", "tools", "documents", "history", "chosen", "rejected", "choices", "answerKey", "ctx",
		"endings", "label"})

// formNames are those of rowNames that make a row one: at least one of them is in every row.
var formNames = slices.Concat(listNames, askNames, []string{"prompt", "text", "chosen", "choices", "endings"})

const wanted = "want messages, conversations, instruction, prompt with completion, text, question with choices, or " +
	"chosen (see --columns)"

// ParseColumns reads names of a row's fields and the file's names for them, as in instruction=Frage,output=Antwort.
func ParseColumns(s string) (map[string]string, error) {
	columns := map[string]string{}
	for _, pair := range strings.Split(s, ",") {
		name, column, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok || name == "" || column == "":
			return nil, fmt.Errorf("columns %q: want NAME=COLUMN, as in instruction=Frage,output=Antwort", pair)
		case columns[name] != "":
			return nil, fmt.Errorf("columns: %s is named twice, as %q and %q", name, columns[name], column)
		}
		columns[name] = column
	}
	return columns, validateColumns(columns)
}

func validateColumns(columns map[string]string) error {
	taken := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		column := columns[name]
		switch {
		case !slices.Contains(columnNames, name):
			return fmt.Errorf("columns: there is no field %q; want %s", name, strings.Join(columnNames, ", "))
		case column == "":
			return fmt.Errorf("columns: %s has no column; want %s=COLUMN", name, name)
		case taken[column] != "":
			return fmt.Errorf("columns: %q can't be both %s and %s", column, taken[column], name)
		}
		taken[column] = name
	}
	return nil
}

// knownColumn tells whether a name in a file is that of a row's field, or is mapped to one.
func knownColumn(name string, among []string, columns map[string]string) bool {
	if slices.Contains(among, name) {
		return true
	}
	for canonical, column := range columns {
		if column == name && !slices.Contains(turnNames, canonical) {
			return true
		}
	}
	return false
}

// rename gives the members of an object the names that columns map to them, and leaves out those whose names others
// then have. It also returns the members that it has named.
func (o object) rename(columns map[string]string, names ...string) (renamed, mapped object) {
	if len(columns) == 0 {
		return o, nil
	}
	replaced := map[string]bool{}
	byColumn := map[string]string{}
	for _, name := range names {
		if column, ok := columns[name]; ok && o.has(column) {
			replaced[name], byColumn[column] = true, name
		}
	}
	for _, f := range o {
		if name, ok := byColumn[f.Name]; ok {
			renamed = append(renamed, Field{name, f.Value})
			mapped = append(mapped, Field{name, f.Value})
		} else if !replaced[f.Name] {
			renamed = append(renamed, f)
		}
	}
	return renamed, mapped
}

// fields are the members of a row or turn under the names of columnNames.
type fields struct {
	object
	mapped object // those that Options.Columns has named
}

// one picks among names for the same thing: the mapped one, or the one with something in it. It is the first where
// there is none of them. It fails where two differ.
func (f fields) one(names ...string) (name string, err error) {
	if i := slices.IndexFunc(names, f.mapped.has); i >= 0 {
		return names[i], nil
	}
	var found, full []string
	for _, n := range names {
		if raw := f.find(n); raw != nil {
			found = append(found, n)
			if holdsText(raw) {
				full = append(full, n)
			}
		}
	}
	switch {
	case len(found) == 0:
		return names[0], nil
	case len(full) == 0:
		return found[0], nil
	}
	for _, n := range full[1:] {
		if !bytes.Equal(f.find(full[0]), f.find(n)) {
			return "", bothThere(full[0], n, names[0])
		}
	}
	return full[0], nil
}

// holdsText tells whether a value is a string with more than white space or a list with elements.
func holdsText(raw []byte) bool {
	switch kind(raw) {
	case "a string":
		return strings.TrimSpace(unquote(bytes.TrimSpace(raw))) != ""
	case "an array":
		return len(elements(raw)) > 0
	}
	return false
}

func bothThere(a, b, name string) error {
	return fmt.Errorf("has both %s and %s, and they differ; name the one to take, as in --columns %s=%s", a, b, name, b)
}
