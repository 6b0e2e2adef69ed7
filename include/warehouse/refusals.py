"""Errors with which Postgres refuses a statement: whether one row is to blame, and how they are told without it.

The server's message may quote a row, as may the details that it adds.
"""

from psycopg import Error

# Classes of SQLSTATE of which every other statement would fail too: the connection, the transaction, the rights of the
# user, missing tables, resources, a server that shuts down.
OF_ALL = frozenset({"08", "25", "28", "3D", "3F", "42", "53", "57", "58", "F0", "XX"})
# Row level security hides or refuses single rows.
OF_A_ROW = frozenset({"42501"})
# Deadlocks and locks that were not to be had: another try may go well.
PASSING = frozenset({"40", "55"})
# Values that can't be stored, constraints, and what triggers say: their messages may quote a row.
QUOTING = frozenset({"22", "23", "P0"})


def concerns_one(error: Error) -> bool:
    """Return whether other rows may be written all the same."""
    state = error.sqlstate
    return state is not None and (state in OF_A_ROW or state[:2] not in OF_ALL)


def passes(error: Error) -> bool:
    """Return whether another try may go well."""
    return (error.sqlstate or "")[:2] in PASSING


def refusal(error: Error) -> str:
    """Return why the database refuses a row, in words that quote nothing of it."""
    constraint = error.diag.constraint_name
    return type(error).__name__ + (f", constraint {constraint}" if constraint else "")


def reason(error: BaseException) -> str:
    """Return the message of an error as it is kept, without anything of a row."""
    if isinstance(error, Error) and (error.sqlstate or "")[:2] in QUOTING:
        return refusal(error)
    if isinstance(error, Error) and error.diag.message_primary:
        return f"{type(error).__name__}: {error.diag.message_primary}"
    return str(error) or type(error).__name__
