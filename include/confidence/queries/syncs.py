"""Read the sync log, for pages and endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql

from include.confidence.queries.paging import PAGE, Page, decode_cursor, fetch_rows, make_page
from include.warehouse.sync_log import Counts


@dataclass(frozen=True)
class SyncRow:
    """A row of the sync log.

    - `kind`: `sync`, `repair`, `rollback` or `watermark`
    - `counts`: of all entities together; `entities`: the counts of each
    - `undoes`: the sync_id that this rollback undid; `undone_by`: the sync_id of the rollback that undid this one
    """

    sync_id: int
    source: str
    kind: str
    run: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    duration_seconds: float | None
    counts: Counts
    entities: Mapping[str, Counts]
    requests: int
    request_errors: int
    undoes: int | None
    undone_by: int | None
    reason: str | None
    error: str | None


def list_syncs(
    conn: Connection,
    source: str,
    *,
    kind: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> Page[SyncRow]:
    """Return a page of the source's sync log, newest first. `since`: none that began earlier. Raises CursorRefused."""
    filters = [("source = %s", source)]
    filters += [("kind = %s", kind)] if kind else []
    filters += [("state = %s", state)] if state else []
    filters += [("started_at >= %s", since)] if since else []
    filters += [("sync_id < %s", *decode_cursor(cursor, int))] if cursor else []
    rows = fetch_rows(conn, SYNC_ROWS, filters, "sync_id DESC", limit)
    return make_page([sync_row_of(row) for row in rows], limit, lambda row: [row.sync_id])


def read_sync(conn: Connection, source: str, sync_id: int) -> SyncRow | None:
    """Return one row of the source's sync log; None if the source has no such sync_id."""
    rows = fetch_rows(conn, SYNC_ROWS, [("source = %s", source), ("sync_id = %s", sync_id)], "sync_id", 1)
    return sync_row_of(rows[0]) if rows else None


def source_of_sync(conn: Connection, sync_id: int) -> str | None:
    """Return the source that the sync_id belongs to; None if there is no such sync_id."""
    rows = fetch_rows(conn, SYNC_ROWS, [("sync_id = %s", sync_id)], "sync_id", 1)
    return rows[0]["source"] if rows else None


def sync_row_of(row: Mapping[str, Any]) -> SyncRow:
    """Return the SyncRow of a row of SYNC_ROWS."""
    same = ("sync_id", "source", "kind", "run", "state", "started_at", "finished_at", "requests", "request_errors")
    counted = ("read", "inserted", "updated", "deleted", "unchanged", "superseded", "failed")
    seconds = row["duration_seconds"]
    return SyncRow(
        **{name: row[name] for name in (*same, "undoes", "undone_by", "reason", "error")},
        duration_seconds=None if seconds is None else float(seconds),
        counts=Counts(**{name: row[f"rows_{name}"] for name in counted}),
        entities={entity: Counts(**counts) for entity, counts in row["entities"].items()},
    )


SYNC_COLUMNS = sql.SQL("""
  l.*, (SELECT max(later.sync_id) FROM confidence.sync_log later
        WHERE later.undoes = l.sync_id AND later.state = 'success') AS undone_by
""")

SYNC_ROWS = sql.SQL("SELECT {} FROM confidence.sync_log l").format(SYNC_COLUMNS)
