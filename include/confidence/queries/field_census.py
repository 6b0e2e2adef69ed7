"""Read the census of fields, for pages and endpoints."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from include.confidence.field_changes import RECORD, sentence
from include.confidence.queries.paging import PAGE, Page, decode_cursor, fetch_rows, make_page


@dataclass(frozen=True)
class SourceField:
    """A field of a table's records.

    - `state`: `declared` if the field or something in it is read, `ignored` for the `reason`, or `kept` in the column
      `extra`. If no table has the records, the reason also says what a field is read for.
    - `types`: all that were seen; `unreadable`: those among them that can't be read
    - `share`: of the objects that could have it, in the last whole scan that has seen it; None before the first
    - `codes`: the values of a declared enumeration, empty for all other fields
    - `vanished_at`: the first whole scan that has seen it in no record; None if it is there
    - `is_new`: told as new in the last 30 days
    """

    path: str
    state: str
    reason: str
    types: tuple[str, ...]
    unreadable: tuple[str, ...]
    share: float | None
    objects: int | None
    codes: tuple[str, ...]
    vanished_at: datetime | None
    first_seen: datetime
    last_seen: datetime
    is_new: bool


@dataclass(frozen=True)
class EntityFields:
    """The fields of a table's records.

    - `records`: how many the last whole scan has counted, at `scanned_at`; both None before the first
    - `declared`, `ignored`, `kept`, `vanished`, `new`: how many fields are so. The first three add up to all.
    - `cut`: there were more fields than are kept
    """

    entity: str
    records: int | None
    scanned_at: datetime | None
    cut: bool
    declared: int
    ignored: int
    kept: int
    vanished: int
    new: int
    fields: tuple[SourceField, ...]


@dataclass(frozen=True)
class TotalFields:
    """How many fields the records of some tables have: `declared`, `ignored` and `kept` add up to `fields`."""

    fields: int
    declared: int
    ignored: int
    kept: int


@dataclass(frozen=True)
class FoundChange:
    """A change in a field, told once. `text` says it in words."""

    change_id: int
    entity: str
    path: str
    kind: str
    state: str
    detail: str
    text: str
    run: str
    found_at: datetime


def read_fields(conn: Connection, source: str, entity: str | None = None) -> list[EntityFields]:
    """Return the fields of each table of the source, by name; of `entity` only, if it is given."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(FIELDS, [source]).fetchall()
    return [
        _entity_fields(name, list(fields))
        for name, fields in groupby(rows, key=lambda row: row["entity"])
        if entity in (None, name)
    ]


def total_fields(entities: Collection[EntityFields]) -> TotalFields:
    """Return the fields of all these tables together."""
    return TotalFields(
        sum(len(each.fields) for each in entities),
        *(sum(getattr(each, state) for each in entities) for state in ("declared", "ignored", "kept")),
    )


def _entity_fields(entity: str, rows: list[Mapping[str, Any]]) -> EntityFields:
    records = next((row for row in rows if row["path"] == RECORD), None) or {}
    fields = tuple(_field(row) for row in rows if row["path"] != RECORD)
    return EntityFields(
        entity=entity,
        records=records.get("seen"),
        scanned_at=records.get("scanned_at"),
        cut=records.get("cut", False),
        **{state: sum(field.state == state for field in fields) for state in ("declared", "ignored", "kept")},
        vanished=sum(field.vanished_at is not None for field in fields),
        new=sum(field.is_new for field in fields),
        fields=fields,
    )


def _field(row: Mapping[str, Any]) -> SourceField:
    same = ("path", "state", "reason", "objects", "vanished_at", "first_seen", "last_seen", "is_new")
    return SourceField(
        **{name: row[name] for name in same},
        **{name: tuple(row[name]) for name in ("types", "unreadable", "codes")},
        share=row["seen"] / row["objects"] if row["objects"] else None,
    )


def list_field_changes(
    conn: Connection,
    source: str,
    *,
    entity: str | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> Page[FoundChange]:
    """Return a page of the changes in the source's fields, newest first. Raises CursorRefused."""
    filters = [("source = %s", source)]
    filters += [("entity = %s", entity)] if entity else []
    filters += [("found_at >= %s", since)] if since else []
    filters += [("change_id < %s", *decode_cursor(cursor, int))] if cursor else []
    rows = fetch_rows(conn, CHANGES, filters, "change_id DESC", limit)
    changes = [FoundChange(**row, text=sentence(row["kind"], row["path"], row["state"], row["detail"])) for row in rows]
    return make_page(changes, limit, lambda change: [change.change_id])


CHANGES = sql.SQL("SELECT change_id, entity, path, kind, state, detail, run, found_at FROM confidence.field_change")

FIELDS = """
SELECT f.*, EXISTS (
  SELECT FROM confidence.field_change c
  WHERE c.source = f.source AND c.entity = f.entity AND c.path = f.path AND c.kind = 'new'
    AND c.found_at > now() - interval '30 days') AS is_new
FROM confidence.field_census f WHERE source = %s ORDER BY entity, path
"""
