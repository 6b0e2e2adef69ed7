"""Who may answer a hold and roll back: users with one of the roles that DECIDER_ROLES names.

Tasks can see users' roles only with Airflow's simple auth manager, whose configuration lists them. With another auth
manager nobody is refused here: Airflow alone checks the permissions.
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
    named = [role.strip().lower() for role in os.environ.get(VARIABLE, "").split(",")]
    return list(filter(None, named)) or ROLES.split(",")


def deciders() -> list[str] | None:
    """Return the names of the users who have such a role; None if Airflow's configuration does not tell."""
    users = _users()
    return None if users is None else [name for name, role in users.items() if role in roles()]


def require_deciders() -> None:
    """Raise NotDecider if no user at all has such a role: nobody's answer could ever count."""
    if deciders() == []:
        raise NotDecider(
            f"nobody may answer a hold: {needed()}, and no user of Airflow has it. Nobody was asked, the writer stays"
            f" stopped. Set {VARIABLE} (roles with commas between them) or give a user such a role; then clear decide"
            " with downstream"
        )


def is_decider(name: str | None) -> bool:
    """Return whether the user may answer a hold and roll back, as far as that is known here.

    A name that is no user of Airflow may: it comes from a shell (`airflow dags trigger`), where people have the
    warehouse's password too.
    """
    users = _users() or {}
    return name not in users or users[name] in roles()


def require_decider(name: str | None, what: str, what_now: str) -> None:
    """Raise NotDecider unless the user may. `what` they wanted to do; `what_now`: sentences on what comes next."""
    if not is_decider(name):
        raise NotDecider(f"{name} may not {what}: {needed()}. {what_now}")


def needed() -> str:
    """Return in words which role it takes, or which permissions if roles are not known here."""
    if _users() is None:
        return "that takes the permissions to trigger warehouse_rollback and to answer required actions"
    return f"that takes the role {' or '.join(roles())}"


def _users() -> dict[str, str] | None:
    """Return each user's role in lower case; None if Airflow's configuration does not tell."""
    if conf.get("core", "auth_manager") != SIMPLE or conf.getboolean("core", "simple_auth_manager_all_admins"):
        return None
    # Each is name:role, or name:role:teams.
    users = [user.split(":") for user in conf.getlist("core", "simple_auth_manager_users")]
    return {name: role.lower() for name, role, *_ in users}
