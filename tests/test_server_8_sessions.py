"""Sessions: rotation, theft, logout, epochs, clocks that leap; and random lives against a model of the rules."""

import os
import random
import signal
import time

import minijwt
import pytest
import server
from serverkit import (
    ACCESS,
    NOW,
    REFRESH,
    Clock,
    Process,
    answers,
    body,
    build,
    cookie_of,
    login,
    new_store,
    refresh_token,
)
from serverkit import request
from sessionkit import (
    DAY, PASSWORD, SECRETS, WEEK, add_cheaply, attempt, claims_of, code, credentials, enter, exchange, follow, in_threads, leave,
    raw_logout, raw_refresh, sign, use, works,
)  # fmt: skip


def house(rotate=True, clock=None, store=None, **changes):
    """An app with the user ann."""
    app = build(clock, store, rotate_refresh=rotate, **changes)
    if "ann" not in app.store.names():
        app.accounts.add_user("ann", PASSWORD)
    return app


# -- rotation


def test_200_threads_with_one_cookie_get_the_same_successor_and_spend_one_generation():
    app = house()
    token = enter(app)

    def one(number):
        answer = use(app, token)
        app.store.close()
        return answer

    found = in_threads(200, one)
    assert {answer.status for answer in found} == {200}
    (successor,) = {cookie_of(answer) for answer in found}
    assert claims_of(successor)["gen"] == 1
    assert claims_of(follow(app, successor))["gen"] == 2


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


def test_a_successor_has_its_parents_claims_but_for_the_generation_and_the_cookie_lasts_what_is_left():
    clock = Clock()
    app = house(clock=clock)
    token = enter(app)
    clock.now += 1_000
    answer = use(app, token)
    assert claims_of(cookie_of(answer)) == {**claims_of(token), "gen": 1}
    (field,) = [value for name, value in answer.fields if name == "Set-Cookie"]
    assert f"Max-Age={DAY - 1_000};" in field
    assert f"Expires={server.formatdate(NOW + DAY, usegmt=True)};" in field
    access = minijwt.decode(body(answer)["accessToken"], ACCESS, now=clock.now)
    assert access == {"username": "ann", "iat": NOW + 1_000, "exp": NOW + 1_600}


def test_however_often_it_is_rotated_a_session_ends_when_its_login_said():
    clock = Clock()
    app = house(clock=clock)
    token = enter(app)
    for clock.now in range(NOW, NOW + DAY, 3_600):
        token = follow(app, token)
    clock.now = NOW + DAY - 1
    token = follow(app, token)
    clock.now = NOW + DAY
    assert code(use(app, token)) == "expired"


PARENTS = [
    ("at once", 0, True),
    ("29 s later", 29, True),
    ("30 s later", 30, True),
    ("31 s later", 31, False),
    ("an hour later", 3_600, False),
    ("a clock that went back a little", -5, True),
]


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("seconds, good", [pytest.param(*case[1:], id=case[0]) for case in PARENTS])
def test_the_parent_gets_the_same_successor_within_30_seconds_and_later_it_is_theft(seconds, good, rotate):
    clock = Clock(NOW + 100)
    app = house(clock=clock)
    parent = enter(app)
    clock.now = NOW + 200
    child = follow(app, parent)
    clock.now += seconds
    app = house(rotate, clock, app.store)
    answer = use(app, parent)
    if good:
        assert cookie_of(answer) == child
        assert works(app, child)
    else:
        assert (answer.status, code(answer)) == (406, "reuse_detected")
        assert code(use(app, child)) == "session_ended", "it ends for both"
        assert code(use(app, parent)) == "session_ended"


@pytest.mark.parametrize("rotate", [True, False])
def test_a_grandparent_is_theft_even_at_once(rotate):
    app = house()
    grandparent = enter(app)
    parent = follow(app, grandparent)
    child = follow(app, parent)
    app = house(rotate, store=app.store)
    assert code(use(app, grandparent)) == "reuse_detected"
    assert not works(app, parent) and not works(app, child)


def test_two_tabs_that_take_turns_are_never_logged_out():
    clock = Clock()
    app = house(clock=clock)
    token = enter(app)
    for _ in range(50):
        clock.now += 600
        first, second = follow(app, token), follow(app, token)
        assert first == second
        token = first


def test_theft_in_one_session_leaves_the_users_other_sessions():
    app = house()
    stolen, other = enter(app), enter(app)
    follow(app, follow(app, stolen))
    assert not works(app, stolen)
    assert works(app, other)


def test_a_refresh_that_fails_never_clears_the_cookie():
    app = house()
    token = enter(app)
    follow(app, follow(app, token))
    for bad in (token, token, "x", "", sign(gen=7), sign("nobody")):
        assert [name for name, _ in use(app, bad).fields if name == "Set-Cookie"] == []


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("generation", [1, 2, 2**31, 2**53, 2**70])
def test_a_generation_that_was_never_given_out_is_refused_and_ends_nothing(rotate, generation):
    app = house(rotate)
    token = enter(app)
    forged = minijwt.encode({**claims_of(token), "gen": generation}, REFRESH)
    assert (use(app, forged).status, code(use(app, forged))) == (406, "unknown_generation")
    assert works(app, token)
    rotated = house(True, store=app.store)
    token = follow(rotated, token)
    forged = minijwt.encode({**claims_of(token), "gen": generation + 1}, REFRESH)
    assert not works(app, forged)
    assert works(app, token)


def test_rows_bind_while_rotation_is_off_and_when_it_is_on_again():
    app = house(True)
    off = house(False, store=app.store)
    first = enter(app)
    second = follow(app, first)
    assert follow(off, second) == second, "while it is off the newest stays"
    third = follow(app, second)
    assert not works(off, first), "a grandparent is theft also while rotation is off"
    assert not works(app, third)


def test_a_token_without_rotation_is_the_same_for_all_its_life():
    app = house(False)
    token = enter(app)
    for _ in range(5):
        answer = use(app, token)
        assert answer.status == 200 and answer.fields == ()


# -- logout


def test_logout_ends_every_generation_of_the_session_and_no_other_session():
    app = house()
    family = [enter(app)]
    for _ in range(3):
        family.append(follow(app, family[-1]))
    other = enter(app)
    answer = leave(app, family[-1])
    assert answer.status == 204
    assert not any(works(app, token) for token in family)
    assert works(app, other)


@pytest.mark.parametrize("generation", range(3))
def test_any_generation_can_log_out(generation):
    app = house()
    family = [enter(app)]
    for _ in range(2):
        family.append(follow(app, family[-1]))
    assert leave(app, family[generation]).status == 204
    assert not any(works(app, token) for token in family)


@pytest.mark.parametrize("rotate", [True, False])
def test_a_refresh_that_races_with_logout_never_revives_the_session(rotate):
    app = house(rotate)
    for _ in range(10):
        token = enter(app)

        def one(number, token=token):
            answer = leave(app, token) if number == 5 else use(app, token)
            app.store.close()
            return answer

        found = in_threads(10, one)
        assert found[5].status == 204
        for answer in [each for each in found if each.status == 200 and each.fields]:
            assert not works(app, cookie_of(answer))
        assert not works(app, token)


GOOD, REVOKED = "good", "revoked"
LOGOUTS = [
    ("no cookie", lambda app, good: []),
    ("an empty one", lambda app, good: [""]),
    ("rubbish", lambda app, good: ["x.y.z"]),
    ("one that works", lambda app, good: good[:1]),
    ("two that work", lambda app, good: good[:2]),
    ("rubbish first", lambda app, good: ["x", "", good[0]]),
    ("the same twice", lambda app, good: [good[0], good[0]]),
    ("one of another secret", lambda app, good: [sign(secret=b"x" * 32), good[0]]),
    ("an expired one", lambda app, good: [sign(exp=NOW), good[0]]),
    ("eight of them", lambda app, good: ["x"] * 6 + good[:2]),
]


@pytest.mark.parametrize("status", [406, 401])
@pytest.mark.parametrize("cookies", [pytest.param(case[1], id=case[0]) for case in LOGOUTS])
def test_logout_is_204_deletes_the_cookie_and_ends_every_valid_session(cookies, status):
    app = house(False, unauthorized_status=status, cookie_name="__Host-jwt", cookie_samesite="Strict")
    good = [enter(app) for _ in range(3)]
    tokens = cookies(app, good)
    for _ in range(2):  # again: the same
        answer = leave(app, *tokens)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.fields == (
            (
                "Set-Cookie",
                "__Host-jwt=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Strict",
            ),
        )
    assert [works(app, token) for token in good] == [token not in tokens for token in good]


def test_logout_without_any_cookie_field_is_204_too():
    answer = server.respond(build(), request("POST", "/logout"))
    assert (answer.status, len(answer.fields), answer.events) == (204, 1, ())


# -- planted cookies


def test_a_planted_cookie_of_another_key_locks_nobody_out():
    app = house()
    token = enter(app)
    for planted in ("x", "", sign(secret=b"x" * 32), sign(exp=NOW), sign("nobody"), body(login(app, b""))["message"]):
        token = follow_first(app, planted, token)
        token = follow_first(app, token, planted)


def follow_first(app, *tokens):
    answer = use(app, *tokens)
    assert answer.status == 200
    return cookie_of(answer)


def test_a_planted_cookie_of_an_ended_session_locks_nobody_out():
    app = house()
    ended, token = enter(app), enter(app)
    leave(app, ended)
    assert works(app, ended, token)


def test_two_living_sessions_are_refused_and_a_logout_and_a_login_help():
    app = house()
    planted, ours = enter(app), enter(app)
    assert code(use(app, planted, ours)) == "several_sessions"
    assert leave(app, planted, ours).status == 204
    assert works(app, planted, enter(app)), "the planted one is dead now"


def test_of_one_session_the_newest_generation_counts_wherever_it_stands():
    app = house()
    old = enter(app)
    new = follow(app, follow(app, old))
    newer = cookie_of(use(app, old, new))
    assert claims_of(newer)["gen"] == 3, "not theft"
    assert cookie_of(use(app, new, old)) == newer
    assert works(app, newer, old)


# -- users that change


def test_a_changed_password_ends_all_sessions_and_the_new_one_works():
    app = house()
    tokens = [enter(app), follow(app, enter(app))]
    app.accounts.change_password("ann", "another horse")
    assert [code(use(app, token)) for token in tokens] == ["sessions_ended"] * 2
    assert attempt(app, "ann", PASSWORD).status == 406
    assert works(app, enter(app, password="another horse"))


def test_user_logout_ends_all_sessions_and_the_password_stays():
    app = house()
    app.accounts.add_user("bob", PASSWORD)
    tokens, bobs = [enter(app) for _ in range(3)], enter(app, "bob")
    app.accounts.end_sessions("ann")
    assert not any(works(app, token) for token in tokens)
    assert works(app, enter(app)) and works(app, bobs)


def test_a_name_removed_and_added_again_inherits_no_session():
    app = house()
    app.accounts.add_user("bob", PASSWORD)
    tokens = [enter(app), follow(app, enter(app))]
    app.accounts.remove_user("ann")
    assert [code(use(app, token)) for token in tokens] == ["no_user"] * 2
    assert attempt(app, "ann", PASSWORD).status == 406
    app.accounts.add_user("ann", PASSWORD)
    assert [code(use(app, token)) for token in tokens] == ["sessions_ended"] * 2
    assert works(app, enter(app))


@pytest.mark.parametrize("rotate", [True, False])
def test_a_real_admin_and_the_demo_admin_inherit_nothing_from_each_other(rotate):
    app = build(rotate_refresh=rotate)
    demo = follow(app, enter(app, "admin", "admin123"))
    tutorial = refresh_token()
    assert works(app, tutorial) is not rotate
    app.accounts.add_user("admin", PASSWORD)
    assert not works(app, demo) and not works(app, tutorial)
    assert attempt(app, "admin", "admin123").status == 406
    real = follow(app, enter(app, "admin"))
    assert works(app, real)
    app.accounts.remove_user("admin")
    assert not works(app, real)
    assert attempt(app, "admin", PASSWORD).status == 406
    assert works(app, enter(app, "admin", "admin123"))
    app.accounts.add_user("ann", PASSWORD)
    assert not works(app, demo) and attempt(app, "admin", "admin123").status == 406


@pytest.mark.parametrize("changes", [{"host": "0.0.0.0"}, {"trusted_proxies": server._networks("10.0.0.0/8")}])
def test_an_open_server_never_has_the_demo_user_even_when_its_last_user_goes(changes):
    app = house(False, **changes)
    app.accounts.remove_user("ann")
    assert attempt(app, "admin", "admin123").status == 406
    assert not works(app, sign("admin")) and not works(app, refresh_token())


# -- tokens of the tutorial's own app


def test_tutorial_tokens_work_for_the_flagged_user_until_passwd_or_logout():
    for end in (
        lambda app: app.accounts.change_password("ann", PASSWORD),
        lambda app: app.accounts.end_sessions("ann"),
    ):
        app = build()
        app.accounts.add_user("ann", PASSWORD, True)
        app.accounts.add_user("bob", PASSWORD)
        token = refresh_token(username="ann")
        assert works(app, token) and follow(app, token) == token
        assert not works(app, refresh_token(username="bob"))
        assert not works(app, refresh_token()), "there is no demo user any more"
        end(app)
        assert not works(app, token)


def test_tutorial_tokens_do_not_work_while_rotation_is_on():
    app = build()
    app.accounts.add_user("ann", PASSWORD, True)
    rotating = build(store=app.store, rotate_refresh=True)
    token = refresh_token(username="ann")
    assert not works(rotating, token)
    assert works(app, token)


def test_logout_of_a_tutorial_token_ends_that_one_alone():
    app = build()
    first, second = refresh_token(), refresh_token(exp=NOW + 100)
    assert leave(app, first).status == 204
    assert not works(app, first) and works(app, second)


def test_a_user_removed_and_added_again_with_the_flag_is_the_operators_wish():
    app = build()
    app.accounts.add_user("ann", PASSWORD, True)
    leave(app, refresh_token(username="ann"))
    app.accounts.remove_user("ann")
    app.accounts.add_user("ann", PASSWORD, True)
    assert not works(app, refresh_token(username="ann")), "what was logged out stays so"


def test_a_signed_name_that_nobody_can_have_is_refused_like_any_other():
    app = build()
    for name in ("\0", "x" * 10_000, ""):
        assert use(app, refresh_token(username=name)).status == 406
        assert use(app, sign(name)).status == 406
        assert use(app, sign("admin", sid=name)).status in (200, 406)


# -- secrets that were changed


def test_an_old_secret_verifies_and_never_signs():
    before = house(True)
    token, access = enter(before), body(login(before, credentials("ann", PASSWORD)))["accessToken"]
    new = {"access_secrets": (b"a" * 32, ACCESS), "refresh_secrets": (b"r" * 32, REFRESH)}
    after = house(True, store=before.store, **new)
    answer = use(after, token)
    assert claims_of(cookie_of(answer), b"r" * 32)["gen"] == 1
    assert minijwt.decode(body(answer)["accessToken"], b"a" * 32, now=NOW)
    assert server.respond(after, request(path="/me", authorization=f"Bearer {access}")).status == 200
    fresh = enter(after)
    assert claims_of(fresh, b"r" * 32)
    for secrets in ({"refresh_secrets": (b"r" * 32,)}, {"refresh_secrets": (b"r" * 32, b"s" * 32)}):
        strict = house(True, store=before.store, **secrets)
        assert not works(strict, enter(before))
        assert works(strict, enter(after))


def test_an_access_token_of_an_old_secret_is_no_refresh_token():
    app = build(access_secrets=(b"a" * 32, ACCESS), refresh_secrets=(b"r" * 32, REFRESH))
    for key in (b"a" * 32, ACCESS):
        assert not works(app, refresh_token(secret=key))
    for key in (b"r" * 32, REFRESH):
        token = minijwt.encode({"username": "admin", "iat": NOW, "exp": NOW + 600}, key)
        assert server.respond(app, request(path="/me", authorization=f"Bearer {token}")).status == 401


# -- clocks that leap


def prune(app):
    """Let the write lane do what it does at each commit, until nothing is left to do."""
    for _ in range(5):
        app.store.group([])


@pytest.mark.parametrize("pruned", [False, True])
def test_a_clock_a_week_forward_and_back_revives_nothing_and_locks_nobody_out(pruned):
    clock = Clock()
    app = house(clock=clock)
    gone, old, stolen = enter(app), enter(app), enter(app)
    leave(app, gone)
    living = follow(app, follow(app, old))
    newest = follow(app, follow(app, stolen))
    assert not works(app, stolen)
    clock.now += WEEK
    assert [works(app, token) for token in (gone, old, living, stolen, newest)] == [False] * 5
    assert works(app, enter(app))
    if pruned:
        prune(app)
    clock.now = NOW + 60
    assert [works(app, token) for token in (gone, stolen, newest, old)] == [False] * 4
    assert works(app, enter(app)), "and whoever logs in again is in"


def test_a_clock_that_was_a_week_ahead_for_days_locks_nobody_out_when_it_is_right_again():
    """Sessions of the wrong week were pruned, and theirs is the largest end that ever was."""
    clock = Clock(NOW + WEEK)
    app = house(clock=clock)
    follow(app, enter(app))
    clock.now += 2 * DAY
    prune(app)
    clock.now = NOW
    token = enter(app)
    assert attempt(app, "ann", PASSWORD).status == 200
    token = follow(app, token)
    clock.now += 600
    assert works(app, token)


def test_a_login_in_the_very_second_that_the_clock_goes_back_to_is_good():
    clock = Clock()
    app = house(clock=clock)
    leave(app, enter(app))
    clock.now += WEEK
    prune(app)
    clock.now = NOW
    assert works(app, enter(app))


def test_pruning_forgets_only_what_has_expired_and_goes_in_small_steps():
    clock = Clock()
    app = house(clock=clock)
    count = 2 * server.PRUNE_ROWS + 50
    app.store.group([lambda n=n: app.store.end(f"{n}", NOW + 10) for n in range(count)])
    token = follow(app, enter(app))

    def rows():
        return app.store._rows("SELECT count(*) FROM session")[0][0]

    assert rows() == count + 1
    clock.now += 10
    left = []
    for _ in range(4):
        app.store.group([])
        left.append(rows())
    assert left == [count + 1 - server.PRUNE_ROWS, count + 1 - 2 * server.PRUNE_ROWS, 1, 1]
    assert works(app, token)


# -- kill -9


def served(port, data):
    (answer,) = answers(exchange(port, data))
    cookie = answer["Set-Cookie"]
    return answer.status, cookie and cookie.partition(";")[0].partition("=")[2]


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


# -- the model


class Model:
    """The rules of sessions, written down a second time. Users are (password, epoch, tutorial), rows (generation, rotated, ended)."""

    def __init__(self):
        self.users, self.rows, self.ends, self.forgotten = {}, {}, {}, 0

    def user(self, name):
        demo = ("admin123", "demo", True) if name == "admin" and not self.users else None
        return self.users.get(name, demo)

    def login(self, name, password):
        return self.user(name) is not None and self.user(name)[0] == password

    def in_time(self, token, now):
        return token["iat"] <= now < token["exp"]

    def refresh(self, token, now, rotate):
        """Return the generation that the client holds afterwards, or None if it is refused."""
        user, (generation, rotated, ended) = self.user(token["username"]), self.rows.get(token["sid"], (0, 0, False))
        if user is None or not self.in_time(token, now) or token["exp"] <= self.forgotten or ended:
            return None
        if (rotate or not user[2]) if token["epoch"] is None else token["epoch"] != user[1]:
            return None
        if token["gen"] > generation:
            return None
        if token["gen"] == generation:
            if rotate:
                self.rows[token["sid"]], self.ends[token["sid"]] = (generation + 1, now, False), token["exp"]
            return generation + rotate
        if token["gen"] == generation - 1 and abs(now - rotated) <= 30:
            return generation
        self.rows[token["sid"]] = (generation, rotated, True)
        return None

    def logout(self, token, now):
        if self.in_time(token, now):
            self.rows[token["sid"]], self.ends[token["sid"]] = (0, 0, True), token["exp"]

    def prune(self, now):
        for sid in [sid for sid in self.rows if self.ends[sid] <= now]:
            self.forgotten = max(self.forgotten, self.ends[sid])
            del self.rows[sid]


class Life:
    """One random life: what is done to the server is done to the model, and both have to agree."""

    NAMES = ("admin", "ann", "bob")

    def __init__(self, seed):
        self.random, self.clock, self.model = random.Random(seed), Clock(), Model()
        store = new_store(self.clock)
        self.apps = [build(self.clock, store, rotate_refresh=on, login_max_failures=0) for on in (False, True)]
        self.now_on = seed % 2
        self.tokens = []  # (text, what it says), of all that were ever given out
        self.given = {}  # (sid, generation) → text: a successor is always the same bytes
        self.did, self.outcomes = [], []
        for name in self.NAMES:
            text = refresh_token(username=name)
            self.tokens.append((text, {**claims_of(text), "sid": text, "gen": 0, "epoch": None}))

    @property
    def app(self):
        return self.apps[self.now_on]

    def remember(self, text):
        claims = claims_of(text)
        assert self.given.setdefault((claims["sid"], claims["gen"]), text) == text, "not the same successor"
        if (text, claims) not in self.tokens:
            self.tokens.append((text, claims))
        return claims

    def login(self):
        # A session that ends before one that was forgotten has a test of its own.
        self.clock.now = max(self.clock.now, self.model.forgotten - DAY + 1)
        name = self.random.choice(self.NAMES)
        password = self.random.choice([(self.model.user(name) or [""])[0], PASSWORD, "admin123"])
        answer = login(self.app, credentials(name, password))
        assert (answer.status == 200) == self.model.login(name, password)
        if answer.status == 200:
            claims = self.remember(cookie_of(answer))
            assert (claims["username"], claims["gen"], claims["epoch"]) == (name, 0, self.model.user(name)[1])
            assert (claims["iat"], claims["exp"]) == (self.clock.now, self.clock.now + DAY)

    def refresh(self, recent=2):
        text, token = self.random.choice(self.tokens[-recent:])
        expected = self.model.refresh(token, self.clock.now, bool(self.now_on))
        answer = use(self.app, text)
        assert answer.status == (406 if expected is None else 200)
        self.outcomes.append((self.now_on, "ok" if expected is not None else code(answer)))
        if expected is not None and expected != token["gen"]:
            assert self.remember(cookie_of(answer)) == {**token, "gen": expected}
        else:
            assert answer.fields == ()

    def replay(self):
        self.refresh(recent=1_000)

    def logout(self):
        text, token = self.random.choice(self.tokens)
        self.model.logout(token, self.clock.now)
        assert leave(self.app, text).status == 204

    def attempt(self, verb, *arguments):
        """Change a user on the server; return whether that was possible."""
        try:
            getattr(self.app.accounts, verb)(*arguments)
        except ValueError:
            return False
        return True

    def epoch(self, name):
        return self.app.store.standing(name, "").epoch

    def add(self):
        name, tutorial = self.random.choice(self.NAMES), self.random.random() < 0.3
        assert self.attempt("add_user", name, PASSWORD, tutorial) == (name not in self.model.users)
        self.model.users.setdefault(name, (PASSWORD, self.epoch(name), tutorial))

    def passwd(self):
        name, password = self.random.choice(self.NAMES), self.random.choice([PASSWORD, "another horse"])
        assert self.attempt("change_password", name, password) == (name in self.model.users)
        if name in self.model.users:
            self.model.users[name] = (password, self.new_epoch(name), False)

    def user_logout(self):
        name = self.random.choice(self.NAMES)
        assert self.attempt("end_sessions", name) == (name in self.model.users)
        if name in self.model.users:
            self.model.users[name] = (self.model.users[name][0], self.new_epoch(name), False)

    def new_epoch(self, name):
        assert self.epoch(name) != self.model.users[name][1]
        return self.epoch(name)

    def remove(self):
        name = self.random.choice(self.NAMES)
        assert self.attempt("remove_user", name) == (self.model.users.pop(name, None) is not None)

    def add_again(self):
        for name in self.random.sample(sorted(self.model.users), min(1, len(self.model.users))):
            self.app.accounts.remove_user(name)
            self.app.accounts.add_user(name, PASSWORD)
            self.model.users[name] = (PASSWORD, self.new_epoch(name), False)

    def switch(self):
        self.now_on = 1 - self.now_on

    def step(self):
        self.clock.now += self.random.choice([1, 5, 29, 30, 31, 60, 3_600, 40_000])

    def step_back(self):
        self.clock.now -= self.random.choice([1, 5, 30, 31, 60, 3_600])

    def leap(self):
        before = self.clock.now
        self.clock.now += WEEK
        self.prune()
        self.clock.now = before

    def prune(self):
        self.app.store.group([])  # as the write lane does at each commit
        self.model.prune(self.clock.now)

    DEEDS = (
        [login] * 4 + [refresh] * 24 + [replay] * 4 + [step] * 6 + [switch] * 3 + [step_back] * 2
        + [logout, add, passwd, user_logout, remove, add_again, leap, prune]
    )  # fmt: skip

    def go(self, deeds):
        for number in range(deeds):
            deed = self.random.choice(self.DEEDS) if number > 4 else (Life.add, Life.login)[number % 2]
            self.did.append(deed.__name__)
            deed(self)


HAPPENS = {"ok", "reuse_detected", "session_ended", "sessions_ended", "no_user", "session_forgotten", "expired", "immature"}  # fmt: skip


@pytest.mark.parametrize("hundred", range(int(os.environ.get("HUNDREDS", 2))))  # `make prove` lives more of them
def test_a_hundred_random_lives_agree_with_the_model(hundred):
    outcomes = []
    for seed in range(100 * hundred, 100 * hundred + 100):
        life = Life(seed)
        try:
            life.go(50)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {' '.join(life.did)}: {error}") from error
        outcomes += life.outcomes
        life.app.store.close()
    assert HAPPENS <= {each for _, each in outcomes}, "too little happened"
    assert len(outcomes) > 1_200 and outcomes.count((1, "ok")) > 100, "too little happened"
