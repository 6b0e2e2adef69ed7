"""How a list is asked for what changed in it since the last sync."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from include.api.paginators import Paginator
from include.api.request import Request


def as_unix_time(moment: datetime) -> int:
    """A time as whole seconds since 1970: a `format` of `Since`."""
    return int(moment.timestamp())


@dataclass(frozen=True)
class Since:
    """The list takes a filter for changes: `param` names it, in the query or in the body.

    `format` writes the time in UTC: a pattern of strftime, or a function such as `as_unix_time`.
    """

    param: str
    format: str | Callable[[datetime], Any] = "%Y-%m-%dT%H:%M:%S.%fZ"
    in_body: bool = False

    def request(self, listing: Request, since: datetime) -> Request:
        """The request for what changed since then."""
        moment = since.astimezone(UTC)
        changed = {self.param: moment.strftime(self.format) if isinstance(self.format, str) else self.format(moment)}
        if self.in_body:
            return replace(listing, body={**listing.body, **changed})
        return replace(listing, params={**listing.params, **changed})


@dataclass(frozen=True)
class Feed:
    """Changes come from a list of their own, apart from the records: events, say.

    `request` asks for what changed since a time, page by page of `paginator`. `record` takes out of an event the record
    as the table reads it, None where it has none. `deleted` takes out a record of which the event says that it is
    deleted, with its key at least, else None: then the record's own address decides. `keeps`: for how long the vendor
    keeps events; a sync that is further behind reads the records' own list. Events in any order will do: of a record's
    states the newest version counts.
    """

    request: Callable[[datetime], Request]
    paginator: Paginator
    record: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    deleted: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda event: None
    keeps: timedelta | None = None


@dataclass(frozen=True)
class BothEnds:
    """The list has no filter for changes: read it from both ends until a page holds nothing young.

    That finds what changed whether the list is sorted by id or by time, either way round. Old rows changed in the
    middle of a list that is sorted by id are left to the nightly scan.
    """


@dataclass(frozen=True)
class Window:
    """The list takes both ends of a time of change, inclusive: `request` puts them in.

    The end is the source's clock when the sync began; what changes while pages are read is left to the next sync.
    `late`: the request for what was created so near to the window that its change may have come behind it.
    """

    request: Callable[[Request, datetime, datetime], Request]
    late: Callable[[Request, datetime, datetime], Request] | None = None


@dataclass(frozen=True)
class FullList:
    """The list has no filter and no end to begin at, but is short: a sync reads all of it and compares.

    `every`: how old the last reading has to be; each sync reads it by default. What the list doesn't show any more is
    left to the nightly scan, which looks twice.
    """

    every: timedelta = timedelta(0)


# One of these: an entity that is listed says which.
Changes = Since | Window | Feed | BothEnds | FullList
