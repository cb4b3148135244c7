"""MNS as tables: our client beside the official SDK, and the front beside a bare handler."""

from __future__ import annotations

import statistics

from measure import Case, Sample
from page import table

WHAT = {
    "mns_send": "send, one in a request",
    "mns_batch": "send, sixteen in a request",
    "mns_take": "receive and delete, sixteen in a request",
}


def ratio(ours: list[Sample], others: list[Sample], of) -> float:
    """The median of the ratios of each round."""
    return statistics.median(of(one) / of(other) for one, other in zip(ours, others))


def per_cpu(sample: Sample) -> float:
    """Messages for each second of the client's processor time."""
    return 100_000 / sample.client_cpu


def middle(samples: list[Sample], of) -> float:
    return statistics.median(of(sample) for sample in samples)


def rate(sample: Sample) -> float:
    return sample.rate


def broker(sample: Sample) -> float:
    return sample.broker_cpu or 0.0


def clients(samples: dict[Case, list[Sample]], size: int) -> list[str]:
    rows = []
    for mode, what in WHAT.items():
        ours, sdk = samples[Case("rust", mode, 8, size)], samples[Case("sdk", mode, 8, size)]
        for name, found in (("ceiba", ours), ("Go SDK", sdk)):
            rows.append([
                f"{what}, {name}",
                f"{middle(found, rate):,.0f}",
                f"{middle(found, per_cpu):,.0f}",
                f"{middle(found, broker):.2f}",
                f"{ratio(ours, sdk, rate):.2f}" if found is ours else "",
                f"{ratio(ours, sdk, per_cpu):.2f}" if found is ours else "",
                ">= 2" if found is ours else "",
            ])
    return table(["", "messages/s", "messages/CPU s", "broker CPU", "rate to SDK", "CPU to SDK", "aim"], rows)


def front(samples: dict[Case, list[Sample]]) -> list[str]:
    rows = []
    for size in (100, 1024):
        raw, floor = samples[Case("rust", "mns_raw", 8, size)], samples[Case("rust", "mns_floor", 8, size)]
        for name, found in (("the front", raw), ("a bare handler", floor)):
            rows.append([
                f"{size} B, {name}",
                f"{middle(found, rate):,.0f}",
                f"{middle(found, broker):.2f}",
                f"{ratio(raw, floor, rate):.2f}" if found is raw else "",
                f"{ratio(raw, floor, broker):.2f}" if found is raw else "",
            ])
    return table(["", "requests/s", "server CPU", "rate to bare", "CPU to bare"], rows)


def text(samples: dict[Case, list[Sample]]) -> list[str]:
    lines = [
        "## MNS",
        "",
        "Our client and `github.com/aliyun/aliyun-mns-go-sdk` v1.0.11 against the front of our broker, eight requests at",
        "once each, in turns. The broker holds messages in memory and is started anew for each run. Messages a CPU second",
        "count the client's processor time alone; broker CPU is seconds per 100,000 messages, of those received with what",
        "it took to send them before.",
        "",
    ]
    for size in (100, 1024):
        lines += [f"### {size} B", "", *clients(samples, size)]
    return lines + [
        "### The front",
        "",
        "Sends of one message that were signed before, on eight connections that are kept, to the front and to a handler of",
        "the same library that reads the request and answers as many bytes. CPU is seconds per 100,000 requests.",
        "",
        *front(samples),
    ]
