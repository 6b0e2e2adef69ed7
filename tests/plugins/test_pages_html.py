"""The pages as people get them: what they say of each state, that they are well-formed, and that no value is markup."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.api_fastapi.core_api import security
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from jwt import InvalidTokenError

from include.confidence.account import Account
from include.confidence.findings import OpenFinding
from include.confidence.holds import NOBODY
from include.confidence.outcome import Evidence, LatestScan, Repair
from include.confidence.policy import Gate, Verdict
from include.confidence.proofs import PutOff
from include.confidence.queries.changes import Change, Difference
from include.confidence.queries.field_census import EntityFields, FoundChange, SourceField
from include.confidence.queries.history import RowChange, RowHistory
from include.confidence.queries.months import Answers, NightCounts, SourceMonth, StoodStill
from include.confidence.queries.nights import Night, with_failed
from include.confidence.queries.overview import Progress, Reading
from include.confidence.queries.paging import Page
from include.confidence.queries.planned import PlanCount, PlanFilter, PlannedChange
from include.confidence.queries.runs import Run
from include.confidence.queries.scans import Scan
from include.confidence.queries.syncs import SyncRow
from include.confidence.queries.trends import EntityScope, Point, RunDrift, Series, TotalDrift
from include.confidence.questions import Asked, Given
from include.confidence.stop_budget import Proof
from include.confidence.summary import Plan
from include.confidence.unproven import Unproven
from include.warehouse.fence import Writer
from include.warehouse.patterns import Pattern
from include.warehouse.rollback import Conflict, Undone
from include.warehouse.sync_log import Counts
from plugins.pages import access, html, months, question, render, summaries, warehouse
from plugins.pages.airflow_state import Answer, Decision, FailedRun, Orchestration, Question, RollbackRun, Schedule
from plugins.pages.plan import Aftermath
from plugins.pages.status import Alert, HealthFigures, SourceDetail, TableFigures

SOURCE = "repairshopr"
RECONCILE = f"{SOURCE}_reconcile"
AT = datetime(2026, 3, 8, 3, 0, 5, tzinfo=UTC)
RUN = f"{RECONCILE}/scheduled__2026-03-08T03:00:00+00:00"
HOSTILE = """"><script>alert(1)</script><img src=x onerror='alert(2)'>"""

ROW = SyncRow(
    sync_id=7,
    source=SOURCE,
    kind="repair",
    run=RUN,
    state="success",
    started_at=AT,
    finished_at=AT + timedelta(seconds=4),
    duration_seconds=4.0,
    counts=Counts(read=1200, updated=2, deleted=1),
    entities={"customers": Counts(updated=2), "line_items": Counts(deleted=1)},
    requests=12,
    request_errors=1,
    undoes=None,
    undone_by=None,
    reason=None,
    error=None,
)
SCAN = Scan(
    scan_id="scan 1",
    source=SOURCE,
    entity="line_items",
    scope="all",
    run=RUN,
    epoch=3,
    scanned_at=AT,
    verdict=Verdict.HOLD,
    reasons=("api_unique_not_in_db is 40, above its limit 25: worse in two consecutive runs",),
    metrics={"api_unique_not_in_db": 40, "feed_noise": 3},
    telemetry={"api_reported_total_entries": 1234},
    gates=(Gate("api_unique_not_in_db", 0.0, 25.0, 40, Verdict.HOLD, "above its limit"),),
    plan=Plan(insert=40, update=2, delete=0),
    live_rows=1194,
    rows=1234,
    proven=1230,
    accounts={"line_items": Account(live=1194, equal=1190, unproven=4, missing=40)},
    incomplete="",
    examples={"missing_examples": [7, [8, "x"]], "empty_examples": []},
    evidence="e1",
    patterns=(Pattern("line_items", "insert", "page", "_page", "3", 38, 40, present=50, rows=1234, score=99.0),),
    decision="repair",
    decided_by="oncall",
    decided_at=AT,
    decision_reason="the shop moved",
    left_out=False,
)
PLANNED = PlannedChange(
    change_id=1,
    table="line_items",
    key={"id": 7},
    operation="insert",
    status="confirmed",
    why=None,
    looked=False,
    before=None,
    after={"id": 7, "name": "Cable", "note": None},
    differs=(),
    planned_at=AT,
)
CHANGE = Change(11, "repairshopr.customers", {"id": 5}, "update", (Difference("email", "a@old.example", None),))
ROW_CHANGE = RowChange(
    change_id=11,
    sync_id=8,
    kind="rollback",
    run=RUN,
    undoes=7,
    sync_started_at=AT,
    changed_at=AT + timedelta(seconds=2),
    operation="update",
    differences=CHANGE.differences,
    before={"id": 5, "email": "a@old.example"},
    after={"id": 5, "email": None},
    after_known=True,
)
HISTORY = RowHistory(
    table="repairshopr.customers",
    key={"id": 5},
    row_known=True,
    row={"id": 5, "email": None, "row_hash": 77, "deleted_at": None, "sync_id": 8},
    kept_since=None,
    items=(ROW_CHANGE,),
    next_cursor="older",
)
SERIES = Series(
    "line_items",
    "all",
    "api_unique_not_in_db",
    (
        Point(AT - timedelta(days=1), RUN, 0, None, None, Verdict.PASS, False),
        Point(AT, RUN, 40, 0.0, 25.0, Verdict.HOLD, True),
    ),
    2,
)
DRIFT = TotalDrift(
    (RunDrift(RUN, AT - timedelta(days=1), None, None, None, None), RunDrift(RUN, AT, 40, 2, 0, 4)),
    2,
)
HEALTH = HealthFigures(
    seconds=5.0,
    median_seconds=4.0,
    requests=100,
    request_errors=6,
    error_rate=0.06,
    schedule_seconds=900.0,
    tables=(TableFigures("line_items", 1234.0, 3, 42, "hold"),),
    alerts=(Alert("error_rate", SOURCE, 0.06, 0.05, "6 of 100 requests failed within a day"),),
)
MONTH = SourceMonth(
    source=SOURCE,
    month=date(2026, 3, 1),
    nights=NightCounts(passed=27, warned=2, held=1, failed=0, not_judged=0, no_scan=1, proven=28),
    rows_repaired=1815,
    rows_rolled_back=0,
    stood_still=StoodStill(scans=7200.0, held=3600.0, other=600.0, open=False, measured_since=None),
    answers=Answers(asked=3, unanswered=1, median_seconds=300.0, longest_seconds=3600.0),
    fresh_share=0.99999,
    freshness_limit_seconds=1800.0,
)
UNKNOWN = replace(
    MONTH,
    nights=replace(MONTH.nights, proven=None),
    rows_repaired=None,
    rows_rolled_back=None,
    stood_still=None,
    answers=Answers(0, 0, None, None),
    fresh_share=None,
    freshness_limit_seconds=None,
)
PHONE = SourceField("phone", "declared", "", ("object", "text"), ("object",), 0.975, 40, (), AT, AT, AT, False)
STATUS = SourceField("status", "kept", "", ("text",), (), None, None, ("NEW", "PAID"), None, AT, AT, True)
CUSTOMER_FIELDS = EntityFields("customers", 40, AT, False, 1, 0, 1, 1, 1, (PHONE, STATUS))
RENAMED = FoundChange(
    3,
    "customers",
    "phone",
    "renamed",
    "declared",
    "mobile",
    "phone looks renamed: phone -> mobile; its column gets no values",
    RUN,
    AT,
)
DOUBT = Unproven("line_items", [17], "the source answered 500", AT - timedelta(days=2), 3, None)
FOUND = OpenFinding(
    source=SOURCE,
    code="writer_unattended",
    subject=f"{RUN}/3",
    run=RUN,
    what="the writer stands",
    consequence="nothing is synced",
    next_step="clear resume_writer",
    first_seen=AT,
    settled=True,
)
DETAIL = SourceDetail(
    writer=Writer(SOURCE, "running", 3, RUN, AT, None),
    verdict=Verdict.HOLD,
    judged_run=RUN,
    scanned_at=AT,
    decision=None,
    decided_by=None,
    rows=1234,
    proven=1230,
    parts={},
    unproven=4,
    unproven_since=AT - timedelta(days=2),
    freshness_seconds=1234.0,
    stalest="line_items",
    last_sync=replace(ROW, kind="sync"),
    progress=None,
    findings=(FOUND,),
    watched_at=AT,
    nights=(Night(AT.date() - timedelta(days=1), "no scan", None), Night(AT.date(), "hold", RUN)),
    source=SOURCE,
    entities=("customers", "line_items", "tickets"),
    proofs=(Proof("tickets", AT - timedelta(days=3)), Proof("customers", AT, 60.0), Proof("line_items", AT, 2.5)),
    put_off=(),
    airflow=Orchestration(Schedule(AT + timedelta(days=1), False), Schedule(None, True), None, None, "failed"),
    health=HEALTH,
    unproven_rows=(DOUBT, replace(DOUBT, key=["a", 2], last_look=AT)),
    scans=(SCAN,),
    last_repair=ROW,
)
HELD = replace(
    DETAIL,
    writer=Writer(SOURCE, "stopped", 3, RUN, AT, "line_items (all): too much"),
    airflow=replace(DETAIL.airflow, running=RUN, decision=Decision("manual__1+0", "held", AT, "http://x")),
)
ATTEMPT = "0192f3c2-0000-7000-8000-000000000001"
TEXT = """\
No sync of `repairshopr` runs until you answer.

### line_items
- **40** rows that the copy lacks.

### What a repair would write in the copy
- [line_items](http://x/sync-confidence/plans/e1): 40 rows to insert

### The answers
- **Keep stopped**: nothing is written until *Ask me again*.
- **Repair, then resume**: the 42 changes above are made.

A run that waits begins then."""
QUESTION = Question(ATTEMPT, "What Airflow still says", ("Keep stopped", "Repair, then resume"), "Keep stopped", None)
KEPT = Asked(RUN, AT, TEXT, ("customers", "line_items"), None, None, None, None, ())
PENDING = Aftermath(True, None, None, None, None, None)
DONE = Repair(12, "success", AT, {}, None, (), False)
LINES = LatestScan("line_items", "all", 3, AT, True, Verdict.HOLD, 42, 1234, 1230)
EVIDENCE = Evidence(RUN, DETAIL.writer, (), (LINES, replace(LINES, entity="tickets", planned=200, left_out=True)))
CHECKS = ({"entity": "line_items", "figure": "planned_changes_open", "before": 0, "after": 0, "margin": 0},)
AT_WORK = replace(DONE, state="running", started_at=AT + timedelta(minutes=9))
VERIFIED = replace(AT_WORK, state="success", counts={"line_items": Counts(updated=42)}, verified_at=AT, checks=CHECKS)
REPAIRED = replace(
    EVIDENCE,
    repairs=(VERIFIED,),
    decision="repair",
    decided_by="Ada",
    decided_at=AT,
    reason="the shop moved",
)
READING = Reading("line_items", 12, 40, 1100, AT, AT)
SCANNING = replace(
    DETAIL,
    writer=Writer(SOURCE, "stopped", 4, RUN, AT, None),
    progress=Progress(RUN, ("customers",), (READING,)),
    airflow=replace(DETAIL.airflow, running="x"),
)
BARE = replace(
    DETAIL,
    proofs=(Proof("customers", None), Proof("line_items", None), Proof("tickets", None)),
    verdict=None,
    judged_run=None,
    scanned_at=None,
    decision=None,
    decided_by=None,
    rows=None,
    proven=None,
    unproven=0,
    unproven_since=None,
    freshness_seconds=None,
    stalest=None,
    last_sync=None,
    findings=(),
    watched_at=None,
    airflow=Orchestration(None, None, None, None),
    health=None,
    unproven_rows=(),
    scans=(),
    last_repair=None,
)


TABLES = {"repairshopr.customers": Counts(updated=1200, inserted=3, deleted=4)}
CONFLICT = Conflict.of("of repairshopr.customers by sync_id 8, 9", [str(key) for key in range(101, 113)], (8, 9))
ROLLED = RollbackRun(
    run_id="manual__1+0",
    state="success",
    paused=False,
    sync_id=7,
    reason="wrong shop",
    dry_run=True,
    by="oncall",
    triggered_at=AT,
    ended_at=AT,
    undone=Undone(None, TABLES, ()),
    failure=None,
)


class Document(HTMLParser):
    """An HTML page, read strictly: what is opened is closed in order, and what people are told lies in its place."""

    VOID = frozenset({"meta", "link", "br", "input", "img"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[set[str]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append(set())
        elif "table" in self.open:
            self.tables[-1].add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open:
            self.text += data

    def all(self, *tags: str) -> list[tuple[str, dict[str, str | None]]]:
        return [element for element in self.elements if element[0] in tags]

    def links(self) -> dict[str, dict[str, str | None]]:
        return {attrs["href"]: attrs for _, attrs in self.all("a")}

    def check(self) -> None:
        """What a reader, or a screen reader, has to be able to rely on."""
        levels = [int(tag[1]) for tag, _ in self.all("h1", "h2", "h3", "h4")]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
        assert [tag for tag, _ in self.all("main", "title")] == ["title", "main"]
        assert all("caption" in inside for inside in self.tables)
        assert all("scope" in attrs for _, attrs in self.all("th"))
        assert all(attrs.get("aria-label") for _, attrs in self.all("nav"))
        ids = [attrs["id"] for _, attrs in self.elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        labelled = {attrs["for"] for _, attrs in self.all("label")}
        asked = self.all("input", "textarea")
        assert {attrs["id"] for _, attrs in asked if attrs.get("type") != "hidden"} == labelled
        # Only our own files run: nothing inline but data.
        for _, attrs in self.all("script"):
            assert attrs.get("src", "").startswith("/airflow/sync-confidence/static/") or attrs["type"] == (
                "application/json"
            )
        assert not [name for _, attrs in self.elements for name in attrs if name.startswith("on")]


def request() -> Request:
    return Request({"type": "http", "root_path": "/airflow/sync-confidence", "headers": [], "query_string": b""})


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the warehouse and Airflow say; a test replaces what it is about."""
    says: dict[str, Any] = {
        "overview": [DETAIL],
        "detail": DETAIL,
        "list_parts": [EntityScope("customers", "all", 2, AT), EntityScope("line_items", "all", 2, AT)],
        "read_series": [SERIES],
        "read_drift": DRIFT,
        "list_scans": Page((SCAN,), None),
        "list_changes": Page((CHANGE,), "older"),
        "list_syncs": Page((ROW,), "older"),
        "read_sync": ROW,
        "rollback_run": ROLLED,
        "source_of_sync": SOURCE,
        "run_state": None,
        "question_of": None,
        "comes": False,
        "kept": KEPT,
        "answers": [],
        "aftermath": PENDING,
        "evidence": replace(EVIDENCE, scans=()),
        "failed_runs": [],
        "with_data": (),
        "of_sources": [MONTH],
        "list_planned": Page((PLANNED,), "next"),
        "count_planned": [PlanCount("line_items", "insert", "confirmed", 40)],
        "logged_tables": {"line_items": "repairshopr.line_items"},
        "days_kept": 30,
        "name_planned": {},
        "of_row": HISTORY,
        "read_run": Run(
            RUN, SOURCE, Verdict.HOLD, (SCAN,), SCAN.plan, 1234, 1230, (DOUBT,), ROW.counts, (ROW,), {}, 754.0
        ),
        "read_fields": [CUSTOMER_FIELDS],
        "list_field_changes": Page((RENAMED,), "older"),
    }
    for name in ("overview", "detail"):
        monkeypatch.setattr(html.status, name, lambda *_, of=name: says[of])
    monkeypatch.setattr(html.months, "of_sources", lambda *_: says["of_sources"])
    monkeypatch.setattr(html.history, "of_row", lambda *_: says["of_row"])
    monkeypatch.setattr(html.plan, "aftermath", lambda *_: says["aftermath"])
    monkeypatch.setattr(html.run_evidence, "read", lambda *_: says["evidence"])
    for name in ("question_of", "comes"):
        monkeypatch.setattr(html.question, name, lambda *_, of=name: says[of])
    monkeypatch.setattr(html.question.questions, "of_run", lambda *_: says["kept"])
    monkeypatch.setattr(html.question.questions, "answers", lambda *_: says["answers"])
    loaded = ("rollback_run", "source_of_sync", "run_state", "failed_runs", "with_data")
    for name in ("list_planned", "name_planned", "count_planned", "logged_tables", "days_kept", *loaded):
        monkeypatch.setattr(html, name, lambda *_, of=name, **__: says[of])
    lists = ("list_parts", "list_scans", "list_changes", "list_syncs", "read_fields", "list_field_changes")
    for name in (*lists, "read_series", "read_drift", "read_sync", "read_run"):
        monkeypatch.setattr(html, name, lambda *_, of=name, **__: says[of])
    return says


def read(answer: Any, code: int = 200) -> Document:
    assert answer.status_code == code
    document = Document(answer.body.decode())
    document.check()
    return document


def overview(sources: tuple[str, ...] = (SOURCE,), *, decider: bool = True) -> Document:
    return read(html.overview(request(), None, None, sources, (), decider))


def of_source(*, decider: bool = True, **asked: Any) -> Document:
    return read(html.of_source(request(), SOURCE, None, None, (SOURCE,), decider, **asked))


def of_sync(*, decider: bool = True) -> Document:
    return read(html.of_sync(request(), SOURCE, 7, None, (SOURCE,), decider))


def of_rollback(*, decider: bool = True) -> Document:
    return read(html.of_rollback(request(), SOURCE, 7, ROLLED.run_id, None, None, (SOURCE,), decider))


def of_plan(**chosen: str) -> Document:
    return read(html.of_plan(request(), SOURCE, SCAN, PlanFilter(**chosen), None, (SOURCE,), True))


def of_row(cursor: str | None = None) -> Document:
    return read(html.of_row(request(), SOURCE, HISTORY.table, HISTORY.key, None, (SOURCE,), cursor))


def of_fields(source: str = SOURCE) -> Document:
    return read(html.of_fields(request(), source, None, (source,)))


def of_months() -> Document:
    return read(html.of_months(request(), None, None, (SOURCE,)))


def of_run(
    dag_id: str = RECONCILE, sources: tuple[str, ...] = (SOURCE,), *, decider: bool = True, code: int = 200
) -> Document:
    return read(html.of_run(request(), dag_id, RUN.partition("/")[2], None, None, sources, decider), code)


def test_overview_of_a_running_writer(known):
    page = overview()
    assert "1 source: 1 running." in page.text
    assert "running" in page.text
    assert "20 min 34 s behind" in page.text
    assert "2026-03-09 03:00 UTC" in page.text
    assert "paused" in page.text
    assert "nothing under way" in page.text


def test_overview_of_a_hold_leads_to_its_question(known):
    known["overview"] = [HELD]
    page = overview()
    assert "1 held (repairshopr)" in page.text
    assert "line_items (all): too much" in page.text
    assert f"/airflow/sync-confidence/dags/{RECONCILE}/runs/manual__1%2B0#question" in page.links()


def asking(known, *entities: str) -> None:
    """The newest run asks, with plans of these entities."""
    decision = Decision(RUN.partition("/")[2], "held", AT, "http://x")
    scans = tuple(replace(SCAN, scan_id=name, entity=name) for name in entities)
    known["detail"] = replace(HELD, airflow=replace(HELD.airflow, decision=decision), scans=scans)
    known["read_run"] = replace(known["read_run"], scans=scans)
    known["question_of"] = QUESTION


@pytest.mark.parametrize("page_of", [of_source, of_run])
def test_question_is_answered_by_a_form_that_says_what_each_answer_does(known, page_of):
    asking(known, "customers", "line_items")
    page = page_of()
    ((_, form),) = page.all("form")
    run = "scheduled__2026-03-08T03%3A00%3A00%2B00%3A00"
    assert form["data-answer"] == (
        f"/airflow/api/v2/dags/{RECONCILE}/dagRuns/{run}/taskInstances/decide/-1/hitlDetails"
    )
    assert form["data-attempt"] == ATTEMPT
    assert form["data-answered"] == f"/airflow/sync-confidence/dags/{RECONCILE}/runs/{run}"
    assert json.loads(form["data-plans"]) == {"customers": 42, "line_items": 42}
    assert [attrs["name"] for _, attrs in page.all("textarea")] == ["reason"]
    fields = {(attrs["name"], attrs.get("value")): attrs for _, attrs in page.all("input")}
    # The option that is taken if nobody answers is the one that is chosen already.
    assert "checked" in fields["option", "Keep stopped"]
    assert "checked" not in fields["option", "Repair, then resume"]
    assert "data-repairs" in fields["option", "Repair, then resume"]
    assert "data-repairs" not in fields["option", "Keep stopped"]
    assert {value for name, value in fields if name == "repair"} == {"customers", "line_items"}
    # What is written, a person ticks.
    assert not any("checked" in attrs for (name, _), attrs in fields.items() if name == "repair")
    # The text as it was kept, with what each answer would do beside it and not above.
    assert "Nothing is written until Ask me again." in page.text
    assert page.text.count("The 42 changes above are made.") == 1
    assert "Repair customers40 to insert, 2 to update, 0 to delete.\n" in page.text
    assert "**" not in page.text
    assert "What Airflow still says" not in page.text
    assert "http://x/sync-confidence/plans/e1" in page.links()
    # Airflow's own page takes the answer too.
    assert any("/tasks/decide/required_actions" in href for href in page.links())


def test_question_that_ends_while_the_page_is_made_is_left_out(known):
    asking(known, "line_items")
    known["question_of"] = None
    assert "The question" not in of_source().text
    for page in (of_source(), of_run()):
        assert not page.all("form")


def test_run_keeps_its_question_with_all_answers_if_its_task_was_marked(known):
    asking(known, "line_items")
    known |= {"question_of": None, "answers": [Given("keep", "Ada", AT, "first I ask", ())]}
    known["evidence"] = replace(EVIDENCE, writer=Writer(SOURCE, "stopped", 3, RUN, AT, "too much"))
    text = " ".join(of_run().text.split())
    assert "Nobody is asked now. The button asks the question" in text
    assert "Ada chose Keep stopped. Reason: first I ask" in text
    assert "The question as it was asked No sync of" in text
    known["kept"] = None
    assert "Ada chose Keep stopped" in of_run().text
    known["answers"] = []
    assert "The question" not in of_run().text


def test_run_that_is_about_to_ask_says_so_until_it_asks(known):
    """Here leads "Ask me again"."""
    asking(known, "line_items")
    # Airflow still has the answer to the question before.
    known |= {"question_of": replace(QUESTION, answer=Answer("Keep stopped", "Ada", AT, "", ())), "comes": True}
    page = of_run()
    assert "Answered by" not in page.text
    assert "is about to ask what to do. This page loads itself again every 3 seconds" in page.text
    [(_, reload)] = [each for each in page.all("meta") if "http-equiv" in each[1]]
    run = "scheduled__2026-03-08T03%3A00%3A00%2B00%3A00"
    assert reload["content"] == f"3; url=/airflow/sync-confidence/dags/{RECONCILE}/runs/{run}"
    known |= {"question_of": QUESTION, "comes": False}
    page = of_run()
    assert "about to ask" not in page.text
    assert page.all("form")
    assert not [attrs for _, attrs in page.all("meta") if "http-equiv" in attrs]


ANSWERED = replace(QUESTION, answer=Answer("Keep stopped", "Ada", AT, "", ()))


@pytest.mark.parametrize(
    ("writer", "soon", "found", "decided_at", "comes"),
    [
        ({}, True, None, None, True),
        # It was answered, and is asked anew.
        ({}, True, ANSWERED, AT + timedelta(seconds=9), True),
        # It was answered just now, for the first time or once more.
        ({}, True, ANSWERED, None, False),
        ({}, True, ANSWERED, AT - timedelta(minutes=9), False),
        ({}, False, None, None, False),
        ({"hold_reason": None}, True, None, None, False),
        ({"run": "another"}, True, None, None, False),
    ],
)
def test_when_a_run_is_about_to_ask(monkeypatch, writer, soon, found, decided_at, comes):
    held = replace(HELD.writer, **{"run": RUN} | writer)
    monkeypatch.setattr(question.fence, "read", lambda *_: held)
    monkeypatch.setattr(question, "is_about_to_ask", lambda *_: soon)
    monkeypatch.setattr(question, "question_of", lambda *_: found)
    kept = replace(KEPT, decision=decided_at and "keep", decided_at=decided_at)
    monkeypatch.setattr(question.questions, "of_run", lambda *_: kept)
    run = Run(RUN, SOURCE, Verdict.HOLD, (SCAN,), SCAN.plan, 1234, 1230, (DOUBT,), ROW.counts, (ROW,), {}, 754.0)
    assert question.comes(None, None, run) == comes


@pytest.mark.parametrize(
    ("decided_at", "repairs", "told"),
    [
        (None, (), "The run takes up the answer now."),
        (AT + timedelta(seconds=9), (), "The repair begins next."),
        (AT + timedelta(seconds=9), (AT_WORK,), "The repair is under way (sync 12)."),
    ],
)
def test_run_that_acts_on_an_answer_says_how_far_it_is(known, decided_at, repairs, told):
    asking(known, "line_items")
    known["question_of"] = replace(QUESTION, answer=Answer("Repair, then resume", "Ada", AT, "", ()))
    known["kept"] = replace(KEPT, decided_at=decided_at)
    stopped = Writer(SOURCE, "stopped", 3, RUN, AT, None)
    known["evidence"] = replace(REPAIRED, writer=stopped, repairs=repairs)
    known["run_state"] = "running"
    page = of_run()
    assert told in page.text
    assert "This page loads itself again every 3 seconds, until the run has ended." in page.text
    assert [attrs for _, attrs in page.all("meta") if "http-equiv" in attrs]
    known |= {"run_state": "success", "evidence": REPAIRED}
    page = of_run()
    assert "loads itself again" not in page.text
    assert not [attrs for _, attrs in page.all("meta") if "http-equiv" in attrs]


@pytest.mark.parametrize("page_of", [overview, of_source, of_run])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "Repaired 42 rows (sync 12, verified). Left open: tickets 200."),
        (
            {"repairs": (replace(VERIFIED, verified_at=None, checks=()),)},
            "Repaired 42 rows (sync 12, not verified). Left open: tickets 200.",
        ),
        (
            {"repairs": (replace(VERIFIED, checks=({**CHECKS[0], "after": 3},)),)},
            "worse after it: line_items.planned_changes_open). Left open: line_items 3, tickets 200.",
        ),
        (
            {"repairs": (replace(VERIFIED, undone=True),)},
            "The repair (sync 12) was rolled back. Left open: line_items 42, tickets 200.",
        ),
        ({"repairs": (), "decision": "resume"}, "Accepted without a repair: line_items 42, tickets 200."),
        ({"repairs": (), "decision": None}, "Left open: line_items 42, tickets 200."),
    ],
)
def test_what_was_repaired_and_what_is_left_open(known, page_of, changes, told):
    known["evidence"] = replace(REPAIRED, **changes)
    assert told in " ".join(page_of().text.split())


def test_what_is_not_decided_is_not_left_open(known):
    known["evidence"] = replace(EVIDENCE, writer=Writer(SOURCE, "stopped", 3, RUN, AT, "too much"))
    for page in (overview(), of_source(), of_run()):
        assert "Left open" not in page.text


def test_what_drifted_says_what_became_of_it(known):
    known["evidence"] = REPAIRED
    known["detail"] = replace(DETAIL, scans=(SCAN, replace(SCAN, entity="tickets", left_out=True)))
    text = " ".join(of_source().text.split())
    assert "1,194 live rows looked at. Repaired by sync 12, verified." in text
    assert "1,194 live rows looked at. Accepted: 200, without a repair." in text


def test_run_has_what_verify_found(known):
    known["evidence"] = REPAIRED
    text = " ".join(of_run().text.split())
    assert "Verified 2026-03-08 03:00 UTC: none of 1 figures worse than before the repair" in text
    assert "planned_changes_open" in text


def test_one_plan_is_not_to_be_left_out(known):
    asking(known, "line_items")
    assert not [attrs for _, attrs in of_run().all("input") if attrs["name"] == "repair"]


def test_question_of_an_earlier_version_is_airflows_text(known):
    asking(known, "line_items")
    for kept in (None, replace(KEPT, text="", planned=())):
        known["kept"] = kept
        page = of_run()
        assert "What Airflow still says" in page.text
        assert [attrs["value"] for _, attrs in page.all("input") if attrs["name"] == "option"] == [*QUESTION.options]


def test_who_may_not_answer_reads_the_question_and_which_role_it_takes(known):
    asking(known, "line_items")
    assert "Read the question" in of_source(decider=False).text
    for page in (of_source(decider=False), of_run(decider=False)):
        assert not page.all("form", "input", "button")
        assert "Decide what to do" not in page.text
        assert "You may not answer: that takes the role op or admin" in page.text
        assert "The 42 changes above are made." in page.text


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer("Repair, then resume", "Ada", AT, "the shop moved", ("payments",)), "Answered by Ada, "),
        (Answer("Keep stopped", None, AT, "", ()), "Nobody answered in time, "),
    ],
)
def test_question_that_was_answered_says_by_whom_and_how(known, answer, told):
    asking(known, "line_items")
    known["question_of"] = replace(QUESTION, answer=answer)
    page = of_run()
    assert f"{told}2026-03-08 03:00:05 UTC: {answer.option}" in page.text
    assert ("without payments. Reason: the shop moved" in page.text) == bool(answer.reason)
    assert "No sync of repairshopr runs" in page.text
    assert not page.all("form")


def test_answer_before_the_last_one_stands_outside_of_the_folded_question(known):
    asking(known, "line_items")
    known["question_of"] = replace(QUESTION, answer=Answer("Keep stopped", "Ada", AT, "", ()))
    before = "The question of then was answered by Bob."
    known["kept"] = replace(KEPT, text=TEXT.replace("\n\n### line_items", f"\n\n{before}\n\n### line_items"))
    text = of_run().text
    assert text.index("Answered by Ada") < text.index(before) < text.index("The question as it was asked")


@pytest.mark.parametrize("taken", [True, False])
def test_all_answers_before_are_listed_if_there_were_several(known, taken):
    asking(known, "line_items")
    known["question_of"] = replace(QUESTION, answer=Answer("Resume without repair", "Eve", AT, "", ()))
    known["kept"] = replace(KEPT, decided_at=AT + timedelta(seconds=1) if taken else AT - timedelta(seconds=1))
    known["answers"] = [
        Given("keep", "Ada", AT, "<b>first</b> I ask", ()),
        Given("keep", NOBODY, AT, None, ()),
        *([Given("resume", "Eve", AT, None, ())] if taken else []),
    ]
    text = " ".join(of_run().text.split())
    assert "Ada chose Keep stopped. Reason: <b>first</b> I ask" in text
    assert "nobody answered in time: Keep stopped" in text
    assert "Eve chose" not in text
    del known["answers"][0]
    assert "Answers before" not in of_run().text


def test_hold_that_nobody_is_asked_about_has_a_button_to_be_asked(known):
    known["overview"] = [replace(HELD, airflow=replace(DETAIL.airflow, running=RUN))]
    known["detail"] = known["overview"][0]
    assert "asks if that still holds" in of_source().text
    assert f"/airflow/sync-confidence/sources/{SOURCE}#hold" not in overview().links()
    assert "asks if that still holds" in overview().text
    known["overview"] = [replace(HELD, airflow=DETAIL.airflow)]
    known["detail"] = known["overview"][0]
    assert f"/airflow/sync-confidence/sources/{SOURCE}#hold" in overview().links()
    page = of_source()
    run = f"/airflow/dags/{RECONCILE}/runs/scheduled__2026-03-08T03%3A00%3A00%2B00%3A00"
    assert page.links()[run]["target"] == "_top"
    ((_, form),) = page.all("form")
    assert form["data-ask"] == f"/airflow/api/v2/dags/{RECONCILE}/clearTaskInstances"
    assert form["data-run-id"] == "scheduled__2026-03-08T03:00:00+00:00"
    assert form["data-question"] == f"{run}#question".replace("/airflow", "/airflow/sync-confidence")
    assert "nothing is scanned again, and nothing is written before you answer" in page.text


def test_overview_shows_how_far_a_scan_is(known):
    known["overview"] = [SCANNING]
    page = overview()
    assert "1 of 3 entities scanned" in page.text
    assert "line_items: 12 of 40 pages, 1,100 rows" in page.text
    ((_, bar),) = page.all("progress")
    assert (bar["value"], bar["max"]) == ("1", "3")
    assert [attrs["data-refresh"] for _, attrs in page.elements if "data-refresh" in attrs] == ["5"]


def test_stop_that_no_run_works_on_is_no_scan(known):
    known["overview"] = [replace(SCANNING, airflow=DETAIL.airflow)]
    page = overview()
    assert not page.all("progress")
    assert "1 stopped" in page.text


def test_plan_shows_each_row_copy_beside_source(known):
    deleted = replace(
        PLANNED, operation="delete", before={"id": 9, "name": "Gone", "sync_id": 4}, after=None, looked=True
    )
    changed = replace(
        PLANNED,
        operation="update",
        status="unproven",
        why="the source answered 500",
        before={"id": 8, "name": "Old", "price": "1"},
        after={"id": 8, "name": "New", "price": "1"},
        differs=("name",),
    )
    known["list_planned"] = Page((PLANNED, deleted, changed), "next")
    page = of_plan(table="line_items")
    for told in (
        "Cable",
        "Gone",
        "no such row",
        "Old",
        "New",
        "asked for by itself",
        "the source answered 500",
    ):
        assert told in page.text
    assert "price" not in page.text
    assert "sync_id" not in page.text
    assert "the last sync that wrote it is 4" in page.text
    assert f"/airflow/sync-confidence/sources/{SOURCE}/syncs/4" in page.links()
    assert "40 line_items: insert, proven" in page.text
    assert "38 of 40 rows to insert stand on page 3 of the list. These are 38 of the 50 such rows" in page.text
    address = f"/airflow/sync-confidence/sources/{SOURCE}/plans/e1"
    assert {f"{address}?table=line_items&cursor=next", f"{address}/changes.csv?table=line_items"} <= {*page.links()}


@pytest.mark.parametrize(
    ("source", "copy", "other"),
    [
        ("repairshopr", "in the copy", "at the source"),
        ("flex", "in Flex", "in our assignments"),
        ("storage", "in the application", "after a repair"),
    ],
)
def test_plan_names_both_sides_as_the_source_does(known, source, copy, other):
    """A repair of Flex or storage writes to the vendor, and not to a copy here."""
    text = " ".join(read(html.of_plan(request(), source, SCAN, PlanFilter(), None, (source,), True)).text.split())
    assert f" change {copy}: 40 to insert" in text
    assert f"Column{copy[0].upper()}{copy[1:]}{other[0].upper()}{other[1:]} " in text


@pytest.mark.parametrize(("source", "told"), [("repairshopr", False), ("flex", True)])
def test_sync_says_what_its_counts_are_if_not_the_rows_of_the_audit(known, source, told):
    """Who is added again to a crew call in Flex is one insert, and two changes of our rows."""
    page = read(html.of_sync(request(), source, 7, None, (source,), True))
    assert ("Counted are people on crew calls in Flex" in page.text) == told


KEYS = [{"id": 5}, {"place": "A/1", "bin": 2}, {"id": HOSTILE}, {"id": "ü &%+#?'\\"}]


@pytest.mark.parametrize("key", KEYS)
def test_each_row_leads_to_its_history(known, key):
    known["list_planned"] = Page((replace(PLANNED, operation="update", key=key, before={"id": 7}),), None)
    known["list_changes"] = Page((replace(CHANGE, key=key),), None)
    conflict = Conflict.of_rows("repairshopr.customers", "by hand", [key])
    known["rollback_run"] = replace(ROLLED, undone=Undone(None, TABLES, (conflict,)))
    pages = {
        "repairshopr.line_items": [of_plan()],
        "repairshopr.customers": [of_source(), of_run(), of_sync(), of_rollback()],
    }
    for table, documents in pages.items():
        for page in documents:
            asked = [parse_qs(urlsplit(link).query) for link in page.links() if "/rows?" in link]
            assert {"table": [table], "key": [json.dumps(key, ensure_ascii=False)]} in asked


def test_what_is_no_row_yet_leads_nowhere(known):
    assert not [link for link in of_plan().links() if "/rows?" in link]


def test_what_is_no_row_of_a_logged_table_leads_nowhere(known):
    known["logged_tables"] = {}
    known["rollback_run"] = replace(ROLLED, undone=Undone(None, TABLES, (CONFLICT,)))
    assert not [link for page in (of_plan(), of_rollback()) for link in page.links() if "/rows?" in link]


def test_row_shows_itself_and_its_changes(known):
    page = of_row()
    for told in ("repairshopr.customers id 5", "Last written by sync_id 8", "Update by rollback 8, which undoes 7"):
        assert told in " ".join(page.text.split())
    assert "2026-03-08 03:00:07 UTC" in page.text
    assert "a@old.example" in page.text
    # What is computed from the other columns tells nobody anything.
    assert "row_hash" not in page.text
    home = "/airflow/sync-confidence"
    row = f"{home}/sources/{SOURCE}/rows"
    query = "table=repairshopr.customers&key=%7B%22id%22%3A+5%7D"
    assert {f"{row}?{query}&cursor=older#changes", f"{row}/changes.csv?{query}"} <= {*page.links()}
    assert {f"{home}/sources/{SOURCE}/syncs/7", f"{home}{render.run_ui(RUN)}"} <= {*page.links()}
    assert f"{row}?{query}#changes" not in page.links()
    assert f"{row}?{query}#changes" in of_row("newer").links()


@pytest.mark.parametrize(
    ("found", "told", "not_told"),
    [
        (replace(HISTORY, row=None), "There is no such row now", "Last written"),
        (replace(HISTORY, row=None, row_known=False), "the present row is not known here", "There is no such row"),
        (replace(HISTORY, row=HISTORY.row | {"deleted_at": "2026-03-01"}), "It is deleted at the source", ""),
        (replace(HISTORY, items=(), next_cursor=None), "No change of it is logged.", "not kept"),
        (replace(HISTORY, items=(), kept_since=AT), "No change of it is logged any more.", "logged."),
        (replace(HISTORY, kept_since=AT), "Changes before 2026-03-08 03:00:05 UTC are not kept", ""),
        (
            replace(HISTORY, items=(replace(ROW_CHANGE, changed_at=None),)),
            "After 2026-03-08 03:00:05 UTC, when it began; the log does not say when",
            "03:00:07",
        ),
        (
            replace(
                HISTORY,
                items=(
                    replace(ROW_CHANGE, operation="insert", before=None, after=None, after_known=False, differences=()),
                ),
            ),
            "something other than a sync or a repair",
            "No column",
        ),
    ],
)
def test_row_never_claims_what_is_not_known(known, found, told, not_told):
    known["of_row"] = found
    text = of_row().text
    assert told in text
    assert not not_told or not_told not in text


@pytest.mark.parametrize(
    ("proven", "incomplete", "told"),
    [
        (1234, "", "every row that the scan looked at is in step"),
        (1230, "", "1,230 of 1,234 rows proven"),
        (1234, "no page answered", "the scan is no evidence: no page answered"),
    ],
)
def test_plan_without_changes_claims_only_what_is_proven(known, monkeypatch, proven, incomplete, told):
    known |= {"count_planned": [], "list_planned": Page((), None)}
    scan = replace(SCAN, plan=Plan(0, 0, 0), proven=proven, incomplete=incomplete)
    page = read(html.of_plan(request(), SOURCE, scan, PlanFilter(), None, (SOURCE,), True))
    assert told in page.text
    assert ("in step" in page.text) == (told.endswith("in step"))


def test_plan_shows_what_people_call_a_row(known):
    known["name_planned"] = {PLANNED.change_id: "Ada Lovelace, Summer tour, sound"}
    assert "Ada Lovelace, Summer tour, sound" in of_plan().text


@pytest.mark.parametrize(
    ("after", "scan", "told"),
    [
        (PENDING, {}, None),
        (
            Aftermath(False, DONE, Counts(inserted=38, updated=2, superseded=2, failed=1), "repair", "Ada", "moved"),
            {},
            "Repaired by sync 12, 2026-03-08 03:00:05 UTC: 38 inserted, 2 updated, 0 deleted; 2 left alone, since they"
            " had changed meanwhile; 1 failed.",
        ),
        (Aftermath(False, replace(DONE, undone=True), None, None, None, None), {}, "It was rolled back since."),
        (Aftermath(False, replace(DONE, state="failed"), None, None, None, None), {}, "sync 12 says why"),
        (
            Aftermath(False, replace(DONE, state="running"), None, None, None, None),
            {},
            "The repair is at work: sync 12",
        ),
        (Aftermath(False, DONE, None, "repair", "Ada", None), {"left_out": True}, "Left alone: Ada has left it out"),
        (
            Aftermath(False, None, None, "resume", "Ada", "the shop moved"),
            {"decision": None},
            "Left alone: Ada has let the writer run again without a repair. Reason: the shop moved",
        ),
        (Aftermath(False, None, None, "keep", "Ada", None), {}, "the writer stayed stopped, as Ada has decided."),
        (Aftermath(False, None, None, "keep", None, None), {}, "stayed stopped, since nobody has answered."),
        (Aftermath(False, None, None, None, None, None), {}, "its run has repaired nothing, as a dry run does."),
        (Aftermath(False, None, None, None, None, None), {"plan": Plan(0, 0, 0)}, None),
    ],
)
def test_plan_says_what_became_of_it(known, after, scan, told):
    known["aftermath"] = after
    page = read(html.of_plan(request(), SOURCE, replace(SCAN, **scan), PlanFilter(), None, (SOURCE,), True))
    text = " ".join(page.text.split())
    assert ("would change in the copy" in text) == after.pending
    assert ("planned to change in the copy" in text) != after.pending
    if told:
        assert told in text
    else:
        assert "Left alone" not in text
        assert "epaired" not in text
    # The reason stands with the decision of the scan already.
    assert text.count("the shop moved") == 1


@pytest.mark.parametrize(("decider", "words"), [(True, "Decide what to do"), (False, "Read the question")])
def test_plan_leads_to_the_question_that_asks_about_it(known, decider, words):
    question = f"/airflow/sync-confidence/dags/{RECONCILE}/runs/scheduled__2026-03-08T03%3A00%3A00%2B00%3A00#question"
    for asked in (False, True):
        known["aftermath"] = replace(PENDING, asked=asked)
        page = read(html.of_plan(request(), SOURCE, SCAN, PlanFilter(), None, (SOURCE,), decider))
        assert (question in page.links()) == asked
        assert (words in page.text) == asked


def test_facts_of_other_tables_stand_apart(known):
    """A record with nested rows has facts about each table."""
    fact = SCAN.patterns[0]
    scan = replace(SCAN, patterns=(replace(fact, table="parts", column="part", kind="sync"), fact))
    text = " ".join(read(html.of_plan(request(), SOURCE, scan, PlanFilter(), None, (SOURCE,), True)).text.split())
    first, _, rest = text.partition("What rows of parts have in common")
    assert "What these rows of line_items have in common: 38 of 40 rows to insert stand on page 3" in first
    assert "last written by sync 3" in rest
    assert "What these rows have in common:" in of_plan().text


def test_plan_that_is_not_kept_any_more_says_so(known):
    known |= {"count_planned": [], "list_planned": Page((), None)}
    assert "kept row by row for 30 days" in of_plan().text


def test_run_leads_to_its_plans(known):
    assert f"/airflow/sync-confidence/sources/{SOURCE}/plans/e1" in of_run().links()


def test_without_data_the_overview_says_what_to_start(known):
    known["overview"] = [BARE]
    page = overview((SOURCE, "square"))
    assert "never synced" in page.text
    assert "never scanned" in page.text
    for dag in (f"{SOURCE}_sync", RECONCILE, "warehouse_migrate"):
        assert page.links()[f"/airflow/dags/{dag}"]["target"] == "_top"


def test_without_data_a_source_says_what_to_start(known):
    nothing = Page((), None)
    known |= {"detail": BARE, "list_parts": [], "read_series": [], "list_scans": nothing, "list_syncs": nothing}
    known["read_drift"] = TotalDrift((), 0)
    page = of_source()
    assert "No scan yet" in page.text
    assert "Never synced" in page.text
    assert {f"/airflow/dags/{SOURCE}_sync", f"/airflow/dags/{RECONCILE}"} <= page.links().keys()
    assert not [attrs for _, attrs in page.all("script") if "data-library" in attrs]


class TestProofs:
    PUT_OFF = PutOff("tickets", RUN, "no time was left", AT)

    def test_oldest_is_told(self, known):
        for page in (overview(), of_source()):
            assert re.search(r"tickets, \d+ d ", page.text)
            assert "put off" not in page.text.lower()

    def test_never_proven_is_said(self, known):
        known["detail"] = replace(DETAIL, proofs=BARE.proofs)
        assert "customers: no whole scan, and no scheduled one, has proven it yet" in of_source().text

    def test_rows_of_a_part_are_not_taken_for_all(self, known):
        assert "1,230 of 1,234 rows proven (" not in overview().text
        known["detail"] = known["overview"][0] = replace(DETAIL, parts={"tickets": "30 days back"})
        for page in (overview(), of_source()):
            assert "1,230 of 1,234 rows proven (of tickets only 30 days back)" in page.text

    def test_what_waits_for_a_later_night_is_named_with_the_reason(self, known):
        known["detail"] = known["overview"][0] = replace(DETAIL, put_off=(self.PUT_OFF,))
        assert "1 of 3 entities put off" in overview().text
        page = of_source()
        assert "1 of 3 entities put off" in page.text
        assert "no time was left" in page.text
        assert page.links()[f"/airflow/dags/{RECONCILE}"]["target"] == "_top"

    def test_page_of_the_run_names_it(self, known):
        known["read_run"] = replace(known["read_run"], put_off={"tickets": "no time was left"})
        page = of_run()
        assert "Put off to a later night, so nothing of it is proven by this run" in page.text
        assert "no time was left" in page.text


def test_page_of_a_run_says_how_long_the_writer_stood(known):
    assert "It kept the writer stopped for 12 min 34 s." in of_run().text
    known["read_run"] = replace(known["read_run"], stood_seconds=None)
    assert "kept the writer" not in of_run().text


def test_source_that_the_warehouse_has_no_row_for(known):
    known["detail"] = None
    page = of_source()
    assert "not in the warehouse yet" in page.text
    assert "/airflow/dags/warehouse_migrate" in page.links()


def test_source_page_has_all_of_it(known):
    page = of_source()
    for what in (
        "missing_examples, 2 of them",
        "8 / x",
        "a@old.example",
        "40 to insert, 2 to update, 0 to delete",
        "repair by oncall",
        "6 of 100 requests failed within a day",
        "sync 7",
    ):
        assert what in page.text
    assert "empty_examples" not in page.text
    assert f"/airflow/sync-confidence/sources/{SOURCE}/syncs/7#roll-back" in page.links()
    assert f"/airflow/sync-confidence/sources/{SOURCE}?syncs=older#sync-log" in page.links()


def test_source_page_counts_the_fields_and_tells_what_changed_first(known):
    page = of_source()
    assert "phone looks renamed: phone -> mobile; its column gets no values" in page.text
    assert "Read" in page.text
    assert f"/airflow/sync-confidence/sources/{SOURCE}/fields" in page.links()
    assert page.text.index("looks renamed") < page.text.index("The fields of the records")


def test_source_without_a_census_has_no_section_about_fields(known):
    known["read_fields"] = []
    assert "Fields" not in of_source().text


def test_fields_page_has_each_field(known):
    page = of_fields()
    for what in (
        "vanished",
        "can't be read: object",
        "values: NEW, PAID",
        "97.5 %",
        "not known",
    ):
        assert what in page.text
    assert f"/airflow/sync-confidence/sources/{SOURCE}/fields?cursor=older#changes" in page.links()


def test_fields_page_says_in_words_from_which_answer_a_field_is(known):
    known["read_fields"] = [replace(CUSTOMER_FIELDS, entity="repair_orders")]
    assert "A path begins with the answer: head is the order itself" in of_fields("tekmetric").text
    assert "A path begins with the answer" not in of_fields().text


@pytest.mark.parametrize(
    ("source", "answer"), [("storage", "An object's own address"), ("flex", "A line on a crew call")]
)
def test_fields_page_says_what_a_source_without_records_reads(known, source, answer):
    known["read_fields"] = []
    text = of_fields(source).text
    assert answer in text
    assert "ignored for a reason, and 0 kept. All others are ignored:" in text
    assert "Nothing is counted yet" in text


def test_fields_page_says_what_each_counted_field_of_such_an_answer_is_read_for(known):
    known["read_fields"] = [
        replace(CUSTOMER_FIELDS, entity="row-data", fields=(replace(PHONE, reason="the <contact>"), PHONE))
    ]
    page = of_fields("flex")
    assert "A record is a line on a crew call (row-data). No table has it." in page.text
    assert "read: the <contact>" in page.text
    assert "read: something in it" in page.text
    assert "read by a column" not in page.text
    assert "What flex has sent of it is counted under row-data" in page.text
    assert "#row-data" in page.links()


def test_fields_page_says_where_the_census_was_cut_and_what_nobody_knows_yet(known):
    known["read_fields"] = [replace(CUSTOMER_FIELDS, cut=True, records=None, scanned_at=None)]
    known["list_field_changes"] = Page((), None)
    page = of_fields()
    assert "There are more: only the first are kept" in page.text
    assert "No whole scan has counted them yet" in page.text
    assert "Nothing has changed in the fields" in page.text
    known["read_fields"] = []
    assert "Nothing is counted yet" in of_fields().text


def test_plot_library_is_not_loaded_before_a_plot_comes_near(known):
    """It is 5 MB, and the question stands above the plots."""
    [library] = [attrs["data-library"] for _, attrs in of_source().all("script") if "data-library" in attrs]
    assert library.startswith("/airflow/sync-confidence/static/plotly.min.js?v=")
    assert not [attrs for _, attrs in of_source().all("script") if "plotly" in attrs.get("src", "")]


def test_each_plot_has_a_table_that_says_the_same(known):
    page = of_source()
    (total, spoken) = [attrs["aria-label"] for _, attrs in page.elements if attrs.get("role") == "img"]
    assert "total drift over 2 runs" in total
    assert "40 to insert, 2 to update, 0 to delete, 4 not proven" in total
    assert "api_unique_not_in_db over 2 scans" in spoken
    assert "40, baseline 0, limit 25, hold" in spoken
    assert len(page.all("details")) == 2
    assert "accepted as baseline" in page.text
    assert render.points(SERIES)[1] == {
        "at": "2026-03-08T03:00:05",
        "value": 40,
        "baseline": 0.0,
        "limit": 25.0,
        "verdict": "hold",
        "accepted": True,
    }


def test_total_that_is_not_known_is_a_gap(known):
    assert render.drift_points(DRIFT) == [
        {"at": "2026-03-07T03:00:05", "insert": None, "update": None, "delete": None, "unproven": None},
        {"at": "2026-03-08T03:00:05", "insert": 40, "update": 2, "delete": 0, "unproven": 4},
    ]
    known["read_drift"] = replace(DRIFT, points=DRIFT.points[:1], runs=1)
    (total, _) = [attrs["aria-label"] for _, attrs in of_source().elements if attrs.get("role") == "img"]
    assert f"{render.NONE} to insert" in total


def test_period_is_chosen_by_a_link_that_keeps_the_entity(known):
    page = of_source(entity="line_items", days=90)
    address = f"/airflow/sync-confidence/sources/{SOURCE}?entity=line_items&scope=all"
    for days in ("", "&days=30", "&days=90", "&days=365"):
        assert ("aria-current" in page.links()[f"{address}{days}#trends"]) == (days == "&days=90")
    other = f"/airflow/sync-confidence/sources/{SOURCE}?entity=customers&scope=all&days=90#trends"
    assert other in page.links()
    assert "aria-current" in of_source(entity="line_items").links()[f"{address}#trends"]


def test_period_without_scans_says_so(known):
    known |= {"read_series": [], "read_drift": TotalDrift((), 0)}
    page = of_source(entity="line_items", days=30)
    assert "No scan of line_items within 30 days" in page.text
    assert "No scan yet" not in page.text


def test_points_that_stand_for_several_scans_say_so(known):
    assert "in a row" not in of_source().text
    known |= {"read_series": [replace(SERIES, scans=365)], "read_drift": replace(DRIFT, runs=365)}
    page = of_source()
    assert "Of several scans in a row the worst is shown." in page.text
    assert "Of several runs in a row the one with the most drift is shown." in page.text


@pytest.mark.parametrize(
    ("left_out", "told"), [(1, "1 run that looked at other parts than runs do now is"), (3, "3 runs that looked at")]
)
def test_runs_that_the_total_drift_leaves_out_are_counted(known, left_out, told):
    assert "looked at other parts" not in of_source().text
    known["read_drift"] = replace(DRIFT, left_out=left_out)
    assert told in of_source().text


def test_worst_part_is_shown_unless_another_is_asked_for():
    parts = [EntityScope("customers", "all", 2, AT), EntityScope("line_items", "all", 2, AT)]
    assert summaries.chosen(parts, [SCAN], None, "all") == parts[1]
    assert summaries.chosen(parts, [SCAN], "customers", "all") == parts[0]
    assert summaries.chosen(parts, [replace(SCAN, verdict=Verdict.PASS)], None, "all") == parts[0]
    assert summaries.chosen([], [], "customers", "all") is None
    of_pages = EntityScope("customers", "pages 1 to 2", 2, AT)
    unjudged = replace(SCAN, entity="customers", scope=of_pages.scope, verdict=None)
    assert summaries.chosen([of_pages, *parts], [unjudged], None, "all") == parts[0]


def test_worst_metric_is_shown_first():
    calm = replace(SERIES, metric="calm", points=SERIES.points[:1])
    assert summaries.urgent_first([calm, SERIES]) == [SERIES, calm]


def test_runs_are_made_of_whole_pages():
    scans = (SCAN, replace(SCAN, entity="customers", verdict=Verdict.PASS), replace(SCAN, run="other/1"))
    (run, other) = summaries.runs_of(Page(scans, None))
    assert (run.run, run.entities, run.verdict, run.plan.insert) == (RUN, 2, Verdict.HOLD, 80)
    assert other.run == "other/1"
    assert summaries.runs_of(Page(scans, "more")) == [run]


def test_runs_that_failed_without_a_scan_are_among_the_last_runs(known):
    days = [AT + timedelta(days=days) for days in (-1, 1, 2)]
    failed = [FailedRun(f"{RECONCILE}/{day}", at) for day, at in zip(("old", "new", "newest"), days, strict=True)]
    scanned = [FailedRun(RUN, days[1])]

    def listed(scans: Page[Scan], failed: list[FailedRun]) -> list[str]:
        return [run.run.removeprefix(f"{RECONCILE}/") for run in summaries.last_runs(scans, failed)]

    run = RUN.removeprefix(f"{RECONCILE}/")
    assert listed(Page((SCAN,), None), failed + scanned) == ["newest", "new", run, "old"]
    assert listed(Page((SCAN,), "more"), failed + scanned) == ["newest", "new", run]
    assert listed(Page((), None), failed) == ["newest", "new", "old"]
    assert "nothing was scanned" not in of_source().text
    known["failed_runs"] = failed
    assert "nothing was scanned" in of_source().text
    assert f"/airflow/sync-confidence/dags/{RECONCILE}/runs/new" in of_source().links()


def test_an_insert_was_no_row_before_and_an_empty_text_is_named(known):
    differences = (Difference("id", None, 5), Difference("note", None, ""))
    inserted = replace(ROW_CHANGE, operation="insert", before=None, differences=differences)
    known["of_row"] = replace(HISTORY, row={"id": 5, "note": "", "deleted_at": None, "sync_id": 8}, items=(inserted,))
    text = of_row().text
    assert text.count("no such row") == 1
    assert text.count("empty text") == 2


def test_run_shows_its_gates_and_what_was_planned_and_applied(known):
    page = of_run()
    for what in ("api_unique_not_in_db", "feed_noise", "no gate", "above its limit", "api_reported_total_entries"):
        assert what in page.text
    assert "Decided: repair by oncall" in page.text
    assert "Applied by repairs" in page.text


def test_what_was_proven_and_what_not_is_on_every_page(known):
    assert "1,230 of 1,234 rows proven" in overview().text
    assert f"/airflow/sync-confidence/sources/{SOURCE}#unproven" in overview().links()
    source = of_source()
    assert "1,230 of 1,234 rows proven" in source.text
    assert [attrs["id"] for _, attrs in source.elements if attrs.get("id") == "unproven"] == ["unproven"]
    for what in ("17", "a / 2", "the source answered 500", "none yet", "The first 2 of 4"):
        assert what in source.text
    assert source.text.index("17") < source.text.index("a / 2")
    run = of_run()
    assert run.text.count("1,230 of 1,234 rows proven") == 2
    assert "the source answered 500" in run.text


def test_without_an_account_nothing_is_claimed(known):
    scan = replace(SCAN, rows=None, proven=None, incomplete="3 pages stayed unread")
    known["read_run"] = replace(known["read_run"], scans=(scan,), rows=None, proven=None, unproven=())
    page = of_run()
    assert "rows proven" not in page.text
    assert page.text.count("No account of the rows was kept") == 2
    assert "No evidence: 3 pages stayed unread." in page.text


def test_what_the_watch_has_found_is_shown(known):
    assert "the writer stands" in overview().text
    page = of_source()
    assert "The writer stands" in page.text
    assert "Nothing is synced. Next: clear resume_writer." in page.text
    known["detail"] = known["overview"][0] = replace(DETAIL, findings=())
    assert "he writer stands" not in overview().text + of_source().text


NOT_CONFIGURED = replace(
    FOUND,
    code="source_not_configured",
    subject=SOURCE,
    run=None,
    what=f"{SOURCE} is not configured: Airflow has no connection {SOURCE}",
    consequence="nothing is synced",
    next_step="add it under Admin, Connections",
)


def test_source_without_its_connection_is_not_configured_and_does_not_run(known):
    bare = replace(BARE, findings=(NOT_CONFIGURED,))
    known |= {"overview": [bare, replace(DETAIL, source="square", findings=())], "detail": bare}
    page = overview((SOURCE, "square"))
    assert f"2 sources: 1 not configured ({SOURCE}), 1 running." in page.text
    assert NOT_CONFIGURED.what in page.text
    assert any(href.endswith("/connections") for href in page.links())
    # Nothing that would only fail is offered.
    assert "Trigger" not in page.text
    page = of_source()
    assert "not configured" in page.text
    assert "Next: add it under Admin, Connections." in page.text
    assert "running since" not in page.text


def test_stop_of_a_source_without_its_connection_is_still_shown(known):
    known["overview"] = [replace(HELD, findings=(NOT_CONFIGURED,))]
    assert f"1 source: 1 held ({SOURCE}), 0 running." in overview().text


def test_data_of_a_source_that_is_left_out_is_told_in_one_line(known):
    assert "is kept" not in overview().text
    known["with_data"] = ("square",)
    page = overview()
    assert "Data of square is kept; square is not set up here (SYNC_CONFIDENCE_SOURCES)." in page.text
    assert not any("square" in href for href in page.links())


def test_health_of_a_table_has_the_last_scan_of_whatever_part(known):
    """Else the page says of the entity that is held that it was not judged."""
    part = replace(SCAN, scope="30 days back", scanned_at=AT + timedelta(minutes=1), plan=Plan(0, 0, 391))
    figures = TableFigures("line_items", 1234.0, 3, None, None)
    nested = replace(figures, table="jobs")
    health = replace(HEALTH, tables=(figures, nested))
    known["detail"] = replace(DETAIL, scans=(replace(SCAN, verdict=Verdict.PASS), part), health=health)
    text = " ".join(of_source().text.split())
    assert "line_items20 min 34 s3391■hold30 days back" in text
    assert re.search("jobs20 min 34 s3.not scanned by itself", text)


def test_gates_stand_in_the_order_of_the_question(known):
    gates = (Gate("gate_a", 0.0, 25.0, 0, Verdict.PASS, None), Gate("gate_b", 0.0, 25.0, 40, Verdict.HOLD, "too many"))
    known["read_run"] = replace(known["read_run"], scans=(replace(SCAN, gates=gates),))
    text = of_run().text
    assert text.index("gate_b") < text.index("gate_a")


def test_run_folds_what_is_fine(known):
    nothing = Plan(0, 0, 0)
    fine = [replace(SCAN, entity=name, verdict=Verdict.PASS, plan=nothing) for name in ("customers", "tickets")]
    known["read_run"] = replace(known["read_run"], scans=(SCAN, *fine))
    page = of_run()
    assert "2 entities pass, with nothing to change: customers, tickets" in page.text
    assert page.text.index("line_items") < page.text.index("2 entities pass")


def test_metrics_are_explained_where_they_stand(known):
    told = "Rows that the source's list showed and the copy lacks"
    assert told in of_run().text
    assert told in of_source().text


def test_overview_shows_the_worst_first_and_the_last_nights(known):
    fine = replace(DETAIL, source="square", verdict=Verdict.PASS, unproven=0, findings=())
    known["overview"] = [fine, HELD]
    page = overview(("square", SOURCE))
    table = page.text.partition("How each source stands")[2]
    assert table.index(SOURCE) < table.index("square")
    assert any(attrs.get("aria-label") == "Last 2 nights: 1 no scan, 1 hold" for _, attrs in page.all("span"))


def test_nights_whose_run_has_failed_are_told_from_those_without_a_run():
    days = [AT.date() + timedelta(days=place) for place in range(6)]
    names = [f"{RECONCILE}/{place}" for place in range(6)]
    nights = [
        Night(days[0], "no scan", None),
        Night(days[1], "no scan", None),
        Night(days[2], "pass", names[2]),
        Night(days[3], "pass", names[3]),
        Night(days[4], "hold", names[4]),
        Night(days[5], "not judged", names[5]),
    ]
    # On the third day another run than the one that passed has failed.
    failed = {names[1]: 1, f"{RECONCILE}/other": 2, names[3]: 3, names[4]: 4, names[5]: 5}
    found = with_failed(nights, {run: AT + timedelta(days=day) for run, day in failed.items()})
    assert [night.kind for night in found] == ["no scan", "failed", "pass", "failed", "hold", "failed"]
    assert [night.run for night in found] == [None, *names[1:]]
    assert [night.day for night in found] == days


def test_months_say_what_a_source_came_to(known):
    page = of_months()
    assert "March 2026" in page.text
    for told in ("27", "28", "1,815", "3 h 10 min", "scans 2 h, held 1 h, other 10 min", "median 5 min", "longest 1 h"):
        assert told in page.text
    assert "1 of 3 unanswered" in page.text
    # Not the whole time, so not 100 %.
    assert "99.9 %" in page.text
    assert "not known" not in page.text
    assert "/airflow/sync-confidence/months.csv" in page.links()
    assert page.links()["/airflow/sync-confidence/months"]["aria-current"] == "page"
    assert "/airflow/sync-confidence/months" in overview().links()


def test_months_never_show_what_is_not_known_as_zero(known):
    known["of_sources"] = [UNKNOWN]
    page = of_months()
    assert page.text.count("not known") == 5
    assert "no question" in page.text
    assert "%" not in page.text


def test_months_mark_a_stop_that_goes_on_and_what_was_not_measured(known):
    stood = StoodStill(0.0, 90.0, 0.0, open=True, measured_since=AT)
    known["of_sources"] = [replace(MONTH, stood_still=stood, answers=Answers(1, 1, None, None))]
    page = of_months()
    for told in ("still stopped", "before 2026-03-08 03:00 UTC not known", "no answer", "1 of 1 unanswered"):
        assert told in page.text


def test_months_come_newest_first_with_each_source(known):
    known["of_sources"] = [MONTH, replace(MONTH, source="square"), replace(MONTH, month=date(2026, 2, 1))]
    page = of_months()
    assert len(page.tables) == 2
    assert page.text.index("March 2026") < page.text.index("February 2026")


def test_without_a_run_there_are_no_months(known):
    known["of_sources"] = []
    page = of_months()
    assert "has been scanned yet" in page.text
    assert not page.tables


def test_months_as_csv_have_a_cell_for_each_column():
    lines = [line.split(",") for line in months.as_csv([MONTH, UNKNOWN]).splitlines()]
    assert {len(line) for line in lines} == {len(months.COLUMNS)}
    assert lines[1] == [
        *("2026-03", SOURCE, "27", "2", "1", "0", "0", "1", "28", "1815", "0"),
        *("7200", "3600", "600", "no", "", "3", "1", "300", "3600", "0.9999", "1800"),
    ]
    unknown = dict(zip(lines[0], lines[2], strict=True))
    assert {name for name, cell in unknown.items() if cell == "not known"} == {
        *("nights_proven", "rows_repaired", "rows_rolled_back", "fresh_share", "freshness_limit_seconds"),
        *(f"stood_still_{name}" for name in ("scans_seconds", "held_seconds", "other_seconds", "open")),
    }


def test_run_that_left_nothing_says_so(known):
    known["read_run"] = None
    assert "Airflow has no run" in of_run(code=404).text
    known["run_state"] = "running"
    assert "has left no scan and no sync" in of_run().text
    assert "warehouse_migrate does no work that is recorded" in of_run("warehouse_migrate").text
    known["run_state"] = "failed"
    assert "has ended (failed) and left no scan" in of_run().text


@pytest.mark.parametrize(
    ("decision", "who", "words"),
    [
        ("keep", "Ada", "Ada chose Keep stopped, 2026-03-08 03:00 UTC. Reason: the shop moved"),
        ("keep", NOBODY, "Nobody answered in time, 2026-03-08 03:00 UTC"),
        ("resume", "Ada", "Ada chose Resume without repair, 2026-03-08 03:00 UTC"),
        ("repair", "Ada", "Ada chose Repair, then resume, 2026-03-08 03:00 UTC"),
    ],
)
def test_who_has_decided_what_and_why_is_told(known, decision, who, words):
    known["evidence"] = replace(REPAIRED, decision=decision, decided_by=who)
    assert words in overview().text
    assert words in of_source().text


def test_hold_that_a_person_has_chosen_says_so(known):
    known["detail"] = replace(HELD, airflow=DETAIL.airflow)
    assert "nothing is synced until a person decides." in of_source().text
    known["evidence"] = replace(REPAIRED, writer=HELD.writer, repairs=(), decision="keep")
    page = of_source()
    assert (
        "nothing is synced until a person answers otherwise. Ada chose Keep stopped, 2026-03-08 03:00 UTC. Reason: the"
        " shop moved." in page.text
    )
    assert page.text.count("Ada chose") == 1
    assert "until a person decides" not in page.text


def test_sync_without_a_change_is_not_offered_to_be_rolled_back(known):
    assert any("#roll-back" in href for href in of_source().links())
    known["list_syncs"] = Page((replace(ROW, counts=Counts(read=9, unchanged=9)),), None)
    assert not any("#roll-back" in href for href in of_source().links())


def test_dag_tab_is_its_source_or_a_friendly_line(known):
    ours = read(html.of_dag(request(), f"{SOURCE}_sync", None, None, (SOURCE,), True))
    assert "Sync log" in ours.text
    other = read(html.of_dag(request(), "warehouse_rollback", None, None, (SOURCE,), True))
    assert "neither syncs nor proves" in other.text


def test_sync_shows_its_changes_and_a_filled_in_form(known):
    page = of_sync()
    assert "a@old.example" in page.text
    fields = {attrs["name"]: attrs for _, attrs in page.all("input")}
    assert fields["sync_id"]["value"] == "7"
    assert "checked" in fields["dry_run"]
    assert "checked" not in fields["force"]
    ((_, form),) = page.all("form")
    assert form["data-trigger"] == "/airflow/api/v2/dags/warehouse_rollback/dagRuns"


def test_who_may_not_decide_is_offered_nothing_and_told_why(known, monkeypatch):
    monkeypatch.setenv("DECIDER_ROLES", "op, Lead")
    known |= {"overview": [HELD], "detail": HELD}
    unasked = replace(HELD, airflow=DETAIL.airflow)
    for decider in (True, False):
        known["question_of"] = QUESTION
        pages = [overview(decider=decider), of_source(decider=decider), of_sync(decider=decider)]
        pages.append(of_rollback(decider=decider))
        with monkeypatch.context() as patch:
            patch.setitem(known, "detail", unasked)
            patch.setitem(known, "overview", [unasked])
            pages += [of_source(decider=decider), overview(decider=decider)]
        offered = set().union(*(attrs for page in pages for _, attrs in page.all("form", "button")))
        assert {"data-trigger", "data-ask", "data-answer"} & offered == (
            {"data-trigger", "data-ask", "data-answer"} if decider else set()
        )
        assert any("#question" in href for href in pages[0].links()) == decider
        assert any("#hold" in href for page in pages for href in page.links()) == decider
        assert any("#roll-back" in href for page in pages for href in page.links()) == decider
        told = ["that takes the role op or lead" in page.text for page in pages]
        assert told == [not decider] * 6


WAITING = replace(ROLLED, state="queued", undone=None, ended_at=None)


@pytest.mark.parametrize(
    ("run", "told", "not_told"),
    [
        (WAITING, "waits for its start", "is paused"),
        (replace(WAITING, paused=True), "warehouse_rollback is paused", "counts"),
        (replace(WAITING, state="running"), "the copy stays as it is", "puts back"),
        (replace(WAITING, state="running", dry_run=False), "puts back what repair 7 changed", "copy stays"),
    ],
)
def test_rollback_at_work_says_so_and_reloads(known, run, told, not_told):
    known["rollback_run"] = run
    page = of_rollback()
    assert told in page.text
    assert not_told not in page.text
    assert [attrs["content"] for _, attrs in page.all("meta") if attrs.get("http-equiv") == "refresh"] == ["3"]
    assert not page.all("form")
    assert not page.all("table")


def test_dry_run_ends_with_its_counts_and_a_filled_in_form(known):
    page = of_rollback()
    assert not [attrs for _, attrs in page.all("meta") if "http-equiv" in attrs]
    for told in ("Dry run of a rollback of repair 7", "by oncall", "Reason: wrong shop", "1,200", "Conflicts"):
        assert told in page.text
    assert "nobody has changed these rows since" in page.text
    fields = {attrs["name"]: attrs for _, attrs in page.all("input")}
    # Neither `dry_run` nor `force`: the script takes what is missing for unticked.
    assert {name: attrs["value"] for name, attrs in fields.items()} == {"sync_id": "7", "reason": "wrong shop"}
    ((_, form),) = page.all("form")
    assert form["data-trigger"] == "/airflow/api/v2/dags/warehouse_rollback/dagRuns"
    assert form["data-run"] == f"/airflow/sync-confidence/sources/{SOURCE}/syncs/7/rollbacks/RUN_ID"
    ((_, button),) = page.all("button")
    assert button["data-sure"] == "Yes, roll back repair 7"


def test_conflicts_of_a_dry_run_are_listed_and_have_to_be_overwritten(known):
    known["rollback_run"] = replace(ROLLED, undone=Undone(None, TABLES, (CONFLICT,)))
    page = of_rollback()
    assert "12 of repairshopr.customers by sync_id 8, 9" in page.text
    assert "105" in page.text
    assert "106" not in page.text
    assert "7 more" in page.text
    syncs = [href.rpartition("/")[2] for href in page.links() if "/syncs/" in href]
    assert syncs == ["7", "9", "8"]
    fields = {attrs["name"]: attrs for _, attrs in page.all("input")}
    assert "required" in fields["force"]
    assert "checked" not in fields["force"]


def test_rollback_that_is_done_leads_to_itself(known):
    known["rollback_run"] = replace(ROLLED, dry_run=False, undone=Undone(9, TABLES, (CONFLICT,)))
    page = of_rollback()
    assert "Conflicts, done all the same" in page.text
    assert f"/airflow/sync-confidence/sources/{SOURCE}/syncs/9" in page.links()
    assert not page.all("form")


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("the writer is stopped: wait", "The writer is stopped: wait. A dry run changes no row"),
        (None, "nobody could record why: see its log"),
    ],
)
def test_rollback_that_failed_says_why_and_what_to_do(known, failure, told):
    known["rollback_run"] = replace(ROLLED, state="failed", undone=None, failure=failure)
    page = of_rollback()
    assert told in " ".join(page.text.split())
    assert f"/airflow/sync-confidence/sources/{SOURCE}/syncs/7#roll-back" in page.links()
    assert not page.all("table")
    known["rollback_run"] = replace(known["rollback_run"], dry_run=False)
    assert "Nothing was changed, unless this names what was" in of_rollback().text


def test_rollback_without_a_result_claims_nothing(known):
    known["rollback_run"] = replace(ROLLED, undone=None)
    page = of_rollback()
    assert "ended without counts that could be read here" in page.text
    assert not page.all("table", "form")


def test_dry_run_of_what_is_undone_meanwhile_offers_nothing(known):
    known["read_sync"] = replace(ROW, undone_by=9)
    page = of_rollback()
    assert "Undone meanwhile" in page.text
    assert not page.all("form")


@pytest.mark.parametrize(
    "says", [{"rollback_run": None}, {"rollback_run": replace(ROLLED, sync_id=8)}, {"read_sync": None}]
)
def test_rollback_of_another_sync_is_not_shown(known, says):
    known |= says
    with pytest.raises(HTTPException, match="no such rollback"):
        of_rollback()


def test_tab_of_a_rollbacks_run_is_its_page(known):
    assert "Dry run of a rollback of repair 7" in of_run("warehouse_rollback").text
    with pytest.raises(HTTPException, match="not for you"):
        of_run("warehouse_rollback", sources=())
    known |= {"source_of_sync": None, "read_run": None, "run_state": "failed"}
    assert "Nothing in the warehouse" in of_run("warehouse_rollback").text


@pytest.mark.parametrize("row", [replace(ROW, undone_by=9), replace(ROW, state="running")])
def test_what_is_undone_or_under_way_has_no_form(known, row):
    known["read_sync"] = row
    assert not of_sync().all("form")


def test_nothing_of_the_warehouse_is_markup(known):
    scan = replace(
        SCAN,
        entity=HOSTILE,
        scope=HOSTILE,
        run=HOSTILE,
        reasons=(HOSTILE,),
        metrics={HOSTILE: 1},
        telemetry={HOSTILE: HOSTILE},
        gates=(replace(SCAN.gates[0], metric=HOSTILE, reason=HOSTILE),),
        examples={HOSTILE: [HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}]},
        incomplete=HOSTILE,
        decided_by=HOSTILE,
    )
    row = replace(ROW, run=f"x/{HOSTILE}", error=HOSTILE, reason=HOSTILE, entities={HOSTILE: Counts()})
    writer = Writer(SOURCE, "stopped", 1, f"x/{HOSTILE}", AT, HOSTILE)
    doubt = replace(DOUBT, entity=HOSTILE, key=[HOSTILE], why=HOSTILE)
    finding = replace(FOUND, run=f"x/{HOSTILE}", what=HOSTILE, consequence=HOSTILE, next_step=HOSTILE)
    waits = {"proofs": (Proof(HOSTILE, AT),), "put_off": (PutOff(HOSTILE, f"x/{HOSTILE}", HOSTILE, AT),)}
    watched = {"unproven_rows": (doubt,), "findings": (finding,), **waits}
    found = replace(HELD, writer=writer, stalest=HOSTILE, scans=(scan,), last_repair=row, **watched)
    change = Change(1, HOSTILE, {HOSTILE: HOSTILE}, "update", (Difference(HOSTILE, HOSTILE, [HOSTILE]),))
    known |= {
        "overview": [replace(found, progress=None)],
        "detail": found,
        "list_parts": [EntityScope(HOSTILE, HOSTILE, 1, AT)],
        "read_series": [replace(SERIES, entity=HOSTILE, scope=HOSTILE, metric=HOSTILE)],
        "read_drift": TotalDrift((replace(DRIFT.points[1], run=f"x/{HOSTILE}"),), 1),
        "list_scans": Page((scan,), None),
        "list_changes": Page((change,), HOSTILE),
        "list_syncs": Page((row,), HOSTILE),
        "read_sync": row,
        "read_run": Run(
            *(f"x/{HOSTILE}", SOURCE, None, (scan,), scan.plan, None, None, (doubt,), row.counts, (row,)),
            {HOSTILE: HOSTILE},
            None,
        ),
    }
    hostile_field = replace(CUSTOMER_FIELDS.fields[0], path=HOSTILE, types=(HOSTILE,), codes=(HOSTILE,))
    known["read_fields"] = [replace(CUSTOMER_FIELDS, entity=HOSTILE, fields=(hostile_field,))]
    known["list_field_changes"] = Page((replace(RENAMED, entity=HOSTILE, text=HOSTILE, run=f"x/{HOSTILE}"),), HOSTILE)
    conflict = Conflict(2, HOSTILE, (HOSTILE,), (), HOSTILE, ({HOSTILE: HOSTILE},))
    undone = Undone(None, {HOSTILE: Counts()}, (conflict,))
    rolled = replace(ROLLED, run_id=HOSTILE, reason=HOSTILE, by=HOSTILE, undone=undone)
    known["rollback_run"] = rolled
    known["aftermath"] = Aftermath(False, None, None, "resume", HOSTILE, HOSTILE)
    known["evidence"] = replace(
        REPAIRED,
        scans=(replace(LINES, entity=HOSTILE, left_out=True),),
        repairs=(replace(VERIFIED, checks=({**CHECKS[0], "entity": HOSTILE, "figure": HOSTILE, "after": 3},)),),
        decided_by=HOSTILE,
        reason=HOSTILE,
    )
    known["kept"] = replace(KEPT, text=f"{HOSTILE} [x](javascript:alert(3))\n\n![x](http://x/y.png)", planned=())
    hostile_answer = Answer(HOSTILE, HOSTILE, AT, HOSTILE, (HOSTILE,))
    known["question_of"] = replace(QUESTION, attempt=HOSTILE, options=(HOSTILE,), default=HOSTILE)
    known["list_planned"] = Page(
        (replace(PLANNED, table=HOSTILE, key={HOSTILE: HOSTILE}, after={HOSTILE: HOSTILE}),), None
    )
    known["logged_tables"] = {HOSTILE: HOSTILE}
    known["name_planned"] = {PLANNED.change_id: HOSTILE}
    row_change = replace(
        ROW_CHANGE, kind=HOSTILE, run=HOSTILE, differences=change.differences, after={HOSTILE: [HOSTILE]}
    )
    row = {HOSTILE: HOSTILE, "deleted_at": HOSTILE, "sync_id": 1}
    known["of_row"] = replace(HISTORY, table=HOSTILE, key={HOSTILE: HOSTILE}, row=row, items=(row_change,))
    pages = [overview(), of_source(), of_sync(), of_run(), of_rollback(), of_plan(), of_row(), of_fields()]
    known["rollback_run"] = replace(rolled, state="failed", failure=HOSTILE)
    known["question_of"] = replace(known["question_of"], answer=hostile_answer)
    for page in (*pages, of_rollback(), of_run()):
        assert HOSTILE in page.text
        assert not [href for href in page.links() if href.startswith("javascript:")]
        assert not page.all("img")


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A logged-in browser without Airflow and without a warehouse."""
    app = FastAPI()
    app.include_router(html.router)
    app.include_router(html.static_router)
    someone = SimpleNamespace(get_name=lambda: "someone")
    access_given = {access._readable_sources: lambda: (SOURCE,), access._is_decider: lambda: True}
    app.dependency_overrides = {get_user: lambda: someone} | access_given
    with TestClient(app) as browser:
        yield browser


def test_warehouse_out_of_reach_is_a_page(client):
    def unavailable():
        raise warehouse.WarehouseUnavailable("the warehouse can't be reached: check the connection")

    client.app.dependency_overrides[warehouse._each] = unavailable
    answer = client.get("/")
    assert answer.status_code == 503
    assert "The warehouse can&#39;t be reached: check the connection." in answer.text
    Document(answer.text)


def test_who_is_not_logged_in_gets_a_page_that_says_so(client):
    del client.app.dependency_overrides[get_user]
    for path in ("/", f"/sources/{SOURCE}", f"/dags/{RECONCILE}", f"/dags/{RECONCILE}/runs/x"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert "Log in" in answer.text


def test_who_logged_in_before_airflows_secret_was_changed_may_log_in_again(client, monkeypatch):
    manager = SimpleNamespace(get_user_from_token=AsyncMock(side_effect=InvalidTokenError))
    monkeypatch.setattr(security, "get_auth_manager", lambda: manager)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(security.resolve_user_from_token("made.up.token"))

    def refuse():
        raise refused.value

    client.app.dependency_overrides[get_user] = refuse
    answer = client.get("/")
    assert (answer.status_code, "Log in" in answer.text) == (401, True)


def test_only_the_own_host_is_asked(client):
    answer = client.get("/static/nothing.js")
    assert answer.status_code == 404
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "script-src" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("days", ["0", "367", "x"])
def test_period_that_no_page_gives_is_refused(client, days):
    client.app.dependency_overrides |= {access.require_readable: lambda: SOURCE, warehouse._each: lambda: None}
    answer = client.get(f"/sources/{SOURCE}?days={days}")
    assert answer.status_code == 422
    assert "not one that these pages give" in answer.text


def test_files_are_kept_by_browsers_as_long_as_their_version(client):
    answer = client.get("/static/plotly.min.js?v=1")
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert "immutable" in answer.headers["Cache-Control"]
    assert "immutable" not in client.get("/static/icon.svg").headers["Cache-Control"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "\N{EN DASH}"), (0.2, "under 1 s"), (59.6, "1 min"), (3600, "1 h"), (90061, "1 d 1 h"), (86460, "1 d")],
)
def test_times_that_passed(seconds, text):
    assert render.span(seconds) == text


@pytest.mark.parametrize(("figure", "text"), [(None, "\N{EN DASH}"), (0, "0"), (1234567, "1,234,567"), (2.5, "2.50")])
def test_figures(figure, text):
    assert render.number(figure) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, render.NONE), (14, "14 s"), (61, "1 min"), (599, "10 min"), (2034, "35 min"), (7100, "2 h"), (8000, "2 h")],
)
def test_measured_times_are_round(seconds, text):
    assert render.roughly(seconds) == text
