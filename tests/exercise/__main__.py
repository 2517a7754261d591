"""Build your own minijwt:  make exercise MINE=path/to/yours.py  (or python3 tests/exercise path/to/yours.py)

Runs the vectors of the tests against your file, in the stages of stages.txt, and says what the next step asks for. After
the last required stage, the server runs on your file. Needs Python, and nothing else.

A second argument starts at that stage, and supplies what comes before it. A stage may take EXERCISE_SECONDS, by default
10. Exit status: 0 every required stage is passed, 1 there is something to do, 2 wrong use.
"""

import contextlib
import faulthandler
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import loader  # noqa: E402
from loader import OPTIONAL, OTHERS, STAGES  # noqa: E402

SHOWN = 3  # failures, beside the first
ALL_PASSED, TO_DO = 70, 71  # exit status of the child process; with any other, the student's file has ended it
CHILD = "--child"
PYTHON = "py" if os.name == "nt" else "python3"
USAGE = f"make exercise MINE=mine.py, or {PYTHON} tests/exercise mine.py; to start later, STAGE=4, or 4 at the end"
BORROWED = "That module is ready-made: every stage would pass, and you would have learned nothing."

# As in stages.txt, for every step: these come before its own hints, and those before its last, which fits always.
FIRST_HINTS = [
    "still running => Which loop has no end, or which work grows without bound?",
    f"halted => {BORROWED}",
    "raised SystemExit => A library returns or raises. When to end is for the program that uses it.",
    r"raised TypeError: \w+\(\) (takes|got|missing) => Compare your `def` with the text after Build: the same names, in the"
    " same order, with the same defaults.",
    "raised (NameError|UnboundLocalError|AttributeError: module) => Python does not know this name here. Is it spelt as"
    " where it is defined, or imported at the top of your file?",
    r"returned None\nbut should return (?!None) => Your function came to its end without a `return`.",
    r"returned '.*\nbut should return b => That is a str, and bytes are asked for.",
    "raised InvalidTokenError\nbut should raise (?!InvalidTokenError) => Refused, and rightly, but by the parent of all these"
    " errors: a caller cannot tell what to do next. Which class does Build name?",
    "no child of => The parent goes in the parentheses: `class Child(Parent): pass`, below its parent.",
]
LAST_HINTS = [
    r"raised TypeError: (a bytes-like object is required, not 'str'|can't concat|can only concat|must be str, not bytes)"
    ' => bytes and str do not mix. A literal of bytes has a b before it: b"=".',
    r"raised (Invalid|Expired|Immature|Missing|Decode)\w*\nbut should raise => Refused, and rightly, but by another name: a"
    " caller decides by the class of the error what to do next. Which rule is broken, and which class does Build name?",
]


# ---- Telling ----------------------------------------------------------------------------------------------


def say(label, text, indent=9):
    hang = " " * indent
    print(textwrap.fill(text, 118, initial_indent=f"{label:9}", subsequent_indent=hang, break_on_hyphens=False))


def hint_for(symptoms, step):
    """Return the first hint whose pattern is found in the symptoms of a failure."""
    *own, otherwise = step["hint"]
    pairs = [hint.partition("=> ")[::2] for hint in [*FIRST_HINTS, *own, *LAST_HINTS, otherwise]]
    return next(hint for pattern, hint in pairs if re.search(pattern.strip(), symptoms, re.DOTALL))


def answer(number):
    """Tell the answer to the question of a stage that is passed."""
    print()
    say("Answer", f"of stage {number}: {STAGES[number - 1]['answer']}")


def report(number, start, found):
    """Say what the stage asks for, which of it holds, and what is next: the first step without a tick."""
    stage = STAGES[number - 1]
    if number > start:
        answer(number - 1)
    of = f"of {OPTIONAL - 1}" if number < OPTIONAL else "(optional)"
    print(f"\nStage {number} {of}: {stage['title']}\n")
    say("Predict", stage["predict"])
    say("Read", stage["read"])
    print()
    for at, step in enumerate(stage["steps"]):
        say("" if at else "Build", f"[{'x' if found.ticks[at] else ' '}] {step['build']}", indent=13)
    at = found.ticks.index(False)
    step, failures, missing = stage["steps"][at], found.failures[at], found.missing(stage["steps"][at])
    print()
    if missing:
        return say("Next", step["start"] or f"Your file has no {missing[0]}.")
    print(
        f"{found.passed:,} checks of this stage pass. The first step without a tick has {len(failures):,} that fail; the first:"
    )
    print("\n  " + "\n    ".join(failures[0].lines) + "\n")
    say("Hint", hint_for(failures[0].symptoms, step))
    others = failures[1:][:: len(failures) // SHOWN or 1][:SHOWN]
    if others:
        print("\nOthers that fail:\n")
    for (name, call, *_), _ in others:
        print(f"  {name if call.startswith(('decode', 'split')) else call}"[:118])
    print()


# ---- Running it, in a child process that the student's file may bring down --------------------------------


@contextlib.contextmanager
def watched(seconds, give_up):
    """Catch what is printed. When the time is up, call `give_up` with the frame that runs, and end the process."""
    lock, main = threading.Lock(), threading.get_ident()

    def end():
        with lock:
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            give_up(sys._current_frames()[main])
            leave(TO_DO)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    printed = io.StringIO()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        # A loop within C lets no thread run but this one, which is written in C too.
        faulthandler.dump_traceback_later(2 * seconds, exit=True, file=nowhere)
        timer.start()
        try:
            yield printed
        finally:
            lock.acquire()
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()


def leave(status):
    """End the process, whatever threads and exit handlers the student's file has left behind."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)


def exercise(path, start, seconds):
    """Run the stages from `start` up to the first that is not passed; return ALL_PASSED or TO_DO."""
    import trial  # makes thousands of tokens

    def not_loaded(lines):
        print("\nIt cannot be loaded yet: it", *lines, sep="\n  ")

    try:
        with watched(seconds, lambda frame: not_loaded([trial.TIME_IS_UP, *trial.where(frame, str(path))])):
            module = loader.load(path, start)
    except BaseException as error:
        not_loaded(trial.blame(error, str(path)))
        if isinstance(error, ImportError) and str(error.name).partition(".")[0] in OTHERS:
            print("\n" + BORROWED)
        return TO_DO
    for number in range(start, max(start + 1, OPTIONAL)):
        found = trial.Trial(STAGES[number - 1], module, str(path))

        def give_up(frame, number=number, found=found):
            found.time_is_up(frame)
            report(number, start, found)

        with watched(seconds, give_up) as printed:
            found.run()
        if not all(found.ticks):
            report(number, start, found)
            for line in printed.getvalue().splitlines()[-3:]:
                say("", f"Your file has printed {trial.shown(line)}")
            return TO_DO
        print(f"  {number} {STAGES[number - 1]['title']:13} passed ({found.passed:,})")
    answer(number)
    return ALL_PASSED


def quoted(name):
    return subprocess.list2cmdline([name]) if os.name == "nt" else shlex.quote(name)


def command(name, start):
    """Return what to type to run this again."""
    if "MAKELEVEL" in os.environ:
        return f"make exercise MINE={quoted(name)}" + f" STAGE={start}" * (start > 1)
    return f"{PYTHON} {quoted(sys.argv[0])} {quoted(name)}" + f" {start}" * (start > 1)


def congratulate(name, start):
    serve = f"{PYTHON} {quoted(os.path.join(sys.argv[0], 'serve.py'))} {quoted(name)}" + f" {start}" * (start > 1)
    print("\nA login server trusts your file, and two forgers got nothing from it.\n")
    say("See it", f"{serve}   and then open http://localhost:8000 in a browser")
    say("Compare", "rooms 2 to 8 of minijwt.py with your file")
    if start == 1:
        say("More", f"the last stage is optional, JSON and keys to the letter: {command(name, OPTIONAL)}")


def wrong_use(sentence):
    print(f"exercise: {sentence}: {USAGE}", file=sys.stderr)
    return 2


def main(argv):
    """Run the exercise for the file that `argv` names; return the exit status."""
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    seconds = float(os.environ.get("EXERCISE_SECONDS", 10))
    if argv[:1] == [CHILD]:
        sys.stdin = io.StringIO()
        leave(exercise(Path(argv[1]), int(argv[2]), seconds))
    name, stage = argv[0] if argv else "", argv[1] if argv[1:] else "1"
    path = Path(os.path.expanduser(name)).resolve()
    if not name:
        return wrong_use("which file is yours? An empty one will do")
    if not path.is_file():
        return wrong_use(f"{ascii(name)} is not a file, and an empty one will do")
    if stage not in map(str, range(1, OPTIONAL + 1)) or len(argv) > 2:
        return wrong_use(f"there is no stage {ascii(' '.join(argv[1:]))}: they are 1 to {OPTIONAL}")
    start = int(stage)
    print(f"Build your own minijwt: {path.name}")
    if 1 < start < OPTIONAL:
        print("\nSupplied, for your file to use without an import:\n")
        for call in loader.supplied_to(start):
            print(f"  {call}")
    status = subprocess.run([sys.executable, str(HERE), CHILD, str(path), stage]).returncode
    if status == ALL_PASSED and start == OPTIONAL:
        print("\nTo the letter: your file refuses what minijwt refuses, and reads the rest.")
        return 0
    if status == ALL_PASSED:
        import finish  # and the server

        if finish.perform(path, start):
            congratulate(name, start)
            return 0
    if status not in (ALL_PASSED, TO_DO):
        print(f"\nYour file has ended the process, or was still running after {2 * seconds:g} seconds.")
    say("Again", command(name, start))
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as with `| head`
        leave(1)
