"""Whether a role sees all rows of another application's tables: row level security hides rows without an error.

A row that is hidden looks like one that does not exist. So whoever concludes anything from a row that is not there has
to ask first.
"""

from collections.abc import Sequence

from psycopg import Connection


def hidden(conn: Connection, tables: Sequence[str]) -> list[str]:
    """Return those of the tables of which the connection's role may not see each row."""
    return [table for (table,) in conn.execute(HIDDEN, [list(tables)])]


# A policy that lets the role read everything is enough, unless a restrictive one takes something away again. The role 0
# stands for all.
HIDDEN = """
SELECT name FROM unnest(%s::text[]) WITH ORDINALITY AS asked (name, place) CROSS JOIN LATERAL (
  SELECT bool_or(polpermissive AND pg_get_expr(polqual, polrelid) = 'true') AS all_shown,
    bool_or(NOT polpermissive) AS restricted
  FROM pg_policy WHERE polrelid = name::regclass AND polcmd IN ('r', '*')
    AND EXISTS (SELECT FROM unnest(polroles) role WHERE role = 0 OR pg_has_role(role, 'USAGE'))
) policies
WHERE row_security_active(name) AND (all_shown AND NOT restricted) IS NOT TRUE ORDER BY place
"""
