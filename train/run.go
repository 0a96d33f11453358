package train

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/internal/terminal"
)

// loop is a run that is under way.
type loop struct {
	*Run
	*trainer
	settings  settings
	batching  batching
	position  position
	unsaved   bool                     // something has changed since the newest checkpoint
	sample    func() ([]Sample, error) // Samples, until the run is interrupted
	saved     int                      // step of the newest checkpoint that this process knows; 0 for none
	signalled bool                     // a signal ended the run early
	folder    *folder
	metrics   *metrics
	progress  *progress
	oldRun    string

	mu       sync.Mutex // guards what a step changes; free while a gradient is computed
	finished bool       // saveAtOnce saves nothing any more
}

// run loops once more than there are steps, so that the last evaluation and checkpoint need no code of their own.
func (l *loop) run(ctx context.Context) (Result, error) {
	defer l.progress.End()
	defer l.stopSaving()
	limit := l.limit(ctx)
	if l.group.Size() > 1 && l.writes() {
		defer context.AfterFunc(ctx, l.saveAtOnce)()
	}
	for {
		if err := l.folder.check(); err != nil {
			return Result{}, err
		}

		// Evaluate.
		halted := limit()
		_, done := l.end(halted)
		if l.evaluationDue(done) {
			if err := l.evaluate(); err != nil {
				return Result{}, l.stopped("evaluation after", err)
			}
		}

		// Save. An evaluation that was interrupted is still due and will be made on resuming.
		endedBy, done := l.end(halted)
		interrupted := l.requests().stop && (!done || l.evaluationDue(done))
		diverged := !done && !l.NoHalt && l.position.High >= highSteps
		err := l.change(func() error {
			if !l.saveDue(done || interrupted || diverged) {
				return nil
			}
			return l.save()
		})
		if err != nil {
			return Result{}, fmt.Errorf("checkpoint after step %d: %w", l.position.Step, err)
		}

		// Stop?
		if done || interrupted || diverged {
			l.stopSaving()
		}
		if interrupted {
			return Result{}, l.interrupted()
		}
		if done {
			return l.finish(endedBy)
		}
		if diverged {
			return Result{}, errors.Join(l.stopped("halted after",
				fmt.Errorf("%w: %w", ErrDiverged, errHigh{l.highLoss()})), l.keepGood())
		}

		// Step.
		began := time.Now()
		l.progress.working()
		rate := l.Config.RateAt(l.position.Step, l.batching.total)
		b, err := l.batching.load(l.Training, l.Config.Seed, l.position.Step)
		if err != nil {
			return Result{}, l.stopped("step after", err)
		}
		o, err := l.meanGradient(b, l.normsDue(l.position.Step+1))
		if err != nil {
			return Result{}, l.stopped("step after", err)
		}
		err = l.change(func() error {
			if err := l.update(&o, rate); err != nil {
				return err
			}
			if err := l.log(o, rate, time.Since(began)); err != nil {
				return err
			}
			l.advance()
			l.countHigh(o.loss)
			return nil
		})
		if err != nil {
			return Result{}, l.stopped("step after", err)
		}
	}
}

// change makes a change that a checkpoint holds entirely or not at all. After a failed one, saveAtOnce saves nothing.
func (l *loop) change(work func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := work()
	l.finished = l.finished || err != nil
	return err
}

// stopSaving waits for saveAtOnce, and keeps it from saving again.
func (l *loop) stopSaving() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finished = true
}

// The limits by the words of the command line.
const (
	maxSteps = "max-steps"
	maxTime  = "max-time"
)

// limit gives a function that names the limit of this process that has been reached; "" before.
func (l *loop) limit(ctx context.Context) func() string {
	began, first := time.Now(), l.position.Step
	l.asked = func() requests {
		return requests{stop: ctx.Err() != nil, timeUp: l.MaxTime > 0 && time.Since(began) >= l.MaxTime}
	}
	l.sample = func() ([]Sample, error) { return l.Samples(ctx) }
	return func() string {
		switch {
		case l.MaxSteps > 0 && l.position.Step >= l.MaxSteps:
			return maxSteps
		case l.position.Step > first && l.requests().timeUp:
			return maxTime
		}
		return ""
	}
}

// end tells whether no further step is made, and which option ended it early; halted is the limit that has been
// reached.
func (l *loop) end(halted string) (by string, done bool) {
	switch {
	case l.position.Step == l.batching.total:
		return "", true
	case l.Config.Patience > 0 && l.position.Waited >= l.Config.Patience:
		return "patience", true
	}
	return halted, halted != ""
}

// interrupted saves the adapter of a run that was interrupted, and gives its error.
func (l *loop) interrupted() error {
	l.signalled = true
	if err := l.saveAdapter(l.folder.join(AdapterFile)); err != nil {
		return fmt.Errorf("adapter after step %d: %w; --resume goes on from %s", l.position.Step, err,
			l.folder.checkpoint(l.position.Step))
	}
	return fmt.Errorf("%w after step %d of %d; --resume goes on from %s", ErrInterrupted, l.position.Step,
		l.batching.total, l.folder.checkpoint(l.position.Step))
}

// advance moves to the next step.
func (l *loop) advance() {
	l.position.Step, l.unsaved = l.position.Step+1, true
	l.position.Epoch, l.position.Batch, _ = l.batching.batchesOf(l.position.Step)
}

// log records the step that is being made.
func (l *loop) log(o outcome, rate float64, took time.Duration) error {
	step := l.position.Step + 1
	line := stepLine{
		Step: step, Epoch: l.batching.epochs(step), Loss: o.loss, LR: rate, GradNorm: o.norm, Tokens: o.tokens,
		Labelled: o.labelled, Seconds: took.Seconds(), Memory: peakMemory(),
	}
	if err := l.metrics.write(line); err != nil {
		return err
	}
	if o.norms != nil {
		if err := l.metrics.write(normsLine{Step: step, Norms: o.norms}); err != nil {
			return err
		}
	}
	l.progress.step(line)
	return nil
}

// A loss above highFactor times that before training is high; highSteps of them in a row halt the training.
const (
	highFactor = 3
	highSteps  = 10
)

// errHigh is the error of a training whose loss stays above this.
type errHigh struct{ loss float64 }

func (e errHigh) Error() string {
	return fmt.Sprintf("the loss has been above %.4f, %d times that before training, for %d steps", e.loss,
		highFactor, highSteps)
}

// highLoss is the loss above which others are high. A single step's loss may be low by chance, so the held-out loss
// counts too.
func (l *loop) highLoss() float64 {
	loss := l.position.First
	if l.position.Before != nil {
		loss = max(loss, l.position.Before.Loss)
	}
	return highFactor * loss
}

// countHigh counts the high losses in a row, up to the step just made.
func (l *loop) countHigh(loss float64) {
	if l.position.Step == 1 {
		l.position.First = loss
	}
	if high := l.highLoss(); high <= 0 || loss <= high {
		l.position.High, l.position.Good = 0, 0
		return
	}
	if l.position.High == 0 {
		l.position.Good = l.saved
	}
	l.position.High++
}

// stopped adds to an error where the training stopped, what is left of it, and what to do.
func (l *loop) stopped(what string, err error) error {
	err = fmt.Errorf("%s step %d of %d: %w", what, l.position.Step, l.batching.total, err)
	if !errors.Is(err, ErrDiverged) {
		l.mu.Lock()
		saved := l.saved
		l.mu.Unlock()
		if l.group.Size() > 1 && saved > 0 {
			err = fmt.Errorf("%w; the last checkpoint is %s", err, l.folder.checkpoint(saved))
		}
		return err
	}
	high := errors.As(err, new(errHigh))
	left := "there is no earlier checkpoint"
	switch good := l.lastGood(); {
	case good != "" && high:
		left = fmt.Sprintf("the last good checkpoint is %s, whose adapter is %s now", good, l.folder.join(AdapterFile))
	case good != "":
		left = "the last good checkpoint is " + good
	case high:
		left = "no checkpoint is from before that"
	}
	if exists(l.folder.join(BestFile)) && l.position.Best != nil && l.position.Best.Step > 0 {
		left += fmt.Sprintf(", the best adapter, of step %d, %s", l.position.Best.Step, l.folder.join(BestFile))
	}
	goes := "--resume would come to the same"
	if high {
		goes = "--resume --no-halt goes on nevertheless"
	}
	return fmt.Errorf("%w; %s; begin anew with a lower --lr, or a --clip such as 1; %s", err, left, goes)
}

// lastGood names the newest checkpoint from before the losses were high; "" for none. A checkpoint of this very step
// does not count: its parameters gave the last of them.
func (l *loop) lastGood() string {
	if l.position.High == 0 {
		return l.folder.lastBefore(l.position.Step)
	}
	if good := l.folder.checkpoint(l.position.Good); exists(good) {
		return good
	}
	return ""
}

// keepGood makes the adapter of the last good checkpoint the run's.
func (l *loop) keepGood() error {
	good := l.lastGood()
	if good == "" || !l.writes() {
		return nil
	}
	adapter, err := os.ReadFile(filepath.Join(good, AdapterFile))
	if err == nil {
		err = durable.WriteFile(l.folder.join(AdapterFile), adapter, 0o666)
	}
	return err
}

// evaluationDue tells whether an evaluation must be made now; done says that no step follows.
func (l *loop) evaluationDue(done bool) bool {
	step := l.position.Step
	if l.HeldOut == nil || l.position.Last != nil && l.position.Last.Step == step {
		return false
	}
	return done || l.scheduled(step)
}

// scheduled tells whether a step is followed by an evaluation, wherever the run is halted.
func (l *loop) scheduled(step int) bool { return step == 0 || l.endsInterval(step) }

// endsInterval tells whether a step is the last, or ends an interval between evaluations.
func (l *loop) endsInterval(step int) bool {
	return step == l.batching.total || l.Config.EvalEvery.endsAt(step, l.batching.perEpoch())
}

// normsDue tells whether the parts' norms are recorded with a step. They go with the step, not with its evaluation: a
// process that has resumed the run may make that, and does not know the gradient.
func (l *loop) normsDue(step int) bool {
	return len(l.Parts) > 0 && (step == 1 || l.endsInterval(step))
}

// evaluate measures the held-out loss and records it. If it is interrupted, it returns nil and changes nothing.
func (l *loop) evaluate() error {
	e, line, err := l.measure()
	if e == nil {
		return err
	}
	return l.change(func() error { return l.record(e, line) })
}

// record records an evaluation and keeps the best adapter.
func (l *loop) record(e *Evaluation, line evalLine) error {
	l.position.Last, l.unsaved = e, true
	if e.Step == 0 {
		l.position.Before = e
	}
	if l.scheduled(e.Step) {
		if l.position.Waited++; l.position.Lowest == nil || e.Loss < l.position.Lowest.Loss {
			l.position.Lowest, l.position.Waited = e, 0
		}
	}
	mark := ""
	if l.position.Best == nil || e.Loss < l.position.Best.Loss {
		l.position.Best = e
		if e.Step > 0 {
			mark = "  best so far"
			if err := l.saveAdapter(l.folder.join(BestFile)); err != nil {
				return err
			}
		}
	}
	return l.tell(line, mark)
}

// measure computes the held-out loss and has the samples made; nil if it is interrupted.
func (l *loop) measure() (*Evaluation, evalLine, error) {
	began := time.Now()
	line := evalLine{Step: l.position.Step}
	var sum float64
	for i := l.group.Rank(); i < l.HeldOut.Batches() && !l.asked().stop; i += l.group.Size() {
		l.progress.Status(fmt.Sprintf("held-out data: batch %d/%d", i+1, l.HeldOut.Batches()))
		tokens, targets, lengths, err := l.HeldOut.Batch(0, i)
		if err != nil {
			return nil, line, err
		}
		s, n, err := l.engine.Loss(tokens, targets, lengths)
		if err != nil {
			return nil, line, err
		}
		sum, line.Labelled = sum+s, line.Labelled+n
	}
	sum, labelled, err := l.sum(sum, line.Labelled, nil)
	line.Labelled = labelled
	if err != nil || l.requests().stop {
		return nil, line, err
	}
	if line.Labelled == 0 {
		return nil, line, errors.New("no token of the held-out data carries a label")
	}
	line.EvalLoss = sum / float64(line.Labelled)
	if !finite(line.EvalLoss) {
		return nil, line, fmt.Errorf("%w: the held-out loss is %v", ErrDiverged, line.EvalLoss)
	}
	if l.Samples != nil {
		if _, _, err := l.optimizer.fetch(); err != nil {
			return nil, line, err
		}
		if line.Samples, err = l.answers(); err != nil || l.requests().stop {
			return nil, line, err
		}
	}
	line.Seconds = time.Since(began).Seconds()
	return &Evaluation{Step: line.Step, Loss: line.EvalLoss}, line, nil
}

// answers has the samples made, by one process for the whole group.
func (l *loop) answers() (samples []Sample, err error) {
	l.progress.Status("sample answers")
	if l.writes() {
		samples, err = l.sample()
	}
	if err != nil && !l.asked().stop {
		return nil, fmt.Errorf("samples: %w", err)
	}
	_, _, err = l.sum(0, 0, nil) // all know of it where they were interrupted
	return samples, err
}

// tell writes an evaluation to metrics.jsonl and shows it.
func (l *loop) tell(line evalLine, mark string) error {
	if err := l.metrics.write(line); err != nil {
		return err
	}
	l.progress.Note("step %d/%d  held-out loss %.4f%s", line.Step, l.batching.total, line.EvalLoss, mark)
	return nil
}

func (l *loop) saveDue(stopping bool) bool {
	step, every := l.position.Step, l.Config.SaveEvery
	return l.unsaved && (stopping || every > 0 && step > 0 && step%every == 0)
}

// save writes a checkpoint, after the lines of metrics.jsonl that belong before it.
func (l *loop) save() error {
	if !l.writes() {
		l.saved, l.unsaved = l.position.Step, false
		return nil
	}
	if err := l.folder.check(); err != nil {
		return err
	}
	lines, err := l.syncMetrics()
	if err != nil {
		return err
	}
	s, err := l.state()
	if err != nil {
		return err
	}
	if err := l.folder.saveCheckpoint(s, l.saveAdapter, lines, l.Config.Keep); err != nil {
		return err
	}
	l.saved, l.unsaved = l.position.Step, false
	l.metrics.kept, l.metrics.fresh = filepath.Join(l.folder.checkpoint(l.position.Step), MetricsFile), nil
	if l.group.Size() > 1 { // a launcher may end this process without a word when another is lost
		l.progress.Note("saved %s", l.folder.checkpoint(l.position.Step))
	}
	l.draw()
	return nil
}

// syncMetrics has all lines so far on the disk, and returns them. It makes a file that was removed again.
func (l *loop) syncMetrics() ([]byte, error) {
	lines, err := l.metrics.lines()
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	path := l.folder.join(MetricsFile)
	if exists(path) {
		return lines, l.metrics.file.Sync()
	}
	l.progress.Note("%s: was removed, and is made again", path)
	l.metrics.file.Close()
	l.metrics, err = openMetrics(path, lines)
	return lines, err
}

func (l *loop) state() (*state, error) {
	m, v, err := l.optimizer.fetch()
	return &state{position: l.position, params: l.params, m: m, v: v}, err
}

// draw brings the chart up to date. A training is worth more than its picture, so that a failure is told and no more.
func (l *loop) draw() {
	if err := drawChart(l.folder.join(MetricsFile), l.folder.join(ChartFile)); err != nil {
		l.progress.Note("warning: %s", terminal.Words(err))
	}
}

// finish writes the adapter.
func (l *loop) finish(endedBy string) (Result, error) {
	if err := l.folder.check(); err != nil {
		return Result{}, err
	}
	r := Result{
		Steps: l.position.Step, First: l.position.First, Loss: l.progress.loss.mean(),
		Before: l.position.Before, After: l.position.Last, Best: l.position.Best, EndedBy: endedBy,
		Adapter: l.folder.join(AdapterFile), OldRun: l.oldRun,
	}
	if l.position.Best != nil && l.position.Best.Step > 0 {
		r.BestAdapter = l.folder.join(BestFile)
	}
	if err := l.saveAdapter(r.Adapter); err != nil {
		return Result{}, err
	}
	if !l.writes() {
		return r, nil
	}
	l.draw()
	return r, durable.SyncFolder(l.folder.path)
}

// factInterrupted is that of an adapter whose training a signal ended before its end.
const factInterrupted = "interrupted"

// saveAdapter writes the parameters as they are now, with the facts of the training so far.
func (l *loop) saveAdapter(path string) error {
	if !l.writes() {
		return nil
	}
	if _, _, err := l.optimizer.fetch(); err != nil {
		return err
	}
	facts := maps.Clone(l.Facts)
	if facts == nil {
		facts = map[string]string{}
	}
	facts["steps"] = strconv.Itoa(l.position.Step)
	facts["epochs"] = strconv.FormatFloat(l.batching.epochs(l.position.Step), 'g', 6, 64)
	facts["data_sha256"] = l.settings.Data.Training
	if l.signalled {
		facts[factInterrupted] = "true"
	}
	for name, e := range map[string]*Evaluation{"eval_loss_before": l.position.Before, "eval_loss": l.position.Last,
		"best_eval_loss": l.position.Best} {
		// The newest evaluation can be of an earlier step, whose loss isn't this adapter's.
		if e != nil && (name != "eval_loss" || e.Step == l.position.Step) {
			facts[name] = strconv.FormatFloat(e.Loss, 'g', -1, 64)
		}
	}
	return l.SaveAdapter(path, facts)
}
