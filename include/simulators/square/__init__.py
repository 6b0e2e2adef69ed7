"""A Square seller to test against: API v2, deterministic data, changes, time and faults to order."""

from collections.abc import Iterator
from contextlib import contextmanager

from include.simulators import serving
from include.simulators.account import Counters
from include.simulators.serving import Simulator
from include.simulators.square.app import create
from include.simulators.square.changes import Mutation
from include.simulators.square.config import Config
from include.simulators.square.control import Control
from include.simulators.square.faults import Fault
from include.simulators.square.seller import Seller

__all__ = ["Config", "Control", "Counters", "Fault", "Mutation", "Simulator", "running"]


@contextmanager
def running(config: Config | None = None) -> Iterator[Simulator[Control]]:
    """Serve a seller on a free loopback port, in a thread; nothing of it is left afterwards."""
    config = config or Config()
    with serving.in_thread(create(Seller(config))) as url:
        yield Simulator(url, config.token, Control(url))
