"""The policy for a metric that rises above its baseline from one run to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from include.confidence.policy.history import baseline_of
from include.confidence.policy.numbers import exact, number, text
from include.confidence.policy.verdicts import KEPT, Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary


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
        baseline = baseline_of(self.metric, history)
        if value is None:
            return [Gate(self.metric, number(baseline), None, None, None)]
        if baseline is None:
            reason = f"{self.metric} is {value}: no earlier good run to compare with, baseline set"
            return [Gate(self.metric, None, None, value, Verdict.PASS, reason)]
        limit = baseline + self.margin(baseline, summary)
        if value <= limit:
            return [Gate(self.metric, number(baseline), number(limit), value, Verdict.PASS)]
        verdict, consequence = self._consequence(history)
        above = f"{self.metric} is {value}, above its limit {int(limit)} (baseline {text(baseline)})"
        return [Gate(self.metric, number(baseline), number(limit), value, verdict, f"{above}: {consequence}")]

    def margin(self, baseline: Decimal | int, summary: ForensicSummary) -> Decimal:
        """Return by how many rows the metric may rise above the baseline."""
        return max(baseline * exact(self.relative), Decimal(self.absolute), summary.live_rows * exact(self.share))

    def _consequence(self, history: Sequence[PastRun]) -> tuple[Verdict, str]:
        """Return the verdict on a metric above its limit, and the words for it."""
        before = history[0]
        if before.held:
            return Verdict.HOLD, f"the hold of scan {before.scan_id} stays, {KEPT}"
        if self.metric in before.worse and not before.accepted:
            return Verdict.HOLD, f"worse in two consecutive runs, {KEPT}"
        return Verdict.WARN, "worse once, a second time in a row would alone hold the writer"
