"""Fuzz `decode`, `explain` and `encode`:  python3 tests/prove/fuzz.py [seconds] [seed]

Good tokens are damaged by byte, by segment, in their JSON text and in single JSON nodes, and mostly signed again, so
that the damage is reached. Whatever comes out: `decode` returns a dict or raises InvalidTokenError, and only for what
our own HMAC calls signed; `explain` agrees with it and tells nothing; both within a bounded time and memory.

And values of all kinds are signed, among them subclasses whose methods contradict their content: `decode` returns what
json.dumps would have written of them, or `encode` raises TypeError or ValueError.

The tests run a few thousand cases of this, `make prove` a minute of it. The same seed gives the same cases.
"""

import base64
import collections
import decimal
import enum
import json
import pathlib
import random
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import vectors  # noqa: E402
from vectors import KEY, NOW, base64url, hmac_sha256, sealed  # noqa: E402

import minijwt as jwt  # noqa: E402

MAX_SECONDS_A_CASE = 1.0  # hundreds of times what the worst one takes
MAX_GROWTH_MB = 64

SEEDS = [  # header, payload: what is damaged
    ({"alg": "HS256", "typ": "JWT"}, {"username": "admin", "iat": NOW, "exp": NOW + 600}),
    (
        {"alg": "HS256", "kid": "k1", "cty": "JWT"},
        {"iss": "joe", "aud": ["us", "them"], "sub": "admin", "jti": "1", "nbf": 0},
    ),
    ({"alg": "HS256"}, {"a": [1, 2.5, {"b": [None, True, "\u00e9\U0001f600\x00"]}], "exp": NOW + 0.5, "aud": "us"}),
    ({"typ": "JWT", "alg": "HS256", "x": {"y": [[], {}]}}, {}),
]
EXPECTED = [
    {},
    {"audience": "us"},
    {"audience": ["us"], "issuer": "joe"},
    {"issuer": ["ann", "joe"], "subject": "admin"},
    {"leeway": 10},
]

SPICE = [b".", b"=", b"\n", b" ", b"\0", b"+", b"/", b"-", b"_", b"A", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"..",
 b"\xef\xbb\xbf", b'"', b"\\u",
         b"{", b"[" * 40, b"9" * 310, b"NaN", b"e9", b",", b":"]  # fmt: skip
NODES = [  # JSON texts that replace a node
    "null", "true", "0", "-1", "0.5", '""', '"x"', '"us"', '"HS256"', '"none"', "[]", "{}", '["us"]', '["us",1]',
    "1e308", "1e309", "-1e309", "NaN",
    "Infinity", "-Infinity", "9" * 308, "9" * 309, "-" + "9" * 308, "9" * 5_000, '"\\ud800"', '"\\ud83d\\ude00"',
    "[" * 30 + "]" * 30,
    "[" * 33 + "]" * 33, "[" * 3_000, '{"a":1,"a":2}', '{"a":1},"alg":"none', '1,"exp":9', '"\n"', "1e-999", str(NOW),
     str(NOW + 1), "\ufeff1",
]  # fmt: skip


# ---- Damage -----------------------------------------------------------------------------------------------


def damaged(source, text):
    """Return the bytes `text` with one thing changed: a bit, something put in, cut out, or doubled."""
    start = source.randrange(len(text) + 1)
    end = min(len(text), start + source.choice([1, 1, 1, 2, 4, 20]))
    kind = source.randrange(4)
    if kind == 0 and start < len(text):
        return text[:start] + bytes([text[start] ^ 1 << source.randrange(8)]) + text[start + 1 :]
    if kind == 1:
        return text[:start] + source.choice(SPICE) + text[start:]
    return text[:start] + text[end:] if kind == 2 else text[:end] + text[start:]


def paths(value, path=()):
    """Yield the way to every node of a JSON value."""
    yield path
    for step, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(item, (*path, step))


def with_node(value, path, node):
    if not path:
        return node
    twin = value.copy()
    twin[path[0]] = with_node(value[path[0]], path[1:], node)
    return twin


def other_node(source, value):
    """Return the JSON text of `value` with one node replaced by any JSON text, or by what is none."""
    hole = "here it goes"
    text = json.dumps(with_node(value, source.choice(list(paths(value))), hole), ensure_ascii=source.random() < 0.5)
    return text.replace(f'"{hole}"', source.choice(NODES)).encode()


def case(source):
    """Return a token (bytes, or str) to try."""
    header, payload = source.choice(SEEDS)
    raw = [json.dumps(header).encode(), json.dumps(payload).encode()]
    kind, place = source.randrange(6), source.randrange(2)
    if kind == 0:
        raw[place] = damaged(source, raw[place])
    elif kind in (1, 2):
        raw[place] = other_node(source, (header, payload)[place])
    token = sealed(b".".join(base64url(part).encode() for part in raw))
    if kind == 3:
        for _ in range(source.randint(1, 3)):
            token = damaged(source, token)
    elif kind == 4:
        segments = token.split(b".")
        segments[place] = damaged(source, segments[place])
        token = sealed(b".".join(segments[:2]))
    elif kind == 5:
        segments = token.split(b".") + source.choice(TOKENS).split(b".")
        token = b".".join(source.choice(segments) for _ in range(source.choice([2, 3, 3, 3, 3, 4])))
        token = token if source.random() < 0.5 else sealed(token.rpartition(b".")[0])
    return token.decode("ascii") if token.isascii() and source.random() < 0.5 else token


def _as_bytes(token):
    return token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token


TOKENS = [
    _as_bytes(vector.token)
    for vector in vectors.VECTORS
    if isinstance(vector.token, (str, bytes)) and len(vector.token) < 2_000
]


# ---- What must hold ---------------------------------------------------------------------------------------


def outcome(call, *arguments, **expected):
    """Return what comes of a call, a dict or the InvalidTokenError; any other error is a find."""
    try:
        return call(*arguments, **expected)
    except jwt.InvalidTokenError as error:
        return error


def check(token, **expected):
    """Assert all that must hold for any token; return the claims, or the error."""
    arguments = {"key": KEY, "now": NOW, **expected}
    found = outcome(jwt.decode, token, **arguments)
    report = jwt.explain(token, **arguments)
    good = type(found) is dict

    assert good or isinstance(found, jwt.InvalidTokenError), "neither a dict nor an InvalidTokenError"
    assert report["valid"] is good, "explain disagrees with decode"
    assert report["claims"] == (found if good else None), "explain returns other claims"
    codes = [step["code"] for step in report["steps"] if step["ok"] is False]
    assert codes == ([] if good else [found.code]), "explain names another error"
    assert not jwt.explain(token, None, now=NOW)["valid"], "valid without a key"
    header, complete = outcome(jwt.get_unverified_header, token), outcome(jwt.decode_complete, token, **arguments)
    assert good or type(complete) is type(found), "decode_complete disagrees with decode"

    signed, _, signature = _as_bytes(token).rpartition(b".")
    right = hmac_sha256(KEY.encode(), signed)
    told = json.dumps(report)
    for leak in (base64url(right), base64.b64encode(right).decode().rstrip("="), right.hex(), KEY):
        assert leak not in told, "explain tells the right signature, or the key"
    if good:
        segments = _as_bytes(token).split(b".")
        assert signature.decode() == base64url(right), "believed without the right signature"
        assert segments[1].decode() == base64url(base64.urlsafe_b64decode(segments[1] + b"==")), "a second spelling"
        assert header["alg"] == "HS256" and "crit" not in header, "believed with this header"
        assert complete == {"header": header, "payload": found, "signature": right}, (
            "decode_complete returns other things"
        )
        assert json.loads(base64.urlsafe_b64decode(segments[1] + b"==")) == found, "other claims than were signed"
        assert jwt.decode(jwt.encode(found, KEY), **arguments) == found, "encode does not bring it back"
    else:
        for piece in _as_bytes(token).decode("latin-1").split("."):
            assert len(piece) < 8 or piece not in str(found), "the message quotes the token"
    return found


# ---- Values to sign ---------------------------------------------------------------------------------------


class Masked(dict):
    """Its `items()` differ from what it stores, as those of a QueryDict or of a dict that masks a password."""

    def items(self):
        return [(name, "***" if name == "password" else item) for name, item in super().items()]

    def __getitem__(self, name):
        return "not this"

    def __iter__(self):
        return iter(["nor this"])


class LastOnly(dict):
    def items(self):
        return ((name, item[-1] if type(item) is list and item else item) for name, item in super().items())


class Twice(dict):
    def items(self):
        return [*super().items(), *((name, "again") for name in super().keys())]


class Odd(int):
    def __int__(self):
        return 7

    def __index__(self):
        return 8

    def __repr__(self):
        return "9"

    __str__ = __repr__


class Warm(float):
    def __float__(self):
        return 7.5

    def __repr__(self):
        return "NaN"

    __str__ = __repr__


class Loud(str):
    def __str__(self):
        return self.upper()

    def __eq__(self, other):
        return False

    def __hash__(self):
        return 1


class Backwards(list):
    def __iter__(self):
        return reversed(self)


class Proxy:
    """Claims to be of the class of its content, as a lazy translation or a request-local object does."""

    def __init__(self, content):
        self.content = content

    @property
    def __class__(self):
        return type(self.content)

    def __getattr__(self, name):
        return getattr(self.content, name)

    def __len__(self):
        return len(self.content)


class Level(enum.IntEnum):
    HIGH = 3


class Color(str, enum.Enum):
    RED = "red"


Point = collections.namedtuple("Point", "x y")


class Encoder(json.JSONEncoder):
    def default(self, value):
        if type(value) is Proxy:
            return [value.content]
        answer = {decimal.Decimal: str, set: sorted, complex: lambda number: float("nan")}
        return answer.get(type(value), super().default)(value)


NAMES = ["a", "b", "password", "", "\u00e9", *("iss", "sub", "aud", "exp", "nbf", "iat", "jti") * 2]
LEAVES = [
    None, True, False, 0, -1, NOW, 10**308 - 1, 10**308, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", "x",
    "\n\x7f\u2028", "\U0001f600", "\ud800", "secret", b"x", decimal.Decimal("1.10"), {"b", "a"}, {1, "a"}, 1j, object(),
    Level.HIGH, Color.RED, Odd(5), Odd(10**308), Warm(1.25), Warm("inf"), Loud("x"), Loud("sub"), Proxy("x"), Proxy(1),
    Proxy({"a": 1}), range(2),
]  # fmt: skip


def a_name(source):
    name = source.choice(NAMES)
    return source.choice([name, name, name, name, Loud(name), Color.RED, Odd(1), 1, None, Proxy(name)])


def a_value(source, depth=3):
    """Return a value that a program might sign, or should not."""
    kind = source.randrange(9 if depth else 4)
    if kind < 4:
        return source.choice(LEAVES)
    items = [a_value(source, depth - 1) for _ in range(source.randrange(1, 4))]
    if kind < 6:
        return source.choice([list, list, tuple, Backwards, lambda items: Point(items[0], items)])(items)
    names = [a_name(source) if source.random() < 0.3 else source.choice(NAMES) for _ in items]
    return source.choice([dict, dict, Masked, LastOnly, Twice, collections.OrderedDict])(zip(names, items))


def a_payload(source):
    payload = a_value(source)
    return payload if issubclass(type(payload), dict) else {source.choice(NAMES): payload}


def check_encode(payload, headers=None, json_encoder=None):
    """Assert all that must hold for anything that is signed; return whether it was."""
    try:
        token = jwt.encode(payload, KEY, headers=headers, json_encoder=json_encoder)
    except (TypeError, ValueError):
        return False
    except (NotImplementedError, jwt.InvalidTokenError):  # what a header may not say
        assert headers
        return False
    lax = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "iss", "aud", "sub")}
    complete = jwt.decode_complete(token, KEY, options={**lax, "verify_jti": True})
    written = json.loads(json.dumps(payload, cls=json_encoder))
    # Compared as text: to Python, 1 == 1.0 == True.
    assert repr(complete["payload"]) == repr(written), "something else was signed than json.dumps would write"
    for name in ("iss", "sub", "jti", "aud", "exp", "nbf", "iat"):
        allowed = (int, float) if name in ("exp", "nbf", "iat") else (str, list) if name == "aud" else (str,)
        assert name not in written or type(written[name]) in allowed, f"{name} of a wrong type was signed"
    if headers:
        header = {"alg": "HS256", "typ": "JWT", **json.loads(json.dumps(headers, cls=json_encoder))}
        assert complete["header"] == header, "another header was signed"
    return True


# ---- A minute of it ---------------------------------------------------------------------------------------


def peak_memory():
    """Return the most memory that this process ever held, in MB; 0 where nobody counts."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main(seconds=60.0, seed=None):
    seed = random.randrange(2**32) if seed is None else seed
    print(f"fuzz: seed {seed}, {seconds:g} seconds", flush=True)
    source = random.Random(seed)
    count = good = signed = violations = 0
    worst, memory = 0.0, peak_memory()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        token, expected = case(source), source.choice(EXPECTED)
        start = time.perf_counter()
        try:
            good += type(check(token, **expected)) is dict
            complaint = ""
        except Exception as error:
            complaint = f"{type(error).__name__}: {error}"
        count, took = count + 1, time.perf_counter() - start
        if took > worst:
            worst, worst_token = took, token
            if took > MAX_SECONDS_A_CASE:
                complaint = complaint or f"it took {took:.1f} s"
        if complaint:
            violations += 1
            print(f"VIOLATION {complaint}\n  {expected} {type(token).__name__} {_as_bytes(token).hex()}")
        payload, headers = a_payload(source), a_payload(source) if source.random() < 0.2 else None
        try:
            signed += check_encode(payload, headers, source.choice([None, Encoder]))
        except Exception as error:
            violations += 1
            print(f"VIOLATION {type(error).__name__}: {error}\n  {payload!r:.300} {headers!r:.300}")
            if violations == 20:
                break
    growth = peak_memory() - memory
    if growth > MAX_GROWTH_MB:
        violations += 1
        print(f"VIOLATION memory grew by {growth:.0f} MB")
    print(f"fuzz: worst case {worst * 1e3:.1f} ms (a token of {len(worst_token)} characters), memory +{growth:.0f} MB")
    told = f"{count} tokens, {good} of them good, {count} values, {signed} of them signed"
    print(f"fuzz: {told}, {violations} violations (seed {seed})")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
