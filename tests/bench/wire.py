"""Measure `/refresh` over loopback: requests a second and latencies, of our server and of its peers."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from goals import number, table
from load import Job, Result
from peers import Peers
from servers import (
    HERE,
    CannotMeasure,
    Server,
    cores,
    cpu_seconds,
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
BUSY, BUSIEST = 16, 128  # connections: where throughput is compared; one alone mostly shows the latency of loopback

Cells = dict[tuple[str, int], list[Result]]  # contestant and number of connections: a result of each round


class Effort(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float  # of load a cell
    warm_up: float = 0.5  # seconds
    connections: tuple[int, ...] = (1, BUSY, BUSIEST)


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


def measure(server: Server, token: str, connections: int, effort: Effort) -> Result:
    """Return the result of one cell: latencies from our own load generator, the rate from wrk where there is one."""
    request = refresh_request(server.port, token)
    whole = max(1, int(effort.seconds / 2)) if shutil.which("wrk") else 0  # seconds for wrk, which knows no parts
    before = cpu_seconds(server.pid)
    result = run_load(Job(server.port, [request], connections, max(0.5, effort.seconds - whole), effort.warm_up))
    seconds = effort.seconds + effort.warm_up
    if whole:
        before = cpu_seconds(server.pid)
        rate, bad, seconds = run_wrk(server.port, token, connections, whole)
        result = result._replace(rate=rate, errors=result.errors + bad)
    after = cpu_seconds(server.pid)
    return result if before is None or after is None else result._replace(core=(after - before) / seconds)


def measure_all(contestants: list[Server], token: str, effort: Effort) -> Cells:
    """Return all cells. Contestants take turns, round after round, so that noise hits all alike."""
    cells: dict[tuple[str, int], list[Result]] = {}
    for turn in range(effort.rounds):
        print(f"  /refresh, round {turn + 1} of {effort.rounds}", file=sys.stderr)
        for connections in effort.connections:
            for server in contestants:
                try:
                    result = measure(server, token, connections, effort)
                except (CannotMeasure, subprocess.TimeoutExpired) as error:
                    print(f"  {server.name} fails: {error}", file=sys.stderr)
                    result = Result(0, 0, 0, 0, errors=1)
                cells.setdefault((server.name, connections), []).append(result)
    return cells


def middle(values: list[float]) -> float:
    """Return the median, NaN if there is nothing."""
    return median(values) if values else math.nan


def ratio(cells: Cells, peer: str, connections: int) -> float:
    """Return how many times as fast as `peer` we are: the median of the rounds, each compared in itself."""
    pairs = zip(cells[OURS, connections], cells[peer, connections])
    return middle([ours.rate / theirs.rate for ours, theirs in pairs if theirs.rate])


def in_medians(cells: Cells, field: str) -> float:
    """Return our latency `field` at the most connections, in medians of the same round."""
    results = cells[OURS, BUSIEST]
    return middle([getattr(result, field) / result.median for result in results if result.median])


def refresh_figures(cells: Cells, names: list[str]) -> dict[str, float]:
    """Return the figures for GOALS, all at the most connections: there the servers are the limit, not the load."""
    figures = {"p99/p50": in_medians(cells, "p99"), "worst/p50": in_medians(cells, "worst")}
    for name in names:
        if name != OURS:
            figures["refresh/" + name.split()[0]] = ratio(cells, name, BUSIEST)
    return figures


def cpu_microseconds(cells: Cells, name: str, connections: int) -> float:
    """Return the CPU time that `name` takes for an answer: steadier than the rate, a neighbour takes none of it."""
    spent = [result.core / result.rate for result in cells[name, connections] if result.core and result.rate]
    return middle(spent) * 1e6


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
        rows.append([
            name,
            str(connections),
            number(median([result.rate for result in results])),
            "" if name == OURS else known(ratio(cells, name, connections), "x"),
            known(cpu_microseconds(cells, name, connections)),
            known(core_share(results) * 100, "%"),
            *(milliseconds(results, field) for field in ("median", "p99", "worst")),
            str(sum(result.errors for result in results)),
        ])  # fmt: skip
    latencies = ["p50 ms", "p99 ms", "worst ms", "errors"]
    return table(["`POST /refresh`", "connections", "requests/s", "ours is", "CPU µs", "core", *latencies], rows)


def cpu_ratio(cells: Cells, peer: str) -> float:
    """Return how many times the CPU time of ours `peer` takes for an answer, at the most connections."""
    return cpu_microseconds(cells, peer, BUSIEST) / cpu_microseconds(cells, OURS, BUSIEST)


def disturbance(cells: Cells, names: list[str]) -> str:
    """Return a warning if somebody else kept the servers from working, with the ratios that CPU time gives."""
    shares = {key: core_share(results) for key, results in cells.items() if key[1] >= BUSY}
    disturbed = [f"{name} at {count} ({share:.0%})" for (name, count), share in shares.items() if share < UNDISTURBED]
    if not disturbed:
        return ""
    by_cpu = [f"{known(cpu_ratio(cells, name), 'x')} {name}" for name in names if name != OURS]
    return (
        f"\nDisturbed: somebody else used the servers' core or the load's, so that not all of theirs was used by "
        f"{', '.join(disturbed)}. By CPU time for an answer, which that changes less, ours is {', '.join(by_cpu)}.\n"
    )


def how_long(effort: Effort) -> str:
    """Return in words how much was measured."""
    rounds = f"Medians of {effort.rounds} rounds" if effort.rounds > 1 else "One round"
    return f"{rounds}, {effort.seconds:g} s a cell, in turns."


def how(effort: Effort) -> str:
    """Return in words how the table came about."""
    here, there = cores()
    places = f"Servers run on core {min(here)}, the load on core {min(there)}. " if here else ""
    rate = "wrk counts requests a second, the bench's own generator takes the latencies. "
    if not shutil.which("wrk"):
        rate = "No wrk here: rate and latencies both come from the bench's own generator, the limit for the fastest. "
    return (
        f"One process each, the same refresh token for all. {places}{rate}{how_long(effort)} "
        "CPU µs: what the server spends on an answer. Core: how much of it the server used."
    )


def refresh_section(peers: Peers, effort: Effort) -> tuple[str, dict[str, float]]:
    """Return the text about `/refresh`, and its figures."""
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
    names = [server.name for server in contestants]
    figures = {key: value for key, value in refresh_figures(cells, names).items() if not math.isnan(value)}
    return f"## Refresh\n\n{how(effort)}\n\n{refresh_table(cells)}\n{disturbance(cells, names)}", figures
