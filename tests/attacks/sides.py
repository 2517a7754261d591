"""The two sides of an attack, the naive twin and this server, as their clients see them; and what Mallory works with.

Alice and Mallory have an account on both. This server runs with the settings that `server.py init` writes, unless an
attack starts it with others.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import string
import sys
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import minijwt
import naive_twin
import server
import serverkit

del sys.modules["naive_twin"]  # so that it looks again at what imports it next

ALICE, MALLORY, ADMIN = ("alice", "sunshine"), ("mallory", "mischief-maker"), ("admin", "admin123")
TWIN_USERS = {name: naive_twin.slow_hash(password) for name, password in (ALICE, MALLORY, ADMIN)}
COOKIE = "__Host-jwt"  # on both sides, with the settings of `init`
HEADER = {"alg": "HS256", "typ": "JWT"}
DAY = 86_400  # seconds
LETTERS = string.ascii_letters + string.digits + "-_"  # of base64url
# What a password costs where its cost is the point: a fifth of the real cost. Elsewhere it costs nearly nothing.
MILD = "scrypt$16384$8$1" if server.COST == server.SCRYPT else "pbkdf2$120000"


# ---- Two sides


class Seen(NamedTuple):
    """What an attack has seen on one side."""

    sent: str
    answer: str
    fell: bool  # the attack succeeded


class Side:
    """A server as its clients see it."""

    address = "203.0.113.9"  # of the client
    cookie = COOKIE
    refusal = ""  # what it said when it refused to start

    def post(self, path, body=b"", **fields):
        client = server.parse_address(self.address)
        return self.send(serverkit.request("POST", path, body, **fields)._replace(address=client))

    def login(self, username, password, **fields):
        body = f"username={percent(username)}&password={percent(password)}".encode()
        return self.post("/login", body, content_type=serverkit.FORM, **fields)

    def enter(self, user):
        """Log in; return the access token and the refresh token."""
        response = self.login(*user)
        return body_of(response)["accessToken"], refresh_of(response)

    def refresh(self, token, **fields):
        return self.post("/refresh", cookie=f"{self.cookie}={token}", **fields)

    def logout(self, token, **fields):
        return self.post("/logout", cookie=f"{self.cookie}={token}", **fields)

    def me(self, token, path="/me"):
        return self.send(serverkit.request("GET", path, authorization=f"Bearer {token}"))


class Twin(Side):
    """The naive twin. It compares signatures as bytes, 32 of them."""

    units, length, spell = [bytes([n]) for n in range(256)], 32, staticmethod(minijwt.base64url_encode)

    def __init__(self, cost):
        self.clock = serverkit.Clock()
        self.server = naive_twin.Server(self.clock, TWIN_USERS)
        self.send, self.write, self.log = self.server.respond, naive_twin.write, self.server.log
        self.access_key = self.refresh_key = naive_twin.SECRET
        self.look_up, self.sign = (self.server, "is_denied"), (naive_twin, "hmac_sha256")

    def start(self, *users, **settings):
        """It starts with anything."""
        return self


class Ours(Side):
    """This server. It compares signatures as they are spelled, in 43 letters."""

    units, length, spell = [bytes([n]) for n in LETTERS.encode()], 43, bytes

    def __init__(self, cost, settings=None, users=(ALICE, MALLORY)):
        text = server.HARDENED.format(**new_secrets())
        settings = settings or server.read_settings(server.parse_dotenv(text), dotenv="")
        self.clock, self.log, self.cost = serverkit.Clock(), [], cost
        store = serverkit.new_store(self.clock)
        self.app = server.App(settings, store, self.clock, cost=cost)
        self.access_key, self.refresh_key = settings.access_secrets[0], settings.refresh_secrets[0]
        self.cookie = settings.cookie_name
        self.look_up, self.sign = (store, "look_up"), (minijwt, "sign")
        for user in users:
            self.app.accounts.add_user(*user)

    def send(self, request):
        response = server.respond(self.app, request)
        assert response.status != 500, "a line that breaks the server is not a line that guards it"
        self.log += [server.log_line(self.clock(), event) for event in response.events]
        return response

    def write(self, response):
        return server.render(response, serverkit.request(), True, serverkit.NOW)

    def start(self, *users, **settings):
        """Start another server, with the tutorial's defaults but for `settings`. If it refuses, this one goes on."""
        given = {f"{name.upper()}_TOKEN_SECRET": secret for name, secret in new_secrets().items()}
        try:
            read = server.read_settings({**given, **settings}, dotenv="")
            server.check_exposure(read, bool(users), dotenv="")
        except server.SettingsError as error:
            self.refusal = f"; with such settings it does not start: {error}"
            return self
        return Ours(self.cost, read, users)


# ---- What Mallory works with


def new_secrets():
    return {name: minijwt.base64url_encode(os.urandom(32)).decode() for name in ("access", "refresh")}


def percent(text):
    """Return a value for a form, every byte of it escaped."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def claims_of(token):
    """Return what a token says, which needs no key."""
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


def segment(content):
    """Return bytes, or a dict as JSON, in base64url."""
    return minijwt.base64url_encode(content if isinstance(content, bytes) else json.dumps(content).encode()).decode()


def unsigned(header, claims):
    """Return header, dot and payload, which need no key either."""
    return f"{segment(header)}.{segment(claims)}"


def signature(signing_input, key):
    return segment(hmac.digest(key, signing_input.encode(), "sha256"))


def signed(header, claims, key):
    return unsigned(header, claims) + "." + signature(unsigned(header, claims), key)


def as_alice(token):
    """Return the claims of `token`, with Alice's name."""
    return {**claims_of(token), "username": "alice"}


# The public key of the company's single sign-on, and its private half; 512 bits, so that they are short.
SSO_KEY = Path(naive_twin.KEYS, "sso.pem").read_bytes()
SSO_MODULUS = int(
    "df2365abdb7907c15b34756dd8608227c0482a7cfdb324d16641c805ef39ff88"
    "1690548647fa81c7bc29b5fc5fdb5e3464e294a7480d0b17a32bd3a30a439f83",
    16,
)
SSO_PRIVATE = int(
    "7caddfa27e588b2fcc116cc7face3a0b921200c3a45253f1392cea61fe80aeb9"
    "459f6c28651bd752faeab5f0c0e052f8bd8e60361fbd307f51eda8ad4a54ea61",
    16,
)
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 §9.2, note 1


def sso_signed(claims):
    """Return a token as the single sign-on signs it, with RS256 (RFC 7518 §3.3)."""
    text = unsigned({"alg": "RS256", "kid": "sso.pem"}, claims)
    digest = SHA256_INFO + hashlib.sha256(text.encode()).digest()
    padded = b"\0\1" + b"\xff" * (61 - len(digest)) + b"\0" + digest
    number = pow(int.from_bytes(padded, "big"), SSO_PRIVATE, SSO_MODULUS)
    return f"{text}.{segment(number.to_bytes(64, 'big'))}"


# ---- What Mallory sees


def body_of(response):
    return json.loads(response.body or b"{}")


def refresh_of(response):
    """Return the refresh token that an answer sets; "" if it sets none."""
    for name, value in response.fields:
        if name == "Set-Cookie" and value.startswith((f"{COOKIE}=", "jwt=")):
            return value.partition(";")[0].partition("=")[2]
    return ""


def says(*responses):
    """Return answers in a few words."""
    said = []
    for response in responses:
        body = body_of(response)
        words = body.get("code") or body.get("message") or ""
        if "accessToken" in body:
            words = "an access token for " + claims_of(body["accessToken"])["username"]
        elif "username" in body:
            words = "welcome " + body["username"]
        elif "code" not in body:
            for event in getattr(response, "events", ()):
                words += f" (its log: {event.fields.get('result', event.name)})"
        said.append(" ".join(f"{response.status} {words}".split()))
    return f"each time {said[0]}" if len(said) > 1 and len(set(said)) == 1 else "; ".join(said)


def is_for(name, *responses):
    """Tell whether one of the answers takes its reader for `name`."""
    return any(response.status == 200 and says(response).endswith(" " + name) for response in responses)


def between(side, action):
    """Arrange that `action` happens once: after the side has next looked up a token, and before it goes on."""
    owner, name = side.look_up
    look_up = getattr(owner, name)

    def slow_look_up(*arguments):
        delattr(owner, name)  # the class's own method shows again
        found = look_up(*arguments)
        action()
        return found

    setattr(owner, name, slow_look_up)


class Watched(bytes):
    """Bytes that count how many of them `==` and `!=` compare: a stopwatch that is never wrong."""

    compared = 0

    def __eq__(self, other):
        Watched.compared = next((i for i, (a, b) in enumerate(zip(self, other)) if a != b), len(self))
        return bytes(self) == bytes(other)

    def __ne__(self, other):
        return not self == other

    __hash__ = bytes.__hash__


@contextlib.contextmanager
def stopwatch(side):
    """Within it, `measure(token)` is how long the side compares the signature of a token, in bytes."""

    def measure(token):
        Watched.compared = 0
        side.me(token)
        return Watched.compared

    module, name = side.sign
    sign = getattr(module, name)
    with mock.patch.object(module, name, lambda *arguments: Watched(sign(*arguments))):
        yield measure


def hashes(action):
    """Return how many passwords `action` hashes, whichever way, and how many milliseconds it takes."""
    with contextlib.ExitStack() as stack:
        names = [name for name in ("scrypt", "pbkdf2_hmac") if hasattr(hashlib, name)]
        spies = [mock.patch.object(hashlib, name, wraps=getattr(hashlib, name)) for name in names]
        counters = [stack.enter_context(spy) for spy in spies]
        begun = time.perf_counter()
        action()
        milliseconds = (time.perf_counter() - begun) * 1000
    return sum(counter.call_count for counter in counters), milliseconds
