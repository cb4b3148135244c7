"""What the installed distribution carries besides its code."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"


def test_the_licence_comes_with_it() -> None:
    distribution = metadata.distribution("ceiba")
    assert distribution.metadata["License-Expression"] == "Apache-2.0"
    assert distribution.metadata.get_all("License-File") == ["LICENSE"]
    files = [file for file in distribution.files or [] if file.match("*.dist-info/licenses/LICENSE")]
    assert len(files) == 1
    assert files[0].read_text() == LICENSE.read_text()


def test_the_types_come_with_it() -> None:
    names = {str(file) for file in metadata.files("ceiba") or []}
    assert {"ceiba/py.typed", "ceiba/_ceiba.pyi"} <= names
