"""Read scans with their metrics, gates and verdicts, for pages and endpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from include.confidence.account import Account
from include.confidence.policy import SEVERITY, Gate, Verdict
from include.confidence.queries.paging import MAX_PAGE, PAGE, Page, cursor_time, decode_cursor, fetch_rows, make_page
from include.confidence.summary import Plan
from include.warehouse.chance import MANY
from include.warehouse.patterns import Pattern


@dataclass(frozen=True)
class Scan:
    """One scan of an entity.

    - `verdict`, `gates`: None and empty until the scan is judged
    - `plan`: how many changes a repair would make
    - `rows`: rows in scope, of which the scan has `proven` some; both are None if it kept no account
    - `accounts`: by table, in which state each row was found
    - `incomplete`: why the scan is no evidence; empty if it is
    - `examples`: ids, or what is wrong with each
    - `evidence`: names its planned changes (queries/planned.py); `patterns`: what many of these have in common
    - `decision`: a person's answer to a hold (keep, resume, repair), None if there is none; with a reason if given
    - `left_out`: a person has decided that its plan is not applied, while those of other scans are
    """

    scan_id: str
    source: str
    entity: str
    scope: str
    run: str
    epoch: int
    scanned_at: datetime
    verdict: Verdict | None
    reasons: tuple[str, ...]
    metrics: Mapping[str, int | None]
    telemetry: Mapping[str, int | str | None]
    gates: tuple[Gate, ...]
    plan: Plan
    live_rows: int
    rows: int | None
    proven: int | None
    accounts: Mapping[str, Account]
    incomplete: str
    examples: Mapping[str, list[Any]]
    evidence: str
    patterns: tuple[Pattern, ...]
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None
    decision_reason: str | None
    left_out: bool

    @property
    def stands_out_in_nothing(self) -> bool:
        """Whether the planned rows are many enough to have something in common, and have nothing."""
        return not self.patterns and max(vars(self.plan).values()) >= MANY


# The columns about a person's answer.
DECIDED = ("decision", "decided_by", "decided_at", "decision_reason", "left_out")


def list_scans(
    conn: Connection,
    source: str,
    *,
    verdict: str | None = None,
    entity: str | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> Page[Scan]:
    """Return a page of the source's scans, newest first. `since`: none older than that. Raises CursorRefused."""
    filters = [("source = %s", source)]
    filters += [("verdict = %s", verdict)] if verdict else []
    filters += [("entity = %s", entity)] if entity else []
    filters += [("scanned_at >= %s", since)] if since else []
    if cursor:
        time, scan_id = decode_cursor(cursor, str, str)
        filters.append(("(scanned_at, scan_id) < (%s, %s)", cursor_time(time), scan_id))
    rows = fetch_rows(conn, SCANS, filters, "scanned_at DESC, scan_id DESC", limit)
    return make_page([scan_of(row) for row in rows], limit, lambda scan: [scan.scanned_at.isoformat(), scan.scan_id])


def scan_with_evidence(conn: Connection, source: str, evidence: str) -> Scan | None:
    """Return the source's scan with this evidence, None if there is none."""
    filters = [("source = %s", source), ("summary ->> 'evidence' = %s", evidence)]
    found = fetch_rows(conn, SCANS, filters, "scanned_at DESC", 1)
    return scan_of(found[0]) if found else None


def latest_scans(conn: Connection, source: str) -> list[Scan]:
    """Return the newest scan of each entity and scope, ordered by these; the first 200."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return [scan_of(row) for row in cursor.execute(LATEST, {"source": source, "limit": MAX_PAGE}).fetchall()]


def scan_of(row: Mapping[str, Any]) -> Scan:
    """Return the scan of a row of `confidence.forensic_run`."""
    summary = row["summary"]
    accounts = {table: Account(**account) for table, account in summary.get("accounts", {}).items()}
    same = ("scan_id", "source", "entity", "scope", "run", "epoch", "scanned_at", "metrics")
    return Scan(
        **{name: row[name] for name in (*same, *DECIDED)},
        verdict=_verdict(row["verdict"]),
        reasons=tuple(row["reasons"]),
        telemetry=summary["telemetry"],
        gates=gates_of(row),
        plan=Plan(**summary["plan"]),
        live_rows=summary["live_rows"],
        rows=sum(account.rows for account in accounts.values()) if accounts else None,
        proven=sum(account.proven for account in accounts.values()) if accounts else None,
        accounts=accounts,
        incomplete=summary.get("incomplete", ""),
        examples=summary["examples"],
        evidence=summary.get("evidence", ""),
        patterns=tuple(Pattern(**pattern) for pattern in row["patterns"]),
    )


def gates_of(row: Mapping[str, Any]) -> tuple[Gate, ...]:
    """Return the gates of a row of `confidence.forensic_run`, one for each figure.

    If several policies have judged a figure, it has their lowest limit, and the worst verdict with its reasons.
    """
    judged: dict[str, list[Gate]] = {}
    for gate in row["gates"]:
        judged.setdefault(gate["metric"], []).append(Gate(**gate | {"verdict": _verdict(gate["verdict"])}))
    return tuple(map(_combined, judged.values()))


def _combined(gates: Sequence[Gate]) -> Gate:
    """Return one gate for all gates of a figure: the worst verdict with its reasons, the lowest limit, any baseline."""
    if len(gates) == 1:
        return gates[0]
    worst = max(gates, key=lambda gate: (SEVERITY[gate.verdict], gate.verdict is not None))
    reasons = [gate.reason for gate in gates if gate.reason and gate.verdict == worst.verdict]
    return replace(
        worst,
        baseline=next((gate.baseline for gate in gates if gate.baseline is not None), None),
        limit=min((gate.limit for gate in gates if gate.limit is not None), default=None),
        reason="; ".join(reasons) or None,
    )


def _verdict(text: str | None) -> Verdict | None:
    return None if text is None else Verdict(text)


SCANS = sql.SQL("SELECT * FROM confidence.forensic_run")


# The recursion jumps in the index from one entity and scope to the next. DISTINCT ON would read the scans of all runs.
LATEST = """
WITH RECURSIVE part AS (
  (SELECT entity, scope FROM confidence.forensic_run WHERE source = %(source)s ORDER BY entity, scope LIMIT 1)
  UNION ALL
  SELECT next.entity, next.scope FROM part CROSS JOIN LATERAL (
    SELECT f.entity, f.scope FROM confidence.forensic_run f
    WHERE f.source = %(source)s AND (f.entity, f.scope) > (part.entity, part.scope)
    ORDER BY f.entity, f.scope LIMIT 1
  ) AS next
)
SELECT last.* FROM (SELECT * FROM part LIMIT %(limit)s) AS part CROSS JOIN LATERAL (
  SELECT * FROM confidence.forensic_run f
  WHERE f.source = %(source)s AND f.entity = part.entity AND f.scope = part.scope ORDER BY f.scanned_at DESC LIMIT 1
) AS last ORDER BY last.entity, last.scope
"""
