"""Write the status of images in the application's database, which may refuse single ones."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Connection, errors

from include.warehouse.refusals import concerns_one, passes, refusal

log = logging.getLogger(__name__)

# If so many images of a batch are refused, the cause is hardly theirs.
MOST_REFUSED = 50
# No right to the table or a column, or a row that row level security refuses.
ROW_SECURITY = "42501"

UPDATE = """
UPDATE images i SET status = p.new_status::image_status, error = p.new_error, updated_at = clock_timestamp()
FROM unnest(%(id)s::uuid[], %(new_status)s::text[], %(new_error)s::text[]) AS p (id, new_status, new_error)
WHERE i.id = p.id
"""


def update_images(images_: Connection, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Write the planned status of the images. Return the ids of those that the database refuses, with the reasons.

    All are written by one statement. If that fails, it is each half's turn, and so on. Raises the database's error if
    it concerns all images, or if MOST_REFUSED are refused: then the cause is hardly theirs, and rows stay locked.
    """
    refused: dict[str, str] = {}
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        try:
            _update_at_once(images_, part)
        except errors.Error as error:
            if _concerns_all(error, first=part is rows):
                raise
            if len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
                continue
            refused[part[0]["id"]] = refusal(error)
            if len(refused) == MOST_REFUSED:
                log.error(
                    "the application's database refuses one image after the other, so nothing is written: look for a"
                    " trigger or a constraint of images that is broken, mend it, and run the task again (%s)",
                    refusal(error),
                )
                raise
    return refused


def _update_at_once(images_: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    with images_.transaction():
        images_.execute(UPDATE, {name: [row[name] for row in rows] for name in ("id", "new_status", "new_error")})
        # Run triggers now that would otherwise wait for the commit.
        images_.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _concerns_all(error: errors.Error, *, first: bool) -> bool:
    """Return whether the error says nothing about single images. `first`: the statement was about all of them."""
    if error.sqlstate == ROW_SECURITY:
        return first
    return passes(error) or not concerns_one(error)
