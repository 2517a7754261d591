"""Measure the memory under as many clients as the server takes, all of whom ask for pages and read nothing.

Each has had an answer and is idle; then all ask, as fast as the server takes it. The server gives them ten seconds.
What counts is the most that the process and its sockets held at one moment of that time.
"""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from goals import Section, number, table
from load import careless
from process import descriptors, resident_megabytes
from servers import TLS, CannotMeasure, Server, start_ours

CLIENTS = 4096
SPARE_DESCRIPTORS = 200
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"  # for the page, the largest answer there is
TINY = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
PIPELINED = ASK * 1_200  # more than the server receives at once
WINDOW = 2048  # bytes that a client's kernel takes in
WATCH_SECONDS = 9.0  # the server hangs up on a client that has taken nothing for ten
SOCKET_MEMORY = re.compile(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+)")  # ss(8)


def client_of(server: Server, context: ssl.SSLContext | None) -> socket.socket:
    """Return a client that has had an answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)  # before the handshake, which tells the window
    client.settimeout(10)
    client.connect(("127.0.0.1", server.port))
    if context:
        client = context.wrap_socket(client)
    client.sendall(TINY)
    if not client.recv(65536):
        raise ConnectionError("the server closed an honest connection")
    client.setblocking(False)
    return client


def ask_for_pages(clients: dict[socket.socket, int]) -> None:
    """Let each of `clients` send what its kernel takes of PIPELINED, from where it stopped before."""
    for client, at in clients.items():
        # OSError: nothing is taken, or the server has hung up. ssl.SSLError is one.
        with suppress(OSError):
            clients[client] = (at + client.send(PIPELINED[at:])) % len(PIPELINED)


def kernel_megabytes(server: Server) -> tuple[float, int]:
    """Return the kernel's memory for the server's ends of its connections, in 2**20 bytes, and how many those are."""
    command = ["ss", "-tmn", "state", "established", "sport", "=", f":{server.port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [sum(map(int, match)) for match in SOCKET_MEMORY.findall(done.stdout)]
    return sum(found) / 2**20, len(found)


def both_ends_megabytes() -> float:
    """Return the kernel's memory for all TCP sockets of this machine, in 2**20 bytes."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.split()[-1]) * 4096 / 2**20


def most(server: Server, clients: dict[socket.socket, int], before: float) -> tuple[float, float, int]:
    """Return process memory, kernel memory (both in MB) and connections at the moment when the sum was largest."""
    peak = (0.0, 0.0, 0)
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        ask_for_pages(clients)
        if shutil.which("ss"):
            kernel, connected = kernel_megabytes(server)
        else:
            kernel, connected = both_ends_megabytes() - before, len(clients)
        peak = max(peak, (resident_megabytes(server.pid), kernel, connected), key=lambda each: each[0] + each[1])
        time.sleep(0.1)
    return peak


def row_of(name: str, tls: bool) -> tuple[list[str], float]:
    """Return a row of the table, and its figure in MB."""
    with descriptors(CLIENTS + SPARE_DESCRIPTORS), ExitStack() as stack:
        server = start_ours(stack, **(TLS if tls else {}))
        at_rest, before = resident_megabytes(server.pid), both_ends_megabytes()
        context = careless() if tls else None
        clients = {stack.enter_context(client_of(server, context)): 0 for _ in range(CLIENTS)}
        idle = resident_megabytes(server.pid)
        process, kernel, connected = most(server, clients, before)
        if connected < CLIENTS:
            raise CannotMeasure(f"only {connected} of {CLIENTS} clients were still there")
    cells = [number(each) for each in (at_rest, idle, process, kernel, process + kernel)]
    return [name, *cells], process + kernel


def unread_section() -> Section:
    """Return what is to say about clients that read nothing."""
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    lacks: dict[str, str] = {}
    for name, key, tls in (("plain HTTP", "unread/plain", False), ("TLS", "unread/tls", True)):
        print(f"  {name}", file=sys.stderr)
        try:
            row, megabytes = row_of(name, tls)
        except (OSError, ValueError, StopIteration, CannotMeasure, subprocess.SubprocessError) as error:
            lacks[key] = f"{error}."
            continue
        rows.append(row)
        figures[key] = megabytes
    ends = "the server's ends, as `ss -tm` has them" if shutil.which("ss") else "both ends, since there is no `ss`"
    words = f"{CLIENTS:,} clients ask for pages and read nothing. MB: resident; in the kernel for sockets, {ends}."
    columns = ["clients that read nothing", "at rest", "all idle", "process at most", "kernel then", "together"]
    skipped = "".join(f"\n- {key}: {sentence}\n" for key, sentence in lacks.items())
    return Section(f"## Unread\n\n{words}\n\n{table(columns, rows)}\n{skipped}", figures, lacks)
