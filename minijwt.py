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

    token          str, "header.payload.signature": a JWS in compact serialization (RFC 7515 §7.1)
    segment        bytes, one of the three parts between the dots, still in base64url
    signing input  bytes, header segment, dot, payload segment: what the signature covers (RFC 7515 §2)
    raw            bytes, what a segment stands for; untrusted until the signature holds
    header         dict, which algorithm was used (RFC 7515 §4)
    claims         dict, what the token says (RFC 7519 §4)
    key            str or bytes, the shared secret: whoever can verify a token can also forge one
    now            int or float, seconds since 1970-01-01 UTC: a "NumericDate" (RFC 7519 §2)

In parameters, `jwt` and `payload` are PyJWT's names for token and claims. A `_name` is only for its room. Read from
top to bottom: nothing is used above its definition.
"""

from __future__ import annotations

import argparse
import hmac
import io
import json
import math
import os
import sys
import time
import warnings
from base64 import b64decode, b64encode
from calendar import timegm
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
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
MAX_TOKEN_CHARS = 65_536  # more than HTTP servers take in a header; bounds the work that a forger can cause
MAX_JSON_DEPTH = 32  # levels of {} and []; claims need three or four, a bomb needs thousands
MAX_DIGITS = 308  # of an integer: 308 always fit the IEEE 754 double of other readers (RFC 8259 §6), 309 may not


# ---- 1. Errors -------------------------------------------------------------------------------------------
# Sorted by who must act: InvalidTokenError, whoever sent the token; everything else, the programmer. (Where PyJWT
# blames the token for the caller's `algorithms`, `audience` or `issuer`, so do we.)
# Names and tree are PyJWT's. Programs compare `code`, people read the sentence; no sentence ever quotes a
# token, a key or a claim's value, because sentences end up in logs.


class PyJWTError(Exception):
    """The family of all errors of this module."""
    code = "jwt_error"

class InvalidTokenError(PyJWTError):
    """The token is refused. Whatever is wrong with a token, `decode` raises this or a subclass."""
    code = "invalid_token"

class DecodeError(InvalidTokenError):
    """The token is malformed: its shape, base64url, JSON or header, or the type of a time."""
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
    """`nbf` lies in the future (RFC 7519 §4.1.5), or `iat`, which is PyJWT's rule."""
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
    """The key is empty or missing, or no shared secret at all but a public key or a certificate."""
    code = "invalid_key"

class InsecureKeyLengthWarning(UserWarning):
    """The key is shorter than 32 bytes (RFC 7518 §3.2): it can be guessed offline from a single token."""


exceptions = sys.modules[__name__ + ".exceptions"] = sys.modules[__name__]  # where PyJWT keeps its errors


# ---- 2. base64url ----------------------------------------------------------------------------------------
# RFC 7515 §2: RFC 4648 §5 without padding. Knows bytes, not what they mean.

_TO_URL = bytes.maketrans(b"+/", b"-_")  # base64url is base64 with two other letters (RFC 4648 §5)
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def base64url_encode(raw: bytes) -> bytes:
    """Return `raw` in base64url without padding: `b"\\xff\\xfe"` gives `b"__4"` (RFC 7515 §2)."""
    return b64encode(raw).translate(_TO_URL).rstrip(b"=")


def base64url_decode(segment: bytes) -> bytes:
    """Return the bytes that `segment` spells, if it is their one canonical spelling (RFC 4648 §3.5).

    Raises DecodeError for everything else: padding, white space, `+` and `/`, impossible lengths, stray bits.
    """
    try:
        raw = b64decode(segment.translate(_FROM_URL) + b"==")  # surplus padding does no harm, missing padding would
    except ValueError:
        raise DecodeError("Invalid base64url: impossible length") from None
    # The library above skips what it does not know. Without this comparison one token would have many
    # spellings, and a list of revoked tokens could be evaded.
    if base64url_encode(raw) != segment:
        raise DecodeError("Invalid base64url: not the canonical spelling")
    return raw


# ---- 3. JSON ---------------------------------------------------------------------------------------------
# RFC 8259, and RFC 7515 §4 / RFC 7519 §4 where they are stricter: an object, every name once. The reader refuses
# every value that the writer refuses. Knows of tokens only which error to raise.

_TOO_LARGE = 10**MAX_DIGITS  # the smallest integer with too many digits
_quote = json.encoder.encode_basestring  # the JSON text of one str; not limited to ASCII

# The plain value that JSON sees in a tuple, or in a subclass of these (an enum, a named tuple).
_PLAIN: dict[type, Any] = {str: str.__str__, int: int, float: float, dict: dict, list: list, tuple: list}

Default = Callable[[Any], Any]  # turns a value that JSON does not know into one that it does, or raises TypeError
no_default: Default = json.JSONEncoder().default


def write_json(value: Any, default: Default = no_default, levels: int = MAX_JSON_DEPTH) -> str:
    """Return `value` as compact JSON text of at most `levels` levels.

    Values that JSON does not know are handed to `default`. Raises TypeError for what JSON cannot say (names
    must be str), ValueError for what no reader should be asked to read: NaN, Infinity, numbers beyond a double, too
    many levels (so a cycle too).
    """
    kind = type(value)
    if kind is str:
        return _quote(value)
    if kind is int:
        if abs(value) >= _TOO_LARGE:
            raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
        return str(value)
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("NaN and Infinity are not JSON")
        return repr(value)
    if kind is bool or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not levels:
        raise ValueError(f"JSON of more than {MAX_JSON_DEPTH} levels")
    if kind is list:
        return "[" + ",".join([write_json(item, default, levels - 1) for item in value]) + "]"
    if kind is dict:
        members = []
        for name, item in value.items():  # `_quote` takes no name but str: json.dumps would make "1" of 1, a second "1"
            members.append(f"{_quote(name)}:{write_json(item, default, levels - 1)}")
        return "{" + ",".join(members) + "}"
    for base, plain in _PLAIN.items():
        if isinstance(value, base):
            return write_json(plain(value), default, levels)
    return write_json(default(value), default, levels - 1)  # one less: a default that returns its argument must end


def json_bytes(value: Any, default: Default = no_default) -> bytes:
    """Return `value` as JSON in UTF-8; raises as `write_json` does, and ValueError for a lone surrogate."""
    try:
        return write_json(value, default).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a str holds a lone surrogate, which UTF-8 cannot say") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # RFC 7515 §4, RFC 7519 §4: two readers could believe different ones
        raise ValueError("a name occurs twice")
    return members


def _read_int(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:  # before int(), whose work grows with the square of the length
        raise ValueError("integer too large")
    return int(text)


def _read_float(text: str) -> float:
    if not math.isfinite(value := float(text)):  # "NaN" and "-Infinity" come here too
        raise ValueError("not a finite number")
    return value


_STRICT: dict[str, Any] = {"object_pairs_hook": _unique, "parse_float": _read_float, "parse_constant": _read_float}
_read_short = json.JSONDecoder(**_STRICT).raw_decode  # for at most MAX_DIGITS characters, where no integer is too large
_read_long = json.JSONDecoder(**_STRICT, parse_int=_read_int).raw_decode


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
        # Writing it again finds what parsing lets pass: a lone surrogate, too many levels.
        if "\\u" in text or text.count("{") + text.count("[") > MAX_JSON_DEPTH:
            json_bytes(value)
    except (ValueError, RecursionError):  # ValueError: JSONDecodeError and UnicodeError too
        raise DecodeError(f"Invalid {name} string: not strict JSON") from None
    if type(value) is not dict:
        raise DecodeError(f"Invalid {name} string: must be a json object")
    return value


# ---- 4. Signature ----------------------------------------------------------------------------------------
# RFC 7518 §3.2. The only room that looks into a key.

_SSH_KEY_TYPES = (b"ssh-", b"ecdsa-sha2-", b"sk-ssh-", b"sk-ecdsa-")
_SPACE, _TAB, _QUOTE, _BRACE = b' \t"{'  # ints, because `int in bytes` is eight times as fast as `bytes in bytes`


def _is_published(key: bytes) -> bool:
    """Tell whether `key` is an asymmetric key, a certificate or a JWK, and so may be known to others.

    PEM (RFC 7468), SSH2 (RFC 4716), one line of OpenSSH, JWK (RFC 7517).
    """
    # Each form holds some of these single bytes; looking for a byte is cheap.
    if (_SPACE in key or _TAB in key) and (
        b"-----BEGIN " in key or b"---- BEGIN " in key or key.lstrip().startswith(_SSH_KEY_TYPES)
    ):
        return True
    if _QUOTE not in key or _BRACE not in key:
        return False
    try:
        return "'kty':" in str(json.loads(key, parse_int=str))  # as a name, at whatever depth
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
            raise InvalidKeyError("The key holds a lone surrogate, which UTF-8 cannot say") from None
    elif not isinstance(key, bytes):
        raise TypeError("Expected a string or bytes value as the key")
    if not key:
        raise InvalidKeyError("HMAC key must not be empty")
    if len(key) < MIN_KEY_BYTES:
        message = f"The HMAC key is {len(key)} bytes long, below the {MIN_KEY_BYTES} that RFC 7518 §3.2 demands"
        if enforce_length:
            raise InvalidKeyError(message)
        warnings.warn(message, InsecureKeyLengthWarning, stacklevel=3)  # whoever called encode or decode
    # Public keys are public: a server that also verifies RS256 may be tricked into using one here (RFC 8725 §2.1).
    if _is_published(key):
        raise InvalidKeyError("The key is an asymmetric key, a certificate or a JWK, not a shared secret")
    return key


HMAC_BLOCK_BYTES = 64  # of SHA-256 (RFC 2104 §2)
_INNER = bytes(byte ^ 0x36 for byte in range(256))  # tables for bytes.translate: XOR with RFC 2104's ipad and opad
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac_key(key: bytes) -> bytes:
    """Return `key` as HMAC pads it: two keys that are equal in this form make the same signatures (RFC 2104 §2)."""
    return (sha256(key).digest() if len(key) > HMAC_BLOCK_BYTES else key).ljust(HMAC_BLOCK_BYTES, b"\0")


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return the 32 bytes that only a holder of `key` can make for `message`, as `hmac.digest` does (RFC 2104 §2)."""
    key = hmac_key(key)
    inner = sha256(key.translate(_INNER) + message).digest()
    return sha256(key.translate(_OUTER) + inner).digest()  # after one hash alone, anybody could append to the message


def sign(signing_input: bytes, key: bytes) -> bytes:
    """Return the signature segment for `signing_input`: HMAC-SHA256 in base64url, 43 bytes (RFC 7518 §3.2)."""
    return base64url_encode(hmac_sha256(key, signing_input))


def check_signature(signing_input: bytes, signature_segment: bytes, key: bytes) -> None:
    """Raise InvalidSignatureError unless `signature_segment` is what `key` gives (RFC 7515 §5.2).

    Compares the encoded form, so a second spelling of the right bytes is as wrong as wrong bytes.
    """
    # `==` would stop at the first wrong byte, and the time it takes would tell a forger how many are right.
    if not hmac.compare_digest(sign(signing_input, key), signature_segment):
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
    dots = text.count(b".")
    if dots != 2:
        raise DecodeError("Not enough segments" if dots < 2 else "Too many segments")
    signing_input, _, signature_segment = text.rpartition(b".")
    header_segment, _, payload_segment = signing_input.partition(b".")
    return signing_input, header_segment, payload_segment, signature_segment


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
    if segment == _HEADER_SEGMENT:  # our own, byte for byte: nothing to check
        return dict(_HEADER)
    header = read_json(base64url_decode(segment), "header")
    check_header(header)
    return header


def check_algorithm(header: Mapping[str, Any], algorithms: str | Container[str] | None) -> None:
    """Raise InvalidAlgorithmError unless the header says HS256 and the caller allows it (RFC 8725 §3.1).

    Raises DecodeError if the caller allows nothing at all.
    """
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
    _, header_segment, payload_segment, signature_segment = split(jwt)
    base64url_decode(payload_segment)
    base64url_decode(signature_segment)
    return read_header(header_segment)


# ---- 6. Claims -------------------------------------------------------------------------------------------
# RFC 7519 §4.1. What the seven registered claims must look like, and when they hold. Knows dicts and numbers:
# no bytes, no keys, no clock (`now` is an argument).


class Expected:
    """What a caller demands of the claims, and at which time."""

    def __init__(
        self,
        now: float,  # seconds since 1970
        leeway: float | timedelta = 0,  # seconds that clocks may differ
        audience: str | Iterable[str] | None = None,
        issuer: str | Container[str] | None = None,
        subject: str | None = None,
        strict_aud: bool = False,
    ) -> None:
        if audience is not None and not isinstance(audience, Iterable):
            raise TypeError("audience must be a string, iterable or None")
        self.now = now
        self.leeway = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
        self.strict_aud = strict_aud
        self.names: dict[str, Any] = {"iss": issuer, "aud": audience, "sub": subject}  # None: nobody asks


# Both comparisons of times are written so that a NaN, in a caller's `now` or `leeway`, refuses the token.


def _check_begun(begin: float, expected: Expected) -> None:
    if not begin <= expected.now + expected.leeway:
        raise ImmatureSignatureError("The token is not yet valid (nbf or iat)")


def _check_exp(exp: float, expected: Expected) -> None:
    if not expected.now - expected.leeway < exp:  # "on or after" exp it is too late
        raise ExpiredSignatureError("Signature has expired")


def _check_iss(iss: str, expected: Expected) -> None:
    issuer = expected.names["iss"]
    try:  # `in` would accept a part of a str
        known = issuer is None or (iss == issuer if isinstance(issuer, str) else iss in issuer)
    except TypeError:  # an `issuer` that is no container: InvalidIssuerError, as in PyJWT
        known = False
    if not known:
        raise InvalidIssuerError("Invalid issuer")


def is_audience(value: object) -> bool:
    """Tell whether `value` may stand in `aud`: a string, or an array of strings (RFC 7519 §4.1.3)."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _check_aud(aud: str | list[str], expected: Expected) -> None:
    audience = expected.names["aud"]
    if audience is None:  # whoever does not find himself in it MUST refuse the token
        raise InvalidAudienceError("Invalid audience: the token names one, the caller none")
    if expected.strict_aud and not (isinstance(audience, str) and isinstance(aud, str)):
        raise InvalidAudienceError("Invalid audience (strict): one string, on either side")
    if not is_audience(aud):
        raise InvalidAudienceError("Invalid claim format in token")
    named = [aud] if isinstance(aud, str) else aud
    wanted = [audience] if isinstance(audience, str) else audience
    if not any(item in named for item in wanted):
        raise InvalidAudienceError("Audience doesn't match")


def _check_sub(sub: str, expected: Expected) -> None:
    if expected.names["sub"] not in (None, sub):
        raise InvalidSubjectError("Invalid subject")


class ClaimRule(NamedTuple):
    """What RFC 7519 §4.1 says of one registered claim."""

    types: tuple[type, ...]  # exactly these: to Python, True is an int as well
    type_error: type[InvalidTokenError]  # for any other type
    check: Callable[[Any, Expected], None]  # raises unless the value is as expected
    section: str  # of RFC 7519
    demand: str  # in words, for `explain`


# In PyJWT's order: of several faults, that of the first rule here is raised.
CLAIM_RULES = {
    "iat": ClaimRule((int, float), InvalidIssuedAtError, _check_begun, "4.1.6", "a number, not later than now"),
    "nbf": ClaimRule((int, float), DecodeError, _check_begun, "4.1.5", "a number, not later than now"),
    "exp": ClaimRule((int, float), DecodeError, _check_exp, "4.1.4", "a number, later than now"),
    "iss": ClaimRule((str,), InvalidIssuerError, _check_iss, "4.1.1", "a string, the issuer that we expect"),
    "aud": ClaimRule((str, list), InvalidAudienceError, _check_aud, "4.1.3", "a string or strings, one of them us"),
    "sub": ClaimRule((str,), InvalidSubjectError, _check_sub, "4.1.2", "a string, the subject that we expect"),
    "jti": ClaimRule((str,), InvalidJTIError, lambda jti, expected: None, "4.1.7", "a string"),  # replays: the caller's
}


def check_claims(claims: Mapping[str, Any], expected: Expected, names: Iterable[str] = CLAIM_RULES) -> None:
    """Raise an InvalidTokenError unless each registered claim among `names` is well-formed and as expected."""
    for name in names:
        if name in claims:
            rule, value = CLAIM_RULES[name], claims[name]
            if type(value) not in rule.types:
                raise rule.type_error(f'Invalid claim format in token: "{name}"')
            rule.check(value, expected)
        elif expected.names.get(name) is not None:
            raise MissingRequiredClaimError(name)


# ---- 7. encode -------------------------------------------------------------------------------------------
# RFC 7519 §7.1. Never writes what `decode` would call malformed, so faults surface where they are made.


def _claims_to_sign(payload: dict[str, Any], default: Default) -> dict[str, Any]:
    """Return `payload` with datetimes as seconds; raise TypeError for a claim of a type that `decode` would refuse."""
    claims = payload
    for name, value in payload.items():
        rule = CLAIM_RULES.get(name)
        if rule is None or (type(value) in rule.types and (name != "aud" or is_audience(value))):
            continue
        if isinstance(value, datetime) and int in rule.types:
            value = timegm(value.utctimetuple())  # a naive datetime is taken for UTC
        value = json.loads(write_json(value, default))  # what a reader gets: for a tuple a list, for an enum its value
        if type(value) not in rule.types or (name == "aud" and not is_audience(value)):
            raise TypeError(f'the claim "{name}" has a type that RFC 7519 §{rule.section} does not allow')
        claims = {**claims, name: value}
    return claims


def _header_to_sign(headers: Mapping[str, Any], sort: bool) -> dict[str, Any]:
    """Return the whole header for the additional `headers`; raise as `encode` does for what may not stand there."""
    header = {"typ": "JWT", "alg": ALGORITHM, **headers}
    if header["alg"] != ALGORITHM:
        raise NotImplementedError('Algorithm not supported: a header "alg" may only say HS256')
    if not header["typ"]:  # PyJWT's way of leaving it out
        del header["typ"]
    check_header(header)
    return dict(sorted(header.items())) if sort else header


def encode(
    payload: dict[str, Any],
    key: str | bytes,
    algorithm: str | None = ALGORITHM,
    headers: Mapping[str, Any] | None = None,
    json_encoder: type[json.JSONEncoder] | None = None,
    sort_headers: bool = True,
) -> str:
    """Sign the claims in `payload` and return the token (RFC 7519 §7.1).

    `key` is the shared secret, 32 random bytes or more; `algorithm` can only be "HS256". `exp`, `nbf` and `iat` may be
    datetime and become whole seconds. `headers` adds members such as `kid`, by name if `sort_headers`. `json_encoder`
    is a json.JSONEncoder class whose `default` is asked about values that JSON does not know.

    Raises NotImplementedError for any other algorithm, TypeError or ValueError for a payload that is no dict, has
    names that are no str, values that JSON or RFC 7519 §4.1 do not allow, or too much of them, OverflowError for a
    datetime that UTC has not, InvalidKeyError as `key_bytes` does, InvalidTokenError for headers that `decode`
    refuses.
    """
    if algorithm != ALGORITHM:
        raise NotImplementedError('Algorithm not supported: here is only "HS256", and never an unsigned token')
    if not isinstance(payload, dict):
        raise TypeError("Expecting a dict object, as JWT only supports JSON objects as payloads.")
    default = json_encoder().default if json_encoder else no_default
    header_segment = _HEADER_SEGMENT
    if headers:
        header_segment = base64url_encode(json_bytes(_header_to_sign(headers, sort_headers), default))
    claims = json_bytes(_claims_to_sign(payload, default), default)
    signing_input = header_segment + b"." + base64url_encode(claims)
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


def read_options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return `options` completed with PyJWT's defaults.

    Raises TypeError for an unknown name (a check that was misspelt is a check that never runs), and
    NotImplementedError for `verify_signature` switched off.
    """
    if not options:
        return _DEFAULT_OPTIONS
    checks = {**_DEFAULT_OPTIONS, **options}
    for name in checks.keys() - _DEFAULT_OPTIONS.keys():
        raise TypeError(f"unknown option {name!r}; there are: {', '.join(sorted(_DEFAULT_OPTIONS))}")
    if not checks["verify_signature"]:
        raise NotImplementedError("decode always checks the signature; `explain` shows what an unverified token says")
    if isinstance(checks["require"], str) or not isinstance(checks["require"], Iterable):
        raise TypeError('the option "require" takes a list of claim names')
    return checks


def decode(
    jwt: str | bytes,
    key: str | bytes = b"",  # which is refused: so calls without a key, as PyJWT has them, get our sentence
    algorithms: str | Container[str] | None = (ALGORITHM,),
    options: Mapping[str, Any] | None = None,
    *,
    audience: str | Iterable[str] | None = None,
    issuer: str | Container[str] | None = None,
    subject: str | None = None,
    leeway: float | timedelta = 0,
    now: float | None = None,
) -> dict[str, Any]:
    """Verify the token `jwt` with `key` and return its claims (RFC 7519 §7.2).

    `algorithms` must allow "HS256". `audience` and `issuer` (one, or several) and `subject` must be found in `aud`,
    `iss` and `sub`; a token with `aud` is refused if no `audience` is given. `leeway` is seconds or a timedelta, `now`
    seconds since 1970 (default: the clock). `options` are PyJWT's: `require` (claim names), `verify_exp`, …
    `verify_jti`, `strict_aud`, `enforce_minimum_key_length`.

    Raises InvalidTokenError, and nothing else, for whatever is wrong with the token; InvalidKeyError, TypeError or
    NotImplementedError for the other arguments.
    """
    checks = read_options(options)
    now = time.time() if now is None else now
    expected = Expected(now, leeway, audience, issuer, subject, checks["strict_aud"])
    # 1. It must have the shape of a token (RFC 7515 §7.1).
    signing_input, header_segment, payload_segment, signature_segment = split(jwt)
    # 2. It must say what we would have done anyway (RFC 8725 §3.1).
    check_algorithm(read_header(header_segment), algorithms)
    # 3. Only a holder of the key can have written it (RFC 7515 §5.2).
    check_signature(signing_input, signature_segment, key_bytes(key, checks["enforce_minimum_key_length"]))
    # 4. Now, and not a line earlier, its claims are read, and must hold (RFC 7519 §4.1).
    claims = read_json(base64url_decode(payload_segment), "payload")
    for name in checks["require"]:
        if claims.get(name) is None:
            raise MissingRequiredClaimError(name)
    names = [name for name in CLAIM_RULES if checks["verify_" + name]] if options else CLAIM_RULES
    check_claims(claims, expected, names)
    return claims


def decode_complete(jwt: str | bytes, key: str | bytes = b"", *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Verify `jwt` as `decode` does, with its arguments and errors.

    Returns {"header": dict, "payload": dict, "signature": bytes}.
    """
    claims = decode(jwt, key, *args, **kwargs)
    _, header_segment, _, signature_segment = split(jwt)
    signature = base64url_decode(signature_segment)
    return {"header": read_header(header_segment), "payload": claims, "signature": signature}


# ---- 9. explain ------------------------------------------------------------------------------------------
# The steps of `decode` with its default options, one by one, told to a person. It calls what `decode` calls, in the
# same order; a test compares the two.

_STEPS = (  # name, section, demand; `explain` tells of each, in this order
    ("shape", "RFC 7515 §7.1", "ASCII, exactly two dots, a bounded size"),
    ("header", "RFC 7515 §4", "canonical base64url of one strict JSON object; no extension that must be understood"),
    ("algorithm", "RFC 8725 §3.1", f"the header says {ALGORITHM}, as we would have chosen anyway"),
    ("signature", "RFC 7515 §5.2", "HMAC-SHA256 of the first two segments with our key, compared in constant time"),
    ("payload", "RFC 7519 §7.2", "canonical base64url of one strict JSON object"),
    *((name, f"RFC 7519 §{rule.section}", rule.demand) for name, rule in CLAIM_RULES.items()),
)


def _says(segment: bytes) -> str:
    """Return what `segment` seems to say, as a str for display: an unverified dict would invite belief."""
    try:
        return b64decode(segment.translate(_FROM_URL) + b"==").decode("utf-8", "backslashreplace")
    except ValueError:
        return ""


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
    """Walk through the steps of `decode` and report each; never raises because of the token.

    Returns a dict that JSON can hold: `valid` (`decode` would return the claims), `claims` (dict, None unless valid),
    `header` and `payload` (str, what the segments say, unverified), `signing_input` (str, what is signed), and
    `steps`: for each its `name`, `section` of the RFC, `demand`, `found`, `ok` (None: not checked or not reached),
    `code` of the error. The signature that would have been right is not in it: it would let anybody sign.
    Raises InvalidKeyError and TypeError as `decode` does.
    """
    steps: list[dict[str, Any]] = [
        {"name": name, "section": section, "demand": demand, "ok": None, "found": "not reached", "code": None}
        for name, section, demand in _STEPS
    ]
    report: dict[str, Any] = {"valid": False, "claims": None, "header": "", "payload": "", "signing_input": ""}
    expected = Expected(time.time() if now is None else now, leeway, audience, issuer, subject)
    ahead = iter(steps)

    def tell(ok: bool | None, found: str, code: str | None = None) -> None:
        next(ahead).update(ok=ok, found=found, code=code)

    try:
        signing_input, header_segment, payload_segment, signature_segment = split(jwt)
        report.update(header=_says(header_segment), payload=_says(payload_segment))
        report.update(signing_input=signing_input.decode("ascii"))
        tell(True, f"{len(header_segment)} + {len(payload_segment)} + {len(signature_segment)} characters")
        header = read_header(header_segment)
        tell(True, f"an object, its members: {len(header)}")
        check_algorithm(header, (ALGORITHM,))
        tell(True, "it does")
        if key is None:
            tell(None, "not checked, there is no key: whatever follows may be invented")
        else:
            check_signature(signing_input, signature_segment, key_bytes(key))
            tell(True, "written by a holder of the key")
        claims = read_json(base64url_decode(payload_segment), "payload")
        tell(True, f"an object, its claims: {len(claims)}")
        for name in CLAIM_RULES:
            check_claims(claims, expected, (name,))
            tell(True if name in claims else None, "as it must be" if name in claims else "absent")
        if key is not None:
            report.update(valid=True, claims=claims)
    except InvalidTokenError as error:
        tell(False, str(error), error.code)
    return {**report, "steps": steps}


# ---- 10. Command line ------------------------------------------------------------------------------------
# python3 minijwt.py encode|decode|explain|keygen. A key is never an argument: everybody on the machine can read those.

KEY_VARIABLE = "MINIJWT_KEY"
_GREEN, _RED, _FAINT, _PURPLE, _CYAN = "32", "1;31", "2", "35", "36"  # ANSI SGR


def _paint(text: str, color: str) -> str:
    return f"\033[{color}m{text}\033[0m" if sys.stdout and sys.stdout.isatty() else text


def _printable(text: str) -> str:
    """Return `text` with every character escaped that could move a terminal's cursor or reverse its direction."""
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text])


def _key_from(arguments: argparse.Namespace) -> bytes | None:
    if arguments.key_file is not None:
        with open(arguments.key_file, "rb") as file:
            key = file.read()
        # The line end that editors and `keygen >file` leave is not part of it; nothing else is cut off.
        return key[:-1].removesuffix(b"\r") if key.endswith(b"\n") else key
    text = os.environ.get(arguments.key_env)
    return None if text is None else os.fsencode(text)


def _input(argument: str | None) -> bytes:
    if argument is not None and argument != "-":
        return os.fsencode(argument).strip()
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    return sys.stdin.buffer.read().strip()


def _report(arguments: argparse.Namespace) -> dict[str, Any]:
    token, key = _input(arguments.token), _key_from(arguments)
    return explain(token, key, audience=arguments.audience, issuer=arguments.issuer, now=arguments.now)


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


def _decode_command(arguments: argparse.Namespace) -> int:
    report = _report(arguments)
    if report["valid"]:
        print(json.dumps(report["claims"], indent=2))
        return 0
    for step in report["steps"]:
        if step["ok"] is False:
            print(f"minijwt: refused: {step['found']} [{step['code']}]", file=sys.stderr)
            return 1
    print(_printable(report["payload"]), flush=True)
    print(f"minijwt: NOT VERIFIED: no key in --key-file or {arguments.key_env}, so anybody may say so", file=sys.stderr)
    return 1


def _explain_command(arguments: argparse.Namespace) -> int:
    report = _report(arguments)
    if report["signing_input"]:
        print("header    ", _paint(_printable(report["header"]), _RED))
        print("payload   ", _paint(_printable(report["payload"]), _PURPLE))
        print("signed    ", _paint(_printable(report["signing_input"]), _CYAN), end="\n\n")
    for step in report["steps"]:
        mark, color = {True: ("ok", _GREEN), False: ("FAILED", _RED), None: ("-", _FAINT)}[step["ok"]]
        code = f" [{step['code']}]" if step["code"] else ""
        print(_paint(f"{mark:7}{step['name']:10} {step['found']}{code}", color))
        print(f"{'':18}{step['demand']} ({step['section']})")
    print("\nvalid" if report["valid"] else "\nNOT VALID")
    return 0 if report["valid"] else 1


def _keygen_command(arguments: argparse.Namespace) -> int:
    print(base64url_encode(os.urandom(MIN_KEY_BYTES)).decode("ascii"))
    return 0


def _parser() -> argparse.ArgumentParser:
    key = argparse.ArgumentParser(add_help=False)
    key.add_argument("--key-file", metavar="FILE", help="the key: all of FILE but one line end")
    key.add_argument(
        "--key-env", metavar="NAME", default=KEY_VARIABLE, help="the environment variable with the key (%(default)s)"
    )
    key.add_argument("--now", type=float, metavar="SECONDS", help="the time since 1970 (default: the clock)")
    token = argparse.ArgumentParser(add_help=False, parents=[key])
    token.add_argument("token", nargs="?", help="the token (default: from standard input)")
    token.add_argument("--audience", help="who we are, for aud")
    token.add_argument("--issuer", help="whom we trust, for iss")
    claims = argparse.ArgumentParser(add_help=False, parents=[key])
    claims.add_argument("claims", nargs="?", help="a JSON object (default: from standard input)")
    claims.add_argument("--expires-in", type=int, metavar="SECONDS", help="set iat to now and exp to SECONDS later")

    parser = argparse.ArgumentParser(
        prog="minijwt.py",
        description="Make, verify and explain JSON Web Tokens signed with HS256.",
        epilog="Exit status: 0 all is well; 1 the token is refused or was not verified; 2 anything else.",
    )
    parser.add_argument("--version", action="version", version=f"minijwt {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, parents, text in (
        ("encode", _encode_command, [claims], "sign claims, print the token"),
        ("decode", _decode_command, [token], "verify a token, print its claims"),
        ("explain", _explain_command, [token], "show each check that a token must pass, and where it fails"),
        ("keygen", _keygen_command, [], f"print a new key: {MIN_KEY_BYTES} random bytes in base64url"),
    ):
        commands.add_parser(name, parents=parents, help=text, description=text).set_defaults(run=run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv).

    Returns the exit status: 0 all is well, 1 the token is refused or was not verified, 2 anything else is wrong.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows only ASCII
    try:
        arguments = _parser().parse_args(argv)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InsecureKeyLengthWarning)
            status: int = arguments.run(arguments)
            if sys.stdout:  # None if it is closed
                sys.stdout.flush()
        for warning in caught:
            print(f"minijwt: warning: {warning.message}", file=sys.stderr)
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        print("minijwt: nobody reads the output to its end", file=sys.stderr)
    except OSError as error:
        print(f"minijwt: cannot read or write {error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
    except (PyJWTError, TypeError, ValueError, OverflowError) as error:
        print(f"minijwt: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
