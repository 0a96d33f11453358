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

	"golang.org/x/sys/unix"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// smallDisk mounts a file system of that many bytes, and skips the test where that isn't allowed.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size="+strconv.Itoa(bytes)); err != nil {
		t.Skipf("mounting a small disk needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// fill leaves that many bytes of a disk, in whole pages.
func fill(t *testing.T, disk string, leave int) (filler string) {
	t.Helper()
	var free unix.Statfs_t
	if err := unix.Statfs(disk, &free); err != nil {
		t.Fatal(err)
	}
	filler = filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, max(0, int(free.Bfree)*int(free.Bsize)-leave)), 0o666); err != nil {
		t.Fatal(err)
	}
	return filler
}

// A disk that is full at any point of a run ends it with an error that names the file. The newest checkpoint stays
// whole, nothing half written is left, and with space again the run goes on to the same bytes.
func TestFullDisk(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 30)
	whole := filepath.Join(t.TempDir(), "whole")
	for _, more := range [][]string{{"--max-steps", "5"}, {"--resume"}} {
		if code, _, stderr := veratune(alpacaArgs(model, data, whole, more...)...); code != 0 {
			t.Fatalf("exit code %d, %q", code, stderr)
		}
	}
	disk := smallDisk(t, 4<<20)
	out := filepath.Join(disk, "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, out, "--max-steps", "5")...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	checkpoints := filepath.Join(out, "checkpoints")
	for leave, failed := 0, true; failed; leave += 1 << 12 {
		before := steps(t, out)
		filler := fill(t, disk, leave)
		code, _, stderr := veratune(alpacaArgs(model, data, out, "--resume")...)
		failed = code != 0
		if failed && (code != exitFailed || !strings.Contains(stderr, "no space left on device; make room") ||
			!strings.Contains(lastLine(stderr), disk)) {
			t.Errorf("%d bytes left: exit code %d, %q", leave, code, stderr)
		}
		if left, err := filepath.Glob(filepath.Join(checkpoints, ".*")); len(left) > 0 || err != nil {
			t.Errorf("%d bytes left: %v is left, and keeps the disk full (%v)", leave, left, err)
		}
		if strings.Contains(stderr, "damaged") {
			t.Errorf("%d bytes left: %s", leave, stderr)
		}
		if after := steps(t, out); failed && newest(after) < newest(before) {
			t.Errorf("%d bytes left: checkpoints %v became %v", leave, before, after)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes left: %s", leave, lastLine(stderr))
	}
	got, err := content(checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	want, err := content(filepath.Join(whole, "checkpoints"))
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("checkpoints %v, want %v (%v)", got, want, err)
	}
	for _, adapter := range []string{train.AdapterFile, train.BestFile} {
		if string(read(t, filepath.Join(out, adapter))) != string(read(t, filepath.Join(whole, adapter))) {
			t.Errorf("%s differs from that of the run that had space", adapter)
		}
	}
	left, err := filepath.Glob(filepath.Join(out, ".*"))
	if len(left) > 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}

	// Exports say so, too, and leave what was there.
	fill(t, disk, 0)
	for _, form := range exports {
		file := filepath.Join(disk, "export")
		code, _, stderr := veratune("export", "--model", model, "--adapter", filepath.Join(out, train.AdapterFile),
			"--to", form.name, "--out", file, "--threads", "1")
		if code != exitFailed || !strings.Contains(stderr, "no space left on device") ||
			!strings.Contains(stderr, disk) {
			t.Errorf("export to %s: exit code %d, %q", form.name, code, stderr)
		}
	}
	if entries, _ := os.ReadDir(disk); len(entries) != 2 { // the run and the filler
		t.Errorf("left: %v", entries)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20)
	disk := smallDisk(t, 4<<20)
	out := filepath.Join(disk, "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, out, "--max-steps", "2")...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	adapter := filepath.Join(out, train.AdapterFile)
	for name, args := range map[string][]string{
		"new run": alpacaArgs(model, data, filepath.Join(disk, "new")),
		"resume":  alpacaArgs(model, data, out, "--resume"),
		"force":   alpacaArgs(model, data, out, "--force"),
		"sweep": {"sweep", "--model", model, "--data", data, "--lr", "1e-3,1e-2", "--out",
			filepath.Join(disk, "sweep")},
		"mtbench": {"mtbench", "run", "--model", model, "--out", filepath.Join(disk, "mtbench")},
		"vera": {"export", "--model", model, "--adapter", adapter, "--to", "vera", "--out",
			filepath.Join(disk, "vera.gguf")},
		"lora": {"export", "--model", model, "--adapter", adapter, "--to", "lora", "--out",
			filepath.Join(disk, "lora.gguf")},
		"merged": {"export", "--model", model, "--adapter", adapter, "--to", "merged", "--out",
			filepath.Join(disk, "merged.gguf")},
		"peft": {"export", "--model", model, "--adapter", adapter, "--to", "peft", "--out",
			filepath.Join(disk, "peft")},
	} {
		if code, _, stderr := veratune(args...); code != exitFailed ||
			!strings.Contains(lastLine(stderr), "read-only file system; choose") ||
			!strings.Contains(lastLine(stderr), disk) {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
	}
	if code, _, stderr := veratune("loss", "--model", model, "--adapter", adapter, "--data", data, "--threads",
		"1"); code != 0 {
		t.Errorf("reading from it: exit code %d, %q", code, stderr)
	}
}

// limited is the program in a process that a shell's ulimit holds.
func limited(t *testing.T, ulimit string, args ...string) (code int, output string) {
	t.Helper()
	cmd, out := process(args...)
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", "ulimit " + ulimit + ` && exec "$0" "$@"`, os.Args[0]},
		args...)
	err := cmd.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		t.Skip(err)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		t.Errorf("ulimit %s: ended by %v: %s", ulimit, status.Signal(), out)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// TestLimits runs with files limited in size and number, and memory in size: each fails with a line that names what it
// could not do, and the run goes on without the limit.
func TestLimits(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20)
	for ulimit, says := range map[string]string{
		"-f 8":  "file too large; raise", // of 512 bytes
		"-n 10": "too many open files; raise",
	} {
		out := filepath.Join(t.TempDir(), "run")
		if code, _, stderr := veratune(alpacaArgs(model, data, out, "--max-steps", "2")...); code != 0 {
			t.Fatalf("exit code %d, %q", code, stderr)
		}
		code, output := limited(t, ulimit, alpacaArgs(model, data, out, "--resume")...)
		if last := lastLine(output); code != exitFailed || !strings.HasPrefix(last, "veratune: ") ||
			!strings.Contains(last, says) {
			t.Errorf("ulimit %s: exit code %d, %q", ulimit, code, output)
		} else {
			t.Log(last)
		}
		if code, _, stderr := veratune(alpacaArgs(model, data, out, "--resume")...); code != 0 ||
			strings.Contains(stderr, "damaged") || !strings.Contains(stderr, "going on after step") {
			t.Errorf("ulimit %s, then without: exit code %d, %q", ulimit, code, stderr)
		}
	}
}
