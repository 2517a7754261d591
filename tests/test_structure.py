"""The shape of the repository: what may be there, what may be imported, and that both files read from top to bottom."""

import ast
import builtins
import re
import signal
import subprocess
import sys
from collections import Counter

import minijwt
import pytest
import server
from prove import mutants
from serverkit import TOP, Process, answers, raw
from sessionkit import PASSWORD, SECRETS, raw_login, raw_refresh

FILES = ["minijwt.py", "server.py"]

# What minimal means, in lines: the first three parts of server.py, its Python without the page, the page; minijwt.py.
PARTS_I_TO_III, PYTHON, SHARED_STORE, PAGE = 1_700, 3_552, 350, 420
MINIJWT = 950
MAX_LINE_CHARS = 120


def source(name):
    return (TOP / name).read_text("utf-8")


def tree(name):
    return ast.parse(source(name))


def test_the_top_level_holds_five_things_and_dot_files():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, or no git")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= {*FILES, "tests", "Makefile", "README.md"}


# sys.stdlib_module_names is younger than Python 3.9: so this is the list, and a new import is a decision
IMPORTS = {
    "__future__", "argparse", "base64", "binascii", "calendar", "collections", "contextlib",
    "datetime", "email", "errno", "functools", "getpass", "hashlib", "heapq", "hmac", "http", "io", "ipaddress",
    "json", "logging", "math", "os", "pkgutil", "platform", "queue", "re", "resource", "selectors", "shutil", "signal",
    "socket", "sqlite3", "ssl", "stat", "sys", "syslog", "tempfile", "threading", "time", "typing",
    "unicodedata", "warnings",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_only_the_standard_library_is_imported(name):
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(node.module.split(".")[0])
    assert found - {"minijwt"} <= IMPORTS
    assert "minijwt" not in found or name == "server.py"
    if hasattr(sys, "stdlib_module_names"):
        assert IMPORTS <= sys.stdlib_module_names


class Uses(ast.NodeVisitor):
    """Collects the names that a statement uses, in annotations too, less the names of parameters."""

    def __init__(self):
        self.used = set()

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.used.add(node.id)


def stored(node):
    """Whether a node of the tree is a name that is given a value."""
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def bound(statement):
    """The names that a statement of a module gives a value to."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, (ast.If, ast.Try)):
        inner = [*statement.body, *statement.orelse]
        inner += [each for handler in getattr(statement, "handlers", []) for each in handler.body]
        return set().union(*map(bound, inner))
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return {node.id for target in targets if target for node in ast.walk(target) if stored(node)}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_used_above_its_definition_not_even_in_an_annotation(name):
    statements = tree(name).body
    everything = set().union(*map(bound, statements))
    known = set(dir(builtins))
    for statement in statements:
        uses = Uses()
        uses.visit(statement)
        own = {node.arg for node in ast.walk(statement) if isinstance(node, ast.arg)}
        own |= {node.id for node in ast.walk(statement) if stored(node)}
        known |= bound(statement)  # a function may call itself
        early = (uses.used & everything) - known - own
        assert not early, f"{name}:{statement.lineno} uses {early}, defined further down"


@pytest.mark.parametrize("name", FILES)
def test_no_name_of_a_module_is_bound_twice(name):
    count = Counter(each for statement in tree(name).body for each in bound(statement))
    assert [each for each, times in count.items() if times > 1] == []


@pytest.mark.parametrize("name", FILES)
def test_no_line_is_too_long(name):
    assert [line for line in source(name).splitlines() if len(line) > MAX_LINE_CHARS] == []


def test_minijwt_is_small():
    assert len(source("minijwt.py").splitlines()) <= MINIJWT


# -- the five parts of server.py, and their rooms

PARTS = ["I: What a login is", "II: HTTP as values", "III: Bytes move", "IV: What keeps it standing", "V: The page"]
BANNER = re.compile("# (=|-){4} (.+?) \\1{4,}")
LINES = source("server.py").splitlines()


def banners():
    """The banners of server.py: (its line, whether it is a part's, its name)."""
    found = [(number, BANNER.fullmatch(line)) for number, line in enumerate(LINES, 1)]
    return [(number, match[1] == "=", match[2]) for number, match in found if match]


def begins(part):
    """The line at which a part begins."""
    return next(number for number, is_part, name in banners() if is_part and name.startswith(f"Part {part}: "))


def rooms_that_name(module):
    """The rooms in which a module's name is used, imports aside, in order."""
    lines = sorted(
        node.lineno for node in ast.walk(tree("server.py")) if isinstance(node, ast.Name) and node.id == module
    )
    found = [[name for number, _, name in banners() if number <= line][-1:] for line in lines]
    return list(dict.fromkeys(name for names in found for name in names))


def test_server_has_five_parts_and_each_begins_with_a_paragraph():
    assert [name for _, is_part, name in banners() if is_part] == [f"Part {name}" for name in PARTS]
    for number, _, name in banners():
        assert LINES[number - 2] == "" and LINES[number].startswith("# "), f"{name}: nothing is said about it"
    for number in (number for number, is_part, _ in banners() if is_part):
        assert all(line.startswith("# ") for line in LINES[number : number + 2]), LINES[number - 1]


def test_every_line_that_looks_like_a_banner_is_one_and_ends_where_the_others_do():
    looking = [number for number, line in enumerate(LINES, 1) if re.match("# ?[-=]{3}", line)]
    assert looking == [number for number, _, _ in banners()]
    assert len({len(LINES[number - 1]) for number in looking}) == 1


def test_there_is_one_test_file_a_room_in_the_order_of_the_banners():
    names = [name for _, is_part, name in banners() if not is_part or name.endswith("The page")]
    slugs = [name.replace("Part V: The page", "page").lower().replace(" ", "_") for name in names]
    files = sorted(path.name for path in (TOP / "tests").glob("test_server_*.py"))
    assert files == [f"test_server_{number:02}_{slug}.py" for number, slug in enumerate(slugs, 1)]


def test_the_first_three_parts_are_short():
    assert begins("IV") - 1 <= PARTS_I_TO_III


def test_server_and_its_page_are_small():
    (page,) = [each for each in tree("server.py").body if isinstance(each, ast.Assign) and bound(each) == {"PAGE"}]
    assert page.lineno > begins("V"), "the page is last"
    lines = page.end_lineno - page.lineno + 1
    assert lines <= PAGE
    banners = [number for number, line in enumerate(LINES) if line.startswith("# ---- ")]
    begin = next(number for number in banners if "Shared store" in LINES[number])
    shared = next(number for number in banners if number > begin) - begin
    assert shared <= SHARED_STORE
    assert len(LINES) - lines - shared <= PYTHON


@pytest.mark.parametrize("name", FILES)
def test_there_is_no_asyncio(name):
    assert "asyncio" not in source(name)


@pytest.mark.parametrize("module", ["selectors", "ssl", "socket", "threading", "sqlite3"])
def test_the_first_three_parts_know_no_sockets_no_database_and_one_lock(module):
    rooms = rooms_that_name(module)
    names = [name for number, _, name in banners() if number < begins("IV")]
    assert [name for name in rooms if name in names] == (["Store"] if module == "threading" else [])


@pytest.mark.parametrize("module, rooms", [("sqlite3", ["SQLite store", "Command line"]), ("resource", ["Starting"]),
                                            ("argparse", ["Command line"]), ("unicodedata", ["Accounts"])])  # fmt: skip
def test_what_only_one_room_has_to_know_no_other_room_knows(module, rooms):
    assert rooms_that_name(module) == rooms


def test_all_sql_is_in_one_room():
    sql = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|PRAGMA|CREATE TABLE|BEGIN|COMMIT)\b [a-zA-Z_*(?]")
    (start,) = [number for number, _, name in banners() if name == "SQLite store"]
    end = min(number for number, _, _ in banners() if number > start)
    assert [line for line in LINES[: start - 1] + LINES[end:] if sql.search(line)] == []


def test_only_minijwt_touches_hmac_and_only_accounts_touches_minijwt_tokens():
    text = source("server.py")
    accounts = text[text.index("# ---- Accounts") : text.index("# ==== Part II")]
    for call in ("minijwt.encode(", "minijwt.decode("):
        assert text.count(call) == accounts.count(call) > 0


@pytest.mark.parametrize("module", [minijwt, server], ids=["minijwt", "server"])
def test_every_name_that_tests_and_benchmarks_use_is_there(module):
    """What `make test` does not run, such as a benchmark, would find out much later."""
    missing = []
    for path in (TOP / "tests").rglob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text("utf-8")))]
        imported = [each for node in nodes if isinstance(node, ast.Import) for each in node.names]
        names = {each.asname or each.name for each in imported if each.name == module.__name__}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                if isinstance(node.ctx, ast.Load) and not hasattr(module, node.attr):
                    missing.append(f"{path.name}:{node.lineno}: {node.attr}")
    assert missing == []


def test_no_test_knows_a_private_name_of_the_two_files():
    public = {"_replace", "_fields", "_asdict", "_exit", "_getframe"}  # of named tuples, os and sys
    for path in [
        *(TOP / "tests").glob("test_server_*.py"),
        *(TOP / "tests").glob("*kit.py"),
        TOP / "tests/test_from_the_field.py",
    ]:
        nodes = ast.walk(ast.parse(path.read_text("utf-8"))) if path.exists() else ()
        for node in nodes:
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                of_the_test = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                assert of_the_test or node.attr in public, f"{path.name}:{node.lineno} uses {node.attr}"


def test_the_makefile_is_short_and_explains_every_target():
    text = (TOP / "Makefile").read_text("utf-8")
    assert len(text.splitlines()) <= 60
    phony = re.search(r"\.PHONY: (.*)", text)[1].split()
    assert (
        set(phony)
        == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
        >= {"help", "run", "test", "bench", "clean"}
    )
    shown = subprocess.run(["make", "-s"], cwd=TOP, capture_output=True, text=True)
    assert shown.returncode == 0 and all(f"make {target}" in shown.stdout for target in phony)


# -- a poorer system

POORER = (TOP / "tests" / "data" / "poorer.py").read_text("utf-8") + """
import selectors, socket
assert selectors.DefaultSelector is selectors.SelectSelector and not hasattr(socket, "AF_UNIX")
path = sys.argv.pop(1)
sys.path.insert(0, os.path.dirname(path))
import server
os.name = "nt"
sys.exit(server.main())
"""


def test_it_serves_where_nothing_is_that_windows_lacks(tmp_path):
    script = tmp_path / "poorer.py"
    script.write_text(POORER)
    server = str(TOP / "server.py")
    settings = {"DATABASE": str(tmp_path / "users.db"), "ROTATE_REFRESH": "on", **SECRETS}
    command = [sys.executable, str(script), server]
    done = subprocess.run(
        [*command, "user", "add", "ann"], input=PASSWORD, capture_output=True, text=True, timeout=60,
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **settings},
    )  # fmt: skip
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    for environment, user in ((settings, ("ann", PASSWORD)), ({}, ("admin", "admin123"))):
        with Process(tmp_path, [*command[:2]], server, **environment) as process:
            assert process.port, process.stop()
            (login,) = answers(process.exchange(raw_login(*user)))
            token = login["Set-Cookie"].partition(";")[0].partition("=")[2]
            (refresh,) = answers(process.exchange(raw_refresh(token)))
            (page,) = answers(process.exchange(raw("GET", "/", b"", "Accept: text/html")))
            status, _, errors = process.stop(signal.SIGINT)
        assert [login.status, refresh.status, page.status, status] == [200] * 3 + [0], errors
        assert "Traceback" not in errors and errors.endswith(" stop\n")


# -- what is broken on purpose


def test_every_mutant_of_make_prove_can_be_placed():
    assert [name for _, name, old, _ in mutants.MUTANTS if mutants.SOURCE.count(old) != 1] == []
