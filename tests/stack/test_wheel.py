"""The project as people install it into their own Airflow: a wheel, and DAG files in a folder or a git repository."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import requests

from include.simulators import repairshopr
from stack.airflow import Airflow, until
from stack.guardian import StackError
from stack.ports import free_ports
from stack.postgres import Server
from stack.settings import REPOSITORY
from tests.documented import snippet

BIN = Path(sys.executable).parent
SOURCE = "repairshopr"
OF_ALL = ("confidence_retention", "confidence_watch", "warehouse_migrate", "warehouse_rebuild", "warehouse_rollback")
SHOP = repairshopr.Config.sized(invoices=30, customers=10, rate_limit=None)
DAGS = sorted([f"{SOURCE}_sync", f"{SOURCE}_reconcile", *OF_ALL])
PASSWORDS = {"admin": "admin-password", "runbook": "runbook-password"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run([BIN / "uv", "build", "--quiet", "--offline", "--wheel", "--out-dir", built, REPOSITORY], check=True)
    [wheel] = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def site_packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else: the packages that it needs come from this environment."""
    installed = tmp_path_factory.mktemp("site-packages")
    install = [BIN / "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--target", installed, wheel]
    subprocess.run(install, check=True)
    return installed


@pytest.fixture
def environment(site_packages: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of an Airflow that has the wheel, and no other way to the project's code."""
    shutil.copytree(REPOSITORY / "dags", tmp_path / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return inherited | {
        "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        "PYTHONPATH": str(site_packages),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


@contextmanager
def standalone(environment: dict[str, str], folder: Path, url: str) -> Iterator[Airflow]:
    """`airflow standalone`, ended with all that it starts: it leaves its parts behind when it is ended itself."""
    with (folder / "standalone.log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "airflow", "standalone"], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    started = psutil.Process(process.pid)
    try:
        until(lambda: process.poll() is not None or is_healthy(url), "airflow standalone to be healthy", 120)
        assert process.poll() is None, (folder / "standalone.log").read_text()[-2000:]
        yield Airflow(url, "admin", PASSWORDS["admin"])
    finally:
        parts = [*started.children(recursive=True), started]
        for part in parts:
            part.kill()
        psutil.wait_procs(parts, timeout=20)


def is_healthy(url: str) -> bool:
    try:
        health = requests.get(f"{url}/api/v2/monitor/health", timeout=5).json()
    except requests.RequestException:
        return False
    return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def is_known(airflow: Airflow, dag: str) -> bool:
    try:
        return airflow.call("GET", f"/dags/{dag}")["dag_id"] == dag
    except StackError:
        return False


def test_wheel_and_a_folder_of_dag_files_run_in_airflow_standalone(
    environment: dict[str, str], postgres: Server, tmp_path: Path
):
    metadata, warehouse = (f"{name}_{uuid4().hex}" for name in ("metadata", "warehouse"))
    api, worker_log, trigger_log = free_ports(3)
    url = f"http://localhost:{api}"
    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps(PASSWORDS))
    service = {"conn_type": "http", "host": url, "login": "runbook", "password": PASSWORDS["runbook"]}
    with ExitStack() as running:
        for database in (metadata, warehouse):
            postgres.create_database(database)
            running.callback(postgres.drop_database, database)
        shop = running.enter_context(repairshopr.running(SHOP))
        vendor = {"conn_type": "http", "host": shop.url, "password": shop.token}
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(metadata).replace(
                "postgresql:", "postgresql+psycopg2:"
            ),
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,runbook:op",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API_AUTH__JWT_SECRET": uuid4().hex * 2,
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_log),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_log),
            # Only this test starts runs, and a step follows the one before at once.
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW_CONN_WAREHOUSE": postgres.url(warehouse),
            "AIRFLOW_CONN_AIRFLOW_API": json.dumps(service),
            "AIRFLOW_CONN_REPAIRSHOPR": json.dumps(vendor),
            "SYNC_CONFIDENCE_SOURCES": SOURCE,
        }
        airflow = running.enter_context(standalone(environment | settings, tmp_path, url))
        dags = ("warehouse_migrate", f"{SOURCE}_sync", f"{SOURCE}_reconcile")
        until(lambda: all(is_known(airflow, dag) for dag in dags), "the DAG files to be read", 60)
        assert airflow.call("GET", "/importErrors")["import_errors"] == []
        assert airflow.call("GET", "/plugins/importErrors")["import_errors"] == []

        states = {dag: airflow.run(dag)[1] for dag in dags}

        assert states == dict.fromkeys(dags, "success")
        assert airflow.slots(f"{SOURCE}_writer") == 1
        assert SOURCE in airflow.page("/sync-confidence/")
        assert "--" in airflow.page("/sync-confidence/static/pages.css")


# What the DAG processor and the API server find: the version of the bundle, DAGs, plugins, and what can't be imported.
LOOK = """
import json
from airflow import plugins_manager
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag

[bundle] = DagBundlesManager().get_all_dag_bundles()
bundle.initialize()
bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
plugins, broken = plugins_manager._get_plugins()
found = [plugin.name for plugin in plugins if plugin.name == "sync_confidence"]
version = getattr(bundle.get_current_version(), "version", None)
print(json.dumps([version, sorted(bag.dag_ids), found, {**bag.import_errors, **broken}]))
"""


def look(environment: dict[str, str], folder: Path) -> list[Any]:
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db"}
    sources = {"SYNC_CONFIDENCE_SOURCES": SOURCE}
    looked = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment | database | sources, cwd=folder, capture_output=True, text=True
    )
    assert looked.returncode == 0, looked.stderr[-2000:]
    return json.loads(looked.stdout.splitlines()[-1])


def test_dag_files_come_from_a_git_repository(environment: dict[str, str], tmp_path: Path):
    repository = tmp_path / "repository"
    shutil.copytree(tmp_path / "dags", repository / "dags")
    git = ["git", "-C", repository, "-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    for command in (["init", "--quiet", "--initial-branch", "main"], ["add", "."], ["commit", "--quiet", "-m", "DAGs"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    [bundle] = json.loads(snippet("deploy.md", "json"))
    bundle["kwargs"] |= {"repo_url": str(repository)}
    bundles = {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle])}
    # Without a place of its own the bundle is cloned under /tmp, where the next run would find it.
    bundles |= {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(tmp_path / "bundles")}
    assert look(environment | bundles, tmp_path) == [commit, DAGS, ["sync_confidence"], {}]


def test_project_of_astro(environment: dict[str, str], tmp_path: Path):
    """`dags`, `include` and `plugins` in Airflow's home, which is on the path; no wheel."""
    project = tmp_path / "project"
    for folder in ("dags", "include", "plugins"):
        shutil.copytree(REPOSITORY / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    astro = {"AIRFLOW_HOME": str(project), "PYTHONPATH": str(project)}
    astro |= {"AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags")}
    assert look(environment | astro, tmp_path) == [None, DAGS, ["sync_confidence"], {}]


def test_plugins_zip_of_mwaa(environment: dict[str, str], wheel: Path, tmp_path: Path):
    """The wheel lies in the plugins folder too, from where it was installed."""
    plugins = tmp_path / "airflow" / "plugins"
    plugins.mkdir(parents=True)
    shutil.copy(wheel, plugins)
    assert look(environment, tmp_path) == [None, DAGS, ["sync_confidence"], {}]
