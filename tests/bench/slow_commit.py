"""Run a server whose every SQLite commit takes longer, as on a disk that really writes: a spinning one, or a cloud's.

    python3 slow_commit.py SECONDS SERVER.PY
"""

from __future__ import annotations

import runpy
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any


class SlowConnection(sqlite3.Connection):
    """A connection that waits before it commits."""

    seconds = 0.0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Execute `sql`, late if it is a COMMIT."""
        if sql[:6].upper() == "COMMIT":
            time.sleep(self.seconds)
        return super().execute(sql, *parameters)

    def commit(self) -> None:
        """Commit, late."""
        time.sleep(self.seconds)
        super().commit()


def slow_connect(connect: Any, *arguments: Any, factory: Any = sqlite3.Connection, **more: Any) -> sqlite3.Connection:
    """Return a connection as `connect` would, of the class `factory`, but slow."""
    connection: sqlite3.Connection = connect(
        *arguments, factory=type(factory.__name__, (SlowConnection, factory), {}), **more
    )
    return connection


if __name__ == "__main__":
    SlowConnection.seconds, server = float(sys.argv[1]), sys.argv[2]
    sqlite3.connect = partial(slow_connect, sqlite3.connect)  # type: ignore[assignment]
    sys.argv[:] = [server]
    sys.path[0] = str(Path(server).parent)
    runpy.run_path(server, run_name="__main__")
