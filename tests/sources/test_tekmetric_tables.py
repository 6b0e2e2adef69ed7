"""Tekmetric's shapes: how each record becomes a row, whatever form a value comes in."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from include.sources.tekmetric import values
from include.warehouse.readers import structure
from include.warehouse.table import RowRefused
from tests.repair_shops import MIRRORED, TABLES

MARCH = dict.fromkeys(("created_date", "updated_date"), "2026-03-01T12:00:00Z")
ORDER = {"shop_id": 1, "tm_id": 2, "ro_number": 4, "status_id": 5} | MARCH
ITEM = {"shop_id": 1, "tm_repair_order_id": 2, "tm_job_id": 3, "line": "4"}


def read(table, record):
    """The row as a dict, without what is null."""
    row = dict(zip(MIRRORED[table].names, MIRRORED[table].row(record), strict=True))
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize(
    ("value", "cents"),
    [
        (8907, 8907),
        (Decimal("8907.0"), 8907),
        ("8907.0", 8907),
        ("8907", 8907),
        (Decimal("8906.9999999"), 8907),
        (Decimal("8906.49"), 8906),
        (Decimal("8906.5"), 8907),
        (Decimal("-0.5"), -1),
        ("-12.0", -12),
        (0, 0),
        (None, None),
        ("", None),
    ],
)
def test_cents(value, cents):
    assert values.cents(value) == cents


@pytest.mark.parametrize("value", ["NaN", "Infinity", "12,50", "$5", True, 1.5, [1], {}, Decimal("1e12"), "1e999999"])
def test_no_amount(value):
    with pytest.raises(ValueError, match=r"^(is|has) "):
        values.cents(value)


@pytest.mark.parametrize(
    ("value", "percent"),
    [
        (Decimal("0.6655"), Decimal("66.55")),
        ("0.806", Decimal("80.60")),
        (Decimal("0.70956"), Decimal("70.96")),
        (Decimal("-1.001"), Decimal("-100.10")),
        (1, Decimal("100.00")),
        (0, Decimal("0.00")),
        ("NaN", None),
        (None, None),
    ],
)
def test_percent(value, percent):
    assert values.percent(value) == percent


@pytest.mark.parametrize(
    ("value", "quantity"),
    [("0.5", "0.5"), (Decimal("4.73"), "4.73"), (2, "2"), ("0.33335", "0.3334"), (Decimal("-1"), "-1")],
)
def test_quantity(value, quantity):
    assert values.quantity(value) == Decimal(quantity)


@pytest.mark.parametrize("value", ["NaN", "1000000", "much"])
def test_no_quantity(value):
    with pytest.raises(ValueError, match=r"^is "):
        values.quantity(value)


@pytest.mark.parametrize(
    ("value", "name", "id_"),
    [
        ("Ford", "Ford", None),
        ({"id": 40, "name": "Ford"}, "Ford", 40),
        ({"id": 40}, None, 40),
        (" ", None, None),
        (None, None, None),
    ],
)
def test_name_with_its_id_or_alone(value, name, id_):
    assert (values.name_of(value), values.id_of(value)) == (name, id_)


def test_day_is_none_of_an_instant():
    """Which day it falls on depends on the shop's time zone."""
    assert values.day("2026-03-02") == values.day(date(2026, 3, 2)) == date(2026, 3, 2)
    for value in ("2026-03-02T04:30:00Z", datetime(2026, 3, 2, tzinfo=UTC), "2.3.2026", 5):
        with pytest.raises(ValueError, match=r"^is no ISO 8601 day"):
            values.day(value)


class TestRows:
    def test_shop(self):
        assert read("shops", {"tm_id": 6212, "name": "JJ AUTO", "timezone": "America/Phoenix"}) == {
            "tm_id": 6212,
            "name": "JJ AUTO",
            "timezone": "America/Phoenix",
        }
        assert read("shops", {"tm_id": 6212})["timezone"] == "America/New_York"

    @pytest.mark.parametrize("zone", ["Eastern", "", 5, [], "../etc/passwd", "America"])
    def test_unknown_time_zone_is_refused(self, zone):
        with pytest.raises(RowRefused, match="timezone is no time zone such as America/New_York"):
            read("shops", {"tm_id": 1, "timezone": zone})

    def test_employee(self):
        record = {
            "shop_id": 1,
            "id": 31,
            "firstName": "Ada",
            "employeeRole": {"code": "3", "name": "TECHNICIAN"},
            "employeePayType": {"code": "HOURLY"},
            "hourlyRate": "3200.0",
            "canPerformWork": True,
            "hireDate": "2020-01-02T00:00:00Z",
            "updatedDate": "2026-03-01T12:00:00Z",
        }
        assert read("employees", record) == {
            "shop_id": 1,
            "tm_id": 31,
            "first_name": "Ada",
            "role": 3,
            "role_name": "TECHNICIAN",
            "hourly_rate": 3200,
            "pay_type": "HOURLY",
            "can_perform_work": True,
            "hire_date": date(2020, 1, 2),
            "updated_date": datetime(2026, 3, 1, 12, tzinfo=UTC),
        }

    def test_customer(self):
        phones = [{"number": "1", "type": "Home"}, {"number": "2", "type": "Mobile", "primary": True}, {"number": "3"}]
        address = {"address1": "1 Example Road", "city": "Troy", "zip": "12180"}
        record = {"shop_id": 1, "id": 51, "email": ["a@example.com", None], "phone": phones, "address": address}
        assert read("customers", record | {"customerType": {"id": 1, "name": "Person"}, "leadSource": "Web"}) == {
            "shop_id": 1,
            "tm_id": 51,
            "email": ["a@example.com"],
            "phone_primary": "2",
            "phone_primary_type": "Mobile",
            "phone_secondary": "1",
            "phone_secondary_type": "Home",
            "address_line1": "1 Example Road",
            "city": "Troy",
            "zip": "12180",
            "customer_type_id": 1,
            "customer_type_name": "Person",
            "lead_source": "Web",
            # All phones, since the columns have two.
            "extra": structure({"phone": phones}),
        }

    @pytest.mark.parametrize(
        ("phone", "numbers"),
        [
            ([], (None, None)),
            (None, (None, None)),
            ("555", ("555", None)),
            ([{"number": "1"}], ("1", None)),
            ([{"number": "1"}, {"number": "2"}], ("1", "2")),
        ],
    )
    def test_phones(self, phone, numbers):
        row = read("customers", {"shop_id": 1, "id": 51, "phone": phone, "email": "", "address": None})
        assert (row.get("phone_primary"), row.get("phone_secondary")) == numbers

    def test_vehicle(self):
        record = {"shop_id": 1, "id": 61, "customerId": 51, "year": 2019, "make": {"id": 40, "name": "Ford"}}
        assert read("vehicles", record | {"model": "F-150", "subModel": None, "odometer": "81000.0", "vin": "X"}) == {
            "shop_id": 1,
            "tm_id": 61,
            "tm_customer_id": 51,
            "year": 2019,
            "make": "Ford",
            "make_id": 40,
            "model": "F-150",
            "odometer": 81000,
            "vin": "X",
        }

    def test_order_is_one_flat_record(self):
        record = ORDER | {"status": "POSTED", "posted_date": date(2026, 3, 2), "margin": "0.6655"}
        amounts = {"authorized_revenue": Decimal("57999.9999999"), "potential_total": "41873.0", "order_discount": 5}
        changed = dict.fromkeys(MARCH, datetime(2026, 3, 1, 12, tzinfo=UTC))
        assert read("repair_orders", record | amounts) == ORDER | changed | {
            "status": "POSTED",
            "posted_date": date(2026, 3, 2),
            "authorized_gp_percent": Decimal("66.55"),
            "authorized_revenue": 58000,
            "potential_total": 41873,
            "order_discount": 5,
        }
        assert "authorized_gp_percent" not in read("repair_orders", record | {"margin": "NaN"})

    def test_order_with_nonsense_for_an_amount_is_refused(self):
        with pytest.raises(RowRefused, match="authorized_cost is not a finite number"):
            read("repair_orders", ORDER | {"authorized_cost": "NaN"})

    @pytest.mark.parametrize("name", ["ro_number", "status_id", "created_date", "updated_date"])
    def test_order_without_what_every_order_has_is_refused(self, name):
        with pytest.raises(RowRefused, match=f"{name} is missing, which every record has"):
            read("repair_orders", ORDER | {name: None})

    @pytest.mark.parametrize(("said", "authorized"), [(True, True), (False, False), (None, False)])
    def test_job(self, said, authorized):
        record = {"shop_id": 1, "id": 3, "tm_repair_order_id": 2, "authorized": said, "subTotal": None}
        assert read("jobs", record | {"jobCategory": {"id": 5, "name": "Brakes"}, "partsPrice": "17990.0"}) == {
            "shop_id": 1,
            "tm_id": 3,
            "tm_repair_order_id": 2,
            "job_category": "Brakes",
            "job_category_id": 5,
            "authorized": authorized,
            "declined": False,
            "parts_total": 17990,
        }

    def test_part(self):
        record = {"id": 11, "quantity": "0.5", "retail": "799.0", "vendor": {"id": 1, "name": "Acme"}, "ordered": True}
        assert read("job_parts", ITEM | record) == ITEM | {
            "tm_id": 11,
            "quantity": Decimal("0.5"),
            "retail": 799,
            "vendor": "Acme",
            "ordered": True,
            "extra": '{"vendor":{"id":1}}',
        }

    @pytest.mark.parametrize(
        ("technician", "found"),
        [
            (None, {}),
            ({"id": 31, "fullName": "Ada T", "hourlyRate": "3200.0"}, (31, "Ada T", 3200)),
            ({"id": 31, "firstName": "Ada", "lastName": None, "hourlyRate": 1}, (31, "Ada", 1)),
        ],
    )
    def test_labor(self, technician, found):
        names = ("tm_technician_id", "technician_name", "tech_hourly_cost")
        row = read("job_labor", ITEM | {"hours": Decimal("1.15"), "rate": "17525.0", "technician": technician})
        assert row == ITEM | {"hours": Decimal("1.15"), "rate": 17525} | dict(zip(names, found, strict=False))

    def test_sublet_and_fee(self):
        assert read("job_sublets", ITEM | {"retail": "12000.0", "invoiceNumber": "T-1"}) == ITEM | {
            "retail": 12000,
            "invoice_number": "T-1",
        }
        fee = {"tm_job_id": 0, "percentage": "5.0", "cap": 2500, "taxable": True}
        assert read("job_fees", ITEM | fee) == ITEM | {
            "tm_job_id": 0,
            "percentage": Decimal(5),
            "cap": 2500,
            "taxable": True,
        }

    @pytest.mark.parametrize("table", MIRRORED)
    def test_no_row_without_its_key(self, table):
        with pytest.raises(RowRefused, match="is no usable id"):
            read(table, {"authorized": True})


def test_an_older_order_never_overwrites_a_newer_one():
    assert TABLES["repair_orders"].version == "updated_date"
