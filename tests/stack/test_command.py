"""How a part of Airflow ends, and what it has at hand for its children. In most tests a few lines stand for Airflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack.settings import REPOSITORY

# Says what happens when it ends; `Last` is told only by an interpreter that frees each object.
AIRFLOW = """
import atexit, sys

class Last:
    def __del__(self, tell=print):
        tell("freed")

atexit.register(print, "called")
atexit.last = Last()
print("works", *sys.argv[1:], end=" ")
"""


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("", 0, "works triggerer called\n"),
        ("sys.exit()", 0, "works triggerer called\n"),
        ("sys.exit(3)", 3, "works triggerer called\nfreed\n"),
        ("1 / 0", 1, "works triggerer called\nfreed\n"),
    ],
)
@pytest.mark.parametrize("module", ["stack.command", "stack.local_logs"])
def test_a_part_ends_at_once_unless_it_failed(module: str, end: str, code: int, told: str, tmp_path: Path):
    serving = tmp_path / "airflow" / "utils" / "serve_logs"
    serving.mkdir(parents=True)
    (tmp_path / "airflow" / "__init__.py").touch()
    (serving / "core.py").write_text("from types import SimpleNamespace\nuvicorn = SimpleNamespace(run=None)\n")
    (tmp_path / "airflow" / "__main__.py").write_text(AIRFLOW + end)
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-m", module, "triggerer"],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (code, told), done.stderr


# What the forks of a preloaded process would import: each DAG file, and a message's services.
IMPORTED = """
import json, os, sys
from stack import preloaded

preloaded.load()
loaded = set(sys.modules)

from airflow.dag_processing.dagbag import BundleDagBag
from apprise import Apprise

bag = BundleDagBag(sys.argv[1], bundle_path=sys.argv[1], bundle_name="tests")
services = Apprise()
services.add("json://localhost")
files = {os.path.basename(dag.fileloc) for dag in bag.dags.values()}
modules = {name for name in sys.modules if name not in loaded and name.startswith(("plugins", "include", "apprise"))}
print(json.dumps([sorted(files), sorted(modules), bag.import_errors]))
"""


def test_the_preloaded_have_what_dag_files_and_messages_import(tmp_path: Path):
    dags = REPOSITORY / "dags"
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, str(dags)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted(file.name for file in dags.glob("*.py"))
    assert json.loads(done.stdout.splitlines()[-1]) == [files, [], {}]
