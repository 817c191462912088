#!/usr/bin/env bash
# The binary with CUDA on GPUs that are made up: a libcuda.so.1 that does kernels on the host (trainer/device/cuda/emulator/libcuda.cc). It
# shows what no test inside the process can: contexts and threads, streams, events and graphs as a driver sees them, and nodes whose GPU fails.
# Needs bin/muster-cuda (make build-cuda) and g++.
#
#   scripts/gpu-fake.sh [OUT]          logs and results go to OUT (default: a temporary folder)
#   scripts/gpu-fake.sh OUT check      instead: scripts/gpu-check.sh, which is for real GPUs, as far as it comes (needs make pack-gpu)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:-$(mktemp -d)} muster=bin/muster-cuda
mkdir -p "$out/lib"
[ -x $muster ] || { echo "gpu-fake: there is no $muster: run make build-cuda" >&2 && exit 1; }
die() { echo "gpu-fake: $*" >&2 && exit 1; }
pids=()
stop() { for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; }
trap stop EXIT

g++ -std=c++17 -O1 -ffp-contract=off -Wall -Wno-unknown-pragmas -Wno-unused-function -DMUSTER_EMULATED -I.cuda/include -shared -fPIC \
	-o "$out/lib/libcuda.so.1" trainer/device/cuda/emulator/libcuda.cc
export LD_LIBRARY_PATH=$out/lib MUSTER_FAKE_GPUS=4 MUSTER_CUBLAS=none

cat >"$out/job.yaml" <<JOB
name: made-up
model: {name: mlp, hidden: [48]}
data: {source: glyphs, train: 256, test: 32}
batch: {size: 32, logical_shards: 4}
passes: 1
JOB

# What takes a GPU seconds takes these hours: smaller jobs, and nothing that is sanitized. PyTorch finds no GPU, so its rows are missing.
if [ "${2:-}" = check ]; then
	sed 's/^passes.*/passes: 1000\ncluster: {servers: 1}/; s/hidden: .*}/hidden: [1500]}/; s/size: 32/size: 4/' "$out/job.yaml" >"$out/overlap.yaml"
	mkdir -p "$out/bin"
	printf '#!/bin/sh\necho 100\n' >"$out/bin/nvidia-smi"
	chmod +x "$out/bin/nvidia-smi"
	unset MUSTER_CUBLAS
	PATH=$out/bin:$PATH OUT=$out/check JOB=$out/job.yaml MODELS=mlp BATCH=2 OVERLAP_JOB=$out/overlap.yaml BUDGET=20 LIMIT=5 WITHIN=3000 scripts/gpu-check.sh doctor test run path bench
	exit
fi

train() { # NAME ARGUMENTS...; in the environment what the driver is to do
	local name=$1
	shift
	timeout 100 $muster train -f "$out/job.yaml" --out "$out/$name" "$@" >"$out/$name.log" 2>&1
}
same() { cmp "$out/one/model.safetensors" "$out/$1/model.safetensors" || die "$1 ends with other weights; see $out/$1.log"; }

timeout 60 $muster doctor >"$out/doctor.log" 2>&1 || die "doctor fails: $(cat "$out/doctor.log")"
train one --device cuda:0 || die "$(cat "$out/one.log")"
train two-trainers --device cuda:0 --nodes 2 && same two-trainers
train two-gpus --device cuda:1,3 && same two-gpus
train four-gpus --device cuda && same four-gpus
train two-trainers-two-gpus --device cuda:0,2 --nodes 2 && same two-trainers-two-gpus
MUSTER_CUDA_GRAPHS=off train without-graphs --device cuda:0 && same without-graphs
MUSTER_FAKE_GRAPHS=off train graphs-fail --device cuda:0 && same graphs-fail
[ "$(grep -c 'the driver makes no graph' "$out/graphs-fail.log")" = 1 ] || die "that there are no graphs is not said once: $(cat "$out/graphs-fail.log")"
MUSTER_FAKE_LOCKS=off train locks-fail --device cuda:0,1 && same locks-fail
[ "$(grep -c 'the driver does not lock its memory' "$out/locks-fail.log")" = 1 ] || die "that no memory is locked is not said once: $(cat "$out/locks-fail.log")"
if grep -l 'makes no graph\|does not lock' "$out"/{one,two-trainers,two-gpus,four-gpus,two-trainers-two-gpus}.log; then die "they warn of a driver that does all"; fi
# The same where outputs are kept in bf16, with a limit of the norm, which the card finds where a trainer is alone.
sed 's/^passes: 1/passes: 1\nprecision: bf16\noptimizer: {name: adamw, lr: 0.001, clip_norm: 0.5}/' "$out/job.yaml" >"$out/bf16.yaml"
for n in 1 2; do
	timeout 100 $muster train -f "$out/bf16.yaml" --device cuda:0 --nodes $n --out "$out/bf16-$n" >"$out/bf16-$n.log" 2>&1 || die "$(cat "$out/bf16-$n.log")"
done
cmp "$out/bf16-1/model.safetensors" "$out/bf16-2/model.safetensors" || die "in bf16 two trainers end with other weights than one"
cmp -s "$out/bf16-1/model.safetensors" "$out/one/model.safetensors" && die "in bf16 the weights are those of float32"
echo "gpu-fake: the same weights by one trainer, by two, on one, two and four GPUs, with graphs and without, with memory that is locked and without"

if MUSTER_FAKE_MEMORY=100000 train no-memory --device cuda:0; then die "100 KB of GPU memory are enough"; fi
grep -q 'made-up card 0: [0-9]* bytes: out of memory' "$out/no-memory.log" || die "out of memory is not named: $(cat "$out/no-memory.log")"
if MUSTER_FAKE_FAULT=2:lost:40 train one-of-four-lost --device cuda; then die "a card is lost, and nothing is said"; fi
grep -q 'node [^:]*: .*made-up card 2: .*; the last that began was kernel [a-z_]* on .* blocks (' "$out/one-of-four-lost.log" ||
	die "the card that is lost of four is not named: $(cat "$out/one-of-four-lost.log")"

# Two node processes, each with a GPU of its own; that of the second breaks down in a step. It says where, leaves the view and ends; the
# first goes on to the same weights.
sed 's/^passes: 1/passes: 3\ncluster: {servers: 1}/' "$out/job.yaml" >"$out/cluster.yaml"
node() { # NAME ARGUMENTS...
	local name=$1
	shift
	timeout 100 $muster node -f "$out/cluster.yaml" --name "$name" --listen 127.0.0.1:0 --data-dir "$out/data-$name" --out "$out/node-$name" "$@" \
		>"$out/node-$name.log" 2>&1 &
	pids+=($!)
}
timeout 100 $muster train -f "$out/cluster.yaml" --device cuda:0 --out "$out/three" >"$out/three.log" 2>&1
node a --device cuda:0 --log-level info
for _ in $(seq 100); do
	address=$(sed -n 's/^node a listens at \([^ ]*\) .*/\1/p' "$out/node-a.log")
	[ -z "$address" ] || break
	sleep 0.1
done
for _ in $(seq 100); do
	if timeout 5 $muster status --addr "$address" >"$out/status.log" 2>&1 && grep -q 'cuda made-up card 0, .* of 1.0 GiB' "$out/status.log"; then break; fi
	sleep 0.1
done
grep -q 'cuda made-up card 0, .* of 1.0 GiB' "$out/status.log" || die "status does not show what node a computes on: $(cat "$out/status.log")"
MUSTER_FAKE_FAULT=1:relu_backward:3 node b --device cuda:1 --roles trainer --join "$address"
if wait "${pids[1]}"; then die "node b ends well, with its GPU broken down: $(cat "$out/node-b.log")"; fi
wait "${pids[0]}" || die "node a does not go on: $(cat "$out/node-a.log")"
pids=()
for text in 'node b: ' 'made-up card 1: ' 'illegal memory access' 'the last that began was kernel relu_backward on .* blocks (n [0-9]*)'; do
	grep -q "$text" "$out/node-b.log" || die "node b does not say '$text': $(cat "$out/node-b.log")"
done
grep -q 'trainer b is left out: node b: .*relu_backward' "$out/node-a.log" || die "node a does not hear why: $(cat "$out/node-a.log")"
grep -q '"kind":"lost","node":"b".*made-up card 1: .*relu_backward' "$out/node-a/events.jsonl" || die "the history does not say that a card was lost"
cmp "$out/three/model.safetensors" "$out/node-a/model.safetensors" || die "node a ends with other weights"
echo "gpu-fake: a GPU that breaks down is named with its node, its kernel and its shape, and the run goes on to the same weights"
