"""Every fault that the simulator can be ordered to make ends in its outcome class, and says what to do.

`harmless`: the client copes, the figures are as without the fault. `fix`: a person has to change something. `later`:
the source may recover. `refused`: the data can't be used. Nothing is written in any of them but by a sync that copes.
"""

import pytest

from include.api.errors import FixConfiguration, RefuseData, TryLater
from include.simulators.repairshopr import Fault
from include.sources.base import SyncFailed
from include.sources.mirror.sync import sync_entities
from include.warehouse.pull import PullError

from .test_scan import DRIFT, scanned

ONCE = {"page": 2, "resource": "line_items"}
ALWAYS = {"resource": "line_items", "times": None}

HARMLESS = {
    "429 without Retry-After": Fault("status", status=429, **ONCE),
    "429 with seconds": Fault("status", status=429, retry_after=0, **ONCE),
    "429 with a date": Fault("status", status=429, retry_after=0, retry_after_form="date", **ONCE),
    "500": Fault("status", status=500, **ONCE),
    "502 in HTML": Fault("status", status=502, body="html", **ONCE),
    "503 without a body": Fault("status", status=503, body="empty", **ONCE),
    "time-out": Fault("timeout", seconds=3, **ONCE),
    "cut connection": Fault("cut", **ONCE),
    "broken JSON": Fault("broken_json", **ONCE),
    "HTML with 200": Fault("status", status=200, body="html", **ONCE),
    "empty page in the middle": Fault("empty_page", **ONCE),
    "total_pages too low": Fault("total_pages", value=1, **ALWAYS),
    "total_pages too high": Fault("total_pages", value=9, **ALWAYS),
    "total_pages missing": Fault("total_pages", value=None, **ALWAYS),
    "total_pages as text": Fault("total_pages", value="4", **ALWAYS),
    "ids as text": Fault("ids", id_form="text", **ONCE),
    "duplicated rows": Fault("duplicate_rows", value=5, **ONCE),
}
HOPELESS = {
    "401 in the middle": (Fault("status", status=401, **ONCE), FixConfiguration, "Check the token of connection"),
    "403": (Fault("status", status=403, **ONCE), FixConfiguration, "Check the permissions"),
    "422 with errors": (
        Fault("status", status=422, body="errors_list", **ONCE),
        FixConfiguration,
        "Check the run's params",
    ),
    "429 for good": (Fault("status", status=429, **ALWAYS), TryLater, "Run the task again later"),
    "500 for good": (Fault("status", status=500, **ALWAYS), TryLater, "Run the task again later"),
    "time-outs for good": (Fault("timeout", seconds=3, **ALWAYS), TryLater, "Run the task again later"),
    "cut for good": (Fault("cut", **ALWAYS), TryLater, "Run the task again later"),
    "broken JSON for good": (Fault("broken_json", **ALWAYS), TryLater, "Run the task again later"),
    "empty page for good": (Fault("empty_page", page=2, **ALWAYS), TryLater, "Run the task again later"),
    "blank ids": (Fault("ids", id_form="blank", page=1, **ALWAYS), PullError, "confidence.quarantine"),
}


def audit_and_rows(conn):
    return conn.execute(
        "SELECT (SELECT count(*) FROM confidence.change_log), (SELECT count(*) FROM repairshopr.line_items)"
    ).fetchone()


@pytest.mark.parametrize("fault", HARMLESS.values(), ids=HARMLESS)
def test_scan_copes(shop, conn, fault):
    sync_entities(shop.context)
    shop.control.fault(fault)
    summary = scanned(shop)
    assert {summary.plan.insert, summary.plan.update, summary.plan.delete} == {0}
    assert summary.metrics["confirmed_missing"] == summary.metrics["confirmed_deleted"] == 0
    assert summary.metrics["unproven"] == 0
    assert shop.control.counters().faults >= 1


@pytest.mark.parametrize(("fault", "error", "advice"), HOPELESS.values(), ids=HOPELESS)
def test_scan_fails_with_what_to_do(shop, conn, fault, error, advice):
    sync_entities(shop.context)
    before = audit_and_rows(conn)
    shop.control.fault(fault)
    with pytest.raises(error, match=advice):
        scanned(shop)
    assert audit_and_rows(conn) == before
    assert conn.execute("SELECT count(*) FROM confidence.forensic_run").fetchone() == (0,)


@pytest.mark.parametrize(("fault", "error", "advice"), HOPELESS.values(), ids=HOPELESS)
def test_sync_keeps_the_watermark_of_what_failed(shop, conn, fault, error, advice):
    shop.control.fault(fault)
    with pytest.raises(SyncFailed, match=advice):
        sync_entities(shop.context)
    state = dict(conn.execute("SELECT entity, watermark FROM confidence.sync_state").fetchall())
    assert "line_items" not in state
    assert len(state) == 6


def test_drift_figures_stand_beside_the_raw_ones(shop, conn):
    """A page that shows another's rows hides its own: raw figures show them as surplus, the second look finds them.

    A list that leaves out so much is no list.
    """
    sync_entities(shop.context)
    shop.control.fault(Fault("same_page", resource="line_items", value=1, page=2, times=None))
    summary = scanned(shop)
    metrics = summary.metrics
    assert metrics["db_not_in_api_unique"] == metrics["feed_noise"] > 0
    assert all(metrics[name] == 0 for name in DRIFT if name != "db_not_in_api_unique")
    assert "the list leaves out" in summary.incomplete


def test_answer_without_rows_is_refused(shop, conn):
    sync_entities(shop.context)
    shop.control.fault(Fault("status", resource="line_items", status=200, body="error", times=None))
    with pytest.raises(RefuseData, match="whether the API has changed"):
        scanned(shop)
