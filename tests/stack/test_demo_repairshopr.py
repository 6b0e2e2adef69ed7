"""What RepairShopr's scenario breaks, and how it counts."""

import io
from collections.abc import Iterator

import psycopg
import pytest
from rich.console import Console

from include.api.client import ApiClient
from include.simulators import repairshopr as simulator
from include.sources import get_source
from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from include.warehouse.migrate import migrate
from stack.demo import repairshopr as scenario
from stack.demo.steps import Unexpected, expect
from stack.settings import REPOSITORY

SOURCE = get_source("repairshopr")


@pytest.fixture
def account() -> Iterator[simulator.Simulator]:
    """A small shop."""
    with simulator.running(simulator.Config.sized(120, rate_limit=None)) as running:
        yield running


@pytest.fixture
def context(account: simulator.Simulator, warehouse_url: str) -> Iterator[MirrorContext]:
    """The shop and its synced copy."""
    migrate(warehouse_url)
    headers = SOURCE.authorize(account.token)
    with (
        psycopg.connect(warehouse_url, autocommit=True) as copy,
        ApiClient(SOURCE.name, account.url + SOURCE.base_path, headers=headers) as client,
    ):
        made = MirrorContext(SOURCE, client, copy, "a run")
        sync_entities(made, full=True)
        yield made


@pytest.fixture
def demo(account: simulator.Simulator, context: MirrorContext) -> scenario.Shop:
    """The scenario's demo, without its Airflow."""
    return scenario.Shop(SOURCE.name, None, context.conn, Console(file=io.StringIO()), account.control, account.url)


def test_a_scan_finds_just_what_the_demo_says_it_broke(context: MirrorContext, demo: scenario.Shop):
    drift = scenario.drift_silently(demo.shop, demo.warehouse)
    found = {
        name: scan_entity(context, entity_of(SOURCE, name), 0, Scope()).metrics for name in ("invoices", "line_items")
    }
    expect("metrics", found["line_items"], drift.figures | {"api_duplicate_rows": scenario.REPEATED_ROWS})
    assert found["invoices"]["confirmed_missing"] == 1


def test_no_sync_sees_what_the_demo_broke(context: MirrorContext, demo: scenario.Shop):
    scenario.drift_silently(demo.shop, demo.warehouse)
    _, counts = sync_entities(context)
    assert {(n.inserted, n.updated, n.deleted) for n in counts.values()} == {(0, 0, 0)}


def test_a_copy_in_step_has_the_rows_of_the_source(demo: scenario.Shop):
    assert demo.rows_in_copy() == demo.rows_at_source()
    scenario.drift_silently(demo.shop, demo.warehouse)
    source, copy = demo.rows_at_source(), demo.rows_in_copy()
    assert {table for table in scenario.TABLES if source[table] != copy[table]} == {"invoices", "line_items"}


def test_a_new_field_is_told_kept_and_made_a_column_that_leaves_nothing_behind(
    context: MirrorContext, demo: scenario.Shop, warehouse_url: str
):
    # What is new, a whole scan knows.
    scan_entity(context, entity_of(SOURCE, "customers"), 0, Scope())
    name, sent = scenario.send_new_field(demo)
    sync_entities(context)
    assert scenario.changes_of(demo, name) == [f"{name} is new (text); it is kept in extra"]
    before = state_of(demo)
    scenario.make_column(demo, warehouse_url, name, sent)
    assert state_of(demo) == before
    shown = demo.screen.file.getvalue()
    assert f'COLUMN = Column("{name}")' in shown
    assert f'written: include/sources/repairshopr/tables.py: Column("{name}")' in shown


def state_of(demo: scenario.Shop) -> tuple:
    """The columns of the customers, and the files of the project that the command writes."""
    columns = demo.warehouse.execute("SELECT * FROM repairshopr.customers LIMIT 0").description
    files = sorted((REPOSITORY / "include").rglob("*.py"))
    return [column.name for column in columns], [(path, path.read_bytes()) for path in files]


def test_a_field_that_the_copy_did_not_keep_ends_the_demo(
    context: MirrorContext, demo: scenario.Shop, warehouse_url: str
):
    name, sent = scenario.send_new_field(demo)
    with pytest.raises(Unexpected, match="the field in extra should be"):
        scenario.make_column(demo, warehouse_url, name, sent)
