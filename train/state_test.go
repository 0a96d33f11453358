package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"testing"
)

func exampleState() *state {
	return &state{
		position: position{Step: 5, Epoch: 1, Batch: 4, Seed: math.MaxUint64, Before: &Evaluation{0, 1.5},
			Last: &Evaluation{4, 0.1 + 0.2}, Best: &Evaluation{4, 0.1 + 0.2}},
		params: []float32{1, float32(math.Copysign(0, -1)), 1e-45}, m: []float32{1, 2, 3}, v: []float32{4, 5, 6},
		AdapterSHA256: "ab",
	}
}

func TestStateRoundTrip(t *testing.T) {
	for _, s := range []*state{exampleState(), {}} {
		data, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeState(data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := got.encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, data) || !reflect.DeepEqual(got.position, s.position) {
			t.Errorf("%+v came back as %+v", s, got)
		}
	}
}

// A single changed bit or a missing end is noticed wherever it is.
func TestDamagedStateIsNoticed(t *testing.T) {
	data, err := exampleState().encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if _, err := decodeState(data[:i]); err == nil {
			t.Fatalf("%d of %d bytes are taken for a whole state", i, len(data))
		}
		changed := slices.Clone(data)
		changed[i] ^= 1 << (i % 8)
		if _, err := decodeState(changed); err == nil {
			t.Fatalf("a changed bit in byte %d is not noticed", i)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	whole, _ := exampleState().encode()
	empty, _ := (&state{}).encode()
	seal := func(header string, rest int) []byte {
		out := binary.LittleEndian.AppendUint64([]byte(stateMagic), uint64(len(header)))
		return append(append(out, header...), make([]byte, rest)...)
	}
	huge := binary.LittleEndian.AppendUint64([]byte(stateMagic), math.MaxUint64)
	for _, data := range [][]byte{whole, empty, huge, seal(`{"params":-1}`, 12),
		seal(`{"params":1537228672809129302}`, 8), seal(`null`, 0), seal(`{} {}`, 0), nil} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// A right checksum lets the input through to the rest of the parser.
		sum := sha256.Sum256(data)
		s, err := decodeState(append(slices.Clone(data), sum[:]...))
		if err != nil {
			return
		}
		if s.Params != len(s.params) || s.Params != len(s.m) || s.Params != len(s.v) {
			t.Errorf("%d parameters in lists of %d, %d and %d", s.Params, len(s.params), len(s.m), len(s.v))
		}
	})
}
