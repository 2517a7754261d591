"""Room 10: the command line, as transcripts that a shell runs, word for word.

A line with "$ " is what somebody types; what follows is what comes out: standard output, then standard error with
"! " before each line, then the exit status in brackets unless it is 0. "..." stands for anything.
"""

import doctest
import os
import select
import shutil
import signal
import subprocess
import sys
import warnings

import pytest
from vectors import GOOD, KEY, NOW, OTHER_KEY, base64url, hmac_sha256, token

import minijwt as jwt

pytestmark = pytest.mark.skipif(not shutil.which("sh"), reason="there is no shell on this machine")

PLAIN = "0123456789abcdef0123456789abcdef"
VARIABLES = {
    "GOOD": GOOD,
    "FORGED": token('{"sub":"admin"}', key=OTHER_KEY),
    "EXPIRED": token('{"exp":1}'),
    "UNSIGNED": token('{"sub":"admin"}', '{"alg":"none"}').rpartition(".")[0] + ".",
    "OURS": token('{"iss":"joe","aud":"us"}'),
    "EVIL": token('{"a":"\\u001b]0;pwned\\u0007\u202e\u009b31m"}'),
    "RAW": token('{"a":"\u202e\u009b2J\x7f"}'),
    "BROKEN": token('{"a":"\x1b[31m\r\b\x07"}'),
    "HEADER": token("{}", '{"alg":"HS256","kid":"\u202e\u009b2J\x7f"}'),
    "ESCAPES": "\x1b[2J\x07.\x1b[31m.x",
    "KEY": KEY,
    "KEY_LF": KEY + "\n",
    "PLAIN": token('{"sub":"admin"}', key=PLAIN),
}
FILES = {
    "key": KEY, "key-lf": KEY + "\n", "key-crlf": KEY + "\r\n", "key-two-lf": KEY + "\n\n",
    "key-cr": KEY + "\r", "other": OTHER_KEY, "none": "", "newline": "\n", "short": "k" * 16,
    "public": "-----BEGIN PUBLIC KEY-----\nMIIB\n",
    "env": f"""# a comment
ACCESS={PLAIN}
DOUBLE="{PLAIN}"
SINGLE = '{PLAIN}' # said why
export EXPORTED={PLAIN}
COMMENTED={PLAIN}#x
CRLF={PLAIN}\r
LAST=first
LAST: {PLAIN}
PHRASE="{KEY}"
EMPTY=
SPACED={KEY}
ESCAPED="a\\nb"
"""
}  # fmt: skip

TRANSCRIPTS = [
    ("a token as an argument", """
$ MINIJWT_KEY=$KEY minijwt decode $GOOD
{
  "sub": "admin"
}
"""),
    ("a token from standard input", """
$ echo $GOOD | MINIJWT_KEY=$KEY minijwt decode
{
  "sub": "admin"
}
$ printf %s $GOOD | MINIJWT_KEY=$KEY minijwt decode -
{
  "sub": "admin"
}
"""),
    ("a key from a file, with or without its line end", """
$ minijwt decode $GOOD --key-file key
{
  "sub": "admin"
}
$ minijwt decode $GOOD --key-file key-lf >/dev/null
$ minijwt decode $GOOD --key-file key-crlf >/dev/null
"""),
    ("a key from a file is taken whole but for one line end", """
$ minijwt decode $GOOD --key-file key-two-lf
! minijwt: refused: ... [invalid_signature]
[1]
$ minijwt decode $GOOD --key-file key-cr
! minijwt: refused: ... [invalid_signature]
[1]
"""),
    ("a key from another variable", """
$ MY_KEY=$KEY minijwt decode $GOOD --key-env MY_KEY >/dev/null
"""),
    ("a variable that is named and not set is an error", """
$ MINIJWT_KEY=$KEY minijwt decode $GOOD --key-env MY_KEY
! minijwt: the environment does not set 'MY_KEY'...
[2]
$ MINIJWT_KEY=$KEY minijwt explain $GOOD --key-env MY_KEY
! minijwt: the environment does not set 'MY_KEY'...
[2]
$ minijwt encode '{}' --key-env MINIJWT_KEY
! minijwt: the environment does not set 'MINIJWT_KEY'...
[2]
"""),
    ("a key from a .env file", """
$ minijwt decode $PLAIN --env-file env --key-env ACCESS
{
  "sub": "admin"
}
$ ACCESS=$KEY minijwt decode $PLAIN --env-file env --key-env ACCESS >/dev/null
$ for name in DOUBLE SINGLE EXPORTED; do minijwt decode $PLAIN --env-file env --key-env $name || echo no; done | grep no
[1]
$ for name in COMMENTED CRLF LAST; do minijwt decode $PLAIN --env-file env --key-env $name || echo no; done | grep no
[1]
$ minijwt decode $GOOD --env-file env --key-env PHRASE >/dev/null
$ minijwt decode $PLAIN --env-file env
! minijwt: env does not set 'MINIJWT_KEY' (see --key-env)
[2]
$ minijwt decode $PLAIN --env-file env --key-env EMPTY
! minijwt: ...empty...
[2]
$ minijwt decode $GOOD --env-file env --key-env ESCAPED
! minijwt: ESCAPED in env has a space, an escape or a quote, which programs read differently
[2]
$ minijwt decode $GOOD --env-file env --key-env SPACED
! minijwt: SPACED in env has a space, an escape or a quote, which programs read differently
[2]
$ minijwt decode $GOOD --env-file nowhere --key-env ACCESS
! minijwt: cannot read or write 'nowhere': No such file or directory
[2]
"""),
    ("the name of a file that is empty is an error, and shown", """
$ minijwt decode $GOOD --key-file ""
! minijwt: cannot read or write '': No such file or directory
[2]
$ MINIJWT_KEY=$KEY minijwt decode $GOOD --env-file ""
! minijwt: cannot read or write '': No such file or directory
[2]
$ MINIJWT_KEY=$KEY minijwt decode $GOOD --key-env ""
! minijwt: the environment does not set '' (see --key-env)
[2]
"""),
    ("a line end counts in a variable and not in a file, and that is said", """
$ MINIJWT_KEY="$KEY_LF" minijwt decode $GOOD
! minijwt: warning: the line end in MINIJWT_KEY is part of the key; at the end of a --key-file it would not be
! minijwt: refused: ... [invalid_signature]
[1]
$ minijwt decode $GOOD --key-file key-lf >/dev/null
"""),
    ("a file goes before the environment, and there can be only one file", """
$ MINIJWT_KEY=$KEY minijwt decode $GOOD --key-file other
! minijwt: refused: ... [invalid_signature]
[1]
$ minijwt decode $GOOD --key-file key --env-file .env
! usage: ...
! minijwt.py decode: error: argument --env-file: not allowed with argument --key-file
[2]
"""),
    ("without a key nothing is verified, and that is said aloud", """
$ minijwt decode $GOOD
{"sub":"admin"}
! minijwt: NOT VERIFIED...
[1]
$ minijwt explain $GOOD | tail -1
NOT VERIFIED: there is no key
$ minijwt explain $EXPIRED | tail -1
NOT VALID
$ minijwt explain $FORGED --key-file key | tail -1
NOT VALID
"""),
    ("a refused token shows nothing but the reason", """
$ MINIJWT_KEY=$KEY minijwt decode $FORGED
! minijwt: refused: ... [invalid_signature]
[1]
$ MINIJWT_KEY=$KEY minijwt decode $UNSIGNED
! minijwt: refused: ... [invalid_algorithm]
[1]
$ MINIJWT_KEY=$KEY minijwt decode $EXPIRED
! minijwt: refused: ... [expired]
[1]
$ minijwt decode $EXPIRED
! minijwt: refused: ... [expired]
[1]
$ printf '\\377.\\377.\\377' | MINIJWT_KEY=$KEY minijwt decode
! minijwt: refused: ... [decode_error]
[1]
"""),
    ("an expired token was good in its time", """
$ MINIJWT_KEY=$KEY minijwt decode $EXPIRED --now 0
{
  "exp": 1
}
"""),
    ("who we are and whom we trust", """
$ MINIJWT_KEY=$KEY minijwt decode $OURS --audience us --issuer joe >/dev/null
$ MINIJWT_KEY=$KEY minijwt decode $OURS --audience us --issuer ann
! minijwt: refused: ... [invalid_issuer]
[1]
$ MINIJWT_KEY=$KEY minijwt decode $OURS
! minijwt: refused: ... [invalid_audience]
[1]
"""),
    ("there and back", """
$ minijwt encode '{"sub":"admin"}' --key-file key >token
$ minijwt decode --key-file key <token
{
  "sub": "admin"
}
$ echo '{"sub":"admin"}' | minijwt encode --key-file key | minijwt decode --key-file key >/dev/null
$ echo '{}' | minijwt encode - --key-file key --expires-in 600 --now 2000000000.9 >token
$ minijwt decode --key-file key --now 2000000599 <token
{
  "iat": 2000000000,
  "exp": 2000000600
}
$ minijwt encode '{}' --key-file key --expires-in 5 --now 0 | minijwt decode --key-file key --now 0
{
  "iat": 0,
  "exp": 5
}
"""),
    ("what cannot be encoded", """
$ minijwt encode '{"sub":"admin"}'
! minijwt: ...MINIJWT_KEY...
[2]
$ minijwt encode '[]' --key-file key
! minijwt: ...
[2]
$ minijwt encode '{"a":1,"a":2}' --key-file key
! minijwt: Invalid claims string: a name occurs twice
[2]
$ minijwt encode '{sub: admin}' --key-file key
! minijwt: Invalid claims string: ...double quotes: line 1 column 2...
[2]
$ printf '' | minijwt encode --key-file key
! minijwt: Invalid claims string: nothing there
[2]
$ minijwt encode '{"a":NaN}' --key-file key
! minijwt: Invalid claims string: a number that is not finite
[2]
$ minijwt encode '{"exp":"soon"}' --key-file key
! minijwt: ...exp...
[2]
$ minijwt encode '{}' --key-file key --expires-in 5 --now inf
! minijwt: ...
[2]
$ minijwt encode '{}' --key-file key --expires-in 5 --now nan
! minijwt: ...
[2]
"""),
    ("a key that is none", """
$ minijwt decode $GOOD --key-file none
! minijwt: ...empty...
[2]
$ minijwt decode $GOOD --key-file newline
! minijwt: ...empty...
[2]
$ MINIJWT_KEY= minijwt decode $GOOD
! minijwt: ...empty...
[2]
$ minijwt encode '{}' --key-file public
! minijwt: ...
[2]
"""),
    ("a short key is a warning, once", """
$ minijwt encode '{}' --key-file short | minijwt decode --key-file short
{}
! minijwt: warning: ...16 bytes...
! minijwt: warning: ...16 bytes...
"""),
    ("a missing file is one sentence", """
$ minijwt decode $GOOD --key-file nowhere
! minijwt: ...nowhere...
[2]
$ minijwt explain $GOOD --key-file .
! minijwt: ...
[2]
"""),
    ("a key is never an argument", """
$ minijwt decode $GOOD $KEY >/dev/null 2>&1
[2]
$ minijwt decode $GOOD --key $KEY >/dev/null 2>&1
[2]
"""),
    ("what nobody can mean", """
$ minijwt >/dev/null 2>&1
[2]
$ minijwt frobnicate >/dev/null 2>&1
[2]
$ minijwt decode $GOOD --now noon >/dev/null 2>&1
[2]
$ minijwt decode <&- --key-file key 2>&1 | grep -c Traceback
0
[1]
"""),
    ("explain walks through the steps", """
$ MINIJWT_KEY=$KEY minijwt explain $GOOD
header     {"alg":"HS256"}
payload    {"sub":"admin"}
signed     ...
...ok ...shape...
...ok ...signature...
...RFC 7515 §5.2...
valid
$ MINIJWT_KEY=$KEY minijwt explain $FORGED
header ...
...FAILED signature...[invalid_signature]...
...not reached...
NOT VALID
[1]
$ minijwt explain $UNSIGNED >/dev/null
[1]
$ echo $GOOD | minijwt explain --key-file key | tail -1
valid
$ minijwt explain $GOOD >/dev/null
[1]
"""),
    ("explain shows what it compared", """
$ minijwt explain $EXPIRED --key-file key --now 0 | grep "^ok *exp"
ok     exp        exp 1 > now 0
$ minijwt explain $EXPIRED --key-file key --now 1.5 | grep FAILED
FAILED exp        the token has expired: exp 1 <= now 1.5 [expired]
$ minijwt decode $EXPIRED --key-file key --now 2
! minijwt: refused: the token has expired: exp 1 <= now 2 [expired]
[1]
"""),
    ("what a token says never reaches the terminal raw", """
$ minijwt decode $RAW
{"a":"\\u202e\\x9b2J\\x7f"}
! minijwt: NOT VERIFIED...
[1]
$ MINIJWT_KEY=$KEY minijwt decode $EVIL
{
  "a": "\\u001b]0;pwned\\u0007\\u202e\\u009b31m"
}
$ for token in "$RAW" "$BROKEN" "$HEADER" "$ESCAPES"; do minijwt explain "$token"; done >shown 2>&1
[1]
$ LC_ALL=C tr -d '\\n -~\\302\\247' <shown | wc -c | tr -d ' '
0
"""),
    ("a terminal that knows only ASCII gets escapes", """
$ PYTHONIOENCODING=ascii minijwt explain $GOOD --key-file key | grep 5.2
...(RFC 7515 \\xa75.2)
"""),
    ("a reader who leaves early is one sentence", """
$ (minijwt explain $GOOD --key-file key; echo $? >status) | true; cat status
2
! minijwt: ...
"""),
    ("help reads well", """
$ minijwt --help
usage: minijwt.py...
...encode...decode...explain...keygen...
...Exit status...
$ minijwt decode --help
usage: minijwt.py decode...
...--key-file FILE...
...MINIJWT_KEY...
$ minijwt --version
minijwt ...
"""),
]  # fmt: skip


@pytest.fixture
def shell(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text.encode())
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", **VARIABLES}

    def run(command):
        # -S: without site-packages, as on a machine that has nothing but Python.
        python = f'minijwt() {{ "{sys.executable}" -S -W error "{os.path.abspath(jwt.__file__)}" "$@"; }}; '
        ran = subprocess.run(["sh", "-c", python + command], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        return ran.stdout.decode("utf-8"), ran.stderr.decode("utf-8"), ran.returncode

    return run


@pytest.mark.parametrize("transcript", [text for _, text in TRANSCRIPTS], ids=[name for name, _ in TRANSCRIPTS])
def test_transcript(shell, transcript):
    for session in transcript.split("\n$ ")[1:]:
        command, _, wanted = session.partition("\n")
        out, error, status = shell(command)
        told = out + "".join(f"! {line}\n" for line in error.splitlines()) + (f"[{status}]\n" if status else "")
        wanted = wanted.rstrip("\n") + "\n" if wanted else ""
        assert doctest.OutputChecker().check_output(wanted, told, doctest.ELLIPSIS), f"$ {command}\n{told}"


def test_keygen_gives_32_fresh_bytes_that_can_be_used_at_once(shell):
    first, second = (shell("minijwt keygen")[0] for _ in range(2))
    assert first != second
    assert len(jwt.base64url_decode(first.strip().encode())) == 32
    out, error, status = shell(
        "minijwt keygen >fresh && minijwt encode '{}' --key-file fresh | minijwt decode --key-file fresh"
    )
    assert (out, error, status) == ("{}\n", "", 0)


def test_no_output_holds_the_key_or_the_right_signature(shell):
    right = hmac_sha256(KEY.encode(), VARIABLES["FORGED"].rpartition(".")[0].encode())
    for command in ("decode", "explain"):
        told = "".join(map(str, shell(f"minijwt {command} $FORGED --key-file key")))
        assert KEY not in told and base64url(right) not in told and right.hex() not in told


def test_the_whole_contract_works_without_a_subprocess(capsys, monkeypatch):
    monkeypatch.setenv("MINIJWT_KEY", KEY)
    assert jwt.main(["encode", '{"sub":"admin"}', "--expires-in", "60", "--now", str(NOW)]) == 0
    good = capsys.readouterr().out.strip()
    assert jwt.main(["decode", good, "--now", str(NOW + 59)]) == 0
    assert jwt.main(["decode", good, "--now", str(NOW + 60)]) == 1


def test_a_terminal_gets_colours_and_a_pipe_does_not(shell, tmp_path, terminal):
    assert "\x1b" not in shell("minijwt explain $GOOD --key-file key")[0]
    ours, theirs = terminal
    command = [sys.executable, jwt.__file__, "explain", VARIABLES["BROKEN"], "--key-file", str(tmp_path / "key")]
    subprocess.run(command, stdout=theirs, stdin=subprocess.DEVNULL, env={"PYTHONIOENCODING": "utf-8"})
    shown = os.read(ours, 65_536).decode()
    assert "\x1b[35m" in shown
    coloured = shown.replace("\x1b[0m", "")
    for color in ("33", "35", "36", "32", "2", "1;31"):
        coloured = coloured.replace(f"\x1b[{color}m", "")
    assert not set("\x1b\x07\b") & set(coloured)


# ---- A terminal, and a person at it ------------------------------------------------------------------------


def test_colours_can_be_switched_off(shell, tmp_path, terminal):
    ours, theirs = terminal
    for no_color, coloured in (("1", False), ("", True)):
        command = [sys.executable, jwt.__file__, "explain", GOOD, "--key-file", str(tmp_path / "key")]
        environment = {"PYTHONIOENCODING": "utf-8", "NO_COLOR": no_color}
        subprocess.run(command, stdout=theirs, stdin=subprocess.DEVNULL, env=environment)
        assert ("\x1b[" in os.read(ours, 65_536).decode()) is coloured


@pytest.fixture
def waiting(shell, tmp_path, terminal):
    """Starts the program at a terminal; returns it, the other end of the terminal, and the first line that it says."""
    ours, theirs = terminal
    started = []

    def start(command):
        arguments = [sys.executable, jwt.__file__, command, "--key-file", str(tmp_path / "key")]
        process = subprocess.Popen(arguments, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        started.append(process)
        said = process.stderr.readline().decode() if select.select([process.stderr], [], [], 10)[0] else ""
        return process, ours, said

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command, what", [("decode", "a token"), ("explain", "a token"), ("encode", "claims")])
def test_at_a_terminal_it_says_what_it_waits_for_and_ctrl_c_ends_it_silently(waiting, command, what):
    process, _, said = waiting(command)
    assert said == f"minijwt: waiting for {what} on standard input; Ctrl-D ends it\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 130


def test_at_a_terminal_what_is_typed_is_read(waiting):
    process, ours, _ = waiting("decode")
    os.write(ours, GOOD.encode() + b"\n\x04")
    assert b"admin" in process.communicate(timeout=20)[0]


# ---- The .env of a server ---------------------------------------------------------------------------------

DOTENV = [
    "A=x", "A = x", "A: x", "export A=x", "  A=x", 'A="x y"', "A='x y'", "A=x#y", "A=x # y", 'A="x#y"', "A=", 'A=""',
    "A=x\nA=y",
    "A=x\r\nB=y", "\ufeffA=x", "#A=x", "B=x", "", "A=x y", 'A="x', "A=x'y", "A='it\"s'", 'A="a\\nb"', "A=`x`",
    "A=a\\b", "A=a=b",
    'A="x"y', "A.B=x", "A:x", 'A="x" # "y"', "A=\u00e4", "AA=x\nA=y",
]  # fmt: skip


@pytest.mark.parametrize("text", DOTENV, ids=ascii)
def test_a_env_file_is_read_as_the_server_reads_it_or_refused(text, tmp_path, capsys):
    server = pytest.importorskip("server", exc_type=ImportError)
    (tmp_path / "env").write_bytes(text.encode())
    try:
        key = server.parse_dotenv(text).get("A")
    except ValueError:
        key = None
    good = token(key=key or KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status = jwt.main(["decode", good, "--env-file", str(tmp_path / "env"), "--key-env", "A"])
    told = capsys.readouterr().err
    assert status == (0 if key and "programs read differently" not in told else 2), told


def test_the_way_from_a_running_server_to_explain_is_as_the_readme_has_it(shell, tmp_path):
    server = pytest.importorskip("server", exc_type=ImportError)
    assert shell(f'"{sys.executable}" "{server.__file__}" init')[2] == 0
    settings = server.read_settings({}, str(tmp_path / ".env"))
    for name in ("ACCESS_TOKEN_SECRET", "REFRESH_TOKEN_SECRET"):
        good = jwt.encode({"username": "admin"}, getattr(settings, name.partition("_")[0].lower() + "_secrets")[0])
        out, error, status = shell(f"minijwt explain --env-file .env --key-env {name} {good}")
        assert (out.splitlines()[-1], error, status) == ("valid", "", 0)
