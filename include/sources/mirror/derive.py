"""Derived tables, which are computed from mirrored ones after each sync and repair."""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import Connection, sql

from include.sources.mirror.context import MirrorContext
from include.warehouse import compare
from include.warehouse.merge import apply_plan
from include.warehouse.staging import Stage
from include.warehouse.sync_log import Counts
from include.warehouse.table import Table


@dataclass(frozen=True)
class Derived:
    """A table that is computed from mirrored ones. `query` selects its columns, in the table's order.

    - `touched`: SQL over rows `t`, true if a sync after {since} may have changed the row's result. Only those rows are
      compared, and the condition replaces {touched} in `query`. Give it where computing all rows takes too long.
    - `keep`: SQL over rows `t`, true if the row is not computed and must stay

    Raises ValueError if the table keeps extra fields.
    """

    table: Table
    query: str
    touched: str | None = None
    keep: str = "false"

    def __post_init__(self) -> None:
        if self.table.keeps_extra:
            raise ValueError(f"{self.table.full_name} is computed, so it keeps no extra fields: say keeps_extra=False")


def derive(context: MirrorContext, sync_id: int, *, whole: bool = False) -> Mapping[str, Counts]:
    """Compute the derived tables again and write the rows that differ. Return the counts of each table.

    `whole`: compute all rows, not only the possibly stale ones. The caller's transaction holds the fence.
    """
    conn, counts = context.conn, {}
    for derived in context.source.derived:
        touched = sql.SQL("true") if whole else _possibly_stale(conn, derived)
        stage = Stage.open(conn, derived.table, context.source.name, "derive", f"sync_id {sync_id}")
        stage.fill(sql.SQL(derived.query).format(touched=touched) if derived.touched else sql.SQL(derived.query))
        compare.plan_writes(stage)
        within = sql.SQL("{} AND NOT ({})").format(touched, sql.SQL(derived.keep))
        compare.plan_deletes(stage, status="confirmed", within=within)
        counts[derived.table.name] = Counts.of(apply_plan(conn, derived.table, stage.plan, sync_id))
        stage.drop()
    return counts


def _possibly_stale(conn: Connection, derived: Derived) -> sql.Composable:
    """Return SQL over rows `t`, true if a sync may have changed the row's result since the table was last written.

    True for all rows if the table is empty or declares no `touched`. The changes of a sync that was interrupted before
    it derived the table are included.
    """
    newest = sql.SQL("SELECT max(sync_id) FROM {} t WHERE NOT ({})").format(derived.table.sql, sql.SQL(derived.keep))
    since = conn.execute(newest).fetchone()[0] if derived.touched else None
    return sql.SQL("true") if since is None else sql.SQL(derived.touched).format(since=sql.Literal(since))
