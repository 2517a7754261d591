"""Measure how `/refresh` grows: with connections, with a second process, behind a proxy; and how far that goes."""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from goals import Section, number, table
from load import Result
from logins import attempt
from peers import Peers
from plot import plot
from servers import (
    CannotMeasure,
    Server,
    ask,
    cores,
    free_port,
    log_in,
    pinned_to,
    raw_answer,
    refresh_request,
    start,
    start_bare,
    start_ours,
    start_peers,
)
from sessions import COLUMNS, CONNECTIONS, Results, in_turns, requests_of_many, rows_of
from wire import (
    LABELS,
    OURS,
    Cells,
    Effort,
    how_long,
    job_for,
    known,
    measure_all,
    microseconds,
    middle,
    milliseconds,
    run_load,
)

FEW, MANY = (1, 4, 16, 64, 128), (256, 512, 1_000)  # connections
DESCRIPTORS = 4_096
LIFETIME = 600  # seconds of an access token
ONE, TWO = "one process", "two processes"


def raise_limit() -> None:
    """Let everybody that is started from here have 1,000 connections and some files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# ---- With connections


def by_connections(peers: Peers, efforts: list[Effort]) -> Cells:
    """Return a result for every contestant and number of connections."""
    with ExitStack() as stack:
        ours = start_ours(stack)
        token = log_in(ours)
        answer = raw_answer(ours.port, refresh_request(ours.port, token))
        contestants = [start_bare(stack, answer), ours, *start_peers(stack, peers, without=("fastify+sqlite",))]
        cells: Cells = {}
        for effort in efforts:
            cells.update(measure_all(contestants, token, effort))
        return cells


def connections_text(cells: Cells, folder: Path) -> str:
    """Return the table of `cells`, and draw them into `folder`."""
    names = list(dict.fromkeys(name for name, _ in cells))
    counts = sorted({count for _, count in cells})
    rows = [
        [LABELS.get(name, name), str(count), known(middle(microseconds([result]))), number(result.rate),
         milliseconds([result], "p99"), str(result.errors)]
        for count in counts for name in names for result in cells[name, count]
    ]  # fmt: skip
    lines = {
        LABELS.get(name, name): [(count, cells[name, count][0].rate) for count in counts]
        for name in names if name == OURS or name in LABELS
    }  # fmt: skip
    title = "POST /refresh: answers a second, one process each"
    (folder / "bench.svg").write_text(plot(lines, OURS, title, "connections at once"), encoding="utf-8")
    columns = ["`POST /refresh`", "connections", "CPU µs", "requests/s", "p99 ms", "errors"]
    return f"![{title}](bench.svg)\n\n{table(columns, rows)}\n"


# ---- With a second process

NGINX = """\
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
  keepalive_requests 10000000;
  upstream minijwt {{ least_conn; {servers} keepalive 256; keepalive_timeout 20s; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://minijwt; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host $http_host;
    }}
  }}
}}
"""
HAPROXY = """\
global
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:{port}
    default_backend minijwt
backend minijwt
    balance leastconn
{servers}
"""


def find(program: str) -> str | None:
    """Return where `program` is; proxies are not always on the PATH of a user."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def nginx(program: str, folder: str, port: int, ports: list[int]) -> list[str]:
    """Return the command that runs nginx in front of `ports`."""
    servers = " ".join(f"server 127.0.0.1:{each};" for each in ports)
    Path(folder, "nginx.conf").write_text(NGINX.format(port=port, servers=servers))
    return [program, "-p", folder, "-e", "stderr", "-c", str(Path(folder, "nginx.conf"))]


def haproxy(program: str, folder: str, port: int, ports: list[int]) -> list[str]:
    """Return the command that runs HAProxy in front of `ports`."""
    servers = "\n".join(f"    server s{each} 127.0.0.1:{each}" for each in ports)
    Path(folder, "haproxy.cfg").write_text(HAPROXY.format(port=port, servers=servers))
    return [program, "-db", "-f", str(Path(folder, "haproxy.cfg"))]


PROXIES: dict[str, Callable[[str, str, int, list[int]], list[str]]] = {"nginx": nginx, "haproxy": haproxy}


def places() -> list[set[int]]:
    """Return where the first server, the second and the proxy run: each on a core of its own where there are four."""
    everywhere = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(everywhere) < 4:
        return [cores()[0]] * 3
    return [{everywhere[0]}, {everywhere[2]}, {everywhere[3]}]


def start_front(stack: ExitStack, name: str, program: str, behind: list[Server]) -> Server:
    """Start the proxy `name` in front of the servers `behind`."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="minijwt-bench-"))
    port = free_port()
    words = f"{ONE if len(behind) == 1 else TWO} behind {name}"
    front = start(stack, words, PROXIES[name](program, folder, port, [each.port for each in behind]), port)
    return front._replace(behind=tuple(each.pid for each in behind))


def both(first: Server, second: Server, effort: Effort) -> Result:
    """Load both at once, each with half of the connections; return their rate together, and the slower's latencies."""
    half = CONNECTIONS // 2
    jobs = [
        job_for(each, requests_of_many(each, half), half, effort.seconds, effort.warm_up) for each in (first, second)
    ]  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run_load, jobs))
    rate, core = sum(each.rate for each in results), sum(each.core or math.nan for each in results)
    return Result(
        rate,
        max(each.median for each in results), max(each.p99 for each in results), max(each.worst for each in results),
        sum(each.errors for each in results),
        *((core, core / rate) if rate and core > 0 else ()),
    )  # fmt: skip


def agree(first: Server, second: Server) -> None:
    """See what one process rotates and ends to be rotated and ended at the other; CannotMeasure if it is not."""

    token, statuses = log_in(first), []
    for server, path in ((second, "/refresh"), (first, "/refresh"), (first, "/logout"), (second, "/refresh")):
        answer = ask(server.port, "POST", path, headers={"Cookie": f"jwt={token}"})
        statuses.append(answer.status)
        if answer.status == 200 and "Set-Cookie" in answer.headers:
            token = answer.headers["Set-Cookie"].partition("=")[2].partition(";")[0]
    if statuses != [200, 200, 204, 406]:
        raise CannotMeasure(f"two processes on one database do not agree: {statuses}")


def with_two(effort: Effort, rotates: bool) -> tuple[Results, list[str]]:
    """Return results of one and two processes on one database, directly and behind proxies; and what was skipped."""
    skipped = []
    where, setting = places(), {"ROTATE_REFRESH": "on" if rotates else "off"}
    with tempfile.TemporaryDirectory(prefix="minijwt-bench-") as directory, ExitStack() as stack:
        database = str(Path(directory, "minijwt.db"))
        servers = []
        for place in where[:2]:
            with pinned_to(place):
                servers.append(start_ours(stack, ONE, DATABASE=database, **setting))
        agree(*servers)
        fronts = servers[:1]
        for name in PROXIES:
            program = find(name)
            if not program:
                skipped.append(f"{name} is not installed here")
                continue
            with pinned_to(where[2]):
                fronts += [start_front(stack, name, program, servers[:1]), start_front(stack, name, program, servers)]
        results = in_turns(fronts, effort)
        first, second = servers
        results[f"{TWO}, half of them each"] = [both(first, second, effort) for _ in range(effort.rounds)]
    return results, skipped


def two_text(effort: Effort) -> tuple[str, float]:
    """Return the text about two processes, and the rate of one without rotation."""
    rows: list[list[str]] = []
    notes: list[str] = []
    rate = math.nan
    for rotates in (False, True):
        results, notes = with_two(effort, rotates)
        rate = rate if rotates else median([result.rate for result in results[ONE]])
        rows += [[f"{row[0]}, rotation {'on' if rotates else 'off'}", *row[1:]] for row in rows_of(results)]
    shared = places()[0] == places()[1]
    place = "Both processes and the proxy share one core here, so a second process cannot be faster. " if shared else ""
    words = (
        "Seen first: a token that one process has rotated, the other rotates on; a logout at one is one at the other. "
        f"Every connection is a session of its own. {place}{how_long(effort)} CPU µs: of minijwt, without the proxy."
    )
    skipped = "".join(f"\nSkipped: {note}.\n" for note in notes)
    return f"### Two processes on one database\n\n{words}\n\n{table(COLUMNS, rows)}\n{skipped}", rate


# ---- How far that goes


def far_text(rate: float) -> str:
    """Return what `rate` refreshes a second mean for people, with the time that a login takes."""
    with ExitStack() as stack:
        server = start_ours(stack, LOGIN_MAX_FAILURES="0")
        seconds = min(attempt(server, "admin", "admin123") for _ in range(4))
    count = os.cpu_count() or 1
    hashing = max(1, count - 1)
    return (
        f"### How far one machine goes\n\nWho is there all day refreshes every {LIFETIME} seconds: {number(rate)} "
        f"refreshes a second of one process are {number(rate * LIFETIME)} users. A login takes {number(seconds)} s of a "
        f"core, and {hashing} of the {count} here may hash: {number(hashing / seconds)} logins a second, "
        f"{number(60 * hashing / seconds)} in a minute. That is what fills this machine, over loopback, without TLS "
        "and with nobody else on it: plan with a fraction of it.\n"
    )


def growth_section(peers: Peers, folder: Path, quick: bool = False) -> Section:
    """Return what is to say about growth; draw the plot into `folder`."""
    raise_limit()
    # Many connections take the slowest server a second to accept: that is not what is to be measured here.
    efforts = [Effort(1, 2, warm_up=0.3, connections=FEW), Effort(1, 8, warm_up=2, connections=MANY)]
    two_effort = Effort(2, 1.5, warm_up=0.3)
    if quick:
        efforts = [Effort(1, 1.5, warm_up=0.5, connections=(16, 128, 512))]
        two_effort = Effort(1, 0.5, warm_up=0.2)
    cells = by_connections(peers, efforts)
    print("  two processes", file=sys.stderr)
    two, rate = two_text(two_effort)
    text = connections_text(cells, folder)
    words = " ".join(f"{how_long(effort)[:-1]}, at {effort.connections[0]} connections and more." for effort in efforts)
    return Section(f"## Growth\n\n### With connections\n\n{words}\n\n{text}\n{two}\n{far_text(rate)}")
