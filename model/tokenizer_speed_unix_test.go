//go:build !windows

package model

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/veratune/veratune/internal/testutil"
)

// BenchmarkTokenizer tokenizes a megabyte of the data's English at once, and llama.cpp does so as the whole and row by
// row.
func BenchmarkTokenizer(b *testing.B) {
	data, err := os.ReadFile(testutil.Shared(b, "data/alpaca_15k.json")[0])
	if err != nil {
		b.Fatal(err)
	}
	var rows []struct{ Output string }
	if err := json.Unmarshal(data, &rows); err != nil {
		b.Fatal(err)
	}
	var texts []string
	size := 0
	for _, row := range rows {
		if size < 1<<20 {
			texts, size = append(texts, row.Output), size+len(row.Output)+1
		}
	}
	whole := strings.Join(texts, "\n")
	for name, model := range map[string]func(testing.TB) string{"SmolLM2": testutil.SmolLM2,
		"Gemma 3": testutil.Gemma} {
		v, judge := tokenizerOf(b, model(b)), llamaVocab(b, model(b))
		run := func(name string, texts []string, tokenize func(string) error) {
			b.Run(name, func(b *testing.B) {
				begin := processorTime(b)
				n := 0
				for b.Loop() {
					n++
					for _, text := range texts {
						if err := tokenize(text); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(n*len(whole))/1e6/(processorTime(b)-begin).Seconds(), "MB/s-of-a-core")
			})
		}
		ours := func(text string) error { _, err := v.Tokenize(b.Context(), text, false, false); return err }
		theirs := func(text string) error { _, err := judge.Tokenize(text, false, false); return err }
		run(name+"/whole", []string{whole}, ours)
		run(name+"/rows", texts, ours)
		run(name+"/whole by llama.cpp", []string{whole}, theirs)
		run(name+"/rows by llama.cpp", texts, theirs)
	}
}

// processorTime is what the process has used so far.
func processorTime(t testing.TB) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkReadTokenizer reads whole vocabularies, also with llama.cpp.
func BenchmarkReadTokenizer(b *testing.B) {
	for name, model := range map[string]func(testing.TB) string{"SmolLM2": testutil.SmolLM2,
		"Gemma 3": testutil.Gemma} {
		path := model(b)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tokenizerOf(b, path)
			}
		})
		b.Run(name+" by llama.cpp", func(b *testing.B) {
			for b.Loop() {
				llamaVocab(b, path)
			}
		})
	}
}
