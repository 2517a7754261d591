"""Connection and Server: real sockets on a free port, the event loop in a thread, deadlines called by hand."""

import asyncio
import random
import socket
import sys
import threading

import pytest
import server
from serverkit import RAW_LOGIN, Running, answers, build, raw, read_all, wait_until


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


def test_a_client_that_never_reads_is_dropped(running):
    with running.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError if sys.version_info >= (3, 10) else socket.timeout):
            while True:
                client.sendall(raw("GET", "/") * 1_000)
        (connection,) = running.server.connections
        expire(running)
        expire(running)
        wait_until(lambda: not running.server.connections)


def test_a_fault_in_one_connection_leaves_the_deadlines_of_the_others(monkeypatch, caplog):
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.001)
    running = Running(build())
    with running.connect(), running.connect():
        wait_until(lambda: len(running.server.connections) == 2)
        broken, good = running.server.connections
        monkeypatch.setattr(
            server.Connection,
            "expire",
            lambda self, real=server.Connection.expire: 1 / 0 if self is broken else real(self),
        )
        broken.deadline = 0
        wait_until(lambda: broken not in running.server.connections)
        good.deadline = 0
        wait_until(lambda: good not in running.server.connections)
    assert "could not be closed" in caplog.text
    running.stop()


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
    wait_until(lambda: not running.server.connections)


def expire(running):
    running.call(lambda: [connection.expire() for connection in list(running.server.connections)])


def test_an_idle_connection_is_closed_in_silence(running):
    with running.connect() as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0].status == 200
        expire(running)
        assert read_all(client) == b""


def test_a_slow_request_is_told_so(running):
    with running.connect() as client:
        client.sendall(RAW_LOGIN[:30])
        wait_until(lambda: any(connection.framer.busy for connection in running.server.connections))
        expire(running)
        (answer,) = answers(read_all(client))
    assert (answer.status, answer.json["code"]) == (408, "timeout")


def test_a_client_that_goes_after_it_was_refused_is_gone_at_once(monkeypatch):
    monkeypatch.setattr(server, "SWEEP_SECONDS", 1_000)  # no deadline helps
    running = Running(build())
    with running.connect() as client:
        client.sendall(b"hello\r\n\r\n")
        (answer,) = answers(read_all(client))
    wait_until(lambda: not running.server.connections)
    running.stop()
    assert answer.status == 400


class NoTransport(asyncio.Transport):
    """A transport whose client takes everything."""

    def is_reading(self):
        return True

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def write(self, data):
        pass


def test_the_deadline_counts_from_the_first_byte_of_a_request_and_not_from_the_last():
    seconds, whole = [100.0], raw("GET", "/")
    arrivals = [
        (101, whole, 101 + server.IDLE_SECONDS),
        (110, whole[:10], 110 + server.REQUEST_SECONDS),
        (114, whole[10:20], 110 + server.REQUEST_SECONDS),
        (114.5, whole[20:] + whole[:5], 114.5 + server.REQUEST_SECONDS),
    ]

    async def deadlines():
        connection = server.Connection(server.Server(build(), [], lambda: seconds[0]), "127.0.0.1")
        connection.connection_made(NoTransport())
        yield connection.deadline
        for seconds[0], data, _ in arrivals:
            connection.data_received(data)
            connection.serve()
            yield connection.deadline

    async def main():
        return [deadline async for deadline in deadlines()]

    assert asyncio.run(main()) == [100 + server.REQUEST_SECONDS, *(deadline for _, _, deadline in arrivals)]


def test_empty_lines_are_no_request_and_do_not_move_the_deadline():
    seconds = [100.0]

    async def main():
        connection = server.Connection(server.Server(build(), [], lambda: seconds[0]), "127.0.0.1")
        connection.connection_made(NoTransport())
        for seconds[0], data, deadline in (
            (101, b"\r\n" * 3, 100 + server.REQUEST_SECONDS),
            (102, raw("GET", "/") + b"\r\n", 102 + server.IDLE_SECONDS),
            (110, b"\r\n", 102 + server.IDLE_SECONDS),
            (111, b"\r", 111 + server.REQUEST_SECONDS),
        ):
            connection.data_received(data)
            connection.serve()
            assert connection.deadline == deadline

    asyncio.run(main())


def test_a_client_that_has_taken_its_answers_may_be_idle_as_long_as_any():
    async def main():
        connection = server.Connection(server.Server(build(), [], lambda: 100.0), "127.0.0.1")
        connection.connection_made(NoTransport())
        connection.pause_writing()
        connection.resume_writing()
        assert connection.deadline == 100 + server.IDLE_SECONDS
        connection.data_received(RAW_LOGIN[:20])
        connection.pause_writing()
        connection.resume_writing()
        assert connection.deadline == 100 + server.REQUEST_SECONDS

    asyncio.run(main())


class HeldLanes:
    """Lanes that keep what they are given until the test answers it."""

    def __init__(self):
        self.held = []

    def submit(self, lane, request, done):
        self.held.append((request, done))

    def hand_over(self):
        pass


def test_while_one_request_waits_for_another_lane_the_next_is_not_begun_and_no_deadline_runs():
    """However often the connection is looked at, and whatever else arrives."""

    async def main():
        running = server.Server(build(), [], lambda: 100.0)
        running.lanes = HeldLanes()
        connection = server.Connection(running, "127.0.0.1")
        connection.connection_made(NoTransport())
        connection.data_received(raw("POST", "/logout") * 2)
        connection.serve()
        connection.serve()
        assert len(running.lanes.held) == 1
        connection.data_received(raw("GET", "/"))
        assert connection.deadline == float("inf")
        request, done = running.lanes.held[0]
        done(server.respond(running.app, request))
        connection.serve()
        assert len(running.lanes.held) == 2

    asyncio.run(main())


def test_data_that_comes_while_a_request_waits_starts_no_deadline():
    async def main():
        running = server.Server(build(), [], lambda: 100.0)
        running.lanes = HeldLanes()
        connection = server.Connection(running, "127.0.0.1")
        connection.connection_made(NoTransport())
        connection.data_received(raw("POST", "/logout"))
        connection.serve()
        connection.data_received(raw("GET", "/"))
        assert connection.deadline == float("inf")

    asyncio.run(main())


def test_a_client_that_does_not_read_while_it_waits_costs_the_others_nothing():
    """Not when it reads again, so that its answer comes, and not when it never does."""

    async def main(reads):
        seconds, sent = [100.0], []
        running = server.Server(build(), [], lambda: seconds[0])
        running.lanes = HeldLanes()
        slow, other = server.Connection(running, "127.0.0.1"), server.Connection(running, "127.0.0.2")
        for connection in (slow, other):
            connection.connection_made(transport := NoTransport())
            transport.write = lambda data, connection=connection: sent.append(connection)
            transport.abort = lambda: None
            connection.data_received(raw("POST", "/logout"))
            connection.serve()
        slow.pause_writing()
        if reads:
            slow.resume_writing()
            assert slow.deadline == float("inf")
        else:
            slow.expire()
        for request, done in running.lanes.held:
            done(server.respond(running.app, request))
        running.flush()
        return sent == [slow, other] if reads else sent == [other]

    assert asyncio.run(main(True)) and asyncio.run(main(False))


def test_the_sweep_finds_what_is_overdue(monkeypatch):
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.001)
    running = Running(build())
    with running.connect() as client:
        wait_until(lambda: running.server.connections)
        (connection,) = running.server.connections
        connection.deadline = 0
        assert read_all(client) == b""
    running.stop()


def test_stopping_closes_idle_connections(running):
    with running.connect() as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0].status == 200
        running.stop()
        assert read_all(client) == b""


def test_a_client_that_keeps_its_side_open_does_not_keep_it_from_stopping(monkeypatch):
    monkeypatch.setattr(server, "SHUTDOWN_SECONDS", 1_000)
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.01)
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.01)
    running = Running(build())
    with running.connect() as client:
        client.sendall(RAW_LOGIN)
        wait_until(lambda: any(each._waiting or each.deadline > 20 for each in running.server.connections))
        running.stop()
        assert answers(client.recv(65_536))[0].status == 200, "and then a reset, since it was told and did not close"


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
