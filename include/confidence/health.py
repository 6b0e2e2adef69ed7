"""Health: how the syncs of a source do, and what of that is worth an alert. The rules are pure functions."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import namedtuple_row


@dataclass(frozen=True)
class Limits:
    """What still is in order; a figure above it is an alert.

    `duration`: of the last sync, as a multiple of the median before it, and at least `seconds`. `error_rate`: the
    failed share of a day's requests, and at least `errors` of them. `freshness`: how far behind a table may be, as a
    multiple of the time between two scheduled syncs, or between two readings of those tables that are read `rarely`.
    The floors keep a hiccup among few requests from being an alert.
    """

    duration: float = 3.0
    seconds: float = 60.0
    error_rate: float = 0.05
    errors: int = 5
    freshness: float = 2.0
    rarely: Mapping[str, timedelta] = field(default_factory=dict)


@dataclass(frozen=True)
class TableHealth:
    """`freshness`: how far the table is behind its source. `discrepancies`: rows that the last whole scan planned to
    change, None before the first, and `verdict` the gate's on them.
    """

    table: str
    freshness: timedelta
    rows_changed: int
    discrepancies: int | None
    verdict: str | None


@dataclass(frozen=True)
class Figures:
    """How a source stands now.

    `seconds` the last successful sync took, `median_seconds` the 20 before it; `requests` and `request_errors` of the
    last day; `schedule` between two scheduled syncs. None: not known yet.
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
        return self.request_errors / self.requests if self.requests else None

    def line(self) -> str:
        """The figures as one line of JSON for the log; times in seconds."""
        flat = {"event": "health", **asdict(self), "error_rate": self.error_rate}
        return json.dumps(flat, sort_keys=True, default=timedelta.total_seconds)


@dataclass(frozen=True)
class Alert:
    """A figure above its limit; both in seconds, or shares. `line` says what it is and what to do next."""

    rule: str
    subject: str
    figure: float
    limit: float
    line: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read(conn: Connection, source: str) -> Figures | None:
    """The source's figures as of now; None before its first sync."""
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
    """What is above its limit; a figure that has nothing to be compared with yet is not."""
    return [*_duration(figures, limits), *_error_rate(figures, limits), *_freshness(figures, limits)]


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
