"""Declared fields that the vendor sends no more, or in another type."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from include.confidence.policy.numbers import exact
from include.confidence.policy.verdicts import KEPT, Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary

# The examples of a summary that name the declared fields which are lost.
LOST_FIELDS = "lost_fields"


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
        limit = accepted + max(Decimal(self.min_fields), whole * exact(self.share))
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
