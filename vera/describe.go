package vera

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/durable"
)

// Describe is Summarize without the numbers, so that it takes no time: it reads the heads of files alone, and leaves
// Trained, Types and Layers out.
func Describe(path string) (Summary, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{Bytes: info.Size(), Facts: map[string]string{}}
	if info.IsDir() {
		err = s.describePEFT(path)
	} else {
		err = s.readGGUF(path, s.describeNative, s.describeLoRA)
	}
	if err != nil {
		return Summary{}, fmt.Errorf("adapter %s: %w", path, err)
	}
	return s, nil
}

// describeLoRA tells rank and targets by the tensors' shapes and names.
func (s *Summary) describeLoRA(g *bindings.GGUF, m *metadata) error {
	s.Method, s.Format = "lora", "llama.cpp"
	s.Alpha = get[float32](m, keyAlpha, "a float32")
	for _, t := range g.Tensors() {
		layer, isA := strings.CutSuffix(t.Name, endLoRAA)
		if _, target := place(layer); isA && !slices.Contains(s.Targets, target) {
			s.Targets = append(s.Targets, target)
		}
		if isA && len(t.Shape) > 1 {
			s.Rank = max(s.Rank, int(t.Shape[1]))
		}
	}
	return m.err
}

func (s *Summary) describePEFT(dir string) error {
	p, err := readPEFTConfig(filepath.Join(dir, peftConfigFile))
	if err != nil {
		return err
	}
	method, known := map[string]Method{peftVeRA: MethodVeRA, peftLoRA: MethodLoRA}[p.Type]
	if !known {
		return fmt.Errorf("peft_type is %q; only %q and %q can be read", p.Type, peftVeRA, peftLoRA)
	}
	s.Method, s.Format, s.Rank, s.Targets, s.Base = string(method), "PEFT", p.Rank, p.Targets.names, p.BaseModel
	if p.Targets.pattern != "" {
		s.Targets = []string{p.Targets.pattern}
	}
	var header struct {
		Metadata map[string]string `json:"__metadata__"`
	}
	raw, err := readPEFTHeader(dir)
	if err == nil {
		err = json.Unmarshal(raw, &header)
	}
	if text, kept := header.Metadata[nativeKey]; err == nil && kept {
		var stored native
		err = json.Unmarshal([]byte(text), &stored)
		s.Base = stored.BaseName
		maps.Copy(s.Facts, stored.Facts)
	}
	return err
}

// maxPEFTHeader is above the header of any model: a hundred bytes for each tensor.
const maxPEFTHeader = 16 << 20

// readPEFTHeader reads the JSON before the numbers in a folder's tensors.
func readPEFTHeader(dir string) ([]byte, error) {
	path := filepath.Join(dir, peftWeightsFile)
	if err := checkSafetensors(path); err != nil {
		return nil, err
	}
	file, _, err := durable.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var size [8]byte
	if _, err := io.ReadFull(file, size[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(size[:])
	if n > maxPEFTHeader {
		return nil, fmt.Errorf("%s: not a whole safetensors file", path)
	}
	header := make([]byte, n)
	_, err = io.ReadFull(file, header)
	return header, err
}
