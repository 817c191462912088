#!/usr/bin/env bash
# All-reduces of muster beside those of its peers, in turn, in one run: only ratios taken so mean anything.
#
#   bench/ring.sh [--trials 3] [--secs 0.3] [--worlds "2 4"] [--sizes 4,1K,...] [--forms "float32 bf16 int8 exact memory"] [--out FILE]
#                 [--control machine|reno]
#
# --control machine leaves the congestion control of TCP as it is, reno runs all in a network namespace with reno (needs root).
# The peers' programs are those of $PEERS (default ../shared/peers); what is not there or not installed is left
# out, and says so. Writes Markdown to FILE (default bench/RESULTS-ring.md) and the rows beside it in $TMPDIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

arguments=("$@") control=machine
trials=3 secs=0.3 worlds="2 4" sizes=4,1K,16K,64K,256K,1M,4M,16M,64M forms="float32 bf16 int8 exact memory" out=bench/RESULTS-ring.md
while [ $# -gt 0 ]; do
	case "$1" in
	--trials) trials=$2 ;;
	--secs) secs=$2 ;;
	--worlds) worlds=$2 ;;
	--sizes) sizes=$2 ;;
	--forms) forms=$2 ;;
	--out) out=$2 ;;
	--control) control=$2 ;;
	*) echo "unknown option $1" >&2 && exit 2 ;;
	esac
	shift 2
done
# Loopback is a network namespace's own, and so is its congestion control: with reno nobody is paced.
if [ "$control" = reno ] && [ -z "${RING_NAMESPACE:-}" ]; then
	export RING_NAMESPACE=own
	exec unshare --net bash -c 'ip link set lo up && sysctl -qw net.ipv4.tcp_congestion_control=reno && exec "$0" "$@"' "$PWD/bench/ring.sh" "${arguments[@]}"
fi
peers=${PEERS:-../shared/peers}
work=$(mktemp -d "${TMPDIR:-/tmp}/muster-bench-ring.XXXXXX")
rows=$work/rows.jsonl
: >"$rows"
go build -trimpath -o "$work/muster" ./cmd/muster

units=()
for f in $forms; do units+=("muster:$f"); done
missing=()
if [ ! -d "$peers" ]; then
	missing+=("every peer: there is no $peers (set PEERS)")
else
	if command -v cc >/dev/null; then units+=(ceiling:-); else missing+=("ceiling: no C compiler"); fi
	if command -v mpicc >/dev/null && command -v mpirun >/dev/null; then
		units+=(mpi:default mpi:ring mpi:segring mpi:yield mpi:yield-ring mpi:shm)
	else
		missing+=("Open MPI: apt-get install openmpi-bin libopenmpi-dev")
	fi
	if /usr/bin/python3 -c 'import torch.distributed' 2>/dev/null; then units+=(gloo:-); else missing+=("Gloo: apt-get install python3-torch"); fi
fi
for m in "${missing[@]}"; do echo "left out: $m" >&2; done

measure() { # UNIT WORLD
	local what=${1%%:*} variant=${1#*:}
	case "$what" in
	muster)
		local options=(--tcp --form "$variant")
		if [ "$variant" = memory ]; then options=(--form float32); fi
		"$work/muster" bench ring --json --world "$2" --sizes "$sizes" --secs "$secs" "${options[@]}"
		;;
	ceiling) "$peers/ceiling/run.sh" --world "$2" --modes stream --sizes "$sizes" --secs "$secs" ;;
	mpi) "$peers/mpi/run.sh" --world "$2" --variants "$variant" --sizes "$sizes" --secs "$secs" ;;
	gloo) /usr/bin/python3 "$peers/torch/allreduce_bench.py" --json --world "$2" --sizes "$sizes" --secs "$secs" ;;
	esac
}

for ((trial = 1; trial <= trials; trial++)); do
	for world in $worlds; do
		for ((i = 0; i < ${#units[@]}; i++)); do
			# Every other trial goes the other way round.
			unit=${units[i]}
			if ((trial % 2 == 0)); then unit=${units[${#units[@]} - 1 - i]}; fi
			echo "trial $trial of $trials, world $world, $unit" >&2
			measure "$unit" "$world" </dev/null | sed -n "s/^{/{\"trial\": $trial, /p" >>"$rows"
		done
	done
done
go run ./bench/ringtable "$rows" "${missing[@]}" >"$work/table.md"
mv "$work/table.md" "$out"
echo "written: $out (rows: $rows)" >&2
