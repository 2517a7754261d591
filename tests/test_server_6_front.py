"""The front door: TLS, the cap on connections, accept that fails, 100 Continue, the access log, no network at all."""

import contextlib
import errno
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import server
from serverkit import FORM, LOGIN, RAW_LOGIN, TOP, Process, Running, Timed, answers, build, raw, read_all
from serverkit import served_without_a_network, stuff, wait_until
from sessionkit import Gate, raw_login

PEM = str(Path(__file__).with_name("localhost.pem"))  # a certificate for localhost that nobody trusts, and its key
OTHER_KEY = """-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIMvU0KZfvrbMaApkAwnjv+4KV+L21vqAry8GVTWSGHZPoAoGCCqGSM49
AwEHoUQDQgAE01hUbEFDHpe0GyJ2QdpTfOJm+p18Oa9ui1+T08XVGH/rToEbCZU8
tDOrbI2XmylXvIiwoswi+mF3MQjQlhUUqg==
-----END EC PRIVATE KEY-----
"""


# ---- TLS


@pytest.fixture
def secure():
    timed = Timed(tls=server.tls_context(PEM, PEM))
    yield timed
    timed.stop()


def client_context(version=ssl.TLSVersion.TLSv1_3):
    context = ssl.create_default_context(cafile=PEM)
    context.minimum_version = context.maximum_version = version
    return context


@contextlib.contextmanager
def connected(running, version=ssl.TLSVersion.TLSv1_3):
    with client_context(version).wrap_socket(running.connect(), server_hostname="localhost") as client:
        yield client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_login_and_refresh_over_tls_on_one_connection(secure, version):
    with connected(secure, version) as client:
        client.sendall(RAW_LOGIN)
        (login,) = answers(client.recv(65_536))
        client.sendall(raw("POST", "/refresh", b"", "Cookie: " + login["Set-Cookie"].partition(";")[0]))
        (refresh,) = answers(client.recv(65_536))
        client.sendall(raw("GET", "/", b"", "Connection: close"))
        (last,) = answers(read_all(client))
    assert [login.status, refresh.status, last.status] == [200, 200, 200]


def test_tls_is_1_2_or_newer_and_never_renegotiated():
    context = server.tls_context(PEM, PEM)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)


@pytest.mark.parametrize("count", [1, 40])
def test_what_comes_with_the_end_of_tls_is_answered(secure, count, caplog):
    """The last requests and the end of the stream in one packet: below TLS nothing can be half closed."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with secure.connect() as client:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                incoming.write(client.recv(65_536))
        tls.write(raw("GET", "/") * count)
        with contextlib.suppress(ssl.SSLError):
            tls.unwrap()
        client.sendall(outgoing.read())
        incoming.write(read_all(client))
    data = b""
    with contextlib.suppress(ssl.SSLError):
        while chunk := tls.read():
            data += chunk
    assert [answer.body for answer in answers(data)] == [b"server running"] * count
    assert not caplog.records


def test_over_tls_one_client_has_one_request_answered_a_turn(secure):
    """However many it sends at once, and though it says goodbye together with them: the others are served meanwhile."""
    with contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(connected(secure)) for _ in range(20)]
        other = stack.enter_context(connected(secure))
        for client in greedy:
            client.sendall(raw("GET", "/") * 400)
        other.sendall(raw("GET", "/"))
        assert answers(other.recv(65_536))[0].status == 200
        greedy[0].sendall(raw("GET", "/", b"", "Connection: close"))
        assert read_all(greedy[0]).count(b"server running") == 401


def test_a_large_body_is_refused_over_tls_and_the_answer_arrives(secure):
    with connected(secure) as client:
        client.sendall(raw("POST", "/login", b"", "Content-Length: 1000000") + b"x" * 20_000)
        (answer,) = answers(client.recv(65_536))
    assert answer.status == 413


def test_a_handshake_that_does_not_end_hurts_nobody_and_is_counted_and_dropped(secure):
    with secure.connect() as silent:
        wait_until(lambda: secure.server.clients)
        with connected(secure) as client:
            client.sendall(RAW_LOGIN)
            assert answers(client.recv(65_536))[0].status == 200
        secure.wait(server.REQUEST_SECONDS + 1)
        assert read_all(silent) == b""
    wait_until(lambda: not secure.server.clients)


NO_TLS = {"HTTP": RAW_LOGIN, "a broken hello": b"\x16\x03\x01\xff\xff" + bytes(300), "NUL": bytes(50), "nothing": b""}


@pytest.mark.parametrize("data", NO_TLS.values(), ids=NO_TLS)
def test_what_is_not_tls_is_closed_without_a_word_in_the_log(secure, data, caplog):
    answer = secure.exchange(data)
    assert answer == b"" or answer[0] == 21, "an alert at most (RFC 8446 §6)"
    wait_until(lambda: not secure.server.clients)
    with connected(secure) as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0].status == 200
    assert not caplog.records


def test_a_client_that_leaves_within_tls_leaves_nothing_behind(secure, caplog):
    for _ in range(5):
        with connected(secure) as client:
            client.sendall(RAW_LOGIN)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end
    wait_until(lambda: not secure.server.clients)
    assert not caplog.records


@pytest.mark.parametrize(
    "record",
    [b"\x15\x03\x03garbage" * 5, b"\x17\x03\x03\x00\x10" + bytes(16), b"GET / HTTP/1.1\r\n"],
    ids=["an alert", "data", "HTTP"],
)
def test_a_record_that_is_none_ends_its_connection_and_no_other(secure, caplog, record):
    with connected(secure) as client, connected(secure) as other:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0].status == 200
        socket.socket.sendall(client, record)  # past TLS
        with contextlib.suppress(OSError):
            assert client.recv(65_536) == b""
        other.sendall(raw("GET", "/", b"", "Connection: close"))
        assert answers(read_all(other))[0].status == 200
    wait_until(lambda: not secure.server.clients)
    assert not caplog.records


def test_a_server_that_stops_drops_unfinished_handshakes(secure):
    with secure.connect() as silent:
        wait_until(lambda: secure.server.clients)
        secure.call(secure.server.stop)
        secure.wait(server.LAST_SECONDS + 1)
        assert read_all(silent) == b""


def test_an_idle_client_that_does_not_say_goodbye_does_not_keep_it_from_stopping(secure):
    with connected(secure) as idle:
        idle.sendall(raw("GET", "/"))
        assert answers(idle.recv(65_536))[0].status == 200
        secure.call(secure.server.stop)
        secure.wait(server.LAST_SECONDS + 1)
        assert idle.recv(1) == b"", "it was told"
        secure.wait(server.LINGER_SECONDS + 1)
        secure.thread.join(20)
        assert not secure.thread.is_alive()


def test_bad_files_are_one_sentence_that_names_the_variable(tmp_path):
    (tmp_path / "other").write_text(OTHER_KEY)
    (tmp_path / "empty").write_text("")
    cases = [
        ("none", PEM, "TLS_CERT .*none cannot be read: No such file"),
        (PEM, "none", "TLS_KEY .*none cannot be read: No such file"),
        (".", PEM, "TLS_CERT .* cannot be read: Is a directory"),
        (PEM, "other", "TLS_KEY .*other is not the key of TLS_CERT"),
        ("empty", PEM, "must be PEM"),
        (PEM, "empty", "must be PEM"),
        (__file__, __file__, "must be PEM"),
    ]
    for cert, key, sentence in cases:
        with pytest.raises(server.SettingsError, match=sentence) as refused:
            server.tls_context(str(tmp_path / cert), str(tmp_path / key))
        assert "\n" not in str(refused.value)


def test_a_process_serves_tls_and_says_so(tmp_path):
    with Process(tmp_path, TLS_CERT=PEM, TLS_KEY=PEM) as process:
        assert process.greeting == f"Server active on https://localhost:{process.port}!"
        plain = socket.create_connection(("127.0.0.1", process.port), timeout=10)
        with client_context().wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(RAW_LOGIN)
            assert answers(client.recv(65_536))[0].status == 200
        status, _, errors = process.stop()
    assert status == 0 and "Traceback" not in errors


def test_a_process_with_a_bad_key_says_one_sentence_and_exits_2(tmp_path):
    process = Process(tmp_path, TLS_CERT=PEM, TLS_KEY="missing.pem")
    status, _, errors = process.stop()
    assert (status, errors) == (2, "server.py: TLS_KEY missing.pem cannot be read: No such file or directory\n")


# ---- Too many connections


def from_address(running, address="127.0.0.1"):
    """A client that connects from `address`, and is known to the server."""
    before = len(running.server.clients)
    client = socket.create_connection(running.address, timeout=20, source_address=(address, 0))
    wait_until(lambda: len(running.server.clients) > before)
    return client


def is_open(client):
    """Whether the server still answers on this connection."""
    try:
        client.sendall(raw("GET", "/"))
        return client.recv(65_536) != b""
    except ConnectionError:
        return False


@pytest.fixture
def crowded():
    running = Running(build(), capacity=4)
    with contextlib.ExitStack() as clients:
        yield running, lambda address="127.0.0.1": clients.enter_context(from_address(running, address))
    running.stop()


def test_when_there_are_too_many_the_oldest_idle_one_goes(crowded):
    running, connect = crowded
    first, second, third, fourth = [connect() for _ in range(4)]
    assert is_open(first)  # and so the second is the oldest now
    with running.connect() as fifth:
        assert is_open(fifth)
        assert [is_open(client) for client in (first, second, third, fourth)] == [True, False, True, True]


def test_the_one_who_holds_most_pays(crowded):
    running, connect = crowded
    lonely = connect("127.0.0.2")
    greedy = [connect() for _ in range(3)]
    with running.connect() as another:
        assert is_open(another) and is_open(lonely)
        assert [is_open(client) for client in greedy] == [False, True, True]


def test_who_holds_most_pays_whatever_has_begun_to_arrive(crowded):
    running, connect = crowded
    lonely = connect("127.0.0.2")
    greedy = [connect() for _ in range(3)]
    for client in greedy:
        client.sendall(RAW_LOGIN[:-1])
    wait_until(lambda: sum(each.framer.in_body for each in running.server.clients) == 3)
    with running.connect() as another:
        assert is_open(another) and is_open(lonely)


def test_a_request_that_has_only_begun_goes_before_one_whose_body_arrives(crowded):
    running, connect = crowded
    clients = [connect() for _ in range(4)]
    for client, cut in zip(clients, (-1, -1, 20, -1)):
        client.sendall(RAW_LOGIN[:cut])
    wait_until(lambda: sum(each.framer.in_body for each in running.server.clients) == 3)
    wait_until(lambda: all(each.framer.busy for each in running.server.clients))
    with running.connect() as another:
        assert is_open(another)
    for client, cut in zip(clients, (-1, -1, 20, -1)):
        client.settimeout(20)
        with contextlib.suppress(ConnectionError):
            client.sendall(RAW_LOGIN[cut:])
        answered = b" 200 " in client.recv(15)
        assert answered == (cut == -1)


def test_a_client_that_does_not_take_its_answers_has_no_claim_to_a_place(crowded):
    running, connect = crowded
    greedy = [connect() for _ in range(4)]
    for client in greedy:
        stuff(client)
    assert all(each.unsent for each in running.server.clients)
    with running.connect() as another:
        assert is_open(another)


def test_a_request_that_is_being_answered_is_never_dropped(crowded, monkeypatch):
    running, connect = crowded
    gate = Gate(monkeypatch)
    clients = [connect() for _ in range(4)]
    for client in clients:
        client.sendall(RAW_LOGIN)
    wait_until(lambda: not any(each.wants for each in running.server.clients))
    with running.connect() as another:
        assert is_open(another)
        gate.open.set()
        assert [answers(client.recv(65_536))[0].status for client in clients] == [200] * 4


def test_while_all_are_busy_newcomers_wait_in_the_kernel(monkeypatch):
    monkeypatch.setattr(server, "ACCEPTS_AT_ONCE", 1)
    monkeypatch.setattr(server, "REST_SECONDS", 0.001)
    log, gate = [], Gate(monkeypatch)
    running = Running(build(log=log), capacity=1)
    with contextlib.ExitStack() as stack:
        for count in (1, 2):
            stack.enter_context(running.connect()).sendall(RAW_LOGIN)
            wait_until(lambda: len(running.server.clients) == count)
            wait_until(lambda: not any(each.wants for each in running.server.clients))
        waiting = stack.enter_context(running.connect())
        waiting.sendall(raw("GET", "/"))
        wait_until(lambda: log)
        assert len(running.server.clients) == 2
        gate.open.set()
        assert b" 200 " in waiting.recv(15)
    running.stop()
    assert [event.fields["result"] for event in log if event.name == "accept"] == ["everybody is busy"]


def test_a_place_is_an_address_or_the_64_bits_of_a_network():
    places = [server.place_of(server.parse_address(text)) for text in (
        "127.0.0.1", "::ffff:127.0.0.1", "127.0.0.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1",
    )]  # fmt: skip
    assert places[0] == places[1] and places[3] == places[4]
    assert len(set(places)) == 4


class Failing(socket.socket):
    """A listener that cannot accept for a while."""

    error, failed = 0, 0

    def accept(self):
        if self.error:
            self.failed += 1
            raise OSError(self.error, os.strerror(self.error))
        return super().accept()


@pytest.fixture
def failing():
    """A running server, its log, and its one listener, which can be told to fail."""
    log = []
    (listener,) = server.listen("127.0.0.1", 0)
    listener = Failing(fileno=listener.detach())
    listener.setblocking(False)
    running = Running(build(log=log), sockets=[listener])
    yield running, log, listener
    running.stop()


def test_without_descriptors_it_rests_a_moment_drops_an_idle_client_and_complains_once(failing, monkeypatch):
    monkeypatch.setattr(server, "REST_SECONDS", 0.001)
    running, log, listener = failing
    with running.connect() as idle:
        wait_until(lambda: running.server.clients)
        listener.error = errno.EMFILE
        with running.connect() as client:
            assert read_all(idle) == b""
            wait_until(lambda: listener.failed > 2)
            listener.error = 0
            assert is_open(client)
    assert [(event.name, event.fields["result"]) for event in log] == [("accept", "EMFILE")]


def test_a_client_that_the_network_has_lost_costs_no_other_its_place(failing, monkeypatch):
    monkeypatch.setattr(server, "REST_SECONDS", 0.001)
    running, log, listener = failing
    with running.connect() as idle:
        wait_until(lambda: running.server.clients)
        listener.error = errno.EPROTO
        with running.connect() as client:
            wait_until(lambda: listener.failed)
            listener.error = 0
            assert is_open(client) and is_open(idle)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
import server
print(server.capacity(), resource.getrlimit(resource.RLIMIT_NOFILE)[0] == int(sys.argv[3]))
"""


@pytest.mark.parametrize(
    "soft, hard, raised, connections",
    [(256, 512, 512, 512 - server.RESERVED_DESCRIPTORS), (40, 40, 40, 1)],
)
def test_the_capacity_comes_from_the_limit_of_descriptors(soft, hard, raised, connections):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(soft), str(hard), str(raised)], cwd=TOP, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(connections), "True"], done.stderr


# ---- 100 Continue


def test_the_stock_server_says_100_continue_too():
    handler = server.handler_for(build())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines = f"Content-Type: {FORM}", f"Content-Length: {len(LOGIN)}", "Expect: 100-continue"
        ours.sendall(raw("POST", "/login", b"", *lines))
        thread = threading.Thread(target=handler, args=(theirs, ("127.0.0.1", 1), None))
        thread.start()
        assert ours.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        ours.sendall(LOGIN)
        (answer,) = answers(ours.recv(65_536))
        thread.join()
    assert answer.status == 200


# ---- The access log


def test_with_the_access_log_on_every_request_is_one_line():
    log = []
    running = Running(build(log=log, access_log=True))
    running.exchange(raw("GET", "/nothing?secret=1") + b"hello\r\n\r\n")
    running.stop()
    assert [(event.name, dict(event.fields)) for event in log] == [
        ("request", {"method": "GET", "path": "/nothing", "status": "404", "address": "127.0.0.1"}),
        ("request", {"method": "unknown", "path": "unknown", "status": "400", "address": "127.0.0.1"}),
    ]


def test_the_access_log_is_off_unless_it_is_switched_on():
    log = []
    running = Running(build(log=log))
    running.exchange(raw("GET", "/"))
    running.stop()
    assert log == []


# ---- No network

def test_it_serves_where_there_is_no_network_at_all():
    served_without_a_network(sys.executable, TOP / "server.py")
