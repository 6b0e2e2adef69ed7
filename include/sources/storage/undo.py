"""Rollback of a sync or repair: images get their former status, error and time of change.

A dry run locks nothing. If an image changes between the check for conflicts and the write, the rollback is refused.
Rows are read after the write, since the application's database may change it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection, errors

from include.sources.storage.repair import TABLE, audit, changing, note_transaction, standing
from include.warehouse import refusals
from include.warehouse.rollback import EXAMPLES, Conflict, RollbackRefused
from include.warehouse.sync_log import Counts

BATCH = 1000

LOCK = "SELECT FROM images WHERE id = ANY (%s::uuid[]) ORDER BY id FOR UPDATE"

PUT_BACK = """
UPDATE images i SET status = b.status::image_status, error = b.error, updated_at = b.updated_at
FROM unnest(%(id)s::uuid[], %(status)s::text[], %(error)s::text[], %(updated_at)s::timestamptz[])
  AS b (id, status, error, updated_at)
WHERE i.id = b.id
"""


@dataclass(frozen=True)
class ImagesCopy:
    """The images for a rollback. `conn` is the warehouse with the audit, `images` the application's database.

    `conflicting`: ids of the images that `conflicts` has found.
    """

    conn: Connection
    images: Connection
    conflicting: set[str] = field(default_factory=set)

    def transaction(self) -> AbstractContextManager[Any]:
        return changing(self.images)

    def conflicts(self, sync_id: int) -> list[Conflict]:
        """Return the images that have changed since the sync, as one conflict. Empty if none has.

        Their ids are added to `conflicting`, so that `restore` puts them back without a further check.
        """
        changed = []
        for changes in self._changes(sync_id):
            found = standing(self.images, [id_ for id_, _, _ in changes])
            changed += [id_ for id_, _, after in changes if found.get(id_) != after]
        self.conflicting.update(changed)
        if not changed:
            return []
        later = [
            later_id
            for (later_id,) in self.conn.execute(
                "SELECT DISTINCT sync_id FROM confidence.change_log"
                " WHERE table_name = %s AND key ->> 'id' = ANY (%s) AND sync_id > %s ORDER BY 1",
                [TABLE, changed, sync_id],
            )
        ]
        who = f"by sync_id {', '.join(map(str, later))}" if later else "by the application"
        return [Conflict.of_rows(TABLE, who, [{"id": id_} for id_ in changed], later)]

    def restore(self, sync_id: int, rollback_id: int, *, dry_run: bool) -> Mapping[str, Counts]:
        """Write status, error and updated_at as before the sync; return the counts. A deleted image stays deleted.

        Raises RollbackRefused if an image was changed meanwhile, or does not show its former state after the write.
        """
        batches = self._changes(sync_id)
        if dry_run:
            return {TABLE: Counts(updated=sum(map(self._count_existing, batches)))}
        restored = sum(self._put_back(changes, rollback_id) for changes in batches)
        note_transaction(self.conn, self.images, rollback_id)
        return {TABLE: Counts(updated=restored)}

    def _count_existing(self, changes: Sequence[tuple[str, dict, dict]]) -> int:
        """Return how many of the changed images still exist."""
        return len(standing(self.images, [id_ for id_, _, _ in changes]))

    def _put_back(self, changes: Sequence[tuple[str, dict, dict]], rollback_id: int) -> int:
        """Write the former state of the changed images that still exist, and log it; return how many these are."""
        ids = [id_ for id_, _, _ in changes]
        self.images.execute(LOCK, [ids])
        found = standing(self.images, ids)
        self._refuse_if_any(
            [id_ for id_, _, after in changes if found.get(id_) != after and id_ not in self.conflicting],
            "were changed at this moment. Run the rollback again",
        )
        former = {id_: before for id_, before, _ in changes if id_ in found}
        written = self._write(former)
        self._refuse_if_any(
            [id_ for id_, before in former.items() if not _shows(written.get(id_), before)],
            "do not take their former status, as if a trigger or a policy of the application's database forbade it."
            " Have that changed, then run the rollback again",
        )
        audit(self.conn, rollback_id, [(id_, found[id_], written[id_]) for id_ in former])
        return len(former)

    def _write(self, former: Mapping[str, dict]) -> Mapping[str, dict]:
        """Write the former state of each image (by id); return the states that the database shows afterwards."""
        columns = {name: [row[name] for row in former.values()] for name in ("status", "error", "updated_at")}
        try:
            self.images.execute(PUT_BACK, {"id": list(former), **columns})
            # Run triggers now that would otherwise wait for the commit.
            self.images.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except (errors.OperationalError, errors.InterfaceError):
            raise
        except errors.Error as error:
            raise RollbackRefused(
                f"the application's database refuses the former status of {TABLE} ({refusals.refusal(error)}). Nothing"
                " was written: have that changed, then run the rollback again"
            ) from None
        return standing(self.images, list(former))

    def _refuse_if_any(self, ids: Sequence[str], why: str) -> None:
        if ids:
            examples = ", ".join(ids[:EXAMPLES])
            raise RollbackRefused(f"{len(ids)} of {TABLE} (such as {examples}) {why}. Nothing was written")

    def _changes(self, sync_id: int) -> Iterator[Sequence[tuple[str, dict, dict]]]:
        """Yield the sync's changes (id, before, after), a batch at a time."""
        query = (
            "SELECT change_id, key ->> 'id', before, after FROM confidence.change_log"
            " WHERE sync_id = %s AND table_name = %s AND change_id > %s ORDER BY change_id LIMIT %s"
        )
        last = 0
        while found := self.conn.execute(query, [sync_id, TABLE, last, BATCH]).fetchall():
            yield [change for _, *change in found]
            last = found[-1][0]


def _shows(now: Mapping[str, str | None] | None, before: Mapping[str, str | None]) -> bool:
    """Return whether status and error are the former ones. `updated_at` may differ: a trigger may set it."""
    return now is not None and (now["status"], now["error"]) == (before["status"], before["error"])
