"""The application that owns the images: its tables, its rows, and what its users and its worker do to them.

The store serves the objects; here is the database that names them. The connection's current schema is the
application's, and its tables are named without one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import tenacity
from psycopg import sql

from include.simulators.storage import invented
from include.simulators.storage.invented import path_style, staged_key, staged_url, upload_key

_TABLES = """
CREATE TYPE image_status AS ENUM ('queued', 'processing', 'ready', 'error');

CREATE TABLE users (
    id uuid PRIMARY KEY,
    auth0_sub text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE projects (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE original_images (
    id uuid PRIMARY KEY,
    content_hash text NOT NULL UNIQUE,
    s3_key text NOT NULL,
    file_size bigint NOT NULL,
    mime_type text NOT NULL,
    reference_count integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE images (
    id uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    original_url text,
    staged_url text,
    room_type text,
    style text,
    seed bigint,
    status image_status NOT NULL DEFAULT 'queued',
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    cost_usd numeric(10, 4),
    model_used text,
    processing_time_ms integer,
    replicate_prediction_id text,
    deleted_at timestamptz,
    prompt text,
    original_image_id uuid REFERENCES original_images
);
CREATE INDEX images_project_id ON images (project_id);
CREATE INDEX images_status ON images (status);
CREATE INDEX images_original_image_id ON images (original_image_id);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    image_id uuid NOT NULL REFERENCES images ON DELETE CASCADE,
    type text NOT NULL,
    payload_json jsonb NOT NULL,
    status text NOT NULL,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz
);
"""


@dataclass(frozen=True)
class Image:
    """A new image, with the keys under which its objects are to lie."""

    id: UUID
    original_key: str
    staged_key: str


def create(conn: psycopg.Connection) -> None:
    """Make the application's tables in the current schema; does nothing where it has a table `images`."""
    with conn.transaction():
        found = conn.execute("SELECT to_regclass(format('%I.images', current_schema())) IS NOT NULL").fetchone()
        if not found[0]:
            conn.execute(_TABLES)


def fill(conn: psycopg.Connection, images: int, *, bucket: str, endpoint: str, seed: int = 1) -> list[str]:
    """Fill the empty tables with the rows of the seed. Return the keys of the objects that they need, as `keys` does.

    `endpoint` (without a trailing slash) is where the store was reached when the path-style URLs were made.
    """
    held: dict[str, None] = {}

    def rows() -> Iterator[tuple[Any, ...]]:
        for image in invented.images(seed, images):
            held.update(dict.fromkeys(image.object_keys()))
            yield image.columns(bucket, endpoint)

    with conn.transaction():
        _copy(conn, "users", invented.USER_COLUMNS, invented.users(seed, images))
        _copy(conn, "projects", invented.PROJECT_COLUMNS, invented.projects(seed, images))
        _copy(conn, "original_images", invented.ORIGINAL_COLUMNS, invented.originals(invented.images(seed, images)))
        _copy(conn, "images", invented.IMAGE_COLUMNS, rows())
        conn.execute("ANALYZE images")
    return list(held)


def keys(images: int, seed: int = 1) -> list[str]:
    """The keys that the store must hold so that nothing of `fill`'s rows is missing, each once.

    None of soft-deleted rows: the application removed their objects.
    """
    return list(dict.fromkeys(key for image in invented.images(seed, images) for key in image.object_keys()))


def set_up(database: str, images: int, *, bucket: str, endpoint: str, seed: int) -> None:
    """Wait until the database answers, then `create` and `fill` in the schema that its search_path names.

    Makes the schema, too, and does nothing where `images` has rows. Raises psycopg.OperationalError when the
    database hasn't answered within a minute.
    """
    with _patient(database) as conn:
        _create_schema(conn)
        create(conn)
        if not conn.execute("SELECT EXISTS (SELECT FROM images)").fetchone()[0]:
            fill(conn, images, bucket=bucket, endpoint=endpoint, seed=seed)


def upload(
    conn: psycopg.Connection, *, bucket: str, endpoint: str, name: str = "new room", extension: str = ".jpg"
) -> Image:
    """A user asks for an upload: a `queued` row of the first project, whose object is yet to come."""
    project, user = conn.execute("SELECT id, user_id FROM projects ORDER BY id LIMIT 1").fetchone()
    image_id = uuid4()
    key = upload_key(str(user), name, str(uuid4()), extension)
    conn.execute(
        "INSERT INTO images (id, project_id, original_url) VALUES (%s, %s, %s)",
        (image_id, project, path_style(key, bucket, endpoint)),
    )
    return Image(image_id, key, staged_key(str(image_id)))


def start(conn: psycopg.Connection, image_id: UUID) -> bool:
    """The worker takes a queued image; False when there is none to take. The same holds for what follows."""
    return _changed(
        conn,
        "UPDATE images SET status = 'processing', updated_at = now() WHERE id = %s AND status = 'queued'",
        (image_id,),
    )


def finish(conn: psycopg.Connection, image_id: UUID, *, bucket: str) -> bool:
    """The worker is done: the staged object lies in the bucket and the row names it."""
    return _changed(
        conn,
        "UPDATE images SET status = 'ready', staged_url = %s, error = NULL, updated_at = now() "
        "WHERE id = %s AND status IN ('queued', 'processing')",
        (staged_url(staged_key(str(image_id)), bucket), image_id),
    )


def fail(conn: psycopg.Connection, image_id: UUID, message: str) -> bool:
    """The worker gives up."""
    return _changed(
        conn,
        "UPDATE images SET status = 'error', error = %s, updated_at = now() "
        "WHERE id = %s AND status IN ('queued', 'processing')",
        (message, image_id),
    )


def soft_delete(conn: psycopg.Connection, image_id: UUID) -> bool:
    """A user deletes the image."""
    return _changed(
        conn,
        "UPDATE images SET deleted_at = now(), updated_at = now() WHERE id = %s AND deleted_at IS NULL",
        (image_id,),
    )


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(psycopg.OperationalError),
    wait=tenacity.wait_fixed(0.5),
    stop=tenacity.stop_after_delay(60),
    reraise=True,
)
def _patient(database: str) -> psycopg.Connection:
    return psycopg.connect(database, autocommit=True)


def _create_schema(conn: psycopg.Connection) -> None:
    """Make the first schema of the search path, unless one of the path is there."""
    row = conn.execute("SELECT current_schema(), current_setting('search_path')").fetchone()
    if row[0] is None:
        name = row[1].split(",")[0].strip().strip('"')
        conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name)))


def _changed(conn: psycopg.Connection, statement: str, values: tuple[Any, ...]) -> bool:
    return conn.execute(statement, values).rowcount == 1


def _copy(conn: psycopg.Connection, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with conn.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)) as copy:
        for row in rows:
            copy.write_row(row)
