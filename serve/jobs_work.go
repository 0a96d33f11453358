package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/veratune/veratune/train"
)

// dispatch begins what there is to do, of the oldest jobs first. The caller holds the lock.
func (j *Jobs) dispatch() {
	for _, t := range j.oldestFirst() {
		switch {
		case j.closed || t.stop != nil:
		case t.Status == statusValidating:
			j.work(t, j.check)
		case t.Status == statusQueued && j.training < j.options.AtOnce:
			j.training++
			t.Status = statusRunning
			t.begin()
			j.keep(t)
			j.work(t, j.train)
		}
	}
}

// work has something done for a job in the background. The caller holds the lock.
func (j *Jobs) work(t *job, do func(ctx context.Context, t *job)) {
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	j.working.Go(func() {
		do(ctx, t)
		j.mu.Lock()
		defer j.mu.Unlock()
		stop()
		t.stop = nil
		j.dispatch()
	})
}

// settled takes in what came of work that nobody has ended meanwhile; change decides what the job is then.
func (j *Jobs) settled(ctx context.Context, t *job, change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if ctx.Err() == nil {
		change()
		j.keep(t)
	}
}

// fail ends a job with an error. The caller holds the lock.
func (t *job) fail(err error) {
	known := &jobError{Code: "training_failed", Message: err.Error()}
	errors.As(err, &known)
	t.Error = known
	t.finish(statusFailed)
	t.tell(levelError, known.Message)
}

// check finds out whether the job's files are fit to train on, and decides what was left to them.
func (j *Jobs) check(ctx context.Context, t *job) {
	select {
	case j.checking <- struct{}{}:
		defer func() { <-j.checking }()
	case <-ctx.Done():
		return
	}
	found, err := j.checkRows(ctx, t, "training_file", t.TrainingName)
	warnings := found.warnings()
	if err == nil && t.ValidationName != "" {
		var measured checked
		measured, err = j.checkRows(ctx, t, "validation_file", t.ValidationName)
		warnings = append(warnings, measured.warnings()...)
	}
	j.settled(ctx, t, func() {
		if err != nil {
			t.fail(err)
			return
		}
		for _, w := range warnings {
			t.tell(levelWarn, w)
		}
		t.choose(t.Hyperparameters.settle(found.rows))
		t.Checked, t.Status = true, statusQueued
		t.tell(levelInfo, "Files validated, moving job to queued state")
	})
}

// checkRows checks the rows of a file that a parameter of the request has named.
func (j *Jobs) checkRows(ctx context.Context, t *job, param, name string) (found checked, err error) {
	unfit := func(format string, args ...any) error {
		return &jobError{Code: "invalid_" + param, Message: fmt.Sprintf(format, args...), Param: &param}
	}
	output, err := os.Create(t.path(checkFile))
	if err != nil {
		return found, err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	var said bytes.Buffer
	cmd := j.process(ctx, append([]string{"data", "check", "--json",
		"--max-length=" + strconv.Itoa(t.Hyperparameters.MaxLength)},
		append(j.options.Flags, filepath.Join(t.path(rowsFolder(param)), name))...))
	cmd.Stdout, cmd.Stderr = output, &said
	if err := runLow(cmd); err != nil {
		return found, unfit("%s", t.forClients(failed(said.String(), err)))
	}
	if _, err := output.Seek(0, io.SeekStart); err != nil {
		return found, err
	}
	if found, err = readCheck(name, output); err != nil {
		return found, fmt.Errorf("checking %s: %w", name, err)
	}
	if found.unfit > 0 {
		return found, unfit("%s", found.refusal())
	}
	return found, nil
}

// forClients takes the paths of the job's folder out of a message.
func (t *job) forClients(message string) string {
	for _, param := range []string{"training_file", "validation_file"} {
		message = strings.ReplaceAll(message, t.path(rowsFolder(param))+string(filepath.Separator), "")
	}
	return strings.ReplaceAll(message, t.folder+string(filepath.Separator), "")
}

// train trains, or goes on with what another process has trained, and puts the adapter where it is served.
func (j *Jobs) train(ctx context.Context, t *job) {
	remarks, err := j.learn(ctx, t)
	var done result
	if err == nil && ctx.Err() == nil {
		done, err = j.publish(t)
	}
	j.settled(ctx, t, func() {
		for _, r := range remarks {
			t.tell(r.Level, r.Message)
		}
		switch {
		case errors.Is(err, errInterrupted):
			t.Status = statusPaused
			t.tell(levelInfo, "The process was interrupted; the job is paused")
		case err != nil:
			t.fail(err)
		default:
			t.FineTunedModel, t.ResultFiles, t.TrainedTokens = &done.model, []string{done.metrics}, &done.tokens
			t.tell(levelInfo, "New fine-tuned model created: "+done.model+" ("+done.which+")")
			t.finish(statusSucceeded)
			t.tell(levelInfo, "The job has successfully completed")
		}
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.training--
}

// errInterrupted is that of a process that another than this server has ended in good order.
var errInterrupted = errors.New("interrupted")

// learn runs the process that trains, and keeps the checkpoints served meanwhile. It gives what the process remarked.
func (j *Jobs) learn(ctx context.Context, t *job) (remarked []saying, err error) {
	words, err := t.command(slices.Concat(j.options.Flags, j.options.TrainFlags))
	if err != nil {
		return nil, err
	}
	if err := await(ctx, t.path(runFolder)); err != nil {
		return nil, err
	}
	said, err := os.OpenFile(t.path(logFile), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer said.Close()
	before, err := said.Stat()
	if err != nil {
		return nil, err
	}
	cmd := j.process(ctx, words)
	cmd.Stdout, cmd.Stderr = said, said
	ended := make(chan error, 1)
	go func() { ended <- runLow(cmd) }()
	const pause = time.Second
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var served []train.Checkpoint
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-tick.C:
		}
		served = j.serveCheckpoints(t, served)
	}
	text, readErr := sayings(said, before.Size())
	if readErr != nil {
		return nil, readErr
	}
	remarked = remarks(t.forClients(text))
	switch {
	case err == nil:
		return remarked, nil
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == exitInterrupted:
		return remarked, errInterrupted
	}
	return remarked, errors.New(t.forClients(failed(text, err)))
}

// command is the training in words of the command line.
func (t *job) command(flags []string) ([]string, error) {
	o, err := t.training()
	if err != nil {
		return nil, err
	}
	run := t.path(runFolder)
	words := append([]string{"alpaca", "--strict",
		fmt.Sprintf("--method=%s", o.Adapter.Method),
		fmt.Sprintf("--seed=%d", t.Seed), fmt.Sprintf("--lr=%v", o.Train.LR),
		fmt.Sprintf("--batch=%d", o.Rows.Batch), fmt.Sprintf("--accumulation=%d", o.Train.Accumulation),
		fmt.Sprintf("--epochs=%v", o.Train.Epochs), fmt.Sprintf("--max-length=%d", o.Rows.MaxLength),
		"--data=" + filepath.Join(t.path(rowsFolder("training_file")), t.TrainingName), "--out=" + run}, flags...)
	if t.GoesOn {
		words = append(words, "--from="+t.path(beginFile))
	} else {
		words = append(words, fmt.Sprintf("--rank=%d", o.Adapter.Rank))
	}
	if t.ValidationName == "" {
		words = append(words, "--held-out=0")
	} else {
		words = append(words, "--eval-data="+filepath.Join(t.path(rowsFolder("validation_file")), t.ValidationName),
			fmt.Sprintf("--eval-every=%v", o.Train.EvalEvery), fmt.Sprintf("--patience=%d", o.Train.Patience))
	}
	if train.Begun(run) {
		words = append(words, "--resume")
	}
	return words, nil
}
