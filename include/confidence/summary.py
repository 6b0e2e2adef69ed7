"""What one scan found: the evidence that travels from the scan to the gate and into the history."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self
from uuid import uuid4

import msgspec

from include.confidence.account import Account

VERSION = 2
MAX_EXAMPLES = 25


class UnusableSummary(ValueError):
    """A `forensic_summary` that this code can't read; the message says what to clear."""


@dataclass(frozen=True)
class Plan:
    """How many rows of the copy a repair would change, confirmed rows only."""

    insert: int
    update: int
    delete: int


@dataclass(frozen=True)
class ForensicSummary:
    """The figures of one scan of one entity.

    `scope` is "all" for a whole scan and names the part otherwise ("pages 3-10"); only the same scopes are
    compared. `metrics` are judged, `telemetry` is only recorded; None means that the scan did not measure it.
    `live_rows` counts the rows alive in the copy that were looked at: shares are of these. `examples` hold ids (of
    several columns as a list) or say what is wrong with each, at most 25 a list, so that the summary stays a few KB.
    `accounts` say, by table, where every row has ended up. `incomplete` says why the scan is no evidence: the run
    fails. `evidence` names this very scan: another attempt has another, also if it has the same `scan_id`. Raises
    ValueError for longer lists, and for a figure named like a field.
    """

    source: str
    entity: str
    scope: str
    scan_id: str
    run: str
    epoch: int
    metrics: Mapping[str, int | None]
    telemetry: Mapping[str, int | str | None]
    plan: Plan
    live_rows: int
    examples: Mapping[str, list[int | str | list | dict[str, str]]]
    accounts: Mapping[str, Account] = field(default_factory=dict)
    incomplete: str = ""
    evidence: str = field(default_factory=lambda: uuid4().hex, compare=False)
    version: int = VERSION

    def __post_init__(self) -> None:
        names = [
            *(each.name for each in fields(self)),
            "event",
            *self.metrics,
            *self.telemetry,
            *self.examples,
        ]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names used twice in the summary of {self.entity}: {', '.join(twice)}")
        long = sorted(name for name, ids in self.examples.items() if len(ids) > MAX_EXAMPLES)
        if long:
            raise ValueError(f"more than {MAX_EXAMPLES} examples in the summary of {self.entity}: {', '.join(long)}")

    def to_json(self) -> dict[str, Any]:
        """The summary as a dict of plain JSON types, for XCom and the history."""
        return vars(self) | {
            "metrics": dict(self.metrics),
            "telemetry": dict(self.telemetry),
            "plan": vars(self.plan).copy(),
            "accounts": {table: vars(account).copy() for table, account in self.accounts.items()},
            "examples": {name: list(ids) for name, ids in self.examples.items()},
        }

    @property
    def rows(self) -> int:
        """The rows of source and copy that the scan was to prove."""
        return sum(account.rows for account in self.accounts.values())

    @property
    def proven(self) -> int:
        """Those of which it can tell whether source and copy agree."""
        return sum(account.proven for account in self.accounts.values())

    @property
    def figures(self) -> Mapping[str, int]:
        """All that was counted, by name: the metrics that were measured, the live rows, and the plan as `planned_*`."""
        measured = {name: value for name, value in self.metrics.items() if value is not None}
        planned = {f"planned_{operation}": count for operation, count in vars(self.plan).items()}
        return {**measured, "live_rows": self.live_rows, **planned}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what `to_json` gave. Raises UnusableSummary for another version, missing or ill-typed keys."""
        version = data.get("version") if isinstance(data, dict) else None
        if version != VERSION:
            raise _unusable(f"its version is {version!r}, this code reads {VERSION}")
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise _unusable(str(error)) from None

    def line(self) -> str:
        """The summary as one line of JSON for the log: keys sorted, every figure at the top level."""
        flat = self.to_json() | {"event": "forensic_summary"}
        for group in ("metrics", "telemetry", "examples"):
            flat |= flat.pop(group)
        return json.dumps(flat, sort_keys=True)


def _unusable(why: str) -> UnusableSummary:
    return UnusableSummary(f"The forensic_summary that scan left can't be used ({why}): clear scan with downstream.")
