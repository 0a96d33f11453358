package alpaca

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Convert writes the rows of files as JSON lines of messages, with the tools and documents that they have; raw text
// stays a line of text. Of a multiple-choice question, the right choice is the answer. It returns the rows that can't
// be read, and with o.Strict ends at the first. It needs o.Columns, o.Chosen and o.Strict.
func Convert(paths []string, out io.Writer, o Options) (rows int, bad []BadRow, err error) {
	w := bufio.NewWriter(out)
	reader := newRowReader(o)
	for _, path := range paths {
		f, err := openRows(path, o)
		if err != nil {
			return rows, bad, err
		}
		err = f.scan(func(raw rawRow) error {
			r, err := reader.parse(raw)
			switch {
			case err != nil && o.Strict:
				return BadRow{path, raw.number, err.Error()}
			case err != nil:
				bad = append(bad, BadRow{path, raw.number, err.Error()})
				return nil
			}
			rows++
			return errors.Join(r.write(w), o.context().Err())
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return rows, bad, err
		}
	}
	if err := w.Flush(); err != nil {
		return rows, bad, fmt.Errorf("writing rows: %w", err)
	}
	return rows, bad, nil
}

// write writes a row as a line.
func (r row) write(w *bufio.Writer) error {
	line := object{{"text", quote(r.text)}}
	if r.text == "" {
		var messages []json.RawMessage
		for _, m := range r.asMessages() {
			fields := object(m.Fields)
			if fields == nil {
				fields = object{{"role", quote(m.Role)}, {"content", quote(m.Content)}}
			}
			messages = append(messages, fields.json())
		}
		line = object{{"messages", array(messages)}}
		for _, f := range []Field{{"tools", r.tools}, {"documents", r.documents}} {
			if f.Value != nil {
				line = append(line, f)
			}
		}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, line.json()); err != nil {
		return err
	}
	compact.WriteByte('\n')
	_, err := w.Write(compact.Bytes())
	return err
}

// asMessages is a row as a conversation.
func (r row) asMessages() []Message {
	ask, answer := Ask(r.instruction, r.input), r.output
	switch {
	case r.messages != nil:
		return r.messages
	case r.completion != "":
		ask.Content, answer = r.prompt, r.completion
	case r.choices != nil:
		answer = r.choices[r.answer]
	}
	return []Message{ask, {Role: Assistant, Content: answer}}
}

// ReadConversation reads a file of one row as a conversation.
func ReadConversation(path string) (messages []Message, err error) {
	f, err := openRows(path, Options{})
	if err != nil {
		return nil, err
	}
	reader := newRowReader(Options{})
	err = f.scan(func(raw rawRow) error {
		if messages != nil {
			return fmt.Errorf("%s: has several rows; a conversation is one", path)
		}
		r, err := reader.parse(raw)
		if err == nil && r.text != "" {
			err = errors.New("is raw text, no conversation")
		}
		if err != nil {
			return BadRow{path, raw.number, err.Error()}
		}
		messages = r.asMessages()
		return nil
	})
	if err = errors.Join(err, f.Close()); err == nil && messages == nil {
		err = fmt.Errorf("%s: has no row", path)
	}
	return messages, err
}
