"""Where a run of the liar plays: simulated accounts behind a wire, a filled copy to begin with, and what is true."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, Protocol
from uuid import uuid4

import psycopg
from psycopg import sql
from starlette.types import ASGIApp

from include.api.client import ApiClient
from include.simulators import serving
from include.simulators.serving import Simulator
from include.sources import REGISTRY
from stack.postgres import Server
from tests.contract.account import Account, Run
from tests.liar.kept import Kept
from tests.liar.lies import Lie
from tests.liar.wire import WORLD, Asked, Wire

# Sources with a stage, and those without: a stub has none.
STAGED = tuple(source for source in REGISTRY if Path(__file__).with_name(f"{source}.py").exists())
UNSTAGED = tuple(source for source in REGISTRY if source not in STAGED)

Key = tuple
# Rows by table and key.
Rows = Mapping[str, Mapping[Key, Any]]


class Vendor(Protocol):
    """What the harness has to know of a source: how its simulator is made and changed, and what its copy should be."""

    source: str
    first_page: int
    # Lies by which something is shown as it was, though it has changed, beside those of every source.
    past: frozenset[str]

    def fill(self, account: "LiarAccount") -> None:
        """Make what is in the copy's database before the first sync."""

    def settled(self) -> None:
        """The copy is filled: what was written to the source by then stays there."""

    def account(self, running: Simulator, warehouse: str) -> AbstractContextManager["LiarAccount"]:
        """The account of the contract, on a copy that is filled or is to be filled."""

    def application(self, *, other: bool = False) -> ASGIApp:
        """A fresh simulated account as each run begins with, or somebody else's."""

    def control(self, url: str) -> Any:
        """The hand on it."""

    def prepare(self, control: Any) -> None:
        """Bring a fresh one to how each run begins."""

    def present(self, control: Any, world: str) -> float | None:
        """The time for a world's answers if its simulator sends none, else None."""

    def family(self, asked: Asked) -> str:
        """The witness that a request asks: requests of one family may lie together."""

    def kinds(self, family: str) -> Mapping[str, Lie]:
        """The lies that can be told by a family, by their names."""

    def entities(self, family: str) -> Collection[str]:
        """The entities about which a family tells something."""

    def records(self, family: str) -> str:
        """What records its answers show: those of one name have the same fields."""

    def group(self, family: str) -> str:
        """Families of different groups tell of different records."""


class LiarAccount(Account, Protocol):
    """An account that can change its source and its copy at random, and that knows the truth.

    `copy_is_theirs`: the lies are about the copy, and the truth is ours.
    """

    copy_is_theirs: bool

    def narrow(self, entities: Collection[str]) -> None:
        """Leave out of the source what isn't about these entities."""

    def kept(self) -> set[str]:
        """Tables in which rows stay that the source has no more."""

    def has_one_witness(self, table: str) -> bool:
        """Whether one address alone shows the content of these rows."""

    def is_nested(self, table: str) -> bool:
        """Whether these rows come inside the records of another table."""

    def has_ended(self, table: str, key: Key) -> bool:
        """Whether rows of a history that imply this row imply nothing any more, as their series has ended."""

    def change(self, random: Random, about: Collection[str]) -> list[list[Any]]:
        """Make random changes at the source, mostly of these entities, and return them as steps of mutations."""

    def hide(self, random: Random, about: Collection[str]) -> list[list[Any]]:
        """The mutations that take some rows away in silence, as a filter would."""

    def spoil(self, random: Random, about: Collection[str], most: int) -> list[str]:
        """Make up to so many differences in the copy that no source knows of, mostly of these entities; say which."""

    def truth(self) -> Rows:
        """What the copy has to hold."""

    def live(self) -> Rows:
        """What the copy holds."""

    def due(self) -> set[tuple[str, Key]]:
        """Rows that a sync has to bring, since the source tells when they changed."""

    def young(self) -> set[tuple[str, Key]]:
        """Rows that changed at the source after the last sync, so that a scan leaves them to the next one."""

    def name_of(self, table: str, key: Key) -> str | None:
        """What names the record of a row of the truth in an answer; None where that isn't known."""

    def release(self, run: Run) -> None:
        """Do a person's part after writes with an unknown outcome."""

    def waits_for_night(self, why: str) -> bool:
        """Whether a sync that was red for this reason rightly leaves the rest to a night."""

    def unsound(self) -> list[str]:
        """What is wrong with the copy beside its rows."""


class NotMirrored:
    """The answers of an account whose copy is not a mirror of lists: no row is kept, due, young or named."""

    def narrow(self, entities: Collection[str]) -> None:
        pass

    def kept(self) -> set[str]:
        return set()

    def has_one_witness(self, table: str) -> bool:
        return False

    def is_nested(self, table: str) -> bool:
        return False

    def has_ended(self, table: str, key: Key) -> bool:
        return False

    def due(self) -> set[tuple[str, Key]]:
        return set()

    def young(self) -> set[tuple[str, Key]]:
        return set()

    def name_of(self, table: str, key: Key) -> None:
        return None

    def release(self, run: Run) -> None:
        pass

    def waits_for_night(self, why: str) -> bool:
        return False

    def unsound(self) -> list[str]:
        return []


class Stage:
    """A source's stage in this process: one wire, and the filled copy from which each run takes its own."""

    def __init__(self, vendor: Vendor, server: Server, migrated: str) -> None:
        self.vendor, self.server, self._migrated = vendor, server, migrated
        self.wire = Wire()
        self._database = f"liar_{vendor.source}_{uuid4().hex}"

    @contextmanager
    def opened(self) -> Iterator["Stage"]:
        """Serve the wire and fill the copy; nothing is left afterwards."""
        with serving.in_thread(self.wire) as self.url:
            self.reset()
            self._copy_database()
            try:
                with self._on() as act:
                    self.vendor.fill(act.account)
                    act.run.sync()
                    act.run.sync()
                    act.settle()
                    self._kept = Kept(act.conn)
                self.vendor.settled()
                self.build("old", [])
                self.wire.worlds["stranger"] = self.vendor.application(other=True)
                yield self
            finally:
                self.server.drop_database(self._database)

    def reset(self) -> None:
        """Every account as at the beginning, and no lies."""
        self.wire.lying = None
        self.wire.asked.clear()
        self.wire.worlds.pop("filtered", None)
        self.build("now", [])

    def build(self, world: str, steps: Sequence[Sequence[Any]]) -> None:
        """An account that went through these changes."""
        self.wire.worlds[world] = self.vendor.application()
        control = self.vendor.control(f"{self.url}{WORLD}{world}")
        self.vendor.prepare(control)
        for step in steps:
            control.mutate(*step)

    @contextmanager
    def act(self) -> Iterator["Act"]:
        """Accounts and copy as at the beginning."""
        self.reset()
        with self._on() as act:
            self._kept.put_back(act.conn)
            yield act

    @contextmanager
    def _on(self) -> Iterator["Act"]:
        warehouse = self.server.url(self._database)
        running = Simulator(self.url, "demo-token", self.vendor.control(self.url))
        self.wire.clock = lambda world: self.vendor.present(running.control, world)
        with self.vendor.account(running, warehouse) as account, psycopg.connect(warehouse, autocommit=True) as conn:
            yield Act(self, account, Run(account, conn, f"{self.vendor.source}_reconcile/liar"), conn)

    def _copy_database(self) -> None:
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            parts = map(sql.Identifier, (self._database, self._migrated))
            conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(*parts))


@dataclass
class Act:
    """One run on a stage."""

    stage: Stage
    account: LiarAccount
    run: Run
    conn: psycopg.Connection

    def settle(self) -> None:
        """Refuse a beginning that isn't in step."""
        wrong = differences(self.account.truth(), self.account.live())
        assert not wrong, f"{self.stage.vendor.source} does not begin in step: {wrong[:5]}"


def differences(truth: Rows, copy: Rows, excused: Callable[[str, Key], bool] = lambda table, key: False) -> list[str]:
    """A line for each row in which the copy differs from the truth, unless it is excused."""
    lines = []
    for table, rows in truth.items():
        found = copy.get(table, {})
        for key in [*rows, *(key for key in found if key not in rows)]:
            if excused(table, key):
                continue
            if key not in found:
                lines.append(f"{table} {key} is missing")
            elif key not in rows:
                lines.append(f"{table} {key} is one too many")
            elif rows[key] is not None and rows[key] != found[key]:
                lines.append(f"{table} {key} differs: {_unlike(found[key], rows[key])}")
    return lines


def _unlike(found: Any, true: Any) -> str:
    if not isinstance(true, Mapping):
        return f"{_short(found)} for {_short(true)}"
    names = [name for name in true if found.get(name) != true[name]]
    told = [f"{name} {_short(found.get(name))} for {_short(true[name])}" for name in names[:3]]
    return ", ".join([*told, f"and {len(names) - 3} more"] if len(names) > 3 else told)


def _short(value: Any) -> str:
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def patient(name: str, url: str, headers: Mapping[str, str]) -> Iterator[ApiClient]:
    """A client that tries twice, as lies that are told once would be mended."""
    with ApiClient(name, url, headers=headers, timeout=(2, 10), attempts=2, backoff=(0.001, 0.002)) as client:
        yield client
