#!/usr/bin/env python3
"""minijwt server: login with JWT access tokens, and refresh tokens in an HttpOnly cookie.

    $ python3 server.py
    Server active on http://localhost:8000!

    POST /login    a form with username and password → an access token in JSON, a refresh token in a cookie
    POST /refresh  that cookie → a new access token
    GET /          "server running"; for a browser, a page that takes a token apart

The way a request goes:

    bytes → Server or Handler (http.server) → conversation → Framer → Request → respond() → endpoint
          → Accounts → minijwt, Store → Response → bytes

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
import errno
import getpass
import hashlib
import heapq
import hmac
import ipaddress
import json
import logging
import math
import os
import pkgutil
import queue
import re
import resource
import selectors
import shutil
import signal
import socket
import sqlite3
import ssl
import sys
import tempfile
import threading
import time
import unicodedata
import warnings
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import RawIOBase
from typing import TYPE_CHECKING, Any, NamedTuple

import minijwt

logger = logging.getLogger("minijwt")

# What we are called: server.py, or minijwt.pyz, which holds both files.
PROGRAM = os.path.basename(__file__ if os.path.isfile(__file__) else os.path.dirname(__file__))

RELEASED = 1_795_392_000  # 2026-11-23, seconds since 1970: a clock that is earlier is wrong
DEMO_USERNAME, DEMO_PASSWORD = "admin", "admin123"  # the tutorial's user, known to everybody


# ---- Settings --------------------------------------------------------------------------------------------
# What the operator decides. Read once, from the environment and `.env`; nothing below reads either again.


class SettingsError(Exception):
    """A setting that is wrong or too dangerous: one sentence for the operator, who alone can mend it."""


if TYPE_CHECKING:
    from typing import TypeAlias

    Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Settings(NamedTuple):
    """All that can be set. Durations in seconds."""

    access_secrets: tuple[bytes, ...]  # the one that signs, and perhaps an old one that still verifies
    refresh_secrets: tuple[bytes, ...]
    host: str = "localhost"
    port: int = 8000
    access_ttl: int = 10 * 60
    refresh_ttl: int = 24 * 60 * 60
    unauthorized_status: int = 406
    cookie_name: str = "jwt"
    cookie_samesite: str = "None"
    cookie_secure: bool = True
    database: str = ""  # the path of a file; "": a temporary one
    rotate_refresh: bool = False
    allowed_origins: tuple[str, ...] = ()  # as browsers spell them; their pages may use us with the cookie
    tls_cert: str = ""  # the path of a PEM file; "": plain HTTP
    tls_key: str = ""
    login_max_failures: int = 10  # 0: no limit
    trusted_proxies: tuple[Network, ...] = ()
    page: bool = True  # the one at /, and its trace
    access_log: bool = False
    random_secrets: bool = False  # nobody gave any: they last as long as this run
    exposed_file: str = ""  # a .env that other users of the machine can read
    given: Mapping[str, str] = {}  # what the operator has set, as it was spelled; of secrets only their lengths
    unknown: tuple[str, ...] = ()  # what .env sets and we do not know

    def __repr__(self) -> str:
        return f"<Settings {self.host}:{self.port}>"  # never the secrets: what can be logged will be

    @property
    def private(self) -> bool:
        """Whether only programs on this machine can reach us: all that the exposure rule asks."""
        loopback = self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        return loopback and not self.trusted_proxies


UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_TTL_SECONDS = 3650 * UNIT_SECONDS["d"]  # ten years: a longer one is a typo
DEFAULT_PORTS = {"http": "80", "https": "443"}  # an origin has its port only if that is another one


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
        raise ValueError(f"is empty; `python3 {PROGRAM} token keygen` prints a good one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", minijwt.InsecureKeyLengthWarning)  # a matter of `check_exposure`, below
            return minijwt.key_bytes(text.encode("utf-8", "surrogateescape"))
    except minijwt.InvalidKeyError as error:
        raise ValueError(f"cannot be used: {error}") from None


def _matching(pattern: str, sentence: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Return a reader of values that match `pattern`; of others it says `sentence`."""

    def parse(text: str) -> Any:
        if not re.fullmatch(pattern, text):
            raise ValueError(sentence)
        return convert(text)

    return parse


_on_off = _matching("on|off", "must be on or off", "on".__eq__)
_file = _matching(r"[^\0]+", "must be the path of a file")
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 6265 §4.1.1: what a cookie's name may be


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(each) for each in text.replace(",", " ").split())
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.replace(",", " ").split())
    for origin in origins:
        match = re.fullmatch(r"(https?)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?", origin)
        if not match or match[2] == DEFAULT_PORTS[match[1]]:
            raise ValueError("must be origins as browsers spell them (RFC 6454 §6.2), separated by commas:"
                             " https://app.example, without a path or a default port; never * or null")  # fmt: skip
    return origins


# environment variable → the field of Settings, how its text is read
VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "HOST": ("host", _host),
    "PORT": ("port", _port),
    "ACCESS_TOKEN_SECRET": ("access_secrets", _secret),
    "REFRESH_TOKEN_SECRET": ("refresh_secrets", _secret),
    "ACCESS_TOKEN_SECRET_OLD": ("access_secrets", _secret),
    "REFRESH_TOKEN_SECRET_OLD": ("refresh_secrets", _secret),
    "ACCESS_TOKEN_TTL": ("access_ttl", _duration),
    "REFRESH_TOKEN_TTL": ("refresh_ttl", _duration),
    "UNAUTHORIZED_STATUS": ("unauthorized_status", _matching("406|401", "must be 406 or 401", int)),
    "COOKIE_NAME": ("cookie_name", _matching(_TOKEN, "must consist of letters, digits and !#$%&'*+-.^_`|~")),
    "COOKIE_SAMESITE": ("cookie_samesite", _matching("None|Lax|Strict", "must be None, Lax or Strict")),
    "COOKIE_SECURE": ("cookie_secure", _on_off),
    "DATABASE": ("database", _file),
    "ROTATE_REFRESH": ("rotate_refresh", _on_off),
    "ALLOWED_ORIGINS": ("allowed_origins", _origins),
    "TLS_CERT": ("tls_cert", _file),
    "TLS_KEY": ("tls_key", _file),
    "LOGIN_MAX_FAILURES": ("login_max_failures", _matching("[0-9]{1,6}", "must be a number, 0 is off", int)),
    "TRUSTED_PROXIES": ("trusted_proxies", _networks),
    "PAGE": ("page", _on_off),
    "ACCESS_LOG": ("access_log", _on_off),
}

# One line of a .env file as Node's dotenv reads it: NAME=value or NAME: value, `export`, quotes that may span lines, a
# comment; or nothing.
_LINE = re.compile(
    r"""[ \t]*(?:(?:export[ \t]+)?(?P<name>[\w.-]+)(?:[ \t]*=|:[ \t])[ \t]*
    (?P<value>'(?:\\'|[^'])*'|"(?:\\"|[^"])*"|`(?:\\`|[^`])*`|[^\n#]*?)[ \t]*)?(?:\#[^\n]*)?(?:\n|$)""",
    re.VERBOSE | re.ASCII,
)


def parse_dotenv(text: str) -> dict[str, str]:
    """Return the variables that the text of a .env file sets; of several with one name, the last.

    Raises ValueError, with the number of the line, for a line that is neither an assignment nor a comment.
    """
    text = re.sub("\r\n?", "\n", text.lstrip("\ufeff"))
    values, at = {}, 0
    while at < len(text):
        match = _LINE.match(text, at)
        if not match:
            line = text.count("\n", 0, at) + 1
            raise ValueError(f"line {line} is neither NAME=value nor a comment")
        if match["name"]:
            value, quote = match["value"], match["value"][:1]
            if len(value) > 1 and quote in "'\"`" and value.endswith(quote):
                value = value[1:-1]
            if quote == '"':  # only double quotes know escapes
                value = value.replace(r"\n", "\n").replace(r"\r", "\r")
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


def _check_together(settings: Settings) -> None:
    """Raise SettingsError for settings that are fine alone and wrong together."""
    if {*map(minijwt.hmac_key, settings.access_secrets)} & {*map(minijwt.hmac_key, settings.refresh_secrets)}:
        raise SettingsError(
            "REFRESH_TOKEN_SECRET and ACCESS_TOKEN_SECRET, current and old, must all differ:"
            " only by its key is a refresh token told from an access token"
        )
    if not settings.cookie_secure and settings.cookie_samesite == "None":
        raise SettingsError("COOKIE_SAMESITE=None needs COOKIE_SECURE=on; otherwise set Lax or Strict")
    if not settings.cookie_secure and settings.cookie_name.lower().startswith(("__host-", "__secure-")):
        raise SettingsError("COOKIE_NAME with the prefix __Host- or __Secure- needs COOKIE_SECURE=on")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        alone, other = ("TLS_CERT", "TLS_KEY") if settings.tls_cert else ("TLS_KEY", "TLS_CERT")
        raise SettingsError(f"{alone} is set without {other}: set both (they may name one file), or none")


def read_settings(environ: Mapping[str, str], dotenv: str = ".env") -> Settings:
    """Return the settings in `environ` and, where that is silent, in the file `dotenv`.

    Raises SettingsError, one sentence with the variable's name, for a value that is wrong.
    """
    from_file, exposed = _read_dotenv(dotenv)
    given = {**from_file, **environ}
    shown: dict[str, str] = {}
    values: dict[str, Any] = {"exposed_file": dotenv if exposed else "", "given": shown}
    values["unknown"] = tuple(name for name in from_file if name not in VARIABLES)
    for variable, (field, parse) in VARIABLES.items():  # in this order: a current secret before its old one
        if variable in given:
            try:
                value = parse(given[variable])
            except ValueError as error:
                raise SettingsError(f"{variable} {error}") from None
            shown[variable] = f"{len(value)} bytes" if parse is _secret else given[variable]
            values[field] = (*values.get(field, ()), value) if parse is _secret else value
    names = [name for name in VARIABLES if "_SECRET" in name and name in given]
    if not names:
        access, refresh = os.urandom(minijwt.MIN_KEY_BYTES), os.urandom(minijwt.MIN_KEY_BYTES)
        values.update(access_secrets=(access,), refresh_secrets=(refresh,), random_secrets=True)
    elif not {"ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET"} <= {*names}:
        raise SettingsError(f"{names[0]} is set alone: set both secrets, or none for two random ones")
    else:
        values.setdefault("database", "minijwt.db")
    settings = Settings(**values)
    _check_together(settings)
    return settings


def check_exposure(settings: Settings, any_user: bool) -> list[str]:
    """The exposure rule: return what is handy for learning and dangerous in the open, a sentence each, as warnings.

    Raises SettingsError with all of them on a server that is open.
    """
    access, refresh = (min(map(len, secrets)) for secrets in (settings.access_secrets, settings.refresh_secrets))
    least, file, random = minijwt.MIN_KEY_BYTES, settings.exposed_file, settings.random_secrets
    risks = {
        f"the secrets are random, and a restart logs everybody out: `{PROGRAM} init` writes lasting ones": random,
        f"its only user is the demo user {DEMO_USERNAME}, known to all: `{PROGRAM} user add NAME`": not any_user,
        f"ACCESS_TOKEN_SECRET, or its OLD, has only {access} of {least} bytes: it can be guessed": access < least,
        f"REFRESH_TOKEN_SECRET, or its OLD, has only {refresh} of {least} bytes: it can be guessed": refresh < least,
        "COOKIE_SECURE=off: the refresh token travels over plain HTTP too": not settings.cookie_secure,
        f"{file} can be read or is owned by others: chmod 600 {file}": bool(file),
    }
    found = [sentence for sentence, is_so in risks.items() if is_so]
    if found and not settings.private:
        reason = "TRUSTED_PROXIES" if settings.trusted_proxies else f"HOST={settings.host}"
        raise SettingsError(f"{reason} would let other machines in, but " + "; ".join(found))
    return found


# ---- Passwords -------------------------------------------------------------------------------------------
# What is stored instead of a password: "scrypt$n$r$p$salt$hash" or "pbkdf2$rounds$salt$hash", so a stored password
# brings its own cost along. Knows no users.

MIN_PASSWORD_CHARS = 8  # NIST SP 800-63B §5.1.1.2; no rules about what they are
MAX_NAME_BYTES = 255
MAX_PASSWORD_BYTES = 1_024  # more would only make the work before the hash larger
SALT_BYTES = 16


# Schemes and their numbers. Tests take a cheap one.
SCRYPT = "scrypt$16384$8$5"  # 16 MiB and a quarter of a second (RFC 7914; OWASP's choice for 16 MiB)
PBKDF2 = "pbkdf2$600000"  # HMAC-SHA256, where Python's OpenSSL has no scrypt (RFC 8018)
COST = SCRYPT if hasattr(hashlib, "scrypt") else PBKDF2


def _derive(password: str, salt: bytes, cost: str) -> bytes:
    secret = password.encode()
    scheme, *numbers = cost.split("$")
    if scheme == "pbkdf2":
        return hashlib.pbkdf2_hmac("sha256", secret, salt, int(numbers[0]))
    n, r, p = map(int, numbers)
    memory = 128 * r * (n + p + 2)  # bytes: what OpenSSL counts
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32)


def hash_password(password: str, cost: str = COST) -> str:
    """Return what to store for `password`: the cost, a salt of its own, the hash."""
    salt = os.urandom(SALT_BYTES)
    return f"{cost}${salt.hex()}${_derive(password, salt, cost).hex()}"


def check_password(password: str, stored: str) -> bool:
    """Tell whether `password` is the one that `stored` was made from, in the time that `stored` asks for."""
    cost, salt, digest = stored.rsplit("$", 2)
    derived = _derive(password, bytes.fromhex(salt), cost)
    # HMAC, within both schemes, pads its key with NUL: "x" and "x\0" would be one password (RFC 2104 §2)
    return hmac.compare_digest(derived.hex(), digest) and "\0" not in password


def is_weaker(stored: str, cost: str) -> bool:
    """Tell whether `stored` was made at less than `cost`."""
    (had, *have, _, _), (scheme, *want) = stored.split("$"), cost.split("$")
    return had != scheme or any(int(a) < int(b) for a, b in zip(have, want))


def dummy_password(cost: str = COST) -> str:
    """Return a stored password that nothing matches: an unknown user costs the same work as a known one."""
    return f"{cost}${'00' * SALT_BYTES}$none"


# ---- Store -----------------------------------------------------------------------------------------------
# Everything that outlives a request, behind a handful of verbs. All SQL is in this room; the rules are in the next.

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6D6A7774  # "mjwt" in the file's header, so that nobody's other database is taken for ours
SCHEMA = f"""
CREATE TABLE user (
    name TEXT PRIMARY KEY,       -- NFC
    password TEXT NOT NULL,      -- as hash_password makes it
    epoch TEXT NOT NULL,         -- random; copied into refresh tokens, which are void when it changes
    tutorial INTEGER NOT NULL    -- 1: tokens of the tutorial's own app, which have no epoch, are good too
) WITHOUT ROWID;
CREATE TABLE session (           -- only those that were rotated or ended; without a row: generation 0, alive
    sid TEXT PRIMARY KEY,
    generation INTEGER NOT NULL, -- of the newest refresh token
    rotated REAL NOT NULL,       -- when it was made, seconds since 1970
    ended INTEGER NOT NULL,      -- 1: no token of this session is ever good again
    expires INTEGER NOT NULL     -- the exp of all its tokens, seconds since 1970: then the row may go
) WITHOUT ROWID;
CREATE INDEX session_expires ON session (expires);
CREATE TABLE failure (           -- attempts to log in, by account and address
    key BLOB PRIMARY KEY,        -- a digest of both
    attempts INTEGER NOT NULL,
    next REAL NOT NULL,          -- when the next attempt is allowed, seconds since 1970
    expires REAL NOT NULL        -- when all is forgotten
) WITHOUT ROWID;
CREATE INDEX failure_expires ON failure (expires);
CREATE TABLE pruned (
    latest INTEGER NOT NULL      -- the largest session.expires that was ever deleted
);
INSERT INTO pruned VALUES (0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
BUSY_SECONDS = 5.0  # how long a writer waits for another process
PRUNE_ROWS = 100  # at one time, so that no request waits for it
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 30, 3_600  # between attempts, once there were too many
FORGET_SECONDS = 86_400  # after the last attempt
MAX_FAILURE_ROWS = 100_000  # ten megabytes of guesses; the oldest go first


class Redo(Exception):
    """What a verb needs is not at hand in this thread: do the whole request again in the store's own."""


class StoreFailed(Exception):
    """The store does not answer, and nothing of what it was asked has happened. Its text is for the log."""


class Standing(NamedTuple):
    """What the database says about a user and one session."""

    password: str | None  # as hash_password makes it; None, and so the next two: there is no such user
    epoch: str | None
    tutorial: bool
    any_user: bool
    pruned: int  # a session that ends no later may have been forgotten
    generation: int | None  # None: the session has no row
    rotated: float
    ended: bool


class _Closing(sqlite3.Connection):
    """A connection that closes when it is forgotten, as a thread's is: Python 3.13 warns of one that does not."""

    def __del__(self) -> None:
        with suppress(sqlite3.Error):
            self.close()


class _OfThread(threading.local):
    """What each thread has to itself."""

    db: sqlite3.Connection | None = None
    read_only = False


class Store:
    """The SQLite file at `path`, made with mode 0600 if there is none. Each thread has a connection of its own."""

    inline_reads = True  # verbs that read take some microseconds: the event loop may call them

    def __init__(self, path: str, clock: Callable[[], float] = time.time) -> None:
        """Raises SettingsError if the file cannot be opened, is no database of ours, or a newer version's."""
        self._path = os.path.abspath(path)
        self._clock = clock
        self._local = _OfThread()
        try:
            with suppress(FileExistsError):  # or SQLite would make it, for everybody to read
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._prepare()
        except (OSError, sqlite3.Error, StoreFailed, ValueError) as error:
            self.close()
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(f"DATABASE {path} cannot be used: {reason}") from None

    def _prepare(self) -> None:
        """Make the tables, if the file is empty; raise ValueError if it is not ours, before anything is written."""
        db = self._connection()
        db.execute("BEGIN")  # one snapshot, since somebody may be making it this moment
        self._is_empty(db)
        db.execute("COMMIT")
        patience = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                db.execute("PRAGMA journal_mode=WAL").fetchall()  # readers and the writer do not wait for each other
                break
            except sqlite3.OperationalError as error:  # here alone SQLite does not wait until others are through
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
                time.sleep(0.01)
        with self._transaction() as db:
            if self._is_empty(db):
                for statement in SCHEMA.split(";\n"):  # `executescript` would commit first
                    db.execute(statement)

    @staticmethod
    def _is_empty(db: sqlite3.Connection) -> bool:
        """Tell whether there is nothing in the file; raise ValueError if there is something that is not ours."""
        pragmas = ("application_id", "user_version")
        identity, version = (db.execute(f"PRAGMA {name}").fetchall()[0][0] for name in pragmas)
        ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if tables and identity != APPLICATION_ID:
            raise ValueError("it is another program's database")
        if tables and version != SCHEMA_VERSION:
            raise ValueError(f"another version of minijwt has written it (schema {version}): use that one")
        return not tables

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        db = self._local.db
        if db is None:
            patience = 0 if self._local.read_only else BUSY_SECONDS
            try:
                db = sqlite3.connect(
                    self._path, timeout=patience, isolation_level=None, check_same_thread=False, factory=_Closing
                )
                db.execute("PRAGMA synchronous=FULL")  # what was answered survives a power cut
            except sqlite3.Error as error:
                raise StoreFailed(str(error)) from None
            self._local.db = db
        return db

    def close(self) -> None:
        """Close this thread's connection; the next verb opens another."""
        db, self._local.db = self._local.db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def read_only(self) -> None:
        """From now on, this thread does not wait and does not write: a verb that would raises Redo."""
        self.close()
        self._local.read_only = True

    def _rows(self, statement: str, *values: object) -> list[Any]:
        """Return all rows that `statement` selects: to the end, since an open cursor holds on to an old snapshot."""
        db = self._connection()
        try:
            return db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if self._local.read_only or not db.in_transaction:  # else a transaction that writes is still whole
                self.close()  # begin anew with a new connection
            raise StoreFailed(str(error)) from None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Within it, a read-only thread reads the database of one moment, for the price of one lock."""
        with suppress(sqlite3.Error, StoreFailed):  # what is wrong will be said by what is read
            self._connection().execute("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error, StoreFailed):
                self._connection().execute("ROLLBACK")  # there is nothing to commit

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing: in a transaction, or as part of the one that is open."""
        if self._local.read_only:
            raise Redo
        db = self._connection()
        if db.in_transaction:  # within `group`
            yield db
            return
        try:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                if db.in_transaction:  # some faults, a full disk for one, have ended it already
                    db.execute("ROLLBACK")
            self.close()  # begin anew with a new connection
            if isinstance(error, sqlite3.Error):
                raise StoreFailed(str(error)) from None
            raise

    def _changed(self, statement: str, *values: object) -> bool:
        """Execute a `statement` that writes; return whether there was a row for it. One that fails changes nothing."""
        with self._transaction() as db:
            return db.execute(statement, values).rowcount == 1

    def group(self, works: Iterable[Callable[[], Any]]) -> list[Any]:
        """Do all `works` in one transaction, with one commit; each of their statements stands or falls by itself.

        Raises StoreFailed if nothing of it was kept.
        """
        done = []
        with self._transaction() as db:
            for work in works:
                done.append(work())
                if not db.in_transaction:  # or the next ones would commit by themselves, and be answered 503
                    raise StoreFailed("the transaction was lost")
            self._prune(db)
        return done

    # -- users

    def names(self) -> list[str]:
        """Return the names of all users, in order."""
        return [name for (name,) in self._rows("SELECT name FROM user ORDER BY name")]

    def add_user(self, name: str, password: str, epoch: str, tutorial: bool) -> bool:
        """Make the user `name`; return False if there is one already."""
        return self._changed("INSERT OR IGNORE INTO user VALUES (?, ?, ?, ?)", name, password, epoch, tutorial)

    def change_password(self, name: str, password: str, epoch: str) -> bool:
        """Give the user `name` another password, and end all sessions; return whether there is such a user."""
        statement = "UPDATE user SET password = ?, epoch = ?, tutorial = 0 WHERE name = ?"
        return self._changed(statement, password, epoch, name)

    def rehash(self, name: str, old: str, password: str) -> None:
        """Replace the stored password `old` by `password`, unless it was changed meanwhile."""
        self._changed("UPDATE user SET password = ? WHERE name = ? AND password = ?", password, name, old)

    def new_epoch(self, name: str, epoch: str) -> bool:
        """End all sessions of the user `name`; return whether there is one."""
        return self._changed("UPDATE user SET epoch = ?, tutorial = 0 WHERE name = ?", epoch, name)

    def remove_user(self, name: str) -> bool:
        """Delete the user `name`; return whether there was one."""
        return self._changed("DELETE FROM user WHERE name = ?", name)

    # -- sessions

    def standing(self, name: str, sid: str) -> Standing:
        """Return what is known of the user `name` and the session `sid`, in one look."""
        (row,) = self._rows(
            "SELECT password, epoch, tutorial, EXISTS (SELECT 1 FROM user), latest, generation, rotated, ended"
            " FROM pruned LEFT JOIN user ON name = ? LEFT JOIN session ON sid = ?",
            name,
            sid,
        )
        return Standing(*row)

    def begin(self, sid: str, expires: int) -> None:
        """Give a new session a row, so that it is not taken for one that was forgotten."""
        self._changed("INSERT INTO session VALUES (?, 0, 0, 0, ?)", sid, expires)

    def advance(self, sid: str, generation: int, expires: int, now: float) -> bool:
        """Turn `generation` of a living session into the next; return False if it is not the newest any more."""
        return self._changed(
            "INSERT INTO session (sid, generation, rotated, ended, expires) VALUES (?, ?, ?, 0, ?)"
            " ON CONFLICT (sid) DO UPDATE SET generation = excluded.generation, rotated = excluded.rotated"
            " WHERE generation = excluded.generation - 1 AND NOT ended",
            sid, generation + 1, now, expires,
        )  # fmt: skip

    def end(self, sid: str, expires: int) -> None:
        """End a session: for good, whatever races with it."""
        self._changed(
            "INSERT INTO session (sid, generation, rotated, ended, expires) VALUES (?, 0, 0, 1, ?)"
            " ON CONFLICT (sid) DO UPDATE SET ended = 1",
            sid, expires,
        )  # fmt: skip

    def _prune(self, db: sqlite3.Connection) -> None:
        """Forget a few sessions that have expired, and remember that this was done."""
        gone = db.execute("SELECT sid, expires FROM session WHERE expires <= ? ORDER BY expires LIMIT ?",
                          (int(self._clock()), PRUNE_ROWS)).fetchall()  # fmt: skip
        if gone:
            db.executemany("DELETE FROM session WHERE sid = ?", [(sid,) for sid, _ in gone])
            db.execute("UPDATE pruned SET latest = max(latest, ?)", (gone[-1][1],))

    # -- failures

    def admit(self, key: bytes, now: float, limit: int) -> float:
        """Count an attempt to log in, before it is looked at: return 0 if it may go on, else the seconds to wait.

        Nobody else writes between its statements, so parallel guesses gain nothing. From the attempt number `limit` on,
        each makes the next one wait: FIRST_WAIT_SECONDS, doubled each time, up to LAST_WAIT_SECONDS.
        """
        with self._transaction() as db:
            known = "SELECT attempts, next FROM failure WHERE key = ? AND expires > ?"
            rows = db.execute(known, (key, now)).fetchall()
            attempts, until = rows[0] if rows else (0, 0)
            if now < until <= now + LAST_WAIT_SECONDS:  # a longer wait is of a clock that went back: it binds nobody
                return float(until) - now
            doublings = attempts + 1 - limit
            wait = min(FIRST_WAIT_SECONDS << min(doublings, 20), LAST_WAIT_SECONDS) if doublings >= 0 else 0
            counted = (key, attempts + 1, now + wait if wait else 0, now + FORGET_SECONDS)
            db.execute("REPLACE INTO failure (key, attempts, next, expires) VALUES (?, ?, ?, ?)", counted)
            # One bound for `expires`, so that the index finds them: with an OR, every row would be looked at
            db.execute(
                "DELETE FROM failure WHERE key IN (SELECT key FROM failure WHERE expires <="
                " iif((SELECT count(*) FROM failure) > ?, 9e99, ?) ORDER BY expires LIMIT 2)", (MAX_FAILURE_ROWS, now),
            )  # fmt: skip
            return 0

    def forgive(self, key: bytes) -> None:
        """Forget the failures of `key`."""
        self._changed("DELETE FROM failure WHERE key = ?", key)


# ---- Accounts --------------------------------------------------------------------------------------------
# The rules: who may log in, and what a refresh token is worth. The only caller of minijwt. Knows no HTTP.

DEMO_EPOCH = "demo"  # of the demo user, who is in no database
GRACE_SECONDS = 30.0  # two tabs at once, or a lost answer: how long a refresh token's parent is forgiven
MAX_COOKIES = 8  # refresh tokens of one request that are looked at: a planted cookie or two must not hide ours
SID_BYTES, EPOCH_BYTES = 16, 8

_SESSION_CLAIMS = {"username", "sid", "gen", "epoch", "iat", "exp"}
_TUTORIAL_CLAIMS = {"username", "iat", "exp"}  # what the tutorial's own app signs, and nothing more


class Refused(Exception):
    """Wrong credentials, or no good token: `code` says which, for the log; `wait` how many seconds to wait.

    `sid` is None at a login, where there is no session yet, and "" where no token names one.
    """

    def __init__(self, code: str, username: str = "", sid: str | None = None, wait: float = 0) -> None:
        super().__init__(code)
        self.code, self.username, self.sid, self.wait = code, username, sid, wait


class Session:
    """A refresh token whose signature and time are good."""

    def __init__(self, claims: dict[str, Any], token: str) -> None:
        """Raises Refused if `claims`, which `token` spells, are not those of a refresh token."""
        self.claims = claims
        self.epoch: str | None = None
        if claims.keys() == _SESSION_CLAIMS:
            self.sid, self.generation, self.epoch = claims["sid"], claims["gen"], claims["epoch"]
        elif claims.keys() == _TUTORIAL_CLAIMS:  # it has no name of its own: its digest is the session's
            self.sid, self.generation = hashlib.sha256(token.encode()).hexdigest(), 0
        else:
            raise Refused("no_refresh_token", sid="")
        self.username = claims["username"]
        kinds = type(self.username), type(self.sid), type(self.generation), type(claims.get("epoch", ""))
        if kinds != (str, str, int, str) or self.generation < 0:  # exactly: to Python, True is an int as well
            raise Refused("no_refresh_token", sid="")
        self.expires = math.ceil(min(claims["exp"], 2**53))  # for SQLite, which has 64 bits

    def refused(self, code: str) -> Refused:
        """Return the refusal of this session."""
        return Refused(code, self.username, self.sid)

    def successor(self) -> dict[str, Any]:
        """Return the claims of the next refresh token: the same end, so always the same bytes."""
        return {**self.claims, "gen": self.generation + 1}


class Tokens(NamedTuple):
    """What a login or a refresh gives."""

    username: str
    sid: str
    access: str
    refresh: str | None  # None: the one that was presented stays
    expires: int  # of the refresh token, seconds since 1970


def place_of(address: Address) -> bytes:
    """Return where `address` is: of IPv6, a site's /64 is one place, since everybody there has all of it."""
    return b"\6" + address.packed[:8] if address.version == 6 else b"\4" + address.packed


def _failure_key(username: str, address: Address) -> bytes:
    """Return a digest of who tries to log in from where."""
    return hashlib.sha256(place_of(address) + username.encode()).digest()[:16]


def _nfc(text: str, most: int) -> str:
    """Return `text` in NFC, where it has at most `most` bytes; raise Refused if that is more."""
    # NFC takes time that grows with the square of the length, and leaves a third of the bytes at the least
    if len(text.encode()) > 3 * most or len((normal := unicodedata.normalize("NFC", text)).encode()) > most:
        raise Refused("too_long")
    return normal


def _checked_name(name: str) -> str:
    """Return `name` in NFC; raise ValueError if no user can be called that."""
    name = unicodedata.normalize("NFC", name)
    if not name or not name.isprintable() or name != name.strip() or len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"a name has 1 to {MAX_NAME_BYTES} bytes, and no control characters or spaces around it")
    return name


def _checked_password(password: str) -> str:
    """Return `password`; raise ValueError if it cannot be one."""
    if re.search("[\0\ud800-\udfff]", password):  # NUL: see `check_password`; half a pair: no form can send it
        raise ValueError("a password is text, and has no NUL")
    password = unicodedata.normalize("NFC", password)
    if len(password) < MIN_PASSWORD_CHARS:
        raise ValueError(f"a password has at least {MIN_PASSWORD_CHARS} characters")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise ValueError(f"a password has at most {MAX_PASSWORD_BYTES} bytes")
    return password


class Accounts:
    """Users, sessions and their tokens. `clock` returns seconds since 1970, `cost` is that of new passwords."""

    def __init__(
        self, settings: Settings, store: Store, clock: Callable[[], float] = time.time, cost: str = COST
    ) -> None:
        self._settings, self._private = settings, settings.private
        self._store = store
        self._clock = clock
        self._cost = cost

    # -- tokens

    def login(self, username: str, password: str, address: Address) -> Tokens:
        """Return the tokens of a new session; raise Refused if the credentials are wrong, or tried too often."""
        username, password = _nfc(username, MAX_NAME_BYTES), _nfc(password, MAX_PASSWORD_BYTES)
        now = self._clock()
        sid = os.urandom(SID_BYTES).hex()
        user = self._store.standing(username, sid)
        known = username if user.password else ""  # people type passwords there, which must not be logged
        limit, key = self._settings.login_max_failures, _failure_key(username, address)
        if limit and (wait := self._store.admit(key, now, limit)):
            raise Refused("throttled", known, wait=wait)
        stored, epoch = user.password or dummy_password(self._cost), user.epoch
        good = check_password(password, stored)  # the same work whether there is such a user or not
        if self._is_demo_user(username, user):
            good, epoch = hmac.compare_digest(password.encode(), DEMO_PASSWORD.encode()), DEMO_EPOCH
        if not good:
            raise Refused("wrong_credentials", known)
        if limit:
            self._store.forgive(key)
        if user.password and is_weaker(stored, self._cost):
            self._store.rehash(username, stored, hash_password(password, self._cost))
        issued = int(self._clock())
        expires = issued + self._settings.refresh_ttl
        if expires <= user.pruned:  # the clock was ahead, and is not any more
            self._store.begin(sid, expires)
        claims = {"username": username, "sid": sid, "gen": 0, "epoch": epoch, "iat": issued, "exp": expires}
        return self._tokens(claims, sid, issued)

    def refresh(self, tokens: list[str]) -> Tokens:
        """Return a new access token, and while rotation is on a new refresh token, for the session among `tokens`.

        Raises Refused if there is none, or several; and if a token older than the last one turns up: then somebody
        has stolen one or the other, and the session ends for both.
        """
        now = self._clock()
        while True:
            session, standing = self._choose(tokens, now)
            newest = standing.generation or 0
            if session.generation > newest:
                raise session.refused("unknown_generation")
            if session.generation == newest:
                if not self._settings.rotate_refresh:
                    return self._tokens(session.claims, session.sid, int(now), keep=True)
                if self._store.advance(session.sid, newest, session.expires, now):
                    return self._tokens(session.successor(), session.sid, int(now))
                continue  # somebody else was first, and has made our token the parent
            if session.generation == newest - 1 and abs(now - standing.rotated) <= GRACE_SECONDS:
                return self._tokens(session.successor(), session.sid, int(now))
            self._store.end(session.sid, session.expires)
            raise session.refused("reuse_detected")

    def logout(self, tokens: list[str]) -> list[Session]:
        """End every session among `tokens` for good, and return them."""
        sessions, _ = self._sessions(tokens, self._clock())
        for session in sessions:
            self._store.end(session.sid, session.expires)
        return sessions

    def whoami(self, token: str) -> dict[str, Any]:
        """Return the claims of an access token; raise InvalidTokenError if it is not good. Touches no state."""
        claims = self._decode(token, self._settings.access_secrets, self._clock())
        if claims.keys() != {"username", "iat", "exp"}:
            raise minijwt.InvalidTokenError("these are not the claims of an access token")
        return claims

    def explain(self, token: str) -> dict[str, Any]:
        """Return what `minijwt.explain` says of an access token: with the secret that gets it furthest."""
        now = self._clock()
        reports = [minijwt.explain(token, secret, now=now) for secret in self._settings.access_secrets]
        return max(reports, key=lambda report: [step["ok"] for step in report["steps"]].count(True))

    def _tokens(self, claims: dict[str, Any], sid: str, now: int, keep: bool = False) -> Tokens:
        """Return a new access token, and the refresh token with `claims` unless the old one is kept."""
        settings, username = self._settings, claims["username"]
        access = {"username": username, "iat": now, "exp": now + settings.access_ttl}
        refresh = None if keep else minijwt.encode(claims, settings.refresh_secrets[0])
        return Tokens(username, sid, minijwt.encode(access, settings.access_secrets[0]), refresh, claims["exp"])

    @staticmethod
    def _decode(token: str, secrets: tuple[bytes, ...], now: float) -> dict[str, Any]:
        """Return the claims of a token that one of `secrets`, the current or the old one, has signed."""
        for secret in secrets[:-1]:
            with suppress(minijwt.InvalidSignatureError):
                return minijwt.decode(token, secret, now=now)
        return minijwt.decode(token, secrets[-1], now=now)

    def _session(self, token: str, now: float) -> Session:
        """Return the session of a refresh token; raise Refused if it is not good."""
        try:
            return Session(self._decode(token, self._settings.refresh_secrets, now), token)
        except minijwt.InvalidTokenError as error:
            raise Refused(error.code, sid="") from None

    def _sessions(self, tokens: list[str], now: float) -> tuple[list[Session], Refused]:
        """Return the sessions with good tokens, each with its newest, and the refusal of the last bad token."""
        refused = Refused("no_token", sid="")
        newest: dict[str, Session] = {}
        for token in tokens[:MAX_COOKIES]:
            try:
                session = self._session(token, now)
            except Refused as error:
                refused = error  # somebody else's cookie: it neither counts nor hides ours
                continue
            if session.sid not in newest or newest[session.sid].generation < session.generation:
                newest[session.sid] = session
        return list(newest.values()), refused

    def _choose(self, tokens: list[str], now: float) -> tuple[Session, Standing]:
        """Return the one living session among `tokens`; raise Refused if there is none, or more than one."""
        if len(tokens) == 1:
            session = self._session(tokens[0], now)
            return session, self._standing(session)
        sessions, refused = self._sessions(tokens, now)
        living = []
        for session in sessions:
            try:
                living.append((session, self._standing(session)))
            except Refused as error:
                refused = error
        if len(living) > 1:
            raise Refused("several_sessions", sid="")
        if not living:
            raise refused
        return living[0]

    def _standing(self, session: Session) -> Standing:
        """Look `session` up; raise Refused if it has ended: by itself, with all of its user's, or with its user."""
        standing = self._store.standing(session.username, session.sid)
        epoch, tutorial = standing.epoch, standing.tutorial
        if self._is_demo_user(session.username, standing):
            epoch, tutorial = DEMO_EPOCH, True
        if epoch is None:
            raise session.refused("no_user")
        if session.epoch is None:
            if not tutorial or self._settings.rotate_refresh:
                raise session.refused("tutorial_token")
        elif session.epoch != epoch:
            raise session.refused("sessions_ended")
        if standing.ended:
            raise session.refused("session_ended")
        if standing.generation is None and session.expires <= standing.pruned:  # the clock went forward and back
            raise session.refused("session_forgotten")
        return standing

    def _is_demo_user(self, username: str, standing: Standing) -> bool:
        """Tell whether this is the demo user, who exists on a private server that has no user of its own."""
        return username == DEMO_USERNAME and self._private and not standing.any_user

    # -- users

    def add_user(self, name: str, password: str, tutorial: bool = False) -> None:
        """Make a user; raise ValueError, one sentence, if the name or the password cannot be."""
        name, stored = _checked_name(name), hash_password(_checked_password(password), self._cost)
        if not self._store.add_user(name, stored, self._epoch(), tutorial):
            raise ValueError(f"there is a user {name} already: `user passwd` changes the password")

    def change_password(self, name: str, password: str) -> None:
        """Give a user a new password, and end all of the user's sessions."""
        name, stored = _checked_name(name), hash_password(_checked_password(password), self._cost)
        if not self._store.change_password(name, stored, self._epoch()):
            raise ValueError(f"there is no user {name}")

    def end_sessions(self, name: str) -> None:
        """End all sessions of a user."""
        if not self._store.new_epoch(_checked_name(name), self._epoch()):
            raise ValueError(f"there is no user {name}")

    def remove_user(self, name: str) -> None:
        """Remove a user, and so end all sessions."""
        if not self._store.remove_user(_checked_name(name)):
            raise ValueError(f"there is no user {name}")

    @staticmethod
    def _epoch() -> str:
        return os.urandom(EPOCH_BYTES).hex()


# ---- Log -------------------------------------------------------------------------------------------------
# One line of key=value for each thing that an operator may have to know. Never a token, a password or a secret.

LOG_FORMAT = "%(levelname)s: %(message)s"  # of what nobody foresaw: a fault of ours, with its traceback
MAX_VALUE_CHARS = 64
MAX_WAITING_LINES = 1_000  # then lines are dropped, and counted: whoever does not read the log must not stop the server


class Event(NamedTuple):
    """Something for the log."""

    name: str
    fields: Mapping[str, str]


def log_line(now: float, event: Event) -> str:
    """Return `event` as one line of ASCII: its time in UTC, its name, its fields; quoted where they need it."""
    words = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)), event.name]
    for name, value in event.fields.items():
        text = value[:MAX_VALUE_CHARS].encode("unicode_escape").decode("ascii").replace('"', '\\"')
        words.append(f'{name}="{text}"' if re.search('[ "=]', text) or not text else f"{name}={text}")
    return " ".join(words)


class Log:
    """Writes events to `stream` from a thread of its own: a slow log reader must not stall the server.

    `stream` is a raw binary file. It has no buffer, and so no lock: the lock of `sys.stderr`, held by a thread that
    waits for a full pipe, would stall every other thread that has something to say, and the end of the process.
    """

    def __init__(self, stream: RawIOBase, clock: Callable[[], float] = time.time) -> None:
        self._stream, self._clock = stream, clock
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take `event`; never waits."""
        self.write(log_line(self._clock(), event))

    def write(self, text: str) -> None:
        """Take a line. With this and `flush` a Log stands in for `sys.stderr`, where Python reports what it finds."""
        line = text.rstrip("\n")
        if not line:
            return
        try:
            if self._dropped:
                lost = Event("log", {"dropped": str(self._dropped)})
                self._lines.put_nowait(log_line(self._clock(), lost))
                self._dropped = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Do nothing: a line is written as soon as the reader takes it."""

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            rest = f"{line}\n".encode("utf-8", "backslashreplace")
            with suppress(OSError, ValueError):  # the reader has gone
                while rest and (written := self._stream.write(rest)):  # None: it takes nothing now, and would not wait
                    rest = rest[written:]

    def close(self, seconds: float = 1.0) -> None:
        """Write what is waiting, if that does not take longer than `seconds`."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=seconds)
            self._thread.join(seconds)


def raw_stderr() -> RawIOBase:
    """Return standard error without Python's buffer; the null device where there is none, as in a detached process."""
    return open(os.devnull if sys.stderr is None else sys.stderr.fileno(), "wb", 0, closefd=sys.stderr is None)


# ---- Messages --------------------------------------------------------------------------------------------
# Bytes to Request, Response to bytes (RFC 9110, RFC 9112). Does no I/O: whoever has bytes hands them in.

MAX_LINE_BYTES = 8_192  # a request line or a field: RFC 9112 §3 wants 8,000 at least
MAX_HEAD_BYTES = 32_768  # of all of them: eight cookie jars of 4 KB
MAX_FIELDS = 100  # a browser sends about twenty
MAX_BODY_BYTES = 16_384  # a login form needs about a hundred
MAX_PAIRS = 200  # fields of a form, cookies of a request; more are only there to keep us busy


class HTTPError(Exception):
    """An answer that says no, with a sentence for people and a stable code for programs."""

    def __init__(
        self, status: int, code: str, message: str, *fields: tuple[str, str], events: tuple[Event, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fields, self.events = status, code, message, fields, events


def _malformed(code: str, message: str) -> HTTPError:
    return HTTPError(HTTPStatus.BAD_REQUEST, code, message)


NO_ADDRESS = ipaddress.IPv4Address(0)


def parse_address(text: str) -> Address | None:
    """Return the address that `text` spells, an IPv4 one if it is mapped into IPv6; None if it spells none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Request(NamedTuple):
    """One whole request."""

    method: str
    path: str  # without the query, which no endpoint looks at
    fields: dict[bytes, bytes]
    body: bytes = b""
    keep_alive: bool = True
    version: bytes = b"HTTP/1.1"
    client: Address = NO_ADDRESS  # who sent it: the peer, or what a trusted proxy says


STRICT_POLICY = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"  # of every answer but the page


class Response(NamedTuple):
    """One whole answer, but for what every answer has."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()
    events: tuple[Event, ...] = ()  # for the log, once the answer is final
    policy: str = STRICT_POLICY  # Content-Security-Policy


# RFC 9110 §5.6.2: what a method and a field's name consist of
_TCHAR = re.escape(rb"!#$%&'*+-.^_`|~") + b"0-9A-Za-z"
_REQUEST_LINE = re.compile(rb"[%b]+ [!-~\x80-\xff]+ (HTTP/[0-9]\.[0-9])" % _TCHAR)  # RFC 9112 §3
# A whole head without its last CR LF (RFC 9112 §2, §3, §5). No line is folded, no white space stands before a colon:
# to one server that would be a field, and to the next one none.
_HEAD = re.compile(
    rb"([%b]+) ([!-~\x80-\xff]+) (HTTP/1\.[0-9])((?:\r\n[%b]+:[\t -~\x80-\xff]*)*)" % (_TCHAR, _TCHAR)
)
# What no head may hold. About a bare CR or LF two servers disagree how many requests they see (RFC 9112 §2.2, §11.2).
_CONTROL = re.compile(rb"[^\t\r\n -~\x80-\xff]|\r(?!\n|\Z)|(?<!\r)\n")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
# RFC 9110 §7.2, without percent-encoding and sub-delims
_HOST_FIELD = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(?i:https?)://(" + _HOST_FIELD.pattern + rb")(/[^?]*)?(?:\?.*)?")  # RFC 3986 §3


def _check_beginning(head: bytes) -> None:
    """Raise HTTPError if `head` begins with something that no valid head does.

    Of several faults it is the first that a server would meet that reads byte by byte.
    """
    control, end = _CONTROL.search(head), head.find(b"\r\n")
    fault = _malformed("control_character", "A control character, or a line that does not end in CR LF.")
    if control and (end < 0 or control.start() <= end):
        raise fault
    if 0 <= end <= MAX_LINE_BYTES:
        line = _REQUEST_LINE.fullmatch(head, 0, end)
        if not line:
            raise _malformed("malformed_request_line", "The request line is not of the form METHOD TARGET HTTP/1.1.")
        if not line[1].startswith(b"HTTP/1."):
            raise HTTPError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "http_version", "This is HTTP/1.1 and HTTP/1.0.")
    if control:
        raise fault


def _check_size(head: bytes) -> None:
    """Raise HTTPError for a head that is too large."""
    lines = head.split(b"\r\n")
    if len(lines[0]) > MAX_LINE_BYTES:
        raise HTTPError(HTTPStatus.REQUEST_URI_TOO_LONG, "line_too_long", "The request line is too long.")
    if len(head) > MAX_HEAD_BYTES or len(lines) > MAX_FIELDS + 1 or max(map(len, lines)) > MAX_LINE_BYTES:
        raise HTTPError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The header is too large.")


def _parse_fields(lines: bytes) -> dict[bytes, bytes]:
    """Return the header fields in `lines`, each of which begins with CR LF.

    Several with one name are joined (RFC 9110 §5.3, RFC 9113 §8.2.3).
    """
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in fields:
            value = fields[name] + (b"; " if name == b"cookie" else b", ") + value
        fields[name] = value
    return fields


def _content_length(fields: Mapping[bytes, bytes]) -> int:
    """Return how many bytes the body has (RFC 9112 §6.3); raise HTTPError unless that is beyond doubt."""
    if b"transfer-encoding" in fields:  # RFC 9112 §6.1: never followed, so never a source of smuggled requests
        if fields[b"transfer-encoding"].lower() == b"chunked" and b"content-length" not in fields:
            raise HTTPError(HTTPStatus.LENGTH_REQUIRED, "length_required", "Send a Content-Length, not chunks.")
        raise _malformed("transfer_encoding", "Transfer-Encoding is not supported.")
    if b"content-length" not in fields:
        return 0
    length = fields[b"content-length"]
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


def _check_host(fields: Mapping[bytes, bytes], version: bytes) -> None:
    """Raise HTTPError unless there is exactly one valid Host (RFC 9112 §3.2); HTTP/1.0 may do without."""
    host = fields.get(b"host", b"")  # two have been joined by a comma, which is not valid
    bad = not _HOST_FIELD.fullmatch(host)
    bad = bad or (host[:1] == b"[" and not parse_address(host[1:].decode().partition("]")[0]))
    if bad and (version != b"HTTP/1.0" or b"host" in fields):
        raise _malformed("host", "There must be exactly one valid Host.")


def _path(target: bytes, method: bytes, fields: dict[bytes, bytes]) -> str:
    """Return the path in a request's target (RFC 9112 §3.2), without its query."""
    if target[:1] != b"/" and (match := _ABSOLUTE.fullmatch(target)):  # absolute-form, as to a proxy
        fields[b"host"], target = match[1], match[2] or b"/"  # §3.2.2: Host is ignored
        _check_host(fields, b"HTTP/1.1")
    if target[:1] != b"/" and (target, method) != (b"*", b"OPTIONS") and method != b"CONNECT" or b"#" in target:
        raise _malformed("malformed_target", "The target of the request is not a path.")
    return target.partition(b"?")[0].decode("latin-1")


def _check_expect(fields: Mapping[bytes, bytes], version: bytes) -> None:
    """Raise HTTPError if the client expects what we do not know (RFC 9110 §10.1.1); HTTP/1.0 cannot expect a thing."""
    if fields.get(b"expect", b"100-continue").lower() != b"100-continue" and version != b"HTTP/1.0":
        raise HTTPError(HTTPStatus.EXPECTATION_FAILED, "expectation", "The only expectation known is 100-continue.")


def _keeps_alive(fields: Mapping[bytes, bytes], version: bytes) -> bool:
    """Tell whether the connection stays open after the answer (RFC 9112 §9.3)."""
    if b"connection" not in fields:
        return version != b"HTTP/1.0"
    options = [option.strip(b" \t") for option in fields[b"connection"].lower().split(b",")]
    return b"close" not in options and (version != b"HTTP/1.0" or b"keep-alive" in options)


def client_address(fields: Mapping[bytes, bytes], peer: Address, trusted: tuple[Network, ...]) -> Address:
    """Return who sent a request with `fields`: the peer, or what trusted proxies say of whom they speak for.

    X-Forwarded-For is walked from the right, where the last proxy wrote; the first address that is not trusted counts.
    """
    if not any(peer in network for network in trusted):
        return peer
    for hop in reversed(fields.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
        address = parse_address(hop.strip(" \t"))
        if address is None:
            break
        if not any(address in network for network in trusted):
            return address
    return peer


def parse_head(head: bytes, peer: Address = NO_ADDRESS, trusted: tuple[Network, ...] = ()) -> tuple[Request, int]:
    """Return the request whose head, without the empty line, is `head`, and the length of the body to come.

    Raises HTTPError if it is malformed, too large, or ambiguous about where it ends.
    """
    match = _HEAD.fullmatch(head)
    if not match or len(head) > MAX_LINE_BYTES or head.count(b"\r\n") > MAX_FIELDS:
        _check_beginning(head + b"\r\n")
        _check_size(head)
    if not match:
        raise _malformed("malformed_field", "A header line is not of the form NAME: VALUE.")
    method, target, version, lines = match.groups()
    fields = _parse_fields(lines)
    _check_host(fields, version)
    length = _content_length(fields)
    _check_expect(fields, version)
    path = _path(target, method, fields)
    keep_alive = method != b"CONNECT" and _keeps_alive(fields, version)  # else what it sends into its tunnel
    client = client_address(fields, peer, trusted) if trusted else peer
    return Request(method.decode("ascii"), path, fields, b"", keep_alive, version, client), length


class Framer:
    """Cuts bytes into requests: `receive` takes what arrives, `next_request` gives what is whole.

    `peer` is the address at the other end of the connection; what it says of others counts if it is in `trusted`.
    """

    def __init__(self, peer: Address = NO_ADDRESS, trusted: tuple[Network, ...] = ()) -> None:
        self.peer, self._trusted = peer, trusted
        # What has arrived; where in it the next request begins, and how far its head has been looked at already. So
        # nothing moves when a request is taken from the front, and no byte of a head that trickles in is read twice.
        self._buffer, self._start, self._checked = b"", 0, 0
        self._head: tuple[Request, int] | None = None  # parsed; its body is not here yet

    def receive(self, data: bytes) -> None:
        """Add `data` to what has arrived."""
        self._buffer = self._buffer[self._start :] + data
        self._checked, self._start = max(0, self._checked - self._start), 0
        self._skip_empty_lines()

    def _skip_empty_lines(self) -> None:
        """Skip empty lines before a request (RFC 9112 §2.2); forget a buffer that is used up."""
        if self._head is None and (empty := _EMPTY_LINES.match(self._buffer, self._start)):
            self._start = empty.end()
        if self._start == len(self._buffer):
            self._buffer, self._start, self._checked = b"", 0, 0

    @property
    def busy(self) -> bool:
        """Whether part of a request is here, and the rest is not."""
        return bool(self._buffer) or self._head is not None

    @property
    def in_body(self) -> bool:
        """Whether that part is at least its head."""
        return self._head is not None

    def next_request(self) -> Request | None:
        """Return the next request if all of it is here, else None.

        Raises HTTPError if it is malformed; then nothing that follows can be read.
        """
        buffer, start = self._buffer, self._start
        if self._head is None:
            if not buffer:
                return None
            end = buffer.find(b"\r\n\r\n", max(start, self._checked - 3), start + MAX_HEAD_BYTES + 4)
            if end < 0:
                self._reject_early()
                return None
            self._head = parse_head(buffer[start:end], self.peer, self._trusted)
            self._start = start = end + 4
        request, length = self._head
        if len(buffer) - start < length:
            return None
        if length:
            request = request._replace(body=buffer[start : start + length])
        self._head, self._start, self._checked = None, start + length, start + length
        self._skip_empty_lines()
        return request

    def _reject_early(self) -> None:
        """Raise HTTPError for what can never become a valid head. What is only too large is read to its end first."""
        buffer, start, checked = self._buffer, self._start, self._checked
        end = buffer.find(b"\r\n", start)
        if end >= checked - 1 or _CONTROL.search(buffer, max(start, checked - 1)):
            _check_beginning(buffer[start : start + MAX_HEAD_BYTES + 1])
        if len(buffer) - start > MAX_HEAD_BYTES:  # the end of it may be half of the head's end
            _check_size(buffer[start:].removesuffix(b"\r").removesuffix(b"\r\n"))
        self._checked = len(buffer)

    def expecting(self) -> Request | None:
        """Return, once, the head of a request whose client waits for a word before it sends the body."""
        if self._head is None or len(self._buffer) > self._start:
            return None
        head = self._head[0]
        return head if head.fields.pop(b"expect", b"") and head.version != b"HTTP/1.0" else None

    def begun(self) -> Request:
        """Return what is known of a request that is refused or not whole."""
        if self._head:
            return self._head[0]
        head = self._buffer[self._start : self._start + MAX_HEAD_BYTES + 4].partition(b"\r\n\r\n")[0]
        match = _HEAD.match(head)
        if not match:
            # RFC 9110 §9.3.2: no answer to HEAD has a body
            return Request("HEAD" if head.startswith(b"HEAD ") else "unknown", "unknown", {}, client=self.peer)
        method, target, version, lines = match.groups()
        fields, path = _parse_fields(lines), target.partition(b"?")[0].decode("latin-1")
        return Request(method.decode("ascii"), path, fields, b"", False, version, self.peer)


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


def _unescape(text: bytes) -> str:
    """Decode one name or value of a form; a % that escapes nothing stands for itself. ValueError unless UTF-8."""
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text.replace(b"+", b" ")).decode("utf-8")


def parse_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form body (WHATWG URL §5.1), each with its values; ValueError if it is not one."""
    kind, _, parameters = request.fields.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.translate(None, b' \t"')
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


@lru_cache(maxsize=2)
def _common_fields(second: int) -> str:
    """Return the fields of every response in the `second` since 1970 that Date names (RFC 9110 §6.6.1)."""
    return (
        f"Date: {formatdate(second, usegmt=True)}\r\n"
        "Cache-Control: no-store\r\n"  # RFC 6749 §5.1
        "X-Content-Type-Options: nosniff\r\n"
        "Referrer-Policy: no-referrer\r\n"
    )


def render(response: Response, request: Request, keep_alive: bool, now: float) -> bytes:
    """Return `response` as the answer to `request` at the time `now`, ready to be sent: every answer is made here."""
    status, body, content_type, fields, _, policy = response
    # RFC 9110 §8.6: 204 has no Content-Length
    content = "" if status == 204 else f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    for name, value in fields:
        # A line end would split the answer in two
        if not (value.isascii() and value.isprintable()):
            raise ValueError("a control character in a header field")
        content += f"{name}: {value}\r\n"
    if not keep_alive:
        content += "Connection: close\r\n"
    elif request.version == b"HTTP/1.0":
        content += "Connection: keep-alive\r\n"
    policy = f"Content-Security-Policy: {policy}\r\n"
    head = f"{_STATUS_LINES[status]}{content}{policy}{_common_fields(int(now))}\r\n".encode("ascii")
    return head if request.method == "HEAD" else head + body


# ---- Page ------------------------------------------------------------------------------------------------
# What a browser is shown: one constant, sent as it stands here. It knows of the server what any client knows.

PAGE = r"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>minijwt: a token, taken apart</title>
<style>
/* Each part of a token has its hue, wherever it shows up: in the token, decoded, and among the checks. */
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #fff; --ink: #1d1d22; --faint: #62626b; --line: #dcdad4; --good: #17692c; --bad: #b3191b;
  --header: #964300; --payload: #8a1c84; --signature: #005c99;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131418; --card: #1c1e24; --ink: #e9e9ee; --faint: #a0a2ad; --line: #383b45; --good: #7fd695;
    --bad: #ff8a85; --header: #ffb066; --payload: #f09be6; --signature: #7cc4ff;
  }
}
[data-part=header] { --hue: var(--header) }
[data-part=payload] { --hue: var(--payload) }
[data-part=signature] { --hue: var(--signature) }
[data-lit=header] [data-part=header], [data-lit=payload] [data-part=payload],
[data-lit=signature] [data-part=signature] { background: color-mix(in srgb, var(--hue) 14%, var(--card)) }
[data-session=on] #login, [data-session=off] :is(#session, main), #notice:empty { display: none }

* { box-sizing: border-box; margin: 0 }
body { max-width: 74rem; margin: auto; padding: 1.5rem clamp(1rem, 3vw, 2rem) 3rem }
body { background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; line-height: 1.25 }
h2, h3 { font-size: 1rem }
small, .note { color: var(--faint); font-size: .875rem; font-weight: normal }
section, form { margin-top: 1rem; padding: 1rem 1.25rem; border: 1px solid var(--line); background: var(--card) }
section, form, input, textarea, button { border-radius: .5rem }
#notice { margin-top: 1rem; padding: 0 1.25rem; border-left: .25rem solid var(--bad) }
input, textarea, button { padding: .4rem .75rem; border: 1px solid var(--faint); background: none; color: inherit }
input, textarea, button { font: inherit }
input[name], progress, .part textarea { display: block; width: 100% }
input::placeholder { color: var(--faint); font-size: .8125rem; opacity: 1 }
button { cursor: pointer }
button:disabled { border-color: var(--line); color: var(--faint); cursor: default }
button[type=submit] { background: var(--ink); color: var(--card) }
progress { height: .5rem; accent-color: var(--signature) }
:focus-visible { outline: 3px solid var(--signature); outline-offset: 2px }
h2:focus { outline: none }

form, .row { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; align-items: end }
.row { align-items: center }
form > p { flex: 1 0 100% }
form > label { flex: 1 1 16rem }
.row > :is(p, label:first-of-type) { flex: 1 1 18rem }
@media (max-width: 30rem) { form > label, .row > :is(h2, label) { flex: 1 0 100% } }

/* The token is a field with transparent letters; beneath it stand the same letters, coloured. */
code, pre, textarea, #bytes { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.stack { display: grid; margin: .5rem 0; font-size: 1.125rem }
.stack > * { grid-area: 1 / 1; padding: .75rem; border: 1px solid var(--faint); resize: none; overflow: hidden }
.stack > * { white-space: pre-wrap; line-break: anywhere; overflow-wrap: anywhere }
.stack > pre { border-color: transparent; font-size: inherit }
.stack > textarea { color: transparent; caret-color: var(--ink) }
.stack > textarea::selection { background: var(--ink); color: var(--card) }
@media (forced-colors: active) { .stack > pre { visibility: hidden } }
mark { background: var(--bad); color: var(--card) }
code > span, pre > span, .part :is(h3, textarea, #bytes) { color: var(--hue) }

#parts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 1rem }
.part { margin-top: .5rem; padding: .5rem .75rem; border-left: .25rem solid var(--hue) }
.part textarea { margin: .25rem 0; border-color: var(--line); resize: vertical }
#bytes { padding: .4rem 0; overflow-wrap: anywhere }
#times { white-space: pre-line }

ol { margin-top: .5rem; padding: 0; list-style: none; font-size: .9375rem }
li { padding: .25rem 0; border-top: 1px solid var(--line) }
#trace li { display: grid; grid-template-columns: 1rem 1fr auto; gap: 0 .75rem; padding-inline: .75rem }
#trace li { border-left: .25rem solid var(--hue, var(--line)) }
#trace b { color: var(--hue) }
#trace li > :nth-child(n + 4) { grid-column: 2 / -1 }
#trace :is(.skipped, .skipped b, li > :nth-child(3)) { color: var(--faint); font-weight: normal }
#trace .failed { border-left-color: var(--bad); background: color-mix(in srgb, var(--bad) 12%, var(--card)) }
#verdict, .failed > :last-child { font-weight: bold }
p.passed, .passed > :first-child { color: var(--good) }
p.failed, #trace .failed > :is(b, :first-child, :last-child) { color: var(--bad) }
@media (min-width: 60rem) {
  #trace li { grid-template-columns: 1rem 5.5rem 8rem 1fr 15.5rem }
  #trace li > :nth-child(n + 4) { grid-column: auto }
}
</style>

<body data-session="off">
<header>
  <h1>A JSON Web Token, taken apart</h1>
  <p><code><span data-part="header">header</span>.<span data-part="payload">payload</span>.<span
    data-part="signature">signature</span></code> <span class="note">signed, not secret: anybody can read it and change
    it, but a change counts only if it comes from somebody who has the key</span></p>
</header>
<noscript>All of this is done by a script.</noscript>
<p id="notice" role="alert"></p>
<form id="login">
  <p>Signing in brings two tokens. The <b>access token</b> comes to this script, which keeps it in a variable and shows
    it. The <b>refresh token</b> comes in an HttpOnly cookie: the browser keeps it and sends it, no script sees it.</p>
  <label>User name <input name="username" placeholder="demo: admin" autocomplete="username" autocapitalize="none"
    required></label>
  <label>Password <input name="password" placeholder="admin123, while there is no other user" type="password"
    autocomplete="current-password" required></label>
  <button type="submit">Sign in</button>
  <button type="button" id="resume">Continue an earlier session</button>
</form>
<section id="session" class="row">
  <h2 id="who" tabindex="-1"></h2>
  <label><span id="countdown"></span> <progress id="left"></progress></label>
  <label><input type="checkbox" id="automatic" checked> refresh before that</label>
  <button id="refresh">Refresh now</button>
  <button id="logout">Log out</button>
</section>
<section role="log" aria-labelledby="happened">
  <h2 id="happened">What just happened</h2>
  <ol id="log" role="list"><li><b>GET / → 200</b> This page, and nothing else from anywhere.</li></ol>
</section>
<main>
  <section>
    <h2><label for="token">The access token</label></h2>
    <div class="stack">
      <pre id="mirror" aria-hidden="true"></pre>
      <textarea id="token" maxlength="8000" spellcheck="false" autocomplete="off" autocapitalize="off"></textarea>
    </div>
    <div class="row">
      <p class="note">Change any character, here or in what it says. A changed header or claim is encoded again,
        which takes no secret: it is only base64url. The signature stays what it was, and does not fit any more.</p>
      <button id="restore">Restore</button>
    </div>
    <div id="parts">
      <div class="part" data-part="header">
        <h3><label for="header">Header</label> <small>which algorithm was used</small></h3>
        <textarea id="header" maxlength="8000" spellcheck="false"></textarea>
      </div>
      <div class="part" data-part="payload">
        <h3><label for="payload">Claims</label> <small>what it says</small></h3>
        <textarea id="payload" maxlength="8000" spellcheck="false" aria-describedby="times"></textarea>
        <p class="note" id="times"></p>
      </div>
      <div class="part" data-part="signature">
        <h3>Signature <small>who says it</small></h3>
        <p id="bytes"></p>
        <p class="note">HMAC-SHA256 of all that stands before it, with a key that only the server has</p>
      </div>
    </div>
  </section>
  <section>
    <h2>What the server checks, one after the other</h2>
    <p id="verdict" role="status"></p>
    <ol id="trace" role="list"></ol>
  </section>
</main>

<script>
"use strict";
// token: the text in the field, as it was issued or as somebody has changed it. part: header, payload or signature.
// segment: the text of a part. Whatever is shown goes into the page as text, never as HTML.
const PARTS = ["header", "payload", "signature"];
const PART_OF = {shape: "", header: "header", algorithm: "header", signature: "signature"};  // of a check; else payload
const EDIT_MS = 150, TICK_MS = 250, RETRY_MS = 10_000;  // after the last key; of the countdown; after a failed refresh
const leadSeconds = lifetime => Math.min(30, lifetime / 5);  // how long before its end a token is refreshed
const NO_COOKIE = "The browser has not kept the refresh token, most likely because its cookie is marked Secure and"
  + " this page came over plain HTTP, where browsers allow that on localhost at most. Set TLS_CERT and TLS_KEY; on a"
  + " server that only its own machine can reach, COOKIE_SECURE=off and COOKIE_SAMESITE=Lax will do. Until the access"
  + " token expires, all else works.";

let issued = "";  // the last access token: in this variable and in no storage, so that a reload forgets it
let ahead = 0;  // milliseconds by which the server's clock is ahead of ours
let notBefore = 0;  // milliseconds, by the server's clock: until then no refresh by itself, whatever the clocks say
let expired = false, edits = 0, traces = 0, queue = Promise.resolve();
const $ = id => document.getElementById(id);
const inTurn = task => queue = queue.then(task, task);  // one POST after the other: no refresh overtakes a logout
const notify = sentence => $("notice").textContent = sentence;
const light = part => document.body.dataset.lit = part ?? "";

// A token in pieces
const binary = text => String.fromCharCode(...new TextEncoder().encode(text));  // a character for each byte of UTF-8
const segmentOf = text => btoa(binary(text)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
const bytesOf = (segment = "") => {  // forgives what the server must not: one token, one spelling
  try {
    return Uint8Array.from(atob(segment.replace(/-/g, "+").replace(/_/g, "/")), char => char.charCodeAt(0));
  } catch { return new Uint8Array(); }
};
const textOf = segment => new TextDecoder("utf-8", {ignoreBOM: true}).decode(bytesOf(segment));
const parsed = json => { try { return Object(JSON.parse(json)); } catch { return {}; } };
const compact = json => json.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1");  // no white space but within strings
const pretty = json => {  // unless that would show something else than what is signed
  const text = JSON.stringify(parsed(json), null, 2);
  return compact(text) === json ? text : json;
};
const claimsOf = token => parsed(textOf(token.split(".")[1]));

// What is shown
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function painted(segment, original = "", part = "") {  // what is not as it was issued gets a mark
  const letters = Array.from(segment, (letter, at) => letter === original[at] ? letter : element("mark", {}, letter));
  const span = element("span", {}, ...letters);
  span.dataset.part = part;
  return span;
}

function show(token, edited) {  // in every field but the one that is being edited
  const segments = token.split("."), originals = issued.split("."), claims = claimsOf(token);
  const spans = segments.flatMap((segment, i) => [".", painted(segment, originals[i], PARTS[i])]);
  $("mirror").replaceChildren(...spans.slice(1));
  $("token").value = token;
  for (const [i, part] of ["header", "payload"].entries()) {
    if (edited !== part) $(part).value = pretty(textOf(segments[i]));
    $(part).rows = $(part).value.split("\n").length;
  }
  const times = ["iat", "exp"].filter(name => Number.isFinite(claims[name]));
  $("times").textContent = times.map(name => `${name}: ${new Date(claims[name] * 1000).toLocaleString()}`).join("\n");
  $("bytes").textContent = Array.from(bytesOf(segments[2]), byte => byte.toString(16).padStart(2, "0")).join(" ");
  $("restore").disabled = token === issued;
}

function edit(token, edited) {
  show(token, edited);
  clearTimeout(edits);
  edits = setTimeout(trace, EDIT_MS);
}

function happened(request, answer, sentence) {
  const seen = element("code", {}, `document.cookie = ${JSON.stringify(document.cookie)}`);
  const what = element("b", {}, `${request} → ${answer.status}`);
  $("log").prepend(element("li", {}, what, ` ${sentence} This script sees `, seen));  // HttpOnly: not the token
  while ($("log").children.length > 3) $("log").lastChild.remove();
}

function row({name, section, demand, ok, found}) {  // ok is null for what was not checked, or not reached
  const [state, sign] = {true: ["passed", "✓"], false: ["failed", "✗"]}[ok] ?? ["skipped", "–"];
  const texts = [section, demand, found].map(text => element("span", {}, text));
  const mark = element("span", {role: "img", ariaLabel: state}, sign);
  const item = element("li", {className: state}, mark, element("b", {}, name), ...texts);
  item.dataset.part = PART_OF[name] ?? "payload";
  return item;
}

// Talking to the server
async function ask(method, path, options) {
  try {
    const response = await fetch(path, {method, credentials: "same-origin", ...options});
    const body = parsed(await response.text()), wait = response.headers.get("Retry-After");
    ahead = Date.parse(response.headers.get("Date")) - Date.now() || ahead;
    const retry = wait ? `, try again in ${wait} seconds` : "", said = body.message ?? response.statusText;
    return {status: response.status, body, reason: `${said} (${response.status}${retry})`};
  } catch { return {status: "no answer", body: {}, reason: "The server does not answer."}; }
}

async function trace() {
  const mine = ++traces;
  const answer = await ask("GET", "/explain", {headers: {Authorization: `Bearer ${binary($("token").value)}`}});
  if (mine !== traces || !issued) return;  // a later one is on its way
  const {valid, steps = []} = answer.body, failed = steps.find(step => step.ok === false);
  $("trace").replaceChildren(...steps.map(row));
  $("verdict").className = valid ? "passed" : "failed";
  $("verdict").textContent = valid ? "✓ Good: written by a holder of the key, and in time."
    : failed ? `✗ Refused at “${failed.name}” (${failed.section}): ${failed.found}.` : `No trace: ${answer.reason}`;
}

function take(token) {
  const edited = $("token").value !== issued;  // then that stays in sight, as long as nobody asks for another
  const {username, iat, exp} = claimsOf(token);
  issued = token;
  expired = false;
  notBefore = Date.now() + ahead + 500 * (exp - iat);  // half its life
  history.replaceState({signedIn: true}, "");  // no token: only that after a reload a refresh is worth a try
  document.body.dataset.session = "on";
  $("who").textContent = `Signed in as ${username}`;
  show(edited ? $("token").value : token, edited && document.activeElement.id);
  tick();
  trace();
}

function forget(sentence) {
  issued = "";
  show("");
  history.replaceState(null, "");
  document.body.dataset.session = "off";
  notify(sentence);
  $("login").username.focus();
}

async function login() {
  const answer = await ask("POST", "/login", {body: new URLSearchParams(new FormData($("login")))});
  if (answer.status !== 200) return notify(answer.reason);
  $("login").reset();
  happened("POST /login", answer, "An access token in the answer, a refresh token in a cookie.");
  notify("");
  take(answer.body.accessToken);
  $("who").focus();
  if (location.protocol === "http:") await refresh("To try the cookie", NO_COOKIE);
}

async function refresh(why, refusal) {  // refusal: what to say if it is refused to somebody who has just signed in
  const answer = await ask("POST", "/refresh");
  const good = answer.status === 200, refused = [401, 406].includes(answer.status);  // a setting of the server
  happened("POST /refresh", answer, `${why}: ${good ? "the browser sent the cookie, here is a new access token."
    : refused ? "there was no cookie, or its session has ended." : answer.reason}`);
  if (refused && !refusal) return forget("There is no refresh token, or its session has ended: sign in.");
  notify(good ? "" : refused ? refusal : answer.reason);
  if (good) take(answer.body.accessToken);
}

async function logout() {
  const answer = await ask("POST", "/logout");
  if (answer.status !== 204) return notify(answer.reason);
  happened("POST /logout", answer, "The session has ended, and the cookie is deleted.");
  forget("This page has forgotten the access token. Whoever has a copy can use it until it expires.");
}

function tick() {
  if (!issued) return;
  const {iat, exp} = claimsOf(issued), now = Date.now() + ahead, left = exp - now / 1000;
  const seconds = Math.max(0, Math.ceil(left));
  const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  $("countdown").textContent = seconds ? `expires in ${time}` : "has expired";
  $("left").value = Math.max(0, left / (exp - iat));
  if ($("automatic").checked && left < leadSeconds(exp - iat) && now >= notBefore) {
    notBefore = now + RETRY_MS;
    inTurn(() => issued && refresh("In time, by itself"));
  }
  if (!seconds && !expired) trace();
  expired = !seconds;
}

// What somebody does
$("login").onsubmit = event => { event.preventDefault(); inTurn(login); };
$("resume").onclick = $("refresh").onclick = () => { show(issued); inTurn(() => refresh("By button")); };
$("logout").onclick = () => inTurn(logout);
$("restore").onclick = () => edit(issued);
$("token").oninput = () => edit($("token").value.replace(/[\0- \x7f]/g, ""), "token");  // no header field holds these
for (const [i, part] of ["header", "payload"].entries()) {
  $(part).oninput = () => {
    const segments = $("token").value.split(".");
    segments[i] = segmentOf(compact($(part).value));
    edit(segments.join("."), part);
  };
}
document.onpointermove = event => {  // the coloured letters lie beneath the field
  const under = document.elementsFromPoint(event.clientX, event.clientY).map(each => each.closest("[data-part]"));
  light(under.find(Boolean)?.dataset.part);
};
document.addEventListener("focusin", event => light(event.target.closest("[data-part]")?.dataset.part));
document.addEventListener("selectionchange", () => {
  const {id, value, selectionStart} = document.activeElement;
  if (id === "token") light(PARTS[value.slice(0, selectionStart).split(".").length - 1]);
});
setInterval(tick, TICK_MS);
if (history.state?.signedIn) inTurn(() => refresh("After the reload"));
</script>
"""


def _digest(tag: str) -> str:
    """Return how a Content-Security-Policy names the text of the one `tag` of PAGE (CSP Level 3 §2.3.1)."""
    text = PAGE.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Nothing runs that is not written above, and nothing is sent to anybody else, whatever might be smuggled in.
PAGE_POLICY = (
    f"default-src 'none'; script-src {_digest('script')}; style-src {_digest('style')}; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def asks_for_html(request: Request) -> bool:
    """Tell whether Accept names text/html, as a browser's does: curl's */* is content with plain text."""
    for media_range in request.fields.get(b"accept", b"").lower().translate(None, b" \t").split(b","):
        kind, *parameters = media_range.split(b";")
        if kind == b"text/html":
            return not any(re.fullmatch(rb"q=0(\.0*)?", each) for each in parameters)  # RFC 9110 §12.4.2: 0 is no
    return False


# ---- Endpoints -------------------------------------------------------------------------------------------
# From a Request to a Response, in a few lines each. Know no sockets.

CHALLENGE = 'Bearer realm="minijwt"'  # what belongs into every 401 (RFC 9110 §11.6.1, RFC 6750 §3)


class App:
    """Everything that an answer depends on: the whole application, without a port."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Callable[[], float] = time.time,
        log: Callable[[Event], None] = lambda event: None,
        cost: str = COST,
    ) -> None:
        self.settings, self.store, self.clock, self.log = settings, store, clock, log
        self.accounts = Accounts(settings, store, clock, cost)


def answer_json(status: int, value: object, *fields: tuple[str, str]) -> Response:
    """Return `value` as a JSON answer."""
    return Response(status, json.dumps(value).encode("ascii"), fields=fields)


def error_response(error: HTTPError) -> Response:
    """Return the answer that `error` stands for."""
    body = {"message": error.message, "code": error.code}
    return answer_json(error.status, body, *error.fields)._replace(events=error.events)


def unavailable(code: str, message: str) -> Response:
    """Return a 503: not now, but soon (RFC 9110 §15.6.4)."""
    return error_response(HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, code, message, ("Retry-After", "1")))


def refusal(app: App, request: Request, message: str, refused: Refused) -> Response:
    """Return the answer to wrong credentials or a bad token: the tutorial's 406, or the 401 of RFC 9110 §15.5.2."""
    about = {"result": refused.code, "user": refused.username or "unknown"}
    if refused.sid is not None:
        about["session"] = refused.sid[:8] or "none"
    event = Event(request.path.strip("/"), {**about, "address": str(request.client)})
    if refused.wait:
        wait, text = ("Retry-After", str(math.ceil(refused.wait))), "Too many failed logins. Try again later."
        error = HTTPError(HTTPStatus.TOO_MANY_REQUESTS, "too_many_failures", text, wait, events=(event,))
        return error_response(error)
    challenge = (("WWW-Authenticate", CHALLENGE),) if app.settings.unauthorized_status == 401 else ()
    return answer_json(app.settings.unauthorized_status, {"message": message}, *challenge)._replace(events=(event,))


def _cookie(app: App, token: str, expires: float, age: int) -> tuple[str, str]:
    """Return the Set-Cookie field that gives `token` to the browser, out of reach of scripts (RFC 6265 §4.1)."""
    settings, date = app.settings, formatdate(int(expires), usegmt=True)
    secure = "; Secure" if settings.cookie_secure else ""
    value = f"{settings.cookie_name}={token}; Max-Age={age}; Path=/; Expires={date}"
    return "Set-Cookie", f"{value}; HttpOnly{secure}; SameSite={settings.cookie_samesite}"


def _token_response(app: App, tokens: Tokens, *events: Event) -> Response:
    """Return the access token as JSON, and the refresh token, if there is a new one, as a cookie that ends with it."""
    cookie: tuple[tuple[str, str], ...] = ()
    if tokens.refresh is not None:
        cookie = (_cookie(app, tokens.refresh, tokens.expires, max(0, math.ceil(tokens.expires - app.clock()))),)
    # base64url and dots need no escaping: the body that answer_json would make, without its four microseconds
    body = f'{{"accessToken": "{tokens.access}"}}'.encode("ascii")
    return Response(200, body, fields=cookie, events=events)


def get_root(app: App, request: Request) -> Response:
    """GET /: a word for whoever wants to know whether the server runs, the page for whoever wants to learn."""
    vary = (("Vary", "Accept"),) if app.settings.page else ()
    if app.settings.page and asks_for_html(request):
        return Response(HTTPStatus.OK, PAGE.encode("utf-8"), "text/html; charset=utf-8", vary, policy=PAGE_POLICY)
    return Response(HTTPStatus.OK, b"server running", "text/plain; charset=utf-8", vary)


def post_login(app: App, request: Request) -> Response:
    """POST /login: username and password → an access token, and a refresh token in the cookie."""
    try:
        form = parse_form(request)
        [username], [password] = form["username"], form["password"]  # exactly one each
    except (ValueError, KeyError):
        raise Refused("malformed") from None
    tokens = app.accounts.login(username, password, request.client)
    about = {"user": tokens.username, "session": tokens.sid[:8], "address": str(request.client)}
    return _token_response(app, tokens, Event("login", {"result": "ok", **about}))


def post_refresh(app: App, request: Request) -> Response:
    """POST /refresh: the cookie → a new access token, and while rotation is on a new cookie."""
    return _token_response(app, app.accounts.refresh(parse_cookies(request, app.settings.cookie_name)))


def post_logout(app: App, request: Request) -> Response:
    """POST /logout: end the session and delete the cookie, whether there is one or not."""
    events = []
    for each in app.accounts.logout(parse_cookies(request, app.settings.cookie_name)):
        about = {"user": each.username, "session": each.sid[:8], "address": str(request.client)}
        events.append(Event("logout", about))
    return Response(HTTPStatus.NO_CONTENT, fields=(_cookie(app, "", 0, 0),), events=tuple(events))


def _bearer(request: Request) -> str:
    """Return the token in Authorization (RFC 6750 §2.1); raise HTTPError if there is none."""
    scheme, _, token = request.fields.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":  # RFC 6750 §3.1: who sends no token is told no more than this
        raise HTTPError(HTTPStatus.UNAUTHORIZED, "no_token", "Send an access token.", ("WWW-Authenticate", CHALLENGE))
    return token.strip(b" ").decode("latin-1")


def get_me(app: App, request: Request) -> Response:
    """GET /me: the claims of the access token."""
    try:
        return answer_json(HTTPStatus.OK, app.accounts.whoami(_bearer(request)))
    except minijwt.InvalidTokenError as error:
        field = ("WWW-Authenticate", f'{CHALLENGE}, error="invalid_token", error_description="{error.code}"')
        raise HTTPError(HTTPStatus.UNAUTHORIZED, error.code, "The access token is not good.", field) from None


def get_explain(app: App, request: Request) -> Response:
    """GET /explain: how the access token fares, check by check. Good or not, the answer is 200."""
    return answer_json(HTTPStatus.OK, app.accounts.explain(_bearer(request)))


# ---- Routes ----------------------------------------------------------------------------------------------
# One table, one try.

Endpoint = Callable[[App, Request], Response]

# What an endpoint does, of which others may have to wait:
NOTHING = "nothing"
READS = "reads"  # the store
WRITES = "writes"  # the store
HASHES = "hashes"  # a password: a quarter of a second of work

# Where a request is answered therefore:
INLINE = "inline"  # on the loop, which must not wait; an endpoint that raises Redo there is called in the write lane
HASH = "hash"  # in a small pool
WRITE = "write"  # in the one thread that writes, many requests to a commit


class Route(NamedTuple):
    """An endpoint, and what is to be known of it before it is called."""

    endpoint: Endpoint
    does: str = NOTHING
    does_rotating: str = ""  # while ROTATE_REFRESH is on, if that is something else
    refusal: str = "Unauthorized"  # the message of Refused
    page_only: bool = False  # is there while PAGE=on, for our own page: never CORS


ROUTES: dict[str, dict[str, Route]] = {
    "/": {"GET": Route(get_root)},
    "/login": {"POST": Route(post_login, HASHES, refusal="Invalid credentials")},
    "/refresh": {"POST": Route(post_refresh, READS, WRITES)},
    "/logout": {"POST": Route(post_logout, WRITES)},
    "/me": {"GET": Route(get_me)},
    "/explain": {"GET": Route(get_explain, page_only=True)},
}


def for_the_page(path: str) -> bool:
    """Tell whether `path` is there for our own page alone."""
    return any(route.page_only for route in ROUTES.get(path, {}).values())


def lanes_of(settings: Settings, store: Store) -> dict[tuple[str, str], str]:
    """Return the lane of each (method, path) that is not answered on the loop."""
    lane_of = {NOTHING: INLINE, READS: INLINE if store.inline_reads else WRITE, WRITES: WRITE, HASHES: HASH}
    lanes = {}
    for path, methods in ROUTES.items():
        for method, route in methods.items():
            does = (route.does_rotating if settings.rotate_refresh else "") or route.does
            if lane_of[does] != INLINE:
                lanes[method, path] = lane_of[does]
    return lanes


def check_csrf(app: App, request: Request) -> None:
    """Raise HTTPError if a page of another site has a browser send this POST: the cookie would come along (CSRF).

    Browsers say where a request comes from, in Sec-Fetch-Site (W3C Fetch Metadata §2.3) and Origin (RFC 6454 §7), and
    no script can change either. Who sends neither is no browser, and has no cookie that is not its own.
    """
    site, raw_origin = request.fields.get(b"sec-fetch-site"), request.fields.get(b"origin")
    if site is None and raw_origin is None:
        return
    origin = (raw_origin or b"").decode("latin-1")
    if site is None:
        scheme, _, authority = origin.partition("://")
        host = request.fields.get(b"host", b"").decode("latin-1").lower()
        hosts = {host, host.removesuffix(":" + DEFAULT_PORTS.get(scheme, ""))} - {""}
        same = scheme in DEFAULT_PORTS and authority in hosts
    else:
        same = site in (b"same-origin", b"none")
    if not same and origin not in app.settings.allowed_origins:
        about = {"path": request.path, "origin": origin or "unknown", "address": str(request.client)}
        event = Event("cross_site", about)
        message = "This request comes from a page of another site, which ALLOWED_ORIGINS does not name."
        raise HTTPError(HTTPStatus.FORBIDDEN, "cross_site", message, events=(event,))


def find_route(app: App, request: Request) -> Route:
    """Return the route of `request`, whose body need not be here yet, or the one that answers OPTIONS.

    Raises HTTPError: 404, 405 with Allow (RFC 9110 §15.5.6), or 403 for a POST from a page of another site.
    """
    methods = {} if request.path == "*" else ROUTES.get(request.path)
    if methods is None or (not app.settings.page and for_the_page(request.path)):
        raise HTTPError(HTTPStatus.NOT_FOUND, "not_found", "There is nothing here.")
    route = methods.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        known = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
        if request.method == "OPTIONS":
            return Route(lambda app, request: Response(HTTPStatus.NO_CONTENT, fields=(("Allow", known),)))
        message = f"This path knows only {known}."
        raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, ("Allow", known))
    if request.method == "POST":
        check_csrf(app, request)
    return route


def add_cors_headers(app: App, request: Request, response: Response) -> Response:
    """Let a page of an allowed origin read the answer, with the cookie sent along (Fetch §3.3: CORS)."""
    origin = request.fields.get(b"origin", b"").decode("latin-1")
    fields = [("Vary", "Origin")]  # no cache may hand one origin's answer to another
    if origin in app.settings.allowed_origins and not for_the_page(request.path):
        fields.append(("Access-Control-Allow-Origin", origin))
        fields.append(("Access-Control-Allow-Credentials", "true"))
        fields.append(("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate"))
        if request.method == "OPTIONS" and b"access-control-request-method" in request.fields:
            fields += [("Access-Control-Allow-Methods", value) for name, value in response.fields if name == "Allow"]
            fields.append(("Access-Control-Allow-Headers", "Authorization, Content-Type"))
            fields.append(("Access-Control-Max-Age", "600"))  # seconds that the browser may remember all that
    return response._replace(fields=(*response.fields, *fields))


def store_failed(error: StoreFailed) -> Response:
    """Return the answer when the store does not work: never a wrong one."""
    response = unavailable("unavailable", "The database does not answer. Try again.")
    return response._replace(events=(Event("database", {"error": str(error)}),))


def respond(app: App, request: Request) -> Response:
    """Return the answer to `request`: the whole server as one plain function. Raises nothing but Redo."""
    try:
        route = find_route(app, request)
        return route.endpoint(app, request)
    except HTTPError as error:
        return error_response(error)
    except Refused as refused:
        return refusal(app, request, route.refusal, refused)
    except Redo:
        raise
    except StoreFailed as error:
        return store_failed(error)
    except Exception:
        logger.exception("unexpected error")  # the traceback is for the log; the client learns only that it happened
        return error_response(HTTPError(500, "internal_error", "Something went wrong here."))


# ---- Conversation ----------------------------------------------------------------------------------------
# One client's side of HTTP, from its first byte to the last answer, as a generator. It moves no bytes itself: `handle`
# drives it with blocking reads under the standard library's own server, and the Server below with a selector. Where the
# generator stands is the state of the connection.

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # RFC 9110 §15.2.1

if TYPE_CHECKING:
    Conversation: TypeAlias = Generator[bytes | Request, Any, bytes]


class Handler(BaseHTTPRequestHandler):
    """One client, whoever drives the conversation with it. `handler_for` gives it its App."""

    app: App
    framer: Framer
    timeout = 10.0  # seconds that a silent client may cost a thread of the stock server
    last = False  # the next response is the last one

    def converse(self) -> Conversation:
        """Talk to the client. Yields what is to happen next, and is sent the outcome:

            bytes    these are to be sent, if any, and more to be received → what arrived, b"" if the client sends no
                     more; None as long as `framer` is busy: what is here already comes first
            Request  it is to be answered → its Response

        Returns the last bytes to be sent. TimeoutError is thrown in when the client takes too long to send.
        """
        framer = self.framer = Framer(
            parse_address(self.client_address[0]) or NO_ADDRESS, self.app.settings.trusted_proxies
        )
        answer = b""
        try:
            while True:
                data = yield answer
                if data:
                    framer.receive(data)
                elif data is not None:
                    if framer.busy:  # a short request is never acted upon
                        raise _malformed("incomplete", "The request ended before it was complete.")
                    return b""
                request, answer = framer.next_request(), b""
                if request is not None:
                    response = yield request
                    keep_alive = request.keep_alive and not self.last
                    answer = self.render(response, request, keep_alive)
                    if not keep_alive:
                        return answer
                elif (head := framer.expecting()) is not None:
                    find_route(self.app, head)  # RFC 9110 §10.1.1: a body that will be refused is not asked for
                    answer = CONTINUE
                data = request = response = None  # an idle client costs no memory
        except HTTPError as error:  # where the next request would begin is not known: close
            fault = error
        except TimeoutError:
            if not framer.busy:
                return b""
            fault = HTTPError(HTTPStatus.REQUEST_TIMEOUT, "timeout", "The request took too long to arrive.")
        return self.render(error_response(fault), framer.begun(), keep_alive=False)

    def render(self, response: Response, request: Request, keep_alive: bool) -> bytes:
        """Return `response`, ready to be sent, and log what is to be logged."""
        app = self.app
        if app.settings.allowed_origins:
            response = add_cors_headers(app, request, response)
        for event in response.events:
            app.log(event)
        if app.settings.access_log:
            about = {"method": request.method, "path": request.path, "status": str(int(response.status))}
            app.log(Event("request", {**about, "address": str(request.client)}))
        return render(response, request, keep_alive, app.clock())

    def handle(self) -> None:
        """Answer one request of the stock server's socket, then close: an idle client would hold a thread."""
        self.last = True
        conversation = self.converse()
        with suppress(OSError):  # the client is silent or gone
            try:
                step = next(conversation)
                while True:
                    if isinstance(step, Request):
                        step = conversation.send(respond(self.app, step))
                    else:
                        self.wfile.write(step)
                        step = conversation.send(self.rfile.read1(MAX_HEAD_BYTES))
            except StopIteration as end:
                self.wfile.write(end.value)


def handler_for(app: App) -> type[Handler]:
    """Return a handler class for `app`, to be given to `http.server.ThreadingHTTPServer`."""
    return type("Handler", (Handler,), {"app": app})


# ---- Server ----------------------------------------------------------------------------------------------
# One loop around one selector. A turn has four phases: receive and parse what has arrived, answer it on one snapshot of
# the database (taken after it arrived, so never stale), render, send. Each phase keeps its code in the processor's cache,
# and a turn answers one request of each client, however many have arrived. A slow client costs a buffer, not a thread.

REQUEST_SECONDS = 5.0  # from the first byte of a request to its last; of a new client, from the connection on
IDLE_SECONDS = 30.0  # between two requests
WRITE_SECONDS = 10.0  # for a client to take an answer
LINGER_SECONDS = 2.0  # for a client to close, once the last answer is sent
SWEEP_SECONDS = 1.0  # between two looks at the deadlines; so that is how exact they are
REST_SECONDS = 0.1  # without accepting, once that has failed; between two looks while stopping
COMPLAINT_SECONDS = 60.0  # between two lines in the log about that
TURN_SECONDS = 0.005  # of receiving, and of answering, before what has been answered is sent
SHUTDOWN_SECONDS = 10.0  # for answers in flight when told to stop
LAST_SECONDS = 0.5  # for an idle client, then, to send a request that is still answered
BACKLOG = 1024  # connections that may wait to be accepted
ACCEPTS_AT_ONCE = 16  # of them, in a turn
MAX_CONNECTIONS = 4_096
SPARE_SHARE = 32  # when there are too many, 1/32 more are dropped, so that the search for them is rare
RECEIVE_BYTES = 65_536  # at one time
SEND_BUFFER_BYTES = 24_576  # of each socket, in the kernel, which would grow it to megabytes; the page fits in
RECEIVE_BUFFER_BYTES = 16_384  # likewise
HASHES_AT_ONCE = max(1, (os.cpu_count() or 1) - 1)  # one core is for the loop
RESERVED_DESCRIPTORS = 64 + 4 * HASHES_AT_ONCE  # three a thread for the database; listeners, log, those just accepted
MAX_WAITING_LOGINS = 64  # the last one waits for sixteen seconds of work, on two cores
MAX_LOGINS_OF_A_PLACE = 48  # a class behind one address, but not one that would have all the places
WRITES_AT_ONCE = 256  # requests to a commit
READ, WRITE_READY = selectors.EVENT_READ, selectors.EVENT_WRITE


class Client(Handler):
    """A Handler that the Server drives: its socket, and how far the conversation with it has come."""

    def __init__(self, app: App, client: socket.socket, address: str) -> None:
        self.app, self.socket, self.client_address = app, client, (address, 0)
        self.conversation: Conversation | None = self.converse()  # None: the last answer has been made
        next(self.conversation)
        self.handshaking = isinstance(client, ssl.SSLSocket)
        self.unsent = b""  # of the last answer
        self.wants = READ  # what it waits for; 0: for the response to its request
        self.watched = 0  # what the selector watches: it is told of 0 only when something arrives nevertheless
        self.since = self.deadline = 0.0  # of that waiting, seconds of the server's clock


class Lanes:
    """Answers requests off the loop: one thread writes, a small pool hashes passwords.

    `post` has a function called on the loop; `answered` is what is called there, with a client and its response.
    """

    def __init__(self, app: App, post: Callable[..., None], answered: Callable[[Client, Response], None]) -> None:
        self._app, self._post, self._answered = app, post, answered
        self._pool = ThreadPoolExecutor(HASHES_AT_ONCE, "hash")
        self._logins: Counter[bytes] = Counter()  # that wait or are hashed, by place
        self._pending: list[tuple[Client, Request]] = []  # of this turn, for the writer
        self._writes: queue.SimpleQueue[list[tuple[Client, Request]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="write", daemon=True)
        self._writer.start()

    def submit(self, lane: str, client: Client, request: Request) -> None:
        """Have `request` answered in `lane`."""
        if lane == WRITE:
            return self._pending.append((client, request))
        place = place_of(request.client)
        full = sum(self._logins.values()) >= HASHES_AT_ONCE + MAX_WAITING_LOGINS
        if full or self._logins[place] >= MAX_LOGINS_OF_A_PLACE:
            response = unavailable("busy", "Too many people are logging in. Try again.")
            return self._post(self._answered, client, response)
        self._logins[place] += 1
        future = self._pool.submit(respond, self._app, request)
        future.add_done_callback(lambda each: self._post(self._hashed, place, client, each))
        return None

    def hand_over(self) -> None:
        """Let the writer have what this turn has for it, in one piece."""
        if self._pending:
            self._writes.put(self._pending)
            self._pending = []

    def _hashed(self, place: bytes, client: Client, future: Future[Response]) -> None:
        self._logins -= Counter((place,))  # which also forgets the places that have none
        if not future.cancelled():
            self._answered(client, future.result())

    def _write(self) -> None:
        """Answer all waiting requests within one transaction, and only after its commit let the answers go."""
        ended = False
        while not ended:
            works: list[tuple[Client, Request]] = []
            while not works or (len(works) < WRITES_AT_ONCE and not self._writes.empty()):
                more = self._writes.get()
                if more is None:
                    ended = True
                    break
                works += more
            try:
                responses = self._app.store.group([partial(respond, self._app, request) for _, request in works])
            except StoreFailed as error:
                responses = [store_failed(error)] * len(works)
            except Exception:  # whatever it was, the next ones are answered
                logger.exception("unexpected error")
                responses = [unavailable("unavailable", "Something went wrong here.")] * len(works)
            self._post(self._written, [client for client, _ in works], responses)
        self._app.store.close()

    def _written(self, clients: list[Client], responses: list[Response]) -> None:
        for client, response in zip(clients, responses):
            self._answered(client, response)

    def close(self) -> None:
        """Take no more."""
        self._writes.put(None)
        self._pool.shutdown(wait=False, cancel_futures=True)


def _bound(address: str, port: int) -> socket.socket:
    """Return a socket that is bound to a literal address; raise OSError if that cannot be."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit these.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)  # until then somebody else could take the port too
        listener.setblocking(False)
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


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Return what TLS 1.2 and newer needs; raise SettingsError if the files `cert` and `key` are not a pair."""

    def no_password() -> str:
        raise SettingsError(f"TLS_KEY {key} is locked by a password, and nobody is here to type it: unlock it")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    # Each renegotiation would cost us ten times what it costs the client. PyPy does not name the option.
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)
    context.set_alpn_protocols(["http/1.1"])  # RFC 7301
    try:
        for variable, path in (("TLS_CERT", cert), ("TLS_KEY", key)):
            with open(path, "rb"):
                pass
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if "MISMATCH" in str(error.reason):
            raise SettingsError(f"TLS_KEY {key} is not the key of TLS_CERT {cert}") from None
        raise SettingsError(f"TLS_CERT {cert} and TLS_KEY {key} must be PEM: a certificate and its key") from None
    except OSError as error:
        raise SettingsError(f"{variable} {path} cannot be read: {error.strerror}") from None
    return context


def capacity() -> int:
    """Return how many connections there may be, after raising the limit of descriptors as far as we may and need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - RESERVED_DESCRIPTORS)

class Server:
    """Serves an App until `stop` is called."""

    def __init__(
        self,
        app: App,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None = None,
        capacity: int = MAX_CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most `capacity` clients are connected at one time. `clock` returns seconds and never goes back."""
        self.app, self.clients, self.stopping = app, set[Client](), False
        self._sockets, self._tls, self._capacity, self._clock = sockets, tls, capacity, clock
        self._lane_of = lanes_of(app.settings, app.store)
        self._selector = selectors.DefaultSelector()
        self._mail: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()
        self._bell, self.waker = socket.socketpair()
        self._bell.setblocking(False)
        self.waker.setblocking(False)
        self._ready: deque[tuple[selectors.SelectorKey, int]] = deque()
        self._requests: deque[tuple[Client, Request]] = deque()
        self._outbox: list[tuple[Client, bytes]] = []
        self._now = clock()
        self._end = math.inf  # when stopping ends
        self._listening = False  # the selector watches the sockets
        self._resting_until = self._complained = -math.inf

    # -- the loop

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Call `ready` when listening, then accept and answer until told to stop; end in an orderly way."""
        self.app.store.read_only()  # on this thread
        self._lanes = Lanes(self.app, self.post, self._resume)
        self._selector.register(self._bell, READ, self._read_mail)
        self._listen()
        ready()
        swept = self._now
        while not self.stopping or (self.clients and self._now < self._end):
            pause = SWEEP_SECONDS if self._listening else REST_SECONDS
            self._turn(pause)
            if self._now >= swept + pause:
                swept = self._now
                self._sweep()
        for client in list(self.clients):
            self._hang_up(client)
        self._lanes.close()
        self.app.store.close()
        self._selector.close()
        self._bell.close()
        self.waker.close()

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have `function` called on the loop; may be called by any thread, and by a signal handler."""
        self._mail.put((function, arguments))
        with suppress(OSError):  # so full that it rings anyway, or the loop has ended
            self.waker.send(b"\0")

    def _read_mail(self) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(4_096)
        for _ in range(self._mail.qsize()):
            function, arguments = self._mail.get()
            function(*arguments)

    def _turn(self, pause: float) -> None:
        """Receive and parse what has arrived, answer it, render the responses, send them. Wait at most `pause`."""
        if not self._ready:
            self._ready.extend(self._selector.select(0 if self._requests or self._outbox else pause))
        self._now = self._clock()
        end = self._now + TURN_SECONDS
        while self._ready and self._clock() <= end:
            key, _ = self._ready.popleft()
            if isinstance(key.data, Client):
                self._hear(key.data)
            else:
                key.data()
        answered, end = [], self._clock() + TURN_SECONDS
        with self.app.store.snapshot() if len(self._requests) > 1 else nullcontext():
            while self._requests and (not answered or self._clock() <= end):
                client, request = self._requests.popleft()
                response = self._respond(client, request)
                if response is not None:
                    answered.append((client, response))
        self._lanes.hand_over()
        for client, response in answered:
            self._resume(client, response)
        outbox, self._outbox = self._outbox, []
        for client, answer in outbox:
            self._send(client, answer)

    def _respond(self, client: Client, request: Request) -> Response | None:
        """Return the response to `request`; None if it is made in another lane."""
        lane = self._lane_of.get((request.method, request.path))
        if lane is None:
            try:
                return respond(self.app, request)
            except Redo:
                lane = WRITE
        self._lanes.submit(lane, client, request)
        return None

    # -- one client

    def _allow(self, client: Client, seconds: float) -> None:
        """Give the client `seconds` from now for what it has to do."""
        client.since, client.deadline = self._now, self._now + seconds

    def _want(self, client: Client, events: int) -> None:
        """Wait for `events` of the client."""
        client.wants = events
        if events != client.watched:
            self._watch(client, events)

    def _watch(self, client: Client, events: int) -> None:
        """Have the selector watch for `events`."""
        if not client.watched:
            self._selector.register(client.socket, events, client)
        elif events:
            self._selector.modify(client.socket, events, client)
        else:
            self._selector.unregister(client.socket)
        client.watched = events

    def _hear(self, client: Client) -> None:
        """Go on with a client whose socket is ready."""
        if not client.wants:  # it sends more before it has an answer: that waits in the kernel
            if client.watched:
                self._watch(client, 0)
        elif client.unsent:
            self._outbox.append((client, b""))
        elif (data := self._receive(client)) is not None:
            if client.conversation is not None:
                self._resume(client, data)
            elif not data:  # what comes after the last answer is only read so that the answer is not lost
                self._hang_up(client)

    def _receive(self, client: Client) -> bytes | None:
        """Return what has arrived, b"" at the end of the stream; None if that is nothing yet."""
        peer = client.socket
        try:
            if client.handshaking:
                peer.do_handshake()  # type: ignore[attr-defined]
                client.handshaking = False
            data = peer.recv(RECEIVE_BYTES)
            while self._tls and (pending := peer.pending()):  # type: ignore[attr-defined]
                data += peer.recv(pending)
            return data
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            self._want(client, READ)
        except ssl.SSLWantWriteError:
            self._want(client, WRITE_READY)
        except ssl.SSLError:  # no TLS, or no longer: the alert that says why must arrive
            client.conversation = None
            self._linger(client)
        except OSError:
            self._hang_up(client)
        return None

    def _resume(self, client: Client, outcome: Any) -> None:
        """Go on with the conversation until it needs something."""
        talk, begun = client.conversation, client.framer.busy
        if talk is None:
            return
        try:
            step = talk.throw(outcome) if outcome is TimeoutError else talk.send(outcome)
        except StopIteration as end:
            client.conversation, client.wants = None, 0
            self._outbox.append((client, end.value))
        except Exception:  # whatever one client does, the others are served
            logger.exception("a conversation broke off")
            self._hang_up(client)
        else:
            if isinstance(step, Request):
                client.wants = 0
                self._requests.append((client, step))
            elif step:
                client.wants = 0
                self._outbox.append((client, step))
            else:
                self._want(client, READ)
                if client.framer.busy and not begun:
                    self._allow(client, REQUEST_SECONDS)

    def _send(self, client: Client, answer: bytes) -> None:
        """Send `answer`, after what was left of the one before; then go on, or close if it was the last."""
        data, begun = client.unsent + answer, bool(client.unsent)
        try:
            while data:
                data = data[client.socket.send(data) :]
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            return self._hang_up(client)
        client.unsent = data
        if data:
            self._want(client, WRITE_READY)
            if not begun:
                self._allow(client, WRITE_SECONDS)
        elif client.conversation is None:
            self._linger(client)
        elif client.framer.busy:
            self._allow(client, REQUEST_SECONDS)
            self._resume(client, None)
        else:
            self._allow(client, LAST_SECONDS if self.stopping else IDLE_SECONDS)
            self._want(client, READ)
        return None

    def _linger(self, client: Client) -> None:
        """Close our side, and wait until the client closes its own.

        To close at once, with input unread, would reset the connection and might destroy the answer (RFC 9112 §9.6).
        """
        self._allow(client, LINGER_SECONDS)
        client.handshaking = False
        try:
            if isinstance(client.socket, ssl.SSLSocket):
                with suppress(ssl.SSLError):  # SSLWantReadError: our close_notify is sent, the client's is not here
                    client.socket.unwrap()
            client.socket.shutdown(socket.SHUT_WR)
            self._want(client, READ)
        except (OSError, ValueError):
            self._hang_up(client)

    def _hang_up(self, client: Client) -> None:
        """Close at once."""
        self.clients.discard(client)
        client.conversation, client.wants, client.unsent = None, 0, b""
        if client.watched:
            self._watch(client, 0)
        client.socket.close()

    def _sweep(self) -> None:
        """End what has taken too long: with 408 if a request has begun, in silence if not even that."""
        for client in [each for each in self.clients if each.deadline < self._now and each.wants]:
            if client.conversation is None or client.unsent or client.handshaking:
                self._hang_up(client)
            else:
                self._resume(client, TimeoutError)
        if not self._listening and self._resting_until <= self._now:
            self._listen()

    # -- who is let in

    def _listen(self) -> None:
        """Have the selector tell of clients that connect."""
        self._listening = True
        for listener in self._sockets:
            self._selector.register(listener, READ, partial(self._accept, listener))

    def _rest(self, seconds: float) -> None:
        """Accept no clients for `seconds`: they wait in the kernel."""
        if self._listening:
            for listener in self._sockets:
                self._selector.unregister(listener)
        self._listening, self._resting_until = False, self._now + seconds

    def _complain(self, reason: str) -> None:
        """Rest a moment, and log why: once a minute."""
        self._rest(REST_SECONDS)
        if self._now - self._complained >= COMPLAINT_SECONDS:
            self._complained = self._now
            self.app.log(Event("accept", {"result": reason, "connections": str(len(self.clients))}))

    def _accept(self, listener: socket.socket) -> int:
        """Take in a few of those that wait at `listener`, and return how many. They count before any TLS handshake.

        Connections with a request in progress are never dropped. When there are too many, idle ones go first.
        """
        self._drop(len(self.clients) - self._capacity)
        if len(self.clients) >= self._capacity + ACCEPTS_AT_ONCE:
            self._complain("everybody is busy")
            return 0
        accepted = []
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted.append(listener.accept())
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:  # it may well fail again at once
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._drop(1)
                self._complain(errno.errorcode.get(error.errno or 0, "unknown"))
                break
        self._drop(len(self.clients) + len(accepted) - self._capacity)
        for peer, address in accepted:
            self._take_in(peer, address[0])
        return len(accepted)

    def _take_in(self, peer: socket.socket, address: str) -> None:
        """Begin a conversation."""
        try:
            peer.setblocking(False)
            if self._tls:
                peer = self._tls.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):  # it has gone already
            return peer.close()
        client = Client(self.app, peer, address)
        client.last = self.stopping
        self.clients.add(client)
        self._allow(client, REQUEST_SECONDS)
        return self._watch(client, READ)

    def _drop(self, excess: int) -> None:
        """Hang up on `excess` clients: first those of the place that holds most, first the oldest."""
        if excess <= 0:
            return
        idle = [each for each in self.clients if each.wants]
        held = Counter(place_of(each.framer.peer) for each in idle)
        count = excess + self._capacity // SPARE_SHARE
        for client in heapq.nsmallest(
            count, idle, lambda each: (-held[place_of(each.framer.peer)], each.framer.in_body, each.since)
        ):
            self._hang_up(client)

    def stop(self) -> None:
        """Accept what has connected, and then no more; answer what has arrived, and close. Called on the loop."""
        if self.stopping:
            return
        self.stopping, self._end = True, self._now + SHUTDOWN_SECONDS
        self._rest(math.inf)
        for listener in self._sockets:
            while self._accept(listener):
                pass
            listener.close()
        for client in self.clients:
            client.last = True
            if client.conversation and client.wants == READ and not client.framer.busy:
                client.deadline = min(client.deadline, self._now + LAST_SECONDS)


# ---- Command line ----------------------------------------------------------------------------------------
# Knows the process: arguments, signals, exit status.


def _serve_until_signalled(server: Server, greeting: str, clean: Callable[[], None]) -> None:
    """Serve; SIGTERM or SIGINT ends it in an orderly way, a second one at once, when all is `clean`."""
    signals = []

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            clean()
            os._exit(1)
        server.post(server.stop)

    signal.set_wakeup_fd(server.waker.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(lambda: print(greeting, flush=True))
    signal.set_wakeup_fd(-1)


def _password() -> str:
    """Return a password: asked for twice and not shown on a terminal, else one line of standard input."""
    if sys.stdin is None or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
    password = getpass.getpass(f"Password (at least {MIN_PASSWORD_CHARS} characters): ")
    if password != getpass.getpass("Again: "):
        raise ValueError("the two passwords differ")
    return password


def _user_command(arguments: argparse.Namespace) -> int:
    """user add|passwd|remove|list|logout: what the running server sees at once."""
    settings = read_settings(os.environ)
    if not settings.database:
        raise SettingsError(f"no secrets and no DATABASE are set, so users would not last: `{PROGRAM} init` first")
    store = Store(settings.database)
    accounts, name = Accounts(settings, store), getattr(arguments, "name", "")
    if arguments.action == "list":
        print("".join(each + "\n" for each in store.names()), end="")
    elif arguments.action == "add":
        accounts.add_user(name, _password(), arguments.accept_tutorial_tokens)
    elif arguments.action == "passwd":
        accounts.change_password(name, _password())
    elif arguments.action == "remove":
        accounts.remove_user(name)
        if settings.private and not store.names():
            print(f"{PROGRAM}: warning: that was the last user: {DEMO_USERNAME} is let in again", file=sys.stderr)
    else:
        accounts.end_sessions(name)
    store.close()
    if name:
        print(log_line(time.time(), Event("user", {"action": arguments.action, "user": name})), file=sys.stderr)
    return 0


HARDENED = """# Settings of minijwt's server. Keep this file to yourself: who has the secrets can log in as anybody.

# Sign access and refresh tokens. Different, random, 32 bytes; to change one, keep the old as ..._OLD for a while.
ACCESS_TOKEN_SECRET={access}
REFRESH_TOKEN_SECRET={refresh}

# A new refresh token at every use: a stolen one is noticed, and ends the session.
ROTATE_REFRESH=on
# The cookie is not sent along when another site makes the request.
COOKIE_SAMESITE=Strict
# A name that browsers take only from this very host, over HTTPS (or http://localhost).
COOKIE_NAME=__Host-jwt
# What RFC 9110 would say. A client of the tutorial wants 406.
UNAUTHORIZED_STATUS=401
# The page at /, and the trace of what is wrong with a token, are for learning.
PAGE=off
"""


def _init_command(arguments: argparse.Namespace) -> int:
    """init: write a .env with fresh secrets and the hardened choices; never over an existing one."""
    secrets = {name: minijwt.base64url_encode(os.urandom(32)).decode("ascii") for name in ("access", "refresh")}
    try:
        with open(os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(HARDENED.format(**secrets))
    except FileExistsError:
        raise SettingsError(".env exists already, and is left as it is") from None
    print(f"Wrote .env, for you alone; a server reads it when it starts. Next: python3 {sys.argv[0]} user add NAME")
    return 0


def _serve_command(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    settings = read_settings(os.environ)
    if time.time() < RELEASED:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        raise SettingsError(f"the clock says {today}, before this program was made: set it, or no token is good")
    tls = tls_context(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
    directory = "" if settings.database else tempfile.mkdtemp(prefix="minijwt-")
    log = Log(raw_stderr())

    def clean() -> None:
        log.close()
        if directory:
            shutil.rmtree(directory, ignore_errors=True)

    logging.basicConfig(stream=log, format=LOG_FORMAT, force=True)
    try:
        store = Store(settings.database or os.path.join(directory, "minijwt.db"))
        unknown = [f".env sets {name}, which is no setting of this server" for name in settings.unknown]
        for risk in unknown + check_exposure(settings, bool(store.names())):
            print(f"{PROGRAM}: warning: {risk}", file=sys.stderr)
        sockets = listen(settings.host, settings.port)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"{'https' if tls else 'http'}://{host}:{sockets[0].getsockname()[1]}"
        server = Server(App(settings, store, log=log), sockets, tls=tls, capacity=capacity())
        libraries = {"sqlite": sqlite3.sqlite_version, "openssl": ssl.OPENSSL_VERSION}
        python = sys.version.split()[0]
        log(Event("start", {"version": minijwt.__version__, "url": url, "python": python, **libraries}))
        log(Event("settings", settings.given or {"all": "default"}))
        with redirect_stderr(log):  # type: ignore[type-var]  # a Log writes and flushes, which is all that it takes
            _serve_until_signalled(server, f"Server active on {url}!", clean)
        log(Event("stop", {}))
    finally:
        clean()
    return 0


def _version_command(arguments: argparse.Namespace) -> int:
    """--version: with the digests of our sources, as sha256sum prints them."""
    print(f"minijwt {minijwt.__version__}")
    for name in ("minijwt.py", "server.py"):
        source = pkgutil.get_data("minijwt", name) or b""
        print(f"{hashlib.sha256(source).hexdigest()}  {name}")
    return 0


# A token, its key, and a moment at which it is good (RFC 7515 A.1); passwords as we store them (RFC 7914 §12 and §11)
RFC_TOKEN = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
    "bS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
RFC_KEY = b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
RFC_NOW = 1_300_819_379
RFC_PASSWORDS = {"scrypt": "pleaseletmein", "pbkdf2": "Password"}
RFC_STORED = {
    "scrypt": "16384$8$1$536f6469756d43686c6f72696465$7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2",
    "pbkdf2": "80000$4e61436c$4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56",
}


def _proofs(database: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield what selftest shows: a sentence, and what must be true. Each stands on the one before it."""
    settings = Settings((os.urandom(32),), (os.urandom(32),), rotate_refresh=True)
    cookie = ""

    def post(path: str, body: str = "") -> int:
        """Return the status of the answer; the cookie that it may set goes with the next request."""
        nonlocal cookie
        fields = {b"content-type": b"application/x-www-form-urlencoded", b"cookie": cookie.encode()}
        answer = respond(App(settings, Store(database)), Request("POST", path, fields, body.encode()))
        cookie = dict(answer.fields).get("Set-Cookie", cookie).partition(";")[0]
        return answer.status

    def login() -> bool:
        Accounts(settings, Store(database)).add_user("ann", "correct horse")
        return post("/login", "username=ann&password=correct+horse") == 200

    def tamper() -> bool:
        nonlocal cookie
        cookie = cookie[:-9] + ("A" if cookie[-9] != "A" else "B") + cookie[-8:]
        return post("/refresh") == 406

    key = minijwt.base64url_decode(RFC_KEY)
    yield "HMAC-SHA256: the token of RFC 7515", lambda: bool(minijwt.explain(RFC_TOKEN, key, now=RFC_NOW)["valid"])
    scheme = COST.partition("$")[0]
    stored = f"{scheme}${RFC_STORED[scheme]}"
    yield f"{scheme}: the password of RFC 7914", lambda: check_password(RFC_PASSWORDS[scheme], stored)
    yield f"SQLite {sqlite3.sqlite_version}: a user is kept, and logs in", login
    yield "the refresh token is good for another", lambda: post("/refresh") == 200
    yield "the same, with one letter of its signature changed, is refused", tamper


def _selftest_command(arguments: argparse.Namespace) -> int:
    """selftest: five lines; needs no port and no setting, and leaves nothing behind."""
    status = 0
    with tempfile.TemporaryDirectory(prefix="minijwt-") as directory:
        for sentence, holds in _proofs(os.path.join(directory, "minijwt.db")):
            try:
                good = holds()
            except Exception:
                logger.exception(sentence)
                good = False
            print(f"{'ok' if good else 'FAILED':8}{sentence}", flush=True)
            status = status if good else 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A login server: JWT access tokens, refresh tokens in an HttpOnly cookie.",
        epilog="Settings come from the environment and from .env: " + ", ".join(VARIABLES) + ".",
    )
    parser.add_argument("--version", action="store_const", dest="run", const=_version_command,
                        help="show the version, and the SHA-256 of both files")  # fmt: skip
    parser.set_defaults(run=_serve_command)
    commands = parser.add_subparsers(title="commands", metavar="[COMMAND]", description="without one, it serves")
    commands.add_parser("init", help="write a .env with fresh secrets").set_defaults(run=_init_command)
    text = "show that all a login needs works here, as the RFCs have it"
    commands.add_parser("selftest", help=text).set_defaults(run=_selftest_command)
    commands.add_parser("token", help="encode, decode, explain, keygen: what minijwt.py does")
    user = commands.add_parser("user", help="add, passwd, remove, list, logout")
    user.set_defaults(run=_user_command)
    actions = user.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in (
        ("add", "add a user; the password is asked for, or one line of standard input"),
        ("passwd", "change a password, which ends all of the user's sessions"),
        ("remove", "remove a user"),
        ("logout", "end all sessions of a user"),
    ):
        actions.add_parser(action, help=text).add_argument("name")
    actions.add_parser("list", help="print all names")
    text = "take refresh tokens that the tutorial's own app has signed, until the next passwd or logout"
    actions.choices["add"].add_argument("--accept-tutorial-tokens", action="store_true", help=text)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 all is well, 2 something is wrong and was said in a sentence."""
    warnings.simplefilter("ignore", minijwt.InsecureKeyLengthWarning)  # once is enough, and `check_exposure` says it
    logging.basicConfig(format=LOG_FORMAT)
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["token"]:
        return minijwt.main(argv[1:])
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except (SettingsError, OSError, ValueError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
    except (KeyboardInterrupt, EOFError):  # at the question for a password
        print(f"{PROGRAM}: nothing has changed", file=sys.stderr)
    except StoreFailed as error:
        print(f"{PROGRAM}: the database does not answer: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
