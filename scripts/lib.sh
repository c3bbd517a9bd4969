# shellcheck shell=bash
# What the commands of this folder share. Sourced, never run.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd -- "$root" || exit

# mkfs.xfs and libvirtd live in sbin, which a user's PATH may lack; Go's own
# installer leaves PATH to the login shell.
PATH=$PATH:/usr/local/go/bin:/usr/sbin:/sbin
export PATH

# No command here may change go.mod or go.sum, need a C compiler, or depend on
# what git thinks of the checkout's owner.
export GOFLAGS="${GOFLAGS:-} -mod=readonly -buildvcs=false"
export GOWORK=off
export CGO_ENABLED=0

self=scripts/$(basename -- "$0")

# die STATUS MESSAGE: the clear last line of a run that could not go on.
die() {
	printf '%s: %s\n' "$self" "$2" >&2
	exit "$1"
}

# usage prints the comment at the head of the script, which is its help.
usage() {
	sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

need_go() {
	command -v go >/dev/null ||
		die 1 'go is not installed; Go 1.26 or newer is needed, see https://go.dev/dl'
}

# fuzz_targets prints a line "PACKAGE TARGET" for every fuzz target.
fuzz_targets() {
	go test -vet=off -list '^Fuzz' ./... | awk '
		/^Fuzz/ { names[n++] = $1 }
		$1 == "ok" { for (i = 0; i < n; i++) print $2, names[i] }
		$1 == "ok" || $1 == "?" { n = 0 }'
}

# fuzz_run PACKAGE TARGET SECONDS LOG fuzzes one target. Status 0: nothing found.
fuzz_run() {
	# Minimising a large input can take longer than all of the fuzzing, so one
	# attempt is enough. No seeds of other targets: the tests have run them.
	go test -vet=off -run '^$' -fuzz "^$2\$" -fuzztime "$3s" \
		-fuzzminimizetime 1x "$1" >"$4" 2>&1 || fuzz_only_timed_out "$4"
}

# fuzz_only_timed_out LOG tells whether a failed run is only the end of its
# time: the go command now and then reports its own deadline as a failure.
fuzz_only_timed_out() {
	grep -q '^ *context deadline exceeded$' "$1" &&
		! grep -Eq 'Failing input written to|failure while testing seed|^panic:' "$1"
}
