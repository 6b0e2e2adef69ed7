"""The part about fields: what it costs to keep what no column reads, and to count all fields.

The line items are loaded and scanned in one run by our code as it is, by the same code without `extra` and census, and
from an account whose records have ten fields more than the columns.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmarks import work
from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import BenchError, Measured, run
from benchmarks.night import stopped
from benchmarks.world import account, warehouse
from include.confidence.census import Census
from include.simulators.repairshopr import Simulator
from include.sources.mirror import extract, scan, sync
from include.sources.mirror.scope import Scope
from include.sources.mirror.sync import sync_entities
from stack.postgres import Postgres

Start = Callable[[], None]

PAGE = 1_000
EXTRA = {f"field_{number}": f"value {number}" for number in range(10)}
SLOWER, CENSUS_SHARE = 1.10, 0.05


def load(start: Start, *, url: str, token: str, warehouse: str, before: bool) -> int:
    """Bring all line items into an empty warehouse; return the rows inserted. `before`: without extra and census."""
    with _lines(url, token, warehouse, "bench/load", before=before) as context, _timed():
        start()
        _, counts = sync_entities(context, full=True, only=work.LINES.name)
    return counts[work.LINES.name].inserted


def look(start: Start, *, url: str, token: str, warehouse: str, before: bool) -> dict[str, float]:
    """Scan all line items; return the changes planned, and the CPU seconds that the census took."""
    with _lines(url, token, warehouse, "bench/look", before=before) as context, _timed() as census:
        [lines] = [entity for entity in context.source.entities if entity.name == work.LINES.name]
        with stopped(start, context.conn, context.source.name, context.run) as stop:
            summary = scan.scan_entity(context, lines, stop.epoch, Scope())
    return {"planned": sum(vars(summary.plan).values()), "census": census[0]}


@contextmanager
def _lines(url: str, token: str, warehouse: str, run: str, *, before: bool) -> Iterator[Any]:
    """The context of a run, with the source as it would be without `extra` and census if that is wanted."""
    with work.context_of(url, token, warehouse, run, limited=False) as context:
        if before:
            table = replace(work.LINES.table, keeps_extra=False)
            entities = [replace(e, table=table) if e.name == work.LINES.name else e for e in context.source.entities]
            context = replace(context, source=replace(context.source, entities=tuple(entities)))
            extract.count_page = lambda *_: None
        yield context


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Add up the CPU seconds of all that the census does."""
    seconds = [0.0]

    def timed(function: Callable) -> Callable:
        def call(*args: Any, **more: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **more)
            finally:
                seconds[0] += time.thread_time() - began

        return call

    extract.count_page = timed(extract.count_page)
    Census.to_json = timed(Census.to_json)
    scan.keep_fields, sync.keep_fields = timed(scan.keep_fields), timed(sync.keep_fields)
    yield seconds


def keeping(postgres: Postgres, rows: int) -> Section:
    """Load and scan with and without extra and census; then both of records with ten fields more."""
    figures = []
    with account(line_items=rows) as shop:
        shop.control.set(page_sizes={work.LINES.name: PAGE})
        before = _both(postgres, shop, "without extra and census", rows, before=True)
        now = _both(postgres, shop, "as it is", rows)
        shop.control.load(work.LINES.name, [{**row, **EXTRA} for row in shop.control.rows(work.LINES.name)])
        ten = _both(postgres, shop, "ten fields in extra", rows)
    for what, old, new, more in zip(("load", "scan"), before, now, ten, strict=True):
        times, of_ten = (_cpu(each) / _cpu(old) for each in (new, more))
        aim = Aim(f"<= {SLOWER} x", times, at_most=SLOWER)
        figures += [
            Figure(f"{what}, without extra and census", old, rows),
            Figure(f"{what}, as it is", new, rows, ratio=Ratio("{:.2f} x the CPU", (times,)), aim=aim),
            Figure(f"{what}, ten fields in extra", more, rows, ratio=Ratio("{:.2f} x the CPU", (of_ten,))),
        ]
    share = now[1].result["census"] / now[1].cpu
    aim = Aim(f"< {CENSUS_SHARE:.0%}", share, at_most=CENSUS_SHARE)
    figures.append(Figure("the census's share of a scan's CPU", ratio=Ratio("{:.1%}", (share,)), aim=aim))
    note = f"{rows:,} line items, {PAGE:,} a page, in one run. CPU: of our process and of Postgres."
    return Section("Fields", note, figures)


def _both(postgres: Postgres, shop: Simulator, name: str, rows: int, *, before: bool = False) -> tuple[Measured, ...]:
    """Load the rows, then scan the copy that is in step."""
    with warehouse(postgres, "fields") as copy:
        where = {"url": shop.url, "token": shop.token, "warehouse": copy, "before": before}
        loaded = run(postgres, f"fields, load, {name}", "benchmarks.fields:load", **where)
        scanned = run(postgres, f"fields, scan, {name}", "benchmarks.fields:look", **where)
    if loaded.result != rows or scanned.result["planned"]:
        raise BenchError(f"fields, {name}: loaded {loaded.result} of {rows} rows, and planned {scanned.result}")
    return loaded, scanned


def _cpu(took: Measured) -> float:
    return took.cpu + took.postgres_cpu
