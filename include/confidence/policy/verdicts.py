"""What a gate says of a figure, and what all gates together say of a scan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Verdict(StrEnum):
    """The gate's verdict on a scan."""

    PASS = "pass"
    WARN = "warn"
    HOLD = "hold"


# Higher is worse. A gate without a figure to judge counts as one that passed.
SEVERITY: dict[Verdict | None, int] = {None: 0, Verdict.PASS: 0, Verdict.WARN: 1, Verdict.HOLD: 2}

KEPT = "the writer is kept stopped until a decision"


@dataclass(frozen=True)
class PastRun:
    """An earlier judged scan of the same source, entity and scope.

    - `worse`: the metrics that were above their limits
    - `accepted`: a person decided to resume without repair, so its figures are the new baseline
    - `held`: its hold is still open
    - `planned`: how many changes its scan has planned
    - `examples`: what the scan named, by what it is
    - `scanned_at`: for messages only
    """

    scan_id: str
    metrics: Mapping[str, int | None]
    verdict: Verdict
    worse: tuple[str, ...]
    accepted: bool
    held: bool = False
    planned: int = 0
    examples: Mapping[str, Sequence] = field(default_factory=dict)
    scanned_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Gate:
    """One figure of a scan, held against its limit.

    - `baseline`: the figure that it is compared with, None if there is none
    - `limit`: the highest value that still passes, None if it needs a baseline and there is none
    - `value`, `verdict`: None if the scan did not measure the figure
    - `reason`: a sentence for people, None if there is nothing to say
    """

    metric: str
    baseline: float | None
    limit: float | None
    value: int | None
    verdict: Verdict | None
    reason: str | None = None


@dataclass(frozen=True)
class Judgement:
    """What all gates together say of a scan.

    - `verdict`: the worst of the gates
    - `worse`: the metrics above their limits
    - `reasons`: sentences for people, the most serious first
    """

    verdict: Verdict
    worse: tuple[str, ...]
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]


def worst_verdict(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """Return the most serious of the verdicts; None if nothing was judged."""
    return max((verdict for verdict in verdicts if verdict is not None), key=SEVERITY.__getitem__, default=None)
