"""The RepairShopr simulator over real HTTP: what the vendor documents, what was measured, and every order."""

import asyncio
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec
import pytest
import requests

from include.simulators.repairshopr import Config, Fault, Mutation, Simulator, account, running
from include.simulators.repairshopr.app import create
from include.simulators.repairshopr.data import Shop
from include.simulators.repairshopr.store import Store

RESOURCES = ("customers", "invoices", "line_items", "payments", "products", "tickets", "estimates")
SINGULAR = {name: name[:-1] for name in RESOURCES}
SIZES = {
    "customers": 250,
    "invoices": 120,
    "line_items": 430,
    "payments": 90,
    "products": 45,
    "tickets": 130,
    "estimates": 60,
}
CONFIG = Config(rate_limit=None, **SIZES)
DECIMAL_TEXT = re.compile(r"-?\d+\.\d+")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Client:
    """What a reader of the API does, with the right token unless told otherwise."""

    def __init__(self, simulator: Simulator) -> None:
        self.control = simulator.control
        self._simulator = simulator
        self._session = requests.Session()

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        options = {"headers": {"Authorization": f"Bearer {self._simulator.token}"}, "timeout": 10} | options
        return self._session.request(method, f"{self._simulator.url}/api/v1/{path}", **options)

    def get(self, path: str, /, **params: Any) -> requests.Response:
        return self.send("GET", path, params=params)

    def page(self, resource: str, number: int = 1, /, **params: Any) -> dict[str, Any]:
        answer = self.get(resource, page=number, **params)
        assert answer.status_code == 200
        return msgspec.json.Decoder(float_hook=Decimal).decode(answer.content)

    def rows(self, resource: str, /, **params: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for number in range(1, 1_000):
            page = self.page(resource, number, **params)[resource]
            if not page:
                return rows
            rows += page
        raise AssertionError("the list has no end")

    def ids(self, resource: str, /, **params: Any) -> list[int]:
        return [row["id"] for row in self.rows(resource, **params)]

    def one(self, resource: str, row_id: int | str) -> dict[str, Any]:
        answer = self.get(f"{resource}/{row_id}")
        assert answer.status_code == 200
        return msgspec.json.Decoder(float_hook=Decimal).decode(answer.content)[SINGULAR[resource]]


@pytest.fixture(scope="module")
def shop() -> Iterator[Client]:
    """An account that no test changes."""
    with running(CONFIG) as simulator:
        yield Client(simulator)


@pytest.fixture
def client() -> Iterator[Client]:
    """An account of the test's own."""
    with running(CONFIG) as simulator:
        yield Client(simulator)


# The documented and measured facts


@pytest.mark.parametrize(
    "credentials",
    [
        {"headers": {"Authorization": "Bearer demo-token"}},
        {"headers": {"Authorization": "demo-token"}},
        {"headers": {}, "params": {"api_key": "demo-token"}},
    ],
)
def test_the_token_is_taken_in_its_three_spellings(shop: Client, credentials: dict) -> None:
    assert shop.send("GET", "customers", **credentials).status_code == 200


@pytest.mark.parametrize(
    "credentials",
    [
        {"headers": {}},
        {"headers": {"Authorization": "Bearer wrong"}},
        {"headers": {"Authorization": "Basic demo-token"}},
        {"headers": {}, "params": {"api_key": "wrong"}},
    ],
)
def test_a_wrong_or_missing_token_is_401(shop: Client, credentials: dict) -> None:
    assert shop.send("GET", "customers", **credentials).status_code == 401


@pytest.mark.parametrize("status", [401, 403])
def test_lines_need_the_global_admin_right(client: Client, status: int) -> None:
    client.control.set(global_admin=False, missing_right_status=status)
    assert client.get("line_items").status_code == status
    assert client.get("invoices").status_code == 200


@pytest.mark.parametrize(
    ("resource", "size"),
    [
        ("customers", 100),
        ("invoices", 25),
        ("line_items", 100),
        ("payments", 25),
        ("products", 20),
        ("tickets", 50),
        ("estimates", 50),
    ],
)
def test_page_sizes_are_the_vendors_and_per_page_is_ignored(shop: Client, resource: str, size: int) -> None:
    assert len(shop.page(resource, per_page=3)[resource]) == size


@pytest.mark.parametrize("resource", RESOURCES)
def test_pages_hold_every_row_once_and_end_with_an_empty_list(shop: Client, resource: str) -> None:
    ids = shop.ids(resource, include_disabled="true")
    assert ids == shop.control.ids(resource)
    assert len(set(ids)) == SIZES[resource]


def test_page_size_can_differ_for_benchmarks(client: Client) -> None:
    client.control.set(page_sizes={"line_items": 1_000})
    page = client.page("line_items")
    assert len(page["line_items"]) == 430
    assert page["meta"] == {"total_pages": 1, "total_entries": 430, "per_page": 1_000, "page": 1}


@pytest.mark.parametrize(
    ("resource", "meta"),
    [
        ("line_items", {"total_pages": 5, "total_entries": 430, "per_page": 100, "page": 2}),
        ("customers", {"total_pages": 3, "total_entries": 250, "per_page": 100, "page": 2}),
        ("invoices", {"total_pages": 5, "page": 2}),
        ("tickets", {"total_pages": 3, "page": 2}),
        ("payments", {"total_pages": 4, "page": 2}),
        ("estimates", {"total_pages": 2, "page": 2}),
    ],
)
def test_meta_has_the_form_of_its_resource(shop: Client, resource: str, meta: dict) -> None:
    assert shop.page(resource, 2, include_disabled="true")["meta"] == meta


def test_products_have_no_meta(shop: Client) -> None:
    assert shop.page("products").keys() == {"products"}


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_single_row_is_wrapped_in_the_singular(shop: Client, resource: str) -> None:
    listed = shop.page(resource)[resource][0]
    assert shop.one(resource, listed["id"]).items() >= listed.items()


def test_an_invoice_is_found_by_id_or_number_and_embeds_its_relations(shop: Client) -> None:
    listed = shop.rows("invoices")[30]
    by_id, by_number = shop.one("invoices", listed["id"]), shop.one("invoices", listed["number"])
    assert by_id == by_number
    assert by_id["customer"]["id"] == listed["customer_id"]
    assert by_id["line_items"] == shop.rows("line_items", invoice_id=listed["id"])
    assert all(listed["id"] in payment["invoice_ids"] for payment in by_id["payments"])


def test_an_estimate_embeds_its_lines(shop: Client) -> None:
    line = next(line for line in shop.rows("line_items") if line["invoice_id"] is None)
    assert line in shop.one("estimates", line["estimate_id"])["line_items"]


def test_disabled_customers_are_listed_only_if_asked_for(shop: Client) -> None:
    every = shop.rows("customers", include_disabled="true")
    listed = shop.rows("customers")
    assert [row for row in every if not row["disabled"]] == listed
    assert 0 < len(every) - len(listed) < len(listed)
    assert shop.page("customers")["meta"]["total_entries"] == len(listed)
    disabled = next(row for row in every if row["disabled"])
    assert shop.one("customers", disabled["id"]).items() >= disabled.items()


def test_disabled_products_may_be_listed_or_not(client: Client) -> None:
    every = client.rows("products")
    client.control.set(disabled_products_listed=False)
    assert client.rows("products") == [row for row in every if not row["disabled"]] != every
    disabled = next(row for row in every if row["disabled"])
    assert client.one("products", disabled["id"]) == disabled


def test_past_the_end_comes_nothing_the_last_page_or_the_first(client: Client) -> None:
    first, last = client.page("invoices", 1)["invoices"], client.page("invoices", 5)["invoices"]
    assert client.page("invoices", 6)["invoices"] == []
    client.control.set(past_end="last")
    assert client.page("invoices", 9)["invoices"] == last
    client.control.set(past_end="first")
    assert client.page("invoices", 6) == {"invoices": first, "meta": {"total_pages": 5, "page": 6}}


def test_every_payment_is_embedded_in_its_invoice(shop: Client) -> None:
    for payment in shop.rows("payments")[::30]:
        embedded = shop.one("invoices", payment["invoice_ids"][0])["payments"]
        assert payment in embedded


@pytest.mark.parametrize("path", ["invoices/1", "invoices/x", "nothing", "line_items/1", "invoices/1/nothing"])
def test_what_does_not_exist_is_404(shop: Client, path: str) -> None:
    assert shop.get(path).status_code == 404


def test_every_answer_has_the_servers_clock(shop: Client) -> None:
    for path in ("customers", "nothing"):
        clock = parsedate_to_datetime(shop.get(path).headers["Date"])
        assert abs((datetime.now(UTC) - clock).total_seconds()) < 5


def test_lines_are_filtered_by_their_owner(shop: Client) -> None:
    lines = shop.rows("line_items")
    invoice_id = lines[10]["invoice_id"]
    estimate_id = next(line["estimate_id"] for line in lines if line["invoice_id"] is None)
    assert shop.rows("line_items", invoice_id=invoice_id) == [
        line for line in lines if line["invoice_id"] == invoice_id
    ]
    assert shop.rows("line_items", estimate_id=estimate_id) == [
        line for line in lines if line.get("estimate_id") == estimate_id
    ]
    assert shop.rows("line_items", invoice_id_not_null="true") == [line for line in lines if line["invoice_id"]]
    assert shop.rows("line_items", estimate_id_not_null="true") == [line for line in lines if not line["invoice_id"]]
    assert shop.rows("line_items", invoice_id="none-such") == []


def test_lines_know_no_since_filter_and_unknown_parameters_are_ignored(shop: Client) -> None:
    assert len(shop.ids("line_items", since_updated_at="2100-01-01T00:00:00Z", colour="red")) == 430


@pytest.mark.parametrize("resource", ["invoices", "tickets"])
def test_since_updated_at_is_inclusive_and_takes_microseconds(shop: Client, resource: str) -> None:
    rows = shop.rows(resource)
    moment = sorted(row["updated_at"] for row in rows)[80]
    later = [row["id"] for row in rows if row["updated_at"] >= moment]
    assert shop.ids(resource, since_updated_at=moment) == later
    just_after = moment.replace("Z", "001Z")
    assert len(shop.ids(resource, since_updated_at=just_after)) == len(later) - 1
    assert shop.ids(resource, since_updated_at="long ago") == [row["id"] for row in rows]


def test_invoices_are_filtered_by_payment_and_ticket(shop: Client) -> None:
    rows = shop.rows("invoices")
    assert shop.ids("invoices", paid="true") == [row["id"] for row in rows if row["is_paid"]]
    assert shop.ids("invoices", unpaid="true") == [row["id"] for row in rows if not row["is_paid"]]
    ticket_id = next(row["ticket_id"] for row in rows if row["ticket_id"])
    assert shop.ids("invoices", ticket_id=ticket_id) == [row["id"] for row in rows if row["ticket_id"] == ticket_id]


def test_tickets_have_their_simple_filters(shop: Client) -> None:
    rows = shop.rows("tickets")
    assert shop.ids("tickets", status="Resolved") == [r["id"] for r in rows if r["status"] == "Resolved"]
    assert shop.ids("tickets", number=rows[7]["number"]) == [rows[7]["id"]]
    moment = rows[60]["created_at"]
    assert shop.ids("tickets", created_after=moment) == [r["id"] for r in rows if r["created_at"] >= moment]
    resolved = [r["id"] for r in rows if (r["resolved_at"] or "") >= moment]
    assert shop.ids("tickets", resolved_after=moment) == resolved


def test_customers_are_sorted_and_filtered(shop: Client) -> None:
    rows = shop.rows("customers")
    by_name = [r["id"] for r in sorted(rows, key=lambda r: (r["firstname"], r["id"]))]
    assert shop.ids("customers", sort="firstname ASC") == by_name
    newest = shop.rows("customers", sort="updated_at DESC")
    assert [r["updated_at"] for r in newest] == sorted((r["updated_at"] for r in rows), reverse=True)
    assert shop.ids("customers", **{"id[]": [rows[3]["id"], rows[5]["id"]]}) == [rows[3]["id"], rows[5]["id"]]
    assert shop.ids("customers", query=rows[9]["email"]) == [rows[9]["id"]]
    assert shop.ids("customers", sort="properties ASC") == [r["id"] for r in rows]


def test_products_are_sorted_and_filtered(shop: Client) -> None:
    rows = shop.rows("products")
    oldest = shop.rows("products", sort="updated_at ASC")
    assert [r["updated_at"] for r in oldest] == sorted(r["updated_at"] for r in rows)
    assert shop.ids("products", name=rows[4]["name"]) == [rows[4]["id"]]
    assert shop.ids("products", sku=rows[4]["upc_code"]) == [rows[4]["id"]]
    assert shop.ids("products", id=rows[4]["id"]) == [rows[4]["id"]]


# The data


def test_the_same_seed_gives_the_same_data_and_another_seed_others(shop: Client) -> None:
    with running(CONFIG) as again, running(Config(rate_limit=None, **SIZES, seed=2)) as other:
        for resource in RESOURCES:
            assert Client(again).rows(resource) == shop.rows(resource)
            assert Client(other).rows(resource) != shop.rows(resource)


@pytest.mark.parametrize("resource", RESOURCES)
def test_times_are_iso_with_milliseconds_and_past(shop: Client, resource: str) -> None:
    for row in shop.rows(resource):
        assert INSTANT.fullmatch(row["created_at"])
        assert INSTANT.fullmatch(row["updated_at"])
        assert row["created_at"] <= row["updated_at"] < datetime.now(UTC).isoformat()


def test_money_of_documents_is_text_and_of_products_and_payments_a_number(shop: Client) -> None:
    for line in shop.rows("line_items"):
        assert all(DECIMAL_TEXT.fullmatch(line[name]) for name in ("price", "cost", "quantity"))
    for resource in ("invoices", "estimates"):
        for row in shop.rows(resource):
            assert all(DECIMAL_TEXT.fullmatch(row[name]) for name in ("subtotal", "total", "tax"))
    for product in shop.rows("products"):
        assert all(isinstance(product[f"price_{kind}"], Decimal) for kind in ("retail", "cost", "wholesale"))
        assert isinstance(product["quantity"], int)
    assert all(isinstance(row["payment_amount"], Decimal | int) for row in shop.rows("payments"))
    assert any(None in row["invoice_ids"] for row in shop.rows("payments"))


def test_totals_are_the_sum_of_the_lines(shop: Client) -> None:
    for listed in shop.rows("invoices")[:20]:
        invoice = shop.one("invoices", listed["id"])
        amounts = [
            Decimal(line["price"]) * Decimal(line["quantity"]) * (1 - Decimal(line["discount_percent"] or 0) / 100)
            for line in invoice["line_items"]
        ]
        assert abs(Decimal(invoice["subtotal"]) - sum(amounts)) <= Decimal("0.005")
        assert Decimal(invoice["total"]) == Decimal(invoice["subtotal"]) + Decimal(invoice["tax"])


def test_optional_values_come_in_all_their_forms(shop: Client) -> None:
    invoices = shop.rows("invoices")
    assert {type(row["ticket_id"]) for row in invoices} == {int, str, type(None)}
    assert {row["ticket_id"] for row in invoices if isinstance(row["ticket_id"], str)} == {""}
    assert {type(row["hardwarecost"]) for row in invoices} == {Decimal, str, type(None)}


def test_estimate_lines_share_the_feed_without_an_invoice(shop: Client) -> None:
    lines = shop.rows("line_items")
    of_estimates = [line for line in lines if line["invoice_id"] is None]
    assert 0 < len(of_estimates) < len(lines)
    assert {line["estimate_id"] for line in of_estimates} <= set(shop.control.ids("estimates"))
    of_invoices = [line for line in lines if line["invoice_id"] is not None]
    assert not any("estimate_id" in line for line in of_invoices)
    assert {line["invoice_id"] for line in of_invoices} <= set(shop.control.ids("invoices"))


def test_sizes_in_proportion_to_the_invoices() -> None:
    assert Config.sized(1_000).line_items == 3_300
    assert Config.sized(1_000, line_items=7).line_items == 7
    assert Config.sized(0).sizes().keys() == set(RESOURCES)


def test_lines_without_anything_to_belong_to_are_refused() -> None:
    with pytest.raises(ValueError, match="need invoices or estimates"), running(Config(invoices=0, estimates=0)):
        pass


@pytest.mark.parametrize("resource", RESOURCES)
def test_an_empty_account_has_empty_lists(resource: str) -> None:
    with running(Config(**dict.fromkeys(RESOURCES, 0))) as simulator:
        assert Client(simulator).page(resource)[resource] == []


# Rate limit, latency, order


def test_the_limit_is_180_requests_a_minute_and_a_429_has_no_retry_after() -> None:
    with running() as simulator:
        client = Client(simulator)
        statuses = [client.get("nothing").status_code for _ in range(180)]
        assert set(statuses) == {404}
        refused = client.get("nothing")
        assert refused.status_code == 429
        assert "Retry-After" not in refused.headers
        assert client.control.counters().limited == 1


def test_a_429_of_the_limit_can_say_when_to_come_again(client: Client) -> None:
    client.control.set(rate_limit=0, retry_after="seconds")
    assert 0 < int(client.get("customers").headers["Retry-After"]) <= 60
    client.control.set(retry_after="date")
    moment = parsedate_to_datetime(client.get("customers").headers["Retry-After"])
    assert 50 < (moment - datetime.now(UTC)).total_seconds() <= 60
    client.control.set(rate_limit=None)
    assert client.get("customers").status_code == 200


def test_the_limit_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1_000.0
    monkeypatch.setattr(account.time, "monotonic", lambda: moment)
    limit = account.RateLimit()
    assert limit.take(2) is None
    moment += 20
    assert limit.take(2) is None
    assert limit.take(2) == 40
    moment += 40
    assert limit.take(2) is None
    assert limit.take(2) == 20


def test_latency_and_concurrency(client: Client) -> None:
    client.control.set(latency_ms=150)
    client.control.reset_counters()
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client.get, ["customers"] * 4))
    assert 0.15 <= time.monotonic() - start < 0.5
    assert client.control.counters().max_concurrent == 4


def test_counters_name_what_was_asked(client: Client) -> None:
    client.page("line_items")
    client.page("line_items", 2, invoice_id=5)
    client.get("invoices/1")
    counters = client.control.counters()
    assert counters.requests == {
        "GET line_items": {"200": 1},
        "GET line_items?invoice_id": {"200": 1},
        "GET invoices/id": {"404": 1},
    }
    assert counters.total() == 3
    assert counters.total("GET line_items") == 2
    assert counters.total(status=404) == 1
    client.control.reset_counters()
    assert client.control.counters().total() == 0


def test_default_order_is_a_switch(client: Client) -> None:
    rows = client.rows("line_items")
    ids = [row["id"] for row in rows]
    assert ids == sorted(ids)
    client.control.set(sort="id_desc")
    assert client.ids("line_items") == ids[::-1]
    assert client.ids("line_items", invoice_id_not_null="true")[0] > ids[300]
    client.control.set(sort="updated_at_desc")
    newest_first = sorted(rows, key=lambda row: (row["updated_at"], row["id"]), reverse=True)
    assert client.rows("line_items") == newest_first


def test_unstable_order_doubles_and_omits_rows_while_nothing_changes(client: Client) -> None:
    client.control.set(sort="unstable")
    ids = client.ids("line_items")
    assert len(ids) == 430
    assert 0 < len(set(ids)) < 430
    assert client.ids("line_items") != ids


# Writes through the API


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        ("customers", {"business_name": "Quill & Co"}),
        ("tickets", {"subject": "No sound"}),
        ("invoices", {"customer_id": 1_000_001, "number": "X-1"}),
        ("estimates", {"customer_id": 1_000_001, "status": "Sent"}),
    ],
)
def test_create_update_and_delete(client: Client, resource: str, fields: dict) -> None:
    created = client.send("POST", resource, json=fields).json()[SINGULAR[resource]]
    row_id = created["id"]
    assert created.items() >= fields.items()
    assert abs(datetime.fromisoformat(created["created_at"]) - datetime.now(UTC)).total_seconds() < 5
    assert row_id in client.control.ids(resource)
    if "number" in fields:
        assert client.one(resource, fields["number"])["id"] == row_id
    name = next(iter(fields))
    changed = client.send("PUT", f"{resource}/{row_id}", json={name: fields[name], "made_up": 1, "id": 7})
    assert changed.json()[SINGULAR[resource]]["id"] == row_id
    assert "made_up" not in changed.json()[SINGULAR[resource]]
    assert changed.json()[SINGULAR[resource]]["updated_at"] >= created["updated_at"]
    assert client.send("DELETE", f"{resource}/{row_id}").status_code == 200
    assert client.get(f"{resource}/{row_id}").status_code == 404
    assert client.send("DELETE", f"{resource}/{row_id}").status_code == 404


def test_an_update_is_found_by_since_updated_at(client: Client) -> None:
    invoice = client.page("invoices")["invoices"][3]
    assert client.ids("invoices", since_updated_at="2026-01-01T00:00:00Z") == []
    client.send("PUT", f"invoices/{invoice['id']}", json={"note": "paid in cash"})
    assert client.ids("invoices", since_updated_at="2026-01-01T00:00:00Z") == [invoice["id"]]


@pytest.mark.parametrize(
    ("resource", "form"),
    [
        ("customers", {"success": False, "message": ["Name can't be blank"], "params": {}}),
        ("invoices", {"success": False, "error": "invalid", "message": "Name can't be blank"}),
        ("tickets", {"record": {"id": None}, "errors": "Name can't be blank"}),
        ("estimates", {"record": {"id": None}, "errors": {"name": ["can't be blank"]}}),
    ],
)
def test_refused_creates_have_no_single_shape(client: Client, resource: str, form: dict) -> None:
    refused = client.send("POST", resource, json={})
    assert refused.status_code == 422
    assert refused.json() == form


def test_nested_lines_of_a_create_are_ignored(client: Client) -> None:
    body = {"customer_id": 1_000_001, "line_items": [{"name": "Fan", "price": "9.0", "quantity": "1.0"}]}
    created = client.send("POST", "invoices", json=body).json()["invoice"]
    assert created["line_items"] == []
    assert created["total"] == "0.0"


@pytest.mark.parametrize("resource", ["payments", "products"])
def test_payments_and_products_have_no_delete(client: Client, resource: str) -> None:
    row_id = client.control.ids(resource)[0]
    assert client.send("DELETE", f"{resource}/{row_id}").status_code == 404
    assert row_id in client.control.ids(resource)


def test_deleting_an_invoice_says_200_also_when_it_fails(client: Client) -> None:
    first, second = client.control.ids("invoices")[:2]
    client.control.set(invoice_delete_fails=True)
    assert client.send("DELETE", f"invoices/{first}").status_code == 200
    assert client.get(f"invoices/{first}").status_code == 200
    client.control.set(invoice_delete_fails=False)
    assert client.send("DELETE", f"invoices/{second}").status_code == 200
    assert client.get(f"invoices/{second}").status_code == 404
    assert client.rows("line_items", invoice_id=second) == []


@pytest.mark.parametrize("bumps", [True, False])
@pytest.mark.parametrize("resource", ["invoices", "estimates"])
def test_writing_a_line_answers_the_recalculated_parent(client: Client, resource: str, bumps: bool) -> None:
    client.control.set(line_edit_bumps_parent=bumps)
    parent = client.page(resource)[resource][5]
    lines = f"{resource}/{parent['id']}/line_items"
    field = f"{SINGULAR[resource]}_id"

    created = client.send(
        "POST", lines, json={"name": "Fan", "price": 10.5, "quantity": "2", "taxable": False, "discount_percent": None}
    ).json()[SINGULAR[resource]]
    line = created["line_items"][-1]
    assert (line["price"], line["quantity"], line[field]) == ("10.5", "2.0", parent["id"])
    assert Decimal(created["subtotal"]) == Decimal(parent["subtotal"]) + 21
    assert (created["updated_at"] > parent["updated_at"]) is bumps

    changed = client.send("PUT", f"{lines}/{line['id']}", json={"quantity": "3.0"}).json()[SINGULAR[resource]]
    assert Decimal(changed["subtotal"]) == Decimal(parent["subtotal"]) + Decimal("31.5")
    emptied = client.send("DELETE", f"{lines}/{line['id']}").json()[SINGULAR[resource]]
    assert emptied["subtotal"] == parent["subtotal"]
    assert client.send("DELETE", f"{lines}/{line['id']}").status_code == 404
    assert client.send("POST", lines, json={}).status_code == 422


@pytest.mark.parametrize("method", ["POST", "PATCH", "HEAD"])
def test_other_methods_change_nothing(client: Client, method: str) -> None:
    row_id = client.control.ids("invoices")[0]
    assert client.send(method, f"invoices/{row_id}").status_code in (404, 405)
    assert row_id in client.control.ids("invoices")


def test_a_body_that_is_no_json_is_400(client: Client) -> None:
    assert client.send("POST", "customers", data=b"{").status_code == 400


# Faults


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 502, 503])
def test_a_status_on_order_strikes_once(client: Client, status: int) -> None:
    client.control.fault(Fault("status", resource="line_items", page=2, status=status))
    assert [client.get("line_items", page=p).status_code for p in (1, 2, 2)] == [200, status, 200]
    assert client.control.counters().faults == 1


@pytest.mark.parametrize(("form", "pattern"), [("seconds", r"7"), ("date", r"\w{3}, \d\d .* GMT"), ("absent", "")])
def test_a_429_on_order_has_retry_after_as_told(client: Client, form: str, pattern: str) -> None:
    client.control.fault(Fault("status", status=429, retry_after=7, retry_after_form=form))
    assert re.fullmatch(pattern, client.get("invoices").headers.get("Retry-After", ""))


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ("error", {"error": "Something went wrong"}),
        ("record", {"record": {"id": None}, "errors": "Name can't be blank"}),
        ("errors_list", {"record": {"id": None}, "errors": ["Name can't be blank"]}),
        ("errors_object", {"record": {"id": None}, "errors": {"name": ["can't be blank"]}}),
        ("messages", {"success": False, "message": ["Name can't be blank"], "params": {}}),
        ("message", {"success": False, "error": "invalid", "message": "Name can't be blank"}),
    ],
)
def test_error_bodies_in_each_shape(client: Client, body: str, content: dict) -> None:
    client.control.fault(Fault("status", status=422, body=body))
    assert client.get("invoices").json() == content


@pytest.mark.parametrize("status", [200, 502])
def test_html_instead_of_json(client: Client, status: int) -> None:
    client.control.fault(Fault("status", status=status, body="html"))
    answer = client.get("invoices")
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.text.startswith("<!DOCTYPE html>")


def test_an_error_without_a_body(client: Client) -> None:
    client.control.fault(Fault("status", status=500, body="empty"))
    assert client.get("invoices").content == b""


def test_a_timeout_outlasts_the_client(client: Client) -> None:
    client.control.fault(Fault("timeout", resource="invoices"))
    with pytest.raises(requests.ReadTimeout):
        client.send("GET", "invoices", timeout=0.3)
    assert client.get("invoices").status_code == 200
    assert client.control.counters().requests["GET invoices"] == {"cut": 1, "200": 1}


def test_a_timeout_ends_by_itself(client: Client) -> None:
    client.control.fault(Fault("timeout", seconds=0.1))
    start = time.monotonic()
    answer = client.get("invoices")
    assert 0.1 <= time.monotonic() - start < 2
    assert answer.status_code == 504


def test_a_connection_cut_in_the_middle_of_the_body(client: Client) -> None:
    client.control.fault(Fault("cut"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.get("line_items")
    assert client.get("line_items").status_code == 200


def test_broken_json_with_200(client: Client) -> None:
    client.control.fault(Fault("broken_json"))
    answer = client.get("line_items")
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_an_empty_page_in_the_middle(client: Client) -> None:
    client.control.fault(Fault("empty_page", resource="line_items", page=2))
    page = client.page("line_items", 2)
    assert page["line_items"] == []
    assert page["meta"]["total_pages"] == 5
    assert len(client.page("line_items", 2)["line_items"]) == 100


@pytest.mark.parametrize("value", [1, 900, "many", None])
def test_total_pages_can_be_wrong_text_or_missing(client: Client, value: object) -> None:
    client.control.fault(Fault("total_pages", value=value))
    meta = client.page("line_items")["meta"]
    assert meta.get("total_pages") == value
    assert ("total_pages" in meta) is (value is not None)
    assert meta["total_entries"] == 430


@pytest.mark.parametrize(("form", "value"), [("blank", ""), ("null", None), ("zero", "0")])
def test_ids_can_be_unusable(client: Client, form: str, value: object) -> None:
    client.control.fault(Fault("ids", id_form=form, rows=(0, 2)), Fault("ids", id_form=form, id_field="invoice_id"))
    ids = [row["id"] for row in client.page("line_items")["line_items"]]
    assert [place for place, row_id in enumerate(ids) if row_id == value] == [0, 2]
    assert {row["invoice_id"] for row in client.page("line_items")["line_items"]} == {value}


def test_ids_can_be_text(client: Client) -> None:
    true_ids = [row["id"] for row in client.page("line_items")["line_items"]]
    client.control.fault(Fault("ids"))
    assert [row["id"] for row in client.page("line_items")["line_items"]] == [str(i) for i in true_ids]


def test_rows_can_come_twice_alike_or_changed(client: Client) -> None:
    client.control.fault(Fault("duplicate_rows", value=3), Fault("duplicate_rows", nth=2, changes={"price": "1.0"}))
    alike = client.page("line_items")["line_items"]
    assert alike[100:] == alike[:3]
    changed = client.page("line_items")["line_items"]
    assert changed[100:] == [changed[0] | {"price": "1.0"}]


def test_totals_contradict_an_empty_list(client: Client) -> None:
    line = client.rows("line_items", invoice_id_not_null="true")[0]
    lines = len(client.rows("line_items", invoice_id=line["invoice_id"]))
    client.control.fault(Fault("empty_page", params={"invoice_id": str(line["invoice_id"])}))
    page = client.page("line_items", invoice_id=line["invoice_id"])
    assert page == {
        "line_items": [],
        "meta": {"total_pages": 1, "total_entries": lines, "per_page": 100, "page": 1},
    }
    client.control.fault(Fault("empty_page", resource="invoices", meta={"total_pages": 0, "total_entries": 0}))
    assert client.page("invoices") == {"invoices": [], "meta": {"total_pages": 0, "total_entries": 0, "page": 1}}
    client.control.fault(Fault("meta", resource="products", meta={"total_pages": 9}))
    assert client.page("products")["meta"] == {"total_pages": 9}


def test_a_list_is_404(client: Client) -> None:
    client.control.fault(Fault("status", status=404, resource="line_items", params={"invoice_id": "7"}))
    assert client.get("line_items", invoice_id=8).status_code == 200
    assert client.get("line_items", invoice_id=7).status_code == 404


@pytest.mark.parametrize(
    ("body", "keys"), [("alone", {"message"}), ("error", {"error"}), ("message", {"success", "error", "message"})]
)
def test_an_error_comes_with_200(client: Client, body: str, keys: set) -> None:
    client.control.fault(Fault("status", status=200, body=body, resource="invoices", times=2))
    assert client.get("invoices").json().keys() == client.get("invoices/1").json().keys() == keys


def test_rows_lie_on_order(client: Client) -> None:
    first, second, *others = rows = client.rows("invoices")[:25]

    def told(fault: Fault) -> list[dict]:
        client.control.fault(fault)
        return client.page("invoices")["invoices"]

    assert told(Fault("missing_rows", rows=(0, 2))) == [second, *others[1:]]
    assert told(Fault("changed", rows=(1,), changes={"note": "lie"})) == [first, second | {"note": "lie"}, *others]
    poorer = {name: value for name, value in first.items() if name != "total"}
    assert told(Fault("poorer", rows=(0,), fields=("total",))) == [poorer, second, *others]
    assert told(Fault("stub", rows=(0,), changes={"deleted": True}))[0] == {"id": first["id"], "deleted": True}
    assert told(Fault("other", rows=(0,)))[:2] == [second, second]
    client.control.fault(Fault("error_beside", rows=(0,)))
    page = client.page("invoices")
    assert page["error"]
    assert page["invoices"] == rows[1:]


def test_a_single_row_lies_on_order(client: Client) -> None:
    invoice_id = next(line["invoice_id"] for line in client.rows("line_items") if line["invoice_id"])
    invoice = client.one("invoices", invoice_id)

    def told(fault: Fault) -> dict:
        client.control.fault(fault)
        return client.get(f"invoices/{invoice_id}").json()

    assert told(Fault("stub", changes={"deleted": True})) == {"invoice": {"id": invoice_id, "deleted": True}}
    assert told(Fault("other"))["invoice"]["id"] > invoice_id
    assert told(Fault("error_beside")).keys() == {"error"}
    assert "id" not in told(Fault("poorer", fields=("line_items.id",)))["invoice"]["line_items"][0]
    doubled = told(Fault("doubled", fields=("line_items",)))["invoice"]["line_items"]
    assert [line["id"] for line in doubled] == [
        *(line["id"] for line in invoice["line_items"]),
        invoice["line_items"][0]["id"],
    ]


@pytest.mark.parametrize("embedded", [False, True])
def test_lines_lag_behind_their_invoices(client: Client, embedded: bool) -> None:
    client.control.lag("line_items", embedded=embedded)
    old = client.rows("line_items")
    changed = next(line for line in old if line["invoice_id"])
    (invoice_id,) = client.control.mutate(Mutation("insert", "invoices"))
    (line_id, _) = client.control.mutate(
        Mutation("insert", "line_items", row={"invoice_id": invoice_id}),
        Mutation("update", "line_items", changed["id"], {"name": "New"}),
    )
    assert client.rows("line_items") == old
    assert client.rows("line_items", invoice_id=invoice_id) == []
    assert client.get(f"line_items/{line_id}").status_code == 404
    assert [line["id"] for line in client.one("invoices", invoice_id)["line_items"]] == ([] if embedded else [line_id])
    client.control.catch_up()
    assert client.ids("line_items", invoice_id=invoice_id) == [line_id]
    assert client.one("line_items", changed["id"])["name"] == "New"


def test_a_page_of_rows_is_inserted_ahead_of_the_reader(client: Client) -> None:
    first = client.page("invoices")["invoices"]
    client.control.on_page("invoices", 1, *[Mutation("insert", "invoices", where="behind", page=1)] * 25)
    assert client.page("invoices")["invoices"] == first
    assert client.page("invoices", 2)["invoices"] == first


def test_the_same_page_again_and_again(client: Client) -> None:
    client.control.fault(Fault("same_page", resource="line_items", nth=3, times=None, value=2))
    pages = [client.page("line_items", number) for number in range(1, 6)]
    assert pages[1]["line_items"] == pages[2]["line_items"] == pages[4]["line_items"]
    assert [page["meta"]["page"] for page in pages] == [1, 2, 3, 4, 5]
    client.control.clear()
    client.control.fault(Fault("same_page", page=2))
    assert client.page("line_items", 2)["line_items"] == pages[0]["line_items"]


def test_orders_strike_from_the_nth_match_as_often_as_told(client: Client) -> None:
    client.control.fault(Fault("status", resource="tickets", nth=2, times=2))
    assert [client.get("tickets").status_code for _ in range(5)] == [200, 500, 500, 200, 200]


def test_orders_are_told_apart_by_item_parameters_and_method(client: Client) -> None:
    invoice_id = client.control.ids("invoices")[0]
    client.control.fault(
        Fault("status", status=500, resource="line_items", params={"invoice_id": str(invoice_id)}),
        Fault("status", status=502, resource="invoices", item=str(invoice_id)),
        Fault("status", status=503, resource="customers", method="POST"),
    )
    assert client.get("line_items").status_code == 200
    assert client.get("invoices").status_code == 200
    assert client.get("customers").status_code == 200
    assert client.get("line_items", invoice_id=invoice_id).status_code == 500
    assert client.get(f"invoices/{invoice_id}").status_code == 502
    assert client.send("POST", "customers", json={"business_name": "A"}).status_code == 503


def test_cleared_orders_strike_no_more(client: Client) -> None:
    client.control.fault(Fault("status", times=None))
    assert client.get("tickets").status_code == 500
    client.control.clear()
    assert client.get("tickets").status_code == 200


# Drift


@pytest.mark.parametrize("sort", ["id_asc", "id_desc", "updated_at_desc"])
def test_an_insert_behind_the_reader_doubles_the_boundary_row(client: Client, sort: str) -> None:
    client.control.set(sort=sort)
    before = set(client.control.ids("line_items"))
    client.control.on_page("line_items", 2, Mutation("insert", "line_items", where="behind", page=2))
    ids = client.ids("line_items")
    assert len(ids) == len(before) + 1
    assert set(ids) == before
    assert ids[199] == ids[200]
    assert len(client.control.ids("line_items")) == len(before) + 1


@pytest.mark.parametrize("sort", ["id_asc", "id_desc", "updated_at_desc"])
def test_an_insert_ahead_of_the_reader_is_seen_once(client: Client, sort: str) -> None:
    client.control.set(sort=sort)
    before = set(client.control.ids("line_items"))
    client.control.on_page("line_items", 2, Mutation("insert", "line_items", where="ahead", page=2))
    ids = client.ids("line_items")
    assert sorted(ids) == client.control.ids("line_items")
    assert len(set(ids) - before) == 1


@pytest.mark.parametrize("sort", ["id_asc", "id_desc", "updated_at_desc"])
def test_a_delete_behind_the_reader_hides_a_living_row(client: Client, sort: str) -> None:
    client.control.set(sort=sort)
    before = set(client.control.ids("line_items"))
    client.control.on_page("line_items", 2, Mutation("delete", "line_items", where="behind", page=2, silent=True))
    seen = set(client.ids("line_items"))
    after = set(client.control.ids("line_items"))
    assert len(before - after) == 1
    assert before - after <= seen
    assert len(after - seen) == 1


def test_a_delete_ahead_of_the_reader_hides_nothing_else(client: Client) -> None:
    client.control.on_page("line_items", 2, Mutation("delete", "line_items", where="ahead", page=2))
    assert client.ids("line_items") == client.control.ids("line_items")


def test_a_page_sets_drift_off_once_and_only_when_it_was_served(client: Client) -> None:
    row_id = client.control.ids("invoices")[0]
    client.control.on_page("invoices", 1, Mutation("delete", "invoices", row_id))
    client.control.fault(Fault("status", resource="invoices"))
    client.get("invoices")
    assert row_id in client.control.ids("invoices")
    assert client.page("invoices")["invoices"][0]["id"] == row_id
    assert row_id not in client.control.ids("invoices")
    client.page("invoices")


def test_mutations_in_bulk(client: Client) -> None:
    first, second, third = client.control.ids("line_items")[:3]
    invoice_id = client.control.ids("invoices")[50]
    new, *_ = client.control.mutate(
        Mutation("insert", "line_items", row={"invoice_id": invoice_id, "name": "Fan"}),
        Mutation("update", "line_items", second, {"price": "1.25"}),
        Mutation("delete", "line_items", third),
    )
    assert client.control.row("line_items", new)["name"] == "Fan"
    assert client.control.row("line_items", second)["price"] == "1.25"
    assert client.control.row("line_items", third) is None
    assert client.control.row("line_items", first) == client.page("line_items")["line_items"][0]
    assert client.control.totals()["line_items"] == 430
    assert new in [line["id"] for line in client.one("invoices", invoice_id)["line_items"]]


def test_silent_mutations_leave_the_parent_alone_and_others_do_not(client: Client) -> None:
    invoice = next(row for row in client.rows("invoices") if row["subtotal"] != "0.0")
    line = client.rows("line_items", invoice_id=invoice["id"])[0]
    client.control.mutate(Mutation("update", "line_items", line["id"], {"price": "1.0"}, silent=True))
    assert client.control.row("line_items", line["id"]) == line | {"price": "1.0"}
    assert client.control.row("invoices", invoice["id"]) == invoice
    client.control.mutate(Mutation("delete", "line_items", line["id"], silent=True))
    assert client.control.row("invoices", invoice["id"]) == invoice
    client.control.mutate(Mutation("insert", "line_items", row={"invoice_id": invoice["id"], "price": "1.0"}))
    assert client.control.row("invoices", invoice["id"])["updated_at"] > invoice["updated_at"]


def test_a_line_can_move_to_another_invoice(client: Client) -> None:
    line = client.page("line_items")["line_items"][0]
    other = client.control.ids("invoices")[90]
    before = [client.control.row("invoices", invoice_id) for invoice_id in (line["invoice_id"], other)]
    client.control.mutate(Mutation("update", "line_items", line["id"], {"invoice_id": other}))
    assert line["id"] not in client.ids("line_items", invoice_id=line["invoice_id"])
    assert line["id"] in client.ids("line_items", invoice_id=other)
    after = [client.control.row("invoices", invoice_id) for invoice_id in (line["invoice_id"], other)]
    assert all(old["updated_at"] < new["updated_at"] for old, new in zip(before, after, strict=True))
    assert sum(Decimal(row["subtotal"]) for row in before) == sum(Decimal(row["subtotal"]) for row in after)


def test_a_silently_deleted_invoice_leaves_its_lines_orphaned(client: Client) -> None:
    line = client.page("line_items")["line_items"][0]
    client.control.mutate(Mutation("delete", "invoices", line["invoice_id"], silent=True))
    assert client.get(f"invoices/{line['invoice_id']}").status_code == 404
    assert line["id"] in client.ids("line_items", invoice_id=line["invoice_id"])


def test_lists_that_were_read_before_follow_the_writes(client: Client) -> None:
    for params in ({"invoice_id_not_null": "true"}, {"estimate_id_not_null": "true"}):
        client.rows("line_items", **params)
    client.rows("customers", sort="updated_at DESC")
    customer, line = client.control.ids("customers")[5], client.control.ids("line_items")[5]
    client.control.mutate(
        Mutation("update", "customers", customer, {"notes": "called"}), Mutation("delete", "line_items", line)
    )
    assert client.ids("customers", sort="updated_at DESC")[0] == customer
    filtered = client.ids("line_items", invoice_id_not_null="true") + client.ids(
        "line_items", estimate_id_not_null="true"
    )
    assert sorted(filtered) == client.control.ids("line_items")


def test_every_list_agrees_with_the_rows_after_random_changes() -> None:
    store, chance = Store(Shop(1, SIZES)), random.Random(7)
    views = [("id", None), ("updated_at", None), ("id", "invoice_id"), ("id", "estimate_id"), ("price", "invoice_id")]
    for view in views:
        store.lines.ids(*view)
    invoices = list(store.tables["invoices"])
    for _ in range(400):
        line_id, invoice_id = chance.choice(list(store.lines)), chance.choice(invoices)
        store.apply(
            chance.choice(
                [
                    Mutation("insert", "line_items", row={"invoice_id": invoice_id}),
                    Mutation("insert", "line_items", where=chance.choice(["ahead", "behind"]), page=2),
                    Mutation("update", "line_items", line_id, {"price": str(chance.random())}, silent=True),
                    Mutation("update", "line_items", line_id, {"invoice_id": invoice_id, "estimate_id": None}),
                    Mutation("delete", "line_items", line_id),
                ]
            ),
            CONFIG,
        )
    rows = [store.lines.row(line_id) for line_id in store.lines]
    for order, having in views:
        held = [row for row in rows if having is None or row.get(having) is not None]
        expected = [row["id"] for row in sorted(held, key=lambda row: (row[order], row["id"]))]
        assert list(store.lines.ids(order, having)) == expected
    for invoice_id in invoices:
        assert store.lines_of("invoices", invoice_id) == [r for r in rows if r["invoice_id"] == invoice_id]


def test_loaded_rows_and_scripted_pages_are_served_exactly(client: Client) -> None:
    lines = [{"id": n, "invoice_id": 10 * n, "price": "1.0"} for n in (1, 2, 3)]
    pages = [[lines[0], lines[1]], [lines[1], lines[2] | {"id": ""}]]
    client.control.load("line_items", lines)
    assert client.rows("line_items") == lines
    client.control.script_pages("line_items", pages)
    assert client.page("line_items", 1) == {
        "line_items": pages[0],
        "meta": {"total_pages": 2, "total_entries": 4, "per_page": 2, "page": 1},
    }
    assert client.page("line_items", 2, invoice_id_not_null="true")["line_items"] == pages[1]
    assert client.page("line_items", 3)["line_items"] == []
    assert client.rows("line_items", invoice_id=30) == [lines[2]]
    client.control.clear()
    assert client.rows("line_items") == lines


# The control


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (lambda c: c.set(invoices=3), "can't change"),
        (lambda c: c.set(colour="red"), "no colour"),
        (lambda c: c.set(latency_ms="long"), "latency_ms"),
        (lambda c: c.fault(Fault("explode")), "explode"),
        (lambda c: c.mutate(Mutation("delete", "invoices", 5)), "no row 5"),
        (lambda c: c.mutate(Mutation("insert", "invoices", 100_000_001)), "already has"),
        (lambda c: c.mutate(Mutation("insert", "invoices", where="ahead", page=99)), "no page 99"),
        (lambda c: c.load("line_items", [{"id": ""}]), "integer ids"),
        (lambda c: c.ids("users"), "no resource"),
        (lambda c: c.on_page("users", 1), "no resource"),
    ],
)
def test_orders_that_make_no_sense_are_refused_with_the_reason(shop: Client, order: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        order(shop.control)


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.1.2.3", 403)])
def test_the_control_answers_to_its_own_machine_only(host: str, status: int) -> None:
    async def ask() -> int:
        transport = httpx.ASGITransport(create(account.Account(CONFIG)), client=(host, 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
            return (await client.get("/_control/health")).status_code

    assert asyncio.run(ask()) == status


def test_control_counts_as_no_request(client: Client) -> None:
    client.control.totals()
    assert client.control.counters().total() == 0


def _fail_while_an_answer_hangs(pool: ThreadPoolExecutor) -> None:
    with running(CONFIG) as simulator:
        simulator.control.fault(Fault("timeout"))
        pool.submit(requests.get, f"{simulator.url}/api/v1/invoices", timeout=30)
        while not simulator.control.counters().faults:
            time.sleep(0.01)
        raise ZeroDivisionError(simulator.url)


def test_it_is_gone_at_once_after_a_failure_while_an_answer_hangs() -> None:
    threads, start = threading.active_count(), time.monotonic()
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError) as failure:
        _fail_while_an_answer_hangs(pool)
    assert time.monotonic() - start < 5
    assert threading.active_count() == threads
    with pytest.raises(requests.ConnectionError):
        requests.get(str(failure.value), timeout=1)


# The command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_tells_its_url_and_ends_at_once(number: int) -> None:
    command = [sys.executable, "-m", "include.simulators.repairshopr", "--port", "0", "--seed", "3"]
    options = ["--invoices", "50", "--line-items", "77", "--no-limit", "--page-size", "line_items=1000"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[-1]
            assert requests.get(f"{url}/_control/health", timeout=5).status_code == 200
            lines = requests.get(f"{url}/api/v1/line_items", params={"api_key": "demo-token"}, timeout=5).json()
            assert len(lines["line_items"]) == 77
            process.send_signal(number)
            assert process.wait(timeout=3) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()


def test_a_taken_port_is_told_by_the_command(shop: Client) -> None:
    with running(CONFIG) as simulator:
        port = simulator.url.rpartition(":")[2]
        command = [sys.executable, "-m", "include.simulators.repairshopr", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"repairshopr simulator: can't listen on 127.0.0.1:{port} (Address already in use); choose another --port"
    ]
