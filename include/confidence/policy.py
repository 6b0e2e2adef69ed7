"""The gate: is a scan's drift worse than in the runs before, and what follows from that? Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import islice, takewhile
from statistics import median

from include.confidence.account import Account
from include.confidence.summary import ForensicSummary

# How many good runs a baseline is the median of.
BASELINE_RUNS = 5

# Growth: the level is the median of a week of runs, so that neither a single run nor the day of the week moves it.
LEVEL_RUNS = 7
# How many runs, the present one among them, the lowest level is looked for in: six weeks of nights.
GROWTH_RUNS = 42
# Growth that was warned of in so many of so many runs before holds if it still goes on.
WARNED_RUNS, OF_RUNS = 7, 14


class Verdict(StrEnum):
    """What the gate says of a scan."""

    PASS = "pass"
    WARN = "warn"
    HOLD = "hold"


# From harmless to serious. A gate that had nothing to judge is as harmless as one that passed.
SEVERITY: dict[Verdict | None, int] = {None: 0, Verdict.PASS: 0, Verdict.WARN: 1, Verdict.HOLD: 2}

KEPT = "the writer is kept stopped until a decision"
# What growth means and what to do about it.
MEND = (
    "A few more rows differ every night and nothing puts them right: find what the examples of this scan have in"
    " common, mend the cause, and repair"
)


@dataclass(frozen=True)
class PastRun:
    """An earlier judged scan of the same source, entity and scope.

    `accepted`: a person decided to resume, so its figures are the new normal. `held`: its hold is still open.
    `scanned_at` is told to people and judged by nothing.
    """

    scan_id: str
    metrics: Mapping[str, int | None]
    verdict: Verdict
    worse: tuple[str, ...]
    accepted: bool
    held: bool = False
    scanned_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Gate:
    """One figure against its limit. `verdict` is None where the scan did not measure the figure.

    `limit` is the highest value that still passes; None while there is no baseline to draw it from.
    """

    metric: str
    baseline: float | None
    limit: float | None
    value: int | None
    verdict: Verdict | None
    reason: str | None = None


@dataclass(frozen=True)
class Judgement:
    """The worst verdict of all gates, the metrics above their limits, and a line for each thing worth saying.

    The lines that matter most come first.
    """

    verdict: Verdict
    worse: tuple[str, ...]
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class Trend:
    """`metric` must not rise above its baseline by more than both a relative and an absolute margin.

    The absolute margin is the larger of `absolute` rows and `share` of the live rows looked at. Worse once warns. Worse
    again in the next run holds, and so does being worse at all while a hold is open.
    """

    metric: str
    relative: float = 0.10
    absolute: int = 25
    share: float = 0.001

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        value = summary.metrics.get(self.metric)
        baseline = _baseline(self.metric, history)
        if value is None:
            return [Gate(self.metric, _number(baseline), None, None, None)]
        if baseline is None:
            reason = f"{self.metric} is {value}: no earlier good run to compare with, baseline set"
            return [Gate(self.metric, None, None, value, Verdict.PASS, reason)]
        limit = baseline + self.margin(baseline, summary)
        if value <= limit:
            return [Gate(self.metric, _number(baseline), _number(limit), value, Verdict.PASS)]
        verdict, consequence = self._consequence(history)
        above = f"{self.metric} is {value}, above its limit {_text(limit)} (baseline {_text(baseline)})"
        return [Gate(self.metric, _number(baseline), _number(limit), value, verdict, f"{above}: {consequence}")]

    def margin(self, baseline: Decimal | int, summary: ForensicSummary) -> Decimal:
        """By how much the metric may rise above the baseline."""
        return max(baseline * _exact(self.relative), Decimal(self.absolute), summary.live_rows * _exact(self.share))

    def _consequence(self, history: Sequence[PastRun]) -> tuple[Verdict, str]:
        before = history[0]
        if before.held:
            return Verdict.HOLD, f"the hold of scan {before.scan_id} stays, {KEPT}"
        if self.metric in before.worse and not before.accepted:
            return Verdict.HOLD, f"worse in two consecutive runs, {KEPT}"
        return Verdict.WARN, "worse once, a worse next run will hold the writer"


@dataclass(frozen=True)
class Growth:
    """`metric` must not rise night after night, however little it rises in each.

    Its level is the median of the last 7 runs. The metric grows if its level is above the lowest of the last 42 runs
    by more than a margin and is the highest since then, and the last two runs are not below it. The margin is the
    largest of `relative` times the lowest level, `absolute` rows, and `share` of the live rows looked at. A metric that
    only varies, by 10 rows or 10 % to either side, stays within it.

    Growth warns. If it still goes on after warnings in 7 of the last 14 runs it holds, and then until the metric has
    fallen back. Jumps are left to Trend: a run in which it found the metric worse is no part of a level.
    """

    metric: str
    relative: float = 0.20
    absolute: int = 20
    share: float = 0.0005

    @property
    def name(self) -> str:
        return f"growth.{self.metric}"

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        value = summary.metrics.get(self.metric)
        runs = list(islice(_good_runs(self.metric, history), GROWTH_RUNS - 1))
        if len(runs) < LEVEL_RUNS:
            return []
        if value is None:
            return [Gate(self.name, None, None, None, None)]
        figures = [value, *(run.metrics[self.metric] for run in runs)]
        levels = _levels(figures)
        lowest = levels.index(min(levels))
        if self._held(history[0]):
            rise = max(value - levels[lowest], 0)
        else:
            rise = levels[0] - levels[lowest] if _rising(figures, levels[: lowest + 1]) else 0
        limit = self.margin(levels[lowest], summary)
        if rise <= limit:
            return [Gate(self.name, None, _number(limit), rise, Verdict.PASS)]
        verdict, consequence = self._consequence(history, f"from {levels[lowest]} to {levels[0]}")
        # The run in the middle of the week whose median is the lowest.
        since = runs[lowest + LEVEL_RUNS // 2 - 1]
        reason = f"{rise} more rows than {_when(since)} ({self.metric}): {consequence}. {MEND}"
        return [Gate(self.name, None, _number(limit), rise, verdict, reason)]

    def margin(self, lowest: int, summary: ForensicSummary) -> Decimal:
        """By how many rows the level may rise above the lowest."""
        return max(lowest * _exact(self.relative), Decimal(self.absolute), summary.live_rows * _exact(self.share))

    def _held(self, before: PastRun) -> bool:
        return before.verdict is Verdict.HOLD and self.name in before.worse and not before.accepted

    def _consequence(self, history: Sequence[PastRun], change: str) -> tuple[Verdict, str]:
        if self._held(history[0]):
            return Verdict.HOLD, f"it has not fallen back since the hold of scan {history[0].scan_id}, {KEPT}"
        warned = sum(self.name in run.worse for run in takewhile(_not_accepted, history[:OF_RUNS]))
        grown = f"the median of {LEVEL_RUNS} runs has grown {change} and still grows"
        if warned >= WARNED_RUNS:
            return Verdict.HOLD, f"{grown} after {warned} warnings, {KEPT}"
        return Verdict.WARN, f"{grown} (warning {warned + 1}, after {WARNED_RUNS} in {OF_RUNS} runs the writer is held)"


@dataclass(frozen=True)
class Limit:
    """`metric` above `share` of the metric `of`, and above `min_rows` rows, holds at once, on a first run too.

    `message` says what that most likely means. A level that a person has accepted holds again only when the
    metric rises above it by as much again; without that, every night after the decision would hold.
    """

    metric: str
    of: str
    share: float
    min_rows: int = 0
    message: str = field(kw_only=True)

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        value, whole = summary.metrics.get(self.metric), summary.metrics.get(self.of)
        baseline = _baseline(self.metric, history)
        if value is None or whole is None:
            return [Gate(self.metric, _number(baseline), None, value, None)]
        limit = max(Decimal(self.min_rows), whole * _exact(self.share))
        if any(run.accepted for run in history) and baseline is not None and baseline > limit:
            limit += baseline
        if value <= limit:
            return [Gate(self.metric, _number(baseline), _number(limit), value, Verdict.PASS)]
        above = f"{self.metric} is {value} of {whole} {self.of}, above its limit {_text(limit)}"
        return [
            Gate(
                self.metric,
                _number(baseline),
                _number(limit),
                value,
                Verdict.HOLD,
                f"{above}: {self.message}",
            )
        ]


@dataclass(frozen=True)
class RepairShare:
    """A repair that would delete or change more than `min_rows` rows and a share of the live rows looked at holds.

    To change means to update. Inserts overwrite nothing and a rollback takes them back without loss; counting
    them would hold every first repair into an empty copy. Rows that the copy lacks are a metric's business.

    A decision to resume does not accept a mass change: were it accepted, the next nightly run would apply it
    unattended. It holds again for as long as the plan is that large.
    """

    delete: float = 0.05
    change: float = 0.20
    min_rows: int = 20

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        return [
            self._gate("delete", summary.plan.delete, self.delete, summary.live_rows),
            self._gate("update", summary.plan.update, self.change, summary.live_rows),
        ]

    def _gate(self, action: str, rows: int, share: float, live_rows: int) -> Gate:
        limit = max(Decimal(self.min_rows), live_rows * _exact(share))
        if rows <= limit:
            return Gate(f"plan.{action}", None, _number(limit), rows, Verdict.PASS)
        reason = (
            f"the repair would {action} {rows} of {live_rows} live rows looked at, above its limit {_text(limit)}: "
            f"not applied, {KEPT}"
        )
        return Gate(f"plan.{action}", None, _number(limit), rows, Verdict.HOLD, reason)


@dataclass(frozen=True)
class Unproven:
    """Rows that could not be proven: every entity is judged by it.

    Those that more than one night could not prove warn, with their ids. If more than `share` of a table's rows are
    unproven in one scan, and more than `min_rows` (or half of a smaller table), that scan is no evidence.
    """

    metric: str = "unproven_overdue"
    share: float = 0.10
    min_rows: int = 20

    def too_many(self, count: int, rows: int) -> bool:
        """Whether so many of a table's rows say more about the scan than about themselves."""
        return count > max(self.share * rows, min(self.min_rows, rows / 2))

    def no_evidence(self, accounts: Mapping[str, Account]) -> str:
        """Why a scan with these accounts, by table, proves nothing; empty if it is evidence."""
        for table, account in accounts.items():
            if account.wrong_sum:
                return f"{table}: {account.wrong_sum}. Some rows were not accounted for, so the scan is no evidence"
            # A list's total may be wrong by itself, and never fails a scan.
            if self.too_many(account.not_proven - account.unseen, account.rows - account.unseen):
                return (
                    f"{table}: {account.not_proven} of {account.rows} rows could not be proven, too many for the scan"
                    " to be evidence; confidence.unproven names each with the reason"
                )
        return ""

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        overdue = summary.metrics.get(self.metric)
        if not overdue:
            return [Gate(self.metric, None, 0, overdue, None if overdue is None else Verdict.PASS)]
        ids = ", ".join(map(str, summary.examples.get("unproven_examples", [])[:10]))
        reason = (
            f"{overdue} rows could not be proven for more than one night ({self.metric}), those that wait longest:"
            f" {ids}. Nobody knows whether the copy has them right; confidence.unproven says why of each"
        )
        return [Gate(self.metric, None, 0, overdue, Verdict.WARN, reason)]


Policy = Trend | Growth | Limit | RepairShare | Unproven


def worst_verdict(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """Return the most serious of the verdicts; None if nothing was judged."""
    return max((verdict for verdict in verdicts if verdict is not None), key=SEVERITY.__getitem__, default=None)


def judge(summary: ForensicSummary, history: Sequence[PastRun], policies: Sequence[Policy]) -> Judgement:
    """Judge a scan against `history`: its source, entity and scope, newest first, without the scan itself."""
    gates = tuple(_or_held(gate, history) for policy in policies for gate in policy.gates(summary, history))
    by_severity = sorted(gates, key=lambda gate: SEVERITY[gate.verdict], reverse=True)
    worse = dict.fromkeys(gate.metric for gate in gates if SEVERITY[gate.verdict])
    verdicts = [Verdict.PASS, *(gate.verdict for gate in gates if gate.verdict)]
    # Who has to act reads what is wrong, not what has no baseline yet.
    serious = tuple(gate.reason for gate in by_severity if gate.reason and SEVERITY[gate.verdict])
    return Judgement(
        verdict=max(verdicts, key=SEVERITY.__getitem__),
        worse=tuple(worse),
        reasons=serious or tuple(gate.reason for gate in by_severity if gate.reason),
        gates=gates,
    )


def _or_held(gate: Gate, history: Sequence[PastRun]) -> Gate:
    """The gate; if its figure was not measured and the run before is held for it, a hold."""
    if gate.verdict or not (history and history[0].held and gate.metric in history[0].worse):
        return gate
    reason = f"{gate.metric} was not measured: the hold of scan {history[0].scan_id} stays, {KEPT}"
    return replace(gate, verdict=Verdict.HOLD, reason=reason)


def _levels(figures: Sequence[int]) -> list[int]:
    """The median of each week of runs, in their order."""
    weeks = range(len(figures) - LEVEL_RUNS + 1)
    return [sorted(figures[first : first + LEVEL_RUNS])[LEVEL_RUNS // 2] for first in weeks]


def _rising(figures: Sequence[int], levels: Sequence[int]) -> bool:
    """Whether the newest level is the highest of all, and the last two figures have not fallen below it."""
    return min(figures[:2]) >= levels[0] > max(levels[1:], default=levels[0])


def _when(run: PastRun) -> str:
    return f"on {run.scanned_at:%Y-%m-%d}" if run.scanned_at else f"in scan {run.scan_id}"


def _baseline(metric: str, history: Sequence[PastRun]) -> Decimal | None:
    """The median of the metric in the newest good runs."""
    newest = [Decimal(run.metrics[metric]) for run in islice(_good_runs(metric, history), BASELINE_RUNS)]
    return median(newest) if newest else None


def _good_runs(metric: str, history: Sequence[PastRun]) -> Iterator[PastRun]:
    """The runs that a later figure may be compared with, newest first, back to the newest that a person accepted.

    They measured the metric, it was not worse, and nothing held them.
    """
    for run in history:
        good = run.accepted or (run.verdict is not Verdict.HOLD and metric not in run.worse)
        if good and run.metrics.get(metric) is not None:
            yield run
        if run.accepted:
            return


def _not_accepted(run: PastRun) -> bool:
    return not run.accepted


def _exact(share: float) -> Decimal:
    """A share as it is written: in binary, 10 * 1.1 is a little more than 11, and borders are exact."""
    return Decimal(str(share))


def _number(figure: Decimal | None) -> float | None:
    return None if figure is None else float(figure)


def _text(figure: Decimal) -> str:
    return f"{figure.normalize():f}"
