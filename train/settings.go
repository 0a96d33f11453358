package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"

	"github.com/veratune/veratune/internal/durable"
)

// settings is the content of config.json.
type settings struct {
	Train Config       `json:"train"`
	Data  fingerprints `json:"data"`
	Setup any          `json:"setup"`
	About any          `json:"about"`
}

type fingerprints struct {
	Training string `json:"training"`
	HeldOut  string `json:"held_out"` // "" without held-out data
}

func (r *Run) settings() settings {
	s := settings{Train: r.Config, Data: fingerprints{Training: r.Training.Fingerprint()}, Setup: r.Setup,
		About: r.About}
	if r.HeldOut != nil {
		s.Data.HeldOut = r.HeldOut.Fingerprint()
	}
	return s
}

func (s settings) write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := durable.WriteFile(path, append(data, '\n'), 0o666); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// checkSame fails where the run in path was started with other settings than s, naming all that differ. How often is
// evaluated and saved, when the run ends early, and what is only told about it, may change.
func (s settings) checkSame(path string) error {
	data, err := durable.ReadFile(path, MaxConfig)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	now, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	differences, err := differences(data, now)
	if err != nil {
		return fmt.Errorf("resume: %s: %w", path, err)
	}
	if len(differences) == 0 {
		return nil
	}
	if !slices.ContainsFunc(differences, func(d difference) bool {
		return d.key != "train.steps" && d.key != "train.epochs"
	}) {
		return otherLength{fmt.Errorf(
			"resume: %s, and its learning rate goes by that; resume it with what it was started with",
			words(differences))}
	}
	return fmt.Errorf("resume: the run was started otherwise: %s; resume it with what it was started with, or train "+
		"into another folder", words(differences))
}

// otherLength is the error of a run that is resumed with another number of steps or epochs, and nothing else.
type otherLength struct{ error }

// difference is a setting that differs.
type difference struct{ key, text string }

// words names all differences.
func words(list []difference) string {
	var texts []string
	for _, d := range list {
		texts = append(texts, d.text)
	}
	return strings.Join(texts, "; ")
}

// differences says what two JSON objects do not have in common, but for what a run may change when it is resumed.
func differences(before, now []byte) ([]difference, error) {
	was, err := flatten(before)
	if err != nil {
		return nil, err
	}
	is, err := flatten(now)
	if err != nil {
		return nil, err
	}
	both := maps.Clone(was)
	maps.Copy(both, is)
	var list []difference
	for _, key := range slices.Sorted(maps.Keys(both)) {
		if !mayDiffer(key) && !sameSetting(was, is, key) {
			text := digests[key]
			if name := strings.TrimPrefix(strings.TrimPrefix(key, "train."), "setup."); text == "" {
				text = fmt.Sprintf("%s was %s and is %s", name, show(was, key), show(is, key))
			}
			list = append(list, difference{key, text})
		}
	}
	return list, nil
}

// digests explains settings that are digests, which tell people nothing.
var digests = map[string]string{
	"data.training": "the rows to train on have changed, or their order",
	"data.held_out": "the held-out rows have changed",
	"setup.base":    "the model is another", "setup.from": "the adapter to begin with is another",
}

func mayDiffer(key string) bool {
	return slices.Contains([]string{"train.eval_every", "train.patience", "train.save_every", "train.keep", "about"},
		key) || strings.HasPrefix(key, "about.")
}

// flatten turns nested JSON objects into one map with dotted keys.
func flatten(data []byte) (map[string]any, error) {
	// the mark that some editors begin files with
	decoder := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	// a seed of 64 bits does not fit a float64
	decoder.UseNumber()
	var tree map[string]any
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	if tree == nil {
		return nil, errors.New("want a JSON object")
	}
	flat := map[string]any{}
	var walk func(prefix string, value any)
	walk = func(prefix string, value any) {
		object, ok := value.(map[string]any)
		if !ok {
			flat[prefix] = value
			return
		}
		for key, inner := range object {
			walk(prefix+"."+key, inner)
		}
	}
	for key, value := range tree {
		walk(key, value)
	}
	return flat, nil
}

// sameSetting tells whether a setting has the same value in both, however another program has written it.
func sameSetting(was, is map[string]any, key string) bool {
	before, had := was[key]
	now, has := is[key]
	return had == has && reflect.DeepEqual(canonical(before), canonical(now))
}

// canonical gives a value with its numbers in a form that is the same for the same number: 1e-8 and 0.00000001, 4 and
// 4.0.
func canonical(value any) any {
	switch v := value.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = canonical(v[i])
		}
		return list
	case json.Number:
		// A whole number may have 64 bits, more than a float64 holds.
		if f, _, err := big.ParseFloat(v.String(), 10, 128, big.ToNearestEven); err == nil && f.IsInt() &&
			f.MantExp(nil) <= 64 {
			n, _ := f.Int(nil)
			return n.String()
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
	}
	return value
}

func show(values map[string]any, key string) string {
	value, ok := values[key]
	if !ok {
		return "absent"
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(data)
}
