package mtbench

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// radar is a plot of a judge's scores with an axis for each category, as report.html draws it. No chart library is
// used: those for Go that know radar plots fix colours in the picture, so that it cannot follow the page into dark
// mode, and label no rings.
type radar struct {
	Width, Height int
	Rings         []radarRing
	Axes          []radarAxis
	Lines         []radarLine
}

type radarRing struct {
	Path  string
	X, Y  float64 // of the label
	Label int
}

type radarAxis struct {
	Path, Label, Anchor string
	X, Y                float64 // of the label
}

type radarLine struct {
	Model  pageModel
	Path   string
	Closed bool // no category is missing
	Points []radarPoint
}

type radarPoint struct {
	X, Y  float64
	Label string
}

const (
	radarRadius = 150
	radarMax    = 10 // the best grade
)

// newRadar is nil with fewer than three categories, which make no polygon.
func newRadar(categories []string, models []pageModel, list []ModelScores) *radar {
	n := len(categories)
	if n < 3 || len(list) == 0 {
		return nil
	}
	longest := 0
	for _, c := range categories {
		longest = max(longest, utf8.RuneCountInString(c))
	}
	width := 2 * (radarRadius + 16 + 7*longest) // letters of 13 pixels are no more than 7 wide on average
	height := 2 * (radarRadius + 30)
	at := func(axis int, radius float64) (x, y float64) {
		angle := 2 * math.Pi * float64(axis) / float64(n)
		return float64(width)/2 + radius*math.Sin(angle), float64(height)/2 - radius*math.Cos(angle)
	}
	r := &radar{Width: width, Height: height}
	for value := 2; value <= radarMax; value += 2 {
		var path strings.Builder
		for axis := range n {
			x, y := at(axis, radarRadius*float64(value)/radarMax)
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(axis, 1)], x, y)
		}
		x, y := at(0, radarRadius*float64(value)/radarMax)
		r.Rings = append(r.Rings, radarRing{Path: path.String() + "Z", X: x - 4, Y: y + 10, Label: value})
	}
	for axis, c := range categories {
		x, y := at(axis, radarRadius)
		label := radarAxis{Label: c, Path: fmt.Sprintf("M%.1f %.1fL%.1f %.1f", float64(width)/2,
			float64(height)/2, x, y)}
		label.X, label.Y = at(axis, radarRadius+12)
		label.Y += 4.5 // from the base line to the middle of the letters
		label.Anchor = anchor(label.X - float64(width)/2)
		r.Axes = append(r.Axes, label)
	}
	for _, model := range models {
		for _, m := range list {
			if m.Model == model.Name {
				r.Lines = append(r.Lines, newRadarLine(model, m, categories, at))
			}
		}
	}
	return r
}

// anchor is the text-anchor of a label that lies dx to the right of the middle.
func anchor(dx float64) string {
	switch {
	case math.Abs(dx) < 1:
		return "middle"
	case dx > 0:
		return "start"
	}
	return "end"
}

func newRadarLine(model pageModel, m ModelScores, categories []string, at func(int, float64) (x, y float64)) radarLine {
	line := radarLine{Model: model, Closed: true}
	var path strings.Builder
	gap := true // the next point begins a line
	for axis, c := range categories {
		score := m.Categories[c].Overall
		if !score.Known() {
			gap, line.Closed = true, false
			continue
		}
		x, y := at(axis, radarRadius*min(max(float64(score), 0), radarMax)/radarMax)
		command := 'L'
		if gap {
			command = 'M'
		}
		fmt.Fprintf(&path, "%c%.1f %.1f", command, x, y)
		gap = false
		line.Points = append(line.Points,
			radarPoint{X: x, Y: y, Label: fmt.Sprintf("%s, %s: %s", model.Name, c, score)})
	}
	if line.Closed {
		path.WriteByte('Z')
	}
	line.Path = path.String()
	return line
}
