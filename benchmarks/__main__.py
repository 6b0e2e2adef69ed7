"""`python -m benchmarks`: measure everything in several rounds, print the tables, and write benchmarks/results.md.

`--quick` does the same with a few rows, once, and writes nothing: it shows that the benchmarks work, its figures mean
little. `--images N` measures the store alone, with so many rows, `--slices N` a scan by two tasks
alone, `--orders N` the seller alone, `--repairs N` the repair shop alone, `--jobs N` the crew calls alone, `--runs N`
people's overview alone, `--fields N` what extra and census cost, with so many line items; they write nothing either.

`--base COMMIT` compares this folder with a commit instead (`benchmarks.against`).
"""

import argparse
import json
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import against, parts
from benchmarks.fields import keeping
from benchmarks.figures import NUMBERS, Section, markdown, merged
from benchmarks.flex import crew_calls
from benchmarks.measure import BenchError
from benchmarks.pages import planned, standing
from benchmarks.parts import FULL, LATENCY_MS, PAIR, QUICK, Sizes
from benchmarks.slices import reading_together
from benchmarks.square import syncing
from benchmarks.storage import looking
from benchmarks.tekmetric import mending
from benchmarks.world import database_server
from stack.postgres import Postgres, PostgresError

RESULTS = Path(__file__).with_name("results.md")
ROUNDS = 5

log = logging.getLogger("benchmarks")


def main() -> int:
    given = _arguments()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    log.setLevel(logging.INFO)
    # Ended from outside it takes its servers with it, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if given.base:
            return against.compare(given.base, given.rounds or ROUNDS, quick=given.quick)
        return _measure_all(given)
    except (BenchError, PostgresError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rows only, to see that it works; writes nothing")
    parser.add_argument("--images", type=int, metavar="N", help="the store alone, with N images; writes nothing")
    parser.add_argument("--slices", type=int, metavar="N", help="a scan by two tasks alone, N images; writes nothing")
    parser.add_argument("--orders", type=int, metavar="N", help="the seller alone, with N orders; writes nothing")
    parser.add_argument("--repairs", type=int, metavar="N", help="the shop alone, with N orders; writes nothing")
    parser.add_argument("--jobs", type=int, metavar="N", help="the crew calls alone, with N jobs; writes nothing")
    parser.add_argument("--changes", type=int, metavar="N", help="the plan's pages alone, of N changes; writes nothing")
    parser.add_argument("--runs", type=int, metavar="N", help="the overview alone, of N runs; writes nothing")
    parser.add_argument("--fields", type=int, metavar="N", help="the cost of fields alone, with N rows; writes nothing")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"measure N times: {ROUNDS} by default, some parts once"
    )
    parser.add_argument("--base", metavar="COMMIT", help="compare with this commit, in as many pairs as rounds")
    parser.add_argument("--pair", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure_all(given: argparse.Namespace) -> int:
    one = (given.images, given.slices, given.orders, given.repairs, given.jobs, given.runs, given.changes, given.fields)
    alone = any(one)
    kept = not (alone or given.quick or given.pair)
    number, began = given.rounds or (ROUNDS if kept else 1), time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 240)
    with database_server() as postgres:
        machine = _machine(postgres)
        console.print(f"on {machine}")
        rounds = []
        for place in range(number):
            log.info("round %d of %d", place + 1, number)
            rounds.append(list(_measure(postgres, given)))
    sections = merged(rounds)
    for section in sections:
        console.print(_table(section))
    if kept:
        RESULTS.write_text(markdown(sections, machine, number, (time.monotonic() - began) / 60))
    if given.json:
        given.json.write_text(json.dumps(against.readings(sections)))
    return 0


def _measure(postgres: Postgres, given: argparse.Namespace) -> Iterator[Section]:
    if given.images is not None:
        yield looking(postgres, given.images)
    elif given.slices is not None:
        yield reading_together(postgres, given.slices)
    elif given.orders is not None:
        yield syncing(postgres, given.orders)
    elif given.repairs is not None:
        yield mending(postgres, given.repairs, LATENCY_MS)
    elif given.jobs is not None:
        yield crew_calls(postgres, given.jobs, LATENCY_MS)
    elif given.changes is not None:
        yield planned(postgres, given.changes)
    elif given.runs is not None:
        yield standing(postgres, given.runs)
    elif given.fields is not None:
        yield keeping(postgres, given.fields)
    else:
        yield from _everything(postgres, _sizes(given))


def _sizes(given: argparse.Namespace) -> Sizes:
    if given.pair:
        return replace(QUICK, peers=False, window=0) if given.quick else PAIR
    return QUICK if given.quick else FULL


def _everything(postgres: Postgres, sizes: Sizes) -> Iterator[Section]:
    yield from parts.scan_and_comparison(postgres, sizes)
    yield parts.load(postgres, sizes)
    yield keeping(postgres, sizes.fields)
    yield syncing(postgres, sizes.orders)
    yield looking(postgres, sizes.images, peers=sizes.peers)
    yield mending(postgres, *sizes.repairs)
    yield crew_calls(postgres, *sizes.crews, peers=sizes.peers)
    if sizes.window:
        yield parts.limit(postgres, sizes)
    yield standing(postgres, sizes.runs, peers=sizes.peers)
    yield planned(postgres, sizes.changes)
    yield parts.parsing(postgres)


def _table(section: Section) -> Table:
    table = Table(title=section.title, caption=section.note, title_justify="left", caption_justify="left")
    headings, *rows = section.grid()
    for heading in headings:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", no_wrap=heading == "what")
    for row in rows:
        table.add_row(*row)
    return table


def _machine(postgres: Postgres) -> str:
    with psycopg.connect(postgres.url("postgres")) as conn:
        version = conn.info.server_version
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, Python {platform.python_version()}, Postgres {version // 10000}.{version % 10000}"


if __name__ == "__main__":
    sys.exit(main())
