"""SQLite store: the file it makes, the files it refuses, and a database that fails: 503, and it recovers."""

import ipaddress
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import server
from serverkit import NOW, TOP, Clock, Process, Running, answers, body, build, cookie_of, new_store, raw, request
from sessionkit import (
    DAY, PASSWORD, SECRETS, add_cheaply, attempt, claims_of, command, enter, exchange, faulty, follow, house,
    in_threads, leave, raw_login, raw_logout, raw_refresh, sign, use, works,
)  # fmt: skip

NOT_NOW = {"message": "The database does not answer. Try again.", "code": "unavailable"}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def rows(store, query, *values):
    """What another program would see in the file of `store`."""
    db = sqlite3.connect(store.path)
    try:
        return db.execute(query, values).fetchall()
    finally:
        db.close()


def served(port, data):
    (answer,) = answers(exchange(port, data))
    cookie = answer["Set-Cookie"]
    return answer.status, cookie and cookie.partition(";")[0].partition("=")[2]


# -- the file


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_and_its_companions_are_for_their_owner_alone(tmp_path, umask):
    path = str(tmp_path / "users.db")
    before = os.umask(umask)
    try:
        store = server.SQLiteStore(path)
        store.end_session("x", 1)
        assert {name: mode(tmp_path / name) for name in os.listdir(tmp_path)} == {
            "users.db": 0o600,
            "users.db-wal": 0o600,
            "users.db-shm": 0o600,
        }
    finally:
        os.umask(before)
        store.close()


def test_a_dangling_link_leads_to_a_file_for_its_owner_alone_too(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    before = os.umask(0)
    try:
        server.SQLiteStore(str(tmp_path / "link")).close()
    finally:
        os.umask(before)
    assert mode(tmp_path / "target") == 0o600


def test_a_file_that_is_there_is_opened_and_one_that_is_not_is_made_only_if_wanted(tmp_path):
    path = str(tmp_path / "users.db")
    with pytest.raises(server.SettingsError, match="users.db does not exist.*user add") as refused:
        server.SQLiteStore(path, create=False)
    assert os.listdir(tmp_path) == [] and not refused.value.passing
    server.SQLiteStore(path).close()
    server.SQLiteStore(path, create=False).close()


def test_it_is_in_wal_mode_and_every_commit_reaches_the_disk(monkeypatch):
    kind, seen = faulty(monkeypatch), []

    def before(connection, statement):
        if statement == "COMMIT":
            seen.append([connection.raw(f"PRAGMA {name}")[0][0] for name in ("synchronous", "busy_timeout")])

    store = new_store()
    kind.before = staticmethod(before)
    store.end_session("x", NOW)
    assert seen == [[2, server.BUSY_SECONDS * 1_000]]
    assert rows(store, "PRAGMA journal_mode") == [("wal",)]
    assert rows(store, "PRAGMA application_id") == [(server.APPLICATION_ID,)]


def test_what_was_stored_is_there_when_it_is_opened_again(tmp_path):
    path = str(tmp_path / "users.db")
    app = house(store=server.SQLiteStore(path, Clock()))
    token = follow(app, enter(app))
    app.store.close()
    again = build(store=server.SQLiteStore(path, Clock()), rotate_refresh=True)
    assert again.store.user_names() == ["ann"] and works(again, token)
    again.store.close()


def test_many_may_make_the_same_file_at_once(tmp_path):
    for number in range(5):
        path = str(tmp_path / f"{number}.db")

        def one(n, path=path):
            store = server.SQLiteStore(path)
            store.add_user(str(n), "p", "e")
            names = store.user_names()
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
    server.SQLiteStore(str(path)).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {server.SCHEMA_VERSION + 1}")
    db.close()


REFUSED = [
    ("of another program", other_database, "is another program's database"),
    (
        "of a newer version",
        newer_database,
        f"another version of minijwt has written it (schema {server.SCHEMA_VERSION + 1})",
    ),
    ("garbage", lambda path: path.write_bytes(b"garbage " * 1_000), "it is not a SQLite file"),
    ("a directory", lambda path: path.mkdir(), "it is a directory"),
    ("in no directory", lambda path: None, "does not exist"),
]


@pytest.mark.parametrize("make, sentence", [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_a_file_that_is_not_ours_is_refused_in_a_sentence_and_left_as_it_is(tmp_path, make, sentence):
    path = tmp_path / "none" / "x.db" if sentence == "does not exist" else tmp_path / "x.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(server.SettingsError) as error:
        server.SQLiteStore(str(path))
    assert sentence in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
    for arguments in ([], ["user", "list"]):
        status, out, err = command(tmp_path, *arguments, DATABASE=str(path), PORT="0", **SECRETS)
        assert (status, out) == (2, "")
        assert err.startswith("server.py: ") and sentence in err and err.count("\n") == 1
    assert (path.read_bytes() if path.is_file() else None) == before
    assert not (tmp_path / "x.db-wal").exists()


def test_a_store_that_was_refused_leaves_no_connection_open(tmp_path):
    other_database(tmp_path / "x.db")
    script = "import gc, server\ntry:\n    server.SQLiteStore('x.db')\nexcept server.SettingsError:\n    gc.collect()\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path, env={"PYTHONPATH": os.path.dirname(server.__file__), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_neither_names_nor_addresses_are_stored():
    app = house(False)
    attempt(app, "hunter2 in the wrong field", "wrong", "192.0.2.1")
    ((key,),) = rows(app.store, "SELECT key FROM failure")
    assert b"hunter" not in key and ipaddress.ip_address("192.0.2.1").packed not in key


@pytest.mark.parametrize("fault", ["database is locked", "database or disk is full", "disk I/O error"])
def test_what_may_pass_by_itself_is_said_to_be_so(monkeypatch, tmp_path, fault):
    def before(connection, statement):
        if statement == "BEGIN IMMEDIATE":
            raise sqlite3.OperationalError(fault)

    faulty(monkeypatch).before = staticmethod(before)
    with pytest.raises(server.SettingsError, match=fault) as refused:
        server.SQLiteStore(str(tmp_path / "users.db"))
    assert refused.value.passing is ("I/O" not in fault)
    monkeypatch.setattr(server.shutil, "disk_usage", lambda path: SimpleNamespace(free=4_096))
    with pytest.raises(server.SettingsError, match=fault) as refused:
        server.SQLiteStore(str(tmp_path / "users.db"))
    assert refused.value.passing


# -- the file as an older version made it

SCHEMA_1 = (TOP / "tests" / "data" / "schema_1.sql").read_text("utf-8")


def old_database(path):
    db = sqlite3.connect(path)
    db.executescript(SCHEMA_1)
    db.close()


def test_a_file_of_schema_1_is_migrated_and_nothing_is_lost_but_the_tutorials_users(tmp_path):
    path = tmp_path / "users.db"
    old_database(path)
    for _ in range(2):
        store = server.SQLiteStore(str(path), Clock())
        assert rows(store, "PRAGMA user_version") == [(2,)]
        assert rows(store, "SELECT * FROM user ORDER BY name") == [
            ("ann", "scrypt$2$1$1$00$00", "e" * 16), ("bob", "pbkdf2$1$00$00", "f" * 16)]  # fmt: skip
        assert store.look_up("ann", "rotated", 0)[2:] == (1, 1_799_999_999, 3, NOW + 0.5, 0)
        assert store.look_up("bob", "ended", 0).ended
        assert store.count_login_attempt(b"\0\xff", NOW, 10) == 30
        store.clear_login_attempts(b"\0\xff")
        rows(store, "SELECT 1")
        store.close()
        old = [(b"\0\xff", 12, NOW + 30, NOW + DAY)]
        db = sqlite3.connect(path)
        db.executemany("INSERT INTO failure VALUES (?, ?, ?, ?)", old)
        db.commit()
        db.close()


def test_a_migrated_file_has_the_tables_of_a_new_one(tmp_path):
    old_database(tmp_path / "old.db")
    shapes = []
    for name in ("old.db", "new.db"):
        store = server.SQLiteStore(str(tmp_path / name))
        tables = rows(store, "SELECT name FROM sqlite_master ORDER BY name")
        shapes.append([(table, rows(store, f"PRAGMA table_info('{table}')")) for (table,) in tables])
        assert store.add_user("cy", "p", "e") and store.user_names()[-1] == "cy"
        store.close()
    assert shapes[0] == shapes[1]


def test_a_migration_that_fails_leaves_the_file_as_it_was_and_the_next_one_succeeds(tmp_path, monkeypatch):
    path, kind = tmp_path / "users.db", faulty(monkeypatch)
    old_database(path)

    def before(connection, statement):
        if statement.lstrip().startswith("ALTER TABLE"):
            raise sqlite3.OperationalError("database or disk is full")

    kind.before = staticmethod(before)
    with pytest.raises(server.SettingsError, match="full"):
        server.SQLiteStore(str(path))
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchall() == [(1,)]
    assert db.execute("SELECT name, tutorial FROM user ORDER BY name").fetchall() == [("ann", 1), ("bob", 0)]
    db.close()
    kind.before = staticmethod(lambda connection, statement: None)
    store = server.SQLiteStore(str(path))
    assert store.user_names() == ["ann", "bob"]
    store.close()


def test_many_may_migrate_the_same_file_at_once(tmp_path):
    path = str(tmp_path / "users.db")
    old_database(path)

    def one(number):
        store = server.SQLiteStore(path)
        names = store.user_names()
        store.close()
        return names

    assert in_threads(8, one) == [["ann", "bob"]] * 8


# -- moving to another store


def test_rows_are_given_out_in_the_order_that_is_wanted():
    """Ended sessions before users: a part of an export must not bring sessions back to life."""
    store = new_store()
    store.add_user("ann", "p", "e")
    store.end_session("s", NOW)
    order = ["pruned", "session", "user"]
    for kinds in (order, order[::-1], order[1:]):
        assert [key.partition("/")[0] for key, _ in store.dump(*kinds)] == kinds


# -- the file is the one it was


class Moved:
    """A store whose file is moved away under it, with its companions, and brought back."""

    def __init__(self, directory):
        self.directory, self.clock = directory, Clock()
        self.path = str(directory / "users.db")
        (directory / "aside").mkdir()
        self.store = server.SQLiteStore(self.path, self.clock)
        self.store.add_user("ann", "p", "e")

    def move(self, there, back):
        for name in os.listdir(there):
            if name.startswith("users.db"):
                os.rename(there / name, back / name)

    def away(self):
        self.move(self.directory, self.directory / "aside")

    def back(self):
        for name in os.listdir(self.directory):
            if name.startswith("users.db"):
                os.unlink(self.directory / name)
        self.move(self.directory / "aside", self.directory)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_or_another_one_is_a_fault_until_it_is_back(tmp_path, replaced):
    moved = Moved(tmp_path)
    store, clock = moved.store, moved.clock
    assert store.user_names() == ["ann"]
    moved.away()
    if replaced:
        other = server.SQLiteStore(moved.path, clock)
        other.add_user("bob", "p", "e")
    with pytest.raises(server.StoreFailed, match="another file" if replaced else "No such file"):
        store.end_session("s", NOW + DAY)
    clock.now += 1
    for _ in range(3):
        with pytest.raises(server.StoreFailed):
            store.user_names()
        with pytest.raises(server.StoreFailed):
            store.batch([lambda: store.end_session("s", NOW + DAY)])
    if replaced:
        assert other.user_names() == ["bob"]
        other.close()
    moved.back()
    clock.now += 1
    assert store.user_names() == ["ann"]
    assert store.look_up("ann", "s", NOW + DAY).generation is None, "and nothing was written anywhere"
    store.end_session("s", NOW + DAY)
    assert store.look_up("ann", "s", NOW + DAY).ended
    store.close()


def test_a_server_whose_file_was_replaced_answers_503_and_leaves_the_new_one_alone(tmp_path):
    path, now = tmp_path / "users.db", int(time.time())
    add_cheaply(path)
    token = sign(epoch="e" * 16, iat=now, exp=now + DAY)
    environment = {"DATABASE": str(path), "ROTATE_REFRESH": "on", **SECRETS}
    with Process(tmp_path, **environment) as process:
        assert served(process.port, raw_refresh(token))[0] == 200
        (tmp_path / "aside").mkdir()
        for name in ("users.db", "users.db-wal", "users.db-shm"):
            os.rename(tmp_path / name, tmp_path / "aside" / name)
        new = server.SQLiteStore(str(path))
        assert new.add_user("bob", "p", "e")
        assert served(process.port, raw_refresh(token))[0] == 503
        assert served(process.port, raw_logout(token))[0] == 503
        assert new.add_user("cy", "p", "e")
        status, _, errors = process.stop()
    assert status == 0 and "Traceback" not in errors and errors.count(" database error=") == 1, errors
    assert new.add_user("dee", "p", "e") and rows(new, "SELECT name FROM user") == [("bob",), ("cy",), ("dee",)]
    new.close()
    for name in os.listdir(tmp_path / "aside"):
        os.rename(tmp_path / "aside" / name, tmp_path / name)
    old = server.SQLiteStore(str(path))
    assert old.user_names() == ["ann"] and old.look_up("ann", "5" * 32, 0).generation == 1
    old.close()


# -- reading beside a writer


def test_who_reads_several_things_sees_one_moment_and_who_reads_one_the_newest():
    store = new_store()
    store.add_user("ann", "p", "e")
    for several, seen in ((True, "e"), (False, "f")):
        store.change_password("ann", "p", "e")
        with store.reading(several):
            assert store.look_up("ann", "", 0).epoch == "e"
            in_threads(1, lambda number: [store.replace_epoch("ann", "f"), store.close()])
            assert store.look_up("ann", "", 0).epoch == seen
        assert store.look_up("ann", "", 0).epoch == "f"


WRITING = {
    "add_user": ("bob", "p", "e"), "change_password": ("ann", "p", "e"), "rehash": ("ann", "p", "q"),
    "replace_epoch": ("ann", "e"), "remove_user": ("ann",), "add_session": ("s", NOW), "rotate_session": ("s", 0, NOW, NOW),
    "end_session": ("s", NOW), "count_login_attempt": (b"k", NOW, 10), "clear_login_attempts": (b"k",),
}  # fmt: skip


@pytest.mark.parametrize("verb", WRITING)
@pytest.mark.parametrize("several", [False, True])
def test_whatever_writes_is_to_be_done_again_in_another_thread(verb, several):
    store = new_store()
    store.add_user("ann", "p", "e")
    with store.reading(several), pytest.raises(server.Redo):
        getattr(store, verb)(*WRITING[verb])
    assert store.user_names() == ["ann"]
    getattr(store, verb)(*WRITING[verb])


# -- as much work for many rows as for few


def test_the_database_does_the_same_work_for_an_unknown_user_among_thousands(monkeypatch):
    kind, steps = faulty(monkeypatch), []
    app = build(login_max_failures=0)
    app.store.batch([lambda n=n: app.store.add_user(f"user{n}", "x", "e") for n in range(3_000)])
    app.accounts.add_user("ann", PASSWORD)
    kind.before = staticmethod(
        lambda connection, statement: connection.set_progress_handler(lambda: steps.append(1), 1)
    )
    work = []
    for name in ("ann", "nobody"):
        steps.clear()
        attempt(app, name, "wrong password")
        work.append(len(steps))
    assert work[1] < work[0] + 100, f"{work}: a stopwatch tells which names exist"


def test_the_oldest_rows_are_found_with_the_same_work_however_many_there_are(monkeypatch):
    kind, steps, work = faulty(monkeypatch), [], []
    store = new_store()
    for count in (10, 3_000):
        keys = [str(number).encode() for number in range(count)]
        kind.before = staticmethod(lambda connection, statement: None)
        store.batch([lambda key=key: store.count_login_attempt(key, NOW, 10) for key in keys])
        kind.before = staticmethod(
            lambda connection, statement: connection.set_progress_handler(lambda: steps.append(1), 1)
        )
        steps.clear()
        store.count_login_attempt(b"k", NOW, 10)
        work.append(len(steps))
    assert 0 < work[1] < work[0] + 100, work


def test_the_rows_of_attempts_are_bounded_and_expired_ones_go(monkeypatch):
    monkeypatch.setattr(server, "MAX_ATTEMPT_ROWS", 50)
    store = new_store()
    for number in range(200):
        store.count_login_attempt(f"{number}".encode(), NOW + number, 10)
    assert rows(store, "SELECT count(*) FROM failure")[0][0] <= 51
    for number in range(26):
        store.count_login_attempt(b"k", NOW + 2 * DAY + number, 50)
    assert rows(store, "SELECT count(*) FROM failure") == [(1,)]


def test_pruning_leaves_nothing_behind_and_goes_in_small_steps():
    clock = Clock()
    store = new_store(clock)
    count = 2 * server.PRUNE_ROWS + 50
    store.batch([lambda n=n: store.end_session(f"{n}", NOW + 10) for n in range(count)])
    store.end_session("living", NOW + 11)
    clock.now += 10
    left = []
    for _ in range(4):
        store.batch([])
        left.append(rows(store, "SELECT count(*) FROM session")[0][0])
    assert left == [count + 1 - server.PRUNE_ROWS, count + 1 - 2 * server.PRUNE_ROWS, 1, 1]


# -- several processes


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
        store = server.SQLiteStore(str(path))
        token = sign(epoch=store.look_up("ann", "", 0).epoch, iat=now, exp=now + DAY)
        store.close()
        assert statuses() == [200, 200]
        first.exchange(raw_logout(token))
        assert statuses() == [406, 406]


def test_200_threads_at_two_servers_on_one_database_get_the_same_successor(tmp_path):
    path = tmp_path / "users.db"
    add_cheaply(path)
    now = int(time.time())
    token = sign(epoch="e" * 16, iat=now, exp=now + DAY)
    environment = {"DATABASE": str(path), "ROTATE_REFRESH": "on", **SECRETS}
    with Process(tmp_path, **environment) as first, Process(tmp_path, **environment) as second:
        ports = [first.port, second.port]
        found = in_threads(200, lambda number: exchange(ports[number % 2], raw_refresh(token)))
        cookies = set()
        for data in found:
            (answer,) = answers(data)
            assert answer.status == 200, answer.body
            cookies.add(answer["Set-Cookie"].partition(";")[0].partition("=")[2])
        (successor,) = cookies
        assert claims_of(successor, now=now)["gen"] == 1
        (again,) = answers(exchange(second.port, raw_refresh(successor)))
        assert again.status == 200 and "Set-Cookie" in dict(again.fields)


def test_what_was_answered_survives_kill_9(tmp_path):
    path = tmp_path / "users.db"
    add_cheaply(path)
    now = int(time.time())
    environment = {"DATABASE": str(path), "ROTATE_REFRESH": "on", **SECRETS}
    kept, gone, stolen = (sign(sid=each * 32, epoch="e" * 16, iat=now, exp=now + DAY) for each in "123")
    with Process(tmp_path, **environment) as process:
        _, parent = served(process.port, raw_refresh(kept))
        _, child = served(process.port, raw_refresh(parent))
        _, last = served(process.port, raw_refresh(gone))
        assert served(process.port, raw_logout(last)) == (204, "")
        _, middle = served(process.port, raw_refresh(stolen))
        _, newest = served(process.port, raw_refresh(middle))
        assert process.stop(signal.SIGKILL)[0] == -9
    with Process(tmp_path, **environment) as process:
        assert served(process.port, raw_refresh(parent)) == (200, child), "the parent's grace"
        status, grandchild = served(process.port, raw_refresh(child))
        assert status == 200 and grandchild
        for token in (gone, last):
            assert served(process.port, raw_refresh(token)) == (406, None)
        assert served(process.port, raw_refresh(stolen)) == (406, None), "the grandparent's refusal"
        assert served(process.port, raw_refresh(newest)) == (406, None)
        assert process.stop(signal.SIGKILL)[0] == -9
    with Process(tmp_path, **environment) as process:
        for token in (gone, last, stolen, middle, newest):
            assert served(process.port, raw_refresh(token)) == (406, None)
        assert served(process.port, raw_refresh(child)) == (200, grandchild)


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
            (answer,) = app.store.batch([lambda: function(app, *arguments)])
        except server.StoreFailed as error:
            return server.store_failed(app, request("POST", "/logout" if function is leave else "/refresh"), error)
        return answer

    state["on"] = True
    for function, arguments in [(use, [third]), (use, [first]), (leave, [third]), (use, [fresh])]:
        answer = one(function, *arguments)
        assert (answer.status, body(answer)) == (503, NOT_NOW)
        assert [name for name, _ in answer.fields] == ["Retry-After", *["Set-Cookie"] * (function is leave)]
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
        app.store.batch([unlucky, lambda: use(app, tokens[1])])
    assert [app.store.look_up("ann", claims_of(token)["sid"], 0).generation for token in tokens] == [None, None]


def test_a_full_disk_is_a_503_and_recovers(monkeypatch):
    kind, state = faulty(monkeypatch), {"on": False}
    full(kind, state)
    app = build(rotate_refresh=True)
    app.accounts.add_user("ann", PASSWORD)
    token = enter(app)
    state["on"] = True
    seen, held = set(), []
    for number in range(300):  # until the pages that are there are full
        answer = use(app, sign("ann", f"{number}" * 40, epoch=app.store.look_up("ann", "", 0).epoch))
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
    app = build(store=server.SQLiteStore(path, Clock()), rotate_refresh=True)
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
    app = build(store=server.SQLiteStore(path, Clock()))
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
    app = build(store=server.SQLiteStore(path, Clock()), log=log, rotate_refresh=rotate)
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
    app = build(store=server.SQLiteStore(path, Clock()))
    token = enter(app, "admin", "admin123")
    app.store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    waited = []
    kind = faulty(monkeypatch)
    kind.before = staticmethod(lambda connection, statement: waited.append(connection.raw("PRAGMA busy_timeout")[0][0]))
    monkeypatch.setattr(server, "BUSY_SECONDS", 0.05)
    with app.store.reading(False):
        assert use(app, token).status == 503
    other.execute("COMMIT")
    other.close()
    with app.store.reading(False):
        assert works(app, token)
    assert {*waited} == {0}, "nothing that the loop does may wait"
    app.store.close()
