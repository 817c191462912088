#!/usr/bin/env bash
# Two trainers on one card, each a process: how much of summing gradients they hide behind computing, by their flight records.
#
#   scripts/gpu-overlap.sh MUSTER DIR    in the environment: DEVICE (cuda:0), OVERLAP_JOB, another job than resnet18
set -euo pipefail
muster=$1 dir=$2 pids=()
here=$(dirname "${BASH_SOURCE[0]}")
die() { echo "gpu-overlap: $*" >&2 && exit 1; }
stop() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; }
trap stop EXIT

job=${OVERLAP_JOB:-$dir/overlap.yaml}
[ -n "${OVERLAP_JOB:-}" ] || cat >"$job" <<EOF
name: overlap
model: {name: resnet18}
data: {source: glyphs, train: 8192, test: 256}
batch: {size: 256, logical_shards: 4}
optimizer: {name: sgd, lr: 0.01}
passes: 100
cluster: {servers: 1}
EOF
node() { # NAME ARGUMENTS...
	local name=$1
	shift
	"$muster" node -f "$job" --name "$name" --listen 127.0.0.1:0 --data-dir "$dir/data-$name" --out "$dir/out-$name" --device "${DEVICE:-cuda:0}" "$@" >"$dir/node-$name.log" 2>&1 &
	pids+=($!)
}
until_true() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.2
	done
}
listens() {
	address=$(sed -n 's/^node a listens at \([^ ]*\) .*/\1/p' "$dir/node-a.log")
	[ -n "$address" ]
}
# Both have been in the run for some steps.
goes() {
	timeout 5 "$muster" status --json --addr "$address" >"$dir/status.json" 2>/dev/null &&
		python3 -c 'import json, sys; s = json.load(open(sys.argv[1])); sys.exit(not ("view" in s and len(s["view"]["trainers"]) == 2 and s["step"] >= s["view"]["from"] + 12))' "$dir/status.json"
}
node a
until_true 15 listens || die "node a does not begin: $(tail -n 5 "$dir/node-a.log")"
node b --roles trainer --join "$address"
until_true 50 goes || die "the run of two does not get on: $(tail -n 5 "$dir/node-a.log" "$dir/node-b.log")"
timeout 10 "$muster" why --record --json --last 0 --addr "$address" >"$dir/record.json"
python3 "$here/../bench/gpu_overlap.py" "$dir/record.json"
