package alpaca

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
)

// Streams of random numbers: those of the epochs are numbered from 0, Split draws from splitStream, and the passes
// through a weighted part are numbered from passStreams on, 2³² for each part.
const (
	splitStream = 1<<64 - 1
	passStreams = 1 << 63
)

// Source cuts a dataset into batches, the same ones whenever dataset, batch size and seed are the same. Its methods
// may be called from several goroutines.
type Source struct {
	data    *Dataset
	batch   int
	seed    uint64
	shuffle bool
	shares  []share

	mu    sync.Mutex
	epoch int
	order []int // of epoch, indices of entries; nil before the first batch
}

// share is what an epoch sees of a part: draws from its rows, which are consecutive entries.
type share struct {
	part               int
	first, rows, draws int
}

// Source returns the batches to train on, in the seeded order of each epoch where o.Shuffle is set. Else it is the
// order of the files, each row once, whatever their weights.
func (d *Dataset) Source(o Options) *Source {
	s := &Source{data: d, batch: max(1, o.Batch), seed: o.Seed, shuffle: o.Shuffle}
	for first := 0; first < len(d.entries); {
		part := d.entries[first].part
		end := first + 1
		for end < len(d.entries) && d.entries[end].part == part {
			end++
		}
		draws := end - first
		if s.shuffle {
			draws = max(1, int(math.Round(d.parts[part].Weight*float64(draws))))
		}
		s.shares = append(s.shares, share{int(part), first, end - first, draws})
		first = end
	}
	return s
}

// InOrder returns the batches to evaluate on: the same in every epoch.
func (d *Dataset) InOrder(batch int) *Source {
	return d.Source(Options{Batch: batch})
}

// Batches returns the number of batches in an epoch; the last may be smaller than the others.
func (s *Source) Batches() int {
	draws := 0
	for _, part := range s.shares {
		draws += part.draws
	}
	return (draws + s.batch - 1) / s.batch
}

// Batch returns batch i, from 0, of an epoch, from 0: its samples' tokens and targets end to end without padding, and
// the length of each sample. The slices are the caller's. It panics where i is out of range.
func (s *Source) Batch(epoch, i int) (tokens, targets []int32, lengths []int, err error) {
	var samples []Sample
	for _, j := range s.indices(epoch, i) {
		sample, err := s.data.sample(s.data.entries[j])
		if err != nil {
			return nil, nil, nil, err
		}
		samples = append(samples, sample)
	}
	tokens, targets, lengths = join(samples)
	return tokens, targets, lengths, nil
}

// Tokens returns how many tokens a batch has, without reading it.
func (s *Source) Tokens(epoch, i int) (n int) {
	for _, j := range s.indices(epoch, i) {
		n += int(s.data.entries[j].tokens)
	}
	return n
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

// indices gives the entries of a batch.
func (s *Source) indices(epoch, i int) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order == nil || s.shuffle && s.epoch != epoch {
		s.epoch, s.order = epoch, s.epochOrder(epoch)
	}
	return s.order[i*s.batch : min((i+1)*s.batch, len(s.order))]
}

func (s *Source) epochOrder(epoch int) []int {
	var drawn []int
	for _, part := range s.shares {
		drawn = append(drawn, part.draw(s.seed, epoch)...)
	}
	if !s.shuffle {
		return drawn
	}
	order := permutation(len(drawn), s.seed, uint64(epoch))
	for i, j := range order {
		order[i] = drawn[j]
	}
	return order
}

// draw gives the entries of an epoch, sorted. The passes through a part are shuffled one by one and laid end to end,
// and each epoch takes the next piece.
func (p share) draw(seed uint64, epoch int) []int {
	drawn := make([]int, p.draws)
	var pass []int
	for i := range drawn {
		draw := epoch*p.draws + i
		if pass == nil || draw%p.rows == 0 {
			pass = identity(p.rows)
			if p.draws%p.rows != 0 { // else every epoch takes whole passes
				pass = permutation(p.rows, seed, passStreams+uint64(p.part)<<32+uint64(draw/p.rows))
			}
		}
		drawn[i] = p.first + pass[draw%p.rows]
	}
	slices.Sort(drawn)
	return drawn
}

// Fingerprint returns the SHA-256, in hexadecimal, of everything that decides the stream of batches: a checkpoint
// holds it, so that a run is resumed on the same data only.
func (s *Source) Fingerprint() string {
	h := sha256.New()
	shuffle := uint64(0)
	if s.shuffle {
		shuffle = 1
	}
	buf := []byte("veratune batches 3\n")
	for _, v := range []uint64{uint64(s.batch), s.seed, shuffle, uint64(len(s.data.entries))} {
		buf = binary.LittleEndian.AppendUint64(buf, v)
	}
	for _, p := range s.shares {
		for _, v := range []int{p.part, p.rows, p.draws} {
			buf = binary.LittleEndian.AppendUint64(buf, uint64(v))
		}
	}
	h.Write(buf)
	for i := range s.data.entries {
		h.Write(s.data.entries[i].digest[:])
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
