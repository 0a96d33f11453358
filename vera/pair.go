package vera

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"gonum.org/v1/gonum/mathext/prng"
)

// Init names the distribution that the shared pair is drawn from: those of the paper's ablation.
type Init string

// In each the words come from one MT19937 generator, A before B, row by row; fan_in is the row length of the matrix.
const (
	// KaimingUniform is uniform in ±√3·√2/√fan_in: PEFT's initialisation, equal to it in every bit.
	KaimingUniform Init = "kaiming_uniform"
	// KaimingNormal is normal with a standard deviation of √2/√fan_in: the ziggurat of math/rand/v2 over the
	// generator's 64-bit words, which takes a logarithm for one value in thousands only, so that machines of different
	// floating-point libraries agree.
	KaimingNormal Init = "kaiming_normal"
	// Uniform is uniform in [0, 0.1).
	Uniform Init = "uniform"
)

var inits = []Init{KaimingUniform, KaimingNormal, Uniform}

// Pair is the frozen random pair that all adapted layers share, rows in the order of Hugging Face's weights. A layer
// uses the first In columns of A and the first Out rows of B.
type Pair struct {
	Rank   int
	MaxIn  int
	MaxOut int
	A      []float32 // Rank × MaxIn, row-major
	B      []float32 // MaxOut × Rank, row-major

	origin    origin
	digest    string // SHA256's, where it is known
	fileOrder bool   // the rows of B and the columns of A are in the order of the GGUF file, as a LoRA's are
}

// origin is what NewPair drew a pair from; a pair that came with a file has none.
type origin struct {
	init Init
	seed uint32
}

// NewPair draws the pair of a seed: A (rank × maxIn), then B (maxOut × rank). It panics for an unknown init.
func NewPair(init Init, seed uint32, rank, maxIn, maxOut int) *Pair {
	mt := prng.NewMT19937()
	mt.Seed(uint64(seed))
	p := &Pair{Rank: rank, MaxIn: maxIn, MaxOut: maxOut, origin: origin{init, seed}}
	p.A = draw(init, mt, rank, maxIn)
	p.B = draw(init, mt, maxOut, rank)
	return p
}

func draw(init Init, mt *prng.MT19937, rows, fanIn int) []float32 {
	values := make([]float32, rows*fanIn)
	std := math.Sqrt(2) / math.Sqrt(float64(fanIn))
	switch init {
	case KaimingUniform:
		drawUniform(mt, values, float32(math.Sqrt(3)*std))
	case KaimingNormal:
		normal := rand.New(mt)
		for i := range values {
			values[i] = float32(normal.NormFloat64() * std)
		}
	case Uniform:
		for i := range values {
			values[i] = 0.1 * (float32(mt.Uint32()&(1<<24-1)) / (1 << 24))
		}
	default:
		panic("vera: unknown init " + string(init))
	}
	return values
}

// drawUniform fills values uniformly in ±bound. PyTorch computes fma(u, 2·bound, −bound) in float32, where u = k/2²⁴
// and k is the low 24 bits of a word. That is bound·(k − 2²³)/2²³ in exact arithmetic, rounded once. (k − 2²³)/2²³ has
// 24 significant bits, so it is exact in float32, and the one product below rounds once as well: the same bits, and no
// fused multiply-add is needed.
func drawUniform(mt *prng.MT19937, values []float32, bound float32) {
	for i := range values {
		values[i] = bound * (float32(int32(mt.Uint32()&(1<<24-1))-1<<23) / (1 << 23))
	}
}

// keptPairs is how many pairs are kept: trainings differ in few seeds and ranks.
const keptPairs = 4

// Pairs keeps the pairs of the seeds that adapters were last made or loaded with, so that these share them. It is safe
// for concurrent use; nil keeps none.
type Pairs struct {
	mu   sync.Mutex
	kept []*Pair // the last used first
}

// draw is NewPair, or the same pair from before.
func (p *Pairs) draw(init Init, seed uint32, rank, maxIn, maxOut int) *Pair {
	if p == nil {
		return NewPair(init, seed, rank, maxIn, maxOut)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.kept, func(x *Pair) bool {
		return x.origin == origin{init, seed} && x.Rank == rank && x.MaxIn == maxIn && x.MaxOut == maxOut
	})
	if i >= 0 {
		x := p.kept[i]
		p.kept = slices.Insert(slices.Delete(p.kept, i, i+1), 0, x)
		return x
	}
	x := NewPair(init, seed, rank, maxIn, maxOut)
	x.digest = x.SHA256()
	p.kept = slices.Insert(p.kept, 0, x)
	p.kept = p.kept[:min(len(p.kept), keptPairs)]
	return x
}

// digestOf is the digest of the layers' own pairs, one after the other.
func digestOf(layers []Layer) string {
	h := sha256.New()
	for _, l := range layers {
		h.Write([]byte(l.Pair.SHA256()))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// SHA256 is the digest, in hexadecimal, of rank, MaxIn and MaxOut as little-endian uint64, then A and B as
// little-endian float32.
func (p *Pair) SHA256() string {
	if p.digest != "" {
		return p.digest
	}
	h := sha256.New()
	buf := make([]byte, 0, 1<<16)
	for _, n := range []int{p.Rank, p.MaxIn, p.MaxOut} {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(n))
	}
	h.Write(buf)
	for _, values := range [][]float32{p.A, p.B} {
		for len(values) > 0 {
			n := min(len(values), cap(buf)/4)
			buf = appendFloats(buf[:0], values[:n])
			h.Write(buf)
			values = values[n:]
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// appendFloats appends values as little-endian float32.
func appendFloats(data []byte, values []float32) []byte {
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return data
}
