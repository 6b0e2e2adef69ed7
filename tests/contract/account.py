"""What a new source's adapter implements, and the verbs of its source as the tasks of a run call them.

The adapter is a module of the source's name beside this file. Its `opened(warehouse)`, a context manager, gives the
account, an `Account`, for the libpq URL of a migrated warehouse.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol

from psycopg import Connection

from include.api.client import ApiClient
from include.api.request import Answer, Request
from include.confidence import judgements
from include.confidence.policy import Judgement, Verdict
from include.confidence.scan_log import PlanGone
from include.confidence.summary import ForensicSummary, Plan
from include.sources import verbs
from include.sources.base import Check, Connections, Context, Source, Synced
from include.warehouse import fence
from include.warehouse.rollback import Undone, roll_back
from include.warehouse.sync_log import Counts

PASSED = Judgement(Verdict.PASS, (), (), ())


class Questions:
    """Counts what the source is asked, and lets things happen on the way."""

    def __init__(self) -> None:
        self.asked = 0
        self._orders: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()

    def before(self, number: int, action: Callable[[], None]) -> None:
        """Order `action` for once, just before the `number`-th question from now on."""
        with self._lock:
            self._orders[self.asked + number] = action

    def forget(self) -> None:
        """Drop the orders that are still open."""
        with self._lock:
            self._orders.clear()

    def ask(self) -> None:
        """The adapter calls this before each question, in whatever thread."""
        with self._lock:
            self.asked += 1
            action = self._orders.pop(self.asked, None)
        if action:
            action()


class Asking(ApiClient):
    """Tells of each request before it is sent."""

    def __init__(self, asked: Callable[[Request], None], *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._asked = asked

    def send(self, request: Request, *, cancel: Event | None = None) -> Answer:
        self._asked(request)
        return super().send(request, cancel=cancel)


class Account(Connections, Protocol):
    """A running account of a few dozen rows. It opens the connections that its source asks for, impatient ones.

    `source` is the declared one, its pauses taken out and its pages made short. `params` are those that its sync and
    scan take, `mode` aside; `part`, known of the class, are those of them by which a scan looks at a part only, None
    where each scan looks at everything. `computed` names what is counted beside the entities and their parts, since
    it follows from them. `atomic`, known of the class: a repair is one transaction; where it isn't, being cut off has
    tests of its own. `questions` has every request to the source, and every statement to a copy that the scan reads
    elsewhere than in the warehouse.
    """

    source: Source
    computed: Collection[str]
    atomic: bool
    params: Mapping[str, Any]
    part: Mapping[str, Any] | None
    questions: Questions

    def copy(self) -> Mapping[str, Mapping]:
        """The whole copy: every column of every row, by table and key."""

    def change(self) -> None:
        """A change such as the next sync brings into the copy."""

    def drift(self) -> Mapping[str, Plan]:
        """Make differences of every kind that a repair mends, in each entity, such as no sync brings about.

        Some lie in the part. Returns what a repair has to do, by entity.
        """

    def fail(self) -> None:
        """Let the question that is just being asked, or one beside it, fail once; no retry mends it."""

    def down(self) -> AbstractContextManager[None]:
        """The source answers nothing that is of use, until the end of the block."""


@dataclass(frozen=True)
class CountedAnswer:
    """An answer whose fields a source counts that is no mirror, and what a test may change in its records.

    - `name`: as in the census
    - `field`: a declared one that each record has, and `unreadable`: a value of another type
    - `words`: a field with an enumeration, one of its words, and a new one
    """

    name: str
    field: str
    unreadable: Any
    words: tuple[str, str, str]


@dataclass(frozen=True)
class Run:
    """A run (`dag_id/run_id`) on the account: each verb in a context of its own, as each task has it."""

    account: Account
    conn: Connection
    name: str

    @property
    def source(self) -> Source:
        return self.account.source

    @contextmanager
    def context(self) -> Iterator[Context]:
        with self.source.open(self.conn, self.name, self.account) as context:
            yield context

    def sync(self, mode: str = "incremental") -> Synced:
        with self.context() as context:
            return verbs.run_sync(context, {**self.account.params, "mode": mode}, dry_run=False)

    def stop(self) -> int:
        """Stop the writer; the epoch."""
        return fence.stop(self.conn, self.source.name, self.name, timeout=1).epoch

    def resume(self) -> None:
        fence.resume(self.conn, self.source.name, self.name)

    def scan(self, **params: Any) -> list[ForensicSummary]:
        """Stop the writer, if it isn't, and scan every entity."""
        return [self.scan_one(entity.name, **params) for entity in self.source.entities]

    def scan_one(self, entity: str, **params: Any) -> ForensicSummary:
        epoch = self.stop()
        with self.context() as context:
            return verbs.run_scan(context, entity, epoch, {**self.account.params, **params}, dry_run=True)

    def repair(self, summaries: Sequence[ForensicSummary], **params: Any) -> tuple[int, Mapping[str, Counts]]:
        """Let every scan pass the gate, and repair."""
        for summary in summaries:
            with suppress(PlanGone):
                judgements.save_judgement(self.conn, summary, PASSED)
        with self.context() as context:
            return verbs.run_repair(context, summaries, {**self.account.params, **params})

    def verify(self, summaries: Sequence[ForensicSummary], sync_id: int) -> list[Check]:
        with self.context() as context:
            return verbs.run_verify(context, summaries, sync_id)

    def reset_watermarks(self) -> int:
        with self.context() as context:
            return self.source.reset_watermarks(context)

    def roll_back(self, sync_id: int) -> Undone:
        with self.source.copy(self.conn, self.account) as copy:
            return roll_back(self.conn, copy, sync_id, run=self.name, reason="test", dry_run=False, timeout=1)

    def standing(self) -> Mapping[str, Any]:
        """The copy, how far each entity is in step, and how many changes were audited."""
        states = self.conn.execute(
            "SELECT to_jsonb(s) FROM confidence.sync_state s WHERE source = %s ORDER BY entity, partition",
            [self.source.name],
        ).fetchall()
        (changes,) = self.conn.execute("SELECT count(*) FROM confidence.change_log").fetchone()
        return {"copy": self.account.copy(), "states": states, "changes": changes}

    def state(self) -> Mapping[str, Any]:
        """What a rollback puts back: the copy, and how far each entity is in step."""
        return {name: part for name, part in self.standing().items() if name != "changes"}
