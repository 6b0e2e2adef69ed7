"""Two sessions at once on one warehouse."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg

Result = TypeVar("Result")
WAITS = "SELECT cardinality(pg_blocking_pids(%s)) > 0"


def while_changing(
    other: psycopg.Connection, change: str, values: list[Any], conn: psycopg.Connection, work: Callable[[], Result]
) -> Result:
    """Do the work on `conn` while `other` has made a change, which it commits when the work waits for it."""
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute(change, values)
            working = pool.submit(work)
            deadline = time.monotonic() + 10
            while not other.execute(WAITS, [conn.info.backend_pid]).fetchone()[0]:
                assert not working.done(), "the work did not wait"
                assert time.monotonic() < deadline, "nothing waits"
                time.sleep(0.01)
        return working.result(timeout=10)
