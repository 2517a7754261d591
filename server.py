#!/usr/bin/env python3
"""minijwt server: login with JWT access tokens, and refresh tokens in an HttpOnly cookie.

    $ python3 server.py
    Server active on http://localhost:8000!

    POST /login     a form with username and password → an access token in JSON, a refresh token in a cookie
    POST /refresh   that cookie → a new access token
    POST /logout    that cookie → the session is ended
    POST /password  a form with username, password and new_password → the password is changed
    GET  /me        an access token → its claims
    GET  /          "server running"; for a browser, a page that takes a token apart

The file has five parts. Each builds only on those before it; a reader may stop after any of them:

    I    What a login is        settings, passwords, the store in memory, the rules of login, refresh and logout
    II   HTTP as values         bytes to Request, Request to Response, Response to bytes; nothing is sent or received
    III  Bytes move             the conversation with one client, under the standard library's own server
    IV   What keeps it standing a server for thousands of clients, log, SQLite, reading settings, the command line
    V    The page               what a browser shows at /

The way a request goes:

    bytes → Server or Handler → conversation → Request → respond() → endpoint → Accounts → minijwt, Store
          → Response → bytes

The words of this file, each with its one meaning:

    tutorial       "JWT authentication with refresh tokens", an Express app whose clients work here unchanged: hence
                   the demo user, the form fields and the status 406
    demo user      admin, with the tutorial's password: exists while a private server has no user of its own
    access token   str, proves for some minutes who its bearer is
    refresh token  str, in a cookie for a day by default, can only be exchanged for new access tokens
    session        what a login begins and a logout ends: all refresh tokens with one `sid`
    generation     int, how often the session's refresh token has been rotated: 0 at login
    epoch          str, random, one for each user, copied into refresh tokens; a new one ends all sessions of the user
    now            float, seconds since 1970-01-01 UTC; deadlines are seconds of a monotonic clock instead
    header field   a header line of a request: bytes, its name in lower case
    place          bytes, the network of a client: attempts to log in and connections are counted by place
    lane           where a request is answered: on the loop, in the thread that writes, or in one that hashes

Settings, store, clock and cost are arguments: a test builds a whole server without a port, a sleep or a file.
Nothing is used above its definition.
"""

from __future__ import annotations

import argparse
import errno
import getpass
import hashlib
import heapq
import hmac
import http.client
import ipaddress
import json
import logging
import math
import os
import queue
import re
import selectors
import shutil
import signal
import socket
import sqlite3
import ssl
import stat
import sys
import tempfile
import threading
import time
import unicodedata
import warnings
from base64 import b64decode, b64encode
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, suppress
from email.utils import formatdate
from functools import lru_cache, partial, wraps
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import FileIO, RawIOBase
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TextIO

try:
    import minijwt
except ImportError as error:
    # An old Python, or one file without the other.
    sys.exit(f"server.py: {error}")
# Not on every system.
try:
    import resource
    import syslog
except ImportError:
    resource = syslog = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing import TypeAlias

    Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
    Conversation: TypeAlias = "Generator[bytes | Request, Any, bytes]"

logger = logging.getLogger("minijwt")

# The name of this program: server.py, or minijwt.pyz, which holds both files.
PROGRAM = os.path.basename(__file__ if os.path.isfile(__file__) else os.path.dirname(__file__))
COMMAND = f"python3 {PROGRAM}"

# ==== Part I: What a login is =============================================================================
# Plain calls, without HTTP, SQL or sockets. Accounts.login checks a password and returns an access and a refresh token;
# `refresh` exchanges the refresh token for a new access token; `logout` ends the session. A refresh token carries its
# session's id, generation and epoch. The store has a row only for sessions that were rotated or ended: no row means
# generation 0, alive. Accounts has the rules; the rooms before it are its tools.


# ---- Settings --------------------------------------------------------------------------------------------
# What the operator decides, in one object that is made at the start. Part IV reads it from text.

DEMO_USERNAME, DEMO_PASSWORD = "admin", "admin123"  # the tutorial's user, known to all its readers


class SettingsError(Exception):
    """A setting that is wrong or too dangerous. Its text is one sentence for the operator, who can fix it.

    `passing` is True if it may go away without a change, such as a port in use: a supervisor should try again.
    """

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class Settings(NamedTuple):
    """All that can be set. Durations in seconds; "" where a path is not set."""

    access_secrets: tuple[bytes, ...]  # the first one signs; others still verify
    refresh_secrets: tuple[bytes, ...]
    host: str = "localhost"
    port: int = 8000
    access_ttl: int = 10 * 60
    refresh_ttl: int = 24 * 60 * 60
    unauthorized_status: int = 406
    cookie_name: str = "jwt"
    cookie_samesite: str = "None"
    cookie_secure: bool = True
    database: str = ""  # the path of a SQLite file, or etcd://…; "" is memory
    # For etcd, paths of PEM files, and of a file that holds user:password.
    database_ca: str = ""
    database_cert: str = ""
    database_key: str = ""
    database_login: str = ""
    rotate_refresh: bool = False
    allowed_origins: tuple[str, ...] = ()  # as browsers spell them: their pages may use the server with the cookie
    tls_cert: str = ""  # the path of a PEM file; "" is plain HTTP
    tls_key: str = ""
    login_max_failures: int = 10  # of one account from one place before waits begin; 0 is no limit
    trusted_proxies: tuple[Network, ...] = ()  # their X-Forwarded-For is believed
    page: bool = True  # the page at / and its trace
    access_log: bool = False
    random_secrets: bool = False  # none were given: they are new in each run, and a restart ends all sessions
    # What the operator has set, as it was spelled (of a secret only its length), and what .env sets that is unknown.
    given: Mapping[str, str] = {}
    unknown: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show the address only, so that no log and no traceback shows the secrets."""
        return f"<Settings {self.host}:{self.port}>"

    @property
    def private(self) -> bool:
        """Whether only programs on this machine can reach the server."""
        loopback = self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        return loopback and not self.trusted_proxies


# ---- Passwords -------------------------------------------------------------------------------------------
# What is stored instead of a password: "scrypt$n$r$p$salt$hash" or "pbkdf2$rounds$salt$hash". The cost is stored with
# the hash, so that COST can rise while old passwords stay valid.

MIN_PASSWORD_CHARS = 8  # NIST SP 800-63B §5.1.1.2
MAX_PASSWORD_BYTES = 1_024
SALT_BYTES = 16

# Schemes and their numbers; tests take a cheap one.
SCRYPT = "scrypt$16384$8$5"  # 16 MiB, a fifth of a second; RFC 7914
PBKDF2 = "pbkdf2$600000"  # HMAC-SHA256; RFC 8018


class HashFailed(Exception):
    """A password cannot be hashed now: no memory, or an OpenSSL that refuses the scheme."""


def derive(password: str, salt: bytes, cost: str) -> bytes:
    """Return the 32 bytes that `password` and `salt` give at `cost`; raise HashFailed if that cannot be computed."""
    scheme, *numbers = cost.split("$")
    try:
        if scheme == "pbkdf2":
            return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, int(numbers[0]))
        n, r, p = map(int, numbers)
        memory = 128 * r * (n + p + 2)  # bytes, as OpenSSL counts them
        return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32)
    except (AttributeError, MemoryError, OSError, ValueError) as error:
        raise HashFailed(f"{scheme}: {error}") from None


def best_cost() -> str:
    """Return the cost of new passwords: scrypt's if it works here. An OpenSSL in FIPS mode has it, and refuses it."""
    try:
        derive("", b"", "scrypt$2$1$1")
        return SCRYPT
    except HashFailed:
        return PBKDF2


COST = best_cost()


def hash_password(password: str, cost: str = COST) -> str:
    """Return what to store for `password`: the cost, a salt of its own, the hash."""
    salt = os.urandom(SALT_BYTES)
    return f"{cost}${salt.hex()}${derive(password, salt, cost).hex()}"


def check_password(password: str, stored: str) -> bool:
    """Tell whether `stored` was made from `password`, at the cost recorded in it."""
    cost, salt, digest = stored.rsplit("$", 2)
    derived = derive(password, bytes.fromhex(salt), cost)
    # HMAC, within both schemes, pads its key with NUL: "x" and "x\0" would be one password (RFC 2104 §2).
    return hmac.compare_digest(derived.hex(), digest) and "\0" not in password


def is_weaker(stored: str, cost: str) -> bool:
    """Tell whether `stored` was made at less than `cost`."""
    (had, *have, _, _), (scheme, *want) = stored.split("$"), cost.split("$")
    return had != scheme or any(int(a) < int(b) for a, b in zip(have, want))


def dummy_password(cost: str = COST) -> str:
    """Return a stored password that nothing matches: an unknown user costs the same work as a known one."""
    return f"{cost}${'00' * SALT_BYTES}$none"


# ---- Store -----------------------------------------------------------------------------------------------
# State that outlives a request. Each method is atomic. MemoryStore forgets at the end of the process; part IV has the
# same methods on SQLite and on etcd.

PRUNE_ROWS = 100  # how many rows are deleted at one time: no request waits for more
FIRST_WAIT_SECONDS, LAST_WAIT_SECONDS = 30, 3_600  # the least and the longest wait after too many attempts
FORGET_SECONDS = 86_400  # how long after the last attempt all are forgotten
MAX_ATTEMPT_ROWS = 100_000


class Redo(Exception):
    """Raised within `reading` by a call that would wait or write: the request is answered again, in the write lane."""


class StoreFailed(Exception):
    """The store failed; the call changed nothing, or with etcd may have. The message is for the log."""


class Standing(NamedTuple):
    """What the store says about a user and one session. Times in seconds since 1970."""

    password: str | None  # as hash_password makes it; None: there is no such user
    epoch: str | None
    any_user: bool
    pruned: int  # rows that expire no later may have been deleted
    generation: int | None  # None: no row, so neither rotated nor ended
    rotated: float
    ended: bool


class Store(Protocol):
    """What Accounts and the servers need of a store; MemoryStore says what each method does.

    Any of them may raise StoreFailed, and some of them Redo.
    """

    inline_reads: bool

    # fmt: off
    def reading(self, several: bool) -> AbstractContextManager[None]: ...
    def batch(self, works: list[Callable[[], Any]]) -> list[Any]: ...
    def close(self) -> None: ...
    def user_names(self) -> list[str]: ...
    def add_user(self, name: str, password: str, epoch: str) -> bool: ...
    def change_password(self, name: str, password: str, epoch: str, old: str | None = None) -> bool: ...
    def rehash(self, name: str, old: str, password: str) -> None: ...
    def replace_epoch(self, name: str, epoch: str) -> bool: ...
    def remove_user(self, name: str) -> bool: ...
    def look_up(self, name: str, sid: str, expires: int) -> Standing: ...
    def add_session(self, sid: str, expires: int) -> None: ...
    def rotate_session(self, sid: str, generation: int, expires: int, now: float) -> bool: ...
    def end_session(self, sid: str, expires: int) -> None: ...
    def count_login_attempt(self, key: bytes, now: float, limit: int) -> float: ...
    def clear_login_attempts(self, key: bytes) -> None: ...
    # fmt: on


class Attempts(NamedTuple):
    """Attempts to log in, of one account from one place; times in seconds since 1970."""

    number: int
    next: float  # when another one is allowed
    expires: float  # when all is forgotten


def next_attempt(before: Attempts | None, now: float, limit: int) -> tuple[float, Attempts | None]:
    """Return the seconds to wait, and if that is 0 what to remember.

    From the attempt number `limit` on, each makes the next one wait: FIRST_WAIT_SECONDS, doubled each time, up to
    LAST_WAIT_SECONDS. A longer wait means that the clock was set back, and is ignored.
    """
    number, until, _ = before if before and before.expires > now else Attempts(0, 0, 0)
    if now < until <= now + LAST_WAIT_SECONDS:
        return until - now, None
    doublings = number + 1 - limit
    wait = min(FIRST_WAIT_SECONDS << min(doublings, 20), LAST_WAIT_SECONDS) if doublings >= 0 else 0
    return 0, Attempts(number + 1, now + wait if wait else 0, now + FORGET_SECONDS)


class MemoryStore:
    """A Store that lasts as long as the process, as random secrets do. One lock for all threads."""

    inline_reads = True

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.RLock()
        self._users: dict[str, tuple[str, str]] = {}  # password and epoch
        self._sessions: dict[str, tuple[int, float, bool]] = {}  # generation, rotated, ended
        self._expiry: list[tuple[int, str]] = []  # a heap of expires and sid
        self._pruned = 0
        self._attempts: OrderedDict[bytes, Attempts] = OrderedDict()  # the oldest first

    def reading(self, several: bool) -> AbstractContextManager[None]:
        """Within it, a method that would wait or write raises Redo instead; `several` reads see one snapshot."""
        return nullcontext()

    def batch(self, works: list[Callable[[], Any]]) -> list[Any]:
        """Do all `works` and return their results once they are durable; raise StoreFailed if none was kept.

        A work may run more than once, so it must have no effect but through the store.
        """
        return [work() for work in works]

    def close(self) -> None:
        """Close what this thread has open; the next method opens it again."""

    def user_names(self) -> list[str]:
        """Return the names of all users, sorted by code point."""
        with self._lock:
            return sorted(self._users)

    def add_user(self, name: str, password: str, epoch: str) -> bool:
        """Add a user; return False if there is one of that name."""
        with self._lock:
            return self._users.setdefault(name, (password, epoch)) == (password, epoch)

    def change_password(self, name: str, password: str, epoch: str, old: str | None = None) -> bool:
        """Give a user another password and end all sessions; return False for no such user, or another than `old`."""
        with self._lock:
            if name not in self._users or old not in (None, self._users[name][0]):
                return False
            self._users[name] = password, epoch
            return True

    def rehash(self, name: str, old: str, password: str) -> None:
        """Replace the stored password `old` by `password`, unless it was changed meanwhile."""
        with self._lock:
            if name in self._users and self._users[name][0] == old:
                self._users[name] = password, self._users[name][1]

    def replace_epoch(self, name: str, epoch: str) -> bool:
        """End all sessions of a user; return False if there is none."""
        with self._lock:
            return name in self._users and self.change_password(name, self._users[name][0], epoch)

    def remove_user(self, name: str) -> bool:
        """Remove a user; return False if there is none."""
        with self._lock:
            return self._users.pop(name, None) is not None

    def look_up(self, name: str, sid: str, expires: int) -> Standing:
        """Return what is known of the user `name` and of the session `sid` ("": none), which ends at `expires`."""
        with self._lock:
            password, epoch = self._users.get(name, (None, None))
            session = self._sessions.get(sid, (None, 0.0, False))
            return Standing(password, epoch, bool(self._users), self._pruned, *session)

    def add_session(self, sid: str, expires: int) -> None:
        """Add the row of a new session: needed only if it ends so early that no row would mean "deleted"."""
        self._remember(sid, expires, (0, 0.0, False))

    def rotate_session(self, sid: str, generation: int, expires: int, now: float) -> bool:
        """Turn `generation` of a living session into the next; return False if it is not the newest any more."""
        with self._lock:
            newest, _, ended = self._sessions.get(sid, (0, 0.0, False))
            if ended or newest != generation:
                return False
            self._remember(sid, expires, (generation + 1, now, False))
            return True

    def end_session(self, sid: str, expires: int) -> None:
        """End a session for good, even during a rotation."""
        with self._lock:
            generation, rotated, _ = self._sessions.get(sid, (0, 0.0, False))
            self._remember(sid, expires, (generation, rotated, True))

    def _remember(self, sid: str, expires: int, row: tuple[int, float, bool]) -> None:
        """Store one row, then delete up to PRUNE_ROWS expired sessions and record the latest expiry deleted."""
        with self._lock:
            if sid not in self._sessions:
                heapq.heappush(self._expiry, (expires, sid))
            self._sessions[sid] = row
            for _ in range(PRUNE_ROWS):
                if not self._expiry or self._expiry[0][0] > self._clock():
                    break
                expired, gone = heapq.heappop(self._expiry)
                self._pruned = max(self._pruned, expired)
                del self._sessions[gone]

    def count_login_attempt(self, key: bytes, now: float, limit: int) -> float:
        """Count an attempt to log in before its password is checked; return 0, or the seconds to wait instead."""
        with self._lock:
            wait, attempts = next_attempt(self._attempts.get(key), now, limit)
            if attempts:
                self._attempts[key] = attempts
                self._attempts.move_to_end(key)
                if len(self._attempts) > MAX_ATTEMPT_ROWS or next(iter(self._attempts.values())).expires <= now:
                    self._attempts.popitem(last=False)
            return wait

    def clear_login_attempts(self, key: bytes) -> None:
        """Forget the attempts of `key`."""
        with self._lock:
            self._attempts.pop(key, None)


# ---- Accounts --------------------------------------------------------------------------------------------
# The rules: who may log in, and what a refresh token is worth. Only this room signs and verifies tokens. Knows no HTTP.

DEMO_EPOCH = "demo"  # of the demo user, who is in no store
GRACE_SECONDS = 30.0  # how long after a rotation the previous token still works: two tabs, or a lost response
CLOCK_SECONDS = 30.0  # how far ahead the clock of the issuing machine may be
MAX_COOKIES = 8  # how many refresh tokens of one request are verified; a subdomain may have planted some
MAX_NAME_BYTES = 255
SID_BYTES, EPOCH_BYTES = 16, 8

_ACCESS_CLAIMS = {"username", "iat", "exp"}
_TUTORIAL_CLAIMS = _ACCESS_CLAIMS  # what the tutorial's own app signs as a refresh token, too
_REFRESH_CLAIMS = {*_ACCESS_CLAIMS, "sid", "gen", "epoch"}
# Zero-width joiners hold Persian words and emoji families together; other invisible characters have no use in a name.
_JOINERS = str.maketrans("", "", "\u200c\u200d")


class Refused(Exception):
    """Wrong credentials, or no good token.

    `code` says which, for the log. `wait` is seconds. `sid` is None at a login, where there is no session yet, and ""
    where no token names one.
    """

    def __init__(self, code: str, username: str = "", sid: str | None = None, wait: float = 0) -> None:
        super().__init__(code)
        self.code, self.username, self.sid, self.wait = code, username, sid, wait


class RefreshToken:
    """A refresh token whose signature is good: its claims, each of its type."""

    def __init__(self, claims: dict[str, Any], token: str) -> None:
        """Raise Refused unless `claims`, the content of `token`, are those of a refresh token."""
        self.claims, self.epoch = claims, None
        if claims.keys() == _REFRESH_CLAIMS:
            self.sid, self.generation, self.epoch = claims["sid"], claims["gen"], claims["epoch"]
        elif claims.keys() == _TUTORIAL_CLAIMS:
            # It does not name its session, so a digest of the token does.
            self.sid, self.generation = hashlib.sha256(token.encode()).hexdigest(), 0
        else:
            raise Refused("no_refresh_token", sid="")
        self.username = claims["username"]
        # The types exactly: to Python, True is an int as well.
        types = type(self.username), type(self.sid), type(self.generation), type(claims.get("epoch", ""))
        if types != (str, str, int, str) or self.generation < 0 or type(claims["exp"]) not in (int, float):
            raise Refused("no_refresh_token", sid="")
        # SQLite's integers have 64 bits.
        self.expires = math.ceil(min(max(claims["exp"], 0), 2**53))

    def refused(self, code: str) -> Refused:
        """Return the Refused to raise for this token."""
        return Refused(code, self.username, self.sid)

    def successor(self) -> dict[str, Any]:
        """Return the claims of the next refresh token. Nothing in them is random: two refreshes return the same one."""
        return {**self.claims, "gen": self.generation + 1}


class Tokens(NamedTuple):
    """What a login or a refresh gives."""

    username: str
    sid: str
    access: str
    refresh: str | None  # None: the refresh token that was presented stays
    expires: int  # of the refresh token, seconds since 1970


def place_of(address: Address) -> bytes:
    """Return the network that `address` belongs to: one IPv4 address, or the /56 that a site has of IPv6.

    An address of NAT64 (64:ff9b::/96, RFC 6052 §2.1) or 6to4 (2002::/16, RFC 3056 §2) is the IPv4 address within; a
    link-local one is its own place.
    """
    packed = address.packed
    if address.version == 4:
        return b"\4" + packed
    if packed.startswith(b"\0\x64\xff\x9b" + bytes(8)):
        return b"\4" + packed[12:]
    if packed.startswith(b"\x20\x02"):
        return b"\4" + packed[2:6]
    return b"\6" + (packed if address.is_link_local else packed[:7])


def _nfc(text: str, most: int) -> str:
    """Return `text` in NFC if that has at most `most` bytes; raise Refused otherwise."""
    # Normalizing takes quadratic time, and leaves a third of the bytes at least: so longer text is rejected first.
    if len(text.encode()) > 3 * most or len((normal := unicodedata.normalize("NFC", text)).encode()) > most:
        raise Refused("too_long")
    return normal


def checked_name(name: str) -> str:
    """Return `name` in NFC; raise ValueError if no user can be called that."""
    name = unicodedata.normalize("NFC", name)
    visible = name.translate(_JOINERS)
    if not visible.isprintable() or name.strip(" \u200c\u200d") != name or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        raise ValueError(f"a name has 1 to {MAX_NAME_BYTES} bytes, and no control characters or white space around it")
    return name


def checked_password(password: str) -> str:
    """Return `password` in NFC; raise ValueError if it cannot be one."""
    # NUL: see `check_password`. Half of a surrogate pair: no form can send it.
    if re.search("[\0\ud800-\udfff]", password):
        raise ValueError("a password is text, and has no NUL")
    try:
        password = _nfc(password, MAX_PASSWORD_BYTES)
    except Refused:
        raise ValueError(f"a password has at most {MAX_PASSWORD_BYTES} bytes") from None
    if len(password) < MIN_PASSWORD_CHARS:
        raise ValueError(f"a password has at least {MIN_PASSWORD_CHARS} characters")
    return password


def login_name(username: str) -> str:
    """Return the name to look up for `username` as it was typed: NFC, without white space around it."""
    return _nfc(username, MAX_NAME_BYTES).strip()


def signing_key(token: str, keys: tuple[minijwt.Key, ...]) -> minijwt.Key:
    """Return the one of `keys` that has signed `token`, else the last. Looks at the signature only, not at claims."""
    for key in keys[:-1]:
        with suppress(minijwt.InvalidTokenError):
            signing_input, _, _, signature = minijwt.split(token)
            minijwt.check_signature(signing_input, signature, key)
            return key
    return keys[-1]


def new_epoch() -> str:
    """Return a new epoch for a user: refresh tokens with another one are void."""
    return os.urandom(EPOCH_BYTES).hex()


def read_token(token: str, keys: tuple[minijwt.Key, ...], now: float | None) -> dict[str, Any]:
    """Return the claims of a `token` that one of `keys` has signed; raise InvalidTokenError if it is not good at `now`.

    The clock that signed it may have been CLOCK_SECONDS ahead. `now` is None: only the signature counts.
    """
    key = signing_key(token, keys)
    if now is None:
        return minijwt.decode(token, key, options={"verify_exp": False, "verify_iat": False, "verify_nbf": False})
    try:
        return minijwt.decode(token, key, now=now)
    except minijwt.ImmatureSignatureError:
        claims = minijwt.decode(token, key, options={"verify_iat": False}, now=now)
        minijwt.check_claims(claims, minijwt.Expected(now + CLOCK_SECONDS), ("iat",))
        return claims


class Accounts:
    """Users, sessions and their tokens. `clock` returns seconds since 1970, `cost` is that of new passwords."""

    def __init__(
        self, settings: Settings, store: Store, clock: Callable[[], float] = time.time, cost: str = COST
    ) -> None:
        self._settings, self._store, self._clock, self._cost = settings, store, clock, cost
        self._private = settings.private
        with warnings.catch_warnings():
            # `check_exposure`, in part IV, reports short secrets.
            warnings.simplefilter("ignore", minijwt.InsecureKeyLengthWarning)
            self._access_keys = tuple(map(minijwt.Key, settings.access_secrets))
            self._refresh_keys = tuple(map(minijwt.Key, settings.refresh_secrets))

    # -- tokens

    def login(self, username: str, password: str, address: Address, local: bool = True) -> Tokens:
        """Return the tokens of a new session; raise Refused if the credentials are wrong, or tried too often.

        `local` means that the request came by a loopback name and no proxy. Only then may the demo user log in.
        """
        username, password = login_name(username), _nfc(password, MAX_PASSWORD_BYTES)
        sid = os.urandom(SID_BYTES).hex()
        standing = self._check_credentials(username, password, address, local)
        epoch = DEMO_EPOCH if self._is_demo_user(username, standing) else standing.epoch
        if standing.password and is_weaker(standing.password, self._cost):
            self._store.rehash(username, standing.password, hash_password(password, self._cost))
        issued = int(self._clock())
        expires = issued + self._settings.refresh_ttl
        if expires <= standing.pruned:
            # The clock was set back: without a row this session would look deleted.
            self._store.add_session(sid, expires)
        claims = {"username": username, "sid": sid, "gen": 0, "epoch": epoch, "iat": issued, "exp": expires}
        return self._tokens(claims, sid, issued)

    def _check_credentials(self, username: str, password: str, address: Address, local: bool) -> Standing:
        """Return the standing of the user whose password this is; raise Refused if it is not, or tried too often."""
        limit, standing = self._settings.login_max_failures, self._store.look_up(username, "", 0)
        # People type passwords where the name belongs: so only the name of a user is logged.
        known = username if standing.password else ""
        key = hashlib.sha256(place_of(address) + username.encode()).digest()[:16]
        if limit and (wait := self._store.count_login_attempt(key, self._clock(), limit)):
            raise Refused("throttled", known, wait=wait)
        # The same work whether there is such a user or not.
        good = check_password(password, standing.password or dummy_password(self._cost))
        if self._is_demo_user(username, standing):
            good = hmac.compare_digest(password.encode(), DEMO_PASSWORD.encode())
            if good and not local:
                raise Refused("demo_user_not_local")
        if not good:
            raise Refused("wrong_credentials", known)
        if limit:
            self._store.clear_login_attempts(key)
        return standing

    def refresh(self, tokens: list[str]) -> Tokens:
        """Return a new access token, and while rotation is on a new refresh token, for the session among `tokens`.

        Raises Refused if there is none, or several; and for a token older than the previous one, or after the grace:
        one of its two holders has stolen it, and the session ends for both.
        """
        now = self._clock()
        while True:
            presented, standing = self._choose(tokens, now)
            newest = standing.generation or 0
            if presented.generation > newest:
                raise presented.refused("unknown_generation")
            if presented.generation == newest:
                if not self._settings.rotate_refresh:
                    return self._tokens(presented.claims, presented.sid, int(now), keep=True)
                if self._store.rotate_session(presented.sid, newest, presented.expires, now):
                    return self._tokens(presented.successor(), presented.sid, int(now))
                # Another request rotated first, so this token is now the previous one.
                continue
            # Within the grace the previous token gets the same successor: two tabs, or a lost response.
            if presented.generation == newest - 1 and abs(now - standing.rotated) <= GRACE_SECONDS:
                return self._tokens(presented.successor(), presented.sid, int(now))
            self._store.end_session(presented.sid, presented.expires)
            raise presented.refused("reuse_detected")

    def logout(self, tokens: list[str]) -> list[RefreshToken]:
        """End every session among `tokens` for good; return a token of each.

        A good signature is enough, whatever the token says about time: a logout at a machine whose clock is behind must
        not leave the session alive.
        """
        presented, _ = self._newest_of_each(tokens, None)
        for each in presented:
            self._store.end_session(each.sid, each.expires)
        return presented

    def whoami(self, token: str) -> dict[str, Any]:
        """Return the claims of an access token; raise InvalidTokenError if it is not good. Touches no state."""
        claims = read_token(token, self._access_keys, self._clock())
        if claims.keys() != _ACCESS_CLAIMS:
            raise minijwt.InvalidTokenError("these are not the claims of an access token")
        return claims

    def explain(self, token: str, shift: int = 0) -> dict[str, Any]:
        """Return what `minijwt.explain` says of a token `shift` seconds from now, with the secret that signed it.

        As `whoami` does, it lets the clock of the signer be CLOCK_SECONDS ahead; it does not look for missing claims.
        """
        now, key = self._clock() + shift, signing_key(token, self._access_keys)
        report = minijwt.explain(token, key, now=now)
        if any(step["name"] == "iat" and step["code"] == "immature" for step in report["steps"]):
            report = minijwt.explain(token, key, now=now, leeway=CLOCK_SECONDS)
        return report

    def _tokens(self, claims: dict[str, Any], sid: str, now: int, keep: bool = False) -> Tokens:
        """Return a new access token, and the refresh token with `claims` unless the old one is kept."""
        username = claims["username"]
        access = {"username": username, "iat": now, "exp": now + self._settings.access_ttl}
        refresh = None if keep else minijwt.encode(claims, self._refresh_keys[0])
        return Tokens(username, sid, minijwt.encode(access, self._access_keys[0]), refresh, claims["exp"])

    def _read_refresh(self, token: str, now: float | None) -> RefreshToken:
        """Return what a refresh token says; raise Refused if it is not good at `now`; see `read_token`."""
        try:
            return RefreshToken(read_token(token, self._refresh_keys, now), token)
        except minijwt.InvalidTokenError as error:
            raise Refused(error.code, sid="") from None

    def _newest_of_each(self, tokens: list[str], now: float | None) -> tuple[list[RefreshToken], Refused]:
        """Return the newest good token of each session, and the Refused of the last bad token."""
        refused = Refused("no_token", sid="")
        newest: dict[str, RefreshToken] = {}  # by sid
        for token in tokens[:MAX_COOKIES]:
            try:
                read = self._read_refresh(token, now)
            except Refused as error:
                # Another program's cookie: it neither counts nor hides ours.
                refused = error
                continue
            if read.sid not in newest or newest[read.sid].generation < read.generation:
                newest[read.sid] = read
        return list(newest.values()), refused

    def _choose(self, tokens: list[str], now: float) -> tuple[RefreshToken, Standing]:
        """Return the token of the one living session among `tokens`; raise Refused if there is none, or several."""
        if len(tokens) == 1:
            only = self._read_refresh(tokens[0], now)
            return only, self._look_up(only)
        found, refused = self._newest_of_each(tokens, now)
        living = []
        for each in found:
            try:
                living.append((each, self._look_up(each)))
            except Refused as error:
                refused = error
        if len(living) > 1:
            raise Refused("several_sessions", sid="")
        if not living:
            raise refused
        return living[0]

    def _look_up(self, token: RefreshToken) -> Standing:
        """Look up the session of `token`; raise Refused if it has ended, or its user was removed or logged out."""
        standing = self._store.look_up(token.username, token.sid, token.expires)
        demo = self._is_demo_user(token.username, standing)
        epoch = DEMO_EPOCH if demo else standing.epoch
        if epoch is None:
            raise token.refused("no_user")
        if token.epoch is None:
            # Of the tutorial's app, whose one user is the demo user.
            if not demo or self._settings.rotate_refresh:
                raise token.refused("tutorial_token")
        elif token.epoch != epoch:
            raise token.refused("sessions_ended")
        if standing.ended:
            raise token.refused("session_ended")
        if standing.generation is None and token.expires <= standing.pruned:
            # The clock was set forward and back: the row may have been deleted, and with it that the session ended.
            raise token.refused("session_forgotten")
        return standing

    def _is_demo_user(self, username: str, standing: Standing) -> bool:
        """Tell whether this is the demo user, who exists on a private server that has no user of its own."""
        return username == DEMO_USERNAME and self._private and not standing.any_user

    # -- users

    def change_own_password(
        self, username: str, password: str, new_password: str, address: Address, local: bool = True
    ) -> str:
        """Give a user who knows the old password a new one, and end all sessions; return the user's name.

        Raises Refused as `login` does, and then ValueError, one sentence, if the new password is not acceptable.
        """
        username, password = login_name(username), _nfc(password, MAX_PASSWORD_BYTES)
        standing = self._check_credentials(username, password, address, local)
        if standing.password is None:
            raise ValueError("the demo user's password cannot be changed")
        new_password = checked_password(new_password)
        stored = hash_password(new_password, self._cost)
        while not self._store.change_password(username, stored, new_epoch(), standing.password):
            # Another request changed it. To the same password: done. If the old one was only hashed anew: again.
            standing = self._store.look_up(username, "", 0)
            current = standing.password or dummy_password(self._cost)
            if check_password(new_password, current):
                break
            if not check_password(password, current):
                raise Refused("wrong_credentials", username)
        return username

    def add_user(self, name: str, password: str) -> None:
        """Add a user; raise ValueError, one sentence, if the name or the password is not acceptable."""
        name, stored = checked_name(name), hash_password(checked_password(password), self._cost)
        if not self._store.add_user(name, stored, new_epoch()):
            raise ValueError(f"there is a user {name} already: `user passwd` changes the password")

    def change_password(self, name: str, password: str) -> None:
        """Give a user a new password, and end all of the user's sessions; raise ValueError as `add_user` does."""
        name, stored = checked_name(name), hash_password(checked_password(password), self._cost)
        self._check_found(name, self._store.change_password(name, stored, new_epoch()))

    def end_sessions(self, name: str) -> None:
        """End all sessions of a user; raise ValueError if there is none."""
        self._check_found(name, self._store.replace_epoch(checked_name(name), new_epoch()))

    def remove_user(self, name: str) -> None:
        """Remove a user, and so end all sessions; raise ValueError if there is none."""
        self._check_found(name, self._store.remove_user(checked_name(name)))

    @staticmethod
    def _check_found(name: str, found: bool) -> None:
        if not found:
            raise ValueError(f"there is no user {name}")


# ==== Part II: HTTP as values =============================================================================
# `Framer` cuts bytes into Requests, `respond` turns a Request into a Response, `render` turns that into bytes. Nothing
# here sends or receives: tests push tables through these functions, whole and byte by byte. Framing is strict: where
# two servers disagree about the end of a request, requests can be smuggled (RFC 9112 §11.2). Ambiguous input is
# refused, and the connection closed.


# ---- Messages --------------------------------------------------------------------------------------------
# Bytes to Request, Response to bytes (RFC 9110, RFC 9112).

MAX_LINE_BYTES = 8_192  # a request line or a field; RFC 9112 §3
MAX_HEAD_BYTES = 32_768  # eight cookie jars of 4 KB
MAX_FIELDS = 100
MAX_BODY_BYTES = 16_384
MAX_PAIRS = 200  # fields of a form, cookies of a request
NO_ADDRESS = ipaddress.IPv4Address(0)
DEFAULT_PORTS = {"http": "80", "https": "443"}


class Event(NamedTuple):
    """Something for the log."""

    name: str
    fields: Mapping[str, str]


class HTTPError(Exception):
    """An error response: a message for people, a stable code for programs; header fields, events for the log."""

    def __init__(
        self, status: int, code: str, message: str, *fields: tuple[str, str], events: tuple[Event, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fields, self.events = status, code, message, fields, events


class Request(NamedTuple):
    """One whole request."""

    method: str
    path: str  # without the query, which no endpoint looks at
    fields: dict[bytes, bytes]
    body: bytes = b""
    keep_alive: bool = True
    version: bytes = b"HTTP/1.1"
    address: Address = NO_ADDRESS  # the client's: the peer, or what a trusted proxy says of its own
    events: tuple[Event, ...] = ()  # about proxy fields, for the log


# The Content-Security-Policy of every response but the page.
STRICT_POLICY = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"


class Response(NamedTuple):
    """A response without the fields that `render` adds."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    fields: tuple[tuple[str, str], ...] = ()
    events: tuple[Event, ...] = ()  # for the log, once the response is final
    policy: str = STRICT_POLICY


_TCHAR = re.escape(rb"!#$%&'*+-.^_`|~") + b"0-9A-Za-z"  # RFC 9110 §5.6.2
_REQUEST_LINE = re.compile(rb"[%b]+ [!-~\x80-\xff]+ (HTTP/[0-9]\.[0-9])" % _TCHAR)  # RFC 9112 §3
# A whole head without its last CR LF (RFC 9112 §2, §3, §5). No line is folded, no white space stands before a colon:
# servers disagree whether that is a field.
_HEAD = re.compile(
    rb"([%b]+) ([!-~\x80-\xff]+) (HTTP/1\.[0-9])((?:\r\n[%b]+:[\t -~\x80-\xff]*)*)" % (_TCHAR, _TCHAR)
)
# What no head may hold. About a bare CR or LF two servers disagree how many requests they see (RFC 9112 §2.2, §11.2).
_CONTROL = re.compile(rb"[^\t\r\n -~\x80-\xff]|\r(?!\n|\Z)|(?<!\r)\n")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
# RFC 9110 §7.2, without percent-encoding and sub-delims.
_HOST_FIELD = re.compile(rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(?i:https?)://(" + _HOST_FIELD.pattern + rb")(/[^?]*)?(?:\?.*)?")  # RFC 3986 §3


def check_beginning(head: bytes) -> None:
    """Raise HTTPError if `head` begins with something that no valid head does.

    Of several faults, raises the one that a byte-by-byte reader meets first.
    """
    control, end = _CONTROL.search(head), head.find(b"\r\n")
    fault = HTTPError(400, "control_character", "A control character, or a line that does not end in CR LF.")
    if control and (end < 0 or control.start() <= end):
        raise fault
    if 0 <= end <= MAX_LINE_BYTES:
        line = _REQUEST_LINE.fullmatch(head, 0, end)
        if not line:
            raise HTTPError(400, "malformed_request_line", "The request line is not METHOD TARGET HTTP/1.1.")
        if not line[1].startswith(b"HTTP/1."):
            raise HTTPError(505, "http_version", "Only HTTP/1.1 and HTTP/1.0 are supported.")
    if control:
        raise fault


def check_size(head: bytes) -> None:
    """Raise HTTPError for a head that is too large."""
    lines = head.split(b"\r\n")
    if len(lines[0]) > MAX_LINE_BYTES:
        raise HTTPError(414, "line_too_long", "The request line is too long.")
    if len(head) > MAX_HEAD_BYTES or len(lines) > MAX_FIELDS + 1 or max(map(len, lines)) > MAX_LINE_BYTES:
        raise HTTPError(431, "head_too_large", "The header is too large.")


def parse_fields(lines: bytes) -> dict[bytes, bytes]:
    """Return the header fields in `lines`, each of which begins with CR LF.

    Several of one name are joined (RFC 9110 §5.3, RFC 9113 §8.2.3).
    """
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in fields:
            value = fields[name] + (b"; " if name == b"cookie" else b", ") + value
        fields[name] = value
    return fields


def content_length(fields: Mapping[bytes, bytes]) -> int:
    """Return how many bytes the body has (RFC 9112 §6.3); raise HTTPError if that is ambiguous or too many."""
    if b"transfer-encoding" in fields:
        # Never followed, so never a source of smuggled requests (RFC 9112 §6.1).
        if fields[b"transfer-encoding"].lower() == b"chunked" and b"content-length" not in fields:
            raise HTTPError(411, "length_required", "Send a Content-Length, not chunks.")
        raise HTTPError(400, "transfer_encoding", "Transfer-Encoding is not supported.")
    if b"content-length" not in fields:
        return 0
    length = fields[b"content-length"]
    if b"," in length and len(sizes := {size.strip(b" \t") for size in length.split(b",")}) == 1:
        # The same number, several times over.
        (length,) = sizes
    length = length.lstrip(b"0") or length[:1]
    # For bytes these are 0 to 9 and no others; int() would take +5, 5_0 and " 5".
    if not length.isdigit():
        raise HTTPError(400, "content_length", "Content-Length is not a number.")
    # The number of digits first, since CPython refuses to read 4,300 of them.
    if len(length) > 9 or int(length) > MAX_BODY_BYTES:
        raise HTTPError(413, "body_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes.")
    return int(length)


def parse_address(text: str) -> Address | None:
    """Return the address that `text` spells, an IPv4 one if it is mapped into IPv6; None if it spells none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def check_host(fields: Mapping[bytes, bytes], version: bytes) -> None:
    """Raise HTTPError unless there is exactly one valid Host (RFC 9112 §3.2); HTTP/1.0 may do without."""
    # Two have been joined by a comma, which is not valid.
    host = fields.get(b"host", b"")
    bad = not _HOST_FIELD.fullmatch(host)
    bad = bad or (host[:1] == b"[" and not parse_address(host[1:].decode().partition("]")[0]))
    if bad and (version != b"HTTP/1.0" or b"host" in fields):
        raise HTTPError(400, "host", "There must be exactly one valid Host.")


def parse_target(target: bytes, method: bytes, fields: dict[bytes, bytes]) -> str:
    """Return the path in a request's target (RFC 9112 §3.2), without its query; an absolute one also replaces Host."""
    has_fragment = b"#" in target
    if target[:1] != b"/" and (match := _ABSOLUTE.fullmatch(target)):
        # Absolute-form, as to a proxy: Host is ignored (§3.2.2).
        fields[b"host"], target = match[1], match[2] or b"/"
        check_host(fields, b"HTTP/1.1")
    no_path = target[:1] != b"/" and (target, method) != (b"*", b"OPTIONS") and method != b"CONNECT"
    if no_path or has_fragment:
        raise HTTPError(400, "malformed_target", "The target of the request is not a path.")
    return target.partition(b"?")[0].decode("latin-1")


def keeps_alive(fields: Mapping[bytes, bytes], version: bytes) -> bool:
    """Tell whether the connection stays open after the answer (RFC 9112 §9.3)."""
    if b"connection" not in fields:
        return version != b"HTTP/1.0"
    options = [option.strip(b" \t") for option in fields[b"connection"].lower().split(b",")]
    return b"close" not in options and (version != b"HTTP/1.0" or b"keep-alive" in options)


# What proxies add, mostly.
FORWARDING_FIELDS = {
    b"forwarded", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
}  # fmt: skip
# X-Forwarded-For as proxies write it: an address, perhaps quoted, in brackets or with a port.
_HOP = re.compile(r'"?(?:\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+|([^"\[\]]+?))"?')


def client_address(
    fields: Mapping[bytes, bytes], peer: Address, trusted: tuple[Network, ...]
) -> tuple[Address, tuple[Event, ...]]:
    """Return the client's address, and an event if the proxy fields were not used.

    X-Forwarded-For is believed of trusted proxies only. It is walked from the right, where the last proxy wrote; the
    first address that is not trusted counts.
    """
    if not any(peer in network for network in trusted):
        return peer, (Event("proxy", {"result": "not_trusted", "address": str(peer)}),)
    forwarded = fields.get(b"x-forwarded-for", b"").decode("latin-1")
    for hop in reversed(forwarded.split(",")):
        if not hop.strip(" \t"):
            continue
        match = _HOP.fullmatch(hop.strip(" \t"))
        address = parse_address(match[match.lastindex]) if match and match.lastindex else None
        if address is None:
            return peer, (Event("proxy", {"result": "not_understood", "field": forwarded, "address": str(peer)}),)
        if not any(address in network for network in trusted):
            return address, ()
    return peer, ()


def parse_head(head: bytes, peer: Address = NO_ADDRESS, trusted: tuple[Network, ...] = ()) -> tuple[Request, int]:
    """Return the request whose head, without the empty line, is `head`, and the length of the body to come.

    Raises HTTPError if it is malformed, too large, or ambiguous about where it ends.
    """
    match = _HEAD.fullmatch(head)
    if not match or len(head) > MAX_LINE_BYTES or head.count(b"\r\n") > MAX_FIELDS:
        check_beginning(head + b"\r\n")
        check_size(head)
    if not match:
        raise HTTPError(400, "malformed_field", "A header line is not of the form NAME: VALUE.")
    method, target, version, lines = match.groups()
    fields = parse_fields(lines)
    check_host(fields, version)
    length = content_length(fields)
    # RFC 9110 §10.1.1; HTTP/1.0 has no Expect.
    if b"expect" in fields and fields[b"expect"].lower() != b"100-continue" and version != b"HTTP/1.0":
        raise HTTPError(417, "expectation", "The only expectation known is 100-continue.")
    path = parse_target(target, method, fields)
    # After CONNECT the bytes are not requests.
    keep_alive = method != b"CONNECT" and keeps_alive(fields, version)
    request = Request(method.decode("ascii"), path, fields, b"", keep_alive, version, peer)
    if not FORWARDING_FIELDS.isdisjoint(fields):
        address, events = client_address(fields, peer, trusted)
        request = request._replace(address=address, events=events)
    return request, length


class Framer:
    """Cuts bytes into requests: `receive` takes what arrives, `next_request` gives what is whole.

    `peer` is the address at the other end of the connection. Its X-Forwarded-For is believed if it is in `trusted`.
    """

    def __init__(self, peer: Address = NO_ADDRESS, trusted: tuple[Network, ...] = ()) -> None:
        self.peer, self._trusted = peer, trusted
        # What has arrived; where in it the next request begins, and how far its head has been looked at already. So
        # to take a request copies nothing, and no byte of a head that trickles in is read twice.
        self._buffer, self._start, self._checked = b"", 0, 0
        # A parsed head whose body is not here yet.
        self._head: tuple[Request, int] | None = None

    @property
    def busy(self) -> bool:
        """Whether part of a request is here, and the rest is not. A CR alone may be half of an empty line."""
        rest = len(self._buffer) - self._start
        return self._head is not None or rest > 1 or (rest == 1 and not self._buffer.endswith(b"\r"))

    @property
    def in_body(self) -> bool:
        """Whether the whole head of a request is here, and its body is not."""
        return self._head is not None

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

    def next_request(self) -> Request | None:
        """Return the next request if all of it is here, else None.

        Raises HTTPError if it is malformed; then nothing that follows can be read.
        """
        buffer, start = self._buffer, self._start
        if self._head is None:
            if not buffer:
                return None
            # The last three bytes that were searched may begin CR LF CR LF.
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
        new_line = buffer.find(b"\r\n", start) >= checked - 1
        if checked <= start or new_line or _CONTROL.search(buffer, max(start, checked - 1)):
            check_beginning(buffer[start : start + MAX_HEAD_BYTES + 1])
        if len(buffer) - start > MAX_HEAD_BYTES:
            # The last bytes may be half of the head's end.
            check_size(buffer[start:].removesuffix(b"\r").removesuffix(b"\r\n"))
        self._checked = len(buffer)

    def expecting_continue(self) -> Request | None:
        """Return, once, the head of a request whose client waits for 100 Continue; takes `expect` out of its fields."""
        if self._head is None or len(self._buffer) > self._start:
            return None
        head = self._head[0]
        return head if head.fields.pop(b"expect", b"") and head.version != b"HTTP/1.0" else None

    def partial_request(self) -> Request:
        """Return what is known of a request that is refused or not whole."""
        if self._head:
            return self._head[0]
        head = self._buffer[self._start : self._start + MAX_HEAD_BYTES + 4].partition(b"\r\n\r\n")[0]
        match = _HEAD.match(head)
        if not match:
            # No answer to HEAD has a body (RFC 9110 §9.3.2).
            return Request("HEAD" if head.startswith(b"HEAD ") else "unknown", "unknown", {}, address=self.peer)
        method, target, version, lines = match.groups()
        path = target.partition(b"?")[0].decode("latin-1")
        return Request(method.decode("ascii"), path, parse_fields(lines), b"", False, version, self.peer)


_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
# Charsets by whose names clients call UTF-8 or a part of it.
_UTF8_NAMES = {b"utf-8", b"utf8", b"us-ascii", b"ascii"}


def unescape(text: bytes) -> str:
    """Decode one name or value of a form; an incomplete escape is kept. Raises ValueError unless it is UTF-8."""
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), text.replace(b"+", b" ")).decode("utf-8")


def parse_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form body (WHATWG URL §5.1), each with its values; ValueError if it is not one in UTF-8.

    Parameters of the type are ignored (RFC 9110 §5.6.6), but for a `charset` that says otherwise.
    """
    content_type = request.fields.get(b"content-type", b"").lower()
    kind, *parameters = content_type.split(b";")
    names_and_values = [parameter.translate(None, b' \t"').partition(b"=") for parameter in parameters]
    charsets = {value for name, _, value in names_and_values if name == b"charset"}
    # A comma: two fields of that name.
    if kind.strip(b" \t") != b"application/x-www-form-urlencoded" or b"," in content_type:
        raise ValueError("not a form")
    if not charsets <= _UTF8_NAMES:
        raise ValueError("not in UTF-8")
    if request.body.count(b"&") >= MAX_PAIRS:
        raise ValueError("too many fields")
    form: dict[str, list[str]] = {}
    for pair in request.body.split(b"&"):
        name, _, value = pair.partition(b"=")
        form.setdefault(unescape(name), []).append(unescape(value))
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
            # May be quoted (RFC 6265 §4.1.1).
            if value[:1] == b'"' == value[-1:] and len(value) > 1:
                value = value[1:-1]
            found.append(value.decode("latin-1"))
    return found


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


@lru_cache(maxsize=2)
def common_fields(second: int) -> str:
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
    # 204 has no Content-Length (RFC 9110 §8.6).
    content = "" if status == 204 else f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    for name, value in fields:
        # A line end would split the answer in two.
        if not (value.isascii() and value.isprintable()):
            raise ValueError("a control character in a header field")
        content += f"{name}: {value}\r\n"
    if not keep_alive:
        content += "Connection: close\r\n"
    elif request.version == b"HTTP/1.0":
        content += "Connection: keep-alive\r\n"
    policy = f"Content-Security-Policy: {policy}\r\n"
    head = f"{_STATUS_LINES[status]}{content}{policy}{common_fields(int(now))}\r\n".encode("ascii")
    return head if request.method == "HEAD" else head + body


# ---- Endpoints -------------------------------------------------------------------------------------------
# From a Request to a Response, in a few lines each.

CHALLENGE = 'Bearer realm="minijwt"'  # RFC 9110 §11.6.1, RFC 6750 §3


def event_of(request: Request, name: str, **details: str) -> Event:
    """Return an event that `request` has caused: `details`, and where it came from."""
    return Event(name, {**details, "address": str(request.address)})


class Page(NamedTuple):
    """What a browser shows at /, and its Content-Security-Policy."""

    html: bytes = b""
    policy: str = STRICT_POLICY


NO_PAGE = Page()


class App:
    """Everything that an answer depends on: the whole application, without a port."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Callable[[], float] = time.time,
        log: Callable[[Event], None] = lambda event: None,
        cost: str = COST,
        page: Page = NO_PAGE,
    ) -> None:
        self.settings, self.store, self.clock, self.log, self.page = settings, store, clock, log, page
        self.accounts = Accounts(settings, store, clock, cost)
        # When each rare event was logged last.
        self._last_logged: dict[str, float] = {}
        # The place of the last login, until something is refreshed: for the hint in `refused_response`.
        self.last_login_place: bytes | None = None

    def log_seldom(self, event: Event, seconds: float = math.inf) -> None:
        """Log `event` unless one of the same name and result was logged in the last `seconds`."""
        kind, now = event.name + event.fields.get("result", ""), self.clock()
        if not abs(now - self._last_logged.get(kind, -math.inf)) < seconds:
            self._last_logged[kind] = now
            self.log(event)


def json_response(status: int, value: object, *fields: tuple[str, str]) -> Response:
    """Return `value` as JSON."""
    return Response(status, json.dumps(value).encode("ascii"), fields=fields)


def error_response(error: HTTPError) -> Response:
    """Return the response that `error` stands for."""
    body = {"message": error.message, "code": error.code}
    return json_response(error.status, body, *error.fields)._replace(events=error.events)


def unavailable(code: str, message: str, *events: Event) -> Response:
    """Return a 503: not now, but soon (RFC 9110 §15.6.4)."""
    return error_response(HTTPError(503, code, message, ("Retry-After", "1"), events=events))


def hash_failed(error: Exception) -> Response:
    """Return the response when a password cannot be hashed: no memory, no thread, or an OpenSSL that refuses."""
    event = Event("hash", {"error": str(error)})
    return unavailable("unavailable", "Passwords cannot be checked now. Try again.", event)


def refused_response(app: App, request: Request, message: str, refused: Refused) -> Response:
    """Return the response to wrong credentials or a bad token: the tutorial's 406, or the 401 of RFC 9110 §15.5.2."""
    about = {"result": refused.code, "user": refused.username or "unknown"}
    if refused.code == "no_token" and place_of(request.address) == app.last_login_place:
        about["hint"] = "the cookie was not kept: plain HTTP, or another site?"
    if refused.sid is not None:
        about["session"] = refused.sid[:8] or "none"
    event = event_of(request, request.path.strip("/"), **about)
    if refused.wait:
        wait, text = ("Retry-After", str(math.ceil(refused.wait))), "Too many failed logins. Try again later."
        return error_response(HTTPError(429, "too_many_failures", text, wait, events=(event,)))
    challenge = (("WWW-Authenticate", CHALLENGE),) if app.settings.unauthorized_status == 401 else ()
    return json_response(app.settings.unauthorized_status, {"message": message}, *challenge)._replace(events=(event,))


def cookie_field(app: App, token: str, expires: int) -> tuple[str, str]:
    """Return the Set-Cookie field that gives `token` to the browser, out of reach of scripts (RFC 6265 §4.1)."""
    settings, date = app.settings, formatdate(expires, usegmt=True)
    age = max(0, math.ceil(expires - app.clock()))
    secure = "; Secure" if settings.cookie_secure else ""
    value = f"{settings.cookie_name}={token}; Max-Age={age}; Path=/; Expires={date}"
    return "Set-Cookie", f"{value}; HttpOnly{secure}; SameSite={settings.cookie_samesite}"


def deleted_cookie(app: App) -> tuple[str, str]:
    """Return the Set-Cookie field that deletes the cookie."""
    return cookie_field(app, "", 0)


def token_response(app: App, tokens: Tokens, *events: Event) -> Response:
    """Return the access token as JSON, and a new refresh token as a cookie that ends with it."""
    cookie: tuple[tuple[str, str], ...] = ()
    if tokens.refresh is not None:
        cookie = (cookie_field(app, tokens.refresh, tokens.expires),)
    # base64url and dots need no escaping: the body that json_response would make.
    body = f'{{"accessToken": "{tokens.access}"}}'.encode("ascii")
    return Response(200, body, fields=cookie, events=events)


def accepts_html(request: Request) -> bool:
    """Tell whether Accept names text/html, as a browser's does: curl's */* is content with plain text."""
    for media_range in request.fields.get(b"accept", b"").lower().translate(None, b" \t").split(b",", MAX_PAIRS):
        kind, *parameters = media_range.split(b";")
        if kind == b"text/html":
            # A quality of 0 is a no (RFC 9110 §12.4.2).
            return not any(re.fullmatch(rb"q=0(\.0*)?", each) for each in parameters)
    return False


def is_local(request: Request) -> bool:
    """Tell whether a request was made to a loopback name, and has no field that a proxy adds.

    A page whose name was re-pointed to 127.0.0.1 (DNS rebinding), or a tunnel, reaches a private server as well.
    """
    name = request.fields.get(b"host", b"").decode("latin-1").lower()
    name = name.partition("]")[0].lstrip("[") if name.startswith("[") else name.partition(":")[0]
    address = parse_address(name)
    loopback = name == "localhost" or (address is not None and address.is_loopback)
    proxied = FORWARDING_FIELDS | {b"via"}
    forwarded = any(name in proxied or name.startswith(b"x-forwarded-") for name in request.fields)
    return loopback and not forwarded


def get_root(app: App, request: Request) -> Response:
    """GET /: the page for a browser; plain text for other clients, such as a load balancer's health check."""
    vary = (("Vary", "Accept"),) if app.settings.page else ()
    if app.settings.page and accepts_html(request):
        return Response(200, app.page.html, "text/html; charset=utf-8", vary, policy=app.page.policy)
    # For a balancer: a server whose store does not answer is not ready, and gets a 503.
    app.store.look_up("", "", 0)
    return Response(200, b"server running", "text/plain; charset=utf-8", vary)


def form_fields(request: Request, *names: str) -> list[str]:
    """Return the values of a form's fields; raise Refused unless there is exactly one of each."""
    try:
        form = parse_form(request)
        return [value for name in names for (value,) in (form[name],)]
    except (ValueError, KeyError):
        raise Refused("malformed") from None


def post_login(app: App, request: Request) -> Response:
    """POST /login: username and password → an access token, and a refresh token in the cookie."""
    username, password = form_fields(request, "username", "password")
    tokens = app.accounts.login(username, password, request.address, is_local(request))
    app.last_login_place = place_of(request.address)
    event = event_of(request, "login", result="ok", user=tokens.username, session=tokens.sid[:8])
    return token_response(app, tokens, event)


def post_refresh(app: App, request: Request) -> Response:
    """POST /refresh: the cookie → a new access token, and while rotation is on a new cookie."""
    tokens = app.accounts.refresh(parse_cookies(request, app.settings.cookie_name))
    app.last_login_place = None
    return token_response(app, tokens)


def post_logout(app: App, request: Request) -> Response:
    """POST /logout: end the session, if there is one, and delete the cookie."""
    ended = app.accounts.logout(parse_cookies(request, app.settings.cookie_name))
    events = tuple(event_of(request, "logout", user=each.username, session=each.sid[:8]) for each in ended)
    return Response(204, fields=(deleted_cookie(app),), events=events)


def post_password(app: App, request: Request) -> Response:
    """POST /password: username, password and new_password → the password is changed, and all sessions are ended."""
    username, password, new_password = form_fields(request, "username", "password", "new_password")
    try:
        user = app.accounts.change_own_password(username, password, new_password, request.address, is_local(request))
    except ValueError as error:
        event = event_of(request, "password", result="not_acceptable")
        sentence = f"{str(error)[:1].upper()}{str(error)[1:]}."
        raise HTTPError(422, "password_not_acceptable", sentence, events=(event,)) from None
    event = event_of(request, "password", result="ok", user=user)
    return Response(204, fields=(deleted_cookie(app),), events=(event,))


def bearer_token(request: Request) -> str:
    """Return the token in Authorization (RFC 6750 §2.1); raise HTTPError if there is none."""
    scheme, _, token = request.fields.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        # Without a token there is no error code (RFC 6750 §3.1).
        raise HTTPError(401, "no_token", "Send an access token.", ("WWW-Authenticate", CHALLENGE))
    return token.strip(b" ").decode("latin-1")


def get_me(app: App, request: Request) -> Response:
    """GET /me: the claims of the access token."""
    try:
        return json_response(200, app.accounts.whoami(bearer_token(request)))
    except minijwt.InvalidTokenError as error:
        field = ("WWW-Authenticate", f'{CHALLENGE}, error="invalid_token", error_description="{error.code}"')
        raise HTTPError(401, error.code, "The access token is not good.", field) from None


def get_explain(app: App, request: Request) -> Response:
    """GET /explain: how the access token fares, check by check, Explain-Shift seconds from now. Good or not: 200."""
    if not (shift := re.fullmatch(rb"-?[0-9]{1,9}", request.fields.get(b"explain-shift", b"0"))):
        raise HTTPError(400, "bad_shift", "Explain-Shift is a whole number of seconds, nine digits at most.")
    # One line at most: of several fields the trace would be several times as large as any other answer.
    return json_response(200, app.accounts.explain(bearer_token(request)[:MAX_LINE_BYTES], int(shift[0])))


# ---- Routes ----------------------------------------------------------------------------------------------
# Which endpoint answers, which pages may call it (CSRF, CORS), and which response each exception becomes.

Endpoint = Callable[[App, Request], Response]

# What an endpoint does that may take long: part IV chooses its lane by it.
NOTHING, READS, WRITES, HASHES = "nothing", "reads", "writes", "hashes"


class Route(NamedTuple):
    """An endpoint, what it does, and who may see it."""

    endpoint: Endpoint
    does: str = NOTHING
    does_if_rotating: str = ""  # while ROTATE_REFRESH is on, if that is something else
    refusal: str = "Unauthorized"  # the message of a refusal
    page_only: bool = False  # there while PAGE=on, for our own page: never CORS
    deletes_cookie: bool = False  # even where the store fails


ROUTES: dict[str, dict[str, Route]] = {
    "/": {"GET": Route(get_root)},
    "/login": {"POST": Route(post_login, HASHES, refusal="Invalid credentials")},
    "/refresh": {"POST": Route(post_refresh, READS, WRITES)},
    "/logout": {"POST": Route(post_logout, WRITES, deletes_cookie=True)},
    "/password": {"POST": Route(post_password, HASHES, refusal="Invalid credentials")},
    "/me": {"GET": Route(get_me)},
    "/explain": {"GET": Route(get_explain, page_only=True)},
}


def is_for_the_page(path: str) -> bool:
    """Tell whether `path` is there for our own page alone."""
    return any(route.page_only for route in ROUTES.get(path, {}).values())


def check_csrf(app: App, request: Request) -> None:
    """Raise HTTPError if a page of another site made the browser send this request, cookie included (CSRF).

    Browsers say where a request comes from, in Sec-Fetch-Site (W3C Fetch Metadata §2.3) and Origin (RFC 6454 §7), and
    no script can change either. A client that sends neither is no browser, and has no cookie but its own.
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
        event = event_of(request, "cross_site", path=request.path, origin=origin or "unknown")
        message = "This request comes from a page of another origin, which ALLOWED_ORIGINS does not name."
        raise HTTPError(403, "cross_site", message, events=(event,))


def find_route(app: App, request: Request) -> Route:
    """Return the route of `request`, whose body need not be here yet, or the one that answers OPTIONS.

    Raises HTTPError: 404, 405 with Allow (RFC 9110 §15.5.6), or 403 for a change that a page of another site demands.
    """
    methods = {} if request.path == "*" else ROUTES.get(request.path)
    if methods is None or (not app.settings.page and is_for_the_page(request.path)):
        raise HTTPError(404, "not_found", "There is nothing here.")
    route = methods.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        known = ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])
        if request.method == "OPTIONS":
            return Route(lambda app, request: Response(204, fields=(("Allow", known),)))
        raise HTTPError(405, "method_not_allowed", f"This path allows only {known}.", ("Allow", known))
    if request.method not in ("GET", "HEAD"):
        check_csrf(app, request)
    return route


def add_cors_headers(app: App, request: Request, response: Response) -> Response:
    """Let a page of an allowed origin read the answer, with the cookie sent along (Fetch §3.3: CORS)."""
    origin = request.fields.get(b"origin", b"").decode("latin-1")
    # No cache may hand one origin's answer to another.
    fields = [("Vary", "Origin")]
    if origin in app.settings.allowed_origins and not is_for_the_page(request.path):
        fields.append(("Access-Control-Allow-Origin", origin))
        fields.append(("Access-Control-Allow-Credentials", "true"))
        fields.append(("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate"))
        if request.method == "OPTIONS" and b"access-control-request-method" in request.fields:
            fields += [("Access-Control-Allow-Methods", value) for name, value in response.fields if name == "Allow"]
            fields.append(("Access-Control-Allow-Headers", "Authorization, Content-Type"))
            fields.append(("Access-Control-Max-Age", "600"))  # seconds
    return response._replace(fields=(*response.fields, *fields))


def store_failed(app: App, request: Request, error: StoreFailed) -> Response:
    """Return the response when the store does not work."""
    event = Event("database", {"error": str(error)})
    response = unavailable("unavailable", "The database does not answer. Try again.", event)
    route = ROUTES.get(request.path, {}).get(request.method)
    if route and route.deletes_cookie:
        return response._replace(fields=(*response.fields, deleted_cookie(app)))
    return response


def respond(app: App, request: Request) -> Response:
    """Return the response to `request`: the whole server as one plain function. Raises nothing but Redo."""
    try:
        route = find_route(app, request)
        return route.endpoint(app, request)
    except HTTPError as error:
        return error_response(error)
    except Refused as refused:
        return refused_response(app, request, route.refusal, refused)
    except Redo:
        raise
    except StoreFailed as error:
        return store_failed(app, request, error)
    except HashFailed as error:
        return hash_failed(error)
    except Exception:
        # The traceback is for the log; the client learns only that it happened.
        logger.exception("unexpected error")
        return error_response(HTTPError(500, "internal_error", "Something went wrong here."))


# ==== Part III: Bytes move ================================================================================
# The conversation with one client is a generator that does no I/O, so an HTTP exchange is read from top to bottom.
# `Handler.handle` drives it with blocking reads, under the standard library's own server:
# `ThreadingHTTPServer(address, handler_for(App(settings, MemoryStore())))` is a complete login server.


# ---- Conversation ----------------------------------------------------------------------------------------
# One client's side of HTTP, from its first byte to the last answer. Where the generator stands is the state of the
# connection.

REPEAT_SECONDS = 60.0  # between two lines in the log about the same trouble
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # RFC 9110 §15.2.1


class Handler(BaseHTTPRequestHandler):
    """One client, whichever server drives the conversation with it. `handler_for` gives it its App."""

    app: App
    framer: Framer
    timeout = 10.0  # seconds for `handle` to receive a request; Server has deadlines of its own
    last = False  # whether the next response is the last one

    def converse(self) -> Conversation:
        """Run one connection. Yields what its driver has to do, and is sent the outcome:

            bytes    send these, if any, then receive: what arrived, b"" at the end of the stream; None to go on with
                     input that is here already, as long as `framer` is busy
            Request  answer it: its Response

        Returns the last bytes to send. TimeoutError is thrown into it if the client is too slow.
        """
        peer = parse_address(self.client_address[0]) or NO_ADDRESS
        framer = self.framer = Framer(peer, self.app.settings.trusted_proxies)
        answer = b""
        try:
            while True:
                data = yield answer
                if data:
                    framer.receive(data)
                elif data is not None:
                    # An incomplete request is never acted upon (RFC 9112 §8).
                    if framer.busy:
                        raise HTTPError(400, "incomplete", "The request ended before it was complete.")
                    return b""
                request, answer = framer.next_request(), b""
                if request is not None:
                    response = yield request
                    keep_alive = request.keep_alive and not self.last
                    answer = self.log_and_render(response, request, keep_alive)
                    if not keep_alive:
                        return answer
                elif (head := framer.expecting_continue()) is not None:
                    # No client should send a body that will be refused (RFC 9110 §10.1.1).
                    find_route(self.app, head)
                    answer = CONTINUE
                # Free them: this frame stays alive while the client is idle.
                data = request = response = None
        except HTTPError as error:
            # The start of the next request is unknown, so the connection is closed.
            fault = error
        except TimeoutError:
            if not framer.busy:
                return b""
            fault = HTTPError(408, "timeout", "The request took too long to arrive.")
        return self.log_and_render(error_response(fault), framer.partial_request(), keep_alive=False)

    def log_and_render(self, response: Response, request: Request, keep_alive: bool) -> bytes:
        """Add CORS fields, log the events, and return the bytes of the response."""
        app = self.app
        if app.settings.allowed_origins:
            response = add_cors_headers(app, request, response)
        for event in response.events:
            if event.name == "database":
                app.log_seldom(event, REPEAT_SECONDS)
            else:
                app.log(event)
        for event in request.events:
            app.log_seldom(event)
        if app.settings.access_log:
            about = {"method": request.method, "path": request.path, "status": str(int(response.status))}
            app.log(event_of(request, "request", **about))
        return render(response, request, keep_alive, app.clock())

    def handle(self) -> None:
        """Answer one request of the stock server's socket, then close: an idle client would hold a thread."""
        self.last, deadline = True, time.monotonic() + self.timeout
        conversation = self.converse()
        # OSError: the client is silent or gone.
        with suppress(OSError):
            try:
                step = next(conversation)
                while True:
                    if isinstance(step, Request):
                        step = conversation.send(respond(self.app, step))
                    elif (left := deadline - time.monotonic()) > 0:
                        self.wfile.write(step)
                        self.connection.settimeout(left)
                        step = conversation.send(self.rfile.read1(MAX_HEAD_BYTES))
                    else:
                        step = conversation.throw(TimeoutError)
            except StopIteration as end:
                self.wfile.write(end.value)


def handler_for(app: App) -> type[Handler]:
    """Return a handler class for `app`, to be given to `http.server.ThreadingHTTPServer`."""
    return type("Handler", (Handler,), {"app": app})


# ==== Part IV: What keeps it standing =====================================================================
# `Server` drives the same conversations for thousands of clients: one loop around one selector, with threads for what
# would make it wait. Then what an operator needs: a log that never stalls the server, stores that last, settings whose
# faults are said in one sentence each, a start that refuses what is dangerous in the open, and commands.


# ---- Lanes -----------------------------------------------------------------------------------------------
# Where requests are answered that the loop must not wait for: password work in a few threads, writing in one thread
# that takes all waiting requests into one commit.

# The number of processors that this process may use.
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
HASHES_AT_ONCE = min(8, max(1, PROCESSORS - 1))  # 16 MiB each; one processor is for the loop
MAX_WAITING_LOGINS = 64
MAX_SERVED_PLACES = 1_000  # remembered
WRITES_AT_ONCE = 256  # requests to a commit


# The lanes; INLINE is the loop of Server, which must not wait.
INLINE, WRITE_LANE, HASH_LANE = "inline", "write", "hash"


def lanes_of(settings: Settings, store: Store) -> dict[tuple[str, str], str]:
    """Return the lane of each (method, path)."""
    reads = INLINE if store.inline_reads else WRITE_LANE
    lane_of = {NOTHING: INLINE, READS: reads, WRITES: WRITE_LANE, HASHES: HASH_LANE}
    return {
        (method, path): lane_of[(settings.rotate_refresh and route.does_if_rotating) or route.does]
        for path, methods in ROUTES.items() for method, route in methods.items()
    }  # fmt: skip


class Client(Handler):
    """A Handler that the Server drives: its socket, and how far the conversation with it has come.

    Does not call BaseHTTPRequestHandler.__init__, which would read and answer at once.
    """

    def __init__(self, app: App, sock: Any, address: str) -> None:
        """`sock` is a non-blocking socket, or what speaks TLS over one."""
        self.app, self.socket, self.client_address = app, sock, (address, 0)
        self.conversation: Conversation | None = self.converse()  # None once the last answer has been made
        next(self.conversation)
        self.unsent = b""  # what is left of an answer that is being sent
        self.wants = 0  # the events that we wait for; 0 while its request is answered
        self.watched = 0  # the events that the selector watches
        self.since = self.deadline = 0.0  # when that waiting began and when it ends, seconds of the server's clock


class HashJob(NamedTuple):
    """A request that has a password hashed."""

    client: Client
    request: Request
    place: bytes
    account: bytes  # the username as the form spells it: enough to keep attempts of one account apart


class HashQueue:
    """Requests that wait for a thread to hash a password: a queue for each place, and the places take turns.

    So a flood from one place delays another place by one hash at most. Attempts of one account from one place are
    hashed one after the other: what is still being hashed is not taken for a failure.
    """

    def __init__(self) -> None:
        # In the order of their turns: a new place, and one that was served, is at the end.
        self._places: OrderedDict[bytes, deque[HashJob]] = OrderedDict()
        # Places that were served, the last one at the end.
        self._served: OrderedDict[bytes, None] = OrderedDict()
        # Place and account of what is being hashed.
        self._busy: set[tuple[bytes, bytes]] = set()

    def put(self, job: HashJob) -> HashJob | None:
        """Add `job`. Return the one that has to go if too many wait.

        That is the newest of the longest queue; of several queues as long, that of a place in the network that has most
        places here (a site may have thousands of them), and of these the one served last.
        """
        self._places.setdefault(job.place, deque()).append(job)
        if sum(map(len, self._places.values())) <= MAX_WAITING_LOGINS:
            return None
        most = max(map(len, self._places.values()))
        longest = [place for place, waiting in self._places.items() if len(waiting) == most]
        # The /24 of IPv4, the /32 of IPv6: `place_of` begins with the version.
        crowd = Counter(place[: 4 + (place[0] == 6)] for place in longest).most_common(1)[0][0]
        longest = [place for place in longest if place.startswith(crowd)]
        place = next((each for each in reversed(self._served) if each in longest), longest[-1])
        return self._remove(self._places[place][-1])

    def take(self) -> HashJob | None:
        """Return the job whose turn it is, until `done` is called with it; None if none can be hashed now."""
        for place, waiting in self._places.items():
            for job in waiting:
                if (place, job.account) not in self._busy:
                    self._busy.add((place, job.account))
                    self._places.move_to_end(place)
                    self._served[place] = None
                    self._served.move_to_end(place)
                    if len(self._served) > MAX_SERVED_PLACES:
                        self._served.popitem(last=False)
                    return self._remove(job)
        return None

    def _remove(self, job: HashJob) -> HashJob:
        self._places[job.place].remove(job)
        if not self._places[job.place]:
            del self._places[job.place]
        return job

    def done(self, job: HashJob) -> None:
        """Let the next attempt of the same account have its turn."""
        self._busy.discard((job.place, job.account))


class Lanes:
    """Answers requests outside the loop; `post` schedules a call on it, `answered` takes the response."""

    def __init__(self, app: App, post: Callable[..., None], answered: Callable[[Client, Response], None]) -> None:
        self._app, self._post, self._answered = app, post, answered
        self._jobs, self._hashing = HashQueue(), 0
        # Requests of this turn that write, handed over in one piece.
        self._pending: list[tuple[Client, Request]] = []
        self._writes: queue.SimpleQueue[list[tuple[Client, Request]]] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="write", daemon=True)
        self._writer.start()

    def submit(self, lane: str, client: Client, request: Request) -> None:
        """Have `request` answered in `lane`."""
        if lane == WRITE_LANE:
            self._pending.append((client, request))
            return
        name = re.search(rb"(?:\A|&)username=([^&]*)", request.body)
        crowded_out = self._jobs.put(HashJob(client, request, place_of(request.address), name[1] if name else b""))
        if crowded_out:
            response = unavailable("busy", "Too many people are logging in. Try again.")
            self._post(self._answered, crowded_out.client, response)
        self._start_hashing()

    def _start_hashing(self) -> None:
        while self._hashing < HASHES_AT_ONCE and (job := self._jobs.take()):
            self._hashing += 1
            try:
                threading.Thread(target=self._hash, args=(job,), name="hash", daemon=True).start()
            except RuntimeError as error:
                self._post(self._hashed, job, hash_failed(error))

    def _hash(self, job: HashJob) -> None:
        # Whatever happens, the client has an answer and the next job its turn.
        response = unavailable("unavailable", "Something went wrong here.")
        try:
            response = respond(self._app, job.request)
            self._app.store.close()
        finally:
            self._post(self._hashed, job, response)

    def _hashed(self, job: HashJob, response: Response) -> None:
        self._hashing -= 1
        self._jobs.done(job)
        self._answered(job.client, response)
        self._start_hashing()

    def flush_writes(self) -> None:
        """Hand the writes of this turn to the writer."""
        if self._pending:
            self._writes.put(self._pending)
            self._pending = []

    def _write(self) -> None:
        """Answer all waiting requests in one commit, then deliver the responses. An empty list ends it."""
        while works := self._writes.get():
            while len(works) < WRITES_AT_ONCE and not self._writes.empty():
                more = self._writes.get()
                if not more:
                    self._writes.put(more)
                    break
                works += more
            try:
                responses = self._app.store.batch([partial(respond, self._app, request) for _, request in works])
            except StoreFailed as error:
                responses = [store_failed(self._app, request, error) for _, request in works]
            except Exception:
                # The next requests must still be answered.
                logger.exception("unexpected error")
                responses = [unavailable("unavailable", "Something went wrong here.")] * len(works)
            self._post(self._written, [client for client, _ in works], responses)
        self._app.store.close()

    def _written(self, clients: list[Client], responses: list[Response]) -> None:
        for client, response in zip(clients, responses):
            self._answered(client, response)

    def close(self) -> None:
        """Take no more, and free what the loop and the writer have of the store."""
        self._writes.put([])
        self._writer.join(1.0)
        self._app.store.close()


# ---- Server ----------------------------------------------------------------------------------------------
# A turn of the loop has four phases: receive and parse what has arrived, answer it on one snapshot of the store (taken
# after it arrived, so never stale), render, send: each keeps its code in the processor's cache. A turn answers one
# request of each client, however many have arrived. A slow client costs a buffer, not a thread.

REQUEST_SECONDS = 5.0  # from the first byte of a request, or of a new client, to the last
IDLE_SECONDS = 30.0  # between two requests
WRITE_SECONDS = 10.0  # for a client to take an answer
LINGER_SECONDS = 2.0  # for a client to close, once the last answer is sent
SWEEP_SECONDS = 1.0  # between two looks at the deadlines
ACCEPT_PAUSE_SECONDS = 0.1  # without accepting, once that has failed; between two looks while stopping
TURN_SECONDS = 0.005  # of receiving, and of answering, before what has been answered is sent
SHUTDOWN_SECONDS = 10.0  # for answers in flight when told to stop
LAST_SECONDS = 0.5  # for an idle client, after `stop`, to send a request that is still answered
BACKLOG = 1_024  # connections that may wait to be accepted
ACCEPTS_AT_ONCE = 16  # of them, in a turn
MAX_CONNECTIONS = 4_096
SPARE_SHARE = 32  # 1/32 of the capacity is dropped beyond the excess, so that clients are rarely sorted
RECEIVE_BYTES = 8_192  # at one time
RECORD_BYTES = 4_096  # of TLS; the largest takes four times the memory of each slow client
MAX_BYTES_WITHOUT_DATA = 65_536  # of TLS: handshakes and key updates
READABLE, WRITABLE = selectors.EVENT_READ, selectors.EVENT_WRITE


class TLSSocket:
    """TLS over a non-blocking socket, with the few methods of a socket that the Server calls.

    Unlike ssl.SSLSocket it reads a bounded number of bytes at a time. That one reads for as long as records arrive that
    hold no data (KeyUpdate, RFC 8446 §4.6.3), and so could be kept reading for ever.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self._plain, self._incoming, self._outgoing = plain, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Bytes for the client that the socket has not taken, and bytes of the client since it has sent data.
        self._unsent, self._without_data = b"", 0
        self.handshaking, self.ended, self._shut = True, False, False
        self.fileno, self.close = plain.fileno, plain.close

    def recv(self, size: int) -> bytes:
        """Return what has arrived, b"" at the end; raise BlockingIOError if that is nothing yet.

        Raises ssl.SSLError for what is no TLS, and OSError as a socket does.
        """
        if self.ended:
            return b""
        arrived, data = self._plain.recv(size), b""
        if self._shut:
            return arrived
        self._incoming.write(arrived)
        if not arrived:
            self._incoming.write_eof()
        try:
            if self.handshaking:
                self._tls.do_handshake()
                self.handshaking = False
            # A read that finds no whole record is an exception, and costs as much as one that does: avoid the last one.
            while not self.ended and (not data or self._incoming.pending or self._tls.pending()):
                piece = self._tls.read(size)
                data, self.ended = data + piece, not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            # The client has closed without a word, as many do.
            self.ended = True
        except ssl.SSLError:
            # What came before it counts.
            if not data:
                raise
        finally:
            self._pass_on()
        self._without_data = 0 if data else self._without_data + len(arrived)
        # Answers to key updates count as well: the client may not read them.
        if max(self._without_data, len(self._unsent)) > MAX_BYTES_WITHOUT_DATA:
            raise ConnectionAbortedError
        if not data and not self.ended:
            raise BlockingIOError
        return data

    def send(self, data: bytes) -> int:
        """Take a part of `data` and return its length; raise BlockingIOError while bytes taken before are not sent."""
        self.flush()
        taken = self._tls.write(data[:RECORD_BYTES])
        self._pass_on()
        return taken

    def flush(self) -> None:
        """Send what was taken; raise BlockingIOError if something is left."""
        self._pass_on()
        if self._unsent:
            raise BlockingIOError

    def _pass_on(self) -> None:
        if self._outgoing.pending:
            self._unsent += self._outgoing.read()
        if self._unsent:
            with suppress(BlockingIOError, InterruptedError):
                self._unsent = self._unsent[self._plain.send(self._unsent) :]

    def shutdown(self, how: int) -> None:
        """Say that no more will be sent. What arrives from now on is returned as it is, and only thrown away."""
        # SSLWantReadError: the client has not said so yet. Other errors: there is no TLS to end.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._pass_on()
        self._shut, self.ended = True, False
        self._plain.shutdown(how)


class Server:
    """Serves an App over non-blocking sockets in one thread, until `stop` is called."""

    def __init__(
        self,
        app: App,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None = None,
        capacity: int = MAX_CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
        on_sweep: Callable[[], None] = lambda: None,
    ) -> None:
        """At most `capacity` clients are connected at one time. `clock` returns monotonic seconds."""
        self.app, self.stopping = app, False
        self.clients: set[Client] = set()
        self._sockets, self._tls, self._capacity, self._clock = sockets, tls, capacity, clock
        self._on_sweep = on_sweep
        self._lane_of = lanes_of(app.settings, app.store)
        self._selector = selectors.DefaultSelector()
        # Functions to be called on the loop, and the socket that wakes it for them.
        self._calls: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()
        self._wakeup_reader, self.wakeup_writer = socket.socketpair()
        self._wakeup_reader.setblocking(False)
        self.wakeup_writer.setblocking(False)
        # What is left of each phase for the next turn.
        self._ready: deque[Client | Callable[[], Any]] = deque()
        self._requests: deque[tuple[Client, Request]] = deque()
        self._outbox: list[tuple[Client, bytes]] = []
        self._now, self._end, self._listening = clock(), math.inf, False
        self._accept_again = -math.inf

    # -- the loop

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Call `ready` when listening, then accept and answer until told to stop; end in an orderly way."""
        self._lanes = Lanes(self.app, self.post, self._resume)
        self._selector.register(self._wakeup_reader, READABLE, self._run_calls)
        self._listen()
        ready()
        swept = self._now
        while not self.stopping or (self.clients and self._now < self._end):
            pause = SWEEP_SECONDS if self._listening else ACCEPT_PAUSE_SECONDS
            self._turn(pause)
            if self._now >= swept + pause:
                swept = self._now
                self._sweep()
                self._on_sweep()
        for client in list(self.clients):
            self._close(client)
        self._lanes.close()
        for each in (self._selector, self._wakeup_reader, self.wakeup_writer):
            each.close()

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have `function` called on the loop; may be called by any thread, and by a signal handler."""
        self._calls.put((function, arguments))
        # OSError: so many have rung that it will wake anyway, or the loop has ended.
        with suppress(OSError):
            self.wakeup_writer.send(b"\0")

    def _run_calls(self) -> None:
        with suppress(BlockingIOError):
            self._wakeup_reader.recv(4_096)
        for _ in range(self._calls.qsize()):
            function, arguments = self._calls.get()
            function(*arguments)

    def _turn(self, pause: float) -> None:
        """Receive and parse what has arrived, answer it, render the responses, send them. Wait at most `pause`."""
        if not self._ready:
            keys = self._selector.select(0 if self._requests or self._outbox else pause)
            self._ready.extend([key.data for key, _ in keys])
        self._now = self._clock()
        end = self._now + TURN_SECONDS
        while self._ready and self._clock() <= end:
            ready = self._ready.popleft()
            if isinstance(ready, Client):
                self._receive_or_send(ready)
            else:
                ready()
        if self._requests:
            answered: list[tuple[Client, Response]] = []
            end = self._clock() + TURN_SECONDS
            with self.app.store.reading(len(self._requests) > 1):
                while self._requests and (not answered or self._clock() <= end):
                    client, request = self._requests.popleft()
                    response = self._respond(client, request)
                    if response is not None:
                        answered.append((client, response))
            self._lanes.flush_writes()
            for client, response in answered:
                self._resume(client, response)
        outbox, self._outbox = self._outbox, []
        for client, answer in outbox:
            self._send(client, answer)

    def _respond(self, client: Client, request: Request) -> Response | None:
        """Return the response to `request`; None if it is made in another lane."""
        lane = self._lane_of.get((request.method, request.path), INLINE)
        if lane == INLINE:
            try:
                return respond(self.app, request)
            except Redo:
                lane = WRITE_LANE
        self._lanes.submit(lane, client, request)
        return None

    # -- one client

    def _set_deadline(self, client: Client, seconds: float) -> None:
        """Give the client `seconds` from now for what it has to do."""
        client.since, client.deadline = self._now, self._now + seconds

    def _watch(self, client: Client, events: int) -> None:
        """Have the selector watch for `events` of the client; 0: for none."""
        client.wants = events
        if events != client.watched:
            try:
                if not client.watched:
                    self._selector.register(client.socket, events, client)
                elif events:
                    self._selector.modify(client.socket, events, client)
                else:
                    self._selector.unregister(client.socket)
            except OSError as error:
                # The kernel has no room for another watch (ENOSPC, ENOMEM).
                client.watched = 0
                self._accept_failed(error)
                return self._close(client)
            client.watched = events
        if self._tls and events == READABLE and client.socket.ended:
            # The end has arrived already, together with data.
            self._ready.append(client)
        return None

    def _receive_or_send(self, client: Client) -> None:
        """Go on with a client whose socket is ready."""
        if not client.wants:
            # It sends more before it has an answer: that waits in the kernel.
            self._watch(client, 0)
        elif client.wants == WRITABLE:
            self._outbox.append((client, b""))
        elif (data := self._receive(client)) is not None:
            if client.conversation is not None:
                self._resume(client, data)
            elif not data:
                # What comes after the last answer is only read so that the answer is not lost.
                self._close(client)

    def _receive(self, client: Client) -> bytes | None:
        """Return what has arrived, b"" at the end of the stream; None if that is nothing yet."""
        try:
            data: bytes = client.socket.recv(RECEIVE_BYTES)
            return data
        except (BlockingIOError, InterruptedError):
            pass
        except ssl.SSLError:
            # Not TLS, or broken TLS: let the alert arrive.
            client.conversation = None
            self._linger(client)
        except OSError:
            self._close(client)
        return None

    def _resume(self, client: Client, outcome: Any) -> None:
        """Go on with the conversation until it needs something. TimeoutError as `outcome` is thrown into it."""
        talk, begun = client.conversation, client.framer.busy
        if talk is None:
            return
        try:
            step = talk.throw(outcome) if outcome is TimeoutError else talk.send(outcome)
        except StopIteration as end:
            client.conversation, client.wants = None, 0
            self._outbox.append((client, end.value))
        except Exception:
            # One client's fault must not stop the others.
            logger.exception("a conversation broke off")
            self._close(client)
        else:
            if isinstance(step, Request):
                client.wants = 0
                self._requests.append((client, step))
            elif step:
                client.wants = 0
                self._outbox.append((client, step))
            else:
                self._watch(client, READABLE)
                if client.framer.busy and not begun:
                    self._set_deadline(client, REQUEST_SECONDS)

    def _send(self, client: Client, answer: bytes) -> None:
        """Send `answer`, after what was left of the one before; then go on, or close if it was the last."""
        data, begun, blocked = client.unsent + answer, client.wants == WRITABLE, False
        try:
            while data:
                data = data[client.socket.send(data) :]
            if self._tls:
                # It may hold what it has taken.
                client.socket.flush()
        except (BlockingIOError, InterruptedError):
            blocked = True
        except OSError:
            return self._close(client)
        client.unsent = data
        if blocked:
            self._watch(client, WRITABLE)
            if not begun:
                self._set_deadline(client, WRITE_SECONDS)
        elif client.conversation is None:
            self._linger(client)
        elif client.framer.busy:
            self._set_deadline(client, REQUEST_SECONDS)
            self._resume(client, None)
        else:
            self._set_deadline(client, LAST_SECONDS if self.stopping else IDLE_SECONDS)
            self._watch(client, READABLE)
        return None

    def _linger(self, client: Client) -> None:
        """Close our side, and wait until the client closes its own.

        To close at once, with input unread, would reset the connection and might destroy the answer (RFC 9112 §9.6).
        """
        self._set_deadline(client, LINGER_SECONDS)
        try:
            client.socket.shutdown(socket.SHUT_WR)
            self._watch(client, READABLE)
        except OSError:
            self._close(client)

    def _close(self, client: Client) -> None:
        """Close at once."""
        self.clients.discard(client)
        client.conversation, client.unsent = None, b""
        self._watch(client, 0)
        client.socket.close()

    def _sweep(self) -> None:
        """Time out clients past their deadline: 408 if a request has begun, else just close. End a pause."""
        for client in [each for each in self.clients if each.deadline < self._now and each.wants]:
            handshaking = self._tls and client.socket.handshaking
            if client.conversation is None or client.wants == WRITABLE or handshaking:
                self._close(client)
            else:
                self._resume(client, TimeoutError)
        if not self._listening and not self.stopping and self._accept_again <= self._now:
            self._listen()

    # -- who is let in

    def _listen(self) -> None:
        """Have the selector watch for clients that connect."""
        self._listening = True
        try:
            for listener in self._sockets:
                self._selector.register(listener, READABLE, partial(self._accept, listener))
        except OSError as error:
            self._accept_failed(error)

    def _pause_accepting(self, seconds: float) -> None:
        """Accept no clients for `seconds`: they wait in the kernel."""
        if self._listening:
            for listener in self._sockets:
                # KeyError: the kernel would not watch it.
                with suppress(KeyError):
                    self._selector.unregister(listener)
        self._listening, self._accept_again = False, self._now + seconds

    def _accept_failed(self, error: OSError | None = None) -> None:
        """Rest a moment, and log why: once a minute."""
        self._pause_accepting(math.inf if self.stopping else ACCEPT_PAUSE_SECONDS)
        reason = errno.errorcode.get(error.errno or 0, "unknown") if error else "no_idle_client"
        event = Event("accept", {"result": reason, "connections": str(len(self.clients))})
        self.app.log_seldom(event, REPEAT_SECONDS)

    def _accept(self, listener: socket.socket) -> int:
        """Take in a few of those that wait at `listener`, and return how many. They count before any TLS handshake.

        Connections with a request in progress are never dropped. When there are too many, idle ones go first.
        """
        if listener.fileno() < 0:
            # It was closed by `stop`, in this very turn.
            return 0
        self._drop(len(self.clients) - self._capacity)
        if len(self.clients) >= self._capacity + ACCEPTS_AT_ONCE:
            self._accept_failed()
            return 0
        accepted = []
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted.append(listener.accept())
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                # It may well fail again at once.
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._drop(1)
                self._accept_failed(error)
                break
        self._drop(len(self.clients) + len(accepted) - self._capacity)
        for peer, address in accepted:
            self._add_client(peer, address[0])
        return len(accepted)

    def _add_client(self, peer: socket.socket, address: str) -> None:
        """Begin a conversation."""
        peer.setblocking(False)
        client = Client(self.app, TLSSocket(peer, self._tls) if self._tls else peer, address)
        client.last = self.stopping
        self.clients.add(client)
        self._set_deadline(client, REQUEST_SECONDS)
        self._watch(client, READABLE)

    def _drop(self, excess: int) -> None:
        """Hang up on `excess` idle clients and a few more: largest place first, then the oldest."""
        if excess > 0:
            idle = [(place_of(each.framer.peer), each) for each in self.clients if each.wants]
            held = Counter(place for place, _ in idle)
            order = [(-held[place], each.framer.in_body, each.since, id(each), each) for place, each in idle]
            for *_, client in heapq.nsmallest(excess + self._capacity // SPARE_SHARE, order):
                self._close(client)

    def stop(self) -> None:
        """Accept what is connected already, stop listening, answer what has arrived, close. Called on the loop."""
        if self.stopping:
            return
        self.stopping, self._end = True, self._now + SHUTDOWN_SECONDS
        self._pause_accepting(math.inf)
        for listener in self._sockets:
            for _ in range(BACKLOG // ACCEPTS_AT_ONCE):
                if not self._accept(listener):
                    break
            listener.close()
        for client in self.clients:
            client.last = True
            if client.conversation and client.wants == READABLE and not client.framer.busy:
                client.deadline = min(client.deadline, self._now + LAST_SECONDS)


# ---- Log -------------------------------------------------------------------------------------------------
# One line of key=value for each thing that an operator may have to know. Never a token, a password or a secret.

MAX_VALUE_CHARS = 64
# Events whose values come from the operator and the system, not from clients; so they may be longer.
LONG_EVENTS, MAX_LONG_CHARS = {"start", "settings", "user", "database", "hash"}, 1_024
MAX_WAITING_LINES = 1_000


def log_line(now: float, event: Event) -> str:
    """Return `event` as one line of ASCII: its time in UTC, its name, its fields; quoted where they need it."""
    words = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)), event.name]
    most = MAX_LONG_CHARS if event.name in LONG_EVENTS else MAX_VALUE_CHARS
    for name, value in event.fields.items():
        text = value[:most].encode("unicode_escape").decode("ascii").replace('"', '\\"')
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
            # The reader may have gone. None: it takes nothing now, and would not wait.
            with suppress(OSError, ValueError):
                while rest and (written := self._stream.write(rest)):
                    rest = rest[written:]

    def close(self, seconds: float = 1.0) -> None:
        """Write what is waiting, if that does not take longer than `seconds`."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=seconds)
            self._thread.join(seconds)


# ---- SQLite store ----------------------------------------------------------------------------------------
# A Store that lasts, for all processes of one machine. All SQL is in this room, and SQLite 3.26 is enough for it.

SCHEMA_VERSION = 2
APPLICATION_ID = 0x6D6A7774  # "mjwt", in the file's header
TABLES = """
CREATE TABLE user (
    name TEXT PRIMARY KEY,       -- NFC
    password TEXT NOT NULL,      -- as hash_password makes it
    epoch TEXT NOT NULL          -- random; copied into refresh tokens, which are void when it changes
) WITHOUT ROWID;
CREATE TABLE session (           -- only those that were rotated or ended; without a row: generation 0, alive
    sid TEXT PRIMARY KEY,
    generation INTEGER NOT NULL, -- of the newest refresh token
    rotated REAL NOT NULL,       -- when it was made, seconds since 1970
    ended INTEGER NOT NULL,      -- 1: no token of this session is ever good again
    expires INTEGER NOT NULL     -- the exp of all its tokens, seconds since 1970: then the row may go
) WITHOUT ROWID;
CREATE INDEX session_expires ON session (expires);
CREATE TABLE failure (           -- attempts to log in, by account and place
    key BLOB PRIMARY KEY,        -- a digest of both
    attempts INTEGER NOT NULL,
    next REAL NOT NULL,          -- when the next attempt is allowed, seconds since 1970
    expires REAL NOT NULL        -- when all is forgotten
) WITHOUT ROWID;
CREATE INDEX failure_expires ON failure (expires);
CREATE TABLE pruned (
    latest INTEGER NOT NULL      -- the largest session.expires that was ever deleted
);
INSERT INTO pruned VALUES (0)"""
# Schema 1 knew users for whom the tutorial's tokens were good; SQLite before 3.35 cannot drop a column.
FROM_SCHEMA_1 = """
CREATE TABLE new_user (name TEXT PRIMARY KEY, password TEXT NOT NULL, epoch TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO new_user SELECT name, password, epoch FROM user;
DROP TABLE user;
ALTER TABLE new_user RENAME TO user"""
BUSY_SECONDS = 5.0  # for a writer to wait for another process
MIN_FREE_BYTES = 65_536  # of the disk: what the -shm needs, and a page or two


class _Closing(sqlite3.Connection):
    """A connection that closes when it is collected: Python 3.13 warns of one that does not."""

    def __del__(self) -> None:
        with suppress(sqlite3.Error):
            self.close()


class _OfThread(threading.local):
    """What each thread has to itself: a connection that waits and writes, one that does neither, and which is used."""

    def __init__(self) -> None:
        self.reading = False
        self.connections: dict[bool, sqlite3.Connection] = {}  # by `reading`


class SQLiteStore:
    """The SQLite file at `path`. With `create`, made with mode 0600 if there is none."""

    inline_reads = True

    def __init__(self, path: str, clock: Callable[[], float] = time.time, create: bool = True) -> None:
        """Raises SettingsError if the file cannot be opened, is no database of ours, or a newer version's."""
        self.path, self._clock, self._local = os.path.abspath(path), clock, _OfThread()
        self._checked = -math.inf
        # Connections that must not be closed while another file is in the place of ours.
        self.abandoned: list[sqlite3.Connection] = []
        try:
            if sqlite3.sqlite_version_info < (3, 26):
                raise ValueError(f"SQLite {sqlite3.sqlite_version} is too old, 3.26 is needed")
            if create:
                # SQLite would make it for all to read, and so would the target of a dangling link.
                with suppress(FileExistsError):
                    os.close(os.open(os.path.realpath(self.path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._opened = os.stat(self.path)
            self._prepare()
        except FileNotFoundError:
            if create:
                raise SettingsError(f"DATABASE {self.path} cannot be made: its directory does not exist") from None
            raise SettingsError(f"DATABASE {self.path} does not exist: `{COMMAND} user add NAME` makes one") from None
        except (OSError, sqlite3.Error, StoreFailed, ValueError) as error:
            self.close()
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> SettingsError:
        """Return what to tell the operator."""
        reason = getattr(error, "strerror", None) or str(error)
        with suppress(OSError):
            # SQLite says so of most faults, and of some not.
            if "I/O" in reason and shutil.disk_usage(os.path.dirname(self.path)).free < MIN_FREE_BYTES:
                reason += ": the disk is full"
        passing = re.search("locked|full|space", reason) is not None
        if os.path.isdir(self.path):
            reason = "it is a directory"
        elif os.path.exists(self.path) and not os.access(self.path, os.R_OK | os.W_OK):
            reason = f"this user may not write it, it belongs to user number {os.stat(self.path).st_uid}"
        elif "not a database" in reason:
            reason = "it is not a SQLite file"
        return SettingsError(f"DATABASE {self.path} cannot be used: {reason}", passing)

    def _prepare(self) -> None:
        """Make or migrate the tables; raise ValueError if the file is not ours, before anything is written."""
        self._version()
        patience = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                # Readers and the writer do not wait for each other.
                self._connection().execute("PRAGMA journal_mode=WAL").fetchall()
                break
            except sqlite3.OperationalError as error:
                # Here alone SQLite does not wait until others are through.
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
                time.sleep(0.01)
        with self._transaction() as db:
            version = self._version()
            if version < SCHEMA_VERSION:
                # `executescript` would commit first.
                for statement in (FROM_SCHEMA_1 if version else TABLES).split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _version(self) -> int:
        """Return the version of the schema, 0 if the file is empty; raise ValueError if it is not ours."""
        # One statement, and so one snapshot: another process may be making the tables this moment.
        ((identity, version, tables),) = self._rows(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        )
        if tables and identity != APPLICATION_ID:
            raise ValueError("it is another program's database")
        if tables and version not in (1, SCHEMA_VERSION):
            raise ValueError(f"another version of minijwt has written it (schema {version}): use that one")
        return int(version) if tables else 0

    def _connection(self) -> sqlite3.Connection:
        """Return the connection that this thread uses now."""
        reading, connections = self._local.reading, self._local.connections
        db = connections.get(reading)
        if db is None:
            self._check_identity()
            wait = 0 if reading else BUSY_SECONDS
            try:
                db = sqlite3.connect(
                    self.path, timeout=wait, isolation_level=None, check_same_thread=False, factory=_Closing
                )
                # What was answered survives a power cut.
                db.execute("PRAGMA synchronous=FULL")
            except sqlite3.Error as error:
                raise StoreFailed(str(error)) from None
            connections[reading] = db
        return db

    def _check_identity(self) -> None:
        """Raise StoreFailed if the file at `path` is not the one that was opened at first: moved, deleted, replaced.

        While it is not, no connection is opened or closed: SQLite would unlink the new file's -wal by its name.
        """
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise StoreFailed(f"{self.path}: {error.strerror}") from None
        if not os.path.samestat(found, self._opened):
            raise StoreFailed(f"{self.path} is another file than the one that was opened")
        self._checked = self._clock()
        with suppress(sqlite3.Error, IndexError):
            while True:
                self.abandoned.pop().close()

    def close(self) -> None:
        self.abandoned.extend(self._local.connections.values())
        self._local.connections.clear()
        if self.abandoned:
            with suppress(StoreFailed):
                self._check_identity()

    @contextmanager
    def reading(self, several: bool) -> Iterator[None]:
        self._local.reading = True
        try:
            if several:
                # A fault is said by the first verb that reads.
                with suppress(sqlite3.Error, StoreFailed):
                    self._connection().execute("BEGIN")
            yield
        finally:
            if several:
                with suppress(sqlite3.Error, KeyError):
                    self._local.connections[True].execute("ROLLBACK")
            self._local.reading = False

    def _rows(self, statement: str, *values: object) -> list[Any]:
        """Return all rows that `statement` selects: to the end, since an open cursor pins an old snapshot."""
        db = self._connection()
        if abs(self._clock() - self._checked) >= 1:
            self._check_identity()
        try:
            return db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            # A transaction that writes may still be whole.
            if self._local.reading or not db.in_transaction:
                self.close()
            raise StoreFailed(str(error)) from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing: in a transaction, or as part of the one that is open."""
        if self._local.reading:
            raise Redo
        db = self._connection()
        outermost = not db.in_transaction  # not within `batch`
        try:
            if outermost:
                self._check_identity()
                db.execute("BEGIN IMMEDIATE")
            yield db
            if outermost:
                db.execute("COMMIT")
        except BaseException as error:
            if outermost:
                # Some faults, a full disk for one, have ended it already: then this fails.
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                self.close()
            if isinstance(error, sqlite3.Error):
                raise StoreFailed(str(error)) from None
            raise

    def _changed(self, statement: str, *values: object) -> bool:
        """Execute a `statement` that writes; return whether there was a row for it. One that fails changes nothing."""
        with self._transaction() as db:
            return db.execute(statement, values).rowcount == 1

    def batch(self, works: list[Callable[[], Any]]) -> list[Any]:
        """Do all `works` in one transaction, with one commit; each of their statements stands or falls by itself."""
        done = []
        with self._transaction() as db:
            for work in works:
                done.append(work())
                # Otherwise the next ones would commit by themselves, and be answered 503.
                if not db.in_transaction:
                    raise StoreFailed("the transaction was lost")
            self._prune(db)
        return done

    # -- users

    def user_names(self) -> list[str]:
        return [name for (name,) in self._rows("SELECT name FROM user ORDER BY name")]

    def add_user(self, name: str, password: str, epoch: str) -> bool:
        return self._changed("INSERT OR IGNORE INTO user VALUES (?, ?, ?)", name, password, epoch)

    def change_password(self, name: str, password: str, epoch: str, old: str | None = None) -> bool:
        statement = "UPDATE user SET password = ?, epoch = ? WHERE name = ? AND password = coalesce(?, password)"
        return self._changed(statement, password, epoch, name, old)

    def rehash(self, name: str, old: str, password: str) -> None:
        self._changed("UPDATE user SET password = ? WHERE name = ? AND password = ?", password, name, old)

    def replace_epoch(self, name: str, epoch: str) -> bool:
        return self._changed("UPDATE user SET epoch = ? WHERE name = ?", epoch, name)

    def remove_user(self, name: str) -> bool:
        return self._changed("DELETE FROM user WHERE name = ?", name)

    # -- sessions

    def look_up(self, name: str, sid: str, expires: int) -> Standing:
        (row,) = self._rows(
            "SELECT password, epoch, EXISTS (SELECT 1 FROM user), latest, generation, rotated, ended"
            " FROM pruned LEFT JOIN user ON name = ? LEFT JOIN session ON sid = ?", name, sid,
        )  # fmt: skip
        return Standing(*row)

    def add_session(self, sid: str, expires: int) -> None:
        self._changed("INSERT INTO session VALUES (?, 0, 0, 0, ?)", sid, expires)

    def rotate_session(self, sid: str, generation: int, expires: int, now: float) -> bool:
        update = "UPDATE session SET generation = ?, rotated = ? WHERE sid = ? AND generation = ? AND NOT ended"
        if self._changed(update, generation + 1, now, sid, generation):
            return True
        # A session that has no row is of generation 0.
        first = "INSERT OR IGNORE INTO session VALUES (?, 1, ?, 0, ?)"
        return generation == 0 and self._changed(first, sid, now, expires)

    def end_session(self, sid: str, expires: int) -> None:
        statement = "INSERT INTO session VALUES (?, 0, 0, 1, ?) ON CONFLICT (sid) DO UPDATE SET ended = 1"
        self._changed(statement, sid, expires)

    def _prune(self, db: sqlite3.Connection) -> None:
        """Forget a few sessions that have expired, and remember that this was done."""
        gone = db.execute("SELECT sid, expires FROM session WHERE expires <= ? ORDER BY expires LIMIT ?",
                          (int(self._clock()), PRUNE_ROWS)).fetchall()  # fmt: skip
        if gone:
            db.executemany("DELETE FROM session WHERE sid = ?", [(sid,) for sid, _ in gone])
            db.execute("UPDATE pruned SET latest = max(latest, ?)", (gone[-1][1],))

    # -- attempts

    def count_login_attempt(self, key: bytes, now: float, limit: int) -> float:
        with self._transaction() as db:
            rows = db.execute("SELECT attempts, next, expires FROM failure WHERE key = ?", (key,)).fetchall()
            wait, attempts = next_attempt(Attempts(*rows[0]) if rows else None, now, limit)
            if attempts:
                db.execute("REPLACE INTO failure VALUES (?, ?, ?, ?)", (key, *attempts))
                # Of the others the two oldest, which the index finds, go if they have expired or there are too many.
                db.execute(
                    "DELETE FROM failure WHERE key IN (SELECT key FROM failure WHERE key != ? ORDER BY expires LIMIT 2)"
                    " AND (expires <= ? OR (SELECT count(*) FROM failure) > ?)", (key, now, MAX_ATTEMPT_ROWS),
                )  # fmt: skip
            return wait

    def clear_login_attempts(self, key: bytes) -> None:
        self._changed("DELETE FROM failure WHERE key = ?", key)

    # -- moving to another store, and from one

    def dump(self, *kinds: str) -> Iterator[tuple[str, Any]]:
        """Yield rows of each of `kinds`, as the shared store spells them: what they are called, and what they hold."""
        spelled: dict[str, Callable[..., tuple[str, Any]]] = {
            "user": lambda name, *user: (f"user/{name}", user),
            "session": lambda sid, generation, rotated, ended, expires: (
                f"session/{expires:014x}/{sid}", [generation, rotated, bool(ended)]
            ),
            "pruned": lambda latest: ("pruned/latest", latest),
        }  # fmt: skip
        with self.reading(True):
            for kind in kinds:
                yield from (spelled[kind](*row) for row in self._rows(f"SELECT * FROM {kind}"))

    def keep(self, key: str, value: Any) -> Any:
        """Write one such row unless it is there."""
        kind, _, name = key.partition("/")
        if kind == "user":
            self.add_user(name, *value)
        elif kind == "session":
            expires, _, sid = name.partition("/")
            self._changed("INSERT OR IGNORE INTO session VALUES (?, ?, ?, ?, ?)", sid, *value, int(expires, 16))
        else:
            self._changed("UPDATE pruned SET latest = max(latest, ?)", value)


# ---- Shared store ----------------------------------------------------------------------------------------
# A Store for several machines, in an etcd cluster: JSON over HTTP, as etcd's gateway speaks it.
# A verb is a transaction. It sees rows, decides, and says what to write; etcd writes that only if no row that was seen
# has changed, and else the verb runs again. So a request may be sent twice, or arrive late: the second finds another
# revision, and does nothing. A row that was seen before is a guess, which etcd confirms before anything is answered.
#
#     user/NAME              [password, epoch]; GONE once removed: a late request must find that the key has changed
#     session/EXPIRES/SID    [generation, rotated, ended]; those that have expired stand first
#     failure/DIGEST         [attempts, next, expires]
#     pruned/latest          the largest EXPIRES that was ever deleted

ETCD_SCHEMA = 1
GONE = [None, None]
NO_ROW, UNKNOWN = ("0", None), ("", None)  # a revision, and what it holds
NODE_SECONDS, PAUSE_SECONDS = 1.5, 0.05  # for one node to answer; before the next one is asked
STORE_SECONDS = 5.0  # for all of them: an election takes one or two
SILENT_SECONDS = 1.0  # after that was in vain, without asking: waiting threads would wait for each other
OWN_NODE_SECONDS, PRUNE_SECONDS = 60.0, 60.0  # between two looks: is the first node back, what has expired
MAX_OPERATIONS, ROWS_AT_ONCE = 128, 1_000  # in one request (etcd's --max-txn-ops); in one answer
MAX_GUESSES = 10_000  # rows that are remembered, some megabytes
# A transaction and its operations: base64 and numbers are put in, which JSON spells as they are.
TXN = '{"compare":[%s],"success":[%s],"failure":[%s]}'
COMPARE = '{"key":"%s","target":"MOD","modRevision":"%s"}'
READ = '{"requestRange":{"key":"%s"}}'
PUT = '{"requestPut":{"key":"%s","value":"%s"}}'
DELETE = '{"requestDeleteRange":{"key":"%s"}}'


def base64(text: str) -> str:
    """Return `text` as etcd's JSON spells it."""
    return b64encode(text.encode("utf-8")).decode("ascii")


class EtcdRefused(StoreFailed):
    """A node says no, and so would the others."""


class Work:
    """A transaction: the rows that it has seen, each with the revision that has written it, and what it writes."""

    def __init__(self, seen: dict[str, tuple[str, Any]], writes: dict[str, Any], number: int = 0) -> None:
        self.number, self.seen, self.writes, self.guessed, self.done = number, seen, writes, False, False


class _InThread(threading.local):
    """What each thread has to itself: a connection, its Work, how its batch failed, whether it must not wait."""

    connection: http.client.HTTPConnection | None = None
    work: Any = None
    failure: StoreFailed | None = None
    reading = False


def transaction(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method a transaction, or part of the one that its thread is in."""
    @wraps(verb)
    def run(self: Any, *arguments: Any) -> Any:
        return verb(self, *arguments) if self._local.work else self.batch([partial(verb, self, *arguments)])[0]
    return run


class EtcdStore:
    """A Store in an etcd cluster, without a demo user: several machines are not private. `login`: name, password."""

    inline_reads = False

    def __init__(
        self, path: str, nodes: list[tuple[str, int]], prefix: str, tls: ssl.SSLContext | None = None,
        login: Mapping[str, str] = {}, clock: Callable[[], float] = time.time, create: bool = True,
    ) -> None:  # fmt: skip
        """Raises StoreFailed if the cluster does not answer; EtcdRefused if it refuses, or is of another version."""
        self.path, self._nodes, self._tls, self._login, self._clock = path, nodes, tls, login, clock
        # When the first node is tried again; from when to when no node answered; until when none is asked, and why.
        self._node, self._own_node_at, self._outage, self._silence = 0, 0.0, (0.0, 0.0), (0.0, "")
        self._token, self._guesses, self._local = "", dict[str, tuple[str, Any]](), _InThread()
        self._prefix, self._prune_at = f"{prefix}/", time.monotonic() + PRUNE_SECONDS
        if (schema := self.keep("schema/version", ETCD_SCHEMA if create else None)) not in (ETCD_SCHEMA, None):
            raise EtcdRefused(f"another version of minijwt has written it (schema {schema}): use that one")

    def close(self) -> None:
        if self._local.connection:
            self._local.connection.close()

    @contextmanager
    def reading(self, several: bool) -> Iterator[None]:
        self._local.reading = True
        try:
            yield
        finally:
            self._local.reading = False

    def _ask(self, node: int, path: str, body: str) -> dict[str, Any]:
        """Return the answer of one node; raise OSError if another node may give a better one."""
        token = self._token
        if self._login and not token and path != "/v3/auth/authenticate":
            token = self._token = self._ask(node, "/v3/auth/authenticate", json.dumps(self._login)).get("token", "")
        connection = self._local.connection
        if connection is None or (connection.host, connection.port) != self._nodes[node]:
            self.close()
            kind = partial(http.client.HTTPSConnection, context=self._tls) if self._tls else http.client.HTTPConnection
            connection = self._local.connection = kind(*self._nodes[node], timeout=NODE_SECONDS)
        fields, answer = {"Authorization": token} if token else {}, {}
        connection.request("POST", path, body.encode("ascii"), fields)
        with connection.getresponse() as response:
            data = response.read()
        with suppress(ValueError, TypeError):
            answer = dict(json.loads(data))
        if "header" in answer and response.status == 200:
            return answer
        reason = str(answer.get("message") or answer.get("error") or data[:120].decode("ascii", "replace").strip())
        if fields and response.status in (400, 401):
            # It has expired, or rights have changed. Another thread may have a new one already.
            self._token = "" if self._token == token else self._token
        elif 400 <= response.status < 500 and response.status != 429:
            hint = "; etcd 3.4 or newer is needed" if response.status == 404 else ""
            raise EtcdRefused("{}:{}: {}".format(*self._nodes[node], reason + hint))
        raise ConnectionError(f"it answers {response.status}: {reason}")

    def _call(self, path: str, body: str, deadline: float) -> dict[str, Any]:
        """Return a node's answer, by `deadline`, to `body`: which may have been asked, and done, more than once."""
        if self._local.reading:
            raise Redo
        began, reason, tried, (silent_until, why) = self._clock(), "", set[int](), self._silence
        if time.monotonic() < silent_until:
            raise StoreFailed(why)
        while time.monotonic() < deadline - NODE_SECONDS:
            node = self._node if time.monotonic() < self._own_node_at else 0
            try:
                return self._ask(node, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                reason = "{}:{}: {}".format(*self._nodes[node], str(error) or type(error).__name__)
                tried.add(node)
            self._node, self._own_node_at = (node + 1) % len(self._nodes), time.monotonic() + OWN_NODE_SECONDS
            time.sleep(PAUSE_SECONDS)
        if len(tried) == len(self._nodes) and path == "/v3/kv/txn":
            # The cluster may come back from a backup, in which revisions that we have seen say something else.
            self._silence, self._guesses = (time.monotonic() + SILENT_SECONDS, reason), {}
            since, until = self._outage
            self._outage = since if began <= until + GRACE_SECONDS else began, self._clock() + SILENT_SECONDS
        raise StoreFailed(reason or f"rows kept changing, or etcd was slow: not done within {STORE_SECONDS:g} s")

    # -- transactions

    def _get(self, *keys: str) -> list[Any]:
        """Return what `keys` hold; raise Redo if they have to be read first."""
        if self._local.failure:
            raise self._local.failure.with_traceback(None)
        work = self._local.work
        for key in keys:
            if key not in work.seen:
                work.seen[key], work.guessed = self._guesses.get(key, UNKNOWN), True
        if any(work.seen[key] is UNKNOWN for key in keys):
            raise Redo
        return [work.writes[key] if key in work.writes else work.seen[key][1] for key in keys]

    def _put(self, key: str, value: Any) -> bool:
        """Have `key`, which was read, hold `value`; None deletes it. Returns True, for the verbs that do."""
        self._local.work.writes[key] = value
        return True

    def batch(self, works: list[Callable[[], Any]]) -> list[Any]:
        """Do each of `works` in a transaction of its own, again until nothing it has seen has changed.

        All that write share a request, and so do all that only read. If etcd fails, works run once more with verbs
        that raise StoreFailed, so that each may answer in its own way; any of them may have been done.
        """
        deadline, wrote, self._local.failure = time.monotonic() + STORE_SECONDS, False, None
        results, left = [None] * len(works), [Work({}, {}, number) for number in range(len(works))]
        while left:
            written: set[str] = set()
            for work in left:
                self._local.work, work.writes = work, {}
                try:
                    results[work.number] = works[work.number]()
                except Redo:
                    work.writes = {}
                finally:
                    self._local.work = None
                if not written.isdisjoint(work.seen):
                    # What an earlier one writes has to be read anew.
                    work.seen, work.writes, work.guessed = dict.fromkeys(work.seen, UNKNOWN), {}, True
                written.update(work.writes)
                work.done = not work.writes and not work.guessed
            writers = [work for work in left if work.writes]
            for some in (writers, [work for work in left if work.guessed and not work.writes]):
                try:
                    self._settle(some, deadline)
                except StoreFailed as error:
                    self._local.failure = error
            wrote = wrote or bool(written)
            left = [Work({}, {}, work.number) if self._local.failure else work for work in left if not work.done]
        if wrote and time.monotonic() >= self._prune_at:
            self._prune()
        return results

    def _settle(self, works: list[Work], deadline: float) -> None:
        """Have etcd confirm what `works` have seen, write what they write, and read what they do not know.

        If a row has changed, all are read instead. Works that had seen them so are done, or if they write, sent again.
        The reads also make etcd ask a majority: a transaction of compares alone is answered by one node, however old.
        """
        while works:
            some: list[Work] = []
            seen: dict[tuple[str, str], None] = {}
            for work in works:
                if len(seen) + len(work.seen) > MAX_OPERATIONS:
                    break
                seen.update(((key, row[0]), None) for key, row in work.seen.items())
                some.append(work)
            names = {key: base64(self._prefix + key) for key, _ in seen}
            same = [COMPARE % (names[key], revision) for key, revision in seen if revision]
            wanted = [key for key, revision in seen if not revision]
            writes = {key: value for work in some for key, value in work.writes.items()}
            steps = [READ % names[key] for key in wanted]
            steps += [PUT % (names[key], base64(json.dumps(value))) if value is not None else DELETE % names[key]
                      for key, value in writes.items()]  # fmt: skip
            body = TXN % (",".join(same), ",".join(steps), ",".join(READ % name for name in names.values() if same))
            answer = self._call("/v3/kv/txn", body, deadline)
            succeeded, revision = answer.get("succeeded", False), answer["header"]["revision"]
            found = dict.fromkeys(wanted if succeeded else names, NO_ROW)
            for each in answer.get("responses", []):
                found.update(self._found(each.get("response_range", {})))
            for work in some:
                new = {key: found.get(key, row) for key, row in work.seen.items()}
                work.done = new == work.seen and (succeeded or not work.writes)
                if new != work.seen:
                    work.seen, work.writes, work.guessed = new, {}, False
            works = [work for work in works if not work.done and (work.writes or work.guessed)]
            if succeeded:
                found.update((key, NO_ROW if value is None else (revision, value)) for key, value in writes.items())
            if len(self._guesses) > MAX_GUESSES:
                self._guesses.clear()
            self._guesses.update(found)

    def _found(self, answer: dict[str, Any]) -> dict[str, tuple[str, Any]]:
        """Return the rows of an answer: by key, the revision that has written it, and what it holds."""
        rows = ((b64decode(kv["key"]).decode("utf-8"), kv) for kv in answer.get("kvs", []))
        return {key[len(self._prefix) :]: (kv["mod_revision"], json.loads(b64decode(kv["value"]))) for key, kv in rows}

    def _range(self, start: str, end: str, **options: Any) -> tuple[dict[str, tuple[str, Any]], int]:
        """Return the first rows from `start` to `end`, and how many there are in all."""
        keys = {"key": base64(self._prefix + start), "rangeEnd": base64(self._prefix + end)}
        body = json.dumps({**keys, "limit": ROWS_AT_ONCE, **options})
        answer = self._call("/v3/kv/range", body, time.monotonic() + 2 * NODE_SECONDS)
        return self._found(answer), int(answer.get("count", 0))

    def dump(self, *kinds: str) -> Iterator[tuple[str, Any]]:
        """Yield rows, in the order of their keys: what they are called, and what they hold."""
        for kind in kinds:
            # "0" is the character after "/".
            start, end = f"{kind}/", f"{kind}0"
            while rows := self._range(start, end)[0]:
                yield from ((key, value) for key, (_, value) in rows.items())
                start = max(rows) + "\0"

    @transaction
    def keep(self, key: str, value: Any) -> Any:
        """Write `value` unless `key` holds something already; return what it holds then."""
        (found,) = self._get(key)
        if value != found and (found in (None, GONE) or (key == "pruned/latest" and value > found)):
            self._put(key, found := value)
        return found

    def _prune(self) -> None:
        """Forget some sessions that have expired, and remember that this was done; if that is all, old attempts."""
        self._prune_at, now = time.monotonic() + PRUNE_SECONDS, self._clock()
        with suppress(StoreFailed, LookupError, TypeError, ValueError):
            old, _ = self._range("session/", f"session/{int(now) + 1:014x}", limit=PRUNE_ROWS)
            self.keep("pruned/latest", max((int(key.split("/")[1], 16) for key in old), default=0))
            if len(old) < PRUNE_ROWS:
                attempts, count = self._range("failure/", "failure0", sortTarget="MOD")
                old.update((key, row) for number, (key, row) in enumerate(attempts.items())
                           if number < count - MAX_ATTEMPT_ROWS or row[1][2] <= now)  # fmt: skip
            self._settle([Work({key: row}, {key: None}) for key, row in old.items()], time.monotonic() + STORE_SECONDS)
            self._prune_at -= PRUNE_SECONDS if len(old) >= PRUNE_ROWS else 0

    # -- the verbs

    def user_names(self) -> list[str]:
        return [key.partition("/")[2] for key, value in self.dump("user") if value != GONE]

    @transaction
    def add_user(self, name: str, password: str, epoch: str) -> bool:
        user = self._get(f"user/{name}")[0] or GONE
        # The same, to its random epoch, was written at the first try.
        return user == [password, epoch] or (user == GONE and self._put(f"user/{name}", [password, epoch]))

    @transaction
    def change_password(self, name: str, password: str, epoch: str, old: str | None = None) -> bool:
        user, new = self._get(f"user/{name}")[0] or GONE, [password, epoch]
        allowed = user != GONE and old in (None, user[0])
        return user == new or (allowed and self._put(f"user/{name}", new))

    @transaction
    def rehash(self, name: str, old: str, password: str) -> None:
        stored, epoch = self._get(f"user/{name}")[0] or GONE
        if stored == old:
            self._put(f"user/{name}", [password, epoch])

    @transaction
    def replace_epoch(self, name: str, epoch: str) -> bool:
        password, _ = self._get(f"user/{name}")[0] or GONE
        return password is not None and self._put(f"user/{name}", [password, epoch])

    @transaction
    def remove_user(self, name: str) -> bool:
        return (self._get(f"user/{name}")[0] or GONE) != GONE and self._put(f"user/{name}", GONE)

    @transaction
    def look_up(self, name: str, sid: str, expires: int) -> Standing:
        user, row, pruned = self._get(f"user/{name}", f"session/{expires:014x}/{sid}", "pruned/latest")
        generation, rotated, ended = row or (None, 0.0, False)
        if generation:
            # Seconds in which no node answered do not count for the grace of a rotation.
            since, until = self._outage
            rotated += max(0.0, min(until, self._clock()) - max(since, rotated))
        password, epoch = user or GONE
        return Standing(password, epoch, True, pruned or 0, generation, rotated, ended)

    def add_session(self, sid: str, expires: int) -> None:
        self.keep(f"session/{expires:014x}/{sid}", [0, 0.0, False])

    @transaction
    def rotate_session(self, sid: str, generation: int, expires: int, now: float) -> bool:
        key = f"session/{expires:014x}/{sid}"
        newest, _, ended = self._get(key)[0] or (0, 0.0, False)
        return newest == generation and not ended and self._put(key, [generation + 1, now, False])

    @transaction
    def end_session(self, sid: str, expires: int) -> None:
        key = f"session/{expires:014x}/{sid}"
        generation, rotated, ended = self._get(key)[0] or (0, 0.0, False)
        if not ended:
            self._put(key, [generation, rotated, True])

    @transaction
    def count_login_attempt(self, key: bytes, now: float, limit: int) -> float:
        (row,) = self._get(f"failure/{key.hex()}")
        wait, attempts = next_attempt(Attempts(*row) if row else None, now, limit)
        if attempts:
            self._put(f"failure/{key.hex()}", [*attempts])
        return wait

    @transaction
    def clear_login_attempts(self, key: bytes) -> None:
        if self._get(f"failure/{key.hex()}")[0]:
            self._put(f"failure/{key.hex()}", None)


# ---- Reading settings ------------------------------------------------------------------------------------
# From the environment and a .env file to Settings; what is wrong is one sentence that names the variable, its value
# unless that is a secret, and where it came from.

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_TTL_SECONDS = 3650 * UNIT_SECONDS["d"]


def read_host(text: str) -> str:
    if text != "localhost":
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
        except (OSError, ValueError):
            raise ValueError('it must be "localhost", an IPv4 or an IPv6 address') from None
    return text


def read_port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65_535:
        raise ValueError("it must be a number from 0 (any free port) to 65535")
    return int(text)


def read_duration(text: str) -> int:
    match = re.fullmatch("([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= MAX_TTL_SECONDS:
        raise ValueError("it must be 1s to 3650d: a number and s, m, h or d, such as 10m")
    return seconds


def read_secret(text: str) -> bytes:
    if not text:
        raise ValueError(f"it is empty; `{COMMAND} token keygen` prints a good one")
    if text.startswith(("$(", "${", "`")):
        raise ValueError("no shell reads it, so what looks like a command would be the secret: put its output there")
    try:
        with warnings.catch_warnings():
            # `check_exposure` reports short secrets.
            warnings.simplefilter("ignore", minijwt.InsecureKeyLengthWarning)
            return minijwt.key_bytes(text.encode("utf-8", "surrogateescape"))
    except minijwt.InvalidKeyError as error:
        raise ValueError(f"it cannot be used: {error}") from None


def matching(pattern: str, sentence: str, convert: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Return a reader of values that match `pattern`; others raise ValueError with `sentence`."""

    def read(text: str) -> Any:
        if not re.fullmatch(pattern, text):
            raise ValueError(sentence)
        return convert(text)

    return read


read_on_off = matching("on|off", "it must be on or off", "on".__eq__)
read_path = matching(r"[^\0]+", "it must be the path of a file")
_COOKIE_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 6265 §4.1.1


def read_networks(text: str) -> tuple[Network, ...]:
    networks = []
    for each in text.replace(",", " ").split():
        try:
            networks.append(ipaddress.ip_network(each))
        except ValueError as error:
            if "host bits" in str(error):
                near = ipaddress.ip_network(each, strict=False)
                raise ValueError(f"{each} is an address with the length of a network: is {near} meant?") from None
            raise ValueError(f"{each} is neither an address nor a network such as 10.0.0.0/8") from None
    return tuple(networks)


def read_origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.replace(",", " ").split())
    for origin in origins:
        match = re.fullmatch(r"(https?)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?", origin)
        if not match or match[2] == DEFAULT_PORTS[match[1]]:
            raise ValueError(f"{origin} is not an origin as browsers spell it (RFC 6454 §6.2), such as"
                             " https://app.example, without a path or a default port; never * or null")  # fmt: skip
    return origins


def etcd_nodes(url: str) -> tuple[list[tuple[str, int]], str]:
    """Return the addresses, ports and prefix in etcd://ADDRESS:PORT,…/PREFIX; raise ValueError if it is not that."""
    match = re.fullmatch(r"etcd://([^/]*)(?:/([A-Za-z0-9._-]+))?", url)
    if not match:
        raise ValueError("it must be etcd://ADDRESS:PORT,ADDRESS:PORT/PREFIX, its prefix of letters, digits and ._-;"
                         " or the path of a file")  # fmt: skip
    nodes = []
    for each in match[1].split(","):
        host, _, port = each.rpartition(":")
        address = parse_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        if address is None or not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > 65_535:
            raise ValueError(f"{each!r} is not a literal address and a port, such as 10.0.0.1:2379 or [fd00::1]:2379")
        nodes.append((str(address), int(port)))
    return nodes, match[2] or "minijwt"


def read_database(text: str) -> str:
    if "://" in text or text.startswith("etcd:"):
        etcd_nodes(text)
    return str(read_path(text))


# Environment variable → the field of Settings, how its text is read.
VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "HOST": ("host", read_host),
    "PORT": ("port", read_port),
    "ACCESS_TOKEN_SECRET": ("access_secrets", read_secret),
    "REFRESH_TOKEN_SECRET": ("refresh_secrets", read_secret),
    "ACCESS_TOKEN_SECRET_OLD": ("access_secrets", read_secret),
    "REFRESH_TOKEN_SECRET_OLD": ("refresh_secrets", read_secret),
    "ACCESS_TOKEN_TTL": ("access_ttl", read_duration),
    "REFRESH_TOKEN_TTL": ("refresh_ttl", read_duration),
    "UNAUTHORIZED_STATUS": ("unauthorized_status", matching("406|401", "it must be 406 or 401", int)),
    "COOKIE_NAME": ("cookie_name", matching(_COOKIE_NAME, "it must consist of letters, digits and !#$%&'*+-.^_`|~")),
    "COOKIE_SAMESITE": ("cookie_samesite", matching("None|Lax|Strict", "it must be None, Lax or Strict")),
    "COOKIE_SECURE": ("cookie_secure", read_on_off),
    "DATABASE": ("database", read_database),
    "DATABASE_CA": ("database_ca", read_path),
    "DATABASE_CERT": ("database_cert", read_path),
    "DATABASE_KEY": ("database_key", read_path),
    "DATABASE_LOGIN": ("database_login", read_path),
    "ROTATE_REFRESH": ("rotate_refresh", read_on_off),
    "ALLOWED_ORIGINS": ("allowed_origins", read_origins),
    "TLS_CERT": ("tls_cert", read_path),
    "TLS_KEY": ("tls_key", read_path),
    "LOGIN_MAX_FAILURES": ("login_max_failures", matching("[0-9]{1,6}", "it must be a number, 0 is off", int)),
    "TRUSTED_PROXIES": ("trusted_proxies", read_networks),
    "PAGE": ("page", read_on_off),
    "ACCESS_LOG": ("access_log", read_on_off),
}

# One line of a .env file as Node's dotenv reads it: NAME=value or NAME: value, `export`, quotes that may span lines, a
# comment; or nothing. White space is what JavaScript's \s is.
_SPACE = r"[\t\v\f \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"
_LINE = re.compile(
    rf"""{_SPACE}*(?:(?:export{_SPACE}+)?(?P<name>[\w.-]+)(?:{_SPACE}*=|:{_SPACE}){_SPACE}*
    (?P<value>'(?:\\'|[^'])*'|"(?:\\"|[^"])*"|`(?:\\`|[^`])*`|[^\n#]*?){_SPACE}*)?(?:\#[^\n]*)?(?:\n|$)""",
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
            value = match["value"]
            if value.startswith('"'):
                # Only double quotes know escapes.
                value = value.replace(r"\n", "\n").replace(r"\r", "\r")
            values[match["name"]] = re.sub(r"(?s)\A(['\"`])(.*)\1\Z", r"\2", value)
        at = match.end()
    return values


def read_dotenv(path: str) -> dict[str, str]:
    """Return what the file `path` sets, if there is one."""
    try:
        with open(path, "rb") as file:
            return parse_dotenv(file.read().decode("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8") from None
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None


def check_together(settings: Settings) -> None:
    """Raise SettingsError for settings that are fine alone and wrong together."""
    if {*map(minijwt.hmac_key, settings.access_secrets)} & {*map(minijwt.hmac_key, settings.refresh_secrets)}:
        raise SettingsError(
            "REFRESH_TOKEN_SECRET and ACCESS_TOKEN_SECRET, current and old, must all differ:"
            " only by its key is a refresh token told from an access token"
        )
    if not settings.cookie_secure and settings.cookie_samesite == "None":
        raise SettingsError("COOKIE_SAMESITE is None, which needs COOKIE_SECURE=on; otherwise set Lax or Strict")
    if not settings.cookie_secure and settings.cookie_name.lower().startswith(("__host-", "__secure-")):
        raise SettingsError(f"COOKIE_NAME is {settings.cookie_name}, which needs COOKIE_SECURE=on; otherwise set jwt")
    for cert, key in (("TLS_CERT", "TLS_KEY"), ("DATABASE_CERT", "DATABASE_KEY")):
        if (cert in settings.given) != (key in settings.given):
            raise SettingsError(f"{cert} and {key} belong together: set both (they may name one file), or none")
    etcd = settings.database.startswith("etcd://")
    for name in settings.given:
        if name.startswith("DATABASE_") and not etcd:
            raise SettingsError(f"{name} is for etcd, and DATABASE does not begin with etcd://")
    if etcd and settings.random_secrets:
        raise SettingsError("DATABASE=etcd://… needs both secrets, the same ones on every machine")
    if settings.database_cert and not settings.database_ca:
        raise SettingsError("DATABASE_CERT is set without DATABASE_CA: it is for TLS")
    nodes = etcd_nodes(settings.database)[0] if etcd and not settings.database_ca else []
    if not all(ipaddress.ip_address(host).is_loopback for host, _ in nodes):
        raise SettingsError("DATABASE names another machine, which needs DATABASE_CA: without TLS, sessions and"
                            " passwords' hashes could be read and changed on the way")  # fmt: skip


def read_settings(environ: Mapping[str, str], dotenv: str = ".env") -> Settings:
    """Return the settings in `environ` and, where that is silent, in the file `dotenv`.

    Raises SettingsError, one sentence with the variable's name, for a value that is wrong.
    """
    from_file = read_dotenv(dotenv)
    # An empty ..._OLD, as a template may have it, is none.
    given = {name: text for name, text in {**from_file, **environ}.items() if text or not name.endswith("_OLD")}
    shown: dict[str, str] = {}
    values: dict[str, Any] = {"given": shown, "unknown": tuple(name for name in from_file if name not in VARIABLES)}
    # In this order: a current secret before its old one.
    for variable, (field, read) in VARIABLES.items():
        if variable in given:
            try:
                value = read(given[variable])
            except ValueError as error:
                source = "the environment" if variable in environ else dotenv
                value = "" if read is read_secret else f" is {given[variable]!r}"
                raise SettingsError(f"{variable}{value} (from {source}): {error}") from None
            shown[variable] = f"{len(value)} bytes" if read is read_secret else given[variable]
            values[field] = (*values.get(field, ()), value) if read is read_secret else value
    names = [name for name in shown if "_SECRET" in name]
    if not names:
        access, refresh = os.urandom(minijwt.MIN_KEY_BYTES), os.urandom(minijwt.MIN_KEY_BYTES)
        values.update(access_secrets=(access,), refresh_secrets=(refresh,), random_secrets=True)
    elif not {"ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET"} <= {*names}:
        raise SettingsError(f"{names[0]} is set alone: set both secrets, or none for two random ones")
    else:
        values.setdefault("database", "minijwt.db")
    settings = Settings(**values)
    check_together(settings)
    return settings


def exposed_files(settings: Settings, dotenv: str = ".env") -> Iterator[str]:
    """Yield a sentence for each file that other users of the machine can read, write, replace or own.

    A group that is ours or root's is as good as ourselves: mounted secrets are root:ours 0440. Windows has no modes.
    """
    if not hasattr(os, "geteuid"):
        return
    groups = {0, os.getegid(), *os.getgroups()}
    # What is not yet in the database is in its -wal.
    database = [settings.database + suffix for suffix in ("", "-wal", "-shm") if settings.database]
    secret = (settings.tls_key, settings.database_key, settings.database_login)
    paths = [*filter(None, (dotenv, *database, *secret))]
    for path in [*paths, *dict.fromkeys(os.path.dirname(os.path.abspath(path)) for path in paths)]:
        with suppress(OSError):
            status = os.stat(path)
            mode = status.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if status.st_gid not in groups else 0))
            if stat.S_ISDIR(status.st_mode):
                # Others may look around. The sticky bit keeps them from replacing what is not theirs.
                if mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
                    yield f"the files in {path} can be replaced by others: chmod go-w {path}"
                continue
            if mode:
                yield f"{path} can be read or written by others: chmod 600 {path}"
            if status.st_uid not in (0, os.geteuid()):
                yield f"{path} belongs to another user, number {status.st_uid}: chown it to the server's"


def check_exposure(settings: Settings, any_user: bool, dotenv: str = ".env") -> list[str]:
    """The exposure rule: return what is handy for learning and dangerous in the open, a sentence each, as warnings.

    Raises SettingsError with all of them on a server that is open.
    """
    # NULs at the end add nothing to a key (RFC 2104 §2).
    secrets = (settings.access_secrets, settings.refresh_secrets)
    access, refresh = (min(len(secret.rstrip(b"\0")) for secret in each) for each in secrets)
    least, random = minijwt.MIN_KEY_BYTES, settings.random_secrets
    risks = {
        f"the secrets are random, and a restart logs all users out: `{COMMAND} init` writes lasting ones": random,
        f"its only user is the demo user {DEMO_USERNAME}, known to all: `{COMMAND} user add NAME`": not any_user,
        f"ACCESS_TOKEN_SECRET, or its OLD, has only {access} of {least} bytes: it can be guessed": access < least,
        f"REFRESH_TOKEN_SECRET, or its OLD, has only {refresh} of {least} bytes: it can be guessed": refresh < least,
        "COOKIE_SECURE=off: the refresh token travels over plain HTTP too": not settings.cookie_secure,
        **dict.fromkeys(exposed_files(settings, dotenv), True),
    }
    found = [sentence for sentence, is_so in risks.items() if is_so]
    if found and not settings.private:
        reason = "TRUSTED_PROXIES" if settings.trusted_proxies else f"HOST={settings.host}"
        raise SettingsError(f"{reason} would let other machines in, but " + "; ".join(found))
    if not (settings.private or settings.tls_cert or settings.trusted_proxies) and settings.cookie_secure:
        found.append("plain HTTP for other machines, over which no browser keeps the cookie: set TLS_CERT and TLS_KEY,"
                     " or put a proxy in front and name it in TRUSTED_PROXIES")  # fmt: skip
    given = () if random else (*settings.access_secrets, *settings.refresh_secrets)
    if any(secret != secret.strip(b" \t\r\n\"'") for secret in given):
        found.append("a secret has white space or quotes around it, which are part of it: is that meant?")
    return found


# ---- Starting --------------------------------------------------------------------------------------------
# Sockets, TLS and limits, before the loop begins.

SEND_BUFFER_BYTES = 24_576  # of each socket, in the kernel, which would grow it to megabytes
RECEIVE_BUFFER_BYTES = 16_384  # likewise
RESERVED_DESCRIPTORS = 64 + 4 * HASHES_AT_ONCE  # three a thread for the database; listeners, log
MAX_SELECT = 512  # sockets that `select` takes on Windows


def bound_socket(address: str, port: int) -> socket.socket:
    """Return a socket that listens on a literal address; raise OSError if that cannot be."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=BACKLOG)
    # Accepted sockets inherit these.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    listener.setblocking(False)
    return listener


def listen(host: str, port: int) -> list[socket.socket]:
    """Return bound sockets: for "localhost" both loopback addresses, where a machine has both, with one port.

    Raises SettingsError if the port is taken or the address not ours. Never looks up a name.
    """
    sockets: list[socket.socket] = []
    for address in ["127.0.0.1", "::1"] if host == "localhost" else [host]:
        try:
            sockets.append(bound_socket(address, port))
        except OSError as error:
            number = error.errno or 0
            if sockets and number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                # A machine without IPv6.
                break
            for each in sockets:
                each.close()
            sentences = {
                errno.EADDRINUSE: f"PORT {port} is in use on {host}: stop that program, or set another PORT",
                errno.EACCES: f"PORT {port} may not be used by this user: set one above 1023",
            }
            sentence = sentences.get(number, f"HOST {host} cannot be listened on: {os.strerror(number)}")
            raise SettingsError(sentence, passing=number in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)) from None
        # For port 0: the second one has the port that the first one got.
        port = sockets[0].getsockname()[1]
    return sockets


def load_pair(context: ssl.SSLContext, kind: str, cert: str, key: str) -> None:
    """Load the files that {kind}_CERT and {kind}_KEY name; raise SettingsError if they are no pair."""

    def no_password() -> str:
        raise SettingsError(f"{kind}_KEY {key} is locked by a password, which cannot be typed here: unlock it")

    try:
        for variable, path in (("CERT", cert), ("KEY", key)):
            with open(path, "rb"):
                pass
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if "MISMATCH" in str(error.reason):
            raise SettingsError(f"{kind}_KEY {key} is not the key of {kind}_CERT {cert}") from None
        # OpenSSL has little to say about a file that is not PEM, and more about a key that is too small.
        reason = f" ({error.reason})" if error.reason else ""
        sentence = f"{kind}_CERT {cert} and {kind}_KEY {key} must be PEM: a certificate and its key{reason}"
        raise SettingsError(sentence) from None
    except OSError as error:
        raise SettingsError(f"{kind}_{variable} {path} cannot be read: {error.strerror}") from None


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Return what TLS 1.2 and newer needs; raise SettingsError if the files `cert` and `key` are no pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    # Each renegotiation would cost us ten times what it costs the client. PyPy does not name the option.
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)
    context.set_alpn_protocols(["http/1.1"])  # RFC 7301
    load_pair(context, "TLS", cert, key)
    return context


def raise_descriptor_limit() -> int:
    """Raise the limit of descriptors as far as we may and need; return how many connections it allows."""
    if resource is None:
        return MAX_SELECT - 8
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - RESERVED_DESCRIPTORS)


def notify_systemd(state: str) -> None:
    """Tell systemd `state`, such as READY=1, if it has started us (sd_notify(3))."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            # A name that begins with @ is in Linux's abstract namespace.
            client.connect("\0" + path[1:] if path.startswith("@") else path)
            client.send(state.encode())


def open_etcd(settings: Settings, create: bool = True) -> EtcdStore:
    """Return the store in the etcd cluster that DATABASE names, with TLS and a login where these are set."""
    (nodes, prefix), tls, login = etcd_nodes(settings.database), None, {}
    if settings.database_login:
        try:
            with open(settings.database_login, encoding="utf-8") as file:
                name, _, password = file.read().rstrip("\r\n").partition(":")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", "it is not UTF-8")
            raise SettingsError(f"DATABASE_LOGIN {settings.database_login} is no file to read: {reason}") from None
        login = {"name": name, "password": password}
        if not all(login.values()) or "\n" in password:
            raise SettingsError(f"DATABASE_LOGIN {settings.database_login} must hold one line, user:password")
    if settings.database_ca:
        try:
            tls = ssl.create_default_context(cafile=settings.database_ca)
        except OSError as error:
            reason = "it is not PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsError(f"DATABASE_CA {settings.database_ca} cannot be used: {reason}") from None
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.database_cert:
            load_pair(tls, "DATABASE", settings.database_cert, settings.database_key)
    try:
        return EtcdStore(settings.database, nodes, prefix, tls, login, create=create)
    except StoreFailed as error:
        # OpenSSL's words, for a certificate of ours or of a node.
        passing = not isinstance(error, EtcdRefused) and "CERTIFICATE" not in str(error)
        raise SettingsError(f"DATABASE {settings.database} cannot be used: {error}", passing) from None


def open_store(settings: Settings, create: bool = True) -> MemoryStore | SQLiteStore | EtcdStore:
    """Return the store that DATABASE names. With `create`, it is made if there is none."""
    if not settings.database:
        return MemoryStore()
    if any(exposed_files(settings)):
        # Before SQLite takes over what others may have put into the -wal.
        check_exposure(settings, any_user=True)
    etcd = settings.database.startswith("etcd://")
    return open_etcd(settings, create) if etcd else SQLiteStore(settings.database, create=create)


# ---- Command line ----------------------------------------------------------------------------------------
# Knows the process: arguments, signals, exit status.

RELEASED = 1_795_392_000  # 2026-11-23, seconds since 1970: an earlier clock is wrong


def say(stream: TextIO | None, text: str) -> None:
    """Print a line. If `stream` cannot take it, the server goes on, and at its end Python does not try again."""
    if stream is not None:
        try:
            print(text, file=stream, flush=True)
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def warn(message: str) -> None:
    say(sys.stderr, f"{PROGRAM}: warning: {message}")


def serve_until_signalled(server: Server, greeting: str) -> None:
    """Serve; SIGTERM, SIGINT or SIGHUP ends it in an orderly way, a second one at once."""
    signals = []

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            # Nothing that takes a lock: this may have interrupted its holder.
            os._exit(1)
        notify_systemd("STOPPING=1")
        server.post(server.stop)

    def ready() -> None:
        say(sys.stdout, greeting)
        notify_systemd("READY=1")

    signal.set_wakeup_fd(server.wakeup_writer.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)):
        # `nohup` ignores SIGHUP. A shell has its background jobs ignore SIGINT, which is not meant for us.
        if number in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    server.run(ready)
    signal.set_wakeup_fd(-1)


def serve_command(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    settings = read_settings(os.environ)
    if time.time() < RELEASED:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        message = f"the clock says {today}, before this program was made: set it, or no token is good"
        raise SettingsError(message, passing=True)
    tls = tls_context(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
    store = open_store(settings)
    for name in settings.unknown:
        warn(f".env sets {name}, which is no setting of this server")
    for risk in check_exposure(settings, bool(store.look_up("", "", 0).any_user)):
        warn(risk)
    sockets = listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{'https' if tls else 'http'}://{host}:{sockets[0].getsockname()[1]}"
    # A detached process has no standard error.
    log = Log(FileIO(os.devnull if sys.stderr is None else sys.stderr.fileno(), "wb", closefd=sys.stderr is None))
    logging.basicConfig(stream=log, format="%(levelname)s: %(message)s", force=True)
    watchdog = partial(notify_systemd, "WATCHDOG=1")
    app = App(settings, store, log=log, page=arguments.page)
    server = Server(app, sockets, tls, raise_descriptor_limit(), on_sweep=watchdog)
    about = {"version": minijwt.__version__, "url": url, "database": getattr(store, "path", "memory")}
    libraries = {"sqlite": sqlite3.sqlite_version, "openssl": ssl.OPENSSL_VERSION}
    log(Event("start", {**about, "python": sys.version.split()[0], **libraries}))
    log(Event("settings", settings.given or {"all": "default"}))
    try:
        # A Log writes and flushes, which is all that Python asks of standard error.
        with redirect_stderr(log):  # type: ignore[type-var]
            serve_until_signalled(server, f"Server active on {url}!")
        log(Event("stop", {}))
    finally:
        log.close()
    if getattr(store, "abandoned", ()):
        # At its end Python would close the database, and SQLite unlink the -wal of the file that has taken its place.
        os._exit(0)
    return 0


def ask_password() -> str:
    """Return a password: asked for twice and not shown on a terminal, else one line of standard input, in UTF-8."""
    if sys.stdin is None or not sys.stdin.isatty():
        line = sys.stdin.buffer.readline() if sys.stdin else b""
        return line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    password = getpass.getpass(f"Password (at least {MIN_PASSWORD_CHARS} characters): ")
    if password != getpass.getpass("Again: "):
        raise ValueError("the two passwords differ")
    return password


# A password as hash_password makes it, at a cost that does not hold up the logins of others for long.
PASSWORD = r"(scrypt\$[0-9]{1,6}\$[1-9]\$[1-9]|pbkdf2\$[1-9][0-9]{0,6})\$([0-9a-f]{2})+\$[0-9a-f]+"
# What `user export` prints: the key of a row, and what it holds as JSON.
ROWS = {
    "user/.+": rf'\["{PASSWORD}", "[0-9a-f]+"\]',
    "session/[0-9a-f]{14}/[0-9a-f]+": r"\[[0-9]{1,16}, [0-9]{1,16}\.[0-9]+, (true|false)\]",
    "pruned/latest": "[0-9]{1,16}",
}


def read_row(line: str) -> tuple[str, Any]:
    """Return a row of `user export`; raise ValueError if `line` is none."""
    key, value = json.loads(line)
    text, (kind, _, name) = json.dumps(value), key.partition("/")
    known = any(re.fullmatch(of_key, key) and re.fullmatch(of_text, text) for of_key, of_text in ROWS.items())
    if not known or (kind == "user" and name != checked_name(name)):
        raise ValueError
    return key, value


def import_rows(store: SQLiteStore | EtcdStore, lines: Iterable[str]) -> int:
    """Write the rows of `user export`, except what is there already; return how many were read."""
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(read_row(line))
        except (AttributeError, RecursionError, TypeError, ValueError):
            raise ValueError(f"line {number} is not what `user export` prints; nothing was imported") from None
    for start in range(0, len(rows), WRITES_AT_ONCE):
        store.batch([partial(store.keep, *row) for row in rows[start : start + WRITES_AT_ONCE]])
    return len(rows)


def user_command(arguments: argparse.Namespace) -> int:
    """user add|passwd|remove|list|logout|export|import: a running server sees it at once."""
    settings = read_settings(os.environ)
    # Arguments are bytes that Python has decoded by the locale; a name is UTF-8.
    action, name = arguments.action, getattr(arguments, "name", "")
    with suppress(UnicodeEncodeError):
        name = os.fsencode(name).decode("utf-8", "surrogateescape")
    store = open_store(settings, create=action in ("add", "import"))
    if isinstance(store, MemoryStore):
        raise SettingsError("no secrets and no DATABASE are set, so users would not last:"
                            f" run this in the directory of the .env, or `{COMMAND} init` first")  # fmt: skip
    accounts = Accounts(settings, store)
    if action == "list":
        print("".join(each + "\n" for each in store.user_names()), end="")
        return 0
    if action == "export":
        # Ended sessions first: a part of it must not bring them back to life.
        for row in store.dump("pruned", "session", "user"):
            if row[1] != GONE:
                print(json.dumps(row))
        return 0
    if action == "import":
        number = import_rows(store, sys.stdin or ())
        say(sys.stderr, f"{PROGRAM}: {number} rows were read; those that {store.path} had already are unchanged")
        return 0
    if (store.look_up(checked_name(name), "", 0).password is not None) == (action == "add"):
        hint = "already: `user passwd` changes the password" if action == "add" else f"in {store.path}"
        raise ValueError(f"there is {'a' if action == 'add' else 'no'} user {name} {hint}")
    if action == "add":
        accounts.add_user(name, ask_password())
    elif action == "passwd":
        accounts.change_password(name, ask_password())
    elif action == "remove":
        accounts.remove_user(name)
        if settings.private and not store.look_up("", "", 0).any_user:
            warn(f"that was the last user: {DEMO_USERNAME} is let in again")
    else:
        accounts.end_sessions(name)
    store.close()
    line = log_line(time.time(), Event("user", {"action": action, "user": name, "database": store.path}))
    say(sys.stderr, line)
    # For the journal, where the server's own lines are.
    if syslog is not None:
        syslog.openlog("minijwt")
        syslog.syslog(line.partition(" ")[2])
    return 0


HARDENED = """# Settings of minijwt's server. Keep this file secret: its secrets are enough to log in as any user.

# They sign access and refresh tokens. Different, random, 32 bytes; to change one, keep the old as ..._OLD for a while.
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


def init_command(arguments: argparse.Namespace) -> int:
    """init: write a .env with fresh secrets and the hardened choices; never over an existing one."""
    secrets = {name: minijwt.base64url_encode(os.urandom(32)).decode("ascii") for name in ("access", "refresh")}
    try:
        descriptor = os.open(".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsError(".env exists already, and is left as it is") from None
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(HARDENED.format(**secrets))
    except BaseException as error:
        # A part of it would keep the next `init` from writing.
        os.unlink(".env")
        if isinstance(error, OSError):
            raise SettingsError(f".env cannot be written: {error.strerror}", passing=True) from None
        raise
    print(f"Wrote {os.path.abspath('.env')}; a server that is started in this directory reads it.\n"
          f"Next, here and as the user that the server will run as: python3 {sys.argv[0]} user add NAME")  # fmt: skip
    return 0


# A token and its key (RFC 7515 A.1); passwords as they are stored (RFC 7914 §12 and §11).
RFC_TOKEN = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNv"
    "bS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
RFC_KEY = b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
RFC_PASSWORDS = {"scrypt": "pleaseletmein", "pbkdf2": "Password"}
RFC_STORED = {
    "scrypt": "16384$8$1$536f6469756d43686c6f72696465$7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2",
    "pbkdf2": "80000$4e61436c$4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56",
}


def selftest_command(arguments: argparse.Namespace) -> int:
    """selftest: five lines; needs no port and no setting, and leaves nothing behind."""
    failed, scheme = [], COST.partition("$")[0]
    settings = Settings((os.urandom(32),), (os.urandom(32),), rotate_refresh=True)

    @contextmanager
    def proof(sentence: str) -> Iterator[None]:
        try:
            yield
            print(f"ok      {sentence}", flush=True)
        except Exception:
            logger.exception(sentence)
            print(f"FAILED  {sentence}", flush=True)
            failed.append(sentence)

    with tempfile.TemporaryDirectory(prefix="minijwt-") as directory:
        with proof("HMAC-SHA256: the token of RFC 7515"):
            signing_input, _, _, signature = minijwt.split(RFC_TOKEN)
            minijwt.check_signature(signing_input, signature, minijwt.base64url_decode(RFC_KEY))
        with proof(f"{scheme}: the password of RFC 7914"):
            if not check_password(RFC_PASSWORDS[scheme], f"{scheme}${RFC_STORED[scheme]}"):
                raise ValueError("another hash")
        with proof(f"SQLite {sqlite3.sqlite_version}: a user is kept, and logs in"):
            accounts = Accounts(settings, SQLiteStore(os.path.join(directory, "minijwt.db")))
            accounts.add_user("ann", "correct horse")
            first = accounts.login("ann", "correct horse", NO_ADDRESS).refresh or ""
        with proof("the refresh token is good for another"):
            second = accounts.refresh([first]).refresh or ""
            if second == first:
                raise ValueError("the same")
        with proof("the same, with one letter of its signature changed, is refused"), suppress(Refused):
            accounts.refresh([second[:-9] + ("A" if second[-9] != "A" else "B") + second[-8:]])
            raise ValueError("it is accepted")
    return 1 if failed else 0


class Parser(argparse.ArgumentParser):
    """Says where settings come from: people try --port."""

    def error(self, message: str) -> NoReturn:
        hint = f"; settings come from the environment or .env: PORT=8000 {COMMAND}"
        super().error(message + (hint if "unrecognized" in message or "invalid choice" in message else ""))


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog=PROGRAM,
        description="A login server: JWT access tokens, refresh tokens in an HttpOnly cookie.",
        epilog="Settings come from the environment and from .env: " + ", ".join(VARIABLES) + ".",
    )
    version = f"minijwt {minijwt.__version__}"
    parser.add_argument("--version", action="version", version=version, help="show the version")
    parser.set_defaults(run=serve_command)
    commands = parser.add_subparsers(title="commands", metavar="[COMMAND]", description="without one, it serves")
    commands.add_parser("init", help="write a .env with fresh secrets").set_defaults(run=init_command)
    text = "show that all a login needs works here, as the RFCs have it"
    commands.add_parser("selftest", help=text).set_defaults(run=selftest_command)
    commands.add_parser("token", help="encode, decode, explain, keygen: what minijwt.py does")
    user = commands.add_parser("user", help="add, passwd, remove, list, logout, export, import")
    user.set_defaults(run=user_command)
    actions = user.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in (
        ("add", "add a user; the password is asked for, or one line of standard input"),
        ("passwd", "change a password, which ends all of the user's sessions"),
        ("remove", "remove a user"),
        ("logout", "end all sessions of a user"),
    ):
        actions.add_parser(action, help=text).add_argument("name")
    actions.add_parser("list", help="print all names")
    actions.add_parser("export", help="print all users and sessions, for the `user import` of another DATABASE")
    actions.add_parser("import", help="add what `user export` has printed, from standard input")
    return parser


# ==== Part V: The page ====================================================================================
# What a browser shows at /: a token is taken apart, edited, and judged by the server. Nothing in it is interpolated,
# nothing comes from elsewhere, and a browser runs no script and no style but these.

PAGE = r"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>minijwt: a token, taken apart</title>
<style>
/* Each part of a token has its hue: in the token, decoded, and among the checks. So have good news and bad. */
:root {
  color-scheme: light dark; --paper: light-dark(#faf9f6, #131418); --card: light-dark(#fff, #1c1e24);
  --ink: light-dark(#1d1d22, #e9e9ee); --faint: light-dark(#62626b, #a0a2ad); --line: light-dark(#dcdad4, #383b45);
  --good: light-dark(#17692c, #7fd695); --bad: light-dark(#b3191b, #ff8a85); color: var(--ink); overflow-wrap: anywhere;
}
.passed:not(li) { --hue: var(--good); --sign: "✓ " }
[data-part=header] { --hue: light-dark(#964300, #ffb066) }
[data-part=payload] { --hue: light-dark(#8a1c84, #f09be6) }
[data-part=signature] { --hue: light-dark(#005c99, #7cc4ff) }
.failed { --hue: var(--bad); --sign: "✗ " }
[data-lit=header] [data-part=header], [data-lit=payload] [data-part=payload],
[data-lit=signature] [data-part=signature] { background: color-mix(in srgb, var(--hue) 14%, var(--card)) }
[data-session=on] #login, [data-session=off] #session, [data-token=off] .token, p:empty { display: none }

* { box-sizing: border-box; margin: 0 }
html { font: 1rem/1.5 system-ui, sans-serif; scroll-padding-top: min(12rem, 30vh) }  /* no focus behind the verdict */
body { max-width: 74rem; margin: auto; padding: 1.5rem clamp(1rem, 3vw, 2rem) 3rem; background: var(--paper) }
h1 { font-size: 1.5rem; line-height: 1.25 }
h2, h3 { font-size: 1rem }
small, .note { color: var(--faint); font-size: .875rem; font-weight: normal }
section, form { margin-top: 1rem; padding: 1rem 1.25rem; border: 1px solid var(--line); background: var(--card) }
section, form, input, textarea, button { border-radius: .5rem }
#notice { margin-top: 1rem; padding: 0 1.25rem }
#notice::before { content: var(--sign) }
.part, #notice, #judgement, #trace li { border-left: .25rem solid var(--hue, var(--line)) }
input, textarea, button { padding: .4rem .75rem; border: 1px solid var(--faint); background: none; color: inherit }
input, textarea, button { font: inherit; resize: none; overflow: hidden; overflow-wrap: inherit }
input[name], progress, .part textarea, #shift { display: block; width: 100% }
button[type=submit] { background: var(--ink); color: var(--card) }
:focus-visible { outline: 3px solid var(--ink); outline-offset: 2px }

form, .row { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; align-items: end }
.row { align-items: center }
form > label { flex: 1 1 12rem }
.row > :is(.note, label:first-of-type) { flex: 1 1 18rem }
#attacks, #lesson { gap: .5rem; margin: .75rem 0 }

/* The token is a field with transparent letters; beneath it stand the same letters, coloured. */
code, pre, textarea, #bytes, #wire, #times { font-family: Menlo, Consolas, monospace; white-space: pre-wrap }
.stack { display: grid; margin: .5rem 0; font-size: 1.125rem; line-break: anywhere }
.stack > * { grid-area: 1 / 1; padding: .75rem; border: 1px solid transparent; font-size: inherit }
.stack > textarea { border-color: var(--faint); color: transparent; caret-color: var(--ink); forced-color-adjust: none }
.stack > textarea::selection { background: var(--ink); color: var(--card) }
mark { background: var(--bad); color: var(--card) }
code > span, pre > span, #trace b, .part :is(h3, textarea, #bytes), #notice { color: var(--hue) }

#parts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 1rem }
.part { display: grid; gap: .25rem; align-content: start; margin-top: .5rem; padding: .5rem .75rem }

#judgement { position: sticky; top: 0; z-index: 1; min-height: max(5.25rem, 13.5rem - 10vw); padding: .5rem 1.25rem }
ol, #log { padding: 0; list-style: none; font-size: .9375rem }
li, #log > * { padding: .25rem .5rem; border-top: 1px solid var(--line) }
#log { max-height: max(8.75rem, 20vh); overflow: auto }
#log:has([open]) { max-height: 75vh }
#log pre { margin: .5rem 1rem; padding: .5rem .75rem; background: var(--paper); line-break: anywhere }
#trace li { display: grid; grid-template-columns: 1rem 5.5rem 8rem 1fr 15.5rem; gap: 0 .75rem; padding-inline: .75rem }
#trace .failed { background: color-mix(in srgb, var(--bad) 12%, var(--card)) }
#verdict, #trace [role=img], #trace .failed > :last-child { color: var(--hue); font-weight: bold }
#trace :is(.skipped, .skipped b, li > :nth-child(3)), #log b + b { color: var(--faint); font-weight: normal }
@media (max-height: 30rem), (max-width: 40rem) {  /* a phone: the verdict takes a fifth of it at most */
  #judgement { min-height: 4.75rem; padding-block: .25rem; font-size: .875rem; line-height: 1.25 }
  #wire { max-height: 2.5em; overflow: hidden; font-size: .75rem }
}
@media (max-width: 60rem) {
  #trace li { grid-template-columns: 1rem 1fr auto }
  #trace li > :nth-child(n + 4) { grid-column: 2 / -1 }
}
</style>

<body data-session="off" data-token="off">
<header><h1>A JSON Web Token, taken apart</h1>
  <p><code><span data-part="header">header</span>.<span data-part="payload">payload</span>.<span
    data-part="signature">signature</span></code> <span class="note">signed, not secret: every reader can decode
    and change it, but only a holder of the key can sign the change</span></p>
</header>
<main><noscript>All of this is done by a script.</noscript>
<p id="notice" role="alert"></p>
<form id="login">
  <label>User name <input name="username" autocomplete="username" autocapitalize="none" required></label>
  <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
  <button type="submit">Sign in</button> <button type="button" id="demo">Sign in as the demo user</button>
  <button type="button" id="resume">Continue an earlier session</button>
</form>
<section id="session" class="row">
  <h2 id="who" tabindex="-1"></h2>
  <label><span id="countdown"></span> <progress id="left"></progress></label>
  <label><input type="checkbox" id="automatic" checked> refresh in time</label>
  <button id="refresh">Refresh now</button> <button id="logout">Log out</button>
</section>
<section role="log" aria-labelledby="happened"><h2 id="happened">What just happened</h2>
  <div id="log"><p><b>GET / → 200</b> This page, and nothing else from anywhere.</p></div></section>
<section id="judgement" class="token"><p id="verdict" role="status"></p><p id="wire" class="note"></p></section>
<section class="token">
  <h2><label for="token">The access token</label></h2>
  <div class="stack"><pre id="mirror" aria-hidden="true"></pre>
    <textarea id="token" spellcheck="false" autocomplete="off" autocapitalize="off"></textarea></div>
  <div class="row"><p class="note">Change any character, here or in what it says, or paste another token: what differs
    is red. Header and claims are encoded again, which takes no key: it is only base64url. The signature stays.</p>
    <button id="restore">Restore</button></div>
  <div class="row" id="attacks">Without the key, try to …</div>
  <p id="lesson" role="status"></p>
  <label>What if it were <b id="when">now</b>? <input type="range" id="shift" autocomplete="off"></label>
  <div id="parts">
    <div class="part" data-part="header">
      <h3><label for="header">Header</label> <small>which algorithm it names</small></h3>
      <textarea id="header" spellcheck="false"></textarea>
    </div>
    <div class="part" data-part="payload">
      <h3><label for="payload">Claims</label> <small>what it says</small></h3>
      <textarea id="payload" spellcheck="false" aria-describedby="times"></textarea><p class="note" id="times"></p>
    </div>
    <div class="part" data-part="signature">
      <h3>Signature <small>who says it: HMAC-SHA256 of all before it, with a key that only the server has</small></h3>
      <p id="bytes"></p>
    </div>
  </div>
</section>
<section class="token"><h2>What the server checks, one after the other</h2><ol id="trace" role="list"></ol></section>
<section>
  <h2>Why two tokens, and why neither in localStorage</h2>
  <p>The <b>access token</b> comes to this script, which keeps it in a variable, gone with the page. The server checks
    it without looking anything up. That is fast, but nothing can end it early, so it lives for minutes. The <b>refresh
    token</b> lives for a day and brings new access tokens: the server looks up its session each time, and may have
    ended it. It comes in an HttpOnly cookie, which the browser sends and no script can read. An injected script could
    send away all of localStorage. From this page it can take an access token, never the refresh token.</p>
</section>
</main>

<script>
"use strict";
// token: the text in the field, as it was issued or edited since. part: header, payload or signature.
// segment: the text of a part. All that is shown goes into the page as text, never as HTML.
const PARTS = ["header", "payload", "signature"];
const PART_OF = {shape: "", header: "header", algorithm: "header", signature: "signature"};  // of a check; else payload
const UNUSED = ["nbf", "iss", "sub", "aud", "jti"];  // claims that this server does not write: shown only when checked
const MAX_CHARS = 9000;  // of a token: a server takes 8 KB of a header field
const EDIT_MS = 150, TICK_MS = 250, PAUSE_MS = 3000;  // after a key; of the countdown; after an edit or a failure
const AGAIN = "asked again";  // by the page itself: of such rows in the log only the newest stays
const FORM = {"Content-Type": "application/x-www-form-urlencoded"};
const REFUSED = [401, 406];  // the one or the other, as UNAUTHORIZED_STATUS says
const NO_COOKIE = "The browser kept no refresh token: over HTTP it may drop a Secure cookie, Safari even at localhost."
  + " Set TLS_CERT and TLS_KEY or, if only this machine reaches the server, COOKIE_SECURE=off and COOKIE_SAMESITE=Lax.";
const NO_DEMO = ": the demo user is there only while the server has no other user, and only at localhost";

let issued = "";  // the last access token: in this variable and in no storage, so that a reload forgets it
let original = "";  // the token that an edit began with: what differs is marked
let epoch = Date.now() - performance.now();  // when the page was opened, by the server's clock: ours can be set
let notBefore = 0;  // milliseconds, by the server's clock: until then no refresh by itself, whatever the clocks say
let down = false, timer = 0, traces = 0, queue = Promise.resolve();
const $ = id => document.getElementById(id);
const inTurn = (task, ...given) => queue = queue.finally(() => task(...given));  // no refresh overtakes a logout
const light = elements => document.body.dataset.lit = elements.find(each => each?.dataset.part)?.dataset.part ?? "";
const signedIn = () => document.body.dataset.session === "on";
const now = () => epoch + performance.now();
const notify = (textContent, className = "failed") => Object.assign($("notice"), {textContent, className});
const judge = (wait, why) => { clearTimeout(timer); timer = setTimeout(trace, wait, why); };

// A token in pieces
const utf8 = text => new TextEncoder().encode(text);
const binary = bytes => String.fromCharCode(...bytes);  // a character for each byte
const segmentOf = bytes => btoa(binary(bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
// Lenient, as a server must not be: one token, one spelling
const atobOf = segment => { try { return atob(segment.replace(/-/g, "+").replace(/_/g, "/")); } catch { return ""; } };
const bytesOf = (segment = "") => Uint8Array.from(atobOf(segment), char => char.charCodeAt(0));
const textOf = segment => new TextDecoder("utf-8", {ignoreBOM: true}).decode(bytesOf(segment));
const parsed = json => { try { return Object(JSON.parse(json)); } catch { return {}; } };
const compact = json => json.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1");  // no white space but within strings
// Indented, unless that would show something else than what is signed
const pretty = (json, text = JSON.stringify(parsed(json), null, 2)) => compact(text) === json ? text : json;
const claimsOf = token => parsed(textOf(token.split(".")[1]));
const changed = (segment, members) => segmentOf(utf8(JSON.stringify({...parsed(textOf(segment)), ...members})));
async function sign(text, secret) {  // HMAC-SHA256, as the server does it
  const key = await crypto.subtle.importKey("raw", utf8(secret), {name: "HMAC", hash: "SHA-256"}, false, ["sign"]);
  return segmentOf(new Uint8Array(await crypto.subtle.sign("HMAC", key, utf8(text))));
}

// What a thief of a token can try without the key: from its header, payload and signature to others, and the lesson
const GUESSES = ["secret", "password", "123456", "changeme", "admin123", "jwt-secret", "your-256-bit-secret"];
const ATTACKS = {
  "be root": (h, p, s) => [[h, changed(p, {username: "root"}), s],
    "The claims say root. The signature is still that of the old claims, and a new one takes the key."],
  "live a year": (h, p, s) => [[h, changed(p, {exp: claimsOf(issued).iat + 31536000}), s],
    "The signature covers every claim: the end cannot be moved either."],
  "sign nothing": (h, p) => [[changed(h, {alg: "none"}), changed(p, {username: "root"}), ""],
    "The header asks for no check. Its sender wrote it, so the server never lets it choose the algorithm."],
  "guess the key": async (h, p, s) => {
    if (!crypto.subtle) return [[h, p, s], "Your browser computes HMACs only over HTTPS and at localhost."];
    const made = await Promise.all(GUESSES.map(guess => sign(`${h}.${p}`, guess)));
    const key = GUESSES[made.indexOf(s)], forged = `${h}.${changed(p, {username: "root"})}`;
    return [[forged, await sign(forged, key ?? GUESSES[0])], key ? `It is “${key}”, found without asking the server.`
      : `None of ${GUESSES.length} popular keys made the signature. This forgery is signed with “${GUESSES[0]}”.`];
  },
  "use it after logout": async (...segments) => [(await logout(), segments),
    "The session has ended. The access token is good all the same until it expires: so it lives for minutes only."],
  "steal it": (...segments) => [segments,
    "A copy is as good as the original, without password or cookie. So tokens live for minutes, and travel over TLS."],
};

// What is shown
function element(name, {part, ...properties}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (part) made.dataset.part = part;
  made.append(...children);
  return made;
}

function painted(segment, before = "", part) {  // what is not as it was gets a mark
  const paint = (letter, at) => letter === before[at] ? letter : element("mark", {}, letter);
  return element("span", {part}, ...(segment.length > MAX_CHARS ? [segment] : Array.from(segment, paint)));
}

function show(token, edited) {  // in every field but the one that is being edited
  const segments = token.split("."), was = original.split("."), claims = claimsOf(token);
  $("mirror").replaceChildren(...segments.flatMap((segment, i) => [".", painted(segment, was[i], PARTS[i])]).slice(1));
  $("token").value = token;
  for (const [i, part] of ["header", "payload"].entries()) {
    if (edited !== part) $(part).value = pretty(textOf(segments[i]));
    $(part).style.height = 0;
    $(part).style.height = `${$(part).scrollHeight + 2}px`;  // as high as its text, wrapped lines too, and its border
  }
  const times = ["iat", "exp"].filter(name => Number.isFinite(claims[name]));
  $("times").textContent = times.map(name => `${name}: ${new Date(claims[name] * 1000).toLocaleString()}`).join("\n");
  $("bytes").textContent = Array.from(bytesOf(segments[2]), byte => byte.toString(16).padStart(2, "0")).join(" ");
}

function edit(token, why, edited = "", lesson = "") {
  show(token, edited);
  $("lesson").textContent = lesson;
  judge(EDIT_MS, why);
}

const restore = () => { shift(0); edit(original = issued, "as issued"); };

function shift(seconds) {  // what if it were later, or earlier?
  const minutes = `${+(Math.abs(seconds) / 60).toFixed(1)} min ${seconds < 0 ? "earlier" : "later"}`;
  $("shift").value = seconds;
  $("shift").ariaValueText = $("when").textContent = seconds ? minutes : "now";
  judge(EDIT_MS, "slider");
}

function check({name, section, demand, ok, found}) {  // ok is null for what was not checked, or not reached
  const [state, sign] = {true: ["passed", "✓"], false: ["failed", "✗"]}[ok] ?? ["skipped", "–"];
  const mark = element("span", {role: "img", ariaLabel: state, className: state}, sign);
  const cells = [section, demand, found].map(text => element("span", {}, text));
  return element("li", {className: state, part: PART_OF[name] ?? "payload"}, mark, element("b", {}, name), ...cells);
}

function logRow(why = "") {  // an edit that goes on has one row, not one for each key
  const newest = $("log").firstElementChild, at = performance.now(), said = new Text(why);
  if (why && why === newest?.why && (why === AGAIN || at - newest.at < PAUSE_MS)) newest.remove();
  $("log").prepend(element("details", {why, at, said}, element("summary", {}, said)));
  return $("log").firstChild;
}

// Talking to the server
const message = (start, fields, body) => element("pre", {},
  [start, ...fields.filter(([, value]) => value).map(field => field.join(": ")), "", body].join("\n").trim());

async function ask(method, path, {headers = {}, body, row = logRow()} = {}) {
  const cookie = headers.Authorization ? "" : "(if there is one, no script can see it)";
  const credentials = cookie ? "same-origin" : "omit";
  const response = await fetch(path, {method, headers, body, credentials}).catch(() => null);
  const field = name => response?.headers.get(name), text = await response?.text().catch(() => "") ?? "";
  const answer = parsed(text), status = response?.status ?? "no answer", wait = field("Retry-After");
  const said = response ? answer.message ?? "" : "The server does not answer.";
  const reason = said + (wait ? ` (try again in ${wait} seconds)` : "");
  const fields = ["Content-Type", "WWW-Authenticate", "Retry-After"].map(name => [name, field(name)]);
  row.said.before(element("b", {}, `${method} ${path} → ${status}`), " ");
  row.said.data = [row.why, reason].filter(Boolean).join(": ");
  const sent = String(body ?? "").replace(/password=.*/, "password=…");
  row.append(message(`→ ${method} ${path}`, [...Object.entries(headers), ["Cookie", cookie]], sent));
  row.append(message(`← ${status} ${response?.statusText ?? ""}`, [["Set-Cookie", cookie], ...fields], text));
  epoch = Date.parse(field("Date")) - performance.now() || epoch;
  if (down && response) notify("The server answers again.", "passed");
  if (down !== !response) notBefore = 0;
  down = !response;
  return {status, answer, reason, row, text: field("WWW-Authenticate") ?? text};
}

async function trace(why = AGAIN) {
  const mine = ++traces, token = $("token").value, seconds = +$("shift").value, when = $("when").textContent;
  if (!issued) return down && ask("GET", "/", {row: logRow(why)});
  const row = logRow(why), headers = {Authorization: `Bearer ${binary(utf8(token.slice(0, MAX_CHARS)))}`};
  const me = seconds ? null : await ask("GET", "/me", {headers, row});
  const judged = await ask("GET", "/explain", {headers: {...headers, ...(seconds && {"Explain-Shift": seconds})}, row});
  const {status, text} = me ?? judged, {valid = false, steps = []} = judged.answer;
  const failed = steps.find(step => step.ok === false);
  const verdict = (seconds ? `${when}: ` : "")
    + (valid ? "✓ Good: written by a holder of the key, and in time."
      : failed ? `✗ Refused at “${failed.name}” (${failed.section}): ${failed.found}.`
      : status === 431 ? "✗ Refused unread: too long for a header field of HTTP." : `No verdict: ${judged.reason}`)
    + (failed?.name === "signature" && token === issued ? " The server has another key: sign in again." : "");
  row.said.data = `${why}: ${verdict}`;
  if (mine !== traces || !issued) return;  // a later one is on its way
  $("trace").replaceChildren(...steps.filter(({name, ok}) => ok !== null || !UNUSED.includes(name)).map(check));
  $("judgement").className = `token ${valid ? "passed" : "failed"}`;
  $("verdict").textContent = verdict;
  $("wire").textContent = `GET ${seconds ? `/explain  Explain-Shift: ${seconds}` : "/me"}  Authorization: Bearer `
    + `${token.slice(0, 3)}…${token.slice(-4)} → ${status} ${seconds ? `{"valid": ${valid}, …}` : text.slice(0, 90)}`;
}

function take(token) {
  const {username, iat, exp} = claimsOf(token), step = Math.max(4, Math.ceil((exp - iat) / 20));
  issued = token;
  notBefore = now() + 500 * (exp - iat);  // half its life
  history.replaceState({signedIn: true}, "");  // no token: only that after a reload a refresh is worth a try
  Object.assign(document.body.dataset, {session: "on", token: "on"});
  Object.assign($("shift"), {min: -22 * step, max: 22 * step, step});  // beyond both ends of its life
  $("who").textContent = `Signed in as ${username}`;
  if ($("token").value === original) edit(original = token, "as issued");  // an edited one stays until Restore
  tick();
}

function end(sentence, state) {  // the session, of which the access token knows nothing
  document.body.dataset.session = "off";
  if ($("session").contains(document.activeElement)) $("login").username.focus();
  history.replaceState(null, "");
  notify(sentence, state);
}

async function login(form, hint = "") {
  if (signedIn()) return;  // a double click
  const {status, reason, answer, row} = await ask("POST", "/login", {headers: FORM, body: new URLSearchParams(form)});
  if (status !== 200) return notify(reason + (REFUSED.includes(status) ? hint : ""));
  row.said.data = "An access token in the answer, a refresh token in a cookie.";
  $("login").reset();
  notify("");
  restore();
  take(answer.accessToken);
  $("who").focus();
  if (location.protocol === "http:") await refresh("To try the cookie", NO_COOKIE);
}

async function refresh(why, refusal) {  // refusal: what to say if it is refused right after signing in
  const {status, reason, answer: {accessToken}, row} = await ask("POST", "/refresh"), before = claimsOf(issued);
  if (accessToken) {
    const {username} = claimsOf(accessToken), other = before.username && username !== before.username;
    const brought = accessToken === issued ? "the same access token, as iat is in whole seconds" : "a new access token";
    row.said.data = `${why}: the browser sent the cookie, which brought ${brought}. `
      + `This script sees document.cookie = ${JSON.stringify(document.cookie)}.`;
    notify(other ? `You are ${username} now, not ${before.username}: all tabs share one cookie.` : "", "");
    take(accessToken);
  } else if (REFUSED.includes(status)) {
    row.said.data = `${why}: there was no cookie, or its session has ended.`;
    if (refusal) return notify(refusal);
    const expiry = new Date(before.exp * 1000);
    const until = expiry > now() ? ` The access token expires at ${expiry.toLocaleTimeString()}.` : "";
    end(`There is no refresh token, or its session has ended: sign in.${until}`);
  } else notify(reason);
}

async function logout(forgets) {
  const {status, reason, row} = await ask("POST", "/logout");
  if (status !== 204) return notify(reason);
  row.said.data = `The session has ended, the cookie is deleted${forgets ? ", this log with its tokens too" : ""}.`;
  end("Logged out. A copy of the access token is good until it expires.", "passed");
  if (!forgets) return;
  $("log").replaceChildren(row);
  document.body.dataset.token = "off";
  issued = "";
  restore();
}

function tick() {
  const {iat, exp} = claimsOf(issued), left = exp - now() / 1000, seconds = Math.max(0, Math.ceil(left));
  const time = `access token: expires in ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  const text = !seconds ? "access token: expired" : left < exp - iat + 31 ? time : "not good yet: a clock was set back";
  if (!seconds && text !== $("countdown").textContent) judge(0, "after its end");
  $("countdown").textContent = text;
  $("left").value = Math.max(0, left / (exp - iat)) || 0;
  const due = signedIn() && $("automatic").checked && left < Math.min(30, (exp - iat) / 5);
  if ((due || down) && now() >= notBefore) {
    notBefore = now() + PAUSE_MS;
    inTurn(() => down ? trace() : signedIn() && refresh("In time, by itself"));
  }
}

// What a person does
$("login").onsubmit = event => { event.preventDefault(); inTurn(login, new FormData($("login"))); };
$("demo").onclick = () => inTurn(login, {username: "admin", password: "admin123"}, NO_DEMO);
$("resume").onclick = $("refresh").onclick = () => { restore(); inTurn(refresh, "By button"); };
$("logout").onclick = () => inTurn(logout, true);
$("restore").onclick = restore;
$("shift").oninput = () => shift(+$("shift").value);
for (const [name, attack] of Object.entries(ATTACKS)) {
  $("attacks").append(element("button", {onclick: () => inTurn(async () => {
    restore();
    const [segments, lesson] = await attack(...issued.split("."));
    edit(segments.join("."), name, "", lesson);
  })}, name));
}
$("token").oninput = () => {
  const {value, selectionStart} = $("token"), cleaned = text => text.replace(/[\0- \x7f]/g, "");  // no header has these
  edit(cleaned(value), "token edited", "token");
  $("token").selectionEnd = $("token").selectionStart = cleaned(value.slice(0, selectionStart)).length;
};
$("token").onpaste = event => {  // of `Bearer eyJ…`, of JSON or quotes around it: the token
  const [found] = /[\w-]{4,}\.[\w-]{4,}\.[\w-]*/.exec(event.clipboardData.getData("text")) ?? [];
  if (found) { event.preventDefault(); edit(found, "token pasted", "token"); }
};
$("parts").oninput = ({target}) => {
  const segments = $("token").value.split(".");
  segments[PARTS.indexOf(target.id)] = segmentOf(utf8(compact(target.value)));
  edit(segments.join("."), `${target.id} edited`, target.id);
};
document.onpointermove = event => light(document.elementsFromPoint(event.clientX, event.clientY));  // beneath the field
document.addEventListener("focusin", event => light([event.target.closest("[data-part]")]));
onresize = () => show($("token").value, document.activeElement.id);
onfocus = () => judge(0);  // another tab, a restart or a sleep: much may have happened
setInterval(tick, TICK_MS);
if (history.state?.signedIn) { restore(); inTurn(refresh, "After the reload"); }
</script>
"""


def page_policy(html: str) -> str:
    """Return the Content-Security-Policy under which nothing runs but what is in `html` (CSP Level 3 §2.3.1)."""
    digests = []
    for tag in ("script", "style"):
        text = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digests.append(f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
    script, style = digests
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 all is well, 1 it may pass by itself, 2 fix what is said."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["token"]:
        return minijwt.main(argv[1:])
    # A name or a path that the terminal cannot show is shown with escapes.
    with suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    arguments = argument_parser().parse_args(argv)
    arguments.page = Page(PAGE.encode("utf-8"), page_policy(PAGE))
    try:
        return int(arguments.run(arguments))
    except SettingsError as error:
        message, status = str(error), 1 if error.passing else 2
    except ValueError as error:
        message, status = str(error), 2
    except (OSError, RuntimeError) as error:
        # RuntimeError: a thread cannot be started.
        where = getattr(error, "filename", None) or "the system"
        message, status = f"{where}: {getattr(error, 'strerror', None) or error}", 1
    except (KeyboardInterrupt, EOFError):
        message, status = "interrupted: nothing more has changed", 2
    except StoreFailed as error:
        message, status = f"the database cannot be used: {error}", 2 if isinstance(error, EtcdRefused) else 1
    except HashFailed as error:
        message, status = f"the password cannot be hashed: {error}", 1
    say(sys.stderr, f"{PROGRAM}: {message}")
    return status


if __name__ == "__main__":
    sys.exit(main())
