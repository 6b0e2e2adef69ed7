"""Read what the warehouse has of one run: scans, repairs, decision. The steps of a runbook and the watch ask for it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from psycopg import Connection
from psycopg.rows import args_row, tuple_row

from include.confidence import proofs
from include.confidence.account import Account
from include.confidence.outcome import Evidence, LatestScan, Repair
from include.confidence.policy import Verdict
from include.warehouse import fence
from include.warehouse.sync_log import Counts


def read(conn: Connection, source: str, run: str, entities: Sequence[str]) -> Evidence:
    """Return what the warehouse has of a run. `entities`: the names of all that the source has."""
    params = {"source": source, "run": run}
    put_off = proofs.put_off_by(conn, source, run)
    with conn.cursor(row_factory=args_row(_latest_scan)) as cursor:
        latest = cursor.execute(SCANS_OF_RUN, params).fetchall()
    scans = tuple(scan for scan in latest if scan.entity not in put_off)
    with conn.cursor(row_factory=args_row(_repair)) as cursor:
        repairs = tuple(cursor.execute(REPAIRS_OF_RUN, params).fetchall())
    # A decision is about all of the run's scans, so one from before the last scan is about an earlier run's.
    params |= {"begun": max((scan.scanned_at for scan in scans), default=None)}
    with conn.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(DECISION_OF_RUN, params).fetchone()
        decision, decided_by, decided_at, reason = found or (None, None, None, None)
        (unproven,) = cursor.execute(
            "SELECT count(*) FROM confidence.unproven WHERE source = %(source)s", params
        ).fetchone()
    return Evidence(
        run,
        fence.read(conn, source),
        tuple(entities),
        scans,
        repairs,
        decision=decision,
        decided_by=decided_by,
        decided_at=decided_at,
        reason=reason,
        unproven=unproven,
        put_off=put_off,
    )


def judged_worse(conn: Connection, source: str, run: str) -> list[str]:
    """Return a line for each scan of the run that did not pass, with its reasons."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            "SELECT entity, scope, reasons FROM confidence.forensic_run"
            " WHERE source = %s AND run = %s AND verdict IN ('warn', 'hold') ORDER BY entity, scope, scanned_at",
            [source, run],
        ).fetchall()
    return [f"{entity} ({scope}): {'; '.join(reasons)}" for entity, scope, reasons in rows]


def _latest_scan(
    entity: str,
    scope: str,
    epoch: int,
    scanned_at: datetime,
    rescanned: bool,
    verdict: str | None,
    summary: dict,
    left_out: bool,
) -> LatestScan:
    counted = [Account(**account) for account in summary.get("accounts", {}).values()]
    return LatestScan(
        entity=entity,
        scope=scope,
        epoch=epoch,
        scanned_at=scanned_at,
        complete=not (rescanned or summary.get("incomplete")),
        verdict=Verdict(verdict) if verdict else None,
        planned=sum(summary["plan"].values()),
        rows=sum(account.rows for account in counted) if counted else None,
        proven=sum(account.proven for account in counted) if counted else None,
        left_out=left_out,
        due=sum(account.due for account in counted),
    )


def _repair(
    sync_id: int,
    state: str,
    started_at: datetime,
    entities: Mapping[str, Mapping[str, int]],
    verified_at: datetime | None,
    checks: list[dict] | None,
    undone: bool,
) -> Repair:
    counts = {table: Counts(**count) for table, count in entities.items()}
    return Repair(sync_id, state, started_at, counts, verified_at, tuple(checks or ()), undone)


SCANS_OF_RUN = """
SELECT DISTINCT ON (entity) entity, scope, epoch, scanned_at, rescanned, verdict, summary, left_out
FROM confidence.forensic_run WHERE source = %(source)s AND run = %(run)s ORDER BY entity, scanned_at DESC
"""


REPAIRS_OF_RUN = """
SELECT l.sync_id, l.state, l.started_at, l.entities, l.verified_at, l.checks,
  EXISTS (SELECT FROM confidence.sync_log u WHERE u.undoes = l.sync_id AND u.state = 'success')
FROM confidence.sync_log l WHERE l.source = %(source)s AND l.run = %(run)s AND l.kind = 'repair'
ORDER BY l.sync_id DESC
"""


# The newest decision after this run's scans and before the first scan of a later run. It may be about a hold that an
# earlier run has left.
DECISION_OF_RUN = """
SELECT decision, decided_by, decided_at, decision_reason FROM confidence.forensic_run
WHERE source = %(source)s AND decided_at > %(begun)s AND decided_at < coalesce(
  (SELECT min(scanned_at) FROM confidence.forensic_run
   WHERE source = %(source)s AND run <> %(run)s AND scanned_at > %(begun)s),
  'infinity')
ORDER BY decided_at DESC LIMIT 1
"""
