"""`python -m include.simulators.storage`: serve a bucket and fill the application's tables until SIGTERM or Ctrl-C.

Our own server has all objects back after a restart. With --rclone they lie in a folder and are made only once:
what was deleted stays deleted.
"""

import argparse
import shutil
from pathlib import Path

import psycopg

from include.simulators import command, serving
from include.simulators.storage import application, rclone_server
from include.simulators.storage.app import create
from include.simulators.storage.bucket import Bucket
from include.simulators.storage.config import Config


def _arguments() -> argparse.Namespace:
    defaults = Config()
    parser = command.parser("storage", __doc__)
    parser.add_argument("--access-key", default=defaults.access_key, help="(%(default)s)")
    parser.add_argument("--secret-key", default=defaults.secret_key, help="(%(default)s)")
    parser.add_argument("--bucket", default=defaults.bucket, help="(%(default)s)")
    parser.add_argument("--images", type=int, default=2_000, help="rows of the application (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the rows' seed (%(default)s)")
    parser.add_argument(
        "--database", metavar="URL", help="Postgres in which to make the rows, in the schema that its search_path names"
    )
    parser.add_argument(
        "--rclone", metavar="PATH", help="serve by this rclone in place of our own server: without latency"
    )
    parser.add_argument("--folder", type=Path, help="where rclone's objects lie")
    arguments = parser.parse_args()
    if bool(arguments.rclone) != bool(arguments.folder):
        parser.error("--rclone and --folder need each other")
    if arguments.rclone and not shutil.which(arguments.rclone):
        parser.error(f"--rclone: there is no program {arguments.rclone}")
    return arguments


def main() -> None:
    """Serve; prints one line with the URL when it listens. The first answer comes when rows and objects are made."""
    given = _arguments()
    listener = command.listen("storage", given)
    url = serving.url_of(listener)
    if given.database:
        try:
            application.set_up(given.database, given.images, bucket=given.bucket, endpoint=url, seed=given.seed)
        except psycopg.OperationalError as failed:
            raise SystemExit(
                f"storage simulator: the database doesn't answer ({str(failed).splitlines()[0]}); check --database"
            ) from failed
    keys = application.keys(given.images, given.seed)
    if given.rclone:
        rclone_server.lay(given.folder, given.bucket, keys)
        command.announce("storage", listener)
        rclone_server.become(given.folder, listener, given.access_key, given.secret_key, given.rclone)
    bucket = Bucket(Config(given.access_key, given.secret_key, given.bucket, latency_ms=given.latency_ms))
    bucket.put(keys)
    command.serve("storage", create(bucket), listener)


if __name__ == "__main__":
    main()
