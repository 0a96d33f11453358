package alpaca

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"
)

// What a rendering may take. Real templates take a hundredth of it; those that don't end, or grow without end, come
// with files that anybody made.
const (
	mostSteps    = 5e6 // values, members of lists that are gone through, and 16 bytes of text that are written or added
	mostMacros   = 200 // that call each other
	largestTimes = 1e6 // number that anything is multiplied with
)

// budget counts what a rendering takes.
type budget struct{ steps, macros int }

func (b *budget) spend(v jinja.Value) error {
	b.steps++
	switch {
	case v.IsList():
		b.steps += v.AsList().Len()
	case v.IsString():
		b.steps += len(v.AsString()) / 16
	}
	if b.steps > mostSteps {
		return errors.New("the template comes to no end, or writes a text without end")
	}
	return nil
}

// functions are what rewritten templates call: they do what the library does otherwise than Python, within the budget.
func (b *budget) functions() map[string]jinja.Value {
	return map[string]jinja.Value{
		"range":         jinja.NewCallable("range", pythonRange),
		jsonFilter:      jinja.NewCallable("tojson", toJSON),
		printFilter:     b.filter("print", pythonPrint),
		operandFilter:   b.filter("+", pythonOperand),
		textFilter:      b.filter("+", pythonText),
		escapeFilter:    b.filter("+", pythonEscape),
		timesFilter:     b.filter("*", pythonTimes),
		containerFilter: b.filter("in", pythonContainer),
		lengthFilter:    b.filter("length", pythonLength),
		textsFilter:     b.filter("join", pythonTexts),
		definedFilter:   jinja.NewCallable("defined", pythonDefined),
		generatorFilter: b.filter("tojson", func(v jinja.Value) (jinja.Value, error) {
			return v, errors.New("tojson: takes a list, and not what map or select gives")
		}),
		macroStart: jinja.NewCallable("macro", func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) {
			if b.macros++; b.macros > mostMacros {
				return jinja.Undefined(), errors.New("the template's macros call each other without end")
			}
			return jinja.NewString(""), nil
		}),
		macroEnd: jinja.NewCallable("endmacro", func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) {
			b.macros--
			return jinja.NewString(""), nil
		}),
	}
}

// filter is a filter without arguments.
func (b *budget) filter(name string, f func(jinja.Value) (jinja.Value, error)) jinja.Value {
	return jinja.NewCallable(name, func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
		if len(args) == 0 {
			return jinja.Undefined(), errors.New(name + ": needs a value")
		}
		if err := b.spend(args[0]); err != nil {
			return args[0], err
		}
		return f(args[0])
	})
}

func pythonTimes(v jinja.Value) (jinja.Value, error) {
	if v.IsInt() && (v.AsInt() > largestTimes || v.AsInt() < -largestTimes) {
		return v, fmt.Errorf("*: %s is more than a template multiplies with", v)
	}
	return v, nil
}

// pythonPrint is str, for those values that the library writes otherwise.
func pythonPrint(v jinja.Value) (jinja.Value, error) {
	switch {
	case v.IsNone(), v.IsFloat(), v.IsList(), v.IsDict():
		var b strings.Builder
		writeRepr(&b, v)
		return jinja.NewString(b.String()), nil
	}
	return v, nil
}

// writeRepr writes a value as Python's repr.
func writeRepr(b *strings.Builder, v jinja.Value) {
	switch {
	case v.IsNone():
		b.WriteString("None")
	case v.IsFloat():
		b.WriteString(strings.NewReplacer("Infinity", "inf", "NaN", "nan").Replace(pythonFloat(v.AsFloat())))
	case v.IsString():
		writeReprString(b, v.AsString())
	case v.IsList():
		b.WriteByte('[')
		for i, item := range v.AsList().Items {
			if i > 0 {
				b.WriteString(", ")
			}
			writeRepr(b, item)
		}
		b.WriteByte(']')
	case v.IsDict():
		b.WriteByte('{')
		for i, key := range v.AsDict().Keys {
			if i > 0 {
				b.WriteString(", ")
			}
			writeReprString(b, key)
			b.WriteString(": ")
			writeRepr(b, v.AsDict().Data[key])
		}
		b.WriteByte('}')
	default:
		b.WriteString(v.String())
	}
}

// writeReprString puts a text between single quotes, or double ones where it has single ones only.
func writeReprString(b *strings.Builder, s string) {
	quote := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteRune(quote)
	for _, r := range s {
		at := strings.IndexRune("\n\r\t\\", r)
		switch {
		case at >= 0:
			b.WriteByte('\\')
			b.WriteByte(`nrt\`[at])
		case r == quote:
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ', 0x7f <= r && r < 0xa0:
			fmt.Fprintf(b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteRune(quote)
}

func pythonOperand(v jinja.Value) (jinja.Value, error) {
	if v.IsNone() || v.IsUndefined() {
		return v, fmt.Errorf("+: %s cannot be added to anything; a message without content, perhaps", noValue(v))
	}
	return v, nil
}

func pythonText(v jinja.Value) (jinja.Value, error) {
	if !v.IsString() {
		return v, fmt.Errorf("+: %s cannot be added to a text", noValue(v))
	}
	return v, nil
}

// pythonEscape escapes as MarkupSafe.
func pythonEscape(v jinja.Value) (jinja.Value, error) {
	v, err := pythonText(v)
	if err != nil {
		return v, err
	}
	return jinja.NewString(strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`,
		"&#34;").Replace(v.AsString())), nil
}

func pythonContainer(v jinja.Value) (jinja.Value, error) {
	if v.IsNone() || v.IsBool() || v.IsNumber() {
		return v, fmt.Errorf("in: %s holds nothing; a message without content, perhaps", noValue(v))
	}
	return v, nil
}

func pythonLength(v jinja.Value) (jinja.Value, error) {
	switch {
	case v.IsList():
		return jinja.NewInt(int64(v.AsList().Len())), nil
	case v.IsDict():
		return jinja.NewInt(int64(v.AsDict().Len())), nil
	case v.IsString():
		return jinja.NewInt(int64(utf8.RuneCountInString(v.AsString()))), nil
	case v.IsUndefined():
		return jinja.NewInt(0), nil
	}
	return v, fmt.Errorf("length: %s has none; a message without content, perhaps", noValue(v))
}

// pythonTexts are the members of a list as texts, for join.
func pythonTexts(v jinja.Value) (jinja.Value, error) {
	if !v.IsList() {
		return v, nil
	}
	list := slices.Clone(v.AsList().Items)
	for i, item := range list {
		if item.IsFloat() || item.IsNone() {
			list[i], _ = pythonPrint(item)
		}
	}
	return jinja.NewList(list), nil
}

// pythonDefined takes a value and what it is called.
func pythonDefined(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
	if args[0].IsUndefined() {
		return args[0], fmt.Errorf("%s is not there", args[1].AsString())
	}
	return args[0], nil
}

// longestRange is that of Jinja's sandbox (MAX_RANGE).
const longestRange = 100000

// pythonRange takes end, or start, end and perhaps a step.
func pythonRange(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
	bounds := []int64{0, 0, 1}
	if len(args) < 1 || len(args) > 3 {
		return jinja.Undefined(), errors.New("range: takes one to three whole numbers")
	}
	for i, v := range args {
		if !v.IsInt() {
			return jinja.Undefined(), fmt.Errorf("range: %s is no whole number", noValue(v))
		}
		bounds[i] = v.AsInt()
	}
	if len(args) == 1 {
		bounds[0], bounds[1] = 0, bounds[0]
	}
	start, end, step := bounds[0], bounds[1], bounds[2]
	if step == 0 {
		return jinja.Undefined(), errors.New("range: a step of 0 comes to no end")
	}
	items := []jinja.Value{}
	for i := start; step > 0 && i < end || step < 0 && i > end; i += step {
		if len(items) == longestRange {
			return jinja.Undefined(), fmt.Errorf("range: has more than %d numbers", longestRange)
		}
		items = append(items, jinja.NewInt(i))
	}
	return jinja.NewList(items), nil
}

func noValue(v jinja.Value) string {
	switch {
	case v.IsNone():
		return "null"
	case v.IsUndefined():
		return "what is not there"
	}
	return v.String()
}
