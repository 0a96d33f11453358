package alpaca

import "encoding/json"

// The roles of a message.
const (
	System    = "system"
	User      = "user"
	Assistant = "assistant"
	Tool      = "tool"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"` // of a list of parts, their text

	// Fields are all that the message holds, role and content among them, in its own order: what a chat template is
	// given. nil stands for Role and Content alone.
	Fields []Field `json:"-"`
}

// ReadMessage reads a message as OpenAI's API has it, from valid JSON: content may be a list of parts that are texts,
// and calls of tools get the form that chat templates expect.
func ReadMessage(raw json.RawMessage) (Message, error) { return rowReader{}.message(raw) }

// Field is a member of a JSON object.
type Field struct {
	Name  string
	Value json.RawMessage
}
