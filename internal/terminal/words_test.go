package terminal

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"testing"
)

// TestWords puts the errors of libraries and the system in words.
func TestWords(t *testing.T) {
	_, notANumber := strconv.Atoi("a")
	for want, err := range map[string]error{
		"model: x.gguf: no such file or folder": fmt.Errorf("model: %w",
			&fs.PathError{Op: "open", Path: "x.gguf", Err: fs.ErrNotExist}),
		"b: permission denied": &os.LinkError{Op: "rename", Old: ".b1234567890123",
			New: "b", Err: fs.ErrPermission},
		"run: x/step-3/state: no space": fmt.Errorf("run: %w",
			&fs.PathError{Op: "write", Path: "x/.unfinished-step-3/state", Err: fmt.Errorf("no space")}),
		"peft/adapter_config.json: no space": &fs.PathError{Op: "write",
			Path: ".unfinished-peft-1352223143/adapter_config.json", Err: fmt.Errorf("no space")},
		`first: "a" is no number` + "; second: interrupted": fmt.Errorf("first: %w; second: %w", notANumber,
			context.Canceled),
	} {
		if got := Words(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
