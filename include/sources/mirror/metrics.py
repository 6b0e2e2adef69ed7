"""What the metrics of a mirrored source mean, in a sentence each."""

from collections.abc import Mapping

from include.sources.mirror.entity import Entity
from include.sources.mirror.invariant import Invariant

METRICS: Mapping[str, str] = {
    "api_rows_scanned": "Rows that the list showed and that can be stored, repeats included.",
    "api_unique_ids": "Different rows that the list showed.",
    "api_duplicate_rows": "Rows that the list showed more than once.",
    "api_duplicate_rows_differing": "Repeated rows whose content differs from the row that is kept.",
    "db_total_rows": "Live rows of the copy.",
    "api_unique_not_in_db": "Rows that the source's list showed and the copy lacks, before each was asked for by "
    "itself; refused rows count, rows that changed after the last sync don't.",
    "confirmed_missing": "Rows that the copy lacks and a repair would insert.",
    "db_not_in_api_unique": "Live rows of the copy that the source's list did not show; a repair deletes only "
    "those that were then asked for by themselves and are gone.",
    "confirmed_deleted": "Live rows of the copy that are proven to be gone at the source.",
    "rows_differing": "Live rows of the copy that are proven to differ from the source.",
    "nested_rows_drifted": "Nested rows that a repair would insert, update or delete, in all tables of the entity.",
    "feed_noise": "Rows that seemed wrong, and were right when each was asked for by itself: the list was wrong "
    "for a moment.",
    "rows_young": "Rows that changed after the last sync, so that the next one brings them.",
    "rows_due": "Rows that lack only what was not kept when they were written, such as `extra`: a full sync "
    "brings them.",
    "rows_refused": "Rows of the list that can't be stored.",
    "partitions_asked": "Partitions that the scan asked for.",
}
# Of each table of nested rows.
NESTED: Mapping[str, str] = {
    "missing": "Nested rows of that table that a repair would insert.",
    "surplus": "Nested rows of that table that a repair would delete.",
    "differing": "Nested rows of that table that a repair would update.",
}
VIOLATIONS = "Rows of the copy that break the rule which the name tells."


def metric_texts(entities: tuple[Entity, ...], checks: tuple[Invariant, ...]) -> dict[str, str]:
    """Return what the metrics mean that every mirrored source with these entities and invariants has."""
    nested = {
        f"{part.table.name}_{what}": text
        for entity in entities
        for part in entity.parts
        for what, text in NESTED.items()
    }
    return {**METRICS, **nested, **{check.metric: VIOLATIONS for check in checks}}
