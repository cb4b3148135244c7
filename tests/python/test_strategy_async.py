"""The decorator `strategy` around coroutine functions."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from typing import Any

import pytest

import ceiba


@pytest.fixture(params=[{}, {"timeout": 20}], ids=["in place", "as tasks"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_it_stays_a_coroutine_function(where: dict[str, Any]) -> None:
    calls: list[int] = []

    @ceiba.strategy(retry=3, **where)
    async def send(a: int, *, b: int) -> int:
        calls.append(a)
        await asyncio.sleep(0)
        if len(calls) < 3:
            raise OSError(len(calls))
        return a + b

    assert inspect.iscoroutinefunction(send)
    assert asyncio.run(send(1, b=2)) == 3
    assert calls == [1, 1, 1]
    # And in another loop.
    assert asyncio.run(send(4, b=2)) == 6


def test_the_last_exception_is_raised_as_itself(where: dict[str, Any]) -> None:
    @ceiba.strategy(retry=2, **where)
    async def send() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no") as caught:
        asyncio.run(send())
    assert isinstance(caught.value.__cause__, ceiba.Unavailable)
    assert caught.value.__cause__.attempts == 2


def test_waits_hold_up_nobody(where: dict[str, Any]) -> None:
    backoff = {"max_attempts": 2, "backoff": {"type": "fixed", "wait": "300ms"}}
    failed: set[int] = set()

    @ceiba.strategy(retry=backoff, **where)
    async def send(number: int) -> int:
        if number not in failed:
            failed.add(number)
            raise OSError
        return number

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        assert await asyncio.gather(*map(send, range(200))) == list(range(200))
        ticking.cancel()
        return ticks

    start = time.monotonic()
    ticks = asyncio.run(main())
    took = time.monotonic() - start
    assert 0.3 <= took < 10
    assert ticks >= 10


def test_a_timeout_cancels_the_attempt() -> None:
    ended: list[str] = []

    @ceiba.strategy(retry=2, timeout=0.1)
    async def send() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> int:
        with pytest.raises(ceiba.Timeout) as caught:
            await send()
        assert caught.value.attempts == 2
        return len(asyncio.all_tasks())

    start = time.monotonic()
    assert asyncio.run(main()) == 1
    assert ended == ["cancelled"] * 2
    assert time.monotonic() - start < 5


def test_one_that_takes_no_cancel_is_left_behind() -> None:
    async def main() -> float:
        over = asyncio.Event()

        @ceiba.strategy(timeout=0.05)
        async def send() -> None:
            while not over.is_set():
                try:
                    await over.wait()
                except asyncio.CancelledError:
                    pass

        start = time.monotonic()
        with pytest.raises(ceiba.Timeout):
            await send()
        took = time.monotonic() - start
        over.set()
        await asyncio.sleep(0.05)
        return took

    assert asyncio.run(main()) < 5


@pytest.mark.parametrize("during", ["the attempt", "the wait"])
def test_cancellation(where: dict[str, Any], during: str) -> None:
    ended: list[str] = []
    backoff = {"max_attempts": 5, "backoff": {"type": "fixed", "wait": "60s"}}
    limit = {"limiter": "concurrent", "rate": 1}

    @ceiba.strategy(retry=backoff, rate_limit=limit, id="cancelled", **where)
    async def send(seconds: float) -> str:
        if during == "the wait" and seconds:
            raise OSError
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "sent"

    async def main() -> None:
        for _ in range(20):
            task = asyncio.create_task(send(60))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(asyncio.all_tasks()) == 1
        # Its place under the limit of one at once was given back each time.
        assert await send(0) == "sent"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(send(60), 0.1)
        assert await send(0) == "sent"

    asyncio.run(main())
    assert len(ended) == (21 if during == "the attempt" else 0)
    assert ceiba.producer_status("cancelled")["under_way"] == 0


def test_context_variables_are_the_callers(where: dict[str, Any]) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")

    @ceiba.strategy(retry=2, **where)
    async def send() -> str:
        await asyncio.sleep(0)
        return name.get()

    async def one(value: str) -> str:
        name.set(value)
        return await send()

    async def main() -> list[str]:
        return await asyncio.gather(*(one(str(n)) for n in range(10)))

    assert asyncio.run(main()) == [str(n) for n in range(10)]


def test_limits_and_breakers(where: dict[str, Any]) -> None:
    @ceiba.strategy(rate_limit="3/10s", **where)
    async def limited() -> int:
        return 1

    @ceiba.strategy(circuit_breaker=2, **where)
    async def guarded() -> None:
        raise OSError

    async def main() -> None:
        results = await asyncio.gather(*(limited() for _ in range(10)), return_exceptions=True)
        assert [one for one in results if one == 1] == [1, 1, 1]
        assert sum(isinstance(one, ceiba.Limited) for one in results) == 7
        for expected in (OSError, OSError, ceiba.CircuitOpen):
            with pytest.raises(expected):
                await guarded()

    asyncio.run(main())


def test_more_at_once_than_there_are_threads(where: dict[str, Any]) -> None:
    @ceiba.strategy(retry=2, **where)
    async def send(number: int) -> int:
        await asyncio.sleep(0.2)
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*map(send, range(2000)))

    start = time.monotonic()
    assert asyncio.run(main()) == list(range(2000))
    assert time.monotonic() - start < 20


def test_a_shutdown_during_a_call(where: dict[str, Any]) -> None:
    @ceiba.strategy(retry=2, **where)
    async def send() -> str:
        await asyncio.sleep(0.3)
        return "sent"

    async def main() -> tuple[object, str]:
        task = asyncio.create_task(send())
        await asyncio.sleep(0.05)
        report = await asyncio.to_thread(ceiba.shutdown, 5)
        assert report["failed"] == 0
        return await task, await send()

    assert asyncio.run(main()) == ("sent", "sent")
