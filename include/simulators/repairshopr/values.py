"""The forms in which the vendor writes values, and the totals of a document.

Money and quantities of documents are decimal texts; instants are ISO 8601 in UTC with milliseconds.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any

Row = dict[str, Any]

# In milliseconds.
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
_MINUTE_TEXT = tuple(f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(24 * 60))
_EPOCH_DAY = datetime(1970, 1, 1).toordinal()

_TAX_RATE = Decimal("0.0725")
_CENT = Decimal("0.01")


@cache
def _day(number: int) -> str:
    return datetime.fromordinal(_EPOCH_DAY + number).date().isoformat()


def instant(milliseconds: int) -> str:
    """Milliseconds since 1970 as the vendor writes an instant: `2026-02-03T15:20:11.482Z`."""
    day, rest = divmod(milliseconds, DAY)
    minute, rest = divmod(rest, MINUTE)
    return f"{_day(day)}{_MINUTE_TEXT[minute]}{rest // SECOND:02}.{rest % SECOND:03}Z"


def now() -> str:
    """The present instant, as the vendor writes it."""
    return instant(int(datetime.now(UTC).timestamp() * 1_000))


def decimal_text(value: Decimal) -> str:
    """A decimal as the vendor writes it: at least one decimal place, no needless zeros (`310.0`, `22.45`)."""
    text = f"{value:f}"
    whole, _, places = text.partition(".")
    return f"{whole}.{places.rstrip('0') or '0'}"


def whole(text: str | None) -> int | None:
    """The number that a parameter or a path's part is, None where it is none."""
    return int(text) if text and text.isdecimal() and len(text) < 20 else None


def totals(lines: Iterable[Row]) -> Row:
    """`subtotal`, `tax` and `total` of a document with these lines, to the cent."""
    subtotal = taxable = Decimal(0)
    for line in lines:
        amount = Decimal(line["price"]) * Decimal(line["quantity"])
        if line["discount_percent"]:
            amount *= 1 - Decimal(line["discount_percent"]) / 100
        subtotal += amount
        if line["taxable"]:
            taxable += amount
    subtotal = subtotal.quantize(_CENT, ROUND_HALF_UP)
    tax = (taxable * _TAX_RATE).quantize(_CENT, ROUND_HALF_UP)
    return {
        "subtotal": decimal_text(subtotal),
        "total": decimal_text(subtotal + tax),
        "tax": decimal_text(tax),
    }
