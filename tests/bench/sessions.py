"""Measure `/refresh` of our server against itself: with rotation, with slow commits, with a million session rows."""

from __future__ import annotations

import secrets
import sqlite3
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from goals import Section, between, number, table
from load import Result
from servers import (
    HERE,
    ROOT,
    SECRETS,
    CannotMeasure,
    Server,
    free_port,
    log_in,
    raw_answer,
    refresh_request,
    start,
    start_ours,
)
from wire import Effort, how_long, job_for, known, microseconds, middle, run_load

sys.path.insert(0, str(ROOT))
import minijwt  # noqa: E402

CONNECTIONS = 128
COMMIT_SECONDS = 0.005
ROWS = (10, 1_000, 100_000, 1_000_000)  # of the session table
FEW, MANY = ROWS[0], ROWS[-1]

Results = dict[str, list[Result]]  # server: a result of each round
Part = tuple[Results, dict[str, float]]  # with figures for GOALS


class Skip(Exception):
    """The server is not as this measurement needs it; a sentence."""


def other_session(claims: dict[str, Any]) -> str:
    """Return a refresh token like that with `claims` but of another session: a login without its quarter second."""
    if not isinstance(claims.get("sid"), str):
        raise Skip("this server's refresh tokens have no sessions")
    # As long as the real one and in an alphabet that fits both hexadecimal and base64url.
    sid = secrets.token_hex(len(claims["sid"]))[: len(claims["sid"])]
    if len(sid) == 22:  # 128 bits in base64url: the last character holds two of them, and must be canonical
        sid = sid[:21] + "A"
    return minijwt.encode({**claims, "sid": sid}, SECRETS["REFRESH_TOKEN_SECRET"])


def requests_of_many(server: Server, count: int) -> list[str]:
    """Return refresh requests for `server` of `count` new sessions."""
    claims = minijwt.decode(log_in(server), SECRETS["REFRESH_TOKEN_SECRET"])
    return [refresh_request(server.port, other_session(claims)) for _ in range(count)]


def check(server: Server, rotates: bool) -> None:
    """Raise Skip unless `server` refreshes such sessions, with a new cookie if it `rotates`."""
    answer = raw_answer(server.port, requests_of_many(server, 1)[0])
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise Skip("this server refuses the sessions that the bench makes up")
    if (b"\r\nSet-Cookie: " in answer) != rotates:
        raise Skip("this server does not rotate" if rotates else "this server always rotates")


def in_turns(servers: list[Server], effort: Effort) -> Results:
    """Return the results of each round for each of `servers`, with new sessions every time."""
    results: Results = {server.name: [] for server in servers}
    for _ in range(effort.rounds):
        for server in servers:
            requests = requests_of_many(server, CONNECTIONS)
            job = job_for(server, requests, CONNECTIONS, effort.seconds, effort.warm_up)
            results[server.name].append(run_load(job))
    return results


def ratio(results: Results, one: str, other: str) -> float:
    """Return the rate of `one` over that of `other`: the median of the rounds."""
    return median([a.rate / b.rate if b.rate else 0.0 for a, b in zip(results[one], results[other])])


def cpu_ratio(results: Results, one: str, other: str) -> float:
    """Return the CPU time of an answer of `one` over that of `other`: the median of the rounds that know it."""
    return middle([a.cpu / b.cpu for a, b in zip(results[one], results[other]) if a.cpu and b.cpu])


COLUMNS = [
    f"`POST /refresh`, {CONNECTIONS} connections", "CPU µs", "min–max", "requests/s", "p50 ms", "p99 ms", "worst ms",
    "errors",
]  # fmt: skip


def rows_of(results: Results) -> list[list[str]]:
    """Return the rows of the table that has COLUMNS."""
    fields = ("median", "p99", "worst")
    return [
        [
            name,
            known(middle(microseconds(rounds))),
            between(microseconds(rounds)),
            number(median([result.rate for result in rounds])),
            *(number(median([getattr(result, field) for result in rounds]) * 1000) for field in fields),
            str(sum(result.errors for result in rounds)),
        ]
        for name, rounds in results.items()
    ]


def rotation(effort: Effort) -> Part:
    """Measure rotation on against off."""
    off, on = "rotation off", "rotation on"
    with ExitStack() as stack:
        servers = [start_ours(stack, off), start_ours(stack, on, ROTATE_REFRESH="on")]
        check(servers[0], rotates=False)
        check(servers[1], rotates=True)
        results = in_turns(servers, effort)
    return results, {"rotation/off": ratio(results, on, off)}


def start_slow(stack: ExitStack, name: str) -> Server:
    """Start our server with rotation and slow commits; Skip if they cannot be made slow from outside."""
    port = free_port()
    command = [sys.executable, str(HERE / "slow_commit.py"), str(COMMIT_SECONDS), str(ROOT / "server.py")]
    server = start(stack, name, command, port, ROTATE_REFRESH="on")
    check(server, rotates=True)
    alone = run_load(job_for(server, requests_of_many(server, 1), 1, 0.5, 0))
    if alone.rate > 1 / COMMIT_SECONDS:  # a single connection waits for every commit
        raise Skip("its commits could not be slowed down from outside")
    return server


def slow_commits(effort: Effort) -> Part:
    """Measure rotation where a commit takes 5 ms."""
    name = "rotation on, a commit takes 5 ms"
    with ExitStack() as stack:
        results = in_turns([start_slow(stack, name)], effort)
    return results, {"rotation/slow": median([result.rate for result in results[name]])}


def session_table(database: sqlite3.Connection) -> tuple[str, str, list[str]]:
    """Return the table with a row for each of FEW sessions, its key (the session's id) and its other columns."""
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in names:
        columns = database.execute(f'PRAGMA table_info("{name}")').fetchall()
        keys = [column[1] for column in columns if column[5]]
        count = database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
        if count == FEW and len(keys) == 1:
            return name, keys[0], [column[1] for column in columns if not column[5]]
    raise Skip(f"no table has a row for each of {FEW} sessions")


def multiply(path: Path, count: int) -> None:
    """Fill the session table in the database at `path` up to `count` rows: copies under random ids."""
    database = sqlite3.connect(path)
    try:
        name, key, others = session_table(database)
        random_id = f"CASE typeof(\"{key}\") WHEN 'blob' THEN randomblob(16) ELSE lower(hex(randomblob(16))) END"
        columns = ", ".join(f'"{column}"' for column in others)
        with database:
            database.execute(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count // FEW - 1}) "
                f'INSERT INTO "{name}" ("{key}", {columns}) SELECT {random_id}, {columns} FROM "{name}", n'
            )
    finally:
        database.close()


def fill(path: Path) -> None:
    """Let our server write a row for each of FEW sessions into a new database at `path`."""
    with ExitStack() as stack:
        server = start_ours(stack, ROTATE_REFRESH="on", DATABASE=str(path))
        for request in requests_of_many(server, FEW):
            raw_answer(server.port, request)


def many_rows(effort: Effort) -> Part:
    """Measure larger and larger session tables against a small one."""
    names = {count: f"{count:,} session rows" for count in ROWS}
    with tempfile.TemporaryDirectory(prefix="minijwt-bench-") as directory, ExitStack() as stack:
        servers = []
        for count, name in names.items():
            path = Path(directory, f"{count}.db")
            fill(path)
            if count > FEW:
                multiply(path, count)
            servers.append(start_ours(stack, name, DATABASE=str(path)))
        results = in_turns(servers, effort)
    times = cpu_ratio(results, names[MANY], names[FEW])
    return results, {"rows": times if times > 0 else ratio(results, names[FEW], names[MANY])}


# What is measured, and the figures for GOALS that it has.
PARTS = {
    rotation: ("rotation/off",),
    slow_commits: ("rotation/slow",),
    many_rows: ("rows",),
}


def sessions_section(effort: Effort) -> Section:
    """Return what is to say about sessions."""
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    lacks: dict[str, str] = {}
    for part, keys in PARTS.items():
        print(f"  {part.__name__.replace('_', ' ')}", file=sys.stderr)
        try:
            results, found = part(effort)
        except (Skip, CannotMeasure, sqlite3.Error) as error:
            lacks.update(dict.fromkeys(keys, f"{error}."))
            continue
        rows += rows_of(results)
        figures.update(found)
    text = f"Every connection is a session of its own. The bench's own generator. {how_long(effort)}\n"
    shown = f"{text}\n{table(COLUMNS, rows)}\n" if rows else ""
    reasons = {", ".join(keys): lacks[keys[0]] for keys in PARTS.values() if keys[0] in lacks}
    skipped = "".join(f"- {names}: {reason}\n" for names, reason in reasons.items())
    return Section("## Sessions\n\n" + "\n".join(filter(None, [shown, skipped])), figures, lacks)
