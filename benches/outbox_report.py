"""What an outbox in a file does beside bare SQLite, as tables."""

from __future__ import annotations

import statistics

from page import table

ROWS = [
    ("insert_1", "inserts, one a commit"),
    ("insert_100", "inserts, 100 a commit"),
    ("claim_1", "claims, one a commit"),
    ("claim_100", "claims, 100 a commit"),
]


def tables(lines: list[dict]) -> list[str]:
    rows = []
    for name, what in ROWS:
        middle = {field: statistics.median(line[name][field] for line in lines) for field in ("rate", "bare", "ratio")}
        rows.append([what, f"{middle['rate']:,.0f}", f"{middle['bare']:,.0f}", f"{middle['ratio']:.2f}", ">= 0.70"])
    ready = {field: statistics.median(line["ready"][field] for line in lines) for field in lines[0]["ready"]}
    return [
        *table(["", "rows/s", "bare SQLite", "ratio", "aim"], rows),
        f"A message that is stored first has its receipt after {ready['stored_us']:.0f} us and its first attempt after"
        f" {ready['tried_us']:.0f} us,",
        f"which is {ready['commits']:.2f} times a commit of one row in bare SQLite (aim: at most 2).",
        "",
    ]


def said(line: dict) -> str:
    """While it runs."""
    ratios = ", ".join(f"{name} {line[name]['ratio']:.2f}" for name, _ in ROWS)
    return f"{ratios} of bare SQLite; tried after {line['ready']['commits']:.2f} commits"
