"""What a submit by id costs: no network, bursts of 1024 bodies of 100 bytes, the drainer on another core.

Times are per call; completions are taken between bursts, outside of the timed part. A report, not a test:

    python bench_submit.py [--bursts 2000] [--size 100] [--json]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter_ns

import ceiba

BURST = 1024


def take_all(count: int) -> None:
    while count > 0:
        count -= len(ceiba.completions(BURST, 10))


def each(body: bytes) -> None:
    submit = ceiba.producer_submit
    for _ in repeat(None, BURST):
        submit("bench", body)


def each_of_a_class(body: bytes) -> None:
    submit = PRODUCER.submit
    for _ in repeat(None, BURST):
        submit(body)


def many(body: bytes) -> None:
    ceiba.producer_submit_many("bench", [body] * BURST)


def loop_alone(body: bytes) -> None:
    """What the loop and the cheapest call cost without ceiba."""
    call = len
    for _ in repeat(None, BURST):
        call(body)


def measure(way: Callable[[bytes], None], body: bytes, bursts: int, submits: bool) -> Iterator[float]:
    for _ in range(bursts):
        start = perf_counter_ns()
        way(body)
        yield (perf_counter_ns() - start) / BURST
        if submits:
            take_all(BURST)


def main() -> None:
    global PRODUCER
    parser = argparse.ArgumentParser()
    parser.add_argument("--bursts", type=int, default=2000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    body = b"x" * options.size
    PRODUCER = ceiba.Producer({"provider": {"type": "memory", "topic": "x", "discard": True}}, "bench")
    ways = {
        "producer_submit": (each, True),
        "Producer.submit": (each_of_a_class, True),
        "producer_submit_many": (many, True),
        "a loop without ceiba": (loop_alone, False),
    }
    report = {}
    for _ in range(2):
        # The first round warms up.
        for name, (way, submits) in ways.items():
            times = sorted(measure(way, body, options.bursts, submits))
            report[name] = {
                "p50": round(statistics.median(times), 1),
                "p10": round(times[len(times) // 10], 1),
                "p90": round(times[len(times) * 9 // 10], 1),
            }
    PRODUCER.close()
    if options.json:
        import json

        json.dump({"unit": "ns per call", "size": options.size, "burst": BURST, **report}, sys.stdout)
        print()
        return
    print(f"ns per call, bodies of {options.size} bytes, bursts of {BURST}")
    for name, times in report.items():
        print(f"  {name:22} p50 {times['p50']:7}  p10 {times['p10']:7}  p90 {times['p90']:7}")


PRODUCER: ceiba.Producer

if __name__ == "__main__":
    main()
