package evaluate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// Assistant answers questions, or judges answers, as a mtbench.Model. It must be closed.
type Assistant struct{ *generate.Assistant }

// room holds two answers of MT-Bench's 1,024 tokens, their questions, reference answers and what a judge is told.
const room = 8192

// NewAssistant has a session answer in a form, up to parallel conversations together.
func NewAssistant(s *session.Session, form alpaca.Form, parallel int, r session.Report) (Assistant, error) {
	a, err := generate.NewAssistant(s, generate.Options{Form: form}, parallel, min(room, s.Context), r)
	return Assistant{a}, err
}

// Complete implements mtbench.Model. An answer for which the room does not suffice is cut.
func (a Assistant) Complete(ctx context.Context, conversation []mtbench.Message, s mtbench.Sampling) (string, error) {
	messages := make([]alpaca.Message, len(conversation))
	for i, m := range conversation {
		messages[i] = alpaca.Message{Role: m.Role, Content: m.Content}
	}
	prompt, err := a.Encoder.Until(ctx).Conversation(messages)
	if err != nil {
		return "", err
	}
	if len(prompt) >= a.Room {
		return "", fmt.Errorf("the conversation has %d tokens, and there is room for %d with its answer: ask for "+
			"shorter answers (--max-tokens), or take a model with a longer context",
			len(prompt), a.Room)
	}
	sampling := model.DefaultSampling()
	sampling.MaxTokens, sampling.Temperature, sampling.Seed = s.MaxTokens, s.Temperature, s.Seed
	var answer strings.Builder
	_, err = a.Say(ctx, prompt, sampling, func(text string) error {
		answer.WriteString(text)
		return nil
	})
	return answer.String(), err
}

// Answer has a session's model, with the adapter that it has on, answer the questions of a folder. What decides the
// answers goes to the options' Setup.
func Answer(ctx context.Context, s *session.Session, folder *mtbench.Folder, form alpaca.Form, o mtbench.RunOptions,
	r session.Report) error {
	m, err := NewAssistant(s, form, o.Parallel, r)
	if err != nil {
		return err
	}
	defer m.Close()
	taken := m.Encoder.Form()
	o.Setup = map[string]string{"model": s.Base().Fingerprint, "template": taken.Template,
		"compute": string(s.Options.Engine.Compute)}
	if taken.Source != "" {
		sum := sha256.Sum256([]byte(taken.Source))
		o.Setup["chat_template"] = hex.EncodeToString(sum[:])
	}
	for name, value := range taken.Variables {
		o.Setup["template_option "+name] = string(value)
	}
	if s.PreTokenizer != "" {
		o.Setup["pre_tokenizer"] = s.PreTokenizer
	}
	if s.Adapter != nil {
		if o.Setup["adapter"], err = fingerprint(s.Adapter); err != nil {
			return err
		}
	}
	return folder.Run(ctx, m, o)
}

// fingerprint tells adapters apart by what they do, wherever they lie.
func fingerprint(a *vera.Adapter) (string, error) {
	hash := sha256.New()
	if err := json.NewEncoder(hash).Encode(a.Config); err != nil {
		return "", err
	}
	if err := binary.Write(hash, binary.LittleEndian, a.Params); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
