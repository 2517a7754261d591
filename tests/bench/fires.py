"""The longest wait of a good client under each kind of fire, from what tests/prove/fire.py prints."""

from __future__ import annotations

import re
import subprocess
import sys

from goals import Section, number, table
from servers import ROOT

FIRE = ROOT / "tests" / "prove" / "fire.py"
LIMIT = 600  # seconds for all attacks
SHORT = "connect and close"  # the attack of --quick: five seconds
# A name; then p50, p99 and worst in ms on a kept connection, the same on fresh ones, and how much of a core the server
# used, and of the time it or the client was denied one. Long numbers touch, so their decimals part them.
ROW = re.compile(r"(\S.{1,25}?) +" + r"(\d+\.\d\d) *" * 6 + r"(\d+%) *(\d+%) ")


def fires_section(quick: bool) -> Section:
    """Return what is to say about good clients under fire."""
    command = [sys.executable, str(FIRE), *([SHORT] if quick else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return no_fires("it takes too long")
    found = list(filter(None, map(ROW.match, done.stdout.splitlines())))
    attacks = [match for match in found if not match[1].startswith("nobody")]
    if not attacks:
        return no_fires(f"it prints no latencies: {(done.stderr or done.stdout)[-300:]}")
    # An attack that was repeated has two rows: the last one counts.
    worst = {match[1]: max(float(match[4]), float(match[7])) for match in attacks}
    rows = [[match[1], *(number(float(match[i])) for i in range(2, 8)), match[8], match[9]] for match in found]
    words = "As `tests/prove/fire.py` measures it: a good client on a kept connection, and on fresh ones, in ms."
    columns = ["fire", "kept p50", "p99", "worst", "fresh p50", "p99", "worst", "core", "denied"]
    others = [line.strip() for line in done.stdout.splitlines() if re.search("skipped:|not judged|again:|^FAIL", line)]
    said = "".join(f"\n- {line}" for line in others) + "\n" if others else ""
    figures, lacks = {"fire": max(worst.values())}, {}
    if quick:
        figures, lacks = {}, {"fire": f"--quick has only the attack {SHORT!r}."}
    return Section(f"## Fires\n\n{words}\n\n{table(columns, rows)}\n{said}", figures, lacks)


def no_fires(reason: str) -> Section:
    """Return that there is no figure."""
    sentence = f"tests/prove/fire.py gives no figures: {reason}."
    return Section(f"## Fires\n\n{sentence}\n", {}, {"fire": sentence})
