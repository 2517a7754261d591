"""Server: real sockets on a free port, the loop in a thread, a clock that the test moves."""

import contextlib
import errno
import os
import socket
import ssl
import threading

import pytest
import server
from serverkit import (
    ASK_FOR_PAGE, PEM, RAW_LOGIN, Running, Timed, answers, build, client_context, raw, read_all, stuff, wait_until,
)  # fmt: skip
from sessionkit import Gate

pytestmark = pytest.mark.usefixtures("memory")


@pytest.fixture
def timed():
    timed = Timed()
    yield timed
    timed.stop()


def is_closed(client):
    """Whether the server has closed this connection, of which nothing else is to be read."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    finally:
        client.settimeout(20)


@pytest.fixture
def running():
    running = Running(build())
    yield running
    running.stop()


def test_an_answer_to_too_much_survives(running):
    """The client is still sending when it is refused; a reset would destroy the answer."""
    with running.connect() as client:
        client.sendall(raw("POST", "/login", b"", "Content-Length: 1000000"))
        client.sendall(b"x" * 200_000)
        (answer,) = answers(read_all(client))
    assert (answer.status, answer["Connection"], answer.json["code"]) == (413, "close", "body_too_large")


def test_a_flood_of_requests_is_answered_in_order_and_others_are_served_meanwhile(running):
    """More than are answered at once to one client, and more answers than fit into the socket."""
    targets = [f"/{number}" for number in range(3_000)]
    with running.connect() as client:
        sender = threading.Thread(
            target=lambda: client.sendall(
                b"".join(raw("GET", target) for target in targets) + raw("GET", "/", b"", "Connection: close")
            )
        )
        sender.start()
        assert answers(running.exchange(RAW_LOGIN))[0].status == 200
        found = answers(read_all(client))
        sender.join()
    assert [answer.status for answer in found] == [404] * 3_000 + [200]


@pytest.mark.parametrize("count", [16, 32])
def test_a_client_that_was_held_back_is_heard_again(running, count):
    with running.connect() as client:
        for _ in range(2):
            client.sendall(raw("GET", "/") * count)
            data = b""
            while data.count(b"server running") < count:
                data += client.recv(65_536)
            assert len(answers(data)) == count


def test_a_client_that_never_reads_is_dropped(timed):
    with timed.connect() as client:
        stuff(client)
        timed.wait(server.WRITE_SECONDS - 1)
        assert timed.server.clients
        timed.wait(2)
        assert not timed.server.clients


def test_a_client_that_reads_a_little_now_and_then_has_no_longer(timed):
    """The time to take an answer runs from its first byte that does not fit, and no byte that is taken moves it."""
    with timed.connect() as client:
        stuff(client)
        for _ in range(3):
            client.recv(100)
            timed.wait(server.WRITE_SECONDS / 3 + 1)
        assert not timed.server.clients


def test_a_client_that_has_taken_its_answers_may_be_idle_as_long_as_any(timed):
    with timed.connect() as client:
        client.sendall(ASK_FOR_PAGE * 20)
        data = b""
        while data.count(b"HTTP/1.1 200") < 20 or not data.endswith(server.PAGE.encode()[-20:]):
            data += client.recv(65_536)
        assert len(answers(data)) == 20
        timed.wait(server.IDLE_SECONDS - 1)
        assert not is_closed(client)
        timed.wait(2)
        assert read_all(client) == b""


def test_a_client_that_never_reads_costs_the_others_nothing(timed):
    with timed.connect() as slow, timed.connect() as other:
        stuff(slow)
        for _ in range(50):
            other.sendall(raw("GET", "/"))
            assert answers(other.recv(65_536))[0].status == 200


def test_a_fault_in_one_conversation_ends_that_one_and_no_other(running, monkeypatch, caplog):
    def faulty(response, request, *more, right=server.render):
        return right(response, request, *more) if request.path != "/unlucky" else 1 / 0

    monkeypatch.setattr(server, "render", faulty)
    with running.connect() as unlucky, running.connect() as other:
        unlucky.sendall(raw("GET", "/unlucky"))
        assert read_all(unlucky) == b""
        other.sendall(raw("GET", "/"))
        assert answers(other.recv(65_536))[0].status == 200
    assert [record.message for record in caplog.records] == ["a conversation broke off"]


def test_what_is_to_be_done_every_second_is_done_every_second():
    calls = []
    counted = Timed(on_sweep=lambda: calls.append(counted.clock.now))
    for seconds in (0.5, 0.5, 1, 5):
        counted.wait(seconds)
    counted.stop()
    assert calls[:3] == [101.0, 102.0, 107.0]


def test_many_connections_at_once(running):
    clients = [running.connect() for _ in range(100)]
    request = raw("GET", "/")
    for client in clients:
        client.sendall(request[:20])
    for client in clients:
        client.sendall(request[20:])
    for client in clients:
        assert answers(client.recv(65_536))[0].status == 200
        client.close()
    wait_until(lambda: not running.server.clients)


# -- deadlines


def test_an_idle_connection_is_closed_in_silence(timed):
    with timed.connect() as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0].status == 200
        timed.wait(server.IDLE_SECONDS - 1)
        assert not is_closed(client)
        timed.wait(2)
        assert read_all(client) == b""


def test_a_client_that_says_nothing_at_all_is_closed_in_silence(timed):
    with timed.connect() as client:
        wait_until(lambda: timed.server.clients)
        timed.wait(server.REQUEST_SECONDS - 1)
        assert not is_closed(client)
        timed.wait(2)
        assert read_all(client) == b""


@pytest.mark.parametrize("cut", [10, -len(b"admin123")])
def test_a_slow_request_is_told_so(timed, cut):
    with timed.connect() as client:
        client.sendall(RAW_LOGIN[:cut])
        wait_until(lambda: any(each.framer.busy for each in timed.server.clients))
        timed.wait(server.REQUEST_SECONDS + 1)
        (answer,) = answers(read_all(client))
    assert (answer.status, answer["Connection"], answer.json["code"]) == (408, "close", "timeout")


def test_a_client_that_goes_after_it_was_refused_is_gone_at_once(running):
    with running.connect() as client:
        client.sendall(b"hello\r\n\r\n")
        (answer,) = answers(read_all(client))
    wait_until(lambda: not running.server.clients)
    assert answer.status == 400


def test_a_client_that_was_refused_and_does_not_close_is_closed(timed):
    with timed.connect() as client:
        client.sendall(b"hello\r\n\r\n")
        assert answers(read_all(client))[0].status == 400
        client.sendall(b"and more")
        timed.wait(server.LINGER_SECONDS + 1)
        wait_until(lambda: not timed.server.clients)


def test_the_deadline_counts_from_the_first_byte_of_a_request_and_not_from_the_last(timed):
    whole = raw("GET", "/")
    with timed.connect() as client:
        client.sendall(whole)
        assert answers(client.recv(65_536))[0].status == 200
        timed.wait(20)
        for piece in (whole[:10], whole[10:20], whole[20:22]):
            client.sendall(piece)
            timed.wait(server.REQUEST_SECONDS / 4)
        client.sendall(whole[22:] + whole[:5])
        assert answers(client.recv(65_536))[0].status == 200, "within time, all in all"
        timed.wait(server.REQUEST_SECONDS - 1)
        client.sendall(whole[5:7])
        timed.wait(2)
        assert answers(read_all(client))[0].status == 408


def test_empty_lines_are_no_request_and_do_not_move_the_deadline(timed):
    with timed.connect() as client:
        client.sendall(raw("GET", "/") + b"\r\n")
        assert answers(client.recv(65_536))[0].status == 200
        for _ in range(4):
            timed.wait(server.IDLE_SECONDS / 4)
            client.sendall(b"\r\n\r\n")
        timed.wait(1.5)
        assert read_all(client) == b"", "idle since its answer, and so not even told"


def test_while_one_request_waits_for_another_lane_the_next_is_not_begun_and_no_deadline_runs(monkeypatch):
    """Whatever else arrives, and however often the client is looked at."""
    gate, timed = Gate(monkeypatch), Timed()
    with timed.connect() as client:
        client.sendall(RAW_LOGIN * 2)
        wait_until(lambda: gate.calls)
        client.sendall(raw("GET", "/"))
        timed.wait(10_000)
        assert gate.calls == 1
        gate.open.set()
        data = b""
        while b"server running" not in data:
            data += client.recv(65_536)
        assert [answer.status for answer in answers(data)] == [200, 200, 200]
    timed.stop()


# -- stopping


def test_stopping_closes_idle_connections(timed):
    with timed.connect() as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0].status == 200
        timed.call(timed.server.stop)
        timed.wait(server.LAST_SECONDS + 1)
        assert read_all(client) == b""
    timed.thread.join(20)
    assert not timed.thread.is_alive()


def test_a_request_that_an_idle_client_sends_while_we_stop_is_answered_and_is_the_last(timed):
    """A proxy uses a kept connection at this very moment: a reset would be an error for its client."""
    with timed.connect() as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0]["Connection"] is None
        timed.call(timed.server.stop)
        client.sendall(raw("GET", "/") * 2)
        (answer,) = answers(read_all(client))
        assert (answer.status, answer["Connection"]) == (200, "close")


def test_a_client_that_has_connected_before_we_stop_is_served():
    running = Running(build())
    clients = []

    def stop():
        clients.extend(running.connect() for _ in range(40))
        running.server.stop()

    running.call(stop)
    for client in clients:
        client.sendall(raw("GET", "/"))
        (answer,) = answers(read_all(client))
        assert (answer.status, answer["Connection"]) == (200, "close")
        client.close()
    with pytest.raises(ConnectionError):
        running.connect()
    running.stop()


def test_a_client_that_keeps_its_side_open_does_not_keep_it_from_stopping():
    timed = Timed()
    with timed.connect() as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0].status == 200
        timed.call(timed.server.stop)
        timed.wait(server.LAST_SECONDS + 1)
        timed.wait(server.LINGER_SECONDS + 1)
        timed.thread.join(20)
        assert not timed.thread.is_alive()


def test_what_takes_too_long_does_not_keep_it_from_stopping(monkeypatch):
    gate, timed = Gate(monkeypatch), Timed()
    with timed.connect() as client:
        client.sendall(RAW_LOGIN)
        wait_until(lambda: gate.calls)
        timed.call(timed.server.stop)
        timed.wait(server.SHUTDOWN_SECONDS - 1)
        assert timed.thread.is_alive()
        timed.clock.now += 2
        timed.thread.join(20)
        assert not timed.thread.is_alive()
        gate.open.set()


def test_no_name_is_looked_up(monkeypatch):
    def poisoned(*args, **kwargs):
        raise AssertionError("a name was looked up")

    for name in ("getaddrinfo", "getfqdn", "gethostbyname", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(socket, name, poisoned)
    for listener in server.listen("localhost", 0):
        listener.close()
    running = Running(build())
    client = socket.socket()  # create_connection would look up
    client.connect(running.address)
    client.sendall(RAW_LOGIN)
    assert answers(client.recv(65_536))[0].status == 200
    client.close()
    running.stop()


# -- TLS


@pytest.fixture
def secure():
    timed = Timed(tls=server.tls_context(PEM, PEM))
    yield timed
    timed.stop()


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


def test_a_handshake_that_does_not_end_harms_no_other_client_and_is_dropped(secure):
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


# -- too many connections


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
    monkeypatch.setattr(server, "ACCEPT_PAUSE_SECONDS", 0.001)
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
    assert [event.fields["result"] for event in log if event.name == "accept"] == ["no_idle_client"]


class Failing(socket.socket):
    """A listener that cannot accept for a while."""

    error, failed = 0, 0

    def accept(self):
        if self.error:
            self.failed += 1
            raise OSError(self.error, os.strerror(self.error))
        return super().accept()


@pytest.fixture
def failing(monkeypatch):
    """A running server, its log, and its one listener, which can be told to fail."""
    monkeypatch.setattr(server, "ACCEPT_PAUSE_SECONDS", 0.001)
    log = []
    (listener,) = server.listen("127.0.0.1", 0)
    listener = Failing(fileno=listener.detach())
    listener.setblocking(False)
    running = Running(build(log=log), sockets=[listener])
    yield running, log, listener
    running.stop()


def test_without_descriptors_it_rests_a_moment_drops_an_idle_client_and_complains_once(failing):
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


def test_when_the_kernel_can_watch_no_more_a_client_is_closed_and_the_others_are_served(failing, monkeypatch):
    running, log, listener = failing
    with running.connect() as client:
        assert is_open(client)
        for number in (errno.ENOSPC, errno.ENOMEM):

            def full(*_, number=number):
                full.called += 1
                raise OSError(number, os.strerror(number))

            full.called = 0
            with monkeypatch.context() as patch:
                patch.setattr(server.selectors.DefaultSelector, "register", full)
                with running.connect() as another:
                    assert read_all(another) == b""
                wait_until(lambda: full.called > 2)  # the listener, too
            with running.connect() as another:
                assert is_open(another) and is_open(client)
    assert [(event.name, event.fields["result"]) for event in log] == [("accept", "ENOSPC"), ("accept", "ENOMEM")]


def test_a_client_that_the_network_has_lost_costs_no_other_its_place(failing):
    running, log, listener = failing
    with running.connect() as idle:
        wait_until(lambda: running.server.clients)
        listener.error = errno.EPROTO
        with running.connect() as client:
            wait_until(lambda: listener.failed)
            listener.error = 0
            assert is_open(client) and is_open(idle)
