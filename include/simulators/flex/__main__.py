"""`python -m include.simulators.flex`: serve an account until SIGTERM or Ctrl-C."""

import argparse
import os
from uuid import UUID

from include.simulators import serving
from include.simulators.flex.account import Account
from include.simulators.flex.app import create
from include.simulators.flex.config import Config


def _arguments() -> argparse.Namespace:
    defaults = Config()
    parser = argparse.ArgumentParser(prog="python -m include.simulators.flex", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the data's seed (%(default)s)")
    parser.add_argument("--elements", type=int, default=defaults.elements, help="crew calls (%(default)s)")
    parser.add_argument("--crew", type=int, default=defaults.crew, help="contacts on each of them (%(default)s)")
    parser.add_argument("--roles", type=UUID, nargs="+", metavar="ID", help="the account's business roles")
    parser.add_argument("--token", default=defaults.token, help="the token it wants (%(default)s)")
    parser.add_argument("--now", metavar="INSTANT", help="where the clock stands still; if not given, it doesn't")
    parser.add_argument("--latency-ms", type=int, default=0, help="milliseconds that each answer takes")
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
    """Serve; prints one line with the URL when it listens."""
    arguments = _arguments()
    app = create(Account(_config(arguments)))
    try:
        listener = serving.listen(arguments.host, arguments.port)
    except OSError as failed:
        raise SystemExit(
            f"flex simulator: can't listen on {arguments.host}:{arguments.port} ({os.strerror(failed.errno)}); "
            "choose another --port"
        ) from failed
    serving.in_foreground(app, listener, ready=lambda: print(f"flex simulator: {serving.url_of(listener)}", flush=True))


if __name__ == "__main__":
    main()
