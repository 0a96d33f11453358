package train

import (
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// plainLines is about how many lines a run's steps take where the output is no terminal.
const plainLines = 20

// progress tells people how the training goes: on a terminal in one line that is written over, elsewhere in a line now and then.
type progress struct {
	out      io.Writer
	terminal bool
	width    func() int // columns of the terminal
	total    int        // steps of the whole training
	done     int        // steps of this process
	began    time.Time
	tokens   int
	seconds  float64 // of the steps alone
	loss     smooth
	open     bool // the terminal's cursor is in a status line
}

func newProgress(out io.Writer, total int) *progress {
	p := &progress{out: out, total: total, began: time.Now()}
	if out == nil {
		p.out = io.Discard
	}
	if file, ok := out.(interface{ Fd() uintptr }); ok && term.IsTerminal(int(file.Fd())) {
		p.terminal = true
		p.width = func() int {
			width, _, err := term.GetSize(int(file.Fd()))
			if err != nil || width < 2 {
				return 80
			}
			return width
		}
	}
	return p
}

// step reports a step that has just been made.
func (p *progress) step(s stepLine) {
	p.done++
	p.tokens += s.Tokens
	p.seconds += s.Seconds
	line := fmt.Sprintf("step %d/%d  loss %.4f  lr %.2e", s.Step, p.total, p.loss.add(s.Loss), s.LR)
	if p.seconds > 0 {
		line += fmt.Sprintf("  %.0f tokens/s", float64(p.tokens)/p.seconds)
	}
	line += fmt.Sprintf("  %.1f GiB", float64(s.Memory)/(1<<30))
	if left := p.left(s.Step); left > 0 {
		line += "  " + left.String() + " left"
	}
	switch {
	case p.terminal:
		p.status(line)
	case s.Step == 1 || s.Step == p.total || s.Step*plainLines/p.total != (s.Step-1)*plainLines/p.total:
		fmt.Fprintln(p.out, line)
	}
}

// working fills the line until the first step is made.
func (p *progress) working() {
	if p.done == 0 {
		p.status("the first step is being made")
	}
}

// left is the time that the rest will take if it goes on as so far, evaluations and checkpoints included.
func (p *progress) left(step int) time.Duration {
	perStep := time.Since(p.began) / time.Duration(max(1, p.done))
	return (perStep * time.Duration(p.total-step)).Round(time.Second)
}

// status shows a line that the next one takes the place of; terminals only.
func (p *progress) status(line string) {
	if p.terminal {
		// A line that wraps could not be written over.
		fmt.Fprintf(p.out, "\r%.*s\x1b[K", p.width()-1, line)
		p.open = true
	}
}

// note writes a line that stays.
func (p *progress) note(format string, args ...any) {
	if p.open {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.open = false
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

// end leaves the last line of a terminal standing.
func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}

// peakMemory is the most bytes that the process has held in memory at a time, mapped files included; 0 where the system doesn't say.
func peakMemory() int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(usage.Maxrss) // bytes there, KiB elsewhere
	}
	return int64(usage.Maxrss) << 10
}
