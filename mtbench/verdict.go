package mtbench

import (
	"regexp"
	"strconv"
)

// What judges write for a grade or a winner: FastChat's forms, and those that fixes of it add: [[9/10]], bold, spaces,
// small letters.
var (
	bracketedScore = regexp.MustCompile(
		`(?i)\[\[[\s*_]*(?:(?:rating|score|grade)[\s*_]*[:=]?[\s*_]*)?(\d+\.?\d*)[\s*_]*(?:/[\s*_]*(\d+\.?\d*)[\s*_]*)?\]\]`)
	labelledScore = regexp.MustCompile(`(?i)\b(?:rating|score|grade)[ \t*_]*[:=][ \t*_]*\[{0,2}[ ` +
		`\t*_]*(\d+\.?\d*)(?:[ \t*_]*\]{0,2}[ \t*_]*(?:/|out of)[ \t*_]*\[{0,2}(\d+\.?\d*))?`)
	bracketedWinner = regexp.MustCompile(`(?i)\[\[[\s*_]*(A|B|C|tie)[\s*_]*\]\]`)

	// What makes another thing of the number before it: 7-8, 7%, 7th.
	goesOn = regexp.MustCompile(`^(?:[\pL\d%]|[-–,.:/]\d)`)
)

// candidate is a place in a judgment that looks like its verdict.
type candidate[V comparable] struct {
	value    V
	valid    bool // a grade from 1 to 10, or a winner
	from, to int
}

// score reads the grade out of a single judgment by a judge that has seen the material: the last number in double
// square brackets or, where there is none, the last one that follows the word rating, score or grade and a colon. Where
// that number is not from 1 to 10, or not out of 10, there is no score.
func (m *material) score(judgment string) (float64, bool) {
	bracketed := unquoted(m, judgment, scoreCandidates(bracketedScore, judgment), m.scores)
	labelled := unquoted(m, judgment, scoreCandidates(labelledScore, judgment), m.scores, m.labels)
	if len(bracketed) > 0 {
		return decide(bracketed, labelled, m.scores)
	}
	return decide(labelled, nil, m.scores, m.labels)
}

// verdict reads the winner out of a comparison by a judge that has seen the material: "A", "B" or "tie". The last of
// [[A]], [[B]] and [[C]], the tie, counts.
func (m *material) verdict(judgment string) (string, bool) {
	var list []candidate[string]
	for _, at := range bracketedWinner.FindAllStringSubmatchIndex(judgment, -1) {
		list = append(list, candidate[string]{winner(judgment[at[2]:at[3]]), true, at[0], at[1]})
	}
	return decide(unquoted(m, judgment, list, m.winners), nil, m.winners)
}

// scoreCandidates lists the numbers that stand where a grade may stand.
func scoreCandidates(form *regexp.Regexp, text string) (list []candidate[float64]) {
	for _, at := range form.FindAllStringSubmatchIndex(text, -1) {
		if form == labelledScore && goesOn.MatchString(text[at[1]:]) {
			continue
		}
		value, err := strconv.ParseFloat(text[at[2]:at[3]], 64)
		valid := err == nil && value >= 1 && value <= 10
		if at[4] < at[5] {
			most, err := strconv.ParseFloat(text[at[4]:at[5]], 64)
			valid = valid && err == nil && most == 10
		}
		list = append(list, candidate[float64]{value, valid, at[0], at[1]})
	}
	return list
}

// winner gives the meaning of a letter, or of the word tie.
func winner(letter string) string {
	switch letter {
	case "A", "a":
		return "A"
	case "B", "b":
		return "B"
	}
	return "tie"
}

// decide takes the last candidate. One that the material claims must not contradict another.
func decide[V comparable](list, others []candidate[V], claimed ...map[V]bool) (none V, ok bool) {
	if len(list) == 0 {
		return none, false
	}
	last := list[len(list)-1]
	if !last.valid {
		return none, false
	}
	if claims(claimed, last.value) {
		for _, m := range append(list[:len(list):len(list)], others...) {
			if m.value != last.value {
				return none, false
			}
		}
	}
	return last.value, true
}
