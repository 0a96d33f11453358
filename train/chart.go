package train

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"os"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/veratune/veratune/internal/durable"
)

// drawChart draws the losses of a metrics file: each training step's, the same smoothed, and the held-out data's. It draws nothing where the
// file has no point yet.
func drawChart(metricsPath, chartPath string) error {
	data, err := os.ReadFile(metricsPath)
	if err != nil {
		return fmt.Errorf("loss chart: %w", err)
	}
	points, _ := ReadRecords(data)
	if len(points) == 0 {
		return nil
	}
	picture, err := chart(points)
	if err != nil {
		return fmt.Errorf("loss chart: %w", err)
	}
	if err := durable.WriteFile(chartPath, picture, 0o666); err != nil {
		return fmt.Errorf("loss chart: %w", err)
	}
	return nil
}

// chart gives the picture as SVG.
func chart(points []Record) ([]byte, error) {
	raw, smoothed, heldOut := Curves(points)
	picture := newChart()
	err := errors.Join(
		draw(picture, "training", raw, color.RGBA{170, 195, 225, 255}, vg.Points(0.7), false),
		draw(picture, "training, smoothed", smoothed, color.RGBA{31, 90, 165, 255}, vg.Points(1.6), false),
		draw(picture, "held out", heldOut, color.RGBA{215, 95, 20, 255}, vg.Points(1.6), true))
	if err != nil {
		return nil, err
	}
	return encode(picture, "svg")
}

// Curves are the losses over the steps: each training step's, the same smoothed, and the held-out data's.
func Curves(points []Record) (raw, smoothed, heldOut plotter.XYs) {
	var mean smooth
	for _, p := range points {
		if p.Loss != nil {
			raw = append(raw, plotter.XY{X: float64(p.Step), Y: *p.Loss})
			smoothed = append(smoothed, plotter.XY{X: float64(p.Step), Y: mean.add(*p.Loss)})
		}
		if p.EvalLoss != nil {
			heldOut = append(heldOut, plotter.XY{X: float64(p.Step), Y: *p.EvalLoss})
		}
	}
	return raw, smoothed, heldOut
}

func newChart() *plot.Plot {
	picture := plot.New()
	picture.X.Label.Text = "step"
	picture.Y.Label.Text = "loss per labelled token"
	picture.Y.Tick.Marker = plot.TickerFunc(Ticks)
	picture.Legend.Top = true
	picture.Add(plotter.NewGrid())
	return picture
}

// Ticks are the library's with all digits that tell values apart: it rounds 2.95 to 3.
func Ticks(low, high float64) []plot.Tick {
	if low >= high { // a single loss too large for an axis around it; the library would panic
		return []plot.Tick{{Value: low, Label: strconv.FormatFloat(low, 'g', 6, 64)}}
	}
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = strconv.FormatFloat(t.Value, 'g', 6, 64)
		}
	}
	return ticks
}

// draw adds a curve to a picture; one without points is left out.
func draw(picture *plot.Plot, name string, points plotter.XYs, c color.Color, width vg.Length, dotted bool) error {
	if len(points) == 0 {
		return nil
	}
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color, line.Width, dots.Color = c, width, c
	picture.Add(line)
	if dotted || len(points) == 1 {
		picture.Add(dots)
	}
	picture.Legend.Add(name, line)
	return nil
}

// encode gives the picture as "svg" or "png".
func encode(picture *plot.Plot, format string) ([]byte, error) {
	canvas, err := picture.WriterTo(16*vg.Centimeter, 10*vg.Centimeter, format)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = canvas.WriteTo(&out)
	return out.Bytes(), err
}

// smooth is a mean in which every value weighs a tenth less than the one after it.
type smooth struct{ sum, weight float64 }

// add takes a value in and returns the mean.
func (s *smooth) add(value float64) float64 {
	s.sum, s.weight = 0.9*s.sum+value, 0.9*s.weight+1
	return s.mean()
}

// mean is 0 before the first value.
func (s *smooth) mean() float64 {
	if s.weight == 0 {
		return 0
	}
	return s.sum / s.weight
}
