"""A command of Airflow that first loads what tasks and DAG files import.

The scheduler forks a process for each task, and the DAG processor one for each reading of a file. They have at once
what was loaded before the fork; else a task of the runbook takes most of its time for imports.
"""

from importlib import import_module
from pkgutil import walk_packages

from airflow.__main__ import main

from include import sources
from plugins import operators

AIRFLOW = ("airflow.sdk.execution_time.task_runner", "airflow.dag_processing.processor")


def load() -> None:
    """Load Airflow's part of a task's process, all sources and all operators."""
    for name in AIRFLOW:
        import_module(name)
    for package in (sources, operators):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


if __name__ == "__main__":
    load()
    main()
