package train

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot/plotter"
)

func TestChartOfFewPoints(t *testing.T) {
	one, two, huge := 1.5, 2.5, 1e30
	for name, points := range map[string][]Record{
		"none":           nil,
		"one evaluation": {{Step: 0, EvalLoss: &one}},
		"one step":       {{Step: 1, Loss: &one}},
		"one of each":    {{Step: 0, EvalLoss: &two}, {Step: 1, Loss: &one}},
		"equal losses":   {{Step: 1, Loss: &one}, {Step: 2, Loss: &one}},
		"a huge loss":    {{Step: 1, Loss: &one}, {Step: 2, Loss: &huge}},
		"the same step":  {{Step: 1, Loss: &one}, {Step: 1, Loss: &two}},
	} {
		t.Run(name, func(t *testing.T) {
			var losses Losses
			for _, p := range points {
				losses.Add(p)
			}
			picture, err := chart(losses)
			if err != nil {
				t.Fatal(err)
			}
			decoder := xml.NewDecoder(bytes.NewReader(picture))
			for {
				if _, err := decoder.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if bytes.Contains(picture, []byte("NaN")) || bytes.Contains(picture, []byte("Inf")) {
				t.Error("the picture has points at NaN or infinity")
			}
			if again, _ := chart(losses); !bytes.Equal(again, picture) {
				t.Error("the same points give another picture")
			}
		})
	}
}

func TestThin(t *testing.T) {
	var points plotter.XYs
	for i := range 10_007 {
		points = append(points, plotter.XY{X: float64(i), Y: math.Sin(float64(i) / 500)})
	}
	points[5000].Y, points[7001].Y = 9, -9
	kept := Thin(points)
	if len(kept) > 2*stretches+1 || !slices.IsSortedFunc(kept, func(a, b plotter.XY) int { return int(a.X - b.X) }) {
		t.Errorf("%d points are left", len(kept))
	}
	for _, p := range []plotter.XY{points[5000], points[7001], points[10_006]} {
		if !slices.Contains(kept, p) {
			t.Errorf("%v is gone", p)
		}
	}
	if few := points[:800]; len(Thin(few)) != 800 {
		t.Error("few points are thinned out")
	}
}

func TestSmooth(t *testing.T) {
	var s smooth
	if s.mean() != 0 || s.add(3) != 3 {
		t.Error("the mean of one value is another")
	}
	for range 200 {
		s.add(5)
	}
	if m := s.mean(); m < 4.999 || m > 5 {
		t.Errorf("after 200 times 5 the mean is %v", m)
	}
}

func TestTicksOfCloseLosses(t *testing.T) {
	seen := map[string]bool{}
	for _, tick := range Ticks(2.892, 3.0199) {
		if tick.Label != "" && seen[tick.Label] {
			t.Errorf("%s is there twice", tick.Label)
		}
		seen[tick.Label] = true
	}
	if !seen["2.95"] {
		t.Errorf("labels %v", seen)
	}
	if ticks := Ticks(1e30, 1e30); len(ticks) != 1 || ticks[0].Label != "1e+30" {
		t.Errorf("ticks of a huge loss: %v", ticks)
	}
}

// However long a run is, its chart stays a small file.
func TestChartOfManySteps(t *testing.T) {
	var lines strings.Builder
	for step := range 20_000 {
		fmt.Fprintf(&lines, `{"step":%d,"loss":%g,"tokens":100}`+"\n", step, 2+math.Sin(float64(step)))
		fmt.Fprintf(&lines, `{"step":%d,"eval_loss":%g}`+"\n", step, 2+math.Cos(float64(step)))
	}
	metrics, picture := filepath.Join(t.TempDir(), MetricsFile), filepath.Join(t.TempDir(), ChartFile)
	if err := os.WriteFile(metrics, []byte(lines.String()+`{"step":20000,"lo`), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := drawChart(metrics, picture); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(picture)
	if err != nil || info.Size() > 200_000 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}
