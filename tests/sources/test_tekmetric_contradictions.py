"""Addresses of Tekmetric that contradict each other, or answer for a shop that the token may not see any more."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from include.api.errors import NotFound
from include.api.request import Request
from include.simulators.tekmetric import Mutation
from include.sources.base import Api, SyncFailed
from include.sources.tekmetric import SOURCE

from .tekmetric import EAST, WEST, Shops, job, of_order, order, rows, settle, with_job
from .twisted import Twisted, always

TOMBSTONES = ({"deletedDate": "2024-01-01T00:00:00Z"}, {"repairOrderStatus": {"id": 7, "code": "DELETED"}})


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Tekmetric answers goes through its `twist`."""
    lie = SimpleNamespace(twist=lambda request, data: data, route=lambda request: request)

    class Routed(Twisted):
        def _exchange(self, request: Request) -> Any:
            return super()._exchange(lie.route(request))

    @contextmanager
    def api(self: Shops, name: str, api: Api) -> Iterator[Twisted]:
        url, headers = self.simulator.url + api.base_path, api.authorize(self.simulator.token)
        with Routed(name, url, headers=headers, timeout=(2, 5), attempts=2, backoff=(0.01, 0.02)) as client:
            client.twist = lambda request, data: lie.twist(request, data)
            yield client

    monkeypatch.setattr(Shops, "api", api)
    return lie


def head(id_: int, shop: int = EAST) -> str:
    return f"/shop/{shop}/repair-order/{id_}"


class TestHeadThatSaysEachTimeThatAListedOrderIsDeleted:
    @pytest.fixture(params=TOMBSTONES, ids=["deletedDate", "status 7"])
    def tombstone(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return request.param

    @pytest.mark.parametrize("status", [2, 5])
    def test_deletes_nothing_in_a_sync(self, loaded, conn, lying, tombstone, status):
        id_ = with_job(loaded, status=status)
        loaded.sync()
        settle(loaded)
        before = loaded.watermark(EAST)
        loaded.control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
        loaded.control.advance(600)
        lying.twist = always(lambda request, data: {**data, **tombstone}, head(id_))
        with pytest.raises(SyncFailed, match=f"{id_} .*the list shows it, but"):
            loaded.sync()
        assert order(conn, id_)
        assert of_order(conn, "jobs", id_)
        assert loaded.watermark(EAST) >= before
        lying.twist = lambda request, data: data
        loaded.sync()
        assert order(conn, id_)["amount_paid"] == 4711

    @pytest.mark.parametrize("status", [2, 5])
    def test_deletes_nothing_in_a_night(self, loaded, conn, lying, tombstone, status):
        id_ = with_job(loaded, status=status)
        loaded.sync()
        settle(loaded)
        lying.twist = always(lambda request, data: {**data, **tombstone}, head(id_))
        summary = loaded.scan()
        assert summary.plan.delete == 0
        assert summary.proven < summary.rows
        loaded.mend(summary)
        assert order(conn, id_)


@pytest.mark.parametrize("how", ["sync", "scan"])
@pytest.mark.parametrize("tombstone", TOMBSTONES, ids=["deletedDate", "status 7"])
def test_board_that_shows_a_deleted_order_as_deleted_contradicts_nothing(loaded, conn, lying, tombstone, how):
    id_ = with_job(loaded)
    loaded.sync()
    settle(loaded)
    loaded.control.mutate(Mutation("delete", "orders", id_))
    loaded.control.advance(600)
    row = {"id": id_, "updatedDate": loaded.control.order(id_)["updated"], **tombstone}
    lying.twist = always(lambda request, data: [row, *data], f"/shop/{EAST}/job-board-group-by", view="column")
    if how == "sync":
        loaded.sync()
        loaded.control.advance(600)
        loaded.sync()
    else:
        loaded.mend(loaded.scan())
    assert order(conn, id_) is None


def test_board_that_shows_an_order_falsely_as_deleted_deletes_nothing(loaded, conn, lying):
    id_ = with_job(loaded)
    loaded.sync()
    settle(loaded)
    row = {"id": id_, "updatedDate": loaded.control.now(), "deletedDate": loaded.control.now()}
    lying.twist = always(lambda request, data: [row, *data], f"/shop/{EAST}/job-board-group-by", view="column")
    loaded.sync()
    summary = loaded.scan()
    assert summary.plan.delete == 0
    assert order(conn, id_)


def test_estimate_without_jobs_is_contradicted_by_the_board(loaded, conn, lying):
    """Nothing of it is authorized, so that the profit is 0 in truth; only the board says what the order comes to."""
    id_ = with_job(loaded, status=1, jobs=[job(authorized=None)])
    loaded.sync()
    settle(loaded)
    loaded.control.mutate(Mutation("update", "orders", id_, {"paid": 4711}))
    loaded.control.advance(600)
    nothing = {"jobs": [], "fees": {"data": []}} | dict.fromkeys(
        ("total", "subtotal", "tax", "taxes", "feesTotal", "discountTotal", "discount", "authorizedTotal"), 0
    )
    lying.twist = always(lambda request, data: {**data, **nothing}, f"/repair-order/{id_}/estimate")
    with suppress(SyncFailed):
        loaded.sync()
    assert of_order(conn, "jobs", id_)
    summary = loaded.scan()
    assert summary.plan.delete == 0
    assert summary.proven < summary.rows
    loaded.mend(summary)
    assert of_order(conn, "jobs", id_)
    lying.twist = lambda request, data: data
    loaded.sync()
    assert order(conn, id_)["amount_paid"] == 4711


def blind(shop: int):
    """The token may not see the shop any more: its lists are empty, and its records are not found."""

    def twist(request: Request, data: Any) -> Any:
        if f"/shop/{shop}/" not in request.path and str(request.params.get("shopIds")) != str(shop):
            return data
        if "job-board" in request.path or "employees-lite" in request.path:
            return []
        if "profit-details-report" in request.path:
            return {"content": [], "hasNext": False, "nextKeys": None}
        if request.path.endswith(("/customer", "/vehicle")):
            return {**data, "content": [], "totalElements": 0, "totalPages": 0, "numberOfElements": 0, "last": True}
        raise NotFound(f"{request} answered 404", status=404)

    return twist


@pytest.mark.parametrize("entity", ["employees", "customers", "vehicles", "repair_orders"])
def test_shop_that_the_token_may_not_see_any_more_loses_nothing(loaded, conn, lying, entity):
    """The other shop is as always."""
    settle(loaded)
    before = {key for key in rows(conn, entity) if key[0] == WEST}
    assert before
    gone = set(loaded.control.ids(shop=WEST))
    twist = blind(WEST)

    def lie(request: Request, data: Any) -> Any:
        if request.path.startswith("/repair-order/") and int(request.path.split("/")[2]) in gone:
            raise NotFound(f"{request} answered 404", status=404)
        return twist(request, data)

    lying.twist = lie
    summary = loaded.scan(entity)
    assert summary.plan.delete == 0
    assert summary.proven < summary.rows


def test_answers_for_the_shop_of_the_token_whatever_the_path_says(loaded, conn, lying):
    """The path's shop is ignored, and a head does not name its shop: nothing of one shop gets into the other."""
    settle(loaded)
    with_job(loaded)
    loaded.control.advance(600)
    lying.route = lambda request: replace(request, path=request.path.replace(f"/shop/{WEST}/", f"/shop/{EAST}/"))
    lying.twist = lambda request, data: (
        {name: value for name, value in data.items() if name != "shopId"} if "/repair-order/" in request.path else data
    )
    with pytest.raises(SyncFailed, match="something of another shop"):
        loaded.sync()


def of_orders(conn, *ids: int) -> list[Any]:
    """What the copy has of these orders: themselves, their jobs, and these jobs' fees."""
    return [(order(conn, id_), of_order(conn, "jobs", id_), of_order(conn, "job_fees", id_)) for id_ in ids]


@pytest.mark.parametrize("first", [True, False], ids=["it is read first", "the other is read first"])
@pytest.mark.parametrize("how", ["sync of the other", "sync of both", "scan"])
def test_job_that_another_orders_estimate_shows_is_not_taken_from_its_order(loaded, conn, lying, how, first):
    both_orders = [with_job(loaded, status=1, jobs=[job(authorized=None)]) for _ in range(2)]
    mine, other = both_orders if first else reversed(both_orders)
    loaded.sync()
    settle(loaded)
    before = of_orders(conn, mine, other)
    if how != "scan":
        changed = (mine, other) if how == "sync of both" else (other,)
        loaded.control.mutate(*(Mutation("update", "orders", id_, {"paid": 4711}) for id_ in changed))
        loaded.control.advance(600)
    with loaded.api("tekmetric", SOURCE) as client:
        [extra] = client.get(f"/repair-order/{mine}/estimate").data["jobs"]

    def both(request: Request, data: Any) -> Any:
        sums = {name: 2 * Decimal(data[name]) for name in ("total", "taxes", "feesTotal")}
        return {**data, "jobs": [*data["jobs"], extra], "tax": None, "subtotal": None, **sums}

    lying.twist = always(both, f"/repair-order/{other}/estimate")
    if how != "scan":
        with pytest.raises(SyncFailed, match="another record has a row of it too"):
            loaded.sync()
    else:
        summary = loaded.scan()
        assert summary.proven < summary.rows
        loaded.mend(summary)
    assert of_orders(conn, mine, other) == before
    lying.twist = lambda request, data: data
    loaded.sync()
    assert of_orders(conn, mine)[0][1:] == before[0][1:]
    assert len(of_order(conn, "jobs", other)) == 1
    assert len(of_order(conn, "job_fees", other)) == 2


def test_job_that_moves_to_another_order_moves(loaded, conn):
    """Both orders change then, so both are read."""
    mine, other = (with_job(loaded, status=1, jobs=[job(authorized=None)]) for _ in range(2))
    loaded.sync()
    settle(loaded)
    jobs = [*loaded.control.order(other)["jobs"], *loaded.control.order(mine)["jobs"]]
    loaded.control.mutate(
        Mutation("update", "orders", mine, {"jobs": []}), Mutation("update", "orders", other, {"jobs": jobs})
    )
    loaded.control.advance(600)
    loaded.sync()
    assert of_order(conn, "jobs", mine) == []
    assert len(of_order(conn, "jobs", other)) == 2


def test_any_number_of_days_is_a_day(loaded):
    assert loaded.scan(days_back=10**9).plan.delete == 0
