"""Command line: the server as its operator sees it, in a process of its own."""

import os
import signal
import socket
import subprocess
import sys

import minijwt
import pytest
import server
from serverkit import ACCESS, REFRESH, RAW_LOGIN, TOP, Process, answers, raw, refresh_token, wait_until

SECRETS = {"ACCESS_TOKEN_SECRET": ACCESS.decode(), "REFRESH_TOKEN_SECRET": REFRESH.decode()}


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_stop_it(tmp_path, number):
    with Process(tmp_path) as process:
        with socket.create_connection(("127.0.0.1", process.port)):
            assert process.stop(number)[0] == 0


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionError:
        return True
    return False


def test_a_second_signal_stops_it_at_once_and_leaves_nothing_behind(tmp_path):
    with Process(tmp_path, TMPDIR=str(tmp_path)) as process:
        assert list(tmp_path.glob("minijwt-*"))
        with socket.create_connection(("127.0.0.1", process.port), timeout=0.2) as client:
            with pytest.raises(OSError):  # it does not read, and so what it is sent keeps the server from stopping
                while True:
                    client.sendall(raw("GET", "/") * 1_000)
            process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(process.port))
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(5) == 1
    assert list(tmp_path.glob("minijwt-*")) == []


def test_a_restart_with_the_same_secrets_keeps_everybody_logged_in(tmp_path):
    with Process(tmp_path, **SECRETS) as process:
        field = cookie(process)
    with Process(tmp_path, **SECRETS) as process:
        assert refreshed(process, field) == 200
        assert "random" not in process.stop()[2]
    with Process(tmp_path) as process:
        assert refreshed(process, field) == 406, "other secrets"


def test_a_token_of_the_tutorials_own_app_works_in_a_running_server(tmp_path):
    now = int(__import__("time").time())
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


def run(tmp_path, *arguments, **environment):
    clean = {"PATH": "/usr/bin:/bin", **environment}
    command = [sys.executable, str(TOP / "server.py"), *arguments]
    return subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=20)


REFUSALS = [
    ({"PORT": "http"}, "PORT must be"),
    ({"HOST": "example.org"}, "HOST must be"),
    ({"ACCESS_TOKEN_SECRET": "a" * 32}, "ACCESS_TOKEN_SECRET is set alone"),
    ({"ACCESS_TOKEN_TTL": "10"}, "ACCESS_TOKEN_TTL must be"),
    ({"HOST": "0.0.0.0", **SECRETS}, "HOST=0.0.0.0 would let other machines in"),
]


@pytest.mark.parametrize("environment, sentence", REFUSALS)
def test_a_wrong_setting_is_one_sentence_and_status_2(tmp_path, environment, sentence):
    done = run(tmp_path, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"server.py: {sentence}") and done.stderr.count("\n") == 1


def test_a_port_in_use_is_one_sentence_and_status_2(tmp_path):
    (taken,) = server.listen("127.0.0.1", 0)
    taken.listen()
    port = str(taken.getsockname()[1])
    done = run(tmp_path, PORT=port, HOST="127.0.0.1", **SECRETS)
    assert done.returncode == 2 and f"server.py: PORT {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr
    taken.close()


def test_help_names_every_variable(tmp_path):
    done = run(tmp_path, "--help")
    assert done.returncode == 0 and all(name in done.stdout for name in server.VARIABLES)
    assert run(tmp_path, "--nonsense").returncode == 2


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
    init = f'rmdir "{gone}" && exec "$@" init'
    cases = [(init, gone, "No such file"), ('DATABASE=x.db exec "$@" user add ann <&-', tmp_path, "a password has at least 8")]
    for script, directory, sentence in cases:
        command = ["sh", "-c", script, "sh", *program]
        done = subprocess.run(command, cwd=directory, env={"PORT": "0", "PATH": os.defpath}, capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert sentence in done.stderr.splitlines()[-1]
