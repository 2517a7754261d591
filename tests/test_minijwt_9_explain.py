"""Room 9: explain tells what decode does, step by step, and never what would have been right."""

import base64
import json
from datetime import timedelta

import pytest
from vectors import GOOD, GOOD_CLAIMS, KEY, NOW, OTHER_KEY, VECTORS, base64url, hmac_sha256, outcome, token

import minijwt as jwt

STEPS = ["shape", "header", "algorithm", "signature", "payload", "iat", "nbf", "exp", "iss", "aud", "sub", "jti"]


def steps(report, column):
    return {step["name"]: step[column] for step in report["steps"]}


@pytest.mark.parametrize("group", sorted({vector.group for vector in VECTORS}))
def test_it_agrees_with_decode(group):
    # It knows nothing of options and algorithms, so it always checks everything.
    for vector in (
        vector
        for vector in VECTORS
        if vector.group == group and not vector.arguments.keys() & {"options", "algorithms"}
    ):
        report = outcome(vector, jwt.explain)
        if vector.expected in (jwt.InvalidKeyError, TypeError):  # the key's fault, never the token's
            assert report is vector.expected, vector.name
            continue
        good = isinstance(vector.expected, dict)
        assert report["valid"] is good, vector.name
        assert report["claims"] == (vector.expected if good else None), vector.name
        codes = [step["code"] for step in report["steps"] if step["ok"] is False]
        assert codes == ([] if good else [vector.expected.code]), vector.name
        assert json.loads(json.dumps(report)) == report, vector.name


def test_without_a_key_nothing_is_valid():
    for vector in VECTORS:
        expected = {
            name: value for name, value in vector.arguments.items() if name in ("audience", "issuer", "subject")
        }
        report = jwt.explain(vector.token, now=NOW, **expected)
        assert report["valid"] is False, vector.name
        assert report["claims"] is None, vector.name
        assert steps(report, "ok")["signature"] is None, vector.name


def test_it_never_tells_the_signature_that_would_have_been_right():
    for vector in VECTORS:
        text = vector.token if isinstance(vector.token, bytes) else str(vector.token).encode("utf-8", "surrogatepass")
        right = hmac_sha256(KEY.encode(), text.rpartition(b".")[0])
        for key in (KEY, None):
            told = json.dumps(jwt.explain(vector.token, key, now=NOW)).lower()
            for spelling in (base64url(right), base64.b64encode(right).decode().rstrip("="), right.hex(), KEY):
                assert spelling.lower() not in told, vector.name


def test_a_good_token_passes_every_step():
    report = jwt.explain(
        token('{"iat":1,"nbf":1,"exp":3,"iss":"joe","aud":"us","sub":"x","jti":"1"}'),
        KEY,
        audience="us",
        issuer="joe",
        now=2,
    )
    assert steps(report, "ok") == dict.fromkeys(STEPS, True)
    assert list(report["steps"][0]) == ["name", "section", "demand", "ok", "found", "code"]
    assert list(report) == ["valid", "claims", "header", "payload", "signing_input", "steps"]


def test_absent_claims_are_neither_right_nor_wrong():
    report = jwt.explain(GOOD, KEY)
    assert steps(report, "ok") == {
        **dict.fromkeys(STEPS, True),
        **dict.fromkeys(["iat", "nbf", "exp", "iss", "aud", "jti"]),
    }
    assert report["claims"] == GOOD_CLAIMS


@pytest.mark.parametrize("place, bad, code", [
    ("shape", "a.b", "decode_error"),
    ("header", token(header='{"alg":"HS256","alg":"HS256"}'), "decode_error"),
    ("header", token(header='{"alg":"HS256","crit":[]}'), "decode_error"),
    ("algorithm", token(header='{"alg":"none"}'), "invalid_algorithm"),
    ("signature", token(key=OTHER_KEY), "invalid_signature"),
    ("payload", token("[]"), "decode_error"),
    ("iat", token('{"iat":3}'), "immature"),
    ("iat", token('{"iat":"3"}'), "invalid_issued_at"),
    ("nbf", token('{"nbf":3}'), "immature"),
    ("exp", token('{"exp":2}'), "expired"),
    ("iss", token('{"iss":"ann"}'), "invalid_issuer"),
    ("iss", token('{"aud":"us"}'), "missing_claim"),
    ("aud", token('{"iss":"joe","aud":"them"}'), "invalid_audience"),
    ("aud", token('{"iss":"joe"}'), "missing_claim"),
    ("sub", token('{"iss":"joe","aud":"us"}'), "missing_claim"),
    ("sub", token('{"iss":"joe","aud":"us","sub":1}'), "invalid_subject"),
    ("sub", token('{"iss":"joe","aud":"us","sub":"x"}'), "invalid_subject"),
    ("jti", token('{"iss":"joe","aud":"us","sub":"root","jti":1}'), "invalid_jti"),
])  # fmt: skip
def test_it_stops_at_the_step_that_fails(place, bad, code):
    report = jwt.explain(bad, KEY, audience="us", issuer="joe", subject="root", now=2)
    at = STEPS.index(place)
    assert list(steps(report, "ok").items())[at] == (place, False)
    assert report["steps"][at]["code"] == code
    assert False not in [step["ok"] for step in report["steps"][:at]]
    assert [step["ok"] for step in report["steps"][at + 1 :]] == [None] * (len(STEPS) - at - 1)
    assert [step["code"] for step in report["steps"] if step["name"] != place] == [None] * (len(STEPS) - 1)


def test_without_a_key_it_still_names_the_faults():
    for bad, place in (
        (token(header='{"alg":"none"}'), "algorithm"),
        (token('{"exp":0}'), "exp"),
        (token("{"), "payload"),
    ):
        assert steps(jwt.explain(bad, now=NOW), "ok")[place] is False


def test_every_step_names_the_rfc_that_decides():
    for step in jwt.explain(GOOD, KEY)["steps"]:
        assert step["section"].startswith("RFC ") and "§" in step["section"] and step["demand"]


def test_it_shows_what_the_segments_say_and_what_is_signed():
    report = jwt.explain(token('{"a":"\u00e9"}', '{"alg":"none"}'), KEY)
    assert (report["header"], report["payload"]) == ('{"alg":"none"}', '{"a":"\u00e9"}')
    assert report["signing_input"] == token('{"a":"\u00e9"}', '{"alg":"none"}').rpartition(".")[0]


def test_unverified_text_is_a_str_whatever_the_bytes():
    report = jwt.explain(token(b"\xff\xfe{"), KEY)
    assert report["payload"] == "\\xff\\xfe{"


def test_it_takes_leeway_as_decode_does():
    for leeway in (10, timedelta(seconds=10)):
        assert jwt.explain(token('{"exp":%d}' % (NOW - 9)), KEY, now=NOW, leeway=leeway)["valid"]
        assert not jwt.explain(token('{"exp":%d}' % (NOW - 10)), KEY, now=NOW, leeway=leeway)["valid"]


def test_a_key_that_is_none_is_told_apart_from_an_empty_one():
    assert not jwt.explain(GOOD, None)["valid"]
    with pytest.raises(jwt.InvalidKeyError):
        jwt.explain(GOOD, "")


# ---- What was compared ------------------------------------------------------------------------------------

COMPARED = [  # payload, arguments, claim, what is found
    ('{"exp":1795729205}', {"now": 1795728610}, "exp", "exp 1795729205 > now 1795728610"),
    ('{"exp":1795729205}', {"now": 1795728610.0}, "exp", "exp 1795729205 > now 1795728610"),
    ('{"exp":5.25}', {"now": 5.125}, "exp", "exp 5.25 > now 5.125"),
    ('{"exp":1}', {"now": 2}, "exp", "the token has expired: exp 1 <= now 2"),
    ('{"exp":2}', {"now": 2}, "exp", "the token has expired: exp 2 <= now 2"),
    ('{"exp":1}', {"now": 2, "leeway": 5}, "exp", "exp 1 > now 2 (-5 s of leeway)"),
    ('{"nbf":3}', {"now": 2, "leeway": timedelta(seconds=5)}, "nbf", "nbf 3 <= now 2 (+5 s of leeway)"),
    ('{"nbf":3}', {"now": 2}, "nbf", "The token is not yet valid (nbf or iat): nbf 3 > now 2"),
    ('{"iat":2}', {"now": 2}, "iat", "iat 2 <= now 2"),
    ('{"iss":"joe"}', {}, "iss", "iss 'joe'"),
    ('{"iss":"joe"}', {"issuer": "joe"}, "iss", "iss 'joe', expected 'joe'"),
    ('{"iss":"joe"}', {"issuer": ["ann"]}, "iss", "Invalid issuer: iss 'joe', expected ['ann']"),
    ('{"aud":["us","them"]}', {"audience": "me"}, "aud", "Audience doesn't match: aud ['us', 'them'], expected 'me'"),
    ('{"sub":"x"}', {"subject": "y"}, "sub", "Invalid subject: sub 'x', expected 'y'"),
    ('{"jti":"\\u202e\\n"}', {}, "jti", "jti '\\u202e\\n'"),
    ('{"sub":"%s"}' % ("x" * 1_000), {}, "sub", "sub '" + "x" * 59),
    ("{}", {}, "exp", "absent"),
    ("{}", {"issuer": "joe"}, "iss", 'Token is missing the "iss" claim'),
]  # fmt: skip


@pytest.mark.parametrize("payload, arguments, claim, found", COMPARED, ids=[row[0][:30] for row in COMPARED])
def test_it_shows_the_values_that_it_compared(payload, arguments, claim, found):
    report = jwt.explain(token(payload), KEY, **arguments)
    assert steps(report, "found")[claim] == found


def test_a_claim_of_a_wrong_type_is_shown_too():
    report = jwt.explain(token('{"iss":5}'), KEY, now=1)
    assert steps(report, "found")["iss"].endswith("must be a string (RFC 7519 §4.1.1), not int: iss 5")


def test_an_audience_that_can_be_read_once_is_not_read_to_show_it():
    assert jwt.explain(token('{"aud":"us"}'), KEY, audience=iter(["us"]))["valid"]
