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
from typing import Any, Literal

from psycopg import Connection, sql

from include.warehouse.chance import LIFT, MANY, UNLIKELY, drawn
from include.warehouse.differing_columns import NUMBERS, TIMES, find_differing
from include.warehouse.sql_fragments import identifiers, key_object, same_key
from include.warehouse.staging import Stage

# The largest number of facts about the rows of one operation.
MOST = 5
# The share of the planned rows for which a fact has to hold.
SHARE = 0.5
# The share of the rows that a range may leave out at either end.
TRIM = 0.05

# Columns whose values are compared: by themselves, by their day, or only by their range.
BY_VALUE = ("boolean", "text", "uuid", "date", *NUMBERS)
BY_RANGE = (*NUMBERS, "date", *TIMES)
# Values may be about people, so only these are told: times, ids, yes or no, and codes as in `COMPLETED`, of which a
# column has few different ones: at most so large a share of its rows.
CODE = re.compile(r"[A-Z0-9_:.-]{1,40}")
FEW_VALUES = 0.05
# Of a folder those steps are told that are ids, and those in which so many of the table's rows with a folder lie.
ID = re.compile(r"\d+|(?=.*\d)[0-9a-f-]{8,}")
NEARLY_ALL = 0.9

Operation = Literal["insert", "update", "delete"]
Kind = Literal["value", "day", "folder", "range", "columns", "edited", "sync", "page"]
# Our own columns, with the kind of a fact about them.
OWN_KINDS: Mapping[str, Kind] = {"sync_id": "sync", "_page": "page"}


@dataclass(frozen=True)
class Pattern:
    """A fact about `planned` of all `of` planned rows of an operation, and about `present` of the `rows` looked at.

    - `kind`: a column has one `value`, one day, one folder (all up to the last slash), or is in the range from `value`
      to `until`; the same `column`s (joined by commas) differ; the rows were `edited` in the copy by something other
      than a sync or repair; one sync wrote the rows; they stand on one page of the list
    - `value`: as text; None for null, and if it is `hidden` since it may be about a person; of `columns` how they
      differ; of a folder with `…` for each step that may be about a person
    - `present`, `rows`: 0 for `columns` and `edited`, which are not counted in the other rows
    - `score`: how unlikely it is by chance (the natural logarithm)
    """

    table: str
    operation: Operation
    kind: Kind
    column: str
    value: str | None
    planned: int
    of: int
    until: str | None = None
    hidden: bool = False
    present: int = 0
    rows: int = 0
    score: float = 0.0

    def __str__(self) -> str:
        return f"{self.planned:,} of {self.of:,} rows to {self.operation} {self._fact()}{self._elsewhere()}"

    def _elsewhere(self) -> str:
        """Return which share of the rows with the fact these are."""
        if not self.rows:
            return ""
        share = "all" if self.planned == self.present else f"{self.planned:,} of the"
        return f". These are {share} {self.present:,} such rows among the {self.rows:,} that were looked at"

    def _fact(self) -> str:
        match self.kind:
            case "sync":
                return f"were last written by sync {self.value}"
            case "page":
                return f"stand on page {self.value} of the list"
            case "day":
                return f"have {self.column} on {self.value}"
            case "edited":
                return "were changed in the copy by something other than a sync or repair, such as an UPDATE by hand"
            case "range" if self.hidden:
                return f"have {self.column} in one range"
            case "range":
                return f"have {self.column} between {self.value} and {self.until}"
            case "columns":
                return f"differ in {self.column} only" + (f", {self.value}" if self.value else "")
            case "folder":
                return f"share one folder of {self.column}" + ("" if self.hidden else f", {self.value}")
        if self.hidden:
            return f"share one value of {self.column}"
        return f"have no {self.column}" if self.value is None else f"have {self.column} {self.value}"


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
        facts = facts_of(stage.conn, table.name, operation, planned, rows, types=types, key=table.key)
        if operation == "update":
            facts = [*_differing(stage), *facts]
        if operation != "insert":
            facts = [*_edited(stage, operation, planned, sql.SQL(IN_STEP).format(**parts)), *facts]
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
) -> list[Pattern]:
    """Return the facts about the `planned` rows of a table, compared with all `rows` looked at, the most telling first.

    - `planned`, `rows`: queries for the columns of `types`
    - `types`: the SQL type of each column; `sync_id` and `_page` are our own
    - `key`: columns whose values are never about a person
    """
    (total,) = _aggregate(conn, planned, [sql.SQL("count(*)")])
    if total < MANY:
        return []
    facts = list(_facts(conn, types, planned))
    counts = [sql.SQL("count(*) FILTER (WHERE {})").format(fact.condition) for fact in facts]
    in_plan = _aggregate(conn, planned, counts)
    in_table = _aggregate(conn, rows, [sql.SQL("count(*)"), *counts])
    found = [
        _pattern(table, operation, fact, planned=count, of=total, present=present, rows=in_table[0])
        for fact, count, present in zip(facts, in_plan, in_table[1:], strict=True)
    ]
    told: list[Pattern] = []
    for pattern in sorted(filter(_is_telling, found), key=lambda each: -each.score):
        # Of several facts about the same rows, or about a column in the same way, the first is enough.
        if not any(_same(pattern, other) for other in told):
            told.append(pattern)
    coded = _coded_columns(conn, rows, sorted({pattern.column for pattern in told}), in_table[0])
    return [
        _folder_told(conn, rows, each)
        if each.kind == "folder"
        else each
        if _is_open(key, each, types, coded)
        else _hidden(each)
        for each in told
    ]


def _differing(stage: Stage) -> list[Pattern]:
    """Return the fact that the same columns differ in most rows to update, if that is so."""
    found = find_differing(stage, column_types(stage))
    if found is None:
        return []
    columns = ", ".join(found.columns)
    return [Pattern(stage.table.name, "update", "columns", columns, found.how, found.rows, found.of)]


def _edited(stage: Stage, operation: Operation, planned: sql.Composable, others: sql.Composable) -> list[Pattern]:
    """Return the fact that the planned rows are no longer as the sync that last wrote them left them, if that is so.

    `others`: a query for some rows that are in step. A migration that makes the hashes anew looks like an edit of these
    too, so there it is no fact.
    """
    table = stage.table
    parts = {"key": key_object(table.key, "q"), "table_name": sql.Literal(table.full_name)}
    edited, of = stage.conn.execute(sql.SQL(EDITED).format(rows=planned, **parts)).fetchone()
    # It is told of fewer rows than other facts: no column has to be chosen for it.
    if not edited or edited < SHARE * of:
        return []
    edited_others, of_others = stage.conn.execute(sql.SQL(EDITED).format(rows=others, **parts)).fetchone()
    if not of_others or edited / of < LIFT * edited_others / of_others:
        return []
    return [Pattern(table.name, operation, "edited", "", None, edited, of)]


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

    Of a column of our own only the most common value is one.
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


def _is_open(key: Collection[str], pattern: Pattern, types: Mapping[str, str], coded: Collection[str]) -> bool:
    """Return whether a fact's value may be told: none, of our own column, of a key, an id or a time, or a code."""
    name, type_ = pattern.column, types[pattern.column]
    always = name in (*key, *OWN_KINDS) or name.endswith("_id") or type_ in ("boolean", *TIMES)
    if pattern.value is None:
        return True
    return (always or name in coded) and (type_ != "text" or bool(CODE.fullmatch(pattern.value)))


def _folder_told(conn: Connection, rows: sql.Composable, pattern: Pattern) -> Pattern:
    """Return the fact with those steps of its folder that say nothing about a person; hidden if there are none."""
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

# Materialized: Postgres takes both for small, and would look for each row in the log by itself.
EDITED = """
WITH q AS MATERIALIZED (SELECT {key} AS key, sync_id, row_hash FROM ({rows}) q),
logged AS MATERIALIZED (
  SELECT sync_id, key, after_hash FROM confidence.change_log
  WHERE table_name = {table_name} AND sync_id = ANY (ARRAY(SELECT DISTINCT sync_id FROM q)) AND after_hash IS NOT NULL
    AND key IN (SELECT key FROM q)
)
SELECT count(*) FILTER (WHERE EXISTS (SELECT FROM logged l WHERE (l.sync_id, l.key) = (q.sync_id, q.key))
    AND NOT EXISTS (SELECT FROM logged l WHERE (l.sync_id, l.key, l.after_hash) = (q.sync_id, q.key, q.row_hash))),
  count(*)
FROM q
"""
