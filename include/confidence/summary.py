"""The summary of one scan: the evidence that the scan hands to the gate and keeps in the warehouse."""

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
    """This code can't read a `forensic_summary`. The message says which task to clear."""


@dataclass(frozen=True)
class Plan:
    """How many confirmed changes a repair would make to the copy, by operation."""

    insert: int
    update: int
    delete: int

    @property
    def rows(self) -> int:
        """How many changes they are together."""
        return self.insert + self.update + self.delete


@dataclass(frozen=True)
class ForensicSummary:
    """What one scan of one entity found. A few KB, as it travels by XCom.

    - `scope`: "all", or the part that was scanned ("pages 3-10"); only scans of the same scope are compared
    - `scan_id`: the same for each attempt of the same scan; `evidence` is another one for each attempt
    - `metrics`: figures that a gate may judge; `telemetry`: figures that are only recorded. None: not measured
    - `plan`: the changes that a repair would make
    - `live_rows`: live rows of the copy that were compared; shares are of these
    - `examples`: lists of at most 25 keys (of several columns as a list), or of what is wrong with each
    - `accounts`: by table, in which state each row was found
    - `incomplete`: why the scan is no evidence, so that the run fails; empty if it is

    Raises ValueError for a longer list of examples, and for a name used twice among fields, figures and examples.
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
        """Return the summary as a dict of plain JSON types, for XCom and the warehouse."""
        return vars(self) | {
            "metrics": dict(self.metrics),
            "telemetry": dict(self.telemetry),
            "plan": vars(self.plan).copy(),
            "accounts": {table: vars(account).copy() for table, account in self.accounts.items()},
            "examples": {name: list(ids) for name, ids in self.examples.items()},
        }

    @property
    def rows(self) -> int:
        """How many rows of source and copy are in scope, in all tables."""
        return sum(account.rows for account in self.accounts.values())

    @property
    def proven(self) -> int:
        """How many of the `rows` are proven."""
        return sum(account.proven for account in self.accounts.values())

    @property
    def figures(self) -> Mapping[str, int]:
        """All figures by name: the measured metrics, `live_rows`, and the plan as `planned_insert`, ..."""
        measured = {name: value for name, value in self.metrics.items() if value is not None}
        planned = {f"planned_{operation}": count for operation, count in vars(self.plan).items()}
        return {**measured, "live_rows": self.live_rows, **planned}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Return the summary that `to_json` wrote as `data`. Raises UnusableSummary if the version or a key differs."""
        version = data.get("version") if isinstance(data, dict) else None
        if version != VERSION:
            raise _unusable(f"its version is {version!r}, this code reads {VERSION}")
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise _unusable(str(error)) from None

    def line(self) -> str:
        """Return the summary as one line of JSON for the log, with every figure at the top level and sorted keys."""
        flat = self.to_json() | {"event": "forensic_summary"}
        for group in ("metrics", "telemetry", "examples"):
            flat |= flat.pop(group)
        return json.dumps(flat, sort_keys=True)


def _unusable(why: str) -> UnusableSummary:
    return UnusableSummary(f"The forensic_summary that scan left can't be used ({why}): clear scan with downstream.")
