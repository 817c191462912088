#!/usr/bin/env bash
# The promise, shown on this machine: three nodes train together, the one that leads is
# killed half-way, the run goes on, and the weights come out the same, bit for bit, as
# those of the same job undisturbed in one process. Exits non-zero where that is not so.
# Needs bin/muster (make build) and bash; writes to runs/demo only.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."

muster=bin/muster dir=runs/demo min_accuracy=98
nodes=(node-a node-b node-c)
declare -A pid=() addr=()

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }
die() {
	printf '\ndemo: FAILED: %s\n' "$*" >&2
	exit 1
}
cleanup() {
	for n in "${!pid[@]}"; do
		kill "${pid[$n]}" 2>/dev/null && wait "${pid[$n]}" 2>/dev/null
	done
	true
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# field NAME TEXT: the value of the first "NAME": in a line of JSON.
field() { [[ $2 =~ \"$1\":(\"([^\"]*)\"|([^\",}]+)) ]] && printf '%s' "${BASH_REMATCH[2]}${BASH_REMATCH[3]}"; }
micros() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }
# seconds MICROSECONDS: as 1.23.
seconds() { printf '%d.%02d' $(($1 / 1000000)) $(($1 % 1000000 / 10000)); }
status() { "$muster" status --json --addr "$1" 2>/dev/null; }

((BASH_VERSINFO[0] >= 5)) || die "this is bash $BASH_VERSION; version 5 or later is needed"
[ -x "$muster" ] || die "there is no $muster; run: make build"
rm -rf "$dir" && mkdir -p "$dir"
"$muster" train --print-job >"$dir/job.yaml"
begun=$(micros)

say "1. Three nodes on this machine, each parameter server and trainer, by scripts/node.sh"
start() { # NAME JOIN
	scripts/node.sh --job "$dir/job.yaml" --name "$1" --listen 127.0.0.1:0 --join "$2" --cluster "demo-$$" --bin "$muster" \
		--data-dir "$dir/$1" --out "$dir/$1/out" -- --json >"$dir/$1.jsonl" 2>/dev/null &
	pid[$1]=$!
	local line=
	for _ in {1..100}; do
		line=$(head -n 1 "$dir/$1.jsonl" 2>/dev/null) || true # the file comes when the node is started
		[ -z "$line" ] || break
		kill -0 "${pid[$1]}" 2>/dev/null || break
		sleep 0.1
	done
	addr[$1]=$(field addr "$line") || die "$1 did not start: $(tail -n 3 "$dir/$1/node.log" 2>/dev/null)"
	printf '%s listens at %s (process %s)\n' "$1" "${addr[$1]}" "${pid[$1]}"
}
start node-a ""
start node-b "${addr[node-a]}"
start node-c "${addr[node-a]}"

# progress LINE: renewed in place on a terminal, else every two seconds.
shown=0
progress() {
	local now
	now=$(micros)
	if [ -t 1 ]; then
		printf '\r\033[K%s' "$1"
	elif ((now - shown > 2000000)); then
		printf '%s\n' "$1"
		shown=$now
	fi
}

# watch NODE UNTIL: show the run as NODE sees it until UNTIL steps are done or it ends.
state='' done_steps=0
watch() {
	local still moved step rate
	moved=$(micros)
	while kill -0 "${pid[$1]}" 2>/dev/null; do
		state=$(status "${addr[$1]}") || state=
		step=$(field step "$state") || step=0
		if ((step > done_steps)); then
			done_steps=$step moved=$(micros)
			rate=$(field samples_per_second "$state") || rate=0
			progress "step $step of $(field steps "$state"), loss $(field loss "$state" | cut -c 1-6), ${rate%%.*} samples/s, coordinated by $(field coordinator "$state")"
		fi
		if ((done_steps >= $2)); then
			break
		fi
		still=$(($(micros) - moved))
		((still < 60000000)) || die "no step for 60 s: $("$muster" why --addr "${addr[$1]}")"
		sleep 0.1
	done
	[ ! -t 1 ] || printf '\n'
}

steps=$(field steps "$(status "${addr[node-a]}")") || die "node-a does not answer"
watch node-a $((steps / 2))

victim=$(field coordinator "$state") || die "the run ended before half of its steps were done"
part=${state#*\"node\":\""$victim"\",\"addr\"} part=${part%%\"waits\":*}
leads=$(grep -o '"group":"[^"]*"' <<<"$part" | cut -d '"' -f 4 | sort | paste -s -d ' ' -) || leads=nothing
say "2. kill -9 $victim (process ${pid[$victim]}): it leads $leads, and trains logical shards $(grep -o '"logical_shards":[^]]*' <<<"$part" | cut -d '[' -f 2)"
killed=$(micros) at=$done_steps
kill -9 "${pid[$victim]}"
wait "${pid[$victim]}" 2>/dev/null || true
unset "pid[$victim]"
survivors=()
for n in "${nodes[@]}"; do [ "$n" = "$victim" ] || survivors+=("$n"); done
first=${survivors[0]}
watch "$first" $((at + 2))
printf 'the run goes on with %s\n' "${survivors[*]}"
watch "$first" "$steps"
for n in "${survivors[@]}"; do
	wait "${pid[$n]}" || die "$n failed: $(tail -n 3 "$dir/$n/node.log")"
	unset "pid[$n]"
done

say "3. The same job in one process, undisturbed: $muster train"
"$muster" train -f "$dir/job.yaml" --out "$dir/alone" --json >"$dir/alone.jsonl" &
pid[alone]=$!
while kill -0 "${pid[alone]}" 2>/dev/null; do
	line=$(tail -n 1 "$dir/alone.jsonl")
	if step=$(field step "$line"); then
		progress "step $step of $steps, loss $(field loss "$line" | cut -c 1-6)"
	fi
	sleep 0.2
done
[ ! -t 1 ] || printf '\n'
wait "${pid[alone]}" || die "muster train failed"
unset "pid[alone]"

say "4. The outcome"
sha() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1; }
# day TIME: the microseconds since midnight of an RFC 3339 time in UTC.
day() {
	[[ $1 =~ T([0-9]+):([0-9]+):([0-9]+)\.?([0-9]*) ]]
	local fraction=${BASH_REMATCH[4]}000000
	printf '%s' $((((10#${BASH_REMATCH[1]} * 60 + 10#${BASH_REMATCH[2]}) * 60 + 10#${BASH_REMATCH[3]}) * 1000000 + 10#${fraction:0:6}))
}
out=$dir/$first/out

recovered=$(grep '"kind":"recovered"' "$out/events.jsonl" | head -n 1) || die "no recovery is in $out/events.jsonl: was $victim killed too late?"
gap=$((($(day "$(field time "$recovered")") - killed % 86400000000 + 86400000000) % 86400000000))
printf 'recovery      %s s from kill -9 to the next step (%s)\n' "$(seconds $gap)" "$(field text "$recovered")"

mapfile -t counted < <(grep -o '^{"step":[0-9]*' "$out/metrics.jsonl" | cut -d : -f 2)
for ((i = 0; i < steps; i++)); do
	[ "${counted[i]:-none}" = "$i" ] || die "line $((i + 1)) of $out/metrics.jsonl is of step ${counted[i]:-none}, not $i"
done
((${#counted[@]} == steps)) || die "$out/metrics.jsonl has ${#counted[@]} steps, the job has $steps"
printf 'steps         all %s, each of them once\n' "$steps"

accuracy=$(field test_accuracy "$("$muster" eval "$out/model.safetensors" --json)") || die "muster eval failed"
printf -v percent '%.2f' "${accuracy}e2"
printf 'accuracy      %s %% of the held-out digits\n' "$percent"
((${percent%.*} >= min_accuracy)) || die "that is less than $min_accuracy %"

undisturbed=$(sha "$dir/alone/model.safetensors")
for n in "${survivors[@]}"; do
	printf 'weights       sha256 %s  of %s, which lived through the kill\n' "$(sha "$dir/$n/out/model.safetensors")" "$n"
done
printf '              sha256 %s  undisturbed, in one process\n' "$undisturbed"
for n in "${survivors[@]}"; do
	[ "$(sha "$dir/$n/out/model.safetensors")" = "$undisturbed" ] || die "the weights of $n differ from those of the undisturbed run"
done
printf '              They are equal: the same bytes, with %s killed half-way.\n' "$victim"
printf 'outputs       %s: model.safetensors, metrics.jsonl, events.jsonl, job.yaml\n' "$out"
printf '              logs of the nodes: %s/node-*/node.log\n' "$dir"
printf 'all in all    %s s\n' "$(seconds $(($(micros) - begun)))"
