#!/usr/bin/env bash
# The Go package, its limiters, a program written for go-comm, and a plain client of the wire against the broker.
# Needs target/ceiba, target/debug/ceiba and redis-server.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
(cd "$root/ffi/go" && go vet ./... && go test -race -count=1 ./...)
(cd "$root/ffi/go/limiter" && go vet ./... && go test -race -count=1 ./...)
(cd "$root/tests/go/comm" && go vet ./... && go test -count=1 ./...)
(cd "$root/tests/go/wire" && go vet ./... && go test -count=1 ./...)
