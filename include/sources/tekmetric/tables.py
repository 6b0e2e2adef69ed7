"""Tekmetric's tables: whole cents, exact quantities, instants in UTC, days in the shop's time zone.

Rows of employees, customers, vehicles, jobs and items of jobs are the vendor's records. Our code adds what the vendor
leaves out:

- `shop_id` in all of them, since not every record names its shop
- `tm_repair_order_id` in jobs and items; `tm_job_id` in items, 0 for a fee of the order itself
- `line` in items: the vendor's id as text, or a substitute if there is none

A repair order is put together from several answers as a flat record with the columns' names. What no column has of them
is under `head`, `estimate` and `profit`. Its `margin` is the
vendor's share (0..1 or "NaN"), which becomes `authorized_gp_percent`, null if nothing was sold. Shops come from the
connection, under the columns' names.
"""

from include.sources.tekmetric.values import (
    cents,
    code_beside_name,
    code_of,
    day,
    decided,
    exact,
    hours,
    id_of,
    name_of,
    percent,
    person,
    phone,
    quantity,
    share,
    texts,
    written_day,
    zone,
)
from include.warehouse.readers import boolean, identifier, instant, integer, structure, text
from include.warehouse.table import Column, Table

SCHEMA = "tekmetric"


def _texts(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name) for name in names)


def _cents(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, cents) for name in names)


def _instants(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, instant) for name in names)


def _name(name: str, field: str = "") -> Column:
    """Return a column for the name in a field that is an object with a name, or only the name."""
    return Column(name, name_of, field, uses=("name",))


def _named(name: str, field: str, *, compared: bool = True) -> tuple[Column, Column]:
    """Return columns for name and id of a field that is either `{id, name}` or only the name."""
    return _name(name, field), Column(f"{name}_id", id_of, field, compared, uses=("id",))


# What every record of a shop says of its shop.
OF_THE_SHOP = {"shopId": "shop_id has it: a shop's lists and addresses are checked for it"}
SHOP_ID = Column("shop_id", identifier)
TM_ID = Column("tm_id", identifier, "id")
OF_SHOP = ("shop_id", "tm_id")
CHANGED = (Column("created_date", instant, "createdDate"), Column("updated_date", instant, "updatedDate"))

SHOPS = Table(
    SCHEMA,
    "shops",
    (
        Column("tm_id", identifier),
        Column("name"),
        Column("timezone", zone),
        Column("default_labor_rate", cents),
        Column("default_parts_margin", exact),
        Column("default_tax_rate", exact),
        Column("tm_metadata", structure),
    ),
    key=("tm_id",),
    version=None,
    keeps_extra=False,
)

EMPLOYEES = Table(
    SCHEMA,
    "employees",
    (
        SHOP_ID,
        TM_ID,
        Column("first_name", text, "firstName"),
        Column("last_name", text, "lastName"),
        *_texts("email", "phone", "username"),
        Column("role", integer, "employeeRole.code"),
        Column("role_name", text, "employeeRole.name"),
        Column("disabled", boolean),
        Column("deactivated", boolean),
        Column("hourly_rate", cents, "hourlyRate"),
        Column("salary", cents),
        Column("pay_type", code_of, "employeePayType", uses=("code",)),
        Column("commission_rate", exact, "commissionRate"),
        Column("hire_date", written_day, "hireDate"),
        Column("termination_date", written_day, "terminationDate"),
        Column("can_clock_in", boolean, "canClockIn"),
        Column("can_sell", boolean, "canSell"),
        Column("can_tech", boolean, "canTech"),
        Column("can_perform_work", boolean, "canPerformWork"),
        *CHANGED,
    ),
    key=OF_SHOP,
    version="updated_date",
    added=("shop_id",),
    ignored=OF_THE_SHOP,
)

CUSTOMERS = Table(
    SCHEMA,
    "customers",
    (
        SHOP_ID,
        TM_ID,
        Column("first_name", text, "firstName"),
        Column("last_name", text, "lastName"),
        Column("company_name", text, "companyName"),
        Column("email", texts),
        # A list of phones may have more of them, so `extra` keeps it too.
        Column("phone_primary", phone(True, "number"), "phone", uses=()),
        Column("phone_primary_type", phone(True, "type"), "phone", uses=()),
        Column("phone_secondary", phone(False, "number"), "phone", uses=()),
        Column("phone_secondary_type", phone(False, "type"), "phone", uses=()),
        Column("address_line1", text, "address.address1"),
        Column("address_line2", text, "address.address2"),
        *(Column(name, text, f"address.{name}") for name in ("city", "state", "zip", "country")),
        Column("customer_type_id", id_of, "customerType", uses=("id",)),
        _name("customer_type_name", "customerType"),
        Column("customer_type_code", code_beside_name, "customerType", uses=("code",)),
        Column("tax_exempt", boolean, "taxExempt"),
        Column("ok_for_marketing", boolean, "okForMarketing"),
        *_named("lead_source", "leadSource"),
        Column("notes"),
        *CHANGED,
    ),
    key=OF_SHOP,
    version="updated_date",
    added=("shop_id",),
    ignored=OF_THE_SHOP,
)

VEHICLES = Table(
    SCHEMA,
    "vehicles",
    (
        SHOP_ID,
        TM_ID,
        Column("tm_customer_id", identifier, "customerId"),
        Column("year", integer),
        # The ids are not compared: the list may show them and the look-up not, or the other way round.
        *_named("make", "make", compared=False),
        *_named("model", "model", compared=False),
        *_named("sub_model", "subModel", compared=False),
        *_named("engine", "engine", compared=False),
        *_named("transmission", "transmission", compared=False),
        _name("drive_type", "driveType"),
        _name("body_style", "bodyStyle"),
        Column("vin"),
        Column("license_plate", text, "licensePlate"),
        Column("license_state", text, "licenseState"),
        Column("unit_number", text, "unitNumber"),
        Column("fleet_number", text, "fleetNumber"),
        _name("color"),
        Column("odometer", cents),
        Column("notes", text, "note"),
        *CHANGED,
    ),
    key=OF_SHOP,
    version="updated_date",
    added=("shop_id",),
    ignored={
        **OF_THE_SHOP,
        **dict.fromkeys(
            ("make", "model", "subModel", "engine", "transmission", "driveType", "bodyStyle", "color"),
            "one answer shows an object, and another only its name",
        ),
    },
)

# Sums of an order over all its jobs (potential_*), and over those that the customer agreed to (authorized_*).
SUMS = ("total", "subtotal", "tax", "discount", "job_count", "parts_total", "labor_total", "sublet_total", "fees_total")

# The fields of an order that no answer has, or that are in two columns.
COMPUTED = (
    *("shop_id", "status", "posted_date", "completed_date", "discount_total", "fees_total"),
    *(f"potential_{name}" for name in ("job_count", "parts_total", "labor_total", "sublet_total")),
    *(f"authorized_{name}" for name in SUMS),
)

# What an order shows of other records, which have tables of their own.
COPIES = {
    "customer": "a copy of the customer",
    "vehicle": "a copy of the vehicle",
    "serviceWriter": "a copy of the employee",
}

REPAIR_ORDERS = Table(
    SCHEMA,
    "repair_orders",
    (
        SHOP_ID,
        *(Column(name, identifier) for name in ("tm_id", "tm_customer_id", "tm_vehicle_id", "tm_service_advisor_id")),
        Column("ro_number", integer),
        Column("status"),
        Column("status_id", integer),
        *_instants("created_date", "updated_date", "promised_date", "dropped_off_date", "picked_up_date", "posted_at"),
        Column("posted_date", day),
        *_instants("completed_at"),
        Column("completed_date", day),
        *_cents(*(f"potential_{name}" for name in SUMS)),
        *_cents(*(f"authorized_{name}" for name in SUMS)),
        *_cents("authorized_revenue", "authorized_cost", "authorized_profit"),
        Column("authorized_gp_percent", percent, "margin", uses=()),
        *_cents("authorized_labor_revenue", "authorized_labor_cost", "authorized_labor_profit"),
        Column("authorized_labor_hours", hours),
        *_cents("order_discount", "discount_total", "fees_total", "shop_supplies_total", "epa_total"),
        Column("tax_rate", exact),
        *_cents("amount_paid", "balance_due"),
        Column("label"),
        Column("label_id", identifier),
        Column("notes"),
        Column("estimate_authorized_total", cents, "estimate.authorizedTotal"),
        Column("authorized_labor_margin", share, "profit.laborProfit.margin", uses=()),
        Column("miles_in", cents, "head.milesIn"),
        Column("miles_out", cents, "head.milesOut"),
        Column("keytag", text, "head.keytag"),
    ),
    key=OF_SHOP,
    version="updated_date",
    required=("ro_number", "status_id", "created_date", "updated_date"),
    added=COMPUTED,
    ignored={
        "jobs": "they are rows of jobs",
        "fees": "they are rows of job_fees",
        "head.shopId": OF_THE_SHOP["shopId"],
        "head.repairOrderStatus.code": "the vendor has several words for a status, of which the id tells one",
        "head.repairOrderStatus.name": "the same",
        "head.jobs": "the estimate has the jobs",
        "head.balanceDue": "the estimate has it",
        "head.deletedDate": "an order that has one is deleted",
        **{f"estimate.{name}": "the order itself has it" for name in ("id", "repairOrderNumber", "roNumber")},
        "estimate.taxes": "potential_tax has it where tax is empty",
        **{f"{answer}.{name}": text for answer in ("head", "estimate") for name, text in COPIES.items()},
        "profit.labor": "the rows of job_labor once more; what they earn is in the columns",
    },
    answers={
        "head": "the order itself: its dates, status and people",
        "estimate": "the order's estimate: its jobs, their items, and the sums",
        "profit": "the order's labor profit: what the authorized jobs earn",
    },
)

OF_ORDER = Column("tm_repair_order_id", identifier)

JOBS = Table(
    SCHEMA,
    "jobs",
    (
        SHOP_ID,
        TM_ID,
        OF_ORDER,
        *_texts("name", "description"),
        *_named("job_category", "jobCategory"),
        Column("canned_job_id", identifier, "cannedJobId"),
        Column("authorized", decided),
        Column("authorized_date", instant, "authorizedDate"),
        Column("declined", decided),
        Column("declined_date", instant, "declinedDate"),
        Column("declined_reason", text, "declinedReason"),
        Column("total", cents),
        Column("subtotal", cents, "subTotal"),
        *_cents("discount", "tax"),
        Column("parts_total", cents, "partsPrice"),
        Column("parts_cost", cents, "partsCost"),
        Column("labor_total", cents, "laborPrice"),
        Column("labor_hours", hours, "laborHours"),
        Column("sublet_total", cents, "subletPrice"),
        Column("sublet_cost", cents, "subletCost"),
        Column("fees_total", cents, "feePrice"),
        Column("gross_profit_amount", cents, "grossProfitAmount"),
        Column("gross_profit_percent", percent, "grossProfitPercentage", uses=()),
        Column("parts_tax_total", cents, "partsTaxTotal"),
        Column("labor_tax_total", cents, "laborTaxTotal"),
        Column("fees_tax_total", cents, "feesTaxTotal"),
        Column("sort_order", integer, "sortOrder"),
    ),
    key=OF_SHOP,
    version=None,
    added=("shop_id", "tm_repair_order_id"),
    ignored={
        **{name: f"they are rows of job_{name}" for name in ("parts", "labor", "sublets", "fees")},
        "repairOrderId": "tm_repair_order_id has it",
    },
)


OF_JOB = ("shop_id", "tm_job_id", "line")


def _items(name: str, *columns: Column, key: tuple[str, ...] = OF_JOB) -> Table:
    """Return a table for items of jobs. `line` identifies an item in its job, since the vendor's id may be missing."""
    own = (SHOP_ID, OF_ORDER, Column("tm_job_id", integer), Column("line"), TM_ID, Column("name"))
    added = ("shop_id", "tm_repair_order_id", "tm_job_id", "line")
    return Table(SCHEMA, name, (*own, *columns), key=key, version=None, added=added)


JOB_PARTS = _items(
    "job_parts",
    _name("brand"),
    Column("part_number", text, "partNumber"),
    Column("description"),
    _name("part_type", "partType"),
    Column("quantity", quantity),
    *_cents("retail", "cost"),
    Column("core_charge", cents, "coreCharge"),
    Column("total", cents),
    _name("vendor"),
    Column("vendor_id", identifier, "vendorId"),
    *(Column(name, boolean) for name in ("ordered", "received", "backordered")),
)

# The technician's hourly cost is the line's, not the employee's present rate; null if the line has none.
JOB_LABOR = _items(
    "job_labor",
    Column("description"),
    _name("labor_type", "laborType"),
    _name("skill_level", "skillLevel"),
    Column("hours", hours),
    *_cents("rate", "total"),
    Column("tm_technician_id", identifier, "technician.id"),
    Column("technician_name", person, "technician", uses=("fullName", "firstName", "lastName")),
    Column("tech_hourly_cost", cents, "technician.hourlyRate"),
)

JOB_SUBLETS = _items(
    "job_sublets",
    Column("description"),
    _name("vendor"),
    *_cents("cost", "retail"),
    Column("invoice_number", text, "invoiceNumber"),
    Column("po_number", text, "poNumber"),
)

# The fees of an order itself all have job 0, so the order is part of the key.
JOB_FEES = _items(
    "job_fees",
    Column("amount", cents),
    Column("percentage", exact),
    *_cents("cap", "total"),
    Column("taxable", boolean),
    key=("shop_id", "tm_repair_order_id", "tm_job_id", "line"),
)
