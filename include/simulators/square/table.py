"""Rows by number, made by the seed or written since, and the lists over them in order of an instant."""

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge

from include.simulators.square.assortment import Row
from include.simulators.square.clock import milliseconds

_BITS = 22  # of a key, for the number; the rest are the milliseconds of the instant
MOST = 1 << _BITS  # rows of a table


class Table:
    """The rows of one kind. A row's number is in its id; an instant of 0 means that the row has none."""

    def __init__(
        self,
        kind: str,
        make: Callable[[int], Row],
        times: Mapping[str, array],
        place_of: Callable[[int], str],
        number_of: Callable[[str], int | None],
    ) -> None:
        """`times` are columns of milliseconds by number; `place_of` names a made row's location, by number.

        Raises ValueError for more rows than a key can tell apart.
        """
        self._first, *_ = self._times = dict(times)
        if len(times[self._first]) > MOST:
            raise ValueError(f"{kind}: at most {MOST:,} rows, not {len(times[self._first]):,}")
        self._make, self._place_of = make, place_of
        self._number_of = number_of
        self.before: dict[int, Row | None] = {}
        """Rows as they were before their last change, None where they were not there."""
        self._written: dict[int, Row] = {}
        self._indexes: dict[str, dict[str, array]] = {}

    def __len__(self) -> int:
        return sum(map(bool, self._times[self._first]))

    def __iter__(self) -> Iterator[int]:
        return (number for number, moment in enumerate(self._times[self._first]) if moment)

    def __contains__(self, number: int) -> bool:
        column = self._times[self._first]
        return 0 <= number < len(column) and bool(column[number])

    def next_number(self) -> int:
        """A number that no row ever had."""
        return len(self._times[self._first])

    def find(self, row_id: str) -> int | None:
        """The number of the row with an id; None where there is none."""
        number = self._number_of(row_id)
        return number if number is not None and number in self else None

    def row(self, number: int) -> Row:
        """The row with a number that lives; not to be changed in place. Parts may be JSON: `msgspec.Raw`."""
        return self._written.get(number) or self._make(number)

    def moment(self, number: int, field: str) -> int:
        """An instant of a row, in milliseconds."""
        return self._times[field][number]

    def put(self, number: int, row: Row) -> None:
        """Insert a row or replace it."""
        before = self.row(number) if number in self else None
        self.remove(number)
        self.before[number] = before
        for field, column in self._times.items():
            column.extend(0 for _ in range(number + 1 - len(column)))
            column[number] = milliseconds(row[field]) if field in row else 0
        self._written[number] = row
        for field, index in self._indexes.items():
            if key := self._key(number, field):
                insort(index.setdefault(row["location_id"], array("q")), key)

    def remove(self, number: int) -> None:
        """Forget a row; one that doesn't live is no error."""
        if number not in self:
            return
        for field, index in self._indexes.items():
            keys = index.get(self._place(number), array("q"))
            at = bisect_left(keys, self._key(number, field))
            if at < len(keys) and keys[at] == self._key(number, field):
                del keys[at]
        for column in self._times.values():
            column[number] = 0
        self._written.pop(number, None)

    def walk(
        self, field: str, places: Iterable[str], low: int, high: int, *, after: int | None = None, newest_first: bool
    ) -> Iterator[tuple[int, int]]:
        """Keys and numbers of the rows with `low` <= instant <= `high`, in order of the instant.

        With `after`, a key, the walk goes on behind it, wherever its row is by now.
        """
        index = self._index(field)
        first, last = low << _BITS, (high + 1) << _BITS
        if after is not None:
            first, last = (first, min(last, after)) if newest_first else (max(first, after + 1), last)
        parts = [_part(index[place], first, last, newest_first) for place in dict.fromkeys(places) if place in index]
        keys = parts[0] if len(parts) == 1 else merge(*parts, reverse=newest_first)
        return ((key, key & MOST - 1) for key in keys)

    def places(self) -> list[str]:
        """The locations that have rows."""
        return list(self._index(self._first))

    def _index(self, field: str) -> dict[str, array]:
        """By location, the times of a field with their row numbers (one integer each), sorted."""
        if field not in self._indexes:
            index: dict[str, list[int]] = {}
            for number, moment in enumerate(self._times[field]):
                if moment:
                    index.setdefault(self._place(number), []).append(moment << _BITS | number)
            self._indexes[field] = {place: array("q", sorted(keys)) for place, keys in index.items()}
        return self._indexes[field]

    def _place(self, number: int) -> str:
        written = self._written.get(number)
        return written["location_id"] if written else self._place_of(number)

    def _key(self, number: int, field: str) -> int:
        moment = self._times[field][number]
        return moment << _BITS | number if moment else 0


def _part(keys: array, first: int, last: int, newest_first: bool) -> Iterator[int]:
    start, end = bisect_left(keys, first), bisect_left(keys, last)
    places = range(end - 1, start - 1, -1) if newest_first else range(start, end)
    return (keys[place] for place in places)
