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
	cmd.Env = append(cmd.Env, "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "OMPI_MCA_rmaps_base_oversubscribe=1")
	return cmd, output
}

// ranksArgs is a finetuning of 8 steps of 4 samples.
func ranksArgs(path, data, out string, more ...string) []string {
	args := []string{"alpaca", "--model", path, "--data", data, "--out", out, "--rank", "8", "--threads", "1", "--template", "alpaca", "--compute", "f32",
		"--batch", "2", "--accumulation", "2", "--held-out", "6", "--eval-every", "3", "--save-every", "2", "--steps", "8"}
	return append(args, more...)
}

var clocks = regexp.MustCompile(`"(seconds|memory)":[^,}]*`)

// losses are the training and held-out losses of a run, in its order.
func losses(t *testing.T, folder string) (list []float64) {
	t.Helper()
	for _, found := range regexp.MustCompile(`loss":([^,]*)`).FindAllStringSubmatch(string(read(t, filepath.Join(folder, train.MetricsFile))), -1) {
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
	for _, n := range []int{1, 2, 4} {
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
			a, b := clocks.ReplaceAll(read(t, filepath.Join(runs[0], name)), nil), clocks.ReplaceAll(read(t, filepath.Join(runs[1], name)), nil)
			if !bytes.Equal(a, b) {
				t.Errorf("%d processes: two runs differ in %s", n, name)
			}
		}
	}
}
