package mpi

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// asRank makes the test program be one of the processes that mpirun starts.
const asRank = "VERATUNE_TEST_AS_RANK"

func TestMain(m *testing.M) {
	if os.Getenv(asRank) == "" {
		os.Exit(m.Run())
	}
	w, err := Start()
	if err != nil {
		fmt.Println("start:", err)
		os.Exit(1)
	}
	if err := exercise(w); err != nil {
		fmt.Println("rank", w.Rank(), err)
		w.Abort(3)
	}
	if err := w.End(); err != nil {
		fmt.Println("end:", err)
		os.Exit(1)
	}
}

// number is what rank r has at place i, of very different sizes, so that the order of a sum shows in its last bits.
func number(r, i int) float64 {
	return math.Sin(float64(r*1000+i)) * math.Pow(10, float64((r*7+i)%12-6))
}

func exercise(w *World) error {
	for _, n := range []int{0, 1, 3, w.Size(), 1000, 100003} {
		values, scalars := make([]float32, n), make([]float64, n%5)
		fill := func(r int, each func(to int, v float64)) {
			for i := range n + n%5 {
				each(i, number(r, i))
			}
		}
		fill(w.Rank(), func(to int, v float64) {
			if to < n {
				values[to] = float32(v)
			} else {
				scalars[to-n] = v
			}
		})
		want := make([]float64, n+n%5)
		for r := range w.Size() {
			fill(r, func(to int, v float64) {
				if to < n {
					v = float64(float32(v))
				}
				want[to] += v
			})
		}
		if err := w.Sum(values, scalars); err != nil {
			return err
		}
		for i, v := range values {
			if v != float32(want[i]) {
				return fmt.Errorf("sum of %d numbers: %v at %d and not %v", n, v, i, float32(want[i]))
			}
		}
		for i, v := range scalars {
			if v != want[n+i] {
				return fmt.Errorf("%d scalars with %d numbers: %v at %d and not %v", len(scalars), n, v, i, want[n+i])
			}
		}
	}
	for _, n := range []int{0, 1, 5_000_000} {
		want := bytes.Repeat([]byte{1, 2, 3}, n)
		own := []byte("of no interest")
		if w.Rank() == 0 {
			own = want
		}
		got, err := w.Broadcast(own)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("broadcast of %d bytes: %d bytes, %v", len(want), len(got), err)
		}
	}
	if os.Getenv(asRank) == "fail" && w.Rank() == w.Size()-1 {
		return fmt.Errorf("fails on purpose")
	}
	fmt.Printf("rank %d of %d is well, %d processors\n", w.Rank(), w.Size(), w.Processors())
	return nil
}

// mpirun runs the test program as n ranks under a launcher, or skips the test where there is none.
func mpirun(t *testing.T, launcher, as string, n int) (output string, err error) {
	t.Helper()
	path, err := exec.LookPath(launcher)
	if err != nil {
		t.Skipf("no %s: install Open MPI or MPICH to run this", launcher)
	}
	cmd := exec.Command(path, "-n", strconv.Itoa(n), os.Args[0])
	cmd.Env = append(os.Environ(), asRank+"="+as, "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
		"OMPI_MCA_rmaps_base_oversubscribe=1")
	data, err := cmd.CombinedOutput()
	return string(data), err
}

func TestWorld(t *testing.T) {
	for _, launcher := range []string{"mpirun", "mpiexec.hydra"} {
		for _, n := range []int{1, 2, 3, 4} {
			t.Run(fmt.Sprint(launcher, " ", n), func(t *testing.T) {
				out, err := mpirun(t, launcher, "well", n)
				if err != nil || strings.Count(out, "is well") != n ||
					!strings.Contains(out, fmt.Sprintf("rank %d of %d", n-1, n)) {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

// The exit code of a rank that fails is the launcher's.
func TestAbort(t *testing.T) {
	for _, launcher := range []string{"mpirun", "mpiexec.hydra"} {
		t.Run(launcher, func(t *testing.T) {
			out, err := mpirun(t, launcher, "fail", 3)
			if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 ||
				!strings.Contains(out, "rank 2 fails on purpose") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestLaunched(t *testing.T) {
	for _, c := range []struct {
		environment string
		want        bool
	}{
		{"", false},
		{"SLURM_STEP_NUM_TASKS=4", false}, // srun without MPI
		{"OMPI_COMM_WORLD_SIZE=4", true},
		{"OMPI_COMM_WORLD_SIZE=1", false},
		{"PMI_RANK=0 PMI_SIZE=2", true},
		{"PMI_RANK=0 PMI_SIZE=1", false},
		{"PMIX_RANK=0 SLURM_STEP_NUM_TASKS=2", true},
		{"PMIX_RANK=0", true},
		{"OMPI_COMM_WORLD_SIZE=4 SLURM_STEP_NUM_TASKS=1", true}, // mpirun in a job of Slurm
	} {
		for _, name := range []string{"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE", "PMIX_RANK",
			"SLURM_STEP_NUM_TASKS"} {
			t.Setenv(name, "")
		}
		for _, variable := range strings.Fields(c.environment) {
			name, value, _ := strings.Cut(variable, "=")
			t.Setenv(name, value)
		}
		if got := Launched(); got != c.want {
			t.Errorf("%q: %v", c.environment, got)
		}
	}
}
