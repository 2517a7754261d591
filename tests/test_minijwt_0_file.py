"""The file as a whole: what it needs, the order it is read in, and what its first lines promise."""

import ast
import doctest
import importlib.util
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import typing

import minijwt as jwt
import pytest

SOURCE = pathlib.Path(jwt.__file__).read_text(encoding="utf-8")
TREE = ast.parse(SOURCE)


def test_the_examples_at_its_top_are_true():
    assert doctest.testmod(jwt) == (0, len(doctest.DocTestFinder().find(jwt)[0].examples))


def test_it_needs_the_standard_library_and_nothing_else():
    modules = set()
    for node in ast.walk(TREE):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(node.module)
    library = sysconfig.get_path("stdlib")
    for name in modules:
        origin = importlib.util.find_spec(name).origin
        assert origin in ("built-in", "frozen") or origin.startswith(library) and "site-packages" not in origin, name


def global_names(table):
    """Return the names that a function or class, or what stands inside it, takes from the module."""
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return names.union(*map(global_names, table.get_children()))


def test_nothing_is_used_above_its_definition():
    symtable = pytest.importorskip("symtable", exc_type=ImportError)  # PyPy has none
    defined_at = {}
    for node in TREE.body:
        targets = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = [
                name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            ]
        for name in targets:
            defined_at.setdefault(name, node.lineno)
    # What stands outside of functions and classes Python itself reads in this order.
    for table in symtable.symtable(SOURCE, "minijwt.py", "exec").get_children():
        late = [name for name in global_names(table) if defined_at.get(name, 0) > table.get_lineno()]
        assert not late, f"{table.get_name()} stands above {late}"


def test_its_ten_rooms_are_numbered_in_reading_order():
    rooms = [line.split()[2] for line in SOURCE.splitlines() if line.startswith("# ---- ")]
    assert rooms == [f"{number}." for number in range(1, 11)]


def test_all_names_all_that_is_public_and_pyjwts():
    assert sorted(set(jwt.__all__)) == sorted(jwt.__all__)
    for name in jwt.__all__:
        assert getattr(jwt, name).__doc__


def test_every_public_function_says_what_it_does():
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


# ---- Loading and types ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["minijwt", "elsewhere", "vendor.minijwt"])
def test_it_loads_without_being_registered_and_leaves_the_registered_one_alone(name):
    spec = importlib.util.spec_from_file_location(name, jwt.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.exceptions.DecodeError is copy.DecodeError is not jwt.DecodeError
    assert copy.decode(copy.encode({"sub": "x"}, "k" * 32), copy.Key("k" * 32)) == {"sub": "x"}
    assert sys.modules["minijwt.exceptions"].DecodeError is jwt.DecodeError
    assert name == "minijwt" or name + ".exceptions" not in sys.modules


def test_it_loads_as_a_part_of_another_package(tmp_path):
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "minijwt.py").write_text(SOURCE, "utf-8")
    program = "from vendor.minijwt.exceptions import DecodeError as theirs; from vendor import minijwt; "
    program += "assert theirs is minijwt.exceptions.DecodeError"
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=tmp_path, check=True)


def test_a_program_sees_every_argument_of_decode_complete():
    assert inspect.signature(jwt.decode_complete) == inspect.signature(jwt.decode)
    for unknown in ({"audiance": "x"}, {"verify": False}):
        with pytest.raises(TypeError):
            jwt.decode_complete("", "k" * 32, **unknown)


def test_the_type_of_the_options_names_those_that_there_are():
    with pytest.raises(TypeError) as caught:
        jwt.decode("", "k" * 32, options={"": True})
    assert sorted(typing.get_type_hints(jwt.Options)) == str(caught.value).partition(": ")[2].split(", ")


def test_every_public_signature_can_be_resolved():
    for name in jwt.__all__:
        thing = getattr(jwt, name)
        if sys.version_info >= (3, 10) and not issubclass(type(thing), type):  # 3.9 cannot evaluate `str | bytes`
            assert "return" in typing.get_type_hints(thing)


PROGRAM = """
import minijwt as jwt
from datetime import datetime, timedelta, timezone

key = jwt.Key("0123456789abcdef0123456789abcdef")
token: str = jwt.encode({"exp": datetime.now(timezone.utc)}, key, headers={"kid": "1"})
options: jwt.Options = {"require": ["exp"], "verify_exp": False}
claims = jwt.decode(token, key, ["HS256"], options, audience={"us"}, leeway=timedelta(seconds=1), now=1.5)
claims = jwt.decode(token, b"k", algorithms=["HS256"], options={"strict_aud": True}, issuer=["a", "b"])
header = jwt.decode_complete(token, "k", audience="us")["header"]
report = jwt.explain(token, None)
try:
    jwt.decode(token, key)
except jwt.exceptions.ExpiredSignatureError as error:
    code: str = error.code
except (jwt.exceptions.InvalidTokenError, jwt.MissingRequiredClaimError):
    pass

jwt.decode_complete(token, key, audiance="x")  # error
jwt.decode(token, key, options={"verify_xp": False})  # error
jwt.decode(token, key, options={"verify_exp": "no"})  # error
jwt.decode(token, 5)  # error
jwt.decode(token, key, now=datetime.now())  # error
jwt.encode("{}", key)  # error
jwt.exceptions.NoSuchError  # error
jwt.exceptions.encode  # error
claims.nothing  # error
"""


@pytest.mark.skipif(not shutil.which(os.environ.get("MYPY", "mypy")), reason="there is no mypy; MYPY may name one")
def test_a_type_checker_lets_right_programs_pass_and_finds_the_wrong_lines(tmp_path):
    (tmp_path / "minijwt.py").write_text(SOURCE, "utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    command = [os.environ.get("MYPY", "mypy"), "--strict", "--no-incremental", "program.py"]
    told = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True).stdout
    found = {int(number) for number in re.findall(r"^program\.py:(\d+): error", told, re.MULTILINE)}
    assert found == {at for at, line in enumerate(PROGRAM.split("\n"), 1) if line.endswith("# error")}, told
    assert "minijwt.py" not in told
