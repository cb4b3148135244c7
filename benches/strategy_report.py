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


def said(line: dict) -> str:
    """While it runs."""
    nested, empty = line[NESTED]["ns_median"], line["empty 4"]["ns_median"]
    return f"four nested {nested:.0f} ns, {nested / empty:.2f} of four empty layers; {FAILED} {line[FAILED]['ns_median']:.0f} ns"
