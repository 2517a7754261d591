"""Room 6: the seven registered claims, at the very second and by the very letter."""

import time
from datetime import timedelta

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
