"""A pull: the reading of one entity, page by page, and how far it has come."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

# A pull fails if it refuses more than this share of its rows, and more than this number of them.
REFUSED_SHARE, REFUSED_FLOOR = 0.01, 20


class PullError(Exception):
    """The pull can't go on, or its rows can't be used. The message says why and what to do."""


class TooManyRefused(PullError):
    """So many rows were refused that the others are no evidence either."""


def too_many_refused(read: int, refused: int, *, ended: bool) -> bool:
    """Return whether a pull has refused too many of the rows that it read. `ended`: it has read all of them.

    Too many are more than 1 % and more than 20 rows, or all rows of a pull that read at least two.
    """
    none_stored = ended and read > 1 and refused == read
    return none_stored or refused > max(REFUSED_FLOOR, REFUSED_SHARE * read)


@dataclass(frozen=True)
class Pull:
    """How far a pull has come; a row of `staging.pull`.

    - `pull`: its name, which is the staging table's too
    - `purpose`: what the rows are for, such as `scan`
    - `ticket`: names the work that the pull belongs to; a pull is resumed only by an attempt with the same ticket
    - `attempt`: the attempt that reads now; every other one is refused
    - `position`: where the next page is, as the paginator understands it; None at the start and at the end
    - `complete`: all pages were read
    - `rows_read`: rows that the source sent; `rows_refused` of them are in confidence.quarantine with the reason
    - `source_time`: the source's clock when the pull began. If a page was older, as from a cache, the time of that page
    - `total_entries`, `total_pages`: what the source says that its list has
    - `progress`: figures that the caller keeps for the next attempt
    """

    pull: str
    source: str
    entity: str
    purpose: str
    ticket: str
    attempt: uuid.UUID
    position: Any = None
    complete: bool = False
    pages: int = 0
    rows_read: int = 0
    rows_refused: int = 0
    source_time: datetime | None = None
    total_entries: int | None = None
    total_pages: int | None = None
    progress: Mapping[str, Any] | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def too_many_refused(self) -> bool:
        return too_many_refused(self.rows_read, self.rows_refused, ended=self.complete)


def read_pull(conn: Connection, name: str) -> Pull | None:
    """Return the pull of that name; None if there is none."""
    with conn.cursor(row_factory=class_row(Pull)) as cursor:
        return cursor.execute("SELECT * FROM staging.pull WHERE pull = %s", [name]).fetchone()
