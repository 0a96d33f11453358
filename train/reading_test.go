package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFolder reads the files of a run and of a sweep as they may have been changed or damaged.
func FuzzFolder(f *testing.F) {
	r, _ := newRun("run")
	config, err := json.Marshal(r.settings())
	if err != nil {
		f.Fatal(err)
	}
	begun := &Sweeping{Setup: map[string]any{"rank": 8}, Rungs: rungs(3, false)}
	for i := range 3 {
		begun.Trials = append(begun.Trials, &Standing{Options: map[string]string{"lr": string(rune('1' + i))}})
	}
	sweep, err := json.Marshal(begun)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(config, []byte("{\"step\":1,\"loss\":2}\n{\"step\":1,\"eval_loss\":2}\n"), sweep)
	f.Add([]byte(`{"train":null}`), []byte("{\"step\":-1,\"loss\":1e999}\n"), []byte(`{"trials":[null,null,null]}`))
	f.Add([]byte(`null`), []byte("null\n"), []byte(`{"setup":{"rank":8},"rungs":[0.5,1],"trials":[{"rungs":[{}]}]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, config, metrics, sweep []byte) {
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, ConfigFile), config, 0o600),
			os.WriteFile(filepath.Join(dir, MetricsFile), metrics, 0o600),
			os.WriteFile(filepath.Join(dir, SweepFile), sweep, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = ReadRun(dir)
		_ = r.settings().checkSame(filepath.Join(dir, ConfigFile))
		at := position{Step: 1, Last: &Evaluation{Step: 1}}
		lines, _ := mend(metrics, nil, at)
		lines = append([]byte{}, lines...)
		if again, report := mend(lines, lines, at); !bytes.Equal(again, lines) || report != "" {
			t.Errorf("mended again: %q becomes %q: %s", lines, again, report)
		}
		now := *begun
		if now.recall(openedAt(dir)) == nil {
			for _, trial := range now.Trials {
				_ = trial.Name()
			}
			_ = now.Ranked()
			_ = ranked(now.Trials, 0)
		}
		for _, trial := range begun.Trials {
			trial.Before, trial.Rungs, trial.Diverged = nil, nil, false
		}
	})
}
