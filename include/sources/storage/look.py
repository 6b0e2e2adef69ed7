"""Look at objects: by LIST if many are needed, by HEAD if few are. The result of each look is staged."""

import json
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from psycopg import Connection, sql

from include.api.bucket import Bucket, Look, Presence, Way
from include.api.s3_ranges import Range
from include.sources.storage import images
from include.sources.storage.images import ORIGINAL_MISSING, STAGED_MISSING, Size
from include.warehouse.ranges import Ranges, read_to_end
from include.warehouse.staging import Stage

log = logging.getLogger(__name__)

PAGE = 1000
# A page of a LIST costs a store about as much as two HEADs.
LIST_COST = 2
# Pages of a LIST, or batches of HEADs, between two lines of progress.
PROGRESS_EVERY = 100
# How many times as many ranges there are as requests at once, if several tasks read: who is quick takes more of them.
RANGES_EACH = 4
# How many present objects are asked for again if many looks in a row have no answer.
KNOWN = 3


def prove(bucket: Bucket) -> None:
    """Return if the bucket exists and can be listed. Raises what `Bucket.prove` and `Bucket.list_from` raise.

    Without the listing a server that is no store could pass: it may have a page at the bucket's address, and answer 404
    to all objects.
    """
    bucket.prove()
    bucket.list_from("", 1)


def listing_is_cheaper(objects: int, size: Size) -> bool:
    """Return whether listing the whole bucket costs less than a HEAD of so many objects."""
    return objects > LIST_COST * math.ceil(size.known / PAGE)


def list_bucket(
    bucket: Bucket, copy: Connection, objects: Stage, *, expected: int, workers: int, slices: int = 1
) -> None:
    """Stage every key of the bucket, several ranges at once. A later attempt goes on where it was cut off.

    `slices`: so many tasks read together, this one included; the others by `list_claimed`.
    """

    def read(ranges: Ranges) -> Iterator[None]:
        for _ in list_claimed(bucket, ranges, workers):
            yield
            if objects.pull.pages // PROGRESS_EVERY > _logged(objects) // PROGRESS_EVERY:
                _log_progress(objects, "objects_listed")

    read_to_end(objects, lambda: _bounds(bucket, copy, expected, workers, slices), read)
    if objects.pull.pages != _logged(objects):
        _log_progress(objects, "objects_listed")


def list_claimed(bucket: Bucket, ranges: Ranges, workers: int) -> Iterator[None]:
    """Claim ranges, `workers` at a time, and stage their keys until none is free. Yields after each page."""
    while claimed := ranges.claim(workers):
        parts = [Range(*each.bounds) for each in claimed]
        positions = {index: each.position for index, each in enumerate(claimed) if each.position is not None}
        for listing in bucket.list(parts, positions=positions, workers=workers):
            rows = (_listed(key, Presence.EMPTY if key in listing.empty else Presence.PRESENT) for key in listing.keys)
            ranges.store(claimed[listing.range], rows, position=listing.position)
            yield


def look_at_images(
    bucket: Bucket, staged: Stage, objects: Stage, *, batch: int, workers: int, others: Iterable[str]
) -> None:
    """Stage a HEAD of each object that the staged images need, a batch of images at a time.

    What else a url may mean is asked for only if the object is not found under the url's standard reading.

    `others`: keys of objects that should exist, to tell refusals from a store that is down before any object is found.
    """
    while not objects.pull.complete:
        after = objects.pull.position
        found = staged.conn.execute(
            sql.SQL(LAST).format(images=staged.sql), {"after": after, "batch": batch}
        ).fetchone()
        last = found and found[0]
        looks = _look_at_batch(bucket, staged, objects, after, last, workers, others) if last else []
        objects.append(looks, next_position=last, page_info={})
        if last is None or objects.pull.pages % PROGRESS_EVERY == 0:
            _log_progress(objects, "objects_asked_for")


def _look_at_batch(
    bucket: Bucket,
    staged: Stage,
    objects: Stage,
    after: str | None,
    last: str,
    workers: int,
    others: Iterable[str],
) -> list[dict[str, Any]]:
    """Return a HEAD of each object that the images after `after` up to `last` need."""
    looks: list[dict[str, Any]] = []
    for keys in (FIRST_KEYS, OTHER_KEYS):
        present = [look["key"] for look in looks if look["presence"] in (Presence.PRESENT, Presence.EMPTY)]
        which = keys.format(objects=objects.sql)
        needed = sql.SQL(NEEDED).format(images=staged.sql, objects=objects.sql, which=which, **MESSAGES)
        batch = {"after": after, "last": last, "present": present, "asked": [look["key"] for look in looks]}
        asked = [key for (key,) in staged.conn.execute(needed, batch)]
        looks += _asked(bucket, asked, workers, Way.HEAD, present[:KNOWN] or known(objects) or others)
    return looks


def look_again(
    bucket: Bucket,
    suspects: Callable[[str], list[str]],
    looks: Stage,
    way: Way,
    *,
    by_pages: bool = False,
    workers: int,
    known: Iterable[str] = (),
) -> None:
    """Look at each suspect once more and stage the results in `looks`.

    - `suspects(after)` returns the next keys in order, some thousands at most, none at the end
    - `way`: ask for each key by HEAD or by LIST
    - `by_pages`: instead read whole pages of the listing around the keys, which costs less if there are many
    - `known`: see `Bucket.look_all`
    """
    while not looks.pull.complete:
        keys = suspects(looks.pull.position or "")
        found = _listed_around(bucket, keys) if by_pages else _asked(bucket, keys, workers, way, known)
        looks.append(found, next_position=keys[-1] if keys else None, page_info={})


def known(objects: Stage) -> list[str]:
    """Return the keys of some objects that are present."""
    query = sql.SQL("SELECT key FROM {} WHERE presence = 'present' LIMIT {}").format(objects.sql, KNOWN)
    return [key for (key,) in objects.conn.execute(query)]


def _listed_around(bucket: Bucket, keys: list[str]) -> Iterator[dict[str, Any]]:
    """Yield whether the listing has each key. Each page begins just before the first key that is not settled."""
    place, after, more = 0, "", True
    while place < len(keys) and more:
        after = max(after, keys[place][:-1])
        page = bucket.list_from(after, PAGE)
        there, more, after = set(page.keys), page.more, page.keys[-1] if page.keys else after
        end = bisect_right(keys, after) if more else len(keys)
        for key in keys[place:end]:
            found = Presence.EMPTY if key in page.empty else Presence.PRESENT if key in there else Presence.ABSENT
            yield _listed(key, found)
        place = end


def _asked(
    bucket: Bucket, keys: Iterable[str], workers: int, way: Way, known: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """Yield the result of a look at each key, as a row of OBJECTS."""
    absent = False
    for look in bucket.look_all(keys, workers, way=way, known=known):
        absent = absent or look.presence is Presence.ABSENT
        yield _as_row(look, way)
    if absent:
        # If the bucket itself were gone by now, its objects would look missing too.
        bucket.prove()


def _as_row(look: Look, way: Way) -> dict[str, Any]:
    return {**vars(look), "reason": look.reason or None, "way": way}


def _listed(key: str, presence: Presence) -> dict[str, Any]:
    return {"key": key, "presence": presence, "way": Way.LIST, "later": False, "restorable": False}


def _bounds(bucket: Bucket, copy: Connection, expected: int, workers: int, slices: int) -> list[list[str | None]]:
    """Return start and end of each range of the listing; one range if the store can't begin at any key."""
    if not bucket.honours_start_after:
        return [["", None]]
    many = workers if slices == 1 else workers * slices * RANGES_EACH
    borders = _borders(images.sample_keys(copy, bucket), min(many, expected // (10 * PAGE)))
    return [[start or "", end] for start, end in pairwise([None, *borders, None])]


def _borders(keys: list[str], parts: int) -> list[str]:
    if parts < 2:
        return []
    return sorted({keys[len(keys) * part // parts] for part in range(1, parts)} if keys else ())


def progress(objects: Stage) -> Sequence[Mapping[str, Any]]:
    """Return the lines of progress so far, those of earlier attempts included."""
    return (objects.pull.progress or {}).get("lines", [])


def _logged(objects: Stage) -> int:
    """Return how many pages the last line of progress told."""
    lines = progress(objects)
    return lines[-1]["pages"] if lines else 0


def _log_progress(objects: Stage, count_name: str) -> None:
    """Log a line of progress, and keep it for `progress`. `count_name`: what the line calls the number of objects."""
    pull = objects.pull
    line: Mapping[str, Any] = {
        "event": "scan_progress",
        "entity": pull.entity,
        "pages": pull.pages,
        count_name: pull.rows_read,
    }
    objects.save_progress(lines=[*progress(objects), line])
    log.info(json.dumps(line, sort_keys=True))


MESSAGES = {"original_missing": sql.Literal(ORIGINAL_MISSING), "staged_missing": sql.Literal(STAGED_MISSING)}

LAST = """
SELECT id::text FROM (
  SELECT id FROM {images} WHERE %(after)s::uuid IS NULL OR id > %(after)s ORDER BY id LIMIT %(batch)s) batch
ORDER BY 1 DESC LIMIT 1
"""

# An image that a run has marked may have its objects back. Images may share an object that was looked at before.
NEEDED = """
WITH batch AS (
  SELECT *, status = 'error' AND error IN ({original_missing}, {staged_missing}) AS ours FROM {images}
  WHERE (%(after)s::uuid IS NULL OR id > %(after)s) AND id <= %(last)s AND NOT deleted AND NOT young
), place AS (
  SELECT original_key AS first, original_others AS others FROM batch WHERE status <> 'error' OR ours
  UNION ALL
  SELECT staged_key, staged_others FROM batch WHERE status = 'ready' OR ours
)
SELECT DISTINCT key FROM ({which}) needed
WHERE key IS NOT NULL AND key <> ALL (%(asked)s) AND NOT EXISTS (SELECT FROM {objects} o WHERE o.key = needed.key)
ORDER BY key
"""
FIRST_KEYS = sql.SQL("SELECT first AS key FROM place")
OTHER_KEYS = sql.SQL("""
  SELECT unnest(others) AS key FROM place WHERE first <> ALL (%(present)s) AND NOT EXISTS (
    SELECT FROM {objects} o WHERE o.key = place.first AND o.presence IN ('present', 'empty'))
""")
