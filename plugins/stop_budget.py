"""How long the scans of a night may take while the writer stands, and what is left to a later night for that."""

import math
from typing import Any

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowSkipException
from psycopg import Connection

from include.api.errors import FixConfiguration
from include.confidence import proofs
from include.confidence.stop_budget import choose, waiting
from include.sources import get_source
from include.warehouse import fence
from plugins.hooks import warehouse
from plugins.results import log_line
from plugins.runs import run_name

VARIABLE = "stop_budget_minutes"


def time_for(context: Any, source: str, entity: str) -> float | None:
    """Return for how many seconds the scan of the entity may send requests; None if there is no limit.

    Only scheduled runs have one, and none while a hold is open: then the writer stands anyway, and only a scan ends
    the hold. Raises AirflowSkipException if the entity is left to a later night.
    """
    limit = _limit(context)
    if limit is None:
        return None
    declared = get_source(source).entities
    with warehouse.connect(run_name(context)) as conn:
        writer = fence.require_stopped(conn, source, run_name(context))
        if writer.hold_reason:
            return None
        began_at, stood = proofs.stood(conn, source)
        found = proofs.read_proofs(conn, source, [each.name for each in declared], before=began_at)
    choice = choose(found, {each.name: each.refers_to for each in declared}, limit)
    if entity in choice.first:
        return None
    if entity in choice.put_off:
        put_off(context, source, entity, choice.put_off[entity])
    if stood >= limit:
        put_off(context, source, entity, f"the writer had stood for {stood / 60:.0f} min before its turn")
    return limit - stood


def put_off(context: Any, source: str, entity: str, why: str) -> None:
    """Leave the entity to a later night. Raises AirflowSkipException."""
    run = run_name(context)
    with warehouse.connect(run) as conn:
        fence.require_stopped(conn, source, run)
        proofs.put_off(conn, source, run, {entity: why})
    log_line(context, source, "put_off", entity=entity, why=why)
    raise AirflowSkipException(f"{entity} is put off to a later night: {why}. Nothing of it is proven by this run")


def put_off_waiting(conn: Connection, source: str, run: str) -> dict[str, str]:
    """Put off the entities whose rows refer to one that was put off. Return {entity: why} of all that was put off."""
    declared = {each.name: each.refers_to for each in get_source(source).entities}
    found = proofs.put_off_by(conn, source, run)
    why = f"it refers to what was put off ({', '.join(found)}), so a repair of it alone could leave rows without them"
    proofs.put_off(conn, source, run, dict.fromkeys(waiting(list(declared), declared, found), why))
    return proofs.put_off_by(conn, source, run)


def _limit(context: Any) -> float | None:
    """Return the seconds that the Airflow Variable allows; None without it, for 0, and in runs by hand.

    Raises FixConfiguration if it is no number of minutes.
    """
    if context["dag_run"].run_type != "scheduled":
        return None
    given = Variable.get(VARIABLE, default=None) or "0"
    try:
        minutes = float(given)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise FixConfiguration(
            f"the Airflow Variable {VARIABLE} is {given!r}, and nothing was scanned: set it to a number of minutes, or"
            " to 0 for no limit; then clear scan with downstream"
        )
    return minutes * 60 or None
