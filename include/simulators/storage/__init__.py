"""An S3 store to test against: signatures, lists, objects, rights and faults to order."""

from collections.abc import Iterator
from contextlib import contextmanager

from include.simulators import serving
from include.simulators.account import Counters
from include.simulators.storage.app import create
from include.simulators.storage.bucket import Bucket
from include.simulators.storage.config import Config
from include.simulators.storage.control import Control, Store
from include.simulators.storage.faults import Fault
from include.simulators.storage.rclone_server import rclone

__all__ = ["Config", "Control", "Counters", "Fault", "Store", "rclone", "running"]


@contextmanager
def running(config: Config | None = None) -> Iterator[Store]:
    """Serve an empty bucket on a free loopback port, in a thread; nothing of it is left afterwards."""
    config = config or Config()
    with serving.in_thread(create(Bucket(config))) as url:
        yield Store(url, config.access_key, config.secret_key, config.bucket, Control(url))
