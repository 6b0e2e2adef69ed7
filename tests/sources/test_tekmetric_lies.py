"""Answers that are no answers: whatever is told of an order, nothing of it is lost, and nobody takes it for proof."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from include.api.paginators import Single
from include.simulators.tekmetric import Fault, Mutation
from include.sources.base import Api, SyncFailed, entity_of
from include.sources.mirror import incomplete_lists, short_lists
from include.sources.mirror.listing import Listing, NewestOnly
from include.sources.mirror.lookup_results import LISTED_ONLY
from include.sources.tekmetric import SOURCE

from .tekmetric import (
    EAST,
    ITEMS,
    WEST,
    Shops,
    contents,
    instant,
    job,
    of_order,
    order,
    rows,
    settle,
    trading,
    with_job,
)
from .twisted import Twisted, always, once

MESSAGES = (
    {"message": "temporarily unavailable"},
    {"type": "ERROR", "message": "temporarily unavailable", "data": None, "details": None},
    {"error": "temporarily unavailable"},
    {},
    [],
    None,
)
Path = Callable[[int], str]


def head(id_: int) -> str:
    return f"shop/{EAST}/repair-order/{id_}"


def estimate(id_: int) -> str:
    return f"repair-order/{id_}/estimate"


def profit(id_: int) -> str:
    return f"repair-order/{id_}/profit/labor"


def message(path: Path, content: Any) -> Callable[[int, int], Fault]:
    return lambda id_, other: Fault("answer", path=path(id_), content=content, times=None)


def swap(path: Path) -> Callable[[int, int], Fault]:
    return lambda id_, other: Fault("swap", path=path(id_), other=path(other), times=None)


def edit(path: Path, name: str, how: str) -> Callable[[int, int], Fault]:
    return lambda id_, other: Fault("edit", path=path(id_), name=name, edit=how, times=None)


# What is told of an order in place of the truth.
LIES: dict[str, Callable[[int, int], Fault]] = {
    **{
        f"{path.__name__} is {content}": message(path, content)
        for path in (head, estimate, profit)
        for content in MESSAGES
    },
    **{f"{path.__name__} of another order": swap(path) for path in (head, estimate, profit)},
    **{
        f"{name} empty": edit(estimate, name, "empty") for name in ("jobs", "parts", "labor", "sublets", "fees", "data")
    },
    **{
        f"{name} short": edit(estimate, name, "short") for name in ("jobs", "parts", "labor", "sublets", "fees", "data")
    },
    **{
        f"{name} missing": edit(estimate, name, "missing")
        for name in ("id", "jobs", "parts", "labor", "sublets", "fees", "total")
    },
    **{f"{name} null": edit(estimate, name, "null") for name in ("jobs", "parts", "labor", "sublets", "fees", "total")},
    **{f"{name} twice": edit(estimate, name, "twice") for name in ("jobs", "parts", "labor", "sublets")},
    **{
        f"head without {name}": edit(head, name, "missing")
        for name in ("id", "repairOrderStatus", "repairOrderNumber", "createdDate", "updatedDate")
    },
    **{f"head with {name} null": edit(head, name, "null") for name in ("repairOrderStatus", "updatedDate")},
    **{
        f"profit without {name}": edit(profit, name, "missing")
        for name in ("laborProfit", "totalProfit", "retail", "cost", "hours")
    },
}


def two_jobs(shops: Shops, **fields: Any) -> int:
    """An order with two jobs, each with some of everything, and fees of its own.

    No part is so cheap that its absence would pass for a difference in rounding.
    """
    fees = [{"name": "Shop supplies", "percentage": "6", "cap": 2500}, {"name": "Environmental fee", "amount": 350}]
    return with_job(shops, jobs=[dear(job()), dear(job(authorized=None))], fees=fees, **fields)


def dear(job: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**job, "parts": [part if part.get("id") else {**part, "retail": 1_110} for part in job["parts"]]}


def whole(conn, order_id: int) -> tuple:
    return (order(conn, order_id), *(of_order(conn, table, order_id) for table in ("jobs", *ITEMS)))


@pytest.fixture
def lied(loaded: Shops) -> Mapping[str, int]:
    """An order for each lie, in step; nothing of them is in the lookback."""
    loaded.control.set(board_limit=500)
    orders = {lie: two_jobs(loaded) for lie in LIES}
    loaded.sync()
    settle(loaded)
    return orders


def lie_about(shops: Shops, orders: Mapping[str, int]) -> int:
    """Tell each order's lie from now on, once the orders have changed, and return another one that changed."""
    control, other = shops.control, shops.control.ids(shop=EAST)[0]
    control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in (*orders.values(), other)))
    control.advance(600)
    control.fault(*(LIES[lie](id_, other) for lie, id_ in orders.items()))
    return other


class TestSync:
    def test_writes_nothing_of_a_lie_and_names_the_orders(self, loaded, conn, lied):
        """They are read once the truth is told; all others are in step all the time."""
        control, before = loaded.control, {id_: whole(conn, id_) for id_ in lied.values()}
        other = lie_about(loaded, lied)
        changed = instant(control.order(other)["updated"])
        with pytest.raises(
            SyncFailed, match=f"{len(lied)} of its records are not proven and were not written"
        ) as failed:
            loaded.sync()
        assert "\n" not in str(failed.value)
        assert "temporarily" not in str(failed.value)
        assert {lie: whole(conn, id_) == before[id_] for lie, id_ in lied.items()} == dict.fromkeys(lied, True)
        assert order(conn, other)["amount_paid"] == 4711
        assert loaded.watermark(EAST) == changed
        assert loaded.watermark(WEST) == instant(control.now())
        control.clear()
        loaded.sync()
        for id_ in lied.values():
            assert order(conn, id_)["amount_paid"] == 4711
            assert whole(conn, id_)[1:] == before[id_][1:]
        assert loaded.watermark(EAST) == instant(control.now())

    def test_that_is_lied_to_once_asks_again(self, loaded, conn, lied):
        control, before = loaded.control, {id_: whole(conn, id_) for id_ in lied.values()}
        once = {lie: (lambda id_, other, lie=lie: replace(LIES[lie](id_, other), times=1)) for lie in lied}
        control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in lied.values()))
        control.fault(*(once[lie](id_, control.ids(shop=EAST)[0]) for lie, id_ in lied.items()))
        try:
            loaded.sync()
        except SyncFailed:
            # What only several answers together show is not asked for once more in the same run.
            loaded.sync()
        for id_ in lied.values():
            assert order(conn, id_)["amount_paid"] == 4711
            assert whole(conn, id_)[1:] == before[id_][1:]

    def test_answer_that_is_poorer_than_the_copy_does_not_empty_it(self, loaded, conn):
        """Whatever is left out of an estimate or a profit without a contradiction."""
        control = loaded.control
        poorer = {
            name: two_jobs(loaded) for name in ("partsCost", "cost", "quantity", "technician", "balanceDue", "name")
        }
        loaded.sync()
        settle(loaded)
        before = {id_: whole(conn, id_) for id_ in poorer.values()}
        control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in poorer.values()))
        for name, id_ in poorer.items():
            control.fault(Fault("edit", path=estimate(id_), name=name, edit="missing"))
        try:
            loaded.sync()
        except SyncFailed:
            # What has no id is known by its name.
            loaded.sync()
        for id_ in poorer.values():
            assert order(conn, id_)["amount_paid"] == 4711
            assert whole(conn, id_)[1:] == before[id_][1:]

    def test_order_that_the_copy_lost_makes_its_rows_no_poorer(self, loaded, conn):
        """They are still there, so the two looks at the order have to agree about them."""
        control, id_ = loaded.control, two_jobs(loaded)
        loaded.sync()
        settle(loaded)
        before = of_order(conn, "job_sublets", id_)
        with conn.transaction():
            conn.execute("SET LOCAL session_replication_role = replica")
            conn.execute("DELETE FROM tekmetric.repair_orders WHERE tm_id = %s", [id_])
        control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
        control.fault(
            Fault("edit", path=estimate(id_), name="name", edit="missing"),
            Fault("edit", path=estimate(id_), name="cost", edit="missing", times=None),
        )
        with suppress(SyncFailed):
            loaded.sync()
        assert of_order(conn, "job_sublets", id_) == before
        control.clear()
        control.advance(600)
        loaded.sync()
        assert order(conn, id_)["amount_paid"] == 4711

    def test_first_sync_stores_no_lie(self, conn):
        lone = {"orders": 4, "customers": 1, "employees": 1}
        with trading(conn, **lone, board_limit=500) as shops:
            orders = {lie: two_jobs(shops) for lie in LIES}
            others = set(shops.control.ids()) - set(orders.values())
            lie_about(shops, orders)
            with pytest.raises(SyncFailed, match=f"{len(orders)} of its records"):
                shops.sync("backfill")
            assert {id_ for _, id_ in rows(conn, "repair_orders")} == others
            shops.control.clear()
            shops.sync()
            assert {id_ for _, id_ in rows(conn, "repair_orders")} == set(shops.control.ids())


@pytest.mark.parametrize("silent", [False, True])
def test_job_is_not_gone_while_the_order_that_it_moved_to_cannot_be_read(loaded, conn, silent):
    left, joined = two_jobs(loaded), two_jobs(loaded)
    loaded.sync()
    settle(loaded)
    stays, moves = loaded.control.order(left)["jobs"]
    both = {left: [stays], joined: [*loaded.control.order(joined)["jobs"], moves]}
    loaded.control.mutate(
        *(Mutation("update", "orders", id_, {"jobs": jobs}, silent=silent) for id_, jobs in both.items())
    )
    loaded.control.fault(edit(estimate, "jobs", "missing")(joined, 0))
    if silent:
        loaded.mend(loaded.scan())
    else:
        with pytest.raises(SyncFailed):
            loaded.sync()
    assert moves["id"] in {row["tm_id"] for row in of_order(conn, "jobs", left)}
    loaded.control.clear()
    if silent:
        loaded.mend(loaded.scan())
    else:
        loaded.sync()
    jobs = {id_: {row["tm_id"] for row in of_order(conn, "jobs", id_)} for id_ in both}
    assert jobs == {id_: {job["id"] for job in jobs} for id_, jobs in both.items()}


def test_job_is_gone_though_an_order_that_has_not_changed_since_cannot_be_read(loaded, conn):
    """It can't have moved there."""
    broken, left = two_jobs(loaded), two_jobs(loaded)
    loaded.sync()
    stays, _ = loaded.control.order(left)["jobs"]
    loaded.control.fault(edit(estimate, "jobs", "missing")(broken, 0))
    for id_, change in ((broken, {"paid": 1}), (left, {"paid": 2}), (left, {"jobs": [stays]})):
        loaded.control.advance(60)
        loaded.control.mutate(Mutation("update", "orders", id_, change))
        with pytest.raises(SyncFailed, match=f"not written: {EAST}/{broken} "):
            loaded.sync()
    assert {row["tm_id"] for row in of_order(conn, "jobs", left)} == {stays["id"]}


class TestScan:
    def test_misses_no_decision_that_was_never_told(self, loaded, conn):
        """An order whose only job says nothing of `declined`: the copy has false there, as nothing else would be."""
        id_ = with_job(loaded, jobs=[dear(job())])
        loaded.control.fault(Fault("edit", path=estimate(id_), name="declined", edit="missing", times=None))
        loaded.sync()
        settle(loaded)
        loaded.control.mutate(Mutation("update", "orders", id_, {"paid": 4711}, silent=True))
        loaded.mend(loaded.scan())
        assert order(conn, id_)["amount_paid"] == 4711

    def test_believes_no_lie_and_repairs_nothing_by_it(self, loaded, conn, lied):
        control, before = loaded.control, contents(conn)
        other = control.ids(shop=EAST)[0]
        control.mutate(Mutation("update", "orders", other, {"paid": 4711}, silent=True))
        control.fault(*(LIES[lie](id_, other) for lie, id_ in lied.items()))
        summary = loaded.scan()
        assert summary.incomplete
        assert vars(summary.plan) == {"insert": 0, "update": 1, "delete": 0}
        found = conn.execute("SELECT key ->> 1 FROM confidence.unproven WHERE entity = 'repair_orders'").fetchall()
        assert {int(id_) for (id_,) in found} == set(lied.values())
        assert contents(conn) == before
        control.clear()
        summary = loaded.scan()
        assert summary.incomplete == ""
        loaded.mend(summary)
        assert conn.execute("SELECT count(*) FROM confidence.unproven").fetchone() == (0,)
        assert order(conn, other)["amount_paid"] == 4711

    def test_answer_that_is_poorer_once_is_no_drift(self, loaded, conn):
        control = loaded.control
        for name, id_ in zip(("partsCost", "cost", "balanceDue"), control.ids(shop=EAST), strict=False):
            control.fault(Fault("edit", path=estimate(id_), name=name, edit="missing"))
        summary = loaded.scan()
        assert vars(summary.plan) == {"insert": 0, "update": 0, "delete": 0}
        assert summary.metrics["unproven"] == 0


class TestTornRead:
    def test_order_that_changes_between_its_answers_is_read_again(self, loaded, conn):
        control = loaded.control
        settle(loaded)
        first, second, third = (with_job(loaded) for _ in range(3))
        for id_, path in ((first, estimate), (second, profit)):
            (job_id,) = [each["id"] for each in control.order(id_)["jobs"]]
            control.before(path(id_), 1, Mutation("update", "jobs", job_id, {"discount": 700}))
        # Its head is asked for once more, and the order changes in between.
        control.fault(Fault("status", path=head(third), status=503))
        (job_id,) = [each["id"] for each in control.order(third)["jobs"]]
        control.before(head(third), 2, Mutation("update", "jobs", job_id, {"discount": 700}))
        loaded.sync()
        control.advance(60)
        loaded.sync()
        for id_ in (first, second, third):
            assert order(conn, id_)["updated_date"] == instant(control.order(id_)["updated"])
            assert [row["discount"] for row in of_order(conn, "jobs", id_)] == [700]
            assert order(conn, id_)["authorized_revenue"] == control.profit(id_).retail

    def test_estimate_that_lags_behind_its_head_is_read_again(self, loaded, conn):
        control = loaded.control
        id_ = with_job(loaded)
        loaded.sync()
        (job_id,) = [row["tm_id"] for row in of_order(conn, "jobs", id_)]
        with SOURCE.open(conn, loaded.run, loaded) as context:
            old = [context.client.get(path(id_)).data for path in (estimate, profit)]
        control.mutate(Mutation("update", "jobs", job_id, {"discount": 700}))
        control.fault(*(Fault("answer", path=p(id_), content=a) for p, a in zip((estimate, profit), old, strict=True)))
        loaded.sync()
        control.advance(600)
        loaded.sync()
        assert [row["discount"] for row in of_order(conn, "jobs", id_)] == [700]


class TestBoards:
    @pytest.mark.parametrize("column_limit", [None, 5])
    def test_that_do_not_reach_back_to_the_last_sync_lose_nothing(self, conn, column_limit):
        """The sync says so once, and looks behind them."""
        with trading(conn, orders=60, customers=6, board_limit=200) as shops:
            control = shops.control
            shops.sync("backfill")
            settle(shops)
            control.set(board_limit=5, column_limit=column_limit)
            changed = control.ids()[::-1][:40]
            control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in changed))
            control.advance(600)
            before = shops.watermark(EAST)
            with pytest.raises(SyncFailed, match=f"perhaps others of {EAST} .*shows no record that changed before"):
                shops.sync()
            assert {id_ for id_ in changed if order(conn, id_)["amount_paid"] != 4711} == set()
            assert shops.watermark(EAST) == before
            control.advance(600)
            shops.sync()
            assert shops.watermark(EAST) == instant(control.now())

    def test_that_show_little_because_there_is_little_are_no_failure(self, conn):
        with trading(conn, orders=2, customers=1, employees=1) as shops:
            shops.sync("backfill")
            settle(shops)
            for number in range(3):
                shops.control.mutate(
                    *(Mutation("update", "orders", id_, {"paid": number}) for id_ in shops.control.ids())
                )
                shops.control.advance(600)
                shops.sync()
                assert shops.watermark(EAST) == instant(shops.control.now())

    def test_that_show_what_its_own_address_does_not_prove_no_absence(self, loaded, conn):
        """One of the two is wrong, and the copy, which has a tombstone, may be wrong as well."""
        id_ = loaded.control.ids("employees", EAST)[0]
        conn.execute("UPDATE tekmetric.employees SET deleted_at = now() WHERE (shop_id, tm_id) = (%s, %s)", [EAST, id_])
        loaded.control.fault(Fault("status", path=f"shop/{EAST}/employee/{id_}", status=404, times=None))
        summary = loaded.scan("employees")
        assert vars(summary.plan) == {"insert": 0, "update": 0, "delete": 0}
        assert (summary.metrics["unproven"], summary.rows - summary.proven) == (1, 1)
        loaded.control.clear()
        again = loaded.scan("employees")
        assert (vars(again.plan)["insert"], again.metrics["unproven"]) == (1, 0)

    def test_that_show_who_is_unreadable_first_and_not_found_then_prove_no_absence(self, loaded, conn):
        """The list shows the person all the time, in brief."""
        id_ = loaded.control.ids("employees", EAST)[0]
        path = f"shop/{EAST}/employee/{id_}"
        # It is asked for twice with its list, and once more by itself.
        loaded.control.fault(Fault("answer", path=path, content={"id": 1}, times=2))
        loaded.control.fault(Fault("status", path=path, status=404, times=None))
        summary = loaded.scan("employees")
        assert vars(summary.plan) == {"insert": 0, "update": 0, "delete": 0}
        assert conn.execute("SELECT key ->> 1, why FROM confidence.unproven").fetchall() == [(str(id_), LISTED_ONLY)]

    @pytest.mark.parametrize("lagging", [1, None])
    def test_that_show_a_newer_version_than_its_own_address_are_believed(self, loaded, conn, lagging):
        """The address is behind, once or for good; the report, which shows no versions, lists the order as well."""
        control, id_ = loaded.control, two_jobs(loaded, status=5)
        loaded.sync()
        settle(loaded)
        with SOURCE.open(conn, loaded.run, loaded) as context:
            old = context.client.get(head(id_)).data
        control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
        control.advance(600)
        loaded.sync()
        control.fault(Fault("answer", path=head(id_), content=old, times=lagging))
        summary = loaded.scan()
        assert vars(summary.plan) == {"insert": 0, "update": 0, "delete": 0}
        assert order(conn, id_)["amount_paid"] == 4711
        assert bool(summary.metrics["unproven"]) == (lagging is None)

    def test_that_show_a_newer_version_than_its_own_address_leave_the_order_to_the_next_sync(self, loaded, conn):
        control, id_ = loaded.control, two_jobs(loaded)
        loaded.sync()
        settle(loaded)
        before = loaded.watermark(EAST)
        with SOURCE.open(conn, loaded.run, loaded) as context:
            old = context.client.get(head(id_)).data
        control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
        control.advance(600)
        control.fault(Fault("answer", path=head(id_), content=old, times=None))
        with pytest.raises(SyncFailed, match="shows an older version than the list"):
            loaded.sync()
        assert before <= loaded.watermark(EAST) <= instant(control.order(id_)["updated"])
        control.clear()
        loaded.sync()
        assert order(conn, id_)["amount_paid"] == 4711

    @pytest.mark.parametrize("lagging", [1, None])
    def test_that_show_a_newer_version_than_what_another_list_brought_are_believed(
        self, loaded, conn, lagging, monkeypatch
    ):
        """The order's own address is behind, once or for good, with a list that shows no versions. The boards do."""
        control, id_ = loaded.control, two_jobs(loaded, status=5)
        loaded.sync()
        settle(loaded)
        with SOURCE.open(conn, loaded.run, loaded) as context:
            old = context.client.get(head(id_)).data
        control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
        control.advance(600)
        loaded.sync()
        control.fault(Fault("answer", path=head(id_), content=old, times=lagging))
        entity = entity_of(SOURCE, "repair_orders")
        in_order = entity.lists
        monkeypatch.setitem(vars(entity), "lists", lambda *how: [*reversed(in_order(*how))])
        summary = loaded.scan()
        assert vars(summary.plan) == {"insert": 0, "update": 0, "delete": 0}
        assert order(conn, id_)["amount_paid"] == 4711
        assert bool(summary.metrics["unproven"]) == (lagging is None)

    def test_that_show_only_what_is_young_are_no_failure(self, loaded):
        """A shop that was closed for a while: older orders have left the boards, and have not changed."""
        control = loaded.control
        settle(loaded)
        control.set(board_limit=1, column_limit=1)
        for kind in (1, 3, 5):
            with_job(loaded, status=kind)
        control.advance(600)
        loaded.sync()
        assert loaded.watermark(EAST) == instant(control.now())

    def test_that_are_empty_all_at_once_show_what_has_changed_in_spite_of_that(self, loaded, conn):
        control = loaded.control
        settle(loaded)
        id_ = next(each for each in control.ids(shop=EAST) if control.order(each)["status"] == 2)
        control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
        control.fault(Fault("edit", path=f"shop/{EAST}/job-board-group-by", edit="empty", times=None))
        with pytest.raises(SyncFailed, match="shows no record that changed before"):
            loaded.sync()
        assert order(conn, id_)["amount_paid"] == 4711

    def test_in_columns_shows_what_the_list_has_no_room_for(self, loaded, conn):
        """An order that nobody knows yet is not lost behind others."""
        control = loaded.control
        settle(loaded)
        new = with_job(loaded)
        control.set(board_limit=3)
        control.touch(
            each for each in control.ids(shop=EAST) if control.order(each)["status"] in (1, 2) and each != new
        )
        loaded.sync()
        assert order(conn, new)

    @pytest.mark.parametrize("content", [*MESSAGES[:4], {"content": None}, ["a"]])
    def test_that_are_no_boards_fail_the_sync_of_their_shop_alone(self, loaded, conn, content):
        control = loaded.control
        east, west = (control.ids(shop=shop)[0] for shop in (EAST, WEST))
        before = loaded.watermark(EAST)
        control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in (east, west)))
        control.advance(600)
        control.fault(Fault("answer", path=f"shop/{EAST}/job-board*", content=content, times=None))
        with pytest.raises(SyncFailed, match=f"all of {EAST} "):
            loaded.sync()
        assert (loaded.watermark(EAST), loaded.watermark(WEST)) == (before, instant(control.now()))
        assert order(conn, west)["amount_paid"] == 4711


NOTED = {"since": "2024-03-01T12:00:00Z", "after": "2024-03-01T12:00:01Z", "before": "2024-03-01T11:59:59Z"}


@pytest.mark.parametrize(
    ("pages", "reached", "oldest"),
    [
        ([(["after", "before"], 0)], True, "before"),
        ([(["before"], 0), (["after"], 0)], True, "before"),
        ([(["since", "after"], 0)], False, "since"),
        ([(["after"], 0), ([None], 0)], False, "after"),
        ([([], 0)], False, None),
        ([(["after"], 1), (["after"], 0)], True, "after"),
    ],
)
def test_board_reaches_back_where_it_shows_an_order_that_changed_before(pages, reached, oldest):
    """An order of that very moment may have left others of it out. What has no place on the board is older than all."""
    entity, since = entity_of(SOURCE, "repair_orders"), instant(NOTED["since"])
    told: dict[str, Any] = {}
    extract = SimpleNamespace(
        entity=entity, list_state=lambda number: told, save_list_state=lambda number, **some: told.update(some)
    )
    listing = Listing(None, Single(), newest=NewestOnly(since, "true"))
    for shown, left_out in pages:
        orders = [{"shop_id": EAST, "tm_id": 1, "updated_date": NOTED.get(each)} for each in shown]
        short_lists.remember_reach(extract, 0, listing, orders, ignored=left_out)
    assert told == {"reached": reached, "oldest": oldest and instant(NOTED[oldest]).isoformat()}


class TestLists:
    @pytest.mark.parametrize("next_keys", ["text", "list"])
    def test_report_is_read_to_its_end_in_either_form(self, conn, next_keys):
        with trading(conn, board_limit=0, list_size=2, next_keys=next_keys) as shops:
            shops.sync("backfill")
            posted = [id_ for id_ in shops.control.ids() if shops.control.order(id_)["posted"]]
            assert {id_ for _, id_ in rows(conn, "repair_orders")} >= set(posted)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("edit", path="*report", name="nextKeys", edit="null", times=None),
            Fault("edit", path="*report", name="content", edit="missing", times=None),
            Fault("answer", path="*report", content=MESSAGES[0], times=None),
        ],
        ids=lambda fault: fault.kind + fault.name,
    )
    def test_report_that_is_cut_fails(self, conn, fault):
        with trading(conn, list_size=2) as shops:
            shops.control.fault(fault)
            with pytest.raises(SyncFailed):
                shops.sync("backfill")
            assert shops.watermark(EAST) is None

    def test_pages_in_another_order_each_time_lose_nobody(self, conn):
        """Or else the sync fails by name."""
        with trading(conn, orders=2, customers=83, employees=1, list_size=10, shuffled_pages=True) as shops:
            failed = ""
            try:
                shops.sync("backfill")
            except SyncFailed as error:
                failed = str(error)
            for kind in ("customers", "vehicles"):
                read = {id_ for _, id_ in rows(conn, kind)}
                assert (kind in failed) == (read != set(shops.control.ids(kind)))

    @pytest.mark.parametrize("kind", ["customer", "vehicle"])
    def test_of_another_shop_are_nobody(self, loaded, conn, kind):
        before = contents(conn)
        conn.execute("UPDATE confidence.sync_state SET in_step_at = in_step_at - interval '25 hours'")
        loaded.control.fault(Fault("swap", path=f"shop/{EAST}/{kind}", other=f"shop/{WEST}/{kind}", times=None))
        with pytest.raises(SyncFailed, match=f"{kind}s: .*another shop"):
            loaded.sync()
        assert contents(conn) == before

    @pytest.mark.parametrize("kind", ["customer", "vehicle", "employee"])
    def test_message_in_place_of_a_person_is_nobody(self, loaded, conn, kind):
        control = loaded.control
        before = contents(conn)
        id_ = control.ids(f"{kind}s", EAST)[0]
        named = {"customer": "customer_id", "vehicle": "vehicle_id", "employee": "writer_id"}[kind]
        for content in ({"id": id_, "message": "temporarily unavailable"}, *MESSAGES):
            control.fault(Fault("answer", path=f"shop/{EAST}/{kind}/*", content=content, times=2))
        (new,) = control.mutate(Mutation("create", f"{kind}s", fields={"customerId": 1} if kind == "vehicle" else {}))
        (changed,) = control.mutate(Mutation("create", fields={"shop_id": EAST, named: new, "status": 1}))
        with pytest.raises(SyncFailed, match=f"{kind}s {EAST}/{new}"):
            loaded.sync()
        assert order(conn, changed)
        assert rows(conn, f"{kind}s") == before[f"{kind}s"]


class TestDeleted:
    @pytest.mark.parametrize("answers", [(404, 404, 200), (404, 200, 404), (404, 503, 404), (200, 404, 404)])
    def test_order_is_not_while_one_answer_shows_it(self, loaded, conn, answers):
        id_ = with_job(loaded)
        loaded.sync()
        before = whole(conn, id_)
        loaded.control.set(board_limit=0, column_limit=0)
        for path, status in zip((head, estimate, profit), answers, strict=True):
            if status != 200:
                loaded.control.fault(Fault("status", path=path(id_), status=status, times=None))
        summary = loaded.scan()
        assert vars(summary.plan)["delete"] == 0
        loaded.mend(summary)
        assert whole(conn, id_) == before

    def test_order_is_not_while_a_board_shows_it(self, loaded, conn):
        id_ = with_job(loaded)
        loaded.sync()
        before = whole(conn, id_)
        for path in (head, estimate, profit):
            loaded.control.fault(Fault("status", path=path(id_), status=404, times=None))
        loaded.control.touch([id_])
        with suppress(SyncFailed):
            loaded.sync()
        assert whole(conn, id_) == before
        summary = loaded.scan()
        assert vars(summary.plan)["delete"] == 0
        loaded.mend(summary)
        assert whole(conn, id_) == before

    def test_order_that_another_s_tombstone_is_told_of_is_not(self, loaded, conn):
        id_, gone = with_job(loaded), with_job(loaded)
        loaded.sync()
        loaded.control.mutate(Mutation("delete", "orders", gone))
        loaded.control.touch([id_])
        loaded.control.fault(Fault("swap", path=head(id_), other=head(gone), times=None))
        with pytest.raises(SyncFailed, match=f"{EAST}/{id_} .*another order"):
            loaded.sync()
        assert order(conn, id_)
        assert vars(loaded.scan().plan)["delete"] > 0
        assert order(conn, id_)


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Tekmetric answers goes through its `twist`."""
    lie = SimpleNamespace(twist=lambda request, data: data)

    @contextmanager
    def api(self: Shops, name: str, api: Api) -> Iterator[Twisted]:
        url, headers = self.simulator.url + api.base_path, api.authorize(self.simulator.token)
        with Twisted(name, url, headers=headers, timeout=(2, 5), attempts=2, backoff=(0.01, 0.02)) as client:
            client.twist = lambda request, data: lie.twist(request, data)
            yield client

    monkeypatch.setattr(Shops, "api", api)
    return lie


@pytest.mark.parametrize(
    ("tombstone", "alone"),
    [
        ({"deletedDate": "2024-01-01T00:00:00Z"}, False),
        ({"repairOrderStatus": {"id": 7}}, False),
        ({"repairOrderStatus": {"id": 7, "code": "DELETED"}}, True),
    ],
)
def test_order_that_says_once_that_it_is_deleted_stays(loaded, conn, lying, tombstone, alone):
    id_ = with_job(loaded)
    loaded.sync()
    settle(loaded)
    before = whole(conn, id_)
    loaded.control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
    lying.twist = once(lambda request, data: {**({"id": id_} if alone else data), **tombstone}, f"/{head(id_)}")
    with suppress(SyncFailed):
        loaded.sync()
    assert order(conn, id_)
    assert whole(conn, id_)[1:] == before[1:]


@pytest.mark.parametrize("tombstone", [{"deletedDate": "2024-01-01T00:00:00Z"}, {"repairOrderStatus": {"id": 7}}])
def test_posted_order_that_says_once_that_it_is_deleted_stays(loaded, conn, lying, tombstone):
    control = loaded.control
    id_ = next(each for each in control.ids(shop=EAST) if control.order(each)["status"] == 5)
    settle(loaded)
    before = whole(conn, id_)
    control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
    lying.twist = once(lambda request, data: {**data, **tombstone}, f"/{head(id_)}")
    with suppress(SyncFailed):
        loaded.sync()
    assert order(conn, id_)
    assert whole(conn, id_)[1:] == before[1:]


@pytest.mark.parametrize("kind", ["customer", "vehicle"])
def test_total_of_one_shop_that_is_wrong_for_good_leaves_the_other_shop(loaded, conn, lying, kind):
    # A list that is read once a day is due.
    conn.execute("UPDATE confidence.sync_state SET in_step_at = in_step_at - interval '25 hours'")
    control = loaded.control
    for shop in (EAST, WEST):
        customer = {"customerId": control.ids("customers", shop)[0]} if kind == "vehicle" else {}
        control.mutate(Mutation("create", f"{kind}s", fields={"shopId": shop, **customer}))
    lying.twist = always(
        lambda request, data: {**data, "totalElements": data["totalElements"] + 1}, f"/shop/{EAST}/{kind}"
    )
    with pytest.raises(SyncFailed):
        loaded.sync()
    have = {id_ for _, id_ in rows(conn, f"{kind}s")}
    assert set(control.ids(f"{kind}s", WEST)) <= have


@pytest.mark.parametrize("name", ["cost", "partsCost", "technician", "balanceDue"])
@pytest.mark.parametrize("how", ["scan", "full"])
def test_address_that_leaves_out_a_field_for_good_empties_nothing(loaded, conn, name, how):
    id_ = two_jobs(loaded)
    loaded.sync()
    settle(loaded)
    before = whole(conn, id_)
    loaded.control.fault(Fault("edit", path=estimate(id_), name=name, edit="missing", times=None))
    if how == "full":
        with suppress(SyncFailed):
            loaded.sync("full")
        assert whole(conn, id_) == before
    else:
        summary = loaded.scan()
        loaded.mend(summary)
        assert whole(conn, id_) == before


@pytest.mark.parametrize("kind", ["customer", "vehicle"])
def test_too_many_records_of_one_shop_that_can_not_be_stored_leave_the_other_shop(loaded, conn, lying, kind):
    # A list that is read once a day is due.
    conn.execute("UPDATE confidence.sync_state SET in_step_at = in_step_at - interval '25 hours'")
    control = loaded.control
    customer = {"customerId": control.ids("customers", WEST)[0]} if kind == "vehicle" else {}
    (new,) = control.mutate(Mutation("create", f"{kind}s", fields={"shopId": WEST, **customer}))

    def lie(request, data):
        if request.path != f"/shop/{EAST}/{kind}":
            return data
        bad = [{**data["content"][0], "id": 900_000 + number, "notes": "\0", "vin": "\0"} for number in range(25)]
        return {**data, "content": data["content"] + bad, "totalElements": data["totalElements"] + 25}

    lying.twist = lie
    with pytest.raises(SyncFailed, match=f"{kind}s: .*all of {EAST} .*could not be stored: see the reasons") as failed:
        loaded.sync()
    assert f"all of {WEST}" not in str(failed.value)
    assert new in {id_ for _, id_ in rows(conn, f"{kind}s")}
    query = "SELECT count(*) FROM confidence.quarantine WHERE entity = %s"
    assert conn.execute(query, [f"{kind}s"]).fetchone() == (25,)
    summary = loaded.scan(f"{kind}s")
    assert 0 < summary.proven < summary.rows


def test_customers_that_can_not_be_stored_keep_out_none_of_their_orders(loaded, conn, lying):
    control = loaded.control
    control.set(board_limit=200)
    settle(loaded)
    customers = [control.mutate(Mutation("create", "customers", fields={"shopId": EAST}))[0] for _ in range(21)]
    orders = [with_job(loaded, customer_id=customer) for customer in customers]
    fine = with_job(loaded)
    lying.twist = always(lambda request, data: {**data, "firstName": "\0"}, f"/shop/{EAST}/customer/")
    with pytest.raises(SyncFailed, match=rf"customers {EAST}/{customers[0]} \(first_name holds a NUL character\)"):
        loaded.sync()
    assert {*orders, fine} <= {id_ for _, id_ in rows(conn, "repair_orders")}
    assert not set(customers) & {id_ for _, id_ in rows(conn, "customers")}
    lying.twist = lambda request, data: data
    loaded.sync()
    assert set(customers) <= {id_ for _, id_ in rows(conn, "customers")}


def short(shop: int, id_: int, *totals: int):
    """The shop's list of vehicles leaves one out; it claims these totals, one after the other, the last for good."""
    claimed = list(totals)

    def lie(request, data):
        if request.path != f"/shop/{shop}/vehicle":
            return data
        total = claimed.pop(0) if len(claimed) > 1 else claimed[0]
        return {**data, "content": [each for each in data["content"] if each["id"] != id_], "totalElements": total}

    return lie


def test_total_of_one_shop_is_not_met_by_a_vehicle_that_another_left_out(loaded, conn, lying):
    """The copy lacks the one, and a second look finds the other."""
    missing, hidden = (loaded.control.ids("vehicles", shop)[-1] for shop in (EAST, WEST))
    count = {shop: len(loaded.control.ids("vehicles", shop)) for shop in (EAST, WEST)}
    settle(loaded)
    conn.execute("DELETE FROM tekmetric.vehicles WHERE tm_id = %s", [missing])
    east, west = short(EAST, missing, count[EAST]), short(WEST, hidden, count[WEST] - 1)
    lying.twist = lambda request, data: east(request, west(request, data))
    summary = loaded.scan("vehicles")
    assert summary.rows - summary.proven == 1


def test_total_that_shrinks_is_no_proof_that_a_vehicle_is_gone(loaded, conn, lying):
    """Unless the second look proves just that of a vehicle of the copy."""
    missing = loaded.control.ids("vehicles", EAST)[-1]
    count = len(loaded.control.ids("vehicles", EAST))
    settle(loaded)
    conn.execute("DELETE FROM tekmetric.vehicles WHERE tm_id = %s", [missing])
    lying.twist = short(EAST, missing, count, count - 1)
    summary = loaded.scan("vehicles")
    assert summary.rows - summary.proven == 1
    loaded.resume()
    lying.twist = lambda request, data: data
    loaded.mend(loaded.scan("vehicles"))
    loaded.control.mutate(Mutation("delete", "vehicles", missing))
    lying.twist = short(EAST, missing, count, count - 1)
    summary = loaded.scan("vehicles")
    assert (summary.plan.delete, summary.rows - summary.proven) == (1, 0)


def test_total_that_grows_when_it_is_asked_for_again_counts(loaded, conn, lying):
    """The list leaves out two; a second look finds the one that the copy has."""
    missing, hidden = loaded.control.ids("vehicles", EAST)[-2:]
    count = len(loaded.control.ids("vehicles", EAST))
    settle(loaded)
    conn.execute("DELETE FROM tekmetric.vehicles WHERE tm_id = %s", [missing])
    first, second = short(EAST, missing, count - 1, count), short(EAST, hidden, count - 1, count)
    lying.twist = lambda request, data: second(request, first(request, data))
    summary = loaded.scan("vehicles")
    assert (summary.plan.rows, summary.rows - summary.proven) == (0, 1)


def test_row_that_only_the_page_with_the_total_shows_is_no_less_listed(loaded, conn, lying):
    """The list is asked for its total once more, and shows there what it left out; the total is too small for both."""
    ids = loaded.control.ids("vehicles", EAST)
    missing, hidden = ids[-2:]
    settle(loaded)
    conn.execute("DELETE FROM tekmetric.vehicles WHERE tm_id = %s", [missing])
    first, again = (short(EAST, id_, len(ids) - 1) for id_ in (missing, hidden))
    asked = []

    def lie(request, data):
        asked.extend([request] * (request.path == f"/shop/{EAST}/vehicle"))
        lies = (first, short(EAST, hidden, len(ids) - 1)) if len(asked) == 1 else (again,)
        for each in lies:
            data = each(request, data)
        return data

    lying.twist = lie
    summary = loaded.scan("vehicles")
    assert (summary.plan.insert, summary.rows - summary.proven) == (1, 0)


def test_refused_row_on_the_page_with_the_total_makes_up_for_none_that_is_left_out(loaded, conn, lying):
    ids = loaded.control.ids("vehicles", EAST)
    settle(loaded)
    conn.execute("DELETE FROM tekmetric.vehicles WHERE tm_id = ANY (%s)", [[ids[0], ids[-1]]])
    hidden = short(EAST, ids[-1], len(ids))

    def lie(request, data):
        data = hidden(request, data)
        if request.path != f"/shop/{EAST}/vehicle":
            return data
        return {
            **data,
            "content": [{**each, "year": "x"} if each["id"] == ids[0] else each for each in data["content"]],
        }

    lying.twist = lie
    assert loaded.scan("vehicles").accounts["vehicles"].unseen == 1


class TestEndedBetweenTheLastPageAndItsCheck:
    """The attempt is lost while it asks for a short list's total once more. The next one checks the list."""

    @pytest.mark.parametrize("shop", [EAST, WEST])
    def test_scan(self, loaded, conn, lying, monkeypatch, shop):
        ids = loaded.control.ids("vehicles", shop)
        settle(loaded)
        conn.execute("DELETE FROM tekmetric.vehicles WHERE tm_id = %s", [ids[-1]])
        lying.twist = short(shop, ids[-1], len(ids))
        with monkeypatch.context() as lost:
            lost.setattr(incomplete_lists, "_refresh_total", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                loaded.scan("vehicles")
        summary = loaded.scan("vehicles")
        assert summary.rows - summary.proven == 1


def test_total_that_shrinks_for_a_moment_hides_no_row_of_the_second_reading(loaded, conn, lying):
    """Two rows are left out, then one; only the total that is asked for between the readings is less than the truth."""
    ids = loaded.control.ids("vehicles", EAST)
    conn.execute("UPDATE confidence.sync_state SET in_step_at = in_step_at - interval '25 hours'")
    first, moment = short(EAST, ids[-1], len(ids)), short(EAST, ids[-1], len(ids) - 1)
    asked = []

    def lie(request, data):
        if request.path != f"/shop/{EAST}/vehicle":
            return data
        asked.append(request)
        told = (moment if len(asked) == 2 else first)(request, data)
        return {**told, "content": told["content"][1:]} if len(asked) == 1 else told

    lying.twist = lie
    with pytest.raises(SyncFailed, match=f"says that it has {len(ids)} rows, and 1 of them were not shown"):
        loaded.sync()


# What a board shows of an order from before the days that a scan looks at.
AGED = dict.fromkeys(("updatedDate", "postedDate", "completedDate"), "2024-03-01T08:00:00Z")


def claiming(total: int) -> Callable[[Any, Any], Any]:
    """The twist of a board that says how many orders it has."""
    return lambda request, data: {"content": data, "totalElements": total}


@pytest.fixture
def counted_beyond(loaded, lying) -> int:
    """A shop's board of posted orders counts one more than it shows, for good: the number of them."""
    count = len(loaded.control.ids(shop=EAST)) + 1
    loaded.control.set(board_size=500)
    lying.twist = always(claiming(count), f"/shop/{EAST}/job-board", board="POSTED")
    return count


def test_board_that_shows_fewer_orders_than_it_says_proves_nothing(loaded, conn, counted_beyond):
    assert loaded.scan().accounts["repair_orders"].unseen > 0


def test_board_that_counts_more_than_it_shows_keeps_no_sync_red(loaded, conn, counted_beyond):
    """It shows orders from before the time that the sync reads from, so its total counts older ones."""
    settle(loaded)
    before = loaded.watermark(EAST)
    changed = loaded.control.ids(shop=EAST)[0]
    loaded.control.mutate(Mutation("update", "orders", changed, {"paid": 4711}))
    loaded.control.advance(60)
    loaded.sync()
    assert order(conn, changed)["amount_paid"] == 4711
    assert loaded.watermark(EAST) > before


def test_order_that_such_a_board_left_out_is_read_once_it_is_shown(loaded, conn, lying, counted_beyond):
    """However long ago it has changed."""
    claim = lying.twist
    posted = next(id_ for id_ in loaded.control.ids(shop=EAST) if loaded.control.order(id_)["status"] in (5, 6))
    settle(loaded)

    def leave_out(request, data):
        told = claim(request, data)
        if told is data:
            return data
        return {**told, "content": [row for row in told["content"] if row["id"] != posted]}

    loaded.control.mutate(Mutation("update", "orders", posted, {"paid": 4711}))
    lying.twist = leave_out
    settle(loaded)
    settle(loaded)
    assert order(conn, posted)["amount_paid"] != 4711
    lying.twist = claim
    loaded.sync()
    assert order(conn, posted)["amount_paid"] == 4711


def test_first_load_of_such_a_board_ends_when_nothing_more_comes(shops, lying):
    """Its total is then taken for wrong: else no scan of the shop could ever begin."""
    shops.control.set(board_size=500)
    claim = claiming(len(shops.control.ids(shop=EAST)) + 1)
    lying.twist = always(claim, f"/shop/{EAST}/job-board", board="POSTED")
    for ends in (False, True):
        with pytest.raises(SyncFailed, match=f"perhaps others of {EAST} .* were not shown in 3 readings"):
            shops.sync()
        assert bool(shops.watermark(EAST)) is ends
    shops.control.advance(3600)
    shops.sync()


def test_order_that_leaves_its_board_meanwhile_is_no_shortage(loaded, conn, lying):
    loaded.control.set(board_size=500)
    left = []

    def twist(request, data):
        """One more at the first request."""
        more = not left
        left.append(request)
        return {"content": data, "totalElements": len(data) + more}

    lying.twist = always(twist, f"/shop/{EAST}/job-board", board="POSTED", page=0)
    assert loaded.scan().accounts["repair_orders"].unseen == 0
    assert len(left) == 2


@pytest.mark.parametrize(
    ("older", "other"),
    [(False, {}), (False, {"updatedDate": "2026-11-01T00:00:00Z"}), (True, {})],
    ids=["alike", "otherwise", "older"],
)
def test_order_on_two_pages_of_a_board_hides_none(loaded, conn, lying, older, other):
    """As many rows as the board says, but one of them twice: another is on no page."""
    loaded.control.set(board_size=500)
    known = []

    def twist(request, data):
        if request.params["page"] == 0:
            known[:] = [{**row, **AGED} for row in data] if older else data
        pages = [known[:-1], [{**known[0], **other}]]
        page = pages[request.params["page"]]
        return {"content": page, "totalElements": len(known), "totalPages": len(pages)}

    lying.twist = always(twist, f"/shop/{EAST}/job-board", board="POSTED", view="list")
    account = loaded.scan(days_back=30 if older else 0).accounts["repair_orders"]
    assert len(known) > 1
    assert account.unseen == 1


def test_board_in_columns_may_be_wrapped_too(loaded, conn, lying):
    lying.twist = always(lambda request, data: {"content": data}, f"/shop/{EAST}/job-board", view="column")
    assert loaded.scan().metrics["rows_refused"] == 0
    loaded.resume()
    loaded.sync()


def test_board_in_columns_that_is_no_list_is_no_answer(loaded, conn, lying):
    lying.twist = always(lambda request, data: {"columns": data}, f"/shop/{EAST}/job-board", view="column")
    with pytest.raises(SyncFailed, match="the answer has no list 'content'"):
        loaded.sync()


def test_board_that_writes_times_with_more_digits_contradicts_nothing(loaded, conn, lying):
    settle(loaded)

    def finer(request, data):
        times = ("updatedDate", "postedDate", "completedDate")
        return [
            {name: value.replace("Z", ".250Z") if name in times and value else value for name, value in row.items()}
            for row in data
        ]

    lying.twist = always(finer, f"/shop/{EAST}/job-board")
    loaded.control.reset_counters()
    loaded.sync()
    assert loaded.asked("estimate") == 0
    account = loaded.scan().accounts["repair_orders"]
    assert (account.refused, account.unproven) == (0, 0)


def test_order_that_could_not_be_read_with_one_list_is_taken_from_the_next(loaded, conn, lying):
    """The first list wrote its time with more digits than its own address does, and a second look has no answer."""
    settle(loaded)
    changed = with_job(loaded)
    loaded.sync()
    loaded.control.mutate(Mutation("update", "orders", changed, {"paid": 4711}))

    def finer(request, data):
        return [{**row, "updatedDate": row["updatedDate"].replace("Z", ".250Z")} for row in data]

    lying.twist = always(finer, f"/shop/{EAST}/job-board", view="list")
    # Two attempts of the first list's look-up, and those of the second look.
    for nth in (1, 2, 4, 5):
        loaded.control.fault(Fault("status", path=head(changed), status=503, nth=nth))
    loaded.sync()
    assert order(conn, changed)["amount_paid"] == 4711


def test_job_that_moves_to_an_order_that_no_list_shows_is_there(loaded, conn):
    """Orders that are saved for later are looked up at their own address alone."""
    left, joined = two_jobs(loaded), two_jobs(loaded)
    loaded.sync()
    settle(loaded)
    stays, moves = loaded.control.order(left)["jobs"]
    both = {left: [stays], joined: [*loaded.control.order(joined)["jobs"], moves]}
    loaded.control.mutate(
        Mutation("update", "orders", joined, {"status": 4, "jobs": both[joined]}, silent=True),
        Mutation("update", "orders", left, {"jobs": both[left]}, silent=True),
    )
    loaded.mend(loaded.scan())
    jobs = {id_: {row["tm_id"] for row in of_order(conn, "jobs", id_)} for id_ in both}
    assert jobs == {id_: {job["id"] for job in jobs} for id_, jobs in both.items()}
