"""Find what the rows of a plan have in common: facts that hold for many of them, and for few other rows of the table.

A fact is told if it holds for at least half of the planned rows, at least twice as often as for the other rows of the
table, and if as many rows drawn from the table by chance would have it less than once in a million plans (by the
hypergeometric distribution). So a small table has facts too, and one whose rows are nearly all planned.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from psycopg import Connection, sql

from include.warehouse.chance import LIFT, MANY, UNLIKELY, drawn
from include.warehouse.differing_columns import NUMBERS, TIMES, Differing, find_differing
from include.warehouse.edited_rows import find_edited
from include.warehouse.patterns import SHARE, Kind, Operation, Pattern
from include.warehouse.sql_fragments import identifiers, same_key
from include.warehouse.staging import Stage
from include.warehouse.whole_parents import find_whole_parents

# The largest number of facts about the rows of one operation.
MOST = 5
# The share of the rows that a range may leave out at either end.
TRIM = 0.05

# Columns whose values are compared: by themselves, by their day, or only by their range.
BY_VALUE = ("boolean", "text", "uuid", "date", *NUMBERS)
BY_RANGE = (*NUMBERS, "date", *TIMES)
# Values may be about people. Only these are shown: times, ids, yes or no, and codes such as `COMPLETED`. A column has
# codes if its number of different values is at most this share of its rows.
CODE = re.compile(r"[A-Z0-9_:.-]{1,40}")
FEW_VALUES = 0.05
# Of a folder's path, only those steps are shown that are ids, or below which this share of all folders lies.
ID = re.compile(r"\d+|(?=.*\d)[0-9a-f-]{8,}")
NEARLY_ALL = 0.9

# Our own columns, with the kind of a fact about them.
OWN_KINDS: Mapping[str, Kind] = {"sync_id": "sync", "_page": "page"}


def find_patterns(stage: Stage) -> list[Pattern]:
    """Return the facts about the planned changes of a table, at most MOST for an operation, the most telling first.

    Call it after the second look, while the rows are staged.
    """
    table, found = stage.table, []
    names = {
        "plan": stage.plan,
        "stage": stage.sql,
        "table": table.sql,
        "t_is_p": same_key(table.key, "t", "p"),
        "s_is_p": same_key(table.key, "s", "p"),
        "s_is_t": same_key(table.key, "s", "t"),
        "s_known": sql.Identifier("s", table.key[0]),
        "p_known": sql.Identifier("p", table.key[0]),
        "t_columns": identifiers(table.names, "t"),
        "s_columns": identifiers(table.names, "s"),
    }
    for operation in ("delete", "update", "insert"):
        # The copy lacks the rows to insert, so they are compared with all rows of the list.
        planned, rows, own = LISTED if operation == "insert" else COPIED
        parts = names | {"operation": sql.Literal(operation)}
        planned, rows = sql.SQL(planned).format(**parts), sql.SQL(rows).format(**parts)
        types = column_types(stage) | {own: "bigint"}
        differing = find_differing(stage, column_types(stage)) if operation == "update" else None
        empty = differing.empty if differing else ()
        facts = facts_of(
            stage.conn, table.name, operation, planned, rows, types=types, key=table.key, known_empty=empty
        )
        facts = [*_differing(table.name, differing), *facts]
        if operation != "insert":
            facts = [*find_edited(stage, operation, planned, sql.SQL(IN_STEP).format(**parts)), *facts]
        found += facts[:MOST]
    return found


def facts_of(
    conn: Connection,
    table: str,
    operation: Operation,
    planned: sql.Composable,
    rows: sql.Composable,
    *,
    types: Mapping[str, str],
    key: Collection[str] = (),
    known_empty: Collection[str] = (),
) -> list[Pattern]:
    """Return the facts about the `planned` rows of a table, compared with all `rows` looked at, the most telling first.

    - `planned`, `rows`: queries for the columns of `types`
    - `types`: the SQL type of each column; `sync_id` and `_page` are our own
    - `key`: columns whose values are never about a person
    - `known_empty`: columns that another fact says to be empty
    """
    (total,) = _aggregate(conn, planned, [sql.SQL("count(*)")])
    if total < MANY:
        return []
    facts = [fact for fact in _facts(conn, types, planned) if fact.value is not None or fact.column not in known_empty]
    counts = [sql.SQL("count(*) FILTER (WHERE {})").format(fact.condition) for fact in facts]
    in_plan = _aggregate(conn, planned, counts)
    in_table = _aggregate(conn, rows, [sql.SQL("count(*)"), *counts])
    found = [
        _pattern(table, operation, fact, planned=count, of=total, present=present, rows=in_table[0])
        for fact, count, present in zip(facts, in_plan, in_table[1:], strict=True)
    ]
    told: list[Pattern] = []
    # Of two equal facts, that of the key says less: its values mean nothing to people.
    for pattern in sorted(filter(_is_telling, found), key=lambda each: (-each.score, each.column in key)):
        # Of several facts about the same rows, or about a column in the same way, the first is enough.
        if not any(_same(pattern, other) for other in told):
            told.append(pattern)
    coded = _coded_columns(conn, rows, sorted({pattern.column for pattern in told}), in_table[0])

    def without_personal_data(pattern: Pattern) -> Pattern:
        if pattern.kind == "folder":
            return _mask_folder(conn, rows, pattern)
        return pattern if _may_be_shown(key, pattern, types, coded) else _hidden(pattern)

    whole = find_whole_parents(
        conn, table, operation, planned, rows, names=list(types), of=total, looked_at=in_table[0]
    )
    return [*map(without_personal_data, told), *(each for each in whole if not _covers(told, each))]


def _covers(told: Sequence[Pattern], whole: Pattern) -> bool:
    """Return whether another fact is about no other rows than those of whole parents."""
    return any((other.planned, other.present) == (whole.planned, whole.planned) for other in told)


def _differing(table: str, found: Differing | None) -> list[Pattern]:
    """Return the fact that most rows to update differ in the same columns; no fact if they don't."""
    if found is None:
        return []
    return [Pattern(table, "update", "columns", ", ".join(found.columns), found.how, found.rows, found.of)]


def _same(pattern: Pattern, other: Pattern) -> bool:
    rows = (pattern.planned, pattern.present) == (other.planned, other.present)
    return rows or (pattern.kind, pattern.column) == (other.kind, other.column)


@dataclass(frozen=True)
class _Fact:
    """A fact to test, with the SQL condition for the rows that have it."""

    kind: Kind
    column: str
    condition: sql.Composable
    value: Any = None
    until: Any = None


def column_types(stage: Stage) -> dict[str, str]:
    """Return the SQL type of each column of the table."""
    query = "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    found = dict(stage.conn.execute(query, [stage.sql.as_string()]).fetchall())
    return {name: found[name] for name in stage.table.names}


def _facts(conn: Connection, types: Mapping[str, str], planned: sql.Composable) -> Iterator[_Fact]:
    """Yield the facts to test: each column's most common value, day or folder, that it is null, and its range.

    A column of our own has one fact only, its most common value.
    """
    terms = {name: _term(name, type_) for name, type_ in types.items() if type_ in (*BY_VALUE, *TIMES)}
    modes = _aggregate(conn, planned, [sql.SQL("mode() WITHIN GROUP (ORDER BY {})").format(t) for t in terms.values()])
    for (name, term), value in zip(terms.items(), modes, strict=True):
        kind = OWN_KINDS.get(name, "day" if types[name] in TIMES else "value")
        if value is not None:
            yield _Fact(kind, name, sql.SQL("{} = {}").format(term, sql.Literal(value)), value)
        if name not in OWN_KINDS:
            yield _Fact("value", name, sql.SQL("{} IS NULL").format(term))
    folders = {name: sql.SQL(FOLDER).format(sql.Identifier(name)) for name, type_ in types.items() if type_ == "text"}
    modes = _aggregate(
        conn, planned, [sql.SQL("mode() WITHIN GROUP (ORDER BY {})").format(t) for t in folders.values()]
    )
    for (name, folder), value in zip(folders.items(), modes, strict=True):
        if value is not None:
            yield _Fact("folder", name, sql.SQL("{} = {}").format(folder, sql.Literal(value)), value)
    measured = [name for name, type_ in types.items() if type_ in BY_RANGE and name not in OWN_KINDS]
    # The range of all rows, then the range without the outliers at either end.
    for share in (0, TRIM):
        ends = [
            sql.SQL("percentile_disc(ARRAY[{}, {}]::float[]) WITHIN GROUP (ORDER BY {})").format(
                sql.Literal(share), sql.Literal(1 - share), sql.Identifier(name)
            )
            for name in measured
        ]
        for name, range_ in zip(measured, _aggregate(conn, planned, ends), strict=True):
            if range_ and range_[0] != range_[1]:
                first, last = map(sql.Literal, range_)
                condition = sql.SQL("{} BETWEEN {} AND {}").format(sql.Identifier(name), first, last)
                yield _Fact("range", name, condition, *range_)


def _term(name: str, type_: str) -> sql.Composable:
    """Return the SQL expression by which the values of a column are compared: times by their day in UTC."""
    column = sql.Identifier(name)
    match type_:
        case "timestamp with time zone":
            return sql.SQL("({} AT TIME ZONE 'UTC')::date").format(column)
        case "timestamp without time zone":
            return sql.SQL("{}::date").format(column)
    return column


def _aggregate(conn: Connection, query: sql.Composable, terms: Sequence[sql.Composable]) -> tuple:
    """Return the values of aggregates over the rows of a query."""
    if not terms:
        return ()
    return conn.execute(sql.SQL("SELECT {} FROM ({}) q").format(sql.SQL(", ").join(terms), query)).fetchone()


def _coded_columns(conn: Connection, rows: sql.Composable, names: Sequence[str], total: int) -> set[str]:
    """Return those of the columns that have few different values, as a share of the `total` rows."""
    different = _aggregate(conn, rows, [sql.SQL("count(DISTINCT {})").format(sql.Identifier(name)) for name in names])
    return {name for name, count in zip(names, different, strict=True) if count <= FEW_VALUES * total}


def _may_be_shown(key: Collection[str], pattern: Pattern, types: Mapping[str, str], coded: Collection[str]) -> bool:
    """Return whether a fact's value may be shown, since it can't be about a person.

    That is: null; and a value of the key, an id, a flag, a time, a column of our own or one with few values. A text has
    to look like a code as well.
    """
    if pattern.value is None:
        return True
    name, type_ = pattern.column, types[pattern.column]
    is_harmless = name in (*key, *OWN_KINDS, *coded) or name.endswith("_id") or type_ in ("boolean", *TIMES)
    return is_harmless and (type_ != "text" or bool(CODE.fullmatch(pattern.value)))


def _mask_folder(conn: Connection, rows: sql.Composable, pattern: Pattern) -> Pattern:
    """Return the fact with `…` for each step of its folder that may be about a person; hidden if all may be."""
    steps, column = pattern.value.removesuffix("/").split("/"), sql.Identifier(pattern.column)
    within = [
        sql.SQL("count(*) FILTER (WHERE starts_with({}, {}))").format(column, sql.Literal("/".join([*steps[:n], ""])))
        for n in range(1, len(steps) + 1)
    ]
    total, *counts = _aggregate(conn, rows, [sql.SQL("count({})").format(sql.SQL(FOLDER).format(column)), *within])
    told = [
        step if not step or ID.fullmatch(step) or count >= NEARLY_ALL * total else "…"
        for step, count in zip(steps, counts, strict=True)
    ]
    return (
        replace(pattern, value="/".join([*told, ""]))
        if any(step not in ("", "…") for step in told)
        else _hidden(pattern)
    )


def _hidden(pattern: Pattern) -> Pattern:
    return replace(pattern, value=None, until=None, hidden=True)


def _pattern(
    table: str,
    operation: Operation,
    fact: _Fact,
    *,
    planned: int,
    of: int,
    present: int,
    rows: int,
) -> Pattern:
    """Return the pattern of a tested fact. The counts are those of `Pattern`."""
    return Pattern(
        table=table,
        operation=operation,
        kind=fact.kind,
        column=fact.column,
        value=None if fact.value is None else _as_text(fact.value),
        until=None if fact.until is None else _as_text(fact.until),
        planned=planned,
        of=of,
        present=present,
        rows=rows,
        score=drawn(planned, of, present, rows) - (2 * math.log(of) if fact.kind == "range" else 0),
    )


def _is_telling(pattern: Pattern) -> bool:
    """Return whether the fact holds for many of the planned rows and few others, and hardly by chance."""
    share = pattern.planned / pattern.of
    others = (pattern.present - pattern.planned) / max(1, pattern.rows - pattern.of)
    return share >= SHARE and share >= LIFT * others and pattern.score >= UNLIKELY


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        return f"{utc:%Y-%m-%d %H:%M}{' UTC' if value.tzinfo else ''}"
    return value.isoformat() if isinstance(value, date) else str(value)


# Of a text with slashes, all up to the last one.
FOLDER = "substring({} FROM '^.*/')"

# The planned rows, the rows that were looked at, and the column of ours that both have.
COPIED = (
    "SELECT {t_columns}, t.sync_id, t.row_hash FROM {plan} p JOIN {table} t ON {t_is_p}"
    " WHERE p._operation = {operation} AND p._status = 'confirmed'",
    "SELECT {t_columns}, t.sync_id, t.row_hash FROM {table} t"
    " LEFT JOIN {stage} s ON {s_is_t} LEFT JOIN {plan} p ON {t_is_p} WHERE t.deleted_at IS NULL"
    " AND coalesce({s_known}, {p_known}) IS NOT NULL AND coalesce(p._status, '') NOT IN ('young', 'unproven')",
    "sync_id",
)
# Rows of page 0 came by look-ups of their own.
LISTED = (
    "SELECT {s_columns}, nullif(s._page, 0) AS _page FROM {plan} p JOIN {stage} s ON {s_is_p}"
    " WHERE p._operation = {operation} AND p._status = 'confirmed'",
    "SELECT {s_columns}, nullif(s._page, 0) AS _page FROM {stage} s",
    "_page",
)

# Some rows that are in step.
IN_STEP = """
SELECT {t_columns}, t.sync_id, t.row_hash FROM {table} t JOIN {stage} s ON {s_is_t}
WHERE t.deleted_at IS NULL AND t.row_hash = s.row_hash LIMIT 1000
"""
