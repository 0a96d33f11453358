package mpi

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Sum replaces values and scalars, as many on every rank, by their sums over all ranks. Each number is added up once,
// in float64 and in the order of ranks, so that all ranks get the same bits, and as many ranks always the same.
//
// It is a reduction by parts: every rank gets one part of the values from all others, adds it up, and gives the sums to
// all. A rank sends and receives about twice the values' size, however many ranks there are. The scalars go with every
// part.
func (w *World) Sum(values []float32, scalars []float64) error {
	if w.size == 1 {
		return nil
	}
	part := (len(values) + w.size - 1) / w.size
	message := 4*part + 8*len(scalars)
	if int64(message) > math.MaxInt32 {
		return fmt.Errorf("sum of %d numbers: too many for one message", len(values))
	}
	send, received := make([]byte, w.size*message), make([]byte, w.size*message)
	for r := range w.size {
		to := send[r*message:]
		for i, v := range values[min(r*part, len(values)):min((r+1)*part, len(values))] {
			binary.LittleEndian.PutUint32(to[4*i:], math.Float32bits(v))
		}
		for i, v := range scalars {
			binary.LittleEndian.PutUint64(to[4*part+8*i:], math.Float64bits(v))
		}
	}
	if err := w.do("MPI_Alltoall", func() int32 {
		return w.lib.allToAll(pointer(send), int32(message), w.lib.bytes, pointer(received), int32(message),
			w.lib.bytes, w.lib.world)
	}); err != nil {
		return err
	}
	sums := make([]float64, part)
	clear(scalars)
	for r := range w.size {
		from := received[r*message:]
		for i := range sums {
			sums[i] += float64(math.Float32frombits(binary.LittleEndian.Uint32(from[4*i:])))
		}
		for i := range scalars {
			scalars[i] += math.Float64frombits(binary.LittleEndian.Uint64(from[4*part+8*i:]))
		}
	}
	if part == 0 {
		return nil
	}
	for i, s := range sums {
		binary.LittleEndian.PutUint32(send[4*i:], math.Float32bits(float32(s)))
	}
	all := received[:w.size*4*part]
	if err := w.gather(send[:4*part], all); err != nil {
		return err
	}
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(all[4*i:]))
	}
	return nil
}

// gather puts the bytes of all ranks, as many of each, one after the other.
func (w *World) gather(own, all []byte) error {
	return w.do("MPI_Allgather", func() int32 {
		return w.lib.allGather(pointer(own), int32(len(own)), w.lib.bytes, pointer(all), int32(len(own)), w.lib.bytes,
			w.lib.world)
	})
}

// Broadcast gives every rank the data of rank 0; what the others pass is not looked at.
func (w *World) Broadcast(data []byte) ([]byte, error) {
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	if err := w.broadcast(length); err != nil {
		return nil, err
	}
	if w.rank != 0 {
		data = make([]byte, binary.LittleEndian.Uint64(length))
	}
	const most = 1 << 30 // counts are 32 bits
	for at := 0; at < len(data); at += most {
		if err := w.broadcast(data[at:min(at+most, len(data))]); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (w *World) broadcast(data []byte) error {
	return w.do("MPI_Bcast", func() int32 {
		return w.lib.broadcast(pointer(data), int32(len(data)), w.lib.bytes, 0, w.lib.world)
	})
}
