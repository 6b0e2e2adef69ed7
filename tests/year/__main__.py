"""`python -m tests.year`: play years of nights, write docs/year.md, and tell by the exit code if the aims are met."""

import argparse
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from include.sources import REGISTRY
from include.warehouse.migrate import migrate
from stack.postgres import Postgres
from stack.settings import REPOSITORY
from tests.folders import quick_folder
from tests.year import real, report
from tests.year.incidents import plant
from tests.year.play import Year, play
from tests.year.shop import Shop

# The policies that the year is judged without, one by one, on some of the seeds.
POLICIES = ("Trend", "Growth", "Lasting", "RepairShare", "FieldsLost", "Unproven", "Limit")
SOME = 3


def main() -> int:
    """Play and report."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    seeds = [f"{arguments.set} {number}" for number in range(arguments.seeds)]
    with ProcessPoolExecutor(arguments.processes) as pool:
        years = dict(zip(REGISTRY, pool.map(_years, REGISTRY, [seeds] * len(REGISTRY)), strict=True))
        pairs = list(product(POLICIES, REGISTRY))
        played = pool.map(_years, [source for _, source in pairs], [seeds[:SOME]] * len(pairs), [p for p, _ in pairs])
        without: dict[str, list[Year]] = {policy: [] for policy in POLICIES}
        for (policy, _), some in zip(pairs, played, strict=True):
            without[policy] += some
    nights = _real(arguments.nights)
    results = report.Results(seeds, years, without, nights, arguments.nights, time.monotonic() - began)
    if arguments.set == "report":
        (REPOSITORY / "docs" / "year.md").write_text(report.page(results))
    missed = report.failures(results)
    print("\n".join(missed) or "all aims were met", flush=True)
    return int(bool(missed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.year", description=__doc__)
    parser.add_argument(
        "--set", choices=("calibrate", "report"), default="report", help="which seeds; the page has report"
    )
    parser.add_argument("--seeds", type=int, default=10, help="years of each source")
    parser.add_argument("--nights", type=int, default=10, help="real nights of each source")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    return parser.parse_args()


def _years(source: str, seeds: list[str], without: str = "") -> list[Year]:
    shops = [Shop(source, seed) for seed in seeds]
    return [play(shop, plant(shop), {without}) for shop in shops]


def _real(nights: int) -> dict[str, real.Played]:
    played = {}
    with quick_folder("year") as folder, Postgres(folder / "postgres", settings={"fsync": "off"}) as server:
        server.create_database("migrated")
        migrate(server.url("migrated"))
        for source in REGISTRY:
            with real.opened(source, server, "migrated") as act:
                played[source] = real.play(act, nights)
    return played


if __name__ == "__main__":
    sys.exit(main())
