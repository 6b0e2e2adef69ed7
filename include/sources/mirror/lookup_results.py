"""What the look-ups of a list in brief have shown besides its records."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from include.sources.mirror.brief import CompletePage, SkippedRecord
from include.warehouse.staging import Stage, staged

# Why a listed record that is not at its own address is unproven: one of the two addresses is wrong.
LISTED_ONLY = "the list shows it, but its own address shows it as deleted or not at all"


@dataclass(frozen=True)
class LookupResults:
    """The results of an entity's look-ups, kept with the pull of its `stage`."""

    stage: Stage

    def save(self, page: CompletePage) -> None:
        """Store with the pull what the look-ups of a page have shown besides its records."""
        refused = [(each.key, True, each.reason) for each in page.skipped if each.failed]
        if self.stage.pull.purpose != "sync":
            refused += [(list(key), True, LISTED_ONLY) for key in page.absent]
        self.stage.remember_refused(refused)
        self.stage.save_progress(
            deleted=[*self._kept("deleted"), *map(list, page.deleted)],
            delete_events=[*self._kept("delete_events"), *map(list, page.delete_events)],
            skipped=[*self._kept("skipped"), *map(asdict, page.skipped)],
            absent=[*self._kept("absent"), *(list(map(str, key)) for key in page.absent)],
            known=self.known + page.known,
        )

    @property
    def deleted_keys(self) -> list[list]:
        """The keys of records whose own address shows a tombstone, and that no list shows."""
        listed = {tuple(each.key) for each in self.all_skipped}
        return [key for key in self._kept("deleted") if tuple(key) not in listed]

    @property
    def event_deleted_keys(self) -> list[list]:
        """The keys of the records that an event reports as deleted."""
        return self._kept("delete_events")

    @property
    def absent_keys(self) -> list[list[str]]:
        """The keys, as texts, of listed records that are not at their own address."""
        return self._kept("absent")

    def listed(self, keys: Collection[tuple]) -> set[tuple]:
        """Return the keys that a list shows, whether their records were read in full or not."""
        unread = {tuple(key) for key in self.absent_keys} | {tuple(map(str, each.key)) for each in self.all_skipped}
        return staged(self.stage, keys) | {key for key in keys if tuple(map(str, key)) in unread}

    @property
    def unfound_keys(self) -> list[list[str]]:
        """The `absent_keys` that no second look has found either."""
        keys = self.absent_keys
        found = staged(self.stage, map(tuple, keys)) if keys else ()
        there = {tuple(map(str, key)) for key in found}
        return [key for key in keys if tuple(key) not in there]

    @property
    def all_skipped(self) -> list[SkippedRecord]:
        """The listed records that were not read with one of their lists, once for each list."""
        return [SkippedRecord(**each) for each in self._kept("skipped")]

    @property
    def contradicted(self) -> Mapping[tuple, str]:
        """The keys of the listed records whose own address contradicts their list, with the reason of each."""
        return {tuple(each.key): each.reason for each in self.all_skipped if each.contradicted}

    @property
    def skipped_records(self) -> list[SkippedRecord]:
        """The listed records that were not read, and were not brought by another list."""
        skipped = {tuple(each.key): each for each in self.all_skipped}
        found = staged(self.stage, skipped) if skipped else set()
        return [each for key, each in skipped.items() if key not in found]

    @property
    def known(self) -> int:
        """The number of listed records that were not looked up, as in `CompletePage`."""
        return self._progress.get("known", 0)

    @property
    def _progress(self) -> Mapping[str, Any]:
        return self.stage.pull.progress or {}

    def _kept(self, name: str) -> list:
        return self._progress.get(name, [])
