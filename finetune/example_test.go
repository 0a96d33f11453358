package finetune_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/finetune"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

func Example() {
	path, remove := testutil.ExampleModel() // in place of a model of yours
	defer remove()
	folder := filepath.Dir(path)
	o := finetune.Default(vera.MethodVeRA)
	o.Model = path
	rows := filepath.Join(folder, "rows.jsonl")
	if err := os.WriteFile(rows, []byte(strings.Repeat(`{"instruction": "add 3", "output": "it is 4"}`+"\n", 16)),
		0o600); err != nil {
		fmt.Println(err)
		return
	}
	o.Data = []alpaca.Part{{Path: rows, Weight: 1}}
	o.Adapter.Rank, o.Adapter.Targets, o.HeldOut, o.Train.Steps = 8, []string{"attn_q", "attn_v"}, 0, 3
	o.Folder, o.Engine.Compute = filepath.Join(folder, "run"), model.ComputeF32
	o.Report = session.Report{Note: func(line string) { fmt.Println(strings.ReplaceAll(line, folder+"/", "")) }}
	if err := o.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	result, err := finetune.Run(context.Background(), &o)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Steps, "steps:", filepath.Base(result.Adapter))
	// Output:
	// template: the model's own chat template
	// rows.jsonl: JSON lines; instruction (16)
	// rows.jsonl: 16 rows, 384 tokens, 80 of them labelled
	// compute f32: float32
	// tiny random Llama: llama, 2 blocks, width 64; vera rank 8 on 4 layers (attn_q, attn_v), 224 trained numbers
	// 3 steps: adapter.gguf
}

// TestDefault: the recipes of both methods are options that pass.
func TestDefault(t *testing.T) {
	for _, method := range vera.Methods {
		o := finetune.Default(method)
		if err := o.Validate(); err != nil || o.Adapter.Method != method {
			t.Errorf("%s: %+v, %v", method, o.Adapter, err)
		}
	}
	if lr := finetune.Default(vera.MethodLoRA).Train.LR; lr != 4e-4 {
		t.Errorf("LoRA's learning rate is %g", lr)
	}
}

// TestImportChangesNothing: a program that imports all of this has the environment that it was started with.
func TestImportChangesNothing(t *testing.T) {
	started, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		t.Skip(err)
	}
	given := strings.Split(strings.TrimRight(string(started), "\x00"), "\x00")
	for _, variable := range os.Environ() {
		if !slices.Contains(given, variable) {
			t.Errorf("%s is set", variable)
		}
	}
}
