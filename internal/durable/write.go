package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// File is a file that takes its place when it is whole and on the disk. A device or FIFO is written as it goes.
type File struct {
	file    *os.File
	path    string // as the caller named it
	place   string // where it will stand
	onlyNew bool
	pending *pendingFile // nil for what is written as it goes
}

// Create opens a file beside path, or beside what a link there points to, that takes its place with Commit; Cleanup,
// before that, leaves path as it was. What killed processes have left of earlier files for path is removed.
func Create(path string, mode fs.FileMode) (*File, error) { return CreateOutput(path, mode, true) }

// CreateOutput is Create for a file that a person asked for: Commit fails where something stands at path by then,
// unless overwrite is set.
func CreateOutput(path string, mode fs.FileMode, overwrite bool) (*File, error) {
	place, info, err := destination(path)
	switch {
	case err != nil:
		return nil, err
	case info != nil && throughput(info):
		f, err := os.OpenFile(place, os.O_WRONLY, 0)
		if err != nil {
			return nil, refused(path, err)
		}
		return &File{file: f, path: path}, nil
	case info != nil && !overwrite:
		return nil, taken(path)
	}
	dir := filepath.Dir(place)
	sweep(dir, "."+filepath.Base(place), 12) // of 19
	pending, err := newPending(place, mode)
	if err != nil {
		return nil, inFolder(path, dir, err)
	}
	hold(pending.File)
	return &File{file: pending.File, path: path, place: place, onlyNew: !overwrite, pending: pending}, nil
}

// Commit puts the file on the disk and in its place.
func (f *File) Commit() error {
	var err error
	switch {
	case f.pending == nil:
		err = f.file.Close()
	case f.onlyNew:
		err = f.pending.commitNew(f.place)
	default:
		err = f.pending.CloseAtomicallyReplace()
	}
	if errors.Is(err, fs.ErrExist) {
		return taken(f.path)
	}
	if err != nil {
		return refused(f.path, err)
	}
	return nil
}

// Cleanup gives the file up, unless it has taken its place.
func (f *File) Cleanup() error {
	if f.pending == nil {
		_ = f.file.Close() // for the second time, after Commit
		return nil
	}
	return f.pending.Cleanup()
}

// Write writes to the file; its errors name the path that the file will have.
func (f *File) Write(data []byte) (int, error) {
	n, err := f.file.Write(data)
	if err != nil {
		err = refused(f.path, err)
	}
	return n, err
}

// WriteFile writes a file beside path, syncs it and renames it to path, all or nothing.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := Create(path, mode)
	return write(f, err, data)
}

// WriteOutput writes a file that a person asked for, as WriteFile does; what stands there is replaced if overwrite is
// set. CheckOutput says before what will fail.
func WriteOutput(path string, data []byte, overwrite bool) error {
	f, err := CreateOutput(path, 0o666, overwrite)
	return write(f, err, data)
}

func write(f *File, err error, data []byte) error {
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// Draft makes a folder beside path to be renamed to it. Close the folder that is returned, open, when that is done.
// Drafts that killed processes have left are removed.
func Draft(path string) (*os.File, error) {
	dir, prefix := filepath.Dir(path), ".unfinished-"+filepath.Base(path)+"-"
	sweep(dir, prefix, 1)
	name, err := os.MkdirTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	draft, err := openFolder(name)
	if err != nil {
		return nil, err
	}
	hold(draft)
	return draft, nil
}

// sweep removes files and folders in dir whose name is prefix and a random number of that many digits at least, and
// that no living process holds. Where that can't be told, or a file can't be removed, it stays.
func sweep(dir, prefix string, digits int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || len(number) < digits || strings.Trim(number, "0123456789") != "" {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if !isHeld(path) {
			_ = os.RemoveAll(path)
		}
	}
}

// CheckWritable fails where no file can be made in a folder. It leaves nothing there.
func CheckWritable(dir string) error {
	probe := filepath.Join(dir, ".writable")
	// A folder, since there can be one only: what a killed process left of it is removed with the next.
	if err := os.Mkdir(probe, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	if err := os.Remove(probe); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
