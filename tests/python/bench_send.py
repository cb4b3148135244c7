"""Acknowledged sends to a KapokMQ broker: messages per second and CPU seconds of this process per 100,000.

    CEIBA_SECRET=... python bench_send.py ws://127.0.0.1:8011 [--messages 200000] [--size 100] [--clients 1]
        [--way submit_many|submit|send] [--threads 1] [--topic bench] [--receive] [--json]

`submit_many` and `submit` keep the pipe full and count a message when its receipt has come; `send` waits for
each receipt, in `--threads` threads of every client. `--receive` also receives and acknowledges all messages
and measures until the last. Without an address it starts a broker of its own in this process.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable

import ceiba

BATCH = 256
IN_FLIGHT = 8192


def submit_all(options: argparse.Namespace, producers: list[ceiba.Producer], body: bytes) -> int:
    """Submits in turn to every client; returns how many failed."""
    left, under_way, failed = options.messages, 0, 0
    one_by_one = options.way == "submit"
    while left or under_way:
        for producer in producers:
            count = min(BATCH, left, IN_FLIGHT * len(producers) - under_way)
            if count <= 0:
                continue
            if one_by_one:
                submit = producer.submit
                for _ in range(count):
                    submit(body)
            else:
                count = len(producer.submit_many([body] * count))
            left -= count
            under_way += count
        room = left and under_way < IN_FLIGHT * len(producers)
        done = ceiba.completions(4096, 0 if room else 10)
        under_way -= len(done)
        failed += sum(not one.ok for one in done)
    return failed


def send_all(options: argparse.Namespace, producers: list[ceiba.Producer], body: bytes) -> int:
    """Waits for each receipt, in threads; returns how many failed."""
    threads = options.threads * len(producers)
    failed = [0] * threads

    def send(number: int) -> None:
        producer = producers[number % len(producers)]
        share = options.messages // threads + (number < options.messages % threads)
        for _ in range(share):
            try:
                producer.send(body)
            except ceiba.Error:
                failed[number] += 1

    run_threads([lambda number=number: send(number) for number in range(threads)])  # type: ignore[misc]
    return sum(failed)


def run_threads(targets: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def receive_all(consumer: ceiba.Consumer, messages: int) -> None:
    received = 0
    while received < messages:
        deliveries = consumer.receive(512, 30)
        if not deliveries:
            raise SystemExit(f"only {received} of {messages} messages came")
        received += len(deliveries)
        consumer.ack_many([delivery.code for delivery in deliveries])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=["submit_many", "submit", "send"], default="submit_many")
    parser.add_argument("--topic", default=f"bench-{os.getpid()}")
    parser.add_argument("--receive", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    broker = None
    if options.url is None:
        broker = ceiba.Broker()
        url, secret = f"ws://{broker.address}", broker.secret
    else:
        url, secret = options.url, os.environ.get("CEIBA_SECRET", "test")
    config = {"provider": {"type": "kapokmq", "url": url, "topic": options.topic, "secret_key": secret}}
    body = b"x" * options.size
    producers = [ceiba.Producer(config) for _ in range(options.clients)]
    receiver = None
    if options.receive:
        consumer = ceiba.Consumer(config)
        receiver = threading.Thread(target=receive_all, args=(consumer, options.messages))
        receiver.start()
    cpu, start = time.process_time(), time.perf_counter()
    failed = (send_all if options.way == "send" else submit_all)(options, producers, body)
    if receiver is not None:
        receiver.join()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    ceiba.shutdown()
    if broker is not None:
        broker.stop()
    report = {
        "way": options.way,
        "clients": options.clients,
        "size": options.size,
        "messages": options.messages,
        "failed": failed,
        "seconds": round(seconds, 3),
        "messages_per_second": round(options.messages / seconds),
        "cpu_seconds_per_100k": round(cpu / options.messages * 100_000, 3),
    }
    if options.json:
        import json

        json.dump(report, sys.stdout)
        print()
    else:
        print(", ".join(f"{name} {value}" for name, value in report.items()))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
