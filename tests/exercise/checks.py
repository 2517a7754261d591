"""What each step of the exercise must pass: tables made of the vectors of the tests, cut to what a step can read.

Each function yields checks. It is called when its step runs, so iterators among the arguments are fresh.
"""

import base64
import json
import math
import random
import re
from datetime import timedelta
from typing import Any, Callable, NamedTuple, Optional

import vectors
from prove import fuzz
from vectors import ALGORITHMS, GOOD, KEY, NOW, RFC7515_KEY, RFC7515_TOKEN, VECTORS, base64url, hmac_sha256, token

import minijwt

RAW_KEY = KEY.encode()
ANY = "a dict, or an InvalidTokenError"  # as what is expected


class Check(NamedTuple):
    """One call of a function in the student's file, and what must come of it."""

    name: str
    call: str
    arguments: tuple
    # The value that is returned, or the class of the error; InvalidTokenError is that or any child of it.
    expected: Any
    named: dict = {}
    # What reads the returned value, if there are several right ones: what it reads is what is expected.
    read: Optional[Callable] = None
    # hmac.compare_digest must have been called.
    compared: bool = False


def said(call, *arguments):
    """Return what minijwt returns, or the class of what it raises."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error)


def those(group, names, but="$^"):
    """Return the vectors of a group whose names match; PyJWT's options are no part of the exercise."""
    return [
        vector
        for vector in VECTORS
        if vector.group == group and re.search(names, vector.name) and not re.search(but, vector.name)
        if "options" not in vector.arguments
    ]


def segments(vector):
    return vectors.to_bytes(vector.token).split(b".")


def raw_of(segment):
    return base64.urlsafe_b64decode(segment + b"==")


def about(vector):
    return f"{vector.name} ({vector.section})"


def decode_of(vector):
    """Return the check that hands the whole token of a vector to decode."""
    named = {"now": NOW, **vector.arguments} if vector.group == "time" else dict(vector.arguments)
    return Check(about(vector), "decode", (vector.token, named.pop("key", KEY)), vector.expected, named)


# ---- 1. base64url -----------------------------------------------------------------------------------------


def figures():
    for raw, segment in vectors.BASE64_FIGURES:
        yield "a figure of RFC 4648 §10 or RFC 7515 Appendix C", raw, segment
    for length in range(258):
        raw = bytes(range(256))[:length] + b"\xff" * (length - 256)
        yield f"{length} bytes", raw, base64url(raw).encode()


def base64url_is_written():
    for name, raw, segment in figures():
        yield Check(name, "base64url_encode", (raw,), segment)


def base64url_is_read():
    for name, raw, segment in figures():
        yield Check(name, "base64url_decode", (segment,), raw)


def base64url_has_one_spelling():
    for vector in those("base64url", "payload, bytes$|^byte .., payload"):
        yield Check(about(vector), "base64url_decode", (segments(vector)[1],), minijwt.DecodeError)
    for at, first in enumerate(vectors.ALPHABET):
        for last, second in enumerate(vectors.ALPHABET):
            # Of the second letter's six bits the last four must be zero.
            expected = minijwt.DecodeError if last % 16 else bytes([at * 4 + last // 16])
            yield Check("all pairs of letters", "base64url_decode", ((first + second).encode(),), expected)


# ---- 2. JSON ----------------------------------------------------------------------------------------------

TWICE = "twice"
CONSTANTS = "^(NaN|-?Infinity)( inside)?, (header|payload)"
NUMBERS = "^(-?1e309|1E99999|a fraction too|an integer of)"
SURROGATES = "^(a lone|a pair the|two high|half a pair)"
LEVELS = "^(33|1,000|10,000) levels"
ENDLESS = "^(40,000 levels|5,000 objects) without"
# What is left to later stages.
LATER = "|".join([NUMBERS, SURROGATES, LEVELS, ENDLESS])


def json_of(names, but="$^"):
    for vector in those("json", names, but):
        if re.search("payload$", vector.name):
            yield Check(about(vector), "read_json", (raw_of(segments(vector)[1]),), vector.expected)


def json_is_read():
    yield from json_of(", good payload$")
    yield from json_of("payload$", f"{LATER}|{TWICE}|{CONSTANTS}|good payload")


def a_name_stands_once():
    yield from json_of(TWICE)
    yield Check("the good member twice", "read_json", (b'{"a":{"b":1},"c":{"b":1}}',), {"a": {"b": 1}, "c": {"b": 1}})


def every_number_is_a_number():
    yield from json_of(CONSTANTS)


CLAIMS = [
    {}, {"sub": "admin", "exp": NOW + 1, "iat": 1.5}, {"b": 1, "a": [True, False, None, -7, 0.1, {"c": []}]},
    {"name": "J\u00fcrgen \U0001f511", "\u00e9": '"\\/\n\x00\x7f\u2028'}, {"a": 1e308, "b": 10**308 - 1},
]  # fmt: skip


def json_is_written():
    for value, text in [
        ({"alg": "HS256", "typ": "JWT"}, b'{"alg":"HS256","typ":"JWT"}'), ({"b": 1, "a": 2}, b'{"b":1,"a":2}'),
        ({}, b"{}"), ({"a": [1, [2, {"b": None}]], "c": True}, b'{"a":[1,[2,{"b":null}]],"c":true}'),
    ]:  # fmt: skip
        yield Check("compact, in the order of the dict", "json_bytes", (value,), text)
    for value in CLAIMS:
        yield Check("it reads the same", "json_bytes", (value,), value, read=json.loads)
    for value in (math.nan, math.inf, -math.inf):
        yield Check("no number", "json_bytes", ({"a": [value]},), ValueError)
    for value in (b"bytes", {1, 2}, object(), 1j, int):
        yield Check("nothing that JSON knows", "json_bytes", ({"a": value},), TypeError)


# ---- 3. Signature -----------------------------------------------------------------------------------------


def signatures_are_made():
    for key, text, figure in vectors.HMAC_FIGURES:
        key, text, figure = bytes.fromhex(key), bytes.fromhex(text), bytes.fromhex(figure)
        segment = base64url(hmac_sha256(key, text)).encode()
        if raw_of(segment).startswith(figure):
            yield Check("a figure of RFC 4231", "sign", (text, key), segment)
    for length in (1, 31, 32, 33, 63, 64, 65, 128, 1_000):
        text, key = b"x" * length, bytes(range(250)) * 4
        segment = base64url(hmac_sha256(key[:length], text)).encode()
        yield Check(f"a key of {length} bytes", "sign", (text, key[:length]), segment)


def of_the_signature(vector, expected):
    signing_input, _, segment = vectors.to_bytes(vector.token).rpartition(b".")
    return Check(about(vector), "check_signature", (signing_input, segment, RAW_KEY), expected)


def signatures_are_checked():
    signing_input, _, segment = RFC7515_TOKEN.encode().rpartition(b".")
    yield Check("RFC 7515 Appendix A.1", "check_signature", (signing_input, segment, RFC7515_KEY), None)
    yield of_the_signature(vectors.Vector("", "good", "RFC 7515 §5.2", GOOD, {}, None), None)
    for vector in [*those("key", "^signature"), *those("base64url", "signature, bytes|^byte .., signature")]:
        yield of_the_signature(vector, minijwt.InvalidSignatureError)


def signatures_are_compared_in_constant_time():
    good = vectors.Vector("", "it is compared in constant time", "RFC 7515 §5.2", GOOD, {}, None)
    yield of_the_signature(good, None)._replace(compared=True)


# ---- 4. encode --------------------------------------------------------------------------------------------


def a_key_is_bytes():
    for name, key in [("our key", KEY), ("our key, bytes", RAW_KEY), *vectors.GOOD_KEYS]:
        yield Check(name, "key_bytes", (key,), vectors.to_bytes(key))


def tokens_are_made():
    header = '{"alg":"HS256","typ":"JWT"}'
    for text in ("{}", '{"username":"admin","exp":2000000000}', '{"b":1,"a":[{}]}'):
        yield Check("byte by byte", "encode", (json.loads(text), KEY), token(text, header))
    yield Check("a key as bytes", "encode", ({}, RAW_KEY), token("{}", header))
    yield Check("the algorithm by its name", "encode", ({}, KEY), token("{}", header), {"algorithm": "HS256"})
    for name, key in vectors.GOOD_KEYS:
        yield Check(f"a key: {name}", "encode", ({"sub": "admin"}, key), token('{"sub":"admin"}', header, key))
    for claims in CLAIMS:
        read = lambda made: minijwt.decode(made, KEY, now=NOW)  # noqa: E731
        yield Check("minijwt reads the same", "encode", (claims, KEY), claims, read=read)


def encode_refuses():
    for algorithm in ("none", "None", "hs256", "HS384", "HS512", "RS256", "", "HS256 ", None, 0, ["HS256"]):
        yield Check("another algorithm", "encode", ({}, KEY, algorithm), NotImplementedError)
    for payload in (None, "{}", b"{}", [], [("a", 1)], 1, (), {"a"}):
        yield Check("no dict", "encode", (payload, KEY), TypeError)
    yield Check("a set among the claims", "encode", ({"a": {1}}, KEY), TypeError)
    yield Check("no number among the claims", "encode", ({"a": math.nan}, KEY), ValueError)


# ---- 5. decode --------------------------------------------------------------------------------------------


def a_token_is_cut():
    chosen = [*those("structure", ""), *those("base64url", "accent|emoji|full width|^byte"), *those("flood", "")]
    for vector in chosen:
        yield Check(about(vector), "split", (vector.token,), said(minijwt.split, vector.token))


def tokens_are_read():
    for vector in [*those("structure", ""), *those("key", "^(the same|signature|other|forged)")]:
        yield decode_of(vector)
    yield Check("algorithms", "decode", (GOOD, KEY, ["HS256"]), vectors.GOOD_CLAIMS)
    yield Check(
        "algorithms, by name", "decode", (GOOD, KEY), vectors.GOOD_CLAIMS, {"algorithms": ["HS256"], "now": NOW}
    )


def every_bit_counts():
    signed, _, segment = GOOD.rpartition(".")
    good = raw_of(segment.encode())
    for bit in range(256):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        forged = f"{signed}.{base64url(bad)}"
        yield Check(f"signature, bit {bit} turned", "decode", (forged, KEY), minijwt.InvalidSignatureError)
    yield from map(decode_of, those("base64url", ""))


# ---- 6. Claims --------------------------------------------------------------------------------------------

CLAIM_OF = {"issuer": "iss", "subject": "sub", "audience": "aud"}
# A vector of several claims belongs to the step of the last of them.
STEPS = ["exp", "nbf", "iat", "iss", "sub", "jti", "aud"]


def to_the_letter(vector):
    """Tell whether a vector of times or names is for the last stage only."""
    claims = json.loads(raw_of(segments(vector)[1]))
    several = len(claims) > 1 and isinstance(vector.expected, type)
    values = [*vector.arguments.values()]
    odd = any(value != value or isinstance(value, timedelta) for value in values)
    return several or odd or vector.arguments.get("issuer") == 5 or ("9" * 9 in vector.name and "leeway" in vector.name)


def claims_of(*claims, letter=False):
    """Yield the checks that are about these claims, as calls of check_claims."""
    for vector in [*those("time", ""), *those("names", "")]:
        payload = json.loads(raw_of(segments(vector)[1]))
        subjects = [name for name in STEPS if name in payload or name in map(CLAIM_OF.get, vector.arguments)]
        if to_the_letter(vector) is letter and (subjects[-1:] or ["exp"])[0] in claims:
            named = {"now": NOW, **vector.arguments} if vector.group == "time" else vector.arguments
            expected = vector.expected if isinstance(vector.expected, type) else None
            yield Check(about(vector), "check_claims", (payload,), expected, named)


def exp_ends_a_token():
    yield Check("no exp", "check_claims", ({},), None)
    yield from claims_of("exp")
    yield Check("exp 9e9, no time given", "check_claims", ({"exp": 9e9},), None)
    yield Check("exp 1, no time given", "check_claims", ({"exp": 1},), minijwt.ExpiredSignatureError)


def nbf_and_iat_begin_it():
    yield from claims_of("nbf", "iat")


def iss_is_who_signed():
    yield from claims_of("iss")


def sub_and_jti_are_texts():
    yield from claims_of("sub", "jti")


def aud_is_who_may_read():
    yield from claims_of("aud")
    for name, audience in (
        ("an iterator", iter(["us"])), ("a generator", (name for name in ["them", "us"])),
        ("a view", {"us": 1}.keys()), ("a set", {"us"}),
    ):  # fmt: skip
        yield Check(f"the audience is {name}", "check_claims", ({"aud": ["x", "us"]},), None, {"audience": audience})
    audience = iter(["them", "us"])
    yield Check("the audience is an iterator", "check_claims", ({"aud": ["us", "x"]},), None, {"audience": audience})


def decode_checks_claims():
    yield from map(decode_of, those("key", "A.1"))
    for vector in [*those("time", ""), *those("names", "")]:
        if not to_the_letter(vector):
            yield decode_of(vector)


# ---- 7. Attacks -------------------------------------------------------------------------------------------

ONLY_HS256 = ("HS256",)
TYPED = '^"(kid|typ|cty|b64)":'
PEM = "PEM|empty"


def headers(chosen, expected=None):
    for vector in chosen:
        header = json.loads(raw_of(segments(vector)[0]))
        yield Check(about(vector), "check_header", (header, ONLY_HS256), expected)


def the_header_says_hs256():
    yield Check("HS256", "check_header", ({"alg": "HS256"}, ONLY_HS256), None)
    yield Check("HS256", "check_header", ({"alg": "HS256", "typ": "JWT"}, ONLY_HS256), None)
    yield from headers(those("algorithm", "", "allowed|unsigned"), minijwt.InvalidAlgorithmError)


def the_caller_allows_hs256():
    for allowed, expected in ALGORITHMS:
        expected = expected if isinstance(expected, type) else None
        yield Check(f"allowed: {allowed!r}", "check_header", ({"alg": "HS256"}, allowed), expected)
    for name in ("none", "RS256"):
        named = [name, "HS256"]
        yield Check(f"{name}, allowed", "check_header", ({"alg": name}, named), minijwt.InvalidAlgorithmError)


def nothing_is_critical():
    yield from headers(those("header", '^"crit"', "b64"), minijwt.DecodeError)
    yield from headers(those("header", " ignored$"))


def a_key_is_a_secret():
    for name, key in vectors.PUBLISHED_KEYS:
        if re.search(PEM, name):
            yield Check(f"published key: {name}", "key_bytes", (key,), minijwt.InvalidKeyError)
    for key in ("", b""):
        yield Check("empty key", "key_bytes", (key,), minijwt.InvalidKeyError)
    for key in [None, *vectors.WRONG_KEYS]:
        yield Check("key of another type", "key_bytes", (key,), TypeError)
    yield from a_key_is_bytes()


def json_of_many_levels_is_refused():
    yield from json_of(ENDLESS)
    for text in (b"[" * 40_000, b'{"a":' * 9_000, b'{"a":' + b"[" * 100_000):
        yield Check("many levels", "read_json", (text,), minijwt.DecodeError)


def hostile_tokens_are_refused():
    for vector in [
        *those("algorithm", ""), *those("header", "", TYPED + "(?!.*(ignored|forged))"),
        *those("key", "", "published key, (?!PEM)"), *those("base64url", ""), *those("json", "", LATER),
        *those("json", ENDLESS), *those("structure", ""), *those("flood", "", "many digits|long exponent"),
    ]:  # fmt: skip
        yield decode_of(vector)
    for key, expected in (
        ("", minijwt.InvalidKeyError), (vectors.PUBLISHED_KEYS[0][1], minijwt.InvalidKeyError), (None, TypeError),
        (bytearray(RAW_KEY), TypeError),
    ):  # fmt: skip
        yield Check("no secret", "encode", ({}, key), expected)
    for source in map(random.Random, range(3)):
        for number in range(500):
            named = {"now": NOW, **source.choice(fuzz.EXPECTED)}
            yield Check(f"random token {number}", "decode", (fuzz.case(source), KEY), ANY, named)


# ---- 8. To the letter -------------------------------------------------------------------------------------


def nested(levels, wrap=lambda value: [value]):
    value = wrap(0)
    for _ in range(levels - 1):
        value = wrap(value)
    return value


def numbers_to_the_letter():
    yield from json_of(NUMBERS)
    yield from json_of("digits, good|digits, negative, good|largest double|too small")
    yield from map(decode_of, those("flood", "many digits|long exponent"))
    yield from map(decode_of, those("json", NUMBERS))


def surrogates_to_the_letter():
    yield from json_of(SURROGATES)
    yield from json_of("surrogates, good|pair in a name|escaped backslash")
    yield from map(decode_of, those("json", SURROGATES))


def levels_to_the_letter():
    yield from json_of(LEVELS)
    yield from json_of("32 levels|braces in a string|side by side")
    yield from map(decode_of, those("json", LEVELS))


def written_to_the_letter():
    cycle, wheel = [], {}
    cycle.append(cycle)
    wheel["self"] = wheel
    for value in (
        10**308, -(10**308), {"a": [10**400]}, cycle, wheel, nested(33), nested(33, lambda value: {"a": value}),
        nested(5_000), {"a": "\ud800"}, {"\udfff": 1}, ["a", {"b": "\ud83d"}],
    ):  # fmt: skip
        yield Check("what read_json refuses", "json_bytes", (value,), ValueError)
    for value in ({1: 1}, {1: 1, "1": 2}, {None: 1}, {True: 1}, {b"a": 1}, {1.5: 1}, {("a",): 1}, [{1: 1}]):
        yield Check("a name that is no str", "json_bytes", (value,), TypeError)
    deep = {"a": nested(31)}
    yield Check("32 levels", "json_bytes", (deep,), deep, read=json.loads)


def keys_to_the_letter():
    for name, key in vectors.PUBLISHED_KEYS:
        if not re.search(PEM, name):
            yield Check(f"published key: {name}", "key_bytes", (key,), minijwt.InvalidKeyError)
    yield from a_key_is_bytes()
    yield from map(decode_of, those("key", "published key, (?!PEM)"))


def the_header_to_the_letter():
    yield from headers(those("header", TYPED, " (ignored|forged)$"), minijwt.DecodeError)
    yield from headers(those("header", " ignored$"))
    yield from map(decode_of, those("header", TYPED))


def claims_to_the_letter():
    yield from claims_of(*STEPS, letter=True)


def random_tokens_to_the_letter():
    for source in map(random.Random, range(3, 9)):
        for number in range(500):
            tried, named = fuzz.case(source), {"now": NOW, **source.choice(fuzz.EXPECTED)}
            try:
                expected = minijwt.decode(tried, KEY, **named)
            except minijwt.InvalidTokenError:
                expected = minijwt.InvalidTokenError
            yield Check(f"random token {number}", "decode", (tried, KEY), expected, named)
