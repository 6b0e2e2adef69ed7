"""The objects of a bucket, in the order in which the vendor lists them."""

import hashlib
import re
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import cached_property

_PLAIN = re.compile(r"[\w/.()*-]*", re.ASCII)
_MANY = 64  # changes at once from which sorting anew is cheaper than finding each place


@dataclass(frozen=True)
class Object:
    """An object's content; the same one may lie under many keys."""

    body: bytes
    content_type: str = "binary/octet-stream"
    modified: float = field(default_factory=time.time)

    @cached_property
    def etag(self) -> str:
        """The content's digest, in quotes."""
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'

    @property
    def headers(self) -> dict[str, str]:
        """What HEAD and GET say of it."""
        return {
            "content-length": str(len(self.body)),
            "content-type": self.content_type,
            "etag": self.etag,
            "last-modified": formatdate(self.modified, usegmt=True),
            "accept-ranges": "bytes",
        }

    @cached_property
    def listed(self) -> str:
        """The part of its entry in a list that follows the key."""
        modified = datetime.fromtimestamp(self.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        etag = self.etag.replace('"', "&quot;")
        return (
            f"</Key><LastModified>{modified}</LastModified><ETag>{etag}</ETag>"
            f"<Size>{len(self.body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )


class Objects:
    """Objects by key. Code points sort as UTF-8 bytes do, which is the vendor's order."""

    def __init__(self) -> None:
        self._objects: dict[str, Object] = {}
        self._keys: list[str] = []

    def get(self, key: str) -> Object | None:
        """The object under a key."""
        return self._objects.get(key)

    def keys(self) -> list[str]:
        """All keys, in order."""
        return self._keys

    def put(self, keys: Collection[str], content: Object) -> None:
        """Lay the same content under each of the keys."""
        new = {key for key in keys if key not in self._objects}
        self._objects.update(dict.fromkeys(keys, content))
        if len(new) < _MANY:
            for key in new:
                insort(self._keys, key)
        else:
            self._keys = sorted([*self._keys, *new])

    def delete(self, keys: Iterable[str]) -> None:
        """Forget the objects under the keys; a key without one is no error."""
        gone = {key for key in keys if self._objects.pop(key, None)}
        if len(gone) < _MANY:
            for key in gone:
                del self._keys[bisect_left(self._keys, key)]
        else:
            self._keys = [key for key in self._keys if key not in gone]

    def without(self, keys: Iterable[str]) -> "Objects":
        """The objects but for some."""
        left = Objects()
        gone = set(keys)
        left._objects = {key: content for key, content in self._objects.items() if key not in gone}
        left._keys = [key for key in self._keys if key not in gone]
        return left

    def and_also(self, keys: Collection[str]) -> "Objects":
        """The objects, and one more under each of the keys that have none."""
        all_ = self.without(())
        all_.put([key for key in keys if key not in self._objects], Object(b"picture"))
        return all_

    def page(self, prefix: str, after: str, size: int) -> tuple[list[str], bool]:
        """Up to `size` keys with the prefix that follow `after`, and whether more follow."""
        start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after) if after else 0)
        keys = self._keys[start : start + size + 1]
        if prefix and keys and not keys[-1].startswith(prefix):
            keys = [key for key in keys if key.startswith(prefix)]
        return keys[:size], len(keys) > size

    def entries(self, keys: Iterable[str], encoded: Callable[[str], str]) -> str:
        """The keys' entries in a list, as XML."""
        objects, plain = self._objects, _PLAIN.fullmatch
        return "".join([f"<Contents><Key>{key if plain(key) else encoded(key)}{objects[key].listed}" for key in keys])
