"""Find out whether planned rows are all rows of some parents, such as all people on several crew calls."""

from collections.abc import Iterator, Sequence

from psycopg import Connection, sql

from include.warehouse.chance import UNLIKELY, choices, drawn
from include.warehouse.patterns import SHARE, Operation, Pattern

# Columns that name a parent.
PARENT = "_id"


def find_whole_parents(
    conn: Connection,
    table: str,
    operation: Operation,
    planned: sql.Composable,
    rows: sql.Composable,
    *,
    names: Sequence[str],
    of: int,
    looked_at: int,
) -> Iterator[Pattern]:
    """Yield the fact that most planned rows are all rows of several parents, by each column that names one.

    `planned`, `rows`: queries, with `of` and `looked_at` rows. Chance may pick any parents, so the more ways there are
    to pick as many, the less a fact tells.
    """
    for name in (name for name in names if name.endswith(PARENT)):
        parts = {"column": sql.Identifier(name), "planned": planned, "rows": rows}
        count, parents = conn.execute(sql.SQL(WHOLE).format(**parts)).fetchone()
        if parents < 2 or count < SHARE * of:
            continue
        (all_parents,) = conn.execute(sql.SQL(PARENTS).format(**parts)).fetchone()
        score = drawn(count, of, count, looked_at) - choices(all_parents, parents)
        if score >= UNLIKELY:
            yield Pattern(table, operation, "parents", name, f"{parents}", count, of, f"{all_parents}", score=score)


WHOLE = """
WITH planned AS (SELECT {column} AS parent, count(*) AS rows FROM ({planned}) q GROUP BY 1),
looked_at AS (
  SELECT {column} AS parent, count(*) AS rows FROM ({rows}) q WHERE {column} IN (SELECT parent FROM planned) GROUP BY 1
)
SELECT coalesce(sum(p.rows), 0)::bigint, count(*) FROM planned p JOIN looked_at l USING (parent) WHERE p.rows >= l.rows
"""

PARENTS = "SELECT count(DISTINCT {column}) FROM ({rows}) q"
