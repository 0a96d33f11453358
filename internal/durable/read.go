package durable

import (
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/dustin/go-humanize"
)

// Open opens a file to read it, and nothing else: a pipe would have it wait for a writer, and a device may have no end.
func Open(path string) (*os.File, fs.FileInfo, error) {
	info, err := os.Stat(path)
	if err == nil {
		err = regular(path, info)
	}
	if err != nil {
		return nil, nil, err
	}
	file, err := openToRead(path)
	if err != nil {
		return nil, nil, err
	}
	if info, err = file.Stat(); err == nil { // it may be another one now
		err = regular(path, info)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// ReadFile reads a whole file of at most so many bytes.
func ReadFile(path string, most int64) ([]byte, error) {
	file, info, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info.Size() > most {
		return nil, fmt.Errorf("%s: has %s, more than the %s that such a file can have", path,
			humanize.Bytes(uint64(info.Size())), humanize.Bytes(uint64(most)))
	}
	return io.ReadAll(io.LimitReader(file, most))
}

func regular(path string, info fs.FileInfo) error {
	if mode := info.Mode(); !mode.IsRegular() {
		return fmt.Errorf("%s: not a regular file, but %s", path, Kind(mode))
	}
	return nil
}

// Kind says what something in a file system is.
func Kind(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeDevice != 0:
		return "a device"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeSymlink != 0:
		return "a link"
	}
	return "something else"
}
