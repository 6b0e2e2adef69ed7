"""A repair that would write too much."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from include.confidence.policy.numbers import exact, number, text
from include.confidence.policy.verdicts import KEPT, Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary

# The first part of the names of its figures.
PLAN = "plan."


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
        limit = max(Decimal(self.min_rows), live_rows * exact(share))
        if rows <= limit:
            return Gate(f"{PLAN}{action}", None, number(limit), rows, Verdict.PASS)
        reason = (
            f"the repair would {action} {rows} of {live_rows} live rows looked at, above its limit {text(limit)}: "
            f"not applied, {KEPT}"
        )
        return Gate(f"{PLAN}{action}", None, number(limit), rows, Verdict.HOLD, reason)
