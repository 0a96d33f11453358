package model

import (
	"math/rand/v2"
	"time"

	"github.com/veratune/veratune/bindings"
)

// GenerationSpeed is how fast texts are read and made, in tokens a second.
type GenerationSpeed struct {
	Prompt   float64 `json:"prompt"`             // tokens of one prompt
	Decode   float64 `json:"decode"`             // tokens of one answer behind it
	Together float64 `json:"together,omitempty"` // tokens of several answers that are made together
}

// Faster is the better of two measurements of the same, figure by figure: other work on the machine makes figures
// smaller only.
func (s GenerationSpeed) Faster(t GenerationSpeed) GenerationSpeed {
	return GenerationSpeed{max(s.Prompt, t.Prompt), max(s.Decode, t.Decode), max(s.Together, t.Together)}
}

// randomTokens are the same for the same n.
func randomTokens(n, vocab int) []int32 {
	random, tokens := rand.New(rand.NewPCG(1, 2)), make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(random.IntN(vocab))
	}
	return tokens
}

// GenerationSpeed measures a prompt of so many random tokens, an answer behind it, and such answers of several texts
// together.
func (m *Model) GenerationSpeed(prompt, answer, texts int) (s GenerationSpeed, err error) {
	c, err := m.NewCache(texts, prompt+answer+1)
	if err != nil {
		return s, err
	}
	defer c.Close()
	tokens := randomTokens(prompt+answer+1, m.Vocab)
	rate := func(adds int, passes int, each func(pass, text int) []int32) (float64, error) {
		start, n := time.Now(), 0
		for pass := range passes {
			var all []Addition
			for text := range adds {
				all = append(all, Addition{Text: text, Tokens: each(pass, text), Rows: 1})
				n += len(all[text].Tokens)
			}
			if _, err := c.Append(all...); err != nil {
				return 0, err
			}
		}
		return float64(n) / time.Since(start).Seconds(), nil
	}
	next := func(pass, text int) []int32 { return tokens[prompt+pass:][:1] }
	if s.Prompt, err = rate(1, 1, func(int, int) []int32 { return tokens[:prompt] }); err != nil {
		return s, err
	}
	if _, err = rate(1, 1, next); err != nil { // makes the graph
		return s, err
	}
	if c.Cut(0, prompt); len(c.Held(0)) < prompt { // a state cannot go back
		if _, err := c.Append(Addition{Tokens: tokens[:prompt]}); err != nil {
			return s, err
		}
	}
	if s.Decode, err = rate(1, answer, next); err != nil || texts == 1 {
		return s, err
	}
	for text := range texts {
		c.Cut(text, 0)
		if _, err := c.Append(Addition{Text: text, Tokens: tokens[:prompt]}); err != nil {
			return s, err
		}
	}
	s.Together, err = rate(texts, answer, next)
	return s, err
}

// LlamaSpeed is the same of llama.cpp itself on a model's file, on a device, with a LoRA file if that is not "".
func LlamaSpeed(path, lora, device string, threads, prompt, answer int) (s GenerationSpeed, err error) {
	l, err := bindings.OpenLlama(path, bindings.LlamaOptions{Context: prompt + answer + 2, Batch: 512,
		Threads: threads, Device: device})
	if err != nil {
		return s, err
	}
	defer l.Close()
	if err := l.SetLoRA(lora, 1); err != nil {
		return s, err
	}
	tokens := randomTokens(prompt+answer+1, l.Vocab())
	if _, err := l.Decode(tokens[:1], 1); err != nil { // maps the file
		return s, err
	}
	l.Clear()
	start := time.Now()
	if _, err := l.Decode(tokens[:prompt], 1); err != nil {
		return s, err
	}
	s.Prompt = float64(prompt) / time.Since(start).Seconds()
	if _, err := l.Decode(tokens[prompt:][:1], 1); err != nil {
		return s, err
	}
	start = time.Now()
	for i := range answer {
		if _, err := l.Decode(tokens[prompt+1+i:][:1], 1); err != nil {
			return s, err
		}
	}
	s.Decode = float64(answer) / time.Since(start).Seconds()
	return s, nil
}
