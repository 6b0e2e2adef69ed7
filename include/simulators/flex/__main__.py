"""`python -m include.simulators.flex`: serve an account until SIGTERM or Ctrl-C.

Nothing of it outlives the process: after a restart crew calls have none of the lines that they had. With --database
it has the crew calls that the application names, a contact that people added on each.
"""

import argparse
import secrets
from uuid import UUID

import psycopg

from include.simulators import command
from include.simulators.flex import application
from include.simulators.flex.account import Account
from include.simulators.flex.app import create
from include.simulators.flex.changes import Mutation
from include.simulators.flex.config import Config


def _arguments() -> argparse.Namespace:
    defaults = Config()
    parser = command.parser("flex", __doc__)
    # An id that was given before a restart must not be given again for something else.
    parser.add_argument(
        "--seed", type=int, default=secrets.randbits(32), help="the data's seed; if not given, another at each start"
    )
    parser.add_argument("--elements", type=int, default=defaults.elements, help="crew calls (%(default)s)")
    parser.add_argument("--crew", type=int, default=defaults.crew, help="contacts on each of them (%(default)s)")
    parser.add_argument("--roles", type=UUID, nargs="+", metavar="ID", help="the account's business roles")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="Postgres with the application's tables, in the schema that its search_path names; filled if empty",
    )
    parser.add_argument("--token", default=defaults.token, help="the token it wants (%(default)s)")
    parser.add_argument("--now", metavar="INSTANT", help="where the clock stands still; if not given, it doesn't")
    parser.add_argument("--no-quota", action="store_true", help="any number of requests within an hour or a day")
    return parser.parse_args()


def _config(arguments: argparse.Namespace) -> Config:
    names = ("seed", "elements", "crew", "token", "now", "latency_ms")
    given = {name: getattr(arguments, name) for name in names}
    if arguments.roles:
        given["roles"] = tuple(arguments.roles)
    if arguments.no_quota:
        given |= {"per_hour": None, "per_day": None}
    return Config(**given)


def main() -> None:
    """Serve; prints one line with the URL when it listens. The first answer comes when all rows are made."""
    arguments = _arguments()
    account = Account(_config(arguments))
    listener = command.listen("flex", arguments)
    if arguments.database:
        _book(account, arguments.database)
    command.serve("flex", create(account), listener)


def _book(account: Account, database: str) -> None:
    """Make the crew calls that the application names."""
    try:
        named = account.create(application.set_up(database))
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable) as failed:
        raise SystemExit(
            f"flex simulator: the database isn't ready ({str(failed).splitlines()[0]}); check --database"
        ) from failed
    account.mutate([Mutation("add", element_id) for element_id in named])


if __name__ == "__main__":
    main()
