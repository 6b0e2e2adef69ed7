"""What is read of Flex's answers. The rows that are desired are the truth; Flex only says which lines it has."""

from collections.abc import Iterator, Mapping
from typing import Any

from include.api.request import Answer, Request
from include.sources.answer_census import AnswerCensus
from include.sources.base import ReadAnswer
from include.sources.flex.rows import CHILDREN

REST = "Flex is the copy: names, times and prices that people enter there are theirs, and are never written here"

# Of the fields that are read; the role comes as a text or an object.
TYPES = {"id": "text", "resourceId": "text", "children": "list", "leaf": "flag", "container": "flag"}

ANSWERS = (
    ReadAnswer(
        "a line on a crew call (row-data)",
        read={
            "id": "the line",
            "managedResourceLineItemType": "whether it is a contact or gear",
            "type": "whether it is a contact or gear",
            "resourceId": "the contact",
            "resource.id": "the contact",
            "resource.resourceId": "the contact",
            "business-role": "the contact's role",
            "children": "the lines below it",
            **dict.fromkeys(("leaf", "container"), "whether lines below it are not shown"),
            **dict.fromkeys(("exceptionMessage", "error", "errors", "message"), "an error in place of the line"),
        },
        ignored={
            "rootLineId": "the crew call was asked for by its id",
            "contact": "a person's name, which the profile has",
        },
        rest=REST,
        counted_as="row-data",
        types=TYPES,
        enumerations=("managedResourceLineItemType", "type"),
    ),
    ReadAnswer(
        "the record of a crew call or line (line-item)",
        read={
            "id": "the line or crew call",
            "lineItemId": "the line or crew call",
            "data.id": "the line or crew call",
            "data.lineItemId": "the line or crew call",
            **{f"data.{name}": "the lines below it" for name in CHILDREN},
            "managedResourceLineItemType": "whether it is a contact or gear",
            "type": "whether it is a contact or gear",
            "resourceId": "the contact",
            "resource.id": "the contact",
            "resource.resourceId": "the contact",
            **dict.fromkeys(("children", "lineItems", "items"), "the lines below it"),
            **dict.fromkeys(("leaf", "container"), "whether lines below it are not shown"),
            **dict.fromkeys(("exceptionMessage", "error", "errors", "message"), "an error in place of the record"),
        },
        ignored={"business-role": "only the rows of a crew call are proven to show roles"},
        rest=REST,
        counted_as="line-item",
        types=TYPES,
        enumerations=("managedResourceLineItemType", "type"),
    ),
    ReadAnswer(
        "the answer to an added line (add-resource)",
        read={
            **dict.fromkeys(("addedResourceLineIds", "id", "lineItemId"), "the new line"),
            **dict.fromkeys(("data.id", "data.lineItemId"), "the new line"),
            **dict.fromkeys(("exceptionMessage", "error", "errors", "message"), "an error: nobody knows the outcome"),
        },
        ignored={},
        rest="what it says is not believed before a read shows the line",
    ),
)


def count(census: AnswerCensus, request: Request, answer: Answer) -> None:
    """Count the lines that the answer to a read shows, and the crew call around them."""
    if request.method == "GET":
        rows = list(_with_lines_below(answer.data))
        census.count("row-data" if request.path.endswith("/row-data/") else "line-item", rows, [rows])


def _with_lines_below(found: Any) -> Iterator[Mapping[str, Any]]:
    """Yield all objects in a list of lines or in a record, each before the lines below it."""
    left = list(found) if isinstance(found, list) else [found]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            yield each
            holders = [each, each.get("data")]
            shown = [holder.get(name) for holder in holders if isinstance(holder, dict) for name in CHILDREN]
            left += [line for lines in shown if isinstance(lines, list) for line in lines]
