package train

import (
	"bytes"
	"encoding/xml"
	"io"
	"testing"
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
			picture, err := chart(points)
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
			if again, _ := chart(points); !bytes.Equal(again, picture) {
				t.Error("the same points give another picture")
			}
		})
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
