"""Room 6: the seven registered claims, at the very second and by the very letter."""

import math
import time
from datetime import datetime, timedelta, timezone
from fractions import Fraction

import pytest
from vectors import KEY, NOW, of, outcome, token

import minijwt as jwt


@pytest.mark.parametrize(**of("time"))
def test_times_are_numbers_and_end_on_the_second(vector):
    assert outcome(vector) == vector.expected


@pytest.mark.parametrize(**of("names"))
def test_names_are_compared_whole_and_missing_ones_are_missed(vector):
    assert outcome(vector) == vector.expected


def test_fractions_of_a_second_are_kept():
    assert jwt.decode(token('{"exp":2000000000.25}'), KEY, now=NOW) == {"exp": 2000000000.25}


def test_the_clock_is_read_when_nobody_tells_the_time(monkeypatch):
    until_noon = token('{"exp":2000000000}')
    monkeypatch.setattr(time, "time", lambda: NOW - 1.0)
    assert jwt.decode(until_noon, KEY)
    assert jwt.explain(until_noon, KEY)["valid"]
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(until_noon, KEY)
    assert not jwt.explain(until_noon, KEY)["valid"]
    assert jwt.decode(until_noon, KEY, now=0)  # zero is a time, too


@pytest.mark.parametrize("leeway", ["3", None, b"", [1]])
def test_a_leeway_that_is_no_time_is_the_callers_fault_whatever_the_token_holds(leeway):
    for claims in ('{"a":1}', '{"exp":1}'):
        with pytest.raises(TypeError, match="leeway must be seconds or a timedelta"):
            jwt.decode(token(claims), KEY, now=NOW, leeway=leeway)


@pytest.mark.parametrize("leeway", [timedelta(minutes=-1), -60])
def test_a_negative_leeway_makes_it_stricter(leeway):
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(token('{"exp":%d}' % (NOW + 60)), KEY, now=NOW, leeway=leeway)
    assert jwt.decode(token('{"exp":%d}' % (NOW + 61)), KEY, now=NOW, leeway=leeway)


def test_the_audience_may_be_any_iterable():
    good = token('{"aud":["x","us"]}')
    for audience in (["us"], ("us",), {"us"}, {"us": 1}.keys(), iter(["us"]), (name for name in ["them", "us"])):
        assert jwt.decode(good, KEY, audience=audience)


@pytest.mark.parametrize("claim", ["iat", "nbf", "exp", "iss", "aud", "sub", "jti"])
def test_each_check_can_be_left_out_by_its_name(claim):
    bad = token('{"%s":{}}' % claim)
    with pytest.raises(jwt.InvalidTokenError):
        jwt.decode(bad, KEY)
    assert jwt.decode(bad, KEY, options={f"verify_{claim}": False}) == {claim: {}}
    for other in {"iat", "nbf", "exp", "iss", "aud", "sub", "jti"} - {claim}:
        with pytest.raises(jwt.InvalidTokenError):
            jwt.decode(bad, KEY, options={f"verify_{other}": False})


def test_the_first_missing_claim_is_the_one_that_is_named():
    for required, missing in ((["a", "b"], "a"), (["sub", "b"], "b"), (("exp",), "exp")):
        with pytest.raises(jwt.MissingRequiredClaimError) as caught:
            jwt.decode(token('{"sub":"x"}'), KEY, options={"require": required})
        assert caught.value.claim == missing
    for expected, missing in (({"issuer": "joe"}, "iss"), ({"audience": "us"}, "aud"), ({"subject": "root"}, "sub")):
        with pytest.raises(jwt.MissingRequiredClaimError) as caught:
            jwt.decode(token(), KEY, **expected)
        assert caught.value.claim == missing


TYPES = [  # claim, JSON text, the type found, what is allowed
    ("jti", "null", "NoneType", "a string"), ("sub", "1", "int", "a string"), ("iss", "true", "bool", "a string"),
    ("iss", '["x"]', "list", "a string"), ("exp", '"soon"', "str", "a number"), ("nbf", "null", "NoneType", "a number"),
    ("iat", "true", "bool", "a number"), ("aud", "{}", "dict", "a string or array of strings"),
    ("aud", "null", "NoneType", "a string or array of strings"),
]  # fmt: skip


@pytest.mark.parametrize("claim, text, found, allowed", TYPES, ids=[f"{row[0]} {row[1]}" for row in TYPES])
def test_a_wrong_type_is_named_with_its_claim_and_the_type_that_is_allowed(claim, text, found, allowed):
    with pytest.raises(jwt.InvalidTokenError, match=f'"{claim}" must be {allowed} .RFC 7519 §[0-9.]+., not {found}$'):
        jwt.decode(token('{"%s":%s}' % (claim, text)), KEY, audience="us" if claim == "aud" else None)


def test_an_array_in_aud_that_holds_more_than_strings_is_named():
    with pytest.raises(jwt.InvalidAudienceError, match='"aud" is an array, but not of strings'):
        jwt.decode(token('{"aud":["us",1]}'), KEY, audience="us")


@pytest.mark.parametrize("payload", ["{}", '{"exp":2000000001}'])
@pytest.mark.parametrize("call", [jwt.decode, jwt.decode_complete, jwt.explain])
def test_now_is_seconds_and_the_message_says_so(call, payload):
    for now in (datetime.now(), datetime.now(timezone.utc), "2000000000", timedelta(1), [NOW], Fraction(NOW), 1j):
        with pytest.raises(TypeError, match=f"now must be seconds since 1970, not {type(now).__name__}.*timestamp"):
            call(token(payload), KEY, now=now)
    for now in (NOW, NOW + 0.5, -math.inf):
        call(token(payload), KEY, now=now)
