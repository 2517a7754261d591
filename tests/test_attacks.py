"""The attack book: each attack succeeds on the naive twin, fails here, and succeeds here without its line of defence.

This file stands beside the other tests, so that there is one list of them; the book has a directory of its own, so
that nothing else comes across the twin.
"""

import contextlib
import importlib
import re
import runpy
import subprocess
import sys

import pytest
from serverkit import TOP

ATTACKS = TOP / "tests" / "attacks"
sys.path.insert(0, str(ATTACKS))
book, copies, sides = map(importlib.import_module, ("book", "copies", "sides"))
sys.path.remove(str(ATTACKS))
each_attack = pytest.mark.parametrize("attack", book.ATTACKS, ids=[attack.name for attack in book.ATTACKS])
README = (TOP / "README.md").read_text("utf-8")


def demo(*arguments):
    """Run the demo without pytest, or anything else that was installed; every warning is an error."""
    command = [sys.executable, "-S", "-W", "error", str(ATTACKS), *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=100)


def line_of(attack):
    """Return the line of defence."""
    return (TOP / attack.edit.file).read_text("utf-8").splitlines()[copies.place_of(attack.edit) - 1]


# The demo below does it in other processes, too.
@pytest.mark.long
@each_attack
def test_the_twin_falls_and_this_server_holds(attack):
    twin, ours = book.perform(attack, sides.Twin), book.perform(attack, sides.Ours)
    assert twin.fell, twin.answer
    assert not ours.fell, ours.answer


@each_attack
def test_the_line_is_found_once_and_without_it_the_file_is_still_a_program(attack):
    before, after = copies.split(attack.edit)
    compile(before + attack.edit.new + after, attack.edit.file, "exec")
    assert attack.edit.old.strip() in line_of(attack)


@each_attack
@pytest.mark.long
def test_without_its_line_this_server_falls_and_the_test_goes_red(attack):
    python = copies.python_with_pytest()
    with copies.copy(attack.edit) as directory:
        assert copies.perform_in(directory, attack).fell
        red, lines = copies.run_test(directory, python, copies.name_of(attack.test))
    assert red and lines[-1].startswith("1 failed"), lines


def test_the_demo_tells_every_attack_with_its_three_outcomes():
    done = demo()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    for number, attack in enumerate(book.ATTACKS, 1):
        assert f"{number}. {attack.title} [{attack.name}]" in lines
    for label, word in (("The twin:", "FELL:"), ("This server:", "HELD:"), ("Without it:", "FELL:")):
        assert sum(line.startswith(f"{label:14}{word} ") for line in lines) == len(book.ATTACKS)
    many = len(book.ATTACKS)
    assert lines[-1] == f"Of {many} attacks: the twin fell {many}, this server 0, and without its line {many}."
    assert max(len(line) for line in lines if line[:2] not in ("- ", "+ ")) <= 79


def test_one_line_is_broken_on_a_copy_and_a_test_goes_red():
    before = [(TOP / name).read_bytes() for name in copies.FILES]
    done = demo("--break", "crit")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    told = iter(done.stdout.splitlines())
    for start in ('- if "crit" in', "+ if False:", "Without it:   FELL:", "$ python3 -m", "FAILED", "1 failed"):
        assert any(line.startswith(start) for line in told), f"{start}, in this order:\n{done.stdout}"
    assert before == [(TOP / name).read_bytes() for name in copies.FILES]


@pytest.fixture
def main(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "book", book)
    monkeypatch.setitem(sys.modules, "copies", copies)
    return runpy.run_path(str(ATTACKS / "__main__.py"), run_name="demo")["main"]


@pytest.fixture
def as_told(monkeypatch):
    """All go as they should, and quickly."""
    monkeypatch.setattr(book, "perform", lambda attack, kind: sides.Seen("", "", kind is sides.Twin))
    monkeypatch.setattr(copies, "perform", lambda attack: sides.Seen("", "", True))


def test_attacks_are_chosen_by_numbers_and_by_words(main, as_told, capsys):
    assert main(["TABS", "race", "3"]) == 0
    told = capsys.readouterr().out
    assert "\n3. " in told and "[two tabs]" in told
    assert told.endswith("Of 2 attacks: the twin fell 2, this server 0, and without its line 2.\n")
    assert main(["crit"]) == 0 and "Of 1 attack: " in capsys.readouterr().out
    assert main(["--break", "token"]) == 2
    told = capsys.readouterr().out
    assert "expired token" in told and "two tabs" not in told, "only those that may be meant"


@pytest.mark.parametrize("arguments", [["teapot"], ["0"], ["--break", "teapot"], ["--break"]])
def test_where_none_is_chosen_all_are_listed(main, capsys, arguments):
    assert main(arguments) == (0 if arguments == ["--break"] else 2)
    told = capsys.readouterr().out
    assert all(f"{attack.name:21} {attack.title}\n" in told for attack in book.ATTACKS)


def test_where_no_pytest_is_the_attack_is_performed_and_the_test_is_named(main, monkeypatch, capsys):
    monkeypatch.setattr(copies, "python_with_pytest", lambda: "")
    assert main(["--break", "crit"]) == 0
    told = capsys.readouterr().out
    assert "FELL:" in told and "no pytest is here" in told and "::test_a_header_says_and_never_chooses" in told


def test_a_line_that_was_removed_by_hand_is_said_to_be_gone(main, monkeypatch, capsys):
    monkeypatch.setattr(copies, "is_there", lambda edit: False)
    for arguments in (["crit"], ["--break", "crit"]):
        assert main(arguments) == 1
        told = capsys.readouterr().out
        assert 'not in minijwt.py any more: if "crit" in header:' in told and "Without it" not in told


@pytest.mark.parametrize("fell", [(True, True, True), (False, False, True), (True, False, False)])
def test_the_demo_fails_if_an_attack_does_not_go_as_told(main, monkeypatch, capsys, fell):
    outcomes = dict(zip((sides.Twin, sides.Ours), fell))
    monkeypatch.setattr(book, "perform", lambda attack, kind: sides.Seen("", "", outcomes[kind]))
    monkeypatch.setattr(copies, "perform", lambda attack: sides.Seen("", "", fell[2]))
    assert main(["tabs"]) == 1
    assert capsys.readouterr().out.count("NOT AS IT SHOULD BE") == 1


@pytest.mark.parametrize("fell, red", [(False, True), (True, False)])
def test_to_break_a_line_fails_if_nothing_falls_or_no_test_goes_red(main, monkeypatch, capsys, fell, red):
    monkeypatch.setattr(copies, "copy", lambda edit: contextlib.nullcontext())
    monkeypatch.setattr(copies, "perform_in", lambda directory, attack: sides.Seen("", "", fell))
    monkeypatch.setattr(copies, "run_test", lambda directory, python, test: (red, ["1 passed"]))
    assert main(["--break", "tabs"]) == 1
    assert "AS IT SHOULD BE" in capsys.readouterr().out.upper()


def test_the_table_in_readme_has_the_same_attacks_and_their_lines():
    section = README.split("\n## Break it on purpose\n")[1].split("\n## ")[0]
    _, *rows = re.findall(r"^\| ([^|]+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert [name for name, _, _ in rows] == [attack.name for attack in book.ATTACKS]
    for (name, piece, _), attack in zip(rows, book.ATTACKS):
        assert piece.strip("`") in line_of(attack), name


def test_it_is_in_plain_english():
    prose = " ".join(f"{attack.title} {attack.text} {attack.wrong}" for attack in book.ATTACKS)
    for word in "whoever nobody somebody everybody anybody someone anyone everyone".split():
        assert word not in prose.lower()


def test_nothing_but_the_book_can_import_the_twin(monkeypatch):
    monkeypatch.syspath_prepend(str(ATTACKS))
    for run in (lambda: importlib.import_module("naive_twin"), lambda: runpy.run_module("naive_twin")):
        with pytest.raises(ImportError, match="VULNERABLE ON PURPOSE"):
            run()
    done = subprocess.run([sys.executable, str(ATTACKS / "naive_twin.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "VULNERABLE ON PURPOSE" in done.stderr


def test_no_other_file_names_the_twin():
    files = [*TOP.glob("*.py"), *(TOP / "tests").rglob("*.py")]
    named = {path.name for path in files if "naive_twin" in path.read_text("utf-8")}
    assert named == {"naive_twin.py", "sides.py", "test_attacks.py"}
