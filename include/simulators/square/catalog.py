"""The catalog with its past, so that a crawl sees one state of it however long it takes."""

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator

from include.simulators.square.assortment import Row
from include.simulators.square.clock import instant

TOP_LEVEL = ("ITEM", "CATEGORY", "TAX", "DISCOUNT", "MEASUREMENT_UNIT")
DATA = {
    "ITEM": "item_data",
    "CATEGORY": "category_data",
    "ITEM_VARIATION": "item_variation_data",
    "TAX": "tax_data",
    "DISCOUNT": "discount_data",
    "MEASUREMENT_UNIT": "measurement_unit_data",
}
_OUTSIDE = frozenset({"present_at_all_locations", "present_at_location_ids", "absent_at_location_ids", "is_deleted"})


class Catalog:
    """Objects by id, each as the list of what it was: pairs of version and row, None for one that left no trace.

    An item's row has no variations in it; they're put in where it is shown.
    """

    def __init__(self, objects: Iterable[Row]) -> None:
        self.before: dict[str, Row | None] = {}
        """Objects as they were before their last change, None where they were not there."""
        self._past: dict[str, list[tuple[int, Row | None]]] = {row["id"]: [(row["version"], row)] for row in objects}
        self._ids = sorted(self._past)
        self.latest = max((past[-1][0] for past in self._past.values()), default=0)
        self._variations: dict[str, list[str]] = {}
        for row_id in self._ids:
            self._note_variation(row_id)

    def at(self, row_id: str, moment: int) -> Row | None:
        """An object as it was at an instant (a version), as the vendor shows it; None where it wasn't."""
        row = self._bare(row_id, moment)
        return row and self._shown(row, moment)

    def now(self, row_id: str) -> Row | None:
        """An object as it is."""
        return self.at(row_id, self.latest)

    def ids(self, kind: str) -> list[str]:
        """Ids of the objects of a type that are not deleted."""
        return [row["id"] for row in self._rows(self.latest) if row["type"] == kind and not row["is_deleted"]]

    def select(self, types: Iterable[str], moment: int, after: int, *, deleted: bool) -> list[str]:
        """Ids of the objects of these types as of `moment`, of those changed after `after`."""
        wanted = frozenset(types)
        return [
            row["id"]
            for row in self._rows(moment)
            if row["type"] in wanted and row["version"] > after and (deleted or not row["is_deleted"])
        ]

    def related(self, rows: Iterable[Row], moment: int) -> list[Row]:
        """The objects that others name, without those others."""
        named = {row_id: None for row in rows for row_id in _named(row)}
        found = (self.at(row_id, moment) for row_id in named if row_id not in {row["id"] for row in rows})
        return [row for row in found if row and not row["is_deleted"]]

    def put(self, row: Row, moment: int) -> None:
        """Insert an object, or give it a new version."""
        self._append(row["id"], self._after(row["id"], moment), row)

    def change(self, row_id: str, fields: Row, moment: int, *, silent: bool) -> None:
        """Change fields of an object, of its data unless they lie outside; `silent` keeps version and `updated_at`.

        Raises KeyError where no such object lives.
        """
        row = self._bare(row_id, self.latest)
        if row is None:
            raise KeyError(f"the catalog has no object {row_id}")
        data = DATA[row["type"]]
        outside = {name: value for name, value in fields.items() if name in _OUTSIDE}
        inside = {name: value for name, value in fields.items() if name not in _OUTSIDE}
        row = row | outside | {data: row[data] | inside}
        if silent:
            self.before[row_id] = self.now(row_id)
            self._past[row_id][-1] = self._past[row_id][-1][0], row
        else:
            self._append(row_id, self._after(row_id, moment), row)

    def delete(self, row_id: str, moment: int, *, tombstone: bool, cascade: bool) -> None:
        """Delete an object; an item's variations go with it, as tombstones of their own where `cascade`.

        Without `tombstone` the object is just gone. Raises KeyError where no such object lives.
        """
        row = self._bare(row_id, self.latest)
        if row is None or row["is_deleted"]:
            raise KeyError(f"the catalog has no object {row_id}")
        version = self._after(row_id, moment)
        for child in list(self._variations.get(row_id, ())) if row["type"] == "ITEM" else ():
            if alive := self._bare(child, self.latest):
                self._append(child, version, alive | {"is_deleted": True} if tombstone and cascade else None)
        self._append(row_id, version, row | {"is_deleted": True} if tombstone else None)

    def _append(self, row_id: str, version: int, row: Row | None) -> None:
        """Add a version of an object to its past. `row`: None if the object no longer exists."""
        self.before[row_id] = self.now(row_id)
        if row_id not in self._past:
            insort(self._ids, row_id)
        row = row and row | {"version": version, "updated_at": instant(version)}
        self._past.setdefault(row_id, []).append((version, row))
        self.latest = max(self.latest, version)
        self._note_variation(row_id)

    def _note_variation(self, row_id: str) -> None:
        """If the object is a variation, note it with its item. An item keeps the variations that it had before."""
        row = self._past[row_id][-1][1]
        if row and row["type"] == "ITEM_VARIATION":
            children = self._variations.setdefault(row["item_variation_data"]["item_id"], [])
            if row_id not in children:
                children.append(row_id)

    def _after(self, row_id: str, moment: int) -> int:
        """A version for now that is higher than the object's last."""
        past = self._past.get(row_id)
        return max(moment, past[-1][0] + 1) if past else moment

    def _bare(self, row_id: str, moment: int) -> Row | None:
        past = self._past.get(row_id, ())
        place = bisect_right(past, moment, key=lambda entry: entry[0])
        return past[place - 1][1] if place else None

    def _rows(self, moment: int) -> Iterator[Row]:
        if moment >= self.latest:
            return (row for past in map(self._past.get, self._ids) if (row := past[-1][1]))
        return (row for row_id in self._ids if (row := self._bare(row_id, moment)))

    def _shown(self, row: Row, moment: int) -> Row:
        if row["type"] != "ITEM":
            return row
        children = (self._bare(child, moment) for child in self._variations.get(row["id"], ()))
        alive = [
            child
            for child in children
            if child and not child["is_deleted"] and child["item_variation_data"]["item_id"] == row["id"]
        ]
        return row | {"item_data": row["item_data"] | {"variations": alive}} if alive else row


def _named(row: Row) -> Iterator[str]:
    data = row[DATA[row["type"]]]
    yield from (data[name] for name in ("item_id", "category_id", "measurement_unit_id") if name in data)
    yield from (data[name]["id"] for name in ("reporting_category", "parent_category") if name in data)
    yield from (category["id"] for category in data.get("categories", ()))
    yield from data.get("tax_ids", ())
