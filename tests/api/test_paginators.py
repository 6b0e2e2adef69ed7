from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.api.errors import RefuseData
from include.api.paginators import Crawl, Cursor, LastId, NextLink, Offset, Page, PageNumber, Single, SpringPage
from include.api.request import Answer, Request

FEW = {"rows": [{"id": 1}]}

NOON = datetime(2026, 2, 3, 12, 0, tzinfo=UTC)
LINES = PageNumber("line_items")
UNUSABLE = [None, "", "many", "-1", -1, 2.0, True, [], {}, "\u0663", "9" * 5000]


def rows(count: int) -> list[dict]:
    return [{"id": number} for number in range(count)]


def read_lines(position: int, count: int, meta: object = None, crawl: Crawl | None = None) -> Page:
    answer = Answer({"line_items": rows(count), "meta": meta})
    return LINES.read(answer, position, crawl or Crawl())


# -- PageNumber


def test_page_number_asks_by_its_param():
    base = Request("/line_items", {"invoice_id_not_null": "true"})
    asked = LINES.request(base, 3)
    assert asked == Request("/line_items", {"invoice_id_not_null": "true", "page": 3})
    assert base.params == {"invoice_id_not_null": "true"}
    assert LINES.start == 1
    assert PageNumber("rows", param="p", start=0).request(base, 0).params["p"] == 0


def test_page_number_reads_rows_totals_and_clock():
    meta = {"total_pages": 7, "total_entries": 650, "per_page": 100, "page": 2}
    answer = Answer({"line_items": rows(100), "meta": meta}, NOON)
    assert LINES.read(answer, 2) == Page(2, rows(100), 3, 7, 650, 2, NOON)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_below_the_total_the_crawl_goes_on(count):
    assert read_lines(1, count, {"total_pages": 2, "per_page": 100}).next == 2


@pytest.mark.parametrize(("count", "next_page"), [(0, None), (99, None), (100, 4), (101, 4)])
@pytest.mark.parametrize("total", [1, 3, "3", 0])
def test_from_the_total_on_full_pages_go_on(count, next_page, total):
    assert read_lines(3, count, {"total_pages": total, "per_page": 100}).next == next_page


@pytest.mark.parametrize(("count", "next_page"), [(0, None), (99, 4), (100, 4), (101, 4)])
@pytest.mark.parametrize("meta", [None, "meta", [], {}, {"page": 3}, {"total_pages": "many"}])
def test_without_a_total_only_a_page_without_rows_ends_the_list(count, next_page, meta):
    assert read_lines(3, count, meta, Crawl(largest=100)).next == next_page


def test_a_first_page_of_unknown_size_is_taken_for_full():
    assert read_lines(1, 3).next == 2
    assert read_lines(1, 3, {"total_pages": 1, "page": 1}).next == 2
    assert read_lines(1, 0).next is None


@pytest.mark.parametrize("meta", [{"per_page": 25}, {"per_page": 25, "total_pages": 1}])
def test_a_page_size_that_no_page_ever_had_ends_nothing(meta):
    assert read_lines(2, 20, meta, Crawl(largest=20)).next == 3


def test_a_page_size_alone_ends_nothing():
    assert read_lines(1, 20, {"per_page": 25}).next == 2


def test_a_total_that_is_missing_once_is_remembered():
    assert read_lines(2, 1, {}, Crawl(largest=100, total_pages=5)).next == 3
    assert read_lines(5, 1, {}, Crawl(largest=100, total_pages=5)).next is None


def test_a_total_that_shrinks_or_grows_counts_at_once():
    crawl = Crawl(largest=100, total_pages=5)
    assert read_lines(4, 99, {"total_pages": 4}, crawl).next is None
    assert read_lines(5, 99, {"total_pages": 6}, crawl).next == 6


@pytest.mark.parametrize("value", UNUSABLE)
def test_unusable_totals_are_none(value):
    page = read_lines(1, 1, {"total_pages": value, "total_entries": value, "per_page": value})
    assert (page.total_pages, page.total_entries) == (None, None)


@pytest.mark.parametrize("value", [7, "7", "007"])
def test_totals_as_text(value):
    page = read_lines(1, 1, {"total_pages": value, "total_entries": value})
    assert (page.total_pages, page.total_entries) == (7, 7)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.integers(0, 9))
def test_no_meta_breaks_a_page(value, count):
    for meta in (value, {"total_pages": value, "total_entries": value, "per_page": value}):
        page = read_lines(1, count, meta)
        assert len(page.rows) == count
        assert page.next in (None, 2)


@pytest.mark.parametrize(
    ("position", "crawl", "count", "expected"),
    [
        (2, Crawl(total_pages=5), 9, [3, 4, 5]),
        (2, Crawl(total_pages=5), 2, [3, 4]),
        (2, Crawl(total_pages=5), 0, []),
        (5, Crawl(total_pages=5), 9, []),
        (8, Crawl(total_pages=5), 9, []),
        (2, Crawl(), 9, []),
    ],
)
def test_pages_known_ahead(position, crawl, count, expected):
    assert LINES.ahead(position, crawl, count) == expected


@pytest.mark.parametrize(
    ("page", "crawl", "doubtful"),
    [
        (Page(2, [], 3, 5), Crawl(total_pages=5), True),
        (Page(2, [], None, 0), Crawl(total_pages=5), True),
        (Page(2, [], None), Crawl(total_pages=5), True),
        (Page(2, [], None), Crawl(), True),
        (Page(5, [], None, 5), Crawl(total_pages=5), False),
        (Page(6, [], None, 5), Crawl(total_pages=5), False),
        (Page(1, [], None, 1), Crawl(), False),
        (Page(1, [], None, 0), Crawl(), False),
        (Page(2, rows(1), 3, 5), Crawl(total_pages=5), False),
    ],
)
def test_an_empty_page_is_doubtful_unless_the_end_was_told(page, crawl, doubtful):
    assert LINES.doubtful(page, crawl) is doubtful


# -- Cursor


def test_cursor_sends_its_token_in_the_query():
    base = Request("/payments", {"limit": 100})
    cursor = Cursor("payments", param="after")
    assert cursor.start is None
    assert cursor.request(base, None) == base
    assert cursor.request(base, "abc").params == {"limit": 100, "after": "abc"}


@pytest.mark.parametrize(
    ("paging", "token"), [({"next": {"after": "52"}}, "52"), ({"next": None}, None), ({}, None), (None, None)]
)
def test_cursor_finds_its_token_inside_objects(paging, token):
    cursor = Cursor(rows="results", param="after", token="paging.next.after")
    assert cursor.read(Answer({"results": rows(1), "paging": paging}, NOON), None).next == token


def test_cursor_refuses_a_token_inside_something_else():
    cursor = Cursor(rows="results", param="after", token="paging.next.after")
    with pytest.raises(RefuseData, match=r"'paging\.next\.after' leads into something that is no JSON object"):
        cursor.read(Answer({"results": [], "paging": "52"}, NOON), None)


def test_cursor_sends_its_token_in_the_body():
    base = Request("/orders/search", method="POST", body={"limit": 100})
    cursor = Cursor("orders", in_body=True)
    assert cursor.request(base, None) == base
    assert cursor.request(base, "abc").body == {"limit": 100, "cursor": "abc"}
    assert cursor.request(base, "abc").params == {}
    assert base.body == {"limit": 100}
    assert cursor.request(Request("/vendors/search", method="POST"), "abc").body == {"cursor": "abc"}


@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_token_goes_on_whatever_the_page_holds(count):
    answer = Answer({"payments": rows(count), "next": "abc"}, NOON)
    assert Cursor("payments", token="next").read(answer, None) == Page(None, rows(count), "abc", date=NOON)


@pytest.mark.parametrize("end", [{}, {"cursor": None}, {"cursor": ""}])
def test_no_token_is_the_end(end):
    assert Cursor("payments").read(Answer({"payments": rows(100), **end}), "abc").next is None


@pytest.mark.parametrize(("more", "next_token"), [(False, None), (True, "abc"), (None, "abc")])
def test_a_token_is_worth_nothing_where_no_more_follow(more, next_token):
    answer = Answer({"payments": rows(2), "cursor": "abc", "more": more})
    assert Cursor("payments", more="more").read(answer, None).next == next_token
    assert Cursor("payments").read(answer, None).next == "abc"


@pytest.mark.parametrize("token", [7, True, ["abc"], {"after": "abc"}])
def test_a_token_that_is_no_text_is_refused(token):
    with pytest.raises(RefuseData, match="'cursor'"):
        Cursor("payments").read(Answer({"payments": [], "cursor": token}), None)


def test_an_empty_page_with_a_token_is_doubtful():
    cursor = Cursor("payments")
    assert cursor.doubtful(Page("a", [], "b"), Crawl())
    # An API may also answer so to a token that has expired.
    assert cursor.doubtful(Page("a", [], None), Crawl())
    assert not cursor.doubtful(Page(None, [], None), Crawl())
    assert not cursor.doubtful(Page("a", rows(1), "b"), Crawl())
    assert cursor.ahead("a", Crawl(), 9) == []


@pytest.mark.parametrize("data", [{}, {"cursor": None}, {"errors": []}, {"errors": None, "latest_time": None}])
def test_an_answer_without_rows_is_an_empty_list_where_that_is_declared(data):
    cursor = Cursor("orders", optional=True, as_of="latest_time")
    assert cursor.read(Answer(data), None).rows == []


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "hush", 5, [1]])
def test_a_time_that_can_not_be_kept_is_refused(time):
    """Of a watermark beyond the years 1 to 9999 psycopg could read nothing."""
    with pytest.raises(RefuseData, match="'latest_time' is no time"):
        Cursor("orders", as_of="latest_time").read(Answer({"orders": [], "latest_time": time}), None)


@pytest.mark.parametrize("link", ["http://[?a=1", "//x?", 5, ["?a=1"]])
def test_a_broken_address_of_the_next_page_is_refused(link):
    with pytest.raises(RefuseData, match="no query"):
        NextLink("rows", "next").read(Answer({"rows": [], "next": link}), None)


@pytest.mark.parametrize(
    "data", [{"message": "hush"}, {"message": None}, {"cursor": "abc", "status": 503}, {"orders": None}, {"Orders": []}]
)
def test_an_answer_with_something_else_in_place_of_rows_is_refused(data):
    with pytest.raises(RefuseData) as caught:
        Cursor("orders", optional=True).read(Answer(data), None)
    assert "hush" not in str(caught.value)


# -- SpringPage


SPRING = SpringPage()


def test_spring_page_asks_from_zero():
    assert SPRING.start == 0
    assert SPRING.request(Request("/jobs", {"size": 100}), 0).params == {"size": 100, "page": 0}


@pytest.mark.parametrize(
    ("position", "count", "form", "next_page"),
    [
        (0, 2, {"totalPages": 3, "last": False}, 1),
        (2, 2, {"totalPages": 3, "last": True}, None),
        (2, 2, {"totalPages": 3}, None),
        (1, 2, {"totalPages": 3}, 2),
        (1, 0, {"totalPages": 3, "last": False}, 2),
        (2, 2, {"totalPages": 3, "last": False}, 3),
        (1, 2, {"totalPages": 3, "last": True}, 2),
        (3, 0, {"totalPages": 3, "last": False}, None),
        (0, 2, {"last": False}, 1),
        (0, 2, {"last": True}, None),
        (0, 2, {"totalPages": "many"}, 1),
        (0, 0, {}, None),
    ],
)
def test_spring_page_ends_where_both_signs_agree(position, count, form, next_page):
    page = SPRING.read(Answer({"content": rows(count), "totalElements": 5, **form}), position)
    assert page.next == next_page
    assert page.total_entries == 5


def test_a_plain_array_ends_with_an_empty_page():
    assert SPRING.read(Answer(rows(2), NOON), 4) == Page(4, rows(2), 5, date=NOON)
    assert SPRING.read(Answer([]), 5).next is None
    assert SPRING.doubtful(Page(5, [], None), Crawl(largest=2))


def test_spring_pages_known_ahead():
    assert SPRING.ahead(1, Crawl(total_pages=4), 9) == [2, 3]


# -- all of them


@pytest.mark.parametrize("paginator", [LINES, Cursor("line_items"), SpringPage("line_items")])
@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        7,
        {},
        {"errors": []},
        {"line_items": None},
        {"line_items": {}},
        {"line_items": "x"},
        {"line_items": [{"id": 1}, None]},
        {"line_items": [[1, "Anna"]]},
    ],
)
def test_answers_of_another_shape_are_refused(paginator, data):
    with pytest.raises(RefuseData):
        paginator.read(Answer(data), paginator.start)


@pytest.mark.parametrize(
    "key",
    ["error", "errors", "Errors", "message", "messages", "exceptionMessage", "error_message", "errorCode", "fault"],
)
@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(
    "paginator",
    [LINES, Cursor("line_items"), Cursor("line_items", optional=True), SpringPage("line_items"), Single()],
)
def test_rows_beside_an_error_are_refused(paginator, key, count):
    answer = Answer({"line_items": rows(count), key: "hush"})
    with pytest.raises(RefuseData, match=f"carries '{key}'") as caught:
        paginator.read(answer, paginator.start)
    assert "hush" not in str(caught.value)
    for fine in (None, "", "OK", "none", 0, "0", "00", "200", False, []):
        assert paginator.read(replace(answer, data={**answer.data, key: fine}), paginator.start)


@pytest.mark.parametrize(
    "verdict",
    [
        {"success": False},
        {"ok": False},
        {"status": "error"},
        {"status": "FAILED"},
        {"object": "error", "code": "maintenance"},
        {"type": "error.list"},
        {"Result": "Failure"},
        {"success": "false"},
        {"code": 503, "msg": "busy"},
        {"status": 429, "title": "Too Many Requests", "detail": "busy"},
        {"statusCode": "500"},
        {"status_code": 404},
        {"code": 503.0},
        {"httpStatus": 500},
        {"status": {"code": 503, "description": "busy"}},
    ],
)
@pytest.mark.parametrize("paginator", [LINES, Cursor("line_items"), Cursor("line_items", optional=True), Single()])
def test_a_list_that_says_that_it_failed_is_refused(paginator, verdict):
    told = "code" if isinstance(verdict.get("status"), dict) else next(iter(verdict))
    with pytest.raises(RefuseData, match=f"its '{told}' says that it failed"):
        paginator.read(Answer({"line_items": [], **verdict}), paginator.start)
    for fine in (
        {"success": True, "status": "ok"},
        {"code": 0, "msg": "done"},
        {"code": 200},
        {"code": "E4"},
        {"status": {"code": 200, "message": "done"}},
    ):
        assert paginator.read(Answer({"line_items": rows(1), **fine}), paginator.start)


def test_a_single_answer_has_its_rows_at_a_path():
    assert Single("data.tags").read(Answer({"data": {"tags": rows(2)}}), None).rows == rows(2)
    assert Single("data").read(Answer({"data": rows(2), "has_more": False, "next": None}), None).rows == rows(2)
    with pytest.raises(RefuseData, match="has no list 'data'"):
        Single("data").read(Answer({"tags": rows(2)}), None)


@pytest.mark.parametrize(
    "more",
    [
        {"has_more": True},
        {"has_more": "true"},
        {"next": "/tags?page=2"},
        {"nextPageToken": "b"},
        {"@odata.nextLink": "/tags?$skip=2"},
        {"links": {"next": {"href": "/tags?page=2"}}},
        {"meta": {"paging": {"next_page": 2}}},
        {"total": 3},
        {"@odata.count": "3"},
        {"meta": {"total_count": 3}},
    ],
)
def test_a_single_answer_that_says_that_more_follows_is_refused(more):
    with pytest.raises(RefuseData, match="says that more follows, but the list is declared as a single answer"):
        Single("data").read(Answer({"data": rows(2), **more}), None)


@pytest.mark.parametrize("paginator", [Single(), Single("data")])
def test_a_single_answer_whose_link_leads_on_is_refused(paginator):
    data = {"data": rows(2)} if paginator.rows else rows(2)
    assert len(paginator.read(Answer(data, headers={"Link": '</tags>; rel="self"'}), None).rows) == 2
    with pytest.raises(RefuseData, match="its Link header says that more follows"):
        paginator.read(Answer(data, headers={"Link": '</tags?page=2>; rel="next"'}), None)


def test_a_single_answer_may_be_nested_deeper_than_python_calls():
    deep: dict = {}
    for _ in range(20_000):
        deep = {"in": deep}
    assert len(Single("data").read(Answer({"data": rows(2), "meta": deep}), None).rows) == 2


def test_a_single_answer_may_say_that_nothing_follows():
    more = {"has_more": "false", "links": {"next": None, "self": "/tags"}, "meta": {"next": {"href": None}}, "total": 2}
    assert Single("data").read(Answer({"data": rows(2), **more}), None).rows == rows(2)


def test_a_row_may_have_a_field_that_is_named_like_an_error():
    told = [{"id": 1, "message": "call the customer", "error": "E4"}]
    for paginator in (LINES, Cursor("line_items"), SpringPage("line_items")):
        assert paginator.read(Answer({"line_items": told}), paginator.start).rows == told
    assert Single().read(Answer(told), None).rows == told


@pytest.mark.parametrize("key", ["messages", "Messages"])
@pytest.mark.parametrize("make", [PageNumber, Cursor, partial(Cursor, optional=True), LastId, NextLink, SpringPage])
def test_a_list_may_be_of_messages(make, key):
    paginator, told = make(key), [{"id": 1, "message": "call the customer"}]
    ended = {"has_more": False} if make is LastId else {}
    assert paginator.read(Answer({key: told, **ended}), paginator.start).rows == told
    for data in ({key: "hush"}, {key: ["hush"]}, {key: told, "message": "hush"}):
        with pytest.raises(RefuseData):
            paginator.read(Answer({**data, **ended}), paginator.start)


def test_a_plain_array_is_refused_where_none_is_expected():
    for paginator in (LINES, Cursor("line_items")):
        with pytest.raises(RefuseData, match="no JSON object"):
            paginator.read(Answer([]), paginator.start)


def test_a_crawl_remembers_the_largest_page_and_the_last_total():
    crawl = Crawl().after(Page(1, rows(3), 2, 9)).after(Page(2, rows(5), 3, 8)).after(Page(3, rows(4), 4))
    assert crawl == Crawl(largest=5, total_pages=8, rows=12)


# -- LastId


def test_last_id_asks_by_the_last_row_while_more_follow():
    base, pages = Request("/customers", {"limit": 3}), LastId("data")
    page = pages.read(Answer({"data": rows(3), "has_more": True}, NOON), None)
    assert page == Page(None, rows(3), 2, date=NOON)
    assert pages.request(base, page.next).params == {"limit": 3, "starting_after": 2}
    assert pages.request(base, None) == base
    assert pages.read(Answer({"data": rows(3), "has_more": False}), 2).next is None


@pytest.mark.parametrize("more", [{}, {"has_more": None}, {"has_more": "true"}, {"has_more": 1}])
def test_last_id_wants_to_know_whether_more_follow(more):
    with pytest.raises(RefuseData, match="'has_more'"):
        LastId("data").read(Answer({"data": rows(3), **more}), None)


@pytest.mark.parametrize("last", [{}, {"id": None}, {"id": True}, {"id": []}])
def test_last_id_of_no_use_is_refused(last):
    with pytest.raises(RefuseData, match="'id'"):
        LastId("data").read(Answer({"data": [{"id": 1}, last], "has_more": True}), None)
    assert LastId("data").read(Answer({"data": [{"id": 1}, last], "has_more": False}), None).next is None


def test_last_id_of_an_empty_page_that_says_more_contradicts_itself():
    page = LastId("data").read(Answer({"data": [], "has_more": True}), 7)
    assert LastId("data").contradiction(page, Crawl()) == "the page is empty, but says that more follow"
    assert LastId("data").contradiction(LastId("data").read(Answer({"data": [], "has_more": False}), 7), Crawl()) == ""


@pytest.mark.parametrize(("end", "next_page"), [(True, None), (False, "n"), (None, "n")])
def test_a_flag_may_tell_the_end_beside_a_token_or_an_address(end, next_page):
    token = Cursor("rows", token="next", end="end_of_stream").read(
        Answer({**FEW, "next": "n", "end_of_stream": end}), None
    )
    link = NextLink("rows", key="next", end="end_of_stream").read(
        Answer({**FEW, "next": "https://a.example/?n", "end_of_stream": end}), None
    )
    assert (token.next, link.next) == (next_page, next_page)


def test_flags_totals_and_addresses_may_lie_in_objects():
    told = {"meta": {"has_more": False, "token": "n", "total": "7", "now": "2026-02-03T12:00:00Z"}, **FEW}
    cursor = Cursor("rows", token="meta.token", more="meta.has_more", as_of="meta.now")
    page = cursor.read(Answer(told), None)
    assert (page.next, page.as_of) == (None, NOON)
    assert cursor.read(Answer({**told, "meta": {**told["meta"], "has_more": True}}), None).next == "n"
    links = NextLink("rows", key="links.next", total="meta.total", end="meta.has_ended")
    page = links.read(Answer({**told, "links": {"next": "https://a.example/?n"}}), None)
    assert (page.next, page.total_entries) == ("n", 7)
    assert links.read(Answer({**told, "links": {"next": "?n"}, "meta": {"has_ended": True}}), None).next is None
    assert LastId("rows", more="meta.has_more").read(Answer(told), None).next is None


# -- Offsets

ISSUES = Offset("issues", param="startAt", total="meta.total")


@pytest.mark.parametrize(
    ("position", "count", "total", "crawl", "following"),
    [
        (None, 50, 120, Crawl(), "50"),
        ("50", 30, 120, Crawl(largest=50), "80"),
        ("100", 20, "120", Crawl(largest=50), None),
        ("100", 50, 120, Crawl(largest=50), "150"),
        ("100", 20, None, Crawl(largest=50, total_entries=130), "120"),
        ("100", 20, None, Crawl(largest=50), "120"),
        ("100", 0, 120, Crawl(largest=50), None),
        ("100", 0, None, Crawl(largest=50), None),
    ],
)
def test_an_offset_counts_the_rows_before_the_page(position, count, total, crawl, following):
    page = ISSUES.read(Answer({"issues": rows(count), "meta": {"total": total}}), position, crawl)
    assert page.next == following


def test_an_offset_is_asked_for_in_the_query_or_in_the_body():
    base = Request("/search", {"startAt": 7, "jql": "x"}, body={"jql": "x"})
    assert ISSUES.request(base, None) == base
    assert ISSUES.request(base, "50").params == {"startAt": 50, "jql": "x"}
    assert Offset("issues", in_body=True).request(base, "50").body == {"offset": 50, "jql": "x"}
    assert (ISSUES.beside, Offset("issues").beside) == (("meta.total",), ())


@pytest.mark.parametrize(
    ("page", "crawl", "doubtful", "contradicts"),
    [
        (Page("100", [], None, total_entries=120), Crawl(), True, True),
        (Page(None, [], None, total_entries=1), Crawl(), False, True),
        (Page(None, [], None, total_entries=0), Crawl(), False, False),
        (Page("100", [], None, total_entries=100), Crawl(), False, False),
        (Page("100", [], None), Crawl(total_entries=100), False, False),
        (Page("100", [], None), Crawl(), True, False),
    ],
)
def test_an_empty_page_before_the_end_is_doubtful(page, crawl, doubtful, contradicts):
    assert (ISSUES.doubtful(page, crawl), bool(ISSUES.contradiction(page, crawl))) == (doubtful, contradicts)


def test_a_page_lies_past_the_end_by_the_total():
    assert ISSUES.past_end(Page("100", rows(3), "103", total_entries=100), Crawl())
    assert not ISSUES.past_end(Page("100", rows(3), "103"), Crawl())
    assert ISSUES.may_be_past_end(Page("100", [], None), Crawl(total_entries=100))
    assert not ISSUES.may_be_past_end(Page("100", [], None), Crawl())


# -- Rows inside objects


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("data.items", {"data": {"items": [{"id": 1}, {"id": 2}]}}),
        ("list[*].customer", {"list": [{"customer": {"id": 1}}, {"customer": {"id": 2}, "card": {"id": 7}}]}),
        ("data.list[*].node.it", {"data": {"list": [{"node": {"it": {"id": 1}}}, {"node": {"it": {"id": 2}}}]}}),
    ],
)
def test_rows_are_found_by_their_path(path, data):
    for paginator in (Cursor(path), PageNumber(path), NextLink(path), SpringPage(path)):
        assert paginator.read(Answer(data), paginator.start).rows == [{"id": 1}, {"id": 2}]
    page = LastId(path).read(Answer({**data, "has_more": True}), None)
    assert (page.rows, page.next) == ([{"id": 1}, {"id": 2}], 2)


@pytest.mark.parametrize(
    "data", [{}, {"list": {}}, {"list": [{}]}, {"list": [{"customer": []}]}, {"list": [7]}, {"list": [{"card": {}}]}]
)
def test_rows_that_are_not_at_their_path_are_refused(data):
    with pytest.raises(RefuseData):
        Cursor("list[*].customer").read(Answer(data), None)


def test_a_path_of_rows_that_may_be_left_out_is_refused():
    with pytest.raises(ValueError, match="under one key"):
        Cursor("data.items", optional=True)


# -- NextLink


def test_next_link_follows_the_query_of_the_header_alone():
    base, pages = Request("/issues", {"per_page": 3, "labels": ["a", "b"]}), NextLink()
    query = "per_page=3&labels=a&labels=b&page=2"
    link = f'<https://elsewhere.example/repositories/1/issues?{query}>; rel="next", <x>; rel="last"'
    page = pages.read(Answer(rows(3), NOON, {"Link": link}), None)
    following = pages.request(base, page.next)
    assert (page.rows, page.date) == (rows(3), NOON)
    assert (following.path, following.params) == (
        "/issues",
        {"per_page": ["3"], "labels": ["a", "b"], "page": ["2"]},
    )
    assert pages.request(base, "page=2").params == {"page": ["2"]}
    assert pages.request(base, None) == base
    assert (
        pages.read(Answer(rows(3), headers={"Link": '<https://a.example/?page=1>; rel="prev"'}), "page=2").next is None
    )
    assert pages.read(Answer(rows(3)), "page=2").next is None


@pytest.mark.parametrize("rel", ['rel="last next"', 'rel="NEXT"', 'REL="next"', "rel=next"])
def test_next_link_of_a_header_has_any_case_and_other_types(rel):
    page = NextLink().read(Answer(rows(3), headers={"Link": f"<https://a.example/?page=2>; {rel}"}), None)
    assert page.next == "page=2"


@pytest.mark.parametrize("blank", [None, "", False])
def test_next_link_that_is_blank_is_the_end(blank):
    assert NextLink("value", key="next").read(Answer({"value": rows(1), "next": blank}), None).next is None


def test_next_link_in_the_answer():
    pages = NextLink("value", key="@odata.nextLink", total="@odata.count")
    data = {"value": rows(2), "@odata.nextLink": "https://a.example/Orders?$skiptoken=7", "@odata.count": 5}
    assert pages.read(Answer(data), None) == Page(None, rows(2), "$skiptoken=7", total_entries=5)
    assert pages.request(Request("/Orders"), "$skiptoken=7").params == {"$skiptoken": ["7"]}
    last = pages.read(Answer({"value": [], "@odata.count": 5}), "$skiptoken=7")
    assert pages.contradiction(last, Crawl(rows=2)) == "the list ends after 2 rows, but says that it has 5"
    assert pages.contradiction(last, Crawl(rows=5)) == ""


@pytest.mark.parametrize("link", [7, True, [], "https://a.example/Orders"])
def test_next_link_without_a_query_is_refused(link):
    with pytest.raises(RefuseData, match="no query"):
        NextLink("value", key="next").read(Answer({"value": rows(1), "next": link}), None)


@pytest.mark.parametrize("more", [{"key": "next"}, {"total": "count"}, {"end": "done"}])
def test_next_link_of_a_plain_array_is_in_the_header(more):
    with pytest.raises(ValueError, match="a plain array has no keys"):
        NextLink(**more)


@pytest.mark.parametrize("data", [None, {}, {"error": "hush"}, [1], "rows"])
def test_next_link_wants_an_array_of_objects(data):
    with pytest.raises(RefuseData):
        NextLink().read(Answer(data), None)


@pytest.mark.parametrize(
    "paginator",
    [
        Cursor("rows", token="next", more="more", end="end", as_of="now"),
        NextLink("rows", key="next", total="total", end="end"),
        LastId("rows", more="more"),
    ],
)
def test_each_key_that_is_read_beside_the_rows_is_told(paginator):
    keys = {getattr(paginator, name, None) for name in ("token", "key", "more", "end", "as_of", "total")}
    assert set(paginator.beside) == keys - {None}
