"""What the steps of a mirrored source work with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import Connection

from include.api.client import ApiClient
from include.api.request import Answer, Request

if TYPE_CHECKING:
    from include.sources.mirror.source import Mirror


@dataclass(frozen=True)
class MirrorContext:
    """What every step works with: the source, the client of its API, the warehouse and the run.

    - `conn`: the warehouse, in autocommit mode
    - `run`: `dag_id/run_id`
    - `workers`: the largest number of requests at the same time
    - `params`: the params of the run
    - `settings`: the settings of the connection besides address and token
    - `on_answer`: called with each answer to a look-up, after the looked-up values and the request
    """

    source: "Mirror"
    client: ApiClient
    conn: Connection
    run: str
    workers: int = 4
    params: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    on_answer: Callable[[tuple, Request, Answer], None] = lambda values, request, answer: None
