//go:build emulate

package model

import _ "github.com/veratune/veratune/ggml/cuda"
