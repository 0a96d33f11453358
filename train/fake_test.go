package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/veratune/veratune/internal/durable"
)

// leastSquares is an engine with a known optimum: every token is a feature vector x, every label the number y that w·x
// should be, and the loss of a position (w·x - y)²/2.
type leastSquares struct {
	params  []float32
	used    []float32 // what Update read
	dropout bool      // leaves out features by the seed
	calls   int       // of Gradients
	hook    func(call int) error
	nan     int // the call of Gradients whose loss is NaN
	nanGrad int // the call that puts NaN into the gradient
	badEval bool

	lowFirst bool // the loss of the first step is next to nothing
	seeds    []uint64
}

func feature(token int32, j int) float64 {
	return float64(mix(uint64(token)*64+uint64(j))>>40)/(1<<23) - 1
}

// optimum is where the labels of fakeSource come from.
func optimum(j int) float64 { return 1 + float64(j)/4 }

// The labels are token ids, so that a number is kept in thousandths and moved above 0.
func label(y float64) int32   { return int32(math.Round(y*1000)) + 20000 }
func unlabel(t int32) float64 { return float64(t-20000) / 1000 }

func (e *leastSquares) compute(tokens, targets []int32, seed uint64, grad []float32) (sum float64, n int) {
	for i, token := range tokens {
		if targets[i] < 0 {
			continue
		}
		x := make([]float64, len(e.used))
		for j := range x {
			x[j] = feature(token, j)
			if e.dropout && grad != nil && mix(seed+uint64(i*len(x)+j))%8 == 0 {
				x[j] = 0
			}
		}
		r := -unlabel(targets[i])
		for j := range x {
			r += x[j] * float64(e.used[j])
		}
		sum, n = sum+r*r/2, n+1
		for j := range grad {
			grad[j] += float32(r * x[j])
		}
	}
	return sum, n
}

func (e *leastSquares) Loss(tokens, targets []int32, lengths []int) (float64, int, error) {
	sum, n := e.compute(tokens, targets, 0, nil)
	if e.badEval {
		sum = math.Inf(1)
	}
	return sum, n, nil
}

func (e *leastSquares) AddGradient(tokens, targets []int32, lengths []int, seed uint64, grad []float32) (float64,
	int, error) {
	e.calls++
	e.seeds = append(e.seeds, seed)
	if e.hook != nil {
		if err := e.hook(e.calls); err != nil {
			return 0, 0, err
		}
	}
	sum, n := e.compute(tokens, targets, seed, grad)
	if e.calls == e.nan {
		sum = math.NaN()
	}
	if e.lowFirst && e.calls == 1 {
		sum /= 1e6
	}
	if e.calls == e.nanGrad {
		grad[0] = float32(math.NaN())
	}
	return sum, n, nil
}

func (e *leastSquares) Update() error {
	e.used = slices.Clone(e.params)
	return nil
}

// fakeSource has samples of three tokens, of which the last two carry a label.
type fakeSource struct {
	samples, batch int
	seed           uint64
}

func (s fakeSource) Batches() int { return (s.samples + s.batch - 1) / s.batch }

func (s fakeSource) Fingerprint() string { return fmt.Sprint(s) }

func (s fakeSource) Tokens(epoch, i int) int { return 3 * (min((i+1)*s.batch, s.samples) - i*s.batch) }

func (s fakeSource) Batch(epoch, i int) (tokens, targets []int32, lengths []int, err error) {
	order := rand.New(rand.NewPCG(s.seed, uint64(epoch))).Perm(s.samples)
	for _, sample := range order[i*s.batch : min((i+1)*s.batch, s.samples)] {
		for k := range 3 {
			token := int32(sample*3 + k)
			y := 0.0
			for j := range parameters {
				y += optimum(j) * feature(token, j)
			}
			target := label(y)
			if k == 0 {
				target = -1
			}
			tokens, targets = append(tokens, token), append(targets, target)
		}
		lengths = append(lengths, 3)
	}
	return tokens, targets, lengths, nil
}

const parameters = 6

// newRun is a fresh run of 12 steps: 2 epochs of 11 micro-batches, two a step, with dropout.
func newRun(folder string) (*Run, *leastSquares) {
	engine := &leastSquares{params: make([]float32, parameters), dropout: true}
	engine.Update()
	c := Default()
	c.LR, c.Epochs, c.Accumulation, c.Clip, c.WeightDecay = 0.3, 2, 2, 5, 0.01
	c.EvalEvery, c.SaveEvery, c.Seed = Interval{Steps: 4}, 3, 7
	return &Run{
		Config: c, Engine: engine, Params: engine.params,
		Parts: []Part{{"blk.0.attn_q", "b", 2}, {"blk.0.attn_q", "d", 1}, {"blk.0.ffn_up", "b", 1},
			{"blk.0.ffn_up", "d", 2}},
		Training: fakeSource{samples: 32, batch: 3, seed: 1}, HeldOut: fakeSource{samples: 5, batch: 2, seed: 2},
		Samples: func(context.Context) ([]Sample, error) {
			return []Sample{{"What are you?", fmt.Sprintf("<i>%x</i>", engine.used)}}, nil
		},
		SaveAdapter: func(path string, facts map[string]string) error { return saveFake(path, engine.params, facts) },
		Facts:       map[string]string{"template": "alpaca"},
		Setup: map[string]any{"model": "abc",
			"vera": map[string]any{"rank": 256, "seed": uint64(math.MaxUint64)}},
		Folder: folder,
	}, engine
}

const steps = 12

func saveFake(path string, params []float32, facts map[string]string) error {
	var out []byte
	for _, p := range params {
		out = fmt.Appendf(out, "%08x\n", math.Float32bits(p))
	}
	for _, key := range slices.Sorted(maps.Keys(facts)) {
		out = fmt.Appendf(out, "%s = %s\n", key, facts[key])
	}
	return durable.WriteFile(path, out, 0o666)
}

var clockReadings = regexp.MustCompile(`"(seconds|memory)":[^,}]*`)

// finished reads what a complete run leaves that must not depend on interruptions: by file, without the clock readings
// of metrics.jsonl.
func finished(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	last := filepath.Join(checkpointFolder, fmt.Sprintf("step-%d", steps))
	for _, name := range []string{AdapterFile, BestFile, ConfigFile, MetricsFile, ChartFile,
		filepath.Join(last, AdapterFile), filepath.Join(last, stateFile)} {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = clockReadings.ReplaceAllString(string(data), "")
	}
	return files
}

func checkEqual(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs from the uninterrupted run's:\n%q\nand not\n%q", name, got[name], want[name])
		}
	}
}

// weights reads what a complete run has learnt: the parameters and AdamW's moments in its last checkpoint, and those in
// its adapter without the facts. A run that was halted on the way has more measurements than others, and ends in the
// same weights.
func weights(t *testing.T, folder string) map[string]string {
	t.Helper()
	s, err := readCheckpoint(openedAt(folder).checkpoint(steps), parameters)
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := os.ReadFile(filepath.Join(folder, AdapterFile))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{stateFile: fmt.Sprint(s.Waited, s.Lowest, s.params, s.m, s.v),
		AdapterFile: facts.ReplaceAllString(string(adapter), "")}
}

var facts = regexp.MustCompile("(?m)^.* = .*\n")

// uninterrupted gives the files of the run that all others are compared with.
func uninterrupted(t *testing.T) map[string]string {
	t.Helper()
	return finished(t, wholeRun(t))
}

// wholeRun gives the folder of a run that was left alone.
func wholeRun(t *testing.T) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "whole")
	r, _ := newRun(folder)
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	return folder
}

// resume goes on with the run in folder in a new process, as far as the run can tell.
func resume(t *testing.T, folder string) Result {
	t.Helper()
	r, _ := newRun(folder)
	r.Resume = true
	result, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// interruptedIn is the context of a run that is interrupted in that step, counted from 1.
func interruptedIn(step int, engine *leastSquares) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	engine.hook = func(n int) error {
		if n == step {
			cancel()
		}
		return nil
	}
	return ctx
}

func readPoints(t *testing.T, folder string) []Record {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	points, lines := ReadRecords(data)
	for _, line := range lines {
		if !json.Valid(line) {
			t.Fatalf("not JSON: %q", line)
		}
	}
	return points
}

var errKilled = errors.New("killed")

// openedAt is a run directory to look into.
func openedAt(path string) *folder { return &folder{path: path} }
