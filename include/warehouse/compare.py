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

A row is due if it was written before its table had the column `extra`, or another column that `extra` could not fill,
and lacks only that. This is no drift. A full sync fills the column without a second look, since it overwrites nothing.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql
from psycopg.types.json import Jsonb

from include.warehouse.row_conditions import (
    alive,
    due,
    is_ahead,
    lost_nothing,
    lost_value,
    newer,
    newly_deleted,
    version_columns,
    young,
)
from include.warehouse.sql_fragments import identifiers, key_object, same_key
from include.warehouse.staging import Stage


@dataclass(frozen=True)
class Repeats:
    """How many rows the source listed again, by key: with `identical` or `differing` content."""

    identical: int
    differing: int

    @property
    def total(self) -> int:
        return self.identical + self.differing


def drop_repeats(
    stage: Stage, *, newest_first: bool = False, changed_after: datetime | None = None, place: tuple[str, ...] = ()
) -> Repeats:
    """Delete all rows but one for each key from the stage; return how many were deleted.

    The row with the newest version stays. If several have it, the one that was listed last stays, or with
    `newest_first` the one that was listed first.

    The row that stays is marked as `_unlike` if another one had other content, although it is not newer than that, or
    has not changed after `changed_after`: then no change tells why the list showed both. The mark is `place` if they
    also differ in these columns; else `recent` if it has changed after that time, or `old`.
    """
    table = stage.table
    newest = [sql.SQL("{} DESC NULLS LAST").format(sql.Identifier(name)) for name in version_columns(table)]
    order = sql.SQL(", ").join([*newest, sql.SQL("_page, _place" if newest_first else "_page DESC, _place DESC")])
    names = {
        "stage": stage.sql,
        "key": identifiers(table.key),
        "order": order,
        "versions": sql.SQL("ORDER BY {}").format(sql.SQL(", ").join(newest)) if newest else sql.SQL(""),
        "moment": sql.Identifier(table.moment) if table.moment else sql.SQL("NULL::timestamptz"),
        "changed_after": sql.Literal(changed_after),
        "at": sql.SQL("ROW({})").format(identifiers(place)) if place else sql.SQL("ROW(1)"),
    }
    return Repeats(*stage.conn.execute(sql.SQL(DROP_REPEATS).format(**names)).fetchone())


def plan_unlike(stage: Stage, why: Mapping[str, str]) -> None:
    """Make each row unproven that is marked as `_unlike`, for the reason of its mark; a candidate if it has none.

    So are those that equal the copy. Young rows stay young. Call it after `plan_writes`.
    """
    table = stage.table
    names = {
        "plan": stage.plan,
        "columns": identifiers(table.names),
        "s_columns": identifiers(table.names, "s"),
        "key": identifiers(table.key),
        "reasons": sql.Literal(Jsonb(dict(why))),
        "stage": stage.sql,
        "target": table.sql,
        "same": same_key(table.key, "t", "s"),
    }
    stage.conn.execute(sql.SQL(PLAN_UNLIKE).format(**names))


def plan_writes(
    stage: Stage,
    *,
    young_after: datetime | sql.Composable | None = None,
    doubtful: str = "confirmed",
    older: str = "stale",
    only: sql.Composable | None = None,
) -> None:
    """Plan an insert for staged rows that the copy lacks or has as tombstones, and an update for those that differ.

    - `young_after`: a row that changed later gets the status `young`; a time, or SQL over the staged row `s`
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
            alive=alive(table.key),
            young=young(table.moment, young_after),
            ahead=is_ahead(table, "s"),
            copy_ahead=is_ahead(table, "t"),
            stale=newer(table, "t", "s"),
            newer=newer(table, "s", "t"),
            lost_value=lost_value(table),
            newly_deleted=newly_deleted(table),
            due=due(table, stage.pull.source),
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
        "lost_nothing": lost_nothing(stage.table),
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


def plan_examples(stage: Stage, operation: str, limit: int = 25, *, proven: bool = False) -> list:
    """Return the keys of the first `limit` rows that are planned for `operation` and are drift.

    Rows that the source listed come first, in its order. A key is a JSON value; of several columns, a list of values.
    `proven`: without rows that are candidates or unproven.
    """
    drift = "_status = 'confirmed'" if proven else "_status NOT IN ('young', 'due', 'stale', 'noise')"
    key = stage.table.key
    rows = stage.conn.execute(
        sql.SQL(
            "SELECT jsonb_build_array({p_key}) FROM {plan} p LEFT JOIN {stage} s ON {same}"
            " WHERE _operation = %s AND {drift} ORDER BY _page, _place, {p_key} LIMIT %s"
        ).format(
            p_key=identifiers(key, "p"),
            plan=stage.plan,
            stage=stage.sql,
            same=same_key(key, "s", "p"),
            drift=sql.SQL(drift),
        ),
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


DROP_REPEATS = """
WITH ranked AS (
  SELECT ctid, row_hash, row_number() OVER w AS rank, {at} AS at, first_value(ctid) OVER w AS kept_at,
    first_value(row_hash) OVER w AS kept, first_value({at}) OVER w AS at_kept,
    rank() OVER (PARTITION BY {key} {versions}) > 1 AS older,
    coalesce(first_value({moment}) OVER w > {changed_after}, false) AS recent
  FROM {stage} WHERE ({key}) IN (SELECT {key} FROM {stage} GROUP BY {key} HAVING count(*) > 1)
  WINDOW w AS (PARTITION BY {key} ORDER BY {order})
), gone AS (
  DELETE FROM {stage} s USING ranked r WHERE s.ctid = r.ctid AND r.rank > 1
  RETURNING r.row_hash = r.kept AS identical, r.older, r.recent, r.at IS DISTINCT FROM r.at_kept AS elsewhere, r.kept_at
), unlike AS (
  SELECT kept_at, recent, bool_or(elsewhere) AS elsewhere FROM gone WHERE NOT identical AND NOT (older AND recent)
  GROUP BY kept_at, recent
), marked AS (
  UPDATE {stage} s SET _unlike = CASE WHEN u.elsewhere THEN 'place' WHEN u.recent THEN 'recent' ELSE 'old' END
  FROM unlike u WHERE s.ctid = u.kept_at
)
SELECT count(*) FILTER (WHERE identical), count(*) FILTER (WHERE NOT identical) FROM gone
"""

PLAN_UNLIKE = """
INSERT INTO {plan} AS p ({columns}, _operation, _status, _why, _seen_hash, _seen_deleted)
SELECT {s_columns}, 'update', CASE WHEN {reasons} ->> _unlike IS NULL THEN 'candidate' ELSE 'unproven' END,
  {reasons} ->> _unlike, t.row_hash, t.deleted_at IS NOT NULL
FROM {stage} s LEFT JOIN {target} t ON {same} WHERE _unlike IS NOT NULL
ON CONFLICT ({key}) DO UPDATE SET _status = excluded._status, _why = excluded._why
WHERE p._status IN ('confirmed', 'candidate', 'due')
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
