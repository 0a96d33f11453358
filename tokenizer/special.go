package tokenizer

import (
	"cmp"
	"slices"
	"sort"
	"strings"
)

// specials are the tokens that are looked for in texts before anything is merged.
type specials struct {
	list   []special  // in the order in which they are looked for: long ones first
	byText []int32    // places in the list, in the order of the texts
	begins [257]int32 // where in byText those are whose text begins with a byte
}

type special struct {
	token       int32
	text        string
	left, right bool // white space on that side goes with it
}

func (s *specials) sort() {
	slices.SortStableFunc(s.list, func(a, b special) int { return cmp.Compare(len(b.text), len(a.text)) })
	s.byText = make([]int32, len(s.list))
	for i := range s.byText {
		s.byText[i] = int32(i)
	}
	slices.SortFunc(s.byText, func(a, b int32) int { return strings.Compare(s.list[a].text, s.list[b].text) })
	for b := range s.begins {
		s.begins[b] = int32(sort.Search(len(s.byText), func(i int) bool {
			return int(s.list[s.byText[i]].text[0]) >= b
		}))
	}
}

// in gives those that a text holds, in the order in which they are looked for.
func (s *specials) in(text string) []int32 {
	var found []int32
	seen := map[int32]bool{}
	for i := range len(text) {
		from, to := s.begins[text[i]], s.begins[int(text[i])+1]
		for n := 1; from < to; n++ { // whose first n bytes are those
			if at := s.byText[from]; len(s.list[at].text) == n {
				if !seen[at] {
					seen[at] = true
					found = append(found, at)
				}
				from++
			}
			if i+n == len(text) {
				break
			}
			next, all := text[i+n], s.byText[from:to]
			first := sort.Search(len(all), func(k int) bool { return s.list[all[k]].text[n] >= next })
			behind := sort.Search(len(all), func(k int) bool { return s.list[all[k]].text[n] > next })
			from, to = from+int32(first), from+int32(behind)
		}
	}
	slices.Sort(found)
	return found
}

// fragment is a part of a text, or a token that was found in it.
type fragment struct {
	text  string
	token int32 // -1: none
}

// fragments takes a text apart at the special tokens in it. With control, it looks for those that are not user-defined,
// too.
func (t *Tokenizer) fragments(text string, control bool) []fragment {
	var list []fragment
	add := func(list []fragment, text string) []fragment {
		if text != "" {
			list = append(list, fragment{text, -1})
		}
		return list
	}
	list = add(list, text)
	for _, at := range t.special.in(text) {
		s := &t.special.list[at]
		if !control && t.types[s.token] != userToken {
			continue
		}
		var next []fragment
		for _, f := range list {
			for f.token < 0 {
				at := strings.Index(f.text, s.text)
				if at < 0 {
					break
				}
				before, behind := f.text[:at], f.text[at+len(s.text):]
				const blank = " \t\n\v\f\r"
				if s.left {
					before = strings.TrimRight(before, blank)
				}
				if s.right {
					behind = strings.TrimLeft(behind, blank)
				}
				next = append(add(next, before), fragment{"", s.token})
				f.text = behind
			}
			if f.token >= 0 {
				next = append(next, f)
			} else {
				next = add(next, f.text)
			}
		}
		list = next
	}
	return list
}
