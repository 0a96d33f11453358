package model

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

func (m *Model) mustServe(t *testing.T, texts, room int) *Server {
	t.Helper()
	s, err := m.Serve(texts, room)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// trial is a request to a server. emit stops after stop tokens, or cancels the request there.
type trial struct {
	prompt []int32
	Sampling
	stop    int
	cancels bool
}

func (r trial) run(s *Server) (tokens []int32, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = s.Generate(ctx, Request{Prompt: r.prompt, Sampling: r.Sampling}, func(t Token) bool {
		tokens = append(tokens, t.ID)
		if len(tokens) == r.stop && r.cancels {
			cancel()
			return true
		}
		return len(tokens) != r.stop
	})
	if r.cancels && errors.Is(err, context.Canceled) {
		err = nil
	}
	return tokens, err
}

// trials are of different lengths and temperatures, end at different times, and partly begin alike. One is cancelled.
func trials(vocab int) (list []trial) {
	random := rand.New(rand.NewPCG(21, 22))
	draw := func(n int) []int32 {
		tokens := make([]int32, n)
		for i := range tokens {
			tokens[i] = int32(random.IntN(vocab))
		}
		return tokens
	}
	common := draw(20)
	for i, n := range []int{1, 40, 7, 2, 90, 13, 29, 4} {
		r := trial{prompt: draw(n), Sampling: DefaultSampling()}
		if i%2 == 1 {
			r.prompt = append(slices.Clone(common), r.prompt...)
			r.Temperature, r.Seed, r.TopK, r.RepetitionPenalty = 1, uint64(i), 50*(i/4), 1.2
		}
		r.MaxTokens = 5 + 6*i
		if i >= 5 {
			r.stop = 3 * (i - 4)
		}
		r.cancels = i == 6
		list = append(list, r)
	}
	return list
}

// checkTogether holds requests at once, to servers of several sizes, to each alone, and gives the answers.
func checkTogether(t *testing.T, m *Model, list []trial, sizes ...int) (want [][]int32) {
	t.Helper()
	want = make([][]int32, len(list))
	for i, r := range list {
		s := m.mustServe(t, 1, 256)
		var err error
		if want[i], err = r.run(s); err != nil {
			t.Fatal(err)
		}
		if n := r.MaxTokens; len(want[i]) != n && len(want[i]) != r.stop {
			t.Errorf("request %d gives %d tokens, want %d or %d", i, len(want[i]), n, r.stop)
		}
		s.Close()
	}
	for _, texts := range sizes {
		s := m.mustServe(t, texts, 256)
		for range 2 { // the second time much is held already
			var all sync.WaitGroup
			for i, r := range list {
				all.Go(func() {
					if got, err := r.run(s); err != nil || !slices.Equal(got, want[i]) {
						t.Errorf("request %d, together with others on %d texts: %v, tokens %d, want %d", i, texts, err,
							got, want[i])
					}
				})
			}
			all.Wait()
		}
		s.Close()
	}
	return want
}

func TestServer(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	for _, name := range []string{"base", "adapted"} {
		if name == "adapted" {
			adapted(t, m, nil)
		}
		t.Run(name, func(t *testing.T) { checkTogether(t, m, trials(m.Vocab), 8, 3, 1) })
	}
}

// TestServerReuse goes on with conversations: what a text holds already is not computed again, and nothing changes by
// that.
func TestServerReuse(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	s, random := m.mustServe(t, 2, 256), randomBatch(4, m.Vocab, 60).tokens
	defer s.Close()
	first := trial{prompt: random[:30], Sampling: DefaultSampling()}
	first.MaxTokens = 10
	answer, err := first.run(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		prompt []int32
		left   int // to compute
	}{
		"goes on":      {slices.Concat(random[:30], answer, random[30:40]), 11}, // the last token was never appended
		"the same":     {random[:30], 1},
		"a part":       {random[:12], 1},
		"turns aside":  {slices.Concat(random[:25], random[50:60]), 10},
		"another text": {random[40:60], 20},
	} {
		t.Run(name, func(t *testing.T) {
			own := m.mustServe(t, 1, 256)
			defer own.Close()
			r := trial{prompt: c.prompt, Sampling: first.Sampling}
			want, err := r.run(own)
			if err != nil {
				t.Fatal(err)
			}
			// A server that was left as after the first answer, to look into.
			still := &Server{m: m, cache: m.mustCache(t, 2, 256), used: make([]int, 2)}
			if _, err := still.cache.Append(Addition{Text: 1, Tokens: slices.Concat(random[:30], answer[:9])}); err !=
				nil {
				t.Fatal(err)
			}
			q := &request{Request: Request{Prompt: c.prompt}}
			if still.seat(q); len(q.next) != c.left {
				t.Errorf("%d tokens are to be computed, want %d", len(q.next), c.left)
			}
			still.active = []*request{{text: 1}}
			if still.seat(q); q.text != 0 || len(q.next) != len(c.prompt) {
				t.Errorf("text %d, %d tokens, while text 1 is busy", q.text, len(q.next))
			}
			if got, err := r.run(s); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v, tokens %d, want %d", err, got, want)
			}
		})
	}
}

func TestServerRoom(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	s := m.mustServe(t, 1, m.Context)
	defer s.Close()
	r := trial{prompt: randomBatch(4, m.Vocab, m.Context-3).tokens, Sampling: DefaultSampling()}
	if tokens, err := r.run(s); err != nil || len(tokens) != 4 { // the last is not computed with
		t.Errorf("%d tokens in a context with room for 3, %v", len(tokens), err)
	}
	for name, c := range map[string]struct {
		change func(*trial)
		words  []string
	}{
		"no prompt": {func(r *trial) { r.prompt = nil }, []string{"no tokens"}},
		"too long": {func(r *trial) { r.prompt = slices.Repeat([]int32{5}, m.Context) },
			[]string{"512 tokens", "511"}},
		"max tokens":  {func(r *trial) { r.MaxTokens = 0 }, []string{"max-tokens 0"}},
		"temperature": {func(r *trial) { r.Temperature = -1 }, []string{"temperature"}},
		"token":       {func(r *trial) { r.prompt = []int32{5, 300} }, []string{"token 300"}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := r
			c.change(&bad)
			tokens, err := bad.run(s)
			if len(tokens) > 0 {
				t.Errorf("tokens %d", tokens)
			}
			wantError(t, err, c.words...)
		})
	}
	if _, err := r.run(s); err != nil {
		t.Errorf("after errors: %v", err)
	}
}

// TestServerCancelled returns what waits for a text, or for anything, as soon as it is cancelled.
func TestServerCancelled(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	s := m.mustServe(t, 1, 64)
	defer s.Close()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	err := s.Generate(context.Background(), Request{Prompt: []int32{5}, Sampling: DefaultSampling()}, func(Token) bool {
		// the server waits for this function
		if err := s.Generate(cancelled, Request{Prompt: []int32{6}, Sampling: DefaultSampling()}, nil); !errors.Is(err,
			context.Canceled) {
			t.Errorf("cancelled while it waits: %v", err)
		}
		return false
	})
	if err != nil {
		t.Error(err)
	}
	if err := s.Generate(cancelled, Request{Prompt: []int32{6}, Sampling: DefaultSampling()}, nil); !errors.Is(err,
		context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

// TestServerClosed ends what it is at, and takes nothing more.
func TestServerClosed(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	s := m.mustServe(t, 2, 64)
	closed := make(chan struct{})
	tokens, err := trial{prompt: []int32{5}, Sampling: DefaultSampling()}.run(s)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = s.Generate(context.Background(), Request{Prompt: []int32{5}, Sampling: DefaultSampling()}, func(Token) bool {
		if n++; n == 3 {
			go func() {
				s.Close()
				close(closed)
			}()
			<-s.stop
		}
		return true
	})
	if err != nil || n != len(tokens) {
		t.Errorf("%d tokens, %v, of an answer during which the server was closed; want %d", n, err, len(tokens))
	}
	<-closed
	wantError(t, s.Generate(context.Background(), Request{Prompt: []int32{5}, Sampling: DefaultSampling()}, nil),
		"closed")
}

// TestServerOnSmolLM2 holds greedy answers of the real model, eight at once, to each alone, and those to what comes
// without a cache: for the first, the whole text is computed for each token.
func TestServerOnSmolLM2(t *testing.T) {
	path := testutil.SmolLM2(t)
	if testing.Short() {
		t.Skip("takes seconds")
	}
	v := tokenizerOf(t, path)
	var list []trial
	for _, text := range []string{"The capital of France is", "Once upon a time", "1, 2, 3, 4,", "def add(a, b):\n",
		"The opposite of hot is", "Water boils at", "A", "Dear Sir or Madam,"} {
		tokens, err := v.Tokenize(t.Context(), text, true, false)
		if err != nil {
			t.Fatal(err)
		}
		r := trial{prompt: tokens, Sampling: DefaultSampling()}
		r.MaxTokens = 24
		list = append(list, r)
	}
	for _, compute := range []Compute{ComputeF32, ComputeQ8} {
		o := Default()
		o.Compute = compute
		m := open(t, path, o)
		for _, name := range []string{"base", "adapted"} {
			if name == "adapted" {
				adapted(t, m, func(c *vera.Config) { c.Rank = 32 })
			}
			t.Run(name+" in "+string(compute), func(t *testing.T) {
				for i, answer := range checkTogether(t, m, list, 8) {
					checkChoices(t, m, list[i].prompt, answer)
					if i > 0 {
						continue
					}
					for n, token := range answer {
						checkChoices(t, m, slices.Concat(list[i].prompt, answer[:n]), []int32{token})
					}
				}
			})
		}
	}
}
