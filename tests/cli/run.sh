#!/usr/bin/env bash
# Tests the program ceiba. CEIBA_BIN names a built one; without it the development build is made and used.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
if [[ -z "${CEIBA_BIN:-}" ]]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p ceiba-cli
    CEIBA_BIN="${CARGO_TARGET_DIR:-$root/target}/debug/ceiba"
fi
export CEIBA_BIN
exec python3 "$here/run.py" "$@"
