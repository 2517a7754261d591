"""Our vectors are whole tokens. Here they are cut to what the early stages can read; and a few tests, cut to size."""

import base64
import random
import re

import pytest
from prove import fuzz
from stand_in import seen
from test_minijwt_3_json import UNWRITABLE
from vectors import GOOD, KEY, NOW, RFC7515_KEY, RFC7515_TOKEN, SEAL, VECTORS, outcome, to_bytes, token

import minijwt as jwt


def those(group, name):
    return [vector for vector in VECTORS if vector.group == group and re.search(name, vector.name)]


def cut(vectors, read):
    """Return a test: what `read` makes of the three segments must be what is expected of the token."""

    @pytest.mark.parametrize("vector", vectors)
    def test(vector):
        assert outcome(vector, lambda text, **_: read(*to_bytes(text).split(b"."))) == vector.expected

    return test


def check(header, payload, signature):
    jwt.check_signature(header + b"." + payload, signature, KEY.encode())


test_a_segment_has_one_spelling = cut(
    those("base64url", "payload, bytes|^byte .., payload"), lambda _, payload, __: jwt.base64url_decode(payload)
)
test_json_is_read_strictly = cut(
    those("json", "payload$"),
    lambda _, payload, __: jwt.read_json(base64.urlsafe_b64decode(payload + b"=="), "payload"),
)
test_a_signature_that_is_not_exactly_ours_is_refused = cut(
    [*those("key", "^signature"), *those("base64url", "=.*signature$")], check
)


@pytest.mark.parametrize("vector", [
    *those("structure", ""), *those("key", "^(the same|RFC|signature|other|forged)"), *those("json", ", good|around"),
])  # fmt: skip
def test_what_our_key_has_signed_is_read_and_nothing_else(vector):
    assert outcome(vector) == vector.expected


def test_the_signature_of_rfc_7515_appendix_a_1_is_accepted():
    signing_input, _, signature = RFC7515_TOKEN.encode().rpartition(b".")
    assert jwt.check_signature(signing_input, signature, RFC7515_KEY) is None


def test_signatures_are_compared_in_constant_time():
    jwt.check_signature(GOOD.encode().rpartition(b".")[0], SEAL.encode(), KEY.encode())
    assert seen.compared


@pytest.mark.parametrize("value, error", UNWRITABLE)
def test_what_nobody_should_read_is_not_signed(value, error):
    with pytest.raises(error):
        jwt.encode({"a": value}, KEY)


def test_the_clock_is_read_when_nobody_tells_the_time():
    assert jwt.decode(token('{"exp":9e9}'), KEY) == {"exp": 9e9}
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(token('{"exp":1}'), KEY)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_decode_is_handed_it_returns_a_dict_or_raises_invalid_token_error(seed):
    source = random.Random(seed)
    for _ in range(500):
        arguments = {"key": KEY, "now": NOW, **source.choice(fuzz.EXPECTED)}
        assert isinstance(fuzz.outcome(jwt.decode, fuzz.case(source), **arguments), (dict, jwt.InvalidTokenError))
