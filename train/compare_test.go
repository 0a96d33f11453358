package train

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/veratune/veratune/vera"
)

// reported runs a training whose adapter is a real one, and reads its folder; it is broken off before step stop, 0 for
// never.
func reported(t *testing.T, stop int, change func(*Run)) (*Report, Result) {
	t.Helper()
	base := vera.Base{Architecture: "llama", Blocks: 1, HeadDim: 4,
		Linears: []vera.Linear{{Target: "attn_v", In: 4, Out: 4}}}
	c := vera.Default()
	c.Rank = parameters - 4
	adapter, err := vera.New(c, base)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "run")
	r, engine := newRun(folder)
	r.SaveAdapter = func(path string, facts map[string]string) error {
		copy(adapter.Params, engine.params)
		adapter.Facts = facts
		return adapter.Save(path)
	}
	engine.hook = func(call int) error {
		if call == stop {
			return errKilled
		}
		return nil
	}
	if change != nil {
		change(r)
	}
	result, err := r.Train(context.Background())
	if stop == 0 && err != nil || stop > 0 && !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	report, err := ReadRun(folder)
	if err != nil {
		t.Fatal(err)
	}
	return report, result
}

func TestReportIsTheResult(t *testing.T) {
	r, result := reported(t, 0, nil)
	if !r.Finished || r.Steps != result.Steps || math.Abs(*r.Loss-result.Loss) > 1e-12 || r.Method != "vera" ||
		r.Trained != parameters || r.Bytes == 0 {
		t.Errorf("%+v", r)
	}
	if !reflect.DeepEqual(r.Before, result.Before) || !reflect.DeepEqual(r.Last, result.After) ||
		!reflect.DeepEqual(r.Best, result.Best) {
		t.Errorf("evaluations %v, %v, %v; want %v, %v, %v", r.Before, r.Last, r.Best, result.Before, result.After,
			result.Best)
	}
	if !(r.Seconds > 0 && r.Speed > 0 && r.Memory > 0) {
		t.Errorf("%v s, %v tokens/s, %d bytes", r.Seconds, r.Speed, r.Memory)
	}
}

func TestReportOfAnUnfinishedRun(t *testing.T) {
	// Broken off after its first checkpoint, at step 3, and before its second evaluation, at step 4.
	r, _ := reported(t, 4, nil)
	if r.Finished || r.Steps != 3 || r.Best != r.Before || r.Before == nil || r.Trained != parameters {
		t.Errorf("%+v", r)
	}
	if r, _ = reported(t, 1, nil); r.Finished || r.Steps != 0 || r.Loss != nil || r.Trained != 0 {
		t.Errorf("broken off in the first step: %+v", r)
	}
}

func TestReadRunRefuses(t *testing.T) {
	folder := t.TempDir()
	for _, test := range []struct{ path, file, content, says string }{
		{filepath.Join(folder, "nowhere"), "", "", "is no run"},
		{folder, "", "", "is no run"},
		{folder, ConfigFile, "{", ConfigFile},
		{folder, ConfigFile, "{}", ""}, // nothing is left to read: a run that has just begun
		{folder, AdapterFile, "broken", AdapterFile},
	} {
		if test.file != "" {
			if err := os.WriteFile(filepath.Join(folder, test.file), []byte(test.content), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		_, err := ReadRun(test.path)
		if (err == nil) != (test.says == "") || err != nil && (!strings.Contains(err.Error(), test.says) ||
			!strings.Contains(err.Error(), test.path)) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestDifferences(t *testing.T) {
	run := func(settings string) *Report {
		flat, err := flatten([]byte(settings))
		if err != nil {
			t.Fatal(err)
		}
		return &Report{Settings: flat}
	}
	runs := []*Report{
		run(`{"train": {"lr": 0.004, "seed": 1, "steps": 5}, "setup": {"vera": {"rank": 64, "seed": 1, "targets": ` +
			`["attn_q", "attn_v"]}}, "about": {"threads": 2}, "data": {"training": "` +
			strings.Repeat("ab", 32) + `"}}`),
		run(`{"train": {"lr": 1e-2, "seed": 2, "steps": 5}, "setup": {"vera": {"rank": 64, "seed": 2, "targets": ` +
			`["attn_q"]}, "base": null}, "about": {"threads": 4}, "data": {"training": "` +
			strings.Repeat("cd", 32) + `"}}`),
	}
	want := []Difference{
		{"data.training", []string{"abababababab", "cdcdcdcdcdcd"}},
		{"lr", []string{"0.004", "1e-2"}},
		{"seed", []string{"1", "2"}},
		{"targets", []string{"attn_q attn_v", "attn_q"}},
		{"threads", []string{"2", "4"}},
	}
	if got := Differences(runs); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Differences([]*Report{runs[0], runs[0]}); len(got) != 0 {
		t.Errorf("a run differs from itself in %v", got)
	}
	// The same word for two settings that differ in their own ways.
	runs[1].Settings["setup.vera.seed"] = "3"
	if got := Differences(runs); len(got) != 6 {
		t.Errorf("%v", got)
	}
}

func TestPlot(t *testing.T) {
	finished, _ := reported(t, 0, nil)
	begun, _ := reported(t, 1, func(r *Run) { r.HeldOut, r.Samples = nil, nil })
	runs := []*Report{finished, begun}
	data, err := Plot("runs.svg", runs)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(bytes.NewReader(data)); ; {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Contains(data, []byte(finished.Folder+", held out")) {
		t.Error("the run is not named")
	}
	raster, err := Plot("runs.PNG", runs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(raster)); err != nil {
		t.Error(err)
	}
	if _, err := Plot("runs.gif", runs); err == nil || !strings.Contains(err.Error(), ".svg or .png") {
		t.Errorf("a GIF: %v", err)
	}
}
