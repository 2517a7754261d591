"""Measure `/refresh` on etcd against SQLite in the same run: the server's CPU an answer, and the rate, as ratios.

    python3 tests/bench/shared.py [SECONDS [ROUNDS [ROWS]]]

With rotation off and on, with one node and with three, all on this machine: so the nodes' own CPU takes from the rate.
ROWS are sessions that the store holds already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import etcdkit  # noqa: E402
import minijwt  # noqa: E402
import server  # noqa: E402

SECRETS = {"ACCESS_TOKEN_SECRET": "a" * 40, "REFRESH_TOKEN_SECRET": "r" * 40}
CONNECTIONS = 64
DAY = 86_400


@contextmanager
def serving(directory: str, database: str, rotate: str) -> Iterator[tuple[int, int]]:
    """Run a server; yield its port and its process number."""
    environment = {"PATH": os.environ["PATH"], **SECRETS, "DATABASE": database, "ROTATE_REFRESH": rotate, "PORT": "0"}
    command = [sys.executable, str(ROOT / "server.py")]
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().strip().rstrip("!").rpartition(":")[2]), process.pid
        finally:
            process.terminate()


def requests(number: int) -> list[str]:
    """Return refresh requests of that many new sessions of the user ann."""
    now, found = int(time.time()), []
    for _ in range(number):
        claims = {"username": "ann", "sid": os.urandom(16).hex(), "gen": 0, "epoch": "e", "iat": now, "exp": now + DAY}
        token = minijwt.encode(claims, SECRETS["REFRESH_TOKEN_SECRET"])
        found.append(f"POST /refresh HTTP/1.1\r\nHost: localhost\r\nCookie: jwt={token}\r\n\r\n")
    return found


def measure(directory: str, database: str, rotate: str, seconds: float) -> tuple[float, float]:
    """Return the server's CPU seconds an answer, and answers a second."""
    with serving(directory, database, rotate) as (port, pid):
        job = {"port": port, "requests": requests(CONNECTIONS), "connections": CONNECTIONS, "seconds": seconds, "pids": [pid]}
        done = subprocess.run([sys.executable, str(HERE / "load.py")], input=json.dumps(job), text=True, check=True,
                              capture_output=True)  # fmt: skip
    result = json.loads(done.stdout)
    result = result if isinstance(result, dict) else dict(zip(("rate", "median", "p99", "worst", "errors", "core", "cpu"), result))
    assert not result["errors"], result
    return result["cpu"], result["rate"]


def fill(store: server.SQLiteStore | server.EtcdStore, rows: int) -> None:
    """Add the user ann, and sessions."""
    assert store.add_user("ann", server.hash_password("correct horse"), "e")
    end = int(time.time()) + 2 * DAY
    for start in range(0, rows, 1_000):
        works = [partial(store.keep, f"session/{end:014x}/{os.urandom(16).hex()}", [1, 0.0, False]) for _ in range(1_000)]
        store.batch(works)
    store.close()


def main(seconds: str = "4", rounds: str = "3", rows: str = "0") -> int:
    if why := etcdkit.why_not():
        print(f"shared: skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory() as directory, etcdkit.Cluster(1) as one, etcdkit.Cluster(3) as three:
        databases = {"SQLite": "bench.db", "one node": one.url(), "three nodes": three.url()}
        fill(server.SQLiteStore(f"{directory}/bench.db"), int(rows))
        for url in (one.url(), three.url()):
            fill(server.EtcdStore(url, *server.etcd_nodes(url)), int(rows))
        for rotate in ("off", "on"):
            found: dict[str, list[tuple[float, float]]] = {}
            for _ in range(int(rounds)):
                for name, database in databases.items():
                    found.setdefault(name, []).append(measure(directory, database, rotate, float(seconds)))
            for name, results in found.items():
                cpu, rate = (median(column) for column in zip(*results))
                ratios = [(c / c0, r / r0) for (c, r), (c0, r0) in zip(results, found["SQLite"])]
                times, share = (median(column) for column in zip(*ratios))
                print(f"rotation {rotate:4}{name:12}{cpu * 1e6:6.0f} us of CPU, {times:.2f} x SQLite's; {rate:7.0f}/s, {share:.2f} x",
                      flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
