"""`python -m include.simulators.square`: serve a seller until SIGTERM or Ctrl-C."""

import argparse

from include.simulators import command
from include.simulators.square.app import create
from include.simulators.square.config import SIZES, Config
from include.simulators.square.seller import Seller


def _arguments() -> argparse.Namespace:
    defaults = Config()
    parser = command.parser("square", __doc__)
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the data's seed (%(default)s)")
    parser.add_argument("--orders", type=int, default=defaults.orders, help="orders (%(default)s)")
    for name in SIZES:
        if name != "orders":
            option = name.replace("_", "-")
            parser.add_argument(f"--{option}", type=int, help=f"{option}, if not in proportion to the orders")
    parser.add_argument("--token", default=defaults.token, help="the access token it wants (%(default)s)")
    parser.add_argument("--now", metavar="INSTANT", help="where the clock stands still; if not given, it doesn't")
    parser.add_argument(
        "--cursor-seconds", type=int, default=defaults.cursor_seconds, help="how long cursors are good (%(default)s)"
    )
    return parser.parse_args()


def _config(arguments: argparse.Namespace) -> Config:
    given = {name: value for name, value in vars(arguments).items() if name not in ("host", "port")}
    sizes = {name: given.pop(name) for name in SIZES}
    return Config.sized(**{name: size for name, size in sizes.items() if size is not None}, **given)


def main() -> None:
    """Serve; prints one line with the URL when it listens."""
    arguments = _arguments()
    app = create(Seller(_config(arguments)))
    listener = command.listen("square", arguments)
    command.serve("square", app, listener)


if __name__ == "__main__":
    main()
