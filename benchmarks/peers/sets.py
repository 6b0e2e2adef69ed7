"""Comparison by Python sets over server-side cursors."""

from collections.abc import Callable

import psycopg
from psycopg import sql

BATCH = 10_000


def differences(start: Callable[[], None], *, warehouse: str, stage: list[str], copy: list[str]) -> dict[str, int]:
    """Rows to insert, update and delete in table `copy` to make it like table `stage`, each (schema, name)."""
    with psycopg.connect(warehouse) as conn:
        start()
        source, target = (_pairs(conn, sql.Identifier(*table)) for table in (stage, copy))
        ours, theirs = ({key for key, _ in pairs} for pairs in (target, source))
        return {
            "insert": len(theirs - ours),
            "update": len({key for key, _ in source - target} & ours),
            "delete": len(ours - theirs),
        }


def _pairs(conn: psycopg.Connection, table: sql.Identifier) -> set[tuple[int, int]]:
    with conn.cursor(name="pairs") as cursor:
        cursor.itersize = BATCH
        return set(cursor.execute(sql.SQL("SELECT id, row_hash FROM {}").format(table)))
