#!/usr/bin/env bash
# Compiles for macOS without Apple's SDK, so that `go vet` can check everything of veratune's: tools/darwin.sh ZIG cc|c++ TARGET ARGUMENTS.
# What needs a framework is replaced by nothing, and nothing of it is to be linked into a program.
set -euo pipefail
zig=$1 language=$2 target=$3
shift 3
args=() compiles=""
while (($#)); do
	case $1 in
	-framework) shift ;;
	-o) args+=("$1" "$2") && shift ;;
	-c | -E | -S) compiles=1 args+=("$1") ;;
	*.m | *ggml-metal*.cpp | *ggml-blas.cpp | *_mem_cgo_darwin.c) args+=(-x "${language/cc/c}" /dev/null) ;;
	*) args+=("$1") ;;
	esac
	shift
done
[[ $compiles ]] || args+=(-Wl,-undefined,dynamic_lookup)
exec "$zig" "$language" -target "$target" "${args[@]}" -UGGML_USE_ACCELERATE
