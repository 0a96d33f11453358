package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// writer is a command that writes a file where it is told to.
type writer struct {
	name, end string // end of the file's name
	args      []string
	input     string // that the command reads and whose name has that end, "" for none
}

// outputs are all such commands, on files of their own.
func outputs(t *testing.T) (list []writer, owned []string, roots []string) {
	model, data, runs := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20), t.TempDir()
	run, other := filepath.Join(runs, "a"), filepath.Join(runs, "b")
	for _, out := range []string{run, other} {
		if code, _, stderr := veratune(alpacaArgs(model, data, out, "--max-steps", "1")...); code != 0 {
			t.Fatalf("exit code %d, %q", code, stderr)
		}
	}
	adapter, evaluation := filepath.Join(run, train.AdapterFile), evaluationFolder(t, true)
	lone := filepath.Join(t.TempDir(), "lone.gguf")
	peft := filepath.Join(t.TempDir(), "peft")
	export := func(to string) []string {
		return []string{"export", "--model", model, "--adapter", lone, "--threads", "1", "--to", to, "--out"}
	}
	for _, args := range [][]string{
		{"export", "--model", model, "--adapter", adapter, "--to", "vera", "--out", lone},
		{"export", "--model", model, "--adapter", adapter, "--to", "peft", "--out", peft},
	} {
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatalf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	fromPEFT := []string{"export", "--model", model, "--adapter", peft, "--to", "vera", "--out"}
	list = []writer{
		{"vera", ".gguf", export("vera"), lone},
		{"lora", ".gguf", export("lora"), model},
		{"merged", ".gguf", export("merged"), model},
		{"from PEFT", ".safetensors", fromPEFT, filepath.Join(peft, "adapter_model.safetensors")},
		{"modelfile", ".Modelfile", export("lora"), ""},
		{"watch", ".html", []string{"watch", run, "--html"}, ""},
		{"mtbench show", ".html", []string{"mtbench", "show", "--out", evaluation, "--html"}, ""},
		{"data show", ".html", []string{"data", "show", data, "--model", model, "--html"}, ""},
		{"data convert", ".json", []string{"data", "convert", data, "--out"}, data},
		{"compare", ".svg", []string{"compare", run, other, "--plot"}, ""},
	}
	owned = []string{
		adapter, filepath.Join(other, train.AdapterFile), filepath.Join(run, train.BestFile),
		filepath.Join(run, train.ConfigFile), filepath.Join(run, train.MetricsFile),
		filepath.Join(run, train.ChartFile), filepath.Join(run, "checkpoints", "step-1", train.AdapterFile),
		filepath.Join(run, "checkpoints", "step-1", "new"),
		filepath.Join(evaluation, "question.jsonl"), filepath.Join(evaluation, "model_answer", "base.jsonl"),
	}
	return list, owned, []string{runs, evaluation, filepath.Dir(model), filepath.Dir(data), filepath.Dir(lone),
		filepath.Dir(peft)}
}

// to has the command write to a path.
func (w writer) to(path string, more ...string) (int, string) {
	if w.name == "modelfile" {
		path, more = strings.TrimSuffix(path, w.end)+".gguf", append(more, "--modelfile")
	}
	code, _, stderr := veratune(append(append(slices.Clone(w.args), path), more...)...)
	return code, stderr
}

// TestOutputs has every command that writes a file meet everything that may stand there. Nothing is ever lost.
func TestOutputs(t *testing.T) {
	commands, owned, roots := outputs(t)
	before := tree(t, roots...)
	for _, w := range commands {
		t.Run(w.name, func(t *testing.T) {
			for name, c := range map[string]struct {
				stands    func(path string) error // makes what stands at path
				overwrite bool
				says      string                       // of an error; "" where it is written
				check     func(t *testing.T, p string) // what is there afterwards, beside what stood there
			}{
				"nothing":         {func(string) error { return nil }, false, "", written},
				"file":            {file, false, "is there already", holds("mine")},
				"file, overwrite": {file, true, "", written},
				"link":            {linked(file), false, "is there already", holds("mine")},
				"link, overwrite": {linked(file), true, "", linkWritten},
				"link to nothing": {linked(func(string) error { return nil }), false, "", linkWritten},
				"link to itself": {func(path string) error { return os.Symlink(path, path) }, true,
					"leads back to itself", nil},
				"folder":            {folder, false, "is a folder", nil},
				"folder, overwrite": {folder, true, "is a folder", nil},
				"link to a folder":  {linked(folder), true, "is a folder", nil},
				"socket":            {socket, true, "is no file", nil},
				"device":            {device, false, "", isStill(fs.ModeDevice)},
				"link to a device":  {linked(device), false, "", isStill(fs.ModeSymlink)},
				"device, overwrite": {device, true, "", isStill(fs.ModeDevice)},
				"read-only, replace": {func(path string) error { return os.WriteFile(path, []byte("mine"), 0o400) },
					true, "", hasMode(0o400)},
			} {
				path := filepath.Join(t.TempDir(), "out"+w.end)
				if err := c.stands(path); err == errSkip {
					continue
				} else if err != nil {
					t.Fatal(err)
				}
				files := tree(t, filepath.Dir(path))
				var more []string
				if c.overwrite {
					more = []string{"--overwrite"}
				}
				code, stderr := w.to(path, more...)
				if c.says == "" && code != 0 || c.says != "" &&
					(code != exitFailed || !strings.Contains(stderr, c.says)) {
					t.Errorf("%s: exit code %d, %q, want %q", name, code, stderr, c.says)
				}
				if c.says != "" && !sameTree(files, tree(t, filepath.Dir(path))) {
					t.Errorf("%s: the folder has changed", name)
				}
				if c.check != nil {
					c.check(t, path)
				}
				if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(files) > 0 {
					t.Errorf("%s: left behind: %v", name, files)
				}
			}
			w.fifo(t)
			w.refused(t, owned)
		})
	}
	if !sameTree(before, tree(t, roots...)) {
		t.Error("files that were not asked for have changed")
	}
}

// refused are paths at which nothing is written, whatever is asked for.
func (w writer) refused(t *testing.T, owned []string) {
	missing := filepath.Join(t.TempDir(), "none", "out"+w.end)
	for path, says := range map[string]string{
		filepath.Dir(missing) + "/../out" + w.end: "there is no folder",
		missing: "there is no folder " + filepath.Dir(missing), "/proc/out" + w.end: "cannot be written", os.Args[0] +
			"/out" + w.end: "cannot be written",
	} {
		if code, stderr := w.to(path, "--overwrite"); code != exitFailed || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit code %d, %q", path, code, stderr)
		}
	}
	if w.end == ".svg" || w.end == ".Modelfile" { // take no other name
		owned = slices.DeleteFunc(slices.Clone(owned), func(path string) bool { return filepath.Ext(path) != w.end })
	}
	for _, path := range owned {
		link := filepath.Join(t.TempDir(), "link"+w.end)
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(t.TempDir(), "folder") // that is a link
		if err := os.Symlink(filepath.Dir(path), folder); err != nil {
			t.Fatal(err)
		}
		above := folder + "/../" + filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path)
		for _, name := range []string{path, link, filepath.Join(folder, filepath.Base(path)), above} {
			if code, stderr := w.to(name, "--overwrite"); code != exitFailed ||
				!strings.Contains(stderr, "belongs to the") {
				t.Errorf("%s: exit code %d, %q", name, code, stderr)
			}
		}
	}
	if w.input == "" {
		return
	}
	symbolic, hard := filepath.Join(t.TempDir(), "link"+w.end), w.input+".hard"
	if err := os.Symlink(w.input, symbolic); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(w.input, hard); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(hard)
	for _, path := range []string{w.input, symbolic, hard} {
		if code, stderr := w.to(path, "--overwrite"); code != exitFailed ||
			!strings.Contains(stderr, "is read by this command") {
			t.Errorf("%s: exit code %d, %q", path, code, stderr)
		}
	}
}

// fifo has something read at the other end.
func (w writer) fifo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out"+w.end)
	if err := makePipe(path); err == errSkip {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	came := make(chan int)
	go func() {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
		}
		n, _ := io.Copy(io.Discard, f)
		came <- int(n)
	}()
	code, stderr := w.to(path)
	select {
	case n := <-came:
		if code != 0 || n == 0 {
			t.Errorf("FIFO: exit code %d, %q; %d bytes", code, stderr, n)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("FIFO: exit code %d, %q; nothing came", code, stderr)
	}
	isStill(fs.ModeNamedPipe)(t, path)
}

func file(path string) error   { return os.WriteFile(path, []byte("mine"), 0o640) }
func folder(path string) error { return os.Mkdir(path, 0o755) }

// linked makes path a link to what is made beside it.
func linked(make func(string) error) func(string) error {
	return func(path string) error {
		if err := make(path + ".target"); err != nil {
			return err
		}
		return os.Symlink(filepath.Base(path)+".target", path)
	}
}

// errSkip says that what should stand there can't be made here.
var errSkip = fs.ErrPermission

func written(t *testing.T, path string) {
	t.Helper()
	if data := read(t, path); len(data) == 0 || string(data) == "mine" {
		t.Errorf("%s: holds %q", path, data)
	}
}

func linkWritten(t *testing.T, path string) {
	t.Helper()
	isStill(fs.ModeSymlink)(t, path)
	written(t, path+".target")
}

func holds(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if data := read(t, path); string(data) != text {
			t.Errorf("%s: holds %.40q", path, data)
		}
	}
}

func isStill(mode fs.FileMode) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		if info, err := os.Lstat(path); err != nil || info.Mode()&mode == 0 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

func hasMode(mode fs.FileMode) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		written(t, path)
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// tree is everything below folders: what it is, and what it holds.
func tree(t *testing.T, roots ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			what := d.Type().String()
			if d.Type().IsRegular() {
				what += string(read(t, path))
			}
			all[path] = what
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func sameTree(a, b map[string]string) bool {
	for path, what := range a {
		if b[path] != what {
			return false
		}
	}
	return len(a) == len(b)
}

// TestOutputFolders does the same for commands that make a folder.
func TestOutputFolders(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20)
	adapter := filepath.Join(t.TempDir(), "run", train.AdapterFile)
	if code, _, stderr := veratune(alpacaArgs(model, data, filepath.Dir(adapter), "--max-steps", "1")...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	for name, args := range map[string][]string{
		"alpaca": alpacaArgs(model, data, "OUT", "--max-steps", "1"),
		"sweep":  {"sweep", "--model", model, "--data", data, "--lr", "1e-3,1e-2", "--threads", "1", "--out", "OUT"},
		"run":    {"mtbench", "run", "--model", model, "--threads", "1", "--out", "OUT"},
		"peft":   {"export", "--model", model, "--adapter", adapter, "--to", "peft", "--out", "OUT"},
	} {
		for stands, make := range map[string]func(string) error{
			"file": file, "device": device, "link to nothing": linked(func(string) error { return nil }),
			"link to a file": linked(file), "link to a device": linked(device), "socket": socket,
			"in a file": func(path string) error { return os.WriteFile(filepath.Dir(path)+"/x", nil, 0o600) },
		} {
			path := filepath.Join(t.TempDir(), "out")
			if err := make(path); err == errSkip {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			before := tree(t, filepath.Dir(path))
			if stands == "in a file" {
				path = filepath.Join(filepath.Dir(path), "x", "out")
			}
			args := slices.Clone(args)
			args[slices.Index(args, "OUT")] = path
			code, _, stderr := veratune(args...)
			if code != exitFailed || !strings.Contains(stderr, path) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s, %s: exit code %d, %q", name, stands, code, stderr)
			}
			dir := filepath.Dir(path)
			if stands == "in a file" {
				dir = filepath.Dir(dir)
			}
			if !sameTree(before, tree(t, dir)) {
				t.Errorf("%s, %s: the folder has changed", name, stands)
			}
		}
	}
	step := filepath.Join(filepath.Dir(adapter), "checkpoints", "step-7")
	if code, _, stderr := veratune("export", "--model", model, "--adapter", adapter, "--to", "peft", "--out",
		step); code != exitFailed || !strings.Contains(stderr, "belongs to the run") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
