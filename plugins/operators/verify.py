"""`verify`: check that the repair has made the copy better. If anything got worse, the writer is held."""

import logging
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from psycopg import Connection

from include.confidence import holds, run_evidence
from include.confidence.summary import ForensicSummary
from include.sources import verbs
from include.sources.base import Check, Context
from include.warehouse import fence, sync_log
from plugins import metrics
from plugins.hooks import source as source_hook
from plugins.operators.base import SourceOperator
from plugins.operators.scan import summaries
from plugins.results import log_line
from plugins.runs import run_name

log = logging.getLogger(__name__)


class MadeWorse(AirflowFailException):
    """After the repair a figure is worse than the scan found it."""


class NotEnded(Exception):
    """The repair has not ended or has failed, although its task looks successful."""


ON_CALL = """
Checks whether the repair has made the copy better, and stores what it found in the warehouse.

**If it fails:** if the writer is held, roll back the `sync_id` that the message names (`warehouse_rollback`). Then
clear `scan` with downstream.
"""


class VerifyOperator(SourceOperator):
    """Compare the repaired copy with the scans, and a sample of it with the source.

    The run's repair is read from the warehouse; the task is skipped if that was verified already. Returns the figures
    before and after. If one got worse, the task holds the writer and fails; its message names the sync_id to roll back.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> list[dict[str, Any]]:
        scans = summaries(context)
        with source_hook.opened(self.source, run_name(context)) as opened:
            fence.require_stopped(opened.conn, self.source, opened.run)
            sync_id = _to_verify(opened)
            with metrics.timed(self.source, "verify"):
                checks = verbs.run_verify(opened, scans, sync_id)
            for check in checks:
                log.info("%s.%s: %d before, %d after", check.entity, check.figure, check.before, check.after)
            worse = [check for check in checks if check.worse]
            metrics.send({"worse": len(worse)}, self.source, "verify")
            log_line(context, self.source, "verify", sync_id=sync_id, checks=len(checks), worse=len(worse))
            with opened.conn.transaction():
                sync_log.save_checks(opened.conn, sync_id, [vars(check) for check in checks])
                if worse:
                    self._hold(opened.conn, scans, worse, _reason(worse, sync_id))
            if worse:
                raise MadeWorse(_reason(worse, sync_id))
        return [vars(check) for check in checks]

    def _hold(self, conn: Connection, scans: list[ForensicSummary], worse: list[Check], reason: str) -> None:
        for scan in scans:
            if scan.entity in {check.entity for check in worse}:
                holds.mark_hold(conn, scan.scan_id, reason)
        holds.refresh_hold(conn, self.source)


def _to_verify(opened: Context) -> int:
    """Return the sync_id of the run's repair. Raises AirflowSkipException if there is none to verify, or NotEnded."""
    entities = [entity.name for entity in opened.source.entities]
    repair = run_evidence.read(opened.conn, opened.source.name, opened.run, entities).repair
    if repair is None:
        raise AirflowSkipException("nothing was applied")
    if repair.verified_at or repair.undone:
        raise AirflowSkipException(f"the repair (sync_id {repair.sync_id}) was verified or rolled back already")
    if repair.state != "success":
        raise NotEnded(
            f"the repair (sync_id {repair.sync_id}) is {repair.state} in confidence.sync_log, although reconcile does"
            " not look failed; confidence.change_log has what was committed. Clear scan with downstream"
        )
    return repair.sync_id


def _reason(worse: list[Check], sync_id: int) -> str:
    figures = ", ".join(f"{check.entity}.{check.figure} {check.before} -> {check.after}" for check in worse)
    return (
        f"after the repair {figures}: worse than the scan found it. The writer is held; roll back with the DAG"
        f" warehouse_rollback, sync_id {sync_id}, then clear scan with downstream"
    )
