#!/usr/bin/env python3
"""minijwt: JSON Web Tokens with HS256, complete in one file, nothing but the standard library.

    >>> import minijwt
    >>> key = "0123456789abcdef0123456789abcdef"
    >>> token = minijwt.encode({"username": "admin", "exp": 2000000600}, key)
    >>> token.split(".")[0]
    'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9'
    >>> minijwt.decode(token, key, algorithms=["HS256"], now=2000000000)
    {'username': 'admin', 'exp': 2000000600}

The words of this file, each with its one meaning:

    token     str, "header.payload.signature": a JWS in compact serialization (RFC 7515 §7.1)
    segment   bytes, one of the three parts between the dots, still in base64url
    raw       bytes, what a segment stands for; hearsay until the signature holds
    header    dict, which algorithm was used (RFC 7515 §4); claims: dict, what the token says (RFC 7519 §4)
    key       str or bytes, the shared secret: who can verify a token can also forge one
    now       int or float, seconds since 1970-01-01 UTC, "NumericDate" in RFC 7519 §2

Read from top to bottom: nothing is used above its definition.
"""

from __future__ import annotations

import argparse
import hmac
import json
import math
import os
import sys
import time
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from calendar import timegm
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

__version__ = "0.1.0"
__all__ = [
    "DecodeError", "ExpiredSignatureError", "ImmatureSignatureError", "InsecureKeyLengthWarning",
    "InvalidAlgorithmError", "InvalidAudienceError", "InvalidIssuedAtError", "InvalidIssuerError",
    "InvalidJTIError", "InvalidKeyError", "InvalidSignatureError", "InvalidSubjectError", "InvalidTokenError",
    "MissingRequiredClaimError", "PyJWTError", "decode", "decode_complete", "encode", "explain",
    "get_unverified_header",
]  # fmt: skip

ALGORITHM = "HS256"  # RFC 7518 §3.2: HMAC with SHA-256. The only one there is here.
MIN_KEY_BYTES = 32  # RFC 7518 §3.2: a key MUST be at least as long as the hash
MAX_TOKEN_CHARS = 65_536  # no HTTP header carries more; bounds all work before the signature is known to be good
MAX_JSON_DEPTH = 32  # levels of {} and []; claims need three or four, a bomb needs thousands
MAX_DIGITS = 308  # of an integer; more would overflow the IEEE 754 double that other readers use (RFC 8259 §6)


# ---- 1. Errors -------------------------------------------------------------------------------------------
# Sorted by who must act: InvalidTokenError, whoever sent the token; everything else, the programmer.
# Names and tree are PyJWT's. Programs compare `code`, people read the sentence; no sentence ever quotes a
# token, a key or a claim's value, because sentences end up in logs.


class PyJWTError(Exception):
    """The family of all errors of this module."""
    code = "jwt_error"


class InvalidTokenError(PyJWTError):
    """The token is not to be believed: all that `decode` ever says about a token."""
    code = "invalid_token"


class DecodeError(InvalidTokenError):
    """The token is malformed: shape, base64url, JSON, header, or the type of a time."""
    code = "decode_error"


class InvalidSignatureError(DecodeError):
    """The signature is not the one that this key gives: another key, or altered bytes."""
    code = "invalid_signature"


class InvalidAlgorithmError(InvalidTokenError):
    """The header says another algorithm than HS256, or the caller does not allow HS256."""
    code = "invalid_algorithm"


class ExpiredSignatureError(InvalidTokenError):
    """`exp` has been reached (RFC 7519 §4.1.4)."""
    code = "expired"


class ImmatureSignatureError(InvalidTokenError):
    """`nbf` or `iat` lies in the future (RFC 7519 §4.1.5, §4.1.6)."""
    code = "immature"


class InvalidIssuedAtError(InvalidTokenError):
    """`iat` is not a number (RFC 7519 §4.1.6)."""
    code = "invalid_issued_at"


class InvalidIssuerError(InvalidTokenError):
    """`iss` is not a string, or not an expected one (RFC 7519 §4.1.1)."""
    code = "invalid_issuer"


class InvalidAudienceError(InvalidTokenError):
    """`aud` is malformed, names somebody else, or nobody said who they are (RFC 7519 §4.1.3)."""
    code = "invalid_audience"


class InvalidSubjectError(InvalidTokenError):
    """`sub` is not a string, or not the expected one (RFC 7519 §4.1.2)."""
    code = "invalid_subject"


class InvalidJTIError(InvalidTokenError):
    """`jti` is not a string (RFC 7519 §4.1.7)."""
    code = "invalid_jti"


class MissingRequiredClaimError(InvalidTokenError):
    """A claim that the caller requires is absent or null; its name is in `claim`."""
    code = "missing_claim"

    def __init__(self, claim: str) -> None:
        super().__init__(claim)
        self.claim = claim

    def __str__(self) -> str:
        return f'Token is missing the "{self.claim}" claim'


class InvalidKeyError(PyJWTError):
    """The key is empty, or is no shared secret at all but a public key or a certificate."""
    code = "invalid_key"


class InsecureKeyLengthWarning(UserWarning):
    """The key is shorter than 32 bytes: short secrets are guessed offline from a single token."""


exceptions = sys.modules[__name__]  # PyJWT's second spelling, as in `jwt.exceptions.DecodeError`


# ---- 2. base64url ----------------------------------------------------------------------------------------
# RFC 7515 §2: RFC 4648 §5 without padding. Knows bytes, not what they mean.


def base64url_encode(raw: bytes) -> bytes:
    """Return `raw` in base64url without padding: `b"\\xff\\xfe"` gives `b"__4"` (RFC 7515 §2)."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def base64url_decode(segment: bytes) -> bytes:
    """Return the bytes that `segment` spells, if it is their one canonical spelling (RFC 4648 §3.5).

    Raises DecodeError for everything else: padding, white space, `+` and `/`, impossible lengths, stray bits.
    """
    try:
        raw = urlsafe_b64decode(segment + b"==")  # surplus padding does no harm, missing padding would
    except ValueError:
        raise DecodeError("Invalid base64url: impossible length") from None
    # The library above skips what it does not know. Without this comparison one token would have many
    # spellings, and every list of revoked tokens could be walked past.
    if base64url_encode(raw) != segment:
        raise DecodeError("Invalid base64url: not the canonical spelling")
    return raw


# ---- 3. JSON ---------------------------------------------------------------------------------------------
# RFC 8259, and RFC 7515 §4 / RFC 7519 §4 where they are stricter: an object, every name once. What the
# reader accepts and what the writer writes is the same set. Knows nothing of tokens.

_BEYOND = 10**MAX_DIGITS
_quote = json.encoder.encode_basestring  # the JSON text of one str; not limited to ASCII

# For a subclass (an enum, a named tuple), the plain value that JSON sees in it.
_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__), (int, int.__int__), (float, float.__float__), (dict, dict), (list, list), (tuple, list),
)  # fmt: skip


def write_json(value: Any, depth: int = MAX_JSON_DEPTH) -> str:
    """Return `value` as compact JSON text of at most `depth` levels.

    Raises TypeError for what JSON cannot say (names must be str), ValueError for what no reader should be
    asked to read: NaN, Infinity, numbers beyond a double, too many levels (so a cycle too).
    """
    kind = type(value)
    if kind is str:
        return _quote(value)
    if kind is int:
        if not -_BEYOND < value < _BEYOND:
            raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
        return str(value)
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("NaN and Infinity are not JSON")
        return repr(value)
    if kind is bool or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not depth:
        raise ValueError(f"JSON of more than {MAX_JSON_DEPTH} levels")
    if kind is list:
        return "[" + ",".join([write_json(item, depth - 1) for item in value]) + "]"
    if kind is dict:
        members = []
        for name, item in value.items():
            if not isinstance(name, str):  # json.dumps would turn 1 into "1", which may stand there already
                raise TypeError("names in a JSON object must be str")
            members.append(_quote(name) + ":" + write_json(item, depth - 1))
        return "{" + ",".join(members) + "}"
    for base, plain in _PLAIN:
        if isinstance(value, base):
            return write_json(plain(value), depth)
    raise TypeError(f"Object of type {kind.__name__} is not JSON serializable")


def json_bytes(value: Any) -> bytes:
    """Return `value` as JSON in UTF-8; raises as `write_json` does, and ValueError for a lone surrogate."""
    try:
        return write_json(value).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a str holds a lone surrogate, which UTF-8 cannot say") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # RFC 7515 §4, RFC 7519 §4: two readers could believe different ones
        raise ValueError("a name stands there twice")
    return members


def _read_int(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:  # before int(), whose work grows with the square of the length
        raise ValueError("integer too large")
    return int(text)


def _read_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("number too large")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError("NaN and Infinity are not JSON")


# A text of at most MAX_DIGITS holds no integer that is too large, and need not ask half a microsecond long.
_read_short, _read_long = (
    json.JSONDecoder(
        object_pairs_hook=_unique, parse_int=parse_int, parse_float=_read_float, parse_constant=_refuse_constant
    ).raw_decode
    for parse_int in (None, _read_int)
)


def read_json(raw: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in `raw`; `name` ("header", "payload") is for the message only.

    Raises DecodeError unless it is UTF-8 without BOM (RFC 8259 §8.1), one object, no name twice, no NaN or
    Infinity, no number beyond a double, no lone surrogate, at most MAX_JSON_DEPTH levels.
    """
    try:
        text = raw.decode("utf-8").strip(" \t\n\r")
        value, end = (_read_short if len(text) <= MAX_DIGITS else _read_long)(text)
        if end != len(text):
            raise ValueError("data after the object")
        # Two faults are only visible in the finished value, and only these characters can bring them about.
        if "\\u" in text or text.count("{") + text.count("[") > MAX_JSON_DEPTH:
            json_bytes(value)
    except (ValueError, RecursionError):  # ValueError: JSONDecodeError and UnicodeError too
        raise DecodeError(f"Invalid {name} string: not strict JSON") from None
    if type(value) is not dict:
        raise DecodeError(f"Invalid {name} string: must be a json object")
    return value


# ---- 4. Signature ----------------------------------------------------------------------------------------
# RFC 7518 §3.2. The only room that touches a key. Knows bytes, not what they say.

_SSH_KEY_TYPES = (b"ssh-", b"ecdsa-sha2-", b"sk-ssh-", b"sk-ecdsa-")
_SPACE, _TAB, _QUOTE = b' \t"'


def _is_published(key: bytes) -> bool:
    """Tell whether `key` is a document that others may hold: PEM (RFC 7468), SSH (RFC 4253), JWK (RFC 7517)."""
    if b"-----BEGIN " in key or b"---- BEGIN " in key or key.lstrip().startswith(_SSH_KEY_TYPES):
        return True
    try:
        return "kty" in str(json.loads(key, parse_int=str))
    except (ValueError, RecursionError):
        return b'"kty"' in key


def key_bytes(key: str | bytes, enforce_length: bool = False) -> bytes:
    """Return `key` as bytes (a str in UTF-8), whole: nothing is stripped or cut off.

    Raises TypeError if it is neither str nor bytes, InvalidKeyError if it is empty, a public key or a
    certificate, or, with `enforce_length`, under 32 bytes; else that is an InsecureKeyLengthWarning.
    """
    if isinstance(key, str):
        try:
            key = key.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidKeyError("The key holds a lone surrogate, which UTF-8 cannot say.") from None
    elif not isinstance(key, bytes):
        raise TypeError("Expected a string or bytes value as the key")
    if len(key) < MIN_KEY_BYTES:
        if not key:
            raise InvalidKeyError("HMAC key must not be empty.")
        message = f"The HMAC key is {len(key)} bytes long, below the {MIN_KEY_BYTES} that RFC 7518 §3.2 demands."
        if enforce_length:
            raise InvalidKeyError(message)
        warnings.warn(message, InsecureKeyLengthWarning, stacklevel=3)
    # A server that verifies RS256 elsewhere may hand us its public key: signing with that, anybody could forge.
    # All their forms hold a space, a tab or a quote, which is quickly looked for.
    if (_SPACE in key or _QUOTE in key or _TAB in key) and _is_published(key):
        raise InvalidKeyError("The key is an asymmetric key, a certificate or a JWK, not a shared secret.")
    return key


def sign(signing_input: bytes, key: bytes) -> bytes:
    """Return the signature segment for `signing_input`: HMAC-SHA256 in base64url, 43 bytes (RFC 7518 §3.2)."""
    return base64url_encode(hmac.digest(key, signing_input, "sha256"))


def check_signature(signing_input: bytes, signature: bytes, key: bytes) -> None:
    """Raise InvalidSignatureError unless `signature` is the segment that `key` gives (RFC 7515 §5.2).

    Compares the encoded form, so a second spelling of the right bytes is as wrong as wrong bytes.
    """
    # `==` would stop at the first wrong byte, and the time it takes would tell a forger how many are right.
    if not hmac.compare_digest(sign(signing_input, key), signature):
        raise InvalidSignatureError("Signature verification failed")


# ---- 5. Header -------------------------------------------------------------------------------------------
# Takes a token apart and reads what it says of itself. Nothing in this room is verified, so nothing in it
# chooses: the header *says* HS256, or the token is refused. `kid`, `jwk`, `jku`, `x5u` are never followed.

_HEADER = {"alg": ALGORITHM, "typ": "JWT"}
_HEADER_SEGMENT = base64url_encode(json_bytes(_HEADER))


def split(token: str | bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Cut `token` at its dots (RFC 7515 §7.1): return its signing input and its header, payload, signature segments.

    Raises DecodeError unless it is ASCII, at most MAX_TOKEN_CHARS long, and has exactly two dots.
    """
    if not isinstance(token, (str, bytes)):
        raise DecodeError("Invalid token type. Token must be str or bytes")
    if len(token) > MAX_TOKEN_CHARS:
        raise DecodeError(f"Token is longer than {MAX_TOKEN_CHARS} characters")
    if not token.isascii():
        raise DecodeError("Token must be ASCII")
    text = token.encode("ascii") if isinstance(token, str) else token
    if text.count(b".") != 2:  # counted first: a million dots shall not become a million pieces
        raise DecodeError("Not enough segments" if text.count(b".") < 2 else "Too many segments")
    signing_input, _, signature = text.rpartition(b".")
    header, _, payload = signing_input.partition(b".")
    return signing_input, header, payload, signature


def check_header(header: Mapping[str, Any]) -> None:
    """Raise DecodeError for a member of the wrong type, and for extensions that must be understood."""
    for name in ("kid", "typ", "cty"):  # RFC 7515 §4.1.4, §4.1.9, §4.1.10
        if name in header and not isinstance(header[name], str):
            raise DecodeError(f'Header parameter "{name}" must be a string')
    if "crit" in header:  # RFC 7515 §4.1.11: we understand no extension, so none may be critical
        raise DecodeError("Unsupported critical extension")
    if header.get("b64", True) is not True:  # RFC 7797 §3: the payload would not be base64url
        raise DecodeError("Unencoded payloads are not supported")


def read_header(segment: bytes) -> dict[str, Any]:
    """Return the header in `segment`; raise DecodeError if it is malformed or makes demands that we cannot meet."""
    if segment == _HEADER_SEGMENT:  # nearly always, and then there is nothing to find out
        return dict(_HEADER)
    header = read_json(base64url_decode(segment), "header")
    check_header(header)
    return header


def check_algorithm(header: Mapping[str, Any], algorithms: str | Container[str] | None) -> None:
    """Raise InvalidAlgorithmError unless the header says HS256 and the caller allows it (RFC 8725 §3.1)."""
    if isinstance(algorithms, str):
        algorithms = (algorithms,)  # else `in` would look for a substring
    if not algorithms:
        raise DecodeError('It is required that you pass in a value for the "algorithms" argument: ["HS256"]')
    if header.get("alg") != ALGORITHM or ALGORITHM not in algorithms:
        raise InvalidAlgorithmError("The specified alg value is not allowed")


def get_unverified_header(jwt: str | bytes) -> dict[str, Any]:
    """Return the header of `jwt`, unverified: good for choosing a key by `kid` among your own, for nothing else.

    Raises DecodeError if the token or its header is malformed. The algorithm may be any.
    """
    _, header, payload, signature = split(jwt)
    base64url_decode(payload)
    base64url_decode(signature)
    return read_header(header)


# ---- 6. Claims -------------------------------------------------------------------------------------------
# RFC 7519 §4.1. What the seven registered claims must look like, and when they hold. Knows dicts and numbers:
# no bytes, no keys, no clock (`now` is an argument).


class Expected(NamedTuple):
    """What a caller demands of the claims, and at which time."""

    now: float  # seconds since 1970
    leeway: float = 0  # seconds that clocks may differ
    issuer: str | Container[str] | None = None
    audience: str | Iterable[str] | None = None
    subject: str | None = None
    strict_aud: bool = False


# The comparisons of times are written so that a NaN fails them, and that no huge integer can overflow.


def _check_iat(iat: float, expected: Expected) -> None:
    if not iat <= expected.now + expected.leeway:
        raise ImmatureSignatureError("The token is not yet valid (iat)")


def _check_nbf(nbf: float, expected: Expected) -> None:
    if not nbf <= expected.now + expected.leeway:
        raise ImmatureSignatureError("The token is not yet valid (nbf)")


def _check_exp(exp: float, expected: Expected) -> None:
    if not expected.now - expected.leeway < exp:  # "on or after" exp it is too late
        raise ExpiredSignatureError("Signature has expired")


def _check_iss(iss: str, expected: Expected) -> None:
    issuer = expected.issuer
    try:
        # A string is compared whole: `in` would look for a part of it.
        known = issuer is None or iss == issuer if isinstance(issuer, (str, type(None))) else iss in issuer
    except TypeError:  # not a container
        known = False
    if not known:
        raise InvalidIssuerError("Invalid issuer")


def is_audience(value: object) -> bool:
    """Tell whether `value` may stand in `aud`: a string, or an array of strings (RFC 7519 §4.1.3)."""
    return isinstance(value, str) or isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_aud(aud: str | list[str], expected: Expected) -> None:
    audience = expected.audience
    if audience is None:  # who does not find himself in it MUST refuse the token
        raise InvalidAudienceError("Invalid audience: the token names one, the caller none")
    if expected.strict_aud and not isinstance(audience, str):
        raise InvalidAudienceError("Invalid audience (strict)")
    if not is_audience(aud) or expected.strict_aud and not isinstance(aud, str):
        raise InvalidAudienceError("Invalid claim format in token" + " (strict)" * expected.strict_aud)
    named = [aud] if isinstance(aud, str) else aud
    wanted = [audience] if isinstance(audience, str) else audience
    if not any(item in named for item in wanted):
        raise InvalidAudienceError("Audience doesn't match" + " (strict)" * expected.strict_aud)


def _check_sub(sub: str, expected: Expected) -> None:
    if expected.subject is not None and sub != expected.subject:
        raise InvalidSubjectError("Invalid subject")


def _check_jti(jti: str, expected: Expected) -> None:
    """A string is all it must be. Who keeps a list of used ones looks there."""


class ClaimRule(NamedTuple):
    """What RFC 7519 §4.1 says of one registered claim."""

    types: tuple[type, ...]  # exactly these: to Python, True is an int as well
    type_error: type
    check: Callable[[Any, Expected], None]
    section: str
    demand: str


# In PyJWT's order: of several faults, the first one here is named.
CLAIM_RULES = {
    "iat": ClaimRule((int, float), InvalidIssuedAtError, _check_iat, "4.1.6", "a number, not later than now"),
    "nbf": ClaimRule((int, float), DecodeError, _check_nbf, "4.1.5", "a number, not later than now"),
    "exp": ClaimRule((int, float), DecodeError, _check_exp, "4.1.4", "a number, later than now"),
    "iss": ClaimRule((str,), InvalidIssuerError, _check_iss, "4.1.1", "a string, an issuer that we expect"),
    "aud": ClaimRule((str, list), InvalidAudienceError, _check_aud, "4.1.3", "if there, names us"),
    "sub": ClaimRule((str,), InvalidSubjectError, _check_sub, "4.1.2", "a string, the subject that we expect"),
    "jti": ClaimRule((str,), InvalidJTIError, _check_jti, "4.1.7", "a string"),
}


def check_claims(claims: Mapping[str, Any], expected: Expected, names: Iterable[str] = CLAIM_RULES) -> None:
    """Raise an InvalidTokenError unless each registered claim among `names` is well-formed and as expected."""
    for name in names:
        if name in claims:
            rule, value = CLAIM_RULES[name], claims[name]
            if type(value) not in rule.types:
                raise rule.type_error(f'Invalid claim format in token: "{name}"')
            rule.check(value, expected)
        elif name == "iss" and expected.issuer is not None or name == "aud" and expected.audience is not None:
            raise MissingRequiredClaimError(name)


# ---- 7. encode -------------------------------------------------------------------------------------------
# RFC 7519 §7.1. Never writes what `decode` would call malformed, so faults surface where they are made.


def _plain(value: Mapping[str, Any], json_encoder: type) -> dict[str, Any]:
    """Return what `json_encoder`, a json.JSONEncoder class, makes of `value`, in plain JSON types."""
    text = json.dumps(value, cls=json_encoder)
    try:
        return read_json(text.encode("utf-8"), "payload")
    except DecodeError as error:
        raise ValueError(f"json_encoder wrote what nobody should read. {error}") from None


def _seconds(name: str, value: Any) -> Any:
    """Return `value`, or the whole seconds since 1970 if it is a datetime in `exp`, `iat` or `nbf` (naive: UTC)."""
    if isinstance(value, datetime) and name in ("exp", "iat", "nbf"):
        return timegm(value.utctimetuple())
    return value


def _registered(name: str, value: Any) -> Any:
    """Return `value` as it is written into the registered claim `name`; TypeError if it may not stand there."""
    value = list(value) if isinstance(value, tuple) else _seconds(name, value)
    types = CLAIM_RULES[name].types
    if not isinstance(value, types) or isinstance(value, bool) or name == "aud" and not is_audience(value):
        raise TypeError(f'the claim "{name}" has a type that RFC 7519 §{CLAIM_RULES[name].section} does not allow')
    return value


def _claims_to_sign(payload: dict[str, Any], json_encoder: type | None) -> dict[str, Any]:
    claims = payload
    if json_encoder is not None:
        claims = _plain({name: _seconds(name, value) for name, value in payload.items()}, json_encoder)
    for name, value in claims.items():
        if name in CLAIM_RULES and (type(value) not in CLAIM_RULES[name].types or name == "aud"):
            claims = {**claims, name: _registered(name, value)}
    return claims


def _header_to_sign(headers: Mapping[str, Any], json_encoder: type | None, sort: bool) -> dict[str, Any]:
    header = {"typ": "JWT", "alg": ALGORITHM, **headers}
    if header["alg"] != ALGORITHM:
        raise NotImplementedError('Algorithm not supported: a header "alg" may only say HS256')
    if not header["typ"]:  # PyJWT's way of leaving it out
        del header["typ"]
    if json_encoder is not None:
        header = _plain(header, json_encoder)
    check_header(header)
    return dict(sorted(header.items())) if sort else header


def encode(
    payload: dict[str, Any],
    key: str | bytes,
    algorithm: str | None = ALGORITHM,
    headers: Mapping[str, Any] | None = None,
    json_encoder: type | None = None,
    sort_headers: bool = True,
) -> str:
    """Sign the claims in `payload` and return the token.

    `key` is the shared secret, 32 random bytes or more. `exp`, `nbf` and `iat` may be datetime (UTC if naive) and
    become whole seconds. `headers` adds members such as `kid`; `json_encoder` is a json.JSONEncoder class for
    values that JSON does not know.

    Raises NotImplementedError for any other algorithm, TypeError or ValueError for a payload that is no dict, has
    names that are no str or values that JSON or RFC 7519 §4.1 do not allow, InvalidKeyError as in `key_bytes`,
    InvalidTokenError for headers that `decode` refuses.
    """
    if algorithm != ALGORITHM:
        raise NotImplementedError('Algorithm not supported: here is only "HS256", and never an unsigned token')
    if not isinstance(payload, dict):
        raise TypeError("Expecting a dict object, as JWT only supports JSON objects as payloads.")
    header_segment = _HEADER_SEGMENT
    if headers:
        header_segment = base64url_encode(json_bytes(_header_to_sign(headers, json_encoder, sort_headers)))
    claims = _claims_to_sign(payload, json_encoder)
    signing_input = header_segment + b"." + base64url_encode(json_bytes(claims))
    token = signing_input + b"." + sign(signing_input, key_bytes(key))
    if len(token) > MAX_TOKEN_CHARS:
        raise ValueError(f"the token would be longer than {MAX_TOKEN_CHARS} characters")
    return token.decode("ascii")


# ---- 8. decode -------------------------------------------------------------------------------------------
# RFC 7519 §7.2. Returns claims or raises. There is no way to get claims out of it that were not verified.

_DEFAULT_OPTIONS: dict[str, Any] = {
    "verify_signature": True,
    "require": (),
    "strict_aud": False,
    "enforce_minimum_key_length": False,
    **{"verify_" + name: True for name in CLAIM_RULES},
}


def expected_now(now: float | None, leeway: float | timedelta, *others: Any) -> Expected:
    """Return what the arguments of `decode` demand of the claims, with the clock for a missing `now`."""
    seconds = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
    return Expected(time.time() if now is None else now, seconds, *others)


def read_options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return `options` completed with PyJWT's defaults.

    Raises TypeError for an unknown name (a check that was misspelt is a check that never runs), and
    NotImplementedError for `verify_signature` switched off.
    """
    if not options:
        return _DEFAULT_OPTIONS
    for name in options:
        if name not in _DEFAULT_OPTIONS:
            raise TypeError(f"unknown option {name!r}; there are: {', '.join(sorted(_DEFAULT_OPTIONS))}")
    if not options.get("verify_signature", True):
        raise NotImplementedError("decode always checks the signature; `explain` shows what an unverified token says")
    if isinstance(options.get("require"), str):
        raise TypeError('the option "require" takes a list of claim names, not a string')
    return {**_DEFAULT_OPTIONS, **options}


def decode(
    jwt: str | bytes,
    key: str | bytes = b"",
    algorithms: str | Container[str] | None = (ALGORITHM,),
    options: Mapping[str, Any] | None = None,
    *,
    audience: str | Iterable[str] | None = None,
    issuer: str | Container[str] | None = None,
    subject: str | None = None,
    leeway: float | timedelta = 0,
    now: float | None = None,
) -> dict[str, Any]:
    """Verify the token `jwt` with `key` and return its claims.

    `algorithms` must allow "HS256". `audience` and `issuer` are what the claims must name (a string, or several),
    `subject` what `sub` must be. `leeway` is seconds or a timedelta, `now` seconds since 1970 (default: the clock).
    `options` are PyJWT's: `require` (claim names), `verify_exp`, … `verify_jti`, `strict_aud`,
    `enforce_minimum_key_length`.

    Raises InvalidTokenError, and nothing else, for whatever is wrong with the token; InvalidKeyError, TypeError or
    NotImplementedError for the other arguments.
    """
    option = _DEFAULT_OPTIONS if options is None else read_options(options)

    # 1. Cut it. 2. It must say what we would have done anyway. 3. Only the holder of the key can have written it.
    signing_input, header_segment, payload_segment, signature = split(jwt)
    check_algorithm(read_header(header_segment), algorithms)
    check_signature(signing_input, signature, key_bytes(key, option["enforce_minimum_key_length"]))

    # 4. Now, and not a line earlier, what it says deserves to be read.
    claims = read_json(base64url_decode(payload_segment), "payload")
    for name in option["require"]:
        if claims.get(name) is None:
            raise MissingRequiredClaimError(name)
    wanted = [name for name in CLAIM_RULES if option["verify_" + name]] if options else CLAIM_RULES
    expected = expected_now(now, leeway, issuer, audience, subject, option["strict_aud"])
    check_claims(claims, expected, wanted)
    return claims


def decode_complete(jwt: str | bytes, key: str | bytes = b"", *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Verify `jwt` as `decode` does, with its arguments and errors.

    Returns {"header": dict, "payload": dict, "signature": bytes}.
    """
    claims = decode(jwt, key, *args, **kwargs)
    _, header, _, signature = split(jwt)
    return {"header": read_header(header), "payload": claims, "signature": base64url_decode(signature)}


# ---- 9. explain ------------------------------------------------------------------------------------------
# The steps of `decode`, one by one, told to a person. It calls what `decode` calls, so it cannot disagree with it.

_STEPS = (
    ("shape", "RFC 7515 §7.1", "ASCII, exactly two dots, a bounded size"),
    ("header", "RFC 7515 §4", "canonical base64url of one strict JSON object; no extension that must be understood"),
    ("algorithm", "RFC 8725 §3.1", f"the header says {ALGORITHM}, as we would have chosen anyway"),
    ("signature", "RFC 7515 §5.2", "HMAC-SHA256 of the first two segments with our key, compared in constant time"),
    ("payload", "RFC 7519 §7.2", "canonical base64url of one strict JSON object"),
    *((name, f"RFC 7519 §{rule.section}", rule.demand) for name, rule in CLAIM_RULES.items()),
)




def _says(segment: bytes) -> str:
    """Return what `segment` seems to say, for showing: a str, because an unverified dict invites belief."""
    try:
        return urlsafe_b64decode(segment + b"==").decode("utf-8", "backslashreplace")
    except ValueError:
        return ""


def _walk(
    jwt: str | bytes, key: str | bytes | None, expected: Expected, report: dict[str, Any]
) -> Iterator[tuple[bool | None, str]]:
    """Take the steps of `decode`; for each yield whether it held (None: nothing to check) and what was found."""
    signing_input, header_segment, payload_segment, signature = split(jwt)
    report.update(signing_input=signing_input.decode(), header=_says(header_segment), payload=_says(payload_segment))
    yield True, f"{len(header_segment)} + {len(payload_segment)} + {len(signature)} characters"
    header = read_header(header_segment)
    yield True, f"an object, its members: {len(header)}"
    check_algorithm(header, (ALGORITHM,))
    yield True, "it does"
    if key is None:
        yield None, "not checked, there is no key: whatever follows may be invented"
    else:
        check_signature(signing_input, signature, key_bytes(key))
        yield True, "written by a holder of the key"
    claims = read_json(base64url_decode(payload_segment), "payload")
    yield True, f"an object, its claims: {len(claims)}"
    for name in CLAIM_RULES:
        check_claims(claims, expected, (name,))
        yield (True, "as it must be") if name in claims else (None, "absent")
    if key is not None:
        report["claims"] = claims


def explain(
    jwt: str | bytes,
    key: str | bytes | None = None,
    *,
    audience: str | Iterable[str] | None = None,
    issuer: str | Container[str] | None = None,
    subject: str | None = None,
    leeway: float | timedelta = 0,
    now: float | None = None,
) -> dict[str, Any]:
    """Walk through the steps of `decode` with its arguments and report each; never raises for the token's sake.

    Returns a dict that JSON can hold: `valid` (`decode` would return the claims), `claims` (dict, None unless valid),
    `header` and `payload` (str, what the segments say, unverified), `signing_input` (str, what is signed), and
    `steps`: for each its `name`, `section` of the RFC, `demand`, `found`, `ok` (None: not checked or not reached),
    `code` of the error. The signature that would have been right is not in it: it would let anybody sign.
    """
    steps: list[dict[str, Any]] = [
        {"name": name, "section": section, "demand": demand, "ok": None, "found": "not reached", "code": None}
        for name, section, demand in _STEPS
    ]
    report: dict[str, Any] = {"claims": None, "header": "", "payload": "", "signing_input": "", "steps": steps}
    expected = expected_now(now, leeway, issuer, audience, subject, False)
    ahead = iter(steps)
    try:
        for ok, found in _walk(jwt, key, expected, report):
            next(ahead).update(ok=ok, found=found)
    except InvalidTokenError as error:
        next(ahead).update(ok=False, found=str(error), code=error.code)
    return {"valid": report["claims"] is not None, **report}


# ---- 10. Command line ------------------------------------------------------------------------------------
# python3 minijwt.py encode|decode|explain|keygen. A key is never an argument: everybody on the machine can read
# those. Exit status 0: done, the token is good. 1: the token is refused or not verified. 2: something else is wrong.

KEY_VARIABLE = "MINIJWT_KEY"
_COLORS = {"header": "31", "payload": "35", "signature": "36", True: "32", False: "1;31", None: "2"}  # ANSI SGR


def _paint(text: str, color: object) -> str:
    return f"\033[{_COLORS[color]}m{text}\033[0m" if sys.stdout.isatty() else text


def _printable(text: str) -> str:
    """Return `text` with all that could move a terminal's cursor or turn its writing around as escapes."""
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def _key_from(arguments: argparse.Namespace) -> bytes | None:
    if arguments.key_file is not None:
        with open(arguments.key_file, "rb") as file:
            key = file.read()
        for end in (b"\r\n", b"\n"):  # the line end that editors and `keygen >file` leave; nothing else is cut
            if key.endswith(end):
                return key[: -len(end)]
        return key
    key_text = os.environ.get(arguments.key_env)
    return None if key_text is None else os.fsencode(key_text)


def _input(argument: str | None) -> bytes:
    if argument is None or argument == "-":
        return sys.stdin.buffer.read(MAX_TOKEN_CHARS + 2).strip()
    return os.fsencode(argument).strip()


def _encode_command(arguments: argparse.Namespace) -> int:
    key = _key_from(arguments)
    if key is None:
        raise InvalidKeyError(f"no key: name a file with --key-file, or put it into {arguments.key_env}")
    claims = read_json(_input(arguments.claims), "claims")
    if arguments.expires_in is not None:
        now = int(time.time() if arguments.now is None else arguments.now)
        claims.update(iat=now, exp=now + arguments.expires_in)
    print(encode(claims, key))
    return 0


def _explain(arguments: argparse.Namespace) -> dict[str, Any]:
    token, key = _input(arguments.token), _key_from(arguments)
    return explain(token, key, audience=arguments.audience, issuer=arguments.issuer, now=arguments.now)


def _decode_command(arguments: argparse.Namespace) -> int:
    report = _explain(arguments)
    if report["valid"]:
        print(json.dumps(report["claims"], indent=2))
        return 0
    failed = [step for step in report["steps"] if step["ok"] is False]
    if failed:
        print(f"minijwt: refused: {failed[0]['found']} [{failed[0]['code']}]", file=sys.stderr)
    else:
        print(_printable(report["payload"]))
        sys.stdout.flush()
        print(f"minijwt: NOT VERIFIED: no key in --key-file or {arguments.key_env}, so anybody may have written this.",
              file=sys.stderr)  # fmt: skip
    return 1


def _explain_command(arguments: argparse.Namespace) -> int:
    report = _explain(arguments)
    signing_input, header, payload = report["signing_input"], report["header"], report["payload"]
    if signing_input:
        print(f"header     {_paint(_printable(header), 'header')}")
        print(f"payload    {_paint(_printable(payload), 'payload')}")
        print(f"signed     {len(signing_input)} bytes: {signing_input}\n")
    for step in report["steps"]:
        mark = {True: "ok", False: "FAILED", None: "-"}[step["ok"]]
        code = f" [{step['code']}]" if step["code"] else ""
        print(_paint(f"{mark:7}{step['name']:10} {step['found']}{code}", step["ok"]))
        print(f"{'':18}{step['demand']} ({step['section']})")
    print("\nvalid" if report["valid"] else "\nNOT VALID" if arguments else "")
    return 0 if report["valid"] else 1


def _keygen_command(arguments: argparse.Namespace) -> int:
    print(base64url_encode(os.urandom(MIN_KEY_BYTES)).decode("ascii"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minijwt.py",
        description="Make, verify and explain JSON Web Tokens signed with HS256.",
        epilog="Exit status: 0 all is well; 1 the token is refused or was not verified; 2 anything else.",
    )
    parser.add_argument("--version", action="version", version=f"minijwt {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        added.set_defaults(run=run)
        if name != "keygen":
            added.add_argument("--key-file", metavar="FILE", help="the key: all of FILE but one line end")
            added.add_argument("--key-env", metavar="NAME", default=KEY_VARIABLE,
                               help="the environment variable with the key (default: %(default)s)")  # fmt: skip
            added.add_argument("--now", type=float, metavar="SECONDS", help="the time since 1970 (default: the clock)")
        return added

    encoder = command("encode", _encode_command, "sign claims, print the token")
    encoder.add_argument("claims", nargs="?", help="a JSON object (default: from standard input)")
    encoder.add_argument("--expires-in", type=int, metavar="SECONDS", help="set iat to now and exp to SECONDS later")
    for name, run, text in (
        ("decode", _decode_command, "verify a token, print its claims"),
        ("explain", _explain_command, "show each check that a token must pass, and where it fails"),
    ):
        decoder = command(name, run, text)
        decoder.add_argument("token", nargs="?", help="the token (default: from standard input)")
        decoder.add_argument("--audience", help="who we are, for aud")
        decoder.add_argument("--issuer", help="whom we trust, for iss")
    command("keygen", _keygen_command, f"print a new key: {MIN_KEY_BYTES} random bytes in base64url")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv) and return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InsecureKeyLengthWarning)
            status: int = arguments.run(arguments)
            sys.stdout.flush()
        for warning in caught:
            print(f"minijwt: warning: {warning.message}", file=sys.stderr)
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        print("minijwt: nobody reads the output to its end", file=sys.stderr)
    except OSError as error:
        print(f"minijwt: cannot read {error.filename}: {error.strerror}", file=sys.stderr)
    except (PyJWTError, TypeError, ValueError) as error:
        print(f"minijwt: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
