"""How an error of the warehouse is told that concerns one crew call alone, such as of a trigger that refuses a row."""

from uuid import UUID

import psycopg

from include.warehouse import refusals


def told(element_id: UUID, error: psycopg.Error) -> str:
    """Say what happened, and what to do."""
    constraint = f", constraint {error.diag.constraint_name}" if error.diag.constraint_name else ""
    why = (
        f"element {element_id}: the warehouse refused a statement ({type(error).__name__}, SQLSTATE"
        f" {error.sqlstate}{constraint})"
    )
    left = "The rows of this crew call were left as they were; what was done in Flex by then is in the journal."
    if refusals.passes(error):
        return f"{why}: others were at work on the same rows. {left} The next sync tries again"
    return (
        f"{why}. {left} The log of Postgres has the message; mend what it names, most often a trigger or constraint of"
        f" {error.diag.table_name or 'flex_crew_assignments'}"
    )
