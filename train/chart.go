package train

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/internal/terminal"
)

// drawChart draws the losses of a metrics file. It draws nothing where the file has no point yet. A long training calls
// it often, so that no more of the file than the losses is ever held.
func drawChart(metricsPath, chartPath string) error {
	losses, err := readLosses(metricsPath)
	if err != nil {
		return fmt.Errorf("loss chart: %w", err)
	}
	if len(losses.Training)+len(losses.HeldOut) == 0 {
		return nil
	}
	picture, err := chart(losses)
	if err != nil {
		return fmt.Errorf("loss chart: %w", err)
	}
	if err := durable.WriteFile(chartPath, picture, 0o666); err != nil {
		return fmt.Errorf("loss chart: %w", err)
	}
	return nil
}

func readLosses(path string) (losses Losses, err error) {
	data, err := durable.ReadFile(path, MaxMetrics)
	if err != nil {
		return losses, err
	}
	records, _ := ReadRecords(data)
	for _, r := range records {
		losses.Add(r)
	}
	return losses, nil
}

// chart gives the picture as SVG.
func chart(losses Losses) ([]byte, error) {
	picture := newChart()
	err := errors.Join(
		draw(picture, "training", losses.Training, color.RGBA{170, 195, 225, 255}, vg.Points(0.7), false),
		draw(picture, "training, smoothed", losses.Smoothed, color.RGBA{31, 90, 165, 255}, vg.Points(1.6), false),
		draw(picture, "held out", losses.HeldOut, color.RGBA{215, 95, 20, 255}, vg.Points(1.6), true))
	if err != nil {
		return nil, err
	}
	return encode(picture, "svg")
}

// Losses are those of a run over its steps: each training step's, the same smoothed, and the held-out data's.
type Losses struct {
	Training, Smoothed, HeldOut plotter.XYs
	mean                        smooth
}

// Add takes the losses of a record in, which must come in the order of the file.
func (l *Losses) Add(r Record) {
	if r.Loss != nil {
		l.Training = append(l.Training, plotter.XY{X: float64(r.Step), Y: *r.Loss})
		l.Smoothed = append(l.Smoothed, plotter.XY{X: float64(r.Step), Y: l.mean.add(*r.Loss)})
	}
	if r.EvalLoss != nil {
		l.HeldOut = append(l.HeldOut, plotter.XY{X: float64(r.Step), Y: *r.EvalLoss})
	}
}

// stretches of a curve are told apart: more than a picture is wide.
const stretches = 400

// Thin leaves the lowest and the highest point of each of 400 stretches of a curve, and the last of all, so that it
// looks as before.
func Thin(points plotter.XYs) (kept plotter.XYs) {
	if len(points) <= 2*stretches {
		return points
	}
	for i := range stretches {
		stretch := points[i*len(points)/stretches : (i+1)*len(points)/stretches]
		low, high := 0, 0
		for j, p := range stretch {
			if p.Y < stretch[low].Y {
				low = j
			}
			if p.Y > stretch[high].Y {
				high = j
			}
		}
		kept = append(kept, stretch[min(low, high)])
		if low != high {
			kept = append(kept, stretch[max(low, high)])
		}
	}
	if last := points[len(points)-1]; kept[len(kept)-1] != last {
		kept = append(kept, last)
	}
	return kept
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
	line, dots, err := plotter.NewLinePoints(Thin(points))
	if err != nil {
		return err
	}
	line.Color, line.Width, dots.Color = c, width, c
	picture.Add(line)
	if dotted || len(points) == 1 {
		picture.Add(dots)
	}
	picture.Legend.Add(terminal.Text(name), line)
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
