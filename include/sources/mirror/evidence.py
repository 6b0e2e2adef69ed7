"""The evidence of a scan: the account of every row on both sides, and the rows that stay unproven."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from psycopg import sql

from include.confidence import planned_changes, scan_log, unproven
from include.confidence.account import Account
from include.confidence.summary import ForensicSummary
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Discovered
from include.sources.mirror.extract import Extract
from include.warehouse import compare
from include.warehouse.find_patterns import find_patterns
from include.warehouse.sql_fragments import identifiers, pairs, same_key
from include.warehouse.staging import Stage


def in_scope(context: MirrorContext, extract: Extract, alias: str) -> sql.Composable:
    """Return SQL over rows `alias` of the copy, true if the scan's lists would show the row. It is never null.

    A row of a partition that was not requested is out of scope only if settings name the partitions, and the source's
    rows don't. Otherwise the partition may be gone, or be a wrong one, so the row is in scope and will be looked up.
    """
    entity, conditions = extract.entity, [sql.SQL("true")]
    if entity.partitions and entity.partitions.adds and not entity.partitions.listed_by:
        asked = sql.SQL(", ").join(map(sql.Literal, extract.partitions))
        column = sql.Identifier(alias, entity.partitions.column)
        conditions.append(sql.SQL("coalesce({}::text IN ({}), true)").format(column, asked))
    if isinstance(entity, Discovered):
        conditions.append(sql.SQL("coalesce({}, true)").format(entity.within(context)))
    return sql.SQL("({})").format(sql.SQL(" AND ").join(conditions))


def account(context: MirrorContext, extract: Extract, stage: Stage, compared: int, *, surplus: bool) -> Account:
    """Return the account of one table of the scan, after the second look.

    - `compared`: the number of rows that the lists brought into staging
    - `surplus`: whether the scan looked for rows of the copy that the lists don't show
    """
    return Account(
        **_listed_rows(extract, stage, compared),
        **_copied_rows(context, extract, stage, surplus),
        **_missing_rows(stage),
        unseen=count_unseen(extract) if stage is extract.stage else 0,
    )


def _listed_rows(extract: Extract, stage: Stage, compared: int) -> dict[str, int]:
    """Return the figures of the rows that the lists showed. `compared`: see `account`."""
    progress, pull = stage.pull.progress or {}, stage.pull
    skipped = deleted = known = 0
    # Records that were listed, but not staged. Nested rows come inside records, so none of them is left out.
    if stage is extract.stage:
        skipped = len(extract.lookups.skipped_records) + len(extract.lookups.unfound_keys)
        deleted = len(extract.lookups.deleted_keys)
        known = extract.lookups.known
    return {
        "listed": pull.rows_read + skipped + deleted + known,
        "repeats": sum(progress["repeats"].values()) + known,
        "refused": pull.rows_refused + skipped,
        "compared": compared + progress["fallen"] + deleted,
    }


def _copied_rows(context: MirrorContext, extract: Extract, stage: Stage, surplus: bool) -> dict[str, int]:
    """Return how many live rows the copy has, and how many of them have which result."""
    names = _sql_names(stage) | {"out_of_scope": _out_of_scope(context, extract, stage, surplus)}
    return dict(zip(STATES, stage.conn.execute(sql.SQL(COPY_SIDE).format(**names)).fetchone(), strict=True))


def _missing_rows(stage: Stage) -> dict[str, int]:
    """Return how many rows the copy lacks, and for how many of them that is not proven."""
    names = _sql_names(stage)
    names["refused_missing"] = sql.SQL(REFUSED_MISSING).format(**names)
    missing, missing_unproven = stage.conn.execute(sql.SQL(SOURCE_SIDE).format(**names)).fetchone()
    return {"missing": missing, "missing_unproven": missing_unproven}


def keep_plan(extract: Extract, summary: ForensicSummary) -> None:
    """Keep the plan of a scan row by row, and what its rows have in common. Call it while the rows are staged."""
    conn = extract.stage.conn
    for stage in extract.stages:
        planned_changes.keep(conn, summary, stage.table.name, stage.table.compared, compare.planned_changes(stage))
    patterns = [pattern for stage in extract.stages for pattern in find_patterns(stage)]
    scan_log.keep_patterns(conn, summary.scan_id, patterns)


def _sql_names(stage: Stage) -> dict[str, sql.Composable]:
    """Return the names in the queries below: tables, conditions on their keys, and keys as JSON arrays."""
    key = stage.table.key
    return {
        "table": stage.table.sql,
        "stage": stage.sql,
        "plan": stage.plan,
        "refused": stage.refused,
        "t_is_s": same_key(key, "t", "s"),
        "t_is_p": same_key(key, "t", "p"),
        "s_is_p": same_key(key, "s", "p"),
        "no_s": sql.SQL("s.{} IS NULL").format(sql.Identifier(key[0])),
        "t_key": sql.SQL("jsonb_build_array({})").format(identifiers(key, "t")),
        "s_key": sql.SQL("jsonb_build_array({})").format(identifiers(key, "s")),
        "p_key": sql.SQL("jsonb_build_array({})").format(identifiers(key, "p")),
    }


def _out_of_scope(context: MirrorContext, extract: Extract, stage: Stage, surplus: bool) -> sql.Composable:
    """Return SQL over rows `t` of the copy that no list shows, true if the scan was not to compare the row.

    Nested rows are out of scope if their record is neither staged nor planned.
    """
    if stage is extract.stage:
        if not surplus or extract.entity.history:
            return sql.SQL("true")
        return sql.SQL("NOT {}").format(in_scope(context, extract, "t"))
    part = next(part for part, each in extract.parts if each is stage)
    key = extract.entity.table.key
    return sql.SQL("NOT EXISTS (SELECT FROM {} w WHERE {}) AND NOT EXISTS (SELECT FROM {} w WHERE {})").format(
        extract.stage.sql, pairs(part.by, "t", key, "w"), extract.stage.plan, pairs(part.by, "t", key, "w")
    )


def count_unlisted(extract: Extract) -> int:
    """Return how many live rows the lists did not show, but a second look found."""
    query = sql.SQL("SELECT count(*) FROM {} WHERE NOT _listed AND _looked AND {}")
    return extract.stage.conn.execute(query.format(extract.stage.plan, _found(extract))).fetchone()[0]


def _found(extract: Extract) -> sql.Composed:
    """Return SQL over planned rows, true if a second look has found the row. One that is flagged as deleted is not.

    A list need not show it, and then its total does not count it.
    """
    flag = extract.entity.table.tombstone
    return sql.SQL(FOUND).format(deleted=sql.Identifier(flag) if flag else sql.SQL("false"))


def count_unseen(extract: Extract) -> int:
    """Return how many rows of the lists' totals neither the lists nor a second look has shown. 0 without totals.

    What a second look found counts for the lists of its own partition. A list that became shorter while it was read
    may have lost the rows that a second look proved deleted, and no others.
    """
    lists: dict[str, Counter[str]] = defaultdict(Counter)
    for state in extract.lists.values():
        if state.get("unseen"):
            lists[state["partition"]].update(unseen=state["unseen"], shrunk=state["shrunk"])
    looked_at = _unlisted_by_partition(extract) if lists else {}
    unseen = 0
    for partition, count in lists.items():
        found, deleted = looked_at.get(partition, (0, 0))
        unseen += max(0, count["unseen"] - found - min(count["shrunk"], deleted))
    return unseen


def _unlisted_by_partition(extract: Extract) -> Mapping[str, tuple[int, int]]:
    """Return (found, proven deleted) of the rows that the lists did not show, by the partition of their lists.

    Lists of several partitions, and of none, have the partition "".
    """
    partitions = extract.entity.partitions
    column = sql.SQL("{}::text").format(sql.Identifier(partitions.column)) if partitions else sql.SQL("NULL")
    query = sql.SQL(UNLISTED).format(column=column, found=_found(extract), plan=extract.stage.plan)
    alone = sorted({state["partition"] for state in extract.lists.values()})
    return {name: counts for name, *counts in extract.stage.conn.execute(query, {"alone": alone})}


def doubts(stage: Stage) -> list[tuple[list, str]]:
    """Return (key, why) of each row that could not be proven or stored."""
    query = sql.SQL("SELECT key, why FROM ({}) d ORDER BY 1").format(sql.SQL(DOUBTS).format(**_sql_names(stage)))
    return stage.conn.execute(query).fetchall()


def too_many_unlisted(extract: Extract, account: Account) -> str:
    """Return why the list is no evidence if it leaves out too many live rows, else an empty text."""
    count = count_unlisted(extract)
    if not extract.entity.unproven.too_many(count, account.rows):
        return ""
    return (
        f"{extract.entity.name}: the list leaves out {count} of {account.rows} rows, though the source has each of them"
        " when asked for it alone. So nobody knows what else it leaves out. Look at the list at the source"
    )


def remember_unproven(context: MirrorContext, extract: Extract, *, whole: bool) -> None:
    """Update confidence.unproven from the plan of the scan.

    `whole`: the scan looked at everything. Otherwise only the rows that it looked at can be forgotten.
    """
    for stage in extract.stages:
        names = _sql_names(stage)
        unproven.remember_query(
            context.conn,
            context.source.name,
            stage.table.name,
            context.run,
            sql.SQL(DOUBTS).format(**names),
            proven=None if whole else sql.SQL(LOOKED_AT).format(**names),
        )


# Of rows that a second look has asked for. What is neither there nor in the copy is noise.
FOUND = "_operation <> 'delete' AND (_operation, _status) <> ('insert', 'noise') AND {deleted} IS NOT TRUE"

# A young row has changed after its list was read, so the list's total may count it.
UNLISTED = """
SELECT CASE WHEN {column} = ANY(%(alone)s) THEN {column} ELSE '' END,
  count(*) FILTER (WHERE {found} OR _status = 'young'),
  count(*) FILTER (WHERE _operation = 'delete' AND _status = 'confirmed')
FROM {plan} WHERE NOT _listed AND _looked GROUP BY 1
"""

# What `COPY_SIDE` counts.
STATES = ("live", "equal", "differing", "surplus", "young", "due", "unproven", "out_of_scope")

COPY_SIDE = """
SELECT count(*),
  count(*) FILTER (WHERE NOT {no_s} AND s.row_hash = t.row_hash AND coalesce(p._status, 'noise') = 'noise'),
  count(*) FILTER (WHERE p._operation = 'update' AND p._status = 'confirmed'),
  count(*) FILTER (WHERE p._operation = 'delete' AND p._status = 'confirmed'),
  count(*) FILTER (WHERE p._status = 'young'),
  count(*) FILTER (WHERE p._status = 'due'),
  count(*) FILTER (WHERE p._status = 'unproven'),
  count(*) FILTER (WHERE {no_s} AND p._status IS NULL AND {out_of_scope})
FROM {table} t LEFT JOIN {stage} s ON {t_is_s} LEFT JOIN {plan} p ON {t_is_p} WHERE t.deleted_at IS NULL
"""

# A refused row that was later stored from its own address is staged, and not missing. One that other rows imply may be
# planned as well, and counts there.
REFUSED_MISSING = """
SELECT count(DISTINCT r.key) FROM {refused} r WHERE NOT mended
  AND NOT EXISTS (SELECT FROM {table} t WHERE t.deleted_at IS NULL AND {t_key} = r.key)
  AND NOT EXISTS (SELECT FROM {stage} s WHERE {s_key} = r.key)
  AND NOT EXISTS (SELECT FROM {plan} p WHERE {p_key} = r.key AND _status = 'unproven' AND _operation = 'insert')
"""

# A row that no answer has shown, but others imply, is planned without being staged.
SOURCE_SIDE = """
SELECT refused + (
    SELECT count(*) FROM {stage} s WHERE NOT EXISTS (SELECT FROM {table} t WHERE {t_is_s} AND t.deleted_at IS NULL)
  ) + (
    SELECT count(*) FROM {plan} p WHERE _status = 'unproven' AND _operation = 'insert'
      AND NOT EXISTS (SELECT FROM {stage} s WHERE {s_is_p})),
  refused + (SELECT count(*) FROM {plan} WHERE _status = 'unproven' AND _operation = 'insert')
FROM ({refused_missing}) r (refused)
"""

DOUBTS = """
SELECT {p_key} AS key, coalesce(_why, 'its record is not proven') AS why, _looked AS looked FROM {plan} p
WHERE _status = 'unproven'
UNION ALL
SELECT key, reason, looked FROM {refused} r
WHERE NOT mended AND NOT EXISTS (SELECT FROM {stage} s WHERE {s_key} = r.key)
"""

# The keys of what a scan looked at. Rows without a usable key are named by their place in the list, and failed lists by
# their partition. Both are always forgotten, since each scan names them again.
LOOKED_AT = """
SELECT {s_key} AS key FROM {stage} s UNION SELECT {p_key} FROM {plan} p
UNION SELECT key FROM confidence.unproven WHERE key ->> 0 LIKE 'row % of page %' OR key ->> 0 LIKE 'the list of %'
"""
