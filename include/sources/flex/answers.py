"""What is read of Flex's answers. The rows that are desired are the truth; Flex only says which lines it has."""

from include.sources.base import ReadAnswer

REST = "Flex is the copy: names, times and prices that people enter there are theirs, and are never written here"

ANSWERS = (
    ReadAnswer(
        "a line on a crew call (row-data)",
        read={
            "id": "the line",
            "managedResourceLineItemType": "whether it is a contact or gear",
            "type": "likewise",
            "resourceId": "the contact",
            "resource.id": "likewise",
            "resource.resourceId": "likewise",
            "business-role": "the contact's role",
            "children": "the lines below it",
            "leaf": "whether lines below it are not shown",
            **dict.fromkeys(("exceptionMessage", "error", "errors", "message"), "an error in place of the line"),
        },
        ignored={
            "rootLineId": "the crew call was asked for by its id",
            "container": "the list shows by leaf and children what lies below",
            "contact": "a person's name, which the profile has",
        },
        rest=REST,
    ),
    ReadAnswer(
        "the record of a crew call or line (line-item)",
        read={
            "id": "the line or crew call",
            "lineItemId": "likewise",
            "data": "may have the same fields",
            "managedResourceLineItemType": "whether it is a contact or gear",
            "type": "likewise",
            "resourceId": "the contact",
            "resource.id": "likewise",
            "resource.resourceId": "likewise",
            **dict.fromkeys(("children", "lineItems", "items"), "the lines below it"),
            **dict.fromkeys(("leaf", "container"), "whether lines below it are not shown"),
            **dict.fromkeys(("exceptionMessage", "error", "errors", "message"), "an error in place of the record"),
        },
        ignored={"business-role": "only the rows of a crew call are proven to show roles"},
        rest=REST,
    ),
)
