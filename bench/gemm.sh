#!/usr/bin/env bash
# Matrix products of muster beside those of OpenBLAS, shape by shape in turns, on one processor.
#
#   bench/gemm.sh [--shapes squares,layers,odd,random=1] [--secs 2] [--json]     see muster bench gemm --help
#
# Both run on the same processor, which is not the same as another one where they are shared with other machines.
# MUSTER is a muster already built (default: it is built here). OpenBLAS chooses its kernels itself: whatever the
# environment says about them is left out, lest we compare with less than it can do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/muster-bench-gemm.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! command -v cc >/dev/null; then
	echo "bench/gemm.sh: no C compiler (Debian: apt-get install gcc libc6-dev)" >&2 && exit 1
fi
cc -O2 -Wall -o "$work/openblas" bench/openblas/sgemm.c -ldl
if [ -z "${MUSTER:-}" ]; then
	go build -trimpath -o "$work/muster" ./cmd/muster
	MUSTER=$work/muster
fi
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS
on=()
if command -v taskset >/dev/null; then on=(taskset -c "$(taskset -cp $$ | sed 's/.*[ ,-]//')"); fi
"${on[@]}" "$MUSTER" bench gemm --beside "$work/openblas" "$@"
