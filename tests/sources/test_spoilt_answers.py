"""One spoilt value, record or clock in RepairShopr's answers: it is not believed, and keeps no others out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.api.errors import NotFound
from include.simulators.repairshopr import Mutation
from include.sources.base import SyncFailed
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.sync import sync_entities

from .test_mirror_evidence import live, replace_context
from .test_scan import scanned
from .twisted import always, once, twisted


@contextmanager
def raw(context: MirrorContext, change: Callable[[str, bytes, Any], bytes]) -> Iterator[MirrorContext]:
    """The context with a client to which `change` gives other bodies, by the URL, and other headers."""
    with twisted(context, lambda request, data: data) as lying:
        session = lying.client._session
        send = session.request

        def request(method: str, url: str, **more: Any) -> Any:
            response = send(method, url, **more)
            response._content = change(url, response.content, response.headers)
            return response

        session.request = request
        yield lying


def more_entries(request, data):
    """One more than there are."""
    return {**data, "meta": {**data["meta"], "total_entries": data["meta"]["total_entries"] + 1}}


@pytest.mark.parametrize(
    ("resource", "name"),
    [("tickets", "status"), ("invoices", "customer_id"), ("invoices", "total"), ("payments", "payment_amount")],
)
def test_newer_record_without_a_value_that_the_copy_has_is_looked_at_twice(filled, conn, resource, name):
    value = f"SELECT {name} FROM repairshopr.{resource} WHERE id = %s"
    (id_,) = conn.execute(f"SELECT min(id) FROM repairshopr.{resource} WHERE {name} IS NOT NULL").fetchone()
    was = conn.execute(value, [id_]).fetchone()
    filled.control.mutate(Mutation("update", resource, id_, {}))
    told = []

    def lie(request, data):
        for row in data.get(resource, []):
            if row["id"] == id_:
                told.append(row)
                row[name] = None
        return data

    with twisted(filled.context, always(lie, f"/{resource}")) as context, suppress(SyncFailed):
        sync_entities(context)
    assert told
    assert conn.execute(value, [id_]).fetchone() == was


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("resource", ["tickets", "invoices", "customers"])
def test_record_from_the_future_is_looked_at_twice(filled, conn, resource, new):
    """Else every true version would count as older than the false one."""
    (id_,) = conn.execute(f"SELECT max(id) FROM repairshopr.{resource}").fetchone()
    if new:
        conn.execute(f"DELETE FROM repairshopr.{resource} WHERE id = %s", [id_])
    filled.control.mutate(Mutation("update", resource, id_, {}))

    def lie(request, data):
        for row in data.get(resource, []):
            if row["id"] == id_:
                row["updated_at"] = "2099-12-30T00:00:00.000Z"
        return data

    with twisted(filled.context, always(lie, f"/{resource}")) as context, suppress(SyncFailed):
        sync_entities(context)
    newest = f"SELECT extract(year FROM max(updated_at)) FROM repairshopr.{resource}"
    assert conn.execute(newest).fetchone()[0] < 2099
    sync_entities(filled.context)
    assert live(conn, resource) == set(filled.control.ids(resource))


@pytest.mark.parametrize("resource", ["customers", "line_items"])
def test_total_that_is_wrong_for_good_keeps_out_nothing_that_is_shown(shop, conn, resource):
    with twisted(shop.context, always(more_entries, f"/{resource}")) as context, pytest.raises(SyncFailed):
        sync_entities(context)
    assert live(conn, resource) == set(shop.control.ids(resource)) - (
        {i for i in shop.control.ids(resource) if not shop.control.row(resource, i)["invoice_id"]}
        if resource == "line_items"
        else set()
    )


@pytest.mark.parametrize("resource", ["invoices", "payments"])
def test_page_in_the_middle_that_is_short_is_told(shop, conn, resource):
    def lie(request, data):
        return {**data, resource: data[resource][:2]} if request.params.get("page", 1) == 2 else data

    with (
        twisted(shop.context, always(lie, f"/{resource}")) as context,
        pytest.raises(SyncFailed, match=rf"{resource}: .*perhaps others"),
    ):
        sync_entities(context)


def test_half_a_surrogate_spoils_its_own_record_only(shop, conn):
    def change(url, body, headers):
        return body.replace(b'"firstname":"', rb'"firstname":"\ud83d', 1) if "/customers" in url else body

    with raw(shop.context, change) as context, suppress(SyncFailed):
        sync_entities(context)
    assert len(live(conn, "customers")) >= 38


@pytest.mark.drill("clock-off")
def test_clock_that_is_a_year_ahead_does_not_blind_the_syncs_that_follow(filled, conn):
    def change(url, body, headers):
        headers["Date"] = (datetime.now(UTC) + timedelta(days=365)).strftime("%a, %d %b %Y %H:%M:%S GMT")
        return body

    with raw(filled.context, change) as context:
        sync_entities(context)
    invoice = filled.control.ids("invoices")[0]
    filled.control.mutate(Mutation("update", "invoices", invoice, {"note": "changed"}))
    sync_entities(filled.context)
    assert conn.execute("SELECT note FROM repairshopr.invoices WHERE id = %s", [invoice]).fetchone() == ("changed",)


@pytest.mark.drill("empty-answers")
def test_list_of_everything_that_shows_nothing_is_none(filled, conn):
    def lie(request, data):
        return {"customers": [], "meta": {"total_pages": 0, "total_entries": 0, "per_page": 100, "page": 1}}

    with (
        twisted(filled.context, always(lie, "/customers")) as context,
        pytest.raises(SyncFailed, match="the list of customers shows nothing, and the copy has 40 rows"),
    ):
        sync_entities(context)
    assert len(live(conn, "customers")) == 40


@pytest.mark.parametrize("number", [10**10, 10**17, 10**25])
@pytest.mark.parametrize(("name", "told"), [("total_entries", always), ("total_pages", once)])
def test_absurd_total_ends_in_words(shop, conn, name, told, number):
    def lie(request, data):
        return {**data, "meta": {**data.get("meta", {}), name: number}}

    with twisted(shop.context, told(lie, "/estimates")) as context, suppress(SyncFailed):
        sync_entities(context)
    assert live(conn, "payments")


def test_body_that_is_nested_too_deep_ends_in_words(filled):
    def change(url, body, headers):
        return b"[" * 200_000 if "/products" in url else body

    with raw(filled.context, change) as context, pytest.raises(SyncFailed, match="products"):
        sync_entities(context)


def test_line_that_can_not_be_stored_does_not_keep_others_from_going(filled, conn):
    query = "SELECT invoice_id, min(id) FROM repairshopr.line_items GROUP BY 1 HAVING count(*) > 2 ORDER BY 1 LIMIT 2"
    (first, bad), (second, gone) = conn.execute(query).fetchall()
    filled.control.mutate(
        Mutation("update", "invoices", first, {"note": "x"}),
        Mutation("update", "invoices", second, {"note": "x"}),
        Mutation("update", "line_items", bad, {"name": "A\0B"}),
        Mutation("delete", "line_items", gone, silent=True),
    )
    with pytest.raises(SyncFailed):
        sync_entities(filled.context)
    assert gone not in live(conn, "line_items")
    assert bad in live(conn, "line_items")


def test_lines_that_can_not_be_stored_keep_out_no_invoices(filled, conn):
    first, second = filled.control.ids("invoices")[:2]
    filled.control.mutate(*(Mutation("update", "invoices", id_, {"note": "changed"}) for id_ in (first, second)))
    (line,) = filled.control.mutate(Mutation("insert", "line_items", row={"invoice_id": second}))

    def lie(request, data):
        bad = [{"id": 900_000 + number, "invoice_id": first, "name": "A\0B"} for number in range(21)]
        return {**data, "line_items": data["line_items"] + bad}

    with (
        twisted(filled.context, always(lie, "/line_items", invoice_id=first)) as context,
        pytest.raises(SyncFailed, match=r"invoices: .*21 of \d+ rows of repairshopr\.line_items could not be stored"),
    ):
        sync_entities(context)
    query = "SELECT id FROM repairshopr.invoices WHERE note = 'changed'"
    assert {first, second} <= {id_ for (id_,) in conn.execute(query)}
    assert line in live(conn, "line_items")


@pytest.mark.parametrize("resource", ["payments", "tickets"])
def test_address_that_finds_nothing_at_all_proves_no_absence(filled, conn, resource):
    """The route of single records is gone, in a night in which the list leaves out two."""

    def lie(request, data):
        return {**data, resource: data[resource][2:]} if request.params.get("page", 1) == 1 else data

    def moved(exchange):
        return lambda request: NotFound("404") if request.path.startswith(f"/{resource}/") else exchange(request)

    with twisted(filled.context, once(lie, f"/{resource}")) as context:
        context.client._exchange = moved(context.client._exchange)
        summary = scanned(replace_context(filled, context), resource)
    assert (summary.plan.delete, summary.metrics["unproven"]) == (0, 2)
