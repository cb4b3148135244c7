#!/usr/bin/env python3
"""Checks every dependency against deny.toml: licences, banned crates, sources.

Reads what `cargo metadata` says of the locked tree for this platform. Needs no network once the crates
are there. Exits 1 and names each crate that does not fit.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether an SPDX expression can be met: AND binds stronger than OR; a slash is an old form of OR."""
    expression = expression.replace("/", " OR ")
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)
    position = 0

    def either() -> bool:
        nonlocal position
        value = both()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            value = both() or value
        return value

    def both() -> bool:
        nonlocal position
        value = single()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            value = single() and value
        return value

    def single() -> bool:
        nonlocal position
        if tokens[position] == "(":
            position += 1
            value = either()
            position += 1
            return value
        name = tokens[position]
        position += 1
        if position + 1 < len(tokens) and tokens[position] == "WITH":
            name = f"{name} WITH {tokens[position + 1]}"
            position += 2
        return name in licences

    return either()


def check(packages: list[dict], policy: dict) -> list[str]:
    licences = set(policy["licenses"]["allow"])
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in policy["licenses"].get("exceptions", [])}
    banned = {entry["crate"]: entry["reason"] for entry in policy["bans"]["deny"]}
    faults = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["name"] in banned:
            faults.append(f"{name} is banned: {banned[package['name']]}")
        if package["source"] is None:
            continue
        if not package["source"].startswith("registry+"):
            faults.append(f"{name} comes from another source than the registry")
        may = licences | exceptions.get(package["name"], set())
        if not package["license"] or not allowed(package["license"], may):
            faults.append(f"{name} has the licence {package['license']!r}, which deny.toml does not allow")
    return faults


def self_test() -> None:
    """The check must be able to fail."""
    policy = {"licenses": {"allow": ["MIT", "Apache-2.0"]}, "bans": {"deny": [{"crate": "bad", "reason": "r"}]}}
    package = {"name": "x", "version": "1", "source": "registry+x"}
    cases = {
        "MIT": 0, "GPL-3.0": 1, "MIT OR GPL-3.0": 0, "MIT AND GPL-3.0": 1, "MIT/Apache-2.0": 0,
        "(MIT OR GPL-3.0) AND Apache-2.0": 0, "(MIT OR GPL-3.0) AND Zlib": 1, "Apache-2.0 WITH LLVM-exception": 1,
    }
    for licence, faults in cases.items():
        assert len(check([{**package, "license": licence}], policy)) == faults, licence
    assert check([{**package, "name": "bad", "license": "MIT"}], policy)
    assert check([{**package, "license": "MIT", "source": "git+x"}], policy)
    assert check([{**package, "license": None}], policy)
    policy["licenses"]["exceptions"] = [{"crate": "y", "allow": ["GPL-3.0"]}]
    assert check([{**package, "license": "GPL-3.0"}], policy)
    assert not check([{**package, "name": "y", "license": "GPL-3.0"}], policy)


def main() -> int:
    self_test()
    policy = tomllib.loads((ROOT / "deny.toml").read_text())
    command = ["cargo", "metadata", "--locked", "--format-version", "1",
               "--filter-platform", "x86_64-unknown-linux-gnu"]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    metadata = json.loads(answer.stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in used]
    faults = check(packages, policy)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"licences: {len(packages)} crates, {len(faults)} do not fit")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
