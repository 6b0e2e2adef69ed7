"""A simulated account, fresh for each test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from include.api.client import ApiClient
from include.simulators import repairshopr as simulator
from include.sources import get_source
from include.sources.mirror.entity import Context

SOURCE = get_source("repairshopr")
RUN = "repairshopr_reconcile/test"


@dataclass(frozen=True)
class Shop:
    """A simulated account and the means to reach it."""

    simulator: simulator.Simulator
    context: Context

    @property
    def control(self) -> simulator.Control:
        return self.simulator.control


@pytest.fixture
def open_shop(conn: psycopg.Connection) -> Iterator[Callable[..., Shop]]:
    """Opens a shop of the given Config; without a rate limit unless the test sets one."""
    closing = []

    def open_(**fields: object) -> Shop:
        running = simulator.running(simulator.Config(**{"rate_limit": None} | fields))
        account = running.__enter__()
        client = ApiClient(
            "repairshopr",
            account.url + SOURCE.base_path,
            headers=SOURCE.authorize(account.token),
            timeout=(2, 2),
            attempts=3,
            backoff=(0.01, 0.05),
        )
        closing.append((running, client))
        return Shop(account, Context(SOURCE, client, conn, RUN))

    yield open_
    for running, client in closing:
        client.__exit__()
        running.__exit__(None, None, None)


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    """A small account."""
    return open_shop(customers=40, invoices=120, line_items=400, payments=90, products=30, tickets=60, estimates=20)
