"""Settings: what can be set, what it is unless it is set, and who can reach the server."""

import pytest
import server
from serverkit import settings


def test_the_defaults_are_the_tutorials():
    defaults = server.Settings((b"a" * 32,), (b"b" * 32,))
    assert (defaults.host, defaults.port) == ("localhost", 8000)
    assert (defaults.access_ttl, defaults.refresh_ttl, defaults.unauthorized_status) == (600, 86_400, 406)
    assert (defaults.cookie_name, defaults.cookie_samesite, defaults.cookie_secure) == ("jwt", "None", True)
    assert (defaults.database, defaults.rotate_refresh, defaults.login_max_failures) == ("", False, 10)
    assert (defaults.allowed_origins, defaults.trusted_proxies) == ((), ())
    assert (defaults.tls_cert, defaults.tls_key) == ("", "")
    assert (defaults.page, defaults.access_log, defaults.random_secrets) == (True, False, False)


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        settings().port = 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1", "0:0::0001"])
def test_loopback_is_private(host):
    assert settings(host=host).private


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "10.0.0.1"])
def test_every_other_address_is_open(host):
    assert not settings(host=host).private


def test_loopback_behind_a_proxy_is_open():
    assert not settings(trusted_proxies=server.read_networks("127.0.0.1")).private


def test_what_can_be_logged_holds_no_secret():
    shown = settings(access_secrets=(b"hunter2",), refresh_secrets=(b"hunter3",))
    assert f"{shown} {shown!r} {[shown]}".count("hunter") == 0


def test_an_error_knows_whether_it_may_pass_by_itself():
    assert not server.SettingsError("PORT is wrong").passing
    assert server.SettingsError("PORT is in use", passing=True).passing
