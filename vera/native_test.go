package vera

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
)

func save(t testing.TB, a *Adapter) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// content is a GGUF file in memory, to be changed.
type content struct {
	keys    []string
	values  map[string]any
	tensors []bindings.TensorInfo
	data    map[string][]byte
}

// changed writes a copy of a GGUF file after change has had its way with it.
func changed(t testing.TB, path string, change func(*content)) string {
	t.Helper()
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	c := content{keys: g.Keys(), values: map[string]any{}, tensors: slices.Clone(g.Tensors()),
		data: map[string][]byte{}}
	for _, key := range c.keys {
		c.values[key] = g.Value(key)
	}
	for _, info := range c.tensors {
		c.data[info.Name] = bytes.Clone(g.Data(info))
	}
	change(&c)
	w := bindings.NewGGUFWriter()
	defer w.Close()
	for _, key := range c.keys {
		if c.values[key] != nil {
			if err := w.Set(key, c.values[key]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, info := range c.tensors {
		if err := w.AddTensor(info.Name, info.Type, info.Shape, c.data[info.Name]); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "changed.gguf")
	if err := w.WriteFile(out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNativeRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"all":            func(*Config) {},
		"rank 1":         func(c *Config) { c.Rank = 1 },
		"some layers":    func(c *Config) { c.Targets, c.Layers = []string{"attn_v", "attn_q"}, []int{2, 0} },
		"single layers":  func(c *Config) { c.Targets = []string{"blk.2.ffn_up", "blk.0.attn_k"} },
		"kaiming normal": func(c *Config) { c.Init = KaimingNormal },
		"uniform":        func(c *Config) { c.Init = Uniform },
	} {
		t.Run(name, func(t *testing.T) {
			c := toyConfig()
			change(&c)
			a := trained(t, c, toy())
			path := save(t, a)
			b, err := Load(path, toy())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(a, b) {
				t.Errorf("read back as\n%+v\nwant\n%+v", b, a)
			}
			if !bytes.Equal(read(t, path), read(t, save(t, b))) {
				t.Error("saved again it has other bytes")
			}
		})
	}
}

// The order in which targets and layers were given does not reach the file.
func TestNativeBytesAreCanonical(t *testing.T) {
	c := toyConfig()
	c.Layers = []int{0, 2}
	want := read(t, save(t, trained(t, c, toy())))
	slices.Reverse(c.Targets)
	slices.Reverse(c.Layers)
	if !bytes.Equal(read(t, save(t, trained(t, c, toy()))), want) {
		t.Error("the order of targets and layers changes the file")
	}
}

func TestNativeKeepsAForeignPair(t *testing.T) {
	for _, rank := range []int{1, 4} {
		c := toyConfig()
		c.Rank = rank
		a := trained(t, c, toy())
		a.share(NewPair(KaimingUniform, 99, rank, a.MaxIn, a.MaxOut))
		b, err := Load(save(t, a), toy())
		if err != nil {
			t.Fatal(err)
		}
		if b.Seed != 7 || !slices.Equal(b.Pair.A, a.Pair.A) || !slices.Equal(b.Pair.B, a.Pair.B) {
			t.Error("the pair is not the one that was saved")
		}
		again, err := Load(save(t, b), toy())
		if err != nil || again.Pair.SHA256() != a.Pair.SHA256() {
			t.Errorf("the second round trip loses the pair: %v", err)
		}
	}
}

func TestNativeSize7B(t *testing.T) {
	base := llama("Llama-2-7B", 32, 4096, 11008, 32, 32)
	path := save(t, mustNew(t, Default(), base))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 6_500_000 {
		t.Errorf("%d bytes, want less than 6.5 MB", info.Size())
	}
}

func TestSaveRefusesNaN(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	path := save(t, a)
	before := read(t, path)
	wantError(t, mustNew(t, toyConfig(), toy()).SaveOutput(path, false), "is there already")
	a.Layer(1, "ffn_up").LambdaD[2] = float32(math.Inf(1))
	wantError(t, a.Save(path), "blk.1.ffn_up.weight.vera_d", "value 2", "+Inf")
	if !bytes.Equal(read(t, path), before) {
		t.Error("the file that was there is lost")
	}
	wantError(t, mustNew(t, toyConfig(), toy()).Save(filepath.Join(t.TempDir(), "none", "a.gguf")), "none")
}

func TestLoadRefuses(t *testing.T) {
	path := save(t, trained(t, toyConfig(), toy()))
	set := func(key string, value any) func(*content) {
		return func(c *content) {
			if _, ok := c.values[key]; !ok {
				c.keys = append(c.keys, key)
			}
			c.values[key] = value
		}
	}
	for name, test := range map[string]struct {
		change func(*content)
		words  []string
	}{
		"not an adapter": {set("general.type", "model"), []string{"no adapter"}},
		"another kind":   {set("adapter.type", "ia3"), []string{`"ia3"`, `"lora"`, `"vera"`}},
		"no LoRA":        {set("adapter.type", "lora"), []string{keyAlpha}},
		"architecture":   {set("general.architecture", "qwen2"), []string{"qwen2", "llama"}},
		"another model": {set(keyFingerprint, "0123456789abcdef"),
			[]string{`"toy"`, "0123456789ab", "fingerprint"}},
		"no fingerprint":    {set(keyFingerprint, nil), []string{keyFingerprint}},
		"changed rank":      {set(keyRank, uint32(5)), []string{"vera_d", "[4]", "[5]", "rank"}},
		"rank 0":            {set(keyRank, uint32(0)), []string{"rank 0"}},
		"rank too large":    {set(keyRank, uint32(math.MaxUint32)), []string{"rank 4294967295"}},
		"rank not a number": {set(keyRank, "four"), []string{keyRank, "uint32"}},
		"changed seed":      {set(keySeed, uint32(8)), []string{"seed 8", "SHA-256", "changed"}},
		"changed init":      {set(keyInit, "uniform"), []string{"init uniform", "SHA-256", "changed"}},
		"unknown init":      {set(keyInit, "zeros"), []string{"zeros", "kaiming_uniform"}},
		"no pair digest":    {set(keyPair, nil), []string{keyPair}},
		"max_in":            {set(keyMaxIn, uint32(25)), []string{keyMaxIn, "25", "24"}},
		"unknown target":    {set(keyTargets, []string{"token_embd"}), []string{"token_embd", "attn_q"}},
		"fewer targets": {set(keyTargets, toy().Targets()[1:]), []string{"tensor blk.0.attn_q.weight.vera_b",
			keyTargets}},
		"fewer layers":     {set(keyLayers, []uint32{0, 1}), []string{"tensor blk.2.attn_q.weight.vera_b", keyLayers}},
		"layers of a kind": {set(keyLayers, "all"), []string{keyLayers, "list"}},
		"layer too high":   {set(keyLayers, []uint32{9}), []string{"layer 9"}},
		"dropout":          {set(keyDropout, float32(2)), []string{"dropout 2"}},
		"fact":             {set("veratune.steps", uint32(4)), []string{"veratune.steps", "string"}},
		"missing tensor": {func(c *content) { c.tensors = c.tensors[1:] },
			[]string{"blk.0.attn_q.weight.vera_b", "missing"}},
		"surplus tensor": {func(c *content) {
			c.tensors = append(c.tensors, bindings.TensorInfo{Name: "output.weight.vera_d", Type: bindings.F32,
				Shape: []int64{1}})
			c.data["output.weight.vera_d"] = make([]byte, 4)
		}, []string{"output.weight.vera_d"}},
		"half a pair": {func(c *content) {
			c.tensors = append(c.tensors, bindings.TensorInfo{Name: tensorA, Type: bindings.F32, Shape: []int64{24, 4}})
			c.data[tensorA] = make([]byte, 24*4*4)
		}, []string{tensorB, "missing"}},
		"type": {func(c *content) {
			c.tensors[0].Type = bindings.F16
			c.data[c.tensors[0].Name] = make([]byte, 32)
		}, []string{"f16", "f32", "blk.0.attn_q.weight.vera_b"}},
		"NaN": {func(c *content) {
			binary.LittleEndian.PutUint32(c.data["blk.0.attn_k.weight.vera_b"][8:],
				math.Float32bits(float32(math.NaN())))
		}, []string{"blk.0.attn_k.weight.vera_b", "value 2", "NaN"}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := changed(t, path, test.change)
			_, err := Load(bad, toy())
			wantError(t, err, append(test.words, bad)...)
		})
	}
	if _, err := Load(changed(t, path, func(*content) {}), toy()); err != nil {
		t.Errorf("an unchanged copy: %v", err)
	}
}

// An adapter of another model is refused by name, before anything of its shapes.
func TestLoadNamesBothModels(t *testing.T) {
	_, err := Load(save(t, trained(t, toyConfig(), toy())), smolLM2())
	wantError(t, err, `"toy"`, `"SmolLM2-135M-Instruct"`)
}

func TestLoadOfNoFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "absent.gguf"), toy())
	wantError(t, err, "absent.gguf")
	text := filepath.Join(t.TempDir(), "text.gguf")
	if err := os.WriteFile(text, []byte("no GGUF at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(text, toy())
	wantError(t, err, "text.gguf", "not a GGUF file")
	whole := read(t, save(t, trained(t, toyConfig(), toy())))
	for _, n := range []int{4, 100, len(whole) / 2, len(whole) - 40} {
		if err := os.WriteFile(text, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(text, toy()); err == nil {
			t.Errorf("the first %d of %d bytes are read", n, len(whole))
		}
	}
}

// A rank of 65536 in a file of a few kilobytes is no reason to take megabytes.
func TestClaimedRank(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	native := changed(t, save(t, a), func(c *content) { c.values[keyRank] = uint32(maxRank) })
	_, err := Load(native, toy())
	wantError(t, err, "65536", "no more than")
	checkLoaded(t, native)
	p := peftOf(t, a)
	p.config["r"] = maxRank
	dir := p.write(t)
	_, err = Load(dir, toy())
	wantError(t, err, "65536", "no more than")
	checkLoaded(t, dir)
}

func FuzzLoadNative(f *testing.F) {
	c := toyConfig()
	c.Targets, c.Layers = []string{"attn_k"}, []int{1}
	whole := read(f, save(f, trained(f, c, toy())))
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("GGUF"))
	foreign := trained(f, c, toy())
	foreign.share(&Pair{Rank: 4, MaxIn: 16, MaxOut: 8, A: make([]float32, 64), B: make([]float32, 32)})
	f.Add(read(f, save(f, foreign)))
	path := filepath.Join(f.TempDir(), "fuzz.gguf")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		checkLoaded(t, path)
	})
}

// size is that of a file, or of all files in a folder.
func size(t *testing.T, path string) (n uint64) {
	t.Helper()
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		n += uint64(info.Size())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkLoaded demands that what can be loaded at all survives a round trip, and that nothing else takes more memory
// than its size can ask for.
func checkLoaded(t *testing.T, path string) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	a, err := Load(path, toy())
	runtime.ReadMemStats(&after)
	if err != nil {
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+100*size(t, path) {
			t.Fatalf("%d bytes were allocated before %v", n, err)
		}
		return
	}
	b, err := Load(save(t, a), toy())
	if err != nil {
		t.Fatalf("loaded, saved, and then: %v", err)
	}
	if !slices.Equal(a.Params, b.Params) || a.Digest() != b.Digest() || !maps.Equal(a.Facts, b.Facts) ||
		!reflect.DeepEqual(a.Config, b.Config) {
		t.Fatal("the round trip changes the adapter")
	}
}
