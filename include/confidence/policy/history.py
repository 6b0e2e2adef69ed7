"""The runs before: which of them count, and the level that a figure had in them. Pure functions."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice
from statistics import median

from include.confidence.policy.verdicts import PastRun, Verdict

# A baseline is the median of so many good runs.
BASELINE_RUNS = 5


def baseline_of(metric: str, history: Sequence[PastRun]) -> Decimal | None:
    """Return the median of the metric in the last five good runs; None if there are none."""
    newest = [Decimal(run.metrics[metric]) for run in islice(good_runs(metric, history), BASELINE_RUNS)]
    return median(newest) if newest else None


def good_runs(metric: str, history: Sequence[PastRun]) -> Iterator[PastRun]:
    """Yield the good runs, newest first: those that measured the metric, found it not worse, and were not held.

    A run that a person accepted is good too. It is the last one, as older figures don't count any more.
    """
    for run in history:
        good = run.accepted or (run.verdict is not Verdict.HOLD and metric not in run.worse)
        if good and run.metrics.get(metric) is not None:
            yield run
        if run.accepted:
            return
