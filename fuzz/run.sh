#!/usr/bin/env bash
# Runs every fuzz target for SECONDS_EACH (20), or those that are named, and takes what they found into the corpus.
# Ends with an error when an input broke a target; the input is then in target/fuzz/artifacts.
#
# fuzz/seeds is written by hand. fuzz/corpus is what is worth keeping of all that was ever found: of the inputs that
# reach something new, the small ones, so that it can be replayed by `make test`. The whole of it grows in
# target/fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=0.13.2      # of cargo-fuzz
LONGEST=4096        # bytes of an input that is kept
FILES=80            # of one target
BYTES=12000         # of one target
seconds=${SECONDS_EACH:-20}
work=$PWD/target/fuzz

if ! rustup run nightly rustc --version >/dev/null 2>&1; then
  echo "fuzz: missing: the nightly toolchain (rustup toolchain install nightly)" >&2
  exit 1
fi
if [ "$(target/tools/bin/cargo-fuzz --version 2>/dev/null)" != "cargo-fuzz $VERSION" ]; then
  cargo install --quiet --locked cargo-fuzz --version "$VERSION" --root target/tools
fi
export PATH="$PWD/target/tools/bin:$PATH"
export CARGO_BUILD_JOBS=${CARGO_BUILD_JOBS:-2}
# What was freed is watched for a while; the log's buffers are large.
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=32}
fuzz() { # a subcommand of cargo-fuzz
  local command=$1
  shift
  cargo +nightly fuzz "$command" --fuzz-dir fuzz --target-dir "$work" "$@"
}

(cd fuzz && cargo +nightly metadata --locked --format-version 1 >/dev/null)
fuzz build
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
targets=("$@")
if ((${#targets[@]} == 0)); then
  for file in fuzz/fuzz_targets/*.rs; do
    targets+=("$(basename "$file" .rs)")
  done
fi

# The inputs of a folder that are kept: the smallest, within the bounds.
keep() { # from, to
  rm -rf "$2"
  mkdir -p "$2"
  find "$1" -type f -size "-$((LONGEST + 1))c" -printf '%s %f\n' | LC_ALL=C sort -n |
    awk -v most="$BYTES" -v files="$FILES" '{ sum += $1 } sum <= most && NR <= files { print $2 }' |
    while read -r name; do cp "$1/$name" "$2/$name"; done
}

broken=()
for target in "${targets[@]}"; do
  program=$work/$host/release/$target
  found=$work/corpus/$target artifacts=$work/artifacts/$target
  mkdir -p "$found" "$artifacts" "fuzz/corpus/$target"
  options=(-timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -max_len=8192 -artifact_prefix="$artifacts/")
  # The first line of a dictionary names its targets.
  dictionary=$(grep -lw "^# .*$target" fuzz/dictionaries/* || true)
  [ -n "$dictionary" ] && options+=(-dict="$dictionary")
  folders=("$found" "fuzz/corpus/$target" "fuzz/seeds/$target")
  [ -d "fuzz/regressions/$target" ] && folders+=("fuzz/regressions/$target")
  log=$work/$target.log
  if ! "$program" "${options[@]}" -max_total_time="$seconds" -print_final_stats=1 "${folders[@]}" >"$log" 2>&1; then
    broken+=("$target")
    echo "BROKEN  $target: the end of $log"
    tail -n 25 "$log"
    continue
  fi
  merged=$work/merged/$target
  rm -rf "$merged"
  mkdir -p "$merged"
  "$program" "${options[@]}" -set_cover_merge=1 "$merged" "${folders[@]}" >>"$log" 2>&1
  keep "$merged" "fuzz/corpus/$target"
  awk -v target="$target" -v kept="$(find "fuzz/corpus/$target" -type f | wc -l)" '
    /^stat::number_of_executed_units:/ { runs = $2 }
    /^stat::average_exec_per_sec:/ { speed = $2 }
    / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") covered = $(i + 1) }
    END { printf "ok      %-16s %10d runs, %7d/s, %6d edges, %3d inputs kept\n", target, runs, speed, covered, kept }
  ' "$log"
done
if ((${#broken[@]})); then
  echo "fuzz: broken: ${broken[*]}; put the input into fuzz/regressions/TARGET once it is mended" >&2
  exit 1
fi
echo "fuzz: ${#targets[@]} targets, $seconds s each, $(du -sb fuzz/corpus | cut -f1) bytes of corpus"
