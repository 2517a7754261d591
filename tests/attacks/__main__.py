"""The attack book as a narrated demo: `python3 tests/attacks [WORDS OF A TITLE]`.

Performs every attack, or those whose titles hold all the words, on the naive twin and on this server, and tells what
each side answered. Exit status: 0 if the twin fell every time and this server never, 1 if not, 2 for unknown words.
"""

import signal
import sys
import textwrap
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[up]) for up in range(3)]  # this directory, tests/, the two files

import book  # noqa: E402

INTRODUCTION = """Two servers, one attacker. The twin is a login server as the usual tutorials write it. This server is
    minijwt, with the settings that `server.py init` writes. (Its defaults are those of a tutorial and do not rotate:
    with them a stolen refresh token, attack 10, is good until it expires.) Alice has an account on both. Mallory has
    one too, and wants Alice's. Every attack below has just been performed on both, in the same way."""


def paragraph(text, label="", indent=0):
    """Print `text`, wrapped; it stands `indent` columns to the right, beside its label."""
    first, others = label.ljust(indent), " " * indent
    text = " ".join(text.split())
    print(textwrap.fill(text, 79, initial_indent=first, subsequent_indent=others, break_on_hyphens=False))


def tell(number, attack, outcome):
    """Print one attack."""
    print(f"\n\n{number}. {attack.title}\n")
    paragraph(attack.text)
    print()
    paragraph(outcome.sent, "Sent:", 13)
    paragraph(outcome.twin, "The twin:", 13)
    paragraph(outcome.ours, "This server:", 13)
    for label, fragment in zip(["Stopped by:", "and by:"], attack.stopped_by):
        paragraph("{}, line {}".format(*book.place_of(fragment)), label, 13)
        paragraph(fragment, indent=4)
    paragraph(attack.read, "To read:", 13)
    if not outcome.twin_fell or outcome.we_fell:
        print("\nNOT AS IT SHOULD BE: the twin must fall, and this server must not.")


def main(words):
    """Perform the attacks whose titles hold all `words`; return the exit status."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows only ASCII
    chosen = [
        (number, attack)
        for number, attack in enumerate(book.ATTACKS, 1)
        if all(word.lower() in attack.title.lower() for word in words)
    ]
    if not chosen:
        print("No title holds these words. There are:", *(attack.title for attack in book.ATTACKS), sep="\n  ")
        return 2
    paragraph(INTRODUCTION)
    twin = ours = 0
    for number, attack in chosen:
        outcome = book.perform(attack)
        tell(number, attack, outcome)
        twin, ours = twin + outcome.twin_fell, ours + outcome.we_fell
    attacks, times = (f"{n} {word}{'s' * (n != 1)}" for n, word in ((len(chosen), "attack"), (twin, "time")))
    print(f"\n\n{attacks}: the twin fell {times}, this server {ours}.")
    return 0 if (twin, ours) == (len(chosen), 0) else 1


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for `| head`
    status = main(sys.argv[1:])
    book.serverkit.SCRATCH.cleanup()
    sys.exit(status)
