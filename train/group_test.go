package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// goroutines is a group whose processes are goroutines of this one.
type goroutines struct {
	size  int
	mutex sync.Mutex
	round *exchange
	lost  chan struct{} // closed when a process is lost
}

// exchange is what the processes put together once.
type exchange struct {
	values [][]float32
	others [][]float64
	data   [][]byte
	came   int
	whole  chan struct{}
}

type member struct {
	*goroutines
	rank int
}

var errLost = errors.New("a process is lost")

func (m member) Rank() int { return m.rank }
func (m member) Size() int { return m.size }

func (m member) meet(values []float32, scalars []float64, data []byte) (*exchange, error) {
	m.mutex.Lock()
	if m.round == nil {
		m.round = &exchange{values: make([][]float32, m.size), others: make([][]float64, m.size),
			data: make([][]byte, m.size), whole: make(chan struct{})}
	}
	e := m.round
	e.values[m.rank], e.others[m.rank], e.data[m.rank] = slices.Clone(values), slices.Clone(scalars), data
	if e.came++; e.came == m.size {
		m.round = nil
		close(e.whole)
	}
	m.mutex.Unlock()
	select {
	case <-e.whole:
		return e, nil
	case <-m.lost:
	}
	select { // a process may be gone that has taken part in this before
	case <-e.whole:
		return e, nil
	default:
		return nil, errLost
	}
}

func (m member) Sum(values []float32, scalars []float64) error {
	e, err := m.meet(values, scalars, nil)
	if err != nil {
		return err
	}
	clear(values)
	clear(scalars)
	for r := range m.size {
		for i, v := range e.values[r] {
			values[i] += v
		}
		for i, v := range e.others[r] {
			scalars[i] += v
		}
	}
	return nil
}

func (m member) Broadcast(data []byte) ([]byte, error) {
	e, err := m.meet(nil, nil, data)
	if err != nil {
		return nil, err
	}
	return e.data[0], nil
}

// part is what one process of a group trains.
type part struct {
	*Run
	engine *leastSquares
	ctx    context.Context
	stop   func() // cancels ctx
	err    error
	result Result
}

// trainTogether has size processes make the run that newRun gives, which change may change for each.
func trainTogether(folder string, size int, change func(rank int, p *part)) []*part {
	group := &goroutines{size: size, lost: make(chan struct{})}
	var parts []*part
	var wait sync.WaitGroup
	var lose sync.Once
	for rank := range size {
		p := &part{}
		p.Run, p.engine = newRun(folder)
		p.ctx, p.stop = context.WithCancel(context.Background())
		p.Group, p.engine.dropout = member{group, rank}, false
		if rank > 0 {
			p.SaveAdapter = func(string, map[string]string) error { return errors.New("only process 0 writes") }
		}
		if change != nil {
			change(rank, p)
		}
		parts = append(parts, p)
	}
	for _, p := range parts {
		wait.Go(func() {
			defer p.stop()
			if p.result, p.err = p.Train(p.ctx); p.err != nil {
				lose.Do(func() { close(group.lost) })
			}
		})
	}
	wait.Wait()
	return parts
}

func mustTrain(t *testing.T, folder string, size int, change func(rank int, p *part)) []*part {
	t.Helper()
	parts := trainTogether(folder, size, change)
	for rank, p := range parts {
		if p.err != nil {
			t.Fatalf("process %d of %d: %v", rank, size, p.err)
		}
	}
	return parts
}

// A group makes the steps of one process: the same losses and parameters but for rounding, the same bytes each time,
// the same parameters in all of its processes.
func TestGroup(t *testing.T) {
	alone := filepath.Join(t.TempDir(), "alone")
	wanted := mustTrain(t, alone, 1, nil)[0].Params
	want := readPoints(t, alone)
	for _, size := range []int{2, 3, 4, 9} { // 9 are more than a step has samples
		var files []map[string]string
		for range 2 {
			folder := filepath.Join(t.TempDir(), "group")
			parts := mustTrain(t, folder, size, nil)
			files = append(files, finished(t, folder))
			for rank, p := range parts {
				if !slices.Equal(p.Params, parts[0].Params) || p.result.Steps != steps ||
					*p.result.Best != *parts[0].result.Best {
					t.Fatalf("%d processes: number %d ends with %v, %+v", size, rank, p.Params, p.result)
				}
			}
			nearly(t, fmt.Sprintf("%d processes", size), parts[0].Params, wanted)
			got := readPoints(t, folder)
			if len(got) != len(want) {
				t.Fatalf("%d processes: %d lines and not %d", size, len(got), len(want))
			}
			for i, p := range got {
				w := want[i]
				if p.Step != w.Step || p.Tokens != w.Tokens || math.Abs(loss(p)-loss(w)) > 1e-5 {
					t.Errorf("%d processes: line %d is %+v and not %+v", size, i, p, w)
				}
			}
		}
		checkEqual(t, files[1], files[0])
	}
}

// loss is a record's, of a step or an evaluation; of norms it is 0.
func loss(p Record) float64 {
	switch {
	case p.Loss != nil:
		return *p.Loss
	case p.EvalLoss != nil:
		return *p.EvalLoss
	}
	return 0
}

func nearly(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if !(math.Abs(float64(got[i]-want[i])) <= 1e-5) {
			t.Fatalf("%s: parameters %v and not %v", what, got, want)
		}
	}
}

// Whichever process is interrupted, in whichever step, all end after the same one, and any number of processes goes on
// from there.
func TestGroupInterrupted(t *testing.T) {
	want := mustTrain(t, filepath.Join(t.TempDir(), "whole"), 1, nil)[0].Params
	for step := 1; step < steps; step++ {
		folder := filepath.Join(t.TempDir(), "run")
		for rank, p := range trainTogether(folder, 3, func(rank int, p *part) {
			p.atStep(rank == step%2, step, p.stop)
		}) {
			if !errors.Is(p.err, ErrInterrupted) ||
				!strings.Contains(p.err.Error(), fmt.Sprintf("after step %d of", step)) {
				t.Fatalf("interrupted in step %d: process %d: %v", step, rank, p.err)
			}
		}
		if kept, _ := openedAt(folder).checkpoints(); len(kept) == 0 || kept[0] != step {
			t.Fatalf("interrupted in step %d: checkpoints of %v", step, kept)
		}
		parts := mustTrain(t, folder, 1+step%4, func(_ int, p *part) { p.Resume = true })
		nearly(t, fmt.Sprintf("interrupted in step %d", step), parts[0].Params, want)
	}
}

// atStep does something while the process computes the gradients of a step, if it is the one. It has to have samples in
// all steps before, as numbers 0 and 1 do.
func (p *part) atStep(isTheOne bool, step int, do func()) {
	p.engine.hook = func(call int) error {
		if isTheOne && call == step {
			do()
		}
		return nil
	}
}

// A process whose time is over halts all of them, though the others have none to keep to.
func TestGroupMaxTime(t *testing.T) {
	for _, p := range mustTrain(t, filepath.Join(t.TempDir(), "run"), 3, func(rank int, p *part) {
		if rank == 2 {
			p.MaxTime = 1
		}
	}) {
		if p.result.EndedBy != "max-time" || p.result.Steps != 1 {
			t.Errorf("ended after step %d by %q", p.result.Steps, p.result.EndedBy)
		}
	}
}

// The error of a process, and of those that lose it, names the last checkpoint.
func TestGroupLosesProcess(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	parts := trainTogether(folder, 3, func(rank int, p *part) {
		if rank == 1 {
			p.engine.hook = func(call int) error {
				if call == 8 {
					return errKilled
				}
				return nil
			}
		}
	})
	for rank, p := range parts {
		want := errLost
		if rank == 1 {
			want = errKilled
		}
		if !errors.Is(p.err, want) || !strings.Contains(p.err.Error(), filepath.Join(folder, "checkpoints", "step-6")) {
			t.Errorf("process %d: %v", rank, p.err)
		}
	}
}

// While a step is computed, or waited for, an interruption saves the step before, since the launcher may not wait for
// its end.
func TestGroupSavesAtOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	saved := false
	trainTogether(folder, 2, func(rank int, p *part) {
		p.atStep(rank == 0, 5, func() {
			p.stop()
			for !saved {
				saved = exists(openedAt(folder).checkpoint(4))
			}
		})
	})
	if kept, _ := openedAt(folder).checkpoints(); !slices.Equal(kept, []int{5, 4}) {
		t.Errorf("checkpoints of %v", kept)
	}
}

// Processes that are not of one mind don't begin.
func TestGroupStartedOtherwise(t *testing.T) {
	parts := trainTogether(filepath.Join(t.TempDir(), "run"), 3, func(rank int, p *part) {
		if rank == 1 {
			p.Config.LR = 0.7
		}
	})
	if err := parts[1].err; err == nil || !strings.Contains(err.Error(), "lr was 0.3 and is 0.7") {
		t.Errorf("got %v", err)
	}
}

// A group that no longer has the same parameters everywhere notices.
func TestGroupOfDifferentParameters(t *testing.T) {
	parts := trainTogether(filepath.Join(t.TempDir(), "run"), 2, func(rank int, p *part) {
		p.atStep(rank == 1, 3, func() { p.Params[0]++ })
	})
	for rank, p := range parts {
		if p.err == nil || !strings.Contains(p.err.Error(), "the same parameters") {
			t.Errorf("process %d: %v", rank, p.err)
		}
	}
}

// Every sample of a step goes to one process, and no process has more tokens than the largest sample above its even
// share.
func TestShare(t *testing.T) {
	var b batch
	most, total := 0, 0
	for i := range 16 {
		length := 1 + i*i%23
		b.lengths = append(b.lengths, length)
		for range length {
			b.tokens, b.targets = append(b.tokens, int32(i)), append(b.targets, int32(-i))
		}
		most, total = max(most, length), total+length
	}
	for _, size := range []int{1, 2, 3, 5, 20} {
		seen := map[int32]int{}
		for rank := range size {
			s := b.share(rank, size)
			if len(s.tokens) > total/size+most {
				t.Errorf("%d of %d has %d tokens", rank, size, len(s.tokens))
			}
			at := 0
			for _, length := range s.lengths {
				sample := s.tokens[at]
				for k := range length {
					if s.tokens[at+k] != sample || s.targets[at+k] != -sample {
						t.Fatalf("%d of %d: sample %d is torn", rank, size, sample)
					}
				}
				seen[sample] += length
				at += length
			}
		}
		for i, length := range b.lengths {
			if seen[int32(i)] != length {
				t.Errorf("%d processes: sample %d is computed %d tokens long and not %d", size, i,
					seen[int32(i)], length)
			}
		}
	}
}
