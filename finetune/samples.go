package finetune

import (
	"context"
	"fmt"
	"strings"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/train"
)

// sampleLength is the longest sample answer in tokens: enough to see what an adapter does, and short beside measuring
// the held-out loss.
const sampleLength = 160

// samples gives the function that answers the prompts, one after the other, with the adapter as it is: the most likely
// answers, in the arithmetic of the training, on the CPU. The memory for it is held only meanwhile.
func (p *Prepared) samples() (func(context.Context) ([]train.Sample, error), error) {
	prompts := p.options.Samples
	encoder, err := alpaca.NewEncoder(p.Training.Form, p.Tokenizer)
	if err != nil {
		return nil, err
	}
	encoded, longest := make([][]int32, len(prompts)), 0
	for i, prompt := range prompts {
		if encoded[i], err = encoder.Prompt(prompt, ""); err != nil {
			return nil, fmt.Errorf("sample %q: %w", prompt, err)
		}
		if longest = max(longest, len(encoded[i])); longest >= p.Context {
			return nil, fmt.Errorf("sample %q: has %d tokens, and the model's context %d", prompt,
				len(encoded[i]), p.Context)
		}
	}
	sampling := model.DefaultSampling()
	sampling.MaxTokens = sampleLength
	return func(ctx context.Context) ([]train.Sample, error) {
		m := p.Model
		if o := p.options.Engine; o.Device != model.CPU {
			o.Device, o.Memory = model.CPU, 0
			var err error
			if m, err = model.Open(p.options.Model, o); err != nil {
				return nil, err
			}
			defer m.Close()
			if err := m.Attach(p.Adapter); err != nil {
				return nil, err
			}
		}
		server, err := m.Serve(1, longest+sampleLength)
		if err != nil {
			return nil, err
		}
		defer server.Close()
		list := make([]train.Sample, len(prompts))
		for i, prompt := range prompts {
			var answer strings.Builder
			out := &generate.Stream{Tokenizer: p.Tokenizer, Stops: encoder.Stops(), Emit: func(text string) error {
				answer.WriteString(text)
				return nil
			}}
			if _, err := out.Generate(ctx, server, encoded[i], sampling); err != nil {
				return nil, err
			}
			list[i] = train.Sample{Prompt: prompt, Answer: answer.String()}
		}
		return list, nil
	}, nil
}
