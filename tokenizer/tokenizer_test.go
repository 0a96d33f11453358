package tokenizer_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/tokenizer"
)

// folders are those of the environment variable, or the shared one.
func folders(t testing.TB) []string {
	list := os.Getenv("VERATUNE_TOKENIZERS")
	if list == "" {
		list = "../shared/refs/tokenizers"
	}
	var found []string
	for _, path := range filepath.SplitList(list) {
		if !filepath.IsAbs(path) {
			path = filepath.Join("..", path) // from the repository's folder
		}
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Skipf("no reference data at %s; set VERATUNE_TOKENIZERS", list)
	}
	return found
}

func read(t testing.TB, path string, to any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, to); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// vocabulary is that of a folder for a pre-tokenizer.
func vocabulary(t testing.TB, folder, pre string) tokenizer.Vocabulary {
	v, name := tokenizer.Vocabulary{Model: "gpt2", Pre: pre}, "vocabulary.json"
	if pre == "gemma4" {
		v.Model, name = "gemma4", "vocabulary-gemma4.json"
	}
	var file struct{ Tokens, Merges, Control []string }
	read(t, filepath.Join(folder, name), &file)
	v.Tokens, v.Merges = file.Tokens, file.Merges
	for _, text := range file.Tokens {
		kind := int32(1)
		switch {
		case slices.Contains(file.Control, text):
			kind = 3
		case pre == "gemma4" && len(text) == 6 && strings.HasPrefix(text, "<0x"):
			kind = 6
		}
		v.Types = append(v.Types, kind)
	}
	return v
}

// TestTokenizers compares the tokens of texts with those of a current llama.cpp, for every pre-tokenizer.
func TestTokenizers(t *testing.T) {
	for _, folder := range folders(t) {
		var texts []string
		read(t, filepath.Join(folder, "texts.json"), &texts)
		file, err := os.Open(filepath.Join(folder, "tokens.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		list, count, wrong := map[string]*tokenizer.Tokenizer{}, 0, map[string]int{}
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<26)
		for lines.Scan() {
			var line struct {
				Pre  string
				Text int
				IDs  []int32
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Fatal(err)
			}
			v := list[line.Pre]
			if v == nil {
				if v, err = tokenizer.New(vocabulary(t, folder, line.Pre)); err != nil {
					t.Fatal(err)
				}
				list[line.Pre] = v
			}
			count++
			got, err := v.Tokenize(t.Context(), texts[line.Text], false, false)
			if err != nil || !slices.Equal(got, line.IDs) {
				if wrong[line.Pre]++; wrong[line.Pre] <= 2 {
					t.Errorf("%s, %q:\n got %v, %v\nwant %v", line.Pre, texts[line.Text], got, err, line.IDs)
				}
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d texts of %d pre-tokenizers, wrong: %v", folder, count, len(list), wrong)
	}
}
