"""`python -m benchmarks`: measure everything, print the table, and write benchmarks/results.md.

`--quick` does the same with a few rows and writes nothing: it shows that the benchmarks work, its figures mean little.
`--images N` measures the store alone, with so many rows, `--orders N` the seller alone, `--repairs N` the repair shop
alone, `--jobs N` the crew calls alone, `--runs N` people's overview alone; they write nothing either.
"""

import argparse
import logging
import os
import platform
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import parts
from benchmarks.figures import NUMBERS, Section, markdown
from benchmarks.flex import manning
from benchmarks.measure import BenchError
from benchmarks.pages import standing
from benchmarks.parts import FULL, LATENCY_MS, QUICK
from benchmarks.square import syncing
from benchmarks.storage import looking
from benchmarks.tekmetric import mending
from benchmarks.world import database_server
from stack.postgres import Postgres, PostgresError

RESULTS = Path(__file__).with_name("results.md")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rows only, to see that it works; writes nothing")
    parser.add_argument("--images", type=int, metavar="N", help="the store alone, with N images; writes nothing")
    parser.add_argument("--orders", type=int, metavar="N", help="the seller alone, with N orders; writes nothing")
    parser.add_argument("--repairs", type=int, metavar="N", help="the shop alone, with N orders; writes nothing")
    parser.add_argument("--jobs", type=int, metavar="N", help="the crew calls alone, with N jobs; writes nothing")
    parser.add_argument("--runs", type=int, metavar="N", help="the overview alone, of N runs; writes nothing")
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    # Ended from outside it takes its servers with it, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console, sections = Console(width=None if sys.stdout.isatty() else 160), []
    try:
        with database_server() as postgres:
            machine = _machine(postgres)
            console.print(f"on {machine}")
            for section in _measure(postgres, given):
                sections.append(section)
                console.print(_table(section))
    except (BenchError, PostgresError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if not any((given.quick, given.images, given.orders, given.repairs, given.jobs, given.runs)):
        RESULTS.write_text(markdown(sections, machine))
    return 0


def _measure(postgres: Postgres, given: argparse.Namespace) -> Iterator[Section]:
    if given.images is not None:
        yield looking(postgres, given.images)
        return
    if given.orders is not None:
        yield syncing(postgres, given.orders)
        return
    if given.repairs is not None:
        yield mending(postgres, given.repairs, LATENCY_MS)
        return
    if given.jobs is not None:
        yield manning(postgres, given.jobs, LATENCY_MS)
        return
    if given.runs is not None:
        yield standing(postgres, given.runs)
        return
    sizes = QUICK if given.quick else FULL
    yield from parts.scan_and_comparison(postgres, sizes)
    yield parts.load(postgres, sizes)
    yield syncing(postgres, sizes.orders)
    yield looking(postgres, sizes.images)
    yield mending(postgres, *sizes.repairs)
    yield manning(postgres, *sizes.crews)
    yield parts.limit(postgres, sizes)
    yield standing(postgres, sizes.runs)
    yield parts.parsing(postgres)


def _table(section: Section) -> Table:
    table = Table(title=section.title, caption=section.note, title_justify="left", caption_justify="left")
    headings, *rows = section.grid()
    for heading in headings:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left")
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
