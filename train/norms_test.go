package train

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNormsLine(t *testing.T) {
	parts := []Part{{"blk.0.attn_q", "b", 2}, {"blk.0.attn_q", "d", 1}, {"blk.1.attn_q", "b", 1},
		{"blk.1.attn_q", "d", 1}}
	grad, value := partNorms([]float32{3, 4, 1e-7, 0, 1. / 3, 99}, parts),
		partNorms([]float32{0, 0, -2, 12345, float32(math.Inf(1))}, parts)
	line, err := json.Marshal(normsLine{Step: 5, Norms: newNorms(parts, grad, value)})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"step":5,"norms":{"layers":["blk.0.attn_q","blk.1.attn_q"],"grad":{"b":[5,0],"d":[1e-07,0.333]},"value":{"b":[0,1.23e+04],"d":[2,null]}}}`
	if string(line) != want {
		t.Errorf("%s\nwant\n%s", line, want)
	}
	records, _ := ReadRecords(append(line, '\n'))
	if len(records) != 1 || records[0].Step != 5 || !slices.Equal(records[0].Norms.Grad["d"], []Norm{1e-7, .333}) ||
		len(records[0].Norms.Layers) != 2 {
		t.Errorf("read back: %+v", records)
	}
}

// The parts' gradient is that of the step, before clipping: squares sum up to the whole one's.
func TestNormsOfARun(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, _ := newRun(folder)
	r.Config.Clip = 1e-3
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	records := readPoints(t, folder)
	var last *Record
	for i, n := range records {
		if n.Norms == nil {
			continue
		}
		last = &records[i]
		step := records[i-1]
		squares := 0.0
		for _, g := range slices.Concat(n.Norms.Grad["b"], n.Norms.Grad["d"]) {
			squares += float64(g * g)
		}
		if math.Abs(math.Sqrt(squares)/step.GradNorm-1) > 1e-2 || step.Step != n.Step ||
			step.GradNorm < 2*r.Config.Clip {
			t.Errorf("step %d: the parts' gradients are %v together, the whole one is %v", n.Step, math.Sqrt(squares),
				step.GradNorm)
		}
	}
	want := newNorms(r.Parts, make([]float64, 4), partNorms(r.Params, r.Parts))
	for _, name := range []string{"b", "d"} {
		for i, v := range want.Value[name] {
			if math.Abs(float64(last.Norms.Value[name][i]/v-1)) > 1e-2 {
				t.Errorf("after the last step, %s of %s has norm %v, want %v", name, want.Layers[i],
					last.Norms.Value[name][i], v)
			}
		}
	}
}

// A run that is interrupted while it answers makes the whole evaluation again.
func TestInterruptedSamples(t *testing.T) {
	want := uninterrupted(t)
	for evaluation := range 4 {
		folder := filepath.Join(t.TempDir(), "run")
		r, _ := newRun(folder)
		ctx, cancel := context.WithCancel(context.Background())
		whole, n := r.Samples, 0
		r.Samples = func(ctx context.Context) ([]Sample, error) {
			if n++; n > evaluation {
				cancel()
				return nil, ctx.Err()
			}
			return whole(ctx)
		}
		if _, err := r.Train(ctx); !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
		resume(t, folder)
		checkEqual(t, finished(t, folder), want)
	}
}

func TestSamplesThatFailEndTheRun(t *testing.T) {
	r, _ := newRun(filepath.Join(t.TempDir(), "run"))
	r.Samples = func(context.Context) ([]Sample, error) { return nil, errors.New("no room") }
	if _, err := r.Train(context.Background()); err == nil ||
		!strings.Contains(err.Error(), "evaluation after step 0 of 12: samples: no room") {
		t.Errorf("got %v", err)
	}
}
