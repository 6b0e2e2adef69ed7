"""Misbehaviour and changes to order, and which request they strike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from include.simulators.rules import Rule
from include.simulators.tekmetric.changes import Mutation


@dataclass(frozen=True, kw_only=True)
class Strike(Rule):
    """A request matches by its path below /api (`repair-order/880123/estimate`; in a pattern `*` is anything, be it
    with slashes) and by all of `params` being among its query parameters.
    """

    path: str = "*"
    params: Mapping[str, str] = field(default_factory=dict)

    def matches(self, path: str, query: Mapping[str, str]) -> bool:
        return fnmatchcase(path, self.path) and self.params.items() <= query.items()


@dataclass(frozen=True)
class Fault(Strike):
    """What the client gets instead of its answer.

    - `status`: that `status` with the vendor's body, or with one in `html`, and with Retry-After, in seconds, if
      given; HTML with 200 is `status=200, html=True`
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 504
    - `broken_json`: half a document, whole as far as HTTP knows
    - `answer`: 200 with `content`
    - `swap`: what the path `other` is answered
    - `edit`: its answer, but every field `name` in it is changed: left out, null, an empty list, a list without its
      last item, or one that has its first item twice. Without a name it is the answer itself, if that is a list.
    """

    kind: Literal["status", "drop", "cut", "hang", "broken_json", "answer", "swap", "edit"]
    status: int = 500
    html: bool = False
    retry_after: int | None = None
    seconds: float = 600
    content: Any = None
    other: str = ""
    name: str = ""
    edit: Literal["missing", "null", "empty", "short", "twice"] = "missing"


def edited(document: Any, fault: Fault) -> Any:
    """The document with what the fault does to it."""
    if isinstance(document, list):
        rows = [edited(each, fault) for each in document]
        return rows if fault.name else _changed(rows, fault.edit)
    if not isinstance(document, dict):
        return document
    fields = {name: edited(value, fault) for name, value in document.items()} if fault.name else document
    if fault.name in fields and fault.edit == "missing":
        return {name: value for name, value in fields.items() if name != fault.name}
    return fields | {fault.name: _changed(fields[fault.name], fault.edit)} if fault.name in fields else fields


def _changed(value: Any, edit: str) -> Any:
    if edit == "null":
        return None
    if not isinstance(value, list):
        return value
    return {"empty": [], "short": value[:-1], "twice": [*value[:1], *value]}.get(edit, value)


@dataclass(frozen=True)
class Trigger(Strike):
    """Changes to carry out before a request is answered."""

    mutations: tuple[Mutation, ...]
