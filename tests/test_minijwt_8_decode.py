"""Room 8: decode, as a user of PyJWT calls it; and the one property: a dict, or an InvalidTokenError."""

import json
import random
from datetime import datetime, timedelta, timezone

import pytest
from prove import fuzz
from vectors import BODY, GOOD, GOOD_CLAIMS, HEAD, KEY, NOW, OTHER_KEY, VECTORS, mac, of, outcome, sealed, token

import minijwt as jwt


@pytest.mark.parametrize(**of("flood"))
def test_a_flood_is_refused_and_a_large_token_is_not(vector):
    assert outcome(vector) == vector.expected


# ---- PyJWT's calls, as its documentation has them ---------------------------------------------------------


@pytest.mark.parametrize("call", [
    lambda: jwt.decode(GOOD, KEY, algorithms=["HS256"]),
    lambda: jwt.decode(GOOD, KEY, ["HS256"]),
    lambda: jwt.decode(GOOD, KEY, "HS256"),
    lambda: jwt.decode(GOOD, KEY),
    lambda: jwt.decode(GOOD.encode(), KEY.encode(), algorithms=("HS256",)),
    lambda: jwt.decode(jwt=GOOD, key=KEY, algorithms=["RS256", "HS256"]),
    lambda: jwt.decode(GOOD, KEY, ["HS256"], {"verify_exp": False}),
    lambda: jwt.decode(GOOD, KEY, ["HS256"], None),
    lambda: jwt.decode(GOOD, KEY, ["HS256"], {}),
    lambda: jwt.decode(GOOD, key=KEY, algorithms=["HS256"], options={"require": ["sub"], "verify_signature": True}),
    lambda: jwt.decode(GOOD, KEY, algorithms=["HS256"], audience=None, issuer=None, subject="admin", leeway=10),
    lambda: jwt.decode(GOOD, KEY, algorithms=["HS256"], leeway=timedelta(seconds=10)),
    lambda: jwt.decode_complete(GOOD, KEY, algorithms=["HS256"])["payload"],
    lambda: jwt.decode_complete(GOOD, KEY, ["HS256"], {"require": ["sub"]}, subject="admin")["payload"],
    lambda: jwt.decode_complete(jwt=GOOD, key=KEY, algorithms=["HS256"])["payload"],
])  # fmt: skip
def test_decode_is_called_as_in_pyjwt(call):
    assert call() == GOOD_CLAIMS


def test_what_comes_after_the_options_is_named():
    with pytest.raises(TypeError):
        jwt.decode(GOOD, KEY, ["HS256"], None, "us")


def test_a_day_in_the_life_of_a_token():
    now = datetime.now(tz=timezone.utc)
    good = jwt.encode(
        {"sub": "admin", "iat": now, "nbf": now, "exp": now + timedelta(minutes=10)}, KEY, algorithm="HS256"
    )
    claims = jwt.decode(good, KEY, algorithms=["HS256"], options={"require": ["exp", "iat", "sub"]})
    assert claims["exp"] - claims["iat"] == 600
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(good, KEY, algorithms=["HS256"], now=claims["exp"])
    with pytest.raises(jwt.exceptions.ImmatureSignatureError):
        jwt.decode(good, KEY, algorithms=["HS256"], now=claims["iat"] - 1)


def test_decode_complete_returns_all_three_parts():
    good = token('{"a":1}', '{"alg":"HS256","kid":"k1"}')
    signed, _, signature = good.rpartition(".")
    assert jwt.decode_complete(good, KEY) == {
        "header": {"alg": "HS256", "kid": "k1"}, "payload": {"a": 1},
        "signature": jwt.base64url_decode(mac(signed).encode()),
    }  # fmt: skip


def test_decode_complete_refuses_what_decode_refuses():
    for vector in VECTORS:
        complete = outcome(vector, jwt.decode_complete)
        assert (complete["payload"] if isinstance(complete, dict) else complete) == vector.expected, vector.name


@pytest.mark.parametrize("name", [
    "verify", "verify_expiration", "Verify_exp", "verify_exp ", "verify_signatur", "require_exp", "required",
    "strict_audience", "", None, 1,
    "verify_kid", "leeway", "audience", "algorithms",
])  # fmt: skip
@pytest.mark.parametrize("value", [True, False])
def test_an_option_that_is_misspelt_is_a_check_that_never_runs(name, value):
    for text in (GOOD, "no token"):
        with pytest.raises(TypeError):
            jwt.decode(text, KEY, options={name: value})


@pytest.mark.parametrize("off", [False, 0, None, ""])
def test_the_signature_check_cannot_be_switched_off(off):
    for text in (GOOD, "no token", sealed(f"{HEAD}.{BODY}", OTHER_KEY)):
        with pytest.raises(NotImplementedError):
            jwt.decode(text, KEY, options={"verify_signature": off})
        with pytest.raises(NotImplementedError):
            jwt.decode_complete(text, KEY, options={"verify_signature": off, "verify_exp": False})


def test_leaving_out_a_check_leaves_out_no_other():
    everything = {"verify_" + name: False for name in ("iat", "nbf", "exp", "iss", "aud", "sub", "jti")}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(sealed(f"{HEAD}.{BODY}", OTHER_KEY), KEY, options=everything)
    with pytest.raises(jwt.InvalidAlgorithmError):
        jwt.decode(token(header='{"alg":"none"}'), KEY, options=everything)


@pytest.mark.parametrize("payload", ["{}", '{"aud":"us"}'])
def test_an_audience_that_is_none_is_the_programmers_fault(payload):
    for call in (jwt.decode, jwt.explain):
        with pytest.raises(TypeError):
            call(token(payload), KEY, audience=5)


@pytest.mark.parametrize("require", ["sub", None, 1])
def test_required_claims_are_a_list_and_not_a_string(require):
    for any_token in (GOOD, "not even a token"):
        with pytest.raises(TypeError):
            jwt.decode(any_token, KEY, options={"require": require})


def test_options_are_the_callers_and_stay_as_they_are():
    options = {"require": ["sub"], "verify_exp": False}
    jwt.decode(GOOD, KEY, options=options)
    assert options == {"require": ["sub"], "verify_exp": False}
    with pytest.raises(jwt.ExpiredSignatureError):  # and the next caller has his own
        jwt.decode(token('{"exp":0}'), KEY)


# ---- The order of trust -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad, error", [
    ("a.b", jwt.DecodeError),
    (token("no JSON", '{"alg":"none"}', OTHER_KEY), jwt.InvalidAlgorithmError),
    (token("no JSON", '{"alg":"HS256","crit":["x"]}', OTHER_KEY), jwt.DecodeError),
    (token("no JSON", key=OTHER_KEY), jwt.InvalidSignatureError),
    (sealed(HEAD + ".no base64url", OTHER_KEY), jwt.InvalidSignatureError),
    (token('{"exp":0}', key=OTHER_KEY), jwt.InvalidSignatureError),
    (token('{"exp":0,"exp":0}'), jwt.DecodeError),
    (token('{"exp":0}'), jwt.MissingRequiredClaimError),
    (token('{"exp":0,"a":1}'), jwt.ExpiredSignatureError),
    (token('{"exp":1,"a":1,"aud":"x"}'), jwt.InvalidAudienceError),
])  # fmt: skip
def test_of_several_faults_the_earliest_is_named(bad, error):
    with pytest.raises(jwt.InvalidTokenError) as caught:
        jwt.decode(bad, KEY, options={"require": ["a"]}, now=0)
    assert type(caught.value) is error


def test_nothing_of_the_payload_is_read_before_the_signature_holds(monkeypatch):
    read = []
    read_json = jwt.read_json
    monkeypatch.setattr(jwt, "read_json", lambda raw, name: read.append(name) or read_json(raw, name))
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token("{}", key=OTHER_KEY), KEY)
    assert read == ["header"]


def test_a_large_token_is_refused_before_anything_is_done_with_it(monkeypatch):
    monkeypatch.delattr(jwt, "a2b_base64")
    monkeypatch.delattr(jwt, "read_json")
    for text in ("A" * 65_535 + "..", "." * 1_000_000, "a.b", "a.b.c.d"):
        with pytest.raises(jwt.DecodeError):
            jwt.decode(text, KEY)


# ---- The one property -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_whatever_decode_is_handed_it_returns_a_dict_or_raises_invalid_token_error(seed):
    source = random.Random(seed)
    for _ in range(500):
        text, expected = fuzz.case(source), source.choice(fuzz.EXPECTED)
        try:
            fuzz.check(text, **expected)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}: {text!r} {expected}") from error


def test_every_prefix_and_every_gap_of_a_good_token_is_refused():
    for at in range(len(GOOD)):
        for bad in (GOOD[:at], GOOD[:at] + GOOD[at + 1 :], GOOD[:at] + "." + GOOD[at:], GOOD[:at] + "A" + GOOD[at:]):
            fuzz.check(bad)
            with pytest.raises(jwt.InvalidTokenError):
                jwt.decode(bad, KEY)


# ---- Two other libraries ----------------------------------------------------------------------------------

SHARED = [
    {},
    {"sub": "admin", "exp": NOW, "aud": ["us"]},
    {"a": [1, 2.5, None, True, {"b": "\u00e9\U0001f600"}]},
    {"iss": "joe", "iat": 1.5},
]


@pytest.mark.parametrize("claims", SHARED, ids=ascii)
@pytest.mark.parametrize("headers", [None, {"kid": "k1"}], ids=ascii)
def test_pyjwt_reads_ours_and_we_read_its(claims, headers):
    pyjwt = pytest.importorskip("jwt")
    ours = jwt.encode(claims, KEY, headers=headers)
    lax = {"verify_exp": False, "verify_aud": False}
    assert pyjwt.decode(ours, KEY, algorithms=["HS256"], options=lax) == claims
    assert pyjwt.get_unverified_header(ours) == jwt.get_unverified_header(ours)
    theirs = pyjwt.encode(claims, KEY, algorithm="HS256", headers=headers)
    assert jwt.decode(theirs, KEY, algorithms=["HS256"], options=lax) == claims
    if json.dumps(claims, ensure_ascii=False).isascii():
        assert ours == theirs  # letter by letter


@pytest.mark.parametrize("claims", SHARED, ids=ascii)
def test_joserfc_reads_ours_and_we_read_its(claims):
    theirs = pytest.importorskip("joserfc.jwt")
    key = pytest.importorskip("joserfc.jwk").OctKey.import_key(KEY)
    assert theirs.decode(jwt.encode(claims, KEY), key, algorithms=["HS256"]).claims == claims
    options = {"verify_exp": False, "verify_aud": False}
    assert jwt.decode(theirs.encode({"alg": "HS256"}, claims, key), KEY, options=options) == claims


def test_pyjwt_accepts_none_of_what_we_call_forged():
    pyjwt = pytest.importorskip("jwt")
    for vector in VECTORS:
        if vector.expected is jwt.InvalidSignatureError and vector.group == "key" and not vector.arguments:
            with pytest.raises(pyjwt.InvalidTokenError):
                pyjwt.decode(vector.token, KEY, algorithms=["HS256"])
