"""One run of the liar: changes, lies by chance at random requests of some verbs, and what has to be true afterwards.

- No verb may take a row out of the copy that lives at the source, green or red (`lost`).
- A night that ends green and confirmed leaves a copy that is true (`false`); one that only scans has planned what is
  wrong (`false plan`).
- No verb may make a true row false that has not changed at the source (`harmed`).
- Once the lies are over, a sync brings what they kept from it (`late`), and a night ends green and confirmed (`stuck`).

Two independent witnesses that lie alike can't be seen through. So all lies of a run are told by requests of one family,
which is one witness; a second kind of lie joins in the same family, or in one that is about other records.

What can't be seen through either, since nothing contradicts it:

- A list that shows a row just as the copy has it. Lies about the past (`PAST`) may leave what was true before; so may a
  stranger's answer, whose account began as this one did; and a record that is torn or mistyped alike for sync and scan.
- A list that doesn't show a row which the copy lacks too, or has as deleted, and promises no more rows than the scan
  was shown; or that shows a record without a row inside it which the copy lacks too.
- A record that a sync read once, with false content and a newer version (`NEWER`), or with false rows inside a record
  that has changed: the next night sees it.
- A record that one address alone shows, if that says the same false thing to both looks; or that is gone, and that its
  own address goes on to show.
- A record that a list shows to sync and scan with the same false content.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.confidence import holds, unproven
from include.confidence.summary import ForensicSummary
from include.warehouse.fence import FenceError
from include.warehouse.sync_log import Counts
from tests.liar import lies
from tests.liar.lies import WRITES, Telling
from tests.liar.plan import VERBS, Heard, Liar, Plan, draw
from tests.liar.stage import Act, Key, Rows, Stage, differences
from tests.liar.wire import Ask, Asked, Reply

# Figures by which a scan counts what it could not tell.
UNKNOWN = ("unknown", "unreadable", "uncertain", "rows_refused", "unproven")
PAST = frozenset({"stale", "earlier", "lagging", "torn"})
# The vendor itself does harm by them, whatever it was asked for.
HARMS = frozenset({"misplaced"})
# An id of another type is null in the copy, and kept in `extra`.
MIXED = frozenset({"torn", "mistyped"})
NEWER = frozenset({"torn", "stranger", "redated"})
HONEST_RUNS = 3
# The share of runs that go on after the lies.
AFTERWARDS = 0.25
# Differences in the copy that a run begins with at most; an honest one with more, so that more is asked.
SPOILT, SPOILT_TO_LISTEN = 4, 12


@dataclass
class Outcome:
    """How a run has ended.

    `told`: the kinds of the lies, one each time. `red`: why it was, or "". `confirmed`: whether the night was green and
    could tell of every row. `broken`: the rows for which the property doesn't hold, by its part.
    """

    plan: Plan
    told: list[str] = field(default_factory=list)
    red: str = ""
    confirmed: bool = False
    broken: dict[str, list[str]] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)

    def breaks(self, what: str, lines: Sequence[str]) -> None:
        if lines:
            self.broken.setdefault(what, []).extend(lines)
            self.story.append(f"BROKEN {what}: {'; '.join(lines[:5])}")

    def message(self, source: str) -> str:
        """What a person needs to see what went wrong, and to see it again."""
        broken = [f"  {what}: {line}" for what, lines in self.broken.items() for line in lines[:10]]
        return "\n".join(
            [
                f"seed {self.plan.seed} of {source}: {self.plan}",
                *broken,
                *(f"    {line}" for line in self.story),
                f"To play it again: make liar SOURCE={source} SEED={self.plan.seed}",
            ]
        )


def listen(stage: Stage) -> tuple[Heard, list[Outcome]]:
    """Play honest runs; return what was asked in them, and how they ended."""
    families: dict[str, set[str]] = {verb: set() for verb in VERBS}
    questions: dict[str, dict[str, Asked]] = defaultdict(dict)
    always: dict[str, dict[str, list[set[lies.Field]]]] = defaultdict(lambda: defaultdict(list))

    def keep(verb: str, asked: Asked, reply: Reply) -> None:
        family = stage.vendor.family(asked)
        families[verb].add(family)
        questions[family][asked.identity] = asked
        for name, records in lies.by_list(reply.data):
            always[stage.vendor.records(family)][name] += map(lies.filled, records)

    outcomes = [_played(stage, Plan(seed), None, keep) for seed in range(HONEST_RUNS)]
    heard = Heard(
        {verb: sorted(found) for verb, found in families.items()},
        {family: [asked for _, asked in sorted(found.items())] for family, found in questions.items()},
        {
            records: {name: frozenset(set.intersection(*found)) for name, found in named.items() if len(found) > 2}
            for records, named in always.items()
        },
    )
    return heard, outcomes


def play(stage: Stage, heard: Heard, seed: int) -> Outcome:
    """Play the run of a seed."""
    return _played(stage, draw(stage.vendor, heard, seed), heard)


def _played(stage: Stage, plan: Plan, heard: Heard | None, keep: Callable[..., None] | None = None) -> Outcome:
    with stage.act() as act:
        return _Run(act, plan, heard, keep).play()


class _Run:
    """`heard` is None for an honest run; then `keep` is given what is asked and answered."""

    def __init__(self, act: Act, plan: Plan, heard: Heard | None, keep: Callable[..., None] | None) -> None:
        self._stage, self._wire, self._vendor = act.stage, act.stage.wire, act.stage.vendor
        self._account, self._run, self._conn = act.account, act.run, act.conn
        self._plan, self._heard, self._keep = plan, heard, keep
        self._outcome = Outcome(plan)
        self._telling = _Telling(self._stage, plan, heard, self._outcome)
        self._random = plan.random("run")
        if not plan.whole:
            self._account.narrow(self._about())
        self._before = act.account.truth(), act.account.live()
        self._truth: Rows = {}

    def play(self) -> Outcome:
        self._change()
        if "sync" in self._plan.verbs or self._plan.synced:
            for _ in range(self._random.choice([1, 1, 1, 2])):
                self._do("sync", self._run.sync)
        if self._plan.night:
            self._outcome.confirmed = self._night(self._plan.night)
        if self._outcome.told and self._random.random() < AFTERWARDS:
            self._afterwards()
        return self._outcome

    def _change(self) -> None:
        """Changes at the source, and in the copy, mostly of what the liars talk of."""
        random, about, outcome = self._plan.random("changes"), self._about(), self._outcome
        steps = self._account.change(random, about) if self._plan.changed else []
        outcome.story += [str(mutation) for step in steps for mutation in step]
        outcome.story += self._account.spoil(random, about, SPOILT if self._heard else SPOILT_TO_LISTEN)
        if any(liar.kind == "filtered" for liar in self._plan.liars):
            self._stage.build("filtered", [*steps, *self._account.hide(random, about)])
        self._truth, self._begun = self._account.truth(), self._account.live()

    def _about(self) -> Collection[str]:
        """The entities that the first liar talks of; all where nobody lies."""
        liars, entities = self._plan.liars, self._run.source.entities
        return self._vendor.entities(liars[0].family) if liars else [entity.name for entity in entities]

    def _night(self, kind: str) -> bool:
        """Scan, and repair if the night is of that kind; whether it ended green and could tell of every row."""
        copy = self._account.live()
        scans = self._do("scan", self._run.scan)
        counts = self._repaired(scans) if scans is not None and kind == "repair" else {}
        held = self._held()
        if scans is None or counts is None or held:
            return False
        if doubt := self._doubt(scans, counts):
            self._outcome.story.append(f"not confirmed: {doubt}")
            return False
        if kind == "scan":
            wrong, planned = self._wrong(copy), _planned(scans)
            tables = Counter(line.split()[0] for line in wrong)
            # Elsewhere one change makes a line and its rows here.
            needed = max(tables.values(), default=0) if self._account.copy_is_theirs else len(wrong)
            if planned < needed:
                what = f"{planned} changes are planned, and {needed} are needed"
                self._outcome.breaks("false plan", [what, *wrong])
            return True
        live = self._account.live()
        wrong = self._wrong(live)
        # What is computed of young rows comes with them, of rows that list and copy lack with the next full sync.
        lacking = any(rows.keys() - live.get(table, {}).keys() for table, rows in self._truth.items())
        computed = self._plan.whole and not (self._account.young() or lacking or self._lost_on_both_sides())
        self._outcome.breaks("false", wrong + (self._account.unsound() if computed else []))
        return True

    def _lost_on_both_sides(self) -> bool:
        _, before = self._before
        return any(
            key not in self._begun[table] and key not in self._truth[table]
            for table, rows in before.items()
            for key in rows
        )

    def _held(self) -> bool:
        """Let the writer go on, by a person's word where something holds it; whether it was held."""
        try:
            self._run.resume()
        except FenceError as hold:
            self._red(str(hold))
            holds.decide(self._conn, self._run.source.name, holds.Decision.RESUME, "liar")
            self._run.resume()
            return True
        return False

    def _repaired(self, scans: Sequence[ForensicSummary]) -> Mapping[str, Counts] | None:
        """The counts of a repair that was verified; None where something went wrong."""
        if incomplete := [scan.incomplete for scan in scans if scan.incomplete]:
            return self._red(f"the scan is incomplete: {incomplete[0]}")
        if not _planned(scans):
            return {}
        applied = self._do("repair", lambda: self._run.repair(scans))
        if applied is None:
            return None
        sync_id, counts = applied
        checks = self._do("verify", lambda: self._run.verify(scans, sync_id))
        worse = [check for check in checks or () if check.worse]
        if worse:
            return self._red(f"verify found it worse: {worse[0]}")
        return None if checks is None else counts

    def _doubt(self, scans: Sequence[ForensicSummary], counts: Mapping[str, Counts]) -> str:
        """Why a green night confirms nothing; empty if it does."""
        for scan in scans:
            if scan.incomplete:
                return scan.incomplete
            for name in UNKNOWN:
                if scan.figures.get(name):
                    return f"{scan.entity} has {scan.figures[name]} {name}"
            for table, account in scan.accounts.items():
                if account.not_proven or account.refused:
                    return f"{table}: {account}"
        left = sum(count.superseded + count.failed for count in counts.values())
        if left:
            return f"{left} planned changes were left alone"
        # A repair may leave rows unproven too.
        waiting = unproven.oldest(self._conn, self._run.source.name, 1)
        return str(waiting[0]) if waiting else ""

    def _wrong(self, copy: Rows) -> list[str]:
        """The rows that the scan got wrong although it could have seen the truth."""
        young, kept = self._account.young(), self._account.kept()
        past = (PAST | self._vendor.past | {"stranger"}) & set(self._telling.told["scan"])
        # A newer version that only the scan is told of is contradicted by the second reading, so it is not excused.
        newer = NEWER & set(self._telling.told["sync"])
        alike = MIXED & set(self._telling.told["sync"]) & set(self._telling.told["scan"])

        def excused(table: str, key: Key) -> bool:
            if table in kept and key not in self._truth[table]:
                return True
            if (table, key) in young or (past and self._as_before(table, key, copy)):
                return True
            if newer and self._is_newer(table, key, copy):
                return True
            if alike and self._is_mixture(table, key, copy):
                return True
            if key in copy[table] and self._telling.altered_alike(self._account.name_of(table, key)):
                return True
            if key in copy[table] and key in self._truth[table] and self._is_misled(table, key):
                return True
            name = self._account.name_of(table, key)
            if key in self._before[1][table] and key not in self._truth[table] and self._telling.revived(name):
                return True
            if key not in copy[table] and self._account.is_nested(table) and self._telling.hid_inside(name):
                return True
            return key not in copy[table] and (self._account.has_ended(table, key) or self._telling.hid(key, name))

        return differences(self._truth, copy, excused)

    def _as_before(self, table: str, key: Key, copy: Rows) -> bool:
        """Whether the copy has what the source had before the change."""
        truth, live = self._before
        if self._account.copy_is_theirs:
            return live[table].get(key) == self._truth[table].get(key)
        return truth[table].get(key) == copy[table].get(key)

    def _is_mixture(self, table: str, key: Key, copy: Rows) -> bool:
        """Whether each value of the copy's row is null, or what the source had before the change, or has after it."""
        before, after, found = self._before[0][table].get(key), self._truth[table].get(key), copy[table].get(key)
        if not all(isinstance(row, Mapping) for row in (after, found)):
            return False
        return all(value in (None, (before or after).get(name), after.get(name)) for name, value in found.items())

    def _is_newer(self, table: str, key: Key, copy: Rows) -> bool:
        """Whether the sync was misled into a later version than the source has, or into another account's record."""
        found, true = copy[table].get(key), self._truth[table].get(key)
        if not isinstance(found, Mapping):
            return False
        if "stranger" in self._outcome.told and (true is None or key not in self._begun[table]):
            return key in self._before[0][table]
        versions = [
            name
            for name, value in found.items()
            if true and true[name] and (name == "version" or isinstance(value, datetime))
        ]
        return any(found[name] > true[name] for name in versions)

    def _afterwards(self) -> None:
        """The lies are over."""
        red = self._outcome.red
        self._telling.over()
        self._account.release(self._run)
        if "sync" in self._plan.verbs:
            self._outcome.story.append("afterwards an honest sync")
            if self._do("sync", self._run.sync) is None:
                if not self._account.waits_for_night(self._outcome.red):
                    self._outcome.breaks("stuck", [f"an honest sync fails: {self._outcome.red}"])
            else:
                due, live = self._account.due(), self._account.live()
                newer = NEWER & set(self._outcome.told)

                def excused(table: str, key: Key) -> bool:
                    return (table, key) not in due or (newer and self._is_newer(table, key, live))

                lacking = differences(self._truth, live, excused)
                self._outcome.breaks("late", lacking)
        for _ in range(2):
            self._outcome.story.append("afterwards an honest night")
            if self._night("repair"):
                break
        else:
            self._outcome.breaks("stuck", [f"no honest night was confirmed: {self._outcome.story[-1]}"])
        self._outcome.red = red

    def _do(self, verb: str, work: Callable[[], Any]) -> Any:
        """Do it, with lies if it is their turn; None where it ended in an error. Either way nothing may be harmed."""
        before = self._account.live()
        self._wire.lying = self._telling.of(verb)
        self._wire.heard = [] if self._keep else None
        result = None
        try:
            result = work()
            self._outcome.story.append(f"{verb} is green")
        # Whatever ends a task makes its run red.
        except Exception as error:  # noqa: BLE001
            self._red(f"{verb}: {type(error).__name__}: {error}")
        finally:
            self._wire.lying = None
            if self._wire.mistake:
                raise self._wire.mistake
            for asked, reply in self._wire.heard or ():
                self._keep(verb, asked, reply)
        if HARMS & set(self._telling.told[verb]):
            self._truth = self._account.truth()
        else:
            self._require_unharmed(verb, before)
        return result

    def _require_unharmed(self, verb: str, before: Rows) -> None:
        after = self._account.live()
        lost, harmed = [], []
        # A sync reads a changed record once, with the rows inside it.
        read_once = self._account.due() if verb == "sync" else set()
        for table, rows in before.items():
            for key in rows.keys() & self._truth[table].keys():
                if key not in after[table]:
                    lost.append(f"{verb}: {table} {key}")
                elif (
                    rows[key] == self._truth[table][key] != after[table][key]
                    and (table, key) not in read_once
                    and not self._is_misled(table, key)
                ):
                    harmed.append(
                        f"{verb}: {differences({table: {key: rows[key]}}, {table: {key: after[table][key]}})[0]}"
                    )
        self._outcome.breaks("lost", sorted(lost))
        if not NEWER & set(self._outcome.told):
            self._outcome.breaks("harmed", sorted(harmed))

    def _is_misled(self, table: str, key: Key) -> bool:
        """Whether the only address that shows a row has said the same false thing to both looks at it."""
        return self._account.has_one_witness(table) and self._telling.misled(self._account.name_of(table, key))

    def _red(self, why: str) -> None:
        self._outcome.red = self._outcome.red or why
        self._outcome.story.append(f"red, {why}")


class _Telling:
    """Tells the lies of a plan, and keeps what was shown."""

    def __init__(self, stage: Stage, plan: Plan, heard: Heard | None, outcome: Outcome) -> None:
        self._stage, self._plan, self._heard, self._outcome = stage, plan, heard, outcome
        self._verb = ""
        self._over = heard is None
        self._counts: Counter[str] = Counter()
        self._earlier: dict[str, list[Reply]] = defaultdict(list)
        self.told: dict[str, list[str]] = defaultdict(list)
        # By family and path.
        self._shown: dict[tuple[str, str], set[str]] = defaultdict(set)
        # The names of records that an answer of the scan showed as they are.
        self._shown_true: set[str] = set()
        self._promised: Counter[tuple[str, str]] = Counter()
        # By verb: the names of records that were altered in a list, each with what it was told to be.
        self._altered: dict[str, set[tuple[str, str]]] = defaultdict(set)
        # By verb and path of the question: what was false in its answers.
        self._false: dict[tuple[str, str], list[frozenset[tuple[str, str]]]] = defaultdict(list)

    def of(self, verb: str) -> Callable[[Asked, Ask], Any] | None:
        """What tells the lies of that verb; None where there are none."""
        self._verb = verb
        return None if self._over or verb not in self._plan.verbs else self._lie

    def over(self) -> None:
        """Tell no more lies, and none were told."""
        self._over = True
        self.told.clear()
        self._false.clear()
        self._altered.clear()

    def hid(self, key: Key, name: str | None) -> bool:
        """Whether no answer of the scan has shown that record, and no list of it promised more than it showed."""
        if not self.told["scan"] or name is None or any(name in shown for shown in self._shown.values()):
            return False
        within = {str(part) for part in key[:-1]}
        lists = [place for place in self._promised if within <= set(place[1].split("/"))] or self._promised
        return not any(self._promised[place] > self._shown_of(place[1]) for place in lists)

    def _shown_of(self, path: str) -> int:
        """How many records of a list the scan was shown, by the list or at their addresses below it."""
        below = [shown for (_, each), shown in self._shown.items() if each == path or each.startswith(f"{path}/")]
        return len(set().union(*below))

    def hid_inside(self, name: str | None) -> bool:
        """Whether no answer of the scan has shown that record as it is, so that a row inside it may be hidden."""
        return bool(self.told["scan"]) and name not in self._shown_true

    def revived(self, name: str | None) -> bool:
        """Whether that record's own address has shown it to the scan, though it is gone."""
        return any(name in shown and path.endswith(f"/{name}") for (_, path), shown in self._shown.items())

    def altered_alike(self, name: str | None) -> bool:
        """Whether a list has shown that record to sync and scan with the same false value."""
        return any(name == each for each, _ in self._altered["sync"] & self._altered["scan"])

    def misled(self, name: str | None) -> bool:
        """Whether a step's question about that record was answered twice with the same false values."""
        answers = [false for (_, path), false in self._false.items() if name in path.split("/")]
        return any(len(false) > len(set(false)) for false in answers)

    async def _lie(self, asked: Asked, ask: Ask) -> Reply:
        family, place = self._stage.vendor.family(asked), f"{asked.identity} {asked.place}"
        count = self._counts[place]
        self._counts[place] += 1
        meant = [each for each in enumerate(self._plan.liars) if self._struck(*each, family, place, count)]
        # A write is done once, whatever else is said of it.
        writes = [(number, liar) for number, liar in meant if liar.kind in WRITES][:1]
        truth = reply = None if writes else await ask()
        told: set[str] = set()
        for number, liar in writes or meant:
            telling = Telling(
                random=self._plan.random(number, place, count),
                of_run=self._plan.random(number),
                earlier=tuple(self._earlier[place]),
                asked=asked,
                ask=ask,
                others=self._heard.questions[family],
                elsewhere=self._heard.elsewhere(family),
                always=self._heard.always.get(self._stage.vendor.records(family), {}),
                count=count,
                first_page=self._stage.vendor.first_page,
            )
            false = await self._stage.vendor.kinds(family)[liar.kind](telling, reply)
            if false != reply:
                if reply and reply.is_good and false.is_good:
                    self._keep(asked, reply.data, false.data)
                told.add(liar.kind)
                self.told[self._verb].append(liar.kind)
                self._outcome.told.append(liar.kind)
                self._outcome.story.append(f"  lie {liar.kind} at {asked}: {reply or 'not asked'} -> {false}")
            reply = false
        if truth:
            self._earlier[place].append(truth)
            if self._verb == "scan":
                true = _records(truth)
                self._shown_true.update(lies.key_of(record) for record in _records(reply) if record in true)
        self._see((family, asked.path), reply, astray="astray" in told)
        return reply

    def _keep(self, asked: Asked, true: Any, false: Any) -> None:
        self._false[self._verb, asked.path].append(frozenset(lies.differing(true, false)))
        rows = lies.rows_of(true) or []
        altered = [row for row in lies.rows_of(false) or [] if row not in rows]
        self._altered[self._verb] |= {(lies.key_of(row), repr(row)) for row in altered}

    def _struck(self, number: int, liar: Liar, family: str, place: str, count: int) -> bool:
        random, meant = self._plan.random(number, place, count, "strikes"), self._plan.random(number, place, "is meant")
        return liar.family == family and liar.strikes(random, count, meant)

    def _see(self, place: tuple[str, str], reply: Reply, *, astray: bool) -> None:
        """Keep what a scan was shown. The answer of another list says nothing of this one."""
        if self._verb == "scan" and not astray:
            self._shown[place].update(map(lies.key_of, _records(reply)))
            self._promised[place] = max(self._promised[place], lies.promised(reply.data))


def _records(reply: Reply) -> Sequence[Any]:
    """The records of an answer: the rows of a list, or the one that it is about."""
    return lies.rows_of(reply.data) or lies.records_of(reply.data)


def _planned(scans: Sequence[ForensicSummary]) -> int:
    return sum(sum(vars(scan.plan).values()) for scan in scans)
