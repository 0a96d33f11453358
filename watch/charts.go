package watch

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/train"
)

// recorded is a run as far as charts go.
type recorded struct {
	name    string
	records []train.Record
}

// chart shows the same numbers of all runs over the steps.
type chart struct {
	Title string `json:"title"`
	Lines []line `json:"lines"`
	Views []view `json:"views"` // of all steps and, where there are many, of the newer half
}

type line struct {
	Name   string    `json:"name"` // of the numbers; of the run, too, where there are several
	Shade  int       `json:"shade"`
	Style  string    `json:"style"` // "thin", "" or "points"
	Steps  []float64 `json:"steps"`
	Values []float64 `json:"values"`
}

// view is a picture, and where in it the steps are.
type view struct {
	SVG   string  `json:"svg"`
	From  float64 `json:"from"` // step at the left edge of the plot
	To    float64 `json:"to"`
	Left  float64 `json:"left"` // edges of the plot, in parts of the picture's width
	Right float64 `json:"right"`
}

const (
	shades      = 8
	manySteps   = 20 // from which on the newer half is a view of its own
	manyPoints  = 60 // more run together
	chartWidth  = vg.Length(460)
	chartHeight = vg.Length(270)
)

// Charts draws the runs as they are now, as a JSON list for ChartScript. Of those that can't be read, the charts are
// empty.
func Charts(folders []string) (json.RawMessage, error) {
	runs := make([]recorded, len(folders))
	for i, path := range folders {
		runs[i].name = path
		data, err := durable.ReadFile(filepath.Join(path, train.MetricsFile), train.MaxMetrics)
		if err == nil {
			runs[i].records, _ = train.ReadRecords(data)
		}
	}
	charts, err := drawCharts(runs)
	if err != nil {
		return nil, err
	}
	return json.Marshal(charts)
}

// drawCharts draws all that is known of the steps of runs.
func drawCharts(runs []recorded) ([]chart, error) {
	charts := []chart{
		{Title: "Loss per labelled token"}, {Title: "Learning rate"}, {Title: "Tokens a second"},
		{Title: "Most memory so far, GiB"}, {Title: "Norm of the gradient, before clipping"},
	}
	loss, others := &charts[0], charts[1:]
	for i, r := range runs {
		add := func(c *chart, name, style string, points plotter.XYs) {
			switch {
			case len(runs) > 1 && c == loss:
				name = r.name + ", " + name
			case len(runs) > 1:
				name = r.name
			}
			c.add(line{Name: name, Shade: i % shades, Style: style}, points)
		}
		var losses train.Losses
		for _, record := range r.records {
			losses.Add(record)
		}
		if len(runs) == 1 {
			add(loss, "training", "thin", losses.Training)
		}
		add(loss, "training, smoothed", "", losses.Smoothed)
		add(loss, "held out", "points", losses.HeldOut)
		add(&others[0], "learning rate", "", overSteps(r.records, func(s train.Record) float64 { return s.LR }))
		add(&others[1], "tokens a second", "", overSteps(r.records, func(s train.Record) float64 {
			return float64(s.Tokens) / s.Seconds
		}))
		add(&others[2], "memory", "", overSteps(r.records, func(s train.Record) float64 {
			return float64(s.Memory) / (1 << 30)
		}))
		add(&others[3], "norm", "", overSteps(r.records, func(s train.Record) float64 { return s.GradNorm }))
	}
	for i := range charts {
		if charts[i].Lines == nil {
			charts[i].Lines = []line{} // which JSON has as a list, too
		}
		if err := charts[i].draw(); err != nil {
			return nil, fmt.Errorf("chart %q: %w", charts[i].Title, err)
		}
	}
	return charts, nil
}

func overSteps(records []train.Record, value func(train.Record) float64) (points plotter.XYs) {
	for _, r := range records {
		if r.Loss != nil {
			points = append(points, plotter.XY{X: float64(r.Step), Y: value(r)})
		}
	}
	return points
}

// add adds a line, thinned out; one without points is left out.
func (c *chart) add(l line, points plotter.XYs) {
	for _, p := range train.Thin(drawable(points)) {
		l.Steps, l.Values = append(l.Steps, p.X), append(l.Values, p.Y)
	}
	if len(l.Steps) > 0 {
		c.Lines = append(c.Lines, l)
	}
}

// drawable leaves out what no axis can show: beyond 1e15, float64 has no room for an axis around a single point.
func drawable(points plotter.XYs) (kept plotter.XYs) {
	for _, p := range points {
		if math.Abs(p.X) < 1e15 && math.Abs(p.Y) < 1e15 { // not so for NaN
			kept = append(kept, p)
		}
	}
	return kept
}

// draw makes the views.
func (c *chart) draw() error {
	newest := 0.0
	for _, l := range c.Lines {
		newest = max(newest, l.Steps[len(l.Steps)-1])
	}
	from := []float64{math.Inf(-1)}
	if newest >= manySteps {
		from = append(from, math.Floor(newest/2))
	}
	for _, step := range from {
		v, err := c.view(step)
		if err != nil {
			return err
		}
		c.Views = append(c.Views, v)
	}
	return nil
}

// view draws the steps from one on.
func (c *chart) view(from float64) (view, error) {
	picture := newPicture()
	for _, l := range c.Lines {
		var points plotter.XYs
		for i, step := range l.Steps {
			if step >= from {
				points = append(points, plotter.XY{X: step, Y: l.Values[i]})
			}
		}
		if len(points) == 0 {
			continue
		}
		curve, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return view{}, err
		}
		curve.Color, curve.Width = named(strconv.Itoa(l.Shade)), vg.Points(1.5)
		dots.Color, dots.Shape, dots.Radius = curve.Color, draw.CircleGlyph{}, vg.Points(2.2)
		switch l.Style {
		case "thin":
			curve.Width = vg.Points(0.5)
		case "points":
			curve.Dashes = []vg.Length{5, 3}
		}
		picture.Add(curve)
		if l.Style == "points" && len(points) <= manyPoints || len(points) == 1 {
			picture.Add(dots)
		}
	}
	return render(picture)
}

func newPicture() *plot.Plot {
	picture := plot.New()
	picture.BackgroundColor = nil
	picture.X.Label.Text = "step"
	for _, axis := range []*plot.Axis{&picture.X, &picture.Y} {
		axis.Tick.Marker = plot.TickerFunc(train.Ticks)
		axis.Color, axis.Tick.Color, axis.Tick.Label.Color, axis.Label.TextStyle.Color = named("rule"), named("rule"),
			named("quiet"), named("quiet")
		axis.Label.TextStyle.Font = font.Font{Typeface: "Liberation", Variant: "Sans", Size: 11}
		axis.Tick.Label.Font = axis.Label.TextStyle.Font
	}
	grid := plotter.NewGrid()
	for _, style := range []*draw.LineStyle{&grid.Horizontal, &grid.Vertical} {
		style.Color, style.Width = named("rule"), vg.Points(0.75)
	}
	picture.Add(grid)
	return picture
}

// render gives the picture in the page's colours, light or dark. It holds its own style, since a page's reaches no
// picture.
func render(picture *plot.Plot) (view, error) {
	canvas := vgsvg.New(chartWidth, chartHeight)
	inner := draw.Crop(draw.New(canvas), 2, -12, 2, -6) // the last label of an axis reaches beyond it
	picture.Draw(inner)
	area := picture.DataCanvas(inner)
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return view{}, err
	}
	start, rest, _ := strings.Cut(out.String(), "<g ")
	svg := start + "<style>" + coloursCSS +
		"text { font-family: \"Liberation Sans\", Arial, Helvetica, sans-serif !important }</style>\n<g " +
		colourNames.Replace(rest)
	return view{svg, picture.X.Min, picture.X.Max, float64(area.Min.X / chartWidth), float64(area.Max.X / chartWidth)},
		nil
}

// The colours of colours.css are drawn as colours that stand for their names.
var (
	//go:embed colours.css
	coloursCSS  string
	nameable    = []string{"quiet", "rule", "0", "1", "2", "3", "4", "5", "6", "7"}
	colourNames = standIns()
)

func named(name string) color.Color {
	for i, n := range nameable {
		if n == name {
			return color.RGBA{B: uint8(i + 1), A: 255}
		}
	}
	panic("no colour " + name)
}

func standIns() *strings.Replacer {
	var pairs []string
	for i, name := range nameable {
		pairs = append(pairs, fmt.Sprintf(":#%06X", i+1), ":var(--"+name+")")
	}
	return strings.NewReplacer(pairs...)
}
