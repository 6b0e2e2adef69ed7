"""What a span says, and what it keeps to itself."""

import time

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from include.confidence.spans import PREFIX, span
from tests.confidence.builders import summary


def test_says_what_is_known(ended_spans):
    with span("scan", source="shop", limit=None, dry_run=False) as opened:
        opened.set_attribute("rows", 3)
    [ended] = ended_spans()
    assert ended.name == "sync_confidence.scan"
    assert ended.attributes == {"source": "shop", "dry_run": False, "rows": 3}
    assert ended.status.status_code is StatusCode.UNSET


def test_is_below_the_one_that_is_open(ended_spans):
    with span("scan") as scan, span("compare"):
        pass
    compare, _ = ended_spans()
    assert compare.parent == scan.get_span_context()


@pytest.mark.parametrize("error", [ValueError("Key (email)=(zoe@example.com)"), KeyboardInterrupt()])
def test_error_marks_it_and_goes_on_and_its_text_stays_out(ended_spans, error):
    with pytest.raises(type(error)) as raised, span("repair", source="shop"):
        raise error
    assert raised.value is error
    [ended] = ended_spans()
    assert (ended.status.status_code, ended.status.description) == (StatusCode.ERROR, type(error).__name__)
    assert ended.attributes == {"source": "shop", "error.type": type(error).__name__}
    assert ended.events == ()
    assert "zoe" not in ended.to_json()


def test_costs_next_to_nothing_without_a_provider():
    """Some microseconds; a scan has two."""
    assert not trace.get_tracer(PREFIX).start_span("x").is_recording()
    begun = time.perf_counter()
    for _ in range(1000):
        with span("scan", source="shop", entity="orders", limit=None):
            pass
    assert time.perf_counter() - begun < 0.5


def test_figures_of_a_summary_are_what_was_counted():
    found = summary(4, plan=(1, 2, 3), live_rows=7, metrics={"missing": 4, "surplus": None})
    assert found.figures == {
        "missing": 4,
        "live_rows": 7,
        "planned_insert": 1,
        "planned_update": 2,
        "planned_delete": 3,
    }
