"""Show that the tests see:  python3 tests/prove/mutants.py [word]

Puts one classic mistake at a time into a copy of minijwt.py and runs the library's tests against the copy, two at a
time, those of the room with the mistake first. A mistake that no test notices has survived, and that is a failure.
A mistake is (name, text, text with the mistake); the text stands exactly once in the file, so a change there that
makes a mistake impossible to place is noticed too, and so is a mistake that uses a name which is gone. A word picks
the mistakes that have it in their name.
"""

import builtins
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import symtable
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
SOURCE = (TOP / "minijwt.py").read_text(encoding="utf-8")
ROOMS = ["0_file", "1_errors", "2_base64url", "3_json", "4_signature", "5_header", "6_claims", "7_encode", "8_decode",
 "9_explain",
         "10_command_line"]  # fmt: skip
SECONDS = 60  # for all tests on one mutant; who needs more has hung, and is noticed

EXPLAIN_CHECKS = """\
            check_signature(signing_input, signature_segment, key if isinstance(key, Key) else key_bytes(key))
"""
TYPES_SIGNED = """\
            value = json.loads(write_json(value, default))
            if type(value) not in rule.types or (type(value) is list and any(type(item) is not str for item in value)):
"""

MISTAKES = {  # by room; that room's tests are tried first
    "1_errors": [
        ("a code given twice", 'code="immature"', 'code="expired"'),
        ("a signature error that is no decode error", "class InvalidSignatureError(DecodeError,",
         "class InvalidSignatureError(InvalidTokenError,"),
        ("a key error that is a token error", "class InvalidKeyError(PyJWTError,",
         "class InvalidKeyError(InvalidTokenError,"),
        ("a derived error without a code", "cls.code = code or cls.code", "cls.code = code"),
        ("a name in exceptions is another error", "InvalidIssuerError, InvalidAudienceError = InvalidIssuerError, Inv",
         "InvalidIssuerError, InvalidAudienceError = InvalidSubjectError, Inv"),
        ("not loaded unless registered", "if __name__ in sys.modules:\n", "if True:\n"),
        ("no minijwt.exceptions to import from", "if __name__ in sys.modules:\n", "if False:\n"),
    ],
    "2_base64url": [
        ("the round trip dropped", "    if base64url_encode(raw) != segment:\n", "    if False:\n"),
        ("padding kept by the writer", '.translate(_TO_URL).rstrip(b"=")', ".translate(_TO_URL)"),
        ("padding tolerated by the reader", "if base64url_encode(raw) != segment:",
         'if base64url_encode(raw) != segment.rstrip(b"="):'),
        ("a final newline tolerated", "if base64url_encode(raw) != segment:",
         "if base64url_encode(raw) != segment.rstrip():"),
        ("the other alphabet tolerated", "if base64url_encode(raw) != segment:",
         'if base64url_encode(raw) != segment.replace(b"+", b"-").replace(b"/", b"_"):'),
        ("stray bits tolerated", "if base64url_encode(raw) != segment:",
         "if base64url_encode(raw)[:-1] != segment[:-1]:"),
        ("impossible lengths escape as binascii.Error",
         'raise DecodeError("Invalid base64url: impossible length") from None', "raise"),
    ],
    "3_json": [
        ("duplicate names allowed", "if len(members) != len(pairs):", "if False:"),
        ("NaN allowed", '"parse_constant": _read_float', '"parse_constant": float'),
        ("an overflowing float allowed", "if not math.isfinite(value := float(text)):",
         "if (value := float(text)) is None:"),
        ("any number of digits read", 'if len(text.lstrip("-")) > MAX_DIGITS:', "if False:"),
        ("one digit too many read", 'if len(text.lstrip("-")) > MAX_DIGITS:', "if len(text) > MAX_DIGITS + 1:"),
        ("the sign counted as a digit", 'len(text.lstrip("-")) > MAX_DIGITS', "len(text) > MAX_DIGITS"),
        ("a byte order mark read over", 'raw.decode("utf-8")', 'raw.decode("utf-8-sig")'),
        ("bad UTF-8 replaced", 'raw.decode("utf-8")', 'raw.decode("utf-8", "replace")'),
        ("Latin-1 read", 'raw.decode("utf-8")', 'raw.decode("latin-1")'),
        ("surrogates in UTF-8 read", 'raw.decode("utf-8")', 'raw.decode("utf-8", "surrogatepass")'),
        ("white space of all scripts read over", '.strip(" \\t\\n\\r")', ".strip()"),
        ("no white space read over", '.strip(" \\t\\n\\r")', ""),
        ("data after the object", 'fault = "" if end == len(text) else "data after the object"', 'fault = ""'),
        ("depth unbounded", 'if "\\\\u" in text or text.count("{") + text.count("[") > MAX_JSON_DEPTH:',
         'if "\\\\u" in text:'),
        ("only braces counted as depth", 'text.count("{") + text.count("[") > MAX_JSON_DEPTH',
         'text.count("{") > MAX_JSON_DEPTH'),
        ("one level too many", "MAX_JSON_DEPTH = 32 ", "MAX_JSON_DEPTH = 33 "),
        ("surrogates allowed", 'if "\\\\u" in text or ', "if "),
        ("only the first spelling of surrogates refused", '"\\\\u" in text', '"\\\\ud8" in text'),
        ("a recursion error escapes",
         "    except RecursionError:\n        fault",
         "    except ZeroDivisionError:\n        fault"),
        ("an array for an object", "if fault or type(value) is not dict:",
         "if fault or not isinstance(value, (dict, list)):"),
        ("the object check dropped", "if fault or type(value) is not dict:", "if fault:"),
        ("what UTF-8 is not escapes", "    except UnicodeDecodeError:\n        fault",
         "    except ZeroDivisionError:\n        fault"),
        ("a byte order mark without a word", '"a byte order mark" if text[:1] == "\\ufeff" else ', ""),
        ("nothing without a word", 'str(error) if text else "nothing there"', "str(error)"),
        ("a dict written past its items()", "dict: plain_names}", "dict: lambda value: dict(value)}"),
        ("an int by its __int__", "int: int.__int__,", "int: int,"),
        ("a float by its __float__", "float: float.__float__}", "float: float}"),
        ("a str by its __str__", "{str: str.__str__,", "{str: str,"),
        ("a list past its __iter__", "list: list, dict: plain_names}",
         "list: lambda value: value[:], dict: plain_names}"),
        ("a proxy taken for what it claims", "        if issubclass(kind, base):\n",
         "        if isinstance(value, base):\n"),
        ("a proxy taken for a name", "if not issubclass(type(name), str):", "if not isinstance(name, str):"),
        ("a name of any type", "        if not issubclass(type(name), str):\n", "        if False:\n"),
        ("a name written as its class likes", "pairs.append((str.__str__(name), item))",
         "pairs.append((str(name), item))"),
        ("a name written twice", "    return _unique(pairs)\n", "    return dict(pairs)\n"),
        ("NaN written", "if not math.isfinite(value):\n", "if False:\n"),
        ("names turned into strings", "            if type(name) is not str:\n                return write_json(",
         "            name = str(name)\n            if type(name) is not str:\n                return write_json("),
        ("the depth of an object unbounded", "    if kind is dict and levels:\n", "    if kind is dict:\n"),
        ("any integer written", "        if abs(value) >= _TOO_LARGE:\n", "        if False:\n"),
        ("the reader for short texts for long ones", "(_read_short if len(text) <= MAX_DIGITS else _read_long)",
         "_read_short"),
        ("the reader for short texts for one too long", "if len(text) <= MAX_DIGITS else",
         "if len(text) <= MAX_DIGITS + 6 else"),
    ],
    "4_signature": [
        ("== for compare_digest", "if not hmac.compare_digest(sign(signing_input, key), signature_segment):",
         "if sign(signing_input, key) != signature_segment:"),
        ("the signature not checked", "if not hmac.compare_digest(sign(signing_input, key), signature_segment):",
         "if False:"),
        ("as much of the signature as is there", "hmac.compare_digest(sign(signing_input, key), signature_segment)",
         "hmac.compare_digest(sign(signing_input, key)[: len(signature_segment)], signature_segment)"),
        ("an empty signature accepted", "if not hmac.compare_digest(",
         "if signature_segment and not hmac.compare_digest("),
        ("upper and lower case alike", "hmac.compare_digest(sign(signing_input, key), signature_segment)",
         "hmac.compare_digest(sign(signing_input, key).lower(), signature_segment.lower())"),
        ("the hexadecimal digest signed", "base64url_encode(hmac_sha256(key, signing_input))",
         "base64url_encode(hmac_sha256(key, signing_input).hex().encode())"),
        ("key and text swapped", "hmac_sha256(key, signing_input)", "hmac_sha256(signing_input, key)"),
        ("the key cut off at a block", "(sha256(key).digest() if len(key) > HMAC_BLOCK_BYTES else key)",
         "key[:HMAC_BLOCK_BYTES]"),
        ("a key of one block hashed", "if len(key) > HMAC_BLOCK_BYTES", "if len(key) >= HMAC_BLOCK_BYTES"),
        ("a long key not hashed", "(sha256(key).digest() if len(key) > HMAC_BLOCK_BYTES else key)", "key"),
        ("a key padded with spaces", '.ljust(HMAC_BLOCK_BYTES, b"\\0")', ".ljust(HMAC_BLOCK_BYTES)"),
        ("inner and outer swapped", "        padded = hmac_key(key)\n        inner, outer =",
         "        padded = hmac_key(key)\n        outer, inner ="),
        ("inner and outer of a Key swapped", "inner, outer = key.inner.copy(), key.outer.copy()",
         "outer, inner = key.inner.copy(), key.outer.copy()"),
        ("a Key used up by its first use", "inner, outer = key.inner.copy(), key.outer.copy()",
         "inner, outer = key.inner, key.outer"),
        ("the secret of a Key unchecked", "self.secret = key_bytes(secret)",
         'self.secret = secret.encode() if isinstance(secret, str) else secret'),
        ("the secret of a Key unpadded", "padded = hmac_key(self.secret)", "padded = self.secret"),
        ("hashed once", "    return outer.digest()\n", "    return inner.digest()\n"),
        ("the inner digest in hexadecimal", "outer.update(inner.digest())",
         "outer.update(inner.hexdigest().encode())"),
        ("an empty key allowed", "    if not key:\n", "    if False:\n"),
        ("the key stripped", "        padded = hmac_key(key)\n", "        padded = hmac_key(key.strip())\n"),
        ("the key in Latin-1", 'key = key.encode("utf-8")', 'key = key.encode("latin-1", "replace")'),
        ("the warning dropped", "        warnings.warn(message, InsecureKeyLengthWarning, stacklevel=level)",
         "        pass"),
        ("the warning points into this file", "InsecureKeyLengthWarning, stacklevel=level)",
         "InsecureKeyLengthWarning, stacklevel=3)"),
        ("the warning points past the caller", "level, frame = 1, sys._getframe()",
         "level, frame = 2, sys._getframe()"),
        ("a misspelt token is a wrong key", "        if re.search(", "        if False and re.search("),
        ("a wrong key is a misspelt token", 'rb"[^\\w.-]"', 'rb"[^\\w.]"'),
        ("a misspelt payload is a wrong key", ', signing_input + signature_segment):', ", signature_segment):"),
        ("a misspelt signature is a wrong key", ', signing_input + signature_segment):', ", signing_input):"),
        ("the warning one byte early", "if len(key) < MIN_KEY_BYTES:", "if len(key) <= MIN_KEY_BYTES:"),
        ("the length enforced never", "        if enforce_length:\n", "        if False:\n"),
        ("the PEM check dropped", 'b"-----BEGIN " in key or ', ""),
        ("PEM at the start only", 'b"-----BEGIN " in key', 'key.startswith(b"-----BEGIN ")'),
        ("the SSH2 check dropped", 'b"---- BEGIN " in key or ', ""),
        ("the SSH check dropped", " or key.lstrip().startswith(_SSH_KEY_TYPES)", ""),
        ("security keys forgotten", ', b"sk-ssh-", b"sk-ecdsa-")', ")"),
        ("SSH at the very start only", "key.lstrip().startswith(_SSH_KEY_TYPES)", "key.startswith(_SSH_KEY_TYPES)"),
        ("the JWK check dropped", "return \"'kty':\" in str(json.loads(key, parse_int=str))", "return False"),
        ("a kty anywhere is a JWK", "return \"'kty':\" in str(", "return \"kty\" in str("),
        ("a cut JWK taken for a secret", "return b'\"kty\"' in key", "return False"),
        ("published keys have a space", "spaced = _SPACE in key or _TAB in key", "spaced = _SPACE in key"),
        ("published keys have a tab", "spaced = _SPACE in key or _TAB in key", "spaced = _TAB in key"),
        ("published keys have both a space and a tab", "spaced = _SPACE in key or _TAB in key",
         "spaced = _SPACE in key and _TAB in key"),
        ("all that starts like SSH is published", "spaced = _SPACE in key or _TAB in key", "spaced = True"),
        ("a JWK has no quotes", "    if _QUOTE not in key or", "    if _QUOTE in key or"),
        ("a JWK starts with its brace", "_BRACE not in key:", "key[0] != _BRACE:"),
        ("a JWK ends", "_SPACE, _TAB, _QUOTE, _BRACE = b' \\t\"{'", "_SPACE, _TAB, _QUOTE, _BRACE = b' \\t\"}'"),
        ("a quote is a JWK", "    if _QUOTE not in key or _BRACE not in key:", "    if _QUOTE not in key:"),
        ("a long number hides a JWK", "json.loads(key, parse_int=str)", "json.loads(key)"),
        ("a recursion error in a JWK escapes", "    except (ValueError, RecursionError):\n        return b",
         "    except ValueError:\n        return b"),
        ("public keys allowed", "raise InvalidKeyError(\"The key is an asymmetric",
         "InvalidKeyError(\"The key is an asymmetric"),
    ],
    "5_header": [
        ("the size bound dropped", "    if len(token) > MAX_TOKEN_CHARS:\n        raise DecodeError",
         "    if False:\n        raise DecodeError"),
        ("the size bound off by one", "    if len(token) > MAX_TOKEN_CHARS:\n        raise DecodeError",
         "    if len(token) >= MAX_TOKEN_CHARS:\n        raise DecodeError"),
        ("too few dots accepted", "if dots != 2:", "if dots > 2:"),
        ("too many dots accepted", "if dots != 2:", "if dots < 2:"),
        ("any object taken for a token", "    if not isinstance(token, (str, bytes)):\n", "    if False:\n"),
        ("bytes that are not ASCII", "    if not token.isascii():\n",
         "    if isinstance(token, str) and not token.isascii():\n"),
        ("a header that is not ours believed", "if segment == _HEADER_SEGMENT:",
         "if segment.startswith(_HEADER_SEGMENT[:8]):"),
        ("a shared header", "return dict(_HEADER)", "return _HEADER"),
        ("the header not checked",
         "    header = read_json(base64url_decode(segment), \"header\")\n    check_header(header)\n",
         "    header = read_json(base64url_decode(segment), \"header\")\n"),
        ("kid of any type", 'for name in ("kid", "typ", "cty"):', 'for name in ("typ", "cty"):'),
        ("typ of any type", 'for name in ("kid", "typ", "cty"):', 'for name in ("kid", "cty"):'),
        ("cty of any type", 'for name in ("kid", "typ", "cty"):', 'for name in ("kid", "typ"):'),
        ("crit ignored", 'if "crit" in header:', "if False:"),
        ("an empty crit ignored", 'if "crit" in header:', 'if header.get("crit"):'),
        ("b64 ignored", 'if header.get("b64", True) is not True:', "if False:"),
        ("b64 null ignored", 'if header.get("b64", True) is not True:', 'if header.get("b64") is False:'),
        ("algorithms as a substring", "        algorithms = (algorithms,)\n", "        pass\n"),
        ("no algorithms means any", "    if not algorithms:\n", "    if False:\n"),
        ("alg from the header", "header.get(\"alg\") != ALGORITHM or ALGORITHM not in algorithms",
         "header.get(\"alg\") not in algorithms"),
        ("alg unchecked", "header.get(\"alg\") != ALGORITHM or ", ""),
        ("alg in any case", "header.get(\"alg\") != ALGORITHM", "str(header.get(\"alg\")).upper() != ALGORITHM"),
        ("no alg is our alg", "header.get(\"alg\") != ALGORITHM", "header.get(\"alg\", ALGORITHM) != ALGORITHM"),
        ("the caller's algorithms unchecked", " or ALGORITHM not in algorithms:", ":"),
        ("the header read from a misspelt payload",
         "    base64url_decode(payload_segment)\n    base64url_decode(signature_segment)\n",
         "    base64url_decode(signature_segment)\n"),
        ("the header read from a misspelt signature",
         "    base64url_decode(payload_segment)\n    base64url_decode(signature_segment)\n",
         "    base64url_decode(payload_segment)\n"),
    ],
    "6_claims": [
        ("> for >= at exp", "if not self.now - self.leeway < exp:",
         "if not self.now - self.leeway <= exp:"),
        ("leeway the wrong way at exp", "if not self.now - self.leeway < exp:",
         "if not self.now + self.leeway < exp:"),
        ("leeway forgotten at exp", "if not self.now - self.leeway < exp:", "if not self.now < exp:"),
        ("a NaN leeway lets exp pass", "if not self.now - self.leeway < exp:",
         "if exp <= self.now - self.leeway:"),
        ("exp in whole seconds", "if not self.now - self.leeway < exp:",
         "if not self.now - self.leeway < int(exp):"),
        ("nbf and iat a second late", "if not begin <= self.now + self.leeway:",
         "if not begin < self.now + self.leeway:"),
        ("leeway the wrong way at nbf and iat", "if not begin <= self.now + self.leeway:",
         "if not begin <= self.now - self.leeway:"),
        ("leeway forgotten at nbf and iat", "if not begin <= self.now + self.leeway:",
         "if not begin <= self.now:"),
        ("a NaN leeway lets nbf and iat pass", "if not begin <= self.now + self.leeway:",
         "if begin > self.now + self.leeway:"),
        ("nbf ignored", '"nbf": ClaimRule(*_TIME, DecodeError, Expected.check_begun,',
         '"nbf": ClaimRule(*_TIME, DecodeError, lambda *_: None,'),
        ("iat ignored", '"iat": ClaimRule(*_TIME, InvalidIssuedAtError, Expected.check_begun,',
         '"iat": ClaimRule(*_TIME, InvalidIssuedAtError, lambda *_: None,'),
        ("nbf as a deadline", '"nbf": ClaimRule(*_TIME, DecodeError, Expected.check_begun,',
         '"nbf": ClaimRule(*_TIME, DecodeError, Expected.check_exp,'),
        ("a timedelta as it is", "leeway.total_seconds() if isinstance(leeway, timedelta) else leeway",
         "leeway.seconds if isinstance(leeway, timedelta) else leeway"),
        ("issuer as a substring", "(iss == issuer if isinstance(issuer, str) else iss in issuer)", "iss in issuer"),
        ("an empty issuer is none", "if issuer is None or (iss ==", "if not issuer or (iss =="),
        ("an issuer that is no container escapes", "with suppress(TypeError):", "with suppress(ZeroDivisionError):"),
        *((f"no {name} where one is expected", "expected.wanted.get(name) is not None:",
           f"expected.wanted.get(name) is not None and name != {name!r}:") for name in ("iss", "aud", "sub")),
        ("an empty expectation is none", "expected.wanted.get(name) is not None:", "expected.wanted.get(name):"),
        ("an audience of any type asked for", "if audience is not None and not isinstance(audience, Iterable):",
         "if False:"),
        ("aud ignored when nobody asked", "        if audience is None:\n            raise",
         "        if audience is None:\n            return\n        if audience is None:\n            raise"),
        ("strict_aud dropped in the token", "(isinstance(audience, str) and isinstance(aud, str))",
         "isinstance(audience, str)"),
        ("strict_aud dropped in the call", "(isinstance(audience, str) and isinstance(aud, str))",
         "isinstance(aud, str)"),
        ("audience as a substring", "named = [aud] if isinstance(aud, str) else aud", "named = aud"),
        ("wanted letter by letter", "wanted = [audience] if isinstance(audience, str) else audience",
         "wanted = audience"),
        ("every audience must match", "if not any(item in named for item in wanted):",
         "if not all(item in named for item in wanted):"),
        ("an aud of anything", "if not all(isinstance(item, str) for item in named):", "if False:"),
        ("sub unchecked", 'if self.wanted["sub"] not in (None, sub):', "if False:"),
        ("an empty subject is none", 'self.wanted["sub"] not in (None, sub)',
         'self.wanted["sub"] not in (None, "", sub)'),
        ("a leeway of any type", "if not isinstance(self.leeway, (float, int)):", "if False:"),
        ("sub of any type", '"sub": ClaimRule(*_TEXT,', '"sub": ClaimRule((str, int, type(None), list), "",'),
        ("jti of any type", '"jti": ClaimRule(*_TEXT,', '"jti": ClaimRule((str, int, type(None), list), "",'),
        ("an iss array", '"iss": ClaimRule(*_TEXT,', '"iss": ClaimRule(*_TEXTS,'),
        ("now of any type", "        if not isinstance(now, (float, int)):\n", "        if False:\n"),
        ("a type that is not named", ", not {type(value).__name__}'", "'"),
        ("bool as number", "if type(value) not in rule.types:", "if not isinstance(value, rule.types):"),
        ("the type of a claim unchecked", "if type(value) not in rule.types:", "if False:"),
        ("null is absent", "        if name in claims:\n            rule",
         "        if claims.get(name) is not None:\n            rule"),
        ("zero is absent", "        if name in claims:\n            rule",
         "        if claims.get(name):\n            rule"),
    ],
    "7_encode": [
        ("any algorithm in encode", "    if algorithm != ALGORITHM:\n", "    if False:\n"),
        ("alg in headers believed", '    if header["alg"] != ALGORITHM:\n', "    if False:\n"),
        ("headers unchecked", "    check_header(header)\n    return dict(sorted", "    return dict(sorted"),
        ("headers never sorted", "return dict(sorted(header.items())) if sort else header", "return header"),
        ("a payload of any type", "    if not isinstance(payload, dict):\n", "    if False:\n"),
        ("registered claims of any type", "raise TypeError(rule.type_fault(name, value))",
         "TypeError(rule.type_fault(name, value))"),
        ("bool as a time written", "if type(value) not in rule.types or (type(value) is list and any",
         "if not isinstance(value, rule.types) or (type(value) is list and any"),
        ("an aud of anything written", "any(type(item) is not str for item in value)", "False"),
        ("an aud taken as it is", "if rule and (type(value) not in rule.types or type(value) is list):",
         "if rule and type(value) not in rule.types:"),
        ("the caller's claims changed", "            value = json.loads(write_json(value, default))\n",
         "            value = payload[name] = json.loads(write_json(value, default))\n"),
        ("a subclass taken for a claim's type", "if rule and (type(value) not in rule.types or",
         "if rule and (not isinstance(value, rule.types) or"),
        ("a claim checked and then read again", TYPES_SIGNED, TYPES_SIGNED.replace("value = ", "read = ")
         .replace("type(value)", "type(read)").replace("in value", "in read")),
        ("a claim under another name",
         "        if type(name) is not str:\n            return _claims_to_sign(plain_names(payload), default)\n", ""),
        ("a payload past its items()", "payload.items() if type(payload) is dict else plain_names(payload).items()",
         "dict.items(payload)"),
        ("headers past their items()", "plain_names(headers), default)", "dict(headers), default)"),
        ("headers checked and then read again", "**json.loads(write_json(plain_names(headers), default))}",
         "**plain_names(headers)}"),
        ("a datetime in local time", "timegm(value.utctimetuple())", "int(value.timestamp() - 3600)"),
        ("a zone forgotten", "value.utctimetuple()", "value.timetuple()"),
        ("a token too large written", "    if len(token) > MAX_TOKEN_CHARS:\n        raise ValueError",
         "    if False:\n        raise ValueError"),
        ("json_encoder ignored in headers", "write_json(plain_names(headers), default)",
        "write_json(plain_names(headers))"),
    ],
    "8_decode": [
        ("options misspelt accepted", "checks.keys() - _DEFAULT_OPTIONS.keys():", "():"),
        ("verify_signature=False accepted", '    if not checks["verify_signature"]:\n', "    if False:\n"),
        ("only False refused as verify_signature", 'if not checks["verify_signature"]:',
         'if checks["verify_signature"] is False:'),
        ("require as a string", 'if isinstance(checks["require"], str) or not', "if not"),
        ("require as anything", ' or not isinstance(checks["require"], Iterable):', ":"),
        ("require ignored", '    for name in checks["require"]:\n', "    for name in ():\n"),
        ("null meets a requirement", "if claims.get(name) is None:", "if name not in claims:"),
        ("what is falsy does not meet a requirement", "if claims.get(name) is None:", "if not claims.get(name):"),
        ("verify_ options ignored", "if options else CLAIM_RULES", "if not options else CLAIM_RULES"),
        ("no claims checked without options", "if options else CLAIM_RULES", "if options else ()"),
        ("the algorithm unchecked in decode", "    check_algorithm(read_header(header_segment), algorithms)\n",
         "    read_header(header_segment)\n"),
        ("the length of the key left open", 'else key, checks["enforce_minimum_key_length"])', "else key)"),
        ("the length of a Key left open", 'if checks["enforce_minimum_key_length"] or not isinstance(key, Key):',
         "if not isinstance(key, Key):"),
        ("payload parsed first", "    check_signature(signing_input, signature_segment, key)\n    # 4",
         '    read_json(base64url_decode(payload_segment), "payload")\n'
         "    check_signature(signing_input, signature_segment, key)\n    # 4"),
        ("an option without a type", '"verify_jti": bool, ', ""),
        ("zero is no time", "    now = time.time() if now is None else now\n", "    now = now or time.time()\n"),
        ("the claims unchecked", "    check_claims(claims, expected, names)\n", ""),
        ("strict_aud not passed on", ', subject, checks["strict_aud"])', ", subject)"),
        ("decode_complete unverified", "    claims = decode(\n        jwt, key,",
         '    claims = read_json(base64url_decode(split(jwt)[2]), "payload")\n    key and decode(\n        jwt, key,'),
        *((f"decode_complete forgets {name}", f"{name}={name}, ", "") for name in ("issuer", "subject", "leeway")),
        ("decode_complete forgets the audience", "options, audience=audience, issuer=issuer,",
         "options, issuer=issuer,"),
        ("decode_complete forgets the time", "leeway=leeway, now=now\n", "leeway=leeway\n"),
    ],
    "9_explain": [
        ("explain skips the algorithm", "        check_algorithm(header, (ALGORITHM,))\n", ""),
        ("explain skips the signature",
         EXPLAIN_CHECKS,
         "            isinstance(key, Key) or key_bytes(key)\n"),
        ("explain skips the claims", "            check_claims(claims, expected, (name,))\n", ""),
        ("explain without a key is valid", "        if key is not None:\n            report.update(valid=True",
         "        if True:\n            report.update(valid=True"),
        ("an empty key is none to explain", "        if key is None:\n            tell(None,",
         "        if not key:\n            tell(None,"),
        ("zero is no time to explain", "Expected(time.time() if now is None else now,", "Expected(now or time.time(),"),
        ("explain forgets the subject", "audience, issuer, subject)\n    ahead", "audience, issuer)\n    ahead"),
        ("explain tells the right signature",
         EXPLAIN_CHECKS,
         '            report["expected"] = sign(signing_input, key_bytes(key)).decode()\n' + EXPLAIN_CHECKS),
        ("explain tells the right digest",
         EXPLAIN_CHECKS,
         '            report["mac"] = hmac_sha256(key_bytes(key), signing_input).hex()\n' + EXPLAIN_CHECKS),
        ("explain raises", "    except InvalidTokenError as error:\n        # ",
         "    except DecodeError as error:\n        # "),
        ("explain forgets the code", "else message, error.code)", "else message)"),
        ("explain calls the signature expired",
         'message = "the token has expired" if isinstance(error, ExpiredSignatureError) else ',
         "message = "),
        ("explain compares the other way", 'relation = ">" if value > ', 'relation = ">" if value <= '),
        ("explain forgets the leeway", 'leeway = -expected.leeway if name == "exp" else expected.leeway', "leeway = 0"),
        ("explain shows all of a long claim", "{value!a:.60}", "{value!a}"),
        ("explain shows a claim raw", "{value!a:.60}", "{value!s:.60}"),
        ("explain shows the fault of the claim before", 'expected) if name in claims else ""',
         "expected) if name in claims else compared"),
    ],
    "10_command_line": [
        ("an unverified token is good", 'so this may be forged")\n    return 1\n',
         'so this may be forged")\n    return 0\n'),
        ("the warning on standard output", 'print(f"minijwt: {text}", file=sys.stderr)', 'print(f"minijwt: {text}")'),
        ("terminal escapes printed", "c if c.isprintable() else", "c if True else"),
        ("an unverified payload printed raw", 'print(_printable(report["payload"]), flush=True)',
         'print(report["payload"], flush=True)'),
        ("a header explained raw", '_paint(_printable(report["header"]), _YELLOW)',
         '_paint(report["header"], _YELLOW)'),
        ("a payload explained raw", '_paint(_printable(report["payload"]), _PURPLE)',
         '_paint(report["payload"], _PURPLE)'),
        ("a signing input explained raw", '_paint(_printable(report["signing_input"]), _CYAN)',
         '_paint(report["signing_input"], _CYAN)'),
        ("claims printed raw", 'json.dumps(report["claims"], indent=2)',
         'json.dumps(report["claims"], indent=2, ensure_ascii=False)'),
        ("colours in a pipe", "colors = sys.stdout and sys.stdout.isatty() and not", "colors = sys.stdout and not"),
        ("colours for those who want none", ' and not os.environ.get("NO_COLOR")', ""),
        ("no colours because of an empty NO_COLOR", 'not os.environ.get("NO_COLOR")', '"NO_COLOR" not in os.environ'),
        ("an ASCII terminal is an error", '            stream.reconfigure(errors="backslashreplace")',
         "            pass"),
        ("a key file's line end kept", 'content[:-1].removesuffix(b"\\r") if content.endswith(b"\\n") else content',
         "content"),
        ("half of a key file's line end kept", 'content[:-1].removesuffix(b"\\r")', "content[:-1]"),
        ("a carriage return that ends no line cut off",
         'content[:-1].removesuffix(b"\\r") if content.endswith(b"\\n") else content',
         'content.removesuffix(b"\\n").removesuffix(b"\\r")'),
        ("a key file stripped", "            content = file.read()\n", "            content = file.read().strip()\n"),
        ("a variable that is not set is no error", "if value is None and (given, path) != (None, None):", "if False:"),
        ("only a .env file must set it", "(given, path) != (None, None):", "path is not None:"),
        ("an empty name of a variable is none", "KEY_VARIABLE if given is None else given", "given or KEY_VARIABLE"),
        ("the environment before the .env file",
         "value = os.environ.get(name) if path is None else _assigned(path, name)",
         "value = os.environ.get(name) or (None if path is None else _assigned(path, name))"),
        ("the quotes of a .env file kept", "return value[2 if value[1] else 3]", "return value[0]"),
        ("any value of a .env file", r"""([^\s"'`#\\]*))\s*(?:#.*)?""", r"""([^\n]*))"""),
        ("a line end in a variable without a word", '    if value and value.endswith("\\n"):\n', "    if False:\n"),
        ("a terminal that waits in silence", "    if sys.stdin.isatty():\n", "    if False:\n"),
        ("a word about waiting in a pipe", "    if sys.stdin.isatty():\n", "    if True:\n"),
        ("Ctrl-C is a traceback", "    except KeyboardInterrupt:\n", "    except ZeroDivisionError:\n"),
        ("the name of an empty file not shown", '"the output" if error.filename is None',
         '"the output" if not error.filename'),
        ("without a key it is not valid", '"NOT VERIFIED: there is no key"', '"NOT VALID"'),
        ("a fault without a key is not verified", 'verdict = "NOT VALID" if code else verdict', "pass"),
        ("a broken pipe is a traceback", "    except BrokenPipeError:\n", "    except ZeroDivisionError:\n"),
        ("an infinite time is a traceback", "TypeError, ValueError, OverflowError) as error",
         "TypeError, ValueError) as error"),
        ("a closed standard input is a traceback", "    if sys.stdin is None:\n", "    if False:\n"),
        ("a zero of --now is the clock", "time.time() if arguments.now is None else arguments.now",
         "arguments.now or time.time()"),
        ("a refused token is exit status 0", '    return 0 if report["valid"] else 1\n', "    return 0\n"),
    ],
}  # fmt: skip

MUTANTS = [(room, *mistake) for room, mistakes in MISTAKES.items() for mistake in mistakes]


def tried(folder, rooms):
    """Run the tests of these rooms in `folder`; return None if all passed, else which one did not."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no",
     "--no-header",
               *(f"tests/test_minijwt_{room}.py" for room in rooms)]  # fmt: skip
    # The tests need no plugin, and to load those that are installed takes longer than the tests.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    try:
        ran = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return "the clock"
    if ran.returncode == 0:
        return None
    told = ran.stdout.decode("utf-8", "replace")
    noticed = re.search(r"^(?:FAILED|ERROR) tests/test_minijwt_(.*?)(?: - .*)?$", told, re.MULTILINE)
    return noticed.group(1) if noticed else f"pytest, exit status {ran.returncode}: {told[-300:]}"


def run(source, room):
    """Run the library's tests on `source`, those of `room` first; return None if all passed, else which one did not."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = pathlib.Path(name)
        shutil.copytree(
            TOP / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "test_server*", "bench")
        )
        (folder / "minijwt.py").write_text(source, encoding="utf-8")
        others = [other for other in ROOMS if other != room]
        return tried(folder, [room]) or tried(folder, others)


def unknown(table, known=None):
    """Return the names that nothing in this file defines: a mistake that has some is noticed as a NameError only."""
    if known is None:
        given = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
        known = given.union(dir(builtins))
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return (names - known).union(*(unknown(inner, known) for inner in table.get_children()))


def attempt(mutant):
    room, name, old, new = mutant
    if SOURCE.count(old) != 1:
        return name, False, f"cannot be placed: its text stands {SOURCE.count(old)} times in minijwt.py"
    source = SOURCE.replace(old, new)
    try:
        stale = unknown(symtable.symtable(source, "minijwt.py", "exec"))
    except SyntaxError as error:
        stale = error
    if stale:
        return name, False, f"cannot be placed: as Python it is wrong: {stale}"
    noticed = run(source, room)
    return name, noticed is not None, noticed or "SURVIVED"


def main(only=""):
    assert len({mutant[1] for mutant in MUTANTS}) == len(MUTANTS)
    if noticed := run(SOURCE, ROOMS[0]):
        print(f"mutants: the tests fail without any mistake put in, so they can show nothing: {noticed}")
        return 1
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, killed, detail in pool.map(attempt, [mutant for mutant in MUTANTS if only in mutant[1]]):
            passed, failed = passed + killed, failed + (not killed)
            print(f"{'killed' if killed else 'FAILED'}  {name:48} {detail}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
