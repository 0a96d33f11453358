#!/usr/bin/env bash
# Checks and measures veratune on a machine with an Nvidia GPU and no network, in less than eight minutes, and prints one table. What one step finds does not
# stop the next, and when the time is over, or at Ctrl-C, the table has what there is.
#
#   tools/gpu.sh                      everything
#   tools/gpu.sh --seconds 300        less time
#   tools/gpu.sh --only references,generate
#   tools/gpu.sh --dry                the script itself, on the CPU, with models of one block
#
# Steps: tests (of `make test-cuda`), references (in f32 and bf16), generate (beside llama.cpp on the same GPU), train (7B in q4_0, q4_K, with --memory, and 13B),
# peft (PEFT's VeRA on NF4), sanitize (compute-sanitizer over the operations). --rows names Alpaca rows; left out, those that veratune has itself.
# What is in bin/ (veratune, randomgguf, tests/*.test, libggml-cuda.so) is used as it is; what is missing is built, which takes Go, CMake, and minutes. On a machine
# without a GPU, `tools/gpu.sh --build` makes all of it, for processors with AVX2, and packs it into bin/gpu.tar.xz, which is unpacked where bin/ has nothing else.
# bin/whole/libggml-cuda.so, which `make cuda-whole` makes, is taken to measure llama.cpp with, if it is there. PYTHON has PyTorch, PEFT and bitsandbytes (default
# python3). OUT is where logs go (default runs/gpu).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

seconds=470 only='' dry='' build='' rows=''
while (($#)); do
	case $1 in
	--seconds | --only | --rows)
		[[ $# -ge 2 ]] || { echo "$1 needs a value" >&2; exit 2; }
		declare "${1#--}=$2"
		shift 2
		;;
	--dry | --build)
		declare "${1#--}=yes"
		shift
		;;
	*)
		sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
done

out=${OUT:-runs/gpu} python=${PYTHON:-python3}
mkdir -p "$out"
out=$(cd "$out" && pwd)
models=${MODELS:-$out/models}
table=$out/table.tsv
device=cuda0 blocks=() rank=1024 bench_rows=112 prompt=512 tokens=128
[[ $dry ]] && device=cpu blocks=(--blocks 1) rank=32 bench_rows=32 prompt=16 tokens=4
begin=$SECONDS

left() { echo $((seconds - (SECONDS - begin))); }

# note STEP WHAT FIGURE appends a line to the table.
note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$table"; }

running='' child=''
show() {
	trap - EXIT INT TERM
	[[ $child ]] && kill "$child" 2>/dev/null
	[[ $running ]] && note "$running" "stopped" "after $((SECONDS - begin)) s of all"
	{
		printf '\n'
		[[ $dry ]] && echo "A dry run: nothing of this was computed on a GPU."
		column -t -s $'\t' "$table" 2>/dev/null || cat "$table"
		echo "logs: $out"
	} >&3
}

# run LOG LIMIT COMMAND… gives its status, 124 where it took longer than LIMIT, or than is left.
run() {
	local log=$1 limit=$2
	shift 2
	(($(left) < limit)) && limit=$(left)
	((limit > 2)) || return 124
	# Behind, so that a signal to this script is not left waiting.
	timeout --kill-after 5 "$limit" "$@" >"$out/$log" 2>&1 &
	child=$!
	wait "$child"
	local status=$?
	child=''
	return "$status"
}

# outcome STATUS says what came of a command.
outcome() {
	case $1 in
	0) echo passed ;;
	124 | 137) echo "out of time" ;;
	*) echo "FAILED ($1)" ;;
	esac
}

# field KEY FILE gives the value of a key in the JSON object that the file's last line with one is.
field() { sed -n "s/.*\"$1\":\([^,}]*\).*/\1/p" "$2" | tail -n 1 | cut -c 1-8; }

# peak_while FILE COMMAND… runs a command and writes the GPU's highest memory meanwhile, in MiB.
peak_while() {
	local file=$1
	shift
	if ! command -v nvidia-smi >/dev/null; then
		echo '-' >"$file"
		"$@"
		return
	fi
	nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 100 >"$file.all" 2>/dev/null &
	local watcher=$!
	"$@"
	local status=$?
	kill "$watcher" 2>/dev/null
	sort -n "$file.all" | tail -n 1 >"$file"
	return "$status"
}

build_all() {
	[[ -x bin/veratune || ! -e bin/gpu.tar.xz ]] || tar -xJf bin/gpu.tar.xz || return
	export CGO_CFLAGS="${CGO_CFLAGS:--O3 -mavx2 -mfma -mf16c}" CGO_CXXFLAGS="${CGO_CXXFLAGS:--O3 -mavx2 -mfma -mf16c}"
	mkdir -p bin/tests
	[[ -x bin/veratune ]] || go build -ldflags='-s -w' -o bin/veratune ./cmd/veratune || return
	[[ -x bin/randomgguf ]] || go build -ldflags='-s -w' -o bin/randomgguf ./tools/randomgguf || return
	for package in bindings model; do
		[[ -x bin/tests/$package.test ]] || go test -c -ldflags='-s -w' -o "bin/tests/$package.test" "./$package" || return
	done
	[[ $dry || -e bin/libggml-cuda.so ]] || make cuda
}

# model SHAPE TYPE puts the path of a random model into $path; it writes the model if need be.
model() {
	path=$models/$1-$2${dry:+-dry}.gguf
	[[ -e $path ]] && return
	mkdir -p "$models"
	run "model-$1-$2.log" 90 bin/randomgguf --shape "$1" --type "$2" "${blocks[@]}" --out "$path.part" && mv "$path.part" "$path"
}

# tests WHAT PACKAGE PATTERN [NAME=VALUE] runs the tests of a package.
tests() {
	local log=test-${1// /-}.log
	run "$log" 150 env -C "$2" ${4:+"$4"} "../bin/tests/$2.test" -test.short -test.v -test.run "$3"
	local status=$?
	note tests "$1" "$(outcome $status): $(grep -c '^--- PASS' "$out/$log") tests passed, $(grep -c '^--- FAIL' "$out/$log") failed"
}

step_tests() {
	local pattern='TestDevice|InTurn|AdamW'
	[[ $dry ]] && pattern='TestDeviceRefuses|AdamW'
	tests bindings bindings "$pattern"
	tests model model "$pattern"
	tests "answers by CUDA graphs" model 'TestDeviceAnswers|TestDeviceBytes' VERATUNE_CUDA_GRAPHS=1
}

step_references() {
	local pattern='TestDeviceReference|TestDeviceArchitectures'
	[[ $dry ]] && pattern='TestDeviceRefuses'
	run references.log 120 env -C model ../bin/tests/model.test -test.v -test.run "$pattern"
	note references "f32 and bf16" "$(outcome $?)"
	# Of each reference its name, and what it says of errors.
	sed -nE 's/^=== RUN +(.*)/\1/p; s/^ *[a-z_]+\.go:[0-9]+: (.*(off by|relative L2).*)/  \1/p' "$out/references.log" | grep -B 1 '^  ' | grep -v '^--' |
		head -n 24 | while IFS= read -r line; do note references "" "$line"; done
}

# generation WHAT TYPE [NAME=VALUE] measures answers of a 7B.
generation() {
	local path log=generate-${1// /-}.log library=$PWD/bin
	# With an environment of its own, veratune is what counts: graphs of ours are not recorded while ggml records its own.
	[[ ! ${3-} && -e bin/whole/libggml-cuda.so ]] && library=$PWD/bin/whole
	model 7b "$2" || { note generate "$1" "no model"; return; }
	run "$log" 90 env ${3:+"$3"} VERATUNE_LIBRARY_PATH="$library" bin/veratune bench generate --json --model "$path" --device "$device" --rank "$rank" --rounds 2 --prompt "$prompt" --tokens "$tokens"
	local status=$?
	((status)) && note generate "$1" "$(outcome $status)"
	"$python" - "$1" "$out/$log" <<'PYTHON' >>"$table"
import json, sys

for line in open(sys.argv[2]):
    if not line.startswith("{"):
        continue
    run = json.loads(line)
    ours, theirs = run["veratune"], run["llama"]
    what = f"generate\t{sys.argv[1]}, {run['compute']}, {run['what']}"
    for key in ("prompt", "decode"):
        print(f"{what}, {key}\t{ours[key]:.1f} tokens/s, llama.cpp {theirs[key]:.1f}, ratio {ours[key] / max(theirs[key], 1e-9):.2f}")
    print(f"{what}, together\t{ours.get('together', 0):.1f} tokens/s")
PYTHON
}

step_generate() {
	generation "7B q4_0" q4_0
	[[ $dry ]] && return
	generation "7B q4_0 by CUDA graphs" q4_0 VERATUNE_CUDA_GRAPHS=1
	generation "7B q4_K" q4_K
}

# train NAME SHAPE TYPE OPTIONS… measures a training.
train() {
	local name=$1 path log=train-${1// /-}.log
	model "$2" "$3" || { note train "$name" "no model"; return; }
	peak_while "$out/peak" run "$log" 60 bin/veratune bench train --json --model "$path" --template alpaca --device "$device" --rank "$rank" --rows "$bench_rows" ${rows:+--data "$rows"} "${@:4}"
	local status=$?
	if ((status)); then
		note train "$name" "$(outcome $status)"
	else
		note train "$name" "$(field samples_per_s "$out/$log") samples/s, $(field tokens_per_s "$out/$log") tokens/s, $(cat "$out/peak") MiB"
	fi
}

step_train() {
	train "7B q4_0" 7b q4_0
	[[ $dry ]] && return
	train "7B q4_0 8GB" 7b q4_0 --memory 8GB
	train "7B q4_K" 7b q4_K
	train "13B q4_0" 13b q4_0
	train "13B q4_K" 13b q4_K
}

step_peft() {
	local ids=$out/tokens.json shapes=(7b 13b) path
	if [[ $dry ]]; then
		note peft "NF4" "left out of a dry run"
		return
	fi
	if ! { model 7b q4_0 && bin/veratune data show --json --model "$path" --template alpaca --rows "$bench_rows" ${rows:+"$rows"} >"$ids"; }; then
		note peft rows FAILED
		return
	fi
	for shape in "${shapes[@]}"; do
		peak_while "$out/peak" run "peft-$shape.log" 75 "$python" tools/peft_bench.py --random "$shape" --tokens "$ids" --rows "$bench_rows" --device cuda --dtype bf16 --nf4 --rank "$rank"
		local status=$?
		if ((status)); then
			note peft "$shape NF4" "$(outcome $status)"
		else
			note peft "$shape NF4" "$(field samples_per_s "$out/peft-$shape.log") samples/s, $(cat "$out/peak") MiB"
		fi
	done
}

step_sanitize() {
	if ! command -v compute-sanitizer >/dev/null; then
		note sanitize memcheck "no compute-sanitizer in PATH"
		return
	fi
	run memcheck.log 100 env -C model compute-sanitizer --error-exitcode 9 ../bin/tests/model.test -test.short -test.run 'TestDevicePlans|TestDeviceAnswers'
	note sanitize memcheck "$(outcome $?)"
	run racecheck.log 60 env -C model compute-sanitizer --tool racecheck --error-exitcode 9 ../bin/tests/model.test -test.short -test.run 'TestDevicePlans/.*/factored'
	note sanitize racecheck "$(outcome $?)"
}

if [[ $build ]]; then
	build_all && XZ_OPT=-9 tar -cJf bin/gpu.tar.xz bin/veratune bin/randomgguf bin/tests bin/libggml-cuda.so && ls -l bin/gpu.tar.xz
	exit
fi
exec 3>&1
[[ $only ]] || only=tests,references,generate,train,peft,sanitize
for step in ${only//,/ }; do
	declare -F "step_$step" >/dev/null || { echo "there is no step $step" >&2; exit 2; }
done
printf 'step\twhat\tfigure\n' >"$table"
trap show EXIT
trap 'exit 130' INT TERM
running=build
build_all >"$out/build.log" 2>&1 &
child=$!
if ! wait "$child"; then
	note build "" "FAILED, see $out/build.log"
	exit 1
fi
child='' running=''
[[ $dry ]] || export VERATUNE_TEST_DEVICE=cuda0
# PyTorch has cuBLAS where the system has none.
while IFS= read -r folder; do
	LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done < <("$python" -c 'import glob, os, site
for s in site.getsitepackages():
    for p in glob.glob(s + "/nvidia/*/lib/libcublas.so.*"):
        print(os.path.dirname(p))' 2>/dev/null)
export LD_LIBRARY_PATH
bin/veratune devices >"$out/devices.log" 2>&1
note device "" "$(grep -m 1 "^$device" "$out/devices.log" || { echo "no $device: "; cat "$out/devices.log"; } | tr '\n' ' ')"
for step in ${only//,/ }; do
	running=$step
	"step_$step"
	running=
done
