package alpaca

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"math/rand/v2"
	"sync"
)

// splitStream is the stream of random numbers that Split draws from; those of the epochs are numbered from 0.
const splitStream = 1<<64 - 1

// Source cuts a dataset into batches, the same ones whenever dataset, batch size and seed are the same. Its methods
// may be called from several goroutines.
type Source struct {
	samples []Sample
	batch   int
	seed    uint64
	shuffle bool

	mu    sync.Mutex
	epoch int
	order []int // of epoch; nil before the first batch
}

// Source returns the batches to train on, in the seeded order of each epoch where o.Shuffle is set.
func (d *Dataset) Source(o Options) *Source {
	return &Source{samples: d.Samples, batch: max(1, o.Batch), seed: o.Seed, shuffle: o.Shuffle}
}

// InOrder returns the batches to evaluate on: the same in every epoch.
func (d *Dataset) InOrder(batch int) *Source {
	return d.Source(Options{Batch: batch})
}

// Batches returns the number of batches in an epoch; the last may be smaller than the others.
func (s *Source) Batches() int { return (len(s.samples) + s.batch - 1) / s.batch }

// Batch returns batch i, from 0, of an epoch, from 0: its samples' tokens and targets end to end without padding, and
// the length of each sample. The slices are the caller's. It panics where i is out of range.
func (s *Source) Batch(epoch, i int) (tokens, targets []int32, lengths []int) {
	order := s.epochOrder(epoch)
	var samples []Sample
	for _, j := range order[i*s.batch : min((i+1)*s.batch, len(order))] {
		samples = append(samples, s.samples[j])
	}
	return join(samples)
}

// join lays samples end to end.
func join(samples []Sample) (tokens, targets []int32, lengths []int) {
	for _, sample := range samples {
		tokens = append(tokens, sample.Tokens...)
		targets = append(targets, sample.Targets...)
		lengths = append(lengths, len(sample.Tokens))
	}
	return tokens, targets, lengths
}

func (s *Source) epochOrder(epoch int) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order == nil || s.shuffle && s.epoch != epoch {
		s.epoch = epoch
		if s.shuffle {
			s.order = permutation(len(s.samples), s.seed, uint64(epoch))
		} else {
			s.order = identity(len(s.samples))
		}
	}
	return s.order
}

// Fingerprint returns the SHA-256, in hexadecimal, of everything that decides the stream of batches: a checkpoint
// holds it, so that a run is resumed on the same data only.
func (s *Source) Fingerprint() string {
	h := sha256.New()
	shuffle := uint64(0)
	if s.shuffle {
		shuffle = 1
	}
	buf := []byte("veratune batches 1\n")
	for _, v := range []uint64{uint64(s.batch), s.seed, shuffle, uint64(len(s.samples))} {
		buf = binary.LittleEndian.AppendUint64(buf, v)
	}
	h.Write(buf)
	for _, sample := range s.samples {
		buf = appendSample(buf[:0], sample)
		h.Write(buf)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// appendSample writes the length, the tokens and the targets of a sample.
func appendSample(b []byte, s Sample) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s.Tokens)))
	for _, list := range [][]int32{s.Tokens, s.Targets} {
		for _, t := range list {
			b = binary.LittleEndian.AppendUint32(b, uint32(t))
		}
	}
	return b
}

func identity(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// permutation is a Fisher-Yates shuffle of 0…n-1. It is spelled out because rand.Shuffle may draw otherwise in another
// Go release, and a run that is resumed then must see the same order; the PCG generator itself is fixed.
func permutation(n int, seed, stream uint64) []int {
	pcg := rand.NewPCG(seed, stream)
	order := identity(n)
	for i := n - 1; i > 0; i-- {
		j, _ := bits.Mul64(pcg.Uint64(), uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}
