#!/usr/bin/env bash
# Start one muster node on this machine. See --help.
set -euo pipefail

usage() {
	cat <<'HELP'
Usage: scripts/node.sh [OPTION...] [-- MUSTER-NODE-FLAG...]

Start one muster node on this machine, and stay until its run is over. Run it once on
every machine, with the same job and at least one common address in --join, in any order.
Every option may also stand in the environment, under the name on the right.

  -f, --job FILE       the job, the same on every node (default: the built-in one) MUSTER_JOB
      --name NAME      unique in the cluster (default: the host's name)            MUSTER_NAME
      --listen H:P     address of the one port, TCP and UDP (0.0.0.0:7400)         MUSTER_LISTEN
      --join H:P,...   nodes to find the cluster by; one that answers is enough    MUSTER_JOIN
      --advertise H:P  address at which others reach this node (default: by the
                       route to --join)                                            MUSTER_ADVERTISE
      --roles ROLES    server, trainer, or server,trainer (the default)            MUSTER_ROLES
      --cluster NAME   nodes of another cluster are refused (muster)               MUSTER_CLUSTER
      --key-file FILE  the cluster's secret; turns encryption on                   MUSTER_KEY_FILE
      --out DIR        folder for the outputs (default: out of the job)            MUSTER_OUT
      --data-dir DIR   folder for this node's own files (runs/nodes/NAME)          MUSTER_DATA_DIR
      --log FILE       where messages go too (DATA-DIR/node.log)                   MUSTER_LOG
      --bin FILE       the muster binary (default: bin/muster of this checkout, else
                       muster in the PATH, else it is built, which needs Go)       MUSTER_BIN
      --background     return at once; progress and messages go to the log alone,
                       the process id to DATA-DIR/node.pid
  -h, --help           this text

Example, on the second of three machines:
  scripts/node.sh -f job.yaml --name b --join 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400
HELP
}

fail() {
	printf 'node.sh: %s\n' "$*" >&2
	exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
job=${MUSTER_JOB:-} name=${MUSTER_NAME:-} listen=${MUSTER_LISTEN:-0.0.0.0:7400} join=${MUSTER_JOIN:-}
advertise=${MUSTER_ADVERTISE:-} roles=${MUSTER_ROLES:-server,trainer} cluster=${MUSTER_CLUSTER:-muster}
key=${MUSTER_KEY_FILE:-} out=${MUSTER_OUT:-} data=${MUSTER_DATA_DIR:-} log=${MUSTER_LOG:-} bin=${MUSTER_BIN:-}
background=

while [ $# -gt 0 ]; do
	case $1 in
	-h | --help) usage && exit ;;
	--background) background=yes && shift && continue ;;
	--) shift && break ;;
	--*=*) option=${1%%=*} value=${1#*=} && shift ;;
	-*)
		[ $# -ge 2 ] || fail "$1 needs a value; see --help"
		option=$1 value=$2 && shift 2
		;;
	*) fail "$1 is no option; see --help" ;;
	esac
	case $option in
	-f | --job) job=$value ;;
	--name) name=$value ;;
	--listen) listen=$value ;;
	--join) join=$value ;;
	--advertise) advertise=$value ;;
	--roles) roles=$value ;;
	--cluster) cluster=$value ;;
	--key-file) key=$value ;;
	--out) out=$value ;;
	--data-dir) data=$value ;;
	--log) log=$value ;;
	--bin) bin=$value ;;
	*) fail "$option is not known; see --help" ;;
	esac
done

[ -n "$name" ] || name=$(uname -n)
[ -n "$data" ] || data=runs/nodes/$name
[ -n "$log" ] || log=$data/node.log
[ -z "$job" ] || [ -r "$job" ] || fail "the job $job cannot be read; correct --job"
[ -z "$key" ] || [ -r "$key" ] || fail "the key $key cannot be read; correct --key-file"

if [ -z "$bin" ]; then
	bin=$root/bin/muster
	if [ ! -x "$bin" ]; then
		if on_path=$(command -v muster); then
			bin=$on_path
		elif command -v go >/dev/null; then
			printf 'node.sh: building %s\n' "$bin" >&2
			(cd "$root" && CGO_ENABLED=0 go build -o "$bin" ./cmd/muster) || fail "muster cannot be built; see above"
		else
			fail "there is no muster binary here and no Go to build it; copy bin/muster from a machine that has it, or name one with --bin"
		fi
	fi
fi
[ -x "$bin" ] || fail "$bin is no program; correct --bin"

mkdir -p "$data" "$(dirname "$log")" || fail "$data cannot be made; choose another --data-dir"
: 2>/dev/null >>"$log" || fail "$log cannot be written; choose another --log"

args=(node --name "$name" --listen "$listen" --roles "$roles" --cluster "$cluster" --data-dir "$data")
[ -z "$job" ] || args+=(--file "$job")
[ -z "$join" ] || args+=(--join "$join")
[ -z "$advertise" ] || args+=(--advertise "$advertise")
[ -z "$key" ] || args+=(--key-file "$key")
[ -z "$out" ] || args+=(--out "$out")

if [ -n "$background" ]; then
	nohup "$bin" "${args[@]}" "$@" </dev/null >>"$log" 2>&1 &
	echo $! >"$data/node.pid"
	printf 'node %s runs in the background, process %s\n  follow it: tail -f %s\n  stop it:   kill %s\n' "$name" $! "$log" $!
	exit
fi
# muster takes this process's place: its signals and its exit are the node's own. Messages
# go to the terminal and the log, progress to the terminal alone.
exec "$bin" "${args[@]}" "$@" 2> >(exec tee -a "$log" >&2)
