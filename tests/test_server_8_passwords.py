"""Passwords: what is stored, what it costs, and that an unknown user costs the same."""

import hashlib
import unicodedata

import pytest
import server
from serverkit import CHEAP, Clock, build, cookie_of, new_store, settings
from sessionkit import PASSWORD, attempt, code, enter, faulty, works

HAS_SCRYPT = hasattr(hashlib, "scrypt")
needs_scrypt = pytest.mark.skipif(not HAS_SCRYPT, reason="this Python's OpenSSL has no scrypt")

# RFC 7914 §12 and RFC 7914 §11 (PBKDF2-HMAC-SHA-256): the figures of the RFC, cut to 32 bytes
SCRYPT_RFC = [
    ("", "", (16, 1, 1), "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"),
    ("password", "NaCl", (1024, 8, 16), "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"),
    (
        "pleaseletmein",
        "SodiumChloride",
        (16384, 8, 1),
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2",
    ),
]
PBKDF2_RFC = [
    ("passwd", "salt", (1,), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
    ("Password", "NaCl", (80_000,), "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"),
]


@pytest.mark.parametrize(
    "scheme, case",
    [*(pytest.param("scrypt", case, marks=needs_scrypt) for case in SCRYPT_RFC), *(("pbkdf2", c) for c in PBKDF2_RFC)],
)
def test_the_figures_of_rfc_7914_are_ours(scheme, case):
    password, salt, numbers, digest = case
    stored = "$".join([scheme, *map(str, numbers), salt.encode().hex(), digest])
    assert server.check_password(password, stored)
    assert not server.check_password(password + "x", stored)


@pytest.mark.parametrize(
    "cost", [pytest.param("scrypt$2$1$1", marks=needs_scrypt), "pbkdf2$1"]
)
def test_a_stored_password_brings_its_cost_and_a_salt_of_its_own(cost):
    stored = server.hash_password(PASSWORD, cost)
    scheme, *numbers, salt, digest = stored.split("$")
    assert "$".join([scheme, *numbers]) == cost
    assert (len(bytes.fromhex(salt)), len(bytes.fromhex(digest))) == (16, 32)
    assert server.hash_password(PASSWORD, cost) != stored
    assert server.check_password(PASSWORD, stored)
    assert PASSWORD not in stored


def test_the_cost_is_owasps():
    assert (server.SCRYPT, server.PBKDF2) == ("scrypt$16384$8$5", "pbkdf2$600000")
    assert server.COST == (server.SCRYPT if HAS_SCRYPT else server.PBKDF2)


@needs_scrypt
def test_scrypt_gets_the_memory_it_needs_and_no_more():
    stored = server.hash_password(PASSWORD, server.SCRYPT)
    assert server.check_password(PASSWORD, stored)


NEAR = ["", "correct hors", "correct horse ", "Correct horse", "correct horse\0", " correct horse", "correct  horse"]


@pytest.mark.parametrize("password", NEAR)
def test_almost_the_password_is_not_the_password(password):
    assert not server.check_password(password, server.hash_password(PASSWORD, CHEAP))


@pytest.mark.parametrize("password", ["", "none", "\0", PASSWORD])
def test_nothing_matches_the_dummy(password):
    assert not server.check_password(password, server.dummy_password(CHEAP))


@pytest.mark.parametrize("text", ["\xe9l\xe9phant rose", "A\u030angstr\xf6m unit", "\u1e9b\u0323 a long one"])
def test_a_password_and_a_name_are_the_same_in_every_unicode_form(text):
    for stored in ("NFC", "NFD"):
        app = build()
        app.accounts.add_user(unicodedata.normalize(stored, text), unicodedata.normalize(stored, text))
        for typed in ("NFC", "NFD"):
            assert attempt(app, unicodedata.normalize(typed, text), unicodedata.normalize(typed, text)).status == 200
        with pytest.raises(ValueError, match="already"):
            app.accounts.add_user(unicodedata.normalize("NFD", text), PASSWORD)
        assert app.store.names() == [unicodedata.normalize("NFC", text)]
        app.accounts.end_sessions(unicodedata.normalize("NFD", text))
        app.accounts.change_password(unicodedata.normalize("NFD", text), PASSWORD)
        app.accounts.remove_user(unicodedata.normalize("NFD", text))


def test_what_would_take_long_to_normalise_is_refused_before_that(monkeypatch):
    seen = []
    monkeypatch.setattr(unicodedata, "normalize", lambda form, text: seen.append(text) or text)
    for name, password in (("\u0301" * 400, "x"), ("ann", "\u0334\u0301" * 800)):
        answer = attempt(build(), name, password)
        assert (answer.status, code(answer)) == (406, "too_long")
    assert seen == ["ann"]


PASSWORDS = [
    ("none", "", "at least 8"),
    ("seven letters", "1234567", "at least 8"),
    ("seven letters, in fourteen code points", "e\u0301" * 7, "at least 8"),
    ("eight", "12345678", ""),
    ("eight spaces", " " * 8, ""),
    ("eight of four bytes", "\U0001f600" * 8, ""),
    ("1,024 bytes", "x" * 1_024, ""),
    ("1,025 bytes", "x" * 1_025, "at most 1024 bytes"),
    ("342 letters of three bytes", "\u20ac" * 342, "at most 1024 bytes"),
    ("the name", "ann", "at least 8"),
    ("half of a pair, which no form can send", "correct h\udce9rse", "is text"),
    ("1,500 bytes, 1,000 in NFC", "e\u0301" * 500, ""),
]
NAMES = [
    ("one letter", "a", ""),
    ("255 bytes", "x" * 255, ""),
    ("256 bytes", "x" * 256, "255 bytes"),
    ("128 letters of two bytes", "\xe9" * 128, "255 bytes"),
    ("255 bytes once it is NFC", "e\u0301" * 127 + "x", ""),
    ("empty", "", "1 to 255"),
    ("a space within", "ann smith", ""),
    ("a space before", " ann", "spaces around"),
    ("a no-break space after", "ann\xa0", "control"),
    ("a line feed", "ann\nsmith", "control"),
    ("an escape", "\x1b[31mann", "control"),
    ("NUL", "ann\0", "control"),
    ("DEL", "ann\x7f", "control"),
    ("a C1 control", "ann\x85", "control"),
    ("a right-to-left override", "ann\u202e", "control"),
    ("a zero-width space", "ann\u200b", "control"),
    ("half of a pair", "ann\ud800", "control"),
    ("Chinese", "\u738b", ""),
    ("punctuation", "o'hara; drop table user --@example.org", ""),
    ("a quote and a percent", '"%s\\', ""),
]


@pytest.mark.parametrize("password, sentence", [pytest.param(*case[1:], id=case[0]) for case in PASSWORDS])
def test_which_passwords_are_possible(password, sentence):
    check("ann", password, sentence)
    app = build()
    app.accounts.add_user("ann", PASSWORD)
    if sentence:
        with pytest.raises(ValueError, match=sentence):
            app.accounts.change_password("ann", password)
        assert enter(app), "the old one stays"
    else:
        app.accounts.change_password("ann", password)
        assert enter(app, "ann", password)


@pytest.mark.parametrize("name, sentence", [pytest.param(*case[1:], id=case[0]) for case in NAMES])
def test_which_names_are_possible(name, sentence):
    check(name, PASSWORD, sentence)


def check(name, password, sentence):
    app = build()
    if not sentence:
        app.accounts.add_user(name, password)
        assert enter(app, name, password)
        assert app.store.names() == [unicodedata.normalize("NFC", name)]
        return
    with pytest.raises(ValueError, match=sentence) as error:
        app.accounts.add_user(name, password)
    assert str(error.value).isprintable() and (not password or password not in str(error.value))
    assert app.store.names() == []


# -- the same work for everybody


def counted(monkeypatch):
    """The costs of all hashes that are made from now on."""
    calls = []
    for name in ("scrypt", "pbkdf2_hmac"):
        if hasattr(hashlib, name):
            real = getattr(hashlib, name)

            def count(*arguments, name=name, real=real, **more):
                calls.append((name, *(more.get(key) for key in ("n", "r", "p", "dklen")), len(arguments)))
                return real(*arguments, **more)

            monkeypatch.setattr(server.hashlib, name, count)
    return calls


WRONG = [("an unknown user", "nobody"), ("the wrong password", "ann"), ("the demo user, who is not there", "admin")]


@pytest.mark.parametrize("status", [406, 401])
@pytest.mark.parametrize("limit", [0, 10])
def test_an_unknown_user_and_a_wrong_password_get_the_same_answer_for_the_same_work(monkeypatch, status, limit):
    calls, seen = counted(monkeypatch), []
    for _, name in WRONG:
        app = build(unauthorized_status=status, login_max_failures=limit)
        app.accounts.add_user("ann", PASSWORD)
        calls.clear()
        answer = attempt(app, name, "wrong password")
        seen.append((answer.status, answer.body, answer.content_type, answer.fields, list(calls)))
        assert len(calls) == 1, "one hash"
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == status


def test_the_demo_user_costs_the_same_as_well(monkeypatch):
    calls, app = counted(monkeypatch), build()
    works = []
    for name, password in (("admin", "admin123"), ("admin", "wrong"), ("nobody", "wrong")):
        calls.clear()
        attempt(app, name, password)
        works.append(list(calls))
    assert len(works[0]) == 1 and works[0] == works[1] == works[2]


def test_the_database_does_the_same_work_for_an_unknown_user_among_thousands(monkeypatch):
    kind, steps = faulty(monkeypatch), []
    app = build(login_max_failures=0)
    app.store.group([lambda n=n: app.store.add_user(f"user{n}", "x", "e", False) for n in range(3_000)])
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


def test_nothing_is_hashed_at_start(monkeypatch):
    calls = counted(monkeypatch)
    server.App(settings(), new_store())
    assert calls == []


def test_the_default_cost_is_what_a_login_pays(monkeypatch):
    costs = []
    monkeypatch.setattr(server, "check_password", lambda password, stored: bool(costs.append(stored)))
    app = server.App(settings(), new_store(), Clock())
    attempt(app, "nobody", "wrong")
    assert costs[0].startswith(server.COST + "$")


# -- rehash

STRONGER = CHEAP.replace("$2", "$4", 1)


def user_with(cost):
    """An app with CHEAP cost, whose user ann was stored with another."""
    app = build()
    app.store.add_user("ann", server.hash_password(PASSWORD, cost), "e" * 16, True)
    return app


@pytest.mark.parametrize("cost", ["pbkdf2$1"])
def test_a_weaker_stored_password_is_hashed_anew_at_login_and_sessions_live_on(cost):
    store = new_store()
    weak = server.App(settings(), store, Clock(), cost=cost)
    weak.accounts.add_user("ann", PASSWORD)
    token = enter(weak)
    app = server.App(settings(), store, Clock(), cost=STRONGER)
    attempt(app, "ann", "wrong password")
    assert store.standing("ann", "").password.startswith(cost), "not for a wrong one"
    assert attempt(app, "ann", PASSWORD).status == 200
    assert store.standing("ann", "").password.startswith(STRONGER + "$")
    assert attempt(app, "ann", PASSWORD).status == 200
    assert works(app, token)


@pytest.mark.parametrize("cost", [CHEAP, STRONGER])
def test_a_stored_password_that_is_no_weaker_is_left_as_it_is(cost):
    app = user_with(cost)
    before = app.store.standing("ann", "")
    assert attempt(app, "ann", PASSWORD).status == 200
    assert app.store.standing("ann", "") == before


def test_a_password_changed_during_a_login_is_not_changed_back():
    app = user_with("pbkdf2$1")
    old = app.store.standing("ann", "").password
    app.accounts.change_password("ann", "another horse")
    app.store.rehash("ann", old, server.hash_password(PASSWORD, CHEAP))
    assert attempt(app, "ann", PASSWORD).status == 406
    assert attempt(app, "ann", "another horse").status == 200


def test_a_login_with_a_password_that_changes_meanwhile_gives_no_living_session(monkeypatch):
    app = build()
    app.accounts.add_user("ann", PASSWORD)
    real = server.check_password

    def slow(password, stored):
        good = real(password, stored)
        app.accounts.change_password("ann", "another horse")
        return good

    monkeypatch.setattr(server, "check_password", slow)
    answer = attempt(app, "ann", PASSWORD)
    assert answer.status != 200 or not works(app, cookie_of(answer))
