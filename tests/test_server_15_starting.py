"""Starting: sockets, TLS and limits, before the loop begins."""

import errno
import os
import socket
import ssl
import subprocess
import sys

import pytest
import server
from serverkit import PEM, TOP, found, settings


def test_localhost_listens_on_both_loopbacks_with_one_port():
    sockets = server.listen("localhost", 0)
    try:
        addresses = [listener.getsockname()[:2] for listener in sockets]
        assert addresses[0][0] == "127.0.0.1"
        assert len({port for _, port in addresses}) == 1
        if len(addresses) == 1:
            pytest.skip("this machine has no ::1")
        assert addresses[1][0] == "::1"
    finally:
        for listener in sockets:
            listener.close()


def test_a_port_in_use_is_one_sentence():
    (taken,) = server.listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(server.SettingsError, match=f"PORT {port} is in use") as refused:
            server.listen(host, port)
        assert refused.value.passing, "the other program may end"
    taken.close()


def test_an_address_that_is_not_ours_is_one_sentence():
    with pytest.raises(server.SettingsError, match="HOST 192.0.2.1 ") as refused:
        server.listen("192.0.2.1", 0)
    assert refused.value.passing, "it may come when the network does"


def test_a_port_that_only_root_may_use_is_one_sentence(monkeypatch):
    def bind(self, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": bind}))
    with pytest.raises(server.SettingsError, match="PORT 443 .* above 1023") as refused:
        server.listen("127.0.0.1", 443)
    assert not refused.value.passing


def test_where_there_is_no_ipv6_localhost_is_one_address(monkeypatch):
    real = server.bound_socket

    def bound_socket(address, port):
        if address == "::1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return real(address, port)

    monkeypatch.setattr(server, "bound_socket", bound_socket)
    (listener,) = server.listen("localhost", 0)
    listener.close()


def test_what_the_kernel_keeps_for_one_client_is_bounded():
    (listener,) = server.listen("127.0.0.1", 0)
    with listener:
        for option, most in (
            (socket.SO_SNDBUF, server.SEND_BUFFER_BYTES),
            (socket.SO_RCVBUF, server.RECEIVE_BUFFER_BYTES),
        ):
            assert 0 < listener.getsockopt(socket.SOL_SOCKET, option) <= 2 * most, "Linux doubles it"
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert listener.getblocking() is False


# -- TLS

OTHER_KEY = """-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIMvU0KZfvrbMaApkAwnjv+4KV+L21vqAry8GVTWSGHZPoAoGCCqGSM49
AwEHoUQDQgAE01hUbEFDHpe0GyJ2QdpTfOJm+p18Oa9ui1+T08XVGH/rToEbCZU8
tDOrbI2XmylXvIiwoswi+mF3MQjQlhUUqg==
-----END EC PRIVATE KEY-----
"""


def test_tls_is_1_2_or_newer_and_never_renegotiated():
    context = server.tls_context(PEM, PEM)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)


def test_bad_files_are_one_sentence_that_names_the_variable(tmp_path):
    (tmp_path / "other").write_text(OTHER_KEY)
    (tmp_path / "empty").write_text("")
    cases = [
        ("none", PEM, "TLS_CERT .*none cannot be read: No such file"),
        (PEM, "none", "TLS_KEY .*none cannot be read: No such file"),
        (".", PEM, "TLS_CERT .* cannot be read: Is a directory"),
        (PEM, "other", "TLS_KEY .*other is not the key of TLS_CERT"),
        ("empty", PEM, "must be PEM"),
        (PEM, "empty", "must be PEM"),
        (__file__, __file__, "must be PEM"),
    ]
    for cert, key, sentence in cases:
        with pytest.raises(server.SettingsError, match=sentence) as refused:
            server.tls_context(str(tmp_path / cert), str(tmp_path / key))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["TLS", "DATABASE"])
def test_a_key_that_is_locked_is_one_sentence_and_is_not_asked_for(tmp_path, kind):
    if not (openssl := found("openssl")):
        pytest.skip("there is no openssl here to lock a key")
    locked = tmp_path / "locked.key"
    lock = [openssl, "pkey", "-in", PEM, "-aes128", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(lock, check=True, capture_output=True)
    with pytest.raises(server.SettingsError, match=f"{kind}_KEY .*locked.key is locked by a password"):
        server.load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), kind, PEM, str(locked))


# -- limits

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
import server
print(server.raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0] == int(sys.argv[3]))
"""


@pytest.mark.parametrize(
    "soft, hard, raised, connections",
    [(256, 512, 512, 512 - server.RESERVED_DESCRIPTORS), (40, 40, 40, 1)],
)
def test_the_capacity_comes_from_the_limit_of_descriptors(soft, hard, raised, connections):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(soft), str(hard), str(raised)], cwd=TOP, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(connections), "True"], done.stderr


def test_where_there_is_no_such_limit_the_capacity_is_what_select_takes(monkeypatch):
    monkeypatch.setattr(server, "resource", None)
    assert 400 < server.raise_descriptor_limit() < server.MAX_SELECT == 512


# -- systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_where_it_listens(tmp_path, monkeypatch, abstract):
    name = f"@minijwt-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        try:
            listener.bind(name.replace("@", "\0"))
        except OSError:
            pytest.skip("only Linux has names of sockets that are not files")
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        for state in ("READY=1", "WATCHDOG=1", "STOPPING=1"):
            server.notify_systemd(state)
            assert listener.recv(100) == state.encode()


@pytest.mark.parametrize("path", ["", "/nowhere/at/all", "@nobody-listens-here", "x" * 200])
def test_where_systemd_does_not_listen_nothing_happens(monkeypatch, path):
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    server.notify_systemd("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    server.notify_systemd("READY=1")


# -- the store


def test_the_store_is_a_file_if_one_is_named_and_memory_otherwise(tmp_path):
    path = str(tmp_path / "users.db")
    store = server.open_store(settings(database=path))
    assert isinstance(store, server.SQLiteStore) and store.path == path and os.path.exists(path)
    store.close()
    assert isinstance(server.open_store(settings()), server.MemoryStore)
