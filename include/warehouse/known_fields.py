"""Which fields of a record are read by a column or ignored, so that all others can be kept in the column `extra`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.warehouse.field_path import split

if TYPE_CHECKING:
    from include.warehouse.table import Column


@dataclass
class Known:
    """The fields of an object that are read or ignored.

    - `whole`: fields of which all is read or ignored
    - `inside`: fields of which only a part is: what is known inside each
    - `names`: the names of both
    - `read`: a column reads this object. If the source sends something else in its place, the column's reader reads or
      refuses that, unless it is a list: no reader looks into lists
    """

    whole: set[str] = field(default_factory=set)
    inside: dict[str, "Known"] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    read: bool = False

    @classmethod
    def of(cls, columns: Iterable["Column"], ignored: Iterable[str]) -> "Known":
        """Return what the columns read, and what is ignored by these paths."""
        known = cls()
        for column in columns:
            *around, name = column.path
            if column.uses is None:
                known._at(around, read=True).whole.add(name)
            else:
                known._at(column.path, read=True).whole.update(column.uses)
        for path in ignored:
            *around, name = split(path)
            known._at(around).whole.add(name)
        known._complete()
        return known

    def _at(self, path: Sequence[str], *, read: bool = False) -> "Known":
        """Return what is known inside the object at the path. `read`: a column reads that object."""
        known = self
        for name in path:
            known = known.inside.setdefault(name, Known())
            known.read |= read
        return known

    def _complete(self) -> None:
        """Drop what is known inside fields that are known as a whole; then set `names`, here and inside."""
        self.inside = {name: known for name, known in self.inside.items() if name not in self.whole}
        self.names = self.whole | self.inside.keys()
        for known in self.inside.values():
            known._complete()

    def rest(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record's fields that are not known, and the unknown part of objects that are known in part."""
        # Most records have known fields only: the two tests with issuperset save the work for these.
        rest = {} if self.names.issuperset(record) else {name: record[name] for name in record.keys() - self.names}
        for name, known in self.inside.items():
            value = record.get(name)
            if isinstance(value, dict):
                if (known.inside or not known.names.issuperset(value)) and (inner_rest := known.rest(value)):
                    rest[name] = inner_rest
            elif (value and isinstance(value, list)) or (value is not None and not known.read):
                rest[name] = value
        return rest
