package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/vera"
)

// command is what can be asked for in a chat beside answers.
type command struct {
	name     string
	argument string // what stands behind it, in brackets where it may be left out
	help     string
	run      func(c *chat, ctx context.Context, argument string) error
}

func commands() []command {
	return []command{
		{"/adapter", "FILE", "answer with this adapter; the conversation stays", (*chat).changeAdapter},
		{"/base", "", "answer without an adapter; the conversation stays", (*chat).changeAdapter},
		{"/retry", "", "answer the last message again, with the next seed", (*chat).retry},
		{"/reset", "", "forget the conversation; the system message stays", (*chat).reset},
		{"/system", "[TEXT]", "put a system message before the conversation; without TEXT, take it away",
			(*chat).changeSystem},
		{"/save", "FILE", "write the conversation into a new file, as a line of JSON that /load and --data read",
			(*chat).save},
		{"/load", "FILE", "go on with the conversation in a file", (*chat).load},
		{"/help", "", "show this list", (*chat).help},
		{"/quit", "", "end the chat, as Ctrl-D does", leave},
		{"/exit", "", "the same", leave},
	}
}

func leave(*chat, context.Context, string) error { return io.EOF }

func chatHelp() string {
	var b strings.Builder
	for _, k := range commands() {
		fmt.Fprintf(&b, "%-15s %s\n", k.name+" "+k.argument, k.help)
	}
	b.WriteString("A line that ends in a backslash goes on in the next; several lines that are pasted are one " +
		"message. A message that begins with a slash needs a space before it.\n" +
		"Ctrl-C stops an answer, and what was said of it stays in the conversation. Ctrl-C twice where you type ends " +
		"the chat.\n")
	return b.String()
}

// command runs a line that begins with a slash.
func (c *chat) command(ctx context.Context, line string) error {
	name, argument, _ := strings.Cut(line, " ")
	argument = strings.TrimSpace(argument)
	for _, k := range commands() {
		switch {
		case k.name != name:
		case k.argument == "" && argument != "":
			return fmt.Errorf("%s: unexpected %q behind it", name, argument)
		case k.argument != "" && k.argument[0] != '[' && argument == "":
			return fmt.Errorf("%s: needs a %s", name, k.argument)
		default:
			return k.run(c, ctx, argument)
		}
	}
	return fmt.Errorf("no command %q: /help lists them; a message that begins with a slash needs a space before it",
		name)
}

func (c *chat) help(context.Context, string) error {
	_, err := io.WriteString(c.notes, chatHelp())
	return err
}

// changeAdapter takes the adapter of a file, or none. Where that fails, the one before stays on.
func (c *chat) changeAdapter(_ context.Context, path string) error {
	var next *vera.Adapter
	if path != "" {
		var err error
		if path, err = found(path, c.notes); err == nil {
			next, err = c.session.Load(path)
		}
		if err != nil {
			return err
		}
	}
	before := c.session.Adapter
	if err := c.use(next); err != nil {
		return errors.Join(err, c.use(before))
	}
	c.Adapter = path
	c.note("%s", c.answers())
	return nil
}

func (c *chat) retry(ctx context.Context, _ string) error {
	if len(c.conversation.Turns) == 0 {
		return errors.New("/retry: there is no message yet")
	}
	c.answering.Sampling.Seed++
	if c.answering.Sampling.Temperature == 0 {
		c.note("at temperature 0 the answer does not depend on the seed; see --temperature")
	}
	return c.answer(ctx)
}

func (c *chat) reset(context.Context, string) error {
	c.conversation.Turns = nil
	c.note("the conversation is forgotten")
	return nil
}

func (c *chat) changeSystem(_ context.Context, text string) error {
	c.conversation.System = text
	if text == "" {
		c.note("without a system message")
	} else {
		c.note("the system message is set")
	}
	return nil
}

// savedChat is a row of data.
type savedChat struct {
	Messages []alpaca.Message `json:"messages"`
}

// save writes the turns that have an answer. A file that is there stays as it is.
func (c *chat) save(_ context.Context, path string) error {
	var row savedChat
	if c.conversation.System != "" {
		row.Messages = append(row.Messages, alpaca.Message{Role: alpaca.System, Content: c.conversation.System})
	}
	saved := 0
	for _, t := range c.conversation.Turns {
		if strings.TrimSpace(t.Answer) != "" {
			row.Messages = append(row.Messages, alpaca.Message{Role: alpaca.User, Content: t.Message},
				alpaca.Message{Role: alpaca.Assistant, Content: t.Answer})
			saved++
		}
	}
	if saved == 0 {
		return errors.New("/save: there is no answer yet")
	}
	if exists(path) {
		return fmt.Errorf("/save: %s is there already; choose another name", path)
	}
	if err := ownedBy(path); err != nil {
		return fmt.Errorf("/save: %w", err)
	}
	var line bytes.Buffer
	if err := encodeLines(&line, []savedChat{row}); err != nil {
		return fmt.Errorf("/save: %w", err)
	}
	if err := durable.WriteOutput(path, line.Bytes(), false); err != nil {
		return fmt.Errorf("/save: %w", err)
	}
	left := ""
	if n := len(c.conversation.Turns) - saved; n > 0 {
		left = fmt.Sprintf("; %s without an answer left out", count(n, "1 turn is", "turns are"))
	}
	c.note("%s in %s%s", count(saved, "1 turn is", "turns are"), path, left)
	return nil
}

// load takes the conversation of a file. One that is going on is not thrown away for it.
func (c *chat) load(_ context.Context, path string) error {
	if len(c.conversation.Turns) > 0 {
		return errors.New("/load: there is a conversation already; /save FILE keeps it, /reset forgets it")
	}
	messages, err := alpaca.ReadConversation(path)
	if err != nil {
		return fmt.Errorf("/load: %w", err)
	}
	system := c.conversation.System
	if messages[0].Role == alpaca.System {
		system, messages = messages[0].Content, messages[1:]
	}
	var turns []generate.Turn
	for pair := range slices.Chunk(messages, 2) {
		if len(pair) < 2 || pair[0].Role != alpaca.User || pair[1].Role != alpaca.Assistant ||
			strings.TrimSpace(pair[1].Content) == "" {
			return fmt.Errorf("/load: %s: a message from the user and one from the assistant, in turn, are wanted; "+
				"message %d is not", path, 2*len(turns)+1)
		}
		turns = append(turns, generate.Turn{Message: pair[0].Content, Answer: pair[1].Content})
	}
	c.conversation.Turns, c.conversation.System = turns, system
	c.note("%s loaded from %s", count(len(turns), "1 turn is", "turns are"), path)
	return nil
}
