package alpaca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The text of Stanford Alpaca's prompts, which models trained on it expect to the byte.
const (
	preamble = "Below is an instruction that describes a task. " +
		"Write a response that appropriately completes the request."
	preambleWithInput = "Below is an instruction that describes a task, paired with an input that provides further " +
		"context. " +
		"Write a response that appropriately completes the request."
	instructionHeader = "\n\n### Instruction:\n"
	inputHeader       = "\n\n### Input:\n"
	responseHeader    = "\n\n### Response:\n"
)

// Encoder renders text in one template and turns it into tokens, in the same way for training and for inference. It is
// safe for concurrent use.
//
// In the alpaca template and in rows of prompt and completion, a prompt and its response are tokenized apart, so that
// the prompt's tokens in training are those that the model sees when it answers. A rendered conversation is tokenized
// in one piece, as the runtimes do. The text of a control token ("<|im_end|>") becomes that token only in a chat
// template's own text.
type Encoder struct {
	tok      Tokenizer
	form     Form
	trainOn  string
	controls *controls
	chat     *chatTemplate // nil in the alpaca template
	toolChat *chatTemplate // the model's own for conversations with tools, where it has one
	tools    string        // Jinja of what renders conversations with tools
	now      time.Time     // that templates write
	ctx      context.Context
	newline  []int32 // what the vocabulary makes of "\n" where it puts a space before every text; nil where it doesn't
}

// toolTemplate is the name that models give a template for conversations with tools.
const toolTemplate = "tool_use"

// NewEncoder finds the template and compiles it. It fails where the vocabulary has no end token, and where the template
// is broken.
func NewEncoder(form Form, tok Tokenizer) (*Encoder, error) {
	if tok.EOS() < 0 {
		return nil, errors.New("the vocabulary has no end token (tokenizer.ggml.eos_token_id), so no answer " +
			"would ever end")
	}
	if err := form.Validate(); err != nil {
		return nil, err
	}
	c := newControls(tok)
	e := &Encoder{ctx: context.Background(), tok: tok, form: form, trainOn: TrainAssistant, controls: c,
		now: time.Now()}
	source, err := e.form.resolve(tok)
	if err != nil {
		return nil, err
	}
	if source == "" && len(form.Variables) > 0 {
		return nil, errors.New("template options: are for chat templates, and this is the alpaca template")
	}
	if source != "" {
		if err := e.compile(source); err != nil {
			return nil, err
		}
	}
	newline, err := e.tokenize("\n")
	if err != nil {
		return nil, err
	}
	if len(newline) > 1 {
		e.newline = newline
	}
	return e, nil
}

// compile compiles the chat templates and fixes their day.
func (e *Encoder) compile(source string) (err error) {
	if e.form.Date != "" {
		if e.now, err = time.ParseInLocation(time.DateOnly, e.form.Date, time.Local); err != nil {
			return err
		}
	}
	build := func(name, source string) (*chatTemplate, error) {
		return newChatTemplate(name, source, e.tok, e.controls, e.form.Variables, e.now)
	}
	if e.chat, err = build(e.form.Describe(), source); err != nil {
		return err
	}
	e.tools = source
	if tools := e.tok.ChatTemplate(toolTemplate); tools != "" && e.form.Template == Chat && e.form.Source == "" {
		e.tools = tools
		e.toolChat, err = build("the model's chat template "+toolTemplate, tools)
	}
	if e.form.Date == "" && (e.chat.dated || e.toolChat != nil && e.toolChat.dated) {
		e.form.Date = e.now.Format(time.DateOnly)
	}
	return err
}

// Until returns an encoder that fails once ctx ends.
func (e *Encoder) Until(ctx context.Context) *Encoder {
	until := *e
	until.ctx = ctx
	return &until
}

// Form is the one that the encoder was made with: the template that auto came to, and the day where the template writes
// it.
func (e *Encoder) Form() Form { return e.form }

// ToolSource is the Jinja source that conversations with tools are rendered with, "" in the alpaca template.
func (e *Encoder) ToolSource() string { return e.tools }

// Stops returns what a response ends before where no end token ends it: a base model goes on with the next instruction.
func (e *Encoder) Stops() []string {
	if e.chat == nil {
		return []string{strings.TrimSuffix(instructionHeader, "\n")}
	}
	return nil
}

// Prompt returns the tokens before the response to an instruction; input may be empty.
func (e *Encoder) Prompt(instruction, input string) ([]int32, error) {
	if e.chat != nil {
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
	if e.chat != nil {
		return e.chatPrompt(conversation{messages: messages})
	}
	s, err := e.alpacaTurns(append(slices.Clone(messages), Message{Role: Assistant}))
	if err != nil {
		return nil, err
	}
	return s.tokens[:s.prompt], nil
}

// Request returns the tokens before the assistant's answer to a conversation as a client of OpenAI's API sends it: it
// may end with anyone's message, and may have tools, a JSON array as that API has it.
func (e *Encoder) Request(messages []Message, tools json.RawMessage) ([]int32, error) {
	switch {
	case len(messages) == 0:
		return nil, errors.New("there are none")
	case e.chat != nil:
		return e.chatPrompt(conversation{messages: messages, tools: tools})
	case tools != nil:
		return nil, errors.New("the alpaca template, which this adapter or model is asked in, has no place for tools")
	}
	return e.Conversation(messages)
}

// Verbatim returns the tokens of a prompt that no template is put around, as rows of prompt and completion have them.
func (e *Encoder) Verbatim(prompt string) ([]int32, error) {
	tokens, err := e.tokenize(prompt)
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
func (e *Encoder) tokenize(text string) ([]int32, error) {
	tokens, err := e.tok.Tokenize(e.ctx, text, false, false)
	if err != nil && e.ctx.Err() == nil {
		err = fmt.Errorf("tokenizing: %w", err)
	}
	return tokens, err
}

// proceed returns the tokens of text that goes on from other text. Vocabularies of the SentencePiece kind put a space
// before every text that they are given; behind a newline, which is then cut off, they don't.
func (e *Encoder) proceed(text string) ([]int32, error) {
	if e.newline == nil {
		return e.tokenize(text)
	}
	tokens, err := e.tokenize("\n" + text)
	if err != nil {
		return nil, err
	}
	if n := len(e.newline); len(tokens) >= n && slices.Equal(tokens[:n], e.newline) {
		return tokens[n:], nil
	}
	return e.tokenize(text) // the newline has merged with the text
}

func alpacaPrompt(instruction, input string) string {
	if input == "" {
		return preamble + instructionHeader + instruction + responseHeader
	}
	return preambleWithInput + instructionHeader + instruction + inputHeader + input + responseHeader
}

// Ask is the user's message of an instruction; input may be empty.
func Ask(instruction, input string) Message {
	return Message{Role: User, Content: question(instruction, input)}
}

// question is an instruction as one message of a chat.
func question(instruction, input string) string {
	if input == "" {
		return instruction
	}
	return instruction + "\n\n" + input
}
