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

// prompts are those of the sample answers.
type prompts struct {
	encoder *alpaca.Encoder
	tokens  [][]int32
	longest int
	onCPU   bool // the device of the training cannot answer them
}

// encodeSamples makes tokens of the prompts, and has the plans of memory count their answers.
func (p *Prepared) encodeSamples() (*prompts, error) {
	encoder, err := alpaca.NewEncoder(p.Training.Form, p.Tokenizer)
	if err != nil {
		return nil, err
	}
	all := &prompts{encoder: encoder}
	for _, prompt := range p.options.Samples {
		tokens, err := encoder.Prompt(prompt, "")
		if err != nil {
			return nil, fmt.Errorf("sample %q: %w", prompt, err)
		}
		if len(tokens) >= p.Context {
			return nil, fmt.Errorf("sample %q: has %d tokens, and the model's context %d", prompt, len(tokens),
				p.Context)
		}
		all.tokens, all.longest = append(all.tokens, tokens), max(all.longest, len(tokens))
	}
	if err := p.PlanAnswers(1, all.longest+sampleLength, all.longest); err != nil {
		if p.Device().Host {
			return nil, err
		}
		all.onCPU = true
		p.options.Report.Notef("the answers to --sample are computed on the CPU: %v", err)
	}
	return all, nil
}

// samples answers the prompts, one after the other, with the adapter as it is: the most likely answers, where the
// training is computed and in its arithmetic. The memory for it is held only meanwhile.
func (p *Prepared) samples(ctx context.Context) ([]train.Sample, error) {
	m := p.Model
	if p.prompts.onCPU {
		o := p.options.Engine
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
	server, err := m.Serve(1, p.prompts.longest+sampleLength)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	sampling := model.DefaultSampling()
	sampling.MaxTokens = sampleLength
	list := make([]train.Sample, len(p.options.Samples))
	for i, prompt := range p.options.Samples {
		var answer strings.Builder
		out := &generate.Stream{Tokenizer: p.Tokenizer, Stops: p.prompts.encoder.Stops(),
			Emit: func(text string) error {
				answer.WriteString(text)
				return nil
			}}
		if _, err := out.Generate(ctx, server, model.Request{Prompt: p.prompts.tokens[i], Sampling: sampling}); err !=
			nil {
			return nil, err
		}
		list[i] = train.Sample{Prompt: prompt, Answer: answer.String()}
	}
	return list, nil
}
