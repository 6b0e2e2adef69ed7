"""What a scan proves: the account of every row on both sides, and what is left unproven."""

from psycopg import sql

from include.confidence import unproven
from include.confidence.account import Account
from include.sources.mirror.entity import Context, Discovered
from include.sources.mirror.extract import Extract
from include.warehouse.staging import Stage
from include.warehouse.table import identifiers, pairs, same_key


def scope_of(context: Context, extract: Extract, row: str) -> sql.Composable:
    """The condition on a row of the copy that the scan's lists would show it; never null.

    Rows of partitions that are not asked for are out of scope only where the source's own rows don't name theirs. Else
    such a row may have been spoilt, and is looked up by itself.
    """
    entity, conditions = extract.entity, [sql.SQL("true")]
    if entity.partitions and entity.partitions.adds:
        asked = sql.SQL(", ").join(map(sql.Literal, extract.partitions))
        column = sql.Identifier(row, entity.partitions.column)
        conditions.append(sql.SQL("coalesce({}::text IN ({}), true)").format(column, asked))
    if isinstance(entity, Discovered):
        conditions.append(sql.SQL("coalesce({}, true)").format(entity.within(context)))
    return sql.SQL("({})").format(sql.SQL(" AND ").join(conditions))


def account(context: Context, extract: Extract, stage: Stage, compared: int, *, surplus: bool) -> Account:
    """The account of one table of the scan, after the second look.

    `compared`: how many rows were staged of the lists alone. `surplus`: whether rows that the lists don't show were
    looked for.
    """
    own = stage is extract.stage
    progress, pull = stage.pull.progress or {}, stage.pull
    skipped = len(extract.skipped_records) if own else 0
    absent = len(extract.absent_keys) + len(extract.deleted_keys) if own else 0
    known = extract.progress.get("known", 0) if own else 0
    names = _names(stage) | {"out_of_scope": _out_of_scope(context, extract, stage, surplus)}
    live = context.conn.execute(sql.SQL(COPY_SIDE).format(**names)).fetchone()
    names["refused_missing"] = sql.SQL(REFUSED_MISSING).format(**names)
    missing = context.conn.execute(sql.SQL(SOURCE_SIDE).format(**names)).fetchone()
    return Account(
        listed=pull.rows_read + skipped + absent + known,
        repeats=sum(progress["repeats"].values()) + known,
        refused=pull.rows_refused + skipped,
        compared=compared + progress["fallen"] + absent,
        **dict(zip(("live", "equal", "differing", "surplus", "young", "unproven", "out_of_scope"), live, strict=True)),
        **dict(zip(("missing", "missing_unproven"), missing, strict=True)),
        unseen=_unseen(extract) if own else 0,
    )


def _names(stage: Stage) -> dict[str, sql.Composable]:
    key = stage.table.key
    return {
        "table": stage.table.sql,
        "stage": stage.sql,
        "plan": stage.plan,
        "refused": stage.refused,
        "t_is_s": same_key(key, "t", "s"),
        "t_is_p": same_key(key, "t", "p"),
        "no_s": sql.SQL("s.{} IS NULL").format(sql.Identifier(key[0])),
        "t_key": sql.SQL("jsonb_build_array({})").format(identifiers(key, "t")),
        "s_key": sql.SQL("jsonb_build_array({})").format(identifiers(key, "s")),
        "p_key": sql.SQL("jsonb_build_array({})").format(identifiers(key, "p")),
    }


def _out_of_scope(context: Context, extract: Extract, stage: Stage, surplus: bool) -> sql.Composable:
    """The condition on rows `t` of the copy, which no list shows, that the scan was not to compare them."""
    if stage is extract.stage:
        if not surplus or extract.entity.history:
            return sql.SQL("true")
        return sql.SQL("NOT {}").format(scope_of(context, extract, "t"))
    part = next(part for part, each in extract.parts if each is stage)
    key = extract.entity.table.key
    return sql.SQL("NOT EXISTS (SELECT FROM {} w WHERE {}) AND NOT EXISTS (SELECT FROM {} w WHERE {})").format(
        extract.stage.sql, pairs(part.by, "t", key, "w"), extract.stage.plan, pairs(part.by, "t", key, "w")
    )


def left_out(extract: Extract) -> int:
    """How many live rows the lists left out, though a second look found them."""
    query = "SELECT count(*) FROM {} WHERE NOT _listed AND _looked AND _operation <> 'delete'"
    return extract.stage.conn.execute(sql.SQL(query).format(extract.stage.plan)).fetchone()[0]


def _unseen(extract: Extract) -> int:
    """How many rows the lists say that they have, and neither they nor a second look has shown."""
    lists = extract.lists.values()
    promised = [each["promised"] for each in lists]
    if not promised or None in promised or isinstance(extract.entity, Discovered):
        return 0
    compared = extract.progress["compared"]["compared"][extract.entity.name]
    refused = sum(each["counts"][0][1] for each in lists)
    seen = compared + extract.progress["fallen"] + refused + left_out(extract)
    return max(0, sum(promised) - seen)


def too_much_left_out(extract: Extract, account: Account) -> str:
    """Why a list that leaves out so many live rows is none; empty if it is one."""
    count = left_out(extract)
    if not extract.entity.unproven.too_many(count, account.rows):
        return ""
    return (
        f"{extract.entity.name}: the list leaves out {count} of {account.rows} rows that are there when they are asked"
        " for by themselves, so nobody knows what else it leaves out. Look at the list at the source"
    )


def remember(context: Context, extract: Extract, *, whole: bool) -> None:
    """Bring confidence.unproven in line with what the scan has found. `whole`: it looked at all of the source."""
    for stage in extract.stages:
        names = _names(stage)
        unproven.remember_query(
            context.conn,
            context.source.name,
            stage.table.name,
            context.run,
            sql.SQL(DOUBTS).format(**names),
            proven=None if whole else sql.SQL(LOOKED_AT).format(**names),
        )


COPY_SIDE = """
SELECT count(*),
  count(*) FILTER (WHERE NOT {no_s} AND s.row_hash = t.row_hash AND coalesce(p._status, 'noise') = 'noise'),
  count(*) FILTER (WHERE p._operation = 'update' AND p._status = 'confirmed'),
  count(*) FILTER (WHERE p._operation = 'delete' AND p._status = 'confirmed'),
  count(*) FILTER (WHERE p._status = 'young'),
  count(*) FILTER (WHERE p._status = 'unproven'),
  count(*) FILTER (WHERE {no_s} AND p._status IS NULL AND {out_of_scope})
FROM {table} t LEFT JOIN {stage} s ON {t_is_s} LEFT JOIN {plan} p ON {t_is_p} WHERE t.deleted_at IS NULL
"""

# A row that was refused in a list and could be stored from its own address is staged.
REFUSED_MISSING = """
SELECT count(DISTINCT r.key) FROM {refused} r WHERE NOT mended
  AND NOT EXISTS (SELECT FROM {table} t WHERE t.deleted_at IS NULL AND {t_key} = r.key)
  AND NOT EXISTS (SELECT FROM {stage} s WHERE {s_key} = r.key)
"""

SOURCE_SIDE = """
SELECT refused + (
    SELECT count(*) FROM {stage} s WHERE NOT EXISTS (SELECT FROM {table} t WHERE {t_is_s} AND t.deleted_at IS NULL)),
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

# Rows without a usable key are named by where they were listed, and lists by their partition: both are told anew by
# each scan.
LOOKED_AT = """
SELECT {s_key} AS key FROM {stage} s UNION SELECT {p_key} FROM {plan} p
UNION SELECT key FROM confidence.unproven WHERE key ->> 0 LIKE 'row % of page %' OR key ->> 0 LIKE 'the list of %'
"""
