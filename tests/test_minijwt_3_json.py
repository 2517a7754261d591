"""Room 3: JSON is read strictly, and written so that it will be read."""

import collections
import enum
import json
import math
import random

import pytest
from prove.fuzz import Backwards, LastOnly, Loud, Masked, Odd, Proxy, Twice, Warm
from vectors import of, outcome

import minijwt as jwt


@pytest.mark.parametrize(**of("json"))
def test_json_is_strict_in_the_header_and_in_the_payload(vector):
    assert outcome(vector) == vector.expected


class Color(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Celsius(float):
    def __repr__(self):
        return "warm"


Point = collections.namedtuple("Point", "x y")

WRITTEN = [  # value, its JSON text
    ({}, "{}"), ([], "[]"), (None, "null"), (True, "true"), (False, "false"), (0, "0"), (-7, "-7"), (1.0, "1.0"), (0.1,
     "0.1"),
    (1e308, "1e+308"), (-0.0, "-0.0"), ("", '""'), ("\u00e9", '"\u00e9"'), ('"\\/', '"\\"\\\\/"'), ("\n\x00",
     '"\\n\\u0000"'),
    ("\x7f\u2028", '"\x7f\u2028"'), ([1, [2, {"a": []}]], '[1,[2,{"a":[]}]]'), ((1, 2), "[1,2]"), ({"b": 1, "a": 2},
     '{"b":1,"a":2}'),
    (Color.RED, '"red"'), (Level.HIGH, "3"), (Celsius(20.5), "20.5"), (Loud("a"), '"a"'), (Point(1, 2), "[1,2]"),
    ({Color.RED: Level.HIGH}, '{"red":3}'), (collections.OrderedDict(a=1), '{"a":1}'), (collections.Counter("a"),
     '{"a":1}'),
    (collections.defaultdict(list, a=[1]), '{"a":[1]}'), (10**308 - 1, "9" * 308), (1 - 10**308, "-" + "9" * 308),
]  # fmt: skip


@pytest.mark.parametrize("value, text", WRITTEN, ids=ascii)
def test_what_is_written(value, text):
    assert jwt.write_json(value) == text


LOOP = []
LOOP.append(LOOP)
WHEEL = {}
WHEEL["self"] = WHEEL


def nested(levels, wrap=lambda value: [value]):
    value = wrap(0)
    for _ in range(levels - 1):
        value = wrap(value)
    return value


UNWRITABLE = [
    (math.nan, ValueError), (math.inf, ValueError), (-math.inf, ValueError), ([math.nan], ValueError), (Celsius("nan"),
     ValueError),
    (10**308, ValueError), (-(10**308), ValueError), (10**5_000, ValueError), ({"a": [10**400]}, ValueError),
    (LOOP, ValueError), (WHEEL, ValueError), (nested(33), ValueError), (nested(33, lambda value: {"a": value}),
     ValueError),
    (nested(33, lambda value: (value,)), ValueError), (nested(5_000), ValueError),
    ({1: 1}, TypeError), ({1: 1, "1": 2}, TypeError), ({None: 1}, TypeError), ({True: 1}, TypeError), ({b"a": 1},
     TypeError),
    ({1.5: 1}, TypeError), ({("a",): 1}, TypeError), ([{1: 1}], TypeError), ({Level.HIGH: 1}, TypeError),
    (b"bytes", TypeError), ({1, 2}, TypeError), (object(), TypeError), (1j, TypeError), (iter([]), TypeError), (int,
     TypeError),
    (bytearray(), TypeError), (range(3), TypeError), ({}.keys(), TypeError),
]  # fmt: skip


@pytest.mark.parametrize("value, error", UNWRITABLE, ids=[str(number) for number in range(len(UNWRITABLE))])
def test_what_nobody_should_read_is_not_written(value, error):
    with pytest.raises(error) as caught:
        jwt.json_bytes(value)
    assert type(caught.value) is error


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["a", {"b": "\ud83d"}]], ids=ascii)
def test_a_lone_surrogate_is_not_written(value):
    with pytest.raises(ValueError) as caught:
        jwt.json_bytes(value)
    assert type(caught.value) is ValueError  # a UnicodeEncodeError would quote it


def test_32_levels_are_written_and_read_and_33_are_neither():
    deep = {"a": nested(31)}
    assert jwt.read_json(jwt.json_bytes(deep), "payload") == deep
    text = jwt.json_bytes(deep).replace(b"0", b"[]")
    with pytest.raises(jwt.DecodeError):
        jwt.read_json(text, "payload")


def test_308_digits_are_read_and_309_are_not_even_in_the_shortest_text():
    for name, sign in (("", ""), ("", "-"), ("a long name " * 30, "")):
        text = '{"%s":%s%s}' % (name, sign, "9" * 308)
        assert jwt.read_json(text.encode(), "payload") == {name: int(sign + "9" * 308)}
        with pytest.raises(jwt.DecodeError):
            jwt.read_json(text.replace("}", "9}").encode(), "payload")


def a_value(random, depth=3):
    """Return any value that JSON can hold."""
    kind = random.randrange(8 if depth else 6)
    if kind < 6:
        return [
            None, random.random() < 0.5, random.randint(-(10 ** random.choice([1, 20, 308])) + 1, 10**9),
            random.uniform(-1, 1) * 10 ** random.randint(-300, 300), random.choice(["", "a", '"\\\b\x00\x1f\x7f',
             "\u00e9\u2028\U0001f600\ufeff"]),
            "".join(chr(random.choice([random.randrange(0xD800), random.randrange(0xE000,
             0x110000)])) for _ in range(5)),
        ][kind]  # fmt: skip
    items = [a_value(random, depth - 1) for _ in range(random.randrange(5))]
    return items if kind == 6 else {f"{random.choice('abc')}{number}": item for number, item in enumerate(items)}


def test_what_is_written_reads_the_same_for_us_and_for_the_standard_library():
    source = random.Random(7159)
    for _ in range(300):
        value = {"it": a_value(source)}
        assert jwt.read_json(jwt.json_bytes(value), "payload") == value == json.loads(jwt.json_bytes(value))


@pytest.mark.parametrize("name", ["header", "payload"])
def test_the_message_says_which_of_the_two_it_was(name):
    for raw in (b"[]", b"x"):
        with pytest.raises(jwt.DecodeError, match=name):
            jwt.read_json(raw, name)


# ---- One reading ------------------------------------------------------------------------------------------

READ = [  # a value whose methods contradict its content, what it is read as
    (Masked({"user": "admin", "password": "hunter2"}), {"user": "admin", "password": "***"}),
    (LastOnly({"sub": "alice", "role": ["a", "b"]}), {"sub": "alice", "role": "b"}),
    ([Masked(password="x")], [{"password": "***"}]),
    ({"a": {"b": Masked(password="x")}}, {"a": {"b": {"password": "***"}}}),
    (Odd(5), 5), (Odd(-1), -1), ([Odd(5)], [5]), (Warm(1.25), 1.25), (Loud("x"), "x"),
    ({Loud("x"): Loud("y")}, {"x": "y"}),
    ({"a": 1, Loud("b"): 2}, {"a": 1, "b": 2}), (Backwards([1, 2]), [2, 1]),
    (collections.OrderedDict(a=Odd(1)), {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize("value, read", READ, ids=[str(number) for number in range(len(READ))])
def test_a_value_is_read_as_json_dumps_reads_it(value, read):
    assert json.loads(jwt.json_bytes(value)) == json.loads(json.dumps(value)) == read


@pytest.mark.parametrize("value", [Odd(10**308), Warm("inf"), Warm("nan"), {"a": Odd(-(10**308))}], ids=ascii)
def test_the_value_that_is_checked_is_the_value_that_is_written(value):
    with pytest.raises(ValueError):
        jwt.write_json(value)


@pytest.mark.parametrize("value", [Twice(a=1), {Loud("a"): 1, "a": 2}, {"x": [Twice(a=1)]}], ids=ascii)
def test_a_dict_that_names_a_member_twice_is_not_written(value):
    with pytest.raises(ValueError, match="twice"):
        jwt.write_json(value)


@pytest.mark.parametrize("content", ["x", 1, 1.5, {"a": 1}, ["a"]], ids=repr)
def test_a_proxy_is_not_what_it_claims_to_be_but_asked_about(content):
    asked = []
    assert jwt.write_json([Proxy(content)], lambda value: asked.append(value) or "it") == '["it"]'
    assert [type(value) for value in asked] == [Proxy]
    with pytest.raises(TypeError):
        jwt.write_json(Proxy(content))


@pytest.mark.parametrize("name", [1, None, b"a", Odd(1), Proxy("a"), ("a",)], ids=repr)
def test_the_message_for_a_name_says_what_it_is_and_what_it_must_be(name):
    for value in ({name: "x"}, collections.OrderedDict({name: "x"}), [{"a": {name: 1}}]):
        with pytest.raises(TypeError, match=f"names must be str, not {type(name).__name__}"):
            jwt.json_bytes(value)


FAULTS = [  # text, what is said of it
    (b"", "nothing"), (b" \n", "nothing"), (b"\xef\xbb\xbf{}", "byte order mark"), (b"\xff\xfe{\x00}\x00", "UTF-8"),
    (b"{'sub':'x'}", "double quotes"), (b"{sub:1}", "double quotes"), (b'{"a":1', "delimiter"), (b'{"a":}', "value"),
    (b'{"a":1} x', "data after"), (b'{"a":1,"a":2}', "twice"), (b'{"a":NaN}', "finite"), (b'{"a":1e999}', "finite"),
    (b'{"a":%s}' % (b"9" * 309), "digits"), (b'{"a":"\\ud800"}', "surrogate"),
    (b'{"a":%s}' % (b"[" * 32 + b"]" * 32), "levels"),
    (b"[" * 100_000, "levels"), (b"[]", "object"), (b'"x"', "object"), (b"null", "object"), (b'{"a":"\n"}', "control"),
]  # fmt: skip


@pytest.mark.parametrize("raw, words", FAULTS, ids=[str(number) for number in range(len(FAULTS))])
def test_each_fault_has_its_own_message(raw, words):
    with pytest.raises(jwt.DecodeError, match=f"Invalid claims string: .*{words}"):
        jwt.read_json(raw, "claims")
