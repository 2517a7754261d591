"""The shape of the repository: what may be there, what may be imported, and that both files read from top to bottom."""

import ast
import builtins
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
FILES = ["minijwt.py", "server.py"]


def tree(name):
    return ast.parse((TOP / name).read_text("utf-8"))


def test_the_top_level_holds_five_things_and_dot_files():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, or no git")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= {*FILES, "tests", "Makefile", "README.md"}


# sys.stdlib_module_names is younger than Python 3.9: so this is the list, and a new import is a decision
IMPORTS = {
    "__future__", "argparse", "base64", "calendar", "collections", "concurrent", "contextlib",
    "datetime", "email", "errno", "functools", "getpass", "hashlib", "heapq", "hmac", "http", "io", "ipaddress",
    "json", "logging", "math", "os", "pkgutil", "platform", "queue", "re", "resource", "selectors", "shutil", "signal", "socket",
    "sqlite3", "ssl", "sys", "tempfile", "threading", "time", "typing", "unicodedata", "warnings",
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
    """Collects the module's own names that a statement uses, less what it binds itself, and less annotations."""

    def __init__(self):
        self.used = set()

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            self.used.add(node.id)

    def visit_arg(self, node):
        pass

    def visit_AnnAssign(self, node):
        if node.value:
            self.visit(node.value)

    def visit_FunctionDef(self, node):
        for part in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]:
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef


def bound(statement):
    """The names that a statement of a module gives a value to."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return {node.id for target in targets if target for node in ast.walk(target) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_used_above_its_definition(name):
    statements = tree(name).body
    everything = set().union(*map(bound, statements))
    known = set(dir(builtins))
    for statement in statements:
        uses = Uses()
        uses.visit(statement)
        known |= bound(statement)  # a function may call itself
        early = (uses.used & everything) - known
        assert not early, f"{name}:{statement.lineno} uses {early}, defined further down"


@pytest.mark.parametrize("name", FILES)
def test_the_two_files_stay_small(name):
    lines = (TOP / name).read_text("utf-8").splitlines()
    assert len(lines) <= {"minijwt.py": 900, "server.py": 2_970}[name]
    assert max(map(len, lines)) <= 120


def test_only_minijwt_touches_hmac_and_only_accounts_touches_minijwt_tokens():
    source = (TOP / "server.py").read_text("utf-8")
    accounts = source[source.index("# ---- Accounts") : source.index("# ---- Messages")]
    for call in ("minijwt.encode(", "minijwt.decode("):
        assert source.count(call) == accounts.count(call) > 0


def test_the_makefile_is_short_and_explains_every_target():
    text = (TOP / "Makefile").read_text("utf-8")
    assert len(text.splitlines()) < 55
    phony = re.search(r"\.PHONY: (.*)", text)[1].split()
    assert (
        set(phony)
        == set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
        >= {"help", "run", "test", "bench", "clean"}
    )
    shown = subprocess.run(["make", "-s"], cwd=TOP, capture_output=True, text=True)
    assert shown.returncode == 0 and all(f"make {target}" in shown.stdout for target in phony)
