"""The census of fields: which fields the records of a source have, in which types. Pure counting; it keeps no values.

A record's shape is its keys with the types of their values. Shapes seldom change, so a record costs one look in a
dictionary of shapes; the fields are added up from the shapes later. In a long list not every record is counted: a rare
field is noticed by the sync that brings it.
"""

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from include.confidence.field_counts import NULL, TYPES, Counted, FieldCount, Questions, Reader, Record, value_at
from include.warehouse.field_path import join, places_of

# The first records are all counted, and then each eighth.
ALL_OF, EVERY = 1000, 8
# How many steps into a record fields are counted. No vendor's records nest deeper in what a table could read.
MAX_DEPTH = 4
# The most paths of a table. The census is cut there, and says so.
MAX_PATHS = 500
# Longer names are not kept: Postgres could not index them.
MAX_NAME = 200
# An object with more different keys than this is a map: its keys are data, such as ids, and are not kept.
MAX_KEYS = 50
# So is one with a key like this: an address, a number or an id.
DATA_KEY = re.compile(r"@|\d{5}|[0-9a-fA-F]{8}-|.{65}|(?=[A-Z]*\d)[A-Z0-9]{12}", re.DOTALL)
# Shapes that are remembered for one place before they are added up.
MAX_SHAPES = 1000
# The values of a declared enumeration are kept if they look like words of a vendor and are few.
CODE = re.compile(r"[A-Za-z0-9_ /-]{1,40}")
MAX_CODES = 40
# The figures are saved when the number of records has grown by this share since they were saved last.
SAVED_SHARE = 1 / 4
# The share of a field's values that has its usual type.
USUAL = 0.9
# Records that are held in memory, to compare the values of two fields.
SAMPLE = 50


class _Shape:
    """Objects with the same keys and types: how many, and where further objects stand in them."""

    __slots__ = ("count", "lists", "objects")

    def __init__(self, objects: Sequence[tuple[str, "_Place"]] = (), lists: Sequence[tuple[str, "_Elements"]] = ()):
        self.count = 0
        self.objects = objects
        self.lists = lists


class _Place:
    """Where objects stand in a record: the record itself (an empty path), a field, or the elements of a list.

    `fields`: by key, how often it had each type. `lists`: by the path of the elements of a list in it, how many lists
    had elements of each type. `is_map`: its keys are data, and are not kept.
    """

    __slots__ = ("depth", "fields", "is_map", "lists", "objects", "path", "shapes")

    def __init__(self, path: str, depth: int):
        self.path, self.depth = path, depth
        self.objects, self.is_map = 0, False
        self.fields: dict[str, Counter[str]] = {}
        self.lists: dict[str, Counter[str]] = {}
        self.shapes: dict[tuple, _Shape] = {}

    def add_up(self) -> None:
        """Add the counts of the shapes to the fields, and count them from zero again."""
        for (keys, types), shape in self.shapes.items():
            if not shape.count:
                continue
            self.objects += shape.count
            for key, kind in zip(keys, types, strict=True):
                if key in self.fields:
                    self.fields[key][TYPES.get(kind, "text")] += shape.count
            shape.count = 0


class _Elements:
    """The elements of the lists in one field.

    - `types`: how many lists had elements of each type
    - `place`: where their objects are counted; None for nested rows that have a census of their own
    - `decided`: whether that is known
    """

    __slots__ = ("decided", "depth", "path", "place", "types")

    def __init__(self, path: str, depth: int, types: Counter[str]):
        self.path, self.depth, self.types = path, depth, types
        self.place: _Place | None = None
        self.decided = False


class Census:
    """The census of one table's records, while they are read. `sample`: the first records, in memory only."""

    def __init__(self, questions: Questions | None = None):
        self.questions = questions or Questions()
        self.sample: list[Record] = []
        self._root = _Place("", 0)
        self._places = {"": self._root}
        # The objects in which columns read: their keys are fields, whatever they look like.
        self._read = {"", *(around for path in self.questions.readers for around in places_of(path))}
        self._elements: dict[str, _Elements] = {}
        self._unreadable: dict[str, set[str]] = {}
        self._codes: dict[str, set[str] | None] = {path: set() for path in self.questions.codes}
        self._nested: Collection[Sequence[Record]] = ()
        # How many records were given so far, including those that are not counted.
        self._records = self._records_saved = 0
        # The first that is counted of each EVERY records; another one each night.
        self._turn = random.randrange(EVERY)
        self._paths = 0
        self._cut = False
        # Whether a field, type, code or map was found that is not saved yet.
        self._news = False

    def count(self, records: Sequence[Record], nested_rows: Collection[Sequence[Record]] = ()) -> None:
        """Count the records of a page. `nested_rows`: their nested rows, which have censuses of their own."""
        records = self._chosen(records)
        self._nested = nested_rows
        self._count_objects(self._root, records)
        for path in self._codes:
            self._collect_codes(path, records)
        if len(self.sample) < SAMPLE:
            self.sample += records[: SAMPLE - len(self.sample)]
        self._nested = ()

    def _chosen(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records that are counted."""
        all_of = max(ALL_OF - self._records, 0)
        start = all_of + (self._turn - self._records - all_of) % EVERY
        self._records += len(records)
        return records if len(records) <= all_of else [*records[:all_of], *records[start::EVERY]]

    def counted(self) -> Counted:
        """Return what was counted so far."""
        places = self._places.values()
        for place in places:
            place.add_up()
        fields = {field.path: field for place in places for field in self._fields_at(place)}
        maps = frozenset(self._vendor_path(place.path) for place in places if place.is_map)
        objects = {self._vendor_path(place.path): place.objects for place in places}
        return Counted(objects, fields, maps, self._cut)

    def _fields_at(self, place: _Place) -> Iterator[FieldCount]:
        """Yield the fields of the objects at a place, and the elements of their lists, without fields of our own."""
        fields = {join(place.path, key): types for key, types in place.fields.items()}
        for path, types in (fields | place.lists).items():
            if types and path not in self.questions.added:
                yield self._field(place, path, types)

    def _vendor_path(self, path: str) -> str:
        """Return the path under the vendor's own name, if our readers renamed a field in it (`Questions.aside`)."""
        for name, sent in self.questions.aside.items():
            if path == name or path.startswith((f"{name}.", f"{name}[]")):
                return sent + path.removeprefix(name)
        return path

    def _field(self, place: _Place, path: str, types: Counter[str]) -> FieldCount:
        return FieldCount(
            self._vendor_path(path),
            self._vendor_path(place.path),
            place.objects,
            min(sum(types.values()), place.objects),
            frozenset(types),
            # One odd value is a refused row, and no new type of the field.
            frozenset(kind for kind in self._unreadable.get(path, ()) if 2 * types[kind] >= _values(types)),
            frozenset(self._codes.get(path) or ()),
            _usual_type(types),
        )

    @property
    def is_due(self) -> bool:
        """Whether to save the counts: they have something new, or many more records.

        Saving them with each page would cost more than counting. A later attempt lacks the records that were counted
        after the last save, but none of the fields.
        """
        return self._news or self._records > self._records_saved * (1 + SAVED_SHARE)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain JSON, from which `restore` continues in a later attempt.

        The only values of records in it are those of enumerations; None for an enumeration whose values are not kept.
        """
        self._records_saved, self._news = self._records, False
        # The JSON has no shapes, so their counts are added to the fields first.
        for place in self._places.values():
            place.add_up()
        return {
            "met": self._records,
            "places": [[p.path, p.depth, p.objects, p.is_map, p.fields, p.lists] for p in self._places.values()],
            "unreadable": {path: sorted(types) for path, types in self._unreadable.items()},
            "codes": {path: values and sorted(values) for path, values in self._codes.items()},
            "cut": self._cut,
        }

    def restore(self, data: Mapping[str, Any]) -> Self:
        """Continue from the counts that `to_json` of an earlier attempt returned. Return self."""
        self._records = self._records_saved = data["met"]
        for path, depth, objects, is_map, fields, lists in data["places"]:
            place = self._places.setdefault(path, _Place(path, depth))
            place.objects, place.is_map = objects, is_map
            place.fields = {key: Counter(types) for key, types in fields.items()}
            place.lists = {key: Counter(types) for key, types in lists.items()}
            self._paths += len(fields) + len(lists)
        self._unreadable = {path: set(types) for path, types in data["unreadable"].items()}
        known = {path: values for path, values in data["codes"].items() if path in self._codes}
        self._codes |= {path: None if values is None else set(values) for path, values in known.items()}
        self._cut = data["cut"]
        return self

    def _count_objects(self, place: _Place, records: Iterable[Record]) -> None:
        """Count the objects at a place, and the objects inside them."""
        shapes = place.shapes
        for record in records:
            keys, types = tuple(record), tuple(map(type, record.values()))
            shape = shapes.get((keys, types))
            if shape is None:
                if len(shapes) >= MAX_SHAPES:
                    place.add_up()
                    shapes.clear()
                shape = shapes[keys, types] = self._remember_shape(place, record)
            shape.count += 1
            for key, inner in shape.objects:
                self._count_objects(inner, (record[key],))
            for key, elements in shape.lists:
                if record[key]:
                    self._count_elements(elements, record[key])

    def _count_elements(self, elements: _Elements, values: Sequence[Any]) -> None:
        """Count the elements of a list that is not empty."""
        types = set(map(type, values))
        for name in {TYPES.get(kind, "text") for kind in types}:
            self._news |= name not in elements.types
            elements.types[name] += 1
        if dict not in types:
            return
        if not elements.decided:
            self._find_place(elements, next(each for each in values if type(each) is dict))
        if elements.place:
            self._count_objects(
                elements.place, values if len(types) == 1 else [each for each in values if type(each) is dict]
            )

    def _find_place(self, elements: _Elements, first: Record) -> None:
        """Set the place where the objects of a list are counted. None if they are nested rows, or too deep."""
        elements.decided = True
        nested = any(first.items() <= self._as_sent(row, first).items() for rows in self._nested for row in rows)
        if not nested and elements.depth < MAX_DEPTH:
            elements.place = self._place(elements.path, elements.depth)

    def _as_sent(self, row: Record, first: Record) -> Record:
        """Return a nested row as the vendor sent it: fields that our code renamed have the vendor's names again.

        Fields whose present name `first` has too stay, since our code has then filled in `first` as well.
        """
        return {**row, **{sent: row[name] for name, sent in self.questions.aside.items() if name in row.keys() - first}}

    def _remember_shape(self, place: _Place, record: Record) -> _Shape:
        """Store the keys and types of an object that has a new shape. Return the shape."""
        if place.is_map:
            return _Shape()
        if place.path not in self._read and _holds_data(place, record):
            self._become_map(place)
            return _Shape()
        objects, lists = [], []
        for key, value in record.items():
            path, kind = join(place.path, key), TYPES.get(type(value), "text")
            if key not in place.fields and not self._add_field(place.fields, key):
                continue
            if kind not in place.fields[key]:
                place.fields[key][kind] = 0
                self._news = True
                self._check_reader(path, kind, value)
            if path in self.questions.opaque:
                continue
            if kind == "object" and place.depth + 1 < MAX_DEPTH:
                objects.append((key, self._place(path, place.depth + 1)))
            elif kind == "list" and (elements := self._elements_of(place, f"{path}[]")):
                lists.append((key, elements))
        return _Shape(objects, lists)

    def _add_field(self, fields: dict[str, Counter[str]], name: str) -> bool:
        """Add a field to those of a place; return False if there are too many paths, or Postgres can't store it."""
        if self._paths >= MAX_PATHS or len(name) > MAX_NAME or "\0" in name:
            self._cut = True
            return False
        self._paths += 1
        fields[name] = Counter()
        return True

    def _place(self, path: str, depth: int) -> _Place:
        return self._places.setdefault(path, _Place(path, depth))

    def _elements_of(self, place: _Place, path: str) -> _Elements | None:
        """Return where the elements of the list are counted; None if there are too many paths."""
        if path not in self._elements:
            if path not in place.lists and not self._add_field(place.lists, path):
                return None
            self._elements[path] = _Elements(path, place.depth + 1, place.lists[path])
        return self._elements[path]

    def _check_reader(self, path: str, kind: str, value: Any) -> None:
        """Store the type as unreadable if the column of this path can't read its first value."""
        read = self.questions.readers.get(path)
        if read and not _can_read(read, value):
            self._unreadable.setdefault(path, set()).add(kind)

    def _become_map(self, place: _Place) -> None:
        """Mark a place as a map: drop its keys, and everything inside them."""
        inside = [path for path in self._places if path.startswith(f"{place.path}.")]
        self._paths -= sum(len(each.fields) + len(each.lists) for each in (place, *map(self._places.get, inside)))
        place.fields, place.lists = {}, {}
        place.add_up()
        place.shapes.clear()
        for path in inside:
            del self._places[path]
        self._elements = {k: v for k, v in self._elements.items() if not k.startswith(f"{place.path}.")}
        place.is_map = self._news = True

    def _collect_codes(self, path: str, records: Sequence[Record]) -> None:
        """Store the values of an enumeration. Drop them all if one does not look like a code, or there are too many."""
        values = self._codes[path]
        for record in records:
            if values is None:
                return
            value = value_at(record, path)
            if type(value) is not str or value in values:
                continue
            if not CODE.fullmatch(value) or len(values) >= MAX_CODES:
                values = self._codes[path] = None
            else:
                values.add(value)
            self._news = True


def _can_read(read: Reader, value: Any) -> bool:
    """Return whether the column's reader keeps the value.

    It doesn't if it raises an error, or makes NULL of a value that is not empty, as the reader of ids does of texts.
    """
    try:
        return read(value) is not None or not value
    except ValueError:
        return False


def _usual_type(types: Counter[str]) -> str:
    """Return the type of nearly all values; empty if there is none. Null is no value.

    A simple majority would not do: if a field alternates between two types, its usual type would flip with each scan.
    """
    return next((name for name, count in types.items() if name != NULL and count > USUAL * _values(types)), "")


def _values(types: Counter[str]) -> int:
    """Return how many values there were, without null."""
    return types.total() - types[NULL]


def _holds_data(place: _Place, record: Record) -> bool:
    """Return whether the keys of an object are data, such as ids: there are too many, or one looks like data."""
    return len(place.fields.keys() | record.keys()) > MAX_KEYS or any(map(DATA_KEY.search, record))
