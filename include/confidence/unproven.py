"""Unproven rows: no scan could tell whether source and copy agree on them.

`confidence.unproven` keeps each with the reason until a scan proves it. The second look asks first for the rows that
have waited longest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection, sql
from psycopg.rows import class_row, tuple_row
from psycopg.types.json import Jsonb

from include.warehouse.table import key_text

# How many rows a message or a summary names.
EXAMPLES = 25


@dataclass(frozen=True)
class Doubt:
    """A row that a scan could not prove.

    - `key`: the values of its key; if it has no usable one, a text that says where it was listed
    - `why`: the reason, for people
    - `looked`: whether the second look asked for it
    """

    key: Sequence[int | str]
    why: str
    looked: bool = False


@dataclass(frozen=True)
class Unproven:
    """An unproven row, as the warehouse keeps it.

    `nights`: how many runs could not prove it. `last_look`: when a second look asked for it last; None if none has.
    """

    entity: str
    key: Sequence[int | str]
    why: str
    first_seen: datetime
    nights: int
    last_look: datetime | None

    def __str__(self) -> str:
        key = key_text(self.key)
        runs = f"{self.nights} run{'' if self.nights == 1 else 's'}"
        looked = f"last looked at {self.last_look:%Y-%m-%d %H:%M %Z}" if self.last_look else "never looked at by itself"
        return f"{self.entity} {key} ({runs}, {looked}): {self.why}"


def remember(conn: Connection, source: str, entity: str, run: str, doubts: Iterable[Doubt]) -> None:
    """Replace the unproven rows of a table by those of a scan of the whole table.

    `entity` is the table's name. Call it in the transaction that records the scan. A row that was unproven before keeps
    the time when it was first seen. A run counts as one night however often it scans.
    """
    _remember(conn, source, entity, run, doubts, proven=None)


def add(conn: Connection, source: str, entity: str, run: str, doubts: Iterable[Doubt]) -> None:
    """Add these rows to the unproven rows of a table; those that are kept already stay."""
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
    """Do what `remember` does, for rows that a query selects as `key` (a jsonb array), `why` and `looked`.

    `proven`: a query for the keys that the scan has proven, as `key`, if it looked at a part of the table only. Rows
    that neither query selects stay as they are.
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
    """Return the unproven rows of a table, those that have waited longest first."""
    with conn.cursor(row_factory=class_row(Unproven)) as cursor:
        return cursor.execute(
            "SELECT entity, key, why, first_seen, nights, last_look FROM confidence.unproven"
            " WHERE source = %s AND entity = %s ORDER BY first_seen, key LIMIT %s",
            [source, entity, limit],
        ).fetchall()


def oldest(conn: Connection, source: str, limit: int = EXAMPLES, *, run: str | None = None) -> list[Unproven]:
    """Return the unproven rows of all tables of a source, those that have waited longest first.

    `run`: only rows for which this run was the last that could not prove them.
    """
    with conn.cursor(row_factory=class_row(Unproven)) as cursor:
        return cursor.execute(
            "SELECT entity, key, why, first_seen, nights, last_look FROM confidence.unproven"
            " WHERE source = %(source)s AND (%(run)s::text IS NULL OR run = %(run)s)"
            " ORDER BY first_seen, entity, key LIMIT %(limit)s",
            {"source": source, "run": run, "limit": limit},
        ).fetchall()


def metrics(conn: Connection, source: str, tables: Sequence[str]) -> dict[str, int]:
    """Return the metrics `unproven` and `unproven_overdue` (by more than one run) of these tables.

    Call it after `remember`.
    """
    count, overdue = conn.execute(
        "SELECT count(*), count(*) FILTER (WHERE nights > 1) FROM confidence.unproven"
        " WHERE source = %s AND entity = ANY (%s)",
        [source, list(tables)],
    ).fetchone()
    return {"unproven": count, "unproven_overdue": overdue}


def examples(conn: Connection, source: str, tables: Sequence[str]) -> dict[str, list]:
    """Return {"unproven_examples": keys} of these tables for a scan's summary, those that have waited longest first."""
    found = conn.execute(
        "SELECT CASE jsonb_array_length(key) WHEN 1 THEN key -> 0 ELSE key END FROM confidence.unproven"
        " WHERE source = %s AND entity = ANY (%s) ORDER BY nights DESC, first_seen, key LIMIT %s",
        [source, list(tables), EXAMPLES],
    ).fetchall()
    return {"unproven_examples": [key for (key,) in found]}


def count_by_table(conn: Connection, sources: Sequence[str]) -> list[tuple[str, str, int, datetime]]:
    """Return (source, table, number of unproven rows, when the oldest was first seen) for each table with such rows."""
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
