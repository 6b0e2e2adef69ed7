"""Who may answer a hold and roll back: users with one of the roles that DECIDER_ROLES names.

Of Airflow's auth managers only the simple one tells tasks who has which role: its configuration lists users and roles.
With another auth manager nobody is refused here, and Airflow checks that one's own permissions alone.
"""

import os

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

VARIABLE = "DECIDER_ROLES"
ROLES = "op,admin"
SIMPLE = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"


class NotDecider(AirflowFailException):
    """Somebody without the role has answered a hold or triggered a rollback. The message says what to do."""


def roles() -> list[str]:
    """Return the roles in lower case: those that DECIDER_ROLES of the environment names, else op and admin."""
    named = os.environ.get(VARIABLE) or ROLES
    return [role.strip().lower() for role in named.split(",") if role.strip()]


def deciders() -> list[str] | None:
    """Return the names of the users who have such a role; None if Airflow's configuration does not tell."""
    if conf.get("core", "auth_manager") != SIMPLE or conf.getboolean("core", "simple_auth_manager_all_admins"):
        return None
    # Each is name:role, or name:role:teams.
    users = [user.split(":") for user in conf.getlist("core", "simple_auth_manager_users")]
    return [name for name, role, *_ in users if role.lower() in roles()]


def is_decider(name: str | None) -> bool:
    """Return whether the user may answer a hold and roll back, as far as that is known here."""
    known = deciders()
    return known is None or name in known


def require_decider(name: str | None, what: str, what_now: str) -> None:
    """Raise NotDecider unless the user may. `what` they wanted to do; `what_now`: sentences on what comes next."""
    if not is_decider(name):
        raise NotDecider(f"{name or 'a run that no user has triggered'} may not {what}: {needed()}. {what_now}")


def needed() -> str:
    """Return in words which role it takes."""
    return f"that takes the role {' or '.join(roles())}"
