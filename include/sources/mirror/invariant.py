"""The rules inside the copy of a mirrored source."""

from dataclasses import dataclass

from psycopg import sql

from include.confidence.integrity import Severity


@dataclass(frozen=True)
class Invariant:
    """A rule inside the copy. `query` selects the keys of the rows that break it.

    `entity`: the entity whose scans count those rows, as the metric `<name>_violations`.
    """

    name: str
    entity: str
    query: sql.Composable
    severity: Severity = Severity.ERROR

    @property
    def metric(self) -> str:
        return f"{self.name}_violations"
