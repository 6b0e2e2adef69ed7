"""Pages that a newcomer asks for otherwise than the API wants it: each reading would leave out the same rows."""

from collections.abc import Callable
from itertools import count
from urllib.parse import quote

import pytest
from starlette.responses import JSONResponse

from include.api.paginators import Cursor, Offset, PageNumber
from include.api.request import Request
from include.sources.base import NOTHING, SyncFailed
from include.sources.mirror.changes import FullList
from include.sources.mirror.entity import Child, Listed
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.table import Column, Table

from .vendor import mirror, mirrored, own

ITEMS = [{"id": str(number)} for number in range(10)]
TABLE = Table("vendor", "items", (Column("id"),), version=None)


def items(paginator):
    return mirror(Listed(TABLE, own("items"), Request("/items"), paginator, changes=FullList(), leaves_out=NOTHING))


def vendor(page: Callable[[int], list]):
    """Answers with two rows a page: those from the number on that `page` makes of the parameter."""

    def answers(path, params):
        if len(path) > 1:
            return next((item for item in ITEMS if item["id"] == path[1]), None)
        asked = int(params["page"]) if "page" in params else None
        found = page(asked)
        return found if isinstance(found, JSONResponse) else {"items": found}

    return answers


def from_zero(page):
    return ITEMS[2 * (page or 0) :][:2]


def from_one(page):
    return ITEMS[2 * ((page or 1) - 1) :][:2]


@pytest.mark.parametrize(
    ("paginator", "what"),
    [(PageNumber("items"), "page=0"), (Offset("items", param="page"), "page=1")],
    ids=["from_one", "by_rows"],
)
def test_the_first_load_finds_that_they_are_counted_otherwise(conn, warehouse, paginator, what):
    told = f"the list of items shows other rows at {what} than on its first page"
    with (
        mirrored(conn, warehouse, items(paginator), vendor(from_zero)) as shop,
        pytest.raises(SyncFailed, match=told),
    ):
        shop.sync()


@pytest.mark.parametrize(
    ("paginator", "page"),
    [
        (PageNumber("items"), lambda page: from_one(page or 1)),
        (PageNumber("items"), lambda page: [] if page == 0 else from_one(page)),
        (PageNumber("items"), lambda page: JSONResponse({}, 400) if page == 0 else from_one(page)),
        (PageNumber("items", start=0), from_zero),
        (Offset("items", param="page"), lambda page: ITEMS[page or 0 :][:2]),
    ],
    ids=["no_page_is_the_first", "no_page_is_empty", "no_page_is_refused", "from_zero", "by_rows"],
)
def test_a_first_load_takes_those_that_are_counted_as_declared(conn, warehouse, paginator, page):
    with mirrored(conn, warehouse, items(paginator), vendor(page)) as shop:
        shop.sync()
        assert shop.night()["items"].accounts["items"].equal == len(ITEMS)


def test_pages_that_come_again_and_again_end(conn, warehouse):
    """The API does not know the parameter, and one field is another in each answer."""
    answer = count()

    def answers(path, params):
        return {"items": [{**item, "shown": next(answer)} for item in ITEMS]}

    with mirrored(conn, warehouse, items(PageNumber("items", param="seite")), answers) as shop:
        with pytest.raises(SyncFailed, match="the list of items shows the same 10 rows again and again, on 32 pages"):
            shop.sync()
        # One page is asked for ahead.
        assert len(shop.asked) <= 33


def test_rows_of_a_parent_that_name_no_parent_are_refused(conn, warehouse):
    """Else the first sync would store them without it, and no later one could read them again."""
    lines = Table("vendor", "lines", (Column("id"), Column("item_id")), version=None)
    lookup = Lookup(
        by=("item_id",),
        request=lambda id_: Request(f"/items/{quote(id_, safe='')}/lines"),
        rows=lambda data: data["data"],
        paginator=Cursor("data"),
        own=False,
        complete=True,
    )
    child = Child(lines, lookup, listing=None, paginator=Cursor("data"), parent="items", leaves_out=NOTHING)
    source = mirror(*items(PageNumber("items")).entities, child)
    listed = vendor(from_one)

    def answers(path, params):
        return {"data": [{"id": f"line {path[1]}"}]} if path[-1] == "lines" else listed(path, params)

    with mirrored(conn, warehouse, source, answers) as shop:
        with pytest.raises(SyncFailed, match="a row doesn't name the item_id that was asked for"):
            shop.sync()
        assert shop.live("lines", "id") == set()
