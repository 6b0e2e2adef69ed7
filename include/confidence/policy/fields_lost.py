"""The policy for declared fields that the vendor no longer sends, or sends in another type."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from include.confidence.policy.numbers import exact
from include.confidence.policy.verdicts import KEPT, Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary


@dataclass(frozen=True)
class FieldsLost:
    """The policy for fields whose values are lost: they vanished, or have a type that can't be read.

    `metric` counts the lost fields, `of` the fields that could be lost. The policy warns of any lost field. It holds if
    more than `share` of the fields and more than `min_fields` are lost, and as long as an earlier hold of it is open.
    Fields that a person has accepted in the last decision don't count. `message` follows "the fields are".
    """

    metric: str
    of: str = "declared_fields"
    share: float = 0.10
    min_fields: int = 2
    message: str = field(kw_only=True)

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return the one gate of this policy; none if the scan has no census of fields. `history` as for `judge`."""
        if self.metric not in summary.metrics:
            return []
        value, fields = summary.metrics[self.metric], summary.metrics.get(self.of)
        if value is None or fields is None:
            return [Gate(self.metric, baseline=None, limit=0, value=value, verdict=None)]
        accepted = next((run for run in history if run.accepted), None)
        baseline = (accepted and accepted.metrics.get(self.metric)) or 0
        names, lost = self._not_accepted(summary, accepted, baseline)
        if not lost:
            return [Gate(self.metric, baseline, limit=baseline, value=value, verdict=Verdict.PASS)]
        too_many = lost > max(Decimal(self.min_fields), fields * exact(self.share))
        still_held = history and history[0].held and self.metric in history[0].worse
        verdict, consequence = (Verdict.HOLD, f", {KEPT}") if too_many or still_held else (Verdict.WARN, "")
        known = f", besides {value - lost} that a person has accepted" if value > lost else ""
        reason = (
            f"{lost} of {fields} declared fields {'is' if lost == 1 else 'are'} {self.message} ({self.metric}){known}:"
            f" {', '.join(names[:10])}."
            f" Syncs and repairs no longer get their values{consequence}. Ask the vendor what has changed, then mend"
            " the declaration"
        )
        return [Gate(self.metric, baseline, limit=value - lost, value=value, verdict=verdict, reason=reason)]

    def _not_accepted(self, summary: ForensicSummary, accepted: PastRun | None, baseline: int) -> tuple[list[str], int]:
        """Return names of lost fields that nobody has accepted, and how many such fields there are.

        A summary counts all lost fields (`baseline` is the count of the `accepted` run) but names only the first of
        them. Unnamed fields count as accepted up to the number of unnamed fields in the accepted run.
        """
        named = summary.examples.get(lost_examples(self.metric), [])
        accepted_names = accepted.examples.get(lost_examples(self.metric), []) if accepted else []
        new = [str(name) for name in named if name not in accepted_names]
        unnamed, accepted_unnamed = summary.metrics[self.metric] - len(named), baseline - len(accepted_names)
        return new, max(len(new) + unnamed - accepted_unnamed, 0)


def lost_examples(metric: str) -> str:
    """Return the name under which a summary has examples of the fields that the metric counts."""
    return f"{metric}_examples"


# The gates of every entity whose fields are counted.
FIELD_GATES = (
    FieldsLost("declared_fields_vanished", message="in no record any more"),
    FieldsLost("declared_fields_retyped", message="of a type that can't be read"),
)
