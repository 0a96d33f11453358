package vera

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"github.com/veratune/veratune/internal/testutil"
)

func savePEFT(t testing.TB, a *Adapter, projection bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "peft")
	if err := a.SavePEFT(dir, projection); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withoutOwn writes the folder as PEFT would: without what SavePEFT adds for the way back.
func withoutOwn(t testing.TB, dir string) string {
	t.Helper()
	file := read(t, filepath.Join(dir, peftWeightsFile))
	tensors, err := safetensors.Deserialize(file)
	if err != nil {
		t.Fatal(err)
	}
	views := map[string]safetensors.TensorView{}
	for _, name := range tensors.Names() {
		views[name], _ = tensors.Tensor(name)
	}
	weights, err := safetensors.Serialize(views, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	writeFolder(t, out, read(t, filepath.Join(dir, peftConfigFile)), weights)
	return out
}

func sameVectors(x, y Layer) bool {
	return x.Linear == y.Linear && slices.Equal(x.LambdaB, y.LambdaB) && slices.Equal(x.LambdaD, y.LambdaD)
}

// checkRoundTrip demands the same adapter, and the same bytes of its native file, after a stay in PEFT's format; and
// the same numbers where only what PEFT itself writes came back.
func checkRoundTrip(t *testing.T, a *Adapter, projection bool) {
	t.Helper()
	dir := savePEFT(t, a, projection)
	b, err := Load(dir, a.Base)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("read back as\n%+v\nwant\n%+v", b, a)
	}
	if !bytes.Equal(read(t, save(t, a)), read(t, save(t, b))) {
		t.Error("the native file has other bytes")
	}
	c, err := Load(withoutOwn(t, dir), a.Base)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Params, a.Params) || c.pairDigest() != a.pairDigest() ||
		!slices.EqualFunc(c.Layers, a.Layers, sameVectors) {
		t.Error("PEFT's own part of the folder gives another adapter")
	}
}

func TestPEFTRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"all":                  func(*Config) {},
		"rank 1":               func(c *Config) { c.Rank = 1 },
		"largest seed":         func(c *Config) { c.Seed = math.MaxUint32 },
		"some blocks":          func(c *Config) { c.Layers = []int{0, 2} },
		"all blocks by number": func(c *Config) { c.Layers = []int{0, 1, 2} },
		"a layer":              func(c *Config) { c.Targets = []string{"blk.1.attn_q"} },
		"layers":               func(c *Config) { c.Targets = []string{"blk.2.ffn_up", "blk.0.attn_k"} },
		"kinds and a layer":    func(c *Config) { c.Targets = []string{"attn_v", "blk.1.ffn_down", "blk.2.attn_q"} },
		"a layer twice":        func(c *Config) { c.Targets = []string{"attn_v", "blk.1.attn_v"} },
		"layers within blocks": func(c *Config) {
			c.Targets, c.Layers = []string{"attn_v", "blk.1.ffn_up", "blk.2.ffn_up"}, []int{1}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := toyConfig()
			change(&c)
			for _, projection := range []bool{false, true} {
				checkRoundTrip(t, trained(t, c, toy()), projection)
			}
		})
	}
}

func TestPEFTRoundTripOfEverySetOfTargets(t *testing.T) {
	have := toy().Targets()
	for set := 1; set < 1<<len(have); set++ {
		c := toyConfig()
		c.Targets = slices.DeleteFunc(slices.Clone(have), func(target string) bool {
			return set>>slices.Index(have, target)&1 == 0
		})
		if set%2 == 0 {
			c.Layers = []int{1}
		}
		checkRoundTrip(t, trained(t, c, toy()), false)
	}
}

// A pair that PEFT would not draw stands in the file, and only there.
func TestPEFTWritesPairsItCannotDraw(t *testing.T) {
	foreign := trained(t, toyConfig(), toy())
	foreign.share(NewPair(KaimingUniform, 99, foreign.Rank, foreign.MaxIn, foreign.MaxOut))
	foreign.Pair.origin = origin{}
	adapters := map[string]*Adapter{"of a file": foreign}
	for _, init := range []Init{KaimingNormal, Uniform} {
		c := toyConfig()
		c.Init = init
		adapters[string(init)] = trained(t, c, toy())
	}
	for name, a := range adapters {
		t.Run(name, func(t *testing.T) {
			checkRoundTrip(t, a, true)
			dir := filepath.Join(t.TempDir(), "peft")
			wantError(t, a.SavePEFT(dir, false), "seed 7", "projections")
			if _, err := os.Stat(dir); err == nil {
				t.Error("a folder was made")
			}
		})
	}
}

// What was changed by hand after the export counts, not what veratune noted for the way back.
func TestPEFTConfigurationDecides(t *testing.T) {
	dir := savePEFT(t, trained(t, toyConfig(), toy()), false)
	var config map[string]any
	path := filepath.Join(dir, peftConfigFile)
	if err := json.Unmarshal(read(t, path), &config); err != nil {
		t.Fatal(err)
	}
	config["projection_prng_key"] = 11
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Load(dir, toy())
	if err != nil {
		t.Fatal(err)
	}
	if a.Seed != 11 || a.Facts["steps"] != "12" {
		t.Errorf("seed %d, facts %v", a.Seed, a.Facts)
	}
}

func TestSavePEFTRefuses(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	parent := t.TempDir()
	full, file, empty := filepath.Join(parent, "full"), filepath.Join(parent, "file"), filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(full, "notes.txt"), file} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("the user's"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, a.SavePEFT(full, true), full, "not empty")
	wantError(t, a.SavePEFT(file, true), file)
	wantError(t, a.SavePEFT(filepath.Join(parent, "none", "peft"), true), "none")
	if string(read(t, filepath.Join(full, "notes.txt"))) != "the user's" || string(read(t, file)) != "the user's" {
		t.Error("what was there is changed")
	}
	if err := a.SavePEFT(empty, true); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	bad := trained(t, toyConfig(), toy())
	bad.Layer(1, "attn_q").LambdaB[2] = float32(math.NaN())
	wantError(t, bad.SavePEFT(filepath.Join(parent, "bad"), true), "blk.1.attn_q", "NaN")
	other := trained(t, toyConfig(), toy())
	other.Base.Architecture = "bert"
	wantError(t, other.SavePEFT(filepath.Join(parent, "bad"), true), "bert", "llama")
	if entries, _ := os.ReadDir(parent); len(entries) != 3 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestReferenceFolders writes PEFT's own adapters of SmolLM2 again: the same numbers in the same bytes, the same
// configuration.
func TestReferenceFolders(t *testing.T) {
	for _, folder := range testutil.Folders(t, "VERATUNE_REFS", "refs/peft-vera-*") {
		dirs, err := filepath.Glob(filepath.Join(folder, "*_peft*"))
		if err != nil || len(dirs) == 0 {
			t.Fatalf("%s holds no adapter: %v", folder, err)
		}
		for _, dir := range dirs {
			t.Run(filepath.Base(dir), func(t *testing.T) {
				want := readConfig(t, dir)
				a, err := Load(dir, smolLM2())
				if err != nil {
					t.Fatal(err)
				}
				out := savePEFT(t, a, want["save_projection"].(bool))
				if got := readConfig(t, out); !reflect.DeepEqual(got, want) {
					t.Errorf("configuration %v, want %v", got, want)
				}
				if !bytes.Equal(tensorBytes(t, out), tensorBytes(t, dir)) {
					t.Error("other bytes of the tensors")
				}
				checkRoundTrip(t, a, true)
			})
		}
	}
}

func readConfig(t *testing.T, dir string) map[string]any {
	t.Helper()
	var config map[string]any
	if err := json.Unmarshal(read(t, filepath.Join(dir, peftConfigFile)), &config); err != nil {
		t.Fatal(err)
	}
	// PEFT writes a Python set, whose order means nothing.
	slices.SortFunc(config["target_modules"].([]any), func(x, y any) int {
		return bytes.Compare([]byte(x.(string)), []byte(y.(string)))
	})
	return config
}

// tensorBytes is a safetensors file after its header.
func tensorBytes(t *testing.T, dir string) []byte {
	t.Helper()
	file := read(t, filepath.Join(dir, peftWeightsFile))
	return file[8+binary.LittleEndian.Uint64(file):]
}

func TestLoadOnAnotherBase(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	sibling := toy()
	sibling.Name, sibling.Fingerprint = "sibling", "another"
	wider, shorter := llama("wider", 3, 32, 24, 4, 2), llama("shorter", 2, 16, 24, 4, 2)
	for form, path := range map[string]string{"native": save(t, a), "PEFT": savePEFT(t, a, false)} {
		t.Run(form, func(t *testing.T) {
			_, err := Load(path, sibling)
			wantError(t, err, `"toy"`, `"sibling"`, "force")
			b, err := Load(path, sibling, AnyBase)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(b.Params, a.Params) || b.Base.Fingerprint != "another" {
				t.Error("another adapter")
			}
			// A second move does not hide where it was trained.
			c, err := Load(save(t, b), toy(), AnyBase)
			if err != nil {
				t.Fatal(err)
			}
			for _, moved := range []*Adapter{b, c} {
				if want := "toy (llama, fingerprint " + short(toy().Fingerprint) +
					")"; moved.Facts["trained_on"] != want {
					t.Errorf("trained on %q, want %q", moved.Facts["trained_on"], want)
				}
			}
			if own, err := Load(path, toy(), AnyBase); err != nil || own.Facts["trained_on"] != "" {
				t.Errorf("on its own base: %v, %v", own, err)
			}
			for _, base := range []Base{wider, shorter} {
				if _, err := Load(path, base, AnyBase); err == nil {
					t.Errorf("%s: shapes that do not fit are taken", base.Name)
				}
			}
		})
	}
}
