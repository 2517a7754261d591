"""Log: one line an event, in ASCII, with nothing secret in it; a slow reader does not stall the server."""

import io
import logging
import re
import signal
import socket
import subprocess
import threading
import time

import minijwt
import pytest
import server
from serverkit import (
    ACCESS, NOW, REFRESH, TOP, Clock, Process, address_of, answers, build, cookie_of, raw, read_all, wait_until,
)  # fmt: skip
from sessionkit import (
    PASSWORD, SECRETS, add_cheaply, attempt, enter, exchange, follow, leave, raw_login, raw_logout, raw_refresh, sign,
    use,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("memory")

STAMP = "2027-01-15T08:00:00Z"  # NOW

LINES = [
    ("a word", {"user": "ann"}, "user=ann"),
    ("empty", {"user": ""}, 'user=""'),
    ("a space", {"user": "ann smith"}, 'user="ann smith"'),
    ("a quote", {"user": 'a"b'}, 'user="a\\"b"'),
    ("a backslash", {"user": "a\\b"}, None),
    ("an equals sign", {"user": "a=b"}, 'user="a=b"'),
    ("a line feed", {"user": "a\nb"}, None),
    ("a forged line", {"user": f"x\n{STAMP} login result=ok user=admin"}, None),
    ("a forged field", {"user": "x result=ok"}, 'user="x result=ok"'),
    ("a forged end of quote", {"user": 'x" result="ok'}, 'user="x\\" result=\\"ok"'),
    ("an escaped quote", {"user": 'x\\" result=ok y="'}, None),
    ("an escape sequence", {"user": "\x1b[2J"}, None),
    ("a C1 control", {"user": "\x9b2J"}, None),
    ("NUL", {"user": "\0"}, None),
    ("Latin", {"user": "\xe9va"}, None),
    ("Chinese", {"user": "\u738b"}, None),
    ("an emoji", {"user": "\U0001f600"}, None),
    ("half a pair", {"user": "\ud800"}, None),
    ("a line separator", {"user": "a\u2028b"}, None),
    ("64 characters", {"user": "x" * 64}, "user=" + "x" * 64),
    ("65 characters", {"user": "x" * 65}, "user=" + "x" * 64),
    ("64 and a quote", {"user": "x" * 64 + '"'}, "user=" + "x" * 64),
    ("a megabyte", {"user": "\n" * 1_000_000}, None),
]

FIELD = re.compile(r'([a-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"=]+))')


@pytest.mark.parametrize("fields, text", [pytest.param(*case[1:], id=case[0]) for case in LINES])
def test_whatever_a_value_is_its_line_is_one_line_of_ascii_with_one_field(fields, text):
    line = server.log_line(NOW, server.Event("login", fields))
    assert line.isascii() and line.isprintable()
    stamp, name, rest = line.split(" ", 2)
    assert (stamp, name) == (STAMP, "login")
    assert text is None or rest == text
    match = FIELD.fullmatch(rest)
    assert match and match[1] == "user"
    value = (match[2] if match[2] is not None else match[3]).replace('\\"', '"')
    assert value.encode("ascii").decode("unicode_escape") == fields["user"][: server.MAX_VALUE_CHARS]


@pytest.mark.parametrize("name", ["start", "settings"])
def test_what_is_set_is_told_in_full(name):
    origins = ", ".join(f"https://app{number}.example" for number in range(20))
    assert server.log_line(NOW, server.Event(name, {"ORIGINS": origins})) == f'{STAMP} {name} ORIGINS="{origins}"'


def lines_of(log):
    return [server.log_line(NOW, event)[len(STAMP) + 1 :] for event in log]


def test_each_event_of_a_life_is_one_line():
    app = build(rotate_refresh=True, login_max_failures=3)
    app.accounts.add_user("ann", PASSWORD)
    found = []

    def event(answer):
        found.extend(lines_of(answer.events))
        return answer

    at = "192.0.2.7"
    cookie = cookie_of(event(attempt(app, "ann", PASSWORD, at)))
    sid = minijwt.decode(cookie, REFRESH, now=NOW)["sid"][:8]
    event(attempt(app, "ann", "wrong", at))
    event(attempt(app, "hunter2", "oops", at))
    for _ in range(3):
        answer = attempt(app, "ann", "wrong", at)
    event(answer)
    event(use(app, "x"))
    event(use(app))
    event(use(app, sign("ann", epoch="f" * 16)))
    assert event(use(app, cookie)).status == 200
    follow(app, follow(app, cookie))
    event(use(app, cookie))
    token = enter(app)
    event(leave(app, token))
    event(leave(app))
    expected = [
        f"login result=ok user=ann session={sid} address={at}",
        f"login result=wrong_credentials user=ann address={at}",
        f"login result=wrong_credentials user=unknown address={at}",
        "login result=throttled",
        "refresh result=decode_error user=unknown session=none",
        "refresh result=no_token user=unknown session=none",
        "refresh result=sessions_ended user=ann session=55555555",
        f"refresh result=reuse_detected user=ann session={sid}",
        "logout user=ann session=",
    ]
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected):
        assert line.startswith(beginning), line


def test_names_that_are_not_users_are_not_logged():
    app = build()
    app.accounts.add_user("ann", PASSWORD)
    for name in ("hunter2", "my password", "admin", "x" * 300):
        (event,) = attempt(app, name, "ann").events
        assert event.fields["user"] == "unknown"


def test_events_name_the_client_and_not_the_proxy():
    app = build(trusted_proxies=server.read_networks("10.0.0.0/8"))
    app.accounts.add_user("ann", PASSWORD)
    token = cookie_of(attempt(app, "ann", PASSWORD))
    fields = {b"x-forwarded-for": b"203.0.113.5"}

    def address(path, cookie):
        about = {**fields, b"cookie": f"jwt={cookie}".encode()}
        (event,) = server.respond(
            app, server.Request("POST", path, about, address=address_of(app, "10.0.0.1", about))
        ).events
        return event.fields["address"]

    assert (
        attempt(app, "ann", "x", "10.0.0.1", x_forwarded_for="203.0.113.5").events[0].fields["address"] == "203.0.113.5"
    )
    assert address("/refresh", "x") == "203.0.113.5"
    assert address("/logout", token) == "203.0.113.5"


def test_nothing_that_is_logged_is_a_secret(tmp_path):
    path = tmp_path / "users.db"
    add_cheaply(path)
    environment = {"DATABASE": str(path), "ROTATE_REFRESH": "on", **SECRETS}
    with Process(tmp_path, **environment) as process:

        def one(data):
            (answer,) = answers(process.exchange(data))
            return answer

        answer = one(raw_login("ann", PASSWORD))
        tokens = [answer["Set-Cookie"].partition(";")[0][4:], answer.json["accessToken"]]
        for _ in range(3):
            tokens.append(one(raw_refresh(tokens[-1 if len(tokens) > 2 else 0]))["Set-Cookie"].partition(";")[0][4:])
        one(raw_login("hunter2 is my password", "and this one too"))
        one(raw_login("ann", "not the password"))
        one(raw_refresh(tokens[0]))
        one(raw_refresh(tokens[1]))
        one(raw_logout(tokens[-1]))
        one(raw("GET", "/me", b"", f"Authorization: Bearer {tokens[1]}"))
        one(raw("GET", f"/?token={tokens[1]}"))
        one(raw("POST", "/login", b"username=\xff&password=\xff", "Content-Type: text/plain"))
        status, out, err = process.stop()
    assert status == 0 and err.isascii()
    secrets = [ACCESS.decode(), REFRESH.decode(), PASSWORD, "hunter2", "this one too", "not the password", "scrypt$"]
    for secret in secrets + tokens + [part for token in tokens for part in token.split(".")[1:]]:
        assert secret not in err and secret not in out
    names = [line.split(" ")[1:3] for line in err.splitlines() if not line.startswith("server.py: warning")]
    assert [" ".join(each[: 2 if each[0] not in ("start", "settings") else 1]) for each in names] == [
        "start",
        "settings",
        "login result=ok",
        "login result=wrong_credentials",
        "login result=wrong_credentials",
        "refresh result=reuse_detected",
        "refresh result=invalid_signature",
        "logout user=ann",
        "login result=malformed",
        "stop",
    ]
    now = time.strftime("%Y-%m-%d", time.gmtime())
    assert all(line.startswith(now) and line[19] == "Z" for line in err.splitlines() if "warning" not in line)


class Stuck(io.BytesIO):
    """A stream that is not read until `open` is set."""

    def __init__(self):
        super().__init__()
        self.open, self.reached = threading.Event(), threading.Event()

    def write(self, data):
        self.reached.set()
        assert self.open.wait(30)
        return super().write(data)


def test_a_log_that_is_not_read_stalls_no_thread_and_lost_lines_are_counted():
    stream = Stuck()
    log = server.Log(stream, Clock())
    log(server.Event("first", {}))
    assert stream.reached.wait(10)
    for number in range(server.MAX_WAITING_LINES + 250):
        log(server.Event("login", {"number": str(number)}))
    stream.open.set()
    wait_until(lambda: stream.getvalue().count(b"\n") == server.MAX_WAITING_LINES + 1)
    log(server.Event("last", {}))
    log.close(10)
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().decode().splitlines()]
    assert lines[0] == "first" and lines[1 : server.MAX_WAITING_LINES + 1] == [
        f"login number={number}" for number in range(server.MAX_WAITING_LINES)
    ]
    assert lines[server.MAX_WAITING_LINES + 1 :] == ["log dropped=250", "last"]


def test_a_log_whose_reader_has_gone_is_no_fault():
    class Gone(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError

    log = server.Log(Gone())
    for _ in range(10):
        log(server.Event("login", {}))
    log.close(10)
    stream = io.BytesIO()
    log = server.Log(stream)
    stream.close()
    log(server.Event("login", {}))
    log.close(10)


def flood(port, count):
    """Have `count` refreshes refused, each of which is a line in the log."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        data = raw_refresh("x" * 20) * count + raw("GET", "/", b"", "Connection: close")
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        received = read_all(client)
        sender.join(30)
    return received.count(b"HTTP/1.1 406 ")


def test_a_server_whose_log_is_not_read_goes_on_and_stops_when_told(tmp_path):
    process = Process(tmp_path, **SECRETS)
    try:
        assert flood(process.port, 3_000) == 3_000
        assert answers(exchange(process.port, raw("GET", "/")))[0].status == 200
        process.process.send_signal(signal.SIGTERM)
        try:
            status = process.process.wait(15)
        except subprocess.TimeoutExpired:
            status = "it hangs"
        assert status == 0
    finally:
        process.process.kill()
        process.process.communicate(timeout=20)


def test_a_server_whose_log_reader_has_gone_goes_on(tmp_path):
    process = Process(tmp_path, **SECRETS)
    process.process.stderr.close()
    assert flood(process.port, 50) == 50
    assert answers(exchange(process.port, raw_login()))[0].status == 200
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(15) == 0
    process.process.stdout.close()


def test_what_python_logs_takes_the_same_way(tmp_path, monkeypatch):
    stream = io.BytesIO()
    log = server.Log(stream, Clock())
    logging.getLogger("a test").addHandler(handler := logging.StreamHandler(log))
    try:
        logging.getLogger("a test").warning("in\ntwo lines")
    finally:
        logging.getLogger("a test").removeHandler(handler)
    log.close(10)
    assert stream.getvalue() == b"in\ntwo lines\n"


def test_tracebacks_that_are_not_read_do_not_stall_the_server(tmp_path):
    (tmp_path / "faulty.py").write_text(
        "import sys, server\n"
        "server.ROUTES['/']['GET'] = server.Route(lambda app, request: 1 / 0)\n"
        "sys.exit(server.main([]))\n"
    )
    with Process(tmp_path, program=tmp_path / "faulty.py", PYTHONPATH=str(TOP), **SECRETS) as process:
        data = raw("GET", "/") * 2_000 + raw("GET", "/nothing", b"", "Connection: close")
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as client:
            sender = threading.Thread(target=client.sendall, args=(data,))
            sender.start()
            assert read_all(client).count(b"HTTP/1.1 500 ") == 2_000
            sender.join(30)
        status, _, errors = process.stop()
    assert status == 0 and "Traceback" in errors


def test_a_pipe_that_takes_a_part_of_a_line_gets_the_rest():
    class Narrow(io.BytesIO):
        def write(self, data):
            return super().write(data[:7])

    stream = Narrow()
    log = server.Log(stream, Clock())
    log.write("a line of more than seven bytes")
    log.close(10)
    assert stream.getvalue() == b"a line of more than seven bytes\n"


FAULT_IN_A_THREAD = """
import sys, threading, warnings, server
def get_root(app, request):
    threading.Thread(target=lambda: 1 / 0).start()
    warnings.warn("w" * 1_000)
    return server.Response(200)
warnings.simplefilter("always")
server.ROUTES['/']['GET'] = server.Route(get_root)
sys.exit(server.main([]))
"""


def test_what_python_says_on_standard_error_never_stalls_the_server_either(tmp_path):
    """Warnings, and exceptions in threads: a pipe that is not read is full after fifty of them."""
    (tmp_path / "faulty.py").write_text(FAULT_IN_A_THREAD)
    process = Process(tmp_path, program=tmp_path / "faulty.py", PYTHONPATH=str(TOP), **SECRETS)
    try:
        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as client:
            client.sendall(raw("GET", "/") * 300 + raw("GET", "/", b"", "Connection: close"))
            assert read_all(client).count(b"HTTP/1.1 200 ") == 301
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(15) == 0
    finally:
        process.process.kill()
        assert b"ZeroDivisionError" in process.process.stderr.buffer.read()
        process.process.communicate(timeout=20)
