"""The state of the sources, from the warehouse and Airflow together. Durations are in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from psycopg import Connection
from sqlalchemy.orm import Session

from include.confidence import health, proofs
from include.confidence.proofs import PutOff
from include.confidence.queries.nights import with_failed
from include.confidence.queries.overview import Status, read_statuses
from include.confidence.queries.paging import MAX_PAGE
from include.confidence.queries.scans import Scan, latest_scans
from include.confidence.queries.syncs import SyncRow, list_syncs
from include.confidence.stop_budget import Proof, oldest_first
from include.confidence.unproven import Unproven, oldest
from include.sources import get_source
from plugins.pages.airflow_state import Orchestration, failed_since, orchestration


@dataclass(frozen=True)
class SourceStatus(Status):
    """A source at a glance.

    - `entities`: those that a whole scan compares
    - `proofs`: of each of them, the oldest first; those that were never proven come before all others
    - `put_off`: those that were left to a later night since their newest proof
    """

    source: str
    entities: tuple[str, ...]
    proofs: tuple[Proof, ...]
    put_off: tuple[PutOff, ...]
    airflow: Orchestration


@dataclass(frozen=True)
class TableFigures:
    """A table: how far it is behind the source, rows that the last sync changed, what the last whole scan found."""

    table: str
    freshness_seconds: float
    rows_changed: int
    discrepancies: int | None
    verdict: str | None


@dataclass(frozen=True)
class Alert:
    """A figure above its limit, and the line that says what to do about it."""

    rule: str
    subject: str
    figure: float
    limit: float
    line: str


@dataclass(frozen=True)
class HealthFigures:
    """Health of a source: duration of the last successful sync and the median before, a day's requests, tables."""

    seconds: float | None
    median_seconds: float | None
    requests: int
    request_errors: int
    error_rate: float | None
    schedule_seconds: float | None
    tables: tuple[TableFigures, ...]
    alerts: tuple[Alert, ...]


@dataclass(frozen=True)
class SourceDetail(SourceStatus):
    """A source in full: health (None before the first sync), the last scan of each entity and scope, the last repair.

    `unproven_rows`: the first 200 rows that no scan could prove, oldest first.
    """

    health: HealthFigures | None
    unproven_rows: tuple[Unproven, ...]
    scans: tuple[Scan, ...]
    last_repair: SyncRow | None


def overview(conn: Connection, session: Session, sources: Sequence[str]) -> list[SourceStatus]:
    """Return the sources at a glance, in the given order. Sources without a row in the warehouse are left out."""
    statuses = read_statuses(conn, sources)
    stoppers = {each.writer.source: each.writer.run for each in statuses if each.writer.stopped and each.writer.run}
    in_airflow = orchestration(session, sources, stoppers)
    days = [night.day for status in statuses for night in status.nights]
    began = datetime.combine(min(days), time(), UTC) if days else datetime.now(UTC)
    failed = failed_since(session, sources, began)
    return [
        _at_a_glance(conn, status, in_airflow[name], failed[name])
        for status in statuses
        for name in [status.writer.source]
    ]


def _at_a_glance(
    conn: Connection, status: Status, airflow: Orchestration, failed: Mapping[str, datetime]
) -> SourceStatus:
    name = status.writer.source
    found = _proofs(conn, name)
    return SourceStatus(
        **vars(status) | {"nights": with_failed(status.nights, failed)},
        source=name,
        entities=tuple(proof.entity for proof in found),
        proofs=tuple(oldest_first(found)),
        put_off=proofs.put_off_now(conn, name, found),
        airflow=airflow,
    )


def _proofs(conn: Connection, source: str) -> list[Proof]:
    """Return the newest proof of each entity, in the source's order."""
    return proofs.read_proofs(conn, source, [entity.name for entity in get_source(source).entities])


def detail(conn: Connection, session: Session, source: str) -> SourceDetail | None:
    """Return the source in full, None if the warehouse has no row for it."""
    found = overview(conn, session, [source])
    if not found:
        return None
    repairs = list_syncs(conn, source, kind="repair", limit=1).items
    return SourceDetail(
        **vars(found[0]),
        health=health_figures(conn, source, found[0].proofs),
        unproven_rows=tuple(oldest(conn, source, MAX_PAGE)),
        scans=tuple(latest_scans(conn, source)),
        last_repair=repairs[0] if repairs else None,
    )


def health_figures(conn: Connection, source: str, known: Sequence[Proof] | None = None) -> HealthFigures | None:
    """Return the source's health with its alerts, None before the first sync. `known`: its proofs, if read already."""
    figures = health.read(conn, source)
    if figures is None:
        return None
    limits = get_source(source).health
    alerts = [
        *health.assess(figures, limits),
        *health.assess_proofs(source, known or _proofs(conn, source), limits, datetime.now(UTC)),
    ]
    return HealthFigures(
        seconds=figures.seconds,
        median_seconds=figures.median_seconds,
        requests=figures.requests,
        request_errors=figures.request_errors,
        error_rate=figures.error_rate,
        schedule_seconds=_seconds(figures.schedule),
        tables=tuple(
            TableFigures(
                table.table, table.freshness.total_seconds(), table.rows_changed, table.discrepancies, table.verdict
            )
            for table in figures.tables
        ),
        alerts=tuple(Alert(**alert.to_json()) for alert in alerts),
    )


def _seconds(time: timedelta | None) -> float | None:
    return None if time is None else time.total_seconds()
