package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// adapterFile is how the files of adapters end. Their names are without it.
const adapterFile = ".gguf"

// colon stands for the colons of names in those of files. Windows has none there, so it is the full-width one.
var colon = map[bool]string{false: ":", true: "\uff1a"}[runtime.GOOS == "windows"]

// inFolder is the name that an adapter's folder has, and its file before the end.
func inFolder(name string) string { return strings.ReplaceAll(name, ":", colon) }

// nameOf is the name of the adapter of a file or folder.
func nameOf(inner string) string {
	return strings.ReplaceAll(strings.TrimSuffix(inner, adapterFile), colon, ":")
}

// checkName says why no adapter can have a name. Names are parts of paths: none may lead out of the folder.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > 200:
		return errors.New("a name has 1 to 200 bytes")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("a name is a text without control characters")
	case name[0] == '.' || strings.ContainsAny(name, `/\`) || !filepath.IsLocal(inFolder(name)):
		return errors.New("a name doesn't begin with a dot, and has no slashes")
	}
	return nil
}

// source is where an adapter is, and what tells that it has changed.
type source struct {
	path  string // of a file, of PEFT's folder, or of a run's
	inner string // the same within the folder of adapters, "" elsewhere
	files []fs.FileInfo
}

// same tells whether nothing has changed.
func (s source) same(other source) bool {
	return s.path == other.path && slices.EqualFunc(s.files, other.files, func(a, b fs.FileInfo) bool {
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// changed is when the source last did.
func (s source) changed() (last time.Time) {
	for _, info := range s.files {
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// parts are the files of runs and of PEFT that are replaced when their adapter is.
var parts = []string{train.BestFile, train.AdapterFile, train.SweepBest, "checkpoints", "adapter_config.json",
	"adapter_model.safetensors"}

// library is where adapters are: a folder, and files that were named one by one.
type library struct {
	folder *os.Root // nil for none
	named  map[string]string
}

// openLibrary opens the folder, which may be "" for none.
func openLibrary(folder string, named map[string]string) (library, error) {
	l := library{named: named}
	var err error
	if folder == "" {
		return l, nil
	}
	if l.folder, err = os.OpenRoot(folder); err != nil {
		return l, fmt.Errorf("adapters: %w", err)
	}
	return l, nil
}

func (l library) close() {
	if l.folder != nil {
		l.folder.Close()
	}
}

// find gives the source of a name; it is fs.ErrNotExist where there is none. A link that leads out of the folder is not
// followed.
func (l library) find(name string) (source, error) {
	if path, ok := l.named[name]; ok {
		return look(os.Stat, path, source{path: path})
	}
	if l.folder == nil || checkName(name) != nil {
		return source{}, fs.ErrNotExist
	}
	s, err := l.within(inFolder(name) + adapterFile)
	if errors.Is(err, fs.ErrNotExist) {
		if s, err = l.within(inFolder(name)); err == nil && !s.files[0].IsDir() {
			err = fs.ErrNotExist
		}
	}
	return s, err
}

// within looks at a file or folder in the folder of adapters.
func (l library) within(inner string) (source, error) {
	return look(l.folder.Stat, inner, source{path: filepath.Join(l.folder.Name(), inner), inner: inner})
}

// look fills in the state of a source's files. A folder must hold an adapter of a run or of PEFT.
func look(stat func(string) (fs.FileInfo, error), path string, s source) (source, error) {
	info, err := stat(path)
	if err != nil {
		return s, err
	}
	s.files = []fs.FileInfo{info}
	if !info.IsDir() {
		if s.inner != "" && !info.Mode().IsRegular() {
			err = fs.ErrNotExist
		}
		return s, err
	}
	for _, part := range parts {
		info, err := stat(filepath.Join(path, part))
		if err == nil {
			s.files = append(s.files, info)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
	}
	if s.inner != "" && len(s.files) == 1 {
		return s, fs.ErrNotExist
	}
	return s, nil
}

// adapter is the file, or PEFT's folder, that the source stands for now.
func (l library) adapter(s source) (path string, err error) {
	path = s.path
	if s.files[0].IsDir() && !vera.IsPEFT(path) {
		path, _, err = train.FindAdapter(path)
	}
	if err == nil && s.inner != "" {
		rest, outside := filepath.Rel(s.path, path)
		if outside == nil {
			_, outside = l.folder.Stat(filepath.Join(s.inner, rest))
		}
		err = outside
	}
	return path, err
}

// names lists all names that have a source, in order.
func (l library) names() ([]string, error) {
	var names []string
	for name := range l.named {
		names = append(names, name)
	}
	if l.folder != nil {
		entries, err := fs.ReadDir(l.folder.FS(), ".")
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if name := nameOf(e.Name()); checkName(name) == nil {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
