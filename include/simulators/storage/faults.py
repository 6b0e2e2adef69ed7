"""Misbehaviour to order: which request it strikes, and what the client gets instead."""

from dataclasses import dataclass
from typing import Literal

from include.simulators.orders import Order
from include.simulators.storage.protocol import Request

Operation = Literal["list", "bucket", "head", "get", "put", "delete"]


@dataclass(frozen=True)
class Fault(Order):
    """What the client gets instead of its answer.

    A request matches by `operation` and by the object's `key` (None: any).

    Kinds:
    - `status`: answers `status` with the error `code` (None: the usual one of that status)
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 503
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body; where the answer has none, before an answer
    - `truncated_xml`: half the document, whole as far as HTTP knows
    - `ignore_start_after`: lists from the beginning whatever `start-after` says; tokens still work
    - `delete_marker`: the 404 of a versioned bucket whose object was deleted and can be restored
    """

    kind: Literal["status", "hang", "drop", "cut", "truncated_xml", "ignore_start_after", "delete_marker"]
    operation: Operation | None = None
    key: str | None = None
    status: int = 500
    code: str | None = None
    seconds: float = 600

    def matches(self, request: Request) -> bool:
        return self.operation in (None, request.operation) and (self.key is None or self.key == request.key)
