"""The part about a seller with cursors and windows: first load, what a little change costs, and the nightly scan."""

import math
import time

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, run
from benchmarks.world import seller, warehouse
from include.simulators.square import Control, Mutation
from stack.postgres import Postgres

# One in as many orders changes.
CHANGED = 1_000
REQUESTS_SHARE = 50


def syncing(postgres: Postgres, orders: int) -> Section:
    """A first load, an incremental sync after a few changes, and a scan that finds nothing."""
    with warehouse(postgres, "till") as url, seller(orders) as account:
        where = {"url": account.url, "token": account.token, "warehouse": url}
        first = run(postgres, "square, first load", "benchmarks.till:sync", full=True, **where)
        changed = _change(account.control, max(1, orders // CHANGED))
        locations = account.control.totals()["locations"]
        some = run(postgres, "square, incremental sync", "benchmarks.till:sync", full=False, **where)
        scanned = run(postgres, "square, nightly scan", "benchmarks.till:scan", **where)
    if scanned.result["planned"]:
        raise BenchError(f"square: the copy differs from its source in {scanned.result['planned']} rows after the sync")
    expected = 10 + 2 * math.ceil(locations / 10) + 4 * locations
    requests = some.result["requests"]
    share = first.result["requests"] / requests
    note = (
        f"{orders:,} orders with all that belongs to them, {locations} locations, no latency. Then {changed:,} orders"
        " change. If all changes fit on a page, an incremental sync sends 10 requests, 2 for every ten locations and 4"
        f" for each location: {expected} in all."
    )
    figures = [
        _figure("first load", first),
        _figure(f"incremental sync, {changed:,} orders changed", some, beside=first),
        _figure("nightly scan", scanned),
        Figure(
            "requests that the changes ask for",
            ratio=Ratio("{:,.0f}", (requests,)),
            aim=Aim(f"<= {expected}", requests, at_most=expected),
        ),
        Figure(
            "requests beside the first load",
            ratio=Ratio("1/{:,.0f}", (share,)),
            aim=Aim(f"<= 1/{REQUESTS_SHARE}", share, at_least=REQUESTS_SHARE),
        ),
    ]
    return Section("Square", note, figures)


def _change(control: Control, number: int) -> int:
    """Change the newest orders that are not young, and wait until the changes lie before the next window's end."""
    ids = control.ids("orders")[:number]
    control.mutate(*(Mutation("update", "orders", id_, {"ticket_name": "changed"}) for id_ in ids))
    time.sleep(2)
    return len(ids)


def _figure(what: str, took: Measured, beside: Measured | None = None) -> Figure:
    ratio = Ratio("1/{:,.0f} of the time", (beside.wall / took.wall,)) if beside else None
    result = took.result
    return Figure(what, took, result["read"], result["requests"], stands=result.get("stands"), ratio=ratio)
