"""A bucket of any S3 store, read only: is it there, which keys does it hold, does an object exist.

A key is present (maybe empty), absent or unknown. Absent is what the store itself says of a bucket that has been
proven: 404 to a HEAD of the key, or a listing without it. Whatever keeps an answer away leaves the key unknown, and so
does an answer that doesn't fit its question.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from operator import lt
from types import MappingProxyType
from typing import Any

from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError

from include.api.errors import ApiError, FixConfiguration, PaginationLoop, RefuseData, TryLater
from include.api.s3_errors import NO_ANSWER, Missing, S3Errors, end_redirects, is_own_answer
from include.api.s3_listing import PAGE, Page, read_leanly

Keys = list[str]

# No key of a real bucket comes after this one.
LAST = "\U0010fffd"
# So many looks in a row without an answer are an outage, and the next ones would fare no better.
UNKNOWN_IN_A_ROW = 20
# A store that stands at a key which is deleted meanwhile may begin its listing anew; not for ever.
MOST_RESTARTS = 3


class Presence(StrEnum):
    """What is known of a key. EMPTY: its object is there, and has no content."""

    PRESENT = "present"
    EMPTY = "empty"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Way(StrEnum):
    """How a key is looked at: by its own address, or in the bucket's index. Each is a witness of its own."""

    HEAD = "head"
    LIST = "list"

    @property
    def other(self) -> "Way":
        return Way.LIST if self is Way.HEAD else Way.HEAD


@dataclass(frozen=True)
class Look:
    """What a look at one key found; `reason` is one line that says why it is UNKNOWN.

    `later`: another time there may be an answer. `restorable`: ABSENT, but only marked as deleted in a bucket with
    versions.
    """

    key: str
    presence: Presence
    reason: str = ""
    later: bool = False
    restorable: bool = False


@dataclass(frozen=True)
class Range:
    """The keys behind `start` up to and including `end` (None: to the last one), in the order of UTF-8 bytes."""

    start: str = ""
    end: str | None = None

    def keys(self, page: Page) -> Keys:
        """Those of a sorted page that lie in the range."""
        end = len(page.keys) if self.end is None else bisect_right(page.keys, self.end)
        return list(page.keys[bisect_right(page.keys, self.start) : end])

    def ends_with(self, page: Page) -> bool:
        """Whether nothing of the range follows the page."""
        return not page.more or (self.end is not None and page.keys[-1] >= self.end)


@dataclass(frozen=True)
class Listing:
    """A page of a listing: the index of its range, its keys in order, and where the range goes on behind it.

    `position` is JSON, None when the range is done. `empty`: keys whose objects have no content.
    """

    range: int
    keys: Keys
    position: Any
    empty: frozenset[str] = frozenset()


def client_config(workers: int) -> Config:
    """What boto3's client needs for `workers` threads that each wait for small answers.

    What the connection itself sets goes before: `client_config(workers).merge(own)`.
    """
    return Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=workers,
        tcp_keepalive=True,
    )


class Bucket:
    """The bucket `name` of the store that boto3's S3 `client` talks to; any number of threads may share it.

    The client is the bucket's own from then on: its `list_objects_v2` answers otherwise than boto3 documents.
    It also decides on timeouts and attempts (see `client_config`). `connection` is what messages point to.
    """

    def __init__(self, client: BaseClient, name: str, *, connection: str):
        self.name = name
        self._client = client
        self._connection = connection
        self._lock = threading.Lock()
        self._requests = self._answered = 0
        self._proven = False
        self._errors = S3Errors(connection, name)
        self._where = self._errors.where("ListObjectsV2")
        read_leanly(client)
        end_redirects(client)
        client.meta.events.register("before-send.s3", self._count)
        client.meta.events.register("response-received.s3", self._count_answered)

    @property
    def requests(self) -> int:
        """Requests that the client has sent so far, retries included."""
        return self._requests

    @property
    def requests_failed(self) -> int:
        """Of those the ones that failed, retried ones included; a 404 is an answer. Those on their way count, too."""
        with self._lock:
            return self._requests - self._answered

    @cached_property
    def honours_start_after(self) -> bool:
        """Whether the store lists from any key on, as S3 does; one request, the first time.

        Some stores begin at the first key where the one to start after is not among theirs.
        """
        page = self._page(1, StartAfter=LAST)
        return not page.keys or page.keys[0] > LAST

    def prove(self) -> None:
        """Return if the bucket exists and the client may use it.

        Raises FixConfiguration where it doesn't, may not or where the connection is wrong, and TryLater where the
        store gave no usable answer for now.
        """
        self._proven = False
        answer = self._ask("HeadBucket")
        if isinstance(answer, FixConfiguration):
            # The answer to a HEAD has no body, and so no word on whether the keys, the clock or a right is wrong.
            listed = self._ask("ListObjectsV2", MaxKeys=1)
            answer = listed if isinstance(listed, FixConfiguration) else answer
        if isinstance(answer, ApiError):
            raise answer
        self._proven = True

    def look(self, key: str, way: Way = Way.HEAD) -> Look:
        """Ask for one object. Never raises for what the store or the network answers: that is UNKNOWN.

        HEAD: a 404 is ABSENT only after `prove`, since a bucket that is not there answers the same; the word NoSuchKey
        of a store that says it needs no proof. LIST: the first key that begins with this one is it, or it is ABSENT.
        """
        return self._look(key, way)[0]

    def look_all(
        self, keys: Iterable[str], workers: int, *, way: Way = Way.HEAD, known: Sequence[str] = ()
    ) -> Iterator[Look]:
        """Look at each key, up to `workers` at once, in the order in which answers come; `keys` is read as needed.

        After 20 UNKNOWN in a row one of the keys that are `known` to be there has to answer. If none does, nothing
        more is asked, and an error of the last one's class is raised: TryLater, or FixConfiguration where waiting
        changes nothing.
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

    def finds(self, keys: Sequence[str], way: Way) -> bool:
        """Whether one of the keys is there; as many requests as it takes to find one."""
        return any(self.look(key, way).presence in (Presence.PRESENT, Presence.EMPTY) for key in keys)

    def list_from(self, after: str, size: int = 1000) -> Page:
        """The keys that follow `after`, up to `size` (at most 1000): one request.

        Raises RefuseData where the store begins elsewhere (see `honours_start_after`), else as `list` does.
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
        """The keys of all ranges, page by page: pages of one range in order, up to `workers` ranges at once.

        While the caller works on a page, the next one of its range is fetched. `positions` are those of listings
        that were seen before, by range; there the listing goes on, and what stands at None is not listed again.

        A store that doesn't honour start-after is listed in one chain of pages from its first key to its last, all
        of it as range 0. The other ranges then are empty, and done when the chain comes to its end.

        Raises FixConfiguration, TryLater, RefuseData (a store that gives its keys out of order) or PaginationLoop.
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
        starts = ((index, positions.get(index, {"after": part.start})) for index, part in enumerate(ranges))
        waiting = (start for start in starts if start[1] is not None)
        with self._threads(workers) as threads:
            running: dict[Future[Page], int] = {}

            def fetch(index: int, position: dict) -> None:
                running[threads.submit(self._page_after, position["after"], size)] = index

            for start in islice(waiting, workers):
                fetch(*start)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    index, page = running.pop(future), future.result()
                    position = None if ranges[index].ends_with(page) else {"after": page.keys[-1]}
                    for following in islice(waiting, 1) if position is None else [(index, position)]:
                        fetch(*following)
                    yield Listing(index, ranges[index].keys(page), position, page.empty)

    def _list_chain(self, ranges: int, position: Mapping[str, str], size: int) -> Iterator[Listing]:
        """The whole bucket by the store's tokens, each key once, also where the store begins anew on the way."""
        after, token, restarts = position.get("after", ""), position.get("token"), 0
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
            yield Listing(0, keys, {"after": after, "token": token}, page.empty)

    def _page_after(self, after: str, size: int) -> Page:
        """The page of keys that follow `after`. It is empty only if nothing follows."""
        page = self._first_page(size, **({"StartAfter": after} if after else {}))
        if page.keys and page.keys[0] <= after:
            raise RefuseData(
                f"{self._where} began elsewhere than at the key that it was asked to start after. "
                "Look at single objects instead."
            )
        return page

    def _first_page(self, size: int, **question: str) -> Page:
        """The first page with keys that the question leads to."""
        page, tokens = self._page(size, **question), set()
        prefix = {name: value for name, value in question.items() if name == "Prefix"}
        # A store that has passed over many deleted objects may answer with a token alone.
        while page.more and not page.keys:
            if page.token in tokens:
                raise PaginationLoop(f"{self._where}: pages without keys lead to themselves.")
            tokens.add(page.token)
            page = self._page(size, **prefix, ContinuationToken=page.token)
        return page

    def _page(self, size: int, **question: str) -> Page:
        """One page, which fits the question: bucket, prefix, place, size and order."""
        answer = self._ask("ListObjectsV2", MaxKeys=size, **question)
        if isinstance(answer, ApiError):
            raise answer
        page: Page = answer[PAGE]
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
                f"{self._where} gave keys out of order, so that what is missing can't be told. "
                f"Use a store for connection {self._connection!r} that lists in the order of S3."
            )
        return page

    def _look(self, key: str, way: Way) -> tuple[Look, ApiError | None]:
        try:
            return (self._head(key) if way is Way.HEAD else self._listed(key)), None
        except ApiError as error:
            return Look(key, Presence.UNKNOWN, str(error), later=not isinstance(error, FixConfiguration)), error

    def _head(self, key: str) -> Look:
        answer = self._ask("HeadObject", Key=key)
        if isinstance(answer, Missing):
            return Look(key, Presence.ABSENT, restorable=answer.restorable)
        if isinstance(answer, ApiError):
            raise answer
        return Look(key, Presence.PRESENT if answer["ContentLength"] else Presence.EMPTY)

    def _listed(self, key: str) -> Look:
        page = self._first_page(1, Prefix=key)
        if key not in page.keys:
            return Look(key, Presence.ABSENT)
        return Look(key, Presence.EMPTY if key in page.empty else Presence.PRESENT)

    def _ask(self, operation: str, **params: Any) -> dict[str, Any] | ApiError:
        """boto3's answer, or the error as a value: boto3's own quote URLs, and must not ride along as context."""
        send = {
            "HeadBucket": self._client.head_bucket,
            "HeadObject": self._client.head_object,
            "ListObjectsV2": self._client.list_objects_v2,
        }[operation]
        try:
            answer = send(Bucket=self.name, **params)
        except ClientError as error:
            return self._errors.refused(operation, error, proven=self._proven)
        except NO_ANSWER as error:
            return self._errors.unanswered(operation, error)
        if not is_own_answer(operation, answer):
            return self._errors.not_the_store(operation, 200)
        return answer

    def _threads(self, workers: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers, thread_name_prefix=self._connection)

    def _count(self, **_: object) -> None:
        with self._lock:
            self._requests += 1

    def _count_answered(self, parsed_response: dict[str, Any] | None, **_: object) -> None:
        # Failures can't be counted instead: a body that is cut off is no event.
        status = parsed_response["ResponseMetadata"]["HTTPStatusCode"] if parsed_response else None
        if status is not None and (status < 300 or status == 404):
            with self._lock:
                self._answered += 1
