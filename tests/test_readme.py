"""What the README says is run: its sessions, its Python, its tables."""

import concurrent.futures
import contextlib
import doctest
import http.cookiejar
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer

import pytest
import server
from serverkit import LONG, ACCESS, LOGIN, REFRESH, TOP, Process, build, request
from sessionkit import SECRETS, add_cheaply

README = (TOP / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)


def commands(block):
    """A console block as (command, what it prints) pairs."""
    for part in block.split("$ ")[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def matches(expected, printed):
    """`…` stands for anything within a line, and a line of it for any lines."""
    pattern = re.escape(expected.rstrip("\n") + "\n").replace("\n…\\\n", "\n(?:.*\n)*").replace("…", ".*")
    return re.fullmatch(pattern, printed.replace("\r", "").rstrip("\n") + "\n")


def shell(command, directory, **environment):
    command = command.replace("/tmp/", f"{directory}/")
    command = command.replace("python3 ", f"{sys.executable} ").replace(" minijwt.py", f" {TOP / 'minijwt.py'}")
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_first_session_is_as_written(tmp_path):
    start, *talks = [list(commands(block)) for block in BLOCKS[:3]]
    ((command, greeting),) = start
    assert command == "python3 server.py"
    with Process(tmp_path) as process:
        here = f"localhost:{process.port}"
        assert process.greeting + "\n" == greeting.replace("localhost:8000", here)
        for command, expected in [pair for talk in talks for pair in talk]:
            printed = shell(command.replace("localhost:8000", here).replace("curl ", "curl -s "), tmp_path)
            assert matches(expected, printed), f"$ {command}\n{printed}"


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_users_change_their_own_password_as_written(tmp_path):
    (block,) = [each for each in BLOCKS if "/password" in each]
    ((command, expected),) = commands(block)
    add_cheaply(tmp_path / "minijwt.db", "alice", "correct horse")
    with Process(tmp_path, **SECRETS) as process:
        command = command.replace("localhost:8000", f"localhost:{process.port}").replace("curl ", "curl -s ")
        assert matches(expected, shell(command, tmp_path))
        assert "406" in shell(command, tmp_path), "the old password is not good any more"
        again = command.replace("=battery+staple", "=short").replace("=correct+horse", "=battery+staple")
        assert "422" in shell(again, tmp_path)


@pytest.mark.parametrize(("settings", "status"), [({}, 406), ({"COOKIE_SECURE": "off", "COOKIE_SAMESITE": "Lax"}, 200)])
def test_a_python_client_keeps_the_cookie_with_the_settings_that_are_named_and_without_them_does_not(
    tmp_path, settings, status
):
    assert " ".join(f"{name}={value}" for name, value in settings.items()) in README
    with Process(tmp_path, **settings) as process:
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        client = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)
        url = f"http://localhost:{process.port}"
        client.open(f"{url}/login", LOGIN, timeout=20).close()
        try:
            with client.open(f"{url}/refresh", b"", timeout=20) as answer:
                assert answer.status == status
        except urllib.error.HTTPError as error:
            with contextlib.closing(error):
                assert error.code == status


def test_the_token_session_is_as_written(tmp_path):
    environment = {}
    for command, expected in [pair for block in BLOCKS[3:5] for pair in commands(block)]:
        if command.startswith("export "):
            name, _, value = command[len("export ") :].partition("=")
            environment[name] = value
            continue
        assert matches(expected, shell(command, tmp_path, **environment)) or command.endswith("> /tmp/token")


def test_the_python_examples_are_as_written():
    test = doctest.DocTestParser().get_doctest(
        "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)), {}, "README", None, 0
    )
    result = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(test)
    assert result.attempted >= 4 and result.failed == 0


def test_the_table_of_settings_is_complete():
    table = README[README.index("## Settings") : README.index("## Pages")]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert [name for row in rows for name in re.findall("`(.*?)`", row)] == list(server.VARIABLES)


def test_the_defaults_in_the_table_are_the_defaults():
    defaults = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", README, re.MULTILINE))
    for variable, text in defaults.items():
        field, parse = server.VARIABLES[variable]
        assert parse(text) == getattr(server.Settings((), ()), field), variable


def rows(heading):
    """The rows of the first table below a heading, each a list of its cells."""
    _, _, *lines = README.split(heading, 1)[1].split("\n\n| ", 1)[1].partition("\n\n")[0].splitlines()
    return [[cell.strip(" `") for cell in re.split(r" *(?<!\\)\| *", line.strip("| "))] for line in lines]


def broken(directory, file, old, new, test):
    """Make one edit in a copy of the project and run one test there; return pytest's exit status."""
    source = (TOP / file).read_text("utf-8")
    assert source.count(old) == 1, old
    (home,) = [path for path in (TOP / "tests").glob("test_*.py") if f"def {test}(" in path.read_text("utf-8")]
    directory.mkdir()
    shutil.copytree(TOP / "tests", directory / "tests", ignore=shutil.ignore_patterns("bench", "__pycache__"))
    for name in ("minijwt.py", "server.py"):
        (directory / name).write_text((TOP / name).read_text("utf-8"), "utf-8")
    (directory / file).write_text(source.replace(old, new), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{home.name}", "-k", test]
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=100).returncode


@pytest.mark.skipif(not LONG, reason="long: `make prove` runs it")
def test_each_line_that_is_broken_on_purpose_turns_its_test_red(tmp_path):
    table = rows("## Break it on purpose")
    whole = [[file, old, old, test] for file, old, _, test, _ in table]  # and whole, it is green
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda i: broken(tmp_path / str(i), *table[i][:4]), range(len(table))))
        assert list(pool.map(lambda i: broken(tmp_path / f"whole{i}", *whole[i]), (0, -1))) == [0, 0]
    assert len(table) >= 10
    assert [row for row, status in zip(table, done) if status != 1] == [], "1: tests were run, and some failed"


def test_each_line_of_defence_and_each_test_of_it_exists():
    sources = "".join((TOP / name).read_text("utf-8") for name in ("minijwt.py", "server.py"))
    tests = "".join(path.read_text("utf-8") for path in (TOP / "tests").glob("test_*.py"))
    for _, defence, test in rows("## What it defends"):
        names = re.findall(r"(?:^|`)([A-Za-z_]+)(?=`|$)", defence.partition(":")[0]) or re.findall(r"^\w+", defence)
        assert all(re.search(rf"^ *(def|class) {name}\b", sources, re.MULTILINE) for name in names), defence
        assert names and f"def {test}(" in tests, test


def test_every_route_is_in_the_table_of_answers():
    for path, methods in server.ROUTES.items():
        for method in methods:
            assert f"`{method} {path}`" in README


def test_every_status_the_readme_promises_is_given():
    assert server.respond(build(), request("GET", "/nothing")).status == 404
    for path in ("/login/", "/LOGIN"):
        assert server.respond(build(), request("POST", path)).status == 404 and f"`{path}`" in README
    for status in "404 405 400 403 408 411 413 414 417 422 429 431 500 503 505".split():
        assert status in README


def test_every_command_the_readme_shows_is_one():
    shown = re.findall(r"python3 server.py (init|user \w+)", README)
    assert {"init", *(f"user {action}" for action in ("add", "passwd", "logout", "remove", "list"))} == set(shown)


def test_the_parts_are_those_of_the_file():
    banners = re.findall(r"^# ==== Part (.*?) =*$", (TOP / "server.py").read_text("utf-8"), re.MULTILINE)
    assert [part for part, _ in rows("## Reading it")] == [banner.replace(":", ".", 1) for banner in banners]


def test_the_server_of_one_line_serves():
    code, app = re.findall(r"`((?:ThreadingHTTPServer|server\.App)\([^`]*)`", README)
    names = {"server": server, "access_secret": ACCESS, "refresh_secret": REFRESH}
    names.update(app=eval(app, names), ThreadingHTTPServer=ThreadingHTTPServer)
    stock = eval(code.replace("8000", "0").partition(".serve_forever()")[0], names)
    thread = threading.Thread(target=stock.serve_forever, args=(0.05,))
    thread.start()
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{stock.server_port}/login", LOGIN, timeout=20) as answer:
            assert answer.status == 200
    finally:
        stock.shutdown()
        thread.join(20)
        stock.server_close()


def test_it_is_in_plain_english():
    prose = re.sub(r"```.*?```|`[^`]*`", "", README, flags=re.DOTALL)
    prose = re.sub(r"\n## As a library\n.*?\n## ", "", prose, flags=re.DOTALL)  # its English is of another change
    assert re.findall(r"\b(?:who|some|no|any|every)(?:ever|body|one)\b", prose, re.IGNORECASE) == []
