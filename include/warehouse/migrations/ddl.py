"""What every mirrored table has besides its own columns."""

from collections.abc import Mapping

from alembic import op


def create_mirror(schema: str, name: str, key: Mapping[str, str], columns: Mapping[str, str]) -> None:
    """Create `schema.name` with `key` and data `columns` (name -> SQL type) and the mirror's own columns.

    `row_hash` is computed by Postgres from the typed values, so 95.0 and 95.00 are the same row, and a row that is
    edited by hand changes its hash too. The extended hash functions are the ones that hash partitioning rests on,
    which is why Postgres keeps their results stable across versions. `sync_id` has no foreign key: it would double the
    cost of a first load, and the merge is the only place that writes it.
    """
    definitions = [f'"{column}" {type_} NOT NULL' for column, type_ in key.items()]
    definitions += [f'"{column}" {type_}' for column, type_ in columns.items()]
    hashed = ", ".join(_hashed(column, type_) for column, type_ in columns.items())
    definitions += [
        f"row_hash bigint GENERATED ALWAYS AS (hash_record_extended(ROW({hashed}), 0)) STORED",
        "deleted_at timestamptz",
        "sync_id bigint NOT NULL",
        "PRIMARY KEY ({})".format(", ".join(f'"{column}"' for column in key)),
    ]
    op.execute(f'CREATE TABLE "{schema}"."{name}" (\n  ' + ",\n  ".join(definitions) + "\n)")


def _hashed(column: str, type_: str) -> str:
    """What of a column goes into the hash, so that different values differ in it.

    Postgres leaves out a number's sign (5 and -5 are the same to it) and the nesting of JSON ({} is the same as null).
    """
    if type_.startswith("numeric"):
        return f'"{column}", "{column}" < 0'
    if type_ == "jsonb":
        return f'"{column}"::text'
    return f'"{column}"'
