package watch

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/veratune/veratune/train"
)

func drawn(t *testing.T, texts ...string) []chart {
	t.Helper()
	var runs []recorded
	for i, text := range texts {
		records, _ := train.ReadRecords([]byte(text))
		runs = append(runs, recorded{fmt.Sprint("run ", i), records})
	}
	charts, err := drawCharts(runs)
	if err != nil {
		t.Fatal(err)
	}
	return charts
}

func TestCharts(t *testing.T) {
	charts := drawn(t, lines(0, 6), lines(0, 30))
	for i, want := range []string{
		"0: run 0, training, smoothed 6; 0 points: run 0, held out 2; 1: run 1, training, smoothed 30; 1 points: run " +
			"1, held out 8",
		"0: run 0 6; 1: run 1 30", "0: run 0 6; 1: run 1 30", "0: run 0 6; 1: run 1 30", "0: run 0 6; 1: run 1 30",
	} {
		var list []string
		for _, l := range charts[i].Lines {
			list = append(list, fmt.Sprintf("%s: %s %d", strings.TrimSpace(fmt.Sprint(l.Shade, " ", l.Style)), l.Name,
				len(l.Values)))
		}
		if got := strings.Join(list, "; "); got != want {
			t.Errorf("%s: %s; want %s", charts[i].Title, got, want)
		}
		if n := len(charts[i].Views); n != 2 {
			t.Errorf("%s has %d views", charts[i].Title, n)
		}
	}
	speed := charts[2].Lines[1]
	if speed.Steps[29] != 30 || speed.Values[29] != 115 {
		t.Errorf("the last speed is %v at step %v", speed.Values[29], speed.Steps[29])
	}
	whole, newer := charts[2].Views[0], charts[2].Views[1]
	if whole.From != 1 || whole.To != 30 || newer.From != 15 || newer.To != 30 ||
		!(0 < whole.Left && whole.Left < 0.3 && 0.9 < whole.Right && whole.Right < 1) {
		t.Errorf("views %+v, %+v", whole, newer)
	}
	if alone := drawn(t, lines(0, 6))[0]; len(alone.Lines) != 3 || alone.Lines[0].Name != "training" ||
		alone.Lines[0].Style != "thin" || len(alone.Views) != 1 {
		t.Errorf("a run alone: %+v", alone.Lines)
	}
}

// The pictures are whole, in the page's colours, and hold no text but numbers and "step".
func TestPictures(t *testing.T) {
	for name, text := range map[string]string{
		"none":       "",
		"one step":   `{"step":1,"loss":2}` + "\n",
		"evaluation": `{"step":0,"eval_loss":2}` + "\n",
		"constant":   `{"step":1,"loss":2}` + "\n" + `{"step":2,"loss":2}` + "\n",
		"extreme": `{"step":1,"loss":1e308,"lr":-1e308,"tokens":5,"seconds":1e-320}` + "\n" +
			`{"step":9007199254740992,"loss":1e99,"lr":1e-320}` + "\n",
		"not in turn": `{"step":30,"loss":2}` + "\n" + `{"step":2,"loss":1}` + "\n" + `{"step":-5,"loss":1}` + "\n",
		"many":        lines(0, 3000),
	} {
		for _, c := range drawn(t, text) {
			for _, v := range c.Views {
				decoder := xml.NewDecoder(strings.NewReader(v.SVG))
				inText := false
				for {
					token, err := decoder.Token()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatalf("%s, %s: %v", name, c.Title, err)
					}
					switch token := token.(type) {
					case xml.StartElement:
						inText = token.Name.Local == "text"
						for _, a := range token.Attr {
							if strings.Contains(a.Value, "#") || strings.Contains(a.Value, "NaN") ||
								strings.Contains(a.Value, "Inf") {
								t.Fatalf("%s, %s: %s=%q", name, c.Title, a.Name.Local, a.Value)
							}
						}
					case xml.CharData:
						if word := string(token); inText && strings.Trim(word, "0123456789.-+e−\n") != "" &&
							word != "step" {
							t.Errorf("%s, %s: the picture says %q", name, c.Title, word)
						}
						inText = false
					}
				}
				if n := len(v.SVG); n > 50_000 {
					t.Errorf("%s, %s: %d bytes", name, c.Title, n)
				}
			}
		}
	}
}

func BenchmarkCharts(b *testing.B) {
	records, _ := train.ReadRecords([]byte(lines(0, 10_000)))
	for b.Loop() {
		if _, err := drawCharts([]recorded{{"run", records}}); err != nil {
			b.Fatal(err)
		}
	}
}
