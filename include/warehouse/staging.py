"""Rows on their way: pages are copied into an unlogged table, with the resume point in the same transaction."""

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

import msgspec
from psycopg import Connection, sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from include.warehouse.table import RowRefused, Table, among, identifiers, key_array, same_key

# The share of rows that may be refused before the pull is no evidence any more, and the count below which it may.
REFUSED_SHARE, REFUSED_FLOOR = 0.01, 20

# A row's place on its page, its values, and the columns that its record doesn't name.
StagedRow = tuple[int, tuple, list[str] | None]

# Keys may hold times.
_json = partial(json.dumps, default=str)
_payload = msgspec.json.Encoder(decimal_format="number").encode


class PullError(Exception):
    """The pull can't go on or can't be used. The message says why and what to do."""


class TooManyRefused(PullError):
    """So many rows can't be stored that the others are no evidence either."""


def too_many_refused(read: int, refused: int, *, ended: bool) -> bool:
    """Return whether that is so of these numbers of rows. `ended`: no more will come."""
    none_stored = ended and read > 1 and refused == read
    return none_stored or refused > max(REFUSED_FLOOR, REFUSED_SHARE * read)


@dataclass(frozen=True)
class Pull:
    """How far a pull has come.

    `position`: the resume point to ask for next, None at the start. `ticket`: what the pull belongs to; only a pull
    with the same ticket is resumed. `source_time`: the source's clock when the pull began. `rows_read` counts every
    row received, `rows_refused` those that could not be stored (in confidence.quarantine, with the reason).
    """

    pull: str
    source: str
    entity: str
    purpose: str
    ticket: str
    attempt: uuid.UUID
    position: Any = None
    complete: bool = False
    pages: int = 0
    rows_read: int = 0
    rows_refused: int = 0
    source_time: datetime | None = None
    total_entries: int | None = None
    total_pages: int | None = None
    progress: Mapping[str, Any] | None = None
    started_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def too_many_refused(self) -> bool:
        return too_many_refused(self.rows_read, self.rows_refused, ended=self.complete)


def stage_name(source: str, entity: str, purpose: str) -> str:
    """The name of a pull and its staging table."""
    return f"{source}_{entity}_{purpose}"


def plan_table(name: str) -> sql.Identifier:
    """The plan that belongs to the stage of that name; it outlives the stage."""
    return sql.Identifier("staging", f"{name}_plan")


class Stage:
    """The staging table of one entity and purpose, and how far its pull has come."""

    def __init__(self, conn: Connection, table: Table, pull: Pull):
        self.conn = conn
        self.table = table
        self.pull = pull
        self.sql = sql.Identifier("staging", pull.pull)
        self.plan = plan_table(pull.pull)
        self.refused = sql.Identifier("staging", f"{pull.pull}_refused")

    @classmethod
    def open(cls, conn: Connection, table: Table, source: str, purpose: str, ticket: str) -> "Stage":
        """Resume the unfinished pull of this ticket, or start anew with empty tables.

        Opening takes the pull over: an earlier attempt that still runs can't append any more. A pull that failed for
        its refused rows is not resumed: behind them it would look whole.
        """
        name = stage_name(source, table.name, purpose)
        with conn.transaction():
            # Two attempts that open at once take turns.
            conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"staging.{name}"])
            found = _read(conn, name)
            if found and found.ticket == ticket and not found.too_many_refused:
                pull = replace(found, attempt=uuid.uuid4())
                conn.execute("UPDATE staging.pull SET attempt = %s WHERE pull = %s", [pull.attempt, name])
                return cls(conn, table, pull)
            stage = cls(conn, table, Pull(name, source, table.name, purpose, ticket, uuid.uuid4()))
            stage._create()
            return stage

    @property
    def resumed(self) -> bool:
        return self.pull.pages > 0

    def append(self, page: Iterable[Mapping[str, Any]], **how: Any) -> None:
        """`store` a page. Raises TooManyRefused when too many rows had to be refused by then."""
        self.store(page, **how)
        if self.pull.too_many_refused:
            raise self.refusal(self.pull.rows_read, self.pull.rows_refused)

    def store(
        self,
        page: Iterable[Mapping[str, Any]],
        *,
        next_position: Any,
        page_info: Mapping[str, Any],
        places: Iterable[int] | None = None,
        refuse: Mapping[int, str] | None = None,
    ) -> None:
        """Store a page's rows and the next resume point, both or neither.

        There is no wait for the disk: Postgres flushes nothing for a transaction that wrote to unlogged tables alone.
        `page_info`: any of source_time (kept from the first page), total_entries, total_pages. `places`: each row's
        place on the page, for rows that come several to a place; by default they are counted. `refuse`: why the row at
        a place is not to be stored.
        Raises PullError when another attempt took the pull over.
        """
        number = self.pull.pages + 1
        rows, refused, read = self._read_rows(page, count() if places is None else places, refuse or {})
        with self.conn.transaction():
            self._move(
                position=next_position,
                complete=next_position is None,
                pages=number,
                rows_read=self.pull.rows_read + read,
                rows_refused=self.pull.rows_refused + len(refused),
                source_time=self.pull.source_time or page_info.get("source_time"),
                total_entries=page_info.get("total_entries") if number == 1 else self.pull.total_entries,
                total_pages=page_info.get("total_pages") or self.pull.total_pages,
            )
            self._copy(rows, number)
            self._quarantine(refused, number)

    def refusal(self, read: int, refused: int) -> TooManyRefused:
        """What to raise when so many of the rows could not be stored."""
        pull = self.pull
        return TooManyRefused(
            f"{refused} of {read} rows of {pull.source}.{pull.entity} could not be stored: see the reasons in"
            f" confidence.quarantine (pull {pull.ticket}); mend the source or the table's declaration, then clear this"
            " task"
        )

    def save_progress(self, **figures: Any) -> None:
        """Keep figures with the pull, for the next attempt."""
        self._move(progress={**(self.pull.progress or {}), **figures})

    def drop(self) -> None:
        """Forget the pull; the plan stays."""
        self.conn.execute(sql.SQL("DROP TABLE IF EXISTS {}, {}").format(self.sql, self.refused))
        self.conn.execute("DELETE FROM staging.pull WHERE pull = %s", [self.pull.pull])

    def reopen(self, position: Any) -> None:
        """Let a pull that has come to its end go on at `position`."""
        self._move(position=position, complete=False)

    def finish(self) -> None:
        """End the pull where it is."""
        self._move(position=None, complete=True)

    def remember_refused(self, refused: list[tuple[list, bool, str]]) -> None:
        """Keep with the pull which rows could not be read or stored: the key, whether it is one, and the reason."""
        statement = sql.SQL("INSERT INTO {} (key, usable, reason) VALUES ({}, {}, {})")
        for key, *told in refused:
            self.conn.execute(statement.format(self.refused, key_array(key), *map(sql.Literal, told)))

    def refusals(self) -> list[tuple[list, str]]:
        """The rows that could not be stored, each by its key or where it was listed, with the reason."""
        return self.conn.execute(sql.SQL("SELECT key, reason FROM {} ORDER BY key").format(self.refused)).fetchall()

    def replace_rows(self, where: sql.Composable, records: Iterable[Mapping[str, Any]]) -> None:
        """Put a fresher reading, of page 0, in place of the rows that the condition names. Raises RowRefused."""
        rows = [(0, self.table.row(record), self.table.lacking(record)) for record in records]
        self.conn.execute(sql.SQL("DELETE FROM {} WHERE {}").format(self.sql, where))
        self._copy(rows, 0)

    def fill(self, query: sql.Composable) -> None:
        """Store what a query of the warehouse selects, in the order of the table's columns."""
        with self.conn.transaction():
            self.conn.execute(
                sql.SQL("INSERT INTO {} ({}, _page, _place) SELECT q.*, 1, 0 FROM ({}) q").format(
                    self.sql, identifiers(self.table.names), query
                )
            )
            self._move(complete=True, pages=1)

    def _read_rows(
        self, page: Iterable[Mapping[str, Any]], places: Iterable[int], refuse: Mapping[int, str]
    ) -> tuple[list[StagedRow], list[tuple[int, str, Any]], int]:
        rows, refused, read = [], [], 0
        for place, record in zip(places, page, strict=False):
            read += 1
            try:
                if place in refuse:
                    raise RowRefused(refuse[place])
                rows.append((place, self.table.row(record), self.table.lacking(record)))
            except RowRefused as reason:
                refused.append((place, str(reason), record))
        return rows, refused, read

    def _copy(self, rows: list[StagedRow], page: int) -> None:
        statement = sql.SQL("COPY {} ({}, _page, _place, _lacks) FROM STDIN").format(
            self.sql, identifiers(self.table.names)
        )
        with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
            for place, row, lacks in rows:
                copy.write_row((*row, page, place, lacks))

    def _quarantine(self, refused: list[tuple[int, str, Any]], page: int) -> None:
        for _, reason, record in refused:
            self.conn.execute(
                "INSERT INTO confidence.quarantine (source, entity, pull, key, reason, payload)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                [
                    self.pull.source,
                    self.pull.entity,
                    self.pull.ticket,
                    _text_key(self.table, record),
                    reason,
                    _payload(record).decode(),
                ],
            )
        self.remember_refused(
            [(*_named_by(self.table, record, page, place), reason) for place, reason, record in refused]
        )

    def _move(self, **changes: Any) -> None:
        assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in changes)
        values = [Jsonb(v, _json) if name in ("position", "progress") else v for name, v in changes.items()]
        moved = self.conn.execute(
            sql.SQL(
                "UPDATE staging.pull SET {}, updated_at = clock_timestamp() WHERE pull = %s AND attempt = %s"
            ).format(assignments),
            [*values, self.pull.pull, self.pull.attempt],
        )
        if moved.rowcount != 1:
            raise PullError(
                f"the pull of {self.pull.source}.{self.pull.entity} was taken over by a later attempt, or the warehouse"
                " restarted: nothing is lost, clear this task if it is the only one running"
            )
        self.pull = replace(self.pull, **changes)

    def _create(self) -> None:
        """Empty tables: the stage, unlogged, and the plan, logged: an emptied plan would look like nothing to do."""
        conn, table, pull = self.conn, self.table, self.pull
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}, {}, {}").format(self.sql, self.plan, self.refused))
        conn.execute("DELETE FROM staging.pull WHERE pull = %s", [pull.pull])
        conn.execute(sql.SQL("CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING GENERATED)").format(self.sql, table.sql))
        conn.execute(
            sql.SQL(
                "ALTER TABLE {} DROP COLUMN IF EXISTS deleted_at, DROP COLUMN IF EXISTS sync_id,"
                " ADD _page bigint, ADD _place int, ADD _lacks text[]"
            ).format(self.sql)
        )
        conn.execute(sql.SQL("CREATE INDEX ON {} ({})").format(self.sql, identifiers(table.key)))
        conn.execute(
            sql.SQL(
                "CREATE UNLOGGED TABLE {} (key jsonb, reason text, usable boolean, looked boolean DEFAULT false,"
                " mended boolean DEFAULT false)"
            ).format(self.refused)
        )
        conn.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING GENERATED)").format(self.plan, table.sql))
        conn.execute(
            sql.SQL(
                "ALTER TABLE {} DROP COLUMN IF EXISTS deleted_at, DROP COLUMN IF EXISTS sync_id,"
                " ADD _operation text NOT NULL, ADD _status text NOT NULL, ADD _seen_hash bigint,"
                " ADD _seen_deleted boolean, ADD _why text, ADD _looked boolean NOT NULL DEFAULT false,"
                " ADD _listed boolean NOT NULL DEFAULT true, ADD PRIMARY KEY ({})"
            ).format(self.plan, identifiers(table.key))
        )
        conn.execute(
            "INSERT INTO staging.pull (pull, source, entity, purpose, ticket, attempt) VALUES (%s, %s, %s, %s, %s, %s)",
            [pull.pull, pull.source, pull.entity, pull.purpose, pull.ticket, pull.attempt],
        )


def staged(stage: Stage, keys: Iterable[tuple]) -> set[tuple]:
    """Those of the keys of which the stage has a row."""
    query = sql.SQL("SELECT {} FROM {} WHERE {}")
    key = stage.table.key
    return set(stage.conn.execute(query.format(identifiers(key), stage.sql, among(key, keys))).fetchall())


def count_new(stage: Stage, after_page: int) -> tuple[int, int]:
    """Count the distinct keys that pages after `after_page` brought, and those of them that the copy has not."""
    key = stage.table.key
    return stage.conn.execute(
        sql.SQL(
            "WITH fresh AS (SELECT DISTINCT {s_key} FROM {stage} s WHERE _page > {after} AND NOT EXISTS"
            " (SELECT FROM {stage} e WHERE {same_stage} AND e._page <= {after}))"
            " SELECT count(*), count(*) FILTER (WHERE NOT EXISTS"
            " (SELECT FROM {target} t WHERE {same_target} AND t.deleted_at IS NULL)) FROM fresh"
        ).format(
            s_key=identifiers(key, "s"),
            stage=stage.sql,
            after=sql.Literal(after_page),
            same_stage=same_key(key, "e", "s"),
            target=stage.table.sql,
            same_target=same_key(key, "t", "fresh"),
        )
    ).fetchone()


def _named_by(table: Table, record: Any, page: int, place: int) -> tuple[list, bool]:
    """The record's key, or where it was listed if it has no usable one; and which of both it is."""
    key = table.key_of(record) if isinstance(record, Mapping) else None
    return (list(key), True) if key else ([f"row {place + 1} of page {page}"], False)


def _text_key(table: Table, record: Any) -> str | None:
    key = table.key_of(record) if isinstance(record, Mapping) else None
    return None if key is None else "/".join(map(str, key))


def _read(conn: Connection, name: str) -> Pull | None:
    with conn.cursor(row_factory=class_row(Pull)) as cursor:
        return cursor.execute("SELECT * FROM staging.pull WHERE pull = %s", [name]).fetchone()
