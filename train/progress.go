package train

import (
	"fmt"
	"io"
	"time"

	"github.com/veratune/veratune/internal/terminal"
)

// progress tells people how the training goes.
type progress struct {
	*terminal.Line
	total   int       // steps of the whole training
	last    int       // step at which this process will have done its part
	done    int       // steps of this process
	first   time.Time // when the first of them was made
	tokens  int
	seconds float64 // of the steps alone
	loss    smooth
}

func newProgress(out io.Writer, total int) *progress {
	return &progress{Line: terminal.NewLine(out), total: total, last: total}
}

// step reports a step that has just been made.
func (p *progress) step(s stepLine) {
	if p.done++; p.done == 1 {
		p.first = time.Now()
	}
	p.tokens += s.Tokens
	p.seconds += s.Seconds
	line := fmt.Sprintf("step %d/%d", s.Step, p.total)
	if left := p.left(s.Step); left > 0 { // a narrow terminal cuts the end of the line off
		line += "  " + left.String() + " left"
	}
	line += fmt.Sprintf("  loss %.4f  lr %.2e", p.loss.add(s.Loss), s.LR)
	if p.seconds > 0 {
		line += fmt.Sprintf("  %.0f tokens/s", float64(p.tokens)/p.seconds)
	}
	line += fmt.Sprintf("  %.1f GiB", float64(s.Memory)/(1<<30))
	p.Step(s.Step, p.total, line)
}

// working fills the line until the first step is made.
func (p *progress) working() {
	if p.done == 0 {
		p.Status("the first step is being made")
	}
}

// left is the estimated time of the steps up to the last, evaluations and checkpoints included; 0 where it is not known
// yet. The first step is not counted: it still reads the model from its file.
func (p *progress) left(step int) time.Duration {
	if p.done < 2 {
		return 0
	}
	perStep := time.Since(p.first) / time.Duration(p.done-1)
	return (perStep * time.Duration(p.last-step)).Round(time.Second)
}
