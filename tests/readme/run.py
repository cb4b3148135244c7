"""Runs every fenced code block of the README and of docs/.

`c`, `go` and `python` blocks are saved as first.c, first-go/main.go and first.py in a folder that looks like
the repository's root; the `sh` block that names such a file builds and runs it there and must print hello.
`python` blocks are also run as they are, `json` blocks are checked as configs, and a broker starts with each
`yaml` block as its application.yaml. The README's addresses are replaced by those of a broker started here. A block
in a language that is not listed fails, and so does a program that no `sh` block runs, or a `first*` that
.gitignore does not name.
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
OF_MNS = "127.0.0.1:8012"
PROFILE = os.environ.get("WHEEL_PROFILE", "dev")
LIMIT = 300


def blocks(text: str) -> list[tuple[int, str, str]]:
    found = []
    for match in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.M | re.S):
        line = text.count("\n", 0, match.start()) + 1
        found.append((line, match.group(1), match.group(2)))
    return found


class Broker:
    """A broker on free ports with the secret `test`, and the access key of MNS `id:secret`."""

    def __init__(self, *options: str) -> None:
        self.options = options

    def __enter__(self) -> tuple[str, str]:
        self.process = subprocess.Popen(
            [str(CEIBA), "broker", "--listen", "127.0.0.1:0", "--mns", "127.0.0.1:0", *self.options],
            env={**os.environ, "CEIBA_SECRET": "test", "CEIBA_MNS_KEY": "id:secret"}, stdout=subprocess.PIPE,
            text=True)
        lines = [self.process.stdout.readline() for _ in range(2)]
        addresses = [re.search(r"127\.0\.0\.1:\d+", line) for line in lines]
        if not all(addresses):
            raise SystemExit(f"the broker's first lines name no address: {lines!r}")
        return tuple(address.group(0) for address in addresses)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        if self.process.wait(timeout=30) != 0:
            raise SystemExit(f"the broker ended with {self.process.returncode}")


class Runner:
    def __init__(self, address: str, of_mns: str, folder: Path) -> None:
        self.address = address
        self.of_mns = of_mns
        self.folder = folder
        self.waiting: set[str] = set()
        for entry in ROOT.iterdir():
            (folder / entry.name).symlink_to(entry)

    def shell(self, text: str, expect: str | None = None) -> None:
        environment = {**os.environ, "CEIBA_SECRET": "test"}
        environment["PATH"] = f"{CEIBA.parent}:{environment['PATH']}"
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=self.folder, env=environment,
                                timeout=LIMIT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0 or (expect is not None and expect not in result.stdout):
            raise RuntimeError(f"exit {result.returncode}\n{result.stdout}{result.stderr}")

    def save(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.waiting.add(path.parent.name if "/" in name else name)

    def c(self, text: str) -> None:
        self.save("first.c", text)

    def go(self, text: str) -> None:
        self.save("first-go/main.go", text)

    def python(self, text: str) -> None:
        if not (self.folder / "first.py").exists():
            self.save("first.py", text)
        (self.folder / "block.py").write_text(text)
        self.shell("target/venv/bin/python block.py", "hello")

    def json(self, text: str) -> None:
        (self.folder / "config.json").write_text(json.dumps(json.loads(text)))
        self.shell("ceiba config check config.json")

    def yaml(self, text: str) -> None:
        (self.folder / "application.yaml").write_text(text)
        # The file's own port may be taken here.
        with Broker("--config", str(self.folder / "application.yaml")):
            pass

    def sh(self, text: str) -> None:
        # `make` runs this test itself: that its target exists is what is left to check. The broker of the
        # README runs already; its command is tried with --help in place of an address.
        lines = []
        for line in text.splitlines():
            if line.startswith("make "):
                line = f"make -n {line.removeprefix('make ')} >/dev/null"
            line = line.replace("target/release/ceiba", str(CEIBA)).replace("wheels/release/", f"wheels/{PROFILE}/")
            if " broker --listen" in line:
                line = line.replace(f"--listen {self.address}", "--help >/dev/null")
            lines.append(line)
        run = {name for name in self.waiting if name in text}
        self.waiting -= run
        self.shell("\n".join(lines), "hello" if run else None)

    def run(self, language: str, text: str) -> None:
        text = text.replace(ADDRESS, self.address).replace(OF_MNS, self.of_mns)
        if language not in {"c", "go", "python", "json", "yaml", "sh"}:
            raise RuntimeError(f"no way to run a block in {language!r}")
        getattr(self, language)(text)


def main() -> int:
    pages = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))]
    found = [(page, *block) for page in pages for block in blocks((ROOT / page).read_text())]
    failed = 0
    folder = Path(tempfile.mkdtemp(prefix="ceiba-readme-"))
    try:
        with Broker() as (address, of_mns):
            runner = Runner(address, of_mns, folder)
            for page, line, language, text in found:
                try:
                    runner.run(language, text)
                    print(f"{page}:{line} {language}: ok")
                except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
                    failed += 1
                    print(f"{page}:{line} {language}: {error}", file=sys.stderr)
            ignored = (ROOT / ".gitignore").read_text().split()
            for entry in sorted(folder.glob("first*")):
                if f"/{entry.name}{'/' if entry.is_dir() else ''}" not in ignored:
                    failed += 1
                    print(f".gitignore does not name {entry.name}", file=sys.stderr)
            for name in runner.waiting:
                failed += 1
                print(f"no sh block runs {name}", file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    print(f"readme: {len(found) - failed} passed, {failed} failed")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
