#!/usr/bin/env bash
# Everything to see on a machine with a GPU, which needs neither Go nor a network: what make pack-gpu has put into .gpu, python3 with
# PyTorch for the comparison. In parts, the most telling first; each has a limit and reports by itself, and none that fails stops the rest.
#
#   scripts/gpu-check.sh [PART...]    without one: all, in this order
#
#   doctor    (1 minute at most)  what the driver says, a product and copies tried
#   test      (2.5)  every operation and model beside the CPU
#   run       (3.5)  the built-in job by one trainer, by two on one card, without graphs, in bf16: the same bytes
#   path      (4)    what the way of gradients adds to a step; how much of it two trainers on one card hide behind computing
#   bench     (9)    training steps beside PyTorch
#   sanitize  (4)    compute-sanitizer: what kernels read and write beyond their memories, and where their threads race
#
# On a machine that is lent for 10 minutes a command: doctor test run path in the first, bench in the second, sanitize in the third.
# In the environment: OUT, the folder for the results (.gpu/out), a file for each part; WITHIN, the seconds that all parts have together (570 where OUT is
# given, as by such a machine, else no limit); JOB, another than
# the built-in one for run; MODELS, BATCH and OVERLAP_JOB (gpu-overlap.sh) for path. scripts/gpu-fake.sh OUT check tries it where there is no GPU.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

out=$(realpath -m "${OUT:-.gpu/out}") logs=$PWD/.gpu/logs muster=$PWD/.gpu/muster-cuda failed=()
within=${WITHIN:-${OUT:+570}}
mkdir -p "$out"
if ! [ -x "$muster" ] || ! [ -x .gpu/cuda.test ]; then echo "gpu-check: .gpu has not what is to be checked: run make pack-gpu where there is Go" >&2 && exit 1; fi

# pack leaves the logs of a part where they survive, also if this script is killed at its next step.
pack() { tar -czf "$out/$part.tar.gz" --exclude='*.safetensors' --exclude='data-*' -C "$logs" "$part"; }

# atMost is so many seconds, or how many are left of all.
atMost() { echo $((${within:-100000} - SECONDS < $1 ? ${within:-100000} - SECONDS : $1)); }

step() { # NAME SECONDS COMMAND...
	local name=$1 limit begun=$SECONDS rc
	limit=$(atMost "$2")
	shift 2
	[ "$limit" -gt 2 ] || { failed+=("$part/$name") && echo "== $part/$name: no time left" && return 1; }
	timeout -k 5 "$limit" "$@" >"$dir/$name.log" 2>&1
	rc=$?
	[ $rc = 0 ] || failed+=("$part/$name")
	echo "== $part/$name: $([ $rc = 0 ] && echo ok || echo "FAILED ($rc)"), $((SECONDS - begun)) s"
	[ $rc = 0 ] || tail -n 15 "$dir/$name.log" | cut -c 1-400
	pack
	return $rc
}

doctor() {
	step nvidia-smi 15 nvidia-smi
	step doctor 45 env -u MUSTER_CUBLAS "$muster" doctor
	cat "$dir/doctor.log"
}

# Tests expect to be in their package; here they take the GPU alone, not the emulator.
in_package=(env -C trainer/device/cuda MUSTER_GPU_ONLY=1)

# Where one fails each is done by itself besides: a GPU that has broken down fails all that follow in the same process.
tests() {
	local name
	step ops-and-models 150 "${in_package[@]}" "$PWD/.gpu/cuda.test" -test.v && return
	grep -A 4 -e '^ *--- FAIL' "$dir/ops-and-models.log" | head -n 40 | cut -c 1-300
	for name in $("${in_package[@]}" "$PWD/.gpu/cuda.test" -test.list .); do
		step "$name" 30 "${in_package[@]}" "$PWD/.gpu/cuda.test" -test.v -test.run "^$name\$"
	done
}

# A run of two sums buckets while the backward pass goes on. With exact sums all of them end with the same bytes, those in bf16 with others.
runs() {
	local name job="$dir/job.yaml"
	"$muster" train ${JOB:+-f "$JOB"} --print-job >"$job"
	sed 's/^precision: .*/precision: bf16/' "$job" >"$dir/bf16.yaml"
	step of-1 40 "$muster" train -f "$job" --device cuda:0 --nodes 1 --out "$dir/1"
	step of-2 40 "$muster" train -f "$job" --device cuda:0 --nodes 2 --out "$dir/2"
	step without-graphs 40 env MUSTER_CUDA_GRAPHS=off "$muster" train -f "$job" --device cuda:0 --nodes 1 --out "$dir/3"
	step bf16-of-1 40 "$muster" train -f "$dir/bf16.yaml" --device cuda:0 --nodes 1 --out "$dir/4"
	step bf16-of-2 40 "$muster" train -f "$dir/bf16.yaml" --device cuda:0 --nodes 2 --out "$dir/5"
	step same-bytes-of-2 5 cmp "$dir/1/model.safetensors" "$dir/2/model.safetensors"
	step same-bytes-without-graphs 5 cmp "$dir/1/model.safetensors" "$dir/3/model.safetensors"
	step same-bytes-of-2-in-bf16 5 cmp "$dir/4/model.safetensors" "$dir/5/model.safetensors"
	for name in of-1 of-2 bf16-of-1; do
		echo "   $name: $(grep '^run .* is done' "$dir/$name.log")"
	done
	if grep -h 'makes no graph\|does not lock' "$dir"/*.log; then echo "   the driver refuses what would be faster, see above"; fi
}

path() {
	local model
	for model in ${MODELS:-gpt2-small resnet50 lenet}; do
		step "path-$model" 50 "$muster" bench step --path --model "$model" --device cuda:0 --precision bf16 --shards 1 --threads "$(nproc)" --secs 2 --max-steps 50 \
			--batch "${BATCH:-0}" && cat "$dir/path-$model.log"
	done
	step overlap 75 scripts/gpu-overlap.sh "$muster" "$dir" && cat "$dir/overlap.log"
}

compare() {
	step compare 570 env BUDGET="${BUDGET:-$(($(atMost 570) - 50))}" bench/gpu.sh "$dir" >"$dir/compare.short"
	head -n 1 "$dir/compare.short"
	grep '^failed\|^no time\|^the card' "$dir/compare.log" | cut -c 1-200
	cat "$dir/RESULTS-gpu.md"
	cp "$dir/RESULTS-gpu.md" "$out"
}

sanitize() {
	local sanitizer
	sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer) || { echo "   compute-sanitizer is not installed" && return; }
	step memcheck 120 "${in_package[@]}" "$sanitizer" --tool memcheck --error-exitcode 9 "$PWD/.gpu/cuda.test" -test.run 'MatMul|Convolutions|Attention|Norms'
	step racecheck 120 "${in_package[@]}" "$sanitizer" --tool racecheck --error-exitcode 9 "$PWD/.gpu/cuda.test" -test.run 'MatMul|Convolutions|Attention'
}

# PyTorch brings a cuBLAS, which the loader does not find by itself.
if [ -z "${MUSTER_CUBLAS:-}" ]; then
	torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])' 2>/dev/null)
	for library in "$torch"/../nvidia/*/lib/libcublas.so.1[123]; do
		[ ! -e "$library" ] || export MUSTER_CUBLAS=$library
	done
fi

[ $# -gt 0 ] || set -- doctor test run path bench sanitize
for part in "$@"; do
	case $part in
	doctor) do=doctor ;;
	test) do=tests ;;
	run) do=runs ;;
	path) do=path ;;
	bench) do=compare ;;
	sanitize) do=sanitize ;;
	*) echo "gpu-check: $part is none of doctor, test, run, path, bench, sanitize" >&2 && exit 1 ;;
	esac
	dir=$logs/$part begun=$SECONDS before=${#failed[@]}
	rm -rf "$dir" && mkdir -p "$dir"
	$do
	pack
	echo "== part $part: $((${#failed[@]} - before)) of its steps failed, $((SECONDS - begun)) s, logs in $out/$part.tar.gz"
done
[ ${#failed[@]} = 0 ] || { echo "== FAILED: ${failed[*]}" && exit 1; }
