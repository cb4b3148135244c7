"""The stubs say what the module has, and a typed program passes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ceiba
from ceiba import _ceiba

HERE = Path(__file__).parent
PACKAGE = Path(ceiba.__path__[0])


def test_the_stub_names_exactly_what_the_module_has() -> None:
    stub = ast.parse((PACKAGE / "_ceiba.pyi").read_text())
    named: set[str] = set()
    members: dict[str, set[str]] = {}
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            named.add(node.name)
        elif isinstance(node, ast.ClassDef):
            named.add(node.name)
            members[node.name] = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named.add(node.targets[0].id)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is None:
            named.add(node.target.id)
    standard = {"__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__"}
    assert named == set(dir(_ceiba)) - standard
    for name, stated in members.items():
        real = {part for part in vars(getattr(_ceiba, name)) if not part.startswith("__")}
        assert {part for part in stated if not part.startswith("__")} == real


def test_the_package_is_typed_and_lists_its_names() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert sorted(ceiba.__all__) == list(ceiba.__all__)
    # Beside the submodule that pytest imports, and names that it puts there.
    public = {name for name in vars(ceiba) if name.isidentifier() and not name.startswith("_")}
    assert public - {"annotations", "pytest_plugin"} == set(ceiba.__all__) - {"__version__"}
    for name in ceiba.__all__:
        assert getattr(ceiba, name).__doc__


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_accepts_a_typed_program_and_the_package() -> None:
    cache = ["--cache-dir", str(PACKAGE.parent / ".mypy_cache_ceiba")]
    run("mypy", "--strict", "--python-version", "3.10", *cache, "typed_program.py")
    run("mypy", "--strict", "--python-version", "3.10", *cache, "-p", "ceiba")


def test_the_typed_program_runs() -> None:
    done = subprocess.run([sys.executable, HERE / "typed_program.py"], capture_output=True, text=True, timeout=60)
    strategies = "id 1 forced_closed ['attempt 1 False', 'attempt 2 False'] ValueError: boom 1a 2"
    told = f"kapokmq False 5\n2\n{strategies}\nunknown_id 3 not_sent False\n"
    assert (done.stdout, done.stderr) == (told, "")


def test_mypy_refuses_a_wrong_program(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    lines = [
        "import ceiba",
        "ceiba.producer_send(1, b'x')",
        "ceiba.producer_send('p', b'x').token",
        "@ceiba.strategy(retry=2)",
        "def f(a: int) -> int: return a",
        "f('text')",
    ]
    wrong.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(wrong)],
        capture_output=True,
        text=True,
    )
    assert "Found 3 errors" in done.stdout, done.stdout + done.stderr


def test_stubtest() -> None:
    run("mypy.stubtest", "ceiba._ceiba", "--ignore-disjoint-bases")
