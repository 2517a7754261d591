"""Three etcd nodes, three servers whose clocks differ, clients that wander, and faults: is anything acknowledged undone?

    python3 tests/prove/cluster.py            some minutes: quorum is lost for 10 s, and for 40
    python3 tests/prove/cluster.py --short    90 s
    python3 tests/prove/cluster.py --runs 3

Clients talk to the servers over HTTP and write down what they were told; faults happen meanwhile; then what they were told
is compared with itself, and with every revision that etcd has written. At the end the checker shows its teeth: two broken
stores have to be caught. The servers are server.py with a cheap password hash, and with time.time shifted before it is run:
nothing in server.py knows of this. They speak with etcd over TLS, with a login.

Where root may make network namespaces, each node and its server are a machine of their own, which can be cut off; elsewhere
all are at 127.0.0.1, and nothing is cut.
"""

import argparse
import base64
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests")]
import etcdkit  # noqa: E402
import server  # noqa: E402

OFFSETS = [0.0, 2.0, -2.0]  # seconds
HUB, MACHINES = "10.77.0.254", ["10.77.0.1", "10.77.0.2", "10.77.0.3"]  # addresses in the namespaces
NOWHERE = "02:00:00:00:00:ff"  # a MAC address that no machine has
INSIDE = "MINIJWT_NAMESPACES"  # the variable that names them
PASSWORD = "correct horse"
CHEAP = "scrypt$2$1$1"
SECRETS = {"ACCESS_TOKEN_SECRET": "a" * 40, "REFRESH_TOKEN_SECRET": "r" * 40}
SHIFTED = """
import runpy, sys, time
offset, real = float(sys.argv[1]), time.time
time.time = lambda: real() + offset
sys.argv = [sys.argv[2]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# What must be caught: a store that compares nothing, and one that believes what it remembers.
MUTANTS = {
    "compares left out": (
        "same = [COMPARE % (names[key], revision) for key, revision in seen if revision]",
        "same = list[str]()",
    ),
    "stale reads": (
        "self._guesses.get(key, UNKNOWN), True",
        "self._guesses.get(key, UNKNOWN), work.guessed or key not in self._guesses",
    ),
}


# -- machines


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True)


def have_namespaces():
    """Whether we may make network namespaces, with bridges in them."""
    name = f"minijwt-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", "br0", "type", "bridge")
        finally:
            ip("netns", "del", name)
        return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def namespaces():
    """Three machines on a bridge, and a fourth where the bridge is, for the clients; yield their names."""
    hub, *machines = names = [f"minijwt-{os.getpid()}-{each}" for each in ("hub", *range(3))]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "br0", "type", "bridge")
        ip("-n", hub, "link", "set", "br0", "up")
        ip("-n", hub, "address", "add", f"{HUB}/24", "dev", "br0")
        for number, (name, address) in enumerate(zip(machines, MACHINES)):
            ip("-n", hub, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", hub, "link", "set", f"to{number}", "master", "br0", "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


def run_inside(arguments):
    """Run this program once more where the bridge is; return its exit status."""
    with namespaces() as (hub, *machines):
        command = ["ip", "netns", "exec", hub, sys.executable, __file__, *arguments]
        with subprocess.Popen(command, env={**os.environ, INSIDE: " ".join(machines)}) as process:
            try:
                return process.wait()
            finally:
                process.terminate()


class Stopped(Exception):
    """The run is over."""


class World:
    """The nodes, the servers, and what the clients were told."""

    def __init__(self, directory, rotate=True, mutant=None):
        self.directory, self.rotate = Path(directory), rotate
        source = (TOP / "server.py").read_text("utf-8").replace(f'SCRYPT = "{server.SCRYPT}"', f'SCRYPT = "{CHEAP}"')
        assert CHEAP in source
        if mutant:
            old, new = MUTANTS[mutant]
            assert source.count(old) == 1, mutant
            source = source.replace(old, new)
        (self.directory / "server.py").write_text(source, "utf-8")
        shutil.copy(TOP / "minijwt.py", self.directory)
        self.over, self.lock = threading.Event(), threading.Lock()
        self.violations, self.counts, self.waits, self.guesses = [], Counter(), [], 0
        self.machines = os.environ.get(INSIDE, "").split()
        self.addresses = MACHINES if self.machines else ["127.0.0.1"] * 3
        assert not (why := etcdkit.make_pems(self.directory, *sorted({*self.addresses}))), why
        self.etcd = etcdkit.Cluster(3, self.directory, self.addresses, self.on)
        self.ports, self.servers, self.store = etcdkit.free_ports(3), [], None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        """Have users, and servers that answer."""
        self.etcd.enable_auth("minijwt", "secret")
        (self.directory / "login").write_text("minijwt:secret\n")
        (self.directory / "login").chmod(0o600)
        self.settings = {f"DATABASE_{name}": str(self.directory / file) for name, file in
                         (("CA", "ca.pem"), ("CERT", "minijwt.pem"), ("KEY", "minijwt.key"), ("LOGIN", "login"))}  # fmt: skip
        self.store = server.open_store(server.read_settings({**SECRETS, **self.settings, "DATABASE": self.etcd.url()}, ""))
        assert self.store.add_user("victim", server.hash_password(PASSWORD, CHEAP), server.new_epoch())
        self.servers = [self.start_server(number) for number in range(3)]
        for number in range(3):
            end = time.monotonic() + 20
            while True:
                try:
                    http.client.HTTPConnection(self.addresses[number], self.ports[number], timeout=5).request("GET", "/")
                    break
                except OSError:
                    assert time.monotonic() < end, (self.directory / f"server{number}.log").read_text()
                    time.sleep(0.05)

    def on(self, number):
        """What stands before a command that runs on that machine."""
        return ["ip", "netns", "exec", self.machines[number]] if self.machines else []

    def start_server(self, number):
        """Return the process of a server."""
        environment = {"PATH": os.environ["PATH"], **SECRETS, **self.settings, "DATABASE": self.etcd.url(first=number),
                       "HOST": self.addresses[number], "PORT": str(self.ports[number]),
                       "ROTATE_REFRESH": "on" if self.rotate else "off"}  # fmt: skip
        command = [sys.executable, "-c", SHIFTED, str(OFFSETS[number]), str(self.directory / "server.py")]
        with open(self.directory / f"server{number}.log", "ab") as log:
            return subprocess.Popen(
                [*self.on(number), *command], cwd=self.directory, env=environment, stdout=log, stderr=log
            )

    def cut(self, number, *ways):
        """Let nothing that the machine sends arrive at the others ("out"), or nothing that they send arrive there ("in").

        The clients still reach it.
        """
        for other in {0, 1, 2} - {number}:
            for way, sender, receiver in (("out", number, other), ("in", other, number)):
                if way in ways:
                    neighbour = [MACHINES[receiver], "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent"]
                    ip("-n", self.machines[sender], "neighbour", "replace", *neighbour)

    def mend(self):
        for name in self.machines:
            for address in MACHINES:
                ip("-n", name, "neighbour", "del", address, "dev", "eth0", check=False)

    def kill_server(self, number):
        self.servers[number].kill()
        self.servers[number].wait()

    def restart_server(self, number):
        self.servers[number] = self.start_server(number)

    def violation(self, text):
        with self.lock:
            self.violations.append(text)

    def close(self):
        for process in self.servers:
            process.kill()
            process.wait()
        if self.store:
            self.store.close()
        self.etcd.stop()


class Client:
    """One thread that does something again and again, at whichever server."""

    def __init__(self, world, number):
        self.world, self.random, self.connections = world, random.Random(number), {}
        self.name = f"{type(self).__name__.lower()}{number}"
        self.password, self.thread = PASSWORD, threading.Thread(target=self.run, daemon=True)
        assert world.store.add_user(self.name, server.hash_password(PASSWORD, CHEAP), server.new_epoch())

    def run(self):
        try:
            while not self.world.over.is_set():
                self.live()
        except Stopped:
            pass
        except Exception as error:
            self.world.violation(f"{self.name}: {error!r}")
            raise

    def once(self, at, path, form=None, cookie=None):
        """Ask server `at`; return the status, 0 if there was no answer, and the new cookie."""
        connection = self.connections.get(at) or http.client.HTTPConnection(
            self.world.addresses[at], self.world.ports[at], timeout=15
        )
        self.connections[at] = connection
        fields = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        if cookie:
            fields["Cookie"] = f"jwt={cookie}"
        try:
            connection.request("POST", path, urllib.parse.urlencode(form or {}), fields)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0, None
        self.world.counts[path, response.status] += 1
        return response.status, (response.headers["Set-Cookie"] or "").partition(";")[0].partition("=")[2]

    def ask(self, path, form=None, cookie=None):
        """Ask one server after another until one does not say 503; return its status and cookie."""
        began, at = time.monotonic(), self.random.randrange(3)
        while True:
            status, token = self.once(at, path, form, cookie)
            if status not in (0, 429, 503):
                with self.world.lock:
                    self.world.waits.append((time.monotonic() - began, began))
                return status, token
            if self.world.over.wait(0.1 if status != 429 else 1):
                raise Stopped
            at = (at + 1) % 3

    def login(self):
        status, token = self.ask("/login", {"username": self.name, "password": self.password})
        if status != 200:
            self.world.violation(f"{self.name}: a right password was answered {status}")
            raise Stopped
        return token

    def refresh(self, token):
        """Return the successor."""
        status, successor = self.ask("/refresh", cookie=token)
        if status != 200:
            self.world.violation(f"{self.name}: an honest client was logged out: {status}")
            raise Stopped
        return successor or token

    def must_be_refused(self, tokens, why):
        """Present `tokens` everywhere."""
        for token in tokens:
            for at in self.random.sample(range(3), 3):
                status, _ = self.once(at, "/refresh", cookie=token)
                if status == 200:
                    self.world.violation(f"{self.name}: a token was good after {why}")

    def pause(self, seconds=0.1):
        if self.world.over.wait(self.random.random() * seconds):
            raise Stopped


class Wanderer(Client):
    """Rotates and wanders; logs out now and then, and tries what it still has."""

    def live(self):
        tokens = [self.login()]
        for _ in range(self.random.randrange(40)):
            tokens.append(self.refresh(tokens[-1]))
            self.pause()
        status, _ = self.ask("/logout", cookie=tokens[-1])
        assert status == 204
        self.must_be_refused(tokens[:-4:-1], "its session had ended")


class Tabs(Client):
    """Two tabs that refresh with one token at the same time, at two servers."""

    def live(self):
        token = self.login()
        other = object.__new__(Client)
        other.world, other.random, other.name, other.connections = self.world, random.Random(1), self.name, {}
        for _ in range(200):
            found = []
            second = threading.Thread(target=self.one, args=(other, token, found))
            second.start()
            self.one(self, token, found)
            second.join()
            if self.world.over.is_set() or len(found) < 2:
                raise Stopped
            if len(set(found)) != 1:
                self.world.violation(f"{self.name}: one token has two successors")
            token = found[0]
            self.pause()

    @staticmethod
    def one(client, token, found):
        try:
            found.append(client.refresh(token))
        except Stopped:
            pass


class Changer(Client):
    """Changes its password, and then tries the old one, and what its sessions had."""

    def live(self):
        tokens = [self.login(), self.login()]
        self.pause(1)
        new = f"{PASSWORD} {self.random.randrange(10**9)}"
        form = {"username": self.name, "password": self.password, "new_password": new}
        status, _ = self.ask("/password", form)
        # 406: it was done at an earlier try, whose answer was lost.
        old, self.password = self.password, new
        if status not in (204, 406):
            self.world.violation(f"{self.name}: to change a password was answered {status}")
        self.login()
        self.must_be_refused(tokens, "the password was changed")
        if self.once(self.random.randrange(3), "/login", {"username": self.name, "password": old})[0] == 200:
            self.world.violation(f"{self.name}: the old password was good after it was changed")
        self.pause(1)


class Guesser(Client):
    """Guesses at all servers at once."""

    def live(self):
        status, _ = self.once(self.random.randrange(3), "/login", {"username": "victim", "password": "wrong"})
        if status == 406:
            with self.world.lock:
                self.world.guesses += 1
        self.pause(0.3)


def history(cluster):
    """Yield the key and the value of every revision that etcd has written, in order."""
    start, end = base64.b64encode(b"minijwt/").decode(), base64.b64encode(b"minijwt0").decode()
    youngest = {"key": start, "range_end": end, "sort_target": "MOD", "sort_order": "DESCEND", "limit": "1"}
    last = cluster.ask(0, "/v3/kv/range", youngest)["kvs"][0]["mod_revision"]
    watch = {"create_request": {"key": start, "range_end": end, "start_revision": "1"}}
    with cluster.open(0, "/v3/watch", watch, 20) as response:
        while True:
            result = json.loads(response.readline())["result"]
            assert "compact_revision" not in result, "the run took so long that etcd has forgotten its beginning"
            for event in result.get("events", []):
                kv = event["kv"]
                value = base64.b64decode(kv["value"]) if event.get("type") != "DELETE" and kv.get("value") else b"null"
                yield base64.b64decode(kv["key"]).decode()[len("minijwt/") :], json.loads(value)
                # The last event may be a deletion after it; there is none in such a run but of attempts.
                if int(kv["mod_revision"]) >= int(last):
                    return


def check_history(world):
    """Compare each revision of a key with the one before it."""
    before, revisions, most = {}, 0, 0
    for key, value in history(world.etcd):
        revisions += 1
        kind, old = key.partition("/")[0], before.get(key)
        if kind == "session" and value is not None:
            newest, _, ended = old or (0, 0.0, False)
            if ended and not value[2]:
                world.violation(f"{key}: an ended session lives again")
            if value[0] not in (newest, newest + 1) or (value[0] == newest and not value[2]):
                world.violation(f"{key}: generation {newest} became {value[0]}")
        if kind == "failure" and value is not None:
            most = max(most, value[0])
        before[key] = value
    if world.guesses > most:
        world.violation(f"{world.guesses} guesses were answered, and {most} counted")
    return revisions


def faults(world, seconds, outages):
    """Break one thing after another; each is mended before the next. Yield from when to when there was no quorum."""
    etcd, unit = world.etcd, seconds / 60

    def wait(units):
        world.over.wait(units * unit)

    wait(3)
    for number in ((etcd.leader() + 1) % 3, etcd.leader()):
        etcd.kill(number)
        wait(4)
        etcd.start(number)
        wait(4)
    for which in ("follower", "leader"):
        number = (etcd.leader() + (which == "follower")) % 3
        etcd.pause(number)
        wait(4)
        etcd.resume(number)
        wait(3)
    for ways in (("in", "out"), ("in",), ("out",)) if world.machines else ():
        world.cut(etcd.leader(), *ways)
        wait(4)
        world.mend()
        wait(3)
    for number, outage in enumerate(outages):
        lost = time.monotonic()
        # First two nodes stand still, then each is cut off from both others.
        if number and world.machines:
            for each in range(3):
                world.cut(each, "in", "out")
        else:
            etcd.pause(0)
            etcd.pause(2)
        world.over.wait(outage)
        world.mend()
        etcd.resume(0)
        etcd.resume(2)
        etcd.wait()
        yield lost, time.monotonic()
        wait(4)
    for number in (1, 2):
        world.kill_server(number)
        wait(2)
        world.restart_server(number)
        wait(3)


def run(seconds, rotate, mutant=None, outages=None):
    """Return the violations, and a line of figures. `outages`: seconds for which there is no quorum; None: no faults."""
    with tempfile.TemporaryDirectory(prefix="minijwt-cluster-") as directory:
        world = World(directory, rotate, mutant)
        try:
            kinds = [Wanderer] * 6 + [Tabs] * 3 + [Changer] * 3 + [Guesser] * 2
            clients = [kind(world, number) for number, kind in enumerate(kinds)]
            for client in clients:
                client.thread.start()
            lost = [] if outages is None else list(faults(world, seconds, outages))
            world.over.wait(seconds if outages is None else 0)
            world.over.set()
            for client in clients:
                client.thread.join(40)
                if client.thread.is_alive():
                    world.violation(f"{client.name} hangs")
            world.etcd.wait()
            world.etcd.authenticate()
            revisions = check_history(world)
            # Those that had nothing to do with a loss of quorum.
            waits = [wait for wait, began in world.waits if all(began + wait < start or began > end for start, end in lost)]
            longest = max(wait for wait, _ in world.waits)
            served = sum(number for (_, status), number in world.counts.items() if status not in (0, 503))
            refused = sum(number for (_, status), number in world.counts.items() if status == 503)
            figures = (f"{served} answers, {refused} times 503, {revisions} revisions, {world.guesses} guesses let through,"
                       f" longest wait {max(waits):.1f} s with a quorum and {longest:.1f} s in all")  # fmt: skip
            if os.environ.get("KEEP_LOGS"):
                shutil.copytree(directory, os.environ["KEEP_LOGS"], dirs_exist_ok=True)
            return world.violations, figures
        finally:
            world.over.set()
            world.close()


def main(arguments):
    parser = argparse.ArgumentParser(prog="python3 tests/prove/cluster.py")
    parser.add_argument("--short", action="store_true", help="half a minute of faults, and quorum lost for 8 s once")
    parser.add_argument("--runs", type=int, default=1)
    given = parser.parse_args(arguments)
    why = etcdkit.why_not() or ("" if shutil.which("openssl") else "openssl is not installed")
    if why:
        print(f"cluster: skipped: {why}")
        return 0
    if INSIDE not in os.environ and have_namespaces():
        return run_inside(arguments)
    status, seconds, outages = 0, *((30, [8]) if given.short else (70, [10, 40]))
    where = "three namespaces" if os.environ.get(INSIDE) else "127.0.0.1, where nothing is cut off"
    for number in range(given.runs):
        rotate = number % 2 == 0
        violations, figures = run(seconds, rotate, outages=outages)
        print(f"cluster in {where}, run {number + 1}, rotation {'on' if rotate else 'off'}: {len(violations)} violations;"
              f" {figures}", flush=True)  # fmt: skip
        for text in violations[:10]:
            print(f"    {text}")
        status = status or bool(violations)
    for mutant, rotate in (("compares left out", True), ("stale reads", False)):
        violations, figures = run(8, rotate, mutant)
        caught = "caught" if violations else "NOT CAUGHT"
        print(f"cluster, {mutant}: {caught}, {len(violations)} violations; {figures}", flush=True)
        for text in sorted(violations, key=len)[:2]:
            print(f"    {text}")
        status = status or not violations
    return int(status)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(sys.argv[1:]))
