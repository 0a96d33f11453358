package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/vera"
)

// Report is what a run directory tells of its run, be it finished or not.
type Report struct {
	Folder   string         `json:"run"`
	Finished bool           `json:"finished"`
	Settings map[string]any `json:"settings"` // of config.json, nested keys joined by dots
	Steps    int            `json:"steps"`    // that were made
	Loss     *float64       `json:"loss"`     // training loss, smoothed as in Result; nil before the first step
	// Of the held-out data, nil where there is none: before the first step, the newest, and the lowest of all.
	Before *Evaluation `json:"before"`
	Last   *Evaluation `json:"last"`
	Best   *Evaluation `json:"best"`

	Seconds float64 `json:"seconds"`      // of all steps and evaluations
	Speed   float64 `json:"tokens_per_s"` // of the steps
	Memory  int64   `json:"memory"`       // most bytes that the process held

	// Of the run's adapter: the last, the best so far, or that of the newest checkpoint. Empty where the run has none
	// yet.
	Method  string `json:"method"`
	Trained int    `json:"trained"` // numbers
	Bytes   int64  `json:"bytes"`   // of its file

	points []Record
}

// ReadRun reads a run directory. It fails where that holds no run, or a damaged one.
func ReadRun(path string) (*Report, error) {
	r := &Report{Folder: path}
	config, err := durable.ReadFile(filepath.Join(path, ConfigFile), MaxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no run: it has no %s", path, ConfigFile)
	}
	if err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	if r.Settings, err = flatten(config); err != nil {
		return nil, fmt.Errorf("run %s: %s: %w", path, ConfigFile, err)
	}
	lines, err := durable.ReadFile(filepath.Join(path, MetricsFile), MaxMetrics)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("run: %w", err)
	}
	r.points, _ = ReadRecords(lines)
	r.measure()
	if err := r.readAdapter(); err != nil {
		return nil, fmt.Errorf("run %s: %w", path, err)
	}
	return r, nil
}

// measure sums the points up.
func (r *Report) measure() {
	var mean smooth
	var tokens, seconds float64
	for _, p := range r.points {
		r.Seconds += p.Seconds
		r.Memory = max(r.Memory, p.Memory)
		if p.Loss != nil {
			loss := mean.add(*p.Loss)
			r.Steps, r.Loss = p.Step, &loss
			tokens, seconds = tokens+float64(p.Tokens), seconds+p.Seconds
		}
		if p.EvalLoss != nil {
			r.Last = &Evaluation{Step: p.Step, Loss: *p.EvalLoss}
			if p.Step == 0 {
				r.Before = r.Last
			}
			if r.Best == nil || r.Last.Loss < r.Best.Loss {
				r.Best = r.Last
			}
		}
	}
	if seconds > 0 {
		r.Speed = tokens / seconds
	}
}

func (r *Report) readAdapter() error {
	f := folder{path: r.Folder}
	places := []string{f.join(AdapterFile), f.join(BestFile)}
	steps, err := f.checkpoints()
	if err != nil {
		return err
	}
	for _, step := range steps {
		places = append(places, filepath.Join(f.checkpoint(step), AdapterFile))
	}
	for _, place := range places {
		if !exists(place) {
			continue
		}
		s, err := vera.Summarize(place)
		if err != nil {
			return err
		}
		// A run that was halted and goes on has the adapter of where it was.
		r.Finished = place == places[0] && s.Facts["steps"] == strconv.Itoa(r.Steps) && s.Facts[factInterrupted] == ""
		r.Method, r.Trained, r.Bytes = s.Method, s.Trained, s.Bytes
		return nil
	}
	return nil
}

// Difference is a setting in which runs differ, with its value in each of them: "" where a run has none.
type Difference struct {
	Name   string
	Values []string
}

// Differences lists the settings in which the runs are not all equal, by name. Settings of one name and equal values,
// as the seeds of data and pair usually are, are given once.
func Differences(runs []*Report) []Difference {
	all := map[string]any{}
	for _, r := range runs {
		maps.Copy(all, r.Settings)
	}
	byName := map[string]Difference{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		d := Difference{Name: settingName(key)}
		for _, r := range runs {
			d.Values = append(d.Values, r.Text(key))
		}
		if len(slices.Compact(slices.Clone(d.Values))) == 1 {
			continue
		}
		if other, taken := byName[d.Name]; taken && !slices.Equal(other.Values, d.Values) {
			d.Name = key
		}
		byName[d.Name] = d
	}
	return slices.SortedFunc(maps.Values(byName), func(x, y Difference) int { return strings.Compare(x.Name, y.Name) })
}

// settingName is the word of the command line: "rank" for "setup.vera.rank". The fingerprints of the data keep theirs.
func settingName(key string) string {
	if strings.HasPrefix(key, "data.") {
		return key
	}
	return key[strings.LastIndexByte(key, '.')+1:]
}

// Text gives a setting by its key in words for people; "" where the run has none.
func (r *Report) Text(key string) string { return settingText(r.Settings[key]) }

// settingText is a value for people: lists without brackets, the beginning of a digest.
func settingText(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		if len(v) == 64 && strings.Trim(v, "0123456789abcdef") == "" {
			return v[:12]
		}
		return v
	case []any:
		words := make([]string, len(v))
		for i, item := range v {
			words[i] = settingText(item)
		}
		return strings.Join(words, " ")
	case json.Number:
		return v.String()
	}
	return fmt.Sprint(value)
}

// PlotFormat gives the form of a picture, "svg" or "png", by the end of its file's name.
func PlotFormat(path string) (string, error) {
	switch format := strings.ToLower(strings.TrimPrefix(filepath.Ext(path), ".")); format {
	case "svg", "png":
		return format, nil
	}
	return "", fmt.Errorf("plot %s: want a name that ends in .svg or .png", path)
}

// Plot draws the losses of the runs together, in the form that the path's end names: each run's smoothed training loss,
// thin, and its held-out loss, dotted, in one colour.
func Plot(path string, runs []*Report) ([]byte, error) {
	format, err := PlotFormat(path)
	if err != nil {
		return nil, err
	}
	picture := newChart()
	for i, r := range runs {
		var losses Losses
		for _, p := range r.points {
			losses.Add(p)
		}
		c := plotutil.DarkColors[i%len(plotutil.DarkColors)]
		err = errors.Join(err, draw(picture, r.Folder+", training", losses.Smoothed, c, vg.Points(0.7), false),
			draw(picture, r.Folder+", held out", losses.HeldOut, c, vg.Points(1.6), true))
	}
	if err != nil {
		return nil, err
	}
	return encode(picture, format)
}
