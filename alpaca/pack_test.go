package alpaca

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Texts are laid end to end and cut at the maximum length: every token but the first of a text is learnt once, and a
// sample that is read again is the same.
func TestPackedTexts(t *testing.T) {
	for _, tok := range []fakeTokenizer{{}, {bos: true}} {
		var lines []string
		var stream []int32
		for i := range 20 {
			text := strings.Repeat(string(rune('a'+i)), 1+i*i%23)
			lines = append(lines, fmt.Sprintf(`{"text": %q}`, text))
			tokens, err := encoder(t, Alpaca, tok).text(text)
			if err != nil {
				t.Fatal(err)
			}
			stream = append(stream, tokens...)
		}
		lines = append(lines[:10], append([]string{`{"prompt": "p", "completion": "c"}`}, lines[10:]...)...)
		o := Default()
		o.MaxLength = 16
		d, err := Load(whole(write(t, lines...)), tok, o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		samples := samplesOf(t, d)
		samples = slices.DeleteFunc(samples, func(s Sample) bool { return s.Row == 11 })
		if got, want := len(samples), (len(stream)-1+o.MaxLength-2)/(o.MaxLength-1); got != want {
			t.Errorf("%d samples, want %d", got, want)
		}
		got := stream[:1:1]
		for _, s := range samples {
			if len(s.Tokens) > o.MaxLength-1 {
				t.Errorf("a sample of %d tokens", len(s.Tokens)+1)
			}
			for i, target := range s.Targets {
				next := stream[len(got)]
				if s.Tokens[i] != got[len(got)-1] || target != next && !(tok.bos && target == -1 && next == bosToken) {
					t.Fatalf("token %d is followed by %d, in the text %d by %d", s.Tokens[i], target,
						got[len(got)-1], next)
				}
				got = append(got, next)
			}
		}
		if !slices.Equal(got, stream) {
			t.Errorf("%d of %d tokens are learnt", len(got), len(stream))
		}
		if c := d.Counts(); c.Used != 21 || c.Samples != len(samples)+1 {
			t.Errorf("counts %+v", c)
		}
	}
}

// train-on says what is learnt of a row.
func TestTrainOn(t *testing.T) {
	talk := row{messages: []Message{{Role: User, Content: "a"}, {Role: Assistant, Content: "b"},
		{Role: User, Content: "c"}, {Role: Assistant, Content: "d"}}}
	for _, c := range []struct {
		chat, trainOn, want string
		row                 row
	}{
		{chatML, TrainAssistant, "b<|im_end|>d<|im_end|>", talk},
		{chatML, TrainLast, "d<|im_end|>", talk},
		{chatML, TrainAll, "user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n" +
			"<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n", talk},
		{"", TrainAssistant, "b</s>d</s>", talk},
		{"", TrainLast, "d</s>", talk},
		{"", TrainAll, "", talk}, // all but the first
		{chatML, TrainAll, "=4</s>", row{prompt: "2=", completion: "4"}},
		{"{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}[{{ m.content }}]{% endgeneration " +
			"%}{% else %}{{ m.content }}{% endif %}{% endfor %}", TrainAssistant, "[b][d]", talk},
		{"{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}[{{ m.content }}]{% endgeneration " +
			"%}{% else %}{{ m.content }}{% endif %}{% endfor %}", TrainLast, "[d]", talk},
	} {
		e := encoder(t, Auto, fakeTokenizer{chat: c.chat})
		e.trainOn = c.trainOn
		s := encode(t, e, c.row)
		if got := labelled(s); got != c.want && !(c.want == "" && len(got) > 100 && s.labelled() == len(s.Tokens)) {
			t.Errorf("%q, train on %s: %q, want %q", c.chat, c.trainOn, got, c.want)
		}
	}
}
