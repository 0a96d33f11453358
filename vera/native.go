package vera

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// Keys and tensors of a native adapter file.
const (
	keyRank        = "adapter.vera.rank"
	keyTargets     = "adapter.vera.targets"
	keyLayers      = "adapter.vera.layers" // absent: all
	keySeed        = "adapter.vera.seed"
	keyInit        = "adapter.vera.init"
	keyDInitial    = "adapter.vera.d_initial"
	keyDropout     = "adapter.vera.dropout"
	keyMaxIn       = "adapter.vera.max_in"
	keyMaxOut      = "adapter.vera.max_out"
	keyPair        = "adapter.vera.pair_sha256"
	keyOnly        = "adapter.vera.only"         // absent: both vectors are trained
	keyUnique      = "adapter.vera.unique_pairs" // absent: the pair is shared
	keyBaseName    = "adapter.vera.base_name"
	keyFingerprint = "adapter.vera.base_fingerprint"
	factPrefix     = "veratune."

	// The pair itself is in the file only where the seed does not give it.
	tensorA = "vera_a" // [max_in, rank] in ggml's order
	tensorB = "vera_b" // [rank, max_out]
)

// Save writes the adapter as a GGUF file, the same bytes for the same adapter: the native form of VeRA, llama.cpp's
// form of a LoRA. It fails, and leaves what was at path, where a trained value is NaN or infinite or the file cannot be
// written.
func (a *Adapter) Save(path string) error { return a.SaveOutput(path, true) }

// SaveOutput is Save, but fails where something stands at path, unless overwrite is set.
func (a *Adapter) SaveOutput(path string, overwrite bool) error {
	w := bindings.NewGGUFWriter()
	defer w.Close()
	if err := a.write(w); err != nil {
		return fmt.Errorf("save adapter: %w", err)
	}
	if err := w.WriteOutput(path, overwrite); err != nil {
		return fmt.Errorf("save adapter: %w", err)
	}
	return nil
}

func (a *Adapter) write(w *bindings.GGUFWriter) error {
	if err := a.checkFinite(); err != nil {
		return err
	}
	if a.Method == MethodLoRA {
		return a.writeLoRA(w)
	}
	entries := []entry{
		{"general.type", "adapter"},
		{"general.architecture", a.Base.Architecture},
		{"adapter.type", "vera"},
		{keyRank, uint32(a.Rank)},
		{keyTargets, a.Targets},
		{keySeed, a.Seed},
		{keyInit, string(a.Init)},
		{keyDInitial, a.DInitial},
		{keyDropout, a.Dropout},
		{keyMaxIn, uint32(a.MaxIn)},
		{keyMaxOut, uint32(a.MaxOut)},
		{keyPair, a.pairDigest()},
	}
	if len(a.Config.Layers) > 0 {
		layers := make([]uint32, len(a.Config.Layers))
		for i, layer := range a.Config.Layers {
			layers[i] = uint32(layer)
		}
		entries = append(entries, entry{keyLayers, layers})
	}
	if a.Only != "" {
		entries = append(entries, entry{keyOnly, a.Only})
	}
	if a.UniquePairs {
		entries = append(entries, entry{keyUnique, true})
	}
	if err := setAll(w, append(entries, a.origins(factPrefix+factChatTemplate)...)); err != nil {
		return err
	}
	for name, values := range a.tensors {
		if err := addFloats(w, name, values, int64(len(values))); err != nil {
			return err
		}
	}
	if a.Pair == nil || a.Pair.origin == (origin{a.Init, a.Seed}) {
		return nil
	}
	return errors.Join(
		addFloats(w, tensorA, a.Pair.A, int64(a.MaxIn), int64(a.Rank)),
		addFloats(w, tensorB, a.Pair.B, int64(a.Rank), int64(a.MaxOut)))
}

// entry is a metadata value of a file.
type entry struct {
	key   string
	value any
}

func setAll(w *bindings.GGUFWriter, entries []entry) error {
	for _, e := range entries {
		if err := w.Set(e.key, e.value); err != nil {
			return err
		}
	}
	return nil
}

// origins say what model the adapter belongs to and what is known of its training; template is the key of the chat
// template.
func (a *Adapter) origins(template string) []entry {
	return append([]entry{{keyBaseName, a.Base.Name}, {keyFingerprint, a.Base.Fingerprint}}, a.facts(template)...)
}

// facts are what is known of the training, in the order of their keys; the chat template has a key of its own.
func (a *Adapter) facts(template string) (entries []entry) {
	for _, key := range slices.Sorted(maps.Keys(a.Facts)) {
		switch key {
		case factChatTemplate:
			entries = append(entries, entry{template, a.Facts[key]})
		case factData:
			entries = append(entries, entry{factPrefix + key, strings.Join(dataNames(a.Facts), ", ")})
		default:
			entries = append(entries, entry{factPrefix + key, a.Facts[key]})
		}
	}
	return entries
}

func addFloats(w *bindings.GGUFWriter, name string, values []float32, shape ...int64) error {
	return w.AddTensor(name, bindings.F32, shape, appendFloats(nil, values))
}

// LoadOption changes what Load accepts.
type LoadOption int

// AnyBase lets Load take an adapter of another base model where its shapes fit. The fact "trained_on" then names the
// model it was trained on.
const AnyBase LoadOption = 1

// factTrainedOn is the base model of an adapter that was loaded for another.
const factTrainedOn = "trained_on"

// Load reads an adapter of that base model: a native file, or a folder that PEFT or SavePEFT wrote (adapter_config.json
// and adapter_model.safetensors). It fails where the file is broken or changed, or belongs to another model.
func Load(path string, base Base, options ...LoadOption) (*Adapter, error) {
	anyBase := slices.Contains(options, AnyBase)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	if info.IsDir() {
		return loadPEFT(path, base, anyBase)
	}
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	defer g.Close()
	a, err := readGGUF(g, base, anyBase)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", path, err)
	}
	return a, nil
}

func readGGUF(g *bindings.GGUF, base Base, anyBase bool) (*Adapter, error) {
	m := metadata{g: g}
	if m.optional("general.type") != "adapter" {
		return nil, errors.New("this GGUF file is no adapter; an adapter has general.type \"adapter\"")
	}
	switch kind := m.optional("adapter.type"); kind {
	case "vera":
		return readNative(g, base, anyBase)
	case "lora", typeScaledLoRA:
		return readLoRA(g, base, anyBase)
	default:
		return nil, fmt.Errorf("adapter.type is %q; only \"vera\" and \"lora\" can be read", kind)
	}
}

func readNative(g *bindings.GGUF, base Base, anyBase bool) (*Adapter, error) {
	m := metadata{g: g}
	architecture, name, fingerprint, facts := m.text("general.architecture"), m.text(keyBaseName),
		m.text(keyFingerprint), m.facts()
	if m.err != nil {
		return nil, m.err
	}
	if err := checkBase(architecture, name, fingerprint, base, anyBase, facts); err != nil {
		return nil, err
	}
	c := m.config()
	maxIn, maxOut, digest := m.uint32(keyMaxIn), m.uint32(keyMaxOut), m.text(keyPair)
	if m.err != nil {
		return nil, m.err
	}
	a, err := layout(c, base, valuesIn(g))
	if err != nil {
		return nil, err
	}
	a.Facts = facts
	if a.MaxIn != int(maxIn) || a.MaxOut != int(maxOut) {
		return nil, fmt.Errorf("%s and %s are %d and %d; the adapted layers of this model give %d and %d", keyMaxIn,
			keyMaxOut, maxIn, maxOut, a.MaxIn, a.MaxOut)
	}
	if err := a.readTensors(g); err != nil {
		return nil, err
	}
	if got := a.pairDigest(); got != digest {
		return nil, fmt.Errorf("the random pair of rank %d, seed %d and init %s has SHA-256 %s, and the adapter was "+
			"trained with %s: its rank, seed or init was changed",
			a.Rank, a.Seed, a.Init, short(got), short(digest))
	}
	return a, nil
}

// checkBase fails where an adapter's file names another model than base, unless anyBase; then it notes the other model
// among the facts.
func checkBase(architecture, name, fingerprint string, base Base, anyBase bool, facts map[string]string) error {
	switch {
	case architecture == base.Architecture && fingerprint == base.Fingerprint:
	case !anyBase:
		return fmt.Errorf("the adapter was trained on %q (%s, fingerprint %s), the model here is %q (%s, fingerprint "+
			"%s); use it with the GGUF file it was trained on, or take it all the same with --force",
			name, architecture, short(fingerprint), base.Name, base.Architecture, short(base.Fingerprint))
	case facts[factTrainedOn] == "":
		facts[factTrainedOn] = fmt.Sprintf("%s (%s, fingerprint %s)", name, architecture, short(fingerprint))
	}
	return nil
}

// readTensors fills the vectors and the pair, which is drawn anew where the file holds none.
func (a *Adapter) readTensors(g *bindings.GGUF) error {
	known := map[string]bool{}
	for name, values := range a.tensors {
		if err := readFloats(g, name, values, int64(len(values))); err != nil {
			return err
		}
		known[name] = true
	}
	_, hasA := g.Tensor(tensorA)
	_, hasB := g.Tensor(tensorB)
	if hasA || hasB {
		if n := a.Rank * (a.MaxIn + a.MaxOut); n > valuesIn(g) {
			return fmt.Errorf("%s and %s of rank %d have %d values, the file has no more than %d", tensorA, tensorB,
				a.Rank, n, valuesIn(g))
		}
		a.share(&Pair{Rank: a.Rank, MaxIn: a.MaxIn, MaxOut: a.MaxOut, A: make([]float32, a.Rank*a.MaxIn),
			B: make([]float32, a.MaxOut*a.Rank)})
		if err := readFloats(g, tensorA, a.Pair.A, int64(a.MaxIn), int64(a.Rank)); err != nil {
			return err
		}
		if err := readFloats(g, tensorB, a.Pair.B, int64(a.Rank), int64(a.MaxOut)); err != nil {
			return err
		}
		known[tensorA], known[tensorB] = true, true
	}
	for _, t := range g.Tensors() {
		if !known[t.Name] {
			return fmt.Errorf("tensor %s belongs to no layer that %s and %s select", t.Name, keyTargets, keyLayers)
		}
	}
	if a.Pair == nil {
		a.drawPairs()
	}
	return nil
}

// valuesIn is the number of values in a file's tensors.
func valuesIn(g *bindings.GGUF) int {
	n := 0
	for _, t := range g.Tensors() {
		n += int(t.Shape[0] * t.Rows())
	}
	return n
}

// readFloats reads a float32 tensor of that shape (ggml's order) whose values are all finite.
func readFloats(g *bindings.GGUF, name string, out []float32, shape ...int64) error {
	if t, ok := g.Tensor(name); ok && t.Type != bindings.F32 {
		return fmt.Errorf("tensor %s is %v %v, and must be f32 %v", name, t.Type, t.Shape, shape)
	}
	return readMatrix(g, name, out, shape...)
}

// metadata reads typed values and keeps the first failure.
type metadata struct {
	g   *bindings.GGUF
	err error
}

func (m *metadata) fail(key, want string) {
	if m.err == nil {
		m.err = fmt.Errorf("%s is missing or is not %s", key, want)
	}
}

func (m *metadata) config() Config {
	unique, _ := m.g.Value(keyUnique).(bool)
	return Config{
		Method: MethodVeRA, Rank: int(m.uint32(keyRank)), Targets: get[[]string](m, keyTargets, "a list of strings"),
		Layers: m.layers(), Seed: m.uint32(keySeed),
		DInitial: get[float32](m, keyDInitial, "a float32"), Dropout: get[float32](m, keyDropout, "a float32"),
		Init: Init(m.text(keyInit)),
		Only: m.optional(keyOnly), UniquePairs: unique,
	}
}

func (m *metadata) layers() []int {
	if m.g.Value(keyLayers) == nil {
		return nil
	}
	var layers []int
	for _, layer := range get[[]uint32](m, keyLayers, "a list of uint32") {
		layers = append(layers, int(layer))
	}
	return layers
}

func (m *metadata) facts() map[string]string {
	facts := map[string]string{}
	for _, key := range m.g.Keys() {
		if fact, ok := strings.CutPrefix(key, factPrefix); ok {
			facts[fact] = m.text(key)
		}
	}
	if template, ok := m.g.String(keyChatTemplate); ok {
		facts[factChatTemplate] = template
	}
	return withoutFolders(facts)
}

func (m *metadata) uint32(key string) uint32 { return get[uint32](m, key, "a uint32") }

func (m *metadata) text(key string) string { return get[string](m, key, "a string") }

// optional is empty where the key is absent.
func (m *metadata) optional(key string) string {
	s, _ := m.g.String(key)
	return s
}

func get[T any](m *metadata, key, want string) T {
	v, ok := m.g.Value(key).(T)
	if !ok {
		m.fail(key, want)
	}
	return v
}

// short is enough of a digest to tell two apart.
func short(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest[:min(len(digest), 12)]
}
