"""The numbers to reach, and the verdict on a measured one. Knows nothing of how anything is measured."""

from __future__ import annotations

from typing import NamedTuple


class Goal(NamedTuple):
    """One number to reach. For a ratio `unit` is "x"; `at_most` turns both bounds round."""

    text: str
    bound: float
    goal: float | None  # None: there is only the bound
    unit: str = "x"
    at_most: bool = False


# The key is what the measuring modules call the figure.
GOALS = {
    "encode/pyjwt": Goal("`encode`, times as fast as PyJWT", 3.5, 4),
    "decode/pyjwt": Goal("`decode`, times as fast as PyJWT", 3.5, 4.5),
    "encode/joserfc": Goal("`encode`, times as fast as joserfc", 2.4, 2.7),
    "decode/joserfc": Goal("`decode`, times as fast as joserfc", 1.8, 2.3),
    "encode/hmac": Goal("`encode`, time in bare HMACs", 3, 2.7, at_most=True),
    "decode/hmac": Goal("`decode`, time in bare HMACs", 5, 4, at_most=True),
    "refresh/bare": Goal("`/refresh` at 128 connections, rate against a bare protocol that answers constant bytes", 1 / 8, None),
    "refresh/uvicorn": Goal("`/refresh` at 128 connections, rate against uvicorn + uvloop + httptools with PyJWT", 1.7, 2.5),
    "refresh/fastify": Goal("`/refresh` at 128 connections, rate against fastify + fast-jwt", 1.2, 1.6),
    "refresh/express": Goal("`/refresh` at 128 connections, rate against the tutorial's Express app", 12, 18),
    "p99/p50": Goal("99th percentile at 128 connections, in medians", 3, 2, at_most=True),
    "worst/p50": Goal("worst latency at 128 connections, in medians", 10, None, at_most=True),
    "rotation/off": Goal("`/refresh` with rotation at 128 connections, rate against without", 0.5, 0.8),
    "rotation/slow": Goal("`/refresh` with rotation and a commit that takes 5 ms", 4000, 6000, "/s"),
    "rows": Goal("`/refresh` with a million session rows, time against ten rows", 1.3, 1.1, at_most=True),
    "memory/idle": Goal("resident memory, idle", 32, 28, " MB", at_most=True),
    "memory/1000": Goal("resident memory with 1,000 idle connections", 45, 38, " MB", at_most=True),
    "logins/memory": Goal("memory that sixteen logins at once add, for each core", 20, None, " MB", at_most=True),
    "startup": Goal("from `python3 server.py` to the first answer", 0.3, 0.2, " s", at_most=True),
}


def verdict(goal: Goal, value: float | None) -> str:
    """Return what `value` reaches: "goal", the bound ("at least" or "at most"), "missed", or "not measured"."""
    if value is None:
        return "not measured"
    sign = -1 if goal.at_most else 1
    if sign * value < sign * goal.bound:
        return "**missed**"
    if goal.goal is None or sign * value < sign * goal.goal:
        return "at most" if goal.at_most else "at least"
    return "goal"


def number(value: float, unit: str = "") -> str:
    """Return `value` with about three digits that mean something: 0.125, 4.71, 14.5, 6,900."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}{unit.replace('x', '×')}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose columns also line up on a terminal: the first left, the others right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(cells: list[str]) -> str:
        first, *others = zip(cells, widths)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    ruler = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(columns), ruler, *map(line, rows)])


def summary(figures: dict[str, float], only_measured: bool) -> str:
    """Return the table of the goals, each with its figure in `figures` if it was measured."""
    rows = []
    for key, goal in GOALS.items():
        if only_measured and key not in figures:
            continue
        value, word = figures.get(key), "at most " if goal.at_most else "at least "
        rows.append([
            goal.text,
            "–" if value is None else number(value, goal.unit),
            word + number(goal.bound, goal.unit),
            "–" if goal.goal is None else number(goal.goal, goal.unit),
            verdict(goal, value),
        ])  # fmt: skip
    return table(["number to reach", "measured", "must be", "goal", "reached"], rows)
