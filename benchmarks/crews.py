"""Our own jobs on simulated crew calls: sync and nightly scan. See `benchmarks.job` for how jobs are run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import psycopg

from benchmarks.night import stopped
from include.api.client import ApiClient
from include.sources import get_source
from include.sources.base import Api
from include.sources.flex.crews import FlexContext
from include.warehouse.rate_limit import Quota, RequestCount

SOURCE = get_source("flex")
RUN = "bench/crews"
PARAMS = {"job_id": None, "departments": [], "release_element": None}
TIERS = ("responsible", "specialist", "technician")
# Requests are counted as always, and none is refused.
PLENTY = Quota(per_hour=1_000_000, per_day=1_000_000)


def sync(start: Callable[[], None], *, workers: int = SOURCE.workers, **where: Any) -> dict[str, int]:
    """Sync what changed, `workers` crew calls at once; returns the numbers of crew calls, rows and requests."""
    with _context(workers=workers, **where) as context:
        start()
        synced = context.source.sync(context, {**PARAMS, "mode": "incremental"}, dry_run=False)
        counts = synced.counts["crew"]
        return {
            "crew_calls": synced.result["elements"],
            "inserted": counts.inserted,
            "deleted": counts.deleted,
            "requests": context.api.requests_sent,
        }


def scan(start: Callable[[], None], **where: Any) -> dict[str, float]:
    """Scan every crew call; returns them, the lines that are as they should be, the changes planned, the requests."""
    with _context(workers=SOURCE.workers, **where) as context:
        with stopped(start, context.conn, SOURCE.name, RUN) as stop:
            found = context.source.scan(context, "crew", stop.epoch, PARAMS)
        metrics = {name: found.metrics[name] for name in ("crew_calls", "matched")}
        planned = sum(vars(found.plan).values())
        return metrics | {"planned": planned, "requests": context.api.requests_sent, "stands": stop.seconds}


@contextmanager
def _context(*, url: str, token: str, warehouse: str, roles: Sequence[str], workers: int) -> Iterator[FlexContext]:
    with psycopg.connect(warehouse, autocommit=True) as conn:
        source = replace(SOURCE, workers=workers)
        with source.open(conn, RUN, _Connections(url, token, warehouse, roles)) as context:
            yield context


class _Connections:
    """The simulated account and the warehouse, whatever the connections' names."""

    def __init__(self, url: str, token: str, warehouse: str, roles: Sequence[str]):
        self._url, self._token, self._warehouse, self._roles = url, token, warehouse, roles

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with ExitStack() as stack:
            limiter = RequestCount(stack.enter_context(self.database("warehouse")), name, PLENTY)
            client = ApiClient(name, self._url + api.base_path, headers=api.authorize(self._token), limiter=limiter)
            yield stack.enter_context(client)

    def settings(self, name: str) -> Mapping[str, Any]:
        return {"business_roles": {"sound": dict(zip(TIERS, self._roles, strict=True))}}

    def variable(self, name: str) -> None:
        return None

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._warehouse, autocommit=True) as conn:
            yield conn
