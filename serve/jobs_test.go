package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// program builds veratune, once for all tests.
func program(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds veratune")
	}
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builtIn string // folder

var built = sync.OnceValues(func() (string, error) {
	var err error
	if builtIn, err = os.MkdirTemp("", "veratune-test-"); err != nil {
		return "", err
	}
	path := filepath.Join(builtIn, "veratune")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/veratune").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// asServer makes the test program serve jobs by the options that the variable holds, until it is killed.
const asServer = "VERATUNE_TEST_JOBS"

func TestMain(m *testing.M) {
	if text := os.Getenv(asServer); text != "" {
		var o JobOptions
		err := json.Unmarshal([]byte(text), &o)
		var j *Jobs
		if err == nil {
			j, err = OpenJobs(o)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		j.Start()
		fmt.Println(httptest.NewServer(mount(j.routes)).URL + "/v1/")
		select {}
	}
	code := m.Run()
	os.RemoveAll(builtIn)
	os.Exit(code)
}

// workshop is a service of jobs alone.
type workshop struct {
	*Jobs
	openai.Client
	address string
}

func testJobs(t *testing.T) JobOptions {
	t.Helper()
	o := DefaultJobs()
	o.State, o.Adapters, o.Base, o.Program = t.TempDir(), t.TempDir(), "tiny", program(t)
	o.Flags = []string{"--model=" + testutil.TinyLlama(t, testutil.TinyOptions{})}
	o.TrainFlags = []string{"--threads=1"}
	return o
}

func openWorkshop(t *testing.T, o JobOptions) workshop {
	t.Helper()
	j, err := OpenJobs(o)
	if err != nil {
		t.Fatal(err)
	}
	j.Start()
	t.Cleanup(func() { j.Close() })
	address := mounted(t, j.routes)
	return workshop{j, newClient(address), address}
}

// chatRows are rows in OpenAI's form.
func chatRows(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"messages": [{"role": "user", "content": "add %d"}, {"role": "assistant", "content": `+
			`"it is %d"}]}`+"\n", i, i+1)
	}
	return b.String()
}

// ask creates a job with hyperparameters that few clients have.
func (w workshop) ask(t *testing.T, file string, parameters string,
	more ...option.RequestOption) *openai.FineTuningJob {
	t.Helper()
	if parameters != "" {
		var h map[string]any
		if err := json.Unmarshal([]byte(parameters), &h); err != nil {
			t.Fatal(err)
		}
		more = append(more, option.WithJSONSet("method", map[string]any{"type": "supervised",
			"supervised": map[string]any{"hyperparameters": h}}))
	}
	job, err := w.FineTuning.Jobs.New(t.Context(), openai.FineTuningJobNewParams{Model: "tiny", TrainingFile: file},
		more...)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// becomes waits for a state of a job.
func (w workshop) becomes(t *testing.T, id string, status openai.FineTuningJobStatus) *openai.FineTuningJob {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		job, err := w.FineTuning.Jobs.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if job.Status == status {
			return job
		}
		if time.Since(began) > 3*time.Minute {
			t.Fatalf("is %s, want %s: %s", job.Status, status, job.RawJSON())
		}
	}
}

// events are what is told of a job, oldest first.
func (w workshop) told(t *testing.T, id string) (list []openai.FineTuningJobEvent) {
	t.Helper()
	pages := w.FineTuning.Jobs.ListEventsAutoPaging(t.Context(), id, openai.FineTuningJobListEventsParams{
		Limit: openai.Int(7)})
	for pages.Next() {
		list = append(list, pages.Current())
	}
	if err := pages.Err(); err != nil {
		t.Error(err)
	}
	slices.Reverse(list)
	return list
}

const quick = `{"rank": 8, "batch_size": 4, "n_epochs": 2, "learning_rate": 0.01}`

func TestJob(t *testing.T) {
	o := testJobs(t)
	w := openWorkshop(t, o)
	ctx := t.Context()
	training, held := upload(t, w.Client, "rows.jsonl", chatRows(40)), upload(t, w.Client, "held.jsonl", chatRows(7))
	job := w.ask(t, training.ID, quick, option.WithJSONSet("validation_file", held.ID),
		option.WithJSONSet("suffix", "sums"), option.WithJSONSet("metadata", map[string]string{"for": "test"}))
	if job.Status != openai.FineTuningJobStatusValidatingFiles || job.Model != "tiny" ||
		job.Hyperparameters.NEpochs.OfInt != 2 || job.Method.Supervised.Hyperparameters.BatchSize.OfInt != 4 ||
		job.Metadata["for"] != "test" || job.ValidationFile != held.ID {
		t.Errorf("%s", job.RawJSON())
	}
	for _, id := range []string{training.ID, held.ID} { // of which the job has its own
		if _, err := w.Files.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	}
	done := w.becomes(t, job.ID, openai.FineTuningJobStatusSucceeded)
	if !strings.HasPrefix(done.FineTunedModel, "ft:tiny:sums:") || done.TrainedTokens == 0 || done.FinishedAt == 0 ||
		len(done.ResultFiles) != 1 || done.Error.Message != "" {
		t.Errorf("%s", done.RawJSON())
	}
	best, err := os.ReadFile(filepath.Join(w.path(job.ID), runFolder, train.BestFile))
	if err != nil || !bytes.Equal(best, w.adapter(t, done)) {
		t.Errorf("the adapter that is served is not the best: %v", err)
	}
	response, err := w.Files.Content(ctx, done.ResultFiles[0])
	if err != nil {
		t.Fatal(err)
	}
	table := readAll(t, response.Body)
	if lines := strings.Split(table, "\n"); lines[0] != "step,train_loss,valid_loss,learning_rate" ||
		len(lines) != 23 ||
		!strings.HasPrefix(lines[1], "0,,") || strings.Count(lines[21], ",") != 3 || strings.Contains(lines[21], ",,") {
		t.Errorf("%s", table)
	}
	w.checkEvents(t, job.ID)
	checkpoints, err := w.FineTuning.Jobs.Checkpoints.List(ctx, job.ID, openai.FineTuningJobCheckpointListParams{
		Limit: openai.Int(1)})
	if err != nil {
		t.Fatal(err)
	}
	newest := checkpoints.Data[0]
	if newest.StepNumber != 20 || newest.FineTunedModelCheckpoint != done.FineTunedModel+":ckpt-step-20" ||
		newest.Metrics.FullValidLoss == 0 || newest.Metrics.TrainLoss == 0 || !checkpoints.HasMore {
		t.Errorf("%s", checkpoints.RawJSON())
	}
	want := []string{done.FineTunedModel + ".gguf", done.FineTunedModel + ":ckpt-step-10.gguf",
		done.FineTunedModel + ":ckpt-step-20.gguf"}
	if got := entries(t, o.Adapters); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for name, change := range map[string]func(context.Context, string, ...option.RequestOption) (*openai.FineTuningJob,
		error){"cancelled": w.FineTuning.Jobs.Cancel, "paused": w.FineTuning.Jobs.Pause,
		"resumed": w.FineTuning.Jobs.Resume} {
		_, err := change(ctx, job.ID)
		refused(t, err, http.StatusBadRequest, "the job is succeeded, and cannot be "+name)
	}
}

func (w workshop) checkEvents(t *testing.T, id string) {
	t.Helper()
	var messages, metrics []string
	for _, e := range w.told(t, id) {
		if e.Type == openai.FineTuningJobEventTypeMetrics {
			metrics = append(metrics, e.Message)
		} else {
			messages = append(messages, string(e.Level)+" "+e.Message)
		}
	}
	if len(metrics) != 23 || !strings.HasPrefix(metrics[0], "Step 0: validation loss=") ||
		!strings.HasPrefix(metrics[22], "Step 20: validation loss=") {
		t.Errorf("%d: %s", len(metrics), strings.Join(metrics, "\n"))
	}
	text := strings.Join(messages, "\n")
	for _, want := range []string{"info Created fine-tuning job: " + id, "warn rows-rows.jsonl", "info Files validated",
		"info Fine-tuning job started", "info New fine-tuned model created: ft:tiny:sums:",
		"info The job has successfully completed"} {
		_, rest, found := strings.Cut(text, want)
		if !found && !strings.HasPrefix(want, "warn") {
			t.Errorf("%q is not in, or not in order:\n%s", want, strings.Join(messages, "\n"))
		}
		if found {
			text = rest
		}
	}
}

// A job may begin with what the adapter of another has learnt.
func TestJobTrainsOn(t *testing.T) {
	w := openWorkshop(t, testJobs(t))
	rows := upload(t, w.Client, "rows.jsonl", chatRows(40)).ID
	for name, parameters := range map[string]string{"vera": quick,
		"lora": `{"method": "lora", "rank": 4, "batch_size": 4, "n_epochs": 2}`} {
		first := w.becomes(t, w.ask(t, rows, parameters).ID, openai.FineTuningJobStatusSucceeded)
		model := option.WithJSONSet("model", first.FineTunedModel)
		rest := `{"batch_size": 4, "n_epochs": 1}`
		second := w.becomes(t, w.ask(t, rows, rest, model, option.WithJSONSet("suffix", "on")).ID,
			openai.FineTuningJobStatusSucceeded)
		if second.Model != first.FineTunedModel || !strings.HasPrefix(second.FineTunedModel, "ft:tiny:on:") ||
			!strings.Contains(second.RawJSON(), `"method":"`+name+`"`) {
			t.Errorf("%s", second.RawJSON())
		}
		losses := func(id string) (list []string) {
			for _, e := range w.told(t, id) {
				if e.Type == openai.FineTuningJobEventTypeMetrics {
					list = append(list, e.Message)
				}
			}
			return list
		}
		if before, after := losses(first.ID), losses(second.ID); before[0] == after[0] || len(after) != 10 {
			t.Errorf("%s: began at %s, and then at %s", name, before[0], after[0])
		}
		_, err := w.FineTuning.Jobs.New(t.Context(), openai.FineTuningJobNewParams{TrainingFile: rows}, model,
			option.WithJSONSet("hyperparameters", map[string]any{"rank": 5}))
		refused(t, err, http.StatusBadRequest, "method and rank are the adapter's: "+name)
	}
}

// A job whose rows to measure get worse ends early, and its best adapter is served.
func TestJobEndsEarly(t *testing.T) {
	w := openWorkshop(t, testJobs(t))
	rows := upload(t, w.Client, "rows.jsonl", chatRows(40)).ID
	held := upload(t, w.Client, "held.jsonl", strings.ReplaceAll(chatRows(7), "it is", "no, never")).ID
	job := w.becomes(t, w.ask(t, rows, `{"rank": 8, "batch_size": 4, "n_epochs": 100, "learning_rate": 0.05, `+
		`"patience": 2, "eval_every": "2"}`, option.WithJSONSet("validation_file", held)).ID,
		openai.FineTuningJobStatusSucceeded)
	var told []string
	steps := 0
	for _, e := range w.told(t, job.ID) {
		if told = append(told, e.Message); e.Type == openai.FineTuningJobEventTypeMetrics {
			steps++
		}
	}
	if text := strings.Join(told, "\n"); steps > 500 || !strings.Contains(text, "patience: ended after step ") ||
		strings.Contains(text, w.folder) {
		t.Errorf("%d steps: %s", steps, text)
	}
}

// endless is not done before it is ended.
const endless = `{"rank": 8, "batch_size": 1, "n_epochs": 100000, "learning_rate": 0.001}`

// long takes as many steps as a test needs to meddle.
const long = `{"rank": 8, "batch_size": 4, "n_epochs": 6, "learning_rate": 0.001}`

// adapter is the one that a job has made.
func (w workshop) adapter(t *testing.T, job *openai.FineTuningJob) []byte {
	t.Helper()
	data, err := os.ReadFile(w.served(job.FineTunedModel))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// trained waits until a job has made some steps.
func (w workshop) trained(t *testing.T, id string, steps int) {
	t.Helper()
	w.becomes(t, id, openai.FineTuningJobStatusRunning)
	for step := 0; step < steps; time.Sleep(10 * time.Millisecond) {
		events, err := w.FineTuning.Jobs.ListEvents(t.Context(), id, openai.FineTuningJobListEventsParams{
			Limit: openai.Int(1)})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Sscanf(events.Data[0].Message, "Step %d:", &step)
	}
}

// A job that is paused, one whose server is closed, and one whose server is killed, come to the bytes of one that is
// let alone.
func TestJobGoesOn(t *testing.T) {
	o := testJobs(t)
	w := openWorkshop(t, o)
	rows := upload(t, w.Client, "rows.jsonl", chatRows(40)).ID
	succeeded := openai.FineTuningJobStatusSucceeded
	want := w.adapter(t, w.becomes(t, w.ask(t, rows, long).ID, succeeded))
	same := func(what string, w workshop, id string) {
		t.Helper()
		if job := w.becomes(t, id, succeeded); !bytes.Equal(w.adapter(t, job), want) {
			t.Errorf("%s: other bytes", what)
		}
		going := 0
		last := int64(0)
		for _, e := range w.told(t, id) {
			if strings.Contains(e.Message, "goes on after step") {
				going++
			}
			if step, ok := e.Data.(map[string]any)["step"].(float64); ok {
				if int64(step) != last+1 {
					t.Errorf("%s: step %v after %d", what, step, last)
				}
				last = int64(step)
			}
		}
		if going != 1 || last != 60 {
			t.Errorf("%s: went on %d times, to step %d", what, going, last)
		}
	}

	paused := w.ask(t, rows, long).ID
	w.trained(t, paused, 12)
	if job, err := w.FineTuning.Jobs.Pause(t.Context(), paused); err != nil || job.Status != statusPaused {
		t.Fatal(job, err)
	}
	next := w.ask(t, rows, quick).ID // which the paused one makes room for
	w.becomes(t, next, succeeded)
	if job, err := w.FineTuning.Jobs.Resume(t.Context(), paused); err != nil || job.FinishedAt != 0 {
		t.Fatal(job, err)
	}
	same("paused", w, paused)

	closed := w.ask(t, rows, long).ID
	w.trained(t, closed, 12)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	w = openWorkshop(t, o)
	same("closed", w, closed)
	if err := w.Close(); err != nil {
		t.Error(err)
	}

	server, address := process(t, o)
	w = workshop{Client: newClient(address), address: address}
	killed := w.ask(t, rows, long).ID
	waiting := w.ask(t, rows, quick).ID
	w.trained(t, killed, 12)
	if _, err := OpenJobs(o); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d serves from it",
		server.Process.Pid)) {
		t.Error(err)
	}
	server.Process.Kill()
	server.Wait()
	w = openWorkshop(t, o)
	same("killed", w, killed)
	w.becomes(t, waiting, succeeded)
	if left := entries(t, w.path(killed)); !slices.Equal(left, []string{"job.json", "log", "run", "training"}) {
		t.Errorf("left: %v", left)
	}
}

// No process trains on for long where its server was killed.
func TestJobEndsWithServer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends a process with another; elsewhere the next server waits for it")
	}
	o := testJobs(t)
	server, address := process(t, o)
	w := workshop{Client: newClient(address), address: address}
	job := w.ask(t, upload(t, w.Client, "rows.jsonl", chatRows(40)).ID, endless).ID
	w.trained(t, job, 1)
	server.Process.Kill()
	server.Wait()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := await(ctx, filepath.Join(o.State, "jobs", job, runFolder)); err != nil {
		t.Error(err)
	}
}

// process serves jobs in a process of its own, and gives its address.
func process(t *testing.T, o JobOptions) (*exec.Cmd, string) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), asServer+"="+string(text))
	out, err := server.StdoutPipe()
	if err := errors.Join(err, server.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return server, strings.TrimSpace(address)
}

func TestJobsTakeTurns(t *testing.T) {
	o := testJobs(t)
	w := openWorkshop(t, o)
	ctx := t.Context()
	rows := upload(t, w.Client, "rows.jsonl", chatRows(40)).ID
	first, second, third := w.ask(t, rows, endless).ID, w.ask(t, rows, quick).ID, w.ask(t, rows, quick).ID
	w.trained(t, first, 12)
	w.becomes(t, second, openai.FineTuningJobStatusQueued)
	if job, err := w.FineTuning.Jobs.Cancel(ctx, third); err != nil ||
		job.Status != openai.FineTuningJobStatusCancelled || job.FinishedAt == 0 {
		t.Error(job, err)
	}
	if job := w.becomes(t, first, openai.FineTuningJobStatusRunning); job.EstimatedFinish <= time.Now().Unix() {
		t.Errorf("%s", job.RawJSON())
	}
	if job, err := w.FineTuning.Jobs.Cancel(ctx, first); err != nil ||
		job.Status != openai.FineTuningJobStatusCancelled {
		t.Error(job, err)
	}
	w.becomes(t, second, openai.FineTuningJobStatusSucceeded)
	_, err := w.FineTuning.Jobs.Resume(ctx, first)
	refused(t, err, http.StatusBadRequest, "the job is cancelled")

	// What the cancelled one has made stays.
	list, err := w.FineTuning.Jobs.Checkpoints.List(ctx, first, openai.FineTuningJobCheckpointListParams{})
	if err != nil || len(list.Data) == 0 {
		t.Fatal(list, err)
	}
	if _, err := os.Stat(w.served(list.Data[0].FineTunedModelCheckpoint)); err != nil {
		t.Error(err)
	}
	var ids []string
	pages := w.FineTuning.Jobs.ListAutoPaging(ctx, openai.FineTuningJobListParams{Limit: openai.Int(2)})
	for pages.Next() {
		ids = append(ids, pages.Current().ID)
	}
	if !slices.Equal(ids, []string{third, second, first}) || pages.Err() != nil {
		t.Error(ids, pages.Err())
	}
	none, err := w.FineTuning.Jobs.List(ctx, openai.FineTuningJobListParams{Metadata: map[string]string{"for": "x"}})
	if err != nil || len(none.Data) > 0 {
		t.Error(none, err)
	}
}

func TestJobsRefuse(t *testing.T) {
	w := openWorkshop(t, testJobs(t))
	rows := upload(t, w.Client, "rows.jsonl", chatRows(4)).ID
	for body, want := range map[string]struct {
		status int
		param  string
		says   string
	}{
		`{"training_file": "ROWS"}`:                          {400, "model", "want tiny"},
		`{"model": "tiny"}`:                                  {400, "training_file", "/v1/files"},
		`{"model": "gpt-4", "training_file": "ROWS"}`:        {404, "model", "the model is tiny"},
		`{"model": "../../secret", "training_file": "ROWS"}`: {404, "model", "the model is tiny"},
		`{"model": "tiny", "training_file": "../../secret"}`: {400, "training_file", "there is no file"},
		`{"model": "tiny", "training_file": "ROWS", "validation_file": "file-1"}`: {400, "validation_file",
			"there is no file"},
		`{"model": "tiny", "training_file": "ROWS", "suffix": "../x"}`: {400, "suffix", "64 letters"},
		`{"model": "tiny", "training_file": "ROWS", "suffix": "` + strings.Repeat("x", 65) + `"}`: {400, "suffix",
			"64 letters"},
		`{"model": "tiny", "training_file": "ROWS", "seed": -1}`: {400, "seed", "from 0"},
		`{"model": "tiny", "training_file": "ROWS", "method": {"type": "dpo"}}`: {400, "method.type",
			"supervised"},
		`{"model": "tiny", "training_file": "ROWS", "integrations": [{"type": "x"}]}`: {400, "integrations", "none"},
		`{"model": "tiny", "training_file": "ROWS", "hyperparameters": {"n_epochs": 0}}`: {400, "hyperparameters",
			"above 0"},
		`{"model": "tiny", "training_file": "ROWS", "hyperparameters": {"n_epoch": 1}}`: {400, "hyperparameters",
			`unknown field "n_epoch"`},
		`{"model": "tiny", "training_file": "ROWS", "hyperparameters": {"batch_size": 1.5}}`: {400, "hyperparameters",
			"whole number"},
		`{"model": "tiny", "training_file": "ROWS", "hyperparameters": {"rank": -1}}`: {400, "hyperparameters", "rank"},
		`{"model": "tiny", "training_file": "ROWS", "hyperparameters": {"method": "full"}}`: {400, "hyperparameters",
			"method"},
		`{"model": "tiny", "training_file": "ROWS", "hyperparameters": {"patience": 1}}`: {400, "hyperparameters",
			"validation_file"},
		`{"model": "tiny", "training_file": "ROWS", "hyperparameters": {"eval_every": "often"}}`: {400,
			"hyperparameters", "often"},
		`{"model": 1}`: {400, "model", "string"},
		`[`:            {400, "", "not valid JSON"},
		`{"metadata": {"x": "` + strings.Repeat("x", 2<<20) + `"}}`: {413, "", "which is the limit"},
	} {
		response, err := http.Post(w.address+"fine_tuning/jobs", "application/json",
			strings.NewReader(strings.ReplaceAll(body, "ROWS", rows)))
		if err != nil {
			t.Fatal(err)
		}
		text := readAll(t, response.Body)
		var got struct {
			Error errorBody `json:"error"`
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%.100s: %v", body, err)
		}
		param := ""
		if got.Error.Param != nil {
			param = *got.Error.Param
		}
		if response.StatusCode != want.status || param != want.param ||
			!strings.Contains(got.Error.Message, want.says) {
			t.Errorf("%.100s: %d %s", body, response.StatusCode, text)
		}
	}
	for _, id := range []string{"ftjob-1", "..%2F..%2Fjobs", "%00", strings.Repeat("x", 10_000)} {
		for _, path := range []string{"", "/events", "/checkpoints", "/charts", "/pause", "/resume", "/cancel"} {
			ask := http.Get
			if len(path) > 0 && strings.Contains("/pause/resume/cancel", path) {
				ask = func(address string) (*http.Response, error) { return http.Post(address, "", nil) }
			}
			response, err := ask(w.address + "fine_tuning/jobs/" + id + path)
			if err != nil {
				t.Fatal(err)
			}
			if text := readAll(t, response.Body); response.StatusCode != http.StatusNotFound ||
				!strings.Contains(text, "there is no job") {
				t.Errorf("%.20s%s: %d %s", id, path, response.StatusCode, text)
			}
		}
	}
	if left := entries(t, w.folder); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestJobFails(t *testing.T) {
	w := openWorkshop(t, testJobs(t))
	good := upload(t, w.Client, "good.jsonl", chatRows(4)).ID
	for name, c := range map[string]struct{ content, says string }{
		"bad row": {chatRows(2) + `{"messages": [{"role": "user", "content": "no answer"}]}` + "\n",
			"rows-bad-row: 1 of 3 rows cannot be used: row 3: "},
		"no rows":   {"nothing here", "rows-no-rows: "},
		"no chat":   {`{"some": "thing"}`, "rows-no-chat: 1 of 1 rows cannot be used: row 1: "},
		"half JSON": {`{"messages": [`, "rows-half-JSON: "},
	} {
		file := upload(t, w.Client, name, c.content).ID
		training := w.becomes(t, w.ask(t, file, quick).ID, openai.FineTuningJobStatusFailed)
		measured := w.becomes(t, w.ask(t, good, quick, option.WithJSONSet("validation_file", file)).ID,
			openai.FineTuningJobStatusFailed)
		if training.Error.Code != "invalid_training_file" || training.Error.Param != "training_file" ||
			!strings.Contains(training.Error.Message, c.says) || measured.Error.Param != "validation_file" ||
			strings.Contains(training.Error.Message, w.folder) || measured.FinishedAt == 0 {
			t.Errorf("%s: %s, %s", name, training.Error.RawJSON(), measured.Error.RawJSON())
		}
	}
	// What shows only when it is trained on.
	questions := upload(t, w.Client, "questions", `{"question": "Why?", "choices": ["a", "b"], "answer": 0}`).ID
	job := w.ask(t, questions, quick).ID
	failed := w.becomes(t, job, openai.FineTuningJobStatusFailed)
	if failed.Error.Code != "training_failed" || !strings.HasPrefix(failed.Error.Message,
		"rows-questions: holds multiple-choice questions") {
		t.Errorf("%s", failed.Error.RawJSON())
	}
	if resumed, err := w.FineTuning.Jobs.Resume(t.Context(), job); err != nil || resumed.Error.Message != "" {
		t.Error(resumed, err)
	}
	w.becomes(t, job, openai.FineTuningJobStatusFailed)
}

// TestJobInPython has OpenAI's client for Python train, and ask the new model.
func TestJobInPython(t *testing.T) {
	python := testutil.Python(t)
	if err := exec.Command(python, "-c", "import openai").Run(); err != nil {
		t.Skipf("%s has no package openai: see tools/requirements.txt", python)
	}
	r := startWithJobs(t, func(o *Options) { o.Key = testKey })
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(rows, []byte(chatRows(40)), 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(python, "testdata/jobs.py", r.url+"/v1", testKey, rows).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestJobsDescribed holds requests and replies to the description.
func TestJobsDescribed(t *testing.T) {
	root := readDescription(t)
	for name, request := range map[string]any{"JobRequest": jobRequest{}, "Hyperparameters": hyperparameters{}} {
		var read []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(request)) {
			field, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			read = append(read, field)
		}
		slices.Sort(read)
		if described := slices.Sorted(maps.Keys(at(root, "components", "schemas", name, "properties"))); !slices.Equal(
			described, read) {
			t.Errorf("%s: described %q, read %q", name, described, read)
		}
	}
	r := startWithJobs(t, nil)
	w := workshop{r.options.Jobs, newClient(r.url + "/v1/"), r.url + "/v1/"}
	rows := upload(t, w.Client, "rows.jsonl", chatRows(40))
	failed := upload(t, w.Client, "failed.jsonl", "{}")
	job := w.ask(t, rows.ID, quick, option.WithJSONSet("validation_file", rows.ID)).ID
	w.becomes(t, w.ask(t, failed.ID, "").ID, openai.FineTuningJobStatusFailed)
	done := w.becomes(t, job, openai.FineTuningJobStatusSucceeded)
	const jobs = "/v1/fine_tuning/jobs"
	for _, q := range [][3]string{
		{"get", "/v1/files", ""}, {"get", "/v1/files/{id}", rows.ID}, {"get", "/v1/files/{id}", done.ResultFiles[0]},
		{"get", "/v1/files/{id}", "none"}, {"delete", "/v1/files/{id}", rows.ID}, {"get", jobs, ""},
		{"get", jobs + "/{id}", job}, {"get", jobs + "/{id}/events", job}, {"get", jobs + "/{id}/checkpoints", job},
		{"get", jobs + "/{id}/charts", job}, {"post", jobs + "/{id}/cancel", job}, {"get", jobs + "/{id}", "none"},
	} {
		status, reply := r.ask(t, strings.ToUpper(q[0]), strings.Replace(q[1], "{id}", q[2], 1), "")
		operation := at(root, "paths", q[1], q[0])
		response := at(operation, "responses", fmt.Sprint(status))
		if response == nil {
			response = resolve(root, at(operation, "responses", "default"))
		}
		var body any
		if err := json.Unmarshal([]byte(reply), &body); err != nil {
			t.Fatal(err)
		}
		fits(t, root, at(response, "content", "application/json", "schema"), body, q[1]+": "+reply)
	}
}
