package alpaca

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// control is a token that stands for no text: a text that spells it out is that token in a chat template's own text,
// and nowhere else.
type control struct {
	token                   int32
	text                    string
	stripBefore, stripAfter bool // whether white space beside it goes
}

// controls finds control tokens in texts.
type controls struct {
	list   []control // longest text first, as llama.cpp looks for them
	byByte [256][]int32
	texts  map[int32]string
}

func newControls(tok Tokenizer) *controls {
	c := &controls{texts: map[int32]string{}}
	tok.Controls(func(token int32, text string, stripBefore, stripAfter bool) {
		c.list = append(c.list, control{token, text, stripBefore, stripAfter})
		c.texts[token] = text
	})
	slices.SortStableFunc(c.list, func(a, b control) int { return cmp.Compare(len(b.text), len(a.text)) })
	for i, control := range c.list {
		c.byByte[control.text[0]] = append(c.byByte[control.text[0]], int32(i))
	}
	return c
}

// text is that of a control token, "" for any other.
func (c *controls) text(token int32) string { return c.texts[token] }

// match is a control token in a text.
type match struct {
	span
	control int32 // index in the list
}

// candidates calls yield for every place where the text of a control token is, the longest of a place first.
func (c *controls) candidates(text string, yield func(match)) {
	for i := range len(text) {
		for _, k := range c.byByte[text[i]] {
			if word := c.list[k].text; strings.HasPrefix(text[i:], word) {
				yield(match{span{i, i + len(word)}, k})
			}
		}
	}
}

// find cuts a text at its control tokens, but for those that begin at a place in plain, which is sorted. Where two
// overlap, the one with the longer text is there, and of equally long ones the first.
func (c *controls) find(text string, plain []int) []match {
	var all []match
	c.candidates(text, func(m match) {
		if _, isPlain := slices.BinarySearch(plain, m.start); !isPlain {
			all = append(all, m)
		}
	})
	if all == nil {
		return nil
	}
	slices.SortStableFunc(all, func(a, b match) int { return (b.end - b.start) - (a.end - a.start) })
	var taken []match
	covered := make([]bool, len(text))
	for _, m := range all {
		if covered[m.start] || covered[m.end-1] { // one within it would be shorter, and come later
			continue
		}
		taken = append(taken, m)
		for i := m.start; i < m.end; i++ {
			covered[i] = true
		}
	}
	slices.SortFunc(taken, func(a, b match) int { return a.start - b.start })
	return taken
}

// in lists the texts of control tokens that are in a text.
func (c *controls) in(text string) (found []string) {
	for _, m := range c.find(text, nil) {
		if word := c.list[m.control].text; !slices.Contains(found, word) {
			found = append(found, word)
		}
	}
	return found
}

// mask disguises the texts of control tokens. A nil mask leaves everything as it is.
type mask struct {
	controls      *controls
	found         []int32       // controls that are spelled out, as indices of the list
	stand         map[rune]rune // for the first character of a control's text
	back          map[rune]rune
	assistantsOwn map[int32]bool // controls that stay as they are in the assistant's messages
}

// firstStand is the first character of a private use area, most of which no font or text uses.
const firstStand = '\U000f0000'

// disguise returns a mask for the control tokens that a conversation spells out, nil where it spells none.
func (c *controls) disguise(conv conversation) *mask {
	m := &mask{controls: c, stand: map[rune]rune{}, back: map[rune]rune{}, assistantsOwn: map[int32]bool{}}
	var texts []string
	look := func(s string) string {
		texts = append(texts, s)
		c.candidates(s, func(found match) {
			if !slices.Contains(m.found, found.control) {
				m.found = append(m.found, found.control)
			}
		})
		return s
	}
	for _, message := range conv.messages {
		if message.Fields == nil {
			look(message.Content)
		}
		for _, f := range message.Fields {
			jinjaValue(f.Value, look)
		}
	}
	for _, raw := range []json.RawMessage{conv.tools, conv.documents} {
		if raw != nil {
			jinjaValue(raw, look)
		}
	}
	if m.found == nil {
		return nil
	}
	next := firstStand
	for _, k := range m.found {
		first, _ := utf8.DecodeRuneInString(c.list[k].text)
		if m.stand[first] != 0 {
			continue
		}
		for slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsRune(s, next) }) {
			next++
		}
		m.stand[first], m.back[next] = next, first
		next++
	}
	return m
}

func (m *mask) hide(s string) string { return m.exchange(s, false) }

func (m *mask) hideAssistant(s string) string { return m.exchange(s, true) }

func (m *mask) exchange(s string, assistant bool) string {
	if m == nil {
		return s
	}
	var b strings.Builder
	done := 0
	m.controls.candidates(s, func(found match) {
		if found.start < done || assistant && m.assistantsOwn[found.control] {
			return
		}
		first, n := utf8.DecodeRuneInString(s[found.start:])
		b.WriteString(s[done:found.start])
		b.WriteRune(m.stand[first])
		done = found.start + n
	})
	if done == 0 {
		return s
	}
	return b.String() + s[done:]
}

// original is the character that another stands for.
func (m *mask) original(c rune) (rune, bool) {
	if m == nil {
		return 0, false
	}
	r, ok := m.back[c]
	return r, ok
}

// restore takes all disguises off a text.
func (m *mask) restore(s string) string {
	return strings.Map(func(c rune) rune {
		if r, ok := m.original(c); ok {
			return r
		}
		return c
	}, s)
}
