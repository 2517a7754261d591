"""Real etcd nodes on loopback, each in a directory of its own, for tests and for the long proof."""

import json
import os
import shutil
import signal
import socket
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


def make_pems(directory):
    """Make certificates as tests/deploy says, one with a CommonName (named), and another CA's certificate (other.pem).

    Returns why that cannot be; "" if it was done.
    """
    if not shutil.which("openssl"):
        return "openssl is not installed"

    def run(*command):
        subprocess.run(command, cwd=directory, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("sh", os.fspath(DEPLOY / "etcd-certificates.sh"), "127.0.0.1")
    run("openssl", "req", "-x509", *key, "-keyout", "other.key", "-out", "other.pem", "-subj", "/CN=other")
    run("openssl", "req", "-new", *key, "-keyout", "named.key", "-out", "named.csr", "-subj", "/CN=minijwt")
    run("openssl", "x509", "-req", "-in", "named.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "named.pem")
    return ""


class Cluster:
    """`size` nodes at 127.0.0.1, as tests/deploy/etcd.default has it. With `pems`, a directory, over TLS; else without."""

    def __init__(self, size=1, pems=None):
        self.size, self.pems = size, pems
        self.scratch = tempfile.TemporaryDirectory(prefix="minijwt-etcd-")
        ports = free_ports(2 * size)
        self.ports, self.peers = ports[:size], ports[size:]
        self.scheme = "https" if pems else "http"
        self.processes = [None] * size
        for number in range(size):
            self.start(number)
        self.wait()

    def environment(self, number):
        """What /etc/default/etcd says, with our addresses, names and files."""
        client, peer = f"{self.scheme}://127.0.0.1:{self.ports[number]}", f"{self.scheme}://127.0.0.1:{self.peers[number]}"
        lines = (DEPLOY / "etcd.default").read_text("utf-8").splitlines()
        said = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        said["ETCD_NAME"] = f"n{number}"
        said["ETCD_INITIAL_CLUSTER"] = ",".join(
            f"n{i}={self.scheme}://127.0.0.1:{port}" for i, port in enumerate(self.peers)
        )
        for name in said:
            if name.endswith("_URLS"):
                said[name] = peer if "PEER" in name else client
            elif name.endswith("_FILE"):
                said[name] = said[name].replace("/etc/etcd/node", f"{self.pems}/node-127.0.0.1").replace("/etc/etcd", f"{self.pems}")
        if not self.pems:
            said = {name: value for name, value in said.items() if not name.endswith(("_FILE", "_CERT_AUTH"))}
        return {**said, "ETCD_DATA_DIR": f"{self.scratch.name}/{number}", "PATH": os.environ["PATH"]}

    def start(self, number):
        with open(f"{self.scratch.name}/{number}.log", "ab") as log:
            self.processes[number] = subprocess.Popen(
                ["etcd", *OPTIONS], stdout=log, stderr=log, env=self.environment(number)
            )

    def wait(self, seconds=20):
        """Wait until the nodes answer reads, for which they need a leader."""
        end = time.monotonic() + seconds
        for number in range(self.size):
            while True:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", self.ports[number])) == 0:
                        if self.pems or self.leader() is not None:
                            break
                assert time.monotonic() < end, Path(f"{self.scratch.name}/{number}.log").read_text()[-2000:]
                time.sleep(0.05)

    def url(self, prefix="minijwt", first=0):
        turned = [*self.ports[first:], *self.ports[:first]]
        return "etcd://" + ",".join(f"127.0.0.1:{port}" for port in turned) + "/" + prefix

    def ask(self, number, path, body, seconds=2):
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[number]}{path}", json.dumps(body).encode())
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=seconds) as response:
            return json.load(response)

    def leader(self):
        """The number of the leader, if a node knows one."""
        for number in range(self.size):
            try:
                status = self.ask(number, "/v3/maintenance/status", {})
            except OSError:
                continue
            if status.get("leader", "0") == status["header"]["member_id"]:
                return number
        return None

    def kill(self, number):
        self.processes[number].kill()
        self.processes[number].wait()

    def pause(self, number):
        self.processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number):
        self.processes[number].send_signal(signal.SIGCONT)

    def etcdctl(self, *arguments, stdin=""):
        """Run etcdctl against the first node; return what it prints."""
        command = ["etcdctl", f"--endpoints={self.scheme}://127.0.0.1:{self.ports[0]}"]
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

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.scratch.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()
