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

// Field is a member of a JSON object.
type Field struct {
	Name  string
	Value json.RawMessage
}
