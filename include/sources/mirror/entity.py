"""What a mirrored source declares: its entities, how each is listed, asked for changes and looked up one by one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from psycopg import Connection, sql

from include.api.client import ApiClient, Request
from include.api.paginators import Paginator
from include.confidence.policy import RepairShare, Trend
from include.warehouse.table import Table

if TYPE_CHECKING:
    from include.sources.mirror.source import Mirror

# One drift metric for each way in which source and copy can differ, under the names of the forensic summary.
DRIFT = (Trend("api_unique_not_in_db"), Trend("db_not_in_api_unique"), Trend("rows_differing"))


@dataclass(frozen=True)
class Since:
    """The list takes a filter for changes: `param` names it, `format` writes the time."""

    param: str
    format: str = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Ends:
    """The list has no filter for changes: read it from both ends until a page holds nothing young.

    That finds what changed whether the list is sorted by id or by time, either way round. Old rows changed in the
    middle of a list that is sorted by id are left to the nightly scan.
    """


@dataclass(frozen=True)
class Lookup:
    """The narrow request that proves presence or absence of a row.

    `by`: the column whose value goes into the request; rows that share it share the request. `request`: makes the
    request from that value. `rows`: reads the rows from the answer's data.
    """

    request: Callable[[Any], Request]
    rows: Callable[[Any], list[Mapping[str, Any]]]
    by: str = "id"
    paginator: Paginator | None = None


class Forensics(Protocol):
    """Metrics beyond the general comparison, computed where the plan of a finished scan and the copy are."""

    def __call__(self, conn: Connection, plan: sql.Identifier) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Entity:
    """A list of the source and the table that mirrors it.

    `changes` is None where the rows come with their parent: `parent` names that entity, and the lookup's `by` is the
    column that points to it. Then the rows of a changed parent are replaced as a set.
    """

    table: Table
    listing: Request
    paginator: Paginator
    lookup: Lookup
    changes: Since | Ends | None = None
    parent: str | None = None
    gates: tuple[Trend, ...] = DRIFT
    repair_share: RepairShare = field(default_factory=RepairShare)
    forensics: Forensics | None = None

    @property
    def name(self) -> str:
        return self.table.name


@dataclass(frozen=True)
class Context:
    """What a step works with: the source, its API, the warehouse (autocommit) and who it works for.

    `run` is `dag_id/run_id`; `workers` bounds the requests on their way at once.
    """

    source: "Mirror"
    client: ApiClient
    conn: Connection
    run: str
    workers: int = 4
