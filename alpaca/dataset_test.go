package alpaca

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data.txt")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func whole(path string) []Part { return []Part{{path, 1}} }

// samplesOf reads all samples again.
func samplesOf(t *testing.T, d *Dataset) []Sample {
	t.Helper()
	var samples []Sample
	for _, e := range d.entries {
		s, err := d.sample(e)
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, s)
	}
	return samples
}

// numbered is a dataset of n rows of different lengths.
func numbered(t *testing.T, n int) *Dataset {
	t.Helper()
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf(`{"prompt": "%d=", "completion": "%s."}`, i, strings.Repeat("x", i%7)))
	}
	d, err := Load(whole(write(t, lines...)), fakeTokenizer{}, Default())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestLoadCounts(t *testing.T) {
	path := write(t,
		`{"prompt": "ab", "completion": "c"}`,
		`{"prompt": "ab"}`,
		`{"prompt": "ab", "completion": "cdefgh"}`,
		`{"prompt": "abcdefgh", "completion": "i"}`,
	)
	o := Default()
	o.MaxLength = 6
	d, err := Load(whole(path), fakeTokenizer{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	want := Counts{Rows: 4, Used: 2, Skipped: 2, NoRoom: 1, Samples: 2, Truncated: 1, Tokens: 3 + 5, Labelled: 2 + 4}
	if got := d.Counts(); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	if got, want := d.Counts().String(), "2 rows of 4 (2 skipped), 1 answers left out since their prompts are longer "+
		"than max-length, 1 truncated, 8 tokens, 6 of them labelled"; got != want {
		t.Errorf("counts read %q, want %q", got, want)
	}
	if len(d.Bad) != 2 || d.Bad[0].Row != 2 || d.Bad[1].Row != 4 || d.Form.Template != Alpaca || d.entries[1].row != 3 {
		t.Errorf("dataset %+v", d)
	}

	o.Strict = true
	var bad BadRow
	if _, err := Load(whole(path), fakeTokenizer{}, o); !errors.As(err, &bad) || bad.Row != 2 ||
		!strings.Contains(err.Error(), path+": row 2: completion is missing") {
		t.Errorf("strict: %v", err)
	}
	if _, err := Load(whole(write(t, `{"prompt": "abcdefgh", "completion": "i"}`)), fakeTokenizer{}, o); !errors.As(err,
		&bad) || bad.Row != 1 {
		t.Errorf("strict, no room for a label: %v", err)
	}
	o.Strict = false
	if _, err := Load(whole(write(t, `{"prompt": "abcdefgh", "completion": "i"}`)), fakeTokenizer{}, o); err == nil ||
		!strings.Contains(err.Error(), "no usable row in 1; row 1: the prompt's 8 tokens") {
		t.Errorf("no usable row: %v", err)
	}
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Options){
		"template: want": func(o *Options) { o.Template = "" },
		`date "x"`:       func(o *Options) { o.Date = "x" },
		`train-on "x"`:   func(o *Options) { o.TrainOn = "x" },
		"max-length 1:":  func(o *Options) { o.MaxLength = 1 },
		"batch 0:":       func(o *Options) { o.Batch = 0 },
	} {
		o := Default()
		change(&o)
		if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	d := numbered(t, 50)
	held := func(part float64, seed uint64) (training, heldOut []int) {
		a, b, err := d.Split(part, seed)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range a.entries {
			training = append(training, int(e.row))
		}
		for _, e := range b.entries {
			heldOut = append(heldOut, int(e.row))
		}
		return training, heldOut
	}
	for part, want := range map[float64]int{0: 0, 0.001: 1, 0.1: 5, 0.98: 49, 1: 1, 7: 7} {
		training, heldOut := held(part, 1)
		both := slices.Sorted(slices.Values(slices.Concat(training, heldOut)))
		if len(heldOut) != want || len(slices.Compact(both)) != 50 || !slices.IsSorted(training) ||
			!slices.IsSorted(heldOut) {
			t.Errorf("part %v: trains on %v, holds %v out", part, training, heldOut)
		}
	}
	_, first := held(0.2, 3)
	if _, again := held(0.2, 3); !slices.Equal(first, again) {
		t.Error("the same seed holds other rows out")
	}
	if _, other := held(0.2, 4); slices.Equal(first, other) {
		t.Error("another seed holds the same rows out")
	}
	for _, part := range []float64{-1, 1.5, 50, 1e300, 0.999, math.NaN(), math.Inf(1)} {
		if _, _, err := d.Split(part, 0); err == nil {
			t.Errorf("part %v was taken", part)
		}
	}
}

func TestSplitKeepsRepeatedRowsApart(t *testing.T) {
	d := numbered(t, 10)
	d.entries = append(d.entries, d.entries...)
	training, heldOut, err := d.Split(5, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range samplesOf(t, heldOut) {
		for _, s := range samplesOf(t, training) {
			if slices.Equal(h.Tokens, s.Tokens) {
				t.Fatalf("row %d is held out and trained on", h.Row)
			}
		}
	}
	d.entries = []entry{d.entries[0], d.entries[0]}
	if _, _, err := d.Split(1, 0); err == nil {
		t.Error("nothing left to train on, and no error")
	}
}

// rowsOf unpacks an epoch and returns the rows in the order in which they came.
func rowsOf(t *testing.T, d *Dataset, s *Source, epoch, batch int) []int {
	t.Helper()
	var order []int
	samples := samplesOf(t, d)
	for i := range s.Batches() {
		tokens, targets, lengths, err := s.Batch(epoch, i)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Tokens(epoch, i); n != len(tokens) {
			t.Errorf("batch %d has %d tokens, not %d", i, len(tokens), n)
		}
		if len(lengths) > batch || len(lengths) == 0 || i < s.Batches()-1 && len(lengths) != batch {
			t.Fatalf("batch %d has %d samples", i, len(lengths))
		}
		for _, n := range lengths {
			j := slices.IndexFunc(samples, func(s Sample) bool {
				return len(s.Tokens) == n && slices.Equal(s.Tokens, tokens[:n]) && slices.Equal(s.Targets, targets[:n])
			})
			if j < 0 {
				t.Fatalf("batch %d holds a sample that is not in the dataset", i)
			}
			order = append(order, samples[j].Row)
			tokens, targets = tokens[n:], targets[n:]
		}
		if len(tokens)+len(targets) > 0 {
			t.Fatalf("batch %d holds %d tokens of no sample", i, len(tokens))
		}
	}
	return order
}

func TestEpochs(t *testing.T) {
	const rows, batch = 23, 4
	d := numbered(t, rows)
	o := Default()
	s := d.Source(o)
	if s.Batches() != 6 {
		t.Errorf("%d batches, want 6", s.Batches())
	}
	all := rowsOf(t, d, d.InOrder(batch), 5, batch)
	if len(all) != rows || !slices.IsSorted(all) {
		t.Errorf("in order: %v", all)
	}
	first, second := rowsOf(t, d, s, 0, batch), rowsOf(t, d, s, 1, batch)
	for _, order := range [][]int{first, second} {
		if !slices.Equal(slices.Sorted(slices.Values(order)), all) || slices.Equal(order, all) {
			t.Errorf("epoch in the order %v is no shuffle", order)
		}
	}
	if slices.Equal(first, second) {
		t.Error("two epochs have the same order")
	}
	if again := rowsOf(t, d, d.Source(o), 1, batch); !slices.Equal(second, again) {
		t.Error("an epoch's order depends on what was read before it")
	}
	o.Seed = 1
	if other := rowsOf(t, d, d.Source(o), 0, batch); slices.Equal(first, other) {
		t.Error("two seeds have the same order")
	}
}

// The order is part of a checkpoint's meaning: a resumed run must get the same one from any build.
func TestPermutationIsFixed(t *testing.T) {
	if got, want := fmt.Sprint(permutation(8, 42, 1)), "[7 2 0 6 5 3 4 1]"; got != want {
		t.Errorf("permutation %s, want %s", got, want)
	}
}

func TestFingerprint(t *testing.T) {
	d := numbered(t, 9)
	base := d.Source(Default()).Fingerprint()
	if again := numbered(t, 9).Source(Default()).Fingerprint(); again != base || len(base) != 64 {
		t.Errorf("fingerprints %s and %s of the same data", base, again)
	}
	seen := map[string]string{base: "nothing"}
	check := func(what string, s *Source) {
		f := s.Fingerprint()
		if seen[f] != "" {
			t.Errorf("changing %s gives the fingerprint of changing %s", what, seen[f])
		}
		seen[f] = what
	}
	o := Default()
	o.Batch = 2
	check("batch", d.Source(o))
	o = Default()
	o.Seed = 1
	check("seed", d.Source(o))
	o = Default()
	o.Shuffle = false
	check("shuffle", d.Source(o))
	check("rows", numbered(t, 8).Source(Default()))
	label := numbered(t, 9)
	label.entries[3].digest[0]++
	check("a target", label.Source(Default()))
}

func TestStarter(t *testing.T) {
	o := Default()
	o.Strict = true
	o.MaxLength = 4096 // the fake tokenizer has a token a byte
	d, err := Starter(fakeTokenizer{}, o)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := parseRows(StarterName, starter)
	if err != nil {
		t.Fatal(err)
	}
	if n := d.Len(); n < 200 || d.Counts().Truncated > 0 {
		t.Errorf("starter set: %v, want at least 200 whole rows", d.Counts())
	}
	withInput := 0
	instructions, outputs := map[string]int{}, map[string]int{}
	for _, r := range rs.good {
		if r.input != "" {
			withInput++
		}
		for _, text := range []string{r.instruction, r.input, r.output} {
			if text != strings.TrimSpace(text) {
				t.Errorf("row %d has white space around a text", r.number)
			}
		}
		key := strings.ToLower(r.instruction)
		if instructions[key] > 0 {
			t.Errorf("row %d repeats the instruction of row %d", r.number, instructions[key])
		}
		instructions[key] = r.number
		if len(r.output) > 12 && outputs[r.output] > 0 {
			t.Errorf("row %d repeats the output of row %d", r.number, outputs[r.output])
		}
		outputs[r.output] = r.number
	}
	if part := float64(withInput) / float64(len(rs.good)); part < 0.25 || part > 0.45 {
		t.Errorf("%d of %d starter rows have an input, want about a third", withInput, len(rs.good))
	}
}

// sharedFolder holds real instruction data that is not part of the project.
func sharedFolder() string {
	if dir := os.Getenv("VERATUNE_SHARED"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "shared")
}

func TestRealFiles(t *testing.T) {
	for name, want := range map[string]Counts{
		"alpaca_libre_ok_v1-3.json": {Rows: 3107, Used: 3107},
		"alpaca_15k.json":           {Rows: 15130, Used: 15121, Skipped: 9}, // nine outputs are empty
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(sharedFolder(), "data", name)
			if _, err := os.Stat(path); err != nil {
				t.Skipf("%s is not in the folder that VERATUNE_SHARED names", name)
			}
			o := Default()
			o.MaxLength = 1 << 20
			d, err := Load(whole(path), fakeTokenizer{}, o)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			c := d.Counts()
			if c.Rows != want.Rows || c.Used != want.Used || c.Skipped != want.Skipped {
				t.Errorf("%v, want %v; %v", c, want, d.Bad)
			}
		})
	}
}
