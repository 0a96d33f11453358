package alpaca

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
)

// rowJSON writes a row of a Parquet file as a JSON object.
func (f *parquetFile) rowJSON(row any) (raw []byte, err error) {
	defer f.guard(&err)
	columns, ok := row.(map[string]any)
	if !ok {
		return nil, errors.New("is damaged: it has no columns")
	}
	o := object{}
	for _, field := range f.schema.Fields() {
		value, err := fieldJSON(field, columns[field.Name()])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.Name(), err)
		}
		o = append(o, Field{field.Name(), value})
	}
	return o.json(), nil
}

// fieldJSON writes a value. The members of a struct are in the order of its columns; those that are null are left out,
// as in the structs of a list some belong to other elements. The null content of a message stays.
func fieldJSON(node parquet.Node, value any) (json.RawMessage, error) {
	switch v := value.(type) {
	case nil:
		return json.RawMessage("null"), nil
	case []any:
		return listJSON(node, v)
	case map[string]any:
		if node == nil || node.Leaf() || isMap(node) {
			return mapJSON(v)
		}
		o := object{}
		for _, field := range node.Fields() {
			member, ok := v[field.Name()]
			if !ok || member == nil && !slices.Contains(contentNames, field.Name()) {
				continue
			}
			raw, err := fieldJSON(field, member)
			if err != nil {
				return nil, err
			}
			o = append(o, Field{field.Name(), raw})
		}
		return o.json(), nil
	}
	return leafJSON(value)
}

func listJSON(node parquet.Node, list []any) (json.RawMessage, error) {
	element := node
	if node != nil && !node.Leaf() && !node.Repeated() {
		element = node.Fields()[0] // LIST: a group with a repeated group of one column
		if !element.Leaf() && len(element.Fields()) == 1 && node.Type().String() == "LIST" {
			element = element.Fields()[0]
		}
	}
	values := []json.RawMessage{}
	for _, v := range list {
		raw, err := fieldJSON(element, v)
		if err != nil {
			return nil, err
		}
		values = append(values, raw)
	}
	return array(values), nil
}

func isMap(node parquet.Node) bool { return node.Type().String() == "MAP" }

func mapJSON(m map[string]any) (json.RawMessage, error) {
	o := object{}
	for name, v := range m {
		raw, err := fieldJSON(nil, v)
		if err != nil {
			return nil, err
		}
		o = append(o, Field{name, raw})
	}
	slices.SortFunc(o, func(a, b Field) int { return cmp.Compare(a.Name, b.Name) })
	return o.json(), nil
}

// leafJSON writes a value that is no list and no struct. What is no number is null.
func leafJSON(value any) (json.RawMessage, error) {
	switch v := value.(type) {
	case string:
		return textJSON(v)
	case []byte:
		return textJSON(string(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return json.RawMessage("null"), nil
		}
	case float32:
		return leafJSON(float64(v))
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, errors.New("a value can't be written as JSON")
	}
	return raw, nil
}

func textJSON(s string) (json.RawMessage, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("is not valid UTF-8")
	}
	return quote(s), nil
}
