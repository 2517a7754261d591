"""Start the contestants, one process each on a free loopback port, and stop them again. Knows no measuring."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from load import Connection, careless
from peers import Peers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEM = str(ROOT / "tests" / "localhost.pem")  # a certificate and its key
TLS = {"TLS_CERT": PEM, "TLS_KEY": PEM}  # our server's settings
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
    tls: bool = False
    behind: tuple[int, ...] = ()  # of a proxy: the processes of ours that it stands in front of

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes whose CPU time counts."""
        return self.behind or (self.pid,)


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


def ask(
    port: int, method: str, path: str, body: str = "", headers: dict[str, str] | None = None, tls: bool = False
) -> http.client.HTTPResponse:
    """Return the answer to one request, its body read into `.content`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=careless())
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        answer.content = answer.read()  # type: ignore[attr-defined]
        return answer
    finally:
        connection.close()


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path, tls: bool) -> None:
    """Return at the first answer of any status; CannotMeasure, with the end of the log, if there is none."""
    until = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < until:
        try:
            ask(port, "GET", "/refresh", tls=tls)
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
            wait_for(process, port, log, "TLS_CERT" in env)
            yield process
        finally:
            stop(process)


def our_command() -> list[str]:
    """Return how our server is started, as its README says."""
    return [sys.executable, str(ROOT / "server.py")]


def start(stack: ExitStack, name: str, command: list[str], port: int, **env: str) -> Server:
    """Start a contestant that `stack` will stop."""
    process = stack.enter_context(running(command, port, **env))
    return Server(name, port, process.pid, "TLS_CERT" in env)


def start_ours(stack: ExitStack, name: str = "minijwt", **env: str) -> Server:
    """Start our server with settings `env` beyond the defaults."""
    return start(stack, name, our_command(), free_port(), **env)


def log_in(server: Server) -> str:
    """Return the refresh token that a login at our server gives."""
    body = "username=admin&password=admin123"
    answer = ask(server.port, "POST", "/login", body, {"Content-Type": FORM}, server.tls)
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


def our_source() -> str:
    """Return server.py with its string literals joined as Python joins them, so that a query stands in one piece."""
    return re.sub(r'"\s+"', "", (ROOT / "server.py").read_text("utf-8"))


def peers_query() -> str:
    """Return the SQL of peer_fastify.js."""
    _, _, rest = (HERE / "peer_fastify.js").read_text("utf-8").partition("const QUERY =")
    return "".join(re.findall(r"'(.*)'", rest.partition("\nconst")[0]))


def our_database(stack: ExitStack) -> str:
    """Return the path of a database that our server has made."""
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="minijwt-bench-"))
    path = Path(directory, "minijwt.db")
    with ExitStack() as until_made:
        start_ours(until_made, DATABASE=str(path))
    return str(path)


class Peer(NamedTuple):
    """How a peer is started."""

    command: list[str]
    env: dict[str, str]


def uvicorn(peers: Peers, port: int) -> Peer:
    """Return uvicorn at its fastest."""
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    place = ["--app-dir", str(HERE), "--host", "127.0.0.1", "--port", str(port)]
    return Peer([peers.python, "-m", "uvicorn", "peer_uvicorn:app", *options, *place], {})


def commands(stack: ExitStack, peers: Peers, port_of: dict[str, int]) -> dict[str, Peer]:
    """Return how to start those of the peers that are there."""
    found = {}
    if {"PyJWT", "uvicorn", "uvloop", "httptools"} <= set(peers.versions):
        found["uvicorn"] = uvicorn(peers, port_of["uvicorn"])
    if peers.node:
        env = {"NODE_PATH": os.pathsep.join(map(str, peers.node_modules))}
        fastify = [peers.node, str(HERE / "peer_fastify.js")]
        found["fastify"] = Peer(fastify, env)
        if "better-sqlite3" in peers.versions:
            if peers_query() in our_source():
                found["fastify+sqlite"] = Peer(fastify, {**env, "DATABASE": our_database(stack)})
            else:
                peers.lacks["fastify+sqlite"] = "SQLiteStore.standing has another query than peer_fastify.js."
        found["express"] = Peer([peers.node, str(HERE / "peer_express.js")], env)
    if peers.go:
        found["go"] = Peer([str(peers.go)], {})
    return found


PEERS = ("uvicorn", "fastify", "fastify+sqlite", "express", "go")


def start_peers(stack: ExitStack, peers: Peers, without: tuple[str, ...] = ()) -> list[Server]:
    """Start those of the peers that are there, `without` some."""
    port_of = {name: free_port() for name in PEERS}
    started = []
    for name, peer in commands(stack, peers, port_of).items():
        if name in without:
            continue
        try:
            started.append(start(stack, name, peer.command, port_of[name], **peer.env))
        except CannotMeasure as error:
            peers.lacks[name] = str(error)
    return started
