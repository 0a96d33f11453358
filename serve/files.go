package serve

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/veratune/veratune/internal/durable"
)

// Purposes of files.
const (
	purposeRows    = "fine-tune"         // rows to train on, or to measure
	purposeResults = "fine-tune-results" // metrics of a job
)

// files keeps what was uploaded, and the results of jobs, in a folder: the content at ID, what is known of it at
// ID.json. A file is there from the moment that its description is. Names that clients give never become paths.
type files struct {
	folder string
	most   int   // files
	size   int64 // bytes of each

	mu      sync.Mutex
	list    map[string]*fileObject
	writing int // that are being uploaded
}

// fileObject is a file as clients see it.
type fileObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Bytes     int64  `json:"bytes"`
	CreatedAt int64  `json:"created_at"`
	Filename  string `json:"filename"`
	Purpose   string `json:"purpose"`
	Status    string `json:"status"`
}

// newID makes an id that sorts behind earlier ones.
func newID(prefix string) string {
	var random [4]byte
	rand.Read(random[:])
	return fmt.Sprintf("%s%016x%x", prefix, time.Now().UnixNano(), random)
}

const (
	filePrefix     = "file-" // of ids
	descriptionEnd = ".json"
)

// openFiles reads what a folder holds, and removes what a killed server has left unfinished there.
func openFiles(folder string, most int, size int64) (*files, error) {
	f := &files{folder: folder, most: most, size: size, list: map[string]*fileObject{}}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), descriptionEnd)
		if !ok || !strings.HasPrefix(id, filePrefix) {
			continue
		}
		var o fileObject
		if err := readWhole(filepath.Join(folder, e.Name()), &o); err != nil {
			return nil, err
		}
		if info, err := os.Stat(f.path(id)); err == nil && info.Size() == o.Bytes {
			f.list[id] = &o
		}
	}
	for _, e := range entries {
		ours := strings.HasPrefix(strings.TrimPrefix(e.Name(), "."), filePrefix)
		if ours && f.list[strings.TrimSuffix(e.Name(), descriptionEnd)] == nil {
			err = errors.Join(err, os.Remove(filepath.Join(folder, e.Name())))
		}
	}
	return f, err
}

// readWhole reads a file that this package has written.
func readWhole(path string, v any) error {
	const most = 16 << 20
	data, err := durable.ReadFile(path, most)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeWhole writes a file as JSON, all or nothing.
func writeWhole(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// path is where the content of a file of ours is.
func (f *files) path(id string) string { return filepath.Join(f.folder, id) }

// draft is a file that is not listed yet.
type draft struct {
	*durable.File
	object fileObject
}

// begin makes a file of a name, which is only told to clients. The draft must be ended.
func (f *files) begin(id, filename, purpose string) (*draft, error) {
	if err := checkFilename(filename); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if purpose == purposeRows && len(f.list)+f.writing >= f.most {
		return nil, newFailure(http.StatusBadRequest, typeInvalid, "file", "too_many_files",
			"there are %d files, which is the limit; delete some", f.most)
	}
	file, err := durable.Create(f.path(id), 0o600)
	if err != nil {
		return nil, err
	}
	f.writing++
	return &draft{file, fileObject{ID: id, Object: "file", CreatedAt: time.Now().Unix(), Filename: filename,
		Purpose: purpose, Status: "processed"}}, nil
}

func checkFilename(name string) error {
	const most = 255
	switch {
	case name == "" || len(name) > most:
		return invalid("file", "the file's name has %d bytes; want 1 to %d", len(name), most)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return invalid("file", "the file's name holds what is no text")
	}
	return nil
}

// fill copies a file's content from where it comes.
func (f *files) fill(d *draft, from io.Reader) (err error) {
	d.object.Bytes, err = io.Copy(d, io.LimitReader(from, f.size+1))
	switch {
	case err != nil:
		return err
	case d.object.Bytes > f.size:
		return newFailure(http.StatusRequestEntityTooLarge, typeInvalid, "file", codeTooLarge,
			"the file has more than %d bytes, which is the limit", f.size)
	case d.object.Bytes == 0:
		return invalid("file", "the file is empty")
	}
	return nil
}

// commit lists a file.
func (f *files) commit(d *draft) (fileObject, error) {
	if err := d.Commit(); err != nil {
		return fileObject{}, err
	}
	if err := writeWhole(f.path(d.object.ID)+descriptionEnd, d.object); err != nil {
		return fileObject{}, errors.Join(err, os.Remove(f.path(d.object.ID)))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list[d.object.ID] = &d.object
	return d.object, nil
}

// end gives a draft up, unless it was committed.
func (f *files) end(d *draft) {
	d.Cleanup()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writing--
}

// get finds a file; param is what named it.
func (f *files) get(param, id string) (fileObject, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.list[id]; o != nil {
		return *o, nil
	}
	return fileObject{}, notFound(param, "", "there is no file %.80q", id)
}

// all lists the files of a purpose, "" for any, newest first.
func (f *files) all(purpose string) []fileObject {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []fileObject
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(f.list))) {
		if purpose == "" || f.list[id].Purpose == purpose {
			list = append(list, *f.list[id])
		}
	}
	return list
}

// remove removes a file. Jobs that train on it have a link of their own.
func (f *files) remove(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.list[id] == nil {
		return notFound("file_id", "", "there is no file %.80q", id)
	}
	for _, path := range []string{f.path(id) + descriptionEnd, f.path(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	delete(f.list, id)
	return nil
}
