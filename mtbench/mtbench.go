// Package mtbench evaluates models in the manner of MT-Bench (Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and
// Chatbot Arena", arXiv 2306.05685): models answer questions of two turns in eight categories, a judge grades the
// answers or compares those of two models, and reports show the scores.
//
// Files have the formats of FastChat, so that its tools read them. The package knows nothing of how a model computes:
// it reaches models through the interface Model.
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

// Model answers conversations. It is safe for concurrent use, and computes what is asked of it at the same time
// together.
type Model interface {
	// Complete gives the assistant's next message of a conversation that ends with the user's.
	Complete(ctx context.Context, conversation []Message, s Sampling) (string, error)
}

// Single is a row of model_judgment/JUDGE_single.jsonl: a grade of one answer.
type Single struct {
	QuestionID int       `json:"question_id"`
	Model      string    `json:"model"`
	Judge      [2]string `json:"judge"` // the judge, and the name of its prompt
	UserPrompt string    `json:"user_prompt"`
	Judgment   string    `json:"judgment"` // what the judge said
	Score      float64   `json:"score"`    // 1 to 10, or -1 where none could be read out of the judgment
	Turn       int       `json:"turn"`     // 1 or 2
	Repeat     int       `json:"repeat,omitempty"`
	Time       float64   `json:"tstamp"`
}

// Pair is a row of model_judgment/JUDGE_pair.jsonl: a comparison of two answers, in both orders. Winners are "model_1",
// "model_2", "tie", or "error" where none could be read out of the judgment.
type Pair struct {
	QuestionID   int       `json:"question_id"`
	Model1       string    `json:"model_1"`
	Model2       string    `json:"model_2"`
	G1Winner     string    `json:"g1_winner"` // with model 1's answer first
	G2Winner     string    `json:"g2_winner"` // with model 2's answer first
	Judge        [2]string `json:"judge"`
	G1UserPrompt string    `json:"g1_user_prompt"`
	G1Judgment   string    `json:"g1_judgment"`
	G2UserPrompt string    `json:"g2_user_prompt"`
	G2Judgment   string    `json:"g2_judgment"`
	Turn         int       `json:"turn"`
	Repeat       int       `json:"repeat,omitempty"`
	Time         float64   `json:"tstamp"`
}

// Evaluation is all that a folder holds.
type Evaluation struct {
	Questions []Question
	Answers   map[string][]Answer // of each model, in the order of the questions
	Models    []string            // in the order of reports: the base model first
	Singles   map[string][]Single // of each judge
	Pairs     map[string][]Pair
}
