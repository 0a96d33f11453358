package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// space is SentencePiece's sign for a space, and begins a word.
const space = "▁"

// commonWords are common English words, the most frequent ones roughly first.
//
//go:embed words.txt
var commonWords string

// tokenizer is the metadata of a SentencePiece tokenizer to which every text is known: as in Llama's, <unk>, <s>, </s>,
// the 256 bytes, then pieces by falling score, single characters last. It splits English into 3.6 characters a token
// (the built-in rows), so that a text is about as long as under a real model's.
func tokenizer(size int) (map[string]any, error) {
	const normal, unknown, control, byteType = 1, 2, 3, 6 // llama.cpp's token types
	tokens, types := []string{"<unk>", "<s>", "</s>"}, []int32{unknown, control, control}
	for b := range 256 {
		tokens, types = append(tokens, fmt.Sprintf("<0x%02X>", b)), append(types, byteType)
	}
	scores := make([]float32, len(tokens), size)
	characters := alphabet()
	n := size - len(tokens) - len(characters)
	if n < 0 {
		return nil, fmt.Errorf("a vocabulary of %d: at least %d tokens are needed", size, size-n)
	}
	for i, piece := range append(mergedPieces(n), characters...) {
		tokens, types, scores = append(tokens, piece), append(types, normal), append(scores, float32(-i))
	}
	if len(tokens) != size {
		return nil, fmt.Errorf("a vocabulary of %d: at most %d tokens can be made up", size, len(tokens))
	}
	return map[string]any{
		"tokenizer.ggml.model":            "llama",
		"tokenizer.ggml.pre":              "default",
		"tokenizer.ggml.tokens":           tokens,
		"tokenizer.ggml.scores":           scores,
		"tokenizer.ggml.token_type":       types,
		"tokenizer.ggml.unknown_token_id": uint32(0),
		"tokenizer.ggml.bos_token_id":     uint32(1),
		"tokenizer.ggml.eos_token_id":     uint32(2),
		"tokenizer.ggml.add_bos_token":    true,
		"tokenizer.ggml.add_eos_token":    false,
	}, nil
}

// alphabet gives the pieces of one character: the space and printable ASCII.
func alphabet() []string {
	list := []string{space}
	for c := '!'; c <= '~'; c++ {
		list = append(list, string(c))
	}
	return list
}

// mergedPieces gives up to n pieces of several characters, best first: those that byte-pair encoding (Sennrich et al.,
// arXiv 1508.07909) learns from the common words, and after them, to fill up, those pieces joined in pairs. A piece
// comes after the two that it is made of, so that SentencePiece's merging gets to it.
func mergedPieces(n int) []string {
	pieces := learn(commonEntries(), n)
	parts := slices.Clone(pieces)
	seen := map[string]bool{}
	for _, p := range pieces {
		seen[p] = true
	}
	const longest = 12 // bytes; longer pairs would hardly be met with in a text
	for sum := range 2 * len(parts) {
		for i := max(0, sum-len(parts)+1); i <= min(sum, len(parts)-1) && len(pieces) < n; i++ {
			a, b := parts[i], parts[sum-i]
			if pair := a + b; !strings.HasPrefix(b, space) && len(pair) <= longest && !seen[pair] {
				seen[pair] = true
				pieces = append(pieces, pair)
			}
		}
	}
	return pieces
}

// entry is a word, split into the pieces that it has been merged into so far.
type entry struct {
	pieces []string
	weight int
}

// commonEntries gives each word as it stands within a sentence and, at an eighth of the weight, at its beginning and
// with its endings. Weights follow Zipf's law.
func commonEntries() []entry {
	var list []entry
	seen := map[string]bool{}
	add := func(word string, weight int) {
		if !seen[word] {
			seen[word] = true
			list = append(list, entry{strings.Split(space+word, ""), weight})
		}
	}
	words := strings.Fields(commonWords)
	weight := func(rank int) int { return 1_000_000 / (rank + 10) }
	for i, word := range words {
		add(word, weight(i))
	}
	for i, word := range words {
		add(strings.ToUpper(word[:1])+word[1:], weight(i)/8)
		for _, inflected := range inflections(word) {
			add(inflected, weight(i)/8)
		}
	}
	return list
}

// inflections gives the regular forms of a word, whether English has them or not.
func inflections(word string) []string {
	stem := word[:len(word)-1]
	switch word[len(stem)] {
	case 'e':
		return []string{word + "s", word + "d", stem + "ing"}
	case 'y':
		return []string{stem + "ies", stem + "ied", word + "ing"}
	}
	return []string{word + "s", word + "ed", word + "ing"}
}

// pair is two adjacent pieces.
type pair struct{ left, right string }

// learn merges the pairs of adjacent pieces that weigh most, many of them between one count and the next, until there
// are n pieces or every word is one.
func learn(words []entry, n int) []string {
	const share = 30 // of the pairs, one in so many is merged before they are counted again
	var learnt []string
	seen := map[string]bool{}
	for len(learnt) < n {
		weights := map[pair]int{}
		for _, e := range words {
			for i, right := range e.pieces[1:] {
				weights[pair{e.pieces[i], right}] += e.weight
			}
		}
		if len(weights) == 0 {
			break
		}
		byWeight := slices.SortedFunc(maps.Keys(weights), func(p, q pair) int {
			return cmp.Or(cmp.Compare(weights[q], weights[p]), cmp.Compare(p.left, q.left),
				cmp.Compare(p.right, q.right))
		})
		rank := map[pair]int{}
		for i, p := range byWeight[:len(byWeight)/share+1] {
			rank[p] = i
			if merged := p.left + p.right; !seen[merged] { // two pairs can make the same piece
				seen[merged] = true
				learnt = append(learnt, merged)
			}
		}
		for i := range words {
			words[i].merge(rank)
		}
	}
	return learnt[:min(n, len(learnt))]
}

// merge joins the adjacent pieces that have a rank, the lowest first.
func (e *entry) merge(rank map[pair]int) {
	for {
		best, at := len(rank), 0
		for i, right := range e.pieces[1:] {
			if r, ok := rank[pair{e.pieces[i], right}]; ok && r < best {
				best, at = r, i
			}
		}
		if best == len(rank) {
			return
		}
		e.pieces = slices.Replace(e.pieces, at, at+2, e.pieces[at]+e.pieces[at+1])
	}
}
