"""The part about a listing that several tasks read together, each in a process of its own."""

from contextlib import ExitStack
from typing import Any

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, postgres_cpu, prepared
from benchmarks.world import Images, images, warehouse
from stack.postgres import Postgres

# A machine whose cores are busy answers later than that; one request at a time leaves it the time.
LATENCY_MS, AT_ONCE = 100, 1
TIMES_AS_FAST = 1.7


def listing_together(postgres: Postgres, rows: int) -> Section:
    """Measure the listing of a bucket by one task, and by two. `rows`: so many images."""
    with warehouse(postgres, "slices") as url, images(url, rows, latency_ms=LATENCY_MS) as world:
        objects = len(world.control.keys())
        one, two = (_list(postgres, world, url, tasks, objects) for tasks in (1, 2))
    times = one.wall / two.wall
    figures = [
        Figure("one task", one, objects, sum(one.result)),
        Figure("two tasks", two, objects, sum(two.result), remark=f"{two.result[0]:,} and {two.result[1]:,} pages"),
        Figure(
            "two beside one",
            ratio=Ratio("{:.2f} x as far", (times,)),
            aim=Aim(f">= {TIMES_AS_FAST}", times, at_least=TIMES_AS_FAST),
        ),
    ]
    note = (
        f"{objects:,} objects in a simulated store whose answers take {LATENCY_MS} ms and more; only the listing is"
        f" measured. Each task is a process that sends {AT_ONCE} request at a time. CPU is that of all tasks."
    )
    return Section("Slices", note, figures)


def _list(postgres: Postgres, world: Images, url: str, tasks: int, objects: int) -> Measured:
    """List all; the result has the pages that each task has read."""
    where: dict[str, Any] = {"store": world.store, "database": world.database, "warehouse": url}
    how = {"slices": tasks, "workers": AT_ONCE}
    with ExitStack() as opened:
        jobs = [
            opened.enter_context(prepared("benchmarks.images:listing", **where, **how, slice_number=number))
            for number in range(tasks)
        ]
        before = postgres_cpu(postgres)
        for job in jobs:
            job.begin()
        told = [job.finish()[0] for job in jobs]
        spent = postgres_cpu(postgres) - before
    found, helped = told[0]["result"], [each["result"] for each in told[1:]]
    if found["objects"] != objects:
        raise BenchError(f"slices: {tasks} tasks have listed {found['objects']:,} of {objects:,} objects")
    pages = [found["pages"] - sum(helped), *helped]
    return Measured(pages, told[0]["wall"], sum(each["cpu"] for each in told), spent)
