"""What Square's scenario changes and breaks, and how it counts."""

import io
from collections.abc import Iterator

import psycopg
import pytest
from rich.console import Console

from include.api.client import ApiClient
from include.simulators import square as simulator
from include.sources import get_source
from include.sources.base import entity_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.scan import scan_entity
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from stack.demo import square as scenario
from stack.demo.steps import expect

SOURCE = get_source("square")


@pytest.fixture
def account() -> Iterator[simulator.Simulator]:
    """A small seller."""
    with simulator.running(simulator.Config.sized(120)) as running:
        yield running


@pytest.fixture
def context(account: simulator.Simulator, warehouse: str) -> Iterator[MirrorContext]:
    """The seller and its synced copy."""
    headers = SOURCE.authorize(account.token)
    with (
        psycopg.connect(warehouse, autocommit=True) as copy,
        ApiClient(SOURCE.name, account.url, headers=headers) as client,
    ):
        made = MirrorContext(SOURCE, client, copy, "a run")
        sync_entities(made, full=True)
        yield made


@pytest.fixture
def demo(account: simulator.Simulator, context: MirrorContext) -> scenario.Till:
    """The scenario's demo, without its Airflow."""
    return scenario.Till(SOURCE.name, None, context.conn, Console(file=io.StringIO()), account.control)


def test_the_act_counts_every_table():
    mirrored = [table.name for entity in SOURCE.entities for table in entity.tables]
    assert sorted(scenario.TABLES) == sorted([*mirrored, *(derived.table.name for derived in SOURCE.derived)])
    assert [*scenario.ENTITIES] == [entity.name for entity in SOURCE.entities]


def test_a_copy_in_step_has_the_rows_of_the_source(demo: scenario.Till):
    source = demo.rows_at_source()
    assert all(source[table] for table in scenario.TABLES)
    assert scenario.differing(source, demo.keys_in_copy()) == []
    scenario.drift_silently(demo)
    broken = scenario.differing(demo.rows_at_source(), demo.keys_in_copy())
    assert {"orders", "order_line_items", "transactions", "payments"} <= {*broken}


def test_a_sync_brings_just_what_the_demo_changed_also_in_a_second_one(context: MirrorContext, demo: scenario.Till):
    for _ in range(2):
        before, last = demo.rows_at_source(), demo.last_sync_id()
        scenario.change(demo.seller)
        after = demo.rows_at_source()
        changed = scenario.changes(before, after)
        assert {"catalog_items", "inventory_counts", "orders", "order_refunds", "square_sales"} <= changed.keys()
        sync_entities(context)
        assert demo.written_since(last) == changed
        assert scenario.differing(after, demo.keys_in_copy()) == []


@pytest.mark.parametrize("locations", [9, 11])
def test_an_incremental_sync_asks_as_often_as_the_demo_says(
    context: MirrorContext, demo: scenario.Till, locations: int
):
    demo.seller.mutate(*(simulator.Mutation("create", "locations") for _ in range(locations - 9)))
    sync_entities(context)
    demo.seller.reset_counters()
    sync_entities(context)
    assert demo.seller.counters().total() == scenario.incremental_requests(locations)


def test_no_sync_sees_what_the_demo_broke(context: MirrorContext, demo: scenario.Till):
    scenario.drift_silently(demo)
    last = demo.last_sync_id()
    sync_entities(context)
    assert demo.written_since(last).keys() <= {derived.table.name for derived in SOURCE.derived}


def test_a_scan_finds_just_what_the_demo_says_it_broke(context: MirrorContext, demo: scenario.Till):
    drift = scenario.drift_silently(demo)
    for entity in scenario.ENTITIES:
        metrics = scan_entity(context, entity_of(SOURCE, entity), 0, Scope()).metrics
        expected = dict.fromkeys(scenario.DRIFT, 0) | drift.figures.get(entity, {})
        expect(f"the metrics of {entity}", {name: metrics[name] or 0 for name in expected}, expected)
