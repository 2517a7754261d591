"""Room 10: the command line, as transcripts that a shell runs, word for word.

A line with "$ " is what somebody types; what follows is what comes out: standard output, then standard error with
"! " before each line, then the exit status in brackets unless it is 0. "..." stands for anything.
"""

import doctest
import os
import shutil
import subprocess
import sys

import pytest
from vectors import GOOD, KEY, NOW, OTHER_KEY, base64url, hmac_sha256, token

import minijwt as jwt

pytestmark = pytest.mark.skipif(not shutil.which("sh"), reason="there is no shell on this machine")

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
}
FILES = {
    "key": KEY, "key-lf": KEY + "\n", "key-crlf": KEY + "\r\n", "key-two-lf": KEY + "\n\n",
    "key-cr": KEY + "\r", "other": OTHER_KEY, "none": "", "newline": "\n", "short": "k" * 16,
    "public": "-----BEGIN PUBLIC KEY-----\nMIIB\n",
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
$ MINIJWT_KEY=$KEY minijwt decode $GOOD --key-env MY_KEY >/dev/null
! minijwt: NOT VERIFIED...MY_KEY...
[1]
"""),
    ("a file goes before the environment", """
$ MINIJWT_KEY=$KEY minijwt decode $GOOD --key-file other
! minijwt: refused: ... [invalid_signature]
[1]
"""),
    ("without a key nothing is verified, and that is said aloud", """
$ minijwt decode $GOOD
{"sub":"admin"}
! minijwt: NOT VERIFIED...
[1]
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
! minijwt: ...
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
    for color in ("31", "35", "36", "32", "2", "1;31"):
        coloured = coloured.replace(f"\x1b[{color}m", "")
    assert not set("\x1b\x07\b") & set(coloured)
