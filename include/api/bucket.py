"""A bucket of any S3 store, read only: does it exist, which keys does it hold, does an object exist.

A key is present (perhaps with an empty object), absent or unknown. It is absent only if the store itself says so of a
bucket that is proven to exist: by a 404 to a HEAD of the key, or by a listing without it. Without an answer, or with an
answer that doesn't fit the question, the key is unknown.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from operator import lt
from types import MappingProxyType
from typing import Any

from botocore.client import BaseClient

from include.api.errors import ApiError, FixConfiguration, PaginationLoop, RefuseData, TryLater
from include.api.s3_client import S3Client
from include.api.s3_errors import Missing
from include.api.s3_listing import PAGE, ObjectPage, fields_of
from include.api.s3_ranges import Listing, Range, key_before, position_after

# Told of the way in which objects were looked at, and of what the answer shows of each.
Heard = Callable[["Way", Sequence[Mapping[str, Any]]], None]

# No key of a real bucket comes after this one.
LAST = "\U0010fffd"
# After so many looks in a row without an answer the store may be down; then a known object is asked for.
UNKNOWN_IN_A_ROW = 20
# Some stores begin a listing again if the key that they had reached is deleted. More often than this is a loop.
MOST_RESTARTS = 3


class Presence(StrEnum):
    """What is known about a key. EMPTY: the object exists, but has no content."""

    PRESENT = "present"
    EMPTY = "empty"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Way(StrEnum):
    """How a key is looked at: by its own address, or in the bucket's listing. The two are independent witnesses."""

    HEAD = "head"
    LIST = "list"

    @property
    def other(self) -> "Way":
        return Way.LIST if self is Way.HEAD else Way.HEAD


@dataclass(frozen=True)
class Look:
    """What a look at one key found.

    `reason`: why the key is UNKNOWN, in one line. `later`: a later look may have an answer. `restorable`: the object is
    ABSENT because it is marked as deleted in a bucket with versions, so it can be restored.
    """

    key: str
    presence: Presence
    reason: str = ""
    later: bool = False
    restorable: bool = False


class Bucket:
    """The bucket `name` of the store that boto3's S3 `client` talks to; any number of threads may share it.

    Don't use the client for anything else: its `list_objects_v2` no longer answers as boto3 documents. Timeouts and
    attempts are those of the client (see `client_config`). `connection` is the name that messages point to.
    """

    def __init__(self, client: BaseClient, name: str, *, connection: str):
        self.name = name
        self._client = S3Client(client, name, connection)
        self._connection = connection
        self._where = self._client.where("ListObjectsV2")
        self._listeners: list[Heard] = []

    @property
    def host(self) -> str:
        """The store's host, in lower case."""
        return self._client.host

    @property
    def requests(self) -> int:
        """The number of requests sent so far, retries included."""
        return self._client.requests

    @property
    def requests_failed(self) -> int:
        """The number of requests that failed (retried ones included) or are not answered yet. A 404 is an answer."""
        return self._client.requests_failed

    @cached_property
    def honours_start_after(self) -> bool:
        """Whether the store can start a listing after any key, as S3 can. The first use sends one request.

        Some stores begin with their first key if they don't hold the key to start after.
        """
        page = self._page(1, StartAfter=LAST)
        return not page.keys or page.keys[0] > LAST

    def listen(self, heard: Heard) -> None:
        """Let `heard` have what each answer shows of objects, in the thread that asked: by HEAD an object's headers, by
        LIST the fields of a page's first objects."""
        self._listeners.append(heard)

    def prove(self) -> None:
        """Return if the bucket exists and the client may use it.

        Raises FixConfiguration if it does not exist, may not be used, or the connection is wrong; TryLater if the store
        gave no usable answer.
        """
        self._client.prove()

    def look(self, key: str, way: Way = Way.HEAD) -> Look:
        """Look for one object. An error of the store or the network is not raised: the key is UNKNOWN then.

        HEAD: a 404 means ABSENT only after `prove`, since a missing bucket answers the same; with the store's word
        NoSuchKey it always does. LIST: the key is ABSENT unless it is the first one of those that begin with it.
        """
        return self._look(key, way)[0]

    def look_all(
        self, keys: Iterable[str], workers: int, *, way: Way = Way.HEAD, known: Iterable[str] = ()
    ) -> Iterator[Look]:
        """Yield a look at each key, up to `workers` at once, in the order in which answers come.

        `keys` is read only as fast as needed. After 20 UNKNOWN in a row one of the `known` keys, whose objects exist,
        has to be found; they are read anew each time, and not before. If none is, the rest is not looked at, and the
        last look's error is raised: TryLater, or FixConfiguration if waiting changes nothing.
        """
        waiting, unknown = iter(keys), 0
        with self._threads(workers) as threads:
            running: set[Future[tuple[Look, ApiError | None]]] = set()
            while True:
                running |= {threads.submit(self._look, key, way) for key in islice(waiting, workers - len(running))}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for look, error in (future.result() for future in done):
                    unknown = 0 if error is None else unknown + 1
                    yield look
                    if unknown >= UNKNOWN_IN_A_ROW:
                        if not self.finds(known, way):
                            raise type(error)(f"{error} So it went {unknown} times in a row; the rest was not asked.")
                        unknown = 0

    def finds(self, keys: Iterable[str], way: Way) -> bool:
        """Return whether one of the keys is there. It sends one request after the other until one is found."""
        return any(self.look(key, way).presence in (Presence.PRESENT, Presence.EMPTY) for key in keys)

    def list_from(self, after: str, size: int = 1000) -> ObjectPage:
        """Return the keys that follow `after`, up to `size` (at most 1000), mostly by one request.

        Raises RefuseData if the store begins elsewhere (see `honours_start_after`), else what `list` raises.
        """
        return self._page_after(after, size)

    def list(
        self,
        ranges: Sequence[Range] = (Range(),),
        *,
        positions: Mapping[int, Any] = MappingProxyType({}),
        workers: int = 4,
        size: int = 1000,
    ) -> Iterator[Listing]:
        """Yield the keys of all ranges page by page, the pages of one range in order, up to `workers` ranges at once.

        While the caller works on a page, the next one of its range is fetched. `positions` maps the index of a range to
        the position of the last page seen by an earlier call. The listing goes on there; None means that the range is
        done.

        A store that can't start after any key (see `honours_start_after`) is listed from its first key to its last, all
        of it as range 0. The other ranges are empty then, and done at the end.

        Raises FixConfiguration, TryLater, RefuseData (the keys are out of order) or PaginationLoop.
        """
        if all(index in positions and positions[index] is None for index in range(len(ranges))):
            return
        if self.honours_start_after:
            yield from self._list_ranges(ranges, positions, workers, size)
        else:
            yield from self._list_chain(len(ranges), positions.get(0) or {}, size)

    def _list_ranges(
        self, ranges: Sequence[Range], positions: Mapping[int, Any], workers: int, size: int
    ) -> Iterator[Listing]:
        """Yield the pages of all ranges, `workers` ranges at once.

        `positions`: by the index of a range, where to go on; None for a range that is done. Other ranges begin again.
        """
        starts = ((index, positions.get(index, position_after(part.start))) for index, part in enumerate(ranges))
        waiting = (start for start in starts if start[1] is not None)
        with self._threads(workers) as threads:
            running: dict[Future[ObjectPage], int] = {}

            def fetch(index: int, position: dict) -> None:
                running[threads.submit(self._page_after, key_before(position), size)] = index

            for start in islice(waiting, workers):
                fetch(*start)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    index, page = running.pop(future), future.result()
                    position = None if ranges[index].ends_with(page) else position_after(page.keys[-1])
                    for following in islice(waiting, 1) if position is None else [(index, position)]:
                        fetch(*following)
                    yield Listing(index, ranges[index].keys(page), position, page.empty)

    def _list_chain(self, ranges: int, position: Mapping[str, str], size: int) -> Iterator[Listing]:
        """Yield the whole bucket by the store's tokens, each key once, even if the store begins again on the way."""
        after, token, restarts = key_before(position), position.get("token"), 0
        last = after
        while True:
            page = self._page(size, **({"ContinuationToken": token} if token else {}))
            if page.keys and page.keys[-1] <= last:
                restarts += 1
            if restarts > MOST_RESTARTS or (page.more and page.token == token):
                raise PaginationLoop(
                    f"{self._where}: the listing goes in circles. Run the task again; if that changes "
                    f"nothing, tell who runs the store of connection {self._connection!r}."
                )
            keys = Range(after).keys(page)
            last = page.keys[-1] if page.keys else last
            after, token = max(after, last), page.token
            if not page.more:
                yield from (Listing(index, [], None) for index in range(1, ranges))
                yield Listing(0, keys, None, page.empty)
                return
            yield Listing(0, keys, position_after(after) | {"token": token}, page.empty)

    def _page_after(self, after: str, size: int) -> ObjectPage:
        """Return the page of keys that follow `after`. It is empty only if none follows."""
        page = self._first_page(size, **({"StartAfter": after} if after else {}))
        if page.keys and page.keys[0] <= after:
            raise RefuseData(
                f"{self._where} began elsewhere than after the key that was asked for. Look at single objects instead."
            )
        return page

    def _first_page(self, size: int, **question: str) -> ObjectPage:
        """Return the first page that has keys, going on by tokens past pages without any."""
        page, tokens = self._page(size, **question), set()
        prefix = {name: value for name, value in question.items() if name == "Prefix"}
        # A store that has skipped many deleted objects may answer with a token only.
        while page.more and not page.keys:
            if page.token in tokens:
                raise PaginationLoop(f"{self._where}: pages without keys lead to themselves.")
            tokens.add(page.token)
            page = self._page(size, **prefix, ContinuationToken=page.token)
        return page

    def _page(self, size: int, **question: str) -> ObjectPage:
        """Return one page. Raises TryLater or RefuseData unless bucket, prefix, place, size and order are as asked."""
        answer = self._client.ask("ListObjectsV2", MaxKeys=size, **question)
        if isinstance(answer, ApiError):
            raise answer
        page: ObjectPage = answer[PAGE]
        prefix = question.get("Prefix", "")
        fits = page.answers({"Name": self.name, **question}) and len(page.keys) <= size
        if not fits or not all(key.startswith(prefix) for key in page.keys):
            raise TryLater(
                f"{self._where} gave the answer to another question: the page is of another bucket or part of it. Run "
                f"the task again later; if it stays so, check what is between here and the store of connection "
                f"{self._connection!r}."
            )
        if not all(map(lt, page.keys, page.keys[1:])):
            raise RefuseData(
                f"{self._where} gave keys out of order, so nobody can say which are missing. "
                f"Use a store for connection {self._connection!r} that lists in the order of S3."
            )
        if self._listeners:
            self._tell(Way.LIST, fields_of(page.sample))
        return page

    def _look(self, key: str, way: Way) -> tuple[Look, ApiError | None]:
        try:
            return (self._head(key) if way is Way.HEAD else self._listed(key)), None
        except ApiError as error:
            return Look(key, Presence.UNKNOWN, str(error), later=not isinstance(error, FixConfiguration)), error

    def _head(self, key: str) -> Look:
        answer = self._client.ask("HeadObject", Key=key)
        if isinstance(answer, Missing):
            return Look(key, Presence.ABSENT, restorable=answer.restorable)
        if isinstance(answer, ApiError):
            raise answer
        self._tell(Way.HEAD, [answer["ResponseMetadata"]["HTTPHeaders"]])
        return Look(key, Presence.PRESENT if answer["ContentLength"] else Presence.EMPTY)

    def _listed(self, key: str) -> Look:
        page = self._first_page(1, Prefix=key)
        if key not in page.keys:
            return Look(key, Presence.ABSENT)
        return Look(key, Presence.EMPTY if key in page.empty else Presence.PRESENT)

    def _tell(self, way: Way, objects: Sequence[Mapping[str, Any]]) -> None:
        for heard in self._listeners:
            heard(way, objects)

    def _threads(self, workers: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers, thread_name_prefix=self._connection)
