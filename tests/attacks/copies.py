"""A copy of the project without one line of defence: the attack is performed there, or a test is run.

The copy is a directory of its own, and what runs in it a process of its own.
"""

import contextlib
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import book
from sides import Seen

TOP = Path(__file__).resolve().parents[2]
FILES = ("minijwt.py", "server.py", "README.md", "Makefile")
PERFORM = """
import json, sys
sys.path[:0] = ["tests/attacks", "tests", "."]
import book, sides
print(json.dumps(book.perform(book.ATTACKS[int(sys.argv[1])], sides.Ours)))
"""


def split(edit):
    """Return what stands before and after the text that `edit` removes; ValueError unless it is there once."""
    before, after = (TOP / edit.file).read_text("utf-8").split(edit.old)
    return before, after


def is_there(edit):
    """Tell whether the line is there, or has been removed already by hand."""
    return edit.old in (TOP / edit.file).read_text("utf-8")


def place_of(edit):
    """Return the number of the line that `edit` removes."""
    return split(edit)[0].count("\n") + 1


def diff(edit, context):
    """Return the edit as lines that begin with - or +, between `context` lines that begin with a space."""
    before, after = split(edit)
    texts = [before + edit.old + after, before + edit.new + after]
    return list(difflib.unified_diff(*map(str.splitlines, texts), n=context, lineterm=""))[3:]


@contextlib.contextmanager
def copy(edit):
    """Make a copy of the project with `edit`; yield its directory, and remove it in the end."""
    before, after = split(edit)
    with tempfile.TemporaryDirectory(prefix="minijwt-break-") as name:
        directory = Path(name)
        shutil.copytree(TOP / "tests", directory / "tests", ignore=shutil.ignore_patterns("__pycache__", "bench"))
        for file in FILES:
            shutil.copy(TOP / file, directory)
        (directory / edit.file).write_text(before + edit.new + after, "utf-8")
        yield directory


def run(directory, *command):
    """Run a Python in a copy; return the finished process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["PYTHONIOENCODING"] = "utf-8"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    return subprocess.run(command, cwd=directory, env=clean, timeout=100, **pipes)


def perform_in(directory, attack):
    """Perform `attack` on the server of a copy."""
    done = run(directory, sys.executable, "-c", PERFORM, str(book.ATTACKS.index(attack)))
    assert done.returncode == 0, done.stdout
    return Seen(*json.loads(done.stdout.splitlines()[-1]))


def perform(attack):
    """Perform `attack` on this server without its line."""
    if not is_there(attack.edit):
        return Seen("", "", False)
    with copy(attack.edit) as directory:
        return perform_in(directory, attack)


def python_with_pytest():
    """Return this Python, or the one that `make test` has made, if it has pytest; "" if none has."""
    for python in (sys.executable, str(TOP / ".venv/bin/python")):
        with contextlib.suppress(OSError):
            if run(TOP, python, "-c", "import pytest").returncode == 0:
                return python
    return ""


def name_of(test):
    """Return the name by which pytest knows the one test that is called `test`."""
    (home,) = [path for path in (TOP / "tests").glob("test_*.py") if f"def {test}(" in path.read_text("utf-8")]
    return f"tests/{home.name}::{test}"


def run_test(directory, python, test):
    """Run one test in a copy; return whether it is red, and the lines that say so."""
    done = run(directory, python, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", test)
    lines = done.stdout.splitlines()
    return done.returncode == 1, [line for line in lines if line.startswith("FAILED")] + lines[-1:]
