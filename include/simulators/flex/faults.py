"""Misbehaviour and changes to order, and which request they strike."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args
from uuid import UUID

from include.simulators.flex.changes import Mutation
from include.simulators.rules import Rule

Spoil = Literal[
    "object",
    "null",
    "null_row",
    "no_line_id",
    "no_resource",
    "no_type",
    "inventory",
    "line_twice",
    "resource_twice",
    "ids_disagree",
    "types_disagree",
]
SPOILS: tuple[str, ...] = get_args(Spoil)
Lie = Literal["empty", "short", "lag", "swapped", "envelope", "without_roles", "ignored", "misplaced"]
LIES: tuple[str, ...] = get_args(Lie)


@dataclass(frozen=True, kw_only=True)
class Strike(Rule):
    """A request matches by its path below /f5/api, without a slash at its end (`line-item/*/row-data`; in a pattern `*`
    is anything, be it with slashes), and by its method.
    """

    path: str = "*"
    method: str = "*"

    def matches(self, method: str, path: str) -> bool:
        return fnmatchcase(path, self.path) and self.method in ("*", method)


@dataclass(frozen=True)
class Fault(Strike):
    """What the client gets instead of its answer. Unless said otherwise the request is carried out only if the fault
    is `committed`, and then before the fault.

    - `status`: that `status` with an exceptionMessage, or with a body in `html`, and with Retry-After, in seconds, and
      Location if given. An unreadable success is `status=200, html=True, committed=True`.
    - `drop`: ends the connection before an answer
    - `hang`: no answer until the client has gone; one that waits `seconds` gets a 504
    - `slow`: the true answer after `seconds`; the request is carried out after them, though the client may have gone,
      or before them if `committed`
    - `cut`: carried out; the connection ends in the middle of the body, or before the answer where it has no body
    - `broken_json`: carried out; half a document, whole as far as HTTP knows

    The others strike the rows of a crew call (GET row-data), and there the row of `line`, else that of the first
    contact, else one made up for them: `object` instead of an array, `null` instead of one, a `null_row` among the
    rows; the row has `no_line_id`, `no_resource`, `no_type`, or the type `inventory`; is there once more with its id
    (`line_twice`) or with another (`resource_twice`); names two resources (`ids_disagree`) or two types
    (`types_disagree`).

    The lies have nothing wrong in their form. Of those that are read (GET line-item/...):

    - `empty`: nothing is on the crew call
    - `short`: `line` isn't, or if none is named the contact that came last
    - `lag`: what was there before the last `changes` changes of that crew call
    - `swapped`: what is on the crew call `element`, or of that line
    - `envelope`: an exceptionMessage with status 200, in place of the answer
    - `without_roles`: rows without the field business-role

    Of a write, `ignored`: the answer of a success, and nothing is carried out; an add names a line that isn't there.
    `misplaced`: an add makes its line on the crew call `element`.
    """

    kind: Literal["status", "drop", "hang", "slow", "cut", "broken_json"] | Spoil | Lie
    committed: bool = False
    status: int = 500
    html: bool = False
    retry_after: int | None = None
    location: str | None = None
    seconds: float = 600
    line: UUID | None = None
    element: UUID | None = None
    changes: int = 1

    def matches(self, method: str, path: str) -> bool:
        """Whether it is meant for such a request: rows can only be spoilt where they are read."""
        rows = method == "GET" and path.endswith("/row-data")
        meant = {"ignored": method != "GET", "misplaced": "/add-resource/" in path, "without_roles": rows}
        meant |= dict.fromkeys(("empty", "short", "lag", "swapped", "envelope"), method == "GET")
        meant |= dict.fromkeys(SPOILS, rows)
        return super().matches(method, path) and meant.get(self.kind, True)

    @property
    def answers(self) -> bool:
        """Whether the request is carried out, sooner or later."""
        return self.committed or self.kind not in ("status", "drop", "hang")


@dataclass(frozen=True)
class Trigger(Strike):
    """Changes to carry out before a request is answered."""

    mutations: tuple[Mutation, ...]
