"""Which crew calls in Flex a run works on, and how it works on several of them at once."""

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
from include.sources.answer_census import AnswerCensus
from include.sources.base import Connections
from include.sources.flex.roles import Roles

if TYPE_CHECKING:
    from include.sources.flex.source import Flex

DEPARTMENTS = ("sound", "lights")

Result = TypeVar("Result")

# If a call of ours was deleted or points elsewhere now, the lines that we made there are still ours. A gate that is not
# idle still has a write to be cleared up. A line that was found to be gone is looked for during 7 more days, since it
# may be back.
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

# Crew calls with lines of technicians who have moved to another crew call. They get their line there first.
LEFT_BEHIND = """
SELECT DISTINCT o.flex_element_id
FROM flex.owned_line o
LEFT JOIN flex.flex_crew_calls made_for
  ON made_for.id = o.crew_call_id OR (made_for.job_id, made_for.department) = (o.job_id, o.department)
LEFT JOIN flex.flex_crew_assignments r USING (flex_line_item_id)
LEFT JOIN flex.flex_crew_calls used_by ON used_by.id = r.crew_call_id
WHERE o.gone_at IS NULL AND o.flex_element_id = ANY (%s)
  AND o.flex_element_id <> ANY (ARRAY[made_for.flex_element_id, used_by.flex_element_id])
"""


@dataclass(frozen=True)
class FlexContext:
    """The opened source: `conn` is the warehouse in autocommit, `run` is `dag_id/run_id`.

    `prune`: delete lines of ours that no row leads to. `census` counts the fields of what Flex answers.
    """

    source: "Flex"
    conn: Connection
    run: str
    api: ApiClient
    roles: Roles
    connections: Connections
    prune: bool
    census: AnswerCensus


@dataclass(frozen=True)
class Scope:
    """Which crew calls a run works on: of one job, or of all jobs that are not over; of some departments, or all."""

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
        """Return the crew calls in Flex. If `jobs` are given, only theirs, even if a job is over.

        Those that were worked on the longest time ago come first, so that each gets its turn even with a small quota.
        """
        if self.job_id:
            jobs = [self.job_id]
        named = None if jobs is None else list(jobs)
        with conn.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(ELEMENTS, {"jobs": named, "departments": list(self.departments) or None}).fetchall()


def in_turn(conn: Connection, elements: Collection[UUID]) -> tuple[list[UUID], list[UUID]]:
    """Return the crew calls to work on first, and those to work on after that.

    From the second ones technicians have moved to others; their lines may go once they have new ones.
    """
    with conn.cursor(row_factory=scalar_row) as cursor:
        left = set(cursor.execute(LEFT_BEHIND, [list(elements)]))
    return [each for each in elements if each not in left], [each for each in elements if each in left]


class _NotBegun(Exception):
    """The work was stopped before this element's turn."""


def each(
    context: FlexContext, element_ids: Iterable[UUID], work: Callable[[Connection, UUID], Result]
) -> Iterator[Result]:
    """Yield what `work(conn, element_id)` returns, in the order in which the elements are done.

    Elements that are worked on at the same time have different connections. If one fails, no other is begun; the error
    is raised after the results of those under way. If the caller is interrupted, no other is begun either.
    """
    elements = list(element_ids)
    failure: BaseException | None = None
    idle: SimpleQueue[Connection] = SimpleQueue()
    stopped = Event()

    def work_unless_stopped(element_id: UUID) -> Result:
        conn = idle.get()
        try:
            if stopped.is_set():
                raise _NotBegun
            return work(conn, element_id)
        except BaseException:
            # Set here: the caller learns of the error only after the next element has begun.
            stopped.set()
            raise
        finally:
            idle.put(conn)

    with ExitStack() as stack:
        for _ in range(min(context.source.workers, len(elements))):
            idle.put(stack.enter_context(context.connections.database("warehouse")))
        pool = stack.enter_context(ThreadPoolExecutor(context.source.workers))
        stack.callback(stopped.set)
        futures: list[Future[Result]] = [pool.submit(work_unless_stopped, element_id) for element_id in elements]
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                yield future.result()
            elif not isinstance(error, _NotBegun):
                failure = failure or error
    if failure:
        raise failure
