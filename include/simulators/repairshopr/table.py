"""The live rows of one resource: the base rows, what was written since, and the lists over both."""

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Self

from include.simulators.repairshopr.data import ID_STEP, LINE_PARENTS, Shop
from include.simulators.repairshopr.values import Row

BLOCK = 7  # rows; divides no page size of the vendor, so that blocks lie across page boundaries


@dataclass(frozen=True)
class Selection:
    """The ids of a list: `ids` forwards or backwards, or locally permuted by a non-zero `shuffle`."""

    ids: Sequence[int]
    backwards: bool = False
    shuffle: int = 0

    def page(self, number: int, size: int) -> list[int]:
        """The ids on a page (from 1); none past the end."""
        start, end = (number - 1) * size, min(number * size, len(self.ids))
        if self.shuffle:
            return [self.ids[self._shuffled(place)] for place in range(start, end)]
        if self.backwards:
            start, end = len(self.ids) - end, len(self.ids) - start
            return list(self.ids[max(start, 0) : max(end, 0)])[::-1]
        return list(self.ids[start:end])

    def _shuffled(self, place: int) -> int:
        block = place - place % BLOCK
        if block + BLOCK > len(self.ids):
            return place
        return block + (place + self.shuffle) % BLOCK


class _View:
    """The ids of the rows that `holds` accepts, kept in the order of `key` while rows come and go."""

    def __init__(self, ids: Iterable[int], key: Callable[[int], Any], holds: Callable[[int], bool]) -> None:
        self._key, self._holds = key, holds
        self.ids = array("q", sorted(filter(holds, ids), key=key))

    def add(self, row_id: int) -> None:
        if self._holds(row_id):
            insort(self.ids, row_id, key=self._key)

    def discard(self, row_id: int) -> None:
        place = bisect_left(self.ids, self._key(row_id), key=self._key)
        if place < len(self.ids) and self.ids[place] == row_id:
            del self.ids[place]


def _sortable(value: object) -> tuple[int, Any]:
    """Values of one JSON field in a total order: null, then numbers, then texts."""
    if value is None:
        return 0, 0
    return (2, value) if isinstance(value, str) else (1, value)


class Table:
    """The live rows of one resource."""

    def __init__(self, name: str, shop: Shop) -> None:
        self.name = name
        self._shop = shop
        self._written: dict[int, Row] = {}
        self._ids = array("q", shop.ids(name))
        self._views: dict[tuple[str, str | None], _View] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    def __contains__(self, row_id: object) -> bool:
        if not isinstance(row_id, int):
            return False
        place = bisect_left(self._ids, row_id)
        return place < len(self._ids) and self._ids[place] == row_id

    def get(self, row_id: int) -> Row | None:
        """The row of an id, or None when no such row lives. The row is not to be changed in place."""
        return self.row(row_id) if row_id in self else None

    def row(self, row_id: int) -> Row:
        """The row of an id that is known to live."""
        return self._written.get(row_id) or self._shop.row(self.name, row_id)

    def put(self, row: Row) -> None:
        """Insert the row, or replace the one with its id."""
        self.remove(row["id"])
        self._written[row["id"]] = row
        insort(self._ids, row["id"])
        for view in self._views.values():
            view.add(row["id"])

    def remove(self, row_id: int) -> None:
        """Forget a row; one that doesn't live is no error."""
        if row_id not in self:
            return
        for view in self._views.values():
            view.discard(row_id)
        del self._ids[bisect_left(self._ids, row_id)]
        self._written.pop(row_id, None)

    def load(self, rows: Sequence[Row]) -> None:
        """Replace the whole content by exactly these rows. Raises ValueError for an id that is no number."""
        if not all(isinstance(row.get("id"), int) for row in rows):
            raise ValueError(f"rows of {self.name} need integer ids: script pages to send others")
        self._views.clear()
        self._written = {row["id"]: row for row in rows}
        self._ids = array("q", sorted(self._written))

    def written(self) -> Sequence[int]:
        """Ids of the live rows that are no longer as the seed made them."""
        return tuple(self._written)

    def next_id(self) -> int:
        """An id above all that live."""
        return self._ids[-1] + ID_STEP if self._ids else self._shop.ids(self.name).start

    def free_id(self, start: int, step: Literal[1, -1]) -> int:
        """The unused id nearest to `start` in one direction."""
        return next(row_id for row_id in count(start + step, step) if row_id not in self)

    def ids(self, order: str = "id", having: str | None = None) -> Sequence[int]:
        """Ids ascending by a field, then by id; with `having` only of rows where that field isn't null."""
        if (order, having) == ("id", None):
            return self._ids
        if (order, having) not in self._views:
            self._views[order, having] = _View(self._ids, self._key(order), self._holds(having))
        return self._views[order, having].ids

    def since(self, instant_text: str) -> Sequence[int]:
        """Ids of the rows updated at or after an instant, in ascending order of `updated_at`."""
        first = ((2, instant_text), 0)
        ids = self.ids("updated_at")
        return ids[bisect_left(ids, first, key=self._key("updated_at")) :]

    def _key(self, order: str) -> Callable[[int], Any]:
        if order == "id":
            return int
        if order == "updated_at":
            return lambda row_id: (_sortable(self._updated_at(row_id)), row_id)
        return lambda row_id: (_sortable(self.row(row_id).get(order)), row_id)

    def _updated_at(self, row_id: int) -> str | None:
        if row_id in self._written:
            return self._written[row_id].get("updated_at")
        return self._shop.updated_at(self.name, row_id)

    def _holds(self, having: str | None) -> Callable[[int], bool]:
        if having is None:
            return lambda _: True
        return lambda row_id: self.row(row_id).get(having) is not None

    def frozen(self) -> Self:
        """A copy that later changes leave alone."""
        twin = copy(self)
        twin._written, twin._ids, twin._views = dict(self._written), self._ids[:], {}
        return twin


class LineTable(Table):
    """The lines, which are also found by the invoice or estimate they belong to."""

    def __init__(self, name: str, shop: Shop) -> None:
        super().__init__(name, shop)
        self._from_shop = True
        self._owned: dict[tuple[str, int], list[int]] = {}  # only of owners whose lines were written

    def of(self, owner: str, owner_id: int) -> Sequence[int]:
        """Ids of the lines of an invoice or estimate (`owner` is the resource), ascending."""
        if (owner, owner_id) in self._owned:
            return self._owned[owner, owner_id]
        return self._shop.line_ids(owner, owner_id) if self._from_shop else ()

    def put(self, row: Row) -> None:
        super().put(row)
        for owned in self._owned_by(row):
            insort(owned, row["id"])

    def remove(self, row_id: int) -> None:
        row = self.get(row_id)
        super().remove(row_id)
        for owned in self._owned_by(row or {}):
            owned.remove(row_id)

    def frozen(self) -> Self:
        twin = super().frozen()
        twin._owned = {owner: list(lines) for owner, lines in self._owned.items()}
        return twin

    def load(self, rows: Sequence[Row]) -> None:
        super().load(rows)
        self._from_shop = False
        self._owned.clear()
        for row in rows:
            for owned in self._owned_by(row):
                insort(owned, row["id"])

    def _holds(self, having: str | None) -> Callable[[int], bool]:
        # Asking the shop saves making the rows, which takes seconds for a million.
        written = super()._holds(having)
        if having not in LINE_PARENTS.values():
            return written
        return lambda line_id: (
            written(line_id) if line_id in self._written else LINE_PARENTS[self._shop.line_owner(line_id)[0]] == having
        )

    def _owned_by(self, row: Row) -> Iterator[list[int]]:
        for owner, name in LINE_PARENTS.items():
            if isinstance(owner_id := row.get(name), int):
                if (owner, owner_id) not in self._owned:
                    self._owned[owner, owner_id] = list(self.of(owner, owner_id))
                yield self._owned[owner, owner_id]
