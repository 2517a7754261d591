"""Store: the file it makes, the files it refuses, and a database that fails: 503, never a wrong answer, and it recovers."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time

import pytest
import server
from serverkit import Clock, Process, Running, body, build, cookie_of, new_store, raw, answers
from sessionkit import (
    DAY, PASSWORD, SECRETS, add_cheaply, attempt, claims_of, command, enter, faulty, follow, in_threads, leave,
    raw_login, raw_logout, raw_refresh, sign, use, works,
)  # fmt: skip

NOT_NOW = {"message": "The database does not answer. Try again.", "code": "unavailable"}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# -- the file


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_and_its_companions_are_for_their_owner_alone(tmp_path, umask):
    path = str(tmp_path / "users.db")
    before = os.umask(umask)
    try:
        store = server.Store(path)
        store.end("x", 1)
        assert {name: mode(tmp_path / name) for name in os.listdir(tmp_path)} == {
            "users.db": 0o600,
            "users.db-wal": 0o600,
            "users.db-shm": 0o600,
        }
    finally:
        os.umask(before)
        store.close()


def test_it_is_in_wal_mode_and_every_commit_reaches_the_disk():
    store = new_store()
    with store._transaction() as db:
        assert db.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert db.execute("PRAGMA synchronous").fetchall() == [(2,)]
        assert db.execute("PRAGMA busy_timeout").fetchall()[0][0] > 0


def test_what_was_stored_is_there_when_it_is_opened_again(tmp_path):
    path = str(tmp_path / "users.db")
    app = build(store=server.Store(path, Clock()), rotate_refresh=True)
    app.accounts.add_user("ann", PASSWORD)
    token = follow(app, enter(app))
    app.store.close()
    again = build(store=server.Store(path, Clock()), rotate_refresh=True)
    assert again.store.names() == ["ann"] and works(again, token)
    again.store.close()


def test_many_may_make_the_same_file_at_once(tmp_path):
    for number in range(5):
        path = str(tmp_path / f"{number}.db")

        def one(n, path=path):
            store = server.Store(path)
            store.add_user(str(n), "p", "e", False)
            names = store.names()
            store.close()
            return str(n) in names

        assert in_threads(8, one) == [True] * 8


def other_database(path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipe (name TEXT)")
    db.execute("INSERT INTO recipe VALUES ('soup')")
    db.commit()
    db.close()


def newer_database(path):
    server.Store(str(path)).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {server.SCHEMA_VERSION + 1}")
    db.close()


REFUSED = [
    ("of another program", other_database, "is another program's database"),
    ("of a newer version", newer_database, "another version of minijwt has written it (schema 2)"),
    ("garbage", lambda path: path.write_bytes(b"garbage " * 1_000), "file is not a database"),
    ("a directory", lambda path: path.mkdir(), "unable to open"),
    ("in no directory", lambda path: None, "No such file or directory"),
]


@pytest.mark.parametrize("make, sentence", [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_a_file_that_is_not_ours_is_refused_in_a_sentence_and_left_as_it_is(tmp_path, make, sentence):
    path = tmp_path / "none" / "x.db" if "No such" in sentence else tmp_path / "x.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(server.SettingsError) as error:
        server.Store(str(path))
    assert sentence in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
    for arguments in ([], ["user", "list"]):
        status, out, err = command(tmp_path, *arguments, DATABASE=str(path), PORT="0", **SECRETS)
        assert (status, out) == (2, "")
        assert err.startswith("server.py: ") and sentence in err and err.count("\n") == 1
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not (tmp_path / "x.db-wal").exists()


def test_a_store_that_was_refused_leaves_no_connection_open(tmp_path):
    other_database(tmp_path / "x.db")
    script = "import gc, server\ntry:\n    server.Store('x.db')\nexcept server.SettingsError:\n    pass\ngc.collect()\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path, env={"PYTHONPATH": os.path.dirname(server.__file__), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


# -- two processes on one file


def test_what_the_user_commands_do_is_seen_by_running_servers_at_once(tmp_path):
    path = tmp_path / "users.db"
    add_cheaply(path)
    now = int(time.time())
    token = sign(epoch="e" * 16, iat=now, exp=now + DAY)
    environment = {"DATABASE": str(path), **SECRETS}
    with Process(tmp_path, **environment) as first, Process(tmp_path, **environment) as second:

        def statuses():
            return [answers(process.exchange(raw_refresh(token)))[0].status for process in (first, second)]

        assert statuses() == [200, 200]
        assert command(tmp_path, "user", "logout", "ann", **environment)[0] == 0
        assert statuses() == [406, 406]
        token = sign(epoch=server.Store(str(path)).standing("ann", "").epoch, iat=now, exp=now + DAY)
        assert statuses() == [200, 200]
        first.exchange(raw_logout(token))
        assert statuses() == [406, 406]


# -- faults


def read_only(kind, state):
    """Every connection from now on, and those that are open, may only read."""

    def before(connection, statement):
        if "query_only" not in statement:
            connection.raw(f"PRAGMA query_only = {int(state['on'])}")

    kind.before = staticmethod(before)


def full(kind, state):
    """The disk is full: the file may not grow."""

    def before(connection, statement):
        connection.raw(f"PRAGMA max_page_count = {1 if state['on'] else 1 << 30}")

    kind.before = staticmethod(before)


def failing(kind, state):
    """The disk is full at the worst time: when it is written."""

    def before(connection, statement):
        if state["on"] and statement == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")

    kind.before = staticmethod(before)


def torn(kind, state):
    """An error ends the transaction, as a full disk may: SQLite has rolled back by itself."""

    def before(connection, statement):
        if state["on"] and statement.startswith(("UPDATE session", "INSERT INTO session", "REPLACE INTO failure")):
            if connection.in_transaction:
                connection.raw("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

    kind.before = staticmethod(before)


def broken(kind, state):
    """Not even reading works."""

    def before(connection, statement):
        if state["on"]:
            raise sqlite3.DatabaseError("database disk image is malformed")

    kind.before = staticmethod(before)


FAULTS = [
    ("read-only", read_only),
    ("failing commits", failing),
    ("a lost transaction", torn),
    ("nothing works", broken),
]


@pytest.mark.parametrize("fault", [pytest.param(case[1], id=case[0]) for case in FAULTS])
@pytest.mark.parametrize("lane", ["plain", "group"])
def test_a_database_that_fails_is_a_503_and_nothing_has_happened_and_it_recovers(monkeypatch, fault, lane):
    kind, state, log = faulty(monkeypatch), {"on": False}, []
    fault(kind, state)
    app = build(log=log, rotate_refresh=True)
    app.accounts.add_user("ann", PASSWORD)
    first = enter(app)
    second = follow(app, first)
    third = follow(app, second)
    fresh = enter(app)

    def one(function, *arguments):
        if lane == "plain":
            return function(app, *arguments)
        try:
            (answer,) = app.store.group([lambda: function(app, *arguments)])
        except server.StoreFailed as error:
            return server.store_failed(error)
        return answer

    state["on"] = True
    for function, arguments in [(use, [third]), (use, [first]), (leave, [third]), (use, [fresh])]:
        answer = one(function, *arguments)
        assert (answer.status, body(answer)) == (503, NOT_NOW)
        assert [name for name, _ in answer.fields] == ["Retry-After"]
        assert [event.name for event in answer.events] == ["database"]
    answer = attempt(app, "ann", PASSWORD)
    assert (answer.status, body(answer)) == (503, NOT_NOW)
    state["on"] = False
    assert claims_of(cookie_of(one(use, third)))["gen"] == 3, "no generation was spent, and no session ended"
    assert claims_of(cookie_of(one(use, fresh)))["gen"] == 1
    assert one(leave, third).status == 204 and not works(app, third)
    assert works(app, enter(app))


def test_what_comes_after_a_lost_transaction_is_not_kept_either(monkeypatch):
    kind, state = faulty(monkeypatch), {"on": False}
    torn(kind, state)
    app = build(rotate_refresh=True)
    app.accounts.add_user("ann", PASSWORD)
    tokens = [enter(app), enter(app)]

    def unlucky():
        state["on"] = True
        answer = use(app, tokens[0])
        state["on"] = False
        return answer

    with pytest.raises(server.StoreFailed, match="the transaction was lost"):
        app.store.group([unlucky, lambda: use(app, tokens[1])])
    assert [app.store.standing("ann", claims_of(token)["sid"]).generation for token in tokens] == [None, None]


def test_a_full_disk_is_a_503_and_recovers(monkeypatch):
    kind, state = faulty(monkeypatch), {"on": False}
    full(kind, state)
    app = build(rotate_refresh=True)
    app.accounts.add_user("ann", PASSWORD)
    token = enter(app)
    state["on"] = True
    seen, held = set(), []
    for number in range(300):  # until the pages that are there are full
        answer = use(app, sign("ann", f"{number}" * 40, epoch=app.store.standing("ann", "").epoch))
        seen.add(answer.status)
        held += [cookie_of(answer)] if answer.status == 200 else []
        if answer.status == 503:
            assert body(answer) == NOT_NOW and answer.events[0].name == "database"
    assert seen == {200, 503}
    state["on"] = False
    assert works(app, token)
    assert all(works(app, each) for each in held), "what was answered is there"


def corrupt(path):
    """Overwrite the pages of the tables, not the header."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4_096)
        file.write(b"\xa5" * (size - 4_096))


def test_a_corrupt_database_is_a_503_and_a_log_event_and_recovers_when_the_file_is_mended(tmp_path):
    path = str(tmp_path / "users.db")
    app = build(store=server.Store(path, Clock()), rotate_refresh=True)
    app.accounts.add_user("ann", PASSWORD)
    token = follow(app, enter(app))
    app.store.close()  # the last connection: now all is in the one file
    shutil.copy(path, tmp_path / "good")
    corrupt(path)
    for _ in range(3):
        for answer in (use(app, token), leave(app, token), attempt(app, "ann", PASSWORD)):
            assert (answer.status, body(answer)) == (503, NOT_NOW)
            assert [event.name for event in answer.events] == ["database"]
    with open(tmp_path / "good", "rb") as good, open(path, "r+b") as file:
        file.write(good.read())
    assert works(app, token) and works(app, enter(app))
    app.store.close()


def test_a_database_that_vanishes_is_never_a_wrong_answer(tmp_path):
    path = str(tmp_path / "users.db")
    app = build(store=server.Store(path, Clock()))
    app.accounts.add_user("ann", PASSWORD)
    token = enter(app)
    leave(app, token)
    app.store.close()
    os.unlink(path)
    assert use(app, token).status == 503
    assert attempt(app, "admin", "admin123").status == 503, "above all, no demo user"
    app.store.close()


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("rotate", [True, False])
def test_while_another_program_holds_the_lock_reading_goes_on_and_writing_is_503(tmp_path, monkeypatch, lock, rotate):
    monkeypatch.setattr(server, "BUSY_SECONDS", 0.05)
    path, log = str(tmp_path / "users.db"), []
    app = build(store=server.Store(path, Clock()), log=log, rotate_refresh=rotate)
    app.accounts.add_user("ann", PASSWORD)
    token = enter(app)
    other = sqlite3.connect(path, isolation_level=None)
    with Running(app) as running:

        def status(data):
            (answer,) = answers(running.exchange(data))
            assert answer.status != 503 or answer["Retry-After"]
            return answer.status

        other.execute(lock)
        assert status(raw_refresh(token)) == (503 if rotate else 200)
        assert status(raw_logout(token)) == 503
        assert status(raw_login("ann", PASSWORD)) == 503
        assert status(raw("GET", "/")) == 200
        assert {event.name for event in log} == {"database"}
        other.execute("ROLLBACK")
        assert status(raw_refresh(token)) == 200
        assert status(raw_login("ann", PASSWORD)) == 200
        assert status(raw_logout(token)) == 204
        assert status(raw_refresh(token)) == 406
    other.close()
    app.store.close()


def test_the_loop_does_not_wait_for_a_lock_that_keeps_even_readers_out(tmp_path, monkeypatch):
    path = str(tmp_path / "users.db")
    app = build(store=server.Store(path, Clock()))
    token = enter(app, "admin", "admin123")
    app.store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    waited = []
    kind = faulty(monkeypatch)
    kind.before = staticmethod(lambda connection, statement: waited.append(connection.raw("PRAGMA busy_timeout")[0][0]))
    app.store.read_only()
    monkeypatch.setattr(server, "BUSY_SECONDS", 0.05)
    assert use(app, token).status == 503
    other.execute("COMMIT")
    other.close()
    assert works(app, token)
    assert {*waited} <= {0}, "nothing that the loop does may wait"
    app.store.close()
