package alpaca

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The text of Stanford Alpaca's prompts, which models trained on it expect to the byte.
const (
	preamble = "Below is an instruction that describes a task. " +
		"Write a response that appropriately completes the request."
	preambleWithInput = "Below is an instruction that describes a task, paired with an input that provides further context. " +
		"Write a response that appropriately completes the request."
	instructionHeader = "\n\n### Instruction:\n"
	inputHeader       = "\n\n### Input:\n"
	responseHeader    = "\n\n### Response:\n"
)

// Encoder renders text in one template and turns it into tokens, in the same way for training and for inference.
//
// A prompt and its response are tokenized apart, so that the prompt's tokens in training are those that the model
// sees when it answers; no token ever spans the two. The text of a control token ("<|im_end|>") becomes that token
// only in a chat template's own text. A rendered conversation is therefore tokenized in one piece, as other programs
// do at inference, unless a message spells a control token out: then it is cut around that message.
type Encoder struct {
	tok      Tokenizer
	template string
	newline  []int32 // what the vocabulary makes of "\n" where it puts a space before every text; nil where it doesn't
}

// NewEncoder resolves Auto and returns an error where the vocabulary has no end token, or no chat template that can be
// applied though Chat is asked for.
func NewEncoder(template string, tok Tokenizer) (*Encoder, error) {
	if tok.EOS() < 0 {
		return nil, errors.New("the vocabulary has no end token (tokenizer.ggml.eos_token_id), so no answer would ever end")
	}
	switch template {
	case Alpaca:
	case Auto, Chat:
		err := tryChat(tok)
		if err != nil && template == Chat {
			return nil, fmt.Errorf("template chat: %w; use template alpaca", err)
		}
		template = Chat
		if err != nil {
			template = Alpaca
		}
	default:
		return nil, fmt.Errorf("template %q: want one of %s", template, strings.Join(Templates, ", "))
	}
	e := &Encoder{tok: tok, template: template}
	newline, err := e.tokenize("\n", false)
	if err != nil {
		return nil, err
	}
	if len(newline) > 1 {
		e.newline = newline
	}
	return e, nil
}

func tryChat(tok Tokenizer) error {
	if tok.ChatTemplate() == "" {
		return errors.New("the model has no chat template")
	}
	if _, err := tok.ApplyChat([]string{User}, []string{"Hello"}, true); err != nil {
		return fmt.Errorf("the model's chat template can't be applied: %w", err)
	}
	return nil
}

// Template returns Alpaca or Chat: what Auto came to.
func (e *Encoder) Template() string { return e.template }

// Stops returns what a response ends before where no end token ends it: a base model goes on with the next instruction.
func (e *Encoder) Stops() []string {
	if e.template == Alpaca {
		return []string{strings.TrimSuffix(instructionHeader, "\n")}
	}
	return nil
}

// Prompt returns the tokens before the response to an instruction; input may be empty.
func (e *Encoder) Prompt(instruction, input string) ([]int32, error) {
	if e.template == Chat {
		return e.Conversation([]Message{{Role: User, Content: question(instruction, input)}})
	}
	return e.Verbatim(alpacaPrompt(instruction, input))
}

// Conversation returns the tokens before the assistant's next message. The alpaca template, which knows no turns,
// repeats its headers, ends each response with EOS, and lets a system message stand in place of its first sentences.
func (e *Encoder) Conversation(messages []Message) ([]int32, error) {
	if len(messages) == 0 || messages[len(messages)-1].Role != User {
		return nil, errors.New("a conversation must end with the user's message to be answered")
	}
	s, err := e.turns(append(slices.Clone(messages), Message{Role: Assistant}))
	if err != nil {
		return nil, err
	}
	return s.tokens[:s.prompt], nil
}

// Verbatim returns the tokens of a prompt that no template is put around, as rows of prompt and completion have them.
func (e *Encoder) Verbatim(prompt string) ([]int32, error) {
	tokens, err := e.tokenize(prompt, false)
	return e.begin(tokens), err
}

// begin puts BOS first where the vocabulary wants it and a chat template hasn't.
func (e *Encoder) begin(tokens []int32) []int32 {
	bos := e.tok.BOS()
	if !e.tok.AddBOS() || bos < 0 || len(tokens) > 0 && tokens[0] == bos {
		return tokens
	}
	return slices.Insert(tokens, 0, bos)
}

// tokenize returns the tokens of text that begins a text, or follows a control token.
func (e *Encoder) tokenize(text string, parseSpecial bool) ([]int32, error) {
	tokens, err := e.tok.Tokenize(text, false, parseSpecial)
	if err != nil {
		return nil, fmt.Errorf("tokenizing: %w", err)
	}
	return tokens, nil
}

// proceed returns the tokens of text that goes on from other text. Vocabularies of the SentencePiece kind put a space
// before every text that they are given; behind a newline, which is then cut off, they don't.
func (e *Encoder) proceed(text string, parseSpecial bool) ([]int32, error) {
	if e.newline == nil {
		return e.tokenize(text, parseSpecial)
	}
	tokens, err := e.tokenize("\n"+text, parseSpecial)
	if err != nil {
		return nil, err
	}
	if n := len(e.newline); len(tokens) >= n && slices.Equal(tokens[:n], e.newline) {
		return tokens[n:], nil
	}
	return e.tokenize(text, parseSpecial) // the newline has merged with the text
}

func alpacaPrompt(instruction, input string) string {
	if input == "" {
		return preamble + instructionHeader + instruction + responseHeader
	}
	return preambleWithInput + instructionHeader + instruction + inputHeader + input + responseHeader
}

// question is an instruction as one message of a chat.
func question(instruction, input string) string {
	if input == "" {
		return instruction
	}
	return instruction + "\n\n" + input
}
