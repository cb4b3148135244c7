"""Runs every fenced code block of the README.

A block's language says how: `c` is saved as first.c, built by the `sh` block after it and run there; `go`,
`python` and `json` are run as they are; `sh` blocks run in the repository's root. The README's address is
replaced by that of a broker started here. A block in a language that is not listed fails.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CEIBA = ROOT / os.environ.get("CEIBA_BIN", "target/debug/ceiba")
ADDRESS = "127.0.0.1:8011"
LIMIT = 300


def blocks(text: str) -> list[tuple[int, str, str]]:
    found = []
    for match in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.M | re.S):
        line = text.count("\n", 0, match.start()) + 1
        found.append((line, match.group(1), match.group(2)))
    return found


class Broker:
    """A broker on a free port with the secret `test`."""

    def __enter__(self) -> str:
        self.process = subprocess.Popen(
            [str(CEIBA), "broker", "--listen", "127.0.0.1:0"],
            env={**os.environ, "CEIBA_SECRET": "test"}, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        address = re.search(r"127\.0\.0\.1:\d+", line)
        if not address:
            raise SystemExit(f"the broker's first line names no address: {line!r}")
        return address.group(0)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        if self.process.wait(timeout=30) != 0:
            raise SystemExit(f"the broker ended with {self.process.returncode}")


class Runner:
    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.folder = folder

    def shell(self, text: str, cwd: Path, expect: str | None = None) -> None:
        environment = {**os.environ, "CEIBA_SECRET": "test", "GOFLAGS": "-mod=mod"}
        environment["PATH"] = f"{ROOT / 'target/venv/bin'}:{CEIBA.parent}:{environment['PATH']}"
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=cwd, env=environment,
                                timeout=LIMIT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0 or (expect is not None and expect not in result.stdout):
            raise RuntimeError(f"exit {result.returncode}\n{result.stdout}{result.stderr}")

    def c(self, text: str) -> None:
        (ROOT / "target/readme").mkdir(parents=True, exist_ok=True)
        (ROOT / "target/readme/first.c").write_text(text)

    def go(self, text: str) -> None:
        folder = self.folder / "go"
        folder.mkdir(exist_ok=True)
        (folder / "main.go").write_text(text)
        self.shell("go mod init first >/dev/null 2>&1; go mod edit -require ceiba@v0.0.0 "
                   f"-replace ceiba={ROOT}/ffi/go; go run .", folder, "hello")

    def python(self, text: str) -> None:
        path = self.folder / "first.py"
        path.write_text(text)
        self.shell(f"python {path}", self.folder, "hello")

    def json(self, text: str) -> None:
        value = json.loads(text)
        path = self.folder / "config.json"
        path.write_text(json.dumps(value))
        self.shell(f"ceiba config check {path}", self.folder)

    def sh(self, text: str) -> None:
        lines = text.strip().splitlines()
        if all(line.startswith("make ") or not line or line.startswith("#") for line in lines):
            # The test is itself run by make: that each command exists is what is left to check.
            self.shell("\n".join(f"make -n {line.split('#')[0].split(maxsplit=1)[1]} >/dev/null"
                                 for line in lines if line.startswith("make ")), ROOT)
            return
        replaced = text.replace("target/release/ceiba", str(CEIBA)).replace(" first.c", " target/readme/first.c")
        replaced = replaced.replace("-o first", "-o target/readme/first").replace("./first", "target/readme/first")
        expect = "hello" if "./first" in text else None
        self.shell(replaced, ROOT, expect)

    def run(self, language: str, text: str) -> None:
        text = text.replace(ADDRESS, self.address)
        if not hasattr(self, language) or language in {"run", "shell"}:
            raise RuntimeError(f"no way to run a block in {language!r}")
        getattr(self, language)(text)


def main() -> int:
    found = blocks((ROOT / "README.md").read_text())
    failed = 0
    folder = Path(tempfile.mkdtemp(prefix="ceiba-readme-"))
    try:
        with Broker() as address:
            runner = Runner(address, folder)
            for line, language, text in found:
                try:
                    runner.run(language, text)
                    print(f"README.md:{line} {language}: ok")
                except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
                    failed += 1
                    print(f"README.md:{line} {language}: {error}", file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    print(f"readme: {len(found) - failed} passed, {failed} failed")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
