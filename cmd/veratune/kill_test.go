package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// killsVariable says how many processes TestKills kills; `make test-kill` takes 200.
const killsVariable = "VERATUNE_TEST_KILLS"

// killed is a command that is killed again and again, and must then end as if it had not been.
type killed struct {
	name  string
	args  func(out string) []string // of its next process, which goes on where there is something to go on from
	whole bool                      // it has no states between nothing and all
	want  map[string]string         // the files that it leaves when it is let alone
	takes time.Duration
	out   string // in a folder of its own; "" when the next process begins anew
	kills int
}

// TestKills kills training, sweeps and exports of every form by SIGKILL at random moments. Each is then let go on, and
// must leave the same files, to the byte, and no others.
func TestKills(t *testing.T) {
	kills := 12
	if n, err := strconv.Atoi(os.Getenv(killsVariable)); err == nil {
		kills = n
	} else if testing.Short() {
		kills = 4
	}
	commands := killable(t)
	for _, k := range commands {
		k.measure(t)
	}
	random := rand.New(rand.NewPCG(1, 1))
	for made := 0; made < kills && !t.Failed(); {
		// Training is what takes long: half of the processes are its.
		k := commands[0]
		if random.IntN(2) == 0 {
			k = commands[random.IntN(len(commands))]
		}
		if k.kill(t, random) {
			made++
		}
	}
	for _, k := range commands {
		k.finish(t)
		t.Logf("%s: killed %d times within %v", k.name, k.kills, k.takes.Round(time.Millisecond))
	}
}

// TestKillsSmolLM2 kills a training of the real model.
func TestKillsSmolLM2(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	model, data := testutil.SmolLM2(t), rows(t, 20)
	k := &killed{name: "training", args: func(out string) []string {
		return resumed(alpacaArgs(model, data, out, "--steps", "6", "--eval-every", "1"), out, train.ConfigFile)
	}}
	k.measure(t)
	for random := rand.New(rand.NewPCG(1, 1)); k.kills < 2; {
		k.kill(t, random)
	}
	k.finish(t)
}

// resumed has a command go on where its folder holds what it left.
func resumed(args []string, out, holds string) []string {
	if _, err := os.Stat(filepath.Join(out, holds)); err == nil {
		return append(args, "--resume")
	}
	return args
}

func killable(t *testing.T) []*killed {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1}), rows(t, 60)
	trained := filepath.Join(t.TempDir(), "trained")
	if code, _, stderr := veratune(alpacaArgs(model, data, trained)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	adapter := filepath.Join(trained, train.AdapterFile)
	list := []*killed{
		{name: "training", args: func(out string) []string {
			return resumed(alpacaArgs(model, data, out, "--eval-every", "3"), out, train.ConfigFile)
		}},
		{name: "sweep", args: func(out string) []string {
			args := append([]string{"sweep"}, alpacaArgs(model, data, out, "--lr", "1e-3,1e-2", "--fraction",
				"0.5")[1:]...)
			return resumed(args, out, train.SweepFile)
		}},
	}
	for _, form := range exports {
		list = append(list, &killed{name: "export to " + form.name, whole: true, args: func(out string) []string {
			return []string{"export", "--model", model, "--adapter", adapter, "--to", form.name, "--out", out,
				"--threads", "1"}
		}})
	}
	return list
}

var clockReadings = regexp.MustCompile(`"(seconds|memory)":[^,}]*`)

// content gives the SHA-256 of every file in a folder by its path in it, of text without what tells the time, memory
// and folder.
func content(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			files[path] = "a folder"
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		switch filepath.Ext(path) {
		case ".json", ".jsonl", ".yaml":
			data = []byte(clockReadings.ReplaceAllString(testutil.WithoutFolder(string(data), dir), ""))
		}
		files[path] = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	return files, err
}

// measure lets the command alone, once.
func (k *killed) measure(t *testing.T) {
	t.Helper()
	began := time.Now()
	k.out = filepath.Join(t.TempDir(), "out")
	k.finish(t)
	k.takes = time.Since(began)
}

// kill starts a process of the command and kills it after a random part of the time that the whole takes. It tells
// whether that was before the end; else the next process begins anew.
func (k *killed) kill(t *testing.T, random *rand.Rand) bool {
	t.Helper()
	if k.out == "" {
		k.out = filepath.Join(t.TempDir(), "out")
	}
	cmd, output := process(k.args(k.out)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s, after %d kills: %v: %s", k.name, k.kills, err, output)
		}
		k.check(t)
		return false
	case <-time.After(time.Duration(random.Float64() * float64(k.takes))):
		cmd.Process.Kill()
		<-done
		k.kills++
		if k.whole {
			k.allOrNothing(t)
		}
		return true
	}
}

// allOrNothing checks what a kill has left, besides hidden files. Where it is all, the next process begins anew.
func (k *killed) allOrNothing(t *testing.T) {
	t.Helper()
	left, err := content(filepath.Dir(k.out))
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(left, func(path, _ string) bool { return path != "." && path[0] == '.' })
	switch {
	case maps.Equal(left, k.want):
		k.out = ""
	case len(left) > 1:
		t.Errorf("%s, after %d kills: part of it is there: %v", k.name, k.kills, left)
	}
}

// finish lets the command go on to its end.
func (k *killed) finish(t *testing.T) {
	t.Helper()
	if k.out == "" {
		return
	}
	cmd, output := process(k.args(k.out)...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s, after %d kills: %v: %s", k.name, k.kills, err, output)
	}
	k.check(t)
}

// check compares what there is at the end.
func (k *killed) check(t *testing.T) {
	t.Helper()
	got, err := content(filepath.Dir(k.out))
	if err != nil {
		t.Fatal(err)
	}
	if k.out = ""; k.want == nil {
		k.want = got
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if k.want[name] == "" {
			t.Errorf("%s, after %d kills: left %s", k.name, k.kills, name)
		} else if k.want[name] != got[name] {
			t.Errorf("%s, after %d kills: other bytes in %s", k.name, k.kills, name)
		}
	}
	for name := range k.want {
		if got[name] == "" {
			t.Errorf("%s, after %d kills: no %s", k.name, k.kills, name)
		}
	}
}
