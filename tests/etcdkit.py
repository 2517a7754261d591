"""Real etcd nodes on loopback, each in a directory of its own, for tests and for the long proof."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent / "deploy"
# Beside what tests/deploy/etcd.default says.
OPTIONS = ["--heartbeat-interval=100", "--election-timeout=1000", "--log-level=error"]


def why_not():
    """Why there can be no etcd here; "" if there can."""
    return "" if shutil.which("etcd") else "etcd is not installed (Debian: etcd-server)"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def make_pems(directory, *addresses):
    """Make certificates as tests/deploy says, one with a CommonName (named), and another CA's certificate (other.pem).

    Returns why that cannot be; "" if it was done.
    """
    if not shutil.which("openssl"):
        return "openssl is not installed"

    def run(*command):
        subprocess.run(command, cwd=directory, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("sh", os.fspath(DEPLOY / "etcd-certificates.sh"), *addresses or ["127.0.0.1"])
    run("openssl", "req", "-x509", *key, "-keyout", "other.key", "-out", "other.pem", "-subj", "/CN=other")
    run("openssl", "req", "-new", *key, "-keyout", "named.key", "-out", "named.csr", "-subj", "/CN=minijwt")
    run("openssl", "x509", "-req", "-in", "named.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "named.pem")
    return ""


class Cluster:
    """`size` nodes, as tests/deploy/etcd.default has it. With `pems`, a directory, over TLS; else without.

    They listen at 127.0.0.1, or each at one of `addresses`; `on` says what stands before a command for that machine.
    """

    def __init__(self, size=1, pems=None, addresses=(), on=lambda number: []):
        self.size, self.pems, self.addresses, self.on = size, pems, addresses or ["127.0.0.1"] * size, on
        self.tls, self.token = None, ""
        if pems:
            self.tls = ssl.create_default_context(cafile=f"{pems}/ca.pem")
            self.tls.load_cert_chain(f"{pems}/minijwt.pem", f"{pems}/minijwt.key")
        self.scratch = tempfile.TemporaryDirectory(prefix="minijwt-etcd-")
        ports = free_ports(2 * size)
        self.ports, self.peers = ports[:size], ports[size:]
        self.scheme = "https" if pems else "http"
        self.processes = [None] * size
        for number in range(size):
            self.start(number)
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise

    def environment(self, number):
        """What /etc/default/etcd says, with our addresses, names and files."""
        here = f"{self.scheme}://{self.addresses[number]}"
        client, peer = f"{here}:{self.ports[number]}", f"{here}:{self.peers[number]}"
        lines = (DEPLOY / "etcd.default").read_text("utf-8").splitlines()
        said = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        said["ETCD_NAME"] = f"n{number}"
        said["ETCD_INITIAL_CLUSTER"] = ",".join(
            f"n{i}={self.scheme}://{self.addresses[i]}:{port}" for i, port in enumerate(self.peers)
        )
        for name in said:
            if name.endswith("_URLS"):
                said[name] = peer if "PEER" in name else client
            elif name.endswith("_FILE"):
                files = f"{self.pems}/node-{self.addresses[number]}"
                said[name] = said[name].replace("/etc/etcd/node", files).replace("/etc/etcd", f"{self.pems}")
        if not self.pems:
            said = {name: value for name, value in said.items() if not name.endswith(("_FILE", "_CERT_AUTH"))}
        return {**said, "ETCD_DATA_DIR": f"{self.scratch.name}/{number}", "PATH": os.environ["PATH"]}

    def start(self, number):
        with open(f"{self.scratch.name}/{number}.log", "ab") as log:
            self.processes[number] = subprocess.Popen(
                [*self.on(number), "etcd", *OPTIONS], stdout=log, stderr=log, env=self.environment(number)
            )

    def wait(self, seconds=20):
        """Wait until the nodes answer reads, for which they need a leader."""
        end = time.monotonic() + seconds
        for number in range(self.size):
            while True:
                status = self.status(number)
                if status and status.get("leader", "0") != "0":
                    break
                assert time.monotonic() < end, Path(f"{self.scratch.name}/{number}.log").read_text()[-2000:]
                time.sleep(0.05)

    def url(self, prefix="minijwt", first=0):
        nodes = [f"{address}:{port}" for address, port in zip(self.addresses, self.ports)]
        return "etcd://" + ",".join(nodes[first:] + nodes[:first]) + "/" + prefix

    def open(self, number, path, body, seconds=2):
        """The answer of a node, to be read and closed."""
        url = f"{self.scheme}://{self.addresses[number]}:{self.ports[number]}{path}"
        fields = {"Authorization": self.token} if self.token else {}
        request = urllib.request.Request(url, json.dumps(body).encode(), fields)
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls)]
        return urllib.request.build_opener(*handlers).open(request, timeout=seconds)

    def ask(self, number, path, body, seconds=2):
        with self.open(number, path, body, seconds) as response:
            return json.load(response)

    def status(self, number):
        """What a node says of itself; None if it does not answer."""
        try:
            return self.ask(number, "/v3/maintenance/status", {})
        except OSError:
            return None

    def leader(self, seconds=20):
        """The number of the leader, as soon as there is one."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number in range(self.size):
                status = self.status(number)
                if status and status.get("leader", "0") == status["header"]["member_id"]:
                    return number
            time.sleep(0.05)
        raise AssertionError("there is no leader")

    def kill(self, number):
        self.processes[number].kill()
        self.processes[number].wait()

    def pause(self, number):
        self.processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number):
        self.processes[number].send_signal(signal.SIGCONT)

    def etcdctl(self, *arguments, stdin=""):
        """Run etcdctl against the first node; return what it prints."""
        command = ["etcdctl", f"--endpoints={self.scheme}://{self.addresses[0]}:{self.ports[0]}"]
        if self.pems:
            command += [f"--cacert={self.pems}/ca.pem", f"--cert={self.pems}/minijwt.pem", f"--key={self.pems}/minijwt.key"]
        environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
        return subprocess.run([*command, *arguments], env=environment, input=stdin, check=True, text=True,
                              capture_output=True, timeout=20).stdout  # fmt: skip

    def restore(self, number, backup):
        """Give a node that was stopped what a snapshot has, as the README says."""
        shutil.rmtree(f"{self.scratch.name}/{number}")
        said = self.environment(number)
        self.etcdctl("snapshot", "restore", str(backup), "--name", said["ETCD_NAME"],
                     "--initial-cluster", said["ETCD_INITIAL_CLUSTER"],
                     "--initial-advertise-peer-urls", said["ETCD_INITIAL_ADVERTISE_PEER_URLS"],
                     "--data-dir", said["ETCD_DATA_DIR"])  # fmt: skip

    def enable_auth(self, user, password, prefix="minijwt"):
        """Let `user` do anything below the prefix, and nobody else anything."""
        self.etcdctl("user", "add", "root", "--interactive=false", stdin="root\n")
        self.etcdctl("user", "add", user, "--interactive=false", stdin=password + "\n")
        self.etcdctl("role", "add", user)
        self.etcdctl("role", "grant-permission", user, "--prefix=true", "readwrite", f"{prefix}/")
        self.etcdctl("user", "grant-role", user, user)
        self.etcdctl("user", "grant-role", "root", "root")
        self.etcdctl("auth", "enable")

    def authenticate(self):
        """Be root in what is asked from now on; a node that was started again knows nothing of it."""
        self.token = ""
        self.token = self.ask(0, "/v3/auth/authenticate", {"name": "root", "password": "root"})["token"]

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.scratch.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()
