"""`python -m tests.fuzz`: many runs with changed answers, and what came of them."""

import argparse
import logging
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module

import psycopg

from include.sources import REGISTRY, get_source
from include.sources.mirror.source import Mirror
from include.warehouse.migrate import migrate
from stack.postgres import Postgres, Server
from tests.conftest import copy_of
from tests.contract.account import Account, Run
from tests.folders import quick_folder
from tests.fuzz.outcome import Outcome
from tests.fuzz.pages import opened_pages
from tests.fuzz.play import Fuzz

TEMPLATE = "migrated"
# Nothing of the server outlives the runs.
HASTY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
# The runs that share an account.
HANDFUL = 200


def main() -> int:
    """Play, report, and tell by the exit code whether anything was broken."""
    arguments = _arguments()
    logging.lastResort = None
    # Ended from outside it takes its servers with it, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with quick_folder("fuzz") as folder, Postgres(folder / "postgres", settings=HASTY) as server:
        server.create_database(TEMPLATE)
        migrate(server.url(TEMPLATE))
        return max(_source(source, server.url("postgres"), arguments) for source in arguments.source)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--source", action="append", choices=list(REGISTRY), help="all by default")
    parser.add_argument("--runs", type=int, default=1000, help="runs a source")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--pages", action="store_true", help="only lists into staging, from memory")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    mirrors = [source for source in REGISTRY if isinstance(get_source(source), Mirror)]
    arguments.source = arguments.source or (mirrors if arguments.pages else list(REGISTRY))
    return arguments


def _source(source: str, url: str, arguments: argparse.Namespace) -> int:
    seeds = range(arguments.runs) if arguments.seed is None else [arguments.seed]
    handfuls = [seeds[at : at + HANDFUL] for at in range(0, len(seeds), HANDFUL)]
    began, outcomes, memory = time.monotonic(), [], 0
    with ProcessPoolExecutor(arguments.processes) as pool:
        for some, kilobytes in pool.map(
            _play, [source] * len(handfuls), [url] * len(handfuls), handfuls, [arguments.pages] * len(handfuls)
        ):
            memory = max(memory, kilobytes)
            outcomes += some
            for outcome in some:
                if outcome.faults or arguments.seed is not None:
                    print(outcome.message(source, pages=arguments.pages), flush=True)
    print(_report(source, outcomes, time.monotonic() - began, memory), flush=True)
    return int(any(outcome.faults for outcome in outcomes))


def _play(source: str, url: str, seeds: range, pages: bool) -> tuple[list[Outcome], int]:
    logging.lastResort = None
    with opened(source, Server(url), TEMPLATE) as (account, conn):
        if pages:
            with opened_pages(Run(account, conn, f"{source}_reconcile/fuzz")) as played:
                outcomes = [played.play(seed) for seed in seeds]
        else:
            fuzz = Fuzz(account, conn)
            outcomes = [fuzz.play(seed) for seed in seeds]
    return outcomes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def opened(source: str, server: Server, template: str) -> Iterator[tuple[Account, psycopg.Connection]]:
    """A fresh account of the contract. Nothing is left afterwards."""
    with (
        contextmanager(copy_of)(server, template) as url,
        import_module(f"tests.contract.{source}").opened(url) as account,
        psycopg.connect(url, autocommit=True) as conn,
    ):
        yield account, conn


def _report(source: str, outcomes: list[Outcome], seconds: float, kilobytes: int) -> str:
    kinds = sum((outcome.kinds for outcome in outcomes), Counter())
    answers, broken = sum(outcome.answers for outcome in outcomes), sum(bool(outcome.faults) for outcome in outcomes)
    return (
        f"{source}: {len(outcomes)} runs in {seconds:.0f} s, {answers} answers changed, {broken} runs broken,"
        f" {kilobytes / 1024:.0f} MB at most\n  {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}"
    )


if __name__ == "__main__":
    sys.exit(main())
