package vera

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nlpodyssey/safetensors"

	"github.com/veratune/veratune/internal/durable"
)

// The files of a PEFT folder.
const (
	peftConfigFile  = "adapter_config.json"
	peftWeightsFile = "adapter_model.safetensors"
	peftPickleFile  = "adapter_model.bin" // of older releases; never read
)

// peftVersion is the release of PEFT whose format SavePEFT writes.
const peftVersion = "0.21.2"

// native is what a native file says of an adapter and PEFT's configuration cannot. SavePEFT keeps it in the metadata of
// the weights' file, which PEFT passes over, so that the way back gives the same adapter.
type native struct {
	Config      Config            `json:"config"`
	BaseName    string            `json:"base_name"`
	Fingerprint string            `json:"base_fingerprint"`
	Facts       map[string]string `json:"facts"`
}

// nativeKey is where that is in the metadata, as JSON.
const nativeKey = "veratune"

// SavePEFT writes the adapter as a new folder that PEFT's PeftModel.from_pretrained loads: adapter_config.json and
// adapter_model.safetensors, rows in the order of Hugging Face's weights. With projection the file holds the shared
// pair, Rank·(MaxIn + MaxOut) numbers; without it PEFT draws the pair from the seed, and it is an error where that
// gives another one: a pair of another init, or one that came with a file. Nothing is written where dir is there and
// not empty.
func (a *Adapter) SavePEFT(dir string, projection bool) error {
	if err := a.savePEFT(dir, projection); err != nil {
		return fmt.Errorf("save adapter for PEFT: %w", err)
	}
	return nil
}

// PEFTFiles names the files of an adapter in PEFT's folder dir.
func PEFTFiles(dir string) []string {
	return []string{filepath.Join(dir, peftConfigFile), filepath.Join(dir, peftWeightsFile)}
}

func (a *Adapter) savePEFT(dir string, projection bool) error {
	if err := errors.Join(a.checkPEFT(projection), durable.CheckNewFolder(dir)); err != nil {
		return err
	}
	config, err := json.MarshalIndent(a.peftConfig(projection), "", "  ")
	if err != nil {
		return err
	}
	weights, err := a.peftWeights(projection)
	if err != nil {
		return err
	}
	return writeNewFolder(dir, map[string][]byte{peftConfigFile: append(config, '\n'), peftWeightsFile: weights})
}

func (a *Adapter) checkPEFT(projection bool) error {
	if _, err := a.Base.hf(); err != nil {
		return err
	}
	if a.Method == MethodVeRA && a.Pair == nil {
		return errors.New("PEFT has one pair for all layers, and this adapter one for each; export it as a LoRA")
	}
	if a.Method == MethodVeRA && !projection && a.Pair.origin != (origin{KaimingUniform, a.Seed}) {
		return fmt.Errorf("PEFT draws another shared pair from seed %d than this adapter's (%s, SHA-256 %s); write "+
			"it with the projections", a.Seed, a.Init, short(a.Pair.SHA256()))
	}
	return a.checkFinite()
}

// peftConfig has the keys that PEFT's VeraConfig has, or those of its LoraConfig that say what the adapter is.
func (a *Adapter) peftConfig(projection bool) map[string]any {
	base := a.Base.Name
	if name, ok := a.Facts[factPEFTBase]; ok {
		base = name
	}
	var layers any // null selects all
	if len(a.Config.Layers) > 0 {
		layers = a.Config.Layers
	}
	config := map[string]any{
		"auto_mapping":            nil,
		"base_model_name_or_path": base,
		"bias":                    "none",
		"fan_in_fan_out":          hfModels[a.Base.Architecture].transposed,
		"inference_mode":          true,
		"layers_pattern":          nil,
		"layers_to_transform":     layers,
		"modules_to_save":         nil,
		"peft_version":            peftVersion,
		"r":                       a.Rank,
		"revision":                nil,
		"target_modules":          a.peftTargets(),
		"task_type":               "CAUSAL_LM",
	}
	of := map[string]any{
		"peft_type":           peftVeRA,
		"d_initial":           a.DInitial,
		"init_weights":        true,
		"projection_prng_key": a.Seed,
		"save_projection":     projection,
		"vera_dropout":        a.Dropout,
	}
	if a.Method == MethodLoRA {
		of = map[string]any{
			"peft_type": peftLoRA, "init_lora_weights": true, "lora_alpha": a.Alpha, "lora_dropout": a.Dropout,
			"use_rslora":   a.RSLoRA,
			"rank_pattern": peftPattern(a, a.Ranks), "alpha_pattern": peftPattern(a, a.Alphas),
		}
	}
	maps.Copy(config, of)
	return config
}

// peftTargets names each kind of layer by its module ("q_proj") and single layers by their whole path. PEFT adapts a
// whole path whatever layers_to_transform says, so those of other blocks are left out.
func (a *Adapter) peftTargets() []string {
	var names []string
	h := hfModels[a.Base.Architecture]
	for _, target := range a.Targets {
		if _, ok := h.modules[target]; !ok {
			continue
		}
		if end := h.end(target, a.Targets...); !slices.Contains(names, end) {
			names = append(names, end)
		}
	}
	for _, l := range a.Layers {
		if slices.Contains(a.Targets, l.Name()) {
			names = append(names, a.Base.Module(l.Linear))
		}
	}
	return names
}

// peftPattern gives what is said of single layers by the ends of their modules' paths, and by the module alone where
// all adapted layers of a kind agree.
func peftPattern[T comparable](a *Adapter, of map[string]T) map[string]T {
	values, h := map[string]T{}, hfModels[a.Base.Architecture]
	for _, target := range Targets {
		layers := slices.DeleteFunc(slices.Clone(a.Layers), func(l Layer) bool { return l.Target != target })
		agree := len(layers) > 0
		for _, l := range layers {
			value, found := of[l.Name()]
			agree = agree && found && value == of[layers[0].Name()]
		}
		for _, l := range layers {
			if value, found := of[l.Name()]; agree {
				values[h.end(target)] = value
			} else if found {
				_, path, _ := strings.Cut(h.path(l.Linear), ".")
				values[path] = value
			}
		}
	}
	return values
}

// peftWeights gives the content of the safetensors file.
func (a *Adapter) peftWeights(projection bool) ([]byte, error) {
	tensors := map[string]safetensors.TensorView{}
	var failed error
	add := func(name string, values []float32, shape ...int) {
		sizes := make([]uint64, len(shape))
		for i, n := range shape {
			sizes[i] = uint64(n)
		}
		view, err := safetensors.NewTensorView(safetensors.F32, sizes,
			appendFloats(make([]byte, 0, 4*len(values)), values))
		failed = errors.Join(failed, err)
		tensors[name] = view
	}
	for _, l := range a.Layers {
		rows, columns := a.Base.Orders(l.Target)
		name := peftPrefix + a.Base.Module(l.Linear)
		if a.Method == MethodLoRA {
			var down []float32
			for r := range l.Rank() {
				down = append(down, HFRows(l.Pair.A[r*l.In:][:l.In], l.In, columns)...)
			}
			add(name+peftLoRAA, down, l.Rank(), l.In)
			add(name+peftLoRAB, HFRows(l.Pair.B, l.Out, rows), l.Out, l.Rank())
			continue
		}
		add(name+peftB, HFRows(l.LambdaB, l.Out, rows), l.Out)
		add(name+peftD, l.LambdaD, a.Rank)
	}
	if projection && a.Pair != nil {
		add(peftPairA, a.Pair.A, a.Rank, a.MaxIn)
		add(peftPairB, a.Pair.B, a.MaxOut, a.Rank)
	}
	stored, err := json.Marshal(native{a.Config, a.Base.Name, a.Base.Fingerprint, withoutFolders(maps.Clone(a.Facts))})
	if failed = errors.Join(failed, err); failed != nil {
		return nil, failed
	}
	return safetensors.Serialize(tensors, map[string]string{"format": "pt", nativeKey: string(stored)})
}

// writeNewFolder writes files into a new folder, all or none: they are written and synced in a folder beside it, which
// is renamed at the end.
func writeNewFolder(dir string, files map[string][]byte) error {
	place, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	parent := filepath.Dir(place)
	folder, err := durable.Draft(place)
	if err != nil {
		return err
	}
	defer folder.Close()
	draft := folder.Name()
	defer os.RemoveAll(draft)
	if err := os.Chmod(draft, 0o755); err != nil {
		return err
	}
	for name, data := range files {
		if err := durable.WriteFile(filepath.Join(draft, name), data, 0o644); err != nil {
			return err
		}
	}
	if err := durable.SyncFolder(draft); err != nil {
		return err
	}
	// This removes an empty folder only: what someone has put there meanwhile stays.
	if err := durable.RemoveFolder(place); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return errors.Join(durable.Rename(draft, place), durable.SyncFolder(parent))
}
