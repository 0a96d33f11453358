package main

import (
	"math/rand/v2"

	"github.com/veratune/veratune/bindings"
)

// chunk is the number of values that no block of a ggml type goes beyond; rows are multiples of it. A pool repeats
// itself after so many chunks at most: 4 million values, which are quantised in about a second. The number is prime, so
// that the rows of a matrix, of several chunks each, begin at ever different places of the period: 16381 of them come
// before one is there again.
const (
	chunk        = 256
	periodChunks = 16381
)

// pool holds random weights of one type, normally distributed around 0, as a ring that is unrolled far enough for the
// largest matrix to be a slice of it.
type pool struct {
	kind   bindings.Type
	period int // bytes
	data   []byte
}

// newPool draws and quantises one period of weights. largest is the number of values of the largest matrix.
func newPool(random *rand.Rand, t bindings.Type, deviation float64, largest int) (*pool, error) {
	values := make([]float32, min(periodChunks, (largest+chunk-1)/chunk)*chunk)
	for i := range values {
		values[i] = float32(deviation * random.NormFloat64())
	}
	once, err := bindings.Quantize(t, values, chunk)
	if err != nil {
		return nil, err
	}
	p := &pool{kind: t, period: len(once), data: make([]byte, len(once)+int(t.RowBytes(int64(largest))))}
	for at := 0; at < len(p.data); at += len(once) {
		copy(p.data[at:], once)
	}
	return p, nil
}

// matrix is the data of a matrix that begins a random number of whole rows into the ring.
func (p *pool) matrix(random *rand.Rand, in, out int) []byte {
	row := int(p.kind.RowBytes(int64(in)))
	start := row * random.IntN(p.period/row)
	return p.data[start : start+row*out]
}
