"""What strategies and senders of Python's own cost: the time of a call over that of the bare function."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import ceiba

BURST = 200  # calls timed together
WARM_UP = 5  # bursts before the first that counts
PERIOD = 1_000_000  # sends in a second that the limits let through: they refuse none

# All of them, of which nothing ever comes to be used.
FOUR: dict[str, Any] = {
    "retry": 3,
    "rate_limit": f"{PERIOD}/s",
    "circuit_breaker": 5,
}
STACKS: dict[str, dict[str, Any]] = {
    "retry": {"retry": 3},
    "three": FOUR,
    "timeout": {"timeout": 10},
    "four": {**FOUR, "timeout": 10},
}


def bare(argument: bytes) -> bytes:
    return argument


async def bare_coroutine(argument: bytes) -> bytes:
    return argument


def summary(samples: list[float]) -> dict[str, float]:
    samples = sorted(samples[WARM_UP:])
    return {"ns_min": samples[0], "ns_median": samples[len(samples) // 2], "ns_p90": samples[len(samples) * 9 // 10]}


def timed(call: Callable[[bytes], object], body: bytes, seconds: float) -> dict[str, float]:
    clock = time.perf_counter_ns
    samples: list[float] = []
    until = time.monotonic() + seconds
    while len(samples) < WARM_UP + 3 or time.monotonic() < until:
        start = clock()
        for _ in range(BURST):
            call(body)
        samples.append((clock() - start) / BURST)
    return summary(samples)


async def awaited(call: Callable[[bytes], Coroutine[Any, Any, object]], body: bytes, seconds: float) -> dict[str, float]:
    clock = time.perf_counter_ns
    samples: list[float] = []
    until = time.monotonic() + seconds
    while len(samples) < WARM_UP + 3 or time.monotonic() < until:
        start = clock()
        for _ in range(BURST):
            await call(body)
        samples.append((clock() - start) / BURST)
    return summary(samples)


def opened(name: str, sender: Callable[[ceiba.Message], Any], strategies: list[dict[str, Any]]) -> Callable[[bytes], object]:
    ceiba.register_host(name, sender)
    ceiba.producer_open({"provider": {"type": "callback", "name": name}, "strategies": strategies}, name)
    return lambda body: ceiba.producer_send(name, body)


def measure(size: int, seconds: float) -> dict[str, Any]:
    """Nanoseconds of each call by its name, in turns of `seconds` each."""
    body = b"x" * size

    async def coroutine(message: ceiba.Message) -> None:
        return None

    layers = [
        {"type": "circuit_breaker", "consecutive": 5},
        {"type": "retry", "max_attempts": 3},
        {"type": "rate_limit", "limiter": "sliding_window", "rate": PERIOD, "per": "1s"},
        {"type": "timeout", "after": "10s"},
    ]
    plain: dict[str, Callable[[bytes], object]] = {"bare": bare}
    plain |= {name: ceiba.strategy(**stack)(bare) for name, stack in STACKS.items()}
    ceiba.producer_open({"provider": {"type": "memory", "topic": "bench", "discard": True}}, "memory")
    plain["memory"] = lambda body: ceiba.producer_send("memory", body)
    plain["callback"] = opened("callback", lambda message: None, [])
    plain["callback_four"] = opened("callback_four", lambda message: None, layers)
    plain["callback_coroutine"] = opened("callback_coroutine", coroutine, [])
    coroutines: dict[str, Callable[[bytes], Coroutine[Any, Any, object]]] = {"bare": bare_coroutine}
    coroutines |= {name: ceiba.strategy(**stack)(bare_coroutine) for name, stack in STACKS.items()}

    async def asynchronous() -> dict[str, Any]:
        return {f"async_{name}": await awaited(call, body, seconds) for name, call in coroutines.items()}

    return {**{name: timed(call, body, seconds) for name, call in plain.items()}, **asyncio.run(asynchronous())}
