#!/usr/bin/env python3
"""minijwt: JSON Web Tokens with HS256, complete in one file, with nothing but the standard library.

    >>> import minijwt
    >>> key = "0123456789abcdef0123456789abcdef"
    >>> token = minijwt.encode({"username": "admin", "exp": 2000000600}, key)
    >>> minijwt.decode(token, key, algorithms=["HS256"], now=2000000000)
    {'username': 'admin', 'exp': 2000000600}

The words of this file, each with one meaning:

    token          str, "header.payload.signature": a JWS in compact serialization (RFC 7515 §7.1)
    segment        bytes, one of the three parts between the dots, still in base64url
    signing input  bytes, header segment, dot, payload segment: the bytes that are signed (RFC 7515 §2)
    raw            bytes, the content of a segment; untrusted until the signature has been verified
    header         dict, names the algorithm of the signature (RFC 7515 §4)
    claims         dict, the statements that a token makes (RFC 7519 §4)
    key            str, bytes or Key, the shared secret: a program that can verify a token can also forge one
    now            int or float, seconds since 1970-01-01 UTC: a "NumericDate" (RFC 7519 §2)
    plain          of a type that a JSON reader returns, exactly: dict, list, str, int, float, bool, None

In parameters, `jwt` and `payload` are PyJWT's names for token and claims. Every name is defined above its first use.
"""

from __future__ import annotations

import argparse
import hmac
import json
import math
import os
import re
import sys
import time
import warnings
from base64 import b64encode
from binascii import a2b_base64
from calendar import timegm
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple, TypedDict

__version__ = "0.1.0"
__all__ = [
    "DecodeError", "ExpiredSignatureError", "ImmatureSignatureError", "InsecureKeyLengthWarning",
    "InvalidAlgorithmError", "InvalidAudienceError", "InvalidIssuedAtError", "InvalidIssuerError", "InvalidJTIError",
    "InvalidKeyError", "InvalidSignatureError", "InvalidSubjectError", "InvalidTokenError", "Key",
    "MissingRequiredClaimError", "PyJWTError", "decode", "decode_complete", "encode", "explain",
    "get_unverified_header",
]  # fmt: skip
if sys.version_info < (3, 9):  # noqa: UP036
    raise (SystemExit if __name__ == "__main__" else ImportError)("minijwt needs Python 3.9 or newer")

ALGORITHM = "HS256"  # RFC 7518 §3.2: HMAC with SHA-256
MIN_KEY_BYTES = 32  # RFC 7518 §3.2: a key MUST be at least as long as the hash
MAX_TOKEN_CHARS = 65_536  # characters: more than HTTP servers take in a header; bounds the work of a forged token
MAX_JSON_DEPTH = 32  # levels of {} and []: claims need three or four, an attack on the parser thousands
MAX_DIGITS = 308  # digits of an integer: 308 always fit the double of other readers (RFC 8259 §6), 309 may not


# ---- 1. Errors -------------------------------------------------------------------------------------------
# InvalidTokenError means that the token is bad; any other error, that the call is wrong. Names and tree are PyJWT's; as
# there, a wrong `algorithms`, `audience` or `issuer` raises an InvalidTokenError too. Programs compare `code`, people
# read the message. No message quotes a token, a key or a claim's value, because messages end up in logs.


class PyJWTError(Exception):
    """The base class of all errors of this module; each has a `code` that never changes."""
    code = "jwt_error"

    def __init_subclass__(cls, code: str = "") -> None:
        cls.code = code or cls.code

class InvalidTokenError(PyJWTError, code="invalid_token"):
    """The token is refused. For every fault of a token, `decode` raises this class or a subclass."""

class DecodeError(InvalidTokenError, code="decode_error"):
    """The token is malformed: its shape, base64url, JSON or header, or the type of a time."""

class InvalidSignatureError(DecodeError, code="invalid_signature"):
    """The signature does not belong to these bytes and this key: another key, or changed bytes."""

class InvalidAlgorithmError(InvalidTokenError, code="invalid_algorithm"):
    """The header names another algorithm than HS256, or the caller does not allow HS256."""

class ExpiredSignatureError(InvalidTokenError, code="expired"):
    """`exp` has been reached (RFC 7519 §4.1.4)."""

class ImmatureSignatureError(InvalidTokenError, code="immature"):
    """`nbf` lies in the future (RFC 7519 §4.1.5), or `iat` does, which is PyJWT's rule."""

class InvalidIssuedAtError(InvalidTokenError, code="invalid_issued_at"):
    """`iat` is not a number (RFC 7519 §4.1.6)."""

class InvalidIssuerError(InvalidTokenError, code="invalid_issuer"):
    """`iss` is not a string, or not an expected one (RFC 7519 §4.1.1)."""

class InvalidAudienceError(InvalidTokenError, code="invalid_audience"):
    """`aud` is malformed, does not name the caller, or the caller gave no `audience` (RFC 7519 §4.1.3)."""

class InvalidSubjectError(InvalidTokenError, code="invalid_subject"):
    """`sub` is not a string, or not the expected one (RFC 7519 §4.1.2)."""

class InvalidJTIError(InvalidTokenError, code="invalid_jti"):
    """`jti` is not a string (RFC 7519 §4.1.7)."""

class MissingRequiredClaimError(InvalidTokenError, code="missing_claim"):
    """A claim that the caller requires is absent or null; its name is in `claim`."""

    def __init__(self, claim: str) -> None:
        super().__init__(claim)
        self.claim = claim

    def __str__(self) -> str:
        return f'Token is missing the "{self.claim}" claim'

class InvalidKeyError(PyJWTError, code="invalid_key"):
    """The key is empty, or no shared secret but a public key, a certificate or a JWK."""

class InsecureKeyLengthWarning(UserWarning):
    """The key is shorter than 32 bytes (RFC 7518 §3.2): it can be guessed offline from a single token."""

class exceptions:
    """The errors where PyJWT keeps them, for `except jwt.exceptions.DecodeError`."""
    PyJWTError, InvalidKeyError, InvalidTokenError = PyJWTError, InvalidKeyError, InvalidTokenError
    DecodeError, InvalidSignatureError, InvalidJTIError = DecodeError, InvalidSignatureError, InvalidJTIError
    InvalidAlgorithmError, ExpiredSignatureError = InvalidAlgorithmError, ExpiredSignatureError
    ImmatureSignatureError, InvalidIssuedAtError = ImmatureSignatureError, InvalidIssuedAtError
    InvalidIssuerError, InvalidAudienceError = InvalidIssuerError, InvalidAudienceError
    InvalidSubjectError, MissingRequiredClaimError = InvalidSubjectError, MissingRequiredClaimError


# For `from minijwt.exceptions import DecodeError`; a loader need not have registered this module.
if __name__ in sys.modules:
    sys.modules[__name__ + ".exceptions"] = sys.modules[__name__]


# ---- 2. base64url ----------------------------------------------------------------------------------------
# RFC 7515 §2: RFC 4648 §5 without padding.

_TO_URL = bytes.maketrans(b"+/", b"-_")  # RFC 4648 §5: base64 with two other letters
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def base64url_encode(raw: bytes) -> bytes:
    """Return `raw` in base64url without padding: `b"\\xff\\xfe"` gives `b"__4"` (RFC 7515 §2)."""
    return b64encode(raw).translate(_TO_URL).rstrip(b"=")


def base64url_decode(segment: bytes) -> bytes:
    """Return the bytes that `segment` encodes; raise DecodeError unless its spelling is canonical (RFC 4648 §3.5)."""
    try:
        # Surplus padding does no harm, missing padding would.
        raw = a2b_base64(segment.translate(_FROM_URL) + b"==")
    except ValueError:
        raise DecodeError("Invalid base64url: impossible length") from None
    # a2b_base64 ignores white space, `+`, `/`, stray bits, all that follows a `=`. The signature covers the text, so a
    # respelled token fails anyway. This refuses a signer that spells otherwise: other readers would read other bytes.
    if base64url_encode(raw) != segment:
        raise DecodeError("Invalid base64url: not the canonical spelling")
    return raw


# ---- 3. JSON ---------------------------------------------------------------------------------------------
# RFC 8259, and RFC 7515 §4 / RFC 7519 §4 where they are stricter: one object, each name once. The reader refuses each
# value that the writer refuses. Values are made plain once, before any check, as json.dumps reads them (a dict by its
# `items()`; a str, int or float by that base type's own value): so what is checked is what is signed.

_TOO_LARGE = 10**MAX_DIGITS
# Returns the JSON text of one str; not limited to ASCII.
quote = json.encoder.encode_basestring
# Turns a value that JSON does not know into one that it knows, or raises TypeError.
Default = Callable[[Any], Any]
no_default: Default = json.JSONEncoder().default


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    # Of two values for one name, two readers could each believe another (RFC 7515 §4, RFC 7519 §4).
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def plain_names(members: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the `items()` of `members` in a dict whose names are plain; raise TypeError for a name that is no str."""
    pairs = []
    for name, item in members.items():
        if not issubclass(type(name), str):
            raise TypeError(f"names must be str, not {type(name).__name__}")
        pairs.append((str.__str__(name), item))
    return _unique(pairs)


# How a tuple is read, or a subclass of one of these (an enum, a named tuple).
_READ: dict[type, Callable[[Any], Any]] = {tuple: list, list: list, dict: plain_names}
_READ.update({str: str.__str__, int: int.__int__, float: float.__float__})


def write_json(value: Any, default: Default = no_default, levels: int = MAX_JSON_DEPTH) -> str:
    """Return `value` as compact JSON text; `default` converts values that JSON does not know.

    Raises TypeError for what JSON cannot express (names must be str), ValueError for what `read_json` refuses: NaN,
    Infinity, numbers beyond a double, too many levels, cycles.
    """
    kind = type(value)
    if kind is str:
        return quote(value)
    if kind is int:
        if abs(value) >= _TOO_LARGE:
            raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
        return str(value)
    if kind is dict and levels:
        members = []
        for name, item in value.items():
            if type(name) is not str:
                return write_json(plain_names(value), default, levels)
            members.append(f"{quote(name)}:{write_json(item, default, levels - 1)}")
        return f"{{{','.join(members)}}}"
    if kind is float:
        if not math.isfinite(value):
            raise ValueError("NaN and Infinity are not JSON")
        return repr(value)
    if kind is bool or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if not levels:
        raise ValueError(f"more than {MAX_JSON_DEPTH} levels of JSON")
    if kind is list:
        return "[" + ",".join([write_json(item, default, levels - 1) for item in value]) + "]"
    # By its type, as json.dumps does: a lazy proxy, which only claims to be a str, goes to `default`.
    for base, read in _READ.items():
        if issubclass(kind, base):
            return write_json(read(value), default, levels)
    # One level less: otherwise a `default` that returns its argument would recurse for ever.
    return write_json(default(value), default, levels - 1)


def utf8(text: str) -> bytes:
    """Return `text` in UTF-8; raise ValueError for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a str holds a lone surrogate, which UTF-8 cannot express") from None


def json_bytes(value: Any, default: Default = no_default) -> bytes:
    """Return `value` as JSON in UTF-8; raises as `write_json` and `utf8` do."""
    return utf8(write_json(value, default))


def _read_int(text: str) -> int:
    # Before int(), whose work grows with the square of the length.
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
    return int(text)


def _read_float(text: str) -> float:
    # "NaN" and "-Infinity" come here too.
    if not math.isfinite(value := float(text)):
        raise ValueError("a number that is not finite")
    return value


_STRICT: dict[str, Any] = {"object_pairs_hook": _unique, "parse_float": _read_float, "parse_constant": _read_float}
# For at most MAX_DIGITS characters, where no integer is too large.
_read_short = json.JSONDecoder(**_STRICT).raw_decode
_read_long = json.JSONDecoder(**_STRICT, parse_int=_read_int).raw_decode


def read_json(raw: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in `raw`; `name` ("header", "payload") is for the message only.

    Raises DecodeError unless it is UTF-8 without BOM (RFC 8259 §8.1), no name occurs twice and `write_json` allows it.
    """
    try:
        text = raw.decode("utf-8").strip(" \t\n\r")
        value, end = (_read_short if len(text) <= MAX_DIGITS else _read_long)(text)
        fault = "" if end == len(text) else "data after the object"
        # Writing it again finds what parsing lets pass: a lone surrogate, too many levels.
        if "\\u" in text or text.count("{") + text.count("[") > MAX_JSON_DEPTH:
            json_bytes(value)
    except UnicodeDecodeError:
        fault = "not UTF-8"
    except RecursionError:
        fault = f"more than {MAX_JSON_DEPTH} levels of JSON"
    except ValueError as error:
        fault = "a byte order mark" if text[:1] == "\ufeff" else str(error) if text else "nothing there"
    if fault or type(value) is not dict:
        raise DecodeError(f"Invalid {name} string: {fault or 'must be a json object'}")
    return value


# ---- 4. Signature ----------------------------------------------------------------------------------------
# RFC 7518 §3.2. The only room that looks into a key.

_SSH_KEY_TYPES = (b"ssh-", b"ecdsa-sha2-", b"sk-ssh-", b"sk-ecdsa-")
_SPACE, _TAB, _QUOTE, _BRACE = b' \t"{'


def _is_published(key: bytes) -> bool:
    """Tell whether `key` may be public: PEM (RFC 7468), SSH2 (RFC 4716), one line of OpenSSH, JWK (RFC 7517)."""
    # A search for one byte is eight times as fast as a search for several.
    spaced = _SPACE in key or _TAB in key
    if spaced and (b"-----BEGIN " in key or b"---- BEGIN " in key or key.lstrip().startswith(_SSH_KEY_TYPES)):
        return True
    if _QUOTE not in key or _BRACE not in key:
        return False
    try:
        return "'kty':" in str(json.loads(key, parse_int=str))
    except (ValueError, RecursionError):
        return b'"kty"' in key


def key_bytes(key: str | bytes, enforce_length: bool = False) -> bytes:
    """Return `key` as bytes (a str in UTF-8), whole: nothing is decoded, stripped or cut off.

    Raises InvalidKeyError if it is empty, a public key or a certificate, or, with `enforce_length`, under 32 bytes;
    without, that is an InsecureKeyLengthWarning. Raises TypeError if it is neither str nor bytes.
    """
    if isinstance(key, str):
        try:
            key = key.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidKeyError("The key holds a lone surrogate, which UTF-8 cannot express") from None
    elif not isinstance(key, bytes):
        found = "None: is the variable that should hold it set?" if key is None else type(key).__name__
        raise TypeError(f"The key must be str, bytes or Key, not {found}")
    if not key:
        raise InvalidKeyError("HMAC key must not be empty")
    if len(key) < MIN_KEY_BYTES:
        message = f"The HMAC key is {len(key)} bytes long, below the {MIN_KEY_BYTES} that RFC 7518 §3.2 demands"
        if enforce_length:
            raise InvalidKeyError(message)
        # The warning points at the line outside this file that passed the key.
        level, frame = 1, sys._getframe()
        while frame.f_globals is globals() and frame.f_back:
            level, frame = level + 1, frame.f_back
        warnings.warn(message, InsecureKeyLengthWarning, stacklevel=level)
    # Public keys are public: a server that also verifies RS256 may be tricked into using one here (RFC 8725 §2.1).
    if _is_published(key):
        raise InvalidKeyError("The key is an asymmetric key, a certificate or a JWK, not a shared secret")
    return key


HMAC_BLOCK_BYTES = 64  # RFC 2104 §2
# Tables for bytes.translate: XOR with the ipad and the opad of RFC 2104.
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac_key(key: bytes) -> bytes:
    """Return `key` as HMAC pads it: two keys that are equal in this form make the same signatures (RFC 2104 §2)."""
    return (sha256(key).digest() if len(key) > HMAC_BLOCK_BYTES else key).ljust(HMAC_BLOCK_BYTES, b"\0")


class Key:
    """A shared secret, checked as by `key_bytes` and padded once, for a program that uses it often (RFC 2104 §4)."""

    def __init__(self, secret: str | bytes) -> None:
        self.secret = key_bytes(secret)
        padded = hmac_key(self.secret)
        self.inner, self.outer = sha256(padded.translate(_INNER)), sha256(padded.translate(_OUTER))


def hmac_sha256(key: bytes | Key, message: bytes) -> bytes:
    """Return the 32 bytes that only a holder of `key` can make for `message`, as `hmac.digest` does (RFC 2104 §2)."""
    if isinstance(key, Key):
        inner, outer = key.inner.copy(), key.outer.copy()
    else:
        padded = hmac_key(key)
        inner, outer = sha256(padded.translate(_INNER)), sha256(padded.translate(_OUTER))
    inner.update(message)
    # After one hash alone, an attacker could append to the message.
    outer.update(inner.digest())
    return outer.digest()


def sign(signing_input: bytes, key: bytes | Key) -> bytes:
    """Return the signature segment for `signing_input`: HMAC-SHA256 in base64url, 43 bytes (RFC 7518 §3.2)."""
    return base64url_encode(hmac_sha256(key, signing_input))


def check_signature(signing_input: bytes, signature_segment: bytes, key: bytes | Key) -> None:
    """Raise InvalidSignatureError unless `signature_segment` is what `key` gives, letter by letter (RFC 7515 §5.2)."""
    # As it is spelled: decoded leniently, one signature has many spellings, and a revoked token would have another one.
    # `==` would stop at the first wrong byte, and its duration would tell a forger how many are right.
    if not hmac.compare_digest(sign(signing_input, key), signature_segment):
        message = "Signature verification failed"
        # The token is refused already, and its spelling is known to its sender: this tells a forger nothing.
        if re.search(rb"[^\w.-]", signing_input + signature_segment):
            message += ": the token holds white space, padding or a character that is not base64url's"
        raise InvalidSignatureError(message)


# ---- 5. Header -------------------------------------------------------------------------------------------
# Takes a token apart and reads its header. Nothing here is verified, so nothing in the header selects an algorithm or a
# key: it *names* HS256, or the token is refused. `kid`, `jwk`, `jku`, `x5u` are never followed.

_HEADER = {"alg": ALGORITHM, "typ": "JWT"}
_HEADER_SEGMENT = base64url_encode(json_bytes(_HEADER))


def split(token: str | bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the signing input and the header, payload and signature segments of `token` (RFC 7515 §7.1)."""
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
    """Raise DecodeError for a member of the wrong type, and for an extension that must be understood: none is."""
    for name in ("kid", "typ", "cty"):  # RFC 7515 §4.1.4, §4.1.9, §4.1.10
        if name in header and not isinstance(header[name], str):
            raise DecodeError(f'Header parameter "{name}" must be a string')
    if "crit" in header:  # RFC 7515 §4.1.11
        raise DecodeError("Unsupported critical extension")
    if header.get("b64", True) is not True:  # RFC 7797 §3: the payload is not base64url
        raise DecodeError("Unencoded payloads are not supported")


def read_header(segment: bytes) -> dict[str, Any]:
    """Return the header in `segment`; raise DecodeError if it is malformed or makes demands that cannot be met."""
    # The header that `encode` writes needs no check.
    if segment == _HEADER_SEGMENT:
        return dict(_HEADER)
    header = read_json(base64url_decode(segment), "header")
    check_header(header)
    return header


def check_algorithm(header: Mapping[str, Any], algorithms: str | Container[str] | None) -> None:
    """Raise InvalidAlgorithmError unless the header names HS256 and the caller allows it (RFC 8725 §3.1)."""
    # On a str, `in` would match substrings.
    if isinstance(algorithms, str):
        algorithms = (algorithms,)
    if not algorithms:
        raise DecodeError('It is required that you pass in a value for the "algorithms" argument: ["HS256"]')
    if header.get("alg") != ALGORITHM or ALGORITHM not in algorithms:
        raise InvalidAlgorithmError("The specified alg value is not allowed")


def get_unverified_header(jwt: str | bytes) -> dict[str, Any]:
    """Return the unverified header of `jwt`, to choose among your own keys by `kid`; raise DecodeError if malformed."""
    _, header_segment, payload_segment, signature_segment = split(jwt)
    base64url_decode(payload_segment)
    base64url_decode(signature_segment)
    return read_header(header_segment)


# ---- 6. Claims -------------------------------------------------------------------------------------------
# RFC 7519 §4.1. What the seven registered claims look like, and when they hold. No bytes, no keys, no clock.


class Expected:
    """What a caller demands of the claims (None: nothing) at the time `now`, give or take `leeway` seconds."""

    def __init__(
        self, now: float, leeway: float | timedelta = 0, audience: str | Iterable[str] | None = None,
        issuer: str | Container[str] | None = None, subject: str | None = None, strict_aud: bool = False,
    ) -> None:  # fmt: skip
        if not isinstance(now, (float, int)):
            raise TypeError(f"now must be seconds since 1970, not {type(now).__name__}: of a datetime, its timestamp()")
        if audience is not None and not isinstance(audience, Iterable):
            raise TypeError("audience must be a string, iterable or None")
        self.now, self.strict_aud = now, strict_aud
        self.leeway = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
        if not isinstance(self.leeway, (float, int)):
            raise TypeError(f"leeway must be seconds or a timedelta, not {type(leeway).__name__}")
        self.wanted: dict[str, Any] = {"iss": issuer, "aud": audience, "sub": subject}

    # Both comparisons of times are written so that a NaN, in a caller's `now` or `leeway`, refuses the token.
    def check_begun(self, begin: float) -> None:
        if not begin <= self.now + self.leeway:
            raise ImmatureSignatureError("The token is not yet valid (nbf or iat)")

    def check_exp(self, exp: float) -> None:
        # "On or after" `exp`, the token is refused.
        if not self.now - self.leeway < exp:
            raise ExpiredSignatureError("Signature has expired")

    def check_iss(self, iss: str) -> None:
        issuer = self.wanted["iss"]
        with suppress(TypeError):
            if issuer is None or (iss == issuer if isinstance(issuer, str) else iss in issuer):
                return
        raise InvalidIssuerError("Invalid issuer")

    def check_aud(self, aud: str | list[str]) -> None:
        audience = self.wanted["aud"]
        # A recipient that is not named in `aud` MUST refuse the token.
        if audience is None:
            raise InvalidAudienceError("Invalid audience: the token names one, the caller none")
        if self.strict_aud and not (isinstance(audience, str) and isinstance(aud, str)):
            raise InvalidAudienceError("Invalid audience (strict): token and caller must each have one string")
        named = [aud] if isinstance(aud, str) else aud
        if not all(isinstance(item, str) for item in named):
            raise InvalidAudienceError('Invalid claim format in token: "aud" is an array, but not of strings')
        wanted = [audience] if isinstance(audience, str) else audience
        if not any(item in named for item in wanted):
            raise InvalidAudienceError("Audience doesn't match")

    def check_sub(self, sub: str) -> None:
        if self.wanted["sub"] not in (None, sub):
            raise InvalidSubjectError("Invalid subject")


class ClaimRule(NamedTuple):
    """What RFC 7519 §4.1 says of one registered claim; `kind` and `demand` are `types` and `check` in words."""

    types: tuple[type, ...]
    kind: str
    type_error: type[InvalidTokenError]
    check: Callable[[Expected, Any], None]
    demand: str
    section: str

    def type_fault(self, name: str, value: object) -> str:
        return f'the claim "{name}" must be {self.kind} (RFC 7519 §{self.section}), not {type(value).__name__}'


# In PyJWT's order: of several faults, that of the first rule here is raised. A repeated `jti` is left to the caller.
_TIME, _TEXT, _TEXTS = ((int, float), "a number"), ((str,), "a string"), ((str, list), "a string or array of strings")
CLAIM_RULES = {
    "iat": ClaimRule(*_TIME, InvalidIssuedAtError, Expected.check_begun, ", not later than now", "4.1.6"),
    "nbf": ClaimRule(*_TIME, DecodeError, Expected.check_begun, ", not later than now", "4.1.5"),
    "exp": ClaimRule(*_TIME, DecodeError, Expected.check_exp, ", later than now", "4.1.4"),
    "iss": ClaimRule(*_TEXT, InvalidIssuerError, Expected.check_iss, ", the expected issuer", "4.1.1"),
    "aud": ClaimRule(*_TEXTS, InvalidAudienceError, Expected.check_aud, ", one of them expected", "4.1.3"),
    "sub": ClaimRule(*_TEXT, InvalidSubjectError, Expected.check_sub, ", the expected subject", "4.1.2"),
    "jti": ClaimRule(*_TEXT, InvalidJTIError, lambda expected, jti: None, "", "4.1.7"),
}


def check_claims(claims: Mapping[str, Any], expected: Expected, names: Iterable[str] = CLAIM_RULES) -> None:
    """Raise an InvalidTokenError unless each registered claim among `names` is well-formed and as expected."""
    for name in names:
        if name in claims:
            rule, value = CLAIM_RULES[name], claims[name]
            if type(value) not in rule.types:
                raise rule.type_error("Invalid claim format in token: " + rule.type_fault(name, value))
            rule.check(expected, value)
        elif expected.wanted.get(name) is not None:
            raise MissingRequiredClaimError(name)


# ---- 7. encode -------------------------------------------------------------------------------------------
# RFC 7519 §7.1. Never writes what `decode` would call malformed, so that a fault is found when it is signed.


def _claims_to_sign(payload: dict[str, Any], default: Default) -> bytes:
    """Return the claims in `payload` as JSON. Each is read once: what is checked here is what is written here."""
    members = []
    for name, value in payload.items() if type(payload) is dict else plain_names(payload).items():
        if type(name) is not str:
            return _claims_to_sign(plain_names(payload), default)
        rule = CLAIM_RULES.get(name)
        # Nearly always the value is plain. Of a list, only a reading of its items can tell.
        if rule and (type(value) not in rule.types or type(value) is list):
            # A naive datetime is taken for UTC. Anything else becomes what a reader will get: a tuple becomes a list.
            if isinstance(value, datetime) and int in rule.types:
                value = timegm(value.utctimetuple())
            value = json.loads(write_json(value, default))
            if type(value) not in rule.types or (type(value) is list and any(type(item) is not str for item in value)):
                raise TypeError(rule.type_fault(name, value))
        members.append(f"{quote(name)}:{write_json(value, default, MAX_JSON_DEPTH - 1)}")
    return utf8(f"{{{','.join(members)}}}")


def _header_to_sign(headers: Mapping[str, Any], default: Default, sort: bool) -> dict[str, Any]:
    """Return the whole header for the additional `headers`, read once: plain and checked, without a `typ` of None."""
    header = {"typ": "JWT", "alg": ALGORITHM, **json.loads(write_json(plain_names(headers), default))}
    if header["alg"] != ALGORITHM:
        raise NotImplementedError('Algorithm not supported: a header "alg" may only be HS256')
    if not header["typ"]:
        del header["typ"]
    check_header(header)
    return dict(sorted(header.items())) if sort else header


def encode(
    payload: dict[str, Any], key: str | bytes | Key, algorithm: str | None = ALGORITHM,
    headers: Mapping[str, Any] | None = None, json_encoder: type[json.JSONEncoder] | None = None,
    sort_headers: bool = True,
) -> str:  # fmt: skip
    """Sign the claims in `payload` and return the token (RFC 7519 §7.1).

    `key` is the shared secret, 32 random bytes or more; `algorithm` can only be "HS256". `exp`, `nbf` and `iat` may be
    datetime and become whole seconds. `headers` adds members such as `kid`, by name if `sort_headers`. `json_encoder`
    is a json.JSONEncoder class whose `default` converts values that JSON does not know.

    Raises TypeError or ValueError for a payload that is not a dict, or holds what JSON or RFC 7519 §4.1 do not allow;
    NotImplementedError for another algorithm, InvalidTokenError for headers that `decode` refuses, InvalidKeyError.
    """
    if algorithm != ALGORITHM:
        raise NotImplementedError('Algorithm not supported: here is only "HS256", and never an unsigned token')
    if not isinstance(payload, dict):
        raise TypeError("Expecting a dict object, as JWT only supports JSON objects as payloads.")
    default = json_encoder().default if json_encoder else no_default
    header_segment = _HEADER_SEGMENT
    if headers or not sort_headers:
        header_segment = base64url_encode(json_bytes(_header_to_sign(headers or {}, default, sort_headers)))
    signing_input = header_segment + b"." + base64url_encode(_claims_to_sign(payload, default))
    token = signing_input + b"." + sign(signing_input, key if isinstance(key, Key) else key_bytes(key))
    if len(token) > MAX_TOKEN_CHARS:
        raise ValueError(f"the token would be longer than {MAX_TOKEN_CHARS} characters")
    return token.decode("ascii")


# ---- 8. decode -------------------------------------------------------------------------------------------
# RFC 7519 §7.2. Returns claims or raises: there is no way to get unverified claims out of it. The options are PyJWT's.

Options = TypedDict("Options", {
    "verify_signature": bool, "verify_iat": bool, "verify_nbf": bool, "verify_exp": bool, "verify_iss": bool,
    "verify_aud": bool, "verify_sub": bool, "verify_jti": bool, "require": Iterable[str], "strict_aud": bool,
    "enforce_minimum_key_length": bool,
}, total=False)  # fmt: skip
_DEFAULT_OPTIONS: dict[str, Any] = dict.fromkeys(Options.__annotations__, True)
_DEFAULT_OPTIONS.update(require=(), strict_aud=False, enforce_minimum_key_length=False)


def read_options(options: Options | None) -> Mapping[str, Any]:
    """Return `options` completed with PyJWT's defaults; raise TypeError or NotImplementedError for a wrong option."""
    if not options:
        return _DEFAULT_OPTIONS
    checks: dict[str, Any] = {**_DEFAULT_OPTIONS, **options}
    # A misspelt option would be a check that never runs.
    if unknown := checks.keys() - _DEFAULT_OPTIONS.keys():
        raise TypeError(f"unknown option {unknown.pop()!r}; there are: {', '.join(sorted(_DEFAULT_OPTIONS))}")
    if not checks["verify_signature"]:
        raise NotImplementedError("decode always checks the signature; `explain` shows what an unverified token says")
    if isinstance(checks["require"], str) or not isinstance(checks["require"], Iterable):
        raise TypeError('the option "require" takes a list of claim names')
    return checks


def decode(
    jwt: str | bytes, key: str | bytes | Key = b"", algorithms: str | Container[str] | None = (ALGORITHM,),
    options: Options | None = None, *, audience: str | Iterable[str] | None = None,
    issuer: str | Container[str] | None = None, subject: str | None = None, leeway: float | timedelta = 0,
    now: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Verify the token `jwt` with `key` and return its claims (RFC 7519 §7.2).

    `algorithms` must allow "HS256". `audience` and `issuer` (one, or several) and `subject` must be found in `aud`,
    `iss` and `sub`; a token with `aud` is refused if no `audience` is given. `leeway` is seconds or a timedelta, `now`
    seconds since 1970 (default: the clock). Raises InvalidTokenError, and nothing else, for every fault of the token;
    InvalidKeyError, TypeError or NotImplementedError for the other arguments.
    """
    checks = read_options(options)
    now = time.time() if now is None else now
    expected = Expected(now, leeway, audience, issuer, subject, checks["strict_aud"])
    # 1. It must have the shape of a token (RFC 7515 §7.1).
    signing_input, header_segment, payload_segment, signature_segment = split(jwt)
    # 2. Its header must name the algorithm that is used in any case (RFC 8725 §3.1).
    check_algorithm(read_header(header_segment), algorithms)
    # 3. Only a holder of the key can have signed it (RFC 7515 §5.2).
    if checks["enforce_minimum_key_length"] or not isinstance(key, Key):
        key = key_bytes(key.secret if isinstance(key, Key) else key, checks["enforce_minimum_key_length"])
    check_signature(signing_input, signature_segment, key)
    # 4. Only now are its claims read, and must hold (RFC 7519 §4.1).
    claims = read_json(base64url_decode(payload_segment), "payload")
    for name in checks["require"]:
        if claims.get(name) is None:
            raise MissingRequiredClaimError(name)
    names = [name for name in CLAIM_RULES if checks["verify_" + name]] if options else CLAIM_RULES
    check_claims(claims, expected, names)
    return claims


def decode_complete(
    jwt: str | bytes, key: str | bytes | Key = b"", algorithms: str | Container[str] | None = (ALGORITHM,),
    options: Options | None = None, *, audience: str | Iterable[str] | None = None,
    issuer: str | Container[str] | None = None, subject: str | None = None, leeway: float | timedelta = 0,
    now: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Verify `jwt` as `decode` does, with its arguments and errors; return its "header", "payload" and "signature"."""
    claims = decode(
        jwt, key, algorithms, options, audience=audience, issuer=issuer, subject=subject, leeway=leeway, now=now
    )
    _, header_segment, _, signature_segment = split(jwt)
    return {"header": read_header(header_segment), "payload": claims, "signature": base64url_decode(signature_segment)}


# ---- 9. explain ------------------------------------------------------------------------------------------
# The steps of `decode` with its default options, one by one, for a person to read. It calls what `decode` calls, in the
# same order; a test compares the two. A report quotes the token, as no error does: show it, but do not log it.

_STEPS = (
    ("shape", "RFC 7515 §7.1", "ASCII, exactly two dots, a bounded size"),
    ("header", "RFC 7515 §4", "canonical base64url of one strict JSON object; no extension that must be understood"),
    ("algorithm", "RFC 8725 §3.1", f"the header names {ALGORITHM}, which is used in any case"),
    ("signature", "RFC 7515 §5.2", "HMAC-SHA256 of the first two segments with the key, compared in constant time"),
    ("payload", "RFC 7519 §7.2", "canonical base64url of one strict JSON object"),
    *((name, f"RFC 7519 §{rule.section}", rule.kind + rule.demand) for name, rule in CLAIM_RULES.items()),
)


def _say(segment: bytes) -> str:
    """Return the content of `segment` as a str for display: an unverified dict would invite trust."""
    try:
        text = a2b_base64(segment.translate(_FROM_URL) + b"==").decode("utf-8", "backslashreplace")
    except ValueError:
        return ""
    # It is much longer than the segment if little of it is text; then a kilobyte is enough.
    return text if len(ascii(text)) <= 2 * len(segment) + 2 else text[:1024]


def _comparison(name: str, value: Any, expected: Expected) -> str:
    """Return what the rule of the claim `name` compares: "exp 1795729205 > now 1795728610"."""
    found, wanted = f"{name} {value!a:.60}", expected.wanted.get(name)
    if name not in ("iat", "nbf", "exp") or type(value) not in CLAIM_RULES[name].types:
        return found if wanted is None else f"{found}, expected {wanted!a:.60}"
    leeway = -expected.leeway if name == "exp" else expected.leeway
    relation = ">" if value > expected.now + leeway else "<="
    return f"{found} {relation} now {expected.now:.13g}" + (f" ({leeway:+g} s of leeway)" if leeway else "")


def explain(
    jwt: str | bytes, key: str | bytes | Key | None = None, *, audience: str | Iterable[str] | None = None,
    issuer: str | Container[str] | None = None, subject: str | None = None, leeway: float | timedelta = 0,
    now: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Walk through the steps of `decode` and report each; never raises because of the token.

    Returns a dict that JSON can hold: `valid` (`decode` would return the claims), `claims` (dict, None unless valid),
    `header` and `payload` (str, the unverified content), `signing_input` (str), and `steps`: for each its `name`,
    `section` of the RFC, `demand`, `found`, `ok` (None: not checked or not reached), `code` of the error. The right
    signature is not in it: a caller could sign with that. Raises InvalidKeyError and TypeError as `decode` does.
    """
    steps: list[dict[str, Any]] = [
        {"name": name, "section": section, "demand": demand, "ok": None, "found": "not reached", "code": None}
        for name, section, demand in _STEPS
    ]
    report: dict[str, Any] = {"valid": False, "claims": None, "header": "", "payload": "", "signing_input": ""}
    expected = Expected(time.time() if now is None else now, leeway, audience, issuer, subject)
    ahead, compared = iter(steps), ""

    def tell(ok: bool | None, found: str, code: str | None = None) -> None:
        next(ahead).update(ok=ok, found=found, code=code)

    try:
        signing_input, header_segment, payload_segment, signature_segment = split(jwt)
        report.update(header=_say(header_segment), payload=_say(payload_segment), signing_input=signing_input.decode())
        tell(True, f"{len(header_segment)} + {len(payload_segment)} + {len(signature_segment)} characters")
        header = read_header(header_segment)
        tell(True, f"an object, its members: {len(header)}")
        check_algorithm(header, (ALGORITHM,))
        tell(True, f"it names {ALGORITHM}")
        if key is None:
            tell(None, "not checked, because there is no key: all that follows may be invented")
        else:
            check_signature(signing_input, signature_segment, key if isinstance(key, Key) else key_bytes(key))
            tell(True, "written by a holder of the key")
        claims = read_json(base64url_decode(payload_segment), "payload")
        tell(True, f"an object, its claims: {len(claims)}")
        for name in CLAIM_RULES:
            compared = _comparison(name, claims[name], expected) if name in claims else ""
            check_claims(claims, expected, (name,))
            tell(True if compared else None, compared or "absent")
        if key is not None:
            report.update(valid=True, claims=claims)
    except InvalidTokenError as error:
        # "Signature has expired" would read oddly below a signature that was right.
        message = "the token has expired" if isinstance(error, ExpiredSignatureError) else str(error)
        tell(False, f"{message}: {compared}" if compared else message, error.code)
    return {**report, "steps": steps}


# ---- 10. Command line ------------------------------------------------------------------------------------
# python3 minijwt.py encode|decode|explain|keygen. A key is never an argument: other users can see those.

KEY_VARIABLE = "MINIJWT_KEY"
_GREEN, _RED, _YELLOW, _FAINT, _PURPLE, _CYAN = "32", "1;31", "33", "2", "35", "36"  # ANSI SGR


def _paint(text: str, color: str) -> str:
    colors = sys.stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"\033[{color}m{text}\033[0m" if colors else text


def _printable(text: str) -> str:
    """Return `text` with every character escaped that could move a terminal's cursor or reverse its direction."""
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text])


def _complain(text: str) -> None:
    print(f"minijwt: {text}", file=sys.stderr)


def _assigned(path: str, name: str) -> str | None:
    """Return what the .env file `path` assigns to `name`, None if nothing; of several assignments, the last."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        values = dict(re.findall(r"(?am)^\s*(?:export[ \t]+)?([\w.-]+)(?:[ \t]*=|:[ \t])[ \t]*(.*)", file.read()))
    value = re.fullmatch(r"""(?:(["'])([^"'\\]*)\1|([^\s"'`#\\]*))\s*(?:#.*)?""", values.get(name, ""))
    if not value:
        raise ValueError(f"{name} in {path} has a space, an escape or a quote, which programs read differently")
    return value[2 if value[1] else 3] if name in values else None


def _key_from(arguments: argparse.Namespace) -> bytes | None:
    """Return the key that `arguments` name; None if they name none and MINIJWT_KEY is not set."""
    if arguments.key_file is not None:
        with open(arguments.key_file, "rb") as file:
            content = file.read()
        # Editors and `keygen >file` leave a line end, which is not part of the key; nothing else is cut off.
        return content[:-1].removesuffix(b"\r") if content.endswith(b"\n") else content
    given, path = arguments.key_env, arguments.env_file
    name = KEY_VARIABLE if given is None else given
    value = os.environ.get(name) if path is None else _assigned(path, name)
    if value is None and (given, path) != (None, None):
        raise InvalidKeyError(f"{'the environment' if path is None else path} does not set {name!r} (see --key-env)")
    if value and value.endswith("\n"):
        _complain(f"warning: the line end in {name} is part of the key; at the end of a --key-file it would not be")
    return None if value is None else os.fsencode(value)


def _input(argument: str | None, what: str) -> bytes:
    if argument is not None and argument != "-":
        return os.fsencode(argument).strip()
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    if sys.stdin.isatty():
        _complain(f"waiting for {what} on standard input; Ctrl-D ends it")
    return sys.stdin.buffer.read().strip()


def _report(arguments: argparse.Namespace) -> dict[str, Any]:
    token, key = _input(arguments.token, "a token"), _key_from(arguments)
    return explain(token, key, audience=arguments.audience, issuer=arguments.issuer, now=arguments.now)


def _encode_command(arguments: argparse.Namespace) -> int:
    key = _key_from(arguments)
    if key is None:
        raise InvalidKeyError(f"no key: name a file with --key-file, or put it into {KEY_VARIABLE}")
    claims = read_json(_input(arguments.claims, "claims"), "claims")
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
            _complain(f"refused: {step['found']} [{step['code']}]")
            return 1
    print(_printable(report["payload"]), flush=True)
    _complain(f"NOT VERIFIED: there is no key in --key-file or {KEY_VARIABLE}, so this may be forged")
    return 1


def _explain_command(arguments: argparse.Namespace) -> int:
    report = _report(arguments)
    if report["signing_input"]:
        print("header    ", _paint(_printable(report["header"]), _YELLOW))
        print("payload   ", _paint(_printable(report["payload"]), _PURPLE))
        print("signed    ", _paint(_printable(report["signing_input"]), _CYAN), end="\n\n")
    verdict = "valid" if report["valid"] else "NOT VERIFIED: there is no key"
    for step in report["steps"]:
        mark, color = {True: ("ok", _GREEN), False: ("FAILED", _RED), None: ("-", _FAINT)}[step["ok"]]
        code = f" [{step['code']}]" if step["code"] else ""
        verdict = "NOT VALID" if code else verdict
        print(_paint(f"{mark:7}{step['name']:10} {step['found']}{code}", color))
        print(f"{'':18}{step['demand']} ({step['section']})")
    print(f"\n{verdict}")
    return 0 if report["valid"] else 1


def _keygen_command(arguments: argparse.Namespace) -> int:
    print(base64url_encode(os.urandom(MIN_KEY_BYTES)).decode("ascii"))
    return 0


def _parser() -> argparse.ArgumentParser:
    key = argparse.ArgumentParser(add_help=False)
    one = key.add_mutually_exclusive_group()
    one.add_argument("--key-file", metavar="FILE", help="the key: what FILE holds, without a final line end")
    one.add_argument("--env-file", metavar="FILE", help="a .env file in which to look for the variable")
    key.add_argument("--key-env", metavar="NAME", help=f"the variable that holds the key (default: {KEY_VARIABLE})")
    key.add_argument("--now", type=float, metavar="SECONDS", help="the time since 1970 (default: the clock)")
    token = argparse.ArgumentParser(add_help=False, parents=[key])
    token.add_argument("token", nargs="?", help="the token (default: from standard input)")
    token.add_argument("--audience", help="the expected audience, for aud")
    token.add_argument("--issuer", help="the expected issuer, for iss")
    claims = argparse.ArgumentParser(add_help=False, parents=[key])
    claims.add_argument("claims", nargs="?", help="a JSON object (default: from standard input)")
    claims.add_argument("--expires-in", type=int, metavar="SECONDS", help="set iat to now and exp to SECONDS later")
    end = "Exit status: 0 all is well; 1 the token is refused or was not verified; 2 anything else."
    parser = argparse.ArgumentParser(prog="minijwt.py", description="Sign, verify, explain HS256 tokens.", epilog=end)
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
    """Run the command line `argv` (default: sys.argv); return its exit status, as the help explains it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InsecureKeyLengthWarning)
            status: int = arguments.run(arguments)
            print(end="", flush=True)
        for warning in caught:
            _complain(f"warning: {warning.message}")
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Else the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _complain("the output was closed early")
    except OSError as error:
        place = "the output" if error.filename is None else repr(error.filename)
        _complain(f"cannot read or write {place}: {error.strerror}")
    except (PyJWTError, TypeError, ValueError, OverflowError) as error:
        _complain(str(error))
    return 2


if __name__ == "__main__":
    sys.exit(main())
