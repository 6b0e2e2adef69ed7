"""The findings of the watch, kept in `confidence.finding` from one pass to the next."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from psycopg import Connection
from psycopg.rows import class_row, scalar_row

from include.confidence.watch import GRACE, Finding


@dataclass(frozen=True)
class OpenFinding:
    """A finding that the last pass still saw, and when a pass first saw it.

    `subject`: tells it from other findings with the same code.
    `settled`: it has lasted for at least 4 minutes, so it is not just a step that a run was taking.
    """

    source: str
    code: str
    subject: str
    run: str | None
    what: str
    consequence: str
    next_step: str
    first_seen: datetime
    settled: bool


def keep(conn: Connection, source: str, found: Sequence[Finding]) -> list[Finding]:
    """Replace the source's findings by those of this pass, and store the time of the pass.

    A finding that was kept before keeps the time when it was first seen. Returns the findings that
    people should be told of: those first seen at least 4 minutes ago.
    """
    rows = [{**asdict(finding), "key": finding.key, "code": str(finding.code)} for finding in found]
    with conn.transaction(), conn.cursor(row_factory=scalar_row) as cursor:
        cursor.execute(
            "DELETE FROM confidence.finding WHERE source = %s AND key <> ALL (%s)",
            [source, [finding.key for finding in found]],
        )
        cursor.executemany(
            "INSERT INTO confidence.finding (key, source, code, run, what, consequence, next_step)"
            " VALUES (%(key)s, %(source)s, %(code)s, %(run)s, %(what)s, %(consequence)s, %(next_step)s)"
            " ON CONFLICT (key) DO UPDATE SET run = excluded.run, what = excluded.what,"
            " consequence = excluded.consequence, next_step = excluded.next_step",
            rows,
        )
        cursor.execute(
            "INSERT INTO confidence.watch (source, looked_at) VALUES (%s, clock_timestamp())"
            " ON CONFLICT (source) DO UPDATE SET looked_at = excluded.looked_at",
            [source],
        )
        settled = cursor.execute(
            "SELECT key FROM confidence.finding WHERE source = %s AND first_seen <= clock_timestamp() - %s",
            [source, GRACE],
        ).fetchall()
    return [finding for finding in found if finding.key in settled]


def open_findings(conn: Connection, sources: Sequence[str]) -> list[OpenFinding]:
    """Return the kept findings of these sources, oldest first."""
    with conn.cursor(row_factory=class_row(OpenFinding)) as cursor:
        return cursor.execute(
            "SELECT source, code, substr(key, length(source || code) + 3) AS subject, run, what, consequence,"
            " next_step, first_seen, first_seen <= clock_timestamp() - %s AS settled"
            " FROM confidence.finding WHERE source = ANY (%s) ORDER BY first_seen, key",
            [GRACE, list(sources)],
        ).fetchall()
