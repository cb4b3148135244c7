#!/usr/bin/env bash
# The main job in C, Go and Python: see run.py. FILE is the first argument; without one it is the data file here.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/run.py" "$@"
