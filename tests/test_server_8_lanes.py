"""Lanes: password work and writing happen beside the loop; a commit that fails fails for everybody who was in it."""

import contextlib
import http.server
import select
import socket
import sqlite3
import threading

import pytest
import server
from serverkit import Running, answers, build, cookie_of, raw, wait_until
from sessionkit import (
    PASSWORD, Gate, attempt, claims_of, enter, exchange, faulty, follow, in_threads, leave, raw_login, raw_logout,
    raw_refresh, use, works,
)  # fmt: skip


def house(**changes):
    app = build(**{"rotate_refresh": True, **changes})
    app.accounts.add_user("ann", PASSWORD)
    return app


def from_place(running, number):
    return socket.create_connection(running.address, timeout=20, source_address=(f"127.0.0.{number}", 0))


def test_one_place_cannot_have_all_the_logins(monkeypatch):
    gate = Gate(monkeypatch)
    with Running(house(login_max_failures=0)) as running, contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(from_place(running, 2)) for _ in range(server.MAX_LOGINS_OF_A_PLACE + 1)]
        for client in greedy:
            client.sendall(raw_login("ann", PASSWORD))
        wait_until(lambda: gate.at_once == server.HASHES_AT_ONCE)
        refused = select.select(greedy, [], [], 20)[0]
        (answer,) = answers(refused[0].recv(65_536))
        assert (answer.status, answer.json["code"]) == (503, "busy")
        lonely = stack.enter_context(running.connect())
        lonely.sendall(raw_login("ann", PASSWORD))
        gate.open.set()
        assert answers(lonely.recv(65_536))[0].status == 200
        for client in set(greedy) - set(refused):
            assert answers(client.recv(65_536))[0].status == 200
        refused[0].sendall(raw_login("ann", PASSWORD))
        assert answers(refused[0].recv(65_536))[0].status == 200, "and there is room again"


@pytest.mark.parametrize("rotate", [True, False])
def test_of_a_hundred_logins_those_beyond_64_waiting_get_503_and_refresh_goes_on(monkeypatch, rotate):
    app = house(rotate_refresh=rotate, login_max_failures=0)
    token = enter(app)
    gate = Gate(monkeypatch)
    with Running(app) as running:
        clients = [from_place(running, 1 + number % 2) for number in range(100)]
        for client in clients:
            client.sendall(raw_login("ann", PASSWORD))
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


def test_200_connections_with_one_cookie_get_the_same_successor():
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
        for data in found:
            (answer,) = answers(data)
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
            assert answer["Set-Cookie"] is None and answer["Retry-After"]
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
    found = app.store.group([lambda t=t: use(app, t) for t in (good, stolen, "x", other)])
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


def test_a_client_that_hangs_up_while_it_waits_harms_nobody(monkeypatch):
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


def test_under_the_stock_server_all_of_it_works_as_well():
    app = house()
    token = enter(app)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), server.handler_for(app)) as stock:
        thread = threading.Thread(target=stock.serve_forever, args=(0.01,))
        thread.start()
        try:
            port = stock.server_address[1]
            found = [answers(exchange(port, raw_refresh(token)))[0] for _ in range(2)]
            assert found[0]["Set-Cookie"] == found[1]["Set-Cookie"]
            assert answers(exchange(port, raw_logout(token)))[0].status == 204
            assert answers(exchange(port, raw_refresh(token)))[0].status == 406
            assert answers(exchange(port, raw_login("ann", PASSWORD)))[0].status == 200
        finally:
            stock.shutdown()
            thread.join(20)


def test_forty_parallel_guesses_cost_no_more_hashes_than_failures_are_allowed(monkeypatch):
    app = house(login_max_failures=10)
    gate = Gate(monkeypatch)
    gate.open.set()
    with Running(app) as running:
        found = in_threads(40, lambda number: answers(running.exchange(raw_login("ann", f"wrong {number}")))[0].status)
    assert gate.calls == 10
    assert sorted(found) == [406] * 10 + [429] * 30


def test_fifty_parallel_guesses_without_the_loop_cost_no_more_either(monkeypatch):
    app = house(login_max_failures=10)
    gate = Gate(monkeypatch)
    gate.open.set()

    def one(number):
        status = attempt(app, "ann", f"wrong {number}").status
        app.store.close()
        return status

    assert sorted(in_threads(50, one)) == [406] * 10 + [429] * 40
    assert gate.calls == 10
    assert leave(app).status == 204
