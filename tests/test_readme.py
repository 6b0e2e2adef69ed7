"""What README and docs promise exists: queries run, links lead somewhere, commands and settings are known."""

import re
from pathlib import Path

import psycopg
import pytest

from include.sources import get_source
from include.sources.base import entity_of
from include.warehouse.migrate import migrate
from include.warehouse.staging import Stage
from stack.settings import REPOSITORY

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_query_runs_on_a_warehouse(warehouse_url: str) -> None:
    migrate(warehouse_url)
    queries = [query for page in PAGES for query in re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)]
    with psycopg.connect(warehouse_url, autocommit=True) as conn:
        # A scan leaves its plan; this is what makes the table.
        Stage.open(conn, entity_of(get_source("repairshopr"), "line_items").table, "repairshopr", "scan", "test")
        for query in queries:
            conn.execute(query).fetchall()
    assert len(queries) >= 9


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        assert not heading or heading in anchors(linked), target


def test_every_decision_is_in_the_index() -> None:
    folder = REPOSITORY / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in sorted(folder.glob("0*.md")):
        number, title = page.read_text().partition("\n")[0].removeprefix("# ").split(" ", 1)
        assert f"- [{number}]({page.name}) {title}\n" in index


def test_every_make_target_is_known() -> None:
    named = {page: set(re.findall(r"`make ([\w-]+)", page.read_text())) for page in PAGES}
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert named[REPOSITORY / "docs" / "development.md"] == targets
    assert named[REPOSITORY / "README.md"] <= targets


def test_every_variable_and_connection_is_told() -> None:
    page = (REPOSITORY / "docs" / "setup.md").read_text()
    code = "\n".join(path.read_text() for path in (REPOSITORY / "plugins").rglob("*.py"))
    variables = set(re.findall(r'Variable\.get\(\s*"(\w+)"', code))
    connections = set(re.findall(r'^CONNECTION = "(\w+)"', code, re.MULTILINE))
    assert variables
    assert connections
    for name in variables | connections:
        assert f"| `{name}` |" in page


def test_every_span_and_log_line_of_a_step_is_told() -> None:
    page = (REPOSITORY / "docs" / "observability.md").read_text()
    folders = [REPOSITORY / "plugins", REPOSITORY / "include" / "sources"]
    code = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    spans = set(re.findall(r'\bspan\(\s*"(\w+)"', code))
    events = set(re.findall(r'\blog_line\(\s*context,\s*(?:self\.)?source,\s*"(\w+)"', code))
    assert min(len(spans), len(events)) >= 5
    assert {f"sync_confidence.{name}" for name in spans} == set(re.findall(r"^\| `(sync_confidence\.\w+)`", page, re.M))
    assert [name for name in events if f"| `{name}` |" not in page] == []
