package serve

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/veratune/veratune/watch"
)

// routes has files and jobs answered.
func (j *Jobs) routes(handle func(pattern string, h handler)) {
	j.files.routes(handle)
	handle("POST /v1/fine_tuning/jobs", j.create)
	handle("GET /v1/fine_tuning/jobs", j.index)
	handle("GET /v1/fine_tuning/jobs/{id}", j.show)
	handle("POST /v1/fine_tuning/jobs/{id}/cancel", j.change(cancelJob))
	handle("POST /v1/fine_tuning/jobs/{id}/pause", j.change(pauseJob))
	handle("POST /v1/fine_tuning/jobs/{id}/resume", j.change(resumeJob))
	handle("GET /v1/fine_tuning/jobs/{id}/events", j.events)
	handle("GET /v1/fine_tuning/jobs/{id}/checkpoints", j.checkpoints)
	handle("GET /v1/fine_tuning/jobs/{id}/charts", j.charts)
}

// mostWaiting is how many jobs may be under way or wait.
const mostWaiting = 100

func (j *Jobs) create(w http.ResponseWriter, r *http.Request) error {
	if n := j.unfinished(); n >= mostWaiting {
		return newFailure(http.StatusTooManyRequests, typeLimit, "", codeJobs,
			"%d jobs are not over, which is the limit; cancel some, or wait", n)
	}
	t, err := j.parseJob(w, r)
	if err != nil {
		return err
	}
	if err := j.make(t); err != nil {
		return errors.Join(err, os.RemoveAll(t.folder))
	}
	j.mu.Lock()
	j.list[t.ID] = t
	j.dispatch()
	view := t.view()
	j.mu.Unlock()
	return writeJSON(w, http.StatusOK, view)
}

func (j *Jobs) unfinished() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, t := range j.list {
		if !t.over() {
			n++
		}
	}
	return n
}

// make makes the job's folder. Its record comes last, and makes it a job.
func (j *Jobs) make(t *job) (err error) {
	if t.TrainingName, err = j.link(t, "training_file", t.TrainingFile); err != nil {
		return err
	}
	if t.ValidationFile != nil {
		if t.ValidationName, err = j.link(t, "validation_file", *t.ValidationFile); err != nil {
			return err
		}
	}
	if t.GoesOn {
		if err := putFile(t.path(beginFile), j.served(t.Model)); err != nil {
			return err
		}
	}
	t.tell(levelInfo, "Created fine-tuning job: "+t.ID)
	t.tell(levelInfo, "Validating training file: "+t.TrainingFile)
	return writeWhole(t.path(recordFile), t.record)
}

// rowsFolder is where the job has the file that a parameter names.
func rowsFolder(param string) string { return strings.TrimSuffix(param, "_file") }

// link gives the job an uploaded file of its own, which outlives that, under a name that any system takes.
func (j *Jobs) link(t *job, param, id string) (name string, err error) {
	file, err := j.uploaded(param, id)
	if err != nil {
		return "", err
	}
	folder := t.path(rowsFolder(param))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	name = "rows-" + plainName(file.Filename)
	if os.Link(j.files.path(id), filepath.Join(folder, name)) == nil {
		return name, nil
	}
	if _, err := j.uploaded(param, id); err != nil { // it was deleted just now
		return "", err
	}
	return name, putFile(filepath.Join(folder, name), j.files.path(id)) // a file system without links
}

// plainName is the end of a name, in bytes that a part of a model's or file's name may have.
func plainName(name string) string {
	const most = 80
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(nameBytes, r) {
			return r
		}
		return '-'
	}, name)
	return strings.TrimLeft(name[max(0, len(name)-most):], "-.")
}

// view is the job as it is now.
func (t *job) view() jobObject {
	v := t.jobObject
	if t.Status == statusRunning {
		v.EstimatedFinish = t.finishes()
	}
	return v
}

func (j *Jobs) index(w http.ResponseWriter, r *http.Request) error {
	var list []*job
	j.mu.Lock()
	for _, t := range slices.Backward(j.oldestFirst()) {
		if hasMetadata(r, t.Metadata) {
			list = append(list, t.copied())
		}
	}
	j.mu.Unlock()
	views := make([]jobObject, len(list))
	for i, t := range list {
		views[i] = t.view()
	}
	return writePage(w, r, views, 20, 100, func(o jobObject) string { return o.ID })
}

// hasMetadata tells whether the metadata are those that a request asks for, as metadata[name]=value.
func hasMetadata(r *http.Request, metadata map[string]string) bool {
	for key, values := range r.URL.Query() {
		name, ok := strings.CutPrefix(key, "metadata[")
		if ok && (len(values) == 0 || metadata[strings.TrimSuffix(name, "]")] != values[0]) {
			return false
		}
	}
	return true
}

func (j *Jobs) show(w http.ResponseWriter, r *http.Request) error {
	t, err := j.asked(r, nil)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, t.view())
}

// asked gives a request's job as it is now, or as it is after a change.
func (j *Jobs) asked(r *http.Request, change func(t *job) error) (*job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	id := r.PathValue("id")
	t := j.list[id]
	if t == nil {
		return nil, notFound("fine_tuning_job_id", "", "there is no job %.80q", id)
	}
	if change != nil {
		if err := change(t); err != nil {
			return nil, err
		}
		j.keep(t)
		j.dispatch()
	}
	return t.copied(), nil
}

// change has a job changed, and answers with what it is then.
func (j *Jobs) change(how func(t *job) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		t, err := j.asked(r, how)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, t.view())
	}
}

// cancelJob ends a job for good; what it has made stays.
func cancelJob(t *job) error {
	if t.over() {
		return t.unfit("cancelled")
	}
	t.finish(statusCancelled)
	t.tell(levelInfo, "The job was cancelled")
	t.end()
	return nil
}

// pauseJob ends the job's process until the job is resumed.
func pauseJob(t *job) error {
	if t.over() || t.Status == statusPaused {
		return t.unfit("paused")
	}
	t.Status = statusPaused
	t.tell(levelInfo, "The job was paused")
	t.end()
	return nil
}

// resumeJob has a paused job go on, or one that failed, for which the reason may be gone.
func resumeJob(t *job) error {
	if t.Status != statusPaused && t.Status != statusFailed {
		return t.unfit("resumed")
	}
	t.Status, t.Error, t.FinishedAt = statusQueued, nil, nil
	if !t.Checked {
		t.Status = statusValidating
	}
	t.tell(levelInfo, "The job was resumed")
	return nil
}

func (t *job) unfit(what string) error {
	return invalid("fine_tuning_job_id", "the job is %s, and cannot be %s", t.Status, what)
}

func (j *Jobs) events(w http.ResponseWriter, r *http.Request) error {
	t, err := j.asked(r, nil)
	if err != nil {
		return err
	}
	return writePage(w, r, t.events(), 20, 1000, func(e jobEvent) string { return e.ID })
}

func (j *Jobs) checkpoints(w http.ResponseWriter, r *http.Request) error {
	t, err := j.asked(r, nil)
	if err != nil {
		return err
	}
	list, err := t.checkpoints()
	if err != nil {
		return err
	}
	return writePage(w, r, list, 10, 100, func(c jobCheckpoint) string { return c.ID })
}

// charts answers with pictures of the job's metrics, for the page.
func (j *Jobs) charts(w http.ResponseWriter, r *http.Request) error {
	t, err := j.asked(r, nil)
	if err != nil {
		return err
	}
	charts, err := watch.Charts([]string{t.path(runFolder)})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, charts)
}
