"""Tokens, honest and hostile, as data. Each hostile one is good but for a single fault.

Nothing here was made by minijwt: HMAC is the standard library's, base64url is written out from RFC 4648, JSON is spelt by hand.
A row of a table says what is wrong, which section decides, how it is made; `Vector` is the token that comes of it,
with the arguments for `decode` and what must come of that: the claims, or exactly this class of error.
"""

import hashlib
import hmac
import json
from collections import namedtuple
from datetime import timedelta

import minijwt as jwt

KEY = "a shared secret of exactly 32 by"
OTHER_KEY = "another secret, also of 32 bytes"
NOW = 2_000_000_000  # seconds since 1970
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"  # RFC 4648 §5
LETTERS = {f"{twelve_bits:03x}": ALPHABET[twelve_bits >> 6] + ALPHABET[twelve_bits & 63] for twelve_bits in range(4096)}

Vector = namedtuple("Vector", "group name section token arguments expected")


# ---- A signer of our own ----------------------------------------------------------------------------------


def hmac_sha256(key, message):  # minijwt writes it out
    return hmac.digest(key, message, "sha256")


def base64url(raw):  # RFC 4648 §5, without padding: three hexadecimal digits are two letters
    digits = raw.hex() + "0" * (-2 * len(raw) % 3)
    letters = "".join([LETTERS[digits[at : at + 3]] for at in range(0, len(digits), 3)])
    return letters[: (len(raw) * 4 + 2) // 3]


def to_bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8")


def mac(signing_input, key=KEY):
    return base64url(hmac_sha256(to_bytes(key), to_bytes(signing_input)))


def sealed(signing_input, key=KEY):
    """Return `signing_input` with the signature that `key` gives, of the same type."""
    signature = "." + mac(signing_input, key)
    return signing_input + (signature.encode() if isinstance(signing_input, bytes) else signature)


def token(payload="{}", header='{"alg":"HS256"}', key=KEY):
    """Return the token of these two JSON texts (str or bytes), well signed, whatever they say."""
    return sealed(base64url(to_bytes(header)) + "." + base64url(to_bytes(payload)), key)


# ---- 0. Figures, copied from where they stand -------------------------------------------------------------

BASE64_FIGURES = [  # RFC 4648 §10, the padding taken off
    (b"", b""), (b"f", b"Zg"), (b"fo", b"Zm8"), (b"foo", b"Zm9v"), (b"foob", b"Zm9vYg"), (b"fooba", b"Zm9vYmE"),
    (b"foobar", b"Zm9vYmFy"),
    (bytes([3, 236, 255, 224, 193]), b"A-z_4ME"),  # RFC 7515 Appendix C
]  # fmt: skip

HMAC_FIGURES = [  # RFC 4231 §4.2 to §4.8: key, data, HMAC-SHA-256 (of case 5 its first 128 bits)
    ("0b" * 20, "4869205468657265", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    ("4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    ("aa" * 20, "dd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    ("0102030405060708090a0b0c0d0e0f10111213141516171819", "cd" * 50,
     "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ("0c" * 20, "546573742057697468205472756e636174696f6e", "a3b6167473100ee06e0c796c2955552b"),
    ("aa" * 131, "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d2048617368204b6579"
     "204669727374", "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    ("aa" * 131, "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b2d73697a65206b6579"
     "20616e642061206c6172676572207468616e20626c6f636b2d73697a6520646174612e20546865206b6579206e656564732074"
     "6f20626520686173686564206265666f7265206265696e6720757365642062792074686520484d414320616c676f726974686d2e",
     "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
]  # fmt: skip

# RFC 7515 Appendix A.1: a token whose JSON has line ends and spaces in it, and the octets of its key.
RFC7515_TOKEN = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
RFC7515_KEY = bytes([
    3, 35, 53, 75, 43, 15, 165, 188, 131, 126, 6, 101, 119, 123, 166, 143, 90, 179, 40, 230, 240, 84, 201, 40, 169, 15,
    132, 178, 210, 80, 46, 191, 211, 251, 90, 146, 210, 6, 71, 239, 150, 138, 180, 195, 119, 98, 61, 34, 61, 46, 33,
    114, 5, 46, 79, 8, 192, 205, 154, 245, 103, 208, 128, 163,
])  # fmt: skip
RFC7515_CLAIMS = {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}


# ---- 1. Structure -----------------------------------------------------------------------------------------

GOOD = token('{"sub":"admin"}')
HEAD, BODY, SEAL = GOOD.split(".")
GOOD_CLAIMS = {"sub": "admin"}

STRUCTURE = [  # all of them DecodeError
    ("nothing", "RFC 7515 §7.1", ""),
    ("no bytes", "RFC 7515 §7.1", b""),
    ("no dot", "RFC 7515 §7.1", HEAD + BODY + SEAL),
    ("one dot", "RFC 7515 §7.1", HEAD + "." + BODY),
    ("one dot, then signed", "RFC 7515 §7.1", HEAD + "." + mac(HEAD)),
    ("three dots", "RFC 7515 §7.1", GOOD + "." + SEAL),
    ("a dot at the end", "RFC 7515 §7.1", GOOD + "."),
    ("a dot at the start", "RFC 7515 §7.1", "." + GOOD),
    ("two dots between", "RFC 7515 §7.1", HEAD + ".." + BODY + "." + SEAL),
    ("a dot within the signed part", "RFC 7515 §7.1", sealed(HEAD + "." + BODY[:4] + "." + BODY[4:])),
    ("only the dots", "RFC 7515 §7.1", ".."),
    ("three dots only", "RFC 7515 §7.1", "..."),
    ("no header", "RFC 7515 §4", sealed("." + BODY)),
    ("no payload", "RFC 7519 §7.2", sealed(HEAD + ".")),
    ("twice the token", "RFC 7515 §7.1", GOOD + GOOD),
    ("five parts, a JWE", "RFC 7516 §7.1", ".".join([HEAD, "", BODY, BODY, SEAL])),
    ("a dot from another script", "RFC 7515 §7.1", GOOD.replace(".", "\u3002")),
    ("percent-encoded dots", "RFC 7515 §7.1", GOOD.replace(".", "%2E")),
    ("JSON serialization", "RFC 7519 §1", f'{{"protected":"{HEAD}","payload":"{BODY}","signature":"{SEAL}"}}'),
    ("in quotes", "RFC 7515 §7.1", f'"{GOOD}"'),
    ("with its scheme", "RFC 6750 §2.1", "Bearer " + GOOD),
    ("a space before", "RFC 7515 §2", " " + GOOD),
    ("a byte order mark before", "RFC 7515 §2", "\ufeff" + GOOD),
    ("a byte order mark before, bytes", "RFC 7515 §2", b"\xef\xbb\xbf" + GOOD.encode()),
    ("NUL before", "RFC 7515 §2", "\0" + GOOD),
    ("UTF-16", "RFC 7515 §7.1", GOOD.encode("utf-16-le")),
    ("a lone surrogate", "RFC 7515 §7.1", GOOD + "\ud800"),
    ("cut into a list", "RFC 7515 §7.1", GOOD.split(".")),
    *(
        (f"not a text: {type(thing).__name__}", "RFC 7515 §7.1", thing)
        for thing in (None, True, 0, 1.5, [], {}, (), object(), bytearray(GOOD.encode()), memoryview(GOOD.encode()))
    ),
]  # fmt: skip

# ---- 2. base64url -----------------------------------------------------------------------------------------
# Every fault in each of the three segments. Signed as it stands, so nothing but the spelling is wrong. Each segment
# holds a letter that base64 spells differently, and ends in bits that must be zero.

WIDE_HEADER = '{"alg":"HS256","kid":"???>>>"}  '
WIDE_PAYLOAD = '{"sub":"admin", "q":"???>>>"}  '


def _restyled(segment):
    return segment.replace("-", "+").replace("_", "/")


def _stray(segment):
    """Set the last bit, which stands for nothing: lenient readers decode it to the same bytes."""
    return segment[:-1] + ALPHABET[ALPHABET.index(segment[-1]) + 1]


BASE64URL = [  # name, section, what is done to a segment
    ("padding", "RFC 7515 §2", lambda s: s + "=" * (-len(s) % 4)),
    ("one =", "RFC 7515 §2", lambda s: s + "="),
    ("two =", "RFC 7515 §2", lambda s: s + "=="),
    ("four =", "RFC 7515 §2", lambda s: s + "===="),
    ("= before", "RFC 7515 §2", lambda s: "=" + s),
    ("= within", "RFC 7515 §2", lambda s: s[:8] + "=" + s[8:]),
    ("padding, then more", "RFC 4648 §3.3", lambda s: s + "==" + s),
    ("percent-encoded padding", "RFC 7515 §2", lambda s: s + "%3D"),
    ("the alphabet of base64", "RFC 4648 §5", _restyled),
    ("stray bits", "RFC 4648 §3.5", _stray),
    ("one letter too many", "RFC 4648 §4", lambda s: s[: len(s) // 4 * 4] + "A"),
    ("a single letter", "RFC 4648 §4", lambda s: "A"),
    ("+ within", "RFC 4648 §5", lambda s: s[:4] + "+" + s[4:]),
    ("/ within", "RFC 4648 §5", lambda s: s[:4] + "/" + s[4:]),
    ("a space before", "RFC 7515 §2", lambda s: " " + s),
    ("a space within", "RFC 7515 §2", lambda s: s[:8] + " " + s[8:]),
    ("a space at the end", "RFC 7515 §2", lambda s: s + " "),
    ("a line end before", "RFC 7515 §2", lambda s: "\n" + s),
    ("a line end within", "RFC 7515 §2", lambda s: s[:8] + "\n" + s[8:]),
    ("a final newline", "RFC 7515 §2", lambda s: s + "\n"),
    ("a final CRLF", "RFC 7515 §2", lambda s: s + "\r\n"),
    ("a carriage return", "RFC 7515 §2", lambda s: s[:8] + "\r" + s[8:]),
    ("a tab", "RFC 7515 §2", lambda s: s[:8] + "\t" + s[8:]),
    ("a form feed", "RFC 7515 §2", lambda s: s[:8] + "\f" + s[8:]),
    ("a NUL", "RFC 4648 §3.3", lambda s: s[:8] + "\0" + s[8:]),
    ("a NUL at the end", "RFC 4648 §3.3", lambda s: s + "\0"),
    ("an escape", "RFC 4648 §3.3", lambda s: s[:8] + "\x1b[2J" + s[8:]),
    ("a DEL", "RFC 4648 §3.3", lambda s: s + "\x7f"),
    ("a tilde", "RFC 4648 §3.3", lambda s: s + "~"),
    ("an exclamation mark", "RFC 4648 §3.3", lambda s: s[:8] + "!" + s[8:]),
    ("a comma", "RFC 4648 §3.3", lambda s: s[:8] + "," + s[8:]),
    ("a percent sign", "RFC 4648 §3.3", lambda s: s[:8] + "%41" + s[8:]),
    ("a backslash", "RFC 4648 §3.3", lambda s: s[:8] + "\\" + s[8:]),
]
UNICODE = [
    ("a letter with an accent", "RFC 7515 §2", lambda s: s[:8] + "\u00e9" + s[8:]),
    ("a space that does not break", "RFC 7515 §2", lambda s: s + "\u00a0"),
    ("a letter of full width", "RFC 7515 §2", lambda s: s[:8] + "\uff21" + s[8:]),
    ("a space of no width", "RFC 7515 §2", lambda s: s[:8] + "\u200b" + s[8:]),
    ("an emoji", "RFC 7515 §2", lambda s: s + "\U0001f511"),
]


def _spellings():
    good = token(WIDE_PAYLOAD, WIDE_HEADER).split(".")
    for name, section, spoil in BASE64URL + UNICODE:
        for place, where in enumerate(("header", "payload", "signature")):
            parts = good[:place] + [spoil(good[place])] + good[place + 1 :]
            bad = ".".join(parts) if where == "signature" else sealed(".".join(parts[:2]))
            # The signature is compared in its one spelling, so another one is not the signature.
            error = jwt.InvalidSignatureError if where == "signature" and bad.isascii() else jwt.DecodeError
            yield Vector("base64url", f"{name}, {where}", section, bad, {}, error)
            yield Vector("base64url", f"{name}, {where}, bytes", section, bad.encode(), {}, error)
    for place, where in enumerate(("header", "payload", "signature")):
        for byte in (b"\x80", b"\xff", b"\xc3"):
            parts = [part.encode() for part in good]
            parts[place] = parts[place][:8] + byte + parts[place][8:]
            bad = b".".join(parts) if where == "signature" else sealed(b".".join(parts[:2]))
            yield Vector("base64url", f"byte {byte.hex()}, {where}", "RFC 7515 §7.1", bad, {}, jwt.DecodeError)


# ---- 3. JSON ----------------------------------------------------------------------------------------------
# Every fault in the header and in the payload. %s stands for the member that makes the rest good.

JSON = [
    ("a name twice", "RFC 7519 §4", '{%s,"a":1,"a":2}'),
    ("a name twice, the same value", "RFC 7519 §4", '{%s,"a":1,"a":1}'),
    ("a name twice, null first", "RFC 7519 §4", '{%s,"a":null,"a":1}'),
    ("the good member twice", "RFC 7519 §4", "{%s,%s}"),
    ("a name twice, once escaped", "RFC 7519 §4", '{%s,"a":1,"\\u0061":2}'),
    ("the empty name twice", "RFC 7519 §4", '{%s,"":1,"":2}'),
    ("a name twice, inside", "RFC 8259 §4", '{%s,"a":{"b":1,"b":2}}'),
    ("a name twice, in an array", "RFC 8259 §4", '{%s,"a":[{"b":1,"b":2}]}'),
    ("a name twice, deep", "RFC 8259 §4", '{%s,"a":[[{"b":{"c":1,"d":2,"c":3}}]]}'),
    ("NaN", "RFC 8259 §6", '{%s,"a":NaN}'),
    ("Infinity", "RFC 8259 §6", '{%s,"a":Infinity}'),
    ("-Infinity", "RFC 8259 §6", '{%s,"a":-Infinity}'),
    ("NaN inside", "RFC 8259 §6", '{%s,"a":[{"b":NaN}]}'),
    ("1e309", "RFC 8259 §6", '{%s,"a":1e309}'),
    ("-1e309", "RFC 8259 §6", '{%s,"a":-1e309}'),
    ("1e309 inside", "RFC 8259 §6", '{%s,"a":[0,[1e309]]}'),
    ("1E99999", "RFC 8259 §6", '{%s,"a":1E99999}'),
    ("a fraction too large", "RFC 8259 §6", '{%s,"a":' + "9" * 400 + ".5}"),
    ("an integer of 309 digits", "RFC 8259 §6", '{%s,"a":' + "9" * 309 + "}"),
    ("an integer of 309 digits, negative", "RFC 8259 §6", '{%s,"a":-' + "1" * 309 + "}"),
    ("an integer of 309 digits, inside", "RFC 8259 §6", '{%s,"a":[' + "1" * 309 + "]}"),
    ("an integer of 4,300 digits", "RFC 8259 §6", '{%s,"a":' + "9" * 4_300 + "}"),
    ("an integer of 4,301 digits", "RFC 8259 §6", '{%s,"a":' + "9" * 4_301 + "}"),
    ("an integer of 40,000 digits", "RFC 8259 §6", '{%s,"a":' + "9" * 40_000 + "}"),
    ("a lone high surrogate", "RFC 8259 §8.2", '{%s,"a":"\\ud800"}'),
    ("a lone low surrogate", "RFC 8259 §8.2", '{%s,"a":"\\uDC00"}'),
    ("a pair the wrong way round", "RFC 8259 §8.2", '{%s,"a":"\\udc00\\ud800"}'),
    ("two high surrogates", "RFC 8259 §8.2", '{%s,"a":"\\ud83d\\ud83d"}'),
    ("half a pair, then a letter", "RFC 8259 §8.2", '{%s,"a":"\\ud83dA"}'),
    ("a lone surrogate in a name", "RFC 8259 §8.2", '{%s,"\\ud800":1}'),
    ("a lone surrogate inside", "RFC 8259 §8.2", '{%s,"a":[{"b":["\\ud800"]}]}'),
    ("text after", "RFC 8259 §2", "{%s}x"),
    ("another object after", "RFC 8259 §2", "{%s}{}"),
    ("another object on the next line", "RFC 8259 §2", "{%s}\n{}"),
    ("a comma after", "RFC 8259 §2", "{%s},"),
    ("a brace after", "RFC 8259 §2", "{%s}}"),
    ("NUL after", "RFC 8259 §2", "{%s}\0"),
    ("text before", "RFC 8259 §2", "x{%s}"),
    ("NUL before", "RFC 8259 §2", "\0{%s}"),
    ("a guard before", "RFC 8259 §2", ")]}',\n{%s}"),
    ("a vertical tab after", "RFC 8259 §2", "{%s}\v"),
    ("a form feed before", "RFC 8259 §2", "\f{%s}"),
    ("a space that does not break, before", "RFC 8259 §2", "\u00a0{%s}"),
    ("a space that does not break, within", "RFC 8259 §2", '{%s,\u00a0"a":1}'),
    ("a line separator after", "RFC 8259 §2", "{%s}\u2028"),
    ("a file separator after", "RFC 8259 §2", "{%s}\x1c"),
    ("a next-line character after", "RFC 8259 §2", "{%s}\x85"),
    ("a byte order mark", "RFC 8259 §8.1", "\ufeff{%s}"),
    ("a byte order mark after a space", "RFC 8259 §8.1", " \ufeff{%s}"),
    ("a byte order mark at the end", "RFC 8259 §8.1", "{%s}\ufeff"),
    ("a comma too many", "RFC 8259 §4", "{%s,}"),
    ("a comma too many, in an array", "RFC 8259 §5", '{%s,"a":[1,]}'),
    ("a comma missing", "RFC 8259 §4", '{%s "a":1}'),
    ("a colon missing", "RFC 8259 §4", '{%s,"a" 1}'),
    ("a value missing", "RFC 8259 §4", '{%s,"a":}'),
    ("a name alone", "RFC 8259 §4", '{%s,"a"}'),
    ("a name without quotes", "RFC 8259 §4", "{%s,a:1}"),
    ("a number as a name", "RFC 8259 §4", "{%s,1:1}"),
    ("null as a name", "RFC 8259 §4", "{%s,null:1}"),
    ("single quotes", "RFC 8259 §7", "{%s,'a':1}"),
    ("a comment", "RFC 8259 §2", "{%s/* */}"),
    ("a comment to the line's end", "RFC 8259 §2", "{%s//\n}"),
    ("a comment with #", "RFC 8259 §2", "{%s#\n}"),
    ("True", "RFC 8259 §3", '{%s,"a":True}'),
    ("None", "RFC 8259 §3", '{%s,"a":None}'),
    ("nul", "RFC 8259 §3", '{%s,"a":nul}'),
    ("undefined", "RFC 8259 §3", '{%s,"a":undefined}'),
    ("hexadecimal", "RFC 8259 §6", '{%s,"a":0x10}'),
    ("a leading zero", "RFC 8259 §6", '{%s,"a":010}'),
    ("a leading zero, negative", "RFC 8259 §6", '{%s,"a":-01}'),
    ("a plus", "RFC 8259 §6", '{%s,"a":+1}'),
    ("a minus alone", "RFC 8259 §6", '{%s,"a":-}'),
    ("no digit before the point", "RFC 8259 §6", '{%s,"a":.5}'),
    ("no digit after the point", "RFC 8259 §6", '{%s,"a":5.}'),
    ("no digit after the e", "RFC 8259 §6", '{%s,"a":5e}'),
    ("underscores in a number", "RFC 8259 §6", '{%s,"a":1_000}'),
    ("digits of another script", "RFC 8259 §6", '{%s,"a":\u0661\u0662}'),
    ("digits of another script after ours", "RFC 8259 §6", '{%s,"a":1\u0662}'),
    ("a line end in a string", "RFC 8259 §7", '{%s,"a":"\n"}'),
    ("a tab in a string", "RFC 8259 §7", '{%s,"a":"\t"}'),
    ("NUL in a string", "RFC 8259 §7", '{%s,"a":"\0"}'),
    ("a control character in a string", "RFC 8259 §7", '{%s,"a":"\x1f"}'),
    ("a control character in a name", "RFC 8259 §7", '{%s,"\x01":1}'),
    ("an unknown escape", "RFC 8259 §7", '{%s,"a":"\\x41"}'),
    ("an escaped quote from C", "RFC 8259 §7", '{%s,"a":"\\\'"}'),
    ("a short \\u", "RFC 8259 §7", '{%s,"a":"\\u12"}'),
    ("a \\u with letters", "RFC 8259 §7", '{%s,"a":"\\uZZZZ"}'),
    ("a \\u with a sign", "RFC 8259 §7", '{%s,"a":"\\u+041"}'),
    ("a \\u with an underscore", "RFC 8259 §7", '{%s,"a":"\\u0_41"}'),
    ("a \\u with a space", "RFC 8259 §7", '{%s,"a":"\\u 041"}'),
    ("a string without end", "RFC 8259 §7", '{%s,"a":"'),
    ("an object without end", "RFC 8259 §4", "{%s"),
    ("an array without end", "RFC 8259 §5", '{%s,"a":[1'),
    ("closed by the wrong one", "RFC 8259 §4", "{%s]"),
    ("an object in an array", "RFC 7515 §4", "[{%s}]"),
    ("33 levels of arrays", "RFC 8259 §9", '{%s,"a":' + "[" * 32 + "]" * 32 + "}"),
    ("33 levels of objects", "RFC 8259 §9", '{%s,"a":' + '{"a":' * 31 + "{}" + "}" * 31 + "}"),
    ("33 levels, a value at the bottom", "RFC 8259 §9", '{%s,"a":' + "[" * 32 + "1" + "]" * 32 + "}"),
    ("33 levels, the second member", "RFC 8259 §9", '{%s,"b":[],"a":' + "[" * 32 + "]" * 32 + "}"),
    ("1,000 levels", "RFC 8259 §9", '{%s,"a":' + "[" * 1_000 + "]" * 1_000 + "}"),
    ("10,000 levels", "RFC 8259 §9", '{%s,"a":' + "[" * 10_000 + "]" * 10_000 + "}"),
    ("40,000 levels without end", "RFC 8259 §9", '{%s,"a":' + "[" * 40_000),
    ("5,000 objects without end", "RFC 8259 §9", '{%s,"a":' + '{"a":' * 5_000),
]  # fmt: skip
if json.scanner.c_make_scanner is None:  # the standard library's other reader, PyPy's, has int() look at these
    _LENIENT = ("digits of another script after", "a \\u with a sign", "a \\u with an underscore", "a \\u with a space")
    JSON = [text for text in JSON if not text[0].startswith(_LENIENT)]

JSON_BYTES = [  # as above, where the fault is in the bytes
    ("Latin-1", "RFC 8259 §8.1", b'{%s,"a":"\xe9"}'),
    ("the byte 80", "RFC 3629 §3", b'{%s,"a":"\x80"}'),
    ("the byte FF", "RFC 3629 §3", b'{%s,"a":"\xff"}'),
    ("the byte FF after", "RFC 3629 §3", b"{%s}\xff"),
    ("a slash in two bytes", "RFC 3629 §10", b'{%s,"a":"\xc0\xaf"}'),
    ("NUL in two bytes", "RFC 3629 §10", b'{%s,"a":"\xc0\x80"}'),
    ("a quote in two bytes", "RFC 3629 §10", b'{%s,"a":\xc0\xa2\xc0\xa2}'),
    ("a slash in three bytes", "RFC 3629 §10", b'{%s,"a":"\xe0\x80\xaf"}'),
    ("a surrogate in bytes", "RFC 3629 §3", b'{%s,"a":"\xed\xa0\x80"}'),
    ("a pair of surrogates in bytes", "RFC 3629 §3", b'{%s,"a":"\xed\xa0\xbd\xed\xb8\x80"}'),
    ("beyond U+10FFFF", "RFC 3629 §3", b'{%s,"a":"\xf4\x90\x80\x80"}'),
    ("five bytes", "RFC 3629 §3", b'{%s,"a":"\xf8\x88\x80\x80\x80"}'),
    ("a character cut off", "RFC 3629 §3", b'{%s,"a":"\xe2\x82"}'),
    ("bad bytes in a name", "RFC 3629 §3", b'{%s,"\xff":1}'),
]
JSON_ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"]

NOT_OBJECTS = [  # RFC 7515 §4, RFC 7519 §7.2
    "", " ", "\n", "null", "true", "false", "0", "-1", "1.5", '""', '"{}"', '"text"', "[]", "[[]]", '[["alg","HS256"]]',
    "{", "}", '"', "\0", "NaN", "alg=HS256", "<alg>HS256</alg>",
]  # fmt: skip

HONEST_JSON = [  # text after the good member, what it says
    ("nothing more", "", {}),
    ("white space of all four kinds", ' \t\r\n,\n"a" :\t1\r\n ', {"a": 1}),
    ("each escape", r',"a":"\"\\\/\b\f\n\r\t"', {"a": '"\\/\b\f\n\r\t'}),
    ("NUL, escaped", r',"a":"\u0000"', {"a": "\0"}),
    ("a pair of surrogates", r',"a":"\ud83d\uDE00"', {"a": "\U0001f600"}),
    ("the same in UTF-8", ',"a":"\U0001f600"', {"a": "\U0001f600"}),
    ("a pair in a name", r',"\ud83d\ude00":1', {"\U0001f600": 1}),
    ("\\u in an escaped backslash", r',"a":"\\ud800"', {"a": "\\ud800"}),
    ("noncharacters", ',"a":"\uffff\ufdd0\U0010ffff"', {"a": "\uffff\ufdd0\U0010ffff"}),
    ("a byte order mark inside", ',"a":"\ufeff"', {"a": "\ufeff"}),
    ("DEL", ',"a":"\x7f"', {"a": "\x7f"}),
    ("the empty name", ',"":0', {"": 0}),
    ("names that differ in case", ',"a":1,"A":2', {"a": 1, "A": 2}),
    ("names that differ in normal form", ',"\u00e9":1,"e\u0301":2', {"\u00e9": 1, "e\u0301": 2}),
    ("the same name in two objects", ',"a":{"b":1},"c":{"b":2}', {"a": {"b": 1}, "c": {"b": 2}}),
    ("all the literals", ',"a":[true,false,null]', {"a": [True, False, None]}),
    ("a fraction", ',"a":-0.5', {"a": -0.5}),
    ("an exponent", ',"a":[1e2,1E+2,1e-2]', {"a": [100.0, 100.0, 0.01]}),
    ("the largest double", ',"a":1.7976931348623157e308', {"a": 1.7976931348623157e308}),
    ("too small for a double", ',"a":1e-999', {"a": 0.0}),
    ("308 digits", ',"a":' + "9" * 308, {"a": int("9" * 308)}),
    ("308 digits, negative", ',"a":-' + "9" * 308, {"a": -int("9" * 308)}),
    ("309 digits in a string", ',"a":"' + "9" * 309 + '"', {"a": "9" * 309}),
    ("NaN in a string", ',"a":"NaN"', {"a": "NaN"}),
    ("braces in a string", ',"a":"' + "{[" * 50 + '"', {"a": "{[" * 50}),
    ("fifty objects side by side", ',"a":[' + ",".join(["{}"] * 50) + "]", {"a": [{}] * 50}),
]


def _nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


HONEST_JSON.append(("32 levels", ',"a":' + "[" * 31 + "]" * 31, {"a": _nested(31)}))

ALG, SUB = '"alg":"HS256"', '"sub":"admin"'


def _json():
    for name, section, text in JSON:
        yield Vector("json", f"{name}, header", section, token(header=text.replace("%s", ALG)), {}, jwt.DecodeError)
        yield Vector("json", f"{name}, payload", section, token(text.replace("%s", SUB)), {}, jwt.DecodeError)
    for name, section, text in JSON_BYTES:
        header, payload = (text.replace(b"%s", member.encode()) for member in (ALG, SUB))
        yield Vector("json", f"{name}, header", section, token(header=header), {}, jwt.DecodeError)
        yield Vector("json", f"{name}, payload", section, token(payload), {}, jwt.DecodeError)
    for coding in JSON_ENCODINGS:
        header, payload = (("{%s}" % member).encode(coding) for member in (ALG, SUB))
        yield Vector("json", f"{coding}, header", "RFC 8259 §8.1", token(header=header), {}, jwt.DecodeError)
        yield Vector("json", f"{coding}, payload", "RFC 8259 §8.1", token(payload), {}, jwt.DecodeError)
    for text in NOT_OBJECTS:
        yield Vector("json", f"{text!r}, header", "RFC 7515 §4", token(header=text), {}, jwt.DecodeError)
        yield Vector("json", f"{text!r}, payload", "RFC 7519 §7.2", token(text), {}, jwt.DecodeError)
    for name, text, says in HONEST_JSON:
        good = token("{%s%s}" % (SUB, text))
        yield Vector("json", f"{name}, good payload", "RFC 8259", good, {}, {**GOOD_CLAIMS, **says})
        yield Vector("json", f"{name}, good header", "RFC 8259", token(header="{%s%s}" % (ALG, text)), {}, {})
    yield Vector("json", "white space around", "RFC 8259 §2", token(" \t\r\n{} \t\r\n", "\n{%s}\n" % ALG), {}, {})


# ---- 4. Header --------------------------------------------------------------------------------------------

ANY = ["null", "true", "false", "0", "1", "-1.5", '""', '"x"', "[]", '["x"]', "{}", '{"x":1}']
NO_STRING = ["null", "true", "false", "0", "1", "-1.5", "[]", '["x"]', "{}", '{"x":1}']
IGNORED = [  # RFC 7515 §4: what is not understood must be ignored; RFC 8725 §3.10: nothing here fetches or chooses
    '"jku":"https://evil.example/keys"', '"x5u":"https://evil.example/cert"', '"jku":0', '"x5c":["MIIB"]', '"x5t":"x"',
    '"x5t#S256":"x"', f'"jwk":{{"kty":"oct","k":"{base64url(OTHER_KEY.encode())}"}}', '"jwk":null', '"kid":""',
    '"kid":"../../../../dev/null"', '"kid":"\' OR 1=1 --"', '"kid":"|/bin/true"', '"typ":""', '"typ":"jwt"',
    '"typ":"JWT"',
    '"typ":"at+jwt"', '"typ":"JOSE"', '"cty":"JWT"', '"zip":"DEF"', '"enc":"A128GCM"', '"p2c":2147483647', '"epk":{}',
    '"b64":true', '"Crit":["x"]', '"CRIT":["x"]', '"B64":false', '"exp":1', '"nbf":9e99', '"iss":[]', '"":null',
    '"__proto__":{"alg":"none"}', '"ALG":"none"',
]  # fmt: skip


def _headers():
    def bad(member, section):
        return Vector("header", member, section, token(header="{%s,%s}" % (ALG, member)), {}, jwt.DecodeError)

    for value in NO_STRING:
        yield bad(f'"kid":{value}', "RFC 7515 §4.1.4")
        yield bad(f'"typ":{value}', "RFC 7515 §4.1.9")
        yield bad(f'"cty":{value}', "RFC 7515 §4.1.10")
    for value in [*ANY, '["exp"]', '["b64"]', '["alg"]', '["x","x"]', '["http://example.invalid/UNDEFINED"]']:
        yield bad(f'"crit":{value}', "RFC 7515 §4.1.11")
    yield bad('"crit":["b64"],"b64":true', "RFC 7515 §4.1.11")
    yield bad('"crit":["b64"],"b64":false', "RFC 7797 §6")
    for value in [value for value in ANY if value != "true"]:
        yield bad(f'"b64":{value}', "RFC 7797 §3")
    for member in IGNORED:
        good = token('{"sub":"admin"}', "{%s,%s}" % (ALG, member))
        yield Vector("header", f"{member} ignored", "RFC 7515 §4", good, {}, GOOD_CLAIMS)
    # A key that the token brings along, or points to, is not ours.
    for member in IGNORED:
        forged = token('{"sub":"admin"}', "{%s,%s}" % (ALG, member), key=OTHER_KEY)
        yield Vector("header", f"{member} forged", "RFC 8725 §3.10", forged, {}, jwt.InvalidSignatureError)
    unsigned = token('{"sub":"admin"}', '{"alg":"HS256","kid":"/dev/null"}', key="")
    yield Vector("header", "signed with the empty key", "RFC 8725 §3.10", unsigned, {}, jwt.InvalidSignatureError)


# ---- 5. Algorithm -----------------------------------------------------------------------------------------

WRONG_ALG = [  # RFC 8725 §3.1; JSON texts. Every one of these is signed with HS256 and the right key
    *(f'"{name}"' for name in (
        "none", "None", "NONE", "nOnE", "", " ", "hs256", "Hs256", "HS256 ", " HS256", "HS384", "HS512", "HS1", "RS256",
        "RS512", "PS256", "ES256", "ES256K", "EdDSA", "Ed25519", "dir", "A256KW", "RSA-OAEP", "PBES2-HS256+A128KW",
        "HS",
        "256", "S256", "HS25", "HS2567", "HS256,none", "HS256/RS256", "HMAC-SHA256", "SHA256", "*",
        "\uff28\uff33\uff12\uff15\uff16", "\u041dS256", "HS256\u200b", r"HS256\n", r"HS256\u0000", r"\u0000HS256",
    )),
    "null", "true", "false", "0", "256", "[]", '["HS256"]', '["HS256","none"]', "{}", '{"HS256":true}',
]  # fmt: skip

NO_ALG = ["{}", '{"typ":"JWT"}', '{"ALG":"HS256"}', '{"Alg":"HS256"}', '{" alg":"HS256"}', '{"alg\\u0000":"HS256"}',
          '{"header":{"alg":"HS256"}}']  # fmt: skip

ALGORITHMS = [  # what the caller allows
    (["HS256"], GOOD_CLAIMS), (("HS256",), GOOD_CLAIMS), ({"HS256"}, GOOD_CLAIMS), (frozenset(["HS256"]), GOOD_CLAIMS),
    ({"HS256": None}, GOOD_CLAIMS), ("HS256", GOOD_CLAIMS), (["RS256", "HS256"], GOOD_CLAIMS),
    (["HS256", "none"], GOOD_CLAIMS),
    ([], jwt.DecodeError), ((), jwt.DecodeError), (set(), jwt.DecodeError), (None, jwt.DecodeError),
    (["RS256"], jwt.InvalidAlgorithmError), (["hs256"], jwt.InvalidAlgorithmError), (["none"],
     jwt.InvalidAlgorithmError),
    (["HS2567"], jwt.InvalidAlgorithmError), ([""], jwt.InvalidAlgorithmError), ([None], jwt.InvalidAlgorithmError),
    ("HS2567", jwt.InvalidAlgorithmError), ("XHS256", jwt.InvalidAlgorithmError), ("HS25", jwt.InvalidAlgorithmError),
    ("HS256 RS256", jwt.InvalidAlgorithmError), ("HS256,RS256", jwt.InvalidAlgorithmError),
    ("none", jwt.InvalidAlgorithmError), ("RS256", jwt.InvalidAlgorithmError),
]  # fmt: skip


def _algorithms():
    for value in WRONG_ALG:
        wrong = token('{"sub":"admin"}', '{"alg":%s}' % value)
        unsigned = wrong.rpartition(".")[0] + "."
        yield Vector("algorithm", value, "RFC 8725 §3.1", wrong, {}, jwt.InvalidAlgorithmError)
        yield Vector("algorithm", f"{value}, unsigned", "RFC 8725 §3.2", unsigned, {}, jwt.InvalidAlgorithmError)
    for header in NO_ALG:
        without = token('{"sub":"admin"}', header)
        yield Vector("algorithm", f"absent: {header}", "RFC 7515 §4.1.1", without, {}, jwt.InvalidAlgorithmError)
    for allowed, expected in ALGORITHMS:
        yield Vector("algorithm", f"allowed: {allowed!r}", "RFC 8725 §3.1", GOOD, {"algorithms": allowed}, expected)
    for name in ("none", "None", "RS256", "HS512"):  # allowing it does not make it so
        listed = token("{}", '{"alg":"%s"}' % name)
        for bad in (listed, listed.rpartition(".")[0] + "."):
            yield Vector("algorithm", f"{name} although allowed, {len(bad)}", "RFC 8725 §3.2", bad,
                         {"algorithms": [name, "HS256"]}, jwt.InvalidAlgorithmError)  # fmt: skip


# ---- 6. Signature and key ---------------------------------------------------------------------------------

SIGNATURE = [  # all of them InvalidSignatureError (RFC 7515 §5.2)
    ("none", ""),
    ("another key", mac(f"{HEAD}.{BODY}", OTHER_KEY)),
    ("another payload", mac(f"{HEAD}.{BODY}x")),
    ("of the payload alone", mac(BODY)),
    ("of the header alone", mac(HEAD)),
    ("of the payload with the dot missing", mac(HEAD + BODY)),
    ("of the raw bytes", mac('{"alg":"HS256"}.{"sub":"admin"}')),
    ("without key", base64url(hashlib.sha256(f"{HEAD}.{BODY}".encode()).digest())),
    ("key before text, no HMAC", base64url(hashlib.sha256(f"{KEY}{HEAD}.{BODY}".encode()).digest())),
    ("in hexadecimal", hmac_sha256(KEY.encode(), f"{HEAD}.{BODY}".encode()).hex()),
    ("its hexadecimal in base64url", base64url(hmac_sha256(KEY.encode(), f"{HEAD}.{BODY}".encode()).hex().encode())),
    ("cut off by a letter", SEAL[:-1]),
    ("cut in half", SEAL[:22]),
    ("its first letter", SEAL[:1]),
    ("a letter more", SEAL + "A"),
    ("twice", SEAL + SEAL),
    ("in upper case", SEAL.upper()),
    ("in lower case", SEAL.lower()),
    ("reversed", SEAL[::-1]),
    ("all A", "A" * 43),
    ("the first letter changed", ("A" if SEAL[0] != "A" else "B") + SEAL[1:]),
    ("the last letter changed", SEAL[:-1] + ("A" if SEAL[-1] != "A" else "E")),
]  # fmt: skip

SAME_KEY = [  # name, section, a key that is the same to HMAC
    ("bytes", "RFC 2104 §2", KEY.encode()),
    ("zeros appended", "RFC 2104 §2", KEY + "\0"),
]
OTHER_KEYS = [
    ("another", OTHER_KEY), ("a newline more", KEY + "\n"), ("a space before", " " + KEY), ("in upper case",
     KEY.upper()),
    ("twice", KEY + KEY), ("in hexadecimal", KEY.encode().hex()), ("a zero before", "\0" + KEY), ("reversed",
     KEY[::-1]),
]  # fmt: skip

PEM_BODY = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"
PUBLISHED_KEYS = [  # RFC 8725 §2.1: a public key taken for a shared secret is a secret that everybody has
    *((f"PEM, {label}", f"-----BEGIN {label}-----\n{PEM_BODY}\n-----END {label}-----\n") for label in (
        "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "PKCS7")),
    ("PEM after a line", f"subject=/CN=example\n-----BEGIN CERTIFICATE-----\n{PEM_BODY}\n"),
    ("PEM after white space", f"\n\t -----BEGIN PUBLIC KEY-----\n{PEM_BODY}\n"),
    ("PEM on one line", f"-----BEGIN PUBLIC KEY-----{PEM_BODY}-----END PUBLIC KEY-----"),
    ("PEM with CRLF", f"-----BEGIN PUBLIC KEY-----\r\n{PEM_BODY}\r\n"),
    ("PEM with \\n spelt out", f"-----BEGIN PUBLIC KEY-----\\n{PEM_BODY}\\n"),
    ("PEM after a byte order mark", f"\ufeff-----BEGIN PUBLIC KEY-----\n{PEM_BODY}\n"),
    ("PEM inside JSON", f'{{"key":"-----BEGIN PUBLIC KEY-----\\n{PEM_BODY}"}}'),
    ("PEM after other bytes", b"\x00\xff\xfe" * 20 + b"-----BEGIN PUBLIC KEY-----\n"),
    ("SSH2", f'---- BEGIN SSH2 PUBLIC KEY ----\nComment: "x"\n{PEM_BODY}\n'),
    *((f"SSH, {kind}",
     f"{kind} AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here") for kind in (
        "ssh-rsa", "ssh-dss", "ssh-ed25519", "ssh-ed448", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "ssh-rsa-cert-v01@openssh.com",
        "ssh-ed25519-cert-v01@openssh.com", "ecdsa-sha2-nistp256-cert-v01@openssh.com")),
    ("SSH after white space", "\n  ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ me@here"),
    ("SSH with a tab", "ssh-rsa\tAAAAB3NzaC1yc2EAAAADAQABAAABAQ\tme@here"),
    ("SSH as bytes", b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoq\n"),
    ("JWK, RSA", '{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4","e":"AQAB"}'),
    ("JWK, EC", '{"crv":"P-256","kty":"EC","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"}'),
    ("JWK, OKP", '{ "kty" : "OKP", "crv" : "Ed25519", "x" : "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }'),
    ("JWK, oct", '{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUu"}'),
    ("JWK, name escaped", '{"k\\u0074y":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4"}'),
    ("JWK, name escaped, after a long number", '{"n":%s,"k\\u0074y":"RSA"}' % ("7" * 5_000)),
    ("JWK, after white space", '\r\n\t{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmb","e":"AQAB"}\n'),
    ("JWK, after a byte order mark", '\ufeff{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmb","e":"AQAB"}'),
    ("JWK, UTF-16", '{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmb","e":"AQAB"}'.encode("utf-16")),
    ("JWK, cut off", '{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFb'),
    ("JWK, deep", '{"a":' + "[" * 30_000 + '"kty"'),
    ("a set of JWK", '{"keys":[{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmb","e":"AQAB"}]}'),
    ("an array of JWK", '[{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmb","e":"AQAB"}]'),
]  # fmt: skip

GOOD_KEYS = [  # looks like one of those, and is a secret of its own
    ("32 bytes", bytes(range(32))), ("32 spaces", " " * 32), ("32 zeros", bytes(32)), ("a thousand bytes",
     b"\xfe" * 1_000),
    ("64 bytes", "k" * 64), ("65 bytes", "k" * 65), ("not ASCII", "\u00e4\u00f6\u00fc\u00df" * 4), ("an emoji",
     "\U0001f511" * 8),
    ("says BEGIN", "BEGIN with something that is long enough"), ("says ssh-",
     "ssh-is-a-shell-and-this-is-no-key-of-it"),
    ("ssh-rsa, later", "my password is ssh-rsa AAAA and it is long"), ("has a quote",
     'a "quoted" word in 32 bytes of key'),
    ("is JSON", '{"secret":"0123456789abcdef0123456789abcdef"}'), ("dashes", "-----" * 8), ("ends in a newline",
     "k" * 32 + "\n"),
    ("a UUID", "123e4567-e89b-12d3-a456-426614174000"), ("a word kty", "kty is a word and this is 32 bytes"),
    ("a kty in a value", '{"password":"my-kty-is-a-long-secret-value"}'),
    ("a kty in quotes", 'a "kty" is in a JWK, this is none'), ("a kty as JSON", '["kty", "0123456789abcdef01234567"]'),
]  # fmt: skip

WRONG_KEYS = [
    0,
    1.5,
    True,
    [KEY],
    {KEY},
    (KEY,),
    {KEY: KEY},
    object(),
    bytearray(KEY.encode()),
    memoryview(KEY.encode()),
]


def _keys():
    for name, seal in SIGNATURE:
        bad = f"{HEAD}.{BODY}.{seal}"
        yield Vector("key", f"signature {name}", "RFC 7515 §5.2", bad, {}, jwt.InvalidSignatureError)
    for name, section, key in SAME_KEY:
        yield Vector("key", f"the same key, {name}", section, GOOD, {"key": key}, GOOD_CLAIMS)
    for name, key in OTHER_KEYS:
        yield Vector("key", f"other key, {name}", "RFC 7515 §5.2", GOOD, {"key": key}, jwt.InvalidSignatureError)
    for name, key in GOOD_KEYS:
        yield Vector("key", f"good key, {name}", "RFC 7518 §3.2", token(key=key), {"key": key}, {})
    for name, key in PUBLISHED_KEYS:
        yield Vector(
            "key", f"published key, {name}", "RFC 8725 §2.1", token(key=key), {"key": key}, jwt.InvalidKeyError
        )
    for key in ("", b""):
        yield Vector("key", f"empty key {key!r}", "RFC 8725 §3.5", token(key=key), {"key": key}, jwt.InvalidKeyError)
    for key in WRONG_KEYS:
        yield Vector("key", f"key of type {type(key).__name__}", "RFC 7518 §3.2", GOOD, {"key": key}, TypeError)
    # Who cannot sign gets nothing read: the payload's faults are for those who hold the key.
    for name, payload in (("no JSON", "x"), ("a bomb", "[" * 40_000), ("expired", '{"exp":0}'), ("aud", '{"aud":"x"}')):
        bad = token(payload, key=OTHER_KEY)
        yield Vector("key", f"forged, {name}", "RFC 7519 §7.2", bad, {}, jwt.InvalidSignatureError)
    yield Vector("key", "forged, payload no base64url", "RFC 7519 §7.2", sealed(HEAD + ".!", OTHER_KEY), {},
                 jwt.InvalidSignatureError)  # fmt: skip
    yield Vector("key", "RFC 7515 A.1", "RFC 7515 §A.1", RFC7515_TOKEN, {"key": RFC7515_KEY, "now": 1300819379},
                 RFC7515_CLAIMS)  # fmt: skip


# ---- 7. Time ----------------------------------------------------------------------------------------------

NO_NUMBER = [
    "null",
    "true",
    "false",
    '""',
    '"2000000000"',
    '"x"',
    "[]",
    "[2000000000]",
    "{}",
    '{"$numberLong":"2000000000"}',
]
EARLY, LATE, MALFORMED = jwt.ImmatureSignatureError, jwt.ExpiredSignatureError, jwt.DecodeError
FINE = None  # the claims themselves

TIMES = [  # claim, JSON text of its value, arguments, what comes of it at NOW
    ("exp", "2000000001", {}, FINE),
    ("exp", "2000000000", {}, LATE),
    ("exp", "1999999999", {}, LATE),
    ("exp", "2000000000.5", {}, FINE),
    ("exp", "2000000000.0", {}, LATE),
    ("exp", "1999999999.9", {}, LATE),
    ("exp", "2000000000.5", {"now": NOW + 0.5}, LATE),
    ("exp", "2000000000.5", {"now": NOW + 0.25}, FINE),
    ("exp", "2e9", {}, LATE),
    ("exp", "2000000001e0", {}, FINE),
    ("exp", "0", {}, LATE),
    ("exp", "-0", {}, LATE),
    ("exp", "0.0", {}, LATE),
    ("exp", "-1", {}, LATE),
    ("exp", "1", {"now": 0}, FINE),
    ("exp", "0", {"now": 0}, LATE),
    ("exp", "1e308", {}, FINE),
    ("exp", "-1e308", {}, LATE),
    ("exp", "9" * 308, {}, FINE),
    ("exp", "-" + "9" * 308, {}, LATE),
    ("exp", "1e-999", {}, LATE),
    ("exp", "1999999991", {"leeway": 10}, FINE),
    ("exp", "1999999990", {"leeway": 10}, LATE),
    ("exp", "1999999990.5", {"leeway": 10}, FINE),
    ("exp", "1999999999.75", {"leeway": 0.5}, FINE),
    ("exp", "1999999991", {"leeway": timedelta(seconds=10)}, FINE),
    ("exp", "1999999990", {"leeway": timedelta(seconds=10)}, LATE),
    ("exp", "9" * 308, {"leeway": 0.5, "now": NOW + 0.5}, FINE),
    ("exp", "9" * 308, {"leeway": timedelta(days=1)}, FINE),
    ("exp", "2000000010", {"now": float("nan")}, LATE),
    ("exp", "2000000010", {"leeway": float("nan")}, LATE),
    ("exp", "0", {"options": {"verify_exp": False}}, FINE),
    ("exp", "2000000001", {"options": {"verify_exp": True}}, FINE),
    ("exp", "0", {"options": {"verify_nbf": False, "verify_iat": False}}, LATE),
    *(
        (claim, text, arguments, outcome)
        for claim in ("nbf", "iat")
        for text, arguments, outcome in [
            ("2000000000", {}, FINE),
            ("2000000001", {}, EARLY),
            ("1999999999", {}, FINE),
            ("2000000000.0", {}, FINE),
            ("2000000000.5", {}, EARLY),
            ("2000000000.5", {"now": NOW + 0.5}, FINE),
            ("0", {}, FINE),
            ("-1", {}, FINE),
            ("-1.5", {}, FINE),
            ("1", {"now": 0}, EARLY),
            ("1e308", {}, EARLY),
            ("9" * 308, {}, EARLY),
            ("-" + "9" * 308, {}, FINE),
            ("2000000010", {"leeway": 10}, FINE),
            ("2000000011", {"leeway": 10}, EARLY),
            ("2000000010.5", {"leeway": 10}, EARLY),
            ("2000000010", {"leeway": timedelta(seconds=10)}, FINE),
            ("2000000011", {"leeway": timedelta(seconds=10)}, EARLY),
            ("9" * 308, {"leeway": 0.5}, EARLY),
            ("1", {"now": float("nan")}, EARLY),
            ("1", {"leeway": float("nan")}, EARLY),
            ("2000000001", {"options": {"verify_" + claim: False}}, FINE),
            ("2000000001", {"options": {"verify_exp": False}}, EARLY),
        ]
    ),
]
PAIRS_OF_TIMES = [  # of two faults, the first in PyJWT's order is named
    ('{"iat":2000000001,"nbf":2000000001,"exp":0}', EARLY),
    ('{"nbf":2000000001,"exp":0}', EARLY),
    ('{"exp":0,"nbf":"x"}', MALFORMED),
    ('{"exp":0,"iat":"x"}', jwt.InvalidIssuedAtError),
    ('{"exp":0,"aud":"x"}', LATE),
    ('{"iat":2000000000,"nbf":2000000000,"exp":2000000001}', FINE),
    ('{"iat":3,"nbf":2,"exp":2000000001}', FINE),
    ('{"EXP":0,"Exp":0," exp":0,"claims":{"exp":0}}', FINE),
]


def _times():
    for claim, error in (("exp", MALFORMED), ("nbf", MALFORMED), ("iat", jwt.InvalidIssuedAtError)):
        for text in NO_NUMBER:
            bad = token('{"%s":%s}' % (claim, text))
            yield Vector("time", f"{claim} {text}", "RFC 7519 §2", bad, {}, error)
            yield Vector("time", f"{claim} {text}, not asked", "PyJWT", bad, {"options": {"verify_" + claim: False}},
                         json.loads('{"%s":%s}' % (claim, text)))  # fmt: skip
    sections = {"exp": "RFC 7519 §4.1.4", "nbf": "RFC 7519 §4.1.5", "iat": "RFC 7519 §4.1.6"}
    for claim, text, arguments, outcome in TIMES:
        payload = '{"%s":%s}' % (claim, text)
        yield Vector("time", f"{claim} {text[:14]} {arguments}", sections[claim], token(payload), arguments,
                     outcome or json.loads(payload))  # fmt: skip
    for payload, outcome in PAIRS_OF_TIMES:
        yield Vector("time", payload, "RFC 7519 §4.1", token(payload), {}, outcome or json.loads(payload))


# ---- 8. Audience, issuer, subject, JWT ID, required claims ------------------------------------------------

AUD, ISS, SUBJECT, JTI, MISSING = (
    jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.InvalidSubjectError, jwt.InvalidJTIError,
    jwt.MissingRequiredClaimError,
)  # fmt: skip
STRICT = {"strict_aud": True}

NAMES = [  # payload, arguments, what comes of it
    ('{"aud":"us"}', {"audience": "us"}, FINE),
    ('{"aud":["us"]}', {"audience": "us"}, FINE),
    ('{"aud":["them","us"]}', {"audience": "us"}, FINE),
    ('{"aud":"us"}', {"audience": ["them", "us"]}, FINE),
    ('{"aud":["us","x"]}', {"audience": ["them", "us"]}, FINE),
    ('{"aud":"us"}', {"audience": ("us",)}, FINE),
    ('{"aud":"us"}', {"audience": {"us"}}, FINE),
    ('{"aud":"us"}', {"audience": {"us": 1}}, FINE),
    ('{"aud":""}', {"audience": ""}, FINE),
    ("{}", {}, FINE),
    ('{"aud":"us"}', {}, AUD),
    ('{"aud":["us"]}', {}, AUD),
    ('{"aud":""}', {}, AUD),
    ('{"aud":[]}', {}, AUD),
    ("{}", {"audience": "us"}, MISSING),
    ("{}", {"audience": ["us"]}, MISSING),
    ("{}", {"audience": ""}, MISSING),
    ("{}", {"audience": []}, MISSING),
    ('{"aud":"us"}', {"audience": "them"}, AUD),
    ('{"aud":"us"}', {"audience": ["them"]}, AUD),
    ('{"aud":"us"}', {"audience": []}, AUD),
    ('{"aud":"us"}', {"audience": ""}, AUD),
    ('{"aud":""}', {"audience": "us"}, AUD),
    ('{"aud":[]}', {"audience": "us"}, AUD),
    ('{"aud":[]}', {"audience": []}, AUD),
    ('{"aud":"us"}', {"audience": "trust us"}, AUD),
    ('{"aud":"trust us"}', {"audience": "us"}, AUD),
    ('{"aud":"u"}', {"audience": "us"}, AUD),
    ('{"aud":["u","s"]}', {"audience": "us"}, AUD),
    ('{"aud":"us"}', {"audience": ["u", "s"]}, AUD),
    ('{"aud":"US"}', {"audience": "us"}, AUD),
    ('{"aud":"us "}', {"audience": "us"}, AUD),
    ('{"aud":"us/"}', {"audience": "us"}, AUD),
    ('{"aud":"u\\u0073"}', {"audience": "us"}, FINE),
    ('{"aud":"*"}', {"audience": "us"}, AUD),
    ('{"aud":"\u00e9"}', {"audience": "e\u0301"}, AUD),
    ('{"aud":"us"}', {"audience": [b"us"]}, AUD),
    ('{"aud":["us",null]}', {"audience": "us"}, AUD),
    ('{"aud":["us",1]}', {"audience": "us"}, AUD),
    ('{"aud":["us",["us"]]}', {"audience": "us"}, AUD),
    ('{"aud":[["us"]]}', {"audience": "us"}, AUD),
    ('{"aud":{"us":true}}', {"audience": "us"}, AUD),
    ('{"aud":1}', {"audience": [1]}, AUD),
    ('{"aud":[1]}', {"audience": [1]}, AUD),
    ('{"aud":null}', {"audience": [None]}, AUD),
    ('{"aud":"us"}', {"audience": "us", "options": STRICT}, FINE),
    ('{"aud":["us"]}', {"audience": "us", "options": STRICT}, AUD),
    ('{"aud":"us"}', {"audience": ["us"], "options": STRICT}, AUD),
    ('{"aud":"us"}', {"audience": "them", "options": STRICT}, AUD),
    ('{"aud":"trust us"}', {"audience": "us", "options": STRICT}, AUD),
    ('{"aud":"us"}', {"options": STRICT}, AUD),
    ("{}", {"audience": "us", "options": STRICT}, MISSING),
    ("{}", {"options": STRICT}, FINE),
    ('{"aud":"them"}', {"audience": "us", "options": {"verify_aud": False}}, FINE),
    ('{"aud":"them"}', {"options": {"verify_aud": False}}, FINE),
    ("{}", {"audience": "us", "options": {"verify_aud": False}}, FINE),
    ('{"iss":"joe"}', {}, FINE),
    ('{"iss":"joe"}', {"issuer": "joe"}, FINE),
    ('{"iss":"joe"}', {"issuer": ["ann", "joe"]}, FINE),
    ('{"iss":"joe"}', {"issuer": ("joe",)}, FINE),
    ('{"iss":"joe"}', {"issuer": {"joe"}}, FINE),
    ('{"iss":"joe"}', {"issuer": {"joe": 1}}, FINE),
    ('{"iss":""}', {}, FINE),
    ('{"iss":""}', {"issuer": ""}, FINE),
    ('{"iss":"joe"}', {"issuer": "ann"}, ISS),
    ('{"iss":"joe"}', {"issuer": ["ann"]}, ISS),
    ('{"iss":"joe"}', {"issuer": []}, ISS),
    ('{"iss":"joe"}', {"issuer": ""}, ISS),
    ('{"iss":"joe"}', {"issuer": "joey"}, ISS),
    ('{"iss":"jo"}', {"issuer": "joe"}, ISS),
    ('{"iss":""}', {"issuer": "joe"}, ISS),
    ('{"iss":"JOE"}', {"issuer": "joe"}, ISS),
    ('{"iss":"joe/"}', {"issuer": "joe"}, ISS),
    ('{"iss":"joe\\u0000"}', {"issuer": "joe"}, ISS),
    ('{"iss":["joe"]}', {"issuer": "joe"}, ISS),
    ('{"iss":["joe"]}', {"issuer": ["joe"]}, ISS),
    ('{"iss":["joe","https://evil.example"]}', {"issuer": "joe"}, ISS),
    ('{"iss":1}', {"issuer": [1]}, ISS),
    ('{"iss":null}', {"issuer": [None]}, ISS),
    ('{"iss":"joe"}', {"issuer": 5}, ISS),
    ("{}", {"issuer": "joe"}, MISSING),
    ("{}", {"issuer": ["joe"]}, MISSING),
    ("{}", {"issuer": ""}, MISSING),
    ('{"iss":"ann"}', {"issuer": "joe", "options": {"verify_iss": False}}, FINE),
    ("{}", {"issuer": "joe", "options": {"verify_iss": False}}, FINE),
    ('{"sub":"admin"}', {"subject": "admin"}, FINE),
    ('{"sub":""}', {}, FINE),
    ('{"sub":"admin"}', {"subject": "root"}, SUBJECT),
    ('{"sub":"admin"}', {"subject": "admins"}, SUBJECT),
    ('{"sub":"admins"}', {"subject": "admin"}, SUBJECT),
    ('{"sub":"admin"}', {"subject": ""}, SUBJECT),
    ("{}", {"subject": "admin"}, MISSING),
    ("{}", {"subject": ""}, MISSING),
    ('{"Sub":"admin"}', {"subject": "admin"}, MISSING),
    ('{"username":"admin"}', {"subject": "admin"}, MISSING),
    ("{}", {"subject": "admin", "options": {"verify_sub": False}}, FINE),
    ('{"sub":"root"}', {"subject": "admin", "options": {"verify_sub": False}}, FINE),
    ('{"jti":"1"}', {}, FINE),
    ('{"jti":""}', {}, FINE),
    ('{"jti":1}', {"options": {"verify_jti": False}}, FINE),
    ('{"exp":2000000001}', {"options": {"require": ["exp"]}}, FINE),
    ('{"exp":2000000001,"a":0}', {"options": {"require": ("exp", "a")}}, FINE),
    ('{"a":""}', {"options": {"require": ["a"]}}, FINE),
    ('{"a":false}', {"options": {"require": {"a"}}}, FINE),
    ("{}", {"options": {"require": []}}, FINE),
    ("{}", {"options": {"require": ["exp"]}}, MISSING),
    ('{"iat":1}', {"options": {"require": ["iat", "exp"]}}, MISSING),
    ('{"a":null}', {"options": {"require": ["a"]}}, MISSING),
    ('{"exp":null}', {"options": {"require": ["exp"]}}, MISSING),
    ('{"A":1}', {"options": {"require": ["a"]}}, MISSING),
    ('{"exp":0}', {"options": {"require": ["jti"]}}, MISSING),
    ("{}", {"options": {"require": ["exp"], "verify_exp": False}}, MISSING),
]  # fmt: skip


def _names():
    for claim, error, section in (("aud", AUD, "3"), ("iss", ISS, "1"), ("sub", SUBJECT, "2"), ("jti", JTI, "7")):
        for text in NO_STRING:
            if claim == "aud" and text == '["x"]':
                continue
            bad = token('{"%s":%s}' % (claim, text))
            arguments = {"aud": {"audience": "x"}, "iss": {"issuer": "x"}, "sub": {"subject": "x"}, "jti": {}}[claim]
            yield Vector("names", f"{claim} {text}", f"RFC 7519 §4.1.{section}", bad, arguments, error)
            yield Vector("names", f"{claim} {text}, not asked for", f"RFC 7519 §4.1.{section}", bad, {}, error)
    for payload, arguments, outcome in NAMES:
        yield Vector("names", f"{payload} {arguments}", "RFC 7519 §4.1", token(payload), arguments,
                     outcome or json.loads(payload))  # fmt: skip


# ---- 9. Denial of service ---------------------------------------------------------------------------------


def _of_size(characters):
    """Return a good token of exactly so many characters, and its claims."""
    # 43 for the signature, 2 dots, HEAD; the payload's length steps by 4 to 3, so the header takes up the rest.
    for spaces in range(4):
        head = base64url(('{"alg":"HS256"}' + " " * spaces).encode())
        left = characters - len(head) - 45
        raw = left * 3 // 4
        if left % 4 != 1 and -(-raw * 4 // 3) == left:
            text = "x" * (raw - len('{"a":""}'))
            return sealed(head + "." + base64url(('{"a":"%s"}' % text).encode())), {"a": text}
    raise AssertionError("no such size")


def _floods():
    largest, says = _of_size(65_536)
    yield Vector("flood", "65,536 characters", "minijwt MAX_TOKEN_CHARS", largest, {}, says)
    yield Vector("flood", "65,536 bytes", "minijwt MAX_TOKEN_CHARS", largest.encode(), {}, says)
    larger, _ = _of_size(65_537)
    yield Vector("flood", "65,537 characters", "minijwt MAX_TOKEN_CHARS", larger, {}, jwt.DecodeError)
    wide = ",".join(f'"{number}":0' for number in range(4_000))
    for name, payload, says in [
        ("4,000 claims", "{%s}" % wide, {str(number): 0 for number in range(4_000)}),
        ("16,000 empty arrays", '{"a":[%s]}' % ",".join(["[]"] * 16_000), {"a": [[]] * 16_000}),
        ("a fraction of 40,000 digits", '{"a":0.%s}' % ("3" * 40_000), {"a": 1 / 3}),
        ("an exponent of 1,000 digits", '{"a":1e-%s}' % ("9" * 1_000), {"a": 0.0}),
    ]:
        yield Vector("flood", name, "minijwt MAX_TOKEN_CHARS", token(payload), {}, says)
    for name, section, bad in [
        ("a million dots", "RFC 7515 §7.1", "." * 1_000_000),
        ("60,000 dots", "RFC 7515 §7.1", "." * 60_000),
        ("a million letters", "minijwt MAX_TOKEN_CHARS", "A" * 1_000_000),
        ("a million letters between two dots", "minijwt MAX_TOKEN_CHARS", "A." + "A" * 1_000_000 + ".A"),
        ("a million bytes", "minijwt MAX_TOKEN_CHARS", b"\xff" * 1_000_000),
        ("a million letters, not ASCII", "RFC 7515 §7.1", "\u00e9" * 1_000_000),
        ("a header of 48,000 letters", "RFC 7515 §4", "A" * 60_000 + ".e30.A"),
        ("a header of many levels, unsigned", "RFC 8259 §9", base64url(b"[" * 40_000) + ".e30.A"),
        ("a header of many objects, unsigned", "RFC 8259 §9", base64url(b'{"a":' * 9_000) + ".e30.A"),
        ("a header of many digits, unsigned", "RFC 8259 §6", base64url(b'{"a":' + b"9" * 45_000 + b"}") + ".e30.A"),
        (
            "a header with one name 4,000 times",
            "RFC 7515 §4",
            base64url(b"{" + b'"a":0,' * 4_000 + b'"a":0}') + ".e30.A",
        ),
        ("a header of backslashes", "RFC 8259 §7", base64url(b'{"a":"' + b"\\" * 45_001 + b'"}') + ".e30.A"),
        ("a long exponent", "RFC 8259 §6", token('{"a":1e%s}' % ("9" * 40_000))),
    ]:
        yield Vector("flood", name, section, bad, {}, jwt.DecodeError)
    yield Vector("flood", "a signature of 60,000 letters", "RFC 7515 §5.2", f"{HEAD}.{BODY}." + "A" * 60_000, {},
                 jwt.InvalidSignatureError)  # fmt: skip


# ---- All of them ------------------------------------------------------------------------------------------


def _vectors():
    for name, text in (("str", GOOD), ("bytes", GOOD.encode())):
        yield Vector("structure", f"good, {name}", "RFC 7515 §7.1", text, {}, GOOD_CLAIMS)
    for name, section, bad in STRUCTURE:
        yield Vector("structure", name, section, bad, {}, jwt.DecodeError)
    for group in (_spellings, _json, _headers, _algorithms, _keys, _times, _names, _floods):
        yield from group()


VECTORS = list(_vectors())


def of(*groups):
    """Return the vectors of these groups, for pytest.mark.parametrize."""
    chosen = [vector for vector in VECTORS if vector.group in groups]
    return {"argnames": "vector", "argvalues": chosen, "ids": [vector.name for vector in chosen]}


def outcome(vector, decode=jwt.decode):
    """Return what comes of a vector: the claims, or the class of the error."""
    try:
        return decode(vector.token, **{"key": KEY, "now": NOW, **vector.arguments})
    except Exception as error:  # whatever it is: that is the question
        return type(error)
