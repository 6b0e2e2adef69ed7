"""The part about crew calls that are written through an API: a first sync, a few changes, the nightly scan."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.crews import SOURCE
from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, run
from benchmarks.world import Crews, crews, warehouse
from stack.postgres import Postgres

CREW = 12
# The small account has one in as many jobs; and in one in as many jobs somebody is replaced.
SMALL, CHANGED = 10, 100
# Both lists, the rows once more where the record doesn't tell all, an add and a role for each of the crew, and both
# lists again, which prove them.
REQUESTS_A_JOB = 3 + CREW + CREW + 2
# Both lists, the rows once more, a deletion, an add and its role, and both lists again.
REQUESTS_A_CHANGE = 3 + 3 + 2
# Both lists.
REQUESTS_A_LOOK = 2


def crew_calls(postgres: Postgres, jobs: int, latency: int, *, peers: bool = True) -> Section:
    """Measure a first sync, a sync of a few changes, a scan without findings, and a first sync without parallelism.

    `latency`: milliseconds that an answer takes. `peers`: measure the old way to read them too.
    """
    fewer, changed = max(2, jobs // SMALL), max(1, jobs // CHANGED)
    with warehouse(postgres, "crew") as url, crews(url, fewer, CREW, latency) as world:
        alone = _bring(postgres, world, f"first sync of {fewer:,} jobs, one after the other", workers=1)
    with warehouse(postgres, "crews") as url, crews(url, jobs, CREW, latency) as world:
        first = _bring(postgres, world, f"first sync of {jobs:,} jobs")
        world.replace_one(changed)
        some = _bring(postgres, world, f"sync, {changed:,} jobs changed")
        counters = world.control.counters()
        scanned = _run(postgres, "nightly scan", "crews:scan", **world.where)
        reread = _reread(postgres, world) if peers else None
    _require(alone, crew_calls=fewer, inserted=fewer * CREW, deleted=0)
    _require(first, crew_calls=jobs, inserted=jobs * CREW, deleted=0)
    _require(some, crew_calls=changed, inserted=changed, deleted=changed)
    _require(scanned, crew_calls=jobs, matched=jobs * CREW, planned=0)
    ratio = (alone.wall / fewer) / (first.wall / jobs)
    at_once, within = counters.max_concurrent, max(counters.max_concurrent_by_element.values())
    figures = [
        _figure(f"first sync, {jobs:,} jobs", first),
        _figure(f"{fewer:,} jobs, one after the other", alone, Ratio("{:.1f} x our time a job", (ratio,))),
        _figure(f"sync, {changed:,} jobs changed", some),
        _figure("scan of all jobs", scanned),
        *_peer(reread, scanned, jobs),
        _requests("requests of the first sync", first, REQUESTS_A_JOB, jobs),
        _requests("requests of the changes", some, REQUESTS_A_CHANGE, changed),
        _requests("requests of the scan", scanned, REQUESTS_A_LOOK, jobs),
        _most("requests at once", at_once, SOURCE.workers),
        _most("requests of one crew call at once", within, 1),
    ]
    note = (
        f"One crew call a job, {CREW} people on each, {latency} ms an answer; rows are those people. {SOURCE.workers}"
        " crew calls are in work at the same time. A first sync reads both lists of a crew call (the rows twice if its"
        " record leaves out whose a line is), sends an add and a role for each person, and reads both lists again as"
        f" proof. One in {CHANGED} jobs then has somebody replaced: the same reads, a deletion, an"
        " add, a role, both lists again. A scan reads both lists. Read as before: two requests a job,"
        " one after the other, and nothing is compared."
    )
    return Section("Flex", note, figures)


def _bring(postgres: Postgres, world: Crews, what: str, **options: Any) -> Measured:
    return _run(postgres, what, "crews:sync", **world.where, **options)


def _run(postgres: Postgres, what: str, work: str, **arguments: Any) -> Measured:
    return run(postgres, f"flex, {what}", f"benchmarks.{work}", **arguments)


def _reread(postgres: Postgres, world: Crews) -> Measured:
    return _run(postgres, "all read again", "peers.rereading:scan", **world.account, elements=world.elements)


def _peer(reread: Measured | None, scanned: Measured, jobs: int) -> Iterator[Figure]:
    if reread:
        _require(reread, crew_calls=jobs, contacts=jobs * CREW)
        ratio = Ratio("{:.1f} x the scan's time", (reread.wall / scanned.wall,))
        yield replace(_figure("all jobs, read as before", reread, ratio), peer=True)


def _figure(what: str, took: Measured, ratio: Ratio | None = None) -> Figure:
    result = took.result
    rows, stands = result["crew_calls"] * CREW, result.get("stands")
    return Figure(what, took, rows, result["requests"], stands=stands, ratio=ratio)


def _most(what: str, number: int, most: int) -> Figure:
    return Figure(what, ratio=Ratio("{:.0f}", (number,)), aim=Aim(f"<= {most}", number, at_most=most))


def _requests(what: str, took: Measured, each: int, number: int) -> Figure:
    requests = took.result["requests"]
    aim = Aim(f"<= {each} x {number:,}", requests, at_most=each * number)
    return Figure(what, ratio=Ratio("{:,.0f}", (requests,)), aim=aim)


def _require(took: Measured, **expected: int) -> None:
    found = {name: took.result[name] for name in expected}
    if found != expected:
        raise BenchError(f"flex: expected {expected}, got {found}")
