package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// stateMagic begins the file "state" of a checkpoint. It is followed, little-endian, by the length of the header
// (uint64), the header (JSON), the parameters and AdamW's two moments (float32, their number in the header), and the
// SHA-256 of all that.
const stateMagic = "veratune-state 1"

// position is how far a training has come.
type position struct {
	Step   int         `json:"step"`  // updates made
	Epoch  int         `json:"epoch"` // of the next step
	Batch  int         `json:"batch"` // micro-batch of that epoch with which the next step begins
	Seed   uint64      `json:"seed"`  // with step, the whole state of the dropout's generator
	Before *Evaluation `json:"before,omitempty"`
	Last   *Evaluation `json:"last,omitempty"`
	Best   *Evaluation `json:"best,omitempty"` // of all so far, that before the first step included
	// Of the scheduled evaluations, which do not depend on halts: what patience counts from.
	Lowest *Evaluation `json:"lowest,omitempty"`
	Waited int         `json:"waited,omitempty"` // scheduled evaluations since the lowest

	First float64 `json:"first,omitempty"` // training loss of the first step
	High  int     `json:"high,omitempty"`  // steps up to this one whose loss was high, in a row
	Good  int     `json:"good,omitempty"`  // step of the newest checkpoint before them; 0 where there is none
}

// upgrade fills in what states of older versions lack.
func (p *position) upgrade() {
	if p.Lowest == nil {
		p.Lowest = p.Best
	}
	if p.Before != nil && (p.Best == nil || p.Best.Loss >= p.Before.Loss) {
		p.Best = p.Before
	}
}

// state is all that a training goes on from.
type state struct {
	position
	Params        int    `json:"params"`         // number of parameters
	AdapterSHA256 string `json:"adapter_sha256"` // of the adapter file that lies beside

	params, m, v []float32
}

func (s *state) encode() ([]byte, error) {
	s.Params = len(s.params)
	header, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(stateMagic)+8+len(header)+12*len(s.params)+sha256.Size)
	out = append(out, stateMagic...)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(header)))
	out = append(out, header...)
	for _, list := range [][]float32{s.params, s.m, s.v} {
		for _, value := range list {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(value))
		}
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...), nil
}

// maxState is the most that the state of so many parameters can take.
func maxState(params int) int64 {
	const header = 1 << 20
	return 12*int64(params) + header
}

// maxAdapter is the most that the file of an adapter with so many parameters can take, with all that isn't trained.
func maxAdapter(params int) int64 { return maxState(params) + 1<<30 }

// decodeState reads what encode wrote. It fails on anything else.
func decodeState(data []byte) (*state, error) {
	const prefix = len(stateMagic) + 8
	if len(data) < prefix+sha256.Size || string(data[:len(stateMagic)]) != stateMagic {
		return nil, errors.New("no training state, or one of another version")
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, errors.New("the checksum is wrong")
	}
	rest := body[prefix:]
	length := binary.LittleEndian.Uint64(data[len(stateMagic):])
	if length > uint64(len(rest)) {
		return nil, errors.New("the header is longer than the file")
	}
	var s state
	decoder := json.NewDecoder(bytes.NewReader(rest[:length]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("header: something follows the JSON object")
	}
	rest = rest[length:]
	if s.Params < 0 || len(rest)%12 != 0 || s.Params != len(rest)/12 {
		return nil, fmt.Errorf("%d bytes cannot hold %d parameters with their moments", len(rest), s.Params)
	}
	for _, list := range []*[]float32{&s.params, &s.m, &s.v} {
		*list = make([]float32, s.Params)
		for i := range *list {
			(*list)[i] = math.Float32frombits(binary.LittleEndian.Uint32(rest[4*i:]))
		}
		rest = rest[4*s.Params:]
	}
	return &s, nil
}
