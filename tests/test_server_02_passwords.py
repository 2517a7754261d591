"""Passwords: what is stored, what it costs, and that what was stored is recognized."""

import hashlib

import pytest
import server
from serverkit import CHEAP
from sessionkit import PASSWORD

HAS_SCRYPT = server.COST == server.SCRYPT
needs_scrypt = pytest.mark.skipif(not HAS_SCRYPT, reason="this Python's OpenSSL has no scrypt, or refuses it")

# RFC 7914 §12 and RFC 7914 §11 (PBKDF2-HMAC-SHA-256): the figures of the RFC, cut to 32 bytes
SCRYPT_RFC = [
    ("", "", (16, 1, 1), "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"),
    ("password", "NaCl", (1024, 8, 16), "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"),
    (
        "pleaseletmein",
        "SodiumChloride",
        (16384, 8, 1),
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2",
    ),
]
PBKDF2_RFC = [
    ("passwd", "salt", (1,), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
    ("Password", "NaCl", (80_000,), "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"),
]


@pytest.mark.parametrize(
    "scheme, case",
    [*(pytest.param("scrypt", case, marks=needs_scrypt) for case in SCRYPT_RFC), *(("pbkdf2", c) for c in PBKDF2_RFC)],
)
def test_the_figures_of_rfc_7914_are_ours(scheme, case):
    password, salt, numbers, digest = case
    stored = "$".join([scheme, *map(str, numbers), salt.encode().hex(), digest])
    assert server.check_password(password, stored)
    assert not server.check_password(password + "x", stored)


@pytest.mark.parametrize("cost", [pytest.param("scrypt$2$1$1", marks=needs_scrypt), "pbkdf2$1"])
def test_a_stored_password_brings_its_cost_and_a_salt_of_its_own(cost):
    stored = server.hash_password(PASSWORD, cost)
    scheme, *numbers, salt, digest = stored.split("$")
    assert "$".join([scheme, *numbers]) == cost
    assert (len(bytes.fromhex(salt)), len(bytes.fromhex(digest))) == (16, 32)
    assert server.hash_password(PASSWORD, cost) != stored
    assert server.check_password(PASSWORD, stored)
    assert PASSWORD not in stored


def test_the_cost_is_owasps():
    assert (server.SCRYPT, server.PBKDF2) == ("scrypt$16384$8$5", "pbkdf2$600000")
    assert server.COST == server.best_cost() in (server.SCRYPT, server.PBKDF2)


@needs_scrypt
def test_scrypt_gets_the_memory_it_needs_and_no_more():
    stored = server.hash_password(PASSWORD, server.SCRYPT)
    assert server.check_password(PASSWORD, stored)


NEAR = ["", "correct hors", "correct horse ", "Correct horse", "correct horse\0", " correct horse", "correct  horse"]


@pytest.mark.parametrize("password", NEAR)
def test_almost_the_password_is_not_the_password(password):
    assert not server.check_password(password, server.hash_password(PASSWORD, CHEAP))


@pytest.mark.parametrize("password", ["", "none", "\0", PASSWORD])
def test_nothing_matches_the_dummy(password):
    assert not server.check_password(password, server.dummy_password(CHEAP))


# -- what this machine can do


def refusing(error):
    def scrypt(*arguments, **more):
        raise error

    return scrypt


FAULTS = {
    "FIPS": ValueError("[digital envelope routines] unsupported"),
    "no memory": MemoryError(),
    "a limit": OSError(12, "Cannot allocate memory"),
}


@pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS)
def test_whether_scrypt_works_is_tried_and_not_looked_up(monkeypatch, error):
    monkeypatch.setattr(hashlib, "scrypt", refusing(error), raising=False)
    assert server.best_cost() == server.PBKDF2
    monkeypatch.delattr(hashlib, "scrypt")
    assert server.best_cost() == server.PBKDF2


@pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS)
def test_what_keeps_a_hash_from_being_made_is_one_kind_of_error(monkeypatch, error):
    monkeypatch.setattr(hashlib, "scrypt", refusing(error), raising=False)
    for call in (
        lambda: server.hash_password(PASSWORD, server.SCRYPT),
        lambda: server.check_password(PASSWORD, server.dummy_password(server.SCRYPT)),
    ):
        with pytest.raises(server.HashFailed, match="scrypt") as failed:
            call()
        assert PASSWORD not in str(failed.value)


WEAKER = [  # (what is stored, the cost of new passwords, whether the stored one is weaker)
    ("scrypt$2$1$1", "scrypt$2$1$1", False),
    ("scrypt$2$1$1", "scrypt$4$1$1", True),
    ("scrypt$4$1$1", "scrypt$2$1$1", False),
    ("scrypt$4$1$1", "scrypt$2$1$2", True),
    ("scrypt$16384$8$5", "scrypt$16384$8$5", False),
    ("pbkdf2$1", "pbkdf2$2", True),
    ("pbkdf2$600000", "pbkdf2$600000", False),
    ("pbkdf2$1000", "pbkdf2$999", False),
    ("pbkdf2$600000", "scrypt$16384$8$5", True),
    ("scrypt$16384$8$5", "pbkdf2$600000", True),
]


@pytest.mark.parametrize("stored, cost, weaker", WEAKER)
def test_which_of_two_costs_is_weaker(stored, cost, weaker):
    assert server.is_weaker(f"{stored}$00$00", cost) is weaker
