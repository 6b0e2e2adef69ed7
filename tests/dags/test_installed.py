"""The DAGs of an installation that has some of the sources."""

import pytest
from airflow.dag_processing.dagbag import DagBag

from include.sources import REGISTRY
from include.sources.installed import SETTING
from stack.settings import REPOSITORY

OF_ALL = {"confidence_retention", "confidence_watch", "warehouse_migrate", "warehouse_rebuild", "warehouse_rollback"}


@pytest.fixture
def bag(monkeypatch: pytest.MonkeyPatch):
    """The DAGs with that setting."""

    def parsed(setting: str) -> DagBag:
        monkeypatch.setenv(SETTING, setting)
        return DagBag(REPOSITORY / "dags")

    return parsed


@pytest.mark.parametrize("source", REGISTRY)
def test_one_source_has_its_two_dags_and_no_other_source_has_any(bag, source):
    found = bag(source)
    assert found.import_errors == {}
    assert set(found.dags) == OF_ALL | {f"{source}_sync", f"{source}_reconcile"}


def test_only_a_source_that_there_is_can_be_rebuilt(bag):
    dags = bag("square,flex").dags
    assert dags["warehouse_rebuild"].params.get_param("source").schema["enum"] == ["flex", "square"]


@pytest.mark.parametrize("setting", ["", "sqare", "square,square"])
def test_wrong_setting_is_an_import_error_that_says_so(bag, setting):
    found = bag(setting)
    files = {f"{source}_{job}.py" for source in REGISTRY for job in ("sync", "reconcile")} | {"warehouse_rebuild.py"}
    assert {path.rpartition("/")[2] for path in found.import_errors} == files
    for error in found.import_errors.values():
        assert f"WrongSources: {SETTING}='{setting}' in the environment" in error.strip().splitlines()[-1]
    assert not any(dag_id.startswith(REGISTRY) for dag_id in found.dags)
