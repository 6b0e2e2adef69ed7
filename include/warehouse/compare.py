"""Compare staged rows with the copy in SQL, and plan the changes that would bring the copy in step.

The stage has the rows as the source showed them. Each row of the plan is one change: the row to write or, for a
delete, the row as the copy has it. These columns describe the change:

- `_operation`: `insert`, `update` or `delete`
- `_seen_hash`, `_seen_deleted`: the content and the tombstone of the copy's row when it was compared
- `_status`: whether the change may be applied, see below
- `_why`: why the change is unproven
- `_looked`: true if the second look has asked for the row
- `_listed`: false if the source's list did not show the row

| `_status` | Meaning |
| --- | --- |
| `candidate` | One look does not prove it; the second look decides. |
| `confirmed` | It is proven and may be applied. |
| `noise` | The second look found source and copy in agreement. |
| `unproven` | The second look could not tell, or it had no requests left. |
| `young` | The row changed so recently that the next sync brings it; no drift. |
| `due` | The row lacks only what was not kept when it was written; see below. |
| `stale` | The source showed an older version than the copy has; never applied. |

A row is due if it was written before its table had the column `extra`, or a column that `extra` could not fill. That is
no drift: a full sync brings it, without a second look, since it overwrites nothing, as if it inserted a row.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from include.warehouse.readers import instant, structure, unix_time
from include.warehouse.sql_fragments import identifiers, key_object, same_key
from include.warehouse.staging import Stage
from include.warehouse.table import EXTRA, Table

TOMORROW = sql.SQL("clock_timestamp() + interval '1 day'")


@dataclass(frozen=True)
class Repeats:
    """How many rows the source listed again, by key: with `identical` or `differing` content."""

    identical: int
    differing: int

    @property
    def total(self) -> int:
        return self.identical + self.differing


def drop_repeats(stage: Stage, *, newest_first: bool = False) -> Repeats:
    """Delete all rows but one for each key from the stage; return how many were deleted.

    The row with the newest version stays; if several have it, the one that was listed last, or first if the list shows
    the `newest_first`.
    """
    table = stage.table
    newest = [sql.SQL("{} DESC NULLS LAST").format(sql.Identifier(name)) for name in version_columns(table)]
    order = sql.SQL(", ").join([*newest, sql.SQL("_page, _place" if newest_first else "_page DESC, _place DESC")])
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
    """Plan an insert for staged rows that the copy lacks or has as tombstones, and an update for those that differ.

    - `young_after`: a row that changed later gets the status `young`; a time, or SQL over the staged row `s` and the
      copy's row `t`
    - `doubtful`: the status of a change that one look does not prove: the row comes back over its tombstone, differs
      without being newer, lost a value that the copy has, newly says that it is deleted, or has changed in the future
    - `older`: the status of a change if the staged version is older than the copy's, unless that is of the future
    - `only`: an SQL condition on the staged rows; no other row is planned
    """
    table = stage.table
    stage.conn.execute(
        sql.SQL(PLAN_WRITES).format(
            plan=stage.plan,
            columns=identifiers(table.names),
            s_columns=identifiers(table.names, "s"),
            alive=_alive(table.key),
            young=_young(table.moment, young_after),
            ahead=is_ahead(table, "s"),
            copy_ahead=is_ahead(table, "t"),
            stale=_versions(table, "<"),
            newer=_versions(table, ">"),
            lost_value=_lost_value(table),
            newly_deleted=_newly_deleted(table),
            due=only_kept_before(table, stage.pull.source),
            older=sql.Literal(older),
            doubtful=sql.Literal(doubtful),
            only=only or sql.SQL("true"),
            stage=stage.sql,
            target=table.sql,
            same=same_key(table.key, "t", "s"),
        )
    )


def plan_deletes(stage: Stage, *, status: str, within: sql.Composable | None = None) -> None:
    """Plan a delete with this status for each live row of the copy that the stage lacks.

    `within`: an SQL condition on the copy's row `t`; rows for which it is false are left alone.
    """
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


def confirm_due(stage: Stage) -> None:
    """Confirm the planned changes that are due. A sync does so when it writes."""
    stage.conn.execute(sql.SQL("UPDATE {} SET _status = 'confirmed' WHERE _status = 'due'").format(stage.plan))


def confirm_gained(stage: Stage, *, sample: int, unless: sql.Composable | None = None) -> None:
    """Confirm the suspects that only gained fields, in `extra` or inside a structure.

    At least `sample` rows like them must have been looked at, and none of them be unproven. `unless`: an SQL condition
    on planned rows `s` that stay suspects.
    """
    parts = {
        "plan": stage.plan,
        "target": stage.table.sql,
        "same": same_key(stage.table.key, "t", "s"),
        "lost_nothing": _lost_nothing(stage.table),
        "unless": unless or sql.SQL("false"),
    }
    confirmed, unproven = stage.conn.execute(sql.SQL(LOOKED_AT).format(**parts)).fetchone()
    if confirmed >= sample and not unproven:
        stage.conn.execute(sql.SQL(CONFIRM_GAINED).format(**parts))


def plan_counts(stage: Stage) -> Mapping[tuple[str, str], int]:
    """Return how many changes the plan has, by (operation, status); 0 for a pair that it lacks."""
    rows = stage.conn.execute(
        sql.SQL("SELECT _operation, _status, count(*) FROM {} GROUP BY 1, 2").format(stage.plan)
    ).fetchall()
    return Counter({(operation, status): count for operation, status, count in rows})


def plan_examples(stage: Stage, operation: str, limit: int = 25) -> list:
    """Return the keys of the first `limit` rows that are planned for `operation` and are drift.

    Rows that the source listed come first, in its order. A key is a JSON value; of several columns, a list of values.
    """
    key = stage.table.key
    rows = stage.conn.execute(
        sql.SQL(
            "SELECT jsonb_build_array({p_key}) FROM {plan} p LEFT JOIN {stage} s ON {same}"
            " WHERE _operation = %s AND _status NOT IN ('young', 'due', 'stale', 'noise')"
            " ORDER BY _page, _place, {p_key} LIMIT %s"
        ).format(p_key=identifiers(key, "p"), plan=stage.plan, stage=stage.sql, same=same_key(key, "s", "p")),
        [operation, limit],
    ).fetchall()
    return [values[0] if len(key) == 1 else values for (values,) in rows]


def planned_changes(stage: Stage) -> sql.Composed:
    """Return a query for the changes of the plan as `planned_changes.keep` takes it: no young, no due, no noise."""
    return sql.SQL(CHANGES).format(
        plan=stage.plan,
        target=stage.table.sql,
        same=same_key(stage.table.key, "t", "p"),
        known=sql.Identifier("t", stage.table.key[0]),
        key=key_object(stage.table.key, "p"),
    )


def live_rows(stage: Stage) -> int:
    """Return how many live rows the copy has."""
    query = sql.SQL("SELECT count(*) FROM {} WHERE deleted_at IS NULL").format(stage.table.sql)
    return stage.conn.execute(query).fetchone()[0]


def _alive(key: tuple[str, ...]) -> sql.Composed:
    """Return the SQL condition that the copy has the row `t`, and not as a tombstone."""
    return sql.SQL("(t.{} IS NOT NULL AND t.deleted_at IS NULL)").format(sql.Identifier(key[0]))


def _young(moment: str | None, after: datetime | sql.Composable | None) -> sql.Composable:
    """Return the SQL condition that the staged row `s` changed later than `after`; false without a time to compare."""
    if moment is None or after is None:
        return sql.SQL("false")
    # No sync brings a row whose time of change is more than a day ahead. Such a row counts as drift.
    return sql.SQL("(s.{0} > {1} AND s.{0} < {2})").format(
        sql.Identifier(moment), after if isinstance(after, sql.Composable) else sql.Literal(after), TOMORROW
    )


def is_ahead(table: Table, qualifier: str) -> sql.Composable:
    """Return the SQL condition that the row has changed more than a day from now.

    If that is false, every true version would count as older than this one.
    """
    times = [column.name for column in table.columns if column.read in (instant, unix_time)]
    conditions = [
        sql.SQL("{} > {}").format(sql.Identifier(qualifier, name), TOMORROW)
        for name in version_columns(table)
        if name in times
    ]
    return sql.SQL("coalesce({}, false)").format(sql.SQL(" OR ").join([*conditions, sql.SQL("false")]))


def _versions(table: Table, comparison: str) -> sql.Composable:
    """Return the SQL condition that the staged row `s` is older (<) or newer (>) than the copy's row `t`.

    The first version column that both rows fill decides. If there is none, the condition is false.
    """
    names = version_columns(table)
    comparisons = [sql.SQL("s.{0} {1} t.{0}").format(sql.Identifier(name), sql.SQL(comparison)) for name in names]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join([*comparisons, sql.SQL("false")]))


def newer(table: Table, record: str, copy: str) -> sql.Composable:
    """Return the SQL condition that the row `record` has a newer version than the row `copy`.

    The first version column that both rows fill decides. If there is none, the condition is false.
    """
    comparisons = [
        sql.SQL("{} > {}").format(sql.Identifier(record, name), sql.Identifier(copy, name))
        for name in version_columns(table)
    ]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join([*comparisons, sql.SQL("false")]))


def version_columns(table: Table) -> list[str]:
    """Return the columns that tell an older version from a newer one, the decisive one first."""
    return [name for name in (table.version, table.changed) if name]


def poorer(table: Table) -> sql.Composable:
    """Return the SQL condition that the staged record `s` leaves out a column in which the copy's row `t` has a value.

    A column counts as left out if the source's record does not name it at all; an explicit null is a value here.
    """
    lost = [
        sql.SQL("{} = ANY (s._lacks) AND t.{} IS NOT NULL").format(sql.Literal(name), sql.Identifier(name))
        for name in table.compared
    ]
    return sql.SQL("(s._lacks IS NOT NULL AND ({}))").format(sql.SQL(" OR ").join([*lost, sql.SQL("false")]))


def only_kept_before(table: Table, source: str) -> sql.Composable:
    """Return the SQL condition that the copy's row `t` lacks only what was not kept when it was written.

    That is `extra`, or a column that was `added_later`. `s` is the row as the source shows it, and differs from `t`.
    """
    gained = {column.name: _gained_column(table, column.name) for column in table.columns if column.added_later}
    if table.keeps_extra:
        gained[EXTRA] = sql.SQL(GAINED_EXTRA).format(source=sql.Literal(source))
    if not gained:
        return sql.SQL("false")
    same = {name: sql.SQL("s.{0} IS NOT DISTINCT FROM t.{0}").format(sql.Identifier(name)) for name in table.compared}
    either = [sql.SQL("({} OR {})").format(same[name], gained.get(name, sql.SQL("false"))) for name in table.compared]
    return sql.SQL("({})").format(sql.SQL(" AND ").join(either))


def _gained_column(table: Table, name: str) -> sql.Composed:
    """Return the SQL condition that the copy's row `t` lacks the column because it was written before it existed."""
    return sql.SQL(GAINED_COLUMN).format(
        column=sql.Identifier(name), table_name=sql.Literal(table.full_name), column_name=sql.Literal(name)
    )


def _lost_nothing(table: Table) -> sql.Composable:
    """Return the SQL condition that the staged row `s` has all that the copy's row `t` has, or more fields."""
    objects = {EXTRA, *(column.name for column in table.columns if column.read is structure)}
    kept = [
        sql.SQL(COVERS if name in objects else "s.{0} IS NOT DISTINCT FROM t.{0}").format(
            sql.Identifier(name), objects=sql.SQL(BOTH_OBJECTS), lists=sql.SQL(BOTH_LISTS)
        )
        for name in table.compared
    ]
    return sql.SQL("({})").format(sql.SQL(" AND ").join([*kept, sql.SQL("true")]))


def _lost_value(table: Table) -> sql.Composable:
    """Return the SQL condition that the staged row `s` is null in a column in which the copy's row `t` has a value.

    A record without any field in `extra` has lost nothing that it promised.
    """
    lost = [
        sql.SQL("(s.{0} IS NULL AND t.{0} IS NOT NULL)").format(sql.Identifier(name))
        for name in table.compared
        if name != EXTRA
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join([*lost, sql.SQL("false")]))


def _newly_deleted(table: Table) -> sql.Composable:
    """Return the SQL condition that the staged row `s` says that it is deleted, and the copy's row `t` does not."""
    if table.tombstone is None:
        return sql.SQL("false")
    return sql.SQL("(s.{0} IS TRUE AND t.{0} IS NOT TRUE)").format(sql.Identifier(table.tombstone))


BOTH_OBJECTS = "coalesce(jsonb_typeof(i.mine) = 'object' AND jsonb_typeof(i.theirs) = 'object', false)"
BOTH_LISTS = """CASE WHEN jsonb_typeof(i.mine) = 'array' AND jsonb_typeof(i.theirs) = 'array'
  THEN jsonb_array_length(i.mine) = jsonb_array_length(i.theirs) ELSE false END"""

# Whether `s` has all fields of the JSON value in `t`, at any depth. Lists have as many elements in the same order: `@>`
# would take a list for covered by one in another order, or with fewer repeats.
COVERS = """(t.{0} IS NULL OR s.{0} = t.{0} OR (s.{0} @> t.{0} AND NOT EXISTS (
  WITH RECURSIVE inside (mine, theirs) AS (
    SELECT s.{0}, t.{0}
    UNION ALL
    SELECT deeper.* FROM inside i CROSS JOIN LATERAL (
      SELECT i.mine -> field.key, field.value
      FROM jsonb_each(CASE WHEN {objects} THEN i.theirs ELSE jsonb_build_object() END) field
      UNION ALL
      SELECT i.mine -> (place - 1)::int, element
      FROM jsonb_array_elements(CASE WHEN {lists} THEN i.theirs ELSE jsonb_build_array() END)
        WITH ORDINALITY AS list (element, place)
    ) AS deeper
  ) SELECT FROM inside i WHERE i.mine IS DISTINCT FROM i.theirs AND NOT {objects} AND NOT {lists})))
"""

# Of a field that both have, || takes the copy's value.
GAINED_EXTRA = """
(s.extra || coalesce(t.extra, '{{}}') = s.extra
 AND t.sync_id <= coalesce((SELECT sync_id FROM confidence.extra_since WHERE source = {source}), -1))
"""

GAINED_COLUMN = """
(t.{column} IS NULL AND t.sync_id <= coalesce((SELECT sync_id FROM confidence.column_since
  WHERE table_name = {table_name} AND column_name = {column_name}), -1))
"""

LOOKED_AT = """
SELECT count(*) FILTER (WHERE s._status = 'confirmed'), count(*) FILTER (WHERE s._status = 'unproven')
FROM {plan} s JOIN {target} t ON {same} WHERE s._operation = 'update' AND t.deleted_at IS NULL AND {lost_nothing}
  AND s._looked
"""

CONFIRM_GAINED = """
UPDATE {plan} SET _status = 'confirmed' WHERE ctid IN (
  SELECT s.ctid FROM {plan} s JOIN {target} t ON {same} WHERE s._operation = 'update' AND t.deleted_at IS NULL
    AND {lost_nothing} AND s._status = 'candidate' AND NOT {unless})
"""

PLAN_WRITES = """
INSERT INTO {plan} ({columns}, _operation, _status, _seen_hash, _seen_deleted)
SELECT {s_columns}, CASE WHEN {alive} THEN 'update' ELSE 'insert' END,
  CASE WHEN {young} THEN 'young'
    WHEN {ahead} THEN {doubtful}
    WHEN t.row_hash IS NULL THEN 'confirmed'
    WHEN NOT {alive} THEN {doubtful}
    WHEN {due} THEN 'due'
    WHEN {stale} AND NOT {copy_ahead} THEN {older}
    WHEN {newer} AND NOT {lost_value} AND NOT {newly_deleted} THEN 'confirmed'
    ELSE {doubtful} END,
  t.row_hash, t.deleted_at IS NOT NULL
FROM (SELECT * FROM {stage} WHERE {only}) s LEFT JOIN {target} t ON {same}
WHERE t.row_hash IS DISTINCT FROM s.row_hash OR t.deleted_at IS NOT NULL
"""

# The columns of the plan that describe the change are no part of its row.
CHANGES = """
SELECT p.ctid AS place, {key} AS key, p._operation AS operation, p._status AS status, p._why AS why,
  p._looked AS looked,
  CASE WHEN {known} IS NOT NULL THEN to_jsonb(t.*) - 'row_hash' END AS before,
  CASE WHEN p._operation <> 'delete' THEN to_jsonb(p.*) - ARRAY['row_hash', '_operation', '_status', '_seen_hash',
    '_seen_deleted', '_why', '_looked', '_listed'] END AS after
FROM {plan} p LEFT JOIN {target} t ON {same} WHERE p._status NOT IN ('young', 'due', 'noise')
"""
