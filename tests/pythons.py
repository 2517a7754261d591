"""Run the tests on every Python there is:  python3 tests/pythons.py [--ends]

Looks on the PATH and among pyenv's versions for CPython and PyPy, 3.9 or newer, and runs `make test` on each, with a
virtual environment of its own in dist/. `--ends` takes only the oldest and the newest CPython. Each one found is named,
with what became of it; the exit status is 1 if a test failed, or if none could be run.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
OLDEST = (3, 9)
NAME = re.compile(r"python[23](\.[0-9]+)?|pypy3(\.[0-9]+)?")
# Python 2 can be asked like this too.
ASK = "import platform as p, sys; sys.stdout.write(p.python_implementation() + ' ' + p.python_version())"


def candidates():
    """Yield every file that may be an interpreter."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")
    for folder in folders:
        if folder.is_dir():
            yield from (file for file in sorted(folder.iterdir()) if NAME.fullmatch(file.name))


def usable():
    """Return {(implementation, version): path} of all that run, which a file of that name need not do (pyenv's shims)."""
    found = {}
    for file in candidates():
        done = subprocess.run([str(file), "-c", ASK], capture_output=True, text=True)
        if done.returncode == 0:
            found.setdefault(tuple(done.stdout.split()), file)
    return found


def interpreters():
    """Return those of `usable` that are not too old, oldest first."""
    recent = {about: file for about, file in usable().items() if numbers(about) >= OLDEST}
    return dict(sorted(recent.items(), key=lambda item: (item[0][0], numbers(item[0]))))


def numbers(about):
    """Return the version as numbers that can be compared."""
    return tuple(int(number) for number in re.findall("[0-9]+", about[1])[:3])


def run(about, file):
    """Run the tests on one interpreter; return what became of them, in words."""
    place = TOP / "dist" / "pythons" / "-".join(about)
    command = [str(file), "-m", "venv", str(place)]
    if subprocess.run([*command, "--clear"], capture_output=True).returncode:
        return "skipped: it cannot make a virtual environment"
    python = str(place / "bin" / "python")
    if subprocess.run([python, "-m", "pip", "install", "-q", "pytest"], capture_output=True).returncode:
        return "skipped: pytest cannot be installed"
    started = time.monotonic()
    command = ["make", "--no-print-directory", "test", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout[-10_000:] + done.stderr[-2_000:])
        return "FAILED"
    halves = [line.strip("= ") for line in done.stdout.splitlines() if " passed" in line]
    return f"{' and '.join(halves)} ({time.monotonic() - started:.0f} s in all)"


def main(arguments):
    found = interpreters()
    if arguments == ["--ends"]:
        usual = [about for about in found if about[0] == "CPython"]
        found = {about: found[about] for about in dict.fromkeys([*usual[:1], *usual[-1:]])}
    results = []
    for about, file in found.items():
        results.append(run(about, file))
        print(f"{' '.join(about)} ({file}): {results[-1]}", flush=True)
    return 1 if "FAILED" in results or not any(" passed" in result for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
