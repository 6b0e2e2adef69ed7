"""The Tekmetric simulator over real HTTP: the vendor's shapes and noise, its sums, changes, and every order."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
import requests

from include.simulators.tekmetric import Config, Control, Fault, Mutation, Shop, Simulator, running

NEW_YORK, PHOENIX = 6212, 7301
BOARDS = ("ACTIVE", "COMPLETE", "POSTED")
EVER = {"start": "2020-01-01T00:00:00.000-05:00", "end": "2030-01-01T00:00:00.000-05:00"}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
Row = dict[str, Any]


class Client:
    """What a reader of the API does, with the right token unless told otherwise."""

    def __init__(self, simulator: Simulator) -> None:
        self.control: Control = simulator.control
        self.url = f"{simulator.url}/api"
        self._session = requests.Session()
        self._session.headers["x-auth-token"] = simulator.token

    def get(self, path: str, /, timeout: float = 10, headers: Row | None = None, **query: Any) -> requests.Response:
        return self._session.get(f"{self.url}/{path}", params=query, timeout=timeout, headers=headers)

    def read(self, path: str, /, **query: Any) -> Any:
        answer = self.get(path, **query)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()

    def board_page(self, board: str, page: int = 0, shop: int = NEW_YORK, **query: Any) -> Any:
        asked = {"view": "list", "board": board, "groupBy": "NONE", "page": page} | query
        return self.read(f"shop/{shop}/job-board-group-by", **asked)

    def board(self, board: str, shop: int = NEW_YORK, **query: Any) -> list[Row]:
        rows: list[Row] = []
        while page := self.board_page(board, following(rows, query), shop, **query):
            rows += page
        return rows

    def on_boards(self, order_id: int, shop: int = NEW_YORK) -> list[str]:
        return [name for name in BOARDS if order_id in ids(self.board(name, shop))]

    def report_pages(self, **asked: Any) -> list[Row]:
        query = {"timezone": "America/New_York", "shopIds": NEW_YORK, "sortBy": "POSTED_DATE"} | EVER | asked
        pages = [self.read("reporting/profit-details-report", **query)]
        while pages[-1]["hasNext"]:
            assert len(pages) < 500, "the report has no end"
            pages.append(self.read("reporting/profit-details-report", nextKeys=pages[-1]["nextKeys"], **query))
        return pages

    def report(self, **asked: Any) -> list[Row]:
        return [row for page in self.report_pages(**asked) for row in page["content"]]

    def head(self, order_id: int) -> Row:
        return self.read(f"shop/{self.control.order(order_id)['shop_id']}/repair-order/{order_id}")

    def estimate(self, order_id: int) -> Row:
        return self.read(f"repair-order/{order_id}/estimate")

    def profit(self, order_id: int) -> Row:
        return self.read(f"repair-order/{order_id}/profit/labor")

    def rows(self, what: str, shop: int = NEW_YORK, **query: Any) -> list[Row]:
        pages = [self.read(f"shop/{shop}/{what}", **query)]
        while not pages[-1]["last"]:
            pages.append(self.read(f"shop/{shop}/{what}", page=pages[-1]["number"] + 1, **query))
        return [row for page in pages for row in page["content"]]

    def with_status(self, *statuses: int) -> list[int]:
        return [order["id"] for order in self.control.rows() if order["status"] in statuses]


def following(rows: list[Row], query: Row) -> int:
    """The page behind whole ones."""
    return -(-len(rows) // query.get("size", 25))


def ids(rows: list[Row]) -> list[int]:
    return [row["id"] for row in rows]


def number(noisy: Any) -> Decimal:
    return Decimal(str(noisy))


def cents(noisy: Any) -> int:
    """What a reader makes of an amount."""
    return int(number(noisy or 0).quantize(Decimal(1), ROUND_HALF_UP))


@pytest.fixture(scope="module")
def shops() -> Iterator[Client]:
    """An account that no test changes."""
    with running(Config(orders=300, customers=260)) as simulator:
        yield Client(simulator)


@pytest.fixture
def client() -> Iterator[Client]:
    """An account of the test's own."""
    with running() as simulator:
        yield Client(simulator)


# Shapes: the fields that were seen, and their types without the noise


CENTS = ("cents",)
DECIMAL = ("decimal",)
NAMED = ("named",)
MARGIN = ("margin",)
BRIEF = {"id": int, "firstName": str, "lastName": str}
PERSON = {**BRIEF, "fullName": str}
FEE = {"name": str, "percentage": DECIMAL, "cap": CENTS, "amount": CENTS, "taxable": bool}
PROFIT = {"retail": CENTS, "cost": CENTS, "profit": CENTS, "margin": MARGIN}
DATES = {"createdDate": INSTANT, "updatedDate": INSTANT, "postedDate": INSTANT, "completedDate": INSTANT}
STATUS = {"id": int, "code": re.compile("ESTIMATE|WORKINPROGRESS|COMPLETE|POSTED|ACCRECV")}
VEHICLE = {"id": int, "year": int, "make": NAMED, "model": NAMED}
MANY = {"createdDate": INSTANT, "updatedDate": INSTANT, "id": int, "shopId": int}
SHAPES: dict[str, Row] = {
    "board": {
        "id": int, "repairOrderNumber": int, "roNumber": int, "repairOrderStatus": STATUS, "total": CENTS,
        "subtotal": CENTS, "authorizedTotal": CENTS, "amountPaid": CENTS, **DATES,
    },
    "head": {
        "id": int, "repairOrderNumber": int, "shopId": int, "repairOrderStatus": STATUS, "repairOrderLabel": NAMED,
        "customer": BRIEF, "vehicle": VEHICLE, "serviceWriter": PERSON, "jobs": None, "amountPaid": CENTS,
        "balanceDue": CENTS, "promisedDate": INSTANT, "droppedOffDate": INSTANT, "pickedUpDate": INSTANT,
        "notes": None, "milesIn": int, "milesOut": int, "keytag": str, **DATES,
    },
    "estimate": {
        "id": int, "repairOrderNumber": int, "total": CENTS, "subtotal": CENTS, "tax": CENTS, "taxes": CENTS,
        "taxRate": DECIMAL, "authorizedTotal": CENTS, "feesTotal": CENTS, "discountTotal": CENTS, "discount": CENTS,
        "shopSuppliesTotal": CENTS, "epaTotal": CENTS, "balanceDue": CENTS, "fees": {"data": list},
        "customer": BRIEF, "vehicle": VEHICLE, "serviceWriter": PERSON, "jobs": list,
    },
    "order fee": FEE,
    "job": {
        "id": int, "name": str, "authorized": bool, "authorizedDate": INSTANT, "declined": bool, "total": CENTS,
        "subTotal": CENTS, "discount": CENTS, "tax": CENTS, "partsPrice": CENTS, "partsCost": CENTS,
        "laborPrice": CENTS, "laborHours": DECIMAL, "subletPrice": CENTS, "subletCost": CENTS, "feePrice": CENTS,
        "grossProfitAmount": CENTS, "grossProfitPercentage": MARGIN, "partsTaxTotal": CENTS,
        "laborTaxTotal": CENTS, "feesTaxTotal": CENTS, "jobCategory": NAMED, "cannedJobId": None, "sortOrder": int,
        "parts": list, "labor": list, "sublets": list, "fees": list,
    },
    "part": {
        "id": int, "name": str, "brand": str, "partNumber": str, "quantity": DECIMAL, "retail": CENTS,
        "cost": CENTS, "total": DECIMAL, "coreCharge": CENTS, "vendorId": int, "ordered": bool, "received": bool,
        "backordered": bool,
    },
    "labor": {
        "id": int, "name": str, "hours": DECIMAL, "rate": CENTS, "total": DECIMAL,
        "technician": {**PERSON, "hourlyRate": CENTS}, "laborType": str, "skillLevel": None,
    },
    "sublet": {
        "id": int, "name": str, "cost": CENTS, "retail": CENTS, "vendor": str, "invoiceNumber": str,
        "poNumber": None,
    },
    "job fee": {**FEE, "total": CENTS},
    "profit": {"labor": list, "laborProfit": {"hours": DECIMAL, **PROFIT}, "totalProfit": PROFIT},
    "profit line": {
        "name": str, "rate": CENTS, "hours": DECIMAL,
        "jobTechnician": {"accountFullName": str, "hourlyRate": CENTS}, **PROFIT,
    },
    "report": {
        "repairOrderId": int, "repairOrderNumber": int, "shopId": int, "customerId": int, "vehicleId": int,
        "serviceWriterId": int, "postedDate": re.compile(r"[\d-]+T[\d:]+-\d\d:00"), "totalRetail": CENTS,
        "totalCost": CENTS, "totalProfit": CENTS, "totalProfitMargin": MARGIN, "laborProfit": CENTS,
        "partsTotalProfit": CENTS, "subletProfit": CENTS, "feesProfit": CENTS,
    },
    "customer": {
        **MANY, "firstName": str, "lastName": str, "companyName": str, "email": list, "phone": list,
        "address": dict, "customerType": {"id": int, "code": str, "name": str}, "taxExempt": bool,
        "okForMarketing": bool, "leadSource": str, "notes": None,
    },
    "vehicle": {
        **MANY, "customerId": int, "year": int, "make": NAMED, "model": NAMED, "subModel": NAMED, "engine": NAMED,
        "transmission": str, "driveType": str, "bodyStyle": str, "vin": str, "licensePlate": str,
        "licenseState": str, "unitNumber": None, "color": str, "odometer": int, "note": None,
    },
    "employee lite": {
        **PERSON, "email": str, "employeeRole": {"code": int, "name": str}, "disabled": bool, "deactivated": bool,
    },
    "employee": {
        **MANY, **BRIEF, "email": str, "phone": str, "username": str,
        "employeeRole": {"code": int, "name": str}, "employeePayType": {"code": str}, "hourlyRate": CENTS,
        "salary": CENTS, "canPerformWork": bool, "canClockIn": bool, "canSell": bool, "canTech": bool,
        "disabled": bool, "deactivated": bool,
    },
}  # fmt: skip
NUMBER = re.compile(r"-?\d+(\.\d+)?")


def misfits(row: Row, shape: Row) -> list[str]:
    def fits(value: Any, wanted: Any) -> bool:
        if value is None or wanted is None:
            return value is None
        match wanted:
            case dict():
                return isinstance(value, dict) and not misfits(value, wanted)
            case re.Pattern():
                return isinstance(value, str) and bool(wanted.fullmatch(value))
            case ("named",):
                return isinstance(value, str) or value.keys() == {"id", "name"}
            case (kind,):
                return (kind == "margin" and value == "NaN") or bool(NUMBER.fullmatch(f"{number(value):f}"))
        return type(value) is wanted

    return [name for name, value in row.items() if name not in shape or not fits(value, shape[name])]


NOTHING = {"retail": 0, "cost": 0, "profit": 0, "margin": "NaN"}
# What an empty profit stands for.
NO_PROFIT = {"labor": [], "laborProfit": {"hours": 0, **NOTHING}, "totalProfit": NOTHING}


@pytest.fixture(scope="module")
def shown(shops: Client) -> dict[str, list[Row]]:
    """All rows of an account by kind, as they come."""
    order_ids = shops.control.ids()
    estimates, profits = [shops.estimate(i) for i in order_ids], [shops.profit(i) or NO_PROFIT for i in order_ids]
    jobs = [job for estimate in estimates for job in estimate["jobs"]]
    return {
        "board": [row for board in BOARDS for row in shops.board(board, size=500)],
        "head": [shops.head(i) for i in order_ids],
        "estimate": estimates,
        "order fee": [fee for estimate in estimates for fee in estimate["fees"]["data"]],
        "job": jobs,
        "part": [part for job in jobs for part in job["parts"]],
        "labor": [line for job in jobs for line in job["labor"]],
        "sublet": [sublet for job in jobs for sublet in job["sublets"]],
        "job fee": [fee for job in jobs for fee in job["fees"]],
        "profit": profits,
        "profit line": [line for profit in profits for line in profit["labor"]],
        "report": shops.report(shopIds=f"{NEW_YORK},{PHOENIX}"),
        "customer": shops.rows("customer", size=100),
        "vehicle": shops.rows("vehicle", size=100),
        "employee lite": shops.read(f"shop/{NEW_YORK}/employees-lite", status="ALL", size=500),
        "employee": [shops.read(f"shop/{NEW_YORK}/employee/{i}") for i in shops.control.ids("employees", NEW_YORK)],
    }


def test_rows_have_the_vendors_fields_and_types(shown: dict[str, list[Row]]) -> None:
    for kind, rows in shown.items():
        assert rows, kind
        wrong = [(kind, row, misfits(row, SHAPES[kind])) for row in rows if misfits(row, SHAPES[kind])]
        assert wrong[:3] == []
        assert {name for row in rows for name in row} == SHAPES[kind].keys(), kind


def test_values_come_in_many_forms(shown: dict[str, list[Row]]) -> None:
    def forms(kind: str, name: str) -> set[type]:
        return {type(row.get(name)) for row in shown[kind]}

    for kind, name in (("board", "total"), ("estimate", "taxes"), ("job", "partsPrice"), ("report", "totalCost")):
        assert forms(kind, name) == {int, float, str}, (kind, name)
    assert any(str(row["total"]).endswith(".0") and isinstance(row["total"], str) for row in shown["estimate"])
    assert any(int(number(row["cost"])) != cents(row["cost"]) for row in shown["part"])
    for kind, name in (("estimate", "subtotal"), ("estimate", "tax"), ("part", "name"), ("labor", "technician")):
        assert type(None) in forms(kind, name)
    assert {row["authorized"] for row in shown["job"]} == {True, False, None}
    assert all(("roNumber" in row) != ("repairOrderNumber" in row) for row in shown["board"])
    assert len({"roNumber" in row for row in shown["board"]}) == 2
    for kind in ("part", "labor", "sublet"):
        assert {"id" in row for row in shown[kind]} == {True, False}, kind
    assert not any("id" in fee for kind in ("order fee", "job fee") for fee in shown[kind])
    assert forms("vehicle", "make") == forms("head", "jobs") - {type(None)} | {str, dict}
    assert any(profit["totalProfit"]["margin"] == "NaN" for profit in shown["profit"])


def test_an_answer_is_the_same_when_asked_again(shops: Client) -> None:
    for order_id in shops.control.ids()[:20]:
        assert shops.estimate(order_id) == shops.estimate(order_id)


# The data


def test_the_seed_fixes_the_data() -> None:
    def data(seed: int) -> list[Any]:
        with running(Config(seed=seed, orders=40)) as simulator:
            client = Client(simulator)
            return [client.estimate(i) for i in client.control.ids()] + client.report()

    assert data(1) == data(1)
    assert data(1) != data(2)


def test_the_sizes_are_exact(shops: Client) -> None:
    assert len(shops.control.ids()) == 300
    assert [len(shops.control.ids("orders", shop)) for shop in (NEW_YORK, PHOENIX)] == [150, 150]
    assert len(shops.control.ids("customers")) == 260
    assert [len(shops.control.ids("employees", shop)) for shop in (NEW_YORK, PHOENIX)] == [7, 7]


def test_an_account_may_be_tiny_or_empty() -> None:
    for sizes in ({"orders": 0, "customers": 0, "employees": 0}, {"orders": 3, "customers": 0, "employees": 1}):
        with running(Config(**sizes)) as simulator:
            client = Client(simulator)
            rows = client.report(shopIds=f"{NEW_YORK},{PHOENIX}")
            found = {i for shop in (NEW_YORK, PHOENIX) for name in BOARDS for i in ids(client.board(name, shop))}
            assert found | {row["repairOrderId"] for row in rows} == set(client.control.ids())
            assert {client.estimate(i)["customer"] for i in client.control.ids()} <= {None}


def test_boards_and_report_show_every_order(shops: Client) -> None:
    for shop in (NEW_YORK, PHOENIX):
        found = {i for name in BOARDS for i in ids(shops.board(name, shop))}
        found |= {row["repairOrderId"] for row in shops.report(shopIds=shop)}
        assert found == set(shops.control.ids("orders", shop))


def test_times_follow_each_other_and_numbers_the_creation(shops: Client) -> None:
    now, everywhere = shops.control.now(), shops.control.rows()
    for shop in (NEW_YORK, PHOENIX):
        orders = [order for order in everywhere if order["shop_id"] == shop]
        assert [order["number"] for order in orders] == list(range(4001, 4151))
        assert [order["created"] for order in orders] == sorted(order["created"] for order in orders)
        for order in orders:
            times = [order[name] for name in ("created", "completed", "posted", "updated") if order[name]]
            assert times == sorted(times)
            assert order["updated"] <= now
            assert bool(order["posted"]) == (order["status"] in (5, 6))


def test_orders_are_posted_near_midnight_and_around_the_change_of_clocks(shops: Client) -> None:
    rows = shops.report(shopIds=NEW_YORK)
    local = [datetime.fromisoformat(row["postedDate"]) for row in rows]
    orders = {order["id"]: order for order in shops.control.rows()}
    posted = [orders[row["repairOrderId"]]["posted"] for row in rows]
    assert [datetime.fromisoformat(text) for text in posted] == local
    other_day = [moment for moment, text in zip(local, posted, strict=True) if str(moment.date()) != text[:10]]
    assert len(other_day) > 10
    minutes = [(moment.hour * 60 + moment.minute + 20) % (24 * 60) for moment in local]
    assert sum(minute < 40 for minute in minutes) > len(local) / 8
    assert {str(moment.utcoffset()) for moment in local} == {"-1 day, 19:00:00", "-1 day, 20:00:00"}
    for change in (date(2026, 3, 8), date(2026, 11, 1)):
        days = Counter(moment.date() for moment in local)
        assert all(days[change.replace(day=change.day + more)] for more in (0, 1)), change
        assert days[change] >= 2
    in_phoenix = {row["postedDate"][-6:] for row in shops.report(shopIds=PHOENIX)}
    assert in_phoenix == {"-07:00"}


# Sums: a reader's own arithmetic over what the API shows, by the rules that are known of the vendor


def line_values(part: Row) -> tuple[int, int]:
    """Retail and cost of a part's line, of which it must be found out whether they are those of one piece."""
    quantity, retail, cost, total = (number(part[name] or 0) for name in ("quantity", "retail", "cost", "total"))
    per_piece = not total or quantity <= 1 or abs(retail * quantity - total) <= total / 100
    if not per_piece and abs(retail - total) <= total / 100:
        return cents(retail), cents(cost)
    return cents(cents(retail) * quantity), cents(cents(cost) * quantity)


def fee_of(fee: Row, base: int) -> int:
    if fee["percentage"] is None:
        return cents(fee["amount"])
    share = cents(base * number(fee["percentage"]) / 100)
    return min(share, cents(fee["cap"])) if cents(fee["cap"]) > 0 else share


def job_values(job: Row) -> Counter:
    parts = [line_values(part) for part in job["parts"]]
    labor = [(number(line["hours"]), cents(line["rate"]), line["technician"]) for line in job["labor"]]
    values = Counter(
        parts=sum(retail for retail, _ in parts),
        labor=sum(cents(hours * rate) for hours, rate, _ in labor),
        sublets=sum(cents(sublet["retail"]) for sublet in job["sublets"]),
        discount=cents(job["discount"]),
        cost=sum(cost for _, cost in parts)
        + sum(cents(hours * cents(who["hourlyRate"])) for hours, _, who in labor if who)
        + sum(cents(sublet["cost"]) for sublet in job["sublets"]),
    )
    base = values["parts"] + values["labor"] + values["sublets"] - values["discount"]
    values["fees"] = sum(fee_of(fee, base) for fee in job["fees"])
    values["retail"] = base + values["fees"]
    return values


def order_values(estimate: Row, jobs: list[Row]) -> Counter:
    values = sum(map(job_values, jobs), Counter())
    if jobs:
        base = values["retail"] - values["fees"]
        values["order fees"] = sum(fee_of(fee, base) for fee in estimate["fees"]["data"])
        values["order discount"] = cents(estimate["discount"])
        values["retail"] += values["order fees"] - values["order discount"]
    return values


def test_jobs_are_the_sum_of_their_lines(shown: dict[str, list[Row]]) -> None:
    for job in shown["job"]:
        values = job_values(job)
        taxes = sum(cents(job[name]) for name in ("partsTaxTotal", "laborTaxTotal", "feesTaxTotal"))
        assert cents(job["partsPrice"]) == values["parts"]
        assert cents(job["laborPrice"]) == values["labor"]
        assert cents(job["subletPrice"]) == values["sublets"]
        assert cents(job["feePrice"]) == values["fees"] == sum(cents(fee["total"]) for fee in job["fees"])
        assert cents(job["total"]) == values["retail"] + taxes
        assert job["subTotal"] is None or cents(job["subTotal"]) == values["retail"]
        assert job["tax"] is None or cents(job["tax"]) == taxes
        assert cents(job["grossProfitAmount"]) == values["retail"] - values["cost"]
        assert number(job["laborHours"]) == sum(number(line["hours"]) for line in job["labor"])
    assert any(job_values(job)["sublets"] for job in shown["job"])
    assert any(len(job["fees"]) == 2 for job in shown["job"])


def test_lines_are_told_unrounded_and_for_one_or_for_all_pieces(shown: dict[str, list[Row]]) -> None:
    for line in shown["labor"]:
        assert number(line["total"]) == number(line["hours"]) * cents(line["rate"])
    many = [part for part in shown["part"] if number(part["quantity"]) >= 2]
    assert {cents(part["retail"]) == cents(part["total"]) for part in many} == {True, False}
    assert {part["total"] is None for part in shown["part"]} == {True, False}
    assert {number(part["quantity"]) % 1 for part in shown["part"]} >= {Decimal("0.5"), Decimal("0.73"), 0}


def test_estimates_are_the_sum_of_all_jobs(shown: dict[str, list[Row]]) -> None:
    capped = 0
    for estimate in shown["estimate"]:
        values = order_values(estimate, estimate["jobs"])
        taxes = sum(cents(job["partsTaxTotal"]) for job in estimate["jobs"])
        taxes += sum(cents(job[name]) for job in estimate["jobs"] for name in ("laborTaxTotal", "feesTaxTotal"))
        assert cents(estimate["taxes"]) == taxes
        assert cents(estimate["total"]) == values["retail"] + taxes
        assert estimate["subtotal"] is None or cents(estimate["subtotal"]) == values["retail"]
        assert estimate["tax"] is None or cents(estimate["tax"]) == taxes
        assert cents(estimate["feesTotal"]) == values["fees"] + values["order fees"]
        assert cents(estimate["discountTotal"]) == values["discount"] + values["order discount"]
        assert cents(estimate["shopSuppliesTotal"]) + cents(estimate["epaTotal"]) == values["order fees"]
        capped += cents(estimate["shopSuppliesTotal"]) == 2_500
    assert capped
    assert any(cents(estimate["discount"]) for estimate in shown["estimate"])


def test_profit_is_that_of_the_authorized_jobs(shown: dict[str, list[Row]]) -> None:
    undecided = 0
    for estimate, profit in zip(shown["estimate"], shown["profit"], strict=True):
        jobs = [job for job in estimate["jobs"] if job["authorized"]]
        undecided += len(jobs) < len(estimate["jobs"])
        values = order_values(estimate, jobs)
        assert_profit(profit["totalProfit"], values["retail"], values["cost"])
        lines = [line for job in jobs for line in job["labor"]]
        assert [line["name"] for line in profit["labor"]] == [line["name"] for line in lines]
        assert_profit(profit["laborProfit"], values["labor"], sum(cents(line["cost"]) for line in profit["labor"]))
        for line in profit["labor"]:
            hours, who = number(line["hours"]), line["jobTechnician"]
            cost = cents(hours * cents(who["hourlyRate"])) if who else 0
            assert_profit(line, cents(hours * cents(line["rate"])), cost)
    assert undecided


def test_profit_of_no_authorized_job_is_empty_at_times(shops: Client) -> None:
    idle = [id_ for id_ in shops.control.ids() if not any(job["authorized"] for job in shops.estimate(id_)["jobs"])]
    assert {bool(shops.profit(id_)) for id_ in idle} == {True, False}


def assert_profit(told: Row, retail: int, cost: int) -> None:
    assert [cents(told[name]) for name in ("retail", "cost", "profit")] == [retail, cost, retail - cost]
    if retail:
        assert abs(number(told["margin"]) - Decimal(retail - cost) / retail) <= Decimal("0.00005")
    else:
        assert told["margin"] == "NaN"


def test_board_head_and_report_tell_the_same_sums(shops: Client, shown: dict[str, list[Row]]) -> None:
    estimates = {estimate["id"]: estimate for estimate in shown["estimate"]}
    profits = dict(zip(estimates, shown["profit"], strict=True))
    heads = {head["id"]: head for head in shown["head"]}
    for row in shown["board"]:
        estimate = estimates[row["id"]]
        assert cents(row["total"]) == cents(estimate["total"])
        assert cents(row["authorizedTotal"]) == cents(estimate["authorizedTotal"])
        assert row["subtotal"] is None or cents(row["subtotal"]) == shops.control.potential(row["id"]).retail
        assert {name: row[name] for name in DATES} == {name: heads[row["id"]][name] for name in DATES}
    for row in shown["report"]:
        total, labor = (profits[row["repairOrderId"]][name] for name in ("totalProfit", "laborProfit"))
        assert cents(row["totalRetail"]) == cents(total["retail"])
        assert cents(row["totalCost"]) == cents(total["cost"])
        assert cents(row["totalProfit"]) == cents(total["profit"])
        assert cents(row["laborProfit"]) == cents(labor["profit"])
        assert number(row["totalProfitMargin"]) == number(total["margin"]) or total["margin"] == "NaN"


WORKED = {
    "status": 2,
    "tax_rate": 8,
    "discount": 1_000,
    "fees": [{"name": "Shop supplies", "percentage": 5, "cap": 2_500}, {"name": "Environmental", "amount": 350}],
    "jobs": [
        {
            "name": "Brakes",
            "authorized": True,
            "discount": 500,
            "parts": [
                {"name": "Rotor", "quantity": 2, "retail": 8_995, "cost": 4_310, "per_line": True},
                {"name": "Fluid", "quantity": 0.5, "retail": 1_333, "cost": 601},
            ],
            "labor": [{"hours": 2.5, "rate": 16_555, "technician_id": 3002}],
            "sublets": [{"name": "Towing", "retail": 9_000, "cost": 6_000}],
            "fees": [{"name": "Disposal", "amount": 395, "taxable": True}],
        },
        {"name": "Not wanted", "authorized": False, "declined": True, "labor": [{"hours": 1, "rate": 10_000}]},
        {"name": "Not decided", "labor": [{"hours": 0.25, "rate": 10_001, "hourly_rate": 2_002}]},
    ],
}


def test_an_order_worked_out_by_hand(client: Client) -> None:
    client.control.mutate(Mutation("update", "employees", 3002, {"hourlyRate": 3_001}))
    (order_id,) = client.control.mutate(Mutation("create", fields=WORKED))
    # Parts 17,990 + 666.5; labor 41,387.5; cost 8,620 + 300.5 + 7,502.5 + 6,000; 5 % of 68,545 is above the cap.
    profit = client.control.profit(order_id)
    assert (profit.parts, profit.labor, profit.sublets, profit.discounts) == (17_990 + 667, 41_388, 9_000, 500)
    assert (profit.fees, profit.order_fees, profit.order_discount) == (395, 2_500 + 350, 1_000)
    assert (profit.retail, profit.cost) == (70_790, 8_620 + 301 + 7_503 + 6_000)
    assert (profit.profit, profit.margin) == (48_366, Decimal("0.6832"))
    assert (profit.parts_tax, profit.labor_tax, profit.fees_tax) == (1_493, 3_311, 32)
    assert_profit(client.profit(order_id)["totalProfit"], 70_790, 22_424)
    everything = client.control.potential(order_id)
    assert (everything.labor, everything.hours) == (41_388 + 10_000 + 2_500, Decimal("3.75"))
    assert (everything.labor_cost, everything.tax) == (7_503 + 501, 1_493 + 3_311 + 800 + 200 + 32)
    estimate = client.estimate(order_id)
    assert cents(estimate["total"]) == everything.total == 70_790 + 12_500 + 5_836
    assert [cents(part["retail"]) for part in estimate["jobs"][0]["parts"]] == [17_990, 1_333]
    assert estimate["jobs"][0]["labor"][0]["technician"]["fullName"] == "Technician 2"
    assert client.get(f"repair-order/{order_id}").status_code in (200, 404)


# Boards


def test_a_board_shows_the_orders_that_changed_last(shops: Client) -> None:
    for board in BOARDS:
        rows = shops.board(board)
        changed = [row["updatedDate"] for row in rows]
        assert changed == sorted(changed, reverse=True)
    posted = {
        order["id"]: order["updated"]
        for order in shops.control.rows()
        if order["status"] in (5, 6) and order["shop_id"] == NEW_YORK
    }
    assert ids(shops.board("POSTED")) == sorted(posted, key=posted.__getitem__, reverse=True)[:27]


def test_boards_hold_their_statuses_and_share_what_was_completed_recently(shops: Client) -> None:
    boards = {board: shops.board(board) for board in BOARDS}
    statuses = {board: {row["repairOrderStatus"]["id"] for row in rows} for board, rows in boards.items()}
    assert statuses == {"ACTIVE": {1, 2, 3}, "COMPLETE": {3}, "POSTED": {5, 6}}
    shared = set(ids(boards["ACTIVE"])) & set(ids(boards["COMPLETE"]))
    assert 0 < len(shared) < len(boards["COMPLETE"])
    assert all(row["completedDate"] > "2026-10-28T18" for row in boards["ACTIVE"] if row["completedDate"])
    assert "customerId" not in boards["ACTIVE"][0]


def test_a_board_ends_with_an_empty_page(shops: Client) -> None:
    assert [len(shops.board_page("POSTED", page)) for page in range(3)] == [25, 2, 0]
    assert [len(shops.board_page("POSTED", page, size=10)) for page in range(4)] == [10, 10, 7, 0]
    assert len(shops.board_page("POSTED", size=500)) == 27


def test_a_board_may_be_wrapped_shorter_or_longer(client: Client) -> None:
    client.control.set(wrapped_boards=True)
    assert client.board_page("POSTED").keys() == {"content"}
    client.control.set(wrapped_boards=False, board_limit=4)
    assert len(client.board("POSTED")) == 4
    client.control.set(board_limit=1_000, board_size=7)
    assert len(client.board_page("POSTED", size=500)) == 7
    assert len(client.board("POSTED", size=7)) == len(client.report())


def test_the_board_in_columns_is_in_one_piece_and_may_show_more(client: Client) -> None:
    path, asked = f"shop/{NEW_YORK}/job-board-group-by", {"view": "column", "board": "ACTIVE", "groupBy": "ROSTATUS"}
    everything = client.board("ACTIVE")
    client.control.set(board_limit=3)
    rows = client.read(path, **asked)
    assert sorted(ids(rows)) == sorted(ids(everything))
    assert ids(rows) != ids(everything)
    assert {tuple(row) for row in rows} == {tuple(row) for row in everything}
    client.control.set(column_limit=4)
    assert sorted(ids(client.read(path, **asked))) == sorted(ids(everything)[:4])


def test_an_order_moves_between_pages_while_they_are_read(client: Client) -> None:
    truth = ids(client.board("POSTED"))
    late = truth[26]
    client.control.before("shop/*/job-board-group-by", 2, Mutation("update", id=late), board="POSTED")
    read = ids(client.board("POSTED"))
    assert set(truth) - set(read) == {late}
    assert Counter(Counter(read).values()) == {1: 25, 2: 1}
    assert ids(client.board("POSTED")) == [late, *truth[:26]]


def test_an_order_moves_between_boards_while_they_are_read(client: Client) -> None:
    working = next(row["id"] for row in client.board("ACTIVE") if row["repairOrderStatus"]["id"] == 2)
    client.control.before("*", 1, Mutation("post", id=working), board="POSTED")
    client.control.before("*", 2, Mutation("reopen", id=working), board="POSTED", page=0)
    seen = [client.on_boards(working) for _ in range(2)]
    assert seen == [["ACTIVE", "POSTED"], []]
    assert client.on_boards(working) == ["ACTIVE"]


# Single orders


def test_some_orders_in_work_lack_their_plain_form(shops: Client) -> None:
    working = shops.with_status(2)
    for order_id in (*working, *shops.with_status(1, 3)):
        missing = shops.get(f"repair-order/{order_id}").status_code == 404
        assert missing == (order_id in working and order_id % 3 == 0)
        assert shops.head(order_id)["jobs"] is None
    assert any(i % 3 == 0 for i in working)


def test_what_does_not_exist_is_not_found(shops: Client) -> None:
    in_phoenix = shops.control.ids("orders", PHOENIX)[0]
    for path in (
        f"shop/{NEW_YORK}/repair-order/1",
        f"shop/{NEW_YORK}/repair-order/{in_phoenix}",
        "repair-order/1/estimate",
        "repair-order/1/profit/labor",
        f"shop/{NEW_YORK}/customer/1",
        f"shop/{NEW_YORK}/employee/{shops.control.ids('employees', PHOENIX)[0]}",
        f"shop/{NEW_YORK}/repair-order",
        "nothing",
    ):
        answer = shops.get(path)
        assert (answer.status_code, answer.json()["type"]) == (404, "ERROR"), path
    for path in ("shop/1/job-board-group-by", "shop/1/customer"):
        assert (shops.get(path).status_code, shops.get(path).text) == (403, "")


@pytest.mark.parametrize(
    "query",
    [
        {"board": "NONE"}, {"view": "rows"}, {"groupBy": "ROSTATUS"}, {"page": -1}, {"size": 0}, {"page": "x"},
        {"view": "column", "groupBy": "NONE"}, {"view": "column", "board": "POSTED"},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(shops: Client, query: Row) -> None:
    assert shops.get(f"shop/{NEW_YORK}/job-board-group-by", **query).status_code == 400


# Lists


def test_lists_are_spring_pages_of_at_most_a_hundred(shops: Client) -> None:
    page = shops.read(f"shop/{NEW_YORK}/customer", size=1_000, page=1)
    assert len(shops.control.ids("customers", NEW_YORK)) == 130
    told = {name: page[name] for name in ("totalPages", "totalElements", "size", "number", "numberOfElements")}
    assert told == {"totalPages": 2, "totalElements": 130, "size": 100, "number": 1, "numberOfElements": 30}
    assert (page["first"], page["last"], page["empty"], len(page["content"])) == (False, True, False, 30)
    assert len(shops.read(f"shop/{NEW_YORK}/customer")["content"]) == 10
    assert shops.read(f"shop/{NEW_YORK}/customer", page=99)["content"] == []
    for what in ("customer", "vehicle"):
        assert ids(shops.rows(what, size=30)) == shops.control.ids(f"{what}s", NEW_YORK)


def test_pages_may_be_cut_from_another_order_each(client: Client) -> None:
    truth = client.control.ids("customers", NEW_YORK)
    assert ids(client.rows("customer", size=4)) == truth
    client.control.set(shuffled_pages=True)
    for what, number in (("customer", len(truth)), ("vehicle", len(client.control.ids("vehicles", NEW_YORK)))):
        read = ids(client.rows(what, size=4))
        assert len(read) == number > len(set(read))
        page = client.read(f"shop/{NEW_YORK}/{what}")
        assert (page["totalElements"], page["sort"]["unsorted"]) == (number, True)
    assert sorted(ids(client.rows("customer", size=100))) == truth


def test_vehicles_belong_to_customers_of_their_shop(shops: Client) -> None:
    customers = set(shops.control.ids("customers", PHOENIX))
    assert {row["customerId"] for row in shops.rows("vehicle", PHOENIX, size=100)} == customers
    for order_id in shops.control.ids("orders", PHOENIX)[::5]:
        head = shops.head(order_id)
        vehicle = shops.read(f"shop/{PHOENIX}/vehicle/{head['vehicle']['id']}")
        assert vehicle["customerId"] == head["customer"]["id"]


def test_employees_have_their_pay_in_detail_only(shops: Client) -> None:
    everyone = shops.read(f"shop/{NEW_YORK}/employees-lite", status="ALL", size=500)
    assert ids(everyone) == shops.control.ids("employees", NEW_YORK)
    assert not any("hourlyRate" in row for row in everyone)
    disabled = shops.read(f"shop/{NEW_YORK}/employees-lite", status="INACTIVE")
    assert [row["disabled"] for row in disabled] == [True]
    assert len(shops.read(f"shop/{NEW_YORK}/employees-lite")) == len(everyone) - 1
    roles = Counter(row["employeeRole"]["name"] for row in everyone)
    assert roles == {"SERVICE_ADVISOR": 2, "TECHNICIAN": 3, "OWNER": 1, "SHOP_ADMIN": 1}
    for row in everyone:
        pay = cents(shops.read(f"shop/{NEW_YORK}/employee/{row['id']}")["hourlyRate"])
        assert (2_800 <= pay < 4_200) == (row["employeeRole"]["code"] == 3)


# The report


def test_the_report_has_all_that_was_posted_in_its_window(shops: Client) -> None:
    posted = {order["id"]: order for order in shops.control.rows() if order["status"] in (5, 6)}
    rows = shops.report(shopIds=f"{NEW_YORK},{PHOENIX}", size=7)
    assert sorted(row["repairOrderId"] for row in rows) == sorted(posted)
    instants = [posted[row["repairOrderId"]]["posted"] for row in rows]
    assert instants == sorted(instants, reverse=True)
    oldest_first = shops.report(shopIds=f"{NEW_YORK},{PHOENIX}", sortOrder="ASC", size=9)
    assert oldest_first == rows[::-1]
    march = {"start": "2026-03-01T00:00:00.000-05:00", "end": "2026-03-31T23:59:59.999-04:00"}
    in_march = [row for row in rows if row["shopId"] == NEW_YORK and row["postedDate"].startswith("2026-03")]
    assert shops.report(**march) == in_march
    assert in_march


def test_the_window_includes_its_bounds(shops: Client) -> None:
    moment = shops.report()[3]["postedDate"]
    assert len(shops.report(start=moment, end=moment)) == 1
    later = (datetime.fromisoformat(moment) + timedelta(milliseconds=1)).isoformat()
    assert shops.report(start=later, end=later) == []


def test_pages_of_the_report_are_cut_at_a_hundred(shops: Client) -> None:
    both = f"{NEW_YORK},{PHOENIX}"
    assert [len(page["content"]) for page in shops.report_pages(shopIds=both, size=1_000)] == [100, 100, 60]
    last = shops.report_pages(shopIds=both)[-1]
    assert (last["hasNext"], last["nextKeys"]) == (False, None)


def test_next_keys_are_good_for_their_query_only(shops: Client) -> None:
    query = {"timezone": "America/New_York", "shopIds": NEW_YORK, "size": 5, **EVER}
    path = "reporting/profit-details-report"
    keys = shops.read(path, **query)["nextKeys"]
    assert shops.get(path, nextKeys=keys, **query).status_code == 200
    for other in ({"shopIds": PHOENIX}, {"sortOrder": "ASC"}, {"start": "2026-01-01T00:00:00Z"}):
        assert shops.get(path, nextKeys=keys, **query | other).status_code == 400
    for forged in (keys[:-2], "x", f"A{keys[1:]}" if keys[0] != "A" else f"B{keys[1:]}"):
        assert shops.get(path, nextKeys=forged, **query).status_code == 400


def test_next_keys_may_be_a_list_which_comes_back_item_by_item_or_as_json(client: Client) -> None:
    expected = client.report(size=5)
    client.control.set(next_keys="list")
    assert client.report(size=5) == expected
    query = {"timezone": "America/New_York", "shopIds": NEW_YORK, "size": 5, **EVER}
    path = "reporting/profit-details-report"
    keys = client.read(path, **query)["nextKeys"]
    assert [type(key) for key in keys] == [str, int]
    by_item, as_json = (client.read(path, nextKeys=form, **query) for form in (keys, json.dumps(keys)))
    assert by_item == as_json
    assert by_item["content"] == expected[5:10]
    for other in (keys[::-1], str(keys), keys[1], [*keys, 1]):
        assert client.get(path, nextKeys=other, **query).status_code == 400


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"start": "2026-01-01T00:00:00"}, 400), ({"end": ""}, 400), ({"timezone": "Mars/Base"}, 400),
        ({"sortBy": "NAME"}, 400), ({"shopIds": 1}, 403), ({"shopIds": "x"}, 403), ({"timezone": None}, 400),
    ],
)  # fmt: skip
def test_the_report_wants_to_know_exactly(shops: Client, change: Row, status: int) -> None:
    query = {"timezone": "America/New_York", "shopIds": NEW_YORK, **EVER} | change
    assert shops.get("reporting/profit-details-report", **query).status_code == status


def test_the_report_goes_on_where_it_was_while_orders_are_posted(client: Client) -> None:
    before = [row["repairOrderId"] for row in client.report()]
    working = client.with_status(2)[0]
    client.control.before("reporting/*", 2, Mutation("post", id=working), Mutation("unpost", id=before[-1]))
    assert [row["repairOrderId"] for row in client.report(size=10)] == before[:-1]


# Changes


def test_orders_go_through_their_life(client: Client) -> None:
    now = client.control.now()
    (order_id,) = client.control.mutate(Mutation("create", fields={"shop_id": PHOENIX}))
    head = client.head(order_id)
    assert head["createdDate"] == head["updatedDate"] == client.control.now() > now
    assert (head["repairOrderNumber"], head["shopId"], client.on_boards(order_id, PHOENIX)) == (
        4061,
        PHOENIX,
        ["ACTIVE"],
    )
    lives = [
        (Mutation("update", id=order_id, fields={"status": 2}), (2, "WORKINPROGRESS"), ["ACTIVE"], ""),
        (Mutation("complete", id=order_id), (3, "COMPLETE"), ["ACTIVE", "COMPLETE"], "c"),
        (Mutation("post", id=order_id, fields={"posted": "2026-10-31T06:59:59Z"}), (5, "POSTED"), ["POSTED"], "cp"),
        (Mutation("post", id=order_id, fields={"posted": "2026-11-01T07:00:00Z"}), (5, "POSTED"), ["POSTED"], "cp"),
        (Mutation("update", id=order_id, fields={"status": 6}), (6, "ACCRECV"), ["POSTED"], "cp"),
        (Mutation("unpost", id=order_id), (3, "COMPLETE"), ["ACTIVE", "COMPLETE"], "c"),
        (Mutation("reopen", id=order_id), (2, "WORKINPROGRESS"), ["ACTIVE"], ""),
        (Mutation("update", id=order_id, fields={"status": 4}), (4, "SAVEDFORLATER"), [], ""),
    ]
    for mutation, (status, code), boards, dates in lives:
        client.control.mutate(mutation)
        head = client.head(order_id)
        assert head["repairOrderStatus"] == {"id": status, "code": code}
        assert client.on_boards(order_id, PHOENIX) == boards
        assert (bool(head["completedDate"]), bool(head["postedDate"])) == ("c" in dates, "p" in dates)
        assert head["updatedDate"] == client.control.now()
        reported = [row["postedDate"] for row in client.report(shopIds=PHOENIX) if row["repairOrderId"] == order_id]
        assert len(reported) == dates.count("p")
        if dates == "cp":
            assert datetime.fromisoformat(reported[0]) == datetime.fromisoformat(head["postedDate"])


@pytest.mark.parametrize("hidden", [False, True])
def test_deleted_orders_are_told_or_hidden(client: Client, hidden: bool) -> None:
    order_id = client.board("POSTED")[0]["id"]
    client.control.mutate(Mutation("delete", id=order_id, fields={"hidden": hidden}))
    answers = [client.get(f"shop/{NEW_YORK}/repair-order/{order_id}"), client.get(f"repair-order/{order_id}/estimate")]
    assert [answer.status_code for answer in answers] == [404 if hidden else 200] * 2
    assert hidden or answers[0].json()["repairOrderStatus"] == {"id": 7, "code": "DELETED"}
    assert client.on_boards(order_id) == []
    assert order_id not in [row["repairOrderId"] for row in client.report()]
    assert order_id not in client.control.ids()
    assert client.control.order(order_id)["status"] == 7
    with pytest.raises(ValueError, match=f"order {order_id} is deleted"):
        client.control.mutate(Mutation("post", id=order_id))


def test_jobs_are_decided_edited_added_and_removed(client: Client) -> None:
    (order_id,) = client.control.mutate(Mutation("create", fields={**WORKED, "fees": [], "discount": 0}))
    brakes, unwanted, undecided = (job["id"] for job in client.control.order(order_id)["jobs"])
    retail = client.control.profit(order_id).retail

    def gained(*mutations: Mutation) -> int:
        nonlocal retail
        client.control.mutate(*mutations)
        assert client.head(order_id)["updatedDate"] == client.control.now()
        before, retail = retail, client.control.profit(order_id).retail
        assert cents(client.profit(order_id)["totalProfit"]["retail"]) == retail
        return retail - before

    assert gained(Mutation("authorize", "jobs", undecided)) == 2_500
    assert client.control.row("jobs", undecided)["authorized_date"] == client.control.now()
    assert gained(Mutation("decline", "jobs", undecided)) == -2_500
    told = client.estimate(order_id)["jobs"][2]
    assert (told["authorized"], told["declined"], told["authorizedDate"]) == (False, True, None)
    assert gained(Mutation("update", "jobs", unwanted, {"authorized": True, "declined": False})) == 10_000
    rotor, fluid = client.control.row("jobs", brakes)["parts"]
    assert gained(Mutation("update", "jobs", brakes, {"parts": [rotor, fluid | {"quantity": 1}]})) == 1_333 - 667
    assert gained(Mutation("update", "jobs", brakes, {"parts": [rotor]})) == -1_333
    assert gained(Mutation("update", "jobs", brakes, {"fees": [], "sublets": []})) == -9_395
    more = {"order_id": order_id, "name": "More", "authorized": True, "labor": [{"hours": 2, "rate": 5_000}]}
    assert gained(Mutation("create", "jobs", fields=more)) == 10_000
    added = client.estimate(order_id)["jobs"][-1]
    assert (added["name"], added["id"] > undecided, added["labor"][0]["technician"]) == ("More", True, None)
    assert gained(Mutation("delete", "jobs", added["id"])) == -10_000
    assert ids(client.estimate(order_id)["jobs"]) == [brakes, unwanted, undecided]


def test_silent_changes_leave_no_trace(client: Client) -> None:
    row = client.board("POSTED")[5]
    order = client.control.order(row["id"])
    before = client.control.potential(row["id"]).total
    job = order["jobs"][0]
    client.control.mutate(
        Mutation("update", "jobs", job["id"], {"discount": job["discount"] + 100}, silent=True),
        Mutation("update", "customers", order["customer_id"], {"lastName": "Renamed"}, silent=True),
    )
    assert client.control.potential(row["id"]).total != before
    assert client.head(row["id"])["updatedDate"] == row["updatedDate"]
    assert client.head(row["id"])["customer"]["lastName"] == "Renamed"
    customer = client.read(f"shop/{NEW_YORK}/customer/{order['customer_id']}")
    assert customer["updatedDate"] == customer["createdDate"]


def test_customers_vehicles_and_employees_change(client: Client) -> None:
    order = client.control.order(client.board("ACTIVE")[0]["id"])
    customer, car, writer = order["customer_id"], order["vehicle_id"], order["writer_id"]
    client.control.mutate(
        Mutation("update", "customers", customer, {"firstName": "New"}),
        Mutation("update", "vehicles", car, {"year": 1999, "make": "Saab"}),
        Mutation("update", "employees", writer, {"lastName": "Else"}),
    )
    head = client.head(order["id"])
    assert (head["customer"]["firstName"], head["vehicle"]["year"], head["vehicle"]["make"]) == ("New", 1999, "Saab")
    assert head["serviceWriter"]["fullName"] == "Advisor Else"
    assert head["updatedDate"] == order["updated"]
    assert client.read(f"shop/{NEW_YORK}/customer/{customer}")["updatedDate"] == client.control.now()
    made = client.control.mutate(
        Mutation("create", "customers", fields={"shopId": PHOENIX}),
        Mutation("create", "vehicles", fields={"customerId": customer}),
        Mutation("create", "employees", fields={"hourlyRate": 5_000}),
    )
    assert made[0] in ids(client.rows("customer", PHOENIX))
    assert client.read(f"shop/{NEW_YORK}/vehicle/{made[1]}")["customerId"] == customer
    assert cents(client.read(f"shop/{NEW_YORK}/employee/{made[2]}")["hourlyRate"]) == 5_000
    client.control.mutate(Mutation("delete", "customers", customer))
    assert client.get(f"shop/{NEW_YORK}/customer/{customer}").status_code == 404
    assert customer not in ids(client.rows("customer", size=100))
    assert client.head(order["id"])["customer"]["id"] == customer


def test_a_new_rate_counts_where_nothing_is_posted_yet(client: Client) -> None:
    job = {"authorized": True, "labor": [{"hours": 2, "rate": 10_000, "technician_id": 3002}]}
    working, posted = client.control.mutate(
        Mutation("create", fields={"status": 2, "jobs": [job]}), Mutation("create", fields={"status": 5, "jobs": [job]})
    )
    old = client.control.profit(posted).labor_cost
    client.control.mutate(Mutation("update", "employees", 3002, {"hourlyRate": 5_000}))
    assert (client.control.profit(working).labor_cost, client.control.profit(posted).labor_cost) == (10_000, old)
    assert cents(client.profit(working)["labor"][0]["jobTechnician"]["hourlyRate"]) == 5_000
    assert client.head(working)["updatedDate"] < client.control.now()


def test_many_orders_are_touched_or_changed_at_once(client: Client) -> None:
    def just_changed() -> list[int]:
        return [order["id"] for order in client.control.rows() if order["updated"] == client.control.now()]

    order_ids = client.control.ids()
    client.control.touch(order_ids[:5])
    assert just_changed() == order_ids[:5]
    before = {order["id"]: order["jobs"] for order in client.control.rows()}
    changed = client.control.change_some(30)
    assert len(set(changed)) == 30
    assert just_changed() == changed
    for order in client.control.rows():
        jobs = before[order["id"]]
        if order["id"] in changed:
            jobs[0]["labor"][0]["hours"] += Decimal("0.25")
        assert order["jobs"] == jobs
    with pytest.raises(ValueError, match="only 120 orders"):
        client.control.change_some(121)


def test_an_order_as_it_is_can_be_written_back(client: Client) -> None:
    order_id = client.control.ids()[7]
    order, estimate = client.control.order(order_id), client.estimate(order_id)
    client.control.mutate(Mutation("update", id=order_id, fields={"jobs": order["jobs"]}, silent=True))
    assert (client.control.order(order_id), client.estimate(order_id)) == (order, estimate)


@pytest.mark.parametrize(
    ("mutation", "reason"),
    [
        (Mutation("post", id=1), "there is no order 1"),
        (Mutation("authorize", "jobs", 88000199), "there is no job 88000199"),
        (Mutation("authorize", id=880001), "there is no authorize of orders"),
        (Mutation("update", id=880001, fields={"colour": 1}), "unknown field `colour`"),
        (Mutation("update", id=880001, fields={"discount": 1.5}), "discount"),
        (Mutation("create", fields={"shop_id": 5}), "there is no shop 5"),
        (Mutation("update", "customers", 20_001, {"colour": 1}), "customers have no colour"),
        (Mutation("update", "vehicles", 1, {}), "there is no row 1 among the vehicles"),
    ],
)
def test_changes_that_make_no_sense_are_refused(shops: Client, mutation: Mutation, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        shops.control.mutate(mutation)


# Orders to the control


def test_a_view_of_an_order_can_be_wrong(client: Client) -> None:
    order_id = client.board("POSTED")[0]["id"]
    right = client.estimate(order_id)
    client.control.spoil("estimate", order_id, total=None, jobs=[])
    client.control.spoil("profit", order_id, totalProfit={"retail": 1})
    client.control.spoil("board", order_id, updatedDate="nonsense")
    client.control.spoil("report", order_id, totalCost="0.0")
    client.control.spoil("head", order_id, postedDate=None)
    assert client.estimate(order_id) == right | {"total": None, "jobs": []}
    assert client.profit(order_id)["totalProfit"] == {"retail": 1}
    assert client.board("POSTED")[0]["updatedDate"] == "nonsense"
    assert [row["totalCost"] for row in client.report() if row["repairOrderId"] == order_id] == ["0.0"]
    assert client.head(order_id)["postedDate"] is None
    assert client.read(f"repair-order/{order_id}")["postedDate"]
    client.control.clear()
    assert client.estimate(order_id) == right
    with pytest.raises(ValueError, match="'nowhere' is none of board, head"):
        client.control.spoil("nowhere", order_id)


def test_the_token_is_wanted_and_expires(client: Client) -> None:
    path = f"repair-order/{client.control.ids()[0]}/estimate"
    for wrong in ("", "other"):
        answer = client.get(path, headers={"x-auth-token": wrong})
        assert (answer.status_code, answer.content) == (401, b"")
    assert client.get(path).status_code == 200
    client.control.expire_token()
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"x-auth-token": ""}).status_code == 401
    client.control.set(token="fresh")
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"x-auth-token": "fresh"}).status_code == 200


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_answers_fail_on_order(client: Client, status: int) -> None:
    order_id = client.control.ids()[0]
    client.control.fault(Fault("status", path=f"repair-order/{order_id}/estimate", status=status, nth=2, times=2))
    statuses = [client.get(f"repair-order/{order_id}/estimate").status_code for _ in range(4)]
    assert statuses == [200, status, status, 200]
    client.control.fault(Fault("status", path="*/profit/*", status=status, times=None, retry_after=3))
    answers = [client.get(f"repair-order/{order_id}/profit/labor") for _ in range(3)]
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in answers} == {(status, "3")}
    assert [answer.content == b"" for answer in answers] == [status in (401, 403, 429)] * 3
    assert client.get(f"repair-order/{order_id}/estimate").status_code == 200
    client.control.clear()
    assert client.get(f"repair-order/{order_id}/profit/labor").status_code == 200
    assert client.control.counters().faults == 5


def test_answers_are_others_on_order(client: Client) -> None:
    one, other = client.control.ids()[:2]
    told = {"message": "temporarily unavailable"}
    client.control.fault(
        Fault("answer", path=f"repair-order/{one}/estimate", content=told),
        Fault("swap", path=f"repair-order/{one}/estimate", other=f"repair-order/{other}/estimate", nth=2),
        Fault("swap", path=f"shop/*/repair-order/{one}", other="nothing"),
    )
    expected = [told, client.estimate(other)]
    assert [client.estimate(one) for _ in range(2)] == expected
    assert client.estimate(one)["id"] == one
    assert client.get(f"shop/{NEW_YORK}/repair-order/{one}").status_code == 404


def test_answers_lack_or_repeat_something_on_order(client: Client) -> None:
    order_id = next(order["id"] for order in client.control.rows() if len(order["jobs"]) > 1)
    right, path = client.estimate(order_id), f"repair-order/{order_id}/estimate"

    def told(name: str, edit: str) -> Row:
        client.control.fault(Fault("edit", path=path, name=name, edit=edit))
        return client.estimate(order_id)

    jobs = right["jobs"]
    assert told("jobs", "empty") == right | {"jobs": []}
    assert told("jobs", "short") == right | {"jobs": jobs[:-1]}
    assert told("jobs", "twice") == right | {"jobs": [jobs[0], *jobs]}
    assert told("jobs", "null") == right | {"jobs": None}
    assert told("jobs", "missing") == {name: value for name, value in right.items() if name != "jobs"}
    assert told("partsCost", "null")["jobs"] == [job | {"partsCost": None} for job in jobs]
    assert not any("cost" in part for job in told("cost", "missing")["jobs"] for part in job["parts"])
    assert told("nowhere", "missing") == right
    board = client.board("ACTIVE")
    client.control.fault(Fault("edit", path="*job-board*", params={"page": "0"}, edit="short"))
    assert client.board("ACTIVE") == board[:-1]
    client.control.fault(Fault("edit", path=path.replace(str(order_id), "1"), edit="empty"))
    assert client.get("repair-order/1/estimate").status_code == 404


def test_a_fault_can_be_meant_for_one_page_of_one_board(client: Client) -> None:
    client.control.fault(Fault("status", path="shop/*/job-board-group-by", params={"board": "POSTED", "page": "1"}))
    assert len(client.board("ACTIVE")) == 17
    assert client.get(f"shop/{NEW_YORK}/job-board-group-by", board="POSTED").status_code == 200
    assert client.get(f"shop/{NEW_YORK}/job-board-group-by", board="POSTED", page=1).status_code == 500
    assert len(client.board("POSTED")) == 27


@pytest.mark.parametrize("kind", ["drop", "cut", "hang"])
def test_connections_end(client: Client, kind: str) -> None:
    client.control.fault(Fault(kind, path="shop/*/customer"))
    with pytest.raises(requests.RequestException):
        client.get(f"shop/{NEW_YORK}/customer", timeout=0.5)
    assert client.get(f"shop/{NEW_YORK}/customer").status_code == 200
    assert client.control.counters().requests["shop/{shop}/customer"] == {"200": 1, "cut": 1}


def test_answers_may_be_no_json(client: Client) -> None:
    client.control.fault(Fault("broken_json"), Fault("status", status=200, html=True), Fault("hang", seconds=0.1))
    for _ in range(2):
        answer = client.get(f"shop/{NEW_YORK}/vehicle")
        assert answer.status_code == 200
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(answer.text)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert client.get(f"shop/{NEW_YORK}/vehicle").status_code == 504


def test_counters_count_and_orders_are_dropped(client: Client) -> None:
    order_id = client.control.ids()[0]
    client.control.before("*", 1, Mutation("delete", id=order_id))
    client.control.clear()
    client.control.reset_counters()
    client.estimate(order_id)
    client.get("repair-order/1/estimate")
    client.head(order_id)
    counters = client.control.counters()
    assert counters.requests == {
        "repair-order/{id}/estimate": {"200": 1, "404": 1},
        "shop/{shop}/repair-order/{id}": {"200": 1},
    }
    assert (counters.total(), counters.total("estimate"), counters.total(status=404)) == (3, 2, 1)
    assert (counters.max_concurrent, counters.faults) == (1, 0)


def test_the_clock_stands_still_and_answers_are_dated_by_it(client: Client) -> None:
    assert client.control.now() == "2026-11-04T18:00:00Z"
    assert client.control.advance(3_600) == "2026-11-04T19:00:00Z"
    assert client.get(f"shop/{NEW_YORK}/customer").headers["Date"] == "Wed, 04 Nov 2026 19:00:00 GMT"
    recent = client.board("ACTIVE")
    client.control.advance(20 * 86_400)
    assert {row["repairOrderStatus"]["id"] for row in recent} == {1, 2, 3}
    assert {row["repairOrderStatus"]["id"] for row in client.board("ACTIVE")} == {1, 2}


def test_the_clock_may_run() -> None:
    with running(Config(now=None, orders=10)) as simulator:
        now = datetime.fromisoformat(simulator.control.now())
        assert abs((datetime.now(now.tzinfo) - now).total_seconds()) < 60
        assert all(order["updated"] < simulator.control.now() for order in simulator.control.rows())


def test_habits_change_and_sizes_do_not(client: Client) -> None:
    assert client.control.set(latency_ms=60).latency_ms == 60
    assert client.get("nothing").elapsed.total_seconds() > 0.05
    for fields, reason in (
        ({"orders": 5}, "orders can't change"),
        ({"colour": 5}, "no colour"),
        ({"latency_ms": "x"}, "latency_ms"),
    ):
        with pytest.raises(ValueError, match=reason):
            client.control.set(**fields)


# The program


def test_the_program_serves_until_it_is_told_to_end() -> None:
    shops = json.dumps([{"tm_id": 5, "name": "Only", "timezone": "America/Los_Angeles"}])
    options = ["--orders", "60", "--shops", shops, "--token", "t", "--now", "2026-05-01T00:00:00Z", "--customers", "3"]
    command = [sys.executable, "-m", "include.simulators.tekmetric", *options, "--board-limit", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[-1]
            client = Client(Simulator(url, "t", Control(url)))
            assert len(client.board("POSTED", 5)) == 2
            assert len(client.rows("customer", 5)) == 3
            assert client.control.set().shops == (Shop(5, "Only", "America/Los_Angeles"),)
            assert client.control.now() == "2026-05-01T00:00:00Z"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_program_says_when_its_port_is_taken(shops: Client) -> None:
    port = shops.url.rsplit(":", 1)[1].removesuffix("/api")
    command = [sys.executable, "-m", "include.simulators.tekmetric", "--port", port, "--orders", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "can't listen on 127.0.0.1" in done.stderr
    assert "choose another --port" in done.stderr
