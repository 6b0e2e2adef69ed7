"""What is asked for of orders, and what the answers about one make together."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from include.api.errors import FixConfiguration, RefuseData
from include.api.request import Answer, Request
from include.sources.base import ScanRefused, entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.listing import Listing
from include.sources.tekmetric import SOURCE, lists, tables
from include.sources.tekmetric.lists import REPORT
from include.sources.tekmetric.orders import REPAIR_ORDERS, record
from include.sources.tekmetric.shops import shops_of
from include.warehouse.table import RowRefused

EAST = {"tm_id": 6212, "name": "JJ AUTO", "timezone": "America/New_York"}
TOKYO = {"tm_id": 9001, "name": "Higashi", "timezone": "Asia/Tokyo"}
PARAMS = {"days_back": 3, "board": "ALL", "ro_id": None, "shop_id": None}
HEAD = {
    "id": 880123,
    "repairOrderNumber": 4417,
    "repairOrderStatus": {"id": 5, "code": "POSTED"},
    "repairOrderLabel": {"id": 12, "name": "Waiting"},
    "customer": {"id": 20001, "firstName": "A"},
    "vehicle": {"id": 30001},
    "serviceWriter": {"id": 3001},
    "jobs": None,
    "amountPaid": "41873.0",
    "createdDate": "2026-01-12T14:03:22Z",
    "updatedDate": "2026-01-13T21:10:05Z",
    "postedDate": "2026-01-14T04:10:01Z",
    "completedDate": "2026-01-13T20:55:40Z",
}
JOB = {
    "id": 88012301,
    "name": "Brake job",
    "authorized": True,
    "total": 41873,
    "subTotal": None,
    "discount": "0",
    "tax": 2673,
    "partsPrice": Decimal("25000.0"),
    "laborPrice": 14200,
    "parts": [{"id": 7, "name": "Pads", "quantity": 1, "retail": 25000, "cost": 13000, "total": 25000}],
    "labor": [{"name": "Work", "hours": Decimal("0.86"), "rate": 16500, "technician": None}],
    "sublets": None,
    "fees": [{"name": "Oil disposal", "amount": 395}, {"name": "Oil disposal", "amount": 395}],
}
SECOND = {**JOB, "id": 88012302, "authorized": None, "parts": [{**JOB["parts"][0], "id": 8}]}
ESTIMATE = {
    "id": 880123,
    "total": 81863,
    "subtotal": None,
    "tax": None,
    "taxes": "2673",
    "feesTotal": 790,
    "fees": {"data": [{"name": "Shop supplies", "percentage": 6, "cap": 2500}]},
    "jobs": [JOB, SECOND],
}
PROFIT = {
    "laborProfit": {"hours": "0.86", "retail": 14200, "cost": 2752, "profit": 11448, "margin": Decimal("0.8062")},
    "totalProfit": {"retail": 58000, "cost": 19400, "profit": 38600, "margin": Decimal("0.6655")},
}


class NoRows:
    """A warehouse without orders."""

    def execute(self, query: Any) -> list[tuple]:
        return []


def context(*shops: dict[str, Any], **params: Any) -> MirrorContext:
    """A run that asks nothing yet."""
    return MirrorContext(
        SOURCE, None, NoRows(), "run", params={**PARAMS, **params}, settings={"shops": shops or (EAST,)}
    )


def rows(*answers: Any) -> dict[str, list[dict[str, Any]]]:
    """The rows that the answers make, by table."""
    found = {"repair_orders": []}
    for each in record(*answers):
        whole = REPAIR_ORDERS.lookup.finish(context(), {"shop_id": 6212, **each})
        found["repair_orders"].append(read(tables.REPAIR_ORDERS, whole))
        for part in REPAIR_ORDERS.parts:
            found[part.table.name] = [read(part.table, row) for row in part.rows(whole)]
    return found


def read(table: Any, row: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(table.names, table.row(row), strict=True))


class TestRecord:
    def test_is_what_three_answers_tell(self):
        found = rows(HEAD, ESTIMATE, PROFIT)
        (order,) = found["repair_orders"]
        assert {name: value for name, value in order.items() if value is not None} == {
            "authorized_labor_margin": Decimal("0.8062"),
            "shop_id": 6212,
            "tm_id": 880123,
            "tm_customer_id": 20001,
            "tm_vehicle_id": 30001,
            "tm_service_advisor_id": 3001,
            "ro_number": 4417,
            "status": "POSTED",
            "status_id": 5,
            "created_date": datetime(2026, 1, 12, 14, 3, 22, tzinfo=UTC),
            "updated_date": datetime(2026, 1, 13, 21, 10, 5, tzinfo=UTC),
            "posted_at": datetime(2026, 1, 14, 4, 10, 1, tzinfo=UTC),
            "posted_date": date(2026, 1, 13),
            "completed_at": datetime(2026, 1, 13, 20, 55, 40, tzinfo=UTC),
            "completed_date": date(2026, 1, 13),
            "potential_total": 81863,
            "potential_tax": 2673,
            "potential_job_count": 2,
            "potential_parts_total": 50000,
            "potential_labor_total": 28400,
            "potential_sublet_total": 0,
            "potential_fees_total": 790,
            "authorized_total": 41873,
            "authorized_subtotal": 39200,
            "authorized_tax": 2673,
            "authorized_discount": 0,
            "authorized_job_count": 1,
            "authorized_parts_total": 25000,
            "authorized_labor_total": 14200,
            "authorized_sublet_total": 0,
            "authorized_fees_total": 0,
            "authorized_revenue": 58000,
            "authorized_cost": 19400,
            "authorized_profit": 38600,
            "authorized_gp_percent": Decimal("66.55"),
            "authorized_labor_revenue": 14200,
            "authorized_labor_cost": 2752,
            "authorized_labor_profit": 11448,
            "authorized_labor_hours": Decimal("0.86"),
            "fees_total": 790,
            "amount_paid": 41873,
            "label": "Waiting",
            "label_id": 12,
        }
        lines = {name: [(row["tm_job_id"], row["line"]) for row in found[name]] for name in ("job_parts", "job_fees")}
        first, second = (JOB["id"], 88012302)
        assert lines == {
            "job_parts": [(first, "7"), (second, "8")],
            "job_fees": [
                *((job_id, f"Oil disposal#{n}") for job_id in (first, second) for n in (1, 2)),
                (0, "Shop supplies#1"),
            ],
        }
        assert [row["authorized"] for row in found["jobs"]] == [True, False]

    @pytest.mark.parametrize(
        "head", [{"repairOrderStatus": {"id": 7}}, {"repairOrderStatus": {"id": "7"}}, {"deletedDate": "2026-01-01"}]
    )
    def test_of_a_deleted_order_is_none(self, head):
        assert record({**HEAD, **head}, None, None) == []

    @pytest.mark.parametrize(
        ("id_", "status"),
        [
            (1, "ESTIMATE"),
            (2, "WORKINPROGRESS"),
            (3, "COMPLETE"),
            (4, "SAVED"),
            (5, "POSTED"),
            ("5", "POSTED"),
            (6, "ACCRECV"),
            (8, "UNKNOWN"),
        ],
    )
    def test_status_goes_by_its_id(self, id_, status):
        head = {**HEAD, "repairOrderStatus": {"id": id_, "code": "WHATEVER"}}
        assert rows(head, ESTIMATE, PROFIT)["repair_orders"][0]["status"] == status

    @pytest.mark.parametrize(
        ("tax", "taxes", "expected"),
        [(None, 2673, 2673), (2673, 5, 2673), ("2673.0", None, 2673), (None, None, None)],
    )
    def test_tax_is_under_either_name(self, tax, taxes, expected):
        (order,) = rows(HEAD, {**ESTIMATE, "tax": tax, "taxes": taxes}, PROFIT)["repair_orders"]
        assert order["potential_tax"] == expected

    @pytest.mark.parametrize("total", [None, 0, "0.0", Decimal("0.0")])
    def test_without_jobs_that_come_to_something_has_none(self, total):
        nothing = {"retail": 0, "cost": 0, "profit": 0, "margin": "NaN"}
        profit = {"totalProfit": nothing, "laborProfit": {**nothing, "hours": 0}}
        empty = {**ESTIMATE, "jobs": None, "total": total, "taxes": None, "feesTotal": None}
        found = rows(HEAD, empty, profit)
        assert (found["jobs"], found["repair_orders"][0]["potential_job_count"]) == ([], 0)

    @pytest.mark.parametrize(
        "profit",
        [
            None,
            {},
            {"laborProfit": None, "totalProfit": None},
            {"labor": [], "totalProfit": {"retail": None, "margin": "NaN"}},
        ],
    )
    def test_without_authorized_jobs_earns_nothing_whatever_stands_for_it(self, profit):
        asked_for = {**ESTIMATE, "jobs": [{**job, "authorized": None} for job in (JOB, SECOND)]}
        (order,) = rows(HEAD, asked_for, profit)["repair_orders"]
        earned = "authorized_revenue", "authorized_profit", "authorized_labor_revenue", "authorized_labor_hours"
        assert [order[name] for name in earned] == [0, 0, 0, 0]
        with pytest.raises(RefuseData, match="jobs are authorized, but their profit was not found"):
            record(HEAD, ESTIMATE, profit)

    @pytest.mark.parametrize(
        ("head", "estimate", "profit"),
        [
            (None, ESTIMATE, PROFIT),
            ([], ESTIMATE, PROFIT),
            ({}, ESTIMATE, PROFIT),
            ({**HEAD, "id": None}, ESTIMATE, PROFIT),
            ({**HEAD, "repairOrderStatus": "POSTED"}, ESTIMATE, PROFIT),
            ({**HEAD, "repairOrderStatus": {"id": "seven"}}, ESTIMATE, PROFIT),
            ({**HEAD, "customer": 20001}, ESTIMATE, PROFIT),
            (HEAD, None, PROFIT),
            (HEAD, ESTIMATE, None),
            (HEAD, [ESTIMATE], PROFIT),
            (HEAD, ESTIMATE, "none"),
            (HEAD, {**ESTIMATE, "jobs": None}, PROFIT),
            (HEAD, {**ESTIMATE, "jobs": JOB}, PROFIT),
            (HEAD, {**ESTIMATE, "jobs": [None]}, PROFIT),
            (HEAD, {**ESTIMATE, "jobs": [{**JOB, "parts": None}]}, PROFIT),
            (HEAD, {**ESTIMATE, "jobs": [{**JOB, "labor": {}}]}, PROFIT),
            (HEAD, {**ESTIMATE, "jobs": [{**JOB, "authorized": "perhaps"}]}, PROFIT),
            (HEAD, {**ESTIMATE, "jobs": [{**JOB, "total": "much"}]}, PROFIT),
            (HEAD, {**ESTIMATE, "fees": []}, PROFIT),
            (HEAD, {**ESTIMATE, "fees": {"data": 1}}, PROFIT),
            (HEAD, ESTIMATE, {**PROFIT, "totalProfit": []}),
        ],
    )
    def test_of_another_shape_is_refused_in_one_line(self, head, estimate, profit):
        with pytest.raises(RefuseData) as refused:
            record(head, estimate, profit)
        assert "\n" not in str(refused.value)

    def test_line_names_an_item_by_its_id_or_its_turn(self):
        items = [{"name": "Oil"}, {"id": 9, "name": "Oil"}, {"name": None}, {"name": "Oil"}, {"id": None}]
        (order,) = record(HEAD, {**ESTIMATE, "jobs": [{**JOB, "parts": items}, SECOND]}, PROFIT)
        assert [row["line"] for row in order["jobs"][0]["parts"]] == ["Oil#1", "9", "#1", "Oil#2", "#2"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(max_size=5) | st.just("NaN"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def spoilt(answer: dict[str, Any]) -> st.SearchStrategy:
    """The answer with some of its fields, at any depth, replaced by anything."""
    paths = list(_paths(answer))
    return st.lists(st.tuples(st.sampled_from(paths), ANYTHING), max_size=3).map(
        lambda changes: _replaced(answer, changes)
    )


def _paths(value: Any, path: tuple = ()) -> Any:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _paths(each, (*path, key))


def _replaced(answer: Any, changes: list[tuple[tuple, Any]]) -> Any:
    copy = json.loads(json.dumps(answer, default=str))
    for path, value in changes:
        copy = _put(copy, path, value)
    return copy


def _put(where: Any, path: tuple, value: Any) -> Any:
    if not path:
        return value
    key, *rest = path
    if isinstance(where, dict) or (isinstance(where, list) and isinstance(key, int) and key < len(where)):
        inner = where.get(key) if isinstance(where, dict) else where[key]
        where[key] = _put(inner, tuple(rest), value)
    return where


@given(spoilt(HEAD), spoilt(ESTIMATE), spoilt(PROFIT))
@example({**HEAD, "postedDate": "0001-01-01T00:00:00Z"}, ESTIMATE, PROFIT)
def test_whatever_is_answered_makes_rows_or_is_refused(head, estimate, profit):
    """One strange order must not keep the others from being read."""
    with suppress(RefuseData, RowRefused):
        rows(head, estimate, profit)


class TestLookedUp:
    @pytest.mark.parametrize(
        ("data", "why"),
        [
            *((data, "no JSON object") for data in (None, [], "gone", 5)),
            ({"message": "temporarily unavailable"}, "it has none of"),
            ({"id": 7, "message": "temporarily unavailable"}, "it has none of"),
            ({"id": 7, "firstName": "A", "make": "Ford", "shopId": 9001}, "of another shop"),
        ],
    )
    @pytest.mark.parametrize("name", ["employees", "customers", "vehicles"])
    def test_what_is_no_record_of_the_shop_is_refused(self, name, data, why):
        request = entity_of(SOURCE, name).lookup.request(6212, 7)
        with pytest.raises(RefuseData, match=why):
            request.check(data)
        request.check({"id": 7, "firstName": None, "make": None})

    def test_list_of_employees_is_whole_and_of_all(self):
        (listing,) = entity_of(SOURCE, "employees").lists(context(), "6212", None)
        assert listing.request.params == {"status": "ALL", "size": 500}
        listing.request.check([{"id": 1}] * 499)
        for data in ([{"id": 1}] * 500, {"content": []}, [{"id": 1, "shopId": 9001}]):
            with pytest.raises(RefuseData):
                listing.request.check(data)

    @pytest.mark.parametrize("name", ["customers", "vehicles"])
    def test_list_of_another_shop_is_refused(self, name):
        entity = entity_of(SOURCE, name)
        request = entity.partitions.request(entity.listing, ["6212"])
        request.check({"content": [{"id": 1}, {"id": 2, "shopId": "6212"}]})
        with pytest.raises(RefuseData, match="of another shop"):
            request.check({"content": [{"id": 1}, {"id": 2, "shopId": 9001}]})


def today(zone: Any) -> date:
    return datetime.now(zone).date()


class TestLists:
    def names(self, listings: list[Listing]) -> list[str]:
        def name(request: Request | None) -> str:
            if request is None:
                return "named"
            return request.params.get("board", "report") + (" column" if request.params.get("view") == "column" else "")

        return [name(each.request) for each in listings]

    def test_first_ones_are_the_boards_the_report_and_what_is_not_posted(self):
        listings = lists.lists(context(), "6212", None)
        assert self.names(listings) == ["ACTIVE", "POSTED", "COMPLETE", "ACTIVE column", "report", "named"]
        assert {each.partition for each in listings} == {"6212"}
        assert [each.adds for each in listings] == [{"shop_id": 6212}] * 5 + [{}]
        assert not any(each.newest for each in listings)

    def test_later_ones_are_the_boards_as_long_as_they_reach_back_to_the_watermark(self):
        recent, long_ago = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) - timedelta(days=9)
        boards = ["ACTIVE", "POSTED", "COMPLETE", "ACTIVE column"]
        listings = lists.lists(context(), "6212", recent)
        assert self.names(listings) == boards
        assert [each.newest and each.newest.since for each in listings] == [recent] * 3 + [None]
        assert self.names(lists.lists(context(), "6212", long_ago)) == [*boards, "report"]

    @pytest.mark.parametrize(
        ("board", "names"), [("ACTIVE", ["ACTIVE", "ACTIVE column"]), ("POSTED", ["POSTED", "report"])]
    )
    def test_of_one_board_are_no_others(self, board, names):
        assert self.names(lists.lists(context(board=board), "6212", None)) == names

    def test_of_one_order_name_it(self):
        (listing,) = lists.lists(context(ro_id=880123), "6212", None)
        assert (listing.request, listing.named) == (None, [{"shop_id": 6212, "tm_id": 880123}])

    @pytest.mark.parametrize("shop", [EAST, TOKYO], ids=lambda shop: shop["timezone"])
    def test_report_is_of_the_shop_s_days_by_the_offset_of_each(self, shop):
        run = context(shop)
        zone = shops_of(run)[shop["tm_id"]].zone
        # Half a year back the clocks showed something else, where they ever do.
        since = datetime.now(UTC) - timedelta(days=182)
        params = lists.lists(run, str(shop["tm_id"]), since)[-1].request.params
        start, end = (datetime.fromisoformat(params[name]) for name in ("start", "end"))
        assert start.astimezone(zone).isoformat() == f"{since.astimezone(zone):%Y-%m-%d}T00:00:00{offset(start, zone)}"
        assert end.astimezone(zone).date() == today(zone) + timedelta(days=1)
        assert (params["shopIds"], params["timezone"]) == (shop["tm_id"], shop["timezone"])

    def test_leave_out_what_is_older_than_they_look_back(self):
        run = context(days_back=3)
        zone = shops_of(run)[6212].zone
        first = today(zone) - timedelta(days=3)
        first_moment = datetime.combine(first, datetime.min.time(), zone).astimezone(UTC)
        inside, outside = (f"{first_moment + timedelta(seconds=each):%Y-%m-%dT%H:%M:%SZ}" for each in (0, -1))
        active, posted, *_ = lists.lists(run, "6212", None)
        assert active.shape({"id": 1, "updatedDate": inside})
        assert active.shape({"id": 1, "updatedDate": outside}) is None
        # What was posted long ago and changed since, or the other way round.
        assert posted.shape({"id": 1, "updatedDate": inside, "postedDate": outside})
        assert posted.shape({"id": 1, "updatedDate": outside, "postedDate": inside})
        assert posted.shape({"id": 1, "updatedDate": outside, "postedDate": outside}) is None

    @pytest.mark.parametrize("dates", [{}, {"updatedDate": None}, {"updatedDate": "?", "postedDate": 5}])
    def test_keep_what_has_no_date_to_tell(self, dates):
        listing = lists.lists(context(), "6212", None)[1]
        assert listing.shape({"id": 1, **dates})["tm_id"] == 1


class TestNextKeys:
    ROWS: Mapping[str, Any] = {"content": [{"repairOrderId": 1}], "hasNext": True}

    @pytest.mark.parametrize(
        ("keys", "sent"),
        [
            ("b3BhcXVl==", "b3BhcXVl=="),
            (["2026-01-13T21:10:01Z", 880123], ["2026-01-13T21:10:01Z", "880123"]),
            ([Decimal("1768338601.250"), "a"], ["1768338601.250", "a"]),
            (880123, "880123"),
            ({"date": "2026-01-13", "id": 880123}, '{"date":"2026-01-13","id":880123}'),
            ([["2026-01-13", None], True], '[["2026-01-13",null],true]'),
        ],
        ids=str,
    )
    def test_go_back_as_they_came(self, keys, sent):
        page = REPORT.read(Answer({**self.ROWS, "nextKeys": keys}), None)
        kept = json.loads(json.dumps(page.next))
        assert REPORT.request(Request("/report", {"size": 100}), kept).params == {"size": 100, "nextKeys": sent}

    def test_of_the_last_page_don_t_count(self):
        for keys in (None, [], "", "b3BhcXVl", ["2026-01-13T21:10:01Z", 1]):
            assert REPORT.read(Answer({**self.ROWS, "hasNext": False, "nextKeys": keys}), None).next is None
        assert REPORT.read(Answer({"content": []}), None).next is None

    @pytest.mark.parametrize("keys", [None, "", []])
    def test_that_are_missing_although_more_follows_are_refused(self, keys):
        with pytest.raises(RefuseData, match="says that more follows, but has no nextKeys"):
            REPORT.read(Answer({**self.ROWS, "nextKeys": keys}), None)

    @pytest.mark.parametrize("data", [None, [], {}, {"content": None}, {"message": "temporarily unavailable"}])
    def test_without_rows_are_none(self, data):
        with pytest.raises(RefuseData):
            REPORT.read(Answer(data), None)


def offset(moment: datetime, zone: Any) -> str:
    seconds = int(moment.astimezone(zone).utcoffset().total_seconds())
    return f"{'-' if seconds < 0 else '+'}{abs(seconds) // 3600:02}:{abs(seconds) % 3600 // 60:02}"


class TestShops:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"shops": None},
            {"shops": []},
            {"shops": "6212"},
            {"shops": [{"tm_id": 6212, "name": "JJ AUTO"}]},
            {"shops": [{**EAST, "tm_id": 0}]},
            {"shops": [{**EAST, "tm_id": "6212"}]},
            {"shops": [{**EAST, "timezone": "America/Springfield"}]},
            {"shops": [{**EAST, "timezone": "America"}]},
            {"shops": [{**EAST, "timezone": ""}]},
            {"shops": [{**EAST, "timezone": "../etc/passwd"}]},
            {"shops": [EAST, {**EAST, "tm_id": 7301, "timezone": None}]},
        ],
        ids=str,
    )
    def test_that_are_not_usable_are_told_in_one_line(self, settings):
        with pytest.raises(FixConfiguration, match="connection 'tekmetric' names no usable shops") as refused:
            shops_of(MirrorContext(SOURCE, None, None, "run", settings=settings))
        assert "\n" not in str(refused.value)
        assert 'has to be like {"shops": [{"tm_id"' in str(refused.value)

    def test_that_are_not_the_connection_s_are_told_in_one_line(self):
        with pytest.raises(ScanRefused, match=r"^shop 5 is not among those of the connection \(6212, 9001\)$"):
            shops_of(context(EAST, TOKYO, shop_id=5))

    def test_that_a_run_asks_for_are_the_only_ones(self):
        assert list(shops_of(context(EAST, TOKYO, shop_id=9001))) == [9001]
