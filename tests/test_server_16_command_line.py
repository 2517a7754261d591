"""Command line: the server as its operator sees it, in a process of its own; `user` and `init` as transcripts."""

import io
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time

import minijwt
import pytest
import server
from serverkit import (
    ACCESS, CHEAP, PEM, RAW_LOGIN, REFRESH, TOP, Process, answers, client_context, raw, refresh_token,
    served_without_a_network, wait_until,
)  # fmt: skip
from sessionkit import PASSWORD, SECRETS, add_cheaply, command, raw_login

HERE = {"DATABASE": "users.db", **SECRETS}


@pytest.fixture
def cheap(monkeypatch, tmp_path, capsys):
    """Run a command in this process, where hashing is cheap; return status, output and errors without their time."""
    monkeypatch.chdir(tmp_path)
    for name in server.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in HERE.items():
        monkeypatch.setenv(name, value)
    real = server.Accounts
    monkeypatch.setattr(server, "Accounts", lambda settings, store: real(settings, store, time.time, CHEAP))

    def run(line, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8"))))
        try:
            status = server.main(line.split() if isinstance(line, str) else line)
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


# -- serving


def cookie(process):
    (login,) = answers(process.exchange(RAW_LOGIN))
    return login["Set-Cookie"].partition(";")[0]


def refreshed(process, field):
    (answer,) = answers(process.exchange(raw("POST", "/refresh", b"", f"Cookie: {field}")))
    return answer.status


def test_it_greets_warns_serves_and_ends_in_order(tmp_path):
    with Process(tmp_path) as process:
        assert process.greeting == f"Server active on http://localhost:{process.port}!"
        assert refreshed(process, cookie(process)) == 200
        status, out, err = process.stop()
    assert (status, out) == (0, process.greeting + "\n")
    warnings = [line for line in err.splitlines() if line.startswith("server.py: warning: ")]
    assert len(warnings) == 2 and "demo user" in err and "random" in err
    log = [line.split(" ")[1:3] for line in err.splitlines() if line not in warnings]
    start = ["start", f"version={minijwt.__version__}"]
    assert log == [start, ["settings", "PORT=0"], ["login", "result=ok"], ["stop"]]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_stops_it(tmp_path, name):
    with Process(tmp_path) as process:
        status, _, errors = process.stop(getattr(signal, name))
    assert status == 0 and errors.endswith(" stop\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_it_though_the_shell_that_started_it_ignored_that_one(tmp_path, name):
    """As shells do with SIGINT for what they start in the background."""
    background = ("sh", "-c", f'trap "" {name[3:]}; exec "$@"', "sh", sys.executable)
    with Process(tmp_path, background) as process:
        process.process.send_signal(getattr(signal, name))
        try:
            status = process.process.wait(10)
        except subprocess.TimeoutExpired:
            process.process.kill()
            status = "it goes on"
        assert status == 0


def test_a_server_that_is_to_outlive_its_terminal_does(tmp_path):
    nohup = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable)
    with Process(tmp_path, nohup) as process:
        process.process.send_signal(signal.SIGHUP)
        assert refreshed(process, cookie(process)) == 200
        assert process.stop()[0] == 0


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionError:
        return True
    return False


def test_a_second_signal_stops_it_at_once(tmp_path):
    with Process(tmp_path) as process:
        with socket.create_connection(("127.0.0.1", process.port), timeout=0.2) as client:
            with pytest.raises(OSError):  # it does not read, and so what it is sent keeps the server from stopping
                while True:
                    client.sendall(raw("GET", "/") * 1_000)
            process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(process.port))
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(5) == 1


def test_a_server_with_random_secrets_makes_no_file(tmp_path):
    with Process(tmp_path, TMPDIR=str(tmp_path)) as process:
        assert refreshed(process, cookie(process)) == 200
        assert os.listdir(tmp_path) == []
        assert " database=memory " in process.stop()[2]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("given", [SECRETS, {"DATABASE": "users.db"}])
def test_a_server_that_lasts_names_its_file(tmp_path, given):
    with Process(tmp_path, **given) as process:
        path = tmp_path / given.get("DATABASE", "minijwt.db")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert f" database={path} " in process.stop()[2]


def test_a_restart_with_the_same_secrets_keeps_all_sessions(tmp_path):
    with Process(tmp_path, **SECRETS) as process:
        field = cookie(process)
    with Process(tmp_path, **SECRETS) as process:
        assert refreshed(process, field) == 200
        assert "random" not in process.stop()[2]
    with Process(tmp_path) as process:
        assert refreshed(process, field) == 406, "other secrets"


def test_a_token_of_the_tutorials_own_app_works_in_a_running_server(tmp_path):
    now = int(time.time())
    token = minijwt.encode({"username": "admin", "iat": now, "exp": now + 60}, REFRESH)
    with Process(tmp_path, **SECRETS) as process:
        assert refreshed(process, f"jwt={token}") == 200
        assert refreshed(process, f"jwt={refresh_token(username='nobody', iat=now)}") == 406


def test_settings_come_from_dotenv_in_the_working_directory(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("\ufeffexport UNAUTHORIZED_STATUS = '401'\r\nCOOKIE_NAME=\"sid\" # ours\r\n", "utf-8")
    dotenv.chmod(0o600)
    with Process(tmp_path) as process:
        assert cookie(process).startswith("sid=")
        assert refreshed(process, "sid=x") == 401


REFUSALS = [
    ({"PORT": "http"}, "PORT is 'http' (from the environment): it must be"),
    ({"HOST": "example.org"}, "HOST is 'example.org' (from the environment): it must be"),
    ({"ACCESS_TOKEN_SECRET": "a" * 32}, "ACCESS_TOKEN_SECRET is set alone"),
    ({"ACCESS_TOKEN_TTL": "10"}, "ACCESS_TOKEN_TTL is '10' (from the environment): it must be"),
    ({"HOST": "0.0.0.0", **SECRETS}, "HOST=0.0.0.0 would let other machines in"),
]


@pytest.mark.parametrize("environment, sentence", REFUSALS)
def test_a_wrong_setting_is_one_sentence_and_status_2(tmp_path, environment, sentence):
    status, out, err = command(tmp_path, **environment)
    assert (status, out) == (2, "")
    assert err.startswith(f"server.py: {sentence}") and err.count("\n") == 1


@pytest.mark.parametrize("line", ["", "user add ann"])
def test_what_others_may_have_put_beside_the_database_is_not_taken_over(tmp_path, line):
    wal = tmp_path / "minijwt.db-wal"
    wal.write_bytes(b"")
    wal.chmod(0o666)
    opened = {"HOST": "0.0.0.0", "TRUSTED_PROXIES": "127.0.0.1", **SECRETS}
    status, out, err = command(tmp_path, *line.split(), stdin=PASSWORD + "\n", **opened)
    assert (status, out, os.listdir(tmp_path)) == (2, "", [wal.name])
    assert "minijwt.db-wal can be read or written by others" in err and err.count("\n") == 1


def test_a_port_in_use_is_one_sentence_and_status_1(tmp_path):
    (taken,) = server.listen("127.0.0.1", 0)
    port = str(taken.getsockname()[1])
    status, out, err = command(tmp_path, PORT=port, HOST="127.0.0.1", **SECRETS)
    assert (status, out) == (1, "") and f"server.py: PORT {port} is in use" in err
    assert "Traceback" not in err
    taken.close()


def test_a_database_that_is_locked_is_one_sentence_and_status_1(tmp_path, cheap, monkeypatch):
    monkeypatch.setattr(server, "BUSY_SECONDS", 0.05)
    cheap("user add ann", PASSWORD)
    other = sqlite3.connect(tmp_path / "users.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for line in ("user logout ann", "user add bob"):
        status, out, err = cheap(line, PASSWORD)
        assert (status, out) == (1, "") and "database is locked" in err and err.count("\n") == 1
    other.close()


def test_help_names_every_variable(tmp_path):
    status, out, err = command(tmp_path, "--help")
    assert (status, err) == (0, "") and all(name in out for name in server.VARIABLES)


@pytest.mark.parametrize("arguments", [["--port", "8601"], ["--nonsense"], ["8601"]])
def test_who_gives_settings_as_arguments_is_told_where_they_come_from(tmp_path, arguments):
    status, out, err = command(tmp_path, *arguments)
    assert (status, out) == (2, "")
    assert "settings come from the environment or .env: PORT=8000 python3 server.py" in err


def test_the_version_is_one_line(tmp_path):
    assert command(tmp_path, "--version") == (0, f"minijwt {minijwt.__version__}\n", "")


def test_selftest_shows_that_all_works_and_leaves_nothing_behind(tmp_path):
    status, out, err = command(tmp_path, "selftest", TMPDIR=str(tmp_path))
    assert (status, err) == (0, "")
    assert [line[:8] for line in out.splitlines()] == ["ok      "] * 5
    assert os.listdir(tmp_path) == []


def test_a_selftest_that_fails_says_which_line(cheap, monkeypatch):
    monkeypatch.setattr(server, "RFC_KEY", server.RFC_KEY.swapcase())
    status, out, err = cheap("selftest")
    assert status == 1 and [line.split()[0] for line in out.splitlines()] == ["FAILED", "ok", "ok", "ok", "ok"]


def test_token_is_what_minijwt_does(cheap):
    status, out, err = cheap("token keygen")
    assert (status, err) == (0, "") and len(minijwt.base64url_decode(out.strip().encode())) == 32


def test_it_tells_what_is_set_and_what_it_does_not_know_and_no_secret(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("ACCESS_TOKEN_TLL=5m\nREFRESH_TOKEN_TTL=2d\n", "ascii")
    dotenv.chmod(0o600)
    with Process(tmp_path, ALLOWED_ORIGINS="https://app.example", **SECRETS) as process:
        lines = process.stop()[2].splitlines()
    warned = "server.py: warning: .env sets ACCESS_TOKEN_TLL, which is no setting of this server"
    assert warned in lines
    (start,) = [line for line in lines if " start " in line]
    assert all(f" {name}=" in start for name in ("version", "url", "python", "sqlite", "openssl"))
    (settings,) = [line for line in lines if " settings " in line]
    for part in ('ACCESS_TOKEN_SECRET="40 bytes"', "REFRESH_TOKEN_TTL=2d", "ALLOWED_ORIGINS=https://app.example"):
        assert f" {part.replace('40', str(len(ACCESS)))}" in settings


def test_the_log_holds_no_secret_and_no_token(tmp_path):
    with Process(tmp_path, **SECRETS) as process:
        field = cookie(process)
        process.exchange(b"\xff\x00garbage\r\n\r\n")
        log = "".join(process.stop()[1:])
    for secret in (ACCESS.decode(), REFRESH.decode(), field, "admin123", "garbage"):
        assert secret not in log


def test_what_the_system_refuses_is_one_sentence(tmp_path):
    """A directory where nothing may be made, no standard input."""
    gone = tmp_path / "gone"
    gone.mkdir()
    program = [sys.executable, str(TOP / "server.py")]
    cases = [
        (f'rmdir "{gone}" && exec "$@" init', gone, 1, "No such file"),
        ('DATABASE=x.db exec "$@" user add ann <&-', tmp_path, 2, "a password has at least 8"),
    ]
    for script, directory, status, sentence in cases:
        command = ["sh", "-c", script, "sh", *program]
        done = subprocess.run(
            command, cwd=directory, env={"PORT": "0", "PATH": os.defpath}, capture_output=True, text=True
        )
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
        assert sentence in done.stderr.splitlines()[-1]


def test_a_process_serves_tls_and_says_so(tmp_path):
    with Process(tmp_path, TLS_CERT=PEM, TLS_KEY=PEM) as process:
        assert process.greeting == f"Server active on https://localhost:{process.port}!"
        plain = socket.create_connection(("127.0.0.1", process.port), timeout=10)
        with client_context().wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(RAW_LOGIN)
            assert answers(client.recv(65_536))[0].status == 200
        status, _, errors = process.stop()
    assert status == 0 and "Traceback" not in errors


def test_a_process_with_a_bad_key_says_one_sentence_and_exits_2(tmp_path):
    process = Process(tmp_path, TLS_CERT=PEM, TLS_KEY="missing.pem")
    status, _, errors = process.stop()
    assert (status, errors) == (2, "server.py: TLS_KEY missing.pem cannot be read: No such file or directory\n")


def test_it_serves_where_there_is_no_network_at_all():
    served_without_a_network(sys.executable, TOP / "server.py")


# -- user

CONTROL = "a name has 1 to 255 bytes, and no control characters or white space around it"
TRANSCRIPT = [  # (command, standard input, status, output, what is said, but for the directory)
    ("user list", "", 2, "", "server.py: DATABASE users.db does not exist: `python3 server.py user add NAME` makes one"),
    ("user add ann", "correct horse\n", 0, "", "user action=add user=ann database=users.db"),
    ("user list", "", 0, "ann\n", None),
    ("user add ann", "another horse\n", 2, "",
     "server.py: there is a user ann already: `user passwd` changes the password"),
    ("user add bob", "correct horse\r\nnot read\n", 0, "", "user action=add user=bob database=users.db"),
    ("user add cy", "12345678", 0, "", "user action=add user=cy database=users.db"),
    ("user add dee", "1234567\n", 2, "", "server.py: a password has at least 8 characters"),
    ("user add dee", "", 2, "", "server.py: a password has at least 8 characters"),
    ("user add dee", "x" * 1_025, 2, "", "server.py: a password has at most 1024 bytes"),
    (["user", "add", "d\x1b[1me"], "12345678", 2, "", f"server.py: {CONTROL}"),
    (["user", "add", ""], "12345678", 2, "", f"server.py: {CONTROL}"),
    (["user", "add", " dee"], "12345678", 2, "", f"server.py: {CONTROL}"),
    (["user", "add", "\u0394 \xe9"], "12345678", 0, "", 'user action=add user="\\u0394 \\xe9" database=users.db'),
    ("user list", "", 0, "ann\nbob\ncy\n\u0394 \xe9\n", None),
    ("user passwd ann", "a third horse\n", 0, "", "user action=passwd user=ann database=users.db"),
    ("user passwd ann", "short\n", 2, "", "server.py: a password has at least 8 characters"),
    ("user passwd nobody", "a third horse\n", 2, "", "server.py: there is no user nobody in users.db"),
    ("user logout ann", "", 0, "", "user action=logout user=ann database=users.db"),
    ("user logout nobody", "", 2, "", "server.py: there is no user nobody in users.db"),
    ("user remove bob", "", 0, "", "user action=remove user=bob database=users.db"),
    ("user remove bob", "", 2, "", "server.py: there is no user bob in users.db"),
    ("user list", "", 0, "ann\ncy\n\u0394 \xe9\n", None),
]  # fmt: skip


def test_the_user_commands_as_one_transcript(cheap):
    directory = os.getcwd() + os.sep
    for line, stdin, status, out, sentence in TRANSCRIPT:
        found = cheap(line, stdin)
        said = re.sub(r"^20\S+ ", "", found[2].replace(directory, ""))
        assert (*found[:2], said) == (status, out, f"{sentence}\n" if sentence else ""), line
    store = server.SQLiteStore("users.db")
    assert server.check_password("a third horse", store.look_up("ann", "", 0).password)
    store.close()


@pytest.mark.parametrize("host, warned", [("localhost", True), ("192.0.2.1", False)])
def test_removing_the_last_user_warns_that_the_demo_user_is_let_in(cheap, monkeypatch, host, warned):
    monkeypatch.setenv("HOST", host)
    for name in ("ann", "bob"):
        cheap(f"user add {name}", "correct horse\n")
    assert "warning" not in cheap("user remove ann")[2]
    assert ("that was the last user: admin is let in" in cheap("user remove bob")[2]) is warned


@pytest.mark.parametrize("action", ["add", "passwd", "remove", "logout"])
@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "\x9b2J", "a\rb", "\ud800", "\u202egnp.exe"])
def test_a_name_with_control_characters_is_refused_in_one_clean_sentence(cheap, action, name):
    status, out, err = cheap(["user", action, name], PASSWORD)
    assert (status, out) == (2, "") and err.startswith("server.py: ")
    assert err.count("\n") == 1 and err[:-1].isprintable(), "it would reach the terminal"
    assert "codec" not in err


USAGE = [
    "user",
    "user add",
    "user add ann secret",
    "user add ann --password secret",
    "user list ann",
    "user frob ann",
    "frob",
]


@pytest.mark.parametrize("line", USAGE)
def test_a_password_is_never_taken_from_the_command_line(cheap, line):
    status, out, err = cheap(line, PASSWORD)
    assert (status, out) == (2, "") and err.startswith("usage: server.py")
    assert cheap("user list")[1] == ""


@pytest.mark.parametrize("action", [["list"], ["add", "ann"], ["passwd", "ann"], ["remove", "ann"], ["logout", "ann"]])
def test_without_secrets_or_a_database_the_user_commands_refuse_and_name_init(tmp_path, action):
    if action == ["list"]:
        status, out, err = command(tmp_path, "user", *action, stdin=PASSWORD)
        assert (status, out) == (2, "") and os.listdir(tmp_path) == []
        assert err.startswith("server.py: ") and err.count("\n") == 1 and "init" in err
    with pytest.raises(server.SettingsError, match="init"):
        before, at = dict(os.environ), os.getcwd()
        try:
            for name in server.VARIABLES:
                os.environ.pop(name, None)
            os.chdir(tmp_path)
            server.user_command(server.argument_parser().parse_args(["user", *action]))
        finally:
            os.chdir(at)
            os.environ.update(before)


@pytest.mark.long
@pytest.mark.parametrize("given", [SECRETS, {"DATABASE": "users.db"}])
def test_secrets_or_a_database_are_enough_and_only_add_makes_one(tmp_path, given):
    path = tmp_path / given.get("DATABASE", "minijwt.db")
    for action in (["list"], ["passwd", "ann"], ["remove", "ann"], ["logout", "ann"]):
        status, out, err = command(tmp_path, "user", *action, stdin=PASSWORD, **given)
        assert (status, out) == (2, "") and f"DATABASE {path} does not exist" in err
    assert os.listdir(tmp_path) == []
    assert command(tmp_path, "user", "add", "ann", stdin=PASSWORD, **given)[0] == 0
    assert os.listdir(tmp_path) == [path.name] and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert command(tmp_path, "user", "list", **given) == (0, "ann\n", "")


def test_a_password_that_cannot_be_hashed_is_said_so(cheap, monkeypatch):
    def hash_password(password, cost):
        raise server.HashFailed("scrypt: no memory")

    monkeypatch.setattr(server, "hash_password", hash_password)
    status, out, err = cheap("user add ann", PASSWORD)
    assert (status, out) == (1, "") and "hashed" in err and "database" not in err and err.count("\n") == 1
    assert cheap("user list")[:2] == (0, "")


TERMINAL = """
import os, pty, sys
pid, master = pty.fork()
if not pid:
    os.execv(sys.executable, [sys.executable, sys.argv[1], "user", "add", "ann"])
seen, answers = b"", [each.encode() + b"\\n" for each in sys.argv[2:]]
try:
    while True:
        data = os.read(master, 1024)
        if not data:
            break
        seen += data
        while answers and seen.count(b": ") > (2 - len(answers)):
            os.write(master, answers.pop(0))
except OSError:
    pass
print(os.waitpid(pid, 0)[1] >> 8, seen.replace(b"\\r", b"").decode())
"""


@pytest.mark.parametrize(
    "again, status, sentence", [(PASSWORD, 0, "action=add user=ann"), ("other", 2, "the two passwords differ")]
)
def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(tmp_path, terminal, again, status, sentence):
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, str(TOP / "server.py"), PASSWORD, again],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", **HERE}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stdout.startswith(f"{status} Password (at least 8 characters): \nAgain: \n"), done
    assert sentence in done.stdout and PASSWORD not in done.stdout


def test_user_commands_say_what_they_did_and_where_however_long_that_is(tmp_path):
    directory = tmp_path / ("a" * 60) / ("b" * 60)
    directory.mkdir(parents=True)
    add_cheaply(directory / "users.db")
    status, out, err = command(directory, "user", "logout", "ann", DATABASE="users.db")
    assert (status, out) == (0, "")
    path = re.escape(str(directory / "users.db"))
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ user action=logout user=ann database={path}\n", err)


# -- init


def test_init_writes_a_file_for_its_owner_alone_and_never_over_an_existing_one(tmp_path):
    before = os.umask(0)
    try:
        status, out, err = command(tmp_path, "init")
    finally:
        os.umask(before)
    path = tmp_path / ".env"
    assert (status, err, out.count("\n")) == (0, "", 2) and "user add" in out and str(path) in out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text("ascii")
    assert command(tmp_path, "init") == (2, "", "server.py: .env exists already, and is left as it is\n")
    assert path.read_text("ascii") == text
    settings = server.read_settings({}, str(path))
    assert settings.rotate_refresh and settings.unauthorized_status == 401
    assert (settings.cookie_samesite, settings.cookie_name, settings.cookie_secure) == ("Strict", "__Host-jwt", True)
    assert [len(secret) for secret in settings.access_secrets + settings.refresh_secrets] == [43, 43]
    assert not any(secret.decode() in out for secret in settings.access_secrets + settings.refresh_secrets)
    assert server.check_exposure(settings, True, str(path)) == []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith(("#", "REFRESH_TOKEN_SECRET")):
            assert lines[number - 1].startswith("# "), f"{line} has no reason"


def test_init_never_follows_a_link(tmp_path):
    (tmp_path / ".env").symlink_to(tmp_path / "elsewhere")
    assert command(tmp_path, "init")[0] == 2
    assert not (tmp_path / "elsewhere").exists()


def test_two_inits_share_no_secret(tmp_path):
    texts = []
    for name in "ab":
        (tmp_path / name).mkdir()
        command(tmp_path / name, "init")
        texts.append((tmp_path / name / ".env").read_text())
    secrets = [line.partition("=")[2] for text in texts for line in text.splitlines() if "_SECRET=" in line]
    assert len({*secrets}) == 4


def test_from_init_to_an_open_server_it_refuses_until_there_is_a_user(tmp_path):
    assert command(tmp_path, "init")[0] == 0
    status, out, err = command(tmp_path, PORT="0", HOST="0.0.0.0")
    assert (status, out) == (2, "") and err.startswith("server.py: HOST=0.0.0.0")
    assert "demo user" in err and "user add" in err and err.count("\n") == 1
    add_cheaply(tmp_path / "minijwt.db")
    with Process(tmp_path, HOST="0.0.0.0") as process:
        assert process.greeting == f"Server active on http://0.0.0.0:{process.port}!"
        (answer,) = answers(process.exchange(raw_login("ann", PASSWORD)))
        assert answer.status == 200
        cookie, _, attributes = answer["Set-Cookie"].partition("; ")
        assert cookie.startswith("__Host-jwt=") and attributes.endswith("; HttpOnly; Secure; SameSite=Strict")

        def refreshed(field):
            (answer,) = answers(process.exchange(raw("POST", "/refresh", b"", f"Cookie: {field}")))
            return answer.status, (answer["Set-Cookie"] or "").partition(";")[0]

        status, successor = refreshed(cookie)
        assert status == 200 and refreshed(cookie) == (200, successor)
        assert refreshed(successor)[0] == 200 and refreshed(cookie) == (401, "")
        (answer,) = answers(process.exchange(raw_login("admin", "admin123")))
        assert (answer.status, answer["WWW-Authenticate"]) == (401, 'Bearer realm="minijwt"')
        assert command(tmp_path, "user", "remove", "ann")[0] == 0
        assert answers(process.exchange(raw_login("admin", "admin123")))[0].status == 401, "no demo user in the open"
        status, _, err = process.stop()
    assert status == 0 and err.count("warning") == err.count("warning: plain HTTP for other machines") == 1
