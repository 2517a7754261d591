"""The benchmark: `python3 tests/bench [PART ...] [--quick]`, a quarter of an hour, or some twenty seconds if quick.

A PART measures that part alone, and with --quick takes less than a minute: `python3 tests/bench refresh --quick`.

Prints its tables and writes them to dist/bench.md. Never a test: a slow number is reported, not failed; the exit
status is 1 only if our own library or server could not be measured at all. Everything happens on 127.0.0.1, except
that peers are installed into dist/ from PyPI and npm (see peers.py for how to forbid that).

    goals.py      the numbers to reach             load.py      the load generator, a process of its own
    library.py    encode and decode                cpu.py       the CPU time of other processes
    wire.py       /refresh, against its peers      servers.py   starting and stopping the contestants
    tls.py        /refresh over TLS                process.py   start-up and memory
    sessions.py   /refresh, against itself         unread.py    memory under clients that read nothing
    growth.py     more connections, two processes  logins.py    what a login costs
    peers.py      installing what we compare with  fires.py     a good client under fire
    shared.py     /refresh on etcd                 plot.py      the plots, dist/bench.svg and dist/bench-cpu.svg
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable

from cpu import processor
from fires import fires_section
from goals import Section, number, summary, table
from growth import growth_section
from logins import logins_section
from peers import Peers, gather
from process import memory_section, startup_section
from servers import HERE, ROOT, CannotMeasure
from sessions import sessions_section
from shared import shared_section
from tls import tls_section
from unread import unread_section
from wire import Effort, refresh_section

DIST = ROOT / "dist"
PARTS = ["library", "refresh", "tls", "growth", "sessions", "shared", "logins", "memory", "unread", "fires", "startup"]
ALSO = {"server": "refresh"}  # other names of parts
QUICK = ["library", "refresh", "memory", "startup"]  # the parts of --quick alone
# The part that measures a figure of GOALS, by how its name begins.
PART_OF = {
    "encode": "library", "decode": "library", "cpu": "refresh", "rate": "refresh", "p99": "refresh", "tls": "tls",
    "rotation": "sessions", "etcd": "shared", "rows": "sessions", "logins": "logins", "memory": "memory",
    "unread": "unread", "fire": "fires", "startup": "startup",
}  # fmt: skip
LIBRARIES = {"minijwt": "minijwt", "pyjwt": "PyJWT", "joserfc": "joserfc", "hmac": "bare `hmac.digest`"}


def library_section(peers: Peers, repeats: int) -> Section:
    """Return what is to say about `encode` and `decode`."""
    command = [peers.python, str(HERE / "library.py"), str(ROOT), str(repeats)]
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
    lacks = {f"{verb}/{name}": sentence for name, sentence in peers.lacks.items() for verb in ("encode", "decode")}
    return Section(f"## Library\n\nBest of {repeats} timings, taken in turns.\n\n{text}\n", figures, lacks)


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
    effort = Effort(1, 1.4, warm_up=0.1) if quick else Effort(4, 2)
    return {
        "library": lambda: library_section(peers, 7 if quick else 25),
        "refresh": lambda: refresh_section(peers, effort, DIST),
        "tls": lambda: tls_section(effort),
        "growth": lambda: growth_section(peers, DIST, quick),
        "sessions": lambda: sessions_section(effort),
        "shared": lambda: shared_section(effort, quick),
        "logins": logins_section,
        "memory": memory_section,
        "unread": unread_section,
        "fires": lambda: fires_section(quick),
        "startup": lambda: startup_section(3 if quick else 5),
    }


def measure(parts: dict[str, Callable[[], Section]], wanted: list[str]) -> tuple[list[Section], bool]:
    """Return what the `wanted` parts have found, and whether every part could be measured."""
    found, complete = [], True
    for name in wanted:
        print(f"measuring: {name}", file=sys.stderr)
        try:
            found.append(parts[name]())
        except Exception as error:
            # What the other parts find must not be lost.
            if not isinstance(error, CannotMeasure):
                traceback.print_exc()
            complete = False
            found.append(Section(f"## {name.capitalize()}\n\nCannot be measured: {error}\n"))
    return found, complete


def gather_peers(arguments: argparse.Namespace) -> Peers:
    """Return the peers that the wanted parts need."""
    server = bool({"refresh", "growth"} & {*arguments.parts})
    few = arguments.all and arguments.quick
    peers = gather(DIST, server or "library" in arguments.parts, server and not few)
    if server and few:
        sentence = "--quick alone measures no Node and no Go: `python3 tests/bench refresh --quick` does."
        peers.lacks.update(dict.fromkeys(("fastify", "fastify+sqlite", "express", "go"), sentence))
    return peers


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="python3 tests/bench", description="Measure minijwt against its peers.")
    names, metavar = [*PARTS, *ALSO], "PART"
    parser.add_argument("parts", nargs="*", metavar=metavar, help=f"only these: {', '.join(PARTS)}")
    text = f"short and rough: less than a minute for each part; without one, {', '.join(QUICK)} without Node and Go"
    parser.add_argument("--quick", action="store_true", help=text)
    parser.add_argument("--only", nargs="+", metavar=metavar, default=[], help="the same as naming the parts")
    arguments = parser.parse_args(argv)
    unknown = {*arguments.parts, *arguments.only} - {*names}
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    wanted = {ALSO.get(name, name) for name in [*arguments.parts, *arguments.only]}
    arguments.all = not wanted
    arguments.parts = [name for name in (QUICK if arguments.quick and arguments.all else PARTS)
                       if name in wanted or arguments.all]  # fmt: skip
    return arguments


def main(argv: list[str]) -> int:
    """Measure, print, write dist/bench.md; return the exit status."""
    arguments = parse(argv)
    DIST.mkdir(exist_ok=True)
    print("looking for peers; installing what is missing into dist/", file=sys.stderr)
    peers = gather_peers(arguments)
    head = f"# Benchmark of minijwt\n\n{machine(peers)}"
    found, complete = measure(sections(arguments, peers), arguments.parts)
    figures = {key: value for section in found for key, value in section.figures.items()}
    lacks = {key: value for section in found for key, value in section.lacks.items()}
    if arguments.all:
        for key, part in PART_OF.items():
            ran = "has no figure" if part in arguments.parts else "was not run"
            lacks.setdefault(key, f"the part {part} {ran}.")
    skipped = "".join(f"- {name}: {sentence}\n" for name, sentence in peers.lacks.items())
    known = bool(figures or lacks)
    closing = f"## Numbers to reach\n\n{summary(figures, lacks, not arguments.all)}\n" if known else ""
    texts = [section.text for section in found]
    report = "\n".join([head, *([f"Not here to compare with:\n\n{skipped}"] if skipped else []), *texts, closing])
    (DIST / "bench.md").write_text(report, encoding="utf-8")
    print(report)
    return 0 if complete else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the servers
    sys.exit(main(sys.argv[1:]))
