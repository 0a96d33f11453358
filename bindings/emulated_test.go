//go:build emulate

package bindings

import _ "github.com/veratune/veratune/ggml/cuda"
