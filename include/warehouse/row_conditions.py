"""SQL conditions on two versions of a row: the one that the source showed, and the one that the copy has.

Where a condition takes no names for them, `s` is the source's row and `t` the copy's.
"""

from datetime import datetime

from psycopg import sql

from include.warehouse.readers import instant, structure, unix_time
from include.warehouse.sql_fragments import written_once
from include.warehouse.table import EXTRA, Table

TOMORROW = sql.SQL("clock_timestamp() + interval '1 day'")


@written_once
def alive(key: tuple[str, ...]) -> sql.Composed:
    """Return the SQL condition that the copy has the row `t`, and not as a tombstone."""
    return sql.SQL("(t.{} IS NOT NULL AND t.deleted_at IS NULL)").format(sql.Identifier(key[0]))


def young(moment: str | None, after: datetime | sql.Composable | None) -> sql.Composable:
    """Return the SQL condition that the staged row `s` changed later than `after`; false without a time to compare."""
    if moment is None or after is None:
        return sql.SQL("false")
    # No sync brings a row whose time of change is more than a day ahead. Such a row counts as drift.
    return sql.SQL("(s.{0} > {1} AND s.{0} < {2})").format(
        sql.Identifier(moment), after if isinstance(after, sql.Composable) else sql.Literal(after), TOMORROW
    )


@written_once
def is_ahead(table: Table, qualifier: str) -> sql.Composable:
    """Return the SQL condition that the row's time of change is more than a day in the future.

    Such a time is wrong. Compared with it, every true version would count as older.
    """
    times = [column.name for column in table.columns if column.read in (instant, unix_time)]
    conditions = [
        sql.SQL("{} > {}").format(sql.Identifier(qualifier, name), TOMORROW)
        for name in version_columns(table)
        if name in times
    ]
    return sql.SQL("coalesce({}, false)").format(sql.SQL(" OR ").join([*conditions, sql.SQL("false")]))


@written_once
def newer(table: Table, row: str, other: str) -> sql.Composable:
    """Return the SQL condition that the row with the alias `row` has a newer version than the row `other`.

    The first version column that both rows fill decides. If there is none, the condition is false.
    """
    comparisons = [
        sql.SQL("{} > {}").format(sql.Identifier(row, name), sql.Identifier(other, name))
        for name in version_columns(table)
    ]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join([*comparisons, sql.SQL("false")]))


def version_columns(table: Table) -> list[str]:
    """Return the columns that tell an older version from a newer one, the decisive one first."""
    return [name for name in (table.version, table.changed) if name]


@written_once
def poorer(table: Table) -> sql.Composable:
    """Return the SQL condition that the staged record `s` leaves out a column in which the copy's row `t` has a value.

    A column counts as left out if the source's record does not name it at all; an explicit null is a value here. Some
    readers make a value of nothing, such as false: if the copy has the same, nothing is lost.
    """
    lost = [
        sql.SQL("{0} = ANY (s._lacks) AND t.{1} IS NOT NULL AND s.{1} IS DISTINCT FROM t.{1}").format(
            sql.Literal(name), sql.Identifier(name)
        )
        for name in table.compared
    ]
    return sql.SQL("(s._lacks IS NOT NULL AND ({}))").format(sql.SQL(" OR ").join([*lost, sql.SQL("false")]))


@written_once
def due(table: Table, source: str) -> sql.Composable:
    """Return the SQL condition that the two rows differ only by what was not kept yet when the copy's row was written.

    That is `extra`, or a column that was `added_later`.
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


@written_once
def lost_nothing(table: Table) -> sql.Composable:
    """Return the SQL condition that the staged row `s` has all that the copy's row `t` has, or more fields."""
    objects = {EXTRA, *(column.name for column in table.columns if column.read is structure)}
    kept = [
        sql.SQL(COVERS if name in objects else "s.{0} IS NOT DISTINCT FROM t.{0}").format(
            sql.Identifier(name), objects=sql.SQL(BOTH_OBJECTS), lists=sql.SQL(BOTH_LISTS)
        )
        for name in table.compared
    ]
    return sql.SQL("({})").format(sql.SQL(" AND ").join([*kept, sql.SQL("true")]))


@written_once
def lost_value(table: Table) -> sql.Composable:
    """Return the SQL condition that the staged row `s` is null in a column in which the copy's row `t` has a value.

    `extra` does not count: no record promises the fields in it.
    """
    lost = [
        sql.SQL("(s.{0} IS NULL AND t.{0} IS NOT NULL)").format(sql.Identifier(name))
        for name in table.compared
        if name != EXTRA
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join([*lost, sql.SQL("false")]))


@written_once
def newly_deleted(table: Table) -> sql.Composable:
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

# `||` adds the copy's fields to those of `s`, and takes the copy's value where both have a field. If that changes
# nothing, `s` has all that the copy has.
GAINED_EXTRA = """
(s.extra || coalesce(t.extra, '{{}}') = s.extra
 AND t.sync_id <= coalesce((SELECT sync_id FROM confidence.extra_since WHERE source = {source}), -1))
"""

GAINED_COLUMN = """
(t.{column} IS NULL AND t.sync_id <= coalesce((SELECT sync_id FROM confidence.column_since
  WHERE table_name = {table_name} AND column_name = {column_name}), -1))
"""
