"""The months of the sources: what the pages ask the warehouse for, and the same figures as CSV."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from math import floor

from psycopg import Connection
from sqlalchemy.orm import Session

from include.confidence.queries.months import Declared, SourceMonth, read_months
from include.sources import get_source
from plugins.pages.airflow_state import failed_since
from plugins.pages.plan import line

# At least as long as the months go back.
A_YEAR = timedelta(days=366)
# What a spreadsheet shows where a figure is not known; a cell is empty where there is nothing to tell.
NOT_KNOWN = "not known"
COLUMNS = (
    "month",
    "source",
    "nights_passed",
    "nights_warned",
    "nights_held",
    "nights_failed",
    "nights_not_judged",
    "nights_no_scan",
    "nights_proven",
    "rows_repaired",
    "rows_rolled_back",
    "stood_still_scans_seconds",
    "stood_still_held_seconds",
    "stood_still_other_seconds",
    "stood_still_open",
    "stood_still_measured_since",
    "questions_asked",
    "questions_unanswered",
    "answer_median_seconds",
    "answer_longest_seconds",
    "fresh_share",
    "freshness_limit_seconds",
)


def of_sources(conn: Connection, session: Session, sources: Sequence[str]) -> list[SourceMonth]:
    """Return the last 12 months of the sources that have any run, newest first."""
    failed = failed_since(session, sources, datetime.now(UTC) - A_YEAR)
    return read_months(conn, [_declared(source) for source in sources], failed)


def by_month(found: Sequence[SourceMonth]) -> list[tuple[date, list[SourceMonth]]]:
    """Return each month with its sources."""
    return [(month, list(sources)) for month, sources in groupby(found, key=lambda each: each.month)]


def as_csv(found: Sequence[SourceMonth]) -> str:
    """Return the months as CSV, one line for each source and month."""
    return "".join([line(COLUMNS), *(line(list(_cells(month))) for month in found)])


def _declared(name: str) -> Declared:
    source = get_source(name)
    entities = tuple(entity.name for entity in source.entities)
    return Declared(name, entities, source.health.freshness)


def _cells(found: SourceMonth) -> Iterator[str]:
    """Yield the cells of COLUMNS."""
    yield f"{found.month:%Y-%m}"
    yield found.source
    yield from map(_known, asdict(found.nights).values())
    yield from (_known(found.rows_repaired), _known(found.rows_rolled_back))
    stood = found.stood_still
    if stood is None:
        yield from [NOT_KNOWN] * 4 + [""]
    else:
        yield from (f"{seconds:.0f}" for seconds in (stood.scans, stood.held, stood.other))
        yield "yes" if stood.open else "no"
        yield stood.measured_since.isoformat() if stood.measured_since else ""
    answers = found.answers
    yield from (str(answers.asked), str(answers.unanswered))
    yield from ("" if time is None else f"{time:.0f}" for time in (answers.median_seconds, answers.longest_seconds))
    # Rounded down: what is not the whole must not look like it.
    yield NOT_KNOWN if found.fresh_share is None else f"{floor(found.fresh_share * 10_000) / 10_000:.4f}"
    limit = found.freshness_limit_seconds
    yield NOT_KNOWN if limit is None else f"{limit:.0f}"


def _known(figure: int | None) -> str:
    return NOT_KNOWN if figure is None else str(figure)
