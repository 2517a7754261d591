"""Reading settings: every variable, .env as Node's dotenv reads it, and the exposure rule."""

import os
import sys

import pytest
import server
from server import SettingsError, check_exposure, parse_dotenv, read_settings

SECRETS = {"ACCESS_TOKEN_SECRET": "a" * 32, "REFRESH_TOKEN_SECRET": "b" * 32}


def read(tmp_path, dotenv=None, **environ):
    path = tmp_path / ".env"
    if dotenv is not None:
        path.write_bytes(dotenv if isinstance(dotenv, bytes) else dotenv.encode())
        path.chmod(0o600)
    return read_settings({**SECRETS, **environ}, str(path))


def test_without_any_setting_it_is_the_tutorial(tmp_path):
    settings = read_settings({}, str(tmp_path / ".env"))
    secrets = settings.access_secrets, settings.refresh_secrets
    assert settings == server.Settings(*secrets, random_secrets=True)
    assert [len(secret) for secret in settings.access_secrets + settings.refresh_secrets] == [32, 32]
    assert settings.access_secrets != settings.refresh_secrets


def test_random_secrets_differ_between_runs(tmp_path):
    first, second = (read_settings({}, str(tmp_path / ".env")) for _ in range(2))
    assert first.access_secrets != second.access_secrets


def test_random_secrets_never_look_quoted(tmp_path, monkeypatch):
    drawn = iter([b"'" + b"a" * 30 + b" ", b"\t" + b"b" * 30 + b'"'])
    monkeypatch.setattr(os, "urandom", lambda size: next(drawn))
    settings = read_settings({}, str(tmp_path / ".env"))
    assert not any("quotes" in risk for risk in check_exposure(settings, True, str(tmp_path / ".env")))


GOOD = [
    ("HOST", "127.0.0.1", "host", "127.0.0.1"),
    ("HOST", "::1", "host", "::1"),
    ("HOST", "0.0.0.0", "host", "0.0.0.0"),
    ("PORT", "0", "port", 0),
    ("PORT", "65535", "port", 65_535),
    ("ACCESS_TOKEN_TTL", "5s", "access_ttl", 5),
    ("ACCESS_TOKEN_TTL", "10m", "access_ttl", 600),
    ("REFRESH_TOKEN_TTL", "2h", "refresh_ttl", 7_200),
    ("REFRESH_TOKEN_TTL", "30d", "refresh_ttl", 2_592_000),
    ("UNAUTHORIZED_STATUS", "401", "unauthorized_status", 401),
    ("COOKIE_NAME", "__Host-jwt", "cookie_name", "__Host-jwt"),
    ("COOKIE_SAMESITE", "Strict", "cookie_samesite", "Strict"),
    ("ACCESS_TOKEN_SECRET", "ü" * 20, "access_secrets", (("ü" * 20).encode(),)),
    ("ACCESS_TOKEN_SECRET_OLD", "c" * 32, "access_secrets", (b"a" * 32, b"c" * 32)),
    ("REFRESH_TOKEN_SECRET_OLD", "c" * 32, "refresh_secrets", (b"b" * 32, b"c" * 32)),
    ("ACCESS_TOKEN_SECRET_OLD", "", "access_secrets", (b"a" * 32,)),
    ("REFRESH_TOKEN_SECRET_OLD", "", "refresh_secrets", (b"b" * 32,)),
    ("DATABASE", "x/y.db", "database", "x/y.db"),
    ("ROTATE_REFRESH", "on", "rotate_refresh", True),
    ("LOGIN_MAX_FAILURES", "0", "login_max_failures", 0),
    ("TRUSTED_PROXIES", "10.0.0.1, fd00::/8", "trusted_proxies", server.read_networks("10.0.0.1 fd00::/8")),
    (
        "ALLOWED_ORIGINS",
        "https://a.example, http://localhost:3000",
        "allowed_origins",
        ("https://a.example", "http://localhost:3000"),
    ),
    (
        "ALLOWED_ORIGINS",
        "http://[::1]:3000 https://xn--bcher-kva.example:8443",
        "allowed_origins",
        ("http://[::1]:3000", "https://xn--bcher-kva.example:8443"),
    ),
    ("ALLOWED_ORIGINS", "", "allowed_origins", ()),
    ("ACCESS_LOG", "on", "access_log", True),
]


@pytest.mark.parametrize("variable, text, field, value", GOOD)
def test_a_good_value_is_taken(tmp_path, variable, text, field, value):
    assert getattr(read(tmp_path, **{variable: text}), field) == value


BAD = {
    "HOST": ["example.org", "", "127.1", "[::1]", "1.2.3.4 "],
    "PORT": ["", "-1", "65536", "8000 ", "٨٠٠٠", "0x50", "8_0"],
    "ACCESS_TOKEN_TTL": ["600", "0m", "-1m", "1.5h", "10 m", "1w"],
    "REFRESH_TOKEN_TTL": ["999999999d", "١d"],
    "UNAUTHORIZED_STATUS": ["403", "406 "],
    "COOKIE_NAME": ["", "a b", "a=b", "a;b", "jwt\r\nX: y"],
    "COOKIE_SAMESITE": ["none", ""],
    "COOKIE_SECURE": ["true", ""],
    "DATABASE": ["", "a\0b"],
    "ROTATE_REFRESH": ["yes"],
    "LOGIN_MAX_FAILURES": ["-1", ""],
    "TRUSTED_PROXIES": ["example.org", "10.0.0.1/8"],
    "ALLOWED_ORIGINS": [
        "*", "null", "a.example", "//a.example", "https://a.example/", "https://A.example", "https://a.example:443",
        "http://a.example:80", "https://*.example", "ftp://a.example", "https://user@a.example", "https://a.example?x",
        "https://a.example:0", "https://", "https://a.example,*",
    ],
    "TLS_CERT": [""],
    "TLS_KEY": ["a\0b"],
    "PAGE": ["1"],
    "ACCESS_LOG": ["1"],
    "ACCESS_TOKEN_SECRET": ["", "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"],
    "REFRESH_TOKEN_SECRET": [""],
}  # fmt: skip
if sys.implementation.name == "cpython":
    BAD["HOST"].append("1.2.3.4\0")  # PyPy reads on no further than C does


@pytest.mark.parametrize("variable, text", [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_wrong_value_is_one_sentence_that_names_the_variable(tmp_path, variable, text):
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, **{variable: text})
    assert str(refused.value).startswith(variable)
    assert "\n" not in str(refused.value)
    assert not text or text not in SECRETS.values() and "MIIB" not in str(refused.value)


def sentence(tmp_path, dotenv=None, **environ):
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, dotenv, **environ)
    return str(refused.value)


def test_a_wrong_value_is_shown_with_where_it_came_from(tmp_path):
    assert sentence(tmp_path, PORT="80 ").startswith("PORT is '80 ' (from the environment): it must be ")
    assert sentence(tmp_path, "PORT=http").startswith(f"PORT is 'http' (from {tmp_path / '.env'}): it must be ")
    assert "PORT is 'x' (from the environment)" in sentence(tmp_path, "PORT=http", PORT="x")
    assert r"HOST is 'localhost\n' (from the environment)" in sentence(tmp_path, HOST="localhost\n")


def test_of_several_values_the_wrong_one_is_named(tmp_path):
    assert "): http://b.example/ is not an origin" in sentence(
        tmp_path, ALLOWED_ORIGINS="https://a.example,http://b.example/,https://c.example")  # fmt: skip
    said = sentence(tmp_path, TRUSTED_PROXIES="127.0.0.1, 10.0.0.1/8")
    assert "): 10.0.0.1/8 " in said and "10.0.0.0/8" in said


@pytest.mark.parametrize("name", SECRETS)
def test_a_wrong_secret_is_not_shown(tmp_path, name):
    assert sentence(tmp_path, **{name: ""}).startswith(f"{name} (from the environment): it is empty; ")
    text = "-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----"
    assert "hunter2" not in sentence(tmp_path, **{name: text})


@pytest.mark.parametrize("command", ["$(python3 server.py token keygen)", "${ACCESS_SECRET_OF_THE_SITE}", "`keygen`"])
@pytest.mark.parametrize("name", SECRETS)
def test_a_command_that_no_shell_has_run_is_no_secret(tmp_path, name, command):
    said = sentence(tmp_path, f"{name}='{command}'", **{name: command})
    assert said.startswith(f"{name} (from the environment): ") and "put its output there" in said


TOGETHER = [
    ({"COOKIE_SECURE": "off"}, "COOKIE_SAMESITE"),
    ({"COOKIE_SECURE": "off", "COOKIE_SAMESITE": "Lax", "COOKIE_NAME": "__Host-jwt"}, "COOKIE_NAME"),
    ({"COOKIE_SECURE": "off", "COOKIE_SAMESITE": "Lax", "COOKIE_NAME": "__Secure-jwt"}, "COOKIE_NAME"),
    ({"COOKIE_SECURE": "off", "COOKIE_SAMESITE": "Lax", "COOKIE_NAME": "__host-jwt"}, "COOKIE_NAME"),
    ({"REFRESH_TOKEN_SECRET": "a" * 32}, "REFRESH_TOKEN_SECRET"),
    ({"TLS_CERT": "cert.pem"}, "TLS_CERT and TLS_KEY belong together: set both"),
    ({"TLS_KEY": "key.pem"}, "TLS_CERT and TLS_KEY belong together: set both"),
    ({"REFRESH_TOKEN_SECRET_OLD": "a" * 32}, "REFRESH_TOKEN_SECRET"),
    ({"ACCESS_TOKEN_SECRET_OLD": "b" * 32}, "REFRESH_TOKEN_SECRET"),
    ({"REFRESH_TOKEN_SECRET": "a" * 32 + "\0"}, "REFRESH_TOKEN_SECRET"),  # HMAC pads with zeros: the same key
]


@pytest.mark.parametrize("environ, variable", TOGETHER)
def test_settings_that_are_wrong_together_are_refused(tmp_path, environ, variable):
    with pytest.raises(SettingsError, match=variable):
        read(tmp_path, **environ)


@pytest.mark.parametrize("name", SECRETS)
def test_one_secret_alone_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match=f"{name} is set alone"):
        read_settings({name: "x" * 32}, str(tmp_path / ".env"))


@pytest.mark.parametrize("name", ["ACCESS_TOKEN_SECRET_OLD", "REFRESH_TOKEN_SECRET_OLD"])
def test_an_old_secret_alone_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match="is set alone"):
        read_settings({name: "x" * 32}, str(tmp_path / ".env"))


def test_without_secrets_the_database_is_in_memory_unless_it_is_named(tmp_path):
    assert read_settings({}, str(tmp_path / ".env")).database == ""
    assert read_settings({"DATABASE": "x.db"}, str(tmp_path / ".env")).database == "x.db"
    assert read(tmp_path).database == "minijwt.db"


# -- .env


def test_the_environment_wins_over_dotenv(tmp_path):
    settings = read(tmp_path, "PORT=1\nHOST=::1\n", PORT="2")
    assert (settings.port, settings.host) == (2, "::1")


DOTENV = [
    ("A=1", {"A": "1"}),
    ("A = 1 \n", {"A": "1"}),
    ("export A=1", {"A": "1"}),
    ("A: 1", {"A": "1"}),
    ("A=", {"A": ""}),
    ("A=''\nB=2", {"A": "", "B": "2"}),
    ("A='x # y'", {"A": "x # y"}),
    ('A="x # y" # z', {"A": "x # y"}),
    ('A=`it\'s "so"`', {"A": 'it\'s "so"'}),
    ("A=x # y", {"A": "x"}),
    ("A=x#y", {"A": "x"}),
    ("# A=1\n\n  # more\nB=2", {"B": "2"}),
    ('A="x\\ny"', {"A": "x\ny"}),
    ("A='x\\ny'", {"A": "x\\ny"}),
    ('A="x\ny"\nB=1', {"A": "x\ny", "B": "1"}),
    ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ("\ufeffA=1", {"A": "1"}),
    ("A=1\nA=2", {"A": "2"}),
    ("A=a=b", {"A": "a=b"}),
    ("A.B-C=1", {"A.B-C": "1"}),
    ("  A=1", {"A": "1"}),
    ("A=ü", {"A": "ü"}),
    ("\xa0A\u2003=\ufeff1\u3000", {"A": "1"}),
    ("A=\v1\f", {"A": "1"}),
    ("A=\u200b1", {"A": "\u200b1"}),
    ("A='\xa01'", {"A": "\xa01"}),
    ("A=\u20281", {"A": "1"}),
    (r"A='it\'s'", {"A": r"it\'s"}),
    ("A='it's'", {"A": "it's"}),
    ('A="{"k":1}"', {"A": '{"k":1}'}),
    ('A="a\\nb" y', {"A": '"a\nb" y'}),
    ('A="', {"A": '"'}),
    ("A=1\rB=2", {"A": "1", "B": "2"}),
    ("", {}),
]


@pytest.mark.parametrize("text, values", DOTENV)
def test_dotenv_is_read_as_node_reads_it(text, values):
    assert parse_dotenv(text) == values


@pytest.mark.parametrize("text, line", [("A", 1), ("A=1\nnonsense here\n", 2), ("=1", 1), ("A=1\n\n\n!", 4)])
def test_a_line_of_dotenv_that_says_nothing_is_named(text, line):
    with pytest.raises(ValueError, match=f"line {line} "):
        parse_dotenv(text)


def test_a_dotenv_that_is_not_utf8_or_not_a_file_is_one_sentence(tmp_path):
    with pytest.raises(SettingsError, match="not UTF-8"):
        read(tmp_path, b"A=\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings({}, str(tmp_path))


# -- the exposure rule


def risky(**changes):
    good = {"access_secrets": (b"a" * 32,), "refresh_secrets": (b"b" * 32,)}
    return server.Settings(**{**good, **changes})


RISKS = [
    ({}, "demo user"),
    ({"random_secrets": True}, "random"),
    ({"access_secrets": (b"a" * 32, b"short")}, "ACCESS_TOKEN_SECRET, or its OLD, has only 5"),
    ({"refresh_secrets": (b"short",)}, "REFRESH_TOKEN_SECRET, or its OLD, has only 5"),
    ({"refresh_secrets": (b"short" + bytes(40),)}, "REFRESH_TOKEN_SECRET, or its OLD, has only 5"),
    ({"cookie_secure": False}, "COOKIE_SECURE=off"),
]


@pytest.mark.parametrize("changes, word", RISKS)
def test_a_risk_is_a_warning_in_private_and_a_refusal_in_the_open(changes, word):
    assert any(word in risk for risk in check_exposure(risky(**changes), False))
    for host in ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1"):
        with pytest.raises(SettingsError, match=word):
            check_exposure(risky(host=host, **changes), word != "demo user")


def test_loopback_behind_a_proxy_is_open():
    behind = risky(trusted_proxies=server.read_networks("127.0.0.1"))
    assert not behind.private
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
        check_exposure(behind, False)
    assert check_exposure(behind, True) == []


def test_an_open_server_with_a_user_and_good_secrets_has_no_risk():
    for more in ({"tls_cert": "x.pem", "tls_key": "x.pem"}, {"trusted_proxies": server.read_networks("10.0.0.1")}):
        assert check_exposure(risky(host="0.0.0.0", **more), True) == []


def test_plain_http_for_other_machines_is_a_warning_there():
    (warning,) = check_exposure(risky(host="0.0.0.0"), True)
    assert warning.startswith("plain HTTP for other machines") and "TLS_CERT" in warning


@pytest.mark.parametrize(
    "secret", ["'" + "a" * 40 + "'", "a" * 40 + "\n", " " + "a" * 40, '"' + "a" * 40 + '"', "a" * 40 + "\r"]
)
def test_a_secret_with_white_space_or_quotes_around_it_is_a_warning(secret):
    (warning,) = check_exposure(risky(access_secrets=(secret.encode(),), host="127.0.0.1"), True)
    assert "white space or quotes" in warning and "aaa" not in warning


FILES = ["dotenv", "database", "database-wal", "database-shm", "tls_key"]


def exposed(tmp_path, which, mode, owner=-1, group=-1):
    """What is said about one of the files that matter, if it has this mode."""
    path = tmp_path / which
    path.write_text("PORT=1")
    path.chmod(mode)
    try:
        os.chown(path, owner, group)
    except PermissionError:
        pytest.skip("only root may give a file away")
    database = {"database": str(tmp_path / "database")}
    names = {"dotenv": {}, "tls_key": {"tls_cert": "x", "tls_key": str(path)}}.get(which, database)
    dotenv = str(path if which == "dotenv" else tmp_path / "none")
    for changes in ({}, {"host": "0.0.0.0"}):
        try:
            found = check_exposure(risky(**names, **changes), True, dotenv)
        except SettingsError as error:
            assert changes and str(path) in str(error)
        else:
            found = [each for each in found if str(path) in each]
            assert not (found and changes), "a refusal in the open"
        if not changes:
            said = found
    return [each.replace(str(path), "FILE") for each in said]


@pytest.mark.parametrize("which", FILES)
@pytest.mark.parametrize(
    "mode, is_exposed", [(0o600, False), (0o400, False), (0o604, True), (0o602, True), (0o601, True)]
)
def test_a_file_that_others_can_read_or_write_is_noticed(tmp_path, which, mode, is_exposed):
    expected = ["FILE can be read or written by others: chmod 600 FILE"] if is_exposed else []
    assert exposed(tmp_path, which, mode) == expected


@pytest.mark.parametrize("which", FILES)
@pytest.mark.parametrize("group, is_exposed", [(54_321, True), (0, False), (os.getgid(), False)])
def test_a_group_that_is_neither_ours_nor_roots_is_others(tmp_path, which, group, is_exposed):
    for mode in (0o640, 0o440, 0o620):
        assert bool(exposed(tmp_path, which, mode, group=group)) is is_exposed


@pytest.mark.parametrize("which", FILES)
def test_a_file_of_another_user_is_noticed(tmp_path, which):
    assert exposed(tmp_path, which, 0o600, owner=54_321) == [
        "FILE belongs to another user, number 54321: chown it to the server's"]  # fmt: skip


@pytest.mark.parametrize("which", ["dotenv", "database", "tls_key"])
@pytest.mark.parametrize(
    "mode, is_exposed", [(0o755, False), (0o775, False), (0o1777, False), (0o777, True), (0o703, True)]
)
def test_a_directory_in_which_others_can_replace_files_is_noticed(tmp_path, which, mode, is_exposed):
    directory = tmp_path / "directory"
    directory.mkdir()
    directory.chmod(mode)
    files = {name: str((directory if name == which else tmp_path) / name) for name in ("dotenv", "database", "tls_key")}
    dotenv, settings = files.pop("dotenv"), risky(tls_cert="x", **files)
    expected = [f"the files in {directory} can be replaced by others: chmod go-w {directory}"] if is_exposed else []
    assert check_exposure(settings, True, dotenv) == expected


def test_no_sentence_holds_a_secret():
    settings = risky(access_secrets=(b"hunter2",), refresh_secrets=(b"hunter3",), random_secrets=True)
    assert "hunter" not in " ".join(check_exposure(settings, False))
