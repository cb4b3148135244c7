#!/usr/bin/env bash
# All tests, in the dev profile. Each stage's time is told; the first that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS
# Nothing here is compiled twice: what makes that quick would only fill the disk.
export CARGO_INCREMENTAL=0
# Most tests wait most of their time: more of them at once than there are cores.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-6}
# Tests that could not run here say why in this file.
export CEIBA_SKIPPED="$PWD/target/skipped.txt"
mkdir -p target
: >"$CEIBA_SKIPPED"
passed=0
stage() {
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  "$@"
  passed=$((passed + 1))
  echo "== $name: $((SECONDS - begin)) s"
}

stage "checks" tests/check.sh
stage "build" cargo build --locked -p ceiba-ffi -p ceiba-cli
stage "mongodb for the tests" tests/go/ferretdb/build.sh
stage "rust" cargo test --locked --workspace --exclude ceiba-python
stage "stage the library" ffi/stage.sh target/ceiba dev
stage "c" tests/c/run.sh
stage "go package" tests/go/run.sh
stage "java" tests/java/run.sh
stage "python" tests/python/run.sh
stage "program" tests/cli/run.sh
stage "main job" env CEIBA_BIN="$PWD/target/debug/ceiba" examples/test.sh
stage "readme" tests/readme/run.sh
echo "all in $((SECONDS - start)) s"
cat "$CEIBA_SKIPPED"
echo "stages: $passed passed, 0 failed; $(wc -l <"$CEIBA_SKIPPED") tests skipped"
