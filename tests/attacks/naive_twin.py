"""VULNERABLE ON PURPOSE. A login server as the usual tutorials write it, for sides.py to build, and for nothing else.

Never copy a line of it. It runs, it passes the tests its author thought of, and every attack in the book succeeds.
It opens no port and writes no file: a request goes into `Server.respond`, an answer comes out. A comment in quotes is
what its author was thinking; book.py tells what came of it.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
from typing import NamedTuple
from urllib.parse import parse_qsl

HERE = os.path.dirname(__file__)

frame = sys._getframe()  # who asks for this module?
while frame and (frame.f_globals is globals() or "importlib" in frame.f_code.co_filename):
    frame = frame.f_back
if frame is None or frame.f_code.co_filename != os.path.join(HERE, "sides.py"):
    raise ImportError("naive_twin is VULNERABLE ON PURPOSE: nothing but the attack book may import it")
del frame

SECRET = b"secret123"  # "to be changed before we go live"
COOKIE = "__Host-jwt"
KEYS = HERE  # where the keys lie that a token may name
ACCESS_SECONDS, REFRESH_SECONDS = 600, 86_400


class Response(NamedTuple):
    status: int
    body: bytes = b""
    fields: tuple = ()


def answer(status, value, *fields):
    return Response(status, json.dumps(value).encode(), fields)


def write(response):
    """The answer as it goes to the browser."""
    head = f"HTTP/1.1 {response.status} \r\n"
    for name, value in response.fields:
        head += f"{name}: {value}\r\n"
    return head.encode() + b"\r\n" + response.body


# ---- Tokens


def to_base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text):
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "==")  # "it knows what to skip"


def hmac_sha256(data, key):
    return hmac.new(key, data, hashlib.sha256).digest()


def rsa_is_right(data, key, signature):
    der = base64.b64decode(b"".join(key.splitlines()[1:-1]))
    modulus = int.from_bytes(der[-69:-5], "big")  # "all our keys look the same"
    opened = pow(int.from_bytes(signature, "big"), 65_537, modulus).to_bytes(64, "big")
    return opened.endswith(hashlib.sha256(data).digest())  # "the rest is padding"


ALGORITHMS = {
    "HS256": lambda data, key, signature: signature == hmac_sha256(data, key),
    "RS256": rsa_is_right,  # "for the company's single sign-on"
    "NONE": lambda data, key, signature: signature == b"",  # "for debugging"
}


def make(claims):
    head = to_base64url(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = head + "." + to_base64url(json.dumps(claims).encode())
    return signed + "." + to_base64url(hmac_sha256(signed.encode(), SECRET))


def read(token):
    """The claims of a token, quickly."""
    return json.loads(from_base64url(token.split(".")[1]))


def verify(token, now):
    """The claims of a token whose signature is right."""
    head, payload, *signature = token.split(".")
    header = json.loads(from_base64url(head))
    if header["alg"] == "none":  # "that famous attack"
        raise ValueError("no signature")
    key = SECRET
    if "kid" in header:  # "so that we can change keys one day"
        with open(os.path.join(KEYS, header["kid"]), "rb") as file:
            key = file.read()
    is_right = ALGORITHMS[header["alg"].upper()]
    if signature and not is_right(f"{head}.{payload}".encode(), key, from_base64url(signature[0])):
        raise ValueError("wrong signature")
    claims = read(token)
    if claims["iat"] > now:  # "what comes from the future is forged"
        raise ValueError("not yet")
    return claims


# ---- Requests


def slow_hash(password):
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"a grain of salt", 20_000)


def cookies(request):
    pairs = request.fields.get(b"cookie", b"").decode("latin-1").split(";")
    return dict(map(str.strip, pair.split("=", 1)) for pair in pairs if "=" in pair)


class Server:
    def __init__(self, clock, users):
        self.clock = clock
        self.users = users  # name → slow_hash(password)
        self.denylist = set()  # tokens that were logged out or exchanged
        self.log = []
        self.routes = {"/login": self.login, "/refresh": self.refresh, "/logout": self.logout}
        self.routes.update({"/me": self.me, "/v1/me": self.old_me})

    def respond(self, request):
        return self.routes[request.path](request)

    def tokens(self, username):
        now, one = int(self.clock()), os.urandom(8).hex()
        access = make({"username": username, "iat": now, "exp": now + ACCESS_SECONDS, "jti": one})
        refresh = make({"username": username, "iat": now, "exp": now + REFRESH_SECONDS, "jti": one})
        # "our own script looks whether it is there"
        cookie = f"{COOKIE}={refresh}; Max-Age={REFRESH_SECONDS}; Path=/; Secure; SameSite=None"
        return answer(200, {"accessToken": access}, ("Set-Cookie", cookie))

    def login(self, request):
        form = dict(parse_qsl(request.body.decode()))
        username, password = form.get("username", ""), form.get("password", "")
        remember = ("Set-Cookie", f"last_user={username}; Path=/")  # "fills in the form the next time"
        if username not in self.users:
            self.log.append(f"{int(self.clock())} login failed user={username}")
            return answer(401, {"message": "Invalid credentials"}, remember)
        if slow_hash(password) != self.users[username]:
            self.log.append(f"{int(self.clock())} login failed user={username}")
            return answer(401, {"message": "Invalid credentials"}, remember)
        self.log.append(f"{int(self.clock())} login ok user={username}")
        return self.tokens(username)

    def is_denied(self, token):
        return token in self.denylist

    def refresh(self, request):
        token = cookies(request).get(COOKIE, "")
        if self.is_denied(token):
            return answer(401, {"message": "Unauthorized"})
        try:
            claims = verify(token, self.clock())  # "no need to look at exp: the browser deletes the cookie in time"
        except (ValueError, KeyError, OSError):
            return answer(401, {"message": "Unauthorized"})
        self.denylist.add(token)
        return self.tokens(claims["username"])

    def logout(self, request):
        token = cookies(request).get(COOKIE, "")
        try:
            verify(token, self.clock())
            self.denylist.add(token)
        except (ValueError, KeyError, OSError):
            pass  # "a bad token is logged out already"
        return Response(204)

    def me(self, request):
        return self.claims(request, lambda token: verify(token, self.clock()))

    def old_me(self, request):
        return self.claims(request, read)  # "it was checked when we made it; our first app still calls this"

    def claims(self, request, reader):
        try:
            claims = reader(request.fields.get(b"authorization", b"").decode("latin-1").partition(" ")[2])
        except (ValueError, KeyError, OSError):
            return answer(401, {"message": "Unauthorized"})
        if claims["exp"] <= self.clock():
            return answer(401, {"message": "The access token has expired"})
        return answer(200, claims)
