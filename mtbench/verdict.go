package mtbench

import (
	"regexp"
	"strconv"
	"strings"
)

// FastChat's patterns of a score, the second for judges that forget a pair of brackets.
var scorePatterns = []*regexp.Regexp{
	regexp.MustCompile(`\[\[(\d+\.?\d*)\]\]`),
	regexp.MustCompile(`\[(\d+\.?\d*)\]`),
}

// Score reads the grade out of a single judgment: the first number in double square brackets or, where there is none, in single ones. Unlike for FastChat, a
// number outside 1…10 is no score.
func Score(judgment string) (score float64, ok bool) {
	for _, pattern := range scorePatterns {
		if match := pattern.FindStringSubmatch(judgment); match != nil {
			score, err := strconv.ParseFloat(match[1], 64)
			if err != nil || score < 1 || score > 10 {
				return 0, false
			}
			return score, true
		}
	}
	return 0, false
}

// Verdict reads the winner out of a comparison: "A", "B" or "tie". As for FastChat, [[A]] anywhere counts before [[B]], and that before [[C]], the tie.
func Verdict(judgment string) (winner string, ok bool) {
	switch {
	case strings.Contains(judgment, "[[A]]"):
		return "A", true
	case strings.Contains(judgment, "[[B]]"):
		return "B", true
	case strings.Contains(judgment, "[[C]]"):
		return "tie", true
	}
	return "", false
}
