package serve

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// chatReply is what tests read of an answer, or of an error.
type chatReply struct {
	Choices []struct {
		Message struct {
			Content   *string
			ToolCalls []toolCall `json:"tool_calls"`
		}
		FinishReason string `json:"finish_reason"`
	}
	Usage usage
	Error errorBody
}

// say gives a model's answer to a fixed question.
func (r *running) say(t testing.TB, model string) string {
	t.Helper()
	var reply chatReply
	r.json(t, "POST", "/v1/chat/completions", chatBody(model, ""), http.StatusOK, &reply)
	return *reply.Choices[0].Message.Content
}

// refused gives the code of an error with that status.
func (r *running) refused(t testing.TB, model string, status int) string {
	t.Helper()
	var reply chatReply
	r.json(t, "POST", "/v1/chat/completions", chatBody(model, ""), status, &reply)
	if reply.Error.Code == nil {
		return ""
	}
	return *reply.Error.Code
}

// listed are the names of all models.
func (r *running) listed(t testing.TB) (names []string) {
	t.Helper()
	var list struct{ Data []modelObject }
	r.json(t, "GET", "/v1/models", "", http.StatusOK, &list)
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFolder has files appear, change and go while the server runs.
func TestFolder(t *testing.T) {
	r := start(t, nil)
	one, two, base := r.say(t, "one"), r.say(t, "two"), r.say(t, baseName)
	if one == two || one == base || two == base {
		t.Fatalf("answers %q, %q and %q are to differ", one, two, base)
	}
	path := func(name string) string { return filepath.Join(r.folder, name) }

	if code := r.refused(t, "new", http.StatusNotFound); code != codeModel {
		t.Errorf("before it is there: %s", code)
	}
	copyFile(t, path("one.gguf"), path("new.gguf"))
	if got := r.say(t, "new"); got != one || !slices.Contains(r.listed(t), "new") {
		t.Errorf("appeared: %q, want %q; listed %q", got, one, r.listed(t))
	}
	copyFile(t, path("two.gguf"), path("beside"))
	if err := os.Rename(path("beside"), path("new.gguf")); err != nil {
		t.Fatal(err)
	}
	if got := r.say(t, "new"); got != two {
		t.Errorf("replaced: %q, want %q", got, two)
	}

	if err := os.WriteFile(path("new.gguf"), []byte("GGUF and nothing more"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if code := r.refused(t, "new", http.StatusInternalServerError); code != codeAdapter {
			t.Errorf("broken: %s", code)
		}
	}
	if got := r.say(t, "one"); got != one || slices.Contains(r.listed(t), "new") {
		t.Errorf("beside a broken one: %q, want %q; listed %q", got, one, r.listed(t))
	}
	copyFile(t, path("one.gguf"), path("new.gguf"))
	if got := r.say(t, "new"); got != one {
		t.Errorf("mended: %q, want %q", got, one)
	}
	if err := os.Remove(path("new.gguf")); err != nil {
		t.Fatal(err)
	}
	if code := r.refused(t, "new", http.StatusNotFound); code != codeModel || slices.Contains(r.listed(t), "new") {
		t.Errorf("gone: %s; listed %q", code, r.listed(t))
	}
	if n := len(r.adapters.held); n != 2 {
		t.Errorf("%d adapters are held: %v", n, r.adapters.held)
	}
}

// A job's model has colons in its name, which Windows takes for those of a file's other streams.
func TestNamesWithColons(t *testing.T) {
	const name = "ft:base:mine:abc"
	dir := t.TempDir()
	l, err := openLibrary(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := os.WriteFile(filepath.Join(dir, inFolder(name)+adapterFile), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if names, err := l.names(); err != nil || !slices.Equal(names, []string{name}) {
		t.Errorf("%q, %v", names, err)
	}
	if s, err := l.find(name); err != nil || s.files[0].Size() != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestFolders has a run folder and a folder of PEFT stand for their adapters, the best where there is one.
func TestFolders(t *testing.T) {
	r := start(t, nil)
	one, two := r.say(t, "one"), r.say(t, "two")
	run := filepath.Join(r.folder, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if code := r.refused(t, "run", http.StatusNotFound); code != codeModel {
		t.Errorf("an empty folder: %s", code)
	}
	step := map[string]string{"step": "3"}
	saveAdapter(t, r.base, filepath.Join(run, train.AdapterFile), 1, nil, step)
	if got := r.say(t, "run"); got != one {
		t.Errorf("a run: %q, want %q", got, one)
	}
	saveAdapter(t, r.base, filepath.Join(run, train.BestFile), 2, func(c *vera.Config) { c.Rank = 64 }, step)
	if got := r.say(t, "run"); got != two {
		t.Errorf("a run with a best adapter: %q, want %q", got, two)
	}
	a, err := r.base.Load(filepath.Join(r.folder, "one.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SavePEFT(filepath.Join(r.folder, "peft"), true); err != nil {
		t.Fatal(err)
	}
	if got := r.say(t, "peft"); got != one {
		t.Errorf("PEFT: %q, want %q", got, one)
	}
	if names := r.listed(t); !slices.Contains(names, "run") || !slices.Contains(names, "peft") {
		t.Errorf("listed %q", names)
	}
}

// TestNoWayOut: no name leads to a file outside the folder.
func TestNoWayOut(t *testing.T) {
	outside := t.TempDir()
	r := start(t, nil)
	copyFile(t, filepath.Join(r.folder, "one.gguf"), filepath.Join(outside, "secret.gguf"))
	for _, link := range []struct{ to, name string }{
		{filepath.Join(outside, "secret.gguf"), "link.gguf"}, {outside, "folder"}, {"one.gguf", "within.gguf"},
	} {
		if err := os.Symlink(link.to, filepath.Join(r.folder, link.name)); err != nil {
			t.Skip(err)
		}
	}
	relative, err := filepath.Rel(r.folder, outside)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{relative + "/secret", outside + "/secret", "folder/secret", "../" +
		filepath.Base(r.folder) + "/one", "./one", ".", "..", "one.gguf", "one\x00", "one\x00.gguf", `..\one`, "",
		strings.Repeat("a", 10_000), strings.Repeat("../", 3000) + "etc/passwd", "one/", "/", "\xff", "on\ne"} {
		body := chatBody("X", "")
		status, reply := r.ask(t, "POST", "/v1/chat/completions", strings.Replace(body, `"X"`, quoted(name), 1))
		if status != http.StatusNotFound && !(name == "" && status == http.StatusBadRequest) {
			t.Errorf("%.50q: status %d, %s", name, status, reply)
		}
	}
	if code := r.refused(t, "link", http.StatusInternalServerError); code != codeAdapter {
		t.Errorf("a link that leads out: %s", code)
	}
	if got, want := r.say(t, "within"), r.say(t, "one"); got != want {
		t.Errorf("a link within the folder: %q, want %q", got, want)
	}
	for _, path := range []string{"..%2Fone", "%2e%2e%2fone", "one%00", "folder%2Fsecret",
		strings.Repeat("x", 10_000)} {
		if status, reply := r.ask(t, "GET", "/v1/models/"+path, ""); status != http.StatusNotFound {
			t.Errorf("GET %.50s: status %d, %s", path, status, reply)
		}
	}
}

// quoted is a text as JSON.
func quoted(text string) string {
	return strings.ReplaceAll(fmt.Sprintf("%q", text), `\x`, `\u00`)
}

// TestAdapterMemory: adapters that were not used for longest make room, and none that is in use does.
func TestAdapterMemory(t *testing.T) {
	r := start(t, nil)
	answers := map[string]string{}
	for i := range 6 {
		name := fmt.Sprintf("a%d", i)
		saveAdapter(t, r.base, filepath.Join(r.folder, name+".gguf"), uint64(10+i), nil, nil)
		answers[name] = r.say(t, name)
	}
	each := r.adapters.held["a0"].placed.Bytes()
	limited := serve(t, r.base, r.folder, func(o *Options) { o.AdapterMemory = 3*each + each/2 })
	for round := range 3 {
		for i := range 6 {
			name := fmt.Sprintf("a%d", (i*(round+1))%6)
			if got := limited.say(t, name); got != answers[name] {
				t.Errorf("%s: %q, want %q", name, got, answers[name])
			}
			if limited.adapters.bytes > limited.options.AdapterMemory || len(limited.adapters.held) > 3 {
				t.Errorf("%d adapters take %d bytes of %d", len(limited.adapters.held), limited.adapters.bytes,
					limited.options.AdapterMemory)
			}
		}
	}

	var used []*adapter
	for i := range 3 {
		x, err := limited.adapters.use(t.Context(), fmt.Sprintf("a%d", i))
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, x)
	}
	if code := limited.refused(t, "a3", http.StatusServiceUnavailable); code != codeMemory {
		t.Errorf("with all memory in use: %s", code)
	}
	for _, x := range used {
		if x.placed == nil {
			t.Errorf("%s was dropped while in use", x.name)
		}
		limited.adapters.release(x)
	}
	if got := limited.say(t, "a3"); got != answers["a3"] {
		t.Errorf("with memory again: %q, want %q", got, answers["a3"])
	}
	small := serve(t, r.base, r.folder, func(o *Options) { o.AdapterMemory = each / 2 })
	if code := small.refused(t, "a3", http.StatusInternalServerError); code != codeAdapter {
		t.Errorf("an adapter larger than the memory: %s", code)
	}
}

// TestReadOnce: an adapter is read once, however many ask for it at first.
func TestReadOnce(t *testing.T) {
	r := start(t, nil)
	var mu sync.Mutex
	read := map[string]int{}
	load := r.adapters.read
	r.adapters.read = func(path string) (*vera.Adapter, error) {
		mu.Lock()
		read[filepath.Base(path)]++
		mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		return load(path)
	}
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() { r.say(t, []string{"one", "two", "lora"}[i%3]) })
	}
	all.Wait()
	for name, n := range read {
		if n != 1 {
			t.Errorf("%s was read %d times", name, n)
		}
	}
}

// TestCachedTokens: the beginning of a prompt that is still held is counted, of the same adapter alone.
func TestCachedTokens(t *testing.T) {
	r := start(t, nil)
	cached := func(model, more string) int {
		var reply chatReply
		r.json(t, "POST", "/v1/chat/completions", chatBody(model, more), http.StatusOK, &reply)
		return reply.Usage.Details.CachedTokens
	}
	first, again, other, several := cached("one", ""), cached("one", ""), cached("two", ""), cached("one", `, "n": 2`)
	if first != 0 || again != 19 || other != 0 || several != 19 {
		t.Errorf("%d, %d, %d and %d tokens of 20 are not computed again", first, again, other, several)
	}
}

// TestForms: every adapter is asked in the form of its training.
func TestForms(t *testing.T) {
	r := start(t, nil)
	same := func(path string, facts map[string]string) {
		saveAdapter(t, r.base, filepath.Join(r.folder, path), 1, nil, facts)
	}
	same("alpaca.gguf", map[string]string{session.FactTemplate: "alpaca"})
	same("mine.gguf", map[string]string{session.FactTemplate: "mine.jinja",
		session.FactSource: "{{ messages[0].content }}{{ tone }}", session.FactVariables: `{"tone": " dry"}`})
	same("damaged.gguf", map[string]string{session.FactTemplate: "mine.jinja", session.FactSource: "{% if %}"})
	same("absent.gguf", map[string]string{session.FactTemplate: "/etc/hostname.jinja"})
	lengths := map[string]int{}
	for _, name := range []string{"one", "alpaca", "mine"} {
		var reply chatReply
		r.json(t, "POST", "/v1/chat/completions", chatBody(name, ""), http.StatusOK, &reply)
		lengths[name] = reply.Usage.PromptTokens
	}
	if want := len("add 3 dry"); lengths["mine"] > want || lengths["alpaca"] < 50 || lengths["one"] <= lengths["mine"] {
		t.Errorf("prompts have %v tokens", lengths)
	}
	var reply chatReply
	r.json(t, "POST", "/v1/chat/completions", chatBody("mine", `, "chat_template_kwargs": {"tone": ""}`), http.StatusOK,
		&reply)
	if reply.Usage.PromptTokens >= lengths["mine"] {
		t.Errorf("an option of the template changes nothing: %d tokens", reply.Usage.PromptTokens)
	}
	for _, name := range []string{"damaged", "absent"} {
		if code := r.refused(t, name, http.StatusInternalServerError); code != codeAdapter {
			t.Errorf("%s: %s", name, code)
		}
	}
}
