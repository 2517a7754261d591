"""Start the contestants, one process each on a free loopback port, and stop them again. Knows no measuring."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from load import Connection
from peers import Peers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_LIMIT = 20  # seconds for a server to answer
STOP_LIMIT = 5  # seconds to end by itself before it is killed
FORM = "application/x-www-form-urlencoded"
SECRETS = {  # of this benchmark only; two, and 32 bytes or more, as the server demands
    "ACCESS_TOKEN_SECRET": "bench-access-Zq3vT8mPw1KxYd5rGf7s",
    "REFRESH_TOKEN_SECRET": "bench-refresh-Nh2cB6uJe9LaXo4iVk0t",
}


class CannotMeasure(Exception):
    """Our own server does not do what is to be measured: the only reason for the benchmark to fail."""


class Server(NamedTuple):
    """A running contestant."""

    name: str
    port: int
    pid: int


def cores() -> tuple[set[int], set[int]]:
    """Return where servers run, and where the load generator does: apart, where there are two cores to choose from."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others[:1]) or {first}


@contextmanager
def pinned_to(where: set[int]) -> Iterator[None]:
    """Let the processes started inside run on the cores in `where` only; a child inherits that with all its threads."""
    if not where:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, where)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(port: int, **more: str) -> dict[str, str]:
    """Return what a server sees: nothing of ours that could change how it runs, the port and the two secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SYSTEMROOT") if name in os.environ}
    return {**kept, **SECRETS, "PORT": str(port), "NODE_ENV": "production", **more}


def stop(process: subprocess.Popen[bytes]) -> None:
    """End `process`, kindly at first."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ask(port: int, method: str, path: str, body: str = "", **headers: str) -> http.client.HTTPResponse:
    """Return the answer to one request, its body read into `.content`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.content = answer.read()  # type: ignore[attr-defined]
        return answer
    finally:
        connection.close()


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path, path: str = "/refresh") -> None:
    """Return at the first answer of any status; CannotMeasure, with the end of the log, if there is none."""
    until = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < until:
        try:
            ask(port, "GET", path)
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.002)
    raise CannotMeasure(f"{process.args!r} does not answer:\n{log.read_text(errors='replace')[-1000:]}")


@contextmanager
def running(command: list[str], port: int, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a fresh directory of its own, wait for its first answer, and end it afterwards."""
    with tempfile.TemporaryDirectory(prefix="minijwt-bench-") as directory:
        log = Path(directory, "log")
        with log.open("wb") as output, pinned_to(cores()[0]):
            process = subprocess.Popen(
                command, cwd=directory, env=environment(port, **env), stdout=output, stderr=output,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            wait_for(process, port, log)
            yield process
        finally:
            stop(process)


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that the process `pid` has used so far, None where there is no /proc to say."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


def our_command() -> list[str]:
    """Return how our server is started, as its README says."""
    return [sys.executable, str(ROOT / "server.py")]


def start(stack: ExitStack, name: str, command: list[str], port: int, **env: str) -> Server:
    """Start a contestant that `stack` will stop."""
    process = stack.enter_context(running(command, port, **env))
    return Server(name, port, process.pid)


def start_ours(stack: ExitStack, name: str = "minijwt", **env: str) -> Server:
    """Start our server with settings `env` beyond the defaults."""
    return start(stack, name, our_command(), free_port(), **env)


def log_in(server: Server) -> str:
    """Return the refresh token that a login at our server gives."""
    answer = ask(server.port, "POST", "/login", "username=admin&password=admin123", **{"Content-Type": FORM})
    cookie = answer.headers.get("Set-Cookie", "")
    if answer.status != 200 or not cookie.startswith("jwt="):
        raise CannotMeasure(f"POST /login: {answer.status} {answer.content[:200]!r}")  # type: ignore[attr-defined]
    return cookie.partition("=")[2].partition(";")[0]


def refresh_request(port: int, token: str) -> str:
    """Return the bytes of a refresh, as text."""
    return (
        f"POST /refresh HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"Cookie: jwt={token}\r\nContent-Length: 0\r\n\r\n"
    )


def raw_answer(port: int, request: str) -> bytes:
    """Return every byte of the answer to `request`, on a connection that is kept."""
    connection = Connection(port, request.encode("latin-1"))
    with connection.socket:
        connection.socket.settimeout(10)
        connection.send()
        while (answer := connection.receive()) is None:
            pass
        return answer


def start_bare(stack: ExitStack, answer: bytes) -> Server:
    """Start the bare protocol, which always gives `answer`."""
    file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minijwt-bench-")), "answer")
    file.write_bytes(answer)
    port = free_port()
    return start(stack, "bare protocol", [sys.executable, str(HERE / "bare.py"), str(port), str(file)], port)


def start_peers(stack: ExitStack, peers: Peers) -> list[Server]:
    """Start those of the peers that are there."""
    commands = {}
    port_of = {name: free_port() for name in ("uvicorn", "fastify", "express")}
    if {"PyJWT", "uvicorn", "uvloop", "httptools"} <= set(peers.versions):
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        commands["uvicorn"] = [
            peers.python, "-m", "uvicorn", "peer_uvicorn:app", "--app-dir", str(HERE), *options,
            "--host", "127.0.0.1", "--port", str(port_of["uvicorn"]),
        ]  # fmt: skip
    if peers.node:
        for name in ("fastify", "express"):
            commands[name] = [peers.node, str(HERE / f"peer_{name}.js")]
    started = []
    for name, command in commands.items():
        try:
            started.append(start(stack, name, command, port_of[name], NODE_PATH=str(peers.node_modules)))
        except CannotMeasure as error:
            peers.skipped.append(f"{name} is skipped: {error}")
    return started
