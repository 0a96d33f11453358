package main

import (
	"fmt"
	"strconv"
	"strings"
)

// blocks is the flag of a list of blocks, which may be given more than once.
type blocks []span

// span is the blocks from first to last.
type span struct{ first, last int }

// Set reads numbers and spans of them: "0-9,20".
func (b *blocks) Set(text string) error {
	words := splitWords([]string{text})
	if len(words) == 0 && text != "" {
		words = []string{text}
	}
	for _, word := range words {
		from, to, isSpan := strings.Cut(word, "-")
		if !isSpan {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		last, lastErr := strconv.ParseUint(to, 10, 16)
		if err != nil || lastErr != nil || last < first {
			return fmt.Errorf("%q: want blocks counted from 0, such as 3, or 0-9 for those from 0 to 9", word)
		}
		*b = append(*b, span{int(first), int(last)})
	}
	return nil
}

// String is what Set reads.
func (b *blocks) String() string {
	var words []string
	for _, s := range *b {
		words = append(words, s.String())
	}
	return strings.Join(words, ",")
}

func (s span) String() string {
	if s.first == s.last {
		return strconv.Itoa(s.first)
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

// indices gives every block.
func (b blocks) indices() (list []int) {
	for _, s := range b {
		for n := s.first; n <= s.last; n++ {
			list = append(list, n)
		}
	}
	return list
}
