"""Ranges of a bucket's keys: their pages, and the positions from which a listing goes on."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from include.api.s3_listing import ObjectPage

Keys = list[str]


@dataclass(frozen=True)
class Range:
    """The keys after `start`, up to and including `end` (None: to the last one), in the order of UTF-8 bytes."""

    start: str = ""
    end: str | None = None

    def keys(self, page: ObjectPage) -> Keys:
        """Return the keys of a sorted page that lie in the range."""
        end = len(page.keys) if self.end is None else bisect_right(page.keys, self.end)
        return list(page.keys[bisect_right(page.keys, self.start) : end])

    def ends_with(self, page: ObjectPage) -> bool:
        """Return whether no key of the range comes after the page."""
        return not page.more or (self.end is not None and page.keys[-1] >= self.end)


@dataclass(frozen=True)
class Listing:
    """A page of a listing: the index of its range, its keys in order, and the position of the next page.

    `position` is JSON, None if this was the last page of the range. `empty`: keys whose objects have no content.
    """

    range: int
    keys: Keys
    position: Any
    empty: frozenset[str] = frozenset()


def position_after(key: str) -> dict[str, str]:
    """Return the place after a key as JSON that Postgres can keep: a key with a NUL is percent-encoded."""
    return {"encoded": quote(key)} if "\0" in key else {"after": key}


def key_before(position: Mapping[str, str]) -> str:
    """Return the key that a position stands after; empty at the start."""
    return unquote(position["encoded"]) if "encoded" in position else position.get("after", "")
