package train

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/durable"
)

func TestExistingRunIsRefused(t *testing.T) {
	for _, name := range ownFiles {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, name), []byte("mine"), 0o666); err != nil {
			t.Fatal(err)
		}
		r, engine := newRun(folder)
		if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), "holds "+name) {
			t.Errorf("%s: got %v", name, err)
		}
		if data, _ := os.ReadFile(filepath.Join(folder, name)); string(data) != "mine" || engine.calls > 0 {
			t.Errorf("%s was touched", name)
		}
	}
}

func TestRunIsNotReplaced(t *testing.T) {
	folder := wholeRun(t)
	want := finished(t, folder)
	r, engine := newRun(folder)
	if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), "already holds a run") ||
		engine.calls > 0 {
		t.Errorf("got %v", err)
	}
	checkEqual(t, finished(t, folder), want)
}

func TestForceKeepsTheOldRun(t *testing.T) {
	parent := t.TempDir()
	folder := filepath.Join(parent, "run")
	for i := range 3 {
		r, _ := newRun(folder)
		r.Force = true
		r.Config.LR = 0.1 * float64(i+1)
		result, err := r.Train(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if (result.OldRun != "") != (i > 0) {
			t.Errorf("run %d moved the old one to %q", i, result.OldRun)
		}
	}
	for name, lr := range map[string]string{"run.old-1": `"lr": 0.1,`, "run.old-2": `"lr": 0.2,`, "run": `"lr": 0.30`} {
		data, err := os.ReadFile(filepath.Join(parent, name, ConfigFile))
		if err != nil || !strings.Contains(string(data), lr) || !exists(filepath.Join(parent, name, AdapterFile)) {
			t.Errorf("%s: %v\n%s", name, err, data)
		}
	}

	r, _ := newRun(folder)
	r.Force, r.Config.Epochs = true, 0
	if _, err := r.Train(context.Background()); err == nil || exists(filepath.Join(parent, "run.old-3")) {
		t.Errorf("a run that isn't valid moved the old one away: %v", err)
	}
}

func TestOtherFilesInTheFolderStay(t *testing.T) {
	folder := t.TempDir()
	note := filepath.Join(folder, "note.txt")
	if err := os.WriteFile(note, []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	r, _ := newRun(folder)
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(note); string(data) != "mine" {
		t.Error("the file is gone")
	}
}

// A link to a run folder stays one: what it leads to is renamed.
func TestForceFollowsLinks(t *testing.T) {
	folder, link := wholeRun(t), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	r, _ := newRun(link)
	r.Force = true
	result, err := r.Train(context.Background())
	if err != nil || filepath.Dir(result.OldRun) != filepath.Dir(folder) {
		t.Errorf("moved to %s, %v", result.OldRun, err)
	}
	if to, err := os.Readlink(link); err != nil || to != folder {
		t.Errorf("the link leads to %s, %v", to, err)
	}
	checkEqual(t, finished(t, link), finished(t, result.OldRun))
}

// Runs that a folder holds already are none of a new sweep.
func TestSweepLeavesRunsAlone(t *testing.T) {
	folder := t.TempDir()
	r, _ := newRun(filepath.Join(folder, sweepRuns, "1"))
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := newSweep(folder, nil, "0.1", "0.3").Run(context.Background()); err == nil ||
		!strings.Contains(err.Error(), "holds runs") {
		t.Errorf("got %v", err)
	}
}

func TestCheckFolder(t *testing.T) {
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	nothing := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nothing", nothing); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path          string
		resume, force bool
		want          string
	}{
		"to nothing":  {nothing, false, false, "leads to nothing"},
		"below it":    {filepath.Join(nothing, "run"), false, false, "leads to nothing"},
		"new":         {filepath.Join(parent, "a", "b"), false, false, ""},
		"force":       {filepath.Join(parent, "a", "b"), false, true, ""},
		"no name":     {"", false, false, "want a name"},
		"a file":      {file, false, false, "is a file"},
		"in a file":   {filepath.Join(file, "run"), false, false, "is a file"},
		"both":        {parent, true, true, "give one of them"},
		"nothing yet": {filepath.Join(parent, "a"), true, false, "no run to resume"},
		"unwritable":  {"/proc/veratune", false, false, "cannot be written"},
	} {
		err := CheckFolder(c.path, c.resume, c.force)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 1 {
		t.Errorf("something was left behind: %v", entries)
	}
}

// Only a folder that a run or sweep has made is renamed, and none that one stands in or reads from.
func TestWhatForceRenames(t *testing.T) {
	run := `{"train": {}, "data": {}, "setup": null, "about": null}`
	for name, c := range map[string]struct {
		files map[string]string
		cwd   string // the current folder, in the parent of the run folder
		input string // likewise
		says  string
	}{
		"a run":   {map[string]string{ConfigFile: run, "note.txt": ""}, "", "model.gguf", ""},
		"a sweep": {map[string]string{SweepFile: `{"setup": {}, "trials": []}`}, "", "model.gguf", ""},
		"another's config": {map[string]string{ConfigFile: `{"architectures": ["LlamaForCausalLM"]}`,
			"model.gguf": ""}, "", "", "holds config.json, a name that runs use, and is no run folder"},
		"a damaged config": {map[string]string{ConfigFile: `{"train":`}, "", "", "is no run folder"},
		"an adapter":       {map[string]string{AdapterFile: "x"}, "", "", "holds adapter.gguf"},
		"checkpoints":      {map[string]string{checkpointFolder + "/x": "x"}, "", "", "holds checkpoints"},
		"a sweep's name":   {map[string]string{SweepFile: `[]`}, "", "", "holds sweep.json"},
		"here":             {map[string]string{ConfigFile: run}, "run", "", "is where you are, or holds"},
		"below": {map[string]string{ConfigFile: run, "a/b/c": ""}, "run/a/b", "",
			"is where you are, or holds"},
		"an input": {map[string]string{ConfigFile: run, "model.gguf": ""}, "", "run/model.gguf",
			"which this command reads"},
		"an input below": {map[string]string{ConfigFile: run, "a/data.json": ""}, "", "run/a/data.json",
			"which this command reads"},
		"an input by its link": {map[string]string{ConfigFile: run, "model.gguf": ""}, "", "link.gguf",
			"which this command reads"},
		"an input that is not": {map[string]string{ConfigFile: run}, "", "run/nothing", ""},
	} {
		parent := t.TempDir()
		folder := filepath.Join(parent, "run")
		for file, content := range c.files {
			path := filepath.Join(folder, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777),
				os.WriteFile(path, []byte(content), 0o666)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("run/model.gguf", filepath.Join(parent, "link.gguf")); err != nil {
			t.Fatal(err)
		}
		t.Chdir(filepath.Join(parent, c.cwd))
		r, engine := newRun(folder)
		r.Force = true
		if c.input != "" {
			r.Inputs = []string{filepath.Join(parent, c.input)}
		}
		_, err := r.Train(context.Background())
		if c.says == "" {
			if err != nil || !exists(filepath.Join(parent, "run.old-1")) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || engine.calls > 0 ||
			exists(filepath.Join(parent, "run.old-1")) {
			t.Errorf("%s: %v", name, err)
		}
		for file, content := range c.files {
			if got, err := os.ReadFile(filepath.Join(folder, file)); err != nil || string(got) != content {
				t.Errorf("%s: %s is %q now, %v", name, file, got, err)
			}
		}
	}
}

// A folder that is taken away while a run or a sweep trains in it ends that with an error, and nothing is made in its
// place.
func TestFolderThatIsTakenAway(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows takes no folder away in which a file is open")
	}
	take := map[string]func(folder string) error{
		"removed": os.RemoveAll,
		"renamed": func(folder string) error { return os.Rename(folder, folder+"-mine") },
		"replaced": func(folder string) error {
			return errors.Join(os.Rename(folder, folder+"-mine"), os.Mkdir(folder, 0o777))
		},
	}
	for name, away := range take {
		for _, step := range []int{1, 5, steps} {
			folder := filepath.Join(t.TempDir(), "run")
			hook := func(call int) error {
				if call == step {
					return away(folder)
				}
				return nil
			}
			r, engine := newRun(folder)
			engine.hook = hook
			_, err := r.Train(context.Background())
			checkGone(t, name+" run", folder, err)

			folder = filepath.Join(t.TempDir(), "sweep")
			_, err = newSweep(folder, hook, "0.1", "0.3").Run(context.Background())
			checkGone(t, name+" sweep", folder, err)
		}
	}
}

func checkGone(t *testing.T, name, folder string, err error) {
	t.Helper()
	if !errors.Is(err, durable.ErrGone) || !strings.Contains(err.Error(), folder) {
		t.Errorf("%s: %v", name, err)
	}
	if entries, _ := os.ReadDir(folder); len(entries) > 0 {
		t.Errorf("%s: %v was made", name, entries)
	}
}

func TestFolderThatMayNotBeWritten(t *testing.T) {
	if os.Geteuid() <= 0 {
		t.Skip("root may write everywhere, and modes are for Unix")
	}
	parent := t.TempDir()
	if err := os.Chmod(parent, 0o555); err != nil {
		t.Fatal(err)
	}
	r, engine := newRun(filepath.Join(parent, "run"))
	if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), "cannot be written") ||
		engine.calls > 0 {
		t.Errorf("got %v", err)
	}
}
