"""Measures ceiba from Python and prints one line of JSON.

    python bench.py --mode acked|e2e|submit|strategy [--addr HOST:PORT] [--topic T] [--clients N] [--size BYTES]
                    [--seconds S] [--limit MESSAGES] [--many]

`acked` submits to a broker until each message has its receipt, one thread over all ids; `e2e` adds as many
consumers, each with a thread that acknowledges what it receives; `submit` is what a submit costs its
caller, in bursts, without a network; `strategy` what decorated functions and senders of Python's own
cost. `--many` submits lists of bodies in place of one by one. The secret is
read from the environment variable CEIBA_SECRET.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

import ceiba
import strategy

OUTSTANDING = 8192  # submits that one producer may have under way
BURST = 256  # submits between two looks at the completions
STALLED = 60.0
CALL_BURST = 1024  # submits timed together
WARM_UP = 100  # bursts before the first that counts
REST = 0.0002  # the task falls asleep between bursts, so that each starts alike


class Failure(Exception):
    """A failed measurement: nothing is printed."""


def broker_config(options: argparse.Namespace) -> dict:
    return {
        "provider": {
            "type": "kapokmq",
            "url": f"ws://{options.addr}",
            "topic": options.topic,
            "secret_key": {"env": "CEIBA_SECRET"},
        }
    }


def completions(wait: float) -> int:
    """Takes what has ended, waiting so long for the first."""
    taken = ceiba.completions(1 << 20, wait)
    if wait and not taken:
        raise Failure("the broker stalled")
    for completion in taken:
        if not completion.ok:
            completion.result()
    return len(taken)


def produce(options: argparse.Namespace, ids: list[str], start: float, labelled: bool) -> tuple[int, float]:
    """Sends until the time is over and every send has its receipt."""
    body = b"x" * options.size
    until = start + options.seconds
    limit = options.limit or sys.maxsize
    room = OUTSTANDING * len(ids)
    sent = ended = 0
    number = 0
    while sent < limit and time.monotonic() < until:
        for label, id in enumerate(ids):
            if labelled:
                bodies = [f"{label}-{number + n} ".encode().ljust(options.size, b"x") for n in range(BURST)]
            else:
                bodies = [body] * BURST
            if options.many:
                if len(ceiba.producer_submit_many(id, bodies)) != BURST:
                    raise Failure("there was no room for a list")
            else:
                submit = ceiba.producer_submit
                for each in bodies:
                    submit(id, each)
            sent += BURST
        number += BURST
        ended += completions(0)
        while sent - ended + BURST * len(ids) > room:
            ended += completions(STALLED)
    while ended < sent:
        ended += completions(STALLED)
    return sent, time.monotonic()


def line(options: argparse.Namespace, messages: int, seconds: float, cpu: float) -> dict:
    return {
        "name": "python",
        "mode": options.mode,
        "clients": options.clients,
        "size": options.size,
        "messages": messages,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "rate": messages / seconds,
    }


def open_producers(options: argparse.Namespace) -> list[str]:
    return [ceiba.producer_open(broker_config(options), f"bench-p{n}") for n in range(options.clients)]


def acked(options: argparse.Namespace) -> dict:
    ids = open_producers(options)
    start, cpu = time.monotonic(), time.process_time()
    messages, end = produce(options, ids, start, False)
    return line(options, messages, end - start, time.process_time() - cpu)


class Tally:
    """What all consumers have received."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: set[bytes] = set()
        self.duplicates = 0
        self.last = 0.0
        self.target: int | None = None
        self.failed: BaseException | None = None

    def note(self, names: list[bytes]) -> None:
        with self.lock:
            before = len(self.seen)
            self.seen.update(names)
            self.duplicates += len(names) - (len(self.seen) - before)
            self.last = time.monotonic()

    def over(self) -> bool:
        return self.failed is not None or (self.target is not None and len(self.seen) >= self.target)

    def consume(self, id: str) -> None:
        try:
            heard = time.monotonic()
            while not self.over():
                deliveries = ceiba.consumer_receive(id, 1024, 0.02)
                if not deliveries:
                    if time.monotonic() - heard > STALLED:
                        raise Failure("nothing was delivered for a minute")
                    continue
                heard = time.monotonic()
                for error in ceiba.consumer_ack_many(id, [delivery.code for delivery in deliveries]):
                    if error is not None:
                        raise error
                self.note([delivery.data.split(b" ", 1)[0] for delivery in deliveries])
        except BaseException as error:
            self.failed = error


def end_to_end(options: argparse.Namespace) -> dict:
    tally = Tally()
    consumers = [ceiba.consumer_open(broker_config(options), f"bench-c{n}") for n in range(options.clients)]
    ids = open_producers(options)
    threads = [threading.Thread(target=tally.consume, args=(id,), daemon=True) for id in consumers]
    start, cpu = time.monotonic(), time.process_time()
    for thread in threads:
        thread.start()
    messages, _ = produce(options, ids, start, True)
    tally.target = messages
    for thread in threads:
        thread.join()
    if tally.failed is not None:
        raise tally.failed
    result = line(options, messages, tally.last - start, time.process_time() - cpu)
    result["duplicates"] = tally.duplicates
    return result


def pin_library(core: int) -> None:
    """Binds the threads of the library to a core.

    They are known by their name, which a thread that was just started has not yet.
    """
    until = time.monotonic() + 5
    while time.monotonic() < until:
        found = False
        for comm in Path("/proc/self/task").glob("*/comm"):
            if comm.read_text().startswith("ceiba"):
                os.sched_setaffinity(int(comm.parent.name), {core})
                found = True
        if found:
            return
        time.sleep(0.001)
    raise Failure("the library's thread was not found")


def submit(options: argparse.Namespace) -> dict:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Failure("the measurement needs two cores")
    ceiba.set_workers(1)
    ceiba.producer_open({"provider": {"type": "memory", "topic": "bench", "discard": True}}, "bench")
    os.sched_setaffinity(0, {cores[0]})
    pin_library(cores[1])
    body = b"x" * options.size
    bodies = [body] * CALL_BURST
    one, many = ceiba.producer_submit, ceiba.producer_submit_many
    clock = time.perf_counter_ns
    samples = []
    bursts = 0
    until = time.monotonic() + options.seconds
    while not samples or time.monotonic() < until:
        if options.many:
            start = clock()
            many("bench", bodies)
            took = clock() - start
        else:
            start = clock()
            for each in bodies:
                one("bench", each)
            took = clock() - start
        bursts += 1
        if bursts > WARM_UP:
            samples.append(took / CALL_BURST)
        ended = 0
        while ended < CALL_BURST:
            ended += completions(STALLED)
        time.sleep(REST)
    samples.sort()
    return {
        "name": "python",
        "mode": "submit_many" if options.many else "submit",
        "size": options.size,
        "messages": len(samples) * CALL_BURST,
        "ns_min": samples[0],
        "ns_median": samples[len(samples) // 2],
        "ns_p90": samples[len(samples) * 9 // 10],
    }


def strategies(options: argparse.Namespace) -> dict:
    cases = strategy.measure(options.size, options.seconds / 4)
    return {"name": "python", "mode": "strategy", "size": options.size, "messages": strategy.BURST, **cases}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures ceiba from Python.")
    modes = {"acked": acked, "e2e": end_to_end, "submit": submit, "strategy": strategies}
    parser.add_argument("--mode", choices=modes, default="acked")
    parser.add_argument("--addr", default="127.0.0.1:8011")
    parser.add_argument("--topic", default="bench")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--many", action="store_true")
    options = parser.parse_args()
    try:
        result = modes[options.mode](options)
    except (Failure, ceiba.Error) as error:
        sys.exit(f"bench.py: {error}")
    print(json.dumps(result))
    ceiba.shutdown(5)


if __name__ == "__main__":
    main()
