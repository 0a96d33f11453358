package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

func TestInspectShowsBars(t *testing.T) {
	var out strings.Builder
	layers := []vera.LayerNorms{
		{Name: "blk.0.ffn_up", Target: "ffn_up", Norms: map[string]float64{"b": 0, "d": 1}},
		{Name: "blk.1.attn_q", Block: 1, Target: "attn_q", Norms: map[string]float64{"b": 2, "d": 1}},
		{Name: "blk.1.ffn_up", Block: 1, Target: "ffn_up", Norms: map[string]float64{"b": 0.1, "d": 1}},
		{Name: "blk.3.ffn_up", Block: 3, Target: "ffn_up", Norms: map[string]float64{"b": 1, "d": 1}},
	}
	if err := printNorms(&out, layers); err != nil {
		t.Fatal(err)
	}
	want := `
‖b‖ of blocks 0 to 3; █ is 2
attn_q        █    2 to 2
ffn_up       ·▁ ▄  0 to 1

‖d‖ of blocks 0 to 3; █ is 1
attn_q        █    1 to 1
ffn_up       ██ █  1 to 1
`
	if out.String() != want {
		t.Errorf("%s\nwant%s", out.String(), want)
	}
}

// A model that an adapter was merged into says so.
func TestInspectOfAMergedModel(t *testing.T) {
	plain := testutil.TinyLlama(t, testutil.TinyOptions{})
	merged := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["veratune.adapter"], f.Metadata["veratune.steps"] = "0123abcd", "12"
	}})
	if code, stdout, stderr := veratune("inspect", plain); code != 0 || strings.Contains(stdout, "merged") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, stderr := veratune("inspect", merged)
	if code != 0 || !strings.Contains(stdout, "merged") || !strings.Contains(stdout, "0123abcd") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	var asJSON struct {
		Blocks int               `json:"blocks"`
		Facts  map[string]string `json:"facts"`
	}
	_, stdout, _ = veratune("inspect", "--json", merged)
	if err := json.Unmarshal([]byte(stdout), &asJSON); err != nil || asJSON.Facts["steps"] != "12" ||
		asJSON.Blocks != 2 {
		t.Errorf("%+v, %v", asJSON, err)
	}
}

// Commands that look at a model say its architecture and what of it is adapted.
func TestArchitectureIsSaid(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 5)
	plan := []string{"plan", "--model", model, "--data", data, "--rank", "4", "--threads", "1"}
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"inspect", model}, []string{"llama", "rotation of neighbours", "14 linear layers: attn_q, attn_k",
			"VeRA trains 896 + 14·rank numbers"}},
		{[]string{"inspect", "--json", model}, []string{`"architecture":"llama"`, `"made_of":["RMS`,
			`"targets":[{"name":"attn_q","layers":2,"in":64,"out":64}`, `"frozen":[]`}},
		{plan, []string{"llama: RMS norms", "adapted: 14 layers, attn_q, "}},
		{append(plan, "--json", "--targets", "attn_v"),
			[]string{`"architecture":"llama"`, `"targets":["attn_v"],"layers":2`}},
		{[]string{"devices", "--model", model}, []string{"llama: RMS norms", "cpu"}},
		{[]string{"devices", "--model", model, "--json"}, []string{`"name":"cpu"`, `"architecture":"llama"`}},
	} {
		code, stdout, stderr := veratune(c.args...)
		for _, w := range c.words {
			if code != 0 || !strings.Contains(stdout, w) {
				t.Errorf("%q: exit code %d, no %q in %s%s", c.args, code, w, stdout, stderr)
			}
		}
	}
}
