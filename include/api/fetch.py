"""Read a list page by page, or send many small requests, with a bounded number of requests at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import count, islice
from threading import Event
from typing import Any

import msgspec

from include.api.client import ApiClient
from include.api.errors import ApiError, FixConfiguration, ListCapped, NotFound, PageLimit, PaginationLoop, RefuseData
from include.api.paginators import FRESH, Crawl, Page, Paginator, Position
from include.api.request import Answer, Request

Submit = Callable[[Request], Future[Answer]]


def pages(
    client: ApiClient,
    request: Request,
    paginator: Paginator,
    *,
    position: Position = None,
    stop: int | None = None,
    rows: int = 0,
    total_pages: int | None = None,
    workers: int = 1,
    limit: int = 100_000,
) -> Iterator[Page]:
    """Yield the pages of a list in order, from `position` (default: the first) to the end or to page number `stop`.

    `rows` is the number of rows on the pages before `position`, `total_pages` what the last of these pages claimed.

    While the caller works on a page, the next ones are fetched: up to `workers` if the list's total says that they
    exist, else one. Closing the iterator ends its threads; it waits for requests that have been sent.

    A doubtful page is fetched once more. Raises RefuseData if the page contradicts its totals even then, or if an
    answer has no rows; PaginationLoop if the list goes in circles; PageLimit if it has more than `limit` pages;
    ListCapped if it reaches the paginator's `cap`; and whatever `client.send` raises. An error is raised when its page
    is due, after the pages before it.
    """
    position = paginator.start if position is None else position
    if stop is not None and position > stop:
        return
    crawl, loops = replace(FRESH, rows=rows, total_pages=total_pages), _Loops(position)
    with _threads(client, workers) as submit:

        def ask(position: Position) -> Future[Answer]:
            return submit(page_request(request, paginator, position))

        ahead = {position: ask(position)}
        for number in count(1):
            where = f"{client.name}: {request}, {_name(position, number)}"
            page = _page(where, paginator, ahead.pop(position), position, crawl)
            if paginator.doubtful(page, crawl) or paginator.contradiction(page, crawl):
                page = _page(where, paginator, ask(position), position, crawl)
                refuse_contradiction(where, paginator.contradiction(page, crawl))
            has_total = page.total_pages is not None or crawl.total_pages is not None
            if loops.ended_before(where, page, past_end=paginator.past_end(page, crawl), has_total=has_total):
                page = replace(page, next=None)
            crawl = crawl.after(page)
            _require_below_cap(where, paginator, crawl)

            position = page.next
            at_end = position is None or (stop is not None and position > stop)
            may_ask_for = min(workers, limit - number)
            if not at_end and may_ask_for:
                for coming in [position, *paginator.ahead(position, crawl, may_ask_for - 1)]:
                    if coming not in ahead and (stop is None or coming <= stop):
                        ahead[coming] = ask(coming)
            yield page
            if at_end:
                return
            if not may_ask_for:
                raise PageLimit(
                    f"{where}: the list goes on after the limit of {limit} pages. Check the filters of the "
                    "request, or raise the limit."
                )


def _require_below_cap(where: str, paginator: Paginator, crawl: Crawl) -> None:
    if paginator.cap and crawl.rows >= paginator.cap:
        raise ListCapped(
            f"{where}: the API ends this list after {paginator.cap:,} rows, and it has come to as many. What it"
            " leaves out is unknown. Let the request ask for less at once, or read another list."
        )


def page_request(request: Request, paginator: Paginator, position: Position) -> Request:
    """Return the request for the page at `position`. Its check refuses an answer without a page."""
    asked = paginator.request(request, position)

    def check(data: Any) -> None:
        if asked.check:
            asked.check(data)
        paginator.read(Answer(data), position)

    return replace(asked, check=check)


def refuse_contradiction(where: str, why: str) -> None:
    """Raise RefuseData if `why` is not empty: it says what a page contradicts."""
    if why:
        raise RefuseData(f"{where}: {why}. What it leaves out is unknown. Run the task again later.")


def fetch_all(
    client: ApiClient,
    requests: Iterable[Request],
    *,
    workers: int = 4,
    then: Callable[[Request, Answer | ApiError], Iterable[Request]] = lambda request, outcome: (),
) -> Iterator[tuple[Request, Answer | ApiError]]:
    """Yield each request with its answer, in the order in which answers come, up to `workers` at once.

    `then(request, outcome)` returns more requests to send, ahead of those that wait.

    Errors are yielded as values: NotFound for what is absent, another ApiError for what stays unknown. Only an error
    that any other request would meet too is raised (see `FixConfiguration.concerns_all`).
    """
    waiting, first = iter(requests), deque[Request]()
    with _threads(client, workers) as submit:
        running: dict[Future[Answer], Request] = {}
        while True:
            while first and len(running) < workers:
                request = first.popleft()
                running[submit(request)] = request
            running |= {submit(request): request for request in islice(waiting, workers - len(running))}
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                request, outcome = running.pop(future), _outcome(future)
                first.extend(then(request, outcome))
                yield request, outcome


@contextmanager
def _threads(client: ApiClient, workers: int) -> Iterator[Submit]:
    """Yield a function that sends a request in one of up to `workers` threads. On leaving, all threads have ended."""
    cancel = Event()
    with ThreadPoolExecutor(workers, thread_name_prefix=f"{client.name}-fetch") as executor:
        try:
            yield lambda request: executor.submit(client.send, request, cancel=cancel)
        finally:
            cancel.set()


def _outcome(future: Future[Answer]) -> Answer | ApiError:
    try:
        return future.result()
    except FixConfiguration as error:
        if error.concerns_all:
            raise
        return error
    except ApiError as error:
        return error


def _page(where: str, paginator: Paginator, answer: Future[Answer], position: Position, crawl: Crawl) -> Page:
    """Wait for the answer and return its page. The API's own 404 past the end of the list is an empty page."""
    try:
        return _read(where, paginator, answer.result(), position, crawl)
    except NotFound as error:
        end = Page(position, [], None)
        if position == paginator.start or not paginator.may_be_past_end(end, crawl):
            raise NotFound(
                f"{error} A list should be there: check the host of connection {where.partition(':')[0]!r}, and whether"
                " the API has changed.",
                status=error.status,
            ) from None
        return end


def _read(where: str, paginator: Paginator, answer: Answer, position: Position, crawl: Crawl) -> Page:
    try:
        page = paginator.read(answer, position, crawl)
        if isinstance(page.next, str) and "\0" in page.next:
            # Postgres, which keeps the position for a later attempt, can't store it.
            raise RefuseData("the token of the next page holds a NUL character")
        return page
    except RefuseData as error:
        raise RefuseData(
            f"{where}: {error}. Check the host of connection {where.partition(':')[0]!r}, and whether the "
            "API has changed."
        ) from None


def _name(position: Position, number: int) -> str:
    """Return how messages call a page. Tokens are query values, and stay out of messages."""
    return f"page {position}" if isinstance(position, int) else f"page {number} of this crawl"


class _Loops:
    """Recognizes a list whose pages go in circles. It remembers 16 bytes of each token and page.

    A single page may come twice, since rows that are inserted before it move it back. Some servers also repeat their
    last page after the end.
    """

    def __init__(self, start: Position):
        self._tokens = {_digest(start)}
        self._pages: set[bytes] = set()
        self._last = b""
        # How many pages in a row were any of those before, and how many were the one just before.
        self._again = 0
        self._same = 0

    def ended_before(self, where: str, page: Page, *, past_end: bool, has_total: bool) -> bool:
        """Return whether the list ended before this page, which repeats its last one once more.

        Raises PaginationLoop if the list goes in circles. `has_total`: the list names its total. Without one a repeated
        page proves no end: a server may ignore the page number and repeat its only page.
        """
        if page.rows:
            digest = _digest_rows(page.rows)
            self._same = self._same + 1 if digest == self._last else 0
            self._again = self._again + 1 if digest in self._pages else 0
            self._pages.add(digest)
            self._last = digest
            if self._same > 1 and past_end and (has_total or len(self._pages) > 1):
                return True
            if self._same > 1 or self._again > len(self._pages):
                raise _loop(where, "its rows")
        if page.next is not None:
            token = _digest(page.next)
            if token in self._tokens:
                raise _loop(where, "the token of the next page")
            self._tokens.add(token)
        return False


def _loop(where: str, what: str) -> PaginationLoop:
    return PaginationLoop(
        f"{where}: {what} came before, the list goes in circles. Run the task again; if that changes nothing, tell"
        " the API's vendor."
    )


def _digest_rows(rows: list[dict]) -> bytes:
    """Return a digest of a page's rows; without what is nested in them if that is too deep to be written."""
    try:
        return _digest(rows)
    except RecursionError:
        return _digest(
            [{name: value for name, value in row.items() if not isinstance(value, dict | list)} for row in rows]
        )


def _digest(value: Position | list[dict]) -> bytes:
    return blake2b(msgspec.json.encode(value), digest_size=16).digest()
