"""Suspects: the rows that one look can't prove. Those that have waited longest come first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from include.sources.mirror.context import MirrorContext
from include.sources.mirror.extract import Extract
from include.warehouse.sql_fragments import identifiers


@dataclass(frozen=True)
class Suspect:
    """A row that one look can't prove.

    - `by`: the values to look it up by
    - `operation`: what is planned for it; None for a refused row and for a record with suspect nested rows only
    """

    key: tuple
    by: tuple
    operation: str | None


def suspects_of(
    context: MirrorContext, extract: Extract, candidates: sql.Composable, budget: int | None
) -> Mapping[tuple, list[Suspect]]:
    """Return the suspects by the values to look them up by, those that have waited longest first.

    `candidates`: a query for their key, the columns to look them up by, and `_operation`. `budget`: the largest number
    of requests, None for no limit.
    """
    entity, conn = extract.entity, context.conn
    key, by = entity.table.key, entity.lookup.by
    # A column may be in both, so each gets an alias for either use.
    keys, bys = [f"k{n}" for n in range(len(key))], [f"b{n}" for n in range(len(by))]
    names = {
        "keys": identifiers(keys),
        "bys": identifiers(bys),
        "s_keys": identifiers(keys, "s"),
        "s_bys": identifiers(bys, "s"),
        "columns": sql.SQL(", ").join(
            sql.SQL("c.{} AS {}").format(sql.Identifier(column), sql.Identifier(alias))
            for column, alias in zip((*key, *by), (*keys, *bys), strict=True)
        ),
        "key": identifiers(key, "c"),
        "by": identifiers(by, "c"),
        "candidates": candidates,
        "source": sql.Literal(context.source.name),
        "entity": sql.Literal(entity.name),
        "limit": sql.Literal(None if budget is None else budget * entity.lookup.batch),
    }
    found: dict[tuple, list[Suspect]] = {}
    for *values, operation in conn.execute(sql.SQL(WAITING).format(**names)):
        value = tuple(values[len(key) :])
        found.setdefault(value, []).append(Suspect(tuple(values[: len(key)]), value, operation))
    return found


def listed_only(extract: Extract) -> sql.Composable:
    """Return the query for rows that the list alone has proven."""
    return _planned(extract, "_status = 'confirmed' AND _operation <> 'delete' AND NOT _looked")


def _planned(extract: Extract, which: LiteralString) -> sql.Composable:
    """Return the query for planned rows as `suspects_of` takes it. `which`: an SQL condition on the plan."""
    columns = tuple(dict.fromkeys((*extract.entity.table.key, *extract.entity.lookup.by)))
    query = sql.SQL("SELECT {}, _operation FROM {} p WHERE {}")
    return query.format(identifiers(columns, "p"), extract.stage.plan, sql.SQL(which))


def candidates(extract: Extract) -> sql.Composable:
    """Return the query for the suspects: candidates, records with nested candidates, and refused rows with a key."""
    entity, stage = extract.entity, extract.stage
    table = entity.table
    queries = [_planned(extract, "_status = 'candidate'")]
    if entity.lookup.by == table.key:
        queries += [
            sql.SQL("SELECT {}, NULL FROM {} p WHERE _status = 'candidate'").format(
                identifiers(part.by, "p"), each.plan
            )
            for part, each in extract.parts
        ]
        typed = sql.SQL(", ").join(
            sql.SQL("(jsonb_populate_record(NULL::{}, jsonb_object({}::text[], {}))).{}").format(
                table.sql,
                sql.Literal(list(table.key)),
                sql.SQL("ARRAY(SELECT jsonb_array_elements_text(r.key))"),
                sql.Identifier(name),
            )
            for name in table.key
        )
        usable = sql.SQL("jsonb_array_length(r.key) = {} AND r.usable AND NOT (r.looked OR r.mended)").format(
            sql.Literal(len(table.key))
        )
        queries.append(sql.SQL("SELECT {}, NULL FROM {} r WHERE {}").format(typed, stage.refused, usable))
    return sql.SQL(" UNION ALL ").join(queries)


WAITING = """
WITH suspects AS (
  SELECT {columns}, min(c._operation) AS operation, min(u.last_look) AS last_look, min(u.first_seen) AS first_seen
  FROM ({candidates}) c LEFT JOIN confidence.unproven u
    ON u.source = {source} AND u.entity = {entity} AND u.key = jsonb_build_array({key})
  WHERE ({by}) IS NOT NULL GROUP BY {key}, {by}
), asked AS (
  SELECT {bys}, row_number() OVER (ORDER BY min(last_look) NULLS FIRST, min(first_seen) NULLS LAST, {bys}) AS turn
  FROM suspects GROUP BY {bys} ORDER BY turn LIMIT {limit}
)
SELECT {s_keys}, {s_bys}, s.operation FROM suspects s JOIN asked USING ({bys}) ORDER BY asked.turn, {s_keys}
"""
