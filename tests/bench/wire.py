"""Measure `/refresh` over loopback: requests a second and latencies, of our server and of its peers."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from cpu import cpu_seconds
from goals import Section, between, number, table
from load import Job, Result
from peers import Peers
from plot import Bar, bars
from servers import (
    HERE,
    CannotMeasure,
    Server,
    cores,
    log_in,
    pinned_to,
    raw_answer,
    refresh_request,
    start_bare,
    start_ours,
    start_peers,
)

OURS = "minijwt"
UNDISTURBED = 0.9  # of a core: a server with enough to do, alone on its core, uses more
BUSY, BUSIEST = 16, 128  # connections: where servers are compared; one alone mostly shows the latency of loopback
COUNTS = (1, BUSY, 64, BUSIEST)
LABELS = {
    "uvicorn": "uvicorn + PyJWT", "fastify": "fastify", "fastify+sqlite": "fastify + look-up", "express": "Express",
    "go": "Go",
}  # fmt: skip

Cells = dict[tuple[str, int], list[Result]]  # contestant and number of connections: a result of each round


class Effort(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float  # of load a cell
    warm_up: float = 0.5  # seconds
    connections: tuple[int, ...] = COUNTS


WRK_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Cookie"] = "jwt=%s"
wrk.headers["Content-Length"] = "0"
done = function(summary, latency, requests)
  local e = summary.errors
  local lost = e.connect + e.read + e.write + e.timeout
  io.write(string.format("\\nresult %%d %%d %%d %%d\\n", summary.requests, summary.duration, e.status, lost))
end
"""


def run_load(job: Job) -> Result:
    """Let the load generator do `job`, on the core that is not the servers'."""
    with pinned_to(cores()[1]):
        done = subprocess.run(
            [sys.executable, str(HERE / "load.py")], input=json.dumps(job._asdict()).encode(),
            capture_output=True, timeout=job.seconds + job.warm_up + 60,
        )  # fmt: skip
    if done.returncode:
        raise CannotMeasure(f"the load generator failed: {done.stderr.decode(errors='replace')[-500:]}")
    return Result(**json.loads(done.stdout))


def run_wrk(port: int, token: str, connections: int, seconds: int) -> tuple[float, int, float]:
    """Return good answers a second, errors, and how many seconds wrk really took; CannotMeasure if it fails."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT % token)
        script.flush()
        with pinned_to(cores()[1]):
            done = subprocess.run(
                ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name,
                 f"http://127.0.0.1:{port}/refresh"],
                capture_output=True, text=True, timeout=seconds + 60,
            )  # fmt: skip
    found = re.search(r"^result (\d+) (\d+) (\d+) (\d+)$", done.stdout, re.MULTILINE)
    if not found:
        raise CannotMeasure(f"wrk failed: {done.stdout[-300:]} {done.stderr[-300:]}")
    requests, microseconds, refused, lost = map(int, found.groups())
    took = microseconds / 1e6
    return (requests - refused) / took, refused + lost, took


def job_for(server: Server, requests: list[str], connections: int, seconds: float, warm_up: float) -> Job:
    """Return the job of keeping `connections` at `server` busy."""
    return Job(server.port, requests, connections, seconds, warm_up, server.pids, server.tls)


def measure(server: Server, token: str, connections: int, effort: Effort) -> Result:
    """Return the result of one cell: latencies from our own load generator, the rest from wrk where there is one."""
    request = refresh_request(server.port, token)
    whole = max(1, int(effort.seconds / 2)) if shutil.which("wrk") else 0  # seconds for wrk, which knows no parts
    own = max(0.4, effort.seconds - whole)
    result = run_load(job_for(server, [request], connections, own, effort.warm_up))
    if not whole:
        return result
    before = cpu_seconds(server.pids)
    rate, bad, seconds = run_wrk(server.port, token, connections, whole)
    after = cpu_seconds(server.pids)
    result = result._replace(rate=rate, errors=result.errors + bad)
    if before is None or after is None:
        return result
    core = (after - before) / seconds
    return result._replace(core=core, cpu=core / rate if rate else None)


def warm(server: Server, token: str, effort: Effort) -> None:
    """Let `server` compile what it compiles when it is busy, so that the first cells are not dearer than the others."""
    with suppress(CannotMeasure, subprocess.TimeoutExpired):
        run_load(job_for(server, [refresh_request(server.port, token)], BUSY, effort.seconds / 2, 0))


def measure_all(contestants: list[Server], token: str, effort: Effort) -> Cells:
    """Return all cells. Contestants take turns, in random order, so that noise hits all alike."""
    cells: Cells = {(server.name, connections): [] for server in contestants for connections in effort.connections}
    for server in contestants:
        warm(server, token, effort)
    for turn in range(effort.rounds):
        print(f"  /refresh, round {turn + 1} of {effort.rounds}", file=sys.stderr)
        for connections in effort.connections:
            for server in random.sample(contestants, len(contestants)):
                try:
                    result = measure(server, token, connections, effort)
                except (CannotMeasure, subprocess.TimeoutExpired) as error:
                    print(f"  {server.name} fails: {error}", file=sys.stderr)
                    result = Result(0, 0, 0, 0, errors=1)
                cells[server.name, connections].append(result)
    return cells


def middle(values: list[float]) -> float:
    """Return the median, NaN if there is nothing."""
    return median(values) if values else math.nan


def rate_ratio(cells: Cells, peer: str, connections: int) -> float:
    """Return how many times as fast as `peer` we are: the median of the rounds, each compared in itself."""
    pairs = zip(cells[OURS, connections], cells[peer, connections])
    return middle([ours.rate / theirs.rate for ours, theirs in pairs if theirs.rate])


def cpu_ratio(cells: Cells, peer: str, connections: int) -> float:
    """Return the CPU time of our answer, that of `peer` being 1: the median of the rounds, each compared in itself."""
    pairs = zip(cells[OURS, connections], cells[peer, connections])
    return middle([ours.cpu / theirs.cpu for ours, theirs in pairs if ours.cpu and theirs.cpu])


def in_medians(cells: Cells, field: str) -> float:
    """Return our latency `field` at the most connections, in medians of the same round."""
    results = cells[OURS, BUSIEST]
    return middle([getattr(result, field) / result.median for result in results if result.median])


def refresh_figures(cells: Cells) -> dict[str, float]:
    """Return the figures for GOALS."""
    figures = {"p99/p50": in_medians(cells, "p99")}
    for name, connections in cells:
        if name != OURS:
            figures[f"cpu/{name}/{connections}"] = cpu_ratio(cells, name, connections)
            figures[f"rate/{name}"] = rate_ratio(cells, name, BUSIEST)
    return {key: value for key, value in figures.items() if not math.isnan(value)}


def microseconds(results: list[Result]) -> list[float]:
    """Return the CPU time of an answer in each round that knows it: a neighbour takes none of that."""
    return [result.cpu * 1e6 for result in results if result.cpu]


def core_share(results: list[Result]) -> float:
    """Return how much of a core the server used; well under 1 with many connections means that somebody else did."""
    return middle([result.core for result in results if result.core is not None])


def milliseconds(results: list[Result], field: str) -> str:
    """Return the median over the rounds of the latency `field`."""
    return number(median([getattr(result, field) for result in results]) * 1000)


def known(value: float, unit: str = "") -> str:
    """Return `value` for a reader, a dash if it is NaN."""
    return "–" if math.isnan(value) else number(value, unit)


def refresh_table(cells: Cells) -> str:
    """Return the table of all cells."""
    rows = []
    for (name, connections), results in sorted(cells.items(), key=lambda cell: cell[0][1]):
        ours, spent = name == OURS, microseconds(results)
        rows.append([
            LABELS.get(name, name),
            str(connections),
            known(middle(spent)),
            between(spent),
            "" if ours else known(cpu_ratio(cells, name, connections), "x"),
            number(median([result.rate for result in results])),
            "" if ours else known(rate_ratio(cells, name, connections), "x"),
            known(core_share(results) * 100, "%"),
            *(milliseconds(results, field) for field in ("median", "p99", "worst")),
            str(sum(result.errors for result in results)),
        ])  # fmt: skip
    columns = ["`POST /refresh`", "connections", "CPU µs", "min–max", "ours is", "requests/s", "ours is", "core"]
    return table([*columns, "p50 ms", "p99 ms", "worst ms", "errors"], rows)


def draw(cells: Cells, folder: Path) -> str:
    """Draw the CPU time of an answer into `folder`, and return the picture in Markdown."""
    groups = {}
    for connections in sorted({connections for _, connections in cells}):
        spent = {name: microseconds(cells[name, connections]) for name, other in cells if other == connections}
        groups[f"{connections:,}"] = [
            Bar(LABELS.get(name, name), median(each), min(each), max(each)) for name, each in spent.items() if each
        ]
    if not any(groups.values()):
        return ""
    title = "POST /refresh: µs of CPU for an answer, and the range of the rounds"
    (folder / "bench-cpu.svg").write_text(bars(groups, OURS, title, "connections at once"), encoding="utf-8")
    return f"![{title}](bench-cpu.svg)\n\n"


def disturbance(cells: Cells) -> str:
    """Return a warning if somebody else kept the servers from working."""
    shares = {key: core_share(results) for key, results in cells.items() if key[1] >= BUSY}
    disturbed = [f"{name} at {count} ({share:.0%})" for (name, count), share in shares.items() if share < UNDISTURBED]
    if not disturbed:
        return ""
    return (
        "\nDisturbed: somebody else used the servers' core, or the load did not suffice, so that not all of theirs was "
        f"used by {', '.join(disturbed)}. That changes rates more than CPU time.\n"
    )


def how_long(effort: Effort) -> str:
    """Return in words how much was measured."""
    rounds = f"Medians of {effort.rounds} rounds" if effort.rounds > 1 else "One round"
    return f"{rounds}, {effort.seconds:g} s a cell, in turns."


def how(effort: Effort) -> str:
    """Return in words how the table came about."""
    here, there = cores()
    places = f"Servers run on core {min(here)}, the load on core {min(there)}. " if here else ""
    rate = "wrk counts requests, the bench's own generator takes the latencies. "
    if not shutil.which("wrk"):
        rate = "No wrk here: all comes from the bench's own generator, whose own speed limits the fastest. "
    return (
        f"One process each, the same refresh token for all. {places}{rate}{how_long(effort)}\n\n"
        "CPU µs: user and system time of the whole process over a run, divided by its answers. Core: how much of it "
        f"the server used. Ours is: our CPU time, our rate, that of the row being 1. {OURS} looks its session up in "
        "SQLite, and so does fastify + look-up, with the same query; no other does."
    )


def refresh_section(peers: Peers, effort: Effort, folder: Path) -> Section:
    """Return what is to say about `/refresh`; draw it into `folder`."""
    with ExitStack() as stack:
        ours = start_ours(stack)
        token = log_in(ours)
        answer = raw_answer(ours.port, refresh_request(ours.port, token))
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise CannotMeasure(f"POST /refresh: {answer[:200]!r}")
        contestants = [start_bare(stack, answer), ours, *start_peers(stack, peers)]
        cells = measure_all(contestants, token, effort)
    if not any(result.rate for result in cells[OURS, BUSIEST]):
        raise CannotMeasure("our server gave no good answer under load")
    lacks = {f"{kind}/{name}": sentence for name, sentence in peers.lacks.items() for kind in ("cpu", "rate")}
    if not any(result.cpu for result in cells[OURS, BUSIEST]):
        lacks["cpu"] = "this system does not say what CPU time another process has used."
    text = f"## Refresh\n\n{how(effort)}\n\n{draw(cells, folder)}{refresh_table(cells)}\n{disturbance(cells)}"
    return Section(text, refresh_figures(cells), lacks)
