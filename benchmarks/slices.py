"""The part about a scan that several tasks read together, each in a process of its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, postgres_cpu, prepared
from benchmarks.world import Images, images, warehouse
from stack.postgres import Postgres

# A machine whose cores are busy answers later than that; one request at a time leaves it the time.
LATENCY_MS, AT_ONCE = 100, 1
# As in a usual night: if many objects were missing, the second look would be another listing, by one task alone.
LOST = 20_000
TIMES_AS_FAR = 1.7


def reading_together(postgres: Postgres, rows: int) -> Section:
    """Measure a listing and a whole scan by one task, and by two. `rows`: so many images."""
    with warehouse(postgres, "slices") as url, images(url, rows, latency_ms=LATENCY_MS, lost=LOST) as world:
        objects = len(world.control.keys())
        listed = [_listing(postgres, world, url, tasks, objects) for tasks in (1, 2)]
        scanned = [_scan(postgres, world, url, tasks) for tasks in (1, 2)]
    figures = [*_beside("listing", *listed, objects), *_beside("whole scan", *scanned, objects)]
    note = (
        f"{objects:,} objects in a simulated store whose answers take {LATENCY_MS} ms and more. Each task is a process"
        f" that sends {AT_ONCE} request at a time. The whole scan compares too, which one task does alone, and pauses"
        " for 5 s. CPU is that of all tasks."
    )
    return Section("Slices", note, figures)


def _beside(what: str, one: Measured, two: Measured, objects: int) -> Iterator[Figure]:
    times = one.wall / two.wall
    yield Figure(f"{what}, one task", one, objects)
    yield Figure(f"{what}, two tasks", two, objects, remark=f"pages of the second: {two.result[1]:,}")
    ratio, aim = Ratio("{:.2f} x as far", (times,)), Aim(f">= {TIMES_AS_FAR}", times, at_least=TIMES_AS_FAR)
    yield Figure(f"{what}, two beside one", ratio=ratio, aim=aim)


def _listing(postgres: Postgres, world: Images, url: str, tasks: int, objects: int) -> Measured:
    """List all, and compare nothing."""
    works = [("listing", {"slice_number": number}) for number in range(tasks)]
    took = _together(postgres, world, url, works)
    if took.result[0] != objects:
        raise BenchError(f"slices: {tasks} tasks have listed {took.result[0]:,} of {objects:,} objects")
    return took


def _scan(postgres: Postgres, world: Images, url: str, tasks: int) -> Measured:
    works = [("scan", {}), *(("help_scan", {"slice_number": number}) for number in range(1, tasks))]
    took = _together(postgres, world, url, works)
    found = {metric: took.result[0][metric] for metric in world.missing}
    if found != world.missing:
        raise BenchError(f"slices: {tasks} tasks: expected {world.missing}, got {found}")
    return took


def _together(postgres: Postgres, world: Images, url: str, works: Sequence[tuple[str, Mapping[str, int]]]) -> Measured:
    """Run jobs at the same time; the first decides when all are over. The result is that of each."""
    where: dict[str, Any] = {"store": world.store, "database": world.database, "warehouse": url}
    how = {"slices": len(works), "workers": AT_ONCE}
    with ExitStack() as opened:
        jobs = [
            opened.enter_context(prepared(f"benchmarks.images:{work}", **where, **how, **more)) for work, more in works
        ]
        before = postgres_cpu(postgres)
        for job in jobs:
            job.begin()
        told = [job.finish()[0] for job in jobs]
        spent = postgres_cpu(postgres) - before
    return Measured([each["result"] for each in told], told[0]["wall"], sum(each["cpu"] for each in told), spent)
