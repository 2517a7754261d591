"""Build your own: the exercise leads from an empty file to a server that runs on it, survives any file, and its hints fit."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serverkit import LONG, TOP
from vectors import VECTORS

EXERCISE = TOP / "tests" / "exercise"
PUPIL = (TOP / "tests" / "data" / "pupil.py").read_text("utf-8")
POORER = (TOP / "tests" / "data" / "poorer.py").read_text("utf-8")


def run(*arguments, seconds=20, cwd=TOP, **environment):
    """Return its exit status, what it says (line ends as spaces), and what it complains of."""
    command = [sys.executable, str(EXERCISE), *map(str, arguments)]
    environment = {**os.environ, "EXERCISE_SECONDS": str(seconds), **environment}
    environment.pop("MAKELEVEL", None)  # of `make test`: it is not make that calls here
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=100)
    return done.returncode, " ".join(done.stdout.split()), done.stderr


@pytest.fixture
def say(tmp_path):
    """Run the exercise for a file with this source; return what it says."""

    def said_of(source, stage="", **options):
        folder = tmp_path / "a dir"
        folder.mkdir(exist_ok=True)
        (folder / "json.py").write_text("raise SystemExit")  # and this must not be in the way
        (folder / "minijwt.py").write_text(source, "utf-8")  # its name must not matter
        status, said, complaint = run("a dir/minijwt.py", *[stage][: bool(stage)], cwd=tmp_path, **options)
        again = re.search(r"Again python3 \S+/exercise 'a dir/minijwt.py'( \d)?$", said)
        assert (status, complaint) == (1 if again else 0, "")
        return said

    return said_of


def stages():
    """Return what stages.txt says, read with nothing but its own rules."""
    return [
        [(line[:8].strip(), line[8:]) for line in re.sub(r"\n {8}", " ", block).splitlines()]
        for block in (EXERCISE / "stages.txt").read_text("utf-8").split("\n\n")[1:]
    ]


def told(stage, name):
    return [text for label, text in stage if label == name]


STAGES = stages()


# ---- From an empty file to the finish line ----------------------------------------------------------------


def test_an_empty_file_gets_a_first_step_and_a_question_without_its_answer(say):
    said, first = say(""), STAGES[0]
    assert all(text in said for label in ("predict", "read") for text in told(first, label))
    assert all(f"[ ] {text}" in said for text in told(first, "build"))
    assert f"Next {told(first, 'start')[0]}" in said
    assert told(first, "answer")[0] not in said and "Hint" not in said and "Stage 2" not in said


FINISH = [  # what is asked for, the status that comes back, the function that is to blame for it, what it did
    ("POST /login", "200", "encode", "signed a token with username, iat, exp"),
    ("GET /me", "200", "decode", "believed a token with username, iat, exp"),
    ("GET /me", "401", "check_signature", "raised InvalidSignatureError"),
    ("GET /me", "401", "check_header", "raised InvalidAlgorithmError"),
    ("POST /refresh", "200", "encode", "signed a token with username, iat, exp"),
]


def assert_finished(said):
    at = 0
    for request, status, function, did in FINISH:
        for part in (f"> {request} ", f"< {status} ", f": {function} {did}"):
            assert part in said[at:], said
            at = said.index(part, at)
    assert "NOT AS" not in said and "two forgers got nothing" in said[at:]


def test_after_the_last_stage_the_server_runs_on_the_file_and_logs_in(say):
    said = say(PUPIL)
    passed = re.findall(r" \d ([a-zA-Z0-9]+) passed \([\d,]+\)", said)
    assert passed == [told(stage, "title")[0] for stage in STAGES[:7]]
    assert_finished(said)
    assert "line %d: encode" % (PUPIL[: PUPIL.index("def encode")].count("\n") + 1) in said


def test_a_file_that_the_server_cannot_use_does_not_reach_the_finish_line(say):
    spoilt = PUPIL.replace("    return claims\n", "    return claims if 'epoch' not in claims else 1 / 0\n")
    said = say(spoilt)
    assert "NOT AS IT SHOULD BE: the status should be 200." in said and "two forgers" not in said


@pytest.mark.parametrize("stage", [2, 5, 7])
def test_a_later_stage_starts_with_what_came_before_it(say, stage):
    said = say("", stage)
    assert "without an import: base64url_encode(raw: bytes) -> bytes DecodeError base64url_decode(" in said
    assert f"Stage {stage} of 7" in said and "Hint" not in said
    assert any(f"Next {start}" in said for start in told(STAGES[stage - 1], "start"))


@pytest.mark.parametrize("stage", [3, 6, 7] if LONG else [6])
def test_a_later_start_needs_only_the_names_from_there_on(say, stage):
    """And `decode`, which is supplied to stages 6 and 7, calls what is written there."""
    supplied = set(re.findall(r"\w+", " ".join(text for each in STAGES[: stage - 1] for text in told(each, "needs"))))
    supplied = supplied - {"key_bytes"} | {"InvalidTokenError"}
    kept = [
        ast.get_source_segment(PUPIL, node)
        for node in ast.parse(PUPIL).body
        if getattr(node, "name", None) not in supplied
    ]
    said = say("\n".join(kept), stage)
    assert f"{stage} {told(STAGES[stage - 1], 'title')[0]} passed" in said and " 1 base64url" not in said
    assert_finished(said)


REAL = """from real import *
import real
from real import base64url_encode, base64url_decode, json_bytes, key_bytes, split, sign, check_signature

def read_json(raw): return real.read_json(raw, "token")
def check_claims(claims, now=None, leeway=0, audience=None, issuer=None, subject=None):
    now = real.time.time() if now is None else now
    real.check_claims(claims, real.Expected(now, leeway, audience, issuer, subject))
def check_header(header, algorithms):
    real.check_header(header)
    real.check_algorithm(header, algorithms)
"""


@pytest.mark.parametrize("stage", ["", 8])
def test_minijwt_passes_every_stage_and_the_optional_one(say, tmp_path, stage):
    (tmp_path / "a dir").mkdir()
    shutil.copy(TOP / "minijwt.py", tmp_path / "a dir" / "real.py")
    said = say(REAL, stage)
    assert "To the letter: your file refuses what minijwt refuses" in said if stage else "two forgers" in said


@pytest.mark.long
def test_a_pupil_who_has_finished_may_go_on_to_the_letter(say):
    said = say(PUPIL, 8)
    assert "Stage 8 (optional): to the letter" in said and 'read_json(b\'{"sub":"admin","a":1e309}\')' in said
    assert "STAGE=8" not in said and say(PUPIL).endswith("exercise 'a dir/minijwt.py' 8")


# ---- A tick, and a hint -----------------------------------------------------------------------------------


def test_a_tick_says_that_the_rules_hold_and_not_that_a_name_is_there(say):
    said = say("def base64url_encode(raw): pass\nclass DecodeError: pass\ndef base64url_decode(segment): pass\n")
    assert "[x]" not in said and said.count("[ ]") == 3
    said = say("from base64 import *\ndef base64url_encode(raw): return urlsafe_b64encode(raw).strip(b'=')")
    assert "[x] base64url_encode(" in said and said.count("[ ]") == 2 and f"Next {told(STAGES[0], 'start')[1]}" in said


TRY = """
import contextlib, io, json, pathlib, runpy, sys
sys.path.insert(0, sys.argv[1])
tell = runpy.run_path(sys.argv[1] + "/__main__.py", run_name="exercise")
import loader, trial
path, answers = pathlib.Path(sys.argv[2]), []
for number, source in json.load(sys.stdin):
    path.write_text(source, "utf-8")
    stage = loader.STAGES[number - 1]
    found = trial.Trial(stage, loader.load(path), str(path))
    with contextlib.redirect_stdout(io.StringIO()):
        found.run()
    answers.append("no failure")
    if not all(found.ticks):
        at = found.ticks.index(False)
        failure = found.failures[at][0]
        answers[-1] = tell["hint_for"](failure.symptoms, stage["steps"][at])
print(json.dumps(answers))
"""
COMPARISON = "not hmac.compare_digest(sign(signing_input, key), signature_segment)"
CHECK = "    check_signature(signing_input, signature, key_bytes(key))\n"
CLAIMS = "    claims = read_json(base64url_decode(payload))\n"
AUDIENCE = "any(name in named for name in wanted)"
WRONG = [  # a line of the pupil's answer, what a pupil may write instead; the stage that fails, what the hint says
    ('urlsafe_b64encode(raw).rstrip(b"=")', "urlsafe_b64encode(raw)", 1, "leaves the padding off"),
    ("base64.urlsafe_b64encode", "base64.b64encode", 1, "the other alphabet"),
    ('.rstrip(b"=")', '.rstrip("=")', 1, "bytes and str do not mix"),
    ('.rstrip(b"=")', '.decode().rstrip("=")', 1, "a str, and bytes are asked for"),
    ("return base64.", "base64.", 1, "without a `return`"),
    ('segment + b"=="', "segment", 1, "wants the = back"),
    ("base64url_encode(raw) != segment", "False", 1, "let it write what you have read"),
    ('DecodeError("another spelling")', 'ValueError("no")', 1, "Your callers know only yours"),
    ('DecodeError("another spelling")', 'InvalidSignatureError("no")', 1, "by another name"),
    ('raise DecodeError("another spelling")', "return None", 1, "may overlook a None"),
    ("class DecodeError(InvalidTokenError)", "class DecodeError(BaseException)", 1, "The parent goes in the paren"),
    ('raw.decode("utf-8")', "raw", 2, "guesses how bytes are encoded"),
    ('raw.decode("utf-8")', 'raw.decode("utf-8").strip()', 2, "str.strip knows more of it"),
    ("(ValueError, RecursionError)", "json.JSONDecodeError", 2, "no UTF-8 are the token's fault"),
    ("not isinstance(value, dict)", "False", 2, "is it an object?"),
    ("object_pairs_hook=once, ", "", 2, "before it makes a dict of them"),
    (", parse_constant=no_number", "", 2, "calls parse_constant"),
    ('separators=(",", ":"), ', "", 2, "has `separators`"),
    (", allow_nan=False", "", 2, "forbids NaN"),
    ("allow_nan=False", "allow_nan=False, default=str", 2, "Do not give it a `default`"),
    (".digest()", ".hexdigest().encode()", 3, "digest, not hexdigest"),
    ("hmac.new(key, signing_input", "hmac.new(signing_input, key", 3, "which is the key, which the text?"),
    (COMPARISON, "sign(signing_input, key) != signature_segment", 3, "stops at the first byte"),
    ("raise InvalidSignatureError", "raise DecodeError", 3, "This refusal has a class of its own"),
    (f'if {COMPARISON}:\n        raise InvalidSignatureError("another key, or other bytes")',
     "return sign(signing_input, key) == signature_segment", 3, "`False` is easily overlooked"),
    ('{"alg": "HS256", "typ": "JWT"}', '{"typ": "JWT", "alg": "HS256"}', 4, "in this order"),
    ("sign(signing_input, key_bytes(key))).", "sign(json_bytes(payload), key_bytes(key))).", 4, "What is signed"),
    ('.decode("ascii")\n', "\n", 4, "A token is a str"),
    ('algorithm != "HS256"', "False", 4, "must hear no"),
    ("class DecodeError(InvalidTokenError)", "class DecodeError(Exception)", 5, "The parent goes in the parentheses"),
    (' or not token.isascii()', "", 5, "A token is ASCII"),
    ("len(token) > 65_536 or ", "", 5, "Measure before"),
    (CHECK + CLAIMS, CLAIMS + CHECK, 5, "before the signature was checked"),
    ("    check_header(read_json(base64url_decode(header)), algorithms)\n", "", 5, "The header is decoded and read before"),
    (CHECK, "", 5, "Does every way to the payload pass check_signature?"),
    (CHECK, f"    try:\n    {CHECK}    except DecodeError:\n        raise DecodeError('bad')\n", 5,
     "by the name of the parent"),
    ("read_json(base64url_decode(payload))", 'read_json(base64.urlsafe_b64decode(payload + b"=="))', 5,
     "both go through base64url_decode"),
    ('now >= claims["exp"]', 'now > claims["exp"]', 6, '"On or after" exp'),
    ('claims["exp"] + leeway', 'claims["exp"]', 6, "Clocks differ"),
    ("raise ExpiredSignatureError", "raise InvalidTokenError", 6, "by the parent of all these errors"),
    ("raise ImmatureSignatureError(name)", "raise DecodeError(name)", 6, "by another name"),
    ("type(claims[name]) not in (int, float)", "not isinstance(claims[name], (int, float))", 6, "isinstance(True, int)"),
    ("now = time.time() if now is None else now", "now = now or time.time()", 6, "Zero is a time, too"),
    ("([issuer] if isinstance(issuer, str) else issuer)", "issuer", 6, "`in` finds parts of words"),
    ("if expected is not None and name", "if expected and name", 6, "Only None asks for nothing"),
    (AUDIENCE, "any(name in wanted for name in named)", 6, "An iterator can be walked through once"),
    (AUDIENCE, f"(len(wanted) and {AUDIENCE})", 6, "and has no length"),
    ("wanted is None or ", "audience is not None and ", 6, "audience a str, or several"),
    ("    check_claims(claims, **expected)\n", "    check_claims(claims)\n", 6, "with all that it was given?"),
    ('header.get("alg") != "HS256"', 'header.get("alg") in (None, "none")', 7, "exactly, no upper"),
    ("[algorithms] if isinstance(algorithms, str) else algorithms", "algorithms", 7, "A str is one algorithm"),
    ('"crit" in header', 'header.get("crit")', 7, "Whatever it says"),
    ('not raw or b"-----BEGIN " in raw', "not raw", 7, "who signs with its text, signs as you"),
    ("raise TypeError(", "raise InvalidKeyError(", 7, "so TypeError"),
    ("(ValueError, RecursionError)", "ValueError", 7, "an error of Python's own"),
    ("check_header(read_json(base64url_decode(header)), algorithms)", "read_json(base64url_decode(header))", 7,
     "Does decode call check_header"),
]  # fmt: skip


# From Python 3.15 on, urlsafe_b64decode does without padding: an answer that leaves it out is right there.
WRONG = [each for each in WRONG if each[0] != 'segment + b"=="' or sys.version_info < (3, 15)]


@pytest.mark.long
def test_each_wrong_answer_gets_a_hint_that_fits(tmp_path):
    assert not [old for old, *_ in WRONG if old not in PUPIL]
    sources = json.dumps([(stage, PUPIL.replace(old, new)) for old, new, stage, _ in WRONG])
    command = [sys.executable, "-c", TRY, str(EXERCISE), str(tmp_path / "mine.py")]
    done = subprocess.run(command, input=sources, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    hints = json.loads(done.stdout)
    assert len(hints) == len(WRONG)
    assert not [(old, new, hint) for (old, new, _, words), hint in zip(WRONG, hints) if words not in hint]


def test_the_last_hint_of_each_step_fits_always_and_none_is_code_of_the_answer():
    lines = [line for line in map(str.strip, PUPIL.splitlines()) if len(line) > 20 and not line.startswith("raise")]
    for stage in STAGES:
        labels = [label for label, _ in stage]
        for at, (label, text) in enumerate(stage):
            assert label != "hint" or labels[at + 1 : at + 2] == ["hint"] or text.startswith("=> ")
            assert label != "hint" or not [line for line in lines if line in text]


def test_every_vector_is_asked_for():
    count = (
        "import checks, loader, json; print(json.dumps(sorted({check.name for stage in loader.STAGES for step in"
        " stage['steps'] for table in step['check'] for check in getattr(checks, table)()})))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [EXERCISE, TOP / "tests", TOP]))}
    done = subprocess.run(
        [sys.executable, "-c", count], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    asked = set(json.loads(done.stdout))
    assert {f"{v.name} ({v.section})" for v in VECTORS if "options" not in v.arguments} <= asked


# ---- Whatever the file does -------------------------------------------------------------------------------

STUB = "def base64url_encode(raw):\n    "
HOSTILE = {  # a file; what is said of it
    "while True: pass": "was still running when the time was up line 1, in <module>: while True: pass",
    STUB
    + "while True: pass": "base64url_encode(b'') was still running when the time was up line 2, in base64url_encode",
    "import collections, itertools\ncollections.deque(itertools.count(), 0)": "was still running after 2 seconds",
    "import os\nos._exit(0)": "has ended the process",
    "import sys\nsys.exit()": "cannot be loaded yet: it raised SystemExit",
    STUB + "print('hello')\n    raise SystemExit": "printed 'hello'",
    STUB + "return input()": "raised EOFError",
    "def (": "raised SyntaxError: ",
    "\n\nimport jwt": "line 3, in <module>: import jwt That module is ready-made",
    STUB + "import minijwt": "Hint That module is ready-made",
    STUB + "return bas64.b64encode(raw)": "Hint Python does not know this name here",
}


@pytest.mark.long
@pytest.mark.parametrize("source", HOSTILE, ids=range(len(HOSTILE)))
def test_no_file_is_too_much_for_it(say, source):
    endless = "while" in source or "count" in source
    assert HOSTILE[source] in say(source, seconds=1 if endless else 20)


@pytest.mark.long
def test_it_needs_nothing_that_windows_lacks(say, tmp_path):
    """No such machine was at hand: what is missing there is taken away here, from its child processes too."""
    (tmp_path / "poorer").mkdir()
    (tmp_path / "poorer" / "sitecustomize.py").write_text(POORER)
    poorer = {"PYTHONPATH": str(tmp_path / "poorer")}
    check = "import os, signal; assert not hasattr(os, 'fork') and not hasattr(signal, 'SIGALRM')\n"
    assert_finished(say(check + PUPIL, **poorer))
    assert "was still running when the time was up" in say(check + "while True: pass", seconds=1, **poorer)
    said = say(check + "import collections, itertools\ncollections.deque(itertools.count(), 0)", seconds=1, **poorer)
    assert "was still running after 2 seconds" in said


@pytest.mark.parametrize(
    "arguments", [[], [""], ["no such file.py"], [TOP], [EXERCISE / "checks.py", "9"], [__file__, "x"]]
)
def test_with_wrong_arguments_it_says_one_sentence(arguments):
    status, said, complaint = run(*arguments)
    assert (status, said) == (2, "") and complaint.startswith("exercise: ") and complaint.count("\n") == 1


def test_make_says_how_to_run_it_again(tmp_path):
    (tmp_path / "mine.py").touch()
    command = ["make", "-s", "exercise", f"PYTHON={sys.executable}", f"MINE={tmp_path / 'mine.py'}", "STAGE=3"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and f"make exercise MINE={tmp_path / 'mine.py'} STAGE=3" in done.stdout, done.stderr


# ---- The answers ------------------------------------------------------------------------------------------


def test_every_answer_is_true():
    import base64
    import hmac

    import minijwt as jwt
    from vectors import KEY, NOW, OTHER_KEY, token

    for stage in [*STAGES[:4], STAGES[7]]:
        value = eval(re.search("`(.*)`", told(stage, "predict")[0])[1], {"base64": base64, "hmac": hmac, "json": json})
        assert told(stage, "answer")[0].startswith(f"{value!r}. ")
    bomb, late = token("[" * 40_000, key=OTHER_KEY), token('{"exp":2000000000}')
    unsigned = token(header='{"alg":"none"}').rpartition(".")[0] + "."
    for stage, bad in zip(STAGES[4:7], [bomb, late, unsigned]):
        with pytest.raises(jwt.InvalidTokenError) as caught:
            jwt.decode(bad, KEY, now=NOW)
        assert told(stage, "answer")[0].startswith(type(caught.value).__name__ + ". ")
