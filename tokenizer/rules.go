package tokenizer

import (
	"fmt"
	"math"
	"strings"
)

// splitter takes a piece of a text apart. It gives the end of the first part of s, more than 0 where s is not empty.
type splitter interface{ part(s string, m *memory) int }

// memory is what a splitter knows of the rest of a piece while it goes through it, by distances from its end.
type memory struct {
	// a run of white space ends where run bytes remain, its last line end where newline do; -1: there is none
	run, newline int
	begun        bool
	from         int // the run was looked at from where that many bytes remained
	gap          int // bytes at the begin that are known to match nothing; a match stands behind
	match        int // and is so long
}

// set is a set of characters.
type set struct {
	ascii  [128]bool
	mask   uint8  // classes of those beyond ASCII
	ranges []rune // pairs of first and last
	negate bool   // the ranges are left out
}

// width is the size of the character at the begin of s where the set has it, else 0.
func (t *set) width(s string) int {
	if s[0] < 0x80 {
		if t.ascii[s[0]] {
			return 1
		}
		return 0
	}
	r, n := decode(s)
	class := classes()[r>>8][r&255]
	has := t.mask&class != 0
	if class != white {
		for i := 0; i < len(t.ranges); i += 2 {
			if r >= t.ranges[i] && r <= t.ranges[i+1] {
				has = !t.negate
				break
			}
		}
	}
	if has {
		return n
	}
	return 0
}

type item struct {
	set
	least, most int
}

type tail int

const (
	free        tail = iota
	noText           // (?!\S)
	atEnd            // $
	contraction      // (?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?
)

type alternative struct {
	items []item
	tail  tail
	lines bool // \s*[\r\n]+, which is looked for once in a run
	words bool // \p{L}\p{M}*, repeated with single spaces between, behind the items
}

// expression is a regular expression's alternatives. The text between matches is a part of its own.
type expression struct {
	list   []alternative
	firsts [129]uint32 // by the first byte, beyond ASCII at the end, which alternatives can match
}

var space, letters, marks = parseSet(`\s`), parseSet(`\p{L}`), parseSet(`\p{M}`)

// part implements splitter.
func (e *expression) part(s string, m *memory) int {
	if m.match > 0 {
		n := m.match
		m.match = 0
		return n
	}
	for i := 0; i < len(s); {
		if end := e.at(s[i:], m); end > 0 {
			if i == 0 {
				return end
			}
			m.match = end
			return i
		}
		n := 1
		if s[i] >= 0x80 {
			_, n = decode(s[i:])
		}
		i += n
	}
	return len(s)
}

// at is the length of the match at the begin of s, 0 where there is none.
func (e *expression) at(s string, m *memory) int {
	may := e.firsts[min(s[0], 128)]
	for i := 0; may != 0; i, may = i+1, may>>1 {
		if may&1 == 0 {
			continue
		}
		a := &e.list[i]
		if a.lines {
			if n := m.lines(s); n > 0 {
				return n
			}
			continue
		}
		if n := a.match(s, 0, 0); n > 0 {
			return n
		}
	}
	return 0
}

// lines matches \s*[\r\n]+.
func (m *memory) lines(s string) int {
	if !m.begun || len(s) > m.from || len(s) <= m.run {
		m.begun, m.from, m.newline = true, len(s), -1
		i := 0
		for i < len(s) {
			n := space.width(s[i:])
			if n == 0 {
				break
			}
			if s[i] == '\n' || s[i] == '\r' {
				m.newline = len(s) - i - 1
			}
			i += n
		}
		m.run = len(s) - i
	}
	if m.newline >= 0 && m.newline < len(s) {
		return len(s) - m.newline
	}
	return 0
}

// match gives the end of a match of the items from k on at i, -1 where there is none.
func (a *alternative) match(s string, i, k int) int {
	if k == len(a.items) {
		return a.ends(s, i)
	}
	t := &a.items[k]
	n, j := 0, i
	for n < t.most && j < len(s) {
		w := t.width(s[j:])
		if w == 0 {
			break
		}
		j += w
		n++
	}
	for n >= t.least {
		if end := a.match(s, j, k+1); end >= 0 {
			return end
		}
		if n == 0 {
			break
		}
		n--
		for j--; s[j]&0xc0 == 0x80; j-- {
		}
	}
	return -1
}

func (a *alternative) ends(s string, i int) int {
	if a.words {
		if i == len(s) || letters.width(s[i:]) == 0 {
			return -1
		}
		for i < len(s) {
			if n := letters.width(s[i:]) + marks.width(s[i:]); n > 0 {
				i += n
			} else if s[i] == ' ' && i+1 < len(s) && letters.width(s[i+1:]) > 0 {
				i++
			} else {
				break
			}
		}
		return i
	}
	switch a.tail {
	case noText:
		if i < len(s) && space.width(s[i:]) == 0 {
			return -1
		}
	case atEnd:
		if i < len(s) {
			return -1
		}
	case contraction:
		if i+1 < len(s) && s[i] == '\'' {
			switch lower := s[i+1] | 0x20; {
			case lower == 's' || lower == 't' || lower == 'm' || lower == 'd':
				return i + 2
			case i+2 < len(s):
				next := s[i+2] | 0x20
				if (lower == 'r' || lower == 'v') && next == 'e' || lower == 'l' && next == 'l' {
					return i + 3
				}
			}
		}
	}
	return i
}

// compile reads the part of the syntax of regular expressions that the rules use: alternatives of characters and sets
// with quantifiers, and at an alternative's end (?!\S), $, (?C) for a contraction that may be there, (?W) for words
// with single spaces between.
func compile(source string) *expression {
	e := new(expression)
	for _, part := range split(source) {
		if part == `\s*[\r\n]+` {
			e.list = append(e.list, alternative{lines: true, items: []item{{set: space, least: 1, most: 1}}})
			continue
		}
		a := alternative{}
		for part != "" {
			switch {
			case part == `(?!\S)`:
				a.tail, part = noText, ""
			case part == `$`:
				a.tail, part = atEnd, ""
			case part == `(?C)`:
				a.tail, part = contraction, ""
			case part == `(?W)`:
				a.words, part = true, ""
			default:
				n := atom(part)
				t := item{set: parseSet(part[:n]), least: 1, most: 1}
				part = part[n:]
				if part != "" {
					switch part[0] {
					case '*':
						t.least, t.most, part = 0, math.MaxInt, part[1:]
					case '+':
						t.most, part = math.MaxInt, part[1:]
					case '?':
						t.least, part = 0, part[1:]
					case '{':
						end := strings.IndexByte(part, '}')
						if k, _ := fmt.Sscanf(part[:end+1], "{%d,%d}", &t.least, &t.most); k == 1 {
							t.most = t.least
						}
						part = part[end+1:]
					}
				}
				a.items = append(a.items, t)
			}
		}
		e.list = append(e.list, a)
	}
	for b := range e.firsts {
		for i := range e.list {
			a := &e.list[i]
			may, k := false, 0
			for ; k < len(a.items); k++ {
				may = may || b == 128 || a.items[k].ascii[b]
				if a.items[k].least > 0 {
					break
				}
			}
			if k == len(a.items) {
				may = true
			}
			if may {
				e.firsts[b] |= 1 << i
			}
		}
	}
	return e
}

// split takes the alternatives of an expression apart.
func split(source string) (parts []string) {
	start := 0
	for i := 0; i < len(source); {
		switch {
		case source[i] == '|':
			parts = append(parts, source[start:i])
			i++
			start = i
		case source[i] == '(':
			i += strings.IndexByte(source[i:], ')') + 1
		default:
			i += atom(source[i:])
		}
	}
	return append(parts, source[start:])
}

// atom is the length of the character or set at the begin.
func atom(s string) int {
	switch s[0] {
	case '\\':
		if s[1] == 'p' {
			return strings.IndexByte(s, '}') + 1
		}
		return 2
	case '[':
		for i := 1; ; {
			if s[i] == ']' {
				return i + 1
			}
			i += atom(one(s[i:]))
		}
	}
	_, n := decode(s)
	return n
}

// one is s, with a bracket at its begin that stands for itself within a set taken for a letter.
func one(s string) string {
	if s[0] == '[' {
		return "x" + s[1:]
	}
	return s
}

var escapes = map[byte]rune{'r': '\r', 'n': '\n', 't': '\t'}

func parseSet(s string) set {
	t := set{}
	list := s
	if s[0] == '[' {
		list = s[1 : len(s)-1]
		if list != "" && list[0] == '^' {
			t.negate, list = true, list[1:]
		}
	}
	add := func(first, last rune) {
		for c := first; c <= last && c < 128; c++ {
			t.ascii[c] = true
		}
		if last >= 128 {
			t.ranges = append(t.ranges, max(first, 128), last)
		}
	}
	class := func(mask uint8) {
		t.mask |= mask
		for c := range t.ascii {
			if classes()[0][c]&mask != 0 {
				t.ascii[c] = true
			}
		}
	}
	// bound reads one end of a range.
	bound := func() rune {
		if list[0] == '\\' {
			r, known := escapes[list[1]]
			if !known {
				r = rune(list[1])
			}
			list = list[2:]
			return r
		}
		r, n := decode(list)
		list = list[n:]
		return r
	}
	for list != "" {
		switch {
		case strings.HasPrefix(list, `\p{`):
			mask := map[byte]uint8{'L': letter, 'N': number, 'M': mark, 'P': punct, 'S': symbol}[list[3]]
			class(mask)
			list = list[5:]
		case strings.HasPrefix(list, `\s`):
			class(white)
			list = list[2:]
		case strings.HasPrefix(list, `\S`):
			class(anyClass &^ white)
			list = list[2:]
		case strings.HasPrefix(list, `\d`):
			add('0', '9')
			list = list[2:]
		default:
			first := bound()
			last := first
			if len(list) > 1 && list[0] == '-' {
				list = list[1:]
				last = bound()
			}
			add(first, last)
		}
	}
	if t.negate {
		for c := range t.ascii {
			t.ascii[c] = !t.ascii[c]
		}
		t.mask = anyClass &^ t.mask
	}
	return t
}

// without is the set without some characters of ASCII.
func (t set) without(first, last byte) set {
	for c := first; c <= last; c++ {
		t.ascii[c] = false
	}
	return t
}

// cased is the rules' way of words with capitals at their begin: prefix, capitals, small letters, where letters beyond
// ASCII are both.
func cased(with set, rest string, t tail) *expression {
	upper, lower := with.without('a', 'z'), with.without('A', 'Z')
	prefix := item{set: parseSet(`[^\r\n\p{L}\p{N}]`), least: 0, most: 1}
	e := compile(`x|x|` + rest)
	any := func(s set, least int) item { return item{set: s, least: least, most: math.MaxInt} }
	e.list[0] = alternative{items: []item{prefix, any(upper, 0), any(lower, 1)}, tail: t}
	e.list[1] = alternative{items: []item{prefix, any(upper, 1), any(lower, 0)}, tail: t}
	for b := range e.firsts {
		e.firsts[b] |= 3
	}
	return e
}

// digitGroups takes runs of digits apart in threes from the right; what stands before a run goes with its first group.
type digitGroups struct{}

var numbers = parseSet(`\p{N}`)

func (digitGroups) part(s string, m *memory) int {
	i := 0
	for i < len(s) && numbers.width(s[i:]) == 0 {
		_, n := decode(s[i:])
		i += n
	}
	if i == len(s) {
		return i
	}
	if !m.begun || m.run >= len(s) {
		m.begun = true
		end, count := i, 0
		for end < len(s) {
			n := numbers.width(s[end:])
			if n == 0 {
				break
			}
			end += n
			count++
		}
		m.run, m.gap = len(s)-end, count
	}
	take := m.gap % 3
	if take == 0 {
		take = 3
	}
	m.gap -= take
	for range take {
		i += numbers.width(s[i:])
	}
	return i
}

// thousands cuts before every three digits of ASCII that end a run of them.
type thousands struct{}

func (thousands) part(s string, m *memory) int {
	digit := func(i int) bool { return s[i] >= '0' && s[i] <= '9' }
	for i := 0; i < len(s); i++ {
		if !digit(i) {
			continue
		}
		if !m.begun || m.run >= len(s)-i {
			m.begun = true
			end := i
			for end < len(s) && digit(end) {
				end++
			}
			m.run = len(s) - end
		}
		if left := len(s) - i - m.run; i > 0 && left%3 == 0 {
			return i
		}
	}
	return len(s)
}

// newlines takes lines and runs of line ends apart.
type newlines struct{}

func (newlines) part(s string, _ *memory) int {
	if s[0] != '\n' {
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			return i
		}
		return len(s)
	}
	i := 1
	for i < len(s) && s[i] == '\n' {
		i++
	}
	return i
}

// han takes Han characters apart from the rest, and words beside them.
func han() *expression {
	e := compile(`x+|[^\r\n\p{L}\p{N}]?\p{L}+(?C)|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`)
	ranges := []rune{0x4e00, 0x9fff, 0x3400, 0x4dbf, 0x20000, 0x2a6df, 0x2a700, 0x2ebef, 0xf900, 0xfaff,
		0x2f800, 0x2fa1f}
	e.list[0].items[0].set = set{ranges: ranges}
	words := &e.list[1].items[1].set
	words.ranges, words.negate = ranges, true
	return e
}

// sentinels and images find Chameleon's names of tokens in a text: <sentinel:12>, and IMGIMG with up to four of the
// letters A to I and a Z.
type (
	sentinels struct{}
	images    struct{}
)

func (sentinels) part(s string, m *memory) int {
	return found(s, m, "<sentinel:", func(s string) int {
		i := len("<sentinel:")
		begin := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		if i == begin || i == len(s) || s[i] != '>' {
			return 0
		}
		return i + 1
	})
}

func (images) part(s string, m *memory) int {
	return found(s, m, "IMGIMG", func(s string) int {
		i := len("IMGIMG")
		begin := i
		for i < len(s) && i < begin+4 && s[i] >= 'A' && s[i] <= 'I' {
			i++
		}
		if i == begin || i == len(s) || s[i] != 'Z' {
			return 0
		}
		return i + 1
	})
}

// found gives the part before the first match, or the match. length is that of a match where one begins with the text.
func found(s string, m *memory, begin string, length func(string) int) int {
	if m.match > 0 {
		n := m.match
		m.match = 0
		return n
	}
	for i := 0; ; i++ {
		at := strings.Index(s[i:], begin)
		if at < 0 {
			return len(s)
		}
		i += at
		if n := length(s[i:]); n > 0 {
			if i == 0 {
				return n
			}
			m.match = n
			return i
		}
	}
}
