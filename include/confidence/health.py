"""Health: figures about a source's syncs, and an alert for each one above its limit. The rules are pure functions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import namedtuple_row

from include.confidence.stop_budget import Proof

# The rule about the age of proofs.
PROOF_AGE = "proof_age"


@dataclass(frozen=True)
class Limits:
    """The limits of a source's figures; a figure above its limit is an alert.

    - `duration`: the last sync's, as a multiple of the median of those before; never below `seconds`
    - `error_rate`: the share of a day's requests that failed; fewer failures than `errors` are never an alert
    - `freshness`: how far a table may be behind its source, as a multiple of the time between two scheduled syncs
    - `rarely`: for tables that not every sync reads, the time between two readings, in place of that of the syncs
    - `proof`: the age of an entity's newest proof
    """

    duration: float = 3.0
    seconds: float = 60.0
    error_rate: float = 0.05
    errors: int = 5
    freshness: float = 2.0
    rarely: Mapping[str, timedelta] = field(default_factory=dict)
    proof: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class TableHealth:
    """The health of one table.

    - `freshness`: how far the table is behind its source
    - `rows_changed`: by its last sync
    - `discrepancies`: how many changes the last whole scan planned; None before the first
    - `verdict`: the gate's, on that scan
    """

    table: str
    freshness: timedelta
    rows_changed: int
    discrepancies: int | None
    verdict: str | None


@dataclass(frozen=True)
class Figures:
    """A source's figures as of now; None if not known yet.

    - `seconds`: how long the last successful sync took; `median_seconds`: the median of the 20 before it
    - `requests`: of the last day, of which `request_errors` failed
    - `schedule`: the time between two scheduled syncs
    """

    source: str
    seconds: float | None
    median_seconds: float | None
    requests: int
    request_errors: int
    schedule: timedelta | None
    tables: tuple[TableHealth, ...]

    @property
    def error_rate(self) -> float | None:
        """The share of the requests that failed; None without requests."""
        return self.request_errors / self.requests if self.requests else None

    def line(self) -> str:
        """Return the figures as one line of JSON for the log; times in seconds."""
        flat = {"event": "health", **asdict(self), "error_rate": self.error_rate}
        return json.dumps(flat, sort_keys=True, default=timedelta.total_seconds)


@dataclass(frozen=True)
class Alert:
    """A figure above its limit.

    - `rule`: `duration`, `error_rate`, `freshness` or `proof_age`
    - `subject`: the source, or `source.table`
    - `figure`, `limit`: in seconds, or shares
    - `line`: a sentence for people: what is wrong, and what to do next
    """

    rule: str
    subject: str
    figure: float
    limit: float
    line: str

    def to_json(self) -> dict[str, Any]:
        """Return the alert as a dict of plain JSON types."""
        return asdict(self)


def read(conn: Connection, source: str) -> Figures | None:
    """Return the source's figures as of now; None before its first sync."""
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        rows = cursor.execute("SELECT * FROM confidence.health WHERE source = %s ORDER BY entity", [source]).fetchall()
    if not rows:
        return None
    of_source = rows[0]
    return Figures(
        source,
        seconds=of_source.run_seconds,
        median_seconds=of_source.median_run_seconds,
        requests=int(of_source.requests),
        request_errors=int(of_source.request_errors),
        schedule=of_source.schedule,
        tables=tuple(
            TableHealth(row.entity, row.freshness, row.rows_changed, row.discrepancies, row.verdict) for row in rows
        ),
    )


def assess(figures: Figures, limits: Limits) -> list[Alert]:
    """Return an alert for each figure above its limit. A figure that is not known yet is never above it."""
    return [*_duration(figures, limits), *_error_rate(figures, limits), *_freshness(figures, limits)]


def assess_proofs(source: str, proofs: Sequence[Proof], limits: Limits, now: datetime) -> list[Alert]:
    """Return an alert for each entity whose newest proof is older than the limit. One never proven is no alert."""
    return [
        Alert(
            PROOF_AGE,
            f"{source}.{proof.entity}",
            (now - proof.proven_at).total_seconds(),
            limits.proof.total_seconds(),
            f"the newest proof of {source}.{proof.entity} is {_text(now - proof.proven_at)} old, above its limit"
            f" {_text(limits.proof)}. Nobody knows what has drifted since. Trigger {source}_reconcile: a run by hand"
            " scans everything. If its nights fail, mend that; if they put the entity off, raise the Airflow Variable"
            " stop_budget_minutes",
        )
        for proof in proofs
        if proof.proven_at and now - proof.proven_at > limits.proof
    ]


def _duration(figures: Figures, limits: Limits) -> Iterator[Alert]:
    if figures.seconds is None or figures.median_seconds is None:
        return
    limit = max(limits.duration * figures.median_seconds, limits.seconds)
    if figures.seconds > limit:
        yield Alert(
            "duration",
            figures.source,
            figures.seconds,
            limit,
            f"the last successful sync of {figures.source} took {figures.seconds:.0f} s, above its limit {limit:.0f} s"
            f" (median of the syncs before: {figures.median_seconds:.0f} s). Unless it was a full one, compare its rows"
            " and requests in confidence.sync_log with those before",
        )


def _error_rate(figures: Figures, limits: Limits) -> Iterator[Alert]:
    rate = figures.error_rate
    if rate is not None and rate > limits.error_rate and figures.request_errors >= limits.errors:
        yield Alert(
            "error_rate",
            figures.source,
            rate,
            limits.error_rate,
            f"{figures.request_errors} of {figures.requests} requests to {figures.source} failed within a day"
            f" ({rate:.1%}), above the limit {limits.error_rate:.1%}. The sync's log says how; if it is the rate limit,"
            " lower the connection's, else ask who runs the source",
        )


def _freshness(figures: Figures, limits: Limits) -> Iterator[Alert]:
    if figures.schedule is None:
        return
    for table in figures.tables:
        limit = limits.freshness * max(figures.schedule, limits.rarely.get(table.table, timedelta(0)))
        if table.freshness > limit:
            yield Alert(
                "freshness",
                f"{figures.source}.{table.table}",
                table.freshness.total_seconds(),
                limit.total_seconds(),
                f"{figures.source}.{table.table} is {_text(table.freshness)} behind its source, above its limit"
                f" {_text(limit)} (a sync is due every {_text(figures.schedule)}). Mend what the newest errors in"
                " confidence.sync_log name, then clear the failed sync",
            )


def _text(time: timedelta) -> str:
    return str(timedelta(seconds=round(time.total_seconds())))
