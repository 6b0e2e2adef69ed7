"""Scans, verdicts, holds and decisions, kept in the warehouse's schema `confidence`.

Every function works in the transaction of the connection that it is given and never commits. The order of a
gate is `record` (evidence first), `past_runs`, `judge`, `save_judgement`, `refresh_hold`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import args_row, class_row, tuple_row
from psycopg.types.json import Jsonb

from include.confidence.account import Account
from include.confidence.outcome import Evidence, Repair, Scanned
from include.confidence.policy import GROWTH_RUNS, Judgement, PastRun, Verdict
from include.confidence.summary import ForensicSummary
from include.warehouse import fence
from include.warehouse.sync_log import Counts

# Who has decided where nobody answered in time.
NOBODY = "nobody (unanswered)"


class PlanGone(Exception):
    """A scan's plan is not in the warehouse any more. The message says what to clear."""


class NotJudged(Exception):
    """A repair lacks evidence, or the judgement of just this evidence. The message says of what, and what to clear."""


class HoldChanged(Exception):
    """What holds the writer is not what a person was asked about. The message says what to clear."""


class ScanUnderWay(Exception):
    """Scan and repair of a source exclude each other, and the other one is at work."""


class Decision(StrEnum):
    """What a person can answer to a hold."""

    KEEP = "keep"
    RESUME = "resume"
    REPAIR = "repair"


@dataclass(frozen=True)
class Hold:
    """A hold that nothing has ended yet. `asked`: a person was asked about it, and it was not scanned anew since."""

    scan_id: str
    entity: str
    scope: str
    run: str
    reasons: tuple[str, ...]
    scanned_at: datetime
    asked: bool = False


@dataclass(frozen=True)
class _Kept:
    """What the warehouse keeps of a scan, as far as a repair rests on it."""

    scan_id: str
    evidence: str | None
    rescanned: bool
    verdict: str | None
    decision: str | None


@contextmanager
def scanning(conn: Connection, source: str, run: str, entity: str, epoch: int) -> Iterator[None]:
    """Scan within this block: it keeps repairs of the source out, and what this scan found before is void from now on.

    The plan is overwritten on the way, so nothing may be repaired by the evidence before, even if this attempt fails.
    Raises ScanUnderWay while a repair is at work.
    """
    with _lock(conn, source, "pg_try_advisory_lock_shared", "pg_advisory_unlock_shared"):
        conn.execute(
            "UPDATE confidence.forensic_run SET rescanned = true"
            " WHERE run = %s AND source = %s AND entity = %s AND epoch = %s",
            [run, source, entity, epoch],
        )
        yield


@contextmanager
def repairing(
    conn: Connection, writer: fence.Writer, entities: Collection[str], summaries: Sequence[ForensicSummary]
) -> Iterator[None]:
    """Repair within this block, by these scans of all `entities`: it keeps scans of the source out.

    Raises NotJudged unless the gate has judged just these scans as `pass` or `warn`, or a person has decided to repair;
    ScanUnderWay while a scan or another repair of the source is at work.
    """
    with _lock(conn, writer.source, "pg_try_advisory_lock", "pg_advisory_unlock"):
        require_evidence(conn, writer, entities, summaries, judged=True)
        yield


def require_evidence(
    conn: Connection,
    writer: fence.Writer,
    entities: Collection[str],
    summaries: Sequence[ForensicSummary],
    *,
    judged: bool = False,
) -> None:
    """Raise NotJudged unless these are the scans of all `entities` behind the present stop, complete and the latest.

    `judged`: each has to have passed the gate too, or a person's decision to repair.
    """
    with conn.cursor(row_factory=class_row(_Kept)) as cursor:
        rows = cursor.execute(
            "SELECT scan_id, summary ->> 'evidence' AS evidence, rescanned, verdict, decision"
            " FROM confidence.forensic_run WHERE source = %s AND scan_id = ANY (%s)",
            [writer.source, [summary.scan_id for summary in summaries]],
        ).fetchall()
    kept = {row.scan_id: row for row in rows}
    missing = sorted(set(entities) - {summary.entity for summary in summaries})
    problems = [f"{entity} was not scanned" for entity in missing]
    for summary in summaries:
        problem = _problem(summary, kept.get(summary.scan_id), writer, judged=judged)
        problems += [f"{summary.entity} {problem}"] if problem else []
    if problems:
        raise NotJudged(
            f"nothing was written: {'; '.join(problems)}. A repair needs the gate's judgement of exactly its scans, or"
            " a person's decision about them. Clear scan (all of its map indexes) with downstream"
        )


def _problem(summary: ForensicSummary, kept: _Kept | None, writer: fence.Writer, *, judged: bool) -> str:
    """Why nothing may be repaired by this scan; empty if it may."""
    if (summary.run, summary.epoch) != (writer.run, writer.epoch):
        return "was scanned before this stop of the writer"
    if summary.incomplete:
        return f"has no evidence ({summary.incomplete})"
    if kept is None or kept.rescanned or kept.evidence != summary.evidence:
        return "was scanned anew since, or its evidence is not in the warehouse"
    if judged and kept.verdict is None:
        return "was not judged: gate_check did not get to its end, however its task looks"
    if judged and kept.verdict == Verdict.HOLD and kept.decision != Decision.REPAIR:
        return "is held, and nobody has decided to repair it"
    return ""


@contextmanager
def _lock(conn: Connection, source: str, lock: str, unlock: str) -> Iterator[None]:
    call = sql.SQL("SELECT {}(hashtextextended(%s, 0))")
    key = [f"confidence.forensic_run of {source}"]
    with conn.cursor(row_factory=tuple_row) as cursor:
        (taken,) = cursor.execute(call.format(sql.Identifier(lock)), key).fetchone()
    if not taken:
        raise ScanUnderWay(
            f"a scan or repair of {source} is still at work, perhaps one whose task was cleared or marked by hand;"
            " nothing was read or written. This task tries again by itself; if it has given up, clear scan with"
            " downstream"
        )
    try:
        yield
    finally:
        # A session that was lost has lost its lock too.
        with suppress(psycopg.Error):
            conn.execute(call.format(sql.Identifier(unlock)), key)


def record(conn: Connection, summary: ForensicSummary) -> None:
    """Keep a scan's evidence, not judged yet. The same scan once more replaces what it found before.

    Evidence that a hold rests on is moved aside instead: the hold stays open until the new one is judged, and
    what a person accepted stays known.
    """
    conn.execute(
        """
        UPDATE confidence.forensic_run SET scan_id = scan_id || ' of ' || scanned_at
        WHERE scan_id = %s AND verdict = 'hold'
        """,
        [summary.scan_id],
    )
    conn.execute(
        """
        INSERT INTO confidence.forensic_run (scan_id, source, entity, scope, run, epoch, summary, metrics)
        VALUES (%(scan_id)s, %(source)s, %(entity)s, %(scope)s, %(run)s, %(epoch)s, %(summary)s, %(metrics)s)
        ON CONFLICT (scan_id) DO UPDATE SET
          (source, entity, scope, run, epoch, summary, metrics) = (
            excluded.source, excluded.entity, excluded.scope, excluded.run, excluded.epoch,
            excluded.summary, excluded.metrics),
          (scanned_at, verdict, worse, reasons, baseline, gates, rescanned, asked_at, decision, decided_by,
            decided_at) = (
            DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT)
        """,
        {
            "scan_id": summary.scan_id,
            "source": summary.source,
            "entity": summary.entity,
            "scope": summary.scope,
            "run": summary.run,
            "epoch": summary.epoch,
            "summary": Jsonb(summary.to_json()),
            "metrics": Jsonb(dict(summary.metrics)),
        },
    )


def keep_progress(conn: Connection, scan_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Keep a scan's lines of progress beside its evidence."""
    conn.execute("UPDATE confidence.forensic_run SET progress = %s WHERE scan_id = %s", [Jsonb(list(lines)), scan_id])


def past_runs(conn: Connection, summary: ForensicSummary, limit: int = GROWTH_RUNS) -> list[PastRun]:
    """The judged scans of the same source, entity and scope, newest first, back to the `limit`-th good one.

    The limit counts good runs (not held, or accepted) only, so that a long series of bad nights never pushes the
    baseline out of sight; the newest accepted run is there however old it is. Earlier scans of the same run
    don't count, as a scan that is cleared and made again is not a second bad night; except its holds, which a
    second scan must not get rid of unseen.
    """
    with conn.cursor(row_factory=args_row(_past_run)) as cursor:
        return cursor.execute(
            """
            WITH judged AS (
              SELECT * FROM confidence.forensic_run
              WHERE source = %(source)s AND entity = %(entity)s AND scope = %(scope)s
                AND verdict IS NOT NULL AND scan_id <> %(scan_id)s AND (run <> %(run)s OR verdict = 'hold')
            )
            SELECT scan_id, metrics, verdict, worse, decision, scanned_at FROM judged
            WHERE scanned_at >= coalesce(
              (SELECT scanned_at FROM judged WHERE verdict <> 'hold' OR decision = 'resume'
               ORDER BY scanned_at DESC LIMIT 1 OFFSET %(limit)s - 1),
              '-infinity')
              OR scan_id = (
                SELECT scan_id FROM judged WHERE decision = 'resume' ORDER BY scanned_at DESC LIMIT 1)
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
    """Write the verdict beside its evidence.

    A hold of this very scan that is open is left as it is: judging the same evidence once more can't end it. Raises
    LookupError when the scan is not recorded, PlanGone where it was made anew since.
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
        raise _unknown(summary.scan_id)
    held, replaced = found
    if replaced:
        raise PlanGone(
            f"{summary.entity} was scanned anew since it left these figures, which are no evidence any more: clear scan"
            " with downstream"
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


def require_latest(conn: Connection, summary: ForensicSummary) -> None:
    """A later scan replaces the plan; then this one has nothing to apply any more. Raises PlanGone."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        latest = cursor.execute(
            "SELECT scan_id FROM confidence.forensic_run WHERE source = %s AND entity = %s"
            " ORDER BY scanned_at DESC LIMIT 1",
            [summary.source, summary.entity],
        ).fetchone()
    if latest is None or latest[0] != summary.scan_id:
        raise PlanGone(
            f"the plan of {summary.entity} was replaced by a later scan ({latest and latest[0]}):"
            " clear scan with downstream to make a new one"
        )


def evidence(conn: Connection, source: str, run: str, entities: Sequence[str]) -> Evidence:
    """What the warehouse has of a run over the source, whose entities are given."""
    names = {"source": source, "run": run}
    with conn.cursor(row_factory=args_row(_scanned)) as cursor:
        scans = tuple(cursor.execute(SCANS_OF_RUN, names).fetchall())
    with conn.cursor(row_factory=args_row(_repair)) as cursor:
        repairs = tuple(cursor.execute(REPAIRS_OF_RUN, names).fetchall())
    # A decision is about all of the scans: one that was made before the last of them is about others.
    names |= {"begun": max((scan.scanned_at for scan in scans), default=None)}
    with conn.cursor(row_factory=tuple_row) as cursor:
        decision = cursor.execute(DECISION_OF_RUN, names).fetchone() or (None, None)
        (unproven,) = cursor.execute(
            "SELECT count(*) FROM confidence.unproven WHERE source = %(source)s", names
        ).fetchone()
    writer = fence.read(conn, source)
    return Evidence(run, writer, tuple(entities), scans, repairs, *decision, unproven)


def unjudged(conn: Connection, source: str) -> list[tuple[str, str]]:
    """By run the entities whose newest scan, not older than a week, nobody has judged."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(
            """
            SELECT run, string_agg(entity, ', ' ORDER BY entity) FROM (
              SELECT DISTINCT ON (entity) entity, run, verdict FROM confidence.forensic_run
              WHERE source = %s AND scanned_at > now() - interval '7 days' ORDER BY entity, scanned_at DESC
            ) AS newest
            WHERE verdict IS NULL GROUP BY run ORDER BY run
            """,
            [source],
        ).fetchall()


def unverified(conn: Connection, source: str) -> list[tuple[str, str]]:
    """The run and sync_id of each repair of the last week that nobody has verified, and no later scan has looked at."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(UNVERIFIED, [source]).fetchall()


def unfinished(conn: Connection, source: str) -> list[tuple[str, str]]:
    """The run, and kind and sync_id, of each row of the sync log that is open."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(
            "SELECT run, kind || ' ' || sync_id FROM confidence.sync_log WHERE source = %s AND state = 'running'"
            " ORDER BY sync_id",
            [source],
        ).fetchall()


def stays_stopped(conn: Connection, source: str) -> bool:
    """Whether a person has answered that the writer stays stopped, about each of its holds."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        answers = cursor.execute(
            "SELECT decision = 'keep' AND decided_by <> %s FROM confidence.forensic_run WHERE scan_id = ANY (%s)",
            [NOBODY, [hold.scan_id for hold in open_holds(conn, source)]],
        ).fetchall()
    return bool(answers) and all(kept for (kept,) in answers)


def save_checks(conn: Connection, sync_id: int, checks: Sequence[Mapping[str, str | int]]) -> None:
    """Keep what verify has found after the repair: whoever asks later whether it was verified finds it here."""
    conn.execute(
        "UPDATE confidence.sync_log SET verified_at = clock_timestamp(), checks = %s WHERE sync_id = %s",
        [Jsonb([dict(check) for check in checks]), sync_id],
    )


def mark_hold(conn: Connection, scan_id: str, reason: str) -> None:
    """Hold after the gate: what followed from the scan went wrong. Raises LookupError for an unknown scan.

    The hold is open again even if it was decided before; that decision stays readable among the reasons.
    """
    updated = conn.execute(
        """
        UPDATE confidence.forensic_run SET verdict = 'hold',
          reasons = array_remove(reasons, %(reason)s)
            || CASE WHEN decision IS NOT NULL
                 THEN ARRAY[format('%%s decided by %%s at %%s', decision, decided_by, decided_at)] END
            || ARRAY[%(reason)s],
          decision = NULL, decided_by = NULL, decided_at = NULL, asked_at = NULL
        WHERE scan_id = %(scan_id)s
        """,
        {"scan_id": scan_id, "reason": reason},
    )
    if not updated.rowcount:
        raise _unknown(scan_id)


def open_holds(conn: Connection, source: str) -> list[Hold]:
    """Where the latest judged scan of an entity and scope says hold, undecided or decided to be kept."""
    with conn.cursor(row_factory=args_row(_hold)) as cursor:
        return cursor.execute(
            """
            SELECT scan_id, entity, scope, run, reasons, scanned_at, asked_at IS NOT NULL AND NOT rescanned FROM (
              SELECT DISTINCT ON (entity, scope) * FROM confidence.forensic_run
              WHERE source = %s AND verdict IS NOT NULL
              ORDER BY entity, scope, scanned_at DESC
            ) AS latest
            WHERE verdict = 'hold' AND coalesce(decision, 'keep') = 'keep'
            ORDER BY entity, scope
            """,
            [source],
        ).fetchall()


def judged_worse(conn: Connection, source: str, run: str) -> list[str]:
    """A line for each scan of the run that did not pass, with its reasons."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            "SELECT entity, scope, reasons FROM confidence.forensic_run"
            " WHERE source = %s AND run = %s AND verdict IN ('warn', 'hold') ORDER BY entity, scope, scanned_at",
            [source, run],
        ).fetchall()
    return [f"{entity} ({scope}): {'; '.join(reasons)}" for entity, scope, reasons in rows]


def refresh_hold(conn: Connection, source: str) -> str | None:
    """Set the writer's hold reason from the open holds and return it, None when there is none.

    Raises FenceError when a hold is open and the writer runs. Only a stopped writer's row is touched, so this
    never waits for a sync that is under way.
    """
    holds = open_holds(conn, source)
    reason = "; ".join(f"{hold.entity} ({hold.scope}): {'; '.join(hold.reasons)}" for hold in holds) or None
    updated = conn.execute(
        "UPDATE confidence.writer SET hold_reason = %s WHERE source = %s AND state = 'stopped'",
        [reason, source],
    )
    if reason and not updated.rowcount:
        writer = fence.read(conn, source)
        raise fence.FenceError(f"{writer} while a hold is open ({reason}): clear stop_writer with downstream")
    return reason


def note_asked(conn: Connection, holds: Sequence[Hold]) -> None:
    """A person is about to be asked about these holds."""
    conn.execute(
        "UPDATE confidence.forensic_run SET asked_at = clock_timestamp() WHERE scan_id = ANY (%s)",
        [[hold.scan_id for hold in holds]],
    )


def require_asked(conn: Connection, source: str) -> None:
    """Raise HoldChanged where the source is held by more than a person was asked about, or by newer evidence."""
    unasked = [f"{hold.entity} ({hold.scope})" for hold in open_holds(conn, source) if not hold.asked]
    if unasked:
        raise HoldChanged(
            f"the answer came for an earlier question: {', '.join(unasked)} was scanned or held since. Nothing was"
            " decided, the writer stays stopped. Clear decide with downstream to be asked again"
        )


def decide(conn: Connection, source: str, decision: str, who: str) -> list[Hold]:
    """Answer all open holds of a source and return them. Raises ValueError for an unknown decision.

    `resume` accepts their figures as the new baseline, `repair` closes them without that, `keep` leaves them
    open. The writer must be stopped, as for `refresh_hold`.
    """
    holds = open_holds(conn, source)
    conn.execute(
        """
        UPDATE confidence.forensic_run SET decision = %s, decided_by = %s, decided_at = clock_timestamp()
        WHERE scan_id = ANY(%s)
        """,
        [Decision(decision), who, [hold.scan_id for hold in holds]],
    )
    refresh_hold(conn, source)
    return holds


def _past_run(
    scan_id: str,
    metrics: Mapping[str, int | None],
    verdict: str,
    worse: list[str],
    decision: str | None,
    scanned_at: datetime,
) -> PastRun:
    return PastRun(
        scan_id=scan_id,
        metrics=metrics,
        verdict=Verdict(verdict),
        worse=tuple(worse),
        accepted=decision == Decision.RESUME,
        held=verdict == Verdict.HOLD and decision in (None, Decision.KEEP),
        scanned_at=scanned_at,
    )


def _hold(
    scan_id: str, entity: str, scope: str, run: str, reasons: list[str], scanned_at: datetime, asked: bool
) -> Hold:
    return Hold(scan_id, entity, scope, run, tuple(reasons), scanned_at, asked)


def _unknown(scan_id: str) -> LookupError:
    return LookupError(f"Scan {scan_id} is not in confidence.forensic_run: clear scan with downstream.")


def _scanned(
    entity: str, scope: str, epoch: int, scanned_at: datetime, rescanned: bool, verdict: str | None, summary: dict
) -> Scanned:
    counted = [Account(**account) for account in summary.get("accounts", {}).values()]
    return Scanned(
        entity=entity,
        scope=scope,
        epoch=epoch,
        scanned_at=scanned_at,
        complete=not (rescanned or summary.get("incomplete")),
        verdict=Verdict(verdict) if verdict else None,
        planned=sum(summary["plan"].values()),
        rows=sum(account.rows for account in counted) if counted else None,
        proven=sum(account.proven for account in counted) if counted else None,
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
SELECT DISTINCT ON (entity) entity, scope, epoch, scanned_at, rescanned, verdict, summary
FROM confidence.forensic_run WHERE source = %(source)s AND run = %(run)s ORDER BY entity, scanned_at DESC
"""

REPAIRS_OF_RUN = """
SELECT l.sync_id, l.state, l.started_at, l.entities, l.verified_at, l.checks,
  EXISTS (SELECT FROM confidence.sync_log u WHERE u.undoes = l.sync_id AND u.state = 'success')
FROM confidence.sync_log l WHERE l.source = %(source)s AND l.run = %(run)s AND l.kind = 'repair'
ORDER BY l.sync_id DESC
"""

# Also about a hold that an earlier run has left, but not one that was decided in a later run.
DECISION_OF_RUN = """
SELECT decision, decided_by FROM confidence.forensic_run
WHERE source = %(source)s AND decided_at > %(begun)s AND decided_at < coalesce(
  (SELECT min(scanned_at) FROM confidence.forensic_run
   WHERE source = %(source)s AND run <> %(run)s AND scanned_at > %(begun)s),
  'infinity')
ORDER BY decided_at DESC LIMIT 1
"""

# A later scan of the same entities and scopes, judged, has looked at every row that the repair may have changed.
UNVERIFIED = """
SELECT l.run, 'sync_id ' || l.sync_id FROM confidence.sync_log l
WHERE l.source = %s AND l.kind = 'repair' AND l.state = 'success' AND l.verified_at IS NULL
  AND l.finished_at > now() - interval '7 days'
  AND NOT EXISTS (SELECT FROM confidence.sync_log u WHERE u.undoes = l.sync_id AND u.state = 'success')
  AND (
    NOT EXISTS (SELECT FROM confidence.forensic_run later
                WHERE later.source = l.source AND later.scanned_at > l.finished_at)
    OR EXISTS (
      SELECT FROM confidence.forensic_run own
      WHERE own.source = l.source AND own.run = l.run AND NOT EXISTS (
        SELECT FROM confidence.forensic_run later
        WHERE later.source = own.source AND later.entity = own.entity AND later.scope = own.scope
          AND later.scanned_at > l.finished_at AND later.verdict IS NOT NULL AND NOT later.rescanned
      )
    )
  )
ORDER BY l.sync_id
"""
