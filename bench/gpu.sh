#!/usr/bin/env bash
# Training steps on this machine's GPU beside PyTorch's, eager and torch.compile, in fp32, tf32 and bf16: lenet, resnet50 (224 x 224,
# batch 128), gpt2-small (batch 16, 1024 tokens). Rows go to OUT/gpu.jsonl, the table to OUT/RESULTS-gpu.md, and
# from there, when it is complete, to bench/RESULTS-gpu.md.
#
#   bench/gpu.sh OUT    in the environment: SECS of measuring for each cell (2), LIMIT of one (60 s), BUDGET of all (480 s)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

out=$1 secs=${SECS:-2} limit=${LIMIT:-60} budget=${BUDGET:-480}
muster=.gpu/muster-cuda
rows=$out/gpu.jsonl
mkdir -p "$out"
: >"$rows"

used() { nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i 0; }

# watched runs a command and adds to its JSON line the most memory, in MiB, that the card used meanwhile.
watched() { # COMMAND...
	local before peak now line
	[ $SECONDS -lt "$budget" ] || { echo "no time left for: $*" && return; }
	before=$(used) peak=$before
	"$@" >"$out/row.json" 2>"$out/row.err" &
	local pid=$!
	while kill -0 $pid 2>/dev/null; do
		now=$(used)
		[ "$now" -le "$peak" ] || peak=$now
		sleep 0.2
	done
	wait $pid || { echo "failed: $*: $(tail -n 3 "$out/row.err")" && return; }
	line=$(tail -n 1 "$out/row.json")
	echo "${line%\}}, \"peak_mib\": $((peak - before))}" | tee -a "$rows"
}

timeout "$limit" python3 bench/gpu_torch.py --rate >>"$rows" || echo "the card's matrix rate could not be measured"
for model in lenet resnet50 gpt2-small; do
	for precision in bf16 tf32 fp32; do
		for sum in exact fast; do
			watched timeout "$limit" "$muster" bench step --json --device cuda --model $model --precision $precision --sum $sum --shards 1 --secs "$secs" --max-steps 50
		done
		for mode in eager compile; do
			watched timeout "$limit" python3 bench/gpu_torch.py --model $model --precision $precision --mode $mode --secs "$secs"
		done
	done
done
python3 bench/gpu_table.py "$rows" >"$out/RESULTS-gpu.md" && cp "$out/RESULTS-gpu.md" bench/RESULTS-gpu.md && cat bench/RESULTS-gpu.md
