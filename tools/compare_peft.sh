#!/usr/bin/env bash
# Trains the same rows with veratune and with PEFT's VeRA on this machine, one after the other, and prints the ratios to PEFT's fastest setting.
#
#   make build model
#   tools/compare_peft.sh --model models/SmolLM2-135M-Instruct.Q4_1.gguf --data rows.json
#   tools/compare_peft.sh --model … --data … --rows 128 --rank 256 --compute f32 --peft "bf16 autocast" --threads 2
#
# --compute is veratune's arithmetic (default: what it chooses itself), --peft the settings of PEFT to try: f32, bf16 (weights and adapter in bfloat16) and
# autocast (float32 weights, bfloat16 products); default all three. Whole optimiser steps of 4 × 4 rows; the first is not counted.
# PYTHON names the interpreter that has tools/requirements.txt (default .tools/venv/bin/python). Nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."

model='' data='' rows=64 rank=1024 compute='' peft='f32 bf16 autocast'
threads=$(getconf _NPROCESSORS_ONLN)
while (($#)); do
	case $1 in
	--model | --data | --rows | --rank | --compute | --peft | --threads)
		[[ $# -ge 2 ]] || { echo "$1 needs a value" >&2; exit 2; }
		declare "${1#--}=$2"
		shift 2
		;;
	*)
		sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
done
[[ -n $model && -n $data ]] || { echo "--model and --data are needed" >&2; exit 2; }
steps=$((rows / 16 - 1))
((steps >= 1)) || { echo "--rows $rows: 32 at least, two steps" >&2; exit 2; }
python=${PYTHON:-.tools/venv/bin/python}

echo "load before:$(uptime | sed 's/.*load average[s]*://')" >&2
ours=$(bin/veratune bench train --json --model "$model" --data "$data" --template alpaca --rows "$rows" --rank "$rank" ${compute:+--compute "$compute"} --threads "$threads")
echo "veratune $ours"
# PEFT takes the same tokens.
tokens=$(mktemp)
trap 'rm -f "$tokens"' EXIT
bin/veratune data show --json --model "$model" --template alpaca --rows "$rows" "$data" >"$tokens"
theirs=()
for dtype in $peft; do
	theirs+=("$("$python" tools/peft_bench.py --model "$model" --tokens "$tokens" --rows "$rows" --rank "$rank" --dtype "$dtype" --threads "$threads" --warm 1 --steps "$steps")")
	echo "PEFT     ${theirs[-1]}"
done
echo "load after:$(uptime | sed 's/.*load average[s]*://')" >&2

"$python" - "$ours" "${theirs[@]}" <<'PYTHON'
import json, sys

ours, *theirs = map(json.loads, sys.argv[1:])
best = max(theirs, key=lambda run: run["samples_per_s"])
print(f"{'':14}{'veratune':>10}{'PEFT ' + best['dtype']:>15}{'ratio':>8}")
for key in ("tokens_per_s", "samples_per_s", "peak_GiB"):
    print(f"{key:14}{ours[key]:10.2f}{best[key]:15.2f}{ours[key] / best[key]:8.2f}")
PYTHON
