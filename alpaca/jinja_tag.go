package alpaca

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// jinjaTag rewrites the inside of a tag token by token.
type jinjaTag struct {
	source string
	offset int
	closer string
	out    []byte
	levels []jinjaLevel // the tag's own, and one for each bracket that is open
	ended  bool         // an operand is complete up to here
	last   byte         // character before, white space left out
	target bool         // what a statement sets is being read
}

// jinjaLevel is the operand that is being read between two brackets. It takes in attributes, calls and filters.
type jinjaLevel struct {
	start  int    // in the output
	source int    // in the source
	await  string // filter that it goes through when it is complete
	filter string // its last

	literal bool // it is a string in quotes so far
	text    bool // what is being added up is text
	safe    bool // and of the filter safe, so that what is added is escaped
}

func (t *jinjaTag) level() *jinjaLevel { return &t.levels[len(t.levels)-1] }

func (t *jinjaTag) write(s string) { t.out = append(t.out, s...) }

// rewrite goes up to the tag's end and takes it, with its sign.
func (t *jinjaTag) rewrite() (sign byte, err error) {
	t.levels = []jinjaLevel{{}}
	for t.offset < len(t.source) {
		rest := t.source[t.offset:]
		if len(t.levels) == 1 {
			if strings.HasPrefix(rest, t.closer) {
				t.offset += len(t.closer)
				return 0, nil
			}
			if (rest[0] == '-' || rest[0] == '+') && strings.HasPrefix(rest[1:], t.closer) {
				t.offset += 1 + len(t.closer)
				return rest[0], nil
			}
		}
		if err := t.token(rest); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("a tag has no end " + t.closer)
}

// token rewrites the token that rest begins with.
func (t *jinjaTag) token(rest string) error {
	c := rest[0]
	switch {
	case strings.IndexByte(" \t\n", c) >= 0:
		t.write(rest[:1])
		t.offset++
		return nil
	case c == '\'' || c == '"':
		n := stringEnd(rest)
		if n < 0 {
			return errors.New("a string has no end")
		}
		t.begin()
		t.level().literal = true
		t.write(quoteJinja(unescapePython(rest[1:n-1])) + strings.Repeat("\n", strings.Count(rest[:n], "\n")))
		t.offset += n
		t.complete()
	case isName(c):
		n := 1
		for n < len(rest) && (isName(rest[n]) || isDigit(c) && rest[n] == '.' && n+1 < len(rest) &&
			isDigit(rest[n+1])) {
			n++
		}
		t.name(rest[:n])
	case strings.IndexByte("([{", c) >= 0:
		t.open(rest[:1])
	case strings.IndexByte(")]}", c) >= 0:
		t.write(rest[:1])
		t.offset++
		if len(t.levels) > 1 {
			t.levels = t.levels[:len(t.levels)-1]
		}
		t.complete()
	default:
		t.operator(c)
	}
	t.last = c
	return nil
}

// begin is called where an operand begins.
func (t *jinjaTag) begin() {
	l := t.level()
	l.start, l.source, l.filter, l.literal = len(t.out), t.offset, "", false
}

// open takes an opening bracket: of a call or an index behind an operand, else of a new one.
func (t *jinjaTag) open(bracket string) {
	switch {
	case !t.ended:
		t.begin()
	case bracket == "[":
		t.defined()
	}
	t.write(bracket)
	t.offset++
	t.levels, t.ended = append(t.levels, jinjaLevel{}), false
}

// defined has the operand be refused where it is undefined, as Python refuses the members of that.
func (t *jinjaTag) defined() {
	if t.target {
		return
	}
	l := t.level()
	name := strings.TrimSpace(t.source[l.source:t.offset])
	t.out = slices.Insert(t.out, l.start, '(')
	t.write("|" + definedFilter + "(" + quoteJinja(name) + "))")
}

// operator writes a character that is no part of an operand, or the point of an attribute.
func (t *jinjaTag) operator(c byte) {
	l := t.level()
	switch {
	case c == '.' && t.ended:
		t.defined()
	case c == '+' && t.ended:
		t.add()
	case c == '~' && t.ended:
		t.write("|" + printFilter)
		l.await = printFilter
	case c == '*' && t.ended && !strings.HasPrefix(t.source[t.offset:], "**"):
		t.write("|" + timesFilter)
		l.await = timesFilter
	case c == '=':
		t.target = t.target && len(t.levels) > 1
	}
	if c != '.' && c != '|' && c != '+' {
		l.text, l.safe = false, false
	}
	t.write(string(c))
	t.offset++
	t.ended = false
}

// add deals with the operands of "+": none may be None, and all are text where it is plain that one is. What is added
// to safe text is escaped.
func (t *jinjaTag) add() {
	l := t.level()
	next := strings.TrimLeft(t.source[t.offset+1:], " \t\n")
	l.safe = l.safe || l.filter == "safe"
	left := operandFilter
	l.text = l.text || l.literal && l.filter == "" ||
		slices.Contains([]string{"safe", "string", "trim", "tojson"}, l.filter)
	if l.text || next != "" && (next[0] == '"' || next[0] == '\'') {
		left, l.text = textFilter, true
	}
	t.write("|" + left)
	if l.await = left; l.safe {
		l.await = escapeFilter
	}
}

// Words of Jinja.
var (
	// no operands
	jinjaWords = []string{"and", "or", "not", "is", "in", "if", "else", "elif", "for", "set", "recursive", "macro",
		"call", "filter"}
	// filters that make no lists
	jinjaGenerators = []string{"map", "select", "reject", "selectattr", "rejectattr"}
	jinjaMutators   = []string{"append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse",
		"setdefault", "sort", "update"}
)

// name writes a name, behind a filter's bar perhaps that of another filter.
func (t *jinjaTag) name(name string) {
	filter, attribute, l := t.last == '|', t.last == '.', t.level()
	if !filter && !attribute {
		t.begin()
	}
	t.offset += len(name)
	written := name
	switch {
	case filter && name == "tojson" && slices.Contains(jinjaGenerators, l.filter):
		written = "list|" + generatorFilter
	case filter && name == "tojson":
		written = jsonFilter
	case filter && (name == "length" || name == "count"):
		written = lengthFilter
	case filter && (name == "trim" || name == "string"):
		written = printFilter + "|" + name
	case filter && name == "join":
		written = textsFilter + "|" + name
	case attribute && slices.Contains(jinjaMutators, name) && strings.HasPrefix(t.source[t.offset:], "("):
		written = unsafePrefix + name
	}
	t.write(written)
	switch {
	case filter:
		l.filter = name
		t.complete()
	case attribute:
		t.complete()
	case name == "in":
		l.await, l.text, l.safe, t.ended = containerFilter, false, false, false
	case slices.Contains(jinjaWords, name):
		l.text, l.safe = false, false
		t.target = name == "set"
		t.ended = false
	default:
		t.complete()
	}
}

// complete is called behind what may be the end of an operand.
func (t *jinjaTag) complete() {
	t.ended = true
	next := strings.TrimLeft(t.source[t.offset:], " \t\n")
	if next != "" && strings.IndexByte(".([|", next[0]) >= 0 {
		return
	}
	l := t.level()
	if l.await != "" && !(l.await == escapeFilter && l.filter == "safe") {
		t.write("|" + l.await)
	}
	l.await = ""
}

// quoteJinja writes a string as the library's parser reads it.
func quoteJinja(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// stringEnd returns the length of the string literal that s begins with, or -1.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			return i + 1
		}
	}
	return -1
}

func isName(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isSpace is Python's str.isspace, which takes four separators of ASCII for space, too.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

// unescapePython decodes the escapes of a Python string literal. One that Python doesn't know stays as it is.
func unescapePython(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if at := strings.IndexByte(`abfnrtv\'"`, s[i]); at >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v\\'\""[at])
			continue
		}
		if digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i]]; digits > 0 && i+digits < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+1+digits], 16, 32); err == nil && v <= utf8.MaxRune {
				b.WriteRune(rune(v))
				i += digits
				continue
			}
		}
		if s[i] != '\n' { // an escaped line end is none
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
