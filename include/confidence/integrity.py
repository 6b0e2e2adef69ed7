"""The results of a validation (mode `validate`), which checks rules inside a copy, kept in the warehouse."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from psycopg import Connection
from psycopg.types.json import Jsonb

from include.confidence.summary import MAX_EXAMPLES


class Severity(StrEnum):
    """What a failed check means: an error fails the validation, a warning is only reported."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """The result of one check: a figure that was `expected`, and the `actual` one.

    `examples` name rows that fail the check, by id and never with their data. Rows may fail although the figures agree,
    if one is missing and another is too many.
    """

    name: str
    severity: Severity
    expected: int
    actual: int
    examples: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the figures differ or a row fails."""
        return self.expected != self.actual or bool(self.examples)

    def __str__(self) -> str:
        rows = ", ".join(self.examples[:3]) + (", ..." if len(self.examples) > 3 else "")
        return f"{self.name}: expected {self.expected}, found {self.actual}" + (f" ({rows})" if rows else "")


def record(conn: Connection, source: str, run: str, findings: Sequence[Finding]) -> None:
    """Keep the findings of a run (`dag_id/run_id`), each with its first 25 examples; all of them or none."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO confidence.integrity_check (run, source, name, severity, expected, actual, examples)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (run, source, f.name, f.severity, f.expected, f.actual, Jsonb(f.examples[:MAX_EXAMPLES]))
                for f in findings
            ],
        )
