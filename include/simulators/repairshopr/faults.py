"""Misbehaviour to order: which request it strikes, and what the client gets instead."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from starlette.datastructures import QueryParams

from include.simulators.answers import HTML
from include.simulators.repairshopr.config import RetryAfter
from include.simulators.repairshopr.values import Row, whole
from include.simulators.rules import Rule

ErrorBody = Literal["error", "empty", "html", "record", "errors_list", "errors_object", "messages", "message", "alone"]
_ERROR_BODIES: Mapping[str, Any] = {
    "error": {"error": "Something went wrong"},
    "record": {"record": {"id": None}, "errors": "Name can't be blank"},
    "errors_list": {"record": {"id": None}, "errors": ["Name can't be blank"]},
    "errors_object": {"record": {"id": None}, "errors": {"name": ["can't be blank"]}},
    "messages": {"success": False, "message": ["Name can't be blank"], "params": {}},
    "message": {"success": False, "error": "invalid", "message": "Name can't be blank"},
    "alone": {"message": "temporarily unavailable"},
}


@dataclass(frozen=True)
class Call:
    """A request to the vendor's API: `/api/v1/{resource}/{item}/{rest...}`."""

    method: str
    resource: str
    item: str | None
    rest: tuple[str, ...]
    params: QueryParams
    body: bytes

    @property
    def page(self) -> int:
        """The page asked for; 1 where the parameter is no page number."""
        return max(1, whole(self.params.get("page")) or 1)

    @property
    def is_list(self) -> bool:
        """Whether the request reads a list."""
        return self.method == "GET" and self.item is None


@dataclass(frozen=True)
class Fault(Rule):
    """What the client gets instead of its answer.

    A request matches by `method`, `resource` (None: any), `page` (lists only; None: any), `item` (the id in
    the path; None: any, lists included) and by all of `params` being among its query parameters.

    Kinds:
    - `status`: answers `status` with an error body of the form `body`, and `retry_after` seconds, if given. The
      status can be 200
    - `timeout`: hangs until the client has gone; one that waits `seconds` gets a 504
    - `cut`: ends the connection in the middle of the body
    - `broken_json`: half a document, whole as far as HTTP knows
    - `empty_page`: no rows
    - `total_pages`: puts `value` there; None leaves the key out
    - `duplicate_rows`: repeats the first `value` rows (None: one) at the page's end, changed by `changes`
    - `same_page`: the rows of page `value` (None: the page before)
    - `meta`: changes nothing but the totals, as `meta` says, which all kinds heed

    Kinds that lie about the page's `rows` (places from 0; None: all), or about a single row:
    - `ids`: writes `id_field` in the form `id_form`
    - `missing_rows`: leaves them out, and no other page has them
    - `error_beside`: the same, with an error beside the other rows
    - `poorer`: without their `fields`; dots lead into lists and objects
    - `changed`: with `changes` over what they hold
    - `doubled`: the lists in their `fields` hold the first entry twice
    - `stub`: the id alone, with `changes`
    - `other`: each is the row after it, with that one's id
    """

    kind: Literal[
        "status",
        "timeout",
        "cut",
        "broken_json",
        "empty_page",
        "total_pages",
        "duplicate_rows",
        "same_page",
        "meta",
        "ids",
        "missing_rows",
        "error_beside",
        "poorer",
        "changed",
        "doubled",
        "stub",
        "other",
    ]
    method: str = "GET"
    resource: str | None = None
    page: int | None = None
    item: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    status: int = 500
    body: ErrorBody = "error"
    retry_after: int | None = None
    retry_after_form: RetryAfter = "seconds"
    seconds: float = 600
    value: int | str | None = None
    id_field: str = "id"
    id_form: Literal["text", "blank", "null", "zero"] = "text"
    rows: tuple[int, ...] | None = None
    fields: tuple[str, ...] = ()
    changes: Row = field(default_factory=dict)
    meta: Row = field(default_factory=dict)

    def matches(self, call: Call) -> bool:
        return (
            self.method == call.method
            and self.resource in (None, call.resource)
            and (self.page is None or (call.is_list and self.page == call.page))
            and self.item in (None, call.item)
            and self.params.items() <= call.params.items()
        )


def error_body(form: ErrorBody) -> tuple[bytes, str]:
    """Body and content type of an error in one of the shapes that the vendor uses."""
    if form == "html":
        return HTML, "text/html; charset=utf-8"
    if form == "empty":
        return b"", "text/plain"
    return msgspec.json.encode(_ERROR_BODIES[form]), "application/json"
