"""Source against copy, in SQL: what stands twice in the source, what differs, and the plan that would mend it.

A plan row names an `_operation`, the row to write (or, for a delete, the row as it stood) and the state in which the
copy was seen (`_seen_hash`, `_seen_deleted`); its `_status` says how sure it is:

- `candidate`: one look is no proof; a second look decides
- `confirmed`: may be applied
- `noise`: explained by the second look, an artefact of the feed
- `unproven`: the second look could not tell, or its budget was spent; `_why` says so, and `_looked` whether it came
- `young`: changed so shortly ago that the next sync brings it: no drift
- `stale`: the source showed an older version than the copy has; never written

`_listed` is false for a row of the copy that the source's list did not show.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from include.warehouse.staging import Stage
from include.warehouse.table import Table, identifiers, same_key


@dataclass(frozen=True)
class Repeats:
    """Rows whose key the feed had shown before: with the same content, or another."""

    identical: int
    differing: int

    @property
    def total(self) -> int:
        return self.identical + self.differing


def drop_repeats(stage: Stage) -> Repeats:
    """Keep one row a key, the newest version and of those the one seen last; count the others."""
    table = stage.table
    newest = [sql.SQL("{} DESC NULLS LAST").format(sql.Identifier(name)) for name in version_columns(table)]
    order = sql.SQL(", ").join([*newest, sql.SQL("_page DESC, _place DESC")])
    identical, differing = stage.conn.execute(
        sql.SQL(
            "WITH ranked AS ("
            " SELECT ctid, row_hash, row_number() OVER w AS rank, first_value(row_hash) OVER w AS kept FROM {stage}"
            " WHERE ({key}) IN (SELECT {key} FROM {stage} GROUP BY {key} HAVING count(*) > 1)"
            " WINDOW w AS (PARTITION BY {key} ORDER BY {order})"
            "), gone AS (DELETE FROM {stage} s USING ranked r WHERE s.ctid = r.ctid AND r.rank > 1"
            " RETURNING r.row_hash = r.kept AS identical)"
            " SELECT count(*) FILTER (WHERE identical), count(*) FILTER (WHERE NOT identical) FROM gone"
        ).format(stage=stage.sql, key=identifiers(table.key), order=order)
    ).fetchone()
    return Repeats(identical, differing)


def plan_writes(
    stage: Stage,
    *,
    young_after: datetime | sql.Composable | None = None,
    doubtful: str = "confirmed",
    older: str = "stale",
    only: sql.Composable | None = None,
) -> None:
    """Plan an insert for each row that the copy has not (or only as a tombstone) and an update where it differs.

    `young_after`: leave rows alone that changed later, a time or an expression over the staged row `s`. `doubtful`: the
    status of a row that comes back over its tombstone, of one that differs without being newer, of one that lacks a
    value which the copy has, and of one that newly says that it is deleted. `older`: the status of one of which the
    source shows an older version than the copy has. `only`: a condition on the staged rows.
    """
    table = stage.table
    stage.conn.execute(
        sql.SQL(PLAN_WRITES).format(
            plan=stage.plan,
            columns=identifiers(table.names),
            s_columns=identifiers(table.names, "s"),
            alive=_alive(table.key),
            young=_young(table.moment, young_after),
            stale=_versions(table, "<"),
            newer=_versions(table, ">"),
            emptied=_emptied(table),
            buried=_buried(table),
            older=sql.Literal(older),
            doubtful=sql.Literal(doubtful),
            only=only or sql.SQL("true"),
            stage=stage.sql,
            target=table.sql,
            same=same_key(table.key, "t", "s"),
        )
    )


def plan_deletes(stage: Stage, *, status: str, within: sql.Composable | None = None) -> None:
    """Plan a delete for each live row `t` of the copy, `within` a condition, that the stage has not."""
    table = stage.table
    stage.conn.execute(
        sql.SQL(
            "INSERT INTO {plan} ({columns}, _operation, _status, _seen_hash, _seen_deleted, _listed)"
            " SELECT {t_columns}, 'delete', {status}, t.row_hash, false, false FROM {target} t"
            " WHERE t.deleted_at IS NULL AND {within} AND NOT EXISTS (SELECT FROM {stage} s WHERE {same})"
        ).format(
            plan=stage.plan,
            columns=identifiers(table.names),
            t_columns=identifiers(table.names, "t"),
            status=sql.Literal(status),
            target=table.sql,
            within=within or sql.SQL("true"),
            stage=stage.sql,
            same=same_key(table.key, "s", "t"),
        )
    )


def plan_counts(stage: Stage) -> Mapping[tuple[str, str], int]:
    """Count the plan's rows by (operation, status); absent pairs count 0."""
    rows = stage.conn.execute(
        sql.SQL("SELECT _operation, _status, count(*) FROM {} GROUP BY 1, 2").format(stage.plan)
    ).fetchall()
    return Counter({(operation, status): count for operation, status, count in rows})


def plan_examples(stage: Stage, operation: str, limit: int = 25) -> list:
    """The keys of the first rows planned for `operation` that are drift, in the order of the list, then of their keys.

    As JSON has them.
    """
    key = stage.table.key
    rows = stage.conn.execute(
        sql.SQL(
            "SELECT jsonb_build_array({p_key}) FROM {plan} p LEFT JOIN {stage} s ON {same}"
            " WHERE _operation = %s AND _status NOT IN ('young', 'stale', 'noise')"
            " ORDER BY _page, _place, {p_key} LIMIT %s"
        ).format(p_key=identifiers(key, "p"), plan=stage.plan, stage=stage.sql, same=same_key(key, "s", "p")),
        [operation, limit],
    ).fetchall()
    return [values[0] if len(key) == 1 else values for (values,) in rows]


def live_rows(stage: Stage) -> int:
    """Count the rows alive in the copy."""
    query = sql.SQL("SELECT count(*) FROM {} WHERE deleted_at IS NULL").format(stage.table.sql)
    return stage.conn.execute(query).fetchone()[0]


def _alive(key: tuple[str, ...]) -> sql.Composed:
    return sql.SQL("(t.{} IS NOT NULL AND t.deleted_at IS NULL)").format(sql.Identifier(key[0]))


def _young(moment: str | None, after: datetime | sql.Composable | None) -> sql.Composable:
    if moment is None or after is None:
        return sql.SQL("false")
    # No sync brings what is dated days ahead.
    return sql.SQL("(s.{0} > {1} AND s.{0} < clock_timestamp() + interval '1 day')").format(
        sql.Identifier(moment), after if isinstance(after, sql.Composable) else sql.Literal(after)
    )


def _versions(table: Table, comparison: str) -> sql.Composable:
    """The condition that the staged row `s` is older (<) or newer (>) than the copy's `t`.

    Of the columns that tell, the first that neither lacks decides; where there is none, neither is true.
    """
    names = version_columns(table)
    told = [sql.SQL("s.{0} {1} t.{0}").format(sql.Identifier(name), sql.SQL(comparison)) for name in names]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join([*told, sql.SQL("false")]))


def newer(table: Table, record: str, copy: str) -> sql.Composable:
    """The condition that row `record` shows a newer version than row `copy`."""
    told = [
        sql.SQL("{} > {}").format(sql.Identifier(record, name), sql.Identifier(copy, name))
        for name in version_columns(table)
    ]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join([*told, sql.SQL("false")]))


def version_columns(table: Table) -> list[str]:
    return [name for name in (table.version, table.changed) if name]


def poorer(table: Table) -> sql.Composable:
    """The condition that the copy's row `t` has a value in a column that the staged record `s` doesn't name."""
    lost = [
        sql.SQL("{} = ANY (s._lacks) AND t.{} IS NOT NULL").format(sql.Literal(name), sql.Identifier(name))
        for name in table.compared
    ]
    return sql.SQL("(s._lacks IS NOT NULL AND ({}))").format(sql.SQL(" OR ").join([*lost, sql.SQL("false")]))


def _emptied(table: Table) -> sql.Composable:
    """The condition that the staged record `s` has nothing in a column in which the copy's row `t` has a value."""
    lost = [sql.SQL("(s.{0} IS NULL AND t.{0} IS NOT NULL)").format(sql.Identifier(name)) for name in table.compared]
    return sql.SQL("({})").format(sql.SQL(" OR ").join([*lost, sql.SQL("false")]))


def _buried(table: Table) -> sql.Composable:
    """The condition that the staged record `s` says that it is deleted, and the copy's row `t` doesn't."""
    if table.tombstone is None:
        return sql.SQL("false")
    return sql.SQL("(s.{0} IS TRUE AND t.{0} IS NOT TRUE)").format(sql.Identifier(table.tombstone))


PLAN_WRITES = """
INSERT INTO {plan} ({columns}, _operation, _status, _seen_hash, _seen_deleted)
SELECT {s_columns}, CASE WHEN {alive} THEN 'update' ELSE 'insert' END,
  CASE WHEN {young} THEN 'young'
    WHEN t.row_hash IS NULL THEN 'confirmed'
    WHEN NOT {alive} THEN {doubtful}
    WHEN {stale} THEN {older}
    WHEN {newer} AND NOT {emptied} AND NOT {buried} THEN 'confirmed'
    ELSE {doubtful} END,
  t.row_hash, t.deleted_at IS NOT NULL
FROM (SELECT * FROM {stage} WHERE {only}) s LEFT JOIN {target} t ON {same}
WHERE t.row_hash IS DISTINCT FROM s.row_hash OR t.deleted_at IS NOT NULL
"""
