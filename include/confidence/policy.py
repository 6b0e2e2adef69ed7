"""The gate: is a scan's drift worse than in the runs before, and what follows from that? Pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from statistics import median

from include.confidence.summary import ForensicSummary

# How many good runs a baseline is the median of.
BASELINE_RUNS = 5


class Verdict(StrEnum):
    """What the gate says of a scan."""

    PASS = "pass"
    WARN = "warn"
    HOLD = "hold"


# From harmless to serious. A gate that had nothing to judge is as harmless as one that passed.
SEVERITY: dict[Verdict | None, int] = {None: 0, Verdict.PASS: 0, Verdict.WARN: 1, Verdict.HOLD: 2}

KEPT = "the writer is kept stopped until a decision"


@dataclass(frozen=True)
class PastRun:
    """An earlier judged scan of the same source, entity and scope.

    `accepted`: a person decided to resume, so its figures are the new normal. `held`: its hold is still open.
    """

    scan_id: str
    metrics: Mapping[str, int | None]
    verdict: Verdict
    worse: tuple[str, ...]
    accepted: bool
    held: bool = False


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

    The absolute margin is the larger of `absolute` rows and `share` of the live rows. Worse once warns. Worse
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
class Limit:
    """`metric` above `share` of the metric `of`, and above `floor` rows, holds at once, on a first run too.

    `message` says what that most likely means. A level that a person has accepted holds again only when the
    metric rises above it by as much again; without that, every night after the decision would hold.
    """

    metric: str
    of: str
    share: float
    floor: int = 0
    message: str = field(kw_only=True)

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        value, whole = summary.metrics.get(self.metric), summary.metrics.get(self.of)
        baseline = _baseline(self.metric, history)
        if value is None or whole is None:
            return [Gate(self.metric, _number(baseline), None, value, None)]
        limit = max(Decimal(self.floor), whole * _exact(self.share))
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
    """A repair that would delete or change more than `floor` rows and more than a share of all holds.

    To change means to update. Inserts overwrite nothing and a rollback takes them back without loss; counting
    them would hold every first repair into an empty copy. Rows that the copy lacks are a metric's business.

    A decision to resume does not accept a mass change: were it accepted, the next nightly run would apply it
    unattended. It holds again for as long as the plan is that large.
    """

    delete: float = 0.05
    change: float = 0.20
    floor: int = 20

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        return [
            self._gate("delete", summary.plan.delete, self.delete, summary.live_rows),
            self._gate("update", summary.plan.update, self.change, summary.live_rows),
        ]

    def _gate(self, action: str, rows: int, share: float, live_rows: int) -> Gate:
        limit = max(Decimal(self.floor), live_rows * _exact(share))
        if rows <= limit:
            return Gate(f"plan.{action}", None, _number(limit), rows, Verdict.PASS)
        reason = (
            f"the repair would {action} {rows} of {live_rows} live rows, above its limit {_text(limit)}: "
            f"not applied, {KEPT}"
        )
        return Gate(f"plan.{action}", None, _number(limit), rows, Verdict.HOLD, reason)


@dataclass(frozen=True)
class Unproven:
    """Rows that more than one night could not prove warn, with their ids. Every entity is judged by it."""

    metric: str = "unproven_overdue"

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


Policy = Trend | Limit | RepairShare | Unproven


def judge(summary: ForensicSummary, history: Sequence[PastRun], policies: Sequence[Policy]) -> Judgement:
    """Judge a scan against `history`: its source, entity and scope, newest first, without the scan itself."""
    gates = tuple(gate for policy in policies for gate in policy.gates(summary, history))
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


def _baseline(metric: str, history: Sequence[PastRun]) -> Decimal | None:
    """The median of the metric in the newest good runs that measured it, back to the newest accepted one."""
    figures = (run.metrics.get(metric) for run in _good_runs(history))
    newest = [Decimal(figure) for figure in islice((f for f in figures if f is not None), BASELINE_RUNS)]
    return median(newest) if newest else None


def _good_runs(history: Sequence[PastRun]) -> Iterator[PastRun]:
    for run in history:
        if run.accepted or run.verdict is Verdict.PASS:
            yield run
        if run.accepted:
            return


def _exact(share: float) -> Decimal:
    """A share as it is written: in binary, 10 * 1.1 is a little more than 11, and borders are exact."""
    return Decimal(str(share))


def _number(figure: Decimal | None) -> float | None:
    return None if figure is None else float(figure)


def _text(figure: Decimal) -> str:
    return f"{figure.normalize():f}"
