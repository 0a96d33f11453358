package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Group is the processes that train together, numbered from 0. Each computes the gradient of its share of a step's
// samples, and all take the same step by the sum. Number 0 alone writes the run folder. All call Sum and Broadcast in
// the same order.
type Group interface {
	Rank() int // number of this process
	Size() int // number of processes
	// Sum replaces values and scalars by their sums over all processes, the same bits in all of them.
	Sum(values []float32, scalars []float64) error
	// Broadcast gives all processes the data of number 0.
	Broadcast(data []byte) ([]byte, error)
}

// soloGroup is the group of a process that trains by itself.
type soloGroup struct{}

func (soloGroup) Rank() int                             { return 0 }
func (soloGroup) Size() int                             { return 1 }
func (soloGroup) Sum([]float32, []float64) error        { return nil }
func (soloGroup) Broadcast(data []byte) ([]byte, error) { return data, nil }

// requests is what a running training is asked for.
type requests struct {
	stop   bool // to save and go on another time
	timeUp bool // to halt, since MaxTime is over
}

// requests are those of this process; in a group, those that all processes know, so that all stop after the same step.
func (t *trainer) requests() requests {
	if t.group.Size() == 1 {
		return t.asked()
	}
	return t.agreed
}

// sum adds up over the group: the loss of n labelled tokens, and its gradient unless that is nil. Each process's
// requests are summed too, and a checksum shows whether all have the same parameters.
func (t *trainer) sum(loss float64, n int, grad []float32) (float64, int, error) {
	size := t.group.Size()
	if size == 1 {
		return loss, n, nil
	}
	asked, check := t.asked(), checksum(t.params)
	scalars := []float64{loss, float64(n), indicator(asked.stop), indicator(asked.timeUp), check}
	if err := t.group.Sum(grad, scalars); err != nil {
		return 0, 0, err
	}
	if scalars[4] != check*float64(size) {
		return 0, 0, errors.New("the processes of the group no longer have the same parameters; their processors or " +
			"programs must differ")
	}
	t.agreed = requests{stop: scalars[2] > 0, timeUp: scalars[3] > 0}
	return scalars[0], int(scalars[1]), nil
}

func indicator(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// checksum is a hash of 32 bits, so that a float64 holds the sum of many exactly.
func checksum(values []float32) float64 {
	hash := uint64(len(values))
	for _, v := range values {
		hash = (hash ^ uint64(math.Float32bits(v))) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	return float64(hash >> 32)
}

// writes tells whether this process is the one that writes the run folder.
func (l *loop) writes() bool { return l.group.Rank() == 0 }

// meet checks that all processes of a group were started alike, and gives all of them the state of number 0.
func (l *loop) meet() error {
	if l.group.Size() == 1 {
		return nil
	}
	local, err := json.Marshal(l.settings)
	if err != nil {
		return err
	}
	first, err := l.group.Broadcast(local)
	if err != nil {
		return err
	}
	list, err := differences(first, local)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("process %d of the group was started otherwise than process 0: %s", l.group.Rank(),
			words(list))
	}
	var data []byte
	if l.writes() {
		s, err := l.state()
		if err != nil {
			return err
		}
		if data, err = s.encode(); err != nil {
			return err
		}
	}
	if data, err = l.group.Broadcast(data); err != nil || l.writes() {
		return err
	}
	s, err := decodeState(data)
	if err != nil {
		return fmt.Errorf("state of process 0: %w", err)
	}
	return l.adopt(s)
}

// saveAtOnce saves the newest step while the next one is computed. A launcher that is told to stop, or that has lost a
// process, may kill the others a second later.
func (l *loop) saveAtOnce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.finished {
		return
	}
	if l.unsaved {
		if err := l.save(); err != nil {
			l.progress.Note("asked to stop: checkpoint after step %d: %v", l.position.Step, err)
			return
		}
	}
	l.progress.Note("asked to stop: --resume would go on from %s; the step that is being computed is finished if "+
		"there is time", l.folder.checkpoint(l.position.Step))
}
