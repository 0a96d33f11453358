package alpaca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// object is a JSON object whose values are still to be read, in its own order.
type object []Field

// checkJSON fails where raw is no JSON, and where it is JSON that encoding/json reads as something that nobody wrote: a
// key twice, or half of a character.
func checkJSON(raw []byte) error {
	switch {
	case !utf8.Valid(raw):
		return errors.New("is not valid UTF-8; save the file as UTF-8")
	case len(bytes.TrimSpace(raw)) == 0:
		return errors.New("is empty")
	case !json.Valid(raw):
		return fmt.Errorf("malformed JSON: %w", json.Unmarshal(raw, new(json.RawMessage)))
	}
	s := strict{raw: raw}
	s.value()
	return s.err
}

// strict walks through valid JSON.
type strict struct {
	raw    []byte
	offset int
	keys   [][]byte // of the objects that are open
	key    []byte   // the last
	err    error    // the first
}

func (s *strict) space() {
	for s.offset < len(s.raw) && s.raw[s.offset] <= ' ' {
		s.offset++
	}
}

func (s *strict) value() {
	s.space()
	switch s.raw[s.offset] {
	case '{':
		s.object()
	case '[':
		for s.offset++; s.more(']'); {
			s.value()
		}
	case '"':
		s.text()
	default:
		for s.offset < len(s.raw) && !endsWord(s.raw[s.offset]) {
			s.offset++
		}
	}
}

// more goes to the next element or member, or past the end.
func (s *strict) more(end byte) bool {
	if s.space(); s.raw[s.offset] == ',' {
		s.offset++
		s.space()
	}
	if s.raw[s.offset] != end {
		return true
	}
	s.offset++
	return false
}

func (s *strict) object() {
	first := len(s.keys)
	var many map[string]bool // in place of the list, which takes long to search
	for s.offset++; s.more('}'); {
		from := s.offset
		s.text()
		if s.key = s.raw[from+1 : s.offset-1]; bytes.IndexByte(s.key, '\\') >= 0 {
			s.key = []byte(unquote(s.raw[from:s.offset]))
		}
		var twice bool
		if many != nil {
			twice = many[string(s.key)]
			many[string(s.key)] = true
		} else {
			twice = slices.ContainsFunc(s.keys[first:], func(k []byte) bool { return bytes.Equal(k, s.key) })
			s.keys = append(s.keys, s.key)
		}
		if twice && s.err == nil {
			s.err = fmt.Errorf("the key %q is there twice", s.key)
		}
		if many == nil && len(s.keys)-first > 32 {
			many = map[string]bool{}
			for _, k := range s.keys[first:] {
				many[string(k)] = true
			}
		}
		s.space()
		s.offset++ // the colon
		s.value()
	}
	s.keys = s.keys[:first]
}

// text goes past a string.
func (s *strict) text() {
	for s.offset++; s.raw[s.offset] != '"'; s.offset++ {
		if s.raw[s.offset] != '\\' {
			continue
		}
		if s.offset++; s.raw[s.offset] == 'u' {
			s.surrogate()
		}
	}
	s.offset++
}

// surrogate looks at the escape whose u is next. Two of them make one character where the first is 0xD800 to 0xDBFF and
// the second 0xDC00 to 0xDFFF.
func (s *strict) surrogate() {
	code := func(offset int) uint64 {
		if offset+6 > len(s.raw) || s.raw[offset] != '\\' || s.raw[offset+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(s.raw[offset+2:offset+6]), 16, 16)
		return n
	}
	offset := s.offset - 1
	s.offset += 4
	switch n := code(offset); {
	case n>>11 != 0xD800>>11:
		return
	case n>>10 == 0xD800>>10 && code(offset+6)>>10 == 0xDC00>>10:
		s.offset += 6
		return
	}
	if s.err == nil {
		s.err = fmt.Errorf("the escape %s is half of a character; its other half is not beside it (key %q)",
			s.raw[offset:offset+6], s.key)
	}
}

// endsWord tells whether a byte can't be part of a number, true, false or null.
func endsWord(c byte) bool { return c <= ' ' || c == ',' || c == ']' || c == '}' }

// skipValue returns the end of the value that begins at an offset of valid JSON.
func skipValue(raw []byte, offset int) int {
	for depth := 0; ; offset++ {
		switch raw[offset] {
		case '"':
			for offset++; raw[offset] != '"'; offset++ {
				if raw[offset] == '\\' {
					offset++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth == 0 { // a number or a word
				for offset < len(raw) && !endsWord(raw[offset]) {
					offset++
				}
				return offset
			}
			continue
		}
		if depth == 0 {
			return offset + 1
		}
	}
}

// elements are the values of an array, or the keys and values of an object in turn.
func elements(raw []byte) (list []json.RawMessage) {
	raw = bytes.TrimSpace(raw)
	for offset := 1; ; {
		for raw[offset] <= ' ' || raw[offset] == ',' || raw[offset] == ':' {
			offset++
		}
		if offset == len(raw)-1 {
			return list
		}
		end := skipValue(raw, offset)
		list = append(list, raw[offset:end:end])
		offset = end
	}
}

// members reads an object that is known to be one.
func members(raw []byte) object {
	list := elements(raw)
	o := make(object, 0, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		o = append(o, Field{unquote(list[i]), list[i+1]})
	}
	return o
}

// json writes the object again.
func (o object) json() json.RawMessage {
	raw := []byte{'{'}
	for i, f := range o {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = append(append(append(raw, quote(f.Name)...), ':'), f.Value...)
	}
	return append(raw, '}')
}

// array writes values as a list.
func array(values []json.RawMessage) json.RawMessage {
	return slices.Concat([]byte("["), bytes.Join(asBytes(values), []byte(",")), []byte("]"))
}

func asBytes(values []json.RawMessage) (list [][]byte) {
	for _, v := range values {
		list = append(list, v)
	}
	return list
}

// quote writes a text as JSON.
func quote(s string) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(s)
	return bytes.TrimSpace(b.Bytes())
}

// unquote reads a JSON string that is known to be one.
func unquote(raw []byte) (s string) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	json.Unmarshal(raw, &s)
	return s
}

// find returns the value of a key, nil where the key is not there.
func (o object) find(name string) json.RawMessage {
	for _, f := range o {
		if f.Name == name {
			return f.Value
		}
	}
	return nil
}

func (o object) has(name string) bool { return o.find(name) != nil }

// keep leaves the members that keep holds for.
func (o object) keep(keep func(Field) bool) (kept object) {
	for _, f := range o {
		if keep(f) {
			kept = append(kept, f)
		}
	}
	return kept
}

func isNull(raw json.RawMessage) bool { return raw != nil && kind(raw) == "null" }

// text returns a field that must be there and hold more than white space.
func (o object) text(name string) (string, error) {
	s, blank, err := o.maybeBlank(name)
	if blank {
		err = fmt.Errorf("%s is empty", name)
	}
	return s, err
}

// response returns a field that is there to be learned.
func (o object) response(name string) (string, error) {
	s, blank, err := o.maybeBlank(name)
	if blank {
		err = emptyAnswer{fmt.Errorf("%s is empty", name)}
	}
	return s, err
}

func (o object) maybeBlank(name string) (s string, blank bool, err error) {
	raw := o.find(name)
	if raw == nil {
		return "", false, fmt.Errorf("%s is missing", name)
	}
	s, err = text(name, raw)
	return s, err == nil && strings.TrimSpace(s) == "", err
}

// text reads a string, or null as the empty one. A NUL would cut the text short in a C tokenizer.
func text(name string, raw json.RawMessage) (string, error) {
	switch kind(raw) {
	case "null":
		return "", nil
	case "a string":
	default:
		return "", fmt.Errorf("%s is %s, want a string", name, kind(raw))
	}
	s := unquote(bytes.TrimSpace(raw))
	if strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%s holds a NUL character", name)
	}
	return s, nil
}

// list reads an array, also one that a string holds, as tables have it. It is nil where there is null or a blank
// string.
func list(name string, raw json.RawMessage) ([]json.RawMessage, error) {
	whole, err := unpacked(name, raw)
	switch {
	case err != nil:
		return nil, err
	case whole == nil || isNull(whole):
		return nil, nil
	case kind(whole) != "an array":
		return nil, fmt.Errorf("%s is %s, want an array", name, kind(whole))
	}
	return append([]json.RawMessage{}, elements(whole)...), nil
}

// unpacked is the JSON that a string holds, or the value itself where it is no string. It is nil for a blank string.
func unpacked(name string, raw json.RawMessage) (json.RawMessage, error) {
	if kind(raw) != "a string" {
		return raw, nil
	}
	s := strings.TrimSpace(unquote(bytes.TrimSpace(raw)))
	switch {
	case s == "":
		return nil, nil
	case s[0] != '[' && s[0] != '{':
		return nil, fmt.Errorf("%s is a string, want an array", name)
	}
	err := checkJSON([]byte(s))
	if err != nil && strings.HasPrefix(s[1:], "{'") {
		err = errors.New("it is written as Python writes lists; write it with json.dumps")
	}
	if err != nil {
		return nil, fmt.Errorf("%s holds a list that can't be read: %w", name, err)
	}
	return json.RawMessage(s), nil
}

// holdsNUL tells whether a text anywhere in valid JSON has a NUL character.
func holdsNUL(raw []byte) bool {
	for offset := 0; ; {
		i := bytes.Index(raw[offset:], []byte(`\u0000`))
		if i < 0 {
			return false
		}
		offset += i
		slashes := 0
		for slashes < offset && raw[offset-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
		offset++
	}
}

// kind names the type of a valid JSON value, which its first byte tells.
func kind(raw []byte) string {
	switch c := bytes.TrimSpace(raw)[0]; c {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}
