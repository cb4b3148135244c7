"""The pytest fixture `ceiba_broker`: a broker of its own for each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import Broker


@pytest.fixture
def ceiba_broker() -> Iterator[Broker]:
    """A running `ceiba.Broker` on a free port of 127.0.0.1, with a secret of its own."""
    with Broker() as broker:
        yield broker
