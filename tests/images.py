"""The simulated application and its store in the hand of a test: what the images are, what becomes of their objects."""

from dataclasses import asdict, dataclass
from datetime import datetime

import psycopg

from include.simulators.storage import Config, Control, application, invented

ORIGINAL, STAGED = "original missing in storage", "staged missing in storage"
SEED = 1
# Any host will do in a path-style URL.
ENDPOINT = "http://store.example:9000"


@dataclass(frozen=True)
class Images:
    """`size` images in the application's database, and the simulated store of their objects."""

    url: str
    control: Control
    size: int

    def rows(self) -> dict[str, tuple[str, str | None, datetime]]:
        """Every image as it stands: id -> (status, error, updated_at)."""
        with psycopg.connect(self.url) as conn:
            found = conn.execute("SELECT id::text, status::text, error, updated_at FROM images").fetchall()
        return {id_: tuple(rest) for id_, *rest in found}

    def marked(self) -> dict[str, str]:
        """The images that are in error by our hand: id -> message."""
        return {id_: error for id_, (_, error, _) in self.rows().items() if error in (ORIGINAL, STAGED)}

    def change(self, statement: str, *values: object) -> None:
        """Do what the application does."""
        with psycopg.connect(self.url) as conn:
            conn.execute(statement, values)

    def lose(self, originals: int, staged: int = 0) -> dict[str, str]:
        """Delete objects of so many ready images, in the order of their ids; id -> the message that each deserves."""
        ready = [i for i in invented.images(SEED, self.size) if i.staged_key and not i.deleted and i.shared is None]
        lost = sorted(ready, key=lambda image: image.id)[: originals + staged]
        self.control.delete([image.original_key for image in lost[:originals]])
        self.control.delete([image.staged_key for image in lost[originals:]])
        return {image.id: ORIGINAL if place < originals else STAGED for place, image in enumerate(lost)}

    def restore(self) -> None:
        """Make rows, objects, rights and habits what they were at the beginning."""
        with psycopg.connect(self.url) as conn:
            conn.execute("TRUNCATE users, original_images CASCADE")
            keys = application.fill(conn, self.size, bucket=Config().bucket, endpoint=ENDPOINT, seed=SEED)
        self.control.clear()
        self.control.set(**asdict(Config()))
        self.control.delete(self.control.keys())
        self.control.put(keys)
