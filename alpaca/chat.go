package alpaca

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// speech is what the assistant says in a rendered conversation: its message with the token that ends the turn.
type speech struct {
	span
	content int  // where the message ends and what closes it begins
	closed  bool // by a token that ends generation; else the model learns to say EOS behind the message
}

// turn is an assistant's message as the runtime comes to it: rendered with the conversation before it, and with nothing
// behind.
type turn struct {
	rendered
	prompt string // what the runtime sends
	speech speech
}

// chatSequences renders a conversation. It is one sequence where the text only grows as the conversation goes on. A
// template that rewrites earlier turns, as some take the thinking out of them, gives one for each of the assistant's
// messages, rendered as the runtime will.
func (e *Encoder) chatSequences(c conversation) ([]*sequence, error) {
	template := e.templateFor(c)
	c, whole, err := template.renderRow(c, false)
	if err != nil {
		return nil, err
	}
	if e.trainOn == TrainAll {
		s, err := e.chatSequence(whole,
			[]speech{{span: span{0, len(whole.text)}, content: len(whole.text), closed: true}})
		return []*sequence{s}, err
	}
	var turns []turn
	grows, asked, silent := true, false, 0
	for i, m := range c.messages {
		if m.Role != Assistant {
			asked = asked || m.Role != System
			continue
		}
		if !asked { // a greeting, which no prompt asks for
			continue
		}
		t, err := e.chatTurn(template, c, i)
		if err != nil {
			return nil, err
		}
		if m.weightless() {
			continue
		}
		if strings.TrimSpace(t.text[min(t.speech.start, t.speech.content):t.speech.content]) == "" {
			silent = i + 1 // of tool calls that the template doesn't write, an end alone would be learnt
			continue
		}
		turns = append(turns, t)
		end := t.speech.end
		grows = grows && strings.HasPrefix(t.text, t.prompt) && end <= len(whole.text) &&
			whole.text[:end] == t.text[:end]
	}
	if len(turns) == 0 && silent > 0 {
		return nil, fmt.Errorf("%s: it writes nothing of the assistant's message %d; it has no place for tool calls, "+
			"perhaps", template.name, silent)
	}
	if len(turns) == 0 {
		return nil, errors.New("the assistant answers nothing in it")
	}
	if grows {
		last := turns[len(turns)-1].speech
		var speeches []speech
		for _, t := range turns {
			speeches = append(speeches, t.speech)
		}
		if template.marked {
			speeches = spoken(whole.spoken)
		}
		if e.trainOn == TrainLast {
			speeches = slices.DeleteFunc(speeches, func(s speech) bool { return s.end <= last.start })
		}
		s, err := e.chatSequence(whole, speeches)
		return []*sequence{s}, err
	}
	if e.trainOn == TrainLast {
		turns = turns[len(turns)-1:]
	}
	var list []*sequence
	for _, t := range turns {
		r, speeches := t.sent(template.marked)
		s, err := e.chatSequence(r, speeches)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// spoken are the speeches that a template marks itself.
func spoken(spans []span) (list []speech) {
	for _, s := range spans {
		list = append(list, speech{span: s, content: s.end, closed: true})
	}
	return list
}

// chatTurn renders message i, the assistant's, with what comes before it.
func (e *Encoder) chatTurn(template *chatTemplate, c conversation, i int) (t turn, err error) {
	c.messages = c.messages[:i+1]
	if t.rendered, err = template.render(c, false); err != nil {
		return t, err
	}
	before := c
	before.messages = c.messages[:i]
	prompt, err := template.render(before, true)
	if err != nil {
		return t, err
	}
	t.prompt = prompt.text
	start := len(t.prompt)
	content := c.messages[i].Content
	if !strings.Contains(t.text, content) { // many templates trim messages
		content = strings.TrimSpace(content)
	}
	if !strings.HasPrefix(t.text, t.prompt) {
		known, err := template.render(before, false)
		if err != nil {
			return t, err
		}
		header, err := template.header(c)
		if err != nil {
			return t, err
		}
		if start = t.resume(known.text, content, header, c.messages[i-1].Content); start < 0 {
			n := commonPrefix(t.text, t.prompt)
			return t, fmt.Errorf("%s: it renders the assistant's message %d unlike the prompt for it: %q where the "+
				"prompt has %q", template.name, i+1, excerpt(t.text[n:]), excerpt(t.prompt[n:]))
		}
	}
	if thinks := !strings.Contains(t.text, content) || c.messages[i].thinks(); thinks &&
		strings.HasPrefix(t.prompt, t.text[:start]) {
		t.prompt = t.text[:start] // without saying that nothing is thought
	}
	t.speech = e.speech(t.rendered, start, content)
	return t, nil
}

// weightless tells whether a message isn't to be learnt, as OpenAI's format says it.
func (m Message) weightless() bool {
	weight := object(m.Fields).find("weight")
	return weight != nil && (string(weight) == "0" || string(weight) == "0.0" || string(weight) == "false")
}

// thinks tells whether a message has what the assistant thought beside what it says.
func (m Message) thinks() bool { return object(withReasoning(m.Fields)).has("thinking") }

// resume finds where the assistant's message goes on from the prompt although the text isn't the prompt's, or -1. known
// is the conversation before it without the beginning of an answer, header the text before the message, and before the
// message before it.
func (t turn) resume(known, content, header, before string) int {
	// Earlier turns may be rewritten as the message comes: it stands behind the last beginning of an answer.
	if opening, ok := strings.CutPrefix(t.prompt, known); ok && opening != "" &&
		strings.Count(t.text, opening) == strings.Count(t.prompt, opening) {
		if at := strings.LastIndex(t.text, opening); at >= 0 && strings.Contains(t.text[at+len(opening):], content) {
			return at + len(opening)
		}
	}
	// The prompt may begin the answer in another way than the message does, as with an empty thought. Then what the
	// runtime sends stands, and the message follows.
	start := min(commonPrefix(t.text, t.prompt), commonPrefix(t.text, header))
	known = known[:commonPrefix(known, t.prompt)]
	if at := strings.LastIndex(t.prompt, strings.TrimSpace(before)); at >= 0 && strings.TrimSpace(before) != "" {
		known = t.prompt[:at+len(strings.TrimSpace(before))]
	}
	if start < len(known) {
		return t.behind(header)
	}
	// Tags such as <|START_RESPONSE|> and <|START_THINKING|> have no beginning in common.
	if at := strings.LastIndexAny(t.text[len(known):start], "<>[]"); at >= 0 &&
		strings.IndexByte("<[", t.text[len(known)+at]) >= 0 {
		start = len(known) + at
	}
	if rest := header[min(start, len(header)):]; strings.HasPrefix(t.text, header) &&
		strings.HasSuffix(t.prompt, rest) {
		start = max(start, len(header)) // the prompt has it already
	}
	return start
}

// behind is where the message begins, the blanks before it with it where the prompt doesn't end in any, or -1 where the
// template rewrites it.
func (t turn) behind(header string) int {
	if header == "" || len(header) == len(t.text) || !strings.HasPrefix(t.text, header) {
		return -1
	}
	if blanks := len(header) - len(strings.TrimRight(header, " ")); !strings.HasSuffix(t.prompt, " ") {
		return len(header) - blanks
	}
	return len(header)
}

func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

func excerpt(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// speech finds out where the assistant's message ends that begins at start: with the first token there that ends
// generation, else with the rendered text, and EOS behind it.
func (e *Encoder) speech(r rendered, start int, content string) speech {
	s := speech{span: span{start, start + len(strings.TrimRightFunc(r.text[start:], isSpace))}}
	s.content = s.end
	offset := strings.LastIndex(r.text[start:], content)
	if strings.HasPrefix(r.text[start:], content) {
		offset = 0
	}
	if offset >= 0 && content != "" { // else the template writes it in a form of its own
		s.content = start + offset + len(content)
		s.end = max(s.end, s.content)
	}
	for _, m := range e.controls.find(r.text, r.plain) {
		if m.start >= start && e.tok.IsEOG(e.controls.list[m.control].token) {
			s.end, s.closed = m.end, true
			s.content = min(max(s.content, start), m.start)
			break
		}
	}
	return s
}

// sent is the turn as the runtime comes to it, with the prompt that it sends, and what is learnt there.
func (t turn) sent(marked bool) (rendered, []speech) {
	start := t.speech.start
	shift := len(t.prompt) - start
	speeches := []speech{t.speech}
	if marked {
		speeches = slices.DeleteFunc(spoken(t.spoken), func(s speech) bool { return s.end <= start })
	}
	if shift == 0 && strings.HasPrefix(t.text, t.prompt) {
		return t.rendered, speeches
	}
	r := rendered{text: t.prompt + t.text[start:]}
	for _, offset := range t.plain {
		if offset >= start {
			offset += shift
		}
		r.plain = append(r.plain, offset)
	}
	for i := range speeches {
		s := &speeches[i]
		if s.start >= start {
			s.start += shift
		}
		s.content, s.end = s.content+shift, s.end+shift
	}
	return r, speeches
}

// chatSequence tokenizes a rendered conversation and labels what is said in it.
func (e *Encoder) chatSequence(r rendered, speeches []speech) (*sequence, error) {
	list, err := e.fragments(r.text, r.plain)
	if err != nil {
		return nil, err
	}
	text := joinFragments(list)
	s := &sequence{tokens: e.begin(text)}
	shift := len(s.tokens) - len(text)
	s.targets = slices.Repeat([]int32{-1}, len(s.tokens))
	for _, said := range speeches {
		if said.end <= said.start {
			continue
		}
		first, err := e.tokenAt(list, r.text, said.start)
		if err != nil {
			return nil, err
		}
		last, err := e.tokenAt(list, r.text, said.end-1)
		if err != nil {
			return nil, err
		}
		answer := last
		if said.content > said.start {
			if answer, err = e.tokenAt(list, r.text, said.content-1); err != nil {
				return nil, err
			}
		}
		s.added = false
		s.label(first+shift, min(last+shift+1, len(s.tokens)))
		s.prompt, s.answer = first+shift, min(answer+shift+1, len(s.tokens))
		if !said.closed {
			s.added = true
			s.end(min(last+shift+1, len(s.tokens)), e.tok.EOS())
		}
	}
	return s, nil
}

// chatPrompt is what the runtime sends for the assistant's next message.
func (e *Encoder) chatPrompt(c conversation) ([]int32, error) {
	_, r, err := e.templateFor(c).renderRow(c, true)
	if err != nil {
		return nil, err
	}
	list, err := e.fragments(r.text, r.plain)
	if err != nil {
		return nil, err
	}
	return e.begin(joinFragments(list)), nil
}

// templateFor is the chat template of a conversation: where it has tools, the one that the model has for them.
func (e *Encoder) templateFor(c conversation) *chatTemplate {
	if c.tools != nil && e.toolChat != nil {
		return e.toolChat
	}
	return e.chat
}
