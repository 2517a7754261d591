"""One file that has everything: the same bytes wherever it is made, and all that the two files can do."""

import hashlib
import hmac
import inspect
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import dist
import minijwt
import pytest
import pythons
import server
from serverkit import RAW_LOGIN, TOP, Process, answers, served_without_a_network

ISOLATED = (sys.executable, "-I")


@pytest.fixture(scope="module")
def pyz(tmp_path_factory):
    """minijwt.pyz in a folder where other programs have left modules of their own."""
    folder = tmp_path_factory.mktemp("dist")
    dist.main(folder)
    for name in ("hmac.py", "minijwt.py", "server.py"):
        (folder / name).write_text("raise SystemExit('this is not the one')\n")
    return folder / "minijwt.pyz"


def run(pyz, *arguments, stdin="", **environment):
    command = [*ISOLATED, str(pyz), *arguments]
    options = {"cwd": pyz.parent, "capture_output": True, "text": True, "timeout": 20}
    return subprocess.run(command, input=stdin, env={"PATH": "/usr/bin:/bin", **environment}, **options)


def built(folder, python, mask, **environment):
    """Build a copy of the sources, made just now in `folder`; return all that was made."""
    (folder / "tests").mkdir(parents=True)
    for name in ("minijwt.py", "server.py", "tests/dist.py"):
        shutil.copyfile(TOP / name, folder / name)
    shutil.copytree(TOP / "tests" / "deploy", folder / "tests" / "deploy")
    command = f'umask {mask} && exec "{python}" tests/dist.py'
    environment = {**os.environ, **environment}
    subprocess.run(["sh", "-c", command], cwd=folder, env=environment, check=True, capture_output=True)
    made = [path for path in sorted((folder / "dist").rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder / "dist")): (path.stat().st_mode, path.read_bytes()) for path in made}


def test_the_same_sources_make_the_same_bytes_in_every_folder_zone_and_umask(tmp_path):
    first = built(tmp_path / "a", sys.executable, "022", TZ="UTC", SOURCE_DATE_EPOCH="1")
    second = built(tmp_path / "a longer name" / "b", sys.executable, "077", TZ="Asia/Kathmandu", LC_ALL="C")
    assert first == second


@pytest.mark.long
def test_and_with_the_oldest_and_the_newest_python(tmp_path):
    others = [file for file in pythons.interpreters().values() if str(file) != sys.executable]
    if not others:
        pytest.skip("no other Python from 3.9 on is installed")
    made = [built(tmp_path / str(number), file, "022") for number, file in enumerate([others[0], others[-1]])]
    assert made == [built(tmp_path / "mine", sys.executable, "022")] * 2


def test_one_line_vouches_for_every_file(pyz, capsys):
    dist.main(pyz.parent)
    sums = (pyz.parent / "SHA256SUMS").read_bytes()
    assert capsys.readouterr().out == f"{hashlib.sha256(sums).hexdigest()}  SHA256SUMS\n"
    listed = dict(reversed(line.split("  ")) for line in sums.decode().splitlines())
    deploy = {f"deploy/{path.name}" for path in (TOP / "tests" / "deploy").iterdir()}
    assert listed.keys() == {"minijwt.pyz", *deploy} and len(deploy) > 9
    for name, digest in listed.items():
        assert hashlib.sha256((pyz.parent / name).read_bytes()).hexdigest() == digest


def test_what_has_left_the_sources_leaves_dist(pyz):
    (pyz.parent / "deploy" / "of an older version").touch()
    dist.main(pyz.parent)
    assert not (pyz.parent / "deploy" / "of an older version").exists()


def test_the_sources_lie_in_it_as_they_are(pyz):
    data = pyz.read_bytes()
    assert all((TOP / name).read_bytes() in data for name in ("minijwt.py", "server.py"))


def test_it_serves_in_isolated_mode_whatever_lies_next_to_it(pyz, tmp_path):
    with Process(pyz.parent, ISOLATED, pyz) as process:
        (login,) = answers(process.exchange(RAW_LOGIN))
        status, _, errors = process.stop()
    assert (login.status, status) == (200, 0) and "minijwt.pyz: warning" in errors


def test_it_serves_where_there_is_no_network_at_all(pyz):
    served_without_a_network(*ISOLATED, pyz)


def test_it_passes_its_selftest(pyz):
    done = run(pyz, "selftest")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.count("ok  ") == 5


def test_it_says_which_version_it_is(pyz):
    """And no digests: a file cannot vouch for itself."""
    assert run(pyz, "--version").stdout == f"minijwt {minijwt.__version__}\n"


def test_it_has_every_command_and_calls_itself_by_its_name(pyz):
    assert "minijwt.pyz user add NAME" in run(pyz, "init").stdout
    assert run(pyz, "user", "add", "ann", stdin="correct horse\n").returncode == 0
    assert run(pyz, "user", "list").stdout == "ann\n"
    assert run(pyz, "init").stderr.startswith("minijwt.pyz: .env exists")
    key = run(pyz, "token", "keygen").stdout.strip()
    token = run(pyz, "token", "encode", '{"a": 1}', MINIJWT_KEY=key).stdout.strip()
    assert minijwt.decode(token, key) == {"a": 1}
    assert run(pyz, "token", "decode", token, MINIJWT_KEY=key[::-1]).returncode == 1


# Runs minijwt.pyz and prints, of both modules: the name, what was compiled, and the lines that a traceback would show.
WATCHED = """
import inspect, json, runpy, sys
compiled = []
sys.addaudithook(lambda event, given: event == "compile" and compiled.append(given))
sys.argv = [sys.argv[1], "--version"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit:
    for name in ("minijwt", "server"):
        module = sys.modules[name]
        rooms = [source.decode() for source, file in compiled if file == module.__file__]
        print(json.dumps([name, rooms, inspect.getsource(module.main)]))
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy does not tell what it compiles")
def test_each_room_is_compiled_once_and_alone_and_has_its_line_numbers(pyz):
    """The heap keeps what the compiler takes: many megabytes for a whole file."""
    done = subprocess.run([*ISOLATED, "-c", WATCHED, str(pyz)], capture_output=True, text=True, timeout=20)
    shown = [json.loads(line) for line in done.stdout.splitlines()[1:]]
    assert [name for name, *_ in shown] == ["minijwt", "server"], done.stderr
    for (name, rooms, main), module in zip(shown, (minijwt, server)):
        source = (TOP / f"{name}.py").read_text("utf-8")
        assert "".join(room.lstrip("\n") for room in rooms) == source
        assert max(len(room.strip()) for room in rooms) < len(source) / 4
        assert main == inspect.getsource(module.main)


def test_a_python_that_is_too_old_hears_so(pyz, tmp_path):
    main = dist.MAIN.replace(b"(3, 9)", b"(99, 9)")
    (tmp_path / "main.py").write_bytes(main)
    done = subprocess.run([*ISOLATED, str(tmp_path / "main.py")], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("minijwt.pyz needs Python ")


# ---- selftest: a Python that lacks something, or has it wrong, is found out

hmac_sha256 = minijwt.hmac_sha256
TAMPERED = "the same, with one letter"
BROKEN = [
    (minijwt, "hmac_sha256", lambda *arguments: hmac_sha256(*arguments)[::-1], ["HMAC-SHA256"]),
    (minijwt, "sha256", hashlib.sha3_256, ["HMAC-SHA256"]),
    (hmac, "compare_digest", lambda a, b: True, [TAMPERED]),
    (hashlib, "scrypt", lambda *arguments, **options: bytes(32), ["scrypt"]),
    (hashlib, "pbkdf2_hmac", lambda *arguments: bytes(32), ["pbkdf2"]),
    (sqlite3, "connect", lambda *arguments, **options: 1 / 0, ["SQLite", "the refresh token", TAMPERED]),
]


@pytest.mark.parametrize("module, name, broken, failing", BROKEN)
def test_what_is_broken_fails_the_selftest(module, name, broken, failing, monkeypatch, capsys):
    if not hasattr(module, name):
        pytest.skip(f"this Python has no {name}")
    monkeypatch.setattr(module, name, broken)
    if failing == ["pbkdf2"]:
        monkeypatch.setattr(server, "COST", server.PBKDF2)
    status = server.main(["selftest"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.startswith(("ok ", "FAILED ")) for line in lines)
    failed = [line[8:] for line in lines if line.startswith("FAILED")]
    assert len(failed) == len(failing) and all(map(str.startswith, failed, failing))
    assert status == 1


def test_the_selftest_leaves_nothing_behind(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert server.main(["selftest"]) == 0
    assert [line[:3] for line in capsys.readouterr().out.splitlines()] == ["ok "] * 5
    assert list(tmp_path.iterdir()) == []
