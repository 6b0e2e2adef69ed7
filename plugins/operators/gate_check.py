"""`gate_check`: compare the figures of the scans with earlier good runs; the verdict is pass, warn or hold."""

import logging
from collections.abc import Collection
from typing import Any

from airflow.sdk.exceptions import DownstreamTasksSkipped

from include.confidence import holds, judgements
from include.confidence.policy import SEVERITY, Judgement, Verdict, judge
from include.confidence.summary import ForensicSummary, UnusableSummary
from include.sources import get_source
from include.sources.base import entity_of, policies
from include.warehouse import fence
from plugins import metrics, stop_budget
from plugins.hooks import warehouse
from plugins.operators.base import SourceOperator
from plugins.operators.scan import summaries
from plugins.results import log_line
from plugins.runs import run_name

log = logging.getLogger(__name__)

ON_CALL = """
Judges the scans' figures by the good runs before: pass, warn or hold. Writes the verdicts to the warehouse.

**If it fails:** the writer goes on as before, nothing was repaired. Clear `scan` with downstream for fresh evidence.
"""


class GateCheckOperator(SourceOperator):
    """Judge every scan of the run; store verdicts and holds in the warehouse. What was put off is not judged.

    Returns {"verdict", "reasons", "drift": number of planned changes, "hold": why the writer is held, or None}. Without
    a hold `decide` is skipped; if nothing is planned either, `reconcile` and `verify` are skipped too.
    """

    on_call = ON_CALL

    def execute(self, context: Any) -> dict[str, Any]:
        run = run_name(context)
        scans = summaries(context)
        with warehouse.connect(run) as conn:
            writer = fence.require_stopped(conn, self.source, run)
            put_off = stop_budget.put_off_waiting(conn, self.source, run)
            scans = [scan for scan in scans if scan.entity not in put_off]
            _require_fresh(scans, writer, self.source, put_off)
            with conn.transaction():
                judgements = [self._judge(conn, scan) for scan in scans]
                hold = holds.refresh_hold(conn, self.source)
        result = {
            "verdict": str(max((j.verdict for j in judgements), key=list(Verdict).index)),
            "reasons": [reason for judgement in judgements for reason in judgement.reasons],
            "drift": sum(scan.plan.rows for scan in scans),
            "hold": hold,
        }
        log_line(context, self.source, "gate", **result)
        skipped = _not_needed(result)
        if skipped:
            # Skipping is an exception, after which Airflow stores no return value.
            context["ti"].xcom_push(key="return_value", value=result)
            raise DownstreamTasksSkipped(tasks=skipped)
        return result

    def _judge(self, conn: Any, scan: ForensicSummary) -> Judgement:
        entity = entity_of(get_source(self.source), scan.entity)
        judgement = judge(scan, judgements.past_runs(conn, scan), policies(entity))
        judgements.save_judgement(conn, scan, judgement)
        metrics.send({"verdict": SEVERITY[judgement.verdict]}, self.source, scan.entity)
        log.info("%s: %s", scan.entity, judgement.verdict)
        for gate in judgement.gates:
            log.info(
                "  %s = %s, baseline %s, limit %s: %s",
                *(gate.metric, gate.value, gate.baseline, gate.limit, gate.verdict or "not judged"),
            )
        for reason in judgement.reasons:
            log.warning("  %s", reason)
        return judgement


def _not_needed(result: dict[str, Any]) -> list[str]:
    if result["hold"]:
        return []
    return ["decide"] if result["drift"] else ["decide", "reconcile", "verify"]


def _require_fresh(scans: list[ForensicSummary], writer: fence.Writer, source: str, put_off: Collection[str]) -> None:
    """Raise UnusableSummary unless every entity was scanned completely since the present stop of the writer.

    Those that were put off are left out, as long as one was scanned.
    """
    stale = [scan.entity for scan in scans if scan.epoch != writer.epoch or scan.incomplete]
    missing = {entity.name for entity in get_source(source).entities} - {scan.entity for scan in scans}
    missing -= set(put_off) if scans else set()
    if stale or missing:
        raise UnusableSummary(
            f"scans from before this stop, or incomplete: {', '.join(stale) or 'none'};"
            f" missing: {', '.join(sorted(missing)) or 'none'}."
            " Clear scan (all of its map indexes) with downstream"
        )
