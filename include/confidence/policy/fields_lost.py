"""Declared fields that the vendor sends no more, or in another type."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from include.confidence.policy.numbers import exact
from include.confidence.policy.verdicts import KEPT, Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary


@dataclass(frozen=True)
class FieldsLost:
    """Declared fields must not vanish from all records, nor come in a type that their columns can't read.

    `metric` counts such fields: one warns. More than `share` of the metric `of`, and more than `min_fields`, hold at
    once, and any while such a hold is open. The fields that a person has accepted last don't count, by their names.
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
        accepted = next((run for run in history if run.accepted), None)
        baseline = (accepted and accepted.metrics.get(self.metric)) or 0
        new, lost = self._not_accepted(summary, accepted, baseline)
        if not lost:
            return [Gate(self.metric, baseline, baseline, value, Verdict.PASS)]
        holds = lost > max(Decimal(self.min_fields), whole * exact(self.share)) or (
            history and history[0].held and self.metric in history[0].worse
        )
        verdict, consequence = (Verdict.HOLD, f", {KEPT}") if holds else (Verdict.WARN, "")
        known = f", beside {value - lost} that a person has accepted" if value > lost else ""
        reason = (
            f"{lost} of {whole} declared fields {self.message} ({self.metric}){known}: {', '.join(new[:10])}. The copy"
            f" loses their values{consequence}. Ask the vendor what has changed, then mend the table's declaration"
        )
        return [Gate(self.metric, baseline, value - lost, value, verdict, reason)]

    def _not_accepted(self, summary: ForensicSummary, accepted: PastRun | None, baseline: int) -> tuple[list[str], int]:
        """Return the names of the lost fields that nobody has accepted, and their number.

        A summary names some fields only. So many as the accepted one left unnamed are taken for accepted.
        """
        named = summary.examples.get(lost_examples(self.metric), [])
        before = accepted.examples.get(lost_examples(self.metric), []) if accepted else []
        new = [str(name) for name in named if name not in before]
        unnamed = summary.metrics[self.metric] - len(named)
        return new, max(len(new) + unnamed - (baseline - len(before)), 0)


def lost_examples(metric: str) -> str:
    """Return the name of the examples of a summary that are the fields which the metric counts."""
    return f"{metric}_examples"


# The gates of every entity whose fields are counted.
FIELD_GATES = (
    FieldsLost("declared_fields_vanished", message="are in no record any more"),
    FieldsLost("declared_fields_retyped", message="have a type that their columns can't read"),
)
