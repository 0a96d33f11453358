package durable

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// CheckOutput returns an error where a file that a person asks for can't be written at path, so that it is known before
// the work: something stands there that is not to be replaced, the folder is missing or can't be written, or path is
// one of the inputs, by whatever name. What stands there may be replaced if overwrite is set. A device or a FIFO is
// written to, a link stands for what it points to. It leaves nothing behind.
func CheckOutput(path string, overwrite bool, inputs ...string) error {
	place, info, err := destination(path)
	if err != nil {
		return err
	}
	if info == nil {
		return checkFolder(path, filepath.Dir(place))
	}
	for _, input := range inputs {
		if from, err := os.Stat(input); err == nil && os.SameFile(from, info) {
			return fmt.Errorf("%s: is read by this command; write to another file", path)
		}
	}
	switch {
	case throughput(info):
		return nil
	case !overwrite:
		return taken(path)
	}
	return checkFolder(path, filepath.Dir(place))
}

// CheckNewFolder returns an error where no new folder can be made at path: something is there, other than an empty
// folder, or it can't be written beside it.
func CheckNewFolder(path string) error {
	if path == "" {
		return fmt.Errorf("%q: want the name of a folder", path)
	}
	path = filepath.Clean(path)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return refused(path, err)
	case !info.IsDir():
		return fmt.Errorf("%s: %w, and is no folder; give a new one", path, errTaken)
	default:
		entries, err := os.ReadDir(path)
		if err != nil {
			return refused(path, err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s: is not empty; give a new folder", path)
		}
	}
	return checkFolder(path, filepath.Dir(path))
}

// CheckFolder returns an error where path is no folder, and can't become one, in which files can be made.
func CheckFolder(path string) error {
	place, err := filepath.Abs(path)
	if path == "" || err != nil {
		return fmt.Errorf("%q: want the name of a folder", path)
	}
	for {
		info, err := os.Stat(place)
		switch {
		case err == nil && info.IsDir():
			return checkFolder(path, place)
		case err == nil:
			return fmt.Errorf("%s: %s is a file; want a folder, which need not exist yet", path, place)
		case !errors.Is(err, fs.ErrNotExist) && !Refused(err, syscall.ENOTDIR) || filepath.Dir(place) == place:
			return refused(path, err)
		}
		if _, err := os.Lstat(place); err == nil {
			return fmt.Errorf("%s: %s is a link that leads to nothing; want a folder, which need not exist yet",
				path, place)
		}
		place = filepath.Dir(place)
	}
}

func taken(path string) error {
	return fmt.Errorf("%s: %w; choose another name, or have it replaced with --overwrite", path, errTaken)
}

var errTaken = errors.New("is there already")

// Destination follows links to the place where a file written at path would stand. It fails where a folder is, or
// anything that can't be written.
func Destination(path string) (string, error) {
	place, _, err := destination(path)
	return place, err
}

// destination follows links to the place where a file would stand. What stands there is a file, a device or a FIFO, or
// nothing: then info is nil.
func destination(path string) (place string, info fs.FileInfo, err error) {
	if path == "" || os.IsPathSeparator(path[len(path)-1]) {
		return "", nil, fmt.Errorf("%q: want the name of a file", path)
	}
	place = path
	for range 40 { // as many links as Linux follows
		info, err = os.Lstat(place)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			place, err = inRealFolder(path, place)
			return place, nil, err
		case err != nil:
			return "", nil, refused(path, err)
		case info.Mode()&fs.ModeSymlink == 0:
			if !info.Mode().IsRegular() && !throughput(info) {
				return "", nil, fmt.Errorf("%s: is %s; want the name of a file", path, kind(info))
			}
			place, err = inRealFolder(path, place)
			return place, info, err
		}
		// A link of the system, to a pipe for one, leads where its text does not say.
		if real, err := os.Stat(place); err == nil && throughput(real) {
			return place, real, nil
		}
		next, err := os.Readlink(place)
		if err != nil {
			return "", nil, refused(path, err)
		}
		if !filepath.IsAbs(next) {
			dir, _ := filepath.Split(place) // unlike Dir and Join, this leaves the ".." behind a link as they are
			next = dir + next
		}
		place = next
	}
	return "", nil, fmt.Errorf("%s: is a link that leads back to itself", path)
}

// inRealFolder names the place of a file by the folder that those links lead to which its own folder is reached by.
func inRealFolder(path, place string) (string, error) {
	dir, name := filepath.Split(place)
	real, err := filepath.EvalSymlinks(cmp.Or(dir, "."))
	if err != nil {
		return "", inFolder(path, cmp.Or(strings.TrimRight(dir, string(filepath.Separator)), dir), err)
	}
	return filepath.Join(real, name), nil
}

// throughput tells what is written to rather than replaced.
func throughput(info fs.FileInfo) bool {
	return info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe) != 0
}

func kind(info fs.FileInfo) string {
	if info.IsDir() {
		return "a folder"
	}
	return "no file"
}

// checkFolder fails where no file can be made in a folder.
func checkFolder(path, dir string) error {
	if err := CheckWritable(dir); err != nil {
		return inFolder(path, dir, err)
	}
	return nil
}

// inFolder is refused for a file that would stand in dir, where a link at path may lead.
func inFolder(path, dir string, err error) error {
	if _, missing := os.Stat(dir); errors.Is(missing, fs.ErrNotExist) {
		return fmt.Errorf("%s: there is no folder %s; make it first", path, dir)
	}
	return refused(path, err)
}

// refused says of path what the system said of a name that only this package knows.
func refused(path string, err error) error {
	var (
		onPath *fs.PathError
		onLink *os.LinkError
	)
	switch {
	case errors.As(err, &onPath):
		err = onPath.Err
	case errors.As(err, &onLink):
		err = onLink.Err
	}
	return fmt.Errorf("%s: cannot be written: %w", path, err)
}
