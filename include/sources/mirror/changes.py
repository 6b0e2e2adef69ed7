"""The ways to ask a list for what changed since the last sync."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from include.api.paginators import Paginator
from include.api.request import Request


def as_unix_time(moment: datetime) -> int:
    """Return a time as whole seconds since 1970. A `format` for `Since`."""
    return int(moment.timestamp())


@dataclass(frozen=True)
class Since:
    """The list has a filter for changes: the param `param`, in the query or in the body.

    `format`: how to write the time in UTC, as a strftime pattern or a function such as `as_unix_time`.

    Raises ValueError if the pattern writes the same at all times, or the month in place of the minutes.
    """

    param: str
    format: str | Callable[[datetime], Any] = "%Y-%m-%dT%H:%M:%S.%fZ"
    in_body: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.format, str):
            return
        if "%" not in self.format.replace("%%", ""):
            raise ValueError(f"the format of Since, {self.format!r}, writes no time: give a strftime pattern")
        if re.search(r"%H\W?%m|%m\W?%S|%Y\W?%M", self.format):
            raise ValueError(f"the format of Since, {self.format!r}, mixes up %m, the month, and %M, the minutes")

    def request(self, listing: Request, since: datetime) -> Request:
        """Return the request for what changed since then."""
        changed = {self.param: self.value(since)}
        if self.in_body:
            return replace(listing, body={**(listing.body or {}), **changed})
        return replace(listing, params={**listing.params, **changed})

    def value(self, since: datetime) -> Any:
        """Return the time as the API wants it."""
        moment = since.astimezone(UTC)
        return moment.strftime(self.format) if isinstance(self.format, str) else self.format(moment)


@dataclass(frozen=True)
class Feed:
    """Changes come from a separate list, such as a list of events.

    The events may come in any order if the records have a version. Else the last event of a record is its newest.

    - `request`: make the request for the events since a time, in the pages of `paginator`
    - `record`: extract the record from an event, as the table reads it; None if the event has none
    - `deleted`: extract the deleted record, with at least its key; None if the event reports no delete. A look-up then
      decides whether the record is gone.
    - `newest_first`: the first event of a record is the newest; only matters if the records have no version
    - `keeps`: how long the vendor keeps events. A sync that is further behind reads the records' own list.

    If the feed reaches the `cap` of its paginator, the sync reads the records' own list too.
    """

    request: Callable[[datetime], Request]
    paginator: Paginator
    record: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    deleted: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda event: None
    newest_first: bool = False
    keeps: timedelta | None = None


@dataclass(frozen=True)
class Deletes:
    """Deletes come from a separate list, beside the one of what changed. A look-up decides whether a record is gone.

    - `request`: make the request for the deletes since a time, in the pages of `paginator`
    - `deleted`: extract the deleted record from an entry, with at least its key; None for an entry of another kind
    """

    request: Callable[[datetime], Request]
    paginator: Paginator
    deleted: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


@dataclass(frozen=True)
class BothEnds:
    """The list has no filter for changes. Read it from both ends, until a page has no recent change.

    This works for lists sorted by id or by time, ascending or descending. If the list is sorted by id, changes of old
    rows in its middle are left to the nightly scan, for which they are drift.
    """


@dataclass(frozen=True)
class Window:
    """The list has a filter for changes with a start and an end, both inclusive.

    The end is the source's clock at the start of the sync. Changes during the sync are left to the next one.

    - `request`: make the request for what changed in the window
    - `late`: make the request for records created shortly before the window, whose updates may arrive late
    """

    request: Callable[[Request, datetime, datetime], Request]
    late: Callable[[Request, datetime, datetime], Request] | None = None


@dataclass(frozen=True)
class FullList:
    """The list has no filter for changes but is short, so a sync reads and compares all of it.

    Rows that disappear from the list are left to the nightly scan, because it looks twice.
    `every`: the least time between two readings. By default each sync reads the list.
    """

    every: timedelta = timedelta(0)


# What `Listed.changes` takes.
Changes = Since | Window | Feed | BothEnds | FullList
