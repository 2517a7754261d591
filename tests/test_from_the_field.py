"""The faults from the field: one section for each of the 27 that operators, attackers and bug reports have shown.

The other files follow the rooms of server.py, this one the numbers of that list. In every section there is a test that
was red before the fault was mended; the others say where the mechanism ends.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import dist
import minijwt
import pytest
import pythons
import server
from serverkit import (
    ACCESS, CHEAP, FORM, LOGIN, NOW, RAW_LOGIN, REFRESH, TOP, Clock, Process, Running, Timed, answers, body, build,
    cookie_of, found, free_port, in_front, login, post, raw, read_all, request, settings, wait_until,
)  # fmt: skip
from sessionkit import (
    DAY, PASSWORD, SECRETS, Gate, add_cheaply, attempt, claims_of, code, command, credentials, enter, faulty, follow,
    in_threads, leave, raw_login, raw_logout, raw_refresh, sign, use, works,
)  # fmt: skip

PEM = str(TOP / "tests" / "localhost.pem")
DEPLOY = TOP / "tests" / "deploy"
README = (TOP / "README.md").read_text("utf-8")
ORIGIN = "https://app.example"
AS_ROOT = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can give files away")


def with_ann(clock=None, **changes):
    """A server with a user of its own."""
    app = build(clock, **changes)
    if "ann" not in app.store.user_names():
        app.accounts.add_user("ann", PASSWORD)
    return app


def me(app, token):
    return server.respond(app, request("GET", "/me", authorization=f"Bearer {token}"))


def access_token(now, secret=ACCESS):
    return minijwt.encode({"username": "ann", "iat": now, "exp": now + 600}, secret)


@pytest.fixture
def says(tmp_path, monkeypatch, capfd):
    """Run a command of server.py in this process and in a directory of its own; return its status and what it says.

    A server that would serve stops when it has started.
    """
    handlers, sockets, listen = list(server.logger.root.handlers), [], server.listen
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "serve_until_signalled", lambda *anything: None)
    monkeypatch.setattr(server, "listen", lambda *where: sockets.extend(listen(*where)) or sockets[-1:])
    for name in server.VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, **environment):
        with monkeypatch.context() as patch:
            for name, value in {"PORT": "0", **environment}.items():
                patch.setenv(name, value)
            try:
                status = server.main(list(arguments))
            except SystemExit as end:
                status = end.code
        out, err = capfd.readouterr()
        return status, out + err

    yield run
    for each in sockets:
        each.close()
    server.logger.root.handlers[:] = handlers


def through(code):
    """How to start a program with `code` run before it in its process: what is said there of the system is a fake."""
    return sys.executable, "-c", f"{code}\nimport runpy, sys; sys.path[0] = {str(TOP)!r}\n" \
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"  # fmt: skip


def program(*arguments, python=(sys.executable,), directory=".", stdin=b"", **environment):
    """Run `server.py ARGUMENTS`, with bytes at both ends."""
    environment = {"PATH": os.defpath, "PORT": "0", **environment}
    done = subprocess.run(
        [*python, str(TOP / "server.py"), *arguments],
        cwd=directory, env=environment, input=stdin, capture_output=True, timeout=30,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


class Turnstile:
    """Stands in for check_password: hashes begin one after the other, when the test says so."""

    def __init__(self, monkeypatch):
        self.order, self.tickets = [], threading.Semaphore(0)  # the passwords, as they came
        self.real = server.check_password
        monkeypatch.setattr(server, "check_password", self)
        monkeypatch.setattr(server, "HASHES_AT_ONCE", 1)

    def __call__(self, password, stored):
        self.order.append(password)
        assert self.tickets.acquire(timeout=30)
        return self.real(password, stored)

    def let_one_through(self):
        """Let the hash that waits here be made, and wait for the next one, if there is one to come."""
        before = len(self.order)
        self.tickets.release()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: len(self.order) > before, 5)

    def open(self):
        self.tickets.release(1_000)


class Door:
    """Sends logins to a server, each on a connection of its own, as a proxy would: from any place."""

    def __init__(self, running):
        self.running, self.clients = running, []

    def send(self, place, name, password="x"):
        """Send one login, and see that it has its place in the queue."""
        data = raw_login(name, password).replace(b"Host:", f"X-Forwarded-For: {place}\r\nHost:".encode())
        self.clients.append(self.running.connect())
        self.clients[-1].settimeout(5)
        self.clients[-1].sendall(data)
        # What was there before this request is in the queue when it has been answered.
        assert answers(self.running.exchange(raw("GET", "/me")))[0].status == 401
        return self.clients[-1]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for client in self.clients:
            client.close()


def behind_a_proxy(**changes):
    return with_ann(trusted_proxies=server.read_networks("127.0.0.1"), login_max_failures=0, **changes)


@contextlib.contextmanager
def queueing(monkeypatch):
    """A running server that hashes one password at a time, behind a proxy; its turnstile, and its door."""
    turnstile = Turnstile(monkeypatch)
    with Running(behind_a_proxy()) as running, Door(running) as door:
        try:
            yield turnstile, door
        finally:
            turnstile.open()


# ---- 1. Clocks that differ by a second make a logout a lie -----------------------------------------------

AHEAD = [1, 29, 31, 3_600, DAY]  # seconds


@pytest.mark.parametrize("seconds", AHEAD)
@pytest.mark.parametrize("rotate", [True, False])
def test_1_a_logout_ends_a_session_whose_token_comes_from_a_clock_that_is_ahead(seconds, rotate):
    here = with_ann(Clock(NOW), rotate_refresh=rotate)
    there = build(Clock(NOW + seconds), here.store, rotate_refresh=rotate)
    token, other = enter(there), enter(there)
    assert leave(here, token).status == 204
    assert not works(there, token) and works(there, other)
    here.clock.now += seconds
    assert not works(here, token) and works(here, other)


def test_1_a_logout_needs_a_good_signature_and_nothing_else_about_time():
    app = with_ann()
    token = enter(app)
    claims = claims_of(token)
    expired = sign(**{**claims, "iat": NOW - 9 * DAY, "exp": NOW - 8 * DAY})
    assert leave(app, expired).status == 204
    assert not works(app, token), "the same session, whatever that token says about time"
    other = enter(app)
    leave(app, sign(**claims_of(other), secret=b"another secret of thirty-two bytes"))
    assert works(app, other)


def test_1_a_logout_ends_a_session_ahead_that_an_old_secret_has_signed():
    new = b"a new secret of at least thirty-two bytes"
    here = with_ann(refresh_secrets=(new, REFRESH))
    token = enter(build(Clock(NOW + 3), here.store))
    assert leave(here, token).status == 204
    here.clock.now += 3
    assert not works(here, token)


@pytest.mark.parametrize("seconds, good", [(0, True), (1, True), (30, True), (31, False), (3_600, False)])
@pytest.mark.parametrize("rotate", [True, False])
def test_1_refresh_and_me_allow_thirty_seconds_on_iat(seconds, good, rotate):
    here = with_ann(rotate_refresh=rotate)
    there = build(Clock(NOW + seconds), here.store, rotate_refresh=rotate)
    answer = login(there, credentials("ann", PASSWORD))
    assert works(here, cookie_of(answer)) is good
    assert me(here, body(answer)["accessToken"]).status == (200 if good else 401)
    trace = server.respond(here, request("GET", "/explain", authorization="Bearer " + body(answer)["accessToken"]))
    assert body(trace)["valid"] is good, "and the trace says the same"


def test_1_none_is_allowed_on_exp():
    clock = Clock()
    app = with_ann(clock)
    answer = login(app, credentials("ann", PASSWORD))
    for clock.now, good in ((NOW + 599, True), (NOW + 600, False)):
        assert (me(app, body(answer)["accessToken"]).status == 200) is good
    for clock.now, good in ((NOW + DAY - 1, True), (NOW + DAY, False)):
        assert works(app, cookie_of(answer)) is good


# ---- 2. Hash queue starvation ----------------------------------------------------------------------------


def test_2_a_login_waits_for_one_hash_of_a_place_that_fills_the_queue(monkeypatch):
    with queueing(monkeypatch) as (turnstile, door):
        for number in range(48):
            door.send("192.0.2.1", f"nobody {number}", "greedy")
        wait_until(lambda: turnstile.order)
        honest = door.send("198.51.100.7", "ann", PASSWORD)
        for _ in range(2):
            turnstile.let_one_through()
        assert PASSWORD in turnstile.order[:3], "one was being hashed, and one had its turn"
        turnstile.open()
        assert answers(honest.recv(65_536))[0].status == 200


def test_2_two_greedy_places_cost_another_place_one_hash_each_and_no_503(monkeypatch):
    with queueing(monkeypatch) as (turnstile, door):
        greedy = [door.send(f"192.0.2.{1 + number % 2}", f"nobody {number}", "greedy") for number in range(80)]
        wait_until(lambda: turnstile.order)
        honest = door.send("198.51.100.7", "ann", PASSWORD)
        for _ in range(3):
            turnstile.let_one_through()
        assert PASSWORD in turnstile.order[:4]
        turnstile.open()
        assert answers(honest.recv(65_536))[0].status == 200
        statuses = [answers(client.recv(65_536))[0].status for client in greedy]
        assert set(statuses[:32]) == {406} and set(statuses[-14:]) == {503}, "their newest had no room"


def test_2_a_place_that_always_has_one_login_waiting_does_not_go_first_every_time(monkeypatch):
    """Two connections, each of which sends again when it is answered."""
    with queueing(monkeypatch) as (turnstile, door):
        for number in range(2):
            door.send("192.0.2.1", f"nobody {number}", "greedy")
        wait_until(lambda: turnstile.order)
        door.send("198.51.100.7", "ann", PASSWORD)
        for number in range(3):
            turnstile.let_one_through()
            door.send("192.0.2.1", f"nobody {number + 2}", "greedy")
        assert PASSWORD in turnstile.order


def test_2_two_places_with_one_login_each_do_not_keep_a_third_waiting(monkeypatch):
    with queueing(monkeypatch) as (turnstile, door):
        door.send("192.0.2.1", "nobody", "greedy")
        wait_until(lambda: turnstile.order)
        door.send("198.51.100.7", "ann", PASSWORD)
        for number in range(6):
            door.send(f"192.0.2.{2 - number % 2}", f"nobody {number}", "greedy")
            turnstile.let_one_through()
        assert PASSWORD in turnstile.order[:5]


def test_2_a_class_behind_one_address_keeps_its_turns_while_it_grows(monkeypatch):
    with queueing(monkeypatch) as (turnstile, door):
        for number in range(20):
            door.send("192.0.2.1", f"nobody {number}", "greedy")
        wait_until(lambda: turnstile.order)
        door.send("198.51.100.7", "student 0", "class")
        for number in range(6):
            door.send("198.51.100.7", f"student {number + 1}", "class")
            turnstile.let_one_through()
        assert turnstile.order.count("class") >= 3, "every other turn is theirs"


def test_2_when_64_wait_the_longest_queue_loses_its_newest(monkeypatch):
    with queueing(monkeypatch) as (turnstile, door):
        greedy = [door.send("192.0.2.1", f"nobody {number}") for number in range(65)]
        wait_until(lambda: turnstile.order)
        honest = [door.send(f"198.51.100.{number}", "ann", PASSWORD) for number in range(3)]
        for client in reversed(greedy[-3:]):
            (answer,) = answers(client.recv(65_536))
            assert (answer.status, answer.json["code"], answer["Retry-After"]) == (503, "busy", "1")
        newest = door.send("192.0.2.1", "one more")
        assert answers(newest.recv(65_536))[0].status == 503, "not an older one of theirs"
        turnstile.open()
        assert [answers(client.recv(65_536))[0].status for client in honest] == [200] * 3
        assert [answers(client.recv(65_536))[0].status for client in greedy[:-3]] == [406] * 62


def test_2_of_two_longest_queues_the_one_served_last_loses_its_newest(monkeypatch):
    with queueing(monkeypatch) as (turnstile, door):
        one = [door.send("192.0.2.1", f"nobody {number}") for number in range(33)]
        other = [door.send("192.0.2.2", f"nobody {number}") for number in range(32)]
        wait_until(lambda: turnstile.order)
        turnstile.let_one_through()
        one.append(door.send("192.0.2.1", "one more"))
        door.send("198.51.100.7", "ann", PASSWORD)
        assert answers(one[-1].recv(65_536))[0].status == 503, "32 of each waited, and 192.0.2.1 was served last"
        turnstile.open()
        assert [answers(client.recv(65_536))[0].status for client in other] == [406] * 32


def test_2_of_places_with_one_login_each_it_is_not_the_newcomer_who_has_to_go(monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING_LOGINS", 2)
    with queueing(monkeypatch) as (turnstile, door):
        door.send("192.0.2.1", "nobody")
        wait_until(lambda: turnstile.order)
        door.send("192.0.2.2", "nobody")
        greedy = door.send("192.0.2.1", "nobody else")
        newcomer = door.send("198.51.100.7", "ann", PASSWORD)
        assert answers(greedy.recv(65_536))[0].status == 503, "it was served last"
        turnstile.open()
        assert answers(newcomer.recv(65_536))[0].status == 200


def test_2_a_site_with_many_ipv6_addresses_is_one_place_in_the_queue(monkeypatch):
    """The queue is by the client's place, not by the proxy's."""
    with queueing(monkeypatch) as (turnstile, door):
        first = [door.send("[2001:db8:0:1::1]:4711", f"nobody {number}", "greedy") for number in range(3)]
        first += [door.send("2001:db8:0:2::2", f"nobody {number}", "greedy") for number in range(3)]
        wait_until(lambda: turnstile.order)
        door.send("2001:db8:0:100::1", "ann", PASSWORD)
        turnstile.let_one_through()
        turnstile.let_one_through()
        assert PASSWORD in turnstile.order[:3]


PLACES = [  # (two addresses, whether they are one place)
    ("192.0.2.1", "192.0.2.1", True),
    ("192.0.2.1", "192.0.2.2", False),
    ("192.0.2.1", "::ffff:192.0.2.1", True),
    ("192.0.2.1", "64:ff9b::c000:201", True),
    ("64:ff9b::c000:201", "64:ff9b::c000:202", False),
    ("64:ff9b:1::c000:201", "64:ff9b:1::c000:202", True),
    ("2001:db8::1", "2001:db8:0:ff:ffff::1", True),
    ("2001:db8::1", "2001:db8:0:100::1", False),
    ("fe80::1", "fe80::2", False),
    ("fe80::1%eth0", "fe80::1", True),
    ("fd00::1", "fd00:0:0:ff::1", True),
    ("fd00::1", "fd00:0:0:100::1", False),
    ("c000:201::", "192.0.2.1", False),
]


@pytest.mark.parametrize("one, other, same", PLACES)
def test_2_a_place_is_an_ipv4_address_or_a_56_of_ipv6_or_a_link_local_address(one, other, same):
    places = [server.place_of(server.parse_address(each)) for each in (one, other)]
    assert (places[0] == places[1]) is same


# ---- 3. Right passwords get 429 --------------------------------------------------------------------------


def statuses_of(running, logins):
    """The statuses of logins that are sent at once, in order."""
    return [answers(data)[0].status for data in in_threads(len(logins), lambda each: running.exchange(logins[each]))]


@pytest.mark.parametrize("limit", [1, 10])
def test_3_forty_right_logins_of_one_account_at_once_are_forty_logins(monkeypatch, limit):
    monkeypatch.setattr(server, "HASHES_AT_ONCE", 16)
    gate = Gate(monkeypatch)
    gate.open.set()
    with Running(with_ann(login_max_failures=limit)) as running:
        assert statuses_of(running, [raw_login("ann", PASSWORD)] * 40) == [200] * 40
    assert gate.most == 1, "one after the other"


def test_3_two_instances_on_one_database_let_all_of_them_in(monkeypatch):
    monkeypatch.setattr(server, "HASHES_AT_ONCE", 16)
    one = with_ann()
    other = build(store=server.SQLiteStore(one.store.path, one.clock))
    with Running(one) as here, Running(other) as there:
        found = in_threads(60, lambda each: (here, there)[each % 2].exchange(raw_login("ann", PASSWORD)))
    other.store.close()
    assert [answers(data)[0].status for data in found] == [200] * 60


def test_3_of_forty_wrong_ones_ten_are_hashed_and_the_rest_get_429(monkeypatch):
    monkeypatch.setattr(server, "HASHES_AT_ONCE", 16)
    gate = Gate(monkeypatch)
    gate.open.set()
    with Running(with_ann()) as running:
        found = statuses_of(running, [raw_login("ann", f"wrong {number}") for number in range(40)])
        assert sorted(found) == [406] * 10 + [429] * 30 and gate.calls == 10
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 429


def test_3_attempts_of_one_account_wait_without_a_thread_and_hold_up_no_other_account(monkeypatch):
    monkeypatch.setattr(server, "HASHES_AT_ONCE", 16)
    gate = Gate(monkeypatch)
    with Running(behind_a_proxy()) as running, Door(running) as door:
        many = [door.send("192.0.2.1", "ann", PASSWORD) for _ in range(20)]
        wait_until(lambda: gate.at_once == 1)
        others = [door.send("192.0.2.1", "bob"), door.send("192.0.2.2", "ann", PASSWORD)]
        wait_until(lambda: gate.at_once == 3)
        assert [each.name for each in threading.enumerate()].count("hash") == 3
        gate.open.set()
        assert [answers(each.recv(65_536))[0].status for each in many + others] == [200] * 20 + [406, 200]


def test_3_changes_of_a_password_wait_in_the_same_queue_as_logins(monkeypatch):
    monkeypatch.setattr(server, "HASHES_AT_ONCE", 16)
    gate = Gate(monkeypatch)
    with Running(with_ann(login_max_failures=1)) as running:
        threads = 20
        data = [raw_login("ann", PASSWORD), raw_password("ann", PASSWORD, PASSWORD)] * (threads // 2)
        gate.open.set()
        assert sorted(statuses_of(running, data)) == [200] * (threads // 2) + [204] * (threads // 2)
    assert gate.most == 1


def test_3_an_attempt_that_hangs_up_does_not_lock_its_account(monkeypatch):
    gate = Gate(monkeypatch)
    with Running(with_ann(login_max_failures=1)) as running:
        for _ in range(3):
            with running.connect() as client:
                client.sendall(raw_login("ann", PASSWORD))
                wait_until(lambda: gate.calls)
        gate.open.set()
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 200


# ---- 4. Sized by the machine, not by what it may use -----------------------------------------------------


def fresh_server():
    """server.py, loaded once more: what it reads of the machine it reads now."""
    spec = importlib.util.spec_from_file_location("fresh_server", TOP / "server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("allowed, hashes", [(1, 1), (2, 1), (3, 2), (9, 8), (17, 8), (128, 8)])
def test_4_there_are_no_more_hash_threads_than_processors_it_may_use_and_never_more_than_eight(
    monkeypatch, allowed, hashes
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    assert fresh_server().HASHES_AT_ONCE == hashes


@pytest.mark.parametrize("count, hashes", [(None, 1), (4, 3), (64, 8)])
def test_4_where_there_is_no_affinity_the_machine_is_asked(monkeypatch, count, hashes):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert fresh_server().HASHES_AT_ONCE == hashes


def no_thread(self):
    raise RuntimeError("can't start new thread")


def test_4_without_threads_a_login_is_a_503_and_with_threads_again_it_is_a_login(monkeypatch, caplog):
    log = []
    with Running(with_ann(log=log)) as running:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            for data in (raw_login("ann", PASSWORD), raw_password("ann", PASSWORD, "another one")):
                (answer,) = answers(running.exchange(data))
                assert (answer.status, answer.json["code"], answer["Retry-After"]) == (503, "unavailable", "1")
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 200
    assert not caplog.records, "no traceback"
    assert any(event.name == "hash" for event in log)


def test_4_without_memory_a_login_is_a_503_and_the_log_says_why(monkeypatch, caplog):
    log = []
    app = with_ann(log=log)
    with Running(app) as running:
        with monkeypatch.context() as patch:
            for name in ("scrypt", "pbkdf2_hmac"):
                patch.setattr(hashlib, name, lambda *anything, **more: (_ for _ in ()).throw(MemoryError()))
            for data in (raw_login("ann", PASSWORD), raw_login("nobody"), raw_password("ann", PASSWORD, "another one")):
                (answer,) = answers(running.exchange(data))
                assert (answer.status, answer.json["code"], answer["Retry-After"]) == (503, "unavailable", "1")
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 200
    assert not caplog.records, "no traceback"
    assert {event.name for event in log} == {"hash", "login"}


def test_4_a_start_without_threads_is_a_sentence_and_status_1(tmp_path):
    code = "import threading\ndef start(self): raise RuntimeError(\"can't start new thread\")\n"
    status, out, err = program(directory=tmp_path, python=through(f"{code}threading.Thread.start = start"))
    assert status == 1 and b"Traceback" not in err and b"thread" in err.splitlines()[-1]


# ---- 5. Present is not usable ----------------------------------------------------------------------------

FIPS = """
import hashlib
def refused(*anything, **more): raise ValueError("[digital envelope routines] unsupported")
hashlib.scrypt = refused"""


@pytest.mark.long
@pytest.mark.skipif(server.COST != server.SCRYPT, reason="there is no scrypt here, so PBKDF2 is tested everywhere")
def test_5_where_scrypt_is_refused_at_the_call_users_are_added_and_log_in_with_pbkdf2(tmp_path):
    python = through(FIPS)
    add = ("user", "add", "ann")
    status, _, err = program(*add, directory=tmp_path, stdin=b"correct horse\n", python=python, **SECRETS)
    assert (status, b"Traceback" in err) == (0, False), err
    with Process(tmp_path, python, **SECRETS) as process:
        found = [answers(process.exchange(raw_login("ann", each)))[0].status for each in (PASSWORD, "wrong")]
        found.append(answers(process.exchange(raw_login("nobody", "wrong")))[0].status)
        assert (found, "Traceback" in process.stop()[2]) == ([200, 406, 406], False)


@pytest.mark.skipif(server.COST != server.SCRYPT, reason="there is no scrypt here")
def test_5_the_self_test_says_which_scheme_works(tmp_path):
    status, out, err = program("selftest", directory=tmp_path, python=through(FIPS))
    assert (status, b"pbkdf2" in out, b"FAILED" in out) == (0, True, False), (out, err)


@pytest.mark.parametrize("error", [ValueError("unsupported"), AttributeError("scrypt"), MemoryError(), OSError("no")])
def test_5_whether_scrypt_works_is_tried(monkeypatch, error):
    def refused(*anything, **more):
        raise error

    monkeypatch.setattr(hashlib, "scrypt", refused, raising=False)
    assert fresh_server().COST.startswith("pbkdf2$")


# What SQLite 3.26 does not know: its functions, and its words.
NEW_FUNCTIONS = "iif if unixepoch timediff concat concat_ws format string_agg octet_length ceil floor pow ln log sqrt"
NEW_WORDS = (
    r"\bRETURNING\b|\bDROP COLUMN\b|\bNULLS (FIRST|LAST)\b|\bGENERATED\b|\bSTRICT\b|->|\bUPDATE\b[^;]*\bFROM\b"
    r"|\bIS (NOT )?DISTINCT\b|\bMATERIALIZED\b|\bFILTER\b|\biif\b"
)


def old_database(path):
    """A database as the first schema had it, with a user."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        script = server.TABLES.replace("epoch TEXT NOT NULL ", "epoch TEXT NOT NULL, tutorial INTEGER NOT NULL ")
        db.executescript(script + f"; PRAGMA application_id = {server.APPLICATION_ID}; PRAGMA user_version = 1")
        db.execute("INSERT INTO user VALUES ('ann', ?, 'e', 0)", (server.hash_password(PASSWORD, CHEAP),))
        db.commit()


def test_5_no_statement_needs_more_than_sqlite_3_26(monkeypatch, tmp_path):
    """All that the store does, on connections that know no newer function, and whose statements are looked at."""
    seen, known, kind = [], set(NEW_FUNCTIONS.split()), faulty(monkeypatch)
    monkeypatch.setattr(server, "MAX_ATTEMPT_ROWS", 1)

    def before(connection, statement):
        def authorize(action, _, function, *more):
            return sqlite3.SQLITE_DENY if action == 31 and function in known else sqlite3.SQLITE_OK  # SQLITE_FUNCTION

        connection.set_authorizer(authorize)
        seen.append(statement)

    kind.before = staticmethod(before)
    old_database(tmp_path / "old.db")
    for path in (tmp_path / "old.db", tmp_path / "new.db"):
        clock = Clock()
        app = with_ann(clock, store=server.SQLiteStore(str(path), clock), rotate_refresh=True)
        token = enter(app)
        token = follow(app, token)
        assert works(app, token) and leave(app, token).status == 204 and not works(app, token)
        assert [attempt(app, "ann", f"wrong {each}").status for each in range(11)] == [406] * 10 + [429]
        assert change(app, "ann", "wrong", "x", peer="192.0.2.9").status == 406
        clock.now += 2 * DAY
        enter(app)
        app.store.batch([lambda: leave(app, sign(epoch="e", exp=NOW + 9 * DAY))])
        app.accounts.change_password("ann", "another one")
        app.accounts.end_sessions("ann")
        app.accounts.remove_user("ann")
        app.store.close()
    assert len(seen) > 50
    assert [each for each in seen if re.search(NEW_WORDS, each, re.IGNORECASE)] == []


def test_5_an_sqlite_that_is_too_old_is_said_at_the_start(monkeypatch, tmp_path):
    kind = faulty(monkeypatch)

    def before(connection, statement):
        if "ON CONFLICT" in statement:
            raise sqlite3.OperationalError('near "ON": syntax error')

    kind.before = staticmethod(before)
    for name, value in (("sqlite_version", "3.7.17"), ("sqlite_version_info", (3, 7, 17))):
        monkeypatch.setattr(server.sqlite3, name, value)
    with pytest.raises(server.SettingsError, match="SQLite"):
        server.SQLiteStore(str(tmp_path / "minijwt.db"))


# ---- 6. People change their own password -----------------------------------------------------------------

NEW = "a new password"


def password_form(username, password, new):
    return credentials(username, password) + credentials("", new).replace(b"username=&password", b"&new_password")


def raw_password(username, password, new):
    return raw("POST", "/password", password_form(username, password, new), f"Content-Type: {FORM}")


def change(app, username, password, new, peer="192.0.2.1", **fields):
    """POST /password from `peer`."""
    headers = {"content-type": FORM, **fields}
    raw_fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    form = password_form(username, password, new)
    return server.respond(app, request("POST", "/password", form)._replace(
        fields=raw_fields, address=server.parse_address(peer)))  # fmt: skip


def test_6_the_password_is_changed_all_sessions_are_ended_and_the_cookie_is_deleted():
    log = []
    app = with_ann(log=log)
    tokens = [enter(app), enter(app)]
    answer = change(app, "ann", PASSWORD, NEW)
    assert (answer.status, answer.body) == (204, b"")
    assert cookie_of(answer) == "" and "Max-Age=0" in dict(answer.fields)["Set-Cookie"]
    assert not any(works(app, token) for token in tokens)
    assert attempt(app, "ann", PASSWORD).status == 406 and attempt(app, "ann", NEW).status == 200
    (event,) = answer.events
    assert (event.name, event.fields["result"], event.fields["user"]) == ("password", "ok", "ann")
    assert NEW not in str(event) and PASSWORD not in str(event)


REFUSED = [  # (why, username, old, new, status, code)
    ("a wrong one", "ann", "wrong", NEW, 406, None),
    ("a wrong one, and a bad new one", "ann", "wrong", "x", 406, None),
    ("a name that is no user's", "nobody", PASSWORD, NEW, 406, None),
    ("a new one that is too short", "ann", PASSWORD, "short", 422, "password_not_acceptable"),
    ("an empty new one", "ann", PASSWORD, "", 422, "password_not_acceptable"),
    ("a new one that is too long", "ann", PASSWORD, "x" * 1_025, 422, "password_not_acceptable"),
    ("a new one that is far too long", "ann", PASSWORD, "x" * 9_000, 422, "password_not_acceptable"),
    ("a new one with NUL", "ann", PASSWORD, "with\0 a NUL", 422, "password_not_acceptable"),
    ("an old one that is far too long", "ann", "x" * 9_000, NEW, 406, None),
]


@pytest.mark.parametrize("username, old, new, status, why", [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_6_what_is_refused_changes_nothing(username, old, new, status, why):
    app = with_ann()
    token = enter(app)
    answer = change(app, username, old, new)
    assert (answer.status, body(answer).get("code")) == (status, why)
    assert not any(name == "Set-Cookie" for name, _ in answer.fields)
    assert works(app, token) and attempt(app, "ann", PASSWORD).status == 200


def test_6_the_reason_is_one_sentence_for_people():
    answer = change(with_ann(), "ann", PASSWORD, "short")
    assert body(answer)["message"] == f"A password has at least {server.MIN_PASSWORD_CHARS} characters."


@pytest.mark.parametrize("old, status", [("admin123", 422), ("wrong", 406)])
def test_6_the_demo_users_password_stays(old, status):
    app = build()
    assert change(app, "admin", old, NEW, host="localhost").status == status
    assert attempt(app, "admin", "admin123", host="localhost").status == 200 and app.store.user_names() == []


MALFORMED = [b"", b"username=ann&password=correct+horse", password_form("ann", PASSWORD, NEW) + b"&new_password=x" * 2]


@pytest.mark.parametrize("form", MALFORMED, ids=["empty", "without the new one", "with three new ones"])
def test_6_a_form_with_a_field_missing_or_twice_is_406(form):
    assert post(with_ann(), "/password", form, content_type=FORM).status == 406


def test_6_guesses_are_counted_together_with_those_at_login():
    app = with_ann()
    for number in range(5):
        assert change(app, "ann", f"wrong {number}", NEW).status == 406
        assert attempt(app, "ann", f"wrong {number}", "192.0.2.1").status == 406
    for answer in (change(app, "ann", PASSWORD, NEW), attempt(app, "ann", PASSWORD, "192.0.2.1")):
        assert (answer.status, dict(answer.fields)["Retry-After"]) == (429, "30")
    assert change(app, "ann", PASSWORD, NEW, peer="198.51.100.1").status == 204, "not from elsewhere"


def test_6_a_right_old_password_clears_the_count_even_if_the_new_one_is_bad():
    app = with_ann()
    for _ in range(3):
        assert [change(app, "ann", "wrong", NEW).status for _ in range(9)] == [406] * 9
        assert change(app, "ann", PASSWORD, "short").status == 422


def while_hashing(monkeypatch, function):
    """Call `function` once, while the new password is being hashed: after the old one was found right."""
    real, calls = server.hash_password, [function]

    def hash_password(*arguments):
        if calls:
            calls.pop()()
        return real(*arguments)

    monkeypatch.setattr(server, "hash_password", hash_password)


def test_6_what_an_operator_sets_meanwhile_stands(monkeypatch):
    app = with_ann()
    while_hashing(monkeypatch, lambda: app.accounts.change_password("ann", "the operator's"))
    assert change(app, "ann", PASSWORD, NEW).status == 406
    assert attempt(app, "ann", "the operator's").status == 200 and attempt(app, "ann", NEW).status == 406


def test_6_to_have_been_changed_to_the_same_meanwhile_is_success(monkeypatch):
    app = with_ann()
    while_hashing(monkeypatch, lambda: app.accounts.change_password("ann", NEW))
    assert change(app, "ann", PASSWORD, NEW).status == 204
    assert attempt(app, "ann", NEW).status == 200


def test_6_a_user_who_is_removed_meanwhile_stays_removed(monkeypatch):
    app = with_ann()
    app.accounts.add_user("bob", PASSWORD)
    while_hashing(monkeypatch, lambda: app.accounts.remove_user("ann"))
    assert change(app, "ann", PASSWORD, NEW).status == 406
    assert app.store.user_names() == ["bob"]


def test_6_of_changes_that_race_one_stands_and_the_others_know(monkeypatch):
    app = with_ann(login_max_failures=0)

    def one(number):
        status = change(app, "ann", PASSWORD, f"new password {number % 4}", peer=f"192.0.2.{number}").status
        app.store.close()
        return status

    statuses = in_threads(12, one)
    good = {f"new password {number % 4}" for number, status in enumerate(statuses) if status == 204}
    assert len(good) == 1 and set(statuses) == {204, 406}
    assert attempt(app, "ann", *good).status == 200


def test_6_it_works_through_a_socket_and_a_page_of_another_site_is_refused():
    with Running(with_ann()) as running:
        evil = raw_password("ann", PASSWORD, NEW).replace(b"Host:", b"Origin: https://evil.example\r\nHost:")
        found = [running.exchange(data) for data in (evil, raw_password("ann", PASSWORD, NEW), raw_login("ann", NEW))]
        assert [answers(data)[0].status for data in found] == [403, 204, 200]
        (answer,) = answers(running.exchange(raw("GET", "/password")))
        assert (answer.status, answer["Allow"]) == (405, "POST, OPTIONS")


# ---- 7. X-Forwarded-For with ports, brackets, quotes -----------------------------------------------------

SPELLINGS = [  # (X-Forwarded-For as a proxy sends it, who is meant; None: it cannot be understood)
    ("192.0.2.1", "192.0.2.1"),
    ("192.0.2.1:4711", "192.0.2.1"),
    ('"192.0.2.1:4711"', "192.0.2.1"),
    ('"192.0.2.1"', "192.0.2.1"),
    ("2001:db8::1", "2001:db8::1"),
    ("[2001:db8::1]", "2001:db8::1"),
    ("[2001:db8::1]:4711", "2001:db8::1"),
    ('"[2001:db8::1]:4711"', "2001:db8::1"),
    ('"[2001:db8::1]"', "2001:db8::1"),
    ("[2001:DB8:0:0::1]:80", "2001:db8::1"),
    ("::ffff:192.0.2.1", "192.0.2.1"),
    ("[::ffff:192.0.2.1]:4711", "192.0.2.1"),
    ("198.51.100.9, 192.0.2.1:4711", "192.0.2.1"),
    ('"[2001:db8::9]:1", 192.0.2.1:4711 , 127.0.0.1:80', "192.0.2.1"),
    ("198.51.100.9,\t192.0.2.1:4711", "192.0.2.1"),
    ("unknown, 192.0.2.1:4711", "192.0.2.1"),
    ("192.0.2.1, unknown", None),
    ("192.0.2.1, _hidden", None),
    ("192.0.2.1:4711:9", None),
    ("[2001:db8::1", None),
    ("2001:db8::1]:4711", None),
    ("[192.0.2.1]x", None),
    ("192.0.2.1:http", None),
    ("example.org", None),
    ("999.0.2.1", None),
    ("192.0.2.1,,", "192.0.2.1"),
]


@pytest.mark.parametrize("field, client", SPELLINGS)
def test_7_the_client_behind_a_proxy_is_found_however_the_proxy_spells_it(field, client):
    log = []
    with Running(with_ann(log=log, trusted_proxies=server.read_networks("127.0.0.1"))) as running:
        running.exchange(raw_login("ann", "wrong").replace(b"Host:", f"X-Forwarded-For: {field}\r\nHost:".encode()))
    (line,) = [event.fields for event in log if event.name == "login"]
    assert line["address"] == (client or "127.0.0.1")
    assert len([event for event in log if event.name == "proxy"]) == (0 if client else 1)


def test_7_a_stranger_whose_proxy_adds_a_port_locks_the_account_for_nobody_else():
    app = with_ann(trusted_proxies=server.read_networks("127.0.0.1"))
    for number in range(20):
        attempt(app, "ann", "wrong", x_forwarded_for=f"192.0.2.66:{5_000 + number}")
    assert attempt(app, "ann", PASSWORD, x_forwarded_for="192.0.2.66:9999").status == 429
    for other in ("192.0.2.7:9999", "[2001:db8::7]:9999", '"[2001:db8:1::7]"'):
        assert attempt(app, "ann", PASSWORD, x_forwarded_for=other).status == 200


def test_7_several_lines_are_one_list():
    log = []
    lines = [f"X-Forwarded-For: {each}" for each in ("198.51.100.9", '"192.0.2.1:4711"', "[::ffff:127.0.0.1]:80")]
    with Running(with_ann(log=log, trusted_proxies=server.read_networks("127.0.0.1"))) as running:
        running.exchange(raw("POST", "/login", credentials("ann", "wrong"), f"Content-Type: {FORM}", *lines))
    assert [event.fields["address"] for event in log] == ["192.0.2.1"]


def proxy_lines(*requests, **changes):
    """What the log says of proxies when a server has answered `requests`."""
    log = []
    with Running(with_ann(log=log, **changes)) as running:
        for data in requests:
            running.exchange(data)
    return [event.fields for event in log if event.name == "proxy"]


def with_field(line):
    return raw("GET", "/", b"", line)


def test_7_what_cannot_be_understood_is_logged_once_and_only_once():
    requests = [with_field(f"X-Forwarded-For: garbage {number}") for number in range(5)]
    (line,) = proxy_lines(*requests, trusted_proxies=server.read_networks("127.0.0.1"))
    assert "garbage 0" in line.values() and "127.0.0.1" in line.values()


def test_7_a_request_of_the_proxys_own_is_no_fault_and_hides_none():
    """A balancer's health check has no X-Forwarded-For."""
    trusted = server.read_networks("127.0.0.1")
    assert proxy_lines(raw("GET", "/"), trusted_proxies=trusted) == []
    (line,) = proxy_lines(raw("GET", "/"), with_field("X-Forwarded-For: garbage"), trusted_proxies=trusted)
    assert "garbage" in line.values()


FORWARDING = [
    "X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1", "X-Forwarded-Proto: https",
]  # fmt: skip


@pytest.mark.parametrize("field", FORWARDING)
@pytest.mark.parametrize("trusted", ["", "10.0.0.0/8"])
def test_7_a_forwarding_field_of_a_peer_that_was_not_named_is_logged_once(field, trusted):
    (line,) = proxy_lines(*[with_field(field)] * 3, trusted_proxies=server.read_networks(trusted))
    assert "127.0.0.1" in line.values()


def test_7_in_the_log_of_a_process_the_two_faults_are_two_lines(tmp_path):
    add_cheaply(tmp_path / "minijwt.db")
    for trusted, word in (("127.0.0.1", "garbage"), ("10.0.0.1", "127.0.0.1")):
        with Process(tmp_path, TRUSTED_PROXIES=trusted, **SECRETS) as process:
            for _ in range(2):
                process.exchange(with_field('X-Forwarded-For: garbage "\xff'))
            lines = [line for line in process.stop()[2].splitlines() if " proxy " in line]
        assert len(lines) == 1 and word in lines[0] and lines[0].isascii()


# ---- 8. Rolling restart ----------------------------------------------------------------------------------


def test_8_a_kept_connection_that_speaks_while_the_server_stops_is_answered_and_told_to_close():
    timed = Timed()
    with timed.connect() as client, timed.connect() as silent:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0]["Connection"] is None
        wait_until(lambda: len(timed.server.clients) == 2)
        timed.call(timed.server.stop)
        for each in (client, silent):
            each.sendall(RAW_LOGIN)
            (answer,) = answers(read_all(each))
            assert (answer.status, answer["Connection"]) == (200, "close")
    timed.stop()


def test_8_over_tls_it_is_the_same():
    timed = Timed(tls=server.tls_context(PEM, PEM))
    context = server.ssl.create_default_context(cafile=PEM)
    with timed.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(raw("GET", "/"))
        assert answers(client.recv(65_536))[0]["Connection"] is None
        timed.call(timed.server.stop)
        client.sendall(RAW_LOGIN)
        (answer,) = answers(read_all(client))
        assert (answer.status, answer["Connection"]) == (200, "close")
    timed.stop()


def test_8_a_connection_that_stays_idle_is_closed_after_a_short_wait_and_the_server_ends():
    timed = Timed()
    with timed.connect() as client:
        client.sendall(raw("GET", "/"))
        client.recv(65_536)
        timed.call(timed.server.stop)
        assert timed.thread.is_alive(), "it waits a moment"
        timed.wait(1)
        assert read_all(client) == b""
    timed.thread.join(20)
    assert not timed.thread.is_alive()


class Load:
    """Refreshes through `port`, again and again, on kept connections, until the end of the block."""

    def __init__(self, port, token, connections=4):
        self.port, self.data, self.going = port, raw_refresh(token), True
        self.sent, self.failed = [0] * connections, []
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(connections)]

    def run(self, number):
        client = None
        while self.going:
            self.sent[number] += 1
            answer = b""
            try:
                client = client or socket.create_connection(("127.0.0.1", self.port), timeout=20)
                client.sendall(self.data)
                answer = self.read(client)
            except OSError as error:
                answer = repr(error).encode()
            if not answer.startswith(b"HTTP/1.1 200 "):
                self.failed.append(answer[:80])
            if not answer.startswith(b"HTTP/1.1 200 ") or b"\r\nconnection: close" in answer.lower():
                if client:
                    client.close()
                client = None
        if client:
            client.close()

    @staticmethod
    def read(client):
        data = b""
        while chunk := client.recv(65_536):
            data += chunk
            head, end, content = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
            if end and length and len(content) >= int(length[1]):
                break
        return data

    def more(self, count):
        """Wait until `count` more requests have been sent."""
        before = sum(self.sent)
        wait_until(lambda: sum(self.sent) >= before + count, 20)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.going = False
        for thread in self.threads:
            thread.join(20)


def adapted(name, ports):
    """The text of a file in tests/deploy, for two instances at `ports`."""
    text = (DEPLOY / name).read_text("ascii")
    for old, new in zip(("8000", "8001"), ports):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}").replace("# server", "server")
    return text


def nginx(directory, port, ports):
    text = "daemon off; pid nginx.pid; error_log stderr; events {} http { access_log off;\n"
    text += "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text += adapted("nginx.conf", ports).replace("listen 443 ssl", f"listen 127.0.0.1:{port}") + "}"
    (directory / "nginx.conf").write_text(re.sub("(?m)^ *ssl_.*$", "", text))
    return ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")]


def haproxy(directory, port, ports):
    text = re.sub("bind :443 ssl .*", f"bind 127.0.0.1:{port}", adapted("haproxy.cfg", ports))
    (directory / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")]


@pytest.mark.long
@pytest.mark.parametrize("proxy, forgiven", [
    pytest.param(nginx, 1, marks=pytest.mark.skipif(not found("nginx"), reason="there is no nginx here")),
    pytest.param(haproxy, 0, marks=pytest.mark.skipif(not found("haproxy"), reason="there is no HAProxy here")),
])  # fmt: skip
def test_8_two_instances_behind_a_proxy_are_restarted_one_after_the_other_and_no_client_notices(
    tmp_path, proxy, forgiven
):
    """Behind nginx one request in ten thousand may fail: it has no second try for a POST that it has sent."""
    add_cheaply(tmp_path / "minijwt.db")
    environment = {**SECRETS, "TRUSTED_PROXIES": "127.0.0.1"}
    instances = [Process(tmp_path, **environment) for _ in range(2)]
    try:
        token = answers(instances[0].exchange(raw_login("ann", PASSWORD)))[0]["Set-Cookie"][4:].partition(";")[0]
        port = free_port()
        with in_front(proxy(tmp_path, port, [each.port for each in instances]), port), Load(port, token) as load:
            for number in range(2):
                load.more(500)
                status, _, _ = instances[number].stop()
                assert status == 0
                instances[number] = Process(tmp_path, **environment, PORT=str(instances[number].port))
            load.more(500)
        assert len(load.failed) <= max(forgiven, forgiven * sum(load.sent) // 10_000), (sum(load.sent), load.failed)
    finally:
        logs = [each.stop()[2] for each in instances]
    assert not any("Traceback" in log for log in logs)


DEPLOYED = [
    ("nginx.conf", "server 127.0.0.1:8000 max_fails=0;"),
    ("nginx.conf", "# server 127.0.0.1:8001 max_fails=0;"),
    ("haproxy.cfg", "option redispatch 1"),
    ("haproxy.cfg", "retries 3"),
    ("haproxy.cfg", "option httpchk GET /"),
    ("minijwt@.service", "Type=notify"),
    ("minijwt@.service", "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"),
    ("minijwt@.service", "RestartSec=2"),
    ("minijwt@.service", "StartLimitIntervalSec=0"),
    ("minijwt@.service", "After=network.target time-sync.target"),
    ("minijwt@.service", "MemoryMax=768M"),
]


@pytest.mark.parametrize("file, line", DEPLOYED)
def test_8_and_17_what_is_deployed_says_so(file, line):
    assert line in [each.strip() for each in (DEPLOY / file).read_text("ascii").splitlines()]


@pytest.mark.skipif(not found("systemd-analyze"), reason="there is no systemd here")
def test_8_systemd_takes_the_unit(tmp_path):
    unit = tmp_path / "minijwt@8000.service"
    unit.write_text((DEPLOY / "minijwt@.service").read_text("ascii").replace("/usr/bin/python3", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stderr.splitlines() if "minijwt" in line] == []


# ---- 9. Readiness ----------------------------------------------------------------------------------------


def root(running, *lines):
    return answers(running.exchange(raw("GET", "/", b"", *lines)))[0].status


@contextlib.contextmanager
def without(path):
    """`path` is elsewhere until the end of the block."""
    os.rename(path, f"{path}.away")
    yield
    os.rename(f"{path}.away", path)


def test_9_a_balancer_is_told_while_the_database_is_gone_and_a_browser_gets_its_page():
    clock = Clock()
    app = with_ann(clock)
    with Running(app) as running:
        assert root(running) == 200
        with without(app.store.path):
            clock.now += 1
            (answer,) = answers(running.exchange(raw("GET", "/")))
            assert (answer.status, answer["Retry-After"], answer.json["code"]) == (503, "1", "unavailable")
            assert answers(running.exchange(raw("HEAD", "/")), 1)[0].status == 503
            assert root(running, "Accept: text/html") == 200
        clock.now += 1
        assert root(running) == 200


def test_9_and_while_it_is_corrupt():
    clock = Clock()
    app = with_ann(clock)
    with Running(app) as running:
        assert root(running) == 200
        with open(app.store.path, "r+b") as file:
            whole = file.read()
            file.seek(0)
            file.write(b"garbage!" * (len(whole) // 8))
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError), open(app.store.path + suffix, "r+b") as file:
                file.write(b"garbage!" * (os.path.getsize(file.name) // 8))
        clock.now += 1
        assert root(running) == 503 and root(running, "Accept: text/html") == 200


def test_9_a_store_that_fails_is_503_and_one_that_is_back_200_at_once():
    app = with_ann()

    def fails(*arguments):
        raise server.StoreFailed("disk I/O error")

    app.store.look_up = fails
    assert [server.respond(app, request()).status for _ in range(5)] == [503] * 5
    del app.store.look_up
    assert server.respond(app, request()).status == 200


def test_9_systemd_is_told_that_it_is_ready_and_that_it_stops(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        with Process(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert systemd.recv(100) == b"READY=1"
            assert process.exchange(raw("GET", "/")).startswith(b"HTTP/1.1 200"), "it listens"
            assert process.stop()[0] == 0
        told = [systemd.recv(100)]
        while told[-1] == b"WATCHDOG=1":
            told.append(systemd.recv(100))
        assert told[-1] == b"STOPPING=1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the abstract namespace is Linux's")
def test_9_a_socket_in_the_abstract_namespace_is_told_too(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0minijwt-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@minijwt-{os.getpid()}")
        server.notify_systemd("READY=1")
        assert systemd.recv(100, socket.MSG_DONTWAIT) == b"READY=1"


def test_9_no_systemd_and_one_that_is_gone_are_no_fault(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    server.notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nothing"))
    server.notify_systemd("READY=1")


def test_9_the_watchdog_hears_of_a_loop_that_turns_and_nothing_of_one_that_hangs():
    heard, released, hung = [], threading.Event(), threading.Event()
    with Timed(on_sweep=lambda: heard.append(timed.clock.now)) as timed:
        for _ in range(3):
            timed.wait(2)
        assert len(heard) >= 3
        timed.server.post(lambda: (hung.set(), released.wait(20)))
        assert hung.wait(20)
        before = len(heard)
        timed.clock.now += 60
        timed.server.post(lambda: None)
        assert len(heard) == before
        released.set()


# ---- 10. The demo user beyond this machine ---------------------------------------------------------------

LOCAL = ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "127.9.9.9:80", "[::1]", "[::1]:8000"]
ELSEWHERE = [
    {"host": "rebound.example"},
    {"host": "rebound.example:8000"},
    {"host": "localhost.rebound.example"},
    {"host": "127.0.0.1.rebound.example"},
    {"host": "xlocalhost"},
    {"host": "192.168.1.7:8000"},
    {"host": "0.0.0.0:8000"},
    {"host": "[::]"},
    {"host": "[2001:db8::1]:8000"},
    {"host": "localhost", "x_forwarded_for": "127.0.0.1"},
    {"host": "localhost", "x_forwarded_host": "localhost"},
    {"host": "localhost", "x_forwarded_proto": "https"},
    {"host": "localhost", "x_forwarded_port": "443"},
    {"host": "localhost", "x_forwarded_server": "proxy"},
    {"host": "localhost", "x_real_ip": "127.0.0.1"},
    {"host": "localhost", "forwarded": "for=127.0.0.1"},
    {"host": "localhost", "x_forwarded_for": ""},
]


@pytest.mark.parametrize("host", LOCAL)
def test_10_the_demo_user_logs_in_by_a_loopback_name(host):
    assert attempt(build(), "admin", "admin123", host=host).status == 200


@pytest.mark.parametrize("fields", ELSEWHERE, ids=str)
def test_10_and_not_by_another_name_nor_through_anything_that_forwards(fields):
    app = build()
    good, wrong = (attempt(app, "admin", password, **fields) for password in ("admin123", "wrong"))
    assert good.status == 406 and code(good) == "demo_user_not_local"
    assert (good.body, good.fields) == (wrong.body, wrong.fields), "the answer does not say that it was right"
    assert change(app, "admin", "admin123", NEW, **fields).status == 406


@pytest.mark.parametrize("fields", ELSEWHERE[:1] + ELSEWHERE[-2:], ids=str)
def test_10_a_user_of_ones_own_logs_in_by_any_name(fields):
    assert attempt(with_ann(), "ann", PASSWORD, **fields).status == 200


def test_10_a_page_whose_name_is_rebound_is_refused_by_a_process(tmp_path):
    page = RAW_LOGIN.replace(b"Host: localhost", b"Host: rebound.example\r\nOrigin: http://rebound.example\r\n"
                             b"Sec-Fetch-Site: same-origin")  # fmt: skip
    with Process(tmp_path) as process:
        assert [answers(process.exchange(data))[0].status for data in (page, RAW_LOGIN)] == [406, 200]
        assert "result=demo_user_not_local" in process.stop()[2]


# ---- 11. CORS on early refusals --------------------------------------------------------------------------

BIG = "x" * 9_000
EARLY = [  # (status, method, target, fields before Origin, whether a body follows)
    (411, "POST", "/login", ["Transfer-Encoding: chunked"]),
    (413, "POST", "/login", ["Content-Length: 1000000"]),
    (414, "GET", f"/?{BIG}", []),
    (417, "POST", "/login", ["Content-Length: 1", "Expect: the-unexpected"]),
    (431, "GET", "/me", [f"Authorization: Bearer {BIG}"]),
    (431, "POST", "/refresh", [f"Cookie: a={BIG}"]),
    (431, "GET", "/me", [f"X-{number}: x" for number in range(120)]),
]


@pytest.mark.parametrize("status, method, target, lines", EARLY, ids=[str(row[0]) for row in EARLY])
@pytest.mark.parametrize("pieces", [1, 7])
def test_11_a_page_of_an_allowed_origin_reads_early_refusals_and_the_log_knows_what_was_refused(
    status, method, target, lines, pieces
):
    log = []
    app = build(log=log, allowed_origins=(ORIGIN,), access_log=True)
    data = raw(method, target, b"", *lines, f"Origin: {ORIGIN}")
    step = -(-len(data) // pieces)
    with Running(app) as running:
        parts = [data[at : at + step] for at in range(0, len(data), step)]
        (answer,) = answers(running.exchange(*parts))
    assert answer.status == status
    assert answer["Access-Control-Allow-Origin"] == ORIGIN and answer["Access-Control-Allow-Credentials"] == "true"
    (line,) = [event.fields for event in log if event.name == "request"]
    assert (line["method"], line["path"], line["status"]) == (method, target.partition("?")[0], str(status))


def test_11_of_a_head_over_32_kb_it_reads_no_more_and_knows_what_came_first():
    log = []
    with Running(build(log=log, allowed_origins=(ORIGIN,), access_log=True)) as running:
        head = raw("GET", "/me", b"", f"Origin: {ORIGIN}").removesuffix(b"\r\n")
        (answer,) = answers(running.exchange(head, b"X: y\r\n" * 6_000))
    assert (answer.status, answer["Access-Control-Allow-Origin"]) == (431, ORIGIN)
    assert [(event.fields["method"], event.fields["path"]) for event in log] == [("GET", "/me")]


def test_11_a_request_that_never_arrives_whole_can_be_read_too():
    log = []
    with Timed(build(log=log, allowed_origins=(ORIGIN,), access_log=True)) as timed, timed.connect() as client:
        client.sendall(raw("POST", "/login", LOGIN, f"Content-Type: {FORM}", f"Origin: {ORIGIN}")[:-1])
        wait_until(lambda: [each for each in timed.server.clients if each.framer.in_body])
        timed.wait(server.REQUEST_SECONDS + 1)
        (answer,) = answers(read_all(client))
    assert (answer.status, answer["Access-Control-Allow-Origin"]) == (408, ORIGIN)
    assert [(event.fields["method"], event.fields["path"]) for event in log] == [("POST", "/login")]


def test_11_a_page_of_another_origin_gets_none_of_it():
    with Running(build(allowed_origins=(ORIGIN,))) as running:
        for status, method, target, lines in EARLY:
            data = raw(method, target, b"", *lines, "Origin: https://evil.example")
            (answer,) = answers(running.exchange(data))
            assert (answer.status, answer["Access-Control-Allow-Origin"]) == (status, None)


def test_11_a_login_that_is_crowded_out_can_be_read_too(monkeypatch):
    gate = Gate(monkeypatch)
    monkeypatch.setattr(server, "MAX_WAITING_LOGINS", 1)
    monkeypatch.setattr(server, "HASHES_AT_ONCE", 1)
    with Running(with_ann(allowed_origins=(ORIGIN,))) as running, Door(running) as door:
        for number in range(2):
            door.send("192.0.2.1", f"nobody {number}")
        wait_until(lambda: gate.calls)
        (answer,) = answers(running.exchange(RAW_LOGIN.replace(b"Host:", f"Origin: {ORIGIN}\r\nHost:".encode())))
        gate.open.set()
    assert (answer.status, answer["Access-Control-Allow-Origin"]) == (503, ORIGIN)


# ---- 12. Forms -------------------------------------------------------------------------------------------

GOOD_TYPES = [
    "; version=1", ";version=1", "; charset=UTF-8", ";charset=UTF-8;", "; charset=utf8", "; charset=UTF8",
    "; charset=us-ascii", "; charset=US-ASCII", ";", ";;", " ; charset=utf-8 ; version=1", '; charset="utf-8"',
    '; charset="UTF8"', "; boundary=----x", ";charset=utf-8;charset=utf-8", "; Charset=Utf-8", "\t;\tcharset=utf-8",
    "; x", "; x=y; charset=us-ascii",
]  # fmt: skip


@pytest.mark.parametrize("parameters", GOOD_TYPES)
def test_12_a_form_is_a_form_whatever_else_its_type_says(parameters):
    app = with_ann()
    assert login(app, credentials("ann", PASSWORD), FORM + parameters).status == 200
    assert login(app, credentials("ann", PASSWORD), FORM.upper() + parameters).status == 200
    assert post(app, "/password", password_form("ann", PASSWORD, NEW), content_type=FORM + parameters).status == 204


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "windows-1252", "utf-7", "utf-8x", '"latin1"'])
def test_12_another_charset_stays_refused(charset):
    assert login(with_ann(), credentials("ann", PASSWORD), f"{FORM}; charset={charset}").status == 406


@pytest.mark.parametrize("parameters", ["", "; charset=us-ascii", "; charset=utf8"])
def test_12_what_is_not_utf_8_is_refused_whatever_it_is_called(parameters):
    assert login(with_ann(), b"username=ann&password=%ff%fe+horse", FORM + parameters).status == 406
    app = build()
    app.accounts.add_user("Jos\xe9", PASSWORD)
    assert login(app, b"username=Jos%C3%A9&password=correct+horse", FORM + parameters).status == 200


# ---- 13. Open over plain HTTP ----------------------------------------------------------------------------


def test_13_an_open_server_over_plain_http_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (warning,) = server.check_exposure(settings(host="0.0.0.0"), True)
    assert "plain HTTP" in warning and "TLS_CERT" in warning and "TRUSTED_PROXIES" in warning and "cookie" in warning


@pytest.mark.parametrize("changes", [
    {"host": "127.0.0.1"}, {"host": "0.0.0.0", "tls_cert": PEM, "tls_key": PEM},
    {"host": "0.0.0.0", "trusted_proxies": server.read_networks("10.0.0.1")},
])  # fmt: skip
def test_13_and_no_other_server_is(tmp_path, monkeypatch, changes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "stat", lambda path, real=os.stat: real("/" if path == PEM else path))
    monkeypatch.setattr(server, "exposed_files", lambda *anything: iter(()))
    assert [risk for risk in server.check_exposure(settings(**changes), True) if "plain HTTP" in risk] == []


def test_13_no_token_right_after_a_login_from_the_same_place_says_why():
    app = with_ann(host="0.0.0.0")

    def refreshed_from(peer):
        (event,) = server.respond(app, request("POST", "/refresh")._replace(address=server.parse_address(peer))).events
        assert event.fields["result"].startswith("no_token")
        return "cookie" in str(event)

    assert not refreshed_from("192.0.2.1"), "not before a login"
    assert attempt(app, "ann", PASSWORD, "192.0.2.1").status == 200
    assert refreshed_from("192.0.2.1") and not refreshed_from("192.0.2.2")


# ---- 14. A first line that is no request line ------------------------------------------------------------

NO_REQUEST_LINES = [
    b"GET /\r\n", b"HELO x\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"GET / HTTP/1.1 \r\n", b"GET  / HTTP/1.1\r\n",
    b"GET / HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n", b"GET / http/1.1\r\n", b"\r\nGET /\r\n", b"x\r\n", b" \r\n",
    b"GET / HTTP/1.1\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\r\nHost: localhost\r\n",
]  # fmt: skip


@pytest.mark.parametrize("data", NO_REQUEST_LINES, ids=str)
@pytest.mark.parametrize("whole", [True, False])
def test_14_what_can_never_be_a_request_is_refused_at_once(data, whole):
    """No second passes here, and the client keeps its side open."""
    with Timed() as timed, timed.connect() as client:
        client.settimeout(3)
        with contextlib.suppress(ConnectionError):
            for piece in [data] if whole else [data[at : at + 1] for at in range(len(data))]:
                client.sendall(piece)
        (answer,) = answers(read_all(client))
    assert answer.status == (505 if b"HTTP/2" in data else 400) and answer["Connection"] == "close"


def test_14_a_request_line_and_half_a_head_still_wait():
    with Timed() as timed, timed.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        wait_until(lambda: [each for each in timed.server.clients if each.framer.busy])
        client.sendall(b"alhost\r\nConnection: close\r\n\r\n")
        assert answers(read_all(client))[0].status == 200


# ---- 15. /explain, and cookies of old secrets ------------------------------------------------------------


def unsigned(header, payload):
    segments = [minijwt.base64url_encode(each) for each in (header, payload, bytes(32))]
    return b".".join(segments).decode()


@pytest.mark.parametrize("payload", [b"\xff" * 4_900, b"a" * 2_400 + b"\xff" * 2_400], ids=["all of it", "half of it"])
def test_15_of_what_cannot_be_decoded_at_most_a_kilobyte_is_shown(payload):
    token = unsigned(b'{"alg":"HS256"}', payload)
    report = minijwt.explain(token, ACCESS)
    shown = report["payload"]
    assert len(re.sub(r"\\x..", "?", shown)) <= 1_024 + 50, "of the bytes"
    answer = server.respond(build(), request("GET", "/explain", authorization=f"Bearer {token}"))
    assert answer.status == 200 and len(answer.body) < len(token) + 12_000
    assert body(answer)["steps"][0]["ok"] is True


def test_15_a_header_that_cannot_be_decoded_is_not_shown_whole_either():
    report = minijwt.explain(unsigned(b"\xff" * 4_900, b"{}"), ACCESS)
    assert len(report["header"]) <= 4 * 1_024 + 50


def test_15_what_can_be_decoded_is_shown_whole():
    payload = json.dumps({"text": "\xe9" * 2_000}, ensure_ascii=False).encode()
    assert minijwt.explain(unsigned(b'{"alg":"HS256"}', payload), ACCESS)["payload"].encode() == payload


@pytest.mark.parametrize("secrets", [1, 3])
def test_15_a_header_is_read_once_however_many_secrets_there_are(monkeypatch, secrets):
    calls, real = [], minijwt.read_header
    monkeypatch.setattr(minijwt, "read_header", lambda segment: calls.append(segment) or real(segment))
    others = tuple(b"another secret of thirty-two bytes %d" % number for number in range(secrets - 1))
    app = with_ann(refresh_secrets=(*others, REFRESH), access_secrets=(*others, ACCESS))
    tokens = [sign(sid=f"{number:032x}", epoch="e" * 4_000) for number in range(7)]
    del calls[:]
    assert use(app, *tokens).status == 406
    assert 0 < len(calls) <= 7
    del calls[:]
    assert me(app, access_token(NOW)).status == 200
    assert len(calls) == 1


# ---- 16. A database that is moved, deleted or replaced ---------------------------------------------------


def moved(path):
    os.rename(path, f"{path}.away")


def replaced(path):
    """By another server's database, with another user."""
    add_cheaply(f"{path}.new", "eve", "another's password")
    moved(path)
    os.rename(f"{path}.new", path)


def deleted_and_made_anew(path):
    moved(path)
    Path(path).touch(0o600)


CHANGES = [moved, replaced, deleted_and_made_anew]


def back(path):
    os.replace(f"{path}.away", path)


@pytest.mark.parametrize("change_it", CHANGES)
@pytest.mark.parametrize("rotate", [True, False])
def test_16_while_the_database_is_another_file_every_answer_is_503_and_then_all_is_well(change_it, rotate):
    clock, log = Clock(), []
    app = with_ann(clock, log=log, rotate_refresh=rotate)
    token, ended = enter(app), enter(app)
    with Running(app) as running:
        assert answers(running.exchange(raw_logout(ended)))[0].status == 204
        change_it(app.store.path)
        clock.now += 1
        there = sorted(os.listdir(os.path.dirname(app.store.path)))
        wrong = []
        for data in (raw_refresh(token), raw_refresh(ended), raw_logout(token), raw_login("ann", PASSWORD),
                     raw_login("ann", "wrong"), raw_login("eve", "another's password"), raw_login(),
                     raw_password("ann", PASSWORD, NEW), raw("GET", "/")):  # fmt: skip
            (answer,) = answers(running.exchange(data))
            wrong += [(data[:40], answer.status)] if answer.status != 503 else []
        assert wrong == []
        assert sorted(os.listdir(os.path.dirname(app.store.path))) == there, "it makes no second database"
        back(app.store.path)
        clock.now += 1
        found = [raw_login("ann", PASSWORD), raw_refresh(token), raw_refresh(ended), raw("GET", "/")]
        assert [answers(running.exchange(data))[0].status for data in found] == [200, 200, 406, 200]


def test_16_a_link_that_is_pointed_elsewhere_is_another_file(tmp_path):
    clock = Clock()
    for name in ("ann", "eve"):
        add_cheaply(tmp_path / f"{name}.db", name)
    link = tmp_path / "minijwt.db"
    link.symlink_to(tmp_path / "ann.db")
    app = build(clock, server.SQLiteStore(str(link), clock))
    with Running(app) as running:
        for name, statuses in (("ann", [200, 406]), ("eve", [503, 503]), ("ann", [200, 406])):
            link.unlink()
            link.symlink_to(tmp_path / f"{name}.db")
            clock.now += 1
            found = [answers(running.exchange(raw_login(each, PASSWORD)))[0].status for each in ("ann", "eve")]
            assert found == statuses
    app.store.close()


def test_16_after_a_new_password_on_the_new_file_the_old_one_is_no_longer_good():
    """What was observed: both were, since the server still had the old file open."""
    clock = Clock()
    app = with_ann(clock)
    with Running(app) as running:
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 200
        moved(app.store.path)
        shutil.copy(f"{app.store.path}.away", app.store.path)
        clock.now += 1
        store = server.SQLiteStore(app.store.path, clock)
        store.change_password("ann", server.hash_password(NEW, CHEAP), "e")
        store.close()
        assert {answers(running.exchange(raw_login("ann", each)))[0].status for each in (PASSWORD, NEW)} == {503}


def test_16_it_is_logged_once_each_time_and_not_at_every_request():
    clock, log = Clock(), []
    app = with_ann(clock, log=log)
    with Running(app) as running:
        with without(app.store.path):
            for _ in range(5):
                clock.now += 1
                for data in (raw_login("ann", PASSWORD), raw_refresh(sign()), raw("GET", "/")):
                    assert answers(running.exchange(data))[0].status == 503
        clock.now += 1
        assert answers(running.exchange(raw_login("ann", PASSWORD)))[0].status == 200
        with without(app.store.path):
            clock.now += 3_600
            assert answers(running.exchange(raw_refresh(sign())))[0].status == 503
    lines = [event.fields for event in log if event.name == "database"]
    assert len(lines) == 2 and app.store.path in str(lines[0]), "each time it goes"


def test_16_the_new_files_log_is_not_unlinked_by_the_server_that_has_the_old_one(tmp_path):
    """SQLite unlinks a -wal by its name when the last connection is closed."""
    path = tmp_path / "minijwt.db"
    add_cheaply(path)
    with Process(tmp_path, ROTATE_REFRESH="on", **SECRETS) as process:
        token = answers(process.exchange(raw_login("ann", PASSWORD)))[0]["Set-Cookie"][4:].partition(";")[0]
        assert answers(process.exchange(raw_refresh(token)))[0].status == 200
        for each in tmp_path.glob("minijwt.db*"):
            each.rename(tmp_path / f"old-{each.name}")
        fresh = server.SQLiteStore(str(path))
        assert fresh.add_user("bob", "x", "e")
        assert (tmp_path / "minijwt.db-wal").stat().st_size > 0
        process.stop()
        assert (tmp_path / "minijwt.db-wal").stat().st_size > 0
        assert fresh.user_names() == ["bob"]
        fresh.close()


def test_16_the_start_and_every_user_line_name_the_absolute_path(tmp_path):
    path = tmp_path / "minijwt.db"
    add_cheaply(path)
    with Process(tmp_path, **SECRETS) as process:
        (line,) = [each for each in process.stop()[2].splitlines() if " start " in each]
    assert f" database={path} " in line or f'"{path}"' in line
    for action in ("logout", "remove"):
        status, _, err = command(tmp_path, "user", action, "ann", **SECRETS)
        assert (status, str(path) in err) == (0, True)


@pytest.mark.parametrize("arguments", [["list"], ["passwd", "ann"], ["remove", "ann"], ["logout", "ann"]])
def test_16_only_serving_and_user_add_make_a_database(says, tmp_path, arguments):
    status, text = says("user", *arguments, **SECRETS)
    assert status == 2 and str(tmp_path / "minijwt.db") in text and "does not exist" in text
    assert os.listdir(tmp_path) == []


def test_16_init_says_where_and_as_whom_users_are_added(says, tmp_path):
    status, text = says("init")
    assert status == 0 and str(tmp_path) in text and "user add" in text and re.search(r"\bas the user\b", text)


def test_16_the_target_of_a_dangling_link_is_made_for_its_owner_alone(tmp_path):
    (tmp_path / "minijwt.db").symlink_to(tmp_path / "elsewhere.db")
    before = os.umask(0o022)
    try:
        add_cheaply(tmp_path / "minijwt.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "elsewhere.db").stat().st_mode) == 0o600


@AS_ROOT
@pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="there is no /usr/bin/python3 for another user")
def test_16_a_database_of_another_owner_says_whose_it_is():
    """Files that a user who is not root can read, and a database that belongs to root."""
    with tempfile.TemporaryDirectory(prefix="minijwt-tests-") as directory:
        os.chmod(directory, 0o777)
        for name in ("minijwt.py", "server.py"):
            shutil.copy(TOP / name, directory)
        add_cheaply(Path(directory, "minijwt.db"))
        done = subprocess.run(
            ["/usr/bin/python3", "server.py", "user", "list"],
            cwd=directory, env=SECRETS, capture_output=True, text=True, timeout=30, user=65534, group=65534,
        )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(r"belongs to .*\b(0|root)\b", done.stderr)


NOT_OURS = [
    ("a directory", lambda path: path.mkdir(), "is a directory"),
    ("text", lambda path: path.write_text("hello\n" * 1_000), "not a SQLite file"),
    ("another program's", lambda path: sqlite3.connect(path).execute("CREATE TABLE x (y)").connection.close(),
     "another program's"),
]  # fmt: skip


@pytest.mark.parametrize("make, sentence", [pytest.param(*row[1:], id=row[0]) for row in NOT_OURS])
def test_16_a_file_that_is_not_ours_is_one_sentence(says, tmp_path, make, sentence):
    make(tmp_path / "minijwt.db")
    status, text = says("user", "list", **SECRETS)
    assert (status, text.count("\n")) == (2, 1) and sentence in text and str(tmp_path / "minijwt.db") in text


# ---- 17. Exit status -------------------------------------------------------------------------------------


def port_in_use(directory, stack):
    (taken,) = server.listen("127.0.0.1", 0)
    stack.callback(taken.close)
    return {"HOST": "127.0.0.1", "PORT": str(taken.getsockname()[1])}


def locked_database(directory, stack):
    add_cheaply(directory / "minijwt.db")
    db = stack.enter_context(contextlib.closing(sqlite3.connect(directory / "minijwt.db", isolation_level=None)))
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    return SECRETS


def address_not_there(directory, stack):
    add_cheaply(directory / "minijwt.db")
    return {"HOST": "192.0.2.1", **SECRETS}


def wrong_env_file(directory, stack):
    (directory / ".env").mkdir()
    return {}


STATUSES = [  # (what is the matter, how it comes about, exit status)
    ("the port is in use", port_in_use, 1),
    ("the address is not there yet", address_not_there, 1),
    ("the database is locked", locked_database, 1),
    ("the port is no number", lambda *anything: {"PORT": "http"}, 2),
    ("the host is a name", lambda *anything: {"HOST": "example.org"}, 2),
    ("one secret", lambda *anything: {"ACCESS_TOKEN_SECRET": "x" * 32}, 2),
    ("no certificate", lambda *anything: {"TLS_CERT": "none.pem", "TLS_KEY": "none.pem"}, 2),
    ("open, with the demo user", lambda *anything: {"HOST": "0.0.0.0", **SECRETS}, 2),
    ("the database is a directory", lambda *anything: {"DATABASE": "."}, 2),
    ("no such directory", lambda *anything: {"DATABASE": "nowhere/minijwt.db"}, 2),
    (".env is a directory", wrong_env_file, 2),
]


@pytest.mark.parametrize("make, status", [pytest.param(*row[1:], id=row[0]) for row in STATUSES])
def test_17_the_status_is_1_for_what_may_pass_and_2_for_what_must_be_edited(says, tmp_path, monkeypatch, make, status):
    monkeypatch.setattr(server, "BUSY_SECONDS", 0.05)
    with contextlib.ExitStack() as stack:
        got, text = says(**make(tmp_path, stack))
    *warnings, sentence = text.splitlines()
    assert got == status and all(line.startswith("server.py: warning: ") for line in warnings), text
    assert sentence.startswith("server.py: ") and "[Errno" not in text and "Traceback" not in text


@pytest.mark.parametrize("error", ["database or disk is full", "database is locked"])
def test_17_a_full_disk_at_the_start_may_pass(says, monkeypatch, error):
    kind = faulty(monkeypatch)

    def before(connection, statement):
        if statement.startswith(("\nCREATE", "CREATE", "BEGIN IMMEDIATE")):
            raise sqlite3.OperationalError(error)

    kind.before = staticmethod(before)
    status, text = says(**SECRETS)
    assert status == 1 and error in text and text.count("\n") == 1


def test_17_a_clock_that_is_not_set_may_pass(tmp_path):
    status, _, err = program(directory=tmp_path, python=through("import time; time.time = lambda: 1e9"))
    assert status == 1 and b"the clock says" in err and err.count(b"\n") == 1


NO_READERS = {
    "no standard output": ">&-", "no standard error": "2>&-", "neither": ">&- 2>&-", "nor an input": "<&- >&- 2>&-",
    "a full disk": ">/dev/full", "a full disk for the log": "2>/dev/full",
}  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("redirection", NO_READERS.values(), ids=NO_READERS)
def test_17_a_greeting_that_cannot_be_written_does_not_end_the_server(tmp_path, redirection):
    port, notify = free_port(), str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(notify)
        systemd.settimeout(10)
        with subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, str(TOP / "server.py")],
            cwd=tmp_path, env={"PORT": str(port), "NOTIFY_SOCKET": notify}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                assert systemd.recv(100) == b"READY=1"
                with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                    client.sendall(raw("GET", "/", b"", "Connection: close"))
                    assert answers(read_all(client))[0].status == 200
            finally:
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and b"Traceback" not in err
    assert out in (b"", f"Server active on http://localhost:{port}!\n".encode()), "warnings go elsewhere"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_17_a_sentence_that_cannot_be_written_does_not_change_the_status(tmp_path, redirection):
    """A supervisor would start it again, for ever."""
    silent = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable]
    assert program(python=silent, directory=tmp_path, HOST="x")[0] == 2
    assert program("user", "remove", "ann", python=silent, directory=tmp_path, **SECRETS)[0] == 2
    add_cheaply(tmp_path / "minijwt.db")
    assert program("user", "remove", "ann", python=silent, directory=tmp_path, **SECRETS)[0] == 0


# ---- 18. The exposure rule looks at every file that matters ----------------------------------------------

OURS, THEIRS = 4_711, 9_999  # numbers of a user and a group
MODES = [  # (mode, owner, group, the commands that it asks for)
    (0o600, OURS, OURS, []),
    (0o400, OURS, OURS, []),
    (0o640, OURS, OURS, []),
    (0o660, OURS, OURS, []),
    (0o440, 0, OURS, []),
    (0o440, 0, 0, []),
    (0o400, 0, 0, []),
    (0o644, OURS, OURS, ["chmod"]),
    (0o604, OURS, OURS, ["chmod"]),
    (0o602, OURS, OURS, ["chmod"]),
    (0o640, OURS, THEIRS, ["chmod"]),
    (0o620, OURS, THEIRS, ["chmod"]),
    (0o600, OURS, THEIRS, []),
    (0o600, THEIRS, OURS, ["chown"]),
    (0o444, THEIRS, THEIRS, ["chmod", "chown"]),
]


@AS_ROOT
@pytest.mark.parametrize("mode, owner, group, asked", MODES, ids=[f"{row[0]:o}-{row[1]}-{row[2]}" for row in MODES])
@pytest.mark.parametrize("which", [".env", "minijwt.db", "login.key"])
def test_18_an_open_server_refuses_files_that_others_can_read_or_write_or_own(
    tmp_path, monkeypatch, which, mode, owner, group, asked
):
    path = tmp_path / which
    path.touch()
    os.chown(path, owner, group)
    path.chmod(mode)
    for name, value in (("geteuid", OURS), ("getuid", OURS), ("getegid", OURS), ("getgroups", [OURS])):
        monkeypatch.setattr(os, name, lambda value=value: value)
    changes = {"database": str(tmp_path / "minijwt.db"), "tls_cert": PEM, "tls_key": str(tmp_path / "login.key")}
    dotenv = str(tmp_path / ".env")
    refused = ""
    try:
        assert server.check_exposure(settings(host="0.0.0.0", **changes), True, dotenv) == []
    except server.SettingsError as error:
        refused = str(error)
    assert re.findall(r"\bchmod\b|\bchown\b", refused) == asked and (str(path) in refused) is bool(asked)
    warnings = server.check_exposure(settings(**changes), True, dotenv)
    assert len(warnings) == len(asked), "two sentences, and a private server only warns"
    for word, sentence in zip(asked, warnings):
        assert word in sentence and str(path) in sentence


@pytest.mark.parametrize("which, variable", [("minijwt.db", None), ("login.key", "TLS_KEY")])
def test_18_a_process_says_it_and_does_not_start(says, tmp_path, which, variable):
    add_cheaply(tmp_path / "minijwt.db")
    shutil.copy(PEM, tmp_path / "login.key")
    (tmp_path / "login.key").chmod(0o600)
    (tmp_path / which).chmod(0o644)
    environment = {"HOST": "0.0.0.0", "TLS_CERT": PEM, "TLS_KEY": "login.key", **SECRETS}
    status, text = says(**environment)
    assert status == 2 and which in text and "chmod" in text and text.count("\n") == 1


# ---- 19. Messages ----------------------------------------------------------------------------------------

ORIGINS = [f"https://{number}.example" for number in range(10)]
SENTENCES = [  # (environment, what the sentence says)
    ({"HOST": "x86_64-conda-linux-gnu"}, ["HOST is 'x86_64-conda-linux-gnu' (from the environment): "]),
    ({"HOST": "127.0.0.1\n"}, ["HOST is '127.0.0.1\\n' (from the environment)"]),
    ({"PORT": "8000 "}, ["PORT is '8000 ' (from the environment)"]),
    ({"PORT": ""}, ["PORT is '' (from the environment)"]),
    ({"PAGE": "yes"}, ["PAGE is 'yes' (from the environment)", "on or off"]),
    ({"COOKIE_NAME": "a b"}, ["COOKIE_NAME is 'a b' (from the environment)"]),
    ({"ACCESS_TOKEN_TTL": "10"}, ["ACCESS_TOKEN_TTL is '10' (from the environment)"]),
    ({"ALLOWED_ORIGINS": ",".join([*ORIGINS[:4], "https://4.example/", *ORIGINS[5:]])}, ["): https://4.example/ "]),
    ({"TRUSTED_PROXIES": "10.0.0.1/8"}, ["): 10.0.0.1/8 ", "10.0.0.0/8"]),
    ({"TRUSTED_PROXIES": "10.0.0.0/8, proxy.internal"}, ["): proxy.internal "]),
    ({"DATABASE": "/tmp"}, ["DATABASE", "/tmp", "is a directory"]),
]


@pytest.mark.parametrize("environment, parts", SENTENCES, ids=lambda each: str(each)[:40])
def test_19_a_message_has_the_value_and_where_it_came_from(says, environment, parts):
    status, text = says(**environment)
    assert status == 2 and text.count("\n") == 1, text
    for part in parts:
        assert part in text


def test_19_or_that_it_came_from_the_file(says, tmp_path):
    (tmp_path / ".env").write_text("PAGE=yes\nHOST=\n")
    status, text = says()
    assert status == 2 and "HOST is '' (from .env): " in text
    status, text = says(HOST="localhost")
    assert "PAGE is 'yes' (from .env): " in text


@pytest.mark.parametrize("secret", ["", "-----BEGIN PUBLIC KEY-----\nMFkwEw\n-----END PUBLIC KEY-----"])
def test_19_a_secret_is_never_shown(says, secret):
    status, text = says(ACCESS_TOKEN_SECRET=secret, REFRESH_TOKEN_SECRET="y" * 32)
    assert status == 2 and text.startswith("server.py: ACCESS_TOKEN_SECRET ") and "(from the environment)" in text
    assert "MFkwEw" not in text and "''" not in text


def test_19_people_who_try_port_as_an_option_are_told_where_settings_come_from(says):
    status, text = says("--port", "8601")
    assert status == 2 and "PORT=" in text and ".env" in text and "environment" in text


def test_19_an_empty_old_secret_is_none():
    given = {**SECRETS, "ACCESS_TOKEN_SECRET_OLD": "", "REFRESH_TOKEN_SECRET_OLD": ""}
    found = server.read_settings(given, os.devnull)
    assert (found.access_secrets, found.refresh_secrets) == ((ACCESS,), (REFRESH,))
    with pytest.raises(server.SettingsError, match="^ACCESS_TOKEN_SECRET .*is empty"):
        server.read_settings({**SECRETS, "ACCESS_TOKEN_SECRET": ""}, os.devnull)


@pytest.mark.parametrize("around", ["{} ", " {}", "{}\n", "'{}'", '"{}"', "\t{}", "{}\r\n"])
@pytest.mark.parametrize("name", SECRETS)
def test_19_white_space_or_quotes_around_a_secret_are_a_warning(tmp_path, monkeypatch, around, name):
    monkeypatch.chdir(tmp_path)
    given = {**SECRETS, name: around.format(SECRETS[name])}
    (warning,) = server.check_exposure(server.read_settings({**given, "DATABASE": "x"}), True)
    assert "secret" in warning.lower() and "white space" in warning and SECRETS[name] not in warning
    assert server.check_exposure(server.read_settings({**SECRETS, "DATABASE": "x"}), True) == []


@pytest.mark.parametrize("action", ["passwd", "logout", "remove"])
def test_19_a_user_who_does_not_exist_is_said_before_a_password_is_asked_for(says, monkeypatch, tmp_path, action):
    add_cheaply(tmp_path / "minijwt.db")
    monkeypatch.setattr(server, "ask_password", lambda: pytest.fail("it asks"))
    status, text = says("user", action, "nobody", **SECRETS)
    assert status == 2 and "there is no user nobody" in text


@pytest.mark.parametrize("name, sentence", [("ann", "there is a user ann already"), ("a\nb", "a name has")])
def test_19_a_user_who_cannot_be_added_too(says, monkeypatch, tmp_path, name, sentence):
    add_cheaply(tmp_path / "minijwt.db")
    monkeypatch.setattr(server, "ask_password", lambda: pytest.fail("it asks"))
    status, text = says("user", "add", name, **SECRETS)
    assert status == 2 and sentence in text


def test_19_settings_in_the_log_are_not_cut_at_64_characters(tmp_path):
    add_cheaply(tmp_path / "minijwt.db")
    origins = ",".join(ORIGINS)
    with Process(tmp_path, ALLOWED_ORIGINS=origins, **SECRETS) as process:
        log = process.stop()[2]
    assert f"ALLOWED_ORIGINS={origins}" in log


# ---- 20. .env --------------------------------------------------------------------------------------------

SPACES = {  # what JavaScript's String.prototype.trim takes away (ECMA-262 §12.2, §12.3)
    "NBSP": "\xa0", "U+FEFF": "\ufeff", "U+2028": "\u2028", "U+2029": "\u2029", "VT": "\v", "FF": "\f", "tab": "\t",
    "U+1680": "\u1680", "U+2003": "\u2003", "U+202F": "\u202f", "U+205F": "\u205f", "U+3000": "\u3000",
}  # fmt: skip


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_20_all_white_space_of_javascript_is_trimmed_around_a_value(space):
    lines = ("A={0}b{0}", "A = {0} b {0} # why", "{0}A=b", "A{0}=b", "export{0}A=b")
    for line in (each.format(space) for each in lines):
        assert server.parse_dotenv(line) == {"A": "b"}, ascii(line)
    for quote in "'\"`":
        assert server.parse_dotenv(f"A={space}{quote}{space}b{space}{quote}{space}") == {"A": f"{space}b{space}"}
    assert server.parse_dotenv(f"A=b{space}c") == {"A": f"b{space}c"}
    assert server.parse_dotenv(f"{space}\nA=b\n{space}# why\n") == {"A": "b"}


@pytest.mark.parametrize("letter", ["\x85", "\u180e", "\u200b", "\x1c", "\x1f", "\u2060"])
def test_20_and_nothing_else(letter):
    """Python's own `strip` would take some of these."""
    assert server.parse_dotenv(f"A={letter}b{letter}") == {"A": f"{letter}b{letter}"}


# ---- 21. SIGHUP, init, and places that do not speak UTF-8 ------------------------------------------------


def test_21_a_hangup_drains_as_a_termination_does(tmp_path):
    add_cheaply(tmp_path / "minijwt.db")
    with Process(tmp_path, **SECRETS) as process:
        with socket.create_connection(("127.0.0.1", process.port), 10) as client:
            client.sendall(raw("GET", "/"))
            assert answers(client.recv(65_536))[0].status == 200
            client.sendall(raw_login("ann", PASSWORD)[:-3])
            process.process.send_signal(signal.SIGHUP)
            client.sendall(raw_login("ann", PASSWORD)[-3:])
            (answer,) = answers(read_all(client))
        _, err = process.process.communicate(timeout=20)
    assert (answer.status, answer["Connection"], process.process.returncode) == (200, "close", 0)
    assert err.splitlines()[-1].endswith(" stop")


def test_21_a_hangup_that_is_ignored_at_the_start_stays_ignored(tmp_path):
    nohup = through("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    with Process(tmp_path, nohup) as process:
        process.process.send_signal(signal.SIGHUP)
        assert answers(process.exchange(raw("GET", "/")))[0].status == 200
        process.process.send_signal(signal.SIGHUP)
        assert answers(process.exchange(RAW_LOGIN))[0].status == 200
        assert process.stop()[0] == 0


def test_21_an_init_that_fails_leaves_nothing_and_the_next_one_works(tmp_path):
    limited = through("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))")
    status, _, err = program("init", python=limited, directory=tmp_path)
    assert status == 1 and b"Traceback" not in err and b"[Errno" not in err and err.count(b"\n") == 1
    assert os.listdir(tmp_path) == []
    assert command(tmp_path, "init")[0] == 0
    assert (tmp_path / ".env").stat().st_size > 500


def test_21_an_interrupted_init_leaves_nothing_either(says, tmp_path, monkeypatch):
    def interrupted(*anything, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(server, "HARDENED", type("Text", (str,), {"format": interrupted})())
        assert says("init")[0] != 0
    assert os.listdir(tmp_path) == []


NO_UTF8 = {
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
CYRILLIC, JOSE = "\u0438\u0432\u0430\u043d", "Jos\xe9"


@pytest.mark.parametrize("environment", NO_UTF8.values(), ids=NO_UTF8)
def test_21_a_list_with_a_name_that_cannot_be_encoded_shows_all_of_them(tmp_path, environment):
    for name in ("ann", CYRILLIC, JOSE, "zoe"):
        add_cheaply(tmp_path / "minijwt.db", name)
    status, out, err = program("user", "list", directory=tmp_path, **environment, **SECRETS)
    assert (status, err) == (0, b"") and len(out.splitlines()) == 4
    assert out.splitlines()[0] == b"Jos\xe9" if "latin" in str(environment) else b"Jos\\xe9" in out
    assert b"ann" in out.splitlines() and b"zoe" in out.splitlines() and b"\\u0438" in out


@pytest.mark.parametrize("environment", [NO_UTF8["Latin-1"], NO_UTF8["C"]], ids=["Latin-1", "C"])
def test_21_a_password_that_is_piped_as_utf_8_is_that_password(tmp_path, environment):
    password = "gef\xe4hrlich " + CYRILLIC
    status, _, err = program(
        "user", "add", "ann", directory=tmp_path, stdin=f"{password}\n".encode(), **environment, **SECRETS
    )
    assert status == 0, err
    app = build(store=server.SQLiteStore(str(tmp_path / "minijwt.db")))
    assert attempt(app, "ann", password).status == 200
    app.store.close()


def test_21_a_name_on_the_command_line_is_utf_8_there_too(tmp_path):
    add_cheaply(tmp_path / "minijwt.db", JOSE)
    status, _, err = program("user", "logout", JOSE.encode(), directory=tmp_path, **NO_UTF8["C"], **SECRETS)
    assert status == 0, err


def test_21_init_in_a_directory_whose_name_cannot_be_shown_has_worked(tmp_path):
    (tmp_path / JOSE).mkdir()
    status, out, err = program("init", directory=tmp_path / JOSE, **NO_UTF8["ASCII"])
    assert (status, err) == (0, b"") and b"user add" in out


# ---- 22. Names -------------------------------------------------------------------------------------------

JOINED = {
    "Persian": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "a Persian surname": "\u0639\u0644\u06cc\u200c\u0632\u0627\u062f\u0647",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "Sinhala": "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "Marathi": "\u0930\u094d\u200d\u092f",
}


@pytest.mark.parametrize("name", JOINED.values(), ids=JOINED)
def test_22_zero_width_joiners_between_letters_belong_to_names(name):
    app = build()
    app.accounts.add_user(name, PASSWORD)
    assert attempt(app, name, PASSWORD).status == 200 and app.store.user_names() == [name]


STRANGE = {
    "right-to-left override": "ann\u202e", "isolate": "\u2066ann\u2069", "right-to-left mark": "ann\u200f",
    "left-to-right mark": "\u200eann", "NUL": "a\0nn", "line end": "ann\nbob", "white space": " ann",
    "NBSP": "ann\xa0", "only a joiner": "\u200d", "zero-width space": "an\u200bn", "nothing": "",
    "joiner at the end": "ann\u200d", "joiner at the beginning": "\u200cann", "half a pair": "a\ud800",
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE.values(), ids=STRANGE)
def test_22_other_invisible_characters_do_not(name):
    with pytest.raises(ValueError, match="a name has"):
        server.checked_name(name)


@pytest.mark.parametrize("typed", [" ann", "ann ", "\tann\n", "\xa0ann\u3000", "ann\r\n", "  ann  "])
def test_22_white_space_around_a_name_is_of_no_account_at_a_login(typed):
    app = with_ann()
    answer = attempt(app, typed, PASSWORD)
    assert answer.status == 200 and claims_of(cookie_of(answer))["username"] == "ann"
    assert change(app, typed, PASSWORD, NEW).status == 204
    assert login(build(), credentials(" admin ", "admin123")).status == 200


def test_22_with_white_space_it_is_the_same_account_to_the_throttle():
    app = with_ann()
    assert [attempt(app, " " * number + "ann", "wrong").status for number in range(11)] == [406] * 10 + [429]
    assert attempt(app, "ann", PASSWORD).status == 429


def test_22_white_space_within_a_password_counts():
    assert attempt(with_ann(), "ann", f" {PASSWORD}").status == 406


# ---- 23. Old Pythons -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def old():
    """A function that finds a Python of an old version."""
    usable = pythons.usable()

    def old(version):
        for (_, full), file in usable.items():
            if full.startswith(version + "."):
                return str(file)
        return pytest.skip(f"there is no Python {version} here")

    return old


@pytest.mark.long
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7", "3.8"])
def test_23_the_one_file_tells_an_old_python_what_it_needs(tmp_path, old, version):
    python = old(version)
    (tmp_path / "minijwt.pyz").write_bytes(
        dist.pyz({name: (TOP / name).read_bytes() for name in ("minijwt.py", "server.py")})
    )
    done = subprocess.run([python, "minijwt.pyz"], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and done.stderr.startswith("minijwt.pyz needs Python 3.9 or newer; this is " + version)
    assert done.stderr.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["server.py", "minijwt.py"])
@pytest.mark.parametrize("arguments", [[], ["--version"]])
def test_23_python_3_8_gets_a_sentence(tmp_path, old, name, arguments):
    command = [old("3.8"), str(TOP / name), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "needs Python 3.9" in done.stderr and done.stderr.count("\n") == 1


# ---- 24. The journal -------------------------------------------------------------------------------------


class Syslog:
    """Stands in for the module."""

    def __init__(self):
        self.lines = []

    def openlog(self, name, *options):
        self.lines.append(name)

    def syslog(self, *arguments):
        self.lines.append(arguments[-1])


@pytest.mark.parametrize("action, stdin", [("add", b"correct horse\n"), ("logout", b""), ("remove", b"")])
def test_24_what_is_done_to_users_goes_to_syslog_too(says, monkeypatch, tmp_path, action, stdin):
    if action != "add":
        add_cheaply(tmp_path / "minijwt.db")
    monkeypatch.setattr(server, "syslog", fake := Syslog())
    monkeypatch.setattr(server, "ask_password", lambda: PASSWORD)
    status, text = says("user", action, "ann", **SECRETS)
    assert status == 0 and fake.lines[0] == "minijwt"
    (line,) = fake.lines[1:]
    assert line.startswith(f"user action={action} user=ann ") and str(tmp_path) in line and PASSWORD not in line
    assert line in text, "and to standard error, as before"


def test_24_where_there_is_none_it_works_all_the_same(says, monkeypatch, tmp_path):
    add_cheaply(tmp_path / "minijwt.db")
    monkeypatch.setattr(server, "syslog", None)
    assert says("user", "logout", "ann", **SECRETS)[0] == 0


def test_24_a_name_cannot_write_a_line_of_its_own(says, monkeypatch, tmp_path):
    add_cheaply(tmp_path / "minijwt.db", "a=b \u0438")
    monkeypatch.setattr(server, "syslog", fake := Syslog())
    assert says("user", "logout", "a=b \u0438", **SECRETS)[0] == 0
    assert 'user="a=b \\u0438"' in fake.lines[-1] and fake.lines[-1].isascii()


# ---- 25. A file cannot vouch for itself ------------------------------------------------------------------


def test_25_version_is_a_version_and_no_digest(tmp_path):
    status, out, _ = command(tmp_path, "--version")
    assert (status, out) == (0, f"minijwt {minijwt.__version__}\n")


def test_25_readme_compares_the_sum_with_a_line_that_was_carried_another_way():
    chapter = README.partition("## On one machine")[2]
    assert "sha256sum SHA256SUMS" in chapter and "nothing exchanged" not in chapter
    assert not re.search(r"--version +#.*(exchanged|sha256sum|digest)", chapter)


# ---- 26. Backup, keys, certificates ----------------------------------------------------------------------


def back_up(there, copy):
    """Run the script that README names; return its status."""
    text = (DEPLOY / "backup.sh").read_text("ascii").replace("python3", sys.executable)
    command = ["sh", "-c", text, "backup.sh", str(there / "minijwt.db"), str(copy)]
    return subprocess.run(command, cwd=copy.parent, capture_output=True, timeout=30).returncode


def names_in(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT name FROM user").fetchall()


@pytest.mark.parametrize("there", ["wrong", "missing"])
def test_26_a_backup_in_a_wrong_directory_fails_and_leaves_the_good_one(tmp_path, there):
    (tmp_path / "home").mkdir()
    (tmp_path / "wrong").mkdir()
    add_cheaply(tmp_path / "home" / "minijwt.db")
    copy = tmp_path / "minijwt.backup"
    assert back_up(tmp_path / "home", copy) == 0 and names_in(copy) == [("ann",)]
    assert back_up(tmp_path / there, copy) != 0
    assert names_in(copy) == [("ann",)] and not (tmp_path / "wrong" / "minijwt.db").exists()


def test_26_readme_takes_p_256_and_watches_the_end_of_the_certificate():
    script = (DEPLOY / "login-certificate.sh").read_text("utf-8")
    assert "rsa:" not in script and re.search(r"P-256|prime256v1", script)
    assert re.search(r"openssl x509 .*-checkend \d+", README)


# ---- 27. What README leaves out --------------------------------------------------------------------------


def test_27_a_path_is_spelled_in_one_way_and_readme_says_so():
    app = build()
    for path in ("/login/", "/LOGIN", "/Login", "//login", "/refresh/"):
        assert post(app, path, LOGIN, content_type=FORM).status == 404
    assert "`/login/`" in README and "`/LOGIN`" in README


def test_27_readme_says_what_old_curl_and_python_clients_do_with_secure_cookies():
    first = README[: README.index("## A token, byte by byte")]
    assert "7.79" in first and "Python" in first and "COOKIE_SECURE" in first


def test_27_readme_says_how_names_and_comments_are_read():
    assert "`Alice` and `alice` are two users" in README and "white space around a name" in README.lower()
    assert re.search(r"comments in `\.env` on lines of their own", README)


def test_27_readme_has_a_container_a_fail2ban_line_and_counts():
    recipe = [line for line in (DEPLOY / "Dockerfile").read_text("ascii").splitlines() if not line.startswith("#")]
    assert len(recipe) <= 8 and "FROM python:3-slim" in recipe and "USER 65534:65534" in recipe
    assert "fail2ban" in README and re.search(r"journalctl .*\|.*uniq -c|journalctl .*\|.*Counter", README)


def test_27_the_fail2ban_line_finds_the_address_in_a_line_of_the_log():
    pattern = re.search(r"failregex *= *(.*)", (DEPLOY / "fail2ban.conf").read_text("ascii"))[1]
    regex = re.sub(r"<(HOST|ADDR|IP4|IP6)>", r"(?P<address>[0-9a-f.:]+)", pattern)
    log = []
    app = with_ann(log=log)
    for password, there in (("wrong", True), (PASSWORD, False)):
        (event,) = attempt(app, "ann", password, "192.0.2.66").events
        match = re.search(regex, server.log_line(NOW, event))
        assert bool(match) is there and (not match or match["address"] == "192.0.2.66")


def namespaces():
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--pid", "--fork", "true"], capture_output=True)
    return done.returncode == 0


@pytest.mark.skipif(not found("unshare") or not namespaces(), reason="this machine allows no PID namespaces")
def test_27_as_process_1_with_a_directory_that_cannot_be_written_it_serves_and_stops(tmp_path):
    """As in a container with a read-only root."""
    add_cheaply(tmp_path / "minijwt.db")
    (tmp_path / "work").mkdir(0o500)
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", sys.executable]
    with Process(tmp_path / "work", alone, DATABASE=str(tmp_path / "minijwt.db"), **SECRETS) as process:
        assert answers(process.exchange(raw_login("ann", PASSWORD)))[0].status == 200
        children = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        out, err = process.process.communicate(timeout=20)
    assert process.process.returncode == 0 and err.splitlines()[-1].endswith(" stop")
