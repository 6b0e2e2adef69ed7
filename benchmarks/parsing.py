"""A job: how long each DAG file takes to parse beyond what Airflow and libraries cost once a process."""

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import REPOSITORY

PROJECT = tuple(str(REPOSITORY / folder) for folder in ("dags", "plugins", "include"))


def parse(start: Callable[[], None], *, files: list[str]) -> dict[str, list[float]]:
    """For each file the seconds (wall, CPU) of a parse with all libraries, but nothing of the project, imported."""
    start()
    seconds = {}
    for file in files:
        _execute(file)
        _forget_project()
        before = time.perf_counter(), time.process_time()
        _execute(file)
        seconds[Path(file).stem] = [time.perf_counter() - before[0], time.process_time() - before[1]]
        _forget_project()
    return seconds


def _execute(file: str) -> None:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _forget_project() -> None:
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(PROJECT):
            del sys.modules[name]
