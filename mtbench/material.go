package mtbench

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// material is what a judge reads and must not take its verdict from: questions, references and answers. A model may
// write [[10]] into its answer, so prompts show verdicts of the material with their brackets apart (see shield), and a
// judge that puts them together again is not believed.
type material struct {
	text    string           // folded
	scores  map[float64]bool // that stand in double brackets
	labels  map[float64]bool // that stand behind a word such as rating
	winners map[string]bool
}

var (
	foldedScore  = regexp.MustCompile(`\[\[(?:[a-z]+[:=]?)?(\d+\.?\d*)(?:/(\d+\.?\d*))?\]\]`)
	foldedLabel  = regexp.MustCompile(`(?:rating|score|grade)(?:is|of)?[:=]?\[{0,2}(\d+\.?\d*)()`)
	foldedWinner = regexp.MustCompile(`\[\[(?:[a-z]+[:=])?(a|b|c|tie)\]\]`)
)

// newMaterial finds the verdicts in a question with its references, and in answers to it.
func newMaterial(q Question, answers ...Answer) *material {
	m := &material{scores: map[float64]bool{}, labels: map[float64]bool{}, winners: map[string]bool{}}
	texts := slices.Concat(q.Turns, q.Reference)
	for _, a := range answers {
		texts = append(texts, a.Choices[0].Turns...)
	}
	for i := range texts {
		texts[i] = fold(texts[i])
		for _, s := range scoreCandidates(foldedScore, texts[i]) {
			m.scores[s.value] = true
		}
		for _, s := range scoreCandidates(foldedLabel, texts[i]) {
			m.labels[s.value] = true
		}
		for _, match := range foldedWinner.FindAllStringSubmatch(texts[i], -1) {
			m.winners[winner(match[1])] = true
		}
	}
	m.text = strings.Join(texts, "\n") // no folded text holds a newline
	return m
}

// fold leaves out what a judge may change where it quotes: spaces, marks of bold type, characters without width, other
// forms of brackets and letters.
func fold(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '！' && r <= '～': // as wide as Chinese characters
			r -= '！' - '!'
		case strings.ContainsRune("【〖⟦〚", r):
			r = '['
		case strings.ContainsRune("】〗⟧〛", r):
			r = ']'
		}
		if unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || strings.ContainsRune("*_`\\", r) {
			return -1
		}
		return unicode.ToLower(r)
	}, text)
}

func claims[V comparable](claimed []map[V]bool, value V) bool {
	return slices.ContainsFunc(claimed, func(c map[V]bool) bool { return c[value] })
}

// unquoted leaves out the candidates that are quotes of the material.
func unquoted[V comparable](m *material, judgment string, list []candidate[V], claimed ...map[V]bool) []candidate[V] {
	return slices.DeleteFunc(list, func(k candidate[V]) bool {
		return claims(claimed, k.value) && m.quoted(judgment, k.from, k.to)
	})
}

var (
	// What stands before a verdict that is a sentence of its own, and what may follow until the judgment ends.
	verdictBegins = regexp.MustCompile(
		`(?i)(?:^|[.!?;)\n])((?:[\s*_#:=-]|\b(?:so|final|my|overall|the|this|rating|score|grade|verdict|winner|judgment|decision|is|of)\b)*)$`)
	verdictEnds = regexp.MustCompile(`(?i)^[\s*_.!)\]]*(?:(?:/|out of)\s*10)?[\s*_.!]*$`)
)

const sentenceEnds = ".!?:;\n\"“”"

// quoted tells whether a candidate whose value the material claims is a quote: it is unless it makes a sentence by
// itself at the judgment's end, and it is where a colon comes before or where it follows on the same sentence as in the
// material.
func (m *material) quoted(judgment string, from, to int) bool {
	begins := verdictBegins.FindStringSubmatchIndex(judgment[:from])
	if begins == nil || !verdictEnds.MatchString(judgment[to:]) {
		return true
	}
	before := strings.TrimRight(judgment[:begins[2]], " \t\r\n*_")
	if strings.HasSuffix(before, ":") {
		return true
	}
	before = strings.TrimRight(before, sentenceEnds+" \t\r*_")
	return strings.Contains(m.text, fold(judgment[strings.LastIndexAny(before, sentenceEnds)+1:to]))
}

// shield gives texts as prompts show them: what reads as a verdict has its brackets apart, [ [10] ], and what reads as
// a heading of these prompts, such as the end of an answer, becomes a quote of its words. All other text stays as it
// is.
func (p Prompts) shield() func(text string) string {
	headings := p.headings()
	return func(text string) string {
		for _, form := range []*regexp.Regexp{bracketedScore, bracketedWinner} {
			text = form.ReplaceAllStringFunc(text, func(verdict string) string {
				return "[ [" + verdict[2:len(verdict)-2] + "] ]"
			})
		}
		if headings == nil {
			return text
		}
		return headings.ReplaceAllStringFunc(text, func(heading string) string {
			return `"` + strings.TrimFunc(heading, notWord) + `"`
		})
	}
}

func notWord(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

// headings matches the lines of the templates that set their parts apart, such as [Question], === End === and ###
// User:. It is nil where there are none.
func (p Prompts) headings() *regexp.Regexp {
	var forms []string
	for _, prompt := range p {
		for line := range strings.Lines(prompt.PromptTemplate) {
			line = strings.TrimSpace(line)
			words := strings.TrimFunc(line, notWord)
			left, right, _ := strings.Cut(line, words)
			if words == "" || left == "" || right == "" || strings.ContainsAny(line, "{}") {
				continue
			}
			inner := strings.Fields(words)
			for i := range inner {
				inner[i] = regexp.QuoteMeta(inner[i])
			}
			forms = append(forms, regexp.QuoteMeta(strings.TrimSpace(left))+`\s*`+strings.Join(inner,
				`\s+`)+`\s*`+regexp.QuoteMeta(strings.TrimSpace(right)))
		}
	}
	if len(forms) == 0 {
		return nil
	}
	slices.Sort(forms)
	return regexp.MustCompile(`(?i)` + strings.Join(slices.Compact(forms), "|"))
}
