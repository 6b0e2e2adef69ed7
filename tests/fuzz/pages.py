"""The faster part of the fuzzing: pages of a mirror's lists from memory, changed by chance, into staging.

An answer is decoded, checked, cut into records, read by the declared columns, counted by the census and copied into
Postgres. Nothing is compared and merged, so a thousand answers take seconds.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from threading import Lock

import msgspec
import requests
from psycopg import sql

from include.api.client import ApiClient
from include.api.errors import ApiError
from include.api.request import Answer, Request
from include.api.responses import answer_of
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.entity import Entity
from include.sources.mirror.entity_census import keep_fields
from include.sources.mirror.extract import Extract
from include.sources.mirror.read import read_whole
from tests.contract.account import Run
from tests.fuzz.mutations import Mutated, mutate
from tests.fuzz.outcome import Outcome, watched

# The share of answers that are changed.
DOSE = 0.6
# How many calls deep a task of Airflow works, about: so much less is left for what an answer nests.
TASK_FRAMES = 60


class Replaying(ApiClient):
    """Asks the API once for each question; later it changes the answers that it remembers.

    `seed`: what is changed, and how; None changes nothing. `mutated`: the changes since the seed was set.
    """

    def __init__(self, client: ApiClient):
        super().__init__(client.name, client._base_url, headers=client._session.headers, attempts=1)
        self.seed: int | None = None
        self.mutated: list[Mutated] = []
        self._known: dict[bytes, requests.Response] = {}
        self._asked: Counter[bytes] = Counter()
        self._counting = Lock()

    def begin(self, seed: int) -> None:
        self.seed, self.mutated = seed, []
        self._asked.clear()

    def _exchange(self, request: Request) -> Answer | ApiError:
        question = msgspec.json.encode([request.method, request.path, request.params, request.body])
        if question not in self._known:
            url = f"{self._base_url}/{request.path.lstrip('/')}"
            self._known[question] = self._session.request(request.method, url, params=request.params, json=request.body)
        response = self._known[question]
        return answer_of(self.name, request, response, self._changed(question, response.content), self._error_policy)

    def _changed(self, question: bytes, body: bytes) -> bytes:
        with self._counting:
            self._asked[question] += 1
            random = Random(f"{self.seed} {question} {self._asked[question]}")
        if self.seed is None or random.random() > DOSE:
            return body
        mutated = mutate(body, random)
        self.mutated.append(mutated)
        return mutated.body


class Pages:
    """Reads the lists of a mirror's entities, with changed answers."""

    def __init__(self, context: MirrorContext, client: Replaying):
        self._context, self._client = replace(context, client=client), client

    def play(self, seed: int) -> Outcome:
        """Read the list of one entity as the seed has it."""
        outcome, entities = Outcome(seed), self._context.source.entities
        entity = entities[seed % len(entities)]
        self._client.begin(seed)
        with watched(outcome, f"pages of {entity.name}", self._context.conn):
            at_depth(TASK_FRAMES, lambda: self._read(outcome, entity, f"fuzz/{seed}"))
        outcome.answers = len(self._client.mutated)
        outcome.kinds.update(kind for mutated in self._client.mutated for kind in mutated.kinds)
        return outcome

    def _read(self, outcome: Outcome, entity: Entity, ticket: str) -> None:
        extract = read_whole(self._context, entity, "fuzz", ticket)
        with self._context.conn.transaction():
            keep_fields(self._context, extract, whole=True)
        outcome.faults += self._unaccounted(extract)
        extract.drop()

    def _unaccounted(self, extract: Extract) -> Iterator[str]:
        """A line for each stage that has not as many rows as were read and not refused."""
        for stage in extract.stages:
            (staged,) = self._context.conn.execute(sql.SQL("SELECT count(*) FROM {}").format(stage.sql)).fetchone()
            pull = stage.pull
            if staged + pull.rows_refused != pull.rows_read:
                read = f"{pull.rows_read} rows read, {pull.rows_refused} refused"
                yield f"lost: {stage.table.name} has {staged} rows staged, {read}"


def at_depth(frames: int, work: Callable[[], None]) -> None:
    """Do the work as many calls deeper."""
    if frames:
        at_depth(frames - 1, work)
    else:
        work()


@contextmanager
def opened_pages(run: Run) -> Iterator[Pages]:
    """The lists of the run's source, each answer remembered from before the first change."""
    with run.context() as context, Replaying(context.client) as client:
        yield Pages(replace(context, params={**run.account.params, "mode": "full"}), client)
