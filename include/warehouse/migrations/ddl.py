"""What every mirrored table has besides its own columns, and what a source may add to it."""

from collections.abc import Collection, Mapping, Sequence

from alembic import op


def create_mirror(
    schema: str,
    name: str,
    key: Mapping[str, str],
    columns: Mapping[str, str],
    *,
    computed: Mapping[str, tuple[str, str]] | None = None,
    constraints: Sequence[str] = (),
    unhashed: Collection[str] = (),
) -> None:
    """Create `schema.name` with `key` and data `columns` (name -> SQL type) and the mirror's own columns.

    `computed`: stored columns that Postgres computes from those (name -> type and expression); nobody writes them.
    `constraints`: what else the table has to keep, as SQL. `unhashed`: columns that the source leaves out at times, by
    which no two rows differ.

    `row_hash` is computed by Postgres from the typed values, so 95.0 and 95.00 are the same row, and a row that is
    edited by hand changes its hash too. The extended hash functions are the ones that hash partitioning rests on,
    which is why Postgres keeps their results stable across versions. `sync_id` has no foreign key: it would double the
    cost of a first load, and the merge is the only place that writes it.
    """
    definitions = [f'"{column}" {type_} NOT NULL' for column, type_ in key.items()]
    definitions += [f'"{column}" {type_}' for column, type_ in columns.items()]
    definitions += [
        f'"{column}" {type_} GENERATED ALWAYS AS ({expression}) STORED'
        for column, (type_, expression) in (computed or {}).items()
    ]
    content = ", ".join(hashed(column, type_) for column, type_ in columns.items() if column not in unhashed)
    definitions += [
        f"row_hash bigint GENERATED ALWAYS AS (hash_record_extended(ROW({content}), 0)) STORED",
        "deleted_at timestamptz",
        "sync_id bigint NOT NULL",
        "PRIMARY KEY ({})".format(", ".join(f'"{column}"' for column in key)),
        *constraints,
    ]
    op.execute(f'CREATE TABLE "{schema}"."{name}" (\n  ' + ",\n  ".join(definitions) + "\n)")


def foreign_key(columns: str, references: str, *, cascade: bool = False) -> str:
    """Return the constraint that `columns` name a row of `references` (`schema.table (columns)`).

    It holds at the end of a transaction, in which tables may be written in any order. `cascade`: where that row is
    removed, tombstones aren't meant, so are those that name it.
    """
    removal = " ON DELETE CASCADE" if cascade else ""
    return f"FOREIGN KEY ({columns}) REFERENCES {references}{removal} DEFERRABLE INITIALLY DEFERRED"


def create_role(name: str) -> None:
    """Create a role that nobody logs in as, unless there is one.

    Roles are the whole server's: another database may be migrated at the same moment, or have brought it long ago.
    """
    op.execute(
        f"""DO $$ BEGIN
          IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN CREATE ROLE "{name}" NOLOGIN; END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$"""
    )


def drop_role(name: str) -> None:
    """Drop a role unless others are its members or another database has given it something."""
    op.execute(
        f"""DO $$ BEGIN
          IF NOT EXISTS (SELECT FROM pg_auth_members
                         WHERE roleid = '"{name}"'::regrole AND member <> current_user::regrole) THEN
            DROP ROLE "{name}";
          END IF;
        EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
        END $$"""
    )


def allow(schema: str, name: str, role: str, privileges: str, rows: str) -> None:
    """Let the role do this with those rows of a table for which the condition `rows` holds.

    From then on everyone but the table's owner needs such a policy.
    """
    op.execute(f'ALTER TABLE "{schema}"."{name}" ENABLE ROW LEVEL SECURITY')
    op.execute(f'CREATE POLICY "{role}" ON "{schema}"."{name}" TO "{role}" USING ({rows})')
    op.execute(f'GRANT {privileges} ON "{schema}"."{name}" TO "{role}"')


def hashed(column: str, type_: str) -> str:
    """Return what of a column goes into the hash, so that different values differ in it.

    Postgres leaves out a number's sign (5 and -5 are the same to it) and the nesting of JSON ({} is the same as null).
    """
    if type_.startswith("numeric"):
        return f'"{column}", "{column}" < 0'
    if type_ == "jsonb":
        return f'"{column}"::text'
    return f'"{column}"'
