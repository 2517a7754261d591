"""Every route and every error through respond(): a table, without a port."""

import json

import minijwt
import pytest
import server
from serverkit import (
    ACCESS,
    FORM,
    LOGIN,
    NOW,
    Clock,
    body,
    build,
    cookie_of,
    login,
    post,
    refresh,
    refresh_token,
    request,
)

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
    ("a space more", b"username=admin+&password=admin123", FORM, 406),
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


def test_the_root_says_that_it_runs():
    answer = server.respond(build(), request("GET", "/"))
    assert (answer.status, answer.content_type, answer.body) == (200, "text/plain; charset=utf-8", b"server running")


ROUTES = [
    ("HEAD", "/", 200, None, None),
    ("OPTIONS", "/", 204, None, "GET, HEAD, OPTIONS"),
    ("OPTIONS", "/login", 204, None, "POST, OPTIONS"),
    ("OPTIONS", "/refresh", 204, None, "POST, OPTIONS"),
    ("POST", "/", 405, "method_not_allowed", "GET, HEAD, OPTIONS"),
    ("GET", "/login", 405, "method_not_allowed", "POST, OPTIONS"),
    ("HEAD", "/login", 405, "method_not_allowed", "POST, OPTIONS"),
    ("GET", "/refresh", 405, "method_not_allowed", "POST, OPTIONS"),
    ("DELETE", "/refresh", 405, "method_not_allowed", "POST, OPTIONS"),
    ("BREW", "/login", 405, "method_not_allowed", "POST, OPTIONS"),
    ("TRACE", "/", 405, "method_not_allowed", "GET, HEAD, OPTIONS"),
    ("post", "/login", 405, "method_not_allowed", "POST, OPTIONS"),
    *[
        ("GET", path, 404, "not_found", None)
        for path in ("/nothing", "/Login", "/login/", "//login", "/./login", "/login%00", "")
    ],
    ("OPTIONS", "*", 204, None, "OPTIONS"),
    ("OPTIONS", "/nothing", 404, "not_found", None),
    ("CONNECT", "localhost:80", 404, "not_found", None),
]


@pytest.mark.parametrize("method, path, status, code, allow", ROUTES)
def test_everything_else_is_a_json_error(method, path, status, code, allow):
    answer = server.respond(build(), request(method, path))
    assert answer.status == status
    assert dict(answer.fields).get("Allow") == allow
    if code:
        assert answer.content_type == "application/json; charset=utf-8"
        assert set(body(answer)) == {"message", "code"} and body(answer)["code"] == code


APP = "https://app.example"
SITES = [  # who sends a POST: Host, Origin, Sec-Fetch-Site; whether it passes
    ("curl", "localhost:8000", None, None, True),
    ("our own page", "localhost:8000", "http://localhost:8000", "same-origin", True),
    ("our own page, in a browser of 2019", "localhost:8000", "http://localhost:8000", None, True),
    ("our own page behind a TLS proxy", "login.example", "https://login.example", None, True),
    ("with a default port spelled", "login.example:443", "https://login.example", None, True),
    ("with the other default port", "login.example:443", "http://login.example", None, False),
    ("in capitals", "LOGIN.example", "https://login.example", None, True),
    ("an IPv6 address", "[::1]:8000", "http://[::1]:8000", None, True),
    ("a proxy that rewrites Host", "backend", "https://login.example", "same-origin", True),
    ("typed in by the user", "localhost:8000", None, "none", True),
    ("an allowed origin", "localhost:8000", APP, "cross-site", True),
    ("an allowed origin, in a browser of 2019", "localhost:8000", APP, None, True),
    ("another site", "localhost:8000", "https://evil.example", "cross-site", False),
    ("another site that lies about Origin only", "localhost:8000", "http://localhost:8000", "cross-site", False),
    ("another site, in a browser of 2019", "localhost:8000", "https://evil.example", None, False),
    ("a sibling", "login.example", "https://blog.example", "same-site", False),
    ("another port of this host", "localhost:8000", "http://localhost:3000", "same-site", False),
    ("another port, in a browser of 2019", "localhost:8000", "http://localhost:3000", None, False),
    ("a sandboxed frame", "localhost:8000", "null", "cross-site", False),
    ("a file, in a browser of 2019", "localhost:8000", "null", None, False),
    ("an allowed origin in capitals", "localhost:8000", APP.upper(), "cross-site", False),
    ("an allowed origin and more", "localhost:8000", f"{APP}, https://evil.example", "cross-site", False),
    ("the beginning of an allowed origin", "localhost:8000", f"{APP}.evil.example", None, False),
    ("a Sec-Fetch-Site nobody knows", "localhost:8000", None, "same-galaxy", False),
    ("two of them", "localhost:8000", None, "same-origin, none", False),
    ("another scheme", "localhost:8000", "ftp://localhost:8000", None, False),
    ("an origin without a host", "", "http://", None, False),
]


@pytest.mark.parametrize("host, origin, site, passes", [pytest.param(*case[1:], id=case[0]) for case in SITES])
@pytest.mark.parametrize("path, status", [("/login", 200), ("/refresh", 406), ("/logout", 204)])
def test_a_post_from_a_page_of_another_site_is_refused(path, status, host, origin, site, passes):
    fields = {"host": host, "origin": origin, "sec_fetch_site": site, "content_type": FORM}
    log = []
    app = build(log=log, allowed_origins=(APP,))
    answer = post(app, path, LOGIN, **{name: value for name, value in fields.items() if value is not None})
    if passes:
        assert answer.status == status
    else:
        assert (answer.status, body(answer)["code"]) == (403, "cross_site")
        assert [event.name for event in answer.events] == ["cross_site"]


def test_a_get_from_another_site_changes_nothing_and_passes():
    fields = {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}
    assert server.respond(build(), request("GET", "/", **fields)).status == 200


def shared(method, path, origin, **fields):
    """The fields for CORS in an answer of a server that allows one origin."""
    app = build(allowed_origins=(APP, "http://localhost:3000"))
    asked = request(method, path, origin=origin, **fields)
    answer = server.add_cors_headers(app, asked, server.respond(app, asked))
    return answer.status, {name: value for name, value in answer.fields if name.startswith(("Access-", "Vary"))}


def test_a_page_of_an_allowed_origin_may_read_every_answer():
    wanted = {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate",
    }
    assert shared("POST", "/refresh", APP) == (406, wanted)
    assert shared("GET", "/me", APP) == (401, wanted)
    assert shared("GET", "/nothing", APP) == (404, wanted)


def test_a_preflight_says_what_the_page_may_send():
    status, fields = shared("OPTIONS", "/me", APP, access_control_request_method="GET")
    assert status == 204
    assert fields["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
    assert fields["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
    assert fields["Access-Control-Max-Age"] == "600"
    assert fields["Access-Control-Allow-Origin"] == APP


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "*", APP + "/", APP.upper(), f"{APP}, {APP}", ""])
def test_nobody_else_may(origin):
    assert shared("OPTIONS", "/login", origin, access_control_request_method="POST")[1] == {"Vary": "Origin"}


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


def test_a_fault_of_ours_is_a_500_that_says_nothing(caplog):
    app = build()
    app.accounts = None
    answer = login(app)
    assert (answer.status, body(answer)["code"]) == (500, "internal_error")
    assert "NoneType" not in answer.body.decode() and "NoneType" in caplog.text
    assert "admin123" not in caplog.text
