import base64
import hmac
import json
import time


class InvalidTokenError(Exception): pass
class DecodeError(InvalidTokenError): pass
class InvalidSignatureError(DecodeError): pass
class ExpiredSignatureError(InvalidTokenError): pass
class ImmatureSignatureError(InvalidTokenError): pass
class InvalidIssuedAtError(InvalidTokenError): pass
class InvalidIssuerError(InvalidTokenError): pass
class InvalidSubjectError(InvalidTokenError): pass
class InvalidAudienceError(InvalidTokenError): pass
class InvalidJTIError(InvalidTokenError): pass
class MissingRequiredClaimError(InvalidTokenError): pass
class InvalidAlgorithmError(InvalidTokenError): pass
class InvalidKeyError(Exception): pass


def base64url_encode(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def base64url_decode(segment):
    try:
        raw = base64.urlsafe_b64decode(segment + b"==")
    except ValueError:
        raise DecodeError("no base64url")
    if base64url_encode(raw) != segment:
        raise DecodeError("another spelling")
    return raw


def once(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DecodeError("a name twice")
    return members


def no_number(word):
    raise DecodeError(word)


def read_json(raw):
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError):
        raise DecodeError("no JSON")
    if not isinstance(value, dict):
        raise DecodeError("no object")
    return value


def json_bytes(value):
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("utf-8")


def sign(signing_input, key):
    return base64url_encode(hmac.new(key, signing_input, "sha256").digest())


def check_signature(signing_input, signature_segment, key):
    if not hmac.compare_digest(sign(signing_input, key), signature_segment):
        raise InvalidSignatureError("another key, or other bytes")


def key_bytes(key: str | bytes) -> bytes:
    if not isinstance(key, (str, bytes)):
        raise TypeError("a key is str or bytes")
    raw = key.encode("utf-8") if isinstance(key, str) else key
    if not raw or b"-----BEGIN " in raw:
        raise InvalidKeyError("no secret")
    return raw


def encode(payload, key, algorithm="HS256"):
    if algorithm != "HS256":
        raise NotImplementedError("only HS256")
    if not isinstance(payload, dict):
        raise TypeError("claims are a dict")
    header = base64url_encode(json_bytes({"alg": "HS256", "typ": "JWT"}))
    signing_input = header + b"." + base64url_encode(json_bytes(payload))
    return (signing_input + b"." + sign(signing_input, key_bytes(key))).decode("ascii")


def split(token):
    if not isinstance(token, (str, bytes)):
        raise DecodeError("no text")
    if len(token) > 65_536 or not token.isascii():
        raise DecodeError("too long, or not ASCII")
    raw = token.encode("ascii") if isinstance(token, str) else token
    if raw.count(b".") != 2:
        raise DecodeError("a token has two dots")
    header, payload, signature = raw.split(b".")
    return header + b"." + payload, header, payload, signature


def decode(jwt, key, algorithms=("HS256",), **expected):
    signing_input, header, payload, signature = split(jwt)
    check_header(read_json(base64url_decode(header)), algorithms)
    check_signature(signing_input, signature, key_bytes(key))
    claims = read_json(base64url_decode(payload))
    check_claims(claims, **expected)
    return claims


def check_claims(claims, now=None, leeway=0, audience=None, issuer=None, subject=None):
    now = time.time() if now is None else now
    for name, expected in (("iss", issuer), ("aud", audience), ("sub", subject)):
        if expected is not None and name not in claims:
            raise MissingRequiredClaimError(name)
    for name, error in (("exp", DecodeError), ("nbf", DecodeError), ("iat", InvalidIssuedAtError)):
        if name in claims and type(claims[name]) not in (int, float):
            raise error(name)
    if "exp" in claims and now >= claims["exp"] + leeway:
        raise ExpiredSignatureError
    for name in ("nbf", "iat"):
        if name in claims and claims[name] > now + leeway:
            raise ImmatureSignatureError(name)
    for name, error in (("iss", InvalidIssuerError), ("sub", InvalidSubjectError), ("jti", InvalidJTIError)):
        if name in claims and not isinstance(claims[name], str):
            raise error(name)
    if issuer is not None and claims["iss"] not in ([issuer] if isinstance(issuer, str) else issuer):
        raise InvalidIssuerError
    if subject is not None and claims["sub"] != subject:
        raise InvalidSubjectError
    if "aud" in claims:
        named = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        wanted = [audience] if isinstance(audience, str) else audience
        if wanted is None or not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise InvalidAudienceError
        if not any(name in named for name in wanted):
            raise InvalidAudienceError


def check_header(header, algorithms):
    if not algorithms:
        raise DecodeError("no algorithm is allowed")
    if "crit" in header:
        raise DecodeError("an extension")
    allowed = [algorithms] if isinstance(algorithms, str) else algorithms
    if header.get("alg") != "HS256" or "HS256" not in allowed:
        raise InvalidAlgorithmError
