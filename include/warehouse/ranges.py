"""The ranges of a pull: what several tasks read at the same time, each range by one of them.

A task claims ranges that nobody reads. Each page is stored together with the position in its range, and only while the
claim holds, so a task that has lost its claim stores nothing more.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from include.warehouse.pull import PullError
from include.warehouse.staging import Stage

# A range may be claimed by another task if its reader has stored no page for so long. A page takes less, four attempts
# of 35 seconds each, unless its answer trickles in: then it may be read twice, and is stored once.
LEASE = timedelta(minutes=5)
# How long a task that has nothing left to read waits for the others, before it looks again.
OTHERS_READ = timedelta(seconds=1)


class RangeLost(PullError):
    """Another task has taken the range over, or the pull was started again. The message says what to do."""


@dataclass(frozen=True)
class PullRange:
    """A claimed range. `bounds` and `position` are JSON as the source understands it; no `position`: at the start."""

    number: int
    bounds: Any
    position: Any


@dataclass(frozen=True)
class Progress:
    """How far all readers together have come."""

    complete: bool
    pages: int
    rows_read: int
    rows_refused: int


def read_to_end(stage: Stage, bounds: Callable[[], Sequence[Any]], read: Callable[["Ranges"], Iterator[None]]) -> None:
    """Read a pull in ranges to its end; tasks that have joined it read with this one.

    - `bounds`: say into which ranges to cut the pull, once
    - `read`: claim ranges and store their pages until none is free; yields after each page

    What a dead task has claimed is read here once its lease is over.
    """
    if stage.pull.complete:
        return
    ranges = Ranges(stage, slice_number=0)
    if not are_cut(stage):
        ranges.cut(bounds())
    while not stage.pull.complete:
        for _ in read(ranges):
            stage.count_ranges(**vars(ranges.progress()))
        stage.count_ranges(**vars(ranges.progress()))
        if not stage.pull.complete:
            time.sleep(OTHERS_READ.total_seconds())


def are_cut(stage: Stage) -> bool:
    """Return whether the pull is cut into ranges."""
    return stage.conn.execute(ARE_CUT, [stage.pull.pull]).fetchone()[0]


class Ranges:
    """The ranges of a pull in the hands of one reader, a task that reads the slice of that number.

    To begin takes over what an earlier try of the same slice has claimed.
    """

    def __init__(self, stage: Stage, slice_number: int):
        self._stage = stage
        self._conn: Connection = stage.conn
        self._ids = {"pull": stage.pull.pull, "slice": slice_number, "reader": uuid.uuid4()}
        self._conn.execute(RELEASE, self._ids)

    def cut(self, bounds: Sequence[Any]) -> None:
        """Cut the pull into ranges with these bounds. Raises PullError as `Stage.store` does."""
        with self._conn.transaction():
            self._stage.save_progress()
            for number, each in enumerate(bounds):
                self._conn.execute(CUT, self._ids | {"number": number, "bounds": Jsonb(each)})

    def claim(self, most: int) -> list[PullRange]:
        """Claim up to `most` ranges that nobody reads; none once the pull is over or was started again."""
        values = {"began": self._stage.pull.started_at, "most": most, "lease": LEASE}
        with self._conn.cursor(row_factory=class_row(PullRange)) as cursor:
            claimed = cursor.execute(CLAIM, self._ids | values).fetchall()
        return sorted(claimed, key=lambda each: each.number)

    def store(self, claimed: PullRange, page: Iterable[Mapping[str, Any]], *, position: Any) -> None:
        """Store a page's rows with the position of the range's next page, both or neither; None ends the range.

        Raises RangeLost if the claim no longer holds.
        """
        with self._conn.transaction():
            self._stage.store_where(page, lambda read, refused: self._move(claimed, position, read, refused))

    def progress(self) -> Progress:
        """Return how far all readers together have come."""
        with self._conn.cursor(row_factory=class_row(Progress)) as cursor:
            return cursor.execute(PROGRESS, self._ids).fetchone()

    def _move(self, claimed: PullRange, position: Any, read: int, refused: int) -> int:
        """Move the range on, and return the number of the page that was read."""
        values = {"number": claimed.number, "position": Jsonb(position), "complete": position is None}
        moved = self._conn.execute(MOVE, self._ids | values | {"read": read, "refused": refused}).fetchone()
        if moved is None:
            pull = self._stage.pull
            raise RangeLost(
                f"range {claimed.number} of the pull of {pull.source}.{pull.entity} was taken over by another task, or"
                " the warehouse restarted. Nothing is lost. Clear this task if no other one reads"
            )
        return moved[0]


RELEASE = "UPDATE staging.pull_range SET reader = NULL WHERE pull = %(pull)s AND slice = %(slice)s AND NOT complete"

ARE_CUT = "SELECT EXISTS (SELECT FROM staging.pull_range WHERE pull = %s)"

CUT = "INSERT INTO staging.pull_range (pull, number, bounds) VALUES (%(pull)s, %(number)s, %(bounds)s)"

# A pull that was started again under the same name has begun at another time.
CLAIM = """
WITH free AS MATERIALIZED (
  SELECT r.pull, r.number FROM staging.pull_range r JOIN staging.pull p USING (pull)
  WHERE pull = %(pull)s AND p.started_at = %(began)s AND NOT r.complete
    AND (r.reader IS NULL OR r.updated_at < clock_timestamp() - %(lease)s)
  ORDER BY r.number LIMIT %(most)s FOR UPDATE OF r SKIP LOCKED
)
UPDATE staging.pull_range r SET slice = %(slice)s, reader = %(reader)s, updated_at = clock_timestamp()
FROM free WHERE r.pull = free.pull AND r.number = free.number
RETURNING r.number, r.bounds, r.position
"""

MOVE = """
UPDATE staging.pull_range SET position = %(position)s, complete = %(complete)s, pages = pages + 1,
  rows_read = rows_read + %(read)s, rows_refused = rows_refused + %(refused)s, updated_at = clock_timestamp()
WHERE pull = %(pull)s AND number = %(number)s AND reader = %(reader)s AND NOT complete
RETURNING pages
"""

PROGRESS = """
SELECT coalesce(bool_and(complete), false) AS complete, coalesce(sum(pages), 0)::bigint AS pages,
  coalesce(sum(rows_read), 0)::bigint AS rows_read, coalesce(sum(rows_refused), 0)::bigint AS rows_refused
FROM staging.pull_range WHERE pull = %(pull)s
"""
