"""What counts as proof at Square: lies of its lists, batches and single answers end as unknown, named, and mended."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from include.api.errors import ApiError, FixConfiguration, NotFound, TryLater
from include.confidence import health, unproven
from include.simulators.square import Fault, Mutation, lists
from include.sources.base import IntegrityFailed, NeedsPerson, SyncFailed, entity_of
from include.sources.mirror import second_look
from include.sources.mirror.read_changes import partitions_to_read
from include.sources.mirror.repair import repair_entities, verify_repair
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.sources.mirror.validate import validate
from include.sources.square import SOURCE
from include.warehouse import fence
from include.warehouse.pull import PullError
from tests.conftest import copy_of

from .square import RUN, Seller, contents, rows, selling
from .twisted import always, twisted

SMALL = {"locations": 3, "categories": 6, "items": 6, "variations": 8, "vendors": 2, "orders": 30, "line_items": 80}
NOTHING = (0, 0, 0)
MESSAGE = {"message": "temporarily unavailable"}
CATEGORIES, ITEMS, VARIATIONS = "catalog_categories", "catalog_items", "catalog_variations"
SEARCH, BATCH, OBJECT = "catalog/search", "catalog/batch-retrieve", "catalog/object/{id}"


@pytest.fixture(scope="module")
def first_load(postgres, staged) -> Iterator[str]:
    """The name of a database with the mirror of the seller as it is at the start."""
    for url in copy_of(postgres, staged(SOURCE.name)):
        with psycopg.connect(url, autocommit=True) as conn, selling(conn, **SMALL) as seller:
            sync_entities(seller.context)
        yield conninfo_to_dict(url)["dbname"]


@pytest.fixture
def warehouse(postgres, first_load) -> Iterator[str]:
    yield from copy_of(postgres, first_load)


@pytest.fixture
def seller(conn) -> Iterator[Seller]:
    """A seller whose mirror has had its first load, some hours ago."""
    with selling(conn, **SMALL) as seller:
        seller.control.advance(6 * 3600)
        yield seller


def scanned(seller, name):
    writer = fence.stop(seller.context.conn, SOURCE.name, RUN, timeout=1)
    return scan_entity(seller.context, entity_of(SOURCE, name), writer.epoch, Scope())


def moment(seller):
    """The seller's present time."""
    return datetime.fromisoformat(seller.control.now())


def own_counts(request):
    """Whether the request is for the counts of one variation, at its own address."""
    return request.path.startswith("/v2/inventory/") and not request.path.startswith("/v2/inventory/counts/")


def plan(summary):
    return summary.plan.insert, summary.plan.update, summary.plan.delete


def without_counts(variation):
    """Lists of all counts that leave one variation's out; its own address shows them."""

    def hide(request, data):
        if "catalog_object_ids" in request.body:
            return data
        return {**data, "counts": [row for row in data["counts"] if row["catalog_object_id"] != variation]}

    return always(hide, "/v2/inventory/counts/batch-retrieve")


def doubts(conn, table):
    """The unproven rows of a table: key -> why."""
    found = unproven.of(conn, "square", table)
    return {doubt.key[0] if len(doubt.key) == 1 else tuple(doubt.key): doubt.why for doubt in found}


def repaired(seller, *summaries):
    """Repair, and let no check of the verification be worse."""
    sync_id, _ = repair_entities(seller.context, summaries)
    assert [check for check in verify_repair(seller.context, summaries, sync_id) if check.worse] == []


class TestErrorsBesideData:
    def test_page_is_asked_for_once_more(self, seller, conn):
        seller.control.fault(Fault("errors", SEARCH, rows=2))
        summary = scanned(seller, CATEGORIES)
        assert (plan(summary), summary.metrics["unproven"], summary.incomplete) == (NOTHING, 0, "")

    def test_page_that_stays_so_is_no_evidence(self, seller, conn):
        seller.control.fault(Fault("errors", SEARCH, rows=2, times=None, code="TEMPORARY_ERROR"))
        with pytest.raises(ApiError, match=r"carries 'errors' \(TEMPORARY_ERROR\)"):
            scanned(seller, CATEGORIES)

    def test_sync_fails_by_name_and_keeps_all(self, seller, conn):
        seller.control.mutate(Mutation("update", "items", seller.control.ids("items")[0], {"name": "Renamed"}))
        seller.control.fault(Fault("errors", SEARCH, rows=2, times=None))
        before = contents(conn)
        with pytest.raises(SyncFailed, match=f"{CATEGORIES}: .*'errors'"):
            sync_entities(seller.context)
        assert contents(conn) == before
        seller.control.clear()
        sync_entities(seller.context)
        assert "Renamed" in {row["name"] for row in rows(conn, ITEMS).values()}

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/v2/orders/search", "orders"),
            ("/v2/payments", "payments"),
            ("/v2/refunds", "order_refunds"),
            ("/v2/vendors/search", "vendors"),
            ("/v2/inventory/counts/batch-retrieve", "catalog_inventory"),
            ("/v2/inventory/counts/batch-retrieve", "inventory_counts"),
        ],
    )
    def test_message_in_place_of_rows_is_no_empty_list(self, seller, conn, path, name):
        query = "SELECT entity, partition, watermark FROM confidence.sync_state WHERE entity = %s ORDER BY partition"
        before = conn.execute(query, [name]).fetchall()
        with twisted(seller.context, always(lambda request, data: MESSAGE, path)) as context:
            with pytest.raises(SyncFailed, match=name):
                sync_entities(context)
            with pytest.raises(ApiError):
                scanned(replace(seller, context=context), name)
        assert conn.execute(query, [name]).fetchall() == before

    def test_change_behind_a_message_is_not_lost(self, seller, conn):
        seller.control.advance(10 * 24 * 3600)
        sync_entities(seller.context)
        seller.control.mutate(Mutation("update", "orders", seller.control.ids("orders")[0], {"reference_id": "R-1"}))
        for _ in range(3):
            lie = always(lambda request, data: MESSAGE, "/v2/orders/search")
            with twisted(seller.context, lie) as context, suppress(SyncFailed):
                sync_entities(context)
            seller.control.advance(30 * 60)
        sync_entities(seller.context)
        assert "R-1" in {row["reference_id"] for row in rows(conn, "orders").values()}

    @pytest.mark.parametrize("body", ["errors", "message", "error", "nothing"])
    def test_second_look_that_is_no_answer_proves_nothing(self, seller, conn, body):
        first, second = seller.control.ids("categories")[:2]
        seller.control.fault(
            Fault("missing_rows", SEARCH, rows=2),
            Fault("status", BATCH, status=200, body=body, times=None),
            Fault("status", OBJECT, status=200, body=body, times=None),
        )
        summary = scanned(seller, CATEGORIES)
        assert (plan(summary), summary.metrics["unproven"]) == (NOTHING, 2)
        assert doubts(conn, CATEGORIES).keys() == {first, second}
        seller.control.clear()
        assert plan(again := scanned(seller, CATEGORIES)) == NOTHING
        assert (again.metrics["unproven"], doubts(conn, CATEGORIES)) == (0, {})


class TestAbsence:
    @pytest.mark.parametrize("deleted_object", ["not_found", "tombstone"])
    def test_is_proven_by_the_own_address(self, seller, conn, deleted_object):
        seller.control.set(deleted_object=deleted_object)
        gone = seller.control.ids("categories")[:3]
        seller.control.mutate(*(Mutation("delete", "categories", id_, silent=True) for id_ in gone))
        seller.control.reset_counters()
        summary = scanned(seller, CATEGORIES)
        assert (plan(summary), summary.metrics["unproven"]) == ((0, 0, 3), 0)
        counters = seller.control.counters()
        # And one that is there, by which the address proves that it finds something.
        assert [counters.total(f"POST {BATCH}"), counters.total(f"GET {OBJECT}")] == [1, 4]
        others = [scanned(seller, entity.name) for entity in SOURCE.entities if entity.name != CATEGORIES]
        repaired(seller, summary, *others)
        assert not set(gone) & set(rows(conn, CATEGORIES))

    def test_is_shown_by_a_tombstone_that_no_other_address_has(self, seller, conn):
        """The list shows the object as deleted; batches leave it out, and its own address says 404: all agree."""
        [gone] = seller.control.ids("categories")[:1]
        seller.control.mutate(Mutation("delete", "categories", gone))

        def without_deleted(request, data):
            return {**data, "objects": [each for each in data["objects"] if not each.get("is_deleted")]}

        with twisted(seller.context, always(without_deleted, BATCH)) as context:
            sync_entities(context)
            summary = scanned(replace(seller, context=context), CATEGORIES)
        assert rows(conn, CATEGORIES)[gone]["is_deleted"]
        assert (plan(summary), summary.metrics["unproven"]) == (NOTHING, 0)

    def test_is_proven_although_those_listed_first_are_deleted_too(self, seller, conn):
        """The list shows their tombstones, their own addresses nothing: that doesn't mean that the address is wrong."""
        *told, gone = sorted(seller.control.ids("categories"))[:4]
        seller.control.mutate(*(Mutation("delete", "categories", id_) for id_ in told))
        sync_entities(seller.context)
        seller.control.mutate(Mutation("delete", "categories", gone, silent=True))
        summary = scanned(seller, CATEGORIES)
        assert (plan(summary), summary.metrics["unproven"]) == ((0, 0, 1), 0)

    @pytest.mark.parametrize(
        ("name", "kind", "lies"),
        [
            (CATEGORIES, "categories", (SEARCH, BATCH)),
            (ITEMS, "items", (SEARCH, BATCH)),
            ("catalog_inventory", "counts", ("inventory/counts/batch-retrieve",)),
            ("orders", "orders", ("orders/search", "orders/batch-retrieve")),
        ],
    )
    @pytest.mark.parametrize("kind_of_lie", ["missing_rows", "no_rows"])
    def test_is_not_what_lists_and_batches_leave_out(self, seller, conn, name, kind, lies, kind_of_lie):
        before = contents(conn)
        seller.control.fault(*(Fault(kind_of_lie, endpoint, rows=2, times=None) for endpoint in lies))
        summary = scanned(seller, name)
        assert plan(summary) == NOTHING
        assert summary.metrics["unproven"] > 0
        assert all("another address does" in why for why in doubts(conn, name).values())
        assert contents(conn) == before

    @pytest.mark.parametrize("name", ["locations", "vendors", "payments", "order_refunds"])
    def test_is_not_what_a_list_leaves_out(self, seller, conn, name):
        paid = [id_ for id_, row in rows(conn, "payments").items() if not row["refund_ids"]][:6]
        seller.control.mutate(*(Mutation("refund", "payments", id_, {"amount": 1}) for id_ in paid))
        sync_entities(seller.context)
        path = {"vendors": "vendors/search", "order_refunds": "refunds"}.get(name, name)
        seller.control.fault(Fault("missing_rows", path, rows=1, times=None))
        summary = scanned(seller, name)
        assert (plan(summary), summary.metrics["unproven"], summary.incomplete) == (NOTHING, 0, "")
        assert summary.metrics["feed_noise"] > 0

    def test_is_not_the_404_of_a_gateway(self, seller, conn):
        gone = seller.control.ids("vendors")[0]
        seller.control.fault(
            Fault("missing_rows", "vendors/search", rows=2),
            Fault("status", "vendors/{id}", item=gone, status=404, html=True, times=None),
        )
        summary = scanned(seller, "vendors")
        assert (plan(summary), doubts(conn, "vendors").keys()) == (NOTHING, {gone})

    def test_is_asked_for_one_by_one_within_the_budget_only(self, seller, conn, monkeypatch):
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 2)
        gone = seller.control.ids("categories")[:3]
        seller.control.mutate(*(Mutation("delete", "categories", id_, silent=True) for id_ in gone))
        first = scanned(seller, CATEGORIES)
        assert (plan(first), first.metrics["unproven"]) == ((0, 0, 2), 1)
        (waiting,) = doubts(conn, CATEGORIES)
        # The one that was left comes first in the next night.
        scanned(seller, CATEGORIES)
        assert waiting not in doubts(conn, CATEGORIES)

    def test_record_of_another_id_is_none(self, seller, conn):
        """Neither at the own address nor in a batch."""
        first = seller.control.ids("categories")[0]
        seller.control.fault(
            Fault("missing_rows", SEARCH, rows=1),
            Fault("other", BATCH, times=None),
            Fault("other", OBJECT, times=None),
        )
        summary = scanned(seller, CATEGORIES)
        assert (plan(summary), doubts(conn, CATEGORIES).keys()) == (NOTHING, {first})


class TestCounts:
    """A count has no address of its own: the counts beside it, or the variation itself, have to tell."""

    @pytest.fixture
    def count(self, seller) -> str:
        """A count in stock of a variation that has others: its id."""
        return next(id_ for id_ in seller.control.ids("counts") if id_.endswith(":IN_STOCK"))

    @pytest.mark.parametrize("own_counts", ["all", "in_stock"])
    def test_is_gone_where_the_others_are_shown_without_it(self, seller, conn, count, own_counts):
        seller.control.set(own_counts=own_counts)
        seller.control.mutate(Mutation("delete", "counts", count))
        summary = scanned(seller, "catalog_inventory")
        assert (plan(summary), summary.metrics["unproven"]) == ((0, 0, 1), 0)

    @pytest.mark.parametrize("uncounted", ["empty", "not_found"])
    def test_of_a_variation_without_any_other_is_gone(self, seller, conn, count, uncounted):
        """Both lists lack them, and their own address shows those of other variations."""
        seller.control.set(uncounted=uncounted)
        variation = count.split(":")[0]
        mine = [id_ for id_ in seller.control.ids("counts") if id_.startswith(variation)]
        seller.control.mutate(*(Mutation("delete", "counts", id_) for id_ in mine))
        summary = scanned(seller, "catalog_inventory")
        assert (plan(summary), summary.metrics["unproven"]) == ((0, 0, 3), 0)

    @pytest.mark.parametrize("shown", [{}, {"counts": []}])
    def test_is_not_gone_where_that_address_shows_no_counts_of_anything(self, seller, conn, count, shown):
        seller.control.mutate(Mutation("delete", "counts", count))
        with twisted(seller.context, lambda request, data: shown if own_counts(request) else data) as context:
            summary = scanned(replace(seller, context=context), "catalog_inventory")
        assert (plan(summary), summary.metrics["unproven"]) == (NOTHING, 1)
        [why] = doubts(conn, "catalog_inventory").values()
        assert "no other parent's list that was asked for shows anything" in why

    def test_that_nobody_tells_is_unproven(self, seller, conn, count):
        variation = count.split(":")[0]
        seller.control.mutate(Mutation("delete", "counts", count))
        seller.control.fault(Fault("status", "inventory/{id}", item=variation, status=500, times=None))
        summary = scanned(seller, "catalog_inventory")
        assert (plan(summary), summary.metrics["unproven"]) == (NOTHING, 1)
        [why] = doubts(conn, "catalog_inventory").values()
        assert "answered 500" in why

    def test_that_square_only_estimates_is_in_no_list(self, seller, conn, count):
        """Its own address shows what it computes of the counts of components."""
        variation = count.split(":")[0]
        seller.control.fault(
            Fault("missing_rows", "inventory/counts/batch-retrieve", rows=1_000, times=None),
            Fault("changed", "inventory/{id}", item=variation, rows=1_000, changes={"is_estimated": True}, times=None),
        )
        scanned(seller, "catalog_inventory")
        assert variation not in {key[0] for key in doubts(conn, "catalog_inventory")}

    def test_own_address_is_read_page_by_page(self, seller, conn, count, monkeypatch):
        """One count is gone, and the lists hide another, which the last page of the address shows."""
        monkeypatch.setattr(lists, "_COUNTS_PAGE", 1)
        variation = count.split(":")[0]
        mine = [id_.split(":") for id_ in seller.control.ids("counts") if id_.startswith(variation)]
        hidden = max(place for _, place, state in mine if state == "IN_STOCK")
        gone = min(place for _, place, state in mine if state == "IN_STOCK")
        seller.control.mutate(Mutation("delete", "counts", f"{variation}:{gone}:IN_STOCK"))
        lacks = {"catalog_object_id": variation, "location_id": hidden}.items()

        def hide(request, data):
            return {**data, "counts": [row for row in data["counts"] if not lacks <= row.items()]}

        with twisted(seller.context, always(hide, "/v2/inventory/counts/batch-retrieve")) as context:
            summary = scanned(replace(seller, context=context), "catalog_inventory")
        assert plan(summary) == (0, 0, 1)
        assert doubts(conn, "catalog_inventory").keys() == {(variation, hidden)}

    def test_first_reading_that_was_wrong_is_found_and_corrected(self, seller, conn):
        conn.execute("UPDATE square.inventory_counts SET quantity = quantity + 1 WHERE state = 'IN_STOCK'")
        wrong = len([key for key in rows(conn, "inventory_counts") if key[2] == "IN_STOCK"])
        summaries = [scanned(seller, entity.name) for entity in SOURCE.entities]
        found = {summary.entity: plan(summary) for summary in summaries}
        assert found.pop("inventory_counts") == (0, wrong, 0)
        assert set(found.values()) == {NOTHING}
        repaired(seller, *summaries)
        for id_ in seller.control.ids("counts"):
            row = seller.control.row("counts", id_)
            kept = [r for key, r in rows(conn, "inventory_counts").items() if ":".join(key[:3]) == id_]
            assert [f"{r['quantity']}" for r in kept] == [row["quantity"]]

    def test_change_without_a_newer_time_is_no_error_for_ever(self, seller, conn, count):
        seller.control.mutate(Mutation("update", "counts", count, {"quantity": "17"}, silent=True))
        summaries = [scanned(seller, entity.name) for entity in SOURCE.entities]
        changed = {summary.entity: plan(summary) for summary in summaries if plan(summary) != NOTHING}
        assert changed == {"catalog_inventory": (0, 1, 0), "inventory_counts": (0, 1, 0)}
        repaired(seller, *summaries)
        fence.resume(conn, SOURCE.name, RUN)
        assert [str(finding) for finding in validate(seller.context) if finding.failed] == []

    @pytest.mark.parametrize("empty", [{}, {"counts": []}])
    def test_history_of_which_the_list_shows_nothing_is_no_scan(self, seller, conn, empty):
        lie = always(lambda request, data: empty, "/v2/inventory/counts/batch-retrieve")
        with twisted(seller.context, lie) as context, pytest.raises(PullError, match="shows nothing"):
            scanned(replace(seller, context=context), "inventory_counts")

    def test_history_of_which_half_is_listed_is_looked_up(self, seller, conn):
        def half(request, data):
            asked_for_all = "catalog_object_ids" not in request.body
            return {"counts": data["counts"][: len(data["counts"]) // 2]} if asked_for_all else data

        path = "/v2/inventory/counts/batch-retrieve"
        with twisted(seller.context, always(half, path)) as context:
            seen = scanned(replace(seller, context=context), "inventory_counts")
        account = seen.accounts["inventory_counts"]
        assert (account.out_of_scope, account.equal, seen.metrics["feed_noise"]) == (0, account.live, account.live // 2)
        lie = lambda request, data: half(request, data) if "catalog_object_ids" not in request.body else {}  # noqa: E731
        with twisted(seller.context, always(lie, path)) as context:
            unseen = scanned(replace(seller, context=context), "inventory_counts")
        assert (plan(unseen), unseen.metrics["unproven"]) == (NOTHING, account.live - account.live // 2)

    def test_history_goes_on_without_counts_that_are_gone(self, seller, conn, count):
        """Those beside it are shown without it, or its variation is deleted."""
        before = rows(conn, "inventory_counts")
        seller.control.mutate(Mutation("delete", "counts", count))
        seller.control.reset_counters()
        summary = scanned(seller, "inventory_counts")
        assert seller.control.counters().total("GET inventory/{id}") > 0
        assert (plan(summary), summary.metrics["unproven"]) == (NOTHING, 0)
        assert summary.accounts["inventory_counts"].out_of_scope == 1
        variation = count.split(":")[0]
        conn.execute("UPDATE square.catalog_variations SET is_deleted = true WHERE id = %s", [variation])
        seller.control.reset_counters()
        scanned(seller, "inventory_counts")
        assert seller.control.counters().total("GET inventory/{id}") == 0
        assert rows(conn, "inventory_counts") == before

    def test_count_that_follows_a_repaired_one_is_no_error(self, seller, conn, count):
        conn.execute("UPDATE square.inventory_counts SET quantity = quantity + 1 WHERE state = 'IN_STOCK'")
        summary = scanned(seller, "inventory_counts")
        seller.control.mutate(Mutation("update", "counts", count, {"quantity": "17"}))
        repaired(seller, summary)

    @pytest.mark.parametrize(("hours", "found"), [(30, (1, 0, 1)), (3, (1, 0, 0))])
    def test_count_newer_than_all_that_square_shows_is_false(self, seller, conn, count, hours, found):
        """Unless it is of the last day: then Square may lag behind."""
        truth = rows(conn, "inventory_counts")
        variation, place, state = count.split(":")
        conn.execute(
            "UPDATE square.inventory_counts SET quantity = 999"
            " WHERE (catalog_object_id, location_id, state) = (%s, %s, %s)",
            [variation, place, state],
        )
        seller.control.advance(30 * 24 * 3600)
        conn.execute(
            "UPDATE square.inventory_counts SET calculated_at = %s WHERE quantity = 999",
            [moment(seller) - timedelta(hours=hours)],
        )
        summary = scanned(seller, "inventory_counts")
        assert plan(summary) == found
        assert summary.accounts["inventory_counts"].unproven == (found[2] == 0)
        if found[2]:
            repaired(seller, summary)
            assert rows(conn, "inventory_counts") == truth

    def test_false_count_is_not_kept_because_the_list_leaves_its_series_out(self, seller, conn, count):
        """Its own address shows an older count, so the series has not ended."""
        variation, place, state = count.split(":")
        seller.control.advance(30 * 24 * 3600)
        conn.execute(
            "UPDATE square.inventory_counts SET calculated_at = %s"
            " WHERE (catalog_object_id, location_id, state) = (%s, %s, %s)",
            [moment(seller) - timedelta(hours=30), variation, place, state],
        )

        with twisted(seller.context, without_counts(variation)) as context:
            summary = scanned(replace(seller, context=context), "inventory_counts")
        assert (plan(summary), summary.accounts["inventory_counts"].unproven) == (NOTHING, 1)

    @pytest.mark.parametrize("name", ["catalog_inventory", "inventory_counts"])
    def test_that_changes_while_the_list_is_read_is_young(self, seller, conn, count, name):
        """It moves to a page that was read already, so that only its look-up shows it."""
        variation, place, state = count.split(":")
        mine = {"catalog_object_id": variation, "location_id": place, "state": state}.items()
        changes = [Mutation("update", "counts", count, {"quantity": "17"})]

        def move(request, data):
            if "catalog_object_ids" in request.body:
                return data
            seller.control.advance(5)
            seller.control.mutate(*(changes.pop() for _ in list(changes)))
            return {**data, "counts": [row for row in data["counts"] if not mine <= row.items()]}

        with twisted(seller.context, always(move, "/v2/inventory/counts/batch-retrieve")) as context:
            summary = scanned(replace(seller, context=context), name)
        assert (plan(summary), summary.metrics["unproven"], summary.metrics["rows_young"]) == (NOTHING, 0, 1)
        fence.resume(conn, SOURCE.name, RUN)
        sync_entities(seller.context)
        assert 17 in {row["quantity"] for row in rows(conn, name).values()}

    def test_that_changed_before_the_list_hid_it_is_not_young(self, seller, conn, count):
        seller.control.mutate(Mutation("update", "counts", count, {"quantity": "17"}))
        sync_entities(seller.context)
        variation = count.split(":")[0]

        with twisted(seller.context, without_counts(variation)) as context:
            summary = scanned(replace(seller, context=context), "inventory_counts")
        assert (plan(summary), summary.metrics["rows_young"]) == (NOTHING, 0)

    def test_history_is_accounted_for(self, seller, conn, count):
        """Readings that the list shows no more are out of scope; all others are compared."""
        before = len(rows(conn, "inventory_counts"))
        seller.control.mutate(Mutation("update", "counts", count, {"quantity": "17"}))
        sync_entities(seller.context)
        account = scanned(seller, "inventory_counts").accounts["inventory_counts"]
        assert (account.listed, account.compared, account.live) == (before, before, before + 1)
        assert (account.equal, account.out_of_scope, account.not_proven) == (before, 1, 0)


TOMBSTONED = "UPDATE square.catalog_items SET deleted_at = now()"


def without(item: str):
    """Lists of items that leave one out; its own address shows it."""

    def lie(request, data):
        if not (request.path.endswith("catalog/search") and "ITEM" in request.body.get("object_types", [])):
            return data
        return {**data, "objects": [row for row in data.get("objects", []) if row["id"] != item]}

    return lie


class TestFallenVariations:
    @pytest.fixture
    def item(self, seller, conn) -> str:
        """An item with variations that have vendor infos."""
        infos = {row["variation_id"] for row in rows(conn, "catalog_vendor_info").values()}
        return next(row["item_id"] for id_, row in rows(conn, VARIATIONS).items() if id_ in infos)

    def variations(self, conn, item):
        return {id_ for id_, row in rows(conn, VARIATIONS).items() if row["item_id"] == item}

    @pytest.mark.parametrize("how", ["is_deleted = true", "deleted_at = now()"])
    def test_come_back_with_an_item_that_the_copy_has_lost(self, seller, conn, item, how):
        """A sync takes nothing out by the word of the copy; what is lost with the item comes back with it."""
        mine, before = self.variations(conn, item), contents(conn)
        conn.execute(f"UPDATE square.catalog_items SET {how} WHERE id = %s", [item])
        sync_entities(seller.context)
        assert self.variations(conn, item) == mine
        conn.execute("UPDATE square.catalog_variations SET deleted_at = now() WHERE item_id = %s", [item])
        gone = "UPDATE square.catalog_vendor_info SET deleted_at = now() WHERE variation_id = ANY (%s)"
        conn.execute(gone, [list(mine)])
        summaries = [scanned(seller, entity.name) for entity in SOURCE.entities]
        found = {summary.entity: summary for summary in summaries}
        assert plan(found[VARIATIONS])[0] >= len(mine)
        assert (found[VARIATIONS].proven, found[VARIATIONS].incomplete) == (found[VARIATIONS].rows, "")
        repaired(seller, *summaries)
        assert contents(conn) == before
        again = [scanned(seller, entity.name) for entity in SOURCE.entities]
        assert {plan(summary) for summary in again} == {NOTHING}

    @pytest.mark.parametrize("lose", ["DELETE FROM square.catalog_items", TOMBSTONED])
    def test_bring_back_an_item_that_no_list_shows(self, seller, conn, item, lose):
        """They depend on it, so the source is asked for it."""
        before = contents(conn)
        conn.execute(f"{lose} WHERE id = %s", [item])
        with twisted(seller.context, without(item)) as context:
            summary = scanned(replace(seller, context=context), ITEMS)
            assert plan(summary) == (1, 0, 0)
            repaired(replace(seller, context=context), summary)
        assert contents(conn) == before

    def test_that_come_back_without_their_item_leave_it_unproven(self, seller, conn, item):
        mine = self.variations(conn, item)
        conn.execute(f"{TOMBSTONED} WHERE id = %s", [item])
        conn.execute("UPDATE square.catalog_variations SET deleted_at = now() WHERE item_id = %s", [item])
        with twisted(seller.context, without(item)) as context:
            lied_to = replace(seller, context=context)
            summaries = [scanned(lied_to, entity.name) for entity in SOURCE.entities]
            assert doubts(conn, ITEMS) == {}
            repaired(lied_to, *summaries)
            assert mine <= set(rows(conn, VARIATIONS))
            assert doubts(conn, ITEMS).keys() == {item}
            assert plan(scanned(lied_to, ITEMS)) == (1, 0, 0)

    def test_whose_item_is_gone_are_no_doubt_for_good(self, seller, conn, item):
        """The scan asks for the item and finds that it is gone, so the repair has nothing to add."""
        conn.execute("DELETE FROM square.catalog_items WHERE id = %s", [item])

        def gone(request, data):
            if request.path.endswith(item):
                raise NotFound(f"{request}: 404")
            if "objects" not in data:
                return data
            return {**data, "objects": [row for row in data["objects"] if row["id"] != item]}

        with twisted(seller.context, gone) as context:
            asked = replace(seller, context=context)
            repaired(asked, *[scanned(asked, entity.name) for entity in SOURCE.entities])
        assert self.variations(conn, item)
        assert doubts(conn, ITEMS) == {}

    @pytest.mark.parametrize("batch", [Fault("status", BATCH, status=503), Fault("no_rows", BATCH)])
    def test_are_unproven_where_their_item_is_unknown(self, seller, conn, item, batch):
        """Those that the copy has, and those that it lacks; all others are compared."""
        mine = self.variations(conn, item)
        lost, other = min(mine), min(set(rows(conn, VARIATIONS)) - mine)
        conn.execute("UPDATE square.catalog_items SET is_deleted = true WHERE id = %s", [item])
        conn.execute("UPDATE square.catalog_variations SET deleted_at = now() WHERE id = %s", [lost])
        conn.execute("UPDATE square.catalog_variations SET name = 'by hand' WHERE id = %s", [other])

        def lie(request, data):
            batched = item in (request.body or {}).get("object_ids", [])
            if request.path.endswith(item) or (batched and batch.kind == "status"):
                raise TryLater("503", status=503)
            return {"objects": []} if batched else data

        with twisted(seller.context, lie) as context:
            summary = scanned(replace(seller, context=context), VARIATIONS)
        assert plan(summary) == (0, 1, 0)
        assert doubts(conn, VARIATIONS).keys() == mine
        assert all(f"{ITEMS} {item} could not be looked up: 503" in why for why in doubts(conn, VARIATIONS).values())
        assert summary.proven == summary.rows - len(mine)
        assert plan(scanned(seller, VARIATIONS)) == (1, 1, 0)
        assert doubts(conn, VARIATIONS) == {}

    def test_fall_with_an_item_whose_tombstone_comes_by_sync(self, seller, conn, item):
        """Their own list still shows them."""
        mine, others = self.variations(conn, item), set(rows(conn, VARIATIONS))
        seller.control.mutate(Mutation("delete", "items", item, cascade=False))
        sync_entities(seller.context)
        assert set(rows(conn, VARIATIONS)) == others - mine

    @pytest.mark.parametrize("how", ["sync", "scan"])
    def test_stay_if_one_list_alone_flags_an_item_that_the_copy_lacks(self, seller, conn, item, how):
        mine = self.variations(conn, item)
        conn.execute("DELETE FROM square.catalog_items WHERE id = %s", [item])
        seller.control.mutate(Mutation("update", "items", item, {"name": "News"}))

        def lie(request, data):
            listed = request.path.endswith(("catalog/search", "catalog/list")) and "objects" in data
            rows = [{**row, "is_deleted": row["id"] == item} for row in data["objects"]] if listed else []
            return {**data, "objects": rows} if listed else data

        with twisted(seller.context, lie) as context:
            if how == "sync":
                with pytest.raises(SyncFailed, match=f"{ITEMS}.*different content"):
                    sync_entities(context)
            else:
                assert plan(scanned(replace(seller, context=context), ITEMS)) == NOTHING
        assert mine <= set(rows(conn, VARIATIONS))
        fence.resume(conn, SOURCE.name, RUN)
        sync_entities(seller.context)
        assert mine <= set(rows(conn, VARIATIONS))

    def test_fall_with_an_item_whose_tombstone_comes_by_repair(self, seller, conn, item):
        """Their own list still shows them."""
        mine = self.variations(conn, item)
        seller.control.mutate(Mutation("update", "items", item, {"is_deleted": True}, silent=True))
        summaries = [scanned(seller, entity.name) for entity in SOURCE.entities]
        changed = {summary.entity: plan(summary) for summary in summaries if plan(summary) != NOTHING}
        assert changed == {ITEMS: (0, 1, 0)}
        repaired(seller, *summaries)
        assert mine
        assert not mine & set(rows(conn, VARIATIONS))
        infos = {row["variation_id"] for row in rows(conn, "catalog_vendor_info").values()}
        assert not mine & infos
        again = [scanned(seller, entity.name) for entity in SOURCE.entities]
        assert {plan(summary) for summary in again} == {NOTHING}


REFUSED = pytest.mark.parametrize(
    "fault",
    [Fault("status", status=403, code="INSUFFICIENT_SCOPES", times=None), Fault("errors", times=None)],
    ids=lambda fault: fault.kind,
)


def leaving_out(rows: str, key: str, of_list):
    """Lists that leave out the rows with this key; `of_list`: whether a request is for the list."""

    def lie(request, data):
        if not of_list(request):
            return data
        return {**data, rows: [row for row in data.get(rows, []) if key not in (row.get("id"), key_of(row))]}

    return lie


def key_of(row):
    return row.get("catalog_object_id"), row.get("location_id")


def of_stock(request):
    body = request.body or {}
    return "states" in body and "catalog_object_ids" not in body


def leaving_out_stock(request, data):
    return {**data, "counts": []} if of_stock(request) else data


class TestImpliedRows:
    """Lists that leave a row out for good, which the copy lacks too: other rows tell that it is there."""

    @pytest.fixture
    def stock(self, seller, conn) -> tuple:
        return next(iter(rows(conn, "catalog_inventory")))

    @pytest.mark.parametrize(
        ("name", "of_list", "listed"),
        [
            ("catalog_inventory", of_stock, "counts"),
            ("locations", lambda request: request.path == "/v2/locations", "locations"),
            ("orders", lambda request: request.path == "/v2/orders/search", "orders"),
            ("payments", lambda request: request.path == "/v2/payments", "payments"),
        ],
    )
    @pytest.mark.parametrize("lose", ["DELETE FROM square.{}", "UPDATE square.{} SET deleted_at = now()"])
    def test_come_back(self, seller, conn, name, of_list, listed, lose):
        if name == "payments":
            seller.control.mutate(Mutation("refund", "payments", seller.control.ids("payments")[0]))
            sync_entities(seller.context)
        refunded = "SELECT payment_id FROM square.order_refunds LIMIT 1"
        paid = "SELECT order_id FROM square.payments WHERE order_id IS NOT NULL LIMIT 1"
        query = {"payments": refunded, "orders": paid, "locations": "SELECT location_id FROM square.orders LIMIT 1"}
        stocked = "SELECT variation_id, location_id FROM square.catalog_inventory LIMIT 1"
        key = conn.execute(query.get(name, stocked)).fetchone()
        before = contents(conn)
        columns = "(variation_id, location_id)" if len(key) > 1 else "(id)"
        with conn.transaction():
            conn.execute("SET LOCAL session_replication_role = replica")
            conn.execute(f"{lose.format(name)} WHERE {columns} = ({', '.join(['%s'] * len(key))})", key)
        with twisted(seller.context, leaving_out(listed, key if len(key) > 1 else key[0], of_list)) as context:
            lied_to = replace(seller, context=context)
            summary = scanned(lied_to, name)
            assert (plan(summary), summary.metrics["unproven"]) == ((1, 0, 0), 0)
            repaired(lied_to, summary)
        assert contents(conn) == before

    def test_that_are_not_there_are_noise(self, seller, conn, stock):
        """A count of the history alone brings back no stock."""
        seller.control.mutate(Mutation("delete", "counts", ":".join((*stock, "IN_STOCK"))))
        conn.execute("DELETE FROM square.catalog_inventory WHERE (variation_id, location_id) = (%s, %s)", stock)
        summary = scanned(seller, "catalog_inventory")
        assert (plan(summary), summary.metrics["unproven"], summary.metrics["feed_noise"]) == (NOTHING, 0, 1)

    def test_that_are_not_there_are_not_what_the_list_leaves_out(self, seller, conn, stock):
        """Many of them don't make the list useless as evidence."""
        gone = [key for key in rows(conn, "catalog_inventory") if key[1] != stock[1]]
        seller.control.mutate(*(Mutation("delete", "counts", ":".join((*key, "IN_STOCK"))) for key in gone))
        conn.execute("DELETE FROM square.catalog_inventory WHERE location_id <> %s", stock[1:])
        summary = scanned(seller, "catalog_inventory")
        assert (plan(summary), summary.metrics["feed_noise"], summary.incomplete) == (NOTHING, len(gone), "")

    def test_that_can_not_be_stored_are_counted_once(self, seller, conn):
        """An order that its payment implies: neither its list nor its own address shows it in a form that is read."""
        (lost,) = conn.execute("SELECT order_id FROM square.payments WHERE order_id IS NOT NULL LIMIT 1").fetchone()
        with conn.transaction():
            conn.execute("SET LOCAL session_replication_role = replica")
            conn.execute("DELETE FROM square.orders WHERE id = %s", [lost])

        def spoil(request, data):
            orders = [row | {"created_at": "?"} if row["id"] == lost else row for row in data.get("orders", [])]
            return {**data, "orders": orders} if orders else data

        with twisted(seller.context, always(spoil, "/v2/orders/")) as context:
            account = scanned(replace(seller, context=context), "orders").accounts["orders"]
        assert (account.missing, account.missing_unproven) == (1, 1)
        assert doubts(conn, "orders").keys() == {lost}

    def test_that_nobody_tells_are_among_the_rows(self, seller, conn, stock):
        seller.control.fault(Fault("status", "inventory/counts/batch-retrieve", status=500, nth=2, times=None))
        conn.execute("DELETE FROM square.catalog_inventory WHERE (variation_id, location_id) = (%s, %s)", stock)
        live = len(rows(conn, "catalog_inventory"))
        with twisted(seller.context, leaving_out("counts", stock, of_stock)) as context:
            account = scanned(replace(seller, context=context), "catalog_inventory").accounts["catalog_inventory"]
        assert (account.rows, account.not_proven, account.proven) == (live + 1, 1, live)

    def test_beyond_the_budget_are_not_left_to_a_full_sync(self, seller, conn, monkeypatch):
        """Only scans look them up."""
        monkeypatch.setattr(second_look, "SECOND_LOOKS", 0)
        conn.execute("DELETE FROM square.catalog_inventory")
        with twisted(seller.context, leaving_out_stock) as context:
            summary = scanned(replace(seller, context=context), "catalog_inventory")
        assert "could not be proven" in summary.incomplete
        assert "mode full" not in summary.incomplete

    def test_of_deleted_variations_are_not_asked_for(self, seller, conn, stock):
        seller.control.mutate(Mutation("delete", "counts", ":".join((*stock, "IN_STOCK"))))
        conn.execute("DELETE FROM square.catalog_inventory WHERE (variation_id, location_id) = (%s, %s)", stock)
        conn.execute("UPDATE square.catalog_variations SET is_deleted = true WHERE id = %s", stock[:1])
        seller.control.reset_counters()
        summary = scanned(seller, "catalog_inventory")
        assert (plan(summary), summary.metrics["feed_noise"]) == (NOTHING, 0)
        assert seller.control.counters().total("GET inventory/{id}") == 0

    def test_are_unproven_where_a_repair_brings_what_implies_them(self, seller, conn, stock):
        conn.execute("DELETE FROM square.catalog_inventory WHERE (variation_id, location_id) = (%s, %s)", stock)
        of_series = "(catalog_object_id, location_id, state) = (%s, %s, 'IN_STOCK')"
        conn.execute(f"DELETE FROM square.inventory_counts WHERE {of_series}", stock)
        with twisted(seller.context, leaving_out("counts", stock, of_stock)) as context:
            lied_to = replace(seller, context=context)
            summaries = [scanned(lied_to, name) for name in ("catalog_inventory", "inventory_counts")]
            repaired(lied_to, *summaries)
            assert doubts(conn, "catalog_inventory").keys() == {stock}
            assert plan(scanned(lied_to, "catalog_inventory")) == (1, 0, 0)
        assert doubts(conn, "catalog_inventory") == {}


class TestOneLocation:
    def refuse(self, seller, fault, *endpoints):
        """Refuse the orders and payments of one location; returns its id and that of another."""
        refused, other = seller.control.ids("locations")[:2]
        for endpoint in endpoints or ("orders/search", "payments"):
            seller.control.fault(type(fault)(**{**vars(fault), "endpoint": endpoint, "location": refused}))
        return refused, other

    @REFUSED
    def test_leaves_the_others_in_step(self, seller, conn, fault):
        refused, other = self.refuse(seller, fault)
        query = "SELECT entity, partition, watermark FROM confidence.sync_state WHERE partition <> '' ORDER BY 1, 2"
        before = {(entity, place): moment for entity, place, moment in conn.execute(query)}
        there, elsewhere = seller.control.mutate(
            Mutation("create", "orders", fields={"location_id": refused}),
            Mutation("create", "orders", fields={"location_id": other}),
        )
        with pytest.raises(SyncFailed, match=f"orders: .*all of {refused}") as failed:
            sync_entities(seller.context)
        assert fault.kind == "errors" or "403 (INSUFFICIENT_SCOPES)" in str(failed.value)
        assert isinstance(failed.value, NeedsPerson) is (fault.kind == "status")
        orders = rows(conn, "orders")
        assert (there in orders, elsewhere in orders) == (False, True)
        assert elsewhere in {row["order_id"] for row in rows(conn, "payments").values()}
        after = {(entity, place): moment for entity, place, moment in conn.execute(query)}
        assert {key for key in before if after[key] == before[key]} == {("orders", refused), ("payments", refused)}
        seller.control.clear()
        sync_entities(seller.context)
        assert there in rows(conn, "orders")

    @REFUSED
    @pytest.mark.parametrize(("name", "endpoint"), [("orders", "orders/search"), ("payments", "payments")])
    def test_leaves_its_own_rows_unproven(self, seller, conn, fault, name, endpoint):
        refused, other = self.refuse(seller, fault, endpoint)
        lost = next(id_ for id_, row in rows(conn, name).items() if row["location_id"] == other)
        conn.execute(f"DELETE FROM square.{name} WHERE id = %s", [lost])
        there = {id_ for id_, row in rows(conn, name).items() if row["location_id"] == refused}
        summary = scanned(seller, name)
        assert plan(summary)[0] >= 1
        assert set(doubts(conn, name)) == {f"the list of {refused}", *there}
        assert there

    def test_is_asked_for_with_the_others_until_one_fails(self, seller, conn):
        places, asked = seller.control.ids("locations"), []

        def lie(request, data):
            if request.path == "/v2/orders/search":
                asked.append(tuple(sorted(request.body["location_ids"])))
                if places[0] in request.body["location_ids"] and failing:
                    raise TryLater("503")
            return data

        failing = False
        with twisted(seller.context, lie) as context:
            sync_entities(context)
            assert set(asked) == {tuple(sorted(places))}
            failing = True
            with pytest.raises(SyncFailed, match="503"):
                sync_entities(context)
        assert set(asked) == {tuple(sorted(places)), *((place,) for place in places)}

    def test_of_all_fails_as_one(self, seller, conn):
        seller.control.fault(Fault("status", "orders/search", status=401, times=None))
        with pytest.raises(NeedsPerson, match=r"orders: .*401 \(UNAUTHORIZED\)"):
            sync_entities(seller.context)

    @pytest.mark.parametrize("spoil", [{"created_at": "soon"}, {"tenders": [{"id": "T", "created_at": "soon"}]}])
    def test_with_too_many_orders_that_can_not_be_stored_leaves_the_others(self, seller, conn, spoil):
        place, other = seller.control.ids("locations")[:2]
        new, lost = seller.control.mutate(*(Mutation("create", "orders", fields={"location_id": other}),) * 2)

        def lie(request, data):
            if request.path == "/v2/orders/search" and place in request.body["location_ids"]:
                order = seller.control.row("orders", seller.control.ids("orders")[0])
                bad = [{**order, **spoil, "location_id": place, "id": f"BAD{number}"} for number in range(25)]
                return {**data, "orders": [*data.get("orders", []), *bad]}
            return data

        with (
            twisted(seller.context, lie) as context,
            pytest.raises(SyncFailed, match=f"orders: .*all of {place} .*could not be stored"),
        ):
            sync_entities(context)
        assert {new, lost} <= set(rows(conn, "orders"))
        conn.execute("DELETE FROM square.orders WHERE id = %s", [lost])
        with twisted(seller.context, lie) as context:
            summary = scanned(replace(seller, context=context), "orders")
        assert plan(summary)[0] >= 1
        found = conn.execute("SELECT key ->> 0 FROM confidence.unproven WHERE key ->> 0 LIKE 'the list of %'")
        assert found.fetchall() == [(f"the list of {place}",)]
        assert summary.proven < summary.rows

    def test_whose_only_return_can_not_be_stored_is_synced(self, seller, conn):
        """A sync shows it twice, in what changed and in what is new: all rows of that table are refused."""
        (new,) = seller.control.mutate(
            Mutation("create", "orders", fields={"location_id": seller.control.ids("locations")[0]})
        )

        def lie(request, data):
            orders = data.get("orders", [])
            return {**data, "orders": [row | {"returns": [{}]} if row["id"] == new else row for row in orders]}

        with twisted(seller.context, always(lie, "/v2/orders/search")) as context:
            sync_entities(context)
        assert new in rows(conn, "orders")
        assert conn.execute("SELECT DISTINCT entity FROM confidence.quarantine").fetchall() == [("order_returns",)]

    def test_with_too_many_rows_that_can_not_be_stored_is_read_again_after_a_sync_that_died(self, seller, conn):
        """No table of its orders goes on from where another one has to start again."""
        place, other = seller.control.ids("locations")[:2]
        (new,) = seller.control.mutate(Mutation("create", "orders", fields={"location_id": place}))

        def lie(request, data):
            if request.path == "/v2/orders/search" and request.body["location_ids"] == [other]:
                raise RuntimeError("killed")
            if request.path == "/v2/orders/search" and place in request.body["location_ids"]:
                tenders = [{"id": f"BAD{number}", "created_at": "soon"} for number in range(25)]
                return {**data, "orders": [row | {"tenders": tenders} for row in data.get("orders", [])]}
            return data

        with twisted(seller.context, lie) as context, pytest.raises(RuntimeError, match="killed"):
            sync_entities(context)
        sync_entities(seller.context)
        assert new in rows(conn, "orders")
        assert new in {row["order_id"] for row in rows(conn, "tenders").values()}

    def test_with_few_payments_that_can_not_be_stored_is_left_out_where_all_have_too_many(self, seller, conn):
        *bad, other = seller.control.ids("locations")
        (new,) = seller.control.mutate(Mutation("create", "orders", fields={"location_id": other}))
        payment = seller.control.row("payments", seller.control.ids("payments")[0])

        def lie(request, data):
            place = request.params.get("location_id")
            if request.path != "/v2/payments" or place not in bad:
                return data
            more = [{**payment, "location_id": place, "id": f"{place}-{n}", "created_at": "soon"} for n in range(12)]
            return {**data, "payments": [*data.get("payments", []), *more]}

        with twisted(seller.context, lie) as context, pytest.raises(SyncFailed, match="payments: ") as failed:
            sync_entities(context, full=True)
        assert [f"all of {place} (" in str(failed.value) for place in (*bad, other)] == [True, True, False]
        assert new in {row["order_id"] for row in rows(conn, "payments").values()}


class TestLocationThatTheCopyLacks:
    """What the source lists of locations tells where to look, beside the copy."""

    @pytest.fixture
    def place(self, seller, conn) -> str:
        place = seller.control.ids("locations")[2]
        conn.execute("UPDATE square.locations SET deleted_at = now() WHERE id = %s", [place])
        return place

    @pytest.mark.parametrize("name", ["orders", "payments"])
    def test_has_its_rows_in_the_scan(self, seller, conn, place, name):
        lost = next(id_ for id_, row in rows(conn, name).items() if row["location_id"] == place)
        conn.execute(f"UPDATE square.{name} SET deleted_at = now() WHERE id = %s", [lost])
        summaries = [scanned(seller, entity.name) for entity in SOURCE.entities]
        found = {summary.entity: plan(summary) for summary in summaries}
        assert (found["locations"], found[name]) == ((1, 0, 0), (1, 0, 0))
        assert all((summary.proven, summary.incomplete) == (summary.rows, "") for summary in summaries)
        repaired(seller, *summaries)
        assert lost in rows(conn, name)
        assert {plan(scanned(seller, entity.name)) for entity in SOURCE.entities} == {NOTHING}

    @pytest.mark.parametrize("name", ["orders", "payments"])
    def test_is_unproven_where_one_scan_alone_was_told_of_it(self, seller, conn, place, name):
        # A refund proves its payment and its order, so its own scan would bring them.
        proven = {id_ for row in rows(conn, "order_refunds").values() for id_ in (row["payment_id"], row["order_id"])}
        at_place = (id_ for id_, row in rows(conn, name).items() if row["location_id"] == place)
        lost = next(id_ for id_ in at_place if id_ not in proven)
        for part in entity_of(SOURCE, name).parts:
            conn.execute(f"DELETE FROM {part.table.full_name} WHERE {part.by[0]} = %s", [lost])
        conn.execute(f"DELETE FROM square.{name} WHERE id = %s", [lost])

        def lie(request, data):
            return {**data, "locations": [row for row in data["locations"] if row["id"] != place]}

        with twisted(seller.context, always(lie, "/v2/locations")) as context:
            told_less = scanned(replace(seller, context=context), name)
        others = [scanned(seller, entity.name) for entity in SOURCE.entities if entity.name != name]
        repaired(seller, *others, told_less)
        assert list(doubts(conn, name)) == [f"the list of {place}"]
        assert lost not in rows(conn, name)
        repaired(seller, *(scanned(seller, entity.name) for entity in SOURCE.entities))
        assert lost in rows(conn, name)
        assert doubts(conn, name) == {}

    def test_is_unknown_where_nobody_lists_it(self, seller, conn, place):
        seller.control.fault(Fault("status", "locations", status=503, times=None))
        with pytest.raises(ApiError, match="503"):
            scanned(seller, "orders")

    def test_has_its_rows_validated(self, seller, conn, place):
        lost = next(id_ for id_, row in rows(conn, "payments").items() if row["location_id"] == place)
        conn.execute("DELETE FROM square.payments WHERE id = %s", [lost])
        with pytest.raises(IntegrityFailed, match=f"payments_count: .*missing {lost}"):
            validate(seller.context)

    def test_is_synced_though_it_can_not_be_stored_itself(self, seller, conn):
        (new,) = seller.control.mutate(Mutation("create", "locations", fields={"name": "A\0B"}))
        (order,) = seller.control.mutate(Mutation("create", "orders", fields={"location_id": new}))
        sync_entities(seller.context)
        assert new not in rows(conn, "locations")
        assert order in rows(conn, "orders")
        assert order in {row["order_id"] for row in rows(conn, "payments").values()}

    def test_may_be_one_that_a_sync_could_not_ask_for(self, seller, conn):
        (order,) = seller.control.mutate(Mutation("create", "orders"))
        asked = []

        def lie(request, data):
            asked.extend([request] if request.path == "/v2/locations" else [])
            if request.path == "/v2/locations" and 1 < len(asked) < 5:
                raise TryLater("503", status=503)
            return data

        with (
            twisted(seller.context, lie) as context,
            pytest.raises(SyncFailed, match=r"orders: .*perhaps all of locations that the copy lacks \(503"),
        ):
            sync_entities(context)
        assert order in rows(conn, "orders")

    def test_whose_list_is_refused_needs_a_person(self, seller, conn):
        """The sync reads the locations that the copy has, and is not tried again for the others."""

        def lie(request, data):
            if request.path == "/v2/locations":
                raise FixConfiguration("square: GET /v2/locations answered 403", status=403)
            return data

        with twisted(seller.context, lie) as context:
            places, (problem,) = partitions_to_read(context, entity_of(SOURCE, "orders"))
        assert set(places) == set(rows(conn, "locations"))
        assert problem.needs_person
        with twisted(seller.context, always(lambda *_: {"errors": []}, "/v2/locations")) as context:
            _, (problem,) = partitions_to_read(context, entity_of(SOURCE, "orders"))
        assert not problem.needs_person


class TestPoorerRecords:
    @pytest.fixture
    def order(self, seller, conn) -> str:
        return seller.control.ids("orders")[0]

    def lie(self, seller, kind, **lie):
        """Of all orders, in list, batch and at the own address."""
        for endpoint in ("orders/search", "orders/batch-retrieve", "orders/{id}"):
            seller.control.fault(Fault(kind, endpoint, rows=1_000, times=None, **lie))

    @pytest.mark.parametrize("field", ["state", "location_id", "updated_at", "created_at"])
    def test_order_without_what_every_order_has_overwrites_nothing(self, seller, conn, field):
        """Not even where all answers agree."""
        before = contents(conn)
        self.lie(seller, "poorer", fields=(field,))
        with pytest.raises(Exception, match=r"could not be stored|not proven"):
            sync_entities(seller.context, full=True)
        assert contents(conn) == before

    @pytest.mark.parametrize(
        ("field", "orders"),
        [("version", 30), ("tenders", 30), ("returns", 30), ("line_items.total_money", 30), ("line_items", 2)],
    )
    def test_one_poorer_answer_changes_nothing(self, seller, conn, field, orders):
        before = contents(conn)
        seller.control.fault(Fault("poorer", "orders/search", rows=orders, fields=(field,), times=None))
        summary = scanned(seller, "orders")
        assert (plan(summary), summary.metrics["unproven"]) == (NOTHING, 0)
        fence.resume(conn, SOURCE.name, RUN)
        sync_entities(seller.context, full=True)
        assert contents(conn) == before

    def test_list_of_orders_without_lines_is_no_list(self, seller, conn):
        before = contents(conn)
        seller.control.fault(Fault("poorer", "orders/search", rows=30, fields=("line_items",), times=None))
        summary = scanned(seller, "orders")
        assert plan(summary) == NOTHING
        assert "nobody knows what else it leaves out" in summary.incomplete
        fence.resume(conn, SOURCE.name, RUN)
        with pytest.raises(SyncFailed, match=r"rows of square\.orders could not be stored"):
            sync_entities(seller.context, full=True)
        assert contents(conn) == before

    def test_one_answer_of_the_same_version_with_other_content_changes_nothing(self, seller, conn):
        before = contents(conn)
        lie = Fault("changed", "orders/search", rows=3, changes={"ticket_name": "Lie"}, times=None)
        seller.control.fault(lie)
        summary = scanned(seller, "orders")
        assert (plan(summary), summary.metrics["feed_noise"]) == (NOTHING, 3)
        fence.resume(conn, SOURCE.name, RUN)
        sync_entities(seller.context, full=True)
        assert contents(conn) == before

    def test_two_answers_of_the_same_version_are_believed(self, seller, conn, order):
        seller.control.mutate(Mutation("update", "orders", order, {"ticket_name": "Silent"}, silent=True))
        assert plan(scanned(seller, "orders")) == (0, 1, 0)

    def test_swapped_ids_change_nothing(self, seller, conn):
        before = contents(conn)
        seller.control.fault(Fault("swapped", "orders/search", rows=2, times=None))
        scanned(seller, "orders")
        fence.resume(conn, SOURCE.name, RUN)
        with pytest.raises(SyncFailed, match="older version than its list"):
            sync_entities(seller.context, full=True)
        assert contents(conn) == before

    def test_batch_that_swaps_ids_changes_nothing(self, seller, conn):
        """Both orders have changed: the list shows one content, the batch another."""
        both = seller.control.ids("orders")[:2]
        seller.control.mutate(*(Mutation("update", "orders", o, {"ticket_name": f"of {o}"}, silent=True) for o in both))
        seller.control.fault(Fault("swapped", "orders/batch-retrieve", rows=2))
        summary = scanned(seller, "orders")
        assert (plan(summary), doubts(conn, "orders").keys()) == (NOTHING, set(both))
        assert plan(scanned(seller, "orders")) == (0, 2, 0)

    @pytest.mark.parametrize("fields", [{"ticket_name": "Lie"}, {"line_items": None, "total_money": None}])
    def test_batch_alone_changes_nothing(self, seller, conn, fields):
        """The list leaves the order out, or shows it as the copy has it."""
        before = contents(conn)
        seller.control.fault(
            Fault("missing_rows", "orders/search", rows=2),
            Fault("changed", "orders/batch-retrieve", changes=fields),
        )
        summary = scanned(seller, "orders")
        assert (plan(summary), len(doubts(conn, "orders"))) == (NOTHING, 1)
        assert contents(conn) == before

    def test_line_that_stands_twice_is_no_order(self, seller, conn):
        before = contents(conn)
        seller.control.fault(Fault("doubled", "orders/search", rows=1, fields=("line_items",), times=None))
        summary = scanned(seller, "orders")
        assert (plan(summary), summary.incomplete) == (NOTHING, "")
        assert contents(conn) == before

    def test_new_order_without_the_lines_of_its_total_is_not_stored(self, seller, conn):
        (order,) = seller.control.mutate(Mutation("create", "orders"))
        self.lie(seller, "poorer", fields=("line_items",))
        with pytest.raises(SyncFailed, match="orders"):
            sync_entities(seller.context)
        assert order not in rows(conn, "orders")
        seller.control.clear()
        sync_entities(seller.context)
        assert order in rows(conn, "orders")
        assert order in {key[0] for key in rows(conn, "order_line_items")}

    def test_new_order_that_the_list_alone_has_spoilt_is_stored(self, seller, conn):
        """As the batch shows it, whatever else has changed: the copy has nothing that it could overwrite."""
        (new,) = seller.control.mutate(
            Mutation("create", "orders"),
            Mutation("update", "orders", seller.control.ids("orders")[0], {"ticket_name": "Changed"}),
        )[:1]

        def lie(request, data):
            orders = [{**row, "created_at": "soon"} if row["id"] == new else row for row in data.get("orders", [])]
            return {**data, "orders": orders}

        with twisted(seller.context, always(lie, "/v2/orders/search")) as context:
            sync_entities(context)
        assert new in rows(conn, "orders")
        assert new in {key[0] for key in rows(conn, "order_line_items")}
        assert "Changed" in {row["ticket_name"] for row in rows(conn, "orders").values()}

    def test_order_comes_back_over_its_tombstone_where_list_and_batch_show_the_same(self, seller, conn, order):
        conn.execute("UPDATE square.orders SET deleted_at = now() WHERE id = %s", [order])
        seller.control.fault(Fault("changed", "orders/search", rows=30, changes={"ticket_name": "Lie"}, times=None))
        summary = scanned(seller, "orders")
        assert (plan(summary), doubts(conn, "orders").keys()) == (NOTHING, {order})
        seller.control.clear()
        assert plan(scanned(seller, "orders")) == (1, 0, 0)

    def test_stub_of_an_object_is_no_tombstone(self, seller, conn):
        first = seller.control.ids("categories")[0]
        before = contents(conn)
        fields = ("category_data", "version", "updated_at", "present_at_all_locations")
        for endpoint in (SEARCH, BATCH, OBJECT):
            seller.control.fault(Fault("poorer", endpoint, fields=fields, times=None))
        summary = scanned(seller, CATEGORIES)
        assert (plan(summary), doubts(conn, CATEGORIES).keys()) == (NOTHING, {first})
        assert contents(conn) == before


class TestAnswersToAnotherQuestion:
    @pytest.mark.parametrize(
        ("name", "endpoint", "changes"),
        [
            (CATEGORIES, SEARCH, {"type": "ITEM"}),
            ("orders", "orders/search", {"location_id": "ELSEWHERE"}),
            ("payments", "payments", {"location_id": "ELSEWHERE"}),
            ("catalog_inventory", "inventory/counts/batch-retrieve", {"state": "WASTE"}),
        ],
    )
    def test_are_none(self, seller, conn, name, endpoint, changes):
        seller.control.fault(Fault("changed", endpoint, changes=changes, times=None))
        with pytest.raises(ApiError, match="than was asked for"):
            scanned(seller, name)

    @pytest.mark.parametrize(
        ("name", "endpoint"), [("locations", "locations"), (CATEGORIES, SEARCH), (VARIATIONS, SEARCH)]
    )
    def test_nothing_at_all_is_none(self, seller, conn, name, endpoint):
        seller.control.fault(Fault("status", endpoint, status=200, body="nothing", times=None))
        with pytest.raises(ApiError, match=r"every seller has some|every such answer has|no list"):
            scanned(seller, name)


class TestDefaultFilters:
    @pytest.mark.parametrize("listed", [True, False])
    def test_payments_taken_offline_are_mirrored(self, seller, conn, listed):
        """Whether the list leaves them out or not, unless it is asked for them."""
        seller.control.set(offline_payments_listed=listed)
        (order,) = seller.control.mutate(Mutation("create", "orders"))
        payment = seller.control.row("orders", order)["tenders"][0]["payment_id"]
        seller.control.mutate(Mutation("update", "payments", payment, {"is_offline_payment": True}, silent=True))
        sync_entities(seller.context)
        assert rows(conn, "payments")[payment]["is_offline_payment"] is True
        conn.execute("DELETE FROM square.payments WHERE is_offline_payment")
        offline = [id_ for id_ in seller.control.ids("payments") if is_offline(seller, id_)]
        summary = scanned(seller, "payments")
        assert (plan(summary), summary.metrics["unproven"]) == ((len(offline), 0, 0), 0)

    @pytest.mark.parametrize("name", [entity.name for entity in SOURCE.entities])
    def test_nothing_that_the_seller_has_is_missing(self, seller, conn, name):
        """Closed locations, inactive vendors, tombstones, every state of orders, every location's payments."""
        seller.control.set(offline_payments_listed=False)
        seller.control.mutate(
            Mutation("update", "vendors", seller.control.ids("vendors")[0], {"status": "INACTIVE"}),
            *(Mutation("create", "orders", fields={"state": s}) for s in ("OPEN", "DRAFT", "CANCELED", "COMPLETED")),
        )
        sync_entities(seller.context)
        assert plan(scanned(seller, name)) == NOTHING
        kinds = {"catalog_inventory": "counts", "inventory_counts": "counts", "order_refunds": "refunds"}
        kind = kinds.get(name, name.removeprefix("catalog_"))
        keys = {":".join(key[:3]) if isinstance(key, tuple) else key for key in rows(conn, name)}
        expected = seller.control.ids(kind)
        if name == "catalog_inventory":
            expected = [id_.removesuffix(":IN_STOCK") for id_ in expected if id_.endswith(":IN_STOCK")]
        assert keys == set(expected)


def is_offline(seller, payment):
    return seller.control.row("payments", payment).get("is_offline_payment", False)


def test_quiet_seller_is_not_behind_after_its_first_sync(seller, conn):
    """The catalog's watermark is the time of its last change, long ago."""
    (oldest,) = conn.execute("SELECT min(watermark) FROM confidence.sync_state").fetchone()
    assert oldest.year < 2026
    figures = health.read(conn, "square")
    assert {table.table for table in figures.tables} >= {entity.name for entity in SOURCE.entities}
    assert max(table.freshness.total_seconds() for table in figures.tables) < 3600


class TestSpoiltAnswers:
    """One spoilt record keeps no others out, and nothing goes by one answer."""

    def test_newer_item_that_says_once_that_it_is_deleted_takes_no_variations_out(self, seller, conn):
        item = next(row["item_id"] for row in rows(conn, VARIATIONS).values())
        mine = {id_ for id_, row in rows(conn, VARIATIONS).items() if row["item_id"] == item}
        seller.control.mutate(Mutation("update", "items", item, {"name": "Renamed"}))
        told = []

        def lie(request, data):
            if request.path == "/v2/catalog/search" and not told:
                for each in data.get("objects", []):
                    if each["id"] == item:
                        told.append(each["id"])
                        each["is_deleted"] = True
            return data

        with twisted(seller.context, lie) as context, suppress(SyncFailed):
            sync_entities(context)
        assert told
        assert mine <= set(rows(conn, VARIATIONS))

    def test_id_that_a_batch_can_not_answer_leaves_the_others(self, seller, conn):
        """15 orders drift; a batch that holds one certain id is refused for good."""
        ids = seller.control.ids("orders")
        bad, drifted = ids[0], ids[:15]
        conn.execute("UPDATE square.orders SET ticket_name = 'by hand' WHERE id = ANY (%s)", [drifted])

        def lie(request, data):
            if request.path == "/v2/orders/batch-retrieve" and bad in request.body["order_ids"]:
                raise TryLater("batch answered 500", status=500)
            return data

        with twisted(seller.context, lie) as context:
            summary = scanned(replace(seller, context=context), "orders")
        assert summary.incomplete == ""
        assert plan(summary)[1] == 14

    def test_row_that_nobody_asked_for_in_a_batch_leaves_the_others(self, seller, conn):
        """What is shown beside it is told; what isn't may have been replaced by it."""
        ids = seller.control.ids("orders")
        hidden, drifted = ids[0], ids[:15]
        conn.execute("UPDATE square.orders SET ticket_name = 'by hand' WHERE id = ANY (%s)", [drifted])

        def lie(request, data):
            if request.path != "/v2/orders/batch-retrieve":
                return data
            return {**data, "orders": [{**row, "id": "X"} if row["id"] == hidden else row for row in data["orders"]]}

        with twisted(seller.context, lie) as context:
            summary = scanned(replace(seller, context=context), "orders")
        assert (plan(summary), summary.incomplete, doubts(conn, "orders").keys()) == ((0, 14, 0), "", {hidden})

    def test_row_that_comes_with_every_batch_leaves_all(self, seller, conn):
        drifted = seller.control.ids("orders")[:15]
        conn.execute("UPDATE square.orders SET ticket_name = 'by hand' WHERE id = ANY (%s)", [drifted])
        conn.execute("UPDATE square.inventory_counts SET quantity = quantity + 1 WHERE state = 'IN_STOCK'")

        def lie(request, data):
            names = {"/v2/orders/batch-retrieve": "orders", "/v2/inventory/counts/batch-retrieve": "counts"}
            name = names.get(request.path)
            asked = request.body and ("order_ids" in request.body or "catalog_object_ids" in request.body)
            if not asked or not data.get(name):
                return data
            return {**data, name: [*data[name], {**data[name][0], "id": "X", "catalog_object_id": "X"}]}

        with twisted(seller.context, lie) as context:
            orders = scanned(replace(seller, context=context), "orders")
            counts = scanned(replace(seller, context=context), "inventory_counts")
        assert (plan(orders), doubts(conn, "orders")) == ((0, 15, 0), {})
        assert (plan(counts)[1] > 0, doubts(conn, "inventory_counts")) == (True, {})

    def test_payment_that_is_dated_in_the_future_is_not_young_for_ever(self, seller, conn):
        id_ = seller.control.ids("payments")[0]

        def lie(request, data):
            for each in data.get("payments", []) if isinstance(data, dict) else []:
                if each["id"] == id_:
                    each["updated_at"] = "2099-01-01T00:00:00.000Z"
            if isinstance(data, dict) and data.get("payment", {}).get("id") == id_:
                data["payment"]["updated_at"] = "2099-01-01T00:00:00.000Z"
            return data

        with twisted(seller.context, lie) as context:
            sync_entities(context, full=True)
            assert rows(conn, "payments")[id_]["updated_at"].startswith("2099")
            conn.execute("UPDATE square.payments SET note = 'by hand' WHERE id = %s", [id_])
            sync_entities(context)
            summary = scanned(replace(seller, context=context), "payments")
        assert plan(summary)[1] == 1 or summary.proven < summary.rows

    def test_newer_payment_that_has_lost_its_amount_is_looked_at_twice(self, seller, conn):
        id_ = seller.control.ids("payments")[0]
        seller.control.mutate(Mutation("update", "payments", id_, {"note": "x"}))
        was = rows(conn, "payments")[id_]
        told = []

        def lie(request, data):
            for each in data.get("payments", []) if isinstance(data, dict) else []:
                if each["id"] == id_:
                    told.append(1)
                    each["order_id"] = None
                    each["total_money"] = None
            return data

        with twisted(seller.context, lie) as context, suppress(SyncFailed):
            sync_entities(context)
        assert told
        now = rows(conn, "payments")[id_]
        assert (now["order_id"], now["total_money"]) == (was["order_id"], was["total_money"])

    def test_time_without_an_offset_is_utc(self, seller, conn):
        def lie(request, data):
            if isinstance(data, dict) and data.get("latest_time"):
                return {**data, "latest_time": data["latest_time"].rstrip("Z").split("+")[0]}
            return data

        with twisted(seller.context, lie) as context:
            sync_entities(context)

    def test_line_that_can_not_be_read_keeps_no_others_from_going(self, seller, conn):
        lines = rows(conn, "order_line_items")
        orders = sorted({o for o, _ in lines})
        bad = orders[0]
        # A line that the copy has in another order and that its order does not have.
        other = orders[1]
        conn.execute(
            "INSERT INTO square.order_line_items (order_id, uid, quantity, sync_id) VALUES (%s, 'surplus', 1, 0)",
            [other],
        )

        def spoil(order):
            if order.get("id") == bad:
                order["line_items"][0]["quantity"] = "many"

        def lie(request, data):
            if isinstance(data, dict):
                for order in data.get("orders", []):
                    spoil(order)
                if "order" in data:
                    spoil(data["order"])
            return data

        with twisted(seller.context, lie) as context:
            summary = scanned(replace(seller, context=context), "orders")
        assert plan(summary)[2] == 1


class TestQuietCatalog:
    """Its `latest_time` is that of its last change, however long ago that was. It is no clock."""

    def test_change_that_no_sync_has_brought_for_days_is_drift(self, seller, conn):
        seller.control.mutate(Mutation("update", "items", seller.control.ids("items")[0], {"name": "Renamed"}))
        assert scanned(seller, ITEMS).metrics["rows_young"] == 1
        seller.control.advance(3 * 24 * 3600)
        summary = scanned(replace(seller, context=replace(seller.context, run="square_reconcile/later")), ITEMS)
        assert (plan(summary), summary.metrics["rows_young"]) == ((0, 1, 0), 0)

    def test_version_that_square_never_had_is_taken_back_after_a_day(self, seller, conn):
        truth = rows(conn, ITEMS)
        lie = "UPDATE square.catalog_items SET name = 'Lie', version = version + 1, updated_at = %s"
        conn.execute(lie, [moment(seller)])
        seller.control.advance(3 * 24 * 3600)
        summary = scanned(seller, ITEMS)
        assert (plan(summary), summary.metrics["unproven"]) == ((0, len(truth), 0), 0)
        repaired(seller, summary)
        assert rows(conn, ITEMS) == truth
