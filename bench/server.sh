#!/usr/bin/env bash
# Replicated parameter servers on this machine: rounds over a model of 25 blocks of 4 MiB, the log alone, and killed leaders.
#
#   bench/server.sh [--parts "speed ingress kill"] [--trials 3] [--kills 50] [--rows FILE] [--out FILE]
#
# Writes Markdown to FILE (default bench/RESULTS-server.md). With --rows the measurements are added to those that are in that
# file already, so that the parts can be run one after the other; the last one writes the table of all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

parts="speed ingress kill" trials=3 kills=50 rows='' out=bench/RESULTS-server.md
while [ $# -gt 0 ]; do
	case "$1" in
	--parts) parts=$2 ;;
	--trials) trials=$2 ;;
	--kills) kills=$2 ;;
	--rows) rows=$2 ;;
	--out) out=$2 ;;
	*) echo "unknown option $1" >&2 && exit 2 ;;
	esac
	shift 2
done
work=$(mktemp -d "${TMPDIR:-/tmp}/muster-bench-server.XXXXXX")
rows=${rows:-$work/rows.jsonl}
touch "$rows"
go build -trimpath -o "$work/muster" ./cmd/muster
go build -o "$work/servertable" ./bench/servertable

measure() { # TRIAL OPTION...
	local trial=$1
	shift
	echo "trial $trial: $*" >&2
	"$work/muster" bench server --json "$@" </dev/null | sed -n "s/^{/{\"trial\": $trial, /p" >>"$rows"
}

speed=(
	"--replicas 1 --rounds 40"
	"--replicas 3 --rounds 25 --warmup 8"
	"--replicas 3 --rounds 40 --mode log"
	"--replicas 1 --rounds 10 --warmup 12 --durability disk"
	"--replicas 3 --rounds 8 --warmup 12 --durability disk"
	"--replicas 3 --rounds 500 --warmup 50 --mode sparse"
)
for part in $parts; do
	case "$part" in
	speed)
		for ((trial = 1; trial <= trials; trial++)); do
			for ((i = 0; i < ${#speed[@]}; i++)); do
				# Every other trial goes the other way round.
				unit=${speed[i]}
				if ((trial % 2 == 0)); then unit=${speed[${#speed[@]} - 1 - i]}; fi
				# shellcheck disable=SC2086 # options are words
				measure "$trial" $unit
			done
		done
		;;
	ingress) for n in 2 4 8; do measure 1 --trainers "$n" --rounds 15 --warmup 5; done ;;
	kill) measure 1 --mode kill --kills "$kills" ;;
	*) echo "there is no part $part: use speed, ingress, kill" >&2 && exit 2 ;;
	esac
done
"$work/servertable" "$rows" >"$work/table.md"
mv "$work/table.md" "$out"
echo "written: $out (rows: $rows)" >&2
