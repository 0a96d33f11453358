package bindings

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestHeaderDrift compiles capi.h against the pinned module's own headers, and copies with an error that the compiler
// must find.
func TestHeaderDrift(t *testing.T) {
	capi, err := os.ReadFile("../ggml/capi.h")
	if err != nil {
		t.Fatal(err)
	}
	compile := driftCompiler(t)
	if out, err := compile(string(capi)); err != nil {
		t.Errorf("capi.h has drifted from the module's headers: %v\n%s", err, out)
	}
	for name, change := range map[string][2]string{
		"an argument's type": {"ggml_blck_size(unsigned type)", "ggml_blck_size(int64_t type)"},
		"a result's type": {"int  ggml_backend_graph_compute",
			"bool ggml_backend_graph_compute"},
		"an argument less":       {"float scale, float max_bias);", "float scale);"},
		"a field's size":         {"int32_t                      flags;", "int64_t flags;"},
		"a field less":           {"    bool         use_mlock;\n", ""},
		"a field of a batch":     {"    int8_t *   logits;", "    int8_t logits;"},
		"a context's field less": {"    float        defrag_thold;\n", ""},
		"two fields exchanged": {"    int32_t *  pos;\n    int32_t *  n_seq_id;",
			"    int32_t *  n_seq_id;\n    int32_t *  pos;"},
		"a constant":        {"VT_MAX_SRC       = 10", "VT_MAX_SRC = 11"},
		"a callback's type": {"(*vt_log_callback)(unsigned level,", "(*vt_log_callback)(const char * level,"},
		"an argument's constness": {"llama_tokenize(const struct llama_vocab * vocab",
			"llama_tokenize(struct llama_vocab * vocab"},
		"a pointer less in a name": {"const char ** data, size_t n", "const char * data, size_t n"},
	} {
		if !strings.Contains(string(capi), change[0]) {
			t.Errorf("%s: capi.h does not hold %q any more", name, change[0])
			continue
		}
		if _, err := compile(strings.Replace(string(capi), change[0], change[1], 1)); err == nil {
			t.Errorf("%s: the compiler lets %q pass for %q", name, change[1], change[0])
		}
	}
}

// driftCompiler gives a function that checks testdata/drift.c with a capi.h of that text, and returns the compiler's
// output.
func driftCompiler(t *testing.T) func(capi string) (output []byte, err error) {
	t.Helper()
	ask := func(args ...string) string {
		out, err := exec.Command("go", args...).Output()
		if err != nil {
			t.Fatalf("go %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	module := ask("list", "-m", "-f", "{{.Dir}}", "github.com/ollama/ollama")
	cc := strings.Fields(ask("env", "CC"))
	dir := t.TempDir()
	args := append(cc[1:], "-std=c11", "-fsyntax-only", "-I", dir, "-I",
		filepath.Join(module, "ml/backend/ggml/ggml/include"),
		"-I", filepath.Join(module, "llama/llama.cpp/include"))
	for name, value := range map[string]Type{
		"F32": F32, "F16": F16, "BF16": BF16, "I32": I32, "Q4_0": Q4_0, "Q4_1": Q4_1, "Q5_0": Q5_0, "Q5_1": Q5_1,
		"Q8_0": Q8_0,
		"Q2_K": Q2_K, "Q3_K": Q3_K, "Q4_K": Q4_K, "Q5_K": Q5_K, "Q6_K": Q6_K, "typeCount": typeCount,
		"alignment": alignment, "ggufUint8": ggufUint8, "ggufInt8": ggufInt8, "ggufUint16": ggufUint16,
		"ggufInt16": ggufInt16, "ggufUint32": ggufUint32,
		"ggufInt32": ggufInt32, "ggufFloat32": ggufFloat32, "ggufBool": ggufBool, "ggufString": ggufString,
		"ggufArray":  ggufArray,
		"ggufUint64": ggufUint64, "ggufInt64": ggufInt64, "ggufFloat64": ggufFloat64,
	} {
		args = append(args, fmt.Sprintf("-DGO_%s=%d", name, uint32(value)))
	}
	args = append(args, filepath.Join("testdata", "drift.c"))
	return func(capi string) ([]byte, error) {
		if err := os.WriteFile(filepath.Join(dir, "capi.h"), []byte(capi), 0o600); err != nil {
			return nil, err
		}
		return exec.Command(cc[0], args...).CombinedOutput()
	}
}
