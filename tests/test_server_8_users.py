"""Users: `user` and `init` as transcripts; /me as a table; and a hardened server from its first command on."""

import os
import stat
import subprocess
import sys
import time

import minijwt
import pytest
import server
from serverkit import (
    ACCESS,
    CHEAP,
    NOW,
    REFRESH,
    TOP,
    Clock,
    Process,
    answers,
    body,
    build,
    login,
    new_store,
    raw,
    refresh_token,
)
from serverkit import request
from sessionkit import PASSWORD, SECRETS, add_cheaply, command, enter, raw_login, sign

HERE = {"DATABASE": "users.db", **SECRETS}
CONTROL = "a name has 1 to 255 bytes, and no control characters or spaces around it"


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
    caught = server.warnings.catch_warnings()
    caught.__enter__()

    class Typed:
        def __init__(self, text):
            self.text = text

        def isatty(self):
            return False

        def readline(self):
            line, _, self.text = self.text.partition("\n")
            return line + "\n" if line or self.text else line

    def run(line, stdin=""):
        monkeypatch.setattr(sys, "stdin", Typed(stdin))
        try:
            status = server.main(line.split() if isinstance(line, str) else line)
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        return status, out, err

    yield run
    caught.__exit__(None, None, None)


def said(err):
    """The sentence, or the log line without its time."""
    (line,) = err.splitlines()
    return line[21:] if line[:2] == "20" else line


TRANSCRIPT = [  # (command, standard input, status, output, what is said)
    ("user list", "", 0, "", None),
    ("user add ann", "correct horse\n", 0, "", "user action=add user=ann"),
    ("user list", "", 0, "ann\n", None),
    (
        "user add ann",
        "another horse\n",
        2,
        "",
        "server.py: there is a user ann already: `user passwd` changes the password",
    ),
    ("user add bob", "correct horse\r\nnot read\n", 0, "", "user action=add user=bob"),
    ("user add cy --accept-tutorial-tokens", "12345678", 0, "", "user action=add user=cy"),
    ("user add dee", "1234567\n", 2, "", "server.py: a password has at least 8 characters"),
    ("user add dee", "", 2, "", "server.py: a password has at least 8 characters"),
    ("user add dee", "x" * 1_025, 2, "", "server.py: a password has at most 1024 bytes"),
    (["user", "add", "d\x1b[1me"], "12345678", 2, "", f"server.py: {CONTROL}"),
    (["user", "add", ""], "12345678", 2, "", f"server.py: {CONTROL}"),
    (["user", "add", " dee"], "12345678", 2, "", f"server.py: {CONTROL}"),
    (["user", "add", "\u0394 \xe9"], "12345678", 0, "", 'user action=add user="\\u0394 \\xe9"'),
    ("user list", "", 0, "ann\nbob\ncy\n\u0394 \xe9\n", None),
    ("user passwd ann", "a third horse\n", 0, "", "user action=passwd user=ann"),
    ("user passwd ann", "short\n", 2, "", "server.py: a password has at least 8 characters"),
    ("user passwd nobody", "a third horse\n", 2, "", "server.py: there is no user nobody"),
    ("user logout ann", "", 0, "", "user action=logout user=ann"),
    ("user logout nobody", "", 2, "", "server.py: there is no user nobody"),
    ("user remove bob", "", 0, "", "user action=remove user=bob"),
    ("user remove bob", "", 2, "", "server.py: there is no user bob"),
    ("user list", "", 0, "ann\ncy\n\u0394 \xe9\n", None),
]


@pytest.mark.parametrize("host, warned", [("localhost", True), ("192.0.2.1", False)])
def test_whoever_removes_the_last_user_hears_who_is_let_in_then(cheap, monkeypatch, host, warned):
    monkeypatch.setenv("HOST", host)
    for name in ("ann", "bob"):
        cheap(f"user add {name}", "correct horse\n")
    assert "warning" not in cheap("user remove ann")[2]
    assert ("that was the last user: admin is let in" in cheap("user remove bob")[2]) is warned


def test_the_user_commands_as_one_transcript(cheap):
    for line, stdin, status, out, sentence in TRANSCRIPT:
        found = cheap(line, stdin)
        assert (found[0], found[1]) == (status, out), line
        assert found[2] == "" if sentence is None else said(found[2]) == sentence, line
    store = server.Store("users.db")
    assert server.check_password("a third horse", store.standing("ann", "").password)
    assert store.standing("cy", "").tutorial and not store.standing("ann", "").tutorial
    store.close()


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
            server._user_command(server._parser().parse_args(["user", *action]))
        finally:
            os.chdir(at)
            os.environ.update(before)


@pytest.mark.parametrize("given", [SECRETS, {"DATABASE": "users.db"}])
def test_secrets_or_a_database_are_enough(tmp_path, given):
    assert command(tmp_path, "user", "list", **given) == (0, "", "")
    (name,) = os.listdir(tmp_path)
    assert name == given.get("DATABASE", "minijwt.db")
    assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600


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


# -- init


def test_init_writes_a_file_for_its_owner_alone_and_never_over_an_existing_one(tmp_path):
    before = os.umask(0)
    try:
        status, out, err = command(tmp_path, "init")
    finally:
        os.umask(before)
    path = tmp_path / ".env"
    assert (status, err, out.count("\n")) == (0, "", 1) and "user add" in out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text("ascii")
    assert command(tmp_path, "init") == (2, "", "server.py: .env exists already, and is left as it is\n")
    assert path.read_text("ascii") == text
    settings = server.read_settings({}, str(path))
    assert settings.rotate_refresh and settings.unauthorized_status == 401
    assert (settings.cookie_samesite, settings.cookie_name, settings.cookie_secure) == ("Strict", "__Host-jwt", True)
    assert [len(secret) for secret in settings.access_secrets + settings.refresh_secrets] == [43, 43]
    assert not any(secret.decode() in out for secret in settings.access_secrets + settings.refresh_secrets)
    assert server.check_exposure(settings, any_user=True) == []
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
    assert status == 0 and "warning" not in err


def test_the_temporary_database_goes_when_the_server_does(tmp_path):
    with Process(tmp_path, TMPDIR=str(tmp_path)) as process:
        (name,) = os.listdir(tmp_path)
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o700
        assert answers(process.exchange(raw_login()))[0].status == 200
        process.stop()
    assert os.listdir(tmp_path) == []


# -- /me


def access(secret=ACCESS, **changes):
    claims = {"username": "ann", "iat": NOW, "exp": NOW + 600, **changes}
    return minijwt.encode({name: value for name, value in claims.items() if value is not None}, secret)


GOOD = access()
ME = [  # (Authorization, or None; status; code)
    ("none", None, 401, "no_token"),
    ("empty", "", 401, "no_token"),
    ("Bearer", f"Bearer {GOOD}", 200, None),
    ("bearer", f"bearer {GOOD}", 200, None),
    ("BEARER", f"BEARER {GOOD}", 200, None),
    ("two spaces", f"Bearer  {GOOD}", 200, None),
    ("Basic", "Basic YWRtaW46YWRtaW4xMjM=", 401, "no_token"),
    ("Bearer alone", "Bearer", 401, None),
    ("no space", f"Bearer{GOOD}", 401, None),
    ("two tokens", f"Bearer {GOOD} {GOOD}", 401, "decode_error"),
    ("rubbish", "Bearer x", 401, "decode_error"),
    ("non-ASCII", "Bearer \xff", 401, "decode_error"),
    ("quoted", f'Bearer "{GOOD}"', 401, "decode_error"),
    ("a refresh token", f"Bearer {sign()}", 401, "invalid_signature"),
    ("a tutorial refresh token", f"Bearer {refresh_token()}", 401, "invalid_signature"),
    ("a refresh token of the access key", f"Bearer {sign(secret=ACCESS)}", 401, "invalid_token"),
    ("another key", f"Bearer {access(secret=b'x' * 32)}", 401, "invalid_signature"),
    ("no signature", f"Bearer {GOOD.rpartition('.')[0]}.", 401, "invalid_signature"),
    ("expired", f"Bearer {access(exp=NOW)}", 401, "expired"),
    ("from the future", f"Bearer {access(iat=NOW + 1)}", 401, "immature"),
    ("no exp", f"Bearer {access(exp=None)}", 401, "invalid_token"),
    ("alg none", "Bearer eyJhbGciOiJub25lIn0." + GOOD.split(".")[1] + ".", 401, "invalid_algorithm"),
]


@pytest.mark.parametrize("status", [406, 401])
@pytest.mark.parametrize("field, expected, reason", [pytest.param(*case[1:], id=case[0]) for case in ME])
def test_me_gives_the_claims_or_the_challenge_of_rfc_6750(field, expected, reason, status):
    app = build(unauthorized_status=status)
    answer = server.respond(app, request(path="/me", **({} if field is None else {"authorization": field})))
    assert answer.status == expected
    if expected == 200:
        assert body(answer) == {"username": "ann", "iat": NOW, "exp": NOW + 600} and answer.fields == ()
        return
    assert reason is None or body(answer)["code"] == reason
    ((name, challenge),) = answer.fields
    assert name == "WWW-Authenticate" and challenge.startswith('Bearer realm="minijwt"')
    # RFC 6750 §3.1: without a token, no error code
    assert ('error="invalid_token"' in challenge) == (body(answer)["code"] != "no_token")
    assert GOOD not in challenge + answer.body.decode()


def test_me_touches_no_state():
    app = build()
    token = body(login(app))["accessToken"]
    app.store._rows = app.store._transaction = None
    assert server.respond(app, request(path="/me", authorization=f"Bearer {token}")).status == 200


def test_an_access_token_outlives_logout_until_it_expires():
    clock = Clock()
    app = build(clock, new_store(clock))
    app.accounts.add_user("ann", PASSWORD)
    token = app.accounts.refresh([enter(app)]).access
    app.accounts.remove_user("ann")
    statuses = []
    for clock.now in (NOW + 599, NOW + 600):
        statuses.append(server.respond(app, request(path="/me", authorization=f"Bearer {token}")).status)
    assert statuses == [200, 401]


def test_the_cookie_is_no_bearer_and_the_bearer_no_cookie():
    app = build()
    answer = login(app)
    token = body(answer)["accessToken"]
    assert server.respond(app, request("POST", "/refresh", cookie=f"jwt={token}")).status == 406
    assert server.respond(app, request(path="/me", cookie=f"jwt={token}")).status == 401
    assert (
        server.respond(app, request(path="/me", authorization=f"Bearer {refresh_token(secret=REFRESH)}")).status == 401
    )
