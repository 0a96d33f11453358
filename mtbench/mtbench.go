// Package mtbench evaluates models in the manner of MT-Bench (Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", arXiv 2306.05685): models
// answer questions of two turns in eight categories, a judge grades the answers or compares those of two models, and reports show the scores.
//
// Files have the formats of FastChat, so that its tools read them. The package knows nothing of how a model computes: it reaches models through the interface
// Model.
package mtbench

import "context"

// Turns is the number of turns of every question.
const Turns = 2

// Categories lists the categories in the order of reports.
var Categories = []string{"writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"}

// NeedReference lists the categories whose answers are judged beside a reference answer.
var NeedReference = []string{"math", "reasoning", "coding"}

// Question is a row of question.jsonl.
type Question struct {
	ID        int      `json:"question_id"`
	Category  string   `json:"category"`
	Turns     []string `json:"turns"`
	Reference []string `json:"reference,omitempty"` // an answer to each turn, where the category needs one
}

// Answer is a row of model_answer/MODEL.jsonl: what a model said to both turns of a question.
type Answer struct {
	QuestionID int      `json:"question_id"`
	AnswerID   string   `json:"answer_id"`
	ModelID    string   `json:"model_id"`
	Choices    []Choice `json:"choices"` // one
	Time       float64  `json:"tstamp"`  // seconds since 1970
}

// Choice is one way in which a model answered.
type Choice struct {
	Index int      `json:"index"`
	Turns []string `json:"turns"`
}

// Message is a part of a conversation. Role is "system", "user" or "assistant".
type Message struct{ Role, Content string }

// Sampling decides how an answer is drawn.
type Sampling struct {
	Temperature float64 // 0 takes the most likely token
	MaxTokens   int     // longest answer
	Seed        uint64
}

// Model answers conversations. It is safe for concurrent use, and computes what is asked of it at the same time together.
type Model interface {
	// Complete gives the assistant's next message of a conversation that ends with the user's.
	Complete(ctx context.Context, conversation []Message, s Sampling) (string, error)
}
