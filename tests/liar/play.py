"""One run of the liar: changes, lies by chance at random requests of some verbs, and what has to be true afterwards.

- No verb may take a row out of the copy that lives at the source, green or red (`lost`).
- A night that ends green and confirmed leaves a copy that is true (`false`); one that only scans has planned what is
  wrong (`false plan`).
- No verb may make a true row false (`harmed`).
- Once the lies are over, syncs bring what they bring without a liar (`late`), and a night ends green and confirmed
  (`stuck`).

Two independent witnesses that lie alike can't be seen through. So all lies of a run are told by requests of one family,
which is one witness; a second kind of lie joins in the same family, or in one that is about other records.

What can't be seen through either, since nothing contradicts it:
- A list that shows a row just as the copy has it. Lies about the past (`PAST`) may leave what was true before.
- A list that doesn't show a row which the copy lacks too, and promises no more rows than it shows.
- A record that has changed, read once, with false content and a newer version (`NEWER`): the next night sees it.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from include.confidence.summary import ForensicSummary
from include.warehouse.sync_log import Counts
from tests.liar import lies
from tests.liar.lies import OF_WRITES, WRITES, Telling
from tests.liar.stage import Act, Rows, Stage, differences
from tests.liar.wire import Ask, Asked, Reply

VERBS = ("sync", "scan", "repair", "verify")
# Figures by which a scan counts what it could not tell.
UNKNOWN = ("unconfirmed", "unknown", "unreadable", "uncertain", "rows_refused", "unproven")
PAST = ("stale", "earlier", "lagging", "torn")
NEWER = ("torn", "stranger")
DOSES = ("for good", "once", "some", "about some")


@dataclass(frozen=True)
class Liar:
    """A kind of lie, the family that tells it, and how often.

    `for good`: each request; `once`: each question when it is first asked; `some`: half of the requests by chance;
    `about some`: some questions whenever they are asked.
    """

    kind: str
    family: str
    dose: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.dose}) by {self.family}"


@dataclass(frozen=True)
class Plan:
    """What a seed stands for. `night`: what the night after the syncs does, if there is one.

    `whole`: it scans every entity, else only those that the liars talk of.
    """

    seed: int
    liars: tuple[Liar, ...]
    verbs: tuple[str, ...]
    changed: bool
    synced: bool
    night: str
    whole: bool = True

    def __str__(self) -> str:
        night = f"a night that {'repairs' if self.night == 'repair' else 'scans'}" if self.night else "no night"
        scope = " in part" * (bool(self.night) and not self.whole)
        return f"{' and '.join(map(str, self.liars))}, in {'+'.join(self.verbs)}; {night}{scope}"


@dataclass
class Outcome:
    """How a run has ended: what went wrong with the property (`broken`), and why it was red, if it was."""

    plan: Plan
    told: list[str] = field(default_factory=list)
    green: bool = True
    confirmed: bool = False
    red: str = ""
    broken: dict[str, list[str]] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Heard:
    """What an honest run has asked: families by verb, their questions, and the fields that records always have."""

    families: Mapping[str, Collection[str]]
    questions: Mapping[str, Sequence[Asked]]
    always: Mapping[str, Mapping[str, Collection[str]]]
    honest: Sequence[Outcome]


def listen(stage: Stage) -> Heard:
    """Play honest runs, and keep how they ended and what was asked."""
    families: dict[str, set[str]] = {verb: set() for verb in VERBS}
    questions: dict[str, dict[str, Asked]] = {}
    fields: dict[str, dict[str, list[set[str]]]] = {}
    honest: list[Outcome] = []
    for seed in range(3):
        plan = Plan(seed, (), VERBS, True, True, "repair")
        with stage.act() as act:
            outcome = _Play(act, plan, None, lambda verb, said: families[verb].update(said), questions, fields).play()
        honest.append(outcome)
    always = {
        records: {name: frozenset(set.intersection(*found)) for name, found in lists.items() if len(found) > 2}
        for records, lists in fields.items()
    }
    return Heard(
        {verb: sorted(found) for verb, found in families.items()},
        {family: [asked for _, asked in sorted(found.items())] for family, found in questions.items()},
        always,
        honest,
    )


def draw(stage: Stage, heard: Heard, seed: int) -> Plan:
    """What the seed stands for."""
    random = Random(f"{stage.vendor.source} {seed}")
    night = random.choice(["", "scan", "repair", "repair", "repair"])
    verbs = {"": [("sync",)], "scan": [("scan",), ("sync", "scan")]}.get(
        night, [("scan",), ("scan",), ("sync", "scan"), ("repair",), ("verify",), ("scan", "verify"), VERBS]
    )
    chosen = random.choice([each for each in verbs if any(heard.families[verb] for verb in each)])
    families = sorted({family for verb in chosen for family in heard.families[verb]})

    def liar(family: str) -> Liar:
        return Liar(random.choice(_kinds(stage, family)), family, random.choice(DOSES))

    first = liar(random.choice(families))
    liars = [first]
    if random.random() < 0.25:
        of = stage.vendor.group(first.family)
        others = [each for each in families if each == first.family or stage.vendor.group(each) != of]
        liars.append(liar(random.choice(others)))
    return Plan(seed, tuple(liars), chosen, random.random() < 0.8, random.random() < 0.6, night, random.random() < 0.3)


def _kinds(stage: Stage, family: str) -> list[str]:
    """The lies that can be told by a family; only Flex is written to."""
    if stage.vendor.source == "flex" and not family.startswith("GET"):
        return sorted({*WRITES, *OF_WRITES})
    return sorted(stage.vendor.kinds.keys() - WRITES.keys())


def play(stage: Stage, heard: Heard, seed: int) -> Outcome:
    """Play the run of a seed."""
    plan = draw(stage, heard, seed)
    with stage.act() as act:
        return _Play(act, plan, heard).play()


class _Play:
    def __init__(
        self, act: Act, plan: Plan, heard: Heard | None, said: Any = None, questions: Any = None, fields: Any = None
    ):
        self.act, self.plan, self.heard = act, plan, heard
        self.stage, self.wire, self.account = act.stage, act.stage.wire, act.account
        self.random = Random(f"{act.stage.vendor.source} {plan.seed} changes")
        self.outcome = Outcome(plan)
        self.counts: Counter[str] = Counter()
        self.earlier: dict[str, list[Reply]] = {}
        self.told_by: dict[str, list[str]] = {verb: [] for verb in VERBS}
        self._said, self._questions, self._fields = said, questions, fields

    def play(self) -> Outcome:
        about = self._about()
        self.before = self.account.truth(), self.account.live()
        steps = self.account.change(self.random, about) if self.plan.changed else []
        changed = [str(mutation) for step in steps for mutation in step]
        self.outcome.story += changed + self.account.spoil(self.random, about, 4 if self.heard else 12)
        if any(liar.kind == "filtered" for liar in self.plan.liars):
            self.stage.build("filtered", [*steps, *self.account.hide(self.random, about)])
        self.truth = self.account.truth()
        if "sync" in self.plan.verbs or self.plan.synced:
            self._sync()
        if self.plan.night:
            self._night(repair=self.plan.night == "repair", lying=True)
        if self.heard and self.outcome.told and self.random.random() < 0.3:
            self._afterwards()
        return self.outcome

    def _about(self) -> Collection[str]:
        """The entities that the first liar talks of; all where nobody lies."""
        vendor, liars = self.stage.vendor, self.plan.liars
        return vendor.entities(liars[0].family) if liars else [entity.name for entity in self.account.source.entities]

    def _sync(self) -> None:
        for _ in range(self.random.choice([1, 1, 2])):
            if self._do("sync", self.act.run.sync) is None:
                return

    def _night(self, *, repair: bool, lying: bool) -> bool:
        """A night; whether it ended green and confirmed. What it proves is checked then."""
        run, before = self.act.run, self.account.live()
        self._lying = lying
        self.shown: dict[str, set[str]] = {}
        self.promised: Counter[str] = Counter()
        scans = self._do("scan", self._scan)
        if scans is None:
            run.resume()
            return False
        if incomplete := [scan.incomplete for scan in scans if scan.incomplete]:
            self._red(f"scan incomplete: {incomplete[0]}")
            run.resume()
            return False
        planned = sum(sum(vars(scan.plan).values()) for scan in scans)
        if not repair:
            run.resume()
            return self._checked_plan(scans, before)
        counts: Mapping[str, Counts] = {}
        if planned:
            applied = self._do("repair", lambda: self._repair(scans))
            if applied is None:
                run.resume()
                return False
            sync_id, counts = applied
            checks = self._do("verify", lambda: run.verify(scans, sync_id))
            if checks is None:
                run.resume()
                return False
            if worse := [check for check in checks if check.worse]:
                self._red(f"verify worse: {worse[0]}")
                run.resume()
                return False
        run.resume()
        if doubt := self._doubt(scans, counts):
            self.outcome.story.append(f"not confirmed: {doubt}")
            self.outcome.confirmed = False
            return False
        self.outcome.confirmed = True
        wrong = self._wrong(self.account.live(), scans)
        self._break("false", wrong + (self.account.unsound() if len(scans) == len(run.source.entities) else []))
        return True

    def _scan(self) -> list[ForensicSummary]:
        if self.plan.whole or not self._lying:
            return self.act.run.scan()
        return [self.act.run.scan_one(name) for name in self._about()]

    def _wrong(self, copy: Rows, scans: Sequence[ForensicSummary]) -> list[str]:
        """What of that which was scanned isn't true, and could be seen."""
        young, scanned = self.account.young(), {scan.entity for scan in scans}
        entities = [entity for entity in self.account.source.entities if entity.name in scanned]
        tables = {table for entity in entities for table in self._tables(entity)}
        past = any(kind in PAST for kind in self.told_by["scan"])
        return differences(
            {table: rows for table, rows in self.truth.items() if table in tables},
            copy,
            lambda table, key: (
                (table, key) in young
                or (past and self._as_before(table, key, copy))
                or (key not in copy[table] and self._hidden(table, key))
            ),
        )

    def _as_before(self, table: str, key: Any, copy: Rows) -> bool:
        """Whether source and copy agreed before the change on what the copy has now."""
        truth, live = self.before
        if self.account.copy_is_theirs:
            return live[table].get(key) == self.truth[table].get(key)
        return truth[table].get(key) == copy[table].get(key)

    def _hidden(self, table: str, key: Any) -> bool:
        """Whether no answer of the scan has shown the row, nor any list has promised more than it showed."""
        name = self.account.name_of(table, key)
        if not self.told_by["scan"] or name is None or any(name in shown for shown in self.shown.values()):
            return False
        return not any(promised > len(self.shown[family]) for family, promised in self.promised.items())

    def _tables(self, entity: Any) -> list[str]:
        return [table.name for table in getattr(entity, "tables", ())] or list(self.truth)

    def _repair(self, scans: Sequence[ForensicSummary]) -> Any:
        return self.act.run.repair(scans)

    def _checked_plan(self, scans: Sequence[ForensicSummary], copy: Rows) -> bool:
        """A scan that could tell of every row has planned what is wrong."""
        if doubt := self._doubt(scans, {}):
            self.outcome.story.append(f"not confirmed: {doubt}")
            return False
        self.outcome.confirmed = True
        wrong = self._wrong(copy, scans)
        planned = sum(sum(vars(scan.plan).values()) for scan in scans)
        if planned < len(wrong):
            self._break("false plan", [f"{planned} changes are planned, {len(wrong)} rows are wrong", *wrong])
        return True

    def _doubt(self, scans: Sequence[ForensicSummary], counts: Mapping[str, Counts]) -> str:
        """Why a green night confirms nothing."""
        for scan in scans:
            for name in UNKNOWN:
                if scan.figures.get(name):
                    return f"{scan.entity} has {scan.figures[name]} {name}"
            for table, account in scan.accounts.items():
                if account.not_proven or account.refused:
                    return f"{table}: {account}"
        left = sum(count.superseded + count.failed for count in counts.values())
        entities = {table for scan in scans for table in scan.accounts}
        (remembered,) = self.act.conn.execute(
            "SELECT count(*) FROM confidence.unproven WHERE source = %s AND entity = ANY (%s)",
            [self.stage.vendor.source, sorted(entities)],
        ).fetchone()
        return f"{left} left alone" if left else f"{remembered} unproven" if remembered else ""

    def _afterwards(self) -> None:
        """The lies are over."""
        self.wire.lying = None
        self._lying = False
        self.told_by = {verb: [] for verb in VERBS}
        self.account.release(self.act.run)
        if "sync" in self.plan.verbs:
            self.outcome.story.append("afterwards an honest sync")
            if self._do("sync", self.act.run.sync) is None:
                self._break("stuck", [f"an honest sync fails: {self.outcome.red}"])
                return
        for _ in range(2):
            self.outcome.story.append("afterwards an honest night")
            if self._night(repair=True, lying=False):
                return
        self._break("stuck", [f"no honest night was confirmed: {self.outcome.story[-1]}, {self.outcome.red}"])

    _lying = True

    def _do(self, verb: str, work: Any) -> Any:
        """Do it, with lies if it is their turn; None where it ended in an error. Then nothing may be lost or harmed."""
        before = self.account.live()
        telling = bool(self.heard) and self._lying and verb in self.plan.verbs
        self.wire.lying = self._lie if telling else None
        self._verb = verb
        if self._said:
            self.wire.heard = []
        result = None
        try:
            result = work()
            self.outcome.story.append(f"{verb} green")
        except Exception as error:
            self._red(f"{verb}: {type(error).__name__}: {error}")
        finally:
            self.wire.lying = None
            if self._said:
                self._keep(verb)
        self._unharmed(verb, before)
        return result

    def _unharmed(self, verb: str, before: Rows) -> None:
        after = self.account.live()
        lost, harmed = [], []
        for table, rows in before.items():
            for key, row in rows.items():
                if key not in self.truth[table]:
                    continue
                if key not in after[table]:
                    lost.append(f"{verb}: {table} {key}")
                elif row == self.truth[table][key] != after[table][key]:
                    harmed.append(f"{verb}: {differences({table: {key: row}}, {table: {key: after[table][key]}})[0]}")
        self._break("lost", lost)
        if not any(kind in NEWER for kind in self.outcome.told):
            self._break("harmed", harmed)

    def _red(self, why: str) -> None:
        self.outcome.green = self.outcome.confirmed = False
        self.outcome.red = why
        self.outcome.story.append(f"red, {why}")

    def _break(self, what: str, lines: list[str]) -> None:
        if lines:
            self.outcome.broken.setdefault(what, []).extend(lines)
            self.outcome.story.append(f"BROKEN {what}: {lines[:6]}")

    async def _lie(self, asked: Asked, ask: Ask) -> Reply:
        family = self.stage.vendor.family(asked)
        place = f"{asked.identity} {asked.place}"
        count = self.counts[place]
        self.counts[place] += 1
        meant = [
            (number, liar)
            for number, liar in enumerate(self.plan.liars)
            if liar.family == family and self._struck(liar, number, place, count)
        ]
        # Of lies about a write there is one, since it is done once.
        writes = [(number, liar) for number, liar in meant if liar.kind in WRITES][:1]
        reply = None if writes else await ask()
        truth = reply
        for number, liar in writes or meant:
            telling = Telling(
                random=Random(f"{self.plan.seed} {number} {place} {count}"),
                of_run=Random(f"{self.plan.seed} {number}"),
                asked=asked,
                ask=ask,
                earlier=self.earlier.get(place, ()),
                others=self.heard.questions[family],
                always=self.heard.always.get(self.stage.vendor.records(family), {}),
                count=count,
                first_page=self.stage.vendor.first_page,
            )
            false = await self.stage.vendor.kinds[liar.kind](telling, reply)
            if reply is None or false != reply:
                self.outcome.told.append(liar.kind)
                self.told_by[self._verb].append(liar.kind)
                was = f"{_brief(reply)} -> " if reply else ""
                self.outcome.story.append(f"  lie {liar.kind} at {asked}: {was}{_brief(false)}")
            reply = false
        if truth:
            self.earlier.setdefault(place, []).append(truth)
        if self._verb == "scan":
            rows = lies.rows_of(reply.data) or lies.records_of(reply.data)
            self.shown.setdefault(family, set()).update(map(lies.key_of, rows))
            self.promised[family] = max(self.promised[family], lies.promised(reply.data))
        return reply

    def _struck(self, liar: Liar, number: int, place: str, count: int) -> bool:
        match liar.dose:
            case "once":
                return count == 0
            case "some":
                return Random(f"{self.plan.seed} {number} {place} {count} strikes").random() < 0.6
            case "about some":
                return Random(f"{self.plan.seed} {number} {place} is meant").random() < 0.6
        return True

    def _keep(self, verb: str) -> None:
        heard, self.wire.heard = self.wire.heard, None
        self._said(verb, {self.stage.vendor.family(asked) for asked, _ in heard})
        for asked, reply in heard:
            family = self.stage.vendor.family(asked)
            self._questions.setdefault(family, {})[asked.identity] = asked
            for name, records in lies.by_list(reply.data):
                kept = self._fields.setdefault(self.stage.vendor.records(family), {}).setdefault(name, [])
                kept += [{field for field, value in record.items() if value not in (None, "")} for record in records]


def _brief(reply: Reply) -> str:
    text = reply.body.decode(errors="replace")
    rows = lies.rows_of(reply.data)
    size = f"{len(rows)} rows " if rows is not None else ""
    return f"{reply.status} {size}{text if len(text) <= 160 else text[:100] + ' ... ' + text[-60:]}"


def failure(source: str, outcome: Outcome) -> str:
    """What a person needs to see what went wrong, and to see it again."""
    broken = "\n".join(f"  {what}: {line}" for what, lines in outcome.broken.items() for line in lines[:10])
    story = "\n".join(f"  {line}" for line in outcome.story)
    return (
        f"seed {outcome.plan.seed} of {source}: {outcome.plan}\n{broken}\n{story}\n"
        f"To play it again: make liar SOURCE={source} SEED={outcome.plan.seed}"
    )
