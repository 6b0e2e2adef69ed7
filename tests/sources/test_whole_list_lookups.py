"""A list of records that the API can't be asked for one by one: what is missing in it is looked for in it again."""

from collections.abc import Iterator

import pytest

from include.api.paginators import Single
from include.api.request import Request
from include.confidence.summary import Plan
from include.sources.base import NOTHING
from include.sources.mirror.changes import FullList
from include.sources.mirror.entity import Listed
from include.sources.mirror.lookup_request import Lookup
from include.warehouse.table import Column, Table

from .vendor import Mirrored, mirror, mirrored

TAGS = Table("vendor", "tags", (Column("name"), Column("colour")), key=("name",), version=None)
PAGES, LIST = Single("data"), Request("/tags")
SOURCE = mirror(
    Listed(
        TAGS,
        Lookup.by_whole_list(LIST, PAGES, by=("name",)),
        LIST,
        PAGES,
        changes=FullList(),
        leaves_out=NOTHING,
    )
)
ALL = [{"name": name, "colour": "red"} for name in ("late", "new", "paid", "sent")]


class Vendor:
    """Answers with the tags; to the requests in `instead`, by number from 0, with other ones."""

    def __init__(self) -> None:
        self.tags, self.instead, self.asked = list(ALL), dict[int, list[dict]](), 0

    def answer(self, path, params):
        self.asked += 1
        return {"data": self.instead.get(self.asked - 1, self.tags)}


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def shop(conn, warehouse, vendor) -> Iterator[Mirrored]:
    with mirrored(conn, warehouse, SOURCE, vendor.answer) as shop:
        shop.sync()
        vendor.asked = 0
        yield shop


def test_that_both_readings_lack_is_deleted(shop, vendor):
    del vendor.tags[1:3]
    scanned = shop.night(repair=True)["tags"]
    assert (scanned.plan, scanned.metrics["unproven"]) == (Plan(0, 0, 2), 0)
    assert shop.live("tags", "name") == {"late", "sent"}


def test_that_one_reading_lacks_stays(shop, vendor):
    vendor.instead[0] = ALL[:2]
    assert shop.night(repair=True)["tags"].plan == Plan(0, 0, 0)
    assert shop.live("tags", "name") == {"late", "new", "paid", "sent"}


def test_that_is_shown_anew_or_otherwise_is_read_twice(shop, vendor):
    vendor.tags = [{"name": "late", "colour": "blue"}, *ALL[1:], {"name": "lost", "colour": "red"}]
    scanned = shop.night(repair=True)["tags"]
    assert (scanned.plan, scanned.metrics["unproven"]) == (Plan(1, 1, 0), 0)
    assert shop.live("tags", "colour") == {"red", "blue"}


def test_of_which_nothing_is_shown_are_not_proven_to_be_gone(shop, vendor):
    vendor.tags = []
    scanned = shop.night(repair=True)["tags"]
    assert (scanned.plan, scanned.metrics["unproven"]) == (Plan(0, 0, 0), 4)


def test_is_unknown_while_a_row_of_the_list_has_no_name(shop, vendor):
    vendor.tags = [*ALL[:3], {"colour": "red"}]
    assert shop.night(repair=True)["tags"].plan == Plan(0, 0, 0)
    assert "sent" in shop.live("tags", "name")
