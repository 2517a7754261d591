"""Every exchange of hostile.py over a real socket: whole, byte by byte, and with the next request glued on."""

import socket
from collections import Counter

import pytest
import serverkit
from hostile import APP, CASES, WAITING, answered
from serverkit import RAW_LOGIN, Running, answers, build, read_all

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
        serverkit.stores.clear()  # it outlives this test; the server closes it

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
        """Read to the end, check all that has come, and that somebody else is served."""
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
