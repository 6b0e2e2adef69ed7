"""The task of the DAG `confidence_retention`."""

import pytest

from include.warehouse.retention import RetentionFailed
from plugins.operators.expire import ExpireOperator
from tests.plugins.conftest import Run


def expire() -> dict[str, int]:
    run = Run("scheduled__1", dag_id="confidence_retention", params={})
    return run.execute(ExpireOperator(task_id="expire"))


def test_returns_how_many_rows_it_has_dropped_of_each_table(connected, conn):
    conn.execute("INSERT INTO storage.breaker (at, run, looked_at) VALUES (now() - interval '31 days', 'a run', 1)")
    dropped = expire()
    assert dropped.pop("storage.breaker") == 1
    assert set(dropped.values()) == {0}


def test_fails_by_what_the_policy_names_in_vain(connected, conn):
    conn.execute("INSERT INTO confidence.retention (table_name, days, moment) VALUES ('a.missing', 30, 'at')")
    with pytest.raises(RetentionFailed, match=r"a\.missing \(UndefinedTable"):
        expire()
