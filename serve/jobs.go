package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/veratune/veratune/internal/durable"
)

// JobOptions say how adapters are trained for clients.
type JobOptions struct {
	State    string   // folder of the files and jobs, which this server alone uses
	Adapters string   // folder that finished adapters are put into
	Base     string   // the model's name in requests
	Program  string   // path of veratune, which checks and trains
	Flags    []string // of its commands, which name the model
	// more of the one that trains: how it computes
	TrainFlags []string
	Secrets    []string // names of variables of the environment that it must not get

	AtOnce   int   // jobs that train at a time
	MaxFiles int   // uploaded files
	MaxFile  int64 // bytes of each

	Log *slog.Logger // of jobs, without what is in their data
}

// DefaultJobs trains one job at a time, and takes files as large as OpenAI does.
func DefaultJobs() JobOptions { return JobOptions{AtOnce: 1, MaxFiles: 1000, MaxFile: 512 << 20} }

// Validate says what is allowed for the first option that is wrong.
func (o JobOptions) Validate() error {
	switch {
	case o.AtOnce < 1:
		return fmt.Errorf("jobs %d: at least 1", o.AtOnce)
	case o.MaxFiles < 1:
		return fmt.Errorf("max-files %d: at least 1", o.MaxFiles)
	case o.MaxFile < 1:
		return fmt.Errorf("max-file %d: at least 1 byte", o.MaxFile)
	case o.Adapters == "":
		return errors.New("jobs: need a folder of adapters to put theirs into")
	}
	return nil
}

// Jobs trains adapters for clients: each job in a process of its own, in a run folder that outlives the server. It is
// safe for concurrent use.
type Jobs struct {
	options JobOptions
	files   *files
	folder  string
	lock    *durable.Lock
	log     *slog.Logger

	checking chan struct{} // holds a token while a job's files are checked
	working  sync.WaitGroup

	mu       sync.Mutex
	list     map[string]*job
	training int  // jobs
	closed   bool // nothing begins any more
}

// OpenJobs opens the files and jobs of a folder. Jobs that a server has left go on once Start is called.
func OpenJobs(o JobOptions) (*Jobs, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	j := &Jobs{options: o, folder: filepath.Join(o.State, "jobs"), log: o.Log, checking: make(chan struct{}, 1),
		list: map[string]*job{}}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if err := durable.CheckFolder(o.Adapters); err != nil {
		return nil, fmt.Errorf("adapters, where jobs put theirs: %w", err)
	}
	if err := durable.CheckFolder(o.State); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := os.MkdirAll(j.folder, 0o700); err != nil {
		return nil, fmt.Errorf("state %s: %w", o.State, err)
	}
	var err error
	if j.lock, err = durable.LockFolder(o.State); err != nil {
		if held := durable.Held(""); errors.As(err, &held) {
			err = fmt.Errorf("%w serves from it", held)
		}
		return nil, fmt.Errorf("state %s: %w", o.State, err)
	}
	if j.files, err = openFiles(filepath.Join(o.State, "files"), o.MaxFiles, o.MaxFile); err == nil {
		err = j.read()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state %s: %w", o.State, err), j.lock.Close())
	}
	return j, nil
}

// read takes in the jobs of the folder. A folder without a record is of a job that was being made.
func (j *Jobs) read() error {
	entries, err := os.ReadDir(j.folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), jobPrefix) {
			continue
		}
		t := &job{folder: j.path(e.Name())}
		switch err := readWhole(t.path(recordFile), &t.record); {
		case errors.Is(err, fs.ErrNotExist):
			if err := os.RemoveAll(t.folder); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case t.ID != e.Name():
			return fmt.Errorf("%s: is the record of job %s", t.path(recordFile), t.ID)
		}
		if t.Status == statusRunning {
			t.Status = statusQueued
			t.tell(levelInfo, "The server was started again; the job goes on from its newest checkpoint")
		}
		j.list[t.ID] = t
	}
	return nil
}

// Start has the jobs go on that a server has left.
func (j *Jobs) Start() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dispatch()
}

// Close ends the processes of jobs, which the next server goes on with.
func (j *Jobs) Close() error {
	j.mu.Lock()
	j.closed = true
	for _, t := range j.list {
		t.end()
	}
	j.mu.Unlock()
	j.working.Wait()
	return j.lock.Close()
}

// path is the folder of a job of ours.
func (j *Jobs) path(id string) string { return filepath.Join(j.folder, id) }

func (j *Jobs) oldestFirst() []*job {
	list := make([]*job, 0, len(j.list))
	for _, id := range slices.Sorted(maps.Keys(j.list)) {
		list = append(list, j.list[id])
	}
	return list
}

// keep writes what is known of a job to the disk, and logs its state. The caller holds the lock.
func (j *Jobs) keep(t *job) {
	j.log.Info("job", "job", t.ID, "status", t.Status)
	if err := writeWhole(t.path(recordFile), t.record); err != nil {
		j.log.Error("the record of a job can't be written", "job", t.ID, "error", err)
	}
}

// States of a job.
const (
	statusValidating = "validating_files"
	statusQueued     = "queued"
	statusRunning    = "running"
	statusPaused     = "paused"
	statusSucceeded  = "succeeded"
	statusFailed     = "failed"
	statusCancelled  = "cancelled"
)

const (
	jobPrefix  = "ftjob-" // of ids
	recordFile = "job.json"
	runFolder  = "run"
	beginFile  = "begin" + adapterFile // of what the job begins with
	logFile    = "log"                 // what the processes say
	checkFile  = "check.json"          // while the files are checked
)

// job is a training that a client asked for.
type job struct {
	record
	folder string
	stop   context.CancelFunc // ends what works on it; nil where nothing does
}

// record is what is kept of a job.
type record struct {
	jobObject
	Base           string   `json:"base"`          // the model without an adapter
	GoesOn         bool     `json:"goes_on"`       // begins with what the adapter in the folder has learnt
	Checked        bool     `json:"checked"`       // the files are fit to train on
	TrainingName   string   `json:"training_name"` // of the file in the folder
	ValidationName string   `json:"validation_name,omitempty"`
	Said           []saying `json:"said"`
}

// jobObject is a job as clients see it.
type jobObject struct {
	ID              string            `json:"id"`
	Object          string            `json:"object"`
	CreatedAt       int64             `json:"created_at"`
	FinishedAt      *int64            `json:"finished_at"`
	EstimatedFinish *int64            `json:"estimated_finish"`
	Model           string            `json:"model"`
	FineTunedModel  *string           `json:"fine_tuned_model"`
	OrganizationID  string            `json:"organization_id"`
	Status          string            `json:"status"`
	TrainingFile    string            `json:"training_file"`
	ValidationFile  *string           `json:"validation_file"`
	ResultFiles     []string          `json:"result_files"`
	Seed            int64             `json:"seed"`
	TrainedTokens   *int64            `json:"trained_tokens"`
	Suffix          *string           `json:"user_provided_suffix"`
	Hyperparameters hyperparameters   `json:"hyperparameters"`
	Method          jobMethod         `json:"method"`
	Metadata        map[string]string `json:"metadata"`
	Integrations    []string          `json:"integrations"` // none
	Error           *jobError         `json:"error"`
}

type jobMethod struct {
	Type       string `json:"type"`
	Supervised struct {
		Hyperparameters hyperparameters `json:"hyperparameters"`
	} `json:"supervised"`
}

// jobError says why a job failed.
type jobError struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param"`
}

func (e *jobError) Error() string { return e.Message }

func (t *job) path(name string) string { return filepath.Join(t.folder, name) }

// fineTuned is the name of the model that the job makes: ft:BASE:SUFFIX:ID, the suffix may be empty.
func (t *job) fineTuned() string {
	suffix := ""
	if t.Suffix != nil {
		suffix = *t.Suffix
	}
	return "ft:" + plainName(t.Base) + ":" + suffix + ":" + t.ID[len(t.ID)-shortID:]
}

// shortID is how much of a job's id goes into names: the end, which differs most.
const shortID = 12

// copied is the job as it is now, to be looked at without the lock.
func (t *job) copied() *job {
	c := *t
	return &c
}

// over tells whether nothing will be done for the job any more.
func (t *job) over() bool {
	return t.Status == statusSucceeded || t.Status == statusFailed || t.Status == statusCancelled
}

// finish ends a job in a state.
func (t *job) finish(status string) {
	now := time.Now().Unix()
	t.Status, t.FinishedAt = status, &now
}

// end ends what works on the job.
func (t *job) end() {
	if t.stop != nil {
		t.stop()
	}
}
