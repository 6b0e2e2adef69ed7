"""What is measured, part by part. Each part gives a section of the table."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.figures import Aim, Figure, Ratio, Section
from benchmarks.measure import REPOSITORY, BenchError, Measured, prepared, run
from benchmarks.work import LINES, SOURCE, WORKERS, open_stage
from benchmarks.world import ORIGINAL_ORDERS, account, warehouse
from include.simulators.repairshopr import Simulator
from include.warehouse import compare
from include.warehouse.sql_fragments import identifiers
from stack.postgres import Postgres

STAGED = "repairshopr_line_items_scan"

VENDORS_PAGE, LARGE_PAGE = 100, 1_000
SCAN_RATE, SCAN_GROWTH_MB = 25_000, 10
COMPARISON_SECONDS = 3
LIMIT_SHARE = 0.95
PARSE_SECONDS = 0.3
# Of an answer about a repair order or a crew call.
LATENCY_MS = 50


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    - `scans`: (line items in the account, rows a page, milliseconds an answer takes)
    - `load`, `fields`, `images`, `orders`, `runs`, `changes`: rows
    - `repairs`, `crews`: orders or jobs, and milliseconds an answer takes
    - `warm_up`, `window`: seconds at the vendor's limit before and while requests are counted, 0 to leave that out
    - `peers`: whether other roads are measured too
    """

    scans: tuple[tuple[int, int, int], ...]
    load: int
    fields: int
    images: int
    orders: int
    repairs: tuple[int, int]
    crews: tuple[int, int]
    runs: int
    changes: int
    warm_up: int
    window: int
    peers: bool = True


FULL = Sizes(
    scans=(
        (100_000, LARGE_PAGE, 0),
        (100_000, LARGE_PAGE, 20),
        (100_000, LARGE_PAGE, 100),
        (100_000, VENDORS_PAGE, 0),
        (20_000, VENDORS_PAGE, 20),
        (20_000, VENDORS_PAGE, 100),
        (1_000_000, VENDORS_PAGE, 0),
        (1_000_000, LARGE_PAGE, 0),
    ),
    load=200_000,
    fields=40_000,
    images=200_000,
    orders=ORIGINAL_ORDERS,
    repairs=(5_000, LATENCY_MS),
    crews=(500, LATENCY_MS),
    runs=10_000,
    changes=100_000,
    warm_up=10,
    window=60,
)
# What two commits are compared in: so large that a second's noise is not the result, so small that it is repeated.
PAIR = Sizes(
    scans=((20_000, VENDORS_PAGE, 0), (100_000, LARGE_PAGE, 0)),
    load=50_000,
    fields=10_000,
    images=50_000,
    orders=3_000,
    repairs=(500, 0),
    crews=(50, 0),
    runs=2_000,
    changes=20_000,
    warm_up=0,
    window=0,
    peers=False,
)
QUICK = Sizes(
    scans=((2_000, VENDORS_PAGE, 20), (4_000, LARGE_PAGE, 0)),
    load=2_000,
    fields=2_000,
    images=2_000,
    orders=200,
    repairs=(20, 10),
    crews=(8, 10),
    runs=100,
    changes=1_000,
    warm_up=1,
    window=4,
)


def scan_and_comparison(postgres: Postgres, sizes: Sizes) -> Iterator[Section]:
    """The scan of accounts of several sizes whose copies are in step; then the comparison with the largest copy."""
    figures: list[Figure] = []
    accounts = sorted({rows for rows, _, _ in sizes.scans})
    for rows in accounts:
        with account(line_items=rows) as shop, warehouse(postgres, f"scan_{rows}") as copy:
            shop.control.set(page_sizes={LINES.name: LARGE_PAGE})
            run(postgres, f"first load of {rows:,} rows", "benchmarks.work:load", **_where(shop, copy))
            for _, page_size, latency in (scan for scan in sizes.scans if scan[0] == rows):
                figures.append(_scan(postgres, shop, copy, rows, page_size, latency))
            if rows == accounts[-1]:
                yield _scan_section(figures)
                yield _comparison(postgres, copy, peers=sizes.peers)


def _scan(postgres: Postgres, shop: Simulator, copy: str, rows: int, page_size: int, latency: int) -> Figure:
    shop.control.set(page_sizes={LINES.name: page_size}, latency_ms=latency)
    name = f"{rows:,} rows, {page_size:,} a page" + (f", {latency} ms a page" if latency else "")
    took = run(postgres, f"scan of {name}", "benchmarks.work:scan", run=f"bench/{name}", **_where(shop, copy))
    if took.result["api_unique_ids"] != rows or took.result["api_unique_not_in_db"]:
        raise BenchError(f"scan of {name}: the copy should be in step, but the scan found {took.result}")
    aim = Aim(f">= {SCAN_RATE:,} rows/s", rows / took.wall, at_least=SCAN_RATE)
    at_full_speed = not latency and page_size == LARGE_PAGE
    requests, stands = took.result["requests"], took.result["stands"]
    return Figure(name, took, rows, requests, stands, aim=aim if at_full_speed else None)


def _scan_section(figures: list[Figure]) -> Section:
    """The scans. The last one, the largest, is compared with the smallest at the same page size."""
    largest = figures[-1]
    small = min((f for f in figures if f.aim), key=lambda figure: figure.rows)
    growth = largest.measured.memory - small.measured.memory
    flat = Figure(
        "peak memory of the largest beside the smallest",
        ratio=Ratio("{:.0f} x rows, {:+.0f} MB", (largest.rows / small.rows, growth)),
        aim=Aim(f"<= +{SCAN_GROWTH_MB} MB", growth, at_most=SCAN_GROWTH_MB),
    )
    note = f"Line items of a simulated RepairShopr account, whose copy is in step; {WORKERS} requests at once."
    return Section("Scan", note, [*figures, flat])


def _comparison(postgres: Postgres, copy: str, *, peers: bool) -> Section:
    """Ours first: it drops the repeated rows, so the peers find the same differences without them."""
    expected, rows = _stage_with_differences(copy)
    ours = run(postgres, "comparison, SQL", "benchmarks.work:differences", warehouse=copy)
    figures = [
        Figure(
            "SQL (ours)",
            ours,
            rows,
            aim=Aim(f"< {COMPARISON_SECONDS} s", ours.wall, at_most=COMPARISON_SECONDS),
            remark="drops repeats and writes the plan",
        )
    ]
    _require(ours, expected, "comparison, SQL")
    tables = {"warehouse": copy, "stage": ["staging", STAGED], "copy": [LINES.table.schema, LINES.table.name]}
    for name, library, work in (
        ("Python sets, server-side cursors", "psycopg", "sets"),
        ("reladiff (hashdiff)", "reladiff", "reladiff_tables"),
    )[: None if peers else 0]:
        if not find_spec(library):
            figures.append(_missing(name, library))
            continue
        peer = run(postgres, f"comparison, {name}", f"benchmarks.peers.{work}:differences", **tables)
        _require(peer, {key: expected[key] for key in peer.result}, f"comparison, {name}")
        remark = "counts the differences only"
        figures.append(Figure(name, peer, rows, ratio=_times(peer, ours), remark=remark, peer=True))
    return Section("Comparison", f"{rows:,} staged rows with a copy of {rows:,}, 0.1 % of each kind of drift.", figures)


def _stage_with_differences(copy: str) -> tuple[dict[str, int], int]:
    """Stage the copy's own rows with some differences of each kind.

    Returns the number of differences by kind (update, delete, insert, repeats), and the number of rows.
    """
    columns = [name for name in LINES.table.names if name not in ("id", "name")]
    with psycopg.connect(copy, autocommit=True) as conn:
        stage = open_stage(conn)
        insert = sql.SQL(
            "INSERT INTO {stage} (id, name, {columns}, _page, _place)"
            " SELECT id, CASE id % 1000 WHEN 1 THEN 'changed' ELSE name END, {columns}, id / 1000, id % 1000"
            " FROM {copy} WHERE id % 1000 <> 2"
        )
        another = sql.SQL(
            "INSERT INTO {stage} (id, name, {columns}, _page, _place)"
            " SELECT id + CASE id % 1000 WHEN 3 THEN 1 ELSE 0 END, name, {columns}, id / 1000, 1000"
            " FROM {copy} WHERE id % 1000 IN (3, 4)"
        )
        counted = sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE id % 1000 = {})").format(n) for n in range(1, 5)),
            LINES.table.sql,
        )
        for statement in (insert, another):
            conn.execute(statement.format(stage=stage.sql, columns=identifiers(columns), copy=LINES.table.sql))
        kinds = conn.execute(counted).fetchone()
        rows = compare.live_rows(stage)
    return dict(zip(("update", "delete", "insert", "repeats"), kinds, strict=True)), rows


def load(postgres: Postgres, sizes: Sizes) -> Section:
    """A first load: ours, a naive one, dlt's as its documentation has it and at its fastest, Singer's."""
    figures: list[Figure] = []
    named = [column.name for column in LINES.table.columns]
    with account(line_items=sizes.load) as shop:
        shop.control.set(page_sizes={LINES.name: LARGE_PAGE})
        roads = (
            ("sync (ours)", "psycopg", "work", {}, "with comparison, audit and watermark"),
            ("requests, json, executemany upsert", "psycopg", "peers.naive", {"columns": named}, ""),
            ("dlt rest_api, merge", "dlt", "peers.dlt_rest", {}, "as documented"),
            ("dlt, Arrow tables, CSV, upsert", "pyarrow", "peers.dlt_arrow", {}, "its fastest form"),
            ("Singer tap and target", "psycopg", "peers.singer", {}, "a loop of its messages, batches by COPY"),
        )
        for name, library, work, extra, remark in roads[: None if sizes.peers else 1]:
            if not find_spec(library):
                figures.append(_missing(name, library))
                continue
            with warehouse(postgres, "load") as copy:
                took = run(postgres, f"load, {name}", f"benchmarks.{work}:load", **_where(shop, copy), **extra)
            _require(took, sizes.load, f"load, {name}")
            ratio = _times(took, figures[0].measured) if figures else None
            figures.append(Figure(name, took, sizes.load, ratio=ratio, remark=remark, peer=bool(figures)))
    return Section("Load", f"{sizes.load:,} line items into empty tables, {LARGE_PAGE:,} a page.", figures)


def limit(postgres: Postgres, sizes: Sizes) -> Section:
    """Two scans at once, in processes of their own, at the vendor's limit: how much of it they use."""
    per_minute = round(SOURCE.per_minute)
    # More than the time allows, in pages of 25 and 100 rows.
    enough = {"payments": 25 * 600, "line_items": 100 * 600}
    with ExitStack() as stack:
        shop = stack.enter_context(account(limit=per_minute, **enough))
        copy = stack.enter_context(warehouse(postgres, "limit"))
        for entity in enough:
            job = prepared("benchmarks.work:scan_at_limit", entity=entity, **_where(shop, copy))
            stack.enter_context(job).begin()
        time.sleep(sizes.warm_up)
        before, began = shop.control.counters(), time.monotonic()
        time.sleep(sizes.window)
        after, seconds = shop.control.counters(), time.monotonic() - began
    share = (after.total(status=200) - before.total(status=200)) / (per_minute * seconds / 60)
    figures = [
        Figure(
            "allowed requests used",
            ratio=Ratio("{:.1%}", (share,)),
            aim=Aim(f">= {LIMIT_SHARE:.0%}", share, at_least=LIMIT_SHARE),
        ),
        Figure("answers 429", ratio=Ratio("{:.0f}", (after.limited,)), aim=Aim("0", after.limited, at_most=0)),
    ]
    note = (
        f"Two scans in two processes, {WORKERS} threads each; the simulator allows {per_minute} requests in any 60 s."
        f" Counted for {sizes.window} s after {sizes.warm_up} s."
    )
    return Section("At the vendor's limit", note, figures)


def parsing(postgres: Postgres) -> Section:
    """Each DAG file."""
    files = sorted(str(path) for path in (REPOSITORY / "dags").glob("*.py"))
    parsed = run(postgres, "parsing", "benchmarks.parsing:parse", files=files).result
    figures = []
    for name, (wall, cpu) in parsed.items():
        aim = Aim(f"< {PARSE_SECONDS} s", wall, at_most=PARSE_SECONDS)
        figures.append(Figure(name, Measured(None, wall, cpu), aim=aim))
    return Section(
        "DAG files", "One parse beyond shared imports: libraries are loaded, the project's modules not.", figures
    )


def _where(shop: Simulator, copy: str) -> dict[str, str]:
    return {"url": shop.url, "token": shop.token, "warehouse": copy}


def _require(took: Measured, expected: Any, what: str) -> None:
    if took.result != expected:
        raise BenchError(f"{what}: expected {expected}, got {took.result}")


def _times(took: Measured, ours: Measured) -> Ratio:
    return Ratio("{:.1f} x our time", (took.wall / ours.wall,))


def _missing(name: str, library: str) -> Figure:
    return Figure(name, remark=f"not measured: {library} is not installed (dependency group `bench`)", peer=True)
