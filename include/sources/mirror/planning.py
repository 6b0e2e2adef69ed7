"""Plans: the changes that a sync or a scan wants to make to the copy, and how far each is proven.

The statuses of a plan's rows are described in `include/warehouse/compare.py`.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from psycopg import sql

from include.sources.mirror.changes import Feed
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Part
from include.sources.mirror.extract import Extract, nested_rows
from include.sources.mirror.implicit_deletes import doubt_implied_deletes, newly_deleted_implicitly
from include.sources.mirror.lookup import Row
from include.sources.mirror.partitions import state_partitions
from include.sources.mirror.same_value import same_value
from include.warehouse import compare, row_conditions, sync_log
from include.warehouse.sql_fragments import among, are, identifiers, same_key
from include.warehouse.staging import Stage


def plan_sync(context: MirrorContext, extract: Extract, *, feed: Feed | None = None) -> None:
    """Plan what a sync writes. Changes that need a second look become candidates.

    `feed`: the feed whose events were read. They show each state that a record had.
    """
    for stage in extract.stages:
        stage.empty_plan()
    reported = extract.lookups.event_deleted_keys
    deleted_by_event = among(extract.entity.table.key, reported, "t") if reported else None
    if deleted_by_event:
        # Whatever other events show of these records: a look-up decides.
        _unstage_reported(extract.stage, deleted_by_event)
    extract.drop_repeats(newest_first=feed is not None and feed.newest_first)
    compare.plan_writes(extract.stage, doubtful="candidate")
    if not feed:
        doubt_unlike(extract)
    doubt_implied_deletes(context, extract)
    if implicit := newly_deleted_implicitly(context, extract):
        compare.plan_deletes(extract.stage, status="confirmed", within=implicit)
    if deleted_by_event:
        compare.plan_deletes(extract.stage, status="candidate", within=deleted_by_event)
    if extract.lookups.deleted_keys:
        within = among(extract.entity.table.key, extract.lookups.deleted_keys, "t")
        compare.plan_deletes(extract.stage, status="confirmed", within=within)
    plan_nested_rows(extract)


def _unstage_reported(stage: Stage, reported: sql.Composable) -> None:
    """Drop staged records that an event reports as deleted. One that the copy lacks becomes a candidate for an insert.

    It may have come, or come back, after that event. `reported`: an SQL condition on rows `t`.
    """
    names = {
        "plan": stage.plan,
        "columns": identifiers(stage.table.names),
        "t_columns": identifiers(stage.table.names, "t"),
        "t_key": identifiers(stage.table.key, "t"),
        "stage": stage.sql,
        "table": stage.table.sql,
        "same": same_key(stage.table.key, "c", "t"),
        "reported": reported,
    }
    stage.conn.execute(sql.SQL(PERHAPS_BACK).format(**names))
    stage.conn.execute(sql.SQL("DELETE FROM {stage} t WHERE {reported}").format(**names))


def doubt_unlike(extract: Extract) -> None:
    """Make a record unproven that its list shows twice, with other content, though it has not changed for long.

    If it has changed lately, it is a candidate: its address decides.
    """
    elsewhere = f"{TWICE}, at different places: one of the two is wrong, or the key of its table lacks"
    why = {
        "place": f"{elsewhere} {', '.join(extract.entity.place)}",
        "old": f"{TWICE}, with other content: one of the two is wrong, or the key of its table lacks a column",
    }
    compare.plan_unlike(extract.stage, why)


def plan_nested_rows(extract: Extract, *, surplus: bool = False) -> None:
    """Plan the nested rows of all staged records, each record's as a set.

    - If the staged record is older than the copy, its nested rows are dropped.
    - A nested row that differs is a candidate, unless its record has a newer version.
    - A nested row that is missing in its record is a candidate for a delete. If it may be one of the rows that could
      not be stored, it is unproven.
    - If the record itself is a candidate, young, unproven or to be deleted, so are its nested rows.
    - If a nested row is another record's too, in the list or the copy, its record is unproven (see `_mark_taken`).

    `surplus`: make candidates for a delete also of nested rows whose record is neither staged nor live in the copy.
    """
    table = extract.entity.table
    for part, stage in extract.parts:
        names = {
            "part": stage.sql,
            "plan": stage.plan,
            "whole": extract.stage.sql,
            "whole_plan": extract.stage.plan,
            "key": identifiers(table.key),
            "t_by": identifiers(part.by, "t"),
            "same": extract.belongs_to_record(part, "p", "w"),
            "records": table.sql,
            "of_copy": extract.belongs_to_record(part, "t", "r"),
            "of_list": extract.belongs_to_record(part, "t", "w"),
            "w_newer": row_conditions.newer(table, "w", "r"),
        }
        older = stage.conn.execute(sql.SQL(DROP_OLDER).format(**names)).rowcount
        if older:
            stage.save_progress(fallen=(stage.pull.progress or {}).get("fallen", 0) + older)
        compare.plan_writes(stage, doubtful="candidate")
        compare.plan_deletes(stage, status="candidate", within=sql.SQL(OF_RECORDS).format(**names))
        stage.conn.execute(sql.SQL(NOT_NEWER).format(**names))
        mark_unreadable(stage)
        if surplus:
            compare.plan_deletes(stage, status="candidate", within=sql.SQL(ORPHANS).format(**names))
    _follow_records(extract)


def _follow_records(extract: Extract) -> None:
    """Let no nested row be proven whose record is not."""
    for part, stage in extract.parts:
        names = {
            "plan": stage.plan,
            "whole_plan": extract.stage.plan,
            "same": extract.belongs_to_record(part, "p", "w"),
        }
        stage.conn.execute(sql.SQL(AS_THE_RECORD).format(**names))
    _mark_taken(extract)


def _mark_taken(extract: Extract) -> None:
    """Mark all that is planned for a record as unproven if it shows a nested row that another record has too.

    Only one of the two can be right.
    """
    takers: set[tuple] = set()
    for part, stage in extract.parts:
        takers |= _takers(extract, part, stage)
    if takers:
        _doubt_records(extract, takers, TAKEN_WHY)


def _doubt_records(extract: Extract, keys: Collection[tuple], why: str) -> None:
    """Mark all that is planned for these records as unproven, since a record is written with its nested rows."""
    for stage, by in [(extract.stage, extract.entity.table.key), *((stage, part.by) for part, stage in extract.parts)]:
        names = {"plan": stage.plan, "why": sql.Literal(why), "of_records": among(by, list(keys), "p")}
        stage.conn.execute(sql.SQL(DOUBT_RECORDS).format(**names))


def _takers(extract: Extract, part: Part, stage: Stage) -> set[tuple]:
    """Return the keys of the records that show a nested row of another record, in the list or in the copy.

    A row of the copy does not count if its record was read too and lacks it now, or if this plan deletes the record.
    """
    names = {
        "plan": stage.plan,
        "table": stage.table.sql,
        "whole": extract.stage.sql,
        "whole_plan": extract.stage.plan,
        "same": same_key(stage.table.key, "t", "p"),
        "t_by": identifiers(part.by, "t"),
        "p_by": identifiers(part.by, "p"),
        "of_list": extract.belongs_to_record(part, "t", "w"),
    }
    of_list = map(tuple, (stage.pull.progress or {}).get("contested", []))
    return {*of_list, *stage.conn.execute(sql.SQL(TAKERS).format(**names))}


def doubt_lagging_source(extract: Extract, believed_after: datetime) -> None:
    """Mark confirmed changes as unproven if the source may show an old state of the records, at all addresses alike.

    It may if it shows a record in an older version than the copy has from it, which had changed earlier, and if the
    copy's has changed after `believed_after`. Then it may also not show yet what is as new as that. A version from the
    future is no sign. Of a history, a row to delete is newer than what the source shows of its series.
    """
    stage, table = extract.stage, extract.entity.table
    if table.moment is None:
        return
    older = sql.SQL("p._operation = 'update' AND {} AND t.{moment} > p.{moment}").format(
        row_conditions.newer(table, "t", "p"), moment=sql.Identifier(table.moment)
    )
    if extract.entity.history:
        older = sql.SQL("p._operation = 'delete'")
    names = {
        "plan": stage.plan,
        "table": table.sql,
        "same": same_key(table.key, "p", "t"),
        "moment": sql.Identifier("t", table.moment),
        "outdated": sql.SQL("({} AND NOT {})").format(older, row_conditions.is_ahead(table, "t")),
        "believed_after": sql.Literal(believed_after),
        "why": sql.Literal(LAGGING),
    }
    if stage.conn.execute(sql.SQL(DOUBT_LAGGING).format(**names)).rowcount:
        _follow_records(extract)


def doubt_moved_rows(extract: Extract) -> None:
    """Make a record unproven that has lost a nested row, if another one could not be read that may have got it.

    That is one that has changed since the copy's state of the record, which still had the row. A nested row whose key
    says whose it is can't move.
    """
    unread = [each for each in extract.lookups.skipped_records if each.failed]
    movable = [(part, stage) for part, stage in extract.parts if not set(part.by) <= set(stage.table.key)]
    if not (unread and movable):
        return
    table, partitions = extract.entity.table, extract.entity.partitions
    losers: set[tuple] = set()
    for part, stage in movable:
        within = partitions and partitions.column in stage.table.key
        names = {
            "by": identifiers(part.by, "p"),
            "plan": stage.plan,
            "whole": extract.stage.sql,
            "of_list": extract.belongs_to_record(part, "p", "w"),
            "records": table.sql,
            "of_copy": extract.belongs_to_record(part, "p", "r"),
            "place": sql.SQL("r.{}::text").format(sql.Identifier(partitions.column)) if within else sql.SQL("u.place"),
            "moment": sql.Identifier("r", table.moment) if table.moment else sql.SQL("NULL"),
            "places": sql.Literal([each.partition for each in unread]),
            "moments": sql.Literal([each.moment for each in unread]),
        }
        losers |= set(stage.conn.execute(sql.SQL(LOSERS).format(**names)))
    if losers:
        _doubt_records(extract, losers, PERHAPS_MOVED)


def mark_unreadable(stage: Stage) -> None:
    """Mark planned deletes as unproven if the row may be one that was listed and could not be stored.

    If a refused row has no usable key, it may be any of them.
    """
    if stage.pull.rows_refused:
        names = {"plan": stage.plan, "refused": stage.refused, "p_key": identifiers(stage.table.key, "p")}
        stage.conn.execute(sql.SQL(UNREADABLE).format(**names))


def replace_record(extract: Extract, record: Row) -> None:
    """Replace a staged record and its nested rows by a newer reading, and plan them again as confirmed.

    Call it in a transaction. Raises RefuseData or RowRefused where the record can't be stored.
    """
    key = extract.entity.table.key_of(record)
    rows = {part: nested_rows(part, record, key) for part, _ in extract.parts}
    _replace_rows(extract.stage, are(extract.entity.table.key, key), [record])
    for part, stage in extract.parts:
        of_record = are(part.by, key)
        _replace_rows(stage, of_record, rows[part])
        compare.plan_deletes(stage, status="confirmed", within=of_record)
    _mark_taken(extract)


def _replace_rows(stage: Stage, which: sql.Composable, records: Sequence[Row]) -> None:
    """Replace staged rows by these records, and plan them again. `which`: an SQL condition on the rows.

    A row that was planned before and now equals the copy becomes noise.
    """
    key = stage.table.key
    planned = stage.conn.execute(
        sql.SQL("DELETE FROM {} WHERE {} RETURNING {}, _listed").format(stage.plan, which, identifiers(key))
    ).fetchall()
    # The list's spelling of a time stays, or else each later list would differ from the copy by that alone.
    stage.replace_rows(which, records, same_value)
    compare.plan_writes(stage, only=which, older="confirmed")
    for *values, listed in planned:
        names = {
            "plan": stage.plan,
            "stage": stage.sql,
            "columns": identifiers(stage.table.names),
            "this": are(key, values),
            "listed": sql.Literal(listed),
        }
        stage.conn.execute(sql.SQL(NOISE).format(**names))
        stage.conn.execute(sql.SQL("UPDATE {plan} SET _looked = true, _listed = {listed} WHERE {this}").format(**names))


def skip_changes_before_reset(context: MirrorContext, extract: Extract) -> None:
    """Drop staged rows that changed before a person reset the watermark: some lists show them all the same."""
    table = extract.entity.table
    for partition in state_partitions(context, extract.entity):
        read_from = sync_log.state(context.conn, context.source.name, extract.entity.name, partition).read_from
        if read_from and table.moment:
            query = sql.SQL("DELETE FROM {} WHERE {} < {}").format(
                extract.stage.sql, sql.Identifier(table.moment), sql.Literal(read_from)
            )
            if partition:
                column = sql.Identifier(extract.entity.partitions.column)
                query += sql.SQL(" AND {}::text = {}").format(column, sql.Literal(partition))
            context.conn.execute(query)


TWICE = "its list shows it twice, though it has not changed lately"

PERHAPS_MOVED = "a nested row that it lacks may have moved to a record that could not be read"

LOSERS = """
SELECT DISTINCT {by} FROM {plan} p JOIN {records} r ON {of_copy}
WHERE p._operation = 'delete' AND EXISTS (SELECT FROM {whole} w WHERE {of_list}) AND EXISTS (
  SELECT FROM unnest({places}::text[], {moments}::timestamptz[]) u (place, moment)
  WHERE {place} = u.place AND (u.moment IS NULL OR {moment} IS NULL OR {moment} <= u.moment))
"""

LAGGING = "the source shows older versions than it has shown before, so it may lag behind"

DOUBT_LAGGING = """
WITH shown AS (
  SELECT p.ctid AS place, {moment} AS moment, {outdated} AS outdated, p._operation AS operation
  FROM {plan} p JOIN {table} t ON {same} WHERE p._status = 'confirmed' AND t.deleted_at IS NULL
), lagging AS (SELECT min(moment) AS since FROM shown WHERE outdated AND moment >= {believed_after})
UPDATE {plan} p SET _status = 'unproven', _why = {why}, _looked = true FROM shown, lagging
WHERE p.ctid = shown.place AND shown.moment >= lagging.since AND (shown.outdated OR shown.operation = 'delete')
"""

PERHAPS_BACK = """
INSERT INTO {plan} ({columns}, _operation, _status, _seen_hash, _seen_deleted, _listed)
SELECT DISTINCT ON ({t_key}) {t_columns}, 'insert', 'candidate', c.row_hash, c.deleted_at IS NOT NULL, false
FROM {stage} t LEFT JOIN {table} c ON {same} WHERE {reported} AND (c.row_hash IS NULL OR c.deleted_at IS NOT NULL)
"""

NOISE = """
INSERT INTO {plan} ({columns}, _operation, _status) SELECT {columns}, 'update', 'noise' FROM {stage} WHERE {this}
ON CONFLICT DO NOTHING
"""

DROP_OLDER = "DELETE FROM {part} p USING {whole_plan} w WHERE {same} AND w._status = 'stale'"

# One set, so that Postgres joins it. With an OR of several it would scan each for every row once memory is short.
OF_RECORDS = """({t_by}) IN (
  SELECT {key} FROM {whole} EXCEPT SELECT {key} FROM {whole_plan} WHERE _status = 'stale'
  UNION SELECT {key} FROM {whole_plan} WHERE _operation = 'delete')
"""

ORPHANS = """NOT EXISTS (SELECT FROM {records} r WHERE {of_copy} AND r.deleted_at IS NULL)
  AND NOT EXISTS (SELECT FROM {whole} w WHERE {of_list})
"""

NOT_NEWER = """
UPDATE {plan} p SET _status = 'candidate' FROM {whole} w JOIN {records} r USING ({key})
WHERE {same} AND p._status = 'confirmed' AND r.deleted_at IS NULL AND NOT {w_newer}
"""

UNREADABLE = """
UPDATE {plan} p SET _status = 'unproven', _why = 'a row can not be stored as it is shown, and may be this one'
WHERE _operation = 'delete'
  AND (jsonb_build_array({p_key}) IN (SELECT key FROM {refused}) OR EXISTS (SELECT FROM {refused} WHERE NOT usable))
"""

TAKEN_WHY = "another record has a row of it too, and only one of the two can be right"

TAKERS = """
SELECT DISTINCT {p_by} FROM {plan} p
WHERE _operation <> 'delete' AND _status IN ('confirmed', 'candidate', 'due') AND EXISTS (
  SELECT FROM {table} t WHERE {same} AND t.deleted_at IS NULL AND ({t_by}) IS DISTINCT FROM ({p_by})
    AND NOT EXISTS (SELECT FROM {whole} w WHERE {of_list})
    AND NOT EXISTS (
      SELECT FROM {whole_plan} w WHERE {of_list} AND w._operation = 'delete' AND w._status = 'confirmed'))
"""

DOUBT_RECORDS = """
UPDATE {plan} p SET _status = 'unproven', _why = {why}
WHERE _status IN ('confirmed', 'candidate', 'due') AND {of_records}
"""

AS_THE_RECORD = """
UPDATE {plan} p SET _status = w._status, _why = w._why FROM {whole_plan} w
WHERE {same} AND (w._status IN ('candidate', 'young', 'unproven') AND p._status IN ('confirmed', 'candidate', 'due')
  OR w._status = 'confirmed' AND w._operation = 'delete' AND p._status = 'candidate')
"""
