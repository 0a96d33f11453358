package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// smallContainer makes a cgroup with that much memory and no swap, and skips the test where that isn't allowed. Version
// 1 has a tree of folders for memory alone.
func smallContainer(t *testing.T, memory int) string {
	t.Helper()
	parent, files := "/sys/fs/cgroup", []string{"memory.max", "memory.swap.max"}
	values := []string{strconv.Itoa(memory), "0"}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(groups)) {
		if part := strings.SplitN(strings.TrimSpace(line), ":", 3); len(part) == 3 && part[1] == "memory" {
			parent, files, values[1] = filepath.Join("/sys/fs/cgroup/memory", part[2]),
				[]string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}, values[0]
		}
	}
	group, err := os.MkdirTemp(parent, "veratune-test-")
	if err != nil {
		t.Skipf("a cgroup needs root: %v", err)
	}
	t.Cleanup(func() {
		for range 100 { // until its last process is gone
			if err = os.Remove(group); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error(err)
	})
	for i, file := range files {
		place := filepath.Join(group, file)
		if _, err := os.Stat(place); err != nil && i == 0 {
			t.Skipf("the memory of cgroups can't be limited here: %v", err)
		} else if err != nil {
			continue // a kernel without swap accounting
		}
		if err := os.WriteFile(place, []byte(values[i]), 0); err != nil {
			t.Skip(err)
		}
	}
	return group
}

// contained is a command whose process enters the cgroup first.
func contained(group string, cmd *exec.Cmd) *exec.Cmd {
	cmd.Args = append([]string{"sh", "-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, group, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return cmd
}

// A training that can't fit into its container says so before it begins.
func TestContainerTooSmall(t *testing.T) {
	group := smallContainer(t, 150<<20)
	model, data, out := testutil.TinyLlama(t, testutil.TinyOptions{Width: 512, Hidden: 1024, Heads: 8, KVHeads: 8}),
		rows(t, 500), filepath.Join(t.TempDir(), "run")
	args := alpacaArgs(model, data, out, "--batch", "400")
	cmd, output := process(args...)
	contained(group, cmd).Run()
	last := lastLine(output.String())
	if code := cmd.ProcessState.ExitCode(); code != exitFailed ||
		!strings.Contains(last, "the limit of this container, of its cgroup, is 0.15 GiB; use a smaller batch") {
		t.Errorf("exit code %d, %s", code, output)
	}
	t.Log(last)
	if _, err := os.Stat(out); err == nil {
		t.Error("it left a run folder")
	}
}

// Training and answers need no /proc, which a chroot may lack.
func TestWithoutProc(t *testing.T) {
	model, out := testutil.TinyLlama(t, testutil.TinyOptions{}), filepath.Join(t.TempDir(), "run")
	hidden := func(args ...string) {
		t.Helper()
		cmd, output := process(args...)
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c",
			`exec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs none /proc || exit 77; exec "$0" "$@"' "$0" "$@"`,
			program}, args...)
		err = cmd.Run()
		code := cmd.ProcessState.ExitCode()
		if code == 77 || code == 127 || strings.Contains(output.String(), "unshare: ") {
			t.Skipf("no process can be put into a namespace of its own: %s", output)
		}
		if err != nil {
			t.Errorf("%v: %s", err, output)
		}
	}
	hidden(alpacaArgs(model, rows(t, 20), out, "--max-steps", "2")...)
	hidden("generate", "--model", model, "--adapter", filepath.Join(out, "adapter.gguf"), "--max-tokens", "4", "hello")
}

// A training that the kernel kills because its container has run out of memory goes on from its newest checkpoint to
// the same bytes.
func TestOutOfMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	group := smallContainer(t, 150<<20)
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1}), rows(t, 60)
	whole, out := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "run")
	args := func(out string, more ...string) []string {
		return alpacaArgs(model, data, out, append(more, "--steps", "60", "--eval-every", "20")...)
	}
	if code, _, stderr := veratune(args(whole)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	training, output := process(args(out)...)
	if err := contained(group, training).Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- training.Wait() }()
	for newest(steps(t, out)) < 2 {
		select {
		case err := <-ended:
			t.Fatalf("%v: %s", err, output)
		case <-time.After(time.Millisecond):
		}
	}
	// A neighbour takes more than is left, and the training is the first to be killed for that.
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(training.Process.Pid), "oom_score_adj"), []byte("1000"),
		0); err != nil {
		t.Fatal(err)
	}
	neighbour := contained(group, exec.Command("/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=140M", "count=1000000"))
	if err := neighbour.Start(); err != nil {
		t.Fatal(err)
	}
	<-ended
	neighbour.Process.Kill()
	neighbour.Wait()
	if status := training.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Fatalf("the training ended by itself, %v: %s", training.ProcessState, output)
	}
	at := newest(steps(t, out))
	code, _, stderr := veratune(args(out, "--resume")...)
	if code != 0 || !strings.Contains(stderr, "going on after step "+strconv.Itoa(at)) {
		t.Errorf("exit code %d, %q, want it to go on after step %d", code, stderr, at)
	}
	got, err := content(out)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := content(whole); err != nil || !maps.Equal(got, want) {
		t.Errorf("killed after step %d, it ended in other files: %v, want %v (%v)", at, got, want, err)
	}
}
