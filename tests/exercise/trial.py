"""Tries the steps of one stage on the student's module, and says what happened. Knows no process and prints nothing."""

import builtins
import traceback
from typing import NamedTuple

import checks
import loader

import minijwt

WITHOUT = "without hmac.compare_digest"
TIME_IS_UP = "was still running when the time was up"


class Failure(NamedTuple):
    """A check that failed: its lines for the student, the name first; `symptoms` is what the hints are looked up by."""

    lines: list
    symptoms: str


def shown(value):
    try:
        text = ascii(value)
    except Exception:  # too deep, too many digits, or a __repr__ that fails
        text = f"<{type(value).__name__}>"
    if value is checks.KEY or value is checks.RAW_KEY:
        text = "KEY" if value is checks.KEY else "KEY.encode()"
    return text if len(text) <= 160 else f"{text[:110]} ... {text[-20:]} ({len(text):,} characters)"


def blame(error, path):
    """Return what was raised, and the innermost lines of the student's file on its way."""
    *syntax, said = traceback.format_exception_only(type(error), error)
    said = "raised " + ascii(said.strip())[1:-1][:160].replace("yours.", "", 1)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return [said, *places(frames), *map(str.rstrip, syntax)]


def places(frames):
    return [f"  line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-3:]]


def where(frame, path):
    """Return the innermost lines of the student's file that run in `frame`."""
    return places([frame for frame in traceback.extract_stack(frame) if frame.filename == path])


def contents(token):
    """Yield what stands in the header and the payload of a token that is handed to decode."""
    legible = isinstance(token, (str, bytes)) and token.isascii() and len(token) < 2_000
    text = checks.vectors.to_bytes(token) if legible else b""
    for name, segment in zip(("header", "payload"), text.split(b".")[:2]):
        try:
            yield f"  its {name}: {shown(checks.raw_of(segment).decode())[1:-1]}"
        except ValueError:
            yield f"  its {name} is no base64url of a text"


class Trial:
    """The steps of a stage: how many checks pass, which steps are ticked, and the failures of each."""

    def __init__(self, stage, module, path):
        self.steps, self.module, self.path = stage["steps"], vars(module), path
        self.ticks, self.failures = [False] * len(self.steps), [[] for _ in self.steps]
        self.passed, self.at, self.check = 0, 0, None

    def missing(self, step):
        return [name for name in step["needs"] if not callable(self.module.get(name))]

    def run(self):
        """Try every step of which nothing is missing. It is ticked if all its checks pass."""
        for self.at, step in enumerate(self.steps):
            if self.missing(step):
                continue
            failures = self.failures[self.at]
            for name, parent in step["needs"].items():
                if parent and not self.is_child(self.module[name], parent):
                    said = f"the class {name} is no child of {parent}"
                    failures.append(Failure([f"class {name}({parent})", said], said))
            for table in step["check"]:
                for self.check in getattr(checks, table)():
                    failure = self.failure()
                    if failure:
                        failures.append(failure)
                    else:
                        self.passed += 1
            self.ticks[self.at] = not failures

    def is_child(self, thing, parent):
        parent = self.module.get(parent) or getattr(builtins, parent, None)
        return isinstance(thing, type) and isinstance(parent, type) and issubclass(thing, parent)

    def failure(self):
        """Make the call of the check; return what is wrong with what came of it, or None."""
        check = self.check
        loader.compared.clear()
        try:
            returned = self.module[check.call](*check.arguments, **check.named)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self.is_expected(type(error)):
                return None
            said, *lines = blame(error, self.path)
            # The words of a message are the student's own, unless the error is Python's.
            own = type(error).__module__ == "yours" or isinstance(error, minijwt.PyJWTError)
            return self.failed(said.partition(":")[0] if own else said, said, *lines)
        said, value = [f"returned {shown(returned)}"], returned
        if check.read:
            try:
                value = check.read(returned)
                said.append(f"  which reads as {shown(value)}")
            except Exception as error:
                return self.failed(said[0], *said, f"  which cannot be read: {type(error).__name__}")
        if check.call == "encode" and isinstance(value, str) and isinstance(check.expected, str):
            parts = zip(("header", "payload", "signature"), value.split("."), check.expected.split("."))
            said += [f"  which differs in its {name}" for name, ours, right in parts if ours != right][:1]
        right = type(value) is dict
        if check.expected is not checks.ANY:
            right = type(value) is type(check.expected) and value == check.expected
        if right and check.compared and not loader.compared:
            return self.failed(said[0], *said, WITHOUT)
        return None if right else self.failed("\n".join(said), *said)

    def is_expected(self, raised):
        expected = minijwt.InvalidTokenError if self.check.expected is checks.ANY else self.check.expected
        if not isinstance(expected, type):
            return False
        wanted = self.module.get(expected.__name__) or getattr(builtins, expected.__name__, None)
        if expected is minijwt.InvalidTokenError:
            return isinstance(wanted, type) and issubclass(raised, wanted)
        return raised is wanted

    def failed(self, happened, *lines):
        """Return the failure of the check, of which `happened` is a symptom, and `lines` are told."""
        check = self.check
        given = [*map(shown, check.arguments), *(f"{name}={shown(value)}" for name, value in check.named.items())]
        call = f"{check.call}({', '.join(given)})"
        told = [check.name, call, *(contents(check.arguments[0]) if check.call == "decode" else ()), *lines]
        if isinstance(check.expected, type):
            should = f"but should raise {check.expected.__name__}"
        elif check.expected is checks.ANY:
            should = f"but should come to {checks.ANY}"
        elif lines[-1] == WITHOUT:
            should = "but should compare with it"
        else:
            should = f"but should return {'what reads as ' if check.read else ''}{shown(check.expected)}"
        return Failure([*told, should], "\n".join([check.name, str(check.named), happened, should]))

    def time_is_up(self, frame):
        """Put what is running now, of which `frame` is the innermost, among the failures."""
        self.failures[self.at].insert(0, self.failed(TIME_IS_UP, TIME_IS_UP, *where(frame, self.path)))
