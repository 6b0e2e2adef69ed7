"""`python -m include.simulators.repairshopr`: serve an account until SIGTERM or Ctrl-C."""

import argparse
from typing import get_args

from include.simulators import command
from include.simulators.repairshopr.account import Account
from include.simulators.repairshopr.app import create
from include.simulators.repairshopr.config import RESOURCES, Config, RetryAfter, Sort


def _arguments() -> argparse.Namespace:
    defaults = Config()
    parser = command.parser("repairshopr", __doc__)
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the data's seed (%(default)s)")
    parser.add_argument("--invoices", type=int, default=defaults.invoices, help="invoices (%(default)s)")
    for name in RESOURCES:
        if name != "invoices":
            option = name.replace("_", "-")
            parser.add_argument(f"--{option}", type=int, help=f"{option}, if not in proportion to the invoices")
    parser.add_argument("--token", default=defaults.token, help="the API token it wants (%(default)s)")
    parser.add_argument("--sort", choices=get_args(Sort), default=defaults.sort, help="order of lists (%(default)s)")
    parser.add_argument(
        "--page-size",
        type=_page_size,
        action="append",
        default=[],
        metavar="RESOURCE=ROWS",
        help="rows a page where they differ from the vendor's; may be repeated",
    )
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--rate-limit", type=int, default=defaults.rate_limit, help="requests in 60 s (%(default)s)")
    limit.add_argument("--no-limit", dest="rate_limit", action="store_const", const=None, help="no rate limit")
    parser.add_argument(
        "--retry-after",
        choices=get_args(RetryAfter),
        default=defaults.retry_after,
        help="what a 429 says of when to come again (%(default)s)",
    )
    return parser.parse_args()


def _page_size(text: str) -> tuple[str, int]:
    resource, _, rows = text.partition("=")
    if resource not in RESOURCES or not rows.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} isn't RESOURCE=ROWS with one of {', '.join(RESOURCES)}")
    return resource, int(rows)


def _config(arguments: argparse.Namespace) -> Config:
    given = {name: value for name, value in vars(arguments).items() if name not in ("host", "port", "page_size")}
    sizes = {name: given.pop(name) for name in RESOURCES}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    return Config.sized(**sizes, page_sizes=dict(arguments.page_size), **given)


def main() -> None:
    """Serve; prints one line with the URL when it listens."""
    arguments = _arguments()
    app = create(Account(_config(arguments)))
    listener = command.listen("repairshopr", arguments)
    command.serve("repairshopr", app, listener)


if __name__ == "__main__":
    main()
