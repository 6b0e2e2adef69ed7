"""A simulated account, fresh for each test; a photos of images with its store, as fresh; shops and crews."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from include.api.client import ApiClient
from include.simulators import flex as flex_simulator
from include.simulators import repairshopr as simulator
from include.simulators import storage
from include.sources import get_source
from include.sources.mirror.context import MirrorContext
from include.sources.mirror.sync import sync_entities
from include.sources.storage import look
from include.warehouse import roles
from stack.postgres import Server
from tests import photos as photo_accounts
from tests.conftest import copy_of, with_staging_tables
from tests.photos import Photos

from . import tekmetric
from .flex import Agency
from .tekmetric import Shops

SOURCE = get_source("repairshopr")
RUN = "repairshopr_reconcile/test"
SIZES = {
    "customers": 40,
    "invoices": 120,
    "line_items": 400,
    "payments": 90,
    "products": 30,
    "tickets": 60,
    "estimates": 20,
}


@dataclass(frozen=True)
class Shop:
    """A simulated account and the means to reach it."""

    simulator: simulator.Simulator
    context: MirrorContext

    @property
    def control(self) -> simulator.Control:
        return self.simulator.control


@contextmanager
def opened_shop(conn: psycopg.Connection, **fields: object) -> Iterator[Shop]:
    """A shop of the given Config; without a rate limit unless `fields` set one."""
    with simulator.running(simulator.Config(**{"rate_limit": None} | fields)) as account:
        url, headers = account.url + SOURCE.base_path, SOURCE.authorize(account.token)
        patience = {"timeout": (2, 2), "attempts": 3, "backoff": (0.01, 0.05)}
        with ApiClient(SOURCE.name, url, headers=headers, **patience) as client:
            yield Shop(account, MirrorContext(SOURCE, client, conn, RUN))


@pytest.fixture
def open_shop(conn: psycopg.Connection) -> Iterator[Callable[..., Shop]]:
    """Opens a shop of the given Config."""
    with ExitStack() as shops:
        yield lambda **fields: shops.enter_context(opened_shop(conn, **fields))


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    """A small account."""
    return open_shop(**SIZES)


@pytest.fixture(scope="session")
def first_sync(postgres: Server, staged: Callable[[str], str]) -> Iterator[str]:
    """The name of a database with the first sync of a small account, the template of others."""
    for url in copy_of(postgres, staged(SOURCE.name), roles.TASKS):
        with psycopg.connect(url, autocommit=True) as conn, opened_shop(conn, **SIZES) as shop:
            sync_entities(shop.context)
        yield conninfo_to_dict(url)["dbname"]


@pytest.fixture
def synced_before() -> None:
    """The test's warehouse has the first sync of a small account from the start."""


@pytest.fixture
def filled(synced_before: None, shop: Shop) -> Shop:
    """A small account whose copy is complete, by the first sync of another one like it."""
    return shop


@pytest.fixture(scope="session")
def application(postgres: Server) -> Iterator[tuple[str, list[str]]]:
    """The name of a database with the application's 120 images, the template of the others, and its store's keys."""
    name = f"template_{uuid4().hex}"
    yield name, photo_accounts.database(postgres, name, 120)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def with_storage_tables(postgres: Server, migrated: str) -> Iterator[str]:
    """The name of a template with the staging tables of storage's checks."""
    yield from with_staging_tables(postgres, migrated, "storage", photo_accounts.PULLS)


@pytest.fixture(scope="session")
def store_server() -> Iterator[storage.Store]:
    with storage.running() as running:
        yield running


@pytest.fixture
def store(store_server: storage.Store, application: tuple[str, list[str]]) -> Iterator[storage.Store]:
    """The simulator with the application's objects, well-behaved."""
    store_server.control.put(application[1])
    store_server.control.reset_counters()
    yield store_server
    store_server.control.clear()
    store_server.control.set(**asdict(storage.Config()))
    store_server.control.delete(store_server.control.keys())


@pytest.fixture
def images_url(postgres: Server, application: tuple[str, list[str]]) -> Iterator[str]:
    """The application's database, a copy for each test."""
    yield from copy_of(postgres, application[0])


@pytest.fixture
def photos(conn: psycopg.Connection, images_url: str, store: storage.Store) -> Iterator[Photos]:
    """The application in step with its store."""
    with (
        psycopg.connect(images_url, autocommit=True) as images,
        photo_accounts.opened(conn, images, store) as opened,
    ):
        yield opened


@pytest.fixture
def by_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object is asked for by itself, first and second time."""
    monkeypatch.setattr(look, "LIST_COST", 1_000_000)


@pytest.fixture
def by_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket is listed, first and second time."""
    monkeypatch.setattr(look, "LIST_COST", 0)


@pytest.fixture(params=["by_lists", "by_heads"])
def either_way(request: pytest.FixtureRequest) -> str:
    """Both ways to look."""
    request.getfixturevalue(request.param)
    return request.param


@pytest.fixture(scope="session")
def first_load(postgres: Server, staged: Callable[[str], str]) -> Iterator[str]:
    """The name of a database with the mirror of the shops as they are at the start."""
    for url in copy_of(postgres, staged(tekmetric.SOURCE.name)):
        with psycopg.connect(url, autocommit=True) as conn, tekmetric.trading(conn) as shops:
            shops.sync("backfill")
        yield conninfo_to_dict(url)["dbname"]


# What stands in the warehouse at a test's start, by a fixture that the test asks for.
TEMPLATES = {"loaded": "first_load", "synced_before": "first_sync", "photos": "with_storage_tables"}
# The mirror whose staging tables stand there, by the same.
MIRRORS = {"open_shop": "repairshopr", "shops": "tekmetric", "seller": "square"}


@pytest.fixture
def warehouse(
    request: pytest.FixtureRequest, postgres: Server, migrated: str, staged: Callable[[str], str]
) -> Iterator[str]:
    """The libpq URL of a warehouse of its own for each test, with the copy of the account that it works with."""
    templates = [template for name, template in TEMPLATES.items() if name in request.fixturenames]
    mirrors = [mirror for name, mirror in MIRRORS.items() if name in request.fixturenames]
    template = staged(mirrors[0]) if mirrors else migrated
    yield from copy_of(postgres, request.getfixturevalue(templates[0]) if templates else template)


@pytest.fixture
def shops(conn: psycopg.Connection) -> Iterator[Shops]:
    """Two shops of which nothing is mirrored."""
    with tekmetric.trading(conn) as shops:
        yield shops


@pytest.fixture
def loaded(conn: psycopg.Connection) -> Iterator[Shops]:
    """Two shops whose mirror has had its first load, an hour ago."""
    with tekmetric.trading(conn) as shops:
        shops.control.advance(3600)
        yield shops


@pytest.fixture(scope="module")
def account() -> Iterator[flex_simulator.Simulator]:
    """An account of Flex, one for the tests of a module."""
    with flex_simulator.running() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def url(postgres: Server, migrated: str) -> Iterator[str]:
    """A warehouse, one for the tests of a module."""
    yield from copy_of(postgres, migrated)


@pytest.fixture
def agency(account: flex_simulator.Simulator, url: str) -> Iterator[Agency]:
    """Nobody's jobs yet, and an account of Flex that has no crew call of theirs."""
    with psycopg.connect(url, autocommit=True) as conn:
        agency = Agency(account, url, conn)
        agency.clean()
        yield agency
