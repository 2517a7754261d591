"""Endpoints: what each path makes of a request, as calls without a port."""

import base64
import json
import re

import minijwt
import pytest
import server
from serverkit import (
    ACCESS, FORM, LOGIN, NOW, REFRESH, Clock, body, build, cookie_of, login, new_store, post, refresh, refresh_token,
    request,
)  # fmt: skip
from sessionkit import PASSWORD, credentials, enter, house, sign, works
from vectors import KEY, OTHER_KEY, VECTORS, base64url, hmac_sha256, token

pytestmark = pytest.mark.usefixtures("memory")

# -- /login, /refresh

WRONG = (406, {"message": "Invalid credentials"})

REFUSED = (406, {"message": "Unauthorized"})


def test_login_answers_an_access_token_and_a_cookie():
    answer = login(build())
    assert answer.status == 200
    assert answer.content_type == "application/json; charset=utf-8"
    assert answer.body.startswith(b'{"accessToken": "') and list(body(answer)) == ["accessToken"]
    assert answer.fields == (
        ("Set-Cookie", f"jwt={cookie_of(answer)}; Max-Age=86400; Path=/; Expires=Sat, 16 Jan 2027 08:00:00 GMT;"
                       " HttpOnly; Secure; SameSite=None"),
    )  # fmt: skip


LOGINS = [
    ("as in the tutorial", LOGIN, FORM, 200),
    ("with a charset", LOGIN, FORM + "; charset=utf-8", 200),
    ("other order, other fields", b"x=1&password=admin123&y=&username=admin", FORM, 200),
    ("percent-encoded", b"%75sername=%61dmin&password=admin%31%32%33", FORM, 200),
    ("wrong password", b"username=admin&password=admin124", FORM, 406),
    ("wrong user", b"username=root&password=admin123", FORM, 406),
    ("a user in UTF-8", "username=\xe4dmin&password=admin123".encode(), FORM, 406),
    ("an emoji, escaped", b"username=%F0%9F%98%80&password=admin123", FORM, 406),
    ("a lone surrogate, escaped", b"username=%ED%A0%80&password=admin123", FORM, 406),
    ("no password", b"username=admin", FORM, 406),
    ("no username", b"password=admin123", FORM, 406),
    ("empty password", b"username=admin&password=", FORM, 406),
    ("empty body", b"", FORM, 406),
    ("username twice", b"username=admin&username=admin&password=admin123", FORM, 406),
    ("password twice", b"username=admin&password=x&password=admin123", FORM, 406),
    ("an array", b"username[]=admin&password=admin123", FORM, 406),
    ("other case", b"Username=admin&Password=admin123", FORM, 406),
    ("a space around the name", b"username=+admin+&password=admin123", FORM, 200),
    ("a space after the password", b"username=admin&password=admin123+", FORM, 406),
    ("a NUL more", b"username=admin&password=admin123%00", FORM, 406),
    ("JSON", json.dumps({"username": "admin", "password": "admin123"}).encode(), "application/json", 406),
    ("a form that says JSON", LOGIN, "application/json", 406),
    ("multipart", LOGIN, "multipart/form-data; boundary=x", 406),
    ("plain text", LOGIN, "text/plain", 406),
    ("a type in pieces", LOGIN, "application", 406),
    ("bad escapes", b"username=%&password=%zz", FORM, 406),
    ("bad UTF-8", b"username=\xff\xfe&password=admin123", FORM, 406),
    ("only separators", b"&&&===&", FORM, 406),
    ("200 fields", LOGIN + b"&x=" * 198, FORM, 200),
    ("201 fields", LOGIN + b"&x=" * 199, FORM, 406),
]


@pytest.mark.parametrize("form, kind, status", [pytest.param(*case[1:], id=case[0]) for case in LOGINS])
def test_a_login_is_taken_or_refused(form, kind, status):
    answer = login(build(), form, kind)
    assert answer.status == status
    if status == 406:
        assert (answer.status, body(answer)) == WRONG
        assert answer.fields == ()


def test_a_form_without_a_type_is_refused():
    answer = post(build(), "/login", LOGIN)
    assert (answer.status, body(answer)) == WRONG


def test_credentials_in_the_query_are_not_credentials():
    framer = server.Framer()
    framer.receive(b"POST /login?" + LOGIN + b" HTTP/1.1\r\nHost: a\r\nContent-Type: " + FORM.encode() + b"\r\n\r\n")
    answer = server.respond(build(), framer.next_request())
    assert (answer.status, body(answer)) == WRONG


def test_refresh_answers_a_new_access_token_and_leaves_the_cookie():
    clock = Clock()
    app = build(clock)
    cookie = cookie_of(login(app))
    for clock.now in (NOW, NOW + 5, NOW + 86_399):
        answer = refresh(app, f"jwt={cookie}")
        assert (answer.status, answer.fields) == (200, ())
        assert minijwt.decode(body(answer)["accessToken"], ACCESS, now=clock.now) == {
            "username": "admin", "iat": clock.now, "exp": clock.now + 600,
        }  # fmt: skip
    clock.now = NOW + 86_400
    answer = refresh(app, f"jwt={cookie}")
    assert (answer.status, body(answer)) == REFUSED


def test_a_second_login_does_not_end_the_first_and_a_failure_spoils_nothing():
    app = build()
    first, second = cookie_of(login(app)), cookie_of(login(app))
    assert refresh(app, "jwt=garbage").status == 406
    assert login(app, b"username=admin&password=x").status == 406
    assert [refresh(app, f"jwt={cookie}").status for cookie in (first, second, first)] == [200, 200, 200]


GOOD = refresh_token()

COOKIES = [
    ("alone", f"jwt={GOOD}", 200),
    ("quoted", f'jwt="{GOOD}"', 200),
    ("among others", f'a=1; prefs={{"x":"y","z":[1]}}; jwt={GOOD}; b', 200),
    ("behind a planted one", f"jwt=planted; jwt={GOOD}", 200),
    ("none", "", 406),
    ("empty", "jwt=", 406),
    ("other name", f"JWT={GOOD}", 406),
    ("name with a no-break space", f"\xa0jwt={GOOD}", 406),
    ("one letter broken", f"jwt={GOOD[:-10]}{'A' if GOOD[-10] != 'A' else 'B'}{GOOD[-9:]}", 406),
    ("percent-encoded", f"jwt=%65{GOOD[1:]}", 406),
    ("two sessions", f"jwt={GOOD}; jwt={refresh_token(iat=NOW - 1)}", 406),
    ("expired", f"jwt={refresh_token(exp=NOW)}", 406),
    ("an access token", f"jwt={refresh_token(secret=ACCESS)}", 406),
    ("bytes beyond ASCII", "jwt=\xff\xfe", 406),
    ("very long", "jwt=" + "A" * 8_000, 406),
    ("the 200th", "a=b;" * 199 + f"jwt={GOOD}", 200),
    ("the 201st", "a=b;" * 200 + f"jwt={GOOD}", 406),
]


@pytest.mark.parametrize("cookie, status", [pytest.param(*case[1:], id=case[0]) for case in COOKIES])
def test_a_cookie_is_taken_or_refused(cookie, status):
    answer = refresh(build(), cookie)
    assert answer.status == status
    if status == 406:
        assert (answer.status, body(answer)) == REFUSED
        assert answer.fields == (), "a failed refresh never touches the cookie"


def test_refresh_without_any_cookie_field_is_refused():
    answer = post(build(), "/refresh")
    assert (answer.status, body(answer)) == REFUSED


def test_401_comes_with_the_challenge_that_belongs_to_it():
    app = build(unauthorized_status=401)
    for answer in (login(app, b"username=admin&password=x"), refresh(app, "jwt=x")):
        assert answer.status == 401
        assert answer.fields == (("WWW-Authenticate", 'Bearer realm="minijwt"'),)


def test_the_cookie_is_as_the_settings_say():
    app = build(cookie_name="__Host-x", cookie_samesite="Strict", refresh_ttl=60)
    (field,) = login(app).fields
    name, *attributes = field[1].split("; ")
    assert name.startswith("__Host-x=eyJ")
    assert attributes == [
        "Max-Age=60",
        "Path=/",
        "Expires=Fri, 15 Jan 2027 08:01:00 GMT",
        "HttpOnly",
        "Secure",
        "SameSite=Strict",
    ]
    (field,) = login(build(cookie_secure=False, cookie_samesite="Lax")).fields
    assert "Secure" not in field[1] and field[1].endswith("; HttpOnly; SameSite=Lax")


# -- /


def test_the_root_says_that_it_runs():
    answer = server.respond(build(), request("GET", "/"))
    assert (answer.status, answer.content_type, answer.body) == (200, "text/plain; charset=utf-8", b"server running")


def test_the_root_says_whether_the_store_answers_now():
    app = build()

    def fails(*arguments):
        raise server.StoreFailed("gone")

    assert server.respond(app, request()).status == 200
    real, app.store.look_up = app.store.look_up, fails
    for _ in range(3):
        assert server.respond(app, request()).status == 503
    assert server.respond(app, request(accept="text/html")).status == 200, "the page needs no store"
    app.store.look_up = real
    assert server.respond(app, request()).status == 200


# -- /password

NEW = b"&new_password=a+better+horse"
CHANGES = [  # (the form, status, code or None)
    ("good", b"username=ann&password=correct+horse" + NEW, 204, None),
    ("another order", b"new_password=a+better+horse&x=1&password=correct+horse&username=ann", 204, None),
    ("the same again", b"username=ann&password=correct+horse&new_password=correct+horse", 204, None),
    ("a wrong old one", b"username=ann&password=wrong" + NEW, 406, None),
    ("nobody's", b"username=nobody&password=correct+horse" + NEW, 406, None),
    ("no new one", b"username=ann&password=correct+horse", 406, None),
    ("two new ones", b"username=ann&password=correct+horse" + NEW + NEW, 406, None),
    ("an empty new one", b"username=ann&password=correct+horse&new_password=", 422, "password_not_acceptable"),
    ("a short one", b"username=ann&password=correct+horse&new_password=1234567", 422, "password_not_acceptable"),
    ("a long one", b"username=ann&password=correct+horse&new_password=" + b"x" * 1_025, 422, "password_not_acceptable"),
    ("a short one, and a wrong old one", b"username=ann&password=wrong&new_password=x", 406, None),
]


@pytest.mark.parametrize("form, status, code", [pytest.param(*case[1:], id=case[0]) for case in CHANGES])
def test_a_password_is_changed_or_it_is_said_why_not(form, status, code):
    app = house(False)
    token = enter(app)
    answer = post(app, "/password", form, content_type=FORM)
    assert answer.status == status
    assert [event.name for event in answer.events] == ["password"]
    if status == 204:
        assert answer.fields == post(app, "/logout").fields, "the cookie is deleted"
        assert not works(app, token)
        assert dict(answer.events[0].fields) == {"result": "ok", "user": "ann", "address": "0.0.0.0"}
        return
    assert works(app, token) and answer.fields == ()
    if status == 406:
        assert (answer.status, body(answer)) == WRONG
    else:
        assert body(answer)["code"] == code and body(answer)["message"].startswith("A password has at ")


def test_guesses_at_a_password_wait_whichever_path_they_take():
    app = house(login_max_failures=2)
    for path in ("/password", "/login"):
        assert post(app, path, credentials("ann", "wrong") + NEW, content_type=FORM).status == 406
    for path in ("/password", "/login"):
        answer = post(app, path, credentials("ann", PASSWORD) + NEW, content_type=FORM)
        assert (answer.status, dict(answer.fields)["Retry-After"]) == (429, "30")


# -- who is on this machine

LOCAL = [  # (Host, another field, whether the request is a local one)
    ("localhost", {}, True), ("localhost:8000", {}, True), ("LOCALHOST", {}, True), ("127.0.0.1:8000", {}, True),
    ("127.8.9.10", {}, True), ("[::1]", {}, True), ("[::1]:8000", {}, True), ("[::ffff:127.0.0.1]", {}, True),
    ("evil.example", {}, False), ("localhost.evil.example:8000", {}, False), ("192.0.2.1", {}, False),
    ("0.0.0.0", {}, False), ("[2001:db8::1]", {}, False), ("1.0.0.127", {}, False),
    ("127.0.0.1.evil.example", {}, False),
    ("localhost", {"x_forwarded_for": "127.0.0.1"}, False), ("localhost", {"forwarded": "for=127.0.0.1"}, False),
    ("localhost", {"x_forwarded_proto": "https"}, False), ("localhost", {"x_forwarded_host": "localhost"}, False),
    ("localhost", {"x_real_ip": "127.0.0.1"}, False), ("localhost", {"x_other": "1"}, True),
]  # fmt: skip


@pytest.mark.parametrize("host, fields, good", LOCAL)
def test_the_demo_user_is_for_a_loopback_name_without_a_proxy(host, fields, good):
    answer = post(build(), "/login", LOGIN, content_type=FORM, host=host, **fields)
    assert answer.status == (200 if good else 406)
    assert answer.events[0].fields["result"] == ("ok" if good else "demo_user_not_local")
    app = house()
    assert post(app, "/login", credentials("ann", PASSWORD), content_type=FORM, host=host, **fields).status == 200


# -- /me


def access(secret=ACCESS, **changes):
    claims = {"username": "ann", "iat": NOW, "exp": NOW + 600, **changes}
    return minijwt.encode({name: value for name, value in claims.items() if value is not None}, secret)


GOOD_ACCESS = access()

ME = [  # (Authorization, or None; status; code)
    ("none", None, 401, "no_token"),
    ("empty", "", 401, "no_token"),
    ("Bearer", f"Bearer {GOOD_ACCESS}", 200, None),
    ("bearer", f"bearer {GOOD_ACCESS}", 200, None),
    ("BEARER", f"BEARER {GOOD_ACCESS}", 200, None),
    ("two spaces", f"Bearer  {GOOD_ACCESS}", 200, None),
    ("Basic", "Basic YWRtaW46YWRtaW4xMjM=", 401, "no_token"),
    ("Bearer alone", "Bearer", 401, None),
    ("no space", f"Bearer{GOOD_ACCESS}", 401, None),
    ("two tokens", f"Bearer {GOOD_ACCESS} {GOOD_ACCESS}", 401, "decode_error"),
    ("rubbish", "Bearer x", 401, "decode_error"),
    ("non-ASCII", "Bearer \xff", 401, "decode_error"),
    ("quoted", f'Bearer "{GOOD_ACCESS}"', 401, "decode_error"),
    ("a refresh token", f"Bearer {sign()}", 401, "invalid_signature"),
    ("a tutorial refresh token", f"Bearer {refresh_token()}", 401, "invalid_signature"),
    ("a refresh token of the access key", f"Bearer {sign(secret=ACCESS)}", 401, "invalid_token"),
    ("another key", f"Bearer {access(secret=b'x' * 32)}", 401, "invalid_signature"),
    ("no signature", f"Bearer {GOOD_ACCESS.rpartition('.')[0]}.", 401, "invalid_signature"),
    ("expired", f"Bearer {access(exp=NOW)}", 401, "expired"),
    ("from the future", f"Bearer {access(iat=NOW + 31)}", 401, "immature"),
    ("no exp", f"Bearer {access(exp=None)}", 401, "invalid_token"),
    ("alg none", "Bearer eyJhbGciOiJub25lIn0." + GOOD_ACCESS.split(".")[1] + ".", 401, "invalid_algorithm"),
]


@pytest.mark.parametrize("status", [406, 401])
@pytest.mark.parametrize("field, expected, reason", [pytest.param(*case[1:], id=case[0]) for case in ME])
def test_me_gives_the_claims_or_the_challenge_of_rfc_6750(field, expected, reason, status):
    app = build(unauthorized_status=status)
    answer = server.respond(app, request(path="/me", **({} if field is None else {"authorization": field})))
    assert answer.status == expected
    if expected == 200:
        assert body(answer) == {"username": "ann", "iat": NOW, "exp": NOW + 600} and answer.fields == ()
        return
    assert reason is None or body(answer)["code"] == reason
    ((name, challenge),) = answer.fields
    assert name == "WWW-Authenticate" and challenge.startswith('Bearer realm="minijwt"')
    # RFC 6750 §3.1: without a token, no error code
    assert ('error="invalid_token"' in challenge) == (body(answer)["code"] != "no_token")
    assert GOOD_ACCESS not in challenge + answer.body.decode()


def test_me_touches_no_state():
    app = build()
    token = body(login(app))["accessToken"]
    app.accounts = server.Accounts(app.settings, None, app.clock)
    assert server.respond(app, request(path="/me", authorization=f"Bearer {token}")).status == 200


def test_an_access_token_outlives_logout_until_it_expires():
    clock = Clock()
    app = build(clock, new_store(clock))
    app.accounts.add_user("ann", PASSWORD)
    token = app.accounts.refresh([enter(app)]).access
    app.accounts.remove_user("ann")
    statuses = []
    for clock.now in (NOW + 599, NOW + 600):
        statuses.append(server.respond(app, request(path="/me", authorization=f"Bearer {token}")).status)
    assert statuses == [200, 401]


def test_the_cookie_is_no_bearer_and_the_bearer_no_cookie():
    app = build()
    answer = login(app)
    token = body(answer)["accessToken"]
    assert server.respond(app, request("POST", "/refresh", cookie=f"jwt={token}")).status == 406
    assert server.respond(app, request(path="/me", cookie=f"jwt={token}")).status == 401
    assert (
        server.respond(app, request(path="/me", authorization=f"Bearer {refresh_token(secret=REFRESH)}")).status == 401
    )


# -- /explain


def explain(app, text):
    return server.respond(app, request("GET", "/explain", authorization=f"Bearer {text}"))


def test_the_trace_is_what_minijwt_says():
    clock = Clock()
    app = build(clock)
    good = body(login(app))["accessToken"]
    for text in (good, good[:-1], "", "a.b", good.replace(".", ".e30", 1)):
        answer = explain(app, text)
        assert (answer.status, body(answer)) == (200, minijwt.explain(text, ACCESS, now=NOW))
    assert body(explain(app, good))["valid"] is True
    clock.now += 600
    (failed,) = [step for step in body(explain(app, good))["steps"] if step["ok"] is False]
    assert (failed["name"], failed["code"]) == ("exp", "expired")


@pytest.mark.parametrize("iat", [None, -60, 0, 20, 30, 31])
@pytest.mark.parametrize("exp", [None, 0, 1, 31, 60])
def test_the_trace_and_me_agree_whatever_the_clocks(iat, exp):
    times = {name: NOW + value for name, value in (("iat", iat), ("exp", exp)) if value is not None}
    app, text = build(Clock(NOW)), minijwt.encode({"username": "admin", **times}, ACCESS)
    report = body(explain(app, text))
    status = server.respond(app, request("GET", "/me", authorization=f"Bearer {text}")).status
    # A token that lacks a claim is fine, but is no access token; one that begins after its end is never made.
    if None not in (iat, exp) and iat < exp:
        assert report["valid"] is (status == 200)
    if iat is None:
        ahead = minijwt.encode({"username": "admin", "nbf": NOW + 20, **times}, ACCESS)
        assert body(explain(app, ahead))["valid"] is False, "30 seconds are allowed on iat, and on nothing else"


def test_a_token_of_the_old_secret_is_explained_with_that_secret():
    old, new = b"an old secret of more than 32 bytes", b"a new secret of more than 32 bytes"
    app = build(access_secrets=(new, old))
    claims = {"username": "admin", "exp": NOW + 60}
    for secret, valid in ((new, True), (old, True), (b"somebody else's secret of 32 bytes", False)):
        text = minijwt.encode(claims, secret)
        report = body(explain(app, text))
        assert report["valid"] is valid
        assert report == minijwt.explain(text, secret if valid else new, now=NOW)


def test_the_trace_never_tells_the_signature_that_would_have_been_right():
    app = build(Clock(2_000_000_000), access_secrets=(KEY.encode(), OTHER_KEY.encode()))
    tokens = [token('{"exp":1}'), token("[]"), token(header='{"alg":"none"}'), token()[:-1], token() + "A"]
    tokens += [vector.token for vector in VECTORS if isinstance(vector.token, str) and len(vector.token) < 8_000]
    for text in tokens:
        try:
            answer = explain(app, text)
        except UnicodeEncodeError:  # no header field holds that
            continue
        told = answer.body.decode("ascii").lower()
        for key in (KEY, OTHER_KEY):
            right = hmac_sha256(key.encode(), text.rpartition(".")[0].encode())
            for spelling in (base64url(right), base64.b64encode(right).decode().rstrip("="), right.hex(), key):
                assert spelling.lower() not in told, text


def test_the_trace_is_ascii_whatever_the_token_says():
    app, claims = build(), '{"username":"\u2028\u202e\U0001f600</script>\x7f"}'
    answer = explain(app, token(claims, key=ACCESS))
    assert answer.content_type == "application/json; charset=utf-8"
    assert re.fullmatch(rb"[ -~]+", answer.body)
    assert json.loads(answer.body)["claims"] == json.loads(claims)
    assert body(explain(app, "\xfc\xff.\x80"))["steps"][0]["found"] == "Token must be ASCII"


def test_the_trace_of_a_token_that_is_no_text_is_not_much_longer_than_the_token():
    app = build()
    for text in ("A" * 8_000 + ".B.C", "A." + "A" * 8_000 + ".C", "_" * 8_000 + ".B.C", "AAEC" * 2_000 + ".B.C"):
        assert len(explain(app, text).body) < 3 * len(text)
    several = ", Bearer ".join(["A" * 8_000] * 3 + ["A" * 7_000 + ".B.C"])
    assert len(explain(app, several).body) < 25_000


@pytest.mark.parametrize("fields", [{}, {"authorization": "Basic YTpi"}, {"authorization": "eyJ"}])
def test_without_a_token_it_is_a_401_as_for_me(fields):
    app = build()
    me, trace = (server.respond(app, request("GET", path, **fields)) for path in ("/me", "/explain"))
    assert trace == me and trace.status == 401
    assert trace.fields == (("WWW-Authenticate", 'Bearer realm="minijwt"'),)
