"""What the server's tests share: a clock, an app in one line, requests as bytes, a server process."""

import contextlib
import itertools
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import minijwt
import server

TOP = Path(__file__).resolve().parent.parent
ACCESS = b"access-secret-for-tests-0123456789abcdef"
REFRESH = b"refresh-secret-for-tests-0123456789abcde"
NOW = 1_800_000_000
LOGIN = b"username=admin&password=admin123"
FORM = "application/x-www-form-urlencoded"


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self, now=NOW):
        self.now = now

    def __call__(self):
        return self.now


PAGE = server.Page(server.PAGE.encode(), server.page_policy(server.PAGE))
PEM = str(TOP / "tests" / "localhost.pem")  # a self-signed certificate for localhost, and its key
# What takes long is left to `make prove`.
LONG = bool(os.environ.get("LONG"))
CHEAP = "scrypt$2$1$1" if server.COST == server.SCRYPT else "pbkdf2$2"
# Where a commit need not wait for a disk, if there is such a place: only tests that are about files use tmp_path.
SHARED_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SCRATCH = tempfile.TemporaryDirectory(prefix="minijwt-tests-", dir=SHARED_MEMORY)
numbers = itertools.count()
stores = []  # of this test; closed after it
kinds = ["SQLite"]  # of store that the last one says is made


def settings(**changes):
    return server.Settings(**{"access_secrets": (ACCESS,), "refresh_secrets": (REFRESH,), **changes})


def new_store(clock=None):
    """An empty store: a database in a file of its own, unless a test has asked for another kind."""
    path, clock = os.path.join(SCRATCH.name, f"{next(numbers)}.db"), clock or Clock()
    store = server.MemoryStore(clock) if kinds[-1] == "memory" else server.SQLiteStore(path, clock)
    stores.append(store)
    return store


def build(clock=None, store=None, log=None, **changes):
    """A whole server without a port."""
    clock = clock or Clock()
    return server.App(
        settings(**changes), store or new_store(clock), clock, (log if log is not None else []).append, CHEAP, PAGE
    )


def request(method="GET", path="/", body=b"", **fields):
    """A Request as the framer would make it; `content_type=` becomes `content-type:`."""
    fields = {"host": "localhost", **fields}
    raw = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in fields.items()}
    return server.Request(method, path, raw, body)


def address_of(app, peer, fields):
    """Who sends a request with `fields` from the address `peer`, as the framer would find it."""
    return server.client_address(fields, server.parse_address(peer), app.settings.trusted_proxies)[0]


def post(app, path, body=b"", **fields):
    return server.respond(app, request("POST", path, body, **fields))


def login(app, body=LOGIN, content_type=FORM):
    return post(app, "/login", body, content_type=content_type)


def refresh(app, cookie):
    return post(app, "/refresh", cookie=cookie)


def body(response):
    return json.loads(response.body)


def cookie_of(response):
    """The refresh token in an answer's Set-Cookie."""
    (value,) = [value for name, value in response.fields if name == "Set-Cookie"]
    return value.partition(";")[0].partition("=")[2]


def refresh_token(secret=REFRESH, **claims):
    """A refresh token as the tutorial's own app signs it, changed by `claims`; None leaves a claim out."""
    merged = {"username": "admin", "iat": NOW, "exp": NOW + 86_400, **claims}
    return minijwt.encode({name: value for name, value in merged.items() if value is not None}, secret)


def raw(method="GET", target="/", body=b"", *lines):
    """A request as bytes on the wire."""
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


ASK_FOR_PAGE = raw("GET", "/", b"", "Accept: text/html")
RAW_LOGIN = raw("POST", "/login", LOGIN, f"Content-Type: {FORM}")


class Answer:
    """One answer, cut out of the bytes of a connection."""

    def __init__(self, head, body):
        status_line, *lines = head.decode("ascii").split("\r\n")
        version, status, self.reason = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        self.status = int(status)
        self.fields = [tuple(line.split(": ", 1)) for line in lines]
        self.body = body

    def __getitem__(self, name):
        return next((value for key, value in self.fields if key.lower() == name.lower()), None)

    @property
    def json(self):
        return json.loads(self.body)


def answers(data, heads_only=0):
    """Cut `data` into answers; fails unless every byte belongs to one. The last `heads_only` of them have no body."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"not a whole head: {head!r}"
        answer = Answer(head, b"")
        length = int(answer["Content-Length"] or 0)
        if heads_only != len(found) + 1:
            assert len(data) >= length
            answer.body, data = data[:length], data[length:]
        found.append(answer)
    return found


class Process:
    """`python3 server.py` in a directory of its own, on a free port."""

    def __init__(self, directory, python=(sys.executable,), program=TOP / "server.py", **environment):
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in server.VARIABLES and not name.startswith("PYTHON")
        }
        self.process = subprocess.Popen(
            [*python, str(program)],
            cwd=directory,
            env={**clean, "PORT": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.greeting = self.process.stdout.readline().strip()
        self.port = int(self.greeting.rstrip("!").rpartition(":")[2]) if self.greeting else None

    def exchange(self, data, host="127.0.0.1"):
        """Send `data`, close our side, and return all that comes back."""
        with socket.create_connection((host, self.port), timeout=10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def stop(self, number=15):
        """End it; return exit status, output and errors."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, self.greeting + "\n" + out, err

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()


IN_A_NAMESPACE = """
import fcntl, socket, struct, sys, tempfile
sys.path[:0], program = sys.argv[1:3], sys.argv[3:]
from serverkit import RAW_LOGIN, Process, answers, raw
with socket.socket() as any_socket:  # loopback is down in a new namespace: SIOCSIFFLAGS, IFF_UP | IFF_RUNNING
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
assert not hasattr(socket, "if_nameindex") or [name for _, name in socket.if_nameindex()] == ["lo"]
with tempfile.TemporaryDirectory() as directory, Process(directory, program[:-1], program[-1]) as process:
    (login,) = answers(process.exchange(RAW_LOGIN))
    cookie = "Cookie: " + login["Set-Cookie"].partition(";")[0]
    (refresh,) = answers(process.exchange(raw("POST", "/refresh", b"", cookie)))
    status, _, errors = process.stop()
print(login.status, refresh.status, status, errors.count("Traceback"))
"""


def served_without_a_network(*program):
    """See a login and a refresh in a network namespace that holds nothing but loopback: a look-up, or a packet to
    elsewhere, would fail. `program` is the command, an interpreter and a file."""
    namespace = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        import pytest  # only here: this module also serves programs that run without it

        pytest.skip("this machine allows no network namespaces")
    command = [*namespace, sys.executable, "-c", IN_A_NAMESPACE, str(TOP / "tests"), str(TOP), *map(str, program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["200", "200", "0", "0"], done.stderr


class Running:
    """The server in a thread; signals are left to the process tests."""

    def __init__(self, app, sockets=None, **options):
        self.sockets = sockets or server.listen("127.0.0.1", 0)
        self.address = self.sockets[0].getsockname()
        self.server = server.Server(app, self.sockets, **options)
        ready = threading.Event()
        self.thread = threading.Thread(target=self.server.run, args=(ready.set,))
        self.thread.start()
        assert ready.wait(10)

    def connect(self):
        return socket.create_connection(self.address, timeout=20)

    def exchange(self, *pieces):
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def exchange_whole(self, data):
        """Send `data` and `Connection: close`, and keep our side open until the other closes."""
        with self.connect() as client:
            client.sendall(data + raw("GET", "/bye", b"", "Connection: close"))
            return read_all(client).rpartition(b"HTTP/1.1 404 ")[0]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    def turns(self, steps):
        """Take one of `steps`, an iterator, in each turn of the loop; wait for the end."""
        done = threading.Event()

        def step():
            if next(steps, done) is done:
                done.set()
            else:
                self.server.post(step)

        self.server.post(step)
        assert done.wait(20)

    def call(self, function):
        """Run `function` on the loop and wait for it."""
        self.turns(function() for _ in [0])

    def stop(self):
        self.server.post(self.server.stop)
        self.thread.join(20)
        assert not self.thread.is_alive()


def client_context(version=ssl.TLSVersion.TLSv1_3):
    """How a client that trusts our certificate speaks TLS."""
    context = ssl.create_default_context(cafile=PEM)
    context.minimum_version = context.maximum_version = version
    return context


class Timed(Running):
    """A running server whose seconds pass when the test says so."""

    def __init__(self, app=None, **options):
        self.clock = Clock(100.0)
        super().__init__(app or build(), clock=self.clock, **options)

    def wait(self, seconds):
        """Let `seconds` pass, and the server look at its deadlines."""
        self.clock.now += seconds
        for _ in range(2):
            turned = threading.Event()
            self.server.post(turned.set)
            wait_until(lambda: turned.is_set() or not self.thread.is_alive())


def stuff(client):
    """Ask for pages and read none, until the server has no room for more."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    client.settimeout(0.2)
    try:
        while True:
            client.sendall(ASK_FOR_PAGE * 100)
    except socket.timeout:
        pass


def read_all(client):
    data = b""
    while chunk := client.recv(65_536):
        data += chunk
    return data


def wait_until(condition, seconds=10):
    """Wait for something that another process or thread does; the only waiting there is in these tests."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def found(program):
    """Where `program` is, if it is here; None if not."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")


def free_port():
    """A loopback port on which nothing listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def in_front(command, port):
    """Run `command`, a proxy that listens on `port`, until the end of the block."""
    process = subprocess.Popen([found(command[0]), *command[1:]], stderr=subprocess.DEVNULL)

    def listens():
        assert process.poll() is None, "it does not run"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens)
        yield
    finally:
        process.terminate()
        process.wait(20)
