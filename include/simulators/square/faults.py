"""Misbehaviour to order: which request it strikes, and what the client gets instead."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from include.simulators.rules import Rule

Body = Literal["errors", "message", "error", "nothing"]


@dataclass(frozen=True)
class Fault(Rule):
    """What the client gets instead of its answer.

    A request matches by `endpoint` (`orders/search`, `payments`, `catalog/object/{id}`: the path below /v2 with
    `{id}` for ids; None: any), by `item` (the id in the path; None: any), by `page` (the how-manieth of its
    crawl, from 1; None: any, and what has no pages) and by `location` (one that it names, maybe among others; None:
    any).

    Kinds that spoil the whole answer:
    - `status`: answers `status` with the error `code` (None: the usual one of that status), as JSON of the form
      `body` or as `html`, and with Retry-After, in seconds, if given. The status can be 200
    - `drop`: ends the connection before an answer
    - `cut`: ends the connection in the middle of the body
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 504
    - `empty_page`: a page without rows before the one that was asked for, with a cursor
    - `no_rows`: a page without rows that seems to be the last, or an answer about nothing
    - `no_cursor`: the page seems to be the last
    - `expired_cursor`: every cursor given out so far is bad from now on, also that of the request
    - `errors`: leaves out the first `rows` rows, or those of `location` if given, and has the error `code` beside
      the others

    Kinds that lie about the first `rows` rows of a page or a batch, or about the only row:
    - `duplicate_rows`: repeats them at the page's end
    - `missing_rows`: leaves them out; no other page has them
    - `poorer`: without their `fields`; dots lead into objects and lists
    - `changed`: with `changes` over what they hold
    - `doubled`: the lists in their `fields` hold the first entry twice
    - `swapped`: each carries the id of the next, the last of them that of the first
    - `other`: each is another row of its kind, with that one's id
    - `stale`: as they were before their last change; those that came with it are missing
    """

    kind: Literal[
        "status",
        "drop",
        "cut",
        "hang",
        "empty_page",
        "no_rows",
        "no_cursor",
        "expired_cursor",
        "errors",
        "duplicate_rows",
        "missing_rows",
        "poorer",
        "changed",
        "doubled",
        "swapped",
        "other",
        "stale",
    ]
    endpoint: str | None = None
    item: str | None = None
    page: int | None = None
    location: str | None = None
    status: int = 500
    code: str | None = None
    body: Body = "errors"
    html: bool = False
    retry_after: int | None = None
    seconds: float = 600
    rows: int = 1
    fields: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)

    def matches(self, endpoint: str, item: str, page: int | None, places: Collection[str]) -> bool:
        return (
            self.endpoint in (None, endpoint)
            and self.item in (None, item)
            and self.page in (None, page)
            and (self.location is None or self.location in places)
        )
