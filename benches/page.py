"""Pieces of the page."""

from __future__ import annotations

import statistics

from measure import FOREIGN


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    cells = lambda row: "| " + " | ".join(  # noqa: E731
        text.ljust(width) if column == 0 else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths))
    ) + " |"
    rule = "| " + " | ".join(
        "-" * width if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)
    ) + " |"
    return [cells(head), rule, *map(cells, rows), ""]


def noise(foreign: list[float]) -> list[str]:
    """What to think of the figures when others worked."""
    if statistics.median(foreign) <= FOREIGN:
        return []
    return ["- **that is too much for good figures: rates are too low and times too long; ratios still compare**"]
