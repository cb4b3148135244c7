#!/usr/bin/env bash
# Format, lints, licences. The header, the symbols and the import rules are tests of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
unformatted=$(gofmt -l ffi/go examples/go tests/go benches/go)
if [ -n "$unformatted" ]; then
  printf 'not formatted, run make fmt:\n%s\n' "$unformatted" >&2
  exit 1
fi
cargo clippy --locked --workspace --all-targets -- -D warnings
python3 tests/licences.py
