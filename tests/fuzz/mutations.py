"""Answers that no vendor should give: a true body changed by chance, as JSON, as XML or as bytes.

No mutation knows the vendor: it sees the shape of the body alone.
"""

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

# In values, never in what names a record: no message and no log may have it. No word of an enumeration is like it.
CANARY = "hush!"
WORDS = re.compile(rb"[\w-]+")

_decode = msgspec.json.decode
_encode = msgspec.json.encode


@dataclass
class Mutated:
    """A changed body. `kinds`: what was done to it. `touched`: the words of the records that were changed."""

    body: bytes
    kinds: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)


def raw(text: bytes) -> msgspec.Raw:
    """JSON, or what looks like it, that is written as it is."""
    return msgspec.Raw(text)


def raws(*texts: bytes) -> list[msgspec.Raw]:
    return list(map(raw, texts))


def deep(levels: int, opening: bytes, closing: bytes) -> msgspec.Raw:
    return raw(opening * levels + b"1" + closing * levels)


LEVELS = (40, 490, 800, 930, 980, 10_000)
# By kind; each value may stand anywhere in an answer.
VALUES: dict[str, Sequence[Any]] = {
    "null": [None],
    "flag": [True, False],
    "empty": ["", [], {}, " ", [[]], [None], {"": ""}],
    "text": [CANARY, f"{CANARY} {CANARY}", f"\u202e{CANARY}\ufeff", CANARY * 50_000, "<b>&amp;'\"\\;--", "%s{0}{x}"],
    "odd text": ["NaN", "Infinity", "-infinity", "1e400", "1_000", "\uff11\uff12", "0x10", " 5 ", "+7", "1e5", "-0"],
    "odd time": [
        "0000-00-00T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999999-14:00",
        "2026-02-30T00:00:00Z",
        "2026-W01-1",
        "20260101T000000Z",
        "1900-01-01T00:00:00.123456789Z",
        "infinity",
        "now",
        "2026-01-01T00:00:00+23:59:59.999999",
    ],
    "number": [0, -1, 1, 2**31, -(2**63), 2**63 - 1, 2**63, 2**64, 10**40, raw(b"9" * 300)],
    "odd number": [
        *raws(b"-0", b"-0.0", b"1e308", b"1e400", b"-1e-400", b"1e999999999", b"1e99999999999999999999", b"1E+5"),
        *raws(b"0." + b"3" * 400, b"1." + b"0" * 5000, b"1e-99999999999999999999"),
    ],
    "no JSON": [
        raw(text) for text in (b"NaN", b"Infinity", b"-Infinity", b"undefined", b"'x'", b"01", b"", b"9" * 5000)
    ],
    "bytes": [
        raw(text) for text in (b'"\xff\xfe"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\x00"')
    ],
    "surrogate": [
        raw(text) for text in (rb'"\ud800"', rb'"\udc00\ud800"', rb'"\u0000"', rb'"a\u0000b"', rb'"\\u0000"')
    ],
    "deep": [deep(levels, *ends) for levels in LEVELS for ends in ((b"[", b"]"), (b'{"a":', b"}"))],
    "wide": [list(range(10_000)), {f"k{number}": number for number in range(3000)}, [{}] * 500, [[], {}, 1, "", None]],
}
OTHERS = (b"", b"null", b"true", b"0", b'""', b"[]", b"{}", b"[[]]", b"[null]", b'{"":[]}')
OTHERS += (b"[" * 100_000, b'{"a":' * 10_000)
# What makes an answer that is no JSON at all, or more than one. These keep the whole answer out.
WHOLE: dict[str, Callable[[bytes, Random], bytes]] = {
    "cut": lambda body, random: body[: random.randrange(len(body) + 1)],
    "flipped": lambda body, random: _flipped(body, random),
    "UTF-16": lambda body, random: body.decode(errors="replace").encode("utf-16"),
    "BOM": lambda body, random: b"\xef\xbb\xbf" + body,
    "in Latin-1": lambda body, random: body.decode(errors="replace").encode("latin-1", "replace") + b"\xe9",
    "two documents": lambda body, random: body + b"\n" + body,
    "a tail": lambda body, random: body + random.choice([b"\x00", b"//", b",", b"}", b" " * 100_000]),
    "a head": lambda body, random: random.choice([b")]}',\n", b"callback(", b"\x00", b" " * 100_000]) + body,
    "something else": lambda body, random: random.choice(
        [
            b"",
            b"null",
            b"true",
            b"0",
            b'""',
            b"[]",
            b"{}",
            b"[[]]",
            b"[null]",
            b'{"":[]}',
            b"[" * 100_000,
            b'{"a":' * 10_000,
        ]
    ),
    "in a list": lambda body, random: b"[" + body + b"]",
}


def mutate(body: bytes, random: Random) -> Mutated:
    """Return another body: some of its values and objects changed, or all of it."""
    if body.lstrip()[:1] == b"<":
        return _mutate_xml(body, random)
    if not body or random.random() < 0.1:
        return _mutate_whole(body, random)
    try:
        data = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _mutate_whole(body, random)
    mutated = Mutated(body)
    for _ in range(random.choice([1, 1, 2, 5])):
        mutated.kinds.append(_mutate_at_random(data, random, mutated.touched))
    mutated.body = _encode(data)
    return mutated


def _mutate_whole(body: bytes, random: Random) -> Mutated:
    kind = random.choice(sorted(WHOLE))
    return Mutated(WHOLE[kind](body, random), [kind], _words(body) if kind == "flipped" else set())


def _flipped(body: bytes, random: Random) -> bytes:
    other = bytearray(body)
    for _ in range(random.randint(1, 3) if other else 0):
        other[random.randrange(len(other))] = random.randrange(256)
    return bytes(other)


def _mutate_at_random(data: Any, random: Random, touched: set[str]) -> str:
    """Change one place of the data in place; return how. `touched` gets the words of its record, before and after."""
    holder, record = data, None
    while True:
        inner = [value for value in _values(holder) if isinstance(value, dict | list) and value]
        if not inner or random.random() < 0.25:
            break
        if isinstance(holder, list) and record is None:
            record = holder = random.choice(inner)
        else:
            holder = random.choice(inner)
    touched |= _words(_try_encode(record if record is not None else holder))
    kind = _change(holder, random)
    touched |= _words(_try_encode(record if record is not None else holder))
    return kind


def _values(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder.values())
    return holder if isinstance(holder, list) else []


def _words(text: bytes) -> set[str]:
    return {word.decode() for word in WORDS.findall(text)}


def _try_encode(value: Any) -> bytes:
    try:
        return _encode(value)
    except (RecursionError, UnicodeEncodeError):
        return b""


def _change(holder: Any, random: Random) -> str:
    """Change an object or a list in place; return how."""
    if not isinstance(holder, dict | list):
        return "nothing"
    if not holder:
        _add_keys(holder, random)
        return "keys"
    place = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    kind = random.choice(["value"] * 6 + ["wrapped", "text of it", "gone", "doubled", "moved", "keys"])
    match kind:
        case "value":
            kind = random.choice(sorted(VALUES))
            holder[place] = deepcopy(random.choice(VALUES[kind]))
            if kind == "text" and str(place).lower().endswith(("id", "uid", "key", "token", "cursor")):
                holder[place] = "another"
        case "wrapped":
            holder[place] = random.choice([[holder[place]], {"value": holder[place]}, {"0": holder[place]}])
        case "text of it":
            holder[place] = _try_encode(holder[place]).decode(errors="replace")
        case "gone":
            del holder[place]
        case "doubled":
            _double(holder, place)
        case "moved":
            other = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            holder[place], holder[other] = holder[other], holder[place]
        case "keys":
            _add_keys(holder, random)
    return kind


def _double(holder: Any, place: Any) -> None:
    """A key twice, with another value first; or an element twice."""
    if isinstance(holder, list):
        holder.append(holder[place])
    else:
        # An object is written in order, and a raw key would be no key: the second one comes with the value.
        holder[place] = raw(b"null," + _encode(place) + b":" + (_try_encode(holder[place]) or b"0"))


def _add_keys(holder: Any, random: Random) -> None:
    if isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), random.choice([None, 1, "", [], {}, {"id": None}]))
        return
    for key in random.choice([[""], ["\0"], ["a" * 100_000], ["a.b", "a[]", '"'], [f"k{i}" for i in range(2000)]]):
        holder[key] = random.choice([1, None, "", {"": {"": [1]}}, [{"\0": 1}]])


BOMB = (
    b'<!DOCTYPE x [<!ENTITY a "'
    + b"y" * 1000
    + b'">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 20) for i in range(8))
    + b"]>"
)
OUTSIDE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
KEY = re.compile(rb"(?<=<Key>)[^<]*(?=</Key>)")
PIECES = (
    b"",
    b"&#0;",
    b"&#xD800;",
    b"&amp;lt;",
    b"&a;",
    b"&i;",
    b"&#13;",
    b"%00",
    b"%FF%FE",
    b"+",
    b"\xff\xfe",
    b"\x00",
)
PIECES += (b"<Key>hush</Key>", b"<Contents>", b"</Contents>", b"<Size>0</Size>", b"\r\n", b"<x/>")
PIECES += (b"<![CDATA[hush]]>", b"<!-- x -->")
TEXTS = (b"true", b"false", b"", b"-1", b"9" * 400, b"NaN", b"url", b"hush", b"1e400")
ELEMENT = re.compile(rb"(?<=>)[^<>]+(?=</)")


def _mutate_xml(body: bytes, random: Random) -> Mutated:
    if random.random() < 0.15:
        return _mutate_whole(body, random)
    mutated = Mutated(body)
    for _ in range(random.choice([1, 1, 2, 5])):
        kind = random.choice(["bomb", "encoding", "piece", "key", "text", "dropped", "nested", "prefixed"])
        mutated.kinds.append(kind)
        before = mutated.body
        mutated.body = _other_xml(before, kind, random)
    mutated.touched = _words(mutated.body) | _words(body)
    return mutated


def _other_xml(body: bytes, kind: str, random: Random) -> bytes:
    head, start, rest = body.partition(b"?>")
    match kind:
        case "bomb":
            content = random.choice([body, body.replace(b"<Key>", b"<Key>" + random.choice([b"&i;", b"&a;"]), 1)])
            head, start, rest = content.partition(b"?>")
            return head + start + random.choice([BOMB, OUTSIDE]) + rest
        case "encoding":
            said = random.choice([b"utf-16", b"utf-7", b"latin-1", b"idna", b"zlib", b"no-such", b"cp037", b"UTF-8"])
            return b'<?xml version="1.0" encoding="' + said + b'"?>' + rest
        case "piece":
            at = random.randrange(len(body) + 1)
            return body[:at] + random.choice(PIECES) + body[at:]
        case "key":
            return _at_one(KEY, body, random, lambda key: key + random.choice(PIECES))
        case "text":
            return _at_one(ELEMENT, body, random, lambda _: random.choice(TEXTS))
        case "dropped":
            return _at_one(re.compile(rb"<(\w+)>[^<]*</\1>"), body, random, lambda _: b"")
        case "nested":
            levels = random.choice([10, 1000, 100_000])
            return body.replace(b"<Contents>", b"<x>" * levels + b"</x>" * levels + b"<Contents>", 1)
    return body.replace(b"<Key>", b"<s:Key>").replace(b"</Key>", b"</s:Key>")


def _at_one(pattern: re.Pattern[bytes], body: bytes, random: Random, change: Callable[[bytes], bytes]) -> bytes:
    found = list(pattern.finditer(body))
    if not found:
        return body
    place = random.choice(found)
    return body[: place.start()] + change(place.group()) + body[place.end() :]
