"""A command of Airflow that first loads what tasks and DAG files import.

The scheduler forks a process for each task, and the DAG processor one for each reading of a file. They have at once
what was loaded before the fork; else a task of the runbook takes most of its time for imports.
"""

from importlib import import_module
from pkgutil import walk_packages

from include.sources.installed import installed_sources
from stack import command, local_logs

MODULES = (
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.processor",
    # What Airflow itself imports in each task.
    "airflow.dag_processing.bundles.local",
    "airflow.sdk.bases.sensor",
    "airflow.sdk.execution_time.cache",
    "jinja2.ext",
    # What DAG files import, and what sends messages.
    "plugins.runbook",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.apprise.hooks.apprise",
)


def load() -> None:
    """Load Airflow's part of a task's process, all operators, and the sources of the installation."""
    for name in MODULES:
        import_module(name)
    for name in ("plugins.operators", *(f"include.sources.{source}" for source in installed_sources())):
        for module in walk_packages(import_module(name).__path__, f"{name}."):
            import_module(module.name)
    # Apprise looks for its services, a module each, when it is first given an address.
    import_module("apprise").Apprise.instantiate("json://localhost")


if __name__ == "__main__":
    command.look_seldom_for_garbage()
    load()
    local_logs.stay_local()
    command.run()
