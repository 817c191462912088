#!/usr/bin/env bash
# All-reduces over slow and long links: ranks in network namespaces of this machine, on a bridge, each link limited by tbf; and
# on a switch of our own that delays every packet by 10 or 20 ms (bench/farswitch). It takes about two and a half minutes.
#
#   bench/net.sh [--secs 1] [--out FILE]
#
# Needs root, ip and tc. Writes Markdown to FILE (default bench/RESULTS-net.md). The namespaces are its own (mnet-*) and
# are removed at the end; nothing else of the machine's network is touched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

secs=1 out=bench/RESULTS-net.md
while [ $# -gt 0 ]; do
	case "$1" in
	--secs) secs=$2 ;;
	--out) out=$2 ;;
	*) echo "unknown option $1" >&2 && exit 2 ;;
	esac
	shift 2
done
[ "$(id -u)" = 0 ] || { echo "bench/net.sh: network namespaces need root: run it with sudo" >&2 && exit 1; }
for tool in ip tc; do
	command -v $tool >/dev/null || { echo "bench/net.sh: $tool is missing: install iproute2" >&2 && exit 1; }
done

world=4 # namespaces; smaller worlds use the first ones
work=$(mktemp -d "${TMPDIR:-/tmp}/muster-bench-net.XXXXXX")
far=     # the switch's process
cleanup() {
	[ -z "$far" ] || kill "$far" 2>/dev/null || true
	for ((i = 0; i < world; i++)); do ip netns del "mnet-$i" 2>/dev/null || true; done
	ip netns del mnet-hub 2>/dev/null || true
	rm -rf "$work"
}
cleanup
mkdir -p "$work"
trap cleanup EXIT

ip netns add mnet-hub
ip -n mnet-hub link add br0 type bridge
ip -n mnet-hub link set br0 up
for ((i = 0; i < world; i++)); do
	ip netns add "mnet-$i"
	ip -n mnet-hub link add "p$i" type veth peer name eth0 netns "mnet-$i"
	ip -n mnet-hub link set "p$i" master br0 up
	ip -n "mnet-$i" addr add "10.77.0.$((i + 1))/24" dev eth0
	ip -n "mnet-$i" link set eth0 up
	ip -n "mnet-$i" link set lo up
done

# rate RANK RATE: both directions of a rank's link. The burst must hold a whole offloaded packet, or the kernel cuts
# each one up, and this machine, not the link, is the limit.
rate() {
	ip netns exec "mnet-$1" tc qdisc replace dev eth0 root tbf rate "$2" burst 256kb limit 1mb
	ip netns exec mnet-hub tc qdisc replace dev "p$1" root tbf rate "$2" burst 256kb limit 1mb
}

go build -trimpath -o "$work/muster" ./cmd/muster

go build -trimpath -o "$work/farswitch" ./bench/farswitch

# row NAME MEGABITS WORLD SIZES [STRIPES]: lines of the table; MEGABITS is the slowest link's rate.
net=10.77.0
row() {
	"$work/muster" bench ring --json --world "$3" --sizes "$4" --stripes "${5:-1}" --secs "$secs" --min-iters 3 --warmup 1 \
		--launch "ip netns exec mnet-{rank}" --listen "$net.{n}:0" |
		sed -E 's/.*"bytes":([0-9]+).*"slowest_med_us":([0-9.]+).*"cpu_s_per_GB":([0-9.]+).*/\1 \2 \3/' |
		while read -r bytes us cpu; do
			LC_ALL=C awk -v name="$1" -v mb="$2" -v w="$3" -v b="$bytes" -v us="$us" -v cpu="$cpu" 'BEGIN {
				wire = 8 * b * 2 * (w - 1) / w / us # megabits a second
				printf "| %s | %d | %g MiB | %.1f | %.0f | %.0f %% | %.1f |\n", name, w, b / 1048576, us / 1000, wire, 100 * wire / mb, cpu }'
		done | tee -a "$work/table"
}

for r in 1000 100; do
	for ((i = 0; i < world; i++)); do rate "$i" "${r}mbit"; done
	for w in 2 3 4; do
		if [ $r = 1000 ]; then row "$r Mb/s" $r $w 1M,16M,64M; else row "$r Mb/s" $r $w 1M,8M; fi
	done
done
# forms MEGABITS WORLD: a line for each form in which gradients travel, and how many times float32's speed it has, in bytes of
# gradient.
forms() {
	local form
	for form in float32 bf16 int8 exact; do
		"$work/muster" bench ring --json --form $form --world "$2" --sizes 16M --secs "$secs" --min-iters 3 --warmup 1 \
			--launch "ip netns exec mnet-{rank}" --listen "$net.{n}:0" |
			sed -E 's/.*"slowest_med_us":([0-9.]+).*"cpu_s_per_GB":([0-9.]+).*/\1 \2/' | sed "s/^/$form /"
	done | LC_ALL=C awk -v mb="$1" -v w="$2" '{
		if (NR == 1) float = $2
		printf "| %s Mb/s | %d | %s | %.1f | %.2f | %.1f |\n", mb, w, $1, $2 / 1000, float / $2, $3 }' | tee -a "$work/forms"
}
for r in 1000 4000; do
	for ((i = 0; i < world; i++)); do rate "$i" "${r}mbit"; done
	for w in 2 4; do forms $r $w; done
done

for ((i = 0; i < world; i++)); do rate "$i" 1000mbit; done
rate 1 100mbit
row "1000 Mb/s, one of 100 Mb/s" 100 4 1M,8M

# long DELAY: every rank's second card, far0, on a switch whose wires are so long. Jumbo frames keep the switch cheap.
long() {
	if [ -n "$far" ]; then
		kill "$far"
		wait "$far" 2>/dev/null || true
	fi
	"$work/farswitch" -delay "$1" mnf0 mnf1 mnf2 mnf3 >"$work/ready" &
	far=$!
	until [ -s "$work/ready" ]; do kill -0 "$far" && sleep 0.1; done
	for ((i = 0; i < world; i++)); do
		ip link set "mnf$i" netns "mnet-$i"
		ip -n "mnet-$i" link set "mnf$i" name far0 mtu 9000
		ip -n "mnet-$i" addr add "10.78.0.$((i + 1))/24" dev far0
		ip -n "mnet-$i" link set far0 up
	done
	: >"$work/ready"
}
# pace RATE: of the long links, out of each rank.
pace() { for ((i = 0; i < world; i++)); do ip netns exec "mnet-$i" tc qdisc replace dev far0 root tbf rate "$1" burst 256kb limit 8mb; done; }
net=10.78.0
long 10ms
for w in 2 3 4; do
	pace 100mbit && row "100 Mb/s, 10 ms each way" 100 $w 8M
	pace 1000mbit && row "1000 Mb/s, 10 ms each way" 1000 $w 64M
done
long 20ms
pace 1000mbit
row "1000 Mb/s, 20 ms each way" 1000 2 64M,256M
for s in 2 4; do row "1000 Mb/s, 20 ms each way, stripes: $s" 1000 2 64M,256M $s; done

# formVerdict TARGET LEAST FORM
formVerdict() {
	LC_ALL=C awk -F ' *[|] *' -v target="$1" -v least="$2" -v form="$3" '
		$4 == form { if (!n++ || $6 < worst) { worst = $6; where = $2 ", world " $3 } }
		END { printf "| %s | %s | %s | %s | %s |\n", target, least, worst, where, worst >= least ? "reached" : "**not reached**" }' "$work/forms"
}

# verdict TARGET LEAST PATTERN: the worst share of the rows whose link matches.
verdict() {
	LC_ALL=C awk -F ' *[|] *' -v target="$1" -v least="$2" -v pattern="$3" '
		$2 ~ pattern { share = $7 + 0; if (!n++ || share < worst) { worst = share; where = $2 ", world " $3 ", " $4 } }
		END { printf "| %s | %d %% | %d %% | %s | %s |\n", target, least, worst, where, worst >= least ? "reached" : "**not reached**" }' "$work/table"
}

{
	cat <<-END
		# All-reduces over slow links

		Written by bench/net.sh (make bench-net) on $(date -u '+%Y-%m-%d %H:%M UTC'). Ranks are processes in network namespaces of one
		machine, on a bridge; each rank's link is limited in both directions by tbf. float32; medians of the slowest rank's times.
		"On the wire" is 2(n-1)/n of the vector per time, which every link carries each way; its share is that of the slowest
		link's rate. Ethernet, IP and TCP headers take 4.4 % of a link, so 95.6 % is all there is.

		- Machine: $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(nproc) cores; Linux $(uname -r); TCP congestion control: $(cat /proc/sys/net/ipv4/tcp_congestion_control).
		- "each way": through bench/farswitch, a switch that delays every packet, with frames of 9000 bytes. Reno is only taken
		  where the way is short, so here the system's congestion control is at work, and its limits of what a connection may
		  have on its way: tcp_wmem $(tr '\t' ' ' </proc/sys/net/ipv4/tcp_wmem), or twice wmem_max $(cat /proc/sys/net/core/wmem_max) where that is more. Several connections (sync.stripes) have several times as much.
		- Several connections are not asked for: they are for links where each connection is limited, which this one is not.
		  There, together, they overflow the limiter's queue and send again what is lost.
		- Over long ways a time holds three trips that no bandwidth shortens: the call that asks for the data, and two hops. At 20 ms
		  they are 60 ms, beside the 530 ms that 64 MiB take at 1 Gb/s.
		- A burst of the limiter may pass at once, so a short call can come out above 95.6 %.
		- Where the system's congestion control is bbr, muster takes reno between hosts whose round trip is below 2 ms
		  (internal/pacing says why): with bbr, world 4 reached 87 % of 100 Mb/s.

		## What was to be reached

		The worst row that a line is about.

		| target | least | worst | where | |
		| --- | ---: | ---: | --- | --- |
		$(verdict "1 Gb/s" 90 '^1000 Mb/s$')
		$(verdict "100 Mb/s" 90 '^100 Mb/s$')
		$(verdict "one slow link among fast ones" 90 'one of 100 Mb/s$')
		$(verdict "10 ms each way" 90 '10 ms each way$')
		$(verdict "20 ms each way, one connection" 90 '20 ms each way$')
		$(formVerdict "bf16, times float32's speed" 1.60 bf16)
		$(formVerdict "int8, times float32's speed" 2.00 int8)
		$(formVerdict "exact, times float32's speed" 0.91 exact)

		## What gradients travel as

		16 MiB of float32. A form is worth what it saves on the link, and costs what it takes of the processors: at 4000 Mb/s four ranks
		on $(nproc) cores are near where these are the limit, as they are on loopback (bench/RESULTS-ring.md).

		| link | world | form | ms | times float32's speed | CPU s/GB |
		| --- | ---: | --- | ---: | ---: | ---: |
	END
	cat "$work/forms"
	cat <<-END

		## All rows

		| link | world | vector | ms | Mb/s on the wire | of the link | CPU s/GB |
		| --- | ---: | ---: | ---: | ---: | ---: | ---: |
	END
	cat "$work/table"
} >"$out"
echo "written: $out"
