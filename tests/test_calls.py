"""How long the path of one `/refresh` is, in Python calls and in bytecodes: what is longer is slower at every answer.

No clock is read here, so a busy machine changes nothing. Only what the loop's own thread does in our two files counts.
A ceiling stands a little above what was reached; one that must be raised is a decision, as a new import is one.
"""

import os
import sys

import pytest

import minijwt
import server
import serverkit as kit

FILES = {os.path.abspath(module.__file__) for module in (minijwt, server)}
WARM_UP, REFRESHES = 20, 100  # on one kept connection; beside so many, what starts and ends the count is nothing
MOST_CALLS = 78  # of Python functions and generators, for one refresh
MOST_BYTECODES = 2_850  # of CPython 3.11; each version compiles to others


class Calls:
    """Counts calls of our functions, and resumptions of our generators, in the thread where it is begun."""

    def __init__(self):
        self.number = 0

    def begin(self):
        self.before = sys.getprofile()
        sys.setprofile(self.count)

    def end(self):
        sys.setprofile(self.before)

    def count(self, frame, event, argument):
        if event == "call" and frame.f_code.co_filename in FILES:
            self.number += 1


class Bytecodes:
    """Counts bytecodes of our functions that are called from now on, in the thread where it is begun."""

    def __init__(self):
        self.number = 0

    def begin(self):
        self.before = sys.gettrace()
        sys.settrace(self.enter)

    def end(self):
        sys.settrace(self.before)

    def enter(self, frame, event, argument):
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self.count

    def count(self, frame, event, argument):
        if event == "opcode":
            self.number += 1
        return self.count


def ask(client, data):
    """Send a request and return its answer, which the server sends in one piece."""
    client.sendall(data)
    (answer,) = kit.answers(client.recv(65_536))
    return answer


def for_one_refresh(counter):
    """Return how many of what `counter` counts one refresh takes, with the checks and settings of every server."""
    # The clocks stand still: no sweep falls into the count, and no look at the database's file.
    with kit.Timed() as running, running.connect() as client:
        cookie = "Cookie: " + ask(client, kit.RAW_LOGIN)["Set-Cookie"].partition(";")[0]
        request = kit.raw("POST", "/refresh", b"", "User-Agent: test", "Accept: */*", cookie, "Content-Length: 0")
        for _ in range(WARM_UP):
            assert ask(client, request).status == 200
        running.call(counter.begin)
        try:
            for _ in range(REFRESHES):
                assert ask(client, request).status == 200
        finally:
            running.call(counter.end)
    return counter.number // REFRESHES


def test_a_refresh_takes_few_calls():
    calls = for_one_refresh(Calls())
    assert MOST_CALLS // 2 < calls <= MOST_CALLS


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info[:2] != (3, 11),
    reason="the ceiling is that of CPython 3.11: each version has bytecodes of its own",
)
def test_a_refresh_takes_few_bytecodes():
    bytecodes = for_one_refresh(Bytecodes())
    assert MOST_BYTECODES // 2 < bytecodes <= MOST_BYTECODES
