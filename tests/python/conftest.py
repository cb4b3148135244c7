"""Fixtures of all tests: ids of their own, nothing left open, programs in a process of their own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest

import ceiba

_numbers = itertools.count(1)


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return f"topic-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    report = ceiba.shutdown(5)
    assert report["failed"] == 0
    while ceiba.completions():
        pass


@pytest.fixture
def unreachable(topic: str) -> dict[str, object]:
    """A config whose sends wait for a connection that never comes."""
    return {
        "provider": {
            "type": "kapokmq",
            # The discard port of a host that has nothing listening on it.
            "url": "ws://127.0.0.1:9",
            "topic": topic,
            "secret_key": "hidden-key",
        },
        "connect": "lazy",
        "deadline": "30s",
    }


class Program:
    """A Python program in a process of its own; what it prints is read when it has ended."""

    def __init__(self, code: str, *arguments: str) -> None:
        # A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
        begin = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-W", "ignore:This process:DeprecationWarning", "-c", begin + textwrap.dedent(code), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout: float = 20) -> tuple[int, str, str]:
        """The exit code and all further output."""
        try:
            out, error = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, error = self.process.communicate()
            pytest.fail(f"the program hangs; it printed {out!r} and {error!r}")
        return self.process.returncode, out, error


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(code: str, *arguments: str) -> Program:
        started.append(Program(code, *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def eventually(check: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until a condition holds."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "the condition never held"
        time.sleep(0.01)
