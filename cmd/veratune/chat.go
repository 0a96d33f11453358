package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// chatOptions holds the options of the chat command.
type chatOptions struct {
	*engine
	answering    answering
	conversation generate.Conversation
	room         int
}

// defaultRoom bounds the memory of models with a long context.
const defaultRoom = 4096

func chatCommand() *cli.Command {
	o := &chatOptions{engine: newGenerator(), answering: newAnswering()}
	return &cli.Command{
		Name:  "chat",
		Usage: "talk with a model, with and without adapters",
		Description: "Reads messages from the terminal, or from what is piped in, one a line; then it fails where a " +
			"message did.\n\n" + chatHelp(),
		Flags: slices.Concat(o.engine.flags(), []cli.Flag{
			o.deviceFlag(),
			o.adapterFlag(),
			o.forceFlag(),
			&cli.StringFlag{Name: "system", Usage: "`TEXT` of a system message before the conversation",
				Destination: &o.conversation.System},
			&cli.IntFlag{Name: "context", Usage: "tokens of conversation and answer that there is room for",
				DefaultText: fmt.Sprintf("the model's, up to %d", defaultRoom), Destination: &o.room},
		}, o.answering.flags()),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), validate(o.validate(), o.answering.validate(c),
				o.validateRoom(c))); err != nil {
				return err
			}
			return o.run(c)
		},
	}
}

func (o *chatOptions) validateRoom(c *cli.Context) error {
	if c.IsSet("context") && o.room < 2 {
		return fmt.Errorf("context %d: at least 2 tokens", o.room)
	}
	return nil
}

func (o *chatOptions) run(c *cli.Context) error {
	s, err := session.Open(o.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	switch {
	case o.room == 0:
		o.room = min(s.Context, defaultRoom)
	case o.room > s.Context:
		return usageError{fmt.Errorf("context %d: the model's is %d", o.room, s.Context)}
	}
	ch := &chat{chatOptions: o, session: s, out: terminal.Verbatim(c.App.Writer), notes: c.App.ErrWriter}
	if err := ch.use(s.Adapter); err != nil {
		return err
	}
	defer ch.close()
	ch.console = newConsole(c.App.Reader, c.App.Writer, c.App.ErrWriter)
	defer ch.console.Close()
	fmt.Fprintln(c.App.ErrWriter, s.Describe(ch.assistant.Encoder.Form(), o.answering.Form))
	if ch.console.editor != nil {
		ch.note("%s, %s; /help lists the commands", orPath(s.Name, o.Model), ch.answers())
	}
	return ch.talk(c.Context)
}

// chat is a conversation that goes on.
type chat struct {
	*chatOptions
	session    *session.Session
	assistant  *generate.Assistant // of the present adapter
	console    *console
	out, notes io.Writer
	failed     int // messages and commands
}

// talk runs until the person leaves. What goes wrong is told, and the chat goes on.
func (c *chat) talk(ctx context.Context) error {
	for {
		message, err := c.console.message(ctx)
		if err == nil {
			err = c.take(ctx, message)
			if err != nil && err != io.EOF && ctx.Err() == nil && c.assistant != nil {
				fmt.Fprintf(c.notes, "veratune: %s\n", terminal.Words(err))
				c.failed++
				continue
			}
		}
		switch {
		case ctx.Err() != nil:
			return errInterrupted
		// who reads a script's output may look at its exit code alone
		case err == io.EOF && c.failed > 0 && c.console.keys == nil:
			return fmt.Errorf("%s failed", count(c.failed, "1 message", "messages"))
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// take does what a message asks for. io.EOF is the wish to leave.
func (c *chat) take(ctx context.Context, message string) error {
	text := strings.TrimSpace(message)
	switch {
	case text == "":
		return nil
	case message[0] == '/':
		return c.command(ctx, text)
	}
	return c.say(ctx, text)
}

func (c *chat) note(format string, values ...any) {
	fmt.Fprintf(c.notes, "("+format+")\n", values...)
}

// say answers a message. One that cannot be answered is not kept.
func (c *chat) say(ctx context.Context, message string) error {
	c.conversation.Turns = append(c.conversation.Turns, generate.Turn{Message: message})
	err := c.answer(ctx)
	if last := len(c.conversation.Turns) - 1; err != nil && c.conversation.Turns[last].Answer == "" {
		c.conversation.Turns = c.conversation.Turns[:last]
	}
	return err
}

// answer answers the last turn, again if it has an answer. Of one that is stopped, what was said is kept.
func (c *chat) answer(ctx context.Context) error {
	prompt, dropped, err := c.assistant.Prompt(ctx, &c.conversation, c.answering.Sampling.MaxTokens)
	if err != nil {
		return err
	}
	if dropped > 0 {
		c.note("the conversation has become too long for the context of %d tokens: its oldest %s forgotten", c.room,
			count(dropped, "turn is", "turns are"))
	}
	var said strings.Builder
	var ended bool
	stopped := c.console.untilInterrupted(ctx, func(ctx context.Context) {
		ended, err = c.assistant.Say(ctx, prompt, c.answering.Sampling, func(text string) error {
			said.WriteString(text)
			_, err := io.WriteString(c.out, text)
			return err
		})
	})
	fmt.Fprintln(c.out)
	if err == nil || said.Len() > 0 {
		c.conversation.Turns[len(c.conversation.Turns)-1].Answer = said.String()
	}
	switch {
	case stopped:
		c.note("stopped")
		return nil
	case err != nil || ended:
		return err
	case c.room-len(prompt) < c.answering.Sampling.MaxTokens:
		c.note("the context of %d tokens is full: the answer is cut; see --context", c.room)
	default:
		c.note("the answer is cut after %d tokens; see --max-tokens", c.answering.Sampling.MaxTokens)
	}
	return nil
}

func count(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf("%d %s", n, several)
}

// use puts an adapter on, or with nil takes it off, and begins a server for it.
func (c *chat) use(a *vera.Adapter) (err error) {
	c.close()
	if err := c.session.Use(a); err != nil {
		return err
	}
	c.assistant, err = generate.NewAssistant(c.session, c.answering.Options, 1, c.room, session.Report{})
	return err
}

func (c *chat) close() {
	if c.assistant != nil {
		c.assistant.Close()
		c.assistant = nil
	}
}

// answers tells what answers.
func (c *chat) answers() string {
	what := "without an adapter"
	if c.session.Adapter != nil {
		what = "adapter " + c.Adapter
	}
	return what + ", template " + c.assistant.Encoder.Form().Template
}
