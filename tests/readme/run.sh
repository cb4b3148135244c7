#!/usr/bin/env bash
# Runs every code block of the README against a broker on a free port.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
exec "$root/target/venv/bin/python" "$root/tests/readme/run.py"
