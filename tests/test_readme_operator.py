"""What the README tells an operator is run here, as far as this machine has what it takes."""

import contextlib
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

import etcdkit
import pytest
from serverkit import TOP, Process, answers, found, free_port, in_front, raw, read_all, wait_until
from sessionkit import SECRETS, add_cheaply, exchange, raw_login, raw_logout, raw_refresh
from test_readme import README, SECTIONS, blocks

CHAPTER = SECTIONS["On one machine"]
SEVERAL = SECTIONS["Several machines"]
DEPLOY = TOP / "tests" / "deploy"
# What stands above it in the block needs no rights.
AS_ROOT = "# Then, as root:\n"


def needs(*programs):
    missing = [program for program in programs if not found(program)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def deployed(name):
    """The text of a file in tests/deploy."""
    return (DEPLOY / name).read_text("utf-8")


def block(language, containing):
    """The one block of README in `language` that holds `containing`."""
    (text,) = [each for each in blocks(language) if containing in each]
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
def test_the_line_that_is_compared_is_the_same_on_both_sides_and_the_rest_works_there(tmp_path):
    here = make_dist(tmp_path)
    make, *there = block("sh", "sha256sum").partition(AS_ROOT)[0].splitlines()
    assert make.startswith("make dist ")
    printed = sh("\n".join(there), tmp_path).splitlines(keepends=True)
    assert printed[0] == here
    assert "minijwt.pyz: OK\n" in printed and "deploy/nginx.conf: OK\n" in printed
    assert sum(line.startswith("ok ") for line in printed) == 5


def test_every_file_of_the_operator_is_named_and_there(tmp_path):
    make_dist(tmp_path)
    named = set(re.findall(r"\]\(tests/deploy/([^)]*)\)", README)) | set(re.findall(r"deploy/([\w.@-]+\.\w+)", README))
    assert named | {"minijwt.sh"} == {path.name for path in DEPLOY.iterdir()} == {
        path.name for path in (tmp_path / "deploy").iterdir()
    }


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.glob("*.sh")))
def test_a_script_of_the_operator_can_be_read_by_sh(name):
    subprocess.run(["sh", "-n", str(DEPLOY / name)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the commands are those of Linux")
def test_it_is_installed_where_the_files_expect_it(tmp_path):
    """The commands of the chapter up to `user add`, in a directory that stands for /; systemd is not there."""
    root, dist = tmp_path / "root", tmp_path / "dist"
    make_dist(dist)
    for folder in ("usr/local/sbin", "etc/systemd/system"):
        (root / folder).mkdir(parents=True)
    commands = block("sh", "install -D").partition(AS_ROOT)[2].partition("minijwt user add")[0]
    install = re.sub(" /(?=opt|usr|etc)", f" {root}/", commands)
    sh(install.replace("python3", sys.executable), dist)
    assert "REFRESH_TOKEN_SECRET=" in (root / "etc/minijwt/.env").read_text()
    (unit,) = (root / "etc/systemd/system").iterdir()
    assert unit.read_text() == deployed(unit.name)
    script = root / "usr/local/sbin/minijwt"
    assert os.access(script, os.X_OK) and script.read_text() == deployed("minijwt.sh")
    for name in ("ExecStart", "EnvironmentFile"):
        (path,) = re.findall(rf"(?m)^{name}=.*?(/\S+)$", deployed("minijwt@.service"))
        assert (root / path[1:]).is_file(), path


# ---- systemd


def instance(directory):
    """The unit of one instance, with the interpreter that runs this: /usr/bin/python3 may be missing."""
    unit = directory / "minijwt@8000.service"
    unit.write_text(deployed("minijwt@.service").replace("/usr/bin/python3", sys.executable))
    return unit


@needs("systemd-analyze")
def test_systemd_takes_the_unit_as_it_stands(tmp_path):
    unit = instance(tmp_path)
    for name in ("alone", "tls.conf"):
        if name == "tls.conf":
            unit.write_text(f"{unit.read_text()}\n{deployed(name)}")
        done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
        complaints = [line for line in done.stderr.splitlines() if "minijwt" in line]
        assert (done.returncode, complaints) == (0, []), name


@needs("systemd-analyze")
def test_systemd_calls_the_unit_as_safe_as_the_readme_says(tmp_path):
    command = ["systemd-analyze", "security", "--offline=true", str(instance(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze needs a running systemd")
    (shown,) = re.findall(r"systemd-analyze security minijwt@8000 +# (.*) of 10", CHAPTER)
    assert f": {shown} " in done.stdout.splitlines()[-1]


def test_the_unit_gets_the_messages_that_it_waits_for(tmp_path):
    unit = deployed("minijwt@.service").splitlines()
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
    script, unit = deployed("minijwt.sh"), deployed("minijwt@.service")
    for setting in re.findall(r"-p (\S+)", script):
        assert setting in unit.splitlines()
    assert unit.partition("ExecStart=")[2].partition("\n")[0] in script


# ---- A container


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@needs("unshare", "setpriv", "mount")
def test_the_recipe_serves_as_process_1_with_a_root_that_cannot_be_written():
    recipe = dict(line.split(" ", 1) for line in deployed("Dockerfile").splitlines() if not line.startswith("#"))
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

    def back_up(where=home, status=0):
        script = deployed("backup.sh").replace("python3", sys.executable)
        sh(f"set -- {where}/minijwt.db {copy}\n{script}", home, status)

    with Process(home, **SECRETS) as process:
        (login,) = answers(exchange(process.port, raw_login("ann", "correct horse")))
        token = login["Set-Cookie"].partition("=")[2].partition(";")[0]
        back_up()
        assert copy.stat().st_mode & 0o777 == 0o600
        assert status_of(process, raw_logout(token)) == 204
        assert status_of(process, raw_refresh(token)) == 406
    good, elsewhere = copy.read_bytes(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    back_up(elsewhere, status=1)
    (elsewhere / "minijwt.db").touch()
    back_up(elsewhere, status=1)
    assert copy.read_bytes() == good, "in a wrong directory, it is left alone"
    sh(inline("rm -f minijwt.db-wal").replace("/root/", f"{tmp_path}/"), home)
    with Process(home, **SECRETS) as process:
        assert status_of(process, raw_refresh(token)) == 200, "as the README says: it lives again"
    with Process(home, **{**SECRETS, "REFRESH_TOKEN_SECRET": "another refresh secret of 32 bytes, or more"}) as process:
        assert status_of(process, raw_refresh(token)) == 406


# ---- TLS and proxies


@pytest.fixture
def certified(tmp_path):
    """A directory with a certificate for login.internal."""
    certify(tmp_path)
    return tmp_path


def certify(directory, days=397):
    script = deployed("login-certificate.sh").replace("-days 397", f"-days {days}")
    sh(f"set -- login.internal\n{script}", directory)


def closing(data, *lines):
    """A request with more header lines, the last of which asks for the end of the connection."""
    head, _, body = data.partition(b"\r\n\r\n")
    return b"\r\n".join([head, *(line.encode() for line in (*lines, "Connection: close"))]) + b"\r\n\r\n" + body


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
    authority = (certified / "ca.pem").read_bytes()
    for days, status in ((397, 0), (31, 0), (29, 1)):
        certify(certified, days)
        sh(command, certified, status)
    assert (certified / "ca.pem").read_bytes() == authority, "the CA stays"


def nginx(directory, port, ports):
    text = "daemon off; pid nginx.pid; error_log stderr; events {} http { access_log off;\n"
    text += "".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text += deployed("nginx.conf").replace("443", f"127.0.0.1:{port}").replace("# server", "server") + "}"
    text = text.replace("/etc/ssl/", f"{directory}/")
    for old, new in zip(("8000", "8001"), ports):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    (directory / "nginx.conf").write_text(text)
    return ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")]


def haproxy(directory, port, ports, name="haproxy.cfg"):
    both = (directory / "login.pem").read_text() + (directory / "login.key").read_text()
    (directory / "login-and-key.pem").write_text(both)
    text = deployed(name).replace(":443", f"127.0.0.1:{port}").replace("# server", "server")
    text = text.replace("/etc/ssl/", f"{directory}/")
    for old, new in zip(re.findall(r"server \w (\S+)", text), ports):
        text = text.replace(old, f"127.0.0.1:{new}")
    (directory / name).write_text(text)
    return ["haproxy", "-db", "-f", str(directory / name)]


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
                return over_tls(certified, port, closing(data, *lines))

            # an address that the client itself names is not believed
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


@needs("nginx")
def test_at_auth_of_ones_own_site_nginx_passes_it_on_as_written(tmp_path):
    add_cheaply(tmp_path / "minijwt.db")
    port = free_port()
    with Process(tmp_path, **SECRETS, TRUSTED_PROXIES="127.0.0.1") as process:
        command = nginx(tmp_path, port, (process.port,))
        config = tmp_path / "nginx.conf"
        text = re.sub("(?m)^ *ssl_.*$", "", config.read_text()).replace(f"{port} ssl", str(port))
        config.write_text(re.sub(r"location / \{.*?\}", lambda _: deployed("nginx-auth.conf"), text, flags=re.DOTALL))
        here = f"http://127.0.0.1:{port}"
        with in_front(command, port):

            def ask(data, origin):
                data = data.replace(b" /", b" /auth/", 1).replace(b"localhost", f"127.0.0.1:{port}".encode(), 1)
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(closing(data, f"Origin: {origin}"))
                    return answers(read_all(client))[0]

            login = ask(raw_login("ann", "correct horse"), here)
            token = login["Set-Cookie"].partition("=")[2].partition(";")[0]
            assert login.status == 200 and "Path=/;" in login["Set-Cookie"]
            assert ask(raw_refresh(token), here).status == 200
            assert ask(raw_refresh(token), "http://evil.example").status == 403


@pytest.mark.long
@needs("openssl", "haproxy")
def test_of_several_machines_one_that_answers_503_is_not_noticed(certified):
    """Two servers over TLS, each with a database of its own; one of these is away."""
    tls = {"TLS_CERT": str(certified / "login.pem"), "TLS_KEY": str(certified / "login.key")}
    settings = {**SECRETS, **tls, "TRUSTED_PROXIES": "127.0.0.1"}
    add_cheaply(certified / "a.db")
    shutil.copy(certified / "a.db", certified / "b.db")
    port = free_port()
    with Process(certified, **settings, DATABASE="a.db") as a, Process(certified, **settings, DATABASE="b.db") as b:
        with in_front(haproxy(certified, port, (a.port, b.port, free_port()), "haproxy-several.cfg"), port):
            login = over_tls(certified, port, closing(raw_login("ann", "correct horse")))
            token = login["Set-Cookie"].partition("=")[2].partition(";")[0]
            os.rename(certified / "a.db", certified / "away.db")
            wait_until(lambda: over_tls(certified, a.port, closing(raw("GET", "/"))).status == 503)
            assert [over_tls(certified, port, closing(raw_refresh(token))).status for _ in range(20)] == [200] * 20
            os.rename(certified / "away.db", certified / "a.db")
        assert "database error=" in a.stop()[2], "it was asked, and answered 503"


# ---- The log


def test_every_event_is_named_where_the_log_is_told():
    source = (TOP / "server.py").read_text("utf-8")
    log = CHAPTER.partition("**The log**")[2].partition("```")[0]
    events = set(re.findall(r'(?:Event\(|event_of\(request, )"(\w+)"', source))
    assert len(events) > 9 and [name for name in events if f"`{name}`" not in log] == []


def log_of_some_logins(directory):
    """What a server writes when ann logs in rightly, wrongly and without a name."""
    add_cheaply(directory / "minijwt.db")
    with Process(directory, **SECRETS) as process:
        for password in ("correct horse", "wrong", "wrong again"):
            exchange(process.port, raw_login("ann", password))
        exchange(process.port, raw_login("no-such-name", "wrong"))
        return process.stop()[2]


@pytest.mark.long
def test_the_line_that_counts_counts(tmp_path):
    (tmp_path / "log").write_text(log_of_some_logins(tmp_path))
    journal, _, pipeline = block("sh", "journalctl -u").partition(" | ")
    assert [shlex.split(line) for line in sh(f"cat log | {pipeline}", tmp_path).splitlines()] == [
        ["1", "login", "result=ok"], ["3", "login", "result=wrong_credentials"],
    ]  # fmt: skip


@pytest.mark.long
def test_the_filter_finds_who_has_failed_and_no_other(tmp_path):
    expression = re.search("failregex = (.*)", deployed("fail2ban.conf"))[1].replace("<ADDR>", "([0-9A-Fa-f:.]+)")
    log = log_of_some_logins(tmp_path) + 'login result=ok user="a result=wrong_credentials x" address=192.0.2.1\n'
    assert re.findall(expression, log, re.MULTILINE) == ["127.0.0.1"] * 3


# ---- Several machines


@pytest.fixture
def cluster(tmp_path):
    """Three nodes as tests/deploy says, and etcd's users as its script makes them."""
    if why_not := etcdkit.why_not() or etcdkit.make_pems(tmp_path):
        pytest.skip(why_not)
    with etcdkit.Cluster(3, tmp_path) as nodes:
        ask_in_a_terminal(
            ["sh", str(DEPLOY / "etcd-user.sh"), f"https://127.0.0.1:{nodes.ports[0]}"],
            tmp_path, ["root's", "root's", "minijwt's", "minijwt's"],
        )  # fmt: skip
        yield nodes


def ask_in_a_terminal(command, directory, answers):
    """Run `command`, which asks for passwords: one that it asks for ends in a colon."""
    ours, theirs = os.openpty()
    ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(command, cwd=directory, start_new_session=True, **ends)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # its end
        while piece := os.read(ours, 1_024):
            printed += piece
            if piece.rstrip().endswith(b":") and answers:
                os.write(ours, answers.pop(0).encode() + b"\n")
    os.close(ours)
    assert process.wait(20) == 0, printed.decode()


class StartedBefore(etcdkit.Cluster):
    """Nodes that Debian has started when it installed them, each of them alone; then `remove` is run."""

    remove = ":"

    def start(self, number):
        environment = self.environment
        said = environment(number)
        alone = {"ETCD_INITIAL_CLUSTER": f"{said['ETCD_NAME']}={said['ETCD_INITIAL_ADVERTISE_PEER_URLS']}"}
        self.environment = lambda number: {**said, **alone}
        super().start(number)
        wait_until(lambda: self.status(number))
        self.kill(number)
        self.environment = environment
        sh(self.remove.replace("/var/lib/etcd/default", said["ETCD_DATA_DIR"]), self.scratch.name)
        super().start(number)


@pytest.mark.long
@needs("etcd", "etcdctl")
def test_nodes_that_were_started_before_are_one_cluster_only_once_their_data_are_removed(monkeypatch):
    with StartedBefore(3) as nodes:
        assert len(nodes.etcdctl("member", "list").splitlines()) == 1
    assert SEVERAL.count("rm -rf /var/lib/etcd/default") == 2, "before the first start, and before a restore"
    (remove,) = re.findall("`systemctl stop etcd; (rm -rf [^`]*)`", SEVERAL)
    monkeypatch.setattr(StartedBefore, "remove", remove)
    with StartedBefore(3) as nodes:
        assert len(nodes.etcdctl("member", "list").splitlines()) == 3


# What etcdctl says while the nodes choose a leader. The README says: run the command again.
CHOOSING = re.compile("leader changed|no leader|timed out|deadline exceeded|unhealthy cluster|Unavailable")
# What it then says if the command that had no answer was done.
DONE = re.compile("member not found|peerURLs? .*exist|Peer URLs already exist", re.IGNORECASE)


def etcdctl(cluster, beginning, directory, **changes):
    """Run the one command of the chapter that begins so, with the variables that are named there."""
    (written,) = {" ".join(each.split()) for each in re.findall(rf"`(etcdctl {beginning}[^`]*)`", SEVERAL)}
    for old, new in changes.items():
        written = written.replace(old, new)
    script = re.sub("^etcdctl.*$", "", deployed("etcd-user.sh"), flags=re.MULTILINE)
    script = f"set -- https://127.0.0.1:{cluster.ports[0]}\n{script}export ETCDCTL_USER=\"root:root's\"\n{written}"
    printed = []

    def is_done():
        try:
            printed.append(sh(script, directory))
            return True
        except AssertionError as error:
            done_before = bool(printed and DONE.search(str(error)))
            if not done_before and not CHOOSING.search(str(error)):
                raise
            printed.append("")
            return done_before

    wait_until(is_done, 40)
    return printed[-1]


@pytest.mark.long
@needs("etcdctl")
def test_several_machines_are_run_as_written(cluster, tmp_path):
    def minijwt(*command, stdin=""):
        program = [sys.executable, str(TOP / "server.py"), *command]
        return subprocess.run(program, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, input=stdin, capture_output=True,
                              text=True, check=True, timeout=30).stdout  # fmt: skip

    def token_of(process, name, password="correct horse"):
        (login,) = answers(exchange(process.port, raw_login(name, password)))
        return login["Set-Cookie"].partition("=")[2].partition(";")[0]

    settings = "".join(f"{name}={value}\n" for name, value in SECRETS.items())
    (tmp_path / ".env").write_text(settings)
    (tmp_path / ".env").chmod(0o600)
    add_cheaply(tmp_path / "minijwt.db", "ann", "correct horse")
    with Process(tmp_path) as process:
        old, ended = token_of(process, "ann"), token_of(process, "ann")
        assert status_of(process, raw_logout(ended)) == 204
    users = minijwt("user", "export")
    nodes = ",".join(f"127.0.0.1:{port}" for port in cluster.ports)
    settings += deployed("etcd.env").replace("10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379", nodes)
    (tmp_path / ".env").write_text(settings.replace("/etc/minijwt", str(tmp_path)))
    (tmp_path / "login").write_text("minijwt:minijwt's\n")
    (tmp_path / "login").chmod(0o600)
    minijwt("user", "add", "alice", stdin="correct horse\n")
    minijwt("user", "import", stdin=users)
    with Process(tmp_path) as one, Process(tmp_path) as other:
        assert [status_of(each, raw_refresh(old)) for each in (one, other)] == [200, 200]
        assert [status_of(each, raw_refresh(ended)) for each in (one, other)] == [406, 406]
        token = token_of(one, "alice")
        assert status_of(other, raw_refresh(token)) == 200
        # watch, back up
        assert etcdctl(cluster, "endpoint status", tmp_path).count("| https://") == 3
        assert etcdctl(cluster, "alarm list", tmp_path).strip() == ""
        etcdctl(cluster, "defrag", tmp_path)
        etcdctl(cluster, "alarm disarm", tmp_path)
        etcdctl(cluster, "snapshot save", tmp_path)
        assert status_of(one, raw_logout(token)) == 204
        assert status_of(other, raw_refresh(token)) == 406
        # replace a node
        cluster.kill(2)
        listed = [line.split(", ") for line in etcdctl(cluster, "member list", tmp_path).splitlines()]
        (gone,) = [each[0] for each in listed if each[2] == "n2"]
        etcdctl(cluster, "member remove", tmp_path, ID=gone)
        peer = f"https://127.0.0.1:{cluster.peers[2]}"
        etcdctl(cluster, "member add", tmp_path, **{"n3": "n2", "https://10.0.0.3:2380": peer})
        shutil.rmtree(f"{cluster.scratch.name}/2")
        environment = cluster.environment
        cluster.environment = lambda number: {**environment(number), "ETCD_INITIAL_CLUSTER_STATE": "existing"}
        cluster.start(2)
        wait_until(lambda: etcdctl(cluster, "endpoint status", tmp_path).count("| https://") == 3)
        cluster.kill(0)
        wait_until(lambda: status_of(one, raw_refresh(old)) == 200, 20)
    # restore
    for number in (1, 2):
        cluster.kill(number)
    for number in range(3):
        cluster.restore(number, tmp_path / "backup.db")
    cluster.environment = environment
    for number in range(3):
        cluster.start(number)
    cluster.wait()
    with Process(tmp_path) as process:
        wait_until(lambda: status_of(process, raw_refresh(token)) == 200)  # as README says: it lives again
    with Process(tmp_path, REFRESH_TOKEN_SECRET="another refresh secret of 32 bytes, or more") as process:
        assert status_of(process, raw_refresh(token)) == 406 and token_of(process, "alice")
