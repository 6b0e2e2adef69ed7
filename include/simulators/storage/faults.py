"""Misbehaviour to order: which request it strikes, and what the client gets instead."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from include.simulators.rules import Rule
from include.simulators.storage.protocol import Request

Operation = Literal["list", "bucket", "head", "get", "put", "delete"]


@dataclass(frozen=True)
class Fault(Rule):
    """What the client gets instead of its answer.

    A request matches by `operation` and by the object's `key` (None: any). The lies `hide` and `show` name their
    `keys`; a request for an object matches if it is one of them.

    Kinds:
    - `status`: answers `status` with the error `code` (None: the usual one of that status)
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 503
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body; where the answer has none, before an answer
    - `truncated_xml`: half the document, whole as far as HTTP knows
    - `ignore_start_after`: lists from the beginning whatever `start-after` says; tokens still work
    - `first_page`: lists from the beginning wherever the list is to go on, tokens included
    - `delete_marker`: the 404 of a versioned bucket whose object was deleted and can be restored
    - `hide`: answers as if there were no object under `keys`; without any, as if the bucket were empty
    - `show`: answers as if there were an object under each of `keys`
    - `frame`: a list whose frame has `fields` in place of its own; null takes one away
    - `proxy`: a server in between answers `status` with a page of `content_type` (None: without type and content)
    """

    kind: Literal[
        "status",
        "hang",
        "drop",
        "cut",
        "truncated_xml",
        "ignore_start_after",
        "first_page",
        "delete_marker",
        "hide",
        "show",
        "frame",
        "proxy",
    ]
    operation: Operation | None = None
    key: str | None = None
    status: int = 500
    code: str | None = None
    seconds: float = 600
    keys: tuple[str, ...] = ()
    fields: Mapping[str, str | None] = field(default_factory=dict)
    content_type: str | None = "text/html; charset=utf-8"

    def matches(self, request: Request) -> bool:
        asked_for = self.key is None or self.key == request.key
        among = not self.keys or not request.key or request.key in self.keys
        return self.operation in (None, request.operation) and asked_for and among
