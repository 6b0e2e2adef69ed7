"""The API's protocol as values: a request, an answer, and a refusal with the code that the vendor gives it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from include.simulators.answers import Answer

Kind = TypeVar("Kind")

_STATUS = {
    "UNAUTHORIZED": 401,
    "ACCESS_TOKEN_EXPIRED": 401,
    "FORBIDDEN": 403,
    "INSUFFICIENT_SCOPES": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "RATE_LIMITED": 429,
    "INTERNAL_SERVER_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "BAD_GATEWAY": 502,
    "SERVICE_UNAVAILABLE": 503,
    "GATEWAY_TIMEOUT": 504,
}
# The code that an ordered status gets where the order names none.
USUAL_CODES = {status: code for code, status in reversed(_STATUS.items())} | {400: "BAD_REQUEST"}
_CATEGORY = {401: "AUTHENTICATION_ERROR", 403: "AUTHENTICATION_ERROR", 429: "RATE_LIMIT_ERROR"}
_DETAIL = {
    "UNAUTHORIZED": "This request could not be authorized.",
    "FORBIDDEN": "You have insufficient permissions to perform that action.",
    "RATE_LIMITED": "Too many requests. Retry with exponential backoff.",
}
# What msgspec says of a value that doesn't fit, and the vendor's code for it.
_MISFITS = tuple(
    (re.compile(pattern), code)
    for pattern, code in (
        (r"missing required field", "MISSING_REQUIRED_PARAMETER"),
        (r"Invalid enum value", "INVALID_ENUM_VALUE"),
        (r"`array` of length >=", "ARRAY_EMPTY"),
        (r"`array` of length <=", "ARRAY_LENGTH_TOO_LONG"),
        (r"Expected `int.*` >=", "VALUE_TOO_LOW"),
        (r"Expected `int.*` <=", "VALUE_TOO_HIGH"),
        (r"Expected `array", "EXPECTED_ARRAY"),
        (r"Expected `int", "EXPECTED_INTEGER"),
        (r"Expected `bool", "EXPECTED_BOOLEAN"),
        (r"Expected `str", "EXPECTED_STRING"),
        (r"Expected `object", "EXPECTED_OBJECT"),
    )
)
_PLACE = re.compile(r" - at `\$\.?(?P<field>[^`]*)`")
_NAME = re.compile(r"field `(?P<field>[^`]*)`")

encoder = msgspec.json.Encoder(decimal_format="number")
decoder = msgspec.json.Decoder(float_hook=Decimal)


class Refused(Exception):
    """A request that isn't carried out: the vendor's code, what is wrong, and the field it is wrong with."""

    def __init__(self, code: str, detail: str | None = None, field: str | None = None) -> None:
        super().__init__(code, detail, field)
        self.code, self.detail, self.field = code, detail or _DETAIL.get(code), field


@dataclass(frozen=True)
class Call:
    """A request: `endpoint` is the path below /v2 with `{id}` for the id in it, which is `item`."""

    method: str
    endpoint: str
    item: str
    query: Mapping[str, str]
    body: bytes

    @property
    def name(self) -> str:
        """What faults and counters call it."""
        return f"{self.method} {self.endpoint}"

    @property
    def places(self) -> frozenset[str]:
        """The locations that the request names."""
        try:
            asked = self.query if self.method == "GET" else decoder.decode(self.body or b"{}")
            several = asked.get("location_ids") or []
            named = several.split(",") if isinstance(several, str) else several
            return frozenset([*named, *filter(None, [asked.get("location_id")])])
        except (msgspec.DecodeError, AttributeError, TypeError):
            return frozenset()

    def read(self, kind: type[Kind]) -> Kind:
        """The parameters: of a GET the query's, else the body's. Raises Refused for what doesn't fit them."""
        try:
            if self.method == "GET":
                return msgspec.convert(dict(self.query), kind, strict=False)
            return msgspec.convert(decoder.decode(self.body or b"{}"), kind)
        except msgspec.ValidationError as misfit:
            raise _refusal(str(misfit), self.method) from None
        except msgspec.DecodeError:
            raise Refused("EXPECTED_JSON_BODY", "The body is no JSON.") from None


def ok(content: Mapping[str, Any]) -> Answer:
    """A successful answer; what is empty is left out, as the vendor does."""
    return Answer(200, encoder.encode({key: value for key, value in content.items() if value not in (None, [])}))


def error_of(refused: Refused, status: int | None = None) -> dict[str, str]:
    """One entry of an answer's `errors`."""
    status = status or _STATUS.get(refused.code, 400)
    usual = "INVALID_REQUEST_ERROR" if status < 500 else "API_ERROR"
    entry = {"category": _CATEGORY.get(status, usual), "code": refused.code}
    named = {"detail": refused.detail, "field": refused.field}
    return entry | {name: text for name, text in named.items() if text}


def error(refused: Refused, status: int | None = None) -> Answer:
    """The answer to a refused request."""
    return Answer(status or _STATUS.get(refused.code, 400), encoder.encode({"errors": [error_of(refused, status)]}))


def _refusal(misfit: str, method: str) -> Refused:
    place, name = _PLACE.search(misfit), _NAME.search(misfit)
    field = ".".join(match["field"] for match in (place, name) if match and match["field"]) or None
    if "unknown field" in misfit:
        return Refused("UNKNOWN_QUERY_PARAMETER" if method == "GET" else "UNKNOWN_BODY_PARAMETER", misfit, field)
    code = next((code for pattern, code in _MISFITS if pattern.search(misfit)), "BAD_REQUEST")
    return Refused(code, misfit, field)
