"""Eight things that go wrong in real life, each of which ends in a question. Most can't be seen by a sync."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from psycopg import Connection

from include.simulators import flex, repairshopr, square, tekmetric
from stack.control import Stack
from stack.demo.storage import client
from stack.settings import BUCKET

PRICES, ESTIMATES, PAYMENTS, CREW = 400, 0.7, 150, 35
SHOP = 7301
TIMES, ZONE = ("created_at", "updated_at", "closed_at"), ZoneInfo("America/New_York")


@dataclass(frozen=True)
class Cause:
    """What went wrong with a source, and what the person on call should answer, and why.

    `nights`: in how many nights the gate has to see it before it asks.
    """

    source: str
    what: str
    answer: str
    plant: Callable[[Stack, Connection], None]
    nights: int = 1


def empty_prices(stack: Stack, warehouse: Connection) -> None:
    """Empty the prices of some line items in the copy."""
    query = "SELECT id FROM repairshopr.line_items WHERE price IS NOT NULL ORDER BY id LIMIT %s"
    warehouse.execute(f"UPDATE repairshopr.line_items SET price = NULL WHERE id IN ({query})", [PRICES])


def lose_estimates(stack: Stack, warehouse: Connection) -> None:
    """Remove most of the estimates at the vendor."""
    shop = repairshopr.Control(stack.simulator_urls["repairshopr"])
    ids = shop.ids("estimates")
    gone = ids[: int(len(ids) * ESTIMATES)]
    shop.mutate(*(repairshopr.Mutation("delete", "estimates", id_, silent=True) for id_ in gone))


def enlarge_payments(stack: Stack, warehouse: Connection) -> None:
    """Make payments at the vendor a hundred times larger."""
    till = square.Control(stack.simulator_urls["square"])
    till.mutate(
        *(
            square.Mutation("update", "payments", row["id"], {"amount_money": _hundredfold(row)}, silent=True)
            for row in till.rows("payments")[:PAYMENTS]
        )
    )


def move_times(stack: Stack, warehouse: Connection) -> None:
    """Show the times of orders at the vendor as a clock in New York does, though they are said to be UTC."""
    till = square.Control(stack.simulator_urls["square"])
    till.mutate(
        *(
            square.Mutation(
                "update", "orders", row["id"], {name: _local(row[name]) for name in TIMES if row.get(name)}, silent=True
            )
            for row in till.rows("orders")
        )
    )


def rename_subject(stack: Stack, warehouse: Connection) -> None:
    """Give the subject of tickets another name at the vendor."""
    shop = repairshopr.Control(stack.simulator_urls["repairshopr"])
    names = {"subject": "title"}
    shop.load("tickets", [{names.get(name, name): row[name] for name in row} for row in shop.rows("tickets")])


def lose_orders(stack: Stack, warehouse: Connection) -> None:
    """Remove most orders of one shop at the vendor, so that their own addresses say 404."""
    account = tekmetric.Control(stack.simulator_urls["tekmetric"])
    # A shop without any order would make the scan no evidence.
    gone = [id_ for place, id_ in enumerate(account.ids("orders", SHOP)) if place % 10]
    account.mutate(*(tekmetric.Mutation("delete", "orders", id_, {"hidden": True}, silent=True) for id_ in gone))


def remove_uploads(stack: Stack, warehouse: Connection) -> None:
    """Remove all objects below one user's prefix from the bucket."""
    with closing(client(stack.simulator_urls["storage"])) as store:
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="uploads/")
        keys = [row["Key"] for page in pages for row in page["Contents"]]
        prefix = min(keys).rsplit("/", 1)[0]
        for key in keys:
            if key.startswith(f"{prefix}/"):
                store.delete_object(Bucket=BUCKET, Key=key)


def clear_crew_calls(stack: Stack, warehouse: Connection) -> None:
    """Take people of ours off the crew calls in Flex, as a planner there does."""
    crew = flex.Control(stack.simulator_urls["flex"])
    lines = warehouse.execute(
        "SELECT c.flex_element_id, a.flex_line_item_id FROM flex.flex_crew_assignments a"
        " JOIN flex.flex_crew_calls c ON c.id = a.crew_call_id JOIN flex.jobs j ON j.id = c.job_id"
        " WHERE j.end_time > now() ORDER BY 1, 2 LIMIT %s",
        [CREW],
    ).fetchall()
    crew.mutate(*(flex.Mutation("delete", element, line=line) for element, line in lines))


def _local(time: str) -> str:
    shown = datetime.fromisoformat(time).astimezone(ZONE).replace(tzinfo=UTC)
    return shown.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _hundredfold(payment: dict[str, Any]) -> dict[str, Any]:
    money = payment["amount_money"]
    return money | {"amount": money["amount"] * 100}


CAUSES = (
    Cause(
        "repairshopr",
        f"Somebody's UPDATE in the warehouse has emptied the prices of {PRICES} line items of the copy.",
        "Repair line_items: the source has the prices, only the copy lacks them, and no sync wrote that.",
        empty_prices,
    ),
    Cause(
        "repairshopr",
        f"The vendor has lost {ESTIMATES:.0%} of the estimates, the oldest ones.",
        "Leave estimates out of the repair (or keep stopped) and ask the vendor: a repair would delete them here too.",
        lose_estimates,
    ),
    Cause(
        "repairshopr",
        "The vendor has renamed the subject of tickets: `title` has what `subject` had.",
        "Leave tickets out of the repair (or keep stopped) and declare the new name: a repair would empty subject.",
        rename_subject,
    ),
    Cause(
        "square",
        f"The vendor shows the amounts of {PAYMENTS} payments a hundred times too large, without a new version.",
        "Keep stopped and ask the vendor: the copy is right, the source is wrong.",
        enlarge_payments,
    ),
    Cause(
        "square",
        "The vendor shows the times of orders as a clock in New York does, and still calls them UTC.",
        "Keep stopped and ask the vendor: a repair would move all orders of the copy by hours.",
        move_times,
    ),
    Cause(
        "tekmetric",
        f"Nine of ten orders of shop {SHOP} are gone at the vendor, those of the other shop are not.",
        "Don't repair, and ask the vendor: shops don't delete their orders, and a repair would delete them here too."
        " Keep stopped, or resume for the other shops' sake: syncs delete none of these orders.",
        lose_orders,
    ),
    Cause(
        "storage",
        "A lifecycle rule has removed all original objects of one user from the bucket.",
        "Keep stopped and bring the objects back: a repair would mark these images as broken.",
        remove_uploads,
    ),
    Cause(
        "flex",
        f"A planner has taken {CREW} of our people off the crew calls in Flex.",
        "Repair, once the planner agrees: our assignments are the truth, and a repair only adds these people again.",
        clear_crew_calls,
        nights=2,
    ),
)
