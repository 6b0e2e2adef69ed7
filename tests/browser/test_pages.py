"""Sync confidence in Airflow's UI, in a real browser: every page as people have it, a hold followed to its answer."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from docs.screenshots import HOME, pages, take
from plugins.sync_confidence import IN_NAVIGATION
from tests.running_platform import RECONCILE, SOURCE, Platform

PHONE = 360
ON_A_PHONE = {"width": 390, "height": 844}
# The least height in pixels of what a finger is to hit.
FINGER = 44
# A second click that comes sooner is half of a double click, and no answer.
DOUBLE_CLICK_MS = 600


@pytest.fixture(scope="module")
def held(running_platform: Platform) -> tuple[Platform, str]:
    """A source that was repaired, and whose writer is held since; the run that asks."""
    running_platform.reset()
    running_platform.lose(3)
    running_platform.airflow.run(RECONCILE, 240, dry_run=False)
    running_platform.remove_at_source(60)
    running_platform.lose(2, "payments")
    run_id = running_platform.airflow.trigger(RECONCILE)
    running_platform.wait_for_question(run_id)
    return running_platform, run_id


@pytest.fixture
def watched(browser_page: Page) -> Page:
    """The browser, which must neither tell of an error nor ask another host."""
    errors: list[str] = []
    hosts: set[str] = set()

    def hear(message):
        if message.type == "error":
            errors.append(message.text)

    def see(request):
        hosts.add(re.sub(r"^(\w+:(//[^/]+)?).*", r"\1", request.url, flags=re.DOTALL))

    browser_page.on("console", hear)
    browser_page.on("request", see)
    yield browser_page
    browser_page.remove_listener("console", hear)
    browser_page.remove_listener("request", see)
    assert errors == []
    assert {host for host in hosts if not re.match(r"http://localhost:\d+$|data:|blob:", host)} == set()


def background(page: Page) -> str:
    return pages(page).locator("body").evaluate("body => getComputedStyle(body).backgroundColor")


def test_pages_fit_a_phone(held, watched):
    platform, run_id = held
    run = f"/dags/{RECONCILE}/runs/{quote(run_id, safe='')}"
    (sync_id,) = platform.query("SELECT max(sync_id) FROM confidence.sync_log WHERE kind = 'repair'")[0]
    watched.set_viewport_size({"width": PHONE, "height": 740})
    query = "SELECT summary ->> 'evidence' FROM confidence.forensic_run WHERE entity = 'line_items'"
    plan = f"/sources/{SOURCE}/plans/{platform.query(query)[-1][0]}"
    for path in ("/", f"/sources/{SOURCE}", run, f"/sources/{SOURCE}/syncs/{sync_id}", plan):
        watched.goto(f"{platform.airflow.url}/sync-confidence{path}")
        watched.wait_for_load_state("networkidle")
        assert watched.evaluate("document.documentElement.scrollWidth") <= PHONE, path
    watched.set_viewport_size({"width": 1400, "height": 1000})


def test_source_page_draws_its_plots_in_light_and_dark(held, watched):
    platform, _ = held
    grounds = set()
    for theme in ("light", "dark"):
        watched.evaluate("theme => localStorage.setItem('theme', theme)", theme)
        watched.goto(f"{platform.airflow.url}{HOME}/sources/{SOURCE}")
        page = pages(watched)
        plots = page.locator("figure.plot").filter(visible=True)
        plots.first.scroll_into_view_if_needed()
        expect(plots.locator(".main-svg").first).to_be_visible()
        expect(plots.locator(".drawing.js-plotly-plot")).to_have_count(plots.count())
        expect(page.get_by_role("heading", name="The last repair, before and after")).to_be_visible()
        # The plot's alternative opens by the keyboard.
        plots.first.locator("summary").press("Enter")
        expect(plots.first.get_by_role("table")).to_be_visible()
        grounds.add(background(watched))
    assert len(grounds) == 2
    watched.evaluate("localStorage.removeItem('theme')")


def test_run_has_its_gates_as_a_tab(held, watched):
    platform, run_id = held
    watched.goto(f"{platform.airflow.url}/dags/{RECONCILE}/runs/{quote(run_id, safe='')}")
    watched.get_by_role("link", name="Sync confidence").click()
    gates = pages(watched).get_by_role("table", name="Gates of line_items")
    row = gates.get_by_role("row").filter(has_text="plan.delete")
    expect(row).to_contain_text("60")
    expect(row).to_contain_text("hold")
    # Out of the frame, which Airflow's UI does not let navigate the window.
    pages(watched).get_by_role("link", name="the run in Airflow").click()
    watched.wait_for_url(re.compile(r"/runs/[^/]+/?$"))


def test_task_has_a_button_to_its_runs_page(held, watched):
    platform, run_id = held
    run = f"{platform.airflow.url}/dags/{RECONCILE}/runs/{quote(run_id, safe='')}"
    watched.goto(f"{run}/tasks/gate_check")
    watched.get_by_role("link", name="Details", exact=True).click()
    watched.get_by_role("link", name="Sync confidence").click()
    watched.wait_for_url(re.compile(r"/plugin/sync-confidence-run$"))
    expect(pages(watched).get_by_role("table", name="Gates of line_items")).to_be_visible()


def test_plan_is_read_row_by_row_and_filtered(held, watched):
    platform, run_id = held
    watched.set_viewport_size({"width": 1400, "height": 1000})
    watched.goto(f"{platform.airflow.url}/sync-confidence/dags/{RECONCILE}/runs/{quote(run_id, safe='')}")
    watched.get_by_role("link", name="Each planned row, both sides of line_items").click()
    table = watched.get_by_role("table", name="Planned changes")
    expect(table.get_by_text("no such row").first).to_be_visible()
    expect(watched.get_by_role("listitem").filter(has_text="60 of 60 rows to delete").first).to_be_visible()
    expect(table.get_by_role("rowheader")).to_have_count(50)
    watched.get_by_role("link", name="Next rows").click()
    expect(table.get_by_role("rowheader")).to_have_count(10)
    (line,) = platform.query(
        "SELECT max((key ->> 'id')::bigint) FROM confidence.planned_change"
        " WHERE table_name = 'line_items' AND operation = 'delete' AND source = %s",
        SOURCE,
    )[0]
    watched.get_by_label("Key", exact=True).fill(str(line))
    watched.get_by_role("button", name="Filter").click()
    expect(table.get_by_role("rowheader")).to_have_count(1)
    expect(table.get_by_role("rowheader")).to_contain_text(str(line))
    with watched.expect_download() as download:
        watched.get_by_role("link", name="These changes as CSV").click()
    assert str(line) in download.value.path().read_text()


def test_each_page_has_its_picture(held, browser_page, tmp_path):
    platform, _ = held
    take(browser_page, platform.airflow.url, SOURCE, tmp_path)
    browser_page.set_viewport_size({"width": 1400, "height": 1000})
    assert {path.name for path in tmp_path.iterdir()} == {
        "overview.png",
        "phone.png",
        "question.png",
        "source.png",
        "run.png",
        "plan.png",
        "fields.png",
        "sync.png",
        "row.png",
    }


def test_hold_that_was_kept_is_asked_about_again_with_one_click(held, watched):
    platform, run_id = held
    platform.airflow.answer(RECONCILE, run_id, "Keep stopped")
    assert platform.airflow.wait(RECONCILE, run_id) == "failed"
    watched.goto(f"{platform.airflow.url}{HOME}/")
    pages(watched).get_by_role("link", name="Ask me again").click()
    pages(watched).get_by_role("button", name="Ask me again").click()
    watched.wait_for_timeout(DOUBLE_CLICK_MS)
    pages(watched).get_by_role("button", name="Yes, ask me again").click()
    # The page of the run waits until the question is there, and has the form that answers it.
    question = pages(watched).get_by_role("region", name="The question")
    expect(question.get_by_role("button", name="Keep stopped")).to_be_visible()
    expect(question).to_contain_text("The question of")
    expect(question).to_contain_text("Keep stopped")
    platform.wait_for_question(run_id)


def test_hold_is_followed_from_the_overview_to_its_answer(held, watched):
    platform, run_id = held
    watched.goto(platform.airflow.url)
    entry = watched.get_by_role("link", name=IN_NAVIGATION, exact=True)
    # The navigation cuts a name that is too long.
    assert entry.locator("div").last.evaluate("label => label.scrollWidth <= label.clientWidth")
    entry.click()
    row = pages(watched).get_by_role("row").filter(has=watched.get_by_role("link", name=SOURCE, exact=True))
    expect(row).to_contain_text("held")
    expect(row).to_contain_text("the repair would delete 60 of")
    row.get_by_role("link", name="Decide what to do").click()
    # What is wrong, what a repair would write, and what the rows have in common.
    question = pages(watched).get_by_role("region", name="The question")
    expect(question).to_contain_text("The repair would delete")
    expect(question).to_contain_text("0 rows to insert, 0 to update, 60 to delete")
    expect(question).to_contain_text("What stands out: 60 of 60 rows to delete")
    plan = question.get_by_role("link", name="line_items", exact=True).get_attribute("href")
    link = f"{platform.airflow.url}/sync-confidence/dags/{RECONCILE}/runs/{quote(run_id, safe='')}#question"
    elsewhere = watched.context.browser.new_context(storage_state=watched.context.storage_state())
    slower = elsewhere.new_page()
    slower.goto(link)
    watched.set_viewport_size(ON_A_PHONE)
    watched.goto(link)
    question = watched.get_by_role("region", name="The question")
    # Each answer can be read and touched, and nothing is wider than the phone.
    assert watched.evaluate("document.documentElement.scrollWidth") <= ON_A_PHONE["width"]
    for choice in question.locator(".choice label").filter(visible=True).all():
        box = choice.bounding_box()
        assert box["height"] >= FINGER
        assert box["x"] + box["width"] <= ON_A_PHONE["width"]
    expect(question.get_by_role("radio", name=re.compile("^Keep stopped"))).to_be_checked()
    expect(question.get_by_label("Repair payments")).to_be_hidden()
    button = question.get_by_role("button")
    expect(button).to_have_text("Keep stopped")
    question.get_by_text("Repair, then resume", exact=True).click()
    button.click()
    expect(question.get_by_role("alert")).to_contain_text("Tick what is to be repaired")
    for box in question.get_by_role("checkbox").all():
        box.check()
    question.get_by_label("Repair payments").uncheck()
    question.get_by_label("Reason").fill("the shop has cleaned up")
    expect(button).to_have_text("Repair, then resume")
    button.click()
    expect(button).to_have_text(re.compile(r"^Yes: write \d+ rows? \(.+\); leave payments$"))
    watched.wait_for_timeout(DOUBLE_CLICK_MS)
    button.click()
    expect(question).to_contain_text("Answered by admin")
    expect(question).to_contain_text("without payments. Reason: the shop has cleaned up")
    # Who had the page open too reads that, and has changed nothing.
    button = slower.get_by_role("region", name="The question").get_by_role("button")
    button.click()
    slower.wait_for_timeout(DOUBLE_CLICK_MS)
    button.click()
    expect(slower.get_by_role("alert")).to_contain_text("Answered already by admin")
    expect(slower.get_by_role("alert")).to_contain_text("Repair, then resume. Your answer was not taken.")
    elsewhere.close()
    watched.set_viewport_size({"width": 1400, "height": 1000})
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.writer().runs
    watched.goto(plan)
    expect(watched.get_by_text("Decided: repair by admin")).to_contain_text("the shop has cleaned up")
    query = "SELECT entity FROM confidence.forensic_run WHERE left_out AND run = %s"
    assert platform.query(query, f"{RECONCILE}/{run_id}") == [("payments",)]
    watched.goto(f"{platform.airflow.url}{HOME}/")
    expect(row).to_contain_text("running")
    expect(row).not_to_contain_text("held")


def test_sync_is_rolled_back_by_a_form_that_knows_it(held, watched):
    """Comes last: what a hold asks about may not be repaired any more once something was rolled back."""
    platform, _ = held
    before = platform.airflow.runs("warehouse_rollback")
    watched.goto(f"{platform.airflow.url}{HOME}/sources/{SOURCE}")
    pages(watched).get_by_role("row").filter(has_text="repair").get_by_role("link", name="Roll back sync").first.click()
    form = pages(watched).locator("form")
    expect(form.get_by_label("Dry run")).to_be_checked()
    sync_id = int(form.get_by_label("sync_id").input_value())
    form.get_by_label("Reason").fill("the wrong rows")
    form.get_by_role("button", name="Count only").click()
    # Within Airflow's frame, and by itself: first that it waits or counts, then what it has counted.
    expect(pages(watched).get_by_role("heading", name="Dry run of a rollback")).to_contain_text("success")
    (run_id,) = set(platform.airflow.runs("warehouse_rollback")) - set(before)
    conf = platform.airflow.call("GET", f"/dags/warehouse_rollback/dagRuns/{run_id}")["conf"]
    assert conf == {"sync_id": sync_id, "reason": "the wrong rows", "dry_run": True, "force": False}
    counts = pages(watched).get_by_role("row").filter(has_text=f"{SOURCE}.line_items")
    expect(counts.get_by_role("cell")).to_have_text(["60", "0", "0"])
    lines = platform.live("line_items")
    # The button asks once more.
    pages(watched).get_by_role("button", name="Roll back").click()
    watched.wait_for_timeout(DOUBLE_CLICK_MS)
    pages(watched).get_by_role("button", name="Yes, roll back").click()
    expect(pages(watched).get_by_role("heading", name="Rollback of repair")).to_contain_text("success")
    expect(pages(watched).get_by_text("Done as rollback")).to_be_visible()
    query = "SELECT reason FROM confidence.sync_log WHERE undoes = %s AND state = 'success'"
    assert platform.query(query, sync_id) == [("the wrong rows",)]
    assert len(platform.live("line_items") - lines) == 60
    # The same page is the tab of its run.
    (real,) = set(platform.airflow.runs("warehouse_rollback")) - {*before, run_id}
    watched.goto(f"{platform.airflow.url}/dags/warehouse_rollback/runs/{quote(real, safe='')}")
    watched.get_by_role("link", name="Sync confidence").last.click()
    expect(pages(watched).get_by_text("Done as rollback")).to_be_visible()
