package train

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// joined puts lines together.
func joined(lines ...[]byte) []byte { return bytes.Join(lines, nil) }

// A run whose metrics were damaged says so when it is resumed, in one message, and has them again.
func TestMetricsAreMended(t *testing.T) {
	whole := finished(t, wholeRun(t))
	for name, c := range map[string]struct {
		damage func(lines [][]byte) []byte // of a run that was interrupted in step 7; nil removes the file
		says   string
	}{
		"nothing": {func(l [][]byte) []byte { return joined(l...) }, ""},
		"cut in a line": {func(l [][]byte) []byte { return joined(l...)[:len(joined(l...))-9] },
			"lacked lines of step 7; it is as it was"},
		"cut in an older one": {func(l [][]byte) []byte { return joined(l...)[:len(joined(l...))/3] },
			"lacked lines of steps"},
		"cut short": {func(l [][]byte) []byte { return joined(l[:len(l)-3]...) }, "lacked lines of steps"},
		"a hole": {func(l [][]byte) []byte { return joined(slices.Delete(l, 3, 4)...) },
			"lacked lines of step 2"},
		"emptied":          {func(l [][]byte) []byte { return []byte{} }, "was empty"},
		"removed":          {func(l [][]byte) []byte { return nil }, "was not there"},
		"doubled":          {func(l [][]byte) []byte { return joined(append(l, l...)...) }, "had 11 lines twice"},
		"one line doubled": {func(l [][]byte) []byte { return joined(append(l, l[3])...) }, "had 1 line twice"},
		"later steps": {func(l [][]byte) []byte {
			return joined(append(l, []byte(
				"{\"step\":8,\"loss\":1}\n{\"step\":900,\"loss\":1}\n{\"step\":8,\"eval_loss\":1}\n"))...)
		}, "had 3 lines from after step 7"},
		"what is no line": {func(l [][]byte) []byte { return joined(append(l, []byte("\x00\x00\nhello\n"))...) },
			"had 2 lines that are none"},
		"changed": {func(l [][]byte) []byte {
			return bytes.Replace(joined(l...), []byte(`"step":3,"epoch"`), []byte(`"step":3, "epoch"`), 1)
		}, "had 1 line that was changed"},
		"in another order": {func(l [][]byte) []byte { return joined(slices.Concat(l[5:], l[:5])...) }, ""},
		"a torn last line": {func(l [][]byte) []byte { return joined(append(l, []byte(`{"step":8,"lo`))...) }, ""},
	} {
		folder := interruptedRun(t, 7)
		path := filepath.Join(folder, MetricsFile)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if data = c.damage(slices.Collect(bytes.Lines(data))); data == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, data, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
		out := resumedRun(t, folder)
		if n := strings.Count(out, MetricsFile); !strings.Contains(out, c.says) || n > 1 || (n == 0) != (c.says == "") {
			t.Errorf("%s: %s", name, out)
		}
		checkEqual(t, finished(t, folder), whole)
	}
}

// interruptedRun is the folder of a run that was interrupted in a step.
func interruptedRun(t *testing.T, step int) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "run")
	r, engine := newRun(folder)
	if _, err := r.Train(interruptedIn(step, engine)); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	return folder
}

// resumedRun resumes a run to its end, and gives what that said.
func resumedRun(t *testing.T, folder string) string {
	t.Helper()
	var out bytes.Buffer
	r, _ := newRun(folder)
	r.Resume, r.Progress = true, &out
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Nothing is lost where the checkpoint's copy is what was damaged; where both were, what is lost is named.
func TestMetricsWithADamagedCopy(t *testing.T) {
	whole := finished(t, wholeRun(t))
	for name, c := range map[string]struct {
		copied, found func([]byte) []byte
		says          string
	}{
		"cut":     {func(data []byte) []byte { return data[:len(data)/3] }, bytes.Clone, ""},
		"emptied": {func([]byte) []byte { return nil }, bytes.Clone, ""},
		"doubled": {func(data []byte) []byte { return joined(data, data) }, bytes.Clone, ""},
		"both cut": {
			func(data []byte) []byte { return joined(slices.Collect(bytes.Lines(data))[:3]...) },
			func(data []byte) []byte { return joined(slices.Collect(bytes.Lines(data))[6:]...) }, "are lost",
		},
		"each a part": {
			func(data []byte) []byte { return joined(slices.Collect(bytes.Lines(data))[:6]...) },
			func(data []byte) []byte { return joined(slices.Collect(bytes.Lines(data))[5:]...) }, "it is as it was",
		},
	} {
		folder := interruptedRun(t, 7)
		for path, damage := range map[string]func([]byte) []byte{
			filepath.Join(folder, MetricsFile): c.found, filepath.Join(openedAt(folder).checkpoint(7),
				MetricsFile): c.copied,
		} {
			data, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, damage(data), 0o666)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		out := resumedRun(t, folder)
		if !strings.Contains(out, c.says) || strings.Contains(out, MetricsFile) != (c.says != "") {
			t.Errorf("%s: %s", name, out)
		}
		if c.says != "are lost" {
			checkEqual(t, finished(t, folder), whole)
		}
	}
}

// A checkpoint of an older version has no copy of the metrics: what is lost is named.
func TestMetricsWithoutACopy(t *testing.T) {
	folder := interruptedRun(t, 9)
	path := filepath.Join(folder, MetricsFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(slices.Collect(bytes.Lines(data)), func(line []byte) bool {
		r, _ := parseRecord(line)
		return r.Loss != nil && r.Step >= 2 && r.Step <= 5
	})
	if err := errors.Join(os.Remove(filepath.Join(openedAt(folder).checkpoint(9), MetricsFile)),
		os.WriteFile(path, joined(append(lines, lines[0])...), 0o666)); err != nil {
		t.Fatal(err)
	}
	out := resumedRun(t, folder)
	if says := "lacked lines of steps 2 to 5, had 1 line twice; the checkpoint has no copy, so that the lines of " +
		"steps 2 to 5 are lost"; !strings.Contains(out, says) {
		t.Errorf("%s", out)
	}
	var made []int
	for _, p := range readPoints(t, folder) {
		if p.Loss != nil {
			made = append(made, p.Step)
		}
	}
	if want := []int{1, 6, 7, 8, 9, 10, 11, 12}; !slices.Equal(made, want) {
		t.Errorf("lines of steps %v, want %v", made, want)
	}
}

// Metrics that are removed while the run goes on are there again at its end.
func TestMetricsRemovedMeanwhile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows removes no open file")
	}
	want := uninterrupted(t)
	for _, step := range []int{1, 3, 5, 12} {
		folder := filepath.Join(t.TempDir(), "run")
		r, engine := newRun(folder)
		engine.hook = func(call int) error {
			if call == step {
				return os.Remove(filepath.Join(folder, MetricsFile))
			}
			return nil
		}
		if _, err := r.Train(context.Background()); err != nil {
			t.Fatal(err)
		}
		checkEqual(t, finished(t, folder), want)
	}
}

var firstRate = regexp.MustCompile(`("step":1,"epoch".*)"lr":[^,]*,`)

// A run whose warm-up began at a learning rate of 0 says what becomes of the rest of it.
func TestOldWarmup(t *testing.T) {
	for step, says := range map[int]bool{1: true, 4: true, 7: false} {
		folder := filepath.Join(t.TempDir(), "run")
		r, engine := newRun(folder)
		r.Config.WarmupRatio = 0.5
		if _, err := r.Train(interruptedIn(step, engine)); !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(folder, MetricsFile),
			filepath.Join(openedAt(folder).checkpoint(step), MetricsFile)} {
			data, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, firstRate.ReplaceAll(data, []byte(`${1}"lr":0,`)), 0o666)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		r, _ = newRun(folder)
		r.Config.WarmupRatio, r.Resume, r.Progress = 0.5, true, &out
		if _, err := r.Train(context.Background()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "begun by an older version") != says ||
			strings.Contains(out.String(), "changed") {
			t.Errorf("interrupted in step %d: %s", step, out.String())
		}
	}
}

func TestStepRanges(t *testing.T) {
	for want, steps := range map[string][]int{"step 3": {3}, "steps 3, 4": {3, 4},
		"steps 1 to 3, 5, 7 to 9": {1, 2, 3, 5, 7, 8, 9}} {
		if got := stepRanges(steps); got != want {
			t.Errorf("%v: %s, want %s", steps, got, want)
		}
	}
}
