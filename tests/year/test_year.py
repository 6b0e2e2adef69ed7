"""A few weeks of the year: its aims are met, and a policy that is missing shows."""

import logging
from collections.abc import Collection
from dataclasses import replace

import pytest

from include.sources import REGISTRY
from tests.year import real, report
from tests.year.incidents import Incident, plant
from tests.year.play import Ledger, Told, Year, known, play
from tests.year.shop import List, Shop

WEEKS = 12
LATEST = 7 * WEEKS - 50


def planted(source: str, without: Collection[str] = (), incidents: int = 8) -> Year:
    shop = Shop(source, "test", nights=7 * WEEKS)
    return play(shop, plant(shop, incidents, latest=LATEST), without)


def orders() -> List:
    return next(table for table in Shop("square", "test", nights=7 * WEEKS).lists if table.name == "orders")


def told(kind: str, size: float, without: Collection[str] = (), table: List | None = None) -> Told:
    table = table or orders()
    return Ledger(table, without).play().tell(Incident(kind, size, table, 30, "test"))


@pytest.mark.parametrize("source", REGISTRY)
def test_the_aims_are_met(source):
    year = planted(source)
    assert [each for each in year.told if report.is_late(each)] == []
    assert len(year.warned) <= report.MOST_WARNINGS
    assert len(year.held) <= report.MOST_HOLDS


@pytest.mark.parametrize(
    ("kind", "size", "policies"),
    [
        ("a mass loss in the copy, as a share", 0.3, {"Trend"}),
        ("lost lines, as a share of their records", 0.5, {"Trend"}),
        ("a leak of new rows, a night", 1, {"Lasting", "Growth"}),
        ("lost pages", 0.1, {"Lasting"}),
        ("renamed fields", 1, {"FieldsLost"}),
    ],
)
def test_without_its_policy_an_incident_is_told_late_or_never(kind, size, policies):
    assert not report.is_late(told(kind, size))
    assert report.is_late(told(kind, size, policies))


def test_a_policy_that_warns_of_nothing_shows():
    table = orders()
    noisy = [
        replace(policy, absolute=0, share=0.0) if hasattr(policy, "absolute") else policy for policy in table.policies
    ]
    table.policies = noisy
    nights = Ledger(table).play().nights
    assert sum(night.severity > 0 for night in nights) > report.MOST_WARNINGS


def test_what_is_told_late_is_a_failure_of_the_year():
    year = planted("storage", {"Lasting", "Growth"}, incidents=40)
    results = report.Results(["test"], {"storage": [year]}, {}, {}, 0, 1.0)
    missed = report.failures(results)
    assert any("was told never" in line for line in missed)
    assert "an aim was missed" in report.page(results)


def test_lines_are_told_of_where_the_record_itself_is_right():
    assert told("lost lines, as a share of their records", 0.1).nights == 0
    assert told("a leak of lines, a night", 1).policies == ["Lasting"]


def test_the_history_is_cut_as_the_product_cuts_it():
    table = orders()
    history = Ledger(table).play().histories[-1]
    assert len(history) == 42
    old = replace(history[-1], accepted=True, scan_id="accepted")
    assert known([*history, old]) == [*history, old]
    assert known([*history, history[-1]]) == history


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", ["flex", "storage"])
def test_the_model_agrees_with_real_nights(postgres, migrated, source, caplog):
    caplog.set_level(logging.CRITICAL)
    with real.opened(source, postgres, migrated) as act:
        played = real.play(act, 9)
    assert played.unlike == []
    assert played.grown["confidence.forensic_run"][0] == 1
