package serve

import (
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/veratune/veratune/internal/durable"
)

// routes has the files answered.
func (f *files) routes(handle func(pattern string, h handler)) {
	handle("POST /v1/files", f.upload)
	handle("GET /v1/files", f.index)
	handle("GET /v1/files/{id}", f.show)
	handle("GET /v1/files/{id}/content", f.content)
	handle("DELETE /v1/files/{id}", f.discard)
}

// upload takes a form whose parts may come in any order.
func (f *files) upload(w http.ResponseWriter, r *http.Request) error {
	const rest = 1 << 20 // of the form besides the file
	r.Body = patientReader{http.MaxBytesReader(w, r.Body, f.size+rest), http.NewResponseController(w)}
	form, err := r.MultipartReader()
	if err != nil {
		return invalid("", "want a form with file and purpose, as multipart/form-data")
	}
	var file *draft
	purpose := ""
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return formError(err)
		}
		switch name := part.FormName(); {
		case name == "purpose":
			if purpose, err = readPurpose(part); err != nil {
				return err
			}
		case name == "file" && file == nil:
			if file, err = f.begin(newID(filePrefix), part.FileName(), purposeRows); err != nil {
				return err
			}
			defer f.end(file)
			if err := f.fill(file, formReader{part}); err != nil {
				return err
			}
		case name == "file":
			return invalid("file", "there are several; want one")
		case strings.HasPrefix(name, "expires_after"):
			return unsupported("expires_after", "files stay until they are deleted")
		}
	}
	switch {
	case file == nil:
		return invalid("file", "is missing")
	case purpose == "":
		return invalid("purpose", "is missing; want %s", purposeRows)
	}
	object, err := f.commit(file)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, object)
}

func readPurpose(part *multipart.Part) (string, error) {
	const longest = 64
	text, err := io.ReadAll(io.LimitReader(formReader{part}, longest))
	if err != nil {
		return "", err
	}
	if string(text) != purposeRows {
		return "", unsupported("purpose", "%q: want %s", text, purposeRows)
	}
	return purposeRows, nil
}

// formReader tells what is wrong with a form from what is wrong with the disk.
type formReader struct{ part *multipart.Part }

func (f formReader) Read(data []byte) (int, error) {
	n, err := f.part.Read(data)
	if err != nil && err != io.EOF {
		err = formError(err)
	}
	return n, err
}

func formError(err error) error {
	if errors.As(err, new(*http.MaxBytesError)) {
		return err
	}
	return invalid("", "the form ends too early, or is none")
}

// silence is how long a client may send nothing in an upload, or take nothing in a download.
const silence = time.Minute

// patientReader waits for each piece of a body as long as for the first.
type patientReader struct {
	io.ReadCloser
	connection *http.ResponseController
}

func (p patientReader) Read(data []byte) (int, error) {
	p.connection.SetReadDeadline(time.Now().Add(silence)) // what has none needs none
	return p.ReadCloser.Read(data)
}

// patientWriter is the same for answers.
type patientWriter struct {
	io.Writer
	connection *http.ResponseController
}

func (p patientWriter) Write(data []byte) (int, error) {
	p.connection.SetWriteDeadline(time.Now().Add(silence))
	return p.Writer.Write(data)
}

func (f *files) index(w http.ResponseWriter, r *http.Request) error {
	list := f.all(r.URL.Query().Get("purpose"))
	switch order := r.URL.Query().Get("order"); order {
	case "", "desc":
	case "asc":
		slices.Reverse(list)
	default:
		return invalid("order", "%.20q: want asc or desc", order)
	}
	const most = 10_000
	return writePage(w, r, list, most, most, func(o fileObject) string { return o.ID })
}

// writePage answers with the part of a list that a request asks for: limit of its items, behind the one that after
// names.
func writePage[T any](w http.ResponseWriter, r *http.Request, list []T, usual, most int, id func(T) string) error {
	limit := usual
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > most {
			return invalid("limit", "%.20q: want 1 to %d", text, most)
		}
	}
	if after := r.URL.Query().Get("after"); after != "" {
		at := slices.IndexFunc(list, func(item T) bool { return id(item) == after })
		if at < 0 {
			return invalid("after", "the list has no %.80q", after)
		}
		list = list[at+1:]
	}
	page := struct {
		Object  string  `json:"object"`
		Data    []T     `json:"data"`
		FirstID *string `json:"first_id"`
		LastID  *string `json:"last_id"`
		HasMore bool    `json:"has_more"`
	}{Object: "list", Data: append([]T{}, list[:min(limit, len(list))]...), HasMore: len(list) > limit}
	if n := len(page.Data); n > 0 {
		first, last := id(page.Data[0]), id(page.Data[n-1])
		page.FirstID, page.LastID = &first, &last
	}
	return writeJSON(w, http.StatusOK, page)
}

func (f *files) show(w http.ResponseWriter, r *http.Request) error {
	object, err := f.get("file_id", r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, object)
}

func (f *files) content(w http.ResponseWriter, r *http.Request) error {
	object, err := f.get("file_id", r.PathValue("id"))
	if err != nil {
		return err
	}
	file, _, err := durable.Open(f.path(object.ID))
	if errors.Is(err, fs.ErrNotExist) { // it was deleted just now
		_, err = f.get("file_id", object.ID)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream") // which no browser shows
	h.Set("Content-Length", strconv.FormatInt(object.Bytes, 10))
	_, _ = io.Copy(patientWriter{w, http.NewResponseController(w)}, file) // a client that leaves is nobody's fault
	return nil
}

func (f *files) discard(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if err := f.remove(id); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"id": id, "object": "file", "deleted": true})
}
