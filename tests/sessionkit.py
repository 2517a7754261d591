"""What the tests of users, sessions and their database share: a faulty SQLite, a running server, tokens as claims."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading

import minijwt
import server
from serverkit import (
    ACCESS, CHEAP, FORM, NOW, REFRESH, TOP, address_of, build, cookie_of, login, post, raw, read_all, refresh,
)  # fmt: skip

DAY, WEEK = 86_400, 7 * 86_400
SECRETS = {"ACCESS_TOKEN_SECRET": ACCESS.decode(), "REFRESH_TOKEN_SECRET": REFRESH.decode()}
PASSWORD = "correct horse"


def credentials(username, password):
    """A login form's body."""
    quote = {"&": "%26", "=": "%3D", "+": "%2B", " ": "+", "%": "%25"}
    pair = ["".join(quote.get(each, each) for each in text) for text in (username, password)]
    return "username={}&password={}".format(*pair).encode()


def house(rotate=True, clock=None, store=None, **changes):
    """A server with the user ann."""
    app = build(clock, store, rotate_refresh=rotate, **changes)
    if "ann" not in app.store.user_names():
        app.accounts.add_user("ann", PASSWORD)
    return app


def attempt(app, username, password, peer="127.0.0.1", **fields):
    """Try to log in from `peer`."""
    fields = {"host": "localhost", "content_type": FORM, **fields}
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    body, client = credentials(username, password), address_of(app, peer, fields)
    return server.respond(app, server.Request("POST", "/login", fields, body, address=client))


def enter(app, username="ann", password=PASSWORD):
    """Log in, and return the refresh token."""
    answer = login(app, credentials(username, password))
    assert answer.status == 200, (answer, username)
    return cookie_of(answer)


def use(app, *tokens):
    """Refresh with these cookies."""
    return refresh(app, "; ".join(f"{app.settings.cookie_name}={token}" for token in tokens))


def works(app, *tokens):
    return use(app, *tokens).status == 200


def follow(app, token):
    """Refresh, and return the successor: what a browser would hold then."""
    answer = use(app, token)
    assert answer.status == 200, answer
    return cookie_of(answer) if any(name == "Set-Cookie" for name, _ in answer.fields) else token


def leave(app, *tokens):
    return post(app, "/logout", cookie="; ".join(f"{app.settings.cookie_name}={token}" for token in tokens))


def claims_of(token, secret=REFRESH, now=None):
    """What a token says; its signature is checked, its time is not."""
    return minijwt.decode(token, secret, options={"verify_exp": False, "verify_iat": False}, now=now or NOW)


def sign(username="ann", sid="5" * 32, gen=0, epoch="demo", iat=NOW, exp=NOW + DAY, secret=REFRESH, **more):
    """A refresh token of ours, with the claims that a login gives it."""
    claims = {"username": username, "sid": sid, "gen": gen, "epoch": epoch, "iat": iat, "exp": exp, **more}
    return minijwt.encode(claims, secret)


def code(answer):
    """Why it was refused, as the log has it."""
    (event,) = answer.events
    return event.fields["result"]


def in_threads(count, function):
    """Call `function(number)` in `count` threads that begin at once; return all results, in order."""
    barrier, results = threading.Barrier(count), [None] * count

    def run(number):
        barrier.wait(30)
        try:
            results[number] = function(number)
        except BaseException as error:  # the test that compares the results shows it
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


class Gate:
    """Stands in for check_password: no login gets through before it is opened."""

    def __init__(self, monkeypatch):
        self.calls, self.open, self.lock = 0, threading.Event(), threading.Lock()
        self.at_once = self.most = 0
        self.real = server.check_password
        monkeypatch.setattr(server, "check_password", self)

    def __call__(self, password, stored):
        with self.lock:
            self.calls += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        assert self.open.wait(30)
        with self.lock:
            self.at_once -= 1
        return self.real(password, stored)


class Faulty:
    """What a connection becomes: it calls `before(connection, statement)` first, which may raise or change a PRAGMA."""

    before = staticmethod(lambda connection, statement: None)

    def execute(self, statement, *values):
        self.before(self, statement)
        return super().execute(statement, *values)

    def raw(self, statement):
        return super().execute(statement).fetchall()


def faulty(monkeypatch):
    """From now on all connections are Faulty, and start without faults; return the class whose `before` is called."""
    faults = type("Faults", (Faulty,), {})

    def connect(*arguments, factory=sqlite3.Connection, **more):
        return real(*arguments, factory=type("Connection", (faults, factory), {}), **more)

    real = sqlite3.connect
    monkeypatch.setattr(server.sqlite3, "connect", connect)
    return faults


def exchange(port, data):
    """Send `data` to a server on this machine, close our side, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def raw_login(username="admin", password="admin123"):
    return raw("POST", "/login", credentials(username, password), f"Content-Type: {FORM}")


def raw_refresh(token, name="jwt"):
    return raw("POST", "/refresh", b"", f"Cookie: {name}={token}")


def raw_logout(token, name="jwt"):
    return raw("POST", "/logout", b"", f"Cookie: {name}={token}")


def command(directory, *arguments, stdin="", **environment):
    """Run `python3 server.py ARGUMENTS`; return its status, output and errors."""
    done = subprocess.run(
        [sys.executable, str(TOP / "server.py"), *arguments],
        cwd=directory, env={"PATH": "/usr/bin:/bin", **environment}, input=stdin,
        capture_output=True, text=True, encoding="utf-8", timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def add_cheaply(path, name="ann", password=PASSWORD, epoch="e" * 16):
    """Add a user to the database at `path` whose password costs nothing to check."""
    store = server.SQLiteStore(os.fspath(path))
    assert store.add_user(name, server.hash_password(password, CHEAP), epoch)
    store.close()
