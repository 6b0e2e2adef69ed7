"""Look-ups that a newcomer declares otherwise than the vendor answers: they prove no absence."""

import pytest

from include.api.paginators import Cursor
from include.api.request import Request
from include.sources.base import NOTHING
from include.sources.mirror.changes import Since
from include.sources.mirror.entity import Listed
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.readers import instant
from include.warehouse.table import Column, Table

from .vendor import mirror, mirrored

ITEMS = {id_: {"id": id_, "updated_at": "2026-01-01T08:00:00Z"} for id_ in "abcdef"}
# By a parameter, and not by its address.
SOURCE = mirror(
    Listed(
        Table("vendor", "items", (Column("id"), Column("updated_at", instant))),
        Lookup(
            request=lambda id_: Request("/item", {"id": id_}),
            rows=lambda data: [each for each in data["data"] if not each.get("deleted")],
        ),
        Request("/items"),
        Cursor("data"),
        changes=Since("since"),
        leaves_out=NOTHING,
    )
)


@pytest.mark.parametrize(
    ("shown", "gone"), [([], False), ([{"id": "c", "deleted": True}], True)], ids=["an_empty_list", "a_tombstone"]
)
def test_an_answer_to_a_parameter_proves_a_delete_only_if_it_names_the_record(conn, warehouse, shown, gone):
    hidden = set()

    def answers(path, params):
        if path == ["items"]:
            return {"data": [item for id_, item in ITEMS.items() if id_ not in hidden]}
        return {"data": shown if params["id"] in hidden else [ITEMS[params["id"]]]}

    with mirrored(conn, warehouse, SOURCE, answers) as shop:
        shop.sync()
        hidden.add("c")
        shop.night(repair=True)
        assert (shop.live("items", "id") == set(ITEMS) - {"c"}, "c" in shop.unproven()) == (gone, not gone)
