"""Room 4: HMAC-SHA256 against outside oracles, and what may be a key."""

import copy
import hashlib
import inspect
import pickle
import shutil
import subprocess
import warnings

import pytest
from vectors import (
    BODY,
    GOOD,
    GOOD_KEYS,
    HEAD,
    HMAC_FIGURES,
    KEY,
    OTHER_KEY,
    PUBLISHED_KEYS,
    SEAL,
    base64url,
    hmac_sha256,
    mac,
    of,
    outcome,
    sealed,
    token,
)

import minijwt as jwt


@pytest.mark.parametrize("key, text, figure", HMAC_FIGURES)
def test_the_figures_of_rfc_4231_hold(key, text, figure):
    key, text, figure = bytes.fromhex(key), bytes.fromhex(text), bytes.fromhex(figure)
    assert hmac_sha256(key, text)[: len(figure)] == figure
    assert jwt.base64url_decode(jwt.sign(text, key))[: len(figure)] == figure


@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 128, 129, 1_000])
def test_signatures_are_those_of_rfc_2104_for_keys_of_any_length(length):
    key = hashlib.shake_128(b"key").digest(length)
    for text in (b"", b".", b"x" * 63, b"x" * 64, b"x" * 10_000):
        assert jwt.sign(text, key) == base64url(hmac_sha256(key, text)).encode()


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl on this machine")
def test_signatures_are_those_of_openssl():
    signed, _, signature = jwt.encode({"sub": "admin"}, KEY).rpartition(".")
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{KEY.encode().hex()}", "-binary"]
    digest = subprocess.run(command, input=signed.encode(), stdout=subprocess.PIPE, check=True).stdout
    assert signature == base64url(digest)


@pytest.mark.parametrize(**of("key"))
def test_only_the_holder_of_a_proper_key_signs(vector):
    assert outcome(vector) == vector.expected


def test_every_bit_of_the_signature_counts():
    good = hmac_sha256(KEY.encode(), GOOD.rpartition(".")[0].encode())
    for bit in range(256):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(GOOD.rpartition(".")[0] + "." + base64url(bad), KEY)


def test_signatures_are_compared_in_constant_time(monkeypatch):
    seen = []
    compare = jwt.hmac.compare_digest
    monkeypatch.setattr(jwt.hmac, "compare_digest", lambda *pair: seen.append(set(pair)) or compare(*pair))
    jwt.decode(GOOD, KEY)
    assert seen == [{SEAL.encode()}]  # once, and both of them whole
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(GOOD[:-1], KEY)
    assert seen[1:] == [{SEAL.encode(), SEAL[:-1].encode()}]


@pytest.mark.parametrize(
    "key", [key for _, key in PUBLISHED_KEYS] + ["", b""], ids=[name for name, _ in PUBLISHED_KEYS] + ["str", "bytes"]
)
def test_what_is_no_secret_neither_signs_nor_verifies_nor_explains(key):
    for call in (
        lambda: jwt.encode({}, key),
        lambda: jwt.decode(token(key=key), key),
        lambda: jwt.explain(token(key=key), key),
    ):
        with pytest.raises(jwt.InvalidKeyError):
            call()


@pytest.mark.parametrize("key", [key for _, key in GOOD_KEYS], ids=[name for name, _ in GOOD_KEYS])
def test_a_secret_is_taken_whole(key):
    signed, _, signature = jwt.encode({}, key).rpartition(".")
    assert signature == mac(signed, key)


def test_str_and_bytes_are_the_same_key():
    for key in (KEY, "\u00e4" * 16):
        assert (
            jwt.decode(jwt.encode({}, key), key.encode("utf-8"))
            == {}
            == jwt.decode(jwt.encode({}, key.encode("utf-8")), key)
        )


@pytest.mark.parametrize("length", [1, 16, 31])
def test_a_short_key_is_a_warning_that_points_at_the_caller(length):
    key = "k" * length
    with pytest.warns(jwt.InsecureKeyLengthWarning) as caught:
        good = jwt.encode({}, key)
        assert jwt.decode(good, key) == {}
    assert [warning.filename for warning in caught] == [__file__, __file__]
    assert all(str(length) in str(warning.message) for warning in caught)


@pytest.mark.parametrize("key", ["k" * 32, b"k" * 33, "\u00e4" * 16])
def test_32_bytes_are_no_warning(key):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jwt.decode(jwt.encode({}, key), key)


def test_a_short_key_can_be_refused():
    short = token(key="k" * 31)
    with pytest.raises(jwt.InvalidKeyError):
        jwt.decode(short, "k" * 31, options={"enforce_minimum_key_length": True})
    assert jwt.decode(token(), KEY, options={"enforce_minimum_key_length": True}) == {}


def test_decode_without_a_key_gives_nothing():
    with pytest.raises(jwt.InvalidKeyError):
        jwt.decode(GOOD)


@pytest.mark.parametrize("key", [None, 1, [KEY], bytearray(KEY.encode())], ids=repr)
def test_a_key_of_another_type_is_the_programmers_fault(key):
    for call in (lambda: jwt.encode({}, key), lambda: jwt.decode(GOOD, key)):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("key, found", [
    (None, "None: is the variable"), (1, "int$"), ([KEY], "list$"), (bytearray(KEY.encode()), "bytearray$"),
], ids=repr)  # fmt: skip
def test_the_message_for_a_key_names_the_type_found_and_those_allowed(key, found):
    for call in (lambda: jwt.encode({}, key), lambda: jwt.decode(GOOD, key), lambda: jwt.Key(key)):
        with pytest.raises(TypeError, match=f"The key must be str, bytes or Key, not {found}") as caught:
            call()
        assert KEY not in str(caught.value)


def test_a_short_key_points_at_the_caller_of_every_function():
    key = "k" * 16
    short = token(key=key)
    with pytest.warns(jwt.InsecureKeyLengthWarning) as caught:
        line = inspect.currentframe().f_lineno
        jwt.encode({}, key)
        jwt.decode(short, key)
        jwt.decode_complete(short, key)
        jwt.explain(short, key)
        jwt.key_bytes(key)
        jwt.Key(key)
    assert [(warning.filename, warning.lineno - line) for warning in caught] == [(__file__, at) for at in range(1, 7)]


# ---- What a wrong signature is told about its spelling -----------------------------------------------------

MISSPELT = [
    GOOD + "\n", GOOD + " ", GOOD + "=", GOOD + "==", GOOD[:-5] + " " + GOOD[-5:], GOOD[:-1] + "+", f'{GOOD}"',
    f"{HEAD}.{BODY}=.{SEAL}", f"{HEAD}.{BODY} .{SEAL}", f"{HEAD}.{BODY[:4]}\n{BODY[4:]}.{SEAL}",
    f"{HEAD}.{BODY[:-1]}/.{SEAL}",
]  # fmt: skip


@pytest.mark.parametrize("bad", MISSPELT, ids=repr)
def test_white_space_and_padding_are_named_and_not_a_wrong_key(bad):
    with pytest.raises(jwt.InvalidSignatureError, match="^Signature verification failed: .*white space, padding"):
        jwt.decode(bad, KEY)
    (step,) = [step for step in jwt.explain(bad, KEY)["steps"] if step["ok"] is False]
    assert (step["name"], step["code"]) == ("signature", "invalid_signature") and "padding" in step["found"]


WRONG = [token(key=OTHER_KEY), GOOD[:-2], f"{HEAD}.{BODY[:-2]}.{SEAL}", f"{HEAD}.{BODY}."]


@pytest.mark.parametrize("bad", WRONG, ids=repr)
def test_a_wrong_key_and_a_cut_token_are_not_called_misspelt(bad):
    with pytest.raises(jwt.InvalidSignatureError, match="^Signature verification failed$"):
        jwt.decode(bad, KEY)


def test_a_spelling_is_looked_at_only_after_the_comparison_has_failed():
    with pytest.raises(jwt.DecodeError) as caught:
        jwt.decode(sealed(f"{HEAD}.{BODY}="), KEY)
    assert type(caught.value) is jwt.DecodeError


# ---- Key --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [KEY, KEY.encode(), "\u00e4" * 16, "k" * 64, "k" * 65, b"\xff" * 1_000], ids=ascii)
def test_a_key_signs_and_verifies_as_its_secret_does_however_often(secret):
    key = jwt.Key(secret)
    for claims in ({}, {"sub": "x"}, {"a": "b" * 1_000}, {}):
        good = jwt.encode(claims, secret)
        assert jwt.encode(claims, key) == good
        assert jwt.decode(good, key) == claims
        assert jwt.decode_complete(good, key) == jwt.decode_complete(good, secret)
        assert jwt.explain(good, key) == jwt.explain(good, secret)
        for bad in (good[:-2], sealed(good.rpartition(".")[0], OTHER_KEY)):
            with pytest.raises(jwt.InvalidSignatureError):
                jwt.decode(bad, key)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(GOOD, jwt.Key(OTHER_KEY))


@pytest.mark.parametrize("key, text, figure", HMAC_FIGURES)
@pytest.mark.filterwarnings("ignore::minijwt.InsecureKeyLengthWarning")
def test_the_figures_of_rfc_4231_hold_for_a_key_made_once(key, text, figure):
    text, figure, made = bytes.fromhex(text), bytes.fromhex(figure), jwt.Key(bytes.fromhex(key))
    for _ in range(2):
        assert jwt.base64url_decode(jwt.sign(text, made))[: len(figure)] == figure


@pytest.mark.parametrize("secret", ["", b"", *(key for _, key in PUBLISHED_KEYS[:3])], ids=ascii)
def test_what_is_no_secret_does_not_become_a_key(secret):
    with pytest.raises(jwt.InvalidKeyError):
        jwt.Key(secret)


def test_a_short_key_made_once_warns_once_and_can_still_be_refused():
    with pytest.warns(jwt.InsecureKeyLengthWarning) as caught:
        key = jwt.Key("k" * 31)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = jwt.encode({}, key)
        assert jwt.decode(good, key) == {}
        for call in (jwt.decode, jwt.decode_complete):
            with pytest.raises(jwt.InvalidKeyError):
                call(good, key, options={"enforce_minimum_key_length": True})
    assert len(caught) == 1
    assert jwt.decode(token(), jwt.Key(KEY), options={"enforce_minimum_key_length": True}) == {}


def test_a_key_does_not_show_its_secret():
    key = jwt.Key(KEY)
    assert KEY not in repr(key) + str(key) + f"{key}"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    assert jwt.decode(GOOD, copy.copy(key))
