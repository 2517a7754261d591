"""Measure `/refresh` on etcd against SQLite in the same run: one node and three, rotation off and on, many session rows.

The nodes run on the load generator's core, so their own CPU takes from the rate, and none from the server's CPU. Every
connection is the session of a user of its own.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from uuid import uuid4

from goals import Section, between, number, table
from load import Result
from servers import ROOT, SECRETS, Server, cores, pinned_to, refresh_request, start_ours
from wire import Effort, how_long, job_for, known, microseconds, middle, milliseconds, run_load

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import etcdkit  # noqa: E402
import minijwt  # noqa: E402
import server as ours  # noqa: E402

CONNECTIONS = 64
ROWS, QUICK_ROWS = 200_000, 10_000
AT_ONCE = 1_000  # rows to a batch
LIFE_SECONDS = 86_400  # of the tokens; the rows outlive them
PASSWORD = "scrypt$2$1$1$00$00"  # is never asked for
SQLITE, ONE, THREE = "SQLite", "etcd, one node", "etcd, three nodes"
ROTATIONS = ("off", "on")
# The figure of each store, with the rotation in front of it.
FIGURES = {ONE: "one", THREE: "three", "rows": "rows"}

Results = dict[tuple[str, str], list[Result]]  # rotation and store: a result of each round


def username(connection: int) -> str:
    return f"user{connection}"


def new_requests(server: Server) -> list[str]:
    """Return a refresh request for each connection, of new sessions."""
    found, now = [], int(time.time())
    for connection in range(CONNECTIONS):
        session = {"username": username(connection), "sid": uuid4().hex, "gen": 0, "epoch": "e"}
        token = minijwt.encode({**session, "iat": now, "exp": now + LIFE_SECONDS}, SECRETS["REFRESH_TOKEN_SECRET"])
        found.append(refresh_request(server.port, token))
    return found


def fill(store: ours.SQLiteStore | ours.EtcdStore, rows: int) -> None:
    """Add the users, and `rows` sessions that were rotated."""
    store.batch([partial(store.add_user, username(connection), PASSWORD, "e") for connection in range(CONNECTIONS)])
    end = int(time.time()) + 2 * LIFE_SECONDS
    for start in range(0, rows, AT_ONCE):
        keys = [f"session/{end:014x}/{uuid4().hex}" for _ in range(min(AT_ONCE, rows - start))]
        store.batch([partial(store.keep, key, [1, 0.0, False]) for key in keys])
    store.close()


@contextmanager
def databases(rows: int) -> Iterator[dict[str, str]]:
    """Run one node, and three; yield DATABASE of each store, with `rows` sessions in the last two."""
    with ExitStack() as stack:
        with pinned_to(cores()[1]):
            clusters = [stack.enter_context(etcdkit.Cluster(size)) for size in (1, 3)]
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minijwt-bench-")))
        few = {SQLITE: str(directory / "few.db"), **dict(zip((ONE, THREE), (each.url() for each in clusters)))}
        many = {SQLITE: str(directory / "many.db"), THREE: clusters[1].url("many")}
        found = {**few, **{full(name, rows): database for name, database in many.items()}}
        for name, database in found.items():
            print(f"  filling {name}", file=sys.stderr)
            settings = {**SECRETS, "DATABASE": database}
            fill(ours.open_store(ours.read_settings(settings, "")), rows if name not in few else 0)
        yield found


def full(name: str, rows: int) -> str:
    """Return what a store with `rows` sessions is called."""
    return f"{name}, {rows:,} sessions"


def measure(effort: Effort, rows: int) -> Results:
    """Return what each store has to show, with rotation off and on, in turns."""
    results: Results = {}
    with databases(rows) as found, ExitStack() as stack:
        servers = {
            (rotation, name): start_ours(stack, name, DATABASE=database, ROTATE_REFRESH=rotation)
            for rotation in ROTATIONS for name, database in found.items()
        }  # fmt: skip
        for turn in range(effort.rounds):
            print(f"  round {turn + 1} of {effort.rounds}", file=sys.stderr)
            for key, server in servers.items():
                job = job_for(server, new_requests(server), CONNECTIONS, effort.seconds, effort.warm_up)
                results.setdefault(key, []).append(run_load(job))
    return results


def against(results: list[Result], others: list[Result]) -> tuple[float, float]:
    """Return CPU and rate in those of `others`: medians of the rounds."""
    pairs = list(zip(results, others))
    times = middle([mine.cpu / other.cpu for mine, other in pairs if mine.cpu and other.cpu])
    return times, median([mine.rate / other.rate if other.rate else 0.0 for mine, other in pairs])


def shared_section(effort: Effort, quick: bool) -> Section:
    """Return what is to say about the shared store."""
    why = etcdkit.why_not()
    if why:
        return Section(f"## Shared store\n\nNot measured: {why}.\n", {}, {"etcd": f"{why}."})
    rows = QUICK_ROWS if quick else ROWS
    results, cells, figures = measure(effort, rows), [], dict[str, float]()
    for (rotation, name), found in results.items():
        few = SQLITE if name in (SQLITE, ONE, THREE) else full(SQLITE, rows)
        times, share = against(found, results[rotation, few])
        if name != few and times > 0:
            figures[f"etcd/{rotation}/{FIGURES.get(name, 'rows')}"] = times
        cells.append([
            name, rotation, known(middle(microseconds(found))), between(microseconds(found)), known(times, "x"),
            number(median([result.rate for result in found])), number(share, "x"),
            *(milliseconds(found, field) for field in ("median", "p99")),
            str(sum(result.errors for result in found)),
        ])  # fmt: skip
    columns = ["`POST /refresh`", "rotation", "CPU µs", "min–max", "of SQLite's", "requests/s", "of SQLite's"]
    text = table([*columns, "p50 ms", "p99 ms", "errors"], cells)
    words = (f"{CONNECTIONS} connections, each a session of another user, which its server has seen last; the nodes"
             f" share the load generator's core. {how_long(effort)}")  # fmt: skip
    lacks = {} if figures else {"etcd": "this system does not say what CPU time another process has used."}
    if quick:
        figures = {key: value for key, value in figures.items() if not key.endswith("/rows")}
        lacks.update({f"etcd/{each}/rows": f"--quick has only {rows:,} sessions." for each in ROTATIONS})
    return Section(f"## Shared store\n\n{words}\n\n{text}\n", figures, lacks)
