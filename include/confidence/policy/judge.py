"""Judge one scan by all policies of its entity."""

from collections.abc import Sequence
from dataclasses import replace

from include.confidence.policy.fields_lost import FieldsLost
from include.confidence.policy.growth import Growth
from include.confidence.policy.lasting import Lasting
from include.confidence.policy.limit import Limit
from include.confidence.policy.repair_share import RepairShare
from include.confidence.policy.trend import Trend
from include.confidence.policy.unproven import Unproven
from include.confidence.policy.verdicts import KEPT, SEVERITY, Gate, Judgement, PastRun, Verdict
from include.confidence.summary import ForensicSummary

Policy = Trend | Growth | Lasting | Limit | RepairShare | Unproven | FieldsLost


def judge(summary: ForensicSummary, history: Sequence[PastRun], policies: Sequence[Policy]) -> Judgement:
    """Judge a scan by the policies.

    `history`: the judged scans of the same source, entity and scope before this one, newest first.
    """
    gates = tuple(_or_held(gate, history) for policy in policies for gate in policy.gates(summary, history))
    by_severity = sorted(gates, key=lambda gate: SEVERITY[gate.verdict], reverse=True)
    worse = dict.fromkeys(gate.metric for gate in gates if SEVERITY[gate.verdict])
    verdicts = [Verdict.PASS, *(gate.verdict for gate in gates if gate.verdict)]
    # If something is wrong, lines such as "baseline set" are left out.
    serious = tuple(gate.reason for gate in by_severity if gate.reason and SEVERITY[gate.verdict])
    return Judgement(
        verdict=max(verdicts, key=SEVERITY.__getitem__),
        worse=tuple(worse),
        reasons=serious or tuple(gate.reason for gate in by_severity if gate.reason),
        gates=gates,
    )


def _or_held(gate: Gate, history: Sequence[PastRun]) -> Gate:
    """Return the gate, or a hold if its figure was not measured and the run before is still held for that figure."""
    if gate.verdict or not (history and history[0].held and gate.metric in history[0].worse):
        return gate
    reason = f"{gate.metric} was not measured: the hold of scan {history[0].scan_id} stays, {KEPT}"
    return replace(gate, verdict=Verdict.HOLD, reason=reason)
