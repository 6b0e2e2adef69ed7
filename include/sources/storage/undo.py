"""The way back: the images of a sync as they were before it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from include.sources.storage.repair import TABLE, audit, changing, note_transaction, state
from include.warehouse.rollback import EXAMPLES
from include.warehouse.sync_log import Counts

BATCH = 1000

FOUND = """
SELECT id::text, status::text, error, updated_at FROM images WHERE id = ANY (%s::uuid[]) ORDER BY id FOR UPDATE
"""

PUT_BACK = """
UPDATE images i SET status = b.status::image_status, error = b.error, updated_at = b.updated_at
FROM unnest(%(id)s::uuid[], %(status)s::text[], %(error)s::text[], %(updated_at)s::timestamptz[])
  AS b (id, status, error, updated_at)
WHERE i.id = b.id
"""


@dataclass(frozen=True)
class ImagesCopy:
    """The images' database as a rollback needs it, with the warehouse that has the audit."""

    conn: Connection
    images: Connection

    def transaction(self) -> AbstractContextManager[Any]:
        return changing(self.images)

    def conflicts(self, sync_id: int) -> list[str]:
        """Images that are not as the sync left them; those that it changed stay locked until the end."""
        changed = []
        for changes in self._changes(sync_id):
            found = self._found(changes)
            changed += [id_ for id_, _, after in changes if found.get(id_) != after]
        if not changed:
            return []
        later = [
            str(later_id)
            for (later_id,) in self.conn.execute(
                "SELECT DISTINCT sync_id FROM confidence.change_log"
                " WHERE table_name = %s AND key ->> 'id' = ANY (%s) AND sync_id > %s ORDER BY 1",
                [TABLE, changed, sync_id],
            )
        ]
        who = f"by sync_id {', '.join(later)}" if later else "by the application"
        return [f"{len(changed)} of {TABLE} {who} (such as {', '.join(changed[:EXAMPLES])})"]

    def restore(self, sync_id: int, own: int, *, dry_run: bool) -> Mapping[str, Counts]:
        """Status, error and updated_at as before; an image that is gone stays gone."""
        restored = 0
        for changes in self._changes(sync_id):
            found = self._found(changes)
            back = [(id_, before) for id_, before, _ in changes if id_ in found]
            columns = {name: [before[name] for _, before in back] for name in ("status", "error", "updated_at")}
            self.images.execute(PUT_BACK, {"id": [id_ for id_, _ in back], **columns})
            audit(self.conn, own, [(id_, found[id_], before) for id_, before in back])
            restored += len(back)
        note_transaction(self.conn, self.images, own)
        return {TABLE: Counts(updated=restored)}

    def _changes(self, sync_id: int) -> Iterator[Sequence[tuple[str, dict, dict]]]:
        """The sync's changes (id, before, after), a batch at a time."""
        query = (
            "SELECT change_id, key ->> 'id', before, after FROM confidence.change_log"
            " WHERE sync_id = %s AND table_name = %s AND change_id > %s ORDER BY change_id LIMIT %s"
        )
        last = 0
        while found := self.conn.execute(query, [sync_id, TABLE, last, BATCH]).fetchall():
            yield [change for _, *change in found]
            last = found[-1][0]

    def _found(self, changes: Sequence[tuple[str, dict, dict]]) -> Mapping[str, dict]:
        rows = self.images.execute(FOUND, [[id_ for id_, _, _ in changes]]).fetchall()
        return {id_: state(*rest) for id_, *rest in rows}
