"""Measure `/refresh` over TLS against plain HTTP, on connections that are kept: what a handshake costs is not in it."""

from __future__ import annotations

import random
import sys
from contextlib import ExitStack

from goals import Section, between, number, table
from load import Result
from servers import TLS, log_in, refresh_request, start_ours
from wire import BUSIEST, BUSY, Effort, how_long, job_for, known, microseconds, middle, milliseconds, run_load

PLAIN, OVER_TLS = "plain", "over TLS"
NO_CPU = "this system does not say what CPU time another process has used."


def tls_section(effort: Effort) -> Section:
    """Return what is to say about TLS."""
    cells: dict[tuple[int, str], list[Result]] = {}
    with ExitStack() as stack:
        servers = [start_ours(stack, PLAIN), start_ours(stack, OVER_TLS, **TLS)]
        requests = {server.name: refresh_request(server.port, log_in(server)) for server in servers}
        for turn in range(effort.rounds):
            print(f"  round {turn + 1} of {effort.rounds}", file=sys.stderr)
            for connections in (1, BUSY, BUSIEST):
                for server in random.sample(servers, 2):
                    job = job_for(server, [requests[server.name]], connections, effort.seconds, effort.warm_up)
                    cells.setdefault((connections, server.name), []).append(run_load(job))
    rows, figures = [], {}
    for (connections, name), results in sorted(cells.items()):
        spent, pairs = microseconds(results), zip(results, cells[connections, PLAIN])
        times = middle([mine.cpu / plain.cpu for mine, plain in pairs if mine.cpu and plain.cpu])
        if name == OVER_TLS and times > 0:
            figures[f"tls/{connections}"] = times
        rows.append([
            name, str(connections), known(middle(spent)), between(spent), known(times, "x"),
            number(middle([result.rate for result in results])),
            *(milliseconds(results, field) for field in ("median", "p99", "worst")),
            str(sum(result.errors for result in results)),
        ])  # fmt: skip
    columns = ["`POST /refresh`", "connections", "CPU µs", "min–max", "plain is 1", "requests/s"]
    text = table([*columns, "p50 ms", "p99 ms", "worst ms", "errors"], rows)
    words = f"minijwt alone, connections that are kept, the bench's own generator. {how_long(effort)}"
    return Section(f"## TLS\n\n{words}\n\n{text}\n", figures, {} if figures else {"tls": NO_CPU})
