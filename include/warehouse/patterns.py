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
from decimal import Decimal
from typing import Any, Literal

from psycopg import Connection, sql

from include.warehouse.sql_fragments import identifiers, same_key
from include.warehouse.staging import Stage
from include.warehouse.table import Table

# Fewer planned rows have nothing in common that is worth telling.
MANY = 10
# The largest number of facts about the rows of one operation.
MOST = 5
SHARE, LIFT, UNLIKELY = 0.5, 2, math.log(1e6)
# The share of the rows that a range may leave out at either end.
TRIM = 0.05
# The share of the rows to update in which the same columns have to differ, or by the same number.
SAME_COLUMNS = 0.8

INTEGERS = ("integer", "bigint", "smallint")
NUMBERS = (*INTEGERS, "numeric")
# Columns whose values are compared: by themselves, by their day, or only by their range.
BY_VALUE = ("boolean", "text", "uuid", "date", *NUMBERS)
TIMES = ("timestamp with time zone", "timestamp without time zone")
BY_RANGE = (*NUMBERS, "date", *TIMES)
# Values may be about people, so only these are told: times, ids, yes or no, and codes as in `COMPLETED`, of which a
# column has few different ones: at most so large a share of its rows.
CODE = re.compile(r"[A-Z0-9_:.-]{1,40}")
FEW_VALUES = 0.05

Operation = Literal["insert", "update", "delete"]
Kind = Literal["value", "day", "folder", "range", "columns", "sync", "page"]
# Our own columns, with the kind of a fact about them.
OWN_KINDS: Mapping[str, Kind] = {"sync_id": "sync", "_page": "page"}


@dataclass(frozen=True)
class Pattern:
    """A fact about `planned` of all `of` planned rows of an operation, and about `present` of `rows` of the table.

    - `kind`: a column has one `value`, one day, one folder (all up to the last slash), or is in the range from `value`
      to `until`; the same `column`s (joined by commas) differ; one sync wrote the rows; they stand on one page of the
      list
    - `value`: as text; None for null, and if it is `hidden` since it may be about a person; of
      `columns` how they differ
    - `present`, `rows`: 0 for `columns`, which have no counterpart in the table
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
        return f"{self.planned} of {self.of} rows to {self.operation} {self._fact()}{self._elsewhere()}"

    def _elsewhere(self) -> str:
        """Return how many rows of the table have the fact too: of all rows, or of the others if most are planned."""
        if not self.rows:
            return ""
        if 2 * self.of > self.rows:
            return f"; {self.present - self.planned} of the other {self.rows - self.of} rows"
        return f"; {_percent(self.present, self.rows)} of the table ({self.present:,} rows)"

    def _fact(self) -> str:
        match self.kind:
            case "sync":
                return f"were last written by sync {self.value}"
            case "page":
                return f"stand on page {self.value} of the list"
            case "day":
                return f"have {self.column} on {self.value}"
            case "range" if self.hidden:
                return f"have {self.column} in one range"
            case "range":
                return f"have {self.column} between {self.value} and {self.until}"
            case "columns":
                return f"differ in {self.column} only" + (f", {self.value}" if self.value else "")
        if self.hidden:
            return f"share one {'folder' if self.kind == 'folder' else 'value'} of {self.column}"
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
        "t_columns": identifiers(table.names, "t"),
        "s_columns": identifiers(table.names, "s"),
    }
    for operation in ("delete", "update", "insert"):
        # The copy lacks the rows to insert, so they are compared with the other rows of the list.
        planned, rows, own = LISTED if operation == "insert" else COPIED
        parts = names | {"operation": sql.Literal(operation)}
        facts = facts_of(stage, operation, sql.SQL(planned).format(**parts), sql.SQL(rows).format(**parts), own=own)
        if operation == "update":
            facts = [*_same_columns(stage, parts), *facts]
        found += facts[:MOST]
    return found


def facts_of(
    stage: Stage, operation: Operation, planned: sql.Composable, rows: sql.Composable, *, own: str | None = None
) -> list[Pattern]:
    """Return the facts about the `planned` rows, compared with all `rows`, the most telling first.

    Both are queries for the table's columns and, if named, one column of our `own`: `sync_id` or `_page`.
    """
    conn = stage.conn
    (total,) = _aggregate(conn, planned, [sql.SQL("count(*)")])
    if total < MANY:
        return []
    types = _types(stage) | ({own: "bigint"} if own else {})
    facts = list(_facts(conn, types, planned))
    counts = [sql.SQL("count(*) FILTER (WHERE {})").format(fact.condition) for fact in facts]
    in_plan = _aggregate(conn, planned, counts)
    in_table = _aggregate(conn, rows, [sql.SQL("count(*)"), *counts])
    found = [
        _pattern(stage.table, operation, fact, planned=count, of=total, present=present, rows=in_table[0])
        for fact, count, present in zip(facts, in_plan, in_table[1:], strict=True)
    ]
    told: list[Pattern] = []
    for pattern in sorted(filter(_is_telling, found), key=lambda each: -each.score):
        # Of several facts about the same rows, or about a column in the same way, the first is enough.
        if not any(_same(pattern, other) for other in told):
            told.append(pattern)
    coded = _coded_columns(conn, rows, sorted({pattern.column for pattern in told}), in_table[0])
    return [each if _is_open(stage.table, each, types, coded) else _hidden(each) for each in told]


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


def _types(stage: Stage) -> dict[str, str]:
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


def _is_open(table: Table, pattern: Pattern, types: Mapping[str, str], coded: Collection[str]) -> bool:
    """Return whether a fact's value may be told: none, of our own column, of a key, an id or a time, or a code."""
    name, type_ = pattern.column, types[pattern.column]
    always = name in (*table.key, *OWN_KINDS) or name.endswith("_id") or type_ in ("boolean", *TIMES)
    if pattern.value is None:
        return True
    return (always or name in coded) and (type_ != "text" or bool(CODE.fullmatch(pattern.value)))


def _hidden(pattern: Pattern) -> Pattern:
    return replace(pattern, value=None, until=None, hidden=True)


def _pattern(
    table: Table,
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
        table=table.name,
        operation=operation,
        kind=fact.kind,
        column=fact.column,
        value=None if fact.value is None else _as_text(fact.value),
        until=None if fact.until is None else _as_text(fact.until),
        planned=planned,
        of=of,
        present=present,
        rows=rows,
        score=_drawn(planned, of, present, rows) - (2 * math.log(of) if fact.kind == "range" else 0),
    )


def _drawn(planned: int, of: int, present: int, rows: int) -> float:
    """Return how unlikely it is that `planned` of `of` rows have the fact if they are drawn from the table by chance.

    It is a natural logarithm. The table has `rows` rows, the drawn ones among them; `present` of them have the fact.
    """
    others = (rows - of, present - planned)
    if min(others) < 0 or others[1] > others[0] or planned * rows <= of * present:
        return 0.0
    exactly = _choices(present, planned) + _choices(rows - present, of - planned) - _choices(rows, of)
    # So many or more: of these numbers, none is more likely than the least.
    return max(0.0, -exactly - math.log(of - planned + 1))


def _choices(of: int, number: int) -> float:
    """Return in how many ways one can choose, as a natural logarithm."""
    return math.lgamma(of + 1) - math.lgamma(number + 1) - math.lgamma(of - number + 1)


def _unlikeliness(planned: int, of: int, present: int, rows: int) -> float:
    """Return how unlikely it is that so many of the planned rows have the fact, as a natural logarithm.

    By chance a row has it as often as `present` of `rows` others (by Chernoff's bound for the binomial distribution).
    """
    # One is added, so that a fact which no other row has is not beyond all measure.
    share, base = planned / of, (present + 1) / (rows + 1)
    if share <= base:
        return 0.0
    other = (1 - share) * math.log((1 - share) / (1 - base)) if share < 1 else 0.0
    return of * (share * math.log(share / base) + other)


def _is_telling(pattern: Pattern) -> bool:
    share = pattern.planned / pattern.of
    others = (pattern.present - pattern.planned) / max(1, pattern.rows - pattern.of)
    return share >= SHARE and share >= LIFT * others and pattern.score >= UNLIKELY


def _same_columns(stage: Stage, names: Mapping[str, sql.Composable]) -> list[Pattern]:
    """Return the fact that the same columns differ in most rows to update, if that is so."""
    table = stage.table
    differs = sql.SQL(", ").join(
        sql.SQL("CASE WHEN t.{0} IS DISTINCT FROM p.{0} THEN {1} END").format(sql.Identifier(name), sql.Literal(name))
        for name in table.compared
    )
    names = dict(names) | {"differs": differs}
    query = sql.SQL(DIFFERING).format(**names)
    total, columns, count = stage.conn.execute(query).fetchone() or (0, [], 0)
    if total < MANY or count < SAME_COLUMNS * total or not columns:
        return []
    how = _how(stage, names, columns[0]) if len(columns) == 1 else None
    return [Pattern(table.name, "update", "columns", ", ".join(columns), how, count, total)]


def _how(stage: Stage, names: Mapping[str, sql.Composable], column: str) -> str | None:
    """Return how a column differs, if alike in all rows: empty on one side, by the same time, or by the same number."""
    type_ = _types(stage)[column]
    by = sql.SQL("p.{0} - t.{0}" if type_ in TIMES else "NULL::interval").format(sql.Identifier(column))
    query = sql.SQL(HOW).format(**names, column=sql.Identifier(column), by=by)
    source_empty, copy_empty, least, most = stage.conn.execute(query).fetchone()
    if source_empty or copy_empty:
        return "which is empty at the source" if source_empty else "which is empty in the copy"
    if least is not None and least == most:
        hours = least.total_seconds() / 3600
        return f"which is {abs(hours):g} h {'later' if hours > 0 else 'earlier'} at the source"
    return _number(stage, names, column) if type_ in NUMBERS else None


def _number(stage: Stage, names: Mapping[str, sql.Composable], column: str) -> str | None:
    """Return by which difference or factor a column of numbers differs, if most rows have the same and not by chance.

    By chance have it those rows whose source is compared with the copy of another row: many, if there are few values.
    """
    key = identifiers(stage.table.key, "t")
    parts = dict(names) | {"column": sql.Identifier(column), "name": sql.Literal(column), "key": key}
    told = []
    for measure, by, planned, of, present, rows in stage.conn.execute(sql.SQL(NUMBER).format(**parts)):
        score = _unlikeliness(planned, of, present, rows)
        if planned >= SAME_COLUMNS * of and planned * rows >= LIFT * present * of and score >= UNLIKELY:
            part = "" if planned == of else f" in {planned} of them"
            told.append((score, f"which is {_by(measure, by)} at the source{part}"))
    # A factor comes before a difference that is as telling.
    return max(told, key=lambda each: each[0])[1] if told else None


def _by(measure: str, by: Decimal) -> str:
    if measure == "difference":
        return f"{_plain(abs(by))} {'more' if by > 0 else 'less'}"
    if by == -1:
        return "of the opposite sign"
    factor = abs(by) if abs(by) > 1 else 1 / abs(by)
    sign = " and of the opposite sign" if by < 0 else ""
    return f"{_plain(Decimal(f'{factor:.8g}'))} times {'larger' if abs(by) > 1 else 'smaller'}{sign}"


def _plain(number: Decimal) -> str:
    """Return a number without an exponent, and without zeros at its end."""
    return f"{number.normalize():f}"


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        return f"{utc:%Y-%m-%d %H:%M}{' UTC' if value.tzinfo else ''}"
    return value.isoformat() if isinstance(value, date) else str(value)


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(1, whole)
    return f"{share:.0f} %" if share >= 1 or part == 0 else "less than 1 %"


# Of a text with slashes, all up to the last one.
FOLDER = "substring({} FROM '^.*/')"

# The planned rows, the rows that they are compared with, and the column of ours that both have.
COPIED = (
    "SELECT {t_columns}, t.sync_id FROM {plan} p JOIN {table} t ON {t_is_p}"
    " WHERE p._operation = {operation} AND p._status = 'confirmed'",
    "SELECT {t_columns}, t.sync_id FROM {table} t WHERE t.deleted_at IS NULL",
    "sync_id",
)
# Rows of page 0 came by look-ups of their own.
LISTED = (
    "SELECT {s_columns}, nullif(s._page, 0) AS _page FROM {plan} p JOIN {stage} s ON {s_is_p}"
    " WHERE p._operation = {operation} AND p._status = 'confirmed'",
    "SELECT {s_columns}, nullif(s._page, 0) AS _page FROM {stage} s",
    "_page",
)

DIFFERING = """
WITH changes AS (
  SELECT array_remove(ARRAY[{differs}]::text[], NULL) AS columns
  FROM {plan} p JOIN {table} t ON {t_is_p} WHERE p._operation = 'update' AND p._status = 'confirmed'
)
SELECT (sum(count(*)) OVER ())::bigint, columns, count(*) FROM changes
GROUP BY columns ORDER BY count(*) DESC, columns LIMIT 1
"""

HOW = """
SELECT bool_and(p.{column} IS NULL), bool_and(t.{column} IS NULL), CASE WHEN count(*) = count({by}) THEN min({by}) END,
  max({by})
FROM {plan} p JOIN {table} t ON {t_is_p}
WHERE p._operation = 'update' AND p._status = 'confirmed' AND t.{column} IS DISTINCT FROM p.{column}
"""

# Of the rows that differ in one column of numbers only. There is no factor where either side is 0, and neither factor
# nor difference where one is empty. A factor of 1 is one that rounding hides.
NUMBER = """
WITH pairs AS (
  SELECT p.{column}::numeric AS source, t.{column}::numeric AS copy,
    lead(t.{column}::numeric) OVER (ORDER BY md5(ROW({key})::text)) AS other
  FROM {plan} p JOIN {table} t ON {t_is_p}
  WHERE p._operation = 'update' AND p._status = 'confirmed'
    AND array_remove(ARRAY[{differs}]::text[], NULL) = ARRAY[{name}]::text[]
), measured AS (
  SELECT measure, amount, chance FROM pairs CROSS JOIN LATERAL (VALUES
    ('factor', round(nullif(source, 0) / nullif(copy, 0), 12), round(nullif(source, 0) / nullif(other, 0), 12)),
    ('difference', source - copy, source - other)
  ) m(measure, amount, chance)
), commonest AS (
  SELECT DISTINCT ON (measure) measure, amount, count(*) AS planned FROM measured
  WHERE abs(amount) < 'Infinity' AND amount <> 0 AND (measure, amount) <> ('factor', 1)
  GROUP BY measure, amount ORDER BY measure DESC, count(*) DESC, amount
)
SELECT c.measure, c.amount, c.planned, count(*), count(*) FILTER (WHERE m.chance = c.amount), count(m.chance)
FROM commonest c JOIN measured m USING (measure)
GROUP BY c.measure, c.amount, c.planned ORDER BY c.measure DESC
"""
