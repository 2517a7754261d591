"""Lanes: password work and writing happen beside the loop; a commit that fails fails for all requests in it."""

import contextlib
import ipaddress
import os
import select
import socket
import sqlite3
import threading

import pytest
import server
import serverkit
from serverkit import CHEAP, Running, answers, build, cookie_of, raw, wait_until
from sessionkit import (
    PASSWORD, Gate, claims_of, enter, faulty, follow, house, in_threads, raw_login, raw_logout, raw_refresh, use,
    works,
)  # fmt: skip


def from_place(running, number):
    return socket.create_connection(running.address, timeout=20, source_address=(f"127.0.0.{number}", 0))


def crowd(count, **changes):
    """A server with users of one password, user0 to the last one."""
    app = house(login_max_failures=0, **changes)
    stored = server.hash_password(PASSWORD, CHEAP)
    for number in range(count):
        app.store.add_user(f"user{number}", stored, "e")
    return app


# -- who is next


def waiting(place, account="", number=0):
    """A login of `account` from `place`, both letters."""
    return server.HashJob(None, number, place.encode(), account.encode())


def turns(queue, count=100):
    """Take logins, each after the one before was hashed; return their places."""
    found = []
    while len(found) < count and (login := queue.take()):
        queue.done(login)
        found.append(login.place.decode())
    return "".join(found)


def test_the_places_take_turns():
    queue = server.HashQueue()
    for place in "AAAAAABBC":
        assert queue.put(waiting(place)) is None
    assert turns(queue) == "ABCABAAAA"
    assert queue.take() is None


def test_a_place_waits_for_at_most_one_hash_of_each_other_place():
    """Though the others come again as soon as they have been served, with one login or with many."""
    for other in ("B", "BCD"):
        queue = server.HashQueue()
        for place in other * 3 + "A" + other * 3:
            queue.put(waiting(place))
        seen = ""
        for number in range(60):
            login = queue.take()
            seen += login.place.decode()
            queue.put(waiting(other[number % len(other)]))
            queue.done(login)
            if login.place == b"A":
                queue.put(waiting("A"))
        assert max(map(len, seen.split("A"))) <= len(other), seen


def test_a_place_that_adds_logins_keeps_its_turn():
    queue, seen = server.HashQueue(), ""
    for number in range(60):
        queue.put(waiting("A"))
        queue.put(waiting("BCDE"[number % 4]))
        seen += turns(queue, 1)
    assert max(map(len, seen.split("A"))) <= 4, seen


def test_attempts_of_one_account_from_one_place_are_hashed_one_after_the_other():
    queue = server.HashQueue()
    for number in range(3):
        queue.put(waiting("A", "ann", number))
    queue.put(waiting("A", "bob"))
    queue.put(waiting("B", "ann"))
    first, other, elsewhere = queue.take(), queue.take(), queue.take()
    assert (first.account, first.request) == (b"ann", 0)
    assert {(each.place, each.account) for each in (other, elsewhere)} == {(b"A", b"bob"), (b"B", b"ann")}
    assert queue.take() is None
    for number in (1, 2):
        queue.done(first)
        first = queue.take()
        assert first.request == number, "in the order in which they came"
        assert queue.take() is None


def test_when_too_many_wait_the_longest_queue_loses_its_newest():
    queue = server.HashQueue()
    for number in range(server.MAX_WAITING_LOGINS - 2):
        assert queue.put(waiting("A", f"{number}", number)) is None
    assert queue.put(waiting("B", "ann")) is None and queue.put(waiting("B", "bob")) is None
    for number in range(3):
        gone = queue.put(waiting("C", f"{number}"))
        assert (gone.place, gone.request) == (b"A", server.MAX_WAITING_LOGINS - 3 - number)
    gone = queue.put(waiting("A", "late", "late"))
    assert gone.request == "late"


def test_of_places_that_have_equally_many_the_one_whose_turn_comes_last_loses():
    queue = server.HashQueue()
    for number in range(server.MAX_WAITING_LOGINS):
        assert queue.put(waiting(chr(65 + number))) is None
    queue.done(queue.take())
    assert queue.put(waiting("A")) is None, "there is room for one"
    assert queue.put(waiting("z")).place == b"z"


def test_a_site_with_thousands_of_places_crowds_out_no_other_site():
    """Of one /48 of IPv6 come logins from ever new places; others still get in, whether they were served before or not."""
    queue, served = server.HashQueue(), server.place_of(ipaddress.ip_address("198.51.100.7"))
    first = server.HashJob(None, 0, served, b"")
    queue.put(first)
    queue.done(queue.take())
    flood = (server.place_of(ipaddress.ip_address(f"2001:db8:1:{number:x}00::1")) for number in range(256))
    for place in flood:
        queue.put(server.HashJob(None, 0, place, b""))
    for honest in (served, *(server.place_of(ipaddress.ip_address(text)) for text in ("203.0.113.9", "2001:db9::1"))):
        assert queue.put(server.HashJob(None, 0, honest, b"")).place.startswith(b"\x06\x20\x01\x0d\xb8")


# -- password work beside the loop


def test_one_place_cannot_have_all_the_logins(monkeypatch):
    seats = server.HASHES_AT_ONCE + server.MAX_WAITING_LOGINS
    app, gate = crowd(seats), Gate(monkeypatch)
    with Running(app) as running, contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(from_place(running, 2)) for _ in range(seats)]
        for number, client in enumerate(greedy):
            client.sendall(raw_login(f"user{number}", PASSWORD))
            if number < server.HASHES_AT_ONCE:
                wait_until(lambda: gate.at_once > number)
        lonely = stack.enter_context(from_place(running, 3))
        lonely.sendall(raw_login("ann", PASSWORD))
        (refused,) = select.select([*greedy, lonely], [], [], 20)[0]
        assert refused in greedy
        (answer,) = answers(refused.recv(65_536))
        assert (answer.status, answer.json["code"], answer["Retry-After"]) == (503, "busy", "1")
        gate.open.set()
        assert answers(lonely.recv(65_536))[0].status == 200
        for client in {*greedy} - {refused}:
            assert answers(client.recv(65_536))[0].status == 200
        refused.sendall(raw_login("ann", PASSWORD))
        assert answers(refused.recv(65_536))[0].status == 200, "and there is room again"


@pytest.mark.parametrize("rotate", [True, False])
def test_of_a_hundred_logins_those_beyond_64_waiting_get_503_and_refresh_goes_on(monkeypatch, rotate):
    app = crowd(100, rotate=rotate)
    token = enter(app)
    gate = Gate(monkeypatch)
    with Running(app) as running:
        clients = [from_place(running, 1 + number % 2) for number in range(100)]
        for number, client in enumerate(clients):
            client.sendall(raw_login(f"user{number}", PASSWORD))
        refused = 100 - server.MAX_WAITING_LOGINS - server.HASHES_AT_ONCE
        told = []

        def listen(number):
            (answer,) = answers(clients[number].recv(65_536))
            told.append(answer)

        threads = [threading.Thread(target=listen, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(told) == refused and gate.at_once == server.HASHES_AT_ONCE)
        assert {(answer.status, answer.json["code"]) for answer in told} == {(503, "busy")}
        assert all(int(answer["Retry-After"]) >= 1 for answer in told)
        for _ in range(20):
            (answer,) = answers(running.exchange(raw_refresh(token)))
            assert answer.status == 200
            token = answer["Set-Cookie"].partition(";")[0][4:] if rotate else token
        assert answers(running.exchange(raw_logout(token)))[0].status == 204
        assert len(told) == refused
        gate.open.set()
        for thread in threads:
            thread.join(30)
        for client in clients:
            client.close()
        assert [answer.status for answer in told[refused:]] == [200] * (100 - refused)
        assert gate.most == server.HASHES_AT_ONCE
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 200, "and there is room again"


@pytest.mark.parametrize("kind", ["memory", "SQLite"])
def test_200_connections_with_one_cookie_get_the_same_successor(monkeypatch, kind):
    monkeypatch.setattr(serverkit, "kinds", [kind])
    app = house()
    token = enter(app)
    with Running(app) as running:
        found = [answers(data)[0] for data in in_threads(200, lambda number: running.exchange(raw_refresh(token)))]
    assert {answer.status for answer in found} == {200}
    (successor,) = {answer["Set-Cookie"] for answer in found}
    assert claims_of(successor.partition(";")[0][4:])["gen"] == 1


def test_a_commit_that_fails_makes_every_answer_of_its_group_a_503_and_keeps_nothing(monkeypatch):
    kind, log, fails = faulty(monkeypatch), [], []

    def before(connection, statement):
        if fails and statement == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")

    kind.before = staticmethod(before)
    app = house(log=log)
    tokens = [enter(app) for _ in range(20)]
    fails.append("always")
    with Running(app) as running:
        found = in_threads(20, lambda number: running.exchange((raw_refresh, raw_logout)[number % 2](tokens[number])))
        for number, data in enumerate(found):
            (answer,) = answers(data)
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
            # A logout deletes the cookie whatever the store says, and nothing else does.
            assert (answer["Set-Cookie"] or "").startswith("jwt=;") is (number % 2 == 1) and answer["Retry-After"]
        fails.clear()
        for token in tokens:
            (answer,) = answers(running.exchange(raw_refresh(token)))
            assert claims_of(answer["Set-Cookie"].partition(";")[0][4:])["gen"] == 1, "no generation was spent"
    assert {event.name for event in log} == {"database"}


def test_the_answers_of_a_group_wait_for_its_commit(monkeypatch):
    kind, gate, waiting = faulty(monkeypatch), threading.Event(), threading.Event()
    app = house()
    tokens = [enter(app) for _ in range(5)]

    def before(connection, statement):
        if statement == "COMMIT" and threading.current_thread().name == "write":
            waiting.set()
            assert gate.wait(30)

    kind.before = staticmethod(before)
    with Running(app) as running:
        clients = [running.connect() for _ in tokens]
        for client, token in zip(clients, tokens):
            client.sendall(raw_refresh(token))
        assert waiting.wait(10)
        assert answers(running.exchange(raw("GET", "/")))[0].status == 200, "the loop does not wait for it"
        for client in clients:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            client.settimeout(20)
        gate.set()
        for client in clients:
            assert answers(client.recv(65_536))[0].status == 200
            client.close()


def test_one_bad_work_in_a_group_leaves_the_others():
    app = house()
    good, stolen, other = (enter(app) for _ in range(3))
    follow(app, follow(app, stolen))
    found = app.store.batch([lambda t=t: use(app, t) for t in (good, stolen, "x", other)])
    assert [answer.status for answer in found] == [200, 406, 406, 200]
    assert works(app, cookie_of(found[0])) and not works(app, stolen) and works(app, cookie_of(found[3]))


def test_pipelined_requests_of_all_lanes_are_answered_in_order():
    app = house()
    token, other = enter(app), enter(app)
    with Running(app) as running:
        data = raw_refresh(token) + raw("GET", "/") + raw_login("ann", PASSWORD) + raw_logout(other)
        data += raw_refresh(other)
        data += raw("GET", "/me") + raw_login("ann", "wrong") + raw_refresh(token)
        statuses = [answer.status for answer in answers(running.exchange_whole(data))]
    assert statuses == [200, 200, 200, 204, 406, 401, 406, 200]


def test_theft_is_ended_by_the_writing_lane_while_rotation_is_off():
    app = house()
    old = enter(app)
    new = follow(app, follow(app, old))
    off = build(store=app.store)
    with Running(off) as running:
        statuses = [answers(running.exchange(raw_refresh(token)))[0].status for token in (new, old, new)]
    assert statuses == [200, 406, 406]


def test_a_client_that_hangs_up_while_it_waits_harms_no_other(monkeypatch):
    app = house(login_max_failures=0)
    gate = Gate(monkeypatch)
    with Running(app) as running:
        for _ in range(5):
            client = running.connect()
            client.sendall(raw_login("ann", PASSWORD))
            wait_until(lambda: gate.calls)
            client.close()
        gate.open.set()
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 200


def test_stopping_finishes_what_is_in_flight(monkeypatch):
    app = house()
    gate = Gate(monkeypatch)
    running = Running(app)
    with running.connect() as client:
        client.sendall(raw_login("ann", PASSWORD))
        wait_until(lambda: gate.at_once == 1)
        running.call(running.server.stop)
        gate.open.set()
        data = b""
        while chunk := client.recv(65_536):
            data += chunk
    (answer,) = answers(data)
    assert (answer.status, answer["Connection"]) == (200, "close")
    running.stop()


def test_forty_parallel_guesses_cost_no_more_hashes_than_failures_are_allowed(monkeypatch):
    gate = Gate(monkeypatch)
    gate.open.set()
    with Running(house(login_max_failures=10)) as running:
        found = in_threads(40, lambda number: answers(running.exchange(raw_login("ann", f"wrong {number}")))[0].status)
    assert (gate.calls, gate.most) == (10, 1)
    assert sorted(found) == [406] * 10 + [429] * 30


def test_forty_right_passwords_at_once_are_forty_logins(monkeypatch):
    monkeypatch.setattr(server, "HASHES_AT_ONCE", 40)
    gate = Gate(monkeypatch)
    gate.open.set()
    with Running(house(login_max_failures=10)) as running:
        found = in_threads(40, lambda number: answers(running.exchange(raw_login("ann", PASSWORD)))[0].status)
    assert found == [200] * 40 and gate.most == 1


def test_what_waits_for_a_thread_has_none(monkeypatch):
    app, gate = crowd(20), Gate(monkeypatch)
    with Running(app) as running, contextlib.ExitStack() as stack:
        for number in range(20):
            stack.enter_context(running.connect()).sendall(raw_login(f"user{number}", PASSWORD))
        wait_until(lambda: gate.at_once == server.HASHES_AT_ONCE)
        assert answers(running.exchange(raw("GET", "/")))[0].status == 200
        assert [each.name for each in threading.enumerate()].count("hash") == server.HASHES_AT_ONCE
        gate.open.set()


def test_a_thread_that_cannot_be_had_is_a_503_and_the_next_one_is_tried(monkeypatch):
    real, failed = threading.Thread.start, []

    def start(thread):
        if thread.name == "hash" and len(failed) < 3:
            failed.append(thread)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    log = []
    with Running(house(log=log)) as running:
        found = [answers(running.exchange(raw_login("ann", PASSWORD)))[0] for _ in range(4)]
    assert [answer.status for answer in found] == [503, 503, 503, 200]
    assert found[0].json["code"] == "unavailable" and found[0]["Retry-After"]
    assert "hash" in [event.name for event in log]


def test_no_more_threads_hash_than_processors_may_be_used():
    assert 1 <= server.HASHES_AT_ONCE <= min(8, max(1, server.PROCESSORS - 1))
    if hasattr(os, "sched_getaffinity"):
        assert server.PROCESSORS == len(os.sched_getaffinity(0))
