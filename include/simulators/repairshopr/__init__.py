"""A RepairShopr account to test against: API v1, deterministic data, drift and faults to order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from include.simulators import serving
from include.simulators.repairshopr.account import Account, Counters
from include.simulators.repairshopr.app import create
from include.simulators.repairshopr.config import Config
from include.simulators.repairshopr.control import Control
from include.simulators.repairshopr.faults import Fault
from include.simulators.repairshopr.store import Mutation

__all__ = ["Config", "Control", "Counters", "Fault", "Mutation", "Simulator", "running"]


@dataclass(frozen=True)
class Simulator:
    """A running simulator: `url` without the API's base path, the token it wants, and its control."""

    url: str
    token: str
    control: Control


@contextmanager
def running(config: Config | None = None) -> Iterator[Simulator]:
    """Serve an account on a free loopback port, in a thread; nothing of it is left afterwards."""
    config = config or Config()
    with serving.in_thread(create(Account(config))) as url:
        yield Simulator(url, config.token, Control(url))
