"""The part about a store: which of the images' objects are missing, by us and on other roads."""

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, run
from benchmarks.world import Images, images, warehouse
from stack.postgres import Postgres

SAMPLE_SHARE = 0.01
AT_ONCE = (5, 32)
REQUESTS_SHARE, CPU_SHARE = 500, 50


@dataclass(frozen=True)
class Looked:
    """A way to look, what it took for all objects, and its requests."""

    what: str
    took: Measured
    requests: int
    remark: str = ""

    @property
    def cpu(self) -> float:
        return self.took.cpu + (self.took.postgres_cpu or 0)


def looking(postgres: Postgres, rows: int, *, peers: bool = True) -> Section:
    """Measure our scan. `peers`: also a listing by rclone, and parallel HEAD requests for a sample of the objects."""
    with warehouse(postgres, "images") as url, images(url, rows) as world:
        where = {"store": world.store, "database": world.database}
        ours = _look(postgres, world, "listing, merged (ours)", "images:scan", warehouse=url, **where)
        _require(ours, world.missing)
        if not peers:
            return Section("Storage", _note(rows, world), [_figure(ours, ours, rows)])
        listed = _look(postgres, world, "rclone lsf, Python set", "peers.rclone_listing:scan", **where)
        _require(listed, world.missing)
        heads = [_sampled_heads(postgres, world, rows, listed.took.result["objects"], number) for number in AT_ONCE]
    figures = [_figure(way, ours, rows) for way in (ours, listed, *heads)]
    return Section("Storage", _note(rows, world), [*figures, *_aims(ours, heads)])


def _look(postgres: Postgres, world: Images, what: str, work: str, **arguments: Any) -> Looked:
    before = world.control.counters().total()
    took = run(postgres, f"storage, {what}", f"benchmarks.{work}", **arguments)
    return Looked(what, took, world.control.counters().total() - before)


def _sampled_heads(postgres: Postgres, world: Images, rows: int, objects: int, workers: int) -> Looked:
    """Estimate what a HEAD for each of `objects` takes, from those of the first rows.

    The CPU of Postgres is left out: it is too short to be multiplied.
    """
    where = {"store": world.store, "database": world.database, "rows": max(1, round(rows * SAMPLE_SHARE))}
    what = f"HEAD each, {workers} at once"
    sample = _look(postgres, world, what, "peers.heads:scan", workers=workers, **where)
    looked_for = sample.took.result["objects"]
    times = objects / looked_for
    took = replace(sample.took, wall=sample.took.wall * times, cpu=sample.took.cpu * times, postgres_cpu=None)
    remark = f"{looked_for:,} objects of {objects:,}"
    return replace(sample, took=took, requests=round(sample.requests * times), remark=remark)


def _aims(ours: Looked, heads: list[Looked]) -> list[Figure]:
    requests = min(way.requests for way in heads) / ours.requests
    cpu = min(way.cpu for way in heads) / ours.cpu
    return [
        Figure(
            "requests beside HEAD",
            ratio=Ratio("1/{:,.0f}", (requests,)),
            aim=Aim(f"<= 1/{REQUESTS_SHARE}", requests, at_least=REQUESTS_SHARE),
        ),
        Figure(
            "CPU beside HEAD",
            ratio=Ratio("1/{:,.0f}", (cpu,)),
            aim=Aim(f"<= 1/{CPU_SHARE}", cpu, at_least=CPU_SHARE),
        ),
    ]


def _figure(way: Looked, ours: Looked, rows: int) -> Figure:
    if way is ours:
        return Figure(way.what, way.took, rows, way.requests, stands=way.took.result["stands"])
    ratio = Ratio("{:.1f} x time, {:.1f} x CPU", (way.took.wall / ours.took.wall, way.cpu / ours.cpu))
    return Figure(way.what, way.took, rows, way.requests, ratio=ratio, remark=way.remark, peer=True)


def _note(rows: int, world: Images) -> str:
    lost = sum(world.missing.values())
    return (
        f"{rows:,} images in Postgres, their objects in a simulated store that answers at once in another process,"
        f" {lost:,} of them missing. HEAD each: a sample; requests and times are multiplied up to all objects."
        " CPU is compared with that of Postgres included. Ours looks twice at what is missing, seconds apart."
    )


def _require(way: Looked, expected: dict[str, int]) -> None:
    found = {metric: way.took.result[metric] for metric in expected}
    if found != expected:
        raise BenchError(f"storage, {way.what}: expected {expected}, got {found}")
