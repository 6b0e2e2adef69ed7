"""The application's images: which rows a check reads, where their objects should be, and how rows are staged."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from psycopg import Connection, sql

from include.api.bucket import Bucket
from include.sources.base import ScanRefused
from include.sources.storage.urls import UnreadableUrl, locate
from include.warehouse.readers import text
from include.warehouse.table import Column, Table

# The application's tables that are read.
TABLES = ("images", "original_images")
STATUSES = ("queued", "processing", "ready", "error")
ORIGINAL_MISSING = "original missing in storage"
STAGED_MISSING = "staged missing in storage"
# Status and error of an image that a check has marked.
MARKED = sql.SQL("(i.status = 'error' AND i.error IN ({}, {}))").format(
    sql.Literal(ORIGINAL_MISSING), sql.Literal(STAGED_MISSING)
)

# A client may upload an object this long after its row exists, and a worker's change may become visible this late.
GRACE = timedelta(minutes=15)


def _as_it_is(value: Any) -> Any:
    return value


# The columns of images and objects that a check stages.
IMAGES = Table(
    schema="storage",
    name="images",
    columns=(
        *(Column(name, _as_it_is) for name in ("id", "status", "error", "updated_at", "deleted", "young")),
        *(Column(name, _as_it_is) for name in ("has_staged", "original_place", "staged_place")),
        *(Column(name, text) for name in ("original_key", "staged_key")),
        *(Column(name, _as_it_is) for name in ("original_others", "staged_others")),
    ),
    keeps_extra=False,
)
OBJECTS = Table(
    schema="storage",
    name="objects",
    columns=(
        *(Column(name, text) for name in ("key", "presence", "reason", "way")),
        *(Column(name, _as_it_is) for name in ("later", "restorable")),
    ),
    key=("key",),
    version=None,
    keeps_extra=False,
)


@dataclass(frozen=True)
class Scope:
    """Which images are checked, all by default.

    Filters: of a project, in a status, at most `limit` (0: no limit) with ids after `cursor`. `since`: those changed
    after that time, and all that are marked, since their objects may be back.
    """

    project_id: str | None = None
    status: str | None = None
    limit: int = 0
    cursor: str | None = None
    since: datetime | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Scope":
        """Return the scope that a run's params ask for. Raises ScanRefused, naming the param that is wrong."""
        status = params["status"] or None
        if status not in (None, *STATUSES):
            raise ScanRefused(f"status {status!r} is none of {', '.join(STATUSES)}: trigger a new run with one of them")
        return cls(
            project_id=_uuid("project_id", params["project_id"]),
            status=status,
            limit=params["limit"],
            cursor=_uuid("cursor", params["cursor"]),
        )

    @property
    def whole(self) -> bool:
        """Whether the scope has every image. Only then can an object be called an orphan."""
        return self == Scope()

    def __str__(self) -> str:
        parts = [
            self.project_id and f"project {self.project_id}",
            self.status and f"status {self.status}",
            self.since and f"changed since {self.since.isoformat()}",
            (self.limit or self.cursor) and f"{self.limit or 'all'} rows after {self.cursor or 'the start'}",
        ]
        return ", ".join(part for part in parts if part) or "all"

    def bounds(self, ranges: int) -> list[list[str | None]]:
        """Return the ids after which and up to which each of so many ranges has images; ids are random."""
        borders = [str(UUID(int=2**128 * number // ranges)) for number in range(1, ranges)]
        # What a limit or a cursor leaves out depends on the order of all ids.
        return [list(pair) for pair in pairwise([None, *([] if self.limit or self.cursor else borders), None])]

    def where(self, after: str | None, upto: str | None = None) -> sql.Composed:
        """Return the condition on images `i` in the scope, with ids after `after`, or else after the cursor."""
        # Deleted images are read only to tell that their objects are no orphans.
        conditions = [sql.SQL("true" if self.whole else "i.deleted_at IS NULL")]
        for condition, value in (
            ("i.id > {}", after or self.cursor),
            ("i.id <= {}", upto),
            ("i.project_id = {}", self.project_id),
            ("i.status::text = {}", self.status),
            ("(i.updated_at > {} OR {marked})", self.since),
        ):
            if value is not None:
                conditions.append(sql.SQL(condition).format(sql.Literal(value), marked=MARKED))
        return sql.SQL(" AND ").join(conditions)


@dataclass(frozen=True)
class Size:
    """The size of a check: objects to look at (`to_check`), and objects that the whole table names (`known`)."""

    to_check: int
    known: int


# Within what Python can hold, so that one image with another time (infinity, or none) doesn't end every check.
CHANGED = sql.SQL("least(greatest(i.updated_at, '0001-01-02 00:00Z'), '9999-12-30 00:00Z')")

READ = """
SELECT i.id::text, coalesce(i.status::text, ''), i.error, {changed}, i.deleted_at IS NOT NULL, {young},
  i.original_url, o.s3_key, i.staged_url
FROM images i LEFT JOIN original_images o ON o.id = i.original_image_id AND i.original_url IS NULL
WHERE {where} ORDER BY i.id {rest}
"""

# A time of change far in the future says nothing about an image's age, so such an image is not young. Not after
# `started`: images may be read hours later, after a long listing or by another attempt.
YOUNG = "{changed} > {started} - {grace} AND {changed} <= clock_timestamp() + {grace}"
NOT_YOUNG = sql.SQL("false")

# Ids are random, so the images after a random id are a fair sample.
OTHERS = """
i.deleted_at IS NULL AND i.status IN ('queued', 'ready') AND i.updated_at <= {before}
AND ({after}::uuid IS NULL OR i.id > {after}) AND ({upto}::uuid IS NULL OR i.id <= {upto})
"""
# So many other images are read at once, until enough are found.
OTHERS_READ = 1000

# Ids are random, so the first rows are a fair sample.
SAMPLE = "SELECT original_url, staged_url FROM images ORDER BY id LIMIT 2000"

SIZE = """
SELECT count(i.id) FILTER (WHERE {where})
    + count(i.staged_url) FILTER (WHERE i.status = 'ready' AND {where}),
  count(*) + count(i.staged_url)
FROM images i
"""


def clock(images: Connection) -> datetime:
    """Return the time of the application's database, which decides whether a row is young."""
    return images.execute("SELECT clock_timestamp()").fetchone()[0]


def size(images: Connection, scope: Scope) -> Size:
    """Return the size of a check of the scope."""
    to_check, known = images.execute(sql.SQL(SIZE).format(where=scope.where(None))).fetchone()
    return Size(min(to_check, 2 * scope.limit) if scope.limit else to_check, known)


def read(
    images: Connection,
    scope: Scope,
    bucket: Bucket,
    *,
    started: datetime,
    batch: int,
    after: str | None,
    upto: str | None,
    taken: int,
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Yield the scope's images by id as (rows for the stage IMAGES, id to go on after; None at the end).

    `after`: the last id that was read before. `upto`: the last id to read. `taken`: how many rows were read before.
    `started`: the application's time at the beginning; rows changed after it, or within GRACE before it, are young.
    """
    while True:
        limit = min(batch, scope.limit - taken) if scope.limit else batch
        young = sql.SQL(YOUNG).format(changed=CHANGED, started=sql.Literal(started), grace=sql.Literal(GRACE))
        rest = sql.SQL("LIMIT {}").format(sql.Literal(limit))
        rows = images.execute(_query(scope.where(after, upto), rest, young)).fetchall()
        taken += len(rows)
        after = rows[-1][0] if len(rows) == limit and taken != scope.limit else None
        yield [_image(row, bucket) for row in rows], after
        if after is None:
            return


def read_again(
    images: Connection, ids: Sequence[str], bucket: Bucket, *, lock: bool = False
) -> dict[str, dict[str, Any]]:
    """Return the present rows of the images of these ids, by id. `lock`: lock them until the transaction ends."""
    where = sql.SQL("i.id = ANY ({})").format([UUID(id_) for id_ in ids])
    rest = sql.SQL("FOR UPDATE OF i" if lock else "")
    return {row[0]: _image(row, bucket) for row in images.execute(_query(where, rest)).fetchall()}


def _query(where: sql.Composable, rest: sql.Composable, young: sql.Composable = NOT_YOUNG) -> sql.Composed:
    return sql.SQL(READ).format(changed=CHANGED, young=young, where=where, rest=rest)


def keys_of_others(
    images: Connection,
    bucket: Bucket,
    *,
    before: datetime,
    without: Callable[[Sequence[str]], Collection[str]],
    start: str,
    limit: int,
) -> list[str]:
    """Return the keys of objects that up to `limit` other images need, beginning with the ids after `start`.

    Only images that were last changed before `before` count. `without` returns which of some ids are left out.
    """
    found: list[tuple] = []
    for after, upto in ((UUID(start), None), (None, UUID(start))):
        more = True
        while more and len(found) < limit:
            where = sql.SQL(OTHERS).format(before=before, after=after, upto=upto)
            rows = images.execute(_query(where, sql.SQL("LIMIT {}").format(OTHERS_READ))).fetchall()
            left_out = without([row[0] for row in rows])
            found += [row for row in rows if row[0] not in left_out][: limit - len(found)]
            more, after = len(rows) == OTHERS_READ, UUID(rows[-1][0]) if rows else None
    needed = [_image(row, bucket) for row in found]
    keys = [[image["original_key"], image["status"] == "ready" and image["staged_key"]] for image in needed]
    return sorted({key for pair in keys for key in pair if key})


def sample_keys(images: Connection, bucket: Bucket) -> list[str]:
    """Return the sorted keys of some images, by which to cut the bucket into ranges of about the same size."""
    places = (_place(url, bucket) for urls in images.execute(SAMPLE) for url in urls)
    return sorted(place.key for place in places if place.key)


@dataclass(frozen=True)
class _Place:
    """Where an object of an image should be.

    - `state`: `here` (in the bucket), `foreign` (in another one), `unreadable` (the url can't be read), `none` (no
      url), or `here or` what else the url may mean (see `Location.otherwise`)
    - `key`: its key if it may be here; `others`: other keys that the url may mean, None if there are none
    """

    state: str
    key: str | None = None
    others: Sequence[str] | None = None


def _image(row: tuple, bucket: Bucket) -> dict[str, Any]:
    """Turn a row that READ has fetched from the application into a row for the stage IMAGES."""
    id_, status, error, updated_at, deleted, young, original_url, shared_key, staged_url = row
    original = _shared(shared_key, bucket) if original_url is None and shared_key else _place(original_url, bucket)
    staged = _place(staged_url, bucket)
    return {
        "id": id_,
        "status": status,
        "error": error,
        "updated_at": updated_at,
        "deleted": deleted,
        "young": young,
        "has_staged": staged_url is not None,
        "original_place": original.state,
        "original_key": original.key,
        "original_others": original.others,
        "staged_place": staged.state,
        "staged_key": staged.key,
        "staged_others": staged.others,
    }


def _place(url: str | None, bucket: Bucket) -> _Place:
    """Return where the url says that the object is."""
    if url is None:
        return _Place("none")
    try:
        location = locate(url, bucket.name, bucket.host)
    except UnreadableUrl:
        return _Place("unreadable")
    if location.bucket != bucket.name:
        return _Place("foreign")
    key, *others = location.keys
    return _Place(f"here or {location.otherwise}" if location.otherwise else "here", key, others or None)


def _shared(key: str, bucket: Bucket) -> _Place:
    """Return where the object of a shared original is, by its key, which may also be a url."""
    # The key may be written in other ways than the store has it, as in a url that is not encoded.
    as_key = _place(f"s3://{bucket.name}/{key}", bucket)
    if "://" not in key:
        return as_key
    as_url = _place(key, bucket)
    first, *others = dict.fromkeys(
        each for place in (as_url, as_key) if place.key for each in (place.key, *(place.others or ()))
    ) or [None]
    return _Place(f"here or {as_url.state}" if first and not as_url.key else as_url.state, first, others or None)


def _uuid(param: str, value: str | None) -> str | None:
    if not value:
        return None
    try:
        return str(UUID(value))
    except ValueError:
        raise ScanRefused(f"{param} is no uuid: trigger a new run with one, or leave it empty") from None
