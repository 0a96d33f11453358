package vera

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// tinyBase writes a tiny random model of a type, opens it, and describes it to an adapter.
func tinyBase(t *testing.T, kind bindings.Type) (*bindings.GGUF, Base) {
	t.Helper()
	width, hidden := 64, 96
	if kind.BlockSize() > 32 {
		width, hidden = 256, 512
	}
	return testutil.OpenGGUF(t, testutil.TinyLlama(t, testutil.TinyOptions{Type: kind})),
		llama("tiny", 2, width, hidden, 4, 2)
}

// random has normally distributed b and d, every fifth b at 0, and a layer whose b and one whose d are all 0.
func random(t *testing.T, base Base, deviation float64) *Adapter {
	t.Helper()
	a := mustNew(t, toyConfig(), base)
	r := rand.New(rand.NewPCG(3, 1))
	for _, l := range a.Layers {
		for i := range l.LambdaB {
			if l.LambdaB[i] = float32(deviation * r.NormFloat64()); i%5 == 0 {
				l.LambdaB[i] = 0
			}
		}
		for i := range l.LambdaD {
			l.LambdaD[i] = float32(r.NormFloat64())
		}
	}
	clear(a.Layer(0, "attn_v").LambdaB)
	clear(a.Layer(1, "ffn_up").LambdaD)
	a.Facts = map[string]string{"steps": "12", "data": "rows.json"}
	return a
}

func keep() MergeOptions { return MergeOptions{Type: TypeKeep, Threads: 2} }

func saveMerged(t *testing.T, a *Adapter, base *bindings.GGUF, o MergeOptions) (*bindings.GGUF, Merged) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "merged.gguf")
	merged, err := a.SaveMerged(t.Context(), path, base, o)
	if err != nil {
		t.Fatal(err)
	}
	return testutil.OpenGGUF(t, path), merged
}

func floats(t *testing.T, g *bindings.GGUF, name string) []float32 {
	t.Helper()
	info, ok := g.Tensor(name)
	if !ok {
		t.Fatalf("tensor %s is missing", name)
	}
	values := make([]float32, info.Shape[0]*info.Rows())
	if err := bindings.Dequantize(info.Type, g.Data(info), values); err != nil {
		t.Fatal(err)
	}
	return values
}

// naive is W + ΔW in float64.
func naive(t *testing.T, a *Adapter, l *Layer, base *bindings.GGUF) []float64 {
	t.Helper()
	up, down := a.Factors(l)
	sum := make([]float64, l.Out*l.In)
	for i, w := range floats(t, base, l.Name()+".weight") {
		sum[i] = float64(w)
		for r := range l.Rank() {
			sum[i] += float64(up[i/l.In*l.Rank()+r]) * float64(down[r*l.In+i%l.In])
		}
	}
	return sum
}

// mergedTypes are types of all kinds: whole numbers, blocks of 32 and of 256.
var mergedTypes = []bindings.Type{bindings.F32, bindings.F16, bindings.BF16, bindings.Q4_0, bindings.Q4_1,
	bindings.Q5_1, bindings.Q8_0, bindings.Q4_K, bindings.Q6_K}

// TestMergedTensors compares every adapted tensor with W + ΔW in float64, rounded by ggml, and all else of the file
// with the base.
func TestMergedTensors(t *testing.T) {
	for _, kind := range mergedTypes {
		t.Run(kind.String(), func(t *testing.T) {
			base, described := tinyBase(t, kind)
			a := random(t, described, 0.5)
			g, merged := saveMerged(t, a, base, keep())
			sameButAdapted(t, a, base, g)
			for i := range a.Layers {
				l, got := &a.Layers[i], merged.Tensors[i]
				want := make([]float32, l.Out*l.In)
				for j, v := range naive(t, a, l, base) {
					want[j] = float32(v)
				}
				rounded, values, w := make([]float32, len(want)), floats(t, g, got.Name), floats(t, base, got.Name)
				q, err := bindings.Quantize(kind, want, int64(l.In))
				if err := errors.Join(err, bindings.Dequantize(kind, q, rounded)); err != nil {
					t.Fatal(err)
				}
				for row := range l.Out {
					if l.LambdaB[row] == 0 || l.LambdaD[0] == 0 {
						copy(rounded[row*l.In:][:l.In], w[row*l.In:][:l.In])
					}
				}
				// Sums in another order differ in the last bits; now and then that rounds a number to the neighbour,
				// and never far from the best error.
				var sums, best rounding
				sums.count(w, want, values)
				best.count(w, want, rounded)
				if slack := 1e-12 * sums.size; !(sums.err <= best.err*1.001+slack) {
					t.Errorf("%s: ‖Q − (W + ΔW)‖² is %g, and %g for the sum in float64", got.Name, sums.err, best.err)
				}
				if !near(got.Error, sums.err, 1e-3, 1e-9) || !near(got.Update, sums.update, 1e-3, 1e-9) ||
					!near(got.Kept, sums.kept(), 1e-3, 1e-6) {
					t.Errorf("%s: %+v, want %+v", got.Name, got, sums)
				}
			}
		})
	}
}

func near(got, want, relative, absolute float64) bool {
	return math.Abs(got-want) <= relative*want+absolute
}

// sameButAdapted checks that a merged file is the base, but for the data of adapted layers with an update, and texts
// added to the metadata.
func sameButAdapted(t *testing.T, a *Adapter, base, g *bindings.GGUF) {
	t.Helper()
	added := []string{
		"general.name", "general.finetune", "general.base_model.count", "general.base_model.0.name",
		"general.dataset.0.name", "general.dataset.count",
		"veratune.method", "veratune.rank", "veratune.data", "veratune.steps", keyMergedAdapter, keyMergedBase,
	}
	kept := slices.DeleteFunc(base.Keys(), func(key string) bool { return key == "general.name" })
	if keys := g.Keys(); !slices.Equal(keys, append(kept, added...)) {
		t.Errorf("the keys are %q", keys)
	}
	whole, copied := read(t, base.Path()), read(t, g.Path())
	counted := func(s string) []byte { return append(binary.LittleEndian.AppendUint64(nil, uint64(len(s))), s...) }
	metadata := whole[:bytes.Index(whole, counted(base.Tensors()[0].Name))]
	name, _ := base.String("general.name")
	const text = 8 // GGUF's number of the type
	metadata = bytes.Replace(metadata, slices.Concat(counted("general.name"), []byte{text, 0, 0, 0}, counted(name)),
		nil, 1)
	// between them stands the number of keys
	if !bytes.Equal(metadata[:16], copied[:16]) || !bytes.Equal(metadata[24:], copied[24:len(metadata)]) {
		t.Error("the metadata are not copied to the byte")
	}
	if len(g.Tensors()) != len(base.Tensors()) {
		t.Fatalf("%d tensors, want %d", len(g.Tensors()), len(base.Tensors()))
	}
	adapted := map[string]*Layer{}
	for i := range a.Layers {
		adapted[a.Layers[i].Name()+".weight"] = &a.Layers[i]
	}
	for i, info := range g.Tensors() {
		from := base.Tensors()[i]
		if info.Name != from.Name || info.Type != from.Type || !slices.Equal(info.Shape, from.Shape) {
			t.Errorf("tensor %d is %v, want %v", i, info, from)
			continue
		}
		l, size := adapted[info.Name], info.Size/info.Rows()
		updated, differ := 0, 0
		for row := range info.Rows() {
			same := bytes.Equal(g.Data(info)[row*size:][:size], base.Data(from)[row*size:][:size])
			switch still := l == nil || l.LambdaB[row] == 0 || l.LambdaD[0] == 0; {
			case still && !same:
				t.Errorf("%s: row %d has no update, and other bytes than the base", info.Name, row)
			case !still:
				updated++
				if !same {
					differ++
				}
			}
		}
		// A row whose b is near 0 can round to what it was.
		if differ < updated*9/10 {
			t.Errorf("%s: %d of %d rows with an update differ from the base", info.Name, differ, updated)
		}
	}
}

// An untrained adapter changes no tensor, whatever the type: rounding again what was rounded once would.
func TestMergedUntrained(t *testing.T) {
	for _, kind := range mergedTypes {
		base, described := tinyBase(t, kind)
		g, merged := saveMerged(t, mustNew(t, toyConfig(), described), base, keep())
		for i, info := range g.Tensors() {
			if !bytes.Equal(g.Data(info), base.Data(base.Tensors()[i])) {
				t.Errorf("%v: %s is changed", kind, info.Name)
			}
		}
		if merged.Kept() != 1 {
			t.Errorf("%v: %g is kept of nothing", kind, merged.Kept())
		}
	}
}

// A merged file is a base model like any other: merged once more, it gets the new adapter's texts in place of the old
// ones.
func TestMergedTwice(t *testing.T) {
	base, described := tinyBase(t, bindings.Q8_0)
	once, _ := saveMerged(t, random(t, described, 0.1), base, keep())
	described.Fingerprint = "of the merged file"
	twice, _ := saveMerged(t, random(t, described, 0.2), once, keep())
	if !slices.Equal(slices.Sorted(slices.Values(twice.Keys())), slices.Sorted(slices.Values(once.Keys()))) ||
		twice.Value(keyMergedBase) != described.Fingerprint ||
		twice.Value(keyMergedAdapter) == once.Value(keyMergedAdapter) {
		t.Errorf("the keys are %q, after %q; the base is %v", twice.Keys(), once.Keys(), twice.Value(keyMergedBase))
	}
}

// Large tensors are merged some rows at a time, to the same bits as at once and on any number of threads.
func TestMergedChunks(t *testing.T) {
	base, described := tinyBase(t, bindings.Q4_0)
	a := random(t, described, 0.1)
	m, err := newMerger(t.Context(), a, base, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	weights, err := a.weights(base, keep())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range weights {
		whole, part := make([]float32, x.Out*x.In), make([]float32, 3*x.In)
		if err := errors.Join(m.merge(x, 0, whole), m.merge(x, 7, part)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(part, whole[7*x.In:][:3*x.In]) {
			t.Errorf("%s: rows 7 to 9 alone are not those of the whole", x.Name)
		}
	}
	one, _ := saveMerged(t, a, base, MergeOptions{Type: TypeKeep, Threads: 1})
	three, _ := saveMerged(t, a, base, MergeOptions{Type: TypeKeep, Threads: 3})
	if !bytes.Equal(read(t, one.Path()), read(t, three.Path())) {
		t.Error("one thread and three give different files")
	}
}

// TestMergedType gives all adapted tensors one type.
func TestMergedType(t *testing.T) {
	base, described := tinyBase(t, bindings.Q4_K)
	a := random(t, described, 0.01)
	last := math.Inf(1)
	for _, kind := range []bindings.Type{bindings.Q4_0, bindings.Q5_K, bindings.Q8_0, bindings.F16, bindings.F32} {
		g, merged := saveMerged(t, a, base, MergeOptions{Type: kind.String(), Threads: 2})
		for _, x := range merged.Tensors {
			info, _ := g.Tensor(x.Name)
			was, _ := base.Tensor(x.Name)
			if x.Type != kind.String() || info.Type != kind || x.Bytes != info.Size || x.Added != info.Size-was.Size ||
				x.Was != "q4_K" {
				t.Errorf("%v: %+v is %v in the file", kind, x, info)
			}
		}
		e := 0.0
		for _, x := range merged.Tensors {
			e += x.Error
		}
		if !(e < last) {
			t.Errorf("%v: squared error %g, after %g", kind, e, last)
		}
		last = e
	}
	if last != 0 {
		t.Errorf("f32 has a squared error of %g", last)
	}
}

// TestMergedAuto raises tensors as far as the budget goes, and keeps more of the update for it.
func TestMergedAuto(t *testing.T) {
	for _, kind := range []bindings.Type{bindings.Q4_1, bindings.Q4_K} {
		base, described := tinyBase(t, kind)
		a := random(t, described, 0.01)
		_, kept := saveMerged(t, a, base, keep())
		last := kept.Kept()
		for _, budget := range []int64{20_000, 60_000, 1 << 40} {
			_, merged := saveMerged(t, a, base, MergeOptions{Type: TypeAuto, Budget: budget, Threads: 2})
			added, untouched := int64(0), 0
			for i, x := range merged.Tensors {
				if added += x.Added; x.Added < 0 {
					t.Errorf("%s: %s became %s", x.Name, x.Was, x.Type)
				}
				if kept.Tensors[i].Error == 0 && x.Type == kind.String() {
					untouched++
				}
			}
			if added > budget || added == 0 {
				t.Errorf("%v: %d bytes of %d are spent", kind, added, budget)
			}
			if untouched != 2 {
				t.Errorf("%v: %d layers without an update keep their type, want 2", kind, untouched)
			}
			if share := merged.Kept(); !(math.Abs(1-share) < math.Abs(1-last)) {
				t.Errorf("%v: %.3f of the update is kept with %d bytes more, %.3f before", kind, share, added, last)
			} else {
				last = share
			}
		}
		g, _ := saveMerged(t, a, base, MergeOptions{Type: TypeAuto, Budget: 1, Threads: 2})
		same, _ := saveMerged(t, a, base, keep())
		if !bytes.Equal(read(t, g.Path()), read(t, same.Path())) {
			t.Errorf("%v: with a budget of one byte the file is not the one that keeps types", kind)
		}
	}
}

func TestMergedRefuses(t *testing.T) {
	base, described := tinyBase(t, bindings.Q4_K)
	a := random(t, described, 0.1)
	needsMatrix := testutil.OpenGGUF(t, changed(t, base.Path(), func(c *content) {
		const iq2xxs bindings.Type = 16
		for i := range c.tensors {
			if info := &c.tensors[i]; info.Name == "blk.1.attn_k.weight" {
				info.Type = iq2xxs
				c.data[info.Name] = make([]byte, iq2xxs.RowBytes(info.Shape[0])*info.Rows())
			}
		}
	}))
	small, smallDescribed := tinyBase(t, bindings.Q4_1)
	dir := t.TempDir()
	link := filepath.Join(dir, "link.gguf")
	if err := os.Symlink(base.Path(), link); err != nil {
		t.Fatal(err)
	}
	broken := random(t, described, 0.1)
	broken.Layer(1, "attn_q").LambdaD[1] = float32(math.NaN())
	huge := random(t, described, 1e6)
	out := filepath.Join(dir, "out.gguf")
	before := read(t, base.Path())
	for name, test := range map[string]struct {
		adapter *Adapter
		base    *bindings.GGUF
		path    string
		options MergeOptions
		words   []string
	}{
		"over the base":     {a, base, base.Path(), keep(), []string{"is read", base.Path()}},
		"over a link to it": {a, base, link, keep(), []string{"is read"}},
		"importance matrix": {a, needsMatrix, out, keep(), []string{"blk.1.attn_k.weight", "iq2_xxs",
			"importance matrix", "q8_0"}},
		"such a type": {a, base, out, MergeOptions{Type: "iq2_xxs", Threads: 1},
			[]string{"blk.0.attn_q.weight", "importance matrix", "q8_0"}},
		"block": {random(t, smallDescribed, 1), small, out, MergeOptions{Type: "q6_K", Threads: 1},
			[]string{"blk.0.attn_q.weight", "64", "block of 256"}},
		"no float":     {a, base, out, MergeOptions{Type: "i32", Threads: 1}, []string{"i32"}},
		"unknown type": {a, base, out, MergeOptions{Type: "q4_9", Threads: 1}, []string{"q4_9", "keep", "q8_0"}},
		"no budget":    {a, base, out, MergeOptions{Type: TypeAuto, Threads: 1}, []string{"budget"}},
		"budget for keep": {a, base, out, MergeOptions{Type: TypeKeep, Budget: 1, Threads: 1},
			[]string{"budget", "auto"}},
		"threads":     {a, base, out, MergeOptions{Type: TypeKeep}, []string{"threads 0"}},
		"other model": {a, small, out, keep(), []string{"blk.0.attn_q.weight", small.Path()}},
		"NaN":         {broken, base, out, keep(), []string{"blk.1.attn_q", "NaN"}},
		"too large": {huge, base, out, MergeOptions{Type: "f16", Threads: 1},
			[]string{"blk.0.attn_q.weight", "f16"}},
		"no folder": {a, base, filepath.Join(dir, "none", "x.gguf"), keep(), []string{"none"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.adapter.SaveMerged(t.Context(), test.path, test.base, test.options)
			wantError(t, err, test.words...)
			wantFiles(t, dir, "link.gguf")
		})
	}
	if !bytes.Equal(read(t, base.Path()), before) {
		t.Error("the base model was changed")
	}
	if _, err := a.SaveMerged(t.Context(), out, needsMatrix, MergeOptions{Type: "q8_0", Threads: 1}); err != nil {
		t.Errorf("q8_0 in place of a type that needs an importance matrix: %v", err)
	}
}

// wantFiles checks that a folder holds these files and no other, not even a hidden one.
func wantFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !reflect.DeepEqual(got, names) {
		t.Errorf("the folder holds %q, want %q", got, names)
	}
}

// endsLater is cancelled when it has been asked so many times.
type endsLater struct {
	context.Context
	left int
}

func (c *endsLater) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestMergedInterrupted leaves nothing, and what was there as it was, wherever it is stopped.
func TestMergedInterrupted(t *testing.T) {
	base, described := tinyBase(t, bindings.Q8_0)
	a := random(t, described, 0.1)
	dir := t.TempDir()
	path := filepath.Join(dir, "merged.gguf")
	if err := os.WriteFile(path, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []MergeOptions{keep(), {Type: TypeAuto, Budget: 1 << 20, Threads: 1}} {
		o.Overwrite = true
		for left := 0; left < 28; left += 5 {
			_, err := a.SaveMerged(&endsLater{t.Context(), left}, path, base, o)
			if finished := o.Type == TypeKeep && left >= len(a.Layers); !finished && !errors.Is(err, context.Canceled) {
				t.Errorf("%s after %d tensors: %v", o.Type, left, err)
			} else if !finished && string(read(t, path)) != "older" {
				t.Fatalf("%s after %d tensors: the older file is gone", o.Type, left)
			}
			if err == nil {
				if err := os.WriteFile(path, []byte("older"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			wantFiles(t, dir, "merged.gguf")
		}
	}
}

// TestSpend takes what gains most for a byte first, and never more than there is.
func TestSpend(t *testing.T) {
	options := [][]option{
		{{bytes: 10, cost: 8}, {bytes: 12, cost: 4}, {bytes: 20, cost: 0}}, // gains 2 a byte, then 0.5
		{{bytes: 10, cost: 3}, {bytes: 11, cost: 2}, {bytes: 13, cost: 0}}, // gains 1 a byte
		{{bytes: 10, cost: 1}, {bytes: 14, cost: 2}},                       // gains nothing
	}
	for _, test := range []struct {
		budget int64
		want   []int
	}{{0, []int{0, 0, 0}}, {1, []int{0, 1, 0}}, {2, []int{1, 0, 0}}, {3, []int{1, 1, 0}}, {5, []int{1, 2, 0}},
		{12, []int{1, 2, 0}}, {13, []int{2, 2, 0}}, {100, []int{2, 2, 0}}} {
		if got := spend(options, test.budget); !slices.Equal(got, test.want) {
			t.Errorf("budget %d: %v, want %v", test.budget, got, test.want)
		}
	}
}
