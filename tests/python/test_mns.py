"""The official SDK of MNS against the broker, in an environment of its own."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "target"
PYTHON = os.environ.get("CEIBA_MNS_PYTHON") or str(TARGET / "venv-mns" / "bin" / "python")
PROGRAM = os.environ.get("CEIBA") or str(TARGET / "debug" / "ceiba")


def test_the_sdk_does_all_that_it_can():
    done = subprocess.run(
        [PYTHON, str(HERE / "mns_sdk.py"), PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "all operations" in done.stdout
