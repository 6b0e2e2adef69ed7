"""The verdicts on scans, kept with the evidence, and the earlier scans that a new one is judged by.

Every function works in the transaction of the connection that it is given and never commits. They are called in this
order: `scan_log.record`, then `past_runs`, `policy.judge`, `save_judgement`, `holds.refresh_hold`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from psycopg import Connection
from psycopg.rows import args_row, tuple_row
from psycopg.types.json import Jsonb

from include.confidence.holds import Decision
from include.confidence.policy import GROWTH_RUNS, Judgement, PastRun, Verdict
from include.confidence.scan_log import PlanGone, unknown_scan
from include.confidence.summary import ForensicSummary


def past_runs(conn: Connection, summary: ForensicSummary, limit: int = GROWTH_RUNS) -> list[PastRun]:
    """Return the judged scans of the same source, entity and scope, newest first, for `policy.judge`.

    They go back to the `limit`-th good run (not held, or accepted by a person), so that many bad nights don't hide the
    baseline. The newest accepted run is among them however old it is. Earlier scans of the same run are left out, as
    clearing a scan does not make a second bad night; but its holds are not, so that clearing can't remove a hold.
    """
    with conn.cursor(row_factory=args_row(_past_run)) as cursor:
        return cursor.execute(
            """
            WITH judged AS (
              SELECT *, decision = 'resume' OR (decision = 'repair' AND left_out) AS accepted
              FROM confidence.forensic_run
              WHERE source = %(source)s AND entity = %(entity)s AND scope = %(scope)s
                AND verdict IS NOT NULL AND scan_id <> %(scan_id)s AND (run <> %(run)s OR verdict = 'hold')
            )
            SELECT scan_id, metrics, verdict, worse, decision, accepted, summary -> 'examples' AS examples, scanned_at,
              (SELECT coalesce(sum(rows::int), 0) FROM jsonb_each_text(summary -> 'plan') AS p(operation, rows))
            FROM judged
            WHERE scanned_at >= coalesce(
              (SELECT scanned_at FROM judged WHERE verdict <> 'hold' OR accepted
               ORDER BY scanned_at DESC LIMIT 1 OFFSET %(limit)s - 1),
              '-infinity')
              OR scan_id = (
                SELECT scan_id FROM judged WHERE accepted ORDER BY scanned_at DESC LIMIT 1)
            ORDER BY scanned_at DESC
            """,
            {
                "source": summary.source,
                "entity": summary.entity,
                "scope": summary.scope,
                "scan_id": summary.scan_id,
                "run": summary.run,
                "limit": limit,
            },
        ).fetchall()


def save_judgement(conn: Connection, summary: ForensicSummary, judgement: Judgement) -> None:
    """Keep the verdict with the scan's evidence.

    If this scan has an open hold already, nothing changes: judging the same evidence again can't end a hold.
    Raises LookupError if the scan is not recorded, PlanGone if a newer attempt of it has begun.
    """
    with conn.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            """
            SELECT (verdict = 'hold' AND coalesce(decision, 'keep') = 'keep') IS TRUE,
              rescanned OR summary ->> 'evidence' IS DISTINCT FROM %s
            FROM confidence.forensic_run WHERE scan_id = %s FOR UPDATE
            """,
            [summary.evidence, summary.scan_id],
        ).fetchone()
    if found is None:
        raise unknown_scan(summary.scan_id)
    held, replaced = found
    if replaced:
        raise PlanGone(
            f"{summary.entity} was scanned again after it left these figures, which are no evidence any more: clear"
            " scan with downstream"
        )
    if held:
        return
    conn.execute(
        """
        UPDATE confidence.forensic_run SET verdict = %(verdict)s, worse = %(worse)s, reasons = %(reasons)s,
          baseline = %(baseline)s, gates = %(gates)s
        WHERE scan_id = %(scan_id)s
        """,
        {
            "scan_id": summary.scan_id,
            "verdict": judgement.verdict,
            "worse": list(judgement.worse),
            "reasons": list(judgement.reasons),
            "baseline": Jsonb({g.metric: g.baseline for g in judgement.gates if g.baseline is not None}),
            "gates": Jsonb([asdict(gate) for gate in judgement.gates]),
        },
    )


def _past_run(
    scan_id: str,
    metrics: Mapping[str, int | None],
    verdict: str,
    worse: list[str],
    decision: str | None,
    accepted: bool | None,
    examples: Mapping[str, list] | None,
    scanned_at: datetime,
    planned: int,
) -> PastRun:
    return PastRun(
        scan_id=scan_id,
        metrics=metrics,
        verdict=Verdict(verdict),
        worse=tuple(worse),
        accepted=bool(accepted),
        held=verdict == Verdict.HOLD and decision in (None, Decision.KEEP),
        planned=planned,
        examples=examples or {},
        scanned_at=scanned_at,
    )
