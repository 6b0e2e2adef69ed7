"""The part about a repair shop whose orders are read one by one: backfill, a few changes, the metrics of a day."""

from dataclasses import asdict
from typing import Any

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, run
from benchmarks.world import garage, warehouse
from include.simulators.tekmetric import Simulator
from include.simulators.tekmetric.config import SHOPS
from stack.postgres import Postgres

SHOP = SHOPS[0]
# As many requests at once as a task has on their way.
WORKERS = 4
# The small shop has one in as many orders; and one in as many changes.
SMALL, CHANGED = 10, 100
REQUESTS_AN_ORDER = 4
# Each board has a page of orders and an empty one, which is asked for twice.
BOARDS = 3 * (1 + 2)
REBUILD_SECONDS, GROWTH_MB = 2, 10
HISTORY = {"mode": "backfill", "days_back": 0}
CHANGES = {"mode": "incremental", "days_back": 3}


def mending(postgres: Postgres, orders: int, latency: int) -> Section:
    """A large shop's and a small one's backfill, an incremental sync after a few changes, and a day of all orders.

    `latency`: milliseconds that an answer takes where one is said to.
    """
    fewer, changed = max(2, orders // SMALL), max(1, orders // CHANGED)
    with garage(SHOP, fewer) as shop:
        shop.control.set(latency_ms=latency)
        alone = _backfill(postgres, shop, fewer, workers=1)
    with garage(SHOP, orders) as shop:
        with warehouse(postgres, "garage") as url:
            large = _bring(postgres, shop, url, f"backfill of {orders:,} orders", **HISTORY)
            shop.control.change_some(changed)
            some = _bring(postgres, shop, url, f"sync, {changed:,} orders changed", **CHANGES)
            scanned = run(postgres, "tekmetric, nightly scan", "benchmarks.garage:scan", **_where(shop, url, WORKERS))
            one, all_ = (_rebuild(postgres, url, number) for number in (1, orders))
        shop.control.set(latency_ms=latency)
        slow = _backfill(postgres, shop, orders)
    # What changed in the lookback is read again by the sync after it.
    if some.result["orders"] < changed:
        raise BenchError(f"tekmetric: expected {changed} changed orders, got {some.result['orders']}")
    for took, expected in ((alone, fewer), (large, orders), (slow, orders), (one, orders), (scanned, orders)):
        if took.result["orders"] != expected:
            raise BenchError(f"tekmetric: expected {expected} orders, got {took.result['orders']}")
    if scanned.result["planned"]:
        raise BenchError(
            f"tekmetric: the copy differs from its source in {scanned.result['planned']} rows after the sync"
        )
    requests, most = some.result["requests"], REQUESTS_AN_ORDER * changed + BOARDS
    growth, ratio = slow.memory - alone.memory, (alone.wall / fewer) / (slow.wall / orders)
    figures = [
        _figure(f"backfill, {orders:,} orders", large),
        _figure(f"the same, {latency} ms an answer", slow),
        _figure(f"{fewer:,}, one after the other", alone, Ratio("{:.1f} x our time an order", (ratio,))),
        Figure(
            "peak memory beside that",
            ratio=Ratio("{:.0f} x orders, {:+.0f} MB", (orders / fewer, growth)),
            aim=Aim(f"<= +{GROWTH_MB} MB", growth, at_most=GROWTH_MB),
        ),
        _figure(f"sync, {changed:,} orders changed", some),
        Figure(
            "requests of that sync",
            ratio=Ratio("{:,.0f}", (requests,)),
            aim=Aim(f"<= {REQUESTS_AN_ORDER} x {changed:,} + {BOARDS}", requests, at_most=most),
        ),
        _figure("scan of all days", scanned),
        _day(f"{orders:,} a day, one changed", one),
        _day(f"{orders:,} a day, all changed", all_),
    ]
    note = (
        f"One shop; rows are orders, each read by head, estimate and profit, {WORKERS} requests at once. An incremental"
        f" sync asks {BOARDS} times for the boards, as long as what one shows fits on a page of 100, and at most"
        f" {REQUESTS_AN_ORDER} times for each order that changed. A day has all orders, completed and posted on it:"
        " the snapshots of those that changed are computed from their lines, then its metrics from all snapshots."
    )
    return Section("Tekmetric", note, figures)


def _backfill(postgres: Postgres, shop: Simulator, orders: int, workers: int = WORKERS) -> Measured:
    with warehouse(postgres, "backfill") as url:
        return _bring(postgres, shop, url, f"backfill of {orders:,} orders, {workers} at once", workers, **HISTORY)


def _bring(postgres: Postgres, shop: Simulator, url: str, what: str, workers: int = WORKERS, **params: Any) -> Measured:
    return run(postgres, f"tekmetric, {what}", "benchmarks.garage:sync", **_where(shop, url, workers), **params)


def _where(shop: Simulator, url: str, workers: int) -> dict[str, Any]:
    where = {"url": shop.url, "token": shop.token, "warehouse": url, "shops": [asdict(SHOP)]}
    return where | {"workers": workers}


def _rebuild(postgres: Postgres, url: str, changed: int) -> Measured:
    what = f"tekmetric, metrics of a day, {changed:,} orders changed"
    return run(postgres, what, "benchmarks.garage:rebuild", warehouse=url, changed=changed)


def _figure(what: str, took: Measured, ratio: Ratio | None = None) -> Figure:
    result = took.result
    return Figure(what, took, result["orders"], result["requests"], stands=result.get("stands"), ratio=ratio)


def _day(what: str, took: Measured) -> Figure:
    aim = Aim(f"< {REBUILD_SECONDS} s", took.wall, at_most=REBUILD_SECONDS)
    return Figure(what, took, remark=f"{took.result['snapshots']:,} snapshots", aim=aim)
