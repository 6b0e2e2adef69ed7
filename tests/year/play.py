"""Play the nights of a shop through the product's judgement: its policies, and the runs before as it reads them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from include.confidence.policy import GROWTH_RUNS, SEVERITY, Judgement, PastRun, Policy, Verdict, judge
from include.confidence.summary import ForensicSummary
from tests.year.incidents import Incident
from tests.year.shop import Drift, List, Shop

BEGIN = datetime(2026, 1, 1, 3, tzinfo=UTC)
# An incident that is not told within so many nights counts as never told.
PATIENCE = 30
# So many nights after it is mended must be silent.
AFTERWARDS = 14
FAILED = "incomplete scan"


@dataclass(frozen=True)
class Night:
    """One list's scan and its judgement, which is None if the scan is no evidence: then the run fails."""

    summary: ForensicSummary
    judgement: Judgement | None

    @property
    def severity(self) -> int:
        return SEVERITY[self.judgement.verdict] if self.judgement else SEVERITY[Verdict.HOLD]

    @property
    def worse(self) -> Collection[str]:
        return self.judgement.worse if self.judgement else (FAILED,)


@dataclass(frozen=True)
class Told:
    """What became of an incident, in plain values.

    - `what`: the incident in words
    - `nights`: until it was told; 0 is the same night, None never
    - `policies`: which told it first
    - `after`: nights with a warning or a hold after it was mended, beyond those of a quiet year
    """

    what: str
    kind: str
    loud: bool
    nights: int | None
    policies: Collection[str] = ()
    after: int = 0


@dataclass
class Ledger:
    """A list's nights without incidents, and the history that each night was judged by."""

    table: List
    without: Collection[str] = ()
    nights: list[Night] = field(default_factory=list)
    histories: list[list[PastRun]] = field(default_factory=list)

    @cached_property
    def policies(self) -> list[Policy]:
        return [policy for policy in self.table.policies if not (_kinds(policy) & set(self.without))]

    def play(self) -> "Ledger":
        history: list[PastRun] = []
        for number in range(self.table.shop.nights):
            self.histories.append(history)
            night = self.night(number, history)
            self.nights.append(night)
            # Somebody looks at a false hold, finds nothing, and resumes.
            history = after(night, number, history, accepted=night.severity == SEVERITY[Verdict.HOLD])
        return self

    def night(self, number: int, history: Sequence[PastRun], drift: Drift | None = None, since: int = 0) -> Night:
        summary = self.table.scan(number, drift, since) if drift else self.table.scan(number)
        return Night(summary, None if summary.incomplete else judge(summary, history, self.policies))

    def tell(self, incident: Incident) -> Told:
        """Play the incident until it is told, mend it the next day, and play on for two weeks."""
        begin, drift = first_night(incident), Drift()
        history = self.histories[begin]
        for number in range(begin, begin + PATIENCE):
            drift += incident.added(number)
            night = self.night(number, history, drift, begin)
            history = after(night, number, history)
            if policies := self._which(night.worse, self.nights[number].worse):
                after_it = self._afterwards(number + 1, history)
                return Told(str(incident), incident.kind, incident.loud, number - begin, policies, after_it)
        return Told(str(incident), incident.kind, incident.loud, None)

    def _afterwards(self, begin: int, history: list[PastRun]) -> int:
        false = 0
        for number in range(begin, begin + AFTERWARDS):
            night = self.night(number, history)
            history = after(night, number, history)
            false += night.severity > self.nights[number].severity
        return false

    def _which(self, worse: Iterable[str], before: Collection[str]) -> Collection[str]:
        return sorted({policy_of(self.policies, metric) for metric in worse if metric not in before})


def _kinds(policy: Policy) -> set[str]:
    """The names of its class and of those that it is built on."""
    return {each.__name__ for each in type(policy).__mro__}


def first_night(incident: Incident) -> int:
    """The night in which an incident makes the first row wrong. Small ones make none at the beginning."""
    night = incident.begin
    while incident.added(night) == Drift():
        night += 1
    return night


def after(night: Night, number: int, history: list[PastRun], *, accepted: bool = False) -> list[PastRun]:
    """The history after the night, as the product reads it (`judgements.past_runs`). A failed run leaves nothing."""
    if night.judgement is None:
        return history
    run = PastRun(
        night.summary.scan_id,
        night.summary.metrics,
        night.judgement.verdict,
        night.judgement.worse,
        accepted=accepted,
        planned=night.summary.plan.rows,
        scanned_at=BEGIN + timedelta(days=number),
    )
    return known([run, *history])


def known(history: list[PastRun]) -> list[PastRun]:
    """The runs back to the 42nd good one, and the newest that a person accepted."""
    good = [number for number, run in enumerate(history) if run.verdict is not Verdict.HOLD or run.accepted]
    if len(good) <= GROWTH_RUNS:
        return history
    cut = good[GROWTH_RUNS - 1] + 1
    newest = next((run for run in history if run.accepted), None)
    return history[:cut] + ([newest] if newest and newest not in history[:cut] else [])


def policy_of(policies: Sequence[Policy], metric: str) -> str:
    """The policy whose gate has that name."""
    if metric == FAILED:
        return FAILED
    named = {"plan.delete": "RepairShare", "plan.update": "RepairShare"}
    named |= {getattr(policy, "name", getattr(policy, "metric", "")): type(policy).__name__ for policy in policies}
    return named.get(metric, metric)


@dataclass(frozen=True)
class Year:
    """A source's year. `warned`, `held`: nights so told without an incident, by what told them."""

    source: str
    seed: str
    told: Sequence[Told]
    warned: Sequence[Collection[str]]
    held: Sequence[Collection[str]]


def play(shop: Shop, incidents: Sequence[Incident], without: Collection[str] = ()) -> Year:
    """Play the shop's quiet year, then each incident by itself from its night on."""
    ledgers = {table.name: Ledger(table, without).play() for table in shop.lists}
    told = [ledgers[incident.table.name].tell(incident) for incident in incidents]
    by_severity: dict[int, list[Collection[str]]] = defaultdict(list)
    for number in range(shop.nights):
        nights = [(ledger, ledger.nights[number]) for ledger in ledgers.values()]
        severity = max(night.severity for _, night in nights)
        worse = {policy_of(ledger.policies, metric) for ledger, night in nights for metric in night.worse}
        by_severity[severity].append(sorted(worse))
    return Year(shop.source, shop.seed, told, by_severity[SEVERITY[Verdict.WARN]], by_severity[SEVERITY[Verdict.HOLD]])
