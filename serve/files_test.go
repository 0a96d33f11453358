package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// mount has handlers answer without the rest of the server.
func mount(routes func(handle func(pattern string, h handler))) http.Handler {
	mux := http.NewServeMux()
	routes(func(pattern string, h handler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				asFailure(err).write(w)
			}
		})
	})
	return mux
}

// mounted serves handlers, and gives the address.
func mounted(t *testing.T, routes func(handle func(pattern string, h handler))) string {
	t.Helper()
	server := httptest.NewServer(mount(routes))
	t.Cleanup(server.Close)
	return server.URL + "/v1/"
}

func openTestFiles(t *testing.T, folder string, most int, size int64) *files {
	t.Helper()
	f, err := openFiles(folder, most, size)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newClient(address string) openai.Client {
	return openai.NewClient(option.WithBaseURL(address), option.WithAPIKey("none"), option.WithMaxRetries(0))
}

func upload(t *testing.T, client openai.Client, name, content string) *openai.FileObject {
	t.Helper()
	file, err := client.Files.New(t.Context(), openai.FileNewParams{
		File: openai.File(strings.NewReader(content), name, "application/jsonl"), Purpose: openai.FilePurposeFineTune})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// refused checks a client's error.
func refused(t *testing.T, err error, status int, says string) {
	t.Helper()
	var failed *openai.Error
	if !errors.As(err, &failed) || failed.StatusCode != status || !strings.Contains(failed.Message, says) {
		t.Errorf("%v: want %d, %s", err, status, says)
	}
}

func TestFiles(t *testing.T) {
	folder := t.TempDir()
	client := newClient(mounted(t, openTestFiles(t, folder, 3, 1<<20).routes))
	ctx := t.Context()
	first, second := upload(t, client, "first.jsonl", "first"), upload(t, client, "../../../second\".jsonl", "second")
	if first.Bytes != 5 || first.Filename != "first.jsonl" || first.Purpose != openai.FileObjectPurposeFineTune ||
		!strings.Contains(first.RawJSON(), `"status":"processed"`) ||
		time.Since(time.Unix(first.CreatedAt, 0)) > time.Minute {
		t.Errorf("%s", first.RawJSON())
	}
	if strings.Contains(second.Filename, "/") {
		t.Errorf("the name %q has folders", second.Filename)
	}
	listed := func(params openai.FileListParams) (ids []string) {
		pages := client.Files.ListAutoPaging(ctx, params)
		for pages.Next() {
			ids = append(ids, pages.Current().ID)
		}
		if err := pages.Err(); err != nil {
			t.Error(err)
		}
		return ids
	}
	third := upload(t, client, "third", "third")
	_, err := client.Files.New(ctx, openai.FileNewParams{File: strings.NewReader("x"),
		Purpose: openai.FilePurposeFineTune})
	refused(t, err, http.StatusBadRequest, "there are 3 files")
	newest := []string{third.ID, second.ID, first.ID}
	if got := listed(openai.FileListParams{Limit: openai.Int(1)}); !slices.Equal(got, newest) {
		t.Errorf("%v, want %v", got, newest)
	}
	slices.Reverse(newest)
	if got := listed(openai.FileListParams{Order: openai.FileListParamsOrderAsc}); !slices.Equal(got, newest) {
		t.Errorf("%v, want %v", got, newest)
	}
	if got := listed(openai.FileListParams{Purpose: openai.String("fine-tune-results")}); len(got) > 0 {
		t.Error(got)
	}
	response, err := client.Files.Content(ctx, second.ID)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(response.Body); string(text) != "second" {
		t.Errorf("%q", text)
	}
	if deleted, err := client.Files.Delete(ctx, second.ID); err != nil || !deleted.Deleted {
		t.Error(deleted, err)
	}
	for _, id := range []string{second.ID, "file-", "..%2F..%2Fetc%2Fpasswd", "%00", strings.Repeat("x", 10_000),
		first.ID + ".json"} {
		_, err := client.Files.Get(ctx, id)
		_, contentErr := client.Files.Content(ctx, id)
		_, deleteErr := client.Files.Delete(ctx, id)
		for _, err := range []error{err, contentErr, deleteErr} {
			refused(t, err, http.StatusNotFound, "")
		}
	}
	reopened := newClient(mounted(t, openTestFiles(t, folder, 3, 1<<20).routes))
	if again, err := reopened.Files.Get(ctx, first.ID); err != nil || again.RawJSON() != first.RawJSON() {
		t.Error(again, err)
	}
}

// uploadForm is an upload's body.
func uploadForm(t *testing.T, parts ...string) (body *bytes.Buffer, kind string) {
	t.Helper()
	body = new(bytes.Buffer)
	w := multipart.NewWriter(body)
	for i := 0; i < len(parts); i += 2 {
		part, err := w.CreateFormField(parts[i])
		if name, ok := strings.CutPrefix(parts[i], "file="); ok {
			part, err = w.CreateFormFile("file", name)
		}
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(part, parts[i+1])
	}
	w.Close()
	return body, w.FormDataContentType()
}

func TestUploadRefused(t *testing.T) {
	folder := t.TempDir()
	address := mounted(t, openTestFiles(t, folder, 3, 100).routes)
	for name, c := range map[string]struct {
		parts  []string
		status int
		says   string
	}{
		"no file":    {[]string{"purpose", "fine-tune"}, 400, "is missing"},
		"no purpose": {[]string{"file=a", "x"}, 400, "want fine-tune"},
		"purpose":    {[]string{"file=a", "x", "purpose", "batch"}, 400, "want fine-tune"},
		"long purpose": {[]string{"purpose", strings.Repeat("fine-tune", 1000), "file=a", "x"}, 400,
			"want fine-tune"},
		"empty":      {[]string{"purpose", "fine-tune", "file=a", ""}, 400, "is empty"},
		"two":        {[]string{"purpose", "fine-tune", "file=a", "x", "file=b", "y"}, 400, "want one"},
		"large":      {[]string{"purpose", "fine-tune", "file=a", strings.Repeat("x", 101)}, 413, "100 bytes"},
		"larger":     {[]string{"purpose", "fine-tune", "file=a", strings.Repeat("x", 3<<20)}, 413, "100 bytes"},
		"large rest": {[]string{"other", strings.Repeat("x", 3<<20)}, 413, "which is the limit"},
		"long name": {[]string{"purpose", "fine-tune", "file=" + strings.Repeat("n", 10_000), "x"}, 400,
			"1 to 255"},
		"NUL": {[]string{"purpose", "fine-tune", "file=a\x00b", "x"}, 400, "or is none"},
		"expires": {[]string{"purpose", "fine-tune", "expires_after[anchor]", "x"}, 400,
			"until they are deleted"},
		"no form at all": {nil, 400, "multipart/form-data"},
	} {
		body, kind := uploadForm(t, c.parts...)
		if c.parts == nil {
			kind = "application/json"
		}
		response, err := http.Post(address+"files", kind, body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.status || !strings.Contains(string(text), c.says) {
			t.Errorf("%s: %d, %s", name, response.StatusCode, text)
		}
	}
	if left := entries(t, folder); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func entries(t *testing.T, folder string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// An upload that breaks off leaves nothing, and what a killed server leaves is gone with the next one.
func TestUploadBreaksOff(t *testing.T) {
	folder := t.TempDir()
	f := openTestFiles(t, folder, 3, 100)
	address := strings.TrimSuffix(strings.TrimPrefix(mounted(t, f.routes), "http://"), "/v1/")
	body, kind := uploadForm(t, "purpose", "fine-tune", "file=a", "some rows")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind,
		body.Len(), body.Bytes()[:body.Len()-60])
	begun := func() bool { return len(entries(t, folder)) > 0 }
	for !begun() {
		time.Sleep(time.Millisecond)
	}
	killed := t.TempDir()
	for _, name := range entries(t, folder) {
		if err := os.WriteFile(filepath.Join(killed, name), []byte("some"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(killed, "file-1"), []byte("without a description"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if list := openTestFiles(t, killed, 3, 100).all(""); len(list) > 0 {
		t.Errorf("listed: %v", list)
	}
	if left := entries(t, killed); !slices.Equal(left, []string{"theirs"}) {
		t.Errorf("left: %v", left)
	}
	c.Close()
	for begun() {
		time.Sleep(time.Millisecond)
	}
	if f.mu.Lock(); f.writing != 0 {
		t.Errorf("%d uploads", f.writing)
	}
	f.mu.Unlock()
}

func readAll(t *testing.T, from io.ReadCloser) string {
	t.Helper()
	defer from.Close()
	text, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
