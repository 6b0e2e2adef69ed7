"""A key that doesn't tell a source's rows apart: they are named, and none is lost as if it were a repeat."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from include.api.paginators import Cursor, Single
from include.api.request import Request
from include.sources.base import NOTHING, SyncFailed
from include.sources.mirror.changes import FullList, Since
from include.sources.mirror.entity import Child, Listed, Part
from include.sources.mirror.listing import Partitions
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.readers import identifier, instant, integer
from include.warehouse.table import Column, Table

from .vendor import Mirrored, mirror, mirrored, own

LONG_AGO = "2026-01-01T08:00:00Z"
NOW = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
PAGES = Cursor("data")

BRANCHES = Table("vendor", "branches", (Column("id", identifier), Column("name")), version=None)
COLUMNS = (Column("branch_id", identifier), Column("id"), Column("quantity", integer))
STOCK = Table("vendor", "stock", COLUMNS, version=None)


def known_branches(context):
    return [id_ for (id_,) in context.conn.execute("SELECT id FROM vendor.branches WHERE deleted_at IS NULL")]


PARTITIONS = Partitions(
    known_branches,
    lambda listing, ids: replace(listing, params={"branch": ids[0]}),
    column="branch_id",
    listed_by="branches",
)


def stock_of_branches(table, lookup, **more):
    """The source of branches, and of their stock."""
    parts = replace(PARTITIONS, **more)
    return mirror(
        Listed(BRANCHES, own("branches"), Request("/branches"), Single(), changes=FullList(), leaves_out=NOTHING),
        Listed(
            table,
            lookup,
            Request("/stock"),
            Single(),
            changes=FullList(),
            leaves_out=NOTHING,
            partitions=parts,
        ),
    )


PRICES = mirror(
    Listed(
        Table("vendor", "prices", (Column("id"), Column("currency"), Column("updated_at", instant))),
        Lookup(request=lambda id_: Request(f"/prices/{quote(id_, safe='')}"), rows=lambda data: data["data"]),
        Request("/prices"),
        PAGES,
        changes=Since("since"),
        leaves_out=NOTHING,
    )
)

ORDERS = Table("vendor", "orders", (Column("id"), Column("updated_at", instant)))
LINES = Table(
    "vendor", "lines", (Column("number", integer), Column("order_id"), Column("what")), key=("number",), version=None
)
LINES_OF_ORDERS = mirror(
    Listed(ORDERS, own("orders"), Request("/orders"), PAGES, changes=Since("since"), leaves_out=NOTHING),
    Child(
        LINES,
        Lookup(
            by=("order_id",),
            request=lambda id_: Request(f"/orders/{quote(id_, safe='')}/lines"),
            rows=lambda data: data["data"],
            paginator=PAGES,
            own=False,
            complete=True,
        ),
        listing=None,
        paginator=PAGES,
        parent="orders",
        leaves_out=NOTHING,
    ),
)


@pytest.fixture
def opened(conn, warehouse) -> Iterator[Callable[..., Mirrored]]:
    with ExitStack() as stack:
        yield lambda *vendor: stack.enter_context(mirrored(conn, warehouse, *vendor))


def stock_of(stock):
    """A vendor whose stock, by branch, has one quantity of each article. Ids are those of articles."""

    def rows(branch):
        return [{"id": id_, "branch_id": branch, "quantity": each} for id_, each in stock[branch].items()]

    def answers(path, params):
        if path == ["branches"]:
            return [{"id": id_, "name": "branch"} for id_ in stock]
        if path[0] == "branches":
            return {"id": int(path[1]), "name": "branch"} if int(path[1]) in stock else None
        if len(path) == 1:
            return rows(int(params["branch"]))
        return next((row for branch in stock for row in rows(branch) if path[-1] == row["id"]), None)

    return answers


class TestPartsWithTheSameIds:
    @pytest.fixture
    def source(self):
        return stock_of_branches(STOCK, own("stock"))

    def test_their_rows_are_named(self, opened, source):
        stock = {1: {"nail": 5, "screw": 6}, 2: {"bolt": 8}}
        shop = opened(source, stock_of(stock))
        shop.sync()
        stock[2]["nail"] = 7
        scanned = shop.night()["stock"]
        assert "the key of its table lacks branch_id" in shop.unproven()["nail"]
        assert (scanned.plan.rows, scanned.accounts["stock"].unproven) == (0, 1)

    def test_a_sync_says_so(self, opened, source):
        shop = opened(source, stock_of({1: {"nail": 5, "screw": 6}, 2: {"nail": 7}}))
        with pytest.raises(SyncFailed, match=r"stock nail \(its list shows it twice, .* at different places"):
            shop.sync()
        assert shop.live("stock", "id") == {"screw"}
        # Each sync reads the whole list, so scans need not wait until the row is proven.
        assert shop.night()["stock"].accounts["stock"].missing_unproven == 1

    def test_a_look_up_without_the_part_is_refused(self):
        with pytest.raises(ValueError, match="its rows don't say their branch_id, so a look-up by id would lose it"):
            stock_of_branches(replace(STOCK, added=("branch_id",)), own("stock"), adds=True)


def test_rows_of_a_part_that_is_gone_are_not_kept(opened):
    """Its rows don't say their part, and its list is not asked for any more."""
    table = replace(STOCK, key=("branch_id", "id"), added=("branch_id",))
    lookup = Lookup(
        by=("branch_id", "id"),
        request=lambda branch, id_: Request(f"/stock/{branch}/{quote(id_, safe='')}"),
        rows=lambda data: [data],
    )
    stock = {1: {"nail": 5, "screw": 6}, 2: {"bolt": 8, "nut": 9}}
    shop = opened(stock_of_branches(table, lookup, adds=True), stock_of(stock))
    shop.sync()
    del stock[2]
    for _ in range(2):
        shop.night(repair=True)
    assert (shop.live("branches", "id"), shop.live("stock", "id")) == ({1}, {"nail", "screw"})


def test_children_that_are_numbered_in_each_parent_are_named(opened):
    lines = {"o1": ["tea", "milk"], "o2": ["salt"]}

    def answers(path, params):
        if path == ["orders"]:
            return {"data": [{"id": id_, "updated_at": LONG_AGO} for id_ in lines]}
        if len(path) == 2:
            return {"id": path[1], "updated_at": LONG_AGO}
        of_order = enumerate(lines[path[1]], 1)
        return {"data": [{"number": number, "order_id": path[1], "what": what} for number, what in of_order]}

    with pytest.raises(SyncFailed, match=r"lines 1 \(.* the key of its table lacks order_id\)"):
        opened(LINES_OF_ORDERS, answers).sync()


def prices_of(prices):
    def answers(path, params):
        return {"data": prices if len(path) == 1 else [price for price in prices if price["id"] == path[1]]}

    return answers


def price(id_, currency, updated_at=LONG_AGO):
    return {"id": id_, "currency": currency, "updated_at": updated_at}


class TestRowsOfOneList:
    @pytest.mark.parametrize("updated_at", [LONG_AGO, "2026-02-01T08:00:00Z"], ids=["as_old", "newer"])
    @pytest.mark.parametrize("shown", [1, 2])
    def test_are_named_whatever_their_address_shows(self, opened, updated_at, shown):
        """The list may have records of two kinds, each with ids of its own, and the address those of one kind."""
        prices = [price("a", "EUR"), price("b", "EUR"), price("c", "EUR")]
        both = [*prices, price("a", "USD", updated_at)]
        listed = prices
        shop = opened(PRICES, lambda path, params: prices_of(both[-shown:] if len(path) > 1 else listed)(path, params))
        shop.sync()
        listed = both
        shop.night()
        assert "the key of its table lacks a column" in shop.unproven()["a"]

    @pytest.mark.parametrize(("shown", "proven"), [(1, True), (2, False)])
    def test_are_looked_up_if_they_have_changed_lately(self, opened, shown, proven):
        """A version may be less exact than the moments at which a list is read."""
        prices = [price("a", "EUR", NOW), price("b", "EUR")]
        shop = opened(
            PRICES, lambda path, params: prices_of(prices[-shown:] if len(path) > 1 else prices)(path, params)
        )
        shop.sync()
        prices += [price("a", "USD", NOW), price("a", "EUR", NOW)]
        shop.night()
        why = shop.unproven()
        assert why == {} if proven else "shows two different rows with the same key" in why["a"]


def test_a_record_that_changes_while_its_list_is_read_is_no_such_row(opened):
    shop = opened(PRICES, prices_of([price("a", "EUR"), price("b", "EUR"), price("a", "USD", NOW)]))
    shop.sync()
    assert (shop.live("prices", "id"), shop.night()["prices"].metrics["unproven"]) == ({"a", "b"}, 0)


def test_records_with_a_blank_id_are_refused(opened):
    prices = [price("", "EUR"), price(" ", "USD"), *(price(id_, "EUR") for id_ in "abc")]
    shop = opened(PRICES, prices_of(prices))
    shop.sync()
    scanned = shop.night()["prices"]
    assert (shop.live("prices", "id"), scanned.accounts["prices"].refused) == (set("abc"), 2)


def test_rows_inside_a_record_that_name_another_one_refuse_it(opened):
    """Such rows belong to no record, so they fell out of all syncs and scans."""
    issues = Table(
        "vendor",
        "issues",
        (Column("id"), Column("number"), Column("updated_at", instant)),
        ignored={"labels": "they are rows of labels"},
    )
    labels = Table("vendor", "labels", (Column("issue_id"), Column("name")), key=("issue_id", "name"), version=None)

    def rows(issue):
        return [{**label, "issue_id": issue["number"]} for label in issue["labels"]]

    source = mirror(
        Listed(
            issues,
            own("issues"),
            Request("/issues"),
            PAGES,
            changes=Since("since"),
            leaves_out=NOTHING,
            parts=(Part(labels, rows, by=("issue_id",)),),
        )
    )
    found = [{"id": f"i{n}", "number": n, "updated_at": LONG_AGO, "labels": [{"name": "new"}]} for n in range(3)]
    shop = opened(source, lambda path, params: {"data": found} if len(path) == 1 else found[int(path[1][1:])])
    with pytest.raises(SyncFailed, match=r"3 of 3 rows of vendor\.issues could not be stored"):
        shop.sync()
    reasons = shop.context.conn.execute("SELECT DISTINCT reason FROM confidence.quarantine").fetchall()
    assert reasons == [("one of its labels doesn't name it by issue_id",)]
