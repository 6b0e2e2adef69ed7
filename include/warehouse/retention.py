"""Drop rows that are older than `confidence.retention` says, in small transactions."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from psycopg import Connection, Error, sql
from psycopg.rows import class_row, tuple_row

from include.warehouse import staging, sync_log

# Rows of one transaction.
BATCH = 5000
# A runbook at work goes first: a batch waits this long for a lock at most, and its statement runs this long at most.
LIMITS = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '60s'"

log = logging.getLogger(__name__)


class RetentionFailed(Exception):
    """Some rows of the policy could not be applied. The message says which, why, and what to do."""


@dataclass(frozen=True)
class Policy:
    """A row of `confidence.retention`.

    - `table_name`: with its schema
    - `source`: empty for all sources but the `others`, which have a row of their own
    - `moment`, `keep_if`: SQL, also that of the table's general row
    """

    table_name: str
    source: str
    others: list[str]
    days: int
    moment: str
    keep_if: str

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(*self.table_name.split(".", 1))

    @property
    def expired(self) -> sql.Composed:
        """The condition that a row `t` of the table may go."""
        conditions = [
            sql.SQL("({}) < now() - make_interval(days => {})").format(sql.SQL(self.moment), sql.Literal(self.days)),
            sql.SQL("({}) IS NOT TRUE").format(sql.SQL(self.keep_if)),
        ]
        if self.source:
            conditions.append(sql.SQL("t.source = {}").format(sql.Literal(self.source)))
        elif self.others:
            conditions.append(sql.SQL("t.source <> ALL ({})").format(sql.Literal(self.others)))
        return sql.SQL(" AND ").join(conditions)


def days_kept(conn: Connection, table_name: str, source: str) -> int | None:
    """Return for how many days rows of the table are kept; None if for good."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            "SELECT days FROM confidence.retention WHERE table_name = %s AND source IN ('', %s)"
            " ORDER BY source DESC LIMIT 1",
            [table_name, source],
        ).fetchone()
    return found and found[0]


def policies(conn: Connection) -> list[Policy]:
    """Return all rows of `confidence.retention`, completed by the general rows of their tables."""
    with conn.cursor(row_factory=class_row(Policy)) as cursor:
        return cursor.execute(POLICIES).fetchall()


def expire(conn: Connection) -> Mapping[str, int]:
    """Drop what has expired and return how many rows, by table. `conn` is in autocommit.

    Rows that another transaction has locked are left for the next time. Raises RetentionFailed at the end if a row of
    the policy could not be applied.
    """
    dropped: dict[str, int] = {}
    problems = []
    for policy in policies(conn):
        try:
            for table, rows in DROPS.get(policy.table_name, _drop)(conn, policy):
                dropped[table] = dropped.get(table, 0) + rows
        except Error as error:
            row = policy.table_name + (f" of {policy.source}" if policy.source else "")
            problems.append(f"{row} ({type(error).__name__}: {error.diag.message_primary or 'the connection is lost'})")
            if conn.closed:
                break
    log.info("dropped: %s", dropped)
    if problems:
        raise RetentionFailed(
            f"{len(problems)} rows of confidence.retention could not be applied: {'; '.join(problems)}. The others"
            f" were, and dropped {dropped}. Correct or delete these rows of confidence.retention, or wait for the next"
            " run if only a lock or a time limit is named"
        )
    return dropped


def _drop(conn: Connection, policy: Policy) -> Iterator[tuple[str, int]]:
    """Drop the expired rows of the table; yield its name with the rows of each batch."""
    where = policy.expired
    statement = sql.SQL(
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY("
        "SELECT t.ctid FROM {table} t WHERE {where} LIMIT {batch} FOR UPDATE SKIP LOCKED))"
    ).format(table=policy.table, where=where, batch=sql.Literal(BATCH))
    rows = BATCH
    while rows == BATCH:
        with conn.transaction():
            conn.execute(LIMITS)
            rows = conn.execute(statement).rowcount
            if rows:
                conn.execute(NOTE, [policy.days, policy.table_name, policy.source])
        yield policy.table_name, rows


def _drop_syncs(conn: Connection, policy: Policy) -> Iterator[tuple[str, int]]:
    """Drop the expired rows of the sync log, then their change log, which may have millions of rows.

    Without its row of the log nobody can roll a sync back, so it does not matter that its changes go bit by bit.
    """
    yield from _drop(conn, policy)
    unlogged = sync_log.unlogged(conn)
    rows = BATCH if unlogged else 0
    while rows == BATCH:
        with conn.transaction():
            conn.execute(LIMITS)
            rows = sync_log.drop_changes(conn, unlogged, BATCH)
        yield "confidence.change_log", rows


def _drop_pulls(conn: Connection, policy: Policy) -> Iterator[tuple[str, int]]:
    """Drop the pulls that nobody goes on with, each with its tables."""
    names = conn.execute(sql.SQL("SELECT pull FROM staging.pull t WHERE {}").format(policy.expired)).fetchall()
    for (name,) in names:
        with conn.transaction():
            conn.execute(LIMITS)
            yield policy.table_name, int(staging.drop_left(conn, name, policy.expired))


# Tables whose rows have others beside them.
DROPS: Mapping[str, Callable[[Connection, Policy], Iterator[tuple[str, int]]]] = {
    "confidence.sync_log": _drop_syncs,
    "staging.pull": _drop_pulls,
}

POLICIES = """
SELECT r.table_name, r.source, r.days, coalesce(r.moment, g.moment, 'null') AS moment,
  '(' || r.keep_if || ') OR (' || coalesce(g.keep_if, 'false') || ')' AS keep_if,
  ARRAY(SELECT o.source FROM confidence.retention o
    WHERE o.table_name = r.table_name AND r.source = '' AND o.source <> '') AS others
FROM confidence.retention r LEFT JOIN confidence.retention g
  ON g.table_name = r.table_name AND g.source = '' AND r.source <> ''
ORDER BY r.table_name, r.source
"""

NOTE = """
UPDATE confidence.retention SET dropped_until = greatest(dropped_until, now() - make_interval(days => %s))
WHERE table_name = %s AND source = %s
"""
