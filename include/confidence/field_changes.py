"""What is known of the fields of a source's records, and what a census finds changed in them.

The census of a whole scan shows which fields have vanished, and the share of the records with each field. The census of
a sync has few records, perhaps from look-ups or a changes feed: it shows new fields only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from psycopg import Connection
from psycopg.rows import class_row

from include.confidence.census import MAX_CODES, MAX_PATHS
from include.confidence.field_counts import NULL, Counted, FieldCount

# A field has vanished if it was in this share of at least so many objects, and is now in none of as many.
USUAL_SHARE = 0.95
MIN_OBJECTS = 20
# An enumeration is taken for one if each of its values stands in so many records on average: names of people don't.
REPEATED = 4
# The records themselves, as a path.
RECORD = ""


class State(StrEnum):
    """What becomes of a field: it is read, ignored with a reason, or kept in the column `extra`."""

    DECLARED = "declared"
    IGNORED = "ignored"
    KEPT = "kept"


class Kind(StrEnum):
    """What has changed in a field."""

    NEW = "new"
    VANISHED = "vanished"
    BACK = "back"
    RETYPED = "retyped"
    RENAMED = "renamed"
    NEW_CODE = "new_code"


@dataclass(frozen=True)
class KnownField:
    """A field as the warehouse knows it; a row of confidence.field_census.

    `types`: all that were seen, the usual one of the last whole scan first. `objects` and `seen` are those of the last
    whole scan that has seen the field, None before the first.
    """

    entity: str
    path: str
    place: str
    state: State
    types: tuple[str, ...]
    unreadable: tuple[str, ...]
    codes: tuple[str, ...]
    objects: int | None
    seen: int | None
    scanned_at: datetime | None
    vanished_at: datetime | None
    cut: bool
    first_seen: datetime
    last_seen: datetime

    @property
    def share(self) -> float | None:
        """The share of the objects that had the field; None if no whole scan has counted them."""
        return self.seen / self.objects if self.objects and self.seen is not None else None

    @property
    def usual_type(self) -> str:
        """The type that most of its values had; empty if it never had one. Null is no value."""
        return next((name for name in self.types if name != NULL), "")

    @property
    def usual(self) -> bool:
        """Whether nearly all of enough objects had the field."""
        return (self.objects or 0) >= MIN_OBJECTS and (self.share or 0) >= USUAL_SHARE


@dataclass(frozen=True)
class FieldChange:
    """A change in a field. `detail`: the types, the new name, or the new code."""

    kind: Kind
    path: str
    state: State
    detail: str = ""

    def __str__(self) -> str:
        return sentence(self.kind, self.path, self.state, self.detail)


def sentence(kind: str, path: str, state: str, detail: str) -> str:
    """Return a change in plain words."""
    declared = state == State.DECLARED
    fates = {
        State.DECLARED: "it is read",
        State.IGNORED: "it is ignored",
        State.KEPT: "it is kept in extra",
    }
    match Kind(kind):
        case Kind.NEW:
            return f"{path} is new ({detail}); {fates[State(state)]}"
        case Kind.VANISHED:
            return f"{path} is in no record any more" + ("; it was read, and gives no values now" if declared else "")
        case Kind.BACK:
            return f"{path} is there again"
        case Kind.RETYPED:
            return f"{path} has another type: {detail}"
        case Kind.RENAMED:
            return f"{path} looks renamed: {path} -> {detail}; its column gets no values"
        case Kind.NEW_CODE:
            return f"{path} has a new value: {detail}"


def known_fields(conn: Connection, source: str, entity: str) -> dict[str, KnownField]:
    """Return the fields of a table's records that the warehouse knows, by path."""
    with conn.cursor(row_factory=class_row(KnownField)) as cursor:
        rows = cursor.execute(FIELDS + " AND entity = %s", [source, entity]).fetchall()
    return {row.path: _typed(row) for row in rows}


def _typed(row: KnownField) -> KnownField:
    lists = {name: tuple(getattr(row, name)) for name in ("types", "unreadable", "codes")}
    return replace(row, state=State(row.state), **lists)


def find_changes(
    known: Mapping[str, KnownField], counted: Counted, states: Mapping[str, State], *, whole: bool
) -> list[FieldChange]:
    """Return what the census has found changed.

    Before the first whole scan nothing counts as changed: until then nobody knows which fields there are. `states`: of
    each path, counted or known. `whole`: the census is that of a whole scan.
    """
    if RECORD not in known or known[RECORD].scanned_at is None:
        return []
    found = [*_new(known, counted, states), *_changed(known, counted, states, whole=whole)]
    return [*found, *(_vanished(known, counted, states) if whole else ())]


def _new(known: Mapping[str, KnownField], counted: Counted, states: Mapping[str, State]) -> Iterator[FieldChange]:
    """Yield the new fields, without those inside a new object or a new list: the object or list stands for them."""
    for path, field in counted.fields.items():
        outer = path.removesuffix("[]") if path.endswith("[]") else field.place
        if path not in known and (outer == RECORD or outer in known):
            yield FieldChange(Kind.NEW, path, states[path], ", ".join(sorted(field.types)))


def _changed(
    known: Mapping[str, KnownField], counted: Counted, states: Mapping[str, State], *, whole: bool
) -> Iterator[FieldChange]:
    """Yield what has changed in fields that were known."""
    for path, field in counted.fields.items():
        before = known.get(path)
        if before is None:
            continue
        if before.vanished_at and field.seen:
            yield FieldChange(Kind.BACK, path, states[path])
        if detail := _retyped(before, field, whole=whole):
            yield FieldChange(Kind.RETYPED, path, states[path], detail)
        if before.codes:
            for code in sorted(_kept_codes(before, field, whole=False) - set(before.codes)):
                yield FieldChange(Kind.NEW_CODE, path, states[path], code)


def _retyped(before: KnownField, field: FieldCount, *, whole: bool) -> str:
    """Return in words how the types of the field have changed; empty if they have not.

    A change is a type that was never seen, or in a whole scan another usual type. The latter finds a change of type
    that began with a single odd value, since that value's type was seen before.
    """
    old, new = set(before.types) - {NULL}, field.types - {NULL}
    if not old:
        return ""
    if new - old:
        now, earlier = new - old, old
    elif whole and field.usual_type not in ("", before.usual_type):
        now, earlier = {field.usual_type}, {before.usual_type}
    else:
        return ""
    unread = "; that can't be read" if field.unreadable & now else ""
    return f"{', '.join(sorted(now))}, where it was {', '.join(sorted(earlier))}{unread}"


def _vanished(known: Mapping[str, KnownField], counted: Counted, states: Mapping[str, State]) -> Iterator[FieldChange]:
    """Yield the fields that were in nearly all objects, and are in none now."""
    for path, field in known.items():
        # In a smaller part of the objects, most could be those that never had the field.
        enough = max(MIN_OBJECTS, (field.objects or 0) / 2)
        missed = counted.places.get(field.place, 0) >= enough and path not in counted.fields
        excepted = field.vanished_at is not None or path == RECORD or path.endswith("[]")
        if missed and field.usual and not excepted and field.place not in counted.maps:
            yield FieldChange(Kind.VANISHED, path, states[path])


def merge_renames(found: Sequence[FieldChange], pairs: Mapping[str, str]) -> list[FieldChange]:
    """Return the changes, with one change for both fields of each pair {vanished field: new field}."""
    renamed = [FieldChange(Kind.RENAMED, old, State.DECLARED, new) for old, new in pairs.items()]
    kept = [
        each
        for each in found
        if not (each.kind is Kind.VANISHED and each.path in pairs)
        and not (each.kind is Kind.NEW and each.path in pairs.values())
    ]
    return renamed + kept


def limit_fields(known: Mapping[str, KnownField], counted: Counted) -> Counted:
    """Return what was counted, without the new fields that would exceed MAX_PATHS for the table."""
    room = MAX_PATHS - len(known)
    new = [path for path in counted.fields if path not in known]
    if len(new) <= room:
        return counted
    left_out = set(new[max(room, 0) :])
    return replace(counted, fields={k: v for k, v in counted.fields.items() if k not in left_out}, cut=True)


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
            "codes": [_lines(_kept_codes(known.get(each.path), each, whole=whole)) for each in fields],
            "objects": [each.objects for each in fields],
            "seen": [each.seen for each in fields],
        },
    )
    others = [path for path in known if path != RECORD and path not in counted.fields]
    reasons_of_others = [(reasons or {}).get(path, "") for path in others]
    conn.execute(RESTATE, [others, [str(states[path]) for path in others], reasons_of_others, source, entity])
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


def _kept_codes(before: KnownField | None, field: FieldCount, *, whole: bool) -> frozenset[str]:
    """Return the values of an enumeration that may be kept; empty if they become too many.

    Only a whole scan in which the values are repeated can bring the first of them.
    """
    kept = set(before.codes) if before else set()
    if not kept and not (whole and len(field.codes) * REPEATED <= field.seen):
        return frozenset()
    return field.codes if len(kept | field.codes) <= MAX_CODES else frozenset()


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


def _lines(words: Iterable[str]) -> str:
    """Return the words as the lines of a text, since Postgres can't unnest arrays of arrays row by row."""
    return "\n".join(sorted(words))


FIELDS = """
SELECT entity, path, place, state, types, unreadable, codes, objects, seen, scanned_at, vanished_at, cut, first_seen,
  last_seen
FROM confidence.field_census WHERE source = %s
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
