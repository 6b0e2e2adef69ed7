"""The images' side of the contract: an application in a schema of the warehouse, as the embedded stack has it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import boto3
import psycopg
from botocore.config import Config

from include.api.bucket import Bucket
from include.api.s3_client import client_config
from include.confidence.summary import Plan
from include.simulators import storage as simulator
from include.simulators.storage import Fault, application, invented
from include.sources import get_source
from include.warehouse import row_security
from tests import photos
from tests.contract.account import CountedAnswer, Questions

IMAGES, SEED = 30, 1
STORE = simulator.Config()
# Its first client costs more than all else that a verb does, the later ones next to nothing.
SESSION = boto3.session.Session(STORE.access_key, STORE.secret_key, region_name=STORE.region)
IMPATIENT = client_config(8).merge(
    Config(s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1})
)
ANSWER = CountedAnswer("list", "Size", {"Bytes": "1"}, ("StorageClass", "STANDARD", "GLACIER"))
# The images that have both of their objects for themselves.
READY = [
    image for image in invented.images(SEED, IMAGES) if image.staged_key and not image.deleted and image.shared is None
]


class Account:
    """Thirty images, read ten at a time."""

    source = replace(get_source("storage"), pause=timedelta(0))
    computed = ()
    atomic = True
    params: Mapping[str, Any] = {**photos.PARAMS, "batch_size": 10}
    # The first image that drifts: so few objects are asked for one by one, where a whole scan lists.
    part: Mapping[str, Any] = {"limit": 1, "cursor": str(UUID(int=UUID(READY[0].id).int - 1))}

    def __init__(self, store: simulator.Store, warehouse: str):
        self.questions = Questions()
        self._store = store
        self._warehouse = warehouse
        self._failing = False

    @contextmanager
    def bucket(self, name: str) -> Iterator[Bucket]:
        client = SESSION.client("s3", endpoint_url=self._store.url, config=IMPATIENT)
        client.meta.events.register("before-send.s3", self._ask_store)
        yield Bucket(client, self._store.bucket, connection=name)

    @contextmanager
    def database(self, name: str) -> Iterator[psycopg.Connection]:
        with self.database_of_application(cursor_factory=asking(self)) as conn:
            yield conn

    @property
    def url(self) -> str:
        return self._store.url

    def database_of_application(self, **options: Any) -> psycopg.Connection:
        return psycopg.connect(self._warehouse, autocommit=True, options="-csearch_path=app", **options)

    def copy(self) -> Mapping[str, Mapping]:
        with self.database_of_application() as conn:
            return {"images": dict(conn.execute("SELECT id, to_jsonb(i) FROM images i").fetchall())}

    def change(self) -> None:
        """The worker has just finished an image, and its result is lost."""
        image = READY[0]
        self._store.control.delete([image.staged_key])
        with self.database_of_application() as conn:
            conn.execute("UPDATE images SET updated_at = now() - interval '20 minutes' WHERE id = %s", [image.id])

    def drift(self) -> Mapping[str, Plan]:
        """An original that is lost, and a result."""
        original, staged = READY[:2]
        self._store.control.delete([original.original_key, staged.staged_key])
        return {"images": Plan(insert=0, update=2, delete=0)}

    def fail(self) -> None:
        self._failing = True

    @contextmanager
    def down(self) -> Iterator[None]:
        self._store.control.fault(Fault("status", status=503, times=None))
        yield
        self._store.control.clear()

    def failing(self) -> bool:
        """Count a question, and tell whether it is to fail."""
        self.questions.ask()
        failing, self._failing = self._failing, False
        return failing

    def _ask_store(self, **_: object) -> None:
        if self.failing():
            self._store.control.fault(Fault("drop"))


def asking(account: Account) -> type[psycopg.Cursor]:
    """Cursors whose statements are questions; one that is to fail takes the connection with it."""

    class Asking(psycopg.Cursor):
        def execute(self, query: Any, *args: Any, **kwargs: Any) -> psycopg.Cursor:
            # What we may see is asked before the writer is looked at.
            if query is not row_security.HIDDEN and account.failing():
                self.connection.close()
            return super().execute(query, *args, **kwargs)

    return Asking


def fill(account: Account) -> list[str]:
    """Make the application's tables and fill them; returns the keys that the store has to hold."""
    with account.database_of_application() as conn:
        conn.execute("CREATE SCHEMA app")
        application.create(conn)
        return application.fill(conn, IMAGES, bucket=STORE.bucket, endpoint=account.url, seed=SEED)


@contextmanager
def opened(warehouse: str) -> Iterator[Account]:
    """An application with all of its objects; the store is gone afterwards."""
    with simulator.running() as store:
        account = Account(store, warehouse)
        store.control.put(fill(account))
        yield account
