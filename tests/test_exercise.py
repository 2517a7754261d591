"""Build your own: the exercise leads from an empty file to the last stage, survives any module, gives nothing away."""

import base64
import hmac
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from exercise.__main__ import STAGES
from vectors import OTHER_KEY, VECTORS, Vector, outcome, token

TOP = Path(__file__).resolve().parent.parent
MINIJWT = (TOP / "minijwt.py").read_text("utf-8")


def run(*arguments, seconds=5, cwd=TOP):
    """Return its exit status, what it says (line ends as spaces), and what it complains of."""
    command = [sys.executable, str(TOP / "tests" / "exercise"), *map(str, arguments)]
    environment = {**os.environ, "EXERCISE_SECONDS": str(seconds)}
    environment.pop("MAKELEVEL", None)  # of `make test`: it is not make that calls here
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8")
    return done.returncode, " ".join(done.stdout.split()), done.stderr


@pytest.fixture
def say(tmp_path):
    def said_of(source, **limit):
        (tmp_path / "a dir").mkdir()
        (tmp_path / "a dir" / "json.py").write_text("raise SystemExit")  # and this must not be in the way
        (tmp_path / "a dir" / "minijwt.py").write_text(source, "utf-8")  # its name must not matter
        status, said, complaint = run("a dir/minijwt.py", cwd=tmp_path, **limit)
        assert (status, complaint) == (1 if said.endswith("exercise 'a dir/minijwt.py'") else 0, "")
        assert ("Every stage" in said) is not bool(status)
        return said

    return said_of


@pytest.mark.parametrize("checks", ["read_options(options)", "read_options(1 / 0 if options else None)"])
def test_minijwt_passes_every_stage_and_needs_no_options_for_it(say, checks):
    said = say(MINIJWT.replace("read_options(options)", checks))
    passed = re.findall(r" \d (\w+) passed \([\d,]+\)\. The answer: (.*?)(?= \d \w+ passed| Every)", said)
    assert passed == [(stage["title"][0], stage["answer"][0]) for stage in STAGES]


def test_every_vector_is_asked_for_and_every_test_is_there():
    tests = {name for stage in STAGES for name in stage["test"]}
    sources = {path.stem: path.read_text("utf-8") for path in (TOP / "tests").rglob("*.py")}
    assert all(
        re.search(rf"^(def )?{name.partition('.')[2]}\b", sources[name.partition(".")[0]], re.M) for name in tests
    )
    groups = {}
    for file, source in sources.items():
        for group, name in re.findall(r'\*\*of\("(\w+)"\)\)\n(?:@.*\n)*def (\w+)', source):
            groups[group] = f"{file}.{name}"
    assert set(groups) == {vector.group for vector in VECTORS} and set(groups.values()) <= tests


def test_an_empty_module_gets_a_first_step_and_a_question_without_its_answer(say):
    said, first = say(""), STAGES[0]
    assert all(text in said for text in [*first["predict"], *first["start"], *first["read"]])
    assert all(f"[ ] {text}" in said for text in first["build"])
    assert first["answer"][0] not in said and "Hint" not in said and "Stage 2" not in said


def test_a_half_built_module_hears_what_is_passed_and_what_comes_next(say):
    said = say(MINIJWT[: MINIJWT.index("# ---- 5. Header")])
    assert all(f"The answer: {stage['answer'][0]} " in said for stage in STAGES[:3])
    assert f"Stage 4 of 7: encode Predict {STAGES[3]['predict'][0]} Build [ ] encode(" in said
    assert f"Next {STAGES[3]['start'][0]}" in said and STAGES[3]["answer"][0] not in said


def test_a_stage_that_is_not_begun_fails_nothing_yet(say):
    said = say(re.sub("Invalid(Algorithm|Key)Error", r"\1Mistake", MINIJWT))
    assert "6 claims passed" in said and f"Next {STAGES[6]['start'][0]}" in said


def test_a_function_that_is_not_there_yet_fails_nothing(say):
    said = say("from base64 import *\ndef base64url_encode(raw): return urlsafe_b64encode(raw).strip(b'=')")
    assert "[x] base64url_encode(" in said and "Next So far so good. Define DecodeError." in said


COMPARISON = "not hmac.compare_digest(sign(signing_input, key), signature_segment)"
READ_EARLY = "read_json(base64url_decode(payload_segment), 'payload')\n    # 3. Only"
WRONG = {  # what is broken in minijwt.py, and how; what is said of it, and the hint
    "lenient": ("base64url_encode(raw) != segment", "False", "spelling: padding, payload", "skips what it does not"),
    "any to sign": ("algorithm != ALGORITHM", "False", "no other algorithm is implemented", "must hear no"),
    "==": (COMPARISON, "sign(signing_input, key) != signature_segment", "constant time", "stops at the first byte"),
    "early": ("# 3. Only", READ_EARLY, "forged, no JSON", "before the signature was checked"),
    "any": ('header.get("alg") != ALGORITHM or', "", "should raise InvalidAlgorithmError", "would have done anyway"),
}


@pytest.mark.parametrize("right, wrong, shown, hint", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_shown_with_a_hint(say, right, wrong, shown, hint):
    assert right in MINIJWT
    failures, _, hints = say(MINIJWT.replace(right, wrong, 1)).partition("The first of them:")[2].partition("Hint")
    assert shown in failures and hint in hints


STUB = "def base64url_encode(raw):\n    "
HOSTILE = {  # a module; what is said of it
    "while True: pass": "was still running when the time was up line 1, in <module>: while True: pass",
    "import collections, itertools\ncollections.deque(itertools.count(), 0)": "was still running after 0.6 seconds",
    "import os\nos._exit(0)": "has ended the process",
    "import sys\nsys.exit()": "cannot be loaded yet: it raised SystemExit",
    STUB + "print('hello')\n    raise SystemExit": "printed 'hello'",
    "def (": "raised SyntaxError: ",
    "\n\nimport jwt": "line 3, in <module>: import jwt That module is somebody else's answer",
    STUB + "import minijwt": "Hint That module is somebody else's answer",
}


@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_no_module_is_too_much_for_it(say, source):
    assert HOSTILE[source] in say(source, seconds=5 if source.startswith(STUB) else 0.3)


@pytest.mark.parametrize("arguments", [[], [""], ["no such file.py"], [TOP]])
def test_without_a_file_it_says_one_sentence(arguments):
    status, said, complaint = run(*arguments)
    assert (status, said) == (2, "") and complaint.startswith("exercise: ") and complaint.count("\n") == 1


def test_every_answer_is_true():
    for stage in STAGES[:4]:
        value = eval(re.search("`(.*)`", stage["predict"][0])[1], {"base64": base64, "hmac": hmac, "json": json})
        assert stage["answer"][0].startswith(f"{value!r}. ")
    bomb, late = token("[" * 40_000, key=OTHER_KEY), token('{"exp":2000000000}')
    unsigned = token(header='{"alg":"none"}').rpartition(".")[0] + "."
    for stage, bad in zip(STAGES[4:], [bomb, late, unsigned]):
        assert stage["answer"][0].startswith(outcome(Vector("", "", "", bad, {}, None)).__name__ + ". ")


def test_there_is_a_hint_for_each_failure_and_none_is_code_of_minijwt():
    lines = [line.strip() for line in MINIJWT.splitlines() if len(line.strip()) > 12]
    for stage in STAGES:
        assert stage["hint"][-1].startswith("=> ")
        assert not [line for line in lines for hint in stage["hint"] if line in hint]
