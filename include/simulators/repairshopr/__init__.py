"""A RepairShopr account to test against: API v1, deterministic data, drift and faults to order."""

from collections.abc import Iterator
from contextlib import contextmanager

from include.simulators import serving
from include.simulators.repairshopr.account import Account, Counters
from include.simulators.repairshopr.app import create
from include.simulators.repairshopr.config import Config
from include.simulators.repairshopr.control import Control
from include.simulators.repairshopr.faults import Fault
from include.simulators.repairshopr.store import Mutation
from include.simulators.serving import Simulator

__all__ = ["Config", "Control", "Counters", "Fault", "Mutation", "Simulator", "running"]


@contextmanager
def running(config: Config | None = None) -> Iterator[Simulator[Control]]:
    """Serve an account on a free loopback port, in a thread; nothing of it is left afterwards."""
    config = config or Config()
    with serving.in_thread(create(Account(config))) as url:
        yield Simulator(url, config.token, Control(url))
