"""Log events reach `logging`, bounded, without a secret."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import ceiba
from conftest import Program, eventually


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.threads: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def records() -> Iterator[Records]:
    handler = Records()
    logger = logging.getLogger("ceiba")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    ceiba.disable_logging()
    logger.removeHandler(handler)


def test_events_reach_logging(records: Records, topic: str) -> None:
    ceiba.enable_logging("DEBUG")
    with ceiba.Broker() as broker:
        address, secret = broker.address, broker.secret
        with ceiba.Producer(broker.url(topic)) as producer:
            producer.send("x")
    ceiba.disable_logging()
    assert any(record.name.startswith("ceiba.broker") for record in records.records)
    assert any(address in record.getMessage() for record in records.records)
    assert all(record.name.split(".")[0] == "ceiba" for record in records.records)
    assert not any(secret in record.getMessage() for record in records.records)
    assert records.threads == {"ceiba-log"}
    assert {record.levelno for record in records.records} <= {10, 20, 30, 40}


def test_what_the_network_says_fakes_no_record(records: Records, topic: str) -> None:
    forged = "x\r\n1999-01-01 ERROR forged\x1b[2J\t\x7f\x85\u2028\u202e\\n é"
    name = "".join(f"%{byte:02X}" for byte in forged.encode())
    ceiba.enable_logging("DEBUG")
    with ceiba.Broker() as broker:
        host, port = broker.address.split(":")
        with socket.create_connection((host, int(port)), 5) as connection:
            connection.sendall(
                f"GET /Producers/Conn/{topic}/{name} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 101 ")
        eventually(lambda: any("forged" in record.getMessage() for record in records.records))
    ceiba.disable_logging()
    told = [record.getMessage() for record in records.records if "forged" in record.getMessage()]
    for message in told:
        assert r"id=x\r\n1999-01-01 ERROR forged\x1b[2J\t\x7f\x85\u2028\u202e\n é" in message
    # No part of it starts a line, by Python's own idea of one.
    assert all(len(record.getMessage().splitlines()) == 1 for record in records.records)


def test_the_level_holds_and_can_change(records: Records) -> None:
    ceiba.enable_logging(logging.ERROR)
    ceiba.Broker().stop()
    ceiba.disable_logging()
    assert records.records == []
    ceiba.enable_logging("info")
    ceiba.Broker().stop()
    ceiba.disable_logging()
    assert records.records != []
    assert all(record.levelno >= logging.INFO for record in records.records)


def test_nothing_comes_when_it_is_off(records: Records) -> None:
    ceiba.enable_logging()
    ceiba.disable_logging()
    ceiba.Broker().stop()
    assert records.records == []


def test_a_handler_that_fails_ends_nothing(records: Records, topic: str) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("mine")

    failing = Failing()
    logging.getLogger("ceiba").addHandler(failing)
    try:
        ceiba.enable_logging()
        ceiba.Broker().stop()
        eventually(lambda: len(records.records) > 0)
        count = len(records.records)
        ceiba.Broker().stop()
        eventually(lambda: len(records.records) > count)
    finally:
        logging.getLogger("ceiba").removeHandler(failing)


def test_a_slow_handler_slows_nobody_and_drops_are_told(program: Callable[..., Program]) -> None:
    code, out, error = program(
        """
        import logging, threading, time
        import ceiba
        gate = threading.Event()
        messages = []
        class Slow(logging.Handler):
            def emit(self, record):
                gate.wait(30)
                messages.append(record.getMessage())
        logger = logging.getLogger("ceiba")
        logger.addHandler(Slow())
        logger.setLevel(logging.INFO)
        ceiba.enable_logging("INFO")
        start = time.monotonic()
        # Two events each at least.
        for _ in range(3000):
            ceiba.Broker().stop(0)
        print("took", time.monotonic() - start < 60)
        gate.set()
        ceiba.disable_logging()
        print(any("were dropped" in message for message in messages), len(messages) < 6000)
        """
    ).end(90)
    assert (code, out, error) == (0, "took True\nTrue True\n", "")


@pytest.mark.parametrize("level", ["NO SUCH LEVEL", -1])
def test_a_wrong_level(level: int | str) -> None:
    with pytest.raises(ValueError):
        ceiba.enable_logging(level)


@pytest.mark.parametrize("level", [None, 1.5, True])
def test_a_level_of_another_type(level: object) -> None:
    with pytest.raises(TypeError):
        ceiba.enable_logging(level)  # type: ignore[arg-type]


def test_the_child_of_a_fork_logs_too(program: Callable[..., Program]) -> None:
    code, out, error = program(
        """
        import logging, os, sys
        import ceiba
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(process)d", level=logging.INFO)
        ceiba.enable_logging("INFO")
        if child := os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        with ceiba.Broker():
            pass
        """
    ).end()
    assert (code, error) == (0, "")
    assert "ceiba.broker" in out


def test_records_of_the_end_are_told(program: Callable[..., Program]) -> None:
    code, out, error = program(
        """
        import logging, sys
        import ceiba
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s", level=logging.INFO)
        ceiba.enable_logging("INFO")
        broker = ceiba.Broker()
        """
    ).end()
    assert (code, error) == (0, "")
    assert "ceiba.broker" in out
