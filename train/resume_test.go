package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Interrupted in any step and resumed, a run leaves the same bytes as one that was not.
func TestInterruptAndResume(t *testing.T) {
	want := uninterrupted(t)
	for step := 1; step < steps; step++ {
		folder := filepath.Join(t.TempDir(), "run")
		r, engine := newRun(folder)
		_, err := r.Train(interruptedIn(step, engine))
		if !errors.Is(err, ErrInterrupted) || !strings.Contains(err.Error(), fmt.Sprintf("step-%d", step)) {
			t.Fatalf("interrupted in step %d: %v", step, err)
		}
		if kept, _ := openedAt(folder).checkpoints(); len(kept) == 0 || kept[0] != step {
			t.Fatalf("interrupted in step %d: checkpoints of %v", step, kept)
		}
		left, err := os.ReadFile(filepath.Join(folder, AdapterFile))
		if facts := string(left); err != nil || !strings.Contains(facts, fmt.Sprintf("\nsteps = %d\n", step)) ||
			!strings.Contains(facts, factInterrupted) {
			t.Fatalf("interrupted in step %d, it left the adapter %q, %v", step, facts, err)
		}
		resume(t, folder)
		checkEqual(t, finished(t, folder), want)
	}
}

// Interrupted again and again, at every step and before the first, also within evaluations.
func TestInterruptEveryStep(t *testing.T) {
	want := uninterrupted(t)
	folder := filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, _ := newRun(folder)
	if _, err := r.Train(ctx); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	for {
		r, engine := newRun(folder)
		r.Resume = true
		ctx, cancel := context.WithCancel(context.Background())
		engine.hook = func(int) error { cancel(); return nil }
		_, err := r.Train(ctx)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
	}
	checkEqual(t, finished(t, folder), want)
}

// An error in any step leaves the folder as a killed process would: without a checkpoint of the moment.
func TestDeathInAnyStep(t *testing.T) {
	want := uninterrupted(t)
	for call := 1; call <= steps; call++ {
		folder := filepath.Join(t.TempDir(), "run")
		r, engine := newRun(folder)
		engine.hook = func(n int) error {
			if n == call {
				return errKilled
			}
			return nil
		}
		if _, err := r.Train(context.Background()); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		// What a kill in the middle of a line and of a checkpoint leaves.
		file, err := os.OpenFile(filepath.Join(folder, MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		file.WriteString(`{"step":99,"lo`)
		file.Close()
		draft := filepath.Join(folder, checkpointFolder, unfinished+"step-99")
		if err := errors.Join(os.MkdirAll(draft, 0o777), os.WriteFile(filepath.Join(draft, stateFile), []byte("half"),
			0o666)); err != nil {
			t.Fatal(err)
		}
		resume(t, folder)
		checkEqual(t, finished(t, folder), want)
		if exists(draft) {
			t.Error("the unfinished checkpoint is still there")
		}
	}
}

// Death while an adapter is written, whichever one it is.
func TestDeathInAnySave(t *testing.T) {
	want := uninterrupted(t)
	for save := 1; ; save++ {
		folder := filepath.Join(t.TempDir(), "run")
		r, _ := newRun(folder)
		whole, n := r.SaveAdapter, 0
		r.SaveAdapter = func(path string, facts map[string]string) error {
			if n++; n == save {
				return errors.Join(errKilled, os.WriteFile(path+"-half", nil, 0o666))
			}
			return whole(path, facts)
		}
		if _, err := r.Train(context.Background()); err == nil {
			if save < 5 {
				t.Fatalf("only %d adapters were saved", save-1)
			}
			return
		} else if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		resume(t, folder)
		checkEqual(t, finished(t, folder), want)
	}
}

// A real process, killed by SIGKILL at random moments of the quarter of a second that it needs, and then left to
// finish.
func TestSIGKILL(t *testing.T) {
	const folderVariable = "VERATUNE_TEST_RUN"
	if folder := os.Getenv(folderVariable); folder != "" {
		r, engine := newRun(folder)
		r.Resume = Begun(folder)
		engine.hook = func(int) error { time.Sleep(10 * time.Millisecond); return nil }
		if _, err := r.Train(context.Background()); err != nil {
			t.Fatal(err)
		}
		return
	}
	want := uninterrupted(t)
	folder := filepath.Join(t.TempDir(), "run")
	random := rand.New(rand.NewPCG(1, 2))
	for kills := 5; ; kills-- {
		command := exec.Command(os.Args[0], "-test.run=^TestSIGKILL$")
		command.Env = append(os.Environ(), folderVariable+"="+folder)
		var out bytes.Buffer
		command.Stdout, command.Stderr = &out, &out
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		if kills > 0 {
			time.Sleep(time.Duration(20+random.IntN(130)) * time.Millisecond)
			command.Process.Kill()
		}
		if err := command.Wait(); err == nil {
			break
		}
		exited := command.ProcessState.Exited() // Windows says so of who was killed, too
		if exited && (runtime.GOOS != "windows" || strings.Contains(out.String(), "FAIL")) {
			t.Fatalf("the run failed by itself: %s", out.String())
		}
	}
	checkEqual(t, finished(t, folder), want)
}

func TestDamagedCheckpointIsSkipped(t *testing.T) {
	want := uninterrupted(t)
	for name, damage := range map[string]func(checkpoint string) error{
		"state cut":     func(c string) error { return os.Truncate(filepath.Join(c, stateFile), 100) },
		"state missing": func(c string) error { return os.Remove(filepath.Join(c, stateFile)) },
		"adapter changed": func(c string) error {
			return os.WriteFile(filepath.Join(c, AdapterFile), []byte("x"), 0o666)
		},
		"adapter missing": func(c string) error { return os.Remove(filepath.Join(c, AdapterFile)) },
		"other step": func(c string) error {
			return errors.Join(os.RemoveAll(c), os.CopyFS(c, os.DirFS(filepath.Join(filepath.Dir(c), "step-9"))))
		},
	} {
		folder := filepath.Join(t.TempDir(), "run")
		r, _ := newRun(folder)
		if _, err := r.Train(context.Background()); err != nil {
			t.Fatal(err)
		}
		newest := openedAt(folder).checkpoint(steps)
		if err := damage(newest); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		r, engine := newRun(folder)
		r.Resume, r.Progress = true, &out
		if _, err := r.Train(context.Background()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !strings.Contains(out.String(), newest+" is damaged") ||
			!strings.Contains(out.String(), "going on after step 9 of 12") {
			t.Errorf("%s: %s", name, out.String())
		}
		if engine.calls != 3 { // steps 10 to 12
			t.Errorf("%s: %d steps computed, want 3", name, engine.calls)
		}
		if !exists(filepath.Join(folder, checkpointFolder, "damaged-step-12-1")) {
			t.Errorf("%s: the damaged checkpoint is gone", name)
		}
		checkEqual(t, finished(t, folder), want)
	}
}

func TestResumeOfACompleteRunChangesNothing(t *testing.T) {
	want := uninterrupted(t)
	folder := filepath.Join(t.TempDir(), "run")
	r, _ := newRun(folder)
	first, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	again := resume(t, folder)
	if *again.After != *first.After || *again.Best != *first.Best || again.Loss != first.Loss {
		t.Errorf("%+v and then %+v", first, again)
	}
	checkEqual(t, finished(t, folder), want)
}

func TestResumeWithOtherSettings(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, engine := newRun(folder)
	engine.hook = func(n int) error {
		if n == 10 {
			return errKilled
		}
		return nil
	}
	if _, err := r.Train(context.Background()); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Run)
		want   string
	}{
		"lr":     {func(r *Run) { r.Config.LR = 0.1 }, "lr was 0.3 and is 0.1"},
		"seed":   {func(r *Run) { r.Config.Seed = 8 }, "seed was 7 and is 8"},
		"epochs": {func(r *Run) { r.Config.Epochs = 3 }, "epochs was 2 and is 3"},
		"data": {func(r *Run) { r.Training = fakeSource{samples: 32, batch: 3, seed: 2} },
			"the rows to train on have changed"},
		"held out": {func(r *Run) { r.HeldOut, r.Samples = nil, nil }, "the held-out rows have changed"},
		"rank": {func(r *Run) { r.Setup.(map[string]any)["vera"].(map[string]any)["rank"] = 64 },
			"vera.rank was 256 and is 64"},
		"64 bits": {func(r *Run) { r.Setup.(map[string]any)["vera"].(map[string]any)["seed"] = uint64(1<<64 - 2) },
			"vera.seed was 18446744073709551615 and is 18446744073709551614"},
		"absent": {func(r *Run) { delete(r.Setup.(map[string]any), "model") }, `model was "abc" and is absent`},
	} {
		r, engine := newRun(folder)
		r.Resume = true
		c.change(r)
		if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if engine.calls > 0 {
			t.Errorf("%s: something was computed", name)
		}
	}
	r, _ = newRun(folder)
	r.Resume, r.About = true, "a newer version"
	r.Config.EvalEvery, r.Config.SaveEvery, r.Config.Keep = Interval{Steps: 5}, 2, 3
	if _, err := r.Train(context.Background()); err != nil {
		t.Errorf("how often is saved may change: %v", err)
	}
}

// A run that is resumed for longer than it was begun for says with which adapter, and for how many steps, another would
// go on.
func TestResumeForLonger(t *testing.T) {
	for name, c := range map[string]struct {
		halt    int // 0 for a run that is complete
		change  func(*Config)
		steps   int // 0 where there is no way on
		adapter string
		says    string
	}{
		"epochs":           {0, func(c *Config) { c.Epochs = 3 }, 6, AdapterFile, "epochs was 2 and is 3"},
		"part of an epoch": {0, func(c *Config) { c.Epochs = 2.5 }, 3, AdapterFile, "epochs was 2 and is 2.5"},
		"steps":            {0, func(c *Config) { c.Steps = 20 }, 8, AdapterFile, "steps was 0 and is 20"},
		"halted":           {5, func(c *Config) { c.Steps = 20 }, 15, AdapterFile, "after step 5"},
		"less":             {0, func(c *Config) { c.Epochs = 1 }, 0, "", "--max-steps"},
		"more, and else":   {0, func(c *Config) { c.Epochs, c.LR = 3, 0.1 }, 0, "", "lr was 0.3 and is 0.1"},
		"interrupted": {-5, func(c *Config) {
			c.Epochs = 3
		}, 13, filepath.Join(checkpointFolder, "step-5", AdapterFile), "after step 5"},
	} {
		folder := filepath.Join(t.TempDir(), "run")
		r, engine := newRun(folder)
		ctx := context.Background()
		if r.MaxSteps = max(0, c.halt); c.halt < 0 {
			ctx = interruptedIn(-c.halt, engine)
		}
		if _, err := r.Train(ctx); (err != nil) != (c.halt < 0) {
			t.Fatal(err)
		}
		r, _ = newRun(folder)
		r.Resume = true
		c.change(&r.Config)
		_, err := r.Train(context.Background())
		var on Longer
		if err == nil || !strings.Contains(err.Error(), c.says) || errors.As(err, &on) != (c.steps > 0) {
			t.Errorf("%s: %v", name, err)
		}
		if c.steps > 0 && (on.Steps != c.steps || on.Adapter != filepath.Join(folder, c.adapter)) {
			t.Errorf("%s: %d steps from %s", name, on.Steps, on.Adapter)
		}
	}
}

// A config.json that another program has written again, with the same values, is the same.
func TestRewrittenSettings(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, engine := newRun(folder)
	r.Setup.(map[string]any)["layers"] = []int{0, 10}
	r.Setup.(map[string]any)["none"] = nil
	if _, err := r.Train(interruptedIn(2, engine)); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	path := filepath.Join(folder, ConfigFile)
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var ordered map[string]any
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	if err := decoder.Decode(&ordered); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.Marshal(ordered)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		same bool
	}{
		"as it was":         {string(config), true},
		"sorted and packed": {string(sorted), true},
		"a byte-order mark": {"\ufeff" + string(config), true},
		"eps 1e-08":         {strings.Replace(string(config), "1e-8", "1e-08", 1), true},
		"eps 0.00000001":    {strings.Replace(string(config), "1e-8", "0.00000001", 1), true},
		"eps 1.0E-8":        {strings.Replace(string(config), "1e-8", "1.0E-8", 1), true},
		"epochs 2.0":        {strings.Replace(string(config), `"epochs": 2`, `"epochs": 2.0`, 1), true},
		"lr 3e-1":           {strings.Replace(string(config), `"lr": 0.3`, `"lr": 3e-1`, 1), true},
		"lr of 17 digits":   {strings.Replace(string(config), `"lr": 0.3`, `"lr": 0.29999999999999999`, 1), true},
		"layers as floats":  {strings.Replace(string(sorted), `[0,10]`, `[0.0,1e1]`, 1), true},
		"64 bits": {strings.Replace(string(config), "18446744073709551615", "18446744073709551615.0", 1),
			true},
		"64 bits, another": {strings.Replace(string(config), "18446744073709551615", "18446744073709551614", 1),
			false},
		"eps 1e-9":           {strings.Replace(string(config), "1e-8", "1e-09", 1), false},
		"eps as text":        {strings.Replace(string(config), "1e-8", `"1e-08"`, 1), false},
		"layers in disorder": {strings.Replace(string(sorted), `[0,10]`, `[10,0]`, 1), false},
		"huge":               {strings.Replace(string(config), "1e-8", "1e999999999", 1), false},
		"null is not absent": {strings.Replace(string(sorted), `,"none":null`, ``, 1), false},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o666); err != nil {
			t.Fatal(err)
		}
		if (c.text == string(config)) != (name == "as it was") {
			t.Fatalf("%s: nothing was replaced", name)
		}
		if err := r.settings().checkSame(path); (err == nil) != c.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyOneProcessTrainsInAFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, engine := newRun(folder)
	tried := false
	engine.hook = func(n int) error {
		if n != 8 {
			return nil
		}
		tried = true
		for _, force := range []bool{false, true} {
			second, _ := newRun(folder)
			second.Resume, second.Force = !force, force
			if _, err := second.Train(context.Background()); err == nil ||
				!strings.Contains(err.Error(), fmt.Sprintf("process %d is training", os.Getpid())) {
				t.Errorf("force %v: got %v", force, err)
			}
		}
		return nil
	}
	if _, err := r.Train(context.Background()); err != nil || !tried {
		t.Fatal(err)
	}
}

func TestSeedsAreThoseOfTheUninterruptedRun(t *testing.T) {
	r, engine := newRun(filepath.Join(t.TempDir(), "whole"))
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "run")
	r, first := newRun(folder)
	ctx, cancel := context.WithCancel(context.Background())
	first.hook = func(n int) error {
		if n == 9 {
			cancel()
		}
		return nil
	}
	if _, err := r.Train(ctx); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	r, second := newRun(folder)
	r.Resume = true
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(append(first.seeds, second.seeds...), engine.seeds) {
		t.Error("the seeds of the micro-batches differ")
	}
}
