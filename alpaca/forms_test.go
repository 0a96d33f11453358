package alpaca

import (
	"fmt"
	"strings"
	"testing"
)

// written is a row as text: its form, then what it holds.
func written(r row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s", r.form, r.kind())
	for _, f := range []struct{ name, value string }{
		{"tools", string(r.tools)}, {"documents", string(r.documents)}, {"instruction", r.instruction},
		{"input", r.input}, {"output", r.output},
		{"prompt", r.prompt}, {"completion", r.completion}, {"text", r.text},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, " | %s=%s", f.name, f.value)
		}
	}
	for _, m := range r.messages {
		fmt.Fprintf(&b, " | %s: %s", m.Role, m.Content)
		if m.Fields != nil {
			fmt.Fprintf(&b, " %s", object(m.Fields).json())
		}
	}
	if r.choices != nil {
		fmt.Fprintf(&b, " | %q %d", r.choices, r.answer)
	}
	return b.String()
}

const (
	hiHo    = ` | user: Hi | assistant: Ho`
	talk    = "conversation, conversation" + hiHo
	gpt     = "ShareGPT conversation, conversation"
	taken   = "preference pair, chosen answer, "
	weather = `[{"name":"weather"}]`
)

// Each is a row, and what it is taken for.
var forms = []struct{ raw, want string }{
	// ShareGPT
	{`{"id": 1, "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}`, gpt + hiHo},
	{`{"conversation": [{"from": "USER", "value": "Hi"}, {"from": "ChatGPT", "value": "Ho"}]}`, gpt + hiHo},
	{`{"turns": [{"role": "prompter", "content": "Hi"}, {"role": "bot", "content": "Ho"}]}`, talk},
	{`{"conversations": [{"from": "system", "value": " "}, {"from": "human", "value": "Hi"}, {"from": "model", ` +
		`"value": "Ho", "weight": 1}]}`,
		gpt + ` | user: Hi | assistant: Ho {"role":"assistant","content":"Ho","weight":1}`},
	{`{"conversations": [{"value": "Hi", "from": "human", "id": 3}, {"from": "AI", "value": "Ho"}], "system": "Sing."}`,
		gpt + ` | system: Sing. | user: Hi {"content":"Hi","role":"user","id":3} | assistant: Ho`},
	{`{"conversations": [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": "{\"name\": ` +
		`\"weather\", \"arguments\": {\"at\": \"Rom\"}}"}, {"from": "observation", "value": "{}"}, {"from": "gpt", ` +
		`"value": "Ho"}], "tools": "[{\"name\":\"weather\"}]"}`,
		gpt + ` | tools=` + weather + ` | user: Hi | assistant:  ` +
			`{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"weather","arguments":{"at": "Rom"}}}]} | tool: {} | assistant: Ho`},
	{`{"conversations": [{"from": "function_call", "value": "[{\"name\": \"a\", \"arguments\": \"{\\\"b\\\": 1}\"}, ` +
		`{\"name\": \"c\", \"arguments\": \"d\"}]"}]}`,
		gpt + ` | assistant:  {"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"a","arguments":{"b": 1}}},{"type":"function","function":{"name":"c","arguments":"d"}}]}`},

	// messages
	{`{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}`, talk},
	{`{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", ` +
		`"content": ""}, {"role": "tool", "content": "x"}]}`, talk},
	{`{"messages": [{"role": "assistant", "content": "Ho"}]}`, "conversation, conversation | assistant: Ho"},
	{`{"messages": [{"role": "developer", "content": "Sing."}, {"role": "user", "content": "Hi"}, {"role": "system", ` +
		`"content": "Now."}, {"role": "assistant", "content": "Ho"}], "system": "Sing."}`,
		"conversation, conversation | system: Sing. | user: Hi | system: Now. | assistant: Ho"},
	{`{"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, "you"]}, {"role": "assistant", ` +
		`"reasoning_content": "Hm.", "content": "Ho", "name": null}], "documents": [{"text": "d"}], "tools": []}`,
		`conversation, conversation | documents=[{"text": "d"}] | user: Hi` + "\n" +
			`you | assistant: Ho {"role":"assistant","reasoning_content":"Hm.","content":"Ho"}`},
	{`{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null, "tool_calls": [{"id": ` +
		`"1", "type": "function", "function": {"name": "weather", "arguments": "{\"at\": \"Rom\"}"}}]}, {"role": ` +
		`"tool", "tool_call_id": "1", "name": "weather", "content": ""}, {"role": "assistant", "content": "Ho"}], ` +
		`"tools": [{"name":"weather"}]}`,
		`conversation, conversation | tools=` + weather +
			` | user: Hi | assistant:  {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":{"at": "Rom"}}}]} | tool:  {"role":"tool","tool_call_id":"1","name":"weather","content":""} | assistant: Ho`},
	{`{"messages": [{"role": "assistant", "tool_calls": [{"name": "a", "arguments": "b {"}]}]}`,
		`conversation, conversation | assistant:  {"role":"assistant","tool_calls":[{"name":"a","arguments":"b {"}]}`},
	{`{"messages": [{"role": "assistant", "content": null, "function_call": {"name": "a", "arguments": "{}"}}, ` +
		`{"role": "function", "name": "a", "content": "1"}, {"role": "assistant", "content": "Ho"}]}`,
		`conversation, conversation | assistant:  ` +
			`{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"a","arguments":{}}}]} | tool: 1 {"role":"tool","name":"a","content":"1"} | assistant: Ho`},
	{`{"messages": "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Ho\"}]"}`,
		talk},
	{`{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "conversations": ` +
		`[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}], "prompt": "Hi"}`, talk},
	{`[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]`, talk},
	{`["Hi", "Ho", "And?"]`, talk},

	// instruction and question
	{`{"instruction": "Add.", "input": "1 1", "output": "2", "text": "Below …"}`,
		"instruction, instruction | instruction=Add. | input=1 1 | output=2"},
	{`{"instruction": "Add.", "context": "1 1", "response": "2", "category": "sum"}`,
		"instruction, instruction | instruction=Add. | input=1 1 | output=2"},
	{`{"instruction": "Add.", "input": "", "context": "1 1", "output": "2", "response": "2", "answer": 2}`,
		"instruction, instruction | instruction=Add. | input=1 1 | output=2"},
	{`{"instruction": "Add.", "output": "2", "prompt": "Below …"}`,
		"instruction, instruction | instruction=Add. | output=2"},
	{`{"question": "1+1?", "answer": "2"}`, "question with answer, instruction | instruction=1+1? | output=2"},
	{`{"system_prompt": "Add.", "question": "1+1?", "response": "2"}`,
		"question with answer, conversation | system: Add. | user: 1+1? | assistant: 2"},
	{`{"instruction": "Add.", "input": "2 2", "output": "4", "history": [["Hi", "Ho"]], "system": ""}`,
		"instruction, conversation" + hiHo + " | user: Add.\n\n2 2 | assistant: 4"},
	{`{"instruction": "Add.", "output": "4", "messages": null, "prompt": null, "text": null}`,
		"instruction, instruction | instruction=Add. | output=4"},
	{`{"instruction": "\ud83d\ude00 \\ud83d", "output": "\\u0000"}`,
		`instruction, instruction | instruction=😀 \ud83d | output=\u0000`},

	{`{"instruction": "Add.", "output": "4", "tools": "[{\"name\":\"weather\"}]"}`,
		"instruction, conversation | tools=" + weather + " | user: Add. | assistant: 4"},
	{`{"instruction": "Add.", "output": "4", "tools": "a saw", "chosen": true}`,
		"instruction, instruction | instruction=Add. | output=4"},

	// prompt and text
	{`{"prompt": "2+2=", "completion": " 4"}`, "prompt with completion, prompt | prompt=2+2= | completion= 4"},
	{`{"prompt": "2+2=", "response": " 4"}`, "prompt with completion, prompt | prompt=2+2= | completion= 4"},
	{`{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Ho"}]}`,
		"prompt with completion, conversation" + hiHo},
	{`{"prompt": "Hi", "completion": [{"role": "assistant", "content": "Ho"}]}`,
		"prompt with completion, conversation" + hiHo},
	{`{"prompt": "Hi", "completion": "Ho", "system": "Sing."}`, "prompt with completion, conversation | system: Sing." +
		hiHo},
	{`{"text": "Once.", "url": "x"}`, "text, text | text=Once."},

	// multiple choice
	{`{"question": "Sky?", "choices": ["green", "blue"], "answer": 1}`,
		`multiple-choice question, question | instruction=Sky? | ["green" "blue"] 1`},
	{`{"question": "Sky?", "choices": "[\"green\", \"blue\"]", "answer": "1"}`,
		`multiple-choice question, question | instruction=Sky? | ["green" "blue"] 1`},
}

func TestForms(t *testing.T) {
	for _, chosen := range []bool{false, true} { // which changes nothing for rows that are no pairs
		o := Default()
		o.Chosen = chosen
		for _, c := range forms {
			checkForm(t, o, c.raw, c.want)
		}
	}
}

func checkForm(t *testing.T, o Options, raw, want string) {
	t.Helper()
	r, err := newRowReader(o).parse(rawRow{number: 1, json: []byte(raw)})
	if err != nil {
		t.Errorf("%s: %v", raw, err)
	} else if got := written(r); got != want {
		t.Errorf("%s\n is  %s\nwant %s", raw, got, want)
	}
}

func TestPairs(t *testing.T) {
	o := Default()
	o.Chosen = true
	const list = `[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]`
	for _, c := range []struct{ raw, want string }{
		{`{"prompt": "2+2=", "chosen": "4", "rejected": "5"}`, "prompt | prompt=2+2= | completion=4"},
		{`{"prompt": "2+2=", "chosen": "4", "rejected": "5", "response": "6"}`, "prompt | prompt=2+2= | completion=4"},
		{`{"question": "2+2?", "chosen": "4", "rejected": "5"}`, "instruction | instruction=2+2? | output=4"},
		{`{"system": "Add.", "question": "2+2?", "chosen": "4", "rejected": "5"}`,
			"conversation | system: Add. | user: 2+2? | assistant: 4"},
		{`{"instruction": "Add.", "input": "2 2", "chosen": "4", "rejected": "5"}`,
			"instruction | instruction=Add. | input=2 2 | output=4"},
		{`{"chosen": ` + list + `, "rejected": []}`, "conversation" + hiHo},
		{`{"prompt": "Hi", "chosen": ` + list + `, "rejected": [], "messages": ` + list + `}`, "conversation" + hiHo},
		{`{"prompt": "Hi", "chosen": [{"role": "assistant", "content": "Ho"}], "rejected": []}`, "conversation" + hiHo},
		{`{"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Ho"}], ` +
			`"rejected": []}`, "conversation" + hiHo},
		{`{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Ho"}, ` +
			`"rejected": {"from": "gpt", "value": "No"}}`, "conversation" + hiHo},
		{`{"instruction": "Hi", "chosen": [{"from": "gpt", "value": "Ho"}], "rejected": []}`, "conversation" + hiHo},
		{`{"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}`,
			"conversation" + hiHo},
		{`{"chosen": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: And?\n\nAssistant: So.\n\nSo.", "rejected": ""}`,
			"conversation" + hiHo + " | user: And? | assistant: So.\n\nSo."},
		{`{"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Ho", "rejected": "No"}`,
			"conversation | user: Hi | assistant:  Ho"},
		{`{"chosen": "Once.", "rejected": "Twice."}`, "text | text=Once."},
	} {
		checkForm(t, o, c.raw, taken+c.want)
		if rs, err := parseRows("f", []byte(c.raw)); err != nil || len(rs.bad) != 1 ||
			!strings.Contains(rs.bad[0].Reason, "is a preference pair") {
			t.Errorf("%s without --chosen: %v, %v", c.raw, rs, err)
		}
	}
	for raw, want := range map[string]string{
		`{"prompt": "a", "chosen": " ", "rejected": "b"}`:               "chosen is empty",
		`{"prompt": "a", "chosen": 4, "rejected": 5}`:                   "completion is missing",
		`{"prompt": " ", "chosen": [{"role": "user", "content": "a"}]}`: "no message is the assistant's",
	} {
		if rs, err := parseWith(o, "f", []byte(raw)); err != nil || len(rs.bad) != 1 ||
			!strings.Contains(rs.bad[0].Reason, want) {
			t.Errorf("%s: %v, %v, want %s", raw, rs, err, want)
		}
	}
}

func TestColumns(t *testing.T) {
	for _, c := range []struct{ columns, raw, want string }{
		{"instruction=Frage,output=Antwort", `{"Frage": "a", "Antwort": "b", "question": "c", "response": "d"}`,
			"instruction, instruction | instruction=a | output=b"},
		{"instruction=Frage,output=Antwort", `{"instruction": "a", "output": "b"}`,
			"instruction, instruction | instruction=a | output=b"},
		{"instruction=output,output=instruction", `{"instruction": "b", "output": "a"}`,
			"instruction, instruction | instruction=a | output=b"},
		{"messages=dialogue,role=speaker,content=utterance", `{"dialogue": [{"speaker": "user", "utterance": "Hi", ` +
			`"role": "x"}, {"utterance": "Ho", "speaker": "bot", "at": 2}]}`,
			`conversation, conversation | user: Hi | assistant: Ho {"content":"Ho","role":"assistant","at":2}`},
		{"messages=data", `{"data": ["Hi", "Ho"]}`, talk},
		{"messages=b", `{"conversations": [], "b": ["Hi", "Ho"]}`, talk},
		{"text=body", `{"body": "Once.", "instruction": "a", "output": "b"}`, "text, text | text=Once."},
		{"prompt=a,completion=b", `{"a": "c", "b": "d", "instruction": "e", "response": "f"}`,
			"prompt with completion, prompt | prompt=c | completion=d"},
		{"chosen=better,question=q", `{"q": "a", "better": "b", "worse": "c"}`,
			taken + "instruction | instruction=a | output=b"},
		{"choices=options,answer=correct", `{"question": "a", "options": ["b", "c"], "correct": "B", "answerKey": "?"}`,
			`multiple-choice question, question | instruction=a | ["b" "c"] 1`},
		{"system=s,tools=t", `{"messages": ["Hi", "Ho"], "s": "Sing.", "t": [{"name":"weather"}]}`,
			"conversation, conversation | tools=" + weather + " | system: Sing." + hiHo},
	} {
		o := Default()
		o.Chosen = true
		var err error
		if o.Columns, err = ParseColumns(c.columns); err != nil {
			t.Fatal(err)
		}
		checkForm(t, o, c.raw, c.want)
	}
	for s, want := range map[string]string{
		"":              `columns "": want NAME=COLUMN`,
		"text":          `columns "text": want NAME=COLUMN`,
		"text=":         `columns "text=": want NAME=COLUMN`,
		"frage=a":       `columns: there is no field "frage"; want messages, role,`,
		"text=a,text=b": `columns: text is named twice, as "a" and "b"`,
		"text=a,role=a": `columns: "a" can't be both role and text`,
	} {
		if _, err := ParseColumns(s); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
	o := Default()
	o.Columns = map[string]string{"x": "y"}
	if err := o.Validate(); err == nil || !strings.HasPrefix(err.Error(), `columns: there is no field "x"`) {
		t.Errorf("validate: %v", err)
	}
}
