"""What people do in Airflow's UI, in a real browser: read a trigger form, answer a hold, see the writer resume."""

from playwright.sync_api import expect

from stack.airflow import until
from tests.running_platform import RECONCILE


def test_dry_run_is_started_by_a_form_that_explains_itself(platform, browser_page):
    page = browser_page
    page.goto(f"{platform.airflow.url}/dags/{RECONCILE}")
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("checkbox", name="Dry run")).to_be_checked(timeout=30_000)
    expect(dialog.get_by_text("Find and judge drift, plan the repair, write nothing.")).to_be_visible()
    dialog.get_by_role("button", name="Which part").click()
    expect(dialog.get_by_role("spinbutton", name="First page")).to_have_value("1")
    expect(dialog.get_by_role("spinbutton", name="Last page")).to_have_value("0")
    expect(dialog.get_by_role("checkbox", name="Look for rows that RepairShopr does not have")).to_be_checked()
    # One section closes as another opens.
    dialog.get_by_role("button", name="The writer afterwards").click()
    expect(dialog.get_by_role("checkbox", name="Reset the watermarks")).not_to_be_checked()
    before = platform.airflow.runs(RECONCILE)
    dialog.get_by_role("button", name="Trigger").click()
    until(lambda: len(platform.airflow.runs(RECONCILE)) > len(before), "the run that the form starts", 60)
    (run_id,) = set(platform.airflow.runs(RECONCILE)) - set(before)
    assert platform.airflow.wait(RECONCILE, run_id) == "success"


def test_wrong_project_is_refused_by_the_form(platform, browser_page):
    page, dag = browser_page, "storage_reconcile"
    page.goto(f"{platform.airflow.url}/dags/{dag}")
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("checkbox", name="Dry run")).to_be_checked(timeout=30_000)
    expect(dialog.get_by_text("Off: mark it if the gate allows; needs RECONCILE_ENABLED.")).to_be_visible()
    dialog.get_by_role("button", name="How it works").click()
    for name, value in {"Batch size": "1000", "Requests at once": "5"}.items():
        expect(dialog.get_by_role("spinbutton", name=name)).to_have_value(value)
    # One section closes as another opens.
    dialog.get_by_role("button", name="Which part").click()
    expect(dialog.get_by_role("checkbox", name="Heal")).to_be_checked()
    expect(dialog.get_by_role("combobox", name="Status")).to_be_visible()
    expect(dialog.get_by_role("spinbutton", name="Limit")).to_have_value("0")
    before = platform.airflow.runs(dag)
    dialog.locator("#element_project_id").fill("living room")
    dialog.get_by_role("button", name="Trigger").click()
    expect(page.get_by_text("'living room' is not a 'uuid'").first).to_be_visible()
    assert platform.airflow.runs(dag) == before


def test_hold_is_answered_and_the_writer_resumes(platform, browser_page):
    page = browser_page
    platform.remove_at_source(60)
    run_id = platform.airflow.trigger(RECONCILE)
    platform.wait_for_question(run_id)
    page.goto(f"{platform.airflow.url}/dags/{RECONCILE}/runs/{run_id}/tasks/decide/required_actions?map_index=-1")
    expect(page.get_by_text("the writer is held").first).to_be_visible()
    expect(page.get_by_text("the repair would delete 60 of").first).to_be_visible()
    page.get_by_role("button", name="Repair, then resume").click()
    assert platform.airflow.wait(RECONCILE, run_id) == "success"
    assert platform.in_step()
    assert platform.writer().runs
