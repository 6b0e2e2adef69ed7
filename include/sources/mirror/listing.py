"""The lists of an entity: what to request, and in which partitions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.api.paginators import Paginator
from include.api.request import Request
from include.sources.mirror.context import MirrorContext


@dataclass(frozen=True)
class Partitions:
    """The parts in which a list is requested, such as locations. Each part has a watermark of its own.

    - `values`: return the partitions that the warehouse knows
    - `request`: put up to `size` partitions into a request
    - `column`: the table's column with the partition of a row
    - `listed_by`: the entity whose records are the partitions. Its list is read too, since the copy may lack one.
    - `adds`: the source's rows don't name their partition, so it is added to them. Then `size` has to be 1.
    """

    values: Callable[[MirrorContext], Sequence[str]]
    request: Callable[[Request, Sequence[str]], Request]
    column: str
    listed_by: str | None = None
    size: int = 1
    adds: bool = False

    def __post_init__(self) -> None:
        if self.adds and self.size > 1:
            raise ValueError(f"rows that don't say their {self.column} can be asked for by one {self.column} only")


@dataclass(frozen=True)
class NewestOnly:
    """The limit of a list with only the latest changes, which may not reach back to `since`.

    `condition`: SQL over rows `t` of the copy, true if the list would show the row without its limit.
    """

    since: datetime
    condition: str


@dataclass(frozen=True)
class Listing:
    """A list to read from its first page to its last.

    - `request`: None if there is nothing to request, because the run itself gives the rows in `named`
    - `partition`: the partition that the list belongs to; empty if it belongs to several or to none
    - `adds`: values to add to each row, because the source's rows lack them
    - `shape`: convert a row to what the entity's table reads; None for a row to ignore
    - `newest`: set by a sync if a list in brief shows a limited number of records
    - `deleted`: as in `Feed`; None for all other lists
    """

    request: Request | None
    paginator: Paginator
    partition: str = ""
    adds: Mapping[str, Any] = field(default_factory=dict)
    shape: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda row: row
    named: Sequence[Mapping[str, Any]] = ()
    newest: NewestOnly | None = None
    deleted: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None
