"""Writes what was measured as a page of text."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path

import mns_report
import outbox_report
import strategy_report
from measure import Case, Sample
from page import noise, table

TITLES = {
    "rust": "ceiba, Rust",
    "c": "ceiba, C",
    "go": "ceiba, Go",
    "python": "ceiba, Python",
    "plain": "plain Go client",
    "peer": "plain Go client, other server",
}
OURS = ["rust", "c", "go", "python"]
# Nanoseconds per call that were aimed at: program, mode, field, bound.
CALLS = [
    ("rust", "submit", "ns_median", None),
    ("c", "submit", "ns_median", 100),
    ("go", "submit", "ns_median", 180),
    ("python", "submit", "ns_median", 200),
    ("python", "submit_many", "ns_median", None),
    ("go", "send", "ns_each", 1200),
]
# Each limiter of one process, as the program names it.
LIMITERS = ["sliding_window", "fixed_window", "token_bucket", "leaky_bucket", "concurrent"]


def added(line: dict, limiter: str, field: str) -> float:
    """Nanoseconds that a limiter adds to a send, over a layer that only passes on."""
    return line[limiter][field] - line["empty"][field]


# What a measurement of rate limits says while it runs.
LIMITS = {
    "limiter": lambda line: f"sliding window {added(line, 'sliding_window', 'ns_median'):.0f} ns over an empty layer",
    "redis_limiter": lambda line: ", ".join(
        f"{at_once} at once {line[f'at_once_{at_once}']['ratio']:.2f} of redis-benchmark" for at_once in (1, 50)
    ),
    "strategies": strategy_report.said,
    "outbox": outbox_report.said,
    "strategy": strategy_report.calls_said,
}
# Calls of Python: what is measured, and what it is compared with.
STRATEGIES = [
    ("bare", "bare", "the bare function"),
    ("retry", "bare", "retry"),
    ("three", "bare", "circuit_breaker, retry, rate_limit"),
    ("timeout", "bare", "timeout, on a thread of the pool"),
    ("four", "bare", "all four, on a thread of the pool"),
    ("async_bare", "async_bare", "the bare coroutine function"),
    ("async_retry", "async_bare", "retry"),
    ("async_three", "async_bare", "circuit_breaker, retry, rate_limit"),
    ("async_timeout", "async_bare", "timeout, each attempt a task"),
    ("async_four", "async_bare", "all four, each attempt a task"),
    ("memory", "memory", "`producer_send` to `memory`, which discards"),
    ("callback", "bare", "`producer_send` to a callable"),
    ("callback_four", "bare", "`producer_send` to a callable, all four"),
    ("callback_coroutine", "bare", "`producer_send` to a coroutine function"),
]


def said(command: list[str]) -> str:
    """The first line that a program prints, and nothing when it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip().split("\n")[0]


def machine(options) -> list[str]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    # What stands behind the numbers names a machine rather than a kernel.
    version = re.match(r"\d+(\.\d+)*", platform.release())
    return [
        f"- processor: {model.group(1) if model else platform.machine()}, {os.cpu_count()} cores",
        f"- memory: {int(memory.group(1)) >> 20 if memory else 0} GiB; Linux {version.group() if version else ''}",
        f"- {said(['rustc', '--version'])}; {said([os.environ.get('CC', 'cc'), '--version'])}",
        f"- {said(['go', 'version'])}; {said([options.python, '--version'])}",
    ]


class Report:
    """The page."""

    def __init__(self, samples: dict[Case, list[Sample]], options, took: float, again: int, durable: list[str]) -> None:
        self.samples = samples
        self.options = options
        self.took = took
        self.again = again
        self.durable = durable

    def rate(self, case: Case) -> float | None:
        found = self.samples.get(case)
        return statistics.median(sample.rate for sample in found) if found else None

    def ratio(self, case: Case, base: Case) -> float:
        """The median of the rounds' own ratios: what was measured side by side is compared."""
        pairs = zip(self.samples[case], self.samples[base])
        return statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)

    def rates(self, mode: str, clients: int, size: int) -> list[str]:
        base = Case("plain", "acked" if mode == "acked" else mode, clients, size)
        cases = [case for case in self.samples if (case.clients, case.size) == (clients, size)]
        if mode == "acked":
            cases = [case for case in cases if case.mode in ("acked", "unacked")]
        else:
            cases = [case for case in cases if case.mode == mode]
        head = ["", "messages/s", "lowest - highest", "client CPU", "broker CPU", "to plain"]
        if mode == "acked":
            head[-1:] = ["to plain acked", "to plain unacked"]
        rows = []
        for case in cases:
            found = self.samples[case]
            low, high = min(each.rate for each in found), max(each.rate for each in found)
            name = TITLES[case.program]
            if case.program in ("plain", "peer") and mode == "acked":
                name += f", {case.mode}"
            broker = [each.broker_cpu for each in found if each.broker_cpu is not None]
            row = [
                name,
                f"{self.rate(case):,.0f}",
                f"{low:,.0f} - {high:,.0f}",
                f"{statistics.median(each.client_cpu for each in found):.3f}",
                f"{statistics.median(broker):.3f}" if broker else "not seen",
                f"{self.ratio(case, base):.2f}",
            ]
            if mode == "acked":
                row.append(f"{self.ratio(case, Case('plain', 'unacked', clients, size)):.2f}")
            rows.append(row)
        return table(head, rows)

    def goals(self) -> list[str]:
        rows = []

        def row(what: str, aim: str, seen: str, met: bool) -> None:
            rows.append([what, aim, seen, "yes" if met else "NO"])

        for size in (100, 1024):
            for program in OURS:
                case = Case(program, "acked", 1, size)
                times = self.ratio(case, Case("plain", "acked", 1, size))
                row(f"{TITLES[program]}, acked, 1 id, {size} B, to plain acked", ">= 5", f"{times:.1f}", times >= 5)
            for program in OURS:
                case = Case(program, "acked", 1, size)
                times = self.ratio(case, Case("plain", "unacked", 1, size))
                row(f"{TITLES[program]}, acked, 1 id, {size} B, to plain unacked", "> 1", f"{times:.2f}", times > 1)
        for program, mode, field, bound in CALLS:
            if bound is not None:
                seen = self.nanoseconds(Case(program, mode), field)
                what = "submit of 100 B" if mode == "submit" else "send that waits, 100 goroutines"
                row(f"{TITLES[program]}, {what}", f"<= {bound} ns", f"{seen:.0f} ns", seen <= bound)
        return table(["", "aim", "seen", "met"], rows)

    def nanoseconds(self, case: Case, field: str) -> float:
        return statistics.median(sample.line[field] for sample in self.samples[case])

    def calls(self) -> list[str]:
        rows = []
        for program, mode, field, bound in CALLS:
            case = Case(program, mode)
            low = "ns_min" if mode != "send" else field
            what = {"submit": "submit", "submit_many": "submit_many, each", "send": "send that waits, 100 goroutines"}
            rows.append([
                f"{TITLES[program]}: {what[mode]}",
                f"{min(sample.line[low] for sample in self.samples[case]):.0f}",
                f"{self.nanoseconds(case, field):.0f}",
                f"{self.nanoseconds(case, 'ns_p90'):.0f}" if mode != "send" else "-",
                str(bound) if bound else "-",
            ])
        return table(["", "least", "median", "p90", "aim"], rows)

    def limits(self) -> list[str]:
        lines = [sample.line for sample in self.samples[Case("rust", "limiter")]]
        middle = lambda values: statistics.median(list(values))  # noqa: E731
        rows = []
        for limiter in ["none", "empty", *LIMITERS]:
            name = {"none": "no layer", "empty": "a layer that only passes on"}.get(limiter, f"`{limiter}`")
            over = limiter not in ("none", "empty")
            rows.append([
                name,
                f"{min(line[limiter]['ns_min'] for line in lines):.0f}",
                f"{middle(line[limiter]['ns_median'] for line in lines):.0f}",
                f"{min(added(line, limiter, 'ns_min') for line in lines):.0f}" if over else "-",
                f"{middle(added(line, limiter, 'ns_median') for line in lines):.0f}" if over else "-",
                "40" if limiter == "sliding_window" else "-",
            ])
        text = table(["", "least", "median", "added, least", "added, median", "aim"], rows)
        lines = [sample.line for sample in self.samples[Case("rust", "redis_limiter")]]
        rows = []
        for at_once in (1, 50):
            found = [line[f"at_once_{at_once}"] for line in lines]
            rows.append([
                f"{at_once} at once",
                f"{middle(each['rate'] for each in found):,.0f}",
                f"{middle(each['redis_benchmark'] for each in found):,.0f}",
                f"{middle(each['ratio'] for each in found):.2f}",
                ">= 0.90",
            ])
        return text + table(["sliding window in Redis", "sends/s", "redis-benchmark", "ratio", "aim"], rows)

    def strategies(self) -> list[str]:
        lines = [sample.line for sample in self.samples[Case("python", "strategy")]]
        rows = []
        for name, base, what in STRATEGIES:
            median = statistics.median(line[name]["ns_median"] for line in lines)
            over = statistics.median(line[name]["ns_median"] - line[base]["ns_median"] for line in lines)
            least = min(line[name]["ns_min"] for line in lines)
            p90 = statistics.median(line[name]["ns_p90"] for line in lines)
            rows.append([what, f"{least:,.0f}", f"{median:,.0f}", f"{p90:,.0f}", f"{over:,.0f}" if name != base else "-"])
        return table(["", "least", "median", "p90", "added to the bare one"], rows)

    def text(self) -> str:
        clients = self.clients() if self.samples and self.options.only != "mns" else []
        if self.samples:
            clients += mns_report.text(self.samples)
        return "\n".join([*self.head(), *clients, *self.durable]).rstrip() + "\n"

    def head(self) -> list[str]:
        options = self.options
        return [
            "# Benchmarks",
            "",
            f"Written by `make bench` on {time.strftime('%Y-%m-%d')}. README.md in this folder says what is measured",
            "and how to repeat it.",
            "",
            *machine(options),
            f"- {options.rounds} {'round' if options.rounds == 1 else 'rounds'}, {options.seconds:g} s for each measurement,"
            f" all in turns, {self.took / 60:.0f} minutes; broker and client share the machine",
            "",
        ]

    def clients(self) -> list[str]:
        foreign = [sample.foreign for found in self.samples.values() for sample in found]
        lines = [
            "## Clients",
            "",
            f"- other work took {statistics.median(foreign):.1%} of the machine in the median run and {max(foreign):.1%}"
            f" in the worst; {self.again} runs were made again because of it",
            *noise(foreign),
            "",
            "### What was aimed at",
            "",
            "Ratios are medians of the ratios of each round.",
            "",
            *self.goals(),
            "### Acked sends",
            "",
            "CPU is seconds per 100,000 messages, of the client's process and of the broker's. The broker is ours, holds",
            "messages in memory and is started anew for each run; nothing consumes. A message counts when its receipt is",
            "there.",
            "",
        ]
        for size in (100, 1024):
            for clients in (1, 8):
                noun = "client" if clients == 1 else "clients"
                lines += [f"#### {clients} {noun}, {size} B", "", *self.rates("acked", clients, size)]
        lines += [
            "### Produce, consume and acknowledge",
            "",
            "One producer and one consumer in the same process, from the first send to the last acknowledgement. No",
            "message was lost or came twice: a run with either fails.",
            "",
        ]
        for size in (100, 1024):
            lines += [f"#### {size} B", "", *self.rates("e2e", 1, size)]
        lines += [
            "### Cost of a call",
            "",
            "Nanoseconds. Submits of 100 B by id in bursts of 1024, without a network; the task that takes them runs on the",
            "other core. A send that waits is wall time divided by all sends.",
            "",
            *self.calls(),
            "## Rate limits",
            "",
            "Nanoseconds of a send over a producer that does nothing, each granted, on one thread; then sends a second through",
            "a limit in Redis, and what redis-benchmark reaches with the same script, server and number of clients.",
            "",
            *self.limits(),
            "## Outbox",
            "",
            "Rows of 100 B in a file, each commit synced, beside the same batches in bare SQLite (WAL, FULL, one index) on the",
            "same disk, in turns.",
            "",
            *outbox_report.tables([sample.line for sample in self.samples[Case("rust", "outbox")]]),
            "## Strategies",
            "",
            "Nanoseconds of a send over a producer that does nothing, on one thread.",
            "",
            *strategy_report.layers([sample.line for sample in self.samples[Case("rust", "strategies")]]),
            "## Strategies in Python",
            "",
            "Nanoseconds of a call that goes well: decorated functions, then decorated coroutine functions in one event loop,",
            "then sends through a provider that is a callable.",
            "",
            *self.strategies(),
            "## Strategies in Go",
            "",
            "Nanoseconds of a call that goes well: the senders of package comm, which are plain Go, then sends through the",
            "library to a sender that is registered with it.",
            "",
            *strategy_report.go([sample.line["calls"] for sample in self.samples[Case("go", "strategy")]]),
        ]
        return lines
