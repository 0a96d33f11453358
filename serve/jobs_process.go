package serve

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/veratune/veratune/internal/durable"
)

const (
	exitInterrupted = 130              // of a training that has saved what it had
	grace           = 30 * time.Second // for a process to save that, once it is told to end
)

// process makes a process of veratune that is told to end with ctx, and where the system can do that, with this one.
func (j *Jobs) process(ctx context.Context, words []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, j.options.Program, words...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(j.options.Secrets, name)
	})
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return interrupt(cmd.Process) }
	cmd.WaitDelay = grace
	return cmd
}

// runLow runs a process with lower priority than this one has.
func runLow(cmd *exec.Cmd) error {
	runtime.LockOSThread() // with which, not with this process, Linux would end the other
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer started(cmd.Process)()
	return cmd.Wait()
}

// await waits until no other process trains in a run's folder. One that an ended server has left may, for a step.
func await(ctx context.Context, run string) error {
	for {
		lock, err := durable.LockFolder(run)
		switch {
		case err == nil:
			return lock.Close()
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case !errors.As(err, new(durable.Held)):
			return err
		}
		const pause = 100 * time.Millisecond
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sayings gives the end of what processes have said, from an offset on.
func sayings(said *os.File, from int64) (string, error) {
	const most = 64 << 10
	info, err := said.Stat()
	if err != nil {
		return "", err
	}
	from = max(from, info.Size()-most)
	text, err := io.ReadAll(io.NewSectionReader(said, from, info.Size()-from))
	return string(text), err
}

// failed is why a process of veratune has failed: its last words.
func failed(said string, err error) string {
	for _, line := range slices.Backward(strings.Split(said, "\n")) {
		if message, ok := strings.CutPrefix(line, "veratune: "); ok {
			return message
		}
	}
	return "the process ended early: " + err.Error()
}

// remarks are what a process of veratune has said that its job's client may want to know.
func remarks(said string) (list []saying) {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if message, ok := strings.CutPrefix(line, "warning: "); ok {
			list = append(list, saying{Level: levelWarn, Message: message})
		} else if strings.HasPrefix(line, "patience: ") {
			list = append(list, saying{Level: levelInfo, Message: line})
		}
	}
	return list
}
