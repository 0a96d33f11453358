package vera

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nlpodyssey/safetensors"

	"github.com/veratune/veratune/bindings"
)

// Summary is what an adapter says of itself, without its base model.
type Summary struct {
	Method  string            `json:"method"` // "vera" or "lora"
	Format  string            `json:"format"` // "native", "PEFT" or "llama.cpp"
	Rank    int               `json:"rank"`   // the largest, where those of a LoRA differ
	Targets []string          `json:"targets"`
	Trained int               `json:"trained"` // numbers
	Bytes   int64             `json:"bytes"`   // of the file
	Types   map[string]int64  `json:"types"`   // bytes of the tensors of each type
	Base    string            `json:"base"`    // name of the model it was trained on
	Facts   map[string]string `json:"facts"`
	Layers  []LayerNorms      `json:"layers"` // by block

	// VeRA only.
	Seed     string  `json:"seed,omitempty"`
	Init     Init    `json:"init,omitempty"`
	DInitial float32 `json:"d_initial,omitempty"`
	Dropout  float32 `json:"dropout,omitempty"`
	Pair     bool    `json:"pair,omitempty"` // the file holds the shared pair itself

	only string // the vector that alone was trained, "" for all

	// LoRA only: ΔW = alpha/rank · lora_b · lora_a.
	Alpha  float32   `json:"alpha,omitempty"`
	Ranks  []int     `json:"ranks,omitempty"`  // all that layers have, where they differ
	Alphas []float32 `json:"alphas,omitempty"` // other alphas that layers have
	RSLoRA bool      `json:"rslora,omitempty"` // alpha/√rank
}

// LayerNorms are the L2 norms of what was trained of a layer: "b" and "d", or "lora_a" and "lora_b" (Frobenius).
type LayerNorms struct {
	Name   string             `json:"name"`   // as in the file: "blk.0.attn_q", or "model.layers.0.self_attn.q_proj"
	Block  int                `json:"block"`  // -1 outside the blocks
	Target string             `json:"target"` // "attn_q"; the name where it is none of Targets
	Norms  map[string]float64 `json:"norms"`
}

// Summarize reads an adapter, whatever model it belongs to: a native file, a folder of PEFT's VeRA or LoRA, or a LoRA
// of llama.cpp.
func Summarize(path string) (Summary, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{Types: map[string]int64{}, Facts: map[string]string{}}
	if info.IsDir() {
		err = s.readPEFT(path)
	} else {
		s.Bytes = info.Size()
		err = s.readGGUF(path, s.readNative, s.readLoRA)
	}
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		return Summary{}, fmt.Errorf("adapter %s: %w", path, err)
	}
	return s, nil
}

// FileFacts gives what the metadata of a GGUF file, be it an adapter or a model, say under "veratune.", keyed without
// that.
func FileFacts(path string) (map[string]string, error) {
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	facts := map[string]string{}
	for _, key := range g.Keys() {
		if fact, ok := strings.CutPrefix(key, factPrefix); ok {
			facts[fact] = fmt.Sprint(g.Value(key))
		}
	}
	return facts, nil
}

// readGGUF reads what files of both methods have, and the rest by their functions.
func (s *Summary) readGGUF(path string, native, lora func(*bindings.GGUF, *metadata) error) error {
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		return err
	}
	defer g.Close()
	m := metadata{g: g}
	s.Base, s.Facts = m.optional(keyBaseName), m.facts()
	switch s.Method = m.optional("adapter.type"); s.Method {
	case "vera":
		return native(g, &m)
	case "lora", typeScaledLoRA:
		return lora(g, &m)
	}
	return fmt.Errorf("adapter.type is %q; only \"vera\" and \"lora\" can be read", s.Method)
}

// describeNative reads the configuration.
func (s *Summary) describeNative(_ *bindings.GGUF, m *metadata) error {
	c := m.config()
	s.Format, s.Rank, s.Targets, s.Seed, s.Init, s.DInitial, s.Dropout = "native", c.Rank, c.Targets,
		fmt.Sprint(c.Seed), c.Init, c.DInitial, c.Dropout
	s.only = c.Only
	return m.err
}

func (s *Summary) readNative(g *bindings.GGUF, m *metadata) error {
	if err := s.describeNative(g, m); err != nil {
		return err
	}
	for _, t := range g.Tensors() {
		if t.Name == tensorA || t.Name == tensorB {
			s.Pair = true
			s.Types[t.Type.String()] += t.Size
			continue
		}
		values := make([]float32, t.Size/4)
		if err := readFloats(g, t.Name, values, t.Shape...); err != nil {
			return err
		}
		s.add(t.Name, map[string]string{".weight.vera_b": "b", ".weight.vera_d": "d"}, t.Type, values)
	}
	return nil
}

// readLoRA reads llama.cpp's format: lora_a is [in, rank] and lora_b [rank, out], in ggml's order.
func (s *Summary) readLoRA(g *bindings.GGUF, m *metadata) error {
	s.Format = "llama.cpp"
	if s.Method == typeScaledLoRA {
		s.Method, s.Format = "lora", "native"
	}
	s.Alpha = get[float32](m, keyAlpha, "a float32")
	s.RSLoRA, _ = g.Value(keyLoRARS).(bool)
	if m.err != nil {
		return m.err
	}
	alphas, _ := g.Value(keyLoRAAlphas).([]float32)
	s.otherAlphas(alphas)
	for _, t := range g.Tensors() {
		n := int64(1)
		for _, size := range t.Shape {
			n *= size
		}
		values := make([]float32, n)
		if err := bindings.Dequantize(t.Type, g.Data(t), values); err != nil {
			return fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		if err := checkFinite(t.Name, values); err != nil {
			return err
		}
		s.add(t.Name, map[string]string{endLoRAA: "lora_a", endLoRAB: "lora_b"}, t.Type, values)
		if strings.HasSuffix(t.Name, ".lora_b") {
			s.Ranks = append(s.Ranks, int(t.Shape[0]))
		}
	}
	for _, l := range s.Layers {
		if !slices.Contains(s.Targets, l.Target) {
			s.Targets = append(s.Targets, l.Target)
		}
	}
	return nil
}

// otherAlphas keeps those that are not Alpha.
func (s *Summary) otherAlphas(alphas []float32) {
	slices.Sort(alphas)
	s.Alphas = slices.DeleteFunc(slices.Compact(alphas), func(alpha float32) bool { return alpha == s.Alpha })
}

func (s *Summary) readPEFT(dir string) error {
	p, err := readPEFTConfig(filepath.Join(dir, peftConfigFile))
	if err != nil {
		return err
	}
	if p.Type != peftVeRA && p.Type != peftLoRA {
		return fmt.Errorf("peft_type is %q; only %q and %q can be read", p.Type, peftVeRA, peftLoRA)
	}
	file, err := readPEFTFile(dir)
	if err != nil {
		return err
	}
	_, stored, err := readHeader(file)
	if err != nil {
		return err
	}
	tensors, err := safetensors.Deserialize(file)
	if err != nil {
		return fmt.Errorf("not a whole safetensors file: %w", err)
	}
	s.Format, s.Targets, s.Base, s.Bytes = "PEFT", p.Targets.names, p.BaseModel, int64(len(file))
	if p.Targets.pattern != "" {
		s.Targets = []string{p.Targets.pattern}
	}
	if stored != nil {
		s.Base = stored.BaseName
		maps.Copy(s.Facts, stored.Facts)
	}
	if p.Type == peftLoRA {
		return s.readPEFTLoRA(p, tensors)
	}
	s.Method, s.Rank, s.Seed, s.Init, s.DInitial, s.Dropout = "vera", p.Rank, p.Key.String(), KaimingUniform,
		p.DInitial, p.Dropout
	if stored != nil {
		s.Init, s.only = stored.Config.Init, stored.Config.Only
	}
	for _, name := range tensors.Names() {
		t, _ := tensors.Tensor(name)
		if name == peftPairA || name == peftPairB {
			s.Pair = true
			s.Types[safetensorTypes[t.DType()].String()] += int64(t.DataLen())
			continue
		}
		if len(t.Shape()) != 1 {
			return fmt.Errorf("tensor %s has shape %v; a vector is expected", name, t.Shape())
		}
		values := make([]float32, t.Shape()[0])
		if err := readSafetensor(tensors, name, values, len(values)); err != nil {
			return err
		}
		s.add(strings.TrimPrefix(name, peftPrefix), map[string]string{peftB: "b", peftD: "d"},
			safetensorTypes[t.DType()], values)
	}
	return nil
}

// readPEFTLoRA reads PEFT's form: lora_A is rank × in and lora_B out × rank.
func (s *Summary) readPEFTLoRA(p *peftConfig, tensors safetensors.SafeTensors) error {
	if err := p.checkLoRA(); err != nil {
		return err
	}
	s.Method, s.Alpha, s.RSLoRA, s.Dropout = "lora", p.Alpha, p.RSLoRA, p.LoRADropout
	var alphas []float32
	for _, entry := range p.Alphas {
		alphas = append(alphas, entry.value)
	}
	s.otherAlphas(alphas)
	for _, name := range tensors.Names() {
		t, _ := tensors.Tensor(name)
		m := loraTensor.FindStringSubmatch(name)
		if m == nil || len(t.Shape()) != 2 {
			return fmt.Errorf("tensor %s of shape %v: neither lora_A nor lora_B of a linear layer", name, t.Shape())
		}
		rows, width := int(t.Shape()[0]), int(t.Shape()[1])
		values := make([]float32, t.DataLen()/leastBytes)[:rows*width]
		if err := readSafetensor(tensors, name, values, rows, width); err != nil {
			return err
		}
		if m[2] == "A" {
			s.Ranks = append(s.Ranks, rows)
		}
		s.add(m[1]+".lora_"+m[2], map[string]string{".lora_A": "lora_a", ".lora_B": "lora_b"},
			safetensorTypes[t.DType()], values)
	}
	return nil
}

// add takes a tensor in; the end of its name says which of a layer's it is.
func (s *Summary) add(tensor string, ends map[string]string, kind bindings.Type, values []float32) {
	name, part := tensor, ""
	for end, p := range ends {
		if stem, ok := strings.CutSuffix(tensor, end); ok {
			name, part = stem, p
		}
	}
	i := slices.IndexFunc(s.Layers, func(l LayerNorms) bool { return l.Name == name })
	if i < 0 {
		i = len(s.Layers)
		block, target := place(name)
		s.Layers = append(s.Layers, LayerNorms{Name: name, Block: block, Target: target, Norms: map[string]float64{}})
	}
	s.Layers[i].Norms[part] = norm(values)
	if s.only == "" || s.only == part {
		s.Trained += len(values)
	}
	s.Types[kind.String()] += kind.RowBytes(int64(len(values)))
}

var inBlock = regexp.MustCompile(`^(.+?)\.(\d{1,6})\.(.+)$`)

// place takes a layer's name apart, in GGUF's form or Hugging Face's. Paths within a block mean the same in all
// architectures.
func place(name string) (block int, target string) {
	m := inBlock.FindStringSubmatch(name)
	if m == nil {
		return -1, name
	}
	known := m[1] == "blk" || slices.Contains(withImages, m[1])
	target = m[3]
	for _, h := range hfModels {
		known = known || m[1] == h.blocks
		for kind, module := range h.modules {
			if module == m[3] {
				target = kind
			}
		}
	}
	if !known {
		return -1, name
	}
	block, _ = strconv.Atoi(m[2])
	return block, target
}

// finish checks that every layer is whole, and orders them: PEFT's files are in the order of the names as text.
func (s *Summary) finish() error {
	if len(s.Layers) == 0 {
		return errors.New("no layer is adapted")
	}
	parts := []string{"b", "d"}
	if s.Method == "lora" {
		parts = []string{"lora_a", "lora_b"}
	}
	for _, l := range s.Layers {
		for _, part := range parts {
			if _, ok := l.Norms[part]; !ok || len(l.Norms) != len(parts) {
				return fmt.Errorf("layer %s: its tensors are not a %s and a %s", l.Name, parts[0], parts[1])
			}
		}
	}
	if len(s.Ranks) > 0 {
		s.Rank = slices.Max(s.Ranks)
		slices.Sort(s.Ranks)
	}
	if s.Ranks = slices.Compact(s.Ranks); len(s.Ranks) == 1 {
		s.Ranks = nil
	}
	order := append(slices.Clone(Targets), "")
	rank := func(target string) int {
		return slices.IndexFunc(order, func(known string) bool { return known == target || known == "" })
	}
	slices.SortStableFunc(s.Layers, func(x, y LayerNorms) int {
		if x.Block != y.Block {
			return x.Block - y.Block
		}
		return rank(x.Target) - rank(y.Target)
	})
	return nil
}

func norm(values []float32) float64 {
	sum := 0.0
	for _, v := range values {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum)
}
