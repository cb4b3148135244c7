#!/bin/sh
# Builds the programs that measure, runs them and writes the report. `make lib wheel` must have run.
# Environment: BENCH_ROUNDS (3), BENCH_SECONDS (2), BENCH_REPORT (benches/REPORT.md), BENCH_PEER (HOST:PORT of
# another KapokMQ server to measure in the same run, with BENCH_PEER_SECRET, and BENCH_PEER_PID to hold it still while
# others are measured), BENCH_DATA (target/benches/data, on the disk to be measured; emptied), VENV (target/venv).
# `--only broker`, `--only clients` and `--only mns` write that part alone.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
stage=${BENCH_STAGE:-$root/target/ceiba}
out=$root/target/benches
mkdir -p "$out"

# The same packages as `make lib`, so that what it built is used again.
cargo build --locked --release -p ceiba-ffi -p ceiba-cli -p ceiba-benches
# shellcheck disable=SC2086 # CFLAGS are several words
${CC:-cc} -std=c11 -O2 -Wall -Wextra -Werror -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE ${CFLAGS:-} -I"$root/include" \
    -o "$out/c" "$here"/c/*.c -L"$stage/lib" -lceiba -Wl,-rpath,"$stage/lib" -lpthread
(cd "$here/go" && go build -o "$out/go" .)
(cd tests/go/wire && go build -o "$out/plain" ./cmd/plainbench)
(cd tests/go/mns && go build -o "$out/mnsbench" ./cmd/mnsbench)

# The programs of C and Go find the same library, wherever it is.
LD_LIBRARY_PATH=$stage/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec python3 "$here/run.py" \
    --broker "$target/release/ceiba" --rust "$target/release/ceiba-benches" --c "$out/c" --go "$out/go" \
    --plain "$out/plain" --mnsbench "$out/mnsbench" --python "${VENV:-$root/target/venv}/bin/python" \
    --rounds "${BENCH_ROUNDS:-3}" --seconds "${BENCH_SECONDS:-2}" --data "${BENCH_DATA:-$out/data}" --report "${BENCH_REPORT:-$here/REPORT.md}" "$@"
