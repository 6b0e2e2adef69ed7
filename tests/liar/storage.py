"""The images' storage on the liar's stage: the lies are told about objects, the copy is the status of images."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import Any

from starlette.types import ASGIApp

from include.simulators import storage as simulator
from include.simulators.serving import Simulator
from include.simulators.storage import application, invented
from include.simulators.storage.app import create
from include.simulators.storage.bucket import Bucket
from include.sources.storage.images import GRACE, ORIGINAL_MISSING, STAGED_MISSING
from tests.contract import storage as contract
from tests.liar import bucket_lies
from tests.liar.lies import Lie
from tests.liar.stage import NotMirrored, Rows
from tests.liar.wire import Asked

IMAGES = {image.id: image for image in invented.images(contract.SEED, contract.IMAGES)}
MARKED = (ORIGINAL_MISSING, STAGED_MISSING)
ROWS = "SELECT id::text, status::text, error, deleted_at IS NOT NULL, now() - updated_at FROM images ORDER BY id"
RECENT = "UPDATE images SET updated_at = now() - interval '20 minutes' WHERE id = %s"


class Control(simulator.Control):
    """Changes in steps, each of which says whether to put or to delete, and which keys."""

    def mutate(self, *mutations: tuple[str, list[str]]) -> None:
        for what, keys in mutations:
            (self.put if what == "put" else self.delete)(keys)


class Account(NotMirrored, contract.Account):
    """Thirty images; an image that is marked as missing counts as taken out of the copy."""

    copy_is_theirs = False

    def change(self, random: Random, about: Collection[str]) -> list[list[tuple[str, list[str]]]]:
        keys = self._store.control.keys()
        steps = []
        for _ in range(random.choice([1, 1, 2, 3])):
            step = random.choice(
                [("delete", [random.choice(keys)]), ("put", [f"uploads/new-{random.randrange(10**6)}"])]
            )
            self._store.control.mutate(step)
            steps.append([step])
        return steps

    def hide(self, random: Random, about: Collection[str]) -> list[list[tuple[str, list[str]]]]:
        keys = self._store.control.keys()
        return [[("delete", random.sample(keys, random.randint(1, len(keys) // 2)))]]

    def spoil(self, random: Random, about: Collection[str], most: int) -> list[str]:
        """Images that have changed lately, which the next sync looks at."""
        some = random.sample(sorted(IMAGES), random.randint(1, 2 * most))
        with self.database_of_application() as conn:
            for image_id in some:
                conn.execute(RECENT, [image_id])
        return [f"image {image_id} changed lately" for image_id in some]

    def truth(self) -> Rows:
        """The right state of each image by its objects, without the images that have to be marked."""
        keys = set(self._store.control.keys())
        with self.database_of_application() as conn:
            found = conn.execute(ROWS).fetchall()
        return {"images": {(row[0],): row[1:3] for row in found if not self._lost(row, keys)}}

    def _lost(self, row: tuple, keys: Collection[str]) -> bool:
        image_id, status, error, deleted, age = row
        if error in MARKED:
            return True
        if deleted or status in ("error", "processing") or age < GRACE + timedelta(seconds=1):
            return False
        image = IMAGES[image_id]
        staged = status == "ready" and image.staged_key is not None
        return image.original_key not in keys or (staged and image.staged_key not in keys)

    def waits_for_night(self, why: str) -> bool:
        """Of few images that a sync looks at, one that is lost is above the limit: a person decides in the night."""
        return "missing_in_doubt is" in why

    def live(self) -> Rows:
        with self.database_of_application() as conn:
            found = conn.execute(ROWS).fetchall()
        return {"images": {(row[0],): row[1:3] for row in found if row[2] not in MARKED}}


class Vendor:
    """The harness's knowledge of the store."""

    source = "storage"
    first_page = 1
    # A false HEAD that finds the object.
    past = frozenset({"swapped"})

    @contextmanager
    def account(self, running: Simulator, warehouse: str) -> Iterator[Account]:
        config = contract.STORE
        control = running.control
        store = simulator.Store(running.url, config.access_key, config.secret_key, config.bucket, control)
        yield Account(store, warehouse)

    def fill(self, account: Account) -> None:
        contract.fill(account)

    def settled(self) -> None:
        pass

    def application(self, *, other: bool = False) -> ASGIApp:
        bucket = Bucket(contract.STORE)
        if other:
            bucket.put(application.keys(contract.IMAGES, contract.SEED + 1))
        return create(bucket)

    def control(self, url: str) -> Control:
        return Control(url)

    def prepare(self, control: Control) -> None:
        control.put(application.keys(contract.IMAGES, contract.SEED))

    def present(self, control: Any, world: str) -> None:
        return None

    def family(self, asked: Asked) -> str:
        if asked.path.strip("/").count("/"):
            return "object"
        return "bucket" if asked.method == "HEAD" else "list"

    def kinds(self, family: str) -> Mapping[str, Lie]:
        return bucket_lies.KINDS

    def entities(self, family: str) -> Collection[str]:
        return ("images",)

    def records(self, family: str) -> str:
        return family

    def group(self, family: str) -> str:
        return "images"
