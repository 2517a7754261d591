"""Makes the two files importable, wherever pytest is started from, and closes what a test has opened."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# The process that is tested is the process that people run: PYTHONUNBUFFERED, for one, hid a server that could not stop.
for name in [each for each in os.environ if each.startswith("PYTHON")]:
    del os.environ[name]
# In the background of a script SIGINT is ignored, under nohup SIGHUP, and would be by the programs that are tested. What
# a function handles here is not ignored there.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)


def pytest_runtest_setup(item):
    if item.get_closest_marker("long") and not os.environ.get("LONG"):
        pytest.skip("long: `make prove` runs it")


@pytest.fixture(autouse=True)
def no_open_store():
    yield
    stores = getattr(sys.modules.get("serverkit"), "stores", [])
    while stores:
        store = stores.pop()
        store.close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(AttributeError, OSError):
                os.unlink(store.path + suffix)


@pytest.fixture
def memory(monkeypatch):
    """For tests to which it does not matter what keeps the sessions."""
    monkeypatch.setattr(sys.modules["serverkit"], "kinds", ["memory"])


@pytest.fixture
def terminal():
    """Two ends of a terminal, ours and the program's."""
    try:
        ends = os.openpty()
    except (AttributeError, OSError):
        pytest.skip("this system has no pseudo-terminals, as a bare chroot")
    yield ends
    for end in ends:
        os.close(end)
