package main

import (
	"slices"
	"strings"

	"github.com/xrash/smetrics"
)

// elsewhere are the words that other programs have for commands and options of this one.
var elsewhere = map[string]string{
	"finetune": "alpaca", "fine-tune": "alpaca", "sft": "alpaca", "evaluate": "loss", "eval": "loss",
	"perplexity": "loss", "run": "generate", "complete": "generate",
	"convert": "export", "merge": "export", "info": "inspect", "show": "inspect", "tune": "sweep", "dashboard": "watch",

	"learning-rate": "lr", "batch-size": "batch", "per-device-train-batch-size": "batch",
	"gradient-accumulation-steps": "accumulation", "grad-accum": "accumulation",
	"num-train-epochs": "epochs", "num-epochs": "epochs", "iters": "steps", "output-dir": "out", "output": "out",
	"max-seq-length": "max-length", "max-seq-len": "max-length",
	"seq-len": "max-length", "r": "rank", "lora-r": "rank", "lora-alpha": "alpha", "lora-dropout": "dropout",
	"lora": "adapter", "target-modules": "targets", "dataset": "data",
	"train-data": "data", "lr-scheduler-type": "schedule", "scheduler": "schedule", "warmup": "warmup-ratio",
	"eval-steps": "eval-every", "save-steps": "save-every",
	"max-grad-norm": "clip", "n-predict": "max-tokens", "max-new-tokens": "max-tokens", "n": "max-tokens",
	"ctx-size": "context", "c": "context", "temp": "temperature", "t": "threads",
	"repeat-penalty": "repetition-penalty", "system-prompt": "system", "resume-from-checkpoint": "resume",
	"overwrite-output-dir": "force",
}

// nearest is the one of names that a word was meant to be, "" where none is near.
func nearest(word string, names []string) string {
	word = strings.ReplaceAll(strings.ToLower(word), "_", "-")
	if name := elsewhere[word]; slices.Contains(names, name) {
		return name
	}
	best, likeness := "", 0.8
	for _, name := range names {
		if l := smetrics.JaroWinkler(word, name, 0.7, 4); l > likeness {
			best, likeness = name, l
		}
	}
	return best
}

// isMeant asks for the nearest name.
func isMeant(word, prefix string, names []string) string {
	if near := nearest(word, names); near != "" {
		return "; is " + prefix + near + " meant?"
	}
	return ""
}
