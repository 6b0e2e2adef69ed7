"""The shape of an answer to a look-up. It is found by trying which shape the declared reader takes the rows from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """Where in an answer the rows are: under the names of `path`, as a list or the one row itself."""

    path: tuple[str, ...]
    many: bool

    def answer(self, rows: Sequence[Record], around: Record) -> Any:
        """Return the answer; `around` is what stands beside the innermost name."""
        inner = list(rows) if self.many else dict(rows[0]) if rows else None
        for depth, name in enumerate(reversed(self.path)):
            inner = {**(around if depth == 0 else {}), name: inner}
        return inner

    def __str__(self) -> str:
        inner = "[<record>, ...]" if self.many else "<record>"
        for name in reversed(self.path):
            inner = f'{{"{name}": {inner}}}'
        return inner


class _Seen(dict):
    """An object that has every name, and remembers which were asked for."""

    def __init__(self, path: tuple[str, ...], seen: list[tuple[str, ...]]):
        super().__init__()
        self._path, self._seen = path, seen

    def __getitem__(self, name: str) -> Any:
        path = (*self._path, name)
        self._seen.append(path)
        return _Seen(path, self._seen)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]

    def __contains__(self, name: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True


class NoShape(Exception):
    """No answer of a known shape holds the records for the reader. The message says what became of the likeliest."""


def find(
    rows: Callable[[Any], Iterable[Record]], records: Sequence[Record], around: Record, check: Callable[[Any], object]
) -> Shape:
    """Return the shape from which `rows` reads the records and that passes the check. Raises NoShape."""
    failed: list[tuple[int, str]] = []
    for shape in _shapes(rows):
        if len(records) != 1 and not shape.many:
            continue
        rank, why = _why_not(rows, records, shape.answer(records, around), check)
        if not why:
            return shape
        failed.append((rank, f"from the answer {shape} {why}"))
    # Of those that come as far the deepest is likeliest: the reader has asked for all of its names.
    raise NoShape(max(reversed(failed), key=lambda each: each[0])[1])


def _why_not(
    rows: Callable[[Any], Iterable[Record]], records: Sequence[Record], answer: Any, check: Callable[[Any], object]
) -> tuple[int, str]:
    """Say why the answer won't do, and how far it came; an empty text if it does."""
    try:
        found = [*map(dict, rows(answer))]
    except Exception as error:  # noqa: BLE001 - a reader may fail in any way on what it wasn't written for
        return 0, f"`rows` reads nothing ({type(error).__name__}: {error})"
    if found != list(records):
        return 1, f"`rows` reads {_difference(found, records)}"
    try:
        check(answer)
    except Exception as error:  # noqa: BLE001 - so may a check
        return 2, f"`rows` reads the records, but `check` refuses it: {error}"
    return 3, ""


def _difference(found: Sequence[Record], records: Sequence[Record]) -> str:
    if len(found) != len(records):
        return f"{len(found)} records in place of {len(records)}"
    more = {name for each, record in zip(found, records, strict=True) for name in each.keys() - record.keys()}
    less = {name for each, record in zip(found, records, strict=True) for name in record.keys() - each.keys()}
    told = [f"{what} {', '.join(sorted(names))}" for what, names in (("with", more), ("without", less)) if names]
    return f"other records than the examples: {' and '.join(told) or 'with other values'}"


def _shapes(rows: Callable[[Any], Any]) -> Iterator[Shape]:
    seen: list[tuple[str, ...]] = []
    with suppress(Exception):
        list(rows(_Seen((), seen)))
    for path in sorted({(), *seen}, key=len):
        yield Shape(path, many=False)
        yield Shape(path, many=True)
