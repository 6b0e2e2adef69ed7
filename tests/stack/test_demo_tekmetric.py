"""What Tekmetric's scenario changes and breaks, and how it counts."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg
import pytest
from rich.console import Console

from include.api.client import ApiClient
from include.confidence.summary import ForensicSummary
from include.simulators import tekmetric as simulator
from include.sources import get_source
from include.sources.base import Api
from include.warehouse import fence
from stack.demo import tekmetric as scenario
from stack.demo.steps import expect
from stack.settings import SHOPS

SOURCE = get_source("tekmetric")
PARAMS = {"shop_id": None, "board": "ALL", "limit": 0, "ro_id": None, "store_raw": False}


@dataclass(frozen=True)
class Night:
    """A run without Airflow on two small shops; it opens the connections that the source asks for."""

    shops: simulator.Simulator
    warehouse: psycopg.Connection

    @contextmanager
    def api(self, name: str, api: Api) -> Iterator[ApiClient]:
        with ApiClient(name, self.shops.url + api.base_path, headers=api.authorize(self.shops.token)) as client:
            yield client

    def settings(self, name: str) -> Mapping[str, Any]:
        return {"shops": SHOPS}

    def sync(self, mode: str = "incremental", days_back: int = 3) -> None:
        with SOURCE.open(self.warehouse, "a sync", self) as context:
            SOURCE.sync(context, {**PARAMS, "mode": mode, "days_back": days_back}, dry_run=False)

    def scan(self, entity: str) -> ForensicSummary:
        epoch = fence.stop(self.warehouse, SOURCE.name, "a run", timeout=1).epoch
        with SOURCE.open(self.warehouse, "a run", self) as context:
            return SOURCE.scan(context, entity, epoch, {**PARAMS, "days_back": 0, "progress_every": 0})


@pytest.fixture
def night(warehouse: str) -> Iterator[Night]:
    """Two shops and their copy in step; their clock is the real one, as in the demo."""
    config = simulator.Config.sized(70, now=None)
    with simulator.running(config) as shops, psycopg.connect(warehouse, autocommit=True) as copy:
        made = Night(shops, copy)
        made.sync("backfill", days_back=0)
        yield made


@pytest.fixture
def demo(night: Night, owner: psycopg.Connection) -> scenario.Garage:
    """The scenario's demo, without its Airflow."""
    return scenario.Garage(SOURCE.name, None, owner, Console(file=io.StringIO()), night.shops.control)


def test_the_act_counts_every_mirrored_table():
    assert [*scenario.KEYS] == [table.name for entity in SOURCE.entities for table in entity.tables]
    assert [*scenario.ENTITIES] == [entity.name for entity in SOURCE.entities]


def test_a_copy_in_step_has_the_rows_and_the_days_of_the_source(demo: scenario.Garage):
    source, days = demo.at_source(), demo.days_at_source()
    assert all(source[table] for table in scenario.KEYS)
    assert source == demo.in_copy()
    assert {shop for shop, _ in days} == {shop["tm_id"] for shop in SHOPS}
    assert days == demo.days_in_copy()
    scenario.drift_silently(demo)
    broken, copy = demo.at_source(), demo.in_copy()
    assert {"repair_orders", *scenario.PARTS} - {"job_sublets"} <= {
        table for table in scenario.KEYS if broken[table] != copy[table]
    }
    assert demo.days_at_source() != demo.days_in_copy()


def test_a_sync_brings_just_what_the_demo_changed_also_in_a_second_one(night: Night, demo: scenario.Garage):
    for _ in range(2):
        last, before = demo.last_sync_id(), demo.days_in_copy()
        orders = {*scenario.change(demo.shops).values()}
        demo.shops.reset_counters()
        night.sync()
        assert len(orders) == 3
        assert demo.orders_written_since(last) == orders
        asked = demo.shops.counters()
        beside = asked.total() - asked.total("board")
        assert 3 * len(orders) + 2 <= beside <= scenario.REQUESTS_AN_ORDER * len(orders)
        assert demo.at_source() == demo.in_copy()
        assert before != demo.days_in_copy() == demo.days_at_source()


def test_no_sync_sees_what_the_demo_broke(night: Night, demo: scenario.Garage):
    scenario.drift_silently(demo)
    last = demo.last_sync_id()
    night.sync()
    assert demo.orders_written_since(last) == set()


def test_a_scan_finds_just_what_the_demo_says_it_broke(night: Night, demo: scenario.Garage):
    _, figures = scenario.drift_silently(demo)
    for entity in scenario.ENTITIES:
        expected = figures if entity == "repair_orders" else dict.fromkeys(scenario.DRIFT, 0)
        expect(f"the metrics of {entity}", night.scan(entity).metrics, expected)


def test_an_order_counts_on_the_day_of_its_shop():
    order = {"shop_id": 6212, "posted": "2026-11-02T03:30:00Z", "completed": "2026-10-30T12:00:00Z"}
    assert scenario.day_of(order) == date(2026, 11, 1)
    assert scenario.day_of(order | {"posted": None}) == date(2026, 10, 30)
    assert scenario.day_of(order | {"posted": None, "completed": None}) is None


def test_an_emptied_copy_is_filled_anew(night: Night, demo: scenario.Garage):
    demo.empty()
    assert not any(demo.in_copy().values())
    night.sync("backfill", days_back=0)
    assert demo.at_source() == demo.in_copy()
    assert demo.days_in_copy() == demo.days_at_source()
