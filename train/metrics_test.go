package train

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCutMetrics(t *testing.T) {
	lines := []string{
		`{"step":0,"eval_loss":3}`, `{"step":1,"loss":2.5}`, `{"step":2,"loss":2}`, `{"step":2,"eval_loss":2.1}`, `{"step":3,"loss":1.5}`, `{"step":3,"lo`,
	}
	for _, c := range []struct {
		at   position
		want []int
	}{
		{position{Step: 3, Last: &Evaluation{Step: 2}}, []int{0, 1, 2, 3, 4}},
		{position{Step: 2, Last: &Evaluation{Step: 2}}, []int{0, 1, 2, 3}},
		{position{Step: 2, Last: &Evaluation{Step: 0}}, []int{0, 1, 2}}, // saved when the evaluation was interrupted
		{position{Step: 1, Last: &Evaluation{Step: 0}}, []int{0, 1}},
		{position{}, nil},
	} {
		path := filepath.Join(t.TempDir(), MetricsFile)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := cutMetrics(path, c.at); err != nil {
			t.Fatal(err)
		}
		var want string
		for _, i := range c.want {
			want += lines[i] + "\n"
		}
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Errorf("cut after step %d: %q, want %q", c.at.Step, got, want)
		}
	}
	if err := cutMetrics(filepath.Join(t.TempDir(), MetricsFile), position{}); err != nil {
		t.Errorf("a missing file: %v", err)
	}
}

func FuzzReadRecords(f *testing.F) {
	for _, text := range []string{"", "{\"step\":1,\"loss\":2}\n", "{\"step\":1,\"eval_loss\":1e400}\n", "null\n{}\n[]\n\n",
		"{\"step\":1,\"norms\":{\"layers\":[\"a\"],\"grad\":{\"b\":[1e-5]},\"value\":{\"b\":[null]}}}\n", "{\"step\":1,\"norms\":{\"layers\":[],\"grad\":{\"b\":[1]}}}\n", "{\"step\":3,\"loss\":1}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		records, lines := ReadRecords(data)
		if len(records) != len(lines) {
			t.Fatalf("%d records of %d lines", len(records), len(lines))
		}
		for _, r := range records {
			if r.Norms != nil && len(r.Norms.Grad["b"]) != len(r.Norms.Layers) && r.Norms.Grad["b"] != nil {
				t.Errorf("norms of %d of %d layers", len(r.Norms.Grad["b"]), len(r.Norms.Layers))
			}
		}
		var losses Losses
		for _, r := range records {
			losses.Add(r)
		}
		if _, err := chart(losses); err != nil {
			t.Errorf("chart: %v", err)
		}
	})
}
