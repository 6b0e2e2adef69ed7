"""The policy for a repair that would delete or update too much of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from include.confidence.policy.numbers import exact, number
from include.confidence.policy.verdicts import KEPT, Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary

# The first part of the names of its figures.
PLAN = "plan."


@dataclass(frozen=True)
class RepairShare:
    """A repair must not delete more than the share `delete` of the live rows looked at, nor update more than `change`.

    The limits apply to all tables of the entity together, and to each table by itself: a fifth of all orders is a small
    share of orders and lines together. Up to `min_rows` rows always pass. Inserts are not limited: they overwrite
    nothing, a rollback removes them without loss, and a limit would hold every first repair into an empty copy.

    A decision to resume does not accept such a plan, or else the next night would apply it unattended. The gate holds
    again for as long as the plan is that large.
    """

    delete: float = 0.05
    change: float = 0.20
    min_rows: int = 20

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return two gates, `plan.delete` and `plan.update`. The runs before don't matter."""
        deletes = {table: account.surplus for table, account in summary.accounts.items()}
        updates = {table: account.differing for table, account in summary.accounts.items()}
        return [
            self._gate("delete", self.delete, summary, summary.plan.delete, deletes),
            self._gate("update", self.change, summary, summary.plan.update, updates),
        ]

    def _gate(
        self, action: str, share: float, summary: ForensicSummary, planned: int, by_table: Mapping[str, int]
    ) -> Gate:
        """Return the gate of the first table above its own limit, or the gate of all tables together."""
        limit = self._limit(summary.live_rows, share)
        if planned > limit:
            return self._hold(action, planned, summary.live_rows, "live rows looked at", limit)
        for table, drifted in by_table.items():
            # The account also has drifted rows that the plan leaves alone, so it may have more than the plan.
            rows, live_rows = min(drifted, planned), summary.accounts[table].looked_at
            table_limit = self._limit(live_rows, share)
            if rows > table_limit:
                return self._hold(action, rows, live_rows, f"live rows of {table} looked at", table_limit)
        return Gate(f"{PLAN}{action}", None, number(limit), planned, Verdict.PASS)

    def _limit(self, live_rows: int, share: float) -> Decimal:
        return max(Decimal(self.min_rows), live_rows * exact(share))

    def _hold(self, action: str, rows: int, live_rows: int, of_what: str, limit: Decimal) -> Gate:
        reason = (
            f"the repair would {action} {rows} of {live_rows} {of_what}, above its limit {int(limit)}: not applied,"
            f" {KEPT}"
        )
        return Gate(f"{PLAN}{action}", None, number(limit), rows, Verdict.HOLD, reason)
