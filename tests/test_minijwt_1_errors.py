"""Room 1: one family of errors, PyJWT's tree, a code for programs, and sentences that give nothing away."""

import copy
import importlib
import json
import pickle
import traceback

import pytest
from vectors import KEY, NOW, VECTORS, token

import minijwt as jwt

TREE = [  # name, parent, code
    ("PyJWTError", "Exception", "jwt_error"),
    ("InvalidTokenError", "PyJWTError", "invalid_token"),
    ("DecodeError", "InvalidTokenError", "decode_error"),
    ("InvalidSignatureError", "DecodeError", "invalid_signature"),
    ("InvalidAlgorithmError", "InvalidTokenError", "invalid_algorithm"),
    ("ExpiredSignatureError", "InvalidTokenError", "expired"),
    ("ImmatureSignatureError", "InvalidTokenError", "immature"),
    ("InvalidIssuedAtError", "InvalidTokenError", "invalid_issued_at"),
    ("InvalidIssuerError", "InvalidTokenError", "invalid_issuer"),
    ("InvalidAudienceError", "InvalidTokenError", "invalid_audience"),
    ("InvalidSubjectError", "InvalidTokenError", "invalid_subject"),
    ("InvalidJTIError", "InvalidTokenError", "invalid_jti"),
    ("MissingRequiredClaimError", "InvalidTokenError", "missing_claim"),
    ("InvalidKeyError", "PyJWTError", "invalid_key"),
]


@pytest.mark.parametrize("name, parent, code", TREE)
def test_each_error_has_its_place_and_a_code_that_never_changes(name, parent, code):
    error = getattr(jwt, name)
    assert [base.__name__ for base in error.__bases__] == [parent]
    assert error.code == code
    assert getattr(jwt.exceptions, name) is error  # as in `except jwt.exceptions.DecodeError`


def test_where_pyjwt_keeps_its_errors_there_are_all_errors_and_nothing_else():
    names = {name for name in vars(jwt.exceptions) if not name.startswith("__")}
    assert names == {name for name, _, _ in TREE}


def test_an_error_that_a_program_derives_has_a_code():
    class Revoked(jwt.InvalidTokenError):
        """Without a code of its own."""

    class Banned(jwt.InvalidTokenError):
        code = "banned"

    assert (Revoked.code, Revoked("x").code, Banned.code) == ("invalid_token", "invalid_token", "banned")
    assert jwt.InvalidTokenError.code == "invalid_token"


def test_they_are_imported_from_where_pyjwt_keeps_them():
    assert importlib.import_module("minijwt.exceptions").DecodeError is jwt.DecodeError


def test_no_error_is_missing_in_this_table():
    family = {
        name for name, thing in vars(jwt).items() if isinstance(thing, type) and issubclass(thing, jwt.PyJWTError)
    }
    assert family == {name for name, _, _ in TREE}


def test_no_two_errors_share_a_code():
    assert len({code for _, _, code in TREE}) == len(TREE)


def test_the_tree_is_pyjwts():
    theirs = pytest.importorskip("jwt.exceptions")
    for name, parent, _ in TREE:
        assert [base.__name__ for base in getattr(theirs, name).__bases__] == [parent]


def test_a_missing_claim_is_named():
    error = jwt.MissingRequiredClaimError("exp")
    assert error.claim == "exp"
    assert '"exp"' in str(error)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", [jwt.MissingRequiredClaimError("exp"), jwt.ExpiredSignatureError("too late")])
def test_an_error_survives_the_way_to_another_process(error, duplicate):
    twin = duplicate(error)
    assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


def test_the_warning_is_a_user_warning_as_in_pyjwt():
    assert jwt.InsecureKeyLengthWarning.__bases__ == (UserWarning,)


CANARY = "c4n4ry"
TELLTALE = [  # header, payload: wherever the canary stands, it must not sing
    *({"alg": value} for value in (CANARY, [CANARY], {CANARY: CANARY})),
    *({"alg": "HS256", name: [CANARY]} for name in ("kid", "typ", "cty", "crit", "b64")),
    *({"alg": "HS256", CANARY: value} for value in (float("nan"), 10**400, "\ud800")),
]


@pytest.mark.parametrize("header", TELLTALE, ids=repr)
def test_no_message_quotes_a_header(header):
    with pytest.raises(jwt.InvalidTokenError) as caught:
        jwt.decode(token(header=json.dumps(header)), KEY)
    assert CANARY not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("value", [CANARY, [CANARY], {CANARY: CANARY}], ids=repr)
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "iss", "aud", "sub", "jti"])
def test_no_message_quotes_a_claim(claim, value):
    for expected in ({}, {"audience": "us", "issuer": "joe", "subject": "admin"}):
        try:
            jwt.decode(token(json.dumps({claim: value})), KEY, **expected)
        except jwt.InvalidTokenError as error:
            assert CANARY not in str(error) + repr(error)


@pytest.mark.parametrize("key", [CANARY, "-----BEGIN PUBLIC KEY-----" + CANARY, '{"kty":"RSA","n":"%s"}' % CANARY,
                                 CANARY * 6 + "\ud800", [CANARY], {CANARY}], ids=ascii)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_no_message_quotes_a_key(key):
    for call in (lambda: jwt.encode({}, key), lambda: jwt.decode(token(), key), lambda: jwt.explain(token(), key)):
        with pytest.raises((jwt.PyJWTError, TypeError, jwt.InsecureKeyLengthWarning)) as caught:
            call()
        assert CANARY not in "".join(traceback.format_exception(type(caught.value), caught.value, None))
        assert "\\ud800" not in ascii(str(caught.value))


def test_no_message_and_no_traceback_quotes_any_hostile_token():
    for vector in VECTORS:
        try:
            jwt.decode(vector.token, **{"key": KEY, "now": NOW, **vector.arguments})
        except Exception as error:
            said = "".join(traceback.format_exception(type(error), error, None))
            text = vector.token if isinstance(vector.token, str) else ascii(vector.token)
            for piece in text.split("."):
                assert len(piece) < 6 or piece not in said, vector.name
            assert KEY not in said
