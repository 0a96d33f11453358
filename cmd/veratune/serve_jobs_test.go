package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/session"
)

// service is a server in a process of its own.
type service struct {
	*exec.Cmd
	openai.Client
	address string
}

// halfUpload begins an upload, and leaves it.
func halfUpload(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(address, "http://"), "/v1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprint(c, "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"+
		"Content-Length: 100000\r\n\r\n--X\r\nContent-Disposition: form-data; "+
		"name=\"purpose\"\r\n\r\nfine-tune\r\n--X\r\n"+
		"Content-Disposition: form-data; name=\"file\"; filename=\"half.jsonl\"\r\n\r\nhalf a row")
}

func startServer(t *testing.T, args ...string) service {
	t.Helper()
	cmd, _ := process(append([]string{"serve", "--listen", "127.0.0.1:0", "--threads", "1"}, args...)...)
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	address, _, ok := strings.Cut(line, " ")
	if err != nil || !ok {
		t.Fatalf("%q, %v, %s", line, err, cmd.Stderr)
	}
	return service{cmd, openai.NewClient(option.WithBaseURL(address), option.WithAPIKey("none")), address}
}

// job waits for a job's state.
func (s service) job(t *testing.T, id string, status openai.FineTuningJobStatus) *openai.FineTuningJob {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	for {
		job, err := s.FineTuning.Jobs.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if job.Status == status {
			return job
		}
		if job.Status == openai.FineTuningJobStatusFailed {
			t.Fatal(job.RawJSON())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A server that is killed while a job trains and a file comes in, and one that is interrupted, go on with the job when
// they are started again: to the bytes of the same training by the command.
func TestServeJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("trains")
	}
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	folder := filepath.Join(t.TempDir(), "adapters")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	args := []string{"--model", model, "--adapters", folder, "--name", "tiny", "--template", "alpaca"}
	data := rows(t, 60)
	ctx := t.Context()
	s := startServer(t, args...)
	file, err := s.Files.New(ctx, openai.FileNewParams{Purpose: openai.FilePurposeFineTune,
		File: openai.File(bytes.NewReader(read(t, data)), "rows.json", "application/json")})
	if err != nil {
		t.Fatal(err)
	}
	job, err := s.FineTuning.Jobs.New(ctx, openai.FineTuningJobNewParams{Model: "tiny", TrainingFile: file.ID,
		Suffix: openai.String("sums")}, option.WithJSONSet("hyperparameters", map[string]any{"rank": 8, "batch_size": 4,
		"n_epochs": 6, "learning_rate": 0.001}))
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(folder+".state", "jobs", job.ID, "run")
	s.job(t, job.ID, openai.FineTuningJobStatusRunning)
	for !exists(filepath.Join(run, "checkpoints", "step-10")) {
		time.Sleep(10 * time.Millisecond)
	}
	code, _, stderr := veratune(append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	if code != exitFailed || !strings.Contains(stderr, fmt.Sprintf("process %d serves from it; --state",
		s.Process.Pid)) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	files := filepath.Join(folder+".state", "files")
	before, err := os.ReadDir(files)
	if err != nil {
		t.Fatal(err)
	}
	halfUpload(t, s.address)
	for now := before; len(now) == len(before); now, _ = os.ReadDir(files) {
		time.Sleep(time.Millisecond)
	}
	s.Process.Kill()
	s.Wait()

	s = startServer(t, args...)
	if after, err := os.ReadDir(files); err != nil || len(after) != len(before) {
		t.Errorf("%v, %v; want %v", after, err, before)
	}
	list, err := s.Files.List(ctx, openai.FileListParams{})
	if err != nil || len(list.Data) != 1 || list.Data[0].ID != file.ID {
		t.Error(list, err)
	}
	s.job(t, job.ID, openai.FineTuningJobStatusRunning)
	s.Process.Signal(syscall.SIGINT)
	s.Wait()
	if code := s.ProcessState.ExitCode(); code != 0 && code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}

	s = startServer(t, args...)
	done := s.job(t, job.ID, openai.FineTuningJobStatusSucceeded)
	alone := filepath.Join(t.TempDir(), "alone")
	if code, _, stderr := veratune("alpaca", "--model", model, "--template", "alpaca", "--data", data, "--out", alone,
		"--rank", "8", "--batch", "4", "--accumulation", "1", "--epochs", "6", "--lr", "0.001", "--held-out", "0",
		"--threads", "1"); code != 0 {
		t.Fatal(stderr)
	}
	base, err := session.Open(session.Options{Model: model, Engine: generate.Engine()})
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	got, err := base.Load(filepath.Join(folder, done.FineTunedModel+".gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Params, trained(t, base.Base(), alone)) {
		t.Error("the job's adapter has other numbers than that of the same command")
	}
	answer, err := s.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: done.FineTunedModel,
		MaxCompletionTokens: openai.Int(4), Messages: []openai.ChatCompletionMessageParamUnion{
			openai.UserMessage("add 3"),
		}})
	if err != nil || answer.Model != done.FineTunedModel {
		t.Error(answer, err)
	}
	s.Process.Signal(syscall.SIGINT)
	s.Wait()

	s = startServer(t, append(args, "--jobs", "0")...)
	if _, err := s.Files.List(ctx, openai.FileListParams{}); err == nil {
		t.Error("files without jobs")
	}
}
