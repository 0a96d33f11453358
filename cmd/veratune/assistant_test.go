package main

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// opened opens a model as the commands that answer do.
func opened(t *testing.T, path string) *session.Session {
	t.Helper()
	o := session.Options{Model: path, Engine: model.Default()}
	o.Engine.Threads, o.Engine.Compute = 1, model.ComputeF32
	s, err := session.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// greedy is the most likely answer of up to n tokens, the whole text computed anew for each, and whether an end token
// ends it.
func greedy(t *testing.T, s *session.Session, prompt []int32, n int) (answer string, ended bool) {
	t.Helper()
	var tokens []int32
	for len(tokens) < n {
		logits, err := s.Logits(append(prompt[:len(prompt):len(prompt)], tokens...), 1)
		if err != nil {
			t.Fatal(err)
		}
		best := 0
		for i, l := range logits {
			if l > logits[best] {
				best = i
			}
		}
		if ended = s.Tokenizer.IsEOG(int32(best)); ended {
			break
		}
		tokens = append(tokens, int32(best))
	}
	text, err := s.Tokenizer.Detokenize(tokens, false)
	if err != nil {
		t.Fatal(err)
	}
	return printable(text), ended
}

func conversation(t *testing.T, s *session.Session, template string, messages ...alpaca.Message) []int32 {
	t.Helper()
	e, err := alpaca.NewEncoder(alpaca.Form{Template: template}, s.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	prompt, err := e.Conversation(messages)
	if err != nil {
		t.Fatal(err)
	}
	return prompt
}

// printable is what people see of bytes.
func printable(text string) string {
	return strings.ReplaceAll(string([]rune(text)), "\x00", "\uFFFD")
}

// TestAssistant holds answers that are asked for at once to the same ones asked for one by one, and greedy ones to what
// the model says token by token.
func TestAssistant(t *testing.T) {
	user := func(text string) mtbench.Message { return mtbench.Message{Role: "user", Content: text} }
	conversations := [][]mtbench.Message{
		{user("add 3")},
		{user("Name a sea.")},
		{{Role: "system", Content: "Be brief."}, user("add 3")},
		{user("add 3"), {Role: "assistant", Content: "it is 4"}, user("and 4")},
		{user("add 3"), {Role: "assistant", Content: "it is 4"}, user("and 5")},
		{user(strings.Repeat("the cat and the hat ", 8))},
	}
	for name, o := range map[string]testutil.TinyOptions{"byte-level BPE": {}, "SentencePiece": {SentencePiece: true}} {
		for _, template := range []string{alpaca.Chat, alpaca.Alpaca} {
			t.Run(name+", "+template, func(t *testing.T) {
				s := opened(t, testutil.TinyLlama(t, o))
				single, err := evaluate.NewAssistant(s, alpaca.Form{Template: template}, 1, session.Report{})
				if err != nil {
					t.Fatal(err)
				}
				var want [2][]string // by temperature
				for temperature := range want {
					for i, c := range conversations {
						text, err := single.Complete(context.Background(), c,
							mtbench.Sampling{Temperature: float64(temperature), MaxTokens: 10 + i, Seed: uint64(i)})
						if err != nil {
							t.Fatal(err)
						}
						want[temperature] = append(want[temperature], text)
					}
				}
				single.Close()
				for i, c := range conversations {
					var messages []alpaca.Message
					for _, m := range c {
						messages = append(messages, alpaca.Message{Role: m.Role, Content: m.Content})
					}
					if text, _ := greedy(t, s, conversation(t, s, template, messages...), 10+i); text != want[0][i] {
						t.Errorf("conversation %d: %q, want %q", i, want[0][i], text)
					}
				}
				many, err := evaluate.NewAssistant(s, alpaca.Form{Template: template}, 4, session.Report{})
				if err != nil {
					t.Fatal(err)
				}
				defer many.Close()
				var all sync.WaitGroup
				for temperature := range want {
					for i, c := range conversations {
						all.Go(func() {
							text, err := many.Complete(context.Background(), c,
								mtbench.Sampling{Temperature: float64(temperature), MaxTokens: 10 + i, Seed: uint64(i)})
							if err != nil || text != want[temperature][i] {
								t.Errorf("conversation %d at temperature %d, with others: %q, %v, want %q", i,
									temperature, text, err, want[temperature][i])
							}
						})
					}
				}
				all.Wait()
			})
		}
	}
}

// TestAssistantRoom cuts an answer where the context ends, and says what to do about a conversation that does not fit.
func TestAssistantRoom(t *testing.T) {
	s := opened(t, testutil.TinyLlama(t, testutil.TinyOptions{}))
	a, err := evaluate.NewAssistant(s, alpaca.Form{Template: alpaca.Auto}, 2, session.Report{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	filled := func(tokens int) []mtbench.Message {
		empty := len(conversation(t, s, alpaca.Chat, alpaca.Message{Role: alpaca.User, Content: ""}))
		return []mtbench.Message{{Role: "user", Content: strings.Repeat("~", tokens-empty)}} // each a token
	}
	text, err := a.Complete(context.Background(), filled(s.Context-3), mtbench.Sampling{MaxTokens: 50})
	if want, _ := greedy(t, s, conversation(t, s, alpaca.Chat,
		alpaca.Message{Role: alpaca.User, Content: filled(s.Context - 3)[0].Content}), 3); err != nil || text != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
	_, err = a.Complete(context.Background(), filled(s.Context), mtbench.Sampling{MaxTokens: 50})
	if err == nil || !strings.Contains(err.Error(), "512 tokens") || !strings.Contains(err.Error(), "--max-tokens") {
		t.Errorf("a conversation without room: %v", err)
	}
	if _, err := a.Complete(context.Background(), []mtbench.Message{{Role: "assistant", Content: "Hi"}},
		mtbench.Sampling{MaxTokens: 5}); err == nil {
		t.Error("the assistant answers itself")
	}
}

// TestAssistantOfAdapter takes the template that the adapter names, with its stop string.
func TestAssistantOfAdapter(t *testing.T) {
	s := opened(t, testutil.TinyLlama(t, testutil.TinyOptions{}))
	s.Adapter = &vera.Adapter{Facts: map[string]string{session.FactTemplate: alpaca.Alpaca}}
	for asked, want := range map[string]string{alpaca.Auto: alpaca.Alpaca, alpaca.Chat: alpaca.Chat} {
		a, err := evaluate.NewAssistant(s, alpaca.Form{Template: asked}, 1, session.Report{})
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Encoder.Form().Template; got != want || (len(a.Stops) > 0) != (want == alpaca.Alpaca) {
			t.Errorf("template %s, with an adapter of template alpaca: %s, stop strings %q", asked, got, a.Stops)
		}
		a.Close()
	}
}
