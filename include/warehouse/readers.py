"""The readers of columns: each turns any JSON value of a field into the value of a column.

They raise ValueError with the end of a sentence that begins with the column's name, such as "is no whole number".
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Clamped, Context, Decimal, Inexact, InvalidOperation
from typing import Any

import msgspec

BIGINT = range(-(2**63), 2**63)
WHOLE = re.compile(r"\s*[+-]?\d{1,30}\s*")
# The exponents that Postgres' NUMERIC has, and more digits than any figure needs. Other figures are refused.
NUMERIC = Context(prec=1000, Emin=-15_384, Emax=131_071, traps=[InvalidOperation, Inexact])
UNIX_START = datetime(1970, 1, 1, tzinfo=UTC)
# NUL as JSON escapes it; an escaped backslash before the letters "u0000" is something else.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
# More levels of JSON in JSON than any record needs, and fewer than Python and Postgres can read.
DEEPEST = 500
# The numbers in JSON that Python reads again as they are, and what may be others.
IN_JSON = Context(prec=1000, Emin=-1000, Emax=1000, traps=[InvalidOperation, Inexact, Clamped])
PERHAPS_TOO_LONG = re.compile(r"\d[eE][+-]?\d{4}|\d{999}")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_encode = msgspec.json.Encoder(decimal_format="number").encode


def integer(value: Any) -> int | None:
    """Return a whole number of 64 bits, also from text; None for null and empty text."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        raise ValueError("is a flag, not a whole number")
    if isinstance(value, str) and not WHOLE.fullmatch(value):
        raise ValueError("is no whole number")
    if isinstance(value, Decimal) and value.adjusted() > 18:
        # int() would write out all the digits of 1E+999999999.
        raise ValueError("is no whole number of 64 bits")
    try:
        number = int(value)
        exact = isinstance(value, str) or number == value
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is no whole number") from None
    if not exact or number not in BIGINT:
        raise ValueError("is no whole number of 64 bits")
    return number


def identifier(value: Any) -> int | None:
    """Return a vendor's numeric id, from a number or text. None for 0 and for everything else; it never raises."""
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value == 0 or value not in BIGINT:
        return None
    return value


def decimal(value: Any) -> Decimal | None:
    """Return an exact decimal, from a whole number, a Decimal or text; None for null and empty text."""
    if value is None or value == "":
        return None
    if isinstance(value, bool | float | list):
        raise ValueError("is no exact decimal")
    try:
        number = NUMERIC.create_decimal(value)
    except Inexact:
        raise ValueError("has more digits than can be stored") from None
    except (InvalidOperation, TypeError, ValueError):
        raise ValueError("is no decimal number") from None
    if not number.is_finite():
        raise ValueError("is not a finite number")
    return number


def instant(value: Any) -> datetime | None:
    """Return a time in UTC, from ISO 8601 text; without an offset it is in UTC. None for null and empty text."""
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is no ISO 8601 time") from None


def unix_time(value: Any) -> datetime | None:
    """Return a time in UTC, from seconds since 1970 as a number or text; None for null and empty text."""
    seconds = decimal(value)
    try:
        return None if seconds is None else UNIX_START + timedelta(seconds=float(seconds))
    except OverflowError:
        raise ValueError("is no time that can be stored") from None


def text(value: Any) -> str | None:
    """Return text; a number or flag as Python writes it. None for null."""
    if value is None:
        return None
    if not isinstance(value, str):
        if isinstance(value, dict | list):
            raise ValueError("is a structure, not text")
        value = str(value)
    if not value.isascii() or "\0" in value:
        _storable(value)
    return value


def boolean(value: Any) -> bool | None:
    """Return a flag, also from the text "true" or "false"; None for null and empty text."""
    if value is None or isinstance(value, bool):
        return value
    if value == "":
        return None
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("is no flag")


def structure(value: Any) -> str | None:
    """Return any JSON value as JSON text; None for null."""
    if value is None:
        return None
    try:
        encoded = _encode(value).decode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if "\\u0000" in encoded and NUL.search(encoded):
        raise ValueError("holds a NUL character")
    if encoded.count("[") + encoded.count("{") > DEEPEST and _depth(encoded) > DEEPEST:
        raise ValueError("is nested too deeply")
    if PERHAPS_TOO_LONG.search(encoded):
        _require_short_numbers(STRING.sub("", encoded))
    return encoded


def _depth(encoded: str) -> int:
    """Return how many levels of objects and lists the JSON has."""
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", STRING.sub("", encoded)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _require_short_numbers(encoded: str) -> None:
    """Raise ValueError if JSON without its strings has a number with more digits than can be stored and read again."""
    for number in re.findall(r"-?\d[-+.\deE]*", encoded):
        try:
            IN_JSON.create_decimal(number)
        except (Inexact, Clamped):
            raise ValueError("holds a number with more digits than can be stored") from None


def _storable(value: str) -> None:
    """Raise ValueError for text that Postgres can't store."""
    if "\0" in value:
        raise ValueError("holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair") from None
