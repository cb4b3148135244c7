"""Nothing is kept of calls that have ended."""

from __future__ import annotations

import resource
import sys

import pytest

import ceiba


def one_round(body: bytes, count: int) -> None:
    for _ in range(count):
        ceiba.producer_send("p", body, key="k", attributes={"a": "b"})
        ceiba.producer_submit("p", body)
        ceiba.producer_submit_many("p", [body, "text", bytearray(body), memoryview(body)])
        ceiba.producer_flush("p")
        for done in ceiba.completions():
            assert done.receipt is not None
        for delivery in ceiba.consumer_receive("c", 10, 1):
            assert len(delivery.data) > 0
            delivery.ack()
        with pytest.raises(ceiba.UnknownId):
            ceiba.producer_send("nobody", body)
        with pytest.raises(TypeError):
            ceiba.producer_submit("p", None)  # type: ignore[arg-type]
        ceiba.producer_status("p")


def test_memory_and_references_stay_level(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    ceiba.consumer_open(f"memory://{topic}", "c")
    body = b"x" * 10_000
    one_round(body, 500)
    references = sys.getrefcount(body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one_round(body, 2000)
    assert sys.getrefcount(body) == references
    # 2000 rounds that kept a body each would be 20 MB, and there are six in each.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000


def test_clients_that_come_and_go(topic: str) -> None:
    def rounds(count: int) -> None:
        for _ in range(count):
            with ceiba.Producer(f"memory://{topic}") as producer, ceiba.Consumer(f"memory://{topic}"):
                producer.submit(b"x" * 1000)
                producer.flush()
            ceiba.completions()

    rounds(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds(500)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000
