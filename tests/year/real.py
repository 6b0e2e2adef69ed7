"""Real nights of the small accounts that the contract's tests use: they check the model, and measure what grows."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import psycopg
from psycopg import sql

from include.confidence import judgements
from include.confidence.policy import Judgement, PastRun, Verdict, judge
from include.confidence.summary import ForensicSummary, Plan
from include.sources.base import policies
from include.sources.mirror.entity import Entity
from stack.postgres import Server
from tests.conftest import copy_of
from tests.contract.account import Run
from tests.year.play import Night, after
from tests.year.shop import Drift, List, Shop

# Rows and bytes by table. The bytes are those of the rows, without indexes and free space.
Sizes = Mapping[str, tuple[int, int]]
# The night in whose scan the drift is found first. The next sync mends a part of it, where it reads whole lists.
DRIFTED = 2


@dataclass(frozen=True)
class Act:
    """A source's small account, with a copy that a sync has filled."""

    account: Any
    conn: psycopg.Connection
    source: str

    def sync(self, night: int) -> None:
        self._run(night).sync()

    def scan(self, night: int) -> list[ForensicSummary]:
        """Scan every entity; the writer runs again afterwards."""
        run = self._run(night)
        scans = run.scan()
        run.resume()
        return scans

    def judge(self, scan: ForensicSummary) -> Judgement:
        """Judge as the gate does, and keep the verdict."""
        judged = judge(scan, judgements.past_runs(self.conn, scan), policies(self.entity(scan.entity)))
        judgements.save_judgement(self.conn, scan, judged)
        return judged

    def entity(self, name: str) -> Any:
        return next(entity for entity in self.account.source.entities if entity.name == name)

    def _run(self, night: int) -> Run:
        return Run(self.account, self.conn, f"{self.source}_reconcile/night {night}")


@contextmanager
def opened(source: str, server: Server, template: str) -> Iterator[Act]:
    """The account, and a warehouse of its own; both are gone afterwards."""
    with (
        contextmanager(copy_of)(server, template) as url,
        import_module(f"tests.contract.{source}").opened(url) as account,
        psycopg.connect(url, autocommit=True) as conn,
    ):
        act = Act(account, conn, source)
        act.sync(0)
        yield act


@dataclass(frozen=True)
class Played:
    """What came of some real nights, each with a sync and a scan.

    - `unlike`: a line for everything that the model would have said otherwise
    - `copy`: the tables of the copy
    - `grown`: rows and bytes that a table gains in a night, from the second night after the drift on; tables that gain
      some only
    - `audited`: bytes of a row of the change log, the mean of all that was written
    """

    unlike: list[str]
    copy: Collection[str]
    grown: Mapping[str, tuple[float, float]]
    audited: float


def play(act: Act, nights: int) -> Played:
    """Let the copy drift once, and play so many nights; nothing is repaired."""
    histories: dict[str, list[PastRun]] = {}
    unlike: list[str] = []
    sizes = []
    for number in range(1, nights + 1):
        act.sync(number)
        drift = act.account.drift() if number == DRIFTED else None
        for scan in act.scan(number):
            past, judged = histories.get(scan.entity, []), act.judge(scan)
            expected = judge(scan, past, policies(act.entity(scan.entity)))
            newest, *older = after(Night(scan, expected), number, past)
            # Nobody answers here.
            histories[scan.entity] = [replace(newest, held=newest.verdict is Verdict.HOLD), *older]
            if expected != judged:
                unlike.append(f"night {number}, {scan.entity}: {judged.verdict}, and not {expected.verdict}")
            if drift is not None:
                unlike += _unlike_figures(act, scan, drift.get(scan.entity, Plan(0, 0, 0)))
        sizes.append(_sizes(act))
    act.account.change()
    act.sync(nights + 1)
    rows, bytes_ = _sizes(act)["confidence.change_log"]
    copy = {f"{act.source}.{name}" for name in act.account.copy()}
    return Played(unlike, copy, _grown(sizes[DRIFTED], sizes[-1], nights - DRIFTED - 1), bytes_ / rows if rows else 0)


def _unlike_figures(act: Act, scan: ForensicSummary, drift: Plan) -> Iterator[str]:
    """What the model says otherwise of a scan of a copy that has drifted so, by the account's own word."""
    if scan.plan != drift:
        yield f"{scan.entity}: the plan is {scan.plan}, and not {drift}"
    entity = act.entity(scan.entity)
    if not isinstance(entity, Entity):
        return
    table = List(Shop(act.source, "real"), entity)
    if entity.parts:
        kinds = ("confirmed_missing", "confirmed_deleted", "rows_differing", "nested_rows_drifted")
        found = {"drift": sum(scan.metrics[kind] or 0 for kind in kinds)}
        expected: Mapping[str, int | None] = {"drift": drift.rows}
    else:
        found = dict(scan.metrics)
        expected = table.figures(0, Drift(missing=drift.insert, differing=drift.update, surplus=drift.delete))
        # A list of the small accounts repeats rows on purpose.
        expected = {name: value for name, value in expected.items() if name != "api_duplicate_rows"}
    for name, value in expected.items():
        if found[name] != value:
            yield f"{scan.entity}: {name} is {found[name]}, and not {value}"


def _sizes(act: Act) -> Sizes:
    tables = act.conn.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('confidence', 'staging', %s)", [act.source]
    ).fetchall()
    query = sql.SQL("SELECT count(*), coalesce(sum(pg_column_size(t.*)), 0)::bigint FROM {} t")
    return {
        f"{schema}.{name}": act.conn.execute(query.format(sql.Identifier(schema, name))).fetchone()
        for schema, name in tables
    }


def _grown(before: Sizes, now: Sizes, nights: int) -> Mapping[str, tuple[float, float]]:
    gained = {
        table: ((rows - before[table][0]) / nights, (size - before[table][1]) / nights)
        for table, (rows, size) in now.items()
        if table in before
    }
    return {table: each for table, each in sorted(gained.items()) if each[0] > 0}
