"""Runs every measurement in turns and writes the report. See README.md; run.sh calls this."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import durable
from durable_report import DurablePart
from measure import Bench, Case, Peer, Sample
from report import LIMITS, Report

OURS = ["rust", "c", "go", "python"]
SIZES = [100, 1024]
CLIENTS = [1, 8]
# Of MNS: the client of a queue beside the official SDK, and the front beside a bare handler.
MNS = [(mode, size) for size in SIZES for mode in ("mns_send", "mns_batch", "mns_take")]


def mns_cases() -> list[Case]:
    plan = [Case(program, mode, 8, size) for mode, size in MNS for program in ("rust", "sdk")]
    return plan + [Case("rust", mode, 8, size) for size in SIZES for mode in ("mns_raw", "mns_floor")]


def cases(peer: bool) -> list[Case]:
    """In the order in which they are run: what is compared stands together."""
    plan = []
    others = ["plain", "peer"] if peer else ["plain"]
    for size in SIZES:
        for clients in CLIENTS:
            plan += [Case(program, mode, clients, size) for program in others for mode in ("acked", "unacked")]
            plan += [Case(program, "acked", clients, size) for program in OURS]
        plan += [Case(program, "e2e", 1, size) for program in [*others, *OURS]]
    plan += [Case(program, "submit") for program in OURS]
    plan += [Case("python", "submit_many"), Case("go", "send")]
    plan += [Case("rust", "limiter"), Case("rust", "redis_limiter")]
    plan += [Case("rust", "outbox")]
    plan += [Case("rust", "strategies"), Case("python", "strategy"), Case("go", "strategy")]
    return plan + mns_cases()


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs every measurement in turns and writes the report.")
    for program in ("broker", "rust", "c", "go", "python", "plain", "mnsbench"):
        parser.add_argument(f"--{program}", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder for logs, emptied")
    parser.add_argument("--only", choices=["clients", "broker", "mns"], help="one part of the page alone")
    options = parser.parse_args()
    options.peer = os.environ.get("BENCH_PEER", "")
    options.peer_secret = os.environ.get("BENCH_PEER_SECRET", "test")
    options.peer_process = Peer(int(os.environ.get("BENCH_PEER_PID", "0")))

    start = time.monotonic()
    with options.peer_process.still():
        samples, again = clients(options) if options.only != "broker" else ({}, 0)
        part = broker(options) if options.only not in ("clients", "mns") else []
    report = Report(samples, options, time.monotonic() - start, again, part)
    options.report.write_text(report.text())
    print(f"{options.report} is written")


def broker(options) -> list[str]:
    samples, memory, restart, seen = durable.measure(options)
    return DurablePart(samples, memory, restart, seen.again, seen.waited).text()


def clients(options) -> tuple[dict[Case, list[Sample]], int]:
    bench = Bench(options)
    plan = cases(bool(options.peer)) if options.only != "mns" else mns_cases()
    samples: dict[Case, list[Sample]] = {case: [] for case in plan}
    for round in range(options.rounds):
        for number, case in enumerate(plan, 1):
            sample = bench.run(case)
            samples[case].append(sample)
            nanoseconds = sample.line.get("ns_median", sample.line.get("ns_each"))
            seen = f"{sample.rate:,.0f}/s" if nanoseconds is None else f"{nanoseconds:.0f} ns a call"
            seen = LIMITS[case.mode](sample.line) if case.mode in LIMITS else seen
            print(
                f"round {round + 1} of {options.rounds}, {number} of {len(plan)}: {case.program} {case.mode}"
                f" {case.clients} x {case.size} B: {seen}, other work {sample.foreign:.0%}",
                file=sys.stderr,
            )
    return samples, bench.again


if __name__ == "__main__":
    main()
