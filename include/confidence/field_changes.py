"""What is known of the fields of a source's records, and what a census finds changed in them. Pure comparison.

The census of a whole scan shows which fields have vanished, and the share of the records with each field. The census of
a sync has few records, perhaps from look-ups or a changes feed: it shows new fields only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

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
        # The first values of an enumeration are no change: with whole=False there are none.
        for code in sorted(kept_codes(before, field, whole=False) - set(before.codes)):
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


def kept_codes(before: KnownField | None, field: FieldCount, *, whole: bool) -> frozenset[str]:
    """Return the values of an enumeration that may be kept; empty if they become too many.

    The first values of a field are kept only after a whole scan in which they are repeated (see REPEATED).
    """
    kept = set(before.codes) if before else set()
    if not kept and not (whole and len(field.codes) * REPEATED <= field.seen):
        return frozenset()
    return field.codes if len(kept | field.codes) <= MAX_CODES else frozenset()
