"""Cursors: texts that tell a client nothing, are good for one query only, and not for long."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

import msgspec

from include.simulators.square.clock import Clock
from include.simulators.square.protocol import Refused


@dataclass(frozen=True)
class Place:
    """Where a crawl stands: the number of the page to come, what lies behind it (None: nothing), and `pin`.

    `pin` is the instant, in milliseconds, that the whole crawl is about: that of its first request, or of the
    catalog's last change before it.
    """

    page: int = 1
    behind: int | None = None
    pin: int | None = None


class _Content(msgspec.Struct, array_like=True):
    issued: int
    epoch: int
    place: Place


class Cursors:
    """What gives out cursors and takes them back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch = 0

    def expire(self) -> None:
        """Make all cursors bad that were given out so far."""
        self._epoch += 1

    def issue(self, query: bytes, place: Place) -> str:
        """A cursor for the next page of a query."""
        content = msgspec.msgpack.encode(_Content(self._clock.now(), self._epoch, place))
        return base64.urlsafe_b64encode(_seal(query, content) + content).decode().rstrip("=")

    def open(self, query: bytes, cursor: str | None, seconds: int) -> Place:
        """Where the crawl stands; at its start without a cursor.

        Raises Refused for a cursor that is none of ours, for another query, or older than `seconds`.
        """
        if not cursor:
            return Place()
        try:
            sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            raise _bad() from None
        if sealed[:_SEAL] != _seal(query, sealed[_SEAL:]):
            raise _bad()
        content = msgspec.msgpack.decode(sealed[_SEAL:], type=_Content)
        if content.epoch != self._epoch or self._clock.now() > content.issued + seconds * 1_000:
            raise _bad()
        return content.place


_SEAL = 12  # bytes


def _seal(query: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(query + content, digest_size=_SEAL).digest()


def _bad() -> Refused:
    return Refused("INVALID_CURSOR", "The pagination cursor is invalid or has expired.", "cursor")
