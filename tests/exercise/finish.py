"""The finish line: the server starts on the student's file (see serve.py), and a client logs in."""

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import checks
import serve

import minijwt
import server

HERE = Path(__file__).resolve().parent
LOGIN = "username=admin&password=admin123"
FORM = ("Content-Type", "application/x-www-form-urlencoded")
TOKEN = r"eyJ[\w-]+\.[\w-]+\.[\w-]*"
# The colours of a token's segments, as `minijwt.py explain` has them.
COLORS = ("31", "35", "36")
WAIT_SECONDS = 20


class Client:
    """A client of the server that runs on the student's file; it tells what is sent, and what comes back."""

    def __init__(self, port, log):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
        self.log, self.good = log, True

    def ask(self, title, request, status, field, body=None):
        """Send `request` ("GET /me") with one header field; return that of the cookie, and the body of the answer."""
        method, path = request.split()
        self.connection.request(method, path, body, dict([field]))
        answer = self.connection.getresponse()
        content, cookie = json.loads(answer.read()), answer.headers["Set-Cookie"] or ""
        print(f"\n  {title}\n")
        tell(f"> {request}", body or ": ".join(field))
        tell(f"< {answer.status}", json.dumps(content))
        if cookie:
            tell("", "Set-Cookie: " + re.sub("Max-Age.*GMT", "...", cookie))
        for line in self.log.read().splitlines():
            if line.startswith(serve.SAYS):
                tell("", line)
        if answer.status != status:
            self.good = False
            tell("", f"NOT AS IT SHOULD BE: the status should be {status}.")
        return cookie.partition(";")[0], content


def tell(label, text):
    """Print `text` beside its label, each token in it cut short."""
    print(f"    {label:16}{re.sub(TOKEN, shortened, text)}")


def shortened(match):
    segments = [part if len(part) < 24 else f"{part[:12]}...{part[-4:]}" for part in match[0].split(".")]
    if sys.stdout.isatty() and os.name != "nt" and not os.environ.get("NO_COLOR"):
        segments = [f"\033[{color}m{part}\033[0m" for color, part in zip(COLORS, segments)]
    return ".".join(segments)


def forged(token, header=None):
    """Return `token` for root instead of admin: with its old signature, or unsigned with another header."""
    head, payload, signature = token.split(".")
    claims = {**json.loads(checks.raw_of(payload.encode())), "username": "root"}
    payload = checks.base64url(minijwt.json_bytes(claims))
    return f"{checks.base64url(header)}.{payload}." if header else f"{head}.{payload}.{signature}"


def log_in(client):
    """Log in, be believed, be two forgers, and refresh."""
    cookie, content = client.ask("The demo user logs in.", "POST /login", 200, FORM, LOGIN)
    token = content["accessToken"]
    for title, sent, status in (
        ("The access token is shown.", token, 200),
        ("A forger has written root for admin; the signature is the old one.", forged(token), 401),
        ('A forger has written {"alg":"none"}, too, and signs nothing.', forged(token, b'{"alg":"none"}'), 401),
    ):
        client.ask(title, "GET /me", status, ("Authorization", f"Bearer {sent}"))
    title = "The cookie is exchanged for an access token (within a second, the same one)."
    client.ask(title, "POST /refresh", 200, ("Cookie", cookie))


def perform(path, start):
    """Start the server, log in, tell what happened; return whether all of it was as it should be."""
    clean = {name: value for name, value in os.environ.items() if name not in server.VARIABLES}
    command = [sys.executable, str(HERE / "serve.py"), str(path), str(start)]
    print(f"\nEvery required stage is passed. Now the server starts, with {path.name} in the place of minijwt:\n")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with open(log, "wb") as errors, open(log, encoding="utf-8", errors="replace") as said:
            process = subprocess.Popen(
                command, cwd=folder, env={**clean, "PORT": "0"}, stdout=subprocess.PIPE, stderr=errors, text=True
            )
            timer = threading.Timer(3 * WAIT_SECONDS, process.kill)
            timer.start()
            try:
                greeting = process.stdout.readline().strip()
                tell("$ server.py", greeting)
                client = Client(int(greeting.rstrip("!").rpartition(":")[2]), said)
                log_in(client)
                client.connection.close()
                good = client.good
            except BrokenPipeError:
                raise
            except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
                good = False
                print(f"\nIt went wrong: {type(error).__name__}: {error}. The server has said:\n")
                print(textwrap.indent(log.read_text("utf-8", "replace")[-2_000:], "    "))
            finally:
                timer.cancel()
                process.terminate()
                process.communicate()
    return good
