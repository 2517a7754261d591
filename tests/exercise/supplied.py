"""What a pupil who starts at a later stage has already: the names of all stages, from minijwt where it has the same.

It is run within the pupil's own module, before the pupil's file, and the names of that stage and the later ones are
taken out. So `decode`, below, calls the pupil's check_claims and check_header as soon as there are any.
"""

import minijwt as _minijwt
from minijwt import (  # noqa: F401
    DecodeError, ExpiredSignatureError, ImmatureSignatureError, InvalidAudienceError, InvalidIssuedAtError,
    InvalidIssuerError, InvalidJTIError, InvalidSignatureError, InvalidSubjectError, InvalidTokenError,
    MissingRequiredClaimError, base64url_decode, base64url_encode, check_signature, json_bytes, sign, split,
)  # fmt: skip


def read_json(raw):
    return _minijwt.read_json(raw, "token's")


def key_bytes(key):
    return key.encode("utf-8") if isinstance(key, str) else key


def encode(payload, key, algorithm="HS256"):
    return _minijwt.encode(payload, key_bytes(key), algorithm)


def check_claims(claims, now=None, leeway=0, audience=None, issuer=None, subject=None):
    now = _minijwt.time.time() if now is None else now
    _minijwt.check_claims(claims, _minijwt.Expected(now, leeway, audience, issuer, subject))


def decode(jwt, key, algorithms=("HS256",), **expected):
    signing_input, header_segment, payload_segment, signature_segment = split(jwt)
    header = read_json(base64url_decode(header_segment))
    if "check_header" in globals():
        check_header(header, algorithms)  # noqa: F821
    check_signature(signing_input, signature_segment, key_bytes(key))
    claims = read_json(base64url_decode(payload_segment))
    if "check_claims" in globals():
        check_claims(claims, **expected)
    return claims
