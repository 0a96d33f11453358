package serve

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzJobRequest: whatever a request says, it is refused in the API's form, or is a job whose command can be written.
func FuzzJobRequest(f *testing.F) {
	for _, more := range []string{
		`}`, `, "suffix": "sums", "seed": 3, "metadata": {"a": "b"}}`, `, "validation_file": "file-1"}`,
		`, "hyperparameters": {"n_epochs": "auto", "batch_size": 6, "learning_rate_multiplier": 0.5}}`,
		`, "method": {"type": "supervised", "supervised": {"hyperparameters": {"method": "lora", "rank": 4}}}}`,
		`, "hyperparameters": {"patience": 1, "eval_every": "0.5epoch", "max_length": 9, "learning_rate": 1e-3}}`,
	} {
		f.Add([]byte(`{"model": "tiny", "training_file": "file-1"` + more))
	}
	o := DefaultJobs()
	o.Base, o.Adapters = baseName, f.TempDir()
	j := &Jobs{options: o, files: &files{list: map[string]*fileObject{"file-1": {ID: "file-1", Purpose: purposeRows}}}}
	f.Fuzz(func(t *testing.T, body []byte) {
		job, err := j.parseJob(httptest.NewRecorder(), httptest.NewRequest("POST", "/", bytes.NewReader(body)))
		if err != nil {
			if !errors.As(err, new(*failure)) {
				t.Error(err)
			}
			return
		}
		if job.choose(job.Hyperparameters.settle(7)); strings.ContainsAny(job.fineTuned(), "/\x00") ||
			checkName(job.checkpointName(1e9)) != nil {
			t.Errorf("the model is called %q", job.fineTuned())
		}
		if _, err := job.command(nil); err != nil {
			t.Error(err)
		}
	})
}

// FuzzUpload: whatever a form holds, it is refused in the API's form, or is a file, and nothing else is left.
func FuzzUpload(f *testing.F) {
	head := "--X\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--X\r\nContent-Disposition: " +
		"form-data; name=\"file\"; filename=\""
	f.Add([]byte(head + "rows.jsonl\"\r\n\r\n{}\r\n--X--\r\n"))
	f.Add([]byte(head + "../../x\x00\"\r\n\r\n{}\r\n--X--\r\n"))
	f.Add([]byte(head + "rows\"\r\n\r\n{}"))
	folder := f.TempDir()
	store, err := openFiles(folder, 2, 1000)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		request := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		request.Header.Set("Content-Type", "multipart/form-data; boundary=X")
		if err := store.upload(httptest.NewRecorder(), request); err != nil && asFailure(err).status >= 500 {
			t.Error(err)
		}
		for _, o := range store.all("") {
			if err := store.remove(o.ID); err != nil {
				t.Error(err)
			}
		}
		if left := entries(t, folder); len(left) > 0 || store.writing != 0 {
			t.Errorf("left: %q, %d uploads", left, store.writing)
		}
	})
}
