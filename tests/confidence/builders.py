"""Summaries, judgements and past runs with the few figures that a test is about, and scans in the warehouse."""

from psycopg.rows import dict_row

from include.confidence import judgements, scan_log
from include.confidence.policy import Judgement, PastRun, Verdict
from include.confidence.summary import ForensicSummary, Plan

METRIC = "api_unique_not_in_db"
PASSED = Judgement(Verdict.PASS, (), (), ())
WARNED = Judgement(Verdict.WARN, (METRIC,), ("too many",), ())
HELD = Judgement(Verdict.HOLD, (METRIC,), ("far too many",), ())


def summary(value=0, *, live_rows=1000, plan=(0, 0, 0), scan_id="scan", run=None, **changes) -> ForensicSummary:
    """A scan of line items; `value` is METRIC's figure, `plan` the rows to insert, update and delete."""
    figures = {
        "source": "repairshopr",
        "entity": "line_items",
        "scope": "all",
        "epoch": 1,
        "metrics": {METRIC: value},
        "telemetry": {"api_reported_total_entries": 990},
        "examples": {"missing_examples": [7, 8]},
    }
    return ForensicSummary(
        scan_id=scan_id,
        run=run or f"run of {scan_id}",
        live_rows=live_rows,
        plan=Plan(*plan),
        **figures | changes,
    )


def past(value, verdict=Verdict.PASS, *, accepted=False, held=False, worse=None, **more) -> PastRun:
    """An earlier run with METRIC's figure; a run that did not pass was worse in it."""
    if worse is None:
        worse = () if verdict is Verdict.PASS else (METRIC,)
    return PastRun(f"scan with {value}", {METRIC: value} | more, verdict, worse, accepted, held)


def passes(*values) -> list[PastRun]:
    return [past(value) for value in values]


def judged(conn, scan_id, judgement=PASSED, value=0, **figures) -> ForensicSummary:
    scanned = summary(value, scan_id=scan_id, **figures)
    scan_log.record(conn, scanned)
    judgements.save_judgement(conn, scanned, judgement)
    return scanned


def rows(conn) -> list[dict]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("SELECT * FROM confidence.forensic_run ORDER BY scanned_at").fetchall()
