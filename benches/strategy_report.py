"""What strategies cost a send, as tables."""

from __future__ import annotations

import statistics

from page import table

NESTED = "timeout > retry > rate_limit > failover"
FAILED = "failover, 3 of 3 fail"
ONE = ["retry", "timeout", "rate_limit", "failover", "timeout_failover", "circuit_breaker"]


def layers(lines: list[dict]) -> list[str]:
    """Each strategy alone, four nested, and a failover of which every member fails, beside empty layers."""

    def middle(name: str) -> float:
        return statistics.median(line[name]["ns_median"] for line in lines)

    def least(name: str) -> float:
        return min(line[name]["ns_min"] for line in lines)

    rows = []
    for name, beside, aim in [
        ("none", "", ""),
        ("empty 1", "", ""),
        ("empty 4", "", ""),
        *[(name, "empty 1", "") for name in ONE],
        (NESTED, "empty 4", "<= 2"),
        (FAILED, "", "<= 400 ns"),
    ]:
        ratio = statistics.median(line[name]["ns_median"] / line[beside]["ns_median"] for line in lines) if beside else 0
        shown = name.replace("none", "no layer")
        shown = shown.replace("empty 1", "a layer that only passes on").replace("empty 4", "four of them")
        rows.append([shown, f"{least(name):.0f}", f"{middle(name):.0f}", f"{ratio:.2f}" if beside else "-", aim or "-"])
    return table(["", "least", "median", "to as many empty layers", "aim"], rows)


# Calls of Go: what is measured.
GO = {
    "bare": "the bare sender",
    "retry": "retryable",
    "rate_limit": "ratelimit",
    "failover": "failover",
    "three": "retryable, ratelimit, failover",
    "registered": "a registered sender",
    "registered_three": "timeout, retry, failover, a registered sender",
}


def go(lines: list[dict]) -> list[str]:
    """Senders of a Go program with strategies around them, beside the bare one."""
    rows = []
    for name, what in GO.items():
        median = statistics.median(line[name]["ns_median"] for line in lines)
        over = statistics.median(line[name]["ns_median"] - line["bare"]["ns_median"] for line in lines)
        least = min(line[name]["ns_min"] for line in lines)
        p90 = statistics.median(line[name]["ns_p90"] for line in lines)
        rows.append([what, f"{least:,.0f}", f"{median:,.0f}", f"{p90:,.0f}", f"{over:,.0f}" if name != "bare" else "-"])
    return table(["", "least", "median", "p90", "added to the bare one"], rows)


def calls_said(line: dict) -> str:
    """While it runs: what is added to the bare call, in Python or in Go."""
    calls = line.get("calls", line)
    names = ("three", "registered") if "calls" in line else ("retry", "four", "callback")
    return ", ".join(f"{name} {calls[name]['ns_median'] - calls['bare']['ns_median']:.0f} ns" for name in names)


def said(line: dict) -> str:
    """While it runs."""
    nested, empty = line[NESTED]["ns_median"], line["empty 4"]["ns_median"]
    return f"four nested {nested:.0f} ns, {nested / empty:.2f} of four empty layers; {FAILED} {line[FAILED]['ns_median']:.0f} ns"
