#!/usr/bin/env bash
# The long loops, after a `make test`. The summary goes to tests/long.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
report=tests/long.txt
log=target/long.log
: >"$log"
{
  echo "The long loops, as \`make test-long\` last ran them."
  echo
  echo "cores: $(nproc); $(rustc --version); $(go version | cut -d' ' -f3)"
  echo
} >"$report"
stage() {
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  if "$@" >>"$log" 2>&1; then
    echo "passed  $name ($((SECONDS - begin)) s)" | tee -a "$report"
  else
    echo "FAILED  $name" | tee -a "$report"
    tail -n 40 "$log"
    exit 1
  fi
}
cargo build --locked --workspace --exclude ceiba-python
ffi/stage.sh target/ceiba dev
stage "100 rounds of a broker killed and restarted under 8 producers" \
  env CEIBA_FAULT_ROUNDS=100 cargo test --locked -p ceiba-tests --test faults
export CEIBA_SKIPPED="$PWD/target/skipped.txt"
: >"$CEIBA_SKIPPED"
stage "1000 kills of a durable broker under load" \
  env CEIBA_CRASH_CYCLES=1000 cargo test --locked -p ceiba-tests --test durability crash -- --nocapture
stage "300 power cuts under load" \
  env CEIBA_POWER_CYCLES=300 cargo test --locked -p ceiba-tests --test durability power -- --nocapture
cat "$CEIBA_SKIPPED" >>"$report"
for round in 1 2 3 4 5; do
  stage "conformance and lifecycle, round $round of 5" \
    cargo test --locked -p ceiba-tests --test conformance --test lifecycle
done
stage "core, 10 rounds" bash -c 'for n in $(seq 10); do cargo test --locked -q -p ceiba-core || exit 1; done'
stage "the Go package under the race detector, 10 rounds" bash -c 'cd ffi/go && go test -race -count=10 -timeout 30m ./...'
stage "a plain client of the wire, 5 rounds" bash -c 'cd tests/go/wire && go test -count=5 -timeout 30m ./...'
stage "C, 5 rounds" bash -c 'for n in $(seq 5); do tests/c/run.sh || exit 1; done'
