"""The Square simulator over real HTTP: what the vendor documents, how rows change, and every order."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from include.simulators.square import Config, Fault, Mutation, Simulator, running

CONFIG = Config(orders=500, line_items=2_600, vendors=130)
LONG_AGO = "2020-01-01T00:00:00Z"
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ALL_TYPES = ["CATEGORY", "ITEM", "ITEM_VARIATION", "TAX", "DISCOUNT", "MEASUREMENT_UNIT"]
KEYS = {
    "catalog/list": "objects",
    "catalog/search": "objects",
    "inventory/counts/batch-retrieve": "counts",
    "inventory/batch-retrieve-counts": "counts",
    "vendors/search": "vendors",
    "orders/search": "orders",
    "payments": "payments",
    "refunds": "refunds",
}
GETS = ("catalog/list", "payments", "refunds")
Row = dict[str, Any]


class Client:
    """What a reader of the API does, with the right token unless told otherwise."""

    def __init__(self, simulator: Simulator) -> None:
        self.control = simulator.control
        self.url = f"{simulator.url}/v2"
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Bearer {simulator.token}", "Square-Version": "2026-01-22"})
        self.locations = self.get("locations").json()["locations"]
        self.places = [row["id"] for row in self.locations]

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        return self._session.request(method, f"{self.url}/{path}", **({"timeout": 10} | options))

    def get(self, path: str, /, **query: Any) -> requests.Response:
        return self.send("GET", path, params=query)

    def post(self, path: str, /, **body: Any) -> requests.Response:
        return self.send("POST", path, json=body)

    def ask(self, endpoint: str, /, **asked: Any) -> requests.Response:
        """One request of a list; orders are those of all locations unless told otherwise."""
        if endpoint == "orders/search":
            asked = {"location_ids": self.places} | asked
        return self.get(endpoint, **asked) if endpoint in GETS else self.post(endpoint, **asked)

    def page(self, endpoint: str, /, **asked: Any) -> Row:
        answer = self.ask(endpoint, **asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pages(self, endpoint: str, /, **asked: Any) -> list[Row]:
        found = [self.page(endpoint, **asked)]
        while "cursor" in found[-1]:
            assert len(found) < 500, "the list has no end"
            found.append(self.page(endpoint, cursor=found[-1]["cursor"], **asked))
        return found

    def rows(self, endpoint: str, /, **asked: Any) -> list[Row]:
        return [row for page in self.pages(endpoint, **asked) for row in page.get(KEYS[endpoint], ())]

    def ids(self, endpoint: str, /, **asked: Any) -> list[str]:
        return [row["id"] for row in self.rows(endpoint, **asked)]

    def payments(self, **asked: Any) -> list[Row]:
        asked |= {"begin_time": LONG_AGO}
        return [row for place in self.places for row in self.rows("payments", location_id=place, **asked)]

    def orders_by(self, field: str, order: str = "ASC", /, **window: str) -> list[Row]:
        return self.rows("orders/search", query=by(field, order, **window), limit=100)


def by(field: str, order: str = "ASC", states: list[str] | None = None, **window: str) -> Row:
    wanted: Row = {"date_time_filter": {field: window}} if window else {}
    if states:
        wanted["state_filter"] = {"states": states}
    return {"filter": wanted, "sort": {"sort_field": field.upper(), "sort_order": order}}


def cents(row: Row, name: str) -> int:
    return row.get(name, {"amount": 0})["amount"]


def errors(answer: requests.Response) -> tuple[int, str]:
    (entry,) = answer.json()["errors"]
    return answer.status_code, entry["code"]


def shifted(instant: str, **by_what: float) -> str:
    moment = datetime.fromisoformat(instant) + timedelta(**by_what)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture(scope="module")
def seller() -> Iterator[Client]:
    """A seller that no test changes."""
    with running(CONFIG) as simulator:
        yield Client(simulator)


@pytest.fixture
def client() -> Iterator[Client]:
    """A seller of the test's own."""
    with running(Config()) as simulator:
        yield Client(simulator)


# Shapes: the fields that the vendor's description gives each object, and those that were seen live


MONEY = {"amount": int, "currency": "USD"}
SHAPES: dict[str, dict[str, Any]] = {
    "location": {
        "id": str, "name": str, "address": dict, "timezone": str, "capabilities": list,
        "status": {"ACTIVE", "INACTIVE"}, "created_at": INSTANT, "merchant_id": str, "country": "US",
        "language_code": str, "currency": "USD", "phone_number": str, "business_name": str,
        "type": {"PHYSICAL", "MOBILE"}, "website_url": str, "business_hours": dict, "business_email": str,
        "description": str, "coordinates": dict, "mcc": str, "twitter_username": str, "instagram_username": str,
        "facebook_url": str, "logo_url": str,
    },
    "catalog": {
        "type": {*ALL_TYPES}, "id": str, "updated_at": INSTANT, "version": int, "is_deleted": bool,
        "present_at_all_locations": bool, "present_at_location_ids": list, "absent_at_location_ids": list,
        "custom_attribute_values": dict,
        "item_data": {
            "name": str, "description": str, "description_html": str, "description_plaintext": str,
            "is_taxable": bool, "category_id": str, "categories": list, "reporting_category": dict, "tax_ids": list,
            "variations": list, "product_type": {"REGULAR", "FOOD_AND_BEV"}, "is_archived": bool,
            "food_and_beverage_details": dict, "modifier_list_info": list, "item_options": list, "label_color": str,
        },
        "item_variation_data": {
            "item_id": str, "name": str, "sku": str, "upc": str, "ordinal": int,
            "pricing_type": {"FIXED_PRICING", "VARIABLE_PRICING"}, "price_money": MONEY, "location_overrides": list,
            "track_inventory": bool, "sellable": bool, "stockable": bool, "measurement_unit_id": str,
            "default_unit_cost": MONEY, "item_variation_vendor_infos": list,
        },
        "category_data": dict, "tax_data": dict, "discount_data": dict, "measurement_unit_data": dict,
    },
    "count": {
        "catalog_object_id": str, "catalog_object_type": "ITEM_VARIATION", "location_id": str,
        "state": {"IN_STOCK", "RESERVED_FOR_SALE", "WASTE", "IN_TRANSIT"},
        "quantity": re.compile(r"\d+(\.\d{1,5})?"), "calculated_at": INSTANT,
    },
    "vendor": {
        "id": str, "created_at": INSTANT, "updated_at": INSTANT, "name": str, "address": dict, "contacts": list,
        "account_number": str, "version": int, "status": {"ACTIVE", "INACTIVE"},
    },
    "order": {
        "id": str, "location_id": str, "reference_id": str, "source": dict, "customer_id": str, "line_items": list,
        "taxes": list, "discounts": list, "service_charges": list, "fulfillments": list, "returns": list,
        "return_amounts": dict, "net_amounts": dict, "tenders": list, "refunds": list, "metadata": dict,
        "created_at": INSTANT, "updated_at": INSTANT, "closed_at": INSTANT,
        "state": {"OPEN", "COMPLETED", "CANCELED", "DRAFT"}, "version": int, "total_money": MONEY,
        "total_tax_money": MONEY, "total_discount_money": MONEY, "total_tip_money": MONEY,
        "total_service_charge_money": MONEY, "ticket_name": str, "net_amount_due_money": MONEY,
        "pricing_options": dict, "rewards": list,
    },
    "line": {
        "uid": re.compile(r"line-\d+"), "name": str, "quantity": re.compile(r"\d+(\.\d+)?"), "quantity_unit": dict,
        "note": str, "catalog_object_id": str, "catalog_version": int, "variation_name": str,
        "item_type": {"ITEM", "CUSTOM_AMOUNT"}, "applied_taxes": list, "applied_discounts": list,
        "base_price_money": MONEY, "variation_total_price_money": MONEY, "gross_sales_money": MONEY,
        "total_tax_money": MONEY, "total_discount_money": MONEY, "total_money": MONEY,
        "applied_service_charges": list, "total_service_charge_money": MONEY,
    },
    "tender": {
        "id": str, "location_id": str, "transaction_id": str, "created_at": INSTANT, "amount_money": MONEY,
        "tip_money": MONEY, "processing_fee_money": MONEY, "customer_id": str, "type": {"CARD", "CASH"},
        "card_details": dict, "cash_details": dict, "payment_id": str, "additional_recipients": list,
    },
    "fulfillment": {
        "uid": str, "type": {"PICKUP", "SHIPMENT", "DELIVERY"}, "state": {"PROPOSED", "COMPLETED", "CANCELED"},
        "line_item_application": "ALL", "pickup_details": dict, "shipment_details": dict, "delivery_details": dict,
    },
    "return": {
        "uid": str, "source_order_id": str, "return_line_items": list, "return_taxes": list, "return_amounts": dict,
    },
    "refund in order": {
        "id": str, "location_id": str, "transaction_id": str, "tender_id": str, "created_at": INSTANT, "reason": str,
        "amount_money": MONEY, "status": {"PENDING", "APPROVED"},
    },
    "payment": {
        "id": str, "created_at": INSTANT, "updated_at": INSTANT, "amount_money": MONEY, "tip_money": MONEY,
        "total_money": MONEY, "approved_money": MONEY, "processing_fee": list, "refunded_money": MONEY,
        "status": {"COMPLETED"}, "delay_duration": str, "delay_action": str, "delayed_until": INSTANT,
        "source_type": {"CARD", "CASH"}, "card_details": dict, "cash_details": dict, "location_id": str,
        "order_id": str, "reference_id": str, "customer_id": str, "refund_ids": list,
        "receipt_number": re.compile(".{4}"), "receipt_url": str, "version_token": str,
        "is_offline_payment": bool, "offline_payment_details": dict,
    },
    "refund": {
        "id": str, "status": {"PENDING", "COMPLETED"}, "location_id": str, "unlinked": bool, "amount_money": MONEY,
        "payment_id": str, "order_id": str, "reason": str, "created_at": INSTANT, "updated_at": INSTANT,
    },
}  # fmt: skip


def misfits(row: Row, shape: dict[str, Any]) -> list[str]:
    def fits(value: Any, wanted: Any) -> bool:
        match wanted:
            case dict():
                return isinstance(value, dict) and not misfits(value, wanted)
            case set():
                return value in wanted
            case re.Pattern():
                return isinstance(value, str) and bool(wanted.fullmatch(value))
            case str():
                return value == wanted
        return type(value) is wanted

    return [name for name, value in row.items() if name not in shape or not fits(value, shape[name])]


def shown(seller: Client) -> dict[str, list[Row]]:
    orders = seller.rows("orders/search")
    return {
        "location": seller.locations,
        "catalog": seller.rows("catalog/search", object_types=ALL_TYPES),
        "count": seller.rows("inventory/counts/batch-retrieve"),
        "vendor": seller.rows("vendors/search"),
        "order": orders,
        "line": [line for order in orders for line in order.get("line_items", ())],
        "tender": [tender for order in orders for tender in order.get("tenders", ())],
        "fulfillment": [part for order in orders for part in order.get("fulfillments", ())],
        "return": [part for order in orders for part in order.get("returns", ())],
        "refund in order": [part for order in orders for part in order.get("refunds", ())],
        "payment": seller.payments(),
        "refund": seller.rows("refunds", begin_time=LONG_AGO),
    }


def test_rows_have_the_vendors_fields_types_and_words(seller: Client) -> None:
    for kind, rows in shown(seller).items():
        assert rows, kind
        assert [(kind, row.get("id"), misfits(row, SHAPES[kind])) for row in rows if misfits(row, SHAPES[kind])] == []
        assert {name for row in rows for name in row} == SHAPES[kind].keys(), kind


# The data


def test_the_seed_fixes_the_data() -> None:
    def data(seed: int) -> list[Any]:
        with running(Config(seed=seed, orders=60, line_items=300)) as simulator:
            reader = Client(simulator)
            return [reader.rows("orders/search"), reader.rows("catalog/list"), reader.payments()]

    assert data(1) == data(1)
    assert data(1) != data(2)


def test_the_sizes_are_exact(seller: Client) -> None:
    orders = seller.rows("orders/search")
    assert len(orders) == CONFIG.orders
    assert sum(len(order.get("line_items", ())) for order in orders) == CONFIG.line_items
    totals = seller.control.totals()
    assert totals["orders"] == len(orders)
    assert totals["payments"] == sum(len(order.get("tenders", ())) for order in orders)
    for kind in ("locations", "categories", "items", "variations", "vendors"):
        assert totals[kind] == getattr(CONFIG, kind) == len(seller.control.ids(kind))


def test_sizes_in_proportion_are_those_of_the_real_seller() -> None:
    config = Config.sized(30_390)
    assert (config.locations, config.items, config.variations) == (9, 868, 1_001)
    assert config.line_items == 159_131


def test_the_money_of_orders_adds_up(seller: Client) -> None:
    for order in seller.rows("orders/search"):
        lines = sum(cents(line, "total_money") for line in order.get("line_items", ()))
        charges = sum(
            cents(charge, "total_money")
            for charge in order.get("service_charges", ())
            if not charge["calculation_phase"].startswith("APPORTIONED_")
        )
        total, due = cents(order, "total_money"), cents(order, "net_amount_due_money")
        assert lines + charges + cents(order, "total_tip_money") == total
        if order["state"] == "COMPLETED":
            assert sum(cents(tender, "amount_money") for tender in order.get("tenders", ())) == total - due
        returned = cents(order.get("return_amounts", {}), "total_money")
        assert cents(order["net_amounts"], "total_money") == total - returned
        assert order["created_at"] <= order.get("closed_at", order["created_at"]) <= order["updated_at"]


def test_every_tender_has_its_payment(seller: Client) -> None:
    tenders = {
        tender["payment_id"]: (order, tender)
        for order in seller.rows("orders/search")
        for tender in order.get("tenders", ())
    }
    payments = seller.payments()
    assert sorted(tenders) == sorted(payment["id"] for payment in payments) == seller.control.ids("payments")
    for payment in payments:
        order, tender = tenders[payment["id"]]
        assert tender["id"] == payment["id"]
        assert tender["transaction_id"] == payment["order_id"] == order["id"]
        assert cents(tender, "amount_money") == cents(payment, "total_money")
        assert cents(payment, "amount_money") + cents(payment, "tip_money") == cents(payment, "total_money")
        assert ("processing_fee" in payment) == ("processing_fee_money" in tender)
    assert {payment["source_type"] for payment in payments} == {"CARD", "CASH"}
    assert Counter(tender["transaction_id"] for _, tender in tenders.values()).most_common(1)[0][1] == 2


def test_a_refund_joins_payment_order_and_return(seller: Client) -> None:
    refunds = seller.rows("refunds", begin_time=LONG_AGO)
    assert refunds
    for refund in refunds:
        payment = seller.control.row("payments", refund["payment_id"])
        source = seller.control.row("orders", payment["order_id"])
        returning = seller.control.row("orders", refund["order_id"])
        assert returning["returns"][0]["source_order_id"] == source["id"]
        assert payment["refund_ids"] == [refund["id"]] == [row["id"] for row in source["refunds"]]
        assert cents(payment, "refunded_money") == cents(refund, "amount_money") <= cents(payment, "total_money")
        assert cents(returning["return_amounts"], "total_money") == cents(refund, "amount_money")
        assert "line_items" not in returning
        assert source["updated_at"] >= refund["created_at"]


def test_uids_collide_across_orders(seller: Client) -> None:
    orders = [order for order in seller.rows("orders/search") if "line_items" in order]
    for order in orders:
        uids = [line["uid"] for line in order["line_items"]]
        assert len(set(uids)) == len(uids)
    assert len({order["line_items"][0]["uid"] for order in orders}) == 1


def test_the_traps_lie_in_the_data(seller: Client) -> None:
    items = seller.rows("catalog/search", object_types=["ITEM"])
    variations = seller.rows("catalog/search", object_types=["ITEM_VARIATION"])
    counts = seller.rows("inventory/counts/batch-retrieve")
    named = {
        line.get("catalog_object_id") for order in seller.rows("orders/search") for line in order.get("line_items", ())
    }
    assert any(item["item_data"]["is_archived"] for item in items)
    assert any(not item["present_at_all_locations"] and item["present_at_location_ids"] for item in items)
    assert any(item.get("absent_at_location_ids") for item in items)
    assert any("location_overrides" in row["item_variation_data"] for row in variations)
    assert max(Counter(row["updated_at"] for row in variations).values()) > 1
    assert named - {row["id"] for row in variations} > {None}
    assert any("." in count["quantity"] for count in counts)
    places = Counter((count["catalog_object_id"], count["location_id"]) for count in counts)
    assert max(places.values()) > 1
    orders = seller.rows("orders/search")
    charges = [charge for order in orders for charge in order.get("service_charges", ())]
    assert {(charge["calculation_phase"], charge.get("treatment_type")) for charge in charges} == {
        ("TOTAL_PHASE", None),
        ("APPORTIONED_AMOUNT_PHASE", None),
        ("APPORTIONED_PERCENTAGE_PHASE", "APPORTIONED_TREATMENT"),
    }
    versions = {("version" in order, order["source"]["name"]) for order in orders}
    assert versions == {(True, "Online Store"), (True, "Square Point of Sale"), (False, "Square Point of Sale")}
    assert len({row["timezone"] for row in seller.locations}) > 2
    assert [row["status"] for row in seller.locations].count("INACTIVE") == 1


# Access and protocol


@pytest.mark.parametrize("headers", [{"Authorization": None}, {"Authorization": "Bearer wrong"}])
def test_a_wrong_or_missing_token_is_401(seller: Client, headers: dict) -> None:
    answer = seller.send("GET", "locations", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["errors"][0] | {"detail": ""} == {
        "category": "AUTHENTICATION_ERROR",
        "code": "UNAUTHORIZED",
        "detail": "",
    }


def test_unknown_paths_and_methods(seller: Client) -> None:
    assert errors(seller.get("nothing")) == (404, "NOT_FOUND")
    assert errors(seller.get("orders/search/x/y")) == (404, "NOT_FOUND")
    assert errors(seller.get("vendors/search")) == (405, "METHOD_NOT_ALLOWED")
    assert errors(seller.post("payments")) == (405, "METHOD_NOT_ALLOWED")


@pytest.mark.parametrize(
    ("endpoint", "asked", "code"),
    [
        ("orders/search", {"location_ids": "LOC"}, "EXPECTED_ARRAY"),
        ("orders/search", {"location_ids": []}, "ARRAY_EMPTY"),
        ("orders/search", {"location_ids": ["x"] * 11}, "ARRAY_LENGTH_TOO_LONG"),
        ("orders/search", {"location_ids": ["x"]}, "INVALID_VALUE"),
        ("orders/search", {"limit": 1_001}, "VALUE_TOO_HIGH"),
        ("orders/search", {"limit": 0}, "VALUE_TOO_LOW"),
        ("orders/search", {"limit": "9"}, "EXPECTED_INTEGER"),
        ("orders/search", {"return_entries": "yes"}, "EXPECTED_BOOLEAN"),
        ("orders/search", {"query": {"filters": {}}}, "UNKNOWN_BODY_PARAMETER"),
        ("orders/search", {"query": {"sort": {"sort_field": "TOTAL"}}}, "INVALID_ENUM_VALUE"),
        ("orders/search", {"query": {"filter": {"state_filter": {"states": ["PAID"]}}}}, "INVALID_ENUM_VALUE"),
        ("orders/search", {"query": {"filter": {"source_filter": {}}}}, "NOT_IMPLEMENTED"),
        ("orders/search", {"query": by("updated_at", start_at="yesterday")}, "INVALID_TIME"),
        ("orders/search", {"query": by("updated_at", start_at="2025-01-01T00:00:00")}, "INVALID_TIME"),
        (
            "orders/search",
            {"query": by("updated_at", start_at="2025-02-01T00:00:00Z", end_at="2025-01-01T00:00:00Z")},
            "INVALID_TIME_RANGE",
        ),
        ("catalog/search", {"object_types": "ITEM"}, "EXPECTED_ARRAY"),
        ("catalog/search", {"object_types": ["ITEMS"]}, "INVALID_ENUM_VALUE"),
        ("catalog/search", {"begin_time": "2025"}, "INVALID_TIME"),
        ("catalog/search", {"query": {"prefix_query": {}}}, "NOT_IMPLEMENTED"),
        (
            "catalog/search",
            {"include_deleted_objects": True, "include_category_path_to_root": True},
            "CONFLICTING_PARAMETERS",
        ),
        ("catalog/batch-retrieve", {}, "MISSING_REQUIRED_PARAMETER"),
        ("catalog/batch-retrieve", {"object_ids": ["x"] * 1_001}, "ARRAY_LENGTH_TOO_LONG"),
        ("orders/batch-retrieve", {"order_ids": ["x"] * 101}, "ARRAY_LENGTH_TOO_LONG"),
        ("inventory/counts/batch-retrieve", {"limit": 1_001}, "VALUE_TOO_HIGH"),
        ("payments", {"location_id": "x"}, "INVALID_VALUE"),
        ("payments", {"begin_time": "soon"}, "INVALID_TIME"),
        ("payments", {"sort_by": "x"}, "UNKNOWN_QUERY_PARAMETER"),
        ("refunds", {"sort_field": "AMOUNT"}, "INVALID_ENUM_VALUE"),
    ],
)
def test_what_makes_no_sense_is_refused(seller: Client, endpoint: str, asked: dict, code: str) -> None:
    status, told = errors(seller.ask(endpoint, **asked))
    assert (status, told) == (501 if code == "NOT_IMPLEMENTED" else 400, code)


def test_orders_need_locations_and_json(seller: Client) -> None:
    assert errors(seller.post("orders/search")) == (400, "MISSING_REQUIRED_PARAMETER")
    assert errors(seller.send("POST", "orders/search", data=b"{")) == (400, "EXPECTED_JSON_BODY")


def test_ids_that_do_not_exist(seller: Client) -> None:
    for path in ("orders", "payments", "refunds", "vendors", "locations", "catalog/object"):
        assert errors(seller.get(f"{path}/none")) == (404, "NOT_FOUND")
    assert seller.post("orders/batch-retrieve", order_ids=["none"]).json() == {}
    assert seller.post("catalog/batch-retrieve", object_ids=["none"]).json() == {}


def test_single_rows_are_those_of_the_lists(seller: Client) -> None:
    lists = shown(seller)
    for path, key, kind in (
        ("orders", "order", "order"),
        ("payments", "payment", "payment"),
        ("refunds", "refund", "refund"),
        ("vendors", "vendor", "vendor"),
        ("locations", "location", "location"),
        ("catalog/object", "object", "catalog"),
    ):
        for row in lists[kind][::37]:
            assert seller.get(f"{path}/{row['id']}").json() == {key: row}
    ids = [row["id"] for row in lists["order"][:100]]
    assert seller.post("orders/batch-retrieve", order_ids=ids).json() == {"orders": lists["order"][:100]}
    assert seller.get("locations/main").json()["location"]["id"] in seller.places
    bulk = seller.post("vendors/bulk-retrieve", vendor_ids=[lists["vendor"][0]["id"], "none"]).json()["responses"]
    assert bulk[lists["vendor"][0]["id"]] == {"vendor": lists["vendor"][0]}
    assert bulk["none"]["errors"][0]["code"] == "NOT_FOUND"


def test_counts_of_one_object_by_its_own_address(seller: Client) -> None:
    counts = seller.rows("inventory/counts/batch-retrieve")
    variation = counts[0]["catalog_object_id"]
    mine = [row for row in counts if row["catalog_object_id"] == variation]
    assert unsorted(seller.get(f"inventory/{variation}").json()["counts"]) == unsorted(mine)
    place = mine[0]["location_id"]
    here = seller.get(f"inventory/{variation}", location_ids=f"{place},{seller.places[0]}").json()["counts"]
    assert unsorted(here) == unsorted(row for row in mine if row["location_id"] in (place, seller.places[0]))
    assert seller.get("inventory/none").json() == {}


def unsorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["catalog_object_id"], row["location_id"], row["state"]))


def test_what_the_description_leaves_open(client: Client) -> None:
    item, variation = client.control.ids("items")[0], client.control.ids("variations")[0]
    client.control.mutate(Mutation("delete", "items", item))
    assert errors(client.get(f"catalog/object/{item}")) == (404, "NOT_FOUND")
    assert len({row["state"] for row in client.get(f"inventory/{variation}").json()["counts"]}) > 1
    payments = client.payments()
    client.control.set(
        deleted_object="tombstone", own_counts="in_stock", uncounted="not_found", offline_payments_listed=False
    )
    assert client.get(f"catalog/object/{item}").json()["object"]["is_deleted"] is True
    assert {row["state"] for row in client.get(f"inventory/{variation}").json()["counts"]} == {"IN_STOCK"}
    assert errors(client.get("inventory/none")) == (404, "NOT_FOUND")
    online = client.payments()
    assert online == client.payments(is_offline_payment="false")
    offline = client.payments(is_offline_payment="true")
    assert all(row["is_offline_payment"] for row in offline)
    assert sorted(row["id"] for row in [*online, *offline]) == sorted(row["id"] for row in payments)
    assert online
    assert offline


def test_an_empty_answer_has_no_keys(seller: Client) -> None:
    nothing = by("updated_at", start_at="2030-01-01T00:00:00Z")
    assert seller.page("orders/search", query=nothing) == {}
    assert seller.page("payments", begin_time="2030-01-01T00:00:00Z") == {}
    assert seller.page("catalog/search", begin_time="2030-01-01T00:00:00Z").keys() == {"latest_time"}


def test_locations_are_sorted_by_name(seller: Client) -> None:
    names = [row["name"] for row in seller.locations]
    assert names == sorted(names)


# Cursors


@pytest.mark.parametrize(
    ("endpoint", "asked", "size"),
    [
        ("catalog/list", {"types": "ITEM,ITEM_VARIATION"}, 100),
        ("catalog/search", {"object_types": ALL_TYPES, "limit": 7}, 7),
        ("inventory/counts/batch-retrieve", {"limit": 13}, 13),
        ("inventory/batch-retrieve-counts", {"limit": 13}, 13),
        ("vendors/search", {}, 100),
        ("orders/search", {"limit": 30}, 30),
        ("orders/search", {"limit": 30, "query": by("updated_at", "DESC")}, 30),
        ("payments", {"begin_time": LONG_AGO, "limit": 9}, 9),
        ("refunds", {"begin_time": LONG_AGO, "limit": 3}, 3),
    ],
)
def test_pages_hold_every_row_once_and_the_last_has_no_cursor(
    seller: Client, endpoint: str, asked: dict, size: int
) -> None:
    pages = seller.pages(endpoint, **asked)
    assert len(pages) > 1
    assert all(len(page[KEYS[endpoint]]) == size for page in pages[:-1])
    rows = [str(row) for page in pages for row in page[KEYS[endpoint]]]
    assert len(set(rows)) == len(rows)
    if endpoint == "orders/search":
        assert len(rows) == CONFIG.orders
    if endpoint == "inventory/counts/batch-retrieve":
        assert len(rows) == seller.control.totals()["counts"]


def test_a_cursor_is_good_for_its_query_only(seller: Client) -> None:
    cursor = seller.page("orders/search", limit=10)["cursor"]
    bad = (400, "INVALID_CURSOR")
    assert errors(seller.ask("orders/search", limit=10, cursor=cursor, query=by("updated_at"))) == bad
    assert errors(seller.ask("orders/search", limit=10, cursor=cursor, location_ids=seller.places[:3])) == bad
    assert errors(seller.ask("payments", cursor=cursor)) == bad
    assert errors(seller.ask("orders/search", limit=10, cursor=f"A{cursor[1:]}")) == bad
    assert errors(seller.ask("orders/search", limit=10, cursor="ö")) == bad
    assert seller.ask("orders/search", limit=10, cursor=cursor).status_code == 200


def test_a_cursor_expires_and_every_answer_renews_it(client: Client) -> None:
    client.control.set(cursor_seconds=60)
    cursor = client.page("orders/search", limit=10)["cursor"]
    client.control.advance(60)
    again = client.page("orders/search", limit=10, cursor=cursor)["cursor"]
    client.control.advance(1)
    assert errors(client.ask("orders/search", limit=10, cursor=cursor)) == (400, "INVALID_CURSOR")
    assert client.ask("orders/search", limit=10, cursor=again).status_code == 200
    client.control.expire_cursors()
    assert errors(client.ask("orders/search", limit=10, cursor=again)) == (400, "INVALID_CURSOR")


# Orders


@pytest.mark.parametrize("field", ["created_at", "updated_at", "closed_at"])
@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_orders_are_sorted_by_the_field(seller: Client, field: str, order: str) -> None:
    times = [row[field] for row in seller.orders_by(field, order, start_at=LONG_AGO)]
    assert times == sorted(times, reverse=order == "DESC")
    assert len(times) == sum(field in row for row in seller.rows("orders/search"))


def test_orders_come_newest_first_and_500_a_page(client: Client, seller: Client) -> None:
    times = [row["created_at"] for row in seller.rows("orders/search")]
    assert times == sorted(times, reverse=True)
    client.control.mutate(*[Mutation("create", "orders")] * 101)
    assert [len(page["orders"]) for page in client.pages("orders/search")] == [500, 1]


def test_both_ends_of_a_window_are_in_it(seller: Client) -> None:
    times = sorted(row["updated_at"] for row in seller.rows("orders/search"))
    first, last = times[40], times[200]
    found = [row["updated_at"] for row in seller.orders_by("updated_at", start_at=first, end_at=last)]
    assert found == [time for time in times if first <= time <= last]
    inside = seller.orders_by(
        "updated_at", start_at=shifted(first, milliseconds=1), end_at=shifted(last, milliseconds=-1)
    )
    assert [row["updated_at"] for row in inside] == [time for time in times if first < time < last]


def test_a_window_takes_other_offsets(seller: Client) -> None:
    start = "2025-06-01T02:00:00+02:00"
    assert seller.orders_by("created_at", start_at=start) == seller.orders_by(
        "created_at", start_at="2025-06-01T00:00:00Z"
    )


def test_the_sort_field_must_be_the_filtered_one(seller: Client) -> None:
    wanted = by("updated_at", start_at=LONG_AGO)
    wanted["sort"]["sort_field"] = "CREATED_AT"
    assert errors(seller.ask("orders/search", query=wanted)) == (400, "BAD_REQUEST")
    del wanted["sort"]
    assert errors(seller.ask("orders/search", query=wanted)) == (400, "BAD_REQUEST")


def test_exactly_one_time_filter(seller: Client) -> None:
    both = {"created_at": {"start_at": LONG_AGO}, "updated_at": {"start_at": LONG_AGO}}
    answer = seller.ask("orders/search", query={"filter": {"date_time_filter": both}})
    assert errors(answer) == (400, "CONFLICTING_PARAMETERS")
    answer = seller.ask("orders/search", query={"filter": {"date_time_filter": {}}})
    assert errors(answer) == (400, "CONFLICTING_PARAMETERS")


def test_orders_by_location_state_and_as_entries(seller: Client) -> None:
    everything = seller.rows("orders/search")
    chosen = seller.places[1:3]
    some = seller.ids("orders/search", location_ids=chosen)
    assert sorted(some) == sorted(row["id"] for row in everything if row["location_id"] in chosen)
    for state in ("DRAFT", "OPEN", "CANCELED", "COMPLETED"):
        found = seller.ids("orders/search", query=by("created_at", "DESC", [state]), limit=20)
        assert found == [row["id"] for row in everything if row["state"] == state] != []
    (page,) = seller.pages("orders/search", return_entries=True)
    assert page["order_entries"] == [
        {"order_id": row["id"]} | {name: row[name] for name in ("version", "location_id") if name in row}
        for row in everything
    ]


def test_an_open_end_is_the_time_of_the_first_request(client: Client) -> None:
    wanted = by("updated_at", start_at=LONG_AGO)
    first = client.page("orders/search", query=wanted, limit=390)
    (new,) = client.control.mutate(Mutation("create", "orders"))
    rest = client.page("orders/search", query=wanted, limit=390, cursor=first["cursor"])
    assert "cursor" not in rest
    assert new not in {row["id"] for row in rest["orders"]}
    assert client.orders_by("updated_at", start_at=LONG_AGO)[-1]["id"] == new


# Catalog


def test_only_top_level_types_by_default(seller: Client) -> None:
    top = {"CATEGORY", "ITEM", "TAX", "DISCOUNT", "MEASUREMENT_UNIT"}
    assert {row["type"] for row in seller.rows("catalog/search")} == top
    assert {row["type"] for row in seller.rows("catalog/list")} == top
    assert {row["type"] for row in seller.rows("catalog/list", types="item_variation, ITEM")} == {
        "ITEM",
        "ITEM_VARIATION",
    }


def test_items_hold_their_variations(seller: Client) -> None:
    variations = seller.rows("catalog/search", object_types=["ITEM_VARIATION"])
    held = [
        row
        for item in seller.rows("catalog/search", object_types=["ITEM"])
        for row in item["item_data"].get("variations", ())
    ]
    assert sorted(held, key=str) == sorted(variations, key=str)


def test_begin_time_is_exclusive(seller: Client) -> None:
    rows = seller.rows("catalog/search", object_types=ALL_TYPES)
    middle = sorted(row["updated_at"] for row in rows)[len(rows) // 2]
    after = seller.rows("catalog/search", object_types=ALL_TYPES, begin_time=middle)
    assert after == [row for row in rows if row["updated_at"] > middle]
    latest = seller.page("catalog/search")["latest_time"]
    assert latest == max(row["updated_at"] for row in rows)
    assert "objects" not in seller.page("catalog/search", object_types=ALL_TYPES, begin_time=latest)


@pytest.mark.parametrize("limit", [-1, 0, 1_001])
def test_a_limit_out_of_bounds_is_ignored(seller: Client, limit: int) -> None:
    assert len(seller.page("catalog/search", object_types=ALL_TYPES, limit=limit)["objects"]) > 100


def test_a_crawl_sees_one_state_of_the_catalog(client: Client) -> None:
    asked = {"object_types": ["ITEM", "CATEGORY"], "include_deleted_objects": True, "limit": 20}
    before = client.rows("catalog/search", **asked)
    first = client.page("catalog/search", **asked)
    items = client.control.ids("items")
    client.control.mutate(
        Mutation("update", "items", items[-1], {"name": "Another"}),
        Mutation("delete", "items", items[-2]),
        Mutation("create", "categories", fields={"name": "New"}),
    )
    pages = [first]
    while "cursor" in pages[-1]:
        pages.append(client.page("catalog/search", cursor=pages[-1]["cursor"], **asked))
    assert [row for page in pages for row in page["objects"]] == before
    assert len({page["latest_time"] for page in pages}) == 1
    news = client.rows("catalog/search", begin_time=first["latest_time"], include_deleted_objects=True)
    assert Counter(row["type"] for row in news) == {"ITEM": 2, "CATEGORY": 1}


def test_related_objects_go_one_level_deep(seller: Client) -> None:
    page = seller.page("catalog/search", object_types=["ITEM_VARIATION"], include_related_objects=True, limit=5)
    related = {row["id"] for row in page["related_objects"]}
    assert {row["item_variation_data"]["item_id"] for row in page["objects"]} <= related
    item = next(row for row in page["related_objects"] if row["type"] == "ITEM" and "categories" in row["item_data"])
    assert item["item_data"]["category_id"] not in related
    answer = seller.get(f"catalog/object/{item['id']}", include_related_objects="true").json()
    assert item["item_data"]["category_id"] in {row["id"] for row in answer["related_objects"]}
    batch = seller.post("catalog/batch-retrieve", object_ids=[item["id"]], include_related_objects=True).json()
    assert batch["objects"] == [item]
    assert batch["related_objects"] == answer["related_objects"]


def test_a_deleted_item_leaves_tombstones(client: Client) -> None:
    item = next(row for row in client.rows("catalog/list", types="ITEM") if len(row["item_data"]["variations"]) > 1)
    children = {row["id"] for row in item["item_data"]["variations"]}
    latest = client.page("catalog/search")["latest_time"]
    client.control.mutate(Mutation("delete", "items", item["id"]))
    news = client.rows("catalog/search", object_types=ALL_TYPES, begin_time=latest, include_deleted_objects=True)
    assert {row["id"] for row in news} == {item["id"], *children}
    assert all(row["is_deleted"] for row in news)
    assert next(row for row in news if row["id"] == item["id"])["version"] > item["version"]
    assert item["id"] not in client.ids("catalog/list")
    assert item["id"] not in client.ids("catalog/search")
    assert errors(client.get(f"catalog/object/{item['id']}")) == (404, "NOT_FOUND")
    ids = [item["id"], *children]
    assert client.post("catalog/batch-retrieve", object_ids=ids).json() == {}
    found = client.post("catalog/batch-retrieve", object_ids=ids, include_deleted_objects=True).json()["objects"]
    assert {row["id"] for row in found} == {*ids}


def test_variations_may_go_without_a_tombstone(client: Client) -> None:
    item = client.rows("catalog/list", types="ITEM")[0]
    latest = client.page("catalog/search")["latest_time"]
    client.control.mutate(Mutation("delete", "items", item["id"], cascade=False))
    asked = {"object_types": ALL_TYPES, "include_deleted_objects": True}
    assert [row["id"] for row in client.rows("catalog/search", begin_time=latest, **asked)] == [item["id"]]
    child = item["item_data"]["variations"][0]["id"]
    assert child not in client.ids("catalog/search", **asked)


# Inventory and vendors


def test_counts_come_newest_first_and_are_filtered(seller: Client) -> None:
    everything = seller.rows("inventory/counts/batch-retrieve")
    times = [row["calculated_at"] for row in everything]
    assert times == sorted(times, reverse=True)
    variation, places = everything[5]["catalog_object_id"], seller.places[:2]
    for asked, holds in (
        ({"catalog_object_ids": [variation]}, lambda row: row["catalog_object_id"] == variation),
        ({"location_ids": places}, lambda row: row["location_id"] in places),
        ({"states": ["WASTE", "IN_TRANSIT"]}, lambda row: row["state"] in ("WASTE", "IN_TRANSIT")),
        ({"states": ["SOLD"]}, lambda row: True),
        ({"updated_after": times[100]}, lambda row: row["calculated_at"] > times[100]),
    ):
        assert seller.rows("inventory/counts/batch-retrieve", limit=90, **asked) == list(filter(holds, everything))


def test_vendors_are_filtered_and_sorted(seller: Client) -> None:
    vendors = seller.rows("vendors/search")
    inactive = seller.rows("vendors/search", filter={"status": ["INACTIVE"]})
    assert inactive == [row for row in vendors if row["status"] == "INACTIVE"] != []
    name = vendors[7]["name"]
    assert seller.rows("vendors/search", filter={"name": [name]}) == [vendors[7]]
    names = [row["name"] for row in seller.rows("vendors/search", sort={"field": "NAME", "order": "DESC"})]
    assert names == sorted(names, reverse=True)


# Payments and refunds


def test_payments_are_those_of_the_main_location_by_default(seller: Client) -> None:
    main = seller.get("locations/main").json()["location"]["id"]
    rows = seller.rows("payments", begin_time=LONG_AGO)
    assert {row["location_id"] for row in rows} == {main}
    assert len(rows) < len(seller.payments())
    times = [row["created_at"] for row in rows]
    assert times == sorted(times, reverse=True)


def test_payments_go_back_a_year_by_default(seller: Client) -> None:
    times = [row["created_at"] for row in seller.rows("payments", begin_time=LONG_AGO)]
    assert [row["created_at"] for row in seller.rows("payments")] == [
        time for time in times if time >= "2025-01-05T12:00:00"
    ]


def test_payments_by_updated_at(seller: Client) -> None:
    rows = seller.rows("payments", begin_time=LONG_AGO)
    times = sorted(row["updated_at"] for row in rows)
    low, high = times[5], times[-5]
    found = seller.rows(
        "payments",
        begin_time=LONG_AGO,
        updated_at_begin_time=low,
        updated_at_end_time=high,
        sort_field="UPDATED_AT",
        sort_order="ASC",
        limit=6,
    )
    assert [row["updated_at"] for row in found] == [time for time in times if low <= time <= high]
    by_creation = seller.ids("payments", begin_time=LONG_AGO, updated_at_begin_time=low, updated_at_end_time=high)
    assert sorted(by_creation) == sorted(row["id"] for row in found)


def test_a_page_of_payments_holds_100_at_most(client: Client) -> None:
    client.control.mutate(*[Mutation("create", "orders")] * 101)
    assert len(client.page("payments", limit=1_000)["payments"]) == 100


def test_refunds_are_those_of_all_locations_by_default(seller: Client) -> None:
    rows = seller.rows("refunds", begin_time=LONG_AGO)
    assert len({row["location_id"] for row in rows}) > 1
    place = rows[0]["location_id"]
    some = seller.ids("refunds", begin_time=LONG_AGO, location_id=place)
    assert some == [row["id"] for row in rows if row["location_id"] == place]
    for status in ("PENDING", "COMPLETED"):
        found = seller.ids("refunds", begin_time=LONG_AGO, status=status)
        assert found == [row["id"] for row in rows if row["status"] == status] != []
    assert seller.ids("refunds", begin_time=LONG_AGO, source_type="CARD") == [row["id"] for row in rows]
    assert seller.ids("refunds", begin_time=LONG_AGO, source_type="CASH") == []


# Time


def test_the_clock_stands_still_until_told(client: Client) -> None:
    def date() -> str:
        return parsedate_to_datetime(client.get("locations").headers["Date"]).strftime("%H:%M:%S")

    assert (date(), date()) == ("12:00:00", "12:00:00")
    assert client.control.advance(90) == client.control.now() == "2026-01-05T12:01:30.000Z"
    assert date() == "12:01:30"
    client.control.mutate(Mutation("create", "orders"), Mutation("create", "orders"))
    assert date() == "12:01:31"


def test_without_now_the_clock_is_the_real_one() -> None:
    with running(Config(now=None, orders=10, line_items=40)) as simulator:
        client = Client(simulator)
        told = parsedate_to_datetime(client.get("locations").headers["Date"])
        assert abs((told - datetime.now(told.tzinfo)).total_seconds()) < 5


# Changes


def changed(before: dict[str, list[Row]], after: dict[str, list[Row]]) -> dict[str, list[str]]:
    """Ids of the rows of each kind that are not as they were."""

    def texts(rows: list[Row]) -> dict[str, str]:
        return {row.get("id") or str(row): str(row) for row in rows}

    kinds = ("location", "catalog", "count", "vendor", "order", "payment", "refund")
    pairs = ((kind, texts(before[kind]), texts(after[kind])) for kind in kinds)
    found = {kind: [key for key in {**old, **new} if old.get(key) != new.get(key)] for kind, old, new in pairs}
    return {kind: sorted(keys) for kind, keys in found.items() if keys}


def open_order(client: Client) -> str:
    return client.ids("orders/search", query=by("created_at", "DESC", ["OPEN"]))[0]


def card_payment(client: Client, *, fee: bool = True) -> Row:
    rows = client.payments()
    return next(
        row
        for row in rows
        if row["source_type"] == "CARD" and ("processing_fee" in row) == fee and "refund_ids" not in row
    )


def test_a_new_order_is_paid(client: Client) -> None:
    before = shown(client)
    (order_id,) = client.control.mutate(Mutation("create", "orders", fields={"location_id": client.places[2]}))
    order = client.get(f"orders/{order_id}").json()["order"]
    payments = [tender["payment_id"] for tender in order["tenders"]]
    assert changed(before, shown(client)) == {"order": [order_id], "payment": sorted(payments)}
    assert (order["location_id"], order["version"]) == (client.places[2], 1)
    assert order["created_at"] == order["updated_at"] == order["closed_at"] == client.control.now()
    assert client.get(f"payments/{payments[0]}").json()["payment"]["order_id"] == order_id


def test_an_offline_sale_comes_late(client: Client) -> None:
    sold = shifted(client.control.now(), hours=-70)
    (order_id,) = client.control.mutate(Mutation("create", "orders", fields={"created_at": sold}))
    newest = client.orders_by("updated_at", start_at=client.control.now())
    assert [(row["id"], row["created_at"]) for row in newest] == [(order_id, sold)]
    payment = client.get(f"payments/{newest[0]['tenders'][0]['id']}").json()["payment"]
    assert payment["created_at"] < shifted(sold, minutes=1)
    assert payment["updated_at"] == client.control.now()


def test_a_changed_order_moves_version_and_time(client: Client) -> None:
    before, order_id = shown(client), client.ids("orders/search")[50]
    old = client.control.row("orders", order_id)
    client.control.mutate(Mutation("update", "orders", order_id, {"ticket_name": "Window"}))
    new = client.get(f"orders/{order_id}").json()["order"]
    moved = {"ticket_name": "Window", "version": old["version"] + 1, "updated_at": client.control.now()}
    assert new == old | moved
    assert changed(before, shown(client)) == {"order": [order_id]}
    assert client.orders_by("updated_at", start_at=LONG_AGO)[-1]["id"] == order_id


def test_new_lines_change_the_sums(client: Client) -> None:
    order = client.control.row("orders", open_order(client))
    client.control.mutate(Mutation("update", "orders", order["id"], {"line_items": order["line_items"][:1]}))
    new = client.control.row("orders", order["id"])
    rest = cents(order["line_items"][0], "total_money") + cents(order, "total_service_charge_money")
    assert cents(new, "total_money") == cents(new, "net_amount_due_money") == rest


def test_an_open_order_is_completed_or_canceled(client: Client) -> None:
    before = shown(client)
    done, stopped = client.ids("orders/search", query=by("created_at", "DESC", ["OPEN", "DRAFT"]))[:2]
    client.control.mutate(Mutation("complete", "orders", done), Mutation("cancel", "orders", stopped))
    completed, canceled = client.control.row("orders", done), client.control.row("orders", stopped)
    assert (completed["state"], canceled["state"]) == ("COMPLETED", "CANCELED")
    assert completed["closed_at"] == canceled["closed_at"] == client.control.now()
    assert cents(completed["tenders"][0], "amount_money") == cents(completed, "total_money")
    assert "tenders" not in canceled
    new = completed["tenders"][0]["payment_id"]
    assert changed(before, shown(client)) == {"order": sorted([done, stopped]), "payment": [new]}
    with pytest.raises(ValueError, match="COMPLETED"):
        client.control.mutate(Mutation("cancel", "orders", done))


def test_a_payment_changes_its_status(client: Client) -> None:
    before, payment = shown(client), card_payment(client)
    client.control.mutate(Mutation("update", "payments", payment["id"], {"status": "FAILED"}))
    new = client.control.row("payments", payment["id"])
    assert (new["status"], new["updated_at"]) == ("FAILED", client.control.now())
    assert new["version_token"] != payment["version_token"]
    assert changed(before, shown(client)) == {"payment": [payment["id"]]}


def test_a_fee_comes_late(client: Client) -> None:
    client.control.mutate(*[Mutation("create", "orders")] * 10)
    before, payment = shown(client), card_payment(client, fee=False)
    client.control.mutate(Mutation("fee", "payments", payment["id"]))
    new = client.control.row("payments", payment["id"])
    order = client.control.row("orders", payment["order_id"])
    fee = cents(new["processing_fee"][0], "amount_money")
    assert fee == cents(order["tenders"][0], "processing_fee_money") > 0
    assert new["updated_at"] == order["updated_at"] == client.control.now()
    assert changed(before, shown(client)) == {"order": [order["id"]], "payment": [payment["id"]]}


def test_refunds_in_part_and_whole(client: Client) -> None:
    before, payment = shown(client), card_payment(client)
    (part,) = client.control.mutate(Mutation("refund", "payments", payment["id"], {"amount": 100}))
    (rest,) = client.control.mutate(Mutation("refund", "payments", payment["id"], {"status": "PENDING"}))
    refunds = [client.get(f"refunds/{row_id}").json()["refund"] for row_id in (part, rest)]
    new, order = client.control.row("payments", payment["id"]), client.control.row("orders", payment["order_id"])
    total = cents(payment, "total_money")
    assert [cents(row, "amount_money") for row in refunds] == [100, total - 100]
    assert (new["refund_ids"], cents(new, "refunded_money")) == ([part, rest], total)
    assert [row["status"] for row in order["refunds"]] == ["APPROVED", "PENDING"]
    returns = [client.control.row("orders", row["order_id"]) for row in refunds]
    assert {row["returns"][0]["source_order_id"] for row in returns} == {order["id"]}
    assert changed(before, shown(client)) == {
        "order": sorted([order["id"], *(row["id"] for row in returns)]),
        "payment": [payment["id"]],
        "refund": sorted([part, rest]),
    }
    with pytest.raises(ValueError, match="0 cents left"):
        client.control.mutate(Mutation("refund", "payments", payment["id"], {"amount": 1}))


def test_catalog_objects_change(client: Client) -> None:
    before = shown(client)
    latest = client.page("catalog/search")["latest_time"]
    item, category = client.control.ids("items")[3], client.control.ids("categories")[0]
    variation = client.control.ids("variations")[0]
    ids = client.control.mutate(
        Mutation("update", "items", item, {"is_archived": True, "present_at_all_locations": False}),
        Mutation("update", "categories", category, {"name": "Renamed"}),
        Mutation("update", "variations", variation, {"price_money": {"amount": 1, "currency": "USD"}}),
        Mutation("create", "items", fields={"name": "New"}),
    )
    (new,) = client.control.mutate(Mutation("create", "variations", fields={"item_id": ids[3]}))
    news = {row["id"]: row for row in client.rows("catalog/search", object_types=ALL_TYPES, begin_time=latest)}
    assert news.keys() == {*ids, new}
    assert news[item]["item_data"]["is_archived"]
    assert not news[item]["present_at_all_locations"]
    assert [row["id"] for row in news[ids[3]]["item_data"]["variations"]] == [new]
    assert len({row["version"] for row in news.values()}) == 2
    parent = client.control.row("variations", variation)["item_variation_data"]["item_id"]
    assert changed(before, shown(client)) == {"catalog": sorted([*ids, new, parent])}


def test_counts_vendors_and_locations_change(client: Client) -> None:
    before = shown(client)
    count, vendor, place = client.control.ids("counts")[0], client.control.ids("vendors")[0], client.places[0]
    variation = client.control.ids("variations")[0]
    fresh = {"catalog_object_id": variation, "location_id": place, "state": "SOLD_ONLINE", "quantity": "1.5"}
    *_, new_vendor, new_place, new_count = client.control.mutate(
        Mutation("update", "counts", count, {"quantity": "7.25"}),
        Mutation("update", "vendors", vendor, {"status": "INACTIVE"}),
        Mutation("update", "locations", place, {"status": "INACTIVE", "name": "Closed"}),
        Mutation("create", "vendors", fields={"name": "New"}),
        Mutation("create", "locations", fields={"name": "New"}),
        Mutation("create", "counts", fields=fresh),
    )
    assert new_count == f"{variation}:{place}:SOLD_ONLINE"
    page = client.page("inventory/counts/batch-retrieve", updated_after=shifted(client.control.now(), seconds=-1))
    assert {row["quantity"] for row in page["counts"]} == {"7.25", "1.5"}
    old = next(row for row in before["vendor"] if row["id"] == vendor)
    row = client.control.row("vendors", vendor)
    assert (row["version"], row["updated_at"]) == (old["version"] + 1, client.control.now())
    after = changed(before, shown(Client(Simulator(client.url.removesuffix("/v2"), "demo-token", client.control))))
    assert (after["vendor"], after["location"]) == (sorted([vendor, new_vendor]), sorted([place, new_place]))
    (order_id,) = client.control.mutate(Mutation("create", "orders", fields={"location_id": new_place}))
    assert client.ids("orders/search", location_ids=[new_place]) == [order_id]


@pytest.mark.parametrize("kind", ["orders", "payments", "refunds", "counts", "vendors", "items", "variations"])
def test_a_silent_change_moves_nothing_else(client: Client, kind: str) -> None:
    row_id = client.control.ids(kind)[0]
    old = client.control.row(kind, row_id)
    client.control.mutate(Mutation("update", kind, row_id, {"note": "drift"}, silent=True))
    new = client.control.row(kind, row_id)
    told = [name for name in old if old[name] != new[name]]
    assert told in ([], ["item_data"], ["item_variation_data"])
    assert "drift" in str(new)


@pytest.mark.parametrize("kind", ["orders", "payments", "refunds", "counts", "vendors", "locations", "items"])
def test_a_row_can_go_without_a_trace(client: Client, kind: str) -> None:
    before, row_id = client.control.totals(), client.control.ids(kind)[-1]
    client.control.mutate(Mutation("delete", kind, row_id, silent=True))
    assert client.control.row(kind, row_id) is None
    assert client.control.totals()[kind] == before[kind] - 1
    assert row_id not in client.ids("catalog/search", include_deleted_objects=True)


def test_changes_that_make_no_sense_say_so(client: Client) -> None:
    for mutation, reason in (
        (Mutation("update", "orders", "none"), "no row 'none' among the orders"),
        (Mutation("delete", "items", "none"), "no row 'none' among the items"),
        (Mutation("create", "payments"), "create an order"),
        (Mutation("fee", "orders", client.control.ids("orders")[0]), "no fee of orders"),
    ):
        with pytest.raises(ValueError, match=reason):
            client.control.mutate(mutation)
    with pytest.raises(ValueError, match="is no kind"):
        client.control.ids("things")
    with pytest.raises(ValueError, match="seed can't change"):
        client.control.set(seed=2)
    with pytest.raises(ValueError, match="there is no colour"):
        client.control.set(colour=2)


# Orders for trouble


def test_an_ordered_status_strikes_as_told(client: Client) -> None:
    client.control.fault(
        Fault("status", "orders/search", page=2, nth=2, times=2, status=503),
        Fault("status", "payments", status=429),
        Fault("status", "payments", status=429, retry_after=7),
        Fault("status", "refunds", status=200, html=True),
        Fault("status", "orders/{id}", item="X", status=403),
    )
    limited, waiting = client.get("payments"), client.get("payments")
    assert errors(limited) == errors(waiting) == (429, "RATE_LIMITED")
    assert limited.json()["errors"][0]["category"] == "RATE_LIMIT_ERROR"
    assert (limited.headers.get("Retry-After"), waiting.headers["Retry-After"]) == (None, "7")
    html = client.get("refunds")
    assert (html.status_code, html.headers["Content-Type"], html.text[:9]) == (
        200,
        "text/html; charset=utf-8",
        "<!DOCTYPE",
    )
    assert errors(client.get("orders/Y")) == (404, "NOT_FOUND")
    assert errors(client.get("orders/X")) == (403, "FORBIDDEN")
    cursor = client.page("orders/search", limit=10)["cursor"]
    statuses = [client.ask("orders/search", limit=10, cursor=cursor).status_code for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    assert client.control.counters().faults == 6


@pytest.mark.parametrize(("status", "code"), [(500, "INTERNAL_SERVER_ERROR"), (504, "GATEWAY_TIMEOUT")])
def test_ordered_server_errors_are_api_errors(client: Client, status: int, code: str) -> None:
    client.control.fault(Fault("status", status=status))
    answer = client.get("payments")
    assert errors(answer) == (status, code)
    assert answer.json()["errors"][0]["category"] == "API_ERROR"


@pytest.mark.parametrize("kind", ["drop", "cut", "hang"])
def test_connections_end(client: Client, kind: str) -> None:
    client.control.fault(Fault(kind, "orders/search"))
    with pytest.raises(requests.RequestException):
        client.send("POST", "orders/search", json={"location_ids": client.places}, timeout=0.5)
    assert client.ask("orders/search").status_code == 200
    assert client.control.counters().requests["POST orders/search"] == {"200": 1, "cut": 1}


def test_a_hang_ends_with_504(client: Client) -> None:
    client.control.fault(Fault("hang", "locations", seconds=0.1))
    assert errors(client.get("locations")) == (504, "GATEWAY_TIMEOUT")


def test_pages_lie_on_order(client: Client) -> None:
    asked = {"limit": 100, "query": by("updated_at", start_at=LONG_AGO)}
    truth = client.ids("orders/search", **asked)
    client.control.fault(Fault("duplicate_rows", "orders/search", page=2, rows=3))
    assert Counter(Counter(client.ids("orders/search", **asked)).values()) == {1: 397, 2: 3}
    client.control.fault(Fault("missing_rows", "orders/search", page=3, rows=2))
    assert client.ids("orders/search", **asked) == truth[:200] + truth[202:]
    client.control.fault(Fault("empty_page", "orders/search", page=2))
    pages = client.pages("orders/search", **asked)
    assert pages[1].keys() == {"cursor"}
    assert [row["id"] for page in pages for row in page.get("orders", ())] == truth


def test_a_list_ends_too_soon(client: Client) -> None:
    truth = client.ids("orders/search", limit=100)
    client.control.fault(Fault("no_cursor", "orders/search", page=2))
    assert client.ids("orders/search", limit=100) == truth[:200]
    client.control.fault(Fault("no_rows", "orders/search", page=2))
    assert client.ids("orders/search", limit=100) == truth[:100]
    client.control.fault(Fault("no_rows", "orders/batch-retrieve"))
    assert client.post("orders/batch-retrieve", order_ids=truth[:2]).json() == {}
    client.control.fault(Fault("no_rows", "catalog/search"))
    assert client.page("catalog/search").keys() == {"latest_time"}


def test_errors_come_beside_data(client: Client) -> None:
    truth = client.ids("catalog/search", object_types=["CATEGORY"])
    client.control.fault(Fault("errors", "catalog/search", rows=2, code="TEMPORARY_ERROR"))
    page = client.page("catalog/search", object_types=["CATEGORY"])
    assert [row["id"] for row in page["objects"]] == truth[2:]
    assert [entry["code"] for entry in page["errors"]] == ["TEMPORARY_ERROR"]
    client.control.fault(Fault("errors", "catalog/batch-retrieve"))
    assert client.post("catalog/batch-retrieve", object_ids=truth[:1]).json().keys() == {"errors"}
    client.control.fault(Fault("errors", "orders/{id}"))
    assert client.get(f"orders/{client.control.ids('orders')[0]}").json().keys() == {"errors"}


@pytest.mark.parametrize(
    ("body", "keys"), [("errors", {"errors"}), ("message", {"message"}), ("error", {"error"}), ("nothing", set())]
)
def test_an_answer_that_is_none_comes_with_200(client: Client, body: str, keys: set) -> None:
    client.control.fault(Fault("status", "orders/{id}", status=200, body=body))
    assert client.get("orders/X").json().keys() == keys


def test_one_location_is_refused(client: Client) -> None:
    other, closed = client.places[:2]
    client.control.fault(Fault("status", location=closed, times=None, status=403))
    assert errors(client.ask("orders/search")) == (403, "FORBIDDEN")
    assert errors(client.get("payments", location_id=closed)) == (403, "FORBIDDEN")
    assert errors(client.get("inventory/none", location_ids=f"{other},{closed}")) == (403, "FORBIDDEN")
    assert client.page("orders/search", location_ids=[other])["orders"]
    assert client.page("payments", location_id=other)["payments"]
    client.control.clear()
    client.control.fault(Fault("errors", "orders/search", location=closed))
    page = client.page("orders/search")
    assert {row["location_id"] for row in page["orders"]} == {*client.places} - {closed}
    assert [entry["code"] for entry in page["errors"]] == ["FORBIDDEN"]


def test_rows_lie_on_order(client: Client) -> None:
    first, second, *others = client.control.ids("orders")
    truth = client.control.row("orders", first), client.control.row("orders", second)

    def told(fault: Fault, *ids: str) -> list[Row]:
        client.control.fault(fault)
        return client.post("orders/batch-retrieve", order_ids=list(ids)).json().get("orders", [])

    poorer = Fault("poorer", "orders/batch-retrieve", fields=("state", "total_money.currency", "line_items.uid"))
    (row,) = told(poorer, first)
    assert row == {
        **{name: value for name, value in truth[0].items() if name != "state"},
        "total_money": {"amount": truth[0]["total_money"]["amount"]},
        "line_items": [{k: v for k, v in line.items() if k != "uid"} for line in truth[0]["line_items"]],
    }
    (row,) = told(Fault("changed", changes={"total_money": {"amount": 7}}), first)
    assert row == truth[0] | {"total_money": {"amount": 7, "currency": "USD"}}
    (row,) = told(Fault("doubled", fields=("line_items",)), first)
    assert row["line_items"] == [*truth[0]["line_items"], truth[0]["line_items"][0]]
    assert told(Fault("swapped", rows=2), first, second) == [truth[0] | {"id": second}, truth[1] | {"id": first}]
    assert told(Fault("other"), first) == [truth[1]]
    client.control.fault(Fault("other", "orders/{id}"))
    assert client.get(f"orders/{second}").json()["order"]["id"] == others[0]
    client.control.fault(Fault("missing_rows", "orders/batch-retrieve"))
    assert client.post("orders/batch-retrieve", order_ids=[first, second]).json()["orders"] == [truth[1]]


@pytest.mark.parametrize("kind", ["items", "categories", "vendors", "orders", "payments", "counts"])
@pytest.mark.parametrize("silent", [False, True])
def test_rows_are_as_they_were_before(client: Client, kind: str, silent: bool) -> None:
    row_id = client.control.ids(kind)[0]
    before = client.control.row(kind, row_id)
    field = {"orders": "ticket_name", "payments": "note", "counts": "quantity"}.get(kind, "name")
    client.control.mutate(Mutation("update", kind, row_id, {field: "17"}, silent=silent))
    assert client.control.row(kind, row_id) != before
    endpoint, key = STALE[kind]
    asked = {"object_types": [before["type"]]} if "type" in before else {}
    asked |= {"location_id": before["location_id"], "begin_time": LONG_AGO} if kind == "payments" else {}
    client.control.fault(Fault("stale", endpoint, rows=1_000))
    assert before in client.page(endpoint, **asked)[key]
    assert before not in client.page(endpoint, **asked)[key]


STALE = {
    "items": ("catalog/search", "objects"),
    "categories": ("catalog/search", "objects"),
    "vendors": ("vendors/search", "vendors"),
    "orders": ("orders/search", "orders"),
    "payments": ("payments", "payments"),
    "counts": ("inventory/counts/batch-retrieve", "counts"),
}


@pytest.mark.parametrize("kind", ["items", "vendors", "orders", "locations"])
def test_rows_that_are_new_are_missing_from_what_was_before(client: Client, kind: str) -> None:
    (row_id,) = client.control.mutate(Mutation("create", kind))
    endpoint = {"items": "catalog/object", "vendors": "vendors", "orders": "orders", "locations": "locations"}[kind]
    client.control.fault(Fault("stale", f"{endpoint}/{{id}}"))
    assert client.get(f"{endpoint}/{row_id}").json() == {}
    assert client.get(f"{endpoint}/{row_id}").json() != {}


def test_an_empty_page_of_the_catalog_keeps_latest_time(client: Client) -> None:
    client.control.fault(Fault("empty_page", "catalog/search", page=1))
    pages = client.pages("catalog/search")
    assert pages[0].keys() == {"cursor", "latest_time"}
    assert pages[1]["latest_time"] == pages[0]["latest_time"]


def test_a_cursor_expires_in_the_middle(client: Client) -> None:
    client.control.fault(Fault("expired_cursor", "orders/search", page=3))
    cursor = client.page("orders/search", limit=100)["cursor"]
    cursor = client.page("orders/search", limit=100, cursor=cursor)["cursor"]
    for _ in range(2):
        assert errors(client.ask("orders/search", limit=100, cursor=cursor)) == (400, "INVALID_CURSOR")
    assert len(client.rows("orders/search", limit=100)) == 400


@pytest.mark.parametrize(("order", "seen"), [("ASC", 2), ("DESC", 0)])
def test_an_order_changes_while_its_list_is_read(client: Client, order: str, seen: int) -> None:
    """Ascending it moves to the end, and comes again where the window is open to then; descending it's missed."""
    asked = {"limit": 100, "query": by("updated_at", order, start_at=LONG_AGO, end_at="2027-01-01T00:00:00Z")}
    ids = client.ids("orders/search", **asked)
    moving = ids[10] if order == "ASC" else ids[250]
    client.control.on_page("orders/search", 1, Mutation("update", "orders", moving, {"ticket_name": "moved"}))
    read = client.ids("orders/search", **asked)
    assert read.count(moving) == seen
    assert {*ids} - {*read} == ({moving} if order == "DESC" else set())
    assert client.ids("orders/search", **asked).count(moving) == 1


def test_clear_drops_orders_and_counters_count(client: Client) -> None:
    client.control.fault(Fault("status", times=None))
    client.control.on_page("payments", 1, Mutation("create", "orders"))
    assert client.get("payments").status_code == 500
    client.control.clear()
    client.control.reset_counters()
    total = client.control.totals()["orders"]
    client.payments()
    client.ask("orders/search")
    assert client.control.totals()["orders"] == total
    counters = client.control.counters()
    assert counters.requests == {"GET payments": {"200": len(client.places)}, "POST orders/search": {"200": 1}}
    assert (counters.total("GET"), counters.total(status=500), counters.max_concurrent) == (len(client.places), 0, 1)


# The program


def test_the_program_serves_until_it_is_told_to_end() -> None:
    command = [sys.executable, "-m", "include.simulators.square", "--orders", "50", "--locations", "2"]
    with subprocess.Popen([*command, "--latency-ms", "1"], stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[-1]
            headers = {"Authorization": "Bearer demo-token"}
            answer = requests.get(f"{url}/v2/locations", headers=headers, timeout=10)
            assert len(answer.json()["locations"]) == 2
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_program_says_when_its_port_is_taken(seller: Client) -> None:
    port = seller.url.rsplit(":", 1)[1].removesuffix("/v2")
    command = [sys.executable, "-m", "include.simulators.square", "--port", port, "--orders", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "can't listen on 127.0.0.1" in done.stderr
    assert "choose another --port" in done.stderr
