"""Conversation: one client's exchanges, as values and over sockets, under our server and the standard library's."""

import random
import socket
import threading
import time
from collections import Counter
from http.server import ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import server
from data.hostile import APP, CASES, WAITING, answered
from serverkit import FORM, LOGIN, RAW_LOGIN, Running, answers, build, raw, read_all, stores
from sessionkit import PASSWORD, house, raw_login, raw_logout, raw_refresh
# -- what is to happen next, as values


@pytest.fixture
def talk():
    """A conversation with a client whose first bytes are awaited."""
    return server.Client(build(), None, "192.0.2.1").conversation


def last(talk, step, *arguments):
    """Take the last step; return the last answers."""
    with pytest.raises(StopIteration) as end:
        step(*arguments)
    return answers(end.value.value)


def test_bytes_become_a_request_and_a_response_becomes_bytes(talk):
    assert talk.send(RAW_LOGIN[:-1]) == b"", "more is needed"
    request = talk.send(RAW_LOGIN[-1:])
    assert (request.method, request.path, request.body, str(request.address)) == ("POST", "/login", LOGIN, "192.0.2.1")
    (answer,) = answers(talk.send(server.Response(200, b"{}")))
    assert (answer.status, answer.body, answer["Connection"]) == (200, b"{}", None)
    assert talk.send(None) == b"", "nothing else is here"
    assert last(talk, talk.send, b"") == []


def test_requests_that_came_together_are_answered_one_after_the_other(talk):
    request = talk.send(raw("GET", "/a") + raw("GET", "/b", b"", "Connection: close") + raw("GET", "/c"))
    assert request.path == "/a"
    assert answers(talk.send(server.Response(204)))[0].status == 204
    assert talk.send(None).path == "/b"
    (answer,) = last(talk, talk.send, server.Response(204))
    assert (answer.status, answer["Connection"]) == (204, "close")


def test_a_client_that_says_nothing_is_left_in_silence(talk):
    assert last(talk, talk.throw, TimeoutError) == []


def test_a_client_that_has_begun_is_told_what_is_missing(talk):
    talk.send(RAW_LOGIN[:20])
    (answer,) = last(talk, talk.throw, TimeoutError)
    assert (answer.status, answer.json["code"], answer["Connection"]) == (408, "timeout", "close")


def test_a_request_that_is_not_whole_at_the_end_is_an_error(talk):
    talk.send(RAW_LOGIN[:-1])
    (answer,) = last(talk, talk.send, b"")
    assert (answer.status, answer.json["code"]) == (400, "incomplete")


def test_a_client_that_waits_for_100_continue_gets_it_once(talk):
    head = raw("POST", "/login", b"", f"Content-Type: {FORM}", f"Content-Length: {len(LOGIN)}", "Expect: 100-continue")
    assert talk.send(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert talk.send(None) == talk.send(LOGIN[:5]) == b""
    assert talk.send(LOGIN[5:]).body == LOGIN


@pytest.mark.parametrize("path, status", [("/nothing", 404), ("/me", 405)])
def test_a_body_that_would_be_refused_is_not_asked_for(talk, path, status):
    (answer,) = last(talk, talk.send, raw("POST", path, b"", "Content-Length: 5", "Expect: 100-continue"))
    assert (answer.status, answer["Connection"]) == (status, "close")


# -- every exchange of data/hostile.py: whole, byte by byte, and with the next request glued on

LOGGED_IN = answered(200, "accessToken", Set_Cookie=True)

COMMON = {
    "Date": "Fri, 15 Jan 2027 08:00:00 GMT",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Server": None,
}

MAX_SINGLE_BYTES = 600  # what is longer is not cut everywhere

TURNS = 2  # of the event loop: in the first a byte arrives, in the second it is looked at


def pieces(data):
    """Every byte on its own; of what is long the first ones, those at line ends, and the last one."""
    cuts = range(len(data) + 1)
    if len(data) > MAX_SINGLE_BYTES:
        ends = [at for at in cuts[1:] if data[at - 1] in b"\r\n"]
        cuts = sorted({*cuts[:9], *ends[:6], *ends[-6:], *cuts[-2:]})
    return [data[start:end] for start, end in zip(cuts, cuts[1:])]


def said(answer):
    """What an answer comes down to: its code, or its message if it has no code, or the name of what it hands out."""
    if not answer.body or not answer["Content-Type"].startswith("application/json"):
        return answer.body.decode("ascii")
    return answer.json.get("code") or answer.json.get("message") or next(iter(answer.json))


def check_answer(answer, expected):
    assert (answer.status, said(answer)) == (expected.status, expected.says)
    if answer.status == 100:
        assert answer.fields == [] and not expected.closes
        return
    assert {name: answer[name] for name in COMMON} == COMMON
    assert answer["Content-Security-Policy"].startswith("default-src 'none'")
    assert (answer["Connection"] == "close") is expected.closes
    fields = {}
    for name, value in answer.fields:
        assert name not in fields or name == "Vary", "only a list may be in several lines"
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    for name, value in expected.fields.items():
        assert name in fields if value is True else fields.get(name) == value, name


class Wire:
    """A running server, and its log of who has logged in."""

    def __init__(self, **changes):
        self.log = []
        self.running = Running(build(log=self.log, login_max_failures=0, **changes))
        stores.clear()  # it outlives this test; the server closes it

    def client(self):
        self.log.clear()
        client = self.running.connect()
        client.settimeout(10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def _trickle(self, client, parts):
        """On the server's own loop: send each part when it has looked at the one before."""
        for part in parts:
            client.sendall(part)
            for _ in range(TURNS):
                yield

    def exchange(self, case, parts, glued=()):
        """Send `parts`; what comes back must be as expected, followed by `glued`."""
        with self.client() as client:
            self.running.turns(self._trickle(client, parts))
            self.finish(case, client, b"", glued)

    def finish(self, case, client, data, glued=()):
        """Read to the end, check all that has come, and that another client is served."""
        if not closes(case) or incomplete(case):
            client.shutdown(socket.SHUT_WR)
        data += read_all(client)
        assert all(0x20 <= byte < 0x7F for byte in data.replace(b"\r\n", b"")), "no control character comes back"
        assert b"planted" not in data
        found, expected = answers(data, heads_only=case.data.startswith(b"HEAD ")), [*case.expected, *glued]
        assert [answer.status for answer in found] == [each.status for each in expected]
        for answer, each in zip(found, expected):
            check_answer(answer, each)
        logins = [event for event in self.log if event.name == "login" and event.fields["result"] == "ok"]
        assert len(logins) == sum((answer["Set-Cookie"] or "").startswith("jwt=eyJ") for answer in found)
        (other,) = answers(self.running.exchange(RAW_LOGIN))
        check_answer(other, *LOGGED_IN)


@pytest.fixture(scope="module")
def wires():
    """Two servers for all cases; `wires(case)` is the one that it is for."""
    plain, shared = Wire(), Wire(allowed_origins=(APP,))
    yield lambda case: shared if case.group == "CORS" else plain
    for wire in (plain, shared):
        wire.running.stop()


def closes(case):
    return bool(case.expected) and case.expected[-1].closes


def incomplete(case):
    return bool(case.expected) and case.expected[-1].says == "incomplete"


def each(cases):
    return pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.group}: {case.name}") for case in cases])


@each(CASES)
def test_an_exchange_in_one_piece(wires, case):
    wires(case).exchange(case, [case.data])


@each(CASES)
def test_an_exchange_byte_by_byte(wires, case):
    wires(case).exchange(case, pieces(case.data))


@each(case for case in CASES if not incomplete(case))
def test_the_next_request_is_answered_if_the_connection_stays_open_and_only_then(wires, case):
    wires(case).exchange(case, [case.data + RAW_LOGIN], [] if closes(case) else LOGGED_IN)


@each(WAITING)
def test_a_client_that_waits_is_asked_for_the_body_or_told_why_not(wires, case):
    head, _, body = case.data.partition(b"\r\n\r\n")
    with wires(case).client() as client:
        client.sendall(head + b"\r\n\r\n")
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65_536) or pytest.fail("closed without a word")
        if data.startswith(b"HTTP/1.1 100 "):
            client.sendall(body if closes(case) else body + RAW_LOGIN)
        wires(case).finish(case, client, data, [] if closes(case) else LOGGED_IN)


def test_the_table_is_what_it_says():
    """Many cases, each with a name and bytes of its own; the groups are all there."""
    everything = CASES + WAITING
    assert len(everything) >= 350 and min(Counter(case.group for case in everything).values()) >= 10
    assert len({(case.group, case.name) for case in everything}) == len(everything)
    assert len({case.data for case in everything}) == len(everything)


# -- under our server


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
    ("a body that was not asked for", raw("GET", "/", b"body") + raw("GET", "/"), [200, 200]),
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


# -- under the standard library's server


@pytest.fixture
def stock(request):
    app = getattr(request, "param", build)()
    stock = ThreadingHTTPServer(("127.0.0.1", 0), server.handler_for(app))
    thread = threading.Thread(target=stock.serve_forever, args=(0.01,))
    thread.start()
    yield stock
    stock.shutdown()
    thread.join()
    stock.server_close()


def exchange(stock, *pieces):
    with socket.create_connection(stock.server_address, timeout=10) as client:
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        return answers(read_all(client))


def test_the_handler_runs_under_the_stock_server(stock):
    (login,) = exchange(stock, RAW_LOGIN)
    assert login.status == 200 and login["Connection"] == "close"
    cookie = login["Set-Cookie"].partition(";")[0]
    (refresh,) = exchange(stock, raw("POST", "/refresh", b"", f"Cookie: {cookie}"))
    assert refresh.status == 200 and list(refresh.json) == ["accessToken"]


def test_the_stock_server_reads_a_request_in_pieces(stock):
    (answer,) = exchange(stock, *(RAW_LOGIN[i : i + 1] for i in range(len(RAW_LOGIN))))
    assert answer.status == 200


@pytest.mark.parametrize(
    "data, status",
    [
        (b"hello\r\n\r\n", 400),
        (RAW_LOGIN[:-1], 400),
        (raw("GET", "/nothing"), 404),
        (raw("POST", "/login", LOGIN), 406),
    ],
)
def test_the_stock_server_gives_our_errors(stock, data, status):
    (answer,) = exchange(stock, data)
    assert answer.status == status and "message" in answer.json and answer["Server"] is None


def test_nothing_sent_is_nothing_answered(stock):
    assert exchange(stock) == []


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


def test_under_the_stock_server_a_request_that_trickles_in_is_ended(monkeypatch):
    handler, seconds = server.handler_for(build()), iter([0.0, 9.0, 11.0])
    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: next(seconds), time=time.time))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(RAW_LOGIN[:20])
        handler(theirs, ("127.0.0.1", 1), None)
        (answer,) = answers(ours.recv(65_536))
    assert (answer.status, answer.json["code"], answer["Connection"]) == (408, "timeout", "close")


@pytest.mark.parametrize("stock", [lambda: house()], indirect=True)
def test_under_the_stock_server_all_of_it_works_as_well(stock):
    (login,) = exchange(stock, raw_login("ann", PASSWORD))
    token = login["Set-Cookie"].partition(";")[0].partition("=")[2]
    found = [exchange(stock, raw_refresh(token))[0] for _ in range(2)]
    assert login.status == 200 and found[0]["Set-Cookie"] == found[1]["Set-Cookie"]
    assert [exchange(stock, each(token))[0].status for each in (raw_logout, raw_refresh)] == [204, 406]


# -- the access log


def test_with_the_access_log_on_every_request_is_one_line():
    log = []
    running = Running(build(log=log, access_log=True))
    running.exchange(raw("GET", "/nothing?secret=1") + b"hello\r\n\r\n")
    running.exchange(raw("POST", "/login?secret=1", b"", "Content-Length: 20000"))
    running.stop()
    assert [(event.name, dict(event.fields)) for event in log] == [
        ("request", {"method": "GET", "path": "/nothing", "status": "404", "address": "127.0.0.1"}),
        ("request", {"method": "unknown", "path": "unknown", "status": "400", "address": "127.0.0.1"}),
        ("request", {"method": "POST", "path": "/login", "status": "413", "address": "127.0.0.1"}),
    ]


def test_the_access_log_is_off_unless_it_is_switched_on():
    log = []
    running = Running(build(log=log))
    running.exchange(raw("GET", "/"))
    running.stop()
    assert log == []
