package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/veratune/veratune/internal/durable"
)

// Words is the text of an error for people: what libraries and the system say in it is put in words, and control
// characters are escaped.
func Words(err error) string {
	text := err.Error()
	each(err, func(e error) {
		if words := said(e); words != "" {
			text = strings.Replace(text, e.Error(), words, 1)
		}
	})
	return Text(draft.ReplaceAllString(text, "$1$2"))
}

// draft is the name of a folder that is being written, which becomes that of the whole one.
var draft = regexp.MustCompile(`\.unfinished-([^/\\ :]+?)(?:-[0-9]{5,})?([/\\ :])`)

// each visits an error and all that it wraps, the outer ones first.
func each(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		each(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			each(inner, visit)
		}
	}
}

// said is what a library's or the system's error says, in words; "" where it is none, or plain enough.
func said(err error) string {
	switch err {
	case io.EOF, io.ErrUnexpectedEOF:
		return "it is empty, or ends too early"
	case context.Canceled:
		return "interrupted"
	case context.DeadlineExceeded:
		return "it took too long"
	}
	switch e := err.(type) {
	case *fs.PathError:
		return e.Path + ": " + reason(e.Err)
	case *os.LinkError:
		return e.New + ": " + reason(e.Err)
	case *os.SyscallError:
		return reason(e.Err)
	case syscall.Errno:
		if unix := durable.Unix(e); unix != e {
			return unix.Error()
		}
	case *strconv.NumError:
		return notNumber(e)
	case *json.SyntaxError:
		if e.Error() == endOfJSON {
			return said(io.EOF)
		}
	case *json.UnmarshalTypeError:
		return fmt.Sprintf("%s: %s is not what belongs there", field(e.Field), article(e.Value))
	case *url.Error:
		return e.URL + ": " + e.Err.Error()
	case *net.OpError:
		if e.Addr == nil {
			return e.Err.Error()
		}
		return fmt.Sprintf("%v: %v", e.Addr, e.Err)
	}
	return ""
}

// endOfJSON is the message of a json.SyntaxError where the text is cut.
const endOfJSON = "unexpected end of JSON input"

// reason is what the system says, with what it means where that isn't plain.
func reason(err error) string {
	switch {
	case durable.Refused(err, syscall.ENOTDIR):
		return "a part of this path is a file, not a folder"
	case errors.Is(err, fs.ErrNotExist):
		return "no such file or folder"
	case durable.InUse(err):
		return "another program has it open; close it there"
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		return durable.Unix(e).Error()
	}
	return err.Error()
}

func notNumber(e *strconv.NumError) string {
	if errors.Is(e.Err, strconv.ErrRange) {
		return e.Num + " is too large a number"
	}
	return fmt.Sprintf("%q is no number", e.Num)
}

func field(name string) string {
	if name == "" {
		return "the whole"
	}
	return name
}

func article(kind string) string {
	if strings.ContainsAny(kind[:1], "aeiou") {
		return "an " + kind
	}
	return "a " + kind
}
