package serve

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/train"
)

// result is what a job has made.
type result struct {
	model   string // its name
	which   string // of the run's adapters
	metrics string // id of the file
	tokens  int64
}

// publish puts the run's adapter, the best where rows were measured, into the folder of adapters, and its metrics among
// the files. Done twice, it comes to the same.
func (j *Jobs) publish(t *job) (result, error) {
	adapter, which, err := train.FindAdapter(t.path(runFolder))
	if err != nil {
		return result{}, err
	}
	done := result{model: t.fineTuned(), which: which, metrics: filePrefix + strings.TrimPrefix(t.ID, jobPrefix)}
	if err := putFile(j.served(done.model), adapter); err != nil {
		return result{}, err
	}
	records := t.records()
	for _, r := range records {
		done.tokens += int64(r.Tokens)
	}
	return done, j.keepMetrics(done.metrics, records)
}

// served is where the adapter of a model lies.
func (j *Jobs) served(model string) string {
	return filepath.Join(j.options.Adapters, inFolder(model)+adapterFile)
}

func putFile(to, from string) error {
	in, _, err := durable.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := durable.Create(to, 0o666)
	if err != nil {
		return err
	}
	defer out.Cleanup()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Commit()
}

// keepMetrics makes a file of them: a table of the steps, by the names of columns that OpenAI's have.
func (j *Jobs) keepMetrics(id string, records []train.Record) error {
	var table bytes.Buffer
	w := csv.NewWriter(&table)
	w.Write([]string{"step", "train_loss", "valid_loss", "learning_rate"})
	number := func(v *float64) string {
		if v == nil {
			return ""
		}
		return strconv.FormatFloat(*v, 'g', -1, 64)
	}
	for _, r := range byStep(records) {
		w.Write([]string{strconv.Itoa(r.Step), number(r.Loss), number(r.EvalLoss), number(r.rate)})
	}
	w.Flush()
	d, err := j.files.begin(id, "step_metrics.csv", purposeResults)
	if err != nil {
		return err
	}
	defer j.files.end(d)
	if err := errors.Join(w.Error(), j.files.fill(d, &table)); err != nil {
		return err
	}
	_, err = j.files.commit(d)
	return err
}

// stepMetrics are a step's losses, nil where they were not measured.
type stepMetrics struct {
	Step                 int
	Loss, EvalLoss, rate *float64
}

// byStep takes the records of a step together.
func byStep(records []train.Record) (list []stepMetrics) {
	for _, r := range records {
		if r.Loss == nil && r.EvalLoss == nil {
			continue
		}
		if n := len(list); n == 0 || list[n-1].Step != r.Step {
			list = append(list, stepMetrics{Step: r.Step})
		}
		last := &list[len(list)-1]
		if r.Loss != nil {
			last.Loss, last.rate = r.Loss, &r.LR
		} else {
			last.EvalLoss = r.EvalLoss
		}
	}
	return list
}

// records are the metrics of the run so far; none where there are none yet.
func (t *job) records() []train.Record {
	data, err := durable.ReadFile(filepath.Join(t.path(runFolder), train.MetricsFile), train.MaxMetrics)
	if err != nil {
		return nil
	}
	records, _ := train.ReadRecords(data)
	return records
}

// newest are the records at the end of the metrics.
func (t *job) newest() []train.Record {
	file, info, err := durable.Open(filepath.Join(t.path(runFolder), train.MetricsFile))
	if err != nil {
		return nil
	}
	defer file.Close()
	const part = 64 << 10
	from := max(0, info.Size()-part)
	data, err := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	if err != nil {
		return nil
	}
	records, _ := train.ReadRecords(data) // a line that is cut is none
	return records
}

// serveCheckpoints has the adapters of the run's checkpoints served, and no older ones. It gives those that are.
func (j *Jobs) serveCheckpoints(t *job, before []train.Checkpoint) []train.Checkpoint {
	list, err := train.Checkpoints(t.path(runFolder))
	if err != nil || equalSteps(list, before) {
		return before
	}
	for _, c := range list {
		if _, statErr := os.Stat(j.served(t.checkpointName(c.Step))); statErr != nil {
			err = errors.Join(err, putFile(j.served(t.checkpointName(c.Step)), c.Adapter))
		}
	}
	kept := map[string]bool{}
	for _, c := range list {
		kept[filepath.Base(j.served(t.checkpointName(c.Step)))] = true
	}
	entries, readErr := os.ReadDir(j.options.Adapters)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), inFolder(t.fineTuned()+checkpointMark)) && !kept[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(j.options.Adapters, e.Name())))
		}
	}
	if err = errors.Join(err, readErr); err != nil {
		j.log.Warn("a checkpoint can't be served", "job", t.ID, "error", err)
		return before // and again with the next look
	}
	return list
}

func equalSteps(a, b []train.Checkpoint) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Step != b[i].Step {
			return false
		}
	}
	return true
}

const checkpointMark = ":ckpt-step-"

// checkpointName is the name of the model after a step.
func (t *job) checkpointName(step int) string {
	return fmt.Sprintf("%s%s%d", t.fineTuned(), checkpointMark, step)
}
