package train

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
)

// loop is a run that is under way.
type loop struct {
	*Run
	trainer
	settings settings
	plan     plan
	at       position
	unsaved  bool // something has happened since the newest checkpoint
	folder   *folder
	metrics  *metrics
	progress *progress
	oldRun   string
}

// run goes around once more than there are steps, so that the last evaluation and checkpoint need no code of their own.
func (l *loop) run(ctx context.Context) (Result, error) {
	defer l.progress.End()
	for {
		// Evaluate.
		if l.evaluationDue() {
			if err := l.evaluate(ctx); err != nil {
				return Result{}, l.stopped("evaluation after", err)
			}
		}

		// Save. An evaluation that was interrupted is still due and will be made on resuming.
		done := l.at.Step == l.plan.total
		interrupted := ctx.Err() != nil && (!done || l.evaluationDue())
		if l.saveDue(interrupted) {
			if err := l.save(); err != nil {
				return Result{}, fmt.Errorf("checkpoint after step %d: %w", l.at.Step, err)
			}
		}

		// Stop?
		if interrupted {
			return Result{}, fmt.Errorf("%w after step %d of %d; resume goes on from %s", ErrInterrupted, l.at.Step, l.plan.total, l.folder.checkpoint(l.at.Step))
		}
		if done {
			return l.finish()
		}

		// Step.
		began := time.Now()
		l.progress.working()
		rate := l.Config.RateAt(l.at.Step, l.plan.total)
		b, err := l.plan.load(l.Training, l.Config.Seed, l.at.Step)
		if err != nil {
			return Result{}, l.stopped("step after", err)
		}
		o, err := l.step(b, rate)
		if err != nil {
			return Result{}, l.stopped("step after", err)
		}
		l.advance()

		// Log.
		line := stepLine{
			Step: l.at.Step, Epoch: l.plan.epochs(l.at.Step), Loss: o.loss, LR: rate, GradNorm: o.norm, Tokens: o.tokens, Labelled: o.labelled,
			Seconds: time.Since(began).Seconds(), Memory: peakMemory(),
		}
		if err := l.metrics.write(line); err != nil {
			return Result{}, err
		}
		l.progress.step(line)
	}
}

// advance moves to the next step.
func (l *loop) advance() {
	l.at.Step, l.unsaved = l.at.Step+1, true
	l.at.Epoch, l.at.Batch, _ = l.plan.at(l.at.Step)
}

// stopped says where the training stopped and what is left of it.
func (l *loop) stopped(what string, err error) error {
	err = fmt.Errorf("%s step %d of %d: %w", what, l.at.Step, l.plan.total, err)
	if !errors.Is(err, ErrDiverged) {
		return err
	}
	// The checkpoint of this very step, if there is one, holds the parameters that gave the NaN.
	if good := l.folder.lastBefore(l.at.Step); good != "" {
		return fmt.Errorf("%w; the last good checkpoint is %s; a lower lr or a clip may help", err, good)
	}
	return fmt.Errorf("%w; there is no earlier checkpoint; a lower lr or a clip may help", err)
}

func (l *loop) evaluationDue() bool {
	step, every := l.at.Step, l.Config.EvalEvery
	if l.HeldOut == nil || l.at.Last != nil && l.at.Last.Step == step {
		return false
	}
	return step == 0 || step == l.plan.total || every > 0 && step%every == 0
}

// evaluate measures the loss on the held-out data and keeps the best adapter. Interrupted, it returns nil and leaves everything as it was.
func (l *loop) evaluate(ctx context.Context) error {
	began := time.Now()
	var sum float64
	var labelled int
	for i := range l.HeldOut.Batches() {
		if ctx.Err() != nil {
			return nil
		}
		l.progress.Status(fmt.Sprintf("held-out data: batch %d/%d", i+1, l.HeldOut.Batches()))
		tokens, targets, lengths, err := l.HeldOut.Batch(0, i)
		if err != nil {
			return err
		}
		s, n, err := l.engine.Loss(tokens, targets, lengths)
		if err != nil {
			return err
		}
		sum, labelled = sum+s, labelled+n
	}
	if labelled == 0 {
		return errors.New("no token of the held-out data carries a label")
	}
	e := &Evaluation{Step: l.at.Step, Loss: sum / float64(labelled)}
	if !finite(e.Loss) {
		return fmt.Errorf("%w: the held-out loss is %v", ErrDiverged, e.Loss)
	}
	l.at.Last, l.unsaved = e, true
	if e.Step == 0 {
		l.at.Before = e
	}
	best := e.Step > 0 && (l.at.Best == nil || e.Loss < l.at.Best.Loss)
	if best {
		l.at.Best = e
		if err := l.saveAdapter(l.folder.join(BestFile)); err != nil {
			return err
		}
	}
	if err := l.metrics.write(evalLine{Step: e.Step, EvalLoss: e.Loss, Labelled: labelled, Seconds: time.Since(began).Seconds()}); err != nil {
		return err
	}
	mark := ""
	if best {
		mark = "  best so far"
	}
	l.progress.Note("step %d/%d  held-out loss %.4f%s", e.Step, l.plan.total, e.Loss, mark)
	return nil
}

func (l *loop) saveDue(interrupted bool) bool {
	step, every := l.at.Step, l.Config.SaveEvery
	return l.unsaved && (interrupted || step == l.plan.total || every > 0 && step > 0 && step%every == 0)
}

// save writes a checkpoint, after the lines of metrics.jsonl that belong before it.
func (l *loop) save() error {
	if err := l.metrics.file.Sync(); err != nil {
		return err
	}
	s := &state{position: l.at, params: l.params, m: l.optimizer.M, v: l.optimizer.V}
	if err := l.folder.saveCheckpoint(s, l.saveAdapter, l.Config.Keep); err != nil {
		return err
	}
	l.unsaved = false
	l.draw()
	return nil
}

// draw brings the chart up to date. A training is worth more than its picture, so that a failure is told and no more.
func (l *loop) draw() {
	if err := drawChart(l.folder.join(MetricsFile), l.folder.join(ChartFile)); err != nil {
		l.progress.Note("warning: %v", err)
	}
}

func (l *loop) finish() (Result, error) {
	r := Result{
		Steps: l.at.Step, Loss: l.progress.loss.mean(), Before: l.at.Before, After: l.at.Last, Best: l.at.Best,
		Adapter: l.folder.join(AdapterFile), OldRun: l.oldRun,
	}
	if l.at.Best != nil {
		r.BestAdapter = l.folder.join(BestFile)
	}
	if err := l.saveAdapter(r.Adapter); err != nil {
		return Result{}, err
	}
	l.draw()
	return r, syncFolder(l.folder.path)
}

// saveAdapter writes the parameters as they are now, with the facts of the training so far.
func (l *loop) saveAdapter(path string) error {
	facts := maps.Clone(l.Facts)
	if facts == nil {
		facts = map[string]string{}
	}
	facts["steps"] = strconv.Itoa(l.at.Step)
	facts["epochs"] = strconv.FormatFloat(l.plan.epochs(l.at.Step), 'g', 6, 64)
	facts["data_sha256"] = l.settings.Data.Training
	for name, e := range map[string]*Evaluation{"eval_loss_before": l.at.Before, "eval_loss": l.at.Last, "best_eval_loss": l.at.Best} {
		// The newest evaluation can be of an earlier step, whose loss isn't this adapter's.
		if e != nil && (name != "eval_loss" || e.Step == l.at.Step) {
			facts[name] = strconv.FormatFloat(e.Loss, 'g', -1, 64)
		}
	}
	return l.SaveAdapter(path, facts)
}
