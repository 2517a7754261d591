"""Build your own minijwt:  make exercise MINE=path/to/yours.py  (or python3 tests/exercise path/to/yours.py)

Runs our own tests and vectors against your module, in the seven stages of stages.txt, and says what the next one asks
for. It needs Python and no pytest (see stand_in.py). A stage may take EXERCISE_SECONDS, by default 10; minijwt.py takes
half a second for all of them. Exit status: 0 every stage is passed, 1 there is something to do, 2 there is no such file.
"""

import contextlib
import faulthandler
import functools
import hmac
import importlib
import io
import os
import re
import shlex
import signal
import sys
import textwrap
import traceback
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import stand_in  # noqa: E402

SHOWN = 3  # failures
ALL_PASSED, TO_DO = 70, 71  # exit status of the child process; with any other it was the module that ended it
OTHERS = ["minijwt", "jwt", "jose", "joserfc", "authlib"]
BORROWED = "That module is somebody else's answer: every stage would pass, and you would have learned nothing."
HINTS = [  # as in stages.txt, for all stages
    "still running => Which loop has no end, or which work grows without bound?",
    f"halted => {BORROWED}",
    "raised SystemExit => A library returns or raises. When to end is for the program that uses it.",
]


def read_stages():
    """Yield the stages of stages.txt, each of them a dict of lists: stage["hint"] are the lines of that name."""
    for block in (HERE / "stages.txt").read_text("utf-8").split("\n\n")[1:]:
        stage = {}
        for line in re.sub(r"\n {8}", " ", block).splitlines():
            stage.setdefault(line[:8].strip(), []).append(line[8:])
        yield stage


STAGES = list(read_stages())

# ---- Running it, in a child process that the module may well bring down -----------------------------------


class TimeIsUp(BaseException):
    """No Exception, so that hardly any `except` takes it for the fault of a token."""


@contextlib.contextmanager
def bounded(seconds):
    """Catch what is printed, and stop what takes longer."""

    def stop(*_):
        raise TimeIsUp

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    printed = io.StringIO()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        faulthandler.dump_traceback_later(2 * seconds, exit=True, file=nowhere)  # a loop within C hears no signal
        try:
            yield printed
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()


def load(path):
    """Return the module in `path`. Bytecode is not kept: of two saves in one second the second might not count."""
    sys.modules.update(dict.fromkeys(OTHERS))  # None: whoever imports it is halted
    sys.path.append(str(path.parent))  # at the end: a json.py beside yours is nobody else's json
    hmac.compare_digest = functools.partial(stand_in.counted, hmac.compare_digest)
    module = sys.modules["yours"] = types.ModuleType("yours")
    exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    return module


def run(stage, path, printed):
    """Return how many checks of a stage pass, and the failures, each of them a list of lines."""
    passed, failures = 0, []
    for file, _, function in [name.partition(".") for name in stage["test"]]:
        test = getattr(sys.modules[file], function)
        for case in getattr(test, "cases", [{}]):
            if "vector" in case and "options" in case["vector"].arguments:
                continue  # PyJWT's options are no part of this
            vars(stand_in.seen).update(calls=[], awaited=None, compared=0)
            printed.seek(printed.truncate(0))
            try:
                test(**case)
                passed += 1
            except stand_in.NotYet:
                pass
            except BaseException as error:
                failures.append(failure(function[5:].replace("_", " "), case, error, str(path)))
                failures[-1] += [f"printed {shown(line)}" for line in printed.getvalue().splitlines()[-3:]]
                if isinstance(error, TimeIsUp):
                    return passed, failures
    return passed, failures


# ---- Saying what came of it -------------------------------------------------------------------------------


def shown(value):
    try:
        text = "KEY" if value is sys.modules["vectors"].KEY else ascii(value)
    except Exception:  # too deep, too many digits, or a __repr__ that fails
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 140 else f"{text[:80]} … {text[-20:]} ({len(text):,} characters)"


def blame(error, path):
    """Return what was raised, and the innermost lines of the student's file on its way."""
    *syntax, said = traceback.format_exception_only(type(error), error)
    said = "raised " + ascii(said.strip())[1:-1][:140].replace("yours.", "", 1)
    if isinstance(error, TimeIsUp):
        said = "was still running when the time was up"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    lines = [f"  line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-3:]]
    return [said, *lines, *map(str.rstrip, syntax)]


def failure(claim, case, error, path):
    """Return the lines that tell how a check failed, its name first."""
    vector = case.get("vector")
    expected = vector.expected if vector else stand_in.seen.awaited
    lines = [f"{claim}: {vector.name} ({vector.section})" if vector else claim]
    calls = stand_in.seen.calls
    if len(calls) > 1 and not any(value is calls[0].returned for value in calls[1].arguments):
        calls = calls[1:]  # the one before matters only if it was for this one
    for call in calls:
        given = [*map(shown, call.arguments), *(f"{name}={shown(value)}" for name, value in call.named.items())]
        lines.append(f"{call.name}({', '.join(given)})")
        lines += blame(call.raised, path) if call.raised else [f"returned {shown(call.returned)}"]
    if isinstance(expected, type):
        return [*lines, f"but should raise {expected.__name__}"]
    if vector:
        return [*lines, f"but should return {shown(expected)}"]
    frames = traceback.extract_tb(error.__traceback__)[1:]  # below run(), the first is our test
    return [*lines, f"but our test says: {frames[0].line}", *(f"  {name} = {shown(it)}" for name, it in case.items())]


def say(label, text, indent=9):
    hang = " " * indent
    print(textwrap.fill(text, 118, initial_indent=f"{label:9}", subsequent_indent=hang, break_on_hyphens=False))


def report(number, stage, there, passed, failures):
    """Say what the stage asks for, what is `there` of it, and what is next; `failures` is None if it is not begun."""
    print(f"\nStage {number} of {len(STAGES)}: {stage['title'][0]}\n")
    say("Predict", stage["predict"][0])
    for label, name, text in zip(["Build"] + [""] * 9, there, stage["build"]):
        say(label, f"[{'x' if there[name] else ' '}] {text}", indent=13)
    say("Read", stage["read"][0])
    print()
    missing = [name for name in there if not there[name]]
    if not failures:
        return say("Next", stage["start"][0] if failures is None else f"So far so good. Define {missing[0]}.")
    print(f"{passed} checks pass, {len(failures)} fail. The first of them:")
    for name, *lines in failures[:SHOWN]:
        print(f"\n  {name}", *lines, sep="\n    ")
    text = "\n".join(line for line in failures[0] if line[0] != " ")  # without the student's own lines
    hints = HINTS + [f"{name} => Your module has no {name} yet." for name in missing] + stage["hint"]
    print()
    pairs = [hint.partition("=> ")[::2] for hint in hints]
    say("Hint", next(hint for pattern, hint in pairs if re.search(pattern.strip(), text)))


def exercise(path, seconds):
    """Run the stages up to the first that is not passed; return ALL_PASSED or TO_DO."""
    try:
        with bounded(seconds):
            yours = load(path)
    except BaseException as error:
        print("\nIt cannot be loaded yet: it", *blame(error, str(path)), sep="\n  ")
        if isinstance(error, ImportError) and str(error.name).partition(".")[0] in OTHERS:
            print("\n" + BORROWED)
        return TO_DO
    sys.modules.update(pytest=stand_in, minijwt=stand_in.Minijwt(yours))
    for name in [name for stage in STAGES for name in stage["test"]]:
        importlib.import_module(name.partition(".")[0])
    sys.modules["minijwt"] = None  # who imports it from here on is the student
    known = set()
    for number, stage in enumerate(STAGES, 1):
        names = [re.match(r"(?:class )?(\w+)", definition)[1] for definition in stage["build"]]
        there = {name: name in vars(yours) for name in names}
        with bounded(seconds) as printed:
            passed, failures = run(stage, path, printed)
        if failures or not all(there.values()):
            begun = any(there[name] for name in set(names) - known)
            report(number, stage, there, passed, failures if begun else None)
            return TO_DO
        print(f"  {number} {stage['title'][0]:9}  passed ({passed:,}). The answer: {stage['answer'][0]}")
        known.update(names)
    print("\nEvery stage: yours refuses what ours refuses, and reads the rest. Now read rooms 2 to 8 of minijwt.py.")
    return ALL_PASSED


def main(argv):
    """Run the exercise for the file that `argv` names; return the exit status."""
    name, seconds = " ".join(argv), float(os.environ.get("EXERCISE_SECONDS", 10))
    path = Path(os.path.expanduser(name)).resolve()
    if not name or not path.is_file():
        what = f"{ascii(name)} is not a file, and an empty one will do" if name else "which file is yours, be it an empty one"
        print(f"exercise: {what}: make exercise MINE=path/to/yours.py", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"Build your own minijwt: {path.name}")
    child = os.fork()
    if not child:
        sys.stdin = io.StringIO()
        with contextlib.suppress(TimeIsUp):  # which may come between two checks
            os._exit(exercise(path, seconds))  # whatever threads the module leaves behind
        os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == ALL_PASSED:
        return 0
    if status != TO_DO:
        print(f"\nYour module has ended the process, or was still running after {2 * seconds:g} seconds.")
    command = "make exercise MINE=" if "MAKELEVEL" in os.environ else f"python3 {sys.argv[0]} "
    print(f"Again    {command}{shlex.quote(name)}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
