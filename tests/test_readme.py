"""What the README says is run: its sessions, its Python, its tables."""

import concurrent.futures
import doctest
import os
import re
import shutil
import subprocess
import sys

import pytest
import server
from serverkit import TOP, Process, build, request

README = (TOP / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)


def commands(block):
    """A console block as (command, what it prints) pairs."""
    for part in block.split("$ ")[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def matches(expected, printed):
    """`…` stands for anything within a line, and a line of it for any lines."""
    pattern = re.escape(expected.rstrip("\n")).replace("…\\\n", "(?:.*\n)*").replace("…", ".*")
    return re.fullmatch(pattern, printed.replace("\r", "").rstrip("\n"))


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


def test_the_token_session_is_as_written(tmp_path):
    environment = {}
    for command, expected in commands(BLOCKS[3]):
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
    directory.mkdir()
    shutil.copytree(TOP / "tests", directory / "tests", ignore=shutil.ignore_patterns("bench", "__pycache__"))
    for name in ("minijwt.py", "server.py"):
        (directory / name).write_text((TOP / name).read_text("utf-8"), "utf-8")
    (directory / file).write_text(source.replace(old, new), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{test}"]
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=60).returncode


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
        names = [name for name in re.findall(r"[a-z_]+(?=`)", defence) if not name.isupper()]
        assert names and all(f"def {name}(" in sources for name in names), defence
        assert f"def {test}(" in tests


def test_every_route_is_in_the_table_of_answers():
    for path, methods in server.ROUTES.items():
        for method in methods:
            assert f"`{method} {path}`" in README


def test_every_status_the_readme_promises_is_given():
    assert server.respond(build(), request("GET", "/nothing")).status == 404
    for status in ("404", "405", "400", "403", "408", "411", "413", "414", "417", "429", "431", "500", "503", "505"):
        assert status in README


def test_every_command_the_readme_shows_is_one():
    shown = re.findall(r"python3 server.py (init|user \w+)", README)
    assert {"init", *(f"user {action}" for action in ("add", "passwd", "logout", "remove", "list"))} == set(shown)
