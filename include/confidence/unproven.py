"""Rows of which no scan could prove whether source and copy agree: why, since when, and when they were last looked at.

Kept in `confidence.unproven` until a scan proves them, so that a later scan looks first at what has waited longest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection, sql
from psycopg.rows import class_row, tuple_row
from psycopg.types.json import Jsonb

# Rows that a message or a summary names.
EXAMPLES = 25


@dataclass(frozen=True)
class Doubt:
    """A row that this scan could not prove: the values of its key, why, and whether it was looked at a second time.

    A row without a usable key is named by where it was listed.
    """

    key: Sequence[int | str]
    why: str
    looked: bool = False


@dataclass(frozen=True)
class Unproven:
    """A remembered row. `nights` counts the runs that could not prove it; `last_look` is None if none looked at it."""

    entity: str
    key: Sequence[int | str]
    why: str
    first_seen: datetime
    nights: int
    last_look: datetime | None

    def __str__(self) -> str:
        key = "/".join(map(str, self.key))
        nights = f"{self.nights} night{'' if self.nights == 1 else 's'}"
        looked = f"last looked at {self.last_look:%Y-%m-%d %H:%M %Z}" if self.last_look else "never looked at by itself"
        return f"{self.entity} {key} ({nights}, {looked}): {self.why}"


def remember(conn: Connection, source: str, entity: str, run: str, doubts: Iterable[Doubt]) -> None:
    """Make these the unproven rows of a table; call it in the transaction that records the scan of all of it.

    `entity` is the table's name. A row that was remembered keeps when it was first seen; all others of the table are
    forgotten, since the scan has proven them. A run counts as one night however often it scans.
    """
    _remember(conn, source, entity, run, doubts, proven=None)


def add(conn: Connection, source: str, entity: str, run: str, doubts: Iterable[Doubt]) -> None:
    """Remember these rows of a table as unproven too; all that was remembered stays."""
    _remember(conn, source, entity, run, doubts, proven=sql.SQL("SELECT NULL::jsonb AS key WHERE false"))


def _remember(
    conn: Connection, source: str, entity: str, run: str, doubts: Iterable[Doubt], *, proven: sql.Composable | None
) -> None:
    with conn.transaction():
        conn.execute("CREATE TEMPORARY TABLE doubt (key jsonb, why text, looked boolean) ON COMMIT DROP")
        with conn.cursor() as cursor, cursor.copy("COPY doubt (key, why, looked) FROM STDIN") as copy:
            for doubt in doubts:
                copy.write_row((Jsonb(list(doubt.key)), doubt.why, doubt.looked))
        remember_query(conn, source, entity, run, sql.SQL("SELECT key, why, looked FROM doubt"), proven=proven)
        conn.execute("DROP TABLE doubt")


def remember_query(
    conn: Connection,
    source: str,
    entity: str,
    run: str,
    doubts: sql.Composable,
    *,
    proven: sql.Composable | None = None,
) -> None:
    """The same for doubts that a query selects, as `key` (a jsonb array), `why` and `looked`.

    `proven`: where the scan looked at a part of the table only, a query for the keys that it has proven, as `key`; the
    others stay remembered.
    """
    parts = {
        "doubts": doubts,
        "source": sql.Literal(source),
        "entity": sql.Literal(entity),
        "run": sql.Literal(run),
        "gone": sql.SQL("key IN (SELECT key FROM ({}) p)").format(proven) if proven else sql.SQL("true"),
    }
    conn.execute(sql.SQL(REMEMBER).format(**parts))
    conn.execute(sql.SQL(FORGET).format(**parts))


def of(conn: Connection, source: str, entity: str, limit: int = EXAMPLES) -> list[Unproven]:
    """The unproven rows of a table, those that have waited longest first."""
    with conn.cursor(row_factory=class_row(Unproven)) as cursor:
        return cursor.execute(
            "SELECT entity, key, why, first_seen, nights, last_look FROM confidence.unproven"
            " WHERE source = %s AND entity = %s ORDER BY first_seen, key LIMIT %s",
            [source, entity, limit],
        ).fetchall()


def oldest(conn: Connection, source: str, limit: int = EXAMPLES, *, run: str | None = None) -> list[Unproven]:
    """The unproven rows of all tables of the source, those that have waited longest first.

    `run`: those only that this run was the last that could not prove.
    """
    with conn.cursor(row_factory=class_row(Unproven)) as cursor:
        return cursor.execute(
            "SELECT entity, key, why, first_seen, nights, last_look FROM confidence.unproven"
            " WHERE source = %(source)s AND (%(run)s::text IS NULL OR run = %(run)s)"
            " ORDER BY first_seen, entity, key LIMIT %(limit)s",
            {"source": source, "run": run, "limit": limit},
        ).fetchall()


def metrics(conn: Connection, source: str, tables: Sequence[str]) -> dict[str, int]:
    """What a scan's summary says of the unproven rows of its tables, once they are remembered.

    `unproven_overdue`: those that more than one night could not prove.
    """
    count, overdue = conn.execute(
        "SELECT count(*), count(*) FILTER (WHERE nights > 1) FROM confidence.unproven"
        " WHERE source = %s AND entity = ANY (%s)",
        [source, list(tables)],
    ).fetchone()
    return {"unproven": count, "unproven_overdue": overdue}


def examples(conn: Connection, source: str, tables: Sequence[str]) -> dict[str, list]:
    """The keys of those rows, the longest waiting first."""
    found = conn.execute(
        "SELECT CASE jsonb_array_length(key) WHEN 1 THEN key -> 0 ELSE key END FROM confidence.unproven"
        " WHERE source = %s AND entity = ANY (%s) ORDER BY nights DESC, first_seen, key LIMIT %s",
        [source, list(tables), EXAMPLES],
    ).fetchall()
    return {"unproven_examples": [key for (key,) in found]}


def count_by_table(conn: Connection, sources: Sequence[str]) -> list[tuple[str, str, int, datetime]]:
    """Of each source and table how many rows no scan could prove, and since when the oldest waits."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(
            "SELECT source, entity, count(*), min(first_seen) FROM confidence.unproven WHERE source = ANY (%s)"
            " GROUP BY source, entity ORDER BY source, entity",
            [list(sources)],
        ).fetchall()


REMEMBER = """
INSERT INTO confidence.unproven AS u (source, entity, key, why, last_look, run)
SELECT DISTINCT ON (d.key) {source}, {entity}, d.key, d.why, CASE WHEN d.looked THEN clock_timestamp() END, {run}
FROM ({doubts}) d ORDER BY d.key, d.looked DESC
ON CONFLICT (source, entity, key) DO UPDATE SET why = excluded.why,
  last_look = coalesce(excluded.last_look, u.last_look),
  nights = u.nights + (u.run <> excluded.run)::int, run = excluded.run
"""

FORGET = """
DELETE FROM confidence.unproven
WHERE source = {source} AND entity = {entity} AND {gone} AND key NOT IN (SELECT d.key FROM ({doubts}) d)
"""
