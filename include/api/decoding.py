"""JSON of an API, decoded without floats."""

import re
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

# What decoding raises for bytes that are no JSON.
BROKEN_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# Half a surrogate pair, as JSON writes it, and not a backslash before "ud83d".
HALF_PAIR = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


def _exact(number: str) -> Decimal | str:
    """Return a JSON number as a Decimal.

    An exponent too long for any Decimal becomes a NUL, as in `decode_body`: it spoils its own record only.
    """
    try:
        return Decimal(number)
    except InvalidOperation:
        return "\0"


# Money comes as JSON numbers too, and must not become a float.
decode_json = msgspec.json.Decoder(float_hook=_exact).decode


def decode_body(body: bytes) -> Any:
    """Return the JSON of an answer's body. Raises one of BROKEN_JSON.

    Half a surrogate pair becomes a NUL, so that only the record that holds it is refused, and not the whole answer.
    """
    try:
        return decode_json(body)
    except msgspec.DecodeError:
        if not HALF_PAIR.search(body):
            raise
        return decode_json(HALF_PAIR.sub(rb"\g<1>\\u0000", body))
