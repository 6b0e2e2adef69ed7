"""The policy for a metric that must not exceed a share of another one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from include.confidence.policy.history import baseline_of
from include.confidence.policy.numbers import exact, number
from include.confidence.policy.verdicts import Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary


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
        baseline = baseline_of(self.metric, history)
        if value is None or whole is None:
            return [Gate(self.metric, number(baseline), None, value, None)]
        limit = max(Decimal(self.min_rows), whole * exact(self.share))
        accepted = baseline if any(run.accepted for run in history) else None
        if accepted is not None and accepted > limit:
            limit += accepted
        if value <= limit:
            return [Gate(self.metric, number(baseline), number(limit), value, Verdict.PASS)]
        above = f"{self.metric} is {value} of {whole} {self.of}, above its limit {int(limit)}"
        return [
            Gate(
                self.metric,
                number(baseline),
                number(limit),
                value,
                Verdict.HOLD,
                f"{above}: {self.message}",
            )
        ]
