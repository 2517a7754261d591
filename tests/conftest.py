"""Makes the two files importable, wherever pytest is started from, and closes what a test has opened."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.fixture(autouse=True)
def no_open_store():
    yield
    stores = getattr(sys.modules.get("serverkit"), "stores", [])
    while stores:
        stores.pop().close()
