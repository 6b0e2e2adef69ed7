import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.api.errors import (
    ApiError,
    FixConfiguration,
    ListCapped,
    NotFound,
    PageLimit,
    PaginationLoop,
    RefuseData,
    TryLater,
)
from include.api.fetch import fetch_all, pages
from include.api.paginators import Cursor, Page, PageNumber, SpringPage
from include.api.request import Answer, Request

FEED = Request("/line_items", {"api_key": "hush"})
NUMBERED = PageNumber("rows")
CURSOR = Cursor("rows")


class Fake:
    """Stands in for an ApiClient: `answer(request)` gives the data, or an error to raise."""

    name = "acme"

    def __init__(self, answer: Callable[[Request], Any], delay: float = 0.0):
        self._answer = answer
        self._delay = delay
        self._lock = threading.Lock()
        self._at_once = 0
        self.most_at_once = 0
        self.asked: list[Any] = []

    def send(self, request: Request, *, cancel: threading.Event) -> Answer:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.asked.append(request.params.get("page", request.params.get("cursor")))
            data = self._answer(request)
        time.sleep(self._delay)
        with self._lock:
            self._at_once -= 1
        if isinstance(data, Exception):
            raise data
        return Answer(data)


def cut(count: int, size: int) -> list[list[dict]]:
    """Rows with ids from 0, in pages of `size`; no rows are one empty page."""
    return [
        [{"id": number} for number in range(start, min(start + size, count))] for start in range(0, max(count, 1), size)
    ]


def numbered(
    parts: list[list[dict]], meta: Callable[[int, int], Any] = lambda total, size: {"total_pages": total}
) -> Fake:
    """Serves parts by page number from 1, empty pages after them, with `meta(total pages, page size)`."""
    size = max(map(len, parts))

    def answer(request: Request) -> dict:
        index = request.params["page"] - 1
        rows = parts[index] if index < len(parts) else []
        return {"rows": rows, "meta": meta(len(parts), size)}

    return Fake(answer)


def tokens(parts: list[list[dict]]) -> Fake:
    """Serves parts by the tokens t1, t2, ..."""

    def answer(request: Request) -> dict:
        index = int(request.params.get("cursor", "t0")[1:])
        following = {"cursor": f"t{index + 1}"} if index + 1 < len(parts) else {}
        return {"rows": parts[index], **following}

    return Fake(answer)


def spring(parts: list[list[dict]]) -> Fake:
    def answer(request: Request) -> dict:
        index = request.params["page"]
        rows = parts[index] if index < len(parts) else []
        return {"content": rows, "totalPages": len(parts), "last": index >= len(parts) - 1, "number": index}

    return Fake(answer)


def arrays(parts: list[list[dict]]) -> Fake:
    return Fake(lambda request: parts[request.params["page"]] if request.params["page"] < len(parts) else [])


def ids(found: Iterator[Page] | list[Page]) -> list[int]:
    return [row["id"] for page in found for row in page.rows]


METAS = {
    "whole": lambda total, size: {"total_pages": total, "per_page": size, "total_entries": 0},
    "of two parts": lambda total, size: {"total_pages": total, "page": 1},
    "text": lambda total, size: {"total_pages": str(total), "per_page": str(size)},
    "none": lambda total, size: None,
    "useless": lambda total, size: {"total_pages": "many", "per_page": 0},
    "too small": lambda total, size: {"total_pages": total // 2, "per_page": size},
    "zero": lambda total, size: {"total_pages": 0},
    "too large": lambda total, size: {"total_pages": total + 3, "per_page": size, "total_entries": 0},
    "wrong size": lambda total, size: {"total_pages": total, "per_page": size + 5},
}
KINDS = {
    **{f"meta {name}": (NUMBERED, lambda parts, m=meta: numbered(parts, m)) for name, meta in METAS.items()},
    "cursor": (CURSOR, tokens),
    "spring": (SpringPage(), spring),
    "arrays": (SpringPage(), arrays),
}
any_kind = pytest.mark.parametrize(("paginator", "serve"), KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if "fetch" in thread.name]
    assert left == []


# -- every row, in order, from wherever one starts


@any_kind
@settings(deadline=None)
@given(count=st.integers(0, 25), size=st.integers(1, 5), workers=st.integers(1, 4))
def test_all_rows_come_once_and_in_order(paginator, serve, count, size, workers):
    found = list(pages(serve(cut(count, size)), FEED, paginator, workers=workers))
    assert ids(found) == list(range(count))
    assert [page.next for page in found] == [page.position for page in found[1:]] + [None]


@any_kind
@settings(deadline=None)
@given(count=st.integers(0, 25), size=st.integers(1, 5), workers=st.integers(1, 4))
def test_a_resume_at_any_page_gives_the_same_rows(paginator, serve, count, size, workers):
    client = serve(cut(count, size))
    found = list(pages(client, FEED, paginator, workers=workers))
    for done in range(1, len(found)):
        rest = pages(client, FEED, paginator, position=found[done].position, workers=workers)
        assert ids(found[:done]) + ids(rest) == list(range(count))


def test_requests_are_no_more_than_needed():
    for meta, expected in (("whole", [1, 2, 3]), ("of two parts", [1, 2, 3])):
        client = numbered(cut(25, 10), METAS[meta])
        list(pages(client, FEED, NUMBERED))
        assert client.asked == expected


def test_a_full_last_page_is_followed_by_one_probe():
    client = numbered(cut(20, 10))
    list(pages(client, FEED, NUMBERED))
    assert client.asked == [1, 2, 3]


def test_rows_appended_while_reading_are_found():
    parts = cut(20, 10)
    client = numbered(parts)
    found = []
    for page in pages(client, FEED, NUMBERED):
        found += page.rows
        if page.position == 1:
            parts.append([{"id": 20}])
    assert [row["id"] for row in found] == list(range(21))


@pytest.mark.parametrize("workers", [1, 3])
def test_stop_is_the_last_page(workers):
    client = numbered(cut(100, 10))
    assert ids(pages(client, FEED, NUMBERED, position=3, stop=5, workers=workers)) == list(range(20, 50))
    assert sorted(client.asked) == [3, 4, 5]


def test_a_stop_before_the_start_asks_nothing():
    client = numbered(cut(100, 10))
    assert list(pages(client, FEED, NUMBERED, position=5, stop=4)) == []
    assert client.asked == []


def test_a_stop_past_the_end_changes_nothing():
    assert ids(pages(numbered(cut(25, 10)), FEED, NUMBERED, stop=99, workers=3)) == list(range(25))


# -- empty pages


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("meta", ["whole", "none", "text"])
def test_a_page_that_is_empty_once_loses_nothing(meta, workers):
    parts = cut(50, 10)
    empty_once = {3}

    def answer(request: Request) -> dict:
        number = request.params["page"]
        if number in empty_once:
            empty_once.remove(number)
            return {"rows": [], "meta": METAS[meta](0, 10)}
        return {"rows": parts[number - 1] if number <= 5 else [], "meta": METAS[meta](5, 10)}

    assert ids(pages(Fake(answer), FEED, NUMBERED, workers=workers)) == list(range(50))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("empty", [1, 3, 5])
@pytest.mark.parametrize("entries", [{}, {"total_entries": 50}])
def test_a_page_that_stays_empty_against_its_totals_is_no_page(workers, empty, entries):
    parts = cut(50, 10)
    parts[empty - 1] = []
    client = numbered(parts, lambda total, size: {"total_pages": total, **entries})
    with pytest.raises(RefuseData, match=f"page {empty}: .*(page {empty}|the list) is empty, "):
        list(pages(client, FEED, NUMBERED, workers=workers))
    assert client.asked.count(empty) == 2


def test_a_page_that_a_shorter_list_has_lost_is_the_end():
    """Its totals don't come with it, and those of the page before are from before the deletion."""
    parts = cut(30, 10)

    def answer(request: Request) -> dict:
        number = request.params["page"]
        return {"rows": parts[number - 1], "meta": {"total_pages": 3}} if number < 3 else {"rows": []}

    assert ids(pages(Fake(answer), FEED, NUMBERED)) == list(range(20))


def test_a_list_that_says_it_has_one_page_may_be_empty():
    assert ids(pages(numbered([[]], lambda total, size: {"total_pages": 1}), FEED, NUMBERED)) == []


def test_an_empty_page_with_a_token_is_passed():
    parts = cut(50, 10)
    parts[2] = []
    client = tokens(parts)
    assert ids(pages(client, FEED, CURSOR)) == [*range(20), *range(30, 50)]
    assert client.asked == [None, "t1", "t2", "t2", "t3", "t4"]


def test_an_empty_feed_with_a_total_is_asked_once():
    client = numbered([[]], lambda total, size: {"total_pages": 0})
    assert [page.rows for page in pages(client, FEED, NUMBERED)] == [[]]
    assert client.asked == [1]


# -- pages of another number


def asked_for(paginator: PageNumber | SpringPage, named: Callable[[int], Any]) -> Fake:
    """Serves 40 rows on 4 pages, which say that their number is `named(number)`."""

    def answer(request: Request) -> dict:
        number = request.params["page"]
        index = number - paginator.start
        rows = cut(40, 10)[index] if index < 4 else []
        if isinstance(paginator, SpringPage):
            return {"content": rows, "totalPages": 4, "number": named(number)}
        return {"rows": rows, "meta": {"total_pages": 4, "page": named(number)}}

    return Fake(answer)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("paginator", [NUMBERED, SpringPage()])
def test_a_page_that_says_that_it_is_another_one_is_no_page(paginator, workers):
    client = asked_for(paginator, lambda number: {2: 3}.get(number, number))
    with pytest.raises(RefuseData, match="page 2 was asked for, but the answer says that it is page 3"):
        list(pages(client, FEED, paginator, workers=workers))
    assert client.asked.count(2) == 2


@pytest.mark.parametrize("paginator", [NUMBERED, SpringPage()])
def test_a_page_that_is_another_one_once_loses_nothing(paginator):
    names = iter([3])
    client = asked_for(paginator, lambda number: next(names, 2) if number == 2 else number)
    assert ids(pages(client, FEED, paginator)) == list(range(40))


@pytest.mark.parametrize(
    ("paginator", "named"),
    [
        (NUMBERED, lambda number: 1),
        (NUMBERED, lambda number: str(number)),
        (NUMBERED, lambda number: None),
        (NUMBERED, lambda number: "third"),
        (SpringPage(), lambda number: 0),
        (SpringPage(start=1), lambda number: number - 1),
    ],
)
def test_what_a_server_calls_its_pages_ends_no_honest_list(paginator, named):
    assert ids(pages(asked_for(paginator, named), FEED, paginator)) == list(range(40))


def test_a_server_that_names_its_last_page_past_the_end_ends_the_list():
    def answer(request: Request) -> dict:
        number = min(request.params["page"], 3)
        return {"rows": cut(30, 10)[number - 1], "meta": {"total_pages": 3, "per_page": 10, "page": number}}

    assert sorted(set(ids(pages(Fake(answer), FEED, NUMBERED)))) == list(range(30))


# -- loops and limits


@pytest.mark.parametrize(
    "chain",
    [
        {None: "a", "a": "a"},
        {None: "a", "a": "b", "b": "a"},
        {None: "a", "a": "b", "b": "c", "c": "b"},
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_token_that_comes_again_is_a_loop(chain, empty):
    def answer(request: Request) -> dict:
        token = request.params.get("cursor")
        return {"rows": [] if empty else [{"id": token}], "cursor": chain[token]}

    with pytest.raises(PaginationLoop, match=f"page {len(chain)} of this crawl: the token of the next page"):
        list(pages(Fake(answer), FEED, CURSOR))


def test_a_token_that_comes_again_after_a_resume_is_a_loop():
    client = Fake(lambda request: {"rows": [], "cursor": {"a": "b", "b": "a"}[request.params["cursor"]]})
    with pytest.raises(PaginationLoop, match="page 2 of this crawl"):
        list(pages(client, FEED, CURSOR, position="a"))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_server_that_ignores_the_page_is_a_loop(workers):
    client = Fake(lambda request: {"rows": [{"id": 1}, {"id": 2}], "meta": {"total_pages": 9}})
    with pytest.raises(PaginationLoop, match="acme: GET /line_items, page 3: its rows came before"):
        list(pages(client, FEED, NUMBERED, workers=workers))


@pytest.mark.parametrize("cycle", [1, 2, 3])
def test_pages_that_come_again_and_again_are_a_loop(cycle):
    parts = cut(40, 10)
    parts += (parts[-cycle:] * 6)[: 6 * cycle]
    for client, paginator in ((numbered(parts), NUMBERED), (tokens(parts), CURSOR)):
        with pytest.raises(PaginationLoop, match="its rows came before"):
            list(pages(client, FEED, paginator))


@pytest.mark.parametrize("inserted", [10, 20, 30])
def test_pages_that_come_again_since_rows_were_inserted_ahead_are_no_loop(inserted):
    feed = list(range(60))

    def answer(request: Request) -> dict:
        if request.params["page"] == 4 and len(feed) == 60:
            feed[:0] = range(100, 100 + inserted)
        start = (request.params["page"] - 1) * 10
        rows = [{"id": number} for number in feed[start : start + 10]]
        return {"rows": rows, "meta": {"total_pages": len(feed) // 10, "total_entries": len(feed)}}

    assert set(ids(pages(Fake(answer), FEED, NUMBERED))) == set(range(60))


@pytest.mark.parametrize("meta", ["none", "useless"])
def test_a_server_that_repeats_its_last_page_has_come_to_its_end(meta):
    parts = cut(40, 10)

    def answer(request: Request) -> dict:
        return {"rows": parts[min(request.params["page"], 4) - 1], "meta": METAS[meta](4, 10)}

    found = list(pages(Fake(answer), FEED, NUMBERED))
    assert set(ids(found)) == set(range(40))
    assert found[-1].next is None


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["insert", "delete first", "delete last", "swap", "nothing"]), max_size=40),
    st.integers(0, 30),
    st.integers(2, 5),
)
def test_drift_is_no_loop(changes, count, size):
    """Rows move over the borders of pages while the list is read; only an identical page is a loop."""
    feed = list(range(count))
    to_come = iter(changes)

    def answer(request: Request) -> dict:
        match next(to_come, "nothing"):
            case "insert":
                feed.insert(0, 1000 + len(feed) + request.params["page"] * 100)
            case "delete first" if feed:
                feed.pop(0)
            case "delete last" if feed:
                feed.pop()
            case "swap" if len(feed) > size:
                feed[0], feed[size] = feed[size], feed[0]
        start = (request.params["page"] - 1) * size
        rows = [{"id": number} for number in feed[start : start + size]]
        return {"rows": rows, "meta": {"total_pages": -(-len(feed) // size), "per_page": size}}

    found = ids(pages(Fake(answer), FEED, NUMBERED))
    if set(changes) <= {"insert", "nothing"}:
        assert set(range(count)) <= set(found)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_limit_of_pages(workers):
    client = numbered(cut(100, 10))
    reading = pages(client, FEED, NUMBERED, limit=3, workers=workers)
    assert [page.position for page in islice(reading, 3)] == [1, 2, 3]
    with pytest.raises(PageLimit, match="page 3: the list goes on after the limit of 3 pages"):
        next(reading)
    assert sorted(client.asked) == [1, 2, 3]
    assert ids(pages(client, FEED, NUMBERED, limit=11, workers=workers)) == list(range(100))


def test_a_total_beyond_all_bounds_ends_at_the_limit():
    client = Fake(lambda request: {"rows": [{"id": request.params["page"]}], "meta": {"total_pages": 10**15}})
    with pytest.raises(PageLimit):
        list(pages(client, FEED, NUMBERED, limit=20, workers=3))


@pytest.mark.parametrize("resumed", [0, 10])
def test_a_list_that_reaches_its_cap_is_no_whole_list(resumed):
    """Even if its last page says that no more follow: so a vendor ends a search that found more."""
    paginator = PageNumber("rows", cap=30 + resumed)
    reading = pages(numbered(cut(30, 10)), FEED, paginator, rows=resumed)
    assert [page.position for page in islice(reading, 2)] == [1, 2]
    with pytest.raises(ListCapped, match=f"the API ends this list after {30 + resumed} rows, and it has come to as"):
        next(reading)
    assert len(ids(pages(numbered(cut(29, 10)), FEED, replace(paginator, cap=30)))) == 29


# -- errors


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("error", [FixConfiguration("no"), TryLater("no"), NotFound("no")])
def test_an_error_comes_after_the_pages_before_it(error, workers):
    parts = cut(100, 10)

    def answer(request: Request) -> Any:
        number = request.params["page"]
        return error if number == 4 else {"rows": parts[number - 1], "meta": {"total_pages": 10}}

    reading = pages(Fake(answer, delay=0.01), FEED, NUMBERED, workers=workers)
    assert [page.position for page in islice(reading, 3)] == [1, 2, 3]
    with pytest.raises(type(error)) as caught:
        next(reading)
    assert str(caught.value).startswith("no")


def test_an_error_past_the_end_is_none():
    parts = cut(21, 10)

    def answer(request: Request) -> Any:
        number = request.params["page"]
        if number > 3:
            return NotFound("past the end")
        return {"rows": parts[number - 1], "meta": {"total_pages": 6 if number < 3 else 3}}

    assert ids(pages(Fake(answer), FEED, NUMBERED, workers=4)) == list(range(21))


@pytest.mark.parametrize("total", [2, None])
def test_a_404_past_the_end_is_an_empty_page(total):
    """The last page is full, so another may follow. Without a total that is asked twice."""
    parts = cut(20, 10)

    def answer(request: Request) -> Any:
        number = request.params["page"]
        return NotFound("404") if number > 2 else {"rows": parts[number - 1], "meta": {"total_pages": total}}

    client = Fake(answer)
    assert ids(pages(client, FEED, NUMBERED)) == list(range(20))
    assert client.asked == ([1, 2, 3] if total else [1, 2, 3, 3])
    # A later attempt asks for that page first.
    assert ids(pages(client, FEED, NUMBERED, position=3, rows=20, total_pages=total)) == []


@pytest.mark.parametrize(("position", "rows"), [(1, 0), (3, 0), (3, 20)])
def test_a_404_of_a_list_is_no_end(position, rows):
    """Of its first page, where no page came before, or before its last page."""
    with pytest.raises(NotFound, match="404 A list should be there: check the host of connection"):
        list(pages(Fake(lambda request: NotFound("404")), FEED, NUMBERED, position=position, rows=rows, total_pages=4))


def test_an_empty_answer_to_a_token_is_asked_for_again():
    """Some APIs answer so to a token that has expired."""
    left = [1]

    def answer(request: Request) -> Any:
        if "cursor" not in request.params:
            return {"rows": [{"id": 1}], "cursor": "t"}
        return {"rows": []} if left and left.pop() else {"rows": [{"id": 2}]}

    assert ids(pages(Fake(answer), FEED, CURSOR)) == [1, 2]


def test_an_answer_of_another_shape_is_refused_by_name():
    client = Fake(lambda request: {"rows": [{"id": 1}], "cursor": "hush"} if not client.asked[1:] else {})
    with pytest.raises(RefuseData) as caught:
        list(pages(client, FEED, CURSOR))
    message = str(caught.value)
    assert message.startswith("acme: GET /line_items, page 2 of this crawl: the answer has no list 'rows'.")
    assert "connection 'acme'" in message


def test_a_token_that_can_not_be_kept_is_refused():
    """Postgres keeps the position of a pull, and has no NUL."""
    client = Fake(lambda request: {"rows": [{"id": 1}], "cursor": "a\0b"})
    with pytest.raises(RefuseData, match="the token of the next page holds a NUL character"):
        list(pages(client, FEED, CURSOR))


def test_one_record_that_is_nested_deeply_keeps_out_no_others():
    """A thread that reads answers can read more levels than a task that is itself many calls deep can write."""
    deep: Any = 1
    for _ in range(980):
        deep = [deep]
    rows = [{"id": 1, "deep": deep}, {"id": 2}]
    client = Fake(lambda request: {"rows": rows, "cursor": None})
    assert [page.rows for page in pages(client, FEED, CURSOR)] == [rows]


def test_messages_name_neither_tokens_nor_query_values():
    client = Fake(lambda request: {"rows": [], "cursor": "hush"})
    for limit, error in ((1, PageLimit), (9, PaginationLoop)):
        with pytest.raises(error) as caught:
            list(pages(client, Request("/feed?key=hush", {"key": "hush"}), CURSOR, limit=limit))
        assert "hush" not in str(caught.value)


# -- bounds


def test_workers_are_used_and_never_exceeded():
    parts = cut(200, 10)
    for workers in (1, 2, 5):
        client = numbered(parts)
        client._delay = 0.01
        list(pages(client, FEED, NUMBERED, workers=workers))
        assert client.most_at_once == workers


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_no_more_than_workers_pages_ahead_of_the_reader(workers):
    client = numbered(cut(200, 10))
    for page in pages(client, FEED, NUMBERED, workers=workers):
        time.sleep(0.005)
        assert max(client.asked) <= page.position + workers


def test_the_next_page_is_fetched_while_the_reader_works():
    parts = cut(30, 10)
    for client, paginator in ((tokens(parts), CURSOR), (numbered(parts, METAS["none"]), NUMBERED)):
        reading = pages(client, FEED, paginator, workers=4)
        next(reading)
        deadline = time.monotonic() + 5
        while len(client.asked) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(client.asked) == 2
        reading.close()


@pytest.mark.parametrize(("serve", "paginator"), [(tokens, CURSOR), (arrays, SpringPage())])
def test_what_is_not_known_to_exist_is_not_fetched_in_parallel(serve, paginator):
    client = serve(cut(100, 10))
    client._delay = 0.002
    list(pages(client, FEED, paginator, workers=4))
    assert client.most_at_once == 1


def _peak(page_count: int) -> int:
    """Bytes at the highest point while a feed of so many pages is read."""

    def answer(request: Request) -> dict:
        first = request.params["page"] * 100
        count = 100 if request.params["page"] < page_count else 1
        rows = [{"id": number, "name": f"row {number}" * 5} for number in range(first, first + count)]
        return {"rows": rows, "meta": {"total_pages": page_count, "per_page": 100}}

    client = Fake(answer)
    tracemalloc.start()
    try:
        for _ in pages(client, FEED, NUMBERED, workers=3):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_feed():
    # 450 pages more hold about 20 MB; their digests 50 kB.
    assert _peak(500) - _peak(50) < 300_000


# -- ends


def fetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("acme-fetch")]


def test_no_threads_before_the_first_page_and_after_the_last():
    reading = pages(numbered(cut(50, 10)), FEED, NUMBERED, workers=3)
    assert fetch_threads() == []
    next(reading)
    assert fetch_threads() != []
    list(reading)
    assert fetch_threads() == []


def test_a_reader_that_stops_leaves_no_thread():
    for _ in islice(pages(numbered(cut(50, 10)), FEED, NUMBERED, workers=3), 2):
        pass
    reading = pages(numbered(cut(50, 10)), FEED, NUMBERED, workers=3)
    next(reading)
    reading.close()
    assert fetch_threads() == []


def _fail_on_the_first(reading: Iterator[Any]) -> None:
    for _ in reading:
        raise KeyError("the reader's own error")


def test_a_reader_that_fails_leaves_no_thread():
    for reading in (
        pages(numbered(cut(50, 10)), FEED, NUMBERED, workers=3),
        fetch_all(numbered(cut(50, 10)), [Request("/x", {"page": number}) for number in range(1, 6)]),
    ):
        with pytest.raises(KeyError):
            _fail_on_the_first(reading)
        reading.close()
        assert fetch_threads() == []


def test_closing_does_not_wait_for_a_wait(server, connect, reply):
    parts = cut(50, 10)

    def answer(received: Any) -> Any:
        number = int(received.query["page"][0])
        if number > 1:
            return reply(status=503)
        return reply({"rows": parts[0], "meta": {"total_pages": 5}})

    server.answer = answer
    reading = pages(connect(backoff=(60.0, 90.0)), FEED, NUMBERED, workers=3)
    next(reading)
    time.sleep(0.1)
    started = time.monotonic()
    reading.close()
    assert time.monotonic() - started < 2
    assert fetch_threads() == []
    assert len(server.received) <= 4


# -- over HTTP


@pytest.mark.parametrize("workers", [1, 3])
def test_faults_on_the_way_lose_and_double_nothing(server, connect, reply, workers):
    parts = cut(95, 10)
    faults = {
        2: reply(status=503),
        3: reply(status=429, headers={"Retry-After": "0"}),
        4: reply(b"<html>sorry</html>", content_type="text/html"),
        5: reply(b'{"rows": [', cut=True),
        6: reply(hang_up=True),
        7: reply({"rows": [], "meta": {}}),
        8: reply(b'{"rows": [{"id": 70}, {"i'),
    }

    def answer(received: Any) -> Any:
        number = int(received.query["page"][0])
        whole = {"rows": parts[number - 1], "meta": {"total_pages": "10", "per_page": 10}}
        return faults.pop(number, None) or reply(whole)

    server.answer = answer
    client = connect(timeout=(2.0, 2.0), connections=workers)
    assert ids(pages(client, FEED, NUMBERED, workers=workers)) == list(range(95))
    assert faults == {}
    assert client.errors == {"TryLater": 6}
    assert server.most_at_once <= workers


# -- look-ups


def test_look_ups_tell_present_absent_and_unknown():
    outcomes = {
        1: {"id": 1},
        2: NotFound("no such row"),
        3: TryLater("busy"),
        4: {"id": 4},
        5: RefuseData("shape"),
        6: FixConfiguration("no right to this row", status=403),
    }
    requests = [Request(f"/rows/{number}", {"page": number}) for number in outcomes]
    client = Fake(lambda request: outcomes[request.params["page"]])
    found = {
        request.path: outcome.data if isinstance(outcome, Answer) else outcome
        for request, outcome in fetch_all(client, requests)
    }
    assert found == {f"/rows/{number}": outcome for number, outcome in outcomes.items()}


@pytest.mark.parametrize("error", [FixConfiguration("host"), FixConfiguration("token", status=401), ValueError("bug")])
def test_look_ups_raise_what_is_neither_absent_nor_unknown(error: ApiError):
    client = Fake(lambda request: error if request.params["page"] == 3 else {})
    with pytest.raises(type(error)):
        list(fetch_all(client, [Request("/rows", {"page": number}) for number in range(1, 50)], workers=2))
    assert len(client.asked) < 10


def test_look_ups_are_bounded_and_lazy():
    taken = []

    def requests() -> Iterator[Request]:
        for number in range(20):
            taken.append(number)
            yield Request("/rows", {"page": number})

    client = Fake(lambda request: {"id": request.params["page"]}, delay=0.005)
    looked_up = fetch_all(client, requests(), workers=3)
    for done, _ in enumerate(looked_up, start=1):
        assert len(taken) <= done + 3
    assert done == 20
    assert client.most_at_once == 3


def test_what_follows_an_answer_is_asked_before_other_requests():
    client = Fake(lambda request: {"id": request.params["page"]})

    def then(request: Request, outcome: Any) -> list[Request]:
        return [Request("/more", {"page": 10 * outcome.data["id"]})] if request.path == "/rows" else []

    asked = [Request("/rows", {"page": number}) for number in (1, 2, 3)]
    found = [outcome.data["id"] for _, outcome in fetch_all(client, asked, workers=1, then=then)]
    assert found == client.asked == [1, 10, 2, 20, 3, 30]


def test_no_look_ups():
    assert list(fetch_all(numbered(cut(1, 1)), [])) == []
