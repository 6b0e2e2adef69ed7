"""The fields of a source's records in the warehouse: confidence.field_census, and their changes, field_change."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from psycopg import Connection
from psycopg.rows import class_row

from include.confidence.field_changes import RECORD, FieldChange, KnownField, State, kept_codes, sentence
from include.confidence.field_counts import Counted, FieldCount


def known_fields(conn: Connection, source: str, entity: str) -> dict[str, KnownField]:
    """Return the fields of a table's records that the warehouse knows, by path."""
    with conn.cursor(row_factory=class_row(KnownField)) as cursor:
        rows = cursor.execute(FIELDS + " AND entity = %s", [source, entity]).fetchall()
    return {row.path: _typed(row) for row in rows}


def lock_census(conn: Connection, source: str) -> None:
    """Wait for whoever stores a census of the source, and keep others waiting until the transaction ends.

    Otherwise each of several tasks that store theirs at the same time would tell the same change.
    """
    conn.execute(LOCK, [source, RECORD])


def _typed(row: KnownField) -> KnownField:
    lists = {name: tuple(getattr(row, name)) for name in ("types", "unreadable", "codes")}
    return replace(row, state=State(row.state), **lists)


def save_census(
    conn: Connection,
    source: str,
    entity: str,
    known: Mapping[str, KnownField],
    counted: Counted,
    states: Mapping[str, State],
    *,
    whole: bool,
    vanished: Iterable[str] = (),
    reasons: Mapping[str, str] | None = None,
) -> None:
    """Store what a census has counted, and update the state of all fields to the present declarations.

    - `known`: the fields before the census
    - `states`: the state of each path, counted or known
    - `vanished`: the fields that this census has found vanished
    - `reasons`: why fields are ignored
    """
    records = FieldCount(RECORD, RECORD, counted.records, counted.records, frozenset({"object"}))
    fields = [records, *counted.fields.values()]
    conn.execute(
        KEEP,
        {
            "source": source,
            "entity": entity,
            "whole": whole,
            "cut": counted.cut,
            "paths": [each.path for each in fields],
            "places": [each.place for each in fields],
            "states": [str(states.get(each.path, State.KEPT)) for each in fields],
            "reasons": [(reasons or {}).get(each.path, "") for each in fields],
            "types": ["\n".join(_kept_types(known.get(each.path), each, whole=whole)) for each in fields],
            "unreadable": [_lines(_newly_unreadable(known.get(each.path), each)) for each in fields],
            "codes": [_lines(kept_codes(known.get(each.path), each, whole=whole)) for each in fields],
            "objects": [each.objects for each in fields],
            "seen": [each.seen for each in fields],
        },
    )
    if others := [path for path in known if path != RECORD and path not in counted.fields]:
        reasons_of_others = [(reasons or {}).get(path, "") for path in others]
        conn.execute(RESTATE, [others, [str(states[path]) for path in others], reasons_of_others, source, entity])
    if vanished:
        conn.execute(VANISH, [source, entity, list(vanished)])
    if counted.maps:
        conn.execute(FORGET, [source, entity, [f"{path}." for path in counted.maps]])


def _newly_unreadable(before: KnownField | None, field: FieldCount) -> set[str]:
    """Return the types that a column can't read and that the field did not have at first.

    If a column could never read some rows, the source has not changed; the refused rows show that.
    """
    if before is None or not before.usual_type:
        return set()
    return {kind for kind in field.unreadable if kind in before.unreadable or kind != before.usual_type}


def _kept_types(before: KnownField | None, field: FieldCount, *, whole: bool) -> list[str]:
    """Return all types that were seen. The usual one of a whole scan comes first."""
    first = [field.usual_type] if whole and field.usual_type else []
    return list(dict.fromkeys([*first, *(before.types if before else ()), *sorted(field.types)]))


def save_changes(conn: Connection, source: str, entity: str, run: str, found: Iterable[FieldChange]) -> None:
    """Store the changes, each a row of confidence.field_change."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO confidence.field_change (source, entity, path, kind, state, detail, run)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(source, entity, each.path, each.kind, each.state, each.detail, run) for each in found],
        )


def found_by(conn: Connection, source: str, run: str) -> list[str]:
    """Return in words the changes of fields that syncs and scans have found since the last scan before `run`.

    These are new, vanished, renamed and retyped fields. Fields whose values the copy loses are left out, because the
    gate names them. Empty if there was no scan before.
    """
    rows = conn.execute(FOUND, {"source": source, "run": run}).fetchall()
    return [f"{entity}: {sentence(*change)}" for entity, *change in rows]


def renamed(conn: Connection, source: str) -> dict[str, str]:
    """Return {`entity.path`: its new path} of the fields that look renamed, and that are not back since."""
    return dict(conn.execute(RENAMED, [source]).fetchall())


def _lines(words: Iterable[str]) -> str:
    """Return the words as the lines of a text, since Postgres can't unnest arrays of arrays row by row."""
    return "\n".join(sorted(words))


FIELDS = """
SELECT entity, path, place, state, types, unreadable, codes, objects, seen, scanned_at, vanished_at, cut, first_seen,
  last_seen
FROM confidence.field_census WHERE source = %s
"""

LOCK = "SELECT FROM confidence.field_census WHERE source = %s AND path = %s ORDER BY entity FOR UPDATE"

RENAMED = """
SELECT entity || '.' || path, f.detail FROM confidence.field_change f
JOIN confidence.field_census c USING (source, entity, path)
WHERE source = %s AND f.kind = 'renamed' AND c.vanished_at IS NOT NULL ORDER BY f.change_id
"""

FOUND = """
SELECT entity, kind, path, state, detail FROM confidence.field_change
WHERE source = %(source)s AND kind IN ('new', 'vanished', 'renamed', 'retyped')
  AND NOT (state = 'declared' AND (kind = 'vanished' OR detail LIKE '%%that can''t be read'))
  AND found_at > (SELECT max(scanned_at) FROM confidence.forensic_run b
    WHERE b.source = %(source)s AND b.scanned_at < (SELECT min(scanned_at) FROM confidence.forensic_run
      WHERE source = %(source)s AND run = %(run)s))
ORDER BY change_id
"""

KEEP = """
INSERT INTO confidence.field_census AS c
  (source, entity, path, place, state, reason, types, unreadable, codes, objects, seen, scanned_at, cut)
SELECT %(source)s, %(entity)s, f.path, f.place, f.state, f.reason, string_to_array(f.types, E'\\n'),
  string_to_array(f.unreadable, E'\\n'), string_to_array(f.codes, E'\\n'),
  CASE WHEN %(whole)s THEN f.objects END, CASE WHEN %(whole)s THEN f.seen END,
  CASE WHEN %(whole)s THEN clock_timestamp() END, f.path = '' AND %(cut)s
FROM unnest(%(paths)s::text[], %(places)s::text[], %(states)s::text[], %(reasons)s::text[], %(types)s::text[],
  %(unreadable)s::text[], %(codes)s::text[], %(objects)s::bigint[], %(seen)s::bigint[])
  AS f (path, place, state, reason, types, unreadable, codes, objects, seen)
WHERE f.seen > 0 OR f.path = ''
ON CONFLICT (source, entity, path) DO UPDATE SET
  state = excluded.state, reason = excluded.reason, place = excluded.place,
  types = ARRAY(SELECT t.type FROM unnest(excluded.types || c.types) WITH ORDINALITY AS t (type, place)
    GROUP BY 1 ORDER BY min(t.place)),
  unreadable = CASE WHEN %(whole)s THEN excluded.unreadable
    ELSE ARRAY(SELECT unnest(c.unreadable || excluded.unreadable) GROUP BY 1 ORDER BY 1) END,
  codes = ARRAY(SELECT unnest(c.codes || excluded.codes) GROUP BY 1 ORDER BY 1),
  objects = coalesce(excluded.objects, c.objects), seen = coalesce(excluded.seen, c.seen),
  scanned_at = coalesce(excluded.scanned_at, c.scanned_at), vanished_at = NULL,
  cut = CASE WHEN %(whole)s THEN excluded.cut ELSE c.cut OR excluded.cut END, last_seen = excluded.last_seen
"""

RESTATE = """
UPDATE confidence.field_census c SET state = n.state, reason = n.reason
FROM unnest(%s::text[], %s::text[], %s::text[]) AS n (path, state, reason)
WHERE c.source = %s AND c.entity = %s AND c.path = n.path AND (c.state, c.reason) IS DISTINCT FROM (n.state, n.reason)
"""

VANISH = """
UPDATE confidence.field_census SET vanished_at = clock_timestamp()
WHERE source = %s AND entity = %s AND path = ANY (%s) AND vanished_at IS NULL
"""

FORGET = """
DELETE FROM confidence.field_census c
WHERE source = %s AND entity = %s
  AND EXISTS (SELECT FROM unnest(%s::text[]) AS m (start) WHERE starts_with(c.path, m.start))
"""
