"""The reference page of the DAGs: complete, made without a database, and never stale unnoticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param

from docs import reference
from docs.reference import REPOSITORY, BrokenDag


def run(repository: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "docs.reference", *arguments]
    return subprocess.run(command, cwd=repository, env={}, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the page is made from and by, to be changed."""
    for folder in ("dags", "docs", "include", "plugins", "tests"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(reference.README, tmp_path)
    return tmp_path


@pytest.fixture
def dag() -> DAG:
    with DAG(
        "shop_count",
        doc_md="# Shop: count\n\nCounts.\n\n## If it fails\nCount again.",
        schedule=CronTriggerTimetable("5 4 * * *", timezone="Europe/Berlin"),
        tags=["shop", "count"],
        max_active_runs=3,
        params={
            "rows": Param(10, type="integer", minimum=2, title="Rows", description="How many | at most."),
            "note": Param(None, type=["null", "string"], title="Note"),
            "mode": Param("fast", enum=["fast", "slow"]),
        },
    ) as made:
        # Named so that neither the alphabet nor the order of definition gives the order of work.
        last = EmptyOperator(task_id="b_last", trigger_rule="all_done", retries=4)
        EmptyOperator(task_id="c_first", pool="shop_pool") >> EmptyOperator(task_id="a_middle") >> last
    return made


def test_the_pages_are_fresh() -> None:
    done = run(REPOSITORY, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_dag_makes_it_stale_until_it_is_made_anew(copy: Path) -> None:
    page, dag = copy / "docs" / "dags.md", copy / "dags" / "warehouse_rollback.py"
    before = page.read_text()
    dag.write_text(dag.read_text().replace('title="Reason"', 'title="Why it is undone"'))

    done = run(copy, "--check")
    assert (done.returncode, done.stderr) == (1, "docs: docs/dags.md is stale: run `make docs`\n")
    assert page.read_text() == before

    assert run(copy).returncode == 0
    assert page.read_text() == before.replace("| Reason |", "| Why it is undone |") != before


def test_a_changed_schedule_makes_readme_stale_until_it_is_made_anew(copy: Path) -> None:
    page, dag = copy / "README.md", copy / "dags" / "square_sync.py"
    before = page.read_text()
    dag.write_text(dag.read_text().replace("*/30 * * * *", "20 * * * *"))

    assert "docs: README.md is stale: run `make docs`\n" in run(copy, "--check").stderr

    assert run(copy).returncode == 0
    assert (
        page.read_text()
        == before.replace("[every 30 minutes](docs/dags.md#square_sync)", "[every hour](docs/dags.md#square_sync)")
        != before
    )


@pytest.mark.parametrize(
    ("expression", "told"),
    [("*/5 * * * *", "every 5 minutes"), ("7 * * * *", "every hour"), ("5 4 * * *", "04:05")]
    + [(expression, f"`{expression}` (UTC)") for expression in ("5,35 * * * *", "0 */2 * * *", "0 3 * * 1")],
)
def test_readme_tells_of_a_source_by_its_dags(expression: str, told: str) -> None:
    doc = "# Shop: keep\n\nReads what\nchanged. Writes it.\n\nMore."
    dags = [
        DAG(f"shop_{job}", doc_md=doc, schedule=CronTriggerTimetable(expression, timezone="UTC"))
        for job in ("sync", "reconcile")
    ]
    before = f"Head\n{reference.BEGIN}\nold\n{reference.END}\nTail\n"

    page = reference.render_readme(before, dags, ["shop"])

    cells = [f"[{told}](docs/dags.md#shop_{job})" for job in ("sync", "reconcile")]
    assert f"| Shop | {' | '.join(cells)} | Reads what changed. |\n" in page
    assert (page[:5], page[-5:], "old" in page) == ("Head\n", "Tail\n", False)


def test_the_page_tells_all_of_a_dag(dag: DAG) -> None:
    page = reference.render([dag], {"shop_pool": {"slots": 2, "description": "Counting.", "include_deferred": True}})

    assert "- [`shop_count`](#shop_count): Shop: count\n" in page
    assert "| `5 4 * * *` (Europe/Berlin) | count, shop | 3 |\n" in page
    assert "### Shop: count\n\nCounts.\n\n#### If it fails\nCount again.\n" in page
    assert page.partition("| Retries |\n")[2].splitlines()[1:4] == [
        "| 1 | `c_first` | EmptyOperator |  | `all_success` | `shop_pool` | 0 |",
        "| 2 | `a_middle` | EmptyOperator | `c_first` | `all_success` | `default_pool` | 0 |",
        "| 3 | `b_last` | EmptyOperator | `a_middle` | `all_done` | `default_pool` | 4 |",
    ]
    assert page.partition("| Meaning |\n")[2].splitlines()[1:4] == [
        "| `rows` | Rows | integer, at least 2 | `10` | How many \\| at most. |",
        "| `note` | Note | null or string | `null` |  |",
        '| `mode` |  | one of `fast`, `slow` | `"fast"` |  |',
    ]
    assert page.endswith("| `shop_pool` | 2 | Counting. |\n")


def test_a_dag_without_schedule_may_require_a_param() -> None:
    with DAG("shop_undo", schedule=None, params={"shop": Param(type="string", title="Shop")}) as dag:
        EmptyOperator(task_id="undo")
    page = reference.render([dag], {})

    assert "| by hand |  | " in page
    assert "| `shop` | Shop | string | required |  |\n" in page


def test_a_dag_file_that_can_not_be_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop_count.py").write_text('# airflow dag\nraise RuntimeError("no shop")\n')
    with pytest.raises(BrokenDag, match=r"shop_count\.py: RuntimeError: no shop\. Mend that file first"):
        reference.load(tmp_path)
