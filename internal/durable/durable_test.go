package durable

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

const killedIn = "VERATUNE_TEST_KILLED_IN"

// TestMain holds a lock, a file and a draft in the folder that the variable names, until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killedIn); dir != "" {
		lock, err := LockFolder(dir)
		file, fileErr := Create(filepath.Join(dir, "file"), 0o666)
		draft, draftErr := Draft(filepath.Join(dir, "folder"))
		fmt.Println(errors.Join(err, fileErr, draftErr), os.Mkdir(filepath.Join(dir, ".writable"), 0o700))
		time.Sleep(time.Hour)
		runtime.KeepAlive([]any{lock, file, draft})
	}
	os.Exit(m.Run())
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// Another process holds a folder, and things in it, until it is killed; what it leaves is gone with the next writing.
func TestKilledProcess(t *testing.T) {
	dir := t.TempDir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), killedIn+"="+dir)
	out, err := other.StdoutPipe()
	if err := errors.Join(err, other.Start()); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "<nil> <nil>\n" {
		t.Fatal(line)
	}
	_, err = LockFolder(dir)
	var held Held
	if want := fmt.Sprintf("process %d", other.Process.Pid); !errors.As(err, &held) || held.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	write := func() {
		t.Helper()
		draft, err := Draft(filepath.Join(dir, "folder"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(WriteFile(filepath.Join(dir, "file"), []byte("new"), 0o666), os.Remove(draft.Name()),
			draft.Close(), CheckWritable(dir)); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if list := names(t, dir); len(list) != 4 {
		t.Errorf("what a living process writes is not touched: %v", list)
	}
	other.Process.Kill()
	other.Wait()
	theirs := filepath.Join(dir, ".file20261126")
	if err := os.WriteFile(theirs, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	lock, err := LockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	write()
	moved := dir + "-moved"
	if runtime.GOOS == "windows" { // renames no folder with an open file
		moved = dir
	} else if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	} else if err := lock.Check(); !errors.Is(err, ErrGone) {
		t.Errorf("a folder that was renamed: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
	if list := names(t, moved); len(list) != 2 || list[0] != ".file20261126" || list[1] != "file" {
		t.Errorf("left: %v", list)
	}
}

// A locked folder that is removed, or has another in its place, is gone; closing the lock leaves the other alone.
func TestFolderIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder")
	for name, change := range map[string]func() error{
		"removed":  func() error { return os.RemoveAll(dir) },
		"replaced": func() error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o777)) },
		"a file":   func() error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o666)) },
		"nothing":  func() error { return nil },
	} {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
		lock, err := LockFolder(dir)
		if err == nil {
			err = change()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := lock.Check(); errors.Is(err, ErrGone) != (name != "nothing") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "replaced" {
			other, err := LockFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
		}
		if err := lock.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, pidFile)); (err == nil) != (name == "replaced") {
			t.Errorf("%s: pid: %v", name, err)
		}
	}
	if err := (*Lock)(nil).Check(); err != nil {
		t.Error(err)
	}
}

func TestFailedWriteLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("half of the n"))
	if err := f.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "old" || len(names(t, dir)) != 1 {
		t.Errorf("%q, %v", data, names(t, dir))
	}
	if err := CheckWritable(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// What appears while a new file is written stays, and nothing is left of the other.
func TestNewFileIsLate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	f, err := CreateOutput(path, 0o666, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Cleanup()
	if err := os.WriteFile(path, []byte("theirs"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err == nil ||
		err.Error() != path+": is there already; choose another name, or have it replaced with --overwrite" {
		t.Error(err)
	}
	if err := f.Cleanup(); err != nil {
		t.Error(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "theirs" || len(names(t, dir)) != 1 {
		t.Errorf("%q, %v", data, names(t, dir))
	}
}

// No message names the file beside the path.
func TestFullDevice(t *testing.T) {
	const full = "/dev/full"
	if runtime.GOOS == "windows" { // under wine it can be seen, and not be written
		t.Skip("devices are for Unix")
	}
	if _, err := os.Stat(full); err != nil {
		t.Skip(err)
	}
	if err := WriteOutput(full, []byte("text"), false); err == nil ||
		err.Error() != "/dev/full: cannot be written: no space left on device" {
		t.Error(err)
	}
	if _, err := os.Stat(full); err != nil {
		t.Error(err)
	}
}
