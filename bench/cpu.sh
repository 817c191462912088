#!/usr/bin/env bash
# Training steps of muster beside PyTorch's, and matrix products beside OpenBLAS's, in turn, in one run: only ratios
# taken so mean anything.
#
#   bench/cpu.sh [--trials 3] [--secs 2] [--models "mlp lenet resnet18 gpt"] [--gemm squares,layers,random=1] [--out FILE]
#
# The models' definitions and PyTorch's steps are those of $PEERS (default ../shared/peers), run by Debian's
# python3-torch. What is not there is left out, and the result says so. UNDER is a command to run each measurement
# under, for example one that waits for the machine to be quiet. Writes Markdown to FILE (default
# bench/RESULTS-cpu.md); the rows it is made of stay in $TMPDIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

trials=3 secs=2 models="mlp lenet resnet18 gpt" gemm=squares,layers,random=1 out=bench/RESULTS-cpu.md
while [ $# -gt 0 ]; do
	case "$1" in
	--trials) trials=$2 ;;
	--secs) secs=$2 ;;
	--models) models=$2 ;;
	--gemm) gemm=$2 ;;
	--out) out=$2 ;;
	*) echo "unknown option $1" >&2 && exit 2 ;;
	esac
	shift 2
done
export PEERS=${PEERS:-../shared/peers}
# What the environment tells OpenBLAS to be could make the peer slower than it is.
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS OMP_NUM_THREADS MUSTER_CPU
under=()
if [ -n "${UNDER:-}" ]; then read -ra under <<<"$UNDER"; fi
work=$(mktemp -d "${TMPDIR:-/tmp}/muster-bench-cpu.XXXXXX")
rows=$work/rows.jsonl
: >"$rows"
go build -trimpath -o "$work/muster" ./cmd/muster

# PROGRAM:WORLD:THREADS:SHARDS
units=(muster:1:1:1 muster:1:2:2 muster:1:1:8 muster:1:2:8)
notes=()
if [ ! -d "$PEERS/torch" ]; then
	notes+=("PyTorch is left out: there is no $PEERS/torch (set PEERS)")
elif ! /usr/bin/python3 -c 'import torch.distributed' 2>/dev/null; then
	notes+=("PyTorch is left out: apt-get install python3-torch libopenblas0-pthread")
else
	units+=(torch:1:1:- torch:1:2:- torch:2:1:-)
	if ! readlink -f /usr/lib/*/libblas.so.3 | grep -q openblas; then
		notes+=("PyTorch computes with a BLAS that is not OpenBLAS, which is no fair match: apt-get install libopenblas0-pthread")
	fi
fi
if [ -n "$gemm" ] && ! command -v cc >/dev/null; then
	gemm='' && notes+=("OpenBLAS is left out: no C compiler")
fi
for n in "${notes[@]}"; do echo "$n" >&2; done

measure() { # UNIT MODEL
	local prog world threads shards
	IFS=: read -r prog world threads shards <<<"$1"
	case "$prog" in
	muster) "${under[@]}" "$work/muster" bench step --json --model "$2" --threads "$threads" --shards "$shards" --secs "$secs" ;;
	torch) "${under[@]}" /usr/bin/python3 bench/torch_step.py "$2" --world "$world" --threads "$threads" --secs "$secs" ;;
	esac
}

keep() { sed -n "s/^{/{\"trial\": $1, /p" >>"$rows"; } # TRIAL

for ((trial = 1; trial <= trials; trial++)); do
	for model in $models; do
		for ((i = 0; i < ${#units[@]}; i++)); do
			# Every other trial goes the other way round.
			unit=${units[i]}
			if ((trial % 2 == 0)); then unit=${units[${#units[@]} - 1 - i]}; fi
			echo "trial $trial of $trials, $model, $unit" >&2
			measure "$unit" "$model" </dev/null | keep "$trial"
		done
	done
done
for shapes in ${gemm//,/ }; do # each kind takes less than a minute
	echo "matrix products: $shapes" >&2
	secs=0.5
	case "$shapes" in random*) secs=0.2 ;; esac
	MUSTER=$work/muster "${under[@]}" bench/gemm.sh --json --secs $secs --shapes "$shapes" | keep 1
done
go run ./bench/cputable "$rows" "${notes[@]}" >"$work/table.md"
mv "$work/table.md" "$out"
echo "written: $out (rows: $rows)" >&2
