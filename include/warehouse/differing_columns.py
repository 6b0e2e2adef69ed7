"""Find which columns differ in most rows that a plan updates, and in which way.

The columns are named if most of these rows differ in all of them, and nearly all rows differ in no other. A way is:

- empty on one side
- so many hours later or earlier; two numbers an hour apart, where only one side knows summer time
- so many times larger, or so much more
- with a field that only the source sends, such as one that the source has renamed
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from psycopg import sql

from include.warehouse.chance import LIFT, MANY, UNLIKELY, unlikeliness
from include.warehouse.sql_fragments import identifiers, same_key
from include.warehouse.staging import Stage
from include.warehouse.table import EXTRA

INTEGERS = ("integer", "bigint", "smallint")
NUMBERS = (*INTEGERS, "numeric")
TIMES = ("timestamp with time zone", "timestamp without time zone")
# Of the rows to update, this share has to differ in none but the found columns, and by the same number; and this share
# has to differ in all of them.
SAME, ALL = 0.8, 0.5
# No time zones are further apart than this; their offsets are multiples of a quarter of an hour.
FURTHEST, OFFSET = timedelta(hours=26), timedelta(minutes=15)
EMPTY_IN_COPY = "is empty in the copy"
SUMMER_TIME = timedelta(hours=1)
# A field's name as vendors give it; a text that only looks like one may be about a person.
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")


@dataclass(frozen=True)
class Differing:
    """The `columns` that alone differ in `rows` of all `of` rows to update. `how`: in which way, if it is one.

    `empty`: those of the columns that are empty in the copy.
    """

    columns: tuple[str, ...]
    rows: int
    of: int
    how: str | None
    empty: tuple[str, ...] = ()


def find_differing(stage: Stage, types: Mapping[str, str]) -> Differing | None:
    """Return the columns that differ in most of the confirmed updates of a plan; None if these have little in common.

    `types`: the SQL type of each column.
    """
    table = stage.table
    differs = sql.SQL(", ").join(
        sql.SQL("CASE WHEN t.{0} IS DISTINCT FROM p.{0} THEN {1} END").format(sql.Identifier(name), sql.Literal(name))
        for name in table.compared
    )
    parts = {
        "plan": stage.plan,
        "table": table.sql,
        "t_is_p": same_key(table.key, "t", "p"),
        "differs": sql.SQL("array_remove(ARRAY[{}]::text[], NULL)").format(differs),
    }
    found = stage.conn.execute(sql.SQL(DIFFERING).format(**parts)).fetchone()
    if found is None:
        return None
    columns, exactly, within, of = found
    if of < MANY or not columns or exactly < ALL * of or within < SAME * of:
        return None
    parts |= {"columns": sql.Literal(columns)}
    ways = {name: _way(stage, parts, name, types[name]) for name in columns}
    how = _how({name: way for name, way in ways.items() if way}, len(columns))
    return Differing(tuple(columns), within, of, how, tuple(name for name in columns if ways[name] == EMPTY_IN_COPY))


def _how(ways: Mapping[str, str], columns: int) -> str | None:
    """Return the ways of the columns as one clause, None if there are none. `columns`: of how many columns."""
    if len(ways) == columns and len(set(ways.values())) == 1:
        [way] = set(ways.values())
        return f"which {way if columns == 1 else way.replace('is ', 'are ', 1)}"
    return f"of which {', and '.join(f'{name} {way}' for name, way in ways.items())}" if ways else None


def _way(stage: Stage, parts: Mapping[str, sql.Composable], column: str, type_: str) -> str | None:
    """Return in which way a column differs, if it is one way for (nearly) all rows."""
    parts = dict(parts) | {"column": sql.Identifier(column)}
    parts |= {"rows": sql.SQL(ROWS).format(**parts)}
    source_empty, copy_empty = stage.conn.execute(sql.SQL(EMPTY).format(**parts)).fetchone()
    if copy_empty and column != EXTRA:
        return EMPTY_IN_COPY
    if source_empty:
        return "is empty at the source"
    if column == EXTRA and stage.table.keeps_extra:
        return _new_field(stage, parts)
    if type_ in TIMES:
        return _moved(stage, parts)
    return _number(stage, parts, column) if type_ in NUMBERS else None


def _new_field(stage: Stage, parts: Mapping[str, sql.Composable]) -> str | None:
    """Return the field that nearly all rows have at the source only."""
    rows, field, fields = stage.conn.execute(sql.SQL(NEW_FIELD).format(**parts)).fetchone() or (0, "", 0)
    if not rows or fields < SAME * rows or not FIELD.fullmatch(field):
        return None
    return f"has the field {field} at the source only"


def _moved(stage: Stage, parts: Mapping[str, sql.Composable]) -> str | None:
    """Return by how many hours all times differ: by one number, or by two as where one side knows summer time."""
    found = [by for (by,) in stage.conn.execute(sql.SQL(MOVED).format(**parts))]
    if None in found or not (len(found) == 1 or _are_offsets(found)):
        return None
    hours = " or ".join(f"{each:g}" for each in sorted(abs(by.total_seconds() / 3600) for by in found))
    local = ", as if one side took local time for UTC" if len(found) == 2 else ""
    return f"is {hours} h {'later' if found[0] > timedelta(0) else 'earlier'} at the source{local}"


def _are_offsets(found: Sequence[timedelta]) -> bool:
    """Return whether two differences can be those of two time zones, in summer and winter."""
    if len(found) != 2 or found[1] - found[0] != SUMMER_TIME or found[0] < timedelta(0) < found[1]:
        return False
    return all(abs(by) <= FURTHEST and by % OFFSET == timedelta(0) for by in found)


def _number(stage: Stage, parts: Mapping[str, sql.Composable], column: str) -> str | None:
    """Return by which factor or difference a column of numbers differs, if most rows have the same and not by chance.

    What chance would give is measured: the source's value of each row is also compared with the copy of another row. In
    a column with few different values many of these pairs have the same factor too.
    """
    parts = dict(parts) | {"key": identifiers(stage.table.key, "t")}
    telling = []
    for measure, by, planned, of, present, rows in stage.conn.execute(sql.SQL(NUMBER).format(**parts)):
        score = unlikeliness(planned, of, present, rows)
        if planned >= SAME * of and planned * rows >= LIFT * present * of and score >= UNLIKELY:
            part = "" if planned == of else f" in {planned} of them"
            telling.append((score, f"is {_by(measure, by)} at the source{part}"))
    # Of a factor and a difference with the same score the factor is taken: NUMBER returns it first.
    return max(telling, key=lambda each: each[0])[1] if telling else None


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


# The commonest set of columns, how many rows differ in exactly these, and in no others; and how many rows there are.
DIFFERING = """
WITH sets AS (
  SELECT {differs} AS columns, count(*) AS rows
  FROM {plan} p JOIN {table} t ON {t_is_p} WHERE p._operation = 'update' AND p._status = 'confirmed' GROUP BY 1
), commonest AS (
  SELECT columns, rows FROM sets ORDER BY rows DESC, columns LIMIT 1
)
SELECT c.columns, c.rows, (sum(s.rows) FILTER (WHERE s.columns <@ c.columns))::bigint, sum(s.rows)::bigint
FROM commonest c CROSS JOIN sets s GROUP BY c.columns, c.rows
"""

# The rows that differ in this column, and in none but the found columns.
ROWS = """
FROM {plan} p JOIN {table} t ON {t_is_p}
WHERE p._operation = 'update' AND p._status = 'confirmed' AND {differs} <@ {columns}::text[]
  AND t.{column} IS DISTINCT FROM p.{column}
"""

EMPTY = "SELECT bool_and(p.{column} IS NULL), bool_and(t.{column} IS NULL) {rows}"

MOVED = "SELECT DISTINCT p.{column} - t.{column} AS by {rows} ORDER BY by LIMIT 3"

NEW_FIELD = """
WITH sides AS (SELECT p.{column} AS source, coalesce(t.{column}, '{{}}') AS copy {rows})
SELECT (SELECT count(*) FROM sides), field, count(*)
FROM sides CROSS JOIN LATERAL jsonb_object_keys(source) field WHERE NOT copy ? field
GROUP BY field ORDER BY count(*) DESC, field LIMIT 1
"""

# `other` is the copy's value of another row, drawn pseudorandomly. There is no factor if either side is 0, and neither
# factor nor difference if one is empty. A factor of 1 is left out: the true one was lost in rounding.
NUMBER = """
WITH pairs AS (
  SELECT p.{column}::numeric AS source, t.{column}::numeric AS copy,
    lead(t.{column}::numeric) OVER (ORDER BY md5(ROW({key})::text)) AS other
  {rows}
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
