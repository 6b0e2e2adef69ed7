"""RepairShopr's answers that are no answers, and the habits of its lists that nobody documents."""

import time

import pytest

from include.api.errors import ApiError
from include.simulators.repairshopr import Fault, Mutation
from include.sources.base import SyncFailed, entity_of
from include.sources.mirror.repair import repair_entities
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence

from .conftest import RUN, SOURCE
from .twisted import always, twisted

SIZES = {
    "customers": 40,
    "invoices": 50,
    "line_items": 120,
    "payments": 25,
    "products": 19,
    "tickets": 10,
    "estimates": 5,
}


@pytest.fixture
def shop(open_shop):
    return open_shop(**SIZES)


@pytest.fixture
def synced(shop):
    sync_entities(shop.context)
    return shop


def scanned(shop, name):
    writer = fence.stop(shop.context.conn, SOURCE.name, RUN, timeout=1)
    return scan_entity(shop.context, entity_of(SOURCE, name), writer.epoch, Scope())


def live(conn, table):
    return {key for (key,) in conn.execute(f"SELECT id FROM repairshopr.{table} WHERE deleted_at IS NULL")}


def changes(summary):
    return summary.plan.insert, summary.plan.update, summary.plan.delete


def test_disabled_customers_are_mirrored(synced, conn):
    disabled = {id_ for id_ in synced.control.ids("customers") if synced.control.row("customers", id_)["disabled"]}
    assert disabled
    assert live(conn, "customers") == set(synced.control.ids("customers"))
    assert changes(scanned(synced, "customers")) == (0, 0, 0)


def test_disabled_products_that_the_list_hides_stay(synced, conn):
    synced.control.set(disabled_products_listed=False)
    products = [synced.control.row("products", id_) for id_ in synced.control.ids("products")]
    enabled = next(row["id"] for row in products if not row["disabled"])
    synced.control.mutate(Mutation("update", "products", enabled, {"disabled": True}))
    summary = scanned(synced, "products")
    assert (summary.plan.delete, summary.metrics["unproven"]) == (0, 0)
    assert summary.plan.update == 1


@pytest.mark.parametrize("past_end", ["empty", "last", "first"])
@pytest.mark.parametrize("name", ["payments", "estimates"])
def test_list_that_is_asked_for_a_page_past_its_end(shop, conn, past_end, name):
    """Where its last page is full, or its only page is short."""
    shop.control.set(past_end=past_end, page_sizes={"payments": 5})
    sync_entities(shop.context, only=name)
    assert live(conn, name) == set(shop.control.ids(name))
    summary = scanned(shop, name)
    assert (changes(summary), summary.metrics["unproven"], summary.incomplete) == ((0, 0, 0), 0, "")


def test_list_without_totals_that_repeats_its_only_page_may_ignore_page_numbers(shop, conn):
    shop.control.set(past_end="last")
    with pytest.raises(SyncFailed, match=r"products: .*goes in circles"):
        sync_entities(shop.context, only="products")


def test_page_of_rows_inserted_ahead_is_no_loop(synced, conn):
    """Page 2 is then the very page 1 once more."""
    synced.control.on_page("invoices", 1, *[Mutation("insert", "invoices", where="behind", page=1)] * 25)
    summary = scanned(synced, "invoices")
    assert summary.metrics["api_duplicate_rows"] == 25
    assert (summary.plan.delete, summary.metrics["unproven"]) == (0, 0)


@pytest.mark.parametrize("embedded", [False, True])
def test_lines_that_lag_behind_their_invoice_come_with_the_next_sync(synced, conn, embedded):
    control = synced.control
    control.lag("line_items", embedded=embedded)
    (invoice,) = control.mutate(Mutation("insert", "invoices"))
    (line,) = control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice}))
    sync_entities(synced.context)
    assert invoice in live(conn, "invoices")
    assert line not in live(conn, "line_items")
    control.catch_up()
    sync_entities(synced.context)
    assert line in live(conn, "line_items")


@pytest.mark.parametrize("body", ["alone", "error", "message", "messages", "html"])
@pytest.mark.parametrize("resource", ["customers", "line_items"])
def test_error_with_200_is_no_list(synced, conn, body, resource):
    before = live(conn, resource)
    synced.control.fault(Fault("status", status=200, body=body, resource=resource, times=None))
    with pytest.raises(SyncFailed):
        sync_entities(synced.context, full=True)
    assert live(conn, resource) == before
    with pytest.raises(ApiError):
        scanned(synced, resource)


def test_error_beside_rows_is_no_list(synced, conn):
    synced.control.fault(Fault("error_beside", resource="customers", rows=(0, 1), times=None))
    with pytest.raises(ApiError, match="carries 'error'"):
        scanned(synced, "customers")


@pytest.mark.parametrize("beside", [{"message": "temporarily unavailable"}, {"code": 503, "msg": "busy"}])
@pytest.mark.parametrize("resource", ["tickets", "payments"])
def test_message_beside_an_empty_list_is_no_empty_list(synced, conn, resource, beside):
    query = "SELECT watermark FROM confidence.sync_state WHERE entity = %s"
    before = conn.execute(query, [resource]).fetchall()
    lie = always(lambda request, data: {resource: [], **beside}, f"/{resource}")
    told = f"{resource}.*{next(iter(beside))!r}"
    with twisted(synced.context, lie) as context, pytest.raises(SyncFailed, match=told):
        sync_entities(context)
    assert conn.execute(query, [resource]).fetchall() == before


@pytest.mark.parametrize("resource", ["invoices", "tickets"])
def test_change_that_the_list_of_changes_never_shows_is_found_at_night(synced, conn, resource):
    """That list is empty for good, and says so of itself. The list of all shows the change."""
    name = {"invoices": "note", "tickets": "subject"}[resource]
    (id_,) = conn.execute(f"SELECT min(id) FROM repairshopr.{resource}").fetchone()
    synced.control.mutate(Mutation("update", resource, id_, {name: "changed"}))
    # The source tells the time in seconds.
    time.sleep(2)

    def lie(request, data):
        if request.path != f"/{resource}" or "since_updated_at" not in request.params:
            return data
        return {resource: [], "meta": {"total_pages": 0, "total_entries": 0, "per_page": 25, "page": 1}}

    with twisted(synced.context, lie) as context:
        for _ in range(2):
            sync_entities(context)
    summary = scanned(synced, resource)
    assert (changes(summary), summary.metrics["rows_young"]) == ((0, 1, 0), 0)
    repair_entities(synced.context, [summary])
    changed = conn.execute(f"SELECT {name} FROM repairshopr.{resource} WHERE id = %s", [id_]).fetchone()
    assert changed == ("changed",)


def test_message_beside_an_invoice_without_lines_proves_no_absence(synced, conn):
    before = live(conn, "line_items")
    (invoice,) = conn.execute("SELECT min(invoice_id) FROM repairshopr.line_items").fetchone()
    synced.control.mutate(Mutation("update", "invoices", invoice, {"note": "changed"}))

    def lie(request, data):
        if "invoice" in data:
            return {"invoice": {**data["invoice"], "line_items": []}, "message": "temporarily unavailable"}
        return {**data, "line_items": [], "meta": {}} if request.params.get("invoice_id") else data

    with twisted(synced.context, always(lie, "/")) as context, pytest.raises(SyncFailed, match="'message'"):
        sync_entities(context)
    assert live(conn, "line_items") == before


@pytest.mark.parametrize("kind", ["stub", "other", "error_beside"])
def test_second_look_that_is_no_answer_proves_nothing(synced, conn, kind):
    first = synced.control.ids("tickets")[0]
    synced.control.fault(
        Fault("missing_rows", resource="tickets", page=1, rows=(0,)),
        Fault(kind, resource="tickets", item=str(first), changes={"deleted": True}, times=None),
    )
    summary = scanned(synced, "tickets")
    assert (changes(summary), summary.metrics["unproven"]) == ((0, 0, 0), 1)


@pytest.mark.parametrize("form", ["blank", "null", "zero"])
def test_line_that_names_no_invoice_erases_no_link(synced, conn, form):
    links = "SELECT id, invoice_id FROM repairshopr.line_items ORDER BY id"
    before = conn.execute(links).fetchall()
    feed = {"invoice_id_not_null": "true"}
    synced.control.fault(Fault("ids", id_field="invoice_id", id_form=form, rows=(3,), params=feed, times=None))
    summary = scanned(synced, "line_items")
    assert changes(summary) == (0, 0, 0)
    fence.resume(conn, SOURCE.name, RUN)
    sync_entities(synced.context, full=True)
    assert conn.execute(links).fetchall() == before
