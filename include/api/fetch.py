"""Page after page of a feed, and many small look-ups, with a bounded number of requests at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from hashlib import blake2b
from itertools import count, islice
from threading import Event

import msgspec

from include.api.client import Answer, ApiClient, Request
from include.api.errors import ApiError, NotFound, PageLimit, PaginationLoop, RefuseData, TryLater
from include.api.paginators import FRESH, Crawl, Page, Paginator, Position

Submit = Callable[[Request], Future[Answer]]


def pages(
    client: ApiClient,
    request: Request,
    paginator: Paginator,
    *,
    position: Position = None,
    stop: int | None = None,
    workers: int = 1,
    limit: int = 100_000,
) -> Iterator[Page]:
    """The pages of a feed in order, from `position` (default: the first) to its end or to page number `stop`.

    While the caller works on a page, the next ones are fetched: up to `workers` where a total tells that they
    exist, else one. Closing the iterator ends its threads; a request that is on its way is waited for.

    An empty page where more was promised is fetched once more before it counts. A page or a token that came
    before raises PaginationLoop, a feed of more than `limit` pages PageLimit, an answer without rows
    RefuseData. Whatever `client.send` raises comes through when the page that it belongs to is due.
    """
    position = paginator.start if position is None else position
    if stop is not None and position > stop:
        return
    crawl, loops = FRESH, _Loops(position)
    with _threads(client, workers) as submit:
        ahead = {position: submit(paginator.request(request, position))}
        for number in count(1):
            where = f"{client.name}: {request}, {_name(position, number)}"
            page = _read(where, paginator, ahead.pop(position).result(), position, crawl)
            if paginator.doubtful(page, crawl):
                again = submit(paginator.request(request, position))
                page = _read(where, paginator, again.result(), position, crawl)
            loops.check(where, page)
            crawl = crawl.after(page)

            position = page.next
            at_end = position is None or (stop is not None and position > stop)
            room = min(workers, limit - number)
            if not at_end and room:
                for due in [position, *paginator.ahead(position, crawl, room - 1)]:
                    if due not in ahead and (stop is None or due <= stop):
                        ahead[due] = submit(paginator.request(request, due))
            yield page
            if at_end:
                return
            if not room:
                raise PageLimit(
                    f"{where}: the feed goes on after the limit of {limit} pages. Check the filters of the "
                    "request, or raise the limit."
                )


def fetch_all(
    client: ApiClient, requests: Iterable[Request], *, workers: int = 4
) -> Iterator[tuple[Request, Answer | ApiError]]:
    """Each request with its answer, in the order in which answers come, up to `workers` at once.

    What is absent comes as NotFound and what stays unknown as TryLater, as values; other errors are raised.
    """
    waiting = iter(requests)
    with _threads(client, workers) as submit:
        running: dict[Future[Answer], Request] = {}
        while True:
            running |= {submit(request): request for request in islice(waiting, workers - len(running))}
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), _outcome(future)


@contextmanager
def _threads(client: ApiClient, workers: int) -> Iterator[Submit]:
    """A way to send requests in up to `workers` threads, all of which have ended when the context is left."""
    cancel = Event()
    with ThreadPoolExecutor(workers, thread_name_prefix=f"{client.name}-fetch") as executor:
        try:
            yield lambda request: executor.submit(client.send, request, cancel=cancel)
        finally:
            cancel.set()


def _outcome(future: Future[Answer]) -> Answer | ApiError:
    try:
        return future.result()
    except (NotFound, TryLater) as error:
        return error


def _read(where: str, paginator: Paginator, answer: Answer, position: Position, crawl: Crawl) -> Page:
    try:
        return paginator.read(answer, position, crawl)
    except RefuseData as error:
        raise RefuseData(
            f"{where}: {error}. Check the host of connection {where.partition(':')[0]!r}, and whether the "
            "API has changed."
        ) from None


def _name(position: Position, number: int) -> str:
    """Tokens are query values, and stay out of messages."""
    return f"page {position}" if isinstance(position, int) else f"page {number} of this crawl"


class _Loops:
    """Remembers tokens and pages, 16 bytes each, and knows what comes again."""

    def __init__(self, start: Position):
        self._seen = {_digest(start)}

    def check(self, where: str, page: Page) -> None:
        """Raise PaginationLoop if the page's rows, all of them, or the token of the next page came before.

        Single rows may come twice: they move between the pages of a feed that changes while it is read.
        """
        for what, value in (("its rows", page.rows), ("the token of the next page", page.next)):
            if not value:
                continue
            digest = _digest(value)
            if digest in self._seen:
                raise PaginationLoop(
                    f"{where}: {what} came before, the feed goes in circles. Run the task again; if that "
                    "changes nothing, tell the API's vendor."
                )
            self._seen.add(digest)


def _digest(value: Position | list[dict]) -> bytes:
    return blake2b(msgspec.json.encode(value), digest_size=16).digest()
