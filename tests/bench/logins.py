"""Measure what a login costs: the time of an unknown user beside a wrong password, and the memory of many at once."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from statistics import median

from goals import Section, number, table
from process import resident_megabytes
from servers import FORM, Server, ask, start_ours

PAIRS = 8  # of attempts; each costs two quarters of a second
AT_ONCE = 16
SAMPLE_SECONDS = 0.01


def attempt(server: Server, username: str, password: str) -> float:
    """Return the seconds that one attempt to log in takes."""
    began = time.perf_counter()
    ask(server.port, "POST", "/login", f"username={username}&password={password}", {"Content-Type": FORM})
    return time.perf_counter() - began


def peak_while(server: Server, threads: list[threading.Thread]) -> float:
    """Start `threads`; return the most memory, in MB, that the server has had until all have ended."""
    peak = resident_megabytes(server.pid)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, resident_megabytes(server.pid))
        time.sleep(SAMPLE_SECONDS)
    return peak


def logins_section() -> Section:
    """Return what is to say about logins, and its figure: MB that AT_ONCE logins add, for each core."""
    times: dict[str, list[float]] = {"wrong password": [], "unknown user": []}
    with ExitStack() as stack:
        server = start_ours(stack, LOGIN_MAX_FAILURES="0")
        before = resident_megabytes(server.pid)
        attempt(server, "admin", "admin123")
        for turn in range(PAIRS):
            times["wrong password"].append(attempt(server, "admin", f"wrong{turn}"))
            times["unknown user"].append(attempt(server, f"nobody{turn}", "wrong"))
        rows = [[name, number(median(values) * 1e3), number(min(values) * 1e3)] for name, values in times.items()]
        threads = [threading.Thread(target=attempt, args=(server, "admin", "admin123")) for _ in range(AT_ONCE)]
        grown = peak_while(server, threads) - before
    cores = os.cpu_count() or 1
    text = table([f"{PAIRS} attempts each, in turns", "median ms", "best ms"], rows)
    words = f"{AT_ONCE} logins at once add {number(grown)} MB of resident memory, on {cores} cores."
    return Section(f"## Logins\n\n{text}\n\n{words}\n", {"logins/memory": grown / cores})
