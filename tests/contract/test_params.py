"""Whatever a form's schema lets through, a sync and a scan end well or with one line of ours."""

from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from airflow.dag_processing.dagbag import DagBag

from include.sources import REGISTRY, verbs
from stack.settings import REPOSITORY
from tests.contract.account import Account, Run
from tests.fuzz.outcome import Outcome, watched

TEXTS = ("", " ", "hush", "a\0b", "\u202ex", "x" * 10_000, "'; --", "%s", "-1", "1e400")
RUNS = 3


def value_for(schema: dict[str, Any], random: Random) -> Any:
    """A value that the schema allows, as a rule one at its edge."""
    if "enum" in schema:
        return random.choice(schema["enum"])
    types = schema.get("type", "string")
    kind = random.choice(types if isinstance(types, list) else [types])
    match kind:
        case "boolean":
            return random.random() < 0.5
        case "integer":
            least, most = schema.get("minimum", -(2**70)), schema.get("maximum", 2**70)
            return random.choice([number for number in (least, 0, 1, 2**31, 2**63, most) if least <= number <= most])
        case "array":
            return [each for each in schema["items"]["enum"] if random.random() < 0.5]
        case "null":
            return None
    return str(UUID(int=random.getrandbits(128))) if schema.get("format") == "uuid" else random.choice(TEXTS)


@pytest.mark.parametrize("job", ["sync", "reconcile"])
@pytest.mark.parametrize("source", REGISTRY)
def test_no_params_end_in_an_unforeseen_error(
    account: Account, conn: psycopg.Connection, filled: Run, source: str, job: str
):
    [dag] = DagBag(REPOSITORY / "dags" / f"{source}_{job}.py").dags.values()
    schemas = {name: param.schema for name, param in dag.params.items()}
    outcomes = []
    for seed in range(RUNS):
        random, outcome = Random(f"{source} {job} {seed}"), Outcome(seed)
        params = {**account.params, **{name: value_for(schema, random) for name, schema in schemas.items()}}
        entity = random.choice(account.source.entities).name
        with watched(outcome, f"{job} with {params}"[:300], conn), filled.context() as context:
            if job == "sync":
                verbs.run_sync(context, params, dry_run=False)
            else:
                verbs.run_scan(context, entity, filled.stop(), params, dry_run=True)
        filled.resume()
        outcomes.append(outcome)
    broken = [fault for outcome in outcomes for fault in outcome.faults]
    assert not broken, "\n".join(broken)
