#!/bin/sh
# Builds the guest: one static binary that runs as PID 1 in any image.
#
#   build.sh <out-path>
#
# Environment: GO (the go command, >= 1.22; default "go"), and Go's own GOCACHE, GOFLAGS. Needs no network:
# the guest uses the standard library alone.
set -eu

out=${1:?usage: build.sh <out-path>}
go=${GO:-go}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")"

mkdir -p "$(dirname "$out")"
partial=$out.partial.$$
trap 'rm -f "$partial"' EXIT
CGO_ENABLED=0 GOTOOLCHAIN=local GOOS=linux "$go" build -trimpath -buildvcs=false \
    -ldflags '-s -w' -o "$partial" .
chmod 0755 "$partial"
mv -f "$partial" "$out"
