"""The shape of an answer to a look-up. It is found by trying which shape the declared reader takes the rows from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def find(
    rows: Callable[[Any], Iterable[Record]], records: Sequence[Record], around: Record, check: Callable[[Any], object]
) -> Shape | None:
    """Return the shape from which `rows` reads the records and that passes the check; None if none is known."""
    for shape in _shapes(rows):
        if len(records) != 1 and not shape.many:
            continue
        answer = shape.answer(records, around)
        if _tried(lambda answer=answer: [*map(dict, rows(answer))]) == list(records) and _passes(check, answer):
            return shape
    return None


def _shapes(rows: Callable[[Any], Any]) -> Iterator[Shape]:
    seen: list[tuple[str, ...]] = []
    _tried(lambda: list(rows(_Seen((), seen))))
    for path in sorted({(), *seen}, key=len):
        yield Shape(path, many=False)
        yield Shape(path, many=True)


def _tried(make: Callable[[], Any]) -> Any:
    """A reader may fail in any way on what it wasn't written for."""
    try:
        return make()
    except Exception:  # noqa: BLE001
        return None


def _passes(check: Callable[[Any], object], answer: Any) -> bool:
    return _tried(lambda: (check(answer), True)) is not None
