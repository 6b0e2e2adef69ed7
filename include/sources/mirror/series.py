"""The series of a history: rows whose keys differ in their version alone, of which a list shows the newest."""

from collections.abc import Collection, Iterable

from psycopg import sql

from include.sources.mirror.agreement import changed_late
from include.sources.mirror.changes import Since, Window
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity
from include.sources.mirror.extract import Extract
from include.sources.mirror.lookup import Row
from include.warehouse import row_conditions, sync_log
from include.warehouse.sql_fragments import are, key_array, same_key
from include.warehouse.table import Table


def unlisted_series(extract: Extract) -> sql.Composable:
    """Return SQL over rows `t` of a history, true for the newest row of a series if the list shows none as new.

    A series are the rows whose keys differ in their version alone. If the key has no version, each row is all there is
    of its series, and the list may show it no more.
    """
    table = extract.entity.table
    series = _series(table)
    if series == table.key:
        return sql.SQL("false")
    return sql.SQL(UNLISTED_SERIES).format(
        table=table.sql,
        stage=extract.stage.sql,
        n_is_t=same_key(series, "n", "t"),
        s_is_t=same_key(series, "s", "t"),
        version=sql.Identifier(table.version),
        ended=sql.SQL(extract.entity.ended),
    )


def keep_ended_series(extract: Extract) -> None:
    """Take proven deletes out of the plan of a history if their series has ended: its rows stay.

    If the list shows an older row of the series, the series goes on, and its newest row in the copy is false.
    """
    query = sql.SQL(
        "DELETE FROM {} p WHERE _operation = 'delete' AND _status = 'confirmed' AND NOT EXISTS (SELECT FROM {} s"
        " WHERE {})"
    )
    series = _series(extract.entity.table)
    extract.stage.conn.execute(query.format(extract.stage.plan, extract.stage.sql, same_key(series, "s", "p")))


def is_hidden_series(extract: Extract, key: tuple, shown: Collection[tuple]) -> bool:
    """Return whether an address shows rows of this row's series, but the list shows none. False if it is no history.

    The series has not ended then, and the list can't tell which of its rows is the newest. `key`: of the row. `shown`:
    the keys of the rows that the address shows.
    """
    table = extract.entity.table
    series = _series(table)
    if not extract.entity.history or series == table.key:
        return False
    places = [table.key.index(name) for name in series]
    own, *at_address = (tuple(each[place] for place in places) for each in (key, *shown))
    listed = sql.SQL("SELECT FROM {} WHERE {} LIMIT 1").format(extract.stage.sql, are(series, own))
    return own in at_address and extract.stage.conn.execute(listed).fetchone() is None


def is_followed(context: MirrorContext, extract: Extract, key: tuple, shown: Iterable[Row]) -> bool:
    """Return whether a list lacks this row because it has changed, or was followed, after the list was read.

    Then one of the rows that an address shows is of its series, changed as late, and the next sync will ask for it: the
    list's own clock is not believed alone. Without versions in its key a row is all there is of its series.
    """
    table, stage = extract.entity.table, extract.stage
    if table.moment is None or not isinstance(extract.entity.changes, Since | Window):
        return False
    # The list may also have shown it in a form that can't be stored.
    refused = sql.SQL("SELECT FROM {} WHERE key = {}").format(stage.refused, key_array(key))
    if stage.conn.execute(refused).rowcount:
        return False
    series = _series(table)
    own = tuple(key[table.key.index(name)] for name in series)
    of_series = (row for row in shown if table.named(row, series) == own)
    return any(
        changed_late(extract, *table.named(row, [table.moment])) and _is_asked_for(context, extract.entity, row)
        for row in of_series
    )


def _is_asked_for(context: MirrorContext, entity: Entity, row: Row) -> bool:
    """Return whether the next sync asks for changes as old as this row's."""
    (moment,) = entity.table.named(row, [entity.table.moment])
    place = str(*entity.table.named(row, [entity.partitions.column])) if entity.partitions else ""
    since = sync_log.state(context.conn, context.source.name, entity.name, place).since(context.source.lookback)
    return since is None or moment >= since


def _series(table: Table) -> tuple[str, ...]:
    """Return the columns of the key that name a row's series: all of them if its version leaves none over."""
    return tuple(name for name in table.key if name not in row_conditions.version_columns(table)) or table.key


UNLISTED_SERIES = """(NOT ({ended})
  AND NOT EXISTS (SELECT FROM {table} n WHERE n.deleted_at IS NULL AND {n_is_t} AND n.{version} > t.{version})
  AND NOT EXISTS (SELECT FROM {stage} s WHERE {s_is_t} AND s.{version} >= t.{version}))
"""
