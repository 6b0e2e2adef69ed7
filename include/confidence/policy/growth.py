"""The policy for a metric that rises slowly, over weeks."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice, takewhile

from include.confidence.policy.history import good_runs
from include.confidence.policy.numbers import exact, number
from include.confidence.policy.verdicts import KEPT, Gate, PastRun, Verdict
from include.confidence.summary import ForensicSummary

# Growth compares levels. A level is the median of a week of runs, so that one run or the day of the week don't move it.
LEVEL_RUNS = 7
# The lowest level is looked for in so many runs, the present one included: six weeks of nights.
GROWTH_RUNS = 42
# Growth holds if it goes on after warnings in WARNED_RUNS of the last OF_RUNS runs.
WARNED_RUNS, OF_RUNS = 7, 14

# The end of each message about growth: what it means and what to do next.
MEND = (
    "A few more rows differ every night and nothing puts them right: find what the examples of this scan have in"
    " common, mend the cause, and repair"
)


@dataclass(frozen=True)
class Growth:
    """`metric` must not rise night after night, however little it rises in each.

    Its level is the median of the last 7 runs. The metric grows if its level is above the lowest of the last 42 runs
    by more than a margin and is the highest since then, and the last two runs are not below it. The margin is the
    largest of `relative` times the lowest level, `absolute` rows, and `share` of the live rows looked at. A metric that
    only varies, by 10 rows or 10 % to either side, stays within it.

    Growth warns. If it still goes on after warnings in 7 of the last 14 runs it holds, and then until the metric has
    fallen back. Jumps are left to Trend: a run in which it found the metric worse is no part of a level.
    """

    metric: str
    relative: float = 0.20
    absolute: int = 20
    share: float = 0.0005

    @property
    def name(self) -> str:
        """The name of its gate's figure."""
        return f"growth.{self.metric}"

    def gates(self, summary: ForensicSummary, history: Sequence[PastRun]) -> list[Gate]:
        """Return the one gate of this policy, none while there are too few runs; `history` as for `judge`."""
        value = summary.metrics.get(self.metric)
        runs = list(islice(good_runs(self.metric, history), GROWTH_RUNS - 1))
        if len(runs) < LEVEL_RUNS:
            return []
        if value is None:
            return [Gate(self.name, None, None, None, None)]
        figures = [value, *(run.metrics[self.metric] for run in runs)]
        levels = _levels(figures)
        lowest = levels.index(min(levels))
        if self._held(history[0]):
            rise = max(value - levels[lowest], 0)
        else:
            rise = levels[0] - levels[lowest] if _rising(figures, levels[: lowest + 1]) else 0
        limit = self.margin(levels[lowest], summary)
        if rise <= limit:
            return [Gate(self.name, None, number(limit), rise, Verdict.PASS)]
        verdict, consequence = self._consequence(history, f"from {levels[lowest]} to {levels[0]}")
        # The run in the middle of the week whose median is the lowest.
        since = runs[lowest + LEVEL_RUNS // 2 - 1]
        reason = f"{rise} more rows than {_when(since)} ({self.metric}): {consequence}. {MEND}"
        return [Gate(self.name, None, number(limit), rise, verdict, reason)]

    def margin(self, lowest: int, summary: ForensicSummary) -> Decimal:
        """Return by how many rows the level may rise above the lowest."""
        return max(lowest * exact(self.relative), Decimal(self.absolute), summary.live_rows * exact(self.share))

    def _held(self, before: PastRun) -> bool:
        """Return whether the run before was held for growth of this metric, and nobody has accepted it."""
        return before.verdict is Verdict.HOLD and self.name in before.worse and not before.accepted

    def _consequence(self, history: Sequence[PastRun], change: str) -> tuple[Verdict, str]:
        """Return the verdict on growth above its margin, and the words for it."""
        if self._held(history[0]):
            return Verdict.HOLD, f"it has not fallen back since the hold of scan {history[0].scan_id}, {KEPT}"
        warned = sum(self.name in run.worse for run in takewhile(_not_accepted, history[:OF_RUNS]))
        grown = f"the median of {LEVEL_RUNS} runs has grown {change} and still grows"
        if warned >= WARNED_RUNS:
            return Verdict.HOLD, f"{grown} after {warned} warnings, {KEPT}"
        return Verdict.WARN, f"{grown} (warning {warned + 1}, after {WARNED_RUNS} in {OF_RUNS} runs the writer is held)"


def _levels(figures: Sequence[int]) -> list[int]:
    """Return the median of each 7 consecutive figures. Both lists are newest first."""
    weeks = range(len(figures) - LEVEL_RUNS + 1)
    return [sorted(figures[first : first + LEVEL_RUNS])[LEVEL_RUNS // 2] for first in weeks]


def _rising(figures: Sequence[int], levels: Sequence[int]) -> bool:
    """Return whether the newest level is the highest, and neither of the two newest figures is below it.

    Both lists are newest first.
    """
    return min(figures[:2]) >= levels[0] > max(levels[1:], default=levels[0])


def _when(run: PastRun) -> str:
    return f"on {run.scanned_at:%Y-%m-%d}" if run.scanned_at else f"in scan {run.scan_id}"


def _not_accepted(run: PastRun) -> bool:
    return not run.accepted
