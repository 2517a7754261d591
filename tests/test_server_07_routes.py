"""Routes: which path knows which method, which pages of other sites may use it, and what becomes of faults."""

import pytest
import server
from serverkit import FORM, LOGIN, body, build, login, post, refresh_token, request, settings
from sessionkit import PASSWORD, credentials, house

pytestmark = pytest.mark.usefixtures("memory")

ROUTES = [
    ("HEAD", "/", 200, None, None),
    ("OPTIONS", "/", 204, None, "GET, HEAD, OPTIONS"),
    ("OPTIONS", "/login", 204, None, "POST, OPTIONS"),
    ("OPTIONS", "/refresh", 204, None, "POST, OPTIONS"),
    ("OPTIONS", "/password", 204, None, "POST, OPTIONS"),
    ("OPTIONS", "/me", 204, None, "GET, HEAD, OPTIONS"),
    ("POST", "/", 405, "method_not_allowed", "GET, HEAD, OPTIONS"),
    ("GET", "/login", 405, "method_not_allowed", "POST, OPTIONS"),
    ("HEAD", "/login", 405, "method_not_allowed", "POST, OPTIONS"),
    ("GET", "/refresh", 405, "method_not_allowed", "POST, OPTIONS"),
    ("GET", "/logout", 405, "method_not_allowed", "POST, OPTIONS"),
    ("GET", "/password", 405, "method_not_allowed", "POST, OPTIONS"),
    ("PUT", "/password", 405, "method_not_allowed", "POST, OPTIONS"),
    ("POST", "/me", 405, "method_not_allowed", "GET, HEAD, OPTIONS"),
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
    ("an unknown Sec-Fetch-Site", "localhost:8000", None, "same-galaxy", False),
    ("two of them", "localhost:8000", None, "same-origin, none", False),
    ("another scheme", "localhost:8000", "ftp://localhost:8000", None, False),
    ("an origin without a host", "", "http://", None, False),
]


@pytest.mark.parametrize("host, origin, site, passes", [pytest.param(*case[1:], id=case[0]) for case in SITES])
@pytest.mark.parametrize("path, status", [("/login", 200), ("/refresh", 406), ("/logout", 204), ("/password", 406)])
def test_a_post_from_a_page_of_another_site_is_refused(path, status, host, origin, site, passes):
    fields = {"host": host, "origin": origin, "sec_fetch_site": site, "content_type": FORM}
    app = house(False, allowed_origins=(APP,))
    sent = {name: value for name, value in fields.items() if value is not None}
    answer = post(app, path, credentials("ann", PASSWORD), **sent)
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


def test_a_fault_of_ours_is_a_500_that_says_nothing(caplog):
    app = build()
    app.accounts = None
    answer = login(app)
    assert (answer.status, body(answer)["code"]) == (500, "internal_error")
    assert "NoneType" not in answer.body.decode() and "NoneType" in caplog.text
    assert "admin123" not in caplog.text


# -- faults


def failing(error):
    def verb(*arguments):
        raise error

    return verb


def test_a_store_that_fails_is_a_503_that_says_when_to_try_again():
    app = build()
    app.store.look_up = app.store.end_session = failing(server.StoreFailed("disk I/O error"))
    token = refresh_token()
    for path, sent in (("/login", {"content_type": FORM}), ("/refresh", {"cookie": f"jwt={token}"})):
        answer = post(app, path, LOGIN, **sent)
        assert (answer.status, body(answer)["code"], answer.fields) == (503, "unavailable", (("Retry-After", "1"),))
        assert [(event.name, dict(event.fields)) for event in answer.events] == [
            ("database", {"error": "disk I/O error"})
        ]
    answer = post(app, "/logout", cookie=f"jwt={token}")
    assert answer.status == 503 and [name for name, _ in answer.fields] == ["Retry-After", "Set-Cookie"]
    assert "Max-Age=0" in answer.fields[1][1], "the cookie goes all the same"


@pytest.mark.parametrize("path", ["/login", "/password"])
def test_a_password_that_cannot_be_hashed_is_a_503_too(monkeypatch, path):
    app = house()
    monkeypatch.setattr(server, "check_password", failing(server.HashFailed("scrypt: no memory")))
    answer = post(app, path, credentials("ann", PASSWORD) + b"&new_password=x", content_type=FORM)
    assert (answer.status, body(answer)["code"], answer.fields) == (503, "unavailable", (("Retry-After", "1"),))
    assert [event.name for event in answer.events] == ["hash"]


def test_redo_reaches_the_caller():
    app = build()
    app.store.look_up = failing(server.Redo())
    with pytest.raises(server.Redo):
        post(app, "/refresh", cookie=f"jwt={refresh_token()}")


# -- lanes

LANES = [  # (whether it rotates, whether the store reads inline, path, lane)
    (False, True, "/", "inline"), (False, True, "/me", "inline"), (False, True, "/explain", "inline"),
    (False, True, "/refresh", "inline"), (False, True, "/login", "hash"), (False, True, "/password", "hash"),
    (False, True, "/logout", "write"),
    (True, True, "/refresh", "write"), (True, True, "/", "inline"), (True, True, "/login", "hash"),
    (False, False, "/", "inline"), (False, False, "/refresh", "write"), (False, False, "/me", "inline"),
]  # fmt: skip


@pytest.mark.parametrize("rotate, inline, path, lane", LANES)
def test_what_may_take_long_is_not_answered_on_the_loop(rotate, inline, path, lane):
    class Store(server.MemoryStore):
        inline_reads = inline

    (method,) = server.ROUTES[path]
    assert server.lanes_of(settings(rotate_refresh=rotate), Store())[method, path] == lane
