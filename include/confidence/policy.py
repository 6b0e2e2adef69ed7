"""The gate: compare a scan's figures with those of the runs before, and judge them. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import islice, takewhile
from statistics import median

from include.confidence.account import Account
from include.confidence.summary import ForensicSummary

# A baseline is the median of so many good runs.
BASELINE_RUNS = 5

# Growth compares levels. A level is the median of a week of runs, so that one run or the day of the week don't move it.
LEVEL_RUNS = 7
# The lowest level is looked for in so many runs, the present one included: six weeks of nights.
GROWTH_RUNS = 42
# Growth holds if it goes on after warnings in WARNED_RUNS of the last OF_RUNS runs.
WARNED_RUNS, OF_RUNS = 7, 14


class Verdict(StrEnum):
    """The gate's verdict on a scan."""

    PASS = "pass"
    WARN = "warn"
    HOLD = "hold"


# Higher is worse. A gate without a figure to judge counts as one that passed.
SEVERITY: dict[Verdict | None, int] = {None: 0, Verdict.PASS: 0, Verdict.WARN: 1, Verdict.HOLD: 2}

# The examples of a summary that name the declared fields which are lost.
LOST_FIELDS = "lost_fields"

# The first part of the names of the figures of RepairShare.
PLAN = "plan."

KEPT = "the writer is kept stopped until a decision"
# The end of each message about growth: what it means and what to do next.
MEND = (
    "A few more rows differ every night and nothing puts them right: find what the examples of this scan have in"
    " common, mend the cause, and repair"
)


@dataclass(frozen=True)
class PastRun:
    """An earlier judged scan of the same source, entity and scope.

    - `worse`: the metrics that were above their limits
    - `accepted`: a person decided to resume without repair, so its figures are the new baseline
    - `held`: its hold is still open
    - `scanned_at`: for messages only
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
    """One figure of a scan, held against its limit.

    - `baseline`: the figure that it is compared with, None if there is none
    - `limit`: the highest value that still passes, None if it needs a baseline and there is none
    - `value`, `verdict`: None if the scan did not measure the figure
    - `reason`: a sentence for people, None if there is nothing to say
    """

    metric: str
    baseline: float | None
    limit: float | None
    value: int | None
    verdict: Verdict | None
    reason: str | None = None


@dataclass(frozen=True)
class Judgement:
    """What all gates together say of a scan.

    - `verdict`: the worst of the gates
    - `worse`: the metrics above their limits
    - `reasons`: sentences for people, the most serious first
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
        """Return the one gate of this policy; `history` as for `judge`."""
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
        """Return by how many rows the metric may rise above the baseline."""
        return max(baseline * _exact(self.relative), Decimal(self.absolute), summary.live_rows * _exact(self.share))

    def _consequence(self, history: Sequence[PastRun]) -> tuple[Verdict, str]:
        """Return the verdict on a metric above its limit, and the words for it."""
        before = history[0]
        if before.held:
            return Verdict.HOLD, f"the hold of scan {before.scan_id} stays, {KEPT}"
        if self.metric in before.worse and not before.accepted:
            return Verdict.HOLD, f"worse in two consecutive runs, {KEPT}"
        return Verdict.WARN, "worse once, a second time in a row holds the writer"


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
        """The name of its gate's figure."""
        return f"growth.{self.metric}"

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return the one gate of this policy, none while there are too few runs; `history` as for `judge`."""
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
        """Return by how many rows the level may rise above the lowest."""
        return max(lowest * _exact(self.relative), Decimal(self.absolute), summary.live_rows * _exact(self.share))

    def _held(self, before: PastRun) -> bool:
        """Return whether the run before was held for growth of this metric, and nobody has accepted it."""
        return before.verdict is Verdict.HOLD and self.name in before.worse and not before.accepted

    def _consequence(self, history: Sequence[PastRun], change: str) -> tuple[Verdict, str]:
        """Return the verdict on growth above its margin, and the words for it."""
        if self._held(history[0]):
            return Verdict.HOLD, f"it has not fallen back since the hold of scan {history[0].scan_id}, {KEPT}"
        warned = sum(self.name in run.worse for run in takewhile(_not_accepted, history[:OF_RUNS]))
        grown = f"the median of {LEVEL_RUNS} runs has grown {change} and still grows"
        if warned >= WARNED_RUNS:
            return Verdict.HOLD, f"{grown} after {warned} warnings, {KEPT}"
        return Verdict.WARN, f"{grown} (warning {warned + 1}, after {WARNED_RUNS} in {OF_RUNS} runs the writer is held)"


@dataclass(frozen=True)
class Limit:
    """`metric` must not exceed both `share` of the metric `of` and `min_rows` rows. If it does, it holds at once.

    `message` says what that most likely means. After a person has accepted such a figure, the limit rises by that
    figure; otherwise every night after the decision would hold again.
    """

    metric: str
    of: str
    share: float
    min_rows: int = 0
    message: str = field(kw_only=True)

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return the one gate of this policy; `history` as for `judge`."""
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
    """A repair must not delete more than the share `delete` of the live rows looked at, nor update more than `change`.

    Up to `min_rows` rows always pass; more than both holds. Inserts are not limited: they overwrite nothing, a rollback
    takes them back without loss, and every first repair into an empty copy would hold.

    A decision to resume does not accept such a plan. If it did, the next night would apply the plan unattended. The
    gate holds again for as long as the plan is that large.
    """

    delete: float = 0.05
    change: float = 0.20
    min_rows: int = 20

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return two gates, `plan.delete` and `plan.update`. The runs before don't matter."""
        return [
            self._gate("delete", summary.plan.delete, self.delete, summary.live_rows),
            self._gate("update", summary.plan.update, self.change, summary.live_rows),
        ]

    def _gate(self, action: str, rows: int, share: float, live_rows: int) -> Gate:
        limit = max(Decimal(self.min_rows), live_rows * _exact(share))
        if rows <= limit:
            return Gate(f"{PLAN}{action}", None, _number(limit), rows, Verdict.PASS)
        reason = (
            f"the repair would {action} {rows} of {live_rows} live rows looked at, above its limit {_text(limit)}: "
            f"not applied, {KEPT}"
        )
        return Gate(f"{PLAN}{action}", None, _number(limit), rows, Verdict.HOLD, reason)


@dataclass(frozen=True)
class Unproven:
    """Rows that stay unproven. Every entity is judged by it.

    A row that is unproven for more than one night warns. A scan in which too many rows of a table are unproven is no
    evidence: more than `share` of them, and more than `min_rows` (or, in a small table, more than half).
    """

    metric: str = "unproven_overdue"
    share: float = 0.10
    min_rows: int = 20

    def too_many(self, count: int, rows: int) -> bool:
        """Return whether so many unproven rows, of so many in the table, make the scan no evidence."""
        return count > max(self.share * rows, min(self.min_rows, rows / 2))

    def no_evidence(self, accounts: Mapping[str, Account]) -> str:
        """Say why a scan with these accounts, by table, is no evidence; empty if it is evidence."""
        for table, account in accounts.items():
            if account.wrong_sum:
                return f"{table}: {account.wrong_sum}. Some rows were not accounted for, so the scan is no evidence"
            # `unseen` follows from the list's total, which may be wrong. It never makes a scan fail.
            if self.too_many(account.not_proven - account.unseen, account.rows - account.unseen):
                return (
                    f"{table}: {account.not_proven} of {account.rows} rows could not be proven, too many for the scan"
                    " to be evidence; confidence.unproven names each with the reason"
                )
        return ""

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return one gate, which warns with the keys of the rows that have waited longest. It ignores `history`."""
        overdue = summary.metrics.get(self.metric)
        if not overdue:
            return [Gate(self.metric, None, 0, overdue, None if overdue is None else Verdict.PASS)]
        ids = ", ".join(map(str, summary.examples.get("unproven_examples", [])[:10]))
        reason = (
            f"{overdue} rows could not be proven for more than one night ({self.metric}), those that wait longest:"
            f" {ids}. Nobody knows whether the copy has them right; confidence.unproven says why of each"
        )
        return [Gate(self.metric, None, 0, overdue, Verdict.WARN, reason)]


@dataclass(frozen=True)
class FieldsLost:
    """Declared fields must not vanish from all records, nor come in a type that their columns can't read.

    `metric` counts such fields: one warns. More than `share` of the metric `of`, and more than `min_fields`, hold at
    once, and any while such a hold is open. After a person has accepted such a figure, both limits rise by that figure.
    A scan of an entity without a census of fields has no such gate. `message` says what has become of the fields.
    """

    metric: str
    of: str = "declared_fields"
    share: float = 0.10
    min_fields: int = 2
    message: str = field(kw_only=True)

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return the one gate of this policy, none without a census; `history` as for `judge`."""
        if self.metric not in summary.metrics:
            return []
        value, whole = summary.metrics[self.metric], summary.metrics.get(self.of)
        if value is None or whole is None:
            return [Gate(self.metric, None, 0, value, None)]
        accepted = self._accepted(history)
        limit = accepted + max(Decimal(self.min_fields), whole * _exact(self.share))
        if value <= accepted:
            return [Gate(self.metric, accepted, accepted, value, Verdict.PASS)]
        names = ", ".join(map(str, summary.examples.get(LOST_FIELDS, [])[:10]))
        holds = value > limit or (history and history[0].held and self.metric in history[0].worse)
        verdict, consequence = (Verdict.HOLD, f", {KEPT}") if holds else (Verdict.WARN, "")
        reason = (
            f"{value} of {whole} declared fields {self.message} ({self.metric}): {names}. The copy loses their"
            f" values{consequence}. Ask the vendor what has changed, then mend the table's declaration"
        )
        return [Gate(self.metric, accepted, accepted, value, verdict, reason)]

    def _accepted(self, history: Sequence[PastRun]) -> int:
        """Return the figure that a person has accepted last; 0 if there is none."""
        return next((run.metrics.get(self.metric) or 0 for run in history if run.accepted), 0)


# The gates of every entity whose fields are counted.
FIELD_GATES = (
    FieldsLost("declared_fields_vanished", message="are in no record any more"),
    FieldsLost("declared_fields_retyped", message="have a type that their columns can't read"),
)

Policy = Trend | Growth | Limit | RepairShare | Unproven | FieldsLost


def worst_verdict(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """Return the most serious of the verdicts; None if nothing was judged."""
    return max((verdict for verdict in verdicts if verdict is not None), key=SEVERITY.__getitem__, default=None)


def judge(summary: ForensicSummary, history: Sequence[PastRun], policies: Sequence[Policy]) -> Judgement:
    """Judge a scan by the policies.

    `history`: the judged scans of the same source, entity and scope before this one, newest first.
    """
    gates = tuple(_or_held(gate, history) for policy in policies for gate in policy.gates(summary, history))
    by_severity = sorted(gates, key=lambda gate: SEVERITY[gate.verdict], reverse=True)
    worse = dict.fromkeys(gate.metric for gate in gates if SEVERITY[gate.verdict])
    verdicts = [Verdict.PASS, *(gate.verdict for gate in gates if gate.verdict)]
    # If something is wrong, lines such as "baseline set" are left out.
    serious = tuple(gate.reason for gate in by_severity if gate.reason and SEVERITY[gate.verdict])
    return Judgement(
        verdict=max(verdicts, key=SEVERITY.__getitem__),
        worse=tuple(worse),
        reasons=serious or tuple(gate.reason for gate in by_severity if gate.reason),
        gates=gates,
    )


def _or_held(gate: Gate, history: Sequence[PastRun]) -> Gate:
    """Return the gate, or a hold if its figure was not measured and the run before is still held for that figure."""
    if gate.verdict or not (history and history[0].held and gate.metric in history[0].worse):
        return gate
    reason = f"{gate.metric} was not measured: the hold of scan {history[0].scan_id} stays, {KEPT}"
    return replace(gate, verdict=Verdict.HOLD, reason=reason)


def _levels(figures: Sequence[int]) -> list[int]:
    """Return the median of each 7 consecutive figures. Both lists are newest first."""
    weeks = range(len(figures) - LEVEL_RUNS + 1)
    return [sorted(figures[first : first + LEVEL_RUNS])[LEVEL_RUNS // 2] for first in weeks]


def _rising(figures: Sequence[int], levels: Sequence[int]) -> bool:
    """Return whether the newest level is the highest, and neither of the two newest figures is below it.

    Both lists are newest first.
    """
    return min(figures[:2]) >= levels[0] > max(levels[1:], default=levels[0])


def _when(run: PastRun) -> str:
    return f"on {run.scanned_at:%Y-%m-%d}" if run.scanned_at else f"in scan {run.scan_id}"


def _baseline(metric: str, history: Sequence[PastRun]) -> Decimal | None:
    """Return the median of the metric in the last five good runs; None if there are none."""
    newest = [Decimal(run.metrics[metric]) for run in islice(_good_runs(metric, history), BASELINE_RUNS)]
    return median(newest) if newest else None


def _good_runs(metric: str, history: Sequence[PastRun]) -> Iterator[PastRun]:
    """Yield the good runs, newest first: those that measured the metric, found it not worse, and were not held.

    A run that a person accepted is good too. It is the last one, as older figures don't count any more.
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
    """Return a share as the decimal that it is written as. As floats, 10 * 1.1 is a little more than 11."""
    return Decimal(str(share))


def _number(figure: Decimal | None) -> float | None:
    return None if figure is None else float(figure)


def _text(figure: Decimal) -> str:
    return f"{figure.normalize():f}"
