#!/usr/bin/env bash
# Everything to see on a machine with a GPU, which needs neither Go nor a network: what make pack-gpu has put into .gpu, python3 with
# PyTorch for the comparison. Every step has a limit, and none that fails stops the rest.
#
#   scripts/gpu-check.sh [test|run|bench|all] [OUT]    all is the default; logs and results go to OUT (default .gpu/out)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

what=${1:-all} out=$(realpath -m "${2:-.gpu/out}") failed=()
mkdir -p "$out"
muster=$PWD/.gpu/muster-cuda

step() { # NAME SECONDS COMMAND...
	local name=$1 limit=$2 begun=$SECONDS rc
	shift 2
	timeout "$limit" "$@" >"$out/$name.log" 2>&1
	rc=$?
	[ $rc = 0 ] || failed+=("$name")
	echo "== $name: $([ $rc = 0 ] && echo ok || echo "FAILED ($rc)"), $((SECONDS - begun)) s"
	[ $rc = 0 ] || tail -n 15 "$out/$name.log"
}

# Tests expect to be in their package; here they take the GPU alone, not the emulator.
in_package=(env -C trainer/device/cuda MUSTER_GPU_ONLY=1)

tests() {
	[ -x .gpu/cuda.test ] || { echo "there is no .gpu/cuda.test: run make pack-gpu where there is Go" && exit 1; }
	local test=$PWD/.gpu/cuda.test sanitizer
	step nvidia-smi 20 nvidia-smi
	step ops-and-models 150 "${in_package[@]}" "$test" -test.v
	sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer)
	if [ -z "$sanitizer" ]; then
		echo "== compute-sanitizer: not installed, not run"
		return
	fi
	step memcheck 120 "${in_package[@]}" "$sanitizer" --tool memcheck --error-exitcode 9 "$test" -test.run 'MatMul|Convolutions|Attention|Norms'
	step racecheck 120 "${in_package[@]}" "$sanitizer" --tool racecheck --error-exitcode 9 "$test" -test.run 'MatMul|Convolutions|Attention'
}

# The built-in job by one trainer, by two on one card, and with every kernel launched by itself: with exact sums the same bytes. A run of two
# sums buckets while the backward pass goes on.
runs() {
	step doctor 60 "$muster" doctor
	cat "$out/doctor.log"
	step run-of-1 60 "$muster" train --device cuda --nodes 1 --out "$out/run1"
	step run-of-2 60 "$muster" train --device cuda --nodes 2 --out "$out/run2"
	step run-without-graphs 60 env MUSTER_CUDA_GRAPHS=off "$muster" train --device cuda --nodes 1 --out "$out/run3"
	step same-bytes-of-2 5 cmp "$out/run1/model.safetensors" "$out/run2/model.safetensors"
	step same-bytes-without-graphs 5 cmp "$out/run1/model.safetensors" "$out/run3/model.safetensors"
	if grep -hq 'makes no graph' "$out"/run-of-*.log; then echo "== graphs: the driver makes none, see $out/run-of-1.log"; fi
}

case $what in
test) tests ;;
run) runs ;;
bench) bench/gpu.sh "$out" ;;
all) tests && runs && bench/gpu.sh "$out" ;;
*) echo "gpu-check: $what is none of test, run, bench" >&2 && exit 1 ;;
esac
[ ${#failed[@]} = 0 ] || { echo "== FAILED: ${failed[*]}" && exit 1; }
