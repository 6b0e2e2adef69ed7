"""A slice of a scan: another task helps the one that scans to read bucket and images."""

import time
from collections.abc import Iterator
from datetime import timedelta

from include.confidence import scan_log
from include.sources.storage import look
from include.sources.storage.check import CheckOptions, StorageContext, read_claimed
from include.sources.storage.images import IMAGES, OBJECTS
from include.warehouse.ranges import Ranges, are_cut
from include.warehouse.staging import Stage
from include.warehouse.table import Table

# How long a slice waits for the scan to come so far, and how often it looks.
PATIENCE, POLL = timedelta(minutes=10), timedelta(seconds=1)


def read_slice(context: StorageContext, options: CheckOptions, scan_id: str, slice_number: int) -> int:
    """Read ranges that nobody reads, as long as there are any: first of the bucket, then of the images.

    Return the number of pages. Nothing is read if the scan asks for single objects, does not begin within PATIENCE, or
    is over.
    """
    look.prove(context.bucket)
    pages = sum(1 for _ in _read(context, options, scan_id, slice_number))
    with context.conn.transaction():
        context.census.keep(context.conn, context.run, whole=False)
    return pages


def _read(context: StorageContext, options: CheckOptions, scan_id: str, slice_number: int) -> Iterator[None]:
    """Read the ranges that no other task has claimed. Yield after each page."""
    if objects := _begun(context, options, scan_id, OBJECTS):
        yield from look.list_claimed(context.bucket, Ranges(objects, slice_number), options.workers)
        if staged := _begun(context, options, scan_id, IMAGES):
            yield from read_claimed(context, options, staged, Ranges(staged, slice_number))


def _begun(context: StorageContext, options: CheckOptions, scan_id: str, table: Table) -> Stage | None:
    """Wait for the scan to read that; return what is staged of it, None if there is nothing to help with."""
    conn, asked = context.conn, (context.source.name, options.purpose, options.ticket)
    end = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < end:
        wanted, staged = (Stage.join(conn, each, *asked) for each in (table, IMAGES))
        if wanted and are_cut(wanted):
            return wanted
        begun = staged and staged.pull.progress
        if (begun and not begun["listing"]) or (not begun and scan_log.is_recorded(conn, scan_id)):
            return None
        time.sleep(POLL.total_seconds())
    return None
