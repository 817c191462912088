#!/usr/bin/env bash
# What a build with CUDA needs and a machine without CUDA lacks, into .cuda: cuda.h, NVRTC (with --compiler), and a
# libcuda to link with (trainer/device/cuda/stub). Nothing of it is needed where the binary runs but NVIDIA's driver.
#
#   scripts/cuda-sdk.sh [--compiler]
#
# The header is taken from $CUDA_HOME (default /usr/local/cuda) where it is there, of CUDA 12 or newer; else NVIDIA's wheels come from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sdk=.cuda wheels=()
mkdir -p "$sdk/lib"
die() { echo "cuda-sdk: $*" >&2 && exit 1; }
[ "$(uname -sm)" = "Linux x86_64" ] || die "builds with CUDA are made on Linux x86-64, not on $(uname -sm)"

version() { awk '/#define CUDA_VERSION/ { print $3 }' "$1"; }
header() { # CUDA.H
	mkdir -p "$sdk/include"
	cp "$1" "$sdk/include/cuda.h"
	if [ "$(version "$1")" -ge 13000 ]; then cat trainer/device/cuda/stub/older.h >>"$sdk/include/cuda.h"; fi
}
[ ! -L "$sdk/include" ] || rm "$sdk/include"
cuda=${CUDA_HOME:-/usr/local/cuda}
if [ -f "$cuda/include/cuda.h" ] && [ "$(version "$cuda/include/cuda.h")" -ge 12000 ]; then
	header "$cuda/include/cuda.h"
elif [ ! -f "$sdk/include/cuda.h" ]; then
	wheels+=(nvidia-cuda-runtime-cu12==12.9.79)
fi
if [ "${1:-}" = --compiler ] && [ ! -f "$sdk/lib/libnvrtc.so.12" ]; then wheels+=(nvidia-cuda-nvrtc-cu12==12.9.86); fi

if [ ${#wheels[@]} -gt 0 ]; then
	python3 -m pip --version >/dev/null 2>&1 || die "there is no CUDA in $cuda, and to fetch it from PyPI needs python3 with pip (apt-get install python3-pip)"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" "${wheels[@]}" ||
		die "could not fetch ${wheels[*]} from PyPI"
	for w in "$work"/*.whl; do python3 -m zipfile -e "$w" "$work/x"; done
	for part in "$work"/x/nvidia/*/; do
		[ ! -f "$part/include/cuda.h" ] || header "$part/include/cuda.h"
		[ ! -f "$part/lib/libnvrtc.so.12" ] || cp "$part"/lib/libnvrtc.so.12 "$part"/lib/libnvrtc-builtins.so.* "$sdk/lib/"
	done
fi

cc=${CC:-gcc}
command -v "$cc" >/dev/null || die "there is no C compiler (apt-get install gcc libc6-dev)"
# With every call, which may be its second version or a later one, the first: what has been compiled with another CUDA's header links, too.
"$cc" -E -P "$sdk/include/cuda.h" | tr '\n' ' ' | grep -oE 'CUresult +cu[A-Z][A-Za-z0-9_]*' | awk '{ print $2; sub(/_v[0-9]+$/, "", $2); print $2 }' |
	grep -vx cuInit | sort -u | sed 's/.*/EACH(&)/' >"$sdk/SYMBOLS.h"
"$cc" -O2 -fPIC -I"$sdk" -c trainer/device/cuda/stub/libcuda.c -o "$sdk/lib/libcuda.o"
rm -f "$sdk/lib/libcuda.a"
ar rcs "$sdk/lib/libcuda.a" "$sdk/lib/libcuda.o"
echo "$sdk: headers of $(version "$sdk/include/cuda.h" | awk '{ print "CUDA " int($1 / 1000) "." int($1 % 1000 / 10) }'), $(wc -l <"$sdk/SYMBOLS.h") functions to link with"
