package watch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/train"
)

// invent writes a run folder of so many steps, with norms and two samples at every fourth.
func invent(t *testing.T, name string, steps int) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{"train":{"lr":0.004,"epochs":1,"steps":0},"setup":{"vera":{"rank":256,"targets":["attn_q","ffn_up"]}},"about":{"model":%q}}`, "m.gguf"+attack)
	write(t, filepath.Join(folder, train.ConfigFile), config)
	write(t, filepath.Join(folder, train.MetricsFile), lines(0, steps))
	return folder
}

// attack is text that becomes script wherever a page takes text for markup.
const attack = `<script>window.injected = 1</script><img src=x onerror="window.injected = 1"></script>`

// lines are those of metrics.jsonl of the steps after one up to another.
func lines(after, upTo int) string {
	var out strings.Builder
	if after == 0 {
		out.WriteString(evaluation(0))
	}
	for step := after + 1; step <= upTo; step++ {
		loss := 1 + 2/float64(step)
		fmt.Fprintf(&out, `{"step":%d,"epoch":%g,"loss":%g,"lr":%g,"grad_norm":%g,"tokens":%d,"labelled":50,"seconds":2,"memory":%d}`+"\n",
			step, float64(step)/40, loss, 0.004*float64(step)/40, loss/3, 200+step, 1<<30+step<<20)
		if step%4 == 0 {
			fmt.Fprintf(&out, `{"step":%d,"norms":{"layers":["blk.0.attn_q","blk.0.ffn_up","blk.1.attn_q","blk.1.ffn_up"],"grad":{"b":[%g,0.2,0.3,0.4],"d":[0,1e-5,2e-5,3e-5]},"value":{"b":[1,2,3,4],"d":[5,6,7,8]}}}`+"\n",
				step, float64(step))
			out.WriteString(evaluation(step))
		}
	}
	return out.String()
}

func evaluation(step int) string {
	answer, _ := json.Marshal(fmt.Sprintf("answer %d %s", step, attack))
	prompt, _ := json.Marshal("Ask. " + attack)
	return fmt.Sprintf(`{"step":%d,"eval_loss":%g,"labelled":9,"seconds":3,"samples":[{"prompt":%s,"answer":%s},{"prompt":"Second?","answer":"two"}]}`+"\n",
		step, 2+1/float64(step+1), prompt, answer)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func extend(t *testing.T, folder, content string) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(folder, train.MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(content); err != nil {
		t.Fatal(err)
	}
}

// next gives the steps of the training steps that are new, and whether the run was told from its beginning.
func next(t *testing.T, f *follower) (steps string, begun bool) {
	t.Helper()
	n, err := f.next()
	if err != nil {
		t.Fatal(err)
	}
	if n == nil {
		return "", false
	}
	var list []int
	for _, r := range n.Records {
		if r.Loss != nil {
			list = append(list, r.Step)
		}
	}
	return fmt.Sprint(list), n.Begin != nil
}

func TestFollow(t *testing.T) {
	folder := invent(t, "run", 3)
	metrics := filepath.Join(folder, train.MetricsFile)
	f := &follower{path: folder}
	defer f.close()
	check := func(what, want string, wantBegun bool) {
		t.Helper()
		if steps, begun := next(t, f); steps != want || begun != wantBegun {
			t.Errorf("%s: steps %q, begun %v; want %q, %v", what, steps, begun, want, wantBegun)
		}
	}
	check("at first", "[1 2 3]", true)
	check("nothing new", "", false)
	more := lines(3, 5)
	extend(t, folder, more[:len(more)-20])
	check("a line and a half", "[4]", false)
	check("still half", "", false)
	extend(t, folder, more[len(more)-20:])
	check("the other half", "[5]", false)

	// As resuming does: fewer lines, under the name by a rename.
	write(t, metrics+".new", lines(0, 4))
	if err := os.Rename(metrics+".new", metrics); err != nil {
		t.Fatal(err)
	}
	check("resumed", "[1 2 3 4]", true)
	extend(t, folder, lines(4, 5))
	check("and on", "[5]", false)

	// As force does.
	if err := os.Rename(folder, folder+".old-1"); err != nil {
		t.Fatal(err)
	}
	check("away", "", false)
	again := invent(t, "again", 8)
	if err := os.Rename(again, folder); err != nil {
		t.Fatal(err)
	}
	check("started anew", "[1 2 3 4 5 6 7 8]", true)
	write(t, metrics, lines(0, 1))
	check("shorter in place", "[1]", true)
}

func TestFollowFails(t *testing.T) {
	f := &follower{path: t.TempDir()}
	if _, err := f.next(); err == nil || !strings.Contains(err.Error(), "is no run") {
		t.Errorf("no run: %v", err)
	}
	folder := invent(t, "run", 2)
	f = &follower{path: folder}
	defer f.close()
	next(t, f)
	write(t, filepath.Join(folder, train.AdapterFile), "no adapter")
	if _, err := f.next(); err == nil || !strings.Contains(err.Error(), train.AdapterFile) &&
		!strings.Contains(err.Error(), "GGUF") {
		t.Errorf("a damaged adapter: %v", err)
	}
	if err := os.Remove(filepath.Join(folder, train.AdapterFile)); err != nil {
		t.Fatal(err)
	}
	extend(t, folder, lines(2, 3))
	if steps, begun := next(t, f); steps != "[3]" || begun {
		t.Errorf("after the trouble: %s, begun %v", steps, begun)
	}
}

// What stands in a run folder is in the page as JSON without an angle bracket.
func TestPageIsEscaped(t *testing.T) {
	var page bytes.Buffer
	if err := Write(&page, []string{invent(t, "run"+strings.ReplaceAll(attack, "/", "-"), 4)}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.String(), `\u003cscript\u003ewindow.injected`) ||
		strings.Contains(page.String(), "<script>window") || strings.Contains(page.String(), "<img") {
		t.Error("texts of the run stand in the page as markup, or not at all")
	}
}
