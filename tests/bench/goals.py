"""The numbers to reach, and the verdict on a measured one. Knows nothing of how anything is measured."""

from __future__ import annotations

from typing import NamedTuple


class Section(NamedTuple):
    """What a part of the benchmark has found."""

    text: str  # in Markdown
    figures: dict[str, float] = {}  # for GOALS
    lacks: dict[str, str] = {}  # a key of GOALS, or how some begin: why there is no figure, a sentence


class Goal(NamedTuple):
    """One number to reach. For a ratio `unit` is "x"; `at_most` turns both bounds round."""

    text: str
    bound: float
    goal: float | None  # None: there is only the bound
    unit: str = "x"
    at_most: bool = False


def at_most(text: str, bound: float, goal: float | None, unit: str = "x") -> Goal:
    """Return a goal that less than `bound` reaches."""
    return Goal(text, bound, goal, unit, at_most=True)


# The key is what the measuring modules call the figure.
GOALS = {
    "encode/pyjwt": Goal("`encode`, times as fast as PyJWT", 3.5, 4),
    "decode/pyjwt": Goal("`decode`, times as fast as PyJWT", 3.5, 4.5),
    "encode/joserfc": Goal("`encode`, times as fast as joserfc", 2.4, 2.7),
    "decode/joserfc": Goal("`decode`, times as fast as joserfc", 1.8, 2.3),
    "encode/hmac": at_most("`encode`, time in bare HMACs", 3, 2.7),
    "decode/hmac": at_most("`decode`, time in bare HMACs", 5, 4),
    "cpu/fastify/16": at_most("CPU of a `/refresh` at 16 connections, against fastify without look-up", 1.0, 0.8),
    "cpu/fastify/64": at_most("the same at 64", 0.9, 0.8),
    "cpu/fastify/128": at_most("the same at 128", 0.9, 0.8),
    "cpu/go/16": at_most("CPU of a `/refresh` at 16 connections, against Go without look-up", 1.5, 1.2),
    "cpu/go/64": at_most("the same at 64", 1.5, 1.2),
    "cpu/go/128": at_most("the same at 128", 1.5, 1.2),
    "cpu/uvicorn/16": at_most("CPU of a `/refresh` at 16 connections, against uvicorn with PyJWT", 0.45, 0.3),
    "cpu/uvicorn/128": at_most("the same at 128", 0.45, 0.3),
    "rate/express": Goal("`/refresh` at 128 connections, rate against the tutorial's Express app", 12, 18),
    "p99/p50": at_most("99th percentile at 128 connections, in medians", 3, 2),
    "tls/16": at_most("CPU of a `/refresh` over TLS at 16 connections, against plain", 1.5, 1.3),
    "tls/128": at_most("the same at 128", 1.5, 1.3),
    "rotation/off": Goal("`/refresh` with rotation at 128 connections, rate against without", 0.5, 0.8),
    "rotation/slow": Goal("`/refresh` with rotation and a commit that takes 5 ms", 4000, 6000, "/s"),
    "etcd/off/one": at_most("CPU of a `/refresh` on one node of etcd, against SQLite", 2.2, 1.6),
    "etcd/off/three": at_most("the same on three nodes", 2.2, 1.6),
    "etcd/off/rows": at_most("the same with 200,000 session rows", 2.2, 1.6),
    "etcd/on/one": at_most("CPU of a `/refresh` with rotation on one node of etcd, against SQLite", 1.6, 1.2),
    "etcd/on/three": at_most("the same on three nodes", 1.6, 1.2),
    "etcd/on/rows": at_most("the same with 200,000 session rows", 1.6, 1.2),
    "memory/idle": at_most("resident memory, idle", 32, 28, " MB"),
    "memory/1000": at_most("resident memory with 1,000 idle connections", 45, 38, " MB"),
    "unread/plain": at_most("memory under 4,096 clients that read nothing, process and kernel", 800, 400, " MB"),
    "unread/tls": at_most("the same over TLS", 900, 500, " MB"),
    "logins/memory": at_most("memory that sixteen logins at once add, for each core", 20, None, " MB"),
    "fire": at_most("longest wait of a good client under each kind of fire", 100, 50, " ms"),
    "startup": at_most("from `python3 server.py` to the first answer", 0.3, 0.2, " s"),
    "rows": at_most("CPU of a `/refresh` with a million session rows, against ten rows", 1.3, 1.1),
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


def between(values: list[float], unit: str = "") -> str:
    """Return the least and the most of `values` for a reader; a dash if there are not two."""
    return f"{number(min(values))}–{number(max(values))}{unit}" if len(values) > 1 else "–"


def reason(key: str, lacks: dict[str, str]) -> str | None:
    """Return why there is no figure for `key`, None if nothing is known."""
    fitting = [start for start in lacks if f"{key}/".startswith(f"{start}/")]
    return lacks[max(fitting, key=len)] if fitting else None


def summary(figures: dict[str, float], lacks: dict[str, str], only_measured: bool) -> str:
    """Return the table of the goals, each with its figure in `figures` or the reason in `lacks` why there is none."""
    rows: list[list[str]] = []
    missing: dict[str, list[str]] = {}  # why: which
    for key, goal in GOALS.items():
        value, why = figures.get(key), reason(key, lacks)
        if value is None and why is None and only_measured:
            continue
        if value is None:
            missing.setdefault(why or "it was not measured.", []).append(key)
        rows.append([
            goal.text,
            "–" if value is None else number(value, goal.unit),
            ("at most " if goal.at_most else "at least ") + number(goal.bound, goal.unit),
            "–" if goal.goal is None else number(goal.goal, goal.unit),
            verdict(goal, value),
            key,
        ])  # fmt: skip
    columns = ["number to reach", "measured", "must be", "goal", "reached", "figure"]
    sentences = [f"- {', '.join(keys)}: {why}" for why, keys in missing.items()]
    return table(columns, rows) + ("\n\nNot measured:\n\n" + "\n".join(sentences) if sentences else "")
