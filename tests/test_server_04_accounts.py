"""Accounts: the rules of login, refresh and logout, of sessions and their theft, of users and guesses."""

import hashlib
import ipaddress
import json
import math
import os
import random
import unicodedata

import minijwt
import pytest
import server
import serverkit
from server import Refused
from serverkit import (
    ACCESS, CHEAP, NOW, REFRESH, Clock, body, build, cookie_of, login, new_store, refresh_token, request, settings,
)  # fmt: skip
from sessionkit import (
    DAY, PASSWORD, WEEK, Gate, attempt, claims_of, code, credentials, enter, follow, house, in_threads, leave, sign,
    use, works,
)  # fmt: skip

HERE = ipaddress.ip_address("127.0.0.1")


@pytest.fixture(autouse=True, params=["memory", "SQLite"])
def kind(request, monkeypatch):
    """The rules are the same whatever keeps the sessions."""
    monkeypatch.setattr(serverkit, "kinds", [request.param])


# -- tokens

SESSION = {"username": "admin", "sid": "5" * 32, "gen": 0, "epoch": "demo", "iat": NOW, "exp": NOW + 86_400}


def session_token(**changes):
    return refresh_token(**{**SESSION, **changes})


def test_the_access_token_has_exactly_the_tutorials_claims():
    token = body(login(build()))["accessToken"]
    assert minijwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert minijwt.decode(token, ACCESS, now=NOW) == {"username": "admin", "iat": NOW, "exp": NOW + 600}


def test_the_refresh_token_names_user_session_and_end():
    claims = minijwt.decode(cookie_of(login(build())), REFRESH, now=NOW)
    assert list(claims) == ["username", "sid", "gen", "epoch", "iat", "exp"]
    assert (claims["username"], claims["gen"], claims["iat"], claims["exp"]) == ("admin", 0, NOW, NOW + 86_400)
    assert len(bytes.fromhex(claims["sid"])) == 16


def test_every_login_is_a_session_of_its_own():
    app = build()
    first, second = (minijwt.decode(cookie_of(login(app)), REFRESH, now=NOW) for _ in range(2))
    assert first["sid"] != second["sid"]


def test_a_token_of_the_tutorials_own_app_works():
    accounts = build().accounts
    claims = minijwt.decode(accounts.refresh([refresh_token()]).access, ACCESS, now=NOW)
    assert claims == {"username": "admin", "iat": NOW, "exp": NOW + 600}


def test_our_own_token_works():
    assert build().accounts.refresh([session_token()])


BAD_TOKENS = [
    ("empty", "", "decode_error"),
    ("not a token", "x", "decode_error"),
    ("two segments", refresh_token().rpartition(".")[0], "decode_error"),
    ("other secret", refresh_token(secret=b"x" * 32), "invalid_signature"),
    ("access token", refresh_token(secret=ACCESS), "invalid_signature"),
    ("signature removed", refresh_token().rpartition(".")[0] + ".", "invalid_signature"),
    ("a letter more", refresh_token() + "A", "invalid_signature"),
    ("non-ASCII", refresh_token() + "\xff", "decode_error"),
    ("exp reached", refresh_token(exp=NOW), "expired"),
    ("expired", refresh_token(exp=NOW - 1), "expired"),
    ("from the future", refresh_token(iat=NOW + 31), "immature"),
    ("from the future, and expired", refresh_token(iat=NOW + 10, exp=NOW), "expired"),
    ("from the future, and not yet", refresh_token(iat=NOW + 10, nbf=NOW + 1), "immature"),
    ("not yet", refresh_token(nbf=NOW + 60), "immature"),
    ("no exp", refresh_token(exp=None), "no_refresh_token"),
    ("no iat", refresh_token(iat=None), "no_refresh_token"),
    ("no username", refresh_token(username=None), "no_refresh_token"),
    ("username a number", refresh_token(username=1), "no_refresh_token"),
    ("username a list", refresh_token(username=["admin"]), "no_refresh_token"),
    ("username null-like", refresh_token(username=False), "no_refresh_token"),
    ("nobody's", refresh_token(username="nobody"), "no_user"),
    ("Admin", refresh_token(username="Admin"), "no_user"),
    ("a claim more", refresh_token(role="root"), "no_refresh_token"),
    ("for an audience", refresh_token(aud="x"), "invalid_audience"),
    ("sid only", refresh_token(sid="5"), "no_refresh_token"),
    ("no epoch", session_token(epoch=None), "no_refresh_token"),
    ("epoch null", minijwt.encode({**SESSION, "epoch": None}, REFRESH), "no_refresh_token"),
    ("epoch a number", session_token(epoch=0), "no_refresh_token"),
    ("no gen", session_token(gen=None), "no_refresh_token"),
    ("sid a number", session_token(sid=5), "no_refresh_token"),
    ("gen a string", session_token(gen="0"), "no_refresh_token"),
    ("gen a bool", session_token(gen=True), "no_refresh_token"),
    ("gen a fraction", session_token(gen=0.5), "no_refresh_token"),
    ("other epoch", session_token(epoch="x"), "sessions_ended"),
    ("session claims without exp", session_token(exp=None), "no_refresh_token"),
    ("alg none", "eyJhbGciOiJub25lIn0." + refresh_token().split(".")[1] + ".", "invalid_algorithm"),
]


@pytest.mark.parametrize("token, code", [pytest.param(token, code, id=name) for name, token, code in BAD_TOKENS])
def test_a_bad_refresh_token_is_refused(token, code):
    with pytest.raises(Refused) as refused:
        build().accounts.refresh([token])
    assert refused.value.code == code


def test_no_token_is_refused():
    with pytest.raises(Refused, match="no_token"):
        build().accounts.refresh([])


def test_the_same_token_works_until_the_second_it_expires():
    clock = Clock()
    accounts = build(clock).accounts
    token = accounts.login("admin", "admin123", HERE).refresh
    for clock.now in (NOW, NOW + 1, NOW + 86_399, NOW + 86_399.9):
        assert accounts.refresh([token])
    clock.now = NOW + 86_400
    with pytest.raises(Refused, match="expired"):
        accounts.refresh([token])


def test_planted_tokens_neither_count_nor_hide_ours():
    accounts = build().accounts
    assert accounts.refresh(["x", refresh_token(secret=b"x" * 32), session_token(), ""])


def test_the_same_session_twice_is_one_session():
    assert build().accounts.refresh([session_token(), session_token()])


def test_two_good_sessions_are_refused_since_either_may_be_meant():
    with pytest.raises(Refused, match="several_sessions"):
        build().accounts.refresh([session_token(), session_token(sid="6" * 32)])


def test_no_more_than_eight_tokens_are_looked_at():
    accounts = build().accounts
    assert accounts.refresh(["x"] * 7 + [session_token()])
    with pytest.raises(Refused):
        accounts.refresh(["x"] * 8 + [session_token()])


def test_a_restart_with_the_same_secrets_keeps_all_sessions():
    token = build().accounts.login("admin", "admin123", HERE).refresh
    assert build().accounts.refresh([token])


def test_other_lifetimes_are_kept():
    accounts = build(access_ttl=5, refresh_ttl=7).accounts
    _, _, access, refresh, _ = accounts.login("admin", "admin123", HERE)
    assert minijwt.decode(access, ACCESS, now=NOW)["exp"] == NOW + 5
    assert minijwt.decode(refresh, REFRESH, now=NOW)["exp"] == NOW + 7


@pytest.mark.parametrize(
    "pair",
    [
        ("admin", "x"),
        ("x", "admin123"),
        ("", ""),
        ("ADMIN", "admin123"),
        ("ad min", "admin123"),
        ("admin", " admin123"),
        ("admin", "admin123\0"),
    ],
)
def test_wrong_credentials_are_refused(pair):
    with pytest.raises(Refused, match="wrong_credentials"):
        build().accounts.login(*pair, HERE)


@pytest.mark.parametrize("name", [" ann", "ann ", "\t ann\r\n", "\xa0ann\u3000"])
def test_white_space_around_a_name_that_is_typed_is_not_part_of_it(name):
    assert house().accounts.login(name, PASSWORD, HERE).username == "ann"


def test_the_demo_user_is_let_in_by_a_local_request_only():
    accounts = build().accounts
    with pytest.raises(Refused, match="demo_user_not_local"):
        accounts.login("admin", "admin123", HERE, local=False)
    with pytest.raises(Refused, match="wrong_credentials"):
        accounts.login("admin", "admin124", HERE, local=False)
    assert accounts.login("admin", "admin123", HERE)
    assert house().accounts.login("ann", PASSWORD, HERE, local=False)


# -- clocks that differ


@pytest.mark.parametrize("seconds, good", [(1, True), (30, True), (31, False)])
def test_the_clock_that_signed_a_token_may_have_been_half_a_minute_ahead(seconds, good):
    clock = Clock(NOW + seconds)
    app = house(False, clock)
    token = enter(app)
    access = app.accounts.login("ann", PASSWORD, HERE).access
    clock.now = NOW
    assert works(app, token) is good
    if good:
        assert app.accounts.whoami(access)["iat"] == NOW + seconds
        assert app.accounts.explain(access)["valid"]
    else:
        assert code(use(app, token)) == "immature"
        with pytest.raises(minijwt.ImmatureSignatureError):
            app.accounts.whoami(access)


@pytest.mark.parametrize("seconds", [3, 31, WEEK, -DAY - 1])
def test_a_good_signature_is_enough_to_end_a_session_whatever_the_clock_says(seconds):
    clock = Clock(NOW + seconds)
    app = house(clock=clock)
    token = enter(app)
    clock.now = NOW
    assert leave(app, token).status == 204
    clock.now = NOW + seconds + 3
    assert code(use(app, token)) in ("session_ended", "session_forgotten")


def test_an_expired_second_is_never_given_back():
    clock = Clock()
    accounts = build(clock, access_ttl=60).accounts
    tokens = accounts.login("admin", "admin123", HERE)
    clock.now += 60
    with pytest.raises(minijwt.ExpiredSignatureError):
        accounts.whoami(tokens.access)


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
    gone = "__Host-jwt=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Secure; SameSite=Strict"
    for _ in range(2):  # again: the same
        answer = leave(app, *tokens)
        assert (answer.status, answer.body, answer.fields) == (204, b"", (("Set-Cookie", gone),))
    assert [works(app, token) for token in good] == [token not in tokens for token in good]


def test_logout_without_any_cookie_field_is_204_too():
    answer = server.respond(build(), request("POST", "/logout"))
    assert (answer.status, len(answer.fields), answer.events) == (204, 1, ())


# -- planted cookies


def test_a_planted_cookie_of_another_key_does_not_lock_out():
    app = house()
    token = enter(app)
    for planted in ("x", "", sign(secret=b"x" * 32), sign(exp=NOW), sign("nobody"), body(login(app, b""))["message"]):
        token = follow_first(app, planted, token)
        token = follow_first(app, token, planted)


def follow_first(app, *tokens):
    answer = use(app, *tokens)
    assert answer.status == 200
    return cookie_of(answer)


def test_a_planted_cookie_of_an_ended_session_does_not_lock_out():
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


@pytest.mark.parametrize("changes", [{"host": "0.0.0.0"}, {"trusted_proxies": server.read_networks("10.0.0.0/8")}])
def test_an_open_server_never_has_the_demo_user_even_when_its_last_user_goes(changes):
    app = house(False, **changes)
    app.accounts.remove_user("ann")
    assert attempt(app, "admin", "admin123").status == 406
    assert not works(app, sign("admin")) and not works(app, refresh_token())


# -- tokens of the tutorial's own app


def test_tutorial_tokens_are_good_for_the_demo_user_alone_while_rotation_is_off():
    app = build()
    token = refresh_token()
    assert works(app, token) and follow(app, token) == token
    rotating = build(store=app.store, rotate_refresh=True)
    assert code(use(rotating, token)) == "tutorial_token"
    assert works(app, token), "and nothing has ended"
    app.accounts.add_user("ann", PASSWORD)
    app.accounts.add_user("admin", PASSWORD)
    for name in ("ann", "admin"):
        assert code(use(app, refresh_token(username=name))) == "tutorial_token"
    assert not works(app, refresh_token(username="bob"))
    open_server = build(host="192.0.2.1")
    assert code(use(open_server, token)) == "no_user"


def test_logout_of_a_tutorial_token_ends_that_one_alone():
    app = build()
    first, second = refresh_token(), refresh_token(exp=NOW + 100)
    assert leave(app, first).status == 204
    assert not works(app, first) and works(app, second)


@pytest.mark.parametrize("exp", ["soon", None, [1], True, -(10**300), -1e300, -0.5], ids=str)
def test_a_signed_token_whose_exp_cannot_be_is_refused_and_its_logout_harms_nothing(exp):
    app = build()
    for good in (refresh_token(), sign("admin")):
        header, payload, _ = good.split(".")
        claims = {**json.loads(minijwt.base64url_decode(payload.encode())), "exp": exp}
        unsigned = f"{header}.{minijwt.base64url_encode(json.dumps(claims).encode()).decode()}".encode()
        token = b".".join([unsigned, minijwt.sign(unsigned, serverkit.REFRESH)]).decode()
        assert use(app, token).status == 406
        assert leave(app, token).status == 204


def test_a_tutorial_token_that_was_logged_out_stays_so():
    app = build()
    leave(app, refresh_token())
    app.accounts.add_user("ann", PASSWORD)
    app.accounts.remove_user("ann")
    assert code(use(app, refresh_token())) == "session_ended"


def test_a_signed_name_that_cannot_be_is_refused_like_any_other():
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
    """Have the store forget what it does while it writes, until nothing is left to do."""
    for _ in range(5):
        app.store.batch([lambda: app.store.end_session("of nobody", int(app.clock()) + 4 * WEEK)])


@pytest.mark.parametrize("pruned", [False, True])
def test_a_clock_a_week_forward_and_back_revives_no_session_and_locks_no_user_out(pruned):
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
    assert works(app, enter(app)), "a new login is good"


def test_a_clock_that_was_a_week_ahead_for_days_locks_no_user_out_when_it_is_right_again():
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


# -- names and passwords


@pytest.mark.parametrize("text", ["\xe9l\xe9phant rose", "A\u030angstr\xf6m unit", "\u1e9b\u0323 a long one"])
def test_a_password_and_a_name_are_the_same_in_every_unicode_form(text):
    for stored in ("NFC", "NFD"):
        app = build()
        app.accounts.add_user(unicodedata.normalize(stored, text), unicodedata.normalize(stored, text))
        for typed in ("NFC", "NFD"):
            assert attempt(app, unicodedata.normalize(typed, text), unicodedata.normalize(typed, text)).status == 200
        with pytest.raises(ValueError, match="already"):
            app.accounts.add_user(unicodedata.normalize("NFD", text), PASSWORD)
        assert app.store.user_names() == [unicodedata.normalize("NFC", text)]
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
    ("a space before", " ann", "white space around"),
    ("a no-break space after", "ann\xa0", "white space around"),
    ("a line feed", "ann\nsmith", "control"),
    ("an escape", "\x1b[31mann", "control"),
    ("NUL", "ann\0", "control"),
    ("DEL", "ann\x7f", "control"),
    ("a C1 control", "ann\x85", "control"),
    ("a right-to-left override", "ann\u202e", "control"),
    ("a zero-width space", "ann\u200b", "control"),
    ("half of a pair", "ann\ud800", "control"),
    ("a left-to-right mark", "\u200eann", "control"),
    ("a joiner alone", "\u200d", "1 to 255"),
    ("a Persian word with a non-joiner", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ""),
    ("a family, joined", "\U0001f469\u200d\U0001f469\u200d\U0001f467", ""),
    ("Chinese", "\u738b", ""),
    ("punctuation", "o'hara; drop table user --@example.org", ""),
    ("a quote and a percent", '"%s\\', ""),
]


def check(name, password, sentence):
    app = build()
    if not sentence:
        app.accounts.add_user(name, password)
        assert enter(app, name, password)
        assert app.store.user_names() == [unicodedata.normalize("NFC", name)]
        return
    with pytest.raises(ValueError, match=sentence) as error:
        app.accounts.add_user(name, password)
    assert str(error.value).isprintable() and (not password or password not in str(error.value))
    assert app.store.user_names() == []


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
    monkeypatch.setattr(app.store, "count_login_attempt", lambda *anything: 1 / 0)
    for _ in range(20):
        answer = attempt(app, username, password)
        assert (answer.status, body(answer)) == (406, {"message": "Invalid credentials"})


# -- the same work for every name


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


# -- a user changes the own password

BETTER = "a better horse"


def change(app, username="ann", password=PASSWORD, new_password=BETTER, local=True):
    return app.accounts.change_own_password(username, password, new_password, HERE, local)


def test_who_knows_the_old_password_gets_a_new_one_and_all_sessions_end():
    app = house()
    app.accounts.add_user("bob", PASSWORD)
    tokens, bobs = [enter(app), follow(app, enter(app))], enter(app, "bob")
    assert change(app, " ann ") == "ann"
    assert [code(use(app, token)) for token in tokens] == ["sessions_ended"] * 2
    assert attempt(app, "ann", PASSWORD).status == 406
    assert works(app, enter(app, password=BETTER)) and works(app, bobs)


def test_the_old_password_is_looked_at_first_and_guesses_are_counted_as_logins_are():
    app = house(login_max_failures=3)
    token = enter(app)
    for new_password in ("short", BETTER):
        with pytest.raises(Refused, match="wrong_credentials"):
            change(app, password="wrong", new_password=new_password)
    assert attempt(app, "ann", "wrong").status == 406
    with pytest.raises(Refused, match="throttled") as refused:
        change(app)
    assert refused.value.wait == 30 and works(app, token)


@pytest.mark.parametrize("name", ["nobody", "admin", ""])
def test_who_is_not_there_is_refused_for_the_same_work(monkeypatch, name):
    app, calls = house(), counted(monkeypatch)
    with pytest.raises(Refused, match="wrong_credentials"):
        change(app, name)
    assert len(calls) == 1


@pytest.mark.parametrize("password, sentence", [pytest.param(*case[1:], id=case[0]) for case in PASSWORDS if case[2]])
def test_a_new_password_that_cannot_be_one_changes_nothing(password, sentence):
    app = house()
    token = enter(app)
    with pytest.raises(ValueError, match=sentence):
        change(app, new_password=password)
    assert works(app, token) and enter(app)


def test_the_demo_user_keeps_the_password():
    app = build()
    with pytest.raises(ValueError, match="demo user"):
        change(app, "admin", "admin123")
    with pytest.raises(Refused, match="demo_user_not_local"):
        change(app, "admin", "admin123", local=False)
    assert enter(app, "admin", "admin123") and app.store.user_names() == []


@pytest.mark.parametrize("of_the_operator, good", [("the operator's", False), (BETTER, True)])
def test_it_never_undoes_what_the_operator_has_changed_meanwhile(monkeypatch, of_the_operator, good):
    app, real = house(), server.check_password

    def slow(password, stored):
        found = real(password, stored)
        monkeypatch.setattr(server, "check_password", real)
        app.accounts.change_password("ann", of_the_operator)
        return found

    monkeypatch.setattr(server, "check_password", slow)
    if good:
        assert change(app) == "ann", "to have been changed to the same is success"
    else:
        with pytest.raises(Refused, match="wrong_credentials"):
            change(app)
    assert enter(app, password=of_the_operator)


# -- a stronger hash

STRONGER = CHEAP.replace("$2", "$4", 1)


def user_with(cost):
    """An app with CHEAP cost, whose user ann was stored with another."""
    app = build()
    app.store.add_user("ann", server.hash_password(PASSWORD, cost), "e" * 16)
    return app


@pytest.mark.parametrize("cost", ["pbkdf2$1"])
def test_a_weaker_stored_password_is_hashed_anew_at_login_and_sessions_live_on(cost):
    store = new_store()
    weak = server.App(settings(), store, Clock(), cost=cost)
    weak.accounts.add_user("ann", PASSWORD)
    token = enter(weak)
    app = server.App(settings(), store, Clock(), cost=STRONGER)
    attempt(app, "ann", "wrong password")
    assert store.look_up("ann", "", 0).password.startswith(cost), "not for a wrong one"
    assert attempt(app, "ann", PASSWORD).status == 200
    assert store.look_up("ann", "", 0).password.startswith(STRONGER + "$")
    assert attempt(app, "ann", PASSWORD).status == 200
    assert works(app, token)


@pytest.mark.parametrize("cost", [CHEAP, STRONGER])
def test_a_stored_password_that_is_no_weaker_is_left_as_it_is(cost):
    app = user_with(cost)
    before = app.store.look_up("ann", "", 0)
    assert attempt(app, "ann", PASSWORD).status == 200
    assert app.store.look_up("ann", "", 0) == before


def test_a_password_changed_during_a_login_is_not_changed_back():
    app = user_with("pbkdf2$1")
    old = app.store.look_up("ann", "", 0).password
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


# -- guesses

P = "10.0.0.1"  # a trusted proxy


def two_users(clock=None, **changes):
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
    app = two_users(clock)
    assert fail(app) == [406] * 10
    for wait in (30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600):
        assert wait_of(attempt(app, "ann", "wrong", "192.0.2.1")) == wait
        clock.now += wait - 0.5
        assert wait_of(attempt(app, "ann", PASSWORD, "192.0.2.1")) == 1, "not even the right one"
        clock.now += 0.5
        assert attempt(app, "ann", "wrong", "192.0.2.1").status == 406


def test_who_is_turned_away_does_not_wait_any_longer_for_it():
    clock = Clock()
    app = two_users(clock)
    fail(app)
    for clock.now in range(NOW, NOW + 30):
        assert wait_of(attempt(app, "ann", "wrong", "192.0.2.1")) == NOW + 30 - clock.now
    clock.now = NOW + 30
    assert attempt(app, "ann", PASSWORD, "192.0.2.1").status == 200


def test_the_log_says_whose_account_waits_if_there_is_one():
    app = two_users(login_max_failures=1)
    for name, logged in (("ann", "ann"), ("a password by mistake", "unknown")):
        refused = [attempt(app, name, "wrong", "192.0.2.1").events[0].fields for _ in range(2)]
        assert [(each["result"], each["user"]) for each in refused] == [
            ("wrong_credentials", logged), ("throttled", logged)]  # fmt: skip


def test_success_clears_the_count():
    app = two_users()
    for _ in range(5):
        assert fail(app, 9) == [406] * 9
        assert attempt(app, "ann", PASSWORD, "192.0.2.1").status == 200
    assert fail(app, 11) == [406] * 10 + [429]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_the_limit_is_a_setting(limit):
    assert fail(two_users(login_max_failures=limit), limit + 2) == [406] * limit + [429] * 2


def test_zero_is_off():
    app = two_users(login_max_failures=0)
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
    ("the same with white space around it", "ann", "192.0.2.1", " ann\t", "192.0.2.1", True),
    ("IPv6, the same /56", "ann", "2001:db8::1", "ann", "2001:db8:0:ff:ffff:1:2:3", True),
    ("IPv6, the next /56", "ann", "2001:db8::1", "ann", "2001:db8:0:100::1", False),
    ("NAT64 of the same IPv4", "ann", "192.0.2.1", "ann", "64:ff9b::192.0.2.1", True),
    ("NAT64 of another IPv4", "ann", "64:ff9b::192.0.2.1", "ann", "64:ff9b::192.0.2.2", False),
    ("link-local, the same", "ann", "fe80::1", "ann", "fe80::1", True),
    ("link-local, another", "ann", "fe80::1", "ann", "fe80::2", False),
    ("IPv4 written as IPv6", "ann", "192.0.2.1", "ann", "::ffff:192.0.2.1", True),
    ("another IPv4 written as IPv6", "ann", "::ffff:192.0.2.1", "ann", "::ffff:192.0.2.2", False),
    ("IPv6 whose digits look like IPv4 and a name", "abcann", "32.1.13.184", "ann", "2001:db8:6162:6300::1", False),
    (
        "IPv6 whose digits look like IPv4 and a longer name",
        "abcdann",
        "32.1.13.184",
        "ann",
        "2001:db8:6162:6364::1",
        False,
    ),
]


def test_a_place_is_an_address_or_the_56_bits_of_a_network():
    places = [server.place_of(server.parse_address(text)) for text in (
        "127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "127.0.0.2", "2001:db8::1", "2001:db8::2",
        "2001:db8:0:ff::1", "2001:db8:0:100::1", "fe80::1", "fe80::2",
    )]  # fmt: skip
    assert places[0] == places[1] == places[2] and places[4] == places[5] == places[6]
    assert len(set(places)) == 6


@pytest.mark.parametrize("failed, there, name, here, waits", [pytest.param(*case[1:], id=case[0]) for case in OTHERS])
def test_only_the_same_account_from_the_same_place_waits(failed, there, name, here, waits):
    app = two_users()
    assert fail(app, 10, failed, there) == [406] * 10
    assert attempt(app, name, "wrong", here).status == (429 if waits else 406)


def test_the_throttle_does_not_tell_which_names_exist():
    seen = []
    for name in ("ann", "nobody", "admin"):
        clock, found = Clock(), []
        app = two_users(clock)
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
    app = two_users(clock)
    assert fail(app, 9) == [406] * 9
    clock.now += DAY + 1
    assert fail(app, 10) == [406] * 10, "nine of yesterday do not count"
    clock.now += DAY + 3_601
    assert fail(app, 11) == [406] * 10 + [429]
    assert wait_of(attempt(app, "ann", "wrong", "192.0.2.1")) == 30, "and the waits are short again"


@pytest.mark.parametrize("seconds", [10, 3_600, DAY, WEEK, 20 * 365 * DAY])
@pytest.mark.parametrize("failures", [3, 10, 20])
def test_a_clock_that_goes_back_locks_no_user_out(failures, seconds):
    """Not for longer than the longest wait."""
    clock = Clock()
    app = two_users(clock)
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


def test_behind_a_trusted_proxy_each_client_is_throttled_alone():
    app = two_users(trusted_proxies=server.read_networks("10.0.0.0/8"))
    assert fail(app, 11, peer=P, x_forwarded_for="203.0.113.5") == [406] * 10 + [429]
    assert attempt(app, "ann", PASSWORD, P, x_forwarded_for="203.0.113.6").status == 200
    assert attempt(app, "ann", PASSWORD, P, x_forwarded_for="203.0.113.6, 203.0.113.5").status == 429


def test_without_trusted_proxies_a_client_cannot_escape_by_the_field():
    app = two_users()
    statuses = [attempt(app, "ann", "no", "192.0.2.1", x_forwarded_for=f"203.0.113.{n}").status for n in range(12)]
    assert statuses == [406] * 10 + [429] * 2
    assert enter(app), "nor lock another client out"


def test_retry_after_is_rounded_up():
    clock = Clock()
    app = two_users(clock)
    fail(app)
    for elapsed in (0.1, 0.9, 29.0, 29.9):
        clock.now = NOW + elapsed
        assert wait_of(attempt(app, "ann", "x", "192.0.2.1")) == math.ceil(30 - elapsed)


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


# -- random lives against a model of the rules


class Model:
    """The rules of sessions, written down a second time.

    Users are (password, epoch), rows (generation, rotated, ended). A store in memory forgets whenever it writes, SQLite
    when the write lane commits.
    """

    def __init__(self, forgets_at_once):
        self.forgets_at_once = forgets_at_once
        self.users, self.rows, self.ends, self.forgotten = {}, {}, {}, 0

    def user(self, name):
        demo = ("admin123", "demo") if name == "admin" and not self.users else None
        return self.users.get(name, demo)

    def login(self, name, password):
        return self.user(name) is not None and self.user(name)[0] == password

    def in_time(self, token, now):
        return token["iat"] <= now + 30 and now < token["exp"]

    def write(self, token, row, now):
        self.rows[token["sid"]], self.ends[token["sid"]] = row, token["exp"]
        if self.forgets_at_once:
            self.prune(now)

    def refresh(self, token, now, rotate):
        """Return the generation that the client holds afterwards, or None if it is refused."""
        user, (generation, rotated, ended) = self.user(token["username"]), self.rows.get(token["sid"], (0, 0, False))
        if user is None or not self.in_time(token, now) or token["exp"] <= self.forgotten or ended:
            return None
        if (rotate or user[1] != "demo") if token["epoch"] is None else token["epoch"] != user[1]:
            return None
        if token["gen"] > generation:
            return None
        if token["gen"] == generation:
            if rotate:
                self.write(token, (generation + 1, now, False), now)
            return generation + rotate
        if token["gen"] == generation - 1 and abs(now - rotated) <= 30:
            return generation
        self.write(token, (generation, rotated, True), now)
        return None

    def logout(self, token, now):
        self.write(token, (0, 0, True), now)

    def prune(self, now):
        for sid in [sid for sid in self.rows if self.ends[sid] <= now]:
            self.forgotten = max(self.forgotten, self.ends[sid])
            del self.rows[sid]


class Life:
    """One random life: what is done to the server is done to the model, and both have to agree."""

    NAMES = ("admin", "ann", "bob")

    def __init__(self, seed):
        self.random, self.clock = random.Random(seed), Clock()
        store = new_store(self.clock)
        self.model = Model(isinstance(store, server.MemoryStore))
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
        return self.app.store.look_up(name, "", 0).epoch

    def add(self):
        name = self.random.choice(self.NAMES)
        assert self.attempt("add_user", name, PASSWORD) == (name not in self.model.users)
        self.model.users.setdefault(name, (PASSWORD, self.epoch(name)))

    def passwd(self):
        name, password = self.random.choice(self.NAMES), self.random.choice([PASSWORD, "another horse"])
        assert self.attempt("change_password", name, password) == (name in self.model.users)
        if name in self.model.users:
            self.model.users[name] = (password, self.new_epoch(name))

    def user_logout(self):
        name = self.random.choice(self.NAMES)
        assert self.attempt("end_sessions", name) == (name in self.model.users)
        if name in self.model.users:
            self.model.users[name] = (self.model.users[name][0], self.new_epoch(name))

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
            self.model.users[name] = (PASSWORD, self.new_epoch(name))

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
        prune(self.app)
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


HAPPENS = {
    "ok", "reuse_detected", "session_ended", "sessions_ended", "no_user", "session_forgotten", "expired", "immature",
}  # fmt: skip


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
