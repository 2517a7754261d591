"""Accounts: what a refresh token is worth. Tokens are made here with another key, another claim, another time."""

import minijwt
import pytest
import ipaddress

from serverkit import ACCESS, NOW, REFRESH, Clock, body, build, cookie_of, login, refresh_token
from server import Refused


HERE = ipaddress.ip_address("127.0.0.1")


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
    ("from the future", refresh_token(iat=NOW + 60), "immature"),
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


def test_two_good_sessions_are_refused_because_nobody_knows_which_is_meant():
    with pytest.raises(Refused, match="several_sessions"):
        build().accounts.refresh([session_token(), session_token(sid="6" * 32)])


def test_no_more_than_eight_tokens_are_looked_at():
    accounts = build().accounts
    assert accounts.refresh(["x"] * 7 + [session_token()])
    with pytest.raises(Refused):
        accounts.refresh(["x"] * 8 + [session_token()])


def test_a_restart_with_the_same_secrets_keeps_everybody_logged_in():
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
        ("admin ", "admin123"),
        ("admin", "admin123\0"),
    ],
)
def test_wrong_credentials_are_refused(pair):
    with pytest.raises(Refused, match="wrong_credentials"):
        build().accounts.login(*pair, HERE)
