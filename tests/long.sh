#!/usr/bin/env bash
# The long loops. Without arguments all of them, else those named. tests/long.txt keeps the last end of each.
set -uo pipefail
cd "$(dirname "$0")/.."
report=tests/long.txt
log=target/long.log
mkdir -p target
: >"$log"
export CEIBA_SKIPPED="$PWD/target/skipped.txt"
: >"$CEIBA_SKIPPED"

times() { local n; for n in $(seq "$1"); do "${@:2}" || return 1; done; }
in_folder() { (cd "$1" && "${@:2}"); }

# Name, what it is, and how it is run.
stage() {
  case $1 in
  crash) what="1000 kills of a durable broker under load"
    run=(env CEIBA_CRASH_CYCLES=1000 cargo test --locked -p ceiba-tests --test durability crash -- --nocapture) ;;
  power) what="300 power cuts under load"
    run=(env CEIBA_POWER_CYCLES=300 cargo test --locked -p ceiba-tests --test durability power -- --nocapture) ;;
  outbox) what="300 kills and 60 power cuts of a process with an outbox, 100,000 rows that two share, a million read while half are sent"
    run=(env CEIBA_OUTBOX_CYCLES=300 CEIBA_OUTBOX_ROWS=100000 CEIBA_OUTBOX_POWER_CYCLES=60 CEIBA_OUTBOX_PENDING=1000000 cargo test --locked -p ceiba-tests --test durability outbox -- --nocapture) ;;
  simulation) what="100,000 seeds of the queue beside its model"
    run=(env CEIBA_SIMULATION_SEEDS=100000 cargo test --locked --release -p ceiba-core --lib simulation) ;;
  faults) what="30 rounds of a broker killed and restarted under 8 producers"
    run=(env CEIBA_FAULT_ROUNDS=30 cargo test --locked -p ceiba-tests --test faults) ;;
  conformance) what="conformance and lifecycle, 3 rounds"
    run=(times 3 cargo test --locked -p ceiba-tests --test conformance --test lifecycle) ;;
  core) what="core, 5 rounds"
    run=(times 5 cargo test --locked -q -p ceiba-core) ;;
  go) what="the Go package under the race detector, 5 rounds"
    run=(in_folder ffi/go go test -race -count=5 -timeout 30m ./...) ;;
  wire) what="a plain client of the wire, 3 rounds"
    run=(in_folder tests/go/wire go test -count=3 -timeout 30m ./...) ;;
  c) what="C, 5 rounds"
    run=(times 5 tests/c/run.sh) ;;
  *) return 1 ;;
  esac
}

all=(crash power outbox simulation faults conformance core go wire c)
chosen=("$@")
[ ${#chosen[@]} -gt 0 ] || chosen=("${all[@]}")
for name in "${chosen[@]}"; do
  stage "$name" || { echo "no long loop is called $name; there are: ${all[*]}" >&2; exit 2; }
done

cargo build --locked --workspace --exclude ceiba-python || exit 1
ffi/stage.sh target/ceiba dev || exit 1
tests/go/ferretdb/build.sh || exit 1
version=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
failed=0
for name in "${chosen[@]}"; do
  stage "$name"
  begin=$SECONDS
  echo "== $what"
  if "${run[@]}" >>"$log" 2>&1; then end=passed; else end=FAILED failed=1; tail -n 40 "$log"; fi
  line="$end  $name: $what ($((SECONDS - begin)) s, commit $version)"
  # A loop that could not run here has said why.
  if [ -s "$CEIBA_SKIPPED" ]; then line="skipped  $name: $(tr '\n' ' ' <"$CEIBA_SKIPPED")"; : >"$CEIBA_SKIPPED"; fi
  echo "$line"
  touch "$report"
  kept=$(grep -v -E "^(passed|FAILED|skipped)  $name:" "$report" | grep -E '^(passed|FAILED|skipped)' || true)
  {
    echo "The long loops, each as \`make test-long\` (or \`tests/long.sh NAME\`) last ran it."
    echo "cores: $(nproc); $(rustc --version); $(go version | cut -d' ' -f3)"
    echo
    { [ -z "$kept" ] || echo "$kept"; echo "$line"; } | sort -k2
  } >"$report.new" && mv "$report.new" "$report"
done
exit $failed
