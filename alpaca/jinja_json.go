package alpaca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ardanlabs/jinja"
)

// jinjaValue turns JSON into the value that Python's json.loads would give a template: objects keep their order. Every
// string goes through text.
func jinjaValue(raw json.RawMessage, text func(string) string) (jinja.Value, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := decodeJinja(d, text)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("text behind a JSON value")
		}
	}
	return v, err
}

func decodeJinja(d *json.Decoder, text func(string) string) (jinja.Value, error) {
	token, err := d.Token()
	if err != nil {
		return jinja.Undefined(), err
	}
	switch t := token.(type) {
	case string:
		return jinja.NewString(text(t)), nil
	case json.Delim:
		if t == '[' {
			items := []jinja.Value{}
			for d.More() {
				v, err := decodeJinja(d, text)
				if err != nil {
					return v, err
				}
				items = append(items, v)
			}
			_, err = d.Token()
			return jinja.NewList(items), err
		}
		object := jinja.NewDict()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return object, err
			}
			v, err := decodeJinja(d, text)
			if err != nil {
				return v, err
			}
			object.AsDict().Set(text(key.(string)), v)
		}
		_, err = d.Token()
		return object, err
	}
	return jinja.FromGoValue(token), nil
}

// toJSON is the filter tojson as Hugging Face has it: Python's json.dumps with ensure_ascii=False.
func toJSON(args []jinja.Value, named map[string]jinja.Value) (jinja.Value, error) {
	if len(args) == 0 {
		return jinja.Undefined(), errors.New("tojson: needs a value")
	}
	for i, name := range []string{"ensure_ascii", "indent", "separators", "sort_keys"} {
		if i+1 < len(args) {
			if named == nil {
				named = map[string]jinja.Value{}
			}
			named[name] = args[i+1]
		}
	}
	e := jsonEncoder{comma: ", ", colon: ": ", indent: -1}
	if v := named["indent"]; v.IsInt() {
		e.indent, e.comma = int(min(max(0, v.AsInt()), 64)), ","
	}
	if v := named["separators"]; v.IsList() {
		items := v.AsList().Items
		if len(items) != 2 || !items[0].IsString() || !items[1].IsString() {
			return jinja.Undefined(), errors.New("tojson: separators are two strings")
		}
		e.comma, e.colon = items[0].AsString(), items[1].AsString()
	}
	e.sorted, e.ascii = named["sort_keys"].IsTruthy(), named["ensure_ascii"].IsTruthy()
	if err := e.value(args[0], 0); err != nil {
		return jinja.Undefined(), err
	}
	return jinja.NewString(e.out.String()), nil
}

// jsonEncoder writes as Python's json.dumps.
type jsonEncoder struct {
	out           strings.Builder
	comma, colon  string
	indent        int // -1 for one line
	sorted, ascii bool
}

func (e *jsonEncoder) value(v jinja.Value, depth int) error {
	switch {
	case v.IsNone():
		e.out.WriteString("null")
	case v.IsBool():
		e.out.WriteString(strconv.FormatBool(v.AsBool()))
	case v.IsInt():
		e.out.WriteString(strconv.FormatInt(v.AsInt(), 10))
	case v.IsFloat():
		e.out.WriteString(pythonFloat(v.AsFloat()))
	case v.IsString():
		e.string(v.AsString())
	case v.IsList():
		return e.list('[', ']', len(v.AsList().Items), depth, func(i int) error {
			return e.value(v.AsList().Items[i], depth+1)
		})
	case v.IsDict():
		keys := v.AsDict().OrderedKeys()
		if e.sorted {
			slices.Sort(keys)
		}
		return e.list('{', '}', len(keys), depth, func(i int) error {
			e.string(keys[i])
			e.out.WriteString(e.colon)
			return e.value(v.AsDict().Data[keys[i]], depth+1)
		})
	default:
		return fmt.Errorf("tojson: %s is no JSON value", v)
	}
	return nil
}

func (e *jsonEncoder) list(open, end byte, n, depth int, item func(int) error) error {
	e.out.WriteByte(open)
	for i := range n {
		if i > 0 {
			e.out.WriteString(e.comma)
		}
		e.line(depth + 1)
		if err := item(i); err != nil {
			return err
		}
	}
	if n > 0 {
		e.line(depth)
	}
	e.out.WriteByte(end)
	return nil
}

func (e *jsonEncoder) line(depth int) {
	if e.indent >= 0 {
		e.out.WriteString("\n" + strings.Repeat(" ", e.indent*depth))
	}
}

func (e *jsonEncoder) string(s string) {
	e.out.WriteByte('"')
	for _, r := range s {
		at := strings.IndexRune("\"\\\n\r\t\b\f", r)
		switch {
		case at >= 0:
			e.out.WriteByte('\\')
			e.out.WriteByte(`"\nrtbf`[at])
		case r < ' ', e.ascii && 0x7f <= r && r < 0x10000:
			fmt.Fprintf(&e.out, `\u%04x`, r)
		case e.ascii && r >= 0x10000:
			fmt.Fprintf(&e.out, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			e.out.WriteRune(r)
		}
	}
	e.out.WriteByte('"')
}

// pythonFloat is Python's repr of a float.
func pythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 0):
		return strings.Replace(strconv.FormatFloat(f, 'g', -1, 64), "Inf", "Infinity", 1)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		format = 'e'
	}
	s := strconv.FormatFloat(f, format, -1, 64)
	if format == 'f' && !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
