#!/usr/bin/env bash
# Tests the programs in this folder, see test.py.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/test.py" "$@"
