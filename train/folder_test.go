package train

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExistingRunIsRefused(t *testing.T) {
	for _, name := range []string{AdapterFile, BestFile, ConfigFile, MetricsFile, ChartFile, checkpointFolder} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, name), []byte("mine"), 0o666); err != nil {
			t.Fatal(err)
		}
		r, engine := newRun(folder)
		if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), "already holds a run") {
			t.Errorf("%s: got %v", name, err)
		}
		if data, _ := os.ReadFile(filepath.Join(folder, name)); string(data) != "mine" || engine.calls > 0 {
			t.Errorf("%s was touched", name)
		}
	}
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

func TestCheckFolder(t *testing.T) {
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path          string
		resume, force bool
		want          string
	}{
		"new":         {filepath.Join(parent, "a", "b"), false, false, ""},
		"force":       {filepath.Join(parent, "a", "b"), false, true, ""},
		"no name":     {"", false, false, "want a name"},
		"a file":      {file, false, false, "is a file"},
		"in a file":   {filepath.Join(file, "run"), false, false, "not a directory"},
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

func TestFolderThatMayNotBeWritten(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	parent := t.TempDir()
	if err := os.Chmod(parent, 0o555); err != nil {
		t.Fatal(err)
	}
	r, engine := newRun(filepath.Join(parent, "run"))
	if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), "cannot be written") || engine.calls > 0 {
		t.Errorf("got %v", err)
	}
}
