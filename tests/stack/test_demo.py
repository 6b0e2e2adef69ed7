"""What the demo breaks and how it judges; the whole story is `make demo ONCE=1`."""

import io
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from include.api.client import ApiClient
from include.simulators import repairshopr as simulator
from include.sources import get_source
from include.sources.base import entity_of
from include.sources.mirror.entity import Context
from include.sources.mirror.scan import Scope, scan
from include.sources.mirror.sync import sync
from include.warehouse.migrate import migrate
from stack import demo
from stack.control import Stack
from stack.guardian import StackError

SOURCE = get_source(demo.SOURCE)


@pytest.fixture
def account() -> Iterator[simulator.Simulator]:
    """A small shop."""
    with simulator.running(simulator.Config.sized(120, rate_limit=None)) as running:
        yield running


@pytest.fixture
def context(account: simulator.Simulator, warehouse_url: str) -> Iterator[Context]:
    """The shop and its synced copy."""
    migrate(warehouse_url)
    headers = SOURCE.authorize(account.token)
    with (
        psycopg.connect(warehouse_url, autocommit=True) as copy,
        ApiClient(SOURCE.name, account.url + SOURCE.base_path, headers=headers) as client,
    ):
        made = Context(SOURCE, client, copy, "a run")
        sync(made, full=True)
        yield made


@pytest.fixture
def house(account: simulator.Simulator, context: Context) -> demo.House:
    """The demo's house, without its Airflow."""
    return demo.House(None, account.control, account.url, context.conn, Console(file=io.StringIO()))


def test_a_scan_finds_just_what_the_demo_says_it_broke(context: Context, house: demo.House):
    drift = demo.drift_silently(house.shop, house.copy)
    found = {name: scan(context, entity_of(SOURCE, name), 0, Scope()).metrics for name in ("invoices", "line_items")}
    demo.expect("metrics", found["line_items"], drift.figures | {"api_duplicate_rows": demo.REPEATED_ROWS})
    assert found["invoices"]["confirmed_missing"] == 1


def test_no_sync_sees_what_the_demo_broke(context: Context, house: demo.House):
    demo.drift_silently(house.shop, house.copy)
    _, counts = sync(context)
    assert {(n.inserted, n.updated, n.deleted) for n in counts.values()} == {(0, 0, 0)}


def test_a_copy_in_step_has_the_rows_of_the_source(house: demo.House):
    assert house.rows_in_copy() == house.rows_at_source()
    demo.drift_silently(house.shop, house.copy)
    source, copy = house.rows_at_source(), house.rows_in_copy()
    assert {table for table in demo.TABLES if source[table] != copy[table]} == {"invoices", "line_items"}


def test_an_unexpected_outcome_names_what_differs_and_nothing_else():
    demo.expect("counts", {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2})
    with pytest.raises(demo.Unexpected, match=r"counts should be \{'b': 3\}, found \{'b': 2\}"):
        demo.expect("counts", {"a": 1, "b": 2}, {"a": 1, "b": 3})


@pytest.mark.parametrize("name", ["AIRFLOW_CONN_WAREHOUSE", "AIRFLOW_CONN_REPAIRSHOPR"])
def test_a_real_account_or_warehouse_is_refused_before_anything_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, "postgresql://somewhere.example/real")
    with pytest.raises(StackError, match=f"{name} may be real: unset it first"):
        demo.run(Stack(tmp_path), once=True)
    assert not any(tmp_path.iterdir())
