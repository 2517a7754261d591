"""Conversation and Server: real sockets on a free port, the loop in a thread, a clock that the test moves."""

import random
import socket
import threading

import pytest
import server
from serverkit import PAGE, RAW_LOGIN, Running, Timed, answers, build, raw, read_all, stuff, wait_until
from sessionkit import Gate



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


def test_login_then_refresh_on_one_connection(running):
    with running.connect() as client:
        client.sendall(RAW_LOGIN)
        (login,) = answers(client.recv(65_536))
        cookie = login["Set-Cookie"].partition(";")[0]
        for _ in range(3):
            client.sendall(raw("POST", "/refresh", b"", f"Cookie: {cookie}"))
            (refresh,) = answers(client.recv(65_536))
            assert refresh.status == 200 and list(refresh.json) == ["accessToken"]
            assert refresh["Connection"] is None and refresh["Date"] and refresh["Server"] is None


EXCHANGES = [
    ("a login", RAW_LOGIN, [200]),
    ("two requests at once", RAW_LOGIN + raw("GET", "/"), [200, 200]),
    (
        "three, the second asks to close",
        raw("GET", "/") + raw("GET", "/", b"", "Connection: close") + raw("GET", "/"),
        [200, 200],
    ),
    ("an error in between goes on", raw("GET", "/x") + raw("GET", "/"), [404, 200]),
    ("a malformed request ends it", raw("GET", "/") + b"hello\r\n\r\n" + raw("GET", "/"), [200, 400]),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n" + raw("GET", "/"), [200]),
    ("HTTP/1.0, kept", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + raw("GET", "/"), [200, 200]),
    ("half a login", RAW_LOGIN[:-1], [400]),
    ("a body nobody asked for", raw("GET", "/", b"body") + raw("GET", "/"), [200, 200]),
    ("a large body", raw("POST", "/login", b"x" * 16_385), [413]),
    ("chunks", raw("POST", "/login", b"", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + RAW_LOGIN, [411]),
    ("nothing", b"", []),
    ("an empty line", b"\r\n", []),
]


@pytest.mark.parametrize("data, statuses", [pytest.param(*case[1:], id=case[0]) for case in EXCHANGES])
def test_an_exchange_is_the_same_in_one_piece_and_byte_by_byte(running, data, statuses):
    pieces = [data[i : i + 1] for i in range(len(data))] if len(data) < 2_000 else [data[:9_000], data[9_000:]]
    for sent in ([data], pieces):
        found = answers(running.exchange(*sent))
        assert [answer.status for answer in found] == statuses
        assert all("message" in answer.json for answer in found if answer.status >= 400)


def test_head_has_no_body_and_keeps_the_connection(running):
    found = answers(running.exchange(raw("HEAD", "/")), heads_only=1)
    assert (found[0].status, found[0]["Content-Length"], found[0].body) == (200, "14", b"")


def test_an_answer_to_too_much_survives(running):
    """The client is still sending when it is refused; a reset would destroy the answer."""
    with running.connect() as client:
        client.sendall(raw("POST", "/login", b"", "Content-Length: 1000000"))
        client.sendall(b"x" * 200_000)
        (answer,) = answers(read_all(client))
    assert (answer.status, answer["Connection"], answer.json["code"]) == (413, "close", "body_too_large")


def test_whatever_bytes_arrive_the_answer_is_json_and_the_next_client_is_served(running):
    generator = random.Random(1)
    for _ in range(200):
        noise = bytes(generator.randrange(256) for _ in range(generator.randrange(1, 300)))
        mutated = bytearray(RAW_LOGIN)
        mutated[generator.randrange(len(mutated))] = generator.randrange(256)
        for data in (noise, noise + b"\r\n\r\n", bytes(mutated)):
            for answer in answers(running.exchange(data)):
                assert answer.status in (200, 400, 404, 405, 406, 411, 413, 505)
                assert answer.json
    assert answers(running.exchange(RAW_LOGIN))[0].status == 200


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
        client.sendall(PAGE * 20)
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


def test_localhost_listens_on_both_loopbacks_with_one_port():
    sockets = server.listen("localhost", 0)
    try:
        addresses = [listener.getsockname()[:2] for listener in sockets]
        assert addresses[0][0] == "127.0.0.1"
        assert len({port for _, port in addresses}) == 1
        if len(addresses) == 1:
            pytest.skip("this machine has no ::1")
        assert addresses[1][0] == "::1"
    finally:
        for listener in sockets:
            listener.close()


def test_a_port_in_use_is_one_sentence():
    (taken,) = server.listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(server.SettingsError, match=f"PORT {port} is in use"):
            server.listen(host, port)
    taken.close()


def test_an_address_that_is_not_ours_is_one_sentence():
    with pytest.raises(server.SettingsError, match="HOST 192.0.2.1 "):
        server.listen("192.0.2.1", 0)


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
