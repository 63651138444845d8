#!/bin/sh
# Builds gVisor's runsc, pinned and hash-checked by go.mod and go.sum beside this file.
#
#   build.sh <out-path>
#
# Environment: GO (the go command, >= 1.26.3; default "go"), and Go's own GOCACHE, GOMODCACHE, GOFLAGS, GOPROXY.
# Takes about a minute on two cores and 1.5 GB of caches; the binary has 80 MB.
set -eu

out=${1:?usage: build.sh <out-path>}
go=${GO:-go}
# An absolute path, because the build runs in this folder and the caller's is another one.
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")"

# The pseudo-version's date is the only version gVisor's go branch has.
version=$(sed -n 's/.*gvisor\.dev\/gvisor v0\.0\.0-\([0-9]\{8\}\).*/\1/p' go.mod | head -n 1)

mkdir -p "$(dirname "$out")"
partial=$out.partial.$$
trap 'rm -f "$partial"' EXIT
# CGO_ENABLED=0: a dynamic runsc cannot start a sandbox ("cannot read client sync file: EOF").
# GOTOOLCHAIN=local: never fetch another Go than the one that was named.
CGO_ENABLED=0 GOTOOLCHAIN=local "$go" build -mod=readonly -trimpath -buildvcs=false \
    -ldflags "-s -w -X gvisor.dev/gvisor/runsc/version.version=$version" \
    -o "$partial" gvisor.dev/gvisor/runsc
# Renamed when whole: nobody ever starts half a runtime.
mv -f "$partial" "$out"
