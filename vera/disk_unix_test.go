//go:build !windows

package vera

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/veratune/veratune/bindings"
)

// alone runs a test that limits the process in a process of its own, where it is true: `go test` writes a log of the
// files that tests open, which the limit would cut.
func alone(t *testing.T) bool {
	t.Helper()
	const inChild = "VERATUNE_TEST_ALONE"
	if os.Getenv(inChild) != "" {
		return true
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), inChild+"=1")
	if output, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, output)
	}
	return false
}

// diskFull calls write with files limited to that size, which stands for a full disk, and checks that it fails for it.
func diskFull(t *testing.T, size uint64, write func() error) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	small := limit
	small.Cur = size
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	err := write()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("error %v", err)
	}
}

// TestMergedDiskFull fails to write in the middle.
func TestMergedDiskFull(t *testing.T) {
	if !alone(t) {
		return
	}
	base, described := tinyBase(t, bindings.F32)
	a := random(t, described, 0.1)
	dir := t.TempDir()
	diskFull(t, 200_000, func() error {
		_, err := a.SaveMerged(t.Context(), filepath.Join(dir, "merged.gguf"), base, keep())
		return err
	})
	wantFiles(t, dir)
}

// TestLoRAUnfinished leaves what was there where it is stopped at any layer, and where the disk is full.
func TestLoRAUnfinished(t *testing.T) {
	if !alone(t) {
		return
	}
	a := randomAdapter(t, toyConfig(), cutBase())
	dir := t.TempDir()
	path := filepath.Join(dir, "lora.gguf")
	if err := os.WriteFile(path, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []LoRAOptions{{Type: "f32", Threads: 2, Overwrite: true},
		{Rank: 2, Type: "f16", Threads: 1, Overwrite: true}} {
		for left := range len(a.Layers) {
			if _, err := a.SaveLoRA(&endsLater{t.Context(), left}, path, o); !errors.Is(err, context.Canceled) {
				t.Errorf("after %d layers: %v", left, err)
			}
		}
		diskFull(t, 1000, func() error {
			_, err := a.SaveLoRA(t.Context(), path, o)
			return err
		})
	}
	wantFiles(t, dir, "lora.gguf")
	if string(read(t, path)) != "older" {
		t.Error("the older file is gone")
	}
}

// What is no regular file of a sane size is not read, and a pipe is not waited for.
func TestPEFTFiles(t *testing.T) {
	p := foreignLoRA(t, toy(), some(8, []int{0, 1, 2}, "attn_q"), `"target_modules": ["q_proj"]`)
	for _, name := range []string{peftConfigFile, peftWeightsFile} {
		for what, replace := range map[string]func(path string) error{
			"not a regular file": func(path string) error { return unix.Mkfifo(path, 0o600) },
			"not a regular fil":  func(path string) error { return os.Symlink("/dev/zero", path) },
			"more than": func(path string) error {
				return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40))
			},
		} {
			dir := p.write(t)
			path := filepath.Join(dir, name)
			if err := errors.Join(os.Remove(path), replace(path)); err != nil {
				t.Fatal(err)
			}
			_, err := Load(dir, toy())
			wantError(t, err, what, name)
			_, err = Summarize(dir)
			wantError(t, err, what, name)
		}
	}
	dir := p.write(t)
	if err := os.Rename(filepath.Join(dir, peftWeightsFile), filepath.Join(dir, peftPickleFile)); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir, toy())
	wantError(t, err, peftPickleFile, "save it again")
}
