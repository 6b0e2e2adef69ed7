"""The worker of an element: its connections and options."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from psycopg import Connection

from include.api.client import ApiClient
from include.sources.flex.roles import Roles


@dataclass(frozen=True)
class Worker:
    """What the work on an element needs. `conn` belongs to one thread, in autocommit; `run` is `dag_id/run_id`.

    `fenced(conn)` opens a transaction that may write, or raises FenceError. `prune`: delete lines of ours that no row
    leads to. `pauses`: after each of these seconds Flex is asked again for something that it does not show.
    """

    api: ApiClient
    conn: Connection
    roles: Roles
    run: str
    sync_id: int
    fenced: Callable[[Connection], AbstractContextManager]
    prune: bool
    pauses: Sequence[float] = ()
