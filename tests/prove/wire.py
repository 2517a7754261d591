"""Fuzz the wire:  python3 tests/prove/wire.py [count] [seed] [--only CASE]

Good requests are damaged by byte, by line and by splicing, and sent over loopback, in pieces, to a server in this very
process. A second reader of the same bytes, line by line and with no code of the server, says how many requests it sees
and which of them must be refused: the server answers exactly these, in order and whole, in time, and without a
traceback; and it logs nobody in for bytes that hold no whole login. Now and then a normal login must work, and nothing
may be left behind: no connection, thread, descriptor or memory. The same seed gives the same cases; `--only` sends a
single one of them again and shows it.
"""

import argparse
import gc
import io
import ipaddress
import logging
import os
import pathlib
import random
import re
import socket
import sys
import threading
import time
import urllib.parse
import warnings
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import serverkit  # noqa: E402
from serverkit import ACCESS, FORM, LOGIN, NOW, RAW_LOGIN, Answer, Running, answers, build, raw  # noqa: E402
from sessionkit import claims_of, sign  # noqa: E402

import minijwt  # noqa: E402
import server  # noqa: E402

BATCH = 500  # cases between two looks at what is left behind; a batch has its own session and one of two servers
SECONDS = 4.0  # for one exchange: less than the server's own deadline, which must never be what ends it
MAX_GROWTH_MB = 32  # after the first batches: a kilobyte an exchange would be too much
SPARE_THREADS, SPARE_FILES = 2, 2  # beyond those of the first batches: a pool may start its threads late
WARM_UP = 4 * BATCH  # cases; then it has all that it will ever hold
REPEATED = [1] * 60 + [2, 3, 16, 17, 33]  # more often than one client is answered at once
MAX_BYTES = 40_000  # of a case: more than a head may have, and two or three reads of the server
MOMENT = 0.0003  # seconds between two pieces, enough for the server to see the first alone
MAX_VIOLATIONS = 10
ORIGIN = "https://app.example"  # allowed by CORS
SETTINGS = [{"allowed_origins": (ORIGIN,)}, {"rotate_refresh": True, "unauthorized_status": 401}]  # of the two servers
EVENTS = ["login", "refresh", "logout", "cross_site", "proxy"]  # all that the log may speak of


# ---- Good requests ----------------------------------------------------------------------------------------


def tokens_of(batch):
    """Return the refresh tokens of this batch: one to refresh, and one to log out."""
    return [sign("admin", sid=f"{sid:032x}").encode() for sid in (batch, 2**64 + batch)]


@lru_cache(maxsize=1)
def good_requests(batch):
    """Return what is damaged: requests that are fine, with the tokens of this batch."""
    staying, leaving = (f"Cookie: jwt={token.decode()}" for token in tokens_of(batch))
    bearer = "Authorization: Bearer " + minijwt.encode({"username": "admin", "iat": NOW, "exp": NOW + 600}, ACCESS)
    form, length = f"Content-Type: {FORM}", f"Content-Length: {len(LOGIN)}"
    browser = ["Origin: http://localhost", "Sec-Fetch-Site: same-origin", "Accept: */*", "User-Agent: fuzz"]
    return [
        RAW_LOGIN,
        RAW_LOGIN,
        raw("POST", "/login", LOGIN, f"{form}; charset=UTF-8", *browser),
        raw("POST", "/login", LOGIN, form, "Expect: 100-continue"),
        raw("POST", "/login", LOGIN, form, f"Origin: {ORIGIN}", "Sec-Fetch-Site: cross-site"),
        raw("POST", "http://localhost/login?next=1", LOGIN, form),
        f"POST /login HTTP/1.0\r\nConnection: keep-alive\r\n{form}\r\n{length}\r\n\r\n".encode() + LOGIN,
        raw("POST", "/refresh", b"", staying),
        raw("POST", "/refresh", b"", staying, "Content-Length: 0", *browser),
        raw("POST", "/refresh", b"x" * 20, staying, "Expect: 100-continue"),
        f"POST /refresh HTTP/1.0\r\nConnection: keep-alive\r\n{staying}\r\n\r\n".encode(),
        raw("POST", "/logout", b"", leaving.replace(" ", " other=1; ", 1)),
        raw("GET", "/me", b"", bearer),
        raw("GET", "/me"),
        raw("GET", "/explain", b"", bearer, f"Origin: {ORIGIN}"),
        raw("GET", "/", b"", "Connection: close"),
        raw("GET", "/", b"", "Accept: text/html,*/*;q=0.8", "Connection: TE, Keep-Alive"),
        raw("HEAD", "/"),
        raw("OPTIONS", "/login", b"", f"Origin: {ORIGIN}", "Access-Control-Request-Method: POST"),
        raw("OPTIONS", "*"),
        raw("DELETE", "/login"),
        raw("GET", "/nothing?here"),
        b"GET / HTTP/1.0\r\n\r\n",
    ]


# ---- Damage -----------------------------------------------------------------------------------------------

SPICE = [
    b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r\n", b"\n\r\n", b"\0", b"\t", b" ", b"  ", b"\v", b"\f", b"\x1b",
    b"\x7f", b"\x80", b"\x85", b"\xa0", b"\xff", b"\xc3\xa9", b"\xe2\x80\xa8", b":", b": ", b",", b";", b"=",
    b"&", b"%",
    b"%0d%0a", b"%00", b"#", b"?", b"/", b"//", b"/../", b"/./", b"*", b"@", b"[", b"]", b'"', b"\\", b"+", b"-", b"_",
    b"0", b"1", b"9", b"0x1f", b"\r\n ", b"\r\n\t", b"\r\nX", b" HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.9",
    b"http://", b"https://localhost", b"GET / HTTP/1.1\r\n", b"chunked", b"close", b"0\r\n\r\n", b"\xef\xbb\xbf",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"A" * 300, b"A" * 8_300,
    b"X: y\r\n" * 101, (b"X: " + b"y" * 4_000 + b"\r\n") * 9,
]  # fmt: skip
LENGTHS = [
    b"0", b"1", b"5", b"31", b"32", b"33", b"032", b"16384", b"16385", b"99999999999999999999",
    b"9" * 5_000, b"-1", b"+32",
    b"3_2", b"3 2", b"0x20", b"32.0", b"1e1", b"", b"32, 32", b"32,32", b"32, 31", b"32,", b"\xb2", b"\xd9\xa3\xd9\xa2",
]  # fmt: skip
FIELDS = [
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: identity", b"Transfer-Encoding:",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked",
    b"Transfer_Encoding: chunked", b" Transfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked",
    b"Host: localhost", b"Host: other", b"Host:", b"Host: a, b", b"Host: [::1]:8000", b"Host: [::::]", b"Host: a b",
    b"Host: local%68ost", b"Host: user@localhost", b"host: LOCALHOST:80",
    b"Connection: close", b"Connection: keep-alive", b"Connection: TE, close", b"connection: CLOSE ,",
    b"Connection: closed",
    b"Expect: 100-continue", b"Expect: 100-Continue", b"Expect: 200-ok", b"Expect:", b"Expect: 100-continue, x",
    b"Origin: null", b"Origin: https://evil.example", b"Origin: http://localhost:80", b"Origin: https://app.example",
    b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: same-site", b"Sec-Fetch-Site: none",
    b"Sec-Fetch-Site: same-origin",
    b"Content-Type: application/json", b"Content-Type: " + FORM.encode(), b"Cookie: jwt=x", b"Cookie: ;;=;jwt",
    b"Authorization: Bearer x", b"Authorization: Basic eDp5", b": nameless", b"colonless", b"\tfolded",
    b"X:\0", b"X: \xe9",
    b"X-Forwarded-For: 1.2.3.4", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk", b"X-HTTP-Method-Override: POST",
]  # fmt: skip


def by_byte(source, data, others):
    """A bit, something put in, cut out, or doubled; anywhere."""
    start = source.randrange(len(data) + 1)
    end = min(len(data), start + source.choice([1, 1, 1, 2, 4, 20, 60]))
    kind = source.randrange(5)
    if kind == 0 and start < len(data):
        return data[:start] + bytes([data[start] ^ 1 << source.randrange(8)]) + data[start + 1 :]
    if kind <= 2:
        return data[:start] + source.choice(SPICE) + data[start:]
    return data[:start] + data[end:] if kind == 3 else data[:end] + data[start:]


def by_line(source, data, others):
    """A line dropped, doubled, moved, or a field put in."""
    lines = data.split(b"\r\n")
    here, there = source.randrange(len(lines)), source.randrange(len(lines))
    kind = source.randrange(6)
    if kind == 0:
        del lines[here]
    elif kind == 1:
        lines.insert(there, lines[here])
    elif kind == 2:
        lines[here], lines[there] = lines[there], lines[here]
    else:
        lines.insert(min(1 + here, len(lines) - 1), source.choice(FIELDS))
    return b"\r\n".join(lines)


def by_length(source, data, others):
    """Another Content-Length in the place of one that is there, or beside it."""
    field = b"Content-Length: " + source.choice(LENGTHS)
    if source.random() < 0.3:
        return data.replace(b"\r\n", b"\r\n" + field + b"\r\n", 1)
    return re.sub(rb"Content-Length: [^\r\n]*", lambda match: field, data, count=1)


def by_splice(source, data, others):
    """The beginning of one and the end of another; or one within the other."""
    other = source.choice(others)
    first, second = source.randrange(len(data) + 1), source.randrange(len(other) + 1)
    return data[:first] + (other + data[first:] if source.random() < 0.3 else other[second:])


def by_end(source, data, others):
    """Cut off, or repeated."""
    if source.random() < 0.9:
        return data[: source.randrange(len(data) + 1)]
    return data * source.choice(REPEATED[-5:])


def by_word(source, data, others):
    """Another spelling of one word."""
    words = source.choice([
        (b"POST", b"GET"), (b"POST", b"post"), (b"POST", b"HEAD"), (b"GET", b"TRACE"), (b"GET", b"CONNECT"),
        (b"HTTP/1.1", b"HTTP/1.0"), (b"HTTP/1.1", b"HTTP/2.0"), (b"HTTP/1.1", b"http/1.1"), (b" HTTP/1.1", b""),
        (b"/login", b"//login"), (b"/login", b"/login/"), (b"/login", b"/%6cogin"), (b"/login",
        b"http://localhost/login"),
        (b"/login", b"login"), (b"/login", b"/login?x"), (b"/login", b"/login#x"), (b"/login", b"/x/../login"),
        (b"/login", b"https://u@localhost/login"), (b"Host:", b"Host :"), (b"\r\n", b"\n"), (b": ", b":"),
        (b": ", b":\t "), (b"Content", b"content"), (b"admin123", b"admin124"), (b"username", b"username=x&username"),
        (b"jwt=", b"jwt=x; jwt="), (b"keep-alive", b"keep-alive, close"),
    ])  # fmt: skip
    return data.replace(*words, source.choice([1, -1]))


DAMAGES = [by_byte, by_byte, by_line, by_line, by_length, by_splice, by_end, by_word]


class Case(NamedTuple):
    """What is sent, and how."""

    pieces: list
    half_closed: bool  # our side, after the last piece; else only after the answers that are due
    patient: bool  # a moment between two pieces, so that they arrive one by one

    @property
    def data(self):
        return b"".join(self.pieces)


def make_case(seed, number):
    """Return case `number`; it depends on nothing else."""
    source = random.Random(f"{seed} {number}")
    requests = good_requests(number // BATCH)
    data = b"".join(source.choice(requests) * source.choice(REPEATED) for _ in range(source.choice([1, 1, 2, 3])))
    for _ in range(source.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        data = source.choice(DAMAGES)(source, data, requests)[:MAX_BYTES]
    if source.random() < 0.2:
        data += source.choice(requests)  # what must not be reached, or must still be answered
    telling = [match.end() for match in re.finditer(b"\r\n\r\n|\r", data)]  # after a head, and within a line's end
    cuts = [source.randrange(len(data) + 1) for _ in range(source.choice([0, 0, 1, 1, 2, 5]))]
    cuts = sorted(cuts + source.sample(telling, min(len(telling), source.choice([0, 0, 1, 3]))))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]
    patient = source.random() < 0.1
    if len(data) < 400 and source.random() < 0.02:
        pieces, patient = [data[i : i + 1] for i in range(len(data))], False
    return Case(pieces, source.random() < 0.5, patient)


# ---- The second reader ------------------------------------------------------------------------------------
# RFC 9112 with a pencil: a line, then the next. Where the RFC lets a server choose, it says so.

ROUTED, REFUSED, EITHER = "routed", "refused", "either"
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROL = re.compile(rb"[\0-\x08\n-\x1f\x7f]")
PLAIN_TARGET = re.compile(rb"[0-9A-Za-z/?:@!$&'()*+,;=._~%-]+")
PLAIN_HOST = re.compile(rb"[0-9A-Za-z._~-]+")
ANY_HOST = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
MAX_LINE, MAX_HEAD, MAX_FIELDS, MAX_BODY = 8_192, 32_768, 100, 16_384
ROUTES = {
    b"/": b"GET", b"/me": b"GET", b"/explain": b"GET", b"/login": b"POST", b"/refresh": b"POST", b"/logout": b"POST",
}  # fmt: skip


class Bad(Exception):
    """This must be refused."""


class Asked(NamedTuple):
    """One request, as the second reader sees it."""

    verdict: str
    last: object = True  # whether the connection ends with its answer; None: it may
    whole: bool = False  # the answer is due before the client has said that it sends no more
    method: bytes = b""
    expects: bool = False  # 100 Continue, perhaps
    origin: bytes = b""  # from where it says it comes
    grants: str = ""  # "login", "refresh": it may be answered with a token
    plain: bool = False  # and it must


def read_line(stream):
    """Return the next line, without its CR LF."""
    line = stream.readline()
    if not line.endswith(b"\r\n") or len(line) > MAX_LINE + 2 or CONTROL.search(line, 0, len(line) - 2):
        raise Bad
    return line[:-2]


def read_fields(stream):
    """Return a list of (name in lower case, value)."""
    fields = []
    while line := read_line(stream):
        name, colon, value = line.partition(b":")
        if not colon or not TOKEN.fullmatch(name):
            raise Bad
        fields.append((name.lower(), value.strip(b" \t")))
    if len(fields) > MAX_FIELDS:
        raise Bad
    return fields


def values(fields, name):
    return [value for each, value in fields if each == name]


def words(fields, name):
    """Return the members of a list, such as Connection or Content-Length, on however many lines."""
    return [word.strip(b" \t").lower() for value in values(fields, name) for word in value.split(b",")]


def host_verdict(authority):
    """Judge host and port: a name that the RFC allows and nobody has may be refused."""
    host, _, port = authority.partition(b":")
    if authority.startswith(b"["):
        literal, bracket, port = authority[1:].partition(b"]")
        try:
            ipaddress.IPv6Address(literal.decode("latin-1"))
        except ValueError:
            raise Bad from None
        if b"%" in literal or not bracket or port[:1] not in (b"", b":"):
            raise Bad
        host, port = b"literal", port[1:]
    if not host or not ANY_HOST.fullmatch(host) or port.strip(b"0123456789"):
        raise Bad
    return ROUTED if PLAIN_HOST.fullmatch(host) and len(port) <= 5 else EITHER


def read_target(method, target):
    """Return the path, the host of an absolute-form, and the verdict (RFC 9112 section 3.2)."""
    if method == b"CONNECT":
        return target, b"", EITHER
    if target == b"*" and method == b"OPTIONS":
        return target, b"", ROUTED
    if b"#" in target:
        raise Bad
    verdict = ROUTED if PLAIN_TARGET.fullmatch(target) else EITHER
    if target.startswith(b"/"):
        return target.partition(b"?")[0], b"", verdict
    scheme, slashes, rest = target.partition(b"://")
    if scheme.lower() not in (b"http", b"https") or not slashes:
        raise Bad
    authority = re.split(rb"[/?]", rest)[0]
    if b"@" in authority or host_verdict(authority) is EITHER:
        verdict = EITHER
    return rest[len(authority) :].partition(b"?")[0] or b"/", authority, verdict


def body_length(fields):
    """Return the length and the verdict (RFC 9112 section 6.3)."""
    sizes = words(fields, b"content-length")
    if values(fields, b"transfer-encoding"):
        raise Bad
    if not sizes:
        return 0, ROUTED
    if not all(re.fullmatch(rb"[0-9]{1,4000}", size) for size in sizes) or len({*map(int, sizes)}) > 1:
        raise Bad
    if int(sizes[0]) > MAX_BODY:
        raise Bad
    return int(sizes[0]), ROUTED if len({*sizes}) == 1 else EITHER


def same_site(fields, host, shared):
    """Whether a POST may come from where it says it does; None: if the server does not insist on one spelling."""
    origins, sites = values(fields, b"origin"), values(fields, b"sec-fetch-site")
    if origins == [shared]:
        return True
    if sites:
        return sites in ([b"same-origin"], [b"none"])
    if not origins:
        return True
    scheme, _, authority = b", ".join(origins).lower().partition(b"://")
    port = {b"http": b":80", b"https": b":443"}.get(scheme, b":")
    host, bare = host.lower(), host.lower().partition(port)[0]
    if authority.partition(port)[0] != bare:
        return False
    return True if origins[0] in (scheme + b"://" + host, scheme + b"://" + bare) else None


def grant(path, fields, body, tokens):
    """Return what a POST may be given: nothing without the right credentials, each once, or the right cookie."""
    if path == b"/refresh":
        pairs = b";".join(values(fields, b"cookie")).split(b";")
        given = [re.sub(rb"[ \t]*(=|\Z|\A)[ \t]*", rb"\1", pair) for pair in pairs]
        return "refresh" if any(b"jwt=" + token in given for token in tokens) else ""
    kinds = [value.partition(b";")[0].strip().lower() for value in values(fields, b"content-type")]
    pairs = urllib.parse.parse_qsl(body.decode("latin-1"), keep_blank_values=True)
    wanted = sorted(pair for pair in pairs if pair[0] in ("username", "password"))
    right = wanted == [("password", "admin123"), ("username", "admin")]
    return "login" if path == b"/login" and kinds == [FORM.encode()] and right else ""


def read_request(stream, tokens, shared):
    """Return the next request; Bad if it must be refused."""
    line = read_line(stream)
    while not line:
        line = read_line(stream)
    start = stream.tell() - len(line) - 2
    parts, fields = line.split(b" "), read_fields(stream)
    if len(parts) != 3 or not TOKEN.fullmatch(parts[0]) or not re.fullmatch(rb"HTTP/1\.[0-9]", parts[2]):
        raise Bad
    if stream.tell() - 4 - start > MAX_HEAD:
        raise Bad
    method, old, hosts = parts[0], parts[2] == b"HTTP/1.0", values(fields, b"host")
    if len(hosts) > 1 or not hosts and not old:
        raise Bad
    path, authority, *verdicts = read_target(method, parts[1])
    length, verdict = body_length(fields)
    verdicts += [verdict, *map(host_verdict, hosts)]

    options, expectations = words(fields, b"connection"), [] if old else values(fields, b"expect")
    asked = Asked(
        EITHER if EITHER in verdicts else ROUTED,
        last=b"close" in options or (old and b"keep-alive" not in options),
        whole=True,
        method=method,
        expects=expectations != [],
        origin=b", ".join(values(fields, b"origin")),
    )
    served = ROUTES.get(path) == method and same_site(fields, authority or b"".join(hosts), shared)
    if asked.expects and b", ".join(expectations).lower() != b"100-continue":
        if served:
            raise Bad
        return asked._replace(verdict=EITHER, last=None, expects=False)
    if method == b"CONNECT" or asked.expects and not served:
        asked = asked._replace(last=asked.last or None)  # refused before the body is here, or answered after it
    body = stream.read(length)
    if len(body) < length:
        return asked._replace(verdict=EITHER if asked.expects else REFUSED, last=True, whole=False)
    if method != b"POST" or served is False:
        return asked
    grants, told = grant(path, fields, body, tokens), [name for name, _ in fields]
    name = (authority or b"".join(hosts)).lower()
    if grants == "login" and not re.match(rb"(localhost|127\.[0-9.]+|\[::1\])(:|\Z)", name):
        grants = ""  # the demo user is let in by a loopback name only
    plain = grants == "login" and body == LOGIN and (b"content-type", FORM.encode()) in fields
    plain = plain and not any(name.startswith((b"forwarded", b"x-forwarded-", b"x-real-ip", b"via")) for name in told)
    return asked._replace(
        grants=grants, plain=plain and asked.verdict is ROUTED and not {b"origin", b"sec-fetch-site"} & {*told}
    )


def reading(data, tokens, shared):
    """Return the requests in `data`, up to the first that surely ends the connection.

    `tokens` may be refreshed; pages of the origin `shared` may use the server (None: of no other).
    """
    stream, found = io.BytesIO(data), []
    while True:
        rest = data[stream.tell() :]
        while rest.startswith(b"\r\n"):
            rest = rest[2:]
        if rest in (b"", b"\r"):  # half of an empty line is nothing yet
            return found
        try:
            found.append(read_request(stream, tokens, shared))
        except Bad:
            # A page of that origin may read why it was refused, if what can be read of the head says so
            origin = shared if shared and shared in rest else b""
            found.append(Asked(REFUSED, whole=b"\r\n\r\n" in rest, method=rest.partition(b" ")[0], origin=origin))
        if found[-1].last:
            return found


# ---- What must hold ---------------------------------------------------------------------------------------

REFUSALS = {400, 411, 413, 414, 417, 431, 505}
ROUTINGS = {200, 204, 401, 403, 404, 405, 406}  # 408, 429, 500, 503: not in here
NEVER = re.compile(r"[^\t -~]")


def cut(data, asked):
    """Return the answers in `data`, as `serverkit.answers` cuts them; those to HEAD have no body, mostly."""
    found, finals, start = [], 0, 0
    while start < len(data):
        end = data.find(b"\r\n\r\n", start) + 4
        assert end > 3, f"not a whole head: {data[start : start + 200]!r}"
        length = int(Answer(data[start : end - 4], b"")["Content-Length"] or 0)
        method = asked[finals].method if finals < len(asked) else b""
        if method == b"HEAD" and data[end : end + 9] in (b"", b"HTTP/1.1 "):
            length = 0
        found += answers(data[start : end + length], heads_only=0 if length else 1)
        start, finals = end + length, finals + (found[-1].status != 100)
    return found


def check_answer(answer):
    """Assert what holds for every final answer."""
    for name, value in answer.fields:
        assert name and not NEVER.search(name + value), f"a control character in {name}"
    assert answer["Date"] and answer["Cache-Control"] == "no-store" and answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] and answer["Referrer-Policy"] == "no-referrer" and not answer["Server"]
    assert answer.status in REFUSALS | ROUTINGS, f"a {answer.status}"
    assert answer.status != 204 or answer["Content-Length"] is None, "204 with a Content-Length"
    if answer.status >= 400 and answer.body:
        assert answer.json["message"] and (answer.status in (401, 406) or answer.json["code"]), "an error without words"


def granted_by(answer):
    """Return what an answer gives away: a login has a new session, a refresh the one that was."""
    if answer.status != 200 or not answer.body.startswith(b'{"accessToken"'):
        return ""
    cookie = (answer["Set-Cookie"] or "").partition(";")[0].partition("=")[2]
    return "login" if cookie and claims_of(cookie)["gen"] == 0 else "refresh"


def check(asked, received, shared):
    """Assert that `received` answers what the second reader has seen; return the statuses."""
    queue, continued = list(asked), False
    found = cut(received, asked)
    for answer in found:
        assert queue, f"{len(found)} answers to {len(asked)} requests"
        if answer.status == 100:
            assert queue[0].expects and not continued, "100 Continue that nobody asked for"
            assert not answer.fields and not answer.body, "100 Continue says more than that"
            continued = True
            continue
        wanted, continued = queue.pop(0), False
        check_answer(answer)
        what = f"request {len(asked) - len(queue)} of {len(asked)}: {answer.status} {answer.body[:80]!r}, not {wanted}"
        refused, closes = answer.status in REFUSALS, answer["Connection"] == "close"
        assert wanted.verdict in (EITHER, REFUSED if refused else ROUTED), what
        assert closes if refused or wanted.last else wanted.last is None or not closes, "Connection of " + what
        granted = granted_by(answer)
        assert granted in ("", wanted.grants), f"a {granted} out of nothing: {what}"
        assert granted or not wanted.plain, "a good login fails: " + what
        reader = answer["Access-Control-Allow-Origin"]
        assert reader is None or reader.encode() == wanted.origin == shared, "shared: " + what
        assert refused or not shared or ("Vary", "Origin") in answer.fields, "Vary of " + what
        assert wanted.method != b"HEAD" or refused or not answer.body, "a body for HEAD: " + what
        if closes:
            queue = []
    assert not queue, f"{len(found)} answers to {len(asked)} requests: none to {queue[0]}"
    return [answer.status for answer in found]


class Late(Exception):
    """The answer did not come in time."""


def exchange(running, case, asked):
    """Send `case` and return all that comes back; Late, with what came, if it does not end in time."""
    end, received = time.monotonic() + SECONDS, b""
    due = sum(each.whole for each in asked)

    with running.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have refused and gone; its answer counts
                for piece in case.pieces:
                    client.sendall(piece)
                    if case.patient:
                        time.sleep(MOMENT)
                if case.half_closed:
                    client.shutdown(socket.SHUT_WR)
            ended = case.half_closed
            while True:
                if not ended and received.count(b"\r\nDate: ") >= due:
                    with suppress(OSError):
                        client.shutdown(socket.SHUT_WR)
                    ended = True
                client.settimeout(max(0.001, end - time.monotonic()))
                piece = client.recv(65_536)
                received += piece
                if not piece:
                    return received
                if time.monotonic() > end:
                    raise Late(received)
        except socket.timeout:  # TimeoutError, from Python 3.10 on
            raise Late(received) from None


class Watch:
    """Everything that may go wrong unseen, in any thread: collected in `seen`."""

    def __init__(self):
        self.seen = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.seen.append(logging.Formatter().format(record))
        logging.getLogger().addHandler(handler)
        warnings.simplefilter("error")
        threading.excepthook = lambda hook: self.seen.append(f"in {hook.thread}: {hook.exc_value!r}")
        sys.unraisablehook = lambda hook: self.seen.append(f"nobody saw {hook.exc_value!r} in {hook.object!r}")

    def check(self):
        seen, self.seen = self.seen, []
        assert not seen, "; ".join(seen)


class Site:
    """One of the servers, and what it held after its first batch."""

    def __init__(self, watch, **settings):
        self.events = []
        self.shared = ORIGIN.encode() if "allowed_origins" in settings else None
        self.running = Running(build(log=self.events, login_max_failures=0, **settings))

    def check(self):
        """A normal login works, nothing is left open, and the log is fit to be read."""
        (answer,) = answers(self.running.exchange(RAW_LOGIN))
        assert answer.status == 200, f"a normal login: {answer.status} {answer.body!r}"
        serverkit.wait_until(lambda: not self.running.server.clients)
        for event in self.events:
            assert event.name in EVENTS, event
            assert re.fullmatch("[ -~]+", server.log_line(NOW, event)), event
        self.events.clear()


def resident():
    """Return the memory of this process in MB; 0 where nobody counts."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0


def open_files():
    """Return how many descriptors this process has; 0 where nobody counts."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


# ---- All of it --------------------------------------------------------------------------------------------


def shortened(value, length=3_000):
    """Return the literal of `value`, or of what stands at its two ends: `--only` shows all."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 2 :]}"


def try_case(sites, watch, seed, number, show=False):
    """Return the statuses of one case; AssertionError for what must not be."""
    case, site = make_case(seed, number), sites[number // BATCH % len(sites)]
    asked = reading(case.data, tokens_of(number // BATCH), site.shared)
    received = b""
    try:
        received = exchange(site.running, case, asked)
        statuses = check(asked, received, site.shared)
        watch.check()
    except (AssertionError, ValueError, OSError, Late) as error:
        complaint = "a hang" if isinstance(error, Late) else f"{type(error).__name__}: {error}"
        received = error.args[0] if isinstance(error, Late) else received
    else:
        complaint = ""
    if complaint or show:
        all_of = repr if show else shortened
        print(f"  case {number}: {'half-closed, ' * case.half_closed}{'slowly, ' * case.patient}in these pieces:")
        print(f"    {all_of(case.pieces)}\n  received\n    {all_of(received)}\n  the second reader sees")
        for each in asked if show else asked[:5]:
            print(f"    {each}")
    assert not complaint, complaint
    return statuses


def fuzz(sites, watch, seed, numbers, show):
    """Try the cases `numbers`; return how many times something was wrong."""
    begun, worst, violations, tally = time.monotonic(), 0.0, 0, Counter()
    base = held = (0, 0, 0)
    for count, number in enumerate(numbers, 1):
        start = time.perf_counter()
        try:
            tally.update(try_case(sites, watch, seed, number, show))
            worst = max(worst, time.perf_counter() - start)
            if count % BATCH == 0 or count == len(numbers):
                for site in sites:
                    site.check()
                gc.collect()  # what was not closed says so now
                watch.check()
                held = (threading.active_count(), open_files(), resident())
                base = base if count > WARM_UP else held
                assert held[0] <= base[0] + SPARE_THREADS, f"{held[0] - base[0]} threads more"
                assert held[1] <= base[1] + SPARE_FILES, f"{held[1] - base[1]} descriptors more"
                assert held[2] <= base[2] + MAX_GROWTH_MB, f"{held[2] - base[2]:.0f} MB more"
        except AssertionError as error:
            violations += 1
            print(f"VIOLATION {error}\n  again: wire.py {len(numbers)} {seed} --only {number}", flush=True)
            if violations == MAX_VIOLATIONS:
                break
    print("wire: answers " + ", ".join(f"{times} x {status}" for status, times in sorted(tally.items())))
    print(f"wire: worst exchange {worst * 1e3:.0f} ms, memory +{held[2] - base[2]:.0f} MB")
    took = time.monotonic() - begun
    print(f"wire: {count} exchanges in {took:.0f} s, {violations} violations (seed {seed})")
    return violations


def main():
    parser = argparse.ArgumentParser(description="Fuzz the wire.")
    parser.add_argument("count", nargs="?", type=int, default=30_000)
    parser.add_argument("seed", nargs="?", type=int, default=None)
    parser.add_argument("--only", type=int, metavar="CASE")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    numbers = range(arguments.count) if arguments.only is None else [arguments.only]
    print(f"wire: seed {seed}, {len(numbers)} exchanges", flush=True)
    watch = Watch()
    sites = [Site(watch, **settings) for settings in SETTINGS]
    try:
        violations = fuzz(sites, watch, seed, numbers, arguments.only is not None)
    finally:
        for site in sites:
            site.running.stop()
        for store in serverkit.stores:
            store.close()
        serverkit.SCRATCH.cleanup()
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
