package generate

import (
	"context"
	"fmt"

	"github.com/veratune/veratune/alpaca"
)

// Conversation is a chat that goes on.
type Conversation struct {
	System string // message before it, or ""
	Turns  []Turn
}

// Turn is a message and its answer, which is empty where nothing was said.
type Turn struct{ Message, Answer string }

// messages is the conversation from a turn on up to the last message. What got no answer is left out.
func (c *Conversation) messages(from int) (list []alpaca.Message) {
	if c.System != "" {
		list = append(list, alpaca.Message{Role: alpaca.System, Content: c.System})
	}
	last := len(c.Turns) - 1
	for _, t := range c.Turns[from:last] {
		if t.Answer != "" {
			list = append(list, alpaca.Message{Role: alpaca.User, Content: t.Message},
				alpaca.Message{Role: alpaca.Assistant, Content: t.Answer})
		}
	}
	return append(list, alpaca.Message{Role: alpaca.User, Content: c.Turns[last].Message})
}

// Prompt is a conversation in tokens, for the answer to its last message. So many of the oldest turns are forgotten
// that an answer of that many tokens has room, or of a quarter of the room where that is less; dropped is their number.
func (a *Assistant) Prompt(ctx context.Context, c *Conversation, answer int) (prompt []int32, dropped int, err error) {
	answer = min(answer, a.Room/4)
	for dropped = range c.Turns {
		if prompt, err = a.Encoder.Until(ctx).Conversation(c.messages(dropped)); err != nil {
			return nil, 0, err
		}
		if len(prompt)+answer <= a.Room {
			break
		}
	}
	if len(prompt) >= a.Room {
		return nil, 0, fmt.Errorf("the message alone has %d tokens with its template, and the context has room for "+
			"%d: shorten it, or take a larger --context", len(prompt), a.Room-1)
	}
	c.Turns = c.Turns[dropped:]
	return prompt, dropped, nil
}
