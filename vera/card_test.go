package vera

import (
	"reflect"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// described is a tiny model that says where it comes from.
func described(t *testing.T) (*bindings.GGUF, Base) {
	t.Helper()
	g := testutil.OpenGGUF(t, testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.F32,
		Change: func(f *testutil.TinyFile) {
			for key, value := range map[string]any{
				"name": "Small 1M Instruct", "basename": "small", "size_label": "1M", "finetune": "Instruct",
				"license": "apache-2.0", "organization": "Makers",
				"source.repo_url": "https://example.org/small", "languages": []string{"en"}, "tags": []string{"chat"},
				"base_model.count": uint32(1), "base_model.0.name": "Small 1M", "base_model.0.version": "v1",
				"dataset.count": uint32(1), "dataset.0.name": "Web",
			} {
				f.Metadata["general."+key] = value
			}
		}}))
	base := llama("tiny", 2, 64, 96, 4, 2)
	base.General = General(g)
	return g, base
}

func wantMetadata(t *testing.T, g *bindings.GGUF, want map[string]any) {
	t.Helper()
	for key, value := range want {
		if got := g.Value(key); !reflect.DeepEqual(got, value) {
			t.Errorf("%s is %v, want %v", key, got, value)
		}
	}
}

// lineage is what both forms say of the base model.
var lineage = map[string]any{
	"general.base_model.count": uint32(1), "general.base_model.0.name": "Small 1M Instruct",
	"general.base_model.0.organization": "Makers",
	"general.base_model.0.repo_url":     "https://example.org/small", "general.base_model.0.version": nil,
	"general.license": "apache-2.0", "general.basename": "small", "general.size_label": "1M",
	"general.languages": []string{"en"},
	"veratune.template": "chat", "veratune.data": "rows.json, more.json", "tokenizer.chat_template": "{{ messages }}",
	"veratune.chat_template": nil,
}

func facts() map[string]string {
	return map[string]string{"template": "chat", "data": `/home/me/rows.json, C:\data\more.json`,
		"chat_template": "{{ messages }}"}
}

func TestCardOfLoRA(t *testing.T) {
	_, base := described(t)
	for method, change := range map[Method]func(*Config){MethodVeRA: func(*Config) {}, MethodLoRA: func(c *Config) {
		*c = LoRADefault()
	}} {
		c := toyConfig()
		change(&c)
		a := trained(t, c, base)
		a.Facts = facts()
		_, g := saveLoRA(t, a, DefaultLoRA())
		wantMetadata(t, g, lineage)
		wantMetadata(t, g, map[string]any{
			"general.type": "adapter", "adapter.type": "lora", "general.name": "Small 1M Instruct " + labels[method],
			"general.finetune":      "Instruct-" + string(method),
			"general.dataset.count": uint32(2), "general.dataset.0.name": "rows.json",
			"general.dataset.1.name": "more.json",
			"general.tags":           []string{"chat", string(method)}, "general.file_type": uint32(1),
			"veratune.method": string(method),
		})
		again, err := Load(g.Path(), base)
		if err != nil {
			t.Fatal(err)
		}
		if again.Facts["chat_template"] != "{{ messages }}" || again.Facts["method"] != string(method) {
			t.Errorf("facts %v", again.Facts)
		}
		_, twice := saveLoRA(t, again, DefaultLoRA())
		wantMetadata(t, twice, lineage)
		wantMetadata(t, twice, map[string]any{"veratune.method": string(method)})
	}
}

// No form tells where the data lay, and all come back alike.
func TestDataWithoutFolders(t *testing.T) {
	_, base := described(t)
	a := trained(t, toyConfig(), base)
	a.Facts = facts()
	for form, path := range map[string]string{"native": save(t, a), "PEFT": savePEFT(t, a, false)} {
		b, err := Load(path, base)
		if err != nil {
			t.Fatal(err)
		}
		if b.Facts["data"] != "rows.json, more.json" || b.Facts["chat_template"] != "{{ messages }}" {
			t.Errorf("%s: facts %v", form, b.Facts)
		}
	}
}

func TestCardOfMerged(t *testing.T) {
	base, of := described(t)
	a := trained(t, toyConfig(), of)
	scale(a.Params, 1e-3)
	a.Facts = facts()
	g, _ := saveMerged(t, a, base, keep())
	wantMetadata(t, g, lineage)
	wantMetadata(t, g, map[string]any{
		"general.name": "Small 1M Instruct VeRA", "general.finetune": "Instruct-vera", "general.type": "model",
		"general.tags":          []string{"chat"},
		"general.dataset.count": uint32(3), "general.dataset.0.name": "Web", "general.dataset.1.name": "rows.json",
		"general.dataset.2.name": "more.json",
		"veratune.method":        "vera", "veratune.rank": "4", keyMergedBase: of.Fingerprint,
	})
	// All else is there in its order.
	changed := []string{"general.name", "general.finetune", "general.base_model.count", "general.base_model.0.name",
		"general.base_model.0.version", "general.dataset.count", "tokenizer.chat_template"}
	kept := slices.DeleteFunc(base.Keys(), func(key string) bool { return slices.Contains(changed, key) })
	if got := g.Keys(); !slices.Equal(got[:len(kept)], kept) {
		t.Errorf("the keys are %q, want first %q", got, kept)
	}
	for _, key := range kept {
		if !reflect.DeepEqual(g.Value(key), base.Value(key)) {
			t.Errorf("%s is changed", key)
		}
	}
}
