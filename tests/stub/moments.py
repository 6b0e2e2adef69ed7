"""Times as vendors write them: ISO 8601, or seconds or milliseconds since 1970."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

# Seconds since 1970 have fewer digits for a long time to come.
MILLISECONDS = 10**11


def read(value: Any, *, form: str = "") -> datetime:
    """Return the moment. `form` is that of the filter, for strptime. Raises ValueError."""
    text = str(value)
    if isinstance(value, int | Decimal) or text.isdigit():
        number = int(Decimal(text))
        return datetime.fromtimestamp(number / 1000 if number > MILLISECONDS else number, UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.strptime(text, form)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def write(moment: datetime, like: Any) -> Any:
    """Return the moment, in UTC, in the form of another value."""
    if isinstance(like, int | Decimal) and not isinstance(like, bool):
        return int(moment.timestamp() * (1000 if like > MILLISECONDS else 1))
    text = moment.isoformat(timespec="milliseconds" if "." in str(like) else "seconds")
    return text if str(like).endswith("+00:00") else text.replace("+00:00", "Z")
