"""The load generator: keep N connections busy for some seconds, and report how long each answer took.

    python3 load.py < job.json      prints a result as JSON; the fields of both are those of Job and Result

One process, one selector, blocking sockets that are only read when there is something to read. Each connection sends a
request, waits for the whole answer, sends the next. Like a browser it takes the cookie that an answer sets. The CPU
time of the servers is read where the warm-up ends and where the load ends, and shared among the answers between.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import sys
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from cpu import cpu_seconds

OK = b"HTTP/1.1 200 "
TICK = 0.1  # seconds to wait for an answer before looking at the clock again


class Job(NamedTuple):
    """What to do. The requests are latin-1 text, so that JSON can carry them."""

    port: int
    requests: list[str]  # connection i sends number i, going round
    connections: int
    seconds: float
    warm_up: float = 0.5  # seconds whose answers do not count
    pids: tuple[int, ...] = ()  # the processes whose CPU time counts
    tls: bool = False  # any certificate is good


class Result(NamedTuple):
    """What came of it; times in seconds."""

    rate: float  # good answers a second
    median: float
    p99: float
    worst: float
    errors: int  # answers other than 200, and connections that the server closed
    core: float | None = None  # CPU seconds a second that the servers used; None: no system says it
    cpu: float | None = None  # CPU seconds of the servers for an answer


class Connection:
    """A kept connection with the request it is about to send again."""

    def __init__(self, port: int, request: bytes, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket)
        self.socket.settimeout(None)
        self.request = request
        self.received = b""
        self.sent_at = 0.0
        self.answers = 0

    def send(self) -> None:
        """Send the request."""
        self.received, self.sent_at = b"", perf_counter()
        self.socket.sendall(self.request)

    def receive(self) -> bytes | None:
        """Return the whole answer, None if the rest is still to come; ConnectionError if it never will."""
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("closed by the server")
        if isinstance(self.socket, ssl.SSLSocket):
            # What OpenSSL has already decrypted, the selector does not see.
            while pending := self.socket.pending():
                piece += self.socket.recv(pending)
        self.received = self.received + piece if self.received else piece
        return self.received if is_whole(self.received) else None

    def take_cookie(self, answer: bytes) -> None:
        """Put the cookie `jwt` that `answer` sets into the request."""
        set_cookie = answer.partition(b"Set-Cookie: jwt=")[2]
        if set_cookie:
            before, _, rest = self.request.partition(b"Cookie: jwt=")
            after = rest.partition(b"\r\n")[2]
            self.request = before + b"Cookie: jwt=" + set_cookie.partition(b";")[0] + b"\r\n" + after


def is_whole(answer: bytes) -> bool:
    """Tell whether `answer` has all its head and all the bytes that its Content-Length promises."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)


def turn(connection: Connection, start: float, latencies: list[float]) -> int:
    """Read what came; after a whole answer send the next request. Return 1 if the answer was an error, else 0."""
    answer = connection.receive()
    if answer is None:
        return 0
    latency = perf_counter() - connection.sent_at
    connection.answers += 1
    if connection.sent_at >= start and answer.startswith(OK):
        latencies.append(latency)
    connection.take_cookie(answer)
    connection.send()
    return 0 if answer.startswith(OK) else 1


def drive(
    connections: list[Connection], start: float, end: float, on_start: Callable[[], None] = lambda: None
) -> tuple[list[float], float, int]:
    """Keep `connections` busy until `end`; call `on_start` when `start` has come.

    Returns the latencies of good answers to what was sent from `start` on, sorted, how long the longest has waited
    that was not answered at all (it may be the worst, and must not be forgotten for that), and the number of errors.
    """
    latencies: list[float] = []
    selector, errors, started = selectors.DefaultSelector(), 0, False
    for connection in connections:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send()
    while selector.get_map() and (now := perf_counter()) < end:
        if not started and now >= start:
            started = True
            on_start()
        for key, _ in selector.select(TICK):
            try:
                errors += turn(key.data, start, latencies)
            except (OSError, ValueError):  # ValueError: no Content-Length, so nobody knows where the answer ends
                selector.unregister(key.fileobj)
                errors += 1
    unanswered = [perf_counter() - key.data.sent_at for key in selector.get_map().values()]
    return sorted(latencies), max(unanswered, default=0.0), errors


class Mark(NamedTuple):
    """A moment of the load."""

    time: float
    cpu: float | None  # seconds that the servers have used
    answers: int


def shares(marks: list[Mark]) -> tuple[float | None, float | None]:
    """Return how much of a core the servers used between two `marks`, and their CPU seconds for an answer."""
    if len(marks) != 2 or marks[0].cpu is None or marks[1].cpu is None or marks[0].answers == marks[1].answers:
        return None, None
    used = marks[1].cpu - marks[0].cpu
    return used / (marks[1].time - marks[0].time), used / (marks[1].answers - marks[0].answers)


def careless() -> ssl.SSLContext:
    """Return a context for clients that believe any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def work(job: Job) -> Result:
    """Do `job`."""
    requests = [request.encode("latin-1") for request in job.requests]
    tls = careless() if job.tls else None
    connections = [Connection(job.port, requests[i % len(requests)], tls) for i in range(job.connections)]
    marks: list[Mark] = []

    def mark() -> None:
        cpu = cpu_seconds(job.pids) if job.pids else None
        marks.append(Mark(perf_counter(), cpu, sum(each.answers for each in connections)))

    start = perf_counter() + job.warm_up
    latencies, unanswered, errors = drive(connections, start, start + job.seconds, mark)
    mark()
    for connection in connections:
        connection.socket.close()
    count = len(latencies)
    if not count:
        return Result(0, 0, 0, unanswered, errors)
    rate, worst = count / job.seconds, max(latencies[-1], unanswered)
    return Result(rate, latencies[count // 2], latencies[count * 99 // 100], worst, errors, *shares(marks))


if __name__ == "__main__":
    print(json.dumps(work(Job(**json.load(sys.stdin)))._asdict()))
