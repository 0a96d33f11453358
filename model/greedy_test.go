package model

import (
	"slices"
	"sync"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// TestLlamaGreedy holds the server's greedy answers to ten questions, all asked at once, to those that llama.cpp gives
// on its own, for the base model and for an adapter with a LoRA export of it.
func TestLlamaGreedy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute, and 540 MB for the weights in float32")
	}
	path, strong := testutil.SmolLM2(t), testutil.Shared(t, "refs/peft-vera-*/strong_peft")[0]
	prompts := chats(t, path,
		"Who wrote the play Hamlet, and what is it about?",
		"Explain how a bicycle stays upright, for a child of ten.",
		"Write a function in Python that counts the vowels in a string.",
		"List five vegetables that grow well in the shade.",
		"A train takes 3 hours for 240 km. How far does it go in 5 hours at the same speed? Show the steps.",
		"Translate into French: The shop opens at nine, and I need bread and milk.",
		"Write a short letter that thanks a neighbour for watering the plants.",
		"Rewrite in formal English: hey, can u send me the papers by friday?",
		"What is the difference between weather and climate?",
		"Begin a story with a lighthouse keeper who hears a knock at the door.",
	)
	for _, j := range judges {
		m, l := j.open(t, path)
		adapter, err := vera.Load(strong, m.Base())
		if err != nil {
			t.Fatal(err)
		}
		base := answers(t, m, prompts)
		j.compareAnswers(t, "base", m, l, prompts, base)
		if err := m.Attach(adapter); err != nil {
			t.Fatal(err)
		}
		if err := l.SetLoRA(saveLoRA(t, adapter, 0, "f32"), 1); err != nil {
			t.Fatal(err)
		}
		own := answers(t, m, prompts)
		if count(own, base) == len(prompts) {
			t.Error("the adapter changes no answer")
		}
		j.compareAnswers(t, "adapted", m, l, prompts, own)
		l.Close()
		m.Close()
	}
}

const answerLength = 32

// answers are the engine's to all prompts at once, more than its server has room for.
func answers(t *testing.T, m *Model, prompts [][]int32) [][]int32 {
	t.Helper()
	s := m.mustServe(t, 8, 256)
	defer s.Close()
	all := make([][]int32, len(prompts))
	var asked sync.WaitGroup
	for i, p := range prompts {
		asked.Go(func() {
			r := trial{prompt: p, Sampling: DefaultSampling()}
			r.MaxTokens = answerLength
			var err error
			if all[i], err = r.run(s); err != nil || len(all[i]) != answerLength {
				t.Errorf("prompt %d: %d tokens, %v", i, len(all[i]), err)
			}
		})
	}
	asked.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

// count is how many answers are the same in both.
func count(a, b [][]int32) (same int) {
	for i := range a {
		if slices.Equal(a[i], b[i]) {
			same++
		}
	}
	return same
}

// compareAnswers counts the answers that llama.cpp gives in the same words. Where one parts from the engine's,
// llama.cpp must have taken a token that the engine finds almost as likely as its own: then a small difference of
// logits decided, and no error.
func (j judge) compareAnswers(t *testing.T, what string, m *Model, l *bindings.Llama, prompts, own [][]int32) {
	t.Helper()
	theirs := make([][]int32, len(prompts))
	for i, p := range prompts {
		theirs[i] = llamaAnswer(t, l, p, answerLength)
		n := common(own[i], theirs[i])
		if n == answerLength {
			continue
		}
		logits, err := m.Logits(slices.Concat(p, own[i][:n]), 1)
		if err != nil {
			t.Fatal(err)
		}
		best := slices.Max(logits)
		gap := best - logits[theirs[i][n]]
		slices.Sort(logits)
		t.Logf("%s, %s, prompt %d: llama.cpp parts at token %d, for one whose logit is %.3g below the best; the "+
			"second best is %.3g below",
			j.name, what, i, n, gap, best-logits[len(logits)-2])
		if !(float64(gap) <= j.gap) {
			t.Errorf("%s, %s, prompt %d: more than %g below", j.name, what, i, j.gap)
		}
	}
	same := count(own, theirs)
	t.Logf("%s, %s: %d of %d answers are the same", j.name, what, same, len(prompts))
	if j.spelt && same < 9 {
		t.Errorf("%s, %s: at least 9 should be", j.name, what)
	}
}
