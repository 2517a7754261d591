"""Room 5: a token is cut in three, and its header is read but never obeyed."""

import pytest
from vectors import ALG, BODY, GOOD, HEAD, KEY, NO_STRING, RFC7515_TOKEN, SEAL, STRUCTURE, of, outcome, sealed, token

import minijwt as jwt


@pytest.mark.parametrize(**of("structure"))
def test_a_token_is_three_segments_between_two_dots(vector):
    assert outcome(vector) == vector.expected


@pytest.mark.parametrize(**of("header"))
def test_a_header_says_and_never_chooses(vector):
    assert outcome(vector) == vector.expected


@pytest.mark.parametrize(**of("algorithm"))
def test_the_only_algorithm_is_hs256_and_the_caller_must_allow_it(vector):
    assert outcome(vector) == vector.expected


@pytest.mark.parametrize("text", [GOOD, GOOD.encode()], ids=["str", "bytes"])
def test_a_token_is_cut_at_its_dots(text):
    assert jwt.split(text) == (f"{HEAD}.{BODY}".encode(), HEAD.encode(), BODY.encode(), SEAL.encode())


def test_the_unverified_header_is_what_the_token_says():
    assert jwt.get_unverified_header(token(header='{"alg":"RS256","kid":"k1","x":[1]}', key="")) == {
        "alg": "RS256",
        "kid": "k1",
        "x": [1],
    }
    assert jwt.get_unverified_header(RFC7515_TOKEN.encode()) == {"typ": "JWT", "alg": "HS256"}
    assert jwt.get_unverified_header(token(header="{}")) == {}
    assert jwt.get_unverified_header(jwt.encode({}, KEY)) == {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize("bad", [text for _, _, text in STRUCTURE if text not in (sealed(HEAD + "."),)], ids=[
    name for name, _, text in STRUCTURE if text not in (sealed(HEAD + "."),)])  # fmt: skip
def test_the_unverified_header_of_no_token_is_refused(bad):
    with pytest.raises(jwt.DecodeError):
        jwt.get_unverified_header(bad)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_unverified_header_is_not_read_from_a_misspelt_token(place):
    segments = GOOD.split(".")
    segments[place] += "="
    with pytest.raises(jwt.DecodeError):
        jwt.get_unverified_header(".".join(segments))


@pytest.mark.parametrize(
    "member", [*(f'"kid":{value}' for value in NO_STRING), '"crit":["x"]', '"b64":false', '"alg":"HS256"', '"x":NaN']
)
def test_the_unverified_header_is_as_strict_as_the_verified(member):
    with pytest.raises(jwt.DecodeError):
        jwt.get_unverified_header(token(header="{%s,%s}" % (ALG, member)))


def test_no_two_callers_share_a_header():
    jwt.get_unverified_header(jwt.encode({}, KEY))["alg"] = "none"
    assert jwt.get_unverified_header(jwt.encode({}, KEY)) == {"alg": "HS256", "typ": "JWT"}
    assert jwt.decode(jwt.encode({}, KEY), KEY) == {}
