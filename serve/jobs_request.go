package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/veratune/veratune/finetune"
	"github.com/veratune/veratune/vera"
)

// jobRequest is what a client asks a job with. Other fields are ignored.
type jobRequest struct {
	Model           string                  `json:"model"`
	TrainingFile    string                  `json:"training_file"`
	ValidationFile  string                  `json:"validation_file"`
	Suffix          string                  `json:"suffix"`
	Seed            *int64                  `json:"seed"`
	Metadata        map[string]string       `json:"metadata"`
	Integrations    []json.RawMessage       `json:"integrations"`
	Hyperparameters strict[hyperparameters] `json:"hyperparameters"` // OpenAI's older place for them
	Method          *struct {
		Type       string `json:"type"`
		Supervised struct {
			Hyperparameters strict[hyperparameters] `json:"hyperparameters"`
		} `json:"supervised"`
	} `json:"method"`
}

// hyperparameters are OpenAI's, then those that only veratune has.
type hyperparameters struct {
	Epochs         choice `json:"n_epochs"`
	Batch          choice `json:"batch_size"` // rows of a step
	RateMultiplier choice `json:"learning_rate_multiplier"`

	Method       string `json:"method,omitempty"` // vera or lora
	Rank         int    `json:"rank,omitempty"`
	LearningRate choice `json:"learning_rate"`
	MaxLength    int    `json:"max_length,omitempty"` // tokens of a row
	Patience     int    `json:"patience,omitempty"`   // measurements without a new lowest loss that end the training
	EvalEvery    string `json:"eval_every,omitempty"` // between them: steps, or a part of an epoch such as 0.5epoch
}

// strict is an object without unknown fields: a misspelt one would be missed after hours.
type strict[T any] struct{ value T }

// UnmarshalJSON refuses fields that T doesn't have.
func (s *strict[T]) UnmarshalJSON(data []byte) error {
	if err := parseJSON(data, &s.value); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(new(T)); err != nil {
		return invalid("hyperparameters", "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// choice is a number, or 0 for "auto".
type choice float64

const auto = `"auto"`

// UnmarshalJSON reads a positive number, or "auto".
func (c *choice) UnmarshalJSON(data []byte) error {
	if string(data) == auto || string(data) == "null" {
		*c = 0
		return nil
	}
	v, err := strconv.ParseFloat(string(data), 64)
	if err != nil || !(v > 0) || math.IsInf(v, 0) {
		return invalid("hyperparameters", "%.40s: want a number above 0, or %s", data, auto)
	}
	*c = choice(v)
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (c choice) MarshalJSON() ([]byte, error) {
	if c == 0 {
		return []byte(auto), nil
	}
	return json.Marshal(float64(c))
}

const maxJobRequest = 1 << 20 // bytes

// parseJob reads a request and checks all that can be told without the files' content.
func (j *Jobs) parseJob(w http.ResponseWriter, r *http.Request) (*job, error) {
	var request jobRequest
	if err := readJSON(w, r, maxJobRequest, &request); err != nil {
		return nil, err
	}
	if err := j.checkRequest(request); err != nil {
		return nil, err
	}
	id := newID(jobPrefix)
	t := &job{folder: j.path(id)}
	t.jobObject = jobObject{ID: id, Object: "fine_tuning.job", CreatedAt: time.Now().Unix(), Model: request.Model,
		Status: statusValidating, TrainingFile: request.TrainingFile, ResultFiles: []string{},
		Metadata: request.Metadata, Integrations: []string{}}
	t.Base = j.options.Base
	if request.ValidationFile != "" {
		t.ValidationFile = &request.ValidationFile
	}
	if request.Suffix != "" {
		t.Suffix = &request.Suffix
	}
	if request.Seed != nil {
		t.Seed = *request.Seed
	}
	h := request.Hyperparameters.value
	if request.Method != nil && request.Method.Supervised.Hyperparameters.value != (hyperparameters{}) {
		h = request.Method.Supervised.Hyperparameters.value
	}
	if t.Model != j.options.Base {
		var err error
		if h, err = j.goingOn(t.Model, h); err != nil {
			return nil, err
		}
		t.GoesOn = true
	}
	t.choose(h.filled())
	o, err := t.training()
	if err == nil {
		err = o.Validate()
	}
	if err != nil {
		return nil, invalid("hyperparameters", "%v", err)
	}
	return t, nil
}

func (j *Jobs) checkRequest(r jobRequest) error {
	const longestSuffix = 64
	switch {
	case r.Model == "":
		return invalid("model", "is missing; want %s, or one of its adapters", j.options.Base)
	case r.TrainingFile == "":
		return invalid("training_file", "is missing; upload one with /v1/files")
	case len(r.Integrations) > 0:
		return unsupported("integrations", "there are none")
	case r.Method != nil && r.Method.Type != "supervised":
		return unsupported("method.type", "%.40q: want supervised", r.Method.Type)
	case len(r.Suffix) > longestSuffix || strings.Trim(r.Suffix, nameBytes) != "":
		return invalid("suffix", "want at most %d letters, digits, dots, dashes and underscores", longestSuffix)
	case r.Seed != nil && (*r.Seed < 0 || *r.Seed > math.MaxUint32):
		return invalid("seed", "%d: from 0 to %d", *r.Seed, uint32(math.MaxUint32))
	case len(r.Metadata) > 16:
		return invalid("metadata", "has more than 16 entries")
	}
	for param, id := range map[string]string{"training_file": r.TrainingFile, "validation_file": r.ValidationFile} {
		if id == "" {
			continue
		}
		if _, err := j.uploaded(param, id); err != nil {
			return err
		}
	}
	return nil
}

// uploaded finds the file of rows that a parameter names.
func (j *Jobs) uploaded(param, id string) (fileObject, error) {
	o, err := j.files.get(param, id)
	if err != nil {
		return o, invalid(param, "%v", err)
	}
	if o.Purpose != purposeRows {
		return o, invalid(param, "file %s is of purpose %s; want %s", id, o.Purpose, purposeRows)
	}
	return o, nil
}

// goingOn gives the hyperparameters of a job that begins with what an adapter has learnt, which has its own method and
// rank.
func (j *Jobs) goingOn(adapter string, h hyperparameters) (hyperparameters, error) {
	missing := notFound("model", codeModel,
		"there is no adapter %.80q in a file to begin with; without one, the model "+
			"is %s", adapter, j.options.Base)
	if checkName(adapter) != nil {
		return h, missing
	}
	s, err := vera.Describe(j.served(adapter))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return h, missing
	case err != nil:
		return h, invalid("model", "the file of the adapter %q is broken, or is none", adapter)
	case h.Method != "" && h.Method != s.Method || h.Rank != 0 && h.Rank != s.Rank:
		return h, invalid("hyperparameters", "method and rank are the adapter's: %s and %d", s.Method, s.Rank)
	}
	h.Method, h.Rank = s.Method, s.Rank
	return h, nil
}

// nameBytes are those that a part of a model's name may have, which is part of a file's name.
const nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// filled gives what does not depend on the rows its defaults.
func (h hyperparameters) filled() hyperparameters {
	if h.Method == "" {
		h.Method = string(vera.MethodVeRA)
	}
	recipe := finetune.Default(vera.Method(h.Method))
	if h.Rank == 0 {
		h.Rank = recipe.Adapter.Rank
	}
	if h.MaxLength == 0 {
		h.MaxLength = recipe.Rows.MaxLength
	}
	if h.EvalEvery == "" {
		h.EvalEvery = "1epoch"
	}
	return h
}

// choose sets the hyperparameters, which clients find in two places.
func (t *job) choose(h hyperparameters) {
	t.Hyperparameters, t.Method.Type, t.Method.Supervised.Hyperparameters = h, "supervised", h
}

// settle decides what was left to the number of rows: epochs that see a thousand rows, ten at most, in steps of the
// recipe's size.
func (h hyperparameters) settle(rows int) hyperparameters {
	recipe := finetune.Default(vera.Method(h.Method))
	if h.Epochs == 0 {
		const seen, most = 1000, 10
		h.Epochs = choice(max(1, min(most, math.Ceil(seen/float64(rows)))))
	}
	if h.Batch == 0 {
		h.Batch = choice(min(recipe.Rows.Batch*recipe.Train.Accumulation, rows))
	}
	if h.RateMultiplier == 0 {
		h.RateMultiplier = 1
	}
	if h.LearningRate == 0 {
		h.LearningRate = choice(recipe.Train.LR)
	}
	return h
}

// training is what is trained, in the words of package finetune.
func (t *job) training() (finetune.Options, error) {
	const someRows = 1000
	h := t.Hyperparameters.settle(someRows)
	o := finetune.Default(vera.Method(h.Method))
	o.Adapter.Rank, o.Rows.MaxLength = h.Rank, h.MaxLength
	o.Seed(uint32(t.Seed))
	batch := int(h.Batch)
	if float64(batch) != float64(h.Batch) {
		return o, fmt.Errorf("batch_size %v: want a whole number", float64(h.Batch))
	}
	o.Rows.Batch = divisor(batch, o.Rows.Batch)
	o.Train.Accumulation = batch / o.Rows.Batch
	o.Train.LR = float64(h.LearningRate * h.RateMultiplier)
	o.Train.Epochs, o.Train.Patience = float64(h.Epochs), h.Patience
	o.HeldOut = 0
	if t.ValidationFile != nil {
		o.HeldOut = 1 // of its own
	} else if h.Patience > 0 {
		return o, errors.New("patience: needs a validation_file")
	}
	return o, o.Train.EvalEvery.Set(h.EvalEvery)
}

// divisor is the largest number up to most that divides n.
func divisor(n, most int) int {
	for d := min(n, most); d > 1; d-- {
		if n%d == 0 {
			return d
		}
	}
	return 1
}
