"""Messages: the framer, who the client is, forms, cookies, the one writer. Requests are read whole and in pieces."""

import pytest
import server
from server import Framer, HTTPError, Response, parse_cookies, parse_form, render
from serverkit import FORM, LOGIN, NOW, RAW_LOGIN, build, raw, request
from sessionkit import attempt

pytestmark = pytest.mark.usefixtures("memory")


def frame(data, size=None):
    """All requests in `data`, handed over in pieces of `size`; the code of the error, if it ends in one."""
    framer, found = Framer(), []
    try:
        for start in range(0, len(data), size or len(data)):
            framer.receive(data[start : start + (size or len(data))])
            while (request := framer.next_request()) is not None:
                found.append(request)
        if framer.busy:
            found.append((400, "incomplete"))
    except HTTPError as error:
        found.append((error.status, error.code))
    return found


def head(*lines, first="GET / HTTP/1.1"):
    return "\r\n".join([first, *lines]).encode("latin-1") + b"\r\n\r\n"


HOST = "Host: localhost"

GOOD = [
    ("a login", RAW_LOGIN, "POST", "/login", LOGIN),
    ("no body", raw("POST", "/refresh"), "POST", "/refresh", b""),
    ("a body of length 0", raw("POST", "/login", b"", "Content-Length: 0"), "POST", "/login", b""),
    ("a query", raw("GET", "/?a=b"), "GET", "/", b""),
    ("a query with a slash", raw("GET", "/login?/refresh"), "GET", "/login", b""),
    ("an unknown method", raw("BREW", "/"), "BREW", "/", b""),
    ("absolute-form", raw("GET", "http://localhost/login?x"), "GET", "/login", b""),
    ("absolute-form without a path", raw("GET", "http://localhost"), "GET", "/", b""),
    ("absolute-form with a query only", raw("GET", "http://localhost?x=/login"), "GET", "/", b""),
    ("absolute-form with a port", raw("GET", "HTTPS://[::1]:1/login"), "GET", "/login", b""),
    ("two empty lines before it", b"\r\n\r\n" + raw("GET", "/"), "GET", "/", b""),
    ("a length with zeros before it", raw("POST", "/", b"", "Content-Length: 000000000000"), "POST", "/", b""),
    ("asterisk-form", raw("OPTIONS", "*"), "OPTIONS", "*", b""),
    ("an empty line before it", b"\r\n" + raw("GET", "/"), "GET", "/", b""),
    ("a space after the value", head(HOST, "A: b \t"), "GET", "/", b""),
    ("no space before the value", head("Host:localhost"), "GET", "/", b""),
    ("an empty value", head(HOST, "A:"), "GET", "/", b""),
    ("a byte beyond ASCII in a value", head(HOST, "A: \xff"), "GET", "/", b""),
    ("HTTP/1.0 without Host", head(first="GET / HTTP/1.0"), "GET", "/", b""),
    ("HTTP/1.2", head(HOST, first="GET / HTTP/1.2"), "GET", "/", b""),
    ("an IPv6 host", head("Host: [::1]:8000"), "GET", "/", b""),
    ("the same length twice", raw("POST", "/", b"ab", "Content-Length: 2"), "POST", "/", b"ab"),
    ("a hundred fields", head(HOST, *["A: b"] * 99), "GET", "/", b""),
    ("a body at the limit", raw("POST", "/", b"x" * 16_384), "POST", "/", b"x" * 16_384),
]


@pytest.mark.parametrize("data, method, path, body", [pytest.param(*case[1:], id=case[0]) for case in GOOD])
def test_a_good_request_is_read_however_it_arrives(data, method, path, body):
    pieces = [None, 7] if len(data) > 2_000 else [None, 1, 7]
    for size in pieces:
        (found,) = frame(data, size)
        assert (found.method, found.path, found.body) == (method, path, body)
    assert [each.path for each in frame(data + RAW_LOGIN)] == [path, "/login"]


BAD = [
    ("no request at all", b"hello\r\n\r\n", 400, "malformed_request_line"),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400, "malformed_request_line"),
    ("two spaces", head(HOST, first="GET  / HTTP/1.1"), 400, "malformed_request_line"),
    ("a method that is no token", head(HOST, first="GE(T / HTTP/1.1"), 400, "malformed_request_line"),
    ("an empty method", head(HOST, first=" / HTTP/1.1"), 400, "malformed_request_line"),
    ("a version in small letters", head(HOST, first="GET / http/1.1"), 400, "malformed_request_line"),
    ("a version with two digits", head(HOST, first="GET / HTTP/1.10"), 400, "malformed_request_line"),
    ("HTTP/2.0", head(HOST, first="GET / HTTP/2.0"), 505, "http_version"),
    ("a target that is no path", head(HOST, first="GET login HTTP/1.1"), 400, "malformed_target"),
    ("a fragment", head(HOST, first="GET /login#x HTTP/1.1"), 400, "malformed_target"),
    *[(f"absolute-form, {target}", head(HOST, first=f"POST {target} HTTP/1.1"), 400, "malformed_target")
      for target in ("http:///login", "http://u:p@a/login", 'http://]["<>/login', "http://a#/login", "http://a/login?#next=1", "ftp://a/login")],
    ("a tab in the target", head(HOST, first="GET /\tlogin HTTP/1.1"), 400, "malformed_request_line"),
    ("an asterisk to GET", head(HOST, first="GET * HTTP/1.1"), 400, "malformed_target"),
    ("no host", head(), 400, "host"),
    ("two hosts", head(HOST, HOST), 400, "host"),
    ("an empty host", head("Host:"), 400, "host"),
    ("a host with a path", head("Host: a/b"), 400, "host"),
    ("a host with a user", head("Host: a@b"), 400, "host"),
    ("a bad host in HTTP/1.0", head("Host: a b", first="GET / HTTP/1.0"), 400, "host"),
    ("a bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400, "control_character"),
    ("a bare CR", head(HOST, "A: b\rC: d"), 400, "control_character"),
    ("a NUL", head(HOST, "A: b\0"), 400, "control_character"),
    ("a NUL in the path", head(HOST, first="GET /\0 HTTP/1.1"), 400, "control_character"),
    ("DEL", head(HOST, "A: \x7f"), 400, "control_character"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "control_character"),
    ("a folded line", head(HOST, "A: b", " c"), 400, "malformed_field"),
    ("a space before the colon", head(HOST, "A : b"), 400, "malformed_field"),
    ("a field without a name", head(HOST, ": b"), 400, "malformed_field"),
    ("a field without a colon", head(HOST, "A"), 400, "malformed_field"),
    ("a name beyond ASCII", head(HOST, "\xe4: b"), 400, "malformed_field"),
    ("chunked", head(HOST, "Transfer-Encoding: chunked"), 411, "length_required"),
    ("Chunked", head(HOST, "Transfer-Encoding: Chunked"), 411, "length_required"),
    ("chunked and a length", head(HOST, "Transfer-Encoding: chunked", "Content-Length: 3"), 400, "transfer_encoding"),
    ("gzip, chunked", head(HOST, "Transfer-Encoding: gzip, chunked"), 400, "transfer_encoding"),
    ("an empty encoding", head(HOST, "Transfer-Encoding:"), 400, "transfer_encoding"),
    ("chunked twice", head(HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400, "transfer_encoding"),
    *[(f"length {text!r}", head(HOST, f"Content-Length: {text}"), 400, "content_length")
      for text in ("", "-1", "+1", "0x1", "1_0", "1 0", "1.0", "1,2", "1,", "\xb2")],
    ("lengths that differ", head(HOST, "Content-Length: 1", "Content-Length: 2"), 400, "content_length"),
    ("a body over the limit", head(HOST, "Content-Length: 16385"), 413, "body_too_large"),
    ("a body without end", head(HOST, "Content-Length: " + "9" * 5_000), 413, "body_too_large"),
    ("a long target", b"GET /" + b"a" * 8_200 + b" HTTP/1.1\r\n" + HOST.encode() + b"\r\n\r\n", 414, "line_too_long"),
    ("a target without end", b"a" * 33_000, 414, "line_too_long"),
    ("a long field", head(HOST, "A: " + "b" * 8_200), 431, "head_too_large"),
    ("a long head", head(HOST, *["A: " + "b" * 8_000] * 5), 431, "head_too_large"),
    ("a head without end", head(HOST, *["A: " + "b" * 1_000] * 40)[:-4], 431, "head_too_large"),
    ("too many fields", head(HOST, *["A: b"] * 100), 431, "head_too_large"),
    ("a short body", raw("POST", "/login", LOGIN)[:-1], 400, "incomplete"),
    ("half a head", raw("GET", "/")[:-2], 400, "incomplete"),
]  # fmt: skip


@pytest.mark.parametrize("data, status, code", [pytest.param(*case[1:], id=case[0]) for case in BAD])
def test_a_bad_request_is_refused_however_it_arrives(data, status, code):
    pieces = [None, 61] if len(data) > 2_000 else [None, 1, 7]
    for size in pieces:
        assert frame(data, size) == [(status, code)]
    if code != "incomplete":
        assert frame(data + RAW_LOGIN) == [(status, code)], "nothing after a refused request is a request"


@pytest.mark.parametrize(
    "version, connection, alive",
    [
        ("1.1", request(), True), ("1.1", "close", False), ("1.1", "TE, Close", False), ("1.1", "keep-alive", True),
        ("1.1", "closed", True), ("1.0", None, False), ("1.0", "keep-alive", True), ("1.0", "Keep-Alive, close", False),
    ],
)  # fmt: skip
def test_connection_is_a_list_of_options(version, connection, alive):
    lines = [HOST, *([f"Connection: {connection}"] if connection else [])]
    (found,) = frame(head(*lines, first=f"GET / HTTP/{version}"))
    assert found.keep_alive is alive


def test_limits_are_what_the_readme_says():
    assert (server.MAX_LINE_BYTES, server.MAX_HEAD_BYTES, server.MAX_FIELDS, server.MAX_BODY_BYTES) == (
        8_192,
        32_768,
        100,
        16_384,
    )


# -- who the client is

P = "10.0.0.1"  # a trusted proxy

FORWARDED = [  # (the peer, X-Forwarded-For or None, trusted, who is meant)
    ("no proxy, no field", "192.0.2.1", None, "", "192.0.2.1"),
    ("no proxy is trusted", "192.0.2.1", "203.0.113.5", "", "192.0.2.1"),
    ("the peer is not trusted", "192.0.2.1", "203.0.113.5", "10.0.0.0/8", "192.0.2.1"),
    ("the peer is trusted", P, "203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("a single address is trusted", P, "203.0.113.5", "10.0.0.1", "203.0.113.5"),
    ("trusted, without a field", P, None, "10.0.0.0/8", P),
    ("trusted, an empty field", P, "", "10.0.0.0/8", P),
    ("what the client wrote itself is ignored", P, "1.2.3.4, 203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("past two proxies", P, "203.0.113.5, 10.0.0.2", "10.0.0.0/8", "203.0.113.5"),
    ("forged behind two proxies", P, "1.2.3.4, 203.0.113.5, 10.0.0.2", "10.0.0.0/8", "203.0.113.5"),
    ("all are trusted", P, "10.0.0.3, 10.0.0.2", "10.0.0.0/8", P),
    ("rubbish", P, "unknown", "10.0.0.0/8", P),
    ("rubbish to the left", P, "<script>, 203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("with a port", P, "203.0.113.5:4711", "10.0.0.0/8", "203.0.113.5"),
    ("IPv6 in brackets", P, "[2001:db8::1]", "10.0.0.0/8", "2001:db8::1"),
    ("IPv6 in brackets, with a port", P, "[2001:db8::1]:4711", "10.0.0.0/8", "2001:db8::1"),
    ("in quotes", P, '"203.0.113.5"', "10.0.0.0/8", "203.0.113.5"),
    ("IPv6 with a port in quotes", P, '"[2001:db8::1]:4711"', "10.0.0.0/8", "2001:db8::1"),
    ("a port that is none", P, "203.0.113.5:http", "10.0.0.0/8", P),
    ("half a pair of brackets", P, "[2001:db8::1", "10.0.0.0/8", P),
    ("an empty hop", P, "203.0.113.5, ", "10.0.0.0/8", "203.0.113.5"),
    ("a name", P, "localhost", "10.0.0.0/8", P),
    ("spaces and tabs", P, " \t203.0.113.5\t ", "10.0.0.0/8", "203.0.113.5"),
    ("IPv6", P, "2001:db8::1", "10.0.0.0/8", "2001:db8::1"),
    ("an IPv6 proxy", "fd00::1", "203.0.113.5", "fd00::/8", "203.0.113.5"),
    ("an IPv4 proxy on an IPv6 socket", "::ffff:10.0.0.1", "203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("IPv4 in IPv6 in the field", P, "::ffff:203.0.113.5", "10.0.0.0/8", "203.0.113.5"),
    ("two networks", P, "203.0.113.5, fd00::9", "10.0.0.0/8, fd00::/8", "203.0.113.5"),
    ("a thousand hops", P, "203.0.113.5" + ", 10.0.0.2" * 1_000, "10.0.0.0/8", "203.0.113.5"),
]


@pytest.mark.parametrize("peer, field, trusted, meant", [pytest.param(*case[1:], id=case[0]) for case in FORWARDED])
def test_whose_word_is_taken_for_the_clients_address(peer, field, trusted, meant):
    fields = {} if field is None else {"x_forwarded_for": field}
    networks = server.read_networks(trusted)
    found, _ = server.client_address(request(**fields).fields, server.parse_address(peer), networks)
    assert str(found) == meant
    app = build(trusted_proxies=networks)
    assert dict(attempt(app, "ann", "wrong", peer, **fields).events[0].fields)["address"] == meant


ODD = [  # (the peer, X-Forwarded-For or None, what the operator should know)
    ("all is well", P, "203.0.113.5", []),
    ("nothing is said", P, None, []),
    ("a client without a proxy", "192.0.2.1", None, []),
    ("a proxy that was not named", "192.0.2.1", "203.0.113.5", ["not_trusted"]),
    ("a proxy that says what cannot be read", P, "unknown", ["not_understood"]),
    ("what cannot be read stands left of the client", P, "rubbish, 203.0.113.5", []),
]


@pytest.mark.parametrize("peer, field, results", [pytest.param(*case[1:], id=case[0]) for case in ODD])
def test_what_is_odd_about_the_clients_address_is_an_event(peer, field, results):
    fields = [] if field is None else [f"X-Forwarded-For: {field}"]
    framer = Framer(server.parse_address(peer), server.read_networks("10.0.0.0/8"))
    framer.receive(head(HOST, *fields))
    events = framer.next_request().events
    assert [event.fields["result"] for event in events] == results
    assert all(event.name == "proxy" and event.fields["address"] == peer for event in events)


def test_several_lines_of_x_forwarded_for_are_one():
    head = (
        f"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 203.0.113.5\r\nX-Forwarded-For: {P}"
    )
    parsed, _ = server.parse_head(head.encode(), server.parse_address(P), server.read_networks("10.0.0.0/8"))
    assert str(parsed.address) == "203.0.113.5"


# -- forms and cookies

FORMS = [
    (b"username=a&password=b", {"username": ["a"], "password": ["b"]}),
    (b"password=b&x=&username=a", {"password": ["b"], "x": [""], "username": ["a"]}),
    (b"a=1&a=2", {"a": ["1", "2"]}),
    (b"a=x+y%20z%2B", {"a": ["x y z+"]}),
    (b"%61dmin=%C3%BC", {"admin": ["\xfc"]}),
    ("a=\xfc".encode(), {"a": ["\xfc"]}),
    (b"a=%zz%4", {"a": ["%zz%4"]}),
    (b"a=b=c", {"a": ["b=c"]}),
    (b"a=%2541", {"a": ["%41"]}),
    (b"", {"": [""]}),
]


@pytest.mark.parametrize("text, form", FORMS)
def test_a_form_is_decoded_once(text, form):
    assert parse_form(request("POST", "/login", text, content_type=FORM)) == form


@pytest.mark.parametrize("text", [b"a=%ff", b"a=\xff", b"%c3=1", b"a=%ed%a0%80"])
def test_a_form_that_is_not_utf8_is_no_form(text):
    with pytest.raises(ValueError):
        parse_form(request("POST", "/login", text, content_type=FORM))


@pytest.mark.parametrize(
    "kind, good",
    [
        (FORM, True), (FORM.upper(), True), (FORM + "; charset=utf-8", True), (FORM + ';charset="UTF-8"', True),
        (FORM + "; charset=utf8", True), (FORM + "; charset=us-ascii", True), (FORM + ";charset=UTF-8;", True),
        (FORM + "; version=1", True), (FORM + "; charset=latin-1", False), (FORM + "; charset=utf-16", False),
        ("application/json", False), ("multipart/form-data; boundary=x", False),
        ("text/plain", False), ("", False), (FORM + "x", False),
    ],
)  # fmt: skip
def test_only_a_form_in_utf8_is_a_form(kind, good):
    message = request("POST", "/login", b"a=b", content_type=kind)
    if good:
        assert parse_form(message) == {"a": ["b"]}
    else:
        with pytest.raises(ValueError):
            parse_form(message)


COOKIES = [
    ("jwt=x", ["x"]),
    ("a=1; jwt=x; b=2", ["x"]),
    ("a=1;jwt=x;b=2", ["x"]),
    (" \tjwt \t=\t x ", ["x"]),
    ('jwt="x"', ["x"]),
    ('jwt="', ['"']),
    ("jwt=", [""]),
    ("jwt", []),
    ("jwt=a; jwt=b", ["a", "b"]),
    ("JWT=x", []),
    ("xjwt=x; jwtx=y", []),
    ("\xa0jwt=x", []),
    ("jwt\xa0=x", []),
    ('prefs={"jwt":"no","a":[1,2]}; jwt=x', ["x"]),
    ('q="a; jwt=inner"; jwt=x', ['inner"', "x"]),
    ("=; ;;; jwt=x", ["x"]),
    ("jwt=a=b", ["a=b"]),
    ("$Version=1; jwt=x", ["x"]),
]


@pytest.mark.parametrize("field, values", COOKIES)
def test_our_cookie_is_found_among_strangers(field, values):
    assert parse_cookies(request(cookie=field), "jwt") == values


def test_two_cookie_fields_are_one_list():
    (found,) = frame(head(HOST, "Cookie: a=1; jwt=x", "Cookie: jwt=y"))
    assert parse_cookies(found, "jwt") == ["x", "y"]


# -- the writer


def test_no_field_can_split_an_answer():
    for value in ("a\r\nX: y", "a\nb", "a\0", "a\x7f", "\xe4"):
        with pytest.raises(ValueError, match="control character"):
            render(Response(200, fields=(("A", value),)), request(), True, NOW)


def test_every_answer_carries_date_and_protection():
    text = render(Response(200, b"x"), request(), True, 0).decode()
    assert "\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in text
    for line in ("Cache-Control: no-store", "X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer"):
        assert f"\r\n{line}\r\n" in text
    assert "Server:" not in text


def test_the_date_follows_the_clock():
    for now, date in ((0, "Thu, 01 Jan 1970"), (86_400.5, "Fri, 02 Jan 1970"), (0, "Thu, 01 Jan 1970")):
        assert f"Date: {date} 00:00:00 GMT".encode() in render(Response(200), request(), True, now)


def test_head_gets_the_length_and_no_body():
    text = render(Response(200, b"12345"), request("HEAD"), True, NOW)
    assert b"Content-Length: 5\r\n" in text and text.endswith(b"\r\n\r\n")


def test_204_has_neither_length_nor_type():
    text = render(Response(204), request(), True, NOW)
    assert b"Content-Length" not in text and b"\r\nContent-Type" not in text


@pytest.mark.parametrize(
    "version, alive, line",
    [
        (b"HTTP/1.1", True, None),
        (b"HTTP/1.0", True, "keep-alive"),
        (b"HTTP/1.1", False, "close"),
        (b"HTTP/1.0", False, "close"),
    ],
)
def test_the_answer_says_what_becomes_of_the_connection(version, alive, line):
    text = render(Response(200), request()._replace(version=version), alive, NOW).decode()
    assert (f"Connection: {line}" in text) if line else ("Connection" not in text)
