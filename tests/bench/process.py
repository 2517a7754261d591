"""Measure what our server costs before it has done anything: start-up time and resident memory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from goals import Section, number, table
from load import Connection
from servers import ROOT, Server, free_port, log_in, our_command, refresh_request, running, start, start_ours

IDLE_CONNECTIONS = 1000
SPARE_DESCRIPTORS = 500  # beyond them, for the bench and for the server's reserve


def startup_times(times: int) -> list[float]:
    """Return the seconds from spawn to the first answer, `times` times, sorted."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        with running(our_command(), free_port()):
            seconds.append(time.perf_counter() - began)
    return sorted(seconds)


def startup_section(times: int) -> Section:
    """Return what is to say about start-up, and its figure: the best, since noise only ever adds."""
    seconds = startup_times(times)
    rows = [["from spawn to the first answer", *(number(value, " s") for value in (seconds[0], median(seconds)))]]
    return Section(f"## Start-up\n\n{table(['', f'best of {times}', 'median'], rows)}\n", {"startup": seconds[0]})


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of the process `pid`, in units of 2**20 bytes; OSError where there is no /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def bare_megabytes() -> float:
    """Return the resident memory of a Python that does nothing: with what this machine's site-packages make it import."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        megabytes = resident_megabytes(process.pid)
        process.communicate(b"\n")
    return megabytes


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process, and those that it starts, open `count` files; OSError or ValueError if that is forbidden."""
    import resource  # where there is /proc there is this

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def idle_connection(server: Server, request: bytes, stack: ExitStack) -> Connection:
    """Return a connection that had one answer and is kept."""
    connection = Connection(server.port, request)
    stack.enter_context(connection.socket)
    connection.send()
    while connection.receive() is None:
        pass
    return connection


def is_open(connection: Connection) -> bool:
    """Tell whether the server has kept `connection`."""
    try:
        return connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def memory_rows(server: Server) -> list[tuple[str, float]]:
    """Return the resident memory of a bare Python, and of `server`, just started, after each of four things."""
    rows = [("a Python that does nothing", bare_megabytes()), ("idle, just started", resident_megabytes(server.pid))]
    with ExitStack() as stack:
        rows.append(("the same as `python3 server.py`", resident_megabytes(start_ours(stack).pid)))
    request = refresh_request(server.port, log_in(server)).encode("latin-1")
    rows.append(("after one login", resident_megabytes(server.pid)))
    with ExitStack() as stack:
        kept = [idle_connection(server, request, stack) for _ in range(IDLE_CONNECTIONS)]
        rows.append((f"with {IDLE_CONNECTIONS:,} idle connections", resident_megabytes(server.pid)))
        closed = IDLE_CONNECTIONS - sum(map(is_open, kept))
    if closed:
        raise ValueError(f"the server closed {closed} of {IDLE_CONNECTIONS} idle connections")
    time.sleep(1)
    return [*rows, ("a second after they were closed", resident_megabytes(server.pid))]


def no_memory(error: object) -> Section:
    """Return that memory cannot be measured."""
    return Section(f"## Memory\n\nSkipped: {error}.\n", {}, {"memory": f"{error}."})


def memory_section() -> Section:
    """Return what is to say about memory; only words where it cannot be measured."""
    if not Path("/proc/self/status").exists():
        return no_memory("there is no /proc here")
    try:
        subprocess.run([sys.executable, str(ROOT / "tests" / "dist.py")], check=True, stdout=subprocess.DEVNULL)
        one_file = [sys.executable, "-I", str(ROOT / "dist" / "minijwt.pyz")]
        with descriptors(IDLE_CONNECTIONS + SPARE_DESCRIPTORS), ExitStack() as stack:
            rows = memory_rows(start(stack, "minijwt", one_file, free_port()))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        return no_memory(error)
    figures = dict(rows)
    text = table(["resident memory", "MB"], [[name, number(value)] for name, value in rows])
    about = (
        "Of `python3 -I dist/minijwt.pyz`, as it is deployed. CPython keeps the syntax tree of the script that it was"
        " told to run, and so `python3 server.py` has some megabytes more."
    )
    thousand = figures[f"with {IDLE_CONNECTIONS:,} idle connections"]
    reached = {"memory/idle": figures["idle, just started"], "memory/1000": thousand}
    return Section(f"## Memory\n\n{about}\n\n{text}\n", reached)
