"""The staging tables: rows of a source on their way to the comparison with the copy.

A pull reads an entity page by page. It stores each page's rows in an unlogged table (the stage), and in the same
transaction the position of the next page, so that a later attempt can resume it.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import count
from operator import eq, itemgetter
from typing import Any

import msgspec
from psycopg import Connection, sql
from psycopg.types.json import Jsonb

from include.warehouse.pull import Pull, PullError, TooManyRefused, read_pull
from include.warehouse.sql_fragments import among, identifiers, key_array, same_key, written_once
from include.warehouse.staging_tables import StagingTables
from include.warehouse.table import RowRefused, Table, key_text

# A row's place on its page, its values, and the columns that its record does not name.
StagedRow = tuple[int, tuple, list[str] | None]

# Keys and positions may hold times.
_json = partial(json.dumps, default=str)
_payload = msgspec.json.Encoder(decimal_format="number").encode


def stage_name(source: str, entity: str, purpose: str) -> str:
    """Return the name of a pull, and of its staging table."""
    return f"{source}_{entity}_{purpose}"


def plan_table(name: str) -> sql.Identifier:
    """Return the plan's table that belongs to the stage `name`. It stays when the stage is dropped."""
    return StagingTables(name).plan


class Stage:
    """The staging table of one entity and purpose, with its pull.

    `sql`, `plan` and `refused` are the names of three tables: the staged rows, the plan (see compare.py), and the rows
    that could not be stored.
    """

    def __init__(self, conn: Connection, table: Table, pull: Pull):
        self.conn = conn
        self.table = table
        self.pull = pull
        self._tables = StagingTables(pull.pull)
        self.sql, self.plan, self.refused = self._tables.stage, self._tables.plan, self._tables.refused

    @classmethod
    def open(cls, conn: Connection, table: Table, source: str, purpose: str, ticket: str) -> "Stage":
        """Resume the pull if it has this ticket, else start a new one with empty tables.

        This takes the pull over: an earlier attempt that still runs can't store anything any more. A pull that refused
        too many rows is not resumed but started again: a resumed one could go on to its end as if it were whole. So is
        one from before the mirrored table got other columns.
        """
        name = stage_name(source, table.name, purpose)
        with conn.transaction():
            _take_turn(conn, name)
            found = read_pull(conn, name)
            if found and found.ticket == ticket and not found.too_many_refused:
                stage = cls(conn, table, replace(found, attempt=uuid.uuid4()))
                if stage._tables.fit(conn, table):
                    conn.execute("UPDATE staging.pull SET attempt = %s WHERE pull = %s", [stage.pull.attempt, name])
                    return stage
            stage = cls(conn, table, Pull(name, source, table.name, purpose, ticket, uuid.uuid4()))
            stage._begin()
            return stage

    @classmethod
    def join(cls, conn: Connection, table: Table, source: str, purpose: str, ticket: str) -> "Stage | None":
        """Return the pull that another task reads under this ticket, to read ranges of it; None if there is none.

        This does not take the pull over: what only its own attempt may do is refused.
        """
        found = read_pull(conn, stage_name(source, table.name, purpose))
        return cls(conn, table, replace(found, attempt=uuid.uuid4())) if found and found.ticket == ticket else None

    @property
    def resumed(self) -> bool:
        """Whether the pull has stored pages already."""
        return self.pull.pages > 0

    def append(self, page: Iterable[Mapping[str, Any]], **how: Any) -> None:
        """Store a page, as `store` does. Then raise TooManyRefused if the pull has refused too many rows.

        Postgres does not wait for the disk here, as the transaction writes to unlogged tables only.
        """
        with self.conn.transaction():
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
        """Store a page's rows and the position of the next page.

        Call it in a transaction, so that both are stored or neither.

        - `next_position`: None ends the pull
        - `page_info`: any of `source_time` (the earliest is kept), `total_entries` (that of the first page) and
          `total_pages`
        - `places`: each row's place on the page, if several rows share one; by default 0, 1, 2, ...
        - `refuse`: reasons by place; the rows there are refused instead of stored

        Raises PullError if another attempt has taken the pull over.
        """

        def move(read: int, refused: int) -> int:
            number = self.pull.pages + 1
            self._update_pull(
                position=next_position,
                complete=next_position is None,
                pages=number,
                rows_read=self.pull.rows_read + read,
                rows_refused=self.pull.rows_refused + refused,
                source_time=min(filter(None, (self.pull.source_time, page_info.get("source_time"))), default=None),
                total_entries=page_info.get("total_entries") if number == 1 else self.pull.total_entries,
                total_pages=page_info.get("total_pages") or self.pull.total_pages,
            )
            return number

        self.store_where(page, move, places=places, refuse=refuse)

    def store_where(
        self,
        page: Iterable[Mapping[str, Any]],
        move: Callable[[int, int], int],
        *,
        places: Iterable[int] | None = None,
        refuse: Mapping[int, str] | None = None,
    ) -> None:
        """Store a page's rows after `move`, which moves the position or raises.

        Call it in a transaction. `move` gets how many rows were read and how many of them are refused, and returns the
        number of the page. The rest is as in `store`.
        """
        rows, refused, read = self._read_rows(page, count() if places is None else places, refuse or {})
        number = move(read, len(refused))
        self._copy(rows, number)
        self._quarantine(refused, number)

    def refusal(self, read: int, refused: int) -> TooManyRefused:
        """Return the error to raise if `refused` of `read` rows are too many."""
        pull = self.pull
        return TooManyRefused(
            f"{refused} of {read} rows of {pull.source}.{pull.entity} could not be stored: see the reasons in"
            f" confidence.quarantine (pull {pull.ticket}); mend the source or the table's declaration, then clear this"
            " task"
        )

    def save_progress(self, **figures: Any) -> None:
        """Add figures to the pull's progress, for the next attempt. Raises PullError as `store` does."""
        self._update_pull(progress=figures)

    def claim(self) -> None:
        """Keep other attempts out until the transaction ends. Call it in the transaction that applies the plan.

        Raises PullError if another attempt has taken the pull over: it has emptied or changed the plan by now, so that
        applying the plan would leave out changes.
        """
        _take_turn(self.conn, self.pull.pull)
        self.save_progress()

    def drop(self) -> None:
        """Delete the pull and its staged rows, unless another attempt has taken it over. The plan stays."""
        with self.conn.transaction():
            _take_turn(self.conn, self.pull.pull)
            own = "DELETE FROM staging.pull WHERE pull = %s AND attempt = %s"
            if self.conn.execute(own, [self.pull.pull, self.pull.attempt]).rowcount:
                self._tables.empty(self.conn)

    def reopen(self, position: Any) -> None:
        """Let a complete pull go on at `position`. Raises PullError as `store` does."""
        self._update_pull(position=position, complete=False)

    def finish(self) -> None:
        """Mark the pull as complete, wherever it is. Raises PullError as `store` does."""
        self._update_pull(position=None, complete=True)

    def count_ranges(self, *, complete: bool, pages: int, rows_read: int, rows_refused: int) -> None:
        """Set how far the readers of the pull's ranges have come together.

        Raises PullError as `store` does, TooManyRefused if the readers have refused too many rows.
        """
        self._update_pull(complete=complete, pages=pages, rows_read=rows_read, rows_refused=rows_refused)
        if self.pull.too_many_refused:
            raise self.refusal(rows_read, rows_refused)

    def empty_plan(self) -> None:
        """Delete the rows of the plan."""
        self._tables.empty_plan(self.conn)

    def remember_refused(self, refused: list[tuple[list, bool, str]]) -> None:
        """Keep which rows could not be read or stored, as (key, usable, reason).

        `usable`: whether the first item is really the row's key; otherwise it says where the row was listed.
        """
        statement = sql.SQL("INSERT INTO {} (key, usable, reason) VALUES ({}, {}, {})")
        for key, usable, reason in refused:
            values = key_array(key), sql.Literal(usable), sql.Literal(reason)
            self.conn.execute(statement.format(self.refused, *values))

    def refusals(self) -> list[tuple[list, str]]:
        """Return (key, reason) of each row that could not be stored; without a usable key, where it was listed."""
        return self.conn.execute(sql.SQL("SELECT key, reason FROM {} ORDER BY key").format(self.refused)).fetchall()

    def replace_rows(
        self,
        where: sql.Composable,
        records: Iterable[Mapping[str, Any]],
        same_value: Callable[[object, object], bool] = eq,
    ) -> None:
        """Replace the staged rows for which `where` is true by these records, as rows of page 0.

        A time that is the same as in the replaced row, by `same_value`, stays as that row has it.

        Raises RowRefused if one of them can't be stored; then nothing is replaced.
        """
        rows = [(self.table.row(record), self.table.lacking(record)) for record in records]
        names = self.table.names
        delete = sql.SQL("DELETE FROM {} WHERE {} RETURNING {}").format(self.sql, where, identifiers(names))
        key = itemgetter(*map(names.index, self.table.key))
        before = {key(row): row for row in self.conn.execute(delete)}

        def value(old: object, new: object) -> object:
            return old if isinstance(old, datetime) and same_value(old, new) else new

        self._copy([(0, tuple(map(value, before.get(key(row), row), row)), lacks) for row, lacks in rows], 0)

    def fill(self, query: sql.Composable) -> None:
        """Store the rows that a query selects as the only page of the pull, which is complete then.

        The query selects the table's columns in their order. Raises PullError as `store` does.
        """
        with self.conn.transaction():
            self.conn.execute(
                sql.SQL("INSERT INTO {} ({}, _page, _place) SELECT q.*, 1, 0 FROM ({}) q").format(
                    self.sql, identifiers(self.table.names), query
                )
            )
            self._update_pull(complete=True, pages=1)

    def _read_rows(
        self, page: Iterable[Mapping[str, Any]], places: Iterable[int], refuse: Mapping[int, str]
    ) -> tuple[list[StagedRow], list[tuple[int, str, Any]], int]:
        """Return the page's rows, the refused ones as (place, reason, record), and how many records the page had."""
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
        """Write the rows to the staging table."""
        if not rows:
            return
        statement = sql.SQL("COPY {} ({}, _page, _place, _lacks) FROM STDIN").format(
            self.sql, identifiers(self.table.names)
        )
        with self.conn.cursor() as cursor, cursor.copy(statement) as copy:
            for place, row, lacks in rows:
                copy.write_row((*row, page, place, lacks))

    def _quarantine(self, refused: list[tuple[int, str, Any]], page: int) -> None:
        """Keep the refused rows, as (place, reason, record), in confidence.quarantine and with the pull."""
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
                    _payload_text(record),
                ],
            )
        self.remember_refused(
            [(*_named_by(self.table, record, page, place), reason) for place, reason, record in refused]
        )

    def _update_pull(self, **changes: Any) -> None:
        """Set these columns of the pull; `progress` is added to what it holds.

        Raises PullError if another attempt has taken the pull over, or it is gone.
        """
        values = [Jsonb(v, _json) if name in ("position", "progress") else v for name, v in changes.items()]
        moved = self.conn.execute(
            sql.SQL(
                "UPDATE staging.pull SET {}, updated_at = clock_timestamp() WHERE pull = %s AND attempt = %s"
            ).format(_assignments(tuple(changes))),
            [*values, self.pull.pull, self.pull.attempt],
        )
        if moved.rowcount != 1:
            raise PullError(
                f"the pull of {self.pull.source}.{self.pull.entity} was taken over by a later attempt, or the warehouse"
                " restarted: nothing is lost, clear this task if it is the only one running"
            )
        if "progress" in changes:
            changes["progress"] = {**(self.pull.progress or {}), **changes["progress"]}
        self.pull = replace(self.pull, **changes)

    def _begin(self) -> None:
        """Create the pull with empty tables."""
        conn, pull = self.conn, self.pull
        # First the pull: this waits for whoever stores a page, and who comes later can store nothing more.
        conn.execute("DELETE FROM staging.pull WHERE pull = %s", [pull.pull])
        self._tables.make_empty(conn, self.table)
        (started_at,) = conn.execute(
            "INSERT INTO staging.pull (pull, source, entity, purpose, ticket, attempt) VALUES (%s, %s, %s, %s, %s, %s)"
            " RETURNING started_at",
            [pull.pull, pull.source, pull.entity, pull.purpose, pull.ticket, pull.attempt],
        ).fetchone()
        self.pull = replace(pull, started_at=started_at)


@written_once
def _assignments(names: tuple[str, ...]) -> sql.Composed:
    """Return the SQL that sets these columns of a pull; `progress` is added to what it holds."""
    add = sql.SQL("{0} = {0} || %s")
    return sql.SQL(", ").join(
        (add if name == "progress" else sql.SQL("{} = %s")).format(sql.Identifier(name)) for name in names
    )


def _take_turn(conn: Connection, name: str) -> None:
    """Wait until no other attempt opens, drops or applies the pull of that name. Call it in a transaction."""
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"staging.{name}"])


def drop_left(conn: Connection, name: str, expired: sql.Composable) -> bool:
    """Drop a pull with its tables unless somebody is at work on it or may use its plan; return whether it was dropped.

    `expired`: the condition that the row `t` of staging.pull may go. A plan is used only while the writer is stopped.
    Call it in a transaction.
    """
    free = conn.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"staging.{name}"]).fetchone()[0]
    if not free:
        return False
    dropped = conn.execute(
        sql.SQL(
            "DELETE FROM staging.pull t WHERE pull = %s AND {} AND NOT EXISTS"
            " (SELECT FROM confidence.writer w WHERE w.source = t.source AND w.state = 'stopped')"
        ).format(expired),
        [name],
    ).rowcount
    if dropped:
        StagingTables(name).drop(conn)
    return bool(dropped)


def staged(stage: Stage, keys: Iterable[tuple]) -> set[tuple]:
    """Return those of the keys that the stage has a row of."""
    query = sql.SQL("SELECT {} FROM {} WHERE {}")
    key = stage.table.key
    return set(stage.conn.execute(query.format(identifiers(key), stage.sql, among(key, keys))).fetchall())


def count_new(stage: Stage, after_page: int) -> tuple[int, int]:
    """Return how many keys only the pages after `after_page` have, and how many of these the copy lacks."""
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
    """Return the record's key and True; if it has no usable key, where it was listed and False."""
    key = table.key_of(record) if isinstance(record, Mapping) else None
    return (list(key), True) if key else ([f"row {place + 1} of page {page}"], False)


def _payload_text(record: Any) -> str | None:
    """Return a refused record as JSON; None if it can't be written as such."""
    try:
        return _payload(record).decode()
    except (RecursionError, UnicodeEncodeError):
        return None


def _text_key(table: Table, record: Any) -> str | None:
    """Return the record's key as text; None if it has no usable key."""
    key = table.key_of(record) if isinstance(record, Mapping) else None
    return None if key is None else key_text(key)
