"""Throttle: how often a password may be guessed, from where, and whose X-Forwarded-For is believed."""

import ipaddress
import math

import pytest
import server
from serverkit import NOW, Clock, body, build, request
from sessionkit import DAY, PASSWORD, WEEK, attempt, code, enter, faulty

NETWORKS = server._networks


def house(clock=None, **changes):
    app = build(clock, **changes)
    for name in ("ann", "bob"):
        app.accounts.add_user(name, PASSWORD)
    return app


def fail(app, times=10, username="ann", peer="192.0.2.1", **fields):
    """Guess wrongly; return the statuses."""
    return [attempt(app, username, f"wrong {number}", peer, **fields).status for number in range(times)]


def wait_of(answer):
    """The Retry-After of a 429, in seconds."""
    assert (answer.status, body(answer)["code"], code(answer)) == (429, "too_many_failures", "throttled")
    return int(dict(answer.fields)["Retry-After"])


def test_after_ten_failures_waits_grow_from_30_s_to_an_hour():
    clock = Clock()
    app = house(clock)
    assert fail(app) == [406] * 10
    for wait in (30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600):
        assert wait_of(attempt(app, "ann", "wrong", "192.0.2.1")) == wait
        clock.now += wait - 0.5
        assert wait_of(attempt(app, "ann", PASSWORD, "192.0.2.1")) == 1, "not even the right one"
        clock.now += 0.5
        assert attempt(app, "ann", "wrong", "192.0.2.1").status == 406


def test_who_is_turned_away_does_not_wait_any_longer_for_it():
    clock = Clock()
    app = house(clock)
    fail(app)
    for clock.now in range(NOW, NOW + 30):
        assert wait_of(attempt(app, "ann", "wrong", "192.0.2.1")) == NOW + 30 - clock.now
    clock.now = NOW + 30
    assert attempt(app, "ann", PASSWORD, "192.0.2.1").status == 200


def test_the_log_says_whose_account_waits_if_there_is_one():
    app = house(login_max_failures=1)
    for name, logged in (("ann", "ann"), ("a password by mistake", "unknown")):
        refused = [attempt(app, name, "wrong", "192.0.2.1").events[0].fields for _ in range(2)]
        assert [(each["result"], each["user"]) for each in refused] == [
            ("wrong_credentials", logged), ("throttled", logged)]  # fmt: skip


def test_success_clears_the_count():
    app = house()
    for _ in range(5):
        assert fail(app, 9) == [406] * 9
        assert attempt(app, "ann", PASSWORD, "192.0.2.1").status == 200
    assert fail(app, 11) == [406] * 10 + [429]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_the_limit_is_a_setting(limit):
    assert fail(house(login_max_failures=limit), limit + 2) == [406] * limit + [429] * 2


def test_zero_is_off():
    app = house(login_max_failures=0)
    assert fail(app, 100) == [406] * 100
    assert attempt(app, "ann", PASSWORD, "192.0.2.1").status == 200


OTHERS = [  # (who failed from where, who then tries from where, whether that one has to wait)
    ("the same", "ann", "192.0.2.1", "ann", "192.0.2.1", True),
    ("another account", "ann", "192.0.2.1", "bob", "192.0.2.1", False),
    ("another address", "ann", "192.0.2.1", "ann", "192.0.2.2", False),
    ("a name that does not exist", "nobody", "192.0.2.1", "nobody", "192.0.2.1", True),
    ("another that does not exist", "nobody", "192.0.2.1", "no one", "192.0.2.1", False),
    ("an empty name", "", "192.0.2.1", "", "192.0.2.1", True),
    ("the same written in another Unicode form", "\xe9va", "192.0.2.1", "e\u0301va", "192.0.2.1", True),
    ("IPv6, the same", "ann", "2001:db8::1", "ann", "2001:db8::1", True),
    ("IPv6, the same /64", "ann", "2001:db8::1", "ann", "2001:db8::ffff:1:2:3", True),
    ("IPv6, the next /64", "ann", "2001:db8::1", "ann", "2001:db8:0:1::1", False),
    ("IPv4 written as IPv6", "ann", "192.0.2.1", "ann", "::ffff:192.0.2.1", True),
    ("another IPv4 written as IPv6", "ann", "::ffff:192.0.2.1", "ann", "::ffff:192.0.2.2", False),
    ("IPv6 whose digits look like IPv4 and a name", "abcdann", "32.1.13.184", "ann", "2001:db8:6162:6364::1", False),
]


@pytest.mark.parametrize("failed, there, name, here, waits", [pytest.param(*case[1:], id=case[0]) for case in OTHERS])
def test_only_the_same_account_from_the_same_place_waits(failed, there, name, here, waits):
    app = house()
    assert fail(app, 10, failed, there) == [406] * 10
    assert attempt(app, name, "wrong", here).status == (429 if waits else 406)


def test_nobody_can_tell_from_the_throttle_which_names_exist():
    seen = []
    for name in ("ann", "nobody", "admin"):
        clock, found = Clock(), []
        app = house(clock)
        for step in (0,) * 12 + (30, 0, 59, 1, 0):
            clock.now += step
            answer = attempt(app, name, "wrong", "192.0.2.1")
            found.append((answer.status, answer.body, answer.fields))
        seen.append(found)
    assert seen[0] == seen[1] == seen[2]


def test_forty_students_behind_one_address_never_lock_each_other_out():
    app = build()
    names = [f"student{number}" for number in range(40)]
    for name in names:
        app.accounts.add_user(name, PASSWORD)
    for _ in range(9):
        for name in names:
            assert attempt(app, name, "wrong one", "192.0.2.1").status == 406
    assert {attempt(app, name, PASSWORD, "192.0.2.1").status for name in names} == {200}
    fail(app, 20, names[0])
    assert [attempt(app, name, PASSWORD, "192.0.2.1").status for name in names] == [429] + [200] * 39


def test_failures_are_forgotten_after_a_day():
    clock = Clock()
    app = house(clock)
    assert fail(app, 9) == [406] * 9
    clock.now += DAY + 1
    assert fail(app, 10) == [406] * 10, "nine of yesterday do not count"
    clock.now += DAY + 3_601
    assert fail(app, 11) == [406] * 10 + [429]
    assert wait_of(attempt(app, "ann", "wrong", "192.0.2.1")) == 30, "and the waits are short again"


@pytest.mark.parametrize("seconds", [10, 3_600, DAY, WEEK, 20 * 365 * DAY])
@pytest.mark.parametrize("failures", [3, 10, 20])
def test_a_clock_that_goes_back_locks_nobody_out(failures, seconds):
    """Not for longer than the longest wait."""
    clock = Clock()
    app = house(clock)
    for _ in range(failures):
        attempt(app, "ann", "wrong", "192.0.2.1")
        clock.now += 0 if failures < 20 else 3_600
    clock.now -= seconds
    answer = attempt(app, "ann", PASSWORD, "192.0.2.1")
    if answer.status == 429:
        assert 0 < wait_of(answer) <= server.LAST_WAIT_SECONDS
        clock.now += wait_of(answer)
        answer = attempt(app, "ann", PASSWORD, "192.0.2.1")
    assert answer.status == 200


def test_the_rows_are_bounded_and_the_oldest_go_first(monkeypatch):
    monkeypatch.setattr(server, "MAX_FAILURE_ROWS", 50)
    clock = Clock()
    app = house(clock)
    fail(app, 10, "first")
    for number in range(200):
        clock.now += 0.001
        attempt(app, f"name {number}", "wrong", "192.0.2.1")
    assert app.store._rows("SELECT count(*) FROM failure")[0][0] <= 51
    assert fail(app, 1, "first") == [406], "it was the oldest"
    assert fail(app, 10, "name 199") == [406] * 9 + [429], "it was the youngest"


def test_old_rows_are_found_by_their_index(monkeypatch):
    statements, kind = [], faulty(monkeypatch)
    kind.before = staticmethod(lambda connection, statement: statements.append(statement))
    app = house()
    fail(app, 1)
    (delete,) = [statement for statement in statements if statement.startswith("DELETE FROM failure WHERE key IN")]
    plan = app.store._connection().execute("EXPLAIN QUERY PLAN " + delete, (0, 0)).fetchall()
    assert any("SEARCH" in row[3] and "failure_expires (expires<?)" in row[3] for row in plan)


def test_expired_rows_go():
    clock = Clock()
    app = house(clock)
    for number in range(20):
        attempt(app, f"name {number}", "wrong", "192.0.2.1")
    clock.now += 2 * DAY
    fail(app, 20, "ann")
    assert app.store._rows("SELECT count(*) FROM failure")[0][0] < 15


def test_neither_names_nor_addresses_are_stored():
    app = house()
    attempt(app, "hunter2 in the wrong field", "wrong", "192.0.2.1")
    ((key,),) = app.store._rows("SELECT key FROM failure")
    assert b"hunter" not in key and ipaddress.ip_address("192.0.2.1").packed not in key


TOO_MUCH = [
    ("a name of 256 bytes", "x" * 256, PASSWORD),
    ("a name of 128 letters of two bytes", "\xe9" * 128, PASSWORD),
    ("a password of 1,025 bytes", "ann", "x" * 1_025),
    ("a password of 513 letters of two bytes", "ann", "\xe9" * 513),
]


@pytest.mark.parametrize("username, password", [pytest.param(*case[1:], id=case[0]) for case in TOO_MUCH])
def test_what_is_too_long_is_refused_before_any_work_and_is_not_counted(monkeypatch, username, password):
    app = house()
    monkeypatch.setattr(server, "check_password", lambda *anything: 1 / 0)
    for _ in range(20):
        answer = attempt(app, username, password)
        assert (answer.status, body(answer)) == (406, {"message": "Invalid credentials"})
    assert app.store._rows("SELECT * FROM failure") == []


# -- X-Forwarded-For

P = "10.0.0.1"  # a trusted proxy
FORWARDED = [  # (the peer, X-Forwarded-For or None, trusted, who is meant)
    ("no proxy, no field", "192.0.2.1", None, "", "192.0.2.1"),
    ("nobody is trusted", "192.0.2.1", "203.0.113.5", "", "192.0.2.1"),
    ("the peer is not trusted", "192.0.2.1", "203.0.113.5", "10.0.0.0/8", "192.0.2.1"),
    ("the peer is trusted", P, "203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("a single address is trusted", P, "203.0.113.5", "10.0.0.1", "203.0.113.5"),
    ("trusted, without a field", P, None, "10.0.0.0/8", P),
    ("trusted, an empty field", P, "", "10.0.0.0/8", P),
    ("what the client wrote itself is ignored", P, "1.2.3.4, 203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("past two proxies", P, "203.0.113.5, 10.0.0.2", "10.0.0.0/8", "203.0.113.5"),
    ("forged behind two proxies", P, "1.2.3.4, 203.0.113.5, 10.0.0.2", "10.0.0.0/8", "203.0.113.5"),
    ("all are trusted", P, "10.0.0.3, 10.0.0.2", "10.0.0.0/8", P),
    ("rubbish", P, "unknown", "10.0.0.0/8", P),
    ("rubbish to the left", P, "<script>, 203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("a name", P, "localhost", "10.0.0.0/8", P),
    ("spaces and tabs", P, " \t203.0.113.5\t ", "10.0.0.0/8", "203.0.113.5"),
    ("IPv6", P, "2001:db8::1", "10.0.0.0/8", "2001:db8::1"),
    ("an IPv6 proxy", "fd00::1", "203.0.113.5", "fd00::/8", "203.0.113.5"),
    ("an IPv4 proxy on an IPv6 socket", "::ffff:10.0.0.1", "203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("IPv4 in IPv6 in the field", P, "::ffff:203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("two networks", P, "203.0.113.5, fd00::9", "10.0.0.0/8, fd00::/8", "203.0.113.5"),
    ("a thousand hops", P, "203.0.113.5" + ", 10.0.0.2" * 1_000, "10.0.0.0/8", "203.0.113.5"),
]


@pytest.mark.parametrize("peer, field, trusted, meant", [pytest.param(*case[1:], id=case[0]) for case in FORWARDED])
def test_whose_word_is_taken_for_the_clients_address(peer, field, trusted, meant):
    fields = {} if field is None else {"x_forwarded_for": field}
    found = server.client_address(request(**fields).fields, server.parse_address(peer), NETWORKS(trusted))
    assert str(found) == meant
    log = []
    app = build(log=log, trusted_proxies=NETWORKS(trusted))
    assert dict(attempt(app, "ann", "wrong", peer, **fields).events[0].fields)["address"] == meant


def test_several_lines_of_x_forwarded_for_are_one():
    head = (
        f"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 203.0.113.5\r\nX-Forwarded-For: {P}"
    )
    parsed, _ = server.parse_head(head.encode(), server.parse_address(P), NETWORKS("10.0.0.0/8"))
    assert str(parsed.client) == "203.0.113.5"


def test_behind_a_trusted_proxy_each_client_is_throttled_alone():
    app = house(trusted_proxies=NETWORKS("10.0.0.0/8"))
    assert fail(app, 11, peer=P, x_forwarded_for="203.0.113.5") == [406] * 10 + [429]
    assert attempt(app, "ann", PASSWORD, P, x_forwarded_for="203.0.113.6").status == 200
    assert attempt(app, "ann", PASSWORD, P, x_forwarded_for="203.0.113.6, 203.0.113.5").status == 429


def test_without_trusted_proxies_a_client_cannot_escape_by_the_field():
    app = house()
    statuses = [attempt(app, "ann", "no", "192.0.2.1", x_forwarded_for=f"203.0.113.{n}").status for n in range(12)]
    assert statuses == [406] * 10 + [429] * 2
    assert enter(app), "nor lock out anybody else"


def test_retry_after_is_rounded_up():
    clock = Clock()
    app = house(clock)
    fail(app)
    for elapsed in (0.1, 0.9, 29.0, 29.9):
        clock.now = NOW + elapsed
        assert wait_of(attempt(app, "ann", "x", "192.0.2.1")) == math.ceil(30 - elapsed)
