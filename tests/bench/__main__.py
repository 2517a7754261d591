"""The benchmark: `python3 tests/bench [--quick] [--only PART ...]`, some eight minutes, or some twenty seconds if quick.

Prints its tables and writes them to dist/bench.md. Never a test: a slow number is reported, not failed; the exit
status is 1 only if our own library or server could not be measured at all. Everything happens on 127.0.0.1, except
that peers are installed into dist/ from PyPI and npm (see peers.py for how to forbid that).

    goals.py      the numbers to reach             load.py      the load generator, a process of its own
    library.py    encode and decode                servers.py   starting and stopping the contestants
    wire.py       /refresh, against its peers      process.py   start-up and memory
    sessions.py   /refresh, against itself         logins.py    what a login costs
    growth.py     more connections, two processes  plot.py      the plot, dist/bench.svg
    peers.py      installing what we compare with
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from goals import number, summary, table
from growth import growth_section
from logins import logins_section
from peers import Peers, gather
from process import memory_section, startup_section
from servers import HERE, ROOT, CannotMeasure
from sessions import sessions_section
from wire import BUSIEST, BUSY, Effort, refresh_section

DIST = ROOT / "dist"
PARTS = ["library", "server", "growth", "sessions", "logins", "memory", "startup"]
LIBRARIES = {"minijwt": "minijwt", "pyjwt": "PyJWT", "joserfc": "joserfc", "hmac": "bare `hmac.digest`"}

Section = tuple[str, dict[str, float]]  # text in Markdown, figures for GOALS


def library_section(python: str, repeats: int) -> Section:
    """Return the text about `encode` and `decode`, and its figures."""
    command = [python, str(HERE / "library.py"), str(ROOT), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotMeasure(f"the library: {done.stderr[-500:]}")
    times: dict[str, dict[str, float]] = json.loads(done.stdout)
    figures, ours = {}, times["minijwt"]
    for verb in ("encode", "decode"):
        for name in set(times) - {"minijwt"}:
            theirs = times[name][verb]
            figures[f"{verb}/{name}"] = ours[verb] / theirs if name == "hmac" else theirs / ours[verb]
    rows = [
        [label, *(number(times[name][verb] * 1e6) for verb in ("encode", "decode"))]
        for name, label in LIBRARIES.items() if name in times
    ]  # fmt: skip
    text = table(["access token {username, iat, exp}", "encode µs", "decode µs"], rows)
    return f"## Library\n\nBest of {repeats} timings, taken in turns.\n\n{text}\n", figures


def processor() -> str:
    """Return the model of the processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def machine(peers: Peers) -> str:
    """Return what the figures depend on."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    versions = ", ".join(f"{name} {version}" for name, version in peers.versions.items())
    return (
        f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}; load at the start {load}.\n\n"
        f"Peers: {versions or 'none'}.\n"
    )


def sections(arguments: argparse.Namespace, peers: Peers) -> dict[str, Callable[[], Section]]:
    """Return how to measure each part; the effort depends on --quick."""
    quick = arguments.quick
    effort = Effort(1, 1.5, warm_up=0.2, connections=(BUSY, BUSIEST)) if quick else Effort(5, 2)
    return {
        "library": lambda: library_section(peers.python, 7 if quick else 25),
        "server": lambda: refresh_section(peers, effort),
        "growth": lambda: growth_section(peers, DIST),
        "sessions": lambda: sessions_section(effort),
        "logins": logins_section,
        "memory": memory_section,
        "startup": lambda: startup_section(3 if quick else 5),
    }


def measure(parts: dict[str, Callable[[], Section]], wanted: list[str]) -> tuple[list[str], dict[str, float], bool]:
    """Return the texts of the `wanted` parts, all figures, and whether every part could be measured."""
    texts, figures, complete = [], {}, True
    for name in wanted:
        print(f"measuring: {name}", file=sys.stderr)
        try:
            text, found = parts[name]()
        except CannotMeasure as error:
            text, found, complete = f"## {name.capitalize()}\n\nCannot be measured: {error}\n", {}, False
        texts.append(text)
        figures.update(found)
    return texts, figures, complete


def gather_peers(arguments: argparse.Namespace) -> Peers:
    """Return the peers that the wanted parts need."""
    server = {"server", "growth"} & {*arguments.only}
    peers = gather(DIST, bool(server) or "library" in arguments.only, bool(server) and not arguments.quick)
    if server and arguments.quick:
        peers.skipped.append("fastify and Express are skipped: --quick measures no Node.")
    return peers


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="python3 tests/bench", description="Measure minijwt against its peers.")
    text = "some twenty seconds: one round; no Node, no growth, no sessions, no logins"
    parser.add_argument("--quick", action="store_true", help=text)
    parser.add_argument("--only", nargs="+", metavar="PART", choices=PARTS, help=f"only these: {', '.join(PARTS)}")
    arguments = parser.parse_args(argv)
    arguments.all = arguments.only is None
    if arguments.all:
        arguments.only = [part for part in PARTS if not (arguments.quick and part in ("growth", "sessions", "logins"))]
    return arguments


def main(argv: list[str]) -> int:
    """Measure, print, write dist/bench.md; return the exit status."""
    arguments = parse(argv)
    DIST.mkdir(exist_ok=True)
    print("looking for peers; installing what is missing into dist/", file=sys.stderr)
    peers = gather_peers(arguments)
    head = f"# Benchmark of minijwt\n\n{machine(peers)}"
    texts, figures, complete = measure(sections(arguments, peers), arguments.only)
    skipped = "".join(f"- {sentence}\n" for sentence in peers.skipped)
    closing = f"## Numbers to reach\n\n{summary(figures, not arguments.all)}\n" if figures else ""
    report = "\n".join([head, *([f"Skipped:\n\n{skipped}"] if skipped else []), *texts, closing])
    (DIST / "bench.md").write_text(report, encoding="utf-8")
    print(report)
    return 0 if complete else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the servers
    sys.exit(main(sys.argv[1:]))
