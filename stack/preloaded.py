"""A command of Airflow that first loads what tasks and DAG files import.

The scheduler forks a process for each task, and the DAG processor one for each reading of a file. They have at once
what was loaded before the fork; else a task of the runbook takes most of its time for imports.
"""

import runpy
from importlib import import_module
from pkgutil import walk_packages

from include.sources.installed import installed_sources
from stack import local_logs

MODULES = ("airflow.sdk.execution_time.task_runner", "airflow.dag_processing.processor")


def load() -> None:
    """Load Airflow's part of a task's process, all operators, and the sources of the installation."""
    for name in MODULES:
        import_module(name)
    for name in ("plugins.operators", *(f"include.sources.{source}" for source in installed_sources())):
        for module in walk_packages(import_module(name).__path__, f"{name}."):
            import_module(module.name)


if __name__ == "__main__":
    load()
    local_logs.stay_local()
    runpy.run_module("airflow", run_name="__main__", alter_sys=True)
