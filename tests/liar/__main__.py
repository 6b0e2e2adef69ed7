"""`python -m tests.liar`: many runs of the liar, and what came of them."""

import argparse
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from multiprocessing.util import Finalize
from pathlib import Path

from include.warehouse.migrate import migrate
from stack.postgres import Postgres, Server
from tests.folders import quick_folder
from tests.liar.plan import Heard
from tests.liar.play import Outcome, listen, play
from tests.liar.stage import STAGED, UNSTAGED, Stage

TEMPLATE = "migrated"
# Nothing of the server outlives the runs.
HASTY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
_opened: dict[str, tuple[Stage, Heard]] = {}
_left_open = ExitStack()


def main() -> int:
    """Play, report, and tell by the exit code whether anything was broken."""
    arguments = _arguments()
    logging.disable(logging.CRITICAL)
    if UNSTAGED:
        print(f"without a stage, so not played: {', '.join(UNSTAGED)}", flush=True)
    # Ended from outside it takes its servers with it, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with quick_folder("liar") as folder, Postgres(folder / "postgres", settings=HASTY) as server, _left_open:
        server.create_database(TEMPLATE)
        migrate(server.url(TEMPLATE))
        url = server.url("postgres")
        return max(_source(source, url, arguments) for source in arguments.source)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.liar", description=__doc__)
    parser.add_argument("--source", action="append", choices=STAGED, help="all by default")
    parser.add_argument("--runs", type=int, default=100, help="runs a source")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, action="append", help="only this seed, with its whole story")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--stories", type=Path, help="a file for the stories of broken runs")
    arguments = parser.parse_args()
    arguments.source = arguments.source or list(STAGED)
    return arguments


def _source(source: str, url: str, arguments: argparse.Namespace) -> int:
    seeds = arguments.seed or range(arguments.first, arguments.first + arguments.runs)
    began, outcomes = time.monotonic(), []
    for outcome in _outcomes(source, url, seeds, 1 if arguments.seed else arguments.processes):
        outcomes.append(outcome)
        if arguments.seed:
            print(outcome.message(source))
        elif outcome.broken and arguments.stories:
            with arguments.stories.open("a") as stories:
                stories.write(f"{outcome.message(source)}\n\n")
    print(report(source, outcomes, time.monotonic() - began), flush=True)
    return int(any(outcome.broken for outcome in outcomes))


def _outcomes(source: str, url: str, seeds: Sequence[int], processes: int) -> Iterator[Outcome]:
    if processes == 1:
        yield from (_play(source, url, seed) for seed in seeds)
        _left_open.close()
        _opened.clear()
        return
    size = max(1, min(10, len(seeds) // processes))
    handfuls = [seeds[at : at + size] for at in range(0, len(seeds), size)]
    with ProcessPoolExecutor(processes) as pool:
        for some in pool.map(_play_some, [source] * len(handfuls), [url] * len(handfuls), handfuls):
            yield from some


def _play_some(source: str, url: str, seeds: range) -> list[Outcome]:
    logging.disable(logging.CRITICAL)
    outcomes = [_play(source, url, seed) for seed in seeds]
    return outcomes


def _play(source: str, url: str, seed: int) -> Outcome:
    if not _opened:
        # A worker's own end: it comes before its threads are waited for.
        Finalize(None, _left_open.close, exitpriority=1)
    if source not in _opened:
        vendor = import_module(f"tests.liar.{source}").Vendor()
        stage = _left_open.enter_context(Stage(vendor, Server(url), TEMPLATE).opened())
        heard, honest = listen(stage)
        _opened[source] = stage, heard
        for outcome in honest:
            if outcome.broken or not outcome.confirmed:
                print(f"WITHOUT A LIE {outcome.message(source)}", flush=True)
    return play(*_opened[source], seed)


def report(source: str, outcomes: list[Outcome], seconds: float) -> str:
    """A few lines on all runs of a source."""
    told = Counter(kind for outcome in outcomes for kind in set(outcome.told))
    broken: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        for what in outcome.broken:
            broken.setdefault(what, []).append(outcome)
    green = sum(not outcome.red for outcome in outcomes)
    confirmed = sum(outcome.confirmed for outcome in outcomes)
    lines = [
        f"{source}: {len(outcomes)} runs in {seconds:.0f} s ({seconds / len(outcomes):.2f} s each), {green} green,"
        f" {confirmed} confirmed, {len(outcomes) - green} red, {sum(not o.told for o in outcomes)} without a lie told",
        f"  runs with lies: {', '.join(f'{kind} {count}' for kind, count in sorted(told.items()))}",
    ]
    for what, some in sorted(broken.items()):
        kinds = Counter(kind for outcome in some for kind in {liar.kind for liar in outcome.plan.liars})
        seeds = ", ".join(str(outcome.plan.seed) for outcome in some[:20])
        by = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        lines.append(f"  BROKEN {what}: {len(some)} runs ({by}); seeds {seeds}")
    return "\n".join(lines if broken else [*lines, "  the property held"])


if __name__ == "__main__":
    sys.exit(main())
