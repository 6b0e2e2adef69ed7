"""The policy for drift that nothing repairs, however small."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from include.confidence.policy.verdicts import Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary


@dataclass(frozen=True)
class Lasting:
    """Drift must not last. Every entity is judged by it.

    The other policies allow for noise by margins, and a few wrong rows stay within them for ever. The planned changes
    have no noise, as the second look has confirmed each. So if all of the last `runs` scans have planned changes, this
    policy warns; and again after as many runs, not each night. It never holds.

    After a person has accepted a plan, only what exceeds the smallest plan since counts.
    """

    metric: str = "plan.lasting"
    runs: int = 7

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return the one gate of this policy; its value is the smallest plan of the last `runs` scans."""
        newest = next((place for place, run in enumerate(history) if run.accepted), None)
        accepted = 0 if newest is None else min(run.planned for run in history[: newest + 1])
        before = list(takewhile(lambda run: not run.accepted, history[: self.runs - 1]))
        plans = [summary.plan.rows, *(run.planned for run in before)]
        smallest = min(plans) if len(plans) == self.runs else 0
        if smallest <= accepted or any(self.metric in run.worse for run in before):
            return [Gate(self.metric, None, accepted, smallest, Verdict.PASS)]
        reason = (
            f"each of the last {self.runs} plans had {smallest} or more changes, now {summary.plan.rows}"
            f" ({self.metric}): rows stay wrong, or go wrong again after each repair, and no sync mends it. Look at the"
            " plan, find what its rows have in common, mend the cause, and repair"
        )
        return [Gate(self.metric, None, accepted, smallest, Verdict.WARN, reason)]
