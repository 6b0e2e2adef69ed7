"""The hand on a running simulator: its objects, habits and faults, over its control API."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from include.simulators import control
from include.simulators.storage.bucket import Trigger
from include.simulators.storage.config import Config

_BATCH = 50_000  # keys in one request


@dataclass(frozen=True)
class Store:
    """A running store: its endpoint, the keys it takes, its one bucket, and the hand on it, if it is a simulator."""

    url: str
    access_key: str
    secret_key: str
    bucket: str
    control: "Control | None"


class Control(control.Control):
    """Commands to the simulator at a URL. A wrong command raises ValueError with the reason."""

    config = Config

    def put(self, keys: Iterable[str]) -> None:
        """Lay a small object under each key."""
        self._batches("PUT", keys)

    def put_empty(self, keys: Iterable[str]) -> None:
        """Lay an object without content under each key."""
        self._batches("PUT", keys, "empty")

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects under the keys."""
        self._batches("DELETE", keys)

    def keys(self) -> list[str]:
        """The keys of all objects, in the vendor's order."""
        return self._send("GET", "keys")

    def rights(self, *, list: bool = True, read: bool = True) -> None:
        """Grant or withdraw the rights to list the bucket and to read its objects."""
        self.set(may_list=list, may_read=read)

    def rename_bucket(self, name: str) -> None:
        """Give the bucket another name, with all its objects; the old one is then no bucket."""
        self.set(bucket=name)

    def while_listing(self, page: int, *, put: Sequence[str] = (), delete: Sequence[str] = ()) -> None:
        """Put and delete keys once, as soon as the `page`-th LIST page from now has been served."""
        self._send("POST", "triggers", asdict(Trigger(page, tuple(put), tuple(delete))))

    def _batches(self, method: str, keys: Iterable[str], path: str = "keys") -> None:
        remaining = iter(keys)
        while batch := list(islice(remaining, _BATCH)):
            self._send(method, path, batch)
