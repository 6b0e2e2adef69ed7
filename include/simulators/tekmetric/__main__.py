"""`python -m include.simulators.tekmetric`: serve an account until SIGTERM or Ctrl-C."""

import argparse

import msgspec

from include.simulators import command
from include.simulators.tekmetric.account import Account
from include.simulators.tekmetric.app import create
from include.simulators.tekmetric.config import Config, Shop


def _shops(text: str) -> tuple[Shop, ...]:
    return msgspec.json.decode(text, type=tuple[Shop, ...])


def _arguments() -> argparse.Namespace:
    defaults = Config()
    parser = command.parser("tekmetric", __doc__)
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the data's seed (%(default)s)")
    parser.add_argument(
        "--shops",
        type=_shops,
        metavar="JSON",
        help='the shops, as the connection names them: [{"tm_id": 6212, "name": ..., "timezone": ...}, ...]',
    )
    parser.add_argument("--orders", type=int, default=defaults.orders, help="orders in all shops (%(default)s)")
    parser.add_argument("--customers", type=int, help="customers in all shops, if not one for four orders")
    parser.add_argument("--employees", type=int, help=f"employees in each shop ({defaults.employees})")
    parser.add_argument("--days", type=int, help=f"how far back the orders reach ({defaults.days})")
    parser.add_argument("--token", default=defaults.token, help="the token it wants (%(default)s)")
    parser.add_argument("--now", metavar="INSTANT", help="where the clock stands still; if not given, it doesn't")
    parser.add_argument("--board-limit", type=int, help=f"orders that a board shows at most ({defaults.board_limit})")
    return parser.parse_args()


def _config(arguments: argparse.Namespace) -> Config:
    given = {name: value for name, value in vars(arguments).items() if name not in ("host", "port", "now")}
    return Config.sized(**{name: value for name, value in given.items() if value is not None}, now=arguments.now)


def main() -> None:
    """Serve; prints one line with the URL when it listens."""
    arguments = _arguments()
    app = create(Account(_config(arguments)))
    listener = command.listen("tekmetric", arguments)
    command.serve("tekmetric", app, listener)


if __name__ == "__main__":
    main()
