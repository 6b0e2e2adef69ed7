"""How Square is asked: requests, addresses of records, and lists inside records."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from include.api.errors import RefuseData
from include.api.request import Request
from include.sources.mirror.lookup import names
from include.sources.mirror.lookup_request import Lookup
from include.sources.square.answers import Check
from include.warehouse.table import add

Record = Mapping[str, Any]


def post(path: str, body: Record, check: Check | None = None) -> Request:
    """Return a POST that only reads, so it may be sent again."""
    return Request(path, method="POST", body=body, check=check)


def own(path: str, singular: str) -> Lookup:
    """Return the look-up of a record at its own address, which answers 404 if there is none."""
    return Lookup(
        request=lambda id_: Request(f"{path}/{quote(id_, safe='')}", check=names(id_, singular, "id")),
        rows=lambda data: [data[singular]],
    )


def time_text(moment: datetime) -> str:
    """Return a time as Square writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def inside(record: Record, name: str, by: str, id_: Any) -> list[Record]:
    """Return the objects of the list `name` in a record, each with the record's id in column `by`.

    The vendor leaves out empty lists. Raises RefuseData for anything but a list of objects.
    """
    rows = record.get(name)
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RefuseData(f"{name!r} of {by} {id_} is no list of objects. See whether the API has changed")
    return [add(row, **{by: id_}) for row in rows]
