"""Errors of the warehouse that concern one crew call alone, such as of a trigger that refuses a row."""

from uuid import UUID

import psycopg

# Classes of SQLSTATE of which every other statement would fail too: the connection, the transaction, the rights of the
# user, missing tables, resources, a server that shuts down.
OF_ALL = frozenset({"08", "25", "28", "3D", "3F", "42", "53", "57", "58", "F0", "XX"})
# Row level security hides or refuses single rows.
OF_A_ROW = frozenset({"42501"})


def concerns_one(error: psycopg.Error) -> bool:
    """Return whether another crew call may be written all the same."""
    state = error.sqlstate
    return state is not None and (state in OF_A_ROW or state[:2] not in OF_ALL)


def told(element_id: UUID, error: psycopg.Error) -> str:
    """Say what happened, and what to do. The server's own message is left out, since it may show the row."""
    constraint = f", constraint {error.diag.constraint_name}" if error.diag.constraint_name else ""
    return (
        f"element {element_id}: the warehouse refused a statement ({type(error).__name__}, SQLSTATE {error.sqlstate}"
        f"{constraint}). The rows of this crew call were left as they were; what was done in Flex by then is in the"
        " journal. The log of Postgres has the message; mend what it names, most often a trigger or constraint of"
        f" {error.diag.table_name or 'flex_crew_assignments'}"
    )
