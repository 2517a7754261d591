"""Three etcd nodes, three servers whose clocks differ, clients that wander, and faults: is anything acknowledged undone?

    python3 tests/prove/cluster.py [SECONDS [RUNS [LOST]]]

A run takes SECONDS, 60 by default, and LOST more, 10 by default, in which there is no quorum. At the end the checker shows
its teeth: two broken stores have to be caught.

Clients talk to the servers over HTTP and write down what they were told; faults happen meanwhile; then what they were told
is compared with itself, and with every revision that etcd has written. The servers are server.py with a cheap password
hash, and with time.time shifted before it is run: nothing in server.py knows of this.
"""

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
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests")]
import etcdkit  # noqa: E402
import server  # noqa: E402

OFFSETS = [0.0, 2.0, -2.0]  # seconds
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
# What must be caught: a store that compares nothing, and one that remembers for a second what it has read.
MUTANTS = {
    "compares left out": ('"compare":[{",".join(same)}]', '"compare":[]'),
    "stale reads": (
        "            for work, keys in some:\n",
        "            kept = self.__dict__.setdefault('kept', {})\n"
        "            for key in found:\n"
        "                if key not in kept or time.monotonic() > kept[key][0] + 1:\n"
        "                    kept[key] = time.monotonic(), found[key]\n"
        "                found[key] = kept[key][1]\n"
        "            for work, keys in some:\n",
    ),
}


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
        self.etcd = etcdkit.Cluster(3)
        self.ports, self.servers = etcdkit.free_ports(3), [None] * 3
        self.over = threading.Event()
        self.lock, self.violations, self.counts, self.waits = threading.Lock(), [], Counter(), []
        self.guesses = 0
        nodes, prefix = server.etcd_nodes(self.etcd.url())
        self.store = server.EtcdStore(self.etcd.url(), nodes, prefix)
        for number in range(3):
            self.start_server(number)
        for number in range(3):
            while True:
                try:
                    http.client.HTTPConnection("127.0.0.1", self.ports[number], timeout=5).request("GET", "/")
                    break
                except OSError:
                    time.sleep(0.05)

    def start_server(self, number):
        environment = {"PATH": os.environ["PATH"], **SECRETS, "DATABASE": self.etcd.url(first=number), "HOST": "127.0.0.1",
                       "PORT": str(self.ports[number]), "ROTATE_REFRESH": "on" if self.rotate else "off"}  # fmt: skip
        with open(self.directory / f"server{number}.log", "ab") as log:
            self.servers[number] = subprocess.Popen(
                [sys.executable, "-c", SHIFTED, str(OFFSETS[number]), str(self.directory / "server.py")],
                cwd=self.directory, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def kill_server(self, number):
        self.servers[number].kill()
        self.servers[number].wait()

    def violation(self, text):
        with self.lock:
            self.violations.append(text)

    def close(self):
        for process in self.servers:
            process.kill()
            process.wait()
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
        connection = self.connections.get(at) or http.client.HTTPConnection("127.0.0.1", self.world.ports[at], timeout=15)
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
    last = int(cluster.ask(0, "/v3/kv/range", {"key": base64.b64encode(b"minijwt/schema/version").decode()})["header"]["revision"])
    connection = http.client.HTTPConnection("127.0.0.1", cluster.ports[0], timeout=20)
    start, end = base64.b64encode(b"minijwt/").decode(), base64.b64encode(b"minijwt0").decode()
    connection.request("POST", "/v3/watch", json.dumps({"create_request": {"key": start, "range_end": end, "start_revision": "1"}}))
    response = connection.getresponse()
    while True:
        for event in json.loads(response.readline())["result"].get("events", []):
            kv = event["kv"]
            value = base64.b64decode(kv["value"]) if event.get("type") != "DELETE" and kv.get("value") else b"null"
            yield base64.b64decode(kv["key"]).decode()[len("minijwt/") :], json.loads(value)
            if int(kv["mod_revision"]) >= last:
                connection.close()
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


def faults(world, seconds, without_quorum):
    """Break one thing after another; each is mended before the next. Return when quorum was lost, from and to."""
    etcd, unit = world.etcd, seconds / 60
    follower = (etcd.leader() + 1) % 3

    def wait(units):
        world.over.wait(units * unit)

    wait(4)
    etcd.kill(follower)
    wait(4)
    etcd.start(follower)
    wait(4)
    etcd.pause(follower)
    wait(4)
    etcd.resume(follower)
    wait(3)
    leader = etcd.leader()
    etcd.kill(leader)
    wait(5)
    etcd.start(leader)
    wait(4)
    leader = etcd.leader()
    etcd.pause(leader)
    wait(4)
    etcd.resume(leader)
    wait(2)
    world.kill_server(1)
    wait(3)
    world.start_server(1)
    wait(3)
    lost = time.monotonic()
    for number in (0, 2):
        etcd.pause(number)
    time.sleep(without_quorum)
    for number in (0, 2):
        etcd.resume(number)
    found = time.monotonic()
    wait(6)
    world.kill_server(2)
    wait(1)
    world.start_server(2)
    wait(5)
    return lost, found


def run(seconds, rotate=True, mutant=None, with_faults=True, without_quorum=10):
    """Return the violations, and a line of figures."""
    with tempfile.TemporaryDirectory(prefix="minijwt-cluster-") as directory:
        world = World(directory, rotate, mutant)
        try:
            assert world.store.add_user("victim", server.hash_password(PASSWORD, CHEAP), server.new_epoch())
            kinds = [Wanderer] * 6 + [Tabs] * 3 + [Changer] * 3 + [Guesser] * 2
            clients = [kind(world, number) for number, kind in enumerate(kinds)]
            for client in clients:
                client.thread.start()
            lost = faults(world, seconds, without_quorum) if with_faults else (world.over.wait(seconds), 0)
            world.over.set()
            for client in clients:
                client.thread.join(40)
                if client.thread.is_alive():
                    world.violation(f"{client.name} hangs")
            world.etcd.wait()
            revisions = check_history(world)
            # What ended while there was a quorum, or began after it was back.
            waits = [wait for wait, began in world.waits if began + wait < lost[0] or began > lost[1] or not with_faults]
            longest = max([wait for wait, _ in world.waits])
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


def main(seconds="60", runs="1", without_quorum="10"):
    if why := etcdkit.why_not():
        print(f"cluster: skipped: {why}")
        return 0
    status = 0
    for number in range(int(runs)):
        violations, figures = run(float(seconds), without_quorum=float(without_quorum))
        print(f"cluster, run {number + 1}: {len(violations)} violations; {figures}", flush=True)
        for text in violations[:10]:
            print(f"    {text}")
        status = status or bool(violations)
    for mutant, rotate in (("compares left out", True), ("stale reads", False)):
        violations, figures = run(8, rotate, mutant, with_faults=False)
        print(f"cluster, {mutant}: {'caught' if violations else 'NOT CAUGHT'}, {len(violations)} violations; {figures}", flush=True)
        for text in sorted(violations, key=len)[:2]:
            print(f"    {text}")
        status = status or not violations
    return int(status)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main(*sys.argv[1:]))
