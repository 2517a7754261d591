"""The attack book: every attack in it succeeds on the naive twin, and fails here because of the line that it names.

This file stands beside the other tests, so that there is one list of them; the book has a directory of its own, so
that nothing else comes across the twin.
"""

import importlib
import runpy
import subprocess
import sys

import pytest
from serverkit import TOP

ATTACKS = TOP / "tests" / "attacks"
sys.path.insert(0, str(ATTACKS))
book = importlib.import_module("book")
sys.path.remove(str(ATTACKS))


def demo(*words):
    """Run the demo without pytest, or anything else that was installed; every warning is an error."""
    command = [sys.executable, "-S", "-W", "error", str(ATTACKS), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)


@pytest.mark.parametrize("attack", book.ATTACKS, ids=[attack.title for attack in book.ATTACKS])
def test_the_twin_falls_and_this_server_does_not(attack):
    outcome = book.perform(attack)
    assert outcome.twin_fell and not outcome.we_fell, outcome
    assert attack.because in outcome.ours and attack.because not in outcome.twin


@pytest.mark.parametrize("attack", book.ATTACKS, ids=[attack.title for attack in book.ATTACKS])
def test_the_line_that_stops_it_is_found_once(attack):
    for fragment in attack.stopped_by:
        file, number = book.place_of(fragment)
        assert fragment in (TOP / file).read_text("utf-8").splitlines()[number - 1]


def test_the_demo_tells_every_attack_and_sums_up():
    done = demo()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for number, attack in enumerate(book.ATTACKS, 1):
        assert f"{number}. {attack.title}" in lines
    count = len(book.ATTACKS)
    assert count >= 12 and lines[-1] == f"{count} attacks: the twin fell {count} times, this server 0."
    assert max(map(len, lines)) <= 79


def test_the_demo_tells_one_attack_by_the_words_of_its_title():
    done = demo("TABS", "race")
    assert done.returncode == 0 and done.stdout.endswith("\n\n1 attack: the twin fell 1 time, this server 0.\n")
    done = demo("teapot")
    assert done.returncode == 2 and all(attack.title in done.stdout for attack in book.ATTACKS)


@pytest.mark.parametrize("twin_fell, we_fell", [(True, True), (False, False)])
def test_the_demo_fails_if_an_attack_does_not_go_as_told(monkeypatch, capsys, twin_fell, we_fell):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "book", book)
    main = runpy.run_path(str(ATTACKS / "__main__.py"), run_name="demo")["main"]
    monkeypatch.setattr(book, "perform", lambda attack: book.Outcome("", "", "", twin_fell, we_fell))
    assert main(["tabs"]) == 1
    assert "NOT AS IT SHOULD BE" in capsys.readouterr().out


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
    assert named == {"naive_twin.py", "book.py", "test_attacks.py"}
