"""Vendors that tell less than others: no time in their answers, no deleted records in their lists."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from include.api import responses
from include.api.paginators import Cursor, PageNumber
from include.api.request import Request
from include.sources.base import NOTHING
from include.sources.mirror import second_look
from include.sources.mirror.changes import BothEnds, Deletes, FullList, Since
from include.sources.mirror.entity import Listed
from include.warehouse.readers import boolean, instant
from include.warehouse.table import Column, Table

from .vendor import mirror, mirrored, own

PAGES = Cursor("data")
LONG_AGO = "2026-01-01T08:00:00Z"


def test_a_source_without_any_time_is_scanned(conn, warehouse, monkeypatch):
    monkeypatch.setattr(responses, "http_date", lambda text: None)
    table = Table("vendor", "items", (Column("id"),), version=None)
    source = mirror(Listed(table, own("items"), Request("/items"), PAGES, changes=FullList(), leaves_out=NOTHING))
    with mirrored(conn, warehouse, source, lambda path, params: {"data": [{"id": "a"}, {"id": "b"}]}) as shop:
        shop.sync()
        assert shop.night()["items"].accounts["items"].equal == 2


@pytest.mark.parametrize("hidden", [6, 25])
def test_deleted_records_that_the_list_hides_are_not_left_out(conn, warehouse, hidden):
    """Their own addresses go on to show the flag."""
    table = Table(
        "vendor",
        "items",
        (Column("id"), Column("is_deleted", boolean), Column("updated_at", instant)),
        tombstone="is_deleted",
    )
    deletes = Deletes(lambda since: Request("/deletes"), PAGES, deleted=lambda entry: entry)
    source = mirror(
        Listed(
            table, own("items"), Request("/items"), PAGES, changes=Since("since"), deletes=deletes, leaves_out=NOTHING
        )
    )
    ids = [f"i{number}" for number in range(40)]
    items = {id_: {"id": id_, "is_deleted": False, "updated_at": LONG_AGO} for id_ in ids}

    def answers(path, params):
        if path == ["deletes"]:
            return {"data": [item for item in items.values() if item["is_deleted"]]}
        return items[path[1]] if len(path) > 1 else {"data": [i for i in items.values() if not i["is_deleted"]]}

    with mirrored(conn, warehouse, source, answers) as shop:
        shop.sync()
        changed = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        for id_ in ids[:hidden]:
            items[id_] |= {"is_deleted": True, "updated_at": changed}
        shop.sync()
        scanned = shop.night()["items"]
    account = scanned.accounts["items"]
    assert (scanned.incomplete, scanned.plan.rows, account.not_proven, account.equal) == ("", 0, 0, len(ids))


def test_a_list_out_of_a_cache_excuses_no_difference(conn, warehouse):
    """It shows none of the rows and says that it is old, as if all of them had changed later."""
    table = Table("vendor", "items", (Column("id"), Column("name"), Column("updated_at", instant)))
    pages = Cursor("data", as_of="as_of")
    source = mirror(Listed(table, own("items"), Request("/items"), pages, changes=Since("since"), leaves_out=NOTHING))
    changed = datetime.now(UTC) - timedelta(hours=6)
    items = [{"id": f"i{number}", "name": "true", "updated_at": changed.isoformat()} for number in range(5)]
    cached = []

    def answers(path, params):
        if len(path) > 1:
            return next(item for item in items if item["id"] == path[1])
        return {"data": [], "as_of": cached[0]} if cached else {"data": items}

    with mirrored(conn, warehouse, source, answers) as shop:
        shop.sync()
        conn.execute("UPDATE vendor.items SET name = 'false' WHERE id = 'i3'")
        cached.append((changed - timedelta(hours=1)).isoformat())
        scanned = shop.night()["items"]
        account = scanned.accounts["items"]
        assert (account.equal, account.young, account.not_proven) == (4, 0, 1)
        assert set(shop.unproven()) == {"i3"}


@pytest.mark.parametrize(("listed", "alone"), [("Z", ".123Z"), (".123Z", "Z"), (".123Z", ".123456Z")])
def test_a_field_that_all_records_gain_is_proven_though_their_own_addresses_write_times_otherwise(
    conn, warehouse, monkeypatch, listed, alone
):
    """There are more rows than second looks. What a second look has stored differs from no later list."""
    monkeypatch.setattr(second_look, "SECOND_LOOKS", 15)
    table = Table("vendor", "items", (Column("id"), Column("updated_at", instant)))
    source = mirror(Listed(table, own("items"), Request("/items"), PAGES, changes=Since("since"), leaves_out=NOTHING))
    changed = (datetime.now(UTC) - timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%S")
    items = {f"i{number}": {"id": f"i{number}"} for number in range(40)}

    def answers(path, params):
        if len(path) > 1:
            return {**items[path[1]], "updated_at": changed + alone}
        return {"data": [{**item, "updated_at": changed + listed} for item in items.values()]}

    with mirrored(conn, warehouse, source, answers) as shop:
        shop.sync()
        for place, item in enumerate(items.values()):
            item["points"] = place
        scanned = shop.night(repair=True)["items"]
        assert (scanned.incomplete, scanned.plan.update) == ("", len(items))
        scanned = shop.night()["items"]
        assert (scanned.incomplete, scanned.plan.rows, scanned.accounts["items"].equal) == ("", 0, len(items))


@pytest.mark.parametrize(
    ("place", "shuffled", "young"), [(3, False, True), (45, False, False), (92, False, True), (45, True, True)]
)
def test_a_change_in_the_middle_of_a_list_that_syncs_read_from_both_ends_is_drift(
    conn, warehouse, place, shuffled, young
):
    """The newest records stand first, so a page looks as if those that changed last did. Unsorted, all is read."""
    table = Table("vendor", "items", (Column("id"), Column("name"), Column("updated_at", instant)))
    source = mirror(
        Listed(table, own("items"), Request("/items"), PageNumber("data"), changes=BothEnds(), leaves_out=NOTHING)
    )
    made = datetime.now(UTC) - timedelta(days=100)
    items = [
        {"id": f"i{99 - number}", "name": "", "updated_at": (made - timedelta(hours=number)).isoformat()}
        for number in range(100)
    ]

    if shuffled:
        Random(1).shuffle(items)

    def answers(path, params):
        if len(path) > 1:
            return next(item for item in items if item["id"] == path[1])
        page = int(params.get("page", 1))
        meta = {"total_pages": 10, "total_entries": len(items), "page": page}
        return {"data": items[10 * page - 10 : 10 * page], "meta": meta}

    with mirrored(conn, warehouse, source, answers) as shop:
        shop.sync()
        items[place] |= {"name": "changed", "updated_at": datetime.now(UTC).isoformat()}
        scanned = shop.night(repair=True)["items"]
        assert (scanned.metrics["rows_young"], scanned.plan.update) == (int(young), int(not young))
        shop.sync()
        changed = "SELECT id FROM vendor.items WHERE name = 'changed'"
        assert conn.execute(changed).fetchall() == [(items[place]["id"],)]
