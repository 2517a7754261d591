"""Shared store: the contract of all stores, over an etcd in a thread and a real one; and what etcd's faults become."""

import contextlib
import inspect
import itertools
import os
import sqlite3
import ssl
import time
from pathlib import Path

import etcdkit
import pytest
import server
from fake_etcd import FakeEtcd
from serverkit import ASK_FOR_PAGE, LONG, NOW, RAW_LOGIN, Clock, Process, Running, answers, build, raw, request, stores
from sessionkit import PASSWORD, SECRETS, command, enter, follow, leave, raw_login, raw_logout, raw_refresh, sign, use, works
from test_server_03_store import *  # noqa: F403: all its tests run once more here, but for those that are written anew
from test_server_03_store import FAR, VERBS, count, done, session, told

prefixes = itertools.count()
PEM = Path(__file__).resolve().parent / "localhost.pem"
WHY_NO_ETCD = etcdkit.why_not() if LONG else "long: `make prove` runs it"


@pytest.fixture(scope="session")
def fake():
    with FakeEtcd() as etcd:
        yield etcd


@pytest.fixture(scope="session")
def real():
    if why := WHY_NO_ETCD:
        pytest.skip(why)
    with etcdkit.Cluster(1) as cluster:
        yield cluster.ports[0]


def open_store(ports, clock, prefix="minijwt", login=None, tls=None):
    nodes = [("127.0.0.1", port) for port in ports]
    return server.EtcdStore("etcd://", nodes, prefix, tls, login or {}, clock)


@pytest.fixture(params=["fake", "real"])
def store(request, monkeypatch, clock):
    """An empty one, whose every write looks for what has expired."""
    monkeypatch.setattr(server, "PRUNE_SECONDS", 0)
    etcd = request.getfixturevalue(request.param)
    port = etcd.port if request.param == "fake" else etcd
    store = open_store([port], clock, f"test-{next(prefixes)}")
    yield store
    store.close()


# -- the contract, where a shared store differs


@pytest.mark.parametrize("key, value", [("failure/00", [1]), ("failure/00", {}), ("session/zz", 1), ("session/0", None)])
def test_a_row_of_another_program_does_not_harm_the_verbs(store, key, value):
    store.keep(key, value)
    store.add_user("ann", "p", "e")
    assert store.user_names() == ["ann"]


def test_both_stores_have_every_verb_with_the_parameters_of_the_protocol():
    for name in VERBS:
        wanted, found = (inspect.signature(getattr(each, name)) for each in (server.Store, server.EtcdStore))
        assert str(found.parameters) == str(wanted.parameters), name
    assert server.EtcdStore.inline_reads is False


def test_of_an_empty_store_nothing_is_known(store):
    assert store.user_names() == []
    assert told(store) == (None, None, True, 0, None, 0.0, False), "there is no demo user"


def test_a_user_is_added_once_and_the_first_one_stays(store):
    assert store.add_user("ann", "p", "e") is True
    assert store.add_user("ann", "other", "other") is False
    assert store.add_user("ann", "p", "e") is True, "the same request, asked again"
    assert told(store)[:2] == ("p", "e") and told(store, "bob")[:2] == (None, None)


def test_a_removed_user_is_gone_and_can_be_added_again(store):
    assert store.remove_user("ann") is False
    store.add_user("ann", "p", "e")
    assert store.remove_user("ann") is True
    assert told(store)[:2] == (None, None) and store.user_names() == []
    assert store.remove_user("ann") is False
    assert store.change_password("ann", "q", "f") is store.replace_epoch("ann", "f") is False
    assert store.add_user("ann", "q", "f") is True and store.user_names() == ["ann"]


@pytest.mark.parametrize("several", [False, True])
def test_who_only_reads_can_do_so_and_a_verb_that_may_not_write_there_asks_for_another_thread(store, several):
    with store.reading(several):
        for verb in (store.user_names, lambda: told(store), lambda: store.rotate_session("s", 0, FAR, NOW)):
            with pytest.raises(server.Redo):
                verb()
    assert store.rotate_session("s", 0, FAR, NOW) is True, "and afterwards all is as before"


def test_a_batch_returns_all_results_in_order_and_each_work_sees_those_before_it(store):
    works = [
        lambda: store.add_user("ann", "p", "e"),
        lambda: store.add_user("ann", "p2", "e2"),
        lambda: told(store)[0],
        lambda: store.rotate_session("s", 0, FAR, NOW),
        lambda: store.rotate_session("s", 0, FAR, NOW),
        lambda: store.look_up("ann", "s", FAR).generation,
        lambda: count(store),
        lambda: store.end_session("s", FAR),
    ]
    assert store.batch(works) == [True, False, "p", True, False, 1, 0, None]
    assert session(store) == (1, NOW, True)
    assert store.batch([]) == []


def test_a_late_request_that_added_a_user_does_not_bring_a_removed_one_back():
    """A paused node does what it was asked when it goes on: another one has done it long since."""
    with FakeEtcd() as etcd:
        store, held = open_store([etcd.port], Clock()), []
        etcd.after = lambda path, body: held.append(body) if "requestTxn" in str(body) else None
        store.add_user("ann", "p", "e")
        store.rotate_session("s", 0, FAR, NOW)
        etcd.after = lambda path, body: None
        store.remove_user("ann")
        store.end_session("s", FAR)
        for body in held:
            etcd.rows.txn(body)
        assert told(store)[:2] == (None, None) and session(store) == (1, NOW, True)
        store.close()


# -- faults


@pytest.fixture
def pair():
    """A cluster of two nodes, of which the first is asked first."""
    with FakeEtcd() as first, FakeEtcd(first) as second:
        yield first, second


@pytest.fixture
def brief(monkeypatch):
    """A node has its time to answer, and there is no second one to wait for."""
    monkeypatch.setattr(server, "STORE_SECONDS", server.NODE_SECONDS + 0.1)


@pytest.fixture
def impatient(monkeypatch):
    for name, seconds in (("NODE_SECONDS", 0.5), ("STORE_SECONDS", 1.2), ("SILENT_SECONDS", 0.1), ("PAUSE_SECONDS", 0.02)):
        monkeypatch.setattr(server, name, seconds)


def stall(path, body):
    """Answer when nobody waits any more."""
    time.sleep(server.NODE_SECONDS + 0.1)


BROKEN = {
    "stalls": stall,
    "not JSON": lambda path, body: (200, b"<html>"),
    "not etcd's": lambda path, body: (200, b'{"ok": true}'),
    "no leader": lambda path, body: (503, b'{"error": "etcdserver: no leader", "code": 14}'),
    "timed out": lambda path, body: (504, b'{"error": "etcdserver: request timed out", "code": 4}'),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_node_that_fails_is_left_for_another_and_what_was_done_is_not_done_twice(pair, impatient, clock, fault, when):
    first, second = pair
    store = open_store([first.port, second.port], clock)
    setattr(first, when, BROKEN[fault])
    assert store.add_user("ann", "p", "e") is True
    store.rotate_session("s", 0, FAR, NOW)
    assert session(store) == (1, NOW, False)
    assert store.change_password("ann", "q", "f", "p") is True and told(store)[:2] == ("q", "f")
    store.end_session("s", FAR)
    assert session(store) == (1, NOW, True)
    store.close()


@pytest.mark.parametrize(
    "fault", [fault if fault == "stalls" else pytest.param(fault, marks=pytest.mark.long) for fault in BROKEN]
)
def test_without_a_node_that_answers_the_store_fails_in_time_and_heals_by_itself(pair, impatient, clock, fault):
    store = open_store([node.port for node in pair], clock)
    store.add_user("ann", "p", "e")
    for node in pair:
        node.before = BROKEN[fault]
    began = time.monotonic()
    with pytest.raises(server.StoreFailed) as failure:
        store.look_up("ann", "s", FAR)
    assert "127.0.0.1:" in str(failure.value) and "\n" not in str(failure.value)
    asked = sum(len(node.asked) for node in pair)
    with pytest.raises(server.StoreFailed):
        store.look_up("ann", "s", FAR)
    assert sum(len(node.asked) for node in pair) == asked, "for a moment, no node is asked"
    assert time.monotonic() - began < 3
    for node in pair:
        node.before = lambda path, body: None
    time.sleep(server.SILENT_SECONDS)
    assert told(store)[0] == "p"
    store.close()


def test_seconds_in_which_no_node_answers_do_not_count_for_the_grace(pair, impatient, clock):
    first, _ = pair
    store = open_store([first.port], clock)
    store.rotate_session("s", 0, FAR, NOW)
    clock.now += 10
    first.before = BROKEN["no leader"]
    with pytest.raises(server.StoreFailed):
        store.look_up("ann", "s", FAR)
    clock.now += 20
    time.sleep(server.SILENT_SECONDS)
    with pytest.raises(server.StoreFailed):
        store.look_up("ann", "s", FAR)
    first.before = lambda path, body: None
    time.sleep(server.SILENT_SECONDS)
    assert session(store)[1] == NOW + 20
    clock.now += 15
    assert session(store)[1] == pytest.approx(NOW + 20, abs=server.SILENT_SECONDS), "from then on they count again"
    store.close()


def test_an_outage_ends_soon_after_the_last_request_that_failed(pair, impatient, clock):
    """Otherwise a server that nobody asks for hours, after one that failed, would forgive what happened meanwhile."""
    first, _ = pair
    store, other = open_store([first.port], clock, "idle"), open_store([first.port], clock, "idle")
    first.before = BROKEN["no leader"]
    with pytest.raises(server.StoreFailed):
        store.look_up("ann", "s", FAR)
    first.before = lambda path, body: None
    time.sleep(server.SILENT_SECONDS)
    clock.now += 3_600
    other.rotate_session("s", 0, FAR, clock.now)
    clock.now += 3_600
    assert session(store)[1] == clock.now - 3_600
    store.close()
    other.close()


def test_a_flood_of_equal_logouts_is_one_write(fake, clock):
    store = open_store([fake.port], clock, f"test-{next(prefixes)}")
    before = len(fake.asked)
    store.batch([lambda: store.end_session("s", FAR)] * 256)
    assert session(store)[2] and len(fake.asked) - before <= 4
    store.close()


def test_of_two_stores_that_race_only_one_rotates(fake, clock):
    prefix = f"test-{next(prefixes)}"
    one, other = open_store([fake.port], clock, prefix), open_store([fake.port], clock, prefix)
    assert other.look_up("ann", "s", FAR).generation is None
    assert (one.rotate_session("s", 0, FAR, NOW), other.rotate_session("s", 0, FAR, NOW)) == (True, False)
    one.end_session("s", FAR)
    assert session(other) == (1, NOW, True)
    one.close()
    other.close()


def test_a_large_batch_asks_etcd_for_no_more_than_it_takes(fake, clock):
    """The etcd in a thread refuses more operations than etcd's 128, and a key that is written twice."""
    store = open_store([fake.port], clock, f"test-{next(prefixes)}")
    before = len(fake.asked)
    works = [lambda number=number: store.rotate_session(f"{number}", 0, FAR, NOW) for number in range(256)]
    assert store.batch(works) == [True] * 256
    assert len(fake.asked) - before == 4, "two that read, two that write"
    cookies = [lambda n=n: [store.end_session(f"{n} {each}", FAR) for each in range(server.MAX_COOKIES)] for n in range(100)]
    store.batch(cookies)
    assert session(store, "99 7")[2]
    store.close()


def txns(etcd):
    return [body for path, body in etcd.asked if path == "/v3/kv/txn"]


def test_what_was_seen_before_is_confirmed_before_anything_is_answered(fake, clock):
    """By a transaction that also reads: without that, etcd would answer it from one node's memory."""
    prefix = f"test-{next(prefixes)}"
    one, other = open_store([fake.port], clock, prefix), open_store([fake.port], clock, prefix)
    other.add_user("ann", "p", "e")
    assert told(one)[0] == "p"
    before = len(txns(fake))
    assert told(one)[0] == "p"
    (body,) = txns(fake)[before:]
    assert len(body["compare"]) == len(body["failure"]) == 3 and body["success"] == []
    other.change_password("ann", "q", "f")
    other.end_session("s", FAR)
    assert told(one)[:2] == ("q", "f") and session(one)[2]
    other.remove_user("ann")
    assert one.change_password("ann", "r", "g", "q") is False and told(one)[0] is None
    one.close()
    other.close()


def test_of_a_batch_only_what_has_changed_runs_again(fake, clock):
    prefix, ran = f"test-{next(prefixes)}", []
    one, other = open_store([fake.port], clock, prefix), open_store([fake.port], clock, prefix)
    names = [f"{number}" for number in range(20)]

    def rotate(name, generation):
        ran.append(name)
        return one.rotate_session(name, generation, FAR, NOW)

    assert one.batch([lambda name=name: rotate(name, 0) for name in names]) == [True] * 20
    other.end_session("7", FAR)
    ran.clear()
    before = len(txns(fake))
    assert one.batch([lambda name=name: rotate(name, 1) for name in names]) == [True] * 7 + [False] + [True] * 12
    assert ran == [*names, "7"] and len(txns(fake)) - before == 2, "refused, and then without the one that has changed"
    assert session(one, "8")[0] == 2
    other.rotate_session("8", 2, FAR, NOW)
    before = len(txns(fake))
    assert one.batch([lambda name=name: session(one, name)[0] for name in names]) == [2] * 7 + [1, 3] + [2] * 11
    assert len(txns(fake)) - before == 1, "those that only read have their answer with the refusal"
    one.close()
    other.close()


def test_after_an_outage_nothing_is_guessed(impatient, clock):
    """In a cluster that was restored from a backup, a revision that was seen may have another value."""
    with FakeEtcd() as etcd:
        store = open_store([etcd.port], clock)
        store.add_user("ann", "p", "e")
        etcd.before = BROKEN["no leader"]
        with pytest.raises(server.StoreFailed):
            told(store)
        etcd.before = lambda path, body: None
        _, revision = etcd.rows.rows[b"minijwt/user/ann"]
        etcd.rows.rows[b"minijwt/user/ann"] = b'["restored", "f"]', revision
        time.sleep(server.SILENT_SECONDS)
        assert told(store)[:2] == ("restored", "f")
        store.close()


def test_guesses_are_bounded(fake, clock, monkeypatch):
    monkeypatch.setattr(server, "MAX_GUESSES", 100)
    store = open_store([fake.port], clock, f"test-{next(prefixes)}")
    for number in range(300):
        store.add_session(f"{number}", FAR)
    kept = sum(1 for each in vars(store).values() if isinstance(each, dict) for key in each if "session/" in key)
    assert 0 < kept <= 101
    store.close()


def test_the_first_node_is_asked_again_when_it_is_back(pair, impatient, clock, monkeypatch):
    monkeypatch.setattr(server, "OWN_NODE_SECONDS", 0.1)
    first, second = pair
    store = open_store([first.port, second.port], clock)
    first.before = BROKEN["no leader"]
    store.add_user("ann", "p", "e")
    first.before = lambda path, body: None
    before = len(first.asked)
    assert told(store)[0] == "p" and len(first.asked) == before, "not at once: it may be away for long"
    time.sleep(server.OWN_NODE_SECONDS)
    assert told(store)[0] == "p" and len(first.asked) == before + 1
    store.close()


# -- a login for etcd


def test_a_token_that_has_expired_is_renewed(clock):
    with FakeEtcd(login="minijwt:secret") as etcd:
        store = open_store([etcd.port], clock, login={"name": "minijwt", "password": "secret"})
        store.add_user("ann", "p", "e")
        etcd.tokens.clear()
        assert told(store)[0] == "p"
        store.close()


# -- the server over it

GET_PAGE = request("GET", "/", accept="text/html")
POST_REFRESH = request("POST", "/refresh", cookie=f"jwt={sign()}")


def over(etcd, log=None, **changes):
    clock = Clock()
    store = open_store([etcd.port], clock, f"test-{next(prefixes)}")
    stores.append(store)
    return build(clock, store, log, **changes)


@pytest.mark.parametrize("rotate", [False, True])
def test_a_login_a_refresh_and_a_logout_through_the_lanes(fake, rotate):
    app = over(fake, rotate_refresh=rotate)
    app.accounts.add_user("ann", PASSWORD)
    with Running(app) as running:
        (login,) = answers(running.exchange(raw_login("ann", PASSWORD)))
        token = login["Set-Cookie"].partition(";")[0].partition("=")[2]
        (refresh,) = answers(running.exchange(raw_refresh(token)))
        (root,) = answers(running.exchange(raw()))
        assert (login.status, refresh.status, bool(refresh["Set-Cookie"]), root.status) == (200, 200, rotate, 200)
        assert answers(running.exchange(raw_logout(token)))[0].status == 204
        assert answers(running.exchange(raw_refresh(token)))[0].status == 406


def test_there_is_no_demo_user(fake):
    with Running(over(fake)) as running:
        assert answers(running.exchange(RAW_LOGIN))[0].status == 406


def test_without_the_store_503_and_what_needs_none_goes_on(impatient):
    with FakeEtcd() as etcd:
        app = over(etcd, rotate_refresh=True)
        app.accounts.add_user("ann", PASSWORD)
        token = enter(app)
        with Running(app) as running:
            etcd.before = BROKEN["no leader"]
            for data in (raw_refresh(token), raw_logout(token), raw_login("ann", PASSWORD), raw()):
                (answer,) = answers(running.exchange(data))
                assert (answer.status, answer["Retry-After"]) == (503, "1")
                assert answer.json["code"] == "unavailable"
            (left,) = answers(running.exchange(raw_logout(token)))
            assert left.status == 503 and "Max-Age=0" in left["Set-Cookie"]
            (page,) = answers(running.exchange(raw("GET", "/me")))
            assert page.status == 401
            asked = len(etcd.asked)
            assert answers(running.exchange(ASK_FOR_PAGE))[0].status == 200
            assert len(etcd.asked) == asked, "it is not worth a wait"
            for number in range(3):
                works = [lambda request=request: server.respond(app, request) for request in (POST_REFRESH, GET_PAGE)]
                assert [response.status for response in app.store.batch(works)] == [503, 200]
            etcd.before = lambda path, body: None
            time.sleep(server.SILENT_SECONDS)
            assert answers(running.exchange(raw_refresh(token)))[0].status == 200


# -- settings


@pytest.mark.parametrize("text, sentence", [
    ("etcd://localhost:2379", "'localhost:2379' is not a literal address and a port"),
    ("etcd://10.0.0.1", "'10.0.0.1' is not a literal address and a port"),
    ("etcd://10.0.0.1:0", "'10.0.0.1:0' is not a literal address and a port"),
    ("etcd://10.0.0.1:99999", "'10.0.0.1:99999' is not a literal address and a port"),
    ("etcd://10.0.0.1:2379,", "'' is not a literal address and a port"),
    ("etcd://fd00::1:2379,[fd00::2]", "'[fd00::2]' is not a literal address and a port"),
    ("etcd:10.0.0.1:2379", "it must be etcd://ADDRESS:PORT"),
    ("etcd://10.0.0.1:2379/a/b", "it must be etcd://ADDRESS:PORT"),
    ("etcd://10.0.0.1:2379", "DATABASE_CA"),
])  # fmt: skip
def test_an_address_that_cannot_be_used_is_one_sentence(text, sentence):
    with pytest.raises(server.SettingsError) as wrong:
        server.read_settings({**SECRETS, "DATABASE": text}, "")
    assert sentence in str(wrong.value) and "\n" not in str(wrong.value)


@pytest.mark.parametrize("given, sentence", [
    ({"DATABASE_CA": "ca.pem"}, "DATABASE_CA is for etcd"),
    ({"DATABASE": "etcd://127.0.0.1:2379", "DATABASE_CERT": "c"}, "DATABASE_CERT and DATABASE_KEY belong together"),
    ({"DATABASE": "etcd://127.0.0.1:2379", "DATABASE_CERT": "c", "DATABASE_KEY": "k"}, "without DATABASE_CA"),
])  # fmt: skip
def test_settings_that_do_not_belong_together_are_one_sentence(given, sentence):
    with pytest.raises(server.SettingsError, match=sentence):
        server.read_settings({**SECRETS, **given}, "")


def test_without_secrets_there_is_no_shared_store():
    with pytest.raises(server.SettingsError, match="the same ones on every machine"):
        server.read_settings({"DATABASE": "etcd://127.0.0.1:2379"}, "")


def test_nodes_and_prefix_are_read():
    assert server.etcd_nodes("etcd://10.0.0.1:2379,[fd00::1]:2380/app") == ([("10.0.0.1", 2379), ("fd00::1", 2380)], "app")
    assert server.etcd_nodes("etcd://127.0.0.1:1")[1] == "minijwt"


def refusal(directory, etcd, *arguments, **more):
    status, out, err = command(directory, *arguments, DATABASE=f"etcd://127.0.0.1:{etcd}", **SECRETS, **more)
    assert (out, err.count("\n"), err[:11]) == ("", 1, "server.py: "), err
    return status, err


def test_a_cluster_that_cannot_be_reached_is_one_sentence_and_may_pass(brief, tmp_path):
    (port,) = etcdkit.free_ports(1)
    with pytest.raises(server.SettingsError) as wrong:
        server.open_store(server.read_settings({**SECRETS, "DATABASE": f"etcd://127.0.0.1:{port}"}, ""))
    assert f"127.0.0.1:{port}: [Errno" in str(wrong.value) and "\n" not in str(wrong.value)
    assert wrong.value.passing, "the exit status is 1: a supervisor tries again"


@pytest.mark.parametrize("answer, sentence", [
    ((200, b"<html>"), "it answers 200: <html>"), ((200, b"{}"), "it answers 200: {}"),
    ((503, b'{"error": "etcdserver: no leader"}'), "it answers 503: etcdserver: no leader"),
])  # fmt: skip
def test_what_does_not_answer_as_etcd_does_is_one_sentence(brief, answer, sentence):
    with FakeEtcd() as etcd:
        etcd.before = lambda path, body: answer
        with pytest.raises(server.SettingsError) as wrong:
            server.open_store(server.read_settings({**SECRETS, "DATABASE": f"etcd://127.0.0.1:{etcd.port}"}, ""))
        assert str(wrong.value).endswith(f"cannot be used: 127.0.0.1:{etcd.port}: {sentence}")
        assert wrong.value.passing


def test_a_node_of_another_ca_is_one_sentence_for_the_operator(brief, tmp_path):
    if why := etcdkit.make_pems(tmp_path):
        pytest.skip(why)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(PEM)
    with FakeEtcd(tls=tls) as etcd:
        given = {**SECRETS, "DATABASE": f"etcd://127.0.0.1:{etcd.port}"}
        server.open_store(server.read_settings({**given, "DATABASE_CA": str(PEM)}, "")).close()
        with pytest.raises(server.SettingsError) as wrong:
            server.open_store(server.read_settings({**given, "DATABASE_CA": str(tmp_path / "ca.pem")}, ""))
        assert "CERTIFICATE_VERIFY_FAILED" in str(wrong.value) and "\n" not in str(wrong.value)
        assert not wrong.value.passing


def test_a_command_that_only_reads_writes_nothing(tmp_path):
    with FakeEtcd() as etcd:
        given = {"DATABASE": f"etcd://127.0.0.1:{etcd.port}", **SECRETS}
        assert command(tmp_path, "user", "list", **given) == (0, "", "")
        assert etcd.rows.rows == {} and etcd.rows.revision == 1


def test_a_store_of_another_version_an_etcd_of_another_and_a_wrong_login_are_one_sentence_each(tmp_path):
    with FakeEtcd() as etcd:
        open_store([etcd.port], Clock()).close()
        etcd.rows.rows[b"minijwt/schema/version"] = (b"2", 9)
        status, err = refusal(tmp_path, etcd.port)
        assert status == 2 and "another version of minijwt has written it (schema 2)" in err
        etcd.before = lambda path, body: (404, b"404 page not found")
        status, err = refusal(tmp_path, etcd.port)
        assert status == 2 and "etcd 3.4 or newer is needed" in err
    with FakeEtcd(login="minijwt:secret") as etcd:
        status, err = refusal(tmp_path, etcd.port)
        assert status == 2 and "user name is empty" in err
        for text, sentence in (("minijwt:wrong", "invalid user ID or password"), ("minijwt", "user:password")):
            (tmp_path / "login").write_text(text + "\n")
            os.chmod(tmp_path / "login", 0o600)
            status, err = refusal(tmp_path, etcd.port, DATABASE_LOGIN="login")
            assert status == 2 and sentence in err and "wrong" not in err
        status, err = refusal(tmp_path, etcd.port, DATABASE_LOGIN="missing")
        assert status == 2 and "DATABASE_LOGIN missing is no file to read: No such file" in err


# -- moving


def test_users_and_sessions_move_to_etcd_and_back_and_nobody_is_logged_out(tmp_path):
    here = build(store=server.SQLiteStore(str(tmp_path / "a.db"), Clock()), rotate_refresh=True)
    here.accounts.add_user("ann", PASSWORD)
    here.accounts.add_user("b\xf6b \"\\/", PASSWORD)
    first = enter(here)
    second = follow(here, first)
    gone = enter(here)
    assert leave(here, gone).status == 204
    here.store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as db:
        db.execute("UPDATE pruned SET latest = 7")
    with FakeEtcd() as etcd:
        there, back = {"DATABASE": f"etcd://127.0.0.1:{etcd.port}"}, {"DATABASE": "b.db"}
        status, exported, _ = command(tmp_path, "user", "export", DATABASE="a.db", **SECRETS)
        assert status == 0
        for _ in range(2):
            status, _, err = command(tmp_path, "user", "import", stdin=exported, **there, **SECRETS)
            assert status == 0 and "5 rows were read" in err
        store = open_store([etcd.port], Clock())
        moved = build(Clock(NOW + 0.5), store, rotate_refresh=True)
        assert use(moved, gone).status == 406 and told(store).pruned == 7
        third = follow(moved, second)
        store.remove_user("b\xf6b \"\\/")
        store.close()
        status, exported, _ = command(tmp_path, "user", "export", **there, **SECRETS)
        assert command(tmp_path, "user", "list", **there, **SECRETS)[:2] == (0, "ann\n")
    assert command(tmp_path, "user", "import", stdin=exported, **back, **SECRETS)[0] == 0
    again = build(store=server.SQLiteStore(str(tmp_path / "b.db"), Clock()), rotate_refresh=True)
    assert again.store.user_names() == ["ann"] and told(again.store).pruned == 7
    assert works(again, third) and use(again, gone).status == 406
    again.store.close()


KEPT = "scrypt$2$1$1$00$11"
NO_EXPORT = [
    "", "[]", "ann", '["user/ann", ["p"]]', '["user/ann", 1]', '["other/x", 1]', '{"a": 1}', "[1, 2]", "[" * 9_999,
    '["user/ann", ["p", "e"]]', f'["user/a\\u001b", ["{KEPT}", "0a"]]', f'["user/ ann", ["{KEPT}", "0a"]]',
    f'["user/\\ud800", ["{KEPT}", "0a"]]', f'["user/{"a" * 256}", ["{KEPT}", "0a"]]',
    '["session/00000070000000/0a", [0, NaN, true]]', '["session/00000070000000/0a", [0, 1e999, true]]',
    '["session/00000070000000/0a", [-1, 0.5, true]]', '["session/00000070000000/0a", [100000000000000000000, 0.5, true]]',
    '["session/0000007000000G/0a", [0, 0.5, true]]', '["session/7/0a", [0, 0.5, true]]',
    '["session/00000070000000/\\ud800", [0, 0.5, true]]',
    *(f'["user/ann", ["{cost}$11", "0a"]]' for cost in (
        "scrypt$1024$1$10000000$00", "scrypt$16384$8$0$00", "scrypt$2$1$1$0", "pbkdf2$0$00", "md5$00")),
    '["pruned/latest", 100000000000000000000]', '["pruned/earliest", 1]',
]  # fmt: skip


@pytest.mark.parametrize("line", NO_EXPORT, ids=range(len(NO_EXPORT)))
def test_what_is_no_export_is_refused_before_anything_is_written(fake, clock, line):
    good, store = f'["user/bob", ["{KEPT}", "0a"]]\n', open_store([fake.port], clock, f"test-{next(prefixes)}")
    with pytest.raises(ValueError, match="line 2 is not what `user export` prints; nothing was imported"):
        server.import_rows(store, [good, line, good])
    assert store.user_names() == []
    store.close()


def test_what_is_no_export_is_one_sentence(tmp_path):
    status, out, err = command(tmp_path, "user", "import", stdin="ann\n", DATABASE="a.db", **SECRETS)
    assert (status, out, err.count("\n")) == (2, "", 1) and "line 1 is not what `user export` prints" in err


# -- real nodes


@pytest.fixture
def tls(tmp_path):
    """A CA, the nodes' certificate and ours."""
    if why := WHY_NO_ETCD or etcdkit.make_pems(tmp_path):
        pytest.skip(why)
    return tmp_path


def test_over_tls_with_a_login_and_a_certificate_of_its_own(tls):
    with etcdkit.Cluster(3, tls) as cluster:
        cluster.enable_auth("minijwt", "secret")
        (tls / "login").write_text("minijwt:secret\n")
        os.chmod(tls / "login", 0o604)
        pems = {"DATABASE_CA": "ca.pem", "DATABASE_CERT": "minijwt.pem", "DATABASE_KEY": "minijwt.key", "DATABASE_LOGIN": "login"}
        given = {"DATABASE": cluster.url(), **SECRETS, **pems}
        status, _, err = command(tls, "user", "add", "ann", stdin=PASSWORD + "\n", **given)
        assert status == 0, err
        with Process(tls, **given) as process:
            assert answers(process.exchange(raw_login("ann", PASSWORD)))[0].status == 200
            assert "login can be read or written by others" in process.stop()[2]
        for changed, sentence in (
            ({"DATABASE_CA": "other.pem"}, "CERTIFICATE_VERIFY_FAILED"),
            ({"DATABASE_CERT": "named.pem", "DATABASE_KEY": "named.key"}, "CommonName"),
            ({"DATABASE_CERT": "ca.pem"}, "DATABASE_CERT ca.pem"),
            ({"DATABASE_CA": "login"}, "DATABASE_CA login"),
            ({"DATABASE_LOGIN": ""}, "permission denied"),
            ({"DATABASE": cluster.url("other")}, "permission denied"),
        ):
            status, _, err = command(tls, **{name: value for name, value in {**given, **changed}.items() if value})
            assert status == 2 and sentence in err and err.count("\n") == 1, err
        # With TLS 1.3 the node refuses after the handshake: its alert is read, or the end of the connection.
        without = {name: value for name, value in given.items() if name not in ("DATABASE_CERT", "DATABASE_KEY")}
        status, _, err = command(tls, **without)
        assert status in (1, 2) and f"DATABASE {given['DATABASE']} cannot be used" in err and err.count("\n") == 1, err


def test_a_backup_is_restored_as_it_was(tmp_path):
    if why := WHY_NO_ETCD:
        pytest.skip(why)
    with etcdkit.Cluster(1) as cluster:
        store = open_store(cluster.ports, Clock())
        store.add_user("ann", "p", "e")
        cluster.etcdctl("snapshot", "save", str(tmp_path / "backup.db"))
        store.remove_user("ann")
        store.close()
        cluster.kill(0)
        cluster.restore(0, tmp_path / "backup.db")
        cluster.start(0)
        cluster.wait()
        store = open_store(cluster.ports, Clock())
        assert store.user_names() == ["ann"]
        store.close()
