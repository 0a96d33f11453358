package train

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The time left is known from the second step on, goes by the steps after the first, and stands where a narrow terminal
// doesn't cut it.
func TestTimeLeft(t *testing.T) {
	for _, last := range []int{10, 6} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			p := newProgress(&out, 10)
			p.last = last
			time.Sleep(time.Minute) // the model is read, and the held-out loss measured
			var want []string
			for step := 1; step <= last; step++ {
				time.Sleep(2 * time.Second)
				p.step(stepLine{Step: step, Loss: 1, Tokens: 100, Seconds: 2})
				left := ""
				if step > 1 && step < last {
					left = fmt.Sprintf("  %ds left", 2*(last-step))
				}
				want = append(want, fmt.Sprintf("step %d/10%s  loss 1.0000  lr 0.00e+00  50 tokens/s  0.0 GiB",
					step, left))
			}
			if got := strings.TrimSpace(out.String()); got != strings.Join(want, "\n") {
				t.Errorf("to step %d:\n%s\nwant\n%s", last, got, strings.Join(want, "\n"))
			}
		})
	}
}
