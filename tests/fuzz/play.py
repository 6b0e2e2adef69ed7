"""One run of the fuzzing: verbs whose answers are changed by chance, then an honest night, and what has to be true.

- A verb ends well, or with one line of our own that says what, where and what to do (`unforeseen`, `lines`).
- No message, log line or figure has a value out of an answer (`told`).
- No row goes out of the copy, and none changes whose record was not touched (`lost`, `harmed`).
- Afterwards an honest sync and a night set right whatever was stored (`stuck`).
- No verb takes longer than is allowed (`slow`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from random import Random
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from include.confidence.summary import ForensicSummary
from include.sources.mirror.source import Mirror
from include.warehouse.sql_fragments import identifiers
from tests.contract.account import Account, Run
from tests.fuzz.mutations import CANARY, WORDS, mutate
from tests.fuzz.outcome import Outcome, watched
from tests.fuzz.wire import Change, changing

# The share of a verb's answers that are changed; 0 is one of them alone.
DOSES = (0.0, 0.05, 0.3, 1.0)
# Verbs with changed answers, one after the other, before the honest ones.
VERBS = 6
# What differs from write to write, whatever the source shows.
NOT_COMPARED = frozenset({"sync_id", "updated_at", "last_synced_at"})
# A night mends what it can prove; what it can't it looks at again in the next one.
NIGHTS = 3


class Fuzz:
    """Runs on one account, whose copy is true before each."""

    def __init__(self, account: Account, conn: psycopg.Connection):
        self._account, self._conn = account, conn
        self._run = Run(account, conn, f"{account.source.name}_reconcile/fuzz")
        self._run.sync("full")
        self._night(Outcome(-1))
        self._true = self._copy()

    def play(self, seed: int) -> Outcome:
        """Play the run of a seed."""
        outcome, random = Outcome(seed), Random(f"{self._account.source.name} {seed}")
        self._touched: set[str] = set()
        if random.random() < 0.5:
            self._lose_rows(random)
        before = self._copy()
        for number in range(random.randint(1, VERBS)):
            verb = random.choice(["sync", "full sync", "scan", "scan", "night"])
            self._do_verb(outcome, verb, self._lying(outcome, number, random.choice(DOSES)))
        self._require_unharmed(outcome, before)
        self._afterwards(outcome)
        return outcome

    def _do_verb(self, outcome: Outcome, verb: str, lying: Callable) -> None:
        match verb:
            case "sync":
                self._do(outcome, verb, lying, self._run.sync)
            case "full sync":
                self._do(outcome, verb, lying, lambda: self._run.sync("full"))
            case "scan":
                self._scans(outcome, lying)
                self._run.resume()
            case "night":
                self._night(outcome, lying)

    def _lose_rows(self, random: Random) -> None:
        """Let a mirror lack some rows, so that a sync takes over what it is shown."""
        if not isinstance(self._account.source, Mirror):
            return
        with self._conn.transaction():
            self._conn.execute("SET LOCAL session_replication_role = replica")
            for table in (table for entity in self._account.source.entities for table in entity.tables):
                query = "DELETE FROM {} WHERE hashtext(({})::text || %s) %% 4 = 0"
                some = sql.SQL(query).format(table.sql, identifiers(table.key))
                self._conn.execute(some, [str(random.random())])

    def _lying(self, outcome: Outcome, number: int, dose: float) -> Change:
        """What changes answers of the run's verb of that number. Each answer has a randomness of its own."""
        name, lock, asked = f"{self._account.source.name} {outcome.seed} {number}", Lock(), Counter()
        only = Random(name).randrange(12)

        def change(method: str, url: str, body: bytes) -> bytes:
            with lock:
                count, each = asked.total(), asked[url]
                asked[url] += 1
            # Without the host, whose port is another one in each run.
            random = Random(f"{name} {method} {urlsplit(url)[2:4]} {each}")
            meant = random.random() < dose if dose else count == only
            # A write to a copy that is not ours is proven by a read; whoever is lied to about it asks a person.
            if not meant or (not self._account.atomic and method not in ("GET", "HEAD")):
                return body
            mutated = mutate(body, random)
            with lock:
                outcome.answers += 1
                outcome.kinds.update(mutated.kinds)
                self._touched |= mutated.touched
            return mutated.body

        return change

    def _do(self, outcome: Outcome, verb: str, lying: Callable | None, work: Callable[[], Any]) -> Any:
        """Do the work; its result, or None where it ended in an error."""
        result = None
        with watched(outcome, verb, self._conn), changing(lying) if lying else nullcontext():
            result = work()
        if isinstance(result, ForensicSummary) and CANARY in repr(result):
            outcome.faults.append(f"told: {verb} has it in {repr(result)[:600]}")
        return result

    def _scans(self, outcome: Outcome, lying: Callable | None = None) -> list[ForensicSummary] | None:
        """Scan every entity. None if one of them failed."""
        found = [
            self._do(outcome, f"scan {entity.name}", lying, lambda name=entity.name: self._run.scan_one(name))
            for entity in self._account.source.entities
        ]
        return None if None in found else found

    def _night(self, outcome: Outcome, lying: Callable | None = None) -> bool:
        """Scan, repair and verify; whether nothing was left to repair."""
        scans = self._scans(outcome, lying)
        planned = sum(sum(vars(scan.plan).values()) for scan in scans or ())
        if scans and planned and not any(scan.incomplete for scan in scans):
            applied = self._do(outcome, "repair", lying, lambda: self._run.repair(scans))
            if applied:
                self._do(outcome, "verify", lying, lambda: self._run.verify(scans, applied[0]))
        self._run.resume()
        return scans is not None and not planned and not any(scan.incomplete for scan in scans)

    def _copy(self) -> Mapping[str, Mapping]:
        return {
            table: {key: _compared(row) for key, row in rows.items()}
            for table, rows in self._account.copy().items()
            if table not in self._account.computed
        }

    def _require_unharmed(self, outcome: Outcome, before: Mapping[str, Mapping]) -> None:
        after = self._copy()
        for table, rows in before.items():
            for key, row in rows.items():
                now = after[table].get(key)
                if now is None or _is_gone(now) > _is_gone(row):
                    outcome.faults.append(f"lost: {table} {key}")
                elif now != row and not self._is_touched(key):
                    outcome.faults.append(f"harmed: {table} {key}")

    def _is_touched(self, key: Any) -> bool:
        words = {word.decode() for word in WORDS.findall(str(key).encode())}
        return bool(words & self._touched)

    def _afterwards(self, outcome: Outcome) -> None:
        """The copy has to be true again, by honest work alone."""
        # The first may go on from a page that was changed, and refuse it. The second reads all pages.
        if not any(self._do(outcome, "honest sync", None, lambda: self._run.sync("full")) for _ in range(2)):
            outcome.faults.append(f"stuck: honest syncs fail: {outcome.ended[-1]}")
        if not any(self._night(outcome) for _ in range(NIGHTS)):
            outcome.faults.append("stuck: no honest night found the copy true")
        after = self._copy()
        for table, rows in self._true.items():
            differing = [key for key in {*rows, *after[table]} if rows.get(key) != after[table].get(key)]
            # Of a record that a lie made up a tombstone is left, which `_lose_rows` may delete for good.
            differing = [key for key in differing if _is_live(rows, key) or _is_live(after[table], key)]
            if differing:
                outcome.faults.append(f"stuck: {table} is not as it was: {differing[:5]}")
        self._true = after


def _compared(row: Any) -> Any:
    return {name: value for name, value in row.items() if name not in NOT_COMPARED} if isinstance(row, dict) else row


def _is_live(rows: Mapping, key: Any) -> bool:
    return key in rows and not _is_gone(rows[key])


def _is_gone(row: Any) -> bool:
    return isinstance(row, dict) and bool(row.get("deleted_at") or row.get("is_deleted"))
