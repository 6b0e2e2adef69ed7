"""The benchmarks work: every part gives its figures. How good these are is nobody's matter here."""

import re
import subprocess
import sys
from importlib.util import find_spec
from subprocess import PIPE

import pytest

from benchmarks.__main__ import RESULTS
from benchmarks.measure import BenchError, prepared
from stack.settings import REPOSITORY

PARTS = (
    "Scan",
    "Comparison",
    "Load",
    "Fields",
    "Square",
    "Storage",
    "Tekmetric",
    "Flex",
    "At the vendor's limit",
    "Overview",
    "Plan",
    "DAG files",
)
LINES = (
    "2,000 rows, 100 a page, 20 ms a page",
    "4,000 rows, 1,000 a page",
    "SQL (ours)",
    "Python sets, server-side cursors",
    "sync (ours)",
    "requests, json, executemany upsert",
    "Singer tap and target",
    "first load",
    "nightly scan",
    "requests that the changes ask for",
    "listing, merged (ours)",
    "rclone lsf, Python set",
    "HEAD each, 5 at once",
    "HEAD each, 32 at once",
    "requests beside HEAD",
    "CPU beside HEAD",
    "backfill, 20 orders",
    "the same, 10 ms an answer",
    "scan of all days",
    "2, one after the other",
    "requests of that sync",
    "20 a day, all changed",
    "first sync, 8 jobs",
    "2 jobs, one after the other",
    "sync, 1 jobs changed",
    "scan of all jobs",
    "all jobs, read as before",
    "requests of the first sync",
    "requests of the changes",
    "requests at once",
    "requests of one crew call at once",
    "allowed requests used",
    "answers 429",
    "overview (ours)",
    "last verdicts, plain aggregate",
    "50 scans from the middle",
    "by parent",
    "repairshopr_reconcile",
    "warehouse_rollback",
)
PEERS = {
    "reladiff": "reladiff (hashdiff)",
    "dlt": "dlt rest_api, merge",
    "pyarrow": "dlt, Arrow tables, CSV, upsert",
}


def run_quick() -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a quick run, which is ended with its servers if it takes too long."""
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=280)
        finally:
            process.terminate()
    return process.returncode, out, err


def test_quick_run_gives_all_figures():
    results = RESULTS.read_text() if RESULTS.exists() else None
    code, out, err = run_quick()
    assert (code, err) == (0, "")
    for title in PARTS:
        assert re.search(rf"^{title} *$", out, re.MULTILINE)
    for name in LINES:
        assert re.search(r"\d", cells(out, name))
    for library, name in PEERS.items():
        installed = find_spec(library) is not None
        assert ("not measured" in cells(out, name)) is not installed
    assert (RESULTS.read_text() if RESULTS.exists() else None) == results


def cells(out: str, name: str) -> str:
    """What follows the name in the one line of the tables that begins with it."""
    (line,) = (line for line in out.splitlines() if line.startswith(f"│ {name} "))
    return line.removeprefix(f"│ {name} ")


def test_failing_job_is_told_by_name_and_reason():
    reason = pytest.raises(BenchError, match=r"benchmarks\.work:nothing ended with code 1: AttributeError")
    with reason, prepared("benchmarks.work:nothing"):
        pass
