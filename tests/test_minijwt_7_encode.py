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
from prove import fuzz
from prove.fuzz import Backwards, LastOnly, Loud, Masked, Odd, Proxy, Twice, Warm
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
    assert segments(jwt.encode({}, KEY, sort_headers=False))[0] == '{"typ":"JWT","alg":"HS256"}'


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


# ---- One reading ------------------------------------------------------------------------------------------

QUERY = LastOnly({"sub": ["alice"], "role": ["a", "b"]})  # as a query string's dict: lists inside, strings in items()
ONE_READING = [  # payload, claims
    (QUERY, {"sub": "alice", "role": "b"}),
    ({"user": Masked(name="admin", password="hunter2")}, {"user": {"name": "admin", "password": "***"}}),
    (Masked(sub="admin", password="hunter2"), {"sub": "admin", "password": "***"}),
    ({"exp": Odd(NOW), "nbf": Warm(0.5), "iat": Level.HIGH}, {"exp": NOW, "nbf": 0.5, "iat": 3}),
    ({"sub": Loud("x"), "aud": [Loud("y")], "jti": Kind.ACCESS}, {"sub": "x", "aud": ["y"], "jti": "access"}),
    ({"aud": Backwards(["x", "y"])}, {"aud": ["y", "x"]}), ({Loud("sub"): "x"}, {"sub": "x"}),
    ({Loud("a"): Odd(1)}, {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize("payload, claims", ONE_READING, ids=[str(number) for number in range(len(ONE_READING))])
@pytest.mark.parametrize("json_encoder", [None, json.JSONEncoder])
def test_what_is_checked_is_what_is_signed(payload, claims, json_encoder):
    good = jwt.encode(payload, KEY, json_encoder=json_encoder)
    assert json.loads(segments(good)[1]) == claims == json.loads(json.dumps(payload))
    assert jwt.decode(good, KEY, audience=claims.get("aud"), now=NOW - 1) == claims


BEHIND = [  # what a look at its type, its name or its class would let pass
    {Loud("sub"): 1}, {Loud("exp"): "soon"}, LastOnly(sub=["x", 1]), LastOnly(exp=[NOW, "soon"]), Twice(sub="x"),
    {"sub": Proxy("x")}, {"exp": Proxy(1)}, {"aud": Proxy("x")}, {"aud": ["x", Proxy("y")]}, {"exp": Odd(10**308)},
    {"nbf": Warm("inf")}, {"aud": [Loud("x"), 1]}, Masked({1: "x"}),
]  # fmt: skip


class Lies(json.JSONEncoder):
    def default(self, value):
        return {"a": [1]} if type(value) is Proxy else super().default(value)


@pytest.mark.parametrize("payload", BEHIND, ids=[str(number) for number in range(len(BEHIND))])
def test_what_only_looks_right_is_not_signed(payload):
    for json_encoder in (None, Lies):
        with pytest.raises((TypeError, ValueError)):
            jwt.encode(payload, KEY, json_encoder=json_encoder)


def test_a_proxy_is_written_as_json_encoder_says():
    class Lazy(json.JSONEncoder):
        def default(self, value):
            return value.content if type(value) is Proxy else super().default(value)

    payload = {"sub": Proxy("x"), "exp": Proxy(NOW), "aud": [Proxy("y")], "greeting": Proxy("hello"), "n": Proxy(1.5)}
    claims = {"sub": "x", "exp": NOW, "aud": ["y"], "greeting": "hello", "n": 1.5}
    assert json.loads(segments(jwt.encode(payload, KEY, json_encoder=Lazy))[1]) == claims


@pytest.mark.parametrize("headers, header", [
    (Masked(kid="k", password="x"), {"kid": "k", "password": "***"}), (LastOnly(kid=["a", "b"]), {"kid": "b"}),
    ({"kid": Loud("k")}, {"kid": "k"}), ({Loud("kid"): "k"}, {"kid": "k"}), ({"x": Odd(1)}, {"x": 1}),
], ids=["items", "last", "value", "name", "number"])  # fmt: skip
def test_a_header_is_read_once_too(headers, header):
    for sort_headers in (True, False):
        good = jwt.encode({}, KEY, headers=headers, sort_headers=sort_headers)
        assert jwt.decode_complete(good, KEY)["header"] == {"alg": "HS256", "typ": "JWT", **header}


@pytest.mark.parametrize("headers", [
    {Loud("kid"): 1}, {"kid": Proxy("k")}, LastOnly(kid=["a", 1]), {Loud("crit"): ["exp"]}, {Loud("b64"): False},
    Twice(kid="a"),
], ids=["name", "proxy", "last", "crit", "b64", "twice"])  # fmt: skip
def test_a_header_that_only_looks_right_is_not_written(headers):
    for json_encoder in (None, Lies):
        with pytest.raises((TypeError, ValueError, jwt.InvalidTokenError)):
            jwt.encode({}, KEY, headers=headers, json_encoder=json_encoder)


def test_an_algorithm_that_only_compares_as_ours_is_not_written():
    class Same(str):
        def __ne__(self, other):
            return False

    with pytest.raises(NotImplementedError):
        jwt.encode({}, KEY, headers={"alg": Same("none")})


def test_each_object_is_read_once():
    class Counted(dict):
        reads = 0

        def items(self):
            self.reads += 1
            return super().items()

    payload, inner, headers = Counted(sub="x"), Counted(a=1), Counted(kid="k")
    payload["inner"] = inner
    jwt.encode(payload, KEY, headers=headers)
    assert (payload.reads, inner.reads, headers.reads) == (1, 1, 1)


def test_json_encoder_is_asked_once_about_each_object():
    class Fickle(json.JSONEncoder):
        answers = iter(["admin", 1, 2])

        def default(self, value):
            return next(Fickle.answers)

    good = jwt.encode({"sub": object()}, KEY, json_encoder=Fickle)
    assert jwt.decode(good, KEY) == {"sub": "admin"}
    assert next(Fickle.answers) == 1


# ---- Messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload, found, allowed", [
    ({"jti": None}, "NoneType", "a string"), ({"sub": 1}, "int", "a string"), ({"iss": ["x"]}, "list", "a string"),
    ({"exp": "soon"}, "str", "a number"), ({"iat": True}, "bool", "a number"), ({"nbf": {}}, "dict", "a number"),
    ({"aud": None}, "NoneType", "a string or array of strings"), ({"aud": [1]}, "list", "a string or array of strings"),
    ({"sub": datetime.time}, "", ""),
], ids=repr)  # fmt: skip
def test_a_wrong_type_is_named_with_its_claim_and_the_type_that_is_allowed(payload, found, allowed):
    (claim,) = payload
    says = f'"{claim}" must be {allowed} .RFC 7519 §[0-9.]+., not {found}$'
    with pytest.raises(TypeError, match=says if found else "type is not JSON serializable"):
        jwt.encode(payload, KEY)


# ---- The property -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_signed_is_what_json_dumps_would_write(seed):
    source = random.Random(seed)
    for _ in range(500):
        payload, headers = fuzz.a_payload(source), fuzz.a_payload(source) if source.random() < 0.2 else None
        fuzz.check_encode(payload, headers, source.choice([None, fuzz.Encoder]))
