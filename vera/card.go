package vera

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// Facts that have keys of their own in GGUF's metadata.
const (
	factData         = "data"          // names of files, separated by ", "
	factChatTemplate = "chat_template" // a Jinja program
	keyChatTemplate  = "tokenizer.chat_template"

	factPreTokenizer = "pre_tokenizer" // the name of one
	keyPreTokenizer  = "tokenizer.ggml.pre"
)

// maxDatasets keeps a broken file from asking for time without end.
const maxDatasets = 1 << 10

// labels are the methods as people write them.
var labels = map[Method]string{MethodVeRA: "VeRA", MethodLoRA: "LoRA"}

// card says what a LoRA is in the keys of llama.cpp's converter: its name, what it was made from, under which licence,
// and with which data.
func (a *Adapter) card() []entry {
	entries := a.names()
	for _, key := range []string{"basename", "size_label", "license", "license.name", "license.link", "languages"} {
		if value, ok := a.Base.General[key]; ok {
			entries = append(entries, entry{"general." + key, value})
		}
	}
	tags, _ := a.Base.General["tags"].([]string)
	if method := string(a.Method); !slices.Contains(tags, method) {
		tags = append(slices.Clone(tags), method)
	}
	entries = append(entries, entry{"general.tags", tags})
	entries = append(entries, a.lineage()...)
	return append(entries, datasets(dataNames(a.Facts))...)
}

// names are those of the base model, with the method added.
func (a *Adapter) names() []entry {
	finetune := string(a.Method)
	if of := a.Base.text("finetune"); of == finetune || strings.HasSuffix(of, "-"+finetune) {
		finetune = of
	} else if of != "" {
		finetune = of + "-" + finetune
	}
	return []entry{{"general.name", a.Base.title() + " " + labels[a.Method]}, {"general.finetune", finetune}}
}

// lineage names the base model, with what it says of where it comes from.
func (a *Adapter) lineage() []entry {
	const of = "general.base_model.0."
	entries := []entry{{"general.base_model.count", uint32(1)}, {of + "name", a.Base.title()}}
	for _, key := range []string{"author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"} {
		if value := cmp.Or(a.Base.text(key), a.Base.text("source."+key)); value != "" {
			entries = append(entries, entry{of + key, value})
		}
	}
	return entries
}

// General gives what a file says of itself under "general.", for a Base.
func General(g *bindings.GGUF) map[string]any {
	said := map[string]any{}
	for _, key := range g.Keys() {
		short, ok := strings.CutPrefix(key, "general.")
		if !ok {
			continue
		}
		switch value := g.Value(key).(type) {
		case string, []string:
			said[short] = value
		}
	}
	return said
}

// text is a text that the base model says of itself, or "".
func (b Base) text(key string) string {
	s, _ := b.General[key].(string)
	return s
}

// title is the base model's name.
func (b Base) title() string { return cmp.Or(b.text("name"), b.Name) }

// datasets lists names of data.
func datasets(names []string) (entries []entry) {
	if len(names) == 0 {
		return nil
	}
	entries = append(entries, entry{"general.dataset.count", uint32(len(names))})
	for i, name := range names {
		entries = append(entries, entry{"general.dataset." + strconv.Itoa(i) + ".name", name})
	}
	return entries
}

// withoutFolders leaves only the names of the data.
func withoutFolders(facts map[string]string) map[string]string {
	if _, known := facts[factData]; known {
		facts[factData] = strings.Join(dataNames(facts), ", ")
	}
	return facts
}

// dataNames names the files that an adapter was trained on, without their folders, which are nobody else's business.
func dataNames(facts map[string]string) (names []string) {
	for _, name := range strings.Split(facts[factData], ", ") {
		if name = name[strings.LastIndexAny(name, `/\`)+1:]; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// made says, for a file in another form than the adapter's own, how the adapter was trained. What is known already
// stays.
func (a *Adapter) made() (entries []entry) {
	for _, e := range []entry{{"method", string(a.Method)}, {"rank", strconv.Itoa(a.Rank)}} {
		if _, known := a.Facts[e.key]; !known {
			entries = append(entries, entry{factPrefix + e.key, e.value})
		}
	}
	return entries
}

// relabel says in the metadata of a merged file what it was made from. The base model's own lineage gives way to the
// base model; its data stay.
func (a *Adapter) relabel(w *bindings.GGUFWriter, base *bindings.GGUF) error {
	var data []string
	for _, key := range base.Keys() {
		if strings.HasPrefix(key, "general.base_model.") {
			w.Unset(key)
		}
	}
	count, _ := base.Uint("general.dataset.count")
	for i := range min(count, maxDatasets) {
		name, _ := base.String("general.dataset." + strconv.FormatUint(i, 10) + ".name")
		data = append(data, name)
	}
	entries := append(a.names(), a.lineage()...)
	for _, name := range dataNames(a.Facts) {
		if !slices.Contains(data, name) {
			entries = append(entries, entry{"general.dataset." + strconv.Itoa(len(data)) + ".name", name})
			data = append(data, name)
		}
	}
	if len(data) > 0 {
		entries = append(entries, entry{"general.dataset.count", uint32(len(data))})
	}
	return setAll(w, entries)
}
