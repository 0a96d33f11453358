package alpaca

import (
	"fmt"
	"strings"
)

// Names that rewritten templates refer to.
const (
	jsonFilter      = "veratune_tojson"
	printFilter     = "veratune_print"
	operandFilter   = "veratune_operand"
	textFilter      = "veratune_text"
	escapeFilter    = "veratune_escape"
	timesFilter     = "veratune_times"
	macroStart      = "veratune_macro"
	macroEnd        = "veratune_endmacro"
	containerFilter = "veratune_container"
	lengthFilter    = "veratune_length"
	textsFilter     = "veratune_texts"
	definedFilter   = "veratune_defined"
	generatorFilter = "veratune_generator"
	unsafePrefix    = "veratune_unsafe_" // of methods that change a list or an object
	generationOpen  = "veratune_generation"
	generationEnd   = "veratune_endgeneration"
)

// rewriteJinja returns a template with which the library does as Jinja 3 does for Hugging Face:
//
//   - Text stands in expressions, with the white space around tags dealt with (trim_blocks, lstrip_blocks, "-" and "+"
//     at a tag's ends, the last newline dropped): the library's own rules look past tags that touch.
//   - The escapes in strings are decoded as Python's.
//   - What Python refuses to add, to look into or to count, such as None, is refused, as are members of what is
//     undefined and changes of lists; what it prints is printed so; tojson writes as json.dumps.
//   - {% generation %} becomes the output of a mark.
//   - What is added, multiplied, gone through and called counts against a budget.
//
// Lines keep their numbers.
func rewriteJinja(source string) (string, error) {
	source = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(source)
	r := &jinjaRewriter{source: strings.TrimSuffix(source, "\n"), lineStart: true}
	for r.offset < len(r.source) {
		if err := r.next(); err != nil {
			return "", err
		}
	}
	return r.out.String(), nil
}

// jinjaRewriter goes through a template from left to right.
type jinjaRewriter struct {
	source    string
	offset    int
	out       strings.Builder
	lineStart bool // the text that comes next begins a line, for lstrip_blocks
}

// next takes text up to a tag, and the tag.
func (r *jinjaRewriter) next() error {
	rest := r.source[r.offset:]
	n := findTag(rest)
	if n < 0 {
		r.text(rest, rest)
		r.offset = len(r.source)
		return nil
	}
	text, kind := rest[:n], rest[n+1]
	r.offset += n + 2
	kept := text
	switch sign := r.sign(); {
	case sign == '-':
		kept = strings.TrimRightFunc(text, isSpace)
	case sign != '+' && kind != '{':
		kept = r.stripIndent(text)
	}
	r.text(text, kept)
	if kind == '#' {
		return r.comment()
	}
	return r.tag(kind)
}

// findTag returns where the next tag begins, or -1.
func findTag(s string) int {
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '{' && (s[i+1] == '{' || s[i+1] == '%' || s[i+1] == '#') {
			return i
		}
	}
	return -1
}

// sign takes the "-" or "+" behind a tag's beginning.
func (r *jinjaRewriter) sign() byte {
	if r.offset < len(r.source) && (r.source[r.offset] == '-' || r.source[r.offset] == '+') {
		r.offset++
		return r.source[r.offset-1]
	}
	return 0
}

// stripIndent is lstrip_blocks: what stands before a block on its line goes where it is white space only.
func (r *jinjaRewriter) stripIndent(text string) string {
	line := strings.LastIndexByte(text, '\n') + 1
	if (line > 0 || r.lineStart) && strings.TrimFunc(text[line:], isSpace) == "" {
		return text[:line]
	}
	return text
}

// text writes what is kept of a text as an expression.
func (r *jinjaRewriter) text(whole, kept string) {
	if kept != "" {
		r.out.WriteString("{{ ")
		r.out.WriteString(quoteJinja(kept))
		r.out.WriteString(" }}")
	}
	r.skip(whole)
}

// skip writes a comment with the line ends of what is left out.
func (r *jinjaRewriter) skip(s string) {
	if n := strings.Count(s, "\n"); n > 0 {
		r.out.WriteString("{#" + strings.Repeat("\n", n) + "#}")
	}
}

func (r *jinjaRewriter) comment() error {
	begun := r.offset
	n := strings.Index(r.source[r.offset:], "#}")
	if n < 0 {
		return fmt.Errorf("line %d: a comment has no end", r.line(begun))
	}
	body := r.source[begun : begun+n]
	r.offset += n + 2
	r.skip(body)
	var sign byte
	if n > 0 {
		sign = body[n-1]
	}
	r.after(sign, true)
	return nil
}

// after deals with the white space behind a tag: all of it goes after "-", and a newline after blocks and comments.
func (r *jinjaRewriter) after(sign byte, trimNewline bool) {
	rest := r.source[r.offset:]
	taken := ""
	switch {
	case sign == '-':
		taken = rest[:len(rest)-len(strings.TrimLeftFunc(rest, isSpace))]
	case sign != '+' && trimNewline && strings.HasPrefix(rest, "\n"):
		taken = "\n"
	}
	r.offset += len(taken)
	r.skip(taken)
	r.lineStart = strings.HasSuffix(taken, "\n")
}

// tag takes an expression or a statement.
func (r *jinjaRewriter) tag(kind byte) error {
	begun := r.offset
	inside := jinjaTag{source: r.source, offset: r.offset, closer: closing(kind)}
	sign, err := inside.rewrite()
	if err != nil {
		return fmt.Errorf("line %d: %w", r.line(begun), err)
	}
	tokens := string(inside.out)
	r.offset = inside.offset
	r.after(sign, kind == '%')
	words := append(strings.Fields(tokens), "")
	if kind == '%' && len(words) == 2 {
		switch words[0] {
		case "generation":
			r.out.WriteString("{{ " + generationOpen + " }}")
			return nil
		case "endgeneration":
			r.out.WriteString("{{ " + generationEnd + " }}")
			return nil
		case "raw":
			return r.raw(begun)
		}
	}
	if kind == '%' && words[0] == "endmacro" {
		r.out.WriteString("{{ " + macroEnd + "() }}")
	}
	if kind == '{' {
		r.out.WriteString("{{ (" + tokens + ")|" + printFilter + " }}")
	} else {
		r.out.WriteString("{% " + tokens + " %}")
	}
	if kind == '%' && words[0] == "macro" {
		r.out.WriteString("{{ " + macroStart + "() }}")
	}
	return nil
}

func closing(kind byte) string {
	if kind == '{' {
		return "}}"
	}
	return "%}"
}

// raw takes text up to {% endraw %}.
func (r *jinjaRewriter) raw(begun int) error {
	rest := r.source[r.offset:]
	for from := 0; ; {
		n := strings.Index(rest[from:], "{%")
		if n < 0 {
			return fmt.Errorf("line %d: raw has no endraw", r.line(begun))
		}
		n += from
		end := strings.Index(rest[n:], "%}")
		if end < 0 {
			return fmt.Errorf("line %d: raw has no endraw", r.line(begun))
		}
		inside := rest[n+2 : n+end]
		if strings.TrimFunc(strings.Trim(inside, "+-"), isSpace) != "endraw" {
			from = n + 2
			continue
		}
		text, kept := rest[:n], rest[:n]
		if inside[0] == '-' {
			kept = strings.TrimRightFunc(text, isSpace)
		} else if inside[0] != '+' {
			kept = r.stripIndent(text)
		}
		r.text(text, kept)
		r.offset += n + end + 2
		r.after(inside[len(inside)-1], true)
		return nil
	}
}

func (r *jinjaRewriter) line(offset int) int { return 1 + strings.Count(r.source[:offset], "\n") }
