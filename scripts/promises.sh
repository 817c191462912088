#!/usr/bin/env bash
# The table of promises in docs/replication.md, row by row against real processes, disks and networks: runs the tests
# that each row names and prints a verdict for it. A row that names no test, or one that is not there, fails.
# Rows about full disks and cut cables need root, and are skipped without. Takes about ten minutes; logs are in runs/promises.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."
table=docs/replication.md logs=runs/promises
mkdir -p "$logs"

# run TEST: sets verdict to passed, skipped or FAILED, once for each test.
declare -A verdicts=()
run() {
	local test=$1 package
	verdict=${verdicts[$test]:-}
	[ -z "$verdict" ] || return 0
	verdict=passed
	for package in $(git grep -l "^func $test(t \*testing.T)" -- '*_test.go' | xargs -r -n1 dirname); do
		go test -count=1 -v -run "^$test\$" "./$package" </dev/null >"$logs/$test.log" 2>&1 || verdict=FAILED
		[ "$verdict" = FAILED ] || ! grep -q -- '--- SKIP' "$logs/$test.log" || verdict=skipped
	done
	[ -n "${package:-}" ] || verdict='FAILED (there is no such test)'
	verdicts[$test]=$verdict
}

failed=0 rows=0
while IFS='|' read -r _ failure _ _ tests _; do
	rows=$((rows + 1)) names=$(grep -o 'Test[A-Za-z]*' <<<"$tests" || true)
	begin=$SECONDS result=
	for test in ${names:-none}; do
		run "$test"
		result+="${result:+, }$test $verdict"
	done
	[[ $result != *FAILED* ]] || failed=$((failed + 1))
	printf '%4ds  %s\n       %s\n' $((SECONDS - begin)) "$(sed 's/^ *//; s/ *$//' <<<"$failure")" "$result"
done < <(sed -n '/^## The failure matrix/,/^Not covered/p' "$table" | grep '^|' | tail -n +3)

if ((rows == 0)); then
	echo "promises: $table has no table under \"The failure matrix\"" >&2
	exit 1
fi
echo "$rows rows, $failed failed"
exit $((failed > 0))
