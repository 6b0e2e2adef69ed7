"""Comparison by reladiff, as between two databases: checksums of ever smaller ranges of keys."""

from collections.abc import Callable

from reladiff import Algorithm, connect_to_table, diff_tables


def differences(start: Callable[[], None], *, warehouse: str, stage: list[str], copy: list[str]) -> dict[str, int]:
    """Rows to insert, update and delete in table `copy` to make it like table `stage`, each (schema, name)."""
    tables = [connect_to_table(warehouse, tuple(name), ("id",), extra_columns=("row_hash",)) for name in (stage, copy)]
    start()
    found: dict[str, set[str]] = {"+": set(), "-": set()}
    for sign, (key, _) in diff_tables(*tables, algorithm=Algorithm.HASHDIFF):
        found[sign].add(key)
    return {
        "insert": len(found["-"] - found["+"]),
        "update": len(found["-"] & found["+"]),
        "delete": len(found["+"] - found["-"]),
    }
