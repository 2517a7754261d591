"""HTTP/1.1 exchanges, malformed, hostile or merely odd, as data: one fault or one peculiarity each.

A row says what is peculiar, which section decides, what goes over the wire, and what must come back. A section without
a name is of an RFC: "9112 §3". Where the text leaves a choice, the row says so: "may" and what was chosen here.
Nothing here was recorded from a server: what must come back is read from the RFC and the README, and where both are
silent, "ours" says that it is so here.
"""

from collections import namedtuple

import minijwt
from serverkit import ACCESS, FORM, LOGIN, NOW, RAW_LOGIN, refresh_token

Case = namedtuple("Case", "group name section data expected")
Expected = namedtuple("Expected", "status says closes fields")  # one answer; None in fields: it must not be there
CASES = []


def group(name, *rows):
    """Add these rows to the table."""
    CASES.extend(Case(name, *row) for row in rows)


# ---- What comes back: a list of answers --------------------------------------------------------------------


def answered(status, says, closes=False, **fields):
    """One answer: its code, or its message if it has no code, or else what it hands out; True: any value."""
    return [Expected(status, says, closes, {name.replace("_", "-"): value for name, value in fields.items()})]


def refused(status, code):
    """One answer, and then nothing: where the next request would begin is not known (9112 §9.6)."""
    return answered(status, code, closes=True)


def closed(expected):
    return [*expected[:-1], expected[-1]._replace(closes=True)]


SILENCE = []
RUNNING = answered(200, "server running", Set_Cookie=None)
IN = answered(200, "accessToken", Set_Cookie=True)  # logged in
REFRESHED = answered(200, "accessToken", Set_Cookie=None)
OUT = answered(204, "", Set_Cookie=True, Content_Length=None, Content_Type=None)  # logged out
ME = answered(200, "username")
EXPLAINED = answered(200, "valid")
WRONG = answered(406, "Invalid credentials", Set_Cookie=None)
REMOTE = WRONG  # ours: the demo user is for a loopback name in Host and no proxy
UNAUTHORIZED = answered(406, "Unauthorized", Set_Cookie=None)
ABSENT = answered(404, "not_found", Set_Cookie=None)
CROSS = answered(403, "cross_site", Set_Cookie=None)
NO_TOKEN = answered(401, "no_token", WWW_Authenticate='Bearer realm="minijwt"')
GET_ONLY = answered(405, "method_not_allowed", Allow="GET, HEAD, OPTIONS")
POST_ONLY = answered(405, "method_not_allowed", Allow="POST, OPTIONS", Set_Cookie=None)
KEPT_10 = answered(200, "server running", Connection="keep-alive")
LINE = refused(400, "malformed_request_line")
TARGET = refused(400, "malformed_target")
CONTROL = refused(400, "control_character")
FIELD = refused(400, "malformed_field")
BAD_HOST = refused(400, "host")
LENGTH = refused(400, "content_length")
CODING = refused(400, "transfer_encoding")
HALF = refused(400, "incomplete")
CHUNKED = refused(411, "length_required")
LARGE = refused(413, "body_too_large")
LONG_LINE = refused(414, "line_too_long")
UNEXPECTED = refused(417, "expectation")
LONG_HEAD = refused(431, "head_too_large")
VERSION = refused(505, "http_version")


def bad_token(code):
    challenge = f'Bearer realm="minijwt", error="invalid_token", error_description="{code}"'
    return answered(401, code, WWW_Authenticate=challenge)


# ---- What goes over the wire -------------------------------------------------------------------------------

HOST = "Host: localhost"
FORM_TYPE = f"Content-Type: {FORM}"
LOGIN_LENGTH = f"Content-Length: {len(LOGIN)}"


def head(*lines):
    """These lines and the empty one; a character is a byte."""
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def first(line, *fields):
    return head(line, HOST, *fields)


def get(*fields):
    return first("GET / HTTP/1.1", *fields)


def post(path, *fields):
    return first(f"POST {path} HTTP/1.1", *fields)


def framed(*fields, body=LOGIN):
    """A login that is good if `fields` say well how long its body is."""
    return post("/login", FORM_TYPE, *fields) + body


def login(*fields, target="/login", version="HTTP/1.1"):
    """A login that is good unless target, version or `fields` spoil it."""
    return head(f"POST {target} {version}", HOST, FORM_TYPE, LOGIN_LENGTH, *fields) + LOGIN


def form(body, kind=FORM_TYPE):
    """A login with another form; `kind` is the line with its type."""
    return post("/login", *filter(None, [kind]), f"Content-Length: {len(body)}") + body


def sent_as(kind):
    return form(LOGIN, f"Content-Type: {kind}")


def refresh(cookie, *fields):
    return post("/refresh", f"Cookie: {cookie}", *fields)


def me(*fields):
    return first("GET /me HTTP/1.1", *fields)


def explain(*fields):
    return first("GET /explain HTTP/1.1", "Authorization: Bearer x", *fields)


def padded(size, start, end=b""):
    """`start`, as many letters as it takes, and `end`: `size` bytes."""
    return start + b"a" * (size - len(start) - len(end)) + end


LONG_FIELDS = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + (b"A: " + b"a" * 7_997 + b"\r\n") * 4  # 32,041 bytes
JWT = refresh_token()  # as the tutorial's own app signs it: the same bytes in every run
OTHER_JWT = refresh_token(iat=NOW - 1)
ENDED_JWT = refresh_token(iat=NOW - 2)
TOKEN = minijwt.encode({"username": "admin", "iat": NOW, "exp": NOW + 600}, ACCESS)
UNSIGNED = TOKEN[: TOKEN.rindex(".") + 1]
NONE_TOKEN = "eyJhbGciOiJub25lIn0" + UNSIGNED[UNSIGNED.index(".") :]  # {"alg":"none"}
EVIL, APP = "https://evil.example", "https://app.example"

# ---- Request line: 9112 §3 -- METHOD SP TARGET SP VERSION --------------------------------------------------

group("request line",
    ("one word", "9112 §3", head("hello"), LINE),
    ("no version: HTTP/0.9", "9112 §3: 1.1 knows it no more", head("GET /"), LINE),
    ("no target", "9112 §3", first("GET HTTP/1.1"), LINE),
    ("no method", "9112 §3", first("/ HTTP/1.1"), LINE),
    ("an empty method", "9112 §3", first(" / HTTP/1.1"), LINE),
    ("a space before the method", "9112 §3: may be forgiven, is not", first(" GET / HTTP/1.1"), LINE),
    ("a space after the version", "9112 §3: may be forgiven, is not", first("GET / HTTP/1.1 "), LINE),
    ("two spaces before the target", "9112 §3: may be forgiven, is not", first("GET  / HTTP/1.1"), LINE),
    ("a tab for the first space", "9112 §3: may be forgiven, is not", first("GET\t/ HTTP/1.1"), LINE),
    ("a CR for a space", "9112 §3: may be forgiven, is not", first("GET /\rHTTP/1.1"), CONTROL),
    ("a no-break space for a space", "9112 §3", first("GET\xa0/ HTTP/1.1"), LINE),
    ("a space in the target", "9112 §3.2", login(target="/login /me"), LINE),
    ("a method with a colon: a field", "9110 §5.6.2", first("GET: / HTTP/1.1"), LINE),
    ("a method in quotes", "9110 §5.6.2", first('"GET" / HTTP/1.1'), LINE),
    ("a method beyond ASCII", "9110 §5.6.2", first("G\xcbT / HTTP/1.1"), LINE),
    ("a NUL in the method", "9110 §5.6.2", first("GE\0T / HTTP/1.1"), CONTROL),
    ("a method of all other token characters", "9110 §5.6.2", first("!#$%&'*+-.^_`|~9 / HTTP/1.1"), GET_ONLY),
    ("a percent-encoded method", "9110 §5.6.2: a token, not GET", first("%47ET / HTTP/1.1"), GET_ONLY),
    ("an empty line before it", "9112 §2.2: should be ignored", b"\r\n" + get(), RUNNING),
    ("a hundred empty lines before it", "9112 §2.2: at least one", b"\r\n" * 100 + get(), RUNNING),
    ("nothing but an empty line", "9112 §2.2", b"\r\n", SILENCE),
    ("nothing at all", "9112 §9.6", b"", SILENCE),
    ("a LF before it", "9112 §2.2: LF may end a line, here never", b"\n" + get(), CONTROL),
    ("a CR before it", "9112 §2.2: a bare CR is invalid", b"\r" + get(), CONTROL),
    ("a line of one space before it", "9112 §2.2: that line is not empty", b" \r\n" + get(), LINE),
    ("a byte order mark before it", "9112 §2.2: octets, not text", b"\xef\xbb\xbf" + get(), LINE),
    ("in UTF-16", "9112 §2.2: a superset of ASCII", get().decode().encode("utf-16-le"), CONTROL),
    ("ended by LF", "9112 §2.2: may be forgiven, is not", b"GET / HTTP/1.1\n" + head(HOST), CONTROL),
    ("ended by CR", "9112 §2.2: a bare CR is invalid", b"GET / HTTP/1.1\r" + head(HOST), CONTROL),
    ("ended by CR CR LF", "9112 §2.2: a bare CR is invalid", b"GET / HTTP/1.1\r\r\n" + head(HOST), CONTROL),
    ("ended by NEL", "9112 §2.2: no line end of Unicode's", b"GET / HTTP/1.1\x85" + head(HOST), LINE),
    ("a status line", "9112 §2.1: that is the other direction", head("HTTP/1.1 200 OK", HOST), LINE),
    ("a header without a request line", "9112 §2.1", head(HOST), LINE),
    ("only half a line", "9112 §8", b"GET / HT", HALF),
    ("a head without its empty line", "9112 §8", get()[:-2], HALF),
)  # fmt: skip

# ---- Version: 9112 §2.3 -- "HTTP/" DIGIT "." DIGIT ----------------------------------------------------------

group("version",
    ("1.2", "9110 §2.5: as the highest minor version that is known", first("GET / HTTP/1.2"), RUNNING),
    ("1.0", "9112 §9.3: closes", first("GET / HTTP/1.0"), closed(RUNNING)),
    ("0.9 spelled out", "9110 §15.6.6", first("GET / HTTP/0.9"), VERSION),
    ("2.0", "9110 §15.6.6", first("GET / HTTP/2.0"), VERSION),
    ("the preface of HTTP/2", "9113 §3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), VERSION),
    ("2 without a minor version", "9112 §2.3", first("GET / HTTP/2"), LINE),
    ("an empty minor version", "9112 §2.3", first("GET / HTTP/1."), LINE),
    ("a comma for the dot", "9112 §2.3", first("GET / HTTP/1,1"), LINE),
    ("two dots", "9112 §2.3", first("GET / HTTP/1.1.1"), LINE),
    ("a minor version of two digits", "9112 §2.3", first("GET / HTTP/1.10"), LINE),
    ("a zero before it", "9112 §2.3", first("GET / HTTP/01.1"), LINE),
    ("a letter", "9112 §2.3", first("GET / HTTP/1.x"), LINE),
    ("a superscript one", "9112 §2.3", first("GET / HTTP/1.\xb9"), LINE),
    ("in small letters", "9112 §2.3: case-sensitive", first("GET / http/1.1"), LINE),
    ("HTTPS", "9112 §2.3", first("GET / HTTPS/1.1"), LINE),
    ("a NUL after it", "9112 §2.3", first("GET / HTTP/1.1\0"), CONTROL),
)  # fmt: skip

# ---- Target: 9112 §3.2 -- each a good login, but for its target ---------------------------------------------

group("target",
    ("a query", "9112 §3.2.1: no endpoint looks at it", login(target="/login?next=/me"), IN),
    ("an empty query", "9112 §3.2.1", login(target="/login?"), IN),
    ("absolute-form", "9112 §3.2.2: must be accepted", login(target="http://localhost/login"), IN),
    ("absolute-form in capitals", "3986 §6.2.2.1", login(target="HTTP://LOCALHOST/login"), IN),
    ("absolute-form with a port", "9112 §3.2.2", login(target="http://localhost:8000/login"), IN),
    ("absolute-form of an IPv6 address", "3986 §3.2.2", login(target="http://[::1]:1/login"), IN),
    ("absolute-form of another host", "9112 §3.2.2: Host is ignored", login(target="http://a.example/login"), REMOTE),
    ("absolute-form without a path", "9112 §3.2.1: /", first("GET http://localhost HTTP/1.1"), RUNNING),
    ("absolute-form in 1.0, no Host", "9112 §3.2.2", head("GET http://localhost/ HTTP/1.0"), closed(RUNNING)),
    ("absolute-form in 1.1, no Host", "9112 §3.2: must be refused", head("GET http://localhost/ HTTP/1.1"), BAD_HOST),
    ("absolute-form without a host", "9110 §4.2.1: must be rejected", login(target="http:///login"), TARGET),
    ("absolute-form with a user", "9110 §4.2.4: an error", login(target="http://admin@localhost/login"), TARGET),
    ("absolute-form with a bad address", "3986 §3.2.2", login(target="http://[::::]/login"), BAD_HOST),
    ("absolute-form with a zone", "6874 §4: never sent", login(target="http://[fe80::1%25lo]/login"), TARGET),
    ("absolute-form with a backslash", "3986 §3.2", login(target="http://localhost\\@evil/login"), TARGET),
    ("ftp", "9112 §3.2.2: not ours", login(target="ftp://localhost/login"), TARGET),
    ("no slash", "9112 §3.2", login(target="login"), TARGET),
    ("a backslash for the slash", "9112 §3.2", login(target="\\login"), TARGET),
    ("authority-form", "9112 §3.2.3: only for CONNECT", login(target="localhost:80"), TARGET),
    ("asterisk-form", "9112 §3.2.4: only for OPTIONS", login(target="*"), TARGET),
    ("a fragment", "9110 §7.1: never sent", login(target="/login#x"), TARGET),
    ("a fragment in absolute-form", "9110 §7.1: never sent", login(target="http://localhost/login#x"), TARGET),
    ("two slashes", "3986 §3.3: another path", login(target="//login"), ABSENT),
    ("a slash at the end", "3986 §3.3: another path", login(target="/login/"), ABSENT),
    ("a dot segment", "3986 §5.2.4: is for clients", login(target="/./login"), ABSENT),
    ("two dots", "3986 §5.2.4: is for clients", login(target="/x/../login"), ABSENT),
    ("two dots and a slash, escaped", "3986 §2.2", login(target="/x/..%2flogin"), ABSENT),
    ("two dots and a parameter", "3986 §3.3", login(target="/x/..;/login"), ABSENT),
    ("up and away", "3986 §5.2.4", login(target="/../../../../etc/passwd"), ABSENT),
    ("a parameter", "3986 §3.3", login(target="/login;x=1"), ABSENT),
    ("capitals", "3986 §6.2.2.1: a path has case", login(target="/Login"), ABSENT),
    ("an escaped letter", "3986 §6.2.2.2: one spelling here", login(target="/%6Cogin"), ABSENT),
    ("an escaped slash", "3986 §2.2", login(target="/%2flogin"), ABSENT),
    ("an escaped NUL", "3986 §7.3", login(target="/login%00"), ABSENT),
    ("an escape cut short", "3986 §2.1: may be refused", login(target="/login%"), ABSENT),
    ("an overlong dot", "3629 §3", login(target="/%c0%ae/login"), ABSENT),
    ("a backslash within", "3986 §3.3: no separator", login(target="/\\login"), ABSENT),
    ("bytes beyond ASCII", "3986 §2: may be refused", login(target="/l\xf6gin"), ABSENT),
    ("a script", "ours: nothing comes back", login(target="/<script>planted</script>"), ABSENT),
    ("a tab", "9112 §3.2", login(target="/\tlogin"), LINE),
)  # fmt: skip

# ---- Host: 9112 §3.2, 9110 §7.2 -----------------------------------------------------------------------------


def host(*values, version="HTTP/1.1"):
    return head(f"GET / {version}", *[f"Host:{value}" for value in values])


group("Host",
    ("none", "9112 §3.2: must be refused", host(), BAD_HOST),
    ("none in 1.0", "9112 §3.2: of 1.1", host(version="HTTP/1.0"), closed(RUNNING)),
    ("the same twice", "9112 §3.2: must be refused", host(" localhost", " localhost"), BAD_HOST),
    ("two", "9112 §3.2: must be refused", host(" localhost", " evil.example"), BAD_HOST),
    ("two in 1.0", "9112 §3.2: any request", host(" localhost", " evil.example", version="HTTP/1.0"), BAD_HOST),
    ("a second that is empty", "9112 §3.2", host(" localhost", ""), BAD_HOST),
    ("two in one line", "9110 §7.2", host(" localhost, evil.example"), BAD_HOST),
    ("empty", "9112 §3.2: only if the target has no authority", host(""), BAD_HOST),
    ("a tab before it, spaces after", "9112 §5.1: optional", host("\tlocalhost  "), RUNNING),
    ("in capitals", "9110 §4.2.3", host(" LOCALHOST"), RUNNING),
    ("with a port", "9110 §7.2", host(" localhost:8000"), RUNNING),
    ("with an empty port", "3986 §3.2.3", host(" localhost:"), RUNNING),
    ("with a port of letters", "3986 §3.2.3", host(" localhost:http"), BAD_HOST),
    ("with a port of six digits", "3986 §3.2.3: grammar would let it", host(" localhost:655360"), BAD_HOST),
    ("a port alone", "9110 §4.2.1: a host may not be empty", host(" :8000"), BAD_HOST),
    ("with a dot at the end", "3986 §3.2.2", host(" localhost."), RUNNING),
    ("beyond ASCII", "3986 §3.2.2", host(" b\xfccher.example"), BAD_HOST),
    ("an IPv6 address with a port", "3986 §3.2.2", host(" [2001:db8::1]:8000"), RUNNING),
    ("an IPv4 address in IPv6", "4291 §2.2", host(" [::ffff:127.0.0.1]"), RUNNING),
    ("an IPv6 address without brackets", "3986 §3.2.2", host(" ::1"), BAD_HOST),
    ("letters after the bracket", "3986 §3.2.2", host(" [::1]evil"), BAD_HOST),
    ("too many colons", "4291 §2.2", host(" [::::]"), BAD_HOST),
    ("an IPv4 address in brackets", "3986 §3.2.2", host(" [127.0.0.1]"), BAD_HOST),
    ("a zone", "6874 §4: never sent", host(" [fe80::1%25lo]"), BAD_HOST),
    ("an address of the future", "3986 §3.2.2: grammar would let it", host(" [v1.x]"), BAD_HOST),
    ("a scheme", "9110 §7.2", host(" http://localhost"), BAD_HOST),
    ("a user", "9110 §7.2", host(" admin@localhost"), BAD_HOST),
    ("a path", "9110 §7.2", host(" localhost/login"), BAD_HOST),
    ("a backslash", "9110 §7.2", host(" localhost\\login"), BAD_HOST),
    ("a space within", "9110 §7.2", host(" local host"), BAD_HOST),
    ("an escape", "3986 §3.2.2: grammar would let it", host(" local%68ost"), BAD_HOST),
    ("a NUL", "9110 §5.5", host(" localhost\0"), CONTROL),
    ("X-Forwarded-Host", "of no RFC: ignored", get("X-Forwarded-Host: planted, []"), RUNNING),
)  # fmt: skip

# ---- Field syntax: 9112 §5, 9110 §5 -------------------------------------------------------------------------

group("field",
    ("no space before the value", "9112 §5", get("A:b"), RUNNING),
    ("many spaces and tabs around the value", "9112 §5", get("A: \t \t b\t \t "), RUNNING),
    ("an empty value", "9110 §5.5", get("A:"), RUNNING),
    ("a quote that is not closed", "9110 §5.6.4", get('A: "b'), RUNNING),
    ("a value beyond ASCII", "9110 §5.5: opaque", get("A: \xff\xfe"), RUNNING),
    ("NEL in a value", "9110 §5.5: opaque, no line end", get("A: b\x85Transfer-Encoding: chunked"), RUNNING),
    ("a name of all token characters", "9110 §5.6.2", get("!#$%&'*+-.^_`|~09AZaz: b"), RUNNING),
    ("an unknown name twice", "9110 §5.3", get("A: b", "a: c"), RUNNING),
    ("a name in capitals", "9110 §5.1: case-insensitive", login("COOKIE: a=b"), IN),
    ("a space before the colon", "9112 §5.1: must be refused", get("A : b"), FIELD),
    ("a no-break space before the colon", "9110 §5.6.2", get("A\xa0: b"), FIELD),
    ("a space within the name", "9110 §5.6.2", get("A B: c"), FIELD),
    ("no colon", "9112 §5", get("A"), FIELD),
    ("an equals sign for the colon", "9112 §5", get("A=b"), FIELD),
    ("no name", "9110 §5.1", get(": b"), FIELD),
    ("a name beyond ASCII", "9110 §5.6.2", get("\xc4: b"), FIELD),
    ("a name with an at sign", "9110 §5.6.2", get("A@B: c"), FIELD),
    ("a space before the first field", "9112 §2.2: must not be read", head("GET / HTTP/1.1", " " + HOST), FIELD),
    ("a folded value", "9112 §5.2: must be refused or replaced", get("A: b", " c"), FIELD),
    ("a value folded by a tab", "9112 §5.2: must be refused or replaced", get("A: b", "\tc"), FIELD),
    ("a folded Host", "9112 §5.2: must be refused or replaced", head("GET / HTTP/1.1", "Host:", " localhost"), FIELD),
    ("a NUL in a value", "9110 §5.5: must be refused or replaced", get("A: b\0c"), CONTROL),
    ("a bare CR in a value", "9110 §5.5: must be refused or replaced", get("A: b\rc"), CONTROL),
    ("a bare CR at the end", "9112 §2.2", get("A: b\r"), CONTROL),
    ("a bare LF in a value", "9112 §2.2: LF may end a line, here never", get("A: b\nc: d"), CONTROL),
    ("a vertical tab", "9110 §5.5: may be kept, is not", get("A:\x0bb"), CONTROL),
    ("an escape", "9110 §5.5: may be kept, is not", get("User-Agent: \x1b[31mplanted"), CONTROL),
    ("DEL", "9110 §5.5: may be kept, is not", get("A: \x7f"), CONTROL),
    ("all ends are LF", "9112 §2.2: may be forgiven, is not", get().replace(b"\r\n", b"\n"), CONTROL),
    ("the empty line ends with LF", "9112 §2.2: may be forgiven, is not", get()[:-2] + b"\n", CONTROL),
    ("the empty line is CR CR LF", "9112 §2.2", get()[:-2] + b"\r\r\n", CONTROL),
    ("the empty line has a space", "9112 §5.2", get()[:-2] + b" \r\n\r\n", FIELD),
    ("a header for a program: Proxy", "3875 §4.1.18, httpoxy: there is no CGI here", get("Proxy: planted"), RUNNING),
    ("Accept without text/html", "9110 §12.5.1: may be disregarded", get("Accept: image/png;q=0, text/htm"), RUNNING),
    ("Accept that refuses text/html", "9110 §12.4.2", get("Accept: text/html;q=0.0, */*"), RUNNING),
    ("Accept, malformed", "9110 §12.5.1: may be disregarded", get("Accept: ;, ;;q=,/, text/html/;q"), RUNNING),
    ("Range", "9110 §14.2: may be ignored", get("Range: bytes=0-3"), RUNNING),
    ("Content-Encoding", "9110 §8.4: may be refused; we look at the bytes", login("Content-Encoding: gzip"), IN),
)  # fmt: skip

# ---- Content-Length: 9110 §8.6, 9112 §6.3 -- each a good login, but for its length ---------------------------

group("Content-Length",
    ("none", "9112 §6.3: no body, and what follows is a request", framed(body=b""), WRONG),
    ("white space around it", "9112 §5", framed("Content-Length: \t 32 \t"), IN),
    ("twice", "9110 §8.6: may be refused", framed(LOGIN_LENGTH, LOGIN_LENGTH), IN),
    ("twice in one line", "9110 §8.6: may be refused", framed("Content-Length: 32, 32"), IN),
    ("twice in two spellings", "9112 §6.3: same value, refused anyway", framed("Content-Length: 32, 032"), LENGTH),
    ("two that differ", "9112 §6.3: must be refused", framed("Content-Length: 32", "Content-Length: 31"), LENGTH),
    ("two that differ in one line", "9112 §6.3: must be refused", framed("Content-Length: 31, 32"), LENGTH),
    ("a comma after it", "9112 §6.3", framed("Content-Length: 32,"), LENGTH),
    ("a comma before it", "9112 §6.3", framed("Content-Length: ,32"), LENGTH),
    ("empty", "9110 §8.6", framed("Content-Length:"), LENGTH),
    ("a plus sign", "9110 §8.6: only digits", framed("Content-Length: +32"), LENGTH),
    ("a minus sign", "9110 §8.6: only digits", framed("Content-Length: -32"), LENGTH),
    ("an underscore", "9110 §8.6: only digits", framed("Content-Length: 3_2"), LENGTH),
    ("a space within", "9110 §8.6: only digits", framed("Content-Length: 3 2"), LENGTH),
    ("a no-break space after it", "9110 §8.6: only digits", framed("Content-Length: 32\xa0"), LENGTH),
    ("hexadecimal", "9110 §8.6: decimal", framed("Content-Length: 0x20"), LENGTH),
    ("an exponent", "9110 §8.6: only digits", framed("Content-Length: 32e0"), LENGTH),
    ("superscript digits", "9110 §8.6: DIGIT is ASCII", framed("Content-Length: \xb3\xb2"), LENGTH),
    ("Arabic digits", "9110 §8.6: DIGIT is ASCII", framed("Content-Length: \xd9\xa3\xd9\xa2"), LENGTH),
    ("in quotes", "9110 §8.6: only digits", framed('Content-Length: "32"'), LENGTH),
    ("a NUL within", "9110 §5.5", framed("Content-Length: 3\x002"), CONTROL),
    ("on a GET", "9110 §9.3.1: a body without meaning", get(LOGIN_LENGTH) + LOGIN, RUNNING),
    ("one byte short", "9112 §6.3: as many bytes as it says", framed("Content-Length: 31"), WRONG + HALF),
    ("one byte too many", "9112 §8: never acted upon", framed("Content-Length: 33"), HALF),
    ("a body that never comes", "9112 §8: never acted upon", framed(LOGIN_LENGTH, body=b""), HALF),
    ("2^32 and 32", "9110 §8.6: no overflow", framed("Content-Length: 4294967328"), LARGE),
    ("2^64 and 32", "9110 §8.6: no overflow", framed("Content-Length: 18446744073709551648"), LARGE),
    ("5,000 digits", "9110 §8.6: no overflow", framed("Content-Length: " + "9" * 5_000), LARGE),
    ("a thousand zeros before it", "9110 §8.6: 1*DIGIT", framed("Content-Length: " + "0" * 1_000 + "32"), IN),
)  # fmt: skip

# ---- Transfer-Encoding: 9112 §6.1, §7 -- never followed, and nothing after it is a request ------------------


def coded(*codings, version="HTTP/1.1"):
    """A login in one chunk, as long as `codings` are no more than chunked."""
    fields = [f"Transfer-Encoding:{coding}" for coding in codings]
    return head(f"POST /login {version}", HOST, FORM_TYPE, *fields) + b"20\r\n" + LOGIN + b"\r\n0\r\n\r\n"


group("Transfer-Encoding",
    ("chunked", "9112 §6.3: may be refused, so it is", coded(" chunked"), CHUNKED),
    ("in capitals", "9112 §7: case-insensitive", coded(" CHUNKED"), CHUNKED),
    ("white space around it", "9112 §5", coded("\t chunked\t "), CHUNKED),
    ("in 1.0", "9112 §6.1: must be taken for faulty", coded(" chunked", version="HTTP/1.0"), CHUNKED),
    ("empty", "9112 §6.1", coded(""), CODING),
    ("gzip", "9112 §6.3: must be refused", coded(" gzip"), CODING),
    ("gzip, then chunked", "9112 §6.1: unknown here", coded(" gzip, chunked"), CODING),
    ("chunked, then gzip", "9112 §6.3: must be refused", coded(" chunked, gzip"), CODING),
    ("chunked twice", "9112 §6.1: must not be", coded(" chunked, chunked"), CODING),
    ("chunked in two lines", "9112 §6.1: must not be", coded(" chunked", " chunked"), CODING),
    ("chunked, then identity", "7230 §A.2: identity is gone", coded(" chunked", " identity"), CODING),
    ("identity", "7230 §A.2: identity is gone", coded(" identity"), CODING),
    ("an animal, then chunked", "9112 §6.1", coded(" cow", " chunked"), CODING),
    ("a comma after it", "9110 §5.6.1.2: refused either way", coded(" chunked,"), CODING),
    ("a parameter", "9112 §7.1: chunked has none", coded(" chunked;q=1"), CODING),
    ("in quotes", "9112 §7", coded(' "chunked"'), CODING),
    ("a letter before it", "9112 §7", coded(" xchunked"), CODING),
    ("a no-break space before it", "9110 §5.6.3: no white space", coded("\xa0chunked"), CODING),
    ("a Kelvin sign for the k", "9112 §7: ASCII has one k", coded(" chun\xe2\x84\xaaed"), CODING),
    ("a vertical tab before it", "9110 §5.5", coded(" \x0bchunked"), CONTROL),
    ("a NUL after it", "9110 §5.5", coded(" chunked\0"), CONTROL),
    ("folded", "9112 §5.2", coded("\r\n chunked"), FIELD),
    ("TE", "9110 §10.1.4: what the client takes", login("TE: chunked"), IN),
    ("Trailer", "9110 §6.6.2: says nothing of the length", login("Trailer: Content-Length"), IN),
    ("an underscore in its name", "9110 §5.1: another field", login("Transfer_Encoding: chunked"), IN),
)  # fmt: skip

# ---- Smuggling: 9112 §11.2 -- a login hides where another server would not look ------------------------------

LENGTH_0, LENGTH_5, CHUNKS = "Content-Length: 0", "Content-Length: 5", "Transfer-Encoding: chunked"
WHOLE = f"Content-Length: {len(RAW_LOGIN)}"
LAST_CHUNK = b"0\r\n\r\n"


def hiding(*fields, path="/login", before=b""):
    """A post with `fields` and a login behind it, which is not to be seen."""
    return post(path, *fields) + before + RAW_LOGIN


group("smuggling",
    ("CL.TE", "9112 §6.1: may be refused, so it is", hiding(LENGTH_5, CHUNKS, before=LAST_CHUNK), CODING),
    ("TE.CL", "9112 §6.1: may be refused, so it is", hiding(CHUNKS, LENGTH_5, before=LAST_CHUNK), CODING),
    ("TE and an empty length", "9112 §6.1: may be refused, so it is", hiding(CHUNKS, "Content-Length:"), CODING),
    ("TE.TE, a second that is unknown", "9112 §6.1", hiding(CHUNKS, "Transfer-Encoding: x"), CODING),
    ("TE behind a space", "9112 §5.1: must be refused", hiding(LENGTH_0, "Transfer-Encoding : chunked"), FIELD),
    ("TE behind a fold", "9112 §5.2", hiding(LENGTH_0, "A: b", " " + CHUNKS), FIELD),
    ("TE behind a bare CR", "9112 §2.2", hiding(LENGTH_0, "A: b\r" + CHUNKS), CONTROL),
    ("TE behind a bare LF", "9112 §2.2", hiding(LENGTH_0, "A: b\n" + CHUNKS), CONTROL),
    ("TE behind a NUL", "9110 §5.5", hiding(LENGTH_0, "\0" + CHUNKS), CONTROL),
    ("CL.CL", "9112 §6.3: must be refused", hiding(LENGTH_0, WHOLE), LENGTH),
    ("CL behind a space", "9112 §5.1: must be refused", hiding("Content-Length : 0"), FIELD),
    ("CL behind a fold", "9112 §5.2", hiding("A: b", "\t" + WHOLE), FIELD),
    ("CL behind a bare LF", "9112 §2.2", hiding("A: b\n" + WHOLE), CONTROL),
    ("CL folded", "9112 §5.2", hiding("Content-Length:", " 0"), FIELD),
    ("CL with an underscore: no body", "9110 §5.1", post("/logout", "Content_Length: 5") + LAST_CHUNK, OUT + LINE),
    ("a second Host behind a fold", "9112 §5.2", hiding("A: b", " Host: evil.example"), FIELD),
    ("a request in the body of a GET", "9110 §9.3.1: CL.0", get(WHOLE) + RAW_LOGIN, RUNNING),
    ("a request in the body of a POST", "9112 §6.3", hiding(WHOLE, path="/logout"), OUT),
    ("a request in the body of a 404", "9112 §9.3: read to its end", hiding(WHOLE, path="/x"), ABSENT),
    ("a request in the body of a 405", "9112 §9.3: read to its end", hiding(WHOLE, path="/"), GET_ONLY),
    ("a request in the body of a 403", "9112 §9.3: read to its end", hiding(WHOLE, "Origin: null"), CROSS),
    ("a request behind a refused line", "9112 §2.2: close", head("hello") + RAW_LOGIN, LINE),
    ("a request behind a refused length", "9112 §6.3: must be closed", hiding("Content-Length: x"), LENGTH),
    ("a request behind a refused size", "9110 §15.5.14: may be closed", hiding("Content-Length: 99999"), LARGE),
    ("a request behind CONNECT", "9931 §8: close", first("CONNECT a:1 HTTP/1.1") + RAW_LOGIN, closed(ABSENT)),
    ("a request behind close", "9112 §9.6: must be closed", hiding("Connection: close", path="/x"), closed(ABSENT)),
    ("a request behind 1.0", "9112 §9.3", head("GET / HTTP/1.0") + RAW_LOGIN, closed(RUNNING)),
    ("a request in a chunk", "9112 §7.1", hiding(CHUNKS, before=b"5d\r\n"), CHUNKED),
    ("a chunk extension with a LF", "9112 §7.1.1", hiding(CHUNKS, before=b"2;\nxx\r\n"), CHUNKED),
    ("a chunk of 2^64 bytes", "9112 §7.1", hiding(CHUNKS, before=b"1" + b"0" * 16 + b"\r\n"), CHUNKED),
    ("a trailer with a length", "9112 §7.1.2", hiding(CHUNKS, before=b"0\r\n" + head(WHOLE)), CHUNKED),
    ("chunks that were not announced", "9112 §6.3: a request line", get() + LAST_CHUNK + RAW_LOGIN, RUNNING + LINE),
    ("a body that was not announced", "9112 §6.3: a request line", get() + LOGIN + b"\r\n\r\n", RUNNING + LINE),
    ("a length that Connection names", "9110 §7.6.1: for proxies", login("Connection: Content-Length"), IN),
    ("an upgrade to h2c", "9110 §7.8: may be ignored", login("Connection: Upgrade", "Upgrade: h2c"), IN),
    ("another path in a field", "of no RFC", get("X-Original-URL: /me", "X-Rewrite-URL: /me"), RUNNING),
)  # fmt: skip

# ---- Connection: 9112 §9.3, 9110 §7.6.1 ----------------------------------------------------------------------


def old(*fields):
    return head("GET / HTTP/1.0", *fields)


group("Connection",
    ("close", "9112 §9.6", get("Connection: close"), closed(RUNNING)),
    ("close in capitals", "9110 §7.6.1: case-insensitive", get("Connection: CLOSE"), closed(RUNNING)),
    ("close behind another option", "9110 §7.6.1: a list", get("Connection: TE, close"), closed(RUNNING)),
    ("close behind keep-alive", "9112 §9.3: close wins", get("Connection: keep-alive,close"), closed(RUNNING)),
    ("close in a second line", "9110 §5.3", get("Connection: keep-alive", "Connection: close"), closed(RUNNING)),
    ("close between empty elements", "9110 §5.6.1.2", get("Connection: ,close,,"), closed(RUNNING)),
    ("close after a login", "9112 §9.6", login("Connection: close"), closed(IN)),
    ("closed", "9110 §7.6.1: another token", get("Connection: closed"), RUNNING),
    ("close in quotes", "9110 §7.6.1: no token", get('Connection: "close"'), RUNNING),
    ("close and a no-break space", "9110 §5.6.3: no white space", get("Connection: close\xa0"), RUNNING),
    ("keep-alive", "9112 §9.3: goes without saying", get("Connection: keep-alive"), RUNNING),
    ("Proxy-Connection", "9112 §C.2.2: of no RFC", get("Proxy-Connection: close"), RUNNING),
    ("1.0, keep-alive", "9112 §9.3: and says so", old("Connection: keep-alive"), KEPT_10),
    ("1.0, keep-alive and close", "9112 §9.3: close wins", old("Connection: keep-alive, close"), closed(RUNNING)),
    ("1.0, Keep-Alive alone", "9112 §C.2.2", old("Keep-Alive: timeout=5"), closed(RUNNING)),
    ("1.0, a login", "9112 §9.3", login(version="HTTP/1.0"), closed(IN)),
    ("an error between two", "9112 §9.3.2", get() + post("/x") + get(), RUNNING + ABSENT + RUNNING),
    ("three, the second closes", "9112 §9.6", get() + old() + get(), RUNNING + closed(RUNNING)),
    ("three, the second malformed", "9112 §2.2", get() + get("A") + get(), RUNNING + FIELD),
    ("three lanes", "9112 §9.3.2: in order", login() + post("/logout") + get(), IN + OUT + RUNNING),
    ("fifty at once", "9112 §9.3.2: in order", get() * 49 + me(), RUNNING * 49 + NO_TOKEN),
    ("empty lines between two", "9112 §2.2", get() + b"\r\n\r\n" + get(), RUNNING + RUNNING),
    ("a CRLF behind a body", "9112 §2.2: of old browsers", login() + b"\r\n", IN),
)  # fmt: skip

# ---- Methods: 9110 §9 ----------------------------------------------------------------------------------------

HEADED = answered(200, "", Content_Length="14")
HEAD_OF_PAGE = answered(200, "", Content_Type="text/html; charset=utf-8", Vary="Accept")
HEAD_OF_POST = answered(405, "", Allow="POST, OPTIONS")
STAR = answered(204, "", Allow="OPTIONS", Content_Length=None)
GET_HERE = answered(204, "", Allow="GET, HEAD, OPTIONS", Content_Length=None, Content_Type=None)
POST_HERE = answered(204, "", Allow="POST, OPTIONS", Content_Length=None, Content_Type=None)

group("method",
    ("HEAD", "9110 §9.3.2", first("HEAD / HTTP/1.1"), HEADED),
    ("HEAD with a body", "9110 §9.3.2", first("HEAD / HTTP/1.1", LENGTH_5) + b"hello", HEADED),
    ("HEAD of what takes POST", "9110 §15.5.6", first("HEAD /login HTTP/1.1"), HEAD_OF_POST),
    ("HEAD of the page", "9110 §9.3.2", first("HEAD / HTTP/1.1", "Accept: text/html"), HEAD_OF_PAGE),
    ("HEAD of nothing", "9110 §9.3.2", first("HEAD /x HTTP/1.1"), answered(404, "")),
    ("HEAD without Host", "9110 §9.3.2: never content", head("HEAD / HTTP/1.1"), refused(400, "")),
    ("HEAD in chunks", "9110 §9.3.2: never content", first("HEAD / HTTP/1.1", CHUNKS) + LAST_CHUNK, refused(411, "")),
    ("OPTIONS /", "9110 §9.3.7", first("OPTIONS / HTTP/1.1"), GET_HERE),
    ("OPTIONS /login", "9110 §9.3.7", first("OPTIONS /login HTTP/1.1"), POST_HERE),
    ("OPTIONS *", "9112 §3.2.4", first("OPTIONS * HTTP/1.1"), STAR),
    ("OPTIONS with a body", "9110 §9.3.7", first("OPTIONS * HTTP/1.1", LOGIN_LENGTH) + LOGIN, STAR),
    ("OPTIONS of nothing", "9110 §9.3.7", first("OPTIONS /x HTTP/1.1"), ABSENT),
    ("TRACE", "9110 §9.3.8: would echo the cookie", first("TRACE / HTTP/1.1", "Cookie: jwt=planted"), GET_ONLY),
    ("TRACK", "of no RFC: TRACE under another name", first("TRACK / HTTP/1.1", "Cookie: jwt=planted"), GET_ONLY),
    ("CONNECT", "9110 §9.3.6, 9931 §8: close", first("CONNECT localhost:80 HTTP/1.1"), closed(ABSENT)),
    ("CONNECT to another port", "9110 §9.3.6", first("CONNECT [::1]:22 HTTP/1.1") + b"SSH-2.0-x\r\n", closed(ABSENT)),
    ("CONNECT to a path", "9110 §9.3.6", first("CONNECT /login HTTP/1.1"), closed(POST_ONLY)),
    ("get", "9110 §9.1: case-sensitive", first("get / HTTP/1.1"), GET_ONLY),
    ("GET of what takes POST", "9110 §15.5.6", first(f"GET /login?{LOGIN.decode()} HTTP/1.1"), POST_ONLY),
    ("GET /logout", "9110 §9.2.1: safe", first("GET /logout HTTP/1.1", f"Cookie: jwt={JWT}"), POST_ONLY),
    ("POST of what takes GET", "9110 §15.5.6", post("/me", f"Authorization: Bearer {TOKEN}"), GET_ONLY),
    ("DELETE", "9110 §15.5.6", first("DELETE /login HTTP/1.1"), POST_ONLY),
    ("BREW", "9110 §9.1: 501 would do; 405 tells more", first("BREW / HTTP/1.1"), GET_ONLY),
    ("BREW of nothing", "9110 §15.5.5", first("BREW /x HTTP/1.1"), ABSENT),
    ("a method for *", "9112 §3.2.4", first("M-SEARCH * HTTP/1.1", 'MAN: "ssdp:discover"'), TARGET),
)  # fmt: skip

# ---- Limits: 9110 §5.4, 9112 §3 -- at the limit, and one more ------------------------------------------------

AT_LINE = padded(8_192, b"GET /", b" HTTP/1.1")
AT_HEAD = padded(32_768, LONG_FIELDS + b"A: ")
LOGIN_FIELDS = FORM_TYPE, "Content-Length: 16384"

group("limit",
    ("a line of 8,192 bytes", "9112 §3: at least 8,000", AT_LINE + b"\r\n" + head(HOST), ABSENT),
    ("a line of 8,193 bytes", "9112 §3: must be 414", b"GET /a" + AT_LINE[5:] + b"\r\n" + head(HOST), LONG_LINE),
    ("a line of 32,769 bytes without end", "9112 §3: must be 414", b"GET /" + b"a" * 32_764, LONG_LINE),
    ("a line of 8,192 bytes without end", "9112 §8", b"G" * 8_192, HALF),
    ("a method of 8,000 letters", "9112 §3: 501 would do", first("G" * 8_000 + " / HTTP/1.1"), GET_ONLY),
    ("a field of 8,192 bytes", "9110 §5.4", get("A: " + "a" * 8_189), RUNNING),
    ("a field of 8,193 bytes", "6585 §5", get("A: " + "a" * 8_190), LONG_HEAD),
    ("8,000 commas in Connection", "9110 §5.6.1.2", get("Connection: " + "," * 8_000), RUNNING),
    ("4,000 commas in Content-Length", "9112 §6.3", get("Content-Length: " + "5," * 4_000), LENGTH),
    ("8,000 letters in Host", "3986 §3.2.2: as long as it likes", host("a" * 8_000), RUNNING),
    ("a head of 32,768 bytes", "9110 §5.4", AT_HEAD + b"\r\n\r\n", RUNNING),
    ("a head of 32,769 bytes", "6585 §5", AT_HEAD + b"a\r\n\r\n", LONG_HEAD),
    ("a head of 32,769 bytes without end", "6585 §5", AT_HEAD + b"a", LONG_HEAD),
    ("a hundred fields", "9110 §5.4", get(*["A: b"] * 99), RUNNING),
    ("a hundred and one", "6585 §5", get(*["A: b"] * 100), LONG_HEAD),
    ("10,000 empty lines before it", "9112 §2.2: at least one", b"\r\n" * 10_000 + get("A: c"), RUNNING),
    ("a body of 16,384 bytes", "9110 §15.5.14", post("/login", *LOGIN_FIELDS) + b"a" * 16_384, WRONG),
    ("a body of 16,385 bytes", "9110 §15.5.14", form(b"a" * 16_385), LARGE),
    ("a login that fills the body", "9110 §15.5.14", form(padded(16_384, LOGIN + b"&a=")), IN),
    ("200 fields of a form", "ours", form(LOGIN + b"&a" * 198), IN),
    ("201 fields of a form", "ours", form(LOGIN + b"&a" * 199), WRONG),
    ("200 cookies", "6265 §6.1: at least 50", refresh("a=b;" * 199 + f"jwt={JWT}"), REFRESHED),
    ("201 cookies", "ours; 6265 §6.1: at least 50", refresh("a=b;" * 200 + f"jwt={JWT}"), UNAUTHORIZED),
    ("eight of our name", "ours", refresh("jwt=x; " * 7 + f"jwt={JWT}"), REFRESHED),
    ("nine of our name", "ours", refresh("jwt=x; " * 8 + f"jwt={JWT}"), UNAUTHORIZED),
    ("a token of 8,000 dots", "7515 §7.1", me("Authorization: Bearer " + "." * 8_000), bad_token("decode_error")),
)  # fmt: skip

# ---- Forms: WHATWG URL §5.1 -- each a login ------------------------------------------------------------------

PASSWORD = b"&password=admin123"

group("form",
    ("the other way round", "URL §5.1", form(b"password=admin123&username=admin"), IN),
    ("others between", "URL §5.1", form(b"a=1&username=admin&a=2" + PASSWORD + b"&a"), IN),
    ("empty pairs", "URL §5.1: skipped", form(b"&&username=admin&&" + PASSWORD + b"&"), IN),
    ("all escaped", "URL §1.3", form(b"%75sername=%61%64%6d%69%6E&password=admin%31%32%33"), IN),
    ("a charset in quotes and capitals", "9110 §8.3.2", sent_as(FORM + '; Charset="UTF-8"'), IN),
    ("a type in capitals", "9110 §8.3.1: case-insensitive", sent_as(FORM.upper()), IN),
    ("another charset", "URL §5.1: UTF-8 only", sent_as(FORM + "; charset=iso-8859-1"), WRONG),
    ("UTF-8 by its other name", "Encoding §4.2", sent_as(FORM + "; charset=utf8"), IN),
    ("ASCII, which is a part of UTF-8", "Encoding §4.2: ours", sent_as(FORM + "; charset=us-ascii"), IN),
    ("another parameter", "9110 §5.6.6: ignored", sent_as(FORM + "; version=1"), IN),
    ("a parameter that is empty", "9110 §5.6.6", sent_as(FORM + ";charset=UTF-8;"), IN),
    ("two charsets", "9110 §5.6.6: ours", sent_as(FORM + "; charset=utf-8; charset=iso-8859-1"), WRONG),
    ("two types", "9110 §8.3", sent_as(f"{FORM}\r\n{FORM_TYPE}"), WRONG),
    ("no type", "9110 §8.3: may be guessed, is not", form(LOGIN, None), WRONG),
    ("plain text", "Fetch: a simple request", sent_as("text/plain"), WRONG),
    ("multipart", "7578 §4.1", sent_as("multipart/form-data; boundary=username"), WRONG),
    ("JSON", "8259", form(b'{"username":"admin","password":"admin123"}', "Content-Type: application/json"), WRONG),
    ("JSON in a form's type", "URL §5.1: one long name", form(b'{"username":"admin","password":"admin123"}'), WRONG),
    ("no body", "URL §5.1", form(b""), WRONG),
    ("no password", "README", form(b"username=admin"), WRONG),
    ("an empty password", "README", form(b"username=admin&password="), WRONG),
    ("user name twice", "README", form(b"username=admin&" + LOGIN), WRONG),
    ("password twice, the first wrong", "README", form(b"username=admin&password=x" + PASSWORD), WRONG),
    ("user name twice, once escaped", "README", form(b"user%6eame=x&" + LOGIN), WRONG),
    ("an array", "of no standard: PHP", form(b"username[]=admin" + PASSWORD), WRONG),
    ("names in capitals", "URL §5.1: exact", form(b"Username=admin&Password=admin123"), WRONG),
    ("semicolons", "URL §5.1: no separator", form(b"username=admin;password=admin123"), WRONG),
    ("a plus sign at the end", "URL §5.1: a space; ours", form(b"username=admin+" + PASSWORD), IN),
    ("a NUL after it", "URL §5.1: a character like others", form(LOGIN + b"\0"), WRONG),
    ("an escaped NUL after it", "URL §5.1: a character like others", form(LOGIN + b"%00"), WRONG),
    ("an escape cut short", "URL §1.3: itself", form(b"username=admin%6" + PASSWORD), WRONG),
    ("an escape of a sign", "URL §1.3: two hexadecimal digits", form(b"username=%+61dmin" + PASSWORD), WRONG),
    ("escaped twice", "URL §5.1: decoded once", form(b"username=%2561dmin" + PASSWORD), WRONG),
    ("an overlong letter of two bytes", "3629 §3: must be refused", form(b"username=%C1%A1dmin" + PASSWORD), WRONG),
    ("an overlong NUL", "3629 §3: must be refused", form(LOGIN + b"%C0%80"), WRONG),
    ("half a letter", "3629 §3", form(LOGIN + b"%C3"), WRONG),
    ("a surrogate", "3629 §3: must be refused", form(b"username=admin%ED%A0%80" + PASSWORD), WRONG),
    ("a byte order mark", "URL §5.1: without BOM handling", form(b"\xef\xbb\xbf" + LOGIN), WRONG),
    ("fullwidth letters", "8265 §3.3: not mapped here", form("username=\uff41dmin".encode() + PASSWORD), WRONG),
    ("a Cyrillic letter", "8265 §3.3", form("username=\u0430dmin".encode() + PASSWORD), WRONG),
    ("SQL", "ours: not put into a statement", form(b"username=admin'+OR+'1'='1'--+" + PASSWORD), WRONG),
    ("in the query", "README", first(f"POST /login?{LOGIN.decode()} HTTP/1.1", FORM_TYPE, LENGTH_0), WRONG),
)  # fmt: skip

# ---- Cookies: 6265 §4.2, §5.4 ---------------------------------------------------------------------------------

BROKEN_JWT = JWT[:-10] + ("A" if JWT[-10] != "A" else "B") + JWT[-9:]

group("cookie",
    ("ours", "6265 §4.2.1", refresh(f"jwt={JWT}"), REFRESHED),
    ("ours behind others", "6265 §4.2.1", refresh(f"a=1; b=2; jwt={JWT}"), REFRESHED),
    ("no space after the semicolon", "6265 §4.2.1: must be there", refresh(f"a=1;jwt={JWT};b=2"), REFRESHED),
    ("white space around all", "6265 §5.2: trimmed", refresh(f"a=1 ;\t jwt \t=\t {JWT} \t;"), REFRESHED),
    ("in quotes", "6265 §4.1.1: a value may be", refresh(f'jwt="{JWT}"'), REFRESHED),
    ("in two fields", "6265 §5.4: must not be; 9113 §8.2.3", refresh("a=1", f"Cookie: jwt={JWT}"), REFRESHED),
    ("twice the same", "6265 §5.4", refresh(f"jwt={JWT}; jwt={JWT}"), REFRESHED),
    ("empty pairs", "6265 §5.2", refresh(f";;; ;jwt={JWT};;"), REFRESHED),
    ("a neighbour in JSON", "6265 §4.1.1", refresh(f'a={{"b":[1,"c d"]}}; jwt={JWT}'), REFRESHED),
    ("a neighbour with half a quote", "6265 §5.2: quotes mean nothing", refresh(f'a="b; jwt={JWT}'), REFRESHED),
    ("a neighbour beyond ASCII", "6265 §5.2", refresh(f"a=\xff\xfe; jwt={JWT}"), REFRESHED),
    ("a neighbour of 2109", "6265 §1", refresh(f'$Version="1"; jwt={JWT}; $Path="/"'), REFRESHED),
    ("a planted one before it", "6265 §8.6: others may plant", refresh(f"jwt=planted; jwt={JWT}"), REFRESHED),
    ("a planted one after it", "6265 §8.6: others may plant", refresh(f"jwt={JWT}; jwt=planted"), REFRESHED),
    ("none", "README", post("/refresh"), UNAUTHORIZED),
    ("an empty value", "README", refresh("jwt="), UNAUTHORIZED),
    ("its name in capitals", "6265 §4.1.1: case-sensitive", refresh(f"JWT={JWT}"), UNAUTHORIZED),
    ("a longer name", "6265 §5.4", refresh(f"xjwt={JWT}; jwtx={JWT}"), UNAUTHORIZED),
    ("a prefix", "6265bis §4.1.3: another name", refresh(f"__Host-jwt={JWT}"), UNAUTHORIZED),
    ("an escaped value", "6265 §5.4: exact", refresh(f"jwt=%65{JWT[1:]}"), UNAUTHORIZED),
    ("a no-break space before the name", "6265 §2.2: only SP and HTAB", refresh(f"\xa0jwt={JWT}"), UNAUTHORIZED),
    ("a no-break space before the value", "6265 §2.2: only SP and HTAB", refresh(f"jwt=\xa0{JWT}"), UNAUTHORIZED),
    ("NEL before the name", "6265 §2.2: only SP and HTAB", refresh(f"a=b;\x85jwt={JWT}"), UNAUTHORIZED),
    ("a vertical tab before the name", "9110 §5.5", refresh(f"\x0bjwt={JWT}"), CONTROL),
    ("a NUL after the name", "9110 §5.5", refresh(f"jwt\0={JWT}"), CONTROL),
    ("behind a comma", "2965 §3.3.4: no more", refresh(f"a=1, jwt={JWT}"), UNAUTHORIZED),
    ("one letter broken", "7515 §5.2", refresh(f"jwt={BROKEN_JWT}"), UNAUTHORIZED),
    ("two sessions", "ours: either may be meant", refresh(f"jwt={JWT}; jwt={OTHER_JWT}"), UNAUTHORIZED),
    ("expired", "7519 §4.1.4", refresh(f"jwt={refresh_token(exp=NOW)}"), UNAUTHORIZED),
    ("an access token", "README", refresh(f"jwt={TOKEN}"), UNAUTHORIZED),
    ("algorithm none", "7518 §3.6", refresh(f"jwt={NONE_TOKEN}"), UNAUTHORIZED),
    ("in Cookie2", "2965 §3.3.5: no more", post("/refresh", f"Cookie2: jwt={JWT}"), UNAUTHORIZED),
    ("in the query", "README", post(f"/refresh?jwt={JWT}"), UNAUTHORIZED),
    ("logout with it", "README", post("/logout", f"Cookie: jwt={ENDED_JWT}"), OUT),
    ("logout without any", "README", post("/logout"), OUT),
)  # fmt: skip

# ---- Authorization: 6750 §2.1, 9110 §11.4 ----------------------------------------------------------------------

group("Authorization",
    ("Bearer", "6750 §2.1", me(f"Authorization: Bearer {TOKEN}"), ME),
    ("bearer", "9110 §11.1: case-insensitive", me(f"Authorization: bearer {TOKEN}"), ME),
    ("three spaces", "9110 §11.4: one or more", me(f"Authorization: Bearer   {TOKEN}"), ME),
    ("nothing", "6750 §3.1: no error code", me(), NO_TOKEN),
    ("Basic", "7617 §2", me("Authorization: Basic YWRtaW46YWRtaW4xMjM="), NO_TOKEN),
    ("no scheme", "9110 §11.4", me(f"Authorization: {TOKEN}"), NO_TOKEN),
    ("a tab for the space", "9110 §11.4: SP", me(f"Authorization: Bearer\t{TOKEN}"), NO_TOKEN),
    ("Proxy-Authorization", "9110 §11.7.2: for proxies", me(f"Proxy-Authorization: Bearer {TOKEN}"), NO_TOKEN),
    ("in the query", "6750 §2.3: should not be", first(f"GET /me?access_token={TOKEN} HTTP/1.1"), NO_TOKEN),
    ("in the cookie", "README", me(f"Cookie: jwt={TOKEN}; access_token={TOKEN}"), NO_TOKEN),
    ("a scheme alone", "6750 §2.1", me("Authorization: Bearer"), bad_token("decode_error")),
    ("twice", "9110 §11.6.2: once", me(*[f"Authorization: Bearer {TOKEN}"] * 2), bad_token("decode_error")),
    ("a no-break space after it", "7515 §2", me(f"Authorization: Bearer {TOKEN}\xa0"), bad_token("decode_error")),
    ("no signature", "7515 §5.2", me(f"Authorization: Bearer {UNSIGNED}"), bad_token("invalid_signature")),
    ("algorithm none", "7518 §3.6", me(f"Authorization: Bearer {NONE_TOKEN}"), bad_token("invalid_algorithm")),
    ("a refresh token", "README", me(f"Authorization: Bearer {JWT}"), bad_token("invalid_signature")),
    ("folded", "9112 §5.2", me("Authorization: Bearer", f" {TOKEN}"), FIELD),
    ("/explain of a bad token", "README: good or not", explain(), EXPLAINED),
    ("/explain without a token", "README", first("GET /explain HTTP/1.1"), NO_TOKEN),
)  # fmt: skip

# ---- Cross-site posts: 6454 §7, W3C Fetch Metadata §2.3 ---------------------------------------------------------


def site(origin=None, fetch=None, host="localhost:8000"):
    """A login that a browser sends from a page."""
    fields = [f"Origin: {origin}"] * (origin is not None) + [f"Sec-Fetch-Site: {fetch}"] * (fetch is not None)
    return head("POST /login HTTP/1.1", f"Host: {host}", FORM_TYPE, LOGIN_LENGTH, *fields) + LOGIN


HERE = "http://localhost:8000"

group("cross-site",
    ("our page", "README", site(HERE, "same-origin"), IN),
    ("our page, an old browser", "6454 §7", site(HERE), IN),
    ("typed in", "Fetch Metadata §2.3", site(None, "none"), IN),
    ("a proxy that rewrites Host", "Fetch Metadata §2.3", site("https://a.example", "same-origin", "backend"), REMOTE),
    ("a proxy that ends TLS", "README", site("https://login.example", None, "login.example"), REMOTE),
    ("the port of https in Host", "6454 §4", site("https://login.example", None, "login.example:443"), REMOTE),
    ("the port of http in Origin", "6454 §6.2: left out", site("http://localhost:80", None, "localhost"), CROSS),
    ("the port of the other scheme", "6454 §5", site("http://login.example", None, "login.example:443"), CROSS),
    ("Host in capitals", "6454 §5", site("https://login.example", None, "LOGIN.example"), REMOTE),
    ("an IPv6 address", "6454 §6.2", site("http://[::1]:8000", None, "[::1]:8000"), IN),
    ("absolute-form of our page", "9112 §3.2.2", login(f"Origin: {HERE}", target=f"{HERE}/login"), IN),
    ("absolute-form of another host", "9112 §3.2.2", login(f"Origin: {HERE}", target="http://a/login"), CROSS),
    ("another site", "README", site(EVIL, "cross-site"), CROSS),
    ("another site, an old browser", "6454 §7", site(EVIL), CROSS),
    ("a sibling", "Fetch Metadata §2.3", site("http://a.localhost:8000", "same-site"), CROSS),
    ("another port", "6454 §5", site("http://localhost:3000"), CROSS),
    ("our name before another", "6454 §5", site("http://localhost:8000.evil.example"), CROSS),
    ("our name as a user", "6454 §6.2: has no user", site("http://localhost:8000@evil.example"), CROSS),
    ("a sandboxed frame", "6454 §6.1", site("null", "cross-site"), CROSS),
    ("an empty Origin", "6454 §7: no browser sends it", site(""), CROSS),
    ("another scheme", "6454 §5", site("ftp://localhost:8000"), CROSS),
    ("two Origins", "6454 §7: once", site(f"{HERE}\r\nOrigin: {EVIL}"), CROSS),
    ("an unknown Sec-Fetch-Site", "Fetch Metadata §2.3", site(HERE, "same-galaxy"), CROSS),
    ("two Sec-Fetch-Sites", "Fetch Metadata §2.3", site(HERE, "same-origin\r\nSec-Fetch-Site: none"), CROSS),
    ("Referer of another site", "9110 §10.1.3: not asked", login(f"Referer: {EVIL}/"), IN),
    ("logout from another site", "README", post("/logout", "Sec-Fetch-Site: cross-site"), CROSS),
    ("a page that is not there", "ours: 404 goes first", post("/x", f"Origin: {EVIL}"), ABSENT),
    ("a GET from another site", "9110 §9.2.1: safe", get(f"Origin: {EVIL}", "Sec-Fetch-Site: cross-site"), RUNNING),
)  # fmt: skip

# ---- CORS: WHATWG Fetch §3.3 -- at a server with ALLOWED_ORIGINS=https://app.example ----------------------------


def adding(fields):
    """Return a function that makes an expected answer one with these fields too."""
    return lambda expected: [expected[0]._replace(fields={**expected[0].fields, **fields})]


PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}
SHARED = {
    "Access-Control-Allow-Origin": APP,
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate",
}
NEITHER = dict.fromkeys([*PREFLIGHT, *SHARED])
VARY = {"Vary": "Origin"}
preflighted = adding({**VARY, **PREFLIGHT, **SHARED})
shared = adding({**VARY, **NEITHER, **SHARED})
unshared = adding({**VARY, **NEITHER})
alone = adding({"Vary": None, **NEITHER})


def preflight(path, *fields):
    return first(f"OPTIONS {path} HTTP/1.1", "Access-Control-Request-Method: POST", *fields)


ORIGIN = f"Origin: {APP}"

group("cross-site",
    ("a preflight where none is allowed", "README: no CORS", preflight("/me", ORIGIN), alone(GET_HERE)),
    ("an origin where none is allowed", "README: no CORS", me("Origin: http://localhost:3000"), alone(NO_TOKEN)),
)  # fmt: skip

group("CORS",
    ("a login", "Fetch §3.3", login(ORIGIN, "Sec-Fetch-Site: cross-site"), shared(IN)),
    ("an error", "Fetch §3.3: a page may read why", me(ORIGIN), shared(NO_TOKEN)),
    ("nothing there", "Fetch §3.3", first("GET /x HTTP/1.1", ORIGIN), shared(ABSENT)),
    ("a preflight", "Fetch §3.3", preflight("/login", ORIGIN), preflighted(POST_HERE)),
    ("an OPTIONS that asks nothing", "Fetch §3.3", first("OPTIONS /me HTTP/1.1", ORIGIN), shared(GET_HERE)),
    ("a preflight of another site", "Fetch §3.3", preflight("/login", f"Origin: {EVIL}"), unshared(POST_HERE)),
    ("our page's own path", "ours: never shared", explain(ORIGIN), unshared(EXPLAINED)),
    ("a preflight of our page's own path", "ours: never shared", preflight("/explain", ORIGIN), unshared(GET_HERE)),
    ("two Varys", "9110 §12.5.5: a list", get(ORIGIN), adding({"Vary": "Accept, Origin"})(RUNNING)),
    ("no Origin", "Fetch §3.3", first("GET /x HTTP/1.1"), unshared(ABSENT)),
    ("another site", "Fetch §3.3", me(f"Origin: {EVIL}"), unshared(NO_TOKEN)),
    ("another site posts", "README", login(f"Origin: {EVIL}"), unshared(CROSS)),
    ("null", "Fetch §3.3", me("Origin: null"), unshared(NO_TOKEN)),
    ("http for https", "6454 §5", me("Origin: http://app.example"), unshared(NO_TOKEN)),
    ("in capitals", "6454 §6.2: browsers send small letters", me(f"Origin: {APP.upper()}"), unshared(NO_TOKEN)),
    ("a port spelled", "6454 §6.2: browsers leave it out", me(f"{ORIGIN}:443"), unshared(NO_TOKEN)),
    ("a name before it", "6454 §5", me("Origin: https://evil-app.example"), unshared(NO_TOKEN)),
    ("a name behind it", "6454 §5", me(f"{ORIGIN}.evil.example"), unshared(NO_TOKEN)),
    ("two lines", "6454 §7: once", me(ORIGIN, ORIGIN), unshared(NO_TOKEN)),
    ("an escaped line end behind it", "9112 §11.1", me(f"{ORIGIN}%0d%0aSet-Cookie:%20planted"), unshared(NO_TOKEN)),
    ("a NUL behind it", "9110 §5.5", me(f"{ORIGIN}\0"), CONTROL),
)  # fmt: skip

# ---- Other protocols at our port -------------------------------------------------------------------------------

HELLO = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03" + bytes(range(32)) + b"\x00\x00\x02\x13\x01\x01\x00"

group("protocol",
    ("TLS 1.3", "8446 §4.1.2", HELLO, CONTROL),
    ("TLS, and a login after it", "8446 §4.1.2", HELLO + b"\r\n\r\n" + RAW_LOGIN, CONTROL),
    ("TLS, three bytes of it", "8446 §5.1", HELLO[:3], CONTROL),
    ("SSH", "4253 §4.2", b"SSH-2.0-OpenSSH_9.6\r\n", LINE),
    ("SMTP", "5321 §4.1.1.1", b"EHLO mail.example\r\n", LINE),
    ("SMTP, a mail", "5321 §4.1.1", head("HELO a", "MAIL FROM:<a@b>", "DATA", "Subject: planted") + b".\r\n", LINE),
    ("FTP", "959 §5.3", b"USER anonymous\r\n", LINE),
    ("Telnet", "854", b"\xff\xfd\x18\xff\xfd\x20", CONTROL),
    ("RTSP", "2326 §6.1", head("OPTIONS * RTSP/1.0", "CSeq: 1"), LINE),
    ("SIP", "3261 §7.1", head("OPTIONS sip:admin@localhost SIP/2.0", "Via: SIP/2.0/TCP a"), LINE),
    ("ICAP", "3507 §4.10", head("OPTIONS icap://localhost/login ICAP/1.0", HOST), LINE),
    ("HTTP behind a proxy", "PROXY v1: not spoken here", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get(), LINE),
    ("HTTP behind a modern proxy", "PROXY v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + get(), CONTROL),
    ("SOCKS 5", "1928 §3", b"\x05\x01\x00", CONTROL),
    ("Redis, inline", "RESP", b"PING\r\n", LINE),
    ("Redis, an array", "RESP", b"*1\r\n$4\r\nPING\r\n", LINE),
    ("memcached", "memcached", b"stats\r\n", LINE),
    ("PostgreSQL", "protocol 3.0", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", CONTROL),
    ("DNS", "7766 §8", b"\x00\x1d\x00\x00\x01\x00\x00\x01" + bytes(6) + b"\x05local\x00\x00\x01\x00\x01", CONTROL),
    ("MQTT", "MQTT 5 §3.1", b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00", CONTROL),
    ("AJP", "AJP/1.3", b"\x12\x34\x00\x01\x0a", CONTROL),
    ("a WebSocket frame", "6455 §5.2", b"\x81\x85\x00\x00\x00\x00hello", CONTROL),
    ("a printer", "PJL", b"\x1b%-12345X@PJL INFO ID\r\n", CONTROL),
    ("a miner", "JSON-RPC", b'{"id":1,"method":"mining.subscribe","params":[]}\n', CONTROL),
    ("bytes from 0 to 255", "9112 §2.2", bytes(range(256)), CONTROL),
)  # fmt: skip

# ---- Injection: 9112 §11.1 -- of what is "planted", nothing comes back ------------------------------------------

group("injection",
    ("a line end in the path", "9112 §11.1", first("GET /x%0d%0aSet-Cookie:planted=1 HTTP/1.1"), ABSENT),
    ("a whole answer in the path", "9112 §11.1", first("GET /%0d%0a%0d%0aHTTP/1.1%20200%20planted HTTP/1.1"), ABSENT),
    ("a line end in the query", "9112 §11.1", first("GET /?a=%0d%0aSet-Cookie:planted=1 HTTP/1.1"), RUNNING),
    ("a line end in low bytes", "U+560D, U+560A", first("GET /%E5%98%8D%E5%98%8Aplanted HTTP/1.1"), ABSENT),
    ("a line end, raw", "9112 §2.2: ends the request line", first("GET /x\r\nplanted: 1 HTTP/1.1"), LINE),
    ("an escape sequence, raw", "9112 §3.2", first("GET /\x1b]0;planted\x07 HTTP/1.1"), CONTROL),
    ("an escape sequence of one byte", "9112 §3.2: C1 is obs-text", first("GET /\x9b31mplanted HTTP/1.1"), ABSENT),
    ("a line end in the method", "9110 §9.1", first("%0d%0aplanted / HTTP/1.1"), GET_ONLY),
    ("a line end in Host", "9110 §7.2", host(" localhost%0d%0aplanted:1"), BAD_HOST),
    ("a line end in the user name", "9112 §11.1", form(b"username=%0d%0aSet-Cookie:planted" + PASSWORD), WRONG),
    ("a line end in a cookie", "9112 §11.1", refresh("jwt=%0d%0aSet-Cookie:planted=1"), UNAUTHORIZED),
    ("a line end in Origin", "9112 §11.1", login("Origin: http://localhost%0d%0aplanted:1"), CROSS),
    ("a line end in a token", "9112 §11.1", me("Authorization: Bearer %0d%0aplanted:1"), bad_token("decode_error")),
    ("a quote in a token", "9110 §11.6.1", me('Authorization: Bearer ", planted="'), bad_token("decode_error")),
    ("a line end in X-Forwarded-For", "README: no proxy is trusted", login("X-Forwarded-For: 1%0d%0aplanted"), REMOTE),
    ("a shell in User-Agent", "CVE-2014-6271", get("User-Agent: () { :;}; echo planted"), RUNNING),
    ("a look-up in User-Agent", "CVE-2021-44228", get("User-Agent: ${jndi:ldap://planted.example/a}"), RUNNING),
    ("a script in Referer", "ours: nothing comes back", get("Referer: http://a/<script>planted</script>"), RUNNING),
)  # fmt: skip

# ---- 100 Continue: 9110 §10.1.1 -- the head goes first, and the body only if it is asked for ---------------------

CONTINUE = answered(100, "")
EXPECT = "Expect: 100-continue"
WAITING = []


def waiting(*rows):
    """Add these rows to the table of exchanges in which the client waits for a word before it sends the body."""
    WAITING.extend(Case("Expect", *row) for row in rows)


group("Expect",
    ("HTTP/1.0", "9110 §10.1.1: must be ignored", login(EXPECT, version="HTTP/1.0"), closed(IN)),
    ("HTTP/1.0, another", "9110 §10.1.1: must be ignored", login("Expect: x", version="HTTP/1.0"), closed(IN)),
    ("no body", "9110 §10.1.1: nothing to ask for", get(EXPECT), RUNNING),
    ("an empty body", "9110 §10.1.1: nothing to ask for", post("/logout", EXPECT, LENGTH_0), OUT),
    ("another", "9110 §10.1.1: may be 417, so it is", login("Expect: 200-ok"), UNEXPECTED),
    ("empty", "9110 §10.1.1: may be 417, so it is", login("Expect:"), UNEXPECTED),
    ("twice", "9110 §10.1.1: may be 417, so it is", login(EXPECT, EXPECT), UNEXPECTED),
    ("with another", "9110 §10.1.1: may be 417, so it is", login("Expect: 100-continue, x"), UNEXPECTED),
    ("with a parameter", "9110 §10.1.1: may be 417, so it is", login("Expect: 100-continue;q=1"), UNEXPECTED),
    ("behind a space", "9112 §5.1: must be refused", login("Expect : 100-continue"), FIELD),
)  # fmt: skip

waiting(
    ("a login", "9110 §10.1.1", login(EXPECT), CONTINUE + IN),
    ("in capitals", "9110 §10.1.1: case-insensitive", login("EXPECT: 100-Continue"), CONTINUE + IN),
    ("a wrong login", "9110 §10.1.1: seen later", login(EXPECT).replace(b"123", b"124"), CONTINUE + WRONG),
    ("a login in 1.2", "9110 §2.5", login(EXPECT, version="HTTP/1.2"), CONTINUE + IN),
    ("a login from our page", "README", login(EXPECT, "Origin: http://localhost"), CONTINUE + IN),
    ("a login in absolute-form", "9112 §3.2.2", login(EXPECT, target="http://localhost/login"), CONTINUE + IN),
    ("and close", "9112 §9.6", login(EXPECT, "Connection: close"), CONTINUE + closed(IN)),
    ("a body that is not needed", "9110 §9.3.1", get(EXPECT, LENGTH_5) + b"hello", CONTINUE + RUNNING),
    ("nothing there", "9110 §10.1.1: a final status at once", login(EXPECT, target="/x"), closed(ABSENT)),
    ("no method for it", "9110 §10.1.1: a final status at once", login(EXPECT, target="/me"), closed(GET_ONLY)),
    ("another site", "9110 §10.1.1: a final status at once", login(EXPECT, f"Origin: {EVIL}"), closed(CROSS)),
    ("too large", "9110 §10.1.1: a final status at once", post("/login", EXPECT, "Content-Length: 16385"), LARGE),
    ("chunked", "9112 §6.1", post("/login", EXPECT, CHUNKS), CHUNKED),
    ("no Host", "9112 §3.2", head("POST /login HTTP/1.1", EXPECT, LOGIN_LENGTH), BAD_HOST),
    ("HEAD of nothing", "9110 §9.3.2: never content", first("HEAD /x HTTP/1.1", EXPECT, LENGTH_5), refused(404, "")),
)  # fmt: skip
