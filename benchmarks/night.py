"""The writer's stop around a scan, as a night has it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import Connection

from include.warehouse import fence


@dataclass
class Stop:
    """A stop of the writer: its `epoch`, and for how many `seconds` it has lasted, once it is over."""

    epoch: int
    seconds: float = 0


@contextmanager
def stopped(start: Callable[[], None], conn: Connection, source: str, run: str) -> Iterator[Stop]:
    """Call `start`, then stop the writer while the context lasts."""
    start()
    began = time.monotonic()
    stop = Stop(fence.stop(conn, source, run, timeout=10).epoch)
    yield stop
    fence.resume(conn, source, run)
    stop.seconds = time.monotonic() - began
