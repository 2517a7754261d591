"""What the README tells an operator is run here, as far as this machine has what it takes."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager

import pytest
from serverkit import TOP, Process, answers, raw, read_all, wait_until
from sessionkit import SECRETS, add_cheaply, exchange, raw_login, raw_logout, raw_refresh
from test_readme import README, rows

CHAPTER = README[README.index("## Behind an air gap") : README.index("## What it defends")]


def needs(*programs):
    missing = [program for program in programs if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def block(language, containing):
    """The one block of the chapter in `language` that holds `containing`."""
    (found,) = [each for each in re.findall(rf"```{language}\n(.*?)```", CHAPTER, re.DOTALL) if containing in each]
    return found


def sh(script, directory):
    done = subprocess.run(["sh", "-e", "-c", script], cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- systemd


@needs("systemd-analyze")
def test_systemd_takes_the_unit_as_it_stands(tmp_path):
    unit = tmp_path / "minijwt@8000.service"
    for name, text in (("alone", ""), ("with TLS", "\n" + block("ini", "LoadCredential"))):
        # the interpreter that runs this is there, whatever /usr/bin/python3 is
        unit.write_text(block("ini", "ExecStart").replace("/usr/bin/python3", sys.executable) + text)
        done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
        complaints = [line for line in done.stderr.splitlines() if "minijwt" in line]
        assert (done.returncode, complaints) == (0, []), name


def test_the_command_for_users_is_a_script_that_asks_for_what_the_unit_has():
    script, unit = block("sh", "systemd-run"), block("ini", "ExecStart")
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    for setting in re.findall(r"-p (\S+)", script):
        assert setting in unit.splitlines()
    assert unit.partition("ExecStart=")[2].partition("\n")[0] in script


# ---- Backup


def status_of(process, data):
    return answers(exchange(process.port, data))[0].status


def test_a_backup_is_made_while_it_runs_and_can_be_restored(tmp_path):
    home, copy = tmp_path / "home", tmp_path / "minijwt.backup"
    home.mkdir()
    add_cheaply(home / "minijwt.db")

    def told(containing):
        script = block("sh", containing).replace("/var/lib/minijwt", str(home)).replace("/root/", f"{tmp_path}/")
        sh(re.sub("^systemctl .*$", "", script, flags=re.MULTILINE).replace("python3", sys.executable), home)

    with Process(home, **SECRETS) as process:
        (login,) = answers(exchange(process.port, raw_login("ann", "correct horse")))
        token = login["Set-Cookie"].partition("=")[2].partition(";")[0]
        told(".backup(")
        assert copy.stat().st_mode & 0o777 == 0o600
        assert status_of(process, raw_logout(token)) == 204
        assert status_of(process, raw_refresh(token)) == 406
    told("systemctl stop")
    with Process(home, **SECRETS) as process:
        assert status_of(process, raw_refresh(token)) == 200, "as the README says: it lives again"
    with Process(home, **{**SECRETS, "REFRESH_TOKEN_SECRET": "another refresh secret of 32 bytes, or more"}) as process:
        assert status_of(process, raw_refresh(token)) == 406


# ---- TLS and proxies


@pytest.fixture
def certified(tmp_path):
    """A directory with what the README's three commands make, with smaller keys."""
    sh(block("sh", "openssl").replace("rsa:3072", "rsa:2048"), tmp_path)
    return tmp_path


def over_tls(directory, port, data):
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname="login.internal") as client:
            client.sendall(data)
            return answers(read_all(client))[0]


@needs("openssl")
def test_the_certificate_of_ones_own_ca_is_good(certified):
    files = {"TLS_CERT": str(certified / "login.pem"), "TLS_KEY": str(certified / "login.key")}
    with Process(certified, **SECRETS, **files) as process:
        answer = over_tls(certified, process.port, raw("GET", "/", b"", "Connection: close"))
    assert (answer.status, answer.body) == (200, b"server running")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nginx(directory, port, ports):
    text = "daemon off; pid nginx.pid; error_log stderr; events {} http { access_log off;\n"
    text += "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text += block("nginx", "upstream").replace("443", f"127.0.0.1:{port}").replace("# server", "server") + "}"
    text = text.replace("/etc/ssl/", f"{directory}/")
    for old, new in zip(("8000", "8001"), ports):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    (directory / "nginx.conf").write_text(text)
    return ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")]


def haproxy(directory, port, ports):
    both = (directory / "login.pem").read_text() + (directory / "login.key").read_text()
    (directory / "login-and-key.pem").write_text(both)
    text = block("haproxy", "frontend").replace(":443", f"127.0.0.1:{port}").replace("# server", "server")
    text = text.replace("/etc/ssl/", f"{directory}/")
    for old, new in zip(("8000", "8001"), ports):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    (directory / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")]


@contextmanager
def in_front(command, port):
    """Run a proxy until the end of the block."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    process = subprocess.Popen([shutil.which(command[0], path=path), *command[1:]], stderr=subprocess.DEVNULL)

    def listens():
        assert process.poll() is None, "it does not run"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens)
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("proxy", [
    pytest.param(nginx, marks=needs("openssl", "nginx")), pytest.param(haproxy, marks=needs("openssl", "haproxy")),
])  # fmt: skip
def test_two_servers_behind_a_proxy_are_one(certified, proxy):
    add_cheaply(certified / "minijwt.db")
    settings = {**SECRETS, "TRUSTED_PROXIES": "127.0.0.1", "ROTATE_REFRESH": "on"}
    with Process(certified, **settings) as one, Process(certified, **settings) as other:
        port = free_port()
        with in_front(proxy(certified, port, (one.port, other.port)), port):

            def ask(data, *lines):
                head, _, body = data.partition(b"\r\n\r\n")
                fields = "".join(f"\r\n{line}" for line in (*lines, "Connection: close"))
                return over_tls(certified, port, head + fields.encode() + b"\r\n\r\n" + body)

            # whoever says where he comes from is not believed
            login = ask(raw_login("ann", "correct horse"), "X-Forwarded-For: 192.0.2.7")
            tokens = [login["Set-Cookie"].partition("=")[2].partition(";")[0]]
            for _ in range(6):  # in turns, so each sees what the other has rotated
                answer = ask(raw_refresh(tokens[-1]))
                assert answer.status == 200
                tokens.append(answer["Set-Cookie"].partition("=")[2].partition(";")[0])
            assert ask(raw_logout(tokens[-1]), "Origin: https://evil.example").status == 403
            assert ask(raw_logout(tokens[-1]), "Origin: https://localhost").status == 204
            assert [ask(raw_refresh(tokens[-1])).status for _ in range(4)] == [406] * 4
        log = "".join(each.stop()[2] for each in (one, other))
    assert "192.0.2.7" not in log and log.count("result=session_ended") == 4
    assert all(" result=session_ended " in each.split("stop")[0] for each in log.split("start ")[1:]), "both were asked"


# ---- The log


def test_every_event_is_in_the_table_of_the_log():
    source = (TOP / "server.py").read_text("utf-8")
    shown = {name for row in rows("### Read the log") for name in re.findall(r"(\w+)", row[0].split("=")[0])}
    events = set(re.findall(r'Event\("(\w+)"', source))
    assert events and events <= {*shown, "user"}
