package alpaca

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// rendering is a line of renderings.jsonl: what transformers' apply_chat_template makes of a conversation, or that it
// fails.
type rendering struct {
	Template string            `json:"template"`
	Case     string            `json:"case"`
	Messages []json.RawMessage `json:"messages"`
	Tools    json.RawMessage   `json:"tools"`
	Prompt   bool              `json:"add_generation_prompt"`
	BOS      string            `json:"bos_token"`
	EOS      string            `json:"eos_token"`
	Text     *string           `json:"text"`
	Error    string            `json:"error"`
}

// templateFolders are those that VERATUNE_TEMPLATES lists, each with templates (*.jinja) and what they render
// (renderings.jsonl), as tools/render_templates.py writes it; else that of the shared folder.
func templateFolders(t *testing.T) []string {
	t.Helper()
	if list := os.Getenv("VERATUNE_TEMPLATES"); list != "" {
		return filepath.SplitList(list)
	}
	shared := os.Getenv("VERATUNE_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	folder := filepath.Join(shared, "refs", "templates")
	if _, err := os.Stat(folder); err != nil {
		t.Skip("no reference renderings; set VERATUNE_TEMPLATES to folders that have them")
	}
	return []string{folder}
}

// readRenderings returns the lines of a folder.
func readRenderings(t *testing.T, folder string) (list []rendering) {
	t.Helper()
	f, err := os.Open(filepath.Join(folder, "renderings.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var r rendering
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func (r rendering) conversation(t *testing.T) conversation {
	t.Helper()
	var c conversation
	for _, raw := range r.Messages {
		c.messages = append(c.messages, asWritten(t, raw))
	}
	if string(r.Tools) != "null" {
		c.tools = r.Tools
	}
	return c
}

// render renders the case as on a day.
func (r rendering) render(t *testing.T, source string, day time.Time) (string, error) {
	t.Helper()
	tok := specialTokens{bos: r.BOS, eos: r.EOS}
	c := newControls(tok)
	template, err := newChatTemplate(r.Template, source, tok, c, nil, day)
	if err != nil {
		return "", err
	}
	got, err := template.render(r.conversation(t), r.Prompt)
	return got.text, err
}

// days are those that the rendering names: a template that asks for the date was rendered on one of them.
func (r rendering) days() []time.Time {
	var list []time.Time
	if r.Text == nil {
		return nil
	}
	for _, s := range namedDay.FindAllString(*r.Text, -1) {
		for _, layout := range []string{"2006-01-02", "02-01-2006", "02 Jan 2006"} {
			if day, err := time.Parse(layout, s); err == nil {
				list = append(list, day)
			}
		}
	}
	return list
}

var namedDay = regexp.MustCompile(`\d{4}-\d\d-\d\d|\d\d-\d\d-\d{4}|\d\d [A-Z][a-z]{2} \d{4}`)

// asWritten is a message with its fields as they stand.
func asWritten(t *testing.T, raw json.RawMessage) Message {
	t.Helper()
	var m Message
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.Token()
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		m.Fields = append(m.Fields, Field{name.(string), value})
		switch name {
		case "role":
			json.Unmarshal(value, &m.Role)
		case "content":
			json.Unmarshal(value, &m.Content)
		}
	}
	return m
}

// specialTokens has two control tokens, BOS and EOS.
type specialTokens struct {
	fakeTokenizer
	bos, eos string
}

func (s specialTokens) Controls(yield func(int32, string, bool, bool)) {
	yield(bosToken, s.bos, false, false)
	yield(eosToken, s.eos, false, false)
}

// TestTemplateRenderings compares every rendering with transformers', byte for byte.
func TestTemplateRenderings(t *testing.T) {
	for _, folder := range templateFolders(t) {
		equal, failed := 0, 0
		for _, r := range readRenderings(t, folder) {
			source, err := os.ReadFile(filepath.Join(folder, r.Template))
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.render(t, string(source), time.Now())
			for _, day := range r.days() {
				if err != nil || got == *r.Text {
					break
				}
				got, err = r.render(t, string(source), day)
			}
			switch {
			case r.Text == nil && err != nil:
				equal++
			case r.Text == nil:
				t.Errorf("%s, %s: renders %q, want the error %s", r.Template, r.Case, got, r.Error)
				failed++
			case err != nil:
				t.Errorf("%s, %s: %v", r.Template, r.Case, err)
				failed++
			case got != *r.Text:
				n := commonPrefix(got, *r.Text)
				t.Errorf("%s, %s: after %q, %q instead of %q", r.Template, r.Case, got[max(0, n-20):n],
					excerpt(got[n:]), excerpt((*r.Text)[n:]))
				failed++
			default:
				equal++
			}
		}
		t.Logf("%s: %d renderings equal, %d not", folder, equal, failed)
		if equal == 0 {
			t.Errorf("%s: nothing was compared", folder)
		}
	}
}
