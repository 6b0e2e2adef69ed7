"""A slice of a scan: another task helps the one that scans to list the bucket."""

import time
from datetime import timedelta

from include.confidence import scan_log
from include.sources.storage import look
from include.sources.storage.check import CheckOptions, StorageContext
from include.sources.storage.images import IMAGES, OBJECTS
from include.warehouse import ranges
from include.warehouse.staging import Stage

# How long a slice waits for the scan to begin, and how often it looks.
PATIENCE, POLL = timedelta(minutes=10), timedelta(seconds=1)


def read_slice(context: StorageContext, options: CheckOptions, scan_id: str, slice_number: int) -> int:
    """List ranges that nobody reads, as long as there are any. Return the number of pages.

    Nothing is read if the scan asks for single objects, does not begin within PATIENCE, or is over.
    """
    look.prove(context.bucket)
    objects = _listing(context, options, scan_id)
    if objects is None:
        return 0
    pages = look.list_slice(context.bucket, objects, slice_number=slice_number, workers=options.workers)
    with context.conn.transaction():
        context.census.keep(context.conn, context.run, whole=False)
    return pages


def _listing(context: StorageContext, options: CheckOptions, scan_id: str) -> Stage | None:
    """Wait for the scan to begin its listing; return what is staged of it, None if there is nothing to help with."""
    conn, asked = context.conn, (context.source.name, options.purpose, options.ticket)
    end = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < end:
        objects, staged = (Stage.join(conn, table, *asked) for table in (OBJECTS, IMAGES))
        if objects and ranges.are_cut(objects):
            return objects
        begun = staged and staged.pull.progress
        if (begun and not begun["listing"]) or (not begun and scan_log.is_recorded(conn, scan_id)):
            return None
        time.sleep(POLL.total_seconds())
    return None
