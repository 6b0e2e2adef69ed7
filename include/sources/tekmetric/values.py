"""How Tekmetric writes values: readers for columns, and for the checks of answers."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from include.warehouse.readers import boolean, decimal, identifier, text

DEFAULT_TIMEZONE = "America/New_York"
# Limits for plausible cents and quantities. Values below them can be multiplied and added without overflow.
TOO_MUCH, TOO_MANY = 10**12, 10**6
# The error of floating point is smaller than DUST for numbers below the limit.
MILLIONTH, DUST = Decimal("0.000001"), Decimal("1e-9")


def cents(value: Any) -> int | None:
    """Return an amount rounded half up to whole cents, since the vendor's may have errors of floating point."""
    number = _below(TOO_MUCH, decimal(value))
    return None if number is None else int(number.to_integral_value(ROUND_HALF_UP))


def exact(value: Any) -> Decimal | None:
    """Return a number as it is. Raises ValueError if it is none, or implausibly large."""
    return _below(TOO_MANY, decimal(value))


def hours(value: Any) -> Decimal | None:
    """Return a number of hours without the error of floating point: 2.9499999999999997 is 2.95."""
    number = exact(value)
    meant = number and number.quantize(MILLIONTH, ROUND_HALF_UP)
    return meant if number and abs(number - meant) < DUST else number


def quantity(value: Any) -> Decimal | None:
    """Return a number of pieces, rounded to four places."""
    number = _below(TOO_MANY, decimal(value))
    return None if number is None else number.quantize(Decimal("0.0001"), ROUND_HALF_UP)


def percent(value: Any) -> Decimal | None:
    """Return a share (0.665) as per cent, rounded to two places. "NaN", the vendor's share of nothing, is None."""
    if value == "NaN":
        return None
    share = _below(TOO_MUCH, decimal(value))
    return None if share is None else (share * 100).quantize(Decimal("0.01"), ROUND_HALF_UP)


def share(value: Any) -> Decimal | None:
    """Return a share (0.665) as it is. "NaN", the vendor's share of nothing, is None."""
    return None if value == "NaN" else exact(value)


def decided(value: Any) -> bool:
    """Return whether the customer has said so, False if not asked yet."""
    return boolean(value) or False


def name_of(value: Any) -> str | None:
    """Return the name in `{id, name}`, or the value itself if that is the name; None if it is blank."""
    name = text(value.get("name") if isinstance(value, dict) else value)
    return name if name and name.strip() else None


def id_of(value: Any) -> int | None:
    """Return the id in `{id, name}`, None if the value is only a name."""
    return identifier(value.get("id")) if isinstance(value, dict) else None


def code_of(value: Any) -> str | None:
    """Return the code in `{code, ...}`, or the value itself if that is the code."""
    return text(value.get("code") if isinstance(value, dict) else value)


def code_beside_name(value: Any) -> str | None:
    """Return the code in `{code, name, ...}`, None if the value is only the name."""
    return code_of(value) if isinstance(value, dict) else None


def person(value: Any) -> str | None:
    """Return the full name in an object that describes a person. Raises ValueError for anything else."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("is nobody's description")
    names = [text(value.get(part)) for part in ("firstName", "lastName")]
    return name_of(value.get("fullName")) or " ".join(name for name in names if name) or None


def texts(value: Any) -> list[str] | None:
    """Return a list of texts; one text becomes a list with it."""
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        return [text(value)]
    return [text(each) for each in value if each is not None]


def day(value: Any) -> date | None:
    """Return a calendar day, given as a date or in ISO 8601. Raises ValueError for anything else.

    An instant is refused: its day depends on the shop's time zone.
    """
    if value is None or value == "":
        return None
    if type(value) is date:
        return value
    try:
        return datetime.strptime(value, "%Y-%m-%d").date()
    except (TypeError, ValueError):
        raise ValueError("is no ISO 8601 day") from None


def written_day(value: Any) -> date | None:
    """Return the day at the start of a text, even if a time of day follows."""
    return day(value[:10] if isinstance(value, str) else value)


def zone(value: Any) -> str:
    """Return the name of a time zone. Raises ValueError if there is none of that name."""
    name = DEFAULT_TIMEZONE if value is None else value
    if not isinstance(name, str) or name not in _zones():
        raise ValueError("is no time zone such as America/New_York")
    return name


@cache
def _zones() -> set[str]:
    return available_timezones()


def _below(limit: int, number: Decimal | None) -> Decimal | None:
    if number is not None and abs(number) >= limit:
        raise ValueError("is too large to be true")
    return number


def phone(primary: bool, name: str) -> Callable[[Any], str | None]:
    """Return a reader of field `name` of the customer's primary phone, or of the next one.

    If none is marked as primary, the first is.
    """

    def read(value: Any) -> str | None:
        phones = _phones(value)
        first = next((phone for phone in phones if phone.get("primary")), phones[0] if phones else None)
        chosen = first if primary else next((phone for phone in phones if phone is not first), None)
        return text(chosen.get(name)) if chosen else None

    return read


def _phones(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, str):
        return [{"number": value}] if value.strip() else []
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(phone, dict) for phone in value):
        raise ValueError("is no list of phones")
    return value
