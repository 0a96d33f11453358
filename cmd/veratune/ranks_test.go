package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// mpirun is the program as n processes under Open MPI or MPICH, whichever the machine's mpirun is.
func mpirun(t *testing.T, n int, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	launcher, err := exec.LookPath("mpirun")
	if err != nil {
		t.Skip("no mpirun: install Open MPI or MPICH to run this")
	}
	cmd, output := process(args...)
	cmd.Path, cmd.Args = launcher, slices.Concat([]string{launcher, "-n", strconv.Itoa(n), os.Args[0]}, args)
	cmd.Env = append(cmd.Env, "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
		"OMPI_MCA_rmaps_base_oversubscribe=1")
	return cmd, output
}

// ranksArgs is a finetuning of 8 steps of 4 samples.
func ranksArgs(path, data, out string, more ...string) []string {
	args := []string{"alpaca", "--model", path, "--data", data, "--out", out, "--rank", "8", "--threads", "1",
		"--template", "alpaca", "--compute", "f32",
		"--batch", "2", "--accumulation", "2", "--held-out", "6", "--eval-every", "3", "--save-every", "2",
		"--steps", "8"}
	return append(args, more...)
}

var clocks = regexp.MustCompile(`"(seconds|memory)":[^,}]*`)

// losses are the training and held-out losses of a run, in its order.
func losses(t *testing.T, folder string) (list []float64) {
	t.Helper()
	for _, found := range regexp.MustCompile(`loss":([^,]*)`).FindAllStringSubmatch(
		string(read(t, filepath.Join(folder, train.MetricsFile))), -1) {
		loss, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, loss)
	}
	return list
}

// trained are the numbers that a run trained.
func trained(t *testing.T, base vera.Base, folder string) []float32 {
	t.Helper()
	a, err := vera.Load(filepath.Join(folder, train.AdapterFile), base)
	if err != nil {
		t.Fatal(err)
	}
	return a.Params
}

// However many processes share the steps, the losses are those of one, and as many processes leave the same bytes.
func TestRanks(t *testing.T) {
	path, data, folder := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 40), t.TempDir()
	m, err := model.Open(path, model.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	whole := filepath.Join(folder, "whole")
	if code, _, stderr := veratune(ranksArgs(path, data, whole)...); code != 0 {
		t.Fatal(stderr)
	}
	sizes := []int{1, 2, 4}
	if testing.Short() {
		sizes = []int{2}
	}
	for _, n := range sizes {
		var runs []string
		for i := range 2 {
			out := filepath.Join(folder, fmt.Sprintf("%d-%d", n, i))
			cmd, output := mpirun(t, n, ranksArgs(path, data, out)...)
			if err := cmd.Run(); err != nil || strings.Count(output.String(), "adapter: ") != 1 {
				t.Fatalf("%d processes: %v: %s", n, err, output)
			}
			runs = append(runs, out)
		}
		got, want := losses(t, runs[0]), losses(t, whole)
		if len(got) != len(want) {
			t.Fatalf("%d processes: %d losses and not %d", n, len(got), len(want))
		}
		for i := range want {
			if !(math.Abs(got[i]-want[i]) <= 1e-5) {
				t.Errorf("%d processes: loss %v and not %v", n, got[i], want[i])
			}
		}
		p, w := trained(t, m.Base(), runs[0]), trained(t, m.Base(), whole)
		for i := range w {
			if !(math.Abs(float64(p[i]-w[i])) <= 1e-4) {
				t.Fatalf("%d processes: parameter %d is %v and not %v", n, i, p[i], w[i])
			}
		}
		for _, name := range []string{train.AdapterFile, train.BestFile, train.MetricsFile, train.ConfigFile} {
			a, b := clocks.ReplaceAll(read(t, filepath.Join(runs[0], name)), nil),
				clocks.ReplaceAll(read(t, filepath.Join(runs[1], name)), nil)
			if !bytes.Equal(a, b) {
				t.Errorf("%d processes: two runs differ in %s", n, name)
			}
		}
	}
}

// underWay is a finetuning under way: 3 processes that have made some steps of more than they ever will, and saved
// none.
func underWay(t *testing.T) (cmd *exec.Cmd, output *bytes.Buffer, args []string, out string) {
	t.Helper()
	out = filepath.Join(t.TempDir(), "run")
	args = ranksArgs(testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 40), out, "--steps",
		"1000000", "--save-every", "0", "--eval-every", "0")
	cmd, output = mpirun(t, 3, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for made := 0; made < 5; made = bytes.Count(metricsOf(out), []byte(`"lr"`)) {
		if time.Sleep(10 * time.Millisecond); time.Since(began) > 5*time.Minute {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("no step is made: %s", output)
		}
	}
	return cmd, output, args, out
}

func metricsOf(folder string) []byte {
	data, _ := os.ReadFile(filepath.Join(folder, train.MetricsFile))
	return data
}

// rankOf finds a process of a run by what the launcher gave it.
func rankOf(t *testing.T, rank int, out string) *os.Process {
	t.Helper()
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		command, _ := os.ReadFile(path)
		environment, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if !bytes.Contains(command, []byte("\x00"+out+"\x00")) {
			continue
		}
		for _, name := range []string{"OMPI_COMM_WORLD_RANK", "PMI_RANK"} {
			if bytes.Contains(environment, fmt.Appendf(nil, "\x00%s=%d\x00", name, rank)) {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				p, err := os.FindProcess(pid)
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
		}
	}
	t.Skip("the processes cannot be told apart here")
	return nil
}

// goesOn checks that the output names a checkpoint, and that one process, or two, go on from it.
func goesOn(t *testing.T, output string, args []string, out string) {
	t.Helper()
	found := regexp.MustCompile(`resume would go on from (\S+/step-(\d+));`).FindStringSubmatch(output)
	if found == nil {
		t.Fatalf("no checkpoint is named: %s", output)
	}
	if _, err := os.Stat(found[1]); err != nil {
		t.Fatal(err)
	}
	step, _ := strconv.Atoi(found[2])
	args = append(args, "--resume", "--max-steps", strconv.Itoa(step+5))
	if code, stdout, stderr := veratune(args...); code != 0 ||
		!strings.Contains(stdout, fmt.Sprintf("halted after step %d", step+5)) {
		t.Errorf("exit code %d, %s %s", code, stdout, stderr)
	}
	args[len(args)-1] = strconv.Itoa(step + 8)
	again, result := mpirun(t, 2, args...)
	if err := again.Run(); err != nil ||
		!strings.Contains(result.String(), fmt.Sprintf("halted after step %d", step+8)) {
		t.Errorf("%v: %s", err, result)
	}
}

// When a process is lost, the others end, and the last step that all of them made is saved.
func TestRankLost(t *testing.T) {
	cmd, output, args, out := underWay(t)
	if err := rankOf(t, 2, out).Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("mpirun tells of no failure")
	}
	if !strings.Contains(output.String(), "asked to stop") {
		t.Skip("this mpirun ends the other processes without a word")
	}
	goesOn(t, output.String(), args, out)
}

func TestRanksInterrupted(t *testing.T) {
	cmd, output, args, out := underWay(t)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("mpirun tells of no interruption")
	}
	goesOn(t, output.String(), args, out)
}

// A process that fails says so once, and its exit code is mpirun's.
func TestRanksRefused(t *testing.T) {
	out := t.TempDir()
	if err := os.WriteFile(filepath.Join(out, train.ConfigFile), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd, output := mpirun(t, 2, ranksArgs(testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 40), out)...)
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitFailed ||
		strings.Count(output.String(), "veratune: rank 0: run folder") != 1 {
		t.Errorf("%v: %s", err, output)
	}
}
