"""What the README tells an operator is run here, as far as this machine has what it takes."""

import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from serverkit import TOP, Process, answers, found, free_port, in_front, raw, read_all
from sessionkit import SECRETS, add_cheaply, exchange, raw_login, raw_logout, raw_refresh
from test_readme import README, rows

CHAPTER = README[README.index("## Behind an air gap") : README.index("## What it defends")]


def needs(*programs):
    missing = [program for program in programs if not found(program)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def block(language, containing):
    """The one block of the chapter in `language` that holds `containing`."""
    (text,) = [each for each in re.findall(rf"```{language}\n(.*?)```", CHAPTER, re.DOTALL) if containing in each]
    return text


def sh(script, directory, status=0):
    done = subprocess.run(["sh", "-e", "-c", script], cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout


def inline(beginning):
    """The one piece of code in the chapter's prose that begins so, on one line."""
    (found,) = re.findall(rf"`({re.escape(beginning)}[^`]*)`", CHAPTER)
    return " ".join(found.split())


def make_dist(folder):
    """Make the one file; return what that prints."""
    command = [sys.executable, str(TOP / "tests" / "dist.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


# ---- Carrying it over


@needs("sha256sum")
def test_the_line_that_is_compared_is_the_same_on_both_sides(tmp_path):
    here = make_dist(tmp_path)
    (there,) = [line for line in block("sh", "sha256sum").splitlines() if line.startswith("sha256sum")]
    assert here == sh(there, tmp_path) != ""


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


@needs("systemd-analyze")
def test_systemd_calls_the_unit_as_safe_as_the_readme_says(tmp_path):
    unit = tmp_path / "minijwt@8000.service"
    unit.write_text(block("ini", "ExecStart").replace("/usr/bin/python3", sys.executable))
    command = ["systemd-analyze", "security", "--offline=true", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze needs a running systemd")
    (shown,) = re.findall(r"systemd-analyze security minijwt@8000 +# (.*) of 10", CHAPTER)
    assert f": {shown} " in done.stdout.splitlines()[-1]


def test_the_unit_gets_the_messages_that_it_waits_for(tmp_path):
    unit = block("ini", "ExecStart").splitlines()
    assert {"Type=notify", "NotifyAccess=main", "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"} <= {*unit}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        with Process(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert [systemd.recv(100), systemd.recv(100)] == [b"READY=1", b"WATCHDOG=1"]
            process.stop()
        states = {systemd.recv(100)}
        while b"STOPPING=1" not in states:
            states.add(systemd.recv(100))


def test_the_command_for_users_is_a_script_that_asks_for_what_the_unit_has():
    script, unit = block("sh", "systemd-run"), block("ini", "ExecStart")
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    for setting in re.findall(r"-p (\S+)", script):
        assert setting in unit.splitlines()
    assert unit.partition("ExecStart=")[2].partition("\n")[0] in script


# ---- A container


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@needs("unshare", "setpriv", "mount")
def test_the_recipe_serves_as_process_1_with_a_root_that_cannot_be_written():
    recipe = dict(line.split(" ", 1) for line in block("dockerfile", "FROM").splitlines())
    settings = dict([recipe["ENV"].split("=")], **SECRETS)
    user, group = recipe["USER"].split(":")
    assert recipe["COPY"] == "minijwt.pyz /minijwt.pyz"
    python, *options = re.findall('"(.*?)"', recipe["ENTRYPOINT"].rpartition(",")[0])
    with tempfile.TemporaryDirectory() as name:
        top, data = Path(name), Path(name) / recipe["WORKDIR"].strip("/")
        top.chmod(0o755)
        make_dist(top)
        data.mkdir(0o700)
        os.chown(data, int(user), int(group))
        script = f"mount --bind {data} {data} && mount -o remount,bind,ro / && cd {data}"
        script += f' && exec setpriv --reuid {user} --regid {group} --clear-groups "$@"'
        container = ["unshare", "--pid", "--mount", "--fork", "sh", "-c", script, "sh"]
        program = [shutil.which(python), *options, str(top / "minijwt.pyz")]
        if subprocess.run([*container, program[0], "-c", ""], capture_output=True, timeout=60).returncode:
            pytest.skip("this machine allows no namespaces, or its Python is not for all")
        environment = {"PATH": os.environ["PATH"], **settings}
        wrote = subprocess.run([*container, program[0], "-c", "open('/minijwt-wrote-this', 'w')"], capture_output=True)
        assert b"Read-only file system" in wrote.stderr
        refused = subprocess.run([*container, *program], env=environment, capture_output=True, text=True, timeout=60)
        assert refused.returncode == 2 and "HOST=0.0.0.0 would let other machines in" in refused.stderr
        add = [*container, *program, "user", "add", "alice"]
        subprocess.run(add, env=environment, input=b"correct horse\n", check=True, capture_output=True, timeout=60)
        settings["TRUSTED_PROXIES"] = "172.17.0.1"
        with Process(data, (*container, *program[:-1]), program[-1], **settings) as process:
            (login,) = answers(exchange(process.port, raw_login("alice", "correct horse")))
            assert login.status == 200
            first = process.process.pid
            inner = int(Path(f"/proc/{first}/task/{first}/children").read_text())
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{inner}/status").read_text().splitlines())
            assert status["NSpid"].split()[-1] == "1" and {*status["Uid"].split()} == {user}
            os.kill(inner, signal.SIGTERM)
            assert process.process.wait(20) == 0


# ---- Backup


def status_of(process, data):
    return answers(exchange(process.port, data))[0].status


def test_a_backup_is_made_while_it_runs_and_can_be_restored(tmp_path):
    home, copy = tmp_path / "home", tmp_path / "minijwt.backup"
    home.mkdir()
    add_cheaply(home / "minijwt.db")

    def told(containing, where=home, status=0):
        script = block("sh", containing).replace("/var/lib/minijwt", str(where)).replace("/root/", f"{tmp_path}/")
        sh(re.sub("^systemctl .*$", "", script, flags=re.MULTILINE).replace("python3", sys.executable), home, status)

    with Process(home, **SECRETS) as process:
        (login,) = answers(exchange(process.port, raw_login("ann", "correct horse")))
        token = login["Set-Cookie"].partition("=")[2].partition(";")[0]
        told(".backup(")
        assert copy.stat().st_mode & 0o777 == 0o600
        assert status_of(process, raw_logout(token)) == 204
        assert status_of(process, raw_refresh(token)) == 406
    good, elsewhere = copy.read_bytes(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    told(".backup(", elsewhere, status=1)
    (elsewhere / "minijwt.db").touch()
    told(".backup(", elsewhere, status=1)
    assert copy.read_bytes() == good, "in a wrong directory, it is left alone"
    told("systemctl stop")
    with Process(home, **SECRETS) as process:
        assert status_of(process, raw_refresh(token)) == 200, "as the README says: it lives again"
    with Process(home, **{**SECRETS, "REFRESH_TOKEN_SECRET": "another refresh secret of 32 bytes, or more"}) as process:
        assert status_of(process, raw_refresh(token)) == 406


# ---- TLS and proxies


@pytest.fixture
def certified(tmp_path):
    """A directory with what the README's three commands make."""
    sh(block("sh", "openssl"), tmp_path)
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


@needs("openssl")
def test_the_end_of_a_certificate_is_seen_30_days_before(certified):
    command = inline("openssl x509 -checkend").replace("/etc/minijwt/", f"{certified}/")
    sh(command, certified)
    renew = block("sh", "openssl").splitlines()[-1]
    for days, status in ((31, 0), (29, 1)):
        sh(renew.replace("-days 397", f"-days {days}"), certified)
        sh(command, certified, status)


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
    shown = {name for row in rows("### Read the log") for name in re.findall(r"(?:^|`)(\w+)", row[0])}
    events = set(re.findall(r'Event\("(\w+)"', source))
    assert events and events <= {*shown, "user"}


def log_of_some_logins(directory):
    """What a server writes when ann logs in rightly, wrongly and without a name."""
    add_cheaply(directory / "minijwt.db")
    with Process(directory, **SECRETS) as process:
        for password in ("correct horse", "wrong", "wrong again"):
            exchange(process.port, raw_login("ann", password))
        exchange(process.port, raw_login("no-such-name", "wrong"))
        return process.stop()[2]


def test_the_line_that_counts_counts(tmp_path):
    (tmp_path / "log").write_text(log_of_some_logins(tmp_path))
    journal, _, pipeline = block("sh", "journalctl -u").partition(" | ")
    assert [shlex.split(line) for line in sh(f"cat log | {pipeline}", tmp_path).splitlines()] == [
        ["1", "login", "result=ok"], ["3", "login", "result=wrong_credentials"],
    ]  # fmt: skip


def test_the_filter_finds_who_has_failed_and_no_other(tmp_path):
    expression = re.search("failregex = (.*)", block("ini", "failregex"))[1].replace("<ADDR>", "([0-9A-Fa-f:.]+)")
    log = log_of_some_logins(tmp_path) + 'login result=ok user="a result=wrong_credentials x" address=192.0.2.1\n'
    assert re.findall(expression, log, re.MULTILINE) == ["127.0.0.1"] * 3
