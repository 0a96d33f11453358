package vera

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/nlpodyssey/safetensors"

	"github.com/veratune/veratune/bindings"
)

// Summary is what an adapter says of itself, without its base model.
type Summary struct {
	Format   string            `json:"format"` // "native" or "PEFT"
	Rank     int               `json:"rank"`
	Targets  []string          `json:"targets"`
	Seed     string            `json:"seed"`
	Init     Init              `json:"init"`
	DInitial float32           `json:"d_initial"`
	Dropout  float32           `json:"dropout"`
	Trained  int               `json:"trained"` // numbers
	Bytes    int64             `json:"bytes"`   // of the file
	Base     string            `json:"base"`    // name of the model it was trained on
	Pair     bool              `json:"pair"`    // whether the file holds the shared pair itself
	Facts    map[string]string `json:"facts"`
	Layers   []LayerNorms      `json:"layers"`
}

// LayerNorms are the L2 norms of an adapted layer's vectors.
type LayerNorms struct {
	Name string  `json:"name"` // as in the file: "blk.0.attn_q", or "model.layers.0.self_attn.q_proj"
	B    float64 `json:"b"`
	D    float64 `json:"d"`
}

// Summarize reads a native adapter file or a folder of PEFT, whatever model it belongs to.
func Summarize(path string) (Summary, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Summary{}, err
	}
	summarize := summarizeNative
	if info.IsDir() {
		summarize = summarizePEFT
	}
	s, err := summarize(path)
	if err != nil {
		return Summary{}, fmt.Errorf("adapter %s: %w", path, err)
	}
	return s, nil
}

func summarizeNative(path string) (Summary, error) {
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		return Summary{}, err
	}
	defer g.Close()
	m := metadata{g: g}
	if kind := m.optional("adapter.type"); kind != "vera" {
		return Summary{}, fmt.Errorf("adapter.type is %q; only \"vera\" can be read", kind)
	}
	c := m.config()
	s := Summary{Format: "native", Rank: c.Rank, Targets: c.Targets, Seed: fmt.Sprint(c.Seed), Init: c.Init, DInitial: c.DInitial, Dropout: c.Dropout,
		Base: m.optional(keyBaseName), Facts: m.facts()}
	if m.err != nil {
		return s, m.err
	}
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	s.Bytes = info.Size()
	for _, t := range g.Tensors() {
		if t.Name == tensorA || t.Name == tensorB {
			s.Pair = true
			continue
		}
		values := make([]float32, t.Size/4)
		if err := readFloats(g, t.Name, values, t.Shape...); err != nil {
			return s, err
		}
		s.add(t.Name, ".weight.vera_b", ".weight.vera_d", values)
	}
	return s, nil
}

func summarizePEFT(dir string) (Summary, error) {
	p, err := readPEFTConfig(filepath.Join(dir, "adapter_config.json"))
	if err != nil {
		return Summary{}, err
	}
	if p.Type != "VERA" {
		return Summary{}, fmt.Errorf("peft_type is %q; only \"VERA\" can be read", p.Type)
	}
	file, err := os.ReadFile(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		return Summary{}, err
	}
	tensors, err := safetensors.Deserialize(file)
	if err != nil {
		return Summary{}, fmt.Errorf("not a whole safetensors file: %w", err)
	}
	s := Summary{Format: "PEFT", Rank: p.Rank, Targets: p.Targets.names, Seed: p.Key.String(), Init: KaimingUniform,
		DInitial: p.DInitial, Dropout: p.Dropout, Base: p.BaseModel, Bytes: int64(len(file)), Facts: map[string]string{}}
	if p.Targets.pattern != "" {
		s.Targets = []string{p.Targets.pattern}
	}
	for _, name := range tensors.Names() {
		if name == peftPairA || name == peftPairB {
			s.Pair = true
			continue
		}
		t, _ := tensors.Tensor(name)
		if len(t.Shape()) != 1 {
			return s, fmt.Errorf("tensor %s has shape %v; a vector is expected", name, t.Shape())
		}
		values := make([]float32, t.Shape()[0])
		if err := readSafetensor(tensors, name, values, len(values)); err != nil {
			return s, err
		}
		s.add(strings.TrimPrefix(name, peftPrefix), peftB, peftD, values)
	}
	if len(s.Layers) == 0 {
		return s, errors.New("no layer is adapted")
	}
	return s, nil
}

// add counts a vector; its layer's two come in any order.
func (s *Summary) add(tensor, endB, endD string, values []float32) {
	s.Trained += len(values)
	name, isB := strings.CutSuffix(tensor, endB)
	if !isB {
		name = strings.TrimSuffix(tensor, endD)
	}
	if n := len(s.Layers); n == 0 || s.Layers[n-1].Name != name {
		s.Layers = append(s.Layers, LayerNorms{Name: name})
	}
	last := &s.Layers[len(s.Layers)-1]
	if isB {
		last.B = norm(values)
	} else {
		last.D = norm(values)
	}
}

func norm(values []float32) float64 {
	sum := 0.0
	for _, v := range values {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum)
}
