"""A person is once in a crew call: duplicates are kept in a CSV, all but the oldest go, then a key refuses them.

Verify that none remain (expected: 0 rows):
  SELECT crew_call_id, technician_id, count(*) FROM flex.flex_crew_assignments GROUP BY 1, 2 HAVING count(*) > 1;
"""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from alembic import op
from psycopg import sql

from include.warehouse.unique import deferrable_query, key_query

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

log = logging.getLogger(__name__)

NAME = "flex_crew_assignments_crew_call_technician_key"
TABLE, COLUMNS = "flex.flex_crew_assignments", ("crew_call_id", "technician_id")

# The query finds a row if there is such a key, under whatever name.
KEYED = key_query(TABLE, COLUMNS)

# What has the key's name though it isn't the key: constraints and indexes of the table, and what else is in the schema.
NAMESAKES = """
SELECT 'constraint', pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = %(table)s::regclass AND conname = %(name)s
UNION ALL
SELECT CASE WHEN indrelid = %(table)s::regclass THEN 'index' WHEN indrelid IS NULL THEN 'a relation'
  ELSE 'an index of ' || indrelid::regclass END, pg_get_indexdef(indexrelid)
FROM pg_class c LEFT JOIN pg_index ON indexrelid = c.oid
WHERE relnamespace = 'flex'::regnamespace AND relname = %(name)s
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid AND conrelid = %(table)s::regclass)
"""
RENAME = {
    "constraint": sql.SQL("ALTER TABLE flex.flex_crew_assignments RENAME CONSTRAINT {} TO {}"),
    "index": sql.SQL("ALTER INDEX flex.{} RENAME TO {}"),
}
DROP = sql.SQL("ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT {}")

# What is null names nobody, so it is no duplicate.
PAIRS = sql.SQL("""
SELECT crew_call_id, technician_id FROM flex.flex_crew_assignments
WHERE num_nulls(crew_call_id, technician_id) = 0
GROUP BY crew_call_id, technician_id HAVING count(*) > 1
""")

DUPLICATES = sql.SQL("SELECT EXISTS ({pairs})").format(pairs=PAIRS)

EXPORT = sql.SQL("""
COPY (
  SELECT fca.*, fcc.job_id, fcc.department, p.first_name, p.last_name
  FROM flex.flex_crew_assignments fca
  LEFT JOIN flex.flex_crew_calls fcc ON fca.crew_call_id = fcc.id
  LEFT JOIN flex.profiles p ON fca.technician_id = p.id
  WHERE (fca.crew_call_id, fca.technician_id) IN ({pairs})
  ORDER BY fca.crew_call_id, fca.technician_id, fca.created_at, fca.id
) TO STDOUT WITH CSV HEADER
""").format(pairs=PAIRS)

REMOVE = sql.SQL("""
DELETE FROM flex.flex_crew_assignments WHERE id IN (
  SELECT id FROM (
    SELECT id, row_number() OVER (PARTITION BY crew_call_id, technician_id ORDER BY created_at, id) AS age
    FROM flex.flex_crew_assignments WHERE (crew_call_id, technician_id) IN ({pairs})
  ) rows WHERE age > 1
)
""").format(pairs=PAIRS)

ADD_KEY = """
ALTER TABLE flex.flex_crew_assignments
ADD CONSTRAINT flex_crew_assignments_crew_call_technician_key UNIQUE (crew_call_id, technician_id)
"""

# Where the application had a key of its own, there may be none of this name.
DROP_KEY = """
ALTER TABLE flex.flex_crew_assignments DROP CONSTRAINT IF EXISTS flex_crew_assignments_crew_call_technician_key
"""


def _folder() -> Path:
    named = os.environ.get("WAREHOUSE_EXPORTS")
    return Path(named) if named else Path(os.environ.get("AIRFLOW_HOME", ".")) / "exports"


def _new_file() -> Path:
    """An empty file that only its owner reads. Raises RuntimeError saying what to change."""
    folder = _folder().resolve()
    path = folder / f"flex_crew_duplicates_{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.csv"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
    except OSError as error:
        raise RuntimeError(
            f"flex.flex_crew_assignments has duplicates, which can't be kept in {folder} ({error.strerror}):"
            " set WAREHOUSE_EXPORTS to a folder that can be written, then migrate again"
        ) from error
    return path


def _export(cursor: psycopg.Cursor, path: Path) -> int:
    """Write the duplicates, the rows that stay included; return how many. On disk before any row goes."""
    with path.open("wb") as file:
        with cursor.copy(EXPORT) as copy:
            for block in copy:
                file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return cursor.rowcount


def _remove_duplicates(cursor: psycopg.Cursor) -> None:
    """Leave no file behind where the rows stay."""
    path = _new_file()
    try:
        exported = _export(cursor, path)
        cursor.execute(REMOVE)
        removed = cursor.rowcount
        cursor.execute(ADD_KEY)
    except BaseException:
        path.unlink()
        raise
    log.warning("%d duplicate crew assignments are kept in %s; %d of them were removed", exported, path, removed)


def _drop_deferrable(cursor: psycopg.Cursor) -> None:
    """Drop deferrable keys over the same columns: with one of them no other serves, and the new key is as strict."""
    for name, definition in cursor.execute(deferrable_query(TABLE, COLUMNS)).fetchall():
        cursor.execute(DROP.format(sql.Identifier(name)))
        log.warning("%s of %s was dropped for a key that isn't deferrable: %s", name, TABLE, definition)


def _free_name(cursor: psycopg.Cursor) -> None:
    """Rename what has the key's name. Raises RuntimeError if it belongs to something else than the table."""
    aside = f"{NAME}_{datetime.now(UTC):%Y%m%d%H%M%S}"
    for kind, definition in cursor.execute(NAMESAKES, {"table": TABLE, "name": NAME}).fetchall():
        if kind not in RENAME:
            raise RuntimeError(
                f"the unique key of {TABLE} can't be added, as flex.{NAME} is {kind}, and without the key nothing is"
                " written to Flex: rename or drop that, then migrate again"
            )
        cursor.execute(RENAME[kind].format(sql.Identifier(NAME), sql.Identifier(aside)))
        log.warning("%s of %s isn't its key and is named %s now, drop it if unused: %s", NAME, TABLE, aside, definition)


def upgrade() -> None:
    with op.get_bind().connection.driver_connection.cursor() as cursor:
        # Nobody adds a duplicate between the export and the key.
        cursor.execute("LOCK TABLE flex.flex_crew_assignments IN ACCESS EXCLUSIVE MODE")
        _drop_deferrable(cursor)
        if cursor.execute(KEYED).fetchone():
            return
        _free_name(cursor)
        if cursor.execute(DUPLICATES).fetchone()[0]:
            _remove_duplicates(cursor)
        else:
            cursor.execute(ADD_KEY)


def downgrade() -> None:
    """What was removed is not brought back: the export has it."""
    op.execute(DROP_KEY)
