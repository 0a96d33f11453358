package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
)

// --force renames no folder that is no run, that one stands in, or that the command reads from, and says so before
// anything else.
func TestForceRenamesRunsOnly(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	commands := map[string]func(out string, more ...string) []string{
		"alpaca": func(out string, more ...string) []string { return alpacaArgs("", "", out, more...) },
		"sweep": func(out string, more ...string) []string {
			return append(append([]string{"sweep"}, alpacaArgs("", "", out, more...)[1:]...), "--lr", "1e-3,1e-2")
		},
	}
	for name, command := range commands {
		for what, c := range map[string]struct {
			out, says string
			run       bool // the folder has held a run of the command
		}{
			"the current folder": {".", "is where you are", true},
			"its name":           {"PARENT/here", "is where you are", true},
			"the parent":         {"..", "is no run folder", false},
			"another's folder":   {"hf", "holds config.json, a name that runs use, and is no run folder", false},
			"the model's folder": {"models", "which this command reads", true},
			"a run":              {"runs/a", "", true},
		} {
			parent := t.TempDir()
			cwd := filepath.Join(parent, "here")
			t.Chdir(parent)
			for path, content := range map[string]string{
				"here/models/model.gguf": string(read(t, model)), "here/data.json": string(read(t, rows(t, 20))),
				"here/hf/config.json": `{"model_type": "llama"}`, "adapter.gguf": "mine",
			} {
				if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			t.Chdir(cwd)
			out := strings.Replace(c.out, "PARENT", parent, 1)
			args := command(out, "--steps", "1")
			for i := range args {
				switch args[i] {
				case "--model":
					args[i+1] = "models/model.gguf"
				case "--data":
					args[i+1] = "data.json"
				}
			}
			if c.run {
				if code, _, stderr := veratune(args...); code != 0 {
					t.Fatalf("%s, %s: exit code %d, %s", name, what, code, stderr)
				}
			}
			before, err := content(parent)
			if err != nil {
				t.Fatal(err)
			}
			code, _, stderr := veratune(append(args, "--force")...)
			if c.says == "" {
				if _, err := os.Stat(out + ".old-1"); code != 0 || err != nil {
					t.Errorf("%s, %s: exit code %d, %s", name, what, code, stderr)
				}
				continue
			}
			if code != exitFailed || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") > 2 {
				t.Errorf("%s, %s: exit code %d, %s", name, what, code, stderr)
			}
			after, err := content(parent)
			if err != nil || len(after) != len(before) {
				t.Errorf("%s, %s: %v became %v, %v", name, what, before, after, err)
			}
		}
	}
}
