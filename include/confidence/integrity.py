"""What a validation of a copy found: each check with what was expected and what is there, kept in the warehouse."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from psycopg import Connection
from psycopg.types.json import Jsonb

from include.confidence.summary import MAX_EXAMPLES


class Severity(StrEnum):
    """What a failed check means: an error fails the validation, a warning is only told."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One check's outcome. `examples` name the rows that failed it: ids, and in what, never their data.

    Rows may fail though the figures agree: one missing, another too many.
    """

    name: str
    severity: Severity
    expected: int
    actual: int
    examples: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.expected != self.actual or bool(self.examples)

    def __str__(self) -> str:
        rows = ", ".join(self.examples[:3]) + (", ..." if len(self.examples) > 3 else "")
        return f"{self.name}: expected {self.expected}, found {self.actual}" + (f" ({rows})" if rows else "")


def record(conn: Connection, source: str, run: str, findings: Sequence[Finding]) -> None:
    """Keep the findings of a run (`dag_id/run_id`), of each the first 25 examples; all or none."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO confidence.integrity_check (run, source, name, severity, expected, actual, examples)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (run, source, f.name, f.severity, f.expected, f.actual, Jsonb(f.examples[:MAX_EXAMPLES]))
                for f in findings
            ],
        )
