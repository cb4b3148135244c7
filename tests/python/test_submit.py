"""Submits: each accepted one ends with exactly one completion."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable

import pytest

import ceiba
from conftest import Program, eventually


def take(count: int, seconds: float = 20) -> list[ceiba.Completion]:
    """Exactly so many completions, and none more a moment later."""
    taken: list[ceiba.Completion] = []
    until = time.monotonic() + seconds
    while len(taken) < count and time.monotonic() < until:
        taken += ceiba.completions(4096, 0.1)
    taken += ceiba.completions(4096, 0.05)
    assert len(taken) == count
    return taken


def test_tokens_and_completions_match(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    tokens = [ceiba.producer_submit("p", b"x") for _ in range(100)]
    tokens += ceiba.producer_submit_many("p", [b"y"] * 100)
    tokens += ceiba.producer_submit_many("p", (b"z", "z"))
    assert list(ceiba.producer_submit_many("p", [])) == []
    done = take(202)
    assert [one.token for one in done] == tokens
    assert len(set(tokens)) == 202
    assert all(one.ok and one.error is None and one.result().provider == "memory" for one in done)


def test_max_bounds_what_is_taken(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    ceiba.producer_submit_many("p", [b"x"] * 10)
    ceiba.producer_flush("p")
    assert [len(ceiba.completions(4)) for _ in range(4)] == [4, 4, 2, 0]


def test_a_completion_with_an_error_raises_it(topic: str) -> None:
    ceiba.producer_open({"provider": {"type": "memory", "topic": topic, "capacity": 1}}, "p")
    ceiba.producer_submit_many("p", [b"1", b"2"])
    first, second = take(2)
    assert first.ok and first.receipt is not None
    assert not second.ok and second.receipt is None
    assert isinstance(second.error, ceiba.QueueFull)
    with pytest.raises(ceiba.QueueFull):
        second.result()


def test_many_threads_submit_and_every_call_ends_once(topic: str) -> None:
    ceiba.producer_open({"provider": {"type": "memory", "topic": topic, "discard": True}}, "p")
    per_thread, threads = 5_000, 4
    tokens: list[list[int]] = [[] for _ in range(threads)]
    ended: list[int] = []
    stop = threading.Event()

    def submit(mine: list[int]) -> None:
        while len(mine) < per_thread:
            try:
                mine.append(ceiba.producer_submit("p", b"x" * 100))
            except ceiba.QueueFull:
                time.sleep(0.001)

    def drain(mine: list[int]) -> None:
        while not stop.is_set():
            mine += [one.token for one in ceiba.completions(1024, 0.05)]

    drained: list[list[int]] = [[], []]
    drainers = [threading.Thread(target=drain, args=(mine,)) for mine in drained]
    senders = [threading.Thread(target=submit, args=(mine,)) for mine in tokens]
    for thread in drainers + senders:
        thread.start()
    for thread in senders:
        thread.join(60)
    try:
        eventually(lambda: sum(map(len, drained)) >= per_thread * threads, 30)
    finally:
        stop.set()
        for thread in drainers:
            thread.join(10)
    ended = sorted(token for mine in drained for token in mine)
    assert ended == sorted(token for mine in tokens for token in mine)


def test_the_descriptor_tells_of_completions(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    fd = ceiba.completions_fd()
    assert select.select([fd], [], [], 0)[0] == []
    ceiba.producer_submit("p", b"x")
    assert select.select([fd], [], [], 5)[0] == [fd]
    take(1)
    assert select.select([fd], [], [], 0)[0] == []


def test_a_wait_for_completions_is_ended_by_one(topic: str) -> None:
    ceiba.producer_open(f"memory://{topic}", "p")
    sender = threading.Timer(0.3, lambda: ceiba.producer_submit("p", b"x"))
    start = time.monotonic()
    sender.start()
    assert len(ceiba.completions(timeout=None)) == 1
    assert 0.3 <= time.monotonic() - start < 20
    start = time.monotonic()
    assert ceiba.completions(timeout=0.25) == []
    assert time.monotonic() - start >= 0.25


def test_cancel_ends_a_submit_as_cancelled(unreachable: dict[str, object]) -> None:
    ceiba.producer_open(unreachable, "p")
    first, second = ceiba.producer_submit("p", b"1"), ceiba.producer_submit("p", b"2")
    assert ceiba.completions(timeout=0.2) == []
    ceiba.producer_cancel("p", first)
    (done,) = take(1)
    assert done.token == first
    assert isinstance(done.error, ceiba.Cancelled)
    assert done.error.outcome == "not_sent"
    # Ended ones and unknown ones are left alone.
    ceiba.producer_cancel("p", first)
    ceiba.producer_cancel("p", 2**63)
    assert ceiba.completions(timeout=0.1) == []
    ceiba.producer_cancel("p", second)
    assert [one.token for one in take(1)] == [second]


def test_close_ends_what_is_in_flight(unreachable: dict[str, object]) -> None:
    ceiba.producer_open(unreachable, "p")
    tokens = ceiba.producer_submit_many("p", [b"x"] * 500)
    with pytest.raises(ceiba.Timeout):
        ceiba.producer_close("p", timeout=0.2)
    done = take(500)
    assert sorted(one.token for one in done) == list(tokens)
    assert all(isinstance(one.error, ceiba.Error) and one.error.outcome == "not_sent" for one in done)
    # The id is free again.
    with pytest.raises(ceiba.UnknownId):
        ceiba.producer_submit("p", b"x")
    ceiba.producer_open(unreachable, "p")


def test_a_submit_ends_at_its_deadline(unreachable: dict[str, object]) -> None:
    ceiba.producer_open({**unreachable, "deadline": "300ms"}, "p")
    start = time.monotonic()
    least = {ceiba.producer_submit("p", b"x"): 0.3, ceiba.producer_submit_message("p", b"y", timeout=0.6): 0.6}
    order = []
    while len(order) < 2 and time.monotonic() - start < 20:
        for done in ceiba.completions(timeout=5):
            assert time.monotonic() - start >= least[done.token]
            assert isinstance(done.error, ceiba.Timeout)
            assert done.error.outcome == "not_sent"
            order.append(done.token)
    assert order == list(least)


def test_close_while_other_threads_submit(topic: str) -> None:
    for _ in range(20):
        ceiba.producer_open(f"memory://{topic}", "p")
        accepted: list[int] = []

        def submit() -> None:
            while True:
                try:
                    accepted.append(ceiba.producer_submit("p", b"x"))
                except (ceiba.UnknownId, ceiba.Closed):
                    return
                except ceiba.QueueFull:
                    time.sleep(0.001)

        thread = threading.Thread(target=submit)
        thread.start()
        time.sleep(0.01)
        ceiba.producer_close("p")
        thread.join(10)
        assert not thread.is_alive()
        assert [one.token for one in take(len(accepted))] == accepted


def test_a_full_intake_refuses_at_once(unreachable: dict[str, object]) -> None:
    ceiba.producer_open({**unreachable, "max_pending": 3}, "p")
    assert len(ceiba.producer_submit_many("p", [b"x"] * 10)) == 3
    start = time.monotonic()
    for call in (lambda: ceiba.producer_submit("p", b"x"), lambda: ceiba.producer_submit_many("p", [b"x"])):
        with pytest.raises(ceiba.QueueFull) as caught:
            call()
        assert caught.value.retryable
        assert caught.value.outcome == "not_sent"
    assert time.monotonic() - start < 1


def test_the_completion_queue_is_bounded(program: Callable[..., Program]) -> None:
    code, out, error = program(
        """
        import ceiba
        ceiba.set_completion_capacity(5)
        ceiba.producer_open("memory://t", "p")
        print(len(ceiba.producer_submit_many("p", [b"x"] * 9)))
        ceiba.producer_flush("p")
        try:
            ceiba.producer_submit("p", b"x")
        except ceiba.QueueFull:
            print("full")
        print(len(ceiba.completions()), ceiba.producer_submit("p", b"x") > 0)
        try:
            ceiba.set_completion_capacity(6)
        except ceiba.InvalidArgument:
            print("too late")
        """
    ).end()
    assert (code, out.split("\n"), error) == (0, ["5", "full", "5 True", "too late", ""], "")
