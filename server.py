#!/usr/bin/env python3
"""minijwt server: login with JWT access tokens, and refresh tokens in an HttpOnly cookie.

    $ python3 server.py
    Server active on http://localhost:8000!

    POST /login    a form with username and password → an access token in JSON, a refresh token in a cookie
    POST /refresh  that cookie → a new access token
    GET /          "server running"

The way a request goes:

    bytes → Connection (asyncio) → Handler (http.server) → Framer → Request → respond() → endpoint
          → Accounts → minijwt → Response → Writer → bytes

The words of this file, each with its one meaning:

    access token   str, proves for a few minutes who somebody is; whoever holds it may act as them
    refresh token  str, lives in a cookie for a day or so and is only good for new access tokens
    now            float, seconds since 1970-01-01 UTC; deadlines count the seconds of a clock that never goes back
    header field   a header line of a request: bytes, with its name in lower case
    refusal        Refused, raised by Accounts, or HTTPError, raised by everything else

Settings and the clock are arguments: a test builds a whole server without a port, a sleep or a file. Read from top to
bottom: nothing is used above its definition.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import hmac
import json
import logging
import os
import re
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import minijwt

log = logging.getLogger("minijwt")

DEMO_USERNAME, DEMO_PASSWORD = "admin", "admin123"  # the tutorial's user, known to everybody


# ---- Settings --------------------------------------------------------------------------------------------
# What the operator decides. Read once, from the environment and `.env`; nothing below reads either again.


class SettingsError(Exception):
    """A setting that is wrong or too dangerous: one sentence for the operator, who alone can mend it."""


class Settings(NamedTuple):
    """All that can be set. Durations in seconds."""

    access_secret: bytes
    refresh_secret: bytes
    host: str = "localhost"
    port: int = 8000
    access_ttl: int = 10 * 60
    refresh_ttl: int = 24 * 60 * 60
    unauthorized_status: int = 406
    cookie_name: str = "jwt"
    cookie_samesite: str = "None"
    cookie_secure: bool = True
    random_secrets: bool = False  # nobody gave any: they last as long as this run
    exposed_file: str = ""  # a .env that other users of the machine can read

    def __repr__(self) -> str:
        return f"<Settings {self.host}:{self.port}>"  # never the secrets: what can be logged will be

    @property
    def private(self) -> bool:
        """Whether only programs on this machine can reach us: all that the exposure rule asks."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_TTL_SECONDS = 3650 * UNIT_SECONDS["d"]  # ten years: a longer one is a typo


def _host(text: str) -> str:
    if text != "localhost":
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
        except (OSError, ValueError):
            raise ValueError('must be "localhost", an IPv4 or an IPv6 address') from None
    return text


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65_535:
        raise ValueError("must be a number from 0 (any free port) to 65535")
    return int(text)


def _duration(text: str) -> int:
    match = re.fullmatch("([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= MAX_TTL_SECONDS:
        raise ValueError("must be 1s to 3650d: a number and s, m, h or d, such as 10m")
    return seconds


def _secret(text: str) -> bytes:
    if not text:
        raise ValueError("is empty; `python3 minijwt.py keygen` prints a good one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", minijwt.InsecureKeyLengthWarning)  # a matter of `risks`, below
            return minijwt.key_bytes(text.encode("utf-8", "surrogateescape"))
    except minijwt.InvalidKeyError as error:
        raise ValueError(f"cannot be used: {error}") from None


def _cookie_name(text: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", text):  # RFC 6265 §4.1.1: a token
        raise ValueError("must consist of letters, digits and !#$%&'*+-.^_`|~")
    return text


def _one_of(values: dict[str, Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError("must be " + " or ".join(values))
        return values[text]

    return parse


# environment variable → the field of Settings, how its text is read
VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "HOST": ("host", _host),
    "PORT": ("port", _port),
    "ACCESS_TOKEN_SECRET": ("access_secret", _secret),
    "REFRESH_TOKEN_SECRET": ("refresh_secret", _secret),
    "ACCESS_TOKEN_TTL": ("access_ttl", _duration),
    "REFRESH_TOKEN_TTL": ("refresh_ttl", _duration),
    "UNAUTHORIZED_STATUS": ("unauthorized_status", _one_of({"406": 406, "401": 401})),
    "COOKIE_NAME": ("cookie_name", _cookie_name),
    "COOKIE_SAMESITE": ("cookie_samesite", _one_of({"None": "None", "Lax": "Lax", "Strict": "Strict"})),
    "COOKIE_SECURE": ("cookie_secure", _one_of({"on": True, "off": False})),
}

# One assignment of a .env file as Node's dotenv reads it: NAME=value or NAME: value, `export`, quotes that may span
# lines, and a comment after it.
_ASSIGNMENT = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[\w.-]+)(?:[ \t]*=|:[ \t])[ \t]*
    (?: '(?P<single>(?:\\'|[^'])*)' | "(?P<double>(?:\\"|[^"])*)" | `(?P<back>(?:\\`|[^`])*)` | (?P<bare>[^\n#]*?) )
    [ \t]*(?:\#[^\n]*)?(?:\n|$)""",
    re.VERBOSE | re.ASCII,
)
_BLANK_OR_COMMENT = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|$)")


def parse_dotenv(text: str) -> dict[str, str]:
    """Return the variables that the text of a .env file sets; of several with one name, the last.

    Raises ValueError, with the number of the line, for a line that is neither an assignment nor a comment.
    """
    text = re.sub("\r\n?", "\n", text.lstrip("\ufeff"))
    values, at = {}, 0
    while at < len(text):
        match = _BLANK_OR_COMMENT.match(text, at) or _ASSIGNMENT.match(text, at)
        if not match:
            line = text.count("\n", 0, at) + 1
            raise ValueError(f"line {line} is neither NAME=value nor a comment")
        if match.re is _ASSIGNMENT:
            value = match["single"] or match["back"] or match["bare"] or ""
            if match["double"]:  # only double quotes know escapes
                value = match["double"].replace(r"\n", "\n").replace(r"\r", "\r")
            values[match["name"]] = value
        at = match.end()
    return values


def _read_dotenv(path: str) -> tuple[dict[str, str], bool]:
    """Return what the file `path` sets, if there is one, and whether other users can read it or own it."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            exposed = bool(status.st_mode & 0o077) or status.st_uid not in (0, os.geteuid())
            return parse_dotenv(file.read().decode("utf-8")), exposed
    except FileNotFoundError:
        return {}, False
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8") from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None


HMAC_BLOCK_BYTES = 64  # of SHA-256 (RFC 2104 §2)


def _hmac_key(secret: bytes) -> bytes:
    """Return `secret` as HMAC pads it: two secrets that are equal in this form make the same signatures."""
    return (sha256(secret).digest() if len(secret) > HMAC_BLOCK_BYTES else secret).ljust(HMAC_BLOCK_BYTES, b"\0")


def _check_together(settings: Settings) -> None:
    """Raise SettingsError for settings that are fine alone and wrong together."""
    if _hmac_key(settings.access_secret) == _hmac_key(settings.refresh_secret):
        raise SettingsError(
            "REFRESH_TOKEN_SECRET must differ from ACCESS_TOKEN_SECRET:"
            " only its key tells a refresh token from an access token"
        )
    if not settings.cookie_secure and settings.cookie_samesite == "None":
        raise SettingsError("COOKIE_SAMESITE=None needs COOKIE_SECURE=on; otherwise set Lax or Strict")
    if not settings.cookie_secure and settings.cookie_name.startswith(("__Host-", "__Secure-")):
        raise SettingsError("COOKIE_NAME with the prefix __Host- or __Secure- needs COOKIE_SECURE=on")


def read_settings(environ: Mapping[str, str], dotenv: str = ".env") -> Settings:
    """Return the settings in `environ` and, where that is silent, in the file `dotenv`.

    Raises SettingsError, one sentence with the variable's name, for a value that is wrong.
    """
    from_file, exposed = _read_dotenv(dotenv)
    given = {**from_file, **environ}
    values: dict[str, Any] = {"exposed_file": dotenv if exposed else ""}
    for variable, (field, parse) in VARIABLES.items():
        if variable in given:
            try:
                values[field] = parse(given[variable])
            except ValueError as error:
                raise SettingsError(f"{variable} {error}") from None
    secrets = [name for name in ("ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET") if name in given]
    if len(secrets) == 1:
        raise SettingsError(f"{secrets[0]} is set alone: set both secrets, or none for two random ones")
    if not secrets:
        access, refresh = os.urandom(minijwt.MIN_KEY_BYTES), os.urandom(minijwt.MIN_KEY_BYTES)
        values.update(access_secret=access, refresh_secret=refresh, random_secrets=True)
    settings = Settings(**values)
    _check_together(settings)
    return settings


def risks(settings: Settings) -> list[str]:
    """Return a sentence for each thing that is handy for learning and dangerous in the open."""
    found = [f"anybody can log in as the demo user {DEMO_USERNAME}: there is no other user"]
    if settings.random_secrets:
        found.append("no ACCESS_TOKEN_SECRET and REFRESH_TOKEN_SECRET: random ones, a restart logs everybody out")
    for variable, secret in (
        ("ACCESS_TOKEN_SECRET", settings.access_secret),
        ("REFRESH_TOKEN_SECRET", settings.refresh_secret),
    ):
        if len(secret) < minijwt.MIN_KEY_BYTES:
            found.append(f"{variable} has only {len(secret)} of {minijwt.MIN_KEY_BYTES} bytes: it can be guessed")
    if not settings.cookie_secure:
        found.append("COOKIE_SECURE=off: the refresh token travels over plain HTTP too")
    if settings.exposed_file:
        found.append(f"{settings.exposed_file} can be read or is owned by others: chmod 600 {settings.exposed_file}")
    return found


def check_exposure(settings: Settings) -> list[str]:
    """The exposure rule: return the risks as warnings on a private server, raise SettingsError on an open one."""
    found = risks(settings)
    if not settings.private:
        raise SettingsError(f"HOST={settings.host} is open to others, and that must not be while " + "; ".join(found))
    return found


# ---- Accounts --------------------------------------------------------------------------------------------
# The rules: who may log in, and what a refresh token is worth. The only room that makes or verifies tokens. Knows no
# HTTP.

DEMO_EPOCH = "demo"  # a user's epoch is copied into the refresh tokens: change it, and all of them are void
MAX_COOKIES = 8  # refresh tokens of one request that are looked at: a planted cookie or two must not hide ours
MAX_TOKEN_CHARS = 2_048  # of a refresh token: ours have 300, and none is worth parsing 60,000

_SESSION_CLAIMS = {"username", "sid", "gen", "epoch", "iat", "exp"}
_TUTORIAL_CLAIMS = {"username", "iat", "exp"}  # what the tutorial's own app signs, and nothing more


class Refused(Exception):
    """Wrong credentials, or no good refresh token; `code` says which, for tests."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Session(NamedTuple):
    """A verified refresh token."""

    username: str
    sid: str
    gen: int
    epoch: str


class Accounts:
    """Users and their tokens. `clock` returns seconds since 1970."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock

    def login(self, username: str, password: str) -> tuple[str, str]:
        """Return an access token and a refresh token; raise Refused if the credentials are wrong."""
        # Both are compared, whatever the first says: the time it takes does not tell which was wrong.
        known = hmac.compare_digest(username.encode(), DEMO_USERNAME.encode())
        if not hmac.compare_digest(password.encode(), DEMO_PASSWORD.encode()) or not known:
            raise Refused("wrong_credentials")
        now = int(self._clock())
        session = {"username": username, "sid": os.urandom(16).hex(), "gen": 0, "epoch": DEMO_EPOCH}
        refresh = {**session, "iat": now, "exp": now + self._settings.refresh_ttl}
        return self._access_token(username, now), minijwt.encode(refresh, self._settings.refresh_secret)

    def refresh(self, tokens: list[str]) -> str:
        """Return a new access token for the one session that is good among the refresh tokens `tokens`.

        Raises Refused if none is, or if there are several.
        """
        now = self._clock()
        refused, sessions = "no_token", {}
        for token in tokens[:MAX_COOKIES]:
            try:
                session = self._verify(token, now)
            except minijwt.InvalidTokenError as error:
                refused = error.code  # somebody else's cookie: it neither counts nor hides ours
            else:
                sessions[session.sid] = session
        if len(sessions) != 1:
            raise Refused("several_sessions" if sessions else refused)
        (session,) = sessions.values()
        return self._access_token(session.username, int(now))

    def _access_token(self, username: str, now: int) -> str:
        claims = {"username": username, "iat": now, "exp": now + self._settings.access_ttl}
        return minijwt.encode(claims, self._settings.access_secret)

    def _verify(self, token: str, now: float) -> Session:
        """Return the session of a refresh token; raise InvalidTokenError if it is not good (any more)."""
        if len(token) > MAX_TOKEN_CHARS:
            raise minijwt.DecodeError("longer than any refresh token")
        claims = minijwt.decode(token, self._settings.refresh_secret, now=now)
        if claims.keys() == _SESSION_CLAIMS:
            session = Session(claims["username"], claims["sid"], claims["gen"], claims["epoch"])
        elif claims.keys() == _TUTORIAL_CLAIMS:
            # It has no name of its own, so the token's digest is the session's.
            session = Session(claims["username"], sha256(token.encode()).hexdigest(), 0, DEMO_EPOCH)
        else:
            raise minijwt.InvalidTokenError("these are not the claims of a refresh token")
        if [type(value) for value in session] != [str, str, int, str]:  # exactly: to Python, True is an int as well
            raise minijwt.InvalidTokenError("a claim of the refresh token has the wrong type")
        if session.username != DEMO_USERNAME or session.epoch != DEMO_EPOCH:
            raise minijwt.InvalidTokenError("the refresh token's user does not exist, or has ended all sessions")
        return session


# ---- Messages --------------------------------------------------------------------------------------------
# Bytes to Request, Response to bytes (RFC 9110, RFC 9112). Does no I/O: whoever has bytes hands them in.

MAX_LINE_BYTES = 8_192  # a request line or a field: RFC 9112 §3 wants 8,000 at least
MAX_HEAD_BYTES = 32_768  # of all of them: eight cookie jars of 4 KB
MAX_FIELDS = 100  # a browser sends about twenty
MAX_BODY_BYTES = 16_384  # a login form needs about a hundred
MAX_PAIRS = 200  # fields of a form, cookies of a request; more are only there to keep us busy


class HTTPError(Exception):
    """An answer that says no, with a sentence for people and a stable code for programs."""

    def __init__(self, status: int, code: str, message: str, fields: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, tuple(fields)


def _malformed(code: str, message: str) -> HTTPError:
    return HTTPError(HTTPStatus.BAD_REQUEST, code, message)


def _line_too_long() -> HTTPError:
    return HTTPError(HTTPStatus.REQUEST_URI_TOO_LONG, "line_too_long", "The request line is too long.")


def _head_too_large() -> HTTPError:
    return HTTPError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The header is too large.")


class Request(NamedTuple):
    """One whole request."""

    method: str
    path: str  # without the query, which no endpoint looks at
    fields: Mapping[bytes, bytes]
    body: bytes = b""
    keep_alive: bool = True
    version: bytes = b"HTTP/1.1"


class Response(NamedTuple):
    """One whole answer; Writer adds what every answer has."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()


_FIELD_BYTES = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), 0x09})  # RFC 9110 §5.5: what a field may hold
_TCHAR = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # RFC 9110 §5.6.2
# RFC 9110 §7.2, without percent-encoding and sub-delims
_HOST_FIELD = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(?i:https?)://" + _HOST_FIELD.pattern + rb"(/[^?]*)?(?:\?.*)?")  # RFC 3986 §3
_REQUEST_LINE = re.compile(rb"([%b]+) ([!-~\x80-\xff]+) (HTTP/[0-9]\.[0-9])" % re.escape(_TCHAR))  # RFC 9112 §3


def _check_text(head: bytes) -> None:
    """Raise HTTPError if `head` holds a control character other than its line ends, CR LF."""
    # Take away all that may be there, and only line ends may be left. A bare CR or LF is where two servers
    # disagree about how many requests they see (RFC 9112 §2.2, §11.2).
    if head.translate(None, _FIELD_BYTES) != b"\r\n" * head.count(b"\r\n"):
        raise _malformed("control_character", "A control character, or a line that does not end in CR LF.")


def _parse_fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """Return the header fields in `lines`; several with one name are joined (RFC 9110 §5.3, RFC 9113 §8.2.3)."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        # White space before the colon, or a folded line, would be a field to one server and none to the next.
        if not colon or not name or name.translate(None, _TCHAR):
            raise _malformed("malformed_field", "A header line is not of the form NAME: VALUE.")
        name, value = name.lower(), value.strip(b" \t")
        if name in fields:
            value = fields[name] + (b"; " if name == b"cookie" else b", ") + value
        fields[name] = value
    return fields


def _content_length(fields: Mapping[bytes, bytes]) -> int:
    """Return how many bytes the body has (RFC 9112 §6.3); raise HTTPError unless that is beyond doubt."""
    length = fields.get(b"content-length", b"")
    if b"transfer-encoding" in fields:  # RFC 9112 §6.1: never followed, so never a source of smuggled requests
        if fields[b"transfer-encoding"].lower() == b"chunked" and not length:
            raise HTTPError(HTTPStatus.LENGTH_REQUIRED, "length_required", "Send a Content-Length, not chunks.")
        raise _malformed("transfer_encoding", "Transfer-Encoding is not supported.")
    if b"content-length" not in fields:
        return 0
    if b"," in length and len(sizes := {size.strip(b" \t") for size in length.split(b",")}) == 1:
        (length,) = sizes  # RFC 9112 §6.3: the same number, several times over
    length = length.lstrip(b"0") or length[:1]
    if not length.isdigit():  # for bytes these are 0 to 9 and no others; int() would take +5, 5_0 and " 5"
        raise _malformed("content_length", "Content-Length is not a number.")
    if len(length) > 9 or int(length) > MAX_BODY_BYTES:  # CPython refuses to read 4,300 digits
        raise HTTPError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes."
        )
    return int(length)


def _path(target: bytes, method: bytes) -> str:
    """Return the path in a request's target (RFC 9112 §3.2), without its query."""
    if target[:1] != b"/" and target.lower().startswith((b"http://", b"https://")):  # absolute-form, as to a proxy
        match = _ABSOLUTE.fullmatch(target)
        target = (match[1] or b"/") if match else b""
    if target[:1] != b"/" and (target, method) != (b"*", b"OPTIONS") and method != b"CONNECT" or b"#" in target:
        raise _malformed("malformed_target", "The target of the request is not a path.")
    return target.partition(b"?")[0].decode("latin-1")


def _keeps_alive(fields: Mapping[bytes, bytes], version: bytes) -> bool:
    """Tell whether the connection stays open after the answer (RFC 9112 §9.3)."""
    if b"connection" not in fields:
        return version != b"HTTP/1.0"
    options = [option.strip(b" \t") for option in fields[b"connection"].lower().split(b",")]
    return b"close" not in options and (version != b"HTTP/1.0" or b"keep-alive" in options)


def parse_head(head: bytes) -> tuple[Request, int]:
    """Return the request whose head, without the empty line, is `head`, and the length of the body to come.

    Raises HTTPError if it is malformed, too large, or ambiguous about where it ends.
    """
    _check_text(head)
    lines = head.split(b"\r\n")
    if len(lines[0]) > MAX_LINE_BYTES:
        raise _line_too_long()
    if len(lines) > MAX_FIELDS + 1 or max(map(len, lines)) > MAX_LINE_BYTES:
        raise _head_too_large()
    match = _REQUEST_LINE.fullmatch(lines[0])
    if not match:
        raise _malformed("malformed_request_line", "The request line is not of the form METHOD TARGET HTTP/1.1.")
    method, target, version = match.groups()
    if not version.startswith(b"HTTP/1."):
        raise HTTPError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "http_version", "This is HTTP/1.1 and HTTP/1.0.")
    fields = _parse_fields(lines[1:])
    # RFC 9112 §3.2: exactly one valid Host, or 400; two have been joined by a comma, which is not valid.
    if not _HOST_FIELD.fullmatch(fields.get(b"host", b"")) and (version != b"HTTP/1.0" or b"host" in fields):
        raise _malformed("host", "There must be exactly one valid Host.")
    length = _content_length(fields)
    keep_alive = _keeps_alive(fields, version)
    return Request(method.decode("ascii"), _path(target, method), fields, b"", keep_alive, version), length


class Framer:
    """Cuts bytes into requests: `receive` takes what arrives, `next_request` gives what is whole."""

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0  # of what has not been used yet
        self._head: tuple[Request, int] | None = None  # parsed, its body not yet here

    def receive(self, data: bytes) -> None:
        """Add `data` to what has arrived."""
        self._buffer = self._buffer[self._start :] + data
        self._start = 0

    @property
    def busy(self) -> bool:
        """Whether part of a request is here, and the rest is not."""
        return self._start < len(self._buffer) or self._head is not None

    def next_request(self) -> Request | None:
        """Return the next request if all of it is here, else None.

        Raises HTTPError if it is malformed; then nothing that follows can be read.
        """
        if self._head is None:
            while self._buffer.startswith(b"\r\n", self._start):  # RFC 9112 §2.2: empty lines before it are forgiven
                self._start += 2
            if self._start == len(self._buffer):
                return None
            end = self._buffer.find(b"\r\n\r\n", self._start, self._start + MAX_HEAD_BYTES + 4)
            if end < 0:
                self._check_beginning(self._buffer[self._start : self._start + MAX_HEAD_BYTES + 1])
                return None
            self._head = parse_head(self._buffer[self._start : end])
            self._start = end + 4
        request, length = self._head
        if len(self._buffer) - self._start < length:
            return None
        body = self._buffer[self._start : self._start + length]
        self._start += length
        self._head = None
        return request._replace(body=body) if length else request

    @staticmethod
    def _check_beginning(head: bytes) -> None:
        """Refuse what cannot become a request any more, without waiting for its end."""
        _check_text(head[:-1] if head.endswith(b"\r") else head)
        if len(head) > MAX_LINE_BYTES and b"\r\n" not in head:
            raise _line_too_long()
        if len(head) > MAX_HEAD_BYTES:
            raise _head_too_large()

    def end(self) -> None:
        """Raise HTTPError if the bytes ended in the middle of a request: a short body is never acted upon."""
        if self.busy:
            raise _malformed("incomplete", "The request ended before it was complete.")


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def _unescape(text: bytes) -> str:
    """Decode one name or value of a form; a % that escapes nothing stands for itself. ValueError unless UTF-8."""
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text.replace(b"+", b" ")).decode("utf-8")


def parse_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form body (WHATWG URL §5.1), each with its values; ValueError if it is not one."""
    kind, _, parameters = request.fields.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.replace(b" ", b"").replace(b'"', b"")
    if kind.strip(b" \t") != b"application/x-www-form-urlencoded" or charset not in (b"", b"charset=utf-8"):
        raise ValueError("not a form in UTF-8")
    if request.body.count(b"&") >= MAX_PAIRS:
        raise ValueError("too many fields")
    form: dict[str, list[str]] = {}
    for pair in request.body.split(b"&"):
        name, _, value = pair.partition(b"=")
        form.setdefault(_unescape(name), []).append(_unescape(value))
    return form


def parse_cookies(request: Request, name: str) -> list[str]:
    """Return the values of every cookie called exactly `name`, in the order they were sent (RFC 6265 §4.2).

    Only SP and HTAB are trimmed: with all of Unicode's white space, "\\xa0jwt" would pass for "jwt". Other cookies are
    ignored, however malformed.
    """
    wanted, found = name.encode("ascii"), []
    for pair in request.fields.get(b"cookie", b"").split(b";", MAX_PAIRS)[:MAX_PAIRS]:
        key, equals, value = pair.partition(b"=")
        if equals and key.strip(b" \t") == wanted:
            value = value.strip(b" \t")
            if len(value) > 1 and value[:1] == value[-1:] == b'"':  # RFC 6265 §4.1.1: may be quoted
                value = value[1:-1]
            found.append(value.decode("latin-1"))
    return found


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Writer:
    """Writes every answer, in one piece. `clock` is for the Date."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._common = b""

    def _common_fields(self) -> bytes:
        """Return what every answer carries; made once a second, because of the Date (RFC 9110 §6.6.1)."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._common = (
                f"Date: {formatdate(second, usegmt=True)}\r\n"
                "Cache-Control: no-store\r\n"  # RFC 6749 §5.1: no cache may keep a token
                "X-Content-Type-Options: nosniff\r\n"
                "Referrer-Policy: no-referrer\r\n"
                "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
            ).encode("ascii")
        return self._common

    def write(self, response: Response, request: Request | None, keep_alive: bool) -> bytes:
        """Return `response` as the answer to `request` (None: it could not be read), ready to be sent."""
        status = response.status
        head = [_STATUS_LINES[status]]
        if status != HTTPStatus.NO_CONTENT:  # RFC 9110 §8.6: it has no Content-Length
            head.append(f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n")
        for name, value in response.fields:
            if not (value.isascii() and value.isprintable()):
                raise ValueError("a control character in a header field")  # would split the answer in two
            head.append(f"{name}: {value}\r\n")
        if not keep_alive:
            head.append("Connection: close\r\n")
        elif request is not None and request.version == b"HTTP/1.0":
            head.append("Connection: keep-alive\r\n")
        body = b"" if request is not None and request.method == "HEAD" else response.body
        return "".join(head).encode("ascii") + self._common_fields() + b"\r\n" + body


# ---- Endpoints -------------------------------------------------------------------------------------------
# From a Request to a Response, in a few lines each. Know no sockets.


class App(NamedTuple):
    """Everything that an answer depends on."""

    settings: Settings
    accounts: Accounts
    writer: Writer
    clock: Callable[[], float]


def build(settings: Settings, clock: Callable[[], float] = time.time) -> App:
    """Return the whole application for `settings`, without a port."""
    return App(settings, Accounts(settings, clock), Writer(clock), clock)


def answer_json(status: int, value: object, *fields: tuple[str, str]) -> Response:
    """Return `value` as a JSON answer."""
    return Response(status, json.dumps(value).encode("ascii"), fields=fields)


def _token_response(token: str, *fields: tuple[str, str]) -> Response:
    # base64url and dots need no escaping: the body that answer_json would make, without its four microseconds
    return Response(HTTPStatus.OK.value, f'{{"accessToken": "{token}"}}'.encode("ascii"), fields=fields)


def _unauthorized(app: App, message: str) -> Response:
    """The tutorial's 406, or the 401 that RFC 9110 §15.5.2 would have, with the challenge that belongs to it."""
    challenge = (("WWW-Authenticate", 'Bearer realm="minijwt"'),) if app.settings.unauthorized_status == 401 else ()
    return answer_json(app.settings.unauthorized_status, {"message": message}, *challenge)


def _refresh_cookie(app: App, token: str) -> tuple[str, str]:
    """Return the Set-Cookie field that gives `token` to the browser, out of reach of scripts (RFC 6265 §4.1)."""
    settings, ttl = app.settings, app.settings.refresh_ttl
    expires = formatdate(int(app.clock()) + ttl, usegmt=True)
    secure = "; Secure" if settings.cookie_secure else ""
    value = f"{settings.cookie_name}={token}; Max-Age={ttl}; Path=/; Expires={expires}"
    return "Set-Cookie", f"{value}; HttpOnly{secure}; SameSite={settings.cookie_samesite}"


def get_root(app: App, request: Request) -> Response:
    """GET /: a word for whoever wants to know whether the server runs."""
    return Response(HTTPStatus.OK, b"server running", "text/plain; charset=utf-8")


def post_login(app: App, request: Request) -> Response:
    """POST /login: username and password → an access token, and a refresh token in the cookie."""
    try:
        form = parse_form(request)
        [username], [password] = form["username"], form["password"]  # exactly one each
    except (ValueError, KeyError):
        return _unauthorized(app, "Invalid credentials")
    try:
        access, refresh = app.accounts.login(username, password)
    except Refused:
        return _unauthorized(app, "Invalid credentials")
    return _token_response(access, _refresh_cookie(app, refresh))


def post_refresh(app: App, request: Request) -> Response:
    """POST /refresh: the cookie → a new access token."""
    try:
        access = app.accounts.refresh(parse_cookies(request, app.settings.cookie_name))
    except Refused:
        return _unauthorized(app, "Unauthorized")
    return _token_response(access)


# ---- Routes ----------------------------------------------------------------------------------------------
# One table, one try.

Endpoint = Callable[[App, Request], Response]

ROUTES: dict[str, dict[str, Endpoint]] = {
    "/": {"GET": get_root},
    "/login": {"POST": post_login},
    "/refresh": {"POST": post_refresh},
}


def _find(request: Request) -> Endpoint:
    """Return the endpoint for `request`, or the one that answers OPTIONS.

    Raises HTTPError 404, or 405 with Allow (RFC 9110 §15.5.6).
    """
    methods = ROUTES.get(request.path) if request.path != "*" else {}
    if methods is None:
        raise HTTPError(HTTPStatus.NOT_FOUND, "not_found", "There is nothing here.")
    endpoint = methods.get("GET" if request.method == "HEAD" else request.method)
    if endpoint is None:
        known = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
        if request.method == "OPTIONS":
            return lambda app, request: Response(HTTPStatus.NO_CONTENT, fields=(("Allow", known),))
        message = f"This path does not know that method, only {known}."
        raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, [("Allow", known)])
    return endpoint


def error_response(error: HTTPError) -> Response:
    """Return the answer that `error` stands for."""
    return answer_json(error.status, {"message": error.message, "code": error.code}, *error.fields)


def respond(app: App, request: Request) -> Response:
    """Return the answer to `request`: the whole server as one plain function. Raises nothing."""
    try:
        return _find(request)(app, request)
    except HTTPError as error:
        return error_response(error)
    except Exception:
        log.exception("unexpected error")  # the traceback is for the log; the client learns only that it happened
        return error_response(HTTPError(500, "internal_error", "Something went wrong here."))


# ---- Handler ---------------------------------------------------------------------------------------------
# An http.server handler, and the only place where bytes meet `respond`. The event loop below hands it bytes as they
# arrive; under the standard library's own ThreadingHTTPServer it fetches them itself.


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection. `handler_for` gives it its App."""

    app: App
    timeout = 10.0  # seconds that a silent client may cost a thread of the stock server

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        """`request` is the stock server's socket, or None if somebody else calls `receive`."""
        self.framer = Framer()
        self.close_connection = False
        self.reusable = request is None
        if request is not None:
            super().__init__(request, client_address, server)  # which calls `handle`, and blocks until the end

    def handle(self) -> None:
        """Answer one request of the stock server's socket, then close: an idle client would hold a thread."""
        try:
            while not self.close_connection:
                data = self.rfile.read1(MAX_HEAD_BYTES)
                self.wfile.write(self.receive(data) if data else self.end())
        except OSError:
            pass  # the client is silent or gone: nobody to tell

    def receive(self, data: bytes) -> bytes:
        """Take `data` as it has arrived; return the answer that is due now, if one is. More may be: see `proceed`."""
        self.framer.receive(data)
        return self.proceed()

    def proceed(self) -> bytes:
        """Return the answer to the next request, or b"" if that is not whole yet."""
        try:
            request = self.framer.next_request()
        except HTTPError as error:
            return self.refuse(error)
        if request is None:
            return b""
        self.close_connection = not (request.keep_alive and self.reusable)
        return self.app.writer.write(respond(self.app, request), request, keep_alive=not self.close_connection)

    def end(self) -> bytes:
        """Return the last answer after the last byte, if one is due."""
        self.close_connection = True
        try:
            self.framer.end()
        except HTTPError as error:
            return self.refuse(error)
        return b""

    def refuse(self, error: HTTPError) -> bytes:
        """Return the answer to bytes that are no request. Where the next one would begin, nobody knows: close."""
        self.close_connection = True
        return self.app.writer.write(error_response(error), None, keep_alive=False)


def handler_for(app: App) -> type[Handler]:
    """Return a handler class for `app`, for the event loop or for `http.server.ThreadingHTTPServer`."""
    return type("Handler", (Handler,), {"app": app})


# ---- Connection and Server -------------------------------------------------------------------------------
# An event loop: a slow client costs a buffer here, and not a thread. Knows bytes and deadlines, not what they mean.

REQUEST_SECONDS = 5.0  # from the first byte of a request to its last
IDLE_SECONDS = 30.0  # between two requests
WRITE_SECONDS = 10.0  # for a client to take the answers that wait for it
LINGER_SECONDS = 2.0  # for a client to read why it was refused
SWEEP_SECONDS = 1.0  # how often deadlines are looked at; so that is how exact they are
SHUTDOWN_SECONDS = 10.0  # for answers that are on their way when we are told to stop
SHUTDOWN_STEP_SECONDS = 0.02
BACKLOG = 1024  # connections that may wait to be accepted
ACCEPTS_AT_ONCE = 16  # of them, before anybody else is served
ANSWERS_AT_ONCE = 16  # to one client that pipelines, before anybody else is served


class Connection(asyncio.Protocol):
    """One client: feeds a Handler and sends what it returns."""

    __slots__ = ("_closing", "_handler", "_handler_class", "_instant", "_open", "_transport", "_writable", "deadline")

    def __init__(self, handler_class: type[Handler], open_: set[Connection], instant: Callable[[], float]) -> None:
        """`open_` are all that are open; `instant` returns seconds and never goes back."""
        self._handler_class = handler_class
        self._open = open_
        self._instant = instant
        self._writable = True
        self._closing = False
        self.deadline = instant() + REQUEST_SECONDS

    @property
    def busy(self) -> bool:
        """Whether a request has begun to arrive, and not ended."""
        return self._handler.framer.busy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._handler = self._handler_class(None, transport.get_extra_info("peername"), None)
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return  # refused already: what else it sends is only read so that our answer is not lost
        begun = self.busy
        self._handler.framer.receive(data)
        self._serve(begun)

    def _serve(self, begun: bool) -> None:
        """Answer the requests that are here, as long as the client takes the answers and nobody else has to wait.

        `begun` says whether a part of the first of them was here before, and its deadline runs already.
        """
        handler, answered = self._handler, False
        for _ in range(ANSWERS_AT_ONCE):
            answer = handler.proceed()
            if not answer:
                break
            answered = True
            self._transport.write(answer)
            if handler.close_connection:
                return self._finish()
            if not self._writable:
                return None
        else:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._continue)
        if answered or not begun:
            self.deadline = self._instant() + (REQUEST_SECONDS if self.busy else IDLE_SECONDS)
        return None

    def _continue(self) -> None:
        """Go on with the requests that are here already."""
        if self._writable and not self._closing:
            self._transport.resume_reading()
            self._serve(begun=True)

    def pause_writing(self) -> None:
        """The client does not read its answers: it gets no more, and nothing more is read from it."""
        self._writable = False
        self._transport.pause_reading()
        self.deadline = self._instant() + WRITE_SECONDS

    def resume_writing(self) -> None:
        self._writable = True
        if not self._closing:
            self.deadline = self._instant() + REQUEST_SECONDS
            self._continue()

    def eof_received(self) -> bool:
        if not self._handler.close_connection and self._writable:
            self._transport.write(self._handler.end())
        self.stop()
        return True  # `stop` has done what asyncio would do

    def _finish(self) -> None:
        """Close after the last answer, but not with the reset that unread input would cause (RFC 9112 §9.6)."""
        self._closing = True
        self.deadline = self._instant() + (WRITE_SECONDS if self._transport.get_write_buffer_size() else LINGER_SECONDS)
        try:
            self._transport.write_eof()
        except (OSError, NotImplementedError):  # the client has gone; or TLS, which has no half of a connection
            self._transport.close()

    def expire(self) -> None:
        """The deadline has passed: say so if a request had begun, and close; at once if that was said before."""
        if self._closing or not self._writable:
            self._transport.abort()
            return
        if self.busy:
            error = HTTPError(HTTPStatus.REQUEST_TIMEOUT, "timeout", "The request took too long to arrive.")
            self._transport.write(self._handler.refuse(error))
        self._finish()

    def stop(self) -> None:
        """Close as soon as what has been answered is written."""
        self._closing = True
        self.deadline = self._instant() + WRITE_SECONDS
        self._transport.close()


def _bound(address: str, port: int) -> socket.socket:
    """Return a socket that is bound to a literal address; raise OSError if that cannot be."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


def listen(host: str, port: int) -> list[socket.socket]:
    """Return bound sockets: for "localhost" both loopback addresses, where a machine has both, with one port.

    Raises SettingsError if the port is taken or the address not ours. Never looks up a name.
    """
    try:
        sockets = [_bound("127.0.0.1" if host == "localhost" else host, port)]
        if host == "localhost":
            try:
                sockets.append(_bound("::1", sockets[0].getsockname()[1]))  # for port 0: the port that the first drew
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # a machine without IPv6
                    sockets[0].close()
                    raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(f"PORT {port} is in use on {host}: stop that program, or set another PORT") from None
        if error.errno == errno.EACCES:
            raise SettingsError(f"PORT {port} may not be used by this user: set one above 1023") from None
        raise SettingsError(f"HOST {host} cannot be listened on: {error.strerror}") from None
    return sockets


class Server:
    """Serves an App on an event loop until it is told to stop."""

    def __init__(self, app: App, sockets: list[socket.socket]) -> None:
        self._handler_class = handler_for(app)
        self.connections: set[Connection] = set()
        self._sockets = sockets

    async def serve(self, stopped: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Call `ready` when listening, then accept and answer until `stopped` is set; end in an orderly way."""
        loop = asyncio.get_running_loop()
        listeners = []
        for sock in self._sockets:  # asyncio takes its `backlog` for both numbers
            listeners.append(await loop.create_server(self._connection, sock=sock, backlog=ACCEPTS_AT_ONCE))
            sock.listen(BACKLOG)
        sweeper = loop.create_task(self._sweep())
        ready()
        await stopped.wait()
        sweeper.cancel()
        for listener in listeners:
            listener.close()
        for connection in list(self.connections):
            connection.stop()
        end = time.monotonic() + SHUTDOWN_SECONDS
        while self.connections and time.monotonic() < end:
            await asyncio.sleep(SHUTDOWN_STEP_SECONDS)

    def _connection(self) -> Connection:
        return Connection(self._handler_class, self.connections, time.monotonic)

    async def _sweep(self) -> None:
        """Expire every connection whose deadline has passed."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            instant = time.monotonic()
            for connection in [each for each in self.connections if each.deadline < instant]:
                try:
                    connection.expire()
                except Exception:  # whatever one connection does, the deadlines of the others hold
                    log.exception("a connection could not be closed")
                    self.connections.discard(connection)


# ---- Command line ----------------------------------------------------------------------------------------
# Knows the process: arguments, signals, exit status.


async def _serve_until_signalled(server: Server, greeting: str) -> None:
    """Serve; SIGTERM or SIGINT ends it in an orderly way, a second one at once."""
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            os._exit(1)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await server.serve(stopped, lambda: print(greeting, flush=True))


def main(argv: list[str] | None = None) -> int:
    """Serve until stopped; return the exit status: 0 after an orderly stop, 2 if a setting is wrong."""
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="A login server: JWT access tokens, refresh tokens in an HttpOnly cookie.",
        epilog="Settings come from the environment and from .env: " + ", ".join(VARIABLES) + ".",
    )
    parser.add_argument("--version", action="version", version=f"minijwt {minijwt.__version__}")
    parser.parse_args(argv)
    warnings.simplefilter("ignore", minijwt.InsecureKeyLengthWarning)  # once is enough, and `risks` says it
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        settings = read_settings(os.environ)
        for risk in check_exposure(settings):
            print(f"server.py: warning: {risk}", file=sys.stderr)
        sockets = listen(settings.host, settings.port)
    except SettingsError as error:
        print(f"server.py: {error}", file=sys.stderr)
        return 2
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = sockets[0].getsockname()[1]
    server = Server(build(settings), sockets)
    asyncio.run(_serve_until_signalled(server, f"Server active on http://{host}:{port}!"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
