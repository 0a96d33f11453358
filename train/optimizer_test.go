package train

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"testing"
)

// faraway is an engine that makes the updates itself, in memory of its own.
type faraway struct {
	*leastSquares
	AdamW
	grad  []float32
	reads int // of all parameters
}

func (e *faraway) ComputeGradient(tokens, targets []int32, lengths []int, seed uint64) (float64, int, error) {
	clear(e.grad)
	return e.AddGradient(tokens, targets, lengths, seed, e.grad)
}

func (e *faraway) GradientNorm() (float64, error) { return l2Norm(e.grad), nil }

func (e *faraway) Step(t int, lr, scale float64) error {
	scaled := slices.Clone(e.grad)
	for i := range scaled {
		scaled[i] *= float32(scale)
	}
	e.Updates = t - 1
	e.AdamW.Update(e.used, scaled, lr)
	return nil
}

func (e *faraway) Update() error { return e.leastSquares.Update() }

func (e *faraway) CopyGradient(grad []float32) error {
	copy(grad, e.grad)
	return nil
}

func (e *faraway) State(params, m, v []float32) error {
	e.reads++
	copy(params, e.used)
	copy(m, e.M)
	copy(v, e.V)
	return nil
}

func (e *faraway) SetMoments(m, v []float32) error {
	e.M, e.V = slices.Clone(m), slices.Clone(v)
	return nil
}

func newFarRun(folder string) (*Run, *faraway) {
	r, engine := newRun(folder)
	far := &faraway{leastSquares: engine, AdamW: *NewAdamW(parameters, r.Config), grad: make([]float32, parameters)}
	r.Engine = far
	return r, far
}

// TestResident trains with an engine that has parameters and moments: losses are as without, they are read where
// something is saved or shown and nowhere else, and interrupted after any step, by whatever engine the run is gone on
// with, it ends as it would have.
func TestResident(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "whole")
	r, engine := newFarRun(folder)
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Norms after steps 1, 4, 8 and 12, which is where adapters and checkpoints are saved too, and checkpoints after
	// steps 3, 6 and 9.
	if engine.reads != 7 {
		t.Errorf("parameters and moments were read %d times in %d steps", engine.reads, steps)
	}
	whole := finished(t, folder)
	host, _ := newRun(filepath.Join(t.TempDir(), "host"))
	if _, err := host.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	near := func(r *Run) {
		t.Helper()
		for i, p := range r.Params {
			if math.Abs(float64(p-host.Params[i])) > 1e-5 {
				t.Errorf("parameter %d is %v, %v where this process makes the updates", i, p, host.Params[i])
			}
		}
	}
	near(r)

	for step := 1; step < steps; step++ {
		for _, back := range []bool{true, false} {
			folder := filepath.Join(t.TempDir(), "run")
			r, engine := newFarRun(folder)
			if _, err := r.Train(interruptedIn(step, engine.leastSquares)); !errors.Is(err, ErrInterrupted) {
				t.Fatal(err)
			}
			if back {
				r, _ = newFarRun(folder)
			} else {
				r, _ = newRun(folder)
			}
			r.Resume = true
			if _, err := r.Train(context.Background()); err != nil {
				t.Fatal(err)
			}
			if back {
				checkEqual(t, finished(t, folder), whole)
			} else {
				near(r)
			}
		}
	}
}

// TestResidentDiverges: nothing has moved where the error is told, and the last good checkpoint is there.
func TestResidentDiverges(t *testing.T) {
	r, engine := newFarRun(filepath.Join(t.TempDir(), "run"))
	engine.nanGrad = 8
	var before []float32
	engine.hook = func(n int) error {
		if n == 8 {
			before = slices.Clone(engine.used)
		}
		return nil
	}
	if _, err := r.Train(context.Background()); !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
	if !slices.Equal(before, engine.used) || engine.Updates != 7 {
		t.Errorf("after %d updates the parameters moved from %v to %v", engine.Updates, before, engine.used)
	}
}
