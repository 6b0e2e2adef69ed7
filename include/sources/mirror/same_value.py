"""Whether two values that come from two addresses say the same."""

from datetime import datetime

# What says nothing.
BLANK = (None, "", [], {})
# Of times, in microseconds: a second, a millisecond, a microsecond.
UNITS = (1_000_000, 1_000, 1)


def same_value(one: object, other: object) -> bool:
    """Return whether two addresses say the same. One may write a blank for null, or a time with fewer digits."""
    if one == other or (one in BLANK and other in BLANK):
        return True
    if not (isinstance(one, datetime) and isinstance(other, datetime)):
        return False
    # In microseconds: the unit of the time that is written with fewer digits, as far as its zeros tell.
    unit = max(next(each for each in UNITS if moment.microsecond % each == 0) for moment in (one, other))
    return one.replace(microsecond=one.microsecond // unit * unit) == other.replace(
        microsecond=other.microsecond // unit * unit
    )


def is_earlier(one: datetime, other: datetime) -> bool:
    """Return whether a time is earlier than another, and not only written with fewer digits."""
    return one < other and not same_value(one, other)
