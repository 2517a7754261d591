"""The file as a whole: what it needs, the order it is read in, and what its first lines promise."""

import ast
import doctest
import importlib.util
import pathlib
import sysconfig

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
