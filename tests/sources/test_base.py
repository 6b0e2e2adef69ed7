"""What holds for every source without its doing."""

from dataclasses import replace

import pytest

from include.confidence.policy import Growth, Trend, Unproven
from include.sources import REGISTRY, get_source
from include.sources.base import entity_of, policies

DECLARED = [(source, entity.name) for source in REGISTRY for entity in get_source(source).entities]


def growth(entity) -> dict[str, Growth]:
    return {policy.metric: policy for policy in policies(entity) if isinstance(policy, Growth)}


@pytest.mark.parametrize(("source", "name"), DECLARED)
def test_every_trend_has_its_growth_beside_it(source, name):
    entity = entity_of(get_source(source), name)
    trends = {gate.metric: gate for gate in entity.gates if isinstance(gate, Trend)}
    assert trends
    assert growth(entity).keys() == trends.keys()
    assert all(found.absolute <= trends[metric].absolute for metric, found in growth(entity).items())


@pytest.mark.parametrize(("source", "name"), DECLARED)
def test_nothing_that_an_entity_declares_is_lost(source, name):
    entity = entity_of(get_source(source), name)
    assert {*entity.gates, entity.repair_share, Unproven()} <= {*policies(entity)}


def test_growth_of_an_entitys_own_replaces_the_one_for_all():
    entity, own = entity_of(get_source("repairshopr"), "line_items"), Growth("api_unique_not_in_db", absolute=300)
    found = growth(replace(entity, gates=(*entity.gates, own)))
    assert found == {**growth(entity), "api_unique_not_in_db": own}
