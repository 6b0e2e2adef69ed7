"""Habits of a vendor that nobody documents: each may be otherwise than the simulators guess."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from include.api.errors import NotFound
from include.simulators.repairshopr import Fault, Mutation
from include.sources.base import SyncFailed
from include.sources.mirror.repair import repair_entities
from include.sources.mirror.sync import sync_entities
from include.warehouse import fence

from .conftest import RUN, SOURCE
from .test_mirror_evidence import doubts, live, lose, replace_context
from .test_scan import scanned
from .twisted import always, once, twisted

FEW = dict.fromkeys(("customers", "invoices", "line_items", "payments", "products", "tickets", "estimates"), 5)


def lacking(shop, conn, table):
    return set(shop.control.ids(table)) - live(conn, table)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_unsorted(open_shop, conn, seed):
    shop = open_shop(**FEW | {"invoices": 166}, sort="unstable", seed=seed)
    try:
        sync_entities(shop.context)
    except SyncFailed as e:
        print(e)
        return
    assert lacking(shop, conn, "invoices") == set()


def test_unsorted_payments(open_shop, conn):
    shop = open_shop(**FEW | {"payments": 400}, sort="unstable")
    with suppress(SyncFailed):
        sync_entities(shop.context)
    shop.control.set(sort="id_asc")
    sync_entities(shop.context)
    shop.control.set(sort="unstable")
    shop.control.mutate(Mutation("insert", "payments", row={"ref_num": "new"}))
    sync_entities(shop.context)
    assert lacking(shop, conn, "payments") == set()


def test_products_sort_ignored(open_shop, conn):
    shop = open_shop(**FEW | {"products": 100})
    def shape(request, data):
        return data
    ids = shop.control.ids("products")
    same = "2025-01-01T00:00:00.000Z"
    shop.control.load("products", [{**r, "updated_at": same} for r in shop.control.rows("products")])
    unsorted = lambda ctx: ctx
    class C: pass
    import include.sources.repairshopr as rs
    # the vendor ignores `sort`
    from .twisted import Twisted
    orig = Twisted._exchange
    with twisted(shop.context, shape) as context:
        real = context.client._exchange
        def exchange(request):
            if request.path == "/products":
                request = replace(request, params={k: v for k, v in request.params.items() if k != "sort"})
            return real(request)
        context.client._exchange = exchange
        sync_entities(context)
        assert lacking(shop, conn, "products") == set()
        shop.control.mutate(Mutation("insert", "products", row={"name": "new"}))
        sync_entities(context)
    assert lacking(shop, conn, "products") == set()


def test_short_page_midway(open_shop, conn):
    shop = open_shop(**FEW | {"products": 70})

    def hidden(request, data):
        if request.path == "/products" and request.params.get("page") == 2:
            return {**data, "products": data["products"][1:]}
        return data

    with twisted(shop.context, hidden) as context:
        sync_entities(context)
    assert len(lacking(shop, conn, "products")) <= 1


@pytest.mark.parametrize("resource", ["products", "invoices", "customers"])
def test_404_past_end(open_shop, conn, resource):
    shop = open_shop(**FEW | {"products": 40, "invoices": 50, "customers": 100})
    last = {"products": 2, "invoices": 2, "customers": 1}[resource]

    def past(request, data):
        if request.params.get("page", 1) > last and request.path == f"/{resource}":
            raise NotFound("404")
        return data

    with twisted(shop.context, past) as context:
        sync_entities(context)
        scanned(replace_context(shop, context), resource)
    assert lacking(shop, conn, resource) == set()


def test_inflated_total(open_shop, conn):
    shop = open_shop(**FEW | {"customers": 250, "line_items": 250})

    def inflated(request, data):
        if isinstance(data, dict) and data.get("meta", {}).get("total_entries"):
            m = data["meta"]
            return {**data, "meta": {**m, "total_entries": m["total_entries"] + 7}}
        return data

    with twisted(shop.context, inflated) as context:
        for _ in range(2):
            with pytest.raises(SyncFailed, match="7 of them were not shown"):
                sync_entities(context)
        sync_entities(context)
        s = scanned(replace_context(shop, context), "line_items")
        assert (s.incomplete, s.accounts["line_items"].unseen) == ("", 7)


def test_lag_children(open_shop, conn):
    shop = open_shop(**FEW | {"invoices": 20, "line_items": 60})
    sync_entities(shop.context)
    invoice = shop.control.ids("invoices")[3]
    shop.control.mutate(Mutation("update", "invoices", invoice, {"note": "first"}))
    shop.control.lag("invoices", "line_items", embedded=True)
    # The truth goes on and the sync had it.
    shop.control.catch_up()
    sync_entities(shop.context)
    old_list = shop.context.client.send(__import__("include.api.request", fromlist=["Request"]).Request("/line_items", {"invoice_id": invoice})).data
    old_own = shop.context.client.send(__import__("include.api.request", fromlist=["Request"]).Request(f"/invoices/{invoice}")).data
    (new,) = shop.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice, "name": "late"}))
    sync_entities(shop.context)
    assert new in live(conn, "line_items")

    def lag(request, data):
        if request.path == "/line_items" and request.params.get("invoice_id") == invoice:
            return old_list
        if request.path == f"/invoices/{invoice}":
            return old_own
        if request.path == "/invoices" :
            rows = [old_own["invoice"] if r["id"] == invoice else r for r in data["invoices"]]
            rows = [{k: v for k, v in r.items() if k not in ("line_items", "customer", "payments")} for r in rows]
            return {**data, "invoices": rows}
        if request.path == "/line_items":
            return {**data, "line_items": [r for r in data["line_items"] if r["id"] != new], "meta": {**data["meta"], "total_entries": data["meta"]["total_entries"] - 1}}
        return data

    with twisted(shop.context, lag) as context:
        try:
            sync_entities(context)
        except SyncFailed as e:
            print(e)
        print("after sync", new in live(conn, "line_items"))
        conn.execute("UPDATE repairshopr.line_items SET deleted_at = NULL")
        s = scanned(replace_context(shop, context), "line_items")
        print(s.plan, s.metrics["unproven"])
        assert s.plan.delete == 0
        fence.resume(conn, SOURCE.name, RUN)


def test_whole_lag(open_shop, conn):
    """All addresses show yesterday's state: the copy is ahead."""
    shop = open_shop(**FEW | {"customers": 30})
    sync_entities(shop.context)
    ids = shop.control.ids("customers")
    conn.execute(
        "UPDATE repairshopr.customers SET updated_at = now() - interval '1 hour', notes = 'newer' WHERE id = %s", [ids[3]]
    )
    conn.execute("CREATE TEMP TABLE c AS SELECT * FROM repairshopr.customers WHERE id = %s", [ids[3]])
    conn.execute("ALTER TABLE c DROP COLUMN row_hash")
    conn.execute("UPDATE c SET id = 77777, updated_at = now() - interval '30 min'")
    names = ", ".join(d.name for d in conn.execute("SELECT * FROM c").description)
    conn.execute(f"INSERT INTO repairshopr.customers ({names}) SELECT {names} FROM c")
    shop.control.mutate(Mutation("delete", "customers", ids[0], silent=True))
    s = scanned(shop, "customers")
    assert (s.plan.update, s.plan.delete, s.metrics["unproven"]) == (0, 1, 2)


@pytest.mark.parametrize(
    ("kept", "shown"),
    [([1, 1], [1]), ([1, 2], [2, 1]), ([{"a": 1}, {"b": 1}], [{"a": 1, "b": 1}]), ([{"a": [1, 1]}], [{"a": [1]}])],
)
def test_list_in_another_form_is_no_gain(open_shop, conn, monkeypatch, kept, shown):
    from include.sources.mirror import second_look
    shop = open_shop(**FEW | {"tickets": 14})
    sync_entities(shop.context)
    *_, plain, other = shop.control.ids("tickets")
    conn.execute("UPDATE repairshopr.tickets SET properties = %s WHERE id = %s", [Jsonb({"all": kept}), other])
    monkeypatch.setattr(second_look, "SECOND_LOOKS", 12)

    def gaining(request, data):
        def more(row):
            return {**row, "new": 1} | ({"properties": {"all": shown, "more": 1}} if row["id"] == other else {})
        if "ticket" in data:
            return {"ticket": more(data["ticket"])}
        return {**data, "tickets": [more(row) for row in data["tickets"]]}

    with twisted(shop.context, always(gaining, "/tickets")) as context:
        s = scanned(replace_context(shop, context), "tickets")
    assert (s.plan.update, doubts(conn, "tickets").keys()) == (13, {other})


def test_missed_after_gap(open_shop, conn):
    shop = open_shop(**FEW | {"invoices": 30})
    sync_entities(shop.context)
    at = (datetime.now(UTC) - timedelta(hours=3)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    changed = shop.control.ids("invoices")[7]
    more = {"updated_at": at, "note": "changed"}
    shop.control.load("invoices", [r | (more if r["id"] == changed else {}) for r in shop.control.rows("invoices")])
    conn.execute("UPDATE confidence.sync_state SET watermark = now() - interval '5 hours' WHERE entity = 'invoices'")

    def nothing(request, data):
        return {"invoices": [], "meta": {"total_pages": 0, "page": 1}}

    with twisted(shop.context, always(nothing, "/invoices")) as context:
        sync_entities(context)
    sync_entities(shop.context)
    assert conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [changed]).fetchone() == ("changed",)
