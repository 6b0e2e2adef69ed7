"""The gate: compare a scan's figures with those of the runs before, and judge them. Pure functions.

Each policy has a module of its own and answers one question about a scan: `gates(summary, history)`. `judge` asks all
policies of an entity and says what they say together.
"""

from include.confidence.policy.fields_lost import FIELD_GATES, FieldsLost, lost_examples
from include.confidence.policy.growth import GROWTH_RUNS, Growth
from include.confidence.policy.history import BASELINE_RUNS
from include.confidence.policy.judge import Policy, judge
from include.confidence.policy.lasting import Lasting
from include.confidence.policy.limit import Limit
from include.confidence.policy.repair_share import PLAN, RepairShare
from include.confidence.policy.trend import Trend
from include.confidence.policy.unproven import Unproven
from include.confidence.policy.verdicts import SEVERITY, Gate, Judgement, PastRun, Verdict, worst_verdict

__all__ = [
    "BASELINE_RUNS",
    "FIELD_GATES",
    "GROWTH_RUNS",
    "PLAN",
    "SEVERITY",
    "FieldsLost",
    "Gate",
    "Growth",
    "Judgement",
    "Lasting",
    "Limit",
    "PastRun",
    "Policy",
    "RepairShare",
    "Trend",
    "Unproven",
    "Verdict",
    "judge",
    "lost_examples",
    "worst_verdict",
]
