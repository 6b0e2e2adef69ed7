"""Plan what to do about an element, from what the warehouse knows and the lines in Flex."""

from collections.abc import Callable, Sequence

from include.sources.flex.desired import Crew
from include.sources.flex.plan import Plan, plan, spare_held
from include.sources.flex.rows import Line

Planner = Callable[[Crew, Sequence[Line]], Plan]


def wanted(crew: Crew, lines: Sequence[Line]) -> Plan:
    """Plan to bring the element to the desired crew."""
    made = plan(crew.desired, crew.rows, crew.ours(lines), lines, staying=crew.staying, written=crew.roles)
    return spare_held(made, lines)
