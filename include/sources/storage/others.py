"""Keys of objects that should exist, since images need them that a check does not judge."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from psycopg import sql

from include.sources.storage import images

if TYPE_CHECKING:
    from include.sources.storage.check import StorageContext

ANY_ROW = sql.SQL("true")


@dataclass(frozen=True)
class KeysOfOthers:
    """The keys, read when they are first asked for: mostly nobody does, and the application's table may be large.

    Up to `limit` images count, beginning with the ids after `start`, that were last changed before `before`. Left out
    are those of which the table `checked` has a row for which `which` is true, and those that are not proven.
    """

    context: "StorageContext"
    checked: sql.Composable
    before: datetime
    start: str
    limit: int
    which: sql.Composable

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    @cached_property
    def _keys(self) -> Sequence[str]:
        how = {"before": self.before, "without": self._left_out, "start": self.start, "limit": self.limit}
        return images.keys_of_others(self.context.images, self.context.bucket, **how)

    def _left_out(self, ids: Sequence[str]) -> Collection[str]:
        query = sql.SQL(LEFT_OUT).format(checked=self.checked, which=self.which)
        return {id_ for (id_,) in self.context.conn.execute(query, [list(ids)])}


LEFT_OUT = """
SELECT a.id::text FROM unnest(%s::uuid[]) a (id)
WHERE EXISTS (SELECT FROM {checked} c WHERE c.id = a.id AND {which})
  OR EXISTS (SELECT FROM confidence.unproven u
    WHERE u.source = 'storage' AND u.entity = 'images' AND u.key = jsonb_build_array(a.id))
"""
