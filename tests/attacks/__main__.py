"""The attack book as a narrated demo:  python3 tests/attacks [--break] [NUMBERS AND WORDS]

Performs every attack, or those with these numbers and those whose name and title hold all the words: on the naive twin,
on this server, and on a copy of this server without the line that stops it. With `--break` it performs one attack on
such a copy, and shows the edit, the attack as it succeeds then, and the test that goes red.

Exit status: 0 if all went as it should, 1 if not, 2 if no attack is meant, or more than one for `--break`.
"""

import concurrent.futures
import os
import sys
import textwrap
from pathlib import Path

# This directory, tests/, and that of the two files.
sys.path[:0] = [str(Path(__file__).resolve().parents[up]) for up in range(3)]

import book  # noqa: E402
import copies  # noqa: E402
from sides import Ours, Twin  # noqa: E402

INTRODUCTION = """Alice has an account, and Mallory wants it. Each attack has just been performed three times, in the
    same way: on the twin, a login server as the usual tutorials write it; on this server, with the settings that
    `server.py init` writes unless others are named; and on a copy of this server without the line that stops it."""


def paragraph(text, label=""):
    """Print `text`, wrapped, to the right of its label."""
    label = label.ljust(14) if label else ""
    text, indent = " ".join(text.split()), " " * len(label)
    print(textwrap.fill(text, 79, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False))


def tell(number, attack):
    print(f"\n\n{number}. {attack.title} [{attack.name}]\n")
    paragraph(attack.text)
    print()


def show(edit, context):
    """Print where the line of defence stands, and the edit that removes it; return whether it is there."""
    if not copies.is_there(edit):
        paragraph(f"it is not in {edit.file} any more: {edit.old}", "Its line:")
        return False
    paragraph(f"{edit.file}, line {copies.place_of(edit)}", "Its line:")
    lines = copies.diff(edit, context)
    margin = min(len(line) - len(line[1:].lstrip()) for line in lines)
    print(*(f"{line[0]} {line[margin:]}" for line in lines), sep="\n")
    return True


def verdict(label, seen, must_fall):
    """Print what one side answered, and whether it fell."""
    wrong = "" if seen.fell == must_fall else ", NOT AS IT SHOULD BE"
    paragraph(f"{'FELL' if seen.fell else 'HELD'}{wrong}: {seen.answer}", label)


def perform(chosen):
    """Perform attacks, and tell each; return the exit status."""
    paragraph(INTRODUCTION)
    fell = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (number, attack), copy in zip(chosen, pool.map(copies.perform, [attack for _, attack in chosen])):
            twin, ours = book.perform(attack, Twin), book.perform(attack, Ours)
            tell(number, attack)
            paragraph(twin.sent, "Sent:")
            verdict("The twin:", twin, True)
            verdict("This server:", ours, False)
            if show(attack.edit, context=0):
                verdict("Without it:", copy, True)
            paragraph(attack.read, "To read:")
            fell.append((twin.fell, ours.fell, copy.fell))
    twin, ours, copy = map(sum, zip(*fell))
    many = f"{len(chosen)} attack{'s' * (len(chosen) != 1)}"
    print(f"\n\nOf {many}: the twin fell {twin}, this server {ours}, and without its line {copy}.")
    return 0 if (twin, ours, copy) == (len(chosen), 0, len(chosen)) else 1


def break_it(number, attack):
    """Perform one attack on a copy without its line, and run the test that goes red; return the exit status."""
    tell(number, attack)
    if not show(attack.edit, context=1):
        return 1
    print()
    test, python = copies.name_of(attack.test), copies.python_with_pytest()
    with copies.copy(attack.edit) as directory:
        seen = copies.perform_in(directory, attack)
        paragraph(seen.sent, "Sent:")
        verdict("Without it:", seen, True)
        paragraph(attack.wrong, "Wrong now:")
        print(f"\n$ python3 -m pytest {test}")
        if python:
            red, lines = copies.run_test(directory, python, test)
            print(*lines, sep="\n")
        else:
            red = True
            paragraph("It would go red; but no pytest is here to run it. `make test` gets one.")
    if not red:
        print("NOT AS IT SHOULD BE: the test is not red.")
    paragraph("This was a copy; nothing else has changed.")
    return 0 if seen.fell and red else 1


def choose(arguments):
    """Return the attacks that are meant, each with its number."""
    numbers = {int(argument) for argument in arguments if argument.isdecimal()}
    words = [argument.lower() for argument in arguments if not argument.isdecimal()]
    return [
        (number, attack)
        for number, attack in enumerate(book.ATTACKS, 1)
        if number in numbers or (words and all(word in f"{attack.name} {attack.title}".lower() for word in words))
    ]


def main(arguments):
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows only ASCII
    breaking = arguments[:1] == ["--break"]
    wanted = arguments[breaking:]
    chosen = choose(wanted) if wanted or breaking else list(enumerate(book.ATTACKS, 1))
    if breaking and len(chosen) == 1:
        return break_it(*chosen[0])
    if chosen and not breaking:
        return perform(chosen)
    print("Name one of these, by its number or by words:" if breaking else "There is none like that. There are:")
    for number, attack in chosen or enumerate(book.ATTACKS, 1):
        print(f"{number:4}  {attack.name:21} {attack.title}")
    return 2 if wanted else 0


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The output was closed early, by `| head`. Else the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    book.serverkit.SCRATCH.cleanup()
    sys.exit(status)
