"""Which crew calls in Flex a run is about, and working at several of them at once, each in one pair of hands."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from psycopg import Connection
from psycopg.rows import scalar_row

from include.api.client import ApiClient
from include.sources.base import Connections
from include.sources.flex.roles import Roles

if TYPE_CHECKING:
    from include.sources.flex.source import Flex

DEPARTMENTS = ("sound", "lights")

Result = TypeVar("Result")

# Where a call was deleted or points elsewhere now, the lines that we made there are still ours, and what a gate stands
# for has still to be known. A line that was found to be gone is looked for a few times more, in case it comes back.
ELEMENTS = """
SELECT e.flex_element_id FROM (
  SELECT flex_element_id, job_id, department FROM flex.flex_crew_calls
  UNION ALL SELECT flex_element_id, job_id, department FROM flex.owned_line
  WHERE gone_at IS NULL OR %(jobs)s::uuid[] IS NULL AND gone_at > now() - interval '7 days'
  UNION ALL SELECT g.flex_element_id, o.job_id, o.department
  FROM flex.element_gate g LEFT JOIN flex.operation o USING (operation_id) WHERE g.state <> 'idle'
) e LEFT JOIN flex.jobs j ON j.id = e.job_id LEFT JOIN flex.element_gate g USING (flex_element_id)
WHERE (%(jobs)s::uuid[] IS NULL OR e.job_id = ANY (%(jobs)s))
  AND (%(departments)s::text[] IS NULL OR e.department = ANY (%(departments)s))
  AND (%(jobs)s::uuid[] IS NOT NULL OR j.id IS NULL OR j.end_time IS NULL OR j.end_time >= now())
GROUP BY 1, g.last_claim ORDER BY g.last_claim NULLS FIRST, 1
"""

# Their people have to be on another crew call before their lines here may go.
LEFT_BEHIND = """
SELECT DISTINCT o.flex_element_id FROM flex.owned_line o JOIN flex.flex_crew_calls c ON c.id = o.crew_call_id
WHERE o.gone_at IS NULL AND c.flex_element_id <> o.flex_element_id AND o.flex_element_id = ANY (%s)
"""


@dataclass(frozen=True)
class Context:
    """The account in Flex and the warehouse, in autocommit, for a run (`dag_id/run_id`)."""

    source: "Flex"
    conn: Connection
    run: str
    api: ApiClient
    roles: Roles
    connections: Connections
    prune: bool


@dataclass(frozen=True)
class Scope:
    """One job, or all that aren't over; all departments where none is named."""

    job_id: UUID | None = None
    departments: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Scope":
        job_id = params.get("job_id")
        return cls(UUID(job_id) if job_id else None, tuple(sorted(set(params.get("departments") or ()))))

    def __str__(self) -> str:
        parts = [f"job {self.job_id}"] if self.job_id else []
        return ", ".join([*parts, *self.departments]) or "all"

    def elements(self, conn: Connection, jobs: Collection[UUID] | None = None) -> list[UUID]:
        """The crew calls in Flex, of these jobs only if any are named, be they over or not.

        First those that were worked at the longest time ago: so each has its turn, however short the quota is.
        """
        named = [self.job_id] if self.job_id else None if jobs is None else list(jobs)
        with conn.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(ELEMENTS, {"jobs": named, "departments": list(self.departments) or None}).fetchall()


def in_turn(conn: Connection, elements: Collection[UUID]) -> tuple[list[UUID], list[UUID]]:
    """The crew calls to work at first, and those to work at once these are done, since people leave them for others."""
    with conn.cursor(row_factory=scalar_row) as cursor:
        left = set(cursor.execute(LEFT_BEHIND, [list(elements)]))
    return [each for each in elements if each not in left], [each for each in elements if each in left]


class _NotBegun(Exception):
    """It was stopped before its turn."""


def each(context: Context, element_ids: Iterable[UUID], work: Callable[[Connection, UUID], Result]) -> Iterator[Result]:
    """What `work` returns for each element, as they come; each has a connection of its own.

    If one fails no further ones begin; its error is raised after the results of those that were underway. Neither do
    any once the caller is interrupted.
    """
    elements = list(element_ids)
    failure: BaseException | None = None
    idle: SimpleQueue[Connection] = SimpleQueue()
    stopped = Event()

    def one(element_id: UUID) -> Result:
        conn = idle.get()
        try:
            if stopped.is_set():
                raise _NotBegun
            return work(conn, element_id)
        except BaseException:
            # Here, since the caller would hear of it only after the next one has begun.
            stopped.set()
            raise
        finally:
            idle.put(conn)

    with ExitStack() as stack:
        for _ in range(min(context.source.workers, len(elements))):
            idle.put(stack.enter_context(context.connections.database("warehouse")))
        pool = stack.enter_context(ThreadPoolExecutor(context.source.workers))
        stack.callback(stopped.set)
        futures: list[Future[Result]] = [pool.submit(one, element_id) for element_id in elements]
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                yield future.result()
            elif not isinstance(error, _NotBegun):
                failure = failure or error
    if failure:
        raise failure
