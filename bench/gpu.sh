#!/usr/bin/env bash
# Training steps on this machine's GPU beside PyTorch's, eager and torch.compile, in fp32, tf32 and bf16: lenet, resnet50 (224 x 224,
# batch 128), gpt2-small (batch 16, 1024 tokens). Rows go to OUT/gpu.jsonl, the table to OUT/RESULTS-gpu.md, and
# from there, when it is complete, to bench/RESULTS-gpu.md. What is aimed at comes first, what takes long to compile last, so that a budget
# that does not suffice costs least.
#
#   bench/gpu.sh OUT    in the environment: SECS of measuring for each cell (2), LIMIT of one (60 s; of torch.compile 150 s), BUDGET of all (520 s)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

out=$1 secs=${SECS:-2} limit=${LIMIT:-60} budget=${BUDGET:-520} complete=yes
muster=.gpu/muster-cuda
rows=$out/gpu.jsonl
mkdir -p "$out"
: >"$rows"

used() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0; }

# watched runs a command, for so many seconds at most, and adds to its JSON line the most memory, in MiB, that the card used meanwhile.
watched() { # SECONDS COMMAND...
	local before peak now line left=$((budget - SECONDS)) most=$1
	shift
	[ "$left" -gt 5 ] || { echo "no time left for: $(echo "$@" | cut -c 1-110)" && complete= && return; }
	before=$(used) peak=$before
	timeout -k 5 $((most < left ? most : left)) "$@" >"$out/row.json" 2>"$out/row.err" &
	local pid=$!
	while kill -0 $pid 2>/dev/null; do
		now=$(used)
		[ "$now" -le "$peak" ] || peak=$now
		sleep 0.2
	done
	wait $pid || { echo "failed: $*: $(tail -n 3 "$out/row.err" | cut -c 1-400)" && complete= && return; }
	line=$(tail -n 1 "$out/row.json")
	echo "${line%\}}, \"peak_mib\": $((peak - before))}" >>"$rows"
}

muster() { # MODEL PRECISION
	local sum
	for sum in exact fast; do
		watched "$limit" "$muster" bench step --json --device cuda:0 --model "$1" --precision "$2" --sum $sum --shards 1 --threads "$(nproc)" --secs "$secs" --max-steps 50
	done
}
torch() { # MODEL PRECISION MODE SECONDS
	watched "$4" python3 bench/gpu_torch.py --model "$1" --precision "$2" --mode "$3" --secs "$secs"
}

timeout "$limit" python3 bench/gpu_torch.py --rate >>"$rows" || echo "the card's matrix rate could not be measured"
for precision in bf16 tf32 fp32; do
	for model in gpt2-small resnet50 lenet; do
		muster $model $precision
		torch $model $precision eager "$limit"
	done
	if [ $precision = bf16 ]; then
		for model in gpt2-small resnet50; do torch $model bf16 compile 150; done
	fi
done
for precision in tf32 fp32; do
	for model in gpt2-small resnet50; do torch $model $precision compile 150; done
done
for precision in bf16 tf32 fp32; do torch lenet $precision compile 150; done
python3 bench/gpu_table.py "$rows" >"$out/RESULTS-gpu.md" && cat "$out/RESULTS-gpu.md"
[ -n "$complete" ] && cp "$out/RESULTS-gpu.md" bench/RESULTS-gpu.md
