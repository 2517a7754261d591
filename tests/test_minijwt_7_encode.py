"""Room 7: encode writes what decode reads, and refuses the rest where it is made."""

import copy
import datetime
import decimal
import enum
import json
import math
import random
import uuid

import pytest
from test_minijwt_3_json import UNWRITABLE, Level, a_value
from vectors import KEY, NOW, base64url, mac

import minijwt as jwt

UTC = datetime.timezone.utc
REGISTERED = ["iat", "nbf", "exp", "iss", "aud", "sub", "jti"]


def segments(token):
    return [base64url_text(segment) for segment in token.split(".")[:2]]


def base64url_text(segment):
    return jwt.base64url_decode(segment.encode()).decode()


def test_a_token_is_what_the_rfcs_say_byte_by_byte():
    good = jwt.encode({"username": "admin", "exp": NOW}, KEY)
    signed = base64url(b'{"alg":"HS256","typ":"JWT"}') + "." + base64url(b'{"username":"admin","exp":2000000000}')
    assert good == signed + "." + mac(signed)
    assert type(good) is str


def test_positions_and_names_of_the_arguments_are_pyjwts():
    good = jwt.encode({"a": 1}, KEY)
    assert jwt.encode({"a": 1}, KEY, "HS256") == good
    assert jwt.encode({"a": 1}, KEY, algorithm="HS256") == good
    assert (
        jwt.encode(payload={"a": 1}, key=KEY, algorithm="HS256", headers=None, json_encoder=None, sort_headers=True)
        == good
    )
    assert jwt.encode({"a": 1}, KEY, "HS256", {"kid": "k"}, None, False) == jwt.encode(
        {"a": 1}, KEY, headers={"kid": "k"}, sort_headers=False
    )


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "hs256", "HS384", "HS512", "RS256", "", "HS256 ", None, 0, ["HS256"]], ids=repr
)
def test_no_other_algorithm_is_implemented(algorithm):
    with pytest.raises(NotImplementedError):
        jwt.encode({}, KEY, algorithm=algorithm)


@pytest.mark.parametrize(
    "payload", [None, "{}", b"{}", [], [("a", 1)], 1, (), {"a"}, object()], ids=lambda payload: type(payload).__name__
)
def test_a_payload_is_a_dict(payload):
    with pytest.raises(TypeError):
        jwt.encode(payload, KEY)


@pytest.mark.parametrize("value, error", UNWRITABLE, ids=[str(number) for number in range(len(UNWRITABLE))])
def test_what_decode_would_not_read_is_not_signed(value, error):
    for payload, headers in (({"a": value}, None), ({}, {"a": value})):
        with pytest.raises(error):
            jwt.encode(payload, KEY, headers=headers)


@pytest.mark.parametrize(
    "payload", [{1: "a"}, {1: "a", "1": "b"}, {None: 0}, {b"sub": "x"}, {("a",): 1}, {Level.HIGH: 1}], ids=repr
)
@pytest.mark.parametrize("json_encoder", [None, json.JSONEncoder])
def test_names_are_strings(payload, json_encoder):
    with pytest.raises(TypeError):
        jwt.encode(payload, KEY, json_encoder=json_encoder)


@pytest.mark.parametrize("payload", [{"a": "\ud800"}, {"\udfff": 1}, {"sub": "\ud800"}], ids=ascii)
def test_a_lone_surrogate_is_not_signed(payload):
    for json_encoder in (None, json.JSONEncoder):
        with pytest.raises(ValueError):
            jwt.encode(payload, KEY, json_encoder=json_encoder)


def test_whatever_encode_writes_decode_reads():
    source = random.Random(7519)
    for _ in range(300):
        claims = {"it": a_value(source), "sub": "admin", "exp": NOW + source.random()}
        good = jwt.encode(claims, KEY)
        assert jwt.decode(good, KEY, now=NOW) == claims
        assert jwt.encode(jwt.decode(good, KEY, now=NOW), KEY) == good


def test_the_largest_token_is_read_and_a_larger_one_not_written():
    fits = (65_536 - 43 - 2 - len(base64url(b'{"alg":"HS256","typ":"JWT"}'))) * 3 // 4 - len('{"a":""}')
    good = jwt.encode({"a": "x" * fits}, KEY)
    assert len(good) <= 65_536
    assert jwt.decode(good, KEY) == {"a": "x" * fits}
    with pytest.raises(ValueError):
        jwt.encode({"a": "x" * (fits + 1)}, KEY)


# ---- Registered claims ------------------------------------------------------------------------------------

WRONG = [
    *((claim, value) for claim in ("exp", "nbf", "iat") for value in (
        None, True, False, "2000000000", "", b"1", [], {}, decimal.Decimal(1), datetime.date(2033, 5, 18),
        datetime.timedelta(1), 1j)),
    *((claim, value) for claim in ("iss", "sub", "jti") for value in (
        None, True, 1, 1.5, b"x", [], ["x"], ("x",), {}, uuid.UUID(int=1), datetime.datetime(2033, 5, 18))),
    *(("aud", value) for value in (None, True, 1, b"x", {}, {"x"}, [1], [None], ["x", 1], ("x", None), [["x"]],
     iter(["x"]), object())),
]  # fmt: skip


@pytest.mark.parametrize("claim, value", WRONG, ids=[f"{claim} {number}" for number, (claim, _) in enumerate(WRONG)])
def test_a_registered_claim_of_a_wrong_type_is_a_type_error(claim, value):
    with pytest.raises(TypeError):
        jwt.encode({claim: value}, KEY)


class Kind(str, enum.Enum):
    ACCESS = "access"


RIGHT = [  # what is given, what is written
    *(({claim: given}, {claim: written}) for claim in ("exp", "nbf", "iat") for given, written in [
        (0, 0), (-1, -1), (NOW + 0.5, NOW + 0.5), (Level.HIGH, 3), (10**300, 10**300),
        (datetime.datetime(2033, 5, 18, 3, 33, 20, tzinfo=UTC), NOW),
        (datetime.datetime(2033, 5, 18, 3, 33, 20), NOW),
        (datetime.datetime(2033, 5, 18, 3, 33, 20, 999_999, tzinfo=UTC), NOW),
        (datetime.datetime(2033, 5, 18, 5, 33, 20, tzinfo=datetime.timezone(datetime.timedelta(hours=2))), NOW),
        (datetime.datetime(1969, 12, 31, 23, 59, 59), -1)]),
    *(({claim: given}, {claim: written}) for claim in ("iss", "sub", "jti", "aud") for given, written in [
        ("", ""), ("x", "x"), (Kind.ACCESS, "access")]),
    ({"aud": []}, {"aud": []}), ({"aud": ["x", "y"]}, {"aud": ["x", "y"]}), ({"aud": ("x", "y")}, {"aud": ["x", "y"]}),
    ({"aud": [Kind.ACCESS]}, {"aud": ["access"]}), ({"Exp": "never", "audience": 1}, {"Exp": "never", "audience": 1}),
]  # fmt: skip


@pytest.mark.parametrize("given, written", RIGHT, ids=[str(number) for number in range(len(RIGHT))])
@pytest.mark.parametrize("json_encoder", [None, json.JSONEncoder])
def test_a_registered_claim_of_a_right_type_is_written(given, written, json_encoder):
    before = copy.copy(given)
    good = jwt.encode(given, KEY, json_encoder=json_encoder)
    assert json.loads(segments(good)[1]) == written
    assert given == before
    assert jwt.decode(good, KEY, options={"verify_" + name: False for name in REGISTERED}) == written


@pytest.mark.parametrize(
    "payload", [{"at": datetime.datetime(2033, 5, 18)}, {"in": {"exp": datetime.datetime(2033, 5, 18)}}], ids=repr
)
def test_a_datetime_stands_only_in_exp_nbf_and_iat(payload):
    with pytest.raises(TypeError):
        jwt.encode(payload, KEY)


# ---- Header -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers, written", [
    (None, '{"alg":"HS256","typ":"JWT"}'),
    ({}, '{"alg":"HS256","typ":"JWT"}'),
    ({"kid": "k1"}, '{"alg":"HS256","kid":"k1","typ":"JWT"}'),
    ({"x": [1, {"y": None}]}, '{"alg":"HS256","typ":"JWT","x":[1,{"y":null}]}'),
    ({"typ": "at+jwt"}, '{"alg":"HS256","typ":"at+jwt"}'),
    ({"typ": None}, '{"alg":"HS256"}'),
    ({"typ": ""}, '{"alg":"HS256"}'),
    ({"alg": "HS256"}, '{"alg":"HS256","typ":"JWT"}'),
    ({"b64": True}, '{"alg":"HS256","b64":true,"typ":"JWT"}'),
    ({"cty": Kind.ACCESS}, '{"alg":"HS256","cty":"access","typ":"JWT"}'),
], ids=repr)  # fmt: skip
def test_headers_are_added(headers, written):
    good = jwt.encode({}, KEY, headers=headers)
    assert segments(good)[0] == written
    assert jwt.get_unverified_header(good) == json.loads(written)
    assert jwt.decode(good, KEY) == {}


def test_headers_can_be_left_in_their_order():
    good = jwt.encode({}, KEY, headers={"z": 1, "a": 2}, sort_headers=False)
    assert segments(good)[0] == '{"typ":"JWT","alg":"HS256","z":1,"a":2}'


@pytest.mark.parametrize("alg", ["none", "HS512", "RS256", "hs256", "", None, 256, ["HS256"]], ids=repr)
def test_a_header_cannot_contradict_the_signature(alg):
    with pytest.raises(NotImplementedError):
        jwt.encode({}, KEY, headers={"alg": alg})


@pytest.mark.parametrize("headers", [
    *({name: value} for name in ("kid", "cty") for value in (None, 1, True, ["k"], {"k": 1})),
    {"typ": 1}, {"typ": ["JWT"]}, {"typ": True}, {"crit": ["exp"]}, {"crit": []}, {"crit": None}, {"crit": ["b64"],
     "b64": True},
    {"b64": False}, {"b64": None}, {"b64": 1},
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("json_encoder", [None, json.JSONEncoder])
def test_a_header_that_decode_refuses_is_not_written(headers, json_encoder):
    with pytest.raises(jwt.InvalidTokenError):
        jwt.encode({}, KEY, headers=headers, json_encoder=json_encoder)


@pytest.mark.parametrize("headers", [{1: "a"}, {"1": 1, 1: 1}, {None: 1}, {"a": b"x"}, {"a": {1}}], ids=repr)
def test_names_in_a_header_are_strings_and_its_values_json(headers):
    for sort_headers in (True, False):
        with pytest.raises(TypeError):
            jwt.encode({}, KEY, headers=headers, sort_headers=sort_headers)


# ---- json_encoder -----------------------------------------------------------------------------------------


class MoreThanJson(json.JSONEncoder):
    def default(self, value):
        return {decimal.Decimal: str, uuid.UUID: str, set: sorted, complex: lambda z: math.nan}.get(
            type(value), super().default
        )(value)


def test_a_json_encoder_writes_what_json_does_not_know():
    payload = {
        "price": decimal.Decimal("1.10"),
        "id": uuid.UUID(int=1),
        "roles": {"a", "b"},
        "exp": datetime.datetime(2033, 5, 18, 3, 33, 20),
    }
    good = jwt.encode(payload, KEY, json_encoder=MoreThanJson, headers={"x": {"b", "a"}})
    assert jwt.decode(good, KEY, now=0) == {
        "price": "1.10",
        "id": str(uuid.UUID(int=1)),
        "roles": ["a", "b"],
        "exp": NOW,
    }
    assert jwt.get_unverified_header(good)["x"] == ["a", "b"]
    with pytest.raises(TypeError):
        jwt.encode(payload, KEY)


@pytest.mark.parametrize(
    "payload",
    [{"a": math.nan}, {"a": math.inf}, {"a": 1j}, {"a": 10**400}, {"a": "\ud800"}, {1: "a", "1": "b"}],
    ids=ascii,
)
def test_a_json_encoder_cannot_write_what_nobody_should_read(payload):
    with pytest.raises((ValueError, TypeError)):
        jwt.encode(payload, KEY, json_encoder=MoreThanJson)


@pytest.mark.parametrize("payload", [{"sub": 1}, {"exp": "x"}, {"aud": {"x": 1}}, {"exp": uuid.UUID(int=1)}], ids=repr)
def test_a_json_encoder_cannot_change_the_type_of_a_registered_claim(payload):
    with pytest.raises(TypeError):
        jwt.encode(payload, KEY, json_encoder=MoreThanJson)


class Endless(json.JSONEncoder):
    def default(self, value):
        return [value]


class Same(json.JSONEncoder):
    def default(self, value):
        return value


@pytest.mark.parametrize("json_encoder", [Endless, Same])
def test_a_json_encoder_without_end_is_a_value_error(json_encoder):
    for payload, headers in (({"a": object()}, None), ({}, {"a": object()})):
        with pytest.raises(ValueError):
            jwt.encode(payload, KEY, headers=headers, json_encoder=json_encoder)


def test_a_json_encoder_may_answer_with_what_json_has_to_ask_about_again():
    class Steps(json.JSONEncoder):
        def default(self, value):
            return [str(value)] if isinstance(value, uuid.UUID) else {"id": uuid.UUID(int=1)}

    assert segments(jwt.encode({"a": object()}, KEY, json_encoder=Steps))[1] == '{"a":{"id":["%s"]}}' % uuid.UUID(int=1)


def test_a_bomb_is_a_value_error_with_a_json_encoder_too():
    deep = {}
    for _ in range(5_000):
        deep = {"a": deep}
    with pytest.raises(ValueError):
        jwt.encode(deep, KEY, json_encoder=json.JSONEncoder)
