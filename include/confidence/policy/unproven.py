"""The policy for rows that no scan could prove."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from include.confidence.account import Account
from include.confidence.policy.verdicts import Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary
from include.warehouse.table import key_text


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

    def no_evidence(self, accounts: Mapping[str, Account], nested: Collection[str] = ()) -> str:
        """Say why a scan with these accounts, by table, is no evidence; empty if it is evidence.

        `nested`: the tables of nested rows. All rows of a small one may be in one record, so half of them tell nothing.
        """
        for table, account in accounts.items():
            if account.wrong_sum:
                return f"{table}: {account.wrong_sum}. Some rows were not accounted for, so the scan is no evidence"
            # `unseen` follows from the list's total, which may be wrong. It never makes a scan fail.
            not_proven, rows = account.not_proven - account.unseen, account.rows - account.unseen
            if self.too_many(not_proven, rows) and (table not in nested or not_proven > self.min_rows):
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
        keys = summary.examples.get("unproven_examples", [])[:10]
        ids = ", ".join(key_text(key) if isinstance(key, list) else str(key) for key in keys)
        reason = (
            f"{overdue} rows could not be proven by two or more runs ({self.metric}), so the copy may have them wrong."
            f" confidence.unproven says why for each. The longest waiting: {ids}"
        )
        return [Gate(self.metric, None, 0, overdue, Verdict.WARN, reason)]
