"""Loads stages.txt, and the student's file, which finds neither minijwt nor a library like it."""

import __future__
import hmac
import re
import sys
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent
OTHERS = ("minijwt", "jwt", "jose", "joserfc", "authlib")
OPTIONAL = 8  # the number of the stage after the last one that is required


def read_stages():
    """Return the stages of stages.txt, each a dict: "title", "predict", "answer", "read" (str) and "steps" (a list).

    A step is a dict: "needs" is a dict {name: parent of the class, or ""}, "build" and "start" are str, "check" and
    "hint" lists of str.
    """
    stages = []
    for block in (HERE / "stages.txt").read_text("utf-8").split("\n\n")[1:]:
        stage = {"steps": []}
        for line in re.sub(r"\n {8}", " ", block).splitlines():
            label, text = line[:8].strip(), line[8:]
            if label == "needs":
                needs = dict(re.findall(r"(\w+)(?:\((\w+)\))?", text))
                stage["steps"].append({"needs": needs, "start": "", "check": [], "hint": []})
            elif label in ("check", "hint"):
                stage["steps"][-1][label].append(text)
            else:
                (stage["steps"][-1] if stage["steps"] else stage)[label] = text
        stages.append(stage)
    return stages


STAGES = read_stages()


def names_from(number):
    """Return the names that the required stages from `number` on define first; none of them is supplied to it."""
    first = {}
    for at, stage in enumerate(STAGES, 1):
        for step in stage["steps"]:
            for name in step["needs"]:
                first.setdefault(name, at)
    # InvalidTokenError is the parent of minijwt's DecodeError: one is not supplied without the other.
    return {name for name, at in first.items() if at >= number} - {"InvalidTokenError"}


def supplied_to(number):
    """Return what is supplied to a start at stage `number`: functions with their parameters, and classes."""
    calls = {}
    for stage in STAGES[: number - 1]:
        for step in stage["steps"]:
            for name, parent in step["needs"].items():
                call = None if parent else re.search(rf"\b{name}\(.*?\) -> [\w ]+", step["build"])
                calls.setdefault(name, call[0] if call else name)
    return list(calls.values())


# One item for each call of hmac.compare_digest: nothing that it returns tells whether it was called.
compared = []


def load(path, start=1):
    """Return the module in `path`; from stage `start` on it is the student's, and what comes before is supplied.

    No bytecode is kept: of two saves within a second the second might not count.
    """
    compare = hmac.compare_digest
    hmac.compare_digest = lambda *pair: compared.append(pair) or compare(*pair)
    module = sys.modules["yours"] = types.ModuleType("yours")
    if 1 < start < OPTIONAL:
        supplied = HERE / "supplied.py"
        exec(compile(supplied.read_bytes(), str(supplied), "exec"), vars(module))
        for name in names_from(start):
            vars(module).pop(name, None)
    # None: an import of these is halted. What the exercise needs of minijwt, it has.
    sys.modules.update(dict.fromkeys(OTHERS))
    # At the end: a json.py beside the student's file is not in the way of the standard library's json.
    sys.path.append(str(path.parent))
    # With the flag, `key: str | bytes` is as good in Python 3.9 as later.
    code = compile(path.read_bytes(), str(path), "exec", __future__.annotations.compiler_flag, dont_inherit=True)
    exec(code, vars(module))
    return module
