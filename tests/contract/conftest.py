"""An account of the source that the test is for, and a run on it."""

from collections.abc import Iterator
from importlib import import_module

import psycopg
import pytest

from tests.contract.account import Account, Run


@pytest.fixture
def account(warehouse: str, source: str) -> Iterator[Account]:
    with import_module(f"tests.contract.{source}").opened(warehouse) as account:
        yield account


@pytest.fixture
def run(account: Account, conn: psycopg.Connection, source: str) -> Run:
    return Run(account, conn, f"{source}_reconcile/contract")


@pytest.fixture
def filled(run: Run) -> Run:
    """The run, after the account's first sync."""
    run.sync()
    return run
