"""The pictures of the pages, from the running stack: `python -m docs.screenshots` writes docs/screenshots/*.png.

What they show is what the stack has: `make demo` leaves the most to see.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Error, FrameLocator, Page, sync_playwright

from plugins.sync_confidence import IN_NAVIGATION
from stack.control import Stack
from stack.guardian import StackError
from stack.settings import Home

FOLDER = Path(__file__).parent / "screenshots"
# The demo leaves it with a hold and what was decided.
SOURCE = "repairshopr"
# A browser comes with no package.
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOME = "/plugin/sync-confidence/sync-confidence"
PATIENCE_MS, SETTLED_MS = 60_000, 1500


@contextmanager
def logged_in(url: str, user: str, password: str) -> Iterator[Page]:
    """A person's browser, logged in to the Airflow at `url`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.locator("input[name=username]").fill(user)
        page.locator("input[name=password]").fill(password)
        page.get_by_role("button", name=re.compile("sign in|log in", re.IGNORECASE)).click()
        page.wait_for_url(re.compile(r"localhost:\d+/(?!auth)"))
        yield page
        browser.close()


def pages(page: Page) -> FrameLocator:
    """Our part of a page of Airflow's UI."""
    return page.frame_locator(f"iframe[title='{IN_NAVIGATION}'], iframe[title='Sync confidence']")


def take(page: Page, url: str, source: str, folder: Path) -> None:
    """Take each page about the source, as the browser's Airflow at `url` has it; the overview on a phone too."""
    folder.mkdir(exist_ok=True)
    page.goto(f"{url}{HOME}/")
    pages(page).get_by_role("row").first.wait_for()
    _shoot(page, folder / "overview.png", 600)
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{url}/sync-confidence/")
    page.screenshot(path=folder / "phone.png")
    page.set_viewport_size({"width": 1200, "height": 800})
    page.goto(f"{url}{HOME}/sources/{source}")
    pages(page).locator("figure.plot").first.scroll_into_view_if_needed()
    pages(page).locator("figure.plot .main-svg").first.wait_for()
    pages(page).get_by_role("heading").first.scroll_into_view_if_needed()
    _shoot(page, folder / "source.png", 1300)
    runs = pages(page).get_by_role("region", name="Last runs").get_by_role("link")
    run = runs.first.get_attribute("href").rpartition("/runs/")[2]
    held = pages(page).get_by_role("region", name="Last runs").get_by_role("row").filter(has_text="hold").first
    question = held.get_by_role("link").first.get_attribute("href")
    page.set_viewport_size({"width": 390, "height": 1200})
    page.goto(f"{url}{question}#question")
    page.get_by_role("region", name="The question").wait_for()
    page.screenshot(path=folder / "question.png")
    page.goto(f"{url}/dags/{source}_reconcile/runs/{run}/plugin/sync-confidence-run")
    pages(page).get_by_role("heading", name="Gates").wait_for()
    _shoot(page, folder / "run.png", 1000)
    plan = pages(page).get_by_role("link", name="Each planned row").first.get_attribute("href")
    page.goto(f"{url}{plan}")
    page.get_by_role("table", name="Planned changes").wait_for()
    _shoot(page, folder / "plan.png", 900)
    page.goto(f"{url}{HOME}/sources/{source}/fields")
    pages(page).get_by_role("group").first.locator("summary").click()
    _shoot(page, folder / "fields.png", 1000)
    page.goto(f"{url}{HOME}/sources/{source}")
    syncs = pages(page).get_by_role("region", name="Syncs, repairs").get_by_role("row")
    syncs.filter(has_text=re.compile(r"\brepair\b")).first.get_by_role("link").first.click()
    pages(page).get_by_role("heading", name="Changes").wait_for()
    _shoot(page, folder / "sync.png", 900)
    pages(page).get_by_title("History of this row").first.click()
    pages(page).get_by_role("heading", name="Now").wait_for()
    _shoot(page, folder / "row.png", 1000)


def main() -> int:
    stack = Stack(Home.default().folder)
    try:
        if not BROWSER:
            raise StackError("no Chromium found (Debian: apt install chromium)")
        with logged_in(stack.api_url, "admin", stack.password("admin")) as page:
            take(page, stack.api_url, SOURCE, FOLDER)
    except Error as error:
        print(f"screenshots: {error.message.splitlines()[0]} Is there a scan and a repair to see?", file=sys.stderr)
        return 1
    except StackError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


def _shoot(page: Page, path: Path, height: int) -> None:
    page.set_viewport_size({"width": 1200, "height": height})
    # Plots and Airflow's own parts follow the new size; Airflow's page never stops to ask for news.
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=path, animations="disabled")


if __name__ == "__main__":
    sys.exit(main())
