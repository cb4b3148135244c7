#!/bin/sh
# Builds and installs the wheel (setup.sh), then runs the Python tests. Arguments go to pytest.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/setup.sh"
cd "$here"
exec "${VENV:-$here/../../target/venv}/bin/python" -m pytest -q "$@"
