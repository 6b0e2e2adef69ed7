"""Answers about an order: honest ones pass in all their forms, those that contradict themselves are refused."""

import re
from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest

from include.api.decoding import decode_json
from include.api.errors import RefuseData
from include.simulators.clock import Clock
from include.simulators.tekmetric import Config, rows
from include.simulators.tekmetric.protocol import encoder
from include.simulators.tekmetric.store import Store
from include.sources.tekmetric import answers
from include.sources.tekmetric.orders import record

ID, SHOP = 880123, 6212
HEAD = {
    "id": ID,
    "repairOrderNumber": 4417,
    "shopId": SHOP,
    "repairOrderStatus": {"id": 5, "code": "POSTED"},
    "createdDate": "2026-01-12T14:03:22Z",
    "updatedDate": "2026-01-13T21:10:05Z",
}
BRAKES = {
    "id": 88012301,
    "authorized": True,
    "discount": 500,
    "partsPrice": 18657,
    "laborPrice": "41388.0",
    "laborHours": Decimal("2.5"),
    "subletPrice": 9000,
    "feePrice": 395,
    "parts": [
        {"id": 1, "quantity": 2, "retail": 17990, "cost": 8620, "total": 17990},
        {"quantity": Decimal("0.5"), "retail": 1333, "cost": 601, "total": None},
    ],
    "labor": [{"id": 1, "hours": 2, "rate": 16555, "total": 33110}, {"hours": "0.5", "rate": 16555}],
    "sublets": [{"name": "Towing", "retail": 9000, "cost": 6000}],
    "fees": [{"name": "Disposal", "amount": 395, "total": 395}],
}
WIPERS = {
    "id": 88012302,
    "authorized": None,
    "partsPrice": 2500,
    "laborPrice": 0,
    "parts": [{"quantity": 1, "retail": 2500, "total": 2500}],
    "labor": [],
    "sublets": None,
}
ESTIMATE = {
    "id": str(ID),
    "repairOrderNumber": 4417,
    "total": 79126,
    "subtotal": None,
    "tax": None,
    "taxes": 4836,
    "feesTotal": 3245,
    "discountTotal": 500,
    "discount": 0,
    "fees": {
        "data": [
            {"name": "Shop supplies", "percentage": 5, "cap": 2500},
            {"name": "Environmental", "amount": 350},
        ]
    },
    "jobs": [BRAKES, WIPERS],
}
PROFIT = {
    "laborProfit": {"hours": "2.5", "retail": 41388, "cost": 7503, "profit": 33885, "margin": Decimal("0.8187")},
    "totalProfit": {"retail": 71790, "cost": 22424, "profit": 49366, "margin": Decimal("0.6876")},
}


def changed(answer: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    """The answer with another value at the path; `...` leaves the field out."""
    copy = deepcopy(answer)
    *outer, last = path
    inner = copy
    for each in outer:
        inner = inner[each]
    if to is ...:
        del inner[last]
    else:
        inner[last] = to
    return copy


def without(answer: dict[str, Any], *path: Any) -> dict[str, Any]:
    return changed(answer, *path, to=...)


def twice(answer: dict[str, Any], *path: Any) -> dict[str, Any]:
    """The answer with the first item of a list at its end once more."""
    inner: Any = answer
    for each in path:
        inner = inner[each]
    return changed(answer, *path, to=[*inner, inner[0]])


MONEY = re.compile(r"total|subtotal|taxes|discount|amount|retail|cost|rate|profit|\w+(Total|Price|Profit)")


def refunded(answer: Any) -> Any:
    """The answer of an order that gives all of it back: each amount below 0, hours and quantities as they were."""
    if isinstance(answer, list):
        return list(map(refunded, answer))
    if not isinstance(answer, dict):
        return answer
    amounts = {name for name in answer if MONEY.fullmatch(name) and isinstance(answer[name], int | str)}
    return {name: -Decimal(each) if name in amounts else refunded(each) for name, each in answer.items()}


def everything(config: Config) -> Iterator[tuple[Any, Any, Any]]:
    """Head, estimate and profit of each order of an account, as they come over HTTP."""
    store = Store(config, Clock(config.now).now())
    for order in store.orders.values():
        shown = (rows.head, rows.estimate, rows.profit)
        yield tuple(decode_json(encoder.encode(show(store, order))) for show in shown)


@pytest.mark.parametrize("seed", range(3))
def test_honest_answers_in_all_their_forms_pass(seed):
    for head, estimate, profit in everything(Config(seed=seed, orders=200)):
        answers.head(head["shopId"], head["id"])(head)
        assert record(head, estimate, profit)


class TestHead:
    def check(self, head: Any) -> None:
        answers.head(SHOP, ID)(head)

    @pytest.mark.parametrize(
        "head",
        [
            HEAD,
            {**HEAD, "id": str(ID)},
            {**HEAD, "shopId": None},
            without(HEAD, "shopId"),
            {**without(HEAD, "repairOrderNumber"), "roNumber": "4417"},
            # Deleted, which needs nothing else.
            {"id": ID, "repairOrderStatus": {"id": 7}},
            {"id": ID, "deletedDate": "2026-01-14T00:00:00Z"},
        ],
        ids=str,
    )
    def test_of_that_order_passes(self, head):
        self.check(head)

    @pytest.mark.parametrize(
        ("head", "why"),
        [
            (None, "no JSON object"),
            ([HEAD], "no JSON object"),
            ({"message": "temporarily unavailable"}, "names no order"),
            ({**HEAD, "id": None}, "names no order"),
            ({**HEAD, "id": ID + 1}, "about another order"),
            ({"id": ID + 1, "repairOrderStatus": {"id": 7}}, "about another order"),
            ({**HEAD, "shopId": SHOP + 1}, "of another shop"),
            ({"id": ID, "message": "temporarily unavailable"}, "no status"),
            (without(HEAD, "repairOrderStatus"), "no status"),
            ({**HEAD, "repairOrderStatus": {"code": None}}, "no status"),
            ({**HEAD, "repairOrderStatus": "POSTED"}, "no object"),
            (without(HEAD, "repairOrderNumber"), "no number"),
            ({**HEAD, "updatedDate": None}, "no updatedDate"),
            (without(HEAD, "updatedDate"), "no updatedDate"),
            ({**HEAD, "updatedDate": "some day"}, "updatedDate is no ISO 8601 time"),
            (without(HEAD, "createdDate"), "no createdDate"),
        ],
        ids=str,
    )
    def test_of_anything_else_is_refused(self, head, why):
        with pytest.raises(RefuseData, match=why):
            self.check(head)


class TestEstimate:
    def check(self, estimate: Any) -> None:
        answers.estimate(ID)(estimate)

    @pytest.mark.parametrize(
        "estimate",
        [
            ESTIMATE,
            # Amounts that nobody tells are compared with nothing.
            changed(ESTIMATE, "feesTotal", to=None),
            changed(ESTIMATE, "discountTotal", to=None),
            changed(ESTIMATE, "taxes", to=None),
            changed(ESTIMATE, "jobs", 0, "partsPrice", to=None),
            changed(ESTIMATE, "jobs", 0, "laborHours", to=None),
            changed(ESTIMATE, "jobs", 0, "parts", 0, to={"name": "Rotor"}),
            without(ESTIMATE, "fees", "data", 1, "amount"),
            # A rate may be a fraction, and tax unknown.
            {**changed(ESTIMATE, "taxes", to=None), "taxRate": Decimal("0.0675")},
            # Supplies may be told beside the fees, and the order's own discount beside those of its jobs.
            {
                **changed(changed(ESTIMATE, "feesTotal", to=395), "fees", to=None),
                "shopSuppliesTotal": 2500,
                "epaTotal": 350,
            },
            {**ESTIMATE, "discount": 1500, "total": 79126 - 1500},
            # Cents here and there.
            changed(ESTIMATE, "total", to=79126 + 100),
            changed(ESTIMATE, "total", to=79126 - 100),
            changed(ESTIMATE, "jobs", 0, "partsPrice", to=18657 + 99),
            # Whether a declined job counts in the total nobody knows.
            changed(changed(ESTIMATE, "jobs", 1, "declined", to=True), "total", to=79126 - 2500),
            changed(ESTIMATE, "jobs", 1, "declined", to=True),
            # The order's own sublets may count in it.
            {**ESTIMATE, "total": 90000, "sublets": [{"price": 10874}]},
            # Prices may be told after the discount, those of parts with core charges.
            changed(changed(ESTIMATE, "jobs", 0, "laborPrice", to=40888), "total", to=78626),
            changed(
                changed(changed(ESTIMATE, "jobs", 0, "partsPrice", to=21657), "total", to=82126),
                *("jobs", 0, "parts", 0, "coreCharge"),
                to=1500,
            ),
            {"id": ID, "total": 0, "jobs": []},
            {"id": ID, "total": None, "jobs": None},
            {"id": ID, "total": "0.0", "jobs": None},
        ],
        ids=range(22),
    )
    def test_of_that_order_passes(self, estimate):
        self.check(estimate)

    @pytest.mark.parametrize(
        "estimate",
        [
            ESTIMATE,
            changed(ESTIMATE, "taxes", to=None),
            {**changed(ESTIMATE, "taxes", to=None), "taxRate": Decimal("6.75")},
            changed(ESTIMATE, "feesTotal", to=None),
            changed(ESTIMATE, "jobs", 1, "declined", to=True),
            changed(changed(ESTIMATE, "jobs", 1, "declined", to=True), "total", to=79126 - 2500),
        ],
    )
    def test_of_a_refund_passes(self, estimate):
        self.check(estimate)
        self.check(refunded(estimate))

    def test_of_a_refund_has_all_its_jobs(self):
        with pytest.raises(RefuseData, match="don't come to the estimate's total"):
            self.check({**refunded(ESTIMATE), "jobs": refunded([BRAKES])})

    @pytest.mark.parametrize(
        ("estimate", "why"),
        [
            ([], "no JSON object"),
            ({"message": "temporarily unavailable"}, "names no order"),
            ({**ESTIMATE, "id": ID + 1}, "about another order"),
            ({"id": ID, "message": "temporarily unavailable"}, "no jobs or no total"),
            (without(ESTIMATE, "jobs"), "no jobs or no total"),
            (without(ESTIMATE, "total"), "no jobs or no total"),
            ({**ESTIMATE, "total": None}, "but no total"),
            ({**ESTIMATE, "total": "much"}, "total is no decimal number"),
            ({**ESTIMATE, "jobs": {"data": []}}, "no list of objects"),
            ({**ESTIMATE, "jobs": None}, "list of jobs is missing"),
            ({**ESTIMATE, "jobs": []}, "don't come to the estimate's total"),
            ({**ESTIMATE, "jobs": [BRAKES]}, "don't come to the estimate's total"),
            ({**ESTIMATE, "jobs": [WIPERS]}, "don't come to the estimate's total"),
            ({**ESTIMATE, "total": 79126 + 101}, "don't come to the estimate's total"),
            ({**ESTIMATE, "total": 79126 - 101}, "don't come to the estimate's total"),
            (changed(changed(ESTIMATE, "taxes", to=None), "total", to=95000), "don't come to the estimate's total"),
            (twice(ESTIMATE, "jobs"), "listed twice"),
            (twice(ESTIMATE, "jobs", 0, "parts"), "one of its parts is listed twice"),
            (changed(ESTIMATE, "jobs", 1, "parts", 0, "id", to="1"), "one of its parts is listed twice"),
            (twice(ESTIMATE, "jobs", 0, "sublets"), "sublets don't come to"),
            (changed(ESTIMATE, "jobs", 1, "id", to=None), "a job has no id"),
            (changed(ESTIMATE, "jobs", 1, "repairOrderId", to=ID + 1), "that of another order"),
            *(
                (changed(ESTIMATE, "jobs", 0, kind, to=[]), f"a job's {kind} don't come to")
                for kind in ("parts", "labor", "sublets", "fees")
            ),
            *(
                (changed(ESTIMATE, "jobs", 0, kind, to=None), f"a job's {kind} is missing")
                for kind in ("parts", "labor", "sublets", "fees")
            ),
            (without(ESTIMATE, "jobs", 0, "parts"), "a job's parts is missing"),
            (without(ESTIMATE, "jobs", 0, "parts", 1), "a job's parts don't come to"),
            (without(ESTIMATE, "jobs", 0, "labor", 1), "a job's labor don't come to"),
            (changed(ESTIMATE, "jobs", 0, "labor", 0, "hours", to=1), "hours that the job tells"),
            (changed(ESTIMATE, "fees", to=None), "own fees is missing or too short"),
            (without(ESTIMATE, "fees"), "own fees is missing or too short"),
            (changed(ESTIMATE, "fees", "data", to=[]), "own fees is missing or too short"),
            (without(ESTIMATE, "fees", "data", 1), "own fees is missing or too short"),
            (changed(ESTIMATE, "fees", to=[]), "no JSON object"),
        ],
        ids=range(39),
    )
    def test_that_contradicts_itself_is_refused_in_one_line(self, estimate, why):
        with pytest.raises(RefuseData, match=why) as refused:
            self.check(estimate)
        assert "\n" not in str(refused.value)


class TestProfit:
    def test_tells_what_is_earned(self):
        answers.profit(PROFIT)
        nothing = {"retail": 0, "cost": 0, "profit": "0.0", "margin": "NaN"}
        answers.profit({"laborProfit": {**nothing, "hours": 0}, "totalProfit": nothing})

    @pytest.mark.parametrize(
        "profit",
        [
            None,
            {"message": "temporarily unavailable"},
            {"laborProfit": None, "totalProfit": None, "message": "temporarily unavailable"},
            {**PROFIT, "totalProfit": None},
            without(PROFIT, "laborProfit"),
            *(without(PROFIT, "totalProfit", name) for name in ("retail", "cost", "profit")),
            *(changed(PROFIT, "laborProfit", name, to=None) for name in ("retail", "cost", "profit", "hours")),
            changed(PROFIT, "totalProfit", "cost", to="much"),
        ],
        ids=str,
    )
    def test_that_tells_less_is_refused(self, profit):
        with pytest.raises(RefuseData, match=r"rofit has no|no JSON object|no decimal number"):
            answers.profit(profit)


class TestTogether:
    @pytest.mark.parametrize(
        "profit",
        [
            PROFIT,
            changed(PROFIT, "laborProfit", "retail", to=41388 + 100),
            changed(PROFIT, "laborProfit", "hours", to=Decimal("2.5499999999999998")),
            # It may be told after the discount.
            changed(PROFIT, "laborProfit", "retail", to=41388 - 500),
        ],
    )
    def test_are_of_one_order_and_state(self, profit):
        assert record(HEAD, ESTIMATE, profit)
        assert record(HEAD, refunded(ESTIMATE), refunded(profit))

    @pytest.mark.parametrize(
        ("head", "estimate", "profit"),
        [
            ({**HEAD, "repairOrderNumber": 4418}, ESTIMATE, PROFIT),
            # Meanwhile a job was authorized, or declined.
            (HEAD, changed(ESTIMATE, "jobs", 0, "authorized", to=False), PROFIT),
            (HEAD, changed(ESTIMATE, "jobs", 0, "authorized", to=None), PROFIT),
            # Another order's.
            (HEAD, ESTIMATE, changed(PROFIT, "laborProfit", "hours", to=Decimal("2.56"))),
            (HEAD, ESTIMATE, changed(PROFIT, "laborProfit", "retail", to=41388 + 101)),
            (HEAD, ESTIMATE, changed(PROFIT, "laborProfit", "retail", to=41388 - 601)),
            (HEAD, ESTIMATE, changed(PROFIT, "totalProfit", "retail", to=59000)),
        ],
        ids=range(7),
    )
    def test_of_different_ones_are_refused(self, head, estimate, profit):
        with pytest.raises(RefuseData, match="not of one"):
            record(head, estimate, profit)

    def test_name_what_they_tell_and_nothing_else(self):
        """A field that is null and a field that is missing stay different."""
        told, *_ = record({**HEAD, "postedDate": None, "customer": None}, ESTIMATE, PROFIT)
        assert (told["posted_at"], told["tm_customer_id"]) == (None, None)
        assert not {"completed_at", "tm_vehicle_id", "balance_due", "label"} & told.keys()


def test_every_list_is_told_by_a_sum():
    """A row left out or told twice is noticed, of each kind that comes to a dollar."""
    noticed = missed = 0
    for head, estimate, profit in everything(Config(orders=60)):
        for lie in _lies(estimate):
            try:
                record(head, lie, profit)
                missed += 1
            except RefuseData:
                noticed += 1
    assert (noticed > 300, missed) == (True, 0)


def _lies(estimate: dict[str, Any]) -> Iterator[dict[str, Any]]:
    paths = [("jobs",), ("fees", "data")]
    paths += [("jobs", place, kind) for place in range(len(estimate["jobs"])) for kind in answers.ITEMS]
    for path in paths:
        rows_: Any = estimate
        for each in path:
            rows_ = rows_[each]
        for place in range(len(rows_)):
            yield changed(estimate, *path, to=rows_[:place] + rows_[place + 1 :])
