"""Read what one run has left in the warehouse, for the page of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import scalar_row

from include.confidence import proofs
from include.confidence.policy import Verdict, worst_verdict
from include.confidence.queries.paging import MAX_PAGE, fetch_rows
from include.confidence.queries.scans import SCANS, Scan, scan_of
from include.confidence.queries.syncs import SYNC_ROWS, SyncRow, sync_row_of
from include.confidence.summary import Plan
from include.confidence.unproven import Unproven, oldest
from include.warehouse.sync_log import Counts


@dataclass(frozen=True)
class Run:
    """What one run (`dag_id/run_id`) has left in the warehouse.

    - `verdict`: the worst on the newest scan of each entity and scope, without those that were put off; None if none
      was judged
    - `scans`, `syncs`: its scans and its rows of the sync log, newest first, the first 200 of each
    - `planned`, `rows`, `proven`: sums over the same scans
    - `unproven`: rows that it could not prove, and no later run has looked at; oldest first, the first 200
    - `applied`: what its repairs have done
    - `put_off`: {entity: why} of those that it has left to a later night
    - `stood_seconds`: for how long it has kept the writer stopped, until now if it still does; None if it did not
    """

    run: str
    source: str
    verdict: Verdict | None
    scans: tuple[Scan, ...]
    planned: Plan
    rows: int | None
    proven: int | None
    unproven: tuple[Unproven, ...]
    applied: Counts
    syncs: tuple[SyncRow, ...]
    put_off: Mapping[str, str]
    stood_seconds: float | None


def read_run(conn: Connection, name: str) -> Run | None:
    """Return what the run `dag_id/run_id` has left in the warehouse; None if it has left nothing."""
    found = [
        scan_of(row) for row in fetch_rows(conn, SCANS, [("run = %s", name)], "scanned_at DESC, scan_id", MAX_PAGE)
    ]
    syncs = [sync_row_of(row) for row in fetch_rows(conn, SYNC_ROWS, [("run = %s", name)], "sync_id DESC", MAX_PAGE)]
    if not (found or syncs):
        return None
    source = (found or syncs)[0].source
    put_off = proofs.put_off_by(conn, source, name)
    newest = list({(scan.entity, scan.scope): scan for scan in reversed(found) if scan.entity not in put_off}.values())
    counted = [scan for scan in newest if scan.rows is not None]
    return Run(
        run=name,
        source=source,
        verdict=worst_verdict(scan.verdict for scan in newest),
        scans=tuple(found),
        planned=Plan(*(sum(getattr(scan.plan, what) for scan in newest) for what in ("insert", "update", "delete"))),
        rows=sum(scan.rows for scan in counted) if counted else None,
        proven=sum(scan.proven for scan in counted) if counted else None,
        unproven=tuple(oldest(conn, source, MAX_PAGE, run=name)),
        applied=sum((row.counts for row in syncs if row.kind == "repair"), Counts()),
        syncs=tuple(syncs),
        put_off=put_off,
        stood_seconds=_stood(conn, source, name),
    )


def _stood(conn: Connection, source: str, run: str) -> float | None:
    with conn.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(STOOD, [source, run]).fetchone()


STOOD = """
SELECT sum(extract(epoch FROM coalesce(ended_at, clock_timestamp()) - began_at))::double precision
FROM confidence.writer_stop WHERE source = %s AND run = %s
"""
